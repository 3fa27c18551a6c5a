//! Order and selection: rows are sorted as the interpreter says, and choices for each query never store all scores.

use attnc_compiler::interp::{Array, Data, run};
use attnc_compiler::kernel::caps::Caps;
use attnc_compiler::kernel::plan::{BufferKind, HostExpr, Plan};
use attnc_compiler::lower::{Options, lower};
use attnc_compiler::ops::Scalar;
use attnc_compiler::passes::tile::TileOptions;
use attnc_tests::cpu::{difference, run_cpu};
use attnc_tests::graph_of;
use std::collections::BTreeMap;

/// Few distinct values, so that there are ties, some of them NaN, infinite or minus zero.
fn keys(shape: &[usize], salt: usize) -> Array {
    let n: usize = shape.iter().product();
    let odd = [f64::NAN, f64::NEG_INFINITY, f64::INFINITY, -0.0];
    let data = (0..n).map(|i| {
        let x = (i * 7919 + salt * 104_729) % 1009;
        if x < 12 { odd[x % 4] } else { ((x % 23) as f64 - 11.0) / 4.0 }
    });
    Array { shape: shape.to_vec(), data: Data::Real(data.collect()) }
}

/// Numbers whose products and sums are exact in f32 too, so that both sides order the same ones.
fn numbers(shape: &[usize], salt: usize) -> Array {
    let n: usize = shape.iter().product();
    Array { shape: shape.to_vec(), data: Data::Real((0..n).map(|i| (((i * 7919 + salt * 104_729) % 1009) as f64 - 500.0) / 64.0).collect()) }
}

fn agree(source: &str, inputs: &[(&str, Array)], scalars: &[(&str, i64)]) {
    let graph = graph_of(source).unwrap_or_else(|e| panic!("{e}\n{source}"));
    let inputs: BTreeMap<String, Array> = inputs.iter().map(|(n, a)| (n.to_string(), a.clone())).collect();
    let scalars: BTreeMap<String, Scalar> = scalars.iter().map(|(n, v)| (n.to_string(), Scalar::Int(*v))).collect();
    let want = run(&graph, &inputs, &scalars).unwrap_or_else(|e| panic!("{e}\n{source}"));
    let got = run_cpu(&graph, &inputs, &scalars).unwrap_or_else(|e| panic!("{e}\n{source}"));
    for (name, w) in &want {
        let error = difference(w, &got[name]);
        assert!(error <= 2e-5, "`{name}`: {error:e}\n{source}");
    }
}

fn plan(source: &str) -> Plan {
    let graph = graph_of(source).unwrap_or_else(|e| panic!("{e}\n{source}"));
    let extents = graph.axes.iter().map(|a| ["d", "e"].contains(&a.name.as_str()).then_some(8)).collect();
    lower(&graph, &Options { extents, caps: Caps::cpu(), tile: TileOptions::default() }).unwrap_or_else(|e| panic!("{e}\n{source}")).plan
}

/// Buffers between kernels that have both axes.
fn stored(plan: &Plan, a: &str, b: &str) -> Vec<String> {
    let axis = |name: &str| plan.axes.iter().position(|x| x.name == name).map(|i| HostExpr::Extent(i as u32));
    let (a, b) = (axis(a).expect("an axis"), axis(b).expect("an axis"));
    plan.buffers.iter().filter(|x| x.kind == BufferKind::Temp && x.dims.contains(&a) && x.dims.contains(&b)).map(|x| x.name.clone()).collect()
}

#[test]
fn all_orders_of_a_row_agree_with_the_interpreter() {
    let source = "kernel x(x: [b,t], m: [b,t], i: int [b,t], n: int) -> (r: int [b,t], a: int [b,j], k: int [b,t], l: int [b,j], ri: int [b,t], ki: int [t,b]) {
        axis j: 9
        r  = rank[t](x)
        a  = argsort[t -> j](x where m > 0) ?? -1
        k  = int(topk[t](x where m > 0, n))
        l  = list[t -> j](topk[t](x, n)) ?? -1
        ri = rank[t](i where m > 0) ?? -1
        ki = int(topk[t](i, n))
    }";
    let ints = |n: usize| Array { shape: vec![3, n], data: Data::Int((0..3 * n).map(|i| ((i * 31) % 7) as i64 - 3).collect()) };
    for t in [0, 1, 2, 5, 64, 130] {
        for n in [-1, 0, 1, 4, 200] {
            agree(source, &[("x", keys(&[3, t], 1)), ("m", numbers(&[3, t], 2)), ("i", ints(t))], &[("n", n)]);
        }
    }
}

