//! Runs PTX kernels through the CUDA driver, which is loaded when the first device is opened; nothing of CUDA is needed to build this.
//!
//! One call at a time on the default stream: buffers on the device for the time of the call, launches in order, one wait at the end.
#![allow(unsafe_code)]

use super::{Executable, Slot};
use crate::error::RuntimeError;
use crate::plan::{Call, LaunchCall};
use attnc_codegen::ptx::{PtxKernel, PtxModule};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::{CudaContext, sys};
use std::ffi::{CString, c_void};
use std::sync::Arc;

const DEVICE: &str = "cuda";

fn failed(what: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::Device { device: DEVICE, what: what.to_string() }
}

/// A GPU. Cheap to share; one for the process is enough.
pub struct CudaDriver {
    context: Arc<CudaContext>,
    name: String,
    arch: String,
}

impl std::fmt::Debug for CudaDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CudaDriver({}, {})", self.name, self.arch)
    }
}

impl CudaDriver {
    /// Opens device number `ordinal`. Errors: [`RuntimeError::NoDevice`] without a driver or without such a device.
    pub fn new(ordinal: usize) -> Result<Arc<CudaDriver>, RuntimeError> {
        let none = |what: String| RuntimeError::NoDevice { device: DEVICE, what };
        // SAFETY: only tries to load the driver's library; loading it has no precondition.
        if !unsafe { sys::is_culib_present() } {
            return Err(none("the NVIDIA driver (libcuda) is not installed".to_string()));
        }
        let open = || -> Result<(Arc<CudaContext>, String, (i32, i32)), DriverError> {
            let context = CudaContext::new(ordinal)?;
            let name = context.name()?;
            let capability = context.compute_capability()?;
            Ok((context, name, capability))
        };
        let (context, name, (major, minor)) = open().map_err(|e| none(e.to_string()))?;
        // From 9.0 on the letter stands for instructions of this architecture alone.
        let arch = format!("sm_{major}{minor}{}", if major >= 9 { "a" } else { "" });
        Ok(Arc::new(CudaDriver { context, name, arch }))
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

    fn bind(&self) -> Result<(), RuntimeError> {
        self.context.bind_to_thread().map_err(failed)
    }

    /// Device memory of `bytes` bytes, contents undefined.
    fn allocate(&self, what: impl FnOnce() -> String, bytes: u64) -> Result<Memory, RuntimeError> {
        self.bind()?;
        let too_large = |what: String| RuntimeError::TooLarge { what, bytes: Some(bytes), available: self.free_bytes() };
        let Ok(size) = usize::try_from(bytes.max(1)) else { return Err(too_large(what())) };
        // SAFETY: a context is current on this thread; the size is not 0.
        let pointer = unsafe { result::malloc_sync(size) }.map_err(|e| match e.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => too_large(what()),
            _ => failed(e),
        })?;
        Ok(Memory { pointer, bytes: size, context: self.context.clone() })
    }
}

/// Memory on the device, freed with this.
struct Memory {
    pointer: sys::CUdeviceptr,
    bytes: usize,
    context: Arc<CudaContext>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: `pointer` came from `malloc_sync` in this context and is freed once, here. Kernels that use it have finished: freeing waits
            // for them. An error cannot be reported from here; a later call on the context repeats it.
            let _ = unsafe { result::free_sync(self.pointer) };
        }
    }
}

/// A loaded module, unloaded with this.
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
        let text = CString::new(text).map_err(|e| failed(format!("the text of a module holds a zero byte: {e}")))?;
        let mut log = vec![0u8; 8 << 10];
        let mut options = [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void];
        let mut module = std::ptr::null_mut();
        // SAFETY: `text` ends in a zero byte and lives through the call; two options with two values: a buffer and its size (as the pointer's
        // bits, as the driver wants it), and the buffer lives through the call too.
        let done = unsafe { sys::cuModuleLoadDataEx(&mut module, text.as_ptr().cast(), 2, options.as_mut_ptr(), values.as_mut_ptr()) }.result();
        done.map_err(|e| {
            let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
            failed(format!("the driver refuses a module: {e}\n{}", String::from_utf8_lossy(&log[..end]).trim_end()))
        })?;
        Ok(Module { module, context: driver.context.clone() })
    }

    fn function(&self, entry: &str) -> Result<Function, RuntimeError> {
        let name = CString::new(entry).map_err(|e| failed(e.to_string()))?;
        // SAFETY: the module is loaded.
        unsafe { result::module::get_function(self.module, name) }.map(Function).map_err(|e| failed(format!("entry `{entry}`: {e}")))
    }
}

/// A function of a module that is held beside it.
struct Function(sys::CUfunction);

// SAFETY: as for `Module`.
unsafe impl Send for Function {}
// SAFETY: as for `Module`.
unsafe impl Sync for Function {}

