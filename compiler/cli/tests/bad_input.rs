//! Bad programs, bad tensors and bad command lines: each has one clear message, the right exit status, and leaves no file behind.

mod common;

use common::{Lab, tensors};

/// A kernel with everything that can be given wrongly.
const PROGRAM: &str = "kernel att(q: [t,d], k: [s,d], v: [s,e], pick: int [t], hot: bool [t], scale: real = D^-0.5, n: int = 1, flip: bool = false)
    -> (o: [t,e], at: int [t]) {
    require n > 0
    o = sum[s] softmax[s](scale * sum[d] q * k) * v
    at = pick + n
}
";

fn f32s(n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| (i as f32 * 0.25).to_le_bytes()).collect()
}

fn i64s(n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| (i as i64).to_le_bytes()).collect()
}

type Entry = (&'static str, &'static str, Vec<usize>, Vec<u8>);

/// t = 3, d = 2, s = 4, e = 5
fn good() -> Vec<Entry> {
    vec![
        ("q", "F32", vec![3, 2], f32s(6)),
        ("k", "F32", vec![4, 2], f32s(8)),
        ("v", "F32", vec![4, 5], f32s(20)),
        ("pick", "I64", vec![3], i64s(3)),
        ("hot", "U8", vec![3], vec![0, 1, 1]),
    ]
}

/// The good file with one tensor replaced or added.
fn with(entry: Entry) -> Vec<u8> {
    let mut list = good();
    list.retain(|e| e.0 != entry.0);
    list.push(entry);
    tensors(&list)
}

fn without(name: &str) -> Vec<u8> {
    let mut list = good();
    list.retain(|e| e.0 != name);
    tensors(&list)
}

/// A file with this header and as many bytes of data.
fn raw(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(vec![0u8; data]);
    bytes
}

#[test]
fn the_good_call_works() {
    let lab = Lab::new(PROGRAM, &tensors(&good()));
    lab.run(&[], 0, &[]);
    let out = lab.output();
    let file = safetensors::SafeTensors::deserialize(&out).unwrap();
    assert_eq!(file.tensor("o").unwrap().shape(), [3, 5]);
    assert_eq!(file.tensor("at").unwrap().data(), (1..4i64).flat_map(i64::to_le_bytes).collect::<Vec<u8>>());
    assert_eq!(file.len(), 2);
}

#[test]
fn tensors_that_do_not_fit() {
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("missing", without("v"), &["`v`", "[s,e]"]),
        ("missing int", without("pick"), &["`pick`", "int", "[t]"]),
        ("extra", with(("w", "F32", vec![1], f32s(1))), &["`w`", "unknown input"]),
        ("extra, misspelt", with(("hott", "U8", vec![3], vec![0; 3])), &["`hott`", "did you mean `hot`"]),
        ("rank too low", with(("q", "F32", vec![6], f32s(6))), &["`q`", "[t,d]", "[6]"]),
        ("rank too high", with(("pick", "I64", vec![3, 1], i64s(3))), &["`pick`", "[t]", "[3, 1]"]),
        ("rank 0", with(("q", "F32", vec![], f32s(1))), &["`q`", "[t,d]", "[]"]),
        ("conflict on d", with(("k", "F32", vec![4, 3], f32s(12))), &["`k`", "`q`", "`d`", "[4, 3]"]),
        ("conflict on s", with(("v", "F32", vec![5, 5], f32s(25))), &["`v`", "`k`", "`s`", "[5, 5]"]),
        ("conflict on t", with(("hot", "U8", vec![2], vec![0; 2])), &["`hot`", "`q`", "`t`", "[2]"]),
        ("transposed", with(("q", "F32", vec![2, 3], f32s(6))), &["`d`", "`q`"]),
        ("ints for reals", with(("q", "I64", vec![3, 2], i64s(6))), &["`q`", "i64", "real", "[t,d]", "[3, 2]"]),
        ("bytes for reals", with(("v", "U8", vec![4, 5], vec![0; 20])), &["`v`", "u8", "real"]),
        ("reals for ints", with(("pick", "F32", vec![3], f32s(3))), &["`pick`", "f32", "int", "[t]"]),
        ("reals for bools", with(("hot", "F32", vec![3], f32s(3))), &["`hot`", "f32", "bool"]),
        ("unknown dtype", with(("q", "F8_E4M3", vec![3, 2], vec![0; 6])), &["`q`", "F8_E4M3"]),
        ("u32", with(("pick", "U32", vec![3], vec![0; 12])), &["`pick`", "U32"]),
        ("scalar as tensor", with(("scale", "F32", vec![1], f32s(1))), &["`scale`", "scalar", "--set scale"]),
        ("scalar as 0-d tensor", with(("n", "I64", vec![], i64s(1))), &["`n`", "scalar"]),
    ];
    for (what, file, wants) in cases {
        Lab::new(PROGRAM, &file).named(what).run(&[], 1, wants);
    }
}

