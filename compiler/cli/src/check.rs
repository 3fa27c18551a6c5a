//! `attnc check`: diagnostics of programs.

use crate::args::{CheckArgs, MessageFormat};
use crate::fail::Failure;
use crate::{files, out};
use attnc_compiler::base::{Severity, render};
use attnc_compiler::sema;

/// Checks every file, also after bad ones.
pub fn run(args: &CheckArgs) -> Result<(), Failure> {
    let (mut errors, mut bad_files, mut text) = (0, 0, String::new());
    for path in &args.files {
        let source = match files::program(path) {
            Ok(source) => source,
            Err(failure) => {
                errors += 1;
                bad_files += 1;
                text.push_str(&format!("error: {}\n\n", failure.message));
                continue;
            }
        };
        let checked = sema::check(&source);
        let name = path.display().to_string();
        match args.message_format {
            MessageFormat::Text => text.push_str(&render::text(&checked.diagnostics, &source, &name, sema::PRELUDE, out::colour())),
            MessageFormat::Json => out::print(&render::json(&checked.diagnostics, &source, &name, sema::PRELUDE))?,
        }
        let n = checked.diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
        errors += n;
        bad_files += usize::from(n > 0);
    }
    if errors > 0 {
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        return Err(Failure::diagnostics(text, format!("{} in {} of {}", plural(errors, "error"), bad_files, plural(args.files.len(), "file"))));
    }
    out::warn(&text);
    Ok(())
}
