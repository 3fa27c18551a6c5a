//! Reductions and their prefix form.

use super::InterpError;
use super::eval::{Env, Eval, Frame, level};
use super::value::{Data, View, Walk, dense, without};
use crate::graph::{AxisId, NodeId, Op, PrefixDir};
use crate::ops::{DType, Scalar, ScalarOp};
use crate::reduce::ReduceOp;

/// Partial results over the free axes.
struct Acc {
    op: ReduceOp,
    free: Vec<(AxisId, usize)>,
    /// Combined values; for the arg rows, best values so far.
    data: Data,
    /// For the arg rows: flat positions, -1 where nothing is present.
    best: Vec<i64>,
}

/// A reduced axis that is not bound yet, with its weight in flat positions.
type Rest = Vec<(AxisId, usize, usize)>;

impl Eval<'_> {
    pub(super) fn reduce(
        &mut self,
        op: ReduceOp,
        axes: &[AxisId],
        body: NodeId,
        mask: Option<NodeId>,
        free: &[(AxisId, usize)],
        env: Env,
    ) -> Result<View, InterpError> {
        let dtype = self.graph.dtype(body);
        let arg = op.combine().is_none();
        let start = if arg { Scalar::zero(dtype) } else { op.identity(dtype) };
        let data = self.filled(start, free)?;
        let best = if arg { vec![-1; data.len()] } else { vec![] };
        let mut acc = Acc { op, free: free.to_vec(), data, best };
        let rest: Rest = dense(&self.sizes(axes)).into_iter().map(|d| (d.axis, d.extent, d.stride)).collect();
        if rest.iter().all(|r| r.1 > 0) && !acc.data.is_empty() {
            let inner = self.unbind(env, |a| axes.contains(&a));
            self.accumulate(&mut acc, &rest, (body, mask), inner, 0)?;
        }
        let data = if arg { Data::Int(acc.best) } else { acc.data };
        Ok(self.array(data, free))
    }

    /// Adds all positions of `rest` to the partial results, looping over its first axis while the space is large.
    fn accumulate(&mut self, acc: &mut Acc, rest: &Rest, terms: (NodeId, Option<NodeId>), env: Env, flat: usize) -> Result<(), InterpError> {
        let space: Vec<(AxisId, usize)> = acc.free.iter().copied().chain(rest.iter().map(|r| (r.0, r.1))).collect();
        if self.count(&space).unwrap_or(usize::MAX) > self.limit
            && let Some(k) = rest.iter().position(|r| r.1 > 1)
        {
            let mut fewer = rest.clone();
            let (axis, extent, weight) = fewer.remove(k);
            for at in 0..extent {
                let inner = self.push(env, Frame::new(Some(axis), at))?;
                self.accumulate(acc, &fewer, terms, inner, flat + at * weight)?;
                self.frames.pop();
            }
            return Ok(());
        }
        let mask = match terms.1 {
            Some(mask) => Some(self.eval(mask, env, level(env))?),
            None => None,
        };
        if let (Op::Map { op: ScalarOp::Mul, args }, ReduceOp::Sum) = (self.graph.op(terms.0), acc.op)
            && let [a, b] = args[..]
            && self.plan.users[terms.0.index()] == 1
            && self.graph.dtype(terms.0) == DType::Real
            && self.plan.open(terms.0).iter().all(|s| self.step_frame(*s, env).is_some())
        {
            // Sums of products are most of the work; their products need not exist as an array.
            let (a, b) = (self.eval(a, env, level(env))?, self.eval(b, env, level(env))?);
            return acc.contract(rest, &a, &b, mask.as_ref());
        }
        let body = self.eval(terms.0, env, level(env))?;
        acc.add(rest, &body, mask.as_ref(), flat)
    }

    pub(super) fn prefix(
        &mut self,
        op: ReduceOp,
        axis: AxisId,
        dir: PrefixDir,
        terms: (NodeId, Option<NodeId>),
        free: &[(AxisId, usize)],
        env: Env,
    ) -> Result<View, InterpError> {
        let dtype = self.graph.dtype(terms.0);
        let body = self.eval(terms.0, env, level(env))?;
        let mask = match terms.1 {
            Some(mask) => Some(self.eval(mask, env, level(env))?),
            None => None,
        };
        let arg = op.combine().is_none();
        let result = if arg { DType::Int } else { dtype };
        let mut data = self.zeros(result, free)?;
        let (dims, stride) = without(dense(free), axis);
        let yes = self.constant(Scalar::Bool(true));
        let mask = mask.unwrap_or(yes);
        let Data::Bool(m) = mask.data() else { return Err(InterpError::Broken("a mask is not a bool".into())) };
        let strides = |axis| [body.stride(axis), mask.stride(axis)];
        let line = Line { op, dir, n: self.binding.extent(axis), out: stride, body: strides(axis)[0], mask: strides(axis)[1] };
        let walk = Walk::from_strides(dims.iter().map(|d| (d.extent, [d.stride, strides(d.axis)[0], strides(d.axis)[1]])), [0, body.offset, mask.offset]);
        let (len, [s, t, u]) = (walk.len, walk.inner);
        let mut bad = false;
        if data.is_empty() {
            return Ok(self.array(data, free));
        }
        walk.rows(|[o, p, q]| {
            for k in 0..len {
                let at = (o + k * s, p + k * t, q + k * u);
                match (&mut data, body.data()) {
                    (Data::Int(out), Data::Real(x)) if arg => line.arg(out, x, m, at, |a, b| better_real(op, a, b)),
                    (Data::Int(out), Data::Int(x)) if arg => line.arg(out, x, m, at, |a, b| better_int(op, a, b)),
                    (Data::Real(out), Data::Real(x)) => line.run(out, x, m, at, real(op.identity(dtype)), |a, b| combine_real(op, a, b)),
                    (Data::Int(out), Data::Int(x)) => line.run(out, x, m, at, int(op.identity(dtype)), |a, b| combine_int(op, a, b)),
                    (Data::Bool(out), Data::Bool(x)) => line.run(out, x, m, at, op == ReduceOp::All, |a, b| combine_bool(op, a, b)),
                    (Data::Complex(out), Data::Complex(x)) => {
                        let start = if op == ReduceOp::Prod { (1.0, 0.0) } else { (0.0, 0.0) };
                        line.run(out, x, m, at, start, |a, b| combine_complex(op, a, b));
                    }
                    _ => bad = true,
                }
            }
        });
        if bad { Err(InterpError::Broken(format!("`{}` does not take {}", op.name(), dtype.name()))) } else { Ok(self.array(data, free)) }
    }
}

