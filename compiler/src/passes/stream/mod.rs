//! Cascades of reductions over one axis, rewritten so that one pass over the axis serves as many of them as possible.
//!
//! A sum whose terms mix results of other reductions over the same axes with elements is distributed into monomials
//! `free * sum[s] loop * expdiff(x, m)`, so that what is left inside waits for nothing but a running maximum (`terms`). Each
//! reduction gets a *level*: the pass over the axis in which it is complete. A sum is tried at the level of its operands; where the
//! algebra fails it takes one pass more, and the reason becomes a remark. The tile pass then shares loops by the same rule as before.
//!
//! Exact over the reals; what rounding forbids is refused (`terms`, cancellation). Matches operators, never a program.
//! Source: docs/derivations.md, section 2; Milakov and Gimelshein 2018 for the rescaling.

mod ranges;
mod terms;

use super::cost::Sizes;
use super::rewrite::{Builder, Rewrite, Work, dependencies, rebuild_node, rewrite};
use crate::graph::{AxisId, Graph, NodeId, Op};
use crate::ops::{DType, Scalar, ScalarOp};
use crate::reduce::ReduceOp;
use std::collections::{BTreeSet, HashMap, HashSet};
use terms::{Sum, Terms};

/// See the module. Also gives the remarks: which reductions take a further pass, and why.
pub fn stream(work: Work) -> (Work, Vec<String>) {
    let sizes = Sizes::new(&work.graph);
    let stored: BTreeSet<NodeId> = work.cuts.iter().copied().chain(work.graph.scans.iter().flat_map(|s| s.exports.iter().copied())).collect();
    let mut pass = Stream { sizes, stored, finals: HashSet::new(), levels: HashMap::new(), remarks: vec![] };
    let work = rewrite(work, &mut pass);
    (work, pass.remarks)
}

struct Stream {
    sizes: Sizes,
    /// Nodes of the old graph that live in memory: their readers wait for another kernel, not for a pass.
    stored: BTreeSet<NodeId>,
    /// Their images.
    finals: HashSet<NodeId>,
    /// The pass over its axes in which a reduction of the new graph is complete, from 1.
    levels: HashMap<NodeId, u32>,
    remarks: Vec<String>,
}

impl Rewrite for Stream {
    fn node(&mut self, b: &mut Builder, old: &Graph, map: &HashMap<NodeId, NodeId>, id: NodeId) -> NodeId {
        let built = rebuild_node(b, old, map, id);
        let new = match b.graph.op(built).clone() {
            Op::Reduce { op, axes, body, mask } => self.reduction(b, built, op, &axes, body, mask),
            _ => built,
        };
        if self.stored.contains(&id) {
            self.finals.insert(new);
        }
        new
    }
}

impl Stream {
    fn reduction(&mut self, b: &mut Builder, built: NodeId, op: ReduceOp, axes: &[AxisId], body: NodeId, mask: Option<NodeId>) -> NodeId {
        // Positions inside a block are held whole: there is no pass to share, and exchanged sums would only grow.
        if axes.iter().any(|x| b.graph.axis(*x).split.is_some()) {
            return built;
        }
        // A sum that selects zero is a sum over fewer elements: the mask skips whole blocks.
        if let (ReduceOp::Sum, Op::Map { op: ScalarOp::Select, args }) = (op, b.graph.op(body).clone()) {
            let span = b.graph.node(built).span;
            let zero = matches!(b.graph.op(args[2]), Op::Const(Scalar::Int(0))) || matches!(b.graph.op(args[2]), Op::Const(Scalar::Real(0.0)));
            let covered = axes.iter().all(|a| b.graph.axes_of(args[0]).contains(a) || b.graph.axes_of(args[1]).contains(a) || mask.is_some_and(|m| b.graph.axes_of(m).contains(a)));
            if zero && covered && axes.iter().any(|a| b.graph.axes_of(args[0]).contains(a)) {
                let mask = b.and(mask, Some(args[0]), span);
                let fewer = b.add(Op::Reduce { op, axes: axes.to_vec(), body: args[1], mask }, span);
                return self.reduction(b, fewer, op, axes, args[1], mask);
            }
        }
        if let Some(level) = self.levels.get(&built) {
            debug_assert!(*level > 0);
            return built;
        }
        let mut level = 1;
        let inputs: Vec<NodeId> = [body].into_iter().chain(mask).collect();
        let below = self.reductions(&b.graph, &inputs, axes);
        let highest = below.iter().map(|r| self.levels.get(r).copied().unwrap_or(1)).max().unwrap_or(0);
        // Passes over feature axes are held whole: nothing is loaded again.
        let looped = axes.iter().any(|a| !self.sizes.is_feature(*a));
        let mut reasons = Vec::new();
        let mut found: Option<Vec<Sum>> = None;
        while level <= highest {
            let running: HashSet<NodeId> = below.iter().copied().filter(|r| self.levels.get(r).copied().unwrap_or(1) >= level).collect();
            match self.expand(b, op, axes, body, mask, &running) {
                Ok(sums) => {
                    found = Some(sums);
                    break;
                }
                Err(reason) => {
                    reasons.push(reason);
                    level += 1;
                }
            }
        }
        if looped {
            let axis: Vec<&str> = axes.iter().map(|a| b.graph.axis(*a).name.as_str()).collect();
            let name = b.graph.node(built).name.clone().unwrap_or_else(|| format!("{} over {}", op.name(), axis.join(", ")));
            for (i, reason) in reasons.iter().enumerate() {
                self.remarks.push(format!("{name}: pass {} over {}, because {reason}", i + 2, axis.join(", ")));
            }
        }
        self.levels.insert(built, level);
        let Some(sums) = found.filter(|_| looped) else { return built };
        // One product under one known maximum needs no distribution: the factors leave it in `algebra`.
        if let [one] = sums.as_slice() {
            if one.is_plain() {
                return built;
            }
        }
        match self.assemble(b, axes, body, mask, sums, level) {
            Some(new) => {
                let name = b.graph.node(built).name.clone();
                if b.graph.node(new).name.is_none() {
                    b.graph.dag[new.0].name = name;
                }
                new
            }
            None => built,
        }
    }

