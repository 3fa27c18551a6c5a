//! Wording of everything that can be wrong with the text itself. Codes `A01xx`; long texts in `explain`.

use super::ast::Ident;
use super::token::Token;
use crate::base::{Diagnostic, SourceId, Span};
use lalrpop_util::ParseError;

type Error = ParseError<usize, Token, ()>;

pub use super::explain::{codes, explain};

/// Most diagnostics of one parse; what is beyond is only counted.
pub const MAX_DIAGNOSTICS: usize = 100;

/// The diagnostics of a parse. A text may hold millions of errors: beyond a bound they are counted, not worded.
#[derive(Default)]
pub struct Report {
    pub list: Vec<Diagnostic>,
    pub unworded: usize,
}

impl Report {
    /// Some more than are shown, as they are sorted by place at the end.
    const BOUND: usize = 10 * MAX_DIAGNOSTICS;

    pub fn add(&mut self, diagnostic: impl FnOnce() -> Option<Diagnostic>) {
        if self.list.len() < Report::BOUND {
            self.list.extend(diagnostic());
        } else {
            self.unworded += 1;
        }
    }

    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.add(|| Some(diagnostic));
    }

    /// In the order of the text, the first [`MAX_DIAGNOSTICS`], and how many more there are.
    pub fn finish(mut self, id: SourceId) -> Vec<Diagnostic> {
        self.list.sort_by_key(|d| d.labels.first().map_or(0, |l| l.span.start));
        self.list.dedup();
        if self.list.len() > MAX_DIAGNOSTICS {
            let rest = self.list.split_off(MAX_DIAGNOSTICS);
            let span = rest.first().and_then(|d| d.labels.first()).map_or(Span::new(id, 0, 0), |l| l.span);
            self.list.push(too_many(rest.len() + self.unworded, span));
        }
        self.list
    }
}

/// Code of a `}` that closes nothing.
pub const UNMATCHED: &str = "A0109";

fn too_many(rest: usize, span: Span) -> Diagnostic {
    Diagnostic::error("A0116", format!("{rest} more errors are not shown")).label(span, "the first of them is here")
}

pub fn import(span: Span) -> Diagnostic {
    Diagnostic::error("A0117", "there are no imports")
        .label(span, "one file is one program")
        .help("copy the functions that are needed into the file; the prelude is always there")
}

pub fn too_long(bytes: usize, limit: usize, span: Span) -> Diagnostic {
    Diagnostic::error("A0107", format!("the source has {bytes} bytes, the limit is {limit}"))
        .label(span, "nothing was read")
        .help("split it into several files")
}

pub fn too_long_statement(span: Span) -> Diagnostic {
    Diagnostic::error("A0107", "this statement is too long")
        .label(span, "the rest of it was not read")
        .help("name parts of it with `let`")
}

pub fn too_deep(span: Span) -> Diagnostic {
    Diagnostic::error("A0105", "this expression is nested too deeply")
        .label(span, format!("more than {} levels", super::ast::MAX_DEPTH))
        .help("name parts of it with `let`; a long sum or product is one level per term, a reduction over an axis is not")
}

pub fn too_many_blocks(span: Span, limit: usize) -> Diagnostic {
    Diagnostic::error("A0106", "blocks are nested too deeply").label(span, format!("more than {limit} blocks are open here"))
}

pub fn unclosed(open: Span, next: Option<Span>) -> Diagnostic {
    let d = Diagnostic::error("A0108", "this block is never closed").label(open, "its `}` is missing");
    match next {
        Some(next) => d.label(next, "a kernel starts here, outside of any block"),
        None => d,
    }
}

pub fn unmatched_brace(span: Span) -> Diagnostic {
    Diagnostic::error(UNMATCHED, "this `}` closes nothing")
        .label(span, "no block is open here")
        .help("an earlier `}` may have closed the kernel too soon")
}

pub fn number_too_large(span: Span) -> Diagnostic {
    Diagnostic::error("A0104", "this number is too large")
        .label(span, "integers end at 9223372036854775807")
        .help("write it with a decimal point if a real number is meant")
}

pub fn real_too_large(span: Span) -> Diagnostic {
    Diagnostic::error("A0104", "this number is too large")
        .label(span, "beyond the largest 64-bit float")
        .help("infinity is written `inf`")
}

pub fn comment_for_division(span: Span) -> Diagnostic {
    Diagnostic::warning("A0114", "this is a comment, not a division")
        .label(span, "`//` starts a comment")
        .help("division rounded down is `div`; `/` divides real numbers")
}

