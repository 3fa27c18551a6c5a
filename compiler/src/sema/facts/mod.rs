//! Range proofs of reads: is `0 <= e < A` certain, impossible to tell, or a matter of sizes that the call can check?

mod poly;
mod prove;

use super::{Elab, Res};
use crate::base::Span;
use crate::graph::{AxisId, AxisSet, Extent, NodeId, Op};
use crate::ops::{DType, ScalarOp};
use prove::Prover;
use std::collections::HashSet;

/// Outcome of a range proof.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// `0 <= e` holds.
    pub low: bool,
    /// `e < A` holds.
    pub high: bool,
    /// Both hold only if the target axis has a position.
    pub nonempty: bool,
    /// Scalars that must be positive for the proof: divisors.
    pub positive: Vec<NodeId>,
}

impl<'a> Elab<'a> {
    /// The condition `0 <= index < extent(axis)` as far as it is not certain. Sizes that the call must check become requires.
    pub(super) fn range(&mut self, axis: AxisId, index: NodeId, span: Span) -> Res<Option<NodeId>> {
        let over: Vec<AxisId> = self.graph.axes_of(index).iter().copied().collect();
        for known in over.iter().chain([&axis]) {
            self.extent(*known, span)?;
        }
        let verdict = self.prove_range(axis, index);
        self.require_positive(&verdict.positive, &over, span)?;
        if verdict.low && verdict.high {
            if !verdict.nonempty {
                return Ok(None);
            }
            let (zero, extent) = (self.int(0, span)?, self.extent(axis, span)?);
            let cond = self.map(ScalarOp::Lt, vec![zero, extent], span)?;
            let fixed = self.as_const(index).is_some() && self.unguarded(self.origin(axis));
            if over.is_empty() && !fixed {
                return Ok(Some(cond));
            }
            let text = format!("len({}) > 0", self.axis_name(axis));
            self.require_unless_empty(cond, &over, text, span)?;
            return Ok(None);
        }
        if verdict.low
            && self.checkable(axis, index)
            && let Some(high) = self.upper_bound(index, span)?
        {
            let extent = self.extent(axis, span)?;
            let cond = self.map(ScalarOp::Lt, vec![high, extent], span)?;
            let text = format!("`{}` stays below the extent of `{}`", self.text(span), self.axis_name(axis));
            self.require_unless_empty(cond, &over, text, span)?;
            return Ok(None);
        }
        let mut cond = None;
        if !verdict.low {
            let zero = self.int(0, span)?;
            cond = Some(self.map(ScalarOp::Le, vec![zero, index], span)?);
        }
        if !verdict.high {
            let extent = self.extent(axis, span)?;
            let high = self.map(ScalarOp::Lt, vec![index, extent], span)?;
            cond = Some(match cond {
                None => high,
                Some(low) => self.and(low, high, span)?,
            });
        }
        Ok(cond)
    }

    /// Divisors that a proof took for positive.
    fn require_positive(&mut self, divisors: &[NodeId], over: &[AxisId], span: Span) -> Res<()> {
        for divisor in divisors {
            let zero = self.int(0, span)?;
            let cond = self.map(ScalarOp::Lt, vec![zero, *divisor], span)?;
            let text = format!("{} > 0", self.scalar_text(*divisor));
            self.require_unless_empty(cond, over, text, span)?;
        }
        Ok(())
    }

    /// A scalar as the reader knows it.
    fn scalar_text(&self, node: NodeId) -> String {
        let infix = |op: ScalarOp| match op {
            ScalarOp::Add => Some("+"),
            ScalarOp::Sub => Some("-"),
            ScalarOp::Mul => Some("*"),
            ScalarOp::IntDiv => Some("div"),
            ScalarOp::Mod => Some("mod"),
            _ => None,
        };
        match self.graph.op(node) {
            Op::Extent(a) => format!("len({})", self.axis_name(*a)),
            Op::Const(crate::ops::Scalar::Int(c)) => c.to_string(),
            Op::Input(i) => self.graph.inputs.get(i.index()).map_or_else(String::new, |x| x.name.clone()),
            Op::Map { op, args } => {
                let parts: Vec<String> = args.iter().map(|a| self.scalar_text(*a)).collect();
                match (infix(*op), &parts[..]) {
                    (Some(word), [x, y]) => format!("{x} {word} {y}"),
                    _ => format!("{}({})", op.name(), parts.join(", ")),
                }
            }
            _ => self.text(self.graph.node(node).span),
        }
    }

