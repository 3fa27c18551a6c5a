//! The text of both roles. One walk writes either: where the math role takes a view, the copying role fills a slot.

use super::super::{Bounds, Element, Lower};
use super::form::{Form, Heavy, LoopForm, Part};
use super::nodes::{Node, Work};
use crate::kernel::Value;
use crate::kernel::caps::MatrixUnits;
use crate::kernel::plan::HostExpr;
use crate::kernel::warp::*;
use crate::ops::{DType, ScalarOp};
use crate::passes::error::CompileError;
use crate::tiles::*;

/// Bytes of second operands that blocks which run at a time should share in the cache of the device.
const SHARED_CACHE: i64 = 32 << 20;

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Copy,
    Math,
}

/// One iteration of a loop.
#[derive(Clone, Copy)]
struct Instance {
    bounds: Bounds,
    /// The block reaches past the end of the axis.
    ragged: Value,
    full: Option<Value>,
}

/// A product that runs.
struct Open {
    out: FragId,
    operand: Option<FragId>,
    rings: Vec<RingId>,
}

fn told(e: CompileError) -> String {
    e.to_string()
}

impl Lower<'_> {
    /// Writes the kernel; gives the number of pieces of work.
    pub(super) fn roles(&mut self, form: &Form, units: &MatrixUnits) -> Result<HostExpr, String> {
        let mut maps = vec![];
        for (source, ring) in form.sources.iter().zip(&form.rings) {
            let mut block = vec![1; source.index.len()];
            block[source.axis] = ring.rows;
            block[source.index.len() - 1] = 64;
            let dims = self.plan.buffers[source.buffer.index()].dims.clone();
            let shape = dims.iter().map(|d| self.int_argument(d)).collect();
            maps.push(TensorMap { buffer: self.buffers[&source.buffer], block, shape });
        }
        let blocks = self.k.grid.iter().map(|d| {
            let dim = self.k.dim(*d);
            HostExpr::Op(ScalarOp::CeilDiv, vec![dim.extent.clone(), HostExpr::Int(i64::from(dim.kind.capacity()))])
        });
        let total = blocks.reduce(|a, b| HostExpr::Op(ScalarOp::Mul, vec![a, b])).unwrap_or(HostExpr::Int(1));
        let count = self.host(&total);
        let mut texts = vec![];
        for role in [Role::Copy, Role::Math] {
            self.b.begin_body();
            let var = self.b.param(DType::Int);
            self.b.begin_body();
            self.decode(form, var);
            for part in &form.parts {
                match part {
                    Part::Straight(node) if role == Role::Math => self.node(form, node, None)?,
                    Part::Straight(_) => {}
                    Part::Loop(l) => self.pipeline(form, l, role)?,
                }
            }
            let body = self.b.end_body();
            self.b.warp(WarpOp::Work { var, count, body });
            texts.push(self.b.end_body());
        }
        let math = texts.pop().unwrap_or_default();
        let copy = texts.pop().unwrap_or_default();
        self.b.warp(WarpOp::Roles { copy, math });
        // Equal pieces are dealt out evenly; unequal ones are balanced by the order in which the device starts blocks.
        self.b.set_warps(form.warps(units, maps, form.heavy == Heavy::Even));
        Ok(total)
    }

    /// Number of the Int argument that holds an extent.
    fn int_argument(&mut self, e: &HostExpr) -> u32 {
        if let Some(i) = self.ints.iter().position(|x| x == e) {
            return i as u32;
        }
        match e {
            HostExpr::Int(_) => {
                self.ints.push(e.clone());
                self.b.int_arg(format!("i{}", self.ints.len() - 1));
            }
            _ => {
                self.host(e);
            }
        }
        self.ints.len() as u32 - 1
    }

    /// Positions of the grid for a piece of work.
    fn decode(&mut self, form: &Form, var: Value) {
        let row = form.row;
        let extent = self.k.dim(row).extent.clone();
        let size = i64::from(self.k.dim(row).kind.capacity());
        let blocks = HostExpr::Op(ScalarOp::CeilDiv, vec![extent.clone(), HostExpr::Int(size)]);
        let nq = self.host(&blocks);
        let others: Vec<DimId> = self.k.grid.iter().copied().filter(|d| *d != row).collect();
        let heads = others.iter().map(|d| self.k.dim(*d).extent.clone()).reduce(|a, b| HostExpr::Op(ScalarOp::Mul, vec![a, b])).unwrap_or(HostExpr::Int(1));
        let (head, place) = if form.heavy == Heavy::Even {
            (self.b.idiv(var, nq), self.b.modulo(var, nq))
        } else {
            // Heavy rows first, within groups of heads whose second operands fit the cache.
            let bytes: i64 = form.rings.iter().map(|r| i64::from(r.cols) * 2).sum();
            let span = form.parts.iter().find_map(|p| if let Part::Loop(l) = p { Some(self.k.dim(l.dim).extent.clone()) } else { None }).unwrap_or(HostExpr::Int(1));
            let one = HostExpr::Int(1);
            let least = |e| HostExpr::Op(ScalarOp::Max, vec![e, HostExpr::Int(1)]);
            let held = HostExpr::Op(ScalarOp::Mul, vec![least(span), HostExpr::Int(bytes.max(1))]);
            let group = HostExpr::Op(ScalarOp::Max, vec![HostExpr::Op(ScalarOp::IntDiv, vec![HostExpr::Int(SHARED_CACHE), held]), one]);
            let group = HostExpr::Op(ScalarOp::Min, vec![group, HostExpr::Op(ScalarOp::Max, vec![heads.clone(), HostExpr::Int(1)])]);
            let (group, heads) = (self.host(&group), self.host(&heads));
            let each = self.b.mul(nq, group);
            let (which, inside) = (self.b.idiv(var, each), self.b.modulo(var, each));
            let first = self.b.mul(which, group);
            let left = self.b.sub(heads, first);
            let width = self.b.min(left, group);
            let (h, q) = (self.b.modulo(inside, width), self.b.idiv(inside, width));
            let q = if form.heavy == Heavy::Last {
                let one = self.b.int(1);
                let last = self.b.sub(nq, one);
                self.b.sub(last, q)
            } else {
                q
            };
            (self.b.add(first, h), q)
        };
        let block = self.b.int(size);
        let start = self.b.mul(place, block);
        let end = self.b.add(start, block);
        let extent = self.host(&extent);
        let stop = self.b.min(end, extent);
        self.dims.insert(row, Bounds { start, stop });
        let mut rest = head;
        for d in others.iter().rev() {
            let count = self.k.dim(*d).extent.clone();
            let count = self.host(&count);
            let at = self.b.modulo(rest, count);
            rest = self.b.idiv(rest, count);
            let one = self.b.int(1);
            let stop = self.b.add(at, one);
            self.dims.insert(*d, Bounds { start: at, stop });
        }
        for (i, dim) in self.k.dims.iter().enumerate() {
            let stop = match dim.kind {
                DimKind::Whole { extent } => self.b.int(i64::from(extent)),
                DimKind::Span => self.host(&dim.extent.clone()),
                DimKind::Grid { .. } | DimKind::Loop { .. } | DimKind::Chunk { .. } => continue,
            };
            let start = self.b.int(0);
            self.dims.insert(DimId(i as u32), Bounds { start, stop });
        }
    }

    fn uniform(&mut self, form: &Form, e: ExprId) -> Result<Value, String> {
        let mut element = Element::default();
        self.bind(form, e, &mut element)?;
        self.eval(e, &mut element).map_err(told)
    }

    fn instance(&mut self, form: &Form, l: &LoopForm, start: Value) -> Result<Instance, String> {
        let block = self.b.int(i64::from(self.k.dim(l.dim).kind.capacity()));
        let extent = self.k.dim(l.dim).extent.clone();
        let extent = self.host(&extent);
        let end = self.b.add(start, block);
        let stop = self.b.min(end, extent);
        let ragged = self.b.lt(extent, end);
        let bounds = Bounds { start, stop };
        self.dims.insert(l.dim, bounds);
        let full = l.l.full.map(|f| self.uniform(form, f)).transpose()?;
        Ok(Instance { bounds, ragged, full })
    }

    fn pipeline(&mut self, form: &Form, l: &LoopForm, role: Role) -> Result<(), String> {
        let block = i64::from(self.k.dim(l.dim).kind.capacity());
        let (mut lo, hi) = (self.uniform(form, l.l.lo)?, self.uniform(form, l.l.hi)?);
        let step = self.b.int(block);
        let over = self.b.modulo(lo, step);
        lo = self.b.sub(lo, over);
        let span = self.b.sub(hi, lo);
        let n = self.b.ceildiv(span, step);
        let (zero, one) = (self.b.int(0), self.b.int(1));
        let last = self.b.sub(n, one);
        let reverse = l.l.reverse;
        let start_of = |s: &mut Self, i: Value| {
            let i = if reverse { s.b.sub(last, i) } else { i };
            s.b.mul_add(i, step, lo)
        };
        if role == Role::Math {
            l.inits.iter().for_each(|(to, from)| self.b.warp(WarpOp::Move { to: *to, from: *from }));
        }
        for r in &l.once {
            self.take(form, *r, role)?;
        }
        let staged = l.schedule.is_staged();
        if l.check_empty {
            // Which block comes first, and which came before, is known at run time only. Body copies stand outside of each other: products
            // of two copies that meet at one branch would share too few registers.
            let empty = |s: &mut Self, start: Value| {
                s.instance(form, l, start)?;
                match l.l.empty {
                    Some(e) => s.uniform(form, e),
                    None => Ok(s.b.boolean(false)),
                }
            };
            let mut first = zero;
            if staged {
                let open = self.b.begin_for(zero, n, one, &[n]);
                let found = open.params[0];
                let start = start_of(self, open.var);
                let none = empty(self, start)?;
                let at = self.b.select(none, n, open.var);
                let nearest = self.b.min(found, at);
                first = self.b.end_for(open, &[nearest])[0];
            }
            let some = self.b.lt(first, n);
            let gate = self.b.begin_if(some);
            let mut begin = first;
            let mut before = start_of(self, first);
            if staged {
                let now = self.instance(form, l, before)?;
                self.body(form, l, role, [Some(now), None])?;
                begin = self.b.add(first, one);
            }
            let open = self.b.begin_for(begin, n, one, &[before]);
            before = open.params[0];
            let start = start_of(self, open.var);
            let none = empty(self, start)?;
            let busy = self.b.not(none);
            let inner = self.b.begin_if(busy);
            let old = if staged { Some(self.instance(form, l, before)?) } else { None };
            let now = self.instance(form, l, start)?;
            self.body(form, l, role, [Some(now), old])?;
            self.b.end_if(inner);
            let next = self.b.select(none, before, start);
            let last = self.b.end_for(open, &[next])[0];
            if staged {
                let old = self.instance(form, l, last)?;
                self.body(form, l, role, [None, Some(old)])?;
            }
            self.b.end_if(gate);
        } else if staged {
            let some = self.b.lt(zero, n);
            let gate = self.b.begin_if(some);
            let start = start_of(self, zero);
            let now = self.instance(form, l, start)?;
            self.body(form, l, role, [Some(now), None])?;
            let open = self.b.begin_for(one, n, one, &[]);
            let before = self.b.sub(open.var, one);
            let (before, start) = (start_of(self, before), start_of(self, open.var));
            let (old, now) = (self.instance(form, l, before)?, self.instance(form, l, start)?);
            self.body(form, l, role, [Some(now), Some(old)])?;
            self.b.end_for(open, &[]);
            let start = start_of(self, last);
            let old = self.instance(form, l, start)?;
            self.body(form, l, role, [None, Some(old)])?;
            self.b.end_if(gate);
        } else {
            let open = self.b.begin_for(zero, n, one, &[]);
            let start = start_of(self, open.var);
            let now = self.instance(form, l, start)?;
            self.body(form, l, role, [Some(now), None])?;
            self.b.end_for(open, &[]);
        }
        if role == Role::Math {
            l.once.iter().for_each(|r| self.b.warp(WarpOp::Drop(*r)));
            l.results.iter().for_each(|(to, from)| self.b.warp(WarpOp::Move { to: *to, from: *from }));
        }
        self.dims.remove(&l.dim);
        Ok(())
    }

    fn take(&mut self, form: &Form, ring: RingId, role: Role) -> Result<(), String> {
        if role == Role::Math {
            self.b.warp(WarpOp::Take(ring));
            return Ok(());
        }
        let source = form.sources[ring.0 as usize].clone();
        let mut at = vec![];
        for (i, e) in source.index.iter().enumerate() {
            let value = if i + 1 == source.index.len() {
                self.b.int(0)
            } else {
                let mut element = Element::default();
                if i == source.axis {
                    let zero = self.b.int(0);
                    element.offset.insert(source.rows, zero);
                }
                self.bind(form, *e, &mut element)?;
                self.eval(*e, &mut element).map_err(told)?
            };
            at.push(value);
        }
        self.b.warp(WarpOp::Copy { ring, map: MapId(ring.0), at });
        Ok(())
    }

    /// One body: ops of stage 0 of one iteration and of stage 1 of the one before it.
    fn body(&mut self, form: &Form, l: &LoopForm, role: Role, now: [Option<Instance>; 2]) -> Result<(), String> {
        let present: Vec<usize> = l.schedule.order.iter().copied().filter(|i| now[l.schedule.stage[*i] as usize].is_some()).collect();
        let mut taken: Vec<RingId> = vec![];
        let mut open: Vec<Open> = vec![];
        for (at, i) in present.iter().enumerate() {
            let node = &l.nodes[*i];
            let Some(instance) = now[l.schedule.stage[*i] as usize] else { continue };
            self.dims.insert(l.dim, instance.bounds);
            if role == Role::Math {
                let needs = |o: &Open| node.reads.contains(&o.out) || node.writes.iter().any(|w| *w == o.out || o.operand == Some(*w));
                if let Some(which) = open.iter().rposition(needs) {
                    self.wait(&mut open, which, l, &present[at..]);
                }
            }
            for ring in &node.rings {
                if !taken.contains(ring) {
                    taken.push(*ring);
                    self.take(form, *ring, role)?;
                }
            }
            if role == Role::Copy {
                continue;
            }
            let turns = l.turns && now.iter().all(Option::is_some);
            if turns && at == 0 {
                self.b.warp(WarpOp::Turn { pass: false });
            }
            self.node(form, node, Some(instance))?;
            if turns && node.is_product() && !present[at + 1..].iter().any(|i| l.nodes[*i].is_product()) {
                self.b.warp(WarpOp::Turn { pass: true });
            }
            if let Work::Mma { out, a, .. } = &node.work {
                let operand = if let Operand::Frag(f) = a { Some(*f) } else { None };
                open.push(Open { out: *out, operand, rings: node.rings.clone() });
            }
        }
        if !open.is_empty() {
            let which = open.len() - 1;
            self.wait(&mut open, which, l, &[]);
        }
        Ok(())
    }

    /// Waits for the products up to `which` and gives back views that nothing after them reads.
    fn wait(&mut self, open: &mut Vec<Open>, which: usize, l: &LoopForm, rest: &[usize]) {
        let younger = (open.len() - 1 - which) as u32;
        let results = open[..=which].iter().map(|o| o.out).collect();
        self.b.warp(WarpOp::Wait { younger, results });
        let done: Vec<Open> = open.drain(..=which).collect();
        let mut dropped: Vec<RingId> = vec![];
        for ring in done.iter().flat_map(|o| &o.rings) {
            let later = rest.iter().any(|i| l.nodes[*i].rings.contains(ring)) || open.iter().any(|o| o.rings.contains(ring));
            if !later && !dropped.contains(ring) {
                dropped.push(*ring);
                self.b.warp(WarpOp::Drop(*ring));
            }
        }
    }

    /// A scale that is still to come, uniform. Zero counts as a very small number: what is masked must become minus infinity under it.
    fn scale(&mut self, form: &Form, factors: &[ExprId]) -> Result<Value, String> {
        let mut product: Option<Value> = None;
        for f in factors {
            let v = self.uniform(form, *f)?;
            product = Some(product.map_or(v, |p| self.b.mul(p, v)));
        }
        let (zero, tiny) = (self.b.real(0.0), self.b.real(1e-30));
        let c = product.unwrap_or(tiny);
        let none = self.b.eq(c, zero);
        Ok(self.b.select(none, tiny, c))
    }

    /// What the scale takes to minus infinity.
    fn fill_value(&mut self, c: Value) -> Value {
        let (zero, low, high) = (self.b.real(0.0), self.b.real(f64::NEG_INFINITY), self.b.real(f64::INFINITY));
        let positive = self.b.le(zero, c);
        self.b.select(positive, low, high)
    }

    /// Values of tiles that are evaluated where they are read.
    fn bind(&mut self, form: &Form, e: ExprId, element: &mut Element) -> Result<(), String> {
        if element.memo.contains_key(&e) {
            return Ok(());
        }
        match self.k.expr(e).clone() {
            Expr::Const(_) | Expr::Host(_) | Expr::Pos(_) | Expr::Start(_) | Expr::Stop(_) => {}
            Expr::Op { args, .. } => args.iter().try_for_each(|a| self.bind(form, *a, element))?,
            Expr::Tile(t) => {
                let Some(def) = form.defs.get(&t).copied() else { return Err(format!("tile {t:?} is not where it is read")) };
                self.bind(form, def, element)?;
                let value = self.eval(def, element).map_err(told)?;
                element.memo.insert(e, value);
            }
            Expr::TileAt { .. } => return Err("a tile is read at computed positions".into()),
            Expr::Load { index, .. } => index.iter().try_for_each(|a| self.bind(form, *a, element))?,
            Expr::Masked { cond, value, other, .. } => [cond, value, other].into_iter().try_for_each(|a| self.bind(form, a, element))?,
        }
        Ok(())
    }

    fn loads(&self, form: &Form, e: ExprId) -> bool {
        match self.k.expr(e) {
            Expr::Load { .. } => true,
            Expr::Op { args, .. } => args.iter().any(|a| self.loads(form, *a)),
            Expr::Tile(t) => form.defs.get(t).is_some_and(|d| self.loads(form, *d)),
            Expr::Masked { cond, value, other, .. } => [cond, value, other].into_iter().any(|a| self.loads(form, *a)),
            _ => false,
        }
    }

    /// A region over `dims` that evaluates `exprs`; `make` turns their values (and the element of `from`, first) into results.
    fn region(&mut self, form: &Form, dims: &[DimId], from: Option<FragId>, exprs: &[ExprId], make: &mut dyn FnMut(&mut Self, &Element, &[Value]) -> Vec<Value>) -> Result<Region, String> {
        let (row, col) = (self.b.param(DType::Int), self.b.param(DType::Int));
        let mut element = Element::default();
        let mut reads = vec![];
        let mut values = vec![];
        let mut later = vec![];
        for d in dims {
            element.offset.insert(*d, if *d == form.row { row } else { col });
        }
        if let Some(f) = from {
            let v = self.b.param(DType::Real);
            reads.push((v, f));
            values.push(v);
        }
        for e in exprs {
            for t in form.reads(*e)? {
                let Some(id) = self.k.exprs.iter().position(|x| *x == Expr::Tile(t)) else { continue };
                let id = ExprId(id as u32);
                if element.memo.contains_key(&id) {
                    continue;
                }
                let Some(f) = form.frag_of.get(&t) else { return Err(format!("tile {t:?} is no fragment")) };
                let v = self.b.param(DType::Real);
                reads.push((v, *f));
                element.memo.insert(id, v);
                if let Some(scale) = form.unscaled.get(&t) {
                    later.push((id, v, scale.clone()));
                }
            }
        }
        self.b.begin_body();
        for (id, v, scale) in later {
            let c = self.scale(form, &scale)?;
            let scaled = self.b.mul(v, c);
            element.memo.insert(id, scaled);
        }
        if exprs.iter().any(|e| self.loads(form, *e)) {
            // Lanes past the end of a block read the last position.
            for d in dims {
                let Some(id) = self.k.exprs.iter().position(|x| *x == Expr::Pos(*d)) else { continue };
                if matches!(self.k.dim(*d).kind, DimKind::Whole { .. }) {
                    continue;
                }
                let bounds = self.bounds(*d).map_err(told)?;
                let at = self.position(*d, &element).map_err(told)?;
                let one = self.b.int(1);
                let last = self.b.sub(bounds.stop, one);
                let safe = self.b.min(at, last);
                element.memo.insert(ExprId(id as u32), safe);
            }
        }
        for e in exprs {
            self.bind(form, *e, &mut element)?;
            values.push(self.eval(*e, &mut element).map_err(told)?);
        }
        let results = make(self, &element, &values);
        let body = self.b.end_body();
        Ok(Region { row, col, reads, body, results })
    }

    fn node(&mut self, form: &Form, node: &Node, instance: Option<Instance>) -> Result<(), String> {
        let full = instance.and_then(|i| i.full).filter(|_| node.classed);
        let Some(full) = full else { return self.work(form, &node.work, instance) };
        let Some(class) = self.classes(form, &node.work) else { return self.work(form, &node.work, instance) };
        let mut branch = self.b.begin_if(full);
        self.full.insert(class);
        let done = self.work(form, &node.work, instance);
        self.full.remove(&class);
        done?;
        self.b.begin_else(&mut branch);
        self.work(form, &node.work, instance)?;
        self.b.end_if(branch);
        Ok(())
    }

    /// The loop whose class an op reads.
    fn classes(&self, form: &Form, work: &Work) -> Option<DimId> {
        fn find(l: &Lower, form: &Form, e: ExprId) -> Option<DimId> {
            match l.k.expr(e) {
                Expr::Masked { class: Some(c), .. } => Some(*c),
                Expr::Masked { cond, value, other, class: None } => [cond, value, other].into_iter().find_map(|a| find(l, form, *a)),
                Expr::Op { args, .. } => args.iter().find_map(|a| find(l, form, *a)),
                Expr::Tile(t) => form.defs.get(t).and_then(|d| find(l, form, *d)),
                _ => None,
            }
        }
        match work {
            Work::Each { expr, .. } => find(self, form, *expr),
            Work::Fill { class, .. } => *class,
            _ => None,
        }
    }

    fn work(&mut self, form: &Form, work: &Work, instance: Option<Instance>) -> Result<(), String> {
        match work {
            Work::Mma { out, acc, a, b, turned, k } => {
                if let Some(acc) = acc.filter(|a| a != out) {
                    self.b.warp(WarpOp::Move { to: *out, from: acc });
                }
                self.b.warp(WarpOp::Mma { acc: *out, fresh: acc.is_none(), a: *a, b: *b, turned: *turned, k: *k });
            }
            Work::Each { out, expr, dims } => {
                let mut source = *expr;
                while let Expr::Masked { value, class: Some(c), .. } = self.k.expr(source) {
                    if !self.full.contains(c) {
                        break;
                    }
                    source = *value;
                }
                if let Expr::Tile(t) = self.k.expr(source) {
                    if let Some(from) = form.frag_of.get(t).filter(|f| form.fragments[f.0 as usize].layout == form.fragments[out.0 as usize].layout) {
                        self.b.warp(WarpOp::Move { to: *out, from: *from });
                        return Ok(());
                    }
                }
                let region = self.region(form, dims, None, &[source], &mut |_, _, v| v.to_vec())?;
                self.b.warp(WarpOp::Each { out: *out, region });
            }
            Work::Scale { out, from, factors, dims } => {
                let region = self.region(form, dims, Some(*from), factors, &mut |l, _, v| {
                    let product = v[1..].iter().copied().reduce(|a, b| l.b.mul(a, b));
                    vec![product.map_or(v[0], |p| l.b.mul(v[0], p))]
                })?;
                self.b.warp(WarpOp::Each { out: *out, region });
            }
            Work::Fill { out, from, cond, class, scale, dims } => {
                let Some(cond) = cond.filter(|_| class.is_none_or(|c| !self.full.contains(&c))) else {
                    self.b.warp(WarpOp::Move { to: *out, from: *from });
                    return Ok(());
                };
                let c = self.scale(form, scale)?;
                let fill = self.fill_value(c);
                let region = self.region(form, dims, Some(*from), &[cond], &mut |l, _, v| vec![l.b.select(v[1], v[0], fill)])?;
                self.b.warp(WarpOp::Each { out: *out, region });
            }
            Work::Move { to, from } => {
                if to != from {
                    self.b.warp(WarpOp::Move { to: *to, from: *from });
                }
            }
            Work::Fold { out, op: _, from, carried, over, spare, identity: _, row, scale } if !scale.is_empty() => {
                // The largest scaled value is the scaled largest value, or smallest where the scale is negative.
                let c = self.scale(form, scale)?;
                let fill = self.fill_value(c);
                let zero = self.b.real(0.0);
                let positive = self.b.le(zero, c);
                let mut gate = self.b.begin_if(positive);
                let fold = |op: ScalarOp| move |from: FragId| WarpOp::Fold { out: *out, op, from, carried: None };
                self.inside(form, *from, *spare, [*row, *over], fill, instance, &fold(ScalarOp::Max))?;
                self.b.begin_else(&mut gate);
                self.inside(form, *from, *spare, [*row, *over], fill, instance, &fold(ScalarOp::Min))?;
                self.b.end_if(gate);
                let carried = *carried;
                let region = self.region(form, &[*row], Some(*out), &[], &mut |l, _, v| vec![l.b.mul(v[0], c)])?;
                self.b.warp(WarpOp::Each { out: *out, region });
                if let Some(carried) = carried {
                    let mut region = self.region(form, &[*row], Some(*out), &[], &mut |_, _, v| v.to_vec())?;
                    let old = self.b.param(DType::Real);
                    self.b.begin_body();
                    let larger = self.b.max(old, region.results[0]);
                    region.body.extend(self.b.end_body());
                    region.reads.push((old, carried));
                    region.results = vec![larger];
                    self.b.warp(WarpOp::Each { out: *out, region });
                }
            }
            Work::Fold { out, op, from, carried, over, spare, identity, row, .. } => {
                let identity = self.b.real(*identity);
                let fold = |from: FragId| WarpOp::Fold { out: *out, op: *op, from, carried: *carried };
                self.inside(form, *from, *spare, [*row, *over], identity, instance, &fold)?;
            }
            Work::Pack { out, from, over, spare, row } => {
                let zero = self.b.real(0.0);
                let pack = |from: FragId| WarpOp::Pack { out: *out, from };
                self.inside(form, *from, *spare, [*row, *over], zero, instance, &pack)?;
            }
            Work::Store { buffer, index, dims, expr } => {
                let last = index.last().copied();
                let col = dims.iter().copied().find(|d| *d != form.row);
                let pairs = col.is_some_and(|c| {
                    matches!(self.k.dim(c).kind, DimKind::Whole { .. }) && last.is_some_and(|l| *self.k.expr(l) == Expr::Pos(c))
                });
                let layout = match col {
                    None => Layout::Row,
                    Some(c) => Layout::Acc { cols: self.k.dim(c).kind.capacity() },
                };
                let mut exprs = index.clone();
                exprs.push(*expr);
                let id = self.buffers[buffer];
                let (dims, buffer) = (dims.clone(), *buffer);
                let region = self.region(form, &dims, None, &exprs, &mut |l, element, v| {
                    let mut cond = l.b.boolean(true);
                    for d in &dims {
                        if let (Some(offset), Ok(bounds)) = (element.offset.get(d).copied(), l.bounds(*d)) {
                            let n = l.b.sub(bounds.stop, bounds.start);
                            let inside = l.b.lt(offset, n);
                            if !matches!(l.k.dim(*d).kind, DimKind::Whole { .. }) {
                                cond = l.b.and(cond, inside);
                            }
                        }
                    }
                    let at = l.linear(buffer, &v[..v.len() - 1]);
                    vec![cond, at, v[v.len() - 1]]
                })?;
                self.b.warp(WarpOp::Put { buffer: id, layout, region, pairs });
            }
        }
        Ok(())
    }

    /// An op on the fragment, with `identity` in the columns past the end of the block. Whole blocks take a way without copies: the fragment
    /// is read again later, so a masked copy beside it would double its registers.
    #[allow(clippy::too_many_arguments)]
    fn inside(&mut self, form: &Form, from: FragId, spare: FragId, dims: [DimId; 2], identity: Value, instance: Option<Instance>, op: &dyn Fn(FragId) -> WarpOp) -> Result<(), String> {
        let Some(instance) = instance.filter(|_| matches!(self.k.dim(dims[1]).kind, DimKind::Loop { .. })) else {
            self.b.warp(op(from));
            return Ok(());
        };
        let mut gate = self.b.begin_if(instance.ragged);
        let region = self.region(form, &dims, Some(from), &[], &mut |l, element, v| {
            let offset = element.offset.get(&dims[1]).copied().unwrap_or(v[0]);
            let n = l.b.sub(instance.bounds.stop, instance.bounds.start);
            let ok = l.b.lt(offset, n);
            vec![l.b.select(ok, v[0], identity)]
        })?;
        self.b.warp(WarpOp::Each { out: spare, region });
        self.b.warp(op(spare));
        self.b.begin_else(&mut gate);
        self.b.warp(op(from));
        self.b.end_if(gate);
        Ok(())
    }
}
