//! Random programs: they compile, their meaning does not depend on how the interpreter loops, and the processor agrees.
//! `ATTNC_SEEDS=from..to` tries other seeds.

use attnc_compiler::graph::Graph;
use attnc_compiler::interp::{Array, Data, LIMIT, run_within};
use attnc_tests::cpu::{difference, run_cpu};
use attnc_tests::graph_of;
use attnc_tests::random::{Case, random_case, shrink};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;

pub(crate) fn seeds(default: Range<u64>) -> Range<u64> {
    let given = std::env::var("ATTNC_SEEDS").ok().and_then(|s| {
        let (from, to) = s.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    given.unwrap_or(default)
}

fn interpret(graph: &Graph, case: &Case, limit: usize) -> Result<BTreeMap<String, Array>, String> {
    run_within(graph, &case.inputs(), &case.scalars(), limit).map_err(|e| e.to_string())
}

/// What is wrong between two sets of results, if anything.
fn disagreement(want: &BTreeMap<String, Array>, got: &BTreeMap<String, Array>, tolerance: f64) -> Option<String> {
    want.iter().find_map(|(name, w)| {
        let Some(g) = got.get(name) else { return Some(format!("no output `{name}`")) };
        let error = difference(&grounded(w), &grounded(g));
        // NaN must not pass.
        (!matches!(error.partial_cmp(&tolerance), Some(Ordering::Less | Ordering::Equal))).then(|| format!("`{name}`: error {error:e}"))
    })
}

/// With one element of 1/4 more, so that results which are small because larger numbers cancelled are not judged by their own size.
fn grounded(array: &Array) -> Array {
    let mut array = array.clone();
    if let Data::Real(x) = &mut array.data {
        x.push(0.25);
    }
    array
}

/// Runs `check` on every seed and reports the failures, each shrunk to a program that can be read.
fn all(seeds: Range<u64>, check: impl Fn(&Case) -> Option<String>) {
    let mut failures = Vec::new();
    let count = seeds.end.saturating_sub(seeds.start);
    for seed in seeds {
        let case = random_case(seed);
        if let Some(what) = check(&case) {
            let small = if failures.len() < 3 { shrink(&case, |c| check(c).is_some()) } else { case };
            let what = check(&small).unwrap_or(what);
            failures.push(format!("seed {seed}, sizes {:?}: {what}\n{}", small.sizes, small.source()));
        }
    }
    let shown = failures.iter().take(5).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} of {count} fail\n{shown}", failures.len());
}

#[test]
fn random_programs_are_accepted_and_run() {
    all(seeds(0..300), |case| match graph_of(&case.source()) {
        Err(what) => Some(what),
        Ok(graph) => interpret(&graph, case, LIMIT).err(),
    });
}

#[test]
fn the_meaning_does_not_depend_on_how_the_interpreter_loops() {
    all(seeds(0..60), |case| {
        let graph = graph_of(&case.source()).ok()?;
        let (whole, looped) = (interpret(&graph, case, LIMIT).ok()?, interpret(&graph, case, 500));
        looped.map_or_else(Some, |looped| disagreement(&whole, &looped, 1e-10))
    });
}

#[test]
fn the_processor_agrees_with_the_interpreter() {
    all(seeds(0..200), |case| {
        let graph = graph_of(&case.source()).ok()?;
        let want = interpret(&graph, case, LIMIT).ok()?;
        run_cpu(&graph, &case.inputs(), &case.scalars()).map_or_else(Some, |got| disagreement(&want, &got, 2e-4))
    });
}
