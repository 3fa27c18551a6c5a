//! Scalar functions over one register, at most 2 ulp from the true value (exp and log: 1), the same on every level.
//!
//! Corner cases follow C: exp(-inf) = 0, exp(inf) = inf, log(0) = -inf, log(x < 0) = NaN, NaN stays NaN.
//! Sources: coefficients of log and tanh from Cephes (`logf.c`, `tanhf.c`), of erf from N. Juffa's published `erff`; the
//! polynomial of 2^r is a minimax fit (relative error 1.7e-8 after rounding its coefficients to f32).

#![allow(clippy::excessive_precision)] // Published coefficients keep the digits of their source.

use super::simd::Simd;

/// log2(e) as a sum of two f32.
pub(super) const LOG2E: (f32, f32) = (std::f32::consts::LOG2_E, 1.925_963e-8);

/// Horner's rule, highest coefficient first.
#[inline(always)]
unsafe fn horner<S: Simd, const N: usize>(x: S::V, coefficients: [f32; N]) -> S::V {
    let mut y = S::splat(coefficients[0]);
    for &c in &coefficients[1..] {
        y = S::fma(y, x, S::splat(c));
    }
    y
}

/// 2^(n + r) for integral (or infinite, or NaN) `n` and `|r| <= 0.51`.
#[inline(always)]
unsafe fn power<S: Simd>(n: S::V, r: S::V) -> S::V {
    let r = S::clamp_fraction(r);
    let p = horner::<S, 7>(
        r,
        [1.535_305_9e-4, 1.339_967_2e-3, 9.618_443_4e-3, 5.550_330_5e-2, 0.240_226_48, std::f32::consts::LN_2, 1.0],
    );
    S::scale2(p, n)
}

/// 2^(x * (high + low)) with the product carried exactly; `high + low` is a constant to twice the precision of f32.
#[inline(always)]
pub(super) unsafe fn power_of<S: Simd>(x: S::V, high: S::V, low: S::V) -> S::V {
    let n = S::rint(S::mul(x, high));
    let r = S::fma(x, low, S::fma(x, high, S::neg(n)));
    power::<S>(n, r)
}

#[inline(always)]
pub(super) unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    power_of::<S>(x, S::splat(LOG2E.0), S::splat(LOG2E.1))
}

#[inline(always)]
pub(super) unsafe fn exp2<S: Simd>(x: S::V) -> S::V {
    let n = S::rint(x);
    power::<S>(n, S::sub(x, n))
}

/// log(x (1 + c)) for a tiny `c`: the correction enters where it is not yet rounded away.
#[inline(always)]
unsafe fn log_with<S: Simd>(x: S::V, c: S::V) -> S::V {
    let (m, e) = S::split(x);
    let f = S::sub(m, S::splat(1.0));
    let z = S::mul(f, f);
    let p = horner::<S, 9>(
        f,
        [
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333_1e-1,
        ],
    );
    // log 2 = 0.693359375 - 2.12194440e-4; the first part times an exponent is exact.
    let low = S::fma(e, S::splat(-2.121_944_4e-4), c);
    let y = S::fma(z, S::fma(f, p, S::splat(-0.5)), low);
    let y = S::fma(e, S::splat(0.693_359_4), S::add(f, y));
    let y = S::select(S::lt(x, S::splat(f32::INFINITY)), y, x);
    let y = S::select(S::lt(x, S::splat(0.0)), S::splat(f32::NAN), y);
    S::select(S::eq(x, S::splat(0.0)), S::splat(f32::NEG_INFINITY), y)
}

#[inline(always)]
pub(super) unsafe fn log<S: Simd>(x: S::V) -> S::V {
    log_with::<S>(x, S::splat(0.0))
}

/// log(1 + x), right to the last bits near 0.
#[inline(always)]
pub(super) unsafe fn log1p<S: Simd>(x: S::V) -> S::V {
    let one = S::splat(1.0);
    let u = S::add(one, x);
    // What 1 + x lost, taken from the larger of the two (the other order is exact only for small x).
    let big = S::lt(one, x);
    let lost = S::sub(S::select(big, one, x), S::sub(u, S::select(big, x, one)));
    let c = S::div(lost, u);
    // At u = 0 and u = inf the quotient is not a number, and not needed.
    let c = S::select(S::unordered(c, c), S::splat(0.0), c);
    let y = log_with::<S>(u, c);
    // Keeps tiny and -0 as they are.
    S::select(S::lt(S::abs(x), S::splat(1e-8)), x, y)
}

#[inline(always)]
pub(super) unsafe fn tanh<S: Simd>(x: S::V) -> S::V {
    let a = S::abs(x);
    let z = S::mul(x, x);
    let p = horner::<S, 5>(z, [-5.704_988_7e-3, 2.063_908_8e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328_2e-1]);
    let near = S::fma(S::mul(p, z), x, x);
    let e = exp::<S>(S::add(a, a));
    let far = S::sub(S::splat(1.0), S::div(S::splat(2.0), S::add(e, S::splat(1.0))));
    S::copysign(S::select(S::lt(a, S::splat(0.625)), near, far), x)
}

/// 1 / (1 + exp(-x)), with full relative precision on the negative side.
#[inline(always)]
pub(super) unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    let one = S::splat(1.0);
    let e = exp::<S>(S::neg(S::abs(x)));
    S::div(S::select(S::lt(x, S::splat(0.0)), e, one), S::add(one, e))
}

