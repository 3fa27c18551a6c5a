//! Reductions: which are due in a scope, which share a loop, and the loop itself.
//!
//! A reduction is *due* in a scope when its result does not vary over axes that inner loops will introduce. Those over the same axes
//! share one loop when they do not wait for one another, or wait only for a running maximum whose growth they can follow: a sum whose
//! terms carry the factor `expdiff(x, m)`, m the maximum of the same x over the same positions, is multiplied by
//! `expdiff(m_old, m_new)` in each step (`reduce::Rescale`). What still waits takes another loop over the same axis.
//! Source: Milakov and Gimelshein 2018; Rabe and Staats 2021.

use super::{Home, Writer};
use crate::graph::{AxisId, NodeId, Op, ScanId};
use crate::ops::{DType, ScalarOp};
use crate::passes::error::CompileError;
use crate::passes::stream::implies;
use crate::reduce::{ReduceOp, Rescale};
use crate::tiles::*;
use std::collections::{HashMap, HashSet};

/// Something that must be computed in a scope before its readers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
enum Due {
    Reduce(NodeId),
    Scan(ScanId),
    /// A running reduction along a held axis, or a triangular system.
    Ordered(NodeId),
    /// A value that is read at other positions: kept as a tile with all of them.
    Hold(NodeId),
}

/// The running maximum that a sum follows, and the other factors of its terms.
struct Follows {
    max: NodeId,
    rest: Vec<NodeId>,
}

