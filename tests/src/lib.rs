//! Tests across the crates of attnc: random programs, and the checks that compare targets with the interpreter.

pub mod cpu;
pub mod random;
