//! What one CPU level can do with a register: the only place where the levels differ.
//!
//! Everything above (`dot`, `rows`, `lanes`, `math`) is written once over [`Simd`] and instantiated per level inside a function
//! that carries the level's `target_feature`; `#[inline(always)]` pulls the generic code into that function.

/// Register operations of one level. `V` holds `W` f32 lanes, `M` one flag per lane.
///
/// Safety, for every method: the CPU has the features of the level; pointers are valid for the lanes touched, unaligned is fine.
/// `load_first` and `store_first` touch only the lanes whose flag is set.
pub(super) trait Simd: Copy {
    type V: Copy;
    type M: Copy;
    const W: usize;
    /// Rows of the widest register tile of `dot` (8, 6 or 4): as many accumulators as registers allow.
    const MR: usize;
    /// Number of accumulators `sums` reduces best (16 or 8).
    const SUMS: usize;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// Flags of the lanes below `n`; `n >= W` sets all.
    unsafe fn first(n: usize) -> Self::M;
    /// Lanes without a flag are 0.
    unsafe fn load_first(p: *const f32, m: Self::M) -> Self::V;
    unsafe fn store_first(p: *mut f32, m: Self::M, v: Self::V);

    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a * b + c`, rounded once or twice, whichever is fast.
    unsafe fn mac(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Smaller operand; `b` when the order is undefined (either is NaN, or both are zero).
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// Larger operand; `b` when the order is undefined.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// Nearest integer, ties to even.
    unsafe fn rint(a: Self::V) -> Self::V;
    unsafe fn floor(a: Self::V) -> Self::V;
    unsafe fn ceil(a: Self::V) -> Self::V;
    unsafe fn sqrt(a: Self::V) -> Self::V;
    unsafe fn abs(a: Self::V) -> Self::V;
    unsafe fn neg(a: Self::V) -> Self::V;
    /// Magnitude of `a`, sign of `b`.
    unsafe fn copysign(a: Self::V, b: Self::V) -> Self::V;

    unsafe fn lt(a: Self::V, b: Self::V) -> Self::M;
    unsafe fn le(a: Self::V, b: Self::V) -> Self::M;
    unsafe fn eq(a: Self::V, b: Self::V) -> Self::M;
    /// Either is NaN.
    unsafe fn unordered(a: Self::V, b: Self::V) -> Self::M;
    unsafe fn or(a: Self::M, b: Self::M) -> Self::M;
    unsafe fn not(a: Self::M) -> Self::M;
    unsafe fn any(a: Self::M) -> bool;
    /// `m ? a : b`
    unsafe fn select(m: Self::M, a: Self::V, b: Self::V) -> Self::V;
    /// Flags from `n <= W` bytes, non-zero is true.
    unsafe fn load_flags(p: *const u8, n: usize) -> Self::M;
    /// Writes `n <= W` bytes, 0 or 1.
    unsafe fn store_flags(p: *mut u8, n: usize, m: Self::M);

    /// `W` elements of IEEE binary16.
    unsafe fn load_f16(p: *const u16) -> Self::V;
    /// To nearest, ties to even.
    unsafe fn store_f16(p: *mut u16, v: Self::V);

    /// Sum of all lanes.
    unsafe fn sum(v: Self::V) -> f32;
    /// Largest lane; no lane may be NaN.
    unsafe fn largest(v: Self::V) -> f32;
    /// `out[i]` = sum of the lanes of `acc[i]`, for `N` vectors.
    #[inline(always)]
    unsafe fn sums<const N: usize>(acc: *const Self::V, out: *mut f32) {
        for i in 0..N {
            *out.add(i) = Self::sum(*acc.add(i));
        }
    }

    /// `r` brought into `[-0.51, 0.51]`; a NaN becomes any number in there.
    unsafe fn clamp_fraction(r: Self::V) -> Self::V;
    /// `p * 2^n` for an integral, infinite or NaN `n` and `p` in `[0.5, 2]`; rounds once, subnormals included.
    unsafe fn scale2(p: Self::V, n: Self::V) -> Self::V;
    /// `x = m * 2^e` with `m` in `[sqrt(1/2), sqrt(2))`, for finite positive `x`, subnormals included; anything for other `x`.
    unsafe fn split(x: Self::V) -> (Self::V, Self::V);

    /// Transposes a block of `rows <= W` rows of `cols <= W` elements: `dst[c * dst_stride + r] = src[r * src_stride + c]`.
    /// Writes `cols` whole vectors; lanes from `rows` on are 0.
    unsafe fn transpose(src: *const f32, src_stride: isize, rows: usize, cols: usize, dst: *mut f32, dst_stride: usize);
}
