//! One file a device. A driver takes a checked call and memory, allocates what lives only during the call, and launches.
//! The only home of `unsafe` in this crate.

#[cfg(feature = "cpu")]
mod ceiling;
#[cfg(feature = "cpu")]
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "wgpu")]
pub mod wgpu;

use crate::cache::Cache;
use crate::error::RuntimeError;
use crate::manifest::Manifest;
use crate::plan::Call;
use attnc_codegen::EmitError;
use attnc_compiler::kernel::caps::Caps;
use attnc_compiler::kernel::plan::Program;
use attnc_compiler::passes::tile::TileOptions;
use attnc_compiler::kernel::Storage;

/// Memory of one buffer of the plan during a call. The bytes are dense, aligned for the buffer's storage, and exactly
/// `Call::buffers[i].bytes` long.
#[derive(Debug)]
pub enum Slot<'a> {
    /// An input: kernels only read it (a kernel that declares it `written` is refused).
    In(&'a [u8]),
    /// An output: every element is written by the kernels.
    Out(&'a mut [u8]),
    /// Lives during the call; the driver allocates it, contents are undefined at the start.
    Temp,
}

/// A compiled program on a device: all kernels of a plan, ready to launch.
pub trait Executable: Send + Sync {
    /// Runs all launches of `call` in order and returns when the outputs are in host memory. `slots[i]` belongs to buffer i.
    ///
    /// Errors: [`RuntimeError::Device`] when the device refuses or fails, [`RuntimeError::TooLarge`] when it has too little memory.
    fn execute(&self, call: &Call, slots: &mut [Slot<'_>]) -> Result<(), RuntimeError>;

    /// The artifact as text for people, when the device has one (PTX, WGSL).
    fn text(&self) -> Option<&str> {
        None
    }
}

/// Something that runs kernels.
pub trait Device: Send + Sync + std::fmt::Debug {
    /// Name on the command line: `cpu`, `wgsl`, `ptx`.
    fn target(&self) -> &'static str;

    /// What kernels may use.
    fn caps(&self) -> Caps;

    /// Tile sizes and storages for a call whose real inputs are stored as `real` (f32, bf16 or f16). Inputs in other storages than
    /// chosen here are converted on the host.
    fn tiles(&self, real: Storage) -> TileOptions;

    /// Makes a program ready to run; `cache` keeps artifacts that are slow to make.
    ///
    /// Errors: [`RuntimeError::Unsupported`] for programs that this device cannot run, [`RuntimeError::Device`] when it refuses code.
    fn load(&self, program: &Program, cache: Option<&Cache>) -> Result<Box<dyn Executable>, RuntimeError>;

    /// Makes kernels from files ready to run: `texts[i]` is the file of kernel i of the manifest, which has been checked.
    ///
    /// Errors: [`RuntimeError::Unsupported`] where code is made from the program only; else as `load`.
    fn load_files(&self, manifest: &Manifest, texts: Vec<String>) -> Result<Box<dyn Executable>, RuntimeError> {
        let what = format!("{} files of `{}` cannot be loaded, its code is made from the program", texts.len(), manifest.plan.name);
        Err(RuntimeError::Unsupported { target: self.target(), what })
    }

    /// Bytes that a call may allocate, where that is known.
    fn available(&self) -> Option<u64>;

    /// Floating point operations in a second that matrix products alone reach, measured now; `None` when the device cannot tell.
    ///
    /// Errors: those of loading and running the measurement.
    fn ceiling(&self) -> Result<Option<f64>, RuntimeError> {
        Ok(None)
    }
}

/// An error of a backend, as this crate reports it.
pub fn emit_error(target: &'static str, error: EmitError) -> RuntimeError {
    match error {
        EmitError::Unsupported { what, .. } => RuntimeError::Unsupported { target, what },
        EmitError::Invalid { .. } | EmitError::Backend { .. } => RuntimeError::Bug(error.to_string()),
    }
}

/// This machine's processor: machine code made in milliseconds, so nothing is cached.
#[cfg(feature = "cpu")]
pub struct Processor(pub std::sync::Arc<cpu::CpuDriver>);

#[cfg(feature = "cpu")]
impl std::fmt::Debug for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Processor({} threads)", self.0.threads())
    }
}

#[cfg(feature = "cpu")]
impl Device for Processor {
    fn target(&self) -> &'static str {
        "cpu"
    }

    fn caps(&self) -> Caps {
        Caps::cpu()
    }

    fn tiles(&self, _real: Storage) -> TileOptions {
        // Tile calls work on f32; 16-bit inputs are widened once on entry, which costs less than widening them in every tile.
        TileOptions { real: Storage::F32, int: Storage::I64, ..TileOptions::default() }
    }

    fn load(&self, program: &Program, _cache: Option<&Cache>) -> Result<Box<dyn Executable>, RuntimeError> {
        let code = cpu::CpuProgram::new(self.0.clone(), &program.kernels).map_err(|e| emit_error("cpu", e))?;
        Ok(Box::new(code))
    }

    fn available(&self) -> Option<u64> {
        crate::memory::available()
    }

    fn ceiling(&self) -> Result<Option<f64>, RuntimeError> {
        ceiling::products(self, self.0.threads()).map(Some)
    }
}