/// Kernels of one plan on a GPU.
pub struct CudaProgram {
    driver: Arc<CudaDriver>,
    // Before the module, so that it is dropped first.
    functions: Vec<Function>,
    kernels: Vec<PtxKernel>,
    text: String,
    _module: Module,
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
        let module = Module::load(&driver, &compiled.text)?;
        let functions = compiled.kernels.iter().map(|k| module.function(&k.entry)).collect::<Result<Vec<_>, _>>()?;
        Ok(CudaProgram { driver, functions, kernels: compiled.kernels, text: compiled.text, _module: module })
    }

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

    fn launch(&self, launch: &LaunchCall, buffers: &[Memory], workspace: &Memory) -> Result<(), RuntimeError> {
        let (kernel, function) = self.entry(launch)?;
        let mut pointers = vec![];
        for slot in &launch.buffers {
            let buffer = buffers.get(*slot as usize).ok_or_else(|| RuntimeError::Bug(format!("there is no buffer {slot}")))?;
            pointers.push(buffer.pointer);
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
        let (batch, need) = CudaProgram::batch(kernel, launch.blocks);
        if need > workspace.bytes as u64 {
            return Err(RuntimeError::Bug(format!("the workspace is too small for kernel `{}`", kernel.name)));
        }
        let mut first = 0;
        while first < launch.blocks {
            let count = batch.min(launch.blocks - first);
            ints[0] = first as i32;
            let mut params: Vec<*mut c_void> = vec![];
            params.extend(pointers.iter_mut().map(|p| std::ptr::from_mut(p).cast()));
            params.extend(ints.iter_mut().map(|p| std::ptr::from_mut(p).cast()));
            params.extend(reals.iter_mut().map(|p| std::ptr::from_mut(p).cast()));
            // SAFETY: the function belongs to the loaded module and takes these parameters: pointers for all buffers and the workspace, Ints
            // after the first block, Reals (`entry` has compared the counts; `codegen::ptx` states the order and the types). The buffers have the
            // sizes of the plan, and live until `execute` has waited; grid and block are not 0. The driver copies the parameters at once.
            unsafe {
                let (grid, block) = ((count as u32, 1, 1), (kernel.lanes, 1, 1));
                result::launch_kernel(function.0, grid, block, 0, std::ptr::null_mut(), &mut params)
            }
            .map_err(|e| failed(format!("kernel `{}`: {e}", kernel.name)))?;
            first += count;
        }
        Ok(())
    }
}

/// Most bytes of workspace at a time, unless one block needs more.
const WORKSPACE_BYTES: u64 = 1 << 30;

impl Executable for CudaProgram {
    fn execute(&self, call: &Call, slots: &mut [Slot<'_>]) -> Result<(), RuntimeError> {
        if slots.len() != call.buffers.len() {
            return Err(RuntimeError::Bug(format!("{} slots for {} buffers", slots.len(), call.buffers.len())));
        }
        self.driver.bind()?;
        let mut buffers = vec![];
        for (i, (buffer, slot)) in call.buffers.iter().zip(slots.iter()).enumerate() {
            let memory = self.driver.allocate(|| format!("buffer {i}"), buffer.bytes as u64)?;
            if let Slot::In(bytes) = slot
                && !bytes.is_empty()
            {
                if bytes.len() > memory.bytes {
                    return Err(RuntimeError::Bug(format!("{} bytes for buffer {i} of {}", bytes.len(), memory.bytes)));
                }
                // SAFETY: the device memory is at least as long as the bytes.
                unsafe { result::memcpy_htod_sync(memory.pointer, bytes) }.map_err(failed)?;
            }
            buffers.push(memory);
        }
        let mut most = 0;
        for launch in &call.launches {
            most = most.max(CudaProgram::batch(self.entry(launch)?.0, launch.blocks).1);
        }
        let workspace = self.driver.allocate(|| "the workspace".to_string(), most)?;
        let mut done = Ok(());
        for launch in &call.launches {
            done = self.launch(launch, &buffers, &workspace);
            if done.is_err() {
                break;
            }
        }
        // Also after an error: earlier launches may still run.
        let waited = self.driver.context.synchronize().map_err(failed);
        done?;
        waited?;
        for (i, (slot, memory)) in slots.iter_mut().zip(&buffers).enumerate() {
            if let Slot::Out(bytes) = slot
                && !bytes.is_empty()
            {
                if bytes.len() > memory.bytes {
                    return Err(RuntimeError::Bug(format!("{} bytes from buffer {i} of {}", bytes.len(), memory.bytes)));
                }
                // SAFETY: the device memory is at least as long as the bytes, and no launch is running.
                unsafe { result::memcpy_dtoh_sync(bytes, memory.pointer) }.map_err(failed)?;
            }
        }
        Ok(())
    }

    fn text(&self) -> Option<&str> {
        Some(&self.text)
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
        attnc_codegen::ptx::caps()
    }

    fn tiles(&self, real: crate::tensor::Storage) -> attnc_compiler::kernel::caps::TileOptions {
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
        });
        // One module holds all kernels, so every entry names the same file.
        let text = texts.into_iter().next().unwrap_or_default();
        Ok(Box::new(CudaProgram::from_artifacts(self.0.clone(), PtxModule { text, kernels: kernels.collect() })?))
    }

    fn available(&self) -> Option<u64> {
        self.0.free_bytes()
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
    });
    Ok(PtxModule { text: stored.text, kernels: described.collect() })
}
