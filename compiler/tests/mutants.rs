//! Broken programs by the million: whatever the text, reading and checking it ends with diagnostics, in bounded time, never in a panic.
//!
//! Stands beside the compiler and not in the package of tests, because it needs nothing else to be built. The quick test runs with the
//! others; `cargo test --release -p attnc-compiler --test mutants -- --ignored --nocapture` runs `ROUNDS` (a million) from `SEED`, at most
//! `MINUTES`. With `LOWER=1` what checks is lowered as well, for one lane and for many: refusals are fine, broken invariants are not.

use attnc_compiler::base::{Severity, SourceId, render};
use attnc_compiler::kernel::caps::Caps;
use attnc_compiler::lower::{CompileError, Options, lower};
use attnc_compiler::passes::tile::TileOptions;
use attnc_compiler::{sema, syntax};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A small generator (splitmix64), so that a seed names a run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

/// Words, numbers, signs and gaps of a text; joined they give the text again.
fn pieces(text: &str) -> Vec<String> {
    let class = |c: char| if c.is_alphanumeric() || c == '_' { 0 } else if c.is_whitespace() { 1 } else { 2 };
    let mut out: Vec<String> = Vec::new();
    let mut last = 3;
    for c in text.chars() {
        let now = class(c);
        match out.last_mut() {
            Some(word) if now == last && now != 2 => word.push(c),
            _ => out.push(c.to_string()),
        }
        last = now;
    }
    out
}

const SIGNS: &[&str] = &[
    "(", ")", "[", "]", "{", "}", "=", "==", "<", "<=", ">", "!=", "+", "-", "*", "/", "^", "??", "->", ",", ":", ";", "'", "//", "///x\n", "§", "\"", "&&", "\u{0}",
];
const WORDS: &[&str] = &[
    "where", "if", "then", "else", "sum", "max", "any", "count", "mean", "argmax", "prod", "let", "scan", "repeat", "fn", "state", "axis", "mask", "not", "and", "or",
    "div", "mod", "inf", "true", "false", "topk", "list", "rank", "argsort", "grad", "exp", "complex", "int", "real", "bool", "require", "return", "until", "reverse",
    "schedule", "kernel k(", "t", "s", "T", "D", "x", "q", "0", "1", "-1", "2.5", "1e308", "9223372036854775807", "99999999999999999999",
];

/// One to eight edits of `text`, some of them with stretches of `other`.
fn mutate(text: &str, other: &str, r: &mut Random) -> String {
    let mut p = pieces(text);
    // Mostly few, so that a good part of the mutants parses and reaches the checker.
    let most = 1 + r.below(8);
    for _ in 0..1 + r.below(most) {
        if p.is_empty() {
            p.push(" ".into());
        }
        let at = r.below(p.len());
        let is_word = |s: &str| s.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        match r.below(12) {
            // A word for another of the same text: the sort of slip that parses.
            0..=3 => {
                let words: Vec<usize> = (0..p.len()).filter(|&i| is_word(&p[i])).collect();
                if let (Some(&to), Some(&from)) = (words.get(r.below(words.len())), words.get(r.below(words.len()))) {
                    p[to] = p[from].clone();
                }
            }
            4 => p[at] = if is_word(&p[at]) { r.pick(WORDS).into() } else { r.pick(SIGNS).into() },
            5 => {
                p.remove(at);
            }
            6 => p.insert(at, format!(" {} ", if r.below(2) == 0 { r.pick(WORDS) } else { r.pick(SIGNS) })),
            7 => {
                let with = r.below(p.len());
                p.swap(at, with);
            }
            8 => {
                let upto = (at + 1 + r.below(30)).min(p.len());
                p.drain(at..upto);
            }
            9 => {
                let upto = (at + 1 + r.below(30)).min(p.len());
                let copy: Vec<String> = p[at..upto].to_vec();
                let to = r.below(p.len());
                p.splice(to..to, copy);
            }
            10 => {
                let o = pieces(other);
                let from = r.below(o.len());
                let upto = (from + 1 + r.below(40)).min(o.len());
                p.splice(at..at, o[from..upto].to_vec());
            }
            _ => {
                if r.below(8) == 0 {
                    p.truncate(at);
                }
            }
        }
    }
    p.concat()
}

