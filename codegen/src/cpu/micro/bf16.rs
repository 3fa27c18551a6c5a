//! Product of bf16 matrices with `vdpbf16ps`: two steps of `k` per instruction, sums in f32.
//!
//! The right operand is packed in pairs of `k` (16 columns of a pair fill a register); the left one is broadcast a pair at a time,
//! and packed the same way unless `k` is its unit stride. With few rows nothing is copied: dot products along `k`, or pairs made
//! on the way.
//! The instruction takes subnormal inputs and results as 0.

use super::avx512::Avx512;
use super::convert::to_bf16;
use super::dot::{Mat, Out, scatter};
use super::pack::Buffer;
use super::simd::Simd;
use std::arch::x86_64::*;

type In = Mat<*const u16>;

/// Pairs of `k`, columns and rows per pass; the packed right block has at most `KP * NC` pairs (256 KiB).
const KP: usize = 256;
const NC: usize = 256;
const MC: usize = 128;
/// Columns of a panel: two registers.
const NR: usize = 32;

#[inline(always)]
unsafe fn pairs(x: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes without invalid bit patterns.
    std::mem::transmute(x)
}

/// `c[m, n] (+)= a[m, k] b[k, n]`.
#[inline(always)]
pub(super) unsafe fn dot(m: usize, n: usize, k: usize, a: In, b: In, c: Out, add: bool) {
    if m == 0 || n == 0 {
        return;
    }
    let wrong_way = c.col != 1 && c.row == 1 && m > 1;
    if wrong_way || (2 * n <= m && n < 8) {
        oriented(n, m, k, b.t(), a.t(), Mat { p: c.p, row: c.col, col: c.row }, add);
    } else {
        oriented(m, n, k, a, b, c, add);
    }
}

#[inline(always)]
unsafe fn oriented(m: usize, n: usize, k: usize, a: In, b: In, c: Out, add: bool) {
    if b.row == 1 && a.col == 1 && m <= (k / 32).clamp(1, 8) {
        let mut i = 0;
        while i < m {
            let (a, c) = (Mat { p: a.at(i, 0), ..a }, Mat { p: c.at(i, 0), ..c });
            i += match m - i {
                4.. => {
                    strip::<4, 4>(n, k, a, b, c, add);
                    4
                }
                2.. => {
                    strip::<2, 8>(n, k, a, b, c, add);
                    2
                }
                _ => {
                    strip::<1, 16>(n, k, a, b, c, add);
                    1
                }
            };
        }
        return;
    }
    if b.col == 1 && m <= 4 {
        return few_rows(m, n, k, a, b, c, add);
    }
    let kp = k.div_ceil(2);
    let b_room = KP.min(kp) * NC.min(n).next_multiple_of(NR);
    let a_room = if a.col == 1 { 0 } else { KP.min(kp) * MC.min(m).next_multiple_of(NR) };
    let mut room = Buffer::take(b_room + a_room);
    let b_panels = room.start().cast::<u32>();
    let a_panels = b_panels.add(b_room);
    let mut k0 = 0;
    loop {
        let kb = (2 * KP).min(k - k0);
        let add = add || k0 > 0;
        let mut n0 = 0;
        while n0 < n {
            let nb = NC.min(n - n0);
            pack(kb, nb, Mat { p: b.at(k0, n0), ..b }, b_panels);
            let mut m0 = 0;
            while m0 < m {
                let mb = MC.min(m - m0);
                let a = Mat { p: a.at(m0, k0), ..a };
                let left = if a.col == 1 {
                    Left { p: a.p, row: a.row, pair: 2, group: NR as isize * a.row, odd: kb % 2 == 1 }
                } else {
                    pack(kb, mb, a.t(), a_panels);
                    let group = (kb.div_ceil(2) * 2 * NR) as isize;
                    Left { p: a_panels.cast_const().cast(), row: 2, pair: 2 * NR as isize, group, odd: false }
                };
                let full = if left.odd { kb / 2 } else { kb.div_ceil(2) };
                let mut j = 0;
                while j < nb {
                    let width = NR.min(nb - j);
                    let panel = b_panels.add(kb.div_ceil(2) * j);
                    panel_rows(mb, width, full, left, panel, Mat { p: c.at(m0, n0 + j), ..c }, add);
                    j += width;
                }
                m0 += mb;
            }
            n0 += nb;
        }
        k0 += kb;
        if k0 >= k {
            break;
        }
    }
    room.give_back();
}

