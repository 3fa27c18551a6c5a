//! Compiled files run without the compiler, and only where and as they were compiled.

use attnc_runtime::manifest::{FORM, Manifest};
use attnc_runtime::{Engine, RuntimeError};
use attnc_compiler::kernel::plan::Plan;

fn folder(target: &str) -> tempfile::TempDir {
    let plan = Plan { name: "k".into(), axes: vec![], inputs: vec![], outputs: vec![], requires: vec![], buffers: vec![], launches: vec![], fixed: vec![], remarks: vec![] };
    let manifest = Manifest { form: FORM, compiler: "0".into(), target: target.into(), arch: None, plan, kernels: vec![] };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("manifest.json"), manifest.to_json().unwrap()).unwrap();
    dir
}

#[test]
fn files_of_another_target_are_refused() {
    let error = Engine::interp().load(folder("wgsl").path()).unwrap_err();
    assert!(matches!(&error, RuntimeError::Manifest { .. }), "{error}");
    assert!(error.to_string().contains("wgsl") && error.to_string().contains("interp"), "{error}");
    assert!(matches!(Engine::interp().load(folder("interp").path()), Err(RuntimeError::Unsupported { .. })));
    let empty = tempfile::tempdir().unwrap();
    assert!(Engine::interp().load(empty.path()).unwrap_err().to_string().contains("manifest.json"));
}

/// Needs a device; without one there is nothing to claim.
#[cfg(feature = "wgpu")]
#[test]
fn shaders_from_files_compute_what_the_program_says() {
    use attnc_compiler::lower::{Options, lower};
    use attnc_runtime::manifest::Entry;
    use attnc_runtime::{CompileOptions, TensorView};
    let Ok(engine) = Engine::wgsl() else {
        eprintln!("skipped: no WebGPU device");
        return;
    };
    let source = "kernel f(x: [t,d], y: [d]) -> (o: [t]) {\n    o = sum[d] x * y\n}\n";
    let kernel = Engine::interp().compile(source, None, &CompileOptions::default()).unwrap();
    let options = Options { extents: vec![None, Some(4)], caps: attnc_codegen::wgsl::caps(), tile: attnc_codegen::wgsl::tiles() };
    let program = lower(kernel.graph(), &options).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut kernels = vec![];
    for (i, k) in program.kernels.iter().enumerate() {
        let file = format!("k{i}.wgsl");
        std::fs::write(dir.path().join(&file), attnc_codegen::wgsl::compile(k).unwrap().text).unwrap();
        kernels.push(Entry::of(k, &file));
    }
    let manifest = Manifest { form: FORM, compiler: "0".into(), target: "wgsl".into(), arch: None, plan: program.plan, kernels };
    std::fs::write(dir.path().join("manifest.json"), manifest.to_json().unwrap()).unwrap();

    let loaded = engine.load(dir.path()).unwrap();
    let x: Vec<f32> = (0..40).map(|i| i as f32).collect();
    let y = [1.0f32, 2.0, 0.5, 0.0];
    let inputs = [("x", TensorView::new(&x, &[10, 4]).unwrap()), ("y", TensorView::new(&y, &[4]).unwrap())];
    assert_eq!(loaded.run(&inputs, &[]).unwrap(), kernel.run(&inputs, &[]).unwrap());

    std::fs::remove_file(dir.path().join("k0.wgsl")).unwrap();
    assert!(engine.load(dir.path()).unwrap_err().to_string().contains("k0.wgsl"));
}
