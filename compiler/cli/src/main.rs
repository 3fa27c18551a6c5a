//! `attnc`: the only crate that reads files, prints, or exits.

mod args;
mod bench;
mod check;
mod classes;
mod compile;
mod explain;
mod fail;
mod files;
mod fmt;
mod made;
mod out;
mod run;
mod settings;
mod svg;
mod traffic;

use args::{Cli, Command};
use clap::Parser;
use fail::{BUG, Failure};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; printing may meet a closed pipe, which changes nothing.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
        out::warn(&format!("internal error{place}: {}\n", payload(info.payload())));
    }));
    let result = catch_unwind(AssertUnwindSafe(|| dispatch(&cli.command)));
    match result {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => failure.report(),
        Err(_) => Failure { code: BUG, ..Failure::new("attnc stopped; this is a fault of attnc, not of the program; please report it") }.report(),
    }
}

fn payload(payload: &(dyn std::any::Any + Send)) -> &str {
    payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn dispatch(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Check(args) => check::run(args),
        Command::Compile(args) => compile::run(args),
        Command::Run(args) => run::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Fmt(args) => fmt::run(args),
    }
}
