//! What the grammar's actions share: spans, names, depth of expressions, and where a trailing `where` belongs.

use super::ast::*;
use super::errors;
use super::token::Token;
use crate::base::{SourceId, Span};
use lalrpop_util::ErrorRecovery;
use std::collections::HashMap;

/// State of one parse.
pub struct Cx<'a> {
    pub text: &'a str,
    pub id: SourceId,
    pub docs: HashMap<usize, Vec<String>>,
    pub diagnostics: errors::Report,
    /// What the parser reads: an error is worded by what stands before it.
    pub tokens: &'a [(usize, Token, usize)],
    /// Stretches outside of any kernel that were dropped.
    pub stray: Vec<Span>,
    /// Token index up to which a further error is a consequence of the last one (see [`Cx::recovered_item`]).
    pub quiet_until: usize,
}

/// An error in a comma list is followed by a guess; errors within so many tokens of it are not reported.
const QUIET_TOKENS: usize = 4;

impl Cx<'_> {
    pub fn span(&self, start: usize, end: usize) -> Span {
        Span::new(self.id, start, end.max(start))
    }

    pub fn ident(&self, start: usize, end: usize) -> Ident {
        Ident { name: self.text[start..end].to_string(), span: self.span(start, end) }
    }

    /// Name without the quote of `S'`.
    pub fn primed(&self, start: usize, end: usize) -> Ident {
        Ident { name: self.text[start..end - 1].to_string(), span: self.span(start, end) }
    }

    pub fn docs(&mut self, start: usize) -> Vec<String> {
        self.docs.remove(&start).unwrap_or_default()
    }

    pub fn int(&mut self, start: usize, end: usize) -> i64 {
        self.text[start..end].parse().unwrap_or_else(|_| {
            let span = self.span(start, end);
            self.diagnostics.push(errors::number_too_large(span));
            0
        })
    }

    pub fn real(&mut self, start: usize, end: usize) -> f64 {
        let value: f64 = self.text[start..end].parse().unwrap_or(f64::INFINITY);
        if value.is_infinite() {
            let span = self.span(start, end);
            self.diagnostics.push(errors::real_too_large(span));
        }
        value
    }

    /// A dtype word in front of axes.
    pub fn dtype(&mut self, name: Ident) -> Option<(TypeName, Span)> {
        let dtype = match name.name.as_str() {
            "real" => TypeName::Real,
            "int" => TypeName::Int,
            "bool" => TypeName::Bool,
            "complex" => TypeName::Complex,
            _ => {
                self.diagnostics.push(errors::unknown_type(&name));
                return None;
            }
        };
        Some((dtype, name.span))
    }

    /// An expression with its depth; one that is nested too deeply becomes `Error` and takes its parents with it, reported once.
    pub fn expr(&mut self, kind: ExprKind, start: usize, end: usize) -> Expr {
        let span = self.span(start, end);
        if let Some(left) = unprotected_prefix(&kind) {
            self.diagnostics.push(errors::prefix_needs_parentheses(left, span));
        }
        self.sized(kind, span)
    }

    fn sized(&mut self, kind: ExprKind, span: Span) -> Expr {
        let mut deepest = 0;
        let mut reported = false;
        each_child(&kind, |child| {
            deepest = deepest.max(child.depth);
            reported |= child.depth >= MAX_DEPTH && matches!(*child.kind, ExprKind::Error);
        });
        if deepest < MAX_DEPTH {
            return Expr { kind: Box::new(kind), span, depth: deepest + 1 };
        }
        if !reported {
            self.diagnostics.push(errors::too_deep(span));
        }
        Expr { kind: Box::new(ExprKind::Error), span, depth: MAX_DEPTH }
    }

    pub fn error_expr(&self, start: usize, end: usize) -> Expr {
        Expr { kind: Box::new(ExprKind::Error), span: self.span(start, end), depth: 1 }
    }

    pub fn binary(&mut self, op: BinOp, a: Expr, b: Expr) -> Expr {
        let (start, end) = (a.span.start as usize, b.span.end as usize);
        self.expr(ExprKind::Binary(op, a, b), start, end)
    }

    pub fn compare(&mut self, (first, rest): (Expr, Vec<(CmpOp, Expr)>)) -> Expr {
        let start = first.span.start as usize;
        let end = rest.last().map_or(first.span.end, |(_, e)| e.span.end) as usize;
        self.expr(ExprKind::Compare(first, rest), start, end)
    }

    /// `e where cond` at the level of a statement: the clause goes to the reduction that ends `e`, if one does.
    pub fn attach_where(&mut self, mut e: Expr, cond: Expr) -> Expr {
        match self.attach(&mut e, cond) {
            None => e,
            Some(cond) => {
                let (start, end) = (e.span.start as usize, cond.span.end as usize);
                self.expr(ExprKind::Where(e, cond), start, end)
            }
        }
    }

    /// Hangs `cond` on the rightmost reduction of the unparenthesised right spine of `e`; gives it back when there is none.
    fn attach(&mut self, e: &mut Expr, cond: Expr) -> Option<Expr> {
        let end = cond.span;
        let left = match &mut *e.kind {
            ExprKind::Reduce { prefix: None, body, cond: own, .. } => match self.attach(body, cond) {
                Some(cond) => {
                    // A second clause: the first becomes part of the body, so that each stays a condition of its own.
                    if let Some(first) = own.take() {
                        let inner = std::mem::replace(body, Expr { kind: Box::new(ExprKind::Error), span: end, depth: 1 });
                        let span = inner.span.to(first.span);
                        *body = self.sized(ExprKind::Where(inner, first), span);
                    }
                    *own = Some(cond);
                    None
                }
                None => None,
            },
            ExprKind::Binary(_, _, right) | ExprKind::Unary(_, right) | ExprKind::If { other: right, .. } => self.attach(right, cond),
            ExprKind::Compare(_, rest) => match rest.last_mut() {
                Some((_, right)) => self.attach(right, cond),
                None => Some(cond),
            },
            ExprKind::Int(_)
            | ExprKind::Real(_)
            | ExprKind::True
            | ExprKind::False
            | ExprKind::Inf
            | ExprKind::Name { .. }
            | ExprKind::Paren(_)
            | ExprKind::Where(..)
            | ExprKind::Coalesce(..)
            | ExprKind::Read { .. }
            | ExprKind::Call { .. }
            | ExprKind::Reduce { prefix: Some(_), .. }
            | ExprKind::Error => Some(cond),
        };
        if left.is_none() {
            let kind = std::mem::replace(&mut *e.kind, ExprKind::Error);
            *e = self.sized(kind, e.span.to(end));
        }
        left
    }

    /// Reports an error after which the parser goes on at the next statement; says whether it did, as some are known already.
    pub fn recovered(&mut self, e: &ErrorRecovery<usize, Token, ()>) -> bool {
        let index = self.index(errors::location(&e.error));
        let fresh = index >= self.quiet_until && errors::is_fresh(&e.error);
        if fresh {
            let (before, text, id) = (&self.tokens[..index], self.text, self.id);
            self.diagnostics.add(|| errors::unexpected(&e.error, before, text, id));
        }
        self.quiet_until = 0;
        fresh
    }

    /// The same inside a comma list, where going on is a guess: errors that follow at once are taken as consequences.
    pub fn recovered_item(&mut self, e: &ErrorRecovery<usize, Token, ()>) {
        self.recovered(e);
        let end = e.dropped_tokens.last().map_or_else(|| errors::location(&e.error), |t| t.2);
        self.quiet_until = self.index(end) + QUIET_TOKENS;
    }

    /// Index of the first token at or after a byte.
    fn index(&self, at: usize) -> usize {
        self.tokens.partition_point(|t| t.0 < at)
    }
}

