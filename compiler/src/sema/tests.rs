//! A program and what checking says about it.

use super::*;
use crate::base::render;
use crate::graph::verify::verify;
use std::path::Path;

/// All diagnostics as text.
fn shown(source: &str, checked: &Checked) -> String {
    render::text(&checked.diagnostics, source, "test.attn", PRELUDE, false)
}

/// Checks every program of a folder; returns how many there were.
fn check_folder(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "attn")).collect();
    paths.sort();
    let mut faults = String::new();
    for path in &paths {
        let source = std::fs::read_to_string(path).unwrap();
        let started = std::time::Instant::now();
        let checked = check(&source);
        let took = started.elapsed();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if checked.failed() || std::env::var("SHOW").is_ok() {
            faults += &format!("== {name}\n{}", shown(&source, &checked));
        }
        for graph in &checked.graphs {
            let broken = verify(graph);
            if !broken.is_empty() {
                faults += &format!("== {name}: {broken:?}\n");
            }
        }
        if took.as_millis() > 500 {
            eprintln!("{name}: {took:?}");
        }
    }
    assert!(faults.is_empty(), "{faults}");
    paths.len()
}

#[test]
fn every_example_checks() {
    let n = check_folder(Path::new("../dsl-examples"));
    eprintln!("{n} examples");
}

#[test]
fn every_probe_program_checks() {
    let n = check_folder(Path::new("../../shared/prototypes/language_probe/programs"));
    eprintln!("{n} probe programs (0: folder absent)");
}

/// Wraps statements into a kernel with the usual inputs.
fn attention(body: &str) -> String {
    format!(
        "kernel f(q: [b,h,t,d], k: [b,h,t,d], v: [b,h,t,e], n: int [b,t], m: int) -> (o: [b,h,t,e]) {{\n    axis s: T\n    {body}\n}}\n"
    )
}

/// Codes of the errors, in order.
fn errors(source: &str) -> Vec<&'static str> {
    let checked = check(source);
    checked.diagnostics.iter().filter(|d| d.severity == Severity::Error).map(|d| d.code).collect()
}

fn refused(source: &str, code: &str) {
    let checked = check(source);
    let codes = errors(source);
    assert_eq!(codes, [code], "{source}\n{}", shown(source, &checked));
    let first = &checked.diagnostics[0];
    assert!(errors::explain(code).is_some(), "{code} has no long text");
    assert!(!first.labels.is_empty() && first.labels[0].span.source == SourceId::User, "{code}: primary place");
    assert!(checked.graphs.is_empty());
}

fn accepted(source: &str) -> Graph {
    let checked = check(source);
    assert!(!checked.failed(), "{source}\n{}", shown(source, &checked));
    for graph in &checked.graphs {
        assert_eq!(verify(graph), [], "{source}");
    }
    checked.graphs.into_iter().next().expect("a kernel")
}

