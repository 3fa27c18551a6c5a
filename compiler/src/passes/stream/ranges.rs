//! What is known of the values of a factor: signs, and whether 0 times it is 0.

use crate::graph::{NodeId, Op};
use crate::ops::{DType, Scalar, ScalarOp};
use crate::passes::rewrite::Builder;
use crate::reduce::ReduceOp;

/// Never below zero, NaN aside.
pub(super) fn is_nonnegative(b: &Builder, id: NodeId) -> bool {
    match b.graph.op(id) {
        Op::Const(Scalar::Real(c)) => *c >= 0.0,
        Op::Map { op, args } => match op {
            ScalarOp::Exp | ScalarOp::ExpDiff | ScalarOp::Abs | ScalarOp::Softplus | ScalarOp::Sigmoid | ScalarOp::Sqrt => b.graph.dtype(id) == DType::Real,
            ScalarOp::Add | ScalarOp::Mul | ScalarOp::Ratio | ScalarOp::Div | ScalarOp::Min => args.iter().all(|a| is_nonnegative(b, *a)),
            ScalarOp::Max => args.iter().any(|a| is_nonnegative(b, *a)),
            ScalarOp::Select => is_nonnegative(b, args[1]) && is_nonnegative(b, args[2]),
            _ => false,
        },
        Op::Reduce { op: ReduceOp::Sum | ReduceOp::Prod, body, .. } => is_nonnegative(b, *body),
        Op::Expand { value, .. } => is_nonnegative(b, *value),
        _ => false,
    }
}

/// Certainly above zero.
fn is_positive(b: &Builder, id: NodeId) -> bool {
    match b.graph.op(id) {
        Op::Const(Scalar::Real(c)) => *c > 0.0,
        Op::Const(Scalar::Int(c)) => *c > 0,
        Op::Map { op, args } => match op {
            ScalarOp::Add => args.iter().any(|a| is_positive(b, *a)) && args.iter().all(|a| is_positive(b, *a) || is_nonnegative(b, *a)),
            ScalarOp::Max => args.iter().any(|a| is_positive(b, *a)),
            ScalarOp::Mul => args.iter().all(|a| is_positive(b, *a)),
            ScalarOp::Sqrt | ScalarOp::ToReal => is_positive(b, args[0]),
            _ => false,
        },
        _ => false,
    }
}

/// Whether a factor is finite for finite inputs even in a row without elements, so that 0 times it is 0.
pub(super) fn is_tame(b: &Builder, op: ScalarOp, id: NodeId) -> bool {
    if op == ScalarOp::Div {
        return is_positive(b, id);
    }
    // 0 / 0 is 0 here, and 0 over anything finite is 0.
    match b.graph.op(id) {
        Op::Const(Scalar::Real(c)) => c.is_finite(),
        Op::Const(_) | Op::Index(_) | Op::Extent(_) | Op::Input(_) => true,
        Op::Read { value, .. } => is_tame(b, ScalarOp::Mul, *value),
        Op::Expand { value, .. } => is_tame(b, ScalarOp::Mul, *value),
        Op::Map { op, args } => match op {
            ScalarOp::Add | ScalarOp::Sub | ScalarOp::Mul | ScalarOp::Neg | ScalarOp::Abs | ScalarOp::ToReal | ScalarOp::Sqrt | ScalarOp::Ratio => args.iter().all(|a| is_tame(b, ScalarOp::Mul, *a)),
            ScalarOp::Sigmoid | ScalarOp::Tanh => is_tame(b, ScalarOp::Mul, args[0]),
            ScalarOp::Div => is_tame(b, ScalarOp::Mul, args[0]) && is_positive(b, args[1]),
            // At most 1 where the shift is the maximum of what is shifted.
            ScalarOp::ExpDiff => true,
            ScalarOp::Min | ScalarOp::Max => args.iter().all(|a| is_tame(b, ScalarOp::Mul, *a)),
            ScalarOp::Select => is_tame(b, ScalarOp::Mul, args[1]) && is_tame(b, ScalarOp::Mul, args[2]),
            _ => false,
        },
        Op::Reduce { op: ReduceOp::Sum | ReduceOp::Prod, body, .. } => is_tame(b, ScalarOp::Mul, *body),
        _ => false,
    }
}
