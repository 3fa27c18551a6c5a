//! NEON on AArch64: 32 registers of 4 lanes, masks are vectors.

use super::convert::{from_f16, to_f16};
use super::simd::Simd;
use std::arch::aarch64::*;

#[derive(Clone, Copy)]
pub(super) struct Neon;

type V = float32x4_t;
type M = uint32x4_t;

impl Simd for Neon {
    type V = V;
    type M = M;
    const W: usize = 4;
    const MR: usize = 8;
    const SUMS: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> V {
        vdupq_n_f32(x)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> V {
        vld1q_f32(p)
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: V) {
        vst1q_f32(p, v)
    }
    #[inline(always)]
    unsafe fn first(n: usize) -> M {
        const LANES: [u32; 4] = [0, 1, 2, 3];
        vcltq_u32(vld1q_u32(LANES.as_ptr()), vdupq_n_u32(n.min(4) as u32))
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, m: M) -> V {
        // The flags of the first n lanes, so lane by lane until one is missing.
        let mut v = vdupq_n_f32(0.0);
        if vgetq_lane_u32::<0>(m) != 0 {
            v = vld1q_lane_f32::<0>(p, v);
        }
        if vgetq_lane_u32::<1>(m) != 0 {
            v = vld1q_lane_f32::<1>(p.add(1), v);
        }
        if vgetq_lane_u32::<2>(m) != 0 {
            v = vld1q_lane_f32::<2>(p.add(2), v);
        }
        if vgetq_lane_u32::<3>(m) != 0 {
            v = vld1q_lane_f32::<3>(p.add(3), v);
        }
        v
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, m: M, v: V) {
        if vgetq_lane_u32::<0>(m) != 0 {
            vst1q_lane_f32::<0>(p, v);
        }
        if vgetq_lane_u32::<1>(m) != 0 {
            vst1q_lane_f32::<1>(p.add(1), v);
        }
        if vgetq_lane_u32::<2>(m) != 0 {
            vst1q_lane_f32::<2>(p.add(2), v);
        }
        if vgetq_lane_u32::<3>(m) != 0 {
            vst1q_lane_f32::<3>(p.add(3), v);
        }
    }

    #[inline(always)]
    unsafe fn add(a: V, b: V) -> V {
        vaddq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: V, b: V) -> V {
        vsubq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: V, b: V) -> V {
        vmulq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: V, b: V) -> V {
        vdivq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: V, b: V, c: V) -> V {
        vfmaq_f32(c, a, b)
    }
    #[inline(always)]
    unsafe fn mac(a: V, b: V, c: V) -> V {
        vfmaq_f32(c, a, b)
    }
    #[inline(always)]
    unsafe fn min(a: V, b: V) -> V {
        vbslq_f32(vcltq_f32(a, b), a, b)
    }
    #[inline(always)]
    unsafe fn max(a: V, b: V) -> V {
        vbslq_f32(vcgtq_f32(a, b), a, b)
    }
    #[inline(always)]
    unsafe fn rint(a: V) -> V {
        vrndnq_f32(a)
    }
    #[inline(always)]
    unsafe fn floor(a: V) -> V {
        vrndmq_f32(a)
    }
    #[inline(always)]
    unsafe fn ceil(a: V) -> V {
        vrndpq_f32(a)
    }
    #[inline(always)]
    unsafe fn sqrt(a: V) -> V {
        vsqrtq_f32(a)
    }
    #[inline(always)]
    unsafe fn abs(a: V) -> V {
        vabsq_f32(a)
    }
    #[inline(always)]
    unsafe fn neg(a: V) -> V {
        vnegq_f32(a)
    }
    #[inline(always)]
    unsafe fn copysign(a: V, b: V) -> V {
        vbslq_f32(vdupq_n_u32(0x8000_0000), b, a)
    }

    #[inline(always)]
    unsafe fn lt(a: V, b: V) -> M {
        vcltq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn le(a: V, b: V) -> M {
        vcleq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn eq(a: V, b: V) -> M {
        vceqq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn unordered(a: V, b: V) -> M {
        vmvnq_u32(vandq_u32(vceqq_f32(a, a), vceqq_f32(b, b)))
    }
    #[inline(always)]
    unsafe fn or(a: M, b: M) -> M {
        vorrq_u32(a, b)
    }
    #[inline(always)]
    unsafe fn not(a: M) -> M {
        vmvnq_u32(a)
    }
    #[inline(always)]
    unsafe fn any(a: M) -> bool {
        vmaxvq_u32(a) != 0
    }
    #[inline(always)]
    unsafe fn select(m: M, a: V, b: V) -> V {
        vbslq_f32(m, a, b)
    }
    #[inline(always)]
    unsafe fn load_flags(p: *const u8, n: usize) -> M {
        let mut flags = [0u32; 4];
        for (i, flag) in flags.iter_mut().enumerate().take(n) {
            *flag = u32::from(*p.add(i));
        }
        vmvnq_u32(vceqq_u32(vld1q_u32(flags.as_ptr()), vdupq_n_u32(0)))
    }
    #[inline(always)]
    unsafe fn store_flags(p: *mut u8, n: usize, m: M) {
        let mut flags = [0u32; 4];
        vst1q_u32(flags.as_mut_ptr(), m);
        for (i, flag) in flags.into_iter().enumerate().take(n) {
            *p.add(i) = u8::from(flag != 0);
        }
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> V {
        let mut lanes = [0.0f32; 4];
        for (i, x) in lanes.iter_mut().enumerate() {
            *x = from_f16(*p.add(i));
        }
        vld1q_f32(lanes.as_ptr())
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: V) {
        let mut lanes = [0.0f32; 4];
        vst1q_f32(lanes.as_mut_ptr(), v);
        for (i, x) in lanes.into_iter().enumerate() {
            *p.add(i) = to_f16(x);
        }
    }

    #[inline(always)]
    unsafe fn sum(v: V) -> f32 {
        vaddvq_f32(v)
    }
    #[inline(always)]
    unsafe fn largest(v: V) -> f32 {
        vmaxvq_f32(v)
    }
    #[inline(always)]
    unsafe fn sums<const N: usize>(acc: *const V, out: *mut f32) {
        let mut i = 0;
        while i + 4 <= N {
            let low = vpaddq_f32(*acc.add(i), *acc.add(i + 1));
            let high = vpaddq_f32(*acc.add(i + 2), *acc.add(i + 3));
            vst1q_f32(out.add(i), vpaddq_f32(low, high));
            i += 4;
        }
        while i < N {
            *out.add(i) = vaddvq_f32(*acc.add(i));
            i += 1;
        }
    }

    #[inline(always)]
    unsafe fn clamp_fraction(r: V) -> V {
        // The forms that prefer the number when the other operand is NaN.
        vminnmq_f32(vmaxnmq_f32(r, vdupq_n_f32(-0.51)), vdupq_n_f32(0.51))
    }
    #[inline(always)]
    unsafe fn scale2(p: V, n: V) -> V {
        // Two factors, because 2^n alone leaves the normal range at both ends; the first product is exact. NaN converts to 0.
        let i = vcvtq_s32_f32(vminq_f32(vmaxq_f32(n, vdupq_n_f32(-160.0)), vdupq_n_f32(160.0)));
        let half = vshrq_n_s32::<1>(i);
        let y = vmulq_f32(vmulq_f32(p, power(half)), power(vsubq_s32(i, half)));
        vbslq_f32(vceqq_f32(n, n), y, n)
    }
    #[inline(always)]
    unsafe fn split(x: V) -> (V, V) {
        let tiny = vcltq_f32(x, vdupq_n_f32(f32::MIN_POSITIVE));
        let x = vbslq_f32(tiny, vmulq_f32(x, vdupq_n_f32(33554432.0)), x);
        let bits = vreinterpretq_s32_f32(x);
        // Subtracting the bits of sqrt(1/2) makes the exponent field count from there.
        let e = vshrq_n_s32::<23>(vsubq_s32(bits, vdupq_n_s32(0x3f35_04f3)));
        let m = vreinterpretq_f32_s32(vsubq_s32(bits, vshlq_n_s32::<23>(e)));
        let e = vcvtq_f32_s32(e);
        (m, vbslq_f32(tiny, vsubq_f32(e, vdupq_n_f32(25.0)), e))
    }

    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_stride: isize, rows: usize, cols: usize, dst: *mut f32, dst_stride: usize) {
        let some = Self::first(cols);
        let mut r = [vdupq_n_f32(0.0); 4];
        for (i, v) in r.iter_mut().enumerate() {
            if i < rows {
                let p = src.wrapping_offset(i as isize * src_stride);
                *v = if cols >= 4 { vld1q_f32(p) } else { Self::load_first(p, some) };
            }
        }
        let (even01, odd01) = (vtrn1q_f32(r[0], r[1]), vtrn2q_f32(r[0], r[1]));
        let (even23, odd23) = (vtrn1q_f32(r[2], r[3]), vtrn2q_f32(r[2], r[3]));
        let out = [low2(even01, even23), low2(odd01, odd23), high2(even01, even23), high2(odd01, odd23)];
        for (c, v) in out.into_iter().enumerate() {
            if c < cols {
                vst1q_f32(dst.add(c * dst_stride), v);
            }
        }
    }
}

/// 2^e for `e` in the range of normal numbers.
#[inline(always)]
unsafe fn power(e: int32x4_t) -> V {
    vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(e, vdupq_n_s32(127))))
}

#[inline(always)]
unsafe fn low2(a: V, b: V) -> V {
    vreinterpretq_f32_f64(vtrn1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)))
}

#[inline(always)]
unsafe fn high2(a: V, b: V) -> V {
    vreinterpretq_f32_f64(vtrn2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)))
}
