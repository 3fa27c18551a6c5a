//! Terms of a sum: products of what is fixed once the pass is over, what its elements give, and one factor `exp(x - m)`.

use super::ranges::{is_nonnegative, is_tame};
use super::{implies, reaches};
use crate::base::Span;
use crate::graph::{AxisId, AxisSet, NodeId, Op};
use crate::ops::{Scalar, ScalarOp};
use crate::passes::cost::Sizes;
use crate::passes::rewrite::Builder;
use crate::reduce::ReduceOp;
use std::collections::HashSet;

/// Most accumulators that one sum may be split into, and elements of one accumulator along feature axes for a row.
const MOST_SUMS: usize = 6;
const MOST_ELEMENTS: u64 = 64 * 64;

/// `exp(x - shift)`: `x` comes from elements, `shift` is fixed after the pass.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Gauge {
    x: NodeId,
    shift: NodeId,
    /// 0 where x is -inf, as `expdiff`; plain `exp` otherwise.
    saturates: bool,
}

/// `coef * product(free) * sum[bound] (loop * gauge)`, a monomial before the sum over the pass is taken.
#[derive(Clone, Debug, Default)]
struct Term {
    coef: f64,
    /// Fixed after the pass: factors and divisors (`Mul`, `Div`, `Ratio`), in order.
    free: Vec<(ScalarOp, NodeId)>,
    /// From elements, likewise.
    inner: Vec<(ScalarOp, NodeId)>,
    gauge: Option<Gauge>,
    /// Axes of sums that were exchanged with this one.
    bound: Vec<AxisId>,
}

/// A sum of terms. `centred`: it holds the difference of elements and a result of the pass.
#[derive(Clone, Debug, Default)]
pub(super) struct List {
    terms: Vec<Term>,
    centred: bool,
}

/// What is left of one term: an accumulator of the pass and what is done with it afterwards.
#[derive(Clone, Debug)]
pub(super) struct Sum(Term);

/// The context of an expansion.
pub(super) struct Terms<'a> {
    pub axes: &'a [AxisId],
    pub running: &'a HashSet<NodeId>,
    pub finals: &'a HashSet<NodeId>,
    pub sizes: &'a Sizes,
    /// The arms of conditionals that we are in.
    pub condition: Option<NodeId>,
}

