//! Rebuilding a graph node by node: the frame of every graph pass. Shares equal nodes, folds constants, drops dead nodes.

use crate::base::Span;
use crate::graph::{AxisId, AxisSet, Extent, Graph, NodeId, Op, Scan, ScanId};
use crate::ops::{DType, Scalar, ScalarOp};
use std::collections::{BTreeSet, HashMap, HashSet};

/// A graph on its way down, with the nodes that must be stored in memory of their own.
#[derive(Clone, Debug, Default)]
pub struct Work {
    pub graph: Graph,
    /// Nodes that a later pass must keep as buffers (operands of reads that cannot be pushed further down).
    pub cuts: BTreeSet<NodeId>,
}

/// Adds nodes to a graph and shares equal ones.
pub struct Builder {
    pub graph: Graph,
    pub cuts: BTreeSet<NodeId>,
    memo: HashMap<String, NodeId>,
}

impl Builder {
    /// Continues a graph: its nodes can be shared from now on.
    pub fn resume(work: Work) -> Builder {
        let mut memo = HashMap::new();
        for id in work.graph.ids() {
            memo.entry(format!("{:?}", work.graph.op(id))).or_insert(id);
        }
        Builder { graph: work.graph, cuts: work.cuts, memo }
    }

    pub fn finish(self) -> Work {
        Work { graph: self.graph, cuts: self.cuts }
    }

    /// The node that computes `op`. Ops that `infer` refuses cannot come out of a verified graph; they become a zero of Real.
    pub fn add(&mut self, op: Op, span: Span) -> NodeId {
        if let Op::Map { op: scalar, args } = &op {
            if let Some(id) = self.fold(*scalar, args, span) {
                return id;
            }
        }
        let (dtype, axes) = self.graph.infer(&op).unwrap_or((DType::Real, AxisSet::new()));
        self.add_typed(op, dtype, axes, span)
    }

    /// As `add`, with dtype and axes given (leaves whose records are not complete yet).
    pub fn add_typed(&mut self, op: Op, dtype: DType, axes: AxisSet, span: Span) -> NodeId {
        let key = format!("{op:?}");
        if let Some(id) = self.memo.get(&key) {
            return *id;
        }
        let id = self.graph.add(op, dtype, axes, span);
        self.memo.insert(key, id);
        id
    }

    fn constant(&self, id: NodeId) -> Option<Scalar> {
        if let Op::Const(c) = self.graph.op(id) { Some(*c) } else { None }
    }

    /// Constant folding and the identities that need no knowledge of ranges.
    fn fold(&mut self, op: ScalarOp, args: &[NodeId], span: Span) -> Option<NodeId> {
        let consts: Vec<Option<Scalar>> = args.iter().map(|a| self.constant(*a)).collect();
        if let Some(values) = consts.iter().copied().collect::<Option<Vec<_>>>() {
            let value = op.eval(&values)?;
            return (value.dtype() != DType::Complex).then(|| self.add(Op::Const(value), span));
        }
        let is = |i: usize, x: f64| match consts[i] {
            Some(Scalar::Real(v)) => v == x,
            Some(Scalar::Int(v)) => v as f64 == x,
            _ => false,
        };
        let truth = |i: usize| if let Some(Scalar::Bool(b)) = consts[i] { Some(b) } else { None };
        match op {
            ScalarOp::Add if is(0, 0.0) => Some(args[1]),
            ScalarOp::Add | ScalarOp::Sub if is(1, 0.0) => Some(args[0]),
            ScalarOp::Mul if is(0, 1.0) => Some(args[1]),
            ScalarOp::Mul | ScalarOp::Div | ScalarOp::IntDiv | ScalarOp::Pow if is(1, 1.0) => Some(args[0]),
            ScalarOp::And => match (truth(0), truth(1)) {
                (Some(true), _) => Some(args[1]),
                (_, Some(true)) => Some(args[0]),
                (Some(false), _) => Some(args[0]),
                (_, Some(false)) => Some(args[1]),
                (None, None) => (args[0] == args[1]).then_some(args[0]),
            },
            ScalarOp::Or => match (truth(0), truth(1)) {
                (Some(false), _) => Some(args[1]),
                (_, Some(false)) => Some(args[0]),
                (Some(true), _) => Some(args[0]),
                (_, Some(true)) => Some(args[1]),
                (None, None) => (args[0] == args[1]).then_some(args[0]),
            },
            ScalarOp::Select => match truth(0) {
                Some(true) => Some(args[1]),
                Some(false) => Some(args[2]),
                None => (args[1] == args[2]).then_some(args[1]),
            },
            ScalarOp::Not => match self.graph.op(args[0]) {
                Op::Map { op: ScalarOp::Not, args } => Some(args[0]),
                _ => None,
            },
            ScalarOp::ToInt if self.graph.dtype(args[0]) == DType::Int => Some(args[0]),
            _ => None,
        }
    }

