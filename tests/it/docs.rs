//! The documentation says true things: its programs check, or earn the code that stands above them.

use attnc_compiler::base::Severity;
use attnc_compiler::sema;
use std::path::Path;

/// A block marked `attn`: the line it starts at, the code it must earn, its text.
struct Block {
    line: usize,
    earns: Option<String>,
    text: String,
}

/// Blocks of a page. `<!-- A0501 -->` on a line of its own above a block names the code.
fn blocks(page: &str) -> Vec<Block> {
    let mut out: Vec<Block> = Vec::new();
    let (mut code, mut open) = (None, false);
    for (number, raw) in page.lines().enumerate() {
        let line = raw.trim();
        if open && line == "```" {
            open = false;
        } else if open {
            if let Some(block) = out.last_mut() {
                block.text.push_str(raw);
                block.text.push('\n');
            }
        } else if line == "```attn" {
            out.push(Block { line: number + 1, earns: code.take(), text: String::new() });
            open = true;
        } else if let Some(comment) = line.strip_prefix("<!-- ").and_then(|l| l.strip_suffix(" -->")) {
            code = Some(comment.to_string());
        }
    }
    out
}

#[test]
fn programs_in_the_documentation_are_checked() {
    let mut count = 0;
    for page in ["docs/language.md", "README.md"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{page}: {e}"));
        for block in blocks(&text) {
            count += 1;
            let checked = sema::check(&block.text);
            let errors: Vec<&str> = checked.diagnostics.iter().filter(|d| d.severity == Severity::Error).map(|d| d.code).collect();
            let want: Vec<&str> = block.earns.iter().map(String::as_str).collect();
            assert_eq!(errors, want, "{page}:{}: {:?}", block.line, checked.diagnostics);
            // Warnings would be bad advice.
            if want.is_empty() {
                assert!(checked.diagnostics.is_empty(), "{page}:{}: {:?}", block.line, checked.diagnostics);
            }
        }
    }
    assert!(count >= 10, "only {count} programs found");
}

/// Codes that the documentation mentions exist.
#[test]
fn codes_in_the_documentation_have_a_long_text() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/language.md");
    let text = std::fs::read_to_string(path).expect("docs/language.md");
    let mut found = 0;
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()) {
        let code = word.len() == 5 && word.starts_with('A') && word[1..].bytes().all(|b| b.is_ascii_digit());
        if code {
            found += 1;
            let known = sema::errors::explain(word).or_else(|| attnc_compiler::syntax::errors::explain(word));
            assert!(known.is_some(), "`{word}` is no code");
        }
    }
    assert!(found >= 20, "only {found} codes found");
}
