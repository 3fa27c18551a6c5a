//! Random programs: well-typed texts over small axes, their inputs, and shrinking of those that fail.
//!
//! A case is a list of statements, each of which defines values from earlier ones. The generator tracks what a value has: axes,
//! dtype, bounds, and whether f32 holds it exactly. Comparisons and orders are only made of exact values, so that a target in f32
//! takes the same branches as the interpreter; other values stay within a few thousand, so that tolerances can be tight.

mod make;

use attnc_compiler::interp::{Array, Data};
use attnc_compiler::ops::Scalar;
use std::collections::{BTreeMap, BTreeSet};
use make::Make;
use std::fmt::Write;

/// Small deterministic generator (splitmix64), so that a seed means the same case on every machine.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which must not be 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.word() % n as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of the items; `None` when there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { items.get(self.below(items.len())) }
    }
}

type Axes = BTreeSet<&'static str>;

/// What the generator knows about elements.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// Largest magnitude; `Some(n)`: exact multiples of 2^-n.
    Real { size: f64, exact: Option<u32> },
    /// Largest magnitude.
    Int { size: i64 },
    Bool,
}

#[derive(Clone, Debug)]
struct Value {
    name: String,
    axes: Axes,
    kind: Kind,
}

/// A statement: its text, the values it defines, and the names it uses.
#[derive(Clone, Debug)]
struct Stmt {
    text: String,
    defines: Vec<Value>,
    uses: BTreeSet<String>,
}

/// A program with the sizes and seed of its inputs.
#[derive(Clone, Debug)]
pub struct Case {
    pub seed: u64,
    /// Extents of the axes that the inputs give.
    pub sizes: BTreeMap<&'static str, usize>,
    stmts: Vec<Stmt>,
    /// Names of the values that become outputs `o0`, `o1`, ...
    results: Vec<String>,
}

/// Inputs of every case: name, dtype word, axes.
const INPUTS: &[(&str, &str, &[&str])] = &[
    ("q", "real", &["b", "t", "d"]),
    ("k", "real", &["b", "t", "d"]),
    ("v", "real", &["b", "t", "e"]),
    ("g", "real", &["b", "t"]),
    ("w", "real", &["d", "e"]),
    ("m", "real", &["n", "d"]),
    ("i", "int", &["b", "t"]),
    ("f", "int", &["n"]),
];

/// Scalars of every case, with their defaults; half of the cases give them.
const SCALARS: &[(&str, &str, &str)] = &[("p", "real", "0.75"), ("z", "int", "2")];

/// Longest axis, for bounds.
const LONGEST: f64 = 131.0;

/// Axes that every case declares, with their extents in program text; `s` is the twin of `t`.
const DECLARED: &[(&str, &str)] = &[("s", "T"), ("c", "ceildiv(T, 2)"), ("r", "2"), ("j", "3")];

/// The case of a seed. Most cases compile; callers count those that a checker refuses.
pub fn random_case(seed: u64) -> Case {
    let mut rng = Rng::new(seed);
    let mut size = |choices: &[usize]| rng.pick(choices).copied().unwrap_or(1);
    let sizes = BTreeMap::from([
        ("b", size(&[1, 1, 2])),
        ("t", size(&[0, 1, 2, 3, 5, 6, 8, 9, 17, 17, 33, 33, 64, 70, 130])),
        ("d", size(&[1, 2, 2, 3, 3, 4, 4, 8, 8, 16, 0])),
        ("e", size(&[1, 2, 4])),
        ("n", size(&[1, 2, 2, 3, 3, 7, 7, 0])),
    ]);
    let mut make = Make { rng, values: Vec::new(), next: 0, used: BTreeSet::new() };
    for (name, dtype, axes) in INPUTS {
        let kind = if *dtype == "int" { Kind::Int { size: 9 } } else { Kind::Real { size: 2.0, exact: Some(2) } };
        make.values.push(Value { name: name.to_string(), axes: axes.iter().copied().collect(), kind });
    }
    let count = 2 + make.rng.below(9);
    let mut stmts = Vec::new();
    for _ in 0..count * 4 {
        if stmts.len() < count {
            stmts.extend(make.statement());
        }
    }
    let made: Vec<String> = stmts.iter().flat_map(|s| s.defines.iter()).map(|v| v.name.clone()).collect();
    let used: BTreeSet<&String> = stmts.iter().flat_map(|s| s.uses.iter()).collect();
    let results = made.iter().filter(|n| !used.contains(n)).cloned().collect();
    Case { seed, sizes, stmts, results }
}

impl Case {
    fn value(&self, name: &str) -> Option<&Value> {
        self.stmts.iter().flat_map(|s| s.defines.iter()).find(|v| v.name == name)
    }

