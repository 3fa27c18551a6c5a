//! The CPU's "matrix instructions": a table of functions that generated code calls through pointers, chosen once by CPU level.
//!
//! Cranelift stops at 128-bit vectors; a tile product, a row-wise exponential or a pointwise sweep written here uses what the CPU
//! has (AVX-512, AVX2 and FMA, NEON). A call costs about 2 ns. Nothing here knows which program it serves.
//!
//! Conventions of every function in [`Table`]: `extern "C"`; sizes, strides and codes are `i64`; strides count elements; data is
//! `f32`, masks are `u8` (0 is false). A size of 0 or below does nothing. Results are the same on every run; levels may differ in
//! the last bits of sums. Functions keep buffers for packed panels and converted operands per thread.
//!
//! Safety contract, the same for every function: each pointer is valid for all elements that its sizes and strides reach, written
//! ranges overlap no read range (except where an in-place form is mentioned), and the CPU supports the level, which `table` checks.
#![allow(unsafe_code)]
// Every function below the table is unsafe for the one contract above; blocks inside them would only repeat it.
#![allow(unsafe_op_in_unsafe_fn)]
// Register tiles are arrays indexed by constants; iterators over them hide the shape and cost speed in debug builds.
#![allow(clippy::needless_range_loop, clippy::missing_safety_doc)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod bf16;
mod convert;
mod dot;
mod lanes;
mod math;
pub mod order;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod portable;
mod rows;
mod solve;
mod simd;
#[cfg(test)]
mod tests;

pub use convert::{Half, Operands};
pub use lanes::{Binary, Compare, Unary};

use dot::Mat;
use lanes::Operand;
use simd::Simd;
use std::sync::OnceLock;

/// An instruction set with its own table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust.
    Portable,
    /// AArch64 with NEON.
    Neon,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// The same with AVX512-BF16.
    Avx512Bf16,
}

impl Level {
    /// Slowest first.
    pub const ALL: [Level; 5] = [Level::Portable, Level::Neon, Level::Avx2, Level::Avx512, Level::Avx512Bf16];

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Neon => "neon",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Avx512Bf16 => "avx512_bf16",
        }
    }
}

/// `(m, n, k, a, a_m, a_k, b, b_k, b_n, c, c_m, c_n, accumulate)`; see [`Table::dot`].
pub type DotFn = unsafe extern "C" fn(i64, i64, i64, *const f32, i64, i64, *const f32, i64, i64, *mut f32, i64, i64, i64);
/// As [`DotFn`], with bf16 operands.
pub type DotBf16Fn = unsafe extern "C" fn(i64, i64, i64, *const u16, i64, i64, *const u16, i64, i64, *mut f32, i64, i64, i64);
/// As [`DotFn`], after a code from [`Operands`]; `a` and `b` point to what it says.
pub type DotMixedFn = unsafe extern "C" fn(i64, i64, i64, i64, *const u8, i64, i64, *const u8, i64, i64, *mut f32, i64, i64, i64);
/// `(format, rows, cols, x, x_stride, y, y_stride)`, `format` from [`Half`].
pub type WidenRowsFn = unsafe extern "C" fn(i64, i64, i64, *const u16, i64, *mut f32, i64);
/// `(format, rows, cols, x, x_stride, y, y_stride)`, `format` from [`Half`].
pub type NarrowRowsFn = unsafe extern "C" fn(i64, i64, i64, *const f32, i64, *mut u16, i64);
/// `(rows, cols, x, x_stride, shift, y, y_stride, sums, scale)`; see [`Table::exp_rows`].
pub type ExpRowsFn = unsafe extern "C" fn(i64, i64, *const f32, i64, *const f32, *mut f32, i64, *mut f32, f32);
/// `(rows, cols, x, x_stride, out)`.
pub type ReduceRowsFn = unsafe extern "C" fn(i64, i64, *const f32, i64, *mut f32);
/// `(rows, cols, x, x_stride, f)`.
pub type ScaleRowsFn = unsafe extern "C" fn(i64, i64, *mut f32, i64, *const f32);
/// `(n, cols, m, m_row, x, x_row, reverse)`; see [`Table::solve`].
pub type SolveFn = unsafe extern "C" fn(i64, i64, *const f32, i64, *mut f32, i64, i64);
/// `(n, x, y)`.
pub type MapFn = unsafe extern "C" fn(i64, *const f32, *mut f32);
/// `(op, n, x, y)`, `op` from [`Unary`].
pub type UnaryFn = unsafe extern "C" fn(i64, i64, *const f32, *mut f32);
/// `(op, n, a, a_stride, b, b_stride, y)`, `op` from [`Binary`].
pub type BinaryFn = unsafe extern "C" fn(i64, i64, *const f32, i64, *const f32, i64, *mut f32);
/// `(n, a, a_stride, b, b_stride, c, c_stride, y)`.
pub type FmaFn = unsafe extern "C" fn(i64, *const f32, i64, *const f32, i64, *const f32, i64, *mut f32);
/// `(op, n, a, a_stride, b, b_stride, y)`, `op` from [`Compare`].
pub type CompareFn = unsafe extern "C" fn(i64, i64, *const f32, i64, *const f32, i64, *mut u8);
/// `(n, mask, a, a_stride, b, b_stride, y)`.
pub type SelectFn = unsafe extern "C" fn(i64, *const u8, *const f32, i64, *const f32, i64, *mut f32);
/// One element.
pub type ScalarFn = unsafe extern "C" fn(f32) -> f32;