impl Writer<'_> {
    /// Computes, in the current scope, all reductions and scans that the targets need. A target's axes in the list will be looped
    /// over by the caller; what varies over them is left for then.
    pub(crate) fn needs(&mut self, targets: &[(NodeId, Vec<AxisId>)]) -> Result<(), CompileError> {
        // What one item adds (axes that are held from now on) changes what is due, so the list is made anew after each.
        let mut last = None;
        loop {
            let mut list = Vec::new();
            let mut seen = HashSet::new();
            for (node, bound) in targets {
                self.due(*node, bound, &mut seen, &mut list);
            }
            let Some(first) = list.first().copied() else { return Ok(()) };
            if last == Some(first) {
                return Err(self.bug(format!("{first:?} stays due")));
            }
            last = Some(first);
            match first {
                Due::Scan(scan) => self.scan(scan)?,
                Due::Ordered(id) => self.ordered(id)?,
                Due::Hold(id) => {
                    self.tile(id)?;
                }
                Due::Reduce(id) => {
                    let group = self.group(id, &list);
                    self.reduce_group(&group)?;
                }
            }
        }
    }

    /// Whether the axis is mapped to a dimension that tiles hold whole.
    fn is_held(&self, axis: AxisId) -> bool {
        self.env(axis).is_some_and(|d| matches!(self.k.dim(d).kind, DimKind::Whole { .. } | DimKind::Chunk { .. }))
    }

    /// Appends what is due for `id`, operands first.
    fn due(&self, id: NodeId, bound: &[AxisId], seen: &mut HashSet<(NodeId, Vec<AxisId>)>, list: &mut Vec<Due>) {
        if self.lookup(id).is_some() || !seen.insert((id, bound.to_vec())) {
            return;
        }
        if let Some(scan) = self.closed_scan(id) {
            self.due_scan(scan, bound, seen, list);
            return;
        }
        if self.homes.contains_key(&id) && !self.is_mine(id) {
            return;
        }
        match self.graph.op(id) {
            Op::Reduce { axes, body, mask, .. } => {
                // Axes that tiles hold whole are not looped over.
                let mut inner = bound.to_vec();
                inner.extend(axes.iter().filter(|a| !self.is_held(**a)));
                inner.sort();
                inner.dedup();
                self.due(*body, &inner, seen, list);
                if let Some(mask) = mask {
                    self.due(*mask, &inner, seen, list);
                }
                // A pass over positions is made once, for all features that a reduction around it will want.
                let again = |a: &AxisId| self.sizes.is_feature(*a) && axes.iter().all(|x| !self.sizes.is_feature(*x)) && self.part.scan.is_none();
                let waits = self.graph.axes_of(id).iter().any(|a| bound.contains(a) && !again(a));
                if !waits && !list.contains(&Due::Reduce(id)) {
                    list.push(Due::Reduce(id));
                }
            }
            Op::Prefix { .. } | Op::Solve { .. } => {
                for operand in self.graph.op(id).operands() {
                    self.due(operand, bound, seen, list);
                }
                if !self.graph.axes_of(id).iter().any(|a| bound.contains(a)) && !list.contains(&Due::Ordered(id)) {
                    list.push(Due::Ordered(id));
                }
            }
            Op::Final { scan, .. } => {
                if self.part.scan.is_some() && self.steps.outermost(*scan) == self.part.scan.unwrap_or(*scan) {
                    self.due_scan(*scan, bound, seen, list);
                }
            }
            Op::Read { value, subs } if self.is_inside(*value) => {
                let kept: Vec<AxisId> = bound.iter().copied().filter(|a| !subs.iter().any(|s| s.0 == *a)).collect();
                self.due(*value, &kept, seen, list);
                let varies = self.graph.axes_of(*value).iter().any(|a| kept.contains(a));
                if !varies && self.lookup(*value).is_none() && !list.contains(&Due::Hold(*value)) {
                    list.push(Due::Hold(*value));
                }
                for (_, index) in subs {
                    self.due(*index, bound, seen, list);
                }
            }
            op => {
                for operand in op.operands() {
                    self.due(operand, bound, seen, list);
                }
            }
        }
    }

    /// A value that this kernel computes and does not read back from memory.
    fn is_inside(&self, id: NodeId) -> bool {
        !matches!(self.graph.op(id), Op::Input(_) | Op::History { .. }) && (!self.homes.contains_key(&id) || self.is_mine(id)) && self.closed_scan(id).is_none()
    }

    fn due_scan(&self, scan: ScanId, bound: &[AxisId], seen: &mut HashSet<(NodeId, Vec<AxisId>)>, list: &mut Vec<Due>) {
        if list.contains(&Due::Scan(scan)) || self.scopes.iter().any(|s| s.scans.contains(&scan)) || self.open.contains(&scan) {
            return;
        }
        let record = &self.graph.scans[scan.index()];
        if record.states.iter().any(|s| s.axes.iter().any(|a| bound.contains(a))) {
            return;
        }
        // What the step needs from outside is due here; the step itself is not.
        let mut inner = bound.to_vec();
        inner.push(record.axis);
        inner.sort();
        inner.dedup();
        let step = &self.steps.step[scan.index()];
        let mut outside: Vec<NodeId> = record.states.iter().map(|s| s.init).collect();
        for id in step {
            outside.extend(super::super::rewrite::dependencies(self.graph, *id).into_iter().filter(|d| !step.contains(d)));
        }
        for id in outside {
            let own = matches!(self.graph.op(id), Op::State { scan: s, .. } | Op::History { scan: s, .. } if *s == scan);
            if !own {
                self.due(id, &inner, seen, list);
            }
        }
        if !list.contains(&Due::Scan(scan)) {
            list.push(Due::Scan(scan));
        }
    }

    /// Reductions of the list that `id` waits for.
    fn waits_for(&self, id: NodeId, list: &[Due]) -> HashSet<NodeId> {
        let mut out = HashSet::new();
        let mut seen = HashSet::new();
        let mut stack = self.graph.op(id).operands();
        while let Some(n) = stack.pop() {
            if self.lookup(n).is_some() || !seen.insert(n) {
                continue;
            }
            if list.contains(&Due::Reduce(n)) {
                out.insert(n);
            }
            if self.homes.contains_key(&n) && !self.is_mine(n) {
                continue;
            }
            stack.extend(self.graph.op(n).operands());
        }
        out
    }

    /// The reductions that share the loop of `first`.
    fn group(&self, first: NodeId, list: &[Due]) -> Vec<NodeId> {
        let Op::Reduce { axes, .. } = self.graph.op(first) else { return vec![first] };
        let mut group = vec![first];
        for due in list {
            // What comes after a scan or a held value may need it.
            let Due::Reduce(id) = due else { break };
            let Op::Reduce { axes: other, .. } = self.graph.op(*id) else { continue };
            if other != axes || group.contains(id) {
                continue;
            }
            let waits = self.waits_for(*id, list);
            let joins = if waits.is_empty() {
                // Independent; sharing a loop pays when both read something, which they do.
                true
            } else {
                waits.iter().all(|w| group.contains(w)) && self.follows(*id, &group).is_some_and(|f| self.only_waits_for(&f, &group, list))
            };
            if joins {
                group.push(*id);
            }
        }
        group
    }

    /// The sum as `expdiff(x, m) * rest`, m a maximum of the group over the same positions or more.
    fn follows(&self, id: NodeId, group: &[NodeId]) -> Option<Follows> {
        let Op::Reduce { op, axes, body, mask } = self.graph.op(id) else { return None };
        if op.rescale() != Rescale::Linear || self.graph.dtype(id) != DType::Real {
            return None;
        }
        let factors = self.factors(*body);
        for (i, factor) in factors.iter().enumerate() {
            let Op::Map { op: ScalarOp::ExpDiff, args } = self.graph.op(*factor) else { continue };
            let Op::Reduce { op: gauge, axes: max_axes, body: x, mask: max_mask } = self.graph.op(args[1]) else { continue };
            if gauge.rescale() == Rescale::Gauge && max_axes == axes && *x == args[0] && implies(self.graph, *mask, *max_mask) && group.contains(&args[1]) {
                let rest = factors.iter().enumerate().filter(|(j, _)| *j != i).map(|f| *f.1).collect();
                return Some(Follows { max: args[1], rest });
            }
        }
        None
    }

    fn only_waits_for(&self, follows: &Follows, group: &[NodeId], list: &[Due]) -> bool {
        follows.rest.iter().all(|f| {
            let mut waits = self.waits_for(*f, list);
            if list.contains(&Due::Reduce(*f)) {
                waits.insert(*f);
            }
            waits.iter().all(|w| !group.contains(w))
        })
    }

    /// Whether computing the value takes a reduction or scan inside the loop over `axes`.
    fn has_inner(&self, id: NodeId, axes: &[AxisId]) -> bool {
        let mut seen = HashSet::new();
        let mut stack = vec![id];
        while let Some(n) = stack.pop() {
            if self.lookup(n).is_some() || !seen.insert(n) || (self.homes.contains_key(&n) && !self.is_mine(n)) {
                continue;
            }
            match self.graph.op(n) {
                Op::Reduce { .. } | Op::Final { .. } if self.graph.axes_of(n).iter().any(|a| axes.contains(a)) => return true,
                Op::Read { value, .. } if !matches!(self.graph.op(*value), Op::Input(_) | Op::History { .. }) && !self.homes.contains_key(value) => {
                    // Read out of a tile of this kernel: the tile must be held already.
                    if self.lookup(*value).is_none() && self.graph.axes_of(*value).iter().any(|a| axes.contains(a)) {
                        return true;
                    }
                    stack.extend(self.graph.op(n).operands());
                }
                op => stack.extend(op.operands()),
            }
        }
        false
    }

    /// Computes a group of reductions over the same axes.
    fn reduce_group(&mut self, group: &[NodeId]) -> Result<(), CompileError> {
        let Op::Reduce { axes, .. } = self.graph.op(group[0]).clone() else { return Err(self.bug("not a reduction")) };
        let features = axes.iter().all(|a| self.sizes.is_feature(*a) || self.is_held(*a));
        let free: Vec<AxisId> = axes.iter().copied().filter(|a| !self.is_held(*a)).collect();
        let held = free.len() < axes.len();
        let mut looped: Vec<NodeId> = Vec::new();
        let mut direct: Vec<NodeId> = Vec::new();
        for id in group {
            let Op::Reduce { op, body, mask, .. } = self.graph.op(*id).clone() else { continue };
            let inner = self.has_inner(body, &free) || mask.is_some_and(|m| self.has_inner(m, &free));
            if held && inner {
                return Err(CompileError::Unsupported { what: "a reduction over an axis that is held and one that is looped over".to_string() });
            }
            let shared = self.follows(*id, group).is_some() || group.iter().any(|g| self.follows(*g, group).is_some_and(|f| f.max == *id));
            if !held && (inner || shared || (op == ReduceOp::Sum && self.is_product(&axes, *id) && !(features && mask.is_none()))) {
                looped.push(*id);
            } else {
                direct.push(*id);
            }
        }
        // A loop that is taken anyway carries the others as well: the same elements, the same blocks skipped.
        if !looped.is_empty() && !features {
            let joins = |id: &NodeId| !matches!(self.graph.op(*id), Op::Reduce { op: ReduceOp::ArgMax | ReduceOp::ArgMin, .. });
            looped = group.iter().copied().filter(|id| looped.contains(id) || joins(id)).collect();
            direct.retain(|id| !looped.contains(id));
        }
        for id in direct {
            self.reduce_direct(id)?;
        }
        if looped.is_empty() { Ok(()) } else { self.reduce_loop(&axes, &looped) }
    }

    pub(super) fn masked(&mut self, body: ExprId, mask: Option<NodeId>, identity: ExprId) -> Result<ExprId, CompileError> {
        let Some(mask) = mask else { return Ok(body) };
        let cond = self.expr(mask)?;
        let class = self.classes.get(&mask).copied();
        Ok(self.k.add(Expr::Masked { cond, value: body, other: identity, class }))
    }

    /// One statement, without blocks: a matrix product over feature axes, or an element-by-element reduction.
    fn reduce_direct(&mut self, id: NodeId) -> Result<(), CompileError> {
        let Op::Reduce { op, axes, body, mask } = self.graph.op(id).clone() else { return Err(self.bug("not a reduction")) };
        let name = self.graph.node(id).name.clone().unwrap_or_else(|| format!("r{}", id.index()));
        let level = self.scopes.len() - 1;
        let result: Vec<AxisId> = self.graph.axes_of(id).iter().copied().collect();
        let mut dims = Vec::new();
        for axis in &result {
            dims.push(self.dim_of(*axis)?);
        }
        let dims = self.sorted(dims);
        if op == ReduceOp::Sum && mask.is_none() && self.is_product(&axes, id) && axes.iter().all(|a| self.sizes.is_feature(*a) || self.is_held(*a)) {
            let mut over = Vec::new();
            for axis in &axes {
                over.push(self.dim_of(*axis)?);
            }
            let factors = self.factors(body);
            if let Some((a, b)) = self.dot_operands(&factors, &axes, &dims)? {
                let out = self.k.add_tile(name, dims, DType::Real);
                self.push(Stmt::Dot { out, a, b, over, carried: None });
                let expr = self.k.add(Expr::Tile(out));
                self.scopes[level].vals.insert(id, expr);
                return Ok(());
            }
        }
        // Axes that are bound already (a loop of the caller) cannot be reduced again; the checker gives every reduction its own.
        let mut env = HashMap::new();
        let mut over = Vec::new();
        for axis in &axes {
            if self.is_held(*axis) {
                over.push(self.dim_of(*axis)?);
                continue;
            }
            let dim = self.add_dim(*axis, DimKind::Span);
            env.insert(*axis, dim);
            over.push(dim);
        }
        self.push_scope(env);
        let expr = self.expr(body)?;
        let identity = self.k.add(Expr::Const(op.identity(self.graph.dtype(body))));
        let expr = match op {
            // Absent elements take no part in the choice: the lowering reads the mask of a `Masked` body.
            ReduceOp::ArgMax | ReduceOp::ArgMin => {
                let zero = self.k.add(Expr::Const(crate::ops::Scalar::zero(self.graph.dtype(body))));
                self.masked(expr, mask, zero)?
            }
            _ => self.masked(expr, mask, identity)?,
        };
        let stray = self.pop_scope();
        if !stray.is_empty() {
            return Err(self.bug("a tile inside an element loop"));
        }
        let out = self.k.add_tile(name, dims, self.graph.dtype(id));
        self.push(Stmt::Reduce { out, op, over, expr, carried: None });
        let expr = self.k.add(Expr::Tile(out));
        self.scopes[level].vals.insert(id, expr);
        Ok(())
    }

    /// One loop (nested for several axes) with the results carried around it.
    fn reduce_loop(&mut self, axes: &[AxisId], group: &[NodeId]) -> Result<(), CompileError> {
        let graph = self.graph;
        let mut inits: Vec<TileId> = Vec::new();
        for id in group {
            let Op::Reduce { op, body, .. } = graph.op(*id) else { continue };
            let identity = self.k.add(Expr::Const(op.identity(graph.dtype(*body))));
            let result: Vec<AxisId> = graph.axes_of(*id).iter().copied().collect();
            let name = graph.node(*id).name.clone().unwrap_or_else(|| format!("r{}", id.index()));
            inits.push(self.tile_over(&name, &result, graph.dtype(*id), identity)?);
        }
        // Nested loops, the last axis in blocks.
        let mut params = inits.clone();
        let mut nest: Vec<(DimId, Vec<TileId>)> = Vec::new();
        for (i, axis) in axes.iter().enumerate() {
            let block = if i + 1 == axes.len() { self.options.keys } else { 1 };
            let dim = self.add_dim(*axis, DimKind::Loop { block });
            let next: Vec<TileId> = params.iter().map(|p| self.copy_type(*p)).collect();
            nest.push((dim, std::mem::replace(&mut params, next)));
            self.push_scope([(*axis, dim)].into());
        }
        let inner_dim = nest.last().map(|n| n.0).ok_or_else(|| self.bug("a reduction over no axis"))?;
        // Blocks are classified by all masks together: empty where nobody finds an element, full where nobody needs to look.
        let masks: Vec<Option<NodeId>> = group.iter().map(|id| if let Op::Reduce { mask, .. } = graph.op(*id) { *mask } else { None }).collect();
        let mut common: Vec<NodeId> = masks.iter().copied().collect::<Option<_>>().unwrap_or_default();
        common.sort();
        common.dedup();
        if common.iter().any(|m| self.has_inner(*m, axes)) {
            common.clear();
        }
        let class = if common.is_empty() { None } else { Some(self.classify(&common, inner_dim)?) };
        if class.as_ref().is_some_and(|c| c.full.is_some()) {
            self.classes.extend(common.iter().map(|m| (*m, inner_dim)));
        }
        let nexts = self.reduce_body(axes, group, &params, inner_dim)?;
        for mask in common {
            self.classes.remove(&mask);
        }
        // Close the nest from the inside.
        let mut next = nexts;
        let mut param = params;
        let mut class = class;
        let mut results = Vec::new();
        for (dim, init) in nest.into_iter().rev() {
            let body = self.pop_scope();
            let zero = self.k.int(0);
            let extent = self.k.dim(dim).extent.clone();
            let end = self.k.add(Expr::Host(extent));
            let (mut lo, mut hi) = (zero, end);
            let (mut empty, mut full, mut head) = (None, None, vec![]);
            if dim == inner_dim {
                if let Some(c) = class.take() {
                    lo = c.lo.map_or(lo, |l| self.k.op(ScalarOp::Max, &[l, zero]));
                    hi = c.hi.map_or(hi, |h| self.k.op(ScalarOp::Min, &[h, end]));
                    (empty, full, head) = (c.empty, c.full, c.head);
                }
            }
            results = init.iter().map(|i| self.copy_type(*i)).collect::<Vec<_>>();
            let carries = (0..init.len()).map(|i| Carry { param: param[i], init: init[i], next: next[i], result: results[i] }).collect();
            self.push(Stmt::Loop(Box::new(Loop { dim, lo, hi, reverse: false, empty, full, head, carries, body })));
            next = results.clone();
            param = init;
        }
        let level = self.scopes.len() - 1;
        for (id, tile) in group.iter().zip(results) {
            let expr = self.k.add(Expr::Tile(tile));
            self.scopes[level].vals.insert(*id, expr);
        }
        Ok(())
    }

    pub(crate) fn copy_type(&mut self, tile: TileId) -> TileId {
        let Tile { name, dims, dtype } = self.k.tile(tile).clone();
        self.k.add_tile(name, dims, dtype)
    }

    /// The statements of one iteration; gives the carried values after it.
    fn reduce_body(&mut self, axes: &[AxisId], group: &[NodeId], params: &[TileId], dim: DimId) -> Result<Vec<TileId>, CompileError> {
        let graph = self.graph;
        let follows: Vec<Option<Follows>> = group.iter().map(|id| self.follows(*id, group)).collect();
        let mut targets: Vec<(NodeId, Vec<AxisId>)> = Vec::new();
        for (id, f) in group.iter().zip(&follows) {
            let Op::Reduce { body, mask, .. } = graph.op(*id) else { continue };
            match f {
                Some(f) => targets.extend(f.rest.iter().map(|r| (*r, vec![]))),
                None => targets.push((*body, vec![])),
            }
            targets.extend(mask.iter().map(|m| (*m, vec![])));
        }
        self.needs(&targets)?;
        let mut nexts: Vec<Option<TileId>> = vec![None; group.len()];
        let mut weights: HashMap<NodeId, (TileId, TileId)> = HashMap::new();
        // Running maxima first, with the weights that follow them.
        for (i, id) in group.iter().enumerate() {
            let Op::Reduce { op, body, mask, .. } = graph.op(*id).clone() else { continue };
            if !group.iter().zip(&follows).any(|(_, f)| f.as_ref().is_some_and(|f| f.max == *id)) {
                continue;
            }
            let expr = self.expr(body)?;
            let least = self.k.add(Expr::Const(op.identity(graph.dtype(body))));
            let masked = self.masked(expr, mask, least)?;
            let x = self.hold("x", masked)?;
            let x_expr = self.k.add(Expr::Tile(x));
            let next = self.copy_type(params[i]);
            self.push(Stmt::Reduce { out: next, op, over: vec![dim], expr: x_expr, carried: Some(params[i]) });
            let (old, new) = (self.k.add(Expr::Tile(params[i])), self.k.add(Expr::Tile(next)));
            let weight = self.k.op(ScalarOp::ExpDiff, &[x_expr, new]);
            let p = self.hold("p", weight)?;
            let grow = self.k.op(ScalarOp::ExpDiff, &[old, new]);
            let factor = self.hold("rescale", grow)?;
            weights.insert(*id, (p, factor));
            nexts[i] = Some(next);
        }
        for (i, id) in group.iter().enumerate() {
            if nexts[i].is_some() {
                continue;
            }
            let Op::Reduce { op, body, mask, .. } = graph.op(*id).clone() else { continue };
            let dims = self.k.tile(params[i]).dims.clone();
            let next = self.copy_type(params[i]);
            let Some(f) = &follows[i] else {
                if op == ReduceOp::Sum && self.is_product(axes, *id) {
                    let factors = self.factors(body);
                    // Results that are not there yet are memory that nobody has written: they are dropped, not multiplied by 0.
                    let unwritten = mask.is_some() && factors.iter().any(|f| self.reads_earlier(*f));
                    if let Some((mut a, mut b)) = self.dot_operands(&factors, &axes[axes.len() - 1..], &dims)?.filter(|(_, b)| !unwritten || self.fits(mask, *b)) {
                        if unwritten {
                            let zero = self.real(0.0);
                            let masked = self.masked(b, mask, zero)?;
                            let tile = self.hold("there", masked)?;
                            b = self.k.add(Expr::Tile(tile));
                        }
                        if mask.is_some() {
                            let zero = self.real(0.0);
                            let masked = self.masked(a, mask, zero)?;
                            let tile = self.hold("masked", masked)?;
                            a = self.k.add(Expr::Tile(tile));
                        }
                        self.push(Stmt::Dot { out: next, a, b, over: vec![dim], carried: Some(params[i]) });
                        nexts[i] = Some(next);
                        continue;
                    }
                }
                if let (ReduceOp::Sum, Some(mask)) = (op, mask) {
                    if let Some((a, b)) = self.counted(mask, body, &dims, dim)? {
                        self.push(Stmt::Dot { out: next, a, b, over: vec![dim], carried: Some(params[i]) });
                        nexts[i] = Some(next);
                        continue;
                    }
                }
                let expr = self.expr(body)?;
                let identity = match op {
                    ReduceOp::ArgMax | ReduceOp::ArgMin => crate::ops::Scalar::zero(graph.dtype(body)),
                    _ => op.identity(graph.dtype(body)),
                };
                let identity = self.k.add(Expr::Const(identity));
                let expr = self.masked(expr, mask, identity)?;
                if matches!(op, ReduceOp::ArgMax | ReduceOp::ArgMin) {
                    return Err(CompileError::Unsupported { what: format!("`{}` over a value that is itself reduced in the loop", op.name()) });
                }
                self.push(Stmt::Reduce { out: next, op, over: vec![dim], expr, carried: Some(params[i]) });
                nexts[i] = Some(next);
                continue;
            };
            let (p, factor) = weights.get(&f.max).copied().ok_or_else(|| self.bug("a follower without its maximum"))?;
            let (old, grow) = (self.k.add(Expr::Tile(params[i])), self.k.add(Expr::Tile(factor)));
            let mut p_expr = self.k.add(Expr::Tile(p));
            let mut p = p;
            let zero = self.real(0.0);
            if !matches!(graph.op(f.max), Op::Reduce { mask: same, .. } if *same == mask) {
                // Fewer elements than those under the maximum.
                let fewer = self.masked(p_expr, mask, zero)?;
                p = self.hold("p", fewer)?;
                p_expr = self.k.add(Expr::Tile(p));
            }
            let rescaled = self.k.op(ScalarOp::Mul, &[old, grow]);
            let scaled = self.copy_type(params[i]);
            self.push(Stmt::Map { out: scaled, expr: rescaled });
            if f.rest.is_empty() {
                self.push(Stmt::Reduce { out: next, op, over: vec![dim], expr: p_expr, carried: Some(scaled) });
            } else {
                // Factors without columns of their own join the weights, so that the rest is one side of a product.
                let p_dims = self.k.tile(p).dims.clone();
                let (mut weights, mut columns) = (vec![], vec![]);
                for factor in &f.rest {
                    let axes = graph.axes_of(*factor);
                    let wide = axes.iter().filter(|a| self.env(**a).is_none_or(|d| self.k.dim(d).kind.capacity() > 1));
                    let inside = wide.into_iter().all(|a| p_dims.iter().any(|d| self.k.dim(*d).axis == *a));
                    if inside { weights.push(*factor) } else { columns.push(*factor) }
                }
                let rows = |w: &Self, fs: &[NodeId]| fs.iter().any(|f| w.graph.axes_of(*f).iter().any(|a| w.env(*a).is_some_and(|d| d != dim && p_dims.contains(&d))));
                if columns.is_empty() || rows(self, &columns) {
                    weights.clear();
                    columns = f.rest.clone();
                }
                let rest = self.product(&columns)?;
                let rest_dims = self.sorted(self.k.dims_of(rest));
                let rows = p_dims.iter().any(|d| !rest_dims.contains(d));
                let wide = rest_dims.iter().any(|d| !p_dims.contains(d));
                let mut a = p_expr;
                for w in weights {
                    let factor = self.expr(w)?;
                    a = self.k.op(ScalarOp::Mul, &[a, factor]);
                }
                let vector = p_dims == [dim];
                if (rows || vector) && wide && rest_dims.contains(&dim) {
                    if a != p_expr {
                        let tile = self.hold("weighted", a)?;
                        a = self.k.add(Expr::Tile(tile));
                    }
                    self.push(Stmt::Dot { out: next, a, b: rest, over: vec![dim], carried: Some(scaled) });
                } else {
                    // What an absent element would multiply may be anything.
                    let term = self.k.op(ScalarOp::Mul, &[a, rest]);
                    let term = self.masked(term, mask, zero)?;
                    self.push(Stmt::Reduce { out: next, op, over: vec![dim], expr: term, carried: Some(scaled) });
                }
            }
            nexts[i] = Some(next);
        }
        nexts.into_iter().map(|n| n.ok_or_else(|| self.bug("a reduction was left out"))).collect()
    }

    /// Whether a value reads earlier results of a scan.
    fn reads_earlier(&self, id: NodeId) -> bool {
        let mut seen = HashSet::new();
        let mut stack = vec![id];
        while let Some(n) = stack.pop() {
            if !seen.insert(n) || (self.homes.contains_key(&n) && !self.is_mine(n)) {
                continue;
            }
            match self.graph.op(n) {
                Op::History { .. } => return true,
                op => stack.extend(op.operands()),
            }
        }
        false
    }

    /// Whether a mask varies over nothing that the operand does not have, positions that stand still aside.
    fn fits(&self, mask: Option<NodeId>, operand: ExprId) -> bool {
        let dims = self.tile_dims(operand);
        let Some(mask) = mask else { return true };
        self.graph.axes_of(mask).iter().filter_map(|a| self.env(*a)).all(|d| self.k.dim(d).kind.capacity() == 1 || dims.contains(&d))
    }

    /// A tile of the current scope that holds an expression.
    pub(crate) fn hold(&mut self, name: &str, expr: ExprId) -> Result<TileId, CompileError> {
        let dims = self.tile_dims(expr);
        let out = self.k.add_tile(name, dims, DType::Real);
        self.push(Stmt::Map { out, expr });
        Ok(out)
    }

    /// Homes of a node that this kernel must store.
    pub(crate) fn homes_to_store(&self, id: NodeId) -> Vec<Home> {
        if self.is_mine(id) { self.root_homes(id) } else { vec![] }
    }
}
