//! Expressions: literals, operators, `if`, `where`, `??`. Operators bring their operands to one dtype.

use super::scope::ScopeId;
use super::{Elab, Guard, Poison, Res, Val};
use crate::base::{Diagnostic, Span};
use crate::graph::{AxisSet, NodeId, Op};
use crate::ops::{DType, Scalar, ScalarOp};
use crate::syntax::ast::{BinOp, CmpOp, Expr, ExprKind, TypeName, UnOp};

pub(super) fn dtype_of(name: TypeName) -> DType {
    match name {
        TypeName::Real => DType::Real,
        TypeName::Int => DType::Int,
        TypeName::Bool => DType::Bool,
        TypeName::Complex => DType::Complex,
    }
}

/// The common dtype of operands: int -> real -> complex are implicit, bool mixes with nothing.
fn join(a: DType, b: DType) -> Option<DType> {
    match (a, b) {
        (DType::Bool, DType::Bool) => Some(DType::Bool),
        (DType::Bool, _) | (_, DType::Bool) => None,
        (_, _) => Some(a.max(b)),
    }
}

/// Largest exponent that is written out as products.
const SMALL_POWER: i64 = 4;

impl<'a> Elab<'a> {
    /// Elaborates an expression.
    pub(super) fn expr(&mut self, e: &'a Expr, scope: ScopeId) -> Res {
        if self.too_large {
            return Err(Poison);
        }
        match &*e.kind {
            ExprKind::Int(v) => Ok(Val::present(self.int(*v, e.span)?)),
            ExprKind::Real(v) => Ok(Val::present(self.real(*v, e.span)?)),
            ExprKind::True => Ok(Val::present(self.boolean(true, e.span)?)),
            ExprKind::False => Ok(Val::present(self.boolean(false, e.span)?)),
            ExprKind::Inf => Ok(Val::present(self.real(f64::INFINITY, e.span)?)),
            ExprKind::Name { name, primed } => self.name(name, *primed, e.span, scope),
            ExprKind::Paren(inner) => self.expr(inner, scope),
            ExprKind::Unary(op, x) => self.unary(*op, x, e.span, scope),
            ExprKind::Binary(op, a, b) => {
                let (x, y) = (self.expr(a, scope), self.expr(b, scope));
                self.binary(*op, (&x?, a.span), (&y?, b.span), e.span)
            }
            ExprKind::Compare(first, rest) => self.compare(first, rest, e.span, scope),
            ExprKind::If { cond, then, other } => self.if_then_else(cond, then, other, e.span, scope),
            ExprKind::Where(body, cond) => self.where_clause(body, cond, scope),
            ExprKind::Coalesce(a, b) => self.coalesce(a, b, e.span, scope),
            ExprKind::Read { base, subs } => self.read(base, subs, e.span, scope),
            ExprKind::Call { name, axes, args } => self.call(name, axes, args, e.span, scope),
            ExprKind::Reduce { op, axes, prefix, body, cond } => match prefix {
                None => self.reduce(op, axes, body, cond.as_ref(), e.span, scope),
                Some(dir) => self.prefix(op, axes, *dir, body, cond.as_ref(), e.span, scope),
            },
            ExprKind::Error => Err(Poison),
        }
    }

    /// A Bool expression.
    pub(super) fn condition(&mut self, e: &'a Expr, scope: ScopeId, what: &str) -> Res {
        let val = self.expr(e, scope)?;
        self.need_bool(&val, e.span, what)?;
        Ok(val)
    }

    fn need_bool(&mut self, val: &Val, span: Span, what: &str) -> Res<()> {
        let dtype = self.graph.dtype(val.node);
        if dtype == DType::Bool {
            return Ok(());
        }
        Err(self.report(
            Diagnostic::error("A0404", format!("{what} must be bool"))
                .label(span, format!("this is {}", dtype.name()))
                .help("compare it: `.. == 1`, `.. > 0`"),
        ))
    }

    /// Converts to `dtype` where that is implicit; otherwise an error that names `what`.
    pub(super) fn convert(&mut self, node: NodeId, dtype: DType, span: Span, what: &str) -> Res<NodeId> {
        let have = self.graph.dtype(node);
        if join(have, dtype) == Some(dtype) {
            return self.lift(node, dtype, span);
        }
        let help = match (have, dtype) {
            (DType::Real, DType::Int) => "write `floor(..)`, `ceil(..)` or `int(..)`",
            (DType::Bool, DType::Int) => "write `int(..)`",
            (DType::Bool, DType::Real) => "write `real(..)` or `if .. then 1 else 0`",
            (DType::Complex, _) => "write `re(..)`, `im(..)` or `abs(..)`",
            (_, DType::Bool) => "compare it: `.. != 0`",
            (_, _) => "convert it",
        };
        Err(self.report(
            Diagnostic::error("A0405", format!("{what} is {}, but this value is {}", dtype.name(), have.name()))
                .label(span, format!("{} value", have.name()))
                .help(help),
        ))
    }

