//! `grad(e, w)`: symbolic reverse mode on the nodes of `e`.
//!
//! `w` is replaced by a fresh variable while `e` is elaborated, so exactly the occurrences of `w` that `e` and the functions it
//! calls write are differentiated: values bound by `let` before are constants. Int and Bool parts are constants.

use super::scope::{Found, ScopeId};
use super::{Elab, Poison, Res, Val};
use crate::base::{Diagnostic, Span};
use crate::graph::{AxisId, AxisSet, InputId, NodeId, Op, PrefixDir};
use crate::ops::{DType, Scalar, ScalarOp};
use crate::reduce::ReduceOp;
use crate::syntax::ast::Expr;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Inputs with these numbers are variables of differentiation; they never leave this module.
const VARIABLES: u32 = u32::MAX / 2;

/// One differentiation.
struct Grad {
    /// Axes of `e`: never summed away.
    over: AxisSet,
    adjoint: BTreeMap<NodeId, NodeId>,
    /// Nodes that depend on the variable.
    live: HashSet<NodeId>,
    /// Where the contributions being made count at all. Masks stay outermost: a slope at an absent element may be infinite.
    mask: Option<NodeId>,
    span: Span,
}

impl<'a> Elab<'a> {
    pub(super) fn grad(&mut self, args: &'a [Expr], span: Span, scope: ScopeId) -> Res {
        let [e, w] = args else {
            return Err(self.report(Diagnostic::error("A0206", "`grad` is written `grad(expression, name)`").label(span, "this call")));
        };
        let Some((at, key, found)) = self.named_value(w, scope) else {
            return Err(self.report(
                Diagnostic::error("A0704", "the second argument of `grad` must be a named value")
                    .label(w.span, "not the name of an input, `let`, state or new state")
                    .help("bind it first: `let w = ..`"),
            ));
        };
        let Found::Val(target) = found? else {
            return Err(self.report(Diagnostic::error("A0704", format!("`{key}` is an axis")).label(w.span, "not a value")));
        };
        let dtype = self.graph.dtype(target.node);
        if dtype != DType::Real {
            return Err(self.report(Diagnostic::error("A0704", format!("`grad` by a {} value", dtype.name())).label(w.span, "must be real")));
        }
        self.leaves += 1;
        let axes = self.graph.axes_of(target.node).clone();
        let variable = self.leaf(Op::Input(InputId(VARIABLES + self.leaves)), DType::Real, axes.clone(), w.span)?;
        let stand_in = Val { node: variable, conds: target.conds.clone() };
        self.overrides.push(((at, key.clone()), stand_in));
        let value = self.expr(e, scope);
        self.overrides.pop();
        let value = value?;
        if self.graph.dtype(value.node) != DType::Real {
            return Err(self.report(
                Diagnostic::error("A0704", "`grad` of a value that is not real")
                    .label(e.span, format!("this is {}", self.graph.dtype(value.node).name())),
            ));
        }
        if !self.depends(value.node, |n| n == variable) {
            return Err(self.report(
                Diagnostic::error("A0704", format!("this expression does not mention `{key}`"))
                    .label(e.span, "its gradient is zero")
                    .help("values bound by `let` are constants for `grad`: write the expression in place, or make it a `fn`"),
            ));
        }
        let derivative = self.reverse(value.node, variable, span)?;
        let mut conds = Vec::new();
        let node = self.replace(derivative, variable, target.node, &mut HashMap::new(), span)?;
        for cond in value.conds.iter().chain(&target.conds) {
            let cond = self.replace(*cond, variable, target.node, &mut HashMap::new(), span)?;
            self.add_cond(&mut conds, cond);
        }
        Ok(Val { node, conds })
    }

    fn refuse(&mut self, what: &str, node: NodeId, span: Span) -> Poison {
        let place = self.graph.node(node).span;
        let mut d = Diagnostic::error("A0704", format!("`grad` cannot differentiate {what}")).label(span, "in this gradient");
        if place != span {
            d = d.label(place, "here");
        }
        self.report(d)
    }