#[test]
fn refusals_of_kernels() {
    // One statement or two inside the usual kernel, and the code of the only error.
    let cases: &[(&str, &str)] = &[
        ("o = sum[s] softmax[s](sum[d] q * kk) * v[t = s]", "A0201"),
        ("o = v * tt", "A0201"),
        ("let x = v\n let x = q\n o = v", "A0202"),
        ("let d = 1\n o = v", "A0202"),
        ("o = sofmax[e](v)", "A0203"),
        ("let x = y\n let y = x\n o = v * x", "A0204"),
        ("fn exp(x) = x\n o = v", "A0205"),
        ("o = clamp(v, 0)", "A0206"),
        ("o = min(v)", "A0206"),
        ("o = softmax[z](v)", "A0301"),
        ("o = v[tt = s]", "A0301"),
        ("o = sum[q] v", "A0301"),
        // The renaming `k[t = s]` forgotten.
        ("o = sum[s] softmax[s](sum[d] q * k where s <= t) * v[t = s]", "A0302"),
        ("o = v * max[s] v", "A0302"),
        // `v[t = s]` forgotten.
        ("o = sum[s] softmax[s](sum[d] q * k[t = s] where s <= t) * v", "A0303"),
        ("axis j: n\n o = v", "A0304"),
        ("axis j: (sum[b, t] n), i: len(j) + m\n o = v", "A0304"),
        ("o = sum[s] v[s = t]", "A0305"),
        ("o = v[t = s, t = s]", "A0306"),
        ("o = sum[s, s] v[t = s]", "A0306"),
        ("o = softmax[d, e, t](q)", "A0302"),
        ("o = sum[s] v[t = s / 2]", "A0403"),
        ("o = softmax(v)", "A0309"),
        ("o = v * (n < 3)", "A0401"),
        ("o = v * (m div 2.0)", "A0401"),
        ("o = sum[s] v[t = s] where v < 1 + true", "A0401"),
        ("let c = any[b, t] n\n o = v", "A0401"),
        ("o = if n == v then v else 0", "A0402"),
        ("o = sum[s] v[t = s] where n", "A0404"),
        ("mask w = v\n o = v", "A0404"),
        ("let c: int = v\n o = v", "A0405"),
        ("o = v where n > 0", "A0501"),
        ("o = v[t = t - 1]", "A0501"),
        ("o = v[t = n]", "A0501"),
        ("o = softmax[s](sum[d] q * k[t = s]) * v", "A0803"),
        ("o = sum[e] v", "A0804"),
        ("o = v\n x = q", "A0805"),
        ("o = v\n require n > 0", "A0806"),
        ("o = v\n o = 2 * v", "A0802"),
        ("let x = v", "A0801"),
        ("o = v\n schedule { tile z 128 }", "A0301"),
        ("o = v\n schedule { tyle t 128 }", "A0807"),
        ("o = v\n schedule { target tpu { stages 3 } }", "A0807"),
        ("o = f(v)\n fn f(x) = f(x)", "A0701"),
        ("fn g(x) { let y = x }\n o = g(v)", "A0703"),
        ("o = grad(sum[e] v * v, v * v)", "A0704"),
        ("let y = v * v\n o = grad(sum[e] y, v)", "A0704"),
        // The expression keeps `t` and uses `v` at another `t`.
        ("let w = v\n o = grad((sum[e] w[t = T - 1 - t]), w)", "A0705"),
    ];
    for (body, code) in cases {
        refused(&attention(body), code);
    }
}

#[test]
fn refusals_of_scans() {
    let cases: &[(&str, &str)] = &[
        ("scan t { state S: [d,e] = 0  o = sum[d] q * S }", "A0601"),
        ("scan t { state S: [d,e] = 0  S' = S + k * v  S' = S  o = sum[d] q * S' }", "A0602"),
        ("scan t { state S: [d,e] = 0  S' = S + k * v  R' = S  o = sum[d] q * S' }", "A0603"),
        ("o = v * S'", "A0603"),
        ("repeat 3 { state S = 0  S' = S + 1  out = S' }\n o = v", "A0604"),
        ("scan t { state S: [d,e] = k * v  S' = S + k * v  o = sum[d] q * S' }", "A0606"),
        ("scan t { state S: [d,e] = 0  S' = S + k * v where n > 0  o = sum[d] q * S' }", "A0502"),
        ("scan t { state S: [d,e] = 0  S' = S + k * v  o = sum[d] q * S'[t = t - 1] }", "A0307"),
        ("scan t { state S: [d,e] = 0  S' = S + k * v  o = sum[t, d] q * S' }", "A0307"),
        ("scan t { o = v + o }", "A0204"),
        ("scan t { o = v + o[t = t] }", "A0307"),
        ("scan t { o = v + o[t = t - 1] }", "A0501"),
        ("repeat n { state S = 0  S' = S + 1 }\n o = v", "A0304"),
        ("scan t { state S: int = 0  S' = S + 0.5 }\n o = v", "A0405"),
        ("state S = 0\n o = v", "A0603"),
    ];
    for (body, code) in cases {
        refused(&attention(body), code);
    }
}

#[test]
fn programs_that_must_pass() {
    let cases: &[&str] = &[
        "o = sum[s] softmax[s](sum[d] q * k[t = s] where s <= t) * v[t = s]",
        // Flip, shift with a default, an arm that protects its read.
        "o = v[t = T - 1 - t]",
        "o = v[t = t - 1] ?? 0",
        "o = if t > 0 then v[t = t - 1] else 0",
        "o = if t < T - 1 then v[t = t + 1] else 0",
        "o = if t == 0 then 0 else v[t = t - 1]",
        // The order of statements is free.
        "o = x * v\n let x = 2",
        // Earlier results of the scan.
        "scan t { o = v + (o[t = t - 1] ?? 0) }",
        "scan t reverse { o = v + (o[t = t + 1] ?? 0) }",
        // int becomes real; a literal broadcasts; counts are ints.
        "o = 0",
        "o = v * (count[s] (n[t = s] == n)) / m",
        // A function may take an axis that stands for several.
        "o = v * sum[h, d] softmax[h, d](q)",
        // States find their axes.
        "scan t { state S = 0  S' = S + k * v  o = sum[d] q * S' }",
        "scan t where n > 0 { state S: [d,e] = 0  S' = S + k * v  y = sum[d] q * S' }\n o = y ?? 0",
        "repeat 4 until abs(z) < 1 { state z: [b] = 1  z' = z / 2 }\n o = v * z",
        "o = v * grad((sum[e] v * v), v)",
    ];
    for body in cases {
        accepted(&attention(body));
    }
}

