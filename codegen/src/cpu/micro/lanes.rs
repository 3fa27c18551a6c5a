//! Pointwise operations on contiguous arrays; the operation is chosen once per call, outside the loop.

use super::math;
use super::simd::Simd;

macro_rules! codes {
    ($(#[$top:meta])* $name:ident { $($(#[$doc:meta])* $op:ident = $code:literal),* $(,)? }) => {
        $(#[$top])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i64)]
        pub enum $name { $($(#[$doc])* $op = $code),* }
        impl $name {
            /// Every operation.
            pub const ALL: &'static [$name] = &[$($name::$op),*];
            /// The operation with this code.
            pub fn from_code(code: i64) -> Option<$name> {
                match code { $($code => Some($name::$op),)* _ => None }
            }
            /// What generated code passes as `op`.
            pub fn code(self) -> i64 { self as i64 }
        }
    };
}

codes! {
    /// Operations of `unary`.
    Unary {
        Copy = 0,
        Neg = 1,
        Abs = 2,
        /// -1, 0 or 1; zeros and NaN stay.
        Sign = 3,
        Floor = 4,
        Ceil = 5,
        /// Nearest integer, ties to even.
        Rint = 6,
        Sqrt = 7,
        Recip = 8,
        Exp = 9,
        Exp2 = 10,
        Log = 11,
        Log1p = 12,
        Tanh = 13,
        Sigmoid = 14,
        Softplus = 15,
        Erf = 16,
        Sin = 17,
        Cos = 18,
        Square = 19,
        /// max(x, 0), NaN stays.
        Relu = 20,
        Rsqrt = 21,
    }
}

codes! {
    /// Operations of `binary`.
    Binary {
        Add = 0,
        Sub = 1,
        Mul = 2,
        Div = 3,
        /// NaN when either is NaN.
        Max = 4,
        Min = 5,
        Pow = 6,
        /// exp(a - b), and 0 when a is -inf.
        ExpDiff = 7,
        /// a / b, and 0 when b is 0.
        Ratio = 8,
    }
}

codes! {
    /// Operations of `compare`; false with NaN, except `Ne`.
    Compare { Lt = 0, Le = 1, Eq = 2, Ne = 3 }
}

/// Operand of a pointwise operation: element `i` at `p + i * stride`. Strides 0 and 1 are the fast ones.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    pub p: *const f32,
    pub stride: isize,
}

impl Operand {
    /// `n <= W` elements from `i` on; `some` has the flags of the first `n`.
    #[inline(always)]
    unsafe fn load<S: Simd>(self, i: usize, n: usize, some: S::M) -> S::V {
        match self.stride {
            0 => S::splat(*self.p),
            1 if n == S::W => S::load(self.p.add(i)),
            1 => S::load_first(self.p.add(i), some),
            stride => {
                let mut lanes = [0.0f32; 16];
                for (j, x) in lanes.iter_mut().enumerate().take(n) {
                    *x = *self.p.offset((i + j) as isize * stride);
                }
                S::load(lanes.as_ptr())
            }
        }
    }
}

/// `y[i] = body(operands[i])`, a vector at a time; `y` may be one of the operands. A macro, because the features of a CPU level do
/// not reach into closures.
macro_rules! each {
    ($n:expr, $y:expr, [$($v:ident = $operand:expr),*], $body:expr) => {{
        let (n, y): (usize, *mut f32) = ($n, $y);
        let all = S::first(S::W);
        let mut i = 0;
        while i + S::W <= n {
            $(let $v = $operand.load::<S>(i, S::W, all);)*
            S::store(y.add(i), $body);
            i += S::W;
        }
        if i < n {
            let some = S::first(n - i);
            $(let $v = $operand.load::<S>(i, n - i, some);)*
            S::store_first(y.add(i), some, $body);
        }
    }};
}

/// The same, one element at a time in f64, for functions without a vector form.
#[inline(always)]
unsafe fn each_wide<const N: usize>(n: usize, operands: [Operand; N], y: *mut f32, f: impl Fn([f64; N]) -> f64) {
    for i in 0..n {
        // SAFETY: the caller gives operands that can be read at `i * stride` for all `i < n`; the closure is not an unsafe context.
        *y.add(i) =
            f(std::array::from_fn(|o| unsafe { f64::from(*operands[o].p.offset(i as isize * operands[o].stride)) })) as f32;
    }
}

/// `y[i] = op(x[i])`; an unknown `op` gives NaN.
#[inline(always)]
pub(super) unsafe fn unary<S: Simd>(op: i64, n: usize, x: *const f32, y: *mut f32) {
    let x = Operand { p: x, stride: 1 };
    macro_rules! lanes {
        (|$v:ident| $body:expr) => {
            each!(n, y, [$v = x], $body)
        };
    }
    let Some(op) = Unary::from_code(op) else { return each_wide(n, [x], y, |_| f64::NAN) };
    match op {
        Unary::Copy => lanes!(|v| v),
        Unary::Neg => lanes!(|v| S::neg(v)),
        Unary::Abs => lanes!(|v| S::abs(v)),
        Unary::Sign => lanes!(|v| math::sign::<S>(v)),
        Unary::Floor => lanes!(|v| S::floor(v)),
        Unary::Ceil => lanes!(|v| S::ceil(v)),
        Unary::Rint => lanes!(|v| S::rint(v)),
        Unary::Sqrt => lanes!(|v| S::sqrt(v)),
        Unary::Recip => lanes!(|v| S::div(S::splat(1.0), v)),
        Unary::Exp => lanes!(|v| math::exp::<S>(v)),
        Unary::Exp2 => lanes!(|v| math::exp2::<S>(v)),
        Unary::Log => lanes!(|v| math::log::<S>(v)),
        Unary::Log1p => lanes!(|v| math::log1p::<S>(v)),
        Unary::Tanh => lanes!(|v| math::tanh::<S>(v)),
        Unary::Sigmoid => lanes!(|v| math::sigmoid::<S>(v)),
        Unary::Softplus => lanes!(|v| math::softplus::<S>(v)),
        Unary::Erf => lanes!(|v| math::erf::<S>(v)),
        Unary::Sin => lanes!(|v| math::sin::<S>(v)),
        Unary::Cos => lanes!(|v| math::cos::<S>(v)),
        Unary::Square => lanes!(|v| S::mul(v, v)),
        Unary::Relu => lanes!(|v| math::max::<S>(v, S::splat(0.0))),
        Unary::Rsqrt => lanes!(|v| S::div(S::splat(1.0), S::sqrt(v))),
    }
}

/// Runs `$body` with the strides known, where they are the common ones, so that the loop holds no test of them.
macro_rules! by_strides {
    ($a:ident, $b:ident, $body:expr) => {
        match ($a.stride, $b.stride) {
            (1, 1) => {
                let ($a, $b) = (Operand { stride: 1, ..$a }, Operand { stride: 1, ..$b });
                $body
            }
            (1, 0) => {
                let ($a, $b) = (Operand { stride: 1, ..$a }, Operand { stride: 0, ..$b });
                $body
            }
            (0, 1) => {
                let ($a, $b) = (Operand { stride: 0, ..$a }, Operand { stride: 1, ..$b });
                $body
            }
            _ => $body,
        }
    };
}

/// `y[i] = op(a[i], b[i])`; an unknown `op` gives NaN.
#[inline(always)]
pub(super) unsafe fn binary<S: Simd>(op: i64, n: usize, a: Operand, b: Operand, y: *mut f32) {
    macro_rules! lanes {
        (|$u:ident, $v:ident| $body:expr) => {
            by_strides!(a, b, each!(n, y, [$u = a, $v = b], $body))
        };
    }
    let Some(op) = Binary::from_code(op) else { return each_wide(n, [a, b], y, |_| f64::NAN) };
    match op {
        Binary::Add => lanes!(|u, v| S::add(u, v)),
        Binary::Sub => lanes!(|u, v| S::sub(u, v)),
        Binary::Mul => lanes!(|u, v| S::mul(u, v)),
        Binary::Div => lanes!(|u, v| S::div(u, v)),
        Binary::Max => lanes!(|u, v| math::max::<S>(u, v)),
        Binary::Min => lanes!(|u, v| math::min::<S>(u, v)),
        Binary::Pow => each_wide(n, [a, b], y, |[u, v]| u.powf(v)),
        Binary::ExpDiff => {
            lanes!(|u, v| { S::select(S::eq(u, S::splat(f32::NEG_INFINITY)), S::splat(0.0), math::exp::<S>(S::sub(u, v))) })
        }
        Binary::Ratio => lanes!(|u, v| S::select(S::eq(v, S::splat(0.0)), S::splat(0.0), S::div(u, v))),
    }
}

/// `y[i] = a[i] * b[i] + c[i]`, rounded once (up to the double rounding of the portable level).
#[inline(always)]
pub(super) unsafe fn fma<S: Simd>(n: usize, a: Operand, b: Operand, c: Operand, y: *mut f32) {
    if c.stride == 1 {
        let c = Operand { stride: 1, ..c };
        by_strides!(a, b, each!(n, y, [u = a, v = b, w = c], S::fma(u, v, w)))
    } else {
        each!(n, y, [u = a, v = b, w = c], S::fma(u, v, w))
    }
}

/// `y[i] = op(a[i], b[i])` as bytes 0 or 1; an unknown `op` gives 0.
#[inline(always)]
pub(super) unsafe fn compare<S: Simd>(op: i64, n: usize, a: Operand, b: Operand, y: *mut u8) {
    macro_rules! lanes {
        (|$u:ident, $v:ident| $body:expr) => {
            by_strides!(a, b, {
                let mut i = 0;
                while i < n {
                    let width = S::W.min(n - i);
                    let some = S::first(width);
                    let ($u, $v) = (a.load::<S>(i, width, some), b.load::<S>(i, width, some));
                    S::store_flags(y.add(i), width, $body);
                    i += width;
                }
            })
        };
    }
    let Some(op) = Compare::from_code(op) else { return y.write_bytes(0, n) };
    match op {
        Compare::Lt => lanes!(|u, v| S::lt(u, v)),
        Compare::Le => lanes!(|u, v| S::le(u, v)),
        Compare::Eq => lanes!(|u, v| S::eq(u, v)),
        Compare::Ne => lanes!(|u, v| S::not(S::eq(u, v))),
    }
}

/// `y[i] = mask[i] ? a[i] : b[i]`; the arm not taken may hold anything.
#[inline(always)]
pub(super) unsafe fn select<S: Simd>(n: usize, mask: *const u8, a: Operand, b: Operand, y: *mut f32) {
    by_strides!(a, b, {
        let mut i = 0;
        while i < n {
            let width = S::W.min(n - i);
            let some = S::first(width);
            let v = S::select(S::load_flags(mask.add(i), width), a.load::<S>(i, width, some), b.load::<S>(i, width, some));
            S::store_first(y.add(i), some, v);
            i += width;
        }
    })
}
