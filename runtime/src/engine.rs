//! Compile once, run many times.
//!
//! An [`Engine`] is a device. [`Engine::compile`] checks a program and gives a [`Kernel`]; the code itself is made at the first run,
//! when storages and feature extents are known, and kept for all later runs with the same ones.

use crate::error::{RuntimeError, nearest};
use crate::interface::{self, Interface};
use crate::plan::{Bound, Tensors, axes_text, bind, natural_storage, output_shape};
use crate::tensor::{Storage, Tensor, TensorView, TensorViewMut, elements, is_real, storage_name};
use attnc_compiler::base::Diagnostic;
use attnc_compiler::graph::Graph;
use attnc_compiler::interp::{self, Array, Data, InterpError};
use attnc_compiler::kernel::plan::Plan;
use attnc_compiler::ops::{DType, Scalar};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where programs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The reference interpreter: the meaning, in f64, slow.
    Interp,
}

impl Target {
    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Target::Interp => "interp",
        }
    }
}

/// A device that compiles and runs programs. Cheap to clone; may be shared between threads.
#[derive(Clone, Debug)]
pub struct Engine {
    target: Target,
}

/// What the caller may decide about a compilation.
#[derive(Clone, Debug, Default)]
pub struct CompileOptions {
    /// Extents known in advance, by axis name; calls with others are errors.
    pub extents: Vec<(String, i64)>,
    /// What diagnostics call the source.
    pub file_name: Option<String>,
}

impl Engine {
    /// The reference interpreter.
    pub fn interp() -> Engine {
        Engine { target: Target::Interp }
    }

    pub fn target(&self) -> Target {
        self.target
    }

    /// Makes a checked graph ready to run.
    pub fn kernel(&self, graph: Graph, warnings: Vec<Diagnostic>, options: &CompileOptions) -> Result<Kernel, RuntimeError> {
        let interface = interface::of(&graph).map_err(|axis| RuntimeError::Unsupported {
            target: self.target.name(),
            what: format!("the extent of axis `{axis}` depends on the contents of a tensor"),
        })?;
        Ok(Kernel(Arc::new(Inner { engine: self.clone(), graph, interface, warnings, options: options.clone() })))
    }
}

/// A program ready to run. Cheap to clone; runs may happen on several threads at once.
#[derive(Clone)]
pub struct Kernel(Arc<Inner>);

struct Inner {
    engine: Engine,
    graph: Graph,
    interface: Interface,
    warnings: Vec<Diagnostic>,
    options: CompileOptions,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernel({} on {})", self.name(), self.0.engine.target.name())
    }
}

/// Results of a run, in the order of the program.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs(Vec<(String, Tensor)>);

impl Outputs {
    /// The output with this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(n, t)| (n.as_str(), t))
    }
}

impl IntoIterator for Outputs {
    type Item = (String, Tensor);
    type IntoIter = std::vec::IntoIter<(String, Tensor)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Kernel {
    pub fn name(&self) -> &str {
        &self.0.graph.name
    }

    /// What is computed.
    pub fn graph(&self) -> &Graph {
        &self.0.graph
    }

    /// Axes, inputs, outputs and conditions (no buffers, no launches).
    pub fn signature(&self) -> &Plan {
        &self.0.interface.plan
    }

    /// Warnings of the checker.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.0.warnings
    }

