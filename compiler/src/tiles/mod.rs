//! Which loops, blocks and tiles: one structured program a kernel, over tiles of named dimensions. Knows no threads.

pub mod ir;
pub mod text;
pub mod verify;

pub use ir::*;