#[test]
fn every_function_of_the_prelude_checks() {
    let (file, faults) = prelude();
    assert!(faults.is_empty(), "{faults:?}");
    for name in functions_of(file).keys() {
        let value = match name.as_str() {
            "softcap" | "turn" | "clamp" | "rotary" | "solve_spd" => continue,
            _ if file.items.iter().any(|i| matches!(i, Item::Fn(f) if f.name.name == *name && f.axes.is_empty())) => format!("{name}(v)"),
            _ => format!("v * {name}[e](v)"),
        };
        accepted(&attention(&format!("o = {value}")));
    }
    for value in ["softcap(v, 30)", "re(turn(v, 2, t))", "clamp(v, -1, 1)", "rotary[e](v, t)"] {
        let graph = accepted(&attention(&format!("o = {value}")));
        assert!(graph.requires.iter().all(|r| r.text == "len(e) div 2 > 0"), "{value}: {:?}", graph.requires);
    }
    accepted("kernel f(a: [b,d,i], y: [b,d]) -> (x: [b,d]) { require I == D  x = solve_spd[d, i](a, y) }");
}

#[test]
fn several_errors_in_one_run_and_no_follow_ups() {
    let source = attention("let x = kk * 2\n let y = x + 1\n let z = y where w\n o = v * y + z");
    assert_eq!(errors(&source), ["A0201", "A0201"]);
}

#[test]
fn an_error_inside_a_function_shows_both_places() {
    let source = attention("fn f(x) = x[d = s]\n o = f(v)");
    let checked = check(&source);
    assert_eq!(checked.diagnostics[0].code, "A0305");
    assert!(checked.diagnostics[0].labels.iter().any(|l| l.text.contains("in this call of `f`")), "{}", shown(&source, &checked));
    let source = attention("o = softmax[s](v)");
    let checked = check(&source);
    assert_eq!(checked.diagnostics[0].code, "A0302");
    assert_eq!(checked.diagnostics[0].labels[0].span.source, SourceId::User, "{}", shown(&source, &checked));
}

#[test]
fn suggestions_name_what_is_near() {
    let source = attention("let score = q\n o = v * sum[d] scroe");
    let checked = check(&source);
    assert_eq!(checked.diagnostics[0].help, ["did you mean `score`?"]);
}

#[test]
fn warnings() {
    let warned = |body: &str| -> Vec<&'static str> {
        let checked = check(&attention(body));
        assert!(!checked.failed(), "{}", shown(&attention(body), &checked));
        checked.diagnostics.iter().map(|d| d.code).collect()
    };
    assert_eq!(warned("o = sum[s] v[t = s] where s < t and t < s"), ["A0901"]);
    assert_eq!(warned("o = expand[t](sum[s] v[t = s] where s < 0)"), ["A0901"]);
    assert_eq!(warned("o = v ?? 0"), ["A0902"]);
    assert_eq!(warned("scan t { state S: [d,e] = 0  S' = S + k * v  o = sum[d] q * S }"), ["A0903"]);
    assert_eq!(warned("scan t { state S: [d,e] = 0  S' = S + k * v  let before = S  o = sum[d] q * before }"), [] as [&str; 0]);
    assert_eq!(warned("o = sum[s] v[t = s] where s <= t and t <= s"), [] as [&str; 0]);
    let list = "kernel f(x: [t], n: int) -> (o: int [j]) { axis j: n  o = list[t -> j](x > 0) }";
    assert_eq!(check(list).diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), ["A0904"]);
}

/// The conditions that are checked at the call.
fn requires(source: &str) -> Vec<String> {
    accepted(source).requires.iter().map(|r| r.text.clone()).collect()
}

