//! Scalar ops as CLIF. Int is i64, Real is f32, Bool is an i8 that holds 0 or 1.

use super::math::{self, Helper};
use super::micro::Table;
use attnc_compiler::ops::{DType, ScalarOp};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value, types};
use cranelift_frontend::FunctionBuilder;
use std::mem::offset_of;

/// CLIF type of a dtype; `None` for Complex.
pub(super) fn clif_type(dtype: DType) -> Option<Type> {
    match dtype {
        DType::Bool => Some(types::I8),
        DType::Int => Some(types::I64),
        DType::Real => Some(types::F32),
        DType::Complex => None,
    }
}

/// An op as CLIF: either a value, or a helper to call on the operands.
pub(super) enum Lowered {
    Value(Value),
    Call(&'static Helper),
    /// A function of Reals whose pointer lies at this offset of the table.
    Table(usize),
    /// Verified kernels hold no such op.
    Never,
}

/// What is known about an operand while lowering.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    pub value: Value,
    pub dtype: DType,
    /// Its value when it is an Int constant.
    pub constant: Option<i64>,
}

/// Lowers one op; operands have the dtypes that its row takes.
pub(super) fn lower(b: &mut FunctionBuilder<'_>, op: ScalarOp, args: &[Operand]) -> Lowered {
    let (Some(first), x, y) = (args.first(), args.first().map(|a| a.value), args.get(1).map(|a| a.value)) else {
        return Lowered::Never;
    };
    let x = x.unwrap_or(first.value);
    let y = y.unwrap_or(x);
    match first.dtype {
        DType::Int => int(b, op, args, x, y),
        DType::Real => real(b, op, args, x, y),
        DType::Bool => boolean(b, op, args, x, y),
        DType::Complex => Lowered::Never,
    }
}

fn boolean(b: &mut FunctionBuilder<'_>, op: ScalarOp, args: &[Operand], x: Value, y: Value) -> Lowered {
    use ScalarOp::*;
    let value = match op {
        And => b.ins().band(x, y),
        Or => b.ins().bor(x, y),
        Not => b.ins().bxor_imm_s(x, 1),
        ScalarOp::Eq => b.ins().icmp(IntCC::Equal, x, y),
        Ne => b.ins().icmp(IntCC::NotEqual, x, y),
        ToInt => b.ins().uextend(types::I64, x),
        ToReal => {
            let wide = b.ins().uextend(types::I32, x);
            b.ins().fcvt_from_sint(types::F32, wide)
        }
        Select => match args.get(2) {
            Some(z) => b.ins().select(x, y, z.value),
            None => return Lowered::Never,
        },
        Add | Sub | Mul | Div | IntDiv | Mod | Pow | Neg | Min | Max | Abs | Sign | Floor | Ceil | Rint | Exp | Log | Log1p | Sqrt | Tanh
        | Sigmoid | Softplus | Sin | Cos | Erf | ExpDiff | Ratio | Xor | BitAnd | BitOr | Shl | Shr | CeilDiv | CeilLog2 | Pow2Ceil | Lt | Le
        | ToComplex | Complex | Re | Im => return Lowered::Never,
    };
    Lowered::Value(value)
}

fn int(b: &mut FunctionBuilder<'_>, op: ScalarOp, args: &[Operand], x: Value, y: Value) -> Lowered {
    use ScalarOp::*;
    let divisor = args.get(1).and_then(|a| a.constant);
    let value = match op {
        Add => b.ins().iadd(x, y),
        Sub => b.ins().isub(x, y),
        Mul => b.ins().imul(x, y),
        IntDiv => floor_div(b, x, y, divisor),
        Mod => floor_mod(b, x, y, divisor),
        CeilDiv => {
            let negated = b.ins().ineg(x);
            let quotient = floor_div(b, negated, y, divisor);
            b.ins().ineg(quotient)
        }
        Pow => return Lowered::Call(&math::INT_POW),
        Neg => b.ins().ineg(x),
        Min => b.ins().smin(x, y),
        Max => b.ins().smax(x, y),
        Abs => b.ins().iabs(x),
        Sign => {
            let zero = b.ins().iconst(types::I64, 0);
            let positive = b.ins().icmp(IntCC::SignedGreaterThan, x, zero);
            let positive = b.ins().uextend(types::I64, positive);
            let sign = b.ins().sshr_imm_s(x, 63);
            b.ins().bor(sign, positive)
        }
        Xor => b.ins().bxor(x, y),
        BitAnd => b.ins().band(x, y),
        BitOr => b.ins().bor(x, y),
        Shl => {
            let n = clamp(b, y, 62);
            b.ins().ishl(x, n)
        }
        Shr => {
            let n = clamp(b, y, 63);
            b.ins().sshr(x, n)
        }
        CeilLog2 => {
            let bits = bits_below(b, x);
            or_small(b, x, bits, 0)
        }
        Pow2Ceil => {
            let bits = bits_below(b, x);
            let one = b.ins().iconst(types::I64, 1);
            let power = b.ins().ishl(one, bits);
            or_small(b, x, power, 1)
        }
        Lt => b.ins().icmp(IntCC::SignedLessThan, x, y),
        Le => b.ins().icmp(IntCC::SignedLessThanOrEqual, x, y),
        ScalarOp::Eq => b.ins().icmp(IntCC::Equal, x, y),
        Ne => b.ins().icmp(IntCC::NotEqual, x, y),
        ToReal => b.ins().fcvt_from_sint(types::F32, x),
        ToInt => x,
        Div | Floor | Ceil | Rint | Exp | Log | Log1p | Sqrt | Tanh | Sigmoid | Softplus | Sin | Cos | Erf | ExpDiff | Ratio | And | Or | Not
        | Select | ToComplex | Complex | Re | Im => return Lowered::Never,
    };
    Lowered::Value(value)
}

