//! A program and what checking says about it.

use super::*;
use crate::base::render;
use crate::graph::verify::verify;
use std::path::Path;

/// All diagnostics as text.
fn shown(source: &str, checked: &Checked) -> String {
    render::text(&checked.diagnostics, source, "test.attn", PRELUDE, false)
}

/// Checks every program of a folder; returns how many there were.
fn check_folder(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "attn")).collect();
    paths.sort();
    let mut faults = String::new();
    for path in &paths {
        let source = std::fs::read_to_string(path).unwrap();
        let started = std::time::Instant::now();
        let checked = check(&source);
        let took = started.elapsed();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if checked.failed() || std::env::var("SHOW").is_ok() {
            faults += &format!("== {name}\n{}", shown(&source, &checked));
        }
        for graph in &checked.graphs {
            let broken = verify(graph);
            if !broken.is_empty() {
                faults += &format!("== {name}: {broken:?}\n");
            }
        }
        if took.as_millis() > 500 {
            eprintln!("{name}: {took:?}");
        }
    }
    assert!(faults.is_empty(), "{faults}");
    paths.len()
}

#[test]
fn every_example_checks() {
    let n = check_folder(Path::new("../dsl-examples"));
    eprintln!("{n} examples");
}

#[test]
fn every_probe_program_checks() {
    let n = check_folder(Path::new("../../shared/prototypes/language_probe/programs"));
    eprintln!("{n} probe programs (0: folder absent)");
}
