//! Kernels with roles (`kernel::warp`). Fragments are stack slots, one a register, which LLVM turns into registers; a ring is its slots, two
//! barriers a slot (full: one arrival and the bytes of the copies; empty: one arrival of each math warp) and a cursor in each role.

use super::address;
use super::lane::Value as Llvm;
use super::lower::Lower;
use crate::EmitError;
use crate::expand::{self, Binary, Lane};
use attnc_compiler::kernel::warp::*;
use attnc_compiler::kernel::{Inst, Stmt, Storage, Value};
use attnc_compiler::ops::{DType, ScalarOp};
use inkwell::AddressSpace;
use inkwell::module::Linkage;
use inkwell::types::BasicTypeEnum;
use inkwell::values::{IntValue, PointerValue};

type Made = Result<(), EmitError>;

/// What roles need while their text is written.
pub(super) struct State<'c> {
    pub maps: Vec<PointerValue<'c>>,
    rings: Vec<Slots<'c>>,
    fragments: Vec<Vec<PointerValue<'c>>>,
    group: IntValue<'c>,
    /// Rows of this lane in the tile, first column, and whether it is the first of its warp and of its row.
    rows: [Llvm<'c>; 2],
    col: IntValue<'c>,
    /// The first column again, in a form that LLVM cannot move: columns are computed where they are used instead of being kept in registers.
    pinned: IntValue<'c>,
    first: Llvm<'c>,
    first_of_row: Llvm<'c>,
    blocks: IntValue<'c>,
}

#[derive(Clone, Copy)]
struct Slots<'c> {
    stage: PointerValue<'c>,
    phase: PointerValue<'c>,
    full: IntValue<'c>,
    empty: IntValue<'c>,
    data: IntValue<'c>,
}

fn half(storage: Storage) -> &'static str {
    if storage == Storage::F16 { "f16" } else { "bf16" }
}

impl<'c> Lower<'c, '_, '_> {
    fn warps(&self) -> Result<&Warps, EmitError> {
        self.kernel.warps.as_deref().ok_or_else(|| self.broken("a kernel without roles"))
    }

