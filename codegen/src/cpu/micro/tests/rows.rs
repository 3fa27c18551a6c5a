//! Row operations: any number of columns, strides, extreme values.

use super::{Random, tables, ulps};

const COLS: [usize; 14] = [0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 64, 101];

#[test]
fn exp_rows_shifts_scales_and_sums() {
    for cols in COLS {
        for scale in [1.0f32, 0.125, 0.3, -0.5, 0.0] {
            let (rows, stride, y_stride) = ([2usize, 5, 16, 37][cols % 4], cols + 3, cols + 1);
            let mut random = Random::new(cols as u64);
            let mut x: Vec<f32> = random.units(rows * stride + 1).iter().map(|v| v * 30.0).collect();
            if cols > 2 {
                x[2] = f32::NEG_INFINITY;
            }
            x[stride..stride + cols].fill(f32::NEG_INFINITY);
            let shift: Vec<f32> = [30.0, f32::NEG_INFINITY, 0.0, -3.0, 17.25].into_iter().cycle().take(rows).collect();
            for t in tables() {
                let mut y = vec![-7.0f32; rows * y_stride + 1];
                let mut sums = vec![0.5f32; rows];
                // SAFETY: rows * stride elements exist in both.
                unsafe {
                    let (r, c) = (rows as i64, cols as i64);
                    (t.exp_rows)(
                        r,
                        c,
                        x.as_ptr(),
                        stride as i64,
                        shift.as_ptr(),
                        y.as_mut_ptr(),
                        y_stride as i64,
                        sums.as_mut_ptr(),
                        scale,
                    );
                }
                for r in 0..rows {
                    let m = if shift[r] == f32::NEG_INFINITY { 0.0 } else { shift[r] };
                    let mut sum = 0.5f64;
                    for c in 0..cols {
                        let v = x[r * stride + c];
                        let want = if v == f32::NEG_INFINITY { 0.0 } else { (f64::from(scale) * f64::from(v - m)).exp() };
                        let got = y[r * y_stride + c];
                        assert!(ulps(got, want) <= 2.0, "{:?} cols {cols} scale {scale} [{r},{c}]: {got} is not {want}", t.level);
                        sum += want;
                    }
                    assert!(
                        (f64::from(sums[r]) - sum).abs() <= 1e-6 * sum.abs(),
                        "{:?} cols {cols} sum {} is not {sum}",
                        t.level,
                        sums[r]
                    );
                    assert_eq!(y[r * y_stride + cols], -7.0, "wrote past the row");
                }
            }
        }
    }
}

#[test]
fn exp_rows_takes_null_and_works_in_place() {
    for t in tables() {
        let mut x: Vec<f32> = (0..60).map(|i| i as f32 / 10.0 - 3.0).collect();
        let old = x.clone();
        // SAFETY: 3 rows of 20.
        unsafe { (t.exp_rows)(3, 20, x.as_ptr(), 20, std::ptr::null(), x.as_mut_ptr(), 20, std::ptr::null_mut(), 1.0) };
        for (a, b) in x.iter().zip(old) {
            assert!(ulps(*a, f64::from(b).exp()) <= 2.0);
        }
    }
}

#[test]
fn exp_rows_keeps_nan_and_overflows_to_infinity() {
    for t in tables() {
        let x = [f32::NAN, 1e30, -1e30, 200.0, f32::INFINITY, f32::NEG_INFINITY, -100.0, 0.0];
        let mut y = [0.0f32; 8];
        // SAFETY: one row of 8.
        unsafe { (t.exp_rows)(1, 8, x.as_ptr(), 8, std::ptr::null(), y.as_mut_ptr(), 8, std::ptr::null_mut(), 1.0) };
        assert!(y[0].is_nan());
        assert_eq!(y[1..6], [f32::INFINITY, 0.0, f32::INFINITY, f32::INFINITY, 0.0], "{:?}", t.level);
        assert!(ulps(y[6], (-100.0f64).exp()) <= 1.0);
        assert_eq!(y[7], 1.0);
    }
}

