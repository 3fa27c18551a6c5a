//! Ops on reals.
//!
//! Sources: coefficients of exp, log, tanh, sin and cos from Cephes (`expf.c`, `logf.c`, `tanhf.c`, `sinf.c`), of erf from
//! N. Juffa's published `erff`.

#![allow(clippy::excessive_precision)] // Published coefficients keep the digits of their source.

use super::{Binary, Binary::*, Lane, Unary, Unary::*};
use attnc_compiler::ops::ScalarOp;

pub(super) fn expand<L: Lane>(l: &mut L, op: ScalarOp, args: &[L::Value]) -> Option<L::Value> {
    use ScalarOp::*;
    Some(match (op, args) {
        (Add, [a, b]) => l.binary(FAdd, *a, *b),
        (Sub, [a, b]) => l.binary(FSub, *a, *b),
        (Mul, [a, b]) => l.binary(FMul, *a, *b),
        (Div, [a, b]) => l.binary(FDiv, *a, *b),
        (Pow, [a, b]) => power(l, *a, *b),
        (Neg, [a]) => l.unary(FNeg, *a),
        (Min, [a, b]) => pick(l, *a, *b, *a, *b),
        (Max, [a, b]) => pick(l, *b, *a, *a, *b),
        (Abs, [a]) => l.unary(FAbs, *a),
        (Sign, [a]) => {
            let (zero, one, minus) = (l.real(0.0), l.real(1.0), l.real(-1.0));
            let (positive, negative) = (l.binary(FLt, zero, *a), l.binary(FLt, *a, zero));
            let rest = l.select(negative, minus, *a);
            l.select(positive, one, rest)
        }
        (Floor, [a]) => {
            let whole = l.unary(FFloor, *a);
            to_int(l, whole)
        }
        (Ceil, [a]) => {
            let whole = l.unary(FCeil, *a);
            to_int(l, whole)
        }
        (Rint, [a]) => l.unary(FRint, *a),
        (Exp, [a]) => exp(l, *a),
        (Log, [a]) => {
            let zero = l.real(0.0);
            log_with(l, *a, zero)
        }
        (Log1p, [a]) => log1p(l, *a),
        (Sqrt, [a]) => l.unary(FSqrt, *a),
        (Tanh, [a]) => tanh(l, *a),
        (Sigmoid, [a]) => {
            let (zero, one) = (l.real(0.0), l.real(1.0));
            let e = exp_minus_abs(l, *a);
            let negative = l.binary(FLt, *a, zero);
            let above = l.select(negative, e, one);
            let below = l.binary(FAdd, one, e);
            l.binary(FDiv, above, below)
        }
        (Softplus, [a]) => {
            let zero = l.real(0.0);
            let e = exp_minus_abs(l, *a);
            let tail = log1p(l, e);
            let negative = l.binary(FLt, *a, zero);
            let straight = l.select(negative, zero, *a);
            l.binary(FAdd, straight, tail)
        }
        (Sin, [a]) => sin_cos(l, *a).0,
        (Cos, [a]) => sin_cos(l, *a).1,
        (Erf, [a]) => erf(l, *a),
        (ExpDiff, [a, b]) => {
            let (zero, bottom) = (l.real(0.0), l.real(f32::NEG_INFINITY));
            let difference = l.binary(FSub, *a, *b);
            let e = exp(l, difference);
            let absent = l.binary(FEq, *a, bottom);
            l.select(absent, zero, e)
        }
        (Ratio, [a, b]) => {
            let zero = l.real(0.0);
            let quotient = l.binary(FDiv, *a, *b);
            let empty = l.binary(FEq, *b, zero);
            l.select(empty, zero, quotient)
        }
        (Lt, [a, b]) => l.binary(FLt, *a, *b),
        (Le, [a, b]) => l.binary(FLe, *a, *b),
        (Eq, [a, b]) => l.binary(FEq, *a, *b),
        (Ne, [a, b]) => {
            let same = l.binary(FEq, *a, *b);
            l.unary(BNot, same)
        }
        (ToInt, [a]) => to_int(l, *a),
        (_, _) => return None,
    })
}

/// From the bits, because targets may assume that comparisons see no NaN.
fn is_nan<L: Lane>(l: &mut L, x: L::Value) -> L::Value {
    let (mask, infinity) = (l.int(0x7fff_ffff), l.int(0x7f80_0000));
    let bits = l.unary(FBits, x);
    let magnitude = l.binary(IAnd, bits, mask);
    l.binary(ILt, infinity, magnitude)
}