    /// The derivative of each element of `y` by the variable, over the axes of `y` and those only the variable has.
    fn reverse(&mut self, y: NodeId, variable: NodeId, span: Span) -> Res<NodeId> {
        let live = self.live_nodes(y, variable, span)?;
        let mut g = Grad { over: self.graph.axes_of(y).clone(), adjoint: BTreeMap::new(), live, mask: None, span };
        let one = self.real(1.0, span)?;
        g.adjoint.insert(y, one);
        let order: BTreeSet<NodeId> = g.live.iter().copied().collect();
        // Operands come before their users, so going down the ids visits every user first.
        for id in order.into_iter().rev() {
            if id == variable {
                break;
            }
            if let Some(adjoint) = g.adjoint.get(&id).copied() {
                let (mask, inner) = self.peel(id, adjoint);
                g.mask = mask;
                self.pull(&mut g, id, inner)?;
            }
        }
        match g.adjoint.get(&variable) {
            Some(d) => Ok(*d),
            None => self.real(0.0, span),
        }
    }

    /// Real nodes between the variable and `y`.
    fn live_nodes(&mut self, y: NodeId, variable: NodeId, span: Span) -> Res<HashSet<NodeId>> {
        let mut below: BTreeSet<NodeId> = BTreeSet::new();
        let mut work = vec![y];
        while let Some(n) = work.pop() {
            if below.insert(n) {
                work.extend(self.graph.op(n).operands());
            }
        }
        let mut live = HashSet::new();
        for n in below {
            let scan = match self.graph.op(n) {
                Op::State { .. } | Op::Final { .. } | Op::History { .. } => true,
                Op::Input(_)
                | Op::Const(_)
                | Op::Index(_)
                | Op::Extent(_)
                | Op::Map { .. }
                | Op::Read { .. }
                | Op::Reduce { .. }
                | Op::Prefix { .. }
                | Op::Rank { .. }
                | Op::ArgSort { .. }
                | Op::TopK { .. }
                | Op::List { .. }
                | Op::Solve { .. }
                | Op::Expand { .. } => false,
            };
            if scan && self.depends(n, |x| x == variable) {
                return Err(self.refuse("through a scan", n, span));
            }
            let through = n == variable || self.graph.op(n).operands().iter().any(|o| live.contains(o));
            let number = matches!(self.graph.dtype(n), DType::Real | DType::Complex);
            if through && number {
                live.insert(n);
            }
        }
        Ok(live)
    }

    /// Adds a contribution to the adjoint of `to`, summed over axes that neither `to` nor `e` has.
    fn push(&mut self, g: &mut Grad, to: NodeId, contribution: NodeId) -> Res<()> {
        if !g.live.contains(&to) {
            return Ok(());
        }
        if self.graph.dtype(to) == DType::Complex {
            return Err(self.refuse("complex values", to, g.span));
        }
        let contribution = self.masked(g.mask, contribution, g.span)?;
        let own = self.graph.axes_of(to).clone();
        let extra: Vec<AxisId> = self.graph.axes_of(contribution).iter().copied().filter(|a| !own.contains(a) && !g.over.contains(a)).collect();
        let part =
            if extra.is_empty() { contribution } else { self.reduction(ReduceOp::Sum, &extra, contribution, None, g.span)? };
        let total = match g.adjoint.get(&to) {
            Some(old) => self.map(ScalarOp::Add, vec![*old, part], g.span)?,
            None => part,
        };
        g.adjoint.insert(to, total);
        Ok(())
    }

    /// An adjoint `select(mask, x, 0)` as mask and `x`, where the pull works element by element.
    fn peel(&self, id: NodeId, adjoint: NodeId) -> (Option<NodeId>, NodeId) {
        let pointwise = matches!(self.graph.op(id), Op::Map { .. } | Op::Expand { .. } | Op::Reduce { .. });
        match self.graph.op(adjoint) {
            Op::Map { op: ScalarOp::Select, args } if pointwise && self.as_const(args[2]) == Some(Scalar::Real(0.0)) => (Some(args[0]), args[1]),
            _ => (None, adjoint),
        }
    }