    /// Checks a call without running it.
    ///
    /// Errors: the first thing that does not fit.
    pub fn bind<'a>(&self, tensors: Tensors<'a>, scalars: &[(&str, Scalar)], extents: &[(&str, i64)]) -> Result<Bound<'a>, RuntimeError> {
        let inner = &self.0;
        let extents: Vec<(&str, i64)> = inner.options.extents.iter().map(|(n, e)| (n.as_str(), *e)).chain(extents.iter().copied()).collect();
        bind(&inner.interface.plan, tensors, scalars, &extents, &inner.interface.optional)
    }

    /// Runs and returns new tensors. Reals come back in the widest storage of the real inputs (f64 as f32), ints as i64, bools as u8.
    ///
    /// Errors: a call that does not fit the signature, too little memory, a program that this target cannot run.
    pub fn run(&self, tensors: &[(&str, TensorView<'_>)], scalars: &[(&str, Scalar)]) -> Result<Outputs, RuntimeError> {
        self.run_with(tensors, scalars, &[])
    }

    /// As `run`; `extents` are checked against the shapes, and give the extents that no shape gives.
    ///
    /// Errors: as `run`.
    pub fn run_with(&self, tensors: &[(&str, TensorView<'_>)], scalars: &[(&str, Scalar)], extents: &[(&str, i64)]) -> Result<Outputs, RuntimeError> {
        let bound = self.bind(tensors, scalars, extents)?;
        let plan = self.signature();
        let available = crate::memory::available();
        let mut need = 0u64;
        let mut results = Vec::new();
        for (i, output) in plan.outputs.iter().enumerate() {
            let shape = output_shape(plan, &bound, i);
            let storage = natural_storage(output.dtype, &bound);
            let what = || format!("output `{}` of shape {shape:?}", output.name);
            let count = elements(&shape).ok_or_else(|| RuntimeError::TooLarge { what: what(), bytes: None, available: None })?;
            need = need.saturating_add(count as u64 * storage.bytes() as u64);
            if available.is_some_and(|a| need > a) {
                return Err(RuntimeError::TooLarge { what: what(), bytes: Some(need), available });
            }
            results.push((output.name.clone(), storage, shape));
        }
        let made = results.into_iter().map(|(name, storage, shape)| Ok((name, Tensor::zeros(storage, &shape)?)));
        let mut made = made.collect::<Result<Vec<_>, RuntimeError>>()?;
        let views = made.iter_mut().map(|(_, t)| t.view_mut()).collect();
        self.execute(&bound, views)?;
        Ok(Outputs(made))
    }

    /// Runs and fills the caller's memory; every output must be given. Where the memory has the storage that the kernels write (f32 on
    /// the processor), nothing is copied.
    ///
    /// Errors: those of `run`, and outputs that are missing, unknown, or of another shape or dtype; then nothing has been written.
    pub fn run_into(&self, tensors: &[(&str, TensorView<'_>)], scalars: &[(&str, Scalar)], outputs: &mut [(&str, TensorViewMut<'_>)]) -> Result<(), RuntimeError> {
        let bound = self.bind(tensors, scalars, &[])?;
        let plan = self.signature();
        let mut views: Vec<Option<TensorViewMut<'_>>> = plan.outputs.iter().map(|_| None).collect();
        for (name, view) in outputs {
            let Some(i) = plan.outputs.iter().position(|o| o.name == *name) else {
                let known: Vec<String> = plan.outputs.iter().map(|o| o.name.clone()).collect();
                return Err(RuntimeError::UnknownOutput { name: name.to_string(), nearest: nearest(name, known.iter().map(String::as_str)), known });
            };
            let (output, expected) = (&plan.outputs[i], output_shape(plan, &bound, i));
            if view.shape() != expected {
                let axes = axes_text(plan, &output.axes);
                return Err(RuntimeError::OutputShape { name: output.name.clone(), axes, expected, found: view.shape().to_vec() });
            }
            if is_real(view.storage()) != (output.dtype == DType::Real) {
                return Err(RuntimeError::OutputDtype { name: output.name.clone(), expected: output.dtype, found: storage_name(view.storage()) });
            }
            views[i] = Some(view.reborrow());
        }
        let views = plan.outputs.iter().zip(views).map(|(output, view)| {
            view.ok_or_else(|| RuntimeError::MissingOutput { name: output.name.clone(), axes: axes_text(plan, &output.axes) })
        });
        let views = views.collect::<Result<Vec<_>, _>>()?;
        self.execute(&bound, views)
    }

    fn execute(&self, bound: &Bound<'_>, outputs: Vec<TensorViewMut<'_>>) -> Result<(), RuntimeError> {
        match self.0.engine.target {
            Target::Interp => self.interpret(bound, outputs),
        }
    }

    fn interpret(&self, bound: &Bound<'_>, mut outputs: Vec<TensorViewMut<'_>>) -> Result<(), RuntimeError> {
        let plan = self.signature();
        let mut arrays = BTreeMap::new();
        let mut scalars = BTreeMap::new();
        for (i, input) in plan.inputs.iter().enumerate() {
            if let Some(view) = bound.tensors[i] {
                arrays.insert(input.name.clone(), array_of(view, input.dtype)?);
            } else if let Some(value) = bound.scalars[i] {
                scalars.insert(input.name.clone(), value);
            }
        }
        let results = interp::run(&self.0.graph, &arrays, &scalars).map_err(interp_error)?;
        for (i, output) in plan.outputs.iter().enumerate() {
            let array = results.get(&output.name).ok_or_else(|| RuntimeError::Bug(format!("the interpreter gave no `{}`", output.name)))?;
            let tensor = match &array.data {
                Data::Real(x) => Tensor::from_f64(outputs[i].storage(), &array.shape, x)?,
                Data::Int(x) => Tensor::new(x.clone(), &array.shape)?,
                Data::Bool(x) => Tensor::new(x.iter().map(|b| u8::from(*b)).collect(), &array.shape)?,
                Data::Complex(_) => return Err(RuntimeError::Bug(format!("output `{}` is complex", output.name))),
            };
            outputs[i].copy_from(&tensor.view())?;
        }
        Ok(())
    }
}

/// The elements as the interpreter takes them. f64 is rounded to f32, the widest storage of the targets.
fn array_of(view: &TensorView<'_>, dtype: DType) -> Result<Array, RuntimeError> {
    let shape = view.shape().to_vec();
    let data = match dtype {
        DType::Real if view.storage() == Storage::F64 => Data::Real(view.convert(Storage::F32)?.view().to_f64()),
        DType::Real | DType::Complex => Data::Real(view.to_f64()),
        DType::Int => Data::Int(view.to_i64()),
        DType::Bool => Data::Bool(view.to_i64().into_iter().map(|x| x != 0).collect()),
    };
    Ok(Array { shape, data })
}

fn interp_error(error: InterpError) -> RuntimeError {
    use attnc_compiler::graph::bind::BindError;
    match error {
        InterpError::Bind(BindError::Require { text }) => RuntimeError::Require { text, values: String::new() },
        InterpError::Bind(BindError::Range { text }) => RuntimeError::Require { text, values: "an index would be out of range".to_string() },
        InterpError::TooLarge { .. } => RuntimeError::TooLarge { what: error.to_string(), bytes: None, available: None },
        InterpError::TooDeep | InterpError::Cyclic { .. } => RuntimeError::Unsupported { target: "interp", what: error.to_string() },
        InterpError::Bind(_) | InterpError::Dtype { .. } | InterpError::Length { .. } | InterpError::Broken(_) => RuntimeError::Bug(error.to_string()),
    }
}
