//! What each command prints and writes when all is well.

mod common;

use common::{Lab, tensors};

const PROGRAM: &str = "/// Weighted sum of the values up to each position.
kernel f(q: [b,t,d], k: [b,t,d], v: [b,t,e], decay: [b,t] <= 0, scale: real = D^-0.5) -> (o: [b,t,e], n: int [b,t]) {
    axis s: T
    o = sum[s] softmax[s](scale * sum[d] q * k[t = s] where s <= t) * v[t = s] * exp(decay[t = s])
    n = count[s] (s <= t and decay[t = s] < 0)
}
";

fn f32s(n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| ((i * 7919 % 101) as f32 / 101.0 - 0.5).to_le_bytes()).collect()
}

fn input() -> Vec<u8> {
    let decay = (0..14).flat_map(|i| (-0.1f32 * (i % 3) as f32).to_le_bytes()).collect();
    tensors(&[
        ("q", "F32", vec![2, 7, 4], f32s(56)),
        ("k", "F32", vec![2, 7, 4], f32s(56)),
        ("v", "F32", vec![2, 7, 3], f32s(42)),
        ("decay", "F32", vec![2, 7], decay),
    ])
}

fn lab() -> Lab {
    Lab::new(PROGRAM, &input())
}

fn stdout(lab: &Lab, args: &[&str]) -> String {
    String::from_utf8(lab.exec(args, 0, &[]).stdout).unwrap()
}

#[test]
fn a_good_program_checks_silently() {
    let out = lab().exec(&["check", "prog.attn"], 0, &[]);
    assert!(out.stdout.is_empty() && out.stderr.is_empty());
}

#[test]
fn diagnostics_as_json_are_one_object_a_line() {
    let lab = Lab::new("kernel f(x: [t]) -> (o: [t]) {\n o = y\n}\n", b"");
    let out = lab.exec(&["check", "--message-format", "json", "prog.attn"], 1, &["1 error in 1 of 1 file"]);
    let text = String::from_utf8(out.stdout).unwrap();
    let records: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(records.len(), 1, "{text}");
    assert_eq!(records[0]["labels"][0]["line"], 2);
}

#[test]
fn every_file_is_checked_after_a_bad_one() {
    let lab = lab();
    std::fs::write(lab.path("bad.attn"), "kernel").unwrap();
    lab.exec(&["check", "bad.attn", "nowhere.attn", "prog.attn"], 1, &["bad.attn", "nowhere.attn", "in 2 of 3 files"]);
}

#[test]
fn formatting_is_idempotent_and_checkable() {
    let lab = Lab::new("kernel f(x: [t]) -> (o: [t]) {\n      o   =  x\n}\n", b"");
    lab.exec(&["fmt", "--check", "prog.attn"], 1, &["prog.attn"]);
    lab.exec(&["fmt", "prog.attn"], 0, &[]);
    lab.exec(&["fmt", "--check", "prog.attn"], 0, &[]);
    assert_eq!(std::fs::read_to_string(lab.path("prog.attn")).unwrap(), "kernel f(x: [t]) -> (o: [t]) {\n    o = x\n}\n");
}

#[test]
fn explain_tells_what_was_derived_and_what_codes_mean() {
    let lab = lab();
    let text = stdout(&lab, &["explain", "prog.attn"]);
    for want in ["kernel f", "Weighted sum", "inputs", "scale", "D ^ -0.5", "kernels, in order"] {
        assert!(text.contains(want), "{want} is missing in:\n{text}");
    }
    let svg = stdout(&lab, &["explain", "prog.attn", "--svg"]);
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && svg.contains("f_0"), "{svg}");
    assert!(stdout(&lab, &["explain", "A0101"]).starts_with("A0101: "));
    lab.exec(&["explain", "A9999"], 1, &["A9999"]);
    lab.exec(&["explain", "prog.attn", "--kernel", "g"], 1, &["`g`", "f"]);
}

#[cfg(feature = "cpu")]
#[test]
fn stages_print_in_the_order_of_the_pipeline() {
    let lab = lab();
    let text = stdout(&lab, &["compile", "prog.attn", "--target", "cpu", "--set", "d=4", "--set", "e=3", "--emit", "ast,graph,tiles,kernel,clif"]);
    let places: Vec<usize> = ["ast", "graph", "tiles", "kernel", "clif"].iter().map(|s| text.find(&format!("// ---- {s}\n")).unwrap_or_else(|| panic!("{s}"))).collect();
    assert!(places.is_sorted());
    let again = stdout(&lab, &["compile", "prog.attn", "--target", "cpu", "--set", "d=4", "--set", "e=3", "--emit", "ast,graph,tiles,kernel,clif"]);
    assert_eq!(text, again, "dumps are stable");
    lab.exec(&["compile", "prog.attn", "--target", "cpu", "--emit", "kernel"], 1, &["axis `", "--set"]);
}

#[cfg(feature = "cpu")]
#[test]
fn compiled_files_come_with_a_manifest_that_loads() {
    let lab = lab();
    lab.exec(&["compile", "prog.attn", "--target", "cpu", "--set", "d=4", "--set", "e=3", "-o", "out"], 0, &[]);
    let manifest = attnc_runtime::manifest::Manifest::read(&lab.path("out/manifest.json")).unwrap();
    assert_eq!((manifest.target.as_str(), manifest.plan.name.as_str()), ("cpu", "f"));
    assert!(!manifest.kernels.is_empty());
    for kernel in &manifest.kernels {
        assert!(lab.path("out").join(&kernel.file).is_file());
    }
}

#[cfg(feature = "cpu")]
#[test]
fn the_processor_agrees_with_the_interpreter() {
    let lab = lab();
    let run = |target: &str, name: &str| lab.exec(&["run", "prog.attn", "--target", target, "--in", "in.safetensors", "--out", name], 0, &[]);
    run("interp", "a");
    run("cpu", "b");
    let (a, b) = (std::fs::read(lab.path("a")).unwrap(), std::fs::read(lab.path("b")).unwrap());
    let (a, b) = (safetensors::SafeTensors::deserialize(&a).unwrap(), safetensors::SafeTensors::deserialize(&b).unwrap());
    assert_eq!(a.tensor("n").unwrap().data(), b.tensor("n").unwrap().data());
    let reals = |t: &[u8]| t.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect::<Vec<f32>>();
    for (x, y) in reals(a.tensor("o").unwrap().data()).iter().zip(reals(b.tensor("o").unwrap().data())) {
        assert!((x - y).abs() <= 1e-6, "{x} {y}");
    }
}

#[test]
fn bench_reports_times_and_rates() {
    let lab = lab();
    let text = stdout(&lab, &["bench", "prog.attn", "--target", "interp", "--size", "b=1", "--size", "t=9", "--size", "d=4", "--size", "e=4", "--runs", "3", "--seconds", "60", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["runs"], 3);
    assert!(report["median_ms"].as_f64().unwrap() > 0.0);
    assert!(report["extents"].to_string().contains("[\"t\",9]"));
    lab.exec(&["bench", "prog.attn", "--target", "interp", "--size", "x=33"], 1, &["x"]);
    lab.exec(&["bench", "prog.attn", "--target", "interp", "--seconds", "soon"], 2, &["soon"]);
}
