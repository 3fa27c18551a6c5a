//! Kernels with roles. The copying role runs first and leaves its slots in queues; each math group then reads its own copy of them. Values
//! outside of regions are uniform, so one lane stands for all. A view that is read before it is taken, or after it was dropped, a product
//! that is read before its wait and a queue that does not end empty are faults.

use super::{Machine, Precision, Result, stored};
use crate::kernel::warp::*;
use crate::kernel::{Base, Storage, Value};
use crate::ops::Scalar;
use std::collections::VecDeque;

/// 64 rows of a fragment, or a tile in block memory.
type Matrix = Vec<f64>;

#[derive(Default)]
pub(super) struct Roles {
    /// Blocks of the launch.
    blocks: i64,
    queues: Vec<VecDeque<Matrix>>,
    views: Vec<Option<Matrix>>,
    fragments: Vec<Matrix>,
    /// Fragments of products that run, oldest group first; and views that they read.
    open: Vec<(Vec<FragId>, Vec<RingId>)>,
    group: u32,
}

impl Roles {
    pub fn new(blocks: i64) -> Roles {
        Roles { blocks, ..Roles::default() }
    }
}

impl Machine<'_> {
    pub(super) fn warp(&mut self, op: &WarpOp) -> Result<()> {
        let Some(warps) = self.kernel.warps.as_deref() else { return self.fail("no roles") };
        match op {
            WarpOp::Roles { copy, math } => {
                self.roles.queues = vec![VecDeque::new(); warps.rings.len()];
                self.alone(copy)?;
                let queues = std::mem::take(&mut self.roles.queues);
                for group in 0..warps.math {
                    self.roles.group = group;
                    self.roles.queues = queues.clone();
                    self.roles.views = vec![None; warps.rings.len()];
                    self.roles.fragments = warps.fragments.iter().map(|f| vec![f64::NAN; self.size(f.layout)]).collect();
                    self.roles.open = vec![];
                    self.alone(math)?;
                    if self.roles.queues.iter().any(|q| !q.is_empty()) || self.roles.views.iter().any(Option::is_some) || !self.roles.open.is_empty() {
                        return self.fail("slots, views or products are left over");
                    }
                }
                Ok(())
            }
            WarpOp::Work { var, count, body } => {
                // Blocks beyond the count have nothing to do; a persistent launch takes several pieces, in steps of its blocks.
                let (mut at, count) = (self.block, self.int(*count)?);
                while at < count {
                    self.set(*var, Scalar::Int(at));
                    self.alone(body)?;
                    at += self.roles.blocks.max(1);
                }
                Ok(())
            }
            WarpOp::Copy { ring, map, at } => {
                let tile = self.box_of(&warps.rings[ring.0 as usize], &warps.maps[map.0 as usize], at)?;
                self.roles.queues[ring.0 as usize].push_back(tile);
                Ok(())
            }
            WarpOp::Take(r) => match (self.roles.queues[r.0 as usize].pop_front(), &self.roles.views[r.0 as usize]) {
                (Some(tile), None) => {
                    self.roles.views[r.0 as usize] = Some(tile);
                    Ok(())
                }
                (None, _) => self.fail("a slot is taken that nobody fills"),
                (_, Some(_)) => self.fail("a view is taken twice"),
            },
            WarpOp::Drop(r) => {
                if self.roles.open.iter().any(|g| g.1.contains(r)) {
                    return self.fail("a view is dropped while a product reads it");
                }
                match self.roles.views[r.0 as usize].take() {
                    Some(_) => Ok(()),
                    None => self.fail("a view is dropped twice"),
                }
            }
            WarpOp::Mma { acc, fresh, a, b, turned, k } => self.mma(warps, *acc, *fresh, *a, *b, *turned, *k as usize),
            WarpOp::Wait { younger, .. } => {
                let done = self.roles.open.len().saturating_sub(*younger as usize);
                self.roles.open.drain(..done);
                Ok(())
            }
            WarpOp::Turn { .. } => Ok(()),
            WarpOp::Each { out, region } => {
                let layout = warps.fragments[out.0 as usize].layout;
                let mut made = vec![0.0; self.size(layout)];
                self.region(warps, layout, region, |m, at, results| {
                    made[at] = m.real(results[0])?;
                    Ok(())
                })?;
                self.writable(*out)?;
                self.roles.fragments[out.0 as usize] = made;
                Ok(())
            }
            WarpOp::Move { to, from } => {
                self.writable(*to)?;
                self.roles.fragments[to.0 as usize] = self.readable(*from)?.clone();
                Ok(())
            }
            WarpOp::Fold { out, op, from, carried } => {
                let rows = GROUP_ROWS as usize;
                let (source, start) = (self.readable(*from)?.clone(), carried.map(|c| self.readable(c).cloned()).transpose()?);
                let cols = source.len() / rows;
                let mut made = vec![];
                for r in 0..rows {
                    let mut value = start.as_ref().map(|s| s[r]);
                    for x in &source[r * cols..(r + 1) * cols] {
                        value = Some(match value {
                            None => *x,
                            Some(v) => match op.eval(&[Scalar::Real(v), Scalar::Real(*x)]) {
                                Some(Scalar::Real(y)) => y,
                                _ => return self.fail("no fold"),
                            },
                        });
                    }
                    made.push(value.unwrap_or(f64::NAN));
                }
                self.roles.fragments[out.0 as usize] = made;
                Ok(())
            }
            WarpOp::Pack { out, from } => {
                let Layout::Pairs { storage, .. } = warps.fragments[out.0 as usize].layout else { return self.fail("no pairs") };
                self.writable(*out)?;
                let source = self.readable(*from)?.clone();
                self.roles.fragments[out.0 as usize] = source.into_iter().map(|x| self.narrow(storage, x)).collect();
                Ok(())
            }
            WarpOp::Put { buffer, layout, region, pairs } => self.region(warps, *layout, region, |m, at, results| {
                let (cond, index) = (m.truth(results[0])?, m.int(results[1])?);
                if *pairs && cond && at % 2 == 1 && index % 2 == 0 {
                    return m.fail("a pair does not lie together");
                }
                if cond {
                    let value = m.get(results[2])?;
                    m.write(Base::Buffer(*buffer), index, value)?;
                }
                Ok(())
            }),
        }
    }

    fn size(&self, layout: Layout) -> usize {
        GROUP_ROWS as usize
            * match layout {
                Layout::Acc { cols } | Layout::Pairs { cols, .. } => cols as usize,
                Layout::Row => 1,
            }
    }

    fn narrow(&self, storage: Storage, x: f64) -> f64 {
        match (self.precision, stored(storage, Scalar::Real(x))) {
            (Precision::F32, Scalar::Real(x)) => x,
            _ => x,
        }
    }

    fn readable(&self, f: FragId) -> Result<&Matrix> {
        if self.roles.open.iter().any(|g| g.0.first() == Some(&f)) {
            return self.fail("a product is read before its wait");
        }
        Ok(&self.roles.fragments[f.0 as usize])
    }

    fn writable(&self, f: FragId) -> Result<()> {
        if self.roles.open.iter().any(|g| g.0.contains(&f)) {
            return self.fail("a fragment of a running product is overwritten");
        }
        Ok(())
    }

    /// Runs a region for each element of a group's rows; `done` gets the element's number and the results.
    fn region(&mut self, warps: &Warps, layout: Layout, region: &Region, mut done: impl FnMut(&mut Self, usize, &[Value]) -> Result<()>) -> Result<()> {
        let cols = self.size(layout) / GROUP_ROWS as usize;
        for row in 0..GROUP_ROWS as usize {
            for col in 0..cols {
                self.set(region.row, Scalar::Int(i64::from(self.roles.group * GROUP_ROWS) + row as i64));
                self.set(region.col, Scalar::Int(col as i64));
                for (v, f) in &region.reads {
                    let at = if warps.fragments[f.0 as usize].layout == Layout::Row { row } else { row * cols + col };
                    let x = self.readable(*f)?[at];
                    self.set(*v, Scalar::Real(x));
                }
                self.alone(&region.body)?;
                done(self, row * cols + col, &region.results)?;
            }
        }
        Ok(())
    }

    /// A tile in block memory: rows x columns rounded up to panels.
    fn box_of(&self, ring: &Ring, map: &TensorMap, at: &[Value]) -> Result<Matrix> {
        let dims = self.kernel.buffers.get(map.buffer.0 as usize).map(|_| self.shape(map)).transpose()?.unwrap_or_default();
        let start = at.iter().map(|v| self.int(*v)).collect::<Result<Vec<_>>>()?;
        let width = ring.panels() as usize * 64;
        let mut tile = Vec::with_capacity(ring.rows as usize * width);
        for row in 0..ring.rows as i64 {
            // Positions inside the box, the innermost axis apart.
            let mut rest = row;
            let mut position = start.clone();
            for i in (0..at.len() - 1).rev() {
                let extent = i64::from(map.block[i]);
                position[i] += rest % extent;
                rest /= extent;
            }
            for col in 0..width as i64 {
                let mut index = 0;
                let mut inside = true;
                for (i, dim) in dims.iter().enumerate() {
                    let p = position[i] + if i + 1 == dims.len() { col } else { 0 };
                    inside &= (0..*dim).contains(&p);
                    index = index * dim + p;
                }
                let x = if inside { self.read(Base::Buffer(map.buffer), index)? } else { Scalar::Real(0.0) };
                let Scalar::Real(x) = x else { return self.fail("a tensor copy of ints") };
                tile.push(self.narrow(ring.storage, x));
            }
        }
        Ok(tile)
    }

    fn shape(&self, map: &TensorMap) -> Result<Vec<i64>> {
        match map.shape.iter().map(|i| self.ints.get(*i as usize).copied()).collect::<Option<Vec<_>>>() {
            Some(shape) => Ok(shape),
            None => self.fail("a map without its extents"),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn mma(&mut self, warps: &Warps, acc: FragId, fresh: bool, a: Operand, b: RingId, turned: bool, k: usize) -> Result<()> {
        let rows = GROUP_ROWS as usize;
        let Some(right) = self.roles.views[b.0 as usize].clone() else { return self.fail("a product reads a view that was not taken") };
        let (left, offset, stride, mut reads) = match a {
            Operand::View(r) => {
                let Some(view) = self.roles.views[r.0 as usize].clone() else { return self.fail("a product reads a view that was not taken") };
                let width = warps.rings[r.0 as usize].panels() as usize * 64;
                (view, self.roles.group as usize * rows * width, width, vec![r])
            }
            Operand::Frag(f) => {
                let value = self.readable(f)?.clone();
                let stride = value.len() / rows;
                (value, 0, stride, vec![])
            }
        };
        reads.push(b);
        let n = self.size(warps.fragments[acc.0 as usize].layout) / rows;
        let width = warps.rings[b.0 as usize].panels() as usize * 64;
        self.writable(acc)?;
        let old = self.roles.fragments[acc.0 as usize].clone();
        let mut made = vec![0.0; rows * n];
        for i in 0..rows {
            for j in 0..n {
                let mut sum = if fresh { 0.0 } else { old[i * n + j] };
                for l in 0..k {
                    // Beyond the operand's columns there are zeros (panels) or nothing (fragments of a multiple of 16).
                    let x = left.get(offset + i * stride + l).copied().filter(|_| l < stride).unwrap_or(0.0);
                    let y = if turned { right.get(l * width + j).copied().unwrap_or(0.0) } else { right[j * width + l] };
                    sum += x * y;
                }
                made[i * n + j] = sum;
            }
        }
        self.roles.fragments[acc.0 as usize] = made;
        let mut held = vec![acc];
        if let Operand::Frag(f) = a {
            held.push(f);
        }
        self.roles.open.push((held, reads));
        Ok(())
    }
}
