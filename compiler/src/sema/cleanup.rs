//! Keeps what outputs and checks at the call need: dead nodes, rounds of scans that were elaborated again and unused axes of
//! inlined functions go; ids are renumbered in order of creation.

use crate::graph::{AxisId, Extent, Graph, Node, NodeId, Op, ScanId};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The graph without dead parts.
pub(super) fn live(mut old: Graph) -> Graph {
    detach(&mut old);
    let mut nodes: BTreeSet<NodeId> = BTreeSet::new();
    let mut scans: BTreeSet<ScanId> = BTreeSet::new();
    let mut axes: BTreeSet<AxisId> = BTreeSet::new();
    let mut work: Vec<NodeId> = Vec::new();
    work.extend(old.outputs.iter().map(|o| o.node));
    work.extend(old.requires.iter().map(|r| r.cond));
    work.extend(old.inputs.iter().flat_map(|i| i.default.into_iter().chain(i.fact.map(|f| f.bound))));
    let mut new_axes: Vec<AxisId> = Vec::new();
    new_axes.extend(old.inputs.iter().flat_map(|i| i.axes.iter().copied()));
    new_axes.extend(old.outputs.iter().flat_map(|o| o.axes.iter().copied()));
    new_axes.extend(old.hints.iter().filter_map(|h| h.axis));
    loop {
        while let Some(axis) = new_axes.pop() {
            if !axes.insert(axis) {
                continue;
            }
            if let Extent::Value(node) = old.axis(axis).extent {
                work.push(node);
            }
            new_axes.extend(old.axis(axis).twin);
        }
        let Some(id) = work.pop() else { break };
        if !nodes.insert(id) {
            continue;
        }
        new_axes.extend(old.axes_of(id).iter().copied());
        work.extend(old.op(id).operands());
        match old.op(id) {
            Op::Index(a) | Op::Extent(a) | Op::Prefix { axis: a, .. } => new_axes.push(*a),
            Op::Reduce { axes: a, .. } | Op::Rank { axes: a, .. } | Op::TopK { axes: a, .. } | Op::Expand { axes: a, .. } => new_axes.extend(a),
            Op::ArgSort { axes: a, to, .. } | Op::List { axes: a, to, .. } => new_axes.extend(a.iter().chain([to])),
            Op::Read { subs, .. } => new_axes.extend(subs.iter().map(|s| s.0)),
            Op::Solve { rows, cols, .. } => new_axes.extend([*rows, *cols]),
            Op::State { scan, .. } | Op::Final { scan, .. } | Op::History { scan, .. } => {
                if scans.insert(*scan) {
                    let record = &old.scans[scan.index()];
                    new_axes.push(record.axis);
                    work.extend(record.states.iter().flat_map(|s| [s.init, s.old, s.next]));
                    work.extend(record.history.iter().flat_map(|h| [h.0, h.1]));
                    for state in &record.states {
                        new_axes.extend(state.axes.iter().chain(&state.declared));
                    }
                    // The scan around it keeps its place even when only this one is used.
                    if let Some(parent) = record.parent {
                        work.extend(old.scans[parent.index()].states.iter().map(|s| s.old));
                        work.extend(old.scans[parent.index()].history.iter().map(|h| h.0));
                    }
                }
            }
            Op::Input(_) | Op::Const(_) | Op::Map { .. } => {}
        }
    }
    rebuild(&old, &nodes, &scans, &axes)
}

/// A scan that reads nothing of the step around it does not belong to it.
fn detach(graph: &mut Graph) {
    for i in 0..graph.scans.len() {
        while let Some(parent) = graph.scans[i].parent {
            let axis = graph.scans[parent.index()].axis;
            let states = &graph.scans[i].states;
            let roots: Vec<NodeId> = states.iter().flat_map(|s| [s.init, s.next]).collect();
            let inside = states.iter().any(|s| s.axes.contains(&axis)) || uses_scan(graph, &roots, parent);
            if inside {
                break;
            }
            graph.scans[i].parent = graph.scans[parent.index()].parent;
        }
    }
}