fn programs() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for folder in ["dsl-examples", "../shared/prototypes/language_probe/programs", "tests/in/programs"] {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else { continue };
        let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "attn")).collect();
        paths.sort();
        found.extend(paths.iter().filter_map(|p| std::fs::read_to_string(p).ok()));
    }
    found.push(sema::PRELUDE.to_string());
    found
}

#[derive(Default)]
struct Tally {
    rounds: usize,
    bytes: usize,
    parsed: usize,
    clean: usize,
    codes: BTreeMap<&'static str, usize>,
    slowest: Vec<(Duration, String)>,
    faults: Vec<String>,
    /// Lowered, refused, in need of an extent.
    lowered: [usize; 3],
}

/// Mutants from `seed` until `rounds` are done or `limit` is over.
fn run(seed: u64, rounds: usize, limit: Duration, lowering: bool) -> Tally {
    let programs = programs();
    let mut r = Random(seed);
    let mut tally = Tally::default();
    let begin = Instant::now();
    // A program that never ends would otherwise end the run without a trace.
    let current: Arc<Mutex<(Instant, String)>> = Arc::new(Mutex::new((Instant::now(), String::new())));
    let watched = Arc::clone(&current);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(20));
            if Arc::strong_count(&watched) == 1 {
                return;
            }
            if let Ok(now) = watched.lock()
                && now.0.elapsed() > Duration::from_secs(20)
            {
                eprintln!("no answer after {:.0?}:\n{}\n", now.0.elapsed(), now.1);
            }
        }
    });
    while tally.rounds < rounds && begin.elapsed() < limit {
        // Short programs more often: of two, the shorter one.
        let (a, b, c) = (r.below(programs.len()), r.below(programs.len()), r.below(programs.len()));
        let text = if programs[a].len() < programs[b].len() { &programs[a] } else { &programs[b] };
        let mutant = mutate(text, &programs[c], &mut r);
        let start = Instant::now();
        if let Ok(mut now) = current.lock() {
            *now = (start, mutant.clone());
        }
        one(&mutant, &mut tally, lowering);
        let took = start.elapsed();
        tally.slowest.push((took, mutant));
        tally.slowest.sort_by_key(|s| std::cmp::Reverse(s.0));
        tally.slowest.truncate(3);
        tally.rounds += 1;
        if tally.rounds.is_multiple_of(20_000) {
            eprintln!("{} mutants in {:.0?}, {} faults, slowest {:.1?}", tally.rounds, begin.elapsed(), tally.faults.len(), tally.slowest[0].0);
        }
    }
    tally
}

/// Parses, prints, formats, checks and renders one text.
fn one(mutant: &str, tally: &mut Tally, lowering: bool) {
    tally.bytes += mutant.len();
    let outcome = std::panic::catch_unwind(|| {
        let (file, diagnostics) = syntax::parse(mutant, SourceId::User);
        let printed = syntax::print(&file);
        let parsed = diagnostics.iter().all(|d| d.severity != Severity::Error);
        let formatted = syntax::format(mutant);
        let checked = sema::check(mutant);
        let rendered = render::text(&checked.diagnostics, mutant, "mutant.attn", sema::PRELUDE, true).len()
            + render::json(&checked.diagnostics, mutant, "mutant.attn", sema::PRELUDE).len();
        (parsed, printed.contains("<error>"), formatted.is_ok(), rendered, checked.diagnostics, checked.graphs)
    });
    let Ok((parsed, has_error, formatted, _, diagnostics, graphs)) = outcome else {
        tally.faults.push(format!("panic\n{mutant}"));
        return;
    };
    if parsed && (has_error || !formatted) {
        tally.faults.push(format!("an error node without a diagnostic, or not formatted\n{mutant}"));
    }
    if lowering {
        lowers(mutant, &graphs, tally);
    }
    tally.parsed += usize::from(parsed);
    tally.clean += usize::from(diagnostics.iter().all(|d| d.severity != Severity::Error));
    for d in &diagnostics {
        *tally.codes.entry(d.code).or_default() += 1;
        let outside = d.labels.iter().any(|l| l.span.source == SourceId::User && l.span.end as usize > mutant.len());
        if d.code == "A0001" || outside || (syntax::errors::explain(d.code).is_none() && sema::errors::explain(d.code).is_none()) {
            tally.faults.push(format!("{} {} outside: {outside}\n{mutant}", d.code, d.message));
        }
    }
}

