//! Invariants of tile kernels.

use super::ir::*;
use crate::ops::DType;
use std::collections::HashSet;

/// All broken invariants: tiles are defined once and before they are read, dimensions are open where they are used, carried tiles
/// have one type, `over` is not in the result.
pub fn verify(k: &TileKernel) -> Vec<String> {
    let mut v = Verifier { k, faults: vec![], defined: HashSet::new(), open: k.grid.iter().copied().collect() };
    for (i, d) in k.dims.iter().enumerate() {
        if matches!(d.kind, DimKind::Whole { .. } | DimKind::Span) {
            v.open.insert(DimId(i as u32));
        }
    }
    v.stmts(&k.body);
    v.faults
}

struct Verifier<'a> {
    k: &'a TileKernel,
    faults: Vec<String>,
    defined: HashSet<TileId>,
    open: HashSet<DimId>,
}

impl Verifier<'_> {
    fn read(&mut self, t: TileId) {
        if !self.defined.contains(&t) {
            self.faults.push(format!("{t:?} ({}) is read before it is defined", self.k.tile(t).name));
        }
    }

    fn define(&mut self, t: TileId) {
        if !self.defined.insert(t) {
            self.faults.push(format!("{t:?} ({}) is defined twice", self.k.tile(t).name));
        }
        if let Some(d) = self.k.tile(t).dims.iter().find(|d| matches!(self.k.dim(**d).kind, DimKind::Span)) {
            self.faults.push(format!("{t:?} holds the unbounded dimension {d:?}"));
        }
    }

    fn expr(&mut self, e: ExprId) {
        let mut stack = vec![e];
        let mut seen = HashSet::new();
        while let Some(e) = stack.pop() {
            if !seen.insert(e) {
                continue;
            }
            match self.k.expr(e).clone() {
                Expr::Const(_) | Expr::Host(_) => {}
                Expr::Pos(d) | Expr::Start(d) | Expr::Stop(d) => {
                    if !self.open.contains(&d) {
                        self.faults.push(format!("{d:?} ({}) is used outside its loop", self.k.dim(d).name));
                    }
                }
                Expr::Op { op, args } => {
                    if args.len() != op.arity() {
                        self.faults.push(format!("`{}` has {} operands", op.name(), args.len()));
                    }
                    stack.extend(args);
                }
                Expr::Tile(t) => self.read(t),
                Expr::TileAt { tile, at } => {
                    self.read(tile);
                    stack.extend(at.iter().map(|a| a.1));
                }
                Expr::Load { index, guard, .. } => {
                    if index.len() != guard.len() {
                        self.faults.push("a load with fewer guards than indices".to_string());
                    }
                    stack.extend(index);
                }
                Expr::Masked { cond, value, other, .. } => stack.extend([cond, value, other]),
            }
        }
    }

    fn same_type(&mut self, a: TileId, b: TileId) {
        let (x, y) = (self.k.tile(a), self.k.tile(b));
        if x.dims != y.dims || x.dtype != y.dtype {
            self.faults.push(format!("{a:?} and {b:?} are carried as one but differ in type"));
        }
    }

    fn stmts(&mut self, stmts: &[Stmt]) {
        for s in stmts {
            match s {
                Stmt::Map { out, expr } => {
                    self.expr(*expr);
                    self.define(*out);
                }
                Stmt::Reduce { out, over, expr, carried, .. } => {
                    self.expr(*expr);
                    self.result(*out, over, *carried);
                }
                Stmt::Dot { out, a, b, over, carried } => {
                    self.expr(*a);
                    self.expr(*b);
                    if self.k.tile(*out).dtype != DType::Real {
                        self.faults.push(format!("{out:?}: a product that is not real"));
                    }
                    self.result(*out, over, *carried);
                }
                Stmt::Prefix { out, op, dim, expr, .. } => {
                    self.expr(*expr);
                    if op.combine().is_none() || !self.k.tile(*out).dims.contains(dim) {
                        self.faults.push(format!("{out:?}: a running `{}` without its dimension", op.name()));
                    }
                    self.define(*out);
                }
                Stmt::Solve { out, rows, cols, matrix, rhs, .. } => {
                    self.expr(*matrix);
                    self.expr(*rhs);
                    let dims = &self.k.tile(*out).dims;
                    if !dims.contains(cols) || dims.contains(rows) {
                        self.faults.push(format!("{out:?}: a system whose result is not over its columns"));
                    }
                    self.define(*out);
                }
                Stmt::Store { index, expr, .. } => {
                    index.iter().for_each(|i| self.expr(*i));
                    self.expr(*expr);
                }
                Stmt::Order(o) => o.exprs().into_iter().for_each(|e| self.expr(e)),
                Stmt::Loop(l) => {
                    self.expr(l.lo);
                    self.expr(l.hi);
                    for c in &l.carries {
                        self.read(c.init);
                        for other in [c.param, c.next, c.result] {
                            self.same_type(c.init, other);
                        }
                    }
                    let outside = self.defined.clone();
                    self.open.insert(l.dim);
                    let inner: Vec<DimId> = self.inner(l.dim);
                    self.open.extend(inner.iter().copied());
                    l.carries.iter().for_each(|c| self.define(c.param));
                    self.stmts(&l.head);
                    l.empty.iter().chain(&l.full).for_each(|e| self.expr(*e));
                    self.stmts(&l.body);
                    l.carries.iter().for_each(|c| self.read(c.next));
                    self.open.remove(&l.dim);
                    inner.iter().for_each(|d| {
                        self.open.remove(d);
                    });
                    // What the body defined is gone, but its names stay taken.
                    self.defined = outside;
                    l.carries.iter().for_each(|c| self.define(c.result));
                }
            }
        }
    }

    /// Dimensions that are open with this one.
    fn inner(&self, dim: DimId) -> Vec<DimId> {
        (0..self.k.dims.len() as u32).map(DimId).filter(|d| matches!(self.k.dim(*d).kind, DimKind::Chunk { outer, .. } if outer == dim)).collect()
    }

    fn result(&mut self, out: TileId, over: &[DimId], carried: Option<TileId>) {
        if let Some(c) = carried {
            self.read(c);
            self.same_type(out, c);
        }
        if self.k.tile(out).dims.iter().any(|d| over.contains(d)) {
            self.faults.push(format!("{out:?} holds a dimension that it reduces"));
        }
        self.define(out);
    }
}
