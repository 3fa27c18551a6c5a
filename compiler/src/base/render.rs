//! Diagnostics as text for people and as JSON for tools. Where a span lies is worked out here; the wording comes with the diagnostic.

use super::diag::{Diagnostic, Severity};
use super::span::{SourceId, Span};
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;
use std::ops::Range;

/// Name under which positions in the prelude are shown.
pub const PRELUDE_NAME: &str = "prelude.attn";

/// The texts that spans point into.
#[derive(Clone, Copy)]
struct Sources<'a> {
    user: (&'a str, &'a str),
    prelude: (&'a str, &'a str),
}

impl<'a> Sources<'a> {
    /// Name and text of a source.
    fn get(&self, id: SourceId) -> (&'a str, &'a str) {
        match id {
            SourceId::User => self.user,
            SourceId::Prelude => self.prelude,
        }
    }
}

/// All diagnostics in the order given, in the look of rustc, each followed by an empty line; empty for no diagnostics.
///
/// `user_source` is the text of `file_name`, `prelude` that of the prelude; spans that do not fit their text are clamped to it.
/// `colour` adds ANSI escapes.
pub fn text(diagnostics: &[Diagnostic], user_source: &str, file_name: &str, prelude: &str, colour: bool) -> String {
    let sources = Sources { user: (file_name, user_source), prelude: (PRELUDE_NAME, prelude) };
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for d in diagnostics {
        out.push_str(&renderer.render(&[group(d, sources)]));
        out.push_str("\n\n");
    }
    out
}

fn group<'a>(d: &'a Diagnostic, sources: Sources<'a>) -> Group<'a> {
    let level = match d.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = level.primary_title(d.message.as_str()).id(d.code).elements(std::iter::empty::<Snippet<'a, Annotation<'a>>>());
    let mut ids: Vec<SourceId> = Vec::new();
    for label in &d.labels {
        if !ids.contains(&label.span.source) {
            ids.push(label.span.source);
        }
    }
    for id in ids {
        group = group.element(snippet(d, id, sources));
    }
    for help in &d.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    group
}

/// The labels of `d` that lie in source `id`. Only the lines from the first to the last label are handed on, as sources can be long.
fn snippet<'a>(d: &'a Diagnostic, id: SourceId, sources: Sources<'a>) -> Snippet<'a, Annotation<'a>> {
    let (name, source) = sources.get(id);
    let labels: Vec<(bool, Range<usize>, &str)> = d
        .labels
        .iter()
        .enumerate()
        .filter(|(_, l)| l.span.source == id)
        .map(|(index, l)| (index == 0, clamp(l.span, source), l.text.as_str()))
        .collect();
    let first = labels.iter().map(|l| l.1.start).min().unwrap_or(0);
    let last = labels.iter().map(|l| l.1.end).max().unwrap_or(0);
    let from = source[..first].rfind('\n').map_or(0, |at| at + 1);
    let to = source[last..].find('\n').map_or(source.len(), |at| last + at);
    Snippet::source(&source[from..to]).path(name).line_start(line_of(source, from)).annotations(labels.into_iter().map(
        |(primary, range, text)| {
            let kind = if primary { AnnotationKind::Primary } else { AnnotationKind::Context };
            kind.span(range.start - from..range.end - from).label(text)
        },
    ))
}

/// The bytes of `span` cut to `source` and widened to whole characters.
fn clamp(span: Span, source: &str) -> Range<usize> {
    let mut start = (span.start as usize).min(source.len());
    while !source.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = (span.end as usize).clamp(start, source.len());
    while !source.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

/// Line of a byte, counted from 1.
fn line_of(source: &str, at: usize) -> usize {
    source.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1
}

/// Line and column of a byte, both counted from 1, the column in characters.
fn place(source: &str, at: usize) -> (usize, usize) {
    let line_start = source[..at].rfind('\n').map_or(0, |n| n + 1);
    (line_of(source, at), source[line_start..at].chars().count() + 1)
}

/// One diagnostic in JSON.
#[derive(Serialize)]
struct Record<'a> {
    severity: Severity,
    code: &'a str,
    message: &'a str,
    labels: Vec<Place<'a>>,
    help: &'a [String],
}

