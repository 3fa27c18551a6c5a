//! What is computed: pure operations over named axes. Knows no loops, tiles or devices.

pub mod bind;
pub mod ir;
pub mod staged;
#[cfg(test)]
mod tests;
pub mod text;
pub mod verify;

pub use ir::*;
