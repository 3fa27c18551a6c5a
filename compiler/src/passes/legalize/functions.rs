//! Dear functions over whole rows: the table takes them many elements at a time, the loops around them read the results.

use super::{Element, Lower};
use crate::kernel::{Base, LocalId, Place, TileCall, Value};
use crate::ops::{DType, ScalarOp};
use crate::passes::error::CompileError;
use crate::tiles::*;

type Made = Result<(), CompileError>;

/// Functions that are worth a call over whole rows.
fn is_dear(op: ScalarOp) -> bool {
    use ScalarOp::*;
    matches!(op, Exp | ExpDiff | Sigmoid | Tanh | Log | Log1p | Softplus | Sin | Cos | Erf)
}

/// The table's function behind an op; see `argument`.
fn function(op: ScalarOp) -> ScalarOp {
    if op == ScalarOp::ExpDiff { ScalarOp::Exp } else { op }
}

impl Lower<'_> {
    /// Values of the dear functions in an expression over the elements of a tile, each in an array with the layout of the tile.
    pub(super) fn row_functions(&mut self, out: TileId, expr: ExprId) -> Result<Vec<(ExprId, LocalId)>, CompileError> {
        let dims = self.k.tile(out).dims.clone();
        let mut made: Vec<(ExprId, LocalId)> = Vec::new();
        let wide = dims.last().is_some_and(|d| self.k.dim(*d).kind.capacity() >= 16);
        if !self.caps.tile_calls || !wide || dims.len() > 2 {
            return Ok(made);
        }
        for call in self.dear(expr, &dims) {
            if made.len() == 4 {
                break;
            }
            let Expr::Op { op, args } = self.k.expr(call).clone() else { continue };
            let len = self.tile_len(out);
            let room = self.b.local("function", DType::Real, len);
            let before = made.clone();
            self.elements(&dims, &args, &mut |l, e| {
                for (expr, room) in &before {
                    let index = l.tile_index(out, e)?;
                    let value = l.b.load(*room, index);
                    e.memo.insert(*expr, value);
                }
                let value = l.argument(op, &args, e)?;
                let index = l.tile_index(out, e)?;
                l.b.store(room, index, value);
                Ok(())
            })?;
            let rows = if dims.len() == 2 { self.len(dims[0])? } else { self.b.int(1) };
            self.rows_in_place(function(op), room, rows, dims[dims.len() - 1])?;
            made.push((call, room));
        }
        Ok(made)
    }

    /// Functions worth a call that vary over all of `dims`, operands first. Those under a condition are taken for all elements alike:
    /// the table's functions are total.
    fn dear(&mut self, expr: ExprId, dims: &[DimId]) -> Vec<ExprId> {
        fn walk(l: &mut Lower<'_>, id: ExprId, dims: &[DimId], seen: &mut std::collections::HashSet<ExprId>, out: &mut Vec<ExprId>) {
            if !seen.insert(id) {
                return;
            }
            match l.k.expr(id).clone() {
                Expr::Op { op, args } => {
                    for a in &args {
                        walk(l, *a, dims, seen, out);
                    }
                    let varies = l.dims_of(id);
                    if is_dear(op) && dims.iter().all(|d| varies.contains(d)) {
                        out.push(id);
                    }
                }
                Expr::Masked { value, cond, other, class } => {
                    walk(l, value, dims, seen, out);
                    if !class.is_some_and(|c| l.full.contains(&c)) {
                        walk(l, cond, dims, seen, out);
                        walk(l, other, dims, seen, out);
                    }
                }
                Expr::Const(_) | Expr::Host(_) | Expr::Pos(_) | Expr::Start(_) | Expr::Stop(_) | Expr::Tile(_) | Expr::TileAt { .. } | Expr::Load { .. } => {}
            }
        }
        let (mut seen, mut out) = (Default::default(), Vec::new());
        walk(self, expr, dims, &mut seen, &mut out);
        out
    }

    /// A dear function of something, over whole rows in place; false when the expression is something else.
    pub(super) fn function_of_rows(&mut self, out: TileId, expr: ExprId) -> Result<bool, CompileError> {
        let dims = self.k.tile(out).dims.clone();
        let Some(last) = dims.last().filter(|d| self.k.dim(**d).kind.capacity() >= 16) else { return Ok(false) };
        let Expr::Op { op, args } = self.k.expr(expr).clone() else { return Ok(false) };
        let varies = self.dims_of(expr);
        if !self.caps.tile_calls || dims.len() > 2 || !is_dear(op) || !dims.iter().all(|d| varies.contains(d)) {
            return Ok(false);
        }
        let local = self.local(out);
        let made = self.row_functions(out, args[0])?;
        self.elements(&dims, &args, &mut |l, e| {
            for (expr, room) in &made {
                let index = l.tile_index(out, e)?;
                let value = l.b.load(*room, index);
                e.memo.insert(*expr, value);
            }
            let value = l.argument(op, &args, e)?;
            let index = l.tile_index(out, e)?;
            l.b.store(local, index, value);
            Ok(())
        })?;
        let rows = if dims.len() == 2 { self.len(dims[0])? } else { self.b.int(1) };
        self.rows_in_place(function(op), local, rows, *last)?;
        Ok(true)
    }

    /// What a row function is taken of. A difference of exponents is the exponential of one that is -inf where the first is.
    fn argument(&mut self, op: ScalarOp, args: &[ExprId], element: &mut Element) -> Result<Value, CompileError> {
        let x = self.eval(args[0], element)?;
        if op != ScalarOp::ExpDiff {
            return Ok(x);
        }
        let y = self.eval(args[1], element)?;
        let none = self.b.real(f64::NEG_INFINITY);
        let absent = self.b.eq(x, none);
        let difference = self.b.sub(x, y);
        Ok(self.b.op(ScalarOp::Select, &[absent, none, difference]))
    }

    /// `op` over rows that lie the capacity of `last` apart; the rest of a short row holds nothing.
    fn rows_in_place(&mut self, op: ScalarOp, room: LocalId, rows: Value, last: DimId) -> Made {
        let cols = self.len(last)?;
        let width = i64::from(self.k.dim(last).kind.capacity());
        let (zero, one, stride) = (self.b.int(0), self.b.int(1), self.b.int(width));
        if self.b.as_int(cols) == Some(width) {
            let n = self.b.mul(rows, stride);
            let place = Place { base: Base::Local(room), offset: zero };
            self.b.tile(TileCall::Unary { op, n, x: place, y: place });
            return Ok(());
        }
        let open = self.b.begin_for(zero, rows, one, &[]);
        let offset = self.b.mul(open.var, stride);
        let place = Place { base: Base::Local(room), offset };
        self.b.tile(TileCall::Unary { op, n: cols, x: place, y: place });
        self.b.end_for(open, &[]);
        Ok(())
    }

    /// Room for the sums of a tile's rows, zero by now; the sum that asks for them finds them there.
    pub(super) fn row_sums(&mut self, tile: TileId, rows: Option<DimId>) -> Result<LocalId, CompileError> {
        let len = rows.map_or(1, |r| self.k.dim(r).kind.capacity() as usize);
        let room = match self.sums.get(&tile) {
            Some(room) => *room,
            None => self.b.local("sums", DType::Real, len),
        };
        self.sums.insert(tile, room);
        let dims: Vec<DimId> = rows.into_iter().collect();
        self.elements(&dims, &[], &mut |l, e| {
            let zero = l.b.real(0.0);
            let at = match rows {
                Some(r) => l.offset(r, e)?,
                None => l.b.int(0),
            };
            l.b.store(room, at, zero);
            Ok(())
        })?;
        Ok(room)
    }

    /// A sum of rows that came with a row function.
    pub(super) fn add_sums(&mut self, out: TileId, rows: Option<DimId>, sums: LocalId, carried: Option<TileId>) -> Result<bool, CompileError> {
        let target = self.local(out);
        let dims: Vec<DimId> = rows.into_iter().collect();
        self.elements(&dims, &[], &mut |l, e| {
            let at = match rows {
                Some(r) => l.offset(r, e)?,
                None => l.b.int(0),
            };
            let mut total = l.b.load(sums, at);
            if let Some(c) = carried {
                let (from, index) = (l.local(c), l.tile_index(c, e)?);
                let old = l.b.load(from, index);
                total = l.b.add(old, total);
            }
            l.b.store(target, at, total);
            Ok(())
        })?;
        Ok(true)
    }

    /// A tile that products read as it lies in memory; false when it must be made.
    pub(super) fn alias(&mut self, out: TileId, expr: ExprId) -> Result<bool, CompileError> {
        let Expr::Load { buffer, guard, .. } = self.k.expr(expr) else { return Ok(false) };
        let written = self.buffers.get(buffer).is_some_and(|b| self.b.kernel().buffers[b.0 as usize].written);
        if !self.caps.tile_calls || written || guard.contains(&true) || !self.operands.contains(&out) || self.operand(expr)?.is_none() {
            return Ok(false);
        }
        self.aliases.insert(out, expr);
        Ok(true)
    }
}
