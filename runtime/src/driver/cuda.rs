//! Runs PTX kernels through the CUDA driver, which is loaded when the first device is opened; nothing of CUDA is needed to build this.
//!
//! A call with host memory is one call at a time on the default stream: buffers on the device for the time of the call, launches in order,
//! one wait at the end. `resident` keeps buffers on the device over many calls.
#![allow(unsafe_code)]

mod ceiling;
mod fault;
mod maps;
mod resident;

pub use resident::CudaStream;

use super::{Ceilings, DeviceMemory, DeviceStream, Executable, Prepared, Slot};
use crate::error::RuntimeError;
use crate::plan::{Call, LaunchCall};
use crate::tensor::Storage;
use attnc_codegen::ptx::{PtxKernel, PtxModule};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::{CudaContext, sys};
use fault::Fault;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, PoisonError, Weak};

const DEVICE: &str = "cuda";

/// Oldest CUDA whose driver will do (as the driver counts: 1000 major + 10 minor): the first with PTX 8.7.
const OLDEST: i32 = 12080;

/// A GPU. Cheap to share; one for the process is enough.
pub struct CudaDriver {
    context: Arc<CudaContext>,
    name: String,
    arch: String,
    /// Multiprocessors.
    cores: u64,
    fault: Fault,
    /// Modules in use, by their text.
    modules: Mutex<HashMap<String, Weak<Module>>>,
}

impl std::fmt::Debug for CudaDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CudaDriver({}, {})", self.name, self.arch)
    }
}

impl CudaDriver {
    /// Opens device number `ordinal`. Errors: [`RuntimeError::NoDevice`] without a driver, with one that is too old, without such a
    /// device, or with one before sm_80.
    pub fn new(ordinal: usize) -> Result<Arc<CudaDriver>, RuntimeError> {
        let none = |what: String| RuntimeError::NoDevice { device: DEVICE, what };
        // SAFETY: only tries to load the driver's library; loading it has no precondition.
        if !unsafe { sys::is_culib_present() } {
            return Err(none("the NVIDIA driver (libcuda) is not installed".to_string()));
        }
        let mut version = 0;
        // SAFETY: the library is there, the call may come before all others and writes one int.
        let asked = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
        asked.map_err(|e| none(format!("the driver does not tell its version: {e}")))?;
        if version < OLDEST {
            let text = |v: i32| format!("{}.{}", v / 1000, v % 1000 / 10);
            return Err(none(format!("the NVIDIA driver is too old: it is of CUDA {}, and {} or later is needed", text(version), text(OLDEST))));
        }
        let open = || -> Result<(Arc<CudaContext>, String, (i32, i32), i32), DriverError> {
            let context = CudaContext::new(ordinal)?;
            let name = context.name()?;
            let capability = context.compute_capability()?;
            let cores = context.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
            Ok((context, name, capability, cores))
        };
        let (context, name, capability, cores) = open().map_err(|e| none(e.to_string()))?;
        let arch = arch_of(capability).map_err(|what| none(format!("{name} {what}")))?;
        Ok(Arc::new(CudaDriver { context, name, arch, cores: cores.max(1) as u64, fault: Fault::default(), modules: Mutex::default() }))
    }

    /// Name of the device.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Architecture to compile for, such as `sm_90a`.
    pub fn arch(&self) -> &str {
        &self.arch
    }

    /// Bytes of memory that are free now.
    pub fn free_bytes(&self) -> Option<u64> {
        self.context.mem_get_info().ok().map(|(free, _)| free as u64)
    }

    /// Makes the context current on this thread. Errors: [`RuntimeError::DeviceLost`] after a fault of a kernel.
    fn bind(&self) -> Result<(), RuntimeError> {
        self.fault.check()?;
        self.context.bind_to_thread().map_err(|e| self.fault.of("the context", e))
    }