    /// Contribution that is taken only where `mask` holds.
    fn masked(&mut self, mask: Option<NodeId>, value: NodeId, span: Span) -> Res<NodeId> {
        let Some(mask) = mask else { return Ok(value) };
        let zero = self.real(0.0, span)?;
        self.select(mask, value, zero, span)
    }

    fn pull(&mut self, g: &mut Grad, id: NodeId, d: NodeId) -> Res<()> {
        let span = g.span;
        match self.graph.op(id).clone() {
            Op::Map { op, args } => self.pull_map(g, id, op, &args, d),
            Op::Expand { value, .. } => self.push(g, value, d),
            Op::Read { value, subs } => self.pull_read(g, id, value, &subs, d),
            Op::Reduce { op, axes, body, mask } => {
                if axes.iter().any(|a| g.over.contains(a)) {
                    return Err(self.shared(id, span));
                }
                match op {
                    ReduceOp::Sum => {
                        // The body may lack an axis that only the mask has; every repetition counts.
                        let part = self.masked(mask, d, span)?;
                        let absent: Vec<AxisId> = axes
                            .iter()
                            .copied()
                            .filter(|a| !self.graph.axes_of(body).contains(a) && !self.graph.axes_of(part).contains(a))
                            .collect();
                        let part = if absent.is_empty() {
                            part
                        } else {
                            let times = self.extents(&absent, span)?;
                            let times = self.lift(times, DType::Real, span)?;
                            self.map(ScalarOp::Mul, vec![part, times], span)?
                        };
                        self.push(g, body, part)
                    }
                    ReduceOp::Max | ReduceOp::Min => {
                        let [axis] = axes[..] else { return Err(self.refuse("a maximum over several axes at once", id, span)) };
                        let row = if op == ReduceOp::Max { ReduceOp::ArgMax } else { ReduceOp::ArgMin };
                        let best = self.reduction(row, &axes, body, mask, span)?;
                        let here = self.intern(Op::Index(axis), span)?;
                        let chosen = self.map(ScalarOp::Eq, vec![here, best], span)?;
                        let part = self.masked(Some(chosen), d, span)?;
                        self.push(g, body, part)
                    }
                    ReduceOp::Prod => {
                        let [axis] = axes[..] else { return Err(self.refuse("a product over several axes at once", id, span)) };
                        let before = self.intern(Op::Prefix { op: ReduceOp::Prod, axis, dir: PrefixDir::Lt, body, mask }, span)?;
                        let after = self.intern(Op::Prefix { op: ReduceOp::Prod, axis, dir: PrefixDir::Gt, body, mask }, span)?;
                        let others = self.map(ScalarOp::Mul, vec![before, after], span)?;
                        let part = self.map(ScalarOp::Mul, vec![d, others], span)?;
                        let part = self.masked(mask, part, span)?;
                        self.push(g, body, part)
                    }
                    ReduceOp::Any | ReduceOp::All | ReduceOp::ArgMax | ReduceOp::ArgMin => Ok(()),
                }
            }
            Op::Prefix { op: ReduceOp::Sum, axis, dir, body, mask } => {
                if g.over.contains(&axis) {
                    return Err(self.shared(id, span));
                }
                let back = match dir {
                    PrefixDir::Le => PrefixDir::Ge,
                    PrefixDir::Lt => PrefixDir::Gt,
                    PrefixDir::Ge => PrefixDir::Le,
                    PrefixDir::Gt => PrefixDir::Lt,
                };
                let full = if self.graph.axes_of(d).contains(&axis) { d } else { self.intern(Op::Expand { value: d, axes: vec![axis] }, span)? };
                let part = self.intern(Op::Prefix { op: ReduceOp::Sum, axis, dir: back, body: full, mask: None }, span)?;
                let part = self.masked(mask, part, span)?;
                self.push(g, body, part)
            }
            Op::Prefix { .. } => Err(self.refuse("this prefix reduction", id, span)),
            Op::Solve { .. } => Err(self.refuse("a system", id, span)),
            Op::State { .. } | Op::Final { .. } | Op::History { .. } => Err(self.refuse("through a scan", id, span)),
            Op::Input(_) | Op::Const(_) | Op::Index(_) | Op::Extent(_) => Ok(()),
            Op::Rank { .. } | Op::ArgSort { .. } | Op::TopK { .. } | Op::List { .. } => Ok(()),
        }
    }

