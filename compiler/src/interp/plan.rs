//! What the evaluator must know about scans before it starts: which nodes belong to the step of which scan, and which of their
//! values anyone reads after the scan.
//!
//! A node *depends* on a scan when a state or earlier result of it can reach the node. It comes *after* the scan when it needs
//! the scan to have finished: it reads other positions of a result, reduces over the scan axis, takes a final state, or is not part
//! of what the next states and the exports need. Otherwise it is *open*: its value at a step needs that step only, so it is
//! evaluated inside the loop. What an open node gives to one that is not open is recorded over the scan axis.

use crate::graph::{AxisId, Graph, NodeId, Op, Scan, ScanId};
use std::collections::{BTreeMap, BTreeSet};

type Scans = BTreeSet<ScanId>;

pub(super) struct Plan {
    /// Scans whose step the node belongs to, by node index.
    pub open: Vec<Vec<ScanId>>,
    /// Nodes to record while the scan runs, by scan.
    pub records: Vec<Vec<NodeId>>,
    /// Scans within whose step this scan runs.
    pub within: Vec<Scans>,
    /// Axes along which the positions of a scan do not need each other: it may run for one at a time. Its own axis is not among them.
    pub axes: Vec<BTreeSet<AxisId>>,
    /// Operand uses of each node, by node index.
    pub users: Vec<usize>,
}

/// An operand edge: where it comes from and the axes whose other positions the user sees.
struct Edge {
    from: NodeId,
    closes: Vec<AxisId>,
}

impl Plan {
    pub fn new(graph: &Graph) -> Plan {
        let size = graph.ids().map(|id| id.index() + 1).max().unwrap_or(0);
        let mut users = vec![0usize; size];
        let live = live(graph, size);
        let edges: BTreeMap<NodeId, Vec<Edge>> = graph.ids().filter(|id| live[id.index()]).map(|id| (id, edges(graph, id))).collect();
        for edge in edges.values().flatten() {
            users[edge.from.index()] += 1;
        }
        let depends = depends(graph, &edges, size);
        // What only follows from exports is computed when the scan is over: inside, two scans whose results meet would each need
        // the other to be over, and one would run again at every step of the other.
        let mut seeds: Vec<Scans> = vec![Scans::new(); size];
        for (k, step) in steps(graph, &edges).iter().enumerate() {
            for id in edges.keys().filter(|id| !step.contains(id)) {
                seeds[id.index()].insert(ScanId(k as u32));
            }
        }
        let after = after(graph, &edges, &depends, seeds);
        let open: Vec<Scans> = (0..size).map(|n| depends[n].difference(&after[n]).copied().collect()).collect();
        let records = records(graph, &edges, &open);
        let within = within(graph, &open);
        let axes = scan_axes(graph, &records, &edges, &open);
        Plan { open: open.into_iter().map(|s| s.into_iter().collect()).collect(), records, within, axes, users }
    }

    pub fn open(&self, node: NodeId) -> &[ScanId] {
        self.open.get(node.index()).map_or(&[], |v| v)
    }
}

/// Nodes that an output or requirement can see, through scans too.
fn live(graph: &Graph, size: usize) -> Vec<bool> {
    let mut live = vec![false; size];
    let mut todo: Vec<NodeId> = graph.outputs.iter().map(|o| o.node).chain(graph.requires.iter().map(|r| r.cond)).collect();
    while let Some(id) = todo.pop() {
        if std::mem::replace(&mut live[id.index()], true) {
            continue;
        }
        todo.extend(graph.op(id).operands());
        match graph.op(id) {
            Op::State { scan, .. } | Op::Final { scan, .. } | Op::History { scan, .. } => {
                let scan = &graph.scans[scan.index()];
                todo.extend(scan.states.iter().flat_map(|s| [s.init, s.next, s.old]));
                todo.extend(scan.history.iter().flat_map(|h| [h.0, h.1]));
            }
            Op::Input(i) => todo.extend(graph.inputs[i.index()].default),
            _ => {}
        }
    }
    live
}

