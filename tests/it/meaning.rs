//! What programs mean: spellings that must agree, and corners that are defined once.

use attnc_compiler::interp::{Array, Data, run};
use attnc_compiler::ops::Scalar;
use attnc_tests::cpu::difference;
use attnc_tests::graph_of;
use std::collections::BTreeMap;

/// Deterministic numbers in -2..2, none of them round.
fn numbers(shape: &[usize], salt: usize) -> Array {
    let n = shape.iter().product();
    Array::real(shape, (0..n).map(|i| ((i * 7919 + salt * 104_729) % 1009) as f64 / 252.3 - 2.0).collect())
}

fn outputs(source: &str, inputs: &[(&str, Array)], scalars: &[(&str, i64)]) -> BTreeMap<String, Array> {
    let graph = graph_of(source).unwrap_or_else(|e| panic!("{e}\n{source}"));
    let inputs = inputs.iter().map(|(n, a)| (n.to_string(), a.clone())).collect();
    let scalars = scalars.iter().map(|(n, v)| (n.to_string(), Scalar::Int(*v))).collect();
    run(&graph, &inputs, &scalars).unwrap_or_else(|e| panic!("{e}\n{source}"))
}

fn output(source: &str, inputs: &[(&str, Array)], scalars: &[(&str, i64)]) -> Array {
    outputs(source, inputs, scalars).remove("o").expect("an output o")
}

/// All bodies, each of which computes `o`, agree.
fn agree(header: &str, bodies: &[&str], inputs: &[(&str, Array)]) {
    let all: Vec<Array> = bodies.iter().map(|b| output(&format!("{header} {{\n{b}\n}}"), inputs, &[])).collect();
    assert!(all[0].data.len() > 1, "nothing to compare");
    for (body, other) in bodies.iter().zip(&all).skip(1) {
        let error = difference(&all[0], other);
        assert!(error < 1e-12, "{error:e} between\n{}\nand\n{body}", bodies[0]);
    }
}

#[test]
fn prefix_scan_and_masked_product_are_one_thing() {
    let inputs = [("q", numbers(&[2, 9, 3], 1)), ("k", numbers(&[2, 9, 3], 2)), ("v", numbers(&[2, 9, 4], 3))];
    let bodies = [
        "o = sum[d] q * sum[<= t] (k * v)",
        "scan t { state S: [d,e] = 0  S' = S + k * v  o = sum[d] q * S' }",
        "axis s: T  o = sum[s] (sum[d] q * k[t = s]) * v[t = s] where s <= t",
    ];
    agree("kernel a(q: [b,t,d], k: [b,t,d], v: [b,t,e]) -> (o: [b,t,e])", &bodies, &inputs);
}

#[test]
fn a_named_mask_is_its_text_and_nested_clauses_are_a_conjunction() {
    let inputs = [("q", numbers(&[7, 3], 1)), ("k", numbers(&[7, 3], 2))];
    let bodies = [
        "axis s: T  o = sum[s] softmax[s](sum[d] q * k[t = s] where s <= t and t - s < 3) * k[t = s]",
        "axis s: T  mask near = s <= t and t - s < 3  o = sum[s] softmax[s](sum[d] q * k[t = s] where near) * k[t = s]",
        "axis s: T  let x = (sum[d] q * k[t = s]) where s <= t  o = sum[s] softmax[s](x where t - s < 3) * k[t = s]",
    ];
    agree("kernel a(q: [t,d], k: [t,d]) -> (o: [t,d])", &bodies, &inputs);
}

#[test]
fn blocks_by_division_and_by_position_agree() {
    let bodies = [
        "axis c: ceildiv(T, 4), r: 4  o = mean[r] k[t = 4 * c + r]",
        "axis c: ceildiv(T, 4)  o = mean[t] k where t div 4 == c",
        "axis c: ceildiv(T, 4), r: 4  o = (sum[r] (k[t = 4 * c + r] ?? 0)) / count[r] (4 * c + r < T)",
    ];
    for t in [3, 8, 11] {
        agree("kernel a(k: [t,d]) -> (o: [c,d])", &bodies, &[("k", numbers(&[t, 2], t))]);
    }
}

#[test]
fn a_reverse_scan_is_a_scan_over_flipped_inputs() {
    let bodies = [
        "scan t reverse { state S = 0  S' = 0.5 * S + x  o = S' }",
        "let y = x[t = T - 1 - t]  scan t { state S = 0  S' = 0.5 * S + y  z = S' }  o = z[t = T - 1 - t]",
    ];
    agree("kernel a(x: [b,t]) -> (o: [b,t])", &bodies, &[("x", numbers(&[2, 6], 1))]);
}

#[test]
fn earlier_results_are_forward_substitution() {
    let bodies = [
        "axis u: T  scan t { o = x + sum[u] (0.25 * w[s = u] * o[t = u] where u < t) }",
        "scan t { state S: [s] = 0  let y = x + sum[s] 0.25 * w * S where s < t  S' = if s == t then y else S  o = y }",
    ];
    agree("kernel a(x: [t], w: [t,s]) -> (o: [t])", &bodies, &[("x", numbers(&[6], 1)), ("w", numbers(&[6, 6], 2))]);
}