    pub fn map(&mut self, op: ScalarOp, args: &[NodeId], span: Span) -> NodeId {
        self.add(Op::Map { op, args: args.to_vec() }, span)
    }

    pub fn int(&mut self, value: i64) -> NodeId {
        self.add(Op::Const(Scalar::Int(value)), Span::default())
    }

    pub fn constant_of(&mut self, value: Scalar) -> NodeId {
        self.add(Op::Const(value), Span::default())
    }

    /// Conjunction of optional masks.
    pub fn and(&mut self, a: Option<NodeId>, b: Option<NodeId>, span: Span) -> Option<NodeId> {
        match (a, b) {
            (Some(a), Some(b)) => Some(self.map(ScalarOp::And, &[a, b], span)),
            (a, b) => a.or(b),
        }
    }

    /// A new axis with the same extent as `axis`, its twin.
    pub fn twin(&mut self, axis: AxisId) -> AxisId {
        let extent = self.add(Op::Extent(axis), Span::default());
        let mut new = self.graph.axis(axis).clone();
        new.name.push('~');
        new.twin = Some(axis);
        new.extent = Extent::Value(extent);
        self.graph.add_axis(new)
    }

    /// `value` with axes renamed.
    pub fn rename(&mut self, value: NodeId, names: &[(AxisId, AxisId)], span: Span) -> NodeId {
        let subs: Vec<(AxisId, NodeId)> = names
            .iter()
            .filter(|(from, _)| self.graph.axes_of(value).contains(from))
            .map(|(from, to)| (*from, *to))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|(from, to)| (from, self.add(Op::Index(to), span)))
            .collect();
        if subs.is_empty() { value } else { self.add(Op::Read { value, subs }, span) }
    }
}

/// Nodes that `id` depends on, through scans: `Final` and `State` need the whole step of their scan.
pub fn dependencies(graph: &Graph, id: NodeId) -> Vec<NodeId> {
    let scan = |scan: ScanId| {
        let scan = &graph.scans[scan.index()];
        let mut all: Vec<NodeId> = scan.states.iter().flat_map(|s| [s.init, s.next]).collect();
        all.extend(scan.history.iter().map(|h| h.1));
        all
    };
    match graph.op(id) {
        Op::State { scan: s, .. } | Op::Final { scan: s, .. } | Op::History { scan: s, .. } => scan(*s),
        op => op.operands(),
    }
}

/// Everything that outputs, conditions and extents need.
pub fn live(graph: &Graph) -> HashSet<NodeId> {
    let mut stack: Vec<NodeId> = graph.outputs.iter().map(|o| o.node).collect();
    stack.extend(graph.requires.iter().map(|r| r.cond));
    stack.extend(graph.inputs.iter().flat_map(|i| i.default.into_iter().chain(i.fact.map(|f| f.bound))));
    stack.extend(graph.axes.iter().filter_map(|a| if let Extent::Value(v) = a.extent { Some(v) } else { None }));
    let mut seen = HashSet::new();
    while let Some(id) = stack.pop() {
        if seen.insert(id) {
            stack.extend(dependencies(graph, id));
            if let Op::State { scan, index } | Op::History { scan, index } = graph.op(id) {
                // The leaves of a live scan stay.
                let s = &graph.scans[scan.index()];
                stack.extend(s.states.iter().map(|s| s.old));
                let _ = index;
            }
        }
    }
    seen
}

