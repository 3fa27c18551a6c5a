//! Writes order operations and prefix reductions in terms of reductions and scans, so that every target runs them.
//!
//! A rank is a count of the elements that come before, a selection is a bound on a rank, a list slot is the position with a given
//! count before it, a prefix is a scan. Cost: `rank` and `topk` take n^2 comparisons and no memory beyond their result. A target with
//! a sort keeps the operations whose rows can lie in memory (n log n steps, n to choose the largest); those in the step of a scan, which
//! are ordered anew in each step out of values that only the step has, are counted there too. Does not know what the order is for.

use super::rewrite::{Builder, Rewrite, Work, rebuild_node, rewrite};
use super::steps::Steps;
use crate::base::Span;
use crate::graph::{AxisId, AxisSet, Graph, NodeId, Op, PrefixDir, Scan, ScanId, State};
use crate::ops::{DType, ScalarOp};
use crate::reduce::ReduceOp;
use std::collections::{HashMap, HashSet};

/// See the module.
pub fn expand_order(work: Work, sort: bool) -> Work {
    let in_step = Steps::new(&work.graph).step.into_iter().flatten().collect();
    rewrite(work, &mut Expand { sort, in_step, rows: HashMap::new() })
}

/// Whether the node is an order operation that was kept.
pub(crate) fn is_ordered(graph: &Graph, id: NodeId) -> bool {
    matches!(graph.op(id), Op::Rank { .. } | Op::ArgSort { .. } | Op::TopK { .. } | Op::List { .. })
}

/// Values whose several axes are ordered as one, with those axes: in memory they lie together, in this order.
pub(crate) fn joint_rows(graph: &Graph) -> HashMap<NodeId, Vec<AxisId>> {
    let mut out = HashMap::new();
    for id in graph.ids() {
        let Some((axes, values)) = rows(graph.op(id)) else { continue };
        if axes.len() > 1 {
            let own = matches!(graph.op(id), Op::Rank { .. } | Op::TopK { .. }).then_some(id);
            out.extend(values.into_iter().chain(own).map(|v| (v, axes.clone())));
        }
    }
    out
}

/// The axes of the rows of a value that is ordered, or is the choice of some of a row.
pub(crate) fn row_axes(graph: &Graph, id: NodeId) -> Option<Vec<AxisId>> {
    if let Op::TopK { axes, .. } = graph.op(id) {
        return Some(axes.clone());
    }
    graph.users(id).find_map(|user| rows(graph.op(user)).filter(|r| r.1.contains(&id)).map(|r| r.0.clone()))
}

/// The axes that an order operation orders, and the values that it reads along them.
pub(crate) fn rows(op: &Op) -> Option<(&Vec<AxisId>, Vec<NodeId>)> {
    match op {
        Op::Rank { axes, key, mask } | Op::ArgSort { axes, key, mask, .. } | Op::TopK { axes, key, mask, .. } => Some((axes, [Some(*key), *mask].into_iter().flatten().collect())),
        Op::List { axes, set, .. } => Some((axes, vec![*set])),
        _ => None,
    }
}

struct Expand {
    sort: bool,
    /// Nodes of steps of scans, by their ids in the old graph.
    in_step: HashSet<NodeId>,
    /// Values that have been promised a layout: the axes that lie together.
    rows: HashMap<NodeId, Vec<AxisId>>,
}

impl Expand {
    /// Keeps an order operation whose operands can lie in memory as rows; they become cuts.
    fn keep(&mut self, b: &mut Builder, old: &Graph, map: &HashMap<NodeId, NodeId>, id: NodeId) -> Option<NodeId> {
        let op = rebuild_op(old, map, id);
        let (axes, values) = rows(&op)?;
        if !self.sort || self.in_step.contains(&id) {
            return None;
        }
        let joint = axes.len() > 1;
        for (i, value) in values.iter().enumerate() {
            let has = axes.iter().filter(|a| b.graph.axes_of(*value).contains(a)).count();
            let stored = match b.graph.op(*value) {
                Op::Const(_) | Op::Index(_) | Op::Extent(_) => false,
                Op::Input(input) => {
                    let at = &b.graph.inputs[input.index()].axes;
                    !joint || at.windows(axes.len()).any(|w| w == axes.as_slice())
                }
                _ => !joint || (self.rows.get(value).is_none_or(|r| r == axes) && !old.outputs.iter().any(|o| map.get(&o.node) == Some(value))),
            };
            // A mask may be the same all along the row; a key that is would need no order.
            let along = has == axes.len() || (i > 0 && has == 0);
            if !stored || !along {
                return None;
            }
        }
        let mut cuts = values.clone();
        if let Op::TopK { count, .. } = &op {
            if b.graph.axes_of(*count).iter().any(|a| axes.contains(a)) {
                return None;
            }
            if super::tile::host(&b.graph, *count).is_none() {
                cuts.push(*count);
            }
        }
        if joint {
            if old.outputs.iter().any(|o| o.node == id) && matches!(op, Op::Rank { .. } | Op::TopK { .. }) {
                return None;
            }
            self.rows.extend(values.iter().map(|v| (*v, axes.clone())));
        }
        let new = rebuild_node(b, old, map, id);
        cuts.push(new);
        b.cuts.extend(cuts.into_iter().filter(|c| !matches!(b.graph.op(*c), Op::Input(_) | Op::Const(_) | Op::Index(_) | Op::Extent(_))));
        Some(new)
    }
}