    /// Int to Real to Complex.
    pub(super) fn lift(&mut self, node: NodeId, dtype: DType, span: Span) -> Res<NodeId> {
        match (self.graph.dtype(node), dtype) {
            (DType::Int, DType::Real) => self.map(ScalarOp::ToReal, vec![node], span),
            (DType::Int, DType::Complex) => {
                let real = self.map(ScalarOp::ToReal, vec![node], span)?;
                self.map(ScalarOp::ToComplex, vec![real], span)
            }
            (DType::Real, DType::Complex) => self.map(ScalarOp::ToComplex, vec![node], span),
            (_, _) => Ok(node),
        }
    }

    /// Both operands in their common dtype.
    pub(super) fn unify(&mut self, a: NodeId, b: NodeId, what: &str, span: Span) -> Res<(NodeId, NodeId, DType)> {
        let (da, db) = (self.graph.dtype(a), self.graph.dtype(b));
        let Some(dtype) = join(da, db) else {
            return Err(self.report(
                Diagnostic::error("A0401", format!("{what} mixes {} and {}", da.name(), db.name()))
                    .label(span, "operands of different dtypes")
                    .help("a bool is not a number: use `if c then x else y`, or `int(c)`"),
            ));
        };
        Ok((self.lift(a, dtype, span)?, self.lift(b, dtype, span)?, dtype))
    }

    /// Pointwise op on values: union of axes and of conditions.
    pub(super) fn pointwise(&mut self, op: ScalarOp, args: &[&Val], nodes: Vec<NodeId>, span: Span) -> Res {
        let node = self.map(op, nodes, span)?;
        let mut conds = Vec::new();
        args.iter().for_each(|a| self.add_conds(&mut conds, &a.conds));
        Ok(Val { node, conds })
    }

    fn unary(&mut self, op: UnOp, x: &'a Expr, span: Span, scope: ScopeId) -> Res {
        let val = self.expr(x, scope)?;
        let (op, fits) = match op {
            UnOp::Neg => (ScalarOp::Neg, self.graph.dtype(val.node) != DType::Bool),
            UnOp::Not => (ScalarOp::Not, self.graph.dtype(val.node) == DType::Bool),
        };
        if !fits {
            let (word, need) = if op == ScalarOp::Neg { ("-", "a number") } else { ("not", "a bool") };
            let have = self.graph.dtype(val.node).name();
            return Err(self.report(Diagnostic::error("A0401", format!("`{word}` needs {need}")).label(x.span, format!("this is {have}"))));
        }
        self.pointwise(op, &[&val], vec![val.node], span)
    }

    /// A binary operator on two values.
    pub(super) fn binary(&mut self, op: BinOp, (a, a_span): (&Val, Span), (b, b_span): (&Val, Span), span: Span) -> Res {
        let (da, db) = (self.graph.dtype(a.node), self.graph.dtype(b.node));
        let word = match op {
            BinOp::Add => "+",
            BinOp::Sub => "-",
            BinOp::Mul => "*",
            BinOp::Div => "/",
            BinOp::IntDiv => "div",
            BinOp::Mod => "mod",
            BinOp::Pow => "^",
            BinOp::And => "and",
            BinOp::Or => "or",
        };
        let logical = matches!(op, BinOp::And | BinOp::Or);
        for (dtype, place) in [(da, a_span), (db, b_span)] {
            if logical != (dtype == DType::Bool) {
                let (need, help) = if logical {
                    ("bools", "compare it: `.. != 0`")
                } else {
                    ("numbers", "use `if c then x else y`, or `int(c)`")
                };
                return Err(self.report(
                    Diagnostic::error("A0401", format!("`{word}` needs {need}")).label(place, format!("this is {}", dtype.name())).help(help),
                ));
            }
        }
        let scalar = match op {
            BinOp::And => ScalarOp::And,
            BinOp::Or => ScalarOp::Or,
            BinOp::Add => ScalarOp::Add,
            BinOp::Sub => ScalarOp::Sub,
            BinOp::Mul => ScalarOp::Mul,
            BinOp::Div => ScalarOp::Div,
            BinOp::IntDiv => ScalarOp::IntDiv,
            BinOp::Mod => ScalarOp::Mod,
            BinOp::Pow => return self.power(a, b, span),
        };
        if logical {
            return self.pointwise(scalar, &[a, b], vec![a.node, b.node], span);
        }
        if matches!(scalar, ScalarOp::IntDiv | ScalarOp::Mod) {
            for (dtype, place) in [(da, a_span), (db, b_span)] {
                if dtype != DType::Int {
                    return Err(self.report(
                        Diagnostic::error("A0401", format!("`{word}` needs ints"))
                            .label(place, format!("this is {}", dtype.name()))
                            .help("`/` divides reals; an undeclared state is real: declare `state n: int = ..`"),
                    ));
                }
            }
        }
        let (mut x, mut y, dtype) = self.unify(a.node, b.node, &format!("`{word}`"), span)?;
        if scalar == ScalarOp::Div && dtype == DType::Int {
            x = self.lift(x, DType::Real, span)?;
            y = self.lift(y, DType::Real, span)?;
        }
        self.pointwise(scalar, &[a, b], vec![x, y], span)
    }