fn edges(graph: &Graph, id: NodeId) -> Vec<Edge> {
    let plain = |from: NodeId| Edge { from, closes: vec![] };
    match graph.op(id) {
        Op::Input(_) | Op::Const(_) | Op::Index(_) | Op::Extent(_) => vec![],
        Op::Map { args, .. } => args.iter().map(|a| plain(*a)).collect(),
        Op::Read { value, subs } => {
            // The earlier results of a scan may be read at any position within its step.
            let history = matches!(graph.op(*value), Op::History { .. });
            let own = if let Op::History { scan, .. } = graph.op(*value) { Some(graph.scans[scan.index()].axis) } else { None };
            let closes = subs.iter().map(|s| s.0).filter(|a| !history || Some(*a) != own).collect();
            std::iter::once(Edge { from: *value, closes }).chain(subs.iter().map(|s| plain(s.1))).collect()
        }
        Op::Reduce { axes, .. } => graph.op(id).operands().into_iter().map(|from| Edge { from, closes: axes.clone() }).collect(),
        Op::Prefix { axis, .. } => graph.op(id).operands().into_iter().map(|from| Edge { from, closes: vec![*axis] }).collect(),
        Op::Solve { rows, cols, .. } => graph.op(id).operands().into_iter().map(|from| Edge { from, closes: vec![*rows, *cols] }).collect(),
        Op::Rank { axes, .. } | Op::ArgSort { axes, .. } | Op::List { axes, .. } => {
            graph.op(id).operands().into_iter().map(|from| Edge { from, closes: axes.clone() }).collect()
        }
        Op::TopK { axes, count, .. } => {
            let closes = |from: NodeId| if from == *count { vec![] } else { axes.clone() };
            graph.op(id).operands().into_iter().map(|from| Edge { from, closes: closes(from) }).collect()
        }
        Op::Expand { value, .. } => vec![plain(*value)],
        Op::State { scan, .. } | Op::Final { scan, .. } => {
            let scan = &graph.scans[scan.index()];
            let links = scan.states.iter().flat_map(|s| [s.init, s.next]).chain(scan.history.iter().map(|h| h.1));
            links.map(|from| Edge { from, closes: vec![scan.axis] }).collect()
        }
        Op::History { scan, .. } => {
            let scan = &graph.scans[scan.index()];
            let links = scan.states.iter().flat_map(|s| [s.init, s.next]).chain(scan.history.iter().map(|h| h.1));
            links.map(|from| Edge { from, closes: vec![scan.axis] }).collect()
        }
    }
}

/// The scan whose leaf this is.
fn leaf(graph: &Graph, id: NodeId) -> Option<ScanId> {
    match graph.op(id) {
        Op::State { scan, .. } | Op::History { scan, .. } => Some(*scan),
        _ => None,
    }
}

/// Scans within the step of the scan whose leaf or final state this is. What the links of the leaf owe to them belongs to steps that
/// are over: within a step, the inner scans start anew.
fn inner(graph: &Graph, id: NodeId) -> Scans {
    let (Op::State { scan: outer, .. } | Op::History { scan: outer, .. } | Op::Final { scan: outer, .. }) = graph.op(id) else {
        return Scans::new();
    };
    let up = |s: &ScanId| graph.scans[s.index()].parent;
    let under = |k: usize| {
        let mut chain = up(&ScanId(k as u32));
        for _ in 0..graph.scans.len() {
            if chain == Some(*outer) {
                return true;
            }
            chain = chain.as_ref().and_then(up);
        }
        false
    };
    (0..graph.scans.len()).filter(|k| under(*k)).map(|k| ScanId(k as u32)).collect()
}

fn depends(graph: &Graph, edges: &BTreeMap<NodeId, Vec<Edge>>, size: usize) -> Vec<Scans> {
    let mut depends = vec![Scans::new(); size];
    loop {
        let mut grown = false;
        for (id, edges) in edges {
            let mut set = std::mem::take(&mut depends[id.index()]);
            let before = set.len();
            set.extend(leaf(graph, *id));
            let inner = inner(graph, *id);
            for edge in edges {
                set.extend(depends[edge.from.index()].difference(&inner).copied());
            }
            grown |= set.len() > before;
            depends[id.index()] = set;
        }
        if !grown {
            return depends;
        }
    }
}