impl Rewrite for Expand {
    fn node(&mut self, b: &mut Builder, old: &Graph, map: &HashMap<NodeId, NodeId>, id: NodeId) -> NodeId {
        let span = old.node(id).span;
        if let Some(kept) = self.keep(b, old, map, id) {
            return kept;
        }
        match rebuild_op(old, map, id) {
            Op::Rank { axes, key, mask } => {
                let rank = rank(b, &axes, key, mask, false, span);
                b.cuts.insert(rank);
                rank
            }
            Op::TopK { axes, key, mask, count } => {
                let rank = rank(b, &axes, key, mask, true, span);
                let chosen = b.map(ScalarOp::Lt, &[rank, count], span);
                let chosen = b.and(Some(chosen), mask, span).unwrap_or(chosen);
                // Readers test membership many times; the count is made once.
                b.cuts.insert(chosen);
                chosen
            }
            Op::ArgSort { axes, to, key, mask } => {
                let rank = rank(b, &axes, key, mask, false, span);
                b.cuts.insert(rank);
                slot(b, &axes, to, rank, mask, span)
            }
            Op::List { axes, to, set } => {
                let before = count_before(b, &axes, set, span);
                b.cuts.insert(before);
                b.cuts.insert(set);
                slot(b, &axes, to, before, Some(set), span)
            }
            Op::Reduce { op: ReduceOp::Prod, axes, body, mask } if b.graph.dtype(body) == DType::Complex => {
                // Products of complex values do not split into parts; as running products they are pointwise.
                let (mut value, mut mask) = (body, mask);
                for axis in axes {
                    prefix(b, ReduceOp::Prod, axis, PrefixDir::Le, value, mask.take(), span);
                    let scan = ScanId(b.graph.scans.len() as u32 - 1);
                    b.graph.scans[scan.index()].exports.clear();
                    value = b.add(Op::Final { scan, index: 0 }, span);
                }
                value
            }
            Op::Reduce { op: op @ (ReduceOp::ArgMax | ReduceOp::ArgMin), axes, body, mask } if axes.len() == 1 && (reduces(&b.graph, body) || mask.is_some_and(|m| reduces(&b.graph, m))) => {
                arg_by_value(b, op, axes[0], body, mask, span)
            }
            Op::Prefix { op, axis, dir, body, mask } => prefix(b, op, axis, dir, body, mask, span),
            _ => rebuild_node(b, old, map, id),
        }
    }
}

fn rebuild_op(old: &Graph, map: &HashMap<NodeId, NodeId>, id: NodeId) -> Op {
    old.op(id).map_operands(|o| map.get(&o).copied().unwrap_or(o))
}

/// Whether computing the value takes a reduction or a scan.
fn reduces(graph: &Graph, id: NodeId) -> bool {
    let mut seen = std::collections::HashSet::new();
    let mut stack = vec![id];
    while let Some(id) = stack.pop() {
        if !seen.insert(id) {
            continue;
        }
        match graph.op(id) {
            Op::Reduce { .. } | Op::Final { .. } | Op::State { .. } => return true,
            op => stack.extend(op.operands()),
        }
    }
    false
}

