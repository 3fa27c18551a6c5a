//! Text to AST. Knows the grammar, not what names mean.

pub mod ast;
pub mod errors;
mod explain;
mod filter;
mod format;
mod make;
mod print;
#[cfg(test)]
mod tests;
mod token;

lalrpop_util::lalrpop_mod!(
    #[allow(clippy::all, unused, missing_docs)]
    grammar,
    "/syntax/grammar.rs"
);

use crate::base::{Diagnostic, SourceId, Span};
pub use format::format;
pub use print::print;

/// Longest source that is read, in bytes.
pub const MAX_SOURCE: usize = 4 << 20;

/// Reads `source` into a file, whatever it holds: stretches that do not parse become error nodes, each with a diagnostic.
///
/// Never fails and never runs deep: expressions are at most [`ast::MAX_DEPTH`] levels, blocks at most 64, texts at most
/// [`MAX_SOURCE`] bytes. An empty list of diagnostics means that the file holds no error nodes.
pub fn parse(source: &str, id: SourceId) -> (ast::File, Vec<Diagnostic>) {
    if source.len() > MAX_SOURCE {
        let span = Span::new(id, 0, 0);
        return (ast::File { items: vec![ast::Item::Error(span)] }, vec![errors::too_long(source.len(), MAX_SOURCE, span)]);
    }
    let filtered = filter::filter(source, id);
    let mut cx = make::Cx {
        text: source,
        id,
        docs: filtered.docs,
        diagnostics: filtered.diagnostics,
        tokens: &filtered.tokens,
        stray: Vec::new(),
        quiet_until: 0,
    };
    let items = match grammar::FileParser::new().parse(&mut cx, filtered.tokens.iter().copied()) {
        Ok(items) => items,
        Err(error) => {
            cx.diagnostics.add(|| errors::unexpected(&error, &[], source, id));
            vec![ast::Item::Error(Span::new(id, 0, source.len()))]
        }
    };
    let (mut report, stray) = (cx.diagnostics, cx.stray);
    // A `}` too many after a head that did not parse is no error of its own.
    let in_stray = |s: Span| stray.iter().any(|around| around.start < s.start && s.end <= around.end);
    report.list.retain(|d| !(d.code == errors::UNMATCHED && d.labels.first().is_some_and(|l| in_stray(l.span))));
    (ast::File { items }, report.finish(id))
}
