//! What a target offers and wishes. Passes read rows, never names of targets.

use super::ir::Storage;

/// Capabilities that `legalize` chooses by.
#[derive(Clone, Debug, PartialEq)]
pub struct Caps {
    /// Lanes of a block.
    pub lanes: u32,
    /// Whole-tile calls on f32 (`TileCall`) are available.
    pub tile_calls: bool,
    /// Rows in memory can be ordered (`TileCall::Order`): sorted in n log n steps, the largest few found in n.
    pub sort: bool,
    /// Bytes of block memory in `Space::Shared`; arrays beyond it go to the workspace.
    pub shared_bytes: usize,
    /// Asynchronous matrix units and tensor copies, where kernels may have roles.
    pub matrix: Option<MatrixUnits>,
    /// Bytes of an Int and of a Bool in local memory.
    pub int_bytes: usize,
    pub bool_bytes: usize,
}

impl Caps {
    /// One lane, scratch memory of any size, the table of micro-kernels.
    pub fn cpu() -> Caps {
        Caps { lanes: 1, tile_calls: true, sort: true, shared_bytes: usize::MAX, matrix: None, int_bytes: 8, bool_bytes: 1 }
    }

    /// A workgroup of plain threads with `shared_bytes` of workgroup memory.
    pub fn simt(lanes: u32, shared_bytes: usize) -> Caps {
        Caps { lanes, tile_calls: false, sort: false, shared_bytes, matrix: None, int_bytes: 4, bool_bytes: 4 }
    }
}

/// A target with matrix products that run beside other work, on 16-bit operands in block memory or registers (`kernel::warp`).
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixUnits {
    /// Bytes of block memory for kernels with roles.
    pub shared_bytes: usize,
    /// Sizes of a block, in order of preference: math groups and positions of a loop block.
    pub shapes: Vec<(u32, u32)>,
}

impl MatrixUnits {
    /// Registers of a lane of the copying role and of `math` groups: what 64 K registers of a core give when the copying group leaves most
    /// of its share to the others.
    pub fn registers(&self, math: u32) -> (u32, u32) {
        if math >= 3 { (32, 160) } else { (24, 240) }
    }
}

/// Lengths of chunks, in positions; powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    /// Without decay by key.
    pub rows: u32,
    /// With decay by key: of the chunk, and of rows that share a pivot.
    pub keyed: u32,
    pub pivot: u32,
}

/// Tile sizes and other choices that depend on the target.
#[derive(Clone, Debug)]
pub struct TileOptions {
    /// Positions of a row block (queries), of a loop block (keys), and of a block of an elementwise kernel.
    pub rows: u32,
    pub keys: u32,
    pub flat: u32,
    /// Most elements of one tile that a row block may lead to before rows are halved.
    pub tile_limit: usize,
    /// Lengths of chunks of scans; without them scans run one position a step.
    pub chunks: Option<Chunks>,
    /// Storage of real inputs and outputs.
    pub real: Storage,
    /// Storage of ints at the edge and between kernels.
    pub int: Storage,
}

impl Default for TileOptions {
    fn default() -> TileOptions {
        TileOptions { rows: 64, keys: 64, flat: 256, tile_limit: 1 << 16, chunks: Some(Chunks { rows: 64, keyed: 16, pivot: 8 }), real: Storage::F32, int: Storage::I64 }
    }
}
