//! Checks the invariants of a graph: everything that passes may rely on and must keep.

use super::ir::{AxisId, AxisSet, Extent, Graph, NodeId, Op, ScanId};
use crate::ops::DType;
use petgraph::algo::toposort;
use petgraph::visit::{EdgeRef, IntoEdgeReferences};

/// One broken invariant: where, and what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct Fault {
    pub place: String,
    pub what: String,
}

/// All broken invariants of a graph; empty for a sound one.
pub fn verify(graph: &Graph) -> Vec<Fault> {
    let mut check = Check { graph, faults: Vec::new() };
    check.tables();
    for id in graph.ids() {
        check.node(id);
    }
    // The other checks look nodes up, which is only safe when all ids exist.
    if check.faults.is_empty() {
        check.edges();
        (0..graph.scans.len()).for_each(|k| check.scan(ScanId(k as u32)));
        check.uses();
    }
    check.faults
}

struct Check<'a> {
    graph: &'a Graph,
    faults: Vec<Fault>,
}

impl Check<'_> {
    fn fault(&mut self, place: impl ToString, what: impl Into<String>) {
        self.faults.push(Fault { place: place.to_string(), what: what.into() });
    }

    fn exists(&mut self, place: &str, node: NodeId) -> bool {
        let there = self.graph.dag.contains_node(node.0);
        if !there {
            self.fault(place, format!("{node:?} does not exist"));
        }
        there
    }

    fn names(&self, axes: &AxisSet) -> String {
        let names: Vec<String> = axes.iter().map(|a| self.graph.axes.get(a.index()).map_or(format!("{a:?}"), |x| x.name.clone())).collect();
        format!("[{}]", names.join(","))
    }

    /// A node that must be a scalar of this dtype.
    fn scalar(&mut self, place: &str, node: NodeId, dtype: DType) {
        if self.exists(place, node) && (self.graph.dtype(node) != dtype || !self.graph.axes_of(node).is_empty()) {
            let found = format!("{} {}", self.graph.dtype(node).name(), self.names(self.graph.axes_of(node)));
            self.fault(place, format!("{node:?} must be a scalar {}, is {found}", dtype.name()));
        }
    }

    fn tables(&mut self) {
        let graph = self.graph;
        let known = |a: &AxisId| a.index() < graph.axes.len();
        for axis in &graph.axes {
            let place = format!("axis {}", axis.name);
            if let Extent::Value(node) = axis.extent {
                self.scalar(&place, node, DType::Int);
            }
            if axis.twin.is_some_and(|t| !known(&t)) {
                self.fault(&place, "its twin does not exist");
            }
        }
        for input in &graph.inputs {
            let place = format!("input {}", input.name);
            if !input.axes.iter().all(known) {
                self.fault(&place, "an axis does not exist");
            }
            if (1..input.axes.len()).any(|k| input.axes[..k].contains(&input.axes[k])) {
                self.fault(&place, "an axis is listed twice");
            }
            if let Some(default) = input.default
                && self.exists(&place, default)
            {
                if graph.dtype(default) != input.dtype {
                    self.fault(&place, format!("its default is {}", graph.dtype(default).name()));
                }
                if graph.axes_of(default).iter().any(|a| !input.axes.contains(a)) {
                    self.fault(&place, "its default has other axes");
                }
            }
            if let Some(fact) = input.fact {
                self.exists(&place, fact.bound);
            }
        }
        for output in &graph.outputs {
            let place = format!("output {}", output.name);
            if !output.axes.iter().all(known) {
                self.fault(&place, "an axis does not exist");
            } else if self.exists(&place, output.node) {
                let missing: AxisSet = graph.axes_of(output.node).iter().copied().filter(|a| !output.axes.contains(a)).collect();
                if !missing.is_empty() {
                    self.fault(&place, format!("{:?} varies over {} besides", output.node, self.names(&missing)));
                }
                if graph.dtype(output.node) != output.dtype {
                    self.fault(&place, format!("declared {}, {:?} is {}", output.dtype.name(), output.node, graph.dtype(output.node).name()));
                }
            }
        }
        for require in &graph.requires {
            let place = format!("require `{}`", require.text);
            if self.exists(&place, require.cond) && graph.dtype(require.cond) != DType::Bool {
                self.fault(&place, "is not a bool");
            }
        }
        for hint in &graph.hints {
            if hint.axis.is_some_and(|a| !known(&a)) {
                self.fault(format!("hint {}", hint.kind), "the axis does not exist");
            }
        }
        for (k, scan) in graph.scans.iter().enumerate() {
            let place = format!("scan {k}");
            if !known(&scan.axis) {
                self.fault(&place, "the axis does not exist");
            }
            if scan.parent.is_some_and(|p| p.index() >= graph.scans.len() || p.index() == k) {
                self.fault(&place, "the parent does not exist");
            }
            let nodes = scan.states.iter().flat_map(|s| [s.init, s.old, s.next]).chain(scan.history.iter().flat_map(|h| [h.0, h.1]));
            let nodes = nodes.chain(scan.exports.iter().copied());
            for node in nodes {
                self.exists(&place, node);
            }
            if scan.states.iter().any(|s| !s.axes.iter().all(known)) {
                self.fault(&place, "an axis of a state does not exist");
            }
        }
    }

    fn node(&mut self, id: NodeId) {
        let graph = self.graph;
        let (place, op) = (format!("{id:?}"), graph.op(id));
        let before = self.faults.len();
        for operand in op.operands() {
            if self.exists(&place, operand) && operand.index() >= id.index() {
                self.fault(&place, format!("the operand {operand:?} does not come before it"));
            }
        }
        let axis = |a: &AxisId| a.index() < graph.axes.len();
        let (named, masks): (Vec<AxisId>, Vec<NodeId>) = match op {
            Op::Input(i) => {
                if i.index() >= graph.inputs.len() {
                    self.fault(&place, "the input does not exist");
                }
                (vec![], vec![])
            }
            Op::Const(_) | Op::Map { .. } => (vec![], vec![]),
            Op::Index(a) | Op::Extent(a) => (vec![*a], vec![]),
            Op::Read { subs, .. } => (subs.iter().map(|s| s.0).collect(), vec![]),
            Op::Reduce { axes, mask, .. } | Op::Rank { axes, mask, .. } | Op::TopK { axes, mask, .. } => (axes.clone(), mask.iter().copied().collect()),
            Op::Prefix { axis, mask, .. } => (vec![*axis], mask.iter().copied().collect()),
            Op::ArgSort { axes, to, mask, .. } => (axes.iter().copied().chain([*to]).collect(), mask.iter().copied().collect()),
            Op::List { axes, to, set } => (axes.iter().copied().chain([*to]).collect(), vec![*set]),
            Op::Solve { rows, cols, .. } => (vec![*rows, *cols], vec![]),
            Op::Expand { axes, .. } => (axes.clone(), vec![]),
            Op::State { scan, index } | Op::Final { scan, index } => {
                if graph.scans.get(scan.index()).is_none_or(|s| *index as usize >= s.states.len()) {
                    self.fault(&place, "the state does not exist");
                }
                (vec![], vec![])
            }
            Op::History { scan, index } => {
                if graph.scans.get(scan.index()).is_none_or(|s| *index as usize >= s.history.len()) {
                    self.fault(&place, "the export does not exist");
                }
                (vec![], vec![])
            }
        };
        if !named.iter().all(axis) {
            self.fault(&place, "an axis does not exist");
        }
        if (1..named.len()).any(|k| named[..k].contains(&named[k])) {
            self.fault(&place, "an axis is named twice");
        }
        if self.faults.len() > before {
            return;
        }
        for mask in masks {
            if graph.dtype(mask) != DType::Bool {
                self.fault(&place, format!("the mask {mask:?} is {}", graph.dtype(mask).name()));
            }
        }
        if let Op::TopK { count, .. } = op
            && graph.dtype(*count) != DType::Int
        {
            self.fault(&place, "the count is not an int");
        }
        match graph.infer(op) {
            Err(what) => self.fault(&place, what),
            Ok((dtype, axes)) => {
                if dtype != graph.dtype(id) {
                    self.fault(&place, format!("is {}, its operands give {}", graph.dtype(id).name(), dtype.name()));
                }
                if axes != *graph.axes_of(id) {
                    self.fault(&place, format!("has axes {}, its operands give {}", self.names(graph.axes_of(id)), self.names(&axes)));
                }
            }
        }
    }

    /// Edges mirror the operands, and there is no cycle.
    fn edges(&mut self) {
        let graph = self.graph;
        let mut have: Vec<(NodeId, NodeId)> = graph.dag.edge_references().map(|e| (NodeId(e.source()), NodeId(e.target()))).collect();
        let mut want: Vec<(NodeId, NodeId)> = graph.ids().flat_map(|id| graph.op(id).operands().into_iter().map(move |o| (o, id))).collect();
        have.sort();
        want.sort();
        if have != want {
            let odd = have.iter().chain(&want).find(|e| have.contains(e) != want.contains(e) || count(&have, e) != count(&want, e));
            let place = odd.map_or("edges".to_string(), |(from, to)| format!("edge {from:?} to {to:?}"));
            self.fault(place, "edges and operands differ");
        }
        if let Err(cycle) = toposort(&graph.dag, None) {
            self.fault(format!("{:?}", NodeId(cycle.node_id())), "depends on itself");
        }
    }

    fn scan(&mut self, id: ScanId) {
        let graph = self.graph;
        let scan = &graph.scans[id.index()];
        let mut up = scan.parent;
        for _ in 0..graph.scans.len() {
            up = up.and_then(|p| graph.scans[p.index()].parent);
        }
        if up.is_some() {
            self.fault(format!("scan {}", id.index()), "its parents form a cycle");
        }
        for (k, state) in scan.states.iter().enumerate() {
            let place = format!("scan {} state {}", id.index(), state.name);
            if *graph.op(state.old) != (Op::State { scan: id, index: k as u32 }) {
                self.fault(&place, format!("{:?} is not its leaf", state.old));
            }
            if state.axes.contains(&scan.axis) {
                self.fault(&place, "has the scan axis");
            }
            let mut stepped = state.axes.clone();
            stepped.insert(scan.axis);
            for (what, node, allowed) in [("init", state.init, &state.axes), ("next", state.next, &stepped)] {
                if graph.dtype(node) != state.dtype {
                    self.fault(&place, format!("{what} {node:?} is {}, not {}", graph.dtype(node).name(), state.dtype.name()));
                }
                if !graph.axes_of(node).is_subset(allowed) {
                    let found = self.names(graph.axes_of(node));
                    self.fault(&place, format!("{what} {node:?} has axes {found}, beyond {}", self.names(allowed)));
                }
            }
        }
        for (k, (leaf, export)) in scan.history.iter().enumerate() {
            let place = format!("scan {} export {k}", id.index());
            if *graph.op(*leaf) != (Op::History { scan: id, index: k as u32 }) {
                self.fault(&place, format!("{leaf:?} is not its leaf"));
            }
            if graph.dtype(*leaf) != graph.dtype(*export) || graph.axes_of(*leaf) != graph.axes_of(*export) {
                self.fault(&place, format!("{leaf:?} and {export:?} differ in dtype or axes"));
            }
        }
    }

    /// Earlier results of a scan are only read, over the scan axis.
    fn uses(&mut self) {
        let graph = self.graph;
        let history = |id: NodeId| if let Op::History { scan, .. } = graph.op(id) { Some(graph.scans[scan.index()].axis) } else { None };
        for id in graph.ids() {
            for (k, operand) in graph.op(id).operands().into_iter().enumerate() {
                let Some(axis) = history(operand) else { continue };
                let read = matches!(graph.op(id), Op::Read { subs, .. } if k == 0 && subs.iter().any(|s| s.0 == axis));
                if !read {
                    self.fault(format!("{id:?}"), format!("uses {operand:?} other than by a read over its scan axis"));
                }
            }
        }
        for output in &graph.outputs {
            if history(output.node).is_some() {
                self.fault(format!("output {}", output.name), "is a leaf of a scan");
            }
        }
    }
}

fn count(edges: &[(NodeId, NodeId)], edge: &(NodeId, NodeId)) -> usize {
    edges.iter().filter(|e| *e == edge).count()
}
