//! AST to text, fully parenthesised: what `--emit ast` shows. Printing a parsed print gives the same text.

use super::ast::*;
use std::fmt::Write;

/// The program with every grouping spelled out, one statement a line. Stretches that did not parse are printed as `<error>`.
pub fn print(file: &File) -> String {
    let mut p = Printer { out: String::new(), indent: 0 };
    for (index, item) in file.items.iter().enumerate() {
        if index > 0 {
            p.out.push('\n');
        }
        match item {
            Item::Fn(f) => p.function(f),
            Item::Kernel(k) => p.kernel(k),
            Item::Error(_) => p.line("<error>"),
        }
    }
    p.out
}

struct Printer {
    out: String,
    indent: usize,
}

impl Printer {
    fn line(&mut self, text: &str) {
        for _ in 0..self.indent {
            self.out.push_str("    ");
        }
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn docs(&mut self, lines: &[String]) {
        for line in lines {
            self.line(if line.is_empty() { "///".to_string() } else { format!("/// {line}") }.as_str());
        }
    }

    fn kernel(&mut self, k: &Kernel) {
        self.docs(&k.doc);
        let params: Vec<String> = k.params.iter().map(param).collect();
        let outputs: Vec<String> = k.outputs.iter().map(|o| format!("{}: {}", o.name.name, ty(&o.ty))).collect();
        self.block(&format!("kernel {}({}) -> ({})", k.name.name, params.join(", "), outputs.join(", ")), &k.body);
    }

    fn function(&mut self, f: &FnDecl) {
        self.docs(&f.doc);
        let axes = if f.axes.is_empty() { String::new() } else { format!("[{}]", names(&f.axes)) };
        let params: Vec<String> = f
            .params
            .iter()
            .map(|(name, default)| match default {
                Some(e) => format!("{} = {}", name.name, whole(e)),
                None => name.name.clone(),
            })
            .collect();
        let head = format!("fn {}{axes}({})", f.name.name, params.join(", "));
        self.block(&head, &f.body);
    }

    fn block(&mut self, head: &str, block: &Block) {
        self.line(&format!("{head} {{"));
        self.indent += 1;
        for stmt in &block.stmts {
            self.stmt(stmt);
        }
        self.indent -= 1;
        self.line("}");
    }

    fn stmt(&mut self, stmt: &Stmt) {
        let declared = |t: &Option<Type>| t.as_ref().map_or(String::new(), |t| format!(": {}", ty(t)));
        match &stmt.kind {
            StmtKind::Axis(axes) => {
                let list: Vec<String> = axes.iter().map(|(n, e)| format!("{}: {}", n.name, whole(e))).collect();
                self.line(&format!("axis {}", list.join(", ")));
            }
            StmtKind::Let { name, ty, value, mask } => {
                let word = if *mask { "mask" } else { "let" };
                self.line(&format!("{word} {}{} = {}", name.name, declared(ty), whole(value)));
            }
            StmtKind::Require(e) => self.line(&format!("require {}", whole(e))),
            StmtKind::Return(e) => self.line(&format!("return {}", whole(e))),
            StmtKind::State { name, ty, init } => self.line(&format!("state {}{} = {}", name.name, declared(ty), whole(init))),
            StmtKind::Scan { axis, reverse, cond, body } => {
                let mut head = format!("scan {}", axis.name);
                if *reverse {
                    head.push_str(" reverse");
                }
                if let Some(e) = cond {
                    let _ = write!(head, " where {}", whole(e));
                }
                self.block(&head, body);
            }
            StmtKind::Repeat { count, until, body } => {
                let mut head = format!("repeat {}", whole(count));
                if let Some(e) = until {
                    let _ = write!(head, " until {}", whole(e));
                }
                self.block(&head, body);
            }
            StmtKind::Set { name, primed, value } => {
                self.line(&format!("{}{} = {}", name.name, if *primed { "'" } else { "" }, whole(value)));
            }
            StmtKind::Fn(f) => self.function(f),
            StmtKind::Schedule(s) => self.schedule("schedule", s),
            StmtKind::Error => self.line("<error>"),
        }
    }

    fn schedule(&mut self, head: &str, s: &Schedule) {
        self.line(&format!("{head} {{"));
        self.indent += 1;
        for e in &s.entries {
            let mut text = names_with(&e.words, " ");
            match &e.nested {
                Some(nested) => self.schedule(&text, nested),
                None => {
                    for n in &e.numbers {
                        let _ = write!(text, " {n}");
                    }
                    self.line(&format!("{text};"));
                }
            }
        }
        self.indent -= 1;
        self.line("}");
    }
}

fn names(list: &[Ident]) -> String {
    names_with(list, ",")
}

fn names_with(list: &[Ident], between: &str) -> String {
    list.iter().map(|n| n.name.as_str()).collect::<Vec<_>>().join(between)
}

fn param(p: &Param) -> String {
    let mut text = format!("{}: {}", p.name.name, ty(&p.ty));
    if let Some((op, e)) = &p.fact {
        let _ = write!(text, " {} {}", cmp(*op), operand(e));
    }
    if let Some(e) = &p.default {
        let _ = write!(text, " = {}", whole(e));
    }
    text
}

fn ty(t: &Type) -> String {
    let word = t.dtype.map(|(d, _)| match d {
        TypeName::Real => "real",
        TypeName::Int => "int",
        TypeName::Bool => "bool",
        TypeName::Complex => "complex",
    });
    match (word, &t.axes) {
        (Some(w), Some(axes)) => format!("{w} [{}]", names(axes)),
        (None, Some(axes)) => format!("[{}]", names(axes)),
        (Some(w), None) => w.to_string(),
        // Only after an unknown type word, which was reported.
        (None, None) => "real".to_string(),
    }
}

fn cmp(op: CmpOp) -> &'static str {
    match op {
        CmpOp::Lt => "<",
        CmpOp::Le => "<=",
        CmpOp::Gt => ">",
        CmpOp::Ge => ">=",
        CmpOp::Eq => "==",
        CmpOp::Ne => "!=",
    }
}