    /// Names of all inputs that the program mentions.
    fn mentioned(&self) -> BTreeSet<&'static str> {
        let used: BTreeSet<&str> = self.stmts.iter().flat_map(|s| s.uses.iter().map(String::as_str)).collect();
        // `q` gives the extents of t and d even when nothing reads it.
        INPUTS.iter().map(|i| i.0).filter(|n| *n == "q" || *n == "v" || *n == "m" || used.contains(n)).collect()
    }

    /// Text of the program.
    pub fn source(&self) -> String {
        let mentioned = self.mentioned();
        let list = |axes: &[&str]| format!("[{}]", axes.join(","));
        let header: Vec<String> = INPUTS
            .iter()
            .filter(|i| mentioned.contains(i.0))
            .map(|(name, dtype, axes)| format!("{name}: {dtype} {}", list(axes)))
            .chain(SCALARS.iter().map(|(name, dtype, default)| format!("{name}: {dtype} = {default}")))
            .collect();
        let outputs: Vec<String> = self.results.iter().enumerate().filter_map(|(k, name)| {
            let value = self.value(name)?;
            let dtype = match value.kind {
                Kind::Real { .. } => "real",
                Kind::Int { .. } | Kind::Bool => "int",
            };
            let axes: Vec<&str> = value.axes.iter().copied().collect();
            Some(format!("o{k}: {dtype}{}", if axes.is_empty() { String::new() } else { format!(" {}", list(&axes)) }))
        }).collect();
        let axes: Vec<String> = DECLARED.iter().map(|(name, extent)| format!("{name}: {extent}")).collect();
        let mut text = format!("kernel random{}({}) -> ({}) {{\n", self.seed, header.join(", "), outputs.join(", "));
        let _ = writeln!(text, "    axis {}", axes.join(", "));
        for stmt in &self.stmts {
            for line in stmt.text.lines() {
                let _ = writeln!(text, "    {line}");
            }
        }
        for (k, name) in self.results.iter().enumerate() {
            let bool = self.value(name).is_some_and(|v| v.kind == Kind::Bool);
            let _ = if bool { writeln!(text, "    o{k} = int({name})") } else { writeln!(text, "    o{k} = {name}") };
        }
        text.push_str("}\n");
        text
    }

    /// Inputs: multiples of 1/4 up to 2 for reals, small ints (some out of range of every axis).
    pub fn inputs(&self) -> BTreeMap<String, Array> {
        let mentioned = self.mentioned();
        let mut rng = Rng::new(self.seed ^ 0xabcd);
        let mut all = BTreeMap::new();
        for (name, dtype, axes) in INPUTS {
            let shape: Vec<usize> = axes.iter().map(|a| self.sizes.get(a).copied().unwrap_or(0)).collect();
            let n = shape.iter().product();
            let data = if *dtype == "int" {
                Data::Int((0..n).map(|_| rng.below(11) as i64 - 1).collect())
            } else {
                Data::Real((0..n).map(|_| (rng.below(17) as f64 - 8.0) / 4.0).collect())
            };
            if mentioned.contains(name) {
                all.insert(name.to_string(), Array { shape, data });
            }
        }
        all
    }

    /// Scalars that the caller gives; the others take their defaults.
    pub fn scalars(&self) -> BTreeMap<String, Scalar> {
        let all = [("p".to_string(), Scalar::Real(0.5)), ("z".to_string(), Scalar::Int(3))];
        if self.seed.is_multiple_of(2) { all.into() } else { BTreeMap::new() }
    }

    /// The case without one statement and everything that needs it; `None` when no result is left.
    fn without(&self, k: usize) -> Option<Case> {
        let mut case = self.clone();
        let mut gone: BTreeSet<String> = case.stmts.remove(k).defines.into_iter().map(|v| v.name).collect();
        case.stmts.retain(|s| {
            let keep = s.uses.is_disjoint(&gone);
            if !keep {
                gone.extend(s.defines.iter().map(|v| v.name.clone()));
            }
            keep
        });
        let used: BTreeSet<String> = case.stmts.iter().flat_map(|s| s.uses.iter().cloned()).collect();
        case.results = case.stmts.iter().flat_map(|s| s.defines.iter()).map(|v| v.name.clone()).filter(|n| !used.contains(n)).collect();
        (!case.results.is_empty()).then_some(case)
    }

    /// The case with one result only.
    fn only(&self, k: usize) -> Option<Case> {
        (self.results.len() > 1).then(|| Case { results: vec![self.results[k].clone()], ..self.clone() })
    }

    fn with_size(&self, axis: &'static str, size: usize) -> Case {
        let mut case = self.clone();
        case.sizes.insert(axis, size);
        case
    }
}

/// The smallest case found that still fails: statements and results are dropped, sizes reduced, while `fails` says so.
pub fn shrink(case: &Case, mut fails: impl FnMut(&Case) -> bool) -> Case {
    let mut best = case.clone();
    loop {
        let statements = (0..best.stmts.len()).rev().filter_map(|k| best.without(k));
        let results = (0..best.results.len()).filter_map(|k| best.only(k));
        let sizes = best.sizes.iter().flat_map(|(axis, size)| [1, size / 2, size.saturating_sub(1)].map(|n| (*axis, n, *size)));
        let sizes = sizes.filter(|(_, n, size)| n < size && *n > 0).map(|(axis, n, _)| best.with_size(axis, n));
        let smaller: Vec<Case> = statements.chain(results).chain(sizes).collect();
        match smaller.into_iter().find(|c| fails(c)) {
            Some(case) => best = case,
            None => return best,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_one_case() {
        assert_eq!(random_case(7).source(), random_case(7).source());
        assert_ne!(random_case(7).source(), random_case(8).source());
    }

    #[test]
    fn every_case_parses() {
        for seed in 0..300 {
            let source = random_case(seed).source();
            let (_, diagnostics) = attnc_compiler::syntax::parse(&source, attnc_compiler::base::SourceId::User);
            assert!(diagnostics.is_empty(), "seed {seed}: {diagnostics:?}\n{source}");
        }
    }

    #[test]
    fn shrinking_keeps_the_failure_and_drops_the_rest() {
        let fails = |c: &Case| c.source().contains("softmax");
        let case = (0..200).map(random_case).find(fails).unwrap();
        let small = shrink(&case, fails);
        assert!(fails(&small) && small.stmts.len() <= case.stmts.len());
        assert!(small.sizes.values().all(|n| *n == 1));
        assert_eq!(small.stmts.iter().filter(|s| s.text.contains("softmax")).count(), 1);
    }
}
