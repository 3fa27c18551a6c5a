//! Compile once, run many times.
//!
//! An [`Engine`] is a device. [`Engine::compile`] checks a program and gives a [`Kernel`]; the code itself is made at the first run,
//! when storages and feature extents are known, and kept for all later runs with the same ones.

use crate::cache::Cache;
use crate::driver::{Device, Executable};
use crate::error::{RuntimeError, nearest};
use crate::interface::{self, Interface};
use crate::launch::launch;
use crate::plan::{Bound, Tensors, axes_text, bind, natural_storage, output_shape};
use crate::tensor::{Storage, Tensor, TensorView, TensorViewMut, elements, is_real, storage_name};
use attnc_compiler::base::Diagnostic;
use attnc_compiler::graph::Graph;
use attnc_compiler::graph::staged::staged;
use attnc_compiler::interp::{self, Array, Data, InterpError};
use attnc_compiler::kernel::plan::Plan;
use attnc_compiler::lower::{CompileError, Options, lower};
use attnc_compiler::ops::{DType, Scalar};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A device that compiles and runs programs. Cheap to clone; may be shared between threads.
#[derive(Clone, Debug)]
pub struct Engine {
    /// `None` is the interpreter.
    device: Option<Arc<dyn Device>>,
    cache: Option<Cache>,
}

/// Most specialisations that a kernel keeps; the oldest goes first.
const MAX_MADE: usize = 64;

/// What the caller may decide about a compilation.
#[derive(Clone, Debug, Default)]
pub struct CompileOptions {
    /// Extents known in advance, by axis name; calls with others are errors.
    pub extents: Vec<(String, i64)>,
    /// What diagnostics call the source.
    pub file_name: Option<String>,
}

impl Engine {
    /// The reference interpreter: the meaning, in f64, slow.
    pub fn interp() -> Engine {
        Engine { device: None, cache: None }
    }

    /// This machine's processor with all its cores (`ATTNC_THREADS` says otherwise).
    ///
    /// Errors: [`RuntimeError::NoDevice`] when threads cannot be started.
    #[cfg(feature = "cpu")]
    pub fn cpu() -> Result<Engine, RuntimeError> {
        Engine::cpu_with(None)
    }

    /// This machine's processor with `threads` threads, the calling one included.
    #[cfg(feature = "cpu")]
    pub fn cpu_with(threads: Option<usize>) -> Result<Engine, RuntimeError> {
        use crate::driver::{Processor, cpu::CpuDriver};
        let driver = CpuDriver::new(threads).map_err(|e| RuntimeError::NoDevice { device: "cpu", what: e.to_string() })?;
        Ok(Engine::on(Arc::new(Processor(Arc::new(driver)))))
    }

    /// The WebGPU device that the system prefers (Vulkan here). Errors: [`RuntimeError::NoDevice`].
    #[cfg(feature = "wgpu")]
    pub fn wgsl() -> Result<Engine, RuntimeError> {
        use crate::driver::wgpu::{WebGpu, WgpuDriver};
        Ok(Engine::on(Arc::new(WebGpu(Arc::new(WgpuDriver::new()?)))))
    }

    /// The first NVIDIA GPU; without the feature `ptx` it runs compiled files only. Errors: [`RuntimeError::NoDevice`].
    #[cfg(feature = "cuda")]
    pub fn ptx() -> Result<Engine, RuntimeError> {
        use crate::driver::cuda::{CudaDriver, Nvidia};
        Ok(Engine::on(Arc::new(Nvidia(CudaDriver::new(0)?))))
    }

    /// Any device; artifacts are kept in the user's cache.
    pub fn on(device: Arc<dyn Device>) -> Engine {
        Engine { device: Some(device), cache: Cache::user() }
    }

    /// Keeps artifacts elsewhere, or nowhere.
    pub fn with_cache(self, cache: Option<Cache>) -> Engine {
        Engine { cache, ..self }
    }

