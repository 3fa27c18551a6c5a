//! Chunk forms of scans against the scans themselves: in f64 on the interpreter, which shows the algebra without kernels and without
//! rounding, and on the CPU target in f32. Lengths around the chunk, weak and strong decay.

use attnc_compiler::graph::{FactCmp, Graph};
use attnc_compiler::interp::{Array, Data, run};
use attnc_compiler::kernel::caps::Chunks;
use attnc_compiler::ops::{DType, Scalar};
use attnc_compiler::passes::chunk::chunk_scans;
use attnc_compiler::passes::order::expand_order;
use attnc_compiler::passes::rewrite::Work;
use attnc_compiler::sema;
use attnc_tests::cpu::run_cpu;
use std::collections::BTreeMap;

const CHUNKS: Chunks = Chunks { rows: 16, keyed: 16, pivot: 4 };

/// Uniform in 0..1 (splitmix64).
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn example(slug: &str) -> Graph {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../dsl-examples").join(format!("{slug}.attn"));
    let checked = sema::check(&std::fs::read_to_string(path).expect("an example"));
    assert!(!checked.failed(), "{slug}: {:?}", checked.diagnostics);
    checked.graphs.into_iter().next().expect("one kernel")
}

fn inputs(graph: &Graph, t: usize, strength: f64) -> BTreeMap<String, Array> {
    let mut random = Random(5 + t as u64);
    let mut out = BTreeMap::new();
    for input in graph.inputs.iter().filter(|i| !i.axes.is_empty()) {
        let size = |name: &str| match name {
            "t" => t,
            "b" => 1,
            "d" => 8,
            "e" => 20,
            _ => 2,
        };
        let shape: Vec<usize> = input.axes.iter().map(|a| size(&graph.axis(*a).name)).collect();
        let fact = input.fact.map(|f| f.cmp);
        let data = (0..shape.iter().product())
            .map(|_| {
                let x = random.unit();
                let value = match fact {
                    // Gates between hardly any decay and one that forgets at once.
                    Some(FactCmp::Ge | FactCmp::Gt) => (-strength * x.powi(4)).exp(),
                    Some(_) => -strength * x.powi(4),
                    None => 0.6 * x - 0.3,
                };
                // The interpreter sees what f32 sees.
                f64::from(value as f32)
            })
            .collect();
        out.insert(input.name.clone(), Array { shape, data: Data::Real(data) });
    }
    out
}

#[test]
fn chunks_agree_with_steps() {
    for slug in ["lightning", "gla", "hgrn2", "delta_rule", "gated_delta_rule", "mlstm"] {
        let graph = example(slug);
        for (t, strength) in [(1, 1.0), (63, 0.02), (64, 50.0), (65, 1.0), (777, 0.01), (777, 50.0)] {
            let inputs = inputs(&graph, t, strength);
            let scalars = BTreeMap::new();
            let want = run(&graph, &inputs, &scalars).expect("the interpreter runs");
            let got = run_cpu(&graph, &inputs, &scalars).expect("the kernel runs");
            for (name, array) in &want {
                let (Data::Real(x), Data::Real(y)) = (&array.data, &got[name].data) else { continue };
                let most = x.iter().fold(1e-30f64, |m, v| m.max(v.abs()));
                for (i, (p, q)) in x.iter().zip(y).enumerate() {
                    assert!((p - q).abs() <= 1e-5 * most, "{slug}: `{name}`[{i}] at T = {t}, decay {strength}: {p} {q}, largest {most}");
                }
            }
        }
    }
}

fn graph(source: &str) -> Graph {
    let checked = sema::check(source);
    assert!(!checked.failed(), "{source}\n{:?}", checked.diagnostics);
    checked.graphs.into_iter().next().expect("one kernel")
}

/// Inputs by the names of axes; tensors that are declared negative reach down to `-strength`.
fn small_inputs(graph: &Graph, t: usize, strength: f64, seed: u64) -> BTreeMap<String, Array> {
    let mut random = Random(seed);
    let mut out = BTreeMap::new();
    for input in graph.inputs.iter().filter(|i| !i.axes.is_empty()) {
        let size = |name: &str| match name {
            "t" => t,
            "b" => 1,
            "h" | "a" | "g" => 2,
            "d" => 4,
            "e" => 5,
            "n" => 3,
            _ => 2,
        };
        let shape: Vec<usize> = input.axes.iter().map(|a| size(&graph.axis(*a).name)).collect();
        let count = shape.iter().product();
        let gate = input.fact.map(|f| f.cmp);
        let value = |r: &mut Random| if matches!(gate, Some(FactCmp::Ge | FactCmp::Gt)) { (-strength * r.unit().powi(3)).exp() } else if gate.is_some() { -strength * r.unit().powi(3) } else { r.unit() * 1.4 - 0.7 };
        let data = match input.dtype {
            DType::Int => Data::Int((0..count).map(|_| (random.unit() * 3.0) as i64).collect()),
            DType::Bool => Data::Bool((0..count).map(|_| random.unit() < 0.2).collect()),
            _ => Data::Real((0..count).map(|_| value(&mut random)).collect()),
        };
        out.insert(input.name.clone(), Array { shape, data });
    }
    out
}