    fn shared(&mut self, node: NodeId, span: Span) -> Poison {
        let place = self.graph.node(node).span;
        let mut d = Diagnostic::error("A0705", "`grad` of an expression that uses the value at other positions of a shared axis").label(span, "in this gradient");
        if place != span {
            d = d.label(place, "other positions are used here");
        }
        self.report(d.help("axes that both the expression and the value have stand for the same position; sum the expression over them"))
    }

    /// The adjoint of a read goes back to the positions that were read.
    fn pull_read(&mut self, g: &mut Grad, id: NodeId, value: NodeId, subs: &[(AxisId, NodeId)], d: NodeId) -> Res<()> {
        let span = g.span;
        if !g.live.contains(&value) {
            return Ok(());
        }
        let mut kept = self.graph.axes_of(value).clone();
        subs.iter().for_each(|s| {
            kept.remove(&s.0);
        });
        let mut part = d;
        // Positions of the result and positions of the value may go by the same axis; then the former get one of their own.
        let plain = subs.iter().all(|s| matches!(self.graph.op(s.1), Op::Index(_)));
        let mut fresh: Vec<(AxisId, NodeId)> = Vec::new();
        if !plain {
            let used: AxisSet = subs.iter().flat_map(|s| self.graph.axes_of(s.1).iter().copied()).collect();
            for axis in used.into_iter().filter(|a| subs.iter().any(|s| s.0 == *a)) {
                let extent = self.extent(axis, span)?;
                let name = format!("{}_", self.axis_name(axis));
                let copy = self.add_axis(&name, extent, span);
                fresh.push((axis, self.intern(Op::Index(copy), span)?));
            }
        }
        let mut moved: Vec<(AxisId, NodeId)> = Vec::new();
        for (axis, index) in subs {
            moved.push((*axis, self.substitute(*index, &fresh, span)?));
        }
        part = self.substitute(part, &fresh, span)?;
        let subs = &moved[..];
        let mut renames: Vec<(AxisId, NodeId)> = Vec::new();
        let mut conds: Vec<NodeId> = Vec::new();
        let mut summed: Vec<AxisId> = Vec::new();
        for (axis, index) in subs {
            if g.over.contains(axis) {
                return Err(self.shared(id, span));
            }
            let target = self.intern(Op::Index(*axis), span)?;
            match *self.graph.op(*index) {
                // The axis `b` of the read takes the place of `axis`, one to one.
                Op::Index(b) if !g.over.contains(&b) && !kept.contains(&b) && subs.iter().filter(|s| self.graph.axes_of(s.1).contains(&b)).count() == 1 => {
                    if self.graph.axes_of(part).contains(&b) {
                        renames.push((b, target));
                    } else {
                        // The same at every position of `b`; positions past its end are not read.
                        let extent = self.extent(b, span)?;
                        let there = self.map(ScalarOp::Lt, vec![target, extent], span)?;
                        if self.origin(b) != self.origin(*axis) {
                            conds.push(there);
                        }
                    }
                }
                _ => {
                    conds.push(self.map(ScalarOp::Eq, vec![*index, target], span)?);
                    let own = self.graph.axes_of(*index).clone();
                    summed.extend(own.into_iter().filter(|a| !g.over.contains(a) && !kept.contains(a)));
                }
            }
        }
        for cond in conds {
            part = self.masked(Some(cond), part, span)?;
        }
        summed.sort();
        summed.dedup();
        summed.retain(|a| !renames.iter().any(|r| r.0 == *a));
        if !summed.is_empty() {
            part = self.reduction(ReduceOp::Sum, &summed, part, None, span)?;
        }
        if !renames.is_empty() {
            part = self.substitute(part, &renames, span)?;
        }
        self.push(g, value, part)
    }

