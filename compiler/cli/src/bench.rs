//! `attnc bench`: how long a kernel takes on this machine.

use crate::args::{BenchArgs, RealType};
use crate::fail::Failure;
use crate::files::{OutFile, TensorFile};
use crate::{made, out, run, settings};
use attnc_runtime::tensor::is_real;
use attnc_runtime::{CompileOptions, Engine, Given, Kernel, Resident, RuntimeError, Scalar, Storage, Tensor, TensorView, TensorViewMut};
use serde::Serialize;
use std::time::{Duration, Instant};

/// What was measured. Times in milliseconds, rates in 10^9 per second.
#[derive(Debug, Serialize)]
pub struct Report {
    pub kernel: String,
    pub target: &'static str,
    pub extents: Vec<(String, i64)>,
    /// Whose clock: `host` includes the call, `device` is the kernels alone, on tensors that lie on the device.
    pub clock: &'static str,
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
    /// How that number was found.
    pub matmul_by: String,
    pub share_of_matmul: f64,
    /// What a plain copy reaches in the memory that holds the tensors, counting bytes read and written.
    pub copy_gbytes_per_s: f64,
    pub share_of_copy: f64,
}

/// Times of a kernel and what it moved.
struct Measured {
    first: f64,
    /// Seconds, in order of length.
    times: Vec<f64>,
    bytes: u64,
    clock: &'static str,
}

pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    let engine = run::engine(args.target)?;
    let kernel = run::kernel(&engine, &args.file, args.kernel.as_deref(), CompileOptions::default())?;
    let place = args.output.as_deref().map(OutFile::create).transpose()?;
    let sizes = settings::typed(&args.size, kernel.signature())?;
    let set = settings::typed(&args.set, kernel.signature())?;
    let given: Vec<(String, i64)> = sizes.extents.iter().chain(&set.extents).cloned().collect();
    let scalars: Vec<(String, Scalar)> = sizes.scalars.into_iter().chain(set.scalars).collect();
    let file = args.input.as_deref().map(TensorFile::read).transpose()?;
    let mut tensors: Vec<(String, Tensor)> = match &file {
        Some(_) => vec![],
        None => made::inputs(&kernel, &given, &scalars)?,
    };
    let from_file = file.as_ref().map(TensorFile::tensors).transpose()?.unwrap_or_default();
    let mut views: Vec<(&str, TensorView<'_>)> = vec![];
    match storage(args.dtype) {
        None => views.extend(from_file.iter().map(|(n, v)| (n.as_str(), v.clone()))),
        Some(to) => {
            for (_, tensor) in &mut tensors {
                *tensor = stored(&tensor.view(), to)?;
            }
            for (name, view) in &from_file {
                tensors.push((name.clone(), stored(view, to)?));
            }
        }
    }
    views.extend(tensors.iter().map(|(n, t)| (n.as_str(), t.view())));
    let scalars: Vec<(&str, Scalar)> = scalars.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    let extents: Vec<(&str, i64)> = if file.is_some() { given.iter().map(|(n, e)| (n.as_str(), *e)).collect() } else { vec![] };

    let bar = out::progress("compiling");
    let start = Instant::now();
    let resident = resident(&kernel, &views, &scalars, &extents)?;
    let (measured, outputs) = match &resident {
        Some(call) => {
            call.run()?;
            let first = start.elapsed().as_secs_f64();
            bar.set_message("running");
            let times = call.time(args.runs, args.seconds)?;
            let outputs = match place {
                Some(_) => call.outputs().map(|(n, t)| Ok((n.to_string(), t.download()?))).collect::<Result<Vec<_>, RuntimeError>>()?,
                None => vec![],
            };
            (Measured { first, times, bytes: call.bytes(), clock: "device" }, outputs)
        }
        None => host(&kernel, &views, &scalars, &extents, args, &bar)?,
    };
    bar.finish_and_clear();
    if let Some(place) = place {
        place.commit_tensors(outputs.iter().map(|(n, t)| (n.as_str(), t)))?;
    }
    let Measured { first, mut times, bytes, clock } = measured;
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let late = kernel.late_extents(&views, &scalars, &extents)?;
    let scalars: Vec<(&str, Scalar)> = scalars.iter().copied().chain(late.iter().map(|(n, v)| (n.as_str(), *v))).collect();
    let bound = kernel.bind(&views, &scalars, &extents)?;
    let flops = made::dense_flops(kernel.graph(), &bound.extents);
    let (work, rate) = (flops / median / 1e9, bytes as f64 / median / 1e9);
    // Room for the arrays of the measurement.
    drop(resident);
    let ceilings = match args.brief {
        true => None,
        false => {
            let reals = views.iter().map(|v| v.1.storage()).find(|s| is_real(*s)).unwrap_or(Storage::F32);
            let (matmul, matmul_by, copy) = at_best(&engine, reals)?;
            Some(Ceilings { matmul_gflops: matmul, matmul_by, share_of_matmul: work / matmul, copy_gbytes_per_s: copy, share_of_copy: rate / copy })
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
        clock,
        first_ms: first * 1e3,
        median_ms: median * 1e3,
        fastest_ms: times[0] * 1e3,
        runs: times.len(),
        dense_gflops: work,
        bytes,
        gbytes_per_s: rate,
        ceilings,
    };
    match args.json {
        true => out::print(&format!("{}\n", serde_json::to_string(&report).map_err(|e| Failure::new(e.to_string()))?)),
        false => out::print(&text(&report)),
    }
}

fn storage(dtype: Option<RealType>) -> Option<Storage> {
    dtype.map(|d| match d {
        RealType::F32 => Storage::F32,
        RealType::Bf16 => Storage::Bf16,
        RealType::F16 => Storage::F16,
    })
}

/// Reals in another storage; ints and bools as they are.
fn stored(view: &TensorView<'_>, to: Storage) -> Result<Tensor, RuntimeError> {
    view.convert(if is_real(view.storage()) { to } else { view.storage() })
}

/// The call with its tensors on the device; `None` for devices that work in the host's memory.
fn resident(kernel: &Kernel, views: &[(&str, TensorView<'_>)], scalars: &[(&str, Scalar)], extents: &[(&str, i64)]) -> Result<Option<Resident>, Failure> {
    let inputs: Vec<(&str, Given<'_>)> = views.iter().map(|(n, v)| (*n, Given::Host(v.clone()))).collect();
    match kernel.engine().device().filter(|d| d.has_memory()) {
        Some(_) => Ok(Some(kernel.prepare(&inputs, scalars, extents, &[], None)?)),
        None => Ok(None),
    }
}

/// Whole calls by the host's clock, and the results of the last one.
fn host(
    kernel: &Kernel,
    views: &[(&str, TensorView<'_>)],
    scalars: &[(&str, Scalar)],
    extents: &[(&str, i64)],
    args: &BenchArgs,
    bar: &indicatif::ProgressBar,
) -> Result<(Measured, Vec<(String, Tensor)>), Failure> {
    let start = Instant::now();
    let mut outputs: Vec<(String, Tensor)> = kernel.run_with(views, scalars, extents)?.into_iter().collect();
    let first = start.elapsed().as_secs_f64();
    let mut times = Vec::new();
    let budget = Duration::from_secs_f64(args.seconds);
    let began = Instant::now();
    while times.len() < args.runs.max(1) && (times.is_empty() || began.elapsed() < budget) {
        let mut into: Vec<_> = outputs.iter_mut().map(|(n, t)| (n.as_str(), t.view_mut())).collect();
        let start = Instant::now();
        kernel.run_into(views, scalars, &mut into)?;
        times.push(start.elapsed().as_secs_f64());
        bar.set_message(format!("run {}", times.len()));
        bar.tick();
    }
    let bytes: usize = views.iter().map(|v| v.1.len() * v.1.storage().bytes()).chain(outputs.iter().map(|o| o.1.bytes().len())).sum();
    Ok((Measured { first, times, bytes: bytes as u64, clock: "host" }, outputs))
}

/// A rate in the unit that keeps the number short; `rate` counts 10^9.
fn short(rate: f64, unit: &str) -> String {
    if rate < 1000.0 { format!("{rate:.2} G{unit}") } else { format!("{:.2} T{unit}", rate / 1e3) }
}

fn text(r: &Report) -> String {
    let extents: Vec<String> = r.extents.iter().map(|(n, e)| format!("{n}={e}")).collect();
    let share = |part: fn(&Ceilings) -> String| r.ceilings.as_ref().map_or_else(String::new, part);
    let products = share(|c| format!(": {:.0} % of matrix products alone ({}, {})", c.share_of_matmul * 100.0, short(c.matmul_gflops, "FLOP/s"), c.matmul_by));
    let copy = share(|c| format!(", {:.0} % of a copy ({})", c.share_of_copy * 100.0, short(c.copy_gbytes_per_s, "B/s")));
    format!(
        "{} on {} ({})\n  median   {:.3} ms over {} runs by the {}'s clock (fastest {:.3} ms, first call {:.1} ms)\n  work     {}, masked elements counted{products}\n  memory   {} of inputs and outputs ({:.1} MB){copy}\n",
        r.kernel,
        r.target,
        extents.join(" "),
        r.median_ms,
        r.runs,
        r.clock,
        r.fastest_ms,
        r.first_ms,
        short(r.dense_gflops, "FLOP/s"),
        short(r.gbytes_per_s, "B/s"),
        r.bytes as f64 / 1e6,
    )
}

/// What matrix products and copies reach, in 10^9 per second, and how the first was found.
fn at_best(engine: &Engine, reals: Storage) -> Result<(f64, String, f64), Failure> {
    let told = match engine.device() {
        Some(device) => device.ceilings(reals)?,
        None => None,
    };
    let copy = match told.as_ref().and_then(|t| t.copy) {
        Some(rate) => rate / 1e9,
        None => copy_rate()?,
    };
    Ok(match told {
        Some(told) if told.products.is_finite() => (told.products / 1e9, told.products_by, copy),
        _ => (matmul_rate(engine)?, "`sum[k] a * b` on the same engine".to_string(), copy),
    })
}

/// The rate of `c = a b` on the engine in GFLOP/s, the best of a second.
fn matmul_rate(engine: &Engine) -> Result<f64, Failure> {
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
