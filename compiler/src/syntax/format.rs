//! Text to tidy text. Works on tokens: lines and comments stay where they are, indentation and spacing are made regular.

use super::token::{Token, lex};
use super::{filter, parse};
use crate::base::{Diagnostic, Severity, SourceId};
use std::collections::{HashMap, HashSet};

/// Spaces of one block.
const INDENT: usize = 4;

/// `source` with regular spacing: four spaces a block, single spaces around operators, no spaces at line ends, at most one empty line.
///
/// Kept as written: line breaks, comments and the gap before them, how far a continued line stands in, `*` and `/` without spaces,
/// gaps between statements on one line, and a gap before `=` that lines it up with the line above or below.
/// Formatting twice changes nothing. Errors: those of [`parse`], as text that does not parse has no clear structure.
pub fn format(source: &str) -> Result<String, Vec<Diagnostic>> {
    let (_, diagnostics) = parse(source, SourceId::User);
    if diagnostics.iter().any(|d| d.severity == Severity::Error) {
        return Err(diagnostics);
    }
    let mut text = source.to_string();
    // Alignment is judged on the text as it stands, so a shift can undo one; gaps only shrink, so this comes to rest.
    for _ in 0..8 {
        let next = pass(&text);
        if next == text {
            break;
        }
        text = next;
    }
    // Spacing must never change what is read; if it did, leaving the text alone is the safe answer.
    Ok(if same_tokens(source, &text) { text } else { source.to_string() })
}

fn same_tokens(a: &str, b: &str) -> bool {
    let words = |text: &str| -> Vec<String> { lex(text).into_iter().map(|(l, _, r)| text[l..r].trim_end().to_string()).collect() };
    words(a) == words(b)
}

/// What a bracket holds decides its inner spacing and that of what follows.
#[derive(Clone, Copy, PartialEq)]
enum Bracket {
    /// Axes of a type, `[b,h,t]`.
    Type,
    /// Axes of a reduction.
    Reduction,
    Other,
}

struct Line {
    start: usize,
    /// Column of the `=` of a definition.
    definition: Option<usize>,
}

struct Formatter<'a> {
    source: &'a str,
    tokens: Vec<(usize, Token, usize)>,
    /// Tokens that start a statement or an item.
    starts: HashSet<usize>,
    lines: Vec<Line>,
    out: String,
    /// Open blocks; true for schedules.
    braces: Vec<bool>,
    brackets: Vec<Bracket>,
    /// Kind of the bracket that the last token closed.
    closed: Option<Bracket>,
    /// Indentation of the statement's first line, now and as written.
    base: (usize, usize),
}

fn pass(source: &str) -> String {
    let filtered = filter::filter(source, SourceId::User).tokens;
    let mut starts = HashSet::new();
    let mut kinds = HashMap::new();
    let mut after_mark = false;
    for (start, token, end) in filtered {
        if token == Token::Sep {
            after_mark = true;
        } else if start < end {
            if after_mark || matches!(token, Token::Kernel | Token::TopFn) {
                starts.insert(start);
            }
            kinds.insert(start, token);
            after_mark = false;
        }
    }
    let tokens: Vec<_> = lex(source).into_iter().map(|(l, t, r)| (l, kinds.get(&l).copied().unwrap_or(t), r)).collect();
    let lines = lines(source, &tokens);
    let mut f = Formatter {
        source,
        tokens,
        starts,
        lines,
        out: String::with_capacity(source.len()),
        braces: Vec::new(),
        brackets: Vec::new(),
        closed: None,
        base: (0, 0),
    };
    f.run();
    f.out
}

/// Starts of lines, with the column of the first `=` outside of brackets.
fn lines(source: &str, tokens: &[(usize, Token, usize)]) -> Vec<Line> {
    let mut lines: Vec<Line> =
        std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).map(|start| Line { start, definition: None }).collect();
    let (mut open, mut line) = (0usize, 0);
    for &(start, token, _) in tokens {
        while lines.get(line + 1).is_some_and(|next| next.start <= start) {
            line += 1;
        }
        match token {
            Token::LParen | Token::LBracket => open += 1,
            Token::RParen | Token::RBracket => open = open.saturating_sub(1),
            Token::Assign if open == 0 && lines[line].definition.is_none() => lines[line].definition = Some(start - lines[line].start),
            _ => {}
        }
    }
    lines
}