impl Terms<'_> {
    fn is_free(&self, b: &Builder, id: NodeId) -> bool {
        !self.axes.iter().any(|a| b.graph.axes_of(id).contains(a))
    }

    fn waits(&self, b: &Builder, id: NodeId) -> bool {
        reaches(&b.graph, id, self.running, self.finals)
    }

    /// The expression as a sum of terms, or why it is none.
    pub(super) fn of(&mut self, b: &mut Builder, id: NodeId) -> Result<List, String> {
        let one = |term: Term| Ok(List { terms: vec![term], centred: false });
        if let Op::Const(Scalar::Real(c)) = b.graph.op(id) {
            return one(Term { coef: *c, ..Term::default() });
        }
        if self.is_free(b, id) {
            return one(Term { coef: 1.0, free: vec![(ScalarOp::Mul, id)], ..Term::default() });
        }
        if !self.waits(b, id) {
            return one(Term { coef: 1.0, inner: vec![(ScalarOp::Mul, id)], ..Term::default() });
        }
        let span = b.graph.node(id).span;
        match b.graph.op(id).clone() {
            Op::Map { op, args } => self.map(b, op, &args, span),
            Op::Expand { value, .. } => self.of(b, value),
            Op::Reduce { op: ReduceOp::Sum, axes, body, mask } => {
                if mask.is_some_and(|m| self.waits(b, m)) {
                    return Err("a condition inside it needs a result of the pass".to_string());
                }
                let mut list = self.of(b, body)?;
                for term in &mut list.terms {
                    if let Some(mask) = mask {
                        self.select(b, term, mask, span);
                    }
                    // What needs no result of the pass is summed where it stands.
                    let gauge_has = term.gauge.is_some_and(|g| axes.iter().any(|a| b.graph.axes_of(g.x).contains(a) || b.graph.axes_of(g.shift).contains(a)));
                    let ready = term.bound.is_empty() && !gauge_has && !term.free.iter().any(|f| self.waits(b, f.1));
                    if ready && term.free.iter().chain(&term.inner).any(|f| axes.iter().any(|a| b.graph.axes_of(f.1).contains(a))) {
                        let factors: Vec<(ScalarOp, NodeId)> = term.free.drain(..).chain(term.inner.drain(..)).collect();
                        let body = product(b, &factors, span);
                        if axes.iter().all(|a| b.graph.axes_of(body).contains(a)) {
                            let sum = b.add(Op::Reduce { op: ReduceOp::Sum, axes: axes.clone(), body, mask: None }, span);
                            let side = if self.is_free(b, sum) { &mut term.free } else { &mut term.inner };
                            side.push((ScalarOp::Mul, sum));
                            continue;
                        }
                        return Err("a sum inside it counts elements".to_string());
                    }
                    let all = term.all_axes(b);
                    if axes.iter().any(|a| !all.contains(a) || term.bound.contains(a)) {
                        return Err("a sum inside it counts elements".to_string());
                    }
                    term.bound.extend(&axes);
                }
                Ok(list)
            }
            Op::Reduce { op, .. } => Err(format!("`{}` inside it takes results of the pass and elements", op.name())),
            _ => Err("it reads a result of the pass at other positions".to_string()),
        }
    }

    fn map(&mut self, b: &mut Builder, op: ScalarOp, args: &[NodeId], span: Span) -> Result<List, String> {
        match op {
            ScalarOp::Add | ScalarOp::Sub => {
                let (x, mut y) = (self.of(b, args[0])?, self.of(b, args[1])?);
                if op == ScalarOp::Sub {
                    y.terms.iter_mut().for_each(|t| t.coef = -t.coef);
                }
                Ok(self.add(b, x, y))
            }
            ScalarOp::Neg => {
                let mut x = self.of(b, args[0])?;
                x.terms.iter_mut().for_each(|t| t.coef = -t.coef);
                Ok(x)
            }
            ScalarOp::Mul => {
                let (x, y) = (self.of(b, args[0])?, self.of(b, args[1])?);
                self.multiply(b, x, y, span)
            }
            ScalarOp::Div | ScalarOp::Ratio => {
                let mut x = self.of(b, args[0])?;
                if self.is_free(b, args[1]) {
                    x.terms.iter_mut().for_each(|t| t.free.push((op, args[1])));
                } else if !self.waits(b, args[1]) {
                    x.terms.iter_mut().for_each(|t| t.inner.push((op, args[1])));
                } else {
                    return Err("a divisor mixes results of the pass with elements".to_string());
                }
                Ok(x)
            }
            ScalarOp::Pow => {
                let exponent = if let Op::Const(Scalar::Real(p)) = b.graph.op(args[1]) { *p } else { f64::NAN };
                if exponent == 2.0 {
                    let (x, y) = (self.of(b, args[0])?, self.of(b, args[0])?);
                    return self.multiply(b, x, y, span);
                }
                let x = self.of(b, args[0])?;
                if exponent > 0.0 { self.power(b, x, exponent, span) } else { Err("a power of a result of the pass and elements".to_string()) }
            }
            ScalarOp::Sqrt => {
                let x = self.of(b, args[0])?;
                self.power(b, x, 0.5, span)
            }
            ScalarOp::Abs => self.absolute(b, args[0], span),
            ScalarOp::ExpDiff if self.is_free(b, args[1]) && !self.waits(b, args[0]) => {
                let x = match self.condition {
                    Some(c) => {
                        let least = b.constant_of(Scalar::Real(f64::NEG_INFINITY));
                        b.map(ScalarOp::Select, &[c, args[0], least], span)
                    }
                    None => args[0],
                };
                let gauge = Gauge { x, shift: args[1], saturates: true };
                Ok(List { terms: vec![Term { coef: 1.0, gauge: Some(gauge), ..Term::default() }], centred: false })
            }
            ScalarOp::Exp | ScalarOp::ExpDiff => {
                let x = self.of(b, args[0])?;
                let list = match args.get(1) {
                    Some(m) => {
                        let mut y = self.of(b, *m)?;
                        y.terms.iter_mut().for_each(|t| t.coef = -t.coef);
                        self.add(b, x, y)
                    }
                    None => x,
                };
                self.exponential(b, &list, op == ScalarOp::ExpDiff, span)
            }
            ScalarOp::Log => {
                let x = self.of(b, args[0])?;
                self.logarithm(b, x, span)
            }
            ScalarOp::Select if !self.waits(b, args[0]) => {
                let outer = self.condition;
                let not = b.map(ScalarOp::Not, &[args[0]], span);
                let mut out = List::default();
                for (cond, arm) in [(args[0], args[1]), (not, args[2])] {
                    self.condition = b.and(outer, Some(cond), span);
                    let list = self.of(b, arm);
                    self.condition = outer;
                    let mut list = list?;
                    list.terms.retain(|t| t.coef != 0.0);
                    for term in &mut list.terms {
                        self.select(b, term, cond, span);
                    }
                    out.centred |= list.centred;
                    out.terms.extend(list.terms);
                }
                Ok(out)
            }
            ScalarOp::ToReal => Err("a conversion of a result of the pass and elements".to_string()),
            op => Err(format!("`{}` of a result of the pass and elements", op.name())),
        }
    }

    fn add(&self, b: &Builder, mut x: List, y: List) -> List {
        let fixed = |l: &List| l.terms.iter().any(|t| t.inner.is_empty() && t.gauge.is_none() && t.free.iter().any(|f| self.waits(b, f.1)));
        let moves = |l: &List| l.terms.iter().any(|t| !t.inner.is_empty() || t.gauge.is_some());
        x.centred |= y.centred || (fixed(&x) && moves(&y)) || (fixed(&y) && moves(&x));
        x.terms.extend(y.terms);
        x
    }

    fn multiply(&self, b: &mut Builder, x: List, y: List, span: Span) -> Result<List, String> {
        if x.centred && y.centred {
            // sum w (v - c)^2 would become the difference of sum w v^2 and c^2, which cancels.
            return Err("expanding the product of two differences would cancel".to_string());
        }
        if x.terms.len() * y.terms.len() > 4 * MOST_SUMS {
            return Err("it has too many terms".to_string());
        }
        let mut terms = Vec::new();
        for s in &x.terms {
            for t in &y.terms {
                let clash = |s: &Term, t: &Term| !s.bound.is_empty() && s.bound.iter().any(|a| t.all_axes(b).contains(a) || t.bound.contains(a));
                if clash(s, t) || clash(t, s) {
                    return Err("sums over one axis meet in a product".to_string());
                }
                let gauge = match (s.gauge, t.gauge) {
                    (Some(g), Some(h)) => Some(Gauge {
                        x: b.map(ScalarOp::Add, &[g.x, h.x], span),
                        shift: b.map(ScalarOp::Add, &[g.shift, h.shift], span),
                        saturates: g.saturates && h.saturates,
                    }),
                    (g, h) => g.or(h),
                };
                let join = |a: &[(ScalarOp, NodeId)], b: &[(ScalarOp, NodeId)]| a.iter().chain(b).copied().collect();
                terms.push(Term {
                    coef: s.coef * t.coef,
                    free: join(&s.free, &t.free),
                    inner: join(&s.inner, &t.inner),
                    gauge,
                    bound: s.bound.iter().chain(&t.bound).copied().collect(),
                });
            }
        }
        Ok(List { terms, centred: x.centred || y.centred })
    }

    /// `x^p` of one term whose factors have no sign.
    fn power(&self, b: &mut Builder, x: List, p: f64, span: Span) -> Result<List, String> {
        let why = || Err("a power of several terms, some with results of the pass".to_string());
        let [term] = x.terms.as_slice() else { return why() };
        let signs = term.free.iter().chain(&term.inner).all(|f| is_nonnegative(b, f.1));
        if !signs || term.coef < 0.0 || !term.bound.is_empty() {
            return why();
        }
        let exponent = b.constant_of(Scalar::Real(p));
        let mut raise = |id: NodeId| if p == 0.5 { b.map(ScalarOp::Sqrt, &[id], span) } else { b.map(ScalarOp::Pow, &[id, exponent], span) };
        let mut out = Term { coef: term.coef.powf(p), ..Term::default() };
        out.free = term.free.iter().map(|f| (f.0, raise(f.1))).collect();
        out.inner = term.inner.iter().map(|f| (f.0, raise(f.1))).collect();
        out.gauge = term.gauge.map(|g| Gauge {
            x: b.map(ScalarOp::Mul, &[exponent, g.x], span),
            shift: b.map(ScalarOp::Mul, &[exponent, g.shift], span),
            saturates: g.saturates,
        });
        Ok(List { terms: vec![out], centred: x.centred })
    }

    fn absolute(&mut self, b: &mut Builder, arg: NodeId, span: Span) -> Result<List, String> {
        let mut x = self.of(b, arg)?;
        let [term] = x.terms.as_mut_slice() else { return Err("the absolute value of several terms, some with results of the pass".to_string()) };
        if !term.bound.is_empty() {
            return Err("the absolute value of a sum with results of the pass".to_string());
        }
        term.coef = term.coef.abs();
        for (_, f) in term.free.iter_mut().chain(&mut term.inner) {
            *f = b.map(ScalarOp::Abs, &[*f], span);
        }
        Ok(x)
    }

    /// `exp` of elements plus results of the pass: a gauge.
    fn exponential(&self, b: &mut Builder, list: &List, saturates: bool, span: Span) -> Result<List, String> {
        let (mut x, mut shift): (Option<NodeId>, Option<NodeId>) = (None, None);
        for term in &list.terms {
            if term.gauge.is_some() || !term.bound.is_empty() {
                return Err("an exponent that is itself a product with exponentials".to_string());
            }
            let moves = !term.inner.is_empty();
            if moves && term.free.iter().any(|f| self.waits(b, f.1)) {
                return Err("an exponent multiplies elements by a result of the pass".to_string());
            }
            // x takes what the elements give, shift the negative of the rest.
            let coef = if moves { term.coef } else { -term.coef };
            let factors: Vec<(ScalarOp, NodeId)> = term.inner.iter().chain(&term.free).copied().collect();
            let value = product(b, &factors, span);
            let (side, value) = (if moves { &mut x } else { &mut shift }, scaled(b, value, coef.abs(), span));
            *side = Some(match (*side, coef < 0.0) {
                (None, false) => value,
                (None, true) => b.map(ScalarOp::Neg, &[value], span),
                (Some(s), false) => b.map(ScalarOp::Add, &[s, value], span),
                (Some(s), true) => b.map(ScalarOp::Sub, &[s, value], span),
            });
        }
        let (Some(mut x), Some(shift)) = (x, shift) else { return Err("an exponent of results of the pass alone".to_string()) };
        if let Some(c) = self.condition {
            let least = b.constant_of(Scalar::Real(f64::NEG_INFINITY));
            x = b.map(ScalarOp::Select, &[c, x, least], span);
        }
        Ok(List { terms: vec![Term { coef: 1.0, gauge: Some(Gauge { x, shift, saturates }), ..Term::default() }], centred: false })
    }

    /// `log` of one product is the sum of the logarithms.
    fn logarithm(&self, b: &mut Builder, x: List, span: Span) -> Result<List, String> {
        let [term] = x.terms.as_slice() else { return Err("a logarithm of several terms, some with results of the pass".to_string()) };
        let unknown = term.free.iter().chain(&term.inner).filter(|f| !is_nonnegative(b, f.1)).count();
        if unknown > 1 || term.coef <= 0.0 || !term.bound.is_empty() || self.condition.is_some() {
            return Err("a logarithm of a product with results of the pass whose sign is unknown".to_string());
        }
        let mut out = List { terms: vec![], centred: true };
        if term.coef != 1.0 {
            out.terms.push(Term { coef: term.coef.ln(), ..Term::default() });
        }
        let sign = |op: ScalarOp| if op == ScalarOp::Mul { 1.0 } else { -1.0 };
        for (op, f) in &term.free {
            let log = b.map(ScalarOp::Log, &[*f], span);
            out.terms.push(Term { coef: sign(*op), free: vec![(ScalarOp::Mul, log)], ..Term::default() });
        }
        for (op, f) in &term.inner {
            let log = b.map(ScalarOp::Log, &[*f], span);
            out.terms.push(Term { coef: sign(*op), inner: vec![(ScalarOp::Mul, log)], ..Term::default() });
        }
        if let Some(g) = term.gauge {
            out.terms.push(Term { coef: 1.0, inner: vec![(ScalarOp::Mul, g.x)], ..Term::default() });
            out.terms.push(Term { coef: -1.0, free: vec![(ScalarOp::Mul, g.shift)], ..Term::default() });
        }
        Ok(out)
    }

    /// The term where a condition of elements holds, 0 elsewhere.
    fn select(&self, b: &mut Builder, term: &mut Term, cond: NodeId, span: Span) {
        let zero = b.constant_of(Scalar::Real(0.0));
        let value = if term.inner.is_empty() { b.constant_of(Scalar::Real(1.0)) } else { product(b, &term.inner, span) };
        term.inner = vec![(ScalarOp::Mul, b.map(ScalarOp::Select, &[cond, value, zero], span))];
    }
}

