//! What a target offers. Passes read rows, never names of targets.

/// Capabilities that `legalize` chooses by.
#[derive(Clone, Debug, PartialEq)]
pub struct Caps {
    /// Lanes of a block.
    pub lanes: u32,
    /// Whole-tile calls on f32 (`TileCall`) are available.
    pub tile_calls: bool,
    /// Bytes of block memory in `Space::Shared`; arrays beyond it go to the workspace.
    pub shared_bytes: usize,
    /// Bytes of an Int and of a Bool in local memory.
    pub int_bytes: usize,
    pub bool_bytes: usize,
}

impl Caps {
    /// One lane, scratch memory of any size, the table of micro-kernels.
    pub fn cpu() -> Caps {
        Caps { lanes: 1, tile_calls: true, shared_bytes: usize::MAX, int_bytes: 8, bool_bytes: 1 }
    }

    /// A workgroup of plain threads with `shared_bytes` of workgroup memory.
    pub fn simt(lanes: u32, shared_bytes: usize) -> Caps {
        Caps { lanes, tile_calls: false, shared_bytes, int_bytes: 4, bool_bytes: 4 }
    }
}
