//! What each lane does: structured scalar code that backends read. Knows nothing about the program it came from.

pub mod ir;
pub mod plan;

pub use ir::*;