/// The functions of one level. Generated code reads the pointers at the offsets of `#[repr(C)]` ([`std::mem::offset_of`]).
#[repr(C)]
pub struct Table {
    /// `c[m, n] = a[m, k] b[k, n]`, plus the old `c` when `accumulate` is not 0. Any strides, zero and negative ones included (not
    /// for `c`). Fast when `c_n` or `c_m` is 1; `b` with `b_k = 1` is transposed into a buffer once per call.
    pub dot: DotFn,
    /// `y[r, :] = exp(scale * (x[r, :] - shift[r]))` and `sums[r] += sum(y[r, :])`. `x = -inf` gives 0, `shift = -inf` counts as 0,
    /// null `shift` is all 0, null `sums` are not wanted; `y` may be `x`.
    pub exp_rows: ExpRowsFn,
    /// `out[r] = max(out[r], max(x[r, :]))`; NaN when any of them is NaN.
    pub max_rows: ReduceRowsFn,
    /// `out[r] += sum(x[r, :])`.
    pub sum_rows: ReduceRowsFn,
    /// `x[r, :] *= f[r]`.
    pub scale_rows: ScaleRowsFn,
    /// `x[i, :] += sum over c < i of m[i, c] x[c, :]`, row after row in place; from the last row over c > i when `reverse` is not 0.
    /// What else `m` holds is not read as a factor.
    pub solve: SolveFn,
    /// `y[i] = op(x[i])`, in place allowed; at most 2 ulp from the true value. An unknown `op` gives NaN.
    pub unary: UnaryFn,
    /// `y[i] = op(a[i], b[i])`, operands with stride 0 (a scalar), 1 or any other; `y` may be an operand of stride 1.
    pub binary: BinaryFn,
    /// `y[i] = a[i] * b[i] + c[i]`, strides as in `binary`.
    pub fma: FmaFn,
    /// `y[i] = op(a[i], b[i])` as a byte, 0 or 1.
    pub compare: CompareFn,
    /// `y[i] = mask[i] ? a[i] : b[i]`.
    pub select: SelectFn,
    /// `y[i] = exp(x[i])`, the same as `unary` with its code; likewise the next four.
    pub exp: MapFn,
    pub exp2: MapFn,
    pub log: MapFn,
    pub tanh: MapFn,
    pub sigmoid: MapFn,
    /// One element, the same bits as the array form; likewise the next eight.
    pub exp1: ScalarFn,
    pub exp2_1: ScalarFn,
    pub log1: ScalarFn,
    pub log1p1: ScalarFn,
    pub tanh1: ScalarFn,
    pub sigmoid1: ScalarFn,
    pub softplus1: ScalarFn,
    pub erf1: ScalarFn,
    pub sin1: ScalarFn,
    pub cos1: ScalarFn,
    /// `a` to the power `b`.
    pub pow1: unsafe extern "C" fn(f32, f32) -> f32,
    /// As `dot` with `a` and `b` in bf16 and `c` in f32; sums are f32. With AVX512-BF16 twice as fast as `dot` (subnormal operands
    /// then count as 0), elsewhere somewhat slower.
    pub dot_bf16: DotBf16Fn,
    /// As `dot` with operands in the formats that the code says, by `dot_bf16` where that is fast and by widening elsewhere.
    pub dot_mixed: DotMixedFn,
    /// `y[r, :] = x[r, :]` from a 16-bit format to f32, exactly. An unknown format gives NaN.
    pub widen_rows: WidenRowsFn,
    /// `y[r, :] = x[r, :]` from f32 to a 16-bit format, to nearest even. An unknown format gives NaN.
    pub narrow_rows: NarrowRowsFn,
    /// Orders the `n` elements `key[i * key_step]`, those with `mask[i * mask_step] != 0` taking part (all when `mask` is null), and
    /// stores to `out[j * out_step]` what `kind` says ([`order::Kind`]; types from [`order::Cell`]).
    pub order: order::OrderFn,
    /// Which level this is.
    pub level: Level,
}

