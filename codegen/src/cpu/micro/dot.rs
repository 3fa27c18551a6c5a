//! Product of two small matrices with any strides: register tiles of `MR` rows by `NV` vectors.
//!
//! The vectors run along `n`, so the right operand wants unit stride there. Where it has not (q k^T), panels of it are transposed
//! into a buffer once per call and reused by all rows; with few rows, dot products along `k` are cheaper and nothing is copied.
//! The left operand is only ever broadcast element by element, so its strides do not matter.

use super::pack::{Buffer, pack};
use super::simd::Simd;

/// Steps of `k` per pass: a panel of 2 vectors by `KC` fits in L1.
const KC: usize = 256;
/// Columns per packed block; the block has at most `KC * NC` elements (256 KiB, L2).
const NC: usize = 256;
/// Rows per pass over a block of the right operand, so that the left one stays in L2.
const MC: usize = 256;

/// A matrix in memory: element `[i, j]` at `p + i * row + j * col`.
#[derive(Clone, Copy)]
pub(super) struct Mat<P> {
    pub p: P,
    pub row: isize,
    pub col: isize,
}

pub(super) type In = Mat<*const f32>;
pub(super) type Out = Mat<*mut f32>;

impl<T> Mat<*const T> {
    #[inline(always)]
    pub(super) fn at(self, i: usize, j: usize) -> *const T {
        self.p.wrapping_offset(i as isize * self.row + j as isize * self.col)
    }
    /// The transpose.
    #[inline(always)]
    pub(super) fn t(self) -> Mat<*const T> {
        Mat { p: self.p, row: self.col, col: self.row }
    }
}

impl Out {
    #[inline(always)]
    pub(super) fn at(self, i: usize, j: usize) -> *mut f32 {
        self.p.wrapping_offset(i as isize * self.row + j as isize * self.col)
    }
}

/// `c[m, n] (+)= a[m, k] b[k, n]`; with `add` false, `c` is written without being read.
#[inline(always)]
pub(super) unsafe fn dot<S: Simd>(m: usize, n: usize, k: usize, a: In, b: In, c: Out, add: bool) {
    if m == 0 || n == 0 {
        return;
    }
    // Vectors should run along the dimension that is contiguous in `c`, unless that one is too short to fill one.
    let wrong_way = c.col != 1 && c.row == 1 && m > 1;
    if wrong_way || (2 * n <= m && n < 8) {
        oriented::<S>(n, m, k, b.t(), a.t(), Mat { p: c.p, row: c.col, col: c.row }, add);
    } else {
        oriented::<S>(m, n, k, a, b, c, add);
    }
}

#[inline(always)]
unsafe fn oriented<S: Simd>(m: usize, n: usize, k: usize, a: In, b: In, c: Out, add: bool) {
    // Adding up lanes at the end costs as much as packing where there are about `k / 24` rows.
    if b.row == 1 && a.col == 1 && (b.col != 1 || n == 1) && m <= (k / 24).clamp(1, 8) {
        return along_k::<S>(m, n, k, a, b, c, add);
    }
    if b.col == 1 || n == 1 {
        // Rows of `b` a multiple of 4 KiB apart share a few L1 sets; copying pays once enough rows of `a` reuse the panel.
        let crowded = b.row % 1024 == 0 && m >= 4 * S::MR && k > 8;
        if !crowded {
            return direct::<S>(m, n, k, a, b, c, add);
        }
    }
    packed::<S>(m, n, k, a, b, c, add);
}

/// `b` is read where it is: unit stride along `n`.
#[inline(always)]
unsafe fn direct<S: Simd>(m: usize, n: usize, k: usize, a: In, b: In, c: Out, add: bool) {
    // Few rows leave registers for twice the columns.
    let wide = m <= S::MR / 2;
    let step = if wide { 4 * S::W } else { 2 * S::W };
    let mut k0 = 0;
    loop {
        let kb = KC.min(k - k0);
        let add = add || k0 > 0;
        let mut m0 = 0;
        while m0 < m {
            let mb = MC.min(m - m0);
            let mut j = 0;
            while j < n {
                let width = step.min(n - j);
                panel::<S>(
                    mb,
                    width,
                    kb,
                    Mat { p: a.at(m0, k0), ..a },
                    b.at(k0, j),
                    b.row,
                    Mat { p: c.at(m0, j), ..c },
                    add,
                    false,
                );
                j += width;
            }
            m0 += mb;
        }
        k0 += kb;
        if k0 >= k {
            return;
        }
    }
}

