//! Precedence, recovery, printing, and that no input makes the parser fall over.

use super::ast::*;
use super::*;
use std::path::Path;

fn codes(diagnostics: &[Diagnostic]) -> Vec<&'static str> {
    diagnostics.iter().map(|d| d.code).collect()
}

/// `e` as the fully parenthesised right side of a definition.
fn shape(e: &str) -> String {
    let (file, diagnostics) = parse(&format!("kernel k(x: [t]) -> (o: [t]) {{ o = {e} }}"), SourceId::User);
    assert!(diagnostics.is_empty(), "{e}: {diagnostics:?}");
    let text = print(&file);
    let line = text.lines().nth(1).unwrap_or_default().trim();
    line.strip_prefix("o = ").unwrap_or_else(|| panic!("{text}")).to_string()
}

fn body(text: &str) -> (Vec<Stmt>, Vec<Diagnostic>) {
    let (file, diagnostics) = parse(&format!("kernel k(x: [t]) -> (o: [t]) {{ {text} }}"), SourceId::User);
    match file.items.into_iter().next() {
        Some(Item::Kernel(k)) => (k.body.stmts, diagnostics),
        other => panic!("{other:?}"),
    }
}

#[test]
fn precedence() {
    let table = [
        ("a + b * c", "a + (b * c)"),
        ("a - b - c", "(a - b) - c"),
        ("a div b mod c", "(a div b) mod c"),
        ("-x^2", "-(x ^ 2)"),
        ("a^b^c", "a ^ (b ^ c)"),
        ("D^-0.5 * x", "(D ^ (-0.5)) * x"),
        ("a ?? b ?? -c ^ 2", "((a ?? b) ?? (-c)) ^ 2"),
        ("doc != doc[p = p - 1] ?? 0", "doc != (doc[p = p - 1] ?? 0)"),
        ("not a < b and c or d", "((not (a < b)) and c) or d"),
        ("0 <= t - s < w", "0 <= (t - s) < w"),
        ("sum[d] q * k + bias", "(sum[d] (q * k)) + bias"),
        ("sum[e] (x - v)^2", "sum[e] ((x - v) ^ 2)"),
        ("a * sum[d] q * k", "a * (sum[d] (q * k))"),
        ("max[i] sum[j] core", "max[i] (sum[j] core)"),
        ("(max[i] sum[j] c) * max[j] sum[i] c", "(max[i] (sum[j] c)) * (max[j] (sum[i] c))"),
        ("count[t] (a == b) + 1", "(count[t] (a == b)) + 1"),
        ("sum[<= t] f + 1", "(sum[<= t] f) + 1"),
        ("a / sum[<= t] exp(k)", "a / (sum[<= t] exp(k))"),
        ("(sum[<= j] p[u = at]) <= limit", "(sum[<= j] p[u = at]) <= limit"),
        ("x + if d == i then r else 0", "x + (if (d == i) then r else 0)"),
        ("exp(g) * if c then a else b + 1", "exp(g) * (if c then a else (b + 1))"),
        ("sum[c] if x > 0 then x * y else 0", "sum[c] (if (x > 0) then (x * y) else 0)"),
        ("if a then b else if c then d else e", "if a then b else (if c then d else e)"),
        ("- if a then b else c", "-(if a then b else c)"),
        ("a < if c then d else e < f", "a < (if c then d else (e < f))"),
        ("not if c then d else e or f", "not (if c then d else (e or f))"),
        // where
        ("sum[s] x where s <= t", "sum[s] x where (s <= t)"),
        ("a * sum[d] q * k where s <= t and m", "a * (sum[d] (q * k) where ((s <= t) and m))"),
        ("sum[d] q * k + c where m", "((sum[d] (q * k)) + c) where m"),
        ("c + sum[d] q * k where m", "c + (sum[d] (q * k) where m)"),
        ("(sum[d] q * k) where m", "(sum[d] (q * k)) where m"),
        ("soft[s](x where m) * v", "soft[s](x where m) * v"),
        ("max[j] sum[i] c where m", "max[j] (sum[i] c where m)"),
        ("sum[i] a * sum[<= t] b where m", "sum[i] (a * (sum[<= t] b)) where m"),
        ("x where a where b", "(x where a) where b"),
        ("sum[s] x where a where b", "sum[s] (x where a) where b"),
        ("if c then x where m else sum[s] y where n", "if c then (x where m) else (sum[s] y where n)"),
        ("a < sum[s] y where n", "a < (sum[s] y where n)"),
        ("conf where any[i] (v == n)", "conf where (any[i] (v == n))"),
        // reads and calls
        ("x[a = e, b = f][c = g]", "x[a = e, b = f][c = g]"),
        ("(v * c)[t = s]", "(v * c)[t = s]"),
        ("run(x[t = T - 1 - t])[t = 0]", "run(x[t = (T - 1) - t])[t = 0]"),
        ("argsort[t -> j](k)[j = m]", "argsort[t -> j](k)[j = m]"),
        ("topk[h, m](p, n)", "topk[h, m](p, n)"),
        ("max(a, b) + min(c, d,)", "max(a, b) + min(c, d)"),
        ("count * mean + sum", "(count * mean) + sum"),
        ("mean[t = s] + max[t] x", "mean[t = s] + (max[t] x)"),
        ("S'[row = row + 1]", "S'[row = row + 1]"),
        ("1e-6 + 1.5 + 10", "(1e-6 + 1.5) + 10"),
        ("state * mask[t = axis] + kernel", "(state * mask[t = axis]) + kernel"),
        ("inf + pi", "inf + pi"),
    ];
    for (text, want) in table {
        assert_eq!(shape(text), want, "{text}");
    }
}