    fn state(&self) -> Result<&State<'c>, EmitError> {
        self.roles.as_ref().ok_or_else(|| self.broken("an op outside of roles"))
    }

    /// An alloca of an int with this start.
    fn counter(&mut self) -> Result<PointerValue<'c>, EmitError> {
        let zero = self.w.int.const_zero();
        self.slot(self.w.int.into(), zero.into())
    }

    /// Block memory, barriers and what lanes know of themselves.
    pub(super) fn open_roles(&mut self, maps: Vec<PointerValue<'c>>) -> Made {
        let warps = self.warps()?.clone();
        let base = self.w.module.get_global("attnc_block").unwrap_or_else(|| {
            let ty = self.w.context.i8_type().array_type(0);
            let global = self.w.module.add_global(ty, Some(AddressSpace::from(3u16)), "attnc_block");
            global.set_linkage(Linkage::External);
            global.set_alignment(1024);
            global
        });
        let made = self.w.builder.build_ptr_to_int(base.as_pointer_value(), self.w.int, "");
        let base = self.w.done(made, self.w.int.get_undef());
        let up = self.w.plus(base, self.w.word(1023));
        let made = self.w.builder.build_and(up, self.w.word(!1023u32 as u64), "");
        let mut at = self.w.done(made, up);
        let mut data = vec![];
        for r in &warps.rings {
            data.push(at);
            at = self.w.plus(at, self.w.word(u64::from(r.slots * r.slot_bytes())));
        }
        let mut rings = vec![];
        for (r, data) in warps.rings.iter().zip(data) {
            let (stage, phase) = (self.counter()?, self.counter()?);
            let empty = self.w.plus(at, self.w.word(u64::from(8 * r.slots)));
            rings.push(Slots { stage, phase, full: at, empty, data });
            at = self.w.plus(empty, self.w.word(u64::from(8 * r.slots)));
        }
        let lane = self.w.i(self.lane);
        let zero = self.w.int.const_zero();
        let one = self.w.binary(Binary::IEq, lane.into(), zero.into());
        let (yes, after) = (self.fresh("prepare"), self.fresh("ready"));
        self.branch(one, yes, after)?;
        self.w.builder.position_at_end(yes);
        for (r, slots) in warps.rings.iter().zip(&rings) {
            for i in 0..r.slots {
                let (full, empty) = (self.w.plus(slots.full, self.w.word(u64::from(8 * i))), self.w.plus(slots.empty, self.w.word(u64::from(8 * i))));
                self.w.barrier_init(full, 1);
                self.w.barrier_init(empty, u64::from(4 * warps.math));
            }
        }
        self.w.barriers_ready();
        maps.iter().for_each(|m| self.w.prefetch_map(*m));
        self.go(after)?;
        self.w.builder.position_at_end(after);
        self.w.block_barrier();

        let part = |l: &mut Self, shift: u64, mask: u64| {
            let made = l.w.builder.build_right_shift(lane, l.w.word(shift), false, "");
            let x = l.w.done(made, lane);
            let made = l.w.builder.build_and(x, l.w.word(mask), "");
            l.w.done(made, x)
        };
        let group = part(self, 7, 15);
        let group = self.w.same(group);
        let math = self.w.plus(group, self.w.word(u64::from(u32::MAX)));
        let (warp, quad, in_quad, in_warp) = (part(self, 5, 3), part(self, 2, 7), part(self, 0, 3), part(self, 0, 31));
        let rows = self.w.times(math, u64::from(GROUP_ROWS));
        let rows16 = self.w.times(warp, 16);
        let row = self.w.plus(rows, rows16);
        let row = self.w.plus(row, quad);
        let below = self.w.plus(row, self.w.word(8));
        let col = self.w.times(in_quad, 2);
        let first = self.w.binary(Binary::IEq, in_warp.into(), zero.into());
        let first_of_row = self.w.binary(Binary::IEq, in_quad.into(), zero.into());
        let mut fragments = vec![];
        for f in &warps.fragments {
            let pairs = matches!(f.layout, Layout::Pairs { .. });
            let mut slots = vec![];
            for _ in 0..f.layout.registers() {
                let ty: BasicTypeEnum<'c> = if pairs { self.w.int.into() } else { self.w.real.into() };
                slots.push(self.slots.build_alloca(ty, "").map_err(|e| self.broken(e))?);
            }
            fragments.push(slots);
        }
        let blocks = self.w.intrinsic("llvm.nvvm.read.ptx.sreg.nctaid.x", &[], &[]).ok_or_else(|| self.broken("grid"))?;
        let blocks = self.w.i(blocks);
        self.roles = Some(State { maps, rings, fragments, group, rows: [row.into(), below.into()], col, pinned: col, first, first_of_row, blocks });
        Ok(())
    }

    fn slots_of(&self, ring: RingId) -> Result<(Slots<'c>, Ring), EmitError> {
        let found = self.state()?.rings.get(ring.0 as usize).copied().zip(self.warps()?.rings.get(ring.0 as usize).cloned());
        found.ok_or_else(|| self.broken("a ring does not exist"))
    }

    fn now(&mut self, slot: PointerValue<'c>) -> Result<IntValue<'c>, EmitError> {
        let v = self.load(self.w.int.into(), slot)?;
        Ok(self.w.i(v))
    }

    fn advance(&mut self, s: Slots<'c>, ring: &Ring) -> Made {
        let (stage, phase) = (self.now(s.stage)?, self.now(s.phase)?);
        let next = self.w.plus(stage, self.w.word(1));
        let wraps = self.w.binary(Binary::IEq, next.into(), self.w.word(u64::from(ring.slots)).into());
        let zero = self.w.int.const_zero();
        let other = self.w.binary(Binary::IXor, phase.into(), self.w.word(1).into());
        let stage = self.w.select(wraps, zero.into(), next.into());
        let phase = self.w.select(wraps, other, phase.into());
        self.w.builder.build_store(s.stage, stage).map_err(|e| self.broken(e))?;
        self.w.builder.build_store(s.phase, phase).map_err(|e| self.broken(e))?;
        Ok(())
    }

    /// The barrier of the cursor's slot in a list of barriers.
    fn barrier_at(&mut self, list: IntValue<'c>, s: Slots<'c>) -> Result<IntValue<'c>, EmitError> {
        let stage = self.now(s.stage)?;
        let offset = self.w.times(stage, 8);
        Ok(self.w.plus(list, offset))
    }

    fn data_at(&mut self, s: Slots<'c>, ring: &Ring) -> Result<IntValue<'c>, EmitError> {
        let stage = self.now(s.stage)?;
        let offset = self.w.times(stage, u64::from(ring.slot_bytes()));
        Ok(self.w.plus(s.data, offset))
    }

    fn await_phase(&mut self, barrier: IntValue<'c>, parity: IntValue<'c>) -> Made {
        let (spin, after) = (self.fresh("spin"), self.fresh("there"));
        self.go(spin)?;
        self.w.builder.position_at_end(spin);
        let over = self.w.try_wait(barrier, parity);
        self.branch(over, after, spin)?;
        self.w.builder.position_at_end(after);
        Ok(())
    }

    fn values_of(&mut self, f: FragId) -> Result<Vec<Llvm<'c>>, EmitError> {
        let slots = self.state()?.fragments.get(f.0 as usize).cloned().unwrap_or_default();
        let pairs = matches!(self.warps()?.fragment(f).map(|f| f.layout), Some(Layout::Pairs { .. }));
        let ty: BasicTypeEnum<'c> = if pairs { self.w.int.into() } else { self.w.real.into() };
        slots.into_iter().map(|s| self.load(ty, s)).collect()
    }

    fn set_values(&mut self, f: FragId, values: &[Llvm<'c>]) -> Made {
        let slots = self.state()?.fragments.get(f.0 as usize).cloned().unwrap_or_default();
        for (slot, v) in slots.into_iter().zip(values) {
            self.w.builder.build_store(slot, *v).map_err(|e| self.broken(e))?;
        }
        Ok(())
    }

    pub(super) fn warp_op(&mut self, op: &WarpOp) -> Made {
        match op {
            WarpOp::Roles { copy, math } => self.both(copy, math),
            WarpOp::Work { var, count, body } => {
                let count = self.get(*count)?;
                let counter = self.slot(self.w.int.into(), self.block)?;
                let (head, inside, after) = (self.fresh("work"), self.fresh("piece"), self.fresh("done"));
                self.go(head)?;
                self.w.builder.position_at_end(head);
                let now = self.load(self.w.int.into(), counter)?;
                let more = self.w.binary(Binary::ILt, now, count);
                self.branch(more, inside, after)?;
                self.w.builder.position_at_end(inside);
                self.set(*var, now);
                self.stmts(body)?;
                let step = self.state()?.blocks;
                let next = self.w.binary(Binary::IAdd, now, step.into());
                self.w.builder.build_store(counter, next).map_err(|e| self.broken(e))?;
                self.go(head)?;
                self.w.builder.position_at_end(after);
                Ok(())
            }
            WarpOp::Copy { ring, map, at } => {
                let (s, r) = self.slots_of(*ring)?;
                let (barrier, phase) = (self.barrier_at(s.empty, s)?, self.now(s.phase)?);
                let parity = self.w.binary(Binary::IXor, phase.into(), self.w.word(1).into());
                let parity = self.w.i(parity);
                self.await_phase(barrier, parity)?;
                let full = self.barrier_at(s.full, s)?;
                self.w.expect(full, u64::from(r.slot_bytes()));
                let to = self.data_at(s, &r)?;
                let map = self.state()?.maps.get(map.0 as usize).copied().ok_or_else(|| self.broken("a map does not exist"))?;
                let mut position = vec![];
                for v in at.iter().rev().skip(1) {
                    let v = self.get(*v)?;
                    position.push(self.w.i(v));
                }
                for panel in 0..r.panels() {
                    let mut place = vec![self.w.word(u64::from(64 * panel))];
                    place.extend(&position);
                    let to = self.w.plus(to, self.w.word(u64::from(panel * r.rows * 128)));
                    self.w.tensor_copy(to, full, map, &place);
                }
                self.advance(s, &r)
            }
            WarpOp::Take(ring) => {
                let (s, _) = self.slots_of(*ring)?;
                let (barrier, parity) = (self.barrier_at(s.full, s)?, self.now(s.phase)?);
                self.await_phase(barrier, parity)
            }
            WarpOp::Drop(ring) => {
                let (s, r) = self.slots_of(*ring)?;
                let barrier = self.barrier_at(s.empty, s)?;
                let first = self.state()?.first;
                let (yes, after) = (self.fresh("give"), self.fresh("given"));
                self.branch(first, yes, after)?;
                self.w.builder.position_at_end(yes);
                self.w.arrive(barrier);
                self.go(after)?;
                self.w.builder.position_at_end(after);
                self.advance(s, &r)
            }
            WarpOp::Mma { acc, fresh, a, b, turned, k } => self.mma(*acc, *fresh, *a, *b, *turned, *k),
            WarpOp::Wait { younger, results } => {
                let mut values = vec![];
                for f in results {
                    values.extend(self.values_of(*f)?);
                }
                let values = self.w.tied(&format!("wgmma.wait_group.sync.aligned {younger};"), &values);
                let mut rest = &values[..];
                for f in results {
                    let n = self.state()?.fragments[f.0 as usize].len();
                    self.set_values(*f, &rest[..n])?;
                    rest = &rest[n..];
                }
                Ok(())
            }
            WarpOp::Turn { pass } => {
                let (group, math) = (self.state()?.group, self.warps()?.math);
                if !*pass {
                    self.w.pair_barrier(true, group);
                    return Ok(());
                }
                let next = self.w.plus(group, self.w.word(1));
                let last = self.w.binary(Binary::IEq, group.into(), self.w.word(u64::from(math)).into());
                let next = self.w.select(last, self.w.word(1).into(), next.into());
                let next = self.w.i(next);
                self.w.pair_barrier(false, next);
                Ok(())
            }
            WarpOp::Each { out, region } => {
                let Some(layout) = self.warps()?.fragment(*out).map(|f| f.layout) else { return Err(self.broken("a fragment does not exist")) };
                self.pin()?;
                let mut made = vec![];
                for i in 0..layout.registers() {
                    made.push(self.at_register(region, layout, i)?[0]);
                }
                self.set_values(*out, &made)
            }
            WarpOp::Move { to, from } => {
                let values = self.values_of(*from)?;
                self.set_values(*to, &values)
            }
            WarpOp::Fold { out, op, from, carried } => {
                let values = self.values_of(*from)?;
                let start = carried.map(|c| self.values_of(c)).transpose()?;
                let combine = |l: &mut Self, a, b| expand::expand(&mut l.w, *op, DType::Real, &[a, b]).unwrap_or(a);
                let mut made = vec![];
                for h in 0..2usize {
                    // Two chains, for the latency of one.
                    let row: Vec<Llvm<'c>> = values.chunks(4).flat_map(|c| [c[2 * h], c[2 * h + 1]]).collect();
                    let mut chains = [row[0], row[1]];
                    for (i, v) in row.iter().enumerate().skip(2) {
                        chains[i % 2] = combine(self, chains[i % 2], *v);
                    }
                    made.push(combine(self, chains[0], chains[1]));
                }
                for distance in [1, 2] {
                    for value in &mut made {
                        let other = self.w.butterfly(*value, distance);
                        *value = combine(self, *value, other);
                    }
                }
                if let Some(start) = start {
                    for (value, s) in made.iter_mut().zip(start) {
                        *value = combine(self, s, *value);
                    }
                }
                self.set_values(*out, &made)
            }
            WarpOp::Pack { out, from } => {
                let Some(Layout::Pairs { storage, .. }) = self.warps()?.fragment(*out).map(|f| f.layout) else { return Err(self.broken("no pairs")) };
                let values = self.values_of(*from)?;
                let packed: Vec<Llvm<'c>> = values.chunks(2).map(|c| self.w.pair(half(storage), c[0], c[1])).collect();
                self.set_values(*out, &packed)
            }
            WarpOp::Put { buffer, layout, region, pairs } => self.put(buffer.0 as usize, *layout, region, *pairs),
        }
    }

    fn both(&mut self, copy: &[Stmt], math: &[Stmt]) -> Made {
        let registers = self.warps()?.registers;
        let group = self.state()?.group;
        let zero = self.w.int.const_zero();
        let copies = self.w.binary(Binary::IEq, group.into(), zero.into());
        let (first, other, exit) = (self.fresh("copy"), self.fresh("math"), self.fresh("exit"));
        self.branch(copies, first, other)?;
        self.w.builder.position_at_end(first);
        self.w.set_registers(false, registers.0);
        let alone = self.w.binary(Binary::IEq, self.lane, zero.into());
        let one = self.fresh("one");
        self.branch(alone, one, exit)?;
        self.w.builder.position_at_end(one);
        self.stmts(copy)?;
        self.go(exit)?;
        self.w.builder.position_at_end(other);
        self.w.set_registers(true, registers.1);
        if self.warps()?.turns {
            // The first turn is the first group's.
            let last = self.w.word(u64::from(self.warps()?.math));
            let mine = self.w.binary(Binary::IEq, group.into(), last.into());
            let (yes, after) = (self.fresh("hand"), self.fresh("start"));
            self.branch(mine, yes, after)?;
            self.w.builder.position_at_end(yes);
            let one = self.w.word(1);
            self.w.pair_barrier(false, one);
            self.go(after)?;
            self.w.builder.position_at_end(after);
        }
        self.stmts(math)?;
        self.go(exit)?;
        self.w.builder.position_at_end(exit);
        Ok(())
    }

    fn mma(&mut self, acc: FragId, fresh: bool, a: Operand, b: RingId, turned: bool, k: u32) -> Made {
        let (right, right_ring) = self.slots_of(b)?;
        let half = half(right_ring.storage);
        let address = self.data_at(right, &right_ring)?;
        let panel = u64::from(right_ring.rows * 128);
        let right = self.w.descriptor(address, if turned && right_ring.panels() > 1 { panel } else { 16 });
        let mut values = self.values_of(acc)?;
        let left = match a {
            Operand::View(r) => {
                let (s, ring) = self.slots_of(r)?;
                let at = self.data_at(s, &ring)?;
                // Rows of this group.
                let group = self.state()?.group;
                let group = self.w.plus(group, self.w.word(u64::from(u32::MAX)));
                let offset = self.w.times(group, u64::from(GROUP_ROWS * 128));
                let at = self.w.plus(at, offset);
                let base = self.w.descriptor(at, 16);
                Err((base, u64::from(ring.rows * 128)))
            }
            Operand::Frag(f) => Ok((f, self.values_of(f)?)),
        };
        // Registers written before this must be written when the product starts to read them.
        let mut tied: Vec<Llvm<'c>> = if fresh { vec![] } else { values.clone() };
        let mut pairs = vec![];
        if let Ok((_, p)) = &left {
            tied.extend(p);
        }
        let after = self.w.tied("wgmma.fence.sync.aligned;", &tied);
        if !fresh {
            values = after[..values.len()].to_vec();
        }
        if let Ok((f, p)) = &left {
            pairs = after[after.len() - p.len()..].to_vec();
            self.set_values(*f, &pairs)?;
        }
        let long = self.w.context.i64_type();
        for step in 0..k / 16 {
            // In units of 16 bytes: 32 bytes along a row within a panel of 64, or 16 rows.
            let within = |panel: u64| u64::from(step / 4) * (panel >> 4) + u64::from(step % 4) * 2;
            let offset = if turned { u64::from(step) * 128 } else { within(panel) };
            let b = self.w.plus(right, long.const_int(offset, false));
            let a: Vec<Llvm<'c>> = match &left {
                Err((base, panel)) => vec![self.w.plus(*base, long.const_int(within(*panel), false)).into()],
                Ok(_) => pairs[4 * step as usize..4 * step as usize + 4].to_vec(),
            };
            values = self.w.product(half, &values, fresh && step == 0, &a, b, turned);
        }
        self.w.commit();
        self.set_values(acc, &values)
    }

    fn pin(&mut self) -> Made {
        let col = self.state()?.col;
        let pinned = self.w.tied_move(col);
        if let Some(state) = &mut self.roles {
            state.pinned = pinned;
        }
        Ok(())
    }

    /// Results of a region for register `i` of a layout.
    fn at_register(&mut self, region: &Region, layout: Layout, i: u32) -> Result<Vec<Llvm<'c>>, EmitError> {
        let (h, offset) = match layout {
            Layout::Acc { .. } => (i >> 1 & 1, i / 4 * 8 + (i & 1)),
            Layout::Row | Layout::Pairs { .. } => (i & 1, 0),
        };
        let (row, col) = (self.state()?.rows[h as usize], self.state()?.pinned);
        self.set(region.row, row);
        let col = self.w.plus(col, self.w.word(u64::from(offset)));
        self.set(region.col, col.into());
        for (v, f) in &region.reads {
            let register = if self.warps()?.fragment(*f).map(|f| f.layout) == Some(Layout::Row) { h } else { i };
            let slot = self.state()?.fragments.get(f.0 as usize).and_then(|s| s.get(register as usize)).copied();
            let slot = slot.ok_or_else(|| self.broken("a fragment is too small"))?;
            let x = self.load(self.w.real.into(), slot)?;
            self.set(*v, x);
        }
        self.region_body(region)?;
        region.results.iter().map(|r| self.get(*r)).collect()
    }

    /// The lets of a region. The exponential of the difference of `x * c` and `m` is one fused operation and one function when `x` is the element:
    /// `c log2 e` and `m log2 e` are the same for a row.
    fn region_body(&mut self, region: &Region) -> Made {
        let mut products: Vec<(Value, Value, Value)> = vec![];
        for s in &region.body {
            if let Stmt::Let(v, Inst::Op { op, args }) = s {
                match (op, &args[..]) {
                    (ScalarOp::Mul, [a, b]) => {
                        let (x, c) = if region.reads.iter().any(|r| r.0 == *a) { (*a, *b) } else { (*b, *a) };
                        products.push((*v, x, c));
                    }
                    (ScalarOp::ExpDiff, [a, m]) => {
                        if let Some((_, x, c)) = products.iter().find(|p| p.0 == *a).copied() {
                            let (x, c, m) = (self.get(x)?, self.get(c)?, self.get(*m)?);
                            let value = self.w.exp_of_scaled(x, Some(c), m);
                            self.set(*v, value);
                            continue;
                        }
                    }
                    _ => {}
                }
            }
            self.stmts(std::slice::from_ref(s))?;
        }
        Ok(())
    }

    fn put(&mut self, buffer: usize, layout: Layout, region: &Region, pairs: bool) -> Made {
        let (start, arg) = match (self.buffers.get(buffer).copied(), self.kernel.buffers.get(buffer)) {
            (Some(p), Some(b)) => (p, b.clone()),
            _ => return Err(self.broken("a buffer does not exist")),
        };
        let base = attnc_compiler::kernel::Base::Buffer(attnc_compiler::kernel::BufferId(buffer as u32));
        let narrow = pairs && matches!(arg.storage, Storage::Bf16 | Storage::F16);
        self.pin()?;
        let by_row = !varies(&region.body, region.col, region.results[0]);
        let registers = layout.registers();
        for h in 0..2 {
            let mine: Vec<u32> = (0..registers).filter(|i| if layout == Layout::Row { *i == h } else { i >> 1 & 1 == h }).collect();
            let after_row = self.fresh("row");
            for (n, i) in mine.iter().copied().enumerate() {
                if narrow && i & 1 == 1 && layout != Layout::Row {
                    continue;
                }
                let after = self.fresh("put");
                if n == 0 || !by_row {
                    let mut cond = self.at_register(region, layout, i)?[0];
                    if layout == Layout::Row {
                        cond = self.w.binary(Binary::BAnd, cond, self.state()?.first_of_row);
                    }
                    let yes = self.fresh("store");
                    self.branch(cond, yes, if by_row { after_row } else { after })?;
                    self.w.builder.position_at_end(yes);
                }
                let found = self.at_register(region, layout, i)?;
                if narrow && layout != Layout::Row {
                    let next = self.at_register(region, layout, i + 1)?;
                    let both = self.w.pair(half(arg.storage), found[2], next[2]);
                    let index = self.w.i(found[1]);
                    let long = self.w.builder.build_int_s_extend(index, self.w.context.i64_type(), "").map_err(|e| self.broken(e))?;
                    let ty = self.w.context.i16_type().into();
                    let at = address::element(&self.w.builder, ty, start, long).map_err(|e| self.broken(e))?;
                    let store = self.w.builder.build_store(at, both).map_err(|e| self.broken(e))?;
                    store.set_alignment(4).map_err(|e| self.broken(e))?;
                } else {
                    self.store(base, found[1], found[2])?;
                }
                self.go(after)?;
                self.w.builder.position_at_end(after);
            }
            self.go(after_row)?;
            self.w.builder.position_at_end(after_row);
        }
        Ok(())
    }
}

/// Whether `what` depends on `on` in a text of lets.
fn varies(body: &[Stmt], on: Value, what: Value) -> bool {
    let mut touched = vec![on];
    for s in body {
        if let Stmt::Let(v, inst) = s {
            let operands = match inst {
                Inst::Op { args, .. } => args.clone(),
                Inst::Load { index, .. } => vec![*index],
                _ => vec![],
            };
            if operands.iter().any(|o| touched.contains(o)) {
                touched.push(*v);
            }
        }
    }
    touched.contains(&what)
}