/// log(1 + exp(x)).
#[inline(always)]
pub(super) unsafe fn softplus<S: Simd>(x: S::V) -> S::V {
    let tail = log1p::<S>(exp::<S>(S::neg(S::abs(x))));
    S::add(S::max(x, S::splat(0.0)), tail)
}

#[inline(always)]
pub(super) unsafe fn erf<S: Simd>(x: S::V) -> S::V {
    let t = S::abs(x);
    let s = S::mul(x, x);
    let r = S::fma(S::splat(-1.728_534_7e-5), t, S::splat(3.831_971_3e-4));
    let u = S::fma(S::splat(-3.883_964_4e-3), t, S::splat(2.425_462_2e-2));
    let r = S::fma(r, s, u);
    let r = S::fma(r, t, S::splat(-1.067_778_8e-1));
    let r = S::fma(r, t, S::splat(-6.348_467e-1));
    let r = S::fma(r, t, S::splat(-1.287_175_1e-1));
    let r = S::fma(r, t, S::neg(t));
    let far = S::copysign(S::sub(S::splat(1.0), exp::<S>(r)), x);
    let p = horner::<S, 6>(s, [-5.967_617e-4, 4.991_194_2e-3, -2.676_813_5e-2, 1.128_199_25e-1, -3.761_253_4e-1, 1.283_791_7e-1]);
    let near = S::fma(p, x, x);
    S::select(S::lt(S::splat(0.927_734_4), t), far, near)
}

/// Larger arguments go through f64: up to here n * PI_2[0] is a multiple of 2^-23 below 2^17, so that the reduction is exact.
const REDUCED: f32 = 100_000.0;
/// pi / 2 as a sum of three f32, and 2 / pi.
const PI_2: [f32; 3] = [std::f32::consts::FRAC_PI_2, -4.371138828673793e-08, -1.7151245100058819e-15];

/// Sine and cosine of `|x| <= REDUCED`: reduction to a quarter of the circle, both polynomials of Cephes (`sinf.c`), then a choice.
#[inline(always)]
unsafe fn sin_cos<S: Simd>(x: S::V) -> (S::V, S::V) {
    let a = S::abs(x);
    let n = S::rint(S::mul(a, S::splat(std::f32::consts::FRAC_2_PI)));
    let minus = S::neg(n);
    let r = S::fma(minus, S::splat(PI_2[0]), a);
    let r = S::fma(minus, S::splat(PI_2[1]), r);
    let r = S::fma(minus, S::splat(PI_2[2]), r);
    let z = S::mul(r, r);
    let s = S::fma(S::mul(z, horner::<S, 3>(z, [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1])), r, r);
    let c = horner::<S, 3>(z, [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]);
    let c = S::fma(S::mul(z, z), c, S::fma(z, S::splat(-0.5), S::splat(1.0)));
    // Quarter of the circle: 0, 1, 2 or 3.
    let quarter = S::fma(S::floor(S::mul(n, S::splat(0.25))), S::splat(-4.0), n);
    let third = S::eq(quarter, S::splat(2.0));
    let odd = S::or(S::eq(quarter, S::splat(1.0)), S::eq(quarter, S::splat(3.0)));
    let sin = S::select(odd, c, s);
    let cos = S::select(odd, s, c);
    let sin = S::select(S::lt(S::splat(1.5), quarter), S::neg(sin), sin);
    let cos = S::select(S::or(S::eq(quarter, S::splat(1.0)), third), S::neg(cos), cos);
    // The sine is odd; multiplying by the sign of x also keeps -0.
    (S::mul(sin, S::copysign(S::splat(1.0), x)), cos)
}

/// Every lane through f64.
#[inline(never)]
fn through_f64(lanes: &mut [f32], f: fn(f64) -> f64) {
    for x in lanes {
        *x = f(f64::from(*x)) as f32;
    }
}

#[inline(always)]
unsafe fn large<S: Simd>(x: S::V, f: fn(f64) -> f64) -> S::V {
    let mut lanes = [0.0f32; 16];
    S::store(lanes.as_mut_ptr(), x);
    through_f64(&mut lanes[..S::W], f);
    S::load(lanes.as_ptr())
}

#[inline(always)]
pub(super) unsafe fn sin<S: Simd>(x: S::V) -> S::V {
    if S::any(S::lt(S::splat(REDUCED), S::abs(x))) { large::<S>(x, f64::sin) } else { sin_cos::<S>(x).0 }
}

#[inline(always)]
pub(super) unsafe fn cos<S: Simd>(x: S::V) -> S::V {
    if S::any(S::lt(S::splat(REDUCED), S::abs(x))) { large::<S>(x, f64::cos) } else { sin_cos::<S>(x).1 }
}

/// -1, 0 or 1; zeros and NaN stay.
#[inline(always)]
pub(super) unsafe fn sign<S: Simd>(x: S::V) -> S::V {
    let zero = S::splat(0.0);
    let keep = S::or(S::eq(x, zero), S::unordered(x, x));
    S::select(keep, x, S::copysign(S::splat(1.0), x))
}

/// Larger operand; NaN when either is NaN.
#[inline(always)]
pub(super) unsafe fn max<S: Simd>(a: S::V, b: S::V) -> S::V {
    S::select(S::unordered(a, a), a, S::max(a, b))
}

/// Smaller operand; NaN when either is NaN.
#[inline(always)]
pub(super) unsafe fn min<S: Simd>(a: S::V, b: S::V) -> S::V {
    S::select(S::unordered(a, a), a, S::min(a, b))
}
