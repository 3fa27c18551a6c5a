//! A step differentiated by its states: `e = sum of coefficient * state + rest`, read off the graph.
//!
//! Matches pointwise algebra and sums only; everything else that holds a state is a reason why there is no such form.

use crate::base::Span;
use crate::graph::{AxisId, NodeId, Op};
use crate::ops::{Scalar, ScalarOp};
use crate::passes::rewrite::Builder;
use crate::reduce::ReduceOp;
use std::collections::{HashMap, HashSet};

/// `sign * outer * S`, or `sign * outer * sum[axes] inner * S`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Term {
    /// Index of the state in its scan.
    pub state: usize,
    /// The value after the step rather than before it.
    pub after: bool,
    pub negative: bool,
    pub outer: Option<NodeId>,
    pub sum: Option<(Vec<AxisId>, Option<NodeId>)>,
}

/// `sum of terms + rest`; no rest means 0.
#[derive(Clone, Debug, Default)]
pub(super) struct Form {
    pub terms: Vec<Term>,
    pub rest: Option<NodeId>,
}

/// What of a step counts as a state.
pub(super) struct Affine<'a> {
    pub b: &'a mut Builder,
    /// Leaves before the step, and values after it, by node.
    pub leaves: HashMap<NodeId, (usize, bool)>,
    /// Nodes that vary with a leaf.
    pub live: HashSet<NodeId>,
}

type Res<T> = Result<T, String>;

