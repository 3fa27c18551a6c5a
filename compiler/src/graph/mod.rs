//! What is computed: pure operations over named axes. Knows no loops, tiles or devices.

pub mod bind;
pub mod ir;

pub use ir::*;