impl Eval<'_> {
    /// A unit triangular system, by substitution.
    pub(super) fn solve(&mut self, axes: (AxisId, AxisId), terms: (NodeId, NodeId), reverse: bool, free: &[(AxisId, usize)], env: Env) -> Result<View, InterpError> {
        let (rows, cols) = axes;
        let open = self.unbind(env, |a| a == rows || a == cols);
        let matrix = self.eval(terms.0, open, usize::MAX)?;
        let rhs = self.eval(terms.1, open, usize::MAX)?;
        let (Data::Real(m), Data::Real(r)) = (matrix.data(), rhs.data()) else { return Err(InterpError::Broken("a system is not real".into())) };
        let Data::Real(mut out) = self.zeros(DType::Real, free)? else { return Err(InterpError::Broken("zeros are not real".into())) };
        let (dims, stride) = without(dense(free), cols);
        let n = self.binding.extent(cols);
        let (m_row, m_col, r_row) = (matrix.stride(rows), matrix.stride(cols), rhs.stride(rows));
        let walk = Walk::from_strides(dims.iter().map(|d| (d.extent, [d.stride, matrix.stride(d.axis), rhs.stride(d.axis)])), [0, matrix.offset, rhs.offset]);
        let (len, [s, t, u]) = (walk.len, walk.inner);
        if out.is_empty() {
            return Ok(self.array(Data::Real(out), free));
        }
        walk.rows(|[o, p, q]| {
            for k in 0..len {
                let (o, p, q) = (o + k * s, p + k * t, q + k * u);
                let at = |i: usize| if reverse { n - 1 - i } else { i };
                for i in 0..n {
                    let row = at(i);
                    let mut sum = r[q + row * r_row];
                    for c in (0..i).map(at) {
                        sum += m[p + row * m_row + c * m_col] * out[o + c * stride];
                    }
                    out[o + row * stride] = sum;
                }
            }
        });
        Ok(self.array(Data::Real(out), free))
    }
}

