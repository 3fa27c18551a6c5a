//! Rows in order: ranks, sorted positions, the largest few, members of a set.
//!
//! Keys become unsigned numbers in the same order (NaN last in both directions, -0 as 0), with the position below them, so that one
//! comparison of integers decides and equal keys keep the order of their positions. Choosing takes n steps, sorting n log n.

use super::convert::{from_bf16, from_f16};
use std::cell::RefCell;

/// `(kind, n, count, key_type, key, key_step, mask, mask_step, out_type, out, out_step)`; see [`super::Table::order`].
pub type OrderFn = unsafe extern "C" fn(i64, i64, i64, i64, *const u8, i64, *const u8, i64, i64, *mut u8, i64);

/// What is stored; the codes that generated code passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Rank,
    Sorted,
    Largest,
    Members,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Rank, Kind::Sorted, Kind::Largest, Kind::Members];

    pub fn code(self) -> i64 {
        self as i64
    }
}

/// How elements lie in memory; the codes that generated code passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    F32,
    Bf16,
    F16,
    I64,
    I32,
    U8,
}

impl Cell {
    pub const ALL: [Cell; 6] = [Cell::F32, Cell::Bf16, Cell::F16, Cell::I64, Cell::I32, Cell::U8];

    pub fn code(self) -> i64 {
        self as i64
    }

    fn bytes(self) -> isize {
        match self {
            Cell::I64 => 8,
            Cell::F32 | Cell::I32 => 4,
            Cell::Bf16 | Cell::F16 => 2,
            Cell::U8 => 1,
        }
    }
}

/// A number in the order of the reals, at most `u64::MAX - 1`; NaN is `u64::MAX`.
fn real(x: f32, down: bool) -> u64 {
    if x.is_nan() {
        return u64::MAX;
    }
    let bits = (x + 0.0).to_bits();
    let up = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(if down { !up } else { up })
}

fn int(x: i64, down: bool) -> u64 {
    let up = (x as u64) ^ (1 << 63);
    if down { !up } else { up }
}

/// The key at `p`.
///
/// # Safety
/// `p` is readable as a cell of this kind.
unsafe fn key(cell: Cell, p: *const u8, down: bool) -> u64 {
    // SAFETY: the caller's promise; reads need no alignment.
    unsafe {
        match cell {
            Cell::F32 => real(p.cast::<f32>().read_unaligned(), down),
            Cell::Bf16 => real(from_bf16(p.cast::<u16>().read_unaligned()), down),
            Cell::F16 => real(from_f16(p.cast::<u16>().read_unaligned()), down),
            Cell::I64 => int(p.cast::<i64>().read_unaligned(), down),
            Cell::I32 => int(i64::from(p.cast::<i32>().read_unaligned()), down),
            Cell::U8 => int(i64::from(p.read()), down),
        }
    }
}

