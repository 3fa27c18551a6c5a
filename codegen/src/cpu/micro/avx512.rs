//! AVX-512 F, BW, DQ, VL: 32 registers of 16 lanes, mask registers.

use super::simd::Simd;
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(super) struct Avx512;

impl Simd for Avx512 {
    type V = __m512;
    type M = __mmask16;
    const W: usize = 16;
    const MR: usize = 8;
    const SUMS: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        _mm512_set1_ps(x)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        _mm512_loadu_ps(p)
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        _mm512_storeu_ps(p, v)
    }
    #[inline(always)]
    unsafe fn first(n: usize) -> __mmask16 {
        if n >= 16 { 0xffff } else { (1u16 << n) - 1 }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, m: __mmask16) -> __m512 {
        _mm512_maskz_loadu_ps(m, p)
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, m: __mmask16, v: __m512) {
        _mm512_mask_storeu_ps(p, m, v)
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        _mm512_sub_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        _mm512_div_ps(a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn mac(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        _mm512_min_ps(a, b)
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        _mm512_max_ps(a, b)
    }
    #[inline(always)]
    unsafe fn rint(a: __m512) -> __m512 {
        _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
    }
    #[inline(always)]
    unsafe fn floor(a: __m512) -> __m512 {
        _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(a)
    }
    #[inline(always)]
    unsafe fn ceil(a: __m512) -> __m512 {
        _mm512_roundscale_ps::<{ _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC }>(a)
    }
    #[inline(always)]
    unsafe fn sqrt(a: __m512) -> __m512 {
        _mm512_sqrt_ps(a)
    }
    #[inline(always)]
    unsafe fn abs(a: __m512) -> __m512 {
        _mm512_abs_ps(a)
    }
    #[inline(always)]
    unsafe fn neg(a: __m512) -> __m512 {
        _mm512_xor_ps(a, _mm512_set1_ps(-0.0))
    }
    #[inline(always)]
    unsafe fn copysign(a: __m512, b: __m512) -> __m512 {
        let sign = _mm512_set1_ps(-0.0);
        _mm512_or_ps(_mm512_andnot_ps(sign, a), _mm512_and_ps(sign, b))
    }

    #[inline(always)]
    unsafe fn lt(a: __m512, b: __m512) -> __mmask16 {
        _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b)
    }
    #[inline(always)]
    unsafe fn le(a: __m512, b: __m512) -> __mmask16 {
        _mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b)
    }
    #[inline(always)]
    unsafe fn eq(a: __m512, b: __m512) -> __mmask16 {
        _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b)
    }
    #[inline(always)]
    unsafe fn unordered(a: __m512, b: __m512) -> __mmask16 {
        _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, b)
    }
    #[inline(always)]
    unsafe fn or(a: __mmask16, b: __mmask16) -> __mmask16 {
        a | b
    }
    #[inline(always)]
    unsafe fn not(a: __mmask16) -> __mmask16 {
        !a
    }
    #[inline(always)]
    unsafe fn any(a: __mmask16) -> bool {
        a != 0
    }
    #[inline(always)]
    unsafe fn select(m: __mmask16, a: __m512, b: __m512) -> __m512 {
        _mm512_mask_blend_ps(m, b, a)
    }
    #[inline(always)]
    unsafe fn load_flags(p: *const u8, n: usize) -> __mmask16 {
        let v = _mm_maskz_loadu_epi8(Self::first(n), p.cast());
        _mm_test_epi8_mask(v, v)
    }
    #[inline(always)]
    unsafe fn store_flags(p: *mut u8, n: usize, m: __mmask16) {
        _mm_mask_storeu_epi8(p.cast(), Self::first(n), _mm_maskz_set1_epi8(m, 1))
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m512 {
        _mm512_cvtph_ps(_mm256_loadu_si256(p.cast()))
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: __m512) {
        _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v))
    }

    #[inline(always)]
    unsafe fn sum(v: __m512) -> f32 {
        _mm512_reduce_add_ps(v)
    }
    #[inline(always)]
    unsafe fn largest(v: __m512) -> f32 {
        _mm512_reduce_max_ps(v)
    }
    #[inline(always)]
    unsafe fn sums<const N: usize>(acc: *const __m512, out: *mut f32) {
        if N != 16 {
            for i in 0..N {
                *out.add(i) = Self::sum(*acc.add(i));
            }
            return;
        }
        // Each step halves the number of vectors: add the even and the odd halves of two of them.
        let mut quad = [_mm512_setzero_ps(); 4];
        for (g, q) in quad.iter_mut().enumerate() {
            let a = acc.add(4 * g);
            let s01 = _mm512_add_ps(_mm512_unpacklo_ps(*a, *a.add(1)), _mm512_unpackhi_ps(*a, *a.add(1)));
            let s23 = _mm512_add_ps(_mm512_unpacklo_ps(*a.add(2), *a.add(3)), _mm512_unpackhi_ps(*a.add(2), *a.add(3)));
            *q = _mm512_add_ps(unpacklo2(s01, s23), unpackhi2(s01, s23));
        }
        let [u0, u1, u2, u3] = quad;
        let v01 = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(u0, u1), _mm512_shuffle_f32x4::<0xdd>(u0, u1));
        let v23 = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(u2, u3), _mm512_shuffle_f32x4::<0xdd>(u2, u3));
        let all = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(v01, v23), _mm512_shuffle_f32x4::<0xdd>(v01, v23));
        _mm512_storeu_ps(out, all);
    }

    #[inline(always)]
    unsafe fn clamp_fraction(r: __m512) -> __m512 {
        // Smaller magnitude, sign of the first operand; the second operand when the first is NaN.
        _mm512_range_ps::<0b0010>(r, _mm512_set1_ps(0.51))
    }
    #[inline(always)]
    unsafe fn scale2(p: __m512, n: __m512) -> __m512 {
        _mm512_scalef_ps(p, n)
    }
    #[inline(always)]
    unsafe fn split(x: __m512) -> (__m512, __m512) {
        let m = _mm512_getmant_ps::<_MM_MANT_NORM_1_2, _MM_MANT_SIGN_SRC>(x);
        let e = _mm512_getexp_ps(x);
        let high = Self::le(_mm512_set1_ps(std::f32::consts::SQRT_2), m);
        let m = _mm512_mask_mul_ps(m, high, m, _mm512_set1_ps(0.5));
        let e = _mm512_mask_add_ps(e, high, e, _mm512_set1_ps(1.0));
        (m, e)
    }

    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_stride: isize, rows: usize, cols: usize, dst: *mut f32, dst_stride: usize) {
        let mut r = [_mm512_setzero_ps(); 16];
        if rows >= 16 && cols >= 16 {
            for (i, v) in r.iter_mut().enumerate() {
                *v = Self::load(src.offset(i as isize * src_stride));
            }
        } else {
            let m = Self::first(cols);
            for (i, v) in r.iter_mut().enumerate() {
                if i < rows {
                    *v = Self::load_first(src.offset(i as isize * src_stride), m);
                }
            }
        }
        // w[c][g], in its 128-bit lane L: rows 4g..4g+4 of column 4L + c.
        let mut w = [[_mm512_setzero_ps(); 4]; 4];
        for g in 0..4 {
            let (a, b, c, d) = (r[4 * g], r[4 * g + 1], r[4 * g + 2], r[4 * g + 3]);
            let (ab, ab2) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let (cd, cd2) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            w[0][g] = unpacklo2(ab, cd);
            w[1][g] = unpackhi2(ab, cd);
            w[2][g] = unpacklo2(ab2, cd2);
            w[3][g] = unpackhi2(ab2, cd2);
        }
        for (c, [w0, w1, w2, w3]) in w.into_iter().enumerate() {
            let (even01, even23) = (_mm512_shuffle_f32x4::<0x88>(w0, w1), _mm512_shuffle_f32x4::<0x88>(w2, w3));
            let (odd01, odd23) = (_mm512_shuffle_f32x4::<0xdd>(w0, w1), _mm512_shuffle_f32x4::<0xdd>(w2, w3));
            let out = [
                _mm512_shuffle_f32x4::<0x88>(even01, even23),
                _mm512_shuffle_f32x4::<0x88>(odd01, odd23),
                _mm512_shuffle_f32x4::<0xdd>(even01, even23),
                _mm512_shuffle_f32x4::<0xdd>(odd01, odd23),
            ];
            for (lane, v) in out.into_iter().enumerate() {
                if 4 * lane + c < cols {
                    Self::store(dst.add((4 * lane + c) * dst_stride), v);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn unpacklo2(a: __m512, b: __m512) -> __m512 {
    _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
}

#[inline(always)]
unsafe fn unpackhi2(a: __m512, b: __m512) -> __m512 {
    _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
}
