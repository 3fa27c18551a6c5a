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
use std::any::Any;
use std::sync::Arc;

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

    /// A call that stays: buffers in device memory, launched as often as the caller wants. `memory[i]` belongs to buffer i; where it is
    /// `None`, memory that lives as long as the result is allocated. Launches run on `stream`, or on the device's default stream.
    ///
    /// Errors: [`RuntimeError::Unsupported`] for devices that share the host's memory; memory of another device, or that overlaps.
    fn prepare(&self, call: Call, memory: Vec<Option<Arc<dyn DeviceMemory>>>, stream: Option<Arc<dyn DeviceStream>>) -> Result<Box<dyn Prepared>, RuntimeError> {
        let what = format!("calls of {} launches on {} buffers that stay{}", call.launches.len(), memory.len(), if stream.is_some() { " on a stream" } else { "" });
        Err(RuntimeError::Unsupported { target: "host", what })
    }

    /// The artifact as text for people, when the device has one (PTX, WGSL).
    fn text(&self) -> Option<&str> {
        None
    }
}

/// Memory of a device, freed when the last owner drops it (imported memory stays with its owner).
pub trait DeviceMemory: Send + Sync + std::fmt::Debug {
    fn bytes(&self) -> usize;

    /// Where it lies, as the device counts.
    fn address(&self) -> u64;

    /// Copies from the host. Errors: [`RuntimeError::Bug`] for more bytes than there are; the device's.
    fn upload(&self, bytes: &[u8]) -> Result<(), RuntimeError>;

    /// Copies to the host, after everything that was launched before. Errors: as `upload`.
    fn download(&self, into: &mut [u8]) -> Result<(), RuntimeError>;

    fn as_any(&self) -> &dyn Any;
}

/// A queue of launches: those of one stream run in order, those of two may overlap.
pub trait DeviceStream: Send + Sync + std::fmt::Debug {
    /// Returns when all that was queued is done. Errors: the device's.
    fn wait(&self) -> Result<(), RuntimeError>;

    fn as_any(&self) -> &dyn Any;
}

/// A call whose buffers stay on the device. Dropping it waits for its launches.
pub trait Prepared: Send + Sync {
    /// Queues all launches in order and returns at once. Errors: the device's.
    fn launch(&self) -> Result<(), RuntimeError>;

    /// Returns when all launches are done. Errors: also those of kernels, which show only now.
    fn wait(&self) -> Result<(), RuntimeError>;

    /// Seconds that each of `runs` launches takes by the device's clock, the device's cache overwritten before each; fewer when
    /// `budget` seconds of the host have gone by. Errors: as `wait`.
    fn time(&self, runs: usize, budget: f64) -> Result<Vec<f64>, RuntimeError>;
}

/// What a device reaches at best.
#[derive(Clone, Debug)]
pub struct Ceilings {
    /// Floating point operations in a second of matrix products alone.
    pub products: f64,
    /// Where that number is from.
    pub products_by: String,
    /// Bytes read and written in a second by a copy in device memory; `None` where that is the host's.
    pub copy: Option<f64>,
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

    /// What matrix products alone and copies reach, measured now for reals stored as `real`; `None` when the device cannot tell.
    ///
    /// Errors: those of loading and running the measurement.
    fn ceilings(&self, _real: Storage) -> Result<Option<Ceilings>, RuntimeError> {
        Ok(None)
    }

    /// Whether tensors can stay in memory of the device.
    fn has_memory(&self) -> bool {
        false
    }

    /// Memory of `bytes` bytes, contents undefined. Errors: [`RuntimeError::TooLarge`]; [`RuntimeError::Unsupported`] for devices that
    /// share the host's memory.
    fn allocate(&self, bytes: u64) -> Result<Arc<dyn DeviceMemory>, RuntimeError> {
        Err(RuntimeError::Unsupported { target: self.target(), what: format!("{bytes} bytes of its own memory") })
    }

    /// Memory that somebody else allocated on this device, without a copy; it must outlive the result.
    ///
    /// Errors: [`RuntimeError::Device`] when it is not an allocation of this device of that length.
    fn import(&self, address: u64, bytes: u64) -> Result<Arc<dyn DeviceMemory>, RuntimeError> {
        Err(RuntimeError::Unsupported { target: self.target(), what: format!("{bytes} bytes of foreign memory at {address:#x}") })
    }

    /// A new stream. Errors: as `allocate`.
    fn stream(&self) -> Result<Arc<dyn DeviceStream>, RuntimeError> {
        Err(RuntimeError::Unsupported { target: self.target(), what: "streams".to_string() })
    }

    /// The fault after which this device answers nothing.
    fn lost(&self) -> Option<&str> {
        None
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

    fn tiles(&self, real: Storage) -> TileOptions {
        TileOptions { real, int: Storage::I64, ..TileOptions::default() }
    }

    fn load(&self, program: &Program, _cache: Option<&Cache>) -> Result<Box<dyn Executable>, RuntimeError> {
        let code = cpu::CpuProgram::new(self.0.clone(), &program.kernels).map_err(|e| emit_error("cpu", e))?;
        Ok(Box::new(code))
    }

    fn available(&self) -> Option<u64> {
        crate::memory::available()
    }

    fn ceilings(&self, _real: Storage) -> Result<Option<Ceilings>, RuntimeError> {
        let products = ceiling::products(self, self.0.threads())?;
        Ok(Some(Ceilings { products, products_by: "tile products in cache, f32".to_string(), copy: None }))
    }
}
