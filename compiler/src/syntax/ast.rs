//! What was written. One node per construct of docs/language.md; names are unresolved, nothing is desugared except that
//! `mask m = e` is a `let`, a comparison chain is one node, and a trailing `where` sits on the reduction it binds to.

use crate::base::Span;

/// A name and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ident {
    pub name: String,
    pub span: Span,
}

/// A source file: functions and kernels in order of appearance.
#[derive(Clone, Debug, Default)]
pub struct File {
    pub items: Vec<Item>,
}

#[derive(Clone, Debug)]
pub enum Item {
    Fn(FnDecl),
    Kernel(Kernel),
    /// A stretch that did not parse; already reported.
    Error(Span),
}

/// `kernel name(params) -> (outputs) { body }`
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Lines of the `///` comment above it, without the slashes.
    pub doc: Vec<String>,
    pub name: Ident,
    pub params: Vec<Param>,
    pub outputs: Vec<Output>,
    pub body: Block,
    pub span: Span,
}

/// `name: int [b,t] <= 0 = default`
#[derive(Clone, Debug)]
pub struct Param {
    pub name: Ident,
    pub ty: Type,
    /// `<= 0` in `log_f: [b,h,t] <= 0`.
    pub fact: Option<(CmpOp, Expr)>,
    pub default: Option<Expr>,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct Output {
    pub name: Ident,
    pub ty: Type,
    pub span: Span,
}

/// Dtype as written; `None` means `real`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeName {
    Real,
    Int,
    Bool,
    Complex,
}

/// `int [b,t]`; `axes: None` is a scalar (or, on a state or `let`, "not declared").
#[derive(Clone, Debug, Default)]
pub struct Type {
    pub dtype: Option<(TypeName, Span)>,
    pub axes: Option<Vec<Ident>>,
    pub span: Span,
}

/// `fn name[axes](params) = expr` or `{ let .. return expr }`; the first form has a body of one `Return`.
#[derive(Clone, Debug)]
pub struct FnDecl {
    pub doc: Vec<String>,
    pub name: Ident,
    pub axes: Vec<Ident>,
    /// Parameters with optional defaults.
    pub params: Vec<(Ident, Option<Expr>)>,
    pub body: Block,
    pub span: Span,
}

#[derive(Clone, Debug, Default)]
pub struct Block {
    pub stmts: Vec<Stmt>,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct Stmt {
    pub kind: StmtKind,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum StmtKind {
    /// `axis s: T, c: ceildiv(T, 64)`
    Axis(Vec<(Ident, Expr)>),
    /// `let x: [b,t] = e`, `mask m = e`
    Let { name: Ident, ty: Option<Type>, value: Expr, mask: bool },
    Require(Expr),
    Return(Expr),
    /// `state S: [d,e] = init`
    State { name: Ident, ty: Option<Type>, init: Expr },
    /// `scan t reverse where cond { .. }`
    Scan { axis: Ident, reverse: bool, cond: Option<Expr>, body: Block },
    /// `repeat n until cond { .. }`
    Repeat { count: Expr, until: Option<Expr>, body: Block },
    /// `name = e`: an output, an export of a scan; `S' = e` when `primed`.
    Set { name: Ident, primed: bool, value: Expr },
    Fn(FnDecl),
    Schedule(Schedule),
    /// Did not parse; already reported.
    Error,
}

/// `schedule { tile t 128; chunk t 64; stages 3; target ptx { .. } }`: a list of `words numbers`, checked later.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    pub entries: Vec<ScheduleEntry>,
    pub span: Span,
}

/// One line of a schedule: `tile t 128` is words `tile`, `t` and number 128. `nested` holds the block of `target ptx { .. }`.
#[derive(Clone, Debug)]
pub struct ScheduleEntry {
    pub words: Vec<Ident>,
    pub numbers: Vec<i64>,
    pub nested: Option<Schedule>,
    pub span: Span,
}

/// An expression, its place and its nesting depth (the parser refuses depths beyond [`MAX_DEPTH`]).
#[derive(Clone, Debug)]
pub struct Expr {
    pub kind: Box<ExprKind>,
    pub span: Span,
    pub depth: u16,
}

/// Deepest expression that is accepted, so that recursion over the AST stays within a thread's stack.
pub const MAX_DEPTH: u16 = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmpOp {
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    Ne,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinOp {
    Add,
    Sub,
    Mul,
    Div,
    /// `div`: quotient rounded towards minus infinity.
    IntDiv,
    /// `mod`: the remainder that goes with `div`.
    Mod,
    Pow,
    And,
    Or,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnOp {
    Neg,
    Not,
}

/// `[<= t]` and friends: which positions of the axis a prefix reduction takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrefixDir {
    /// positions at or before
    Le,
    /// positions before
    Lt,
    /// positions at or after
    Ge,
    /// positions after
    Gt,
}

/// One entry between brackets after a function name: `s`, `<= t` or `s -> j`.
#[derive(Clone, Debug)]
pub struct AxisArg {
    pub axis: Ident,
    pub prefix: Option<PrefixDir>,
    pub to: Option<Ident>,
}

#[derive(Clone, Debug)]
pub enum ExprKind {
    Int(i64),
    Real(f64),
    True,
    False,
    Inf,
    /// `x`, or `S'` when `primed`.
    Name { name: String, primed: bool },
    Paren(Expr),
    Unary(UnOp, Expr),
    Binary(BinOp, Expr, Expr),
    /// `a < b <= c`: first operand, then operators with their right operands.
    Compare(Expr, Vec<(CmpOp, Expr)>),
    If { cond: Expr, then: Expr, other: Expr },
    /// `e where m` that binds to no reduction.
    Where(Expr, Expr),
    /// `a ?? b`
    Coalesce(Expr, Expr),
    /// `x[t = e, h = f]`
    Read { base: Expr, subs: Vec<(Ident, Expr)> },
    /// `f(a, b)`, `norm[s](x)`, `topk[c](x, n)`, `argsort[t -> j](x)`
    Call { name: Ident, axes: Vec<AxisArg>, args: Vec<Expr> },
    /// `sum[s] body where cond`, `sum[<= t] body`: `op` is a word of the closed table of reductions.
    Reduce { op: Ident, axes: Vec<Ident>, prefix: Option<PrefixDir>, body: Expr, cond: Option<Expr> },
    /// Did not parse; already reported.
    Error,
}