fn clamp(b: &mut FunctionBuilder<'_>, n: Value, most: i64) -> Value {
    let (zero, most) = (b.ins().iconst(types::I64, 0), b.ins().iconst(types::I64, most));
    let n = b.ins().smax(n, zero);
    b.ins().smin(n, most)
}

/// 64 - leading zeros of x - 1.
fn bits_below(b: &mut FunctionBuilder<'_>, x: Value) -> Value {
    let below = b.ins().iadd_imm_s(x, -1);
    let zeros = b.ins().clz(below);
    let all = b.ins().iconst(types::I64, 64);
    b.ins().isub(all, zeros)
}

/// `x <= 1 ? small : value`.
fn or_small(b: &mut FunctionBuilder<'_>, x: Value, value: Value, small: i64) -> Value {
    let is_small = b.ins().icmp_imm_s(IntCC::SignedLessThanOrEqual, x, 1);
    let small = b.ins().iconst(types::I64, small);
    b.ins().select(is_small, small, value)
}

/// Quotient towards minus infinity; 0 for a zero divisor; wraps for the least Int by -1. Never traps.
fn floor_div(b: &mut FunctionBuilder<'_>, x: Value, y: Value, constant: Option<i64>) -> Value {
    match constant {
        Some(0) => return b.ins().iconst(types::I64, 0),
        Some(-1) => return b.ins().ineg(x),
        Some(c) if c > 0 && (c as u64).is_power_of_two() => return b.ins().sshr_imm_s(x, i64::from(c.trailing_zeros())),
        Some(c) => {
            let quotient = b.ins().sdiv(x, y);
            let product = b.ins().imul(quotient, y);
            let rest = b.ins().isub(x, product);
            return lower_if_signs_differ(b, quotient, rest, c);
        }
        None => {}
    }
    let (safe, special) = safe_divisor(b, y);
    let quotient = b.ins().sdiv(x, safe);
    let product = b.ins().imul(quotient, safe);
    let rest = b.ins().isub(x, product);
    let signs = b.ins().bxor(rest, safe);
    let negative = b.ins().icmp_imm_s(IntCC::SignedLessThan, signs, 0);
    let inexact = b.ins().icmp_imm_s(IntCC::NotEqual, rest, 0);
    let off = b.ins().band(negative, inexact);
    let off = b.ins().uextend(types::I64, off);
    let floored = b.ins().isub(quotient, off);
    // y is 0 or -1: the product x * y is 0 or -x.
    let simple = b.ins().imul(x, y);
    b.ins().select(special, simple, floored)
}

/// Remainder with the sign of the divisor; 0 for a zero divisor. Never traps.
fn floor_mod(b: &mut FunctionBuilder<'_>, x: Value, y: Value, constant: Option<i64>) -> Value {
    match constant {
        Some(0 | -1) => return b.ins().iconst(types::I64, 0),
        Some(c) if c > 0 && (c as u64).is_power_of_two() => return b.ins().band_imm_s(x, c - 1),
        Some(_) | None => {}
    }
    let (safe, special) = match constant {
        Some(_) => (y, None),
        None => {
            let (safe, special) = safe_divisor(b, y);
            (safe, Some(special))
        }
    };
    let quotient = b.ins().sdiv(x, safe);
    let product = b.ins().imul(quotient, safe);
    let rest = b.ins().isub(x, product);
    let signs = b.ins().bxor(rest, safe);
    let negative = b.ins().icmp_imm_s(IntCC::SignedLessThan, signs, 0);
    let inexact = b.ins().icmp_imm_s(IntCC::NotEqual, rest, 0);
    let off = b.ins().band(negative, inexact);
    let moved = b.ins().iadd(rest, safe);
    let value = b.ins().select(off, moved, rest);
    match special {
        // The stand-in divisor 1 leaves the remainder 0, which is right for 0 and -1 as well.
        Some(_) | None => value,
    }
}

fn lower_if_signs_differ(b: &mut FunctionBuilder<'_>, quotient: Value, rest: Value, divisor: i64) -> Value {
    let order = if divisor > 0 { IntCC::SignedLessThan } else { IntCC::SignedGreaterThan };
    let off = b.ins().icmp_imm_s(order, rest, 0);
    let off = b.ins().uextend(types::I64, off);
    b.ins().isub(quotient, off)
}

