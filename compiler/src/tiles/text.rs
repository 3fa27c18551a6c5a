//! Readable dumps of tile kernels, stable from run to run.

use super::ir::*;
use crate::kernel::plan::{HostExpr, Plan};
use crate::ops::Scalar;
use std::fmt::Write;

/// All kernels of a program.
pub fn program(p: &TileProgram) -> String {
    p.kernels.iter().map(|k| kernel(k, &p.plan)).collect::<Vec<_>>().join("\n")
}

/// One kernel.
pub fn kernel(k: &TileKernel, plan: &Plan) -> String {
    let mut out = String::new();
    let printer = Printer { k, plan };
    let grid: Vec<String> = k.grid.iter().map(|d| format!("{} in {} by {}", printer.dim(*d), printer.host(&k.dim(*d).extent), k.dim(*d).kind.capacity())).collect();
    let _ = writeln!(out, "tiles {} grid [{}] {{", k.name, grid.join(", "));
    for (i, d) in k.dims.iter().enumerate() {
        if let DimKind::Whole { extent } = d.kind {
            let _ = writeln!(out, "  whole {}: {extent}", printer.dim(DimId(i as u32)));
        }
    }
    printer.stmts(&k.body, 1, &mut out);
    out.push_str("}\n");
    out
}

struct Printer<'a> {
    k: &'a TileKernel,
    plan: &'a Plan,
}