/// `low < high ? a : b`, and NaN when `a` or `b` is.
fn pick<L: Lane>(l: &mut L, low: L::Value, high: L::Value, a: L::Value, b: L::Value) -> L::Value {
    let (less, nan) = (l.binary(FLt, low, high), is_nan(l, a));
    let first = l.binary(BOr, less, nan);
    l.select(first, a, b)
}

/// `x` with the sign of `sign`; `x` is not negative.
fn with_sign<L: Lane>(l: &mut L, x: L::Value, sign: L::Value) -> L::Value {
    let top = l.int(i32::MIN);
    let (bits, sign) = (l.unary(FBits, x), l.unary(FBits, sign));
    let sign = l.binary(IAnd, sign, top);
    let bits = l.binary(IOr, bits, sign);
    l.unary(IBits, bits)
}

/// Truncates and saturates; NaN gives 0.
fn to_int<L: Lane>(l: &mut L, x: L::Value) -> L::Value {
    let (low, high, zero) = (l.real(-2147483648.0), l.real(2147483648.0), l.int(0));
    let (least, most) = (l.int(i32::MIN), l.int(i32::MAX));
    let (not_low, not_high, below) = (l.binary(FLe, low, x), l.binary(FLt, x, high), l.binary(FLt, x, low));
    let inside = l.binary(BAnd, not_low, not_high);
    let nothing = l.real(0.0);
    let safe = l.select(inside, x, nothing);
    let y = l.unary(FToI, safe);
    let outside = l.select(below, least, most);
    let y = l.select(inside, y, outside);
    let nan = is_nan(l, x);
    l.select(nan, zero, y)
}

/// Horner's rule, highest coefficient first.
fn horner<L: Lane>(l: &mut L, x: L::Value, coefficients: &[f32]) -> L::Value {
    let mut y = l.real(0.0);
    for (i, c) in coefficients.iter().enumerate() {
        let c = l.real(*c);
        y = if i == 0 { c } else { l.fma(y, x, c) };
    }
    y
}

/// Leading and trailing part of log 2; the first times a small int is exact.
const LN_2: [f32; 2] = [0.693_359_375, -2.121_944_4e-4];

/// e^x: e^(n log 2 + r) = 2^n e^r with |r| <= log(2) / 2.
fn exp<L: Lane>(l: &mut L, x: L::Value) -> L::Value {
    let (low, high) = (l.real(-104.0), l.real(89.0));
    // Both ends give what lies beyond them: 0 and inf. NaN passes.
    let (below, above) = (l.binary(FLt, x, low), l.binary(FLt, high, x));
    let x = l.select(below, low, x);
    let x = l.select(above, high, x);
    let per = l.real(std::f32::consts::LOG2_E);
    let turns = l.binary(FMul, x, per);
    let n = l.unary(FRint, turns);
    let (first, second) = (l.real(LN_2[0]), l.real(LN_2[1]));
    // The first product has 18 bits. Clearing bits that are 0 keeps compilers from adding up the two factors of n.
    let (whole, mask) = (l.binary(FMul, n, first), l.int(-4));
    let bits = l.unary(FBits, whole);
    let bits = l.binary(IAnd, bits, mask);
    let whole = l.unary(IBits, bits);
    let r = l.binary(FSub, x, whole);
    let rest = l.binary(FMul, n, second);
    let r = l.binary(FSub, r, rest);
    let p = horner(l, r, &[1.987_569_15e-4, 1.398_199_95e-3, 8.333_451_9e-3, 4.166_579_6e-2, 1.666_666_55e-1, 5.000_000_1e-1]);
    let z = l.binary(FMul, r, r);
    let y = l.fma(p, z, r);
    let one = l.real(1.0);
    let y = l.binary(FAdd, y, one);
    // Two factors, because 2^n alone may lie outside the normal numbers.
    let n = l.unary(FToI, n);
    let (bias, by_one, by_mantissa) = (l.int(127), l.int(1), l.int(23));
    let half = l.binary(IShr, n, by_one);
    let rest = l.binary(ISub, n, half);
    let mut y = y;
    for part in [half, rest] {
        let biased = l.binary(IAdd, part, bias);
        let bits = l.binary(IShl, biased, by_mantissa);
        let factor = l.unary(IBits, bits);
        y = l.binary(FMul, y, factor);
    }
    y
}

