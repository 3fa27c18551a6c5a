//! Identities that the builder applies when it makes a value. Each holds exactly, for every operand.

use super::builder::KernelBuilder;
use super::ir::Value;
use crate::ops::{DType, Scalar, ScalarOp};

/// Whether operands may change places.
pub(super) fn commutes(op: ScalarOp) -> bool {
    use ScalarOp::*;
    matches!(op, Add | Mul | Min | Max | Xor | BitAnd | BitOr | Eq | Ne | And | Or)
}

/// A simpler value equal to `op(args)`; operands have the right types and constants stand right where the op commutes.
pub(super) fn simplify(b: &mut KernelBuilder, op: ScalarOp, args: &[Value]) -> Option<Value> {
    match (op, b.ty(args[0])) {
        (ScalarOp::Select, _) => select(b, args),
        (_, DType::Int) => int(b, op, args),
        (_, DType::Bool) => boolean(b, op, args),
        (_, DType::Real) => real(b, op, args),
        (_, DType::Complex) => None,
    }
}

fn select(b: &KernelBuilder, args: &[Value]) -> Option<Value> {
    let is = |v: Value, x: bool| b.constant(v) == Some(Scalar::Bool(x));
    match b.constant(args[0]) {
        Some(Scalar::Bool(true)) => Some(args[1]),
        Some(Scalar::Bool(false)) => Some(args[2]),
        _ if args[1] == args[2] => Some(args[1]),
        _ if is(args[1], true) && is(args[2], false) => Some(args[0]),
        _ => None,
    }
}

fn boolean(b: &KernelBuilder, op: ScalarOp, args: &[Value]) -> Option<Value> {
    let x = args[0];
    let right = args.get(1).and_then(|&v| b.constant(v));
    match (op, right) {
        (ScalarOp::And, Some(Scalar::Bool(true))) | (ScalarOp::Or, Some(Scalar::Bool(false))) => Some(x),
        (ScalarOp::And, Some(Scalar::Bool(false))) | (ScalarOp::Or, Some(Scalar::Bool(true))) => Some(args[1]),
        (ScalarOp::And | ScalarOp::Or, _) if args[0] == args[1] => Some(x),
        (ScalarOp::Not, _) => match b.made(x) {
            Some((ScalarOp::Not, inner)) => Some(inner[0]),
            _ => None,
        },
        _ => None,
    }
}

fn real(b: &KernelBuilder, op: ScalarOp, args: &[Value]) -> Option<Value> {
    let right = args.get(1).and_then(|&v| b.constant(v));
    match (op, right) {
        (ScalarOp::Mul | ScalarOp::Div, Some(Scalar::Real(1.0))) => Some(args[0]),
        // x - 0 is x for both zeros; x + 0 is not for -0.
        (ScalarOp::Sub, Some(Scalar::Real(z))) if z == 0.0 && z.is_sign_positive() => Some(args[0]),
        (ScalarOp::Add, Some(Scalar::Real(z))) if z == 0.0 && z.is_sign_negative() => Some(args[0]),
        (ScalarOp::Min | ScalarOp::Max, _) if args[0] == args[1] => Some(args[0]),
        (ScalarOp::Max, Some(Scalar::Real(f64::NEG_INFINITY))) | (ScalarOp::Min, Some(Scalar::Real(f64::INFINITY))) => Some(args[0]),
        _ => None,
    }
}

fn int(b: &mut KernelBuilder, op: ScalarOp, args: &[Value]) -> Option<Value> {
    use ScalarOp::*;
    let x = args[0];
    let same = args.len() == 2 && args[0] == args[1];
    let right = args.get(1).and_then(|&v| b.as_int(v));
    match (op, right) {
        (ToInt, _) => Some(x),
        (Add | Sub | Xor | BitOr | Shl | Shr, Some(0)) => Some(x),
        (Mul | IntDiv | CeilDiv | Pow, Some(1)) => Some(x),
        (Mul | IntDiv | CeilDiv | Mod | BitAnd, Some(0)) => Some(b.int(0)),
        (Mod, Some(1 | -1)) => Some(b.int(0)),
        (BitAnd, Some(-1)) => Some(x),
        (Max, Some(i64::MIN)) | (Min, Some(i64::MAX)) => Some(x),
        (Sub | Xor, _) if same => Some(b.int(0)),
        (Min | Max | BitAnd | BitOr, _) if same => Some(x),
        (Eq | Le, _) if same => Some(b.boolean(true)),
        (Ne | Lt, _) if same => Some(b.boolean(false)),
        // A difference with a constant is a sum, so that chains of offsets meet in one form.
        (Sub, Some(c)) if c != i64::MIN => {
            let negated = b.int(-c);
            Some(b.add(x, negated))
        }
        (Add | Mul, Some(c)) => {
            let (inner, args) = b.made(x)?;
            let (y, d) = (args[0], args.get(1).copied()?);
            let d = b.as_int(d).filter(|_| inner == op)?;
            let both = b.int(if op == Add { c.wrapping_add(d) } else { c.wrapping_mul(d) });
            Some(b.op(op, &[y, both]))
        }
        // (x + y) - x
        (Sub, None) => {
            let (inner, parts) = b.made(x)?;
            let (p, q) = (parts[0], parts.get(1).copied()?);
            match inner {
                Add if p == args[1] => Some(q),
                Add if q == args[1] => Some(p),
                _ => None,
            }
        }
        _ => None,
    }
}
