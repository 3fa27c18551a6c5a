//! Source text to a kernel.

use crate::engine::{CompileOptions, Engine, Kernel};
use crate::error::{RuntimeError, nearest};
use attnc_compiler::base::{Severity, render};
use attnc_compiler::sema;

impl Engine {
    /// Checks `source` and picks the kernel `name` (the only one when `None`).
    ///
    /// Errors: [`RuntimeError::Source`] with all diagnostics, [`RuntimeError::NoKernel`], [`RuntimeError::WhichKernel`].
    pub fn compile(&self, source: &str, name: Option<&str>, options: &CompileOptions) -> Result<Kernel, RuntimeError> {
        let checked = sema::check(source);
        let errors = checked.diagnostics.iter().any(|d| d.severity == Severity::Error);
        if errors {
            let file = options.file_name.as_deref().unwrap_or("program");
            let text = render::text(&checked.diagnostics, source, file, sema::PRELUDE, false);
            return Err(RuntimeError::Source { diagnostics: checked.diagnostics, text });
        }
        let known: Vec<String> = checked.graphs.iter().map(|g| g.name.clone()).collect();
        let index = match name {
            _ if known.is_empty() => return Err(RuntimeError::Empty),
            Some(name) => known.iter().position(|k| k == name).ok_or_else(|| RuntimeError::NoKernel {
                name: name.to_string(),
                nearest: nearest(name, known.iter().map(String::as_str)),
                known: known.clone(),
            })?,
            None if known.len() == 1 => 0,
            None => return Err(RuntimeError::WhichKernel { known }),
        };
        let mut graphs = checked.graphs;
        self.kernel(graphs.swap_remove(index), checked.diagnostics, options)
    }
}