/// The remarks of the pass, after comparing results at several lengths and strengths of decay.
fn agrees(graph: &Graph) -> String {
    let mut remarks = Vec::new();
    let work = expand_order(Work { graph: graph.clone(), ..Work::default() }, false);
    let chunked = chunk_scans(work, CHUNKS, &mut remarks).graph;
    let faults = attnc_compiler::graph::verify::verify(&chunked);
    assert!(faults.is_empty(), "{}: {faults:?}", graph.name);
    for (t, strength) in [(1, 1.0), (15, 0.1), (16, 1.0), (17, 50.0), (53, 0.02), (53, 50.0)] {
        let inputs = small_inputs(graph, t, strength, 7 + t as u64);
        let scalars: BTreeMap<String, Scalar> = BTreeMap::new();
        let (want, got) = (run(graph, &inputs, &scalars).expect("the scan runs"), run(&chunked, &inputs, &scalars).expect("the chunk form runs"));
        for (name, array) in &want {
            let (Data::Real(x), Data::Real(y)) = (&array.data, &got[name].data) else { continue };
            let most = x.iter().fold(1e-30f64, |m, v| m.max(v.abs()));
            for (i, (p, q)) in x.iter().zip(y).enumerate() {
                // Decays by key below exp(-20) count as exp(-20).
                assert!((p - q).abs() <= 2e-8 * most, "{}: `{name}`[{i}] at T = {t}, decay {strength}: {p} {q}", graph.name);
            }
        }
    }
    remarks.join("\n")
}

#[test]
fn scans_of_the_examples() {
    let table = [
        ("lightning", "scalar decay"),
        ("retention", "scalar decay"),
        ("linear_attention", "kept"),
        ("gla", "decay by key"),
        ("hgrn2", "decay by key"),
        ("delta_rule", "kept, rank 1"),
        ("gated_delta_rule", "scalar decay, rank 1"),
        ("mamba2_ssd", "scalar decay"),
        ("mlstm", "scalar decay"),
    ];
    for (slug, class) in table {
        let remarks = agrees(&example(slug));
        assert!(remarks.contains("in chunks") && remarks.contains(class), "{slug}: {remarks}");
    }
}

const HEAD: &str = "kernel k(q: [h,t,d], k: [h,t,d], v: [h,t,e], u: [h,t,d], g: [h,t] <= 0, w: [h,t,d] <= 0) -> (o: [h,t,e]) { scan t { state S: [d,e] = 0 ";

#[test]
fn scans_that_nobody_published() {
    let table = [
        // Two keys and two gates.
        ("S' = exp(g) * S + k * v + u * sigmoid(v)  o = sum[d] q * S'", "scalar decay"),
        // What is read is the state before the step, and the step itself counts extra.
        ("S' = exp(w) * S + k * v  o = sum[d] q * (S + u * k * v)", "decay by key"),
        // The decay changes sign, and is zero at times.
        ("S' = (if t mod 7 == 3 then 0 else cos(3 * g)) * S + k * v  o = sum[d] q * S'", "scalar decay"),
        // What is read is erased along another key.
        ("S' = exp(g) * S - 0.5 * u * (sum[d] k * S) + k * v  o = sum[d] q * S'", "scalar decay, rank 1"),
        // A decay by key and a row that erases.
        ("S' = exp(w) * S + 0.3 * k * (v - sum[d] k * exp(w) * S)  o = sum[d] q * S'", "decay by key, rank 1"),
        // A result that is a function of two readouts.
        ("S' = exp(g) * S + k * v  o = tanh(sum[d] q * S') + sigmoid(sum[d] u * S)", "scalar decay"),
        // A gate that skips steps.
        ("S' = if g > -0.3 then S else exp(g) * S + k * v  o = sum[d] q * S'", "scalar decay"),
    ];
    for (text, class) in table {
        let remarks = agrees(&graph(&format!("{HEAD} {text} }} }}")));
        assert!(remarks.contains("in chunks") && remarks.contains(class), "{text}: {remarks}");
    }
}

#[test]
fn scans_without_a_chunk_form_say_why() {
    let table = [
        ("S' = tanh(exp(g) * S + k * v)  o = sum[d] q * S'", "nonlinear"),
        ("S' = exp(g) * S * S + k * v  o = sum[d] q * S'", "product of two values of states"),
        ("S' = exp(g) * S + k * v  o = max[d] S'", "max"),
        ("S' = if max[d] S' > 1 then S else k * v  o = sum[d] q * S", "state"),
    ];
    for (text, reason) in table {
        let checked = sema::check(&format!("{HEAD} {text} }} }}"));
        if checked.failed() {
            continue;
        }
        let remarks = agrees(&checked.graphs.into_iter().next().expect("one kernel"));
        assert!(remarks.contains("one position a step") && remarks.contains(reason), "{text}: {remarks}");
    }
}
