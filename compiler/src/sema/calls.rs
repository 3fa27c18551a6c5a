//! Calls: scalar rows of the op table, builtins over axes and names, and inlining of functions.

use super::scope::{Found, Kind, ScopeId, SlotState};
use super::{Elab, Poison, Res, Val};
use crate::base::{Diagnostic, Span};
use crate::graph::{AxisId, Op};
use crate::ops::{DType, Scalar, ScalarOp};
use crate::syntax::ast::{AxisArg, Expr, ExprKind, FnDecl, Ident, StmtKind};

/// Deepest nesting of inlined functions.
const MAX_CALLS: usize = 64;

/// Most calls that are inlined in one kernel.
const MAX_INLINED: usize = 50_000;

/// Rows that are called by name; the others have operators.
const FUNCTIONS: &[ScalarOp] = &[
    ScalarOp::Min,
    ScalarOp::Max,
    ScalarOp::Abs,
    ScalarOp::Sign,
    ScalarOp::Floor,
    ScalarOp::Ceil,
    ScalarOp::Rint,
    ScalarOp::Exp,
    ScalarOp::Log,
    ScalarOp::Log1p,
    ScalarOp::Sqrt,
    ScalarOp::Tanh,
    ScalarOp::Sigmoid,
    ScalarOp::Softplus,
    ScalarOp::Sin,
    ScalarOp::Cos,
    ScalarOp::Erf,
    ScalarOp::ExpDiff,
    ScalarOp::Ratio,
    ScalarOp::Xor,
    ScalarOp::BitAnd,
    ScalarOp::BitOr,
    ScalarOp::Shl,
    ScalarOp::Shr,
    ScalarOp::CeilDiv,
    ScalarOp::CeilLog2,
    ScalarOp::Pow2Ceil,
    ScalarOp::ToReal,
    ScalarOp::ToInt,
    ScalarOp::Complex,
    ScalarOp::Re,
    ScalarOp::Im,
];

const SPECIAL: &[&str] = &["len", "present", "expand", "grad", "bool", "topk", "rank", "argsort", "list"];
const REDUCTIONS: &[&str] = &["sum", "prod", "any", "all", "count", "mean", "argmax", "argmin"];

fn function(name: &str) -> Option<ScalarOp> {
    FUNCTIONS.iter().copied().find(|op| op.name() == name)
}

/// Whether the name cannot be given to a function.
pub(super) fn is_builtin(name: &str) -> bool {
    function(name).is_some() || SPECIAL.contains(&name) || REDUCTIONS.contains(&name)
}

impl<'a> Elab<'a> {
    pub(super) fn call(&mut self, name: &'a Ident, axes: &'a [AxisArg], args: &'a [Expr], span: Span, scope: ScopeId) -> Res {
        let at = self.chain(scope).into_iter().find(|s| self.scopes[*s].fns.contains_key(&name.name));
        if let Some(at) = at {
            let decl = self.scopes[at].fns[&name.name];
            return self.inline(decl, at, name, axes, args, span, scope);
        }
        match name.name.as_str() {
            "topk" | "rank" | "argsort" | "list" => return self.order(name, axes, args, span, scope),
            "expand" => return self.expand(axes, args, span, scope),
            _ => {}
        }
        if let Some(arg) = axes.first() {
            let known = function(&name.name).is_some() || SPECIAL.contains(&name.name.as_str());
            if known {
                return Err(self.report(
                    Diagnostic::error("A0309", format!("`{}` takes no axes", name.name)).label(arg.axis.span, "axes given here"),
                ));
            }
        }
        match name.name.as_str() {
            "len" => self.len(args, span, scope),
            "grad" => self.grad(args, span, scope),
            "present" => {
                let [x] = self.exactly(name, args, span, scope)?;
                let node = match self.all_of(&x.conds, span)? {
                    Some(all) => all,
                    None => self.boolean(true, span)?,
                };
                Ok(Val::present(node))
            }
            "bool" => {
                let [x] = self.exactly(name, args, span, scope)?;
                if self.graph.dtype(x.node) == DType::Bool {
                    return Ok(x);
                }
                let zero = self.constant(Scalar::zero(self.graph.dtype(x.node)), span)?;
                self.pointwise(ScalarOp::Ne, &[&x], vec![x.node, zero], span)
            }
            _ => match function(&name.name) {
                Some(op) => self.scalar_call(op, name, args, span, scope),
                None => Err(self.unknown_function(name, args, scope)),
            },
        }
    }

