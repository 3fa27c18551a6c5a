//! Conditions of presence: where they come from, how they combine, and what a place that needs a value does about them.

use super::{Elab, Guard, Res, Val};
use crate::base::{Diagnostic, Span};
use crate::graph::{AxisId, NodeId, Op};
use crate::ops::{Scalar, ScalarOp};

impl<'a> Elab<'a> {
    /// Adds a condition unless it is there or always holds.
    pub(super) fn add_cond(&self, conds: &mut Vec<NodeId>, cond: NodeId) {
        if self.as_const(cond) != Some(Scalar::Bool(true)) && !conds.contains(&cond) {
            conds.push(cond);
        }
    }

    /// Union in order.
    pub(super) fn add_conds(&self, conds: &mut Vec<NodeId>, more: &[NodeId]) {
        more.iter().for_each(|c| self.add_cond(conds, *c));
    }

    /// Conjunction of all conditions; `None` when there are none.
    pub(super) fn all_of(&mut self, conds: &[NodeId], span: Span) -> Res<Option<NodeId>> {
        let mut all = None;
        for cond in conds {
            all = Some(match all {
                None => *cond,
                Some(a) => self.and(a, *cond, span)?,
            });
        }
        Ok(all)
    }

    /// A `where` clause as one condition: absent counts as false.
    pub(super) fn clause(&mut self, m: &Val, span: Span) -> Res<NodeId> {
        let mut conds = m.conds.clone();
        if self.as_const(m.node) != Some(Scalar::Bool(true)) {
            conds.push(m.node);
        }
        let cond = match self.all_of(&conds, span)? {
            Some(c) => c,
            None => self.boolean(true, span)?,
        };
        self.cond_spans.entry(cond).or_insert(span);
        Ok(cond)
    }

    /// Conditions that mention one of the axes, and the others.
    pub(super) fn split_conds(&self, conds: &[NodeId], axes: &[AxisId]) -> (Vec<NodeId>, Vec<NodeId>) {
        conds.iter().partition(|c| axes.iter().any(|a| self.graph.axes_of(**c).contains(a)))
    }

    /// One condition for the arm taken by `if`.
    pub(super) fn arm_conds(&mut self, c: NodeId, x: &[NodeId], y: &[NodeId], span: Span) -> Res<Option<NodeId>> {
        let (x, y) = (self.discharge(x, c, false, span)?, self.discharge(y, c, true, span)?);
        let (x, y) = (self.all_of(&x, span)?, self.all_of(&y, span)?);
        Ok(match (x, y) {
            (None, None) => None,
            (Some(x), None) if x == c => None,
            (Some(x), None) => {
                let not = self.map(ScalarOp::Not, vec![c], span)?;
                Some(self.map(ScalarOp::Or, vec![not, x], span)?)
            }
            (None, Some(y)) => Some(self.map(ScalarOp::Or, vec![c, y], span)?),
            (Some(x), Some(y)) => Some(self.select(c, x, y, span)?),
        })
    }

    /// `a ?? b` on converted values.
    pub(super) fn first_present(&mut self, a: Val, b: Val, span: Span) -> Res {
        let Some(there) = self.all_of(&a.conds, span)? else { return Ok(a) };
        let node = self.select(there, a.node, b.node, span)?;
        let mut conds = Vec::new();
        if let Some(other) = self.all_of(&b.conds, span)? {
            let either = self.map(ScalarOp::Or, vec![there, other], span)?;
            self.cond_spans.entry(either).or_insert(span);
            self.add_cond(&mut conds, either);
        }
        Ok(Val { node, conds })
    }

    /// Runs `f` under a guard.
    pub(super) fn guarded<T>(&mut self, guard: Guard, f: impl FnOnce(&mut Self) -> T) -> T {
        self.guards.push(guard);
        let out = f(self);
        self.guards.pop();
        out
    }

    /// Errors unless the value is always present. Conditions on sizes alone become checks at the call, which are void when
    /// `over` (axes of the place that needs the value) is empty somewhere.
    pub(super) fn must_be_present(&mut self, val: &Val, over: &[AxisId], what: &str, code: &'static str, at: Span) -> Res<()> {
        let mut open = Vec::new();
        for cond in &val.conds {
            if self.graph.axes_of(*cond).is_empty() && self.host_scalar(*cond) {
                let span = self.cond_spans.get(cond).copied().unwrap_or(at);
                let text = self.text(span);
                self.require_unless_empty(*cond, over, text, span)?;
            } else if let Some(check) = self.for_all(*cond, at)? {
                let span = self.cond_spans.get(cond).copied().or_else(|| self.cond_origin(*cond)).unwrap_or(at);
                let text = format!("`{}` is within range", self.text(span));
                self.require_unless_empty(check, over, text, span)?;
            } else {
                open.push(*cond);
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        if open.iter().all(|c| self.slot_conds.contains(c)) && code == "A0501" {
            let d = Diagnostic::warning("A0904", format!("slots of {what} past the number of members hold 0"))
                .label(at, "this list may have fewer members than slots")
                .help("say what unused slots hold: `?? -1`");
            self.report(d);
            return Ok(());
        }
        let mut d = Diagnostic::error(code, format!("{what} may be absent")).label(at, "needs a value everywhere");
        for cond in open.iter().take(3) {
            if let Some(span) = self.cond_origin(*cond)
                && span != at
            {
                d = d.label(span, "absent where this does not hold or is out of range");
            }
        }
        Err(self.report(d.help("give absent elements a value: `.. ?? 0`")))
    }

    /// Place of the read or clause that a condition comes from.
    fn cond_origin(&self, cond: NodeId) -> Option<Span> {
        let mut work = vec![cond];
        let mut steps = 0;
        while let Some(c) = work.pop() {
            if let Some(span) = self.cond_spans.get(&c) {
                return Some(*span);
            }
            steps += 1;
            if steps > 200 {
                break;
            }
            if let Op::Map { op: ScalarOp::And | ScalarOp::Or | ScalarOp::Select | ScalarOp::Not, args } = self.graph.op(c) {
                work.extend(args.iter().rev());
            } else if let Op::Read { value, .. } = self.graph.op(c) {
                work.push(*value);
            }
        }
        Some(self.graph.node(cond).span)
    }

    /// A check at the call that holds also when one of the axes has no positions.
    pub(super) fn require_unless_empty(&mut self, cond: NodeId, axes: &[AxisId], text: String, span: Span) -> Res<()> {
        let mut all = cond;
        let mut origins: Vec<AxisId> = axes.iter().map(|a| self.origin(*a)).collect();
        origins.sort();
        origins.dedup();
        for axis in origins {
            let extent = self.extent(axis, span)?;
            let zero = self.int(0, span)?;
            let empty = self.map(ScalarOp::Le, vec![extent, zero], span)?;
            all = self.map(ScalarOp::Or, vec![empty, all], span)?;
        }
        if self.as_const(all) == Some(Scalar::Bool(true)) || self.graph.requires.iter().any(|r| r.cond == all) {
            return Ok(());
        }
        self.graph.requires.push(crate::graph::Require { cond: all, text, implicit: true, span });
        Ok(())
    }
}
