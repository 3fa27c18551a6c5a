//! `attnc bench`: how long a kernel takes on this machine.

use crate::args::BenchArgs;
use crate::fail::Failure;
use crate::files::TensorFile;
use crate::{made, out, run, settings};
use attnc_runtime::{CompileOptions, Engine, RuntimeError, Scalar, Tensor, TensorView, TensorViewMut};
use serde::Serialize;
use std::time::{Duration, Instant};

/// What was measured. Times in milliseconds, rates in 10^9 per second.
#[derive(Debug, Serialize)]
pub struct Report {
    pub kernel: String,
    pub target: &'static str,
    pub extents: Vec<(String, i64)>,
    /// Time of the first call: lowering, code generation and the run.
    pub first_ms: f64,
    pub median_ms: f64,
    pub fastest_ms: f64,
    pub runs: usize,
    /// Multiply-adds of all contractions count as two; masked elements count as well.
    pub dense_gflops: f64,
    /// Bytes of inputs and outputs, each once.
    pub bytes: u64,
    pub gbytes_per_s: f64,
    #[serde(flatten)]
    pub ceilings: Option<Ceilings>,
}

/// What the machine reaches at most, and the shares of it.
#[derive(Debug, Serialize)]
pub struct Ceilings {
    /// What matrix products alone reach on the same device, in GFLOP/s.
    pub matmul_gflops: f64,
    pub share_of_matmul: f64,
    /// What a plain copy reaches on this machine, counting bytes read and written.
    pub copy_gbytes_per_s: f64,
    pub share_of_copy: f64,
}

pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    let engine = run::engine(args.target)?;
    let kernel = run::kernel(&engine, &args.file, args.kernel.as_deref(), CompileOptions::default())?;
    let sizes = settings::typed(&args.size, kernel.signature())?;
    let set = settings::typed(&args.set, kernel.signature())?;
    let given: Vec<(String, i64)> = sizes.extents.iter().chain(&set.extents).cloned().collect();
    let scalars: Vec<(String, Scalar)> = sizes.scalars.into_iter().chain(set.scalars).collect();
    let file = args.input.as_deref().map(TensorFile::read).transpose()?;
    let tensors: Vec<(String, Tensor)> = match &file {
        Some(_) => vec![],
        None => made::inputs(&kernel, &given, &scalars)?,
    };
    let mut views: Vec<(&str, TensorView<'_>)> = tensors.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    let from_file = file.as_ref().map(TensorFile::tensors).transpose()?.unwrap_or_default();
    views.extend(from_file.iter().map(|(n, v)| (n.as_str(), v.clone())));
    let scalars: Vec<(&str, Scalar)> = scalars.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    let extents: Vec<(&str, i64)> = if file.is_some() { given.iter().map(|(n, e)| (n.as_str(), *e)).collect() } else { vec![] };

    let bar = out::progress("compiling");
    let start = Instant::now();
    let mut outputs: Vec<(String, Tensor)> = kernel.run_with(&views, &scalars, &extents)?.into_iter().collect();
    let first = start.elapsed();
    let mut times = Vec::new();
    let budget = Duration::from_secs_f64(args.seconds);
    let began = Instant::now();
    while times.len() < args.runs.max(1) && (times.is_empty() || began.elapsed() < budget) {
        let mut into: Vec<_> = outputs.iter_mut().map(|(n, t)| (n.as_str(), t.view_mut())).collect();
        let start = Instant::now();
        kernel.run_into(&views, &scalars, &mut into)?;
        times.push(start.elapsed());
        bar.set_message(format!("run {}", times.len()));
        bar.tick();
    }
    bar.finish_and_clear();
    times.sort();
    let median = times[times.len() / 2].as_secs_f64();
    let bound = kernel.bind(&views, &scalars, &extents)?;
    let bytes: usize = views.iter().map(|v| v.1.len() * v.1.storage().bytes()).chain(outputs.iter().map(|o| o.1.bytes().len())).sum();
    let flops = made::dense_flops(kernel.graph(), &bound.extents);
    let (work, rate) = (flops / median / 1e9, bytes as f64 / median / 1e9);
    let ceilings = match args.brief {
        true => None,
        false => {
            let (copy, matmul) = (copy_rate()?, matmul_rate(&engine)?);
            Some(Ceilings { matmul_gflops: matmul, share_of_matmul: work / matmul, copy_gbytes_per_s: copy, share_of_copy: rate / copy })
        }
    };
    let plan = kernel.signature();
    let shown = plan.inputs.iter().flat_map(|i| &i.axes).chain(plan.outputs.iter().flat_map(|o| &o.axes));
    let mut axes: Vec<(String, i64)> = shown.map(|a| (plan.axes[*a as usize].name.clone(), bound.extents[*a as usize])).collect();
    axes.sort();
    axes.dedup();
    let report = Report {
        kernel: kernel.name().to_string(),
        target: engine.target(),
        extents: axes,
        first_ms: first.as_secs_f64() * 1e3,
        median_ms: median * 1e3,
        fastest_ms: times[0].as_secs_f64() * 1e3,
        runs: times.len(),
        dense_gflops: work,
        bytes: bytes as u64,
        gbytes_per_s: rate,
        ceilings,
    };
    match args.json {
        true => out::print(&format!("{}\n", serde_json::to_string(&report).map_err(|e| Failure::new(e.to_string()))?)),
        false => out::print(&text(&report)),
    }
}

