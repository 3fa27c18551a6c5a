//! `rank`, `argsort`, `topk`, `list`: all conditions of the key say what takes part.

use super::scope::ScopeId;
use super::{Elab, Res, Val};
use crate::base::{Diagnostic, Span};
use crate::graph::{AxisId, NodeId, Op};
use crate::ops::{DType, ScalarOp};
use crate::syntax::ast::{AxisArg, Expr, Ident};

impl<'a> Elab<'a> {
    /// A call of one of the four; `name` is known to be one.
    pub(super) fn order(&mut self, name: &'a Ident, axes: &'a [AxisArg], args: &'a [Expr], span: Span, scope: ScopeId) -> Res {
        let (want, form) = match name.name.as_str() {
            "topk" => (2, "topk[axes](key, count)"),
            "rank" => (1, "rank[axes](key)"),
            "argsort" => (1, "argsort[axis -> slot](key)"),
            _ => (1, "list[axis -> slot](set)"),
        };
        let slotted = matches!(name.name.as_str(), "argsort" | "list");
        let names: Vec<Ident> = axes.iter().map(|a| a.axis.clone()).collect();
        let over = self.reduced_axes(&names, span, scope);
        let mut to = None;
        for arg in axes {
            if let Some(slot) = &arg.to {
                to = Some(self.axis_named(slot, scope)?);
            }
        }
        if args.len() != want || axes.is_empty() || to.is_some() != slotted || axes.iter().any(|a| a.prefix.is_some()) {
            return Err(self.report(
                Diagnostic::error("A0206", format!("`{}` is written `{form}`", name.name)).label(span, "this call has another form"),
            ));
        }
        let mut values = Vec::new();
        for arg in args {
            values.push((self.expr(arg, scope), arg.span));
        }
        let over = over?;
        let mut good = Vec::new();
        for (v, s) in values {
            good.push((v?, s));
        }
        let (key, key_span) = good.remove(0);
        let have = self.graph.axes_of(key.node).clone();
        for axis in &over {
            if !have.contains(axis) && !key.conds.iter().any(|c| self.graph.axes_of(*c).contains(axis)) {
                let text = self.axis_name(*axis).to_string();
                return Err(self.report(
                    Diagnostic::error("A0302", format!("`{}[{text}]`: the argument does not vary over `{text}`", name.name))
                        .label(key_span, format!("this has axes {}", self.axes_text(have))),
                ));
            }
            self.check_reduced(*axis, &key, name.span)?;
        }
        match (name.name.as_str(), to) {
            ("list", Some(to)) => self.list(&over, to, &key, key_span, span),
            ("argsort", Some(to)) => self.argsort(&over, to, &key, key_span, span),
            ("rank", _) => {
                let node = self.ordered_key(key.node, key_span, "rank")?;
                let mask = self.all_of(&key.conds, span)?;
                let node = self.intern(Op::Rank { axes: over, key: node, mask }, span)?;
                Ok(Val { node, conds: key.conds })
            }
            (_, _) => {
                let node = self.ordered_key(key.node, key_span, "topk")?;
                let (count, count_span) = good.remove(0);
                if self.graph.dtype(count.node) != DType::Int {
                    return Err(self.report(
                        Diagnostic::error("A0401", "the count of `topk` must be an int")
                            .label(count_span, format!("this is {}", self.graph.dtype(count.node).name())),
                    ));
                }
                if let Some(axis) = over.iter().find(|a| self.graph.axes_of(count.node).contains(a)) {
                    let text = self.axis_name(*axis).to_string();
                    return Err(self.report(
                        Diagnostic::error("A0302", format!("the count of `topk[{text}]` varies over `{text}`")).label(count_span, "one count per selection"),
                    ));
                }
                let mask = self.all_of(&key.conds, span)?;
                let node = self.intern(Op::TopK { axes: over, key: node, mask, count: count.node }, span)?;
                Ok(Val { node, conds: count.conds })
            }
        }
    }