    fn pull_map(&mut self, g: &mut Grad, id: NodeId, op: ScalarOp, args: &[NodeId], d: NodeId) -> Res<()> {
        let span = g.span;
        let real = |s: &mut Self, v: f64| s.real(v, span);
        let m = |s: &mut Self, op: ScalarOp, args: &[NodeId]| s.map(op, args.to_vec(), span);
        let x = args[0];
        match op {
            ScalarOp::Add => {
                self.push(g, args[0], d)?;
                self.push(g, args[1], d)
            }
            ScalarOp::Sub => {
                self.push(g, args[0], d)?;
                let minus = m(self, ScalarOp::Neg, &[d])?;
                self.push(g, args[1], minus)
            }
            ScalarOp::Mul => {
                for (own, other) in [(args[0], args[1]), (args[1], args[0])] {
                    if g.live.contains(&own) {
                        let part = m(self, ScalarOp::Mul, &[d, other])?;
                        self.push(g, own, part)?;
                    }
                }
                Ok(())
            }
            ScalarOp::Div | ScalarOp::Ratio => {
                let part = m(self, op, &[d, args[1]])?;
                self.push(g, args[0], part)?;
                if g.live.contains(&args[1]) {
                    let scaled = m(self, ScalarOp::Mul, &[part, id])?;
                    let minus = m(self, ScalarOp::Neg, &[scaled])?;
                    self.push(g, args[1], minus)?;
                }
                Ok(())
            }
            ScalarOp::Neg => {
                let part = m(self, ScalarOp::Neg, &[d])?;
                self.push(g, x, part)
            }
            ScalarOp::Pow => {
                let y = args[1];
                if g.live.contains(&x) {
                    let one = real(self, 1.0)?;
                    let less = m(self, ScalarOp::Sub, &[y, one])?;
                    let power = m(self, ScalarOp::Pow, &[x, less])?;
                    let slope = m(self, ScalarOp::Mul, &[y, power])?;
                    let part = m(self, ScalarOp::Mul, &[d, slope])?;
                    self.push(g, x, part)?;
                }
                if g.live.contains(&y) {
                    let log = m(self, ScalarOp::Log, &[x])?;
                    let slope = m(self, ScalarOp::Mul, &[id, log])?;
                    let part = m(self, ScalarOp::Mul, &[d, slope])?;
                    self.push(g, y, part)?;
                }
                Ok(())
            }
            ScalarOp::Min | ScalarOp::Max => {
                // Ties go to the first operand.
                let (a, b) = if op == ScalarOp::Max { (args[1], args[0]) } else { (args[0], args[1]) };
                let first = m(self, ScalarOp::Le, &[a, b])?;
                let zero = real(self, 0.0)?;
                let left = self.select(first, d, zero, span)?;
                self.push(g, args[0], left)?;
                let right = self.select(first, zero, d, span)?;
                self.push(g, args[1], right)
            }
            ScalarOp::Select => {
                let zero = real(self, 0.0)?;
                let left = self.select(args[0], d, zero, span)?;
                self.push(g, args[1], left)?;
                let right = self.select(args[0], zero, d, span)?;
                self.push(g, args[2], right)
            }
            ScalarOp::ExpDiff => {
                let part = m(self, ScalarOp::Mul, &[d, id])?;
                self.push(g, args[0], part)?;
                let minus = m(self, ScalarOp::Neg, &[part])?;
                self.push(g, args[1], minus)
            }
            ScalarOp::Floor | ScalarOp::Ceil | ScalarOp::Rint | ScalarOp::Sign => Ok(()),
            ScalarOp::Abs
            | ScalarOp::Exp
            | ScalarOp::Log
            | ScalarOp::Log1p
            | ScalarOp::Sqrt
            | ScalarOp::Tanh
            | ScalarOp::Sigmoid
            | ScalarOp::Softplus
            | ScalarOp::Sin
            | ScalarOp::Cos
            | ScalarOp::Erf => {
                if self.graph.dtype(x) != DType::Real {
                    return Err(self.refuse("complex values", id, span));
                }
                let part = self.slope(op, x, id, d, span)?;
                self.push(g, x, part)
            }
            ScalarOp::ToComplex | ScalarOp::Complex | ScalarOp::Re | ScalarOp::Im => Err(self.refuse("complex values", id, span)),
            ScalarOp::IntDiv
            | ScalarOp::Mod
            | ScalarOp::Xor
            | ScalarOp::BitAnd
            | ScalarOp::BitOr
            | ScalarOp::Shl
            | ScalarOp::Shr
            | ScalarOp::CeilDiv
            | ScalarOp::CeilLog2
            | ScalarOp::Pow2Ceil
            | ScalarOp::Lt
            | ScalarOp::Le
            | ScalarOp::Eq
            | ScalarOp::Ne
            | ScalarOp::And
            | ScalarOp::Or
            | ScalarOp::Not
            | ScalarOp::ToReal
            | ScalarOp::ToInt => Ok(()),
        }
    }