    fn unknown_function(&mut self, name: &Ident, args: &'a [Expr], scope: ScopeId) -> Poison {
        for arg in args {
            let _ = self.expr(arg, scope);
        }
        let mut known: Vec<String> = FUNCTIONS.iter().map(|f| f.name().to_string()).collect();
        known.extend(SPECIAL.iter().chain(REDUCTIONS).map(|s| s.to_string()));
        for s in self.chain(scope) {
            known.extend(self.scopes[s].fns.keys().cloned());
        }
        known.sort();
        let near = known
            .iter()
            .map(|k| (strsim::jaro_winkler(&name.name, k), k))
            .filter(|k| k.0 > 0.75)
            .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)));
        let mut d = Diagnostic::error("A0203", format!("there is no function `{}`", name.name)).label(name.span, "unknown function");
        if let Some((_, near)) = near {
            d = d.help(format!("did you mean `{near}`?"));
        } else if self.find(&name.name, scope).is_some() {
            d = d.help("it is a value; a product needs `*`, a read needs `[axis = ..]`");
        }
        self.report(d)
    }

    /// Exactly `N` arguments.
    fn exactly<const N: usize>(&mut self, name: &Ident, args: &'a [Expr], span: Span, scope: ScopeId) -> Res<[Val; N]> {
        let values: Vec<Res> = args.iter().map(|a| self.expr(a, scope)).collect();
        if values.len() != N {
            return Err(self.wrong_count(&name.name, N, args.len(), span));
        }
        let good: Vec<Val> = values.into_iter().collect::<Result<_, Poison>>()?;
        good.try_into().map_err(|_| Poison)
    }

    fn wrong_count(&mut self, name: &str, want: usize, have: usize, span: Span) -> Poison {
        let s = if want == 1 { "" } else { "s" };
        self.report(Diagnostic::error("A0206", format!("`{name}` takes {want} argument{s}")).label(span, format!("{have} given")))
    }

    /// A row of the op table, with the implicit conversions of its operands.
    fn scalar_call(&mut self, op: ScalarOp, name: &Ident, args: &'a [Expr], span: Span, scope: ScopeId) -> Res {
        let values: Vec<Res> = args.iter().map(|a| self.expr(a, scope)).collect();
        let several = matches!(op, ScalarOp::Min | ScalarOp::Max) && args.len() > 2;
        if args.len() != op.arity() && !several {
            return Err(self.wrong_count(&name.name, op.arity(), args.len(), span));
        }
        let values: Vec<Val> = values.into_iter().collect::<Result<_, Poison>>()?;
        for (value, arg) in values.iter().zip(args) {
            let dtype = self.graph.dtype(value.node);
            let fits = match op {
                ScalarOp::ToReal | ScalarOp::ToInt => dtype != DType::Complex,
                ScalarOp::Exp | ScalarOp::Abs | ScalarOp::Re | ScalarOp::Im => dtype != DType::Bool,
                ScalarOp::Xor | ScalarOp::BitAnd | ScalarOp::BitOr | ScalarOp::Shl | ScalarOp::Shr => dtype == DType::Int,
                ScalarOp::CeilDiv | ScalarOp::CeilLog2 | ScalarOp::Pow2Ceil => dtype == DType::Int,
                _ => matches!(dtype, DType::Int | DType::Real),
            };
            if !fits {
                let need = match op {
                    ScalarOp::Xor | ScalarOp::BitAnd | ScalarOp::BitOr | ScalarOp::Shl | ScalarOp::Shr => "ints",
                    ScalarOp::CeilDiv | ScalarOp::CeilLog2 | ScalarOp::Pow2Ceil => "ints",
                    _ => "numbers",
                };
                let d = Diagnostic::error("A0401", format!("`{}` needs {need}", name.name)).label(arg.span, format!("this is {}", dtype.name()));
                return Err(self.report(if dtype == DType::Bool { d.help("write `if c then 1 else 0`, or `int(c)`") } else { d }));
            }
        }
        let all: Vec<&Val> = values.iter().collect();
        let dtypes: Vec<DType> = values.iter().map(|v| self.graph.dtype(v.node)).collect();
        let nodes: Vec<_> = values.iter().map(|v| v.node).collect();
        match op {
            ScalarOp::Min | ScalarOp::Max => {
                let mut out = values[0].clone();
                for v in &values[1..] {
                    let (x, y, _) = self.unify(out.node, v.node, &format!("`{}`", name.name), span)?;
                    out = self.pointwise(op, &[&out, v], vec![x, y], span)?;
                }
                Ok(out)
            }
            // Already of the wanted kind.
            ScalarOp::ToReal if dtypes[0] == DType::Real => Ok(values[0].clone()),
            ScalarOp::ToInt | ScalarOp::Floor | ScalarOp::Ceil if dtypes[0] == DType::Int => Ok(values[0].clone()),
            ScalarOp::Re | ScalarOp::Im => {
                let x = self.lift(nodes[0], DType::Complex, span)?;
                self.pointwise(op, &all, vec![x], span)
            }
            ScalarOp::ToReal | ScalarOp::ToInt => self.pointwise(op, &all, nodes, span),
            ScalarOp::Abs | ScalarOp::Sign if dtypes[0] != DType::Bool => self.pointwise(op, &all, nodes, span),
            ScalarOp::Exp if dtypes[0] == DType::Complex => self.pointwise(op, &all, nodes, span),
            ScalarOp::Xor | ScalarOp::BitAnd | ScalarOp::BitOr | ScalarOp::Shl | ScalarOp::Shr => self.pointwise(op, &all, nodes, span),
            ScalarOp::CeilDiv | ScalarOp::CeilLog2 | ScalarOp::Pow2Ceil => self.pointwise(op, &all, nodes, span),
            _ => {
                let mut reals = Vec::new();
                for node in nodes {
                    reals.push(self.lift(node, DType::Real, span)?);
                }
                self.pointwise(op, &all, reals, span)
            }
        }
    }

    /// `len(t)`
    fn len(&mut self, args: &'a [Expr], span: Span, scope: ScopeId) -> Res {
        let [arg] = args else { return Err(self.wrong_count("len", 1, args.len(), span)) };
        let ExprKind::Name { name, primed: false } = &*arg.kind else {
            return Err(self.report(Diagnostic::error("A0301", "`len` takes the name of an axis").label(arg.span, "not a name")));
        };
        // The name of the axis, looked up as one.
        if let Some(s) = self.find(name, scope) {
            return match self.force(s, name, arg.span)? {
                Found::Axes(axes) => Ok(Val::present(self.extents(&axes, span)?)),
                Found::Val(_) => Err(self.report(
                    Diagnostic::error("A0301", format!("`{name}` is a value, not an axis"))
                        .label(arg.span, "an axis is needed here")
                        .help("`len(t)` is the extent of the axis `t`"),
                )),
            };
        }
        let ident = Ident { name: name.clone(), span: arg.span };
        self.axes_named(&ident, scope).map(|_| ()).and(Err(Poison))
    }

    /// `expand[t](x)`
    fn expand(&mut self, axes: &'a [AxisArg], args: &'a [Expr], span: Span, scope: ScopeId) -> Res {
        let names: Vec<Ident> = axes.iter().map(|a| a.axis.clone()).collect();
        let over = self.reduced_axes(&names, span, scope)?;
        let [arg] = args else { return Err(self.wrong_count("expand", 1, args.len(), span)) };
        let x = self.expr(arg, scope)?;
        let missing: Vec<AxisId> = over.into_iter().filter(|a| !self.graph.axes_of(x.node).contains(a)).collect();
        if missing.is_empty() {
            return Ok(x);
        }
        let node = self.intern(Op::Expand { value: x.node, axes: missing }, span)?;
        Ok(Val { node, conds: x.conds })
    }

    /// Inlines a call of `decl`, which was found in scope `at`.
    #[allow(clippy::too_many_arguments)]
    fn inline(&mut self, decl: &'a FnDecl, at: ScopeId, name: &Ident, axes: &'a [AxisArg], args: &'a [Expr], span: Span, scope: ScopeId) -> Res {
        let mut bound: Vec<Res<Vec<AxisId>>> = Vec::new();
        for arg in axes {
            if arg.prefix.is_some() || arg.to.is_some() {
                let d = Diagnostic::error("A0309", format!("`{}` takes plain axes", name.name)).label(arg.axis.span, "written with a relation");
                bound.push(Err(self.report(d)));
                continue;
            }
            bound.push(self.axes_named(&arg.axis, scope));
        }
        let values: Vec<Res> = args.iter().map(|a| self.expr(a, scope)).collect();
        let spread = decl.axes.len() == 1 && bound.len() > 1;
        if bound.len() != decl.axes.len() && !spread {
            let form = decl.axes.iter().map(|a| a.name.as_str()).collect::<Vec<_>>().join(", ");
            let d = Diagnostic::error("A0309", format!("`{}` takes {} axes, {} given", name.name, decl.axes.len(), bound.len())).label(span, "this call");
            let d = if decl.axes.is_empty() { d.help(format!("write `{}(..)`", name.name)) } else { d.help(format!("write `{}[{form}](..)`", name.name)) };
            return Err(self.report(self.with_decl(d, decl)));
        }
        let needed = decl.params.iter().filter(|p| p.1.is_none()).count();
        if values.len() > decl.params.len() || values.len() < needed {
            let form = decl.params.iter().map(|p| p.0.name.as_str()).collect::<Vec<_>>().join(", ");
            let d = Diagnostic::error("A0206", format!("`{}` takes the arguments ({form})", name.name)).label(span, format!("{} given", values.len()));
            return Err(self.report(self.with_decl(d, decl)));
        }
        if self.calls.iter().any(|c| std::ptr::eq(c.0, decl)) {
            return Err(self.report(
                Diagnostic::error("A0701", format!("`{}` calls itself", name.name))
                    .label(span, "recursive call")
                    .help("functions are inlined; a repetition is a `scan` or `repeat`"),
            ));
        }
        if self.calls.len() >= MAX_CALLS {
            return Err(self.report(Diagnostic::error("A0702", format!("calls are nested deeper than {MAX_CALLS}")).label(span, "reached here")));
        }
        self.inlined += 1;
        if self.inlined > MAX_INLINED {
            return Err(self.give_up(format!("this kernel inlines more than {MAX_INLINED} calls"), span));
        }
        self.calls.push((decl, span));
        self.called.insert(decl.name.span);
        let inner = self.new_scope(Some(at), Kind::Function);
        if spread {
            let all: Res<Vec<Vec<AxisId>>> = bound.into_iter().collect();
            let state = all.map_or(SlotState::Poison, |a| SlotState::Axes(a.into_iter().flatten().collect()));
            self.declare(inner, &decl.axes[0].name, decl.axes[0].span, state);
        } else {
            for (axis, list) in decl.axes.iter().zip(bound) {
                self.declare(inner, &axis.name, axis.span, list.map_or(SlotState::Poison, SlotState::Axes));
            }
        }
        let mut values = values.into_iter();
        for (param, default) in &decl.params {
            let value = match (values.next(), default) {
                (Some(v), _) => v,
                (None, Some(e)) => self.expr(e, inner),
                (None, None) => Err(Poison),
            };
            self.declare(inner, &param.name, param.span, value.map_or(SlotState::Poison, SlotState::Val));
        }
        self.declare_block(inner, &decl.body);
        self.run_block(inner, &decl.body);
        let returned = decl.body.stmts.iter().find_map(|s| match &s.kind {
            StmtKind::Return(e) => Some(e),
            _ => None,
        });
        let result = match returned {
            Some(e) => self.expr(e, inner),
            None => {
                let d = Diagnostic::error("A0703", format!("`{}` returns nothing", name.name)).label(decl.name.span, "needs a `return`");
                Err(self.report(d))
            }
        };
        self.calls.pop();
        result
    }

    /// Adds where a user's function was declared.
    fn with_decl(&self, d: Diagnostic, decl: &FnDecl) -> Diagnostic {
        let place = decl.name.span;
        if place.source == crate::base::SourceId::User { d.label(place, "declared here") } else { d }
    }
}
