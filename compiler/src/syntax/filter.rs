//! Between lexer and parser: what depends on a little context and would not fit an LALR grammar.
//!
//! Decides which words are keywords or reductions here, marks where statements start (newlines mean nothing), hangs doc comments on
//! the declaration that follows, balances braces, and bounds nesting so that neither parser nor later recursion can run deep.

use super::errors;
use super::token::{Token, lex};
use crate::base::{SourceId, Span};
use std::collections::HashMap;

/// Words that are reductions when axes follow in brackets.
pub const REDUCTIONS: &[&str] = &["sum", "prod", "max", "min", "any", "all", "count", "mean", "argmax", "argmin"];

/// Deepest nesting of blocks.
pub const MAX_BLOCKS: usize = 64;
/// Most brackets open at one place, and most prefix operators waiting for their operand: the parser's stack stays this small.
const MAX_OPEN: usize = 250;
const MAX_WAITING: usize = 600;
/// Most tokens in one statement. Bounds the work of error recovery.
const MAX_TOKENS: usize = 20_000;

/// What the parser reads.
pub struct Filtered {
    pub tokens: Vec<(usize, Token, usize)>,
    /// Lines of the doc comment of the `kernel` or `fn` that starts at this byte.
    pub docs: HashMap<usize, Vec<String>>,
    pub diagnostics: errors::Report,
}

#[derive(Clone, Copy, PartialEq)]
enum Brace {
    Block,
    Schedule,
}

struct Filter<'a> {
    text: &'a str,
    id: SourceId,
    raw: Vec<(usize, Token, usize)>,
    out: Filtered,
    braces: Vec<(usize, Brace)>,
    /// For every open bracket of the statement, how many prefix operators wait in it; the first entry is the statement itself.
    waiting: Vec<usize>,
    waiting_sum: usize,
    tokens_in_statement: usize,
    /// The rest of the statement is dropped (too deep or too long, reported).
    skipping: bool,
    /// In the header of a `repeat`, where `until` is a keyword.
    repeat_header: bool,
    stray_brace: bool,
    /// The last two tokens, as classified.
    previous: Option<Token>,
    before_previous: Option<Token>,
    previous_end: usize,
}

/// Tokens of `text` as the grammar wants them. Total length of `text` must fit in `u32`.
pub fn filter(text: &str, id: SourceId) -> Filtered {
    let mut docs: Vec<String> = Vec::new();
    let mut raw = Vec::new();
    let mut found = HashMap::new();
    let mut diagnostics = errors::Report::default();
    for (start, token, end) in lex(text) {
        match token {
            Token::Comment => {
                if let Some(&(_, before, before_end)) = raw.last()
                    && Token::ends_operand(before)
                    && !text[before_end..start].contains('\n')
                    && is_divisor(&text[start + 2..end])
                {
                    diagnostics.push(errors::comment_for_division(Span::new(id, start, end)));
                }
            }
            Token::Doc => {
                let line = text[start + 3..end].trim_end();
                docs.push(line.strip_prefix(' ').unwrap_or(line).to_string());
            }
            _ => {
                if !docs.is_empty() {
                    let lines = std::mem::take(&mut docs);
                    if token == Token::Fn || &text[start..end] == "kernel" {
                        found.insert(start, lines);
                    }
                }
                raw.push((start, token, end));
            }
        }
    }
    let out = Filtered { tokens: Vec::with_capacity(raw.len() * 5 / 4), docs: found, diagnostics };
    let mut filter = Filter {
        text,
        id,
        raw,
        out,
        braces: Vec::new(),
        waiting: vec![0],
        waiting_sum: 0,
        tokens_in_statement: 0,
        skipping: false,
        repeat_header: false,
        stray_brace: false,
        previous: None,
        before_previous: None,
        previous_end: 0,
    };
    filter.run();
    filter.out
}

/// Whether a comment looks like the right side of a division: one number or one extent.
fn is_divisor(comment: &str) -> bool {
    let word = comment.trim();
    let number = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    number || word.len() == 1 && word.bytes().all(|b| b.is_ascii_uppercase())
}