    /// Device memory of `bytes` bytes, contents undefined.
    fn allocate(self: &Arc<Self>, what: impl FnOnce() -> String, bytes: u64) -> Result<Memory, RuntimeError> {
        self.bind()?;
        let too_large = |what: String| RuntimeError::TooLarge { what, bytes: Some(bytes), available: self.free_bytes() };
        let Ok(size) = usize::try_from(bytes.max(1)) else { return Err(too_large(what())) };
        // SAFETY: a context is current on this thread; the size is not 0.
        let pointer = unsafe { result::malloc_sync(size) }.map_err(|e| match e.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => too_large(what()),
            _ => self.fault.of("allocating memory", e),
        })?;
        Ok(Memory { pointer, bytes: size, driver: self.clone(), is_ours: true })
    }

    /// The module of a text: one that is loaded already, or a new one.
    fn module(self: &Arc<Self>, text: &str) -> Result<Arc<Module>, RuntimeError> {
        // A thread that panicked while loading has added nothing, so the map is good. Held while loading: one compilation a text.
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = modules.get(text).and_then(Weak::upgrade) {
            return Ok(found);
        }
        modules.retain(|_, m| m.strong_count() > 0);
        let module = Arc::new(Module::load(self, text)?);
        modules.insert(text.to_string(), Arc::downgrade(&module));
        Ok(module)
    }
}

/// The architecture to compile for, or why there is none.
fn arch_of((major, minor): (i32, i32)) -> Result<String, String> {
    match (major, minor) {
        (..8, _) => Err(format!("has compute capability {major}.{minor}, and 8.0 (Ampere) or later is needed")),
        // What LLVM and the driver know of the generation; later minors run the code of earlier ones.
        (8, 0..6) => Ok("sm_80".to_string()),
        (8, 6..9) => Ok("sm_86".to_string()),
        (8, _) => Ok("sm_89".to_string()),
        // The letter stands for instructions of this architecture alone.
        (9, 0) => Ok("sm_90a".to_string()),
        (9.., _) => Ok("sm_90".to_string()),
    }
}

/// Memory on the device, freed with this unless it is borrowed.
#[derive(Debug)]
struct Memory {
    pointer: sys::CUdeviceptr,
    bytes: usize,
    driver: Arc<CudaDriver>,
    is_ours: bool,
}

impl Memory {
    fn check(&self, bytes: usize) -> Result<(), RuntimeError> {
        if bytes > self.bytes {
            return Err(RuntimeError::Bug(format!("{bytes} bytes for {} bytes of device memory", self.bytes)));
        }
        self.driver.bind()
    }

    /// Copies from the host, after all work on the default stream.
    fn write(&self, bytes: &[u8]) -> Result<(), RuntimeError> {
        self.check(bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: the device memory is at least as long as the bytes, and the context is current.
        unsafe { result::memcpy_htod_sync(self.pointer, bytes) }.map_err(|e| self.driver.fault.of("copying to the device", e))
    }

    /// Copies to the host, after all work on the default stream.
    fn read(&self, into: &mut [u8]) -> Result<(), RuntimeError> {
        self.check(into.len())?;
        if into.is_empty() {
            return Ok(());
        }
        // SAFETY: as for `write`.
        unsafe { result::memcpy_dtoh_sync(into, self.pointer) }.map_err(|e| self.driver.fault.of("copying from the device", e))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.is_ours && self.driver.context.bind_to_thread().is_ok() {
            // SAFETY: `pointer` came from `malloc_sync` in this context and is freed once, here. Kernels that use it have finished: freeing waits
            // for them. An error cannot be reported from here; a later call on the context repeats it.
            let _ = unsafe { result::free_sync(self.pointer) };
        }
    }
}

/// A loaded module, unloaded with this.
#[derive(Debug)]
struct Module {
    module: sys::CUmodule,
    context: Arc<CudaContext>,
}

// SAFETY: a module handle may be used from any thread in which its context is current; `execute` makes it so.
unsafe impl Send for Module {}
// SAFETY: as above; nothing changes the module after loading.
unsafe impl Sync for Module {}

impl Drop for Module {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: the module was loaded in this context and is unloaded once, here; launches end before `execute` returns.
            let _ = unsafe { result::module::unload(self.module) };
        }
    }
}