/// An f32 matrix rounded into `to`, with the same unit stride where it has one; `to` has room for 31 elements more.
#[inline(always)]
pub(super) unsafe fn rounded(rows: usize, cols: usize, x: Mat<*const f32>, to: *mut u16) -> In {
    if x.col != 1 && x.row == 1 {
        return rounded_rows(cols, rows, x.t(), to).t();
    }
    if x.col == 1 || cols == 1 {
        return rounded_rows(rows, cols, Mat { col: 1, ..x }, to);
    }
    for i in 0..rows {
        for j in 0..cols {
            *to.add(i * cols + j) = to_bf16(*x.at(i, j));
        }
    }
    Mat { p: to.cast_const(), row: cols as isize, col: 1 }
}

#[inline(always)]
unsafe fn rounded_rows(rows: usize, cols: usize, x: Mat<*const f32>, to: *mut u16) -> In {
    for i in 0..rows {
        let (from, to) = (x.at(i, 0), to.add(i * cols));
        let mut j = 0;
        while j + 32 <= cols {
            let two = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from.add(j + 16)), _mm512_loadu_ps(from.add(j)));
            // SAFETY: both are 64 bytes without invalid bit patterns.
            _mm512_storeu_si512(to.add(j).cast(), std::mem::transmute::<__m512bh, __m512i>(two));
            j += 32;
        }
        while j < cols {
            *to.add(j) = to_bf16(*from.add(j));
            j += 1;
        }
    }
    Mat { p: to.cast_const(), row: cols as isize, col: 1 }
}

/// Where the pairs of the left operand are: those of row `i` at `p + i / NR * group + i % NR * row`, `pair` apart (in u16).
/// With `odd`, one element follows the last whole pair; panels are padded to whole pairs.
#[derive(Clone, Copy)]
struct Left {
    p: *const u16,
    row: isize,
    pair: isize,
    group: isize,
    odd: bool,
}

/// Panels of `NR` columns: pair `p` of panel `j` starts at `to + ceil(k / 2) * j + p * NR`; missing elements are 0.
#[inline(always)]
unsafe fn pack(k: usize, n: usize, b: In, to: *mut u32) {
    let kp = k.div_ceil(2);
    let mut j = 0;
    while j < n {
        let width = NR.min(n - j);
        let panel = to.add(kp * j);
        if b.col == 1 {
            interleave(k, width, Mat { p: b.at(0, j), ..b }, panel);
        } else if b.row == 1 && b.col % 2 == 0 {
            for half in 0..width.div_ceil(16) {
                let first = half * 16;
                let rows = 16.min(width - first);
                let mut p = 0;
                while p < k / 2 {
                    let from = b.at(2 * p, j + first).cast::<f32>();
                    Avx512::transpose(from, b.col / 2, rows, 16.min(k / 2 - p), panel.add(p * NR + first).cast(), NR);
                    p += 16;
                }
                if k % 2 == 1 {
                    for x in 0..16 {
                        let low = if x < rows { *b.at(k - 1, j + first + x) } else { 0 };
                        *panel.add((kp - 1) * NR + first + x) = u32::from(low);
                    }
                }
            }
        } else {
            let padded = width.next_multiple_of(16);
            for p in 0..kp {
                for x in 0..padded {
                    let low = if x < width { *b.at(2 * p, j + x) } else { 0 };
                    let high = if x < width && 2 * p + 1 < k { *b.at(2 * p + 1, j + x) } else { 0 };
                    *panel.add(p * NR + x) = u32::from(low) | u32::from(high) << 16;
                }
            }
        }
        j += width;
    }
}

/// Which elements of two rows make the first 16 pairs.
#[rustfmt::skip]
const LOW: [u16; 32] = [
    0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47,
];

