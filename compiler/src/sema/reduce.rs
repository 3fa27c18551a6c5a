//! Reductions and prefix reductions: which conditions they consume, `count` and `mean`, the two checks that catch a forgotten
//! renaming (the reduced axis must occur in the body; no factor may vary over a twin instead).

use super::scope::ScopeId;
use super::{Elab, Guard, Poison, Res, Val};
use crate::base::{Diagnostic, Span};
use crate::graph::{AxisId, AxisSet, NodeId, Op, PrefixDir};
use crate::ops::{DType, ScalarOp};
use crate::reduce::ReduceOp;
use crate::syntax::ast::{self, BinOp, Expr, ExprKind, Ident};

/// A word of the closed table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Row(ReduceOp),
    Count,
    Mean,
}

impl Word {
    fn parse(name: &str) -> Option<Word> {
        match name {
            "count" => Some(Word::Count),
            "mean" => Some(Word::Mean),
            _ => ReduceOp::ALL.iter().copied().find(|r| r.name() == name).map(Word::Row),
        }
    }

    /// Whether the body is a set or condition rather than a term.
    fn takes_bool(self) -> bool {
        matches!(self, Word::Count | Word::Row(ReduceOp::Any | ReduceOp::All))
    }
}

/// A factor of a body: its place and axes.
type Factor = (Span, AxisSet);

impl<'a> Elab<'a> {
    pub(super) fn reduce(&mut self, op: &'a Ident, axes: &'a [Ident], body: &'a Expr, cond: Option<&'a Expr>, span: Span, scope: ScopeId) -> Res {
        let word = self.word(op)?;
        let axes = self.reduced_axes(axes, span, scope)?;
        if let Word::Row(row @ (ReduceOp::ArgMax | ReduceOp::ArgMin)) = word
            && axes.len() != 1
        {
            return Err(self.report(
                Diagnostic::error("A0308", format!("`{}` takes one axis", row.name()))
                    .label(span, "over several axes")
                    .help("declare a flat axis: `axis p: N*C` and read `x[n = p div C, c = p mod C]`"),
            ));
        }
        let (val, factors) = self.body_where(body, cond, scope)?;
        self.check_body(word, op, &axes, &val, &factors, body)?;
        for axis in &axes {
            self.check_reduced(*axis, &val, op.span)?;
        }
        let (mine, rest) = self.split_conds(&val.conds, &axes);
        let mask = self.all_of(&mine, span)?;
        if let Some(mask) = mask
            && self.calls.is_empty()
            && self.never(mask)
        {
            let place = cond.map_or(body.span, |c| c.span);
            let d = Diagnostic::warning("A0901", format!("`{}` never finds an element: its mask is always false", op.name)).label(place, "never holds");
            self.report(d.help("conditions of the body count too: do two of them exclude each other?"));
        }
        let node = self.body_dtype(word, val.node, op, body.span)?;
        let mut conds = rest;
        let out = match word {
            Word::Count => {
                let ones = self.ones(node, span)?;
                self.reduction(ReduceOp::Sum, &axes, ones, mask, span)?
            }
            Word::Mean => {
                let sum = self.reduction(ReduceOp::Sum, &axes, node, mask, span)?;
                let count = self.count_present(&axes, mask, span)?;
                self.over_count(sum, count, span)?
            }
            Word::Row(row) => {
                if matches!(row, ReduceOp::ArgMax | ReduceOp::ArgMin)
                    && let Some(mask) = mask
                {
                    let any = self.reduction(ReduceOp::Any, &axes, mask, None, span)?;
                    self.cond_spans.entry(any).or_insert(span);
                    self.add_cond(&mut conds, any);
                }
                self.reduction(row, &axes, node, mask, span)?
            }
        };
        Ok(Val { node: out, conds })
    }