impl Module {
    /// Lets the driver compile PTX. Errors: [`RuntimeError::Device`] with the driver's log.
    fn load(driver: &CudaDriver, text: &str) -> Result<Module, RuntimeError> {
        driver.bind()?;
        let text = CString::new(text).map_err(|e| RuntimeError::Bug(format!("the text of a module holds a zero byte: {e}")))?;
        let mut log = vec![0u8; 8 << 10];
        let mut options = [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void];
        let mut module = std::ptr::null_mut();
        // SAFETY: `text` ends in a zero byte and lives through the call; two options with two values: a buffer and its size (as the pointer's
        // bits, as the driver wants it), and the buffer lives through the call too.
        let done = unsafe { sys::cuModuleLoadDataEx(&mut module, text.as_ptr().cast(), 2, options.as_mut_ptr(), values.as_mut_ptr()) }.result();
        done.map_err(|e| {
            let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
            let log = String::from_utf8_lossy(&log[..end]);
            driver.fault.of(format_args!("the driver refuses a module{}{}", if end > 0 { ":\n" } else { "" }, log.trim_end()), e)
        })?;
        Ok(Module { module, context: driver.context.clone() })
    }

    fn function(&self, driver: &CudaDriver, entry: &str) -> Result<Function, RuntimeError> {
        let name = CString::new(entry).map_err(|e| RuntimeError::Bug(format!("entry `{entry}`: {e}")))?;
        // SAFETY: the module is loaded.
        unsafe { result::module::get_function(self.module, name) }.map(Function).map_err(|e| driver.fault.of(format_args!("entry `{entry}`"), e))
    }
}

/// A function of a module that is held beside it.
struct Function(sys::CUfunction);

// SAFETY: as for `Module`.
unsafe impl Send for Function {}
// SAFETY: as for `Module`.
unsafe impl Sync for Function {}

/// Kernels of one plan on a GPU. Cheap to clone.
#[derive(Clone)]
pub struct CudaProgram(Arc<Code>);

struct Code {
    driver: Arc<CudaDriver>,
    // Before the module, so that it is dropped first.
    functions: Vec<Function>,
    kernels: Vec<PtxKernel>,
    text: String,
    _module: Arc<Module>,
}

impl CudaProgram {
    /// Compiles the kernels of a plan, in the order that its launches count them, for the architecture of the device; they must be lowered
    /// for `ptx::caps` and `ptx::tiles`. Errors: [`RuntimeError::Unsupported`], [`RuntimeError::Device`] when the driver refuses.
    #[cfg(feature = "ptx")]
    pub fn new(driver: Arc<CudaDriver>, kernels: &[attnc_compiler::kernel::Kernel]) -> Result<CudaProgram, RuntimeError> {
        let module = attnc_codegen::ptx::compile(kernels, driver.arch()).map_err(|e| super::emit_error("ptx", e))?;
        CudaProgram::from_artifacts(driver, module)
    }

    /// As `new`, from kernels compiled before.
    pub fn from_artifacts(driver: Arc<CudaDriver>, compiled: PtxModule) -> Result<CudaProgram, RuntimeError> {
        let module = driver.module(&compiled.text)?;
        let functions = compiled.kernels.iter().map(|k| module.function(&driver, &k.entry)).collect::<Result<Vec<_>, _>>()?;
        for (kernel, function) in compiled.kernels.iter().zip(&functions) {
            if let Some(roles) = &kernel.roles {
                maps::allow_block_memory(&driver, function, roles.block_bytes, &kernel.name)?;
            }
        }
        Ok(CudaProgram(Arc::new(Code { driver, functions, kernels: compiled.kernels, text: compiled.text, _module: module })))
    }
}

impl Code {
    /// The kernel of a launch and its function, when the arguments fit.
    fn entry(&self, launch: &LaunchCall) -> Result<(&PtxKernel, &Function), RuntimeError> {
        let index = launch.kernel as usize;
        let found = self.kernels.get(index).zip(self.functions.get(index));
        let (kernel, function) = found.ok_or_else(|| RuntimeError::Bug(format!("there is no kernel {}", launch.kernel)))?;
        if (launch.buffers.len(), launch.ints.len(), launch.reals.len()) != (kernel.buffers.len(), kernel.ints, kernel.reals) {
            return Err(RuntimeError::Bug(format!("a launch does not fit kernel `{}`", kernel.name)));
        }
        Ok((kernel, function))
    }