fn text(r: &Report) -> String {
    let extents: Vec<String> = r.extents.iter().map(|(n, e)| format!("{n}={e}")).collect();
    let share = |of: &str, part: fn(&Ceilings) -> (f64, f64), unit: &str| {
        let parts = r.ceilings.as_ref().map(part);
        parts.map_or_else(String::new, |(share, most)| format!("{of} ({most:.1} {unit}): {:.0} %", share * 100.0))
    };
    let products = share(", of matrix products alone", |c| (c.share_of_matmul, c.matmul_gflops), "GFLOP/s");
    let copy = share(", of a copy", |c| (c.share_of_copy, c.copy_gbytes_per_s), "GB/s");
    format!(
        "{} on {} ({})\n  median   {:.3} ms over {} runs (fastest {:.3} ms, first call {:.1} ms)\n  work     {:.2} GFLOP/s, masked elements counted{products}\n  memory   {:.2} GB/s of inputs and outputs ({:.1} MB){copy}\n",
        r.kernel,
        r.target,
        extents.join(" "),
        r.median_ms,
        r.runs,
        r.fastest_ms,
        r.first_ms,
        r.dense_gflops,
        r.gbytes_per_s,
        r.bytes as f64 / 1e6,
    )
}

/// What matrix products alone reach, in GFLOP/s: as the device measures it, or the rate of `c = a b` on the same engine, the best of
/// a second.
fn matmul_rate(engine: &Engine) -> Result<f64, Failure> {
    if let Some(rate) = engine.device().map(|d| d.ceiling()).transpose()?.flatten() {
        return Ok(rate / 1e9);
    }
    let n: usize = if engine.device().is_none() { 64 } else { 1024 };
    let program = "kernel mm(a: [i,k], b: [k,j]) -> (c: [i,j]) { c = sum[k] a * b }";
    let kernel = engine.compile(program, None, &CompileOptions::default())?;
    let a: Vec<f32> = (0..n * n).map(|i| (i % 7) as f32 - 3.0).collect();
    let inputs = [("a", TensorView::new(&a, &[n, n])?), ("b", TensorView::new(&a, &[n, n])?)];
    let mut c = vec![0f32; n * n];
    let (mut best, began) = (f64::INFINITY, Instant::now());
    for round in 0..100 {
        let start = Instant::now();
        kernel.run_into(&inputs, &[], &mut [("c", TensorViewMut::new(&mut c, &[n, n])?)])?;
        best = best.min(start.elapsed().as_secs_f64());
        if round > 0 && began.elapsed() > Duration::from_secs(1) {
            break;
        }
    }
    Ok(2.0 * (n as f64).powi(3) / best / 1e9)
}

/// Bytes moved by copying between two arrays far larger than the caches, in 10^9 per second; the best of five.
fn copy_rate() -> Result<f64, Failure> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let each = (256usize << 20) / threads;
    let too_large = |_| Failure::from(RuntimeError::TooLarge { what: "the array of the copy test".into(), bytes: Some(each as u64), available: None });
    let mut arrays = Vec::new();
    for _ in 0..2 * threads {
        let mut array: Vec<u8> = Vec::new();
        array.try_reserve_exact(each).map_err(too_large)?;
        array.resize(each, 1);
        arrays.push(array);
    }
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for pair in arrays.chunks_exact_mut(2) {
                scope.spawn(|| {
                    let (a, b) = pair.split_at_mut(1);
                    a[0].copy_from_slice(&b[0]);
                    std::hint::black_box(&a[0]);
                });
            }
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(2.0 * (each * threads) as f64 / best / 1e9)
}