fn exp_minus_abs<L: Lane>(l: &mut L, x: L::Value) -> L::Value {
    let a = l.unary(FAbs, x);
    let minus = l.unary(FNeg, a);
    exp(l, minus)
}

/// log(x (1 + c)) for a tiny `c`.
fn log_with<L: Lane>(l: &mut L, x: L::Value, c: L::Value) -> L::Value {
    let (zero, one, tiny, lift) = (l.real(0.0), l.real(1.0), l.real(f32::MIN_POSITIVE), l.real(8388608.0));
    // Subnormal arguments are lifted by 2^23.
    let small = l.binary(FLt, x, tiny);
    let lifted = l.binary(FMul, x, lift);
    let scaled = l.select(small, lifted, x);
    let (none, lost) = (l.int(0), l.int(23));
    let down = l.select(small, lost, none);
    // x = m 2^e with m between sqrt(1/2) and sqrt(2).
    let (offset, by_mantissa, bias, mantissa, root) = (l.int(0x3f80_0000 - 0x3f35_04f3), l.int(23), l.int(127), l.int(0x007f_ffff), l.int(0x3f35_04f3));
    let bits = l.unary(FBits, scaled);
    let moved = l.binary(IAdd, bits, offset);
    let e = l.binary(IShr, moved, by_mantissa);
    let e = l.binary(ISub, e, bias);
    let e = l.binary(ISub, e, down);
    let e = l.unary(IToF, e);
    let fraction = l.binary(IAnd, moved, mantissa);
    let m = l.binary(IAdd, fraction, root);
    let m = l.unary(IBits, m);
    let f = l.binary(FSub, m, one);
    let z = l.binary(FMul, f, f);
    let p = horner(
        l,
        f,
        &[7.037_683_6e-2, -1.151_461e-1, 1.167_699_9e-1, -1.242_014_1e-1, 1.424_932_3e-1, -1.666_805_8e-1, 2.000_071_5e-1, -2.499_999_4e-1, 3.333_333_1e-1],
    );
    let (first, second, minus_half) = (l.real(LN_2[0]), l.real(LN_2[1]), l.real(-0.5));
    let low = l.fma(e, second, c);
    let q = l.fma(f, p, minus_half);
    let y = l.fma(z, q, low);
    let y = l.binary(FAdd, f, y);
    let y = l.fma(e, first, y);
    let (infinity, bottom, nan) = (l.real(f32::INFINITY), l.real(f32::NEG_INFINITY), l.real(f32::NAN));
    let (finite, negative, at_zero) = (l.binary(FLt, x, infinity), l.binary(FLt, x, zero), l.binary(FEq, x, zero));
    let y = l.select(finite, y, x);
    let y = l.select(negative, nan, y);
    let y = l.select(at_zero, bottom, y);
    let is_nan = is_nan(l, x);
    l.select(is_nan, x, y)
}

/// log(1 + x), right to the last bits near 0.
fn log1p<L: Lane>(l: &mut L, x: L::Value) -> L::Value {
    let (zero, one) = (l.real(0.0), l.real(1.0));
    let u = l.binary(FAdd, one, x);
    // What 1 + x lost, taken from the larger of the two. A target that cancels the sums finds 0, an error of half an ulp of u.
    let big = l.binary(FLt, one, x);
    let (large, small) = (l.select(big, x, one), l.select(big, one, x));
    let back = l.binary(FSub, u, large);
    let lost = l.binary(FSub, small, back);
    let c = l.binary(FDiv, lost, u);
    // At u = 0 and u = inf the quotient is not a number, and not needed.
    let nan = is_nan(l, c);
    let c = l.select(nan, zero, c);
    let far = log_with(l, u, c);
    // Near 0 a series needs no sum with 1: x - x^2 / 2 + x^3 (1/3 - x / 4 + ..), here with the logarithm's polynomial.
    let z = l.binary(FMul, x, x);
    let p = horner(
        l,
        x,
        &[7.037_683_6e-2, -1.151_461e-1, 1.167_699_9e-1, -1.242_014_1e-1, 1.424_932_3e-1, -1.666_805_8e-1, 2.000_071_5e-1, -2.499_999_4e-1, 3.333_333_1e-1],
    );
    let minus_half = l.real(-0.5);
    let q = l.fma(x, p, minus_half);
    let near = l.fma(z, q, x);
    let (low, high) = (l.real(-0.292_893_2), l.real(0.414_213_5));
    let (above, below) = (l.binary(FLt, low, x), l.binary(FLt, x, high));
    let inside = l.binary(BAnd, above, below);
    l.select(inside, near, far)
}