    /// Blocks of one launch at a time, and the bytes of workspace that they need.
    fn batch(kernel: &PtxKernel, blocks: u64) -> (u64, u64) {
        let bytes = 4 * kernel.workspace_words as u64;
        let most = (1u64 << 31) - 1;
        let batch = WORKSPACE_BYTES.checked_div(bytes).map_or(most, |n| n.clamp(1, most)).min(blocks);
        (batch, bytes.saturating_mul(batch))
    }

    /// The workspace that suffices for each launch of a call.
    fn workspace(&self, call: &Call) -> Result<Memory, RuntimeError> {
        let mut most = 0;
        for launch in &call.launches {
            most = most.max(Code::batch(self.entry(launch)?.0, launch.blocks).1);
        }
        self.driver.allocate(|| "the workspace".to_string(), most)
    }

    /// Queues one launch. The context must be current; `pointers[i]` is the memory of buffer i, of the size that the plan says.
    fn launch(&self, launch: &LaunchCall, buffers: &[sys::CUdeviceptr], workspace: &Memory, stream: sys::CUstream) -> Result<(), RuntimeError> {
        let (kernel, function) = self.entry(launch)?;
        let mut pointers = vec![];
        for slot in &launch.buffers {
            pointers.push(*buffers.get(*slot as usize).ok_or_else(|| RuntimeError::Bug(format!("there is no buffer {slot}")))?);
        }
        pointers.push(workspace.pointer);
        let narrow = |value: i64| {
            i32::try_from(value).map_err(|_| RuntimeError::Unsupported {
                target: "ptx",
                what: format!("kernel `{}` gets {value}, which does not fit 32 bits", kernel.name),
            })
        };
        let mut ints = vec![0i32];
        for value in &launch.ints {
            ints.push(narrow(*value)?);
        }
        let mut reals = launch.reals.clone();
        narrow(i64::try_from(launch.blocks).unwrap_or(i64::MAX))?;
        let (batch, need) = Code::batch(kernel, launch.blocks);
        if need > workspace.bytes as u64 {
            return Err(RuntimeError::Bug(format!("the workspace is too small for kernel `{}`", kernel.name)));
        }
        let mut tensor_maps = match &kernel.roles {
            Some(roles) => maps::encode(&self.driver, roles, &pointers, &launch.ints, &kernel.name)?,
            None => vec![],
        };
        let block_bytes = kernel.roles.as_ref().map_or(0, |r| r.block_bytes as u32);
        let persistent = kernel.roles.as_ref().is_some_and(|r| r.persistent);
        let mut first = 0;
        while first < launch.blocks {
            // Blocks of a persistent kernel share all pieces of work; other kernels with roles are launched whole too.
            let count = if persistent { launch.blocks.min(self.driver.cores) } else { batch.min(launch.blocks - first) };
            ints[0] = first as i32;
            let mut params: Vec<*mut c_void> = vec![];
            params.extend(pointers.iter_mut().map(|p| std::ptr::from_mut(p).cast()));
            params.extend(ints.iter_mut().map(|p| std::ptr::from_mut(p).cast()));
            params.extend(reals.iter_mut().map(|p| std::ptr::from_mut(p).cast()));
            params.extend(tensor_maps.iter_mut().map(|p| std::ptr::from_mut(p).cast()));
            // SAFETY: the function belongs to the loaded module and takes these parameters: pointers for all buffers and the workspace, Ints
            // after the first block, Reals, tensor maps (`entry` has compared the counts; `codegen::ptx` states the order and the types). The buffers have the
            // sizes of the plan, and live until the caller has waited; grid and block are not 0. The driver copies the parameters at once.
            unsafe {
                let (grid, block) = ((count as u32, 1, 1), (kernel.lanes, 1, 1));
                result::launch_kernel(function.0, grid, block, block_bytes, stream, &mut params)
            }
            .map_err(|e| self.driver.fault.of(format_args!("kernel `{}`", kernel.name), e))?;
            first += if persistent { launch.blocks } else { count };
        }
        Ok(())
    }