impl Printer<'_> {
    fn dim(&self, d: DimId) -> String {
        format!("{}#{}", self.k.dim(d).name, d.0)
    }

    fn tile(&self, t: TileId) -> String {
        format!("%{}_{}", self.k.tile(t).name, t.0)
    }

    fn typed(&self, t: TileId) -> String {
        let dims: Vec<String> = self.k.tile(t).dims.iter().map(|d| self.dim(*d)).collect();
        format!("{}: [{}] {}", self.tile(t), dims.join(","), self.k.tile(t).dtype.name())
    }

    fn host(&self, e: &HostExpr) -> String {
        match e {
            HostExpr::Int(v) => v.to_string(),
            HostExpr::Real(v) => format!("{v:?}"),
            HostExpr::Bool(v) => v.to_string(),
            HostExpr::Extent(a) => format!("|{}|", self.plan.axes.get(*a as usize).map_or("?", |a| a.name.as_str())),
            HostExpr::Scalar(i) => self.plan.inputs.get(*i as usize).map_or("?".to_string(), |i| i.name.clone()),
            HostExpr::Op(op, args) => format!("{}({})", op.name(), args.iter().map(|a| self.host(a)).collect::<Vec<_>>().join(", ")),
        }
    }

    fn expr(&self, e: ExprId) -> String {
        self.expr_to(e, 0)
    }

    fn expr_to(&self, e: ExprId, depth: usize) -> String {
        if depth > 40 {
            return "..".to_string();
        }
        let sub = |e: &ExprId| self.expr_to(*e, depth + 1);
        match self.k.expr(e) {
            Expr::Const(Scalar::Real(v)) => format!("{v:?}"),
            Expr::Const(Scalar::Int(v)) => v.to_string(),
            Expr::Const(Scalar::Bool(v)) => v.to_string(),
            Expr::Const(Scalar::Complex(a, b)) => format!("{a:?}+{b:?}i"),
            Expr::Host(h) => self.host(h),
            Expr::Pos(d) => self.dim(*d),
            Expr::Start(d) => format!("start({})", self.dim(*d)),
            Expr::Stop(d) => format!("stop({})", self.dim(*d)),
            Expr::Op { op, args } => format!("{}({})", op.name(), args.iter().map(sub).collect::<Vec<_>>().join(", ")),
            Expr::Tile(t) => self.tile(*t),
            Expr::TileAt { tile, at } => {
                let at: Vec<String> = at.iter().map(|(d, i)| format!("{} = {}", self.dim(*d), sub(i))).collect();
                format!("{}[{}]", self.tile(*tile), at.join(", "))
            }
            Expr::Load { buffer, index, guard } => {
                let index: Vec<String> = index.iter().zip(guard).map(|(i, g)| format!("{}{}", sub(i), if *g { "?" } else { "" })).collect();
                format!("{}[{}]", self.plan.buffers.get(buffer.index()).map_or("?", |b| b.name.as_str()), index.join(", "))
            }
            Expr::Masked { cond, value, other, class } => {
                let class = class.map_or(String::new(), |c| format!(" only partial {}", self.dim(c)));
                format!("({} where {}{class} else {})", sub(value), sub(cond), sub(other))
            }
        }
    }

    fn stmts(&self, stmts: &[Stmt], depth: usize, out: &mut String) {
        let pad = "  ".repeat(depth);
        for s in stmts {
            match s {
                Stmt::Map { out: t, expr } => {
                    let _ = writeln!(out, "{pad}{} = {}", self.typed(*t), self.expr(*expr));
                }
                Stmt::Reduce { out: t, op, over, expr, carried } => {
                    let over: Vec<String> = over.iter().map(|d| self.dim(*d)).collect();
                    let with = carried.map_or(String::new(), |c| format!(" with {}", self.tile(c)));
                    let _ = writeln!(out, "{pad}{} = {}[{}] {}{with}", self.typed(*t), op.name(), over.join(","), self.expr(*expr));
                }
                Stmt::Dot { out: t, a, b, over, carried } => {
                    let over: Vec<String> = over.iter().map(|d| self.dim(*d)).collect();
                    let with = carried.map_or(String::new(), |c| format!(" acc {}", self.tile(c)));
                    let _ = writeln!(out, "{pad}{} = dot[{}] {}, {}{with}", self.typed(*t), over.join(","), self.expr(*a), self.expr(*b));
                }
                Stmt::Prefix { out: t, op, dim, expr, before, reverse } => {
                    let sign = match (before, reverse) {
                        (false, false) => "<=",
                        (true, false) => "<",
                        (false, true) => ">=",
                        (true, true) => ">",
                    };
                    let _ = writeln!(out, "{pad}{} = {}[{sign} {}] {}", self.typed(*t), op.name(), self.dim(*dim), self.expr(*expr));
                }
                Stmt::Solve { out: t, rows, cols, matrix, rhs, reverse } => {
                    let sign = if *reverse { ">" } else { "<" };
                    let _ = writeln!(out, "{pad}{} = solve[{}, {} {sign}] {}, {}", self.typed(*t), self.dim(*rows), self.dim(*cols), self.expr(*matrix), self.expr(*rhs));
                }
                Stmt::Store { buffer, index, dims, expr } => {
                    let index: Vec<String> = index.iter().map(|i| self.expr(*i)).collect();
                    let dims: Vec<String> = dims.iter().map(|d| self.dim(*d)).collect();
                    let name = self.plan.buffers.get(buffer.index()).map_or("?", |b| b.name.as_str());
                    let _ = writeln!(out, "{pad}store[{}] {name}[{}] = {}", dims.join(","), index.join(", "), self.expr(*expr));
                }
                Stmt::Order(o) => {
                    let row = |r: &Row| {
                        let index: Vec<String> = r.index.iter().map(|i| self.expr(*i)).collect();
                        let name = self.plan.buffers.get(r.buffer.index()).map_or("?", |b| b.name.as_str());
                        format!("{name}[{}] by {}", index.join(", "), self.expr(r.step))
                    };
                    let mask = o.mask.as_ref().map_or(String::new(), |m| format!(" where {}", row(m)));
                    let _ = writeln!(out, "{pad}order[{}] {} = {} {} of {} in {}{mask}", o.dims.iter().map(|d| self.dim(*d)).collect::<Vec<_>>().join(","), row(&o.out), o.kind.name(), self.expr(o.count), self.expr(o.n), row(&o.key));
                }
                Stmt::Loop(l) => {
                    let carry: Vec<String> = l.carries.iter().map(|c| format!("{} = {}", self.tile(c.param), self.tile(c.init))).collect();
                    let order = if l.reverse { " reverse" } else { "" };
                    let inner: Vec<String> = (0..self.k.dims.len() as u32).map(DimId).filter_map(|d| match self.k.dim(d).kind {
                        DimKind::Chunk { block, outer } if outer == l.dim => Some(format!(" {}: {block}", self.dim(d))),
                        _ => None,
                    }).collect();
                    let order = format!("{order}{}", if inner.is_empty() { String::new() } else { format!(" chunk{}", inner.join(",")) });
                    let _ = writeln!(out, "{pad}loop {} by {}: {} .. {}{order} carry ({}) {{", self.dim(l.dim), self.k.dim(l.dim).kind.capacity(), self.expr(l.lo), self.expr(l.hi), carry.join(", "));
                    self.stmts(&l.head, depth + 1, out);
                    for (word, e) in [("empty", l.empty), ("full", l.full)] {
                        if let Some(e) = e {
                            let _ = writeln!(out, "{pad}  {word} when {}", self.expr(e));
                        }
                    }
                    self.stmts(&l.body, depth + 1, out);
                    let next: Vec<String> = l.carries.iter().map(|c| self.tile(c.next)).collect();
                    let result: Vec<String> = l.carries.iter().map(|c| self.tile(c.result)).collect();
                    let _ = writeln!(out, "{pad}  yield ({})", next.join(", "));
                    let _ = writeln!(out, "{pad}}} -> ({})", result.join(", "));
                }
            }
        }
    }
}
