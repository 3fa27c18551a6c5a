//! PTX of every example through ptxas, without a GPU: no error, no spill, no serialised products, and no more registers and shared memory than
//! `tests/data/ptx.txt` has (`make figures` writes it anew).

use crate::devices::skip;
use crate::golden::{root, scalars, tensors};
use attnc_codegen::ptx::{caps_for, compile, tiles};
use attnc_compiler::lower::{Options, lower};
use attnc_runtime::{CompileOptions, Engine, TensorView};
use attnc_tests::ptxas;
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Newest architecture first: it has the paths of its own.
const ARCHS: [&str; 2] = ["sm_90a", "sm_80"];

/// Of one program for one architecture: the most of any kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Line {
    kernels: u32,
    registers: u32,
    shared: u32,
    stack: u32,
}

/// Names of all programs of `dsl-examples`, in order.
fn names() -> Vec<String> {
    let folder = root().join("dsl-examples");
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut names: Vec<String> = files.filter_map(|f| f.ok()?.file_name().to_str()?.strip_suffix(".attn").map(str::to_string)).collect();
    names.sort();
    names
}

/// PTX for the sizes of the golden data; programs without them get made-up ones.
fn text(slug: &str, arch: &str) -> Result<String, String> {
    let source = std::fs::read_to_string(root().join("dsl-examples").join(format!("{slug}.attn"))).map_err(|e| e.to_string())?;
    let kernel = Engine::interp().compile(&source, None, &CompileOptions::default()).map_err(|e| e.to_string())?;
    let plan = kernel.signature();
    let extents = match std::fs::read(root().join("tests/golden").join(format!("{slug}.safetensors"))) {
        Ok(bytes) => {
            let file = SafeTensors::deserialize(&bytes).map_err(|e| e.to_string())?;
            let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| e.to_string())?;
            let given = tensors(&file, "in.");
            let views: Vec<(&str, TensorView<'_>)> = given.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
            let scalars = scalars(&header, &kernel)?;
            let scalars: Vec<_> = scalars.iter().map(|(n, v)| (n.as_str(), *v)).collect();
            let late = kernel.late_extents(&views, &scalars, &[]).map_err(|e| e.to_string())?;
            let scalars: Vec<_> = scalars.iter().copied().chain(late.iter().map(|(n, v)| (n.as_str(), *v))).collect();
            kernel.bind(&views, &scalars, &[]).map_err(|e| e.to_string())?.extents
        }
        Err(_) => plan.axes.iter().map(|_| 32).collect(),
    };
    let options = Options { extents: extents.into_iter().map(Some).collect(), caps: caps_for(arch), tile: tiles() };
    let program = lower(kernel.graph(), &options).map_err(|e| e.to_string())?;
    Ok(compile(&program.kernels, arch).map_err(|e| e.to_string())?.text)
}

fn line(ptxas: &Path, slug: &str, arch: &str) -> Result<Line, String> {
    let figures = ptxas::assemble(ptxas, &text(slug, arch)?, arch)?;
    Ok(figures.iter().fold(Line { kernels: figures.len() as u32, ..Line::default() }, |l, f| Line {
        registers: l.registers.max(f.registers),
        shared: l.shared.max(f.shared),
        stack: l.stack.max(f.stack),
        ..l
    }))
}

type Figures = BTreeMap<(String, &'static str), Line>;

fn print(all: &Figures) -> String {
    let mut text = String::from("# Written by `make figures`: program, architecture, kernels, and the most that one of them takes:\n# registers, bytes of shared memory, bytes of a thread's stack.\n");
    for ((slug, arch), l) in all {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{slug} {arch} {} {} {} {}", l.kernels, l.registers, l.shared, l.stack);
    }
    text
}

fn read(text: &str) -> Figures {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [slug, arch, numbers @ ..] = &words[..] else { return None };
        let [kernels, registers, shared, stack] = numbers.iter().map(|n| n.parse().ok()).collect::<Option<Vec<u32>>>()?[..] else { return None };
        Some(((slug.to_string(), *ARCHS.iter().find(|a| *a == arch)?), Line { kernels, registers, shared, stack }))
    };
    text.lines().filter(|l| !l.starts_with('#')).filter_map(line).collect()
}

/// Growth that no change of a pass explains away: a quarter, and more than a step of the allocation.
fn grown(now: Line, then: Line) -> bool {
    let more = |now: u32, then: u32, step: u32| now > then + then / 4 + step;
    more(now.registers, then.registers, 16) || more(now.shared, then.shared, 2048) || more(now.stack, then.stack, 0)
}

/// Assembles the programs of one part out of `parts` for both architectures.
fn assemble(part: usize, parts: usize) -> (Figures, Vec<String>) {
    let (mut done, mut failed) = (Figures::new(), vec![]);
    let Some(ptxas) = ptxas::find() else {
        skip("ptxas", "it is neither in .venv nor on the path");
        return (done, failed);
    };
    let only = std::env::var("ATTNC_ONLY").ok();
    let names: Vec<String> = names().into_iter().filter(|n| only.as_ref().is_none_or(|o| o.split(',').any(|o| o == n))).collect();
    for slug in names.iter().skip(part).step_by(parts) {
        for arch in ARCHS {
            match line(&ptxas, slug, arch) {
                Ok(line) => drop(done.insert((slug.clone(), arch), line)),
                Err(e) => failed.push(format!("{slug} {arch}: {e}")),
            }
        }
    }
    (done, failed)
}

fn figures_path() -> std::path::PathBuf {
    root().join("tests/data/ptx.txt")
}

/// One part of the examples: the parts run beside each other.
fn check(part: usize) {
    let (done, mut failed) = assemble(part, PARTS);
    let then = read(&std::fs::read_to_string(figures_path()).unwrap_or_default());
    failed.extend(done.iter().filter_map(|(key, now)| {
        let then = then.get(key).filter(|then| grown(*now, **then))?;
        Some(format!("{} {}: {now:?}, it was {then:?} (`make figures` when this is meant)", key.0, key.1))
    }));
    assert!(failed.is_empty(), "{} fail\n{}", failed.len(), failed.join("\n"));
}

const PARTS: usize = 8;

macro_rules! parts {
    ($($name:ident = $part:expr),*) => { $( #[test] fn $name() { check($part); } )* };
}
parts!(
    examples_assemble_without_spills_0 = 0,
    examples_assemble_without_spills_1 = 1,
    examples_assemble_without_spills_2 = 2,
    examples_assemble_without_spills_3 = 3,
    examples_assemble_without_spills_4 = 4,
    examples_assemble_without_spills_5 = 5,
    examples_assemble_without_spills_6 = 6,
    examples_assemble_without_spills_7 = 7
);

/// Not a test: `make figures`.
#[test]
#[ignore = "writes tests/data/ptx.txt"]
fn write_figures() {
    let threads: Vec<_> = (0..2).map(|part| std::thread::spawn(move || assemble(part, 2))).collect();
    let mut all = Figures::new();
    for thread in threads {
        let (done, failed) = thread.join().expect("no panic");
        all.extend(done);
        failed.iter().for_each(|f| eprintln!("{f}"));
    }
    std::fs::write(figures_path(), print(&all)).expect("the figures can be written");
}
