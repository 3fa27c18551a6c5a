//! What each lane does: structured scalar code that backends read. Knows nothing about the program it came from.

pub mod builder;
pub mod caps;
pub mod ir;
mod operands;
pub mod plan;
pub mod prune;
mod simplify;
mod text;
pub mod verify;
pub mod warp;

pub use builder::KernelBuilder;
pub use ir::*;
pub use verify::verify;
