//! Kernel IR to WGSL through a naga module. A block is a workgroup, a lane an invocation; Int is i32, Real f32.
//!
//! Group 0 binds one storage buffer for each buffer argument, in order, then the arguments (`array<i32>`: the number of the first block of this
//! dispatch, the number of the block after its last, the Int arguments, the bits of the Real arguments), then the workspace (words) when
//! a kernel has arrays in it. Block `first + x + y * groups_x` runs in workgroup `(x, y)`. The workspace holds `workspace_words` for each
//! block of the dispatch, by its number less `first`. Buffers hold f32, i32, u32 words that are 0 or 1 for Bool, or pairs of 16-bit floats
//! in words (read only). Needs no feature beyond the standard; the limits it needs stand in [`WgslKernel`].

mod function;
mod lower;

use crate::EmitError;
use attnc_compiler::kernel::caps::{Caps, TileOptions};
use attnc_compiler::kernel::{BufferArg, Kernel, Space, Storage, verify};
use naga::back::wgsl::{WriterFlags, write_string};
use naga::valid::{Capabilities, ValidationFlags, Validator};

const BACKEND: &str = "wgsl";

/// Name of the entry point of every module.
pub const ENTRY: &str = "main";

/// Int arguments that the driver puts before those of the kernel: the first block, and the end.
pub const LEADING_INTS: usize = 2;

/// Bytes of workgroup memory that every WebGPU device has.
pub const SHARED_BYTES: usize = 16 << 10;

/// What kernels for this target may use: one workgroup of 64, and the memory of any WebGPU device less two words for broadcasts.
pub fn caps() -> Caps {
    Caps::simt(64, SHARED_BYTES - 16)
}

/// Tile sizes that fit [`caps`], and storages that WGSL has.
pub fn tiles() -> TileOptions {
    TileOptions { rows: 16, keys: 16, flat: 256, tile_limit: 1 << 11, chunks: None, real: Storage::F32, int: Storage::I32 }
}

/// One kernel as text, and what it takes.
#[derive(Clone, Debug)]
pub struct WgslKernel {
    pub name: String,
    pub text: String,
    pub buffers: Vec<BufferArg>,
    /// Number of Int arguments.
    pub ints: usize,
    /// Number of Real arguments.
    pub reals: usize,
    pub lanes: u32,
    /// Bytes of workgroup memory.
    pub shared_bytes: usize,
    /// 32-bit words of the workspace for each block of a dispatch; 0: there is no workspace binding.
    pub workspace_words: usize,
}

/// Compiles one kernel.
///
/// Errors: [`EmitError::Invalid`] when it does not pass `verify`; [`EmitError::Unsupported`] for tile calls and for storages that
/// WGSL lacks; [`EmitError::Backend`] when naga refuses the module.
pub fn compile(kernel: &Kernel) -> Result<WgslKernel, EmitError> {
    let faults = verify(kernel);
    if !faults.is_empty() {
        return Err(EmitError::Invalid { kernel: kernel.name.clone(), faults });
    }
    let fail = |what: String| EmitError::Backend { backend: BACKEND, kernel: kernel.name.clone(), what };
    let module = lower::lower(kernel)?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
    let info = validator.validate(&module).map_err(|e| fail(e.emit_to_string("")))?;
    let text = write_string(&module, &info, WriterFlags::empty()).map_err(|e| fail(e.to_string()))?;
    let shared: usize = kernel.locals.iter().filter(|l| l.space == Space::Shared).map(|l| 4 * l.len.max(1)).sum();
    Ok(WgslKernel {
        name: kernel.name.clone(),
        text,
        buffers: kernel.buffers.clone(),
        ints: kernel.ints.len(),
        reals: kernel.reals.len(),
        lanes: kernel.lanes,
        shared_bytes: shared + 4,
        workspace_words: kernel.locals.iter().filter(|l| l.space == Space::Workspace).map(|l| l.len).sum(),
    })
}

fn unsupported(kernel: &Kernel, what: impl Into<String>) -> EmitError {
    EmitError::Unsupported { backend: BACKEND, kernel: kernel.name.clone(), what: what.into() }
}