#[test]
fn ranges_are_proved_or_asked_for() {
    // Proved: no mask, no check.
    for body in ["o = sum[s] softmax[s](sum[d] q * k[t = s]) * v[t = s]", "axis c: ceildiv(T, 64)\n let y = sum[t] v where t div 64 == c\n o = y[c = t div 64]"] {
        let graph = accepted(&attention(body));
        assert!(graph.requires.is_empty(), "{body}: {:?}", graph.requires);
    }
    let grouped = "kernel f(q: [h,t,d], k: [g,t,d]) -> (o: [h,t]) { o = sum[d] q * k[g = h * G div H] }";
    assert_eq!(requires(grouped), ["len(g) > 0"]);
    let gates = "kernel f(w: [g], x: [f]) -> (o: [f]) { o = w[g = 3*F + f] * x }";
    assert_eq!(requires(gates).len(), 1);
    // A ragged last block is a condition, not a check.
    let blocks = "kernel f(x: [t], y: [c], l: int) -> (o: [c]) { axis r: l  o = y * sum[r] x[t = l*c + r] }";
    assert_eq!(requires(blocks), [] as [&str; 0]);
    let graph = accepted(blocks);
    assert!(graph.ids().any(|id| matches!(graph.op(id), crate::graph::Op::Reduce { mask: Some(_), .. })));
}

#[test]
fn masks_named_and_inline_are_one_node() {
    let inline = accepted(&attention("o = sum[s] softmax[s](sum[d] q * k[t = s] where s <= t and n[t = s] == n) * v[t = s]"));
    let named = accepted(&attention("mask seen = s <= t and n[t = s] == n\n o = sum[s] softmax[s](sum[d] q * k[t = s] where seen) * v[t = s]"));
    assert_eq!(inline.dag.node_count(), named.dag.node_count());
}

#[test]
fn absurd_input_is_refused_quietly() {
    let deep = attention(&format!("o = v * {}1{}", "(".repeat(150), ")".repeat(150)));
    accepted(&deep);
    let mut doubling = String::from("fn f0(x) = x + x[t = T - 1 - t]\n");
    for i in 1..40 {
        doubling += &format!("    fn f{i}(x) = f{0}(x) * f{0}(x + {i}.5)\n", i - 1);
    }
    let source = attention(&format!("{doubling}    o = f39(v)"));
    assert_eq!(errors(&source), ["A0702"]);
    for source in ["", "kernel", "fn f(x) = y", "kernel f() -> () {}", "kernel f(x: [x]) -> (x: [x]) { x = x }"] {
        check(source);
    }
}

/// Every program of the examples with one token removed, doubled or replaced: no panic, and a graph only without errors.
#[test]
fn mutants_never_panic() {
    let Ok(entries) = std::fs::read_dir("../dsl-examples") else { return };
    let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    let mut state = 12345u64;
    let mut next = move |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n.max(1)
    };
    for path in paths.iter().step_by(4) {
        let Ok(source) = std::fs::read_to_string(path) else { continue };
        let words: Vec<&str> = source.split_inclusive(|c: char| !c.is_alphanumeric() && c != '_').collect();
        for _ in 0..3 {
            let mut mutant = words.clone();
            let (at, from) = (next(words.len()), next(words.len()));
            match next(3) {
                0 => {
                    mutant.remove(at);
                }
                1 => mutant.insert(at, words[from]),
                _ => mutant[at] = words[from],
            }
            let text = mutant.concat();
            let checked = check(&text);
            assert!(!checked.diagnostics.iter().any(|d| d.code == "A0001"), "{}:\n{text}", path.display());
            for graph in &checked.graphs {
                assert_eq!(verify(graph), [], "{}:\n{text}", path.display());
            }
        }
    }
}

