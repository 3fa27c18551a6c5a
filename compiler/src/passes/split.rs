//! Splits long reductions that too few blocks would walk: one query against many keys.
//!
//! The axis is cut into spans `c`: a reduction over `s` becomes partial results over `s where s div length == c`, stored, and a
//! reduction of those over `c`. A sum that follows a running maximum follows the span's own, and the partial results are brought to
//! the common one by the rule that rescales in a loop: `sum[c] part * expdiff(m_c, m)`. Spans are whole blocks, so the tile pass
//! solves the condition for bounds of the loop and never tests it. Number and length of spans are expressions of the extent.
//!
//! Legal for reductions that combine and wait for nothing of the axis but a maximum. Pays where the result has no axis of positions
//! and at most two others besides features, no rows of it share what a block loads, and each element is dear (takes a reduction); or where `split s n` asks for it.
//! Source: the associativity of (m, sum) pairs, Milakov and Gimelshein 2018; docs/derivations.md, section 2.

use super::cost::Sizes;
use super::rewrite::{Builder, Rewrite, Work, dependencies, live, rebuild_node, rewrite};
use crate::base::Span;
use crate::graph::{Axis, AxisId, Extent, Graph, NodeId, Op};
use crate::ops::ScalarOp;
use crate::reduce::ReduceOp;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Positions that make a span worth a block of its own, and most spans.
const SPAN: i64 = 1024;
const MOST: i64 = 32;
/// Spans are multiples of this, which every block of keys divides.
const GRAIN: i64 = 128;

/// What `partition` must know of split reductions.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    /// Partial results, to be stored.
    pub parts: BTreeSet<NodeId>,
    /// The axes that number the spans.
    pub axes: BTreeSet<AxisId>,
    pub remarks: Vec<String>,
}

/// See the module.
pub fn split(work: Work) -> (Work, Spans) {
    let chosen = choose(&work.graph);
    if chosen.is_empty() {
        return (work, Spans::default());
    }
    let mut pass = Split { chosen, axes: HashMap::new(), maxima: HashMap::new(), spans: Spans::default() };
    let work = rewrite(work, &mut pass);
    (work, pass.spans)
}

/// Reductions to split, with the number of spans where a hint gives one.
fn choose(graph: &Graph) -> HashMap<NodeId, Option<i64>> {
    let sizes = Sizes::new(graph);
    let keep = live(graph);
    let hint = |axis: AxisId| graph.hints.iter().find(|h| h.kind == "split" && h.axis == Some(axis) && h.target.is_none()).map(|h| h.value);
    let positions = positions(graph);
    let mut groups: HashMap<AxisId, Vec<NodeId>> = HashMap::new();
    for id in graph.ids().filter(|id| keep.contains(id)) {
        let Op::Reduce { op, axes, .. } = graph.op(id) else { continue };
        let [axis] = axes.as_slice() else { continue };
        if op.combine().is_none() || sizes.is_feature(*axis) || in_step(graph, id) {
            continue;
        }
        let others: Vec<AxisId> = graph.axes_of(id).iter().copied().filter(|a| !sizes.is_feature(*a)).collect();
        let few = others.len() <= 2 && others.iter().all(|a| !sizes.is_long(*a) || !positions.contains(a)) && sizes.is_long(*axis);
        if few || hint(*axis).is_some_and(|n| n > 1) {
            groups.entry(*axis).or_default().push(id);
        }
    }
    groups.retain(|axis, ids| match hint(*axis) {
        Some(n) => n > 1,
        None => ids.iter().any(|id| is_dear(graph, *id, *axis)) && !ids.iter().any(|id| has_queries(graph, *id, *axis, &sizes)),
    });
    groups.into_iter().flat_map(|(axis, ids)| ids.into_iter().map(move |id| (id, axis)).collect::<Vec<_>>()).map(|(id, axis)| (id, hint(axis))).collect()
}