    /// `a ^ b`: small constant int exponents are products, otherwise real; int to a constant non-negative int stays int.
    fn power(&mut self, a: &Val, b: &Val, span: Span) -> Res {
        let base = self.graph.dtype(a.node);
        let exponent = self.as_const(b.node);
        match exponent {
            Some(Scalar::Int(n)) if (1..=SMALL_POWER).contains(&n) => {
                let mut node = a.node;
                for _ in 1..n {
                    node = self.map(ScalarOp::Mul, vec![node, a.node], span)?;
                }
                return Ok(Val { node, conds: a.conds.clone() });
            }
            Some(Scalar::Int(n)) if n >= 0 && base == DType::Int => {
                return self.pointwise(ScalarOp::Pow, &[a, b], vec![a.node, b.node], span);
            }
            _ => {}
        }
        if base == DType::Complex || self.graph.dtype(b.node) == DType::Complex {
            return Err(self.report(
                Diagnostic::error("A0401", "a complex power needs a constant exponent from 1 to 4").label(span, "this power").help("use `exp`"),
            ));
        }
        let x = self.lift(a.node, DType::Real, span)?;
        let y = self.lift(b.node, DType::Real, span)?;
        self.pointwise(ScalarOp::Pow, &[a, b], vec![x, y], span)
    }

    fn compare(&mut self, first: &'a Expr, rest: &'a [(CmpOp, Expr)], span: Span, scope: ScopeId) -> Res {
        let mut values = vec![(self.expr(first, scope), first)];
        for (_, e) in rest {
            values.push((self.expr(e, scope), e));
        }
        let mut good = Vec::new();
        for (v, e) in values {
            good.push((v?, e));
        }
        let mut all: Option<Val> = None;
        for (pair, (op, _)) in good.windows(2).zip(rest) {
            let whole = if rest.len() == 1 { span } else { pair[0].1.span.to(pair[1].1.span) };
            let one = self.compare_pair(*op, (&pair[0].0, pair[0].1), (&pair[1].0, pair[1].1), whole)?;
            all = Some(match all {
                None => one,
                Some(a) => self.pointwise(ScalarOp::And, &[&a, &one], vec![a.node, one.node], span)?,
            });
        }
        all.ok_or(Poison)
    }