/// Gradients against central differences of the interpreter, at values that are not special.
#[test]
fn gradients_agree_with_differences() {
    use crate::interp::{Array, Data, run};
    let cases = [
        "sum[d] x * x * a",
        "sum[d] exp(x * a) / (1 + x * x)",
        "logsumexp[d](x * a)",
        "sum[d] softmax[d](x * a) * a",
        "max[d] x * a",
        "min[d] (x + a)",
        "prod[d] (x + 2)",
        "sum[d] log(x) * a where x > 0",
        "sum[d] (sqrt(x * x + 1) * tanh(x) + sigmoid(x) * softplus(x))",
        "sum[d] (sin(x) * cos(x * a) * erf(x) - abs(x) * log1p(x * x))",
        "sum[d] ((x + 2) ^ 1.5 * max(x, a) + min(x, 2 * a))",
        "sum[d] (sum[<= d] x) * a",
        "sum[d] (sum[> d] (x * a)) * x",
        "sum[d] x[d = D - 1 - d] * a * x",
        "sum[d] (x[d = d - 1] ?? 0) * a",
        "sum[i] (sum[d] x * w) * x[d = i]",
        "sum[i] x[d = i div 2] * x[d = i] where i > 0",
        "sum[d] (if x > a then x * x else a)",
        "sum[d] (mean[d] x * x) * rms_norm[d](x) * a",
    ];
    let (t, d) = (2usize, 4usize);
    let number = |i: usize, salt: usize| ((i * 37 + salt * 11) % 23) as f64 / 11.5 - 0.93;
    let x: Vec<f64> = (0..t * d).map(|i| number(i, 1)).collect();
    for case in cases {
        let source = format!(
            "kernel f(x: [t,d], a: [t,d], w: [d,i]) -> (y: [t], g: [t,d]) {{\n    require I == D\n    y = {case}\n    g = grad({case}, x)\n}}\n"
        );
        let graph = accepted(&source);
        let at = |x: &[f64]| {
            let inputs = [
                ("x".to_string(), Array::real(&[t, d], x.to_vec())),
                ("a".to_string(), Array::real(&[t, d], (0..t * d).map(|i| number(i, 5)).collect())),
                ("w".to_string(), Array::real(&[d, d], (0..d * d).map(|i| number(i, 8)).collect())),
            ];
            run(&graph, &inputs.into(), &std::collections::BTreeMap::new()).unwrap()
        };
        let reals = |array: &Array| match &array.data {
            Data::Real(v) => v.clone(),
            other => panic!("{other:?}"),
        };
        let gradient = reals(&at(&x)["g"]);
        let h = 1e-6;
        for i in 0..t * d {
            let (mut up, mut down) = (x.clone(), x.clone());
            up[i] += h;
            down[i] -= h;
            let (y1, y0) = (reals(&at(&up)["y"]), reals(&at(&down)["y"]));
            let slope = (y1[i / d] - y0[i / d]) / (2.0 * h);
            assert!((slope - gradient[i]).abs() < 1e-6 * (1.0 + slope.abs()), "{case}: element {i}: {slope} against {}", gradient[i]);
        }
    }
}

#[test]
fn functions_that_nobody_calls_are_checked() {
    let kernel = "kernel f(x: [t]) -> (y: [t]) { y = x }\n";
    assert_eq!(errors(&format!("{kernel}fn g(x) = x + missing")), ["A0201"]);
    assert_eq!(errors(&format!("{kernel}fn g(x) = nothing(x)")), ["A0203"]);
    assert_eq!(errors(&format!("{kernel}fn g[j](x) {{ let m = max[j] x }}")), ["A0703"]);
    assert_eq!(errors(&format!("{kernel}fn g(x) = g(x - 1)")), ["A0701"]);
    assert!(errors(&format!("{kernel}fn g[j](x, s = 2) {{ let m = max[j] x\n return sum[j] (x - m) * s }}\nfn h[i](x) = g[i](x) + g[i](x, 3)")).is_empty());
    assert_eq!(errors("kernel f(x: [t]) -> (y: [t]) { fn g(a) = a + x + z\n y = x }"), ["A0201"]);
    assert!(errors("kernel f(x: [t]) -> (y: [t]) { fn g(a) = a + x\n y = x }").is_empty());
    // Once is enough, however many kernels there are, and a call tells the rest.
    assert_eq!(errors("fn g(x) = x + missing\nkernel f(x: [t]) -> (y: [t]) { y = g(x) }\nkernel f2(x: [t]) -> (y: [t]) { y = x }").len(), 1);
}

#[test]
fn a_choice_keeps_the_axes_of_its_condition() {
    // Both arms are the same number: the condition says over which axes.
    let checked = check("kernel f(x: [t], y: [s]) -> (o: [t,s]) { o = if x < 0 then y else y }");
    assert!(!checked.failed(), "{:?}", checked.diagnostics);
    let checked = check("kernel f(x: [t]) -> (o: [t]) { o = if x < 0 then 1.0 else 1.0 }");
    assert!(!checked.failed(), "{:?}", checked.diagnostics);
    assert!(checked.graphs.iter().all(|g| verify(g).is_empty()));
}
