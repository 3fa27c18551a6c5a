//! Pointwise operations: codes, operand strides, corner values.

use super::super::{Binary, Compare, Table, Unary};
use super::{Random, tables, ulps};

const SPECIAL: [f32; 13] =
    [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-40, f32::MAX, f32::MIN, f32::MIN_POSITIVE];

fn binary_reference(op: Binary, a: f32, b: f32) -> f64 {
    let (x, y) = (f64::from(a), f64::from(b));
    match op {
        Binary::Add => f64::from(a + b),
        Binary::Sub => f64::from(a - b),
        Binary::Mul => f64::from(a * b),
        Binary::Div => f64::from(a / b),
        Binary::Max | Binary::Min if a.is_nan() || b.is_nan() => f64::NAN,
        Binary::Max => x.max(y),
        Binary::Min => x.min(y),
        Binary::Pow => x.powf(y),
        Binary::ExpDiff if a == f32::NEG_INFINITY => 0.0,
        Binary::ExpDiff => f64::from(a - b).exp(),
        Binary::Ratio if b == 0.0 => 0.0,
        Binary::Ratio => f64::from(a / b),
    }
}

#[test]
fn binary_with_every_pair_of_strides() {
    for n in [0usize, 1, 5, 16, 19, 45] {
        for (sa, sb) in [(1usize, 1usize), (1, 0), (0, 1), (0, 0), (2, 1), (1, 3)] {
            let mut random = Random::new(n as u64);
            let a: Vec<f32> = random.units(n * sa + 1).iter().map(|v| v * 4.0).collect();
            let b: Vec<f32> = random.units(n * sb + 1).iter().map(|v| v * 4.0).collect();
            for t in tables() {
                for &op in Binary::ALL {
                    let mut y = vec![-7.0f32; n + 1];
                    // SAFETY: n * stride elements exist.
                    unsafe { (t.binary)(op.code(), n as i64, a.as_ptr(), sa as i64, b.as_ptr(), sb as i64, y.as_mut_ptr()) };
                    for i in 0..n {
                        let want = binary_reference(op, a[i * sa], b[i * sb]);
                        assert!(
                            ulps(y[i], want) <= 2.0,
                            "{:?} {op:?}({}, {}) = {} is not {want}",
                            t.level,
                            a[i * sa],
                            b[i * sb],
                            y[i]
                        );
                    }
                    assert_eq!(y[n], -7.0);
                }
            }
        }
    }
}

#[test]
fn binary_corner_values() {
    let n = SPECIAL.len();
    for t in tables() {
        for &op in Binary::ALL {
            for b in SPECIAL {
                let mut y = vec![0.0f32; n];
                // SAFETY: n elements and one.
                unsafe { (t.binary)(op.code(), n as i64, SPECIAL.as_ptr(), 1, &b, 0, y.as_mut_ptr()) };
                for (a, y) in SPECIAL.iter().zip(y) {
                    let want = binary_reference(op, *a, b);
                    assert!(ulps(y, want) <= 2.0, "{:?} {op:?}({a}, {b}) = {y} is not {want}", t.level);
                }
            }
        }
    }
}

#[test]
fn compare_and_select() {
    let flags = |t: &Table, op: Compare, a: &[f32], b: &[f32]| {
        let mut y = vec![9u8; a.len() + 1];
        // SAFETY: both have the length of `a`.
        unsafe { (t.compare)(op.code(), a.len() as i64, a.as_ptr(), 1, b.as_ptr(), 1, y.as_mut_ptr()) };
        assert_eq!(y.pop(), Some(9));
        y
    };
    for t in tables() {
        for n in [0usize, 1, 7, 8, 16, 21, 50] {
            for turn in 0..SPECIAL.len() {
                let a: Vec<f32> = (0..n).map(|i| SPECIAL[i % SPECIAL.len()]).collect();
                let b: Vec<f32> = (0..n).map(|i| SPECIAL[(i * 5 + turn) % SPECIAL.len()]).collect();
                for i in 0..n {
                    assert_eq!(flags(t, Compare::Lt, &a, &b)[i], u8::from(a[i] < b[i]));
                    assert_eq!(flags(t, Compare::Le, &a, &b)[i], u8::from(a[i] <= b[i]));
                    assert_eq!(flags(t, Compare::Eq, &a, &b)[i], u8::from(a[i] == b[i]));
                    assert_eq!(flags(t, Compare::Ne, &a, &b)[i], u8::from(a[i] != b[i]));
                }
                let mask: Vec<u8> = (0..n).map(|i| [0, 1, 200, 0, 0, 255][(i + turn) % 6]).collect();
                let mut y = vec![0.0f32; n];
                // SAFETY: all have n elements.
                unsafe { (t.select)(n as i64, mask.as_ptr(), a.as_ptr(), 1, b.as_ptr(), 1, y.as_mut_ptr()) };
                for i in 0..n {
                    assert_eq!(y[i].to_bits(), if mask[i] != 0 { a[i] } else { b[i] }.to_bits());
                }
            }
        }
    }
}

#[test]
fn fma_rounds_once() {
    let mut random = Random::new(5);
    for n in [1usize, 16, 37] {
        let (a, b, c) = (random.units(n), random.units(n), random.units(n));
        for t in tables() {
            for (sa, sb, sc) in [(1, 1, 1), (1, 0, 1), (0, 1, 0), (0, 0, 0)] {
                let mut y = vec![0.0f32; n];
                // SAFETY: n elements each.
                unsafe { (t.fma)(n as i64, a.as_ptr(), sa, b.as_ptr(), sb, c.as_ptr(), sc, y.as_mut_ptr()) };
                for (i, y) in y.iter().enumerate() {
                    let at = |v: &[f32], s: i64| f64::from(v[i * s as usize]);
                    assert!(ulps(*y, at(&a, sa) * at(&b, sb) + at(&c, sc)) <= 0.5001);
                }
            }
        }
    }
}

#[test]
fn unknown_codes_give_nan_not_a_crash() {
    for t in tables() {
        let (x, mut y, mut m) = ([1.0f32; 5], [1.0f32; 5], [7u8; 5]);
        // SAFETY: 5 elements each.
        unsafe { (t.unary)(-1, 5, x.as_ptr(), y.as_mut_ptr()) };
        assert!(y.iter().all(|v| v.is_nan()));
        // SAFETY: as above.
        unsafe { (t.binary)(99, 5, x.as_ptr(), 1, x.as_ptr(), 1, y.as_mut_ptr()) };
        assert!(y.iter().all(|v| v.is_nan()));
        // SAFETY: as above.
        unsafe { (t.compare)(99, 5, x.as_ptr(), 1, x.as_ptr(), 1, m.as_mut_ptr()) };
        assert_eq!(m, [0; 5]);
    }
}

#[test]
fn codes_are_their_own_inverse() {
    assert!(Unary::ALL.iter().all(|op| Unary::from_code(op.code()) == Some(*op)));
    assert!(Binary::ALL.iter().all(|op| Binary::from_code(op.code()) == Some(*op)));
    assert!(Compare::ALL.iter().all(|op| Compare::from_code(op.code()) == Some(*op)));
}
