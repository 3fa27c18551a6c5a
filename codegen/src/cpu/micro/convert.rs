//! 16-bit floats to f32 and back, row by row; and the product of bf16 matrices for levels without an instruction for it.

use super::dot::{self, Mat, Out};
use super::pack::Buffer;
use super::simd::Simd;

/// A 16-bit storage format, as a code of `widen_rows` and `narrow_rows`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i64)]
pub enum Half {
    /// Upper half of an f32.
    Bf16 = 0,
    /// IEEE binary16.
    F16 = 1,
}

impl Half {
    /// The format with this code.
    pub fn from_code(code: i64) -> Option<Half> {
        match code {
            0 => Some(Half::Bf16),
            1 => Some(Half::F16),
            _ => None,
        }
    }

    /// What generated code passes as `format`.
    pub fn code(self) -> i64 {
        self as i64
    }
}

/// Exact.
#[inline(always)]
pub(super) fn from_bf16(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// To nearest, ties to even; NaN stays NaN.
#[inline(always)]
pub(super) fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    (if bits & 0x7fff_ffff > 0x7f80_0000 { quiet } else { rounded }) as u16
}

/// Exact.
#[inline(always)]
pub(super) fn from_f16(x: u16) -> f32 {
    let sign = u32::from(x & 0x8000) << 16;
    let magnitude = u32::from(x & 0x7fff);
    // Moving the exponent by a multiplication also puts subnormals right; infinities and NaN need the full exponent field.
    let value = f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000);
    let bits = if magnitude >= 0x7c00 { 0x7f80_0000 | (magnitude << 13) } else { value.to_bits() };
    let quiet = if magnitude > 0x7c00 { 0x0040_0000 } else { 0 };
    f32::from_bits(sign | bits | quiet)
}

/// To nearest, ties to even; too large becomes infinity, NaN stays NaN.
#[inline(always)]
pub(super) fn to_f16(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16) as u16 & 0x8000;
    let bits = x.to_bits() & 0x7fff_ffff;
    let magnitude = if bits > 0x7f80_0000 {
        0x7e00 | (bits >> 13) as u16 & 0x03ff
    } else if bits >= 0x477f_f000 {
        0x7c00
    } else if bits < 0x3880_0000 {
        // Below the normal range: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits.
        ((f32::from_bits(bits) + 0.5).to_bits() - 0x3f00_0000) as u16
    } else {
        let even = (bits >> 13) & 1;
        ((bits - 0x3800_0000 + 0x0fff + even) >> 13) as u16
    };
    sign | magnitude
}

/// `y[r, :] = x[r, :]`, exactly; an unknown format gives NaN.
#[inline(always)]
pub(super) unsafe fn widen_rows<S: Simd>(
    format: i64,
    rows: usize,
    cols: usize,
    x: *const u16,
    x_row: isize,
    y: *mut f32,
    y_row: isize,
) {
    let format = Half::from_code(format);
    for r in 0..rows {
        let (x, y) = (x.wrapping_offset(r as isize * x_row), y.wrapping_offset(r as isize * y_row));
        let mut i = 0;
        match format {
            Some(Half::Bf16) => {
                while i < cols {
                    *y.add(i) = from_bf16(*x.add(i));
                    i += 1;
                }
            }
            Some(Half::F16) => {
                while i + S::W <= cols {
                    S::store(y.add(i), S::load_f16(x.add(i)));
                    i += S::W;
                }
                while i < cols {
                    *y.add(i) = from_f16(*x.add(i));
                    i += 1;
                }
            }
            None => {
                while i < cols {
                    *y.add(i) = f32::NAN;
                    i += 1;
                }
            }
        }
    }
}

/// `y[r, :] = x[r, :]`, rounded to nearest even; an unknown format gives NaN.
#[inline(always)]
pub(super) unsafe fn narrow_rows<S: Simd>(
    format: i64,
    rows: usize,
    cols: usize,
    x: *const f32,
    x_row: isize,
    y: *mut u16,
    y_row: isize,
) {
    let format = Half::from_code(format);
    for r in 0..rows {
        let (x, y) = (x.wrapping_offset(r as isize * x_row), y.wrapping_offset(r as isize * y_row));
        let mut i = 0;
        match format {
            Some(Half::Bf16) => {
                while i < cols {
                    *y.add(i) = to_bf16(*x.add(i));
                    i += 1;
                }
            }
            Some(Half::F16) => {
                while i + S::W <= cols {
                    S::store_f16(y.add(i), S::load(x.add(i)));
                    i += S::W;
                }
                while i < cols {
                    *y.add(i) = to_f16(*x.add(i));
                    i += 1;
                }
            }
            None => {
                while i < cols {
                    *y.add(i) = 0x7fff;
                    i += 1;
                }
            }
        }
    }
}

/// Extent of the blocks that `dot_bf16` widens at a time.
const BLOCK: usize = 128;

/// `c[m, n] (+)= a[m, k] b[k, n]` by widening blocks of both to f32.
#[inline(always)]
pub(super) unsafe fn dot_bf16<S: Simd>(m: usize, n: usize, k: usize, a: Mat<*const u16>, b: Mat<*const u16>, c: Out, add: bool) {
    let mut room = Buffer::take(2 * BLOCK * BLOCK);
    let wide_a = room.start();
    let wide_b = wide_a.add(BLOCK * BLOCK);
    let mut k0 = 0;
    loop {
        let kb = BLOCK.min(k - k0);
        for n0 in (0..n).step_by(BLOCK) {
            let nb = BLOCK.min(n - n0);
            widen(kb, nb, Mat { p: b.at(k0, n0), ..b }, wide_b);
            for m0 in (0..m).step_by(BLOCK) {
                let mb = BLOCK.min(m - m0);
                widen(mb, kb, Mat { p: a.at(m0, k0), ..a }, wide_a);
                let (left, right) = (
                    Mat { p: wide_a.cast_const(), row: kb as isize, col: 1 },
                    Mat { p: wide_b.cast_const(), row: nb as isize, col: 1 },
                );
                dot::dot::<S>(mb, nb, kb, left, right, Mat { p: c.at(m0, n0), ..c }, add || k0 > 0);
            }
        }
        k0 += kb;
        if k0 >= k {
            break;
        }
    }
    room.give_back();
}

#[inline(always)]
unsafe fn widen(rows: usize, cols: usize, x: Mat<*const u16>, y: *mut f32) {
    if x.col == 1 {
        for i in 0..rows {
            let (from, to) = (x.at(i, 0), y.add(i * cols));
            for j in 0..cols {
                *to.add(j) = from_bf16(*from.add(j));
            }
        }
    } else {
        for i in 0..rows {
            for j in 0..cols {
                *y.add(i * cols + j) = from_bf16(*x.at(i, j));
            }
        }
    }
}