pub fn unknown_type(name: &Ident) -> Diagnostic {
    let d = Diagnostic::error("A0118", format!("there is no type `{}`", name.name)).label(name.span, "expected a type");
    d.help(match name.name.as_str() {
        "float" | "f16" | "f32" | "f64" | "bf16" | "half" | "double" | "number" => {
            "write `real`, or nothing; the storage format is that of the tensor given at the call"
        }
        "i32" | "i64" | "u8" | "u32" | "integer" | "long" => "write `int`",
        "boolean" => "write `bool`",
        _ => "the types are `real` (when nothing is written), `int`, `bool` and `complex`",
    })
}

pub fn prefix_needs_parentheses(left: Span, whole: Span) -> Diagnostic {
    let rest = Span { start: left.end.min(whole.end), ..whole };
    Diagnostic::error("A0110", "it is not clear how far this running reduction reaches")
        .label(left, "takes one factor only")
        .label(rest, "is this part of what is reduced?")
        .help("write `sum[<= t] (f * g)` to reduce the product, or `(sum[<= t] f) * g` to multiply the result")
}

/// Reports an operator of another language and says which token of ours stands for it.
pub fn foreign(text: &str, span: Span) -> (Token, Diagnostic) {
    let (token, ours) = match text {
        "&&" => (Token::And, "and"),
        "||" => (Token::Or, "or"),
        "!" => (Token::Not, "not"),
        "%" => (Token::Mod, "mod"),
        "**" => (Token::Caret, "^"),
        ":=" => (Token::Assign, "="),
        "+=" | "-=" | "*=" | "/=" => {
            let d = Diagnostic::error("A0113", format!("`{text}` is not an operator of the language")).label(span, "nothing can be changed in place");
            return (Token::Assign, d.help("a name is defined once; a state of a scan goes on by `S' = S + ..`"));
        }
        _ => (Token::Ne, "!="),
    };
    let d = Diagnostic::error("A0113", format!("`{text}` is not an operator of the language"))
        .label(span, format!("write `{ours}`"));
    (token, d)
}

pub fn unknown_characters(text: &str, span: Span) -> Diagnostic {
    let shown: String = text
        .chars()
        .take(12)
        .map(|c| if c.is_control() || c == '\u{feff}' { c.escape_unicode().to_string() } else { c.to_string() })
        .collect();
    let what = if text.chars().count() == 1 { "character" } else { "characters" };
    let d = Diagnostic::error("A0103", format!("`{shown}` is not part of the language")).label(span, format!("unknown {what}"));
    let help = match text.chars().next() {
        Some('≤') => "write `<=`",
        Some('≥') => "write `>=`",
        Some('≠') => "write `!=`",
        Some('−' | '–') => "write an ASCII `-`",
        Some('×' | '·' | '∗') => "write `*`",
        Some('∞') => "write `inf`",
        Some('′' | '’') => "write an ASCII quote, `S'`",
        Some('π') => "write `pi`",
        Some('&') => "write `and`",
        Some('|') => "write `or`",
        Some('~') => "write `not`",
        Some('"') => "there are no strings in the language",
        Some('#') => "comments start with `//`",
        Some('@') => "a product of matrices is a sum over the shared axis: `sum[d] q * k`",
        Some('.') => "there are no members and no ranges; write numbers with digits on both sides of the point, as in `0.5`",
        Some('?') => "`a ?? b` takes the first value that is present; a choice is `if c then a else b`",
        Some(c) if c.is_alphabetic() => "names are made of ASCII letters, digits and `_`",
        _ => return d,
    };
    d.help(help)
}

/// Byte at which an error was noticed.
pub fn location(e: &Error) -> usize {
    match e {
        ParseError::InvalidToken { location } | ParseError::UnrecognizedEof { location, .. } => *location,
        ParseError::UnrecognizedToken { token, .. } | ParseError::ExtraToken { token } => token.0,
        ParseError::User { .. } => 0,
    }
}

/// Whether an error of the parser is news: the filter has reported bad characters and braces that it had to add.
pub fn is_fresh(e: &Error) -> bool {
    match e {
        ParseError::UnrecognizedToken { token: (_, Token::Bad, _), .. } => false,
        ParseError::UnrecognizedToken { token: (l, Token::RBrace, r), .. } => l < r,
        _ => true,
    }
}