    pub(super) fn prefix(
        &mut self,
        op: &'a Ident,
        axes: &'a [Ident],
        dir: ast::PrefixDir,
        body: &'a Expr,
        cond: Option<&'a Expr>,
        span: Span,
        scope: ScopeId,
    ) -> Res {
        let word = self.word(op)?;
        let Some(first) = axes.first() else { return Err(Poison) };
        let axis = self.axis_named(first, scope)?;
        let (val, factors) = self.body_where(body, cond, scope)?;
        self.check_body(word, op, &[axis], &val, &factors, body)?;
        self.check_reduced(axis, &val, op.span)?;
        let (mine, rest) = self.split_conds(&val.conds, &[axis]);
        let mask = self.all_of(&mine, span)?;
        let node = self.body_dtype(word, val.node, op, body.span)?;
        let dir = match dir {
            ast::PrefixDir::Le => PrefixDir::Le,
            ast::PrefixDir::Lt => PrefixDir::Lt,
            ast::PrefixDir::Ge => PrefixDir::Ge,
            ast::PrefixDir::Gt => PrefixDir::Gt,
        };
        let scan = |s: &mut Self, row: ReduceOp, body: NodeId, mask: Option<NodeId>| s.intern(Op::Prefix { op: row, axis, dir, body, mask }, span);
        let mut conds = rest;
        let out = match word {
            Word::Count => {
                let ones = self.ones(node, span)?;
                scan(self, ReduceOp::Sum, ones, mask)?
            }
            Word::Mean => {
                let sum = scan(self, ReduceOp::Sum, node, mask)?;
                let count = match mask {
                    Some(m) => {
                        let ones = self.ones(m, span)?;
                        scan(self, ReduceOp::Sum, ones, None)?
                    }
                    None => self.prefix_length(axis, dir, span)?,
                };
                self.over_count(sum, count, span)?
            }
            Word::Row(row) => {
                if matches!(row, ReduceOp::ArgMax | ReduceOp::ArgMin) {
                    let there = match mask {
                        Some(m) => m,
                        None => {
                            let yes = self.boolean(true, span)?;
                            self.intern(Op::Expand { value: yes, axes: vec![axis] }, span)?
                        }
                    };
                    let any = scan(self, ReduceOp::Any, there, None)?;
                    self.add_cond(&mut conds, any);
                }
                scan(self, row, node, mask)?
            }
        };
        Ok(Val { node: out, conds })
    }

    fn word(&mut self, op: &Ident) -> Res<Word> {
        match Word::parse(&op.name) {
            Some(word) => Ok(word),
            None => Err(self.report(Diagnostic::error("A0203", format!("`{}` is not a reduction", op.name)).label(op.span, "unknown reduction"))),
        }
    }

    /// The axes of a reduction, without repetition.
    pub(super) fn reduced_axes(&mut self, names: &[Ident], span: Span, scope: ScopeId) -> Res<Vec<AxisId>> {
        let mut out: Vec<AxisId> = Vec::new();
        for name in names {
            for axis in self.axes_named(name, scope)? {
                if out.contains(&axis) {
                    return Err(self.report(
                        Diagnostic::error("A0306", format!("axis `{}` is given twice", self.axis_name(axis))).label(name.span, "second time"),
                    ));
                }
                out.push(axis);
            }
        }
        if out.is_empty() {
            return Err(self.report(Diagnostic::error("A0309", "name the axes: `[s]`").label(span, "over which axes?")));
        }
        Ok(out)
    }

    /// The body with the clause of the reduction as one more condition, and the factors of the body.
    fn body_where(&mut self, body: &'a Expr, cond: Option<&'a Expr>, scope: ScopeId) -> Res<(Val, Vec<Factor>)> {
        let mut factors = Vec::new();
        let Some(cond) = cond else {
            let val = self.product(body, scope, &mut factors)?;
            return Ok((val, factors));
        };
        let m = self.condition(cond, scope, "a `where` clause");
        let Ok(m) = m else {
            let _ = self.product(body, scope, &mut factors);
            return Err(Poison);
        };
        let clause = self.clause(&m, cond.span)?;
        let guard = Guard { cond: Some(clause), negated: false, arm: false };
        let mut val = self.guarded(guard, |s| s.product(body, scope, &mut factors))?;
        let mut conds = std::mem::take(&mut val.conds);
        self.add_cond(&mut conds, clause);
        Ok((Val { node: val.node, conds }, factors))
    }

