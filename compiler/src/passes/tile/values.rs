//! Values of nodes as element expressions and tiles, each in the outermost scope where it can be computed.

use super::{Home, Writer};
use crate::graph::{AxisId, NodeId, Op, ScanId};
use crate::ops::{DType, Scalar, ScalarOp};
use crate::passes::chunk::{exists, position_of};
use crate::passes::error::CompileError;
use crate::tiles::*;

impl Writer<'_> {
    /// The value as it stands in a scope, if it can be used here: an axis that an inner scope maps anew needs a tile to pick from.
    pub(crate) fn lookup(&self, id: NodeId) -> Option<ExprId> {
        let (scope, expr) = self.scopes.iter().enumerate().rev().find_map(|(i, s)| s.vals.get(&id).map(|e| (i, *e)))?;
        let moved = self.moved(id, scope);
        let holds = |tile: &TileId| {
            let dims = &self.k.tile(*tile).dims;
            moved.iter().all(|a| dims.iter().any(|d| self.k.dim(*d).axis == *a && matches!(self.k.dim(*d).kind, DimKind::Whole { .. } | DimKind::Chunk { .. })))
        };
        (moved.is_empty() || matches!(self.k.expr(expr), Expr::Tile(tile) if holds(tile))).then_some(expr)
    }

    /// Axes of the value that scopes inside `scope` map anew.
    fn moved(&self, id: NodeId, scope: usize) -> Vec<AxisId> {
        let inner = &self.scopes[scope + 1..];
        self.graph.axes_of(id).iter().copied().filter(|a| inner.iter().any(|s| s.env.contains_key(a))).collect()
    }

    /// The value at the current positions, when some scope has it.
    fn found(&mut self, id: NodeId) -> Option<ExprId> {
        let expr = self.lookup(id)?;
        let scope = self.scopes.iter().rposition(|s| s.vals.contains_key(&id))?;
        let moved = self.moved(id, scope);
        let Expr::Tile(tile) = *self.k.expr(expr) else { return Some(expr) };
        let mut at = Vec::new();
        for axis in moved {
            let (here, dims) = (self.env(axis)?, self.k.tile(tile).dims.clone());
            if let Some(dim) = dims.into_iter().find(|d| self.k.dim(*d).axis == axis && *d != here) {
                let position = self.place(here);
                at.push((dim, position));
            }
        }
        Some(if at.is_empty() { expr } else { self.k.add(Expr::TileAt { tile, at }) })
    }

    /// The dimension that an axis is mapped to, if any.
    pub(crate) fn env(&self, axis: AxisId) -> Option<DimId> {
        self.scopes.iter().rev().find_map(|s| s.env.get(&axis).copied())
    }

    /// The dimension of an axis; one that no scope maps is held whole, which fixes its extent.
    pub(crate) fn dim_of(&mut self, axis: AxisId) -> Result<DimId, CompileError> {
        if let Some(dim) = self.env(axis) {
            return Ok(dim);
        }
        let Some(extent) = self.extents.get(axis.index()).copied().flatten() else {
            return Err(CompileError::NeedExtent { axis: self.graph.axis(axis).name.clone() });
        };
        self.fixed.insert(axis);
        let extent = u32::try_from(extent.max(0)).map_err(|_| CompileError::Unsupported { what: format!("axis `{}` is too long to hold", self.graph.axis(axis).name) })?;
        let dim = self.add_dim(axis, DimKind::Whole { extent });
        self.scopes[0].env.insert(axis, dim);
        Ok(dim)
    }

    /// The outermost scan of this kernel, not being written now, whose step holds the node.
    pub(crate) fn closed_scan(&self, id: NodeId) -> Option<ScanId> {
        let own = self.part.scan?;
        if self.lookup(id).is_some() {
            return None;
        }
        let holds = |s: usize| match self.graph.op(id) {
            Op::State { scan, .. } | Op::History { scan, .. } => scan.index() == s || self.steps.step[s].contains(&id),
            _ => self.steps.step[s].contains(&id),
        };
        // Scans of other kernels leave stored results.
        let here = |s: usize| self.steps.outermost(ScanId(s as u32)) == own;
        let closed = (0..self.graph.scans.len()).filter(|s| self.steps.live[*s] && here(*s) && holds(*s) && !self.open.contains(&ScanId(*s as u32)));
        closed.max_by_key(|s| self.steps.step[*s].len()).map(|s| ScanId(s as u32))
    }

    /// Index of the innermost scope that the node's value depends on.
    pub(crate) fn level(&self, id: NodeId) -> usize {
        self.level_in(id, &mut Default::default())
    }

    fn level_in(&self, id: NodeId, memo: &mut std::collections::HashMap<NodeId, usize>) -> usize {
        if let Some(level) = memo.get(&id) {
            return *level;
        }
        let last = self.scopes.len() - 1;
        let of_axis = |axis: &AxisId| self.scopes.iter().rposition(|s| s.env.contains_key(axis)).unwrap_or(0);
        let found = self.scopes.iter().rposition(|s| s.vals.contains_key(&id));
        let axes = || self.graph.axes_of(id).iter().map(of_axis).max().unwrap_or(0);
        let stored = self.homes.contains_key(&id) && !self.is_mine(id);
        let level = match (found, self.graph.op(id)) {
            // An expression may have been made in an inner scope of a value that does not vary there.
            (Some(i), _) => i.max(axes()),
            _ if stored => axes(),
            (_, Op::Const(_) | Op::Extent(_) | Op::Input(_) | Op::Index(_)) => axes(),
            (_, Op::Map { args, .. }) => args.iter().map(|a| self.level_in(*a, memo)).max().unwrap_or(0),
            (_, Op::Expand { value, .. }) => self.level_in(*value, memo),
            (_, Op::Read { value, subs }) => {
                let inner = subs.iter().map(|s| self.level_in(s.1, memo)).max().unwrap_or(0);
                let kept = self.graph.axes_of(*value).iter().filter(|a| !subs.iter().any(|s| s.0 == **a)).map(of_axis).max().unwrap_or(0);
                let own = match self.graph.op(*value) {
                    Op::Input(_) => 0,
                    _ if self.homes.contains_key(value) && !self.is_mine(*value) => 0,
                    _ => self.scopes.iter().rposition(|s| s.vals.contains_key(value)).unwrap_or(last),
                };
                inner.max(kept).max(own)
            }
            _ => last,
        };
        memo.insert(id, level);
        level
    }

    fn remember(&mut self, id: NodeId, expr: ExprId) {
        let level = self.level(id);
        self.scopes[level].vals.insert(id, expr);
    }

    /// The value of a node at the current positions.
    pub(crate) fn expr(&mut self, id: NodeId) -> Result<ExprId, CompileError> {
        if let Some(expr) = self.found(id) {
            return Ok(expr);
        }
        let graph = self.graph;
        if graph.axes_of(id).is_empty() {
            if let Op::Const(c) = graph.op(id) {
                return Ok(self.k.add(Expr::Const(*c)));
            }
            if let Some(host) = super::host(graph, id) {
                return Ok(self.k.add(Expr::Host(host)));
            }
        }
        let mine = self.is_mine(id);
        if let Some(home) = self.homes.get(&id) {
            if !mine || self.scan_is_done(id) {
                return self.load(&home.clone());
            }
        }
        match graph.op(id).clone() {
            Op::Const(c) => Ok(self.k.add(Expr::Const(c))),
            Op::Index(axis) => {
                let dim = self.dim_of(axis)?;
                Ok(self.place(dim))
            }
            Op::Input(input) => match self.inputs.get(&input).cloned() {
                Some(home) => self.load(&home),
                None => Err(self.bug("an input without a buffer")),
            },
            Op::Expand { value, .. } => self.expr(value),
            Op::Read { value, subs } => {
                let expr = self.read(value, &subs)?;
                self.remember(id, expr);
                Ok(expr)
            }
            Op::Map { op, args } => {
                if let Some(expr) = self.in_chunk(id) {
                    return Ok(expr);
                }
                let args = args.iter().map(|a| self.expr(*a)).collect::<Result<Vec<_>, _>>()?;
                let expr = self.k.op(op, &args);
                let expr = self.maybe_tile(id, expr)?;
                self.remember(id, expr);
                Ok(expr)
            }
            op => Err(self.bug(format!("{:?} ({op:?}) is not computed where it is needed", id))),
        }
    }

    /// Position along the axis of a dimension: inside a chunk, from the start of the chunk.
    fn place(&mut self, dim: DimId) -> ExprId {
        let position = self.k.add(Expr::Pos(dim));
        if !matches!(self.k.dim(dim).kind, DimKind::Chunk { .. }) {
            return position;
        }
        let start = self.k.add(Expr::Start(dim));
        self.k.op(ScalarOp::Sub, &[position, start])
    }

    /// Positions inside an open chunk: as positions of the axis that it splits; all of them exist.
    fn in_chunk(&mut self, id: NodeId) -> Option<ExprId> {
        let open = |w: &Self, axis| w.env(axis).filter(|d| matches!(w.k.dim(*d).kind, DimKind::Chunk { .. }));
        if let Some(dim) = position_of(self.graph, id).and_then(|axis| open(self, axis)) {
            return Some(self.k.add(Expr::Pos(dim)));
        }
        exists(self.graph, id).and_then(|axis| open(self, axis)).map(|_| self.k.add(Expr::Const(Scalar::Bool(true))))
    }

    /// Whether the scan that makes this stored value has run in a scope that we are in.
    fn scan_is_done(&self, id: NodeId) -> bool {
        self.scopes.iter().any(|s| s.scans.iter().any(|r| self.steps.step[r.index()].contains(&id)))
    }

    fn load(&mut self, home: &Home) -> Result<ExprId, CompileError> {
        let mut index = Vec::new();
        for axis in &home.axes {
            let dim = self.dim_of(*axis)?;
            index.push(self.at(home, dim));
        }
        let guard = vec![false; index.len()];
        Ok(self.k.add(Expr::Load { buffer: home.buffer, index, guard }))
    }

    /// `value` at computed positions: from memory, or out of a tile of this kernel.
    fn read(&mut self, value: NodeId, subs: &[(AxisId, NodeId)]) -> Result<ExprId, CompileError> {
        let exprs = subs.iter().map(|s| Ok((s.0, self.expr(s.1)?))).collect::<Result<Vec<_>, CompileError>>()?;
        let source = match self.graph.op(value) {
            Op::Input(input) => self.inputs.get(input).cloned(),
            Op::History { scan, index } => {
                let exported = self.graph.scans[scan.index()].history[*index as usize].1;
                self.homes.get(&exported).cloned()
            }
            _ if self.lookup(value).is_none() && (!self.is_mine(value) || self.scan_is_done(value)) => self.homes.get(&value).cloned(),
            _ => None,
        };
        if let Some(home) = source {
            let mut index = Vec::new();
            let mut guard = Vec::new();
            for axis in &home.axes {
                match subs.iter().position(|s| s.0 == *axis) {
                    Some(i) => {
                        index.push(exprs[i].1);
                        guard.push(!self.in_range(subs[i].1, *axis));
                    }
                    // Stored by position, read by block and row.
                    None if !self.graph.axes_of(value).contains(axis) => {
                        index.push(self.unsplit(value, *axis, subs, &exprs)?);
                        guard.push(true);
                    }
                    None => {
                        let dim = self.dim_of(*axis)?;
                        index.push(self.at(&home, dim));
                        guard.push(false);
                    }
                }
            }
            return Ok(self.k.add(Expr::Load { buffer: home.buffer, index, guard }));
        }
        // A value of this kernel: all positions of the axes read must be in the tile; other axes are at the current positions.
        let tile = match self.lookup(value).map(|e| self.k.expr(e).clone()) {
            Some(Expr::Tile(tile)) => tile,
            _ => self.tile(value)?,
        };
        let mut at = Vec::new();
        let held = self.k.tile(tile).dims.clone();
        for (axis, index) in exprs {
            // The tile may hold the axis whole while a loop here runs over it.
            let own = held.iter().copied().find(|d| self.k.dim(*d).axis == axis);
            let dim = match own {
                Some(dim) => dim,
                None => self.dim_of(axis)?,
            };
            if !matches!(self.k.dim(dim).kind, DimKind::Whole { .. }) {
                return Err(CompileError::Unsupported { what: format!("reads along `{}` of a value that is split along it", self.graph.axis(axis).name) });
            }
            at.push((dim, index));
        }
        for dim in held {
            let axis = self.k.dim(dim).axis;
            if let Some(here) = self.env(axis).filter(|h| *h != dim && !at.iter().any(|a| a.0 == dim)) {
                let position = self.place(here);
                at.push((dim, position));
            }
        }
        Ok(self.k.add(Expr::TileAt { tile, at }))
    }

    /// Position along an axis that a value over its blocks and rows is read at.
    fn unsplit(&mut self, value: NodeId, axis: AxisId, subs: &[(AxisId, NodeId)], exprs: &[(AxisId, ExprId)]) -> Result<ExprId, CompileError> {
        let graph = self.graph;
        let found = graph.axes_of(value).iter().find_map(|a| graph.axis(*a).split.filter(|s| s.of == axis).map(|s| (*a, s)));
        let Some((row, split)) = found else { return Err(self.bug("a stored axis that the value lacks")) };
        let block = Scalar::Int(i64::from(split.block));
        let part = |a: AxisId, op: ScalarOp| {
            let index = subs.iter().find(|s| s.0 == a)?.1;
            match graph.op(index) {
                Op::Map { op: o, args } if *o == op && *graph.op(args[1]) == Op::Const(block) => Some(args[0]),
                _ => None,
            }
        };
        if let (Some(x), Some(y)) = (part(split.outer, ScalarOp::IntDiv), part(row, ScalarOp::Mod)) {
            if x == y {
                return self.expr(x);
            }
        }
        let of = |w: &mut Self, a: AxisId| match exprs.iter().find(|e| e.0 == a) {
            Some(e) => Ok(e.1),
            None => {
                let dim = w.dim_of(a)?;
                Ok(w.k.add(Expr::Pos(dim)))
            }
        };
        let (outer, inner) = (of(self, split.outer)?, of(self, row)?);
        let block = self.k.add(Expr::Const(block));
        let first = self.k.op(ScalarOp::Mul, &[outer, block]);
        Ok(self.k.op(ScalarOp::Add, &[first, inner]))
    }

    /// Whether an index is certainly a position of the axis.
    fn in_range(&self, index: NodeId, axis: AxisId) -> bool {
        if let Some(inner) = position_of(self.graph, index) {
            // Inside an open chunk only positions that exist are met.
            let open = self.env(inner).is_some_and(|d| matches!(self.k.dim(d).kind, DimKind::Chunk { .. }));
            return open && self.graph.axis(inner).split.is_some_and(|s| self.same_extent(s.of, axis));
        }
        matches!(self.graph.op(index), Op::Index(other) if self.same_extent(*other, axis))
    }

    pub(crate) fn same_extent(&self, a: AxisId, b: AxisId) -> bool {
        let root = |mut axis: AxisId| {
            let mut hops = 0;
            while let Some(twin) = self.graph.axis(axis).twin {
                axis = twin;
                hops += 1;
                if hops > self.graph.axes.len() {
                    break;
                }
            }
            axis
        };
        root(a) == root(b)
    }

    /// Keeps an expression as a tile when it is dear and used more than once, or can leave a loop.
    fn maybe_tile(&mut self, id: NodeId, expr: ExprId) -> Result<ExprId, CompileError> {
        if self.graph.dtype(id) != DType::Real || !matches!(self.k.expr(expr), Expr::Op { .. }) {
            return Ok(expr);
        }
        let dims = self.k.dims_of(expr);
        if dims.iter().any(|d| self.k.dim(*d).kind == DimKind::Span) {
            return Ok(expr);
        }
        let level = self.level(id);
        let again = self.uses.get(&id).copied().unwrap_or(0) > 1 && self.is_dear(expr, 0);
        let leaves = level + 1 < self.scopes.len() && self.is_dear(expr, 0);
        if !(again || leaves) {
            return Ok(expr);
        }
        let tile = self.materialise(id, expr, level);
        Ok(self.k.add(Expr::Tile(tile)))
    }

    /// More than a couple of cheap operations.
    fn is_dear(&self, expr: ExprId, depth: u32) -> bool {
        let Expr::Op { op, args } = self.k.expr(expr) else { return false };
        let costly = !matches!(
            op,
            ScalarOp::Add | ScalarOp::Sub | ScalarOp::Mul | ScalarOp::Neg | ScalarOp::Min | ScalarOp::Max | ScalarOp::Select | ScalarOp::ToReal
        );
        costly || depth >= 2 || args.iter().any(|a| self.is_dear(*a, depth + 1))
    }

    fn materialise(&mut self, id: NodeId, expr: ExprId, level: usize) -> TileId {
        let dims = self.tile_dims(expr);
        let name = self.graph.node(id).name.clone().unwrap_or_else(|| format!("v{}", id.index()));
        let out = self.k.add_tile(name, dims, self.graph.dtype(id));
        self.scopes[level].stmts.push(Stmt::Map { out, expr });
        out
    }

    /// Dimensions of a tile that holds this expression: grid, loop, whole; single positions are left out.
    pub(crate) fn tile_dims(&self, expr: ExprId) -> Vec<DimId> {
        let dims = self.k.dims_of(expr);
        self.sorted(dims)
    }

    pub(crate) fn sorted(&self, mut dims: Vec<DimId>) -> Vec<DimId> {
        dims.retain(|d| !matches!(self.k.dim(*d).kind, DimKind::Grid { block: 1 } | DimKind::Loop { block: 1 }));
        dims.sort_by_key(|d| {
            let rank = match self.k.dim(*d).kind {
                // Features run fastest, so that values of a state are contiguous.
                DimKind::Grid { .. } if self.sizes.is_feature(self.k.dim(*d).axis) => 3,
                DimKind::Grid { .. } => 0,
                DimKind::Loop { .. } | DimKind::Chunk { .. } => 1,
                DimKind::Whole { .. } => 2,
                DimKind::Span => 4,
            };
            (rank, *d)
        });
        dims.dedup();
        dims
    }

    /// The node as a tile.
    pub(crate) fn tile(&mut self, id: NodeId) -> Result<TileId, CompileError> {
        let expr = self.expr(id)?;
        if let Expr::Tile(tile) = self.k.expr(expr) {
            return Ok(*tile);
        }
        let level = self.level(id);
        let tile = self.materialise(id, expr, level);
        let expr = self.k.add(Expr::Tile(tile));
        self.scopes[level].vals.insert(id, expr);
        Ok(tile)
    }

    /// A tile over given axes that holds an expression (broadcast along axes that it lacks), in the current scope.
    pub(crate) fn tile_over(&mut self, name: &str, axes: &[AxisId], dtype: DType, expr: ExprId) -> Result<TileId, CompileError> {
        let mut dims = Vec::new();
        for axis in axes {
            dims.push(self.dim_of(*axis)?);
        }
        let dims = self.sorted(dims);
        let out = self.k.add_tile(name, dims, dtype);
        self.push(Stmt::Map { out, expr });
        Ok(out)
    }

    pub(crate) fn real(&mut self, value: f64) -> ExprId {
        self.k.add(Expr::Const(Scalar::Real(value)))
    }
}