#[test]
fn files_that_are_no_safetensors() {
    let whole = tensors(&good());
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut large = whole.clone();
    large[..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    let tensor = |shape: &str, from: u64, to: u64| format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#);
    let one = |t: String| format!(r#"{{"q":{t}}}"#);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("three bytes", vec![1, 2, 3]),
        ("text", b"hello, this is not a tensor file at all".to_vec()),
        ("cut in the header", whole[..40].to_vec()),
        ("cut in the data", whole[..whole.len() - 1].to_vec()),
        ("longer than the header says", [whole.clone(), vec![0]].concat()),
        ("header length beyond 64 bits of sense", huge),
        ("header length beyond the file", large),
        ("header is no JSON", raw("{\"q\": ", 0)),
        ("header is a list", raw("[1,2]", 0)),
        ("header is not UTF-8", [&5u64.to_le_bytes()[..], &[0xff, 0xfe, b'{', b'}', b' ']].concat()),
        ("deeply nested header", raw(&format!("{{\"q\":{}", "[".repeat(100_000)), 0)),
        ("overlapping offsets", raw(&format!(r#"{{"q":{},"k":{}}}"#, tensor("[2]", 0, 8), tensor("[2]", 4, 12)), 12)),
        ("a gap between tensors", raw(&format!(r#"{{"q":{},"k":{}}}"#, tensor("[1]", 0, 4), tensor("[1]", 8, 12)), 12)),
        ("offsets beyond the data", raw(&one(tensor("[2]", 0, 8)), 4)),
        ("offsets backwards", raw(&one(tensor("[1]", 4, 0)), 4)),
        ("offsets do not match the shape", raw(&one(tensor("[3]", 0, 8)), 8)),
        ("shape overflows", raw(&one(tensor("[4294967296,4294967296,4294967296]", 0, 8)), 8)),
        ("negative extent", raw(&one(tensor("[-1]", 0, 4)), 4)),
        ("negative offset", raw(r#"{"q":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}"#, 4)),
        ("dtype of no one", raw(r#"{"q":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}"#, 4)),
        ("no offsets", raw(r#"{"q":{"dtype":"F32","shape":[1]}}"#, 4)),
    ];
    for (what, file) in cases {
        Lab::new(PROGRAM, &file).named(what).run(&[], 1, &["in.safetensors"]);
    }
}

#[test]
fn scalars_that_do_not_fit() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["--set", "n=1.5"], &["`n`", "int", "1.5"]),
        (&["--set", "n=ten"], &["`n`", "int", "ten"]),
        (&["--set", "n=99999999999999999999"], &["`n`", "99999999999999999999", "64 bits"]),
        (&["--set", "n=-9223372036854775809"], &["`n`", "64 bits"]),
        (&["--set", "n=0"], &["n > 0", "n = 0"]),
        (&["--set", "n=-3"], &["n > 0", "n = -3"]),
        (&["--set", "scale=fast"], &["`scale`", "real", "fast"]),
        (&["--set", "scale=1e999"], &["`scale`", "1e999"]),
        (&["--set", "flip=maybe"], &["`flip`", "bool", "maybe"]),
        (&["--set", "scales=1"], &["scales", "did you mean `scale`"]),
        (&["--set", "zeta=1"], &["zeta", "scale", "axes"]),
        (&["--set", "q=1"], &["`q`", "tensor", "[t,d]"]),
        (&["--set", "n=1", "--set", "n=2"], &["`n`", "twice"]),
        (&["--set", "d=3"], &["`q`", "`d`", "3"]),
        (&["--set", "d=2.5"], &["`d`", "2.5"]),
        (&["--set", "d=-1"], &["`d`", "-1"]),
        (&["--set", "t=99999999999999999999"], &["`t`", "99999999999999999999"]),
    ];
    for (args, wants) in cases {
        Lab::new(PROGRAM, &tensors(&good())).named(&args.join(" ")).run(args, 1, wants);
    }
}

#[test]
fn programs_with_errors() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("empty file", "", &["no kernel"]),
        ("only a comment", "// nothing\n", &["no kernel"]),
        ("no program at all", "\u{1}\u{2}\u{3}", &["prog.attn"]),
        ("open brace", "kernel f(x: [t]) -> (o: [t]) {\n o = x\n", &["prog.attn", "error"]),
        ("unknown name", "kernel f(x: [t]) -> (o: [t]) {\n o = y\n}\n", &["`y`", "prog.attn:2"]),
        ("unknown axis", "kernel f(x: [t]) -> (o: [t]) {\n o = sum[u] x\n}\n", &["u", "prog.attn:2"]),
        ("output not set", "kernel f(x: [t]) -> (o: [t]) {\n let y = x\n}\n", &["`o`"]),
        ("output set twice", "kernel f(x: [t]) -> (o: [t]) {\n o = x\n o = x\n}\n", &["`o`"]),
        ("axis that the output lacks", "kernel f(x: [t,d]) -> (o: [t]) {\n o = x\n}\n", &["`d`"]),
        ("number too large", "kernel f(x: [t]) -> (o: [t]) {\n o = x + 99999999999999999999\n}\n", &["prog.attn:2"]),
        ("deep nesting", &format!("kernel f(x: [t]) -> (o: [t]) {{\n o = {}x{}\n}}\n", "(".repeat(5000), ")".repeat(5000)), &["prog.attn"]),
        ("recursive function", "fn f(a) = f(a)\nkernel k(x: [t]) -> (o: [t]) {\n o = f(x)\n}\n", &["`f`"]),
    ];
    for (what, program, wants) in cases {
        Lab::new(program, &tensors(&good())).named(what).run(&[], 1, wants);
    }
}

#[test]
fn kernels_to_choose_from() {
    let two = "kernel one(x: [t]) -> (o: [t]) {\n o = x\n}\nkernel two(x: [t]) -> (o: [t]) {\n o = 2 * x\n}\n";
    let file = tensors(&[("x", "F32", vec![3], f32s(3))]);
    Lab::new(two, &file).run(&[], 1, &["one", "two", "--kernel"]);
    Lab::new(two, &file).run(&["--kernel", "tow"], 1, &["`tow`", "did you mean `two`"]);
    Lab::new(two, &file).run(&["--kernel", "two"], 0, &[]);
}

#[test]
fn places_that_cannot_be_read_or_written() {
    let lab = || Lab::new(PROGRAM, &tensors(&good()));
    let l = lab().named("program missing");
    l.exec(&["run", "nowhere.attn", "--target", "interp", "--out", "out.safetensors"], 1, &["nowhere.attn"]);
    l.exec(&["run", ".", "--target", "interp", "--out", "out.safetensors"], 1, &["directory"]);
    l.exec(&["check", "nowhere.attn"], 1, &["nowhere.attn"]);
    l.exec(&["check", "."], 1, &["directory"]);
    l.exec(&["run", "prog.attn", "--target", "interp", "--in", "nowhere.safetensors", "--out", "out.safetensors"], 1, &["nowhere.safetensors"]);
    l.exec(&["run", "prog.attn", "--target", "interp", "--in", ".", "--out", "out.safetensors"], 1, &["directory"]);
    l.exec(&["run", "prog.attn", "--target", "interp", "--in", "in.safetensors", "--out", "no/such/folder/out"], 1, &["no/such/folder/out"]);
    l.exec(&["run", "prog.attn", "--target", "interp", "--in", "in.safetensors", "--out", "."], 1, &["not a regular file"]);
    l.exec(&["run", "prog.attn", "--target", "interp", "--in", "in.safetensors", "--out", "/dev/null"], 1, &["/dev/null", "not a regular file"]);
    l.exec(&["run", "prog.attn", "--target", "interp", "--in", "in.safetensors", "--out", "prog.attn/out"], 1, &["prog.attn/out"]);
    let binary = Lab::new(PROGRAM, b"").named("a program that is binary");
    std::fs::write(binary.path("prog.attn"), [0xffu8, 0xfe, 0, 1]).unwrap();
    binary.exec(&["check", "prog.attn"], 1, &["prog.attn", "UTF-8", "0xff"]);
}

#[test]
fn wrong_command_lines() {
    let lab = Lab::new(PROGRAM, &tensors(&good()));
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &["Usage"]),
        (&["chekc", "prog.attn"], &["chekc", "check"]),
        (&["check"], &["FILE"]),
        (&["run", "prog.attn"], &["--target"]),
        (&["run", "prog.attn", "--target", "gpu", "--out", "o"], &["gpu", "interp"]),
        (&["run", "prog.attn", "--target", "interp"], &["--out"]),
        (&["run", "prog.attn", "--target", "interp", "--out", "o", "--set", "n"], &["NAME=VALUE"]),
        (&["run", "prog.attn", "--target", "interp", "--out", "o", "--set", "=1"], &["NAME=VALUE"]),
        (&["run", "prog.attn", "--target", "interp", "--out", "o", "--speed"], &["--speed"]),
        (&["check", "--message-format", "xml", "prog.attn"], &["xml", "json"]),
    ];
    for (args, wants) in cases {
        lab.exec(args, 2, wants);
    }
    lab.exec(&["--help"], 0, &[]);
    lab.exec(&["run", "--help"], 0, &[]);
}

#[test]
fn stages_that_do_not_go_with_the_target() {
    let lab = Lab::new(PROGRAM, b"");
    lab.exec(&["compile", "prog.attn", "--target", "cpu", "--emit", "ptx"], 1, &["ptx", "cpu"]);
    lab.exec(&["compile", "prog.attn", "--target", "cpu", "--emit", "assembly"], 2, &["assembly", "clif"]);
    lab.exec(&["compile", "prog.attn", "--target", "cpu", "--set", "z=1", "--emit", "graph"], 1, &["z"]);
    #[cfg(feature = "cpu")]
    lab.exec(&["compile", "prog.attn", "--target", "cpu", "--set", "d=2", "--set", "e=2", "-o", "prog.attn"], 1, &["prog.attn"]);
}

#[test]
fn sizes_beyond_memory_are_errors_before_anything_is_allocated() {
    let program = "kernel f(x: [t], n: int) -> (o: [t,s]) {\n    axis s: n * n\n    o = x * s\n}\n";
    let lab = Lab::new(program, &tensors(&[("x", "F32", vec![3], f32s(3))]));
    for (n, want) in [("1000000", "GiB"), ("3000000000", "too large"), ("9000000000000000000", "too large")] {
        for target in [&["interp"][..], if cfg!(feature = "cpu") { &["cpu"] } else { &[] }].concat() {
            let set = format!("n={n}");
            lab.exec(&["run", "prog.attn", "--target", target, "--in", "in.safetensors", "--out", "o", "--set", &set], 1, &[want]);
        }
    }
}

#[test]
fn an_old_output_survives_a_failed_run() {
    let lab = Lab::new(PROGRAM, &without("v"));
    std::fs::write(lab.path("out.safetensors"), b"old").unwrap();
    lab.exec(&["run", "prog.attn", "--target", "interp", "--in", "in.safetensors", "--out", "out.safetensors"], 1, &["`v`"]);
    assert_eq!(lab.output(), b"old");
}