fn uses_scan(graph: &Graph, roots: &[NodeId], scan: ScanId) -> bool {
    let mut work = roots.to_vec();
    let mut seen = HashSet::new();
    while let Some(n) = work.pop() {
        if !seen.insert(n) {
            continue;
        }
        match *graph.op(n) {
            Op::State { scan: s, .. } | Op::History { scan: s, .. } if s == scan => return true,
            Op::State { scan: s, .. } | Op::Final { scan: s, .. } | Op::History { scan: s, .. } => {
                graph.scans[s.index()].states.iter().for_each(|x| work.extend([x.init, x.next]));
            }
            _ => work.extend(graph.op(n).operands()),
        }
    }
    false
}

fn rebuild(old: &Graph, nodes: &BTreeSet<NodeId>, scans: &BTreeSet<ScanId>, axes: &BTreeSet<AxisId>) -> Graph {
    let axis_of: BTreeMap<AxisId, AxisId> = axes.iter().enumerate().map(|(i, a)| (*a, AxisId(i as u32))).collect();
    let scan_of: BTreeMap<ScanId, ScanId> = scans.iter().enumerate().map(|(i, s)| (*s, ScanId(i as u32))).collect();
    let axis = |a: AxisId| axis_of.get(&a).copied().unwrap_or(a);
    let scan = |s: ScanId| scan_of.get(&s).copied().unwrap_or(s);
    let mut new = Graph { name: old.name.clone(), doc: old.doc.clone(), ..Graph::default() };
    let mut node_of: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    for id in nodes {
        let n = old.node(*id);
        let mut op = n.op.map_operands(|o| node_of.get(&o).copied().unwrap_or(o));
        match &mut op {
            Op::Index(a) | Op::Extent(a) | Op::Prefix { axis: a, .. } => *a = axis(*a),
            Op::Reduce { axes, .. } | Op::Rank { axes, .. } | Op::TopK { axes, .. } | Op::Expand { axes, .. } => {
                axes.iter_mut().for_each(|a| *a = axis(*a));
            }
            Op::ArgSort { axes, to, .. } | Op::List { axes, to, .. } => {
                axes.iter_mut().for_each(|a| *a = axis(*a));
                *to = axis(*to);
            }
            Op::Read { subs, .. } => subs.iter_mut().for_each(|s| s.0 = axis(s.0)),
            Op::Solve { rows, cols, .. } => (*rows, *cols) = (axis(*rows), axis(*cols)),
            Op::State { scan: s, .. } | Op::Final { scan: s, .. } | Op::History { scan: s, .. } => *s = scan(*s),
            Op::Input(_) | Op::Const(_) | Op::Map { .. } => {}
        }
        let set = n.axes.iter().map(|a| axis(*a)).collect();
        let fresh = new.add(op, n.dtype, set, n.span);
        let Node { name, .. } = &mut new.dag[fresh.0];
        name.clone_from(&n.name);
        node_of.insert(*id, fresh);
    }
    let node = |id: NodeId| node_of.get(&id).copied().unwrap_or(id);
    for a in axes {
        let mut record = old.axis(*a).clone();
        if let Extent::Value(v) = &mut record.extent {
            *v = node(*v);
        }
        record.twin = record.twin.map(axis);
        new.axes.push(record);
    }
    for input in &old.inputs {
        let mut record = input.clone();
        record.axes.iter_mut().for_each(|a| *a = axis(*a));
        record.default = record.default.map(node);
        if let Some(fact) = &mut record.fact {
            fact.bound = node(fact.bound);
        }
        new.inputs.push(record);
    }
    for s in scans {
        let mut record = old.scans[s.index()].clone();
        record.axis = axis(record.axis);
        record.parent = record.parent.map(scan);
        for state in &mut record.states {
            state.axes = state.axes.iter().map(|a| axis(*a)).collect();
            state.declared.iter_mut().for_each(|a| *a = axis(*a));
            (state.init, state.old, state.next) = (node(state.init), node(state.old), node(state.next));
        }
        record.exports.retain(|e| node_of.contains_key(e));
        record.exports.iter_mut().for_each(|e| *e = node(*e));
        record.history.iter_mut().for_each(|h| *h = (node(h.0), node(h.1)));
        new.scans.push(record);
    }
    for output in &old.outputs {
        let mut record = output.clone();
        record.axes.iter_mut().for_each(|a| *a = axis(*a));
        record.node = node(record.node);
        new.outputs.push(record);
    }
    for require in &old.requires {
        let mut record = require.clone();
        record.cond = node(record.cond);
        new.requires.push(record);
    }
    for hint in &old.hints {
        let mut record = hint.clone();
        record.axis = record.axis.map(axis);
        new.hints.push(record);
    }
    new
}