/// The position of the best value as the least position where the value is the best: two passes that need no pairs and store nothing.
fn arg_by_value(b: &mut Builder, op: ReduceOp, axis: AxisId, body: NodeId, mask: Option<NodeId>, span: Span) -> NodeId {
    let best = if op == ReduceOp::ArgMax { ReduceOp::Max } else { ReduceOp::Min };
    let is_real = b.graph.dtype(body) == DType::Real;
    let number = if is_real { Some(b.map(ScalarOp::Eq, &[body, body], span)) } else { None };
    let counted = b.and(mask, number, span);
    let top = b.add(Op::Reduce { op: best, axes: vec![axis], body, mask: counted }, span);
    let here = b.add(Op::Index(axis), span);
    let extent = b.add(Op::Extent(axis), span);
    let hit = b.map(ScalarOp::Eq, &[body, top], span);
    let hit = b.and(Some(hit), mask, span);
    let mut first = |hit: Option<NodeId>| {
        let place = match hit {
            Some(hit) => b.map(ScalarOp::Select, &[hit, here, extent], span),
            None => here,
        };
        let least = b.add(Op::Reduce { op: ReduceOp::Min, axes: vec![axis], body: place, mask: None }, span);
        b.map(ScalarOp::Min, &[least, extent], span)
    };
    let (found, any) = (first(hit), first(mask));
    // All present elements are NaN, or nothing is present.
    let minus = b.int(-1);
    let none = b.map(ScalarOp::Lt, &[any, extent], span);
    let fallback = b.map(ScalarOp::Select, &[none, any, minus], span);
    let is_found = b.map(ScalarOp::Lt, &[found, extent], span);
    b.map(ScalarOp::Select, &[is_found, found, fallback], span)
}

/// Row-major position over `axes`, Int.
fn flat(b: &mut Builder, axes: &[AxisId], span: Span) -> NodeId {
    let mut position = b.add(Op::Index(axes[0]), span);
    for axis in &axes[1..] {
        let extent = b.add(Op::Extent(*axis), span);
        let index = b.add(Op::Index(*axis), span);
        let scaled = b.map(ScalarOp::Mul, &[position, extent], span);
        position = b.map(ScalarOp::Add, &[scaled, index], span);
    }
    position
}

/// Position in the stable order: elements that come before are counted. Ascending with NaN last and absent elements after it, or
/// descending with NaN last among the present.
fn rank(b: &mut Builder, axes: &[AxisId], key: NodeId, mask: Option<NodeId>, descending: bool, span: Span) -> NodeId {
    let names: Vec<(AxisId, AxisId)> = axes.iter().map(|a| (*a, b.twin(*a))).collect();
    let others: Vec<AxisId> = names.iter().map(|n| n.1).collect();
    let key = if b.graph.dtype(key) == DType::Bool { b.map(ScalarOp::ToInt, &[key], span) } else { key };
    // Elements are compared with one another: all must come out of one computation, bit for bit.
    if !matches!(b.graph.op(key), Op::Input(_) | Op::Index(_)) {
        b.cuts.insert(key);
    }
    let key2 = b.rename(key, &names, span);
    let (here, there) = (flat(b, axes, span), flat(b, &others, span));
    let earlier = b.map(ScalarOp::Lt, &[there, here], span);
    let (first, second) = if descending { (key, key2) } else { (key2, key) };
    let mut less = b.map(ScalarOp::Lt, &[first, second], span);
    let mut same = b.map(ScalarOp::Eq, &[key2, key], span);
    if b.graph.dtype(key) == DType::Real {
        let nan = b.map(ScalarOp::Ne, &[key, key], span);
        let nan2 = b.map(ScalarOp::Ne, &[key2, key2], span);
        let number2 = b.map(ScalarOp::Not, &[nan2], span);
        let number_first = b.map(ScalarOp::And, &[nan, number2], span);
        less = b.map(ScalarOp::Or, &[less, number_first], span);
        let both = b.map(ScalarOp::And, &[nan, nan2], span);
        same = b.map(ScalarOp::Or, &[same, both], span);
    }
    let tie = b.map(ScalarOp::And, &[same, earlier], span);
    let mut before = b.map(ScalarOp::Or, &[less, tie], span);
    if let Some(present) = mask {
        let present2 = b.rename(present, &names, span);
        // Of a present element only present ones come before; of an absent one all present ones and the absent ones at lower positions.
        let among = b.map(ScalarOp::And, &[present2, before], span);
        let absent_order = b.map(ScalarOp::Or, &[present2, earlier], span);
        before = b.map(ScalarOp::Select, &[present, among, absent_order], span);
    }
    let one = b.map(ScalarOp::ToInt, &[before], span);
    b.add(Op::Reduce { op: ReduceOp::Sum, axes: others, body: one, mask: None }, span)
}

