//! Every example against its oracle, from the files in `tests/golden` alone (`make golden` writes them): no Python, no network.

use attnc_runtime::{CompileOptions, DType, Engine, Kernel, Scalar, Storage, Tensor, TensorView};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};
use std::path::{Path, PathBuf};

/// Relative L2 error allowed: results are stored in f32, and targets accumulate in f32.
const EXACT: f64 = 1e-6;
const SINGLE: f64 = 2e-5;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Examples whose results the command line cannot give as their oracle does, with the reason.
fn left_out() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("tests/data/nonconforming.txt")).expect("the list of exceptions");
    text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once(':')).map(|(slug, _)| slug.to_string()).collect()
}

pub(crate) fn tensors<'a>(file: &'a SafeTensors<'a>, prefix: &str) -> Vec<(String, TensorView<'a>)> {
    let mut out = Vec::new();
    for (name, tensor) in file.iter() {
        let Some(name) = name.strip_prefix(prefix) else { continue };
        let storage = match tensor.dtype() {
            Dtype::F32 => Storage::F32,
            Dtype::I64 => Storage::I64,
            Dtype::U8 => Storage::U8,
            other => panic!("`{name}` has dtype {other:?}"),
        };
        out.push((name.to_string(), TensorView::from_bytes(storage, tensor.shape(), tensor.data()).expect("a sound tensor")));
    }
    out
}

/// What is wrong with a result, if anything. NaN never passes, ints are equal, infinities are where they should be.
fn wrong(want: &TensorView<'_>, got: &Tensor, tolerance: f64) -> Option<String> {
    if want.shape() != got.shape() {
        return Some(format!("has shape {:?}, expected {:?}", got.shape(), want.shape()));
    }
    if want.storage() != Storage::F32 {
        let differ = want.to_i64().iter().zip(got.view().to_i64()).filter(|(w, g)| **w != *g).count();
        return (differ > 0).then(|| format!("{differ} of {} ints differ", want.to_i64().len()));
    }
    let (mut error, mut size) = (0.0, 0.0f64);
    for (w, g) in want.to_f64().into_iter().zip(got.view().to_f64()) {
        if w.is_finite() && g.is_finite() {
            error += (w - g) * (w - g);
            size += w * w;
        } else if !(w == g || w.is_nan() && g.is_nan()) {
            return Some(format!("{g} in the place of {w}"));
        }
    }
    let error = error.sqrt() / size.sqrt().max(1e-30);
    (error > tolerance).then(|| format!("error {error:.1e}"))
}

/// The scalars of a call, as the header of its file has them.
pub(crate) fn scalars(header: &Metadata, kernel: &Kernel) -> Result<Vec<(String, Scalar)>, String> {
    let mut scalars = Vec::new();
    for (name, text) in header.metadata().iter().flatten() {
        let input = kernel.signature().inputs.iter().find(|i| i.name == *name).ok_or_else(|| format!("no scalar `{name}`"))?;
        scalars.push((name.clone(), match input.dtype {
            DType::Int => Scalar::Int(text.parse().map_err(|_| format!("`{name}` = {text}"))?),
            DType::Bool => Scalar::Bool(text != "0"),
            DType::Real | DType::Complex => Scalar::Real(text.parse().map_err(|_| format!("`{name}` = {text}"))?),
        }));
    }
    Ok(scalars)
}

/// What is wrong with one example on one target.
fn check(engine: &Engine, slug: &str, tolerance: f64) -> Result<(), String> {
    let bytes = std::fs::read(root().join("tests/golden").join(format!("{slug}.safetensors"))).map_err(|e| format!("no golden data: {e}"))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| e.to_string())?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| e.to_string())?;
    let source = std::fs::read_to_string(root().join("dsl-examples").join(format!("{slug}.attn"))).map_err(|e| e.to_string())?;
    let kernel = engine.compile(&source, None, &CompileOptions::default()).map_err(|e| e.to_string())?;
    let scalars = scalars(&header, &kernel)?;
    let scalars: Vec<_> = scalars.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    let given = tensors(&file, "in.");
    let given: Vec<_> = given.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
    let outputs = kernel.run(&given, &scalars).map_err(|e| e.to_string())?;
    for (name, want) in tensors(&file, "out.") {
        let got = outputs.get(&name).ok_or_else(|| format!("no output `{name}`"))?;
        if let Some(what) = wrong(&want, got, tolerance) {
            return Err(format!("`{name}`: {what}"));
        }
    }
    Ok(())
}

/// Every file of golden data on one target.
fn all(engine: &Engine, tolerance: f64) {
    let left = left_out();
    let mut failures = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("tests/golden")).expect("golden data") {
        let path = entry.expect("a file").path();
        let slug = path.file_stem().and_then(|s| s.to_str()).expect("a name").to_string();
        if path.extension().is_none_or(|e| e != "safetensors") || left.contains(&slug) {
            continue;
        }
        count += 1;
        if let Err(what) = check(engine, &slug, tolerance) {
            failures.push(format!("{slug}: {what}"));
        }
    }
    failures.sort();
    assert!(failures.is_empty(), "{} of {count} fail\n{}", failures.len(), failures.join("\n"));
    assert!(count >= 191, "only {count} examples");
}

#[test]
fn examples_agree_with_the_golden_data_on_the_interpreter() {
    all(&Engine::interp(), EXACT);
}

#[test]
fn examples_agree_with_the_golden_data_on_the_processor() {
    all(&Engine::cpu().expect("the processor"), SINGLE);
}

/// All in one process: a fault of a kernel ends it for those that come after.
#[cfg(feature = "ptx")]
#[test]
fn examples_agree_with_the_golden_data_on_a_gpu() {
    match Engine::ptx() {
        Ok(engine) => all(&engine, SINGLE),
        Err(e) => crate::devices::skip("cuda", &e.to_string()),
    }
}
