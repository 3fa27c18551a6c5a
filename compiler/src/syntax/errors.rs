//! Wording of everything that can be wrong with the text itself. Codes `A01xx`; long texts in `explain`.

use super::ast::Ident;
use super::token::{Token, lex};
use crate::base::{Diagnostic, SourceId, Span};
use lalrpop_util::ParseError;

type Error = ParseError<usize, Token, ()>;

pub use super::explain::explain;

/// Most diagnostics of one parse; what is beyond is only counted.
pub const MAX_DIAGNOSTICS: usize = 100;

pub fn too_many(rest: usize, span: Span) -> Diagnostic {
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
    Diagnostic::error("A0109", "this `}` closes nothing")
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
        _ => (Token::Ne, "!="),
    };
    let d = Diagnostic::error("A0113", format!("`{text}` is not an operator of the language"))
        .label(span, format!("write `{ours}`"));
    (token, d)
}

pub fn unknown_characters(text: &str, span: Span) -> Diagnostic {
    let shown: String = text.chars().take(12).flat_map(char::escape_debug).collect();
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

/// Text for an error of the parser; `None` when it was reported before.
pub fn unexpected(e: &Error, text: &str, id: SourceId) -> Option<Diagnostic> {
    let (start, token, end, expected): (usize, Option<Token>, usize, &[String]) = match e {
        ParseError::UnrecognizedToken { token: (_, Token::Bad, _), .. } => return None,
        ParseError::UnrecognizedToken { token: (l, t, r), expected } => (*l, Some(*t), *r, expected),
        ParseError::ExtraToken { token: (l, t, r) } => (*l, Some(*t), *r, &[]),
        ParseError::UnrecognizedEof { location, expected } => (*location, None, *location, expected),
        ParseError::InvalidToken { location } => (*location, None, *location, &[]),
        ParseError::User { .. } => return None,
    };
    let before = last_token(text, start);
    let at_end = token.is_none() || (start == end && token != Some(Token::Sep));
    // A mark of the filter has no text: show the place right after what was read.
    let span = if start == end {
        let at = before.map_or(start, |(_, _, r)| r);
        Span::new(id, at, at)
    } else {
        Span::new(id, start, end)
    };
    let has = |name: &str| expected.iter().any(|e| e == name);
    let word = &text[start..end];
    let before_word = before.map_or("", |(l, _, r)| &text[l..r]);
    let list = describe(expected);

    if token == Some(Token::Assign) && has("\"==\"") {
        return Some(
            Diagnostic::error("A0112", "`=` does not compare").label(span, "write `==`").help("`=` defines a name, `==` compares two values"),
        );
    }
    if token == Some(Token::EqEq) && has("\"=\"") && !has("\"<\"") {
        return Some(
            Diagnostic::error("A0112", "`==` does not define").label(span, "write `=`").help("`=` defines a name, `==` compares two values"),
        );
    }
    if token.is_some_and(Token::is_reserved) && has("\"name\"") && !has("\"int\"") && !has("\"let\"") {
        return Some(
            Diagnostic::error("A0111", format!("`{word}` is a reserved word"))
                .label(span, "a name belongs here")
                .help("choose another name"),
        );
    }
    let (code, message) = if at_end {
        ("A0102", "the text ends too early".to_string())
    } else if token == Some(Token::Sep) || start == end {
        ("A0101", "this statement is not complete".to_string())
    } else {
        ("A0101", format!("`{word}` cannot stand here"))
    };
    let mut d = Diagnostic::error(code, message).label(span, list);
    if let Some(help) = hint(token, word, before_word, before.map(|b| b.1), &has) {
        d = d.help(help);
    }
    Some(d)
}

/// The usual cause, when there is one.
fn hint(token: Option<Token>, word: &str, before: &str, before_token: Option<Token>, has: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    match before {
        "for" | "while" | "loop" => return Some("a loop over an axis with a state is `scan t { .. }`; a sum over an axis is `sum[t] ..`"),
        "elif" | "elseif" => return Some("write `else if`"),
        "def" | "func" | "function" => return Some("write `fn name(a, b) = ..`"),
        "var" | "const" | "val" | "mut" => return Some("write `let name = ..`"),
        _ => {}
    }
    match (token, word) {
        (Some(Token::If), _) if has("\"let\"") => return Some("statements cannot depend on a condition: write `name = if c then a else b`"),
        (_, "in") => return Some("membership is a read: `kept[c = s div 64]`"),
        (_, "elif") => return Some("write `else if`"),
        (_, "is") => return Some("write `==`"),
        (_, "xor") => return Some("write `xor(a, b)`"),
        (_, "prev") => return Some("inside a scan, `S` is the value before the step and `S'` after it"),
        (Some(Token::Foreign), _) => return None,
        _ => {}
    }
    let operator = has("\"+\"");
    if has("\"else\"") && !has("\"name\"") {
        return Some("`if` is an expression and needs an `else`");
    }
    if operator && before_token == Some(Token::Int) && token == Some(Token::Name) {
        return Some("a product needs its `*`");
    }
    if operator && matches!(token, Some(Token::LParen | Token::Int | Token::Real | Token::Name | Token::Prime)) {
        return Some("is an operator missing? a statement starts with `name =` or a keyword");
    }
    if token == Some(Token::LBracket) && has("\"=\"") {
        return Some("a definition names no positions: write `x = ..`, the axes come from the right side");
    }
    if has("\"=\"") && !operator {
        return Some("is the `=` missing?");
    }
    if token == Some(Token::Reduce) {
        return Some("put the reduction in parentheses");
    }
    if matches!(token, Some(Token::Int)) && has("\"name\"") && has("\"]\"") {
        return Some("axes are names: `axis j: 4` declares one of four");
    }
    if has("\"->\"") && !has("\"]\"") {
        return Some("the outputs follow the inputs: `kernel f(q: [t,d]) -> (o: [t,d]) { .. }`");
    }
    None
}

/// The last token that ends at or before `end`, comments left out. Looks at the line before first, then further back.
fn last_token(text: &str, end: usize) -> Option<(usize, Token, usize)> {
    let mut from = end;
    // A token never spans lines, so whole lines can be read again on their own.
    loop {
        from = text[..from].rfind('\n').unwrap_or(0);
        let found = lex(&text[from..end]).into_iter().rfind(|t| !matches!(t.1, Token::Comment | Token::Doc));
        if let Some((l, t, r)) = found {
            return Some((from + l, t, from + r));
        }
        if from == 0 {
            return None;
        }
    }
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
    for w in &raw {
        match *w {
            "bad" => {}
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