fn bin(op: BinOp) -> &'static str {
    match op {
        BinOp::Add => "+",
        BinOp::Sub => "-",
        BinOp::Mul => "*",
        BinOp::Div => "/",
        BinOp::IntDiv => "div",
        BinOp::Mod => "mod",
        BinOp::Pow => "^",
        BinOp::And => "and",
        BinOp::Or => "or",
    }
}

fn direction(d: PrefixDir) -> &'static str {
    match d {
        PrefixDir::Le => "<=",
        PrefixDir::Lt => "<",
        PrefixDir::Ge => ">=",
        PrefixDir::Gt => ">",
    }
}

/// An expression that fills its place: no parentheses around it.
fn whole(e: &Expr) -> String {
    let mut out = String::new();
    write_expr(&mut out, e);
    out
}

/// An expression inside another: in parentheses unless nothing around it can change its reading.
fn operand(e: &Expr) -> String {
    let mut out = String::new();
    write_operand(&mut out, e);
    out
}

fn write_operand(out: &mut String, e: &Expr) {
    let closed = match &*e.kind {
        ExprKind::Paren(inner) => return write_operand(out, inner),
        ExprKind::Int(_)
        | ExprKind::Real(_)
        | ExprKind::True
        | ExprKind::False
        | ExprKind::Inf
        | ExprKind::Name { .. }
        | ExprKind::Read { .. }
        | ExprKind::Call { .. }
        | ExprKind::Error => true,
        ExprKind::Unary(..)
        | ExprKind::Binary(..)
        | ExprKind::Compare(..)
        | ExprKind::If { .. }
        | ExprKind::Where(..)
        | ExprKind::Coalesce(..)
        | ExprKind::Reduce { .. } => false,
    };
    if closed {
        write_expr(out, e);
    } else {
        out.push('(');
        write_expr(out, e);
        out.push(')');
    }
}

fn write_expr(out: &mut String, e: &Expr) {
    match &*e.kind {
        ExprKind::Int(v) => {
            let _ = write!(out, "{v}");
        }
        ExprKind::Real(v) if v.is_finite() => {
            let _ = write!(out, "{v:?}");
        }
        ExprKind::Real(_) | ExprKind::Inf => out.push_str("inf"),
        ExprKind::True => out.push_str("true"),
        ExprKind::False => out.push_str("false"),
        ExprKind::Name { name, primed } => {
            out.push_str(name);
            if *primed {
                out.push('\'');
            }
        }
        ExprKind::Paren(inner) => write_expr(out, inner),
        ExprKind::Unary(UnOp::Neg, a) => {
            out.push('-');
            write_operand(out, a);
        }
        ExprKind::Unary(UnOp::Not, a) => {
            out.push_str("not ");
            write_operand(out, a);
        }
        ExprKind::Binary(op, a, b) => infix(out, a, bin(*op), b),
        ExprKind::Compare(a, rest) => {
            write_operand(out, a);
            for (op, b) in rest {
                let _ = write!(out, " {} ", cmp(*op));
                write_operand(out, b);
            }
        }
        ExprKind::If { cond, then, other } => {
            out.push_str("if ");
            write_operand(out, cond);
            out.push_str(" then ");
            write_operand(out, then);
            out.push_str(" else ");
            write_operand(out, other);
        }
        ExprKind::Where(a, cond) => infix(out, a, "where", cond),
        ExprKind::Coalesce(a, b) => infix(out, a, "??", b),
        ExprKind::Read { base, subs } => {
            write_operand(out, base);
            out.push('[');
            for (index, (name, value)) in subs.iter().enumerate() {
                let _ = write!(out, "{}{} = ", if index > 0 { ", " } else { "" }, name.name);
                write_expr(out, value);
            }
            out.push(']');
        }
        ExprKind::Call { name, axes, args } => {
            out.push_str(&name.name);
            if !axes.is_empty() {
                let list: Vec<String> = axes
                    .iter()
                    .map(|a| {
                        let to = a.to.as_ref().map_or(String::new(), |t| format!(" -> {}", t.name));
                        let prefix = a.prefix.map_or(String::new(), |d| format!("{} ", direction(d)));
                        format!("{prefix}{}{to}", a.axis.name)
                    })
                    .collect();
                let _ = write!(out, "[{}]", list.join(", "));
            }
            out.push('(');
            for (index, arg) in args.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_expr(out, arg);
            }
            out.push(')');
        }
        ExprKind::Reduce { op, axes, prefix, body, cond } => {
            match prefix {
                Some(d) => {
                    let _ = write!(out, "{}[{} {}] ", op.name, direction(*d), names(axes));
                }
                None => {
                    let _ = write!(out, "{}[{}] ", op.name, names_with(axes, ", "));
                }
            }
            write_operand(out, body);
            if let Some(cond) = cond {
                out.push_str(" where ");
                write_operand(out, cond);
            }
        }
        ExprKind::Error => out.push_str("<error>"),
    }
}

fn infix(out: &mut String, a: &Expr, word: &str, b: &Expr) {
    write_operand(out, a);
    let _ = write!(out, " {word} ");
    write_operand(out, b);
}
