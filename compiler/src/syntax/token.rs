//! Characters to tokens. Context (which word is a keyword here, where a statement starts) is added by `filter`.

use logos::Logos;

/// A token of the parser. Tokens carry no text; the parser takes it from the source by their span.
#[derive(Logos, Clone, Copy, Debug, PartialEq, Eq)]
#[logos(skip r"[ \t\r\n\x0C\u{feff}]+")]
pub enum Token {
    /// `///` line, kept when a kernel or function follows.
    #[regex(r"///([^/\n][^\n]*)?", priority = 20, allow_greedy = true)]
    Doc,
    #[regex(r"//[^\n]*", priority = 10, allow_greedy = true)]
    Comment,

    #[regex(r"[A-Za-z_][A-Za-z_0-9]*", priority = 2)]
    Name,
    /// `S'`
    #[regex(r"[A-Za-z_][A-Za-z_0-9]*'")]
    Prime,
    #[regex(r"[0-9]+")]
    Int,
    #[regex(r"[0-9]+\.[0-9]+([eE][+-]?[0-9]+)?")]
    #[regex(r"[0-9]+[eE][+-]?[0-9]+")]
    Real,

    #[token("let")]
    Let,
    #[token("if")]
    If,
    #[token("then")]
    Then,
    #[token("else")]
    Else,
    #[token("where")]
    Where,
    #[token("and")]
    And,
    #[token("or")]
    Or,
    #[token("not")]
    Not,
    #[token("div")]
    IntDiv,
    #[token("mod")]
    Mod,
    #[token("fn")]
    Fn,
    #[token("return")]
    Return,
    #[token("scan")]
    Scan,
    #[token("repeat")]
    Repeat,
    #[token("require")]
    Require,
    #[token("true")]
    True,
    #[token("false")]
    False,
    #[token("inf")]
    Inf,

    #[token("(")]
    LParen,
    #[token(")")]
    RParen,
    #[token("[")]
    LBracket,
    #[token("]")]
    RBracket,
    #[token("{")]
    LBrace,
    #[token("}")]
    RBrace,
    #[token(",")]
    Comma,
    #[token(":")]
    Colon,
    #[token(";")]
    Semi,
    #[token("=")]
    Assign,
    #[token("->")]
    Arrow,
    #[token("??")]
    Coalesce,
    #[token("+")]
    Plus,
    #[token("-")]
    Minus,
    #[token("*")]
    Star,
    #[token("/")]
    Slash,
    #[token("^")]
    Caret,
    #[token("<")]
    Lt,
    #[token("<=")]
    Le,
    #[token(">")]
    Gt,
    #[token(">=")]
    Ge,
    #[token("==")]
    EqEq,
    #[token("!=")]
    Ne,

    /// An operator of some other language; the filter reports it and puts ours in its place.
    #[token("&&")]
    #[token("||")]
    #[token("!")]
    #[token("%")]
    #[token("**")]
    #[token(":=")]
    #[token("<>")]
    #[token("+=")]
    #[token("-=")]
    #[token("*=")]
    #[token("/=")]
    Foreign,

    // Made by the filter: words that are keywords here, and the marks between statements.
    Kernel,
    /// `fn` outside a kernel.
    TopFn,
    Axis,
    Mask,
    State,
    Schedule,
    Reverse,
    Until,
    /// A reduction word in front of its axes.
    Reduce,
    /// Start of a statement, or `;`.
    Sep,
    /// `import a`, which is not part of the language yet; the filter reports it and drops the rest of the item.
    Import,
    /// Characters that are no token (already reported), or the rest of a statement that was cut. Text in quotes is one of them.
    #[regex(r#""[^"\n]*""#)]
    Bad,
}

impl Token {
    /// Whether an operand may end here, so that what follows is an operator or a new statement.
    pub fn ends_operand(self) -> bool {
        use Token::*;
        matches!(self, Name | Prime | Int | Real | True | False | Inf | RParen | RBracket)
    }

    /// Words that can never be names.
    pub fn is_reserved(self) -> bool {
        use Token::*;
        matches!(
            self,
            Let | If | Then | Else | Where | And | Or | Not | IntDiv | Mod | Fn | TopFn | Return | Scan | Repeat | Require | True | False | Inf
        )
    }
}

/// Tokens of `source` with their byte ranges, comments included; unknown characters give `Token::Bad`, one per run.
pub fn lex(source: &str) -> Vec<(usize, Token, usize)> {
    let mut out: Vec<(usize, Token, usize)> = Vec::new();
    for (token, range) in Token::lexer(source).spanned() {
        let token = token.unwrap_or(Token::Bad);
        if token == Token::Bad
            && let Some((_, Token::Bad, end)) = out.last_mut()
            && *end == range.start
        {
            *end = range.end;
            continue;
        }
        out.push((range.start, token, range.end));
    }
    out
}
