//! Scans in chunks on the CPU target in f32, against the interpreter, which takes one position a step: lengths around the chunk, weak
//! and strong decay.

use attnc_compiler::graph::{FactCmp, Graph};
use attnc_compiler::interp::{Array, Data, run};
use attnc_compiler::sema;
use attnc_tests::cpu::run_cpu;
use std::collections::BTreeMap;

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
