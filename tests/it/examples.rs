//! Claims about all examples: regular spacing, headers, a gallery that is current, derivations that tell no stories.

use attnc_compiler::kernel::plan::BufferKind;
use attnc_compiler::syntax;
use attnc_tests::gallery::{derived, header, page, root, slugs, source, stages};

#[test]
fn examples_are_formatted_and_formatting_keeps_comments() {
    for slug in slugs() {
        let text = source(&slug);
        let once = syntax::format(&text).unwrap_or_else(|d| panic!("{slug}: {d:?}"));
        assert_eq!(once, text, "{slug} is not formatted: attnc fmt dsl-examples/{slug}.attn");
        // From a text without any layout the words and comments come back.
        let squeezed: String = text.lines().map(|l| l.trim_start().to_string() + "\n").collect();
        let again = syntax::format(&squeezed).unwrap_or_else(|d| panic!("{slug}: {d:?}"));
        assert_eq!(syntax::format(&again).expect("it parsed before"), again, "{slug}: formatting twice changes something");
        let words = |t: &str| t.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        assert_eq!(words(&again), words(&text), "{slug}: formatting lost something");
    }
}

#[test]
fn headers_say_what_where_and_at_what_cost() {
    for slug in slugs() {
        let checked = attnc_compiler::sema::check(&source(&slug));
        let [graph] = &checked.graphs[..] else { panic!("{slug}: {:?}", checked.diagnostics) };
        assert!(checked.diagnostics.is_empty(), "{slug}: {:?}", checked.diagnostics);
        assert_eq!(graph.name, slug);
        let head = header(&source(&slug));
        assert!(!head.what.is_empty() && head.paper.len() > 10 && head.cost.contains("O("), "{slug}: {head:?}");
    }
}

/// Lines about derivations change with every pass; `make gallery` renews them, and the nightly tests compare them too.
#[test]
fn the_gallery_is_current() {
    let strict = std::env::var("ATTNC_NIGHTLY").is_ok();
    let path = root().join("docs/gallery.md");
    if std::env::var("ATTNC_WRITE").is_ok() {
        std::fs::write(&path, page(true)).expect("docs/gallery.md");
    }
    let have = std::fs::read_to_string(path).expect("docs/gallery.md");
    let have: String = have.lines().filter(|l| strict || !l.starts_with("- Derived: ")).flat_map(|l| [l, "\n"]).collect();
    assert!(have == page(strict), "docs/gallery.md is not what the examples say: run `make gallery`");
}

/// What `explain` tells about each example is there and adds up.
#[test]
fn every_example_is_lowered_and_explained() {
    let mut failures = Vec::new();
    for slug in slugs() {
        let checked = attnc_compiler::sema::check(&source(&slug));
        let graph = checked.graphs.first().unwrap_or_else(|| panic!("{slug} does not check"));
        let stages = match stages(graph) {
            Ok(stages) => stages,
            Err(what) => {
                failures.push(format!("{slug}: {what}"));
                continue;
            }
        };
        let plan = &stages.program.plan;
        let said = derived(&stages);
        let mut wrong = |what: &str| failures.push(format!("{slug}: {what} ({said})"));
        if plan.launches.len() != stages.program.kernels.len() {
            wrong("launches and kernels differ in number");
        }
        for (i, buffer) in plan.buffers.iter().enumerate() {
            let writers = plan.launches.iter().filter(|l| {
                let kernel = &stages.program.kernels[l.kernel as usize];
                l.buffers.iter().zip(&kernel.buffers).any(|(b, arg)| *b as usize == i && arg.written)
            });
            let writers = writers.count();
            match buffer.kind {
                BufferKind::Input(_) if writers > 0 => wrong(&format!("the input {} is written", buffer.name)),
                BufferKind::Temp | BufferKind::Output(_) | BufferKind::Block if writers == 0 => wrong(&format!("nobody writes {}", buffer.name)),
                _ => {}
            }
        }
    }
    assert!(failures.is_empty(), "{} fail\n{}", failures.len(), failures.join("\n"));
}
