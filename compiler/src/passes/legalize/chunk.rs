//! Statements that run along a dimension in order: running reductions and triangular systems.

use super::Lower;
use crate::kernel::{Base, Place, TileCall};
use crate::ops::DType;
use crate::passes::error::CompileError;
use crate::reduce::ReduceOp;
use crate::tiles::*;

type Made = Result<(), CompileError>;

impl Lower<'_> {
    /// A running reduction. `order`: (without the position itself, from the other end).
    pub(super) fn prefix(&mut self, out: TileId, op: ReduceOp, dim: DimId, expr: ExprId, order: (bool, bool)) -> Made {
        let Some(combine) = op.combine() else { return Err(self.bug("a running reduction without a combine")) };
        let dtype = self.k.tile(out).dtype;
        let dims: Vec<DimId> = self.k.tile(out).dims.iter().copied().filter(|d| *d != dim).collect();
        let local = self.local(out);
        let (before, reverse) = order;
        let n = self.len(dim)?;
        let (zero, one) = (self.b.int(0), self.b.int(1));
        if self.caps.lanes == 1 && !dims.is_empty() {
            // Row after row: the inner loops run over neighbours, the last row is read back.
            let open = self.b.begin_for(zero, n, one, &[]);
            let last = self.b.sub(n, one);
            let here = if reverse { self.b.sub(last, open.var) } else { open.var };
            let first = self.b.eq(open.var, zero);
            let previous = if reverse { self.b.add(here, one) } else { self.b.sub(here, one) };
            let mut branch = self.b.begin_if(first);
            self.elements(&dims, &[], &mut |l, e| {
                e.offset.insert(dim, here);
                let identity = l.b.scalar(op.identity(dtype));
                let value = if before { identity } else { l.eval(expr, e)? };
                let index = l.tile_index(out, e)?;
                l.b.store(local, index, value);
                Ok(())
            })?;
            self.b.begin_else(&mut branch);
            self.elements(&dims, &[], &mut |l, e| {
                e.offset.insert(dim, previous);
                let index = l.tile_index(out, e)?;
                let running = l.b.load(local, index);
                if !before {
                    e.offset.insert(dim, here);
                    e.memo.clear();
                }
                let value = l.eval(expr, e)?;
                let next = l.b.op(combine, &[running, value]);
                e.offset.insert(dim, here);
                let index = l.tile_index(out, e)?;
                l.b.store(local, index, next);
                Ok(())
            })?;
            self.b.end_if(branch);
            self.b.end_for(open, &[]);
            return Ok(());
        }
        self.elements(&dims, &[], &mut |l, e| {
            let (zero, one) = (l.b.int(0), l.b.int(1));
            let identity = l.b.scalar(op.identity(dtype));
            let open = l.b.begin_for(zero, n, one, &[identity]);
            let running = open.params[0];
            let last = l.b.sub(n, one);
            let here = if reverse { l.b.sub(last, open.var) } else { open.var };
            let mut inner = e.clone();
            inner.offset.insert(dim, here);
            let value = l.eval(expr, &mut inner)?;
            let next = l.b.op(combine, &[running, value]);
            let index = l.tile_index(out, &inner)?;
            l.b.store(local, index, if before { running } else { next });
            l.b.end_for(open, &[next]);
            Ok(())
        })
    }

    /// A unit triangular system, by substitution: each lane has columns of the result of its own.
    pub(super) fn solve(&mut self, out: TileId, axes: (DimId, DimId), matrix: ExprId, rhs: ExprId, reverse: bool) -> Made {
        let (rows, cols) = axes;
        let local = self.local(out);
        let dims: Vec<DimId> = self.k.tile(out).dims.iter().copied().filter(|d| *d != cols).collect();
        // The right side, at its place in the result.
        let mut start = vec![rows];
        start.extend(&dims);
        self.elements(&start, &[rhs], &mut |l, e| {
            let value = l.eval(rhs, e)?;
            let at = l.offset(rows, e)?;
            let mut target = e.clone();
            target.offset.insert(cols, at);
            let index = l.tile_index(out, &target)?;
            l.b.store(local, index, value);
            Ok(())
        })?;
        if self.solve_call(out, axes, matrix, &dims, reverse)? {
            return Ok(());
        }
        let n = self.len(rows)?;
        self.elements(&dims, &[], &mut |l, e| {
            let (zero, one) = (l.b.int(0), l.b.int(1));
            let last = l.b.sub(n, one);
            let outer = l.b.begin_for(zero, n, one, &[]);
            let i = if reverse { l.b.sub(last, outer.var) } else { outer.var };
            let mut row = e.clone();
            row.offset.insert(cols, i);
            let index = l.tile_index(out, &row)?;
            let init = l.b.load(local, index);
            let inner = l.b.begin_for(zero, outer.var, one, &[init]);
            let c = if reverse { l.b.sub(last, inner.var) } else { inner.var };
            let mut element = e.clone();
            element.offset.insert(rows, i);
            element.offset.insert(cols, c);
            let factor = l.eval(matrix, &mut element)?;
            let at = l.tile_index(out, &element)?;
            let value = l.b.load(local, at);
            let term = l.b.mul(factor, value);
            let sum = l.b.add(inner.params[0], term);
            let sum = l.b.end_for(inner, &[sum])[0];
            l.b.store(local, index, sum);
            l.b.end_for(outer, &[]);
            Ok(())
        })
    }

    /// The system through the table: `out` holds the right side and is solved in place.
    fn solve_call(&mut self, out: TileId, axes: (DimId, DimId), matrix: ExprId, dims: &[DimId], reverse: bool) -> Result<bool, CompileError> {
        let (rows, cols) = axes;
        let Expr::Tile(m) = *self.k.expr(matrix) else { return Ok(false) };
        let [width] = dims else { return Ok(false) };
        if !self.caps.tile_calls || self.k.tile(m).dims != [rows, cols] || self.k.tile(out).dims != [cols, *width] || self.k.tile(out).dtype != DType::Real {
            return Ok(false);
        }
        let (n, width) = (self.len(rows)?, self.len(*width)?);
        let strides = (self.strides(&self.k.tile(m).dims.clone())[0], self.strides(&self.k.tile(out).dims.clone())[0]);
        let (m_row, x_row) = (self.b.int(strides.0), self.b.int(strides.1));
        let zero = self.b.int(0);
        let (m, x) = (Place { base: Base::Local(self.local(m)), offset: zero }, Place { base: Base::Local(self.local(out)), offset: zero });
        self.b.tile(TileCall::Solve { n, cols: width, m, m_row, x, x_row, reverse });
        Ok(true)
    }
}