impl List {
    /// Terms with equal accumulators joined; fails where the accumulators cost more than a further pass.
    pub(super) fn merged(self, b: &mut Builder, context: &Terms<'_>) -> Result<Vec<Sum>, String> {
        let mut sums: Vec<Term> = Vec::new();
        for mut term in self.terms {
            term.inner.sort_by_key(|f| (f.0 != ScalarOp::Mul, f.1));
            if term.coef == 0.0 {
                continue;
            }
            match sums.iter_mut().find(|s| s.free == term.free && s.inner == term.inner && s.gauge == term.gauge && s.bound == term.bound) {
                Some(same) => same.coef += term.coef,
                None => sums.push(term),
            }
        }
        let mut kinds: Vec<&Term> = Vec::new();
        for s in &sums {
            if !kinds.iter().any(|k| k.inner == s.inner && k.gauge == s.gauge) {
                kinds.push(s);
            }
        }
        if kinds.len() > MOST_SUMS {
            return Err(format!("it would take {} accumulators", kinds.len()));
        }
        for s in &sums {
            let mut axes: AxisSet = s.inner.iter().flat_map(|f| b.graph.axes_of(f.1).iter().copied()).collect();
            axes.extend(s.gauge.iter().flat_map(|g| b.graph.axes_of(g.x).iter().copied()));
            axes.retain(|a| context.sizes.is_feature(*a) && !context.axes.contains(a));
            if context.sizes.elements(&axes) > MOST_ELEMENTS {
                return Err("its accumulators would be too large".to_string());
            }
        }
        Ok(sums.into_iter().map(Sum).collect())
    }
}

