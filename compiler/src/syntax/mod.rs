//! Text to AST. Knows the grammar, not what names mean.

pub mod ast;