#[test]
fn max_and_sum_of_rows() {
    for cols in COLS {
        let (rows, stride) = (4usize, cols + 2);
        let mut random = Random::new(cols as u64 + 50);
        let x = random.units(rows * stride + 1);
        for t in tables() {
            let mut best = [f32::NEG_INFINITY, 2.0, -5.0, f32::NEG_INFINITY];
            let mut sums = [0.0f32, 1.0, 2.0, 3.0];
            // SAFETY: rows * stride elements.
            unsafe {
                (t.max_rows)(rows as i64, cols as i64, x.as_ptr(), stride as i64, best.as_mut_ptr());
                (t.sum_rows)(rows as i64, cols as i64, x.as_ptr(), stride as i64, sums.as_mut_ptr());
            }
            for r in 0..rows {
                let row = &x[r * stride..r * stride + cols];
                let start = [f32::NEG_INFINITY, 2.0, -5.0, f32::NEG_INFINITY][r];
                assert_eq!(best[r], row.iter().fold(start, |a, &b| a.max(b)), "{:?} cols {cols}", t.level);
                let sum = row.iter().map(|&v| f64::from(v)).sum::<f64>() + r as f64;
                assert!((f64::from(sums[r]) - sum).abs() <= 1e-5, "{:?} cols {cols}", t.level);
            }
        }
    }
}

#[test]
fn one_nan_makes_the_maximum_nan_wherever_it_is() {
    for t in tables() {
        for cols in [1usize, 5, 16, 40, 70] {
            for at in 0..=cols {
                let mut x = vec![1.0f32; cols];
                let mut out = [0.0f32];
                if at < cols {
                    x[at] = f32::NAN;
                } else {
                    out[0] = f32::NAN;
                }
                // SAFETY: one row of `cols`.
                unsafe { (t.max_rows)(1, cols as i64, x.as_ptr(), cols as i64, out.as_mut_ptr()) };
                assert!(out[0].is_nan(), "{:?} cols {cols} at {at}", t.level);
            }
        }
    }
}

#[test]
fn scale_rows_multiplies_in_place() {
    for cols in COLS {
        let (rows, stride) = (3usize, cols + 2);
        let mut random = Random::new(9);
        let x = random.units(rows * stride + 1);
        let f = [0.5f32, f32::INFINITY, 0.1];
        for t in tables() {
            let mut y = x.clone();
            // SAFETY: rows * stride elements.
            unsafe { (t.scale_rows)(rows as i64, cols as i64, y.as_mut_ptr(), stride as i64, f.as_ptr()) };
            for i in 0..x.len() {
                let (r, c) = (i / stride, i % stride);
                let want = if r < rows && c < cols { x[i] * f[r] } else { x[i] };
                assert_eq!(y[i].to_bits(), want.to_bits());
            }
        }
    }
}

#[test]
fn solve_substitutes_row_after_row() {
    for (n, cols) in [(1usize, 5usize), (7, 1), (8, 16), (19, 33), (64, 64)] {
        let (m_row, x_row) = (n + 1, cols + 3);
        let mut random = Random::new(11);
        // What is not below (above) the diagonal must not be read as a factor.
        let noise: Vec<f32> = random.units(n * m_row).iter().map(|v| v * 0.3).collect();
        let x = random.units(n * x_row);
        for t in tables() {
            for reverse in [false, true] {
                let mut m = vec![f32::NAN; n * m_row];
                let mut want: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
                let at = |i: usize| if reverse { n - 1 - i } else { i };
                for i in 0..n {
                    for c in 0..i {
                        let (i, c) = (at(i), at(c));
                        m[i * m_row + c] = noise[i * m_row + c];
                        for j in 0..cols {
                            want[i * x_row + j] += f64::from(m[i * m_row + c]) * want[c * x_row + j];
                        }
                    }
                }
                let mut y = x.clone();
                // SAFETY: n rows of `m_row` and of `x_row` elements.
                unsafe { (t.solve)(n as i64, cols as i64, m.as_ptr(), m_row as i64, y.as_mut_ptr(), x_row as i64, i64::from(reverse)) };
                for i in 0..y.len() {
                    let scale = want[i].abs().max(1.0);
                    assert!((f64::from(y[i]) - want[i]).abs() < 2e-5 * scale, "{:?} n {n} cols {cols} {reverse} at {i}: {} {}", t.level, y[i], want[i]);
                }
            }
        }
    }
}