    /// Elaborates a product and notes its factors.
    fn product(&mut self, e: &'a Expr, scope: ScopeId, factors: &mut Vec<Factor>) -> Res {
        match &*e.kind {
            ExprKind::Paren(inner) if matches!(&*inner.kind, ExprKind::Binary(BinOp::Mul | BinOp::Div, ..) | ExprKind::Paren(_)) => {
                self.product(inner, scope, factors)
            }
            ExprKind::Binary(op @ (BinOp::Mul | BinOp::Div), a, b) => {
                let (x, y) = (self.product(a, scope, factors), self.product(b, scope, factors));
                self.binary(*op, (&x?, a.span), (&y?, b.span), e.span)
            }
            _ => {
                let val = self.expr(e, scope)?;
                factors.push((e.span, self.graph.axes_of(val.node).clone()));
                Ok(val)
            }
        }
    }

    /// Rules 1 and 2: the axis occurs in the body, and no factor varies over a twin of it instead.
    fn check_body(&mut self, word: Word, op: &Ident, axes: &[AxisId], val: &Val, factors: &[Factor], body: &Expr) -> Res<()> {
        let have = self.graph.axes_of(val.node).clone();
        let literal = self.as_const(val.node).is_some();
        for axis in axes {
            let masked = val.conds.iter().any(|c| self.graph.axes_of(*c).contains(axis));
            let name = self.axis_name(*axis).to_string();
            if have.contains(axis) || literal || (word.takes_bool() && masked) {
                continue;
            }
            let declared = self.graph.axis(*axis).span;
            let mut d = Diagnostic::error("A0302", format!("`{}[{name}]`: the body does not vary over `{name}`", op.name))
                .label(body.span, format!("this has axes {}", self.axes_text(have.clone())));
            if declared.source == body.span.source {
                d = d.label(declared, format!("`{name}` comes from here"));
            }
            let twin = have.iter().copied().find(|a| self.origin(*a) == self.origin(*axis));
            d = match twin {
                Some(t) => d.help(format!("was a renaming forgotten? read a factor at `[{} = {name}]`", self.axis_name(t))),
                None if masked => d.help("only its mask does; to count positions write `count`"),
                None => d.help("a sum over an axis that is not there would only multiply; write the factor if that is meant"),
            };
            return Err(self.report(d));
        }
        if !matches!(word, Word::Mean | Word::Row(ReduceOp::Sum)) {
            return Ok(());
        }
        for axis in axes {
            for (place, over) in factors {
                let twin = over.iter().copied().find(|t| self.renamed.iter().any(|(a, b)| (a, b) == (axis, t) || (a, b) == (t, axis)));
                if let Some(twin) = twin.filter(|_| !over.contains(axis)) {
                    let (name, other) = (self.axis_name(*axis).to_string(), self.axis_name(twin).to_string());
                    return Err(self.report(
                        Diagnostic::error("A0303", format!("a factor of `{}[{name}]` varies over `{other}`, not over `{name}`", op.name))
                            .label(*place, format!("has axes {}", self.axes_text(over.clone())))
                            .label(op.span, format!("`{name}` is summed here"))
                            .help(format!("read it at the summed position: `[{other} = {name}]`; or write the factor outside the {}", op.name)),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Values of the running step cannot be reduced over the steps.
    pub(super) fn check_reduced(&mut self, axis: AxisId, val: &Val, span: Span) -> Res<()> {
        let Some(scan) = self.open_scan(axis) else { return Ok(()) };
        let inside = self.depends_on_scan(val.node, scan) || val.conds.iter().any(|c| self.depends_on_scan(*c, scan));
        if !inside {
            return Ok(());
        }
        let name = self.axis_name(axis).to_string();
        Err(self.report(
            Diagnostic::error("A0307", format!("a value of the running step has no axis `{name}`"))
                .label(span, format!("goes over `{name}`, the axis of the scan"))
                .help("export the value and reduce it after the scan, or keep a running result in a state"),
        ))
    }

    fn body_dtype(&mut self, word: Word, node: NodeId, op: &Ident, span: Span) -> Res<NodeId> {
        let dtype = self.graph.dtype(node);
        let (fits, need) = match word {
            Word::Count => (dtype == DType::Bool, "a bool"),
            Word::Mean => (dtype != DType::Bool, "numbers"),
            Word::Row(row) => (row.result(dtype).is_some(), if word.takes_bool() { "a bool" } else { "numbers with an order" }),
        };
        let need = if matches!(word, Word::Row(ReduceOp::Sum | ReduceOp::Prod)) { "numbers" } else { need };
        if !fits {
            let d = Diagnostic::error("A0401", format!("`{}` needs {need}", op.name)).label(span, format!("this is {}", dtype.name()));
            let d = if dtype == DType::Bool {
                d.help("to count where it holds write `count`")
            } else if word.takes_bool() {
                d.help("put the comparison in parentheses: `any[s] (x == y)`")
            } else {
                d
            };
            return Err(self.report(d));
        }
        if word == Word::Mean { self.lift(node, DType::Real, span) } else { Ok(node) }
    }

    /// 1 where the Bool holds, else 0.
    pub(super) fn ones(&mut self, node: NodeId, span: Span) -> Res<NodeId> {
        let (one, zero) = (self.int(1, span)?, self.int(0, span)?);
        self.select(node, one, zero, span)
    }

    /// Number of present positions over `axes`, an Int; an axis that the mask lacks multiplies.
    pub(super) fn count_present(&mut self, axes: &[AxisId], mask: Option<NodeId>, span: Span) -> Res<NodeId> {
        let Some(mask) = mask else { return self.extents(axes, span) };
        let (own, other): (Vec<AxisId>, Vec<AxisId>) = axes.iter().partition(|a| self.graph.axes_of(mask).contains(a));
        let count = match self.count_below(&own, mask, span)? {
            Some(count) => count,
            None => {
                let ones = self.ones(mask, span)?;
                self.reduction(ReduceOp::Sum, &own, ones, None, span)?
            }
        };
        if other.is_empty() {
            return Ok(count);
        }
        let times = self.extents(&other, span)?;
        self.map(ScalarOp::Mul, vec![count, times], span)
    }

    /// The count of `t < e` over `t`, where `e` does not vary over `t`, is `e` clamped to the extent.
    fn count_below(&mut self, axes: &[AxisId], mask: NodeId, span: Span) -> Res<Option<NodeId>> {
        let [axis] = axes else { return Ok(None) };
        let Op::Map { op: op @ (ScalarOp::Lt | ScalarOp::Le), args } = self.graph.op(mask).clone() else { return Ok(None) };
        if *self.graph.op(args[0]) != Op::Index(*axis) || self.graph.axes_of(args[1]).contains(axis) || self.graph.dtype(args[1]) != DType::Int {
            return Ok(None);
        }
        let mut bound = args[1];
        if op == ScalarOp::Le {
            let one = self.int(1, span)?;
            bound = self.map(ScalarOp::Add, vec![bound, one], span)?;
        }
        let extent = self.extent(*axis, span)?;
        let zero = self.int(0, span)?;
        let low = self.map(ScalarOp::Min, vec![bound, extent], span)?;
        Ok(Some(self.map(ScalarOp::Max, vec![low, zero], span)?))
    }

    /// sum / max(count, 1)
    fn over_count(&mut self, sum: NodeId, count: NodeId, span: Span) -> Res<NodeId> {
        let one = self.int(1, span)?;
        let count = self.map(ScalarOp::Max, vec![count, one], span)?;
        let dtype = self.graph.dtype(sum);
        let count = self.lift(count, dtype, span)?;
        self.map(ScalarOp::Div, vec![sum, count], span)
    }

    /// How many positions a prefix takes when all are present.
    fn prefix_length(&mut self, axis: AxisId, dir: PrefixDir, span: Span) -> Res<NodeId> {
        let here = self.intern(Op::Index(axis), span)?;
        let (one, extent) = (self.int(1, span)?, self.extent(axis, span)?);
        match dir {
            PrefixDir::Le => self.map(ScalarOp::Add, vec![here, one], span),
            PrefixDir::Lt => Ok(here),
            PrefixDir::Ge => self.map(ScalarOp::Sub, vec![extent, here], span),
            PrefixDir::Gt => {
                let from = self.map(ScalarOp::Sub, vec![extent, here], span)?;
                self.map(ScalarOp::Sub, vec![from, one], span)
            }
        }
    }
}