fn real(s: Scalar) -> f64 {
    if let Scalar::Real(v) = s { v } else { 0.0 }
}

fn int(s: Scalar) -> i64 {
    if let Scalar::Int(v) = s { v } else { 0 }
}

fn combine_real(op: ReduceOp, a: f64, b: f64) -> f64 {
    match op {
        ReduceOp::Sum => a + b,
        ReduceOp::Prod => a * b,
        ReduceOp::Max => if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) },
        ReduceOp::Min => if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) },
        ReduceOp::Any | ReduceOp::All | ReduceOp::ArgMax | ReduceOp::ArgMin => a,
    }
}

fn combine_int(op: ReduceOp, a: i64, b: i64) -> i64 {
    match op {
        ReduceOp::Sum => a.wrapping_add(b),
        ReduceOp::Prod => a.wrapping_mul(b),
        ReduceOp::Max => a.max(b),
        ReduceOp::Min => a.min(b),
        ReduceOp::Any | ReduceOp::All | ReduceOp::ArgMax | ReduceOp::ArgMin => a,
    }
}

fn combine_bool(op: ReduceOp, a: bool, b: bool) -> bool {
    if op == ReduceOp::All { a && b } else { a || b }
}

fn combine_complex(op: ReduceOp, a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    if op == ReduceOp::Prod { (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0) } else { (a.0 + b.0, a.1 + b.1) }
}

/// Whether `a` is strictly preferred over `b`; any number is preferred over NaN.
fn better_real(op: ReduceOp, a: f64, b: f64) -> bool {
    (b.is_nan() && !a.is_nan()) || if op == ReduceOp::ArgMax { a > b } else { a < b }
}

fn better_int(op: ReduceOp, a: i64, b: i64) -> bool {
    if op == ReduceOp::ArgMax { a > b } else { a < b }
}

impl Acc {
    /// Adds the products of two real views where the mask holds.
    fn contract(&mut self, rest: &Rest, a: &View, b: &View, mask: Option<&View>) -> Result<(), InterpError> {
        let (Data::Real(acc), Data::Real(x), Data::Real(y)) = (&mut self.data, a.data(), b.data()) else {
            return Err(InterpError::Broken("a sum of products is not real".into()));
        };
        let m = mask_of(mask)?;
        let mask_stride = |axis: AxisId| mask.map_or(0, |v| v.stride(axis));
        let own = dense(&self.free);
        let mut loops: Vec<(AxisId, usize, usize)> = own.iter().map(|d| (d.axis, d.extent, d.stride)).collect();
        loops.extend(rest.iter().map(|(axis, extent, _)| (*axis, *extent, 0)));
        loops.sort_by_key(|l| l.0);
        // The innermost loop should be long, walk memory in order, and stay on one element of the mask.
        let merit = |l: &(AxisId, usize, usize)| {
            let unit = usize::from(l.2 <= 1) + usize::from(a.stride(l.0) <= 1) + usize::from(b.stride(l.0) <= 1);
            (unit + 2 * usize::from(mask_stride(l.0) == 0), l.1)
        };
        if let Some(k) = (0..loops.len()).filter(|k| loops[*k].1 > 1).max_by_key(|k| merit(&loops[*k])) {
            let last = loops.remove(k);
            loops.push(last);
        }
        let rows = loops.iter().map(|l| (l.1, [l.2, a.stride(l.0), b.stride(l.0), mask_stride(l.0)]));
        let walk = Walk::from_strides(rows, [0, a.offset, b.offset, mask.map_or(0, |v| v.offset)]);
        let (len, [s, t, u, w]) = (walk.len, walk.inner);
        walk.rows(|[o, p, q, g]| match (m, s, t, u) {
            (Some(m), ..) if w != 0 => {
                (0..len).filter(|k| m[g + k * w]).for_each(|k| acc[o + k * s] += x[p + k * t] * y[q + k * u]);
            }
            (Some(m), ..) if !m[g] => {}
            (_, 0, 1, 1) => acc[o] += dot(&x[p..p + len], &y[q..q + len]),
            (_, 1, 1, 0) => acc[o..o + len].iter_mut().zip(&x[p..p + len]).for_each(|(r, a)| *r += a * y[q]),
            (_, 1, 0, 1) => acc[o..o + len].iter_mut().zip(&y[q..q + len]).for_each(|(r, b)| *r += x[p] * b),
            _ => (0..len).for_each(|k| acc[o + k * s] += x[p + k * t] * y[q + k * u]),
        });
        Ok(())
    }