    /// Name of the target: `interp`, `cpu`, `wgsl`, `ptx`.
    pub fn target(&self) -> &'static str {
        self.device.as_ref().map_or("interp", |d| d.target())
    }

    pub(crate) fn shared_device(&self) -> Option<Arc<dyn Device>> {
        self.device.clone()
    }

    /// The device, `None` for the interpreter.
    pub fn device(&self) -> Option<&dyn Device> {
        self.device.as_deref()
    }

    /// Makes a checked graph ready to run.
    pub fn kernel(&self, graph: Graph, warnings: Vec<Diagnostic>, options: &CompileOptions) -> Result<Kernel, RuntimeError> {
        // Extents that depend on tensor values come out of a program of their own, which runs first.
        let (graph, extents) = match staged(&graph) {
            Some(s) => {
                let first = self.kernel(s.first, vec![], options)?;
                (s.second, Some((first, s.scalars)))
            }
            None => (graph, None),
        };
        let interface = interface::of(&graph).map_err(|axis| RuntimeError::Unsupported {
            target: self.target(),
            what: format!("the extent of axis `{axis}` depends on the contents of a tensor"),
        })?;
        Ok(Kernel(Arc::new(Inner { engine: self.clone(), graph, interface, extents, warnings, options: options.clone(), made: Mutex::new(Vec::new()) })))
    }
}

/// A program ready to run. Cheap to clone; runs may happen on several threads at once.
#[derive(Clone)]
pub struct Kernel(Arc<Inner>);

struct Inner {
    engine: Engine,
    graph: Graph,
    interface: Interface,
    /// The program that computes extents out of tensors, and the scalars of this one that its outputs are, in order.
    extents: Option<(Kernel, Vec<String>)>,
    warnings: Vec<Diagnostic>,
    options: CompileOptions,
    /// One entry for each set of storages and fixed extents met so far.
    made: Mutex<Vec<Arc<Special>>>,
}

/// Code for particular storages and feature extents.
pub(crate) struct Special {
    real: Storage,
    pub(crate) plan: Plan,
    pub(crate) code: Box<dyn Executable>,
}

impl Special {
    /// Whether it can run this call.
    fn fits(&self, real: Storage, bound: &Bound<'_>) -> bool {
        let mut env = bound.env(&self.plan);
        self.real == real && self.plan.fixed.iter().all(|(axis, extent)| env.extent(*axis).is_ok_and(|e| e == *extent))
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernel({} on {})", self.name(), self.0.engine.target())
    }
}

