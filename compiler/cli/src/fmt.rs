//! `attnc fmt`: programs with regular spacing.

use crate::args::FmtArgs;
use crate::fail::Failure;
use crate::files::{self, OutFile};
use crate::out;
use attnc_compiler::base::render;
use attnc_compiler::{sema, syntax};

/// Formats every file in place, or tells which would change. A file that does not parse stops the work before it is touched.
pub fn run(args: &FmtArgs) -> Result<(), Failure> {
    let mut changed = Vec::new();
    for path in &args.files {
        let source = files::program(path)?;
        let name = path.display().to_string();
        let formatted = syntax::format(&source).map_err(|diagnostics| {
            let text = render::text(&diagnostics, &source, &name, sema::PRELUDE, out::colour());
            Failure::diagnostics(text, format!("{name}: not formatted, it does not parse"))
        })?;
        if formatted != source {
            changed.push(name);
            if !args.check {
                OutFile::create(path)?.commit_bytes(formatted.as_bytes())?;
            }
        }
    }
    match (args.check, changed.is_empty()) {
        (true, false) => Err(Failure::new(format!("not formatted: {}", changed.join(", ")))),
        (_, _) => Ok(()),
    }
}
