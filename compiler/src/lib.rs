//! The attnc language: text in, kernel IR out. No files, no devices, no target library.
//!
//! `syntax` reads text into an AST, `sema` checks it and builds the `graph` (what is computed), `passes` lower the graph to
//! `tiles` (which loops, blocks and memory) and then to `kernel` (what each lane does). `interp` says what the graph means.

pub mod base;
pub mod graph;
pub mod interp;
pub mod kernel;
pub mod lower;
pub mod ops;
pub mod passes;
pub mod reduce;
pub mod sema;
pub mod syntax;
pub mod tiles;
