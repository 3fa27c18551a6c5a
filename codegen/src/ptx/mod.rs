//! Kernel IR to PTX through LLVM. A block is a thread block, a lane a thread; Int is i32, Real f32.
//!
//! Parameters of an entry, in order: a pointer to global memory for each buffer argument, the workspace (a pointer, not read without arrays
//! in it), the number of the first block of this launch (i32), the Int arguments (i32), the Real arguments (f32). Block `first + i` is
//! thread block `i` of a one-dimensional grid. The workspace holds `4 * workspace_words` bytes for each thread block of the launch.
//! Arrays in `Space::Shared` are static. Offsets are computed in 64 bits from 32-bit indices: buffers have fewer than 2^31 elements.
//! A kernel with roles (`PtxRoles`) takes its tensor maps after the Reals, each 128 bytes by value, and its shared memory is dynamic.
//! No code outside of the module is called.
//!
//! What a kernel needs and takes is described here; the compiler itself (feature `ptx`) needs LLVM, drivers do not.

#[cfg(feature = "ptx")]
mod address;
#[cfg(feature = "ptx")]
mod asm;
#[cfg(feature = "ptx")]
mod emit;
#[cfg(feature = "ptx")]
mod lane;
#[cfg(feature = "ptx")]
mod lower;
#[cfg(feature = "ptx")]
mod warp;

#[cfg(feature = "ptx")]
pub use emit::{compile, llvm};

use attnc_compiler::kernel::caps::{Caps, MatrixUnits, TileOptions};
use attnc_compiler::kernel::{BufferArg, Kernel, Storage};
use serde::{Deserialize, Serialize};

/// Architecture that kernels are made for unless told otherwise.
pub const ARCH: &str = "sm_90a";

/// Bytes of static shared memory that a block may have.
pub const SHARED_BYTES: usize = 48 << 10;

/// What kernels for this target may use.
pub fn caps() -> Caps {
    Caps::simt(128, SHARED_BYTES)
}

/// What kernels for this architecture may use: [`caps`], and from sm_90a on matrix units and tensor copies beside other work.
pub fn caps_for(arch: &str) -> Caps {
    if arch != ARCH {
        return caps();
    }
    // Larger tiles first; with equal ones more groups. What does not fit registers or block memory is passed over.
    let mut shapes: Vec<(u32, u32)> = [2, 3].into_iter().flat_map(|math| (2..=12).map(move |n| (math, 16 * n))).collect();
    shapes.sort_by_key(|(math, keys)| std::cmp::Reverse((math * keys, *math)));
    Caps { matrix: Some(MatrixUnits { shared_bytes: BLOCK_BYTES, shapes }), ..caps() }
}

/// Tile sizes that fit [`caps`].
pub fn tiles() -> TileOptions {
    TileOptions { rows: 32, keys: 32, flat: 512, tile_limit: 1 << 12, chunks: None, real: Storage::F32, int: Storage::I32 }
}

/// Bytes of shared memory that a block of a kernel with roles may ask for.
pub const BLOCK_BYTES: usize = 227 << 10;

/// What the launch of a kernel with roles needs besides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PtxRoles {
    /// Bytes of dynamic shared memory.
    pub block_bytes: usize,
    /// Tensor maps, parameters after the Real arguments in this order.
    pub maps: Vec<PtxMap>,
    /// As many blocks as the device runs at a time do all the work.
    pub persistent: bool,
}

/// A tensor map over a buffer argument of 16-bit numbers: 128-byte swizzle, zeros outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PtxMap {
    /// Number of the buffer argument.
    pub buffer: u32,
    pub storage: Storage,
    /// Extents of a box along the axes, outermost first.
    pub block: Vec<u32>,
    /// Extents of the buffer, outermost first, as numbers of Int arguments.
    pub shape: Vec<u32>,
}

impl PtxRoles {
    pub fn of(kernel: &Kernel) -> Option<PtxRoles> {
        let w = kernel.warps.as_ref()?;
        let maps = w.maps.iter().zip(&w.rings).map(|(m, r)| PtxMap { buffer: m.buffer.0, storage: r.storage, block: m.block.clone(), shape: m.shape.clone() });
        Some(PtxRoles { block_bytes: w.shared_bytes(), maps: maps.collect(), persistent: w.persistent })
    }
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
    /// Set for kernels with roles.
    pub roles: Option<PtxRoles>,
}

/// Kernels as text.
#[derive(Clone, Debug)]
pub struct PtxModule {
    pub text: String,
    pub kernels: Vec<PtxKernel>,
}
