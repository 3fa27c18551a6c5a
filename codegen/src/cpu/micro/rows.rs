//! Row operations on a tile: `rows` rows of `cols` contiguous elements, rows a stride apart.

use super::math;
use super::simd::Simd;

/// `y = exp(scale * (x - shift[r]))`, `sums[r] += ` sum of the row of `y`. `x = -inf` gives 0, `shift = -inf` counts as 0.
/// `shift` and `sums` may be null; `y` may be `x`.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
pub(super) unsafe fn exp_rows<S: Simd>(
    rows: usize,
    cols: usize,
    x: *const f32,
    x_stride: isize,
    shift: *const f32,
    y: *mut f32,
    y_stride: isize,
    sums: *mut f32,
    scale: f32,
) {
    // exp(scale d) = 2^(d (high + low)), with the constant to twice the precision.
    let exact = f64::from(scale) * std::f64::consts::LOG2_E;
    let high = exact as f32;
    let low = (exact - f64::from(high)) as f32;
    // With a positive factor exp(-inf) is 0 by itself.
    let plain = scale > 0.0;
    let mut r0 = 0;
    while r0 < rows {
        let block = ROWS.min(rows - r0);
        // Lanes are added up for all rows of the block at once, which is several times cheaper than row by row.
        let mut acc = [S::splat(0.0); ROWS];
        for i in 0..block {
            let r = r0 + i;
            let (x, y) = (x.wrapping_offset(r as isize * x_stride), y.wrapping_offset(r as isize * y_stride));
            let m = if shift.is_null() { 0.0 } else { *shift.add(r) };
            let m = if m == f32::NEG_INFINITY { 0.0 } else { m };
            acc[i] =
                if plain { exp_row::<S, true>(cols, x, m, y, high, low) } else { exp_row::<S, false>(cols, x, m, y, high, low) };
        }
        if !sums.is_null() {
            let mut totals = [0.0f32; ROWS];
            if block <= ROWS / 4 {
                for i in 0..block {
                    totals[i] = S::sum(acc[i]);
                }
            } else if S::SUMS == ROWS {
                S::sums::<ROWS>(acc.as_ptr(), totals.as_mut_ptr());
            } else {
                S::sums::<{ ROWS / 2 }>(acc.as_ptr(), totals.as_mut_ptr());
                S::sums::<{ ROWS / 2 }>(acc.as_ptr().add(ROWS / 2), totals.as_mut_ptr().add(ROWS / 2));
            }
            for i in 0..block {
                *sums.add(r0 + i) += totals[i];
            }
        }
        r0 += block;
    }
}

/// Rows whose sums are reduced together.
const ROWS: usize = 16;

#[inline(always)]
unsafe fn exp_shifted<S: Simd, const PLAIN: bool>(x: S::V, m: S::V, high: S::V, low: S::V) -> S::V {
    let e = math::power_of::<S>(S::sub(x, m), high, low);
    if PLAIN { e } else { S::select(S::eq(x, S::splat(f32::NEG_INFINITY)), S::splat(0.0), e) }
}

/// One row; the sum is still spread over the lanes.
#[inline(always)]
unsafe fn exp_row<S: Simd, const PLAIN: bool>(cols: usize, x: *const f32, shift: f32, y: *mut f32, high: f32, low: f32) -> S::V {
    let (m, high, low, zero) = (S::splat(shift), S::splat(high), S::splat(low), S::splat(0.0));
    let mut acc = [zero; 2];
    let mut i = 0;
    while i + 2 * S::W <= cols {
        for (h, acc) in acc.iter_mut().enumerate() {
            let e = exp_shifted::<S, PLAIN>(S::load(x.add(i + h * S::W)), m, high, low);
            S::store(y.add(i + h * S::W), e);
            *acc = S::add(*acc, e);
        }
        i += 2 * S::W;
    }
    while i < cols {
        let some = S::first(cols - i);
        let e = exp_shifted::<S, PLAIN>(S::load_first(x.add(i), some), m, high, low);
        S::store_first(y.add(i), some, e);
        acc[0] = S::add(acc[0], S::select(some, e, zero));
        i += S::W;
    }
    S::add(acc[0], acc[1])
}

/// `out[r] = max(out[r], largest of the row)`; NaN when any of them is.
#[inline(always)]
pub(super) unsafe fn max_rows<S: Simd>(rows: usize, cols: usize, x: *const f32, stride: isize, out: *mut f32) {
    let low = S::splat(f32::NEG_INFINITY);
    for r in 0..rows {
        let x = x.wrapping_offset(r as isize * stride);
        let (mut a, mut b) = (low, low);
        let mut nan = S::first(0);
        let mut i = 0;
        while i + 2 * S::W <= cols {
            let (v, w) = (S::load(x.add(i)), S::load(x.add(i + S::W)));
            nan = S::or(nan, S::unordered(v, w));
            a = S::max(v, a);
            b = S::max(w, b);
            i += 2 * S::W;
        }
        while i < cols {
            let some = S::first(cols - i);
            let v = S::select(some, S::load_first(x.add(i), some), low);
            nan = S::or(nan, S::unordered(v, v));
            a = S::max(v, a);
            i += S::W;
        }
        let best = S::largest(S::max(a, b));
        let old = *out.add(r);
        *out.add(r) = if old.is_nan() || S::any(nan) {
            f32::NAN
        } else if old > best {
            old
        } else {
            best
        };
    }
}

/// `out[r] += ` sum of the row.
#[inline(always)]
pub(super) unsafe fn sum_rows<S: Simd>(rows: usize, cols: usize, x: *const f32, stride: isize, out: *mut f32) {
    for r in 0..rows {
        let x = x.wrapping_offset(r as isize * stride);
        let mut acc = [S::splat(0.0); 4];
        let mut i = 0;
        while i + 4 * S::W <= cols {
            for (h, acc) in acc.iter_mut().enumerate() {
                *acc = S::add(*acc, S::load(x.add(i + h * S::W)));
            }
            i += 4 * S::W;
        }
        while i < cols {
            let some = S::first(cols - i);
            acc[0] = S::add(acc[0], S::load_first(x.add(i), some));
            i += S::W;
        }
        *out.add(r) += S::sum(S::add(S::add(acc[0], acc[1]), S::add(acc[2], acc[3])));
    }
}

/// `x[r, :] *= f[r]`.
#[inline(always)]
pub(super) unsafe fn scale_rows<S: Simd>(rows: usize, cols: usize, x: *mut f32, stride: isize, f: *const f32) {
    for r in 0..rows {
        let x = x.wrapping_offset(r as isize * stride);
        // The usual factor where a maximum stands; the product would change nothing.
        if *f.add(r) == 1.0 {
            continue;
        }
        let by = S::splat(*f.add(r));
        let mut i = 0;
        while i + S::W <= cols {
            S::store(x.add(i), S::mul(S::load(x.add(i)), by));
            i += S::W;
        }
        if i < cols {
            let some = S::first(cols - i);
            S::store_first(x.add(i), some, S::mul(S::load_first(x.add(i), some), by));
        }
    }
}