impl Term {
    fn all_axes(&self, b: &Builder) -> AxisSet {
        let mut out: AxisSet = self.free.iter().chain(&self.inner).flat_map(|f| b.graph.axes_of(f.1).iter().copied()).collect();
        if let Some(g) = self.gauge {
            out.extend(b.graph.axes_of(g.x));
            out.extend(b.graph.axes_of(g.shift));
        }
        out
    }
}

impl Sum {
    pub(super) fn whole(body: NodeId) -> Sum {
        Sum(Term { coef: 1.0, inner: vec![(ScalarOp::Mul, body)], ..Term::default() })
    }

    /// Whether taking factors out of the sum is all there is to do.
    pub(super) fn is_plain(&self) -> bool {
        let Term { coef, gauge, bound, .. } = &self.0;
        *coef == 1.0 && bound.is_empty() && gauge.is_none()
    }

    /// (value, whether to subtract it, reductions that were made).
    pub(super) fn value(self, b: &mut Builder, axes: &[AxisId], mask: Option<NodeId>, span: Span) -> Option<(NodeId, bool, Vec<NodeId>)> {
        let Term { coef, mut free, inner, gauge, bound } = self.0;
        let mut made = Vec::new();
        let mut factors = inner;
        let mut guard = None;
        if let Some(g) = gauge {
            let known = matches!(b.graph.op(g.shift), Op::Reduce { op: ReduceOp::Max, axes: a, body, mask: m } if a == axes && *body == g.x && implies(&b.graph, mask, *m));
            let top = if known { g.shift } else { b.add(Op::Reduce { op: ReduceOp::Max, axes: axes.to_vec(), body: g.x, mask }, span) };
            made.push(top);
            let weight = b.map(ScalarOp::ExpDiff, &[g.x, top], span);
            factors.insert(0, (ScalarOp::Mul, weight));
            if !(known && g.saturates) {
                // exp(x - r) = exp(x - m) exp(m - r)
                let rest = if g.saturates {
                    b.map(ScalarOp::ExpDiff, &[top, g.shift], span)
                } else {
                    let difference = b.map(ScalarOp::Sub, &[top, g.shift], span);
                    b.map(ScalarOp::Exp, &[difference], span)
                };
                free.insert(0, (ScalarOp::Mul, rest));
            }
            guard = Some(top);
        }
        let acc = if factors.is_empty() {
            match mask {
                None => {
                    let mut count = b.constant_of(Scalar::Real(1.0));
                    for a in axes {
                        let n = b.add(Op::Extent(*a), span);
                        let n = b.map(ScalarOp::ToReal, &[n], span);
                        count = b.map(ScalarOp::Mul, &[count, n], span);
                    }
                    count
                }
                Some(m) => {
                    let acc = present(b, axes, m, span);
                    made.push(acc);
                    acc
                }
            }
        } else {
            let mut body = product(b, &factors, span);
            let has = |b: &Builder, a: &AxisId| b.graph.axes_of(body).contains(a) || mask.is_some_and(|m| b.graph.axes_of(m).contains(a));
            let missing: Vec<AxisId> = axes.iter().copied().filter(|a| !has(b, a)).collect();
            if !missing.is_empty() {
                body = b.add(Op::Expand { value: body, axes: missing }, span);
            }
            let acc = b.add(Op::Reduce { op: ReduceOp::Sum, axes: axes.to_vec(), body, mask }, span);
            made.push(acc);
            acc
        };
        let wild = free.iter().any(|f| !is_tame(b, f.0, f.1));
        // Sums that were exchanged do not run over the accumulator where it lacks their axes.
        let mut bound = bound;
        if !bound.is_empty() && !bound.iter().any(|a| b.graph.axes_of(acc).contains(a)) {
            let (own, rest): (Vec<_>, Vec<_>) = free.iter().copied().partition(|f| bound.iter().any(|a| b.graph.axes_of(f.1).contains(a)));
            let body = product(b, &own, span);
            let sum = b.add(Op::Reduce { op: ReduceOp::Sum, axes: std::mem::take(&mut bound), body, mask: None }, span);
            free = rest;
            free.push((ScalarOp::Mul, sum));
        }
        let mut value = acc;
        for (op, f) in &free {
            value = b.map(*op, &[value, *f], span);
        }
        value = scaled(b, value, coef.abs(), span);
        if wild {
            // A row without elements adds nothing, whatever the factors.
            let zero = b.constant_of(Scalar::Real(0.0));
            let some = match (guard, mask) {
                (Some(top), Some(_)) => {
                    let least = b.constant_of(Scalar::Real(f64::NEG_INFINITY));
                    b.map(ScalarOp::Ne, &[top, least], span)
                }
                (None, Some(m)) => {
                    let count = present(b, axes, m, span);
                    made.push(count);
                    b.map(ScalarOp::Lt, &[zero, count], span)
                }
                (_, None) => {
                    let none = b.int(0);
                    let mut some = b.constant_of(Scalar::Bool(true));
                    for a in axes {
                        let n = b.add(Op::Extent(*a), span);
                        let there = b.map(ScalarOp::Lt, &[none, n], span);
                        some = b.map(ScalarOp::And, &[some, there], span);
                    }
                    some
                }
            };
            value = b.map(ScalarOp::Select, &[some, value, zero], span);
        }
        if !bound.is_empty() {
            value = b.add(Op::Reduce { op: ReduceOp::Sum, axes: bound, body: value, mask: None }, span);
        }
        Some((value, coef < 0.0, made))
    }
}

