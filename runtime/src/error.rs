//! What can go wrong, said so that the reader knows whose it is: the program's author, the caller's, the machine's, ours.

use crate::tensor::{Storage, storage_name};
use attnc_compiler::base::Diagnostic;
use attnc_compiler::ops::{DType, Scalar};

/// An error of compiling, calling or running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    // --- the program's author
    /// The source has errors; `text` shows them with their lines.
    #[error("{} error(s) in the program\n{text}", .diagnostics.len())]
    Source { diagnostics: Vec<Diagnostic>, text: String },
    #[error("the program has no kernel `{name}`{}", hint(.nearest, .known, "kernels"))]
    NoKernel { name: String, nearest: Option<String>, known: Vec<String> },
    #[error("the program has no kernel")]
    Empty,
    #[error("the program has {} kernels ({}); name the one to use", .known.len(), .known.join(", "))]
    WhichKernel { known: Vec<String> },
    /// A valid program that this target cannot run.
    #[error("target {target} cannot run this program: {what}")]
    Unsupported { target: &'static str, what: String },

    // --- the caller
    #[error("missing input `{name}`: the kernel takes {expected}")]
    MissingInput { name: String, expected: String },
    #[error("unknown input `{name}`{}", hint(.nearest, .known, "inputs"))]
    UnknownInput { name: String, nearest: Option<String>, known: Vec<String> },
    #[error("input `{name}` is given twice")]
    Twice { name: String },
    #[error("input `{name}` has rank {}: expected axes {axes}, found shape {found:?}", .found.len())]
    WrongRank { name: String, axes: String, found: Vec<usize> },
    #[error("input `{name}` has extent {found} on axis `{axis}` (expected axes {axes}, found shape {shape:?}), but input `{other}` has extent {other_extent} on that axis")]
    ExtentConflict { name: String, axes: String, shape: Vec<usize>, axis: String, found: i64, other: String, other_extent: i64 },
    #[error("input `{name}` has extent {found} on axis `{axis}` (expected axes {axes}, found shape {shape:?}), but the program or the caller says that `{axis}` has extent {expected}")]
    ExtentMismatch { name: String, axes: String, shape: Vec<usize>, axis: String, found: i64, expected: i64 },
    #[error("input `{name}` holds {found} elements, expected {expected} over axes {axes} (found shape {shape:?})")]
    WrongDtype { name: String, axes: String, shape: Vec<usize>, expected: String, found: &'static str },
    #[error("input `{name}` is a tensor with axes {axes}, but a scalar is given for it")]
    ScalarForTensor { name: String, axes: String },
    #[error("input `{name}` is a scalar of type {}, but a tensor of shape {found:?} is given for it", .expected.name())]
    TensorForScalar { name: String, expected: DType, found: Vec<usize> },
    #[error("scalar `{name}` is of type {}, `{found}` is not", .expected.name())]
    WrongScalar { name: String, expected: DType, found: String },
    #[error("input `{name}`: element {index} is {value}, which does not fit {}", storage_name(*.storage))]
    InputOutOfRange { name: String, index: usize, value: i64, storage: Storage },
    #[error("unknown axis `{name}`{}", hint(.nearest, .known, "axes"))]
    UnknownAxis { name: String, nearest: Option<String>, known: Vec<String> },
    #[error("the extent of axis `{axis}` is not known: no input has that axis")]
    UnknownExtent { axis: String },
    #[error("the program requires {}, which does not hold{}", quoted(.text), bracket(.values))]
    Require { text: String, values: String },
    #[error("unknown output `{name}`{}", hint(.nearest, .known, "outputs"))]
    UnknownOutput { name: String, nearest: Option<String>, known: Vec<String> },
    #[error("no memory is given for output `{name}` with axes {axes}")]
    MissingOutput { name: String, axes: String },
    #[error("output `{name}` has axes {axes} and shape {expected:?}, but the memory given for it has shape {found:?}")]
    OutputShape { name: String, axes: String, expected: Vec<usize>, found: Vec<usize> },
    #[error("output `{name}` is of type {}, but the memory given for it holds {found} elements", .expected.name())]
    OutputDtype { name: String, expected: DType, found: &'static str },
    #[error("output `{name}` is written as {expected} on this device, but the memory given for it holds {found} elements")]
    OutputStorage { name: String, expected: &'static str, found: &'static str },
    #[error("shape {shape:?} does not describe {elements} elements")]
    ViewShape { shape: Vec<usize>, elements: usize },
    #[error("element {index} is {value}, which does not fit {}", storage_name(*.storage))]
    OutOfRange { index: usize, value: i64, storage: Storage },

    #[error("{path} cannot be loaded: {what}")]
    Manifest { path: String, what: String },

    // --- the machine
    #[error("{what} is too large{}", sizes(*.bytes, *.available))]
    TooLarge { what: String, bytes: Option<u64>, available: Option<u64> },
    #[error("{device}: {what}")]
    Device { device: &'static str, what: String },
    /// A fault after which the device answers nothing in this process.
    #[error("{device}: {what}\nthe device cannot be used any more in this process: start it anew")]
    DeviceLost { device: &'static str, what: String },
    #[error("no {device} device can be used: {what}")]
    NoDevice { device: &'static str, what: String },

    // --- ours
    #[error("internal error: {0}")]
    Bug(String),
}

impl RuntimeError {
    /// Whether the fault is in this library, not in the program, the call or the machine.
    pub fn is_bug(&self) -> bool {
        matches!(self, RuntimeError::Bug(_))
    }

    /// Puts the name of an input on an error of its elements.
    pub fn of_input(self, name: &str) -> RuntimeError {
        match self {
            RuntimeError::OutOfRange { index, value, storage } => RuntimeError::InputOutOfRange { name: name.to_string(), index, value, storage },
            other => other,
        }
    }
}

/// A scalar as a program writes it.
pub fn scalar_text(value: Scalar) -> String {
    match value {
        Scalar::Bool(b) => b.to_string(),
        Scalar::Int(i) => i.to_string(),
        Scalar::Real(r) => r.to_string(),
        Scalar::Complex(re, im) => format!("complex({re}, {im})"),
    }
}

/// The name most like `name` among `known`, when one is near enough to be a slip of the pen.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let best = known.into_iter().map(|k| (strsim::damerau_levenshtein(name, k), k)).min()?;
    let limit = 1 + name.chars().count().max(best.1.chars().count()) / 4;
    (best.0 <= limit).then(|| best.1.to_string())
}

fn hint(nearest: &Option<String>, known: &[String], what: &str) -> String {
    match nearest {
        Some(name) => format!("; did you mean `{name}`?"),
        None if known.is_empty() => format!("; there are no {what}"),
        None => format!("; the {what} are {}", known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ")),
    }
}

/// Code in backticks; conditions that the checker worded already have some.
fn quoted(text: &str) -> String {
    if text.contains('`') { format!("that {text}") } else { format!("`{text}`") }
}

fn bracket(values: &str) -> String {
    if values.is_empty() { String::new() } else { format!(" ({values})") }
}

fn sizes(bytes: Option<u64>, available: Option<u64>) -> String {
    let gib = |b: u64| format!("{:.2} GiB", b as f64 / f64::from(1u32 << 30));
    match (bytes, available) {
        (Some(b), Some(a)) => format!(": it needs {}, and {} are available", gib(b), gib(a)),
        (Some(b), None) => format!(": it needs {}", gib(b)),
        (None, _) => String::new(),
    }
}