    fn add(&mut self, rest: &Rest, body: &View, mask: Option<&View>, flat: usize) -> Result<(), InterpError> {
        // In order of axes, so that dense bodies are walked as they lie.
        let own = dense(&self.free);
        let mut loops: Vec<(AxisId, usize, usize, usize)> = own.iter().map(|d| (d.axis, d.extent, d.stride, 0)).collect();
        loops.extend(rest.iter().map(|(axis, extent, weight)| (*axis, *extent, 0, *weight)));
        loops.sort_by_key(|l| l.0);
        let m = mask_of(mask)?;
        let mask_stride = |a: AxisId| mask.map_or(0, |v| v.stride(a));
        let start = [0, body.offset, mask.map_or(0, |v| v.offset), flat];
        let walk = Walk::from_strides(loops.iter().map(|l| (l.1, [l.2, body.stride(l.0), mask_stride(l.0), l.3])), start);
        let op = self.op;
        match (&mut self.data, body.data()) {
            (Data::Real(acc), Data::Real(x)) if op.combine().is_none() => arg(acc, &mut self.best, x, m, &walk, |a, b| better_real(op, a, b)),
            (Data::Int(acc), Data::Int(x)) if op.combine().is_none() => arg(acc, &mut self.best, x, m, &walk, |a, b| better_int(op, a, b)),
            (Data::Real(acc), Data::Real(x)) => match op {
                ReduceOp::Sum => fold(acc, x, m, &walk, |a, b| a + b),
                ReduceOp::Prod | ReduceOp::Max | ReduceOp::Min | ReduceOp::Any | ReduceOp::All | ReduceOp::ArgMax | ReduceOp::ArgMin => {
                    fold(acc, x, m, &walk, |a, b| combine_real(op, a, b));
                }
            },
            (Data::Int(acc), Data::Int(x)) => fold(acc, x, m, &walk, |a, b| combine_int(op, a, b)),
            (Data::Bool(acc), Data::Bool(x)) => fold(acc, x, m, &walk, |a, b| combine_bool(op, a, b)),
            (Data::Complex(acc), Data::Complex(x)) => fold(acc, x, m, &walk, |a, b| combine_complex(op, a, b)),
            _ => return Err(InterpError::Broken(format!("`{}` does not take its body", op.name()))),
        }
        Ok(())
    }
}

fn mask_of(mask: Option<&View>) -> Result<Option<&[bool]>, InterpError> {
    match mask.map(View::data) {
        None => Ok(None),
        Some(Data::Bool(m)) => Ok(Some(m.as_slice())),
        Some(_) => Err(InterpError::Broken("a mask is not a bool".into())),
    }
}

