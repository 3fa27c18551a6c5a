//! Element expressions as values.

use super::{Element, Lower};
use crate::kernel::{Base, Value};
use crate::ops::{Scalar, ScalarOp};
use crate::passes::error::CompileError;
use crate::tiles::*;

impl Lower<'_> {
    /// Position along a dimension in an element context.
    pub(super) fn position(&mut self, dim: DimId, element: &Element) -> Result<Value, CompileError> {
        let bounds = self.bounds(dim)?;
        match element.offset.get(&dim) {
            Some(offset) => Ok(self.b.add(bounds.start, *offset)),
            None if self.k.dim(dim).kind.capacity() == 1 => Ok(bounds.start),
            None => Err(self.bug(format!("no element along `{}`", self.k.dim(dim).name))),
        }
    }

    /// Offset from the start of the block.
    pub(super) fn offset(&mut self, dim: DimId, element: &Element) -> Result<Value, CompileError> {
        match element.offset.get(&dim) {
            Some(offset) => Ok(*offset),
            None if self.k.dim(dim).kind.capacity() <= 1 => Ok(self.b.int(0)),
            None => Err(self.bug(format!("no element along `{}`", self.k.dim(dim).name))),
        }
    }

    /// Index of an element in the array of a tile.
    pub(super) fn tile_index(&mut self, tile: TileId, element: &Element) -> Result<Value, CompileError> {
        let dims = self.k.tile(tile).dims.clone();
        let strides = self.strides(&dims);
        let mut index = self.b.int(0);
        for (dim, stride) in dims.iter().zip(strides) {
            let offset = self.offset(*dim, element)?;
            let stride = self.b.int(stride);
            index = self.b.mul_add(offset, stride, index);
        }
        Ok(index)
    }

    /// Evaluates, ahead of inner loops, the parts of an expression that do not vary in them.
    pub(super) fn hoist(&mut self, id: ExprId, element: &mut Element) -> Result<(), CompileError> {
        if element.memo.contains_key(&id) {
            return Ok(());
        }
        let dims = self.dims_of(id);
        let bound = dims.iter().all(|d| element.offset.contains_key(d) || self.k.dim(*d).kind.capacity() == 1);
        if bound {
            self.eval(id, element)?;
            return Ok(());
        }
        match self.k.expr(id).clone() {
            Expr::Const(_) | Expr::Host(_) | Expr::Pos(_) | Expr::Start(_) | Expr::Stop(_) | Expr::Tile(_) => Ok(()),
            Expr::Op { args, .. } => args.iter().try_for_each(|a| self.hoist(*a, element)),
            Expr::TileAt { at, .. } => at.iter().try_for_each(|a| self.hoist(a.1, element)),
            Expr::Load { index, .. } => index.iter().try_for_each(|a| self.hoist(*a, element)),
            Expr::Masked { cond, value, other, class } => {
                let parts = if class.is_some_and(|c| self.full.contains(&c)) { vec![value] } else { vec![cond, value, other] };
                parts.into_iter().try_for_each(|a| self.hoist(a, element))
            }
        }
    }

    /// The value of an expression in an element context.
    pub(super) fn eval(&mut self, id: ExprId, element: &mut Element) -> Result<Value, CompileError> {
        if let Some(value) = element.memo.get(&id) {
            return Ok(*value);
        }
        let value = match self.k.expr(id).clone() {
            Expr::Const(c) => self.b.scalar(c),
            Expr::Host(h) => self.host(&h),
            Expr::Pos(d) => self.position(d, element)?,
            Expr::Start(d) => self.bounds(d)?.start,
            Expr::Stop(d) => self.bounds(d)?.stop,
            Expr::Op { op, args } => {
                let args = args.iter().map(|a| self.eval(*a, element)).collect::<Result<Vec<_>, _>>()?;
                self.b.op(op, &args)
            }
            Expr::Tile(t) if self.aliases.contains_key(&t) => self.eval(self.aliases[&t], element)?,
            Expr::Tile(t) => {
                let index = self.tile_index(t, element)?;
                let local = self.local(t);
                self.b.load(local, index)
            }
            Expr::TileAt { tile, at } => self.tile_at(tile, &at, element)?,
            Expr::Load { buffer, index, guard } => self.load(buffer, &index, &guard, element)?,
            Expr::Masked { cond, value, other, class } => {
                if class.is_some_and(|c| self.full.contains(&c)) {
                    self.eval(value, element)?
                } else {
                    let cond = self.eval(cond, element)?;
                    let value = self.eval(value, element)?;
                    let other = self.eval(other, element)?;
                    self.b.select(cond, value, other)
                }
            }
        };
        element.memo.insert(id, value);
        Ok(value)
    }

    /// `0 <= index < extent`, and the index with 0 where it is not.
    pub(super) fn guarded(&mut self, index: Value, extent: Value) -> (Value, Value) {
        let zero = self.b.int(0);
        let low = self.b.le(zero, index);
        let high = self.b.lt(index, extent);
        let inside = self.b.and(low, high);
        let safe = self.b.select(inside, index, zero);
        (inside, safe)
    }

    /// A position of the same axis.
    pub(super) fn is_own_position(&self, expr: ExprId, dim: DimId) -> bool {
        let same = |p: DimId| self.k.dim(p).axis == self.k.dim(dim).axis;
        match self.k.expr(expr) {
            Expr::Pos(p) => same(*p),
            Expr::Op { op: ScalarOp::Sub, args } => match (self.k.expr(args[0]), self.k.expr(args[1])) {
                (Expr::Pos(p), Expr::Start(q)) => p == q && same(*p) && matches!(self.k.dim(*p).kind, DimKind::Chunk { .. }),
                _ => false,
            },
            _ => false,
        }
    }

    fn tile_at(&mut self, tile: TileId, at: &[(DimId, ExprId)], element: &mut Element) -> Result<Value, CompileError> {
        let dims = self.k.tile(tile).dims.clone();
        let strides = self.strides(&dims);
        let mut index = self.b.int(0);
        let mut inside: Option<Value> = None;
        // Axes of one position are not in the tile but are still checked.
        for (dim, expr) in at {
            let raw = self.eval(*expr, element)?;
            // A position of the same axis is in the tile.
            let sure = self.is_own_position(*expr, *dim);
            let safe = if sure {
                raw
            } else {
                let extent = self.bounds(*dim)?.stop;
                let (ok, safe) = self.guarded(raw, extent);
                inside = Some(inside.map_or(ok, |i| self.b.and(i, ok)));
                safe
            };
            if let Some(place) = dims.iter().position(|d| d == dim) {
                let stride = self.b.int(strides[place]);
                index = self.b.mul_add(safe, stride, index);
            }
        }
        for (dim, stride) in dims.iter().zip(&strides) {
            if !at.iter().any(|a| a.0 == *dim) {
                let offset = self.offset(*dim, element)?;
                let stride = self.b.int(*stride);
                index = self.b.mul_add(offset, stride, index);
            }
        }
        let local = self.local(tile);
        let value = self.b.load(local, index);
        self.zero_outside(inside, value)
    }

    fn zero_outside(&mut self, inside: Option<Value>, value: Value) -> Result<Value, CompileError> {
        let Some(inside) = inside else { return Ok(value) };
        let zero = Scalar::zero(self.b.ty(value));
        let zero = self.b.scalar(zero);
        Ok(self.b.op(ScalarOp::Select, &[inside, value, zero]))
    }

    /// Linear index of a buffer element from one index per axis.
    pub(super) fn linear(&mut self, buffer: BufId, index: &[Value]) -> Value {
        let dims = self.plan.buffers[buffer.index()].dims.clone();
        let mut linear = self.b.int(0);
        for (i, extent) in index.iter().zip(&dims) {
            let extent = self.host(extent);
            linear = self.b.mul_add(linear, extent, *i);
        }
        linear
    }

    fn load(&mut self, buffer: BufId, index: &[ExprId], guard: &[bool], element: &mut Element) -> Result<Value, CompileError> {
        let mut values = Vec::new();
        let mut inside: Option<Value> = None;
        for (i, expr) in index.iter().enumerate() {
            let raw = self.eval(*expr, element)?;
            if guard[i] {
                let extent = self.plan.buffers[buffer.index()].dims[i].clone();
                let extent = self.host(&extent);
                let (ok, safe) = self.guarded(raw, extent);
                inside = Some(inside.map_or(ok, |x| self.b.and(x, ok)));
                values.push(safe);
            } else {
                values.push(raw);
            }
        }
        let linear = self.linear(buffer, &values);
        let base = Base::Buffer(self.buffers[&buffer]);
        let value = self.b.load(base, linear);
        self.zero_outside(inside, value)
    }
}
