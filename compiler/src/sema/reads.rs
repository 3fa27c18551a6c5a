//! Reads `x[t = e]`: simultaneous substitution of indices, range conditions, earlier results of a scan.

use super::facts::Verdict;
use super::scope::{Found, ScopeId};
use super::{Elab, Res, Val};
use crate::base::{Diagnostic, Span};
use crate::graph::{AxisId, NodeId, Op, ScanId};
use crate::ops::{DType, ScalarOp};
use crate::syntax::ast::{Expr, ExprKind, Ident};
use std::collections::HashMap;

/// Axis, index, place of the index.
pub(super) type Subs = Vec<(AxisId, NodeId, Span)>;

impl<'a> Elab<'a> {
    pub(super) fn read(&mut self, base: &'a Expr, subs: &'a [(Ident, Expr)], span: Span, scope: ScopeId) -> Res {
        let mut axes: Vec<Res<AxisId>> = Vec::new();
        let mut indices: Vec<Res> = Vec::new();
        for (axis, index) in subs {
            axes.push(self.axis_named(axis, scope));
            indices.push(self.expr(index, scope));
        }
        let mut pairs: Subs = Vec::new();
        let mut conds: Vec<NodeId> = Vec::new();
        let mut failed = None;
        for ((axis, index), (name, e)) in axes.into_iter().zip(indices).zip(subs) {
            let (Ok(axis), Ok(index)) = (axis, index) else {
                failed = Some(super::Poison);
                continue;
            };
            if pairs.iter().any(|p| p.0 == axis) {
                let d = Diagnostic::error("A0306", format!("axis `{}` is given twice in one read", name.name)).label(name.span, "second time");
                failed = Some(self.report(d));
                continue;
            }
            let dtype = self.graph.dtype(index.node);
            if dtype != DType::Int {
                let d = Diagnostic::error("A0403", format!("the index of `{}` must be an int", name.name))
                    .label(e.span, format!("this is {}", dtype.name()))
                    .help(if dtype == DType::Real { "`/` divides reals; write `div`, or `floor(..)`" } else { "write `int(..)`" });
                failed = Some(self.report(d));
                continue;
            }
            self.add_conds(&mut conds, &index.conds);
            pairs.push((axis, index.node, e.span));
        }
        let earlier = self.own_export(base, &pairs, scope);
        let value = match earlier {
            Some((_, _)) if failed.is_some() => return Err(super::Poison),
            Some((scan, step)) => return self.read_history(scan, step, base, &pairs, conds, span),
            None => self.expr(base, scope)?,
        };
        if let Some(poison) = failed {
            return Err(poison);
        }
        self.check_axes(&value, subs, &pairs, base.span)?;
        self.check_step(&value, &pairs, span)?;
        self.read_at(&value, &pairs, conds, span)
    }

    /// Reads `value` at indices whose conditions are `conds`.
    pub(super) fn read_at(&mut self, value: &Val, pairs: &Subs, mut conds: Vec<NodeId>, span: Span) -> Res {
        let map: Vec<(AxisId, NodeId)> = pairs.iter().map(|p| (p.0, p.1)).collect();
        let node = self.substitute(value.node, &map, span)?;
        let mut all = Vec::new();
        for cond in &value.conds {
            let moved = self.substitute(*cond, &map, span)?;
            if let Some(place) = self.cond_spans.get(cond).copied() {
                self.cond_spans.entry(moved).or_insert(place);
            }
            if self.slot_conds.contains(cond) && !self.slot_conds.contains(&moved) {
                self.slot_conds.push(moved);
            }
            self.add_cond(&mut all, moved);
        }
        self.add_conds(&mut all, &conds);
        conds = all;
        for (axis, index, place) in pairs {
            if let Some(cond) = self.range(*axis, *index, *place)? {
                self.cond_spans.entry(cond).or_insert(span);
                self.add_cond(&mut conds, cond);
            }
        }
        Ok(Val { node, conds })
    }