    /// `d` times the slope of a function of one real at `x`, whose value is `y`.
    fn slope(&mut self, op: ScalarOp, x: NodeId, y: NodeId, d: NodeId, span: Span) -> Res<NodeId> {
        let one = self.real(1.0, span)?;
        let slope = match op {
            ScalarOp::Abs => self.map(ScalarOp::Sign, vec![x], span)?,
            ScalarOp::Exp => y,
            ScalarOp::Log => return self.map(ScalarOp::Div, vec![d, x], span),
            ScalarOp::Log1p => {
                let more = self.map(ScalarOp::Add, vec![one, x], span)?;
                return self.map(ScalarOp::Div, vec![d, more], span);
            }
            ScalarOp::Sqrt => {
                let twice = self.map(ScalarOp::Add, vec![y, y], span)?;
                return self.map(ScalarOp::Div, vec![d, twice], span);
            }
            ScalarOp::Tanh => {
                let square = self.map(ScalarOp::Mul, vec![y, y], span)?;
                self.map(ScalarOp::Sub, vec![one, square], span)?
            }
            ScalarOp::Sigmoid => {
                let rest = self.map(ScalarOp::Sub, vec![one, y], span)?;
                self.map(ScalarOp::Mul, vec![y, rest], span)?
            }
            ScalarOp::Softplus => self.map(ScalarOp::Sigmoid, vec![x], span)?,
            ScalarOp::Sin => self.map(ScalarOp::Cos, vec![x], span)?,
            ScalarOp::Cos => {
                let sine = self.map(ScalarOp::Sin, vec![x], span)?;
                self.map(ScalarOp::Neg, vec![sine], span)?
            }
            _ => {
                // erf: 2 / sqrt(pi) * exp(-x^2)
                let square = self.map(ScalarOp::Mul, vec![x, x], span)?;
                let minus = self.map(ScalarOp::Neg, vec![square], span)?;
                let bell = self.map(ScalarOp::Exp, vec![minus], span)?;
                let scale = self.real(std::f64::consts::FRAC_2_SQRT_PI, span)?;
                self.map(ScalarOp::Mul, vec![scale, bell], span)?
            }
        };
        self.map(ScalarOp::Mul, vec![d, slope], span)
    }

    /// `node` with the variable replaced by the value it stands for.
    fn replace(&mut self, node: NodeId, variable: NodeId, by: NodeId, memo: &mut HashMap<NodeId, NodeId>, span: Span) -> Res<NodeId> {
        if node == variable {
            return Ok(by);
        }
        if let Some(done) = memo.get(&node) {
            return Ok(*done);
        }
        let op = self.graph.op(node).clone();
        let mut changed = false;
        let mut map: HashMap<NodeId, NodeId> = HashMap::new();
        for operand in op.operands() {
            let new = self.replace(operand, variable, by, memo, span)?;
            changed |= new != operand;
            map.insert(operand, new);
        }
        let out = if changed {
            let place = self.graph.node(node).span;
            self.intern(op.map_operands(|o| map.get(&o).copied().unwrap_or(o)), place)?
        } else {
            node
        };
        memo.insert(node, out);
        Ok(out)
    }
}
