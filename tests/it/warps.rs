//! Kernels for asynchronous matrix units, run by the interpreter of kernel IR, against the meaning of the program. The interpreter finds
//! views and products that are used at the wrong time.

use attnc_compiler::interp::{Array, Data};
use attnc_tests::device::{example_inputs, example_scalars, lowered, run_on};
use attnc_tests::graph_of;
use attnc_tests::simulated::Simulated;

/// As a buffer of bf16 holds it.
fn rounded(array: &Array) -> Array {
    let data = match &array.data {
        Data::Real(x) => Data::Real(x.iter().map(|x| half::bf16::from_f64(*x).to_f64()).collect()),
        other => other.clone(),
    };
    Array { shape: array.shape.clone(), data }
}

/// The largest difference, when matrix units took the hot loop.
fn check(source: &str, extents: &[(&str, usize)], device: &Simulated) -> f64 {
    let graph = graph_of(source).unwrap();
    let inputs = example_inputs(&graph, extents, 7).iter().map(|(n, a)| (n.clone(), rounded(a))).collect();
    let scalars = example_scalars(&graph);
    let program = lowered(device, &graph, &inputs, &scalars).unwrap();
    assert!(program.kernels.iter().any(|k| k.warps.is_some()), "{:?}\n{source}", program.plan.remarks);
    let want = attnc_compiler::interp::run(&graph, &inputs, &scalars).unwrap();
    let got = run_on(device, &graph, &inputs, &scalars).unwrap();
    want.iter().map(|(name, a)| attnc_tests::cpu::difference(a, &got[name])).fold(0.0, f64::max)
}

const CAUSAL: &str = "kernel f(q: [b,h,t,d], k: [b,g,s,d], v: [b,g,s,e], scale: real = D^-0.5) -> (o: [b,h,t,e], l: [b,h,t]) {
    let x = scale * sum[d] q * k[g = h * G div H] where s <= t + S - T
    o = sum[s] softmax[s](x) * v[g = h * G div H]
    l = logsumexp[s](x)
}";

#[test]
fn a_running_maximum_with_masks_ragged_ends_and_shared_heads() {
    for (math, t, s, d, e) in [(1, 70, 70, 16, 24), (2, 33, 90, 24, 16), (1, 5, 1, 8, 8), (2, 130, 150, 72, 8)] {
        let worst = check(CAUSAL, &[("b", 1), ("h", 2), ("g", 1), ("t", t), ("s", s), ("d", d), ("e", e)], &Simulated { math, keys: 32 });
        assert!(worst < 0.03, "t {t} s {s} d {d}: {worst}");
    }
}

#[test]
fn rows_without_any_key_and_no_keys_at_all() {
    for (t, s) in [(70, 20), (9, 0)] {
        let worst = check(CAUSAL, &[("b", 1), ("h", 1), ("g", 1), ("t", t), ("s", s), ("d", 16), ("e", 16)], &Simulated { math: 1, keys: 16 });
        assert!(worst < 0.03, "t {t} s {s}: {worst}");
    }
}

#[test]
fn score_programs_captured_tensors_and_plain_sums() {
    let device = Simulated { math: 1, keys: 16 };
    let extents = [("h", 2), ("t", 40), ("s", 40), ("d", 16), ("e", 16)];
    let programs = [
        "kernel f(q: [h,t,d], k: [h,s,d], v: [h,s,e], bias: [h,t,s], slope: [h]) -> (o: [h,t,e]) {
            let x = 3 * tanh((sum[d] q * k) / 3) + bias - slope * (t - s)
            o = sum[s] softmax[s](x) * v
        }",
        "kernel f(q: [h,t,d], k: [h,s,d], v: [h,s,e], gate: [h,s]) -> (o: [h,t,e]) {
            o = (sum[s] max(sum[d] q * k, 0) * gate * v where s <= t) / (t + 1)
        }",
        "kernel f(q: [h,t,d], k: [h,s,d], v: [h,s,e], w: [t]) -> (o: [h,t,e]) {
            let x = w * sum[d] q * k where (t - s) mod 3 == 0
            o = sum[s] softmax[s](x) * v
        }",
    ];
    for source in programs {
        let worst = check(source, &extents, &device);
        assert!(worst < 0.03, "{worst}: {source}");
    }
}