    /// Every axis that is read must be one of the value.
    fn check_axes(&mut self, value: &Val, subs: &[(Ident, Expr)], pairs: &Subs, base: Span) -> Res<()> {
        let mut result = Ok(());
        for ((axis, _, _), (name, _)) in pairs.iter().zip(subs) {
            let has = self.graph.axes_of(value.node).contains(axis) || value.conds.iter().any(|c| self.graph.axes_of(*c).contains(axis));
            if has {
                continue;
            }
            let have = self.axes_text(self.graph.axes_of(value.node).clone());
            let declared = self.graph.axis(*axis).span;
            let mut d = Diagnostic::error("A0305", format!("the value read here has no axis `{}`", name.name))
                .label(name.span, "reading it would change nothing")
                .label(base, format!("this has axes {have}"));
            if declared.source == name.span.source {
                d = d.label(declared, format!("`{}` comes from here", self.axis_name(*axis)));
            }
            let twin = self.graph.axes_of(value.node).iter().copied().find(|a| self.origin(*a) == self.origin(*axis));
            if let Some(twin) = twin {
                d = d.help(format!("did you mean `[{} = ..]`?", self.axis_name(twin)));
            }
            result = Err(self.report(d));
        }
        result
    }

    /// Values of the step that is being done have no axis for its steps yet.
    fn check_step(&mut self, value: &Val, pairs: &Subs, span: Span) -> Res<()> {
        for (axis, _, _) in pairs {
            let Some(scan) = self.open_scan(*axis) else { continue };
            if self.depends_on_scan(value.node, scan) {
                let name = self.axis_name(*axis).to_string();
                return Err(self.report(
                    Diagnostic::error("A0307", format!("a value of the running step has no axis `{name}`"))
                        .label(span, format!("reads it at another `{name}`"))
                        .help("earlier values: export one with `name = ..` and read `name[..]`, or keep it in a state"),
                ));
            }
        }
        Ok(())
    }

    /// Whether the value depends on states or earlier results of `scan`.
    pub(super) fn depends_on_scan(&self, node: NodeId, scan: ScanId) -> bool {
        let mut work = vec![node];
        let mut seen = std::collections::HashSet::new();
        while let Some(n) = work.pop() {
            if !seen.insert(n) {
                continue;
            }
            match *self.graph.op(n) {
                Op::State { scan: s, .. } | Op::History { scan: s, .. } if s == scan => return true,
                // An inner scan that has finished: what its states were made of.
                Op::State { scan: s, .. } | Op::Final { scan: s, .. } if s > scan => {
                    self.graph.scans[s.index()].states.iter().for_each(|x| work.extend([x.init, x.next]));
                }
                _ => work.extend(self.graph.op(n).operands()),
            }
        }
        false
    }

    /// The scan over `axis` in whose step we are.
    pub(super) fn open_scan(&self, axis: AxisId) -> Option<ScanId> {
        self.open.iter().rev().copied().find(|s| self.graph.scans[s.index()].axis == axis)
    }

    /// The base is a plain name of an export of a scan in whose step we are, read along the scan's axis.
    fn own_export(&self, base: &Expr, pairs: &Subs, scope: ScopeId) -> Option<(ScanId, ScopeId)> {
        let ExprKind::Name { name, primed: false } = &*base.kind else { return None };
        let at = self.find(name, scope)?;
        let scan = self.scopes[at].slots[name].export_of?;
        let axis = self.graph.scans[scan.index()].axis;
        pairs.iter().any(|p| p.0 == axis).then_some((scan, at))
    }