/// Rows `2p` and `2p + 1` of up to 32 columns become one row of pairs.
#[inline(always)]
unsafe fn interleave(k: usize, width: usize, b: In, to: *mut u32) {
    let low = _mm512_loadu_si512(LOW.as_ptr().cast());
    let high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    let some = if width >= 32 { u32::MAX } else { (1 << width) - 1 };
    for p in 0..k.div_ceil(2) {
        let even = _mm512_maskz_loadu_epi16(some, b.at(2 * p, 0).cast());
        let odd = if 2 * p + 1 < k { _mm512_maskz_loadu_epi16(some, b.at(2 * p + 1, 0).cast()) } else { _mm512_setzero_si512() };
        _mm512_storeu_si512(to.add(p * NR).cast(), _mm512_permutex2var_epi16(even, low, odd));
        if width > 16 {
            _mm512_storeu_si512(to.add(p * NR + 16).cast(), _mm512_permutex2var_epi16(even, high, odd));
        }
    }
}

/// All rows of one panel, over `k` whole pairs.
#[inline(always)]
unsafe fn panel_rows(m: usize, width: usize, k: usize, a: Left, b: *const u32, c: Out, add: bool) {
    let mut i = 0;
    while i < m {
        let a = Left { p: a.p.wrapping_offset((i / NR) as isize * a.group + (i % NR) as isize * a.row), ..a };
        let c = Mat { p: c.at(i, 0), ..c };
        macro_rules! rows {
            ($nv:literal) => {
                match m - i {
                    8.. => {
                        tile::<8, $nv>(width, k, a, b, c, add);
                        8
                    }
                    4.. => {
                        tile::<4, $nv>(width, k, a, b, c, add);
                        4
                    }
                    2.. => {
                        tile::<2, $nv>(width, k, a, b, c, add);
                        2
                    }
                    _ => {
                        tile::<1, $nv>(width, k, a, b, c, add);
                        1
                    }
                }
            };
        }
        i += if width > 16 { rows!(2) } else { rows!(1) };
    }
}

#[inline(always)]
unsafe fn tile<const MR: usize, const NV: usize>(width: usize, k: usize, a: Left, b: *const u32, c: Out, add: bool) {
    let mut acc = [[_mm512_setzero_ps(); NV]; MR];
    let mut rows = [a.p; MR];
    for i in 0..MR {
        rows[i] = a.p.wrapping_offset(i as isize * a.row);
    }
    for p in 0..k {
        let mut bv = [_mm512_setzero_si512(); NV];
        for j in 0..NV {
            bv[j] = _mm512_loadu_si512(b.add(p * NR + 16 * j).cast());
        }
        for i in 0..MR {
            let x = pairs(_mm512_set1_epi32(rows[i].offset(p as isize * a.pair).cast::<i32>().read_unaligned()));
            for j in 0..NV {
                acc[i][j] = _mm512_dpbf16_ps(acc[i][j], x, pairs(bv[j]));
            }
        }
    }
    if a.odd {
        for i in 0..MR {
            let x = pairs(_mm512_set1_epi32(i32::from(*rows[i].add(2 * k))));
            for j in 0..NV {
                acc[i][j] = _mm512_dpbf16_ps(acc[i][j], x, pairs(_mm512_loadu_si512(b.add(k * NR + 16 * j).cast())));
            }
        }
    }
    finish(width, &acc, c, add);
}

/// Writes a finished tile, of which `width` columns count.
#[inline(always)]
unsafe fn finish<const MR: usize, const NV: usize>(width: usize, acc: &[[__m512; NV]; MR], c: Out, add: bool) {
    if c.col != 1 {
        let mut flat = [0.0f32; 256];
        for i in 0..MR {
            for j in 0..NV {
                Avx512::store(flat.as_mut_ptr().add((i * NV + j) * 16), acc[i][j]);
            }
        }
        return scatter(MR, width, &flat, NV * 16, c, add);
    }
    for i in 0..MR {
        for j in 0..NV {
            let p = c.at(i, j * 16);
            let some = Avx512::first(width.saturating_sub(j * 16));
            let old = if add { Avx512::load_first(p, some) } else { _mm512_setzero_ps() };
            Avx512::store_first(p, some, _mm512_add_ps(old, acc[i][j]));
        }
    }
}