fn tanh<L: Lane>(l: &mut L, x: L::Value) -> L::Value {
    let (one, two, edge) = (l.real(1.0), l.real(2.0), l.real(0.625));
    let a = l.unary(FAbs, x);
    let z = l.binary(FMul, x, x);
    let p = horner(l, z, &[-5.704_988_7e-3, 2.063_908_8e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328_2e-1]);
    let pz = l.binary(FMul, p, z);
    let near = l.fma(pz, x, x);
    let twice = l.binary(FAdd, a, a);
    let e = exp(l, twice);
    let below = l.binary(FAdd, e, one);
    let rest = l.binary(FDiv, two, below);
    let far = l.binary(FSub, one, rest);
    let far = with_sign(l, far, x);
    let is_near = l.binary(FLt, a, edge);
    let y = l.select(is_near, near, far);
    let nan = is_nan(l, x);
    l.select(nan, x, y)
}

fn erf<L: Lane>(l: &mut L, x: L::Value) -> L::Value {
    let (one, edge) = (l.real(1.0), l.real(0.927_734_4));
    let t = l.unary(FAbs, x);
    let s = l.binary(FMul, x, x);
    let r = horner(l, t, &[-1.728_534_7e-5, 3.831_971_3e-4]);
    let u = horner(l, t, &[-3.883_964_4e-3, 2.425_462_2e-2]);
    let r = l.fma(r, s, u);
    let mut r = r;
    for c in [-1.067_778_8e-1, -6.348_467e-1, -1.287_175_1e-1] {
        let c = l.real(c);
        r = l.fma(r, t, c);
    }
    let minus = l.unary(FNeg, t);
    let r = l.fma(r, t, minus);
    let e = exp(l, r);
    let far = l.binary(FSub, one, e);
    // From 4 on it is 1 in f32; the polynomial is not made for what lies beyond.
    let (four, saturated) = (l.real(4.0), l.real(1.0));
    let beyond = l.binary(FLt, four, t);
    let far = l.select(beyond, saturated, far);
    let far = with_sign(l, far, x);
    let p = horner(l, s, &[-5.967_617e-4, 4.991_194_2e-3, -2.676_813_5e-2, 1.128_199_25e-1, -3.761_253_4e-1, 1.283_791_7e-1]);
    let near = l.fma(p, x, x);
    let is_far = l.binary(FLt, edge, t);
    let y = l.select(is_far, far, near);
    let nan = is_nan(l, x);
    l.select(nan, x, y)
}

/// pi / 2 as a sum whose first parts have 8 bits, so that their products with 16-bit ints are exact.
const PI_2: [f32; 4] = [1.570_312_5, 4.825_592_04e-4, 1.266_598_7e-6, 9.920_936_3e-10];

/// Up to here [`PI_2`] reduces angles.
const REDUCED: f32 = 100_000.0;
/// 64 zero bits and the first 192 bits of 2 / pi.
const TWO_PI: [i32; 8] = [0, 0, 0xa2f9_836eu32 as i32, 0x4e44_1529u32 as i32, 0xfc27_57d1u32 as i32, 0xf534_ddc0u32 as i32, 0xdb62_9599u32 as i32, 0x3c43_9041u32 as i32];