/// How many elements a condition lets through, as a Real.
fn present(b: &mut Builder, axes: &[AxisId], mask: NodeId, span: Span) -> NodeId {
    let one = b.constant_of(Scalar::Real(1.0));
    let missing: Vec<AxisId> = axes.iter().copied().filter(|a| !b.graph.axes_of(mask).contains(a)).collect();
    let body = if missing.is_empty() { one } else { b.add(Op::Expand { value: one, axes: missing }, span) };
    b.add(Op::Reduce { op: ReduceOp::Sum, axes: axes.to_vec(), body, mask: Some(mask) }, span)
}

/// Factors and divisors in order; starts from 1 when the first divides.
fn product(b: &mut Builder, factors: &[(ScalarOp, NodeId)], span: Span) -> NodeId {
    let mut value: Option<NodeId> = None;
    for (op, f) in factors {
        value = Some(match (value, op) {
            (None, ScalarOp::Mul) => *f,
            (None, _) => {
                let one = b.constant_of(Scalar::Real(1.0));
                b.map(*op, &[one, *f], span)
            }
            (Some(v), _) => b.map(*op, &[v, *f], span),
        });
    }
    value.unwrap_or_else(|| b.constant_of(Scalar::Real(1.0)))
}

fn scaled(b: &mut Builder, value: NodeId, by: f64, span: Span) -> NodeId {
    if by == 1.0 {
        return value;
    }
    let c = b.constant_of(Scalar::Real(by));
    b.map(ScalarOp::Mul, &[value, c], span)
}
