//! Statements as loops over elements, spread over lanes.

use super::{Bounds, Element, Lower};
use crate::kernel::{Base, Value};
use crate::ops::{DType, Scalar, ScalarOp};
use crate::passes::error::CompileError;
use crate::reduce::ReduceOp;
use crate::tiles::*;

type Made = Result<(), CompileError>;

impl Lower<'_> {
    pub(super) fn stmts(&mut self, stmts: &[Stmt]) -> Made {
        for s in stmts {
            match s {
                Stmt::Map { out, expr } => self.map(*out, *expr)?,
                Stmt::Reduce { out, op, over, expr, carried } => self.reduce(*out, *op, over, *expr, *carried)?,
                Stmt::Dot { out, a, b, over, carried } => self.dot(*out, *a, *b, over, *carried)?,
                Stmt::Prefix { out, op, dim, expr, before, reverse } => self.prefix(*out, *op, *dim, *expr, (*before, *reverse))?,
                Stmt::Solve { out, rows, cols, matrix, rhs, reverse } => self.solve(*out, (*rows, *cols), *matrix, *rhs, *reverse)?,
                Stmt::Store { buffer, index, dims, expr } => self.store(*buffer, index, dims, *expr)?,
                Stmt::Loop(l) => self.block_loop(l)?,
                Stmt::Order(o) => self.order(o)?,
            }
        }
        Ok(())
    }

    /// Runs `body` for every element of the dimensions, on some lane. `reads` are expressions whose invariant parts may be computed
    /// outside the inner loops. Ends with a barrier.
    pub(super) fn elements(&mut self, dims: &[DimId], reads: &[ExprId], body: &mut dyn FnMut(&mut Self, &mut Element) -> Made) -> Made {
        let mut element = Element::default();
        for r in reads {
            self.hoist(*r, &mut element)?;
        }
        if self.caps.lanes == 1 {
            self.nest(dims, reads, element, body)?;
            return Ok(());
        }
        let lane = self.b.lane();
        let lens = dims.iter().map(|d| self.len(*d)).collect::<Result<Vec<_>, _>>()?;
        let mut total = self.b.int(1);
        for n in &lens {
            total = self.b.mul(total, *n);
        }
        let step = self.b.int(i64::from(self.caps.lanes));
        let open = self.b.begin_for(lane, total, step, &[]);
        let mut rest = open.var;
        for (d, n) in dims.iter().zip(&lens).rev() {
            let offset = self.b.modulo(rest, *n);
            rest = self.b.idiv(rest, *n);
            element.offset.insert(*d, offset);
        }
        body(self, &mut element)?;
        self.b.end_for(open, &[]);
        self.b.barrier();
        Ok(())
    }

    fn nest(&mut self, dims: &[DimId], reads: &[ExprId], mut element: Element, body: &mut dyn FnMut(&mut Self, &mut Element) -> Made) -> Made {
        let Some((first, rest)) = dims.split_first() else { return body(self, &mut element) };
        let n = self.len(*first)?;
        let (zero, one) = (self.b.int(0), self.b.int(1));
        let open = self.b.begin_for(zero, n, one, &[]);
        element.offset.insert(*first, open.var);
        if !rest.is_empty() {
            for r in reads {
                self.hoist(*r, &mut element)?;
            }
        }
        self.nest(rest, reads, element, body)?;
        self.b.end_for(open, &[]);
        Ok(())
    }

    fn map(&mut self, out: TileId, expr: ExprId) -> Made {
        // A loop's body is lowered twice when its masks have classes; what held for a tile there need not hold here.
        self.aliases.remove(&out);
        if !self.handed_on.contains(&out) {
            self.made.insert(out);
        }
        // A copy of a tile onto itself.
        let mut source = expr;
        while let Expr::Masked { value, class: Some(c), .. } = self.k.expr(source) {
            if !self.full.contains(c) {
                break;
            }
            source = *value;
        }
        while let Expr::Op { op: ScalarOp::Select, args } = self.k.expr(source) {
            match self.k.expr(args[0]) {
                Expr::Const(Scalar::Bool(true)) => source = args[1],
                Expr::Const(Scalar::Bool(false)) => source = args[2],
                _ => break,
            }
        }
        if self.alias(out, source)? {
            return Ok(());
        }
        if let Expr::Tile(t) = self.k.expr(source) {
            if self.k.tile(*t).dims == self.k.tile(out).dims && self.same_place(*t, out) {
                return Ok(());
            }
        }
        if self.map_call(out, source)? {
            return Ok(());
        }
        if self.function_of_rows(out, source)? {
            return Ok(());
        }
        let dims = self.k.tile(out).dims.clone();
        let local = self.local(out);
        // Dear functions are taken over whole rows at once, the innermost first; the loops around them read the results.
        let made = self.row_functions(out, source)?;
        self.elements(&dims, &[source], &mut |l, e| {
            for (expr, room) in &made {
                let index = l.tile_index(out, e)?;
                let value = l.b.load(*room, index);
                e.memo.insert(*expr, value);
            }
            let value = l.eval(source, e)?;
            let index = l.tile_index(out, e)?;
            l.b.store(local, index, value);
            Ok(())
        })
    }

    /// Copies a tile to another of the same dimensions, unless they are one array.
    pub(super) fn copy(&mut self, from: TileId, to: TileId) -> Made {
        if self.same_place(from, to) {
            return Ok(());
        }
        let dims = self.k.tile(to).dims.clone();
        let (source, target) = (self.local(from), self.local(to));
        self.elements(&dims, &[], &mut |l, e| {
            let index = l.tile_index(from, e)?;
            let value = l.b.load(source, index);
            let index = l.tile_index(to, e)?;
            l.b.store(target, index, value);
            Ok(())
        })
    }

    fn reduce(&mut self, out: TileId, op: ReduceOp, over: &[DimId], expr: ExprId, carried: Option<TileId>) -> Made {
        if self.reduce_call(out, op, over, expr, carried)? {
            return Ok(());
        }
        let dims = self.k.tile(out).dims.clone();
        let local = self.local(out);
        let source = carried.map(|c| (c, self.local(c)));
        let over = over.to_vec();
        self.elements(&dims, &[expr], &mut |l, e| {
            let inits = match (source, op) {
                (Some((tile, local)), _) => {
                    let index = l.tile_index(tile, e)?;
                    vec![l.b.load(local, index)]
                }
                (None, ReduceOp::ArgMax | ReduceOp::ArgMin) => {
                    let best = if l.is_int(expr) { Scalar::Int(0) } else { Scalar::Real(0.0) };
                    vec![l.b.scalar(best), l.b.int(-1)]
                }
                (None, _) => {
                    let dtype = l.k.tile(out).dtype;
                    vec![l.b.scalar(op.identity(dtype))]
                }
            };
            let values = l.accumulate(op, &over, &over, expr, e.clone(), inits)?;
            let index = l.tile_index(out, e)?;
            let last = values.len() - 1;
            l.b.store(local, index, values[last]);
            Ok(())
        })
    }

    fn is_int(&self, expr: ExprId) -> bool {
        self.expr_dtype(expr) == DType::Int
    }

    pub(super) fn expr_dtype(&self, expr: ExprId) -> DType {
        match self.k.expr(expr) {
            Expr::Const(c) => c.dtype(),
            Expr::Host(h) => self.host_type(h),
            Expr::Pos(_) | Expr::Start(_) | Expr::Stop(_) => DType::Int,
            Expr::Op { op, args } => {
                let types: Vec<DType> = args.iter().map(|a| self.expr_dtype(*a)).collect();
                op.result(&types).unwrap_or(DType::Real)
            }
            Expr::Tile(t) | Expr::TileAt { tile: t, .. } => self.k.tile(*t).dtype,
            Expr::Load { buffer, .. } => self.plan.buffers[buffer.index()].dtype,
            Expr::Masked { value, .. } => self.expr_dtype(*value),
        }
    }

    /// Nested loops over the reduced dimensions with the partial result carried in values.
    fn accumulate(&mut self, op: ReduceOp, all: &[DimId], over: &[DimId], expr: ExprId, mut element: Element, inits: Vec<Value>) -> Result<Vec<Value>, CompileError> {
        let Some((first, rest)) = over.split_first() else {
            return self.combine(op, all, expr, element, inits);
        };
        self.hoist(expr, &mut element)?;
        let n = self.len(*first)?;
        let (zero, one) = (self.b.int(0), self.b.int(1));
        let open = self.b.begin_for(zero, n, one, &inits);
        let params = open.params.clone();
        element.offset.insert(*first, open.var);
        let nexts = self.accumulate(op, all, rest, expr, element, params)?;
        Ok(self.b.end_for(open, &nexts))
    }

    fn combine(&mut self, op: ReduceOp, all: &[DimId], expr: ExprId, mut element: Element, old: Vec<Value>) -> Result<Vec<Value>, CompileError> {
        if let Some(combine) = op.combine() {
            let value = self.eval(expr, &mut element)?;
            return Ok(vec![self.b.op(combine, &[old[0], value])]);
        }
        // Pairs (best, position); a mask is the condition of the expression.
        let (present, value) = match self.k.expr(expr).clone() {
            Expr::Masked { cond, value, class, .. } if !class.is_some_and(|c| self.full.contains(&c)) => (Some(self.eval(cond, &mut element)?), self.eval(value, &mut element)?),
            Expr::Masked { value, .. } => (None, self.eval(value, &mut element)?),
            _ => (None, self.eval(expr, &mut element)?),
        };
        let (best, at) = (old[0], old[1]);
        let (low, high) = if op == ReduceOp::ArgMax { (best, value) } else { (value, best) };
        let mut wins = self.b.lt(low, high);
        if self.b.ty(value) == DType::Real {
            let best_nan = self.b.op(ScalarOp::Ne, &[best, best]);
            let number = self.b.eq(value, value);
            let takes = self.b.and(best_nan, number);
            wins = self.b.or(wins, takes);
        }
        let zero = self.b.int(0);
        let none = self.b.lt(at, zero);
        wins = self.b.or(none, wins);
        if let Some(p) = present {
            wins = self.b.and(p, wins);
        }
        let [dim] = all else { return Err(self.bug("an arg reduction takes one axis")) };
        let here = self.position(*dim, &element)?;
        Ok(vec![self.b.select(wins, value, best), self.b.select(wins, here, at)])
    }

    fn store(&mut self, buffer: BufId, index: &[ExprId], dims: &[DimId], expr: ExprId) -> Made {
        let base = Base::Buffer(self.buffers[&buffer]);
        let mut reads = index.to_vec();
        reads.push(expr);
        let index = index.to_vec();
        self.elements(dims, &reads, &mut |l, e| {
            let value = l.eval(expr, e)?;
            let at = index.iter().map(|i| l.eval(*i, e)).collect::<Result<Vec<_>, _>>()?;
            let linear = l.linear(buffer, &at);
            l.b.store(base, linear, value);
            Ok(())
        })
    }

    fn block_loop(&mut self, l: &Loop) -> Made {
        self.handed_on.extend(l.carries.iter().map(|c| c.next));
        for c in &l.carries {
            self.copy(c.init, c.param)?;
        }
        let block = i64::from(self.k.dim(l.dim).kind.capacity());
        let extent = self.k.dim(l.dim).extent.clone();
        let extent = self.host(&extent);
        let mut outside = Element::default();
        let (mut lo, hi) = (self.eval(l.lo, &mut outside)?, self.eval(l.hi, &mut outside)?);
        let step = self.b.int(block);
        if block > 1 {
            let over = self.b.modulo(lo, step);
            lo = self.b.sub(lo, over);
        }
        let open = if l.reverse {
            let span = self.b.sub(hi, lo);
            let n = self.b.ceildiv(span, step);
            let (zero, one) = (self.b.int(0), self.b.int(1));
            self.b.begin_for(zero, n, one, &[])
        } else {
            self.b.begin_for(lo, hi, step, &[])
        };
        let start = if l.reverse {
            // Last block first.
            let span = self.b.sub(hi, lo);
            let n = self.b.ceildiv(span, step);
            let one = self.b.int(1);
            let last = self.b.sub(n, one);
            let back = self.b.sub(last, open.var);
            self.b.mul_add(back, step, lo)
        } else {
            open.var
        };
        let end = self.b.add(start, step);
        let stop = self.b.min(end, extent);
        self.dims.insert(l.dim, Bounds { start, stop });
        self.open_chunks(l.dim);
        self.stmts(&l.head)?;
        let skip = match l.empty {
            Some(e) => {
                let empty = self.eval(e, &mut Element::default())?;
                let busy = self.b.not(empty);
                Some(self.b.begin_if(busy))
            }
            None => None,
        };
        match l.full {
            Some(full) => {
                let full = self.eval(full, &mut Element::default())?;
                let mut branch = self.b.begin_if(full);
                self.full.insert(l.dim);
                self.iteration(l)?;
                self.full.remove(&l.dim);
                self.b.begin_else(&mut branch);
                self.iteration(l)?;
                self.b.end_if(branch);
            }
            None => self.iteration(l)?,
        }
        if let Some(open) = skip {
            self.b.end_if(open);
        }
        self.b.end_for(open, &[]);
        self.dims.remove(&l.dim);
        for c in &l.carries {
            self.copy(c.param, c.result)?;
        }
        Ok(())
    }

    fn iteration(&mut self, l: &Loop) -> Made {
        self.stmts(&l.body)?;
        for c in &l.carries {
            self.copy(c.next, c.param)?;
        }
        Ok(())
    }
}