    /// Names of the kernels of a call, for errors that the driver reports late.
    fn names(&self, call: &Call) -> String {
        let mut names: Vec<&str> = call.launches.iter().filter_map(|l| self.kernels.get(l.kernel as usize)).map(|k| k.name.as_str()).collect();
        names.dedup();
        names.join("`, `")
    }
}

/// Most bytes of workspace at a time, unless one block needs more.
const WORKSPACE_BYTES: u64 = 1 << 30;

/// The default stream.
const DEFAULT: sys::CUstream = std::ptr::null_mut();

impl Executable for CudaProgram {
    fn execute(&self, call: &Call, slots: &mut [Slot<'_>]) -> Result<(), RuntimeError> {
        let code = &self.0;
        if slots.len() != call.buffers.len() {
            return Err(RuntimeError::Bug(format!("{} slots for {} buffers", slots.len(), call.buffers.len())));
        }
        code.driver.bind()?;
        let mut buffers = vec![];
        for (i, (buffer, slot)) in call.buffers.iter().zip(slots.iter()).enumerate() {
            let memory = code.driver.allocate(|| format!("buffer {i}"), buffer.bytes as u64)?;
            if let Slot::In(bytes) = slot {
                memory.write(bytes)?;
            }
            buffers.push(memory);
        }
        let pointers: Vec<sys::CUdeviceptr> = buffers.iter().map(|b| b.pointer).collect();
        let workspace = code.workspace(call)?;
        let mut done = Ok(());
        for launch in &call.launches {
            done = code.launch(launch, &pointers, &workspace, DEFAULT);
            if done.is_err() {
                break;
            }
        }
        // Also after an error: earlier launches may still run.
        let waited = code.driver.context.synchronize().map_err(|e| code.driver.fault.of(format_args!("kernel `{}`", code.names(call)), e));
        done?;
        waited?;
        for (slot, memory) in slots.iter_mut().zip(&buffers) {
            if let Slot::Out(bytes) = slot {
                memory.read(bytes)?;
            }
        }
        Ok(())
    }

    fn text(&self) -> Option<&str> {
        Some(&self.0.text)
    }

    fn prepare(&self, call: Call, memory: Vec<Option<Arc<dyn DeviceMemory>>>, stream: Option<Arc<dyn DeviceStream>>) -> Result<Box<dyn Prepared>, RuntimeError> {
        resident::prepare(self.0.clone(), call, memory, stream)
    }
}

/// A GPU that programs are lowered and compiled for (feature `ptx`), or that runs files compiled before.
#[derive(Debug)]
pub struct Nvidia(pub Arc<CudaDriver>);

impl super::Device for Nvidia {
    fn target(&self) -> &'static str {
        "ptx"
    }

    fn caps(&self) -> attnc_compiler::kernel::caps::Caps {
        attnc_codegen::ptx::caps_for(self.0.arch())
    }

    fn tiles(&self, real: Storage) -> attnc_compiler::kernel::caps::TileOptions {
        attnc_compiler::kernel::caps::TileOptions { real, ..attnc_codegen::ptx::tiles() }
    }

    #[cfg(feature = "ptx")]
    fn load(&self, program: &attnc_compiler::kernel::plan::Program, cache: Option<&crate::cache::Cache>) -> Result<Box<dyn Executable>, RuntimeError> {
        let module = cached(&program.kernels, self.0.arch(), cache)?;
        Ok(Box::new(CudaProgram::from_artifacts(self.0.clone(), module)?))
    }

    #[cfg(not(feature = "ptx"))]
    fn load(&self, _program: &attnc_compiler::kernel::plan::Program, _cache: Option<&crate::cache::Cache>) -> Result<Box<dyn Executable>, RuntimeError> {
        let what = "this build has no LLVM to compile with; it runs files that were compiled before".to_string();
        Err(RuntimeError::Unsupported { target: "ptx", what })
    }

