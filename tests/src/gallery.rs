//! The gallery: one entry an example, from its header, its signature and what the compiler derives from it.

use attnc_compiler::graph::Graph;
use attnc_compiler::kernel::caps::Caps;
use attnc_compiler::kernel::plan::BufferKind;
use attnc_compiler::lower::{CompileError, Options, Stages, lower_stages};
use attnc_compiler::passes::cost::Sizes;
use attnc_compiler::passes::steps::Steps;
use attnc_compiler::passes::tile::TileOptions;
use attnc_compiler::tiles::{Stmt, TileKernel};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Names of all examples, sorted.
pub fn slugs() -> Vec<String> {
    let files = std::fs::read_dir(root().join("dsl-examples")).expect("examples");
    let mut out: Vec<String> = files.filter_map(|f| f.ok()?.file_name().to_str()?.strip_suffix(".attn").map(str::to_string)).collect();
    out.sort();
    out
}

/// The text of an example.
pub fn source(slug: &str) -> String {
    std::fs::read_to_string(root().join("dsl-examples").join(format!("{slug}.attn"))).unwrap_or_else(|e| panic!("{slug}: {e}"))
}

/// All IRs of an example on the processor, feature axes 64 long.
pub fn stages(graph: &Graph) -> Result<Stages, String> {
    let sizes = Sizes::new(graph);
    let feature = |i: usize| sizes.is_feature(attnc_compiler::graph::AxisId(i as u32));
    let mut extents: Vec<Option<i64>> = (0..graph.axes.len()).map(|i| feature(i).then_some(64)).collect();
    loop {
        let options = Options { extents: extents.clone(), caps: Caps::cpu(), tile: TileOptions::default() };
        match lower_stages(graph, &options) {
            // An axis that some tile holds whole: any length will do.
            Err(CompileError::NeedExtent { axis }) => {
                let missing = |i: &usize| extents[*i].is_none() && graph.axes[*i].name == axis.trim_end_matches('~');
                let open = (0..graph.axes.len()).find(missing).ok_or_else(|| format!("the extent of `{axis}` cannot be given"))?;
                extents[open] = Some(16);
            }
            other => return other.map_err(|e| e.to_string()),
        }
    }
}

/// What a header says: what is computed, the paper, the cost.
#[derive(Clone, Debug, Default)]
pub struct Header {
    pub what: String,
    pub paper: String,
    pub cost: String,
}

/// The header of a program's text: the comment that it starts with.
pub fn header(text: &str) -> Header {
    let mut out = Header::default();
    let mut part = 0;
    for line in text.lines().map_while(|l| l.strip_prefix("///")).map(str::trim) {
        for (i, word) in ["Paper:", "Cost:"].iter().enumerate() {
            if line.starts_with(word) {
                part = i + 1;
            }
        }
        let field = [&mut out.what, &mut out.paper, &mut out.cost].into_iter().nth(part).expect("three fields");
        let text = line.trim_start_matches("Paper:").trim_start_matches("Cost:").trim();
        if !field.is_empty() {
            field.push(' ');
        }
        field.push_str(text);
    }
    out
}

