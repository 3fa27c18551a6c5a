//! Attention of a real model: programs on the activations of two layers, compared with what the model itself computed.
//!
//! `cargo run --release -p attnc-runtime --example demo -- DATA.safetensors PADDED WINDOW LINEAR`: the activations, and the programs of the
//! model's own attention, of a window, and of a linear form (`scripts/demo.sh` names them).
//!
//! Every program runs on the interpreter and on the processor. Exit status 1 when a layer differs from the model by 1e-6 or more.

use attnc_runtime::{CompileOptions, Engine, Kernel, Outputs, RuntimeError, Scalar, Storage, Tensor, TensorView};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use safetensors::{Dtype, SafeTensors};
use std::error::Error;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Largest relative error in f32 that is called right.
const TOLERANCE: f64 = 1e-6;
/// How long a kernel is measured.
const MEASURE: Duration = Duration::from_millis(400);

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let (Some(data), Some(padded), Some(window), Some(linear)) = (args.next(), args.next(), args.next(), args.next()) else {
        return Err("usage: demo DATA.safetensors PADDED WINDOW LINEAR".into());
    };
    let bytes = std::fs::read(&data)?;
    let model = Model::new(&SafeTensors::deserialize(&bytes)?)?;
    let jobs = jobs([padded, window, linear].map(PathBuf::from), &model);
    let [b, h, t, d] = model.shape;
    println!("activations: {b} texts of {:?} tokens in rows of {t}, {h} heads of {d} features, layers {:?}", model.lengths, model.layers());

    let engines = [Engine::interp(), Engine::cpu()?];
    let target = if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some((jobs.len() * engines.len()) as u64), target);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")?);
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for job in &jobs {
        let mut meaning = None;
        for engine in &engines {
            bar.set_message(format!("{} of layer {} on {}", job.title, job.layer, engine.target()));
            match job.run(engine, &model, meaning.as_ref()) {
                Ok((row, outputs)) => {
                    rows.push(row);
                    meaning.get_or_insert(outputs);
                }
                // The other rows are still worth seeing.
                Err(error) => failed.push(format!("{} of layer {} on {}: {error}", job.title, job.layer, engine.target())),
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    print_table(&rows);
    failed.extend(rows.iter().filter(|r| !r.right()).map(|r| format!("{} of layer {} on {}: differs by {:.1e}", r.title, r.layer, r.target, r.error)));
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
}

/// Tensors of the file: `q.L`, `k.L`, `v.L`, `o.L` over (text, head, token, feature), and the length of each text.
struct Model {
    shape: [usize; 4],
    lengths: Vec<i64>,
    tensors: Vec<(String, Tensor)>,
}

impl Model {
    fn new(file: &SafeTensors<'_>) -> Result<Model, Box<dyn Error>> {
        let mut tensors = Vec::new();
        for (name, view) in file.tensors() {
            let storage = match view.dtype() {
                Dtype::F32 => Storage::F32,
                Dtype::I64 => Storage::I64,
                other => return Err(format!("tensor `{name}` holds {other:?}").into()),
            };
            // Slices of a file lie anywhere; a tensor is aligned.
            tensors.push((name, TensorView::from_bytes(storage, view.shape(), view.data())?.convert(storage)?));
        }
        let find = |name: &str| tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t).ok_or_else(|| format!("the file has no tensor `{name}`"));
        let shape = find("q.0")?.shape().try_into().map_err(|_| "`q.0` does not have four axes")?;
        let lengths = find("length")?.as_slice::<i64>().ok_or("`length` does not hold I64")?.to_vec();
        Ok(Model { shape, lengths, tensors })
    }

    fn get(&self, name: &str) -> Result<&Tensor, Box<dyn Error>> {
        self.tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t).ok_or_else(|| format!("the file has no tensor `{name}`").into())
    }

    fn layers(&self) -> Vec<&str> {
        let mut layers: Vec<&str> = self.tensors.iter().filter_map(|(n, _)| n.strip_prefix("q.")).collect();
        layers.sort_unstable();
        layers
    }
}

