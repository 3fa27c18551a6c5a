//! Copies a block of the right operand of `dot` into panels, and keeps the buffer they live in.

use super::dot::In;
use super::simd::Simd;
use std::cell::RefCell;

/// One cache line, for alignment.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    /// One for panels, one for operands that are converted before they are packed.
    static KEPT: [RefCell<Vec<Line>>; 2] = const { [RefCell::new(Vec::new()), RefCell::new(Vec::new())] };
}

/// Room for packed panels, aligned to 64 bytes, kept by the thread between calls. (A value rather than a function that takes a
/// closure: the features of a CPU level do not reach into closures.)
pub(super) struct Buffer(Vec<Line>, usize);

impl Buffer {
    /// Room for `len` f32.
    pub(super) fn take(len: usize) -> Buffer {
        Buffer::of(0, len)
    }

    /// The same, beside a buffer that is in use.
    pub(super) fn take_other(len: usize) -> Buffer {
        Buffer::of(1, len)
    }

    fn of(which: usize, len: usize) -> Buffer {
        let lines = len.div_ceil(16);
        // Out of reach while the thread ends, where a call may still come: then the room is allocated for this call.
        let kept = KEPT.try_with(|kept| kept[which].try_borrow_mut().map(|mut kept| std::mem::take(&mut *kept)));
        let mut lines_kept = kept.ok().and_then(Result::ok).unwrap_or_default();
        if lines_kept.len() < lines {
            lines_kept.resize(lines, Line([0.0; 16]));
        }
        Buffer(lines_kept, which)
    }

    pub(super) fn start(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }

    /// Leaves the room for the next call.
    pub(super) fn give_back(self) {
        // An error means that the thread ends; the room is freed then.
        let _ = KEPT.try_with(|kept| kept[self.1].try_borrow_mut().map(|mut kept| *kept = self.0));
    }
}

/// Packs `b[k, n]` into panels of `2 W` columns: panel `j` starts at `to + k * j`, its rows are `2 W` apart, missing columns are 0.
#[inline(always)]
pub(super) unsafe fn pack<S: Simd>(k: usize, n: usize, b: In, to: *mut f32) {
    let nr = 2 * S::W;
    let mut j = 0;
    while j < n {
        let width = nr.min(n - j);
        let panel = to.add(k * j);
        if b.col == 1 {
            copy::<S>(k, width, b.at(0, j), b.row, panel);
        } else if b.row == 1 {
            for half in 0..2 {
                let done = half * S::W;
                if done >= width {
                    break;
                }
                let rows = S::W.min(width - done);
                let mut p = 0;
                while p < k {
                    S::transpose(b.at(p, j + done), b.col, rows, S::W.min(k - p), panel.add(p * nr + done), nr);
                    p += S::W;
                }
            }
        } else {
            let padded = width.next_multiple_of(S::W);
            for p in 0..k {
                for x in 0..padded {
                    *panel.add(p * nr + x) = if x < width { *b.at(p, j + x) } else { 0.0 };
                }
            }
        }
        j += width;
    }
}

#[inline(always)]
unsafe fn copy<S: Simd>(k: usize, width: usize, from: *const f32, stride: isize, to: *mut f32) {
    let nr = 2 * S::W;
    for p in 0..k {
        let (from, to) = (from.wrapping_offset(p as isize * stride), to.add(p * nr));
        let mut x = 0;
        while x < width {
            let v = if x + S::W <= width { S::load(from.add(x)) } else { S::load_first(from.add(x), S::first(width - x)) };
            S::store(to.add(x), v);
            x += S::W;
        }
    }
}