thread_local! {
    /// (key, position), kept from row to row.
    static ROOM: RefCell<(Vec<(u64, u64)>, Vec<u64>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// See [`super::Table::order`]. Unknown codes store nothing.
///
/// # Safety
/// `key` and `mask` (unless null) are readable and `out` is writable at the elements that `n`, `count` and the steps say.
pub unsafe extern "C" fn order(
    kind: i64,
    n: i64,
    count: i64,
    key_type: i64,
    key: *const u8,
    key_step: i64,
    mask: *const u8,
    mask_step: i64,
    out_type: i64,
    out: *mut u8,
    out_step: i64,
) {
    let of = |code: i64| Cell::ALL.into_iter().find(|c| c.code() == code);
    let (Some(kind), Some(key_cell), Some(out_cell)) = (Kind::ALL.into_iter().find(|k| k.code() == kind), of(key_type), of(out_type)) else { return };
    let (n, count) = (super::size(n), super::size(count));
    ROOM.with_borrow_mut(|(present, absent)| {
        present.clear();
        absent.clear();
        let down = kind == Kind::Largest;
        for i in 0..n {
            // SAFETY: `i < n`, and the caller promises that these elements can be read.
            let (there, value) = unsafe {
                let at = key.offset(i as isize * key_step as isize * key_cell.bytes());
                match kind {
                    Kind::Members => (at.read() != 0, 0),
                    Kind::Rank | Kind::Sorted | Kind::Largest => {
                        (mask.is_null() || mask.offset(i as isize * mask_step as isize).read() != 0, self::key(key_cell, at, down))
                    }
                }
            };
            if there {
                present.push((value, i as u64));
            } else if kind == Kind::Rank {
                absent.push(i as u64);
            }
        }
        let put = |j: usize, x: u64| {
            // SAFETY: `j` is below `n` or `count`, as the kind has it, and the caller promises that these elements can be written.
            unsafe {
                let at = out.offset(j as isize * out_step as isize * out_cell.bytes());
                match out_cell {
                    Cell::I64 => at.cast::<i64>().write_unaligned(x as i64),
                    Cell::I32 => at.cast::<i32>().write_unaligned(x as i32),
                    Cell::U8 => at.write(x as u8),
                    Cell::F32 | Cell::Bf16 | Cell::F16 => {}
                }
            }
        };
        match kind {
            Kind::Rank => {
                present.sort_unstable();
                present.iter().map(|p| p.1).chain(absent.iter().copied()).enumerate().for_each(|(rank, i)| put(i as usize, rank as u64));
            }
            Kind::Largest => {
                (0..n).for_each(|i| put(i, 0));
                let chosen = if count == 0 {
                    0
                } else if count < present.len() {
                    present.select_nth_unstable(count - 1);
                    count
                } else {
                    present.len()
                };
                present[..chosen].iter().for_each(|p| put(p.1 as usize, 1));
            }
            Kind::Sorted | Kind::Members => {
                if kind == Kind::Sorted {
                    if count > 0 && count < present.len() {
                        present.select_nth_unstable(count - 1);
                        present.truncate(count);
                    }
                    present.sort_unstable();
                }
                (0..count).for_each(|j| put(j, present.get(j).map_or(0, |p| p.1)));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn largest(keys: &[f32], mask: Option<&[u8]>, count: i64) -> Vec<u8> {
        let mut out = vec![9u8; keys.len()];
        let mask = mask.map_or(std::ptr::null(), <[u8]>::as_ptr);
        // SAFETY: all arrays have as many elements as are said.
        unsafe { order(Kind::Largest.code(), keys.len() as i64, count, 0, keys.as_ptr().cast(), 1, mask, 1, Cell::U8.code(), out.as_mut_ptr(), 1) };
        out
    }

    fn ints(kind: Kind, keys: &[f32], mask: Option<&[u8]>, count: usize) -> Vec<i64> {
        let mut out = vec![-7i64; count];
        let mask = mask.map_or(std::ptr::null(), <[u8]>::as_ptr);
        // SAFETY: all arrays have as many elements as are said.
        unsafe { order(kind.code(), keys.len() as i64, count as i64, 0, keys.as_ptr().cast(), 1, mask, 1, Cell::I64.code(), out.as_mut_ptr().cast(), 1) };
        out
    }

    #[test]
    fn ties_go_to_the_lower_position_and_nan_comes_last() {
        let keys = [1.0, f32::NAN, -0.0, 0.0, f32::INFINITY, 1.0, f32::NEG_INFINITY];
        assert_eq!(largest(&keys, None, 2), [1, 0, 0, 0, 1, 0, 0]);
        assert_eq!(largest(&keys, None, 4), [1, 0, 1, 0, 1, 1, 0]);
        assert_eq!(largest(&keys, None, 6), [1, 0, 1, 1, 1, 1, 1]);
        assert_eq!(largest(&keys, None, 0), [0; 7]);
        assert_eq!(largest(&keys, None, 99), [1; 7]);
        assert_eq!(ints(Kind::Sorted, &keys, None, 8), [6, 2, 3, 0, 5, 4, 1, 0]);
        assert_eq!(ints(Kind::Sorted, &keys, None, 2), [6, 2]);
        assert_eq!(ints(Kind::Rank, &keys, None, 7), [3, 6, 1, 2, 5, 4, 0]);
    }

    #[test]
    fn absent_elements_come_last_and_are_never_chosen() {
        let (keys, mask) = ([3.0, 9.0, 1.0, 9.0, 2.0], [1, 0, 1, 0, 1]);
        assert_eq!(largest(&keys, Some(&mask), 2), [1, 0, 0, 0, 1]);
        assert_eq!(largest(&keys, Some(&mask), 5), [1, 0, 1, 0, 1]);
        assert_eq!(ints(Kind::Rank, &keys, Some(&mask), 5), [2, 3, 0, 4, 1]);
        assert_eq!(ints(Kind::Sorted, &keys, Some(&mask), 5), [2, 4, 0, 0, 0]);
        assert!(largest(&[], None, 3).is_empty());
    }

    #[test]
    fn members_of_a_strided_set_are_listed() {
        let set = [1u8, 9, 0, 9, 1, 9, 1];
        let mut out = [5i32; 4];
        // SAFETY: four elements two bytes apart, four slots.
        unsafe { order(Kind::Members.code(), 4, 4, Cell::U8.code(), set.as_ptr(), 2, std::ptr::null(), 0, Cell::I32.code(), out.as_mut_ptr().cast(), 1) };
        assert_eq!(out, [0, 2, 3, 0]);
    }
}
