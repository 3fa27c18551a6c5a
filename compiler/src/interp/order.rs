//! Order and selection: ranks, their inverse, the largest few, members of a set.

use super::InterpError;
use super::eval::{Env, Eval, copy_into, level};
use super::value::{Data, View, Walk, dense};
use crate::graph::{AxisId, NodeId};
use crate::ops::{DType, Scalar};
use std::cmp::Ordering;

/// Direction of an order.
#[derive(Clone, Copy, PartialEq)]
enum Sort {
    /// Ascending, NaN after numbers.
    Up,
    /// Descending, NaN after numbers.
    Down,
}

fn compare(a: f64, b: f64, sort: Sort) -> Ordering {
    let numbers = |a: f64, b: f64| a.partial_cmp(&b).unwrap_or(Ordering::Equal);
    a.is_nan().cmp(&b.is_nan()).then(if sort == Sort::Up { numbers(a, b) } else { numbers(b, a) })
}

/// Lines along flat positions: each has keys and presence.
struct Lines {
    /// Free axes without the ordered ones.
    outer: Vec<(AxisId, usize)>,
    /// Positions on a line.
    n: usize,
    key: View,
    mask: View,
    key_at: Vec<usize>,
    mask_at: Vec<usize>,
}

impl Lines {
    /// Calls `f` with the number of each line, its positions in order, and the number of present ones.
    fn each(&self, sort: Sort, mut f: impl FnMut(usize, &[usize], usize)) -> Result<(), InterpError> {
        let Data::Bool(mask) = self.mask.data() else { return Err(InterpError::Broken("a mask is not a bool".into())) };
        let walk = Walk::new(&self.outer, [&self.key, &self.mask]);
        let (len, [s, t]) = (walk.len, walk.inner);
        let mut line = 0;
        let (mut present, mut absent) = (Vec::new(), Vec::new());
        walk.rows(|[o, p]| {
            for k in 0..len {
                let (key, there) = (o + k * s, p + k * t);
                present.clear();
                absent.clear();
                for i in 0..self.n {
                    if mask[there + self.mask_at[i]] { present.push(i) } else { absent.push(i) }
                }
                let count = present.len();
                match self.key.data() {
                    Data::Real(x) => present.sort_by(|a, b| compare(x[key + self.key_at[*a]], x[key + self.key_at[*b]], sort)),
                    Data::Int(x) => present.sort_by(|a, b| {
                        let order = x[key + self.key_at[*a]].cmp(&x[key + self.key_at[*b]]);
                        if sort == Sort::Up { order } else { order.reverse() }
                    }),
                    Data::Bool(x) => present.sort_by(|a, b| {
                        let order = x[key + self.key_at[*a]].cmp(&x[key + self.key_at[*b]]);
                        if sort == Sort::Up { order } else { order.reverse() }
                    }),
                    // Complex numbers have no order: index order is kept.
                    Data::Complex(_) => {}
                }
                present.extend_from_slice(&absent);
                f(line, &present, count);
                line += 1;
            }
        });
        Ok(())
    }
}

/// Offsets of flat positions over axes (the last one fastest) in a view.
fn offsets(view: &View, axes: &[(AxisId, usize)], n: usize) -> Vec<usize> {
    let mut at = Vec::with_capacity(n);
    let walk = Walk::from_strides(axes.iter().map(|(a, e)| (*e, [view.stride(*a)])), [0]);
    let (len, [s]) = (walk.len, walk.inner);
    walk.rows(|[o]| at.extend((0..len).map(|k| o + k * s)));
    at
}

