//! Random programs: well-typed texts over small axes, their inputs, and shrinking of those that fail.
//!
//! A case is a list of statements, each of which defines values from earlier ones. The generator tracks what a value has: axes,
//! dtype, bounds, and whether f32 holds it exactly. Comparisons and orders are only made of exact values, so that a target in f32
//! takes the same branches as the interpreter; other values stay within a few thousand, so that tolerances can be tight.

use attnc_compiler::interp::{Array, Data};
use attnc_compiler::ops::Scalar;
use std::collections::{BTreeMap, BTreeSet};
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

struct Make {
    rng: Rng,
    values: Vec<Value>,
    next: usize,
    used: BTreeSet<String>,
}

/// An expression under construction.
#[derive(Clone)]
struct Term {
    text: String,
    axes: Axes,
    kind: Kind,
}

fn union(a: &Axes, b: &Axes) -> Axes {
    a.union(b).copied().collect()
}

fn minus(a: &Axes, axis: &str) -> Axes {
    a.iter().copied().filter(|x| *x != axis).collect()
}

const REAL: Kind = Kind::Real { size: 1.0, exact: None };

fn size_of(term: &Term) -> f64 {
    match term.kind {
        Kind::Real { size, .. } => size,
        Kind::Int { size } => size as f64,
        Kind::Bool => 1.0,
    }
}

fn exact_of(term: &Term) -> Option<u32> {
    match term.kind {
        Kind::Real { exact, .. } => exact,
        Kind::Int { .. } | Kind::Bool => Some(0),
    }
}

/// Real kind with these bounds; exactness is given up when f32 might round.
fn real(size: f64, exact: Option<u32>) -> Kind {
    Kind::Real { size, exact: exact.filter(|n| size * f64::from(1u32 << (*n).min(30)) < f64::from(1 << 22) && *n < 20) }
}

/// `text` with a whole word replaced.
fn replace_word(text: &str, word: &str, by: &str) -> String {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, after) = (rest[..at].chars().next_back(), rest[at + word.len()..].chars().next());
        let whole = !before.is_some_and(part) && !after.is_some_and(part);
        out.push_str(&rest[..at]);
        out.push_str(if whole { by } else { word });
        rest = &rest[at + word.len()..];
    }
    out + rest
}

impl Make {
    fn name(&mut self) -> String {
        self.next += 1;
        format!("x{}", self.next - 1)
    }

    fn term(&mut self, value: &Value) -> Term {
        self.used.insert(value.name.clone());
        Term { text: value.name.clone(), axes: value.axes.clone(), kind: value.kind.clone() }
    }

    fn choose(&mut self, want: impl Fn(&Value) -> bool) -> Option<Term> {
        let fitting: Vec<Value> = self.values.iter().filter(|v| want(v)).cloned().collect();
        // Later values are likelier, so that programs become deep.
        let k = fitting.len().checked_sub(1)?.saturating_sub(self.rng.below(fitting.len()).min(self.rng.below(fitting.len())));
        fitting.get(k).cloned().map(|v| self.term(&v))
    }

    /// A real value, squashed when it may be large.
    fn real(&mut self, want: impl Fn(&Value) -> bool) -> Option<Term> {
        let term = self.choose(|v| matches!(v.kind, Kind::Real { .. }) && want(v))?;
        if size_of(&term) < 60.0 {
            return Some(term);
        }
        Some(Term { text: format!("tanh({} / 64)", term.text), kind: REAL, ..term })
    }

