//! Errors of the command line: one message for the user and an exit status.

use attnc_runtime::RuntimeError;
use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// Without `error: `; empty when everything has been printed.
    pub message: String,
    pub help: Vec<String>,
    /// Printed as it is, before the message: rendered diagnostics.
    pub diagnostics: String,
    pub code: u8,
}

/// Exit status of faults in attnc itself, the one that a Rust panic has.
pub const BUG: u8 = 101;

impl Failure {
    /// A bad program or bad input.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), help: vec![], diagnostics: String::new(), code: 1 }
    }

    /// A failure about a file.
    pub fn file(path: &Path, what: impl Display) -> Failure {
        Failure::new(format!("{}: {what}", path.display()))
    }

    pub fn help(mut self, text: impl Into<String>) -> Failure {
        self.help.push(text.into());
        self
    }

    /// Rendered diagnostics and a count.
    pub fn diagnostics(text: String, message: impl Into<String>) -> Failure {
        Failure { diagnostics: text, ..Failure::new(message) }
    }

    /// Prints to stderr and gives the exit status.
    pub fn report(&self) -> ExitCode {
        use std::io::Write;
        let mut err = std::io::stderr().lock();
        // A closed stderr leaves only the exit status to tell.
        let _ = write!(err, "{}", self.diagnostics);
        if !self.message.is_empty() {
            let _ = writeln!(err, "error: {}", self.message);
        }
        for help in &self.help {
            let _ = writeln!(err, "  = help: {help}");
        }
        ExitCode::from(self.code)
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Failure {
        let code = if error.is_bug() { BUG } else { 1 };
        let failure = Failure { code, ..Failure::new(error.to_string()) };
        match error {
            RuntimeError::Source { diagnostics, text } => {
                let n = diagnostics.iter().filter(|d| d.severity == attnc_compiler::base::Severity::Error).count();
                Failure::diagnostics(text, format!("{n} error{} in the program", if n == 1 { "" } else { "s" }))
            }
            RuntimeError::WhichKernel { .. } => failure.help("choose one with --kernel NAME"),
            RuntimeError::TensorForScalar { name, .. } => failure.help(format!("give it on the command line: --set {name}=VALUE")),
            RuntimeError::MissingInput { name, expected } if expected.contains("scalar") => failure.help(format!("give it on the command line: --set {name}=VALUE")),
            RuntimeError::Bug(_) => failure.help("this is a fault of attnc, not of the program; please report it with the program"),
            _ => failure,
        }
    }
}