/// Number of set elements at lower positions.
fn count_before(b: &mut Builder, axes: &[AxisId], set: NodeId, span: Span) -> NodeId {
    let one = b.map(ScalarOp::ToInt, &[set], span);
    if let [axis] = axes {
        return prefix(b, ReduceOp::Sum, *axis, PrefixDir::Lt, one, None, span);
    }
    let names: Vec<(AxisId, AxisId)> = axes.iter().map(|a| (*a, b.twin(*a))).collect();
    let others: Vec<AxisId> = names.iter().map(|n| n.1).collect();
    let there = b.rename(one, &names, span);
    let (here, other) = (flat(b, axes, span), flat(b, &others, span));
    let earlier = b.map(ScalarOp::Lt, &[other, here], span);
    b.add(Op::Reduce { op: ReduceOp::Sum, axes: others, body: there, mask: Some(earlier) }, span)
}

/// Slot j of axis `to`: the position whose `place` is j (0 when there is none).
fn slot(b: &mut Builder, axes: &[AxisId], to: AxisId, place: NodeId, mask: Option<NodeId>, span: Span) -> NodeId {
    let j = b.add(Op::Index(to), span);
    let hit = b.map(ScalarOp::Eq, &[place, j], span);
    let hit = b.and(Some(hit), mask, span);
    let position = flat(b, axes, span);
    b.add(Op::Reduce { op: ReduceOp::Sum, axes: axes.to_vec(), body: position, mask: hit }, span)
}

/// A prefix reduction as a scan whose state is the running result.
fn prefix(b: &mut Builder, op: ReduceOp, axis: AxisId, dir: PrefixDir, body: NodeId, mask: Option<NodeId>, span: Span) -> NodeId {
    let reverse = matches!(dir, PrefixDir::Ge | PrefixDir::Gt);
    let scan = ScanId(b.graph.scans.len() as u32);
    let mut axes: AxisSet = b.graph.axes_of(body).clone();
    if let Some(m) = mask {
        axes.extend(b.graph.axes_of(m));
    }
    axes.remove(&axis);
    let mut with_axis = axes.clone();
    with_axis.insert(axis);
    let leaf = |b: &mut Builder, index: u32, dtype: DType| b.add_typed(Op::State { scan, index }, dtype, with_axis.clone(), span);
    let state = |name: &str, dtype: DType, init: NodeId, old: NodeId, next: NodeId| State {
        name: name.to_string(),
        dtype,
        axes: axes.clone(),
        declared: vec![],
        init,
        old,
        next,
    };
    let dtype = b.graph.dtype(body);
    let taken = |b: &mut Builder, new: NodeId, old: NodeId| match mask {
        Some(m) => b.map(ScalarOp::Select, &[m, new, old], span),
        None => new,
    };
    let (states, before, after) = match op.combine() {
        Some(combine) => {
            let init = b.constant_of(op.identity(dtype));
            let old = leaf(b, 0, dtype);
            let new = b.map(combine, &[old, body], span);
            let next = taken(b, new, old);
            (vec![state("running", dtype, init, old, next)], old, next)
        }
        None => {
            // (best, position): a reverse scan meets lower positions later, so ties move there.
            let better = if op == ReduceOp::ArgMax { ReduceOp::Max } else { ReduceOp::Min };
            let init = b.constant_of(better.identity(dtype));
            let none = b.int(-1);
            let (best, at) = (leaf(b, 0, dtype), leaf(b, 1, DType::Int));
            let (first, second) = if op == ReduceOp::ArgMax { (best, body) } else { (body, best) };
            let wins = b.map(if reverse { ScalarOp::Le } else { ScalarOp::Lt }, &[first, second], span);
            let empty = b.map(ScalarOp::Eq, &[at, none], span);
            let wins = b.map(ScalarOp::Or, &[wins, empty], span);
            let wins = b.and(Some(wins), mask, span).unwrap_or(wins);
            let here = b.add(Op::Index(axis), span);
            let next_best = b.map(ScalarOp::Select, &[wins, body, best], span);
            let next_at = b.map(ScalarOp::Select, &[wins, here, at], span);
            (vec![state("best", dtype, init, best, next_best), state("at", DType::Int, none, at, next_at)], at, next_at)
        }
    };
    let result = if matches!(dir, PrefixDir::Le | PrefixDir::Ge) { after } else { before };
    b.graph.scans.push(Scan { axis, reverse, parent: None, derived: true, states, exports: vec![result], history: vec![], span });
    result
}
