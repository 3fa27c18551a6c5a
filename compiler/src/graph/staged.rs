//! Programs with extents that depend on tensor values, as two programs: the first computes those extents, the second takes them as
//! scalars. A host runs the first, reads its results and calls the second; neither has an extent that the host cannot compute.

use super::bind::is_host;
use super::ir::*;
use crate::base::Span;
use crate::ops::{DType, Scalar};
use std::collections::{HashMap, HashSet};

/// The two programs, and the scalar inputs of the second that the first computes, in the order of its outputs.
#[derive(Clone, Debug)]
pub struct Staged {
    pub first: Graph,
    pub second: Graph,
    pub scalars: Vec<String>,
}

/// What the second program calls the extent of an axis. No source can say it.
fn name(axis: &Axis, number: usize) -> String {
    format!("extent of {} (axis {number})", axis.name)
}

/// Splits a graph; `None` when the host can compute all extents.
pub fn staged(graph: &Graph) -> Option<Staged> {
    let late: Vec<(usize, NodeId)> = graph
        .axes
        .iter()
        .enumerate()
        .filter_map(|(i, a)| if let Extent::Value(node) = a.extent { (!is_host(graph, node)).then_some((i, node)) } else { None })
        .collect();
    if late.is_empty() {
        return None;
    }
    let (mut first, mut second) = (graph.clone(), graph.clone());
    let zero = first.add(Op::Const(Scalar::Int(0)), DType::Int, AxisSet::new(), Span::default());
    first.outputs.clear();
    first.hints.clear();
    let axes: HashSet<AxisId> = late.iter().map(|l| AxisId(l.0 as u32)).collect();
    // Conditions of the call hold for both; those about the extents themselves are for the second.
    first.requires.retain(|r| !speaks_of(graph, r.cond, &axes));
    let mut scalars: Vec<String> = Vec::new();
    let mut given: HashMap<NodeId, NodeId> = HashMap::new();
    for (i, node) in late {
        first.axes[i].extent = Extent::Value(zero);
        if let Some(same) = given.get(&node) {
            second.axes[i].extent = Extent::Value(*same);
            continue;
        }
        let span = graph.axes[i].span;
        let name = name(&graph.axes[i], i);
        first.outputs.push(Output { name: name.clone(), dtype: DType::Int, axes: vec![], node, span });
        let input = InputId(second.inputs.len() as u32);
        second.inputs.push(Input { name: name.clone(), dtype: DType::Int, axes: vec![], default: None, fact: None, span });
        let scalar = second.add(Op::Input(input), DType::Int, AxisSet::new(), span);
        second.axes[i].extent = Extent::Value(scalar);
        given.insert(node, scalar);
        scalars.push(name);
    }
    Some(Staged { first, second, scalars })
}

/// Whether a value depends on an axis of the set.
pub fn speaks_of(graph: &Graph, id: NodeId, axes: &HashSet<AxisId>) -> bool {
    let mut seen = HashSet::new();
    let mut stack = vec![id];
    while let Some(id) = stack.pop() {
        if !seen.insert(id) {
            continue;
        }
        if matches!(graph.op(id), Op::Extent(a) if axes.contains(a)) || graph.axes_of(id).iter().any(|a| axes.contains(a)) {
            return true;
        }
        match graph.op(id) {
            Op::State { scan, .. } | Op::Final { scan, .. } | Op::History { scan, .. } => {
                let scan = &graph.scans[scan.index()];
                stack.extend(scan.states.iter().flat_map(|s| [s.init, s.next]).chain(scan.history.iter().map(|h| h.1)));
            }
            op => stack.extend(op.operands()),
        }
    }
    false
}