/// Axes whose positions mean something: scanned, twinned, or compared. Others only take part in addresses (`k[g = h div r]`).
fn positions(graph: &Graph) -> HashSet<AxisId> {
    let mut out: HashSet<AxisId> = graph.scans.iter().map(|s| s.axis).collect();
    for (i, axis) in graph.axes.iter().enumerate() {
        out.extend(axis.twin.into_iter().flat_map(|t| [t, AxisId(i as u32)]));
    }
    for id in graph.ids() {
        let Op::Map { op: ScalarOp::Lt | ScalarOp::Le | ScalarOp::Eq | ScalarOp::Ne, args } = graph.op(id) else { continue };
        let mut stack = args.clone();
        while let Some(id) = stack.pop() {
            match graph.op(id) {
                Op::Index(axis) => {
                    out.insert(*axis);
                }
                Op::Map { args, .. } => stack.extend(args),
                _ => {}
            }
        }
    }
    out
}

/// Whether the value is computed from states of a scan.
fn in_step(graph: &Graph, id: NodeId) -> bool {
    finds(graph, id, &mut |id| matches!(graph.op(id), Op::State { .. } | Op::History { .. } | Op::Final { .. }))
}

/// Whether an element of the reduction takes a reduction itself.
fn is_dear(graph: &Graph, id: NodeId, axis: AxisId) -> bool {
    graph.op(id).operands().into_iter().any(|o| finds(graph, o, &mut |n| matches!(graph.op(n), Op::Reduce { .. }) && graph.axes_of(n).contains(&axis)))
}

/// Whether elements are products one side of which lacks an axis of the result: its rows share what a block loads.
fn has_queries(graph: &Graph, id: NodeId, axis: AxisId, sizes: &Sizes) -> bool {
    let rows: Vec<AxisId> = graph.axes_of(id).iter().copied().filter(|a| !sizes.is_feature(*a)).collect();
    let shared = |n: NodeId| {
        let Op::Reduce { body, .. } = graph.op(n) else { return false };
        let mut factors = Vec::new();
        product(graph, *body, &mut factors);
        let with: Vec<NodeId> = factors.into_iter().filter(|f| graph.axes_of(*f).contains(&axis)).collect();
        graph.axes_of(n).contains(&axis) && rows.iter().any(|r| graph.axes_of(n).contains(r) && with.iter().any(|f| !graph.axes_of(*f).contains(r)))
    };
    graph.op(id).operands().into_iter().any(|o| finds(graph, o, &mut |n| shared(n)))
}

fn finds(graph: &Graph, id: NodeId, wanted: &mut dyn FnMut(NodeId) -> bool) -> bool {
    let mut seen = HashSet::new();
    let mut stack = vec![id];
    while let Some(id) = stack.pop() {
        if !seen.insert(id) {
            continue;
        }
        if wanted(id) {
            return true;
        }
        if !matches!(graph.op(id), Op::State { .. } | Op::History { .. } | Op::Final { .. }) {
            stack.extend(dependencies(graph, id));
        }
    }
    false
}

struct Split {
    chosen: HashMap<NodeId, Option<i64>>,
    /// The axis of spans and the length of one, by axis.
    axes: HashMap<AxisId, (AxisId, NodeId)>,
    /// Partial maxima by the whole one.
    maxima: HashMap<NodeId, NodeId>,
    spans: Spans,
}