impl Affine<'_> {
    /// The product of two optional factors.
    pub fn times(&mut self, a: Option<NodeId>, b: Option<NodeId>, span: Span) -> Option<NodeId> {
        match (a, b) {
            (Some(a), Some(b)) => Some(self.b.map(ScalarOp::Mul, &[a, b], span)),
            (a, b) => a.or(b),
        }
    }

    pub fn real(&mut self, value: f64) -> NodeId {
        self.b.constant_of(Scalar::Real(value))
    }

    fn negate(&mut self, rest: Option<NodeId>, span: Span) -> Option<NodeId> {
        rest.map(|r| self.b.map(ScalarOp::Neg, &[r], span))
    }

    fn add(&mut self, a: Option<NodeId>, b: Option<NodeId>, span: Span) -> Option<NodeId> {
        match (a, b) {
            (Some(a), Some(b)) => Some(self.b.map(ScalarOp::Add, &[a, b], span)),
            (a, b) => a.or(b),
        }
    }

    /// The form of a node; of the definition of a value after the step when `open` is that value.
    pub fn form(&mut self, id: NodeId, open: Option<NodeId>) -> Res<Form> {
        self.form_at(id, open, 0)
    }

    fn form_at(&mut self, id: NodeId, open: Option<NodeId>, depth: usize) -> Res<Form> {
        if depth > 400 {
            return Err("the step is too deep".to_string());
        }
        if Some(id) != open {
            if let Some((state, after)) = self.leaves.get(&id).copied() {
                return Ok(Form { terms: vec![Term { state, after, negative: false, outer: None, sum: None }], rest: None });
            }
        }
        if !self.live.contains(&id) {
            return Ok(Form { terms: vec![], rest: Some(id) });
        }
        let span = self.b.graph.node(id).span;
        match self.b.graph.op(id).clone() {
            Op::Expand { value, .. } => self.form_at(value, open, depth + 1),
            Op::Map { op: op @ (ScalarOp::Add | ScalarOp::Sub), args } => {
                let mut x = self.form_at(args[0], open, depth + 1)?;
                let mut y = self.form_at(args[1], open, depth + 1)?;
                if op == ScalarOp::Sub {
                    y.terms.iter_mut().for_each(|t| t.negative = !t.negative);
                    y.rest = self.negate(y.rest, span);
                }
                x.rest = self.add(x.rest, y.rest, span);
                x.terms.extend(y.terms);
                Ok(x)
            }
            Op::Map { op: ScalarOp::Neg, args } => {
                let mut x = self.form_at(args[0], open, depth + 1)?;
                x.terms.iter_mut().for_each(|t| t.negative = !t.negative);
                x.rest = self.negate(x.rest, span);
                Ok(x)
            }
            Op::Map { op: ScalarOp::Mul, args } => {
                let (free, held) = match (self.live.contains(&args[0]), self.live.contains(&args[1])) {
                    (false, _) => (args[0], args[1]),
                    (_, false) => (args[1], args[0]),
                    _ => return Err("a product of two values of states".to_string()),
                };
                let mut x = self.form_at(held, open, depth + 1)?;
                for t in &mut x.terms {
                    t.outer = self.times(t.outer, Some(free), span);
                }
                x.rest = x.rest.map(|r| self.b.map(ScalarOp::Mul, &[free, r], span));
                Ok(x)
            }
            Op::Map { op: op @ (ScalarOp::Div | ScalarOp::Ratio), args } if !self.live.contains(&args[1]) => {
                let one = self.real(1.0);
                let mut x = self.form_at(args[0], open, depth + 1)?;
                let factor = self.b.map(op, &[one, args[1]], span);
                for t in &mut x.terms {
                    t.outer = self.times(t.outer, Some(factor), span);
                }
                x.rest = x.rest.map(|r| self.b.map(op, &[r, args[1]], span));
                Ok(x)
            }
            Op::Map { op: ScalarOp::Select, args } if !self.live.contains(&args[0]) => {
                let x = self.form_at(args[1], open, depth + 1)?;
                let mut y = self.form_at(args[2], open, depth + 1)?;
                let zero = self.real(0.0);
                let one = self.real(1.0);
                let mut out = Form::default();
                // One coefficient for the same reading of the same state: a conditional start adds no rank.
                for t in x.terms {
                    let twin = y.terms.iter().position(|o| (o.state, o.after, o.negative, &o.sum) == (t.state, t.after, t.negative, &t.sum));
                    let other = twin.map_or(zero, |i| y.terms.remove(i).outer.unwrap_or(one));
                    let outer = self.b.map(ScalarOp::Select, &[args[0], t.outer.unwrap_or(one), other], span);
                    out.terms.push(Term { outer: Some(outer), ..t });
                }
                for t in y.terms {
                    let outer = self.b.map(ScalarOp::Select, &[args[0], zero, t.outer.unwrap_or(one)], span);
                    out.terms.push(Term { outer: Some(outer), ..t });
                }
                out.rest = match (x.rest, y.rest) {
                    (None, None) => None,
                    (p, q) => Some(self.b.map(ScalarOp::Select, &[args[0], p.unwrap_or(zero), q.unwrap_or(zero)], span)),
                };
                Ok(out)
            }
            Op::Map { op, .. } => Err(format!("`{}` of a state", op.name())),
            Op::Reduce { op: ReduceOp::Sum, axes, body, mask } => {
                if mask.is_some_and(|m| self.live.contains(&m)) {
                    return Err("a condition on a state".to_string());
                }
                let x = self.form_at(body, open, depth + 1)?;
                let zero = self.real(0.0);
                let one = self.real(1.0);
                let mut out = Form::default();
                for t in x.terms {
                    if t.sum.is_some() {
                        return Err("a sum of sums over a state".to_string());
                    }
                    let inner = match mask {
                        Some(m) => Some(self.b.map(ScalarOp::Select, &[m, t.outer.unwrap_or(one), zero], span)),
                        None => t.outer,
                    };
                    out.terms.push(Term { outer: None, sum: Some((axes.clone(), inner)), ..t });
                }
                out.rest = x.rest.map(|r| self.b.add(Op::Reduce { op: ReduceOp::Sum, axes, body: r, mask }, span));
                Ok(out)
            }
            Op::Reduce { op, .. } => Err(format!("`{}` over a state", op.name())),
            Op::Read { .. } => Err("a state read at other positions".to_string()),
            Op::State { .. } | Op::Final { .. } | Op::History { .. } => Err("a state of another scan".to_string()),
            _ => Err("an order of states".to_string()),
        }
    }

    /// Sums of products, expanded only where a factor is not allowed to stay whole: (negative, factors).
    pub fn monomials(&mut self, id: NodeId, whole: &dyn Fn(&Builder, NodeId) -> bool) -> Res<Vec<(bool, Vec<NodeId>)>> {
        let span = self.b.graph.node(id).span;
        let op = self.b.graph.op(id).clone();
        match op {
            Op::Map { op: ScalarOp::Mul, args } => {
                let (x, y) = (self.monomials(args[0], whole)?, self.monomials(args[1], whole)?);
                if x.len() * y.len() > 16 {
                    return Err("a write of too many terms".to_string());
                }
                Ok(x.iter().flat_map(|p| y.iter().map(move |q| (p.0 != q.0, p.1.iter().chain(&q.1).copied().collect()))).collect())
            }
            Op::Map { op: ScalarOp::Neg, args } => Ok(self.monomials(args[0], whole)?.into_iter().map(|(s, f)| (!s, f)).collect()),
            Op::Map { op: op @ (ScalarOp::Add | ScalarOp::Sub), ref args } if !whole(self.b, id) => {
                let mut x = self.monomials(args[0], whole)?;
                let y = self.monomials(args[1], whole)?;
                x.extend(y.into_iter().map(|(s, f)| (s != (op == ScalarOp::Sub), f)));
                Ok(x)
            }
            Op::Map { op: op @ (ScalarOp::Div | ScalarOp::Ratio), args } if !whole(self.b, id) => {
                let one = self.real(1.0);
                let factor = self.b.map(op, &[one, args[1]], span);
                Ok(self.monomials(args[0], whole)?.into_iter().map(|(s, mut f)| { f.push(factor); (s, f) }).collect())
            }
            Op::Map { op: ScalarOp::Select, args } if !whole(self.b, id) => {
                let (one, zero) = (self.real(1.0), self.real(0.0));
                let mut out = Vec::new();
                for (arm, on) in [(args[1], [one, zero]), (args[2], [zero, one])] {
                    if arm == zero {
                        continue;
                    }
                    let gate = self.b.map(ScalarOp::Select, &[args[0], on[0], on[1]], span);
                    out.extend(self.monomials(arm, whole)?.into_iter().map(|(s, mut f)| { f.push(gate); (s, f) }));
                }
                Ok(out)
            }
            Op::Expand { value, .. } => self.monomials(value, whole),
            _ if whole(self.b, id) => Ok(vec![(false, vec![id])]),
            _ => Err("a write that joins keys and values".to_string()),
        }
    }

}