    fn prover(&self, over: &AxisSet) -> Prover<'_> {
        let mut prover = Prover::new(&self.graph, &self.extents_known, over);
        for require in &self.graph.requires {
            if !require.implicit {
                prover.assume(require.cond, false);
            }
        }
        for guard in &self.guards {
            // A `where` may be consumed by a reduction before the range would be; only when it mentions no axis that the index
            // lacks does it go at the same time.
            if let Some(cond) = guard.cond
                && (guard.arm || self.graph.axes_of(cond).is_subset(over))
            {
                prover.assume(cond, guard.negated);
            }
        }
        prover
    }

    /// Tries to prove `0 <= index < extent(axis)` for every position of the index's axes.
    pub(super) fn prove_range(&self, axis: AxisId, index: NodeId) -> Verdict {
        let over = self.graph.axes_of(index).clone();
        let attempt = |nonempty: bool| {
            let mut axes = over.clone();
            if nonempty {
                axes.insert(axis);
                axes.insert(self.origin(axis));
            }
            let mut prover = self.prover(&over);
            if nonempty {
                prover.suppose_nonempty(&axes);
            }
            let low = prover.at_least_zero(index);
            let high = prover.below_extent(index, self.origin(axis)) || prover.below_extent(index, axis);
            Verdict { low, high, nonempty, positive: prover.positive }
        };
        let plain = attempt(false);
        if plain.low && plain.high {
            return plain;
        }
        let with = attempt(true);
        if with.low && with.high { with } else { plain }
    }

    /// Whether `a < b` for every position.
    pub(super) fn prove_less(&self, a: NodeId, b: NodeId) -> bool {
        let over = self.graph.axes_of(a).union(self.graph.axes_of(b)).copied().collect();
        let mut prover = self.prover(&over);
        prover.less(a, b) && prover.positive.is_empty()
    }

    /// Whether the upper end of an open index is a matter of independent sizes, so that the call can check it once. The target's
    /// extent comes from the inputs and plays no part in the index; the index grows with each of its axes, which occur once; no
    /// guard around the read speaks of the extent. In all other cases the range stays a condition, which is always right.
    fn checkable(&self, axis: AxisId, index: NodeId) -> bool {
        let target = self.origin(axis);
        // An axis that was declared longer than the target may be meant to run past it.
        let mut axes = std::iter::once(target).chain(self.graph.axes_of(index).iter().map(|a| self.origin(*a)));
        if !axes.all(|a| self.graph.axis(a).extent == Extent::Inputs) {
            return false;
        }
        let mut seen = HashSet::new();
        if !self.rises(index, &mut seen) || self.speaks_of(index, target) || self.blocked(index) {
            return false;
        }
        self.unguarded(target)
    }

    /// No guard around the read speaks of the extent of the axis.
    fn unguarded(&self, target: AxisId) -> bool {
        self.guards.iter().all(|g| g.cond.is_some_and(|c| !self.names_extent(c, target)))
    }

    /// Whether a mask is false everywhere, whatever the sizes are.
    pub(super) fn never(&self, mask: NodeId) -> bool {
        if self.as_const(mask) == Some(crate::ops::Scalar::Bool(false)) {
            return true;
        }
        let over = self.graph.axes_of(mask).clone();
        let mut prover = Prover::new(&self.graph, &self.extents_known, &over);
        if prover.contradictory() {
            return false;
        }
        prover.assume(mask, false);
        prover.contradictory() && prover.positive.is_empty()
    }

    /// Conditions without those that hold wherever `c` holds (or does not, when `negated`), under the guards around.
    pub(super) fn discharge(&mut self, conds: &[NodeId], c: NodeId, negated: bool, span: Span) -> Res<Vec<NodeId>> {
        let mut out = Vec::new();
        for cond in conds {
            let over: AxisSet = self.graph.axes_of(*cond).union(self.graph.axes_of(c)).copied().collect();
            let mut prover = self.prover(&over);
            prover.assume(c, negated);
            let (holds, positive) = (prover.holds(*cond), std::mem::take(&mut prover.positive));
            if holds {
                let over: Vec<AxisId> = over.into_iter().collect();
                self.require_positive(&positive, &over, span)?;
            } else {
                out.push(*cond);
            }
        }
        Ok(out)
    }

    /// A check at the call under which the condition holds at every position; `None` where there is no exact one, or where it
    /// would never hold. For places that need a value and would otherwise be refused.
    pub(super) fn for_all(&mut self, cond: NodeId, span: Span) -> Res<Option<NodeId>> {
        if self.graph.axes_of(cond).is_empty() {
            return Ok(Some(cond).filter(|c| self.host_scalar(*c)));
        }
        let Op::Map { op, args } = self.graph.op(cond).clone() else { return Ok(None) };
        match op {
            ScalarOp::And | ScalarOp::Select => {
                let parts = if op == ScalarOp::And { [args[0], args[1]] } else { [args[1], args[2]] };
                let (Some(x), Some(y)) = (self.for_all(parts[0], span)?, self.for_all(parts[1], span)?) else { return Ok(None) };
                Ok(Some(self.and(x, y, span)?))
            }
            ScalarOp::Or => {
                // One side for all positions is enough; the conditions of arms stand on the right.
                for part in [args[1], args[0]] {
                    if let Some(x) = self.for_all(part, span)? {
                        return Ok(Some(x));
                    }
                }
                Ok(None)
            }
            ScalarOp::Lt if self.graph.dtype(args[0]) == DType::Int && self.host_scalar(args[1]) => {
                let (index, bound) = (args[0], args[1]);
                let own: Vec<AxisId> = self.graph.axes_of(index).iter().copied().collect();
                let itself = matches!(self.graph.op(bound), Op::Extent(a) if own.iter().any(|o| self.origin(*o) == self.origin(*a)));
                if itself || !self.rises(index, &mut HashSet::new()) {
                    return Ok(None);
                }
                let Some(high) = self.upper_bound(index, span)? else { return Ok(None) };
                let refuted = self.prover(&own.into_iter().collect()).at_most(bound, high);
                if refuted { Ok(None) } else { Ok(Some(self.map(ScalarOp::Lt, vec![high, bound], span)?)) }
            }
            _ => Ok(None),
        }
    }

    /// Whether the index is a rising function of index atoms, each of which occurs once, and of scalars of the call.
    fn rises(&self, node: NodeId, seen: &mut HashSet<AxisId>) -> bool {
        if self.graph.axes_of(node).is_empty() {
            return self.host_scalar(node);
        }
        match self.graph.op(node) {
            Op::Index(a) => seen.insert(*a),
            Op::Map { op: ScalarOp::Add | ScalarOp::Mul | ScalarOp::Min | ScalarOp::Max, args } => {
                let args = args.clone();
                args.into_iter().all(|a| self.rises(a, seen))
            }
            Op::Map { op: ScalarOp::IntDiv | ScalarOp::Mod | ScalarOp::CeilDiv, args } => {
                let (x, by) = (args[0], args[1]);
                self.graph.axes_of(by).is_empty() && self.host_scalar(by) && self.rises(x, seen)
            }
            Op::Map { op: ScalarOp::Sub, args } => {
                let (x, y) = (args[0], args[1]);
                self.graph.axes_of(y).is_empty() && self.host_scalar(y) && self.rises(x, seen)
            }
            _ => false,
        }
    }

    /// Whether an axis is multiplied, as in `L*c + r`: blocks of a length that need not be a multiple of the block.
    fn blocked(&self, node: NodeId) -> bool {
        match self.graph.op(node) {
            Op::Map { op: ScalarOp::Mul, args } => args.iter().any(|a| !self.graph.axes_of(*a).is_empty() && !self.folded(*a)),
            Op::Map { op: ScalarOp::IntDiv | ScalarOp::Mod, .. } => false,
            Op::Map { args, .. } => args.iter().any(|a| self.blocked(*a)),
            _ => false,
        }
    }

    /// A remainder or quotient: the split of another axis.
    fn folded(&self, node: NodeId) -> bool {
        matches!(self.graph.op(node), Op::Map { op: ScalarOp::Mod | ScalarOp::IntDiv, .. })
    }

    /// Whether the extent of `target` plays a part in the node: as a number, or as the extent of an axis of it.
    fn speaks_of(&self, node: NodeId, target: AxisId) -> bool {
        let over = self.graph.axes_of(node).clone();
        self.names_extent(node, target) || over.into_iter().any(|a| self.extent_speaks_of(a, target))
    }

    fn extent_speaks_of(&self, axis: AxisId, target: AxisId) -> bool {
        if self.origin(axis) == target {
            return true;
        }
        match self.graph.axis(axis).extent {
            Extent::Inputs => false,
            Extent::Value(node) => self.names_extent(node, target),
        }
    }

    fn names_extent(&self, node: NodeId, target: AxisId) -> bool {
        let mut work = vec![node];
        let mut seen = HashSet::new();
        while let Some(n) = work.pop() {
            if !seen.insert(n) {
                continue;
            }
            match self.graph.op(n) {
                Op::Extent(a) => {
                    if self.origin(*a) == target {
                        return true;
                    }
                    if let Extent::Value(inner) = self.graph.axis(*a).extent {
                        work.push(inner);
                    }
                }
                op => work.extend(op.operands()),
            }
        }
        false
    }

    /// Largest value of a rising index, as a scalar node; `None` where that is not exact.
    fn upper_bound(&mut self, node: NodeId, span: Span) -> Res<Option<NodeId>> {
        if self.graph.axes_of(node).is_empty() {
            return Ok(Some(node));
        }
        if self.graph.dtype(node) != DType::Int {
            return Ok(None);
        }
        match self.graph.op(node).clone() {
            Op::Index(a) => {
                let (extent, one) = (self.extent(a, span)?, self.int(1, span)?);
                Ok(Some(self.map(ScalarOp::Sub, vec![extent, one], span)?))
            }
            Op::Map { op: ScalarOp::Mod, args } => {
                let Some(x) = self.upper_bound(args[0], span)? else { return Ok(None) };
                let one = self.int(1, span)?;
                let top = self.map(ScalarOp::Sub, vec![args[1], one], span)?;
                // A non-negative operand below the divisor stays as it is; `low` has been proved for the whole index only.
                let over = self.graph.axes_of(node).clone();
                if !self.prover(&over).at_least_zero(args[0]) {
                    return Ok(Some(top));
                }
                Ok(Some(self.map(ScalarOp::Min, vec![x, top], span)?))
            }
            Op::Map { op: op @ (ScalarOp::IntDiv | ScalarOp::CeilDiv | ScalarOp::Sub), args } => {
                let Some(x) = self.upper_bound(args[0], span)? else { return Ok(None) };
                Ok(Some(self.map(op, vec![x, args[1]], span)?))
            }
            Op::Map { op: op @ (ScalarOp::Add | ScalarOp::Mul | ScalarOp::Min | ScalarOp::Max), args } => {
                let (Some(x), Some(y)) = (self.upper_bound(args[0], span)?, self.upper_bound(args[1], span)?) else { return Ok(None) };
                Ok(Some(self.map(op, vec![x, y], span)?))
            }
            _ => Ok(None),
        }
    }
}