/// A label in JSON: bytes from 0, lines and columns from 1 (columns in characters), ends exclusive.
#[derive(Serialize)]
struct Place<'a> {
    file: &'a str,
    start: usize,
    end: usize,
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
    text: &'a str,
}

/// All diagnostics as JSON, one object a line: `severity`, `code`, `message`, `labels` (the first is the primary place), `help`.
pub fn json(diagnostics: &[Diagnostic], user_source: &str, file_name: &str, prelude: &str) -> String {
    let sources = Sources { user: (file_name, user_source), prelude: (PRELUDE_NAME, prelude) };
    let mut out = String::new();
    for d in diagnostics {
        let labels = d.labels.iter().map(|l| {
            let (file, source) = sources.get(l.span.source);
            let range = clamp(l.span, source);
            let (line, column) = place(source, range.start);
            let (end_line, end_column) = place(source, range.end);
            Place { file, start: range.start, end: range.end, line, column, end_line, end_column, text: &l.text }
        });
        let record =
            Record { severity: d.severity, code: d.code, message: &d.message, labels: labels.collect(), help: &d.help };
        // Plain strings and numbers: writing them cannot fail.
        if let Ok(line) = serde_json::to_string(&record) {
            out.push_str(&line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(source: &str, what: &str) -> Span {
        let start = source.find(what).unwrap();
        Span::new(SourceId::User, start, start + what.len())
    }

    #[test]
    fn looks_like_rustc() {
        let source = "kernel k() -> () {\n    mask m = q - d < 128\n    let é = 1\n}\n";
        let prelude = "fn f(x) = x\n";
        let d = Diagnostic::error("A0213", "a mask may depend on positions only")
            .label(at(source, "d <"), "`d` is a feature axis")
            .label(at(source, "m ="), "in this mask")
            .label(Span::new(SourceId::Prelude, 3, 4), "called from here")
            .help("use `k` for the key position");
        insta::assert_snapshot!(text(&[d], source, "local.attn", prelude, false), @r"
        error[A0213]: a mask may depend on positions only
         --> local.attn:2:18
          |
        2 |     mask m = q - d < 128
          |          ---     ^^^ `d` is a feature axis
          |          |
          |          in this mask
          |
         ::: prelude.attn:1:4
          |
        1 | fn f(x) = x
          |    - called from here
          |
          = help: use `k` for the key position
        ");
    }

    #[test]
    fn any_span_renders() {
        let source = "aé\tb\n\nlet x = §€\r\n";
        for start in 0..source.len() + 3 {
            for end in 0..source.len() + 3 {
                let span = Span { source: SourceId::User, start: start as u32, end: end as u32 };
                let other = Span { source: SourceId::Prelude, ..span };
                let d = Diagnostic::warning("A0001", "w").label(span, "here").label(other, "there").label(span, "again");
                for colour in [false, true] {
                    assert!(text(std::slice::from_ref(&d), source, "f", "", colour).contains("A0001"));
                }
                assert_eq!(json(&[d], source, "f", "").lines().count(), 1);
            }
        }
        let bare = Diagnostic::error("A0002", "nothing to show").help("h");
        assert!(text(&[bare], "", "f", "", false).starts_with("error[A0002]: nothing to show"));
    }

    #[test]
    fn json_counts_from_one_in_characters() {
        let source = "x\né = 1\n";
        let d = Diagnostic::error("A0002", "m\"").label(at(source, "="), "t");
        let line = json(&[d], source, "f.attn", "");
        insta::assert_snapshot!(line, @r#"{"severity":"error","code":"A0002","message":"m\"","labels":[{"file":"f.attn","start":5,"end":6,"line":2,"column":3,"end_line":2,"end_column":4,"text":"t"}],"help":[]}"#);
    }
}