/// What a rewrite makes of one node; `map` gives the images of earlier nodes.
pub trait Rewrite {
    /// The image of `id`. The default rebuilds the node over the images of its operands.
    fn node(&mut self, b: &mut Builder, old: &Graph, map: &HashMap<NodeId, NodeId>, id: NodeId) -> NodeId {
        rebuild_node(b, old, map, id)
    }

    /// Scan records to start from, when they differ from the old ones.
    fn scans(&self, _old: &Graph) -> Option<Vec<Scan>> {
        None
    }

    /// Called after all records have been carried over.
    fn finish(&mut self, _b: &mut Builder, _old: &Graph, _map: &HashMap<NodeId, NodeId>) {}
}

/// The node over the images of its operands.
pub fn rebuild_node(b: &mut Builder, old: &Graph, map: &HashMap<NodeId, NodeId>, id: NodeId) -> NodeId {
    let node = old.node(id);
    let op = node.op.map_operands(|o| map.get(&o).copied().unwrap_or(o));
    let new = match op {
        Op::State { .. } | Op::Final { .. } | Op::History { .. } => b.add_typed(op, node.dtype, node.axes.clone(), node.span),
        op => b.add(op, node.span),
    };
    if b.graph.node(new).name.is_none() {
        b.graph.dag[new.0].name = node.name.clone();
    }
    new
}

/// Runs a rewrite over the live nodes, in order, and carries all records over.
pub fn rewrite(work: Work, rule: &mut dyn Rewrite) -> Work {
    let old = work.graph;
    let keep = live(&old);
    let graph = Graph {
        name: old.name.clone(),
        doc: old.doc.clone(),
        axes: old.axes.clone(),
        inputs: old.inputs.clone(),
        scans: rule.scans(&old).unwrap_or_else(|| old.scans.clone()),
        hints: old.hints.clone(),
        ..Graph::default()
    };
    let mut b = Builder { graph, cuts: BTreeSet::new(), memo: HashMap::new() };
    let mut map: HashMap<NodeId, NodeId> = HashMap::new();
    for id in order(&old, &keep) {
        let new = rule.node(&mut b, &old, &map, id);
        map.insert(id, new);
    }
    let image = |id: NodeId| map.get(&id).copied().unwrap_or(id);
    for axis in b.graph.axes.iter_mut().take(old.axes.len()) {
        if let Extent::Value(v) = &mut axis.extent {
            *v = image(*v);
        }
    }
    for input in &mut b.graph.inputs {
        input.default = input.default.map(image);
        if let Some(fact) = &mut input.fact {
            fact.bound = image(fact.bound);
        }
    }
    for scan in b.graph.scans.iter_mut().take(old.scans.len()) {
        for s in &mut scan.states {
            (s.init, s.old, s.next) = (image(s.init), image(s.old), image(s.next));
        }
        // Exports that nobody reads are gone.
        scan.exports = scan.exports.iter().filter(|e| map.contains_key(e)).map(|e| image(*e)).collect();
        for h in &mut scan.history {
            *h = (image(h.0), image(h.1));
        }
    }
    b.graph.outputs = old.outputs.iter().map(|o| crate::graph::Output { node: image(o.node), ..o.clone() }).collect();
    b.graph.requires = old.requires.iter().map(|r| crate::graph::Require { cond: image(r.cond), ..r.clone() }).collect();
    rule.finish(&mut b, &old, &map);
    b.cuts.extend(work.cuts.iter().filter(|c| map.contains_key(c)).map(|c| image(*c)));
    b.finish()
}

/// Live nodes so that operands come first (ids need not be in order after rewrites that append).
pub fn order(graph: &Graph, keep: &HashSet<NodeId>) -> Vec<NodeId> {
    let mut done: HashSet<NodeId> = HashSet::new();
    let mut out = Vec::new();
    let mut ids: Vec<NodeId> = keep.iter().copied().collect();
    ids.sort();
    for root in ids {
        let mut stack = vec![(root, false)];
        while let Some((id, ready)) = stack.pop() {
            if ready {
                if done.insert(id) {
                    out.push(id);
                }
            } else if !done.contains(&id) {
                stack.push((id, true));
                stack.extend(graph.op(id).operands().into_iter().filter(|o| !done.contains(o)).map(|o| (o, false)));
            }
        }
    }
    out
}
