//! `dot` and `dot_bf16`, over sizes on and off the tile edges and all arrangements of strides.

use super::super::convert::{from_bf16, to_bf16, to_f16};
use super::super::{Half, Operands};
use super::{Random, tables};

/// A matrix inside a larger buffer: where `[0, 0]` is, and the strides.
#[derive(Clone, Copy, Debug)]
struct Layout {
    origin: usize,
    row: i64,
    col: i64,
    len: usize,
}

/// How a `rows x cols` matrix may lie in memory.
fn layouts(rows: usize, cols: usize, random: &mut Random) -> [Layout; 5] {
    let pad = 1 + random.below(9);
    let (r, c) = (rows.max(1), cols.max(1));
    let wide = (c + pad) as i64;
    let tall = (r + pad) as i64;
    [
        Layout { origin: 3, row: wide, col: 1, len: 3 + r * (c + pad) },
        Layout { origin: 1, row: 1, col: tall, len: 1 + c * (r + pad) },
        Layout { origin: 0, row: 3 * wide, col: 3, len: 3 * r * (c + pad) },
        // Backwards in both directions.
        Layout { origin: r * (c + pad), row: -wide, col: -1, len: r * (c + pad) + 1 },
        // A whole number of pages between rows.
        Layout { origin: 0, row: 1024 * c.div_ceil(1024) as i64, col: 1, len: r * 1024 * c.div_ceil(1024) },
    ]
}

impl Layout {
    fn at(self, i: usize, j: usize) -> usize {
        (self.origin as i64 + i as i64 * self.row + j as i64 * self.col) as usize
    }
}

#[allow(clippy::too_many_arguments)]
fn check(m: usize, n: usize, k: usize, a: Layout, b: Layout, c: Layout, add: bool, seed: u64) {
    let mut random = Random::new(seed);
    // Numbers that bf16 holds exactly, so that both functions have the same answer.
    let a16: Vec<u16> = random.units(a.len).into_iter().map(to_bf16).collect();
    let b16: Vec<u16> = random.units(b.len).into_iter().map(to_bf16).collect();
    let (av, bv): (Vec<f32>, Vec<f32>) =
        (a16.iter().map(|&x| from_bf16(x)).collect(), b16.iter().map(|&x| from_bf16(x)).collect());
    // Memory outside `c`, and `c` itself when it is overwritten, holds NaN: reading or writing it shows.
    let mut start = vec![f32::NAN; c.len + 64];
    if add {
        for i in 0..m {
            for j in 0..n {
                start[c.at(i, j)] = random.unit();
            }
        }
    }
    // The same numbers as f16; those that it cannot hold exactly are tiny.
    let (af, bf): (Vec<u16>, Vec<u16>) = (av.iter().map(|&x| to_f16(x)).collect(), bv.iter().map(|&x| to_f16(x)).collect());
    let kinds = [None, Some(Half::Bf16), Some(Half::F16)];
    let mixed = kinds.iter().flat_map(|a| kinds.map(|b| Operands { a: *a, b, narrow: seed % 2 == 0 })).map(Some);
    let ways: Vec<(Option<Operands>, bool)> = [(None, false), (None, true)].into_iter().chain(mixed.map(|m| (m, false))).collect();
    for (t, (mixed, half)) in tables().into_iter().flat_map(|t| ways.iter().map(move |w| (t, *w))) {
        let mut got = start.clone();
        let (sm, sn, sk) = (m as i64, n as i64, k as i64);
        // SAFETY: the layouts keep all elements within `len` of their vectors, which outlive the call.
        unsafe {
            let to = got.as_mut_ptr().add(c.origin);
            if let Some(how) = mixed {
                let pick = |kind: Option<Half>, f: &[f32], b: &[u16], h: &[u16], at: usize| match kind {
                    None => f.as_ptr().add(at).cast::<u8>(),
                    Some(Half::Bf16) => b.as_ptr().add(at).cast(),
                    Some(Half::F16) => h.as_ptr().add(at).cast(),
                };
                let (x, y) = (pick(how.a, &av, &a16, &af, a.origin), pick(how.b, &bv, &b16, &bf, b.origin));
                (t.dot_mixed)(how.code(), sm, sn, sk, x, a.row, a.col, y, b.row, b.col, to, c.row, c.col, i64::from(add));
            } else if half {
                let (a16, b16) = (a16.as_ptr().add(a.origin), b16.as_ptr().add(b.origin));
                (t.dot_bf16)(sm, sn, sk, a16, a.row, a.col, b16, b.row, b.col, to, c.row, c.col, i64::from(add));
            } else {
                let (av, bv) = (av.as_ptr().add(a.origin), bv.as_ptr().add(b.origin));
                (t.dot)(sm, sn, sk, av, a.row, a.col, bv, b.row, b.col, to, c.row, c.col, i64::from(add));
            }
        }
        let mut expected = start.clone();
        for i in 0..m {
            for j in 0..n {
                let (mut sum, mut size) = (0.0f64, 0.0f64);
                for p in 0..k {
                    let term = f64::from(av[a.at(i, p)]) * f64::from(bv[b.at(p, j)]);
                    sum += term;
                    size += term.abs();
                }
                let at = c.at(i, j);
                if add {
                    sum += f64::from(start[at]);
                    size += f64::from(start[at]).abs();
                }
                let bound = if mixed.is_some() { 1e-6 } else { 1e-30 } + size * f64::from(f32::EPSILON) * (2.0 + (k as f64).sqrt());
                let off = (f64::from(got[at]) - sum).abs();
                assert!(
                    off <= bound,
                    "{:?} {mixed:?} {m}x{n}x{k} a {a:?} b {b:?} c {c:?} add {add}: [{i},{j}] {} is not {sum}",
                    t.level,
                    got[at]
                );
                expected[at] = got[at];
            }
        }
        for (at, (g, e)) in got.iter().zip(&expected).enumerate() {
            assert!(g.to_bits() == e.to_bits(), "{:?} bf16 {half} {m}x{n}x{k} c {c:?}: wrote outside, at {at}", t.level);
        }
    }
}

