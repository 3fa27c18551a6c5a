//! Cascades of reductions: one pass over the keys wherever the algebra allows it, the same values as the interpreter's.

use attnc_compiler::interp::{Array, run};
use attnc_compiler::kernel::caps::Caps;
use attnc_compiler::lower::{Options, lower_stages};
use attnc_compiler::passes::tile::TileOptions;
use attnc_compiler::tiles::{Stmt, TileKernel};
use attnc_tests::cpu::{difference, run_cpu};
use attnc_tests::graph_of;
use std::collections::BTreeMap;

const HEADER: &str = "q: [b,t,d], k: [b,s,d], v: [b,s,e], u: [b,s,e], r: [b,t,d], w: [b,s], on: int [b,t,s]";

fn program(body: &str, outs: &str) -> String {
    format!("kernel x({HEADER}) -> ({outs}) {{ let x = (sum[d] q * k) where on == 1\n {body} }}")
}

/// Loops over an axis in a kernel, and reductions that walk it element by element.
fn loops(kernel: &TileKernel, body: &[Stmt], axis: &str) -> usize {
    let is = |d: &attnc_compiler::tiles::DimId| kernel.dim(*d).name == axis;
    body.iter()
        .map(|s| match s {
            Stmt::Loop(l) => usize::from(is(&l.dim)) + loops(kernel, &l.body, axis),
            Stmt::Reduce { over, .. } => usize::from(over.iter().any(|d| is(d) && kernel.dim(*d).kind.capacity() == u32::MAX)),
            Stmt::Map { .. } | Stmt::Dot { .. } | Stmt::Store { .. } | Stmt::Order(_) | Stmt::Prefix { .. } | Stmt::Solve { .. } => 0,
        })
        .sum()
}

/// (loops over s in all kernels, remarks).
fn passes(source: &str) -> (usize, Vec<String>) {
    let graph = graph_of(source).unwrap_or_else(|e| panic!("{e}\n{source}"));
    let extents = graph.axes.iter().map(|a| ["d", "e"].contains(&a.name.as_str()).then_some(4)).collect();
    let stages = lower_stages(&graph, &Options { extents, caps: Caps::cpu(), tile: TileOptions::default() }).unwrap_or_else(|e| panic!("{e}\n{source}"));
    (stages.tiles.kernels.iter().map(|k| loops(k, &k.body, "s")).sum(), stages.tiles.plan.remarks)
}

/// Numbers around zero with some spread, none round.
fn numbers(shape: &[usize], salt: usize, scale: f64) -> Array {
    let n = shape.iter().product();
    Array::real(shape, (0..n).map(|i| (((i * 7919 + salt * 104_729) % 1009) as f64 / 252.3 - 2.0) * scale).collect())
}

fn inputs(s: usize) -> BTreeMap<String, Array> {
    let (b, t, d, e) = (2, 9, 4, 3);
    let mut on: Vec<i64> = (0..b * t * s).map(|i| i64::from((i * 31 + i / 7) % 10 < 7)).collect();
    for (row, from, to) in [(3, 0, s), (t + 5, 0, s / 2), (t + 6, s / 2, s)] {
        on[row * s + from..row * s + to].fill(0);
    }
    BTreeMap::from([
        ("q".to_string(), numbers(&[b, t, d], 1, 2.0)),
        ("k".to_string(), numbers(&[b, s, d], 2, 1.0)),
        ("v".to_string(), numbers(&[b, s, e], 3, 1.0)),
        ("u".to_string(), numbers(&[b, s, e], 4, 1.0)),
        ("r".to_string(), numbers(&[b, t, d], 5, 0.5)),
        ("w".to_string(), numbers(&[b, s], 6, 1.0)),
        ("on".to_string(), Array::int(&[b, t, s], on)),
    ])
}