impl Formatter<'_> {
    fn run(&mut self) {
        for index in 0..self.tokens.len() {
            let (start, token, end) = self.tokens[index];
            let gap = match index {
                0 => &self.source[..start],
                _ => &self.source[self.tokens[index - 1].2..start],
            };
            let breaks = gap.matches('\n').count();
            if index == 0 || breaks > 0 {
                self.break_line(index, breaks, width(gap.rsplit('\n').next().unwrap_or("")));
            } else {
                let spaces = self.gap(index, width(gap));
                self.out.extend(std::iter::repeat_n(' ', spaces));
            }
            self.out.push_str(self.source[start..end].trim_end());
            self.follow(index, token);
        }
        if !self.out.is_empty() {
            self.out.push('\n');
        }
    }

    /// Starts a line whose first token was written at `column`.
    fn break_line(&mut self, index: usize, breaks: usize, column: usize) {
        if index > 0 {
            self.out.push_str(if breaks > 1 { "\n\n" } else { "\n" });
        }
        // A comment goes with the line that follows it.
        let next = (index..self.tokens.len()).find(|&i| !matches!(self.tokens[i].1, Token::Comment | Token::Doc)).map(|i| self.tokens[i]);
        let closes = self.tokens[index].1 == Token::RBrace;
        let schedule = self.braces.last() == Some(&true);
        let fresh = schedule || next.is_none_or(|(start, token, _)| token == Token::RBrace || self.starts.contains(&start));
        let indent = if fresh {
            let level = self.braces.len() - usize::from(closes && !self.braces.is_empty());
            self.base = (INDENT * level, column);
            INDENT * level
        } else {
            self.base.0 + column.saturating_sub(self.base.1)
        };
        self.out.extend(std::iter::repeat_n(' ', indent));
    }

    /// Spaces between the token at `index` and the one before it on the same line, where `written` columns were.
    fn gap(&self, index: usize, written: usize) -> usize {
        use Token::*;
        let (start, token, _) = self.tokens[index];
        let (_, before, before_end) = self.tokens[index - 1];
        let one = |yes: bool| usize::from(yes);
        if matches!(token, Comment | Doc) {
            return written.max(1);
        }
        if self.starts.contains(&start) && before != LBrace {
            return written.max(1);
        }
        if token == Assign && self.brackets.is_empty() && written > 1 && self.lines_up(start) {
            return written;
        }
        let tight = |at: usize| -> bool {
            let side = |c: Option<char>| c.is_some_and(|c| !c.is_whitespace());
            side(self.source[..at].chars().next_back()) && side(self.source[at + 1..].chars().next())
        };
        match (before, token) {
            (LParen | LBracket, _) | (_, RParen | RBracket | Comma | Semi | Colon) => 0,
            (Comma, _) => one(self.brackets.last() != Some(&Bracket::Type)),
            (Caret, _) | (_, Caret) => 0,
            (Star | Slash, _) => one(!tight(before_end - 1)),
            (_, Star | Slash) => one(!tight(start)),
            (Minus, If) => 1,
            (Minus, _) => one(!self.unary(index - 1)),
            (RBracket, LParen) => one(self.closed == Some(Bracket::Reduction)),
            (RParen | RBracket | Prime, LBracket) => 0,
            (Name | Reduce, LBracket) => one(self.is_type_word(index - 1)),
            (Name, LParen) => 0,
            _ => 1,
        }
    }

    /// Whether the `-` at `index` has no left operand.
    fn unary(&self, index: usize) -> bool {
        let Some(before) = index.checked_sub(1).map(|i| self.tokens[i].1) else { return true };
        // The axes of a reduction are no operand: `sum[s] -x`.
        let after_axes = before == Token::RBracket && self.reduction_closes(index - 1);
        !before.ends_operand() || after_axes
    }

    /// Whether the `]` at `index` ends the axes of a reduction.
    fn reduction_closes(&self, index: usize) -> bool {
        let mut open = 0usize;
        for i in (0..=index).rev() {
            match self.tokens[i].1 {
                Token::RBracket => open += 1,
                Token::LBracket => open -= 1,
                _ => {}
            }
            if open == 0 {
                return i > 0 && self.tokens[i - 1].1 == Token::Reduce;
            }
        }
        false
    }

    /// Whether the name at `index` is the dtype in front of the axes of a declaration: `x: int [t]`.
    fn is_type_word(&self, index: usize) -> bool {
        let (start, _, end) = self.tokens[index];
        index > 0 && self.tokens[index - 1].1 == Token::Colon && matches!(&self.source[start..end], "real" | "int" | "bool" | "complex")
    }

    /// Whether the `=` at `start` stands below or above another one.
    fn lines_up(&self, start: usize) -> bool {
        let line = self.lines.partition_point(|l| l.start <= start) - 1;
        let column = self.lines[line].definition;
        let same = |other: Option<&Line>| other.is_some_and(|l| l.definition.is_some() && l.definition == column);
        column == Some(start - self.lines[line].start) && (same(self.lines.get(line + 1)) || line > 0 && same(self.lines.get(line - 1)))
    }

    /// Keeps count of what is open after the token at `index`.
    fn follow(&mut self, index: usize, token: Token) {
        let before = |back: usize| index.checked_sub(back).map(|i| self.tokens[i].1);
        self.closed = None;
        match token {
            Token::LBrace => {
                let schedule = self.braces.last() == Some(&true) || before(1) == Some(Token::Schedule);
                self.braces.push(schedule);
            }
            Token::RBrace => {
                self.braces.pop();
            }
            Token::LBracket => {
                let kind = match before(1) {
                    Some(Token::Reduce) => Bracket::Reduction,
                    Some(Token::Colon) => Bracket::Type,
                    Some(Token::Name) if self.is_type_word(index - 1) => Bracket::Type,
                    _ => Bracket::Other,
                };
                self.brackets.push(kind);
            }
            Token::LParen => self.brackets.push(Bracket::Other),
            Token::RBracket | Token::RParen => self.closed = self.brackets.pop(),
            _ => {}
        }
    }
}

/// Columns of a gap; a tab counts as one indentation.
fn width(gap: &str) -> usize {
    gap.chars().map(|c| if c == '\t' { INDENT } else { usize::from(c != '\r') }).sum()
}
