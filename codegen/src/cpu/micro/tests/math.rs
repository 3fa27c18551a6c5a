//! Scalar functions: at most 2 ulp over samples of all bit patterns, and the corner cases of C.

use super::super::{ScalarFn, Unary};
use super::{tables, ulps};

/// erf in f64: Taylor's series, and 1 where f32 cannot tell the difference.
fn erf(x: f64) -> f64 {
    if x.is_nan() || x.abs() > 4.2 {
        return if x.is_nan() { x } else { x.signum() };
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-18 * sum.abs() && n < 200.0 {
        n += 1.0;
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

fn reference(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Copy => x,
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sign if x == 0.0 || x.is_nan() => x,
        Unary::Sign => x.signum(),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Rint => x.round_ties_even(),
        Unary::Sqrt => x.sqrt(),
        Unary::Recip => 1.0 / x,
        Unary::Exp => x.exp(),
        Unary::Exp2 => x.exp2(),
        Unary::Log => x.ln(),
        Unary::Log1p => x.ln_1p(),
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        Unary::Erf => erf(x),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Square => x * x,
        Unary::Relu if x.is_nan() => x,
        Unary::Relu => x.max(0.0),
        Unary::Rsqrt => 1.0 / x.sqrt(),
    }
}

/// Bit patterns from all over the range, dense near 0 and 1, and the special ones.
fn samples() -> Vec<f32> {
    let step = if cfg!(debug_assertions) { 131_101 } else { 8_191 };
    let mut all: Vec<f32> = (0..=u32::MAX).step_by(step).map(f32::from_bits).collect();
    all.extend((-2000..2000).map(|i| i as f32 * 0.01));
    all.extend((-2000..2000).map(|i| 1.0 + i as f32 * 1e-6));
    all.extend((0..2000).map(|i| -87.0 - i as f32 * 0.01));
    // Angles: all sizes that are reduced exactly, and close to multiples of pi / 2.
    all.extend((0..2000).map(|i| i as f32 * 49.9 - 3.0));
    all.extend((0..2000).map(|i| (f64::from(i * 31) * std::f64::consts::FRAC_PI_2) as f32));
    all.extend((0..400).map(|i| 88.0 + i as f32 * 0.01));
    all.extend([
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        1e-45,
        -1e-45,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        -1.0,
    ]);
    all
}

#[test]
fn functions_are_within_2_ulp_everywhere() {
    let x = samples();
    for t in tables() {
        for &op in Unary::ALL {
            let mut y = vec![0.0f32; x.len()];
            // SAFETY: both have the same length.
            unsafe { (t.unary)(op.code(), x.len() as i64, x.as_ptr(), y.as_mut_ptr()) };
            let mut worst = (0.0, 0.0);
            for (x, y) in x.iter().zip(&y) {
                let off = ulps(*y, reference(op, f64::from(*x)));
                if off > worst.0 {
                    worst = (off, *x);
                }
            }
            println!("{:?} {op:?}: {:.2} ulp at {:e}", t.level, worst.0, worst.1);
            assert!(worst.0 <= 2.0, "{:?} {op:?}: {} ulp at {:e}", t.level, worst.0, worst.1);
        }
    }
}

#[test]
fn levels_agree_to_the_last_bit_but_one() {
    let x = samples();
    let all = tables();
    for &op in Unary::ALL {
        let run = |t: &super::super::Table| {
            let mut y = vec![0.0f32; x.len()];
            // SAFETY: both have the same length.
            unsafe { (t.unary)(op.code(), x.len() as i64, x.as_ptr(), y.as_mut_ptr()) };
            y
        };
        let first = run(all[0]);
        for t in &all[1..] {
            for (i, (a, b)) in first.iter().zip(run(t)).enumerate() {
                assert!(
                    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) || ulps(*a, f64::from(b)) <= 1.0,
                    "{:?} {op:?} at {:e}: {a} {b}",
                    t.level,
                    x[i]
                );
            }
        }
    }
}

#[test]
fn corner_cases() {
    for t in tables() {
        // SAFETY: plain functions of one number.
        let at = |f: ScalarFn, x: f32| unsafe { f(x) };
        assert_eq!(at(t.exp1, f32::NEG_INFINITY), 0.0);
        assert_eq!(at(t.exp1, f32::INFINITY), f32::INFINITY);
        assert_eq!(at(t.exp1, 0.0), 1.0);
        assert!(at(t.exp1, f32::NAN).is_nan());
        assert!(at(t.exp1, -103.0) > 0.0, "subnormal results are not flushed");
        assert_eq!(at(t.exp2_1, -149.0), f32::from_bits(1));
        assert_eq!(at(t.exp2_1, 127.0), 2.0f32.powi(127));
        assert_eq!(at(t.log1, 0.0), f32::NEG_INFINITY);
        assert_eq!(at(t.log1, 1.0), 0.0);
        assert!(at(t.log1, -1.0).is_nan());
        assert_eq!(at(t.log1, f32::INFINITY), f32::INFINITY);
        assert_eq!(at(t.log1p1, -1.0), f32::NEG_INFINITY);
        assert_eq!(at(t.tanh1, f32::INFINITY), 1.0);
        assert_eq!(at(t.tanh1, -0.0).to_bits(), (-0.0f32).to_bits());
        assert_eq!(at(t.sigmoid1, f32::NEG_INFINITY), 0.0);
        assert_eq!(at(t.softplus1, f32::INFINITY), f32::INFINITY);
        assert_eq!(at(t.erf1, f32::INFINITY), 1.0);
        assert_eq!(at(t.sin1, 0.0), 0.0);
        assert_eq!(at(t.cos1, 0.0), 1.0);
        // SAFETY: as above.
        assert_eq!(unsafe { (t.pow1)(2.0, 10.0) }, 1024.0);
    }
}

#[test]
fn array_entries_are_the_unary_operations() {
    let x: Vec<f32> = (0..37).map(|i| i as f32 * 0.3 - 2.0).collect();
    for t in tables() {
        for (f, op) in
            [(t.exp, Unary::Exp), (t.exp2, Unary::Exp2), (t.log, Unary::Log), (t.tanh, Unary::Tanh), (t.sigmoid, Unary::Sigmoid)]
        {
            let (mut a, mut b) = (vec![0.0f32; 37], vec![0.0f32; 37]);
            // SAFETY: 37 elements each.
            unsafe {
                f(37, x.as_ptr(), a.as_mut_ptr());
                (t.unary)(op.code(), 37, x.as_ptr(), b.as_mut_ptr());
            }
            assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}