/// The program takes `want` passes over s, gives a reason for each further one, and agrees with the interpreter.
fn takes(want: usize, name: &str, body: &str, outs: &str) {
    let source = program(body, outs);
    let (found, remarks) = passes(&source);
    assert_eq!(found, want, "{name}: passes over s; {remarks:?}");
    let graph = graph_of(&source).unwrap_or_else(|e| panic!("{name}: {e}"));
    for s in [37, 150] {
        let given = inputs(s);
        let given = graph.inputs.iter().map(|i| (i.name.clone(), given[&i.name].clone())).collect();
        let meant = run(&graph, &given, &BTreeMap::new()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let got = run_cpu(&graph, &given, &BTreeMap::new()).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (out, value) in &meant {
            let error = difference(value, &got[out]);
            assert!(error < 2e-5, "{name}, s = {s}: {out} differs by {error:e}");
        }
    }
}

#[test]
fn sums_under_one_normaliser_share_a_pass() {
    takes(1, "softmax", "o = sum[s] softmax[s](x) * v", "o: [b,t,e]");
    takes(1, "two values", "let p = softmax[s](x)  o = sum[s] p * v  o2 = sum[s] p * u", "o: [b,t,e], o2: [b,t,e]");
    takes(1, "sigmoid", "o = sum[s] sigmoid(x) * v", "o: [b,t,e]");
    takes(1, "softplus and l1", "let p = softplus(x)  o = sum[s] ratio(p, sum[s] abs(p)) * v", "o: [b,t,e]");
    takes(1, "linear in an earlier sum", "let c = sum[s] x  o = sum[s] (x * c) * v", "o: [b,t,e]");
    takes(1, "a scaled softmax", "o = sum[s] (2.5 * softmax[s](0.5 * x) - 0.1) * v", "o: [b,t,e]");
}

#[test]
fn logarithms_of_weights_share_the_pass() {
    takes(1, "entropy", "let p = softmax[s](x)  o = -sum[s] p * log(p)", "o: [b,t]");
    takes(1, "cross entropy", "o = -sum[s] sigmoid(w) * log(softmax[s](x))", "o: [b,t]");
    takes(1, "log_softmax", "o = sum[s] log_softmax[s](x) * v", "o: [b,t,e]");
}

#[test]
fn exponentials_under_other_shifts_get_a_maximum() {
    takes(1, "exp(x - lse)", "o = sum[s] exp(x - logsumexp[s](x)) * v", "o: [b,t,e]");
    takes(1, "exp of log_softmax", "o = sum[s] exp(log_softmax[s](x)) * v", "o: [b,t,e]");
    takes(1, "squared weights", "let p = softmax[s](x)  o = ratio(1, sum[s] p * p)", "o: [b,t]");
    takes(1, "roots of weights", "let p = softmax[s](x)  o = sum[s] sqrt(p) * v", "o: [b,t,e]");
    takes(1, "two distributions", "o = sum[s] softmax[s](x) * softmax[s](sum[d] r * k where on == 1) * v", "o: [b,t,e]");
}

#[test]
fn several_maxima_run_side_by_side() {
    takes(1, "differential", "let y = (sum[d] r * k) where on == 1  o = sum[s] (softmax[s](x) - 0.3 * softmax[s](y)) * v", "o: [b,t,e]");
    takes(1, "two temperatures", "o = (sum[s] softmax[s](x) * v) + sum[s] softmax[s](2 * x) * u", "o: [b,t,e]");
}

#[test]
fn differences_with_a_mean_are_distributed() {
    takes(1, "a covariance", "let p = softmax[s](x)  let z = sum[d] r * k  o = sum[s] p * (1 - z + sum[s] p * z) * v", "o: [b,t,e]");
    let centred = "let p = softmax[s](x)  let mu = sum[s] p * k  o = sum[s] p * (sum[d] r * (k - mu)) * v";
    takes(1, "sums that are exchanged", centred, "o: [b,t,e]");
    takes(1, "a norm of the weights", "let p = sigmoid(x)  o = (sum[s] p * v) / sqrt(1 + sum[s] p * p)", "o: [b,t,e]");
    // A mean for all queries is made once, by a kernel of its own.
    takes(2, "weights that are subtracted", "o = (sum[s] softmax[s](x) * v) - mean[s] v", "o: [b,t,e]");
    takes(1, "a part of the weights", "let p = softmax[s](x)  o = sum[s] p * v where w > 0", "o: [b,t,e]");
    takes(1, "a conditional", "let p = softmax[s](x)  o = sum[s] (if w > 0 then p else 0.1 * w) * v", "o: [b,t,e]");
}

#[test]
fn cancellation_takes_a_second_pass() {
    takes(2, "variance under softmax", "let p = softmax[s](x)  let c = sum[s] p * v  o = sum[s] p * (v - c)^2", "o: [b,t,e]");
    let (_, remarks) = passes(&program("let p = softmax[s](x)  let c = sum[s] p * v  o = sum[s] p * (v - c)^2", "o: [b,t,e]"));
    assert!(remarks.iter().any(|r| r.contains("would cancel")), "{remarks:?}");
}

#[test]
fn what_no_rescaling_reaches_says_so() {
    takes(2, "largest weight", "let p = softmax[s](x)  o = max[s] p", "o: [b,t]");
    takes(2, "threshold", "let p = softmax[s](x)  o = sum[s] max(p - 0.05, 0) * v", "o: [b,t,e]");
    takes(2, "softmax of softmax", "o = sum[s] softmax[s](5 * softmax[s](x)) * v", "o: [b,t,e]");
    takes(3, "z-score, then softmax", "let c = mean[s] x  let sd = sqrt(0.01 + (mean[s] (x - c)^2))  o = sum[s] softmax[s](x / sd) * v", "o: [b,t,e]");
    let (_, remarks) = passes(&program("let p = softmax[s](x)  o = sum[s] max(p - 0.05, 0) * v", "o: [b,t,e]"));
    assert!(remarks.iter().any(|r| r.contains("pass 2 over s, because")), "{remarks:?}");
}

/// One query against `s` keys: agrees with the interpreter; gives the number of kernels.
fn decodes(body: &str, outs: &str, lengths: &[usize]) -> usize {
    let source = format!("kernel x(q: [b,h,d], k: [b,h,s,d], v: [b,h,s,e], w: [b,s], n: int [b]) -> ({outs}) {{ {body} }}");
    let graph = graph_of(&source).unwrap_or_else(|e| panic!("{e}\n{source}"));
    for s in lengths.iter().copied() {
        let (b, h, d, e) = (2, 3, 4, 3);
        let given = BTreeMap::from([
            ("q".to_string(), numbers(&[b, h, d], 1, 2.0)),
            ("k".to_string(), numbers(&[b, h, s, d], 2, 1.0)),
            ("v".to_string(), numbers(&[b, h, s, e], 3, 1.0)),
            ("w".to_string(), numbers(&[b, s], 4, 1.0)),
            ("n".to_string(), Array::int(&[b], vec![s as i64 / 3, 0])),
        ]);
        let meant = run(&graph, &given, &BTreeMap::new()).unwrap_or_else(|e| panic!("{source}: {e}"));
        let got = run_cpu(&graph, &given, &BTreeMap::new()).unwrap_or_else(|e| panic!("{source}: {e}"));
        for (out, value) in &meant {
            let error = difference(value, &got[out]);
            assert!(error < 2e-5, "{source}\ns = {s}: {out} differs by {error:e}");
        }
    }
    let extents = graph.axes.iter().map(|a| ["d", "e"].contains(&a.name.as_str()).then_some(4)).collect();
    let stages = lower_stages(&graph, &Options { extents, caps: Caps::cpu(), tile: TileOptions::default() }).unwrap_or_else(|e| panic!("{e}"));
    stages.tiles.kernels.len()
}

/// Parts of the keys and their merge are two kernels; spans begin and end inside and at blocks.
#[test]
fn one_query_is_split_along_the_keys() {
    let lengths = [1, 127, 1025, 2300];
    let score = "let x = D^-0.5 * sum[d] q * k";
    assert_eq!(decodes(&format!("{score}  o = sum[s] softmax[s](x) * v"), "o: [b,h,e]", &lengths), 2);
    assert_eq!(decodes(&format!("{score} where s < n  o = sum[s] softmax[s](x) * v  lse = logsumexp[s](x)"), "o: [b,h,e], lse: [b,h]", &lengths), 2);
    assert_eq!(decodes(&format!("{score} where s < n  let p = softmax[s](x)  o = -sum[s] p * log(p)"), "o: [b,h]", &lengths), 2);
    assert_eq!(decodes(&format!("{score}  o = max[s] (x + w)  c = count[s] (x > 0)"), "o: [b,h], c: int [b,h]", &lengths), 3);
    decodes(&format!("{score}  let p = softmax[s](x)  o = sum[s] max(p - 0.001, 0) * v"), "o: [b,h,e]", &lengths);
    decodes(&format!("{score}  o = sum[s] softmax[s](x) * v  schedule {{ split s 5 }}"), "o: [b,h,e]", &lengths);
}

/// Heads that share keys are no positions, though they take part in addresses.
#[test]
fn grouped_heads_are_split_along_the_keys() {
    let source = "kernel x(q: [b,h,d], k: [b,g,s,d], v: [b,g,s,e]) -> (o: [b,h,e]) { let kv = h * G div H  o = sum[s] softmax[s](sum[d] q * k[g = kv]) * v[g = kv] }";
    let graph = graph_of(source).unwrap_or_else(|e| panic!("{e}"));
    let given = BTreeMap::from([
        ("q".to_string(), numbers(&[2, 4, 4], 1, 1.0)),
        ("k".to_string(), numbers(&[2, 2, 1500, 4], 2, 1.0)),
        ("v".to_string(), numbers(&[2, 2, 1500, 3], 3, 1.0)),
    ]);
    let meant = run(&graph, &given, &BTreeMap::new()).unwrap_or_else(|e| panic!("{e}"));
    let got = run_cpu(&graph, &given, &BTreeMap::new()).unwrap_or_else(|e| panic!("{e}"));
    assert!(difference(&meant["o"], &got["o"]) < 2e-5);
    let extents = graph.axes.iter().map(|a| ["d", "e"].contains(&a.name.as_str()).then_some(4)).collect();
    let stages = lower_stages(&graph, &Options { extents, caps: Caps::cpu(), tile: TileOptions::default() }).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(stages.tiles.kernels.len(), 2);
}

/// A hint splits what has queries too.
#[test]
fn a_hint_splits_any_streamed_axis() {
    let source = program("o = sum[s] softmax[s](x) * v  schedule { split s 3 }", "o: [b,t,e]");
    let graph = graph_of(&source).unwrap_or_else(|e| panic!("{e}"));
    for s in [37, 150, 400] {
        let given = inputs(s);
        let given = graph.inputs.iter().map(|i| (i.name.clone(), given[&i.name].clone())).collect();
        let meant = run(&graph, &given, &BTreeMap::new()).unwrap_or_else(|e| panic!("{e}"));
        let got = run_cpu(&graph, &given, &BTreeMap::new()).unwrap_or_else(|e| panic!("{e}"));
        assert!(difference(&meant["o"], &got["o"]) < 2e-5);
    }
}
