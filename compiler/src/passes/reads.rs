//! Pushes reads down to the leaves, so that index arithmetic meets the memory it addresses.
//!
//! `(f(a, b))[t = e]` is `f(a[t = e], b[t = e])`; reads of reads compose. What cannot be pushed through becomes a cut: a value stored
//! in memory of its own and read from there (results of scans, of reductions unless the read only renames axes of a value too large
//! to store, and of cuts that other passes asked for).

use super::cost::Sizes;
use super::rewrite::{Builder, Rewrite, Work, rebuild_node, rewrite};
use crate::base::Span;
use crate::graph::{AxisId, AxisSet, Graph, NodeId, Op};
use std::collections::{BTreeSet, HashMap};

/// See the module.
pub fn push_reads(work: Work) -> Work {
    let sizes = Sizes::new(&work.graph);
    let exports: BTreeSet<NodeId> = work.graph.scans.iter().flat_map(|s| s.exports.iter().copied()).collect();
    let leaves: BTreeSet<NodeId> = exports.union(&work.cuts).copied().collect();
    rewrite(work, &mut Push { sizes, leaves, new_leaves: BTreeSet::new(), memo: HashMap::new() })
}

struct Push {
    sizes: Sizes,
    /// Leaves by their ids in the old graph, and in the new one.
    leaves: BTreeSet<NodeId>,
    new_leaves: BTreeSet<NodeId>,
    memo: HashMap<(NodeId, Vec<(AxisId, NodeId)>), NodeId>,
}

impl Rewrite for Push {
    fn node(&mut self, b: &mut Builder, old: &Graph, map: &HashMap<NodeId, NodeId>, id: NodeId) -> NodeId {
        let new = match old.op(id) {
            Op::Read { value, subs } => {
                let value = map.get(value).copied().unwrap_or(*value);
                let subs = subs.iter().map(|(a, e)| (*a, map.get(e).copied().unwrap_or(*e))).collect();
                self.read(b, value, subs, old.node(id).span)
            }
            _ => rebuild_node(b, old, map, id),
        };
        if self.leaves.contains(&id) {
            self.new_leaves.insert(new);
        }
        new
    }
}

impl Push {
    fn read(&mut self, b: &mut Builder, value: NodeId, mut subs: Vec<(AxisId, NodeId)>, span: Span) -> NodeId {
        subs.retain(|(axis, index)| b.graph.axes_of(value).contains(axis) && *b.graph.op(*index) != Op::Index(*axis));
        subs.sort_by_key(|s| s.0);
        if subs.is_empty() {
            return value;
        }
        let key = (value, subs.clone());
        if let Some(id) = self.memo.get(&key) {
            return *id;
        }
        let id = self.read_new(b, value, subs, span);
        self.memo.insert(key, id);
        id
    }

    fn leaf(&mut self, b: &mut Builder, value: NodeId, subs: Vec<(AxisId, NodeId)>, span: Span) -> NodeId {
        if !matches!(b.graph.op(value), Op::Input(_) | Op::State { .. } | Op::Final { .. } | Op::History { .. }) {
            b.cuts.insert(value);
        }
        b.add(Op::Read { value, subs }, span)
    }

    fn read_new(&mut self, b: &mut Builder, value: NodeId, subs: Vec<(AxisId, NodeId)>, span: Span) -> NodeId {
        if self.new_leaves.contains(&value) {
            return self.leaf(b, value, subs, span);
        }
        match b.graph.op(value).clone() {
            Op::Index(axis) => subs.iter().find(|s| s.0 == axis).map_or(value, |s| s.1),
            Op::Map { op, args } => {
                let args: Vec<NodeId> = args.iter().map(|a| self.read(b, *a, subs.clone(), span)).collect();
                b.map(op, &args, span)
            }
            Op::Read { value: inner, subs: first } => {
                let mut all: Vec<(AxisId, NodeId)> = first.iter().map(|(a, e)| (*a, self.read(b, *e, subs.clone(), span))).collect();
                for (axis, index) in &subs {
                    if b.graph.axes_of(inner).contains(axis) && !first.iter().any(|f| f.0 == *axis) {
                        all.push((*axis, *index));
                    }
                }
                self.read(b, inner, all, span)
            }
            Op::Expand { value: inner, axes } => {
                let inner = self.read(b, inner, subs.clone(), span);
                let mut axes: AxisSet = axes.into_iter().filter(|a| !subs.iter().any(|s| s.0 == *a)).collect();
                for (_, index) in &subs {
                    axes.extend(b.graph.axes_of(*index));
                }
                let missing: Vec<AxisId> = axes.into_iter().filter(|a| !b.graph.axes_of(inner).contains(a)).collect();
                if missing.is_empty() { inner } else { b.add(Op::Expand { value: inner, axes: missing }, span) }
            }
            Op::Reduce { op, axes, body, mask } if self.should_rename(b, value, &axes, &subs) => {
                // The indices must not be captured by the reduced axes.
                let body = self.read(b, body, subs.clone(), span);
                let mask = mask.map(|m| self.read(b, m, subs.clone(), span));
                b.add(Op::Reduce { op, axes, body, mask }, span)
            }
            _ => self.leaf(b, value, subs, span),
        }
    }

    /// A reduction is computed again under new axis names only when the read is a renaming and storing it would take memory that
    /// grows with the product of two long axes.
    fn should_rename(&self, b: &Builder, value: NodeId, reduced: &[AxisId], subs: &[(AxisId, NodeId)]) -> bool {
        let renames = subs.iter().all(|(_, index)| matches!(b.graph.op(*index), Op::Index(_)));
        let captured = subs.iter().any(|(_, index)| b.graph.axes_of(*index).iter().any(|a| reduced.contains(a)));
        let clash = subs.iter().any(|(_, index)| b.graph.axes_of(*index).iter().any(|a| b.graph.axes_of(value).contains(a)));
        renames && !captured && !clash && self.sizes.long_axes(b.graph.axes_of(value)) >= 2
    }
}
