//! Statements of random programs: each kind draws values that fit and says what its result has.

use super::{Axes, Kind, LONGEST, Rng, Stmt, Value};
use std::collections::BTreeSet;

pub(super) struct Make {
    pub rng: Rng,
    pub values: Vec<Value>,
    pub next: usize,
    pub used: BTreeSet<String>,
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

    /// One more statement, when the values there are allow the kind that was drawn.
    pub fn statement(&mut self) -> Option<Stmt> {
        self.used.clear();
        let term = match self.rng.below(34) {
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
            24 => self.choose_rows(),
            25 => return self.until(),
            26 => self.optional(),
            27 => self.best(),
            28 => return self.running(),
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

    /// A choice for each query out of scores made in the same program, and what reads it: a normaliser, a list, a count.
    fn choose_rows(&mut self) -> Option<Term> {
        let a = self.choose(|v| v.axes.contains("t") && v.axes.contains("d") && !v.axes.contains("s") && matches!(v.kind, Kind::Real { size, exact: Some(_) } if size < 60.0))?;
        let b = self.choose(|v| v.name != a.text && v.axes.contains("t") && v.axes.contains("d") && !v.axes.contains("s") && matches!(v.kind, Kind::Real { size, exact: Some(_) } if size < 60.0))?;
        let exact = exact_of(&a).zip(exact_of(&b)).map(|(i, j)| i + j);
        // Orders are made of what f32 holds exactly.
        if !matches!(real(size_of(&a) * size_of(&b) * LONGEST, exact), Kind::Real { exact: Some(_), .. }) {
            return None;
        }
        let axes = union(&minus(&union(&a.axes, &b.axes), "d"), &["s"].into());
        let score = format!("(sum[d] {} * {}[t = s])", a.text, b.text);
        let mask = if self.rng.chance(60) { self.mask(&["s"]) } else { None };
        let axes = mask.iter().fold(axes, |all, m| union(&all, &m.axes));
        let clause = mask.map_or(String::new(), |m| format!(" where {}", m.text));
        let n = 1 + self.rng.below(3);
        let rest = minus(&axes, "s");
        Some(match self.rng.below(4) {
            0 => {
                let row = self.real(|v| v.axes.contains("t") && !v.axes.contains("s") && union(&minus(&v.axes, "t"), &rest).len() <= 4)?;
                let text = format!("sum[s] softmax[s](0.125 * {score} where topk[s]({score}{clause}, {n})) * {}[t = s]", row.text);
                Term { text, axes: union(&rest, &minus(&row.axes, "t")), kind: real(size_of(&row), None) }
            }
            1 if !rest.contains("j") => {
                Term { text: format!("list[s -> j](topk[s]({score}{clause}, {n})) ?? -1"), axes: union(&rest, &["j"].into()), kind: Kind::Int { size: LONGEST as i64 } }
            }
            2 if !rest.contains("j") => {
                Term { text: format!("argsort[s -> j]({score}{clause}) ?? -1"), axes: union(&rest, &["j"].into()), kind: Kind::Int { size: LONGEST as i64 } }
            }
            _ => Term { text: format!("count[s] (topk[s]({score}{clause}, {n}))"), axes: rest, kind: Kind::Int { size: LONGEST as i64 } },
        })
    }

    /// Rounds that stop early, for each element of a batch when it is done.
    fn until(&mut self) -> Option<Stmt> {
        let u = self.choose(|v| v.axes.len() <= 3 && matches!(v.kind, Kind::Real { exact: Some(_), size } if size < 60.0))?;
        let (name, rounds, k) = (self.name(), self.name(), self.next);
        let bound = size_of(&u) / 4.0;
        // Halving is exact for this many rounds.
        let text = format!(
            "repeat 4 until abs(S{k}) <= {bound:?} {{\n    state S{k} = {}\n    state n{k}: int = 0\n    S{k}' = 0.5 * S{k}\n    n{k}' = n{k} + 1\n}}\nlet {name} = S{k}\nlet {rounds} = n{k}",
            u.text
        );
        let value = Value { name, axes: u.axes.clone(), kind: real(size_of(&u), None) };
        let count = Value { name: rounds, axes: u.axes.clone(), kind: Kind::Int { size: 4 } };
        self.values.extend([value.clone(), count.clone()]);
        Some(Stmt { text, defines: vec![value, count], uses: std::mem::take(&mut self.used) })
    }

    /// What may be absent, asked for and replaced.
    fn optional(&mut self) -> Option<Term> {
        let a = self.real(|v| v.axes.contains("t") && v.axes.len() <= 3)?;
        let m = self.mask(&["t"])?;
        let axes = union(&a.axes, &m.axes);
        let t = &a.text;
        Some(match self.rng.below(3) {
            0 => Term { text: format!("present({t}[t = t - 2] where {})", m.text), axes: union(&m.axes, &["t"].into()), kind: Kind::Bool },
            1 => Term { text: format!("({t} where {}) ?? ({t}[t = t + 1] ?? 0.25)", m.text), axes, kind: real(size_of(&a).max(0.25), None) },
            _ => Term { text: format!("(mean[t] ({t} where {})) + 0 * len(t)", m.text), axes: minus(&axes, "t"), kind: real(size_of(&a), None) },
        })
    }

    /// Functions with axes, and reductions that give positions.
    fn best(&mut self) -> Option<Term> {
        let axis = *self.rng.pick(&["d", "e", "n", "t"])?;
        let x = self.choose(|v| v.axes.contains(axis) && matches!(v.kind, Kind::Real { size, exact: Some(_) } if size < 60.0))?;
        let t = &x.text;
        Some(match self.rng.below(5) {
            0 => Term { text: format!("(argmin[{axis}] {t}) ?? 0"), axes: minus(&x.axes, axis), kind: Kind::Int { size: LONGEST as i64 } },
            1 => Term { text: format!("normalize[{axis}]({t} + 0.5)"), axes: x.axes.clone(), kind: REAL },
            2 => Term { text: format!("log_softmax[{axis}]({t}) / 128"), axes: x.axes.clone(), kind: real(2.0, None) },
            3 => Term { text: format!("prod[{axis}] (1 + tanh({t}) / 256)"), axes: minus(&x.axes, axis), kind: real(4.0, None) },
            _ => Term { text: format!("any[{axis}] ({t} > 1)"), axes: minus(&x.axes, axis), kind: Kind::Bool },
        })
    }

    /// A step whose state is a matrix written by outer products: gated, with or without the delta rule.
    fn running(&mut self) -> Option<Stmt> {
        let key = self.real(|v| v.axes.contains("t") && v.axes.contains("d") && !v.axes.contains("e") && !v.axes.contains("s") && v.axes.len() <= 3)?;
        let row = self.real(|v| v.axes.contains("t") && v.axes.contains("e") && !v.axes.contains("d") && !v.axes.contains("s") && v.axes.len() <= 3)?;
        let (name, last, k) = (self.name(), self.name(), self.next);
        let (key_text, v) = (format!("(tanh({}) / 4)", key.text), row.text.clone());
        let step = match self.rng.below(4) {
            0 => format!("M{k} + {key_text} * {v}"),
            1 => format!("0.75 * M{k} + {key_text} * {v}"),
            2 => format!("M{k} * sigmoid({key_text}) + {key_text} * {v}"),
            _ => format!("M{k} + 0.5 * {key_text} * ({v} - sum[d] {key_text} * M{k})"),
        };
        let text = format!("scan t {{\n    state M{k}: [d,e] = 0\n    M{k}' = {step}\n    {name} = sum[d] {key_text} * M{k}'\n}}\nlet {last} = M{k}");
        let axes = union(&key.axes, &row.axes);
        let size = (size_of(&row) + 1.0) * LONGEST;
        let out = Value { name, axes: minus(&axes, "d"), kind: real(size, None) };
        let end = Value { name: last, axes: minus(&axes, "t"), kind: real(size, None) };
        self.values.extend([out.clone(), end.clone()]);
        Some(Stmt { text, defines: vec![out, end], uses: std::mem::take(&mut self.used) })
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
