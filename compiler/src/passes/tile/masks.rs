//! Tile classes: what a condition over positions says about a whole block, and which part of a loop can be skipped.
//!
//! Intervals of Int values over the positions of a block are computed as uniform expressions of the block's bounds; a comparison of
//! disjoint intervals is decided for the whole block. Values captured from memory (document numbers, lengths) get the minimum and
//! maximum over their block, read at run time. Comparisons that can be solved for the loop's axis become loop bounds.
//! Sound by construction: every step over-approximates the set of values; undecided blocks test their elements.
//! Source: interval arithmetic as in docs/derivations.md, section 3.

use super::Writer;
use crate::graph::{AxisId, NodeId, Op};
use crate::ops::{DType, ScalarOp};
use crate::passes::error::CompileError;
use crate::reduce::ReduceOp;
use crate::tiles::*;

/// What is known of the blocks of a loop.
pub(crate) struct Class {
    pub lo: Option<ExprId>,
    pub hi: Option<ExprId>,
    pub empty: Option<ExprId>,
    pub full: Option<ExprId>,
    pub head: Vec<Stmt>,
}

type Interval = (ExprId, ExprId);

/// (true everywhere in the block, false everywhere in the block), uniform.
pub(super) type Verdict = (ExprId, ExprId);

impl Writer<'_> {
    /// Classifies the blocks of the loop over `dim` (whose scope is open): empty where no condition holds anywhere, full where all hold
    /// everywhere.
    pub(crate) fn classify(&mut self, conds: &[NodeId], dim: DimId) -> Result<Class, CompileError> {
        let axis = self.k.dim(dim).axis;
        let mut bounds: Option<(Option<ExprId>, Option<ExprId>)> = None;
        for cond in conds {
            let mut own = (None, None);
            self.solve(*cond, axis, &mut own)?;
            bounds = Some(match bounds {
                None => own,
                Some(old) => {
                    let mut join = |op, a: Option<ExprId>, b: Option<ExprId>| a.zip(b).map(|(a, b)| if a == b { a } else { self.k.op(op, &[a, b]) });
                    (join(ScalarOp::Min, old.0, own.0), join(ScalarOp::Max, old.1, own.1))
                }
            });
        }
        let bounds = bounds.unwrap_or((None, None));
        // Bounds must not vary with the loop itself or sit in its scope.
        let head_start = self.scopes.last().map_or(0, |s| s.stmts.len());
        let mut decided: Option<(ExprId, ExprId)> = None;
        for cond in conds {
            let own = self.decide(*cond)?;
            decided = Some(match decided {
                None => own,
                Some(old) => (self.k.op(ScalarOp::And, &[old.0, own.0]), self.k.op(ScalarOp::And, &[old.1, own.1])),
            });
        }
        let (yes, no) = decided.unwrap_or((self.truth(false), self.truth(false)));
        let head = match self.scopes.last_mut() {
            Some(scope) => scope.stmts.split_off(head_start),
            None => vec![],
        };
        let falsehood = |w: &Self, e: ExprId| matches!(w.k.expr(e), Expr::Const(crate::ops::Scalar::Bool(false)));
        let full = (!falsehood(self, yes)).then_some(yes);
        let empty = (!falsehood(self, no)).then_some(no);
        Ok(Class { lo: bounds.0, hi: bounds.1, empty, full, head })
    }

    pub(super) fn truth(&mut self, value: bool) -> ExprId {
        self.k.add(Expr::Const(crate::ops::Scalar::Bool(value)))
    }

    fn decide(&mut self, id: NodeId) -> Result<Verdict, CompileError> {
        if self.graph.axes_of(id).is_empty() && super::host(self.graph, id).is_some() {
            let expr = self.expr(id)?;
            let not = self.k.op(ScalarOp::Not, &[expr]);
            return Ok((expr, not));
        }
        let Op::Map { op, args } = self.graph.op(id).clone() else {
            return self.decide_by_reading(id);
        };
        if matches!(op, ScalarOp::And | ScalarOp::Lt | ScalarOp::Le | ScalarOp::Eq) {
            let mut conjuncts = Vec::new();
            self.conjuncts(id, &mut conjuncts);
            let (mut all, rest) = self.decide_forms(conjuncts)?;
            for other in rest {
                let own = if other == id { self.decide_one(op, &args)? } else { self.decide(other)? };
                all = (self.k.op(ScalarOp::And, &[all.0, own.0]), self.k.op(ScalarOp::Or, &[all.1, own.1]));
            }
            return Ok(all);
        }
        self.decide_one(op, &args)
    }

    fn conjuncts(&self, id: NodeId, out: &mut Vec<NodeId>) {
        match self.graph.op(id) {
            Op::Map { op: ScalarOp::And, args } => args.iter().for_each(|a| self.conjuncts(*a, out)),
            _ if out.contains(&id) => {}
            _ => out.push(id),
        }
    }

    fn decide_one(&mut self, op: ScalarOp, args: &[NodeId]) -> Result<Verdict, CompileError> {
        let unknown = (self.truth(false), self.truth(false));
        Ok(match op {
            ScalarOp::And | ScalarOp::Or => {
                let (a, b) = (self.decide(args[0])?, self.decide(args[1])?);
                let dual = if op == ScalarOp::And { ScalarOp::Or } else { ScalarOp::And };
                (self.k.op(op, &[a.0, b.0]), self.k.op(dual, &[a.1, b.1]))
            }
            ScalarOp::Not => {
                let (yes, no) = self.decide(args[0])?;
                (no, yes)
            }
            ScalarOp::Select => {
                let (c, a, b) = (self.decide(args[0])?, self.decide(args[1])?, self.decide(args[2])?);
                let mut pick = |x: ExprId, y: ExprId| {
                    let first = self.k.op(ScalarOp::And, &[c.0, x]);
                    let second = self.k.op(ScalarOp::And, &[c.1, y]);
                    let both = self.k.op(ScalarOp::And, &[x, y]);
                    let either = self.k.op(ScalarOp::Or, &[first, second]);
                    self.k.op(ScalarOp::Or, &[either, both])
                };
                (pick(a.0, b.0), pick(a.1, b.1))
            }
            ScalarOp::Lt | ScalarOp::Le | ScalarOp::Eq | ScalarOp::Ne if self.graph.dtype(args[0]) == DType::Int => {
                // Compare the difference when both sides vary with the same positions: t - s < w has one interval, t < s + w another.
                let (Some(a), Some(b)) = (self.interval(args[0])?, self.interval(args[1])?) else { return Ok(unknown) };
                match op {
                    ScalarOp::Lt => (self.k.op(ScalarOp::Lt, &[a.1, b.0]), self.k.op(ScalarOp::Le, &[b.1, a.0])),
                    ScalarOp::Le => (self.k.op(ScalarOp::Le, &[a.1, b.0]), self.k.op(ScalarOp::Lt, &[b.1, a.0])),
                    _ => {
                        let point_a = self.k.op(ScalarOp::Eq, &[a.0, a.1]);
                        let point_b = self.k.op(ScalarOp::Eq, &[b.0, b.1]);
                        let same = self.k.op(ScalarOp::Eq, &[a.0, b.0]);
                        let points = self.k.op(ScalarOp::And, &[point_a, point_b]);
                        let yes = self.k.op(ScalarOp::And, &[points, same]);
                        let below = self.k.op(ScalarOp::Lt, &[a.1, b.0]);
                        let above = self.k.op(ScalarOp::Lt, &[b.1, a.0]);
                        let no = self.k.op(ScalarOp::Or, &[below, above]);
                        if op == ScalarOp::Eq { (yes, no) } else { (no, yes) }
                    }
                }
            }
            ScalarOp::Eq | ScalarOp::Ne if self.graph.dtype(args[0]) == DType::Bool => {
                let (a, b) = (self.decide(args[0])?, self.decide(args[1])?);
                let both = self.k.op(ScalarOp::And, &[a.0, b.0]);
                let none = self.k.op(ScalarOp::And, &[a.1, b.1]);
                let same = self.k.op(ScalarOp::Or, &[both, none]);
                let one = self.k.op(ScalarOp::And, &[a.0, b.1]);
                let other = self.k.op(ScalarOp::And, &[a.1, b.0]);
                let differ = self.k.op(ScalarOp::Or, &[one, other]);
                if op == ScalarOp::Eq { (same, differ) } else { (differ, same) }
            }
            _ => unknown,
        })
    }

    /// A Bool from memory that varies along at most one wide dimension: looked at, element by element.
    fn decide_by_reading(&mut self, id: NodeId) -> Result<(ExprId, ExprId), CompileError> {
        if let Some(verdict) = self.decide_set(id)? {
            return Ok(verdict);
        }
        if !self.is_readable(id) || self.graph.dtype(id) != DType::Bool {
            return Ok((self.truth(false), self.truth(false)));
        }
        let all = self.extreme(id, ReduceOp::All)?;
        let any = self.extreme(id, ReduceOp::Any)?;
        let none = self.k.op(ScalarOp::Not, &[any]);
        Ok((all, none))
    }

    /// A Bool from memory whose position along one axis is a function of the loop's (`kept[c = s div n]`): when that takes at most two
    /// values in the block, these are looked at for all rows.
    fn decide_set(&mut self, id: NodeId) -> Result<Option<Verdict>, CompileError> {
        let graph = self.graph;
        let Op::Read { value, subs } = graph.op(id).clone() else { return Ok(None) };
        let Some(inner) = self.scopes.last().and_then(|s| s.env.keys().next().copied()) else { return Ok(None) };
        let home = match graph.op(value) {
            Op::Input(input) => self.inputs.get(input).cloned(),
            _ if self.lookup(value).is_none() && !self.is_mine(value) => self.homes.get(&value).cloned(),
            _ => None,
        };
        let Some(home) = home else { return Ok(None) };
        let wide = |w: &Self, id: NodeId| -> Vec<AxisId> {
            graph.axes_of(id).iter().copied().filter(|a| w.env(*a).is_none_or(|d| w.k.dim(d).kind.capacity() > 1)).collect()
        };
        let along: Vec<&(AxisId, NodeId)> = subs.iter().filter(|s| graph.axes_of(s.1).contains(&inner)).collect();
        let [(axis, index)] = along.as_slice() else { return Ok(None) };
        // Only the loop moves this index, and nothing else moves with the loop.
        let (axis, index) = (*axis, *index);
        let kept = graph.axes_of(value).iter().any(|a| *a == inner && !subs.iter().any(|s| s.0 == *a));
        let rows = wide(self, id).len().saturating_sub(1);
        if graph.dtype(id) != DType::Bool || kept || rows > 1 || wide(self, index) != [inner] || subs.iter().any(|s| self.mentions_reduction(s.1)) {
            return Ok(None);
        }
        let Some((first, last)) = self.interval(index)? else { return Ok(None) };
        let one = self.k.int(1);
        let apart = self.k.op(ScalarOp::Sub, &[last, first]);
        let near = self.k.op(ScalarOp::Le, &[apart, one]);
        let (mut all, mut any) = (near, self.truth(false));
        for at in [first, last] {
            let mut place = Vec::new();
            let mut guard = Vec::new();
            for a in &home.axes {
                match subs.iter().find(|s| s.0 == *a) {
                    Some(_) if *a == axis => {
                        place.push(at);
                        guard.push(true);
                    }
                    Some(s) => {
                        place.push(self.expr(s.1)?);
                        guard.push(true);
                    }
                    None => {
                        let dim = self.dim_of(*a)?;
                        place.push(self.k.add(Expr::Pos(dim)));
                        guard.push(false);
                    }
                }
            }
            let load = self.k.add(Expr::Load { buffer: home.buffer, index: place, guard });
            let over = self.sorted(self.k.dims_of(load));
            for (op, total) in [(ReduceOp::All, &mut all), (ReduceOp::Any, &mut any)] {
                let result = if over.is_empty() {
                    load
                } else {
                    let out = self.k.add_tile(format!("{}_{}", op.name(), id.index()), vec![], DType::Bool);
                    self.push(Stmt::Reduce { out, op, over: over.clone(), expr: load, carried: None });
                    self.k.add(Expr::Tile(out))
                };
                *total = self.k.op(if op == ReduceOp::All { ScalarOp::And } else { ScalarOp::Or }, &[*total, result]);
            }
            if first == last {
                break;
            }
        }
        let none = self.k.op(ScalarOp::Not, &[any]);
        Ok(Some((all, self.k.op(ScalarOp::And, &[near, none]))))
    }

    /// Whether a value is made of loads and arithmetic along at most one wide dimension.
    fn is_readable(&mut self, id: NodeId) -> bool {
        let wide = self.graph.axes_of(id).iter().filter(|a| self.env(**a).is_none_or(|d| self.k.dim(d).kind.capacity() > 1)).count();
        wide <= 1 && !self.mentions_reduction(id)
    }

    fn mentions_reduction(&self, id: NodeId) -> bool {
        if self.lookup(id).is_some() || (self.homes.contains_key(&id) && !self.is_mine(id)) {
            return false;
        }
        match self.graph.op(id) {
            Op::Input(_) | Op::Const(_) | Op::Index(_) | Op::Extent(_) => false,
            Op::Map { args, .. } => args.iter().any(|a| self.mentions_reduction(*a)),
            Op::Read { value, subs } => self.mentions_reduction(*value) || subs.iter().any(|s| self.mentions_reduction(s.1)),
            _ => true,
        }
    }

    /// Minimum, maximum, any or all of a value over the block, as a tile of one element in the scope where it can be made.
    fn extreme(&mut self, id: NodeId, op: ReduceOp) -> Result<ExprId, CompileError> {
        let expr = self.expr(id)?;
        let over = self.sorted(self.k.dims_of(expr));
        if over.is_empty() {
            return Ok(expr);
        }
        let level = self.level(id);
        let out = self.k.add_tile(format!("{}_{}", op.name(), id.index()), vec![], self.graph.dtype(id));
        self.scopes[level].stmts.push(Stmt::Reduce { out, op, over, expr, carried: None });
        Ok(self.k.add(Expr::Tile(out)))
    }

    /// Least and greatest value over the block, uniform; `None` when unknown.
    pub(super) fn interval(&mut self, id: NodeId) -> Result<Option<Interval>, CompileError> {
        if self.graph.dtype(id) != DType::Int {
            return Ok(None);
        }
        if self.graph.axes_of(id).is_empty() && (super::host(self.graph, id).is_some()) {
            let expr = self.expr(id)?;
            return Ok(Some((expr, expr)));
        }
        let one = self.k.int(1);
        match self.graph.op(id).clone() {
            Op::Index(axis) => {
                let dim = self.dim_of(axis)?;
                if self.k.dim(dim).kind.capacity() == 1 {
                    let pos = self.k.add(Expr::Pos(dim));
                    return Ok(Some((pos, pos)));
                }
                let start = self.k.add(Expr::Start(dim));
                let stop = self.k.add(Expr::Stop(dim));
                let last = self.k.op(ScalarOp::Sub, &[stop, one]);
                Ok(Some((start, last)))
            }
            Op::Map { op, args } => {
                let found = self.interval_of(op, &args)?;
                match found {
                    Some(i) => Ok(Some(i)),
                    None => self.interval_by_reading(id),
                }
            }
            _ => self.interval_by_reading(id),
        }
    }

    fn interval_by_reading(&mut self, id: NodeId) -> Result<Option<Interval>, CompileError> {
        if !self.is_readable(id) {
            return Ok(None);
        }
        let lo = self.extreme(id, ReduceOp::Min)?;
        let hi = self.extreme(id, ReduceOp::Max)?;
        Ok(Some((lo, hi)))
    }

    fn interval_of(&mut self, op: ScalarOp, args: &[NodeId]) -> Result<Option<Interval>, CompileError> {
        let takes = matches!(
            op,
            ScalarOp::Add
                | ScalarOp::Sub
                | ScalarOp::Mul
                | ScalarOp::Neg
                | ScalarOp::Abs
                | ScalarOp::Min
                | ScalarOp::Max
                | ScalarOp::IntDiv
                | ScalarOp::CeilDiv
                | ScalarOp::Mod
                | ScalarOp::Select
        );
        if !takes {
            return Ok(None);
        }
        if op == ScalarOp::Select {
            let (yes, no) = self.decide(args[0])?;
            let (Some(a), Some(b)) = (self.interval(args[1])?, self.interval(args[2])?) else { return Ok(None) };
            let lo = self.k.op(ScalarOp::Min, &[a.0, b.0]);
            let hi = self.k.op(ScalarOp::Max, &[a.1, b.1]);
            let mut pick = |x: ExprId, y: ExprId, both: ExprId| {
                let rest = self.k.op(ScalarOp::Select, &[no, y, both]);
                self.k.op(ScalarOp::Select, &[yes, x, rest])
            };
            return Ok(Some((pick(a.0, b.0, lo), pick(a.1, b.1, hi))));
        }
        let mut parts = Vec::new();
        for arg in args {
            match self.interval(*arg)? {
                Some(i) => parts.push(i),
                None => return Ok(None),
            }
        }
        let a = parts[0];
        let b = parts.get(1).copied().unwrap_or(a);
        Ok(Some(match op {
            ScalarOp::Add => (self.k.op(op, &[a.0, b.0]), self.k.op(op, &[a.1, b.1])),
            ScalarOp::Sub => (self.k.op(op, &[a.0, b.1]), self.k.op(op, &[a.1, b.0])),
            ScalarOp::Neg => (self.k.op(op, &[a.1]), self.k.op(op, &[a.0])),
            ScalarOp::Abs => {
                let zero = self.k.int(0);
                let (up, down) = (self.k.op(ScalarOp::Sub, &[zero, a.1]), self.k.op(ScalarOp::Sub, &[zero, a.0]));
                let nearest = self.k.op(ScalarOp::Max, &[a.0, up]);
                (self.k.op(ScalarOp::Max, &[nearest, zero]), self.k.op(ScalarOp::Max, &[a.1, down]))
            }
            ScalarOp::Min | ScalarOp::Max => (self.k.op(op, &[a.0, b.0]), self.k.op(op, &[a.1, b.1])),
            ScalarOp::Mul => {
                let ends = [(a.0, b.0), (a.0, b.1), (a.1, b.0), (a.1, b.1)].map(|(x, y)| self.k.op(op, &[x, y]));
                self.hull(&ends)
            }
            ScalarOp::IntDiv | ScalarOp::CeilDiv => {
                // Monotone in the dividend for a fixed divisor of either sign; only fixed divisors are taken.
                if b.0 != b.1 {
                    return Ok(None);
                }
                let ends = [self.k.op(op, &[a.0, b.0]), self.k.op(op, &[a.1, b.0])];
                self.hull(&ends)
            }
            _ => {
                if b.0 != b.1 {
                    return Ok(None);
                }
                // Within one period the remainder grows with the dividend; otherwise it is anything.
                let (zero, one) = (self.k.int(0), self.k.int(1));
                let first = self.k.op(ScalarOp::IntDiv, &[a.0, b.0]);
                let last = self.k.op(ScalarOp::IntDiv, &[a.1, b.0]);
                let same = self.k.op(ScalarOp::Eq, &[first, last]);
                let lo = self.k.op(ScalarOp::Mod, &[a.0, b.0]);
                let hi = self.k.op(ScalarOp::Mod, &[a.1, b.0]);
                let below = self.k.op(ScalarOp::Add, &[b.0, one]);
                let least = self.k.op(ScalarOp::Min, &[zero, below]);
                let above = self.k.op(ScalarOp::Sub, &[b.0, one]);
                let most = self.k.op(ScalarOp::Max, &[zero, above]);
                (self.k.op(ScalarOp::Select, &[same, lo, least]), self.k.op(ScalarOp::Select, &[same, hi, most]))
            }
        }))
    }

    fn hull(&mut self, ends: &[ExprId]) -> Interval {
        let (mut lo, mut hi) = (ends[0], ends[0]);
        for e in &ends[1..] {
            lo = self.k.op(ScalarOp::Min, &[lo, *e]);
            hi = self.k.op(ScalarOp::Max, &[hi, *e]);
        }
        (lo, hi)
    }

    /// Tightens `lo <= s < hi` by the conjuncts of a condition.
    fn solve(&mut self, cond: NodeId, axis: AxisId, bounds: &mut (Option<ExprId>, Option<ExprId>)) -> Result<(), CompileError> {
        let Op::Map { op, args } = self.graph.op(cond).clone() else { return Ok(()) };
        match op {
            ScalarOp::And => {
                self.solve(args[0], axis, bounds)?;
                self.solve(args[1], axis, bounds)
            }
            ScalarOp::Or => {
                // The hull of what the arms leave; an arm that fails for all rows of the block leaves nothing.
                let (far_low, far_high) = (self.k.int(0), self.k.int(1 << 30));
                let mut hull: Option<(ExprId, ExprId)> = None;
                for arm in args {
                    let mut own = (None, None);
                    self.solve(arm, axis, &mut own)?;
                    let mut ends = (own.0.unwrap_or(far_low), own.1.unwrap_or(far_high));
                    if !self.graph.axes_of(arm).contains(&axis) && self.level(arm) + 1 < self.scopes.len() {
                        let (_, no) = self.decide(arm)?;
                        ends = (self.k.op(ScalarOp::Select, &[no, far_high, ends.0]), self.k.op(ScalarOp::Select, &[no, far_low, ends.1]));
                    }
                    hull = Some(match hull {
                        None => ends,
                        Some(h) => (self.k.op(ScalarOp::Min, &[h.0, ends.0]), self.k.op(ScalarOp::Max, &[h.1, ends.1])),
                    });
                }
                if let Some((lo, hi)) = hull {
                    bounds.0 = Some(bounds.0.map_or(lo, |old| self.k.op(ScalarOp::Max, &[old, lo])));
                    bounds.1 = Some(bounds.1.map_or(hi, |old| self.k.op(ScalarOp::Min, &[old, hi])));
                }
                Ok(())
            }
            ScalarOp::Lt | ScalarOp::Le | ScalarOp::Eq if self.graph.dtype(args[0]) == DType::Int => {
                let has = [0, 1].map(|i| self.graph.axes_of(args[i]).contains(&axis));
                let one = self.k.int(1);
                if has[0] && !has[1] {
                    // Uniform bounds come from outside the loop, so values read in it do not qualify.
                    let Some((lo, hi)) = self.outer_interval(args[1], axis)? else { return Ok(()) };
                    let most = if op == ScalarOp::Lt { self.k.op(ScalarOp::Sub, &[hi, one]) } else { hi };
                    let least = (op == ScalarOp::Eq).then_some(lo);
                    self.narrow(args[0], axis, least, Some(most), bounds)?;
                } else if has[1] && !has[0] {
                    let Some((lo, hi)) = self.outer_interval(args[0], axis)? else { return Ok(()) };
                    let least = if op == ScalarOp::Lt { self.k.op(ScalarOp::Add, &[lo, one]) } else { lo };
                    let most = (op == ScalarOp::Eq).then_some(hi);
                    self.narrow(args[1], axis, Some(least), most, bounds)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn outer_interval(&mut self, id: NodeId, axis: AxisId) -> Result<Option<Interval>, CompileError> {
        if self.graph.axes_of(id).contains(&axis) || self.level(id) + 1 >= self.scopes.len() {
            return Ok(None);
        }
        self.interval(id)
    }

    /// Bounds on the axis from `least <= id <= most`.
    fn narrow(&mut self, id: NodeId, axis: AxisId, least: Option<ExprId>, most: Option<ExprId>, bounds: &mut (Option<ExprId>, Option<ExprId>)) -> Result<(), CompileError> {
        let one = self.k.int(1);
        match self.graph.op(id).clone() {
            Op::Index(a) if a == axis => {
                if let Some(l) = least {
                    bounds.0 = Some(bounds.0.map_or(l, |old| self.k.op(ScalarOp::Max, &[old, l])));
                }
                if let Some(m) = most {
                    let end = self.k.op(ScalarOp::Add, &[m, one]);
                    bounds.1 = Some(bounds.1.map_or(end, |old| self.k.op(ScalarOp::Min, &[old, end])));
                }
            }
            Op::Map { op: op @ (ScalarOp::Add | ScalarOp::Sub), args } => {
                let in_first = self.graph.axes_of(args[0]).contains(&axis);
                if in_first == self.graph.axes_of(args[1]).contains(&axis) {
                    return Ok(());
                }
                let (inner, other) = if in_first { (args[0], args[1]) } else { (args[1], args[0]) };
                let Some((lo, hi)) = self.outer_interval(other, axis)? else { return Ok(()) };
                let (l, m) = match (op, in_first) {
                    // inner = id - other
                    (ScalarOp::Add, _) => (least.map(|l| self.k.op(ScalarOp::Sub, &[l, hi])), most.map(|m| self.k.op(ScalarOp::Sub, &[m, lo]))),
                    // inner = id + other
                    (_, true) => (least.map(|l| self.k.op(ScalarOp::Add, &[l, lo])), most.map(|m| self.k.op(ScalarOp::Add, &[m, hi]))),
                    // inner = other - id
                    (_, false) => (most.map(|m| self.k.op(ScalarOp::Sub, &[lo, m])), least.map(|l| self.k.op(ScalarOp::Sub, &[hi, l]))),
                };
                self.narrow(inner, axis, l, m, bounds)?;
            }
            Op::Map { op: ScalarOp::Neg, args } => {
                let zero = self.k.int(0);
                let (l, m) = (most.map(|m| self.k.op(ScalarOp::Sub, &[zero, m])), least.map(|l| self.k.op(ScalarOp::Sub, &[zero, l])));
                self.narrow(args[0], axis, l, m, bounds)?;
            }
            Op::Map { op: ScalarOp::Abs, args } => {
                let zero = self.k.int(0);
                let l = most.map(|m| self.k.op(ScalarOp::Sub, &[zero, m]));
                self.narrow(args[0], axis, l, most, bounds)?;
            }
            // Only the side that the clamp leaves open says something.
            Op::Map { op: ScalarOp::Max, args } => {
                for arg in args.into_iter().filter(|a| self.graph.axes_of(*a).contains(&axis)) {
                    self.narrow(arg, axis, None, most, bounds)?;
                }
            }
            Op::Map { op: ScalarOp::Min, args } => {
                for arg in args.into_iter().filter(|a| self.graph.axes_of(*a).contains(&axis)) {
                    self.narrow(arg, axis, least, None, bounds)?;
                }
            }
            Op::Map { op: ScalarOp::Mul, args } => {
                for (inner, by) in [(args[0], args[1]), (args[1], args[0])] {
                    if let Op::Const(crate::ops::Scalar::Int(c)) = self.graph.op(by) {
                        if *c > 0 {
                            let c = self.k.int(*c);
                            let (l, m) = (least.map(|l| self.k.op(ScalarOp::CeilDiv, &[l, c])), most.map(|m| self.k.op(ScalarOp::IntDiv, &[m, c])));
                            self.narrow(inner, axis, l, m, bounds)?;
                        }
                    }
                }
            }
            Op::Map { op: ScalarOp::IntDiv, args } if self.graph.axes_of(args[1]).is_empty() && super::host(self.graph, args[1]).is_some() => {
                let divisor = self.expr(args[1])?;
                let zero = self.k.int(0);
                let positive = self.k.op(ScalarOp::Lt, &[zero, divisor]);
                // Without a positive divisor nothing is known: far bounds take the place.
                let (far_low, far_high) = (self.k.int(-(1 << 30)), self.k.int(1 << 30));
                let l = least.map(|l| {
                    let at = self.k.op(ScalarOp::Mul, &[l, divisor]);
                    self.k.op(ScalarOp::Select, &[positive, at, far_low])
                });
                let m = most.map(|m| {
                    let next = self.k.op(ScalarOp::Add, &[m, one]);
                    let at = self.k.op(ScalarOp::Mul, &[next, divisor]);
                    let last = self.k.op(ScalarOp::Sub, &[at, one]);
                    self.k.op(ScalarOp::Select, &[positive, last, far_high])
                });
                self.narrow(args[0], axis, l, m, bounds)?;
            }
            _ => {}
        }
        Ok(())
    }
}