/// At most 4 rows, `n` the unit stride of `b`: pairs are made in registers, 64 columns at a time.
#[inline(always)]
unsafe fn few_rows(m: usize, n: usize, k: usize, a: In, b: In, c: Out, add: bool) {
    let mut j = 0;
    while j < n {
        let width = (n - j).min(64);
        let (b, c) = (Mat { p: b.at(0, j), ..b }, Mat { p: c.at(0, j), ..c });
        match m {
            1 => streamed::<1>(width, k, a, b, c, add),
            2 => streamed::<2>(width, k, a, b, c, add),
            3 => streamed::<3>(width, k, a, b, c, add),
            _ => streamed::<4>(width, k, a, b, c, add),
        }
        j += width;
    }
}

#[inline(always)]
unsafe fn streamed<const MR: usize>(width: usize, k: usize, a: In, b: In, c: Out, add: bool) {
    let low = _mm512_loadu_si512(LOW.as_ptr().cast());
    let high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    let bits = if width >= 64 { u64::MAX } else { (1 << width) - 1 };
    let some = [bits as u32, (bits >> 32) as u32];
    let mut acc = [[_mm512_setzero_ps(); 4]; MR];
    let mut p = 0;
    while p < k {
        let paired = p + 1 < k;
        let mut bv = [_mm512_setzero_si512(); 4];
        for h in 0..2 {
            let even = _mm512_maskz_loadu_epi16(some[h], b.at(p, 32 * h).cast());
            let odd = if paired { _mm512_maskz_loadu_epi16(some[h], b.at(p + 1, 32 * h).cast()) } else { _mm512_setzero_si512() };
            bv[2 * h] = _mm512_permutex2var_epi16(even, low, odd);
            bv[2 * h + 1] = _mm512_permutex2var_epi16(even, high, odd);
        }
        for i in 0..MR {
            let second = if paired { *a.at(i, p + 1) } else { 0 };
            let x = pairs(_mm512_set1_epi32((u32::from(*a.at(i, p)) | u32::from(second) << 16) as i32));
            for j in 0..4 {
                acc[i][j] = _mm512_dpbf16_ps(acc[i][j], x, pairs(bv[j]));
            }
        }
        p += 2;
    }
    finish(width, &acc, c, add);
}

/// `R` rows against all columns along `k`, `J` columns at a time, 16 sums in flight.
#[inline(always)]
unsafe fn strip<const R: usize, const J: usize>(n: usize, k: usize, a: In, b: In, c: Out, add: bool) {
    let mut j0 = 0;
    while j0 < n {
        let width = J.min(n - j0);
        let mut columns = [b.p; J];
        for j in 0..J {
            // Past the end the last column is computed again and thrown away.
            columns[j] = b.at(0, (j0 + j).min(n - 1));
        }
        let mut acc = [[_mm512_setzero_ps(); J]; R];
        let mut p = 0;
        while p < k {
            let some = if k - p >= 32 { u32::MAX } else { (1 << (k - p)) - 1 };
            let mut x = [_mm512_setzero_si512(); R];
            for i in 0..R {
                x[i] = _mm512_maskz_loadu_epi16(some, a.at(i, p).cast());
            }
            for j in 0..J {
                let y = pairs(_mm512_maskz_loadu_epi16(some, columns[j].add(p).cast()));
                for i in 0..R {
                    acc[i][j] = _mm512_dpbf16_ps(acc[i][j], pairs(x[i]), y);
                }
            }
            p += 32;
        }
        let mut out = [0.0f32; 16];
        Avx512::sums::<16>(acc.as_ptr().cast(), out.as_mut_ptr());
        for i in 0..R {
            for j in 0..width {
                let (x, to) = (out[i * J + j], c.at(i, j0 + j));
                *to = if add { *to + x } else { x };
            }
        }
        j0 += width;
    }
}