/// Text for an error of the parser, given all tokens `before` it.
pub fn unexpected(e: &Error, before: &[(usize, Token, usize)], text: &str, id: SourceId) -> Option<Diagnostic> {
    let (start, token, end, expected): (usize, Option<Token>, usize, &[String]) = match e {
        ParseError::UnrecognizedToken { token: (l, t, r), expected } => (*l, Some(*t), *r, expected),
        ParseError::ExtraToken { token: (l, t, r) } => (*l, Some(*t), *r, &[]),
        ParseError::UnrecognizedEof { location, expected } => (*location, None, *location, expected),
        ParseError::InvalidToken { location } => (*location, None, *location, &[]),
        ParseError::User { .. } => return None,
    };
    let mut real = before.iter().rev().filter(|t| t.0 < t.2);
    let last = real.next();
    // A mark of the filter has no text: show the place right after what was read.
    let span = if start == end {
        let at = last.map_or(start, |t| t.2);
        Span::new(id, at, at)
    } else {
        Span::new(id, start, end)
    };
    let has = |name: &str| expected.iter().any(|e| e.trim_matches('"') == name);
    let word = &text[start..end];
    let ends = token.is_none() || matches!(token, Some(Token::Sep | Token::RBrace | Token::LBrace));

    let last_word = last.map_or("", |t| &text[t.0..t.2]);
    let before_last = real.next();
    if token == Some(Token::Assign) && has("==") {
        if last.is_some_and(|t| t.1 == Token::Name) && before_last.is_some_and(|t| matches!(t.1, Token::LParen | Token::Comma)) {
            let d = Diagnostic::error("A0101", "arguments have no names").label(span, "a value belongs here");
            return Some(d.help("axes go into brackets before the arguments, `f[s](x)`; to compare, write `==`"));
        }
        let d = Diagnostic::error("A0112", "`=` does not compare").label(span, "write `==`");
        return Some(d.help("`=` defines a name, `==` compares two values"));
    }
    if token == Some(Token::EqEq) && has("=") && !has("<") {
        let d = Diagnostic::error("A0112", "`==` does not define").label(span, "write `=`");
        return Some(d.help("`=` defines a name, `==` compares two values"));
    }
    if token.is_some_and(Token::is_reserved) && has("name") && !has("int") && !has("let") {
        let d = Diagnostic::error("A0111", format!("`{word}` is a reserved word")).label(span, "a name belongs here");
        return Some(d.help("choose another name"));
    }
    if ends
        && (has(")") || has("]"))
        && !has("int")
        && let Some((open, close)) = open_bracket(before)
    {
        let opened = Span::new(id, open.0, open.2);
        return Some(
            Diagnostic::error("A0119", format!("this `{}` is never closed", &text[open.0..open.2]))
                .label(opened, format!("its `{close}` is missing"))
                .label(span, "the statement ends here"),
        );
    }
    let (code, message) = if token.is_none() || (start == end && token != Some(Token::Sep)) {
        ("A0102", "the text ends too early".to_string())
    } else if token == Some(Token::Sep) {
        ("A0101", "this statement is not complete".to_string())
    } else {
        ("A0101", format!("`{word}` cannot stand here"))
    };
    let mut d = Diagnostic::error(code, message).label(span, describe(expected));
    let first_word = before_last.map_or("", |t| &text[t.0..t.2]);
    if let Some(help) = hint(token, word, last_word, first_word, last.map(|b| b.1), &has) {
        d = d.help(help);
    }
    Some(d)
}

/// The innermost bracket of the statement that is open at the end of `before`, and its counterpart.
fn open_bracket(before: &[(usize, Token, usize)]) -> Option<((usize, Token, usize), char)> {
    let mut closed = 0;
    for token in before.iter().rev() {
        match token.1 {
            Token::RParen | Token::RBracket => closed += 1,
            Token::LParen | Token::LBracket if closed > 0 => closed -= 1,
            Token::LParen => return Some((*token, ')')),
            Token::LBracket => return Some((*token, ']')),
            Token::Sep | Token::Kernel | Token::TopFn => return None,
            _ => {}
        }
    }
    None
}