/// A program on the tensors of one layer.
struct Job {
    title: &'static str,
    program: PathBuf,
    layer: &'static str,
    scalars: Vec<(&'static str, Scalar)>,
    /// The program takes the lengths, and the model has computed the same.
    padded: bool,
    /// Useful work.
    flop: f64,
}

fn jobs(programs: [PathBuf; 3], model: &Model) -> Vec<Job> {
    const WINDOW: i64 = 64;
    let [b, h, t, d] = model.shape.map(|x| x as f64);
    // A pair of positions takes two products of `d` features, each with an addition.
    let pair = 4.0 * d;
    let padded: f64 = model.lengths.iter().map(|l| t * *l as f64 * h * pair).sum();
    let window: f64 = (0..model.shape[2]).map(|i| b * h * pair * (i as f64 + 1.0).min(WINDOW as f64)).sum();
    // Two states of d x d that are updated and read at each position, one of them read once more at the end.
    let linear = b * h * t * d * d * 10.0;
    let [own, band, scan] = programs;
    let job = |title, program: &Path, layer, scalars, padded, flop| Job { title, program: program.to_path_buf(), layer, scalars, padded, flop };
    vec![
        job("self-attention, padded", &own, "0", vec![], true, padded),
        job("self-attention, padded", &own, "5", vec![], true, padded),
        job("last 64 positions", &band, "5", vec![("window", Scalar::Int(WINDOW))], false, window),
        job("linear", &scan, "5", vec![], false, linear),
    ]
}

struct Row {
    title: &'static str,
    layer: &'static str,
    target: &'static str,
    against: &'static str,
    error: f64,
    first: Duration,
    median: Duration,
    flop: f64,
    tolerance: f64,
}

impl Row {
    fn right(&self) -> bool {
        self.error < self.tolerance
    }
}

impl Job {
    fn run(&self, engine: &Engine, model: &Model, meaning: Option<&Outputs>) -> Result<(Row, Outputs), Box<dyn Error>> {
        let text = std::fs::read_to_string(&self.program).map_err(|e| format!("{}: {e}", self.program.display()))?;
        let names = ["q", "k", "v"].map(|n| (n, format!("{n}.{}", self.layer)));
        let mut inputs = Vec::new();
        for (input, name) in &names {
            inputs.push((*input, model.get(name)?.view()));
        }
        if self.padded {
            inputs.push(("length", model.get("length")?.view()));
        }
        let start = Instant::now();
        let kernel = engine.compile(&text, None, &CompileOptions::default())?;
        let outputs = kernel.run(&inputs, &self.scalars)?;
        let first = start.elapsed();
        let median = if engine.device().is_some() { self.measure(&kernel, &inputs)? } else { first };

        let o = |name: &str| outputs.get(name).ok_or_else(|| format!("the program has no output `{name}`"));
        let (against, error, tolerance) = match meaning {
            _ if self.padded => ("model", difference(o("o")?, model.get(&format!("o.{}", self.layer))?), TOLERANCE),
            // The interpreter is what the others are compared with.
            None => ("-", 0.0, TOLERANCE),
            // States that run through all positions gather rounding errors that a product of one pair does not have.
            Some(meaning) => ("interp", worst(&outputs, meaning), 5.0 * TOLERANCE),
        };
        let row = Row { title: self.title, layer: self.layer, target: engine.target(), against, error, first, median, flop: self.flop, tolerance };
        Ok((row, outputs))
    }

    /// Median over runs that fill `MEASURE`, three at least.
    fn measure(&self, kernel: &Kernel, inputs: &[(&str, TensorView<'_>)]) -> Result<Duration, RuntimeError> {
        let begin = Instant::now();
        let mut times = Vec::new();
        while times.len() < 3 || begin.elapsed() < MEASURE {
            let start = Instant::now();
            kernel.run(inputs, &self.scalars)?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        Ok(times[times.len() / 2])
    }
}

/// Largest difference over all outputs.
fn worst(outputs: &Outputs, meaning: &Outputs) -> f64 {
    outputs.iter().map(|(name, tensor)| meaning.get(name).map_or(f64::INFINITY, |m| difference(tensor, m))).fold(0.0, f64::max)
}

/// `|a - b| / |b|` in the 2-norm; infinite for NaN and for shapes that differ.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    if a.shape() != b.shape() {
        return f64::INFINITY;
    }
    let (a, b) = (a.view().to_f64(), b.view().to_f64());
    let distance: f64 = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum();
    let norm: f64 = b.iter().map(|b| b * b).sum();
    let error = (distance / norm.max(f64::MIN_POSITIVE)).sqrt();
    if error.is_nan() { f64::INFINITY } else { error }
}

fn print_table(rows: &[Row]) {
    println!("\n{:24} {:>5}  {:7} {:>10} {:>9} {:>12} {:>12} {:>9}", "program", "layer", "target", "compared", "error", "first run", "median", "GFLOP/s");
    for r in rows {
        let error = if r.against == "-" { "-".to_string() } else { format!("{:.1e}", r.error) };
        let rate = r.flop / r.median.as_secs_f64() / 1e9;
        let (first, median) = (r.first.as_secs_f64() * 1e3, r.median.as_secs_f64() * 1e3);
        let verdict = if r.right() { "" } else { "  WRONG" };
        println!("{:24} {:>5}  {:7} {:>10} {error:>9} {first:>9.1} ms {median:>9.2} ms {rate:>9.2}{verdict}", r.title, r.layer, r.target, r.against);
    }
    println!("first run: check, compile and run; error: 2-norm relative to what the row is compared with, below {TOLERANCE:e} against the model");
}
