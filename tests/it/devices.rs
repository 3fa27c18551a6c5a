//! Programs and single ops on the GPU targets, against the interpreter. A device or tool that is missing is reported as skipped;
//! `ATTNC_REQUIRE=wgpu,ptxas` makes it a failure.

use attnc_compiler::interp;
use attnc_compiler::ops::{Scalar, ScalarOp};
use attnc_tests::cpu::difference;
use attnc_tests::device::{Scalars, example_inputs, op_agrees, op_columns, op_kernel, op_types, run_on, run_op};
use attnc_tests::graph_of;
use attnc_tests::random::{Case, random_case, shrink};
use attnc_runtime::driver::Device;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Counts and prints a test that cannot run here.
pub(crate) fn skip(what: &str, why: &str) {
    let required = std::env::var("ATTNC_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|r| r == what), "{what} is required: {why}");
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    eprintln!("skipped ({count}): no {what}: {why}");
}

fn source(name: &str) -> String {
    let path = format!("{}/../dsl-examples/{name}.attn", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Programs of one kind of structure each, with extents that are not multiples of anything, and scalars.
fn examples() -> Vec<(&'static str, Vec<(&'static str, usize)>, Scalars)> {
    let heads = [("b", 2), ("h", 4), ("g", 2), ("d", 16), ("e", 8)];
    let sized = |more: &[(&'static str, usize)]| heads.iter().chain(more).copied().collect::<Vec<_>>();
    let window: Scalars = BTreeMap::from([("window".to_string(), Scalar::Int(7))]);
    vec![
        ("softmax_causal", sized(&[("t", 37), ("s", 53)]), Scalars::new()),
        ("softmax_causal", sized(&[("t", 1), ("s", 70)]), Scalars::new()),
        ("sliding_window", sized(&[("t", 51)]), window),
        ("lightning", sized(&[("t", 45)]), Scalars::new()),
        ("gla", sized(&[("t", 45)]), Scalars::new()),
    ]
}

/// Largest relative difference over all outputs.
fn example_error(device: &dyn Device, name: &str, extents: &[(&str, usize)], scalars: &Scalars) -> Result<f64, String> {
    let graph = graph_of(&source(name))?;
    let inputs = example_inputs(&graph, extents, 7);
    let want = interp::run(&graph, &inputs, scalars).map_err(|e| e.to_string())?;
    let got = run_on(device, &graph, &inputs, scalars)?;
    Ok(want.iter().map(|(output, w)| got.get(output).map_or(f64::INFINITY, |g| difference(w, g))).fold(0.0, f64::max))
}

/// Random programs on a device, against the interpreter; the first that differs is shrunk to one that can be read.
fn random_programs(device: &dyn Device, seeds: std::ops::Range<u64>) {
    let check = |case: &Case| -> Option<String> {
        let graph = graph_of(&case.source()).ok()?;
        let want = interp::run(&graph, &case.inputs(), &BTreeMap::new()).ok()?;
        match run_on(device, &graph, &case.inputs(), &BTreeMap::new()) {
            Err(e) => Some(e),
            Ok(got) => disagreement(&want, &got),
        }
    };
    for seed in seeds {
        let case = random_case(seed);
        if let Some(what) = check(&case) {
            let small = shrink(&case, |c| check(c).is_some());
            panic!("seed {seed}: {what}\nsizes {:?}\n{}\n{:?}", small.sizes, small.source(), check(&small));
        }
    }
}

mod wgsl {
    use super::*;
    use attnc_compiler::kernel::Kernel;
    use attnc_runtime::RuntimeError;
    use attnc_runtime::driver::wgpu::{WebGpu, WgpuDriver, WgpuProgram};
    use std::sync::{Arc, OnceLock};

    fn device() -> Option<Arc<WgpuDriver>> {
        static DEVICE: OnceLock<Result<Arc<WgpuDriver>, RuntimeError>> = OnceLock::new();
        match DEVICE.get_or_init(|| WgpuDriver::new().map(Arc::new)) {
            Ok(driver) => Some(driver.clone()),
            Err(e) => {
                skip("wgpu", &e.to_string());
                None
            }
        }
    }

    #[test]
    fn examples_agree_with_the_interpreter() {
        let Some(driver) = device() else { return };
        let device = WebGpu(driver);
        for (name, extents, scalars) in examples() {
            let error = example_error(&device, name, &extents, &scalars).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(error < 1e-5, "{name} {extents:?}: error {error:e}");
        }
    }

    #[test]
    fn random_programs_agree_with_the_interpreter() {
        let Some(driver) = device() else { return };
        let device = WebGpu(driver);
        random_programs(&device, 0..30);
    }

    #[test]
    fn every_op_agrees_with_the_table() {
        let Some(driver) = device() else { return };
        let mut wrong = vec![];
        for op in ScalarOp::ALL {
            for (types, result) in op_types(*op) {
                let columns = op_columns(&types);
                let kernel: Kernel = op_kernel(*op, &types, result, 64);
                let code = WgpuProgram::new(driver.clone(), &[kernel]).unwrap_or_else(|e| panic!("{op:?} {types:?}: {e}"));
                let found = run_op(&code, &columns, result, 64).unwrap_or_else(|e| panic!("{op:?} {types:?}: {e}"));
                for (i, found) in found.into_iter().enumerate() {
                    let args: Vec<Scalar> = columns.iter().map(|c| c[i]).collect();
                    if !op_agrees(*op, &args, found) {
                        wrong.push(format!("{}{args:?} = {:?}, found {found:?}", op.name(), op.eval(&args)));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
    }
}

/// Assembly by NVIDIA's ptxas where it is at hand; results are checked on a GPU when there is one.
#[cfg(feature = "ptx")]
mod ptx {
    use super::*;
    use attnc_codegen::ptx::{ARCH, caps, compile, tiles};
    use attnc_compiler::graph::bind::bind;
    use attnc_compiler::kernel::Kernel;
    use attnc_compiler::lower::{Options, lower};
    use attnc_tests::device::example_scalars;
    use attnc_runtime::driver::cuda::{CudaDriver, CudaProgram, Nvidia};

    /// Compiles the kernels and lets ptxas assemble them: its complaints, `None` when ptxas is missing.
    fn assemble(kernels: &[Kernel]) -> Result<Option<()>, String> {
        let text = compile(kernels, ARCH).map_err(|e| e.to_string())?.text;
        let Some(ptxas) = attnc_tests::ptxas::find() else {
            skip("ptxas", "it is neither in .venv nor on the path");
            return Ok(None);
        };
        attnc_tests::ptxas::assemble(&ptxas, &text, ARCH).map(|_| Some(()))
    }

    /// Kernels of an example for inputs of these extents.
    fn kernels_of(name: &str, extents: &[(&str, usize)], scalars: &Scalars) -> Result<Vec<Kernel>, String> {
        let graph = graph_of(&source(name))?;
        let scalars = &example_scalars(&graph).into_iter().chain(scalars.clone()).collect::<Scalars>();
        let shapes = example_inputs(&graph, extents, 7).into_iter().map(|(n, a)| (n, a.shape)).collect();
        let bound = bind(&graph, &shapes, scalars).map_err(|e| e.to_string())?;
        let extents = bound.extents.iter().map(|e| Some(*e as i64)).collect();
        lower(&graph, &Options { extents, caps: caps(), tile: tiles() }).map(|p| p.kernels).map_err(|e| e.to_string())
    }

    #[test]
    fn examples_assemble_without_spills() {
        for (name, mut extents, scalars) in examples() {
            for (axis, extent) in &mut extents {
                if ["d", "e"].contains(axis) {
                    *extent = 64;
                }
            }
            let kernels = kernels_of(name, &extents, &scalars).unwrap_or_else(|e| panic!("{name}: {e}"));
            if assemble(&kernels).unwrap_or_else(|e| panic!("{name}: {e}")).is_none() {
                return;
            }
        }
    }

    #[test]
    fn every_op_assembles() {
        let mut kernels = vec![];
        for op in ScalarOp::ALL {
            kernels.extend(op_types(*op).into_iter().map(|(types, result)| op_kernel(*op, &types, result, 128)));
        }
        if let Err(log) = assemble(&kernels) {
            panic!("{log}");
        }
    }

    #[test]
    fn a_gpu_agrees_with_the_interpreter() {
        let driver = match CudaDriver::new(0) {
            Ok(driver) => driver,
            Err(e) => return skip("cuda", &e.to_string()),
        };
        for op in ScalarOp::ALL {
            for (types, result) in op_types(*op) {
                let columns = op_columns(&types);
                let code = CudaProgram::new(driver.clone(), &[op_kernel(*op, &types, result, 128)]).unwrap_or_else(|e| panic!("{op:?}: {e}"));
                let found = run_op(&code, &columns, result, 128).unwrap_or_else(|e| panic!("{op:?}: {e}"));
                for (i, found) in found.into_iter().enumerate() {
                    let args: Vec<Scalar> = columns.iter().map(|c| c[i]).collect();
                    assert!(op_agrees(*op, &args, found), "{}{args:?} = {:?}, found {found:?}", op.name(), op.eval(&args));
                }
            }
        }
        let device = Nvidia(driver);
        for (name, extents, scalars) in examples() {
            let error = example_error(&device, name, &extents, &scalars).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(error < 1e-5, "{name} {extents:?}: error {error:e}");
        }
        random_programs(&device, crate::random::seeds(0..100));
    }
}

/// What is wrong between two sets of results, if anything. Results that are small because larger numbers cancelled are not judged by
/// their own size.
fn disagreement(want: &BTreeMap<String, interp::Array>, got: &BTreeMap<String, interp::Array>) -> Option<String> {
    let grounded = |array: &interp::Array| {
        let mut array = array.clone();
        if let interp::Data::Real(x) = &mut array.data {
            x.push(0.25);
        }
        array
    };
    want.iter().find_map(|(name, w)| {
        let Some(g) = got.get(name) else { return Some(format!("no output `{name}`")) };
        let error = difference(&grounded(w), &grounded(g));
        (!(error <= 2e-4)).then(|| format!("`{name}`: error {error:e}"))
    })
}
