//! Interpreter against the CPU target on random programs: `diff FIRST COUNT`, or on one file of a program with random inputs.
use attnc_compiler::{interp, sema};
use attnc_tests::{cpu::{difference, run_cpu}, random::{random_case, shrink, Case}};
use std::collections::BTreeMap;

fn verdict(case: &Case) -> Option<String> {
    let checked = sema::check(&case.source());
    let graph = checked.graphs.first()?;
    let inputs = case.inputs();
    let want = interp::run(graph, &inputs, &BTreeMap::new()).ok()?;
    match std::panic::catch_unwind(|| run_cpu(graph, &inputs, &BTreeMap::new())) {
        Err(_) => Some("panic".into()),
        Ok(Err(e)) => Some(e),
        Ok(Ok(got)) => want.iter().find_map(|(n, w)| {
            let d = got.get(n).map_or(f64::INFINITY, |g| difference(w, g));
            (d > 1e-4).then(|| format!("`{n}` differs by {d:e}"))
        }),
    }
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args[1].ends_with(".attn") { return tiles_of(&args); }
    let first: u64 = args[1].parse().unwrap();
    let count: u64 = args[2].parse().unwrap();
    let mut bad: BTreeMap<String, (u32, u64)> = BTreeMap::new();
    let (mut ok, mut skip) = (0, 0);
    for seed in first..first + count {
        let case = random_case(seed);
        if sema::check(&case.source()).graphs.is_empty() { skip += 1; continue; }
        match verdict(&case) {
            None => ok += 1,
            Some(e) => {
                let key: String = e.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
                let entry = bad.entry(key).or_insert((0, seed));
                entry.0 += 1;
            }
        }
    }
    println!("{ok} agree, {skip} refused");
    for (k, (n, seed)) in &bad {
        println!("== {n} x {k} (seed {seed})");
        let small = shrink(&random_case(*seed), |c| verdict(c).is_some());
        println!("{}\nsizes {:?}\n{:?}", small.source(), small.sizes, verdict(&small));
    }
}

fn tiles_of(args: &[String]) {
    for file in &args[1..] {
        let text = std::fs::read_to_string(file).unwrap();
        let checked = sema::check(&text);
        for g in &checked.graphs {
            let extents = g.axes.iter().enumerate().map(|(i, a)| Some(if a.name == "d" || a.name == "e" { 64 } else { 5 + i as i64 })).collect();
            let options = attnc_compiler::lower::Options { extents, caps: attnc_compiler::kernel::caps::Caps::cpu(), tile: Default::default() };
            let t = std::time::Instant::now();
            match std::panic::catch_unwind(|| attnc_compiler::lower::lower_stages(g, &options)) {
                Ok(Ok(s)) => { println!("{file}: {} kernels {:?}", s.program.kernels.len(), t.elapsed());
                    if args.len() == 2 { println!("{}", attnc_compiler::tiles::text::program(&s.tiles)); println!("{}", s.program.kernels.iter().map(|k| k.to_string()).collect::<String>()); } }
                Ok(Err(e)) => { println!("{file}: ERROR {}", e.to_string().chars().take(300).collect::<String>()); if args.len() == 2 { println!("{}", attnc_compiler::lower::prepared(g)) } }
                Err(_) => println!("{file}: PANIC"),
            }
        }
    }
}
