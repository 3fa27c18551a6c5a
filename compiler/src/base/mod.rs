//! What every layer shares: source spans and diagnostics. Knows nothing about the language.

pub mod diag;
pub mod render;
pub mod span;

pub use diag::{Diagnostic, Label, Severity};
pub use span::{SourceId, Span};