/// Sizes come from generated code as i64; a negative one is taken as 0.
#[inline(always)]
fn size(n: i64) -> usize {
    n.max(0) as usize
}

macro_rules! map_fn {
    ($name:ident, $op:ident, { $($feature:tt)* }) => {
        $($feature)*
        unsafe extern "C" fn $name(n: i64, x: *const f32, y: *mut f32) {
            lanes::unary::<S>(Unary::$op.code(), size(n), x, y)
        }
    };
}

macro_rules! scalar_fn {
    ($name:ident, $of:ident, { $($feature:tt)* }) => {
        $($feature)*
        unsafe extern "C" fn $name(x: f32) -> f32 {
            let mut lanes = [0.0f32; 16];
            <S as Simd>::store(lanes.as_mut_ptr(), math::$of::<S>(<S as Simd>::splat(x)));
            lanes[0]
        }
    };
}

/// Instantiates the generic code for one level, inside functions that carry the level's features.
macro_rules! level {
    ($module:ident, $simd:ty, $level:expr, { $($feature:tt)* }) => {
        mod $module {
            use super::*;
            type S = $simd;

            #[allow(clippy::too_many_arguments)]
            $($feature)*
            unsafe extern "C" fn dot(
                m: i64, n: i64, k: i64,
                a: *const f32, a_m: i64, a_k: i64,
                b: *const f32, b_k: i64, b_n: i64,
                c: *mut f32, c_m: i64, c_n: i64,
                accumulate: i64,
            ) {
                let a = Mat { p: a, row: a_m as isize, col: a_k as isize };
                let b = Mat { p: b, row: b_k as isize, col: b_n as isize };
                let c = Mat { p: c, row: c_m as isize, col: c_n as isize };
                dot::dot::<S>(size(m), size(n), size(k), a, b, c, accumulate != 0)
            }
            #[allow(clippy::too_many_arguments)]
            $($feature)*
            unsafe extern "C" fn exp_rows(
                rows: i64, cols: i64, x: *const f32, x_stride: i64, shift: *const f32, y: *mut f32, y_stride: i64, sums: *mut f32, scale: f32,
            ) {
                rows::exp_rows::<S>(size(rows), size(cols), x, x_stride as isize, shift, y, y_stride as isize, sums, scale)
            }
            $($feature)*
            unsafe extern "C" fn max_rows(rows: i64, cols: i64, x: *const f32, x_stride: i64, out: *mut f32) {
                rows::max_rows::<S>(size(rows), size(cols), x, x_stride as isize, out)
            }
            $($feature)*
            unsafe extern "C" fn sum_rows(rows: i64, cols: i64, x: *const f32, x_stride: i64, out: *mut f32) {
                rows::sum_rows::<S>(size(rows), size(cols), x, x_stride as isize, out)
            }
            $($feature)*
            unsafe extern "C" fn scale_rows(rows: i64, cols: i64, x: *mut f32, x_stride: i64, f: *const f32) {
                rows::scale_rows::<S>(size(rows), size(cols), x, x_stride as isize, f)
            }
            $($feature)*
            unsafe extern "C" fn solve(n: i64, cols: i64, m: *const f32, m_row: i64, x: *mut f32, x_row: i64, reverse: i64) {
                solve::solve::<S>(size(n), size(cols), m, m_row as isize, x, x_row as isize, reverse != 0)
            }
            $($feature)*
            unsafe extern "C" fn unary(op: i64, n: i64, x: *const f32, y: *mut f32) {
                lanes::unary::<S>(op, size(n), x, y)
            }
            $($feature)*
            unsafe extern "C" fn binary(op: i64, n: i64, a: *const f32, a_stride: i64, b: *const f32, b_stride: i64, y: *mut f32) {
                lanes::binary::<S>(op, size(n), operand(a, a_stride), operand(b, b_stride), y)
            }
            $($feature)*
            unsafe extern "C" fn fma(
                n: i64, a: *const f32, a_stride: i64, b: *const f32, b_stride: i64, c: *const f32, c_stride: i64, y: *mut f32,
            ) {
                lanes::fma::<S>(size(n), operand(a, a_stride), operand(b, b_stride), operand(c, c_stride), y)
            }
            $($feature)*
            unsafe extern "C" fn compare(op: i64, n: i64, a: *const f32, a_stride: i64, b: *const f32, b_stride: i64, y: *mut u8) {
                lanes::compare::<S>(op, size(n), operand(a, a_stride), operand(b, b_stride), y)
            }
            $($feature)*
            unsafe extern "C" fn select(
                n: i64, mask: *const u8, a: *const f32, a_stride: i64, b: *const f32, b_stride: i64, y: *mut f32,
            ) {
                lanes::select::<S>(size(n), mask, operand(a, a_stride), operand(b, b_stride), y)
            }

            #[allow(clippy::too_many_arguments)]
            $($feature)*
            unsafe extern "C" fn dot_bf16(
                m: i64, n: i64, k: i64,
                a: *const u16, a_m: i64, a_k: i64,
                b: *const u16, b_k: i64, b_n: i64,
                c: *mut f32, c_m: i64, c_n: i64,
                accumulate: i64,
            ) {
                let bf16 = Operands { a: Some(Half::Bf16), b: Some(Half::Bf16), narrow: false };
                dot_mixed(bf16.code(), m, n, k, a.cast(), a_m, a_k, b.cast(), b_k, b_n, c, c_m, c_n, accumulate)
            }
            #[allow(clippy::too_many_arguments)]
            $($feature)*
            pub(super) unsafe extern "C" fn dot_mixed(
                operands: i64,
                m: i64, n: i64, k: i64,
                a: *const u8, a_m: i64, a_k: i64,
                b: *const u8, b_k: i64, b_n: i64,
                c: *mut f32, c_m: i64, c_n: i64,
                accumulate: i64,
            ) {
                let a = Mat { p: a, row: a_m as isize, col: a_k as isize };
                let b = Mat { p: b, row: b_k as isize, col: b_n as isize };
                let c = Mat { p: c, row: c_m as isize, col: c_n as isize };
                convert::dot_mixed::<S>(dot, Operands::from_code(operands), size(m), size(n), size(k), a, b, c, accumulate != 0)
            }
            $($feature)*
            unsafe extern "C" fn widen_rows(format: i64, rows: i64, cols: i64, x: *const u16, x_stride: i64, y: *mut f32, y_stride: i64) {
                convert::widen_rows::<S>(format, size(rows), size(cols), x, x_stride as isize, y, y_stride as isize)
            }
            $($feature)*
            unsafe extern "C" fn narrow_rows(format: i64, rows: i64, cols: i64, x: *const f32, x_stride: i64, y: *mut u16, y_stride: i64) {
                convert::narrow_rows::<S>(format, size(rows), size(cols), x, x_stride as isize, y, y_stride as isize)
            }
            map_fn!(exp, Exp, { $($feature)* });
            map_fn!(exp2, Exp2, { $($feature)* });
            map_fn!(log, Log, { $($feature)* });
            map_fn!(tanh, Tanh, { $($feature)* });
            map_fn!(sigmoid, Sigmoid, { $($feature)* });
            scalar_fn!(exp1, exp, { $($feature)* });
            scalar_fn!(exp2_1, exp2, { $($feature)* });
            scalar_fn!(log1, log, { $($feature)* });
            scalar_fn!(log1p1, log1p, { $($feature)* });
            scalar_fn!(tanh1, tanh, { $($feature)* });
            scalar_fn!(sigmoid1, sigmoid, { $($feature)* });
            scalar_fn!(softplus1, softplus, { $($feature)* });
            scalar_fn!(erf1, erf, { $($feature)* });
            scalar_fn!(sin1, sin, { $($feature)* });
            scalar_fn!(cos1, cos, { $($feature)* });

            pub(super) const TABLE: Table = Table {
                dot, exp_rows, max_rows, sum_rows, scale_rows, solve, unary, binary, fma, compare, select, exp, exp2, log, tanh, sigmoid,
                exp1, exp2_1, log1, log1p1, tanh1, sigmoid1, softplus1, erf1, sin1, cos1, pow1,
                dot_bf16, dot_mixed, widen_rows, narrow_rows, order: order::order, level: $level,
            };
        }
    };
}

