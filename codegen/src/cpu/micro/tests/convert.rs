//! 16-bit formats: all values, and every rounding boundary between them.

use super::super::{Half, Table};
use super::tables;

const FORMATS: [Half; 2] = [Half::Bf16, Half::F16];

fn widen(t: &Table, format: Half, x: &[u16]) -> Vec<f32> {
    let mut y = vec![0.0f32; x.len()];
    // SAFETY: one row of x.len() elements.
    unsafe { (t.widen_rows)(format.code(), 1, x.len() as i64, x.as_ptr(), 0, y.as_mut_ptr(), 0) };
    y
}

fn narrow(t: &Table, format: Half, x: &[f32]) -> Vec<u16> {
    let mut y = vec![0u16; x.len()];
    // SAFETY: one row of x.len() elements.
    unsafe { (t.narrow_rows)(format.code(), 1, x.len() as i64, x.as_ptr(), 0, y.as_mut_ptr(), 0) };
    y
}

/// Value by the definition of the format.
fn value(format: Half, bits: u16) -> f64 {
    let (mantissa_bits, bias) = match format {
        Half::Bf16 => (7, 127),
        Half::F16 => (10, 15),
    };
    let sign = if bits & 0x8000 != 0 { -1.0 } else { 1.0 };
    let mantissa = f64::from(bits & ((1 << mantissa_bits) - 1)) / f64::from(1 << mantissa_bits);
    let field = i32::from((bits & 0x7fff) >> mantissa_bits);
    if field == 2 * bias + 1 {
        return if mantissa == 0.0 { sign * f64::INFINITY } else { f64::NAN };
    }
    sign * if field == 0 { mantissa * 2.0f64.powi(1 - bias) } else { (1.0 + mantissa) * 2.0f64.powi(field - bias) }
}

#[test]
fn every_value_widens_exactly_and_comes_back() {
    // An odd count, so that both the vector and the single path run.
    let all: Vec<u16> = (0..=u16::MAX).chain(0..7).collect();
    for t in tables() {
        for format in FORMATS {
            let wide = widen(t, format, &all);
            let back = narrow(t, format, &wide);
            for ((&x, y), z) in all.iter().zip(wide).zip(back) {
                let want = value(format, x);
                assert!(
                    f64::from(y) == want || (y.is_nan() && want.is_nan()),
                    "{:?} {format:?} {x:#x}: {y} is not {want}",
                    t.level
                );
                assert!(
                    z == x || (want.is_nan() && value(format, z).is_nan()),
                    "{:?} {format:?} {x:#x} came back as {z:#x}",
                    t.level
                );
            }
        }
    }
}

#[test]
fn narrowing_rounds_to_nearest_even() {
    for t in tables() {
        for (format, largest) in [(Half::Bf16, 0x7f7fu16), (Half::F16, 0x7bff)] {
            let (mut x, mut want) = (Vec::new(), Vec::new());
            for low in 0..=largest {
                // Past the largest finite value the next step would be infinity.
                let next =
                    if low == largest { 2.0 * value(format, low) - value(format, low - 1) } else { value(format, low + 1) };
                let middle = ((value(format, low) + next) / 2.0) as f32;
                let (below, above) = (f32::from_bits(middle.to_bits() - 1), f32::from_bits(middle.to_bits() + 1));
                for sign in [0u16, 0x8000] {
                    let signed = |v: f32| if sign == 0 { v } else { -v };
                    x.extend([signed(below), signed(middle), signed(above)]);
                    want.extend([sign | low, sign | (low + (low & 1)), sign | (low + 1)]);
                }
            }
            for ((x, got), want) in x.iter().zip(narrow(t, format, &x)).zip(want) {
                assert_eq!(got, want, "{:?} {format:?} {x:e}", t.level);
            }
        }
    }
}

#[test]
fn rows_keep_their_strides() {
    for t in tables() {
        let x: Vec<u16> = (0..60).map(|i| 0x3c00 + i).collect();
        let mut y = vec![-1.0f32; 3 * 23];
        // SAFETY: 3 rows of 18, 20 and 23 apart.
        unsafe { (t.widen_rows)(Half::F16.code(), 3, 18, x.as_ptr(), 20, y.as_mut_ptr(), 23) };
        let mut z = vec![0u16; 60];
        // SAFETY: as above.
        unsafe { (t.narrow_rows)(Half::F16.code(), 3, 18, y.as_ptr(), 23, z.as_mut_ptr(), 20) };
        for i in 0..60 {
            assert_eq!(z[i], if i % 20 < 18 { x[i] } else { 0 });
        }
        assert!(y.iter().enumerate().all(|(i, v)| (*v == -1.0) == (i % 23 >= 18)));
    }
}