/// The divisor, or 1 in place of 0 and -1 (which trap), and whether it was replaced.
fn safe_divisor(b: &mut FunctionBuilder<'_>, y: Value) -> (Value, Value) {
    let next = b.ins().iadd_imm_s(y, 1);
    let special = b.ins().icmp_imm_s(IntCC::UnsignedLessThanOrEqual, next, 1);
    let one = b.ins().iconst(types::I64, 1);
    (b.ins().select(special, one, y), special)
}

fn real(b: &mut FunctionBuilder<'_>, op: ScalarOp, _args: &[Operand], x: Value, y: Value) -> Lowered {
    use ScalarOp::*;
    let value = match op {
        Add => b.ins().fadd(x, y),
        Sub => b.ins().fsub(x, y),
        Mul => b.ins().fmul(x, y),
        Div => b.ins().fdiv(x, y),
        Neg => b.ins().fneg(x),
        Min => extreme(b, FloatCC::LessThan, x, y),
        Max => extreme(b, FloatCC::GreaterThan, x, y),
        Abs => b.ins().fabs(x),
        Sign => sign(b, x),
        Floor => {
            let floor = b.ins().floor(x);
            b.ins().fcvt_to_sint_sat(types::I64, floor)
        }
        Ceil => {
            let ceil = b.ins().ceil(x);
            b.ins().fcvt_to_sint_sat(types::I64, ceil)
        }
        ToInt => b.ins().fcvt_to_sint_sat(types::I64, x),
        Rint => b.ins().nearest(x),
        Sqrt => b.ins().sqrt(x),
        Ratio => ratio(b, x, y),
        Lt => b.ins().fcmp(FloatCC::LessThan, x, y),
        Le => b.ins().fcmp(FloatCC::LessThanOrEqual, x, y),
        ScalarOp::Eq => b.ins().fcmp(FloatCC::Equal, x, y),
        Ne => b.ins().fcmp(FloatCC::NotEqual, x, y),
        Exp => math::exp(b, x),
        ExpDiff => math::exp_diff(b, x, y),
        Sigmoid => math::sigmoid(b, x),
        Log => return Lowered::Table(offset_of!(Table, log1)),
        Log1p => return Lowered::Table(offset_of!(Table, log1p1)),
        Tanh => return Lowered::Table(offset_of!(Table, tanh1)),
        Softplus => return Lowered::Table(offset_of!(Table, softplus1)),
        Sin => return Lowered::Table(offset_of!(Table, sin1)),
        Cos => return Lowered::Table(offset_of!(Table, cos1)),
        Erf => return Lowered::Table(offset_of!(Table, erf1)),
        Pow => return Lowered::Table(offset_of!(Table, pow1)),
        IntDiv | Mod | Xor | BitAnd | BitOr | Shl | Shr | CeilDiv | CeilLog2 | Pow2Ceil | And | Or | Not | Select | ToReal | ToComplex | Complex
        | Re | Im => return Lowered::Never,
    };
    Lowered::Value(value)
}

/// Smaller or larger operand, NaN when either is NaN: the machine's rule gives `y` when either is NaN, so only NaN in `x` is left.
pub(super) fn extreme(b: &mut FunctionBuilder<'_>, order: FloatCC, x: Value, y: Value) -> Value {
    let chosen = math::select(b, order, x, y, x, y);
    math::select(b, FloatCC::Unordered, x, x, x, chosen)
}

/// -1, 0 or 1 for F32 or a vector of it; NaN and zeros stay.
pub(super) fn sign(b: &mut FunctionBuilder<'_>, x: Value) -> Value {
    let ty = b.func.dfg.value_type(x);
    let [zero, one, minus] = [0.0, 1.0, -1.0].map(|c| math::splat(b, ty, c));
    let rest = math::select(b, FloatCC::LessThan, x, zero, minus, x);
    math::select(b, FloatCC::GreaterThan, x, zero, one, rest)
}

/// `x / y`, and 0 where `y` is 0, for F32 or a vector of it.
pub(super) fn ratio(b: &mut FunctionBuilder<'_>, x: Value, y: Value) -> Value {
    let ty = b.func.dfg.value_type(x);
    let zero = math::splat(b, ty, 0.0);
    let quotient = b.ins().fdiv(x, y);
    math::select(b, FloatCC::Equal, y, zero, zero, quotient)
}

/// The bits of an i32 as f32.
pub(super) fn from_bits(b: &mut FunctionBuilder<'_>, bits: Value) -> Value {
    b.ins().bitcast(types::F32, MemFlagsData::new(), bits)
}

/// The bits of an f32 as i32.
pub(super) fn to_bits(b: &mut FunctionBuilder<'_>, x: Value) -> Value {
    b.ins().bitcast(types::I32, MemFlagsData::new(), x)
}