    fn compare_pair(&mut self, op: CmpOp, (a, ea): (&Val, &Expr), (b, eb): (&Val, &Expr), span: Span) -> Res {
        let (da, db) = (self.graph.dtype(a.node), self.graph.dtype(b.node));
        let equality = matches!(op, CmpOp::Eq | CmpOp::Ne);
        let literal = |node: NodeId| self.as_const(node).is_some();
        let mixed = matches!((da, db), (DType::Int, DType::Real) | (DType::Real, DType::Int));
        if equality && mixed && !literal(a.node) && !literal(b.node) {
            return Err(self.report(
                Diagnostic::error("A0402", "an int is compared with a real for equality")
                    .label(ea.span, format!("this is {}", da.name()))
                    .label(eb.span, format!("this is {}", db.name()))
                    .help("is a parenthesis missing? otherwise convert: `int(..)`, `real(..)`"),
            ));
        }
        let complex = da == DType::Complex || db == DType::Complex;
        if complex || (!equality && (da == DType::Bool || db == DType::Bool)) {
            let (place, which) = if complex == (da == DType::Complex) && da != DType::Int && da != DType::Real { (ea.span, da) } else { (eb.span, db) };
            return Err(self.report(
                Diagnostic::error("A0401", format!("{} values have no order", which.name()))
                    .label(place, format!("this is {}", which.name()))
                    .help(if complex { "compare `re(..)` or `abs(..)`" } else { "combine conditions with `and`, `or`, `not`" }),
            ));
        }
        let (x, y, _) = self.unify(a.node, b.node, "the comparison", span)?;
        let (scalar, x, y) = match op {
            CmpOp::Lt => (ScalarOp::Lt, x, y),
            CmpOp::Le => (ScalarOp::Le, x, y),
            CmpOp::Gt => (ScalarOp::Lt, y, x),
            CmpOp::Ge => (ScalarOp::Le, y, x),
            CmpOp::Eq => (ScalarOp::Eq, x, y),
            CmpOp::Ne => (ScalarOp::Ne, x, y),
        };
        self.pointwise(scalar, &[a, b], vec![x, y], span)
    }

    fn if_then_else(&mut self, cond: &'a Expr, then: &'a Expr, other: &'a Expr, span: Span, scope: ScopeId) -> Res {
        let c = self.condition(cond, scope, "the condition of `if`");
        let (x, y) = match &c {
            Ok(c) => {
                let guard = |negated| Guard { cond: Some(c.node), negated, arm: true };
                (self.guarded(guard(false), |s| s.expr(then, scope)), self.guarded(guard(true), |s| s.expr(other, scope)))
            }
            Err(Poison) => (self.expr(then, scope), self.expr(other, scope)),
        };
        let (c, x, y) = (c?, x?, y?);
        let (a, b, _) = self.unify(x.node, y.node, "`if`", span)?;
        let mut node = self.select(c.node, a, b, span)?;
        // A choice has the axes of its condition and of both arms, whichever arm is left of it.
        let all: AxisSet = [c.node, a, b].iter().flat_map(|n| self.graph.axes_of(*n).iter().copied()).collect();
        let missing: Vec<_> = all.difference(self.graph.axes_of(node)).copied().collect();
        if !missing.is_empty() {
            node = self.intern(Op::Expand { value: node, axes: missing }, span)?;
        }
        let mut conds = c.conds.clone();
        if let Some(arm) = self.arm_conds(c.node, &x.conds, &y.conds, span)? {
            self.add_cond(&mut conds, arm);
        }
        Ok(Val { node, conds })
    }

    fn where_clause(&mut self, body: &'a Expr, cond: &'a Expr, scope: ScopeId) -> Res {
        let m = self.condition(cond, scope, "a `where` clause");
        let Ok(m) = m else {
            let _ = self.expr(body, scope);
            return Err(Poison);
        };
        let clause = self.clause(&m, cond.span)?;
        let guard = Guard { cond: Some(clause), negated: false, arm: false };
        let mut val = self.guarded(guard, |s| s.expr(body, scope))?;
        let mut conds = std::mem::take(&mut val.conds);
        self.add_cond(&mut conds, clause);
        Ok(Val { node: val.node, conds })
    }

    fn coalesce(&mut self, a: &'a Expr, b: &'a Expr, span: Span, scope: ScopeId) -> Res {
        let free = Guard { cond: None, negated: false, arm: false };
        let (x, y) = (self.guarded(free, |s| s.expr(a, scope)), self.expr(b, scope));
        let (x, y) = (x?, y?);
        // Only what can never be absent at all: a proof that a read is in range is no reason to scold a careful author.
        let plain = matches!(&*a.kind, ExprKind::Int(_) | ExprKind::Real(_) | ExprKind::Name { .. })
            && matches!(self.graph.op(x.node), Op::Input(_) | Op::Const(_) | Op::Index(_) | Op::Extent(_) | Op::State { .. });
        if x.conds.is_empty() && plain && self.calls.is_empty() {
            self.report(
                Diagnostic::warning("A0902", "the left side of `??` is always present")
                    .label(a.span, "never absent")
                    .help("`??` binds tighter than arithmetic: is a parenthesis missing? otherwise drop it"),
            );
        }
        let (l, r, _) = self.unify(x.node, y.node, "`??`", span)?;
        self.first_present(Val { node: l, conds: x.conds }, Val { node: r, conds: y.conds }, span)
    }
}
