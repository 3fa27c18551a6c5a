//! Sums as matrix products: which sums are, and their two operands.
//!
//! A product needs an axis of the result that one side lacks and the other has; a side without rows is a vector. Factors that do not
//! vary in the innermost loop are multiplied outside it.

use super::Writer;
use crate::graph::{AxisId, NodeId, Op};
use crate::ops::{DType, ScalarOp};
use crate::passes::error::CompileError;
use crate::tiles::*;
use std::collections::HashSet;

impl Writer<'_> {
    /// Whether the sum would be a matrix product with wide rows and columns.
    pub(super) fn is_product(&self, axes: &[AxisId], id: NodeId) -> bool {
        let Op::Reduce { body, .. } = self.graph.op(id) else { return false };
        let factors = self.factors(*body);
        if axes.len() != 1 || self.graph.dtype(id) != DType::Real {
            return false;
        }
        let wide: Vec<AxisId> = self.graph.axes_of(id).iter().copied().filter(|a| self.env(*a).is_none_or(|d| self.k.dim(d).kind.capacity() > 1)).collect();
        wide.iter().any(|axis| {
            let (with, without): (Vec<&NodeId>, Vec<&NodeId>) = factors.iter().partition(|f| self.graph.axes_of(**f).contains(axis));
            let has = |fs: &[&NodeId], a: AxisId| fs.iter().any(|f| self.graph.axes_of(**f).contains(&a));
            // A vector has no wide axis of the result.
            let vector = || wide.iter().all(|o| !has(&without, *o));
            has(&with, axes[0]) && has(&without, axes[0]) && (vector() || wide.iter().any(|o| has(&without, *o) && !has(&with, *o)))
        })
    }

    /// A product of two operands, one of which lacks an axis of the result that the other has: a matrix product.
    pub(super) fn dot_operands(&mut self, factors: &[NodeId], reduced: &[AxisId], result: &[DimId]) -> Result<Option<(ExprId, ExprId)>, CompileError> {
        let wide: Vec<AxisId> = result.iter().map(|d| self.k.dim(*d).axis).collect();
        let of = |w: &Self, f: NodeId| -> HashSet<AxisId> { w.graph.axes_of(f).iter().copied().filter(|a| wide.contains(a)).collect() };
        if reduced.len() != 1 || factors.iter().any(|f| self.graph.dtype(*f) != DType::Real) {
            return Ok(None);
        }
        // Split by the first axis that some factor has and another lacks.
        // Scalars go with the operand that varies less often: there they cost nothing in the loop.
        let (scalars, factors): (Vec<NodeId>, Vec<NodeId>) = factors.iter().copied().partition(|f| self.graph.axes_of(*f).is_empty());
        for axis in &wide {
            let (mut with, mut without): (Vec<NodeId>, Vec<NodeId>) = factors.iter().copied().partition(|f| of(self, *f).contains(axis));
            let sum = |w: &Self, fs: &[NodeId]| fs.iter().any(|f| w.graph.axes_of(*f).contains(&reduced[0]));
            if with.is_empty() || without.is_empty() || !sum(self, &with) || !sum(self, &without) {
                continue;
            }
            let other: HashSet<AxisId> = without.iter().flat_map(|f| of(self, *f)).collect();
            let mine: HashSet<AxisId> = with.iter().flat_map(|f| of(self, *f)).collect();
            if other.is_empty() {
                // A matrix times a vector: scalars go with the vector.
                without.extend(&scalars);
                let a = self.product(&without)?;
                let b = self.product(&with)?;
                return Ok(Some((a, b)));
            }
            if other.iter().any(|a| !mine.contains(a)) {
                let level = |w: &Self, fs: &[NodeId]| fs.iter().map(|f| w.level(*f)).max().unwrap_or(0);
                if level(self, &with) <= level(self, &without) { with.extend(&scalars) } else { without.extend(&scalars) }
                let a = self.product(&with)?;
                let b = self.product(&without)?;
                return Ok(Some((a, b)));
            }
        }
        Ok(None)
    }

    /// The product of some factors, as a tile when it is more than a load.
    pub(super) fn product(&mut self, factors: &[NodeId]) -> Result<ExprId, CompileError> {
        if let [one] = factors {
            let expr = self.expr(*one)?;
            if matches!(self.k.expr(expr), Expr::Load { .. } | Expr::Tile(_)) {
                return Ok(expr);
            }
            let tile = self.tile(*one)?;
            return Ok(self.k.add(Expr::Tile(tile)));
        }
        // Factors that do not vary in the innermost loop are multiplied outside it.
        let mut exprs = Vec::new();
        let mut level = 0;
        for f in factors {
            exprs.push(self.expr(*f)?);
            level = level.max(self.level(*f));
        }
        let mut expr = exprs[0];
        for e in &exprs[1..] {
            expr = self.k.op(ScalarOp::Mul, &[expr, *e]);
        }
        let dims = self.tile_dims(expr);
        let out = self.k.add_tile("product", dims, DType::Real);
        self.scopes[level].stmts.push(Stmt::Map { out, expr });
        Ok(self.k.add(Expr::Tile(out)))
    }

    /// A masked sum of what does not vary over the rows is a product with the mask as 0 and 1.
    pub(super) fn counted(&mut self, mask: NodeId, body: NodeId, result: &[DimId], dim: DimId) -> Result<Option<(ExprId, ExprId)>, CompileError> {
        let graph = self.graph;
        let has = |w: &Self, id: NodeId, d: &DimId| graph.axes_of(id).contains(&w.k.dim(*d).axis);
        let (rows, columns): (Vec<DimId>, Vec<DimId>) = result.iter().copied().partition(|d| has(self, mask, d));
        let apart = rows.iter().all(|d| !has(self, body, d)) && columns.iter().all(|d| has(self, body, d));
        let real = graph.dtype(body) == DType::Real;
        if !real || !apart || rows.is_empty() || columns.is_empty() || !has(self, body, &dim) || !has(self, mask, &dim) {
            return Ok(None);
        }
        let factors = self.factors(body);
        let b = self.product(&factors)?;
        let (one, zero) = (self.real(1.0), self.real(0.0));
        let masked = self.masked(one, Some(mask), zero)?;
        let Expr::Masked { cond, .. } = *self.k.expr(masked) else { return Ok(None) };
        let mut dims = self.k.dims_of(cond);
        dims.push(dim);
        let dims = self.sorted(dims);
        let a = self.k.add_tile("present", dims, DType::Real);
        self.push(Stmt::Map { out: a, expr: masked });
        Ok(Some((self.k.add(Expr::Tile(a)), b)))
    }
}
