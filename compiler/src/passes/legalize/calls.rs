//! Tile calls: matrix products, row exponentials, maxima and sums where the target has them; plain loops elsewhere.

use super::{Element, Lower};
use crate::kernel::{Base, Place, Storage, TileCall, Value};
use crate::ops::{DType, Scalar, ScalarOp};
use crate::passes::error::CompileError;
use crate::reduce::ReduceOp;
use crate::tiles::*;

type Made = Result<(), CompileError>;

/// An operand in memory with its stride along each of its wide dimensions.
pub(super) struct Operand {
    base: Base,
    offset: Value,
    strides: Vec<(DimId, Value)>,
    /// All elements are absent (zero) unless this holds.
    inside: Option<Value>,
    /// Stored in 16 bits.
    half: bool,
}

impl Operand {
    fn stride(&self, dim: DimId) -> Option<Value> {
        self.strides.iter().find(|s| s.0 == dim).map(|s| s.1)
    }
}

impl Lower<'_> {
    /// A tile of rows and columns: (tile, rows, columns). One of a single dimension is one row.
    fn matrix(&self, expr: ExprId) -> Option<(TileId, Option<DimId>, DimId)> {
        let Expr::Tile(t) = self.k.expr(expr) else { return None };
        match (self.k.tile(*t).dims.as_slice(), self.k.tile(*t).dtype) {
            ([r, c], DType::Real) => Some((*t, Some(*r), *c)),
            ([c], DType::Real) => Some((*t, None, *c)),
            _ => None,
        }
    }

    fn row_count(&mut self, rows: Option<DimId>) -> Result<Value, CompileError> {
        match rows {
            Some(rows) => self.len(rows),
            None => Ok(self.b.int(1)),
        }
    }

    fn tile_place(&mut self, tile: TileId) -> Place {
        let zero = self.b.int(0);
        Place { base: Base::Local(self.local(tile)), offset: zero }
    }

    fn row_stride(&mut self, tile: TileId) -> Value {
        let dims = self.k.tile(tile).dims.clone();
        let strides = self.strides(&dims);
        self.b.int(strides[0])
    }

    /// `map` as a tile call; false when there is none for it.
    pub(super) fn map_call(&mut self, out: TileId, expr: ExprId) -> Result<bool, CompileError> {
        if !self.caps.tile_calls || self.k.tile(out).dtype != DType::Real {
            return Ok(false);
        }
        let Expr::Op { op, args } = self.k.expr(expr).clone() else { return Ok(false) };
        if args.len() != 2 || !matches!(op, ScalarOp::ExpDiff | ScalarOp::Mul) {
            return Ok(false);
        }
        let Some((x, rows, cols)) = self.matrix(args[0]) else { return Ok(false) };
        let Expr::Tile(by) = *self.k.expr(args[1]) else { return Ok(false) };
        let all: Vec<DimId> = rows.into_iter().chain([cols]).collect();
        if self.k.tile(by).dims.as_slice() != rows.as_slice() || self.k.tile(by).dtype != DType::Real || self.k.tile(out).dims != all {
            return Ok(false);
        }
        let (n, m) = (self.row_count(rows)?, self.len(cols)?);
        let (x_place, by_place, x_row) = (self.tile_place(x), self.tile_place(by), self.row_stride(x));
        if op == ScalarOp::ExpDiff {
            let zero = self.b.int(0);
            let sums = if self.summed.contains(&out) { self.row_sums(out, rows)? } else { self.row_scratch(rows) };
            let sums = Place { base: Base::Local(sums), offset: zero };
            let (y, y_row, scale) = (self.tile_place(out), self.row_stride(out), self.b.real(1.0));
            self.b.tile(TileCall::ExpRows { rows: n, cols: m, x: x_place, x_row, shift: by_place, y, y_row, sums, scale });
            return Ok(true);
        }
        self.copy(x, out)?;
        let (place, stride) = (self.tile_place(out), self.row_stride(out));
        self.b.tile(TileCall::ScaleRows { rows: n, cols: m, x: place, x_row: stride, factor: by_place });
        Ok(true)
    }

    /// Room for one Real a row.
    fn row_scratch(&mut self, rows: Option<DimId>) -> crate::kernel::LocalId {
        let len = rows.map_or(1, |r| self.k.dim(r).kind.capacity() as usize);
        if let Some(local) = self.scratch.get(&(DType::Real, len)) {
            return *local;
        }
        let local = self.b.local("rows", DType::Real, len);
        self.scratch.insert((DType::Real, len), local);
        local
    }

    /// `reduce` as a tile call; false when there is none for it.
    pub(super) fn reduce_call(&mut self, out: TileId, op: ReduceOp, over: &[DimId], expr: ExprId, carried: Option<TileId>) -> Result<bool, CompileError> {
        if !self.caps.tile_calls || !matches!(op, ReduceOp::Max | ReduceOp::Sum) {
            return Ok(false);
        }
        let Some((x, rows, cols)) = self.matrix(expr) else { return Ok(false) };
        if over != [cols] || self.k.tile(out).dims.as_slice() != rows.as_slice() || self.k.tile(out).dtype != DType::Real {
            return Ok(false);
        }
        if let (Some(sums), ReduceOp::Sum) = (self.sums.get(&x).copied(), op) {
            return self.add_sums(out, rows, sums, carried);
        }
        match carried {
            Some(c) => self.copy(c, out)?,
            None => self.fill(out, op.identity(DType::Real))?,
        }
        let (n, m) = (self.row_count(rows)?, self.len(cols)?);
        let (x_place, x_row, out) = (self.tile_place(x), self.row_stride(x), self.tile_place(out));
        let call = match op {
            ReduceOp::Max => TileCall::MaxRows { rows: n, cols: m, x: x_place, x_row, out },
            _ => TileCall::SumRows { rows: n, cols: m, x: x_place, x_row, out },
        };
        self.b.tile(call);
        Ok(true)
    }

    fn fill(&mut self, tile: TileId, value: Scalar) -> Made {
        let dims = self.k.tile(tile).dims.clone();
        let local = self.local(tile);
        self.elements(&dims, &[], &mut |l, e| {
            let value = l.b.scalar(value);
            let index = l.tile_index(tile, e)?;
            l.b.store(local, index, value);
            Ok(())
        })
    }

    fn is_wide(&self, dim: DimId) -> bool {
        match self.k.dim(dim).kind {
            DimKind::Grid { block } | DimKind::Loop { block } | DimKind::Chunk { block, .. } => block > 1,
            DimKind::Whole { .. } | DimKind::Span => true,
        }
    }

    pub(super) fn dot(&mut self, out: TileId, a: ExprId, b: ExprId, over: &[DimId], carried: Option<TileId>) -> Made {
        if self.caps.tile_calls && self.dot_call(out, a, b, over, carried)? {
            return Ok(());
        }
        // One element at a time; each lane carries its sum in a register.
        let dims = self.k.tile(out).dims.clone();
        let local = self.local(out);
        let source = carried.map(|c| (c, self.local(c)));
        let over = over.to_vec();
        self.elements(&dims, &[a, b], &mut |l, e| {
            let init = match source {
                Some((tile, local)) => {
                    let index = l.tile_index(tile, e)?;
                    l.b.load(local, index)
                }
                None => l.b.real(0.0),
            };
            let sum = l.products(&over, a, b, e.clone(), init)?;
            let index = l.tile_index(out, e)?;
            l.b.store(local, index, sum);
            Ok(())
        })
    }

    fn products(&mut self, over: &[DimId], a: ExprId, b: ExprId, mut element: Element, init: Value) -> Result<Value, CompileError> {
        let Some((first, rest)) = over.split_first() else {
            let (x, y) = (self.eval(a, &mut element)?, self.eval(b, &mut element)?);
            let term = self.b.mul(x, y);
            return Ok(self.b.add(init, term));
        };
        self.hoist(a, &mut element)?;
        self.hoist(b, &mut element)?;
        let n = self.len(*first)?;
        let (zero, one) = (self.b.int(0), self.b.int(1));
        let open = self.b.begin_for(zero, n, one, &[init]);
        let param = open.params[0];
        element.offset.insert(*first, open.var);
        let next = self.products(rest, a, b, element, param)?;
        Ok(self.b.end_for(open, &[next])[0])
    }

    /// A matrix product through the table: the last dimension of each kind is the matrix dimension, others are looped over.
    fn dot_call(&mut self, out: TileId, a: ExprId, b: ExprId, over: &[DimId], carried: Option<TileId>) -> Result<bool, CompileError> {
        let out_dims = self.k.tile(out).dims.clone();
        let (a_dims, b_dims) = (self.dims_of(a), self.dims_of(b));
        let Some((inner, outer)) = over.split_last() else { return Ok(false) };
        let m = out_dims.iter().rev().copied().find(|d| a_dims.contains(d) && !b_dims.contains(d));
        let n = out_dims.iter().rev().copied().find(|d| b_dims.contains(d) && !a_dims.contains(d));
        // A vector has one row: `a` is the vector.
        let Some(n) = n else { return Ok(false) };
        if m.is_none() && out_dims.iter().any(|d| a_dims.contains(d)) {
            return Ok(false);
        }
        let (Some(left), Some(right)) = (self.operand(a)?, self.operand(b)?) else { return Ok(false) };
        let a_m = match m {
            Some(m) => left.stride(m),
            None => Some(self.b.int(0)),
        };
        let (Some(a_m), Some(a_k), Some(b_k), Some(b_n)) = (a_m, left.stride(*inner), right.stride(*inner), right.stride(n)) else {
            return Ok(false);
        };
        let inside = match (left.inside, right.inside) {
            (Some(x), Some(y)) => Some(self.b.and(x, y)),
            (x, y) => x.or(y),
        };
        // Several calls add up: start from zero.
        let adds_up = !outer.is_empty();
        match carried {
            Some(c) => self.copy(c, out)?,
            None if adds_up => self.fill(out, Scalar::Real(0.0))?,
            None => {}
        }
        let accumulate = carried.is_some() || adds_up;
        let narrow = (left.half && self.rounds(b)) || (right.half && self.rounds(a));
        let strides = self.strides(&out_dims);
        let mut loops: Vec<DimId> = out_dims.iter().copied().filter(|d| Some(*d) != m && *d != n).collect();
        loops.extend(outer);
        let (rows, cols, depth) = (self.row_count(m)?, self.len(n)?, self.len(*inner)?);
        let zero = self.b.int(0);
        let c_base = Base::Local(self.local(out));
        let place_of = |dim: DimId| out_dims.iter().position(|d| *d == dim).map(|i| strides[i]);
        let (c_m, c_n) = (m.and_then(place_of).unwrap_or(0), place_of(n).unwrap_or(0));
        let (c_m, c_n) = (self.b.int(c_m), self.b.int(c_n));
        let guard = inside.map(|inside| self.b.begin_if(inside));
        let mut opened = Vec::new();
        let (mut a_at, mut b_at, mut c_at) = (left.offset, right.offset, zero);
        for dim in &loops {
            let count = self.len(*dim)?;
            let one = self.b.int(1);
            let open = self.b.begin_for(zero, count, one, &[]);
            let var = open.var;
            if let Some(s) = left.stride(*dim) {
                a_at = self.b.mul_add(var, s, a_at);
            }
            if let Some(s) = right.stride(*dim) {
                b_at = self.b.mul_add(var, s, b_at);
            }
            if let Some(s) = place_of(*dim) {
                let s = self.b.int(s);
                c_at = self.b.mul_add(var, s, c_at);
            }
            opened.push(open);
        }
        self.b.tile(TileCall::Dot {
            m: rows,
            n: cols,
            k: depth,
            a: Place { base: left.base, offset: a_at },
            a_m,
            a_k,
            b: Place { base: right.base, offset: b_at },
            b_k,
            b_n,
            c: Place { base: c_base, offset: c_at },
            c_m,
            c_n,
            accumulate,
            narrow,
        });
        for open in opened.into_iter().rev() {
            self.b.end_for(open, &[]);
        }
        if let Some(mut guard) = guard {
            if !accumulate {
                self.b.begin_else(&mut guard);
                self.fill(out, Scalar::Real(0.0))?;
            }
            self.b.end_if(guard);
        }
        Ok(true)
    }

    /// Whether an operand that meets one of 16 bits may be rounded to 16 bits itself: tiles made anew from what is at hand, in a
    /// program whose results are all rounded anyway. What a loop carries or a sum adds up keeps its precision, so that no rounding
    /// enters a recurrence; so do programs with indices, which compare what they compute.
    fn rounds(&self, expr: ExprId) -> bool {
        self.coarse && matches!(self.k.expr(expr), Expr::Tile(t) if self.made.contains(t))
    }

    /// The expression as memory with strides: a tile, or a buffer whose index along each axis is a position plus something uniform.
    /// Reads that may be out of range qualify where the index that decides is uniform.
    pub(super) fn operand(&mut self, expr: ExprId) -> Result<Option<Operand>, CompileError> {
        match self.k.expr(expr).clone() {
            Expr::Tile(t) if self.aliases.contains_key(&t) => self.operand(self.aliases[&t]),
            Expr::Tile(t) => {
                let dims = self.k.tile(t).dims.clone();
                let strides = self.strides(&dims);
                let strides = dims.iter().zip(strides).map(|(d, s)| (*d, self.b.int(s))).collect();
                let place = self.tile_place(t);
                Ok(Some(Operand { base: place.base, offset: place.offset, strides, inside: None, half: false }))
            }
            // A tile that holds an axis whole, at the positions of a block of it.
            Expr::TileAt { tile, at } if at.iter().all(|(d, e)| self.is_own_position(*e, *d)) => {
                let dims = self.k.tile(tile).dims.clone();
                let strides = self.strides(&dims);
                let place = self.tile_place(tile);
                let mut out = Vec::new();
                let mut offset = place.offset;
                for (dim, stride) in dims.iter().zip(strides) {
                    let stride = self.b.int(stride);
                    let Some((_, index)) = at.iter().find(|a| a.0 == *dim) else {
                        out.push((*dim, stride));
                        continue;
                    };
                    let here = match self.k.expr(*index) {
                        Expr::Pos(p) => *p,
                        Expr::Op { args, .. } => match self.k.expr(args[0]) {
                            Expr::Pos(p) => *p,
                            _ => return Ok(None),
                        },
                        _ => return Ok(None),
                    };
                    // Positions inside a chunk start at its start; others count from the start of the axis.
                    if matches!(self.k.expr(*index), Expr::Pos(_)) {
                        let start = self.bounds(here)?.start;
                        offset = self.b.mul_add(start, stride, offset);
                    }
                    if out.iter().any(|s: &(DimId, Value)| s.0 == here) {
                        return Ok(None);
                    }
                    out.push((here, stride));
                }
                Ok(Some(Operand { base: place.base, offset, strides: out, inside: None, half: false }))
            }
            Expr::Load { buffer, index, guard } => {
                let plan = &self.plan.buffers[buffer.index()];
                let half = matches!(plan.storage, Storage::Bf16 | Storage::F16);
                if plan.dtype != DType::Real || !(half || plan.storage == Storage::F32) {
                    return Ok(None);
                }
                let extents = plan.dims.clone();
                let mut start = Element::default();
                let mut strides: Vec<(DimId, Value)> = Vec::new();
                let mut starts = Vec::new();
                let mut inside: Option<Value> = None;
                let mut step = self.b.int(1);
                let mut steps = Vec::new();
                for extent in extents.iter().rev() {
                    steps.push(step);
                    let extent = self.host(extent);
                    step = self.b.mul(step, extent);
                }
                steps.reverse();
                for (axis, i) in index.iter().enumerate() {
                    let wide: Vec<DimId> = self.dims_of(*i).into_iter().filter(|d| self.is_wide(*d)).collect();
                    match wide.as_slice() {
                        [] => {
                            let at = self.eval(*i, &mut start)?;
                            if !guard.get(axis).copied().unwrap_or(false) {
                                starts.push(at);
                                continue;
                            }
                            let extent = self.host(&extents[axis]);
                            let (is_in, safe) = self.guarded(at, extent);
                            inside = Some(inside.map_or(is_in, |old| self.b.and(old, is_in)));
                            starts.push(safe);
                        }
                        [_] if guard.get(axis).copied().unwrap_or(false) => return Ok(None),
                        [dim] => {
                            let Some(offset) = self.shift(*i, *dim, &mut start)? else { return Ok(None) };
                            let first = self.bounds(*dim)?.start;
                            starts.push(self.b.add(first, offset));
                            if strides.iter().any(|s| s.0 == *dim) {
                                return Ok(None);
                            }
                            strides.push((*dim, steps[axis]));
                        }
                        _ => return Ok(None),
                    }
                }
                let offset = self.linear(buffer, &starts);
                Ok(Some(Operand { base: Base::Buffer(self.buffers[&buffer]), offset, strides, inside, half }))
            }
            _ => Ok(None),
        }
    }

    /// `expr - position along dim`, when that is uniform.
    fn shift(&mut self, expr: ExprId, dim: DimId, start: &mut Element) -> Result<Option<Value>, CompileError> {
        match self.k.expr(expr).clone() {
            Expr::Pos(d) if d == dim => Ok(Some(self.b.int(0))),
            Expr::Op { op: ScalarOp::Add, args } => {
                for (x, y) in [(args[0], args[1]), (args[1], args[0])] {
                    if self.dims_of(y).iter().all(|d| !self.is_wide(*d)) {
                        let Some(inner) = self.shift(x, dim, start)? else { return Ok(None) };
                        let add = self.eval(y, start)?;
                        return Ok(Some(self.b.add(inner, add)));
                    }
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}
