//! Finds everything that is wrong with a kernel: definitions, types, places, and control flow around barriers and tile calls.
//!
//! Control flow may not differ between lanes where lanes must meet. A value may differ between lanes when it comes from `Lane`, from
//! an op on such a value, from a load at such an index, or around a loop whose bounds differ. A load at an index that is the same
//! for all lanes is the same for all lanes, because a kernel without races loads the same element.

use super::ir::*;
use super::warp::*;
use crate::ops::{DType, Scalar, ScalarOp};

/// All broken invariants, in the order of the text; empty when the kernel is fit for every backend.
pub fn verify(kernel: &Kernel) -> Vec<String> {
    let n = kernel.types.len();
    let mut v = Verifier { kernel, defined: vec![false; n], visible: vec![false; n], differs: vec![false; n], faults: vec![] };
    if kernel.lanes == 0 {
        v.fault("a block has no lanes");
    }
    for (i, ty) in kernel.types.iter().enumerate() {
        if *ty == DType::Complex {
            v.fault(format!("%{i} is complex"));
        }
    }
    for (name, ty) in kernel.buffers.iter().map(|b| (&b.name, b.ty)).chain(kernel.locals.iter().map(|l| (&l.name, l.ty))) {
        if ty == DType::Complex {
            v.fault(format!("array `{name}` is complex"));
        }
    }
    if kernel.lanes > 1 {
        while v.spread(&kernel.body) {}
    }
    v.block(&kernel.body, false);
    v.faults
}

struct Verifier<'a> {
    kernel: &'a Kernel,
    defined: Vec<bool>,
    visible: Vec<bool>,
    /// May differ between lanes.
    differs: Vec<bool>,
    faults: Vec<String>,
}

