//! Runs a graph on the CPU target from interpreter arrays.

use attnc_compiler::graph::Graph;
use attnc_compiler::graph::bind::bind;
use attnc_compiler::interp::{Array, Data};
use attnc_compiler::kernel::caps::Caps;
use attnc_compiler::lower::{Options, lower};
use attnc_compiler::ops::Scalar;
use attnc_compiler::passes::tile::TileOptions;
use attnc_runtime::driver::cpu::{CpuDriver, CpuProgram};
use attnc_runtime::{Storage, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Outputs by name, from the compiled program; what went wrong as text.
pub fn run_cpu(graph: &Graph, inputs: &BTreeMap<String, Array>, scalars: &BTreeMap<String, Scalar>) -> Result<BTreeMap<String, Array>, String> {
    let shapes = inputs.iter().map(|(n, a)| (n.clone(), a.shape.clone())).collect();
    let bound = bind(graph, &shapes, scalars).map_err(|e| e.to_string())?;
    let extents = bound.extents.iter().map(|e| Some(*e as i64)).collect();
    let options = Options { extents, caps: Caps::cpu(), tile: TileOptions::default() };
    let program = lower(graph, &options).map_err(|e| e.to_string())?;
    let tensors: Vec<(String, Tensor)> = inputs
        .iter()
        .map(|(name, a)| {
            let tensor = match &a.data {
                Data::Real(x) => Tensor::from_f64(Storage::F32, &a.shape, x),
                Data::Int(x) => Tensor::new(x.clone(), &a.shape),
                Data::Bool(x) => Tensor::new(x.iter().map(|b| u8::from(*b)).collect::<Vec<u8>>(), &a.shape),
                Data::Complex(_) => return Err("a complex input".to_string()),
            };
            Ok((name.clone(), tensor.map_err(|e| e.to_string())?))
        })
        .collect::<Result<_, String>>()?;
    let views: Vec<_> = tensors.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    let scalars: Vec<(&str, Scalar)> = scalars.iter().map(|(n, s)| (n.as_str(), *s)).collect();
    let call = attnc_runtime::plan::bind(&program.plan, &views, &scalars, &[], &[]).map_err(|e| e.to_string())?;
    let driver = Arc::new(CpuDriver::new(None).map_err(|e| e.to_string())?);
    let code = CpuProgram::new(driver, &program.kernels).map_err(|e| e.to_string())?;
    let mut results = Vec::new();
    for (i, output) in program.plan.outputs.iter().enumerate() {
        let shape = attnc_runtime::plan::output_shape(&program.plan, &call, i);
        // Poison: an element that nobody writes shows.
        let n: usize = shape.iter().product();
        let tensor = match output.storage {
            Storage::F32 => Tensor::new(vec![f32::NAN; n], &shape),
            Storage::I64 => Tensor::new(vec![i64::MIN; n], &shape),
            storage => Tensor::zeros(storage, &shape),
        };
        results.push(tensor.map_err(|e| e.to_string())?);
    }
    let outputs = results.iter_mut().map(|t| t.view_mut()).collect();
    attnc_runtime::launch::launch(&program.plan, &code, &call, outputs, None).map_err(|e| e.to_string())?;
    Ok(program
        .plan
        .outputs
        .iter()
        .zip(results)
        .map(|(o, t)| {
            let view = t.view();
            let data = match t.storage() {
                Storage::I64 | Storage::I32 => Data::Int(view.to_i64()),
                Storage::U8 => Data::Bool(view.to_i64().into_iter().map(|x| x != 0).collect()),
                _ => Data::Real(view.to_f64()),
            };
            (o.name.clone(), Array { shape: t.shape().to_vec(), data })
        })
        .collect())
}

/// Largest difference relative to the largest magnitude; infinite where NaN or infinities differ, or ints do.
pub fn difference(a: &Array, b: &Array) -> f64 {
    if a.shape != b.shape {
        return f64::INFINITY;
    }
    match (&a.data, &b.data) {
        (Data::Real(x), Data::Real(y)) => {
            let scale = x.iter().filter(|v| v.is_finite()).fold(1e-30f64, |m, v| m.max(v.abs()));
            x.iter()
                .zip(y)
                .map(|(x, y)| match (x.is_finite(), y.is_finite()) {
                    (true, true) => (x - y).abs() / scale,
                    _ if x.is_nan() && y.is_nan() || x == y => 0.0,
                    _ => f64::INFINITY,
                })
                .fold(0.0, f64::max)
        }
        (Data::Int(x), Data::Int(y)) if x == y => 0.0,
        (Data::Bool(x), Data::Bool(y)) if x == y => 0.0,
        (_, _) => f64::INFINITY,
    }
}