/// The usual cause, when there is one. `last` is the word before the error, `first` the one before that.
fn hint(token: Option<Token>, word: &str, last: &str, first: &str, last_token: Option<Token>, has: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    for before in [last, first] {
        match before {
            "for" | "while" | "loop" => return Some("a loop over an axis with a state is `scan t { .. }`; a sum over an axis is `sum[t] ..`"),
            "elif" | "elseif" => return Some("write `else if`"),
            "def" | "func" | "function" => return Some("write `fn name(a, b) = ..`"),
            "var" | "const" | "val" | "mut" => return Some("write `let name = ..`"),
            "prev" => return Some("inside a scan, `S` is the value before the step and `S'` after it"),
            _ => {}
        }
    }
    match (token, word) {
        (Some(Token::If), _) if has("let") => return Some("statements cannot depend on a condition: write `name = if c then a else b`"),
        (_, "in") => return Some("membership is a read: `kept[c = s div 64]`"),
        (_, "elif") => return Some("write `else if`"),
        (_, "is") => return Some("write `==`"),
        (_, "xor") => return Some("write `xor(a, b)`"),
        (_, "def" | "func" | "function") => return Some("write `fn name(a, b) = ..`"),
        _ => {}
    }
    let operator = has("+");
    if has("else") && !has("name") {
        return Some("`if` is an expression and needs an `else`");
    }
    if has("then") && !has("name") {
        return Some("a choice is `if c then a else b`");
    }
    if token == Some(Token::If) && operator {
        return Some("a choice is `if c then a else b`");
    }
    if operator && matches!(last_token, Some(Token::Int | Token::Real)) && matches!(token, Some(Token::Name | Token::LParen)) {
        return Some("a product needs its `*`");
    }
    if operator && matches!(token, Some(Token::Name)) && (super::filter::REDUCTIONS.contains(&last)) {
        return Some("a reduction names its axes in brackets: `sum[s] x`");
    }
    if matches!(token, Some(Token::LParen | Token::Int | Token::Real | Token::Name | Token::Prime)) {
        if operator && has(",") {
            return Some("is an operator or a comma missing?");
        }
        if operator {
            return Some("is an operator missing? a statement starts with `name =` or a keyword");
        }
        if has(",") && token == Some(Token::Name) {
            return Some("is a comma missing?");
        }
    }
    if token == Some(Token::Assign) && has("int") && has(";") {
        return Some("an entry of a schedule is words followed by numbers: `tile t 128`");
    }
    if token == Some(Token::LBracket) && has("=") {
        return Some("a definition names no positions: write `x = ..`, the axes come from the right side");
    }
    if token == Some(Token::Colon) && has("=") && !operator {
        return Some("parameters of functions have no types: they take any value");
    }
    if has("name") && token == Some(Token::Prime) {
        return Some("the new value of a state is defined without a keyword: `S' = ..`");
    }
    if !operator && !has("int") && (has("name") && has("<") || has("->") && has("]")) {
        return Some("a read names its axis: `x[t = 3]`, `x[t = t - 1]`");
    }
    if has("=") && !operator && !has("name") {
        return Some("is the `=` missing?");
    }
    if token == Some(Token::Reduce) {
        return Some("put the reduction in parentheses");
    }
    if matches!(token, Some(Token::If | Token::Not)) && has("(") && !operator {
        return Some("put it in parentheses");
    }
    if has("]") && has("name") && !operator {
        return Some(match token {
            Some(Token::Int | Token::Real) => "axes are names; one of a fixed length is declared: `axis j: 4`",
            _ => "axes are names, set apart by commas",
        });
    }
    if has("->") && !has("]") {
        return Some("the outputs follow the inputs: `kernel f(q: [t,d]) -> (o: [t,d]) { .. }`");
    }
    None
}

/// `expected an operator, `)` or ...`: at most five alternatives, in words.
fn describe(expected: &[String]) -> String {
    const OPERATORS: &[&str] = &["+", "-", "*", "/", "^", "??", "div", "mod", "<", "<=", ">", ">=", "==", "!=", "and", "or"];
    const OPERAND_ONLY: &[&str] = &["int", "real", "true", "false", "inf", "not", "if", "reduction", "name'"];
    const STATEMENTS: &[&str] = &["let", "axis", "mask", "state", "scan", "repeat", "require", "return", "fn", "schedule"];
    let raw: Vec<&str> = expected.iter().map(|e| e.trim_matches('"')).collect();
    let has = |w: &str| raw.contains(&w);
    let operand = has("int") && has("(") && has("name");
    let statement = has("let");
    let operator = has("+");
    let mut words: Vec<String> = Vec::new();
    let mut add = |w: String| {
        if !words.contains(&w) {
            words.push(w);
        }
    };
    if statement {
        add("a statement".into());
    }
    if operand {
        add("an expression".into());
    }
    if operator && !operand {
        add("an operator".into());
    }
    // Closing signs first: they are what is most often missing.
    let (mut closing, other): (Vec<&str>, Vec<&str>) = raw.iter().partition(|w| matches!(**w, ")" | "]" | ","));
    closing.sort_unstable();
    for w in closing.into_iter().chain(other) {
        match w {
            "bad" => {}
            "<" | "<=" | ">" | ">=" if has("name") => {}
            "<" | "<=" | ">" | ">=" | "==" | "!=" if !operator => add("a comparison".into()),
            "sep" => add("the end of the statement".into()),
            "kernel" => add("`kernel`".into()),
            "top fn" => add("`fn`".into()),
            w if statement && (STATEMENTS.contains(&w) || matches!(w, "name" | "name'")) => {}
            w if operand && (OPERAND_ONLY.contains(&w) || matches!(w, "name" | "(" | "-")) => {}
            w if operator && OPERATORS.contains(&w) => {}
            "name" => add("a name".into()),
            "name'" => add("a state".into()),
            "int" | "real" => add("a number".into()),
            "reduction" => add("a reduction".into()),
            w => add(format!("`{w}`")),
        }
    }
    words.truncate(5);
    match words.split_last() {
        None => "nothing more was expected".into(),
        Some((last, [])) => format!("expected {last}"),
        Some((last, rest)) => format!("expected {} or {last}", rest.join(", ")),
    }
}