    /// A condition that mentions one of the axes (any when there are none).
    fn mask(&mut self, over: &[&'static str]) -> Option<Term> {
        let axis = *self.rng.pick(over).unwrap_or(&"t");
        let other = if axis == "s" { "t" } else { "s" };
        let both: Axes = [axis, other].into();
        let (text, axes): (String, Axes) = match (axis, self.rng.below(12)) {
            ("t" | "s", 0) => ("s <= t".into(), both),
            ("t" | "s", 1) => ("0 <= t - s < 3".into(), both),
            ("t" | "s", 2) => ("(t + s) mod 2 == 0 or s == t".into(), both),
            ("t" | "s", 3) => ("s div 2 == t div 2".into(), both),
            ("t" | "s", 4) => (format!("{axis} < T - 1"), [axis].into()),
            ("t" | "s", 9) => ("0 <= t - s < z".into(), both),
            ("s", 10) => {
                let kept = self.choose(|v| v.axes.contains("c") && !v.axes.contains("s") && v.kind == Kind::Bool)?;
                (format!("{}[c = s div 2]", kept.text), union(&minus(&kept.axes, "c"), &["s"].into()))
            }
            ("t" | "s", 11) => {
                let at = self.choose(|v| v.axes.contains(axis) != v.axes.contains(other) && matches!(v.kind, Kind::Int { .. }))?;
                let free = if at.axes.contains("s") { "t" } else { "s" };
                (format!("{} == {free}", at.text), union(&at.axes, &[free].into()))
            }
            (_, 5 | 6) => {
                let key = self.choose(|v| v.axes.contains(axis) && matches!(v.kind, Kind::Real { exact: Some(_), .. }))?;
                (format!("{} {} 0.5", key.text, ["<", ">="][self.rng.below(2)]), key.axes)
            }
            (_, 7) => {
                let key = self.choose(|v| v.axes.contains(axis) && matches!(v.kind, Kind::Int { .. }))?;
                (format!("{} mod 3 != 1", key.text), key.axes)
            }
            (_, 8) => {
                let key = self.choose(|v| v.axes.contains(axis) && v.kind == Kind::Bool)?;
                (format!("not {}", key.text), key.axes)
            }
            _ => (format!("{axis} mod 2 == 0"), [axis].into()),
        };
        Some(Term { text, axes, kind: Kind::Bool })
    }

    fn define(&mut self, term: Term) -> Stmt {
        let name = self.name();
        let value = Value { name: name.clone(), axes: term.axes, kind: term.kind };
        self.values.push(value.clone());
        Stmt { text: format!("let {name} = {}", term.text), defines: vec![value], uses: std::mem::take(&mut self.used) }
    }

    fn statement(&mut self) -> Option<Stmt> {
        self.used.clear();
        let term = match self.rng.below(28) {
            0..=3 => self.pointwise(),
            4 | 5 => self.read(),
            6..=9 => self.reduce(),
            10 | 11 => self.attend(),
            12 => self.prefix(),
            13 | 14 => self.select(),
            15 => self.order(),
            16 => self.join(),
            17 => self.counted(),
            18 => return self.repeat(),
            19 => return self.blocks(),
            20 => return self.substitution(),
            21 => self.slope(),
            22 => self.over_two(),
            23 => self.position(),
            _ => return self.scan(),
        }?;
        if term.axes.len() > 4 {
            return None;
        }
        Some(self.define(term))
    }

    fn pointwise(&mut self) -> Option<Term> {
        let a = self.real(|_| true)?;
        let axes = a.axes.clone();
        let b = self.real(|v| union(&v.axes, &axes).len() <= 4)?;
        let (x, y, both) = (a.text.clone(), b.text.clone(), union(&a.axes, &b.axes));
        let (m, n) = (size_of(&a), size_of(&b));
        let exact = exact_of(&a).zip(exact_of(&b));
        let finest = exact.map(|(i, j)| i.max(j));
        let (text, axes, kind) = match self.rng.below(17) {
            0 => (format!("{x} + {y}"), both, real(m + n, finest)),
            1 => (format!("{x} - {y}"), both, real(m + n, finest)),
            2 | 3 => (format!("{x} * {y}"), both, real(m * n, exact.map(|(i, j)| i + j))),
            4 => (format!("max({x}, {y})"), both, real(m.max(n), finest)),
            5 => (format!("{x} / (1.5 + abs({y}))"), both, real(m, None)),
            6 => (format!("exp(-abs({x}))"), a.axes, REAL),
            7 => (format!("sigmoid({x}) * {y}"), both, real(n, None)),
            8 => (format!("log(1 + {x}^2)"), a.axes, real(m + 1.0, None)),
            9 => (format!("softplus({x}) - silu({y})"), both, real(m + n + 1.0, None)),
            10 => (format!("re(exp(complex(-abs({x}), {y})))"), both, REAL),
            11 => (format!("sqrt({x}^2 + 0.25)"), a.axes, real(m + 1.0, None)),
            12 => (format!("gelu({x}) + cos({y})"), both, real(m + 1.0, None)),
            13 => (format!("p * {x} - {y}"), both, real(m + n, None)),
            14 => (format!("clamp({x}, -0.5, 1) * {y}"), both, real(n, None)),
            15 => match self.rng.pick(&["d", "t", "e", "n"]).filter(|axis| a.axes.contains(*axis)) {
                Some(axis) => {
                    let call = *self.rng.pick(&["rms_norm", "layer_norm"])?;
                    (format!("{call}[{axis}]({x}, 0.01)"), a.axes, real(12.0, None))
                }
                None => return None,
            },
            _ => (format!("0.5 * {x}"), a.axes.clone(), real(m, exact_of(&a).map(|n| n + 1))),
        };
        Some(Term { text, axes, kind })
    }

    fn read(&mut self) -> Option<Term> {
        let axis = *self.rng.pick(&["t", "t", "t", "d", "n", "s", "c"])?;
        let x = self.choose(|v| v.axes.contains(axis) && matches!(v.kind, Kind::Real { .. }))?;
        let rest = minus(&x.axes, axis);
        let x_text = x.text.clone();
        let (text, axes): (String, Axes) = match (axis, self.rng.below(8)) {
            ("t", 0 | 1) if !rest.contains("s") => (format!("{x_text}[t = s]"), union(&rest, &["s"].into())),
            ("t", 2) => (format!("{x_text}[t = T - 1 - t]"), x.axes),
            ("t", 3) => (format!("{x_text}[t = t div 2]"), x.axes),
            ("t", 4) if !rest.contains("c") => (format!("({x_text}[t = 2 * c + r] ?? 0)"), union(&rest, &["c", "r"].into())),
            ("t" | "s" | "d" | "n" | "c", 5) => (format!("({x_text}[{axis} = {axis} - 1] ?? 0.5)"), x.axes),
            ("t" | "n", 6) => {
                let index = self.choose(|v| matches!(v.kind, Kind::Int { .. }))?;
                (format!("({x_text}[{axis} = {}] ?? 0)", index.text), union(&rest, &index.axes))
            }
            ("c", _) => (format!("{x_text}[c = t div 2]"), union(&rest, &["t"].into())),
            ("s", _) if !rest.contains("t") => (format!("{x_text}[s = t]"), union(&rest, &["t"].into())),
            _ => (format!("({x_text}[{axis} = {axis} + 1] ?? -1)"), x.axes),
        };
        let kind = match x.kind {
            Kind::Real { size, exact } => real(size.max(1.0), exact.map(|n| n.max(1))),
            kind @ (Kind::Int { .. } | Kind::Bool) => kind,
        };
        Some(Term { text, axes, kind })
    }

    fn reduce(&mut self) -> Option<Term> {
        let axis = *self.rng.pick(&["t", "d", "d", "s", "s", "n", "e", "c", "r"])?;
        let a = self.real(|v| v.axes.contains(axis))?;
        let product = self.rng.chance(50);
        // A factor that varies over the twin of the reduced axis alone is refused, so both have the axis.
        let axes = a.axes.clone();
        let b = if product { self.real(|v| v.axes.contains(axis) && union(&v.axes, &axes).len() <= 5) } else { None };
        let (body, mut axes, size, exact) = match &b {
            Some(b) => {
                let exact = exact_of(&a).zip(exact_of(b)).map(|(i, j)| i + j);
                (format!("{} * {}", a.text, b.text), union(&a.axes, &b.axes), size_of(&a) * size_of(b), exact)
            }
            None => (a.text.clone(), a.axes.clone(), size_of(&a), exact_of(&a)),
        };
        let mask = if self.rng.chance(50) { self.mask(&[axis]) } else { None };
        if let Some(m) = &mask {
            axes = union(&axes, &m.axes);
        }
        let clause = mask.map_or(String::new(), |m| format!(" where {}", m.text));
        let axes = minus(&axes, axis);
        let (text, kind) = match self.rng.below(5) {
            0 => (format!("max(max[{axis}] ({body}{clause}), -{size:?})"), real(size, exact)),
            1 => (format!("mean[{axis}] ({body}{clause})"), real(size, None)),
            2 => (format!("min(min[{axis}] ({body}{clause}), {size:?})"), real(size, exact)),
            _ => (format!("sum[{axis}] {body}{clause}"), real(size * LONGEST, exact)),
        };
        Some(Term { text, axes, kind })
    }

    /// A normalised row times values: two reductions that depend on each other.
    fn attend(&mut self) -> Option<Term> {
        let axis = *self.rng.pick(&["s", "s", "s", "t", "n", "d"])?;
        let x = self.real(|v| v.axes.contains(axis) && v.axes.len() <= 4)?;
        let axes = x.axes.clone();
        let v = self.real(|v| v.axes.contains(axis) && union(&v.axes, &axes).len() <= 5)?;
        let mask = if self.rng.chance(70) { self.mask(&[axis]) } else { None };
        let row_axes = mask.iter().fold(x.axes.clone(), |a, m| union(&a, &m.axes));
        let rest = minus(&union(&row_axes, &v.axes), axis);
        let clause = mask.map_or(String::new(), |m| format!(" where {}", m.text));
        Some(match self.rng.below(3) {
            0 => {
                let text = format!("max(logsumexp[{axis}]({}{clause}), -100)", x.text);
                Term { text, axes: minus(&row_axes, axis), kind: real(100.0, None) }
            }
            _ => {
                let text = format!("sum[{axis}] softmax[{axis}]({}{clause}) * {}", x.text, v.text);
                Term { text, axes: rest, kind: real(size_of(&v), None) }
            }
        })
    }

    fn prefix(&mut self) -> Option<Term> {
        let axis = *self.rng.pick(&["t", "t", "s", "n"])?;
        let x = self.real(|v| v.axes.contains(axis))?;
        let sign = *self.rng.pick(&["<=", "<", ">=", ">"])?;
        let (size, exact) = (size_of(&x), exact_of(&x));
        let text = match self.rng.below(3) {
            0 => format!("max(max[{sign} {axis}] {}, -{size:?})", x.text),
            _ => format!("sum[{sign} {axis}] {}", x.text),
        };
        Some(Term { text, axes: x.axes, kind: real(size * LONGEST, exact) })
    }

    fn select(&mut self) -> Option<Term> {
        let a = self.real(|_| true)?;
        let axes = a.axes.clone();
        let b = self.real(|v| union(&v.axes, &axes).len() <= 4)?;
        if a.text == b.text {
            return None;
        }
        let both = union(&a.axes, &b.axes);
        let over: Vec<&'static str> = both.iter().copied().collect();
        let c = self.mask(&over)?;
        let exact = exact_of(&a).zip(exact_of(&b)).map(|(i, j)| i.max(j));
        let kind = real(size_of(&a).max(size_of(&b)), exact);
        Some(Term { text: format!("if {} then {} else {}", c.text, a.text, b.text), axes: union(&both, &c.axes), kind })
    }

    fn order(&mut self) -> Option<Term> {
        let axis = *self.rng.pick(&["t", "s", "n", "d", "c", "c"])?;
        let x = self.choose(|v| v.axes.contains(axis) && matches!(v.kind, Kind::Real { exact: Some(_), .. }))?;
        let (key, rest) = (x.text.clone(), minus(&x.axes, axis));
        let slots = union(&rest, &["j"].into());
        let mask = if self.rng.chance(50) { self.mask(&[axis]) } else { None };
        Some(match self.rng.below(5) {
            0 => Term { text: format!("rank[{axis}]({key})"), axes: x.axes, kind: Kind::Int { size: LONGEST as i64 } },
            1 if !rest.contains("j") => Term { text: format!("argsort[{axis} -> j]({key}) ?? 0"), axes: slots, kind: Kind::Int { size: LONGEST as i64 } },
            2 if !rest.contains("j") => {
                Term { text: format!("list[{axis} -> j]({key} > 0.25) ?? 0"), axes: slots, kind: Kind::Int { size: LONGEST as i64 } }
            }
            3 => {
                let mask = mask?;
                let axes = minus(&union(&x.axes, &mask.axes), axis);
                Term { text: format!("(argmax[{axis}] ({key} where {})) ?? 0", mask.text), axes, kind: Kind::Int { size: LONGEST as i64 } }
            }
            _ => {
                let axes = mask.iter().fold(x.axes.clone(), |a, m| union(&a, &m.axes));
                let clause = mask.map_or(String::new(), |m| format!(" where {}", m.text));
                let count = if self.rng.chance(30) { self.choose(|v| !v.axes.contains(axis) && matches!(v.kind, Kind::Int { .. })) } else { None };
                let axes = count.iter().fold(axes, |a, c| union(&a, &c.axes));
                let count = count.map_or_else(|| self.rng.below(4).to_string(), |c| c.text);
                Term { text: format!("topk[{axis}]({key}{clause}, {count})"), axes, kind: Kind::Bool }
            }
        })
    }

    /// Two sources along one axis.
    fn join(&mut self) -> Option<Term> {
        let a = self.real(|v| v.axes.contains("t") && !v.axes.contains("s"))?;
        let axes = minus(&a.axes, "t");
        let b = self.real(|v| v.axes.contains("n") && !v.axes.contains("s") && union(&v.axes, &axes).len() <= 4)?;
        let text = format!("{}[t = s - 2] ?? {}[n = s] ?? 0", a.text, b.text);
        let both = union(&axes, &minus(&b.axes, "n"));
        Some(Term { text, axes: union(&both, &["s"].into()), kind: real(size_of(&a).max(size_of(&b)), None) })
    }

    fn counted(&mut self) -> Option<Term> {
        let axis = *self.rng.pick(&["t", "s", "n"])?;
        let m = self.mask(&[axis])?;
        let axes = minus(&m.axes, axis);
        Some(match self.rng.below(3) {
            0 => Term { text: format!("count[{axis}] ({})", m.text), axes, kind: Kind::Int { size: LONGEST as i64 } },
            1 => Term { text: format!("any[{axis}] ({})", m.text), axes, kind: Kind::Bool },
            _ => Term { text: format!("all[{axis}] ({})", m.text), axes, kind: Kind::Bool },
        })
    }

    fn scan(&mut self) -> Option<Stmt> {
        let u = self.real(|v| v.axes.contains("t") && v.axes.len() <= 3 && !v.axes.contains("s"))?;
        let axes = u.axes.clone();
        let a = self.real(|v| !v.axes.contains("s") && union(&v.axes, &axes).len() <= 4)?;
        let (name, last, state) = (self.name(), self.name(), format!("S{}", self.next));
        let reverse = if self.rng.chance(25) { " reverse" } else { "" };
        let own = minus(&union(&u.axes, &a.axes), "t");
        let kind = real(size_of(&u) * LONGEST + 1.0, None);
        let step = match self.rng.below(6) {
            0 => format!("{state}' = sigmoid({}) * {state} + {}", a.text, u.text),
            1 => format!("{state}' = 0.5 * {state} + {} * tanh({})", u.text, a.text),
            2 => format!("{state}' = if t mod 3 == 1 then {} else {state} * sigmoid({})", u.text, a.text),
            3 => format!("{state}' = tanh({state} + {} * sigmoid({}))", u.text, a.text),
            4 => format!("{state}' = max({state} - 0.25 * abs({}), {})", a.text, u.text),
            _ => format!("{state}' = {state} + {} * sigmoid({})", u.text, a.text),
        };
        let result = match self.rng.below(4) {
            0 => format!("{name} = {state}' * tanh({})", u.text),
            1 => format!("{name} = {state}' - 0.5 * ({name}[t = t {} 1] ?? 0)", if reverse.is_empty() { "-" } else { "+" }),
            2 => format!("let before = {state}\n    {name} = before + {}", u.text),
            _ => format!("{name} = {state}'"),
        };
        let result = result.replace("before", &format!("before{}", self.next));
        let text = format!("scan t{reverse} {{\n    state {state} = 0.5\n    {step}\n    {result}\n}}\nlet {last} = {state}");
        let out = Value { name, axes: union(&own, &["t"].into()), kind: real(size_of(&u) * LONGEST * 2.0 + 2.0, None) };
        let end = Value { name: last, axes: own, kind };
        self.values.extend([out.clone(), end.clone()]);
        Some(Stmt { text, defines: vec![out, end], uses: std::mem::take(&mut self.used) })
    }

    /// A scan over blocks with a scan over the positions of each inside; a ragged last block skips steps.
    fn blocks(&mut self) -> Option<Stmt> {
        let u = self.real(|v| v.axes.contains("t") && v.axes.len() <= 3 && v.axes.is_disjoint(&["s", "c", "r"].into()))?;
        let (name, last, n) = (self.name(), self.name(), self.next);
        let step = *self.rng.pick(&["0.5 * A + here", "tanh(A + here)", "max(A - 1, here)", "A * sigmoid(here) + B"])?;
        let text = format!(
            "scan c {{\n    state B = 0.5\n    scan r where 2 * c + r < T {{\n        let here = {}[t = 2 * c + r]\n        state A = B\n        \
             A' = {step}\n        inside = A'\n    }}\n    B' = A\n    out = inside\n}}\nlet {name} = out[c = t div 2, r = t mod 2] ?? 0\nlet {last} = B",
            u.text
        );
        let text = ["here", "inside", "out"].iter().fold(text, |text, word| replace_word(&text, word, &format!("{word}{n}")));
        let text = ["A", "B"].iter().fold(text, |text, word| replace_word(&text, word, &format!("S{word}{n}")));
        let kind = real(size_of(&u) * LONGEST + 1.0, None);
        let out = Value { name, axes: u.axes.clone(), kind: kind.clone() };
        let end = Value { name: last, axes: minus(&u.axes, "t"), kind };
        self.values.extend([out.clone(), end.clone()]);
        Some(Stmt { text, defines: vec![out, end], uses: std::mem::take(&mut self.used) })
    }

    /// Results that depend linearly on all earlier results.
    fn substitution(&mut self) -> Option<Stmt> {
        let u = self.real(|v| v.axes.contains("t") && v.axes.len() <= 3 && !v.axes.contains("s"))?;
        let axes = u.axes.clone();
        let w = self.real(|v| v.axes.contains("s") && union(&v.axes, &axes).len() <= 4)?;
        let name = self.name();
        let text = format!("scan t {{\n    {name} = {} + sum[s] (tanh({}) / T * {name}[t = s] where s < t)\n}}", u.text, w.text);
        // Axes of the weights other than s spread to the results, and from there to all later ones.
        let value = Value { name, axes: union(&u.axes, &minus(&w.axes, "s")), kind: real(size_of(&u) * 3.0 + 1.0, None) };
        self.values.push(value.clone());
        Some(Stmt { text, defines: vec![value], uses: std::mem::take(&mut self.used) })
    }

    /// A derivative.
    fn slope(&mut self) -> Option<Term> {
        let axis = *self.rng.pick(&["d", "e", "n"])?;
        let x = self.choose(|v| v.axes.contains(axis) && matches!(v.kind, Kind::Real { size, .. } if size < 60.0))?;
        let axes = x.axes.clone();
        let y = self.real(|v| v.name != x.text && union(&v.axes, &axes).len() <= 4)?;
        let body = match self.rng.below(4) {
            0 => format!("({} - {})^2", x.text, y.text),
            1 => format!("tanh({} * {})", x.text, y.text),
            2 => format!("silu({}) * sigmoid({})", x.text, y.text),
            _ => format!("exp(-abs({})) * {}", x.text, y.text),
        };
        let size = 2.0 * (size_of(&x) + size_of(&y));
        Some(Term { text: format!("grad(sum[{axis}] {body}, {})", x.text), axes: union(&x.axes, &y.axes), kind: real(size, None) })
    }

    /// A normaliser or sum over two axes at once.
    fn over_two(&mut self) -> Option<Term> {
        let [i, j] = **self.rng.pick(&[&["s", "d"], &["t", "d"], &["s", "n"], &["b", "t"]])?;
        let x = self.real(|v| v.axes.contains(i) && v.axes.contains(j) && v.axes.len() <= 5)?;
        let rest = minus(&minus(&x.axes, i), j);
        let t = &x.text;
        Some(match self.rng.below(3) {
            0 => Term { text: format!("sum[{i}, {j}] softmax[{i}, {j}]({t}) * {t}"), axes: rest, kind: real(size_of(&x), None) },
            1 => Term { text: format!("mean[{i}, {j}] ({t} where {i} != {j})"), axes: rest, kind: real(size_of(&x), None) },
            _ => Term { text: format!("sum[{i}, {j}] {t} * {t}"), axes: rest, kind: real(size_of(&x).powi(2) * LONGEST * 16.0, None) },
        })
    }

    /// Arithmetic of positions.
    fn position(&mut self) -> Option<Term> {
        let i = self.choose(|v| matches!(v.kind, Kind::Int { .. }))?;
        let axis = *self.rng.pick(&["t", "n", "c"])?;
        let text = match self.rng.below(4) {
            0 => format!("({} + {axis}) mod 5", i.text),
            1 => format!("{} div 2 + z", i.text),
            2 => format!("max({axis} - {}, 0)", i.text),
            _ => format!("xor({axis}, 1) + {} * 0", i.text),
        };
        let axes = if text.contains("div 2 + z") { i.axes } else { union(&i.axes, &[axis].into()) };
        Some(Term { text, axes, kind: Kind::Int { size: 2 * LONGEST as i64 } })
    }

    fn repeat(&mut self) -> Option<Stmt> {
        let u = self.real(|v| v.axes.len() <= 3)?;
        let (name, state) = (self.name(), format!("S{}", self.next));
        let n = self.rng.below(4);
        let text = format!("repeat {n} {{\n    state {state} = {}\n    {state}' = 0.5 * {state} + tanh({state})\n}}\nlet {name} = {state}", u.text);
        let value = Value { name, axes: u.axes.clone(), kind: real(size_of(&u) + 4.0, None) };
        self.values.push(value.clone());
        Some(Stmt { text, defines: vec![value], uses: std::mem::take(&mut self.used) })
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