impl Verifier<'_> {
    fn fault(&mut self, what: impl Into<String>) {
        self.faults.push(what.into());
    }

    fn ty(&self, v: Value) -> Option<DType> {
        self.kernel.types.get(v.0 as usize).copied()
    }

    fn is_differing(&self, v: Value) -> bool {
        self.differs.get(v.0 as usize).copied().unwrap_or(false)
    }

    /// One walk of the dataflow; true when some value was newly found to differ.
    fn spread(&mut self, body: &[Stmt]) -> bool {
        let mut changed = false;
        let mut set = |differs: &mut Vec<bool>, v: Value, on: bool| {
            if let Some(d) = differs.get_mut(v.0 as usize).filter(|d| on && !**d) {
                *d = true;
                changed = true;
            }
        };
        let mut inner = false;
        for stmt in body {
            match stmt {
                Stmt::Let(v, inst) => {
                    let on = matches!(inst, Inst::Lane) || inst.operands().into_iter().any(|o| self.is_differing(o));
                    set(&mut self.differs, *v, on);
                }
                Stmt::For { var, lo, hi, step, carries, body } => {
                    let trips = [*lo, *hi, *step].into_iter().any(|o| self.is_differing(o));
                    set(&mut self.differs, *var, trips);
                    for c in carries {
                        let on = trips || self.is_differing(c.init) || self.is_differing(c.next);
                        set(&mut self.differs, c.param, on);
                        set(&mut self.differs, c.result, on);
                    }
                    inner |= self.spread(body);
                }
                Stmt::If { then, other, .. } => {
                    inner |= self.spread(then);
                    inner |= self.spread(other);
                }
                Stmt::Store { .. } | Stmt::Barrier | Stmt::Tile(_) => {}
                Stmt::Warp(op) => {
                    for body in op.bodies() {
                        inner |= self.spread(body);
                    }
                }
            }
        }
        changed || inner
    }

    fn define(&mut self, v: Value, at: &str) {
        let Some(known) = self.defined.get(v.0 as usize).copied() else {
            return self.fault(format!("{v} in {at} has no type"));
        };
        if known {
            self.fault(format!("{v} is defined twice, again in {at}"));
        }
        self.defined[v.0 as usize] = true;
        self.visible[v.0 as usize] = true;
    }

    /// Checks that a value is visible and has a type.
    fn read(&mut self, v: Value, want: Option<DType>, at: &str) {
        match self.ty(v) {
            None => return self.fault(format!("{v} in {at} has no type")),
            Some(ty) => {
                if let Some(want) = want.filter(|w| *w != ty) {
                    self.fault(format!("{v} in {at} is {}, not {}", ty.name(), want.name()));
                }
            }
        }
        if !self.visible[v.0 as usize] {
            self.fault(format!("{v} in {at} is not defined there"));
        }
    }

    /// Type of the elements and whether the array may be stored to; `None` when there is no such array.
    fn array(&mut self, base: Base, at: &str) -> Option<(DType, bool)> {
        let found = match base {
            Base::Buffer(b) => self.kernel.buffers.get(b.0 as usize).map(|b| (b.ty, b.written)),
            Base::Local(l) => self.kernel.locals.get(l.0 as usize).map(|l| (l.ty, true)),
        };
        if found.is_none() {
            self.fault(format!("{at} names an array that does not exist: {base:?}"));
        }
        found
    }

    fn hide(&mut self, body: &[Stmt]) {
        for stmt in body {
            match stmt {
                Stmt::Let(v, _) => self.conceal(*v),
                Stmt::For { carries, .. } => carries.iter().for_each(|c| self.conceal(c.result)),
                Stmt::If { .. } | Stmt::Store { .. } | Stmt::Barrier | Stmt::Tile(_) | Stmt::Warp(_) => {}
            }
        }
    }

    fn conceal(&mut self, v: Value) {
        if let Some(x) = self.visible.get_mut(v.0 as usize) {
            *x = false;
        }
    }

    /// `split`: lanes may take different ways around this block.
    fn block(&mut self, body: &[Stmt], split: bool) {
        for stmt in body {
            match stmt {
                Stmt::Let(v, inst) => self.inst(*v, inst),
                Stmt::Store { base, index, value } => {
                    let at = "a store";
                    self.read(*index, Some(DType::Int), at);
                    let array = self.array(*base, at);
                    self.read(*value, array.map(|a| a.0), at);
                    if array.is_some_and(|a| !a.1) {
                        self.fault(format!("a store to {base:?}, which is not marked as written"));
                    }
                }
                Stmt::For { var, lo, hi, step, carries, body } => {
                    [*lo, *hi, *step].into_iter().for_each(|v| self.read(v, Some(DType::Int), "the bounds of a loop"));
                    let split = split || [*lo, *hi, *step].into_iter().any(|v| self.is_differing(v));
                    self.define(*var, "a loop");
                    if self.ty(*var).is_some_and(|t| t != DType::Int) {
                        self.fault(format!("loop variable {var} is not int"));
                    }
                    for c in carries {
                        self.read(c.init, self.ty(c.param), "a carry");
                    }
                    carries.iter().for_each(|c| self.define(c.param, "a carry"));
                    self.block(body, split);
                    for c in carries {
                        self.read(c.next, self.ty(c.param), "a carry");
                    }
                    self.hide(body);
                    self.conceal(*var);
                    carries.iter().for_each(|c| self.conceal(c.param));
                    for c in carries {
                        self.define(c.result, "a carry");
                        if self.ty(c.result) != self.ty(c.param) {
                            self.fault(format!("{} and {} of a carry have two types", c.param, c.result));
                        }
                    }
                }
                Stmt::If { cond, then, other } => {
                    self.read(*cond, Some(DType::Bool), "a condition");
                    let split = split || self.is_differing(*cond);
                    for arm in [then, other] {
                        self.block(arm, split);
                        self.hide(arm);
                    }
                }
                Stmt::Barrier => {
                    if split {
                        self.fault("a barrier that not all lanes may reach");
                    }
                }
                Stmt::Warp(op) => {
                    if split {
                        self.fault(format!("`{}` that not all lanes may reach", op.name()));
                    }
                    self.warp(op);
                }
                Stmt::Tile(call) => {
                    if split {
                        self.fault(format!("a tile call `{}` that not all lanes may reach", call.name()));
                    }
                    self.tile(call);
                }
            }
        }
    }

    fn inst(&mut self, v: Value, inst: &Inst) {
        let want = match inst {
            Inst::Const(Scalar::Complex(..)) => Some(DType::Complex),
            Inst::Const(s) => Some(s.dtype()),
            Inst::IntArg(i) => (*i as usize).lt(&self.kernel.ints.len()).then_some(DType::Int),
            Inst::RealArg(i) => (*i as usize).lt(&self.kernel.reals.len()).then_some(DType::Real),
            Inst::Block | Inst::Lane => Some(DType::Int),
            Inst::Op { op, args } => {
                args.iter().for_each(|a| self.read(*a, None, op.name()));
                let types: Option<Vec<DType>> = args.iter().map(|a| self.ty(*a)).collect();
                types.and_then(|t| op.result(&t))
            }
            Inst::Load { base, index } => {
                self.read(*index, Some(DType::Int), "a load");
                self.array(*base, "a load").map(|a| a.0)
            }
        };
        match (want, self.ty(v)) {
            (None, _) => self.fault(format!("{v} has no meaning: {inst:?}")),
            (Some(want), Some(ty)) if want != ty => self.fault(format!("{v} is {}, but its instruction gives {}", ty.name(), want.name())),
            (Some(_), _) => {}
        }
        self.define(v, "a let");
    }

    fn warp(&mut self, op: &WarpOp) {
        let at = op.name();
        let Some(warps) = &self.kernel.warps else { return self.fault(format!("`{at}` in a kernel without roles")) };
        op.operands().into_iter().for_each(|v| self.read(v, Some(DType::Int), at));
        if op.operands().into_iter().any(|v| self.is_differing(v)) {
            self.fault(format!("an operand of `{at}` may differ between lanes"));
        }
        let layout = |f: FragId| warps.fragment(f).map(|f| f.layout);
        let ring = |r: RingId| warps.rings.get(r.0 as usize);
        let fits = match op {
            WarpOp::Roles { .. } | WarpOp::Work { .. } => true,
            WarpOp::Copy { ring: r, map, at } => match (ring(*r), warps.maps.get(map.0 as usize)) {
                (Some(r), Some(m)) => m.block.len() == at.len() && (2..=5).contains(&at.len()) && m.block.iter().product::<u32>() == r.rows * 64,
                _ => false,
            },
            WarpOp::Take(r) | WarpOp::Drop(r) => ring(*r).is_some_and(|r| r.rows % 8 == 0),
            WarpOp::Mma { acc, a, b, turned, k, .. } => match (layout(*acc), ring(*b)) {
                (Some(Layout::Acc { cols }), Some(r)) => {
                    let n = cols % 8 == 0 && (8..=256).contains(&cols) && if *turned { cols <= r.cols.next_multiple_of(8) } else { cols == r.rows };
                    let reduced = |have: u32| *k > 0 && k % 16 == 0 && *k <= have.next_multiple_of(16);
                    let a = match a {
                        Operand::View(v) => ring(*v).is_some_and(|v| v.rows == warps.math * GROUP_ROWS && v.storage == r.storage && reduced(v.cols)),
                        Operand::Frag(f) => matches!(layout(*f), Some(Layout::Pairs { cols, storage }) if storage == r.storage && reduced(cols)),
                    };
                    n && a && reduced(if *turned { r.rows } else { r.cols })
                }
                _ => false,
            },
            WarpOp::Wait { results, .. } => results.iter().all(|f| matches!(layout(*f), Some(Layout::Acc { .. }))),
            WarpOp::Turn { .. } => warps.turns,
            WarpOp::Each { out, region } => {
                let ok = |f: FragId| layout(f) == layout(*out) || layout(f) == Some(Layout::Row);
                matches!(layout(*out), Some(Layout::Acc { .. } | Layout::Row)) && region.results.len() == 1 && region.reads.iter().all(|r| ok(r.1))
            }
            WarpOp::Move { to, from } => layout(*to).is_some() && layout(*to) == layout(*from),
            WarpOp::Fold { out, from, carried, .. } => {
                layout(*out) == Some(Layout::Row) && matches!(layout(*from), Some(Layout::Acc { .. })) && carried.is_none_or(|c| layout(c) == Some(Layout::Row))
            }
            WarpOp::Pack { out, from } => match (layout(*out), layout(*from)) {
                (Some(Layout::Pairs { cols, .. }), Some(Layout::Acc { cols: other })) => cols == other,
                _ => false,
            },
            WarpOp::Put { buffer, layout: l, region, .. } => {
                let written = self.kernel.buffers.get(buffer.0 as usize).is_some_and(|b| b.written);
                let ok = |f: FragId| layout(f) == Some(*l) || layout(f) == Some(Layout::Row);
                written && region.results.len() == 3 && region.reads.iter().all(|r| ok(r.1))
            }
        };
        if !fits {
            self.fault(format!("the operands of `{at}` do not fit each other"));
        }
        let (params, results): (Vec<Value>, Vec<Value>) = (op.params(), op.results().to_vec());
        params.iter().for_each(|v| self.define(*v, at));
        for body in op.bodies() {
            if op.region().is_some() && body.iter().any(|s| !matches!(s, Stmt::Let(..))) {
                self.fault(format!("a region of `{at}` holds more than lets"));
            }
            self.block(body, false);
            results.iter().for_each(|v| self.read(*v, None, at));
            self.hide(body);
        }
        params.iter().for_each(|v| self.conceal(*v));
    }

    fn tile(&mut self, call: &TileCall) {
        let at = call.name();
        call.ints().into_iter().for_each(|(_, v)| self.read(v, Some(DType::Int), at));
        call.reals().into_iter().for_each(|(_, v)| self.read(v, Some(DType::Real), at));
        for (name, place) in call.places() {
            self.read(place.offset, Some(DType::Int), at);
            let holds = self.array(place.base, at);
            let storage = match place.base {
                Base::Buffer(b) => self.kernel.buffers.get(b.0 as usize).map_or(Storage::F32, |b| b.storage),
                Base::Local(_) => Storage::F32,
            };
            let operand = matches!((call, name), (TileCall::Dot { .. }, "a" | "b")) && matches!(storage, Storage::Bf16 | Storage::F16);
            if let TileCall::Order { kind, .. } = call {
                let result = if *kind == OrderKind::Largest { DType::Bool } else { DType::Int };
                let sound = holds.is_none_or(|h| match name {
                    "mask" => h.0 == DType::Bool,
                    "out" => h.0 == result,
                    _ => *kind != OrderKind::Members || h.0 == DType::Bool,
                });
                if !sound {
                    self.fault(format!("place `{name}` of `{at}` has the wrong type"));
                }
            } else if holds.is_some_and(|h| h.0 != DType::Real) || (storage != Storage::F32 && !operand) {
                self.fault(format!("place `{name}` of `{at}` does not hold f32"));
            }
        }
        for place in call.outputs() {
            if let Base::Buffer(b) = place.base
                && self.kernel.buffers.get(b.0 as usize).is_some_and(|b| !b.written)
            {
                self.fault(format!("`{at}` stores to {b:?}, which is not marked as written"));
            }
        }
        if call.operands().into_iter().any(|v| self.is_differing(v)) {
            self.fault(format!("an operand of `{at}` may differ between lanes"));
        }
        let reals = |op: ScalarOp| op.result(&vec![DType::Real; op.arity()]) == Some(DType::Real);
        match call {
            TileCall::Unary { op, .. } if op.arity() != 1 || !reals(*op) => self.fault(format!("`{}` is no unary op of reals", op.name())),
            TileCall::Binary { op, a_step, b_step, .. } => {
                if op.arity() != 2 || !reals(*op) {
                    self.fault(format!("`{}` is no binary op of reals", op.name()));
                }
                if *a_step > 1 || *b_step > 1 {
                    self.fault("steps of a binary tile call are 0 or 1");
                }
            }
            TileCall::Order { kind: OrderKind::Members, mask: Some(_), .. } => self.fault("members are listed without a mask"),
            TileCall::Dot { .. } | TileCall::Unary { .. } | TileCall::Order { .. } => {}
            TileCall::ExpRows { .. } | TileCall::MaxRows { .. } | TileCall::SumRows { .. } | TileCall::ScaleRows { .. } | TileCall::Solve { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::KernelBuilder;

    fn faults(lanes: u32, build: impl FnOnce(&mut KernelBuilder)) -> Vec<String> {
        let mut b = KernelBuilder::new("k", lanes);
        build(&mut b);
        verify(&b.finish())
    }

    #[test]
    fn barriers_under_lane_dependent_control_are_found() {
        let split = |b: &mut KernelBuilder| {
            let (lane, n) = (b.lane(), b.int_arg("n"));
            let cond = b.lt(lane, n);
            b.if_then(cond, |b| b.barrier());
        };
        assert_eq!(faults(8, split), ["a barrier that not all lanes may reach"]);
        assert!(faults(1, split).is_empty());
        let uniform = |b: &mut KernelBuilder| {
            let (block, n) = (b.block(), b.int_arg("n"));
            let cond = b.lt(block, n);
            b.if_then(cond, |b| b.barrier());
        };
        assert!(faults(8, uniform).is_empty());
    }

    #[test]
    fn a_loop_carries_the_difference_between_lanes() {
        let found = faults(4, |b| {
            let (zero, one, n, lane) = (b.int(0), b.int(1), b.int_arg("n"), b.lane());
            let out = b.for_loop(zero, n, one, &[zero], |b, _, p| vec![b.add(p[0], lane)]);
            b.for_loop(zero, out[0], one, &[], |b, _, _| {
                b.barrier();
                vec![]
            });
        });
        assert_eq!(found, ["a barrier that not all lanes may reach"]);
    }

    #[test]
    fn wrong_operands_and_escapes_are_found() {
        let found = faults(1, |b| {
            let out = b.buffer("out", DType::Real, Storage::F32, false);
            let (n, x) = (b.int_arg("n"), b.real_arg("x"));
            let bad = b.op(ScalarOp::Add, &[n, x]);
            b.store(out, bad, x);
            let mut escaped = None;
            b.count(n, |b, i| {
                let y = b.mul(i, i);
                escaped = Some(y);
                b.store(out, y, x);
            });
            if let Some(y) = escaped {
                b.store(out, y, x);
            }
        });
        let text = found.join("\n");
        assert!(text.contains("has no meaning"), "{text}");
        assert!(text.contains("not marked as written"), "{text}");
        assert!(text.contains("is not defined there"), "{text}");
    }
}
