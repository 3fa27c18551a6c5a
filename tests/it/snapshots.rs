//! What every IR looks like for a few small programs. Read a change before accepting it (`cargo insta review`).

use attnc_compiler::base::SourceId;
use attnc_compiler::graph::Graph;
use attnc_compiler::kernel::caps::Caps;
use attnc_compiler::lower::{Options, Stages, lower_stages};
use attnc_compiler::passes::tile::TileOptions;
use attnc_compiler::{sema, syntax, tiles};
use std::path::Path;

/// Extents of the axes that tiles hold whole.
const FEATURES: &[(&str, i64)] = &[("d", 4), ("e", 4)];

fn source(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("in").join(format!("{name}.attn"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn graph(name: &str) -> Graph {
    let mut checked = sema::check(&source(name));
    assert!(!checked.failed(), "{name}: {:?}", checked.diagnostics);
    checked.graphs.remove(0)
}

fn stages(graph: &Graph) -> Stages {
    let extents = graph.axes.iter().map(|a| FEATURES.iter().find(|f| f.0 == a.name).map(|f| f.1)).collect();
    let tile = TileOptions { rows: 8, keys: 8, ..TileOptions::default() };
    lower_stages(graph, &Options { extents, caps: Caps::cpu(), tile }).unwrap_or_else(|e| panic!("{e}"))
}

/// All IRs of one program, as snapshots `NAME@STAGE`.
fn snap(name: &str) {
    let graph = graph(name);
    let stages = stages(&graph);
    let kernels: String = stages.program.kernels.iter().map(|k| format!("{k}\n")).collect();
    let snap = |stage: &str, text: String| insta::assert_snapshot!(format!("{name}@{stage}"), text, &source(name));
    snap("ast", syntax::print(&syntax::parse(&source(name), SourceId::User).0));
    snap("graph", graph.to_string());
    snap("tiles", tiles::text::program(&stages.tiles));
    snap("kernel", kernels);
}

#[test]
fn a_running_maximum_under_a_mask() {
    snap("band");
}

#[test]
fn a_state_that_decays() {
    snap("decay");
}

#[test]
fn a_selection() {
    snap("pick");
}

#[test]
fn shifted_reads() {
    snap("stencil");
}

/// One only: an upgrade of Cranelift changes it.
#[test]
fn machine_code_before_optimisation() {
    let stages = stages(&graph("stencil"));
    let text: String = stages.program.kernels.iter().map(|k| attnc_codegen::cpu::clif(k).unwrap_or_else(|e| panic!("{e}"))).collect();
    insta::assert_snapshot!("stencil@clif", text, &source("stencil"));
}

/// Printing is a function of the program: a second lowering gives the same text.
#[test]
fn dumps_are_stable() {
    for name in ["band", "decay", "pick", "stencil"] {
        let graph = graph(name);
        let (a, b) = (stages(&graph), stages(&graph));
        assert_eq!(tiles::text::program(&a.tiles), tiles::text::program(&b.tiles), "{name}");
        let text = |s: &Stages| s.program.kernels.iter().map(|k| k.to_string()).collect::<String>();
        assert_eq!(text(&a), text(&b), "{name}");
    }
}

/// Scores over (t, s) are made in tiles; only what the caller asked for is stored.
#[test]
fn scores_never_reach_memory() {
    let stages = stages(&graph("band"));
    let stored: Vec<&str> = stages.tiles.plan.buffers.iter().map(|b| b.name.as_str()).collect();
    assert_eq!(stored, ["q", "k", "v", "o", "lse"], "buffers");
    assert_eq!(stages.program.kernels.len(), 1, "kernels");
}
