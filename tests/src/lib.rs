//! Tests across the crates of attnc: random programs, and the checks that compare targets with the interpreter.

pub mod blocks;
pub mod cpu;
pub mod device;
pub mod gallery;
pub mod ptxas;
pub mod random;
pub mod simulated;

use attnc_compiler::base::Severity;
use attnc_compiler::graph::Graph;
use attnc_compiler::graph::verify::verify;

/// The checked graph of a program with one kernel, or what is wrong with it. The graph is sound.
pub fn graph_of(source: &str) -> Result<Graph, String> {
    let checked = attnc_compiler::sema::check(source);
    let errors: Vec<String> = checked
        .diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .map(|d| {
            let place = d.labels.first().and_then(|l| source.get(l.span.range())).unwrap_or("");
            format!("{} {} at `{place}`", d.code, d.message)
        })
        .collect();
    if !errors.is_empty() {
        return Err(errors.join("; "));
    }
    let graph = checked.graphs.into_iter().next_back().ok_or("no kernel")?;
    let faults: Vec<String> = verify(&graph).iter().map(ToString::to_string).collect();
    assert!(faults.is_empty(), "{}\n{graph}", faults.join("; "));
    Ok(graph)
}