impl Rewrite for Split {
    fn node(&mut self, b: &mut Builder, old: &Graph, map: &HashMap<NodeId, NodeId>, id: NodeId) -> NodeId {
        let built = rebuild_node(b, old, map, id);
        let (Some(count), Op::Reduce { op, axes, body, mask }) = (self.chosen.get(&id).copied(), b.graph.op(built).clone()) else { return built };
        let span = b.graph.node(built).span;
        // The maximum that the terms follow, and the rest of them.
        let mut factors = Vec::new();
        product(&b.graph, body, &mut factors);
        let gauge = factors.iter().position(|f| matches!(b.graph.op(*f), Op::Map { op: ScalarOp::ExpDiff, args } if self.maxima.contains_key(&args[1])));
        let gauge = gauge.filter(|_| op == ReduceOp::Sum).map(|i| factors.remove(i));
        let waits = |b: &Builder, id: NodeId| finds(&b.graph, id, &mut |n| matches!(b.graph.op(n), Op::Reduce { axes: a, .. } if *a == axes || a.iter().any(|a| self.spans.axes.contains(a))));
        let inner: Vec<NodeId> = match gauge {
            Some(g) => b.graph.op(g).operands().into_iter().take(1).chain(factors.iter().copied()).chain(mask).collect(),
            None => [body].into_iter().chain(mask).collect(),
        };
        if inner.iter().any(|i| waits(b, *i)) {
            return built;
        }
        let (spans, length) = self.axis(b, axes[0], count, span);
        let (at, here) = (b.add(Op::Index(axes[0]), span), b.add(Op::Index(spans), span));
        let number = b.map(ScalarOp::IntDiv, &[at, length], span);
        let own = b.map(ScalarOp::Eq, &[number, here], span);
        let part_mask = b.and(mask, Some(own), span);
        let (whole, part) = match gauge {
            Some(g) => {
                let Op::Map { args, .. } = b.graph.op(g).clone() else { return built };
                let Some(part_max) = self.maxima.get(&args[1]).copied() else { return built };
                let mut body = b.map(ScalarOp::ExpDiff, &[args[0], part_max], span);
                for f in factors {
                    body = b.map(ScalarOp::Mul, &[body, f], span);
                }
                let part = b.add(Op::Reduce { op, axes, body, mask: part_mask }, span);
                let weight = b.map(ScalarOp::ExpDiff, &[part_max, args[1]], span);
                let body = b.map(ScalarOp::Mul, &[part, weight], span);
                (b.add(Op::Reduce { op, axes: vec![spans], body, mask: None }, span), part)
            }
            None => {
                let part = b.add(Op::Reduce { op, axes, body, mask: part_mask }, span);
                (b.add(Op::Reduce { op, axes: vec![spans], body: part, mask: None }, span), part)
            }
        };
        self.spans.parts.insert(part);
        if op == ReduceOp::Max {
            self.maxima.insert(whole, part);
        }
        whole
    }
}

impl Split {
    /// The axis of spans of an axis, and the node of their length.
    fn axis(&mut self, b: &mut Builder, axis: AxisId, count: Option<i64>, span: Span) -> (AxisId, NodeId) {
        if let Some(found) = self.axes.get(&axis) {
            return *found;
        }
        let extent = b.add(Op::Extent(axis), span);
        let one = b.int(1);
        let number = match count {
            Some(n) => b.int(n),
            None => {
                let (least, most) = (b.int(SPAN), b.int(MOST));
                let n = b.map(ScalarOp::CeilDiv, &[extent, least], span);
                let n = b.map(ScalarOp::Min, &[n, most], span);
                b.map(ScalarOp::Max, &[n, one], span)
            }
        };
        let grain = b.int(GRAIN);
        let length = b.map(ScalarOp::CeilDiv, &[extent, number], span);
        let grains = b.map(ScalarOp::CeilDiv, &[length, grain], span);
        let grains = b.map(ScalarOp::Max, &[grains, one], span);
        let length = b.map(ScalarOp::Mul, &[grains, grain], span);
        let name = b.graph.axis(axis).name.clone();
        let record = Axis { name: format!("{name}_span"), extent: Extent::Value(number), twin: None, split: None, span };
        let new = b.graph.add_axis(record);
        self.spans.axes.insert(new);
        self.spans.remarks.push(format!("{name} is cut into spans whose results are merged: too few blocks otherwise"));
        self.axes.insert(axis, (new, length));
        (new, length)
    }
}

fn product(graph: &Graph, id: NodeId, out: &mut Vec<NodeId>) {
    match graph.op(id) {
        Op::Map { op: ScalarOp::Mul, args } => args.iter().for_each(|a| product(graph, *a, out)),
        _ => out.push(id),
    }
}