/// `b` is copied, block by block, into panels of `2 W` columns, rows `2 W` apart; missing columns are 0.
#[inline(always)]
unsafe fn packed<S: Simd>(m: usize, n: usize, k: usize, a: In, b: In, c: Out, add: bool) {
    let nr = 2 * S::W;
    let largest = KC.min(k) * NC.min(n).next_multiple_of(nr);
    let mut room = Buffer::take(largest);
    let buffer = room.start();
    let mut k0 = 0;
    loop {
        let kb = KC.min(k - k0);
        let add = add || k0 > 0;
        let mut n0 = 0;
        while n0 < n {
            let nb = NC.min(n - n0);
            pack::<S>(kb, nb, Mat { p: b.at(k0, n0), ..b }, buffer);
            let mut m0 = 0;
            while m0 < m {
                let mb = MC.min(m - m0);
                let mut j = 0;
                while j < nb {
                    let width = nr.min(nb - j);
                    let to = Mat { p: c.at(m0, n0 + j), ..c };
                    panel::<S>(mb, width, kb, Mat { p: a.at(m0, k0), ..a }, buffer.add(kb * j), nr as isize, to, add, true);
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

/// All rows of one panel of at most `4 W` columns. `padded`: every vector of `b` may be read whole.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
unsafe fn panel<S: Simd>(m: usize, width: usize, k: usize, a: In, b: *const f32, ldb: isize, c: Out, add: bool, padded: bool) {
    let vectors = width.div_ceil(S::W);
    let rest = width - (vectors - 1) * S::W;
    let last = S::first(rest);
    let whole = rest == S::W || padded;
    let mut i = 0;
    while i < m {
        let left = m - i;
        let (a, c) = (Mat { p: a.at(i, 0), ..a }, Mat { p: c.at(i, 0), ..c });
        macro_rules! tile {
            ($mr:literal, $nv:literal) => {{
                if whole {
                    tile::<S, $mr, $nv, true>(k, a, b, ldb, c, last, width, add)
                } else {
                    tile::<S, $mr, $nv, false>(k, a, b, ldb, c, last, width, add)
                }
                $mr
            }};
        }
        macro_rules! rows {
            ($nv:literal) => {
                if S::MR >= 8 && left >= 8 {
                    tile!(8, $nv)
                } else if S::MR == 6 && left >= 6 {
                    tile!(6, $nv)
                } else if left >= 4 {
                    tile!(4, $nv)
                } else if left >= 2 {
                    tile!(2, $nv)
                } else {
                    tile!(1, $nv)
                }
            };
        }
        i += match vectors {
            1 => rows!(1),
            2 => rows!(2),
            // Only `direct` with at most `MR / 2` rows makes panels this wide.
            3 if left >= 4 => tile!(4, 3),
            3 if left >= 2 => tile!(2, 3),
            3 => tile!(1, 3),
            _ if left >= 4 => tile!(4, 4),
            _ if left >= 2 => tile!(2, 4),
            _ => tile!(1, 4),
        };
    }
}

/// One register tile. `WHOLE`: the last vector of `b` is read whole, `last` then only limits what is written.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
unsafe fn tile<S: Simd, const MR: usize, const NV: usize, const WHOLE: bool>(
    k: usize,
    a: In,
    b: *const f32,
    ldb: isize,
    c: Out,
    last: S::M,
    width: usize,
    add: bool,
) {
    let mut acc = [[S::splat(0.0); NV]; MR];
    let rows: [*const f32; MR] = std::array::from_fn(|i| a.at(i, 0));
    let mut b_row = b;
    let mut step = 0isize;
    for _ in 0..k {
        let mut bv = [S::splat(0.0); NV];
        for (j, v) in bv.iter_mut().enumerate() {
            let p = b_row.add(j * S::W);
            *v = if WHOLE || j + 1 < NV { S::load(p) } else { S::load_first(p, last) };
        }
        for i in 0..MR {
            let x = S::splat(*rows[i].offset(step));
            for j in 0..NV {
                acc[i][j] = S::mac(x, bv[j], acc[i][j]);
            }
        }
        step += a.col;
        b_row = b_row.wrapping_offset(ldb);
    }
    if c.col != 1 {
        let mut flat = [0.0f32; 256];
        for i in 0..MR {
            for j in 0..NV {
                S::store(flat.as_mut_ptr().add((i * NV + j) * S::W), acc[i][j]);
            }
        }
        return scatter(MR, width, &flat, NV * S::W, c, add);
    }
    let ragged = width < NV * S::W;
    for i in 0..MR {
        for j in 0..NV {
            let p = c.at(i, j * S::W);
            if ragged && j + 1 == NV {
                let old = if add { S::load_first(p, last) } else { S::splat(0.0) };
                S::store_first(p, last, S::add(old, acc[i][j]));
            } else {
                let old = if add { S::load(p) } else { S::splat(0.0) };
                S::store(p, S::add(old, acc[i][j]));
            }
        }
    }
}

/// Writes a finished tile to a `c` without unit stride.
#[inline(never)]
pub(super) unsafe fn scatter(rows: usize, cols: usize, from: &[f32], stride: usize, c: Out, add: bool) {
    for i in 0..rows {
        for j in 0..cols {
            let (x, p) = (from[i * stride + j], c.at(i, j));
            *p = if add { *p + x } else { x };
        }
    }
}

/// Dot products along `k`, for few rows: `a` and `b` both have unit stride there.
#[inline(always)]
unsafe fn along_k<S: Simd>(m: usize, n: usize, k: usize, a: In, b: In, c: Out, add: bool) {
    let mut i = 0;
    while i < m {
        let left = m - i;
        let (a, c) = (Mat { p: a.at(i, 0), ..a }, Mat { p: c.at(i, 0), ..c });
        i += if S::SUMS == 16 && left >= 4 {
            strip::<S, 4, 4, 16>(n, k, a, b, c, add);
            4
        } else if S::SUMS == 16 && left >= 2 {
            strip::<S, 2, 8, 16>(n, k, a, b, c, add);
            2
        } else if S::SUMS == 16 {
            strip::<S, 1, 16, 16>(n, k, a, b, c, add);
            1
        } else if left >= 2 {
            strip::<S, 2, 4, 8>(n, k, a, b, c, add);
            2
        } else {
            strip::<S, 1, 8, 8>(n, k, a, b, c, add);
            1
        };
    }
}

/// `R` rows against all columns, `J` columns at a time; `N = R * J`.
#[inline(always)]
unsafe fn strip<S: Simd, const R: usize, const J: usize, const N: usize>(n: usize, k: usize, a: In, b: In, c: Out, add: bool) {
    let mut j0 = 0;
    while j0 < n {
        let width = J.min(n - j0);
        // Past the end the last column is computed again and thrown away.
        let columns: [*const f32; J] = std::array::from_fn(|j| b.at(0, (j0 + j).min(n - 1)));
        let rows: [*const f32; R] = std::array::from_fn(|i| a.at(i, 0));
        let mut acc = [[S::splat(0.0); J]; R];
        let mut p = 0;
        while p + S::W <= k {
            let mut x = [S::splat(0.0); R];
            for (x, row) in x.iter_mut().zip(rows) {
                *x = S::load(row.add(p));
            }
            for j in 0..J {
                let y = S::load(columns[j].add(p));
                for i in 0..R {
                    acc[i][j] = S::mac(x[i], y, acc[i][j]);
                }
            }
            p += S::W;
        }
        if p < k {
            let some = S::first(k - p);
            let mut x = [S::splat(0.0); R];
            for (x, row) in x.iter_mut().zip(rows) {
                *x = S::load_first(row.add(p), some);
            }
            for j in 0..J {
                let y = S::load_first(columns[j].add(p), some);
                for i in 0..R {
                    acc[i][j] = S::mac(x[i], y, acc[i][j]);
                }
            }
        }
        let mut out = [0.0f32; N];
        S::sums::<N>(acc.as_ptr().cast(), out.as_mut_ptr());
        for i in 0..R {
            for j in 0..width {
                let (x, to) = (out[i * J + j], c.at(i, j0 + j));
                *to = if add { *to + x } else { x };
            }
        }
        j0 += width;
    }
}