    /// Monomials of the body under the running results; none running: the body itself.
    fn expand(&self, b: &mut Builder, op: ReduceOp, axes: &[AxisId], body: NodeId, mask: Option<NodeId>, running: &HashSet<NodeId>) -> Result<Vec<Sum>, String> {
        let waits = |b: &Builder, id: NodeId| reaches(&b.graph, id, running, &self.finals);
        if mask.is_some_and(|m| waits(b, m)) {
            return Err("its condition needs a result of the pass".to_string());
        }
        if !waits(b, body) {
            return Ok(vec![Sum::whole(body)]);
        }
        if op != ReduceOp::Sum || b.graph.dtype(body) != DType::Real {
            return Err(format!("`{}` of values that need a result of the pass", op.name()));
        }
        let mut terms = Terms { axes, running, finals: &self.finals, sizes: &self.sizes, condition: None };
        let list = terms.of(b, body)?;
        list.merged(b, &terms)
    }

    /// The value of the sum out of its accumulators.
    fn assemble(&mut self, b: &mut Builder, axes: &[AxisId], body: NodeId, mask: Option<NodeId>, sums: Vec<Sum>, level: u32) -> Option<NodeId> {
        let span = b.graph.node(body).span;
        let mut total: Option<NodeId> = None;
        for sum in sums {
            let (value, negative, made) = sum.value(b, axes, mask, span)?;
            for reduction in made {
                self.levels.insert(reduction, level);
            }
            total = Some(match (total, negative) {
                (None, false) => value,
                (None, true) => b.map(ScalarOp::Neg, &[value], span),
                (Some(t), false) => b.map(ScalarOp::Add, &[t, value], span),
                (Some(t), true) => b.map(ScalarOp::Sub, &[t, value], span),
            });
        }
        total
    }

    /// Reductions over exactly these axes that the values are computed from, without going through memory.
    fn reductions(&self, graph: &Graph, ids: &[NodeId], axes: &[AxisId]) -> HashSet<NodeId> {
        let mut out = HashSet::new();
        let mut seen = HashSet::new();
        let mut stack = ids.to_vec();
        while let Some(id) = stack.pop() {
            if !seen.insert(id) || self.finals.contains(&id) {
                continue;
            }
            if let Op::Reduce { axes: a, .. } = graph.op(id) {
                if a == axes {
                    out.insert(id);
                }
            }
            if matches!(graph.op(id), Op::Reduce { .. } | Op::Map { .. } | Op::Expand { .. }) {
                stack.extend(dependencies(graph, id));
            }
        }
        out
    }
}

/// Whether the value is computed from one of `targets`, not through memory.
fn reaches(graph: &Graph, id: NodeId, targets: &HashSet<NodeId>, finals: &HashSet<NodeId>) -> bool {
    let mut seen = HashSet::new();
    let mut stack = vec![id];
    while let Some(id) = stack.pop() {
        if !seen.insert(id) || finals.contains(&id) {
            continue;
        }
        if targets.contains(&id) {
            return true;
        }
        if matches!(graph.op(id), Op::Reduce { .. } | Op::Map { .. } | Op::Expand { .. }) {
            stack.extend(dependencies(graph, id));
        }
    }
    false
}

/// Whether every element that passes `mask` passes `wider`, seen by their conjuncts. No mask lets everything pass.
pub(crate) fn implies(graph: &Graph, mask: Option<NodeId>, wider: Option<NodeId>) -> bool {
    fn conjuncts(graph: &Graph, id: NodeId, out: &mut HashSet<NodeId>) {
        if out.insert(id) {
            if let Op::Map { op: ScalarOp::And, args } = graph.op(id) {
                args.iter().for_each(|a| conjuncts(graph, *a, out));
            }
        }
    }
    let Some(wider) = wider else { return true };
    let Some(mask) = mask else { return false };
    let (mut has, mut needs) = (HashSet::new(), HashSet::new());
    conjuncts(graph, mask, &mut has);
    conjuncts(graph, wider, &mut needs);
    has.contains(&wider) || needs.iter().all(|n| has.contains(n) || matches!(graph.op(*n), Op::Map { op: ScalarOp::And, .. }))
}