    fn load_files(&self, manifest: &crate::manifest::Manifest, texts: Vec<String>) -> Result<Box<dyn Executable>, RuntimeError> {
        let kernels = manifest.kernels.iter().map(|entry| PtxKernel {
            name: entry.name.clone(),
            entry: entry.name.clone(),
            buffers: entry.args(),
            ints: entry.ints.len(),
            reals: entry.reals.len(),
            lanes: entry.lanes,
            shared_bytes: entry.shared_bytes as usize,
            workspace_words: (entry.workspace_bytes / 4) as usize,
            roles: entry.roles.clone(),
        });
        // One module holds all kernels, so every entry names the same file.
        let text = texts.into_iter().next().unwrap_or_default();
        Ok(Box::new(CudaProgram::from_artifacts(self.0.clone(), PtxModule { text, kernels: kernels.collect() })?))
    }

    fn available(&self) -> Option<u64> {
        self.0.free_bytes()
    }

    fn ceilings(&self, real: Storage) -> Result<Option<Ceilings>, RuntimeError> {
        ceiling::measure(&self.0, real).map(Some)
    }

    fn has_memory(&self) -> bool {
        true
    }

    fn allocate(&self, bytes: u64) -> Result<Arc<dyn DeviceMemory>, RuntimeError> {
        Ok(Arc::new(self.0.allocate(|| "a tensor".to_string(), bytes)?))
    }

    fn import(&self, address: u64, bytes: u64) -> Result<Arc<dyn DeviceMemory>, RuntimeError> {
        resident::import(&self.0, address, bytes)
    }

    fn stream(&self) -> Result<Arc<dyn DeviceStream>, RuntimeError> {
        Ok(Arc::new(CudaStream::new(&self.0)?))
    }

    fn lost(&self) -> Option<&str> {
        self.0.fault.text()
    }
}

/// What the cache keeps of a module: the text, and for each kernel its entry, shared bytes and workspace words.
#[cfg(feature = "ptx")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Stored {
    text: String,
    kernels: Vec<(String, usize, usize)>,
}

/// Compiles kernels, or takes them from the cache. LLVM needs a good part of a second, a file a millisecond.
#[cfg(feature = "ptx")]
fn cached(kernels: &[attnc_compiler::kernel::Kernel], arch: &str, cache: Option<&crate::cache::Cache>) -> Result<PtxModule, RuntimeError> {
    let compile = || attnc_codegen::ptx::compile(kernels, arch).map_err(|e| super::emit_error("ptx", e));
    let Some(cache) = cache else { return compile() };
    // The debug form holds every field; dumps for people may leave some out.
    let key = crate::cache::Key::of(&[b"ptx", arch.as_bytes(), format!("{kernels:?}").as_bytes()]);
    let bug = |e: serde_json::Error| RuntimeError::Bug(format!("a cache entry: {e}"));
    let bytes = cache.get_or(&key, || {
        let made = compile()?;
        let kernels = made.kernels.into_iter().map(|k| (k.entry, k.shared_bytes, k.workspace_words)).collect();
        serde_json::to_vec(&Stored { text: made.text, kernels }).map_err(bug)
    })?;
    let stored: Stored = serde_json::from_slice(&bytes).map_err(bug)?;
    if stored.kernels.len() != kernels.len() {
        return compile();
    }
    let described = kernels.iter().zip(stored.kernels).map(|(kernel, (entry, shared_bytes, workspace_words))| PtxKernel {
        name: kernel.name.clone(),
        entry,
        buffers: kernel.buffers.clone(),
        ints: kernel.ints.len(),
        reals: kernel.reals.len(),
        lanes: kernel.lanes,
        shared_bytes,
        workspace_words,
        roles: attnc_codegen::ptx::PtxRoles::of(kernel),
    });
    Ok(PtxModule { text: stored.text, kernels: described.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gpu_from_ampere_on_has_an_architecture_and_earlier_ones_an_error() {
        for (capability, arch) in [((8, 0), "sm_80"), ((8, 6), "sm_86"), ((8, 7), "sm_86"), ((8, 9), "sm_89"), ((9, 0), "sm_90a"), ((12, 1), "sm_90")] {
            assert_eq!(arch_of(capability).as_deref(), Ok(arch));
        }
        let error = arch_of((7, 5)).unwrap_err();
        assert!(error.contains("7.5") && error.contains("8.0"), "{error}");
    }
}