impl Eval<'_> {
    fn lines(&mut self, axes: &[AxisId], key: NodeId, mask: Option<NodeId>, free: &[(AxisId, usize)], env: Env) -> Result<Lines, InterpError> {
        let inner = self.unbind(env, |a| axes.contains(&a));
        let key = self.eval(key, inner, level(env))?;
        let mask = match mask {
            Some(mask) => self.eval(mask, inner, level(env))?,
            None => self.constant(Scalar::Bool(true)),
        };
        let sizes = self.sizes(axes);
        let n = self.count(&sizes)?;
        self.meter.check(n.saturating_mul(4), DType::Int)?;
        let outer = free.iter().copied().filter(|(a, _)| !axes.contains(a)).collect();
        let (key_at, mask_at) = (offsets(&key, &sizes, n), offsets(&mask, &sizes, n));
        Ok(Lines { outer, n, key, mask, key_at, mask_at })
    }

    /// Ranks over the outer axes of the lines and the ordered axes.
    fn ranks(&mut self, axes: &[AxisId], lines: &Lines, sort: Sort) -> Result<View, InterpError> {
        let mut sizes = lines.outer.clone();
        sizes.extend(self.sizes(axes));
        let Data::Int(mut out) = self.zeros(DType::Int, &sizes)? else { return Err(InterpError::Broken("ranks are ints".into())) };
        lines.each(sort, |line, order, _| order.iter().enumerate().for_each(|(rank, i)| out[line * lines.n + i] = rank as i64))?;
        let mut view = self.array(Data::Int(out), &sizes);
        view.dims.sort_by_key(|d| d.axis);
        Ok(view)
    }

    pub(super) fn rank(&mut self, axes: &[AxisId], key: NodeId, mask: Option<NodeId>, free: &[(AxisId, usize)], env: Env) -> Result<View, InterpError> {
        let lines = self.lines(axes, key, mask, free, env)?;
        self.ranks(axes, &lines, Sort::Up)
    }

    pub(super) fn topk(
        &mut self,
        axes: &[AxisId],
        (key, mask): (NodeId, Option<NodeId>),
        count: NodeId,
        free: &[(AxisId, usize)],
        env: Env,
    ) -> Result<View, InterpError> {
        let lines = self.lines(axes, key, mask, free, env)?;
        let rank = self.ranks(axes, &lines, Sort::Down)?;
        let count = self.eval(count, env, level(env))?;
        let (Data::Int(r), Data::Int(c), Data::Bool(m)) = (rank.data(), count.data(), lines.mask.data()) else {
            return Err(InterpError::Broken("a count is not an int".into()));
        };
        let walk = Walk::new(free, [&rank, &count, &lines.mask]);
        let (len, [s, t, u]) = (walk.len, walk.inner);
        let mut out = Vec::with_capacity(self.count(free)?);
        walk.rows(|[o, p, q]| out.extend((0..len).map(|k| m[q + k * u] && r[o + k * s] < c[p + k * t])));
        Ok(self.array(Data::Bool(out), free))
    }

    pub(super) fn argsort(
        &mut self,
        axes: &[AxisId],
        to: AxisId,
        (key, mask): (NodeId, Option<NodeId>),
        free: &[(AxisId, usize)],
        env: Env,
    ) -> Result<View, InterpError> {
        let rest: Vec<(AxisId, usize)> = free.iter().copied().filter(|f| f.0 != to).collect();
        let lines = self.lines(axes, key, mask, &rest, env)?;
        self.slots(&lines, to, free, |_| lines.n)
    }

    pub(super) fn list(&mut self, axes: &[AxisId], to: AxisId, set: NodeId, free: &[(AxisId, usize)], env: Env) -> Result<View, InterpError> {
        let rest: Vec<(AxisId, usize)> = free.iter().copied().filter(|f| f.0 != to).collect();
        let mut lines = self.lines(axes, set, Some(set), &rest, env)?;
        // All keys are equal, so that the stable order is that of the indices.
        lines.key = self.constant(Scalar::Int(0));
        lines.key_at.fill(0);
        self.slots(&lines, to, free, |present| present)
    }

    /// The first positions of each line in the slots of `to`; `valid` says how many of them count, given the number present.
    fn slots(&mut self, lines: &Lines, to: AxisId, free: &[(AxisId, usize)], valid: impl Fn(usize) -> usize) -> Result<View, InterpError> {
        let slots = self.binding.extent(to);
        let mut sizes = lines.outer.clone();
        sizes.push((to, slots));
        let Data::Int(mut out) = self.zeros(DType::Int, &sizes)? else { return Err(InterpError::Broken("slots are ints".into())) };
        lines.each(Sort::Up, |line, order, present| {
            for (slot, i) in order.iter().take(valid(present).min(slots)).enumerate() {
                out[line * slots + slot] = *i as i64;
            }
        })?;
        let mut view = self.array(Data::Int(out), &sizes);
        view.dims.sort_by_key(|d| d.axis);
        let mut data = self.zeros(DType::Int, free)?;
        copy_into(&mut data, &dense(free), 0, &view)?;
        Ok(self.array(data, free))
    }
}
