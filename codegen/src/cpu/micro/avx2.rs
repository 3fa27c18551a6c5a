//! AVX2, FMA and F16C: 16 registers of 8 lanes, masks are vectors.

use super::simd::Simd;
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(super) struct Avx2;

impl Simd for Avx2 {
    type V = __m256;
    type M = __m256;
    const W: usize = 8;
    const MR: usize = 6;
    const SUMS: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        _mm256_set1_ps(x)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        _mm256_loadu_ps(p)
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        _mm256_storeu_ps(p, v)
    }
    #[inline(always)]
    unsafe fn first(n: usize) -> __m256 {
        let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n.min(8) as i32), lane))
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, m: __m256) -> __m256 {
        _mm256_maskload_ps(p, _mm256_castps_si256(m))
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, m: __m256, v: __m256) {
        _mm256_maskstore_ps(p, _mm256_castps_si256(m), v)
    }

    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        _mm256_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        _mm256_sub_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        _mm256_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: __m256, b: __m256) -> __m256 {
        _mm256_div_ps(a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        _mm256_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn mac(a: __m256, b: __m256, c: __m256) -> __m256 {
        _mm256_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn min(a: __m256, b: __m256) -> __m256 {
        _mm256_min_ps(a, b)
    }
    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        _mm256_max_ps(a, b)
    }
    #[inline(always)]
    unsafe fn rint(a: __m256) -> __m256 {
        _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
    }
    #[inline(always)]
    unsafe fn floor(a: __m256) -> __m256 {
        _mm256_floor_ps(a)
    }
    #[inline(always)]
    unsafe fn ceil(a: __m256) -> __m256 {
        _mm256_ceil_ps(a)
    }
    #[inline(always)]
    unsafe fn sqrt(a: __m256) -> __m256 {
        _mm256_sqrt_ps(a)
    }
    #[inline(always)]
    unsafe fn abs(a: __m256) -> __m256 {
        _mm256_andnot_ps(_mm256_set1_ps(-0.0), a)
    }
    #[inline(always)]
    unsafe fn neg(a: __m256) -> __m256 {
        _mm256_xor_ps(a, _mm256_set1_ps(-0.0))
    }
    #[inline(always)]
    unsafe fn copysign(a: __m256, b: __m256) -> __m256 {
        let sign = _mm256_set1_ps(-0.0);
        _mm256_or_ps(_mm256_andnot_ps(sign, a), _mm256_and_ps(sign, b))
    }

    #[inline(always)]
    unsafe fn lt(a: __m256, b: __m256) -> __m256 {
        _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)
    }
    #[inline(always)]
    unsafe fn le(a: __m256, b: __m256) -> __m256 {
        _mm256_cmp_ps::<_CMP_LE_OQ>(a, b)
    }
    #[inline(always)]
    unsafe fn eq(a: __m256, b: __m256) -> __m256 {
        _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b)
    }
    #[inline(always)]
    unsafe fn unordered(a: __m256, b: __m256) -> __m256 {
        _mm256_cmp_ps::<_CMP_UNORD_Q>(a, b)
    }
    #[inline(always)]
    unsafe fn or(a: __m256, b: __m256) -> __m256 {
        _mm256_or_ps(a, b)
    }
    #[inline(always)]
    unsafe fn not(a: __m256) -> __m256 {
        _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))
    }
    #[inline(always)]
    unsafe fn any(a: __m256) -> bool {
        _mm256_movemask_ps(a) != 0
    }
    #[inline(always)]
    unsafe fn select(m: __m256, a: __m256, b: __m256) -> __m256 {
        _mm256_blendv_ps(b, a, m)
    }
    #[inline(always)]
    unsafe fn load_flags(p: *const u8, n: usize) -> __m256 {
        let bytes = if n >= 8 {
            p.cast::<u64>().read_unaligned()
        } else {
            let mut bytes = 0;
            for i in 0..n {
                bytes |= u64::from(*p.add(i)) << (8 * i);
            }
            bytes
        };
        let wide = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes as i64));
        Self::not(_mm256_castsi256_ps(_mm256_cmpeq_epi32(wide, _mm256_setzero_si256())))
    }
    #[inline(always)]
    unsafe fn store_flags(p: *mut u8, n: usize, m: __m256) {
        let bits = _mm256_movemask_ps(m);
        for i in 0..n.min(8) {
            *p.add(i) = ((bits >> i) & 1) as u8;
        }
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m256 {
        _mm256_cvtph_ps(_mm_loadu_si128(p.cast()))
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: __m256) {
        _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v))
    }

    #[inline(always)]
    unsafe fn sum(v: __m256) -> f32 {
        let q = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let d = _mm_add_ps(q, _mm_movehl_ps(q, q));
        _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)))
    }
    #[inline(always)]
    unsafe fn largest(v: __m256) -> f32 {
        let q = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let d = _mm_max_ps(q, _mm_movehl_ps(q, q));
        _mm_cvtss_f32(_mm_max_ss(d, _mm_movehdup_ps(d)))
    }
    #[inline(always)]
    unsafe fn sums<const N: usize>(acc: *const __m256, out: *mut f32) {
        if N != 8 {
            for i in 0..N {
                *out.add(i) = Self::sum(*acc.add(i));
            }
            return;
        }
        let lo = _mm256_hadd_ps(_mm256_hadd_ps(*acc, *acc.add(1)), _mm256_hadd_ps(*acc.add(2), *acc.add(3)));
        let hi = _mm256_hadd_ps(_mm256_hadd_ps(*acc.add(4), *acc.add(5)), _mm256_hadd_ps(*acc.add(6), *acc.add(7)));
        let all = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(lo, hi), _mm256_permute2f128_ps::<0x31>(lo, hi));
        _mm256_storeu_ps(out, all);
    }

    #[inline(always)]
    unsafe fn clamp_fraction(r: __m256) -> __m256 {
        Self::min(Self::max(r, Self::splat(-0.51)), Self::splat(0.51))
    }
    #[inline(always)]
    unsafe fn scale2(p: __m256, n: __m256) -> __m256 {
        // Two factors, because 2^n alone leaves the normal range at both ends; the first product is exact.
        let i = _mm256_cvtps_epi32(Self::min(Self::max(n, Self::splat(-160.0)), Self::splat(160.0)));
        let half = _mm256_srai_epi32::<1>(i);
        let y = Self::mul(Self::mul(p, power(half)), power(_mm256_sub_epi32(i, half)));
        Self::select(Self::unordered(n, n), n, y)
    }
    #[inline(always)]
    unsafe fn split(x: __m256) -> (__m256, __m256) {
        let tiny = Self::lt(x, Self::splat(f32::MIN_POSITIVE));
        let x = Self::select(tiny, Self::mul(x, Self::splat(33554432.0)), x);
        let bits = _mm256_castps_si256(x);
        // Subtracting the bits of sqrt(1/2) makes the exponent field count from there.
        let rest = _mm256_sub_epi32(bits, _mm256_set1_epi32(SQRT_HALF));
        let e = _mm256_srai_epi32::<23>(rest);
        let m = _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32::<23>(e)));
        let e = _mm256_cvtepi32_ps(e);
        (m, Self::select(tiny, Self::sub(e, Self::splat(25.0)), e))
    }

    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_stride: isize, rows: usize, cols: usize, dst: *mut f32, dst_stride: usize) {
        let mut r = [_mm256_setzero_ps(); 8];
        if rows >= 8 && cols >= 8 {
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
        let mut w = [[_mm256_setzero_ps(); 2]; 4];
        for g in 0..2 {
            let (a, b, c, d) = (r[4 * g], r[4 * g + 1], r[4 * g + 2], r[4 * g + 3]);
            let (ab, ab2) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd, cd2) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            w[0][g] = unpacklo2(ab, cd);
            w[1][g] = unpackhi2(ab, cd);
            w[2][g] = unpacklo2(ab2, cd2);
            w[3][g] = unpackhi2(ab2, cd2);
        }
        for (c, [w0, w1]) in w.into_iter().enumerate() {
            let out = [_mm256_permute2f128_ps::<0x20>(w0, w1), _mm256_permute2f128_ps::<0x31>(w0, w1)];
            for (lane, v) in out.into_iter().enumerate() {
                if 4 * lane + c < cols {
                    Self::store(dst.add((4 * lane + c) * dst_stride), v);
                }
            }
        }
    }
}

/// Bits of sqrt(1/2).
const SQRT_HALF: i32 = 0x3f35_04f3;

/// 2^e for `e` in the range of normal numbers.
#[inline(always)]
unsafe fn power(e: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(e, _mm256_set1_epi32(127))))
}

#[inline(always)]
unsafe fn unpacklo2(a: __m256, b: __m256) -> __m256 {
    _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)))
}

#[inline(always)]
unsafe fn unpackhi2(a: __m256, b: __m256) -> __m256 {
    _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)))
}