#[test]
fn contextual_words_may_be_names() {
    let (stmts, diagnostics) = body(
        "let mask = state axis s: T mask m = s <= mask state = axis state S: [d] = state S' = S
         scan t reverse where until { until = reverse } repeat until until until { state state = 0 state' = kernel }
         schedule = target mean = count",
    );
    assert_eq!(codes(&diagnostics), [""; 0]);
    let kinds: Vec<&str> = stmts
        .iter()
        .map(|s| match &s.kind {
            StmtKind::Axis(_) => "axis",
            StmtKind::Let { mask: false, .. } => "let",
            StmtKind::Let { mask: true, .. } => "mask",
            StmtKind::Require(_) => "require",
            StmtKind::Return(_) => "return",
            StmtKind::State { .. } => "state",
            StmtKind::Scan { reverse: true, cond: Some(_), .. } => "scan reverse where",
            StmtKind::Scan { .. } => "scan",
            StmtKind::Repeat { until: Some(_), .. } => "repeat until",
            StmtKind::Repeat { .. } => "repeat",
            StmtKind::Set { primed: true, .. } => "set'",
            StmtKind::Set { primed: false, .. } => "set",
            StmtKind::Fn(_) => "fn",
            StmtKind::Schedule(_) => "schedule",
            StmtKind::Error => "error",
        })
        .collect();
    assert_eq!(kinds, ["let", "axis", "mask", "set", "state", "set'", "scan reverse where", "repeat until", "set", "set"]);
}

#[test]
fn headers_docs_and_schedules() {
    let text = "
        /// Doc of f.
        ///  indented
        fn f[a, b](x, n = 2 * 3,) = sum[a] x where n > 0
        /// Doc of k.
        // not a doc
        kernel k(kernel: int [a], log_f: [b,h,t] <= 0, w: int >= 1 = 4, s0: [d,] = 0, z: complex,) -> (o: [b,h,t], idx: int [b,n], l: []) {
            /// nobody's doc
            let x = 3;; require w > 0;
            fn inner(x) { return x }
            schedule { tile t 128; chunk t 64 stages 3; target ptx { mask 1 2; fast } scan }
        }";
    let (file, diagnostics) = parse(text, SourceId::User);
    assert_eq!(codes(&diagnostics), [""; 0]);
    let [Item::Fn(f), Item::Kernel(k)] = &file.items[..] else { panic!("{file:?}") };
    assert_eq!(f.doc, ["Doc of f.", " indented"]);
    assert_eq!(k.doc, ["Doc of k."]);
    assert_eq!((k.params.len(), k.outputs.len(), k.body.stmts.len()), (5, 3, 4));
    assert!(matches!(&k.params[1].fact, Some((CmpOp::Le, _))));
    assert!(k.params[2].fact.is_some() && k.params[2].default.is_some());
    let Some(StmtKind::Schedule(s)) = k.body.stmts.last().map(|s| &s.kind) else { panic!() };
    let entries: Vec<(usize, usize)> = s.entries.iter().map(|e| (e.words.len(), e.numbers.len())).collect();
    assert_eq!(entries, [(2, 1), (2, 1), (1, 1), (2, 0), (1, 0)]);
    assert_stable(text);
}

#[test]
fn errors_are_reported_each_and_parsing_goes_on() {
    let (stmts, diagnostics) = body("let a = 1 + let b = (2 o = 3 * * 4 let c 5 let d = 6 x[t = 1] = 7 let e = 8 }");
    assert_eq!(codes(&diagnostics), ["A0101", "A0119", "A0101", "A0101", "A0101", "A0109"]);
    let good: Vec<&str> = stmts
        .iter()
        .filter_map(|s| match &s.kind {
            StmtKind::Let { name, value, .. } if !matches!(*value.kind, ExprKind::Error) => Some(name.name.as_str()),
            _ => None,
        })
        .collect();
    assert!(good.contains(&"e"), "{good:?}");
}

#[test]
fn one_error_per_cause() {
    let table: &[(&str, &str)] = &[
        ("kernel k(q: [b,h t,d], k: [b]) -> (o: [b]) { o = k }", "A0101"),
        ("kernel k(q: [b,t] -> (o: [b,t]) { o = q }", "A0101"),
        ("kernel k(q: [b,t]) { o = q }", "A0101"),
        ("kernel k(q: [b,t]) -> (o: [b,t]) { o = q", "A0108"),
        ("kernel k(q: [b,t]) -> (o: [b,t]) { o = q } }", "A0109"),
        ("kernel k(q: [b,t]) -> (o: [b,t]) { scan t { o = q } kernel l(q: [t]) -> (o: [t]) { o = q }", "A0108"),
        ("kernel k(q: [b,t]) -> (o: [b,t]) { o = q + §§€ }", "A0103"),
        ("kernel k(q: float [b,t]) -> (o: [b,t]) { o = q }", "A0118"),
        ("kernel k(q: [t]) -> (o: [t]) { o = sum[<= t] q * 2 }", "A0110"),
        ("kernel k(q: [t]) -> (o: [t]) { o = 3 * sum[<= t] q / 2 }", "A0110"),
        ("kernel k(q: [t]) -> (o: [t]) { o = if q = 0 then 1 else 2 }", "A0112"),
        ("kernel k(q: [t]) -> (o: [t]) { let x == 3 o = q }", "A0112"),
        ("kernel k(q: [t]) -> (o: [t]) { o = if q > 0 && q < 1 then 1 else 2 }", "A0113"),
        ("kernel k(q: [t]) -> (o: [t]) { let div = 3 o = q }", "A0111"),
        ("kernel k(scan: [t]) -> (o: [t]) { o = 1 }", "A0111"),
        ("kernel k(q: [t]) -> (o: [t]) { o = 99999999999999999999 }", "A0104"),
        ("kernel k(q: [t]) -> (o: [t]) { o = 1e999 }", "A0104"),
        ("kernel k(q: [t]) -> (o: [t])", "A0102"),
        ("x = 3 kernel k(q: [t]) -> (o: [t]) { o = q }", "A0101"),
        ("import \"a.attn\" kernel k(q: [t]) -> (o: [t]) { o = q }", "A0117"),
        ("kernel k(q: [t]) -> (o: [t]) { for s in q { o = q } let x = 3 }", "A0101"),
        ("kernel k(q: [t]) -> (o: [t]) { prev(q) o = q }", "A0101"),
        ("kernel k(q: [t]) -> (o: [t]) o = q }", "A0101"),
        ("kernel k(q: [t]) -> o: [t] { o = q }", "A0101"),
        ("kernel k(q: [t]) -> (o: [t]) { let y = f(q[t = 3] o = y }", "A0119"),
        ("kernel k(q: [t]) -> (o: [t]) { o = f(q, axis = 3) }", "A0101"),
        ("kernel k(q: [t]) -> (o: [t]) { o += 3 }", "A0113"),
        ("kernel k(q: [t]) -> (o: [t]) { o = f(q + ", "A0108"),
        ("kernel k(q: [t]) -> (o: [t]) { let g = h * G // H\n o = q }", "A0114"),
        ("kernel k(q: [t]) -> (o: [t]) { if q > 0 then 1 else 2 }", "A0101"),
    ];
    for (text, code) in table {
        let (_, diagnostics) = parse(text, SourceId::User);
        assert_eq!(codes(&diagnostics), [*code], "{text}\n{diagnostics:#?}");
        assert!(errors::explain(code).is_some(), "{code}");
    }
}

#[test]
fn errors_read_well() {
    let text = "kernel k(q: [b,4] k: [t]) -> (o: [t]) {
    let x = D^-0.5 * sum[d] q * k[t - 1]
    let y = f(a, (b + c)
    o = if x = 0 then 1
    for s in T { o = q }
    o = sum[<= t] x / y ≤ 3
}
";
    let (_, diagnostics) = parse(text, SourceId::User);
    insta::assert_snapshot!(crate::base::render::text(&diagnostics, text, "k.attn", "", false));
}

#[test]
fn depth_is_bounded() {
    let wrap = |e: String| format!("kernel k(q: [t]) -> (o: [t]) {{ o = {e} let z = 1 }}");
    let many = 100_000;
    let cases = [
        wrap(vec!["a"; many].join("+")),
        wrap(vec!["a"; many].join("^")),
        wrap(vec!["a"; many].join(" ?? ")),
        wrap(vec!["a"; many].join(" and not ")),
        wrap(format!("{}a{}", "(".repeat(many), ")".repeat(many))),
        wrap("(".repeat(many)),
        wrap(format!("{}a", "-".repeat(many))),
        wrap(format!("{}a", "not ".repeat(many))),
        wrap(format!("{}a", "sum[t] ".repeat(many))),
        wrap(format!("{}a", "if a then b else ".repeat(many))),
        wrap(format!("{}a", "if ".repeat(many))),
        wrap(format!("a{}", "[t = a".repeat(many))),
        wrap(format!("a{}", "[t = a]".repeat(many))),
        wrap(format!("a{}", " where a".repeat(many))),
        wrap(format!("sum[t] a{}", " where a".repeat(many))),
        wrap(format!("{}a", "f(".repeat(many))),
    ];
    for text in &cases {
        let (file, diagnostics) = parse(text, SourceId::User);
        assert!(!diagnostics.is_empty() && diagnostics.len() <= 2, "{:.60}: {} {:?}", text, diagnostics.len(), diagnostics.first());
        assert!(matches!(diagnostics[0].code, "A0105" | "A0107"), "{:.60} {:?}", text, diagnostics[0]);
        let Item::Kernel(k) = &file.items[0] else { panic!() };
        assert_eq!(k.body.stmts.len(), 2, "{text:.60}");
    }
    let blocks = format!("kernel k(q: [t]) -> (o: [t]) {{ {} x = 1 {} let z = 1 }}", "scan t { ".repeat(300), "}".repeat(300));
    let (_, diagnostics) = parse(&blocks, SourceId::User);
    assert_eq!(codes(&diagnostics), ["A0106"]);
    let (_, diagnostics) = parse(&" ".repeat(MAX_SOURCE + 1), SourceId::User);
    assert_eq!(codes(&diagnostics), ["A0107"]);
    // up to the limit all is well, at the bottom of the deepest blocks too; chains print with parentheses, which are levels as well
    let most = usize::from(MAX_DEPTH) - 2;
    let deep = format!("let a = {}b{} let c = {} let d = {} sum[t] e where f", "(".repeat(most), ")".repeat(most), vec!["d"; most / 2].join("+"), "not ".repeat(most / 2 - 3));
    let text = format!("kernel k(q: [t]) -> (o: [t]) {{ {} {deep} {} }}", "scan t { ".repeat(60), "}".repeat(60));
    assert_stable(&text);
    // wide is fine
    assert!(parse(&wrap(format!("f({})", "a^2, -b, ".repeat(2000))), SourceId::User).1.is_empty());
}

/// Programs of the language probe and of the examples folder, as far as they are there.
fn programs() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for folder in ["../shared/prototypes/language_probe/programs", "dsl-examples"] {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else { continue };
        for path in entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "attn")) {
            if let Ok(text) = std::fs::read_to_string(&path) {
                found.push((path.display().to_string(), text));
            }
        }
    }
    found.push(("small".into(), SMALL.into()));
    found.sort();
    found
}

