//! Ops on ints.

use super::{Binary::*, Lane, Unary};
use attnc_compiler::ops::ScalarOp;

pub(super) fn expand<L: Lane>(l: &mut L, op: ScalarOp, args: &[L::Value]) -> Option<L::Value> {
    use ScalarOp::*;
    Some(match (op, args) {
        (Add, [a, b]) => l.binary(IAdd, *a, *b),
        (Sub, [a, b]) => l.binary(ISub, *a, *b),
        (Mul, [a, b]) => l.binary(IMul, *a, *b),
        (IntDiv, [a, b]) => divide(l, *a, *b, false),
        (Mod, [a, b]) => {
            let q = divide(l, *a, *b, false);
            let whole = l.binary(IMul, q, *b);
            let r = l.binary(ISub, *a, whole);
            let zero = l.int(0);
            let by_zero = l.binary(IEq, *b, zero);
            l.select(by_zero, zero, r)
        }
        (CeilDiv, [a, b]) => divide(l, *a, *b, true),
        (Pow, [a, b]) => power(l, *a, *b),
        (Neg, [a]) => negate(l, *a),
        (Min, [a, b]) => {
            let less = l.binary(ILt, *a, *b);
            l.select(less, *a, *b)
        }
        (Max, [a, b]) => {
            let less = l.binary(ILt, *a, *b);
            l.select(less, *b, *a)
        }
        (Abs, [a]) => {
            let zero = l.int(0);
            let (minus, is_negative) = (negate(l, *a), l.binary(ILt, *a, zero));
            l.select(is_negative, minus, *a)
        }
        (Sign, [a]) => {
            let (zero, one, minus) = (l.int(0), l.int(1), l.int(-1));
            let (is_positive, is_negative) = (l.binary(ILt, zero, *a), l.binary(ILt, *a, zero));
            let rest = l.select(is_negative, minus, zero);
            l.select(is_positive, one, rest)
        }
        (Xor, [a, b]) => l.binary(IXor, *a, *b),
        (BitAnd, [a, b]) => l.binary(IAnd, *a, *b),
        (BitOr, [a, b]) => l.binary(IOr, *a, *b),
        (Shl, [a, n]) => {
            // Everything is shifted out from 32 on.
            let (zero, thirty_one) = (l.int(0), l.int(31));
            let count = clamp(l, *n);
            let shifted = l.binary(IShl, *a, count);
            let gone = l.binary(ILt, thirty_one, *n);
            l.select(gone, zero, shifted)
        }
        (Shr, [a, n]) => {
            let count = clamp(l, *n);
            l.binary(IShr, *a, count)
        }
        (CeilLog2, [a]) => {
            let (zero, one) = (l.int(0), l.int(1));
            let bits = bits_below(l, *a);
            let small = l.binary(ILe, *a, one);
            l.select(small, zero, bits)
        }
        (Pow2Ceil, [a]) => {
            let (one, thirty_one) = (l.int(1), l.int(31));
            let bits = bits_below(l, *a);
            let count = l.binary(IAnd, bits, thirty_one);
            let shifted = l.binary(IShl, one, count);
            let small = l.binary(ILe, *a, one);
            l.select(small, one, shifted)
        }
        (Lt, [a, b]) => l.binary(ILt, *a, *b),
        (Le, [a, b]) => l.binary(ILe, *a, *b),
        (Eq, [a, b]) => l.binary(IEq, *a, *b),
        (Ne, [a, b]) => {
            let same = l.binary(IEq, *a, *b);
            l.unary(Unary::BNot, same)
        }
        (ToReal, [a]) => l.unary(Unary::IToF, *a),
        (ToInt, [a]) => *a,
        (_, _) => return None,
    })
}

fn negate<L: Lane>(l: &mut L, a: L::Value) -> L::Value {
    let zero = l.int(0);
    l.binary(ISub, zero, a)
}

/// `n` brought into `0..=31`.
fn clamp<L: Lane>(l: &mut L, n: L::Value) -> L::Value {
    let (zero, most) = (l.int(0), l.int(31));
    let low = l.binary(ILt, n, zero);
    let n = l.select(low, zero, n);
    let high = l.binary(ILt, most, n);
    l.select(high, most, n)
}

/// Bits of `a - 1`.
fn bits_below<L: Lane>(l: &mut L, a: L::Value) -> L::Value {
    let (one, all) = (l.int(1), l.int(32));
    let below = l.binary(ISub, a, one);
    let zeros = l.unary(Unary::IClz, below);
    l.binary(ISub, all, zeros)
}

/// Rounded down or up; 0 by zero. Targets fault or guess at divisors 0 and -1, so the division never sees them.
fn divide<L: Lane>(l: &mut L, a: L::Value, b: L::Value, up: bool) -> L::Value {
    let (zero, one, minus_one) = (l.int(0), l.int(1), l.int(-1));
    let (by_zero, by_minus) = (l.binary(IEq, b, zero), l.binary(IEq, b, minus_one));
    let special = l.binary(BOr, by_zero, by_minus);
    let divisor = l.select(special, one, b);
    let q = l.binary(IQuot, a, divisor);
    let whole = l.binary(IMul, q, divisor);
    let r = l.binary(ISub, a, whole);
    // A quotient cut off towards 0 is too large where the signs differ, and too small where they agree.
    let signs = l.binary(IXor, a, divisor);
    let (exact, differ) = (l.binary(IEq, r, zero), l.binary(ILt, signs, zero));
    let moved = if up {
        let above = l.binary(IAdd, q, one);
        l.select(differ, q, above)
    } else {
        let below = l.binary(ISub, q, one);
        l.select(differ, below, q)
    };
    let rounded = l.select(exact, q, moved);
    let minus = negate(l, a);
    let q = l.select(by_minus, minus, rounded);
    l.select(by_zero, zero, q)
}

/// Wrapping power by squaring; negative exponents give 0 unless `a` is 1 or -1.
fn power<L: Lane>(l: &mut L, a: L::Value, b: L::Value) -> L::Value {
    let (zero, one, minus_one) = (l.int(0), l.int(1), l.int(-1));
    let (mut y, mut square) = (one, a);
    for bit in 0..31 {
        let mask = l.int(1 << bit);
        let here = l.binary(IAnd, b, mask);
        let clear = l.binary(IEq, here, zero);
        let times = l.binary(IMul, y, square);
        y = l.select(clear, y, times);
        square = l.binary(IMul, square, square);
    }
    let odd = l.binary(IAnd, b, one);
    let even = l.binary(IEq, odd, zero);
    let flip = l.select(even, one, minus_one);
    let (is_one, is_minus) = (l.binary(IEq, a, one), l.binary(IEq, a, minus_one));
    let below = l.select(is_minus, flip, zero);
    let below = l.select(is_one, one, below);
    let negative = l.binary(ILt, b, zero);
    l.select(negative, below, y)
}
