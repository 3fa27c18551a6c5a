//! Plain Rust over four lanes, for CPUs without a level of their own; LLVM turns the loops into SSE2 or NEON.

use super::convert::{from_f16, to_f16};
use super::simd::Simd;

#[derive(Clone, Copy)]
pub(super) struct Portable;

const W: usize = 4;
type V = [f32; W];
type M = [bool; W];

/// Whether the build target itself has a fused multiply-add instruction.
const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

#[inline(always)]
fn map(a: V, f: impl Fn(f32) -> f32) -> V {
    let mut y = a;
    for i in 0..W {
        y[i] = f(a[i]);
    }
    y
}

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    let mut y = a;
    for i in 0..W {
        y[i] = f(a[i], b[i]);
    }
    y
}

#[inline(always)]
fn test(a: V, b: V, f: impl Fn(f32, f32) -> bool) -> M {
    let mut y = [false; W];
    for i in 0..W {
        y[i] = f(a[i], b[i]);
    }
    y
}

impl Simd for Portable {
    type V = V;
    type M = M;
    const W: usize = W;
    const MR: usize = 4;
    const SUMS: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> V {
        [x; W]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> V {
        p.cast::<V>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: V) {
        p.cast::<V>().write_unaligned(v)
    }
    #[inline(always)]
    unsafe fn first(n: usize) -> M {
        [0 < n, 1 < n, 2 < n, 3 < n]
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, m: M) -> V {
        let mut v = [0.0; W];
        for i in 0..W {
            if m[i] {
                v[i] = *p.add(i);
            }
        }
        v
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, m: M, v: V) {
        for i in 0..W {
            if m[i] {
                *p.add(i) = v[i];
            }
        }
    }

    #[inline(always)]
    unsafe fn add(a: V, b: V) -> V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: V, b: V) -> V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: V, b: V) -> V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: V, b: V) -> V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn fma(a: V, b: V, c: V) -> V {
        let mut y = a;
        for i in 0..W {
            // Without the instruction, f64 is close enough (the product is exact) and, unlike the library's fmaf, vectorises.
            y[i] = if FUSED { a[i].mul_add(b[i], c[i]) } else { (f64::from(a[i]) * f64::from(b[i]) + f64::from(c[i])) as f32 };
        }
        y
    }
    #[inline(always)]
    unsafe fn mac(a: V, b: V, c: V) -> V {
        let mut y = a;
        for i in 0..W {
            y[i] = if FUSED { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] };
        }
        y
    }
    #[inline(always)]
    unsafe fn min(a: V, b: V) -> V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn max(a: V, b: V) -> V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn rint(a: V) -> V {
        // Adding and taking away 1.5 * 2^23 rounds to integers; larger values are integers already.
        const BIG: f32 = 12582912.0;
        map(a, |a| if a.abs() < 4194304.0 { ((a + BIG) - BIG).copysign(a) } else { a.round_ties_even() })
    }
    #[inline(always)]
    unsafe fn floor(a: V) -> V {
        map(a, f32::floor)
    }
    #[inline(always)]
    unsafe fn ceil(a: V) -> V {
        map(a, f32::ceil)
    }
    #[inline(always)]
    unsafe fn sqrt(a: V) -> V {
        map(a, f32::sqrt)
    }
    #[inline(always)]
    unsafe fn abs(a: V) -> V {
        map(a, f32::abs)
    }
    #[inline(always)]
    unsafe fn neg(a: V) -> V {
        map(a, |a| -a)
    }
    #[inline(always)]
    unsafe fn copysign(a: V, b: V) -> V {
        zip(a, b, f32::copysign)
    }

    #[inline(always)]
    unsafe fn lt(a: V, b: V) -> M {
        test(a, b, |a, b| a < b)
    }
    #[inline(always)]
    unsafe fn le(a: V, b: V) -> M {
        test(a, b, |a, b| a <= b)
    }
    #[inline(always)]
    unsafe fn eq(a: V, b: V) -> M {
        test(a, b, |a, b| a == b)
    }
    #[inline(always)]
    unsafe fn unordered(a: V, b: V) -> M {
        test(a, b, |a, b| a.is_nan() | b.is_nan())
    }
    #[inline(always)]
    unsafe fn or(a: M, b: M) -> M {
        [a[0] | b[0], a[1] | b[1], a[2] | b[2], a[3] | b[3]]
    }
    #[inline(always)]
    unsafe fn not(a: M) -> M {
        a.map(|a| !a)
    }
    #[inline(always)]
    unsafe fn any(a: M) -> bool {
        a[0] | a[1] | a[2] | a[3]
    }
    #[inline(always)]
    unsafe fn select(m: M, a: V, b: V) -> V {
        let mut y = a;
        for i in 0..W {
            y[i] = if m[i] { a[i] } else { b[i] };
        }
        y
    }
    #[inline(always)]
    unsafe fn load_flags(p: *const u8, n: usize) -> M {
        let mut m = [false; W];
        for (i, flag) in m.iter_mut().enumerate().take(n) {
            *flag = *p.add(i) != 0;
        }
        m
    }
    #[inline(always)]
    unsafe fn store_flags(p: *mut u8, n: usize, m: M) {
        for (i, flag) in m.into_iter().enumerate().take(n) {
            *p.add(i) = u8::from(flag);
        }
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> V {
        p.cast::<[u16; W]>().read_unaligned().map(from_f16)
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: V) {
        p.cast::<[u16; W]>().write_unaligned(v.map(to_f16))
    }

    #[inline(always)]
    unsafe fn sum(v: V) -> f32 {
        (v[0] + v[1]) + (v[2] + v[3])
    }
    #[inline(always)]
    unsafe fn largest(v: V) -> f32 {
        v[0].max(v[1]).max(v[2].max(v[3]))
    }

    #[inline(always)]
    unsafe fn clamp_fraction(r: V) -> V {
        Self::min(Self::max(r, Self::splat(-0.51)), Self::splat(0.51))
    }
    #[inline(always)]
    unsafe fn scale2(p: V, n: V) -> V {
        zip(p, n, |p, n| {
            // Two factors, because 2^n alone leaves the normal range at both ends; the first product is exact.
            let i = n.clamp(-160.0, 160.0) as i32;
            let half = i >> 1;
            let power = |e: i32| f32::from_bits(((e + 127) << 23) as u32);
            if n.is_nan() { n } else { p * power(half) * power(i - half) }
        })
    }
    #[inline(always)]
    unsafe fn split(x: V) -> (V, V) {
        let (mut m, mut e) = (x, x);
        for i in 0..W {
            let tiny = x[i] < f32::MIN_POSITIVE;
            let bits = if tiny { x[i] * 33554432.0 } else { x[i] }.to_bits() as i32;
            // Subtracting the bits of sqrt(1/2) makes the exponent field count from there.
            let exponent = bits.wrapping_sub(0x3f35_04f3) >> 23;
            m[i] = f32::from_bits(bits.wrapping_sub(exponent << 23) as u32);
            e[i] = exponent as f32 - if tiny { 25.0 } else { 0.0 };
        }
        (m, e)
    }

    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_stride: isize, rows: usize, cols: usize, dst: *mut f32, dst_stride: usize) {
        for c in 0..cols.min(W) {
            let mut v = [0.0; W];
            for (r, x) in v.iter_mut().enumerate().take(rows) {
                *x = *src.offset(r as isize * src_stride + c as isize);
            }
            Self::store(dst.add(c * dst_stride), v);
        }
    }
}