const SMALL: &str = "
/// Everything once.
fn f[u](p, limit = 2) { let at = argsort[u -> j](-p where p > 0) return p[u = at] ?? -1 }
kernel k(q: [b,h,t,d], n: int [b] >= 0, scale: real = D^-0.5) -> (o: [b,h,t,d], idx: int [b,n]) {
    require T mod 2 == 0 and n > 0
    axis s: T, c: ceildiv(T, 64)
    mask seen = 0 <= t - s < 7 or not s == t
    fn half(x) = x / 2 where x != 0
    let x: [b,h,t,s] = scale * sum[d] q * q[t = s] where seen
    scan t reverse where t > 2 {
        state S: [d] = 0   state R: complex [d] = complex(1, 2.5e-3)
        S' = S + if t == 0 then half(q) else exp(-q)^2
        R' = R * (sum[<= s] x)
        o  = S'[d = D - 1 - d] + inf
    }
    repeat 3 until any[c] (c == 2) { state m: bool = false  m' = true }
    idx = list[s -> n](topk[s](x, 4)) ?? -1
    schedule { tile t 128; chunk t 64; target ptx { stages 3 } }
}
";

fn assert_stable(text: &str) {
    let (file, diagnostics) = parse(text, SourceId::User);
    assert!(diagnostics.is_empty(), "{diagnostics:#?}");
    let once = print(&file);
    let (again, diagnostics) = parse(&once, SourceId::User);
    assert!(diagnostics.is_empty(), "{once}\n{diagnostics:#?}");
    assert_eq!(once, print(&again));
}

#[test]
fn programs_parse_and_print_stably() {
    for (name, text) in programs() {
        let (_, diagnostics) = parse(&text, SourceId::User);
        assert!(diagnostics.is_empty(), "{name}: {diagnostics:#?}");
        assert_stable(&text);
    }
}

#[test]
fn formatting_is_regular() {
    let messy = "\n\n///  doc\r\nkernel   k( q:[b ,h, t],n :int[b]>=  0,\n           s: real=D ^ -0.5 , )->(o :[b,h,t]){\n\
         let a=q*2  -  -1   // first\n\tlet bc  = 3*b + sum [ s ] -x\n\n\n\n  // about the scan\n  scan t reverse where t>2 {state S:[ d , e ]=0    S'=S\n\
         o = if q>0 then\n         f [s -> j] ( a,b ) [ t=s ]\n      else count[ t ] (q==0) + sum[<=t] g\n }\n\
         schedule {tile t 128;chunk t 64\ntarget ptx {stages 3}}\n   }\n\n\n";
    let want = "\
///  doc
kernel k(q: [b,h,t], n: int [b] >= 0,
           s: real = D^-0.5,) -> (o: [b,h,t]) {
    let a = q*2 - -1   // first
    let bc = 3*b + sum[s] -x

    // about the scan
    scan t reverse where t > 2 { state S: [d,e] = 0    S' = S
        o = if q > 0 then
                 f[s -> j](a, b)[t = s]
              else count[t] (q == 0) + sum[<= t] g
    }
    schedule { tile t 128; chunk t 64
        target ptx { stages 3 } }
}
";
    assert_eq!(format(messy).as_deref(), Ok(want));
    assert_eq!(format(want).as_deref(), Ok(want));
    let aligned = "kernel k(q: [t]) -> (o: [t]) {\n    let a   = 1\n    let bcd = 2\n    o = q\n}\n";
    assert_eq!(format(aligned).as_deref(), Ok(aligned));
    assert_eq!(format("").as_deref(), Ok(""));
    assert!(format("kernel").is_err());
}

#[test]
fn formatting_keeps_programs() {
    for (name, text) in programs() {
        let tidy = format(&text).unwrap();
        assert_eq!(format(&tidy).as_deref(), Ok(tidy.as_str()), "{name}");
        assert_eq!(print(&parse(&text, SourceId::User).0), print(&parse(&tidy, SourceId::User).0), "{name}");
        let comments = |t: &str| t.matches("//").count();
        assert_eq!(comments(&text), comments(&tidy), "{name}");
    }
}

/// A small generator (xorshift), so that runs repeat.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// One to six edits: characters and tokens dropped, doubled, swapped or taken from elsewhere.
fn mutate(text: &str, r: &mut Random) -> String {
    let mut tokens: Vec<String> = token::lex(text).into_iter().map(|(l, _, e)| text[l..e].to_string()).collect();
    const ODD: &[&str] = &[
        "(", ")", "[", "]", "{", "}", "=", "==", "where", "if", "then", "else", "sum", "let", "scan", "kernel k(", "fn", "state", "axis", "'", "é", "\u{0}", "??",
        "->", "<=", ";", ",", ":", "schedule {", "not", "-", "///x\n", "//", "99999999999999999999", "1e400", "return", "mask", "repeat", "until", "S'", "inf",
        "import a", "\u{feff}", "&&", "\"",
    ];
    for _ in 0..1 + r.below(6) {
        let at = r.below(tokens.len());
        match r.below(6) {
            0 if !tokens.is_empty() => drop(tokens.remove(at)),
            1 => tokens.insert(at, ODD[r.below(ODD.len())].to_string()),
            2 if !tokens.is_empty() => {
                let t = tokens[r.below(tokens.len())].clone();
                tokens[at] = t;
            }
            3 if !tokens.is_empty() => {
                let other = r.below(tokens.len());
                tokens.swap(at, other);
            }
            4 if !tokens.is_empty() => {
                let keep = at + r.below(tokens.len() - at);
                tokens.truncate(keep.max(1));
            }
            _ if !tokens.is_empty() => {
                let upto = (at + 1 + r.below(12)).min(tokens.len());
                let copy: Vec<String> = tokens[at..upto].to_vec();
                let to = r.below(tokens.len());
                tokens.splice(to..to, copy);
            }
            _ => {}
        }
    }
    let mut out = String::new();
    for t in tokens {
        out.push_str(&t);
        out.push_str(if t.starts_with("//") { "\n" } else { [" ", " ", " ", "", "\n"][r.below(5)] });
    }
    out
}

/// Whether the file holds an error node anywhere.
fn has_error(file: &File) -> bool {
    print(file).contains("<error>")
}

#[test]
fn mutants_never_panic_and_errors_are_never_silent() {
    let programs = programs();
    let mut r = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..20_000 {
        let (name, text) = &programs[r.below(programs.len())];
        let mutant = mutate(text, &mut r);
        let (file, diagnostics) = parse(&mutant, SourceId::User);
        if diagnostics.is_empty() {
            assert!(!has_error(&file), "round {round} of {name}: silent error\n{mutant}");
            if round % 8 == 0 {
                assert_stable(&mutant);
                let tidy = format(&mutant).unwrap();
                assert_eq!(format(&tidy).as_deref(), Ok(tidy.as_str()), "round {round} of {name}");
                assert_eq!(print(&file), print(&parse(&tidy, SourceId::User).0));
            }
        }
        for d in &diagnostics {
            assert!(errors::explain(d.code).is_some() && !d.labels.is_empty());
            for l in &d.labels {
                assert!(l.span.end as usize <= mutant.len() && l.span.start <= l.span.end);
                assert!(mutant.is_char_boundary(l.span.start as usize) && mutant.is_char_boundary(l.span.end as usize));
            }
        }
    }
}