#[test]
fn blocks_of_a_nested_scan_are_the_plain_scan() {
    let bodies = [
        "scan t { state S: [d] = 0  S' = 0.5 * S + k  o = S' }",
        "axis c: ceildiv(T, 3), r: 3
         scan c {
             state M: [d] = 0
             scan r where 3 * c + r < T { state S: [d] = M  S' = 0.5 * S + k[t = 3 * c + r]  y = S' }
             M' = S
             z = y
         }
         o = z[c = t div 3, r = t mod 3] ?? 0",
    ];
    for t in [6, 7] {
        agree("kernel a(k: [t,d]) -> (o: [t,d])", &bodies, &[("k", numbers(&[t, 2], 4))]);
    }
}

#[test]
fn two_sources_along_one_axis_are_one_normaliser() {
    let inputs = [("q", numbers(&[3, 2], 1)), ("a", numbers(&[4, 2], 2)), ("b", numbers(&[5, 2], 3))];
    let bodies = [
        "axis u: S + M  let y = a[s = u] ?? b[m = u - len(s)]  o = sum[u] softmax[u](sum[d] q * y) * y",
        "let x = sum[d] q * a   let y = sum[d] q * b
         let n = (sum[s] exp(x)) + sum[m] exp(y)
         o = ((sum[s] exp(x) * a) + sum[m] exp(y) * b) / n",
    ];
    agree("kernel k(q: [t,d], a: [s,d], b: [m,d]) -> (o: [t,d])", &bodies, &inputs);
}

#[test]
fn a_fully_masked_row_gives_zeros_and_an_lse_of_minus_infinity() {
    let source = "kernel a(x: [t,s], v: [s]) -> (o: [t], lse: [t]) {
        o = sum[s] softmax[s](x where t > s) * v
        lse = logsumexp[s](x where t > s)
    }";
    let out = outputs(source, &[("x", numbers(&[2, 3], 1)), ("v", numbers(&[3], 2))], &[]);
    let (Data::Real(o), Data::Real(lse)) = (&out["o"].data, &out["lse"].data) else { panic!("reals") };
    assert_eq!((o[0], lse[0]), (0.0, f64::NEG_INFINITY));
    assert!(o[1] != 0.0 && lse[1].is_finite());
}

#[test]
fn empty_axes_and_zero_iterations_are_legal() {
    let source = "kernel a(k: [t,d], n: int) -> (o: [d], m: [d], state: [d], z: [t,d], r: real) {
        o = sum[t] k
        m = max[t] k
        scan t { state S: [d] = 2  S' = S + k  z = S' }
        state = S
        repeat n { state R = 3  R' = R + 1 }
        r = R
    }";
    let out = outputs(source, &[("k", numbers(&[0, 2], 1))], &[("n", 0)]);
    assert_eq!(out["o"].data, Data::Real(vec![0.0; 2]));
    assert_eq!(out["m"].data, Data::Real(vec![f64::NEG_INFINITY; 2]));
    assert_eq!(out["state"].data, Data::Real(vec![2.0; 2]));
    assert_eq!(out["z"].shape, [0, 2]);
    assert_eq!(out["r"].data, Data::Real(vec![3.0]));
    let out = outputs(source, &[("k", numbers(&[1, 2], 1))], &[("n", 4)]);
    assert_eq!(out["r"].data, Data::Real(vec![7.0]));
}

#[test]
fn topk_takes_all_when_there_are_fewer_and_none_for_none() {
    let source = "kernel a(x: [t], n: int) -> (o: int [t]) { o = int(topk[t](x, n)) }";
    let x = [("x", Array::real(&[4], vec![1.0, 3.0, 3.0, f64::NEG_INFINITY]))];
    for (n, want) in [(-1, [0, 0, 0, 0]), (1, [0, 1, 0, 0]), (3, [1, 1, 1, 0]), (4, [1; 4]), (99, [1; 4])] {
        assert_eq!(output(source, &x, &[("n", n)]).data, Data::Int(want.to_vec()), "n = {n}");
    }
}

/// Results that are not there yet have no value: memory that nobody wrote (the tests poison it) does not leak into the sum.
#[test]
fn results_to_come_are_dropped_not_multiplied_by_zero() {
    let source = "kernel x(q: [t,d], g: [t]) -> (o: [t,d]) {
        axis s: T
        scan t {
            x = q + sum[s] (tanh(g[t = s]) / T * x[t = s] where s < t)
        }
        o = x
    }";
    let graph = attnc_tests::graph_of(source).expect("a program");
    let real = |shape: &[usize]| Array { shape: shape.to_vec(), data: Data::Real((0..shape.iter().product()).map(|i| (i % 7) as f64 / 4.0 - 0.5).collect()) };
    for t in [1, 2, 70] {
        let inputs = [("q".to_string(), real(&[t, 3])), ("g".to_string(), real(&[t]))].into();
        let want = attnc_compiler::interp::run(&graph, &inputs, &Default::default()).expect("results");
        let got = attnc_tests::cpu::run_cpu(&graph, &inputs, &Default::default()).expect("results");
        assert!(attnc_tests::cpu::difference(&want["o"], &got["o"]) < 1e-5, "{t} positions");
    }
}