/// Sine and cosine: reduction to a quarter of the circle, both polynomials, then a choice.
fn sin_cos<L: Lane>(l: &mut L, x: L::Value) -> (L::Value, L::Value) {
    let per = l.real(std::f32::consts::FRAC_2_PI);
    let turns = l.binary(FMul, x, per);
    let n = l.unary(FRint, turns);
    let mut r = x;
    for part in PI_2 {
        let part = l.real(part);
        let whole = l.binary(FMul, n, part);
        r = l.binary(FSub, r, whole);
    }
    let (a, most) = (l.unary(FAbs, x), l.real(REDUCED));
    let small = l.binary(FLt, a, most);
    let nothing = l.real(0.0);
    let n = l.select(small, n, nothing);
    let quarter = l.unary(FToI, n);
    let (far_quarter, far) = reduce_far(l, x);
    let (quarter, r) = (l.select(small, quarter, far_quarter), l.select(small, r, far));
    let (one, minus_half) = (l.real(1.0), l.real(-0.5));
    let z = l.binary(FMul, r, r);
    let p = horner(l, z, &[-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]);
    let pz = l.binary(FMul, p, z);
    let s = l.fma(pz, r, r);
    let p = horner(l, z, &[2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]);
    let start = l.fma(z, minus_half, one);
    let zz = l.binary(FMul, z, z);
    let c = l.fma(zz, p, start);
    let (bit, two, zero) = (l.int(1), l.int(2), l.int(0));
    let odd = l.binary(IAnd, quarter, bit);
    let even = l.binary(IEq, odd, zero);
    let (sin, cos) = (l.select(even, s, c), l.select(even, c, s));
    let upper = l.binary(IAnd, quarter, two);
    let sin_up = l.binary(IEq, upper, zero);
    let next = l.binary(IAdd, quarter, bit);
    let upper = l.binary(IAnd, next, two);
    let cos_up = l.binary(IEq, upper, zero);
    let (minus_sin, minus_cos) = (l.unary(FNeg, sin), l.unary(FNeg, cos));
    let (sin, cos) = (l.select(sin_up, sin, minus_sin), l.select(cos_up, cos, minus_cos));
    // At infinities and at NaN there is no angle.
    let (infinity, nan) = (l.real(f32::INFINITY), l.real(f32::NAN));
    let finite = l.binary(FLt, a, infinity);
    (l.select(finite, sin, nan), l.select(finite, cos, nan))
}

/// Quarters of the circle (mod 4) and the rest of an angle beyond [`REDUCED`]: its 24-bit mantissa times those 64 bits of 2 / pi that
/// matter, modulo 4. Source: Payne and Hanek 1983.
fn reduce_far<L: Lane>(l: &mut L, x: L::Value) -> (L::Value, L::Value) {
    let [one, five, sixteen, twenty_three, thirty, thirty_one] = [1, 5, 16, 23, 30, 31].map(|n| l.int(n));
    let bits = l.unary(FBits, x);
    let exponent = l.binary(IShr, bits, twenty_three);
    let (byte, fraction, hidden) = (l.int(0xff), l.int(0x007f_ffff), l.int(0x0080_0000));
    let exponent = l.binary(IAnd, exponent, byte);
    let mantissa = l.binary(IAnd, bits, fraction);
    let mantissa = l.binary(IOr, mantissa, hidden);
    // x = mantissa * 2^(exponent - 150); the window starts 62 bits above the unit of the mantissa.
    let origin = l.int(150 - 62);
    let start = l.binary(ISub, exponent, origin);
    let (index, offset) = (l.binary(IShr, start, five), l.binary(IAnd, start, thirty_one));
    let mut words = [one; 3];
    for (k, word) in words.iter_mut().enumerate() {
        *word = l.int(TWO_PI[k + 1]);
        for i in 2..=5 {
            let (here, candidate) = (l.int(i), l.int(TWO_PI[i as usize + k]));
            let is_here = l.binary(IEq, index, here);
            *word = l.select(is_here, candidate, *word);
        }
    }
    let (positive, rest) = (l.int(i32::MAX), l.binary(ISub, thirty_one, offset));
    let mut window = [one; 2];
    for (k, part) in window.iter_mut().enumerate() {
        // The lower word moves right by 32 - offset, in two steps because that may be 32.
        let high = l.binary(IShl, words[k], offset);
        let low = l.binary(IShr, words[k + 1], one);
        let low = l.binary(IAnd, low, positive);
        let low = l.binary(IShr, low, rest);
        *part = l.binary(IOr, high, low);
    }
    // Upper word of mantissa * window, from products of 16-bit halves.
    let half = l.int(0xffff);
    let upper = |l: &mut L, x: L::Value| {
        let shifted = l.binary(IShr, x, sixteen);
        l.binary(IAnd, shifted, half)
    };
    let (m_low, m_high) = (l.binary(IAnd, mantissa, half), upper(l, mantissa));
    let (w_low, w_high) = (l.binary(IAnd, window[1], half), upper(l, window[1]));
    let [p0, p1, p2, p3] = [(m_low, w_low), (m_low, w_high), (m_high, w_low), (m_high, w_high)].map(|(a, b)| l.binary(IMul, a, b));
    let mut middle = upper(l, p0);
    let mut top = p3;
    for p in [p1, p2] {
        let (low, high) = (l.binary(IAnd, p, half), upper(l, p));
        middle = l.binary(IAdd, middle, low);
        top = l.binary(IAdd, top, high);
    }
    let carry = upper(l, middle);
    let top = l.binary(IAdd, top, carry);
    let whole = l.binary(IMul, mantissa, window[0]);
    let top = l.binary(IAdd, top, whole);
    let low = l.binary(IMul, mantissa, window[1]);
    // Nearest quarter; 30 bits of fraction, then those of the lower word.
    let round = l.int(1 << 29);
    let moved = l.binary(IAdd, top, round);
    let quarter = l.binary(IShr, moved, thirty);
    let even = l.binary(IShl, quarter, thirty);
    let signed = l.binary(ISub, top, even);
    let (eight, byteless) = (l.int(8), l.int(0x00ff_ffff));
    let low = l.binary(IShr, low, eight);
    let low = l.binary(IAnd, low, byteless);
    let (signed, low) = (l.unary(IToF, signed), l.unary(IToF, low));
    let (small_unit, unit) = (l.real(5.960_464_5e-8), l.real(std::f32::consts::FRAC_PI_2 / 1_073_741_824.0));
    let sum = l.fma(low, small_unit, signed);
    let r = l.binary(FMul, sum, unit);
    // The reduction is odd in x.
    let none = l.int(0);
    let negative = l.binary(ILt, bits, none);
    let (minus_quarter, minus_r) = (l.binary(ISub, none, quarter), l.unary(FNeg, r));
    (l.select(negative, minus_quarter, quarter), l.select(negative, minus_r, r))
}

