//! Which nodes belong to the step of a scan: the ones that the state after it, its exports or its earlier results need and that vary
//! with its state. Everything else can be computed before the loop, or after it from stored exports.

use super::rewrite::{dependencies, live};
use crate::graph::{Graph, NodeId, Op, ScanId};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Steps of all scans of a graph.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    /// Nodes of the step, by scan; empty for dead scans.
    pub step: Vec<BTreeSet<NodeId>>,
    /// The scan whose step contains this one directly, by scan.
    pub parent: Vec<Option<ScanId>>,
    pub live: Vec<bool>,
}

impl Steps {
    pub fn new(graph: &Graph) -> Steps {
        let keep = live(graph);
        let n = graph.scans.len();
        let leaf_scan = |id: NodeId| match graph.op(id) {
            Op::State { scan, .. } | Op::History { scan, .. } => Some(*scan),
            _ => None,
        };
        let mut alive = vec![false; n];
        for id in &keep {
            if let Op::State { scan, .. } | Op::Final { scan, .. } | Op::History { scan, .. } = graph.op(*id) {
                alive[scan.index()] = true;
            }
        }
        // Users through operands, and from the values of a scan to its leaves and results.
        let mut users: HashMap<NodeId, Vec<(NodeId, Option<ScanId>)>> = HashMap::new();
        for id in &keep {
            let through = match graph.op(*id) {
                Op::State { scan, .. } | Op::Final { scan, .. } | Op::History { scan, .. } => Some(*scan),
                _ => None,
            };
            for dep in dependencies(graph, *id) {
                users.entry(dep).or_default().push((*id, through));
            }
        }
        let mut step = vec![BTreeSet::new(); n];
        for s in (0..n).filter(|s| alive[*s]) {
            let me = ScanId(s as u32);
            let mut varies: HashSet<NodeId> = HashSet::new();
            let mut stack: Vec<NodeId> = keep.iter().copied().filter(|id| leaf_scan(*id) == Some(me)).collect();
            while let Some(id) = stack.pop() {
                if varies.insert(id) {
                    stack.extend(users.get(&id).into_iter().flatten().filter(|u| u.1 != Some(me)).map(|u| u.0).filter(|u| {
                        // Inside one step of an enclosing scan its state stands still: the way round through it is no dependence.
                        leaf_scan(*u).is_none_or(|outer| !is_inside(graph, me, outer))
                    }));
                }
            }
            let scan = &graph.scans[s];
            let mut stack: Vec<NodeId> = scan.states.iter().map(|s| s.next).collect();
            stack.extend(scan.exports.iter().copied().filter(|e| keep.contains(e)));
            stack.extend(scan.history.iter().map(|h| h.1).filter(|e| keep.contains(e)));
            let mut seen = HashSet::new();
            while let Some(id) = stack.pop() {
                if !varies.contains(&id) || !seen.insert(id) {
                    continue;
                }
                step[s].insert(id);
                if leaf_scan(id) != Some(me) {
                    stack.extend(dependencies(graph, id));
                }
            }
        }
        // Nesting: the smallest step that holds a leaf or result of the scan.
        let mut parent = vec![None; n];
        for s in (0..n).filter(|s| alive[*s]) {
            let holds = |t: usize| {
                step[t].iter().any(|id| matches!(graph.op(*id), Op::State { scan, .. } | Op::Final { scan, .. } | Op::History { scan, .. } if scan.index() == s))
            };
            parent[s] = (0..n).filter(|t| *t != s && alive[*t] && holds(*t)).min_by_key(|t| step[*t].len()).map(|t| ScanId(t as u32));
        }
        Steps { step, parent, live: alive }
    }

    /// The outermost scan whose step contains this scan (itself when there is none).
    pub fn outermost(&self, scan: ScanId) -> ScanId {
        let mut at = scan;
        let mut hops = 0;
        while let Some(up) = self.parent[at.index()] {
            at = up;
            hops += 1;
            if hops > self.parent.len() {
                break;
            }
        }
        at
    }
}

/// Whether `inner` may run inside a step of `outer`: by the nesting that was written; prefixes run inside the scans that need them.
fn is_inside(graph: &Graph, inner: ScanId, outer: ScanId) -> bool {
    let chain = |from: ScanId, to: ScanId| {
        let mut at = graph.scans[from.index()].parent;
        let mut hops = 0;
        while let Some(up) = at {
            if up == to {
                return true;
            }
            hops += 1;
            if hops > graph.scans.len() {
                return false;
            }
            at = graph.scans[up.index()].parent;
        }
        false
    };
    let axis = graph.scans[outer.index()].axis;
    let carries = graph.scans[inner.index()].states.iter().any(|s| s.axes.contains(&axis));
    chain(inner, outer) || (graph.scans[inner.index()].derived && !graph.scans[outer.index()].derived && carries)
}
