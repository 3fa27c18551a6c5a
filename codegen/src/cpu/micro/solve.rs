//! Unit triangular systems with many right sides: blocks of rows, products with what is solved, substitution inside the block.

use super::dot::{self, Mat};
use super::simd::Simd;

/// Rows that are substituted one after the other.
const BLOCK: usize = 8;

/// See [`super::Table::solve`].
#[inline(always)]
pub(super) unsafe fn solve<S: Simd>(n: usize, cols: usize, m: *const f32, m_row: isize, x: *mut f32, x_row: isize, reverse: bool) {
    if reverse {
        for i in (0..n).rev() {
            for c in i + 1..n {
                add_row::<S>(cols, *m.offset(i as isize * m_row + c as isize), x.offset(c as isize * x_row), x.offset(i as isize * x_row));
            }
        }
        return;
    }
    let mut first = 0;
    while first < n {
        let rows = BLOCK.min(n - first);
        let target = x.offset(first as isize * x_row);
        if first > 0 {
            let a = Mat { p: m.offset(first as isize * m_row), row: m_row, col: 1 };
            let b = Mat { p: x.cast_const(), row: x_row, col: 1 };
            dot::dot::<S>(rows, cols, first, a, b, Mat { p: target, row: x_row, col: 1 }, true);
        }
        for i in first..first + rows {
            for c in first..i {
                add_row::<S>(cols, *m.offset(i as isize * m_row + c as isize), x.offset(c as isize * x_row), x.offset(i as isize * x_row));
            }
        }
        first += rows;
    }
}

/// `y += f x`.
#[inline(always)]
unsafe fn add_row<S: Simd>(cols: usize, f: f32, x: *const f32, y: *mut f32) {
    let by = S::splat(f);
    let mut i = 0;
    while i + S::W <= cols {
        S::store(y.add(i), S::fma(S::load(x.add(i)), by, S::load(y.add(i))));
        i += S::W;
    }
    if i < cols {
        let some = S::first(cols - i);
        S::store_first(y.add(i), some, S::fma(S::load_first(x.add(i), some), by, S::load_first(y.add(i), some)));
    }
}