    /// `name[t = e]` of an own export: present at positions that are done.
    fn read_history(&mut self, scan: ScanId, step: ScopeId, base: &'a Expr, pairs: &Subs, conds: Vec<NodeId>, span: Span) -> Res {
        let ExprKind::Name { name, .. } = &*base.kind else { return Err(super::Poison) };
        let value = self.history(scan, step, name, span)?;
        let (axis, reverse) = (self.graph.scans[scan.index()].axis, self.graph.scans[scan.index()].reverse);
        for (other, index, place) in pairs {
            if *other == axis && *self.graph.op(*index) == Op::Index(axis) {
                let text = self.axis_name(axis).to_string();
                return Err(self.report(
                    Diagnostic::error("A0307", format!("`{name}` is read at the position that is being computed"))
                        .label(*place, format!("this is the running `{text}`"))
                        .help(format!("write `{name}` for its current value; earlier ones are at smaller positions")),
                ));
            }
            if *other != axis && !self.graph.axes_of(value.node).contains(other) && self.history_known(scan, name) {
                let text = self.axis_name(*other).to_string();
                return Err(self.report(Diagnostic::error("A0305", format!("`{name}` has no axis `{text}`")).label(*place, "read here")));
            }
        }
        let mut val = {
            // A range along the scan is implied by "done already" on one side; the other axes are as in any read.
            let map: Vec<(AxisId, NodeId)> = pairs.iter().map(|p| (p.0, p.1)).collect();
            let node = self.substitute(value.node, &map, span)?;
            let mut all = Vec::new();
            for cond in &value.conds {
                let moved = self.substitute(*cond, &map, span)?;
                self.add_cond(&mut all, moved);
            }
            self.add_conds(&mut all, &conds);
            Val { node, conds: all }
        };
        for (other, index, place) in pairs {
            let cond = if *other == axis { self.done(axis, reverse, *index, *place)? } else { self.range(*other, *index, *place)? };
            if let Some(cond) = cond {
                self.cond_spans.entry(cond).or_insert(span);
                let mut conds = std::mem::take(&mut val.conds);
                self.add_cond(&mut conds, cond);
                val.conds = conds;
            }
        }
        Ok(val)
    }

    /// `0 <= e < t` (forward) or `t < e < T` (reverse).
    fn done(&mut self, axis: AxisId, reverse: bool, index: NodeId, span: Span) -> Res<Option<NodeId>> {
        let here = self.intern(Op::Index(axis), span)?;
        let (before, inside) = if reverse {
            let extent = self.extent(axis, span)?;
            (self.map(ScalarOp::Lt, vec![here, index], span)?, self.map(ScalarOp::Lt, vec![index, extent], span)?)
        } else {
            let zero = self.int(0, span)?;
            (self.map(ScalarOp::Lt, vec![index, here], span)?, self.map(ScalarOp::Le, vec![zero, index], span)?)
        };
        let inside_holds = match self.prove_range(axis, index) {
            Verdict { low, high, .. } => if reverse { high } else { low },
        };
        Ok(Some(if inside_holds { before } else { self.and(inside, before, span)? }))
    }

    /// `node` with axes replaced by indices. Int and Bool pointwise values are rebuilt at the new indices (so that equal
    /// conditions are equal nodes); others become a `Read`.
    pub(super) fn substitute(&mut self, node: NodeId, map: &[(AxisId, NodeId)], span: Span) -> Res<NodeId> {
        self.substitute_memo(node, map, span, &mut HashMap::new())
    }

    fn substitute_memo(&mut self, node: NodeId, map: &[(AxisId, NodeId)], span: Span, memo: &mut HashMap<NodeId, NodeId>) -> Res<NodeId> {
        if let Some(done) = memo.get(&node) {
            return Ok(*done);
        }
        let own: Vec<(AxisId, NodeId)> = map.iter().copied().filter(|(a, _)| self.graph.axes_of(node).contains(a)).collect();
        let own: Vec<(AxisId, NodeId)> = own.into_iter().filter(|(a, i)| *self.graph.op(*i) != Op::Index(*a)).collect();
        if own.is_empty() {
            return Ok(node);
        }
        let small = matches!(self.graph.dtype(node), DType::Int | DType::Bool);
        let out = match self.graph.op(node).clone() {
            Op::Index(a) => own.iter().find(|(x, _)| *x == a).map_or(node, |(_, i)| *i),
            Op::Map { op, args } if small => {
                let mut new = Vec::with_capacity(args.len());
                for arg in args {
                    new.push(self.substitute_memo(arg, map, span, memo)?);
                }
                self.map(op, new, span)?
            }
            _ => {
                let mut subs = own;
                subs.sort();
                self.intern(Op::Read { value: node, subs }, span)?
            }
        };
        memo.insert(node, out);
        Ok(out)
    }

    /// Forces the name and says whether it is a value; for builtins that take names.
    pub(super) fn named_value(&mut self, e: &'a Expr, scope: ScopeId) -> Option<(ScopeId, String, Res<Found>)> {
        let ExprKind::Name { name, primed } = &*e.kind else { return None };
        let key = if *primed { format!("{name}'") } else { name.clone() };
        let at = self.find(&key, scope)?;
        let found = self.force(at, &key, e.span);
        Some((at, key, found))
    }
}