/// Lowers every graph of `mutant` with small extents.
fn lowers(mutant: &str, graphs: &[attnc_compiler::graph::Graph], tally: &mut Tally) {
    for graph in graphs {
        for caps in [Caps::cpu(), Caps::simt(128, 16 << 10)] {
            let options = Options { extents: vec![Some(16); graph.axes.len()], caps, tile: TileOptions::default() };
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lower(graph, &options))) {
                Ok(Ok(_)) => tally.lowered[0] += 1,
                Ok(Err(CompileError::Unsupported { .. })) => tally.lowered[1] += 1,
                Ok(Err(CompileError::NeedExtent { .. })) => tally.lowered[2] += 1,
                Ok(Err(CompileError::Bug { pass, what })) => tally.faults.push(format!("{pass}: {what:.300}\n{mutant}")),
                Err(_) => tally.faults.push(format!("panic while lowering\n{mutant}")),
            }
        }
    }
}

fn report(tally: &Tally) -> String {
    let mut out = format!(
        "{} mutants of {} bytes on average: {} parse, {} check; lowered, refused, in need of extents: {:?}\n",
        tally.rounds,
        tally.bytes / tally.rounds.max(1),
        tally.parsed,
        tally.clean,
        tally.lowered
    );
    for (code, count) in &tally.codes {
        let _ = write!(out, "{code} {count}  ");
    }
    for (took, text) in &tally.slowest {
        let _ = write!(out, "\n\n{took:.2?} for\n{text}");
    }
    // The shortest text of every kind of fault.
    let mut kinds: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for fault in &tally.faults {
        let head: String = fault.lines().next().unwrap_or_default().chars().filter(|c| !c.is_ascii_digit()).collect();
        let kind = head.split_once(':').filter(|(pass, _)| !pass.contains(' ')).map_or(head.as_str(), |(_, what)| what).to_string();
        kinds.entry(kind).or_default().push(fault);
    }
    for (kind, faults) in kinds {
        let shortest = faults.iter().min_by_key(|f| f.len());
        let _ = write!(out, "\n\nFAULT {} times: {kind}\n{}", faults.len(), shortest.map_or("", |f| f.as_str()));
    }
    out
}

#[test]
fn mutants_end_in_diagnostics() {
    let tally = run(1, 300, Duration::from_secs(60), false);
    assert!(tally.faults.is_empty(), "{}", report(&tally));
}

/// Where panics come from, so that a run of hours can be read at a glance.
#[test]
#[ignore = "takes hours"]
fn a_million_mutants() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let places: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let seen = Arc::clone(&places);
    std::panic::set_hook(Box::new(move |info| {
        let place = info.location().map_or(String::new(), |l| format!("{}:{}", l.file(), l.line()));
        if let Ok(mut seen) = seen.lock() {
            let count = seen.entry(place).or_default();
            *count += 1;
            if *count == 1 {
                eprintln!("{info}");
            }
        }
    }));
    let tally = run(number("SEED", 1), number("ROUNDS", 1_000_000) as usize, Duration::from_secs(60 * number("MINUTES", 600)), number("LOWER", 0) == 1);
    let _ = std::panic::take_hook();
    eprintln!("{}\n{:?}", report(&tally), places.lock().map(|p| p.clone()));
    assert!(tally.faults.is_empty(), "{} faults", tally.faults.len());
}
