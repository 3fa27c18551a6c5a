//! Every function of every level this machine can run, against naive loops in f64.

mod convert;
mod math;
mod pointwise;
mod products;
mod rows;

use super::{Level, Table, table_for};

/// Tables of all levels this CPU can run; the portable one always.
pub(super) fn tables() -> Vec<&'static Table> {
    Level::ALL.into_iter().filter_map(table_for).collect()
}

/// Repeatable numbers (xorshift).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }
    /// In (-1, 1).
    pub(super) fn unit(&mut self) -> f32 {
        ((self.next() >> 40) as f32 / 8_388_608.0) - 1.0
    }
    pub(super) fn units(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }
}

/// Distance of `got` from `want` in steps of f32 at `want`; 0 when both are NaN, infinite when only one is.
pub(super) fn ulps(got: f32, want: f64) -> f64 {
    let near = want as f32;
    if got.is_nan() || near.is_nan() {
        return if got.is_nan() && near.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if got == near {
        return 0.0;
    }
    if got.is_infinite() {
        // Overflow is right within rounding of the largest finite value.
        return if want.abs() > f64::from(f32::MAX) * (1.0 - 1e-7) && want.signum() == f64::from(got).signum() {
            1.0
        } else {
            f64::INFINITY
        };
    }
    let size = near.abs().clamp(f32::MIN_POSITIVE, f32::MAX);
    let step = f64::from(f32::from_bits(size.to_bits())) - f64::from(f32::from_bits(size.to_bits() - 1));
    let step = if near.abs() < f32::MIN_POSITIVE { f64::from(f32::from_bits(1)) } else { step };
    (f64::from(got) - want).abs() / step
}

#[test]
fn the_fastest_level_is_chosen() {
    let best = tables().into_iter().map(|t| t.level).max();
    assert_eq!(Some(super::table().level), best);
}

#[test]
fn ulps_counts_steps() {
    assert_eq!(ulps(1.0, 1.0), 0.0);
    assert!((ulps(f32::from_bits(1.5f32.to_bits() + 3), 1.5) - 3.0).abs() < 1e-6);
    assert!(ulps(f32::NAN, 1.0).is_infinite());
    assert!(ulps(f32::INFINITY, 1.0).is_infinite());
}
