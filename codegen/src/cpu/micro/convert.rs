//! 16-bit floats to f32 and back, row by row; and the product of bf16 matrices for levels without an instruction for it.

use super::DotFn;
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

/// How the operands of a mixed product are stored; `None` is f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operands {
    pub a: Option<Half>,
    pub b: Option<Half>,
    /// An f32 operand may be rounded to the format of the other one.
    pub narrow: bool,
}

impl Operands {
    /// What generated code passes: two digits in base 4 (0 for f32), and 16 for `narrow`.
    pub fn code(self) -> i64 {
        let digit = |x: Option<Half>| x.map_or(0, |h| h.code() + 1);
        digit(self.a) | digit(self.b) << 2 | i64::from(self.narrow) << 4
    }

    /// The operands with this code.
    pub fn from_code(code: i64) -> Operands {
        Operands { a: Half::from_code((code & 3) - 1), b: Half::from_code((code >> 2 & 3) - 1), narrow: code & 16 != 0 }
    }
}

/// Extent of the blocks that are widened at a time.
const BLOCK: usize = 128;

/// `c[m, n] (+)= a[m, k] b[k, n]` by widening blocks of what is not f32; `dot` is the level's product.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
pub(super) unsafe fn dot_mixed<S: Simd>(dot: DotFn, how: Operands, m: usize, n: usize, k: usize, a: Mat<*const u8>, b: Mat<*const u8>, c: Out, add: bool) {
    let mut room = Buffer::take_other(2 * BLOCK * BLOCK);
    let wide_a = room.start();
    let wide_b = wide_a.add(BLOCK * BLOCK);
    let mut k0 = 0;
    loop {
        let kb = BLOCK.min(k - k0);
        for n0 in (0..n).step_by(BLOCK) {
            let nb = BLOCK.min(n - n0);
            let right = block::<S>(how.b, kb, nb, b, (k0, n0), wide_b);
            for m0 in (0..m).step_by(BLOCK) {
                let mb = BLOCK.min(m - m0);
                let left = block::<S>(how.a, mb, kb, a, (m0, k0), wide_a);
                let add = i64::from(add || k0 > 0);
                let (l, r, to) = (left, right, c.at(m0, n0));
                let strides = [l.row, l.col, r.row, r.col, c.row, c.col].map(|s| s as i64);
                dot(mb as i64, nb as i64, kb as i64, l.p, strides[0], strides[1], r.p, strides[2], strides[3], to, strides[4], strides[5], add);
            }
        }
        k0 += kb;
        if k0 >= k {
            break;
        }
    }
    room.give_back();
}

/// A block of an operand as f32: where it is, or widened into `y` with the same unit stride where it has one.
#[inline(always)]
unsafe fn block<S: Simd>(format: Option<Half>, rows: usize, cols: usize, x: Mat<*const u8>, at: (usize, usize), y: *mut f32) -> dot::In {
    let Some(format) = format else {
        let x = Mat { p: x.p.cast::<f32>(), row: x.row, col: x.col };
        return Mat { p: x.at(at.0, at.1), ..x };
    };
    let x = Mat { p: x.p.cast::<u16>(), row: x.row, col: x.col };
    let x = Mat { p: x.at(at.0, at.1), ..x };
    if x.col == 1 {
        widen_rows::<S>(format.code(), rows, cols, x.p, x.row, y, cols as isize);
    } else if x.row == 1 {
        widen_rows::<S>(format.code(), cols, rows, x.p, x.col, y, rows as isize);
        return Mat { p: y.cast_const(), row: 1, col: rows as isize };
    } else {
        for i in 0..rows {
            for j in 0..cols {
                let half = *x.at(i, j);
                *y.add(i * cols + j) = if format == Half::Bf16 { from_bf16(half) } else { from_f16(half) };
            }
        }
    }
    Mat { p: y.cast_const(), row: cols as isize, col: 1 }
}
