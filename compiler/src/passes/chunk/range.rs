//! Logarithms of decays: symbolic where the factor is an exponential, else the logarithm of a factor that is proved not negative.

use crate::graph::{FactCmp, NodeId, Op};
use crate::ops::{Scalar, ScalarOp};
use crate::passes::rewrite::Builder;

/// The logarithm of a factor that is never negative, as a node; `None` where that is not proved.
pub(super) fn log_of(b: &mut Builder, id: NodeId) -> Option<NodeId> {
    let span = b.graph.node(id).span;
    match b.graph.op(id).clone() {
        Op::Map { op: ScalarOp::Exp, args } => Some(args[0]),
        Op::Map { op: ScalarOp::Sigmoid, args } => {
            // log sigmoid(x) = -softplus(-x), which keeps its digits where the sigmoid is near 0 or 1.
            let minus = b.map(ScalarOp::Neg, &[args[0]], span);
            let soft = b.map(ScalarOp::Softplus, &[minus], span);
            Some(b.map(ScalarOp::Neg, &[soft], span))
        }
        Op::Map { op: ScalarOp::Mul, args } => {
            let (x, y) = (log_of(b, args[0])?, log_of(b, args[1])?);
            Some(b.map(ScalarOp::Add, &[x, y], span))
        }
        Op::Map { op: ScalarOp::Select, args } => {
            let (x, y) = (log_of(b, args[1])?, log_of(b, args[2])?);
            Some(b.map(ScalarOp::Select, &[args[0], x, y], span))
        }
        _ => (bounds(b, id, 0).0 >= 0.0).then(|| b.map(ScalarOp::Log, &[id], span)),
    }
}

/// Interval that holds every element; NaN apart.
fn bounds(b: &Builder, id: NodeId, depth: usize) -> (f64, f64) {
    const ALL: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);
    if depth > 64 {
        return ALL;
    }
    let (low, high) = match b.graph.op(id) {
        Op::Const(Scalar::Real(x)) => (*x, *x),
        Op::Const(Scalar::Int(x)) => (*x as f64, *x as f64),
        Op::Input(i) => match b.graph.inputs[i.index()].fact.map(|f| (f.cmp, b.graph.op(f.bound))) {
            Some((FactCmp::Ge | FactCmp::Gt, Op::Const(Scalar::Real(x)))) => (*x, f64::INFINITY),
            Some((FactCmp::Le | FactCmp::Lt, Op::Const(Scalar::Real(x)))) => (f64::NEG_INFINITY, *x),
            Some((FactCmp::Ge | FactCmp::Gt, Op::Const(Scalar::Int(x)))) => (*x as f64, f64::INFINITY),
            Some((FactCmp::Le | FactCmp::Lt, Op::Const(Scalar::Int(x)))) => (f64::NEG_INFINITY, *x as f64),
            _ => ALL,
        },
        Op::Read { value, .. } | Op::Expand { value, .. } => {
            // A read outside the axis gives 0.
            let (l, h) = bounds(b, *value, depth + 1);
            (l.min(0.0), h.max(0.0))
        }
        Op::Map { op, args } => {
            let arg = |i: usize| bounds(b, args[i], depth + 1);
            match op {
                ScalarOp::Exp => {
                    let (l, h) = arg(0);
                    (l.exp(), h.exp())
                }
                ScalarOp::ExpDiff => (0.0, f64::INFINITY),
                ScalarOp::Sigmoid => (0.0, 1.0),
                ScalarOp::Softplus | ScalarOp::Abs | ScalarOp::Sqrt => (0.0, f64::INFINITY),
                ScalarOp::Tanh | ScalarOp::Erf | ScalarOp::Sin | ScalarOp::Cos => (-1.0, 1.0),
                ScalarOp::Neg => {
                    let (l, h) = arg(0);
                    (-h, -l)
                }
                ScalarOp::Add => {
                    let ((a, c), (d, e)) = (arg(0), arg(1));
                    (a + d, c + e)
                }
                ScalarOp::Sub => {
                    let ((a, c), (d, e)) = (arg(0), arg(1));
                    (a - e, c - d)
                }
                ScalarOp::Mul if args[0] == args[1] => (0.0, f64::INFINITY),
                ScalarOp::Mul => {
                    let ((a, c), (d, e)) = (arg(0), arg(1));
                    let all = [a * d, a * e, c * d, c * e];
                    if all.iter().any(|x| x.is_nan()) {
                        // 0 times infinity: only the signs are known.
                        if a >= 0.0 && d >= 0.0 { (0.0, f64::INFINITY) } else { ALL }
                    } else {
                        (all.iter().copied().fold(f64::INFINITY, f64::min), all.iter().copied().fold(f64::NEG_INFINITY, f64::max))
                    }
                }
                ScalarOp::Div | ScalarOp::Ratio => {
                    let ((a, c), (d, e)) = (arg(0), arg(1));
                    if a >= 0.0 && d > 0.0 { (a / e, c / d) } else if a >= 0.0 && d >= 0.0 { (0.0, f64::INFINITY) } else { ALL }
                }
                ScalarOp::Min => {
                    let ((a, c), (d, e)) = (arg(0), arg(1));
                    (a.min(d), c.min(e))
                }
                ScalarOp::Max => {
                    let ((a, c), (d, e)) = (arg(0), arg(1));
                    (a.max(d), c.max(e))
                }
                ScalarOp::Select => {
                    let ((a, c), (d, e)) = (arg(1), arg(2));
                    (a.min(d), c.max(e))
                }
                ScalarOp::ToReal => arg(0),
                _ => ALL,
            }
        }
        _ => ALL,
    };
    (if low.is_nan() { f64::NEG_INFINITY } else { low }, if high.is_nan() { f64::INFINITY } else { high })
}