fn after(graph: &Graph, edges: &BTreeMap<NodeId, Vec<Edge>>, depends: &[Scans], mut after: Vec<Scans>) -> Vec<Scans> {
    loop {
        let mut grown = false;
        for (id, edges) in edges {
            let own = leaf(graph, *id);
            let mut set = std::mem::take(&mut after[id.index()]);
            let before = set.len();
            if let Op::Final { scan, .. } = graph.op(*id) {
                set.insert(*scan);
            }
            let inner = inner(graph, *id);
            for edge in edges {
                // The links of a leaf to its own scan are the recurrence, not a use.
                let closed = depends[edge.from.index()].iter().filter(|s| edge.closes.contains(&graph.scans[s.index()].axis));
                set.extend(closed.chain(after[edge.from.index()].iter()).copied().filter(|s| Some(*s) != own && !inner.contains(s)));
            }
            grown |= set.len() > before;
            after[id.index()] = set;
        }
        if !grown {
            return after;
        }
    }
}

/// For each scan, the scans that are open at its leaves, without itself.
fn within(graph: &Graph, open: &[Scans]) -> Vec<Scans> {
    let leaves = |k: usize| graph.scans[k].states.iter().map(|s| s.old).chain(graph.scans[k].history.iter().map(|h| h.0));
    let others = |k: usize| leaves(k).flat_map(|l| open[l.index()].iter().copied()).filter(move |s| s.index() != k).collect();
    (0..graph.scans.len()).map(others).collect()
}

/// For each scan, the nodes of its step: those that its next states, earlier results and exports need.
fn steps(graph: &Graph, edges: &BTreeMap<NodeId, Vec<Edge>>) -> Vec<BTreeSet<NodeId>> {
    let one = |scan: &Scan| {
        let mut todo: Vec<NodeId> = scan.states.iter().map(|s| s.next).chain(scan.history.iter().map(|h| h.1)).collect();
        todo.extend(&scan.exports);
        let mut seen = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if seen.insert(id) {
                todo.extend(edges.get(&id).into_iter().flatten().map(|e| e.from));
            }
        }
        seen
    };
    graph.scans.iter().map(one).collect()
}

fn records(graph: &Graph, edges: &BTreeMap<NodeId, Vec<Edge>>, open: &[Scans]) -> Vec<Vec<NodeId>> {
    let mut wanted = vec![BTreeSet::new(); graph.scans.len()];
    for (user, edges) in edges {
        let own = leaf(graph, *user).or(match graph.op(*user) {
            Op::Final { scan, .. } => Some(*scan),
            _ => None,
        });
        for edge in edges {
            for scan in open[edge.from.index()].difference(&open[user.index()]) {
                // A scan keeps its own states; only other users need the record.
                if Some(*scan) != own {
                    wanted[scan.index()].insert(edge.from);
                }
            }
        }
    }
    for node in graph.outputs.iter().map(|o| o.node).chain(graph.requires.iter().map(|r| r.cond)) {
        for scan in &open[node.index()] {
            wanted[scan.index()].insert(node);
        }
    }
    for (k, scan) in graph.scans.iter().enumerate() {
        let live = edges.keys().any(|id| matches!(graph.op(*id), Op::History { scan, .. } if scan.index() == k));
        wanted[k].extend(scan.history.iter().filter(|_| live).map(|h| h.1));
    }
    wanted.into_iter().map(|w| w.into_iter().collect()).collect()
}

fn scan_axes(graph: &Graph, records: &[Vec<NodeId>], edges: &BTreeMap<NodeId, Vec<Edge>>, open: &[Scans]) -> Vec<BTreeSet<AxisId>> {
    let one = |k: usize| {
        let scan = &graph.scans[k];
        let nodes = scan.states.iter().flat_map(|s| [s.init, s.next, s.old]).chain(records[k].iter().copied());
        let mut axes: BTreeSet<AxisId> = nodes.flat_map(|n| graph.axes_of(n).iter().copied()).collect();
        axes.remove(&scan.axis);
        for edge in edges.values().flatten().filter(|e| open[e.from.index()].contains(&ScanId(k as u32))) {
            // A state at one position has no other position to read or reduce over.
            edge.closes.iter().for_each(|a| {
                axes.remove(a);
            });
        }
        axes
    };
    (0..graph.scans.len()).map(one).collect()
}
