//! What each layer must not know: names of variants, and layers that stand above it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Source files below `folder`, tests left out.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut todo = vec![root().join(folder)];
    while let Some(path) = todo.pop() {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if name != "tests" {
                let entries = std::fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                todo.extend(entries.map(|e| e.expect("an entry").path()));
            }
        } else if (name.ends_with(".rs") || name.ends_with(".lalrpop")) && name != "tests.rs" {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let shown = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
            // A module of tests closes the file.
            let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
            out.push((shown, text[..end].to_string()));
        }
    }
    assert!(!out.is_empty(), "nothing in {folder}");
    out
}

/// Words of a line: letters, digits, `_`.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|w| !w.is_empty())
}

/// Programs and the prelude are the only places where variants have names.
#[test]
fn no_layer_knows_the_name_of_a_variant() {
    let mut names: BTreeSet<String> = ["softmax", "causal", "alibi", "flash", "mamba", "lightning", "retention"].map(String::from).into();
    for entry in std::fs::read_dir(root().join("dsl-examples")).expect("dsl-examples") {
        let path = entry.expect("an entry").path();
        let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        // Single words may be words of the trade (a pool, a mask); those that are not stand in the list above.
        if stem.contains('_') {
            names.insert(stem);
        }
    }
    assert!(names.len() > 50, "only {} names", names.len());
    let mut found = Vec::new();
    for folder in ["compiler/src", "compiler/cli/src", "codegen/src", "runtime/src"] {
        for (path, text) in sources(folder) {
            for (number, line) in text.lines().enumerate() {
                for word in words(line).filter(|w| names.contains(&w.to_ascii_lowercase())) {
                    found.push(format!("{path}:{}: {word}", number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Second segments of paths that start with `base::`.
fn uses(text: &str, base: &str) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let code: String = text.lines().filter(|l| !l.trim_start().starts_with("//")).fold(String::new(), |all, l| all + l + "\n");
    for (at, _) in code.match_indices(base) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + base.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            // `use crate::{a, b::c}`: the head of each entry at depth 0.
            let (mut depth, mut head, mut take) = (0, String::new(), true);
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        out.insert(std::mem::take(&mut head));
                        take = true;
                    }
                    c if depth == 0 && take && (c.is_ascii_alphanumeric() || c == '_') => head.push(c),
                    ':' if depth == 0 => take = false,
                    _ => {}
                }
            }
            out.insert(head);
        } else {
            out.insert(rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect());
        }
    }
    out.remove("");
    out
}

#[test]
fn uses_are_found_in_groups_and_paths() {
    let text = "use crate::{graph::{Op, Node}, ops};\nuse crate::base::Span; // crate::tiles::X\nlet x = crate::reduce::Y;\nuse other_crate::sema;\n//! crate::sema\n";
    let found: Vec<String> = uses(text, "crate::").into_iter().collect();
    assert_eq!(found, ["base", "graph", "ops", "reduce", "tiles"]);
}

fn check(folder: &str, base: &str, allowed: &[&str]) {
    for (path, text) in sources(folder) {
        let found = uses(&text, base);
        let wrong: Vec<&String> = found.iter().filter(|u| !allowed.contains(&u.as_str())).collect();
        assert!(wrong.is_empty(), "{path} must not use {base}{wrong:?}");
    }
}

/// The direction of imports inside the compiler: IRs know no passes, syntax knows no IR.
#[test]
fn layers_of_the_compiler_import_downwards() {
    check("compiler/src/base", "crate::", &["base"]);
    check("compiler/src/syntax", "crate::", &["syntax", "base"]);
    check("compiler/src/sema", "crate::", &["sema", "syntax", "base", "graph", "ops", "reduce"]);
    check("compiler/src/graph", "crate::", &["graph", "base", "ops", "reduce"]);
    check("compiler/src/kernel", "crate::", &["kernel", "base", "ops", "reduce"]);
    check("compiler/src/interp", "crate::", &["interp", "base", "graph", "tiles", "kernel", "ops", "reduce"]);
    check("compiler/src/passes", "crate::", &["passes", "base", "graph", "tiles", "kernel", "ops", "reduce"]);
    // Tiles are over axes of the graph, with host expressions of the plan; nothing else of the two.
    check("compiler/src/tiles", "crate::", &["tiles", "base", "ops", "reduce", "graph", "kernel"]);
    check("compiler/src/tiles", "crate::graph::", &["AxisId"]);
    check("compiler/src/tiles", "crate::kernel::", &["plan"]);
}

#[test]
fn backends_read_kernels_only() {
    check("codegen/src", "attnc_compiler::", &["kernel", "ops", "reduce"]);
    for entry in std::fs::read_dir(root().join("codegen/src")).expect("codegen/src") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() && ["cpu", "wgsl", "ptx"].contains(&name.as_str()) {
            for (file, text) in sources(&format!("codegen/src/{name}")) {
                for other in ["cpu", "wgsl", "ptx"].into_iter().filter(|o| *o != name) {
                    assert!(!uses(&text, "crate::").contains(other), "{file} uses the backend {other}");
                }
            }
        }
    }
}

/// No layer below the command line reads or writes where its caller did not ask it to.
#[test]
fn the_compiler_has_no_files_and_nobody_but_the_command_line_exits() {
    for (path, text) in sources("compiler/src") {
        for word in ["std::fs", "std::net", "std::process", "std::env"] {
            assert!(!text.contains(word), "{path} uses {word}");
        }
    }
    for folder in ["compiler/src", "codegen/src", "runtime/src"] {
        for (path, text) in sources(folder) {
            for (number, line) in text.lines().enumerate().filter(|l| !l.1.trim_start().starts_with("//")) {
                for word in ["println!", "eprintln!", "process::exit"] {
                    assert!(!line.contains(word), "{path}:{}: {word}", number + 1);
                }
            }
        }
    }
}

/// Where `unsafe` may stand, and that each place says why it is sound.
#[test]
fn unsafe_code_stands_where_it_may() {
    let homes = ["runtime/src/driver/", "codegen/src/cpu/micro/", "codegen/src/ptx/address.rs"];
    for folder in ["compiler/src", "compiler/cli/src", "codegen/src", "runtime/src"] {
        for (path, text) in sources(folder) {
            if homes.iter().any(|h| path.starts_with(h)) {
                continue;
            }
            assert!(!text.contains("allow(unsafe_code)"), "{path} allows unsafe code");
        }
    }
}