/// (results that loops over an axis carry, by axis; rows put in order).
fn loops(k: &TileKernel, body: &[Stmt], carried: &mut BTreeMap<String, usize>, ordered: &mut usize) {
    for s in body {
        match s {
            Stmt::Loop(l) => {
                if !l.carries.is_empty() {
                    let most = carried.entry(k.dim(l.dim).name.trim_end_matches('~').to_string()).or_default();
                    *most = (*most).max(l.carries.len());
                }
                loops(k, &l.body, carried, ordered);
            }
            Stmt::Order(_) => *ordered += 1,
            _ => {}
        }
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// What was derived, in one line.
pub fn derived(stages: &Stages) -> String {
    let mut parts = vec![count(stages.program.kernels.len(), "kernel")];
    let (mut carried, mut ordered) = (BTreeMap::new(), 0);
    for k in &stages.tiles.kernels {
        loops(k, &k.body, &mut carried, &mut ordered);
    }
    let steps = Steps::new(&stages.graph);
    let name = |i: usize| stages.graph.axis(stages.graph.scans[i].axis).name.trim_end_matches('~').to_string();
    let scans: BTreeSet<String> = (0..stages.graph.scans.len()).filter(|i| steps.live[*i]).map(name).collect();
    let streams: Vec<String> = carried.iter().filter(|(axis, _)| !scans.contains(*axis)).map(|(axis, n)| format!("`{axis}` ({n})")).collect();
    if !streams.is_empty() {
        parts.push(format!("streams {}", streams.join(", ")));
    }
    if !scans.is_empty() {
        parts.push(format!("scans {}", scans.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(", ")));
    }
    if ordered > 0 {
        parts.push(format!("puts {} in order", count(ordered, "row")));
    }
    let sizes = Sizes::new(&stages.graph);
    let plan = &stages.program.plan;
    let whole = plan.fixed.iter().filter(|(a, _)| !sizes.is_feature(attnc_compiler::graph::AxisId(*a)));
    let whole: BTreeSet<String> = whole.map(|(a, _)| format!("`{}`", plan.axes[*a as usize].name.trim_end_matches('~'))).collect();
    if !whole.is_empty() {
        parts.push(format!("holds {} whole (another length, another compilation)", whole.into_iter().collect::<Vec<_>>().join(", ")));
    }
    let temps = stages.program.plan.buffers.iter().filter(|b| b.kind == BufferKind::Temp).count();
    parts.push(if temps == 0 { "nothing stored between kernels".to_string() } else { format!("{} between kernels", count(temps, "buffer")) });
    parts.join("; ")
}

/// One line that runs it.
fn call(slug: &str, graph: &Graph) -> String {
    let needed = graph.inputs.iter().filter(|i| i.axes.is_empty() && i.default.is_none());
    let set: String = needed.map(|i| format!(" --set {}=..", i.name)).collect();
    format!("attnc run dsl-examples/{slug}.attn --target cpu --in in.safetensors --out out.safetensors{set}")
}

/// The page. `with_derived` decides whether the lines about what was derived, which passes change, are in it.
pub fn page(with_derived: bool) -> String {
    let families = std::fs::read_to_string(root().join("tests/data/families.txt")).expect("families");
    let families: BTreeMap<&str, &str> = families.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once(": ")).collect();
    let mut by_family: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for slug in slugs() {
        let family = *families.get(slug.as_str()).unwrap_or_else(|| panic!("tests/data/families.txt has no line for {slug}"));
        by_family.entry(family).or_default().push(slug);
    }
    let total: usize = by_family.values().map(Vec::len).sum();
    let mut out = String::from("# Gallery\n\n");
    let _ = writeln!(out, "{total} computations from the literature, each a program of a few lines. Written by `make gallery` from the headers of the examples and");
    out.push_str("from what the compiler derives for the processor (`attnc explain FILE` tells more). *streams `s` (3)*: one pass over `s` carries three running\n");
    out.push_str("results, so that what varies over `s` is never stored. Tensors are read by the names in the program's header.\n");
    for (family, slugs) in &by_family {
        let _ = write!(out, "\n## {family}\n");
        for slug in slugs {
            let text = source(slug);
            let checked = attnc_compiler::sema::check(&text);
            let graph = checked.graphs.first().unwrap_or_else(|| panic!("{slug} does not check"));
            let head = header(&text);
            let _ = write!(out, "\n### [{slug}](../dsl-examples/{slug}.attn)\n\n{}\n\n- Paper: {}\n- Cost: {}\n", head.what, head.paper, head.cost);
            if with_derived {
                let stages = stages(graph).unwrap_or_else(|e| panic!("{slug}: {e}"));
                let _ = writeln!(out, "- Derived: {}", derived(&stages));
            }
            let _ = writeln!(out, "- Use: `{}`", call(slug, graph));
        }
    }
    out
}