/// Results of a run, in the order of the program.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs(pub(crate) Vec<(String, Tensor)>);

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

    /// How many times code has been made: once for each set of storages and fixed extents met (and kept).
    pub fn specialisations(&self) -> usize {
        self.0.made.lock().unwrap_or_else(PoisonError::into_inner).len()
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
        let late = self.late_extents(tensors, scalars, extents)?;
        let scalars: Vec<(&str, Scalar)> = scalars.iter().copied().chain(late.iter().map(|(n, e)| (n.as_str(), *e))).collect();
        let bound = self.bind(tensors, &scalars, extents)?;
        let mut made = allocate(self.signature(), &bound)?;
        let views = made.iter_mut().map(|(_, t)| t.view_mut()).collect();
        self.execute(&bound, views)?;
        Ok(Outputs(made))
    }

    /// Runs and fills the caller's memory; every output must be given. Where the memory has the storage that the kernels write (f32 on
    /// the processor), nothing is copied.
    ///
    /// Errors: those of `run`, and outputs that are missing, unknown, or of another shape or dtype; then nothing has been written.
    pub fn run_into(&self, tensors: &[(&str, TensorView<'_>)], scalars: &[(&str, Scalar)], outputs: &mut [(&str, TensorViewMut<'_>)]) -> Result<(), RuntimeError> {
        let late = self.late_extents(tensors, scalars, &[])?;
        let scalars: Vec<(&str, Scalar)> = scalars.iter().copied().chain(late.iter().map(|(n, e)| (n.as_str(), *e))).collect();
        let bound = self.bind(tensors, &scalars, &[])?;
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

    /// Whether extents depend on the contents of tensors.
    pub(crate) fn has_late_extents(&self) -> bool {
        self.0.extents.is_some()
    }

    /// Values of the scalars that are extents computed from tensors, to be given to `bind` beside the caller's. Runs the program that
    /// computes them; none for most programs. Errors: as `run`.
    pub fn late_extents(&self, tensors: Tensors<'_>, scalars: &[(&str, Scalar)], extents: &[(&str, i64)]) -> Result<Vec<(String, Scalar)>, RuntimeError> {
        let Some((first, names)) = &self.0.extents else { return Ok(Vec::new()) };
        let values = first.run_with(tensors, scalars, extents)?;
        let each = names.iter().zip(values.iter()).map(|(name, (_, value))| {
            let extent = value.view().to_i64().first().copied().ok_or_else(|| RuntimeError::Bug(format!("no value for the {name}")))?;
            Ok((name.clone(), Scalar::Int(extent)))
        });
        each.collect()
    }

    fn execute(&self, bound: &Bound<'_>, outputs: Vec<TensorViewMut<'_>>) -> Result<(), RuntimeError> {
        match &self.0.engine.device {
            None => self.interpret(bound, outputs),
            Some(device) => {
                let special = self.special(device.as_ref(), bound)?;
                launch(&special.plan, special.code.as_ref(), bound, outputs, device.available())
            }
        }
    }

    /// The engine that compiled it.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// The code for a call on a device. Errors: [`RuntimeError::Unsupported`] for the interpreter, and those of compiling.
    pub(crate) fn code(&self, bound: &Bound<'_>) -> Result<Arc<Special>, RuntimeError> {
        let none = || RuntimeError::Unsupported { target: "interp", what: "code of its own".to_string() };
        self.special(self.0.engine.device().ok_or_else(none)?, bound)
    }

    /// The code for a call: made now, or at an earlier call with the same storages and fixed extents.
    fn special(&self, device: &dyn Device, bound: &Bound<'_>) -> Result<Arc<Special>, RuntimeError> {
        let real = natural_storage(DType::Real, bound);
        // A thread that panicked while compiling has added nothing, so the list is good.
        let mut made = self.0.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = made.iter().find(|s| s.fits(real, bound)) {
            return Ok(found.clone());
        }
        let extents = bound.extents.iter().map(|e| Some(*e)).collect();
        let options = Options { extents, caps: device.caps(), tile: device.tiles(real) };
        let program = lower(&self.0.graph, &options).map_err(|e| compile_error(device.target(), e))?;
        let code = device.load(&program, self.0.engine.cache.as_ref())?;
        let special = Arc::new(Special { real, plan: program.plan, code });
        if made.len() >= MAX_MADE {
            made.remove(0);
        }
        made.push(special.clone());
        Ok(special)
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

/// Memory for all outputs of a call, in their natural storages.
pub(crate) fn allocate(plan: &Plan, bound: &Bound<'_>) -> Result<Vec<(String, Tensor)>, RuntimeError> {
    let available = crate::memory::available();
    let mut need = 0u64;
    let mut results = Vec::new();
    for (i, output) in plan.outputs.iter().enumerate() {
        let shape = output_shape(plan, bound, i);
        let storage = natural_storage(output.dtype, bound);
        let what = || format!("output `{}` of shape {shape:?}", output.name);
        let count = elements(&shape).ok_or_else(|| RuntimeError::TooLarge { what: what(), bytes: None, available: None })?;
        need = need.saturating_add(count as u64 * storage.bytes() as u64);
        if available.is_some_and(|a| need > a) {
            return Err(RuntimeError::TooLarge { what: what(), bytes: Some(need), available });
        }
        results.push((output.name.clone(), storage, shape));
    }
    results.into_iter().map(|(name, storage, shape)| Ok((name, Tensor::zeros(storage, &shape)?))).collect()
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

/// An error of the compiler, as this crate reports it.
pub fn compile_error(target: &'static str, error: CompileError) -> RuntimeError {
    match error {
        CompileError::NeedExtent { .. } | CompileError::Unsupported { .. } => RuntimeError::Unsupported { target, what: error.to_string() },
        CompileError::Bug { .. } => RuntimeError::Bug(error.to_string()),
    }
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
