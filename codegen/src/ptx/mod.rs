//! Kernel IR to PTX through LLVM. A block is a thread block, a lane a thread; Int is i32, Real f32.
//!
//! Parameters of an entry, in order: a pointer to global memory for each buffer argument, the workspace (a pointer, not read without arrays
//! in it), the number of the first block of this launch (i32), the Int arguments (i32), the Real arguments (f32). Block `first + i` is
//! thread block `i` of a one-dimensional grid. The workspace holds `4 * workspace_words` bytes for each thread block of the launch.
//! Arrays in `Space::Shared` are static. Offsets are computed in 64 bits from 32-bit indices: buffers have fewer than 2^31 elements.
//! No code outside of the module is called.
//!
//! What a kernel needs and takes is described here; the compiler itself (feature `ptx`) needs LLVM, drivers do not.

#[cfg(feature = "ptx")]
mod address;
#[cfg(feature = "ptx")]
mod emit;
#[cfg(feature = "ptx")]
mod lane;
#[cfg(feature = "ptx")]
mod lower;

#[cfg(feature = "ptx")]
pub use emit::{compile, llvm};

use attnc_compiler::kernel::caps::Caps;
use attnc_compiler::kernel::{BufferArg, Storage};
use attnc_compiler::kernel::caps::TileOptions;

/// Architecture that kernels are made for unless told otherwise.
pub const ARCH: &str = "sm_90a";

/// Bytes of static shared memory that a block may have.
pub const SHARED_BYTES: usize = 48 << 10;

/// What kernels for this target may use.
pub fn caps() -> Caps {
    Caps::simt(128, SHARED_BYTES)
}

/// Tile sizes that fit [`caps`].
pub fn tiles() -> TileOptions {
    TileOptions { rows: 32, keys: 32, flat: 512, tile_limit: 1 << 12, real: Storage::F32, int: Storage::I32 }
}

/// What one entry takes.
#[derive(Clone, Debug)]
pub struct PtxKernel {
    pub name: String,
    /// Name of the entry in the text.
    pub entry: String,
    pub buffers: Vec<BufferArg>,
    /// Number of Int arguments.
    pub ints: usize,
    /// Number of Real arguments.
    pub reals: usize,
    pub lanes: u32,
    /// Bytes of static shared memory.
    pub shared_bytes: usize,
    /// 32-bit words of the workspace for each block of a launch.
    pub workspace_words: usize,
}

/// Kernels as text.
#[derive(Clone, Debug)]
pub struct PtxModule {
    pub text: String,
    pub kernels: Vec<PtxKernel>,
}