unsafe extern "C" fn pow1(a: f32, b: f32) -> f32 {
    f64::from(a).powf(f64::from(b)) as f32
}

#[inline(always)]
fn operand(p: *const f32, stride: i64) -> Operand {
    Operand { p, stride: stride as isize }
}

level!(portable_table, portable::Portable, Level::Portable, {});
#[cfg(target_arch = "aarch64")]
level!(neon_table, neon::Neon, Level::Neon, { #[target_feature(enable = "neon")] });
#[cfg(target_arch = "x86_64")]
level!(avx2_table, avx2::Avx2, Level::Avx2, { #[target_feature(enable = "avx2,fma,f16c")] });
#[cfg(target_arch = "x86_64")]
level!(avx512_table, avx512::Avx512, Level::Avx512, { #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")] });

#[cfg(target_arch = "x86_64")]
const AVX512_BF16: Table = Table { dot_bf16: dot_avx512_bf16, dot_mixed: mixed_avx512_bf16, level: Level::Avx512Bf16, ..avx512_table::TABLE };

#[allow(clippy::too_many_arguments)]
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe extern "C" fn dot_avx512_bf16(
    m: i64,
    n: i64,
    k: i64,
    a: *const u16,
    a_m: i64,
    a_k: i64,
    b: *const u16,
    b_k: i64,
    b_n: i64,
    c: *mut f32,
    c_m: i64,
    c_n: i64,
    accumulate: i64,
) {
    let a = Mat { p: a, row: a_m as isize, col: a_k as isize };
    let b = Mat { p: b, row: b_k as isize, col: b_n as isize };
    let c = Mat { p: c, row: c_m as isize, col: c_n as isize };
    bf16::dot(size(m), size(n), size(k), a, b, c, accumulate != 0)
}

/// bf16 operands, and f32 ones that may be rounded, by `vdpbf16ps`.
#[allow(clippy::too_many_arguments)]
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe extern "C" fn mixed_avx512_bf16(
    operands: i64,
    m: i64,
    n: i64,
    k: i64,
    a: *const u8,
    a_m: i64,
    a_k: i64,
    b: *const u8,
    b_k: i64,
    b_n: i64,
    c: *mut f32,
    c_m: i64,
    c_n: i64,
    accumulate: i64,
) {
    let how = Operands::from_code(operands);
    let rounded = |x: Option<Half>| x == Some(Half::Bf16) || (x.is_none() && how.narrow);
    if !(rounded(how.a) && rounded(how.b)) || (how.a.is_none() && how.b.is_none()) {
        return avx512_table::dot_mixed(operands, m, n, k, a, a_m, a_k, b, b_k, b_n, c, c_m, c_n, accumulate);
    }
    let (m, n, k) = (size(m), size(n), size(k));
    let c = Mat { p: c, row: c_m as isize, col: c_n as isize };
    let (a_row, a_col, b_row, b_col) = (a_m as isize, a_k as isize, b_k as isize, b_n as isize);
    if how.a.is_some() && how.b.is_some() {
        let (a, b) = (Mat { p: a.cast(), row: a_row, col: a_col }, Mat { p: b.cast(), row: b_row, col: b_col });
        return bf16::dot(m, n, k, a, b, c, accumulate != 0);
    }
    // One of them is f32: rounded into a buffer, in the orientation it has.
    let (rows, cols) = if how.a.is_none() { (m, k) } else { (k, n) };
    let mut room = pack::Buffer::take_other((rows * cols).div_ceil(2) + 16);
    let to = room.start().cast::<u16>();
    if how.a.is_none() {
        let a = bf16::rounded(m, k, Mat { p: a.cast(), row: a_row, col: a_col }, to);
        bf16::dot(m, n, k, a, Mat { p: b.cast(), row: b_row, col: b_col }, c, accumulate != 0);
    } else {
        let b = bf16::rounded(k, n, Mat { p: b.cast(), row: b_row, col: b_col }, to);
        bf16::dot(m, n, k, Mat { p: a.cast(), row: a_row, col: a_col }, b, c, accumulate != 0);
    }
    room.give_back();
}

/// The table of `level`, or `None` when this CPU cannot run it.
pub fn table_for(level: Level) -> Option<&'static Table> {
    match level {
        Level::Portable => Some(&portable_table::TABLE),
        #[cfg(target_arch = "aarch64")]
        Level::Neon => Some(&neon_table::TABLE),
        #[cfg(not(target_arch = "aarch64"))]
        Level::Neon => None,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => has_avx2().then_some(&avx2_table::TABLE),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => has_avx512().then_some(&avx512_table::TABLE),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Bf16 => (has_avx512() && is_x86_feature_detected!("avx512bf16")).then_some(&AVX512_BF16),
        #[cfg(not(target_arch = "x86_64"))]
        Level::Avx2 | Level::Avx512 | Level::Avx512Bf16 => None,
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

/// The table of the fastest level this CPU can run; chosen at the first call.
pub fn table() -> &'static Table {
    static CHOSEN: OnceLock<&'static Table> = OnceLock::new();
    CHOSEN.get_or_init(|| Level::ALL.into_iter().rev().find_map(table_for).unwrap_or(&portable_table::TABLE))
}
