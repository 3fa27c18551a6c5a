//! Algebra on sums, so that cascades become one pass and scales meet small operands.
//!
//! 1. `sum[s] f * x`, f free of s, is `f * sum[s] x`; `sum[s] ratio(x, z)` is `ratio(sum[s] x, z)`; `sum[s] x / z` likewise. Exact over
//!    the reals. Done when f depends on a reduction over the same axes: then the sum no longer waits for it.
//! 2. `c * sum[d] a * b` is `sum[d] (c * a) * b` for a scalar c: one product per element of the smaller operand instead of the result.
//!
//! Matches factors of products, never a program. Sums with several terms are the business of `stream`.
//! Source: the rescaling view of Milakov and Gimelshein 2018; distribution rules as in docs/derivations.md.

use super::rewrite::{Builder, Rewrite, Work, dependencies, rebuild_node, rewrite};
use crate::base::Span;
use crate::graph::{AxisId, Graph, NodeId, Op};
use crate::ops::{DType, ScalarOp};
use crate::reduce::ReduceOp;
use std::collections::{HashMap, HashSet};

/// See the module, rule 1.
pub fn hoist_factors(work: Work) -> Work {
    rewrite(work, &mut Hoist)
}

/// See the module, rule 2.
pub fn sink_scales(work: Work) -> Work {
    rewrite(work, &mut Sink)
}

struct Hoist;

impl Rewrite for Hoist {
    fn node(&mut self, b: &mut Builder, old: &Graph, map: &HashMap<NodeId, NodeId>, id: NodeId) -> NodeId {
        let new = rebuild_node(b, old, map, id);
        let Op::Reduce { op: ReduceOp::Sum, axes, body, mask } = b.graph.op(new).clone() else { return new };
        if b.graph.dtype(body) != DType::Real {
            return new;
        }
        let free = |b: &Builder, id: NodeId| {
            axes.iter().all(|a| !b.graph.axes_of(id).contains(a)) && reduces_over(&b.graph, id, &axes)
        };
        let mut kept: Vec<NodeId> = Vec::new();
        let mut outer: Vec<(ScalarOp, NodeId)> = Vec::new();
        split(b, body, &free, &mut kept, &mut outer);
        // Every reduced axis must still occur, or the sum would count other elements.
        let covered = axes.iter().all(|a| {
            kept.iter().any(|k| b.graph.axes_of(*k).contains(a)) || mask.is_some_and(|m| b.graph.axes_of(m).contains(a))
        });
        if outer.is_empty() || kept.is_empty() || !covered {
            return new;
        }
        let span = b.graph.node(new).span;
        let body = product(b, &kept, span);
        let mut result = b.add(Op::Reduce { op: ReduceOp::Sum, axes, body, mask }, span);
        for (op, factor) in outer {
            result = b.map(op, &[result, factor], span);
        }
        result
    }
}

fn product(b: &mut Builder, factors: &[NodeId], span: Span) -> NodeId {
    let mut result = factors[0];
    for f in &factors[1..] {
        result = b.map(ScalarOp::Mul, &[result, *f], span);
    }
    result
}

/// Factors of a product: those that stay in the sum, and (op, factor) pairs to apply outside.
fn split(b: &Builder, id: NodeId, free: &dyn Fn(&Builder, NodeId) -> bool, kept: &mut Vec<NodeId>, outer: &mut Vec<(ScalarOp, NodeId)>) {
    if free(b, id) {
        outer.push((ScalarOp::Mul, id));
        return;
    }
    match b.graph.op(id) {
        Op::Map { op: ScalarOp::Mul, args } => {
            split(b, args[0], free, kept, outer);
            split(b, args[1], free, kept, outer);
        }
        Op::Map { op: op @ (ScalarOp::Ratio | ScalarOp::Div), args } if free(b, args[1]) => {
            split(b, args[0], free, kept, outer);
            outer.push((*op, args[1]));
        }
        _ => kept.push(id),
    }
}

/// Whether the value depends on a reduction over exactly these axes (the mark of a cascade).
fn reduces_over(graph: &Graph, id: NodeId, axes: &[AxisId]) -> bool {
    let mut stack = vec![id];
    let mut seen = HashSet::new();
    while let Some(id) = stack.pop() {
        if !seen.insert(id) {
            continue;
        }
        match graph.op(id) {
            Op::Reduce { axes: a, .. } if a == axes => return true,
            Op::Reduce { .. } | Op::Map { .. } | Op::Expand { .. } => stack.extend(dependencies(graph, id)),
            _ => {}
        }
    }
    false
}

struct Sink;

impl Rewrite for Sink {
    fn node(&mut self, b: &mut Builder, old: &Graph, map: &HashMap<NodeId, NodeId>, id: NodeId) -> NodeId {
        let new = rebuild_node(b, old, map, id);
        let Op::Map { op: ScalarOp::Mul, args } = b.graph.op(new).clone() else { return new };
        for (scale, sum) in [(args[0], args[1]), (args[1], args[0])] {
            let Op::Reduce { op: ReduceOp::Sum, axes, body, mask: None } = b.graph.op(sum).clone() else { continue };
            if !b.graph.axes_of(scale).is_empty() || b.graph.dtype(sum) != DType::Real || !invariant(&b.graph, scale) || b.cuts.contains(&sum) {
                continue;
            }
            let span = b.graph.node(new).span;
            let Op::Map { op: ScalarOp::Mul, args: factors } = b.graph.op(body).clone() else { continue };
            // The operand that is not addressed through a read is the one that loops leave alone.
            let read = |b: &Builder, id: NodeId| matches!(b.graph.op(id), Op::Read { .. });
            let (first, second) = if read(b, factors[0]) && !read(b, factors[1]) { (factors[1], factors[0]) } else { (factors[0], factors[1]) };
            let scaled = b.map(ScalarOp::Mul, &[first, scale], span);
            let body = b.map(ScalarOp::Mul, &[scaled, second], span);
            return b.add(Op::Reduce { op: ReduceOp::Sum, axes, body, mask: None }, span);
        }
        new
    }
}

/// A scalar known before the launch.
fn invariant(graph: &Graph, id: NodeId) -> bool {
    match graph.op(id) {
        Op::Const(_) | Op::Extent(_) | Op::Input(_) => true,
        Op::Map { args, .. } => args.iter().all(|a| invariant(graph, *a)),
        _ => false,
    }
}