/// Runs `f` on every direct operand.
pub fn each_child(kind: &ExprKind, mut f: impl FnMut(&Expr)) {
    match kind {
        ExprKind::Int(_) | ExprKind::Real(_) | ExprKind::True | ExprKind::False | ExprKind::Inf | ExprKind::Name { .. } | ExprKind::Error => {}
        ExprKind::Paren(a) | ExprKind::Unary(_, a) => f(a),
        ExprKind::Binary(_, a, b) | ExprKind::Where(a, b) | ExprKind::Coalesce(a, b) => {
            f(a);
            f(b);
        }
        ExprKind::Compare(a, rest) => {
            f(a);
            rest.iter().for_each(|(_, e)| f(e));
        }
        ExprKind::If { cond, then, other } => {
            f(cond);
            f(then);
            f(other);
        }
        ExprKind::Read { base, subs } => {
            f(base);
            subs.iter().for_each(|(_, e)| f(e));
        }
        ExprKind::Call { args, .. } => args.iter().for_each(f),
        ExprKind::Reduce { body, cond, .. } => {
            f(body);
            cond.iter().for_each(f);
        }
    }
}

/// The left operand of `kind` when `kind` is a product (or tighter) and that operand ends in a prefix reduction without parentheses.
fn unprotected_prefix(kind: &ExprKind) -> Option<Span> {
    let left = match kind {
        ExprKind::Binary(BinOp::Mul | BinOp::Div | BinOp::IntDiv | BinOp::Mod | BinOp::Pow, left, _) => left,
        ExprKind::Coalesce(left, _) => left,
        _ => return None,
    };
    let mut e = left;
    loop {
        match &*e.kind {
            ExprKind::Reduce { prefix: Some(_), .. } => return Some(e.span),
            ExprKind::Binary(_, _, right) | ExprKind::Unary(_, right) | ExprKind::Coalesce(_, right) => e = right,
            _ => return None,
        }
    }
}