/// Sum of products in eight lanes.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let (head, tail) = (x.chunks_exact(8), x.chunks_exact(8).remainder());
    let rest: f64 = tail.iter().zip(&y[x.len() - tail.len()..]).map(|(a, b)| a * b).sum();
    let mut lanes = [0.0f64; 8];
    for (a, b) in head.zip(y.chunks_exact(8)) {
        (0..8).for_each(|k| lanes[k] += a[k] * b[k]);
    }
    lanes.iter().sum::<f64>() + rest
}

fn fold<T: Copy>(acc: &mut [T], x: &[T], mask: Option<&[bool]>, walk: &Walk<4>, f: impl Fn(T, T) -> T) {
    let (len, [s, t, u, _]) = (walk.len, walk.inner);
    walk.rows(|[o, p, q, _]| match (mask, s, t) {
        (None, 0, 1) => acc[o] = x[p..p + len].iter().fold(acc[o], |a, b| f(a, *b)),
        (None, 1, 1) => acc[o..o + len].iter_mut().zip(&x[p..p + len]).for_each(|(a, b)| *a = f(*a, *b)),
        (None, ..) => (0..len).for_each(|k| acc[o + k * s] = f(acc[o + k * s], x[p + k * t])),
        (Some(m), ..) => (0..len).filter(|k| m[q + k * u]).for_each(|k| acc[o + k * s] = f(acc[o + k * s], x[p + k * t])),
    });
}

fn arg<T: Copy>(acc: &mut [T], best: &mut [i64], x: &[T], mask: Option<&[bool]>, walk: &Walk<4>, better: impl Fn(T, T) -> bool) {
    let (len, [s, t, u, w]) = (walk.len, walk.inner);
    walk.rows(|[o, p, q, flat]| {
        for k in (0..len).filter(|k| mask.is_none_or(|m| m[q + k * u])) {
            let (slot, value, position) = (o + k * s, x[p + k * t], (flat + k * w) as i64);
            let first = best[slot] < 0;
            // Equal values (and NaN against NaN) go to the lower position, in whatever order they are met.
            let tie = !first && !better(value, acc[slot]) && !better(acc[slot], value) && position < best[slot];
            if first || tie || better(value, acc[slot]) {
                acc[slot] = value;
                best[slot] = position;
            }
        }
    });
}

/// One line of a prefix reduction: strides along the axis.
struct Line {
    op: ReduceOp,
    dir: PrefixDir,
    n: usize,
    out: usize,
    body: usize,
    mask: usize,
}

impl Line {
    /// Positions in the order in which they are taken in, and whether a position sees itself.
    fn order(&self) -> (impl Iterator<Item = usize> + use<>, bool) {
        let (n, back) = (self.n, matches!(self.dir, PrefixDir::Ge | PrefixDir::Gt));
        ((0..n).map(move |i| if back { n - 1 - i } else { i }), matches!(self.dir, PrefixDir::Le | PrefixDir::Ge))
    }

    fn run<T: Copy>(&self, out: &mut [T], x: &[T], mask: &[bool], at: (usize, usize, usize), start: T, f: impl Fn(T, T) -> T) {
        let mut sum = start;
        let (order, itself) = self.order();
        for i in order {
            let before = sum;
            if mask[at.2 + i * self.mask] {
                sum = f(sum, x[at.1 + i * self.body]);
            }
            out[at.0 + i * self.out] = if itself { sum } else { before };
        }
    }

    fn arg<T: Copy>(&self, out: &mut [i64], x: &[T], mask: &[bool], at: (usize, usize, usize), better: impl Fn(T, T) -> bool) {
        let mut best: Option<(T, usize)> = None;
        let (order, itself) = self.order();
        let position = |b: &Option<(T, usize)>| b.as_ref().map_or(-1, |b| b.1 as i64);
        debug_assert!(self.op.combine().is_none());
        for i in order {
            let before = position(&best);
            if mask[at.2 + i * self.mask] {
                let value = x[at.1 + i * self.body];
                let take = best.as_ref().is_none_or(|(b, p)| better(value, *b) || (!better(*b, value) && i < *p));
                if take {
                    best = Some((value, i));
                }
            }
            out[at.0 + i * self.out] = if itself { position(&best) } else { before };
        }
    }
}