    /// A key that can be ordered; bools count as 0 and 1.
    fn ordered_key(&mut self, key: NodeId, span: Span, name: &str) -> Res<NodeId> {
        match self.graph.dtype(key) {
            DType::Bool => self.map(ScalarOp::ToInt, vec![key], span),
            DType::Int | DType::Real => Ok(key),
            DType::Complex => {
                Err(self.report(Diagnostic::error("A0401", format!("`{name}` needs a key with an order")).label(span, "this is complex")))
            }
        }
    }

    fn argsort(&mut self, over: &[AxisId], to: AxisId, key: &Val, key_span: Span, span: Span) -> Res {
        self.check_slot(over, to, key.node, span)?;
        let node = self.ordered_key(key.node, key_span, "argsort")?;
        let mask = self.all_of(&key.conds, span)?;
        let count = match mask {
            Some(mask) => {
                let full = self.over_axes(mask, over, span)?;
                self.count_present(over, Some(full), span)?
            }
            None => self.extents(over, span)?,
        };
        let node = self.over_axes(node, over, span)?;
        let node = self.intern(Op::ArgSort { axes: over.to_vec(), to, key: node, mask }, span)?;
        self.slots(node, to, count, span)
    }

    fn list(&mut self, over: &[AxisId], to: AxisId, set: &Val, set_span: Span, span: Span) -> Res {
        self.check_slot(over, to, set.node, span)?;
        if self.graph.dtype(set.node) != DType::Bool {
            return Err(self.report(
                Diagnostic::error("A0404", "`list` takes a set, a bool over its axis")
                    .label(set_span, format!("this is {}", self.graph.dtype(set.node).name()))
                    .help("write a condition, or `topk[..](x, n)`"),
            ));
        }
        let clause = self.clause(set, set_span)?;
        let members = self.over_axes(clause, over, span)?;
        let count = match self.graph.op(members).clone() {
            // A selection without a mask has as many members as were asked for, as far as there are positions.
            Op::TopK { axes, mask: None, count, .. } if axes == over => {
                let all = self.extents(over, span)?;
                self.map(ScalarOp::Min, vec![count, all], span)?
            }
            _ => self.count_present(over, Some(members), span)?,
        };
        let node = self.intern(Op::List { axes: over.to_vec(), to, set: members }, span)?;
        self.slots(node, to, count, span)
    }

    /// The value over all of `axes`.
    fn over_axes(&mut self, node: NodeId, axes: &[AxisId], span: Span) -> Res<NodeId> {
        let missing: Vec<AxisId> = axes.iter().copied().filter(|a| !self.graph.axes_of(node).contains(a)).collect();
        if missing.is_empty() { Ok(node) } else { self.intern(Op::Expand { value: node, axes: missing }, span) }
    }

    /// The slot axis must be new to the value.
    fn check_slot(&mut self, over: &[AxisId], to: AxisId, key: NodeId, span: Span) -> Res<()> {
        if over.contains(&to) || self.graph.axes_of(key).contains(&to) {
            let text = self.axis_name(to).to_string();
            return Err(self.report(
                Diagnostic::error("A0306", format!("the slots cannot be `{text}`: the argument has that axis"))
                    .label(span, "in this call")
                    .help("declare an axis for the slots: `axis j: n`"),
            ));
        }
        Ok(())
    }

    /// Slot `j` is present when `j < count`.
    fn slots(&mut self, node: NodeId, to: AxisId, count: NodeId, span: Span) -> Res {
        let slot = self.intern(Op::Index(to), span)?;
        if self.prove_less(slot, count) {
            return Ok(Val::present(node));
        }
        let cond = self.map(ScalarOp::Lt, vec![slot, count], span)?;
        self.cond_spans.entry(cond).or_insert(span);
        self.slot_conds.push(cond);
        let mut conds = Vec::new();
        self.add_cond(&mut conds, cond);
        Ok(Val { node, conds })
    }
}
