//! Scalar ops in terms of a few 32-bit primitives, for targets without a library of functions. Int is i32 here, Real is f32.
//!
//! Functions of reals err by at most 4 ulp (`pow`: 4 ulp and 2^-24 of the logarithm of the result) for arguments whose results are
//! normal; no formula relies on a fused multiply-add or on the order in which a target rounds beyond f32. Corner cases follow
//! `ScalarOp::eval`.

mod int;
mod real;

use attnc_compiler::ops::{DType, ScalarOp};

/// An instruction with one operand. `F` takes reals, `I` ints, `B` bools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    FNeg,
    FAbs,
    FSqrt,
    /// Nearest integer, ties to even.
    FRint,
    FFloor,
    FCeil,
    BNot,
    /// Leading zeros of 32 bits; 32 for 0.
    IClz,
    IToF,
    /// Truncates; for arguments in the range of i32, any result (but no fault) elsewhere.
    FToI,
    /// The bits of a real, and back.
    FBits,
    IBits,
    /// 0 or 1.
    BToI,
}

/// An instruction with two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    FAdd,
    FSub,
    FMul,
    FDiv,
    /// Comparisons that are false with NaN.
    FLt,
    FLe,
    FEq,
    /// Wrapping.
    IAdd,
    ISub,
    IMul,
    /// Truncates; the divisor is never 0 or -1.
    IQuot,
    IAnd,
    IOr,
    IXor,
    /// Shift counts are in `0..=31`.
    IShl,
    /// Arithmetic.
    IShr,
    ILt,
    ILe,
    IEq,
    BAnd,
    BOr,
}

/// A place where instructions are appended.
pub trait Lane {
    type Value: Copy;
    fn real(&mut self, x: f32) -> Self::Value;
    fn int(&mut self, x: i32) -> Self::Value;
    fn truth(&mut self, x: bool) -> Self::Value;
    fn unary(&mut self, op: Unary, a: Self::Value) -> Self::Value;
    fn binary(&mut self, op: Binary, a: Self::Value, b: Self::Value) -> Self::Value;
    /// `a * b + c`, fused or not.
    fn fma(&mut self, a: Self::Value, b: Self::Value, c: Self::Value) -> Self::Value;
    /// `c ? a : b`; both have been computed.
    fn select(&mut self, c: Self::Value, a: Self::Value, b: Self::Value) -> Self::Value;
    /// A better way that the target has for this op on operands of dtype `ty`.
    fn native(&mut self, _op: ScalarOp, _ty: DType, _args: &[Self::Value]) -> Option<Self::Value> {
        None
    }
}

/// An Int constant in 32 bits: the ends of the range saturate (they stand for "no value yet"), others wrap as arithmetic does.
pub fn narrow(x: i64) -> i32 {
    match x {
        i64::MIN => i32::MIN,
        i64::MAX => i32::MAX,
        x => x as i32,
    }
}

/// Whether an op is one or two instructions, so that a function for it would not pay.
pub fn is_small(op: ScalarOp, ty: DType) -> bool {
    use ScalarOp::*;
    match op {
        Add | Sub | Mul | Div | Neg | Xor | BitAnd | BitOr | Lt | Le | Eq | Ne | And | Or | Not | Select | ToReal | Sqrt | Rint => true,
        Min | Max => ty == DType::Int,
        ToInt => ty != DType::Real,
        Abs => ty == DType::Real,
        IntDiv | Mod | Pow | Sign | Floor | Ceil | Exp | Log | Log1p | Tanh | Sigmoid | Softplus | Sin | Cos | Erf | ExpDiff | Ratio => false,
        Shl | Shr | CeilDiv | CeilLog2 | Pow2Ceil => false,
        ToComplex | Complex | Re | Im => false,
    }
}

/// Appends `op` on operands whose first has dtype `ty`; `None` for operands that no verified kernel has.
pub fn expand<L: Lane>(l: &mut L, op: ScalarOp, ty: DType, args: &[L::Value]) -> Option<L::Value> {
    if let Some(value) = l.native(op, ty, args) {
        return Some(value);
    }
    match ty {
        DType::Bool => boolean(l, op, args),
        DType::Int => int::expand(l, op, args),
        DType::Real => real::expand(l, op, args),
        DType::Complex => None,
    }
}

fn boolean<L: Lane>(l: &mut L, op: ScalarOp, args: &[L::Value]) -> Option<L::Value> {
    use ScalarOp::*;
    Some(match (op, args) {
        (And, [a, b]) => l.binary(Binary::BAnd, *a, *b),
        (Or, [a, b]) => l.binary(Binary::BOr, *a, *b),
        (Not, [a]) => l.unary(Unary::BNot, *a),
        (Eq, [a, b]) => {
            let other = l.unary(Unary::BNot, *b);
            l.select(*a, *b, other)
        }
        (Ne, [a, b]) => {
            let other = l.unary(Unary::BNot, *b);
            l.select(*a, other, *b)
        }
        (Select, [c, a, b]) => l.select(*c, *a, *b),
        (ToInt, [a]) => l.unary(Unary::BToI, *a),
        (ToReal, [a]) => {
            let bit = l.unary(Unary::BToI, *a);
            l.unary(Unary::IToF, bit)
        }
        (_, _) => return None,
    })
}

#[cfg(test)]
mod tests;