#[test]
fn any_size_in_the_usual_layouts() {
    let sizes = [0, 1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 50, 65];
    let mut seed = 0;
    for m in sizes {
        for n in sizes {
            for k in [0, 1, 7, 16, 33, 64, 130] {
                seed += 1;
                let mut random = Random::new(seed);
                let (a, b, c) = (layouts(m, k, &mut random), layouts(k, n, &mut random), layouts(m, n, &mut random));
                let (ia, ib) = (random.below(2), random.below(2));
                check(m, n, k, a[ia], b[ib], c[0], seed % 2 == 0, seed);
            }
        }
    }
}

#[test]
fn any_strides() {
    for (m, n, k) in [(1, 1, 1), (1, 40, 37), (40, 1, 37), (3, 33, 20), (33, 3, 20), (9, 18, 35), (37, 41, 19), (24, 48, 64)] {
        for case in 0..125 {
            let mut random = Random::new(case + 1000);
            let (a, b, c) = (layouts(m, k, &mut random), layouts(k, n, &mut random), layouts(m, n, &mut random));
            check(m, n, k, a[case as usize % 5], b[case as usize / 5 % 5], c[case as usize / 25], case % 2 == 1, case);
        }
    }
}

#[test]
fn sizes_beyond_one_block() {
    for (m, n, k, kind) in [
        (20, 30, 600, 0),
        (20, 30, 600, 1),
        (7, 300, 259, 1),
        (300, 40, 70, 1),
        (40, 270, 40, 4),
        (2, 5, 1030, 1),
        (270, 34, 257, 2),
    ] {
        for add in [false, true] {
            let mut random = Random::new(7);
            let (a, b, c) = (layouts(m, k, &mut random), layouts(k, n, &mut random), layouts(m, n, &mut random));
            check(m, n, k, a[0], b[kind], c[0], add, 7);
        }
    }
}

#[test]
fn a_row_may_be_used_for_all_rows() {
    let a = Layout { origin: 0, row: 0, col: 1, len: 40 };
    let b = Layout { origin: 0, row: 0, col: 1, len: 50 };
    let mut random = Random::new(3);
    let c = layouts(20, 50, &mut random)[0];
    check(20, 50, 40, a, b, c, false, 3);
}

#[test]
fn infinities_and_nans_stay_in_their_rows() {
    for t in tables() {
        let (m, n, k) = (10i64, 37i64, 20i64);
        let mut a = vec![1.0f32; (m * k) as usize];
        let b = vec![1.0f32; (k * n) as usize];
        let mut c = vec![0.0f32; (m * n) as usize];
        a[3 * k as usize + 2] = f32::NAN;
        a[5 * k as usize + 7] = f32::NEG_INFINITY;
        for (b_k, b_n) in [(n, 1), (1, k)] {
            // SAFETY: sizes and strides are those of the vectors.
            unsafe { (t.dot)(m, n, k, a.as_ptr(), k, 1, b.as_ptr(), b_k, b_n, c.as_mut_ptr(), n, 1, 0) };
            for (i, row) in c.chunks(n as usize).enumerate() {
                assert!(row.iter().all(|&x| match i {
                    3 => x.is_nan(),
                    5 => x == f32::NEG_INFINITY,
                    _ => x == 20.0,
                }));
            }
        }
    }
}