/// a^b as e^(b log |a|), with the sign and the corners of C's `pow`.
fn power<L: Lane>(l: &mut L, a: L::Value, b: L::Value) -> L::Value {
    let (zero, one, nan, infinity) = (l.real(0.0), l.real(1.0), l.real(f32::NAN), l.real(f32::INFINITY));
    let magnitude = l.unary(FAbs, a);
    let log = log_with(l, magnitude, zero);
    let exponent = l.binary(FMul, b, log);
    let y = exp(l, exponent);
    // |a| = 1 gives 1 for infinite exponents, where the product is not a number.
    let unit = l.binary(FEq, magnitude, one);
    let b_nan = is_nan(l, b);
    let known = l.unary(BNot, b_nan);
    let flat = l.binary(BAnd, unit, known);
    let y = l.select(flat, one, y);
    // Negative bases: the sign of odd exponents, NaN for fractions. Reals from 2^24 on are even.
    let whole = l.unary(FRint, b);
    let integral = l.binary(FEq, whole, b);
    let b_size = l.unary(FAbs, b);
    let limit = l.real(16777216.0);
    let small = l.binary(FLt, b_size, limit);
    let safe = l.select(small, b, zero);
    let int = l.unary(FToI, safe);
    let (bit, none) = (l.int(1), l.int(0));
    let odd = l.binary(IAnd, int, bit);
    let even = l.binary(IEq, odd, none);
    let is_odd = l.unary(Unary::BNot, even);
    let is_odd = l.binary(BAnd, is_odd, integral);
    let bits = l.unary(FBits, a);
    let negative = l.binary(Binary::ILt, bits, none);
    let flipped = l.unary(FNeg, y);
    let flips = l.binary(BAnd, negative, is_odd);
    let y = l.select(flips, flipped, y);
    let fraction = l.unary(BNot, integral);
    let (below_zero, finite) = (l.binary(FLt, a, zero), l.binary(FLt, magnitude, infinity));
    let no_root = l.binary(BAnd, below_zero, fraction);
    let no_root = l.binary(BAnd, no_root, finite);
    let y = l.select(no_root, nan, y);
    let b_zero = l.binary(FEq, b, zero);
    let a_one = l.binary(FEq, a, one);
    let always = l.binary(BOr, b_zero, a_one);
    l.select(always, one, y)
}