#[test]
fn several_axes_are_ordered_as_one() {
    let source = "kernel x(x: [h,b,s], n: int) -> (k: int [b,h,s], r: int [b,h,s], own: int [h,b,s]) {
        let y = x * 2 + 1
        let best = topk[h, s](y, n)
        k = int(best)
        r = rank[s, h](y)
        own = int(topk[s](y where not best, n div 2))
    }";
    for s in [1, 7, 70] {
        agree(source, &[("x", keys(&[3, 2, s], 3))], &[("n", 5)]);
    }
}

#[test]
fn a_choice_for_each_query_keeps_its_scores_to_itself() {
    let source = "kernel x(q: [b,h,t,d], k: [b,h,s,d], v: [b,h,s,e], n: int) -> (o: [b,h,t,e], idx: int [b,h,t,j]) {
        axis j: 5
        let x    = sum[d] q * k where s <= t + S - T
        let kept = topk[s](x, n)
        o   = sum[s] softmax[s](x where kept) * v
        idx = list[s -> j](kept) ?? -1
    }";
    let plan = plan(source);
    assert_eq!(stored(&plan, "t", "s"), Vec::<String>::new());
    assert!(plan.buffers.iter().any(|b| b.kind == BufferKind::Block));
    for (t, s, n) in [(70, 150, 4), (1, 9, 3), (130, 130, 64), (3, 3, 0), (5, 0, 2)] {
        let inputs = [("q", numbers(&[2, 3, t, 8], 1)), ("k", numbers(&[2, 3, s, 8], 2)), ("v", numbers(&[2, 3, s, 8], 3))];
        agree(source, &inputs, &[("n", n)]);
    }
}

#[test]
fn scores_that_another_kernel_reads_are_stored() {
    // The choice of a query is read at other queries: it must be in memory.
    let source = "kernel x(q: [t,d], k: [s,d], n: int) -> (o: int [t]) {
        let kept = topk[s](sum[d] q * k, n)
        o = count[s] (kept and kept[t = T - 1])
    }";
    assert!(!stored(&plan(source), "t", "s").is_empty());
    agree(source, &[("q", numbers(&[20, 8], 1)), ("k", numbers(&[33, 8], 2))], &[("n", 6)]);
    // A reduction over the queries themselves.
    let source = "kernel x(q: [t,d], k: [s,d], n: int) -> (o: int [s]) { o = sum[t] int(topk[s](sum[d] q * k, n)) }";
    agree(source, &[("q", numbers(&[70, 8], 1)), ("k", numbers(&[33, 8], 2))], &[("n", 6)]);
}

#[test]
fn an_axis_may_be_as_long_as_values_say() {
    use attnc_runtime::{CompileOptions, Engine, Tensor};
    let source = "kernel x(x: [b,t], tau: real = 0) -> (n: int [b], at: int [b,j], best: [j]) {
        let kept = x > tau
        n = count[t] (kept)
        axis j: max[b] n
        at = list[t -> j](kept) ?? -1
        best = max[b] (x[t = list[t -> j](kept)] where j < n)
    }";
    let x = Tensor::new(vec![1.0f32, -2.0, 3.0, 0.5, -1.0, 2.0, -3.0, -1.0], &[2, 4]).expect("a tensor");
    let none = Tensor::new(vec![-1.0f32; 8], &[2, 4]).expect("a tensor");
    for engine in [Engine::interp(), Engine::cpu().expect("the processor")] {
        let kernel = engine.compile(source, None, &CompileOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        let out = kernel.run(&[("x", x.view())], &[]).unwrap_or_else(|e| panic!("{e}"));
        let at = out.get("at").expect("an output");
        assert_eq!((at.shape(), at.view().to_i64()), (&[2, 3][..], vec![0, 2, 3, 1, -1, -1]));
        assert_eq!(out.get("best").expect("an output").view().to_f64(), [2.0, 3.0, 0.5]);
        // Another call, another extent.
        let out = kernel.run(&[("x", none.view())], &[]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(out.get("at").expect("an output").shape(), [2, 0]);
    }
}

#[test]
fn a_step_of_a_scan_orders_its_own_values() {
    let source = "kernel x(x: [t,s], n: int) -> (o: int [t,s]) {
        scan t {
            state S: [s] = 0
            S' = 0.5 * S + x
            o = int(topk[s](S', n)) + rank[s](x)
        }
    }";
    agree(source, &[("x", numbers(&[9, 20], 4))], &[("n", 3)]);
}