impl Filter<'_> {
    fn run(&mut self) {
        let mut index = 0;
        while index < self.raw.len() {
            let (start, token, end) = self.raw[index];
            index += 1;
            let token = self.classify(index - 1, token);
            match token {
                Token::Kernel => {
                    self.close_all(Some((start, end)));
                    self.begin_statement();
                    self.push(start, token, end);
                }
                Token::TopFn => {
                    self.begin_statement();
                    self.push(start, token, end);
                }
                Token::Import => {
                    self.out.diagnostics.push(errors::import(self.span(start, end)));
                    self.begin_statement();
                    self.skipping = true;
                    self.push(start, token, end);
                }
                Token::LBrace => {
                    if self.braces.len() >= MAX_BLOCKS {
                        index = self.skip_block(index, start, end);
                        continue;
                    }
                    let kind = if self.in_schedule() || self.previous == Some(Token::Schedule) { Brace::Schedule } else { Brace::Block };
                    self.begin_statement();
                    self.push(start, token, end);
                    self.braces.push((start, kind));
                    self.repeat_header = false;
                    self.separate(end);
                }
                Token::RBrace => self.close(start, end),
                Token::Semi if !self.in_schedule() && !self.braces.is_empty() => {
                    self.begin_statement();
                    self.push(start, Token::Sep, end);
                }
                _ => {
                    if self.starts_statement(index - 1, token) {
                        self.begin_statement();
                        self.separate(self.previous_end);
                    }
                    self.inside(start, token, end);
                }
            }
        }
        if let Some(&(open, _)) = self.braces.last() {
            self.out.diagnostics.push(errors::unclosed(self.span(open, open + 1), None));
        }
        self.close_all(None);
    }

    /// A token within a statement: keeps count of what is open.
    fn inside(&mut self, start: usize, token: Token, end: usize) {
        if token == Token::Foreign && !self.skipping {
            let (ours, diagnostic) = errors::foreign(&self.text[start..end], self.span(start, end));
            self.out.diagnostics.push(diagnostic);
            return self.push(start, ours, end);
        }
        if token == Token::Bad && !self.skipping {
            let (text, span) = (&self.text[start..end], self.span(start, end));
            self.out.diagnostics.add(|| Some(errors::unknown_characters(text, span)));
        }
        self.tokens_in_statement += 1;
        match token {
            Token::LParen | Token::LBracket => self.waiting.push(0),
            Token::RParen | Token::RBracket if self.waiting.len() > 1 => {
                self.waiting_sum -= self.waiting.pop().unwrap_or(0);
            }
            Token::Comma => {
                if let Some(top) = self.waiting.last_mut() {
                    self.waiting_sum -= *top;
                    *top = 0;
                }
            }
            Token::Minus if self.previous.is_some_and(Token::ends_operand) => {}
            Token::If | Token::Reduce | Token::Not | Token::Minus | Token::Caret => {
                self.waiting_sum += 1;
                if let Some(top) = self.waiting.last_mut() {
                    *top += 1;
                }
            }
            _ => {}
        }
        if !self.skipping {
            let limit = if self.waiting.len() > MAX_OPEN || self.waiting_sum > MAX_WAITING {
                Some(errors::too_deep(self.span(start, end)))
            } else if self.tokens_in_statement > MAX_TOKENS {
                Some(errors::too_long_statement(self.span(start, end)))
            } else {
                None
            };
            if let Some(diagnostic) = limit {
                self.out.diagnostics.push(diagnostic);
                self.push(start, Token::Bad, end);
                self.skipping = true;
            }
        }
        self.push(start, token, end);
    }

    /// What `token` at `index` is in its context.
    fn classify(&self, index: usize, token: Token) -> Token {
        let kind = |at: usize| self.raw.get(at).map(|t| t.1);
        let (next, after) = (kind(index + 1), kind(index + 2));
        let free = self.previous.is_none_or(|p| p.ends_operand() || matches!(p, Token::LBrace | Token::RBrace | Token::Sep | Token::Bad));
        let (start, _, end) = self.raw[index];
        let word = &self.text[start..end];
        if token == Token::Name && word == "kernel" && self.starts_kernel(free, next, after) {
            return Token::Kernel;
        }
        if token == Token::Name && word == "import" && self.braces.is_empty() && self.waiting.len() == 1 && free && matches!(next, Some(Token::Name | Token::Bad)) {
            return Token::Import;
        }
        if self.in_schedule() {
            return if token.is_reserved() { Token::Name } else { token };
        }
        if token == Token::Fn {
            return if self.braces.is_empty() { Token::TopFn } else { Token::Fn };
        }
        if token != Token::Name {
            return token;
        }
        let named = free && next == Some(Token::Name) && !self.braces.is_empty();
        match word {
            "axis" if named => Token::Axis,
            "mask" if named => Token::Mask,
            "state" if named => Token::State,
            "schedule" if free && next == Some(Token::LBrace) && !self.braces.is_empty() => Token::Schedule,
            "reverse" if self.previous == Some(Token::Name) && self.before_previous == Some(Token::Scan) => Token::Reverse,
            "until" if self.repeat_header && self.waiting.len() == 1 && self.previous.is_some_and(Token::ends_operand) => Token::Until,
            _ if next == Some(Token::LBracket)
                && !(after == Some(Token::Name) && kind(index + 3) == Some(Token::Assign))
                && !self.names_something()
                && REDUCTIONS.contains(&word) =>
            {
                Token::Reduce
            }
            _ => Token::Name,
        }
    }

    /// Whether the word `kernel` starts one: between items always, elsewhere when a name follows.
    fn starts_kernel(&self, free: bool, next: Option<Token>, after: Option<Token>) -> bool {
        if self.braces.is_empty() {
            return matches!(self.previous, None | Some(Token::RBrace)) || free && next == Some(Token::Name);
        }
        free && next == Some(Token::Name) && after == Some(Token::LParen)
    }

    /// After `let`, `fn` and the like a name is being given, whatever the word.
    fn names_something(&self) -> bool {
        use Token::*;
        matches!(self.previous, Some(Let | Fn | TopFn | Scan | Axis | Mask | State | Kernel))
    }

    fn starts_statement(&self, index: usize, token: Token) -> bool {
        use Token::*;
        if self.braces.is_empty() || self.in_schedule() {
            return false;
        }
        match token {
            Let | Scan | Repeat | Require | Return | Fn | Axis | Mask | State | Schedule => true,
            Name | Prime => {
                let defines = self.raw.get(index + 1).is_some_and(|t| t.1 == Assign);
                // A name cannot follow an operand. At the start of a line it is most likely a statement that is wrong in itself.
                let new_line = self.waiting.len() == 1 && self.text[self.previous_end..self.raw[index].0].contains('\n');
                self.previous.is_some_and(Token::ends_operand) && (defines || new_line)
            }
            _ => false,
        }
    }

    fn in_schedule(&self) -> bool {
        matches!(self.braces.last(), Some((_, Brace::Schedule)))
    }

    fn begin_statement(&mut self) {
        self.waiting.clear();
        self.waiting.push(0);
        self.waiting_sum = 0;
        self.tokens_in_statement = 0;
        self.skipping = false;
        self.repeat_header = false;
    }

    fn separate(&mut self, at: usize) {
        if !self.in_schedule() {
            self.out.tokens.push((at, Token::Sep, at));
        }
    }

    fn push(&mut self, start: usize, token: Token, end: usize) {
        if !self.skipping {
            self.out.tokens.push((start, token, end));
        }
        if token == Token::Repeat {
            self.repeat_header = true;
        }
        self.before_previous = self.previous;
        self.previous = Some(token);
        self.previous_end = end;
    }

    fn close(&mut self, start: usize, end: usize) {
        self.begin_statement();
        if self.braces.pop().is_none() {
            if !self.stray_brace {
                self.out.diagnostics.push(errors::unmatched_brace(self.span(start, end)));
            }
            self.stray_brace = true;
            return self.push(start, Token::Bad, end);
        }
        self.push(start, Token::RBrace, end);
        if !self.braces.is_empty() {
            self.separate(end);
        }
    }

    /// Ends every open block, because a kernel starts at `next` or the text ends.
    fn close_all(&mut self, next: Option<(usize, usize)>) {
        self.stray_brace = false;
        if let (Some((start, end)), Some(&(open, _))) = (next, self.braces.last()) {
            self.out.diagnostics.push(errors::unclosed(self.span(open, open + 1), Some(self.span(start, end))));
        }
        while self.braces.pop().is_some() {
            self.begin_statement();
            let at = self.previous_end;
            self.push(at, Token::RBrace, at);
        }
    }

    /// Replaces a block that is nested too deeply by an empty one; returns the index after it.
    fn skip_block(&mut self, mut index: usize, start: usize, end: usize) -> usize {
        self.out.diagnostics.push(errors::too_many_blocks(self.span(start, end), MAX_BLOCKS));
        self.begin_statement();
        self.push(start, Token::LBrace, end);
        let mut open = 1;
        let mut last = end;
        while let Some(&(_, token, token_end)) = self.raw.get(index) {
            index += 1;
            last = token_end;
            match token {
                Token::LBrace => open += 1,
                Token::RBrace => open -= 1,
                _ => {}
            }
            if open == 0 {
                break;
            }
        }
        self.push(last, Token::RBrace, last);
        self.separate(last);
        index
    }

    fn span(&self, start: usize, end: usize) -> Span {
        Span::new(self.id, start, end)
    }
}
