//! Cuts the graph into kernels: which values are stored, which are computed inside which kernel, over which grid.
//!
//! A reduction stays inside the kernel of its reader when its result has all grid axes of that kernel, or lacks only feature axes
//! (then those become inner axes: the classic row kernel), or when storing it would take memory that grows with the product of two
//! long axes, or when it is a result along rows of the very axis that the reader varies over, and the rows alone fill the device (then
//! the reader passes over that axis a second time). Otherwise it is computed once and stored. Values that are stored anyway and are
//! wanted at the same positions join the kernel of their reader. Does not choose tile sizes (see `cost`) or loops (see `tile`).

use super::chunk::joined;
use super::cost::Sizes;
use super::rewrite::{Work, dependencies, live};
use super::split::Spans;
use super::steps::Steps;
use crate::graph::{AxisId, AxisSet, Graph, NodeId, Op, ScanId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// One kernel to be.
#[derive(Clone, Debug)]
pub struct Part {
    /// Grid axes, outermost first.
    pub grid: Vec<AxisId>,
    /// Nodes that it computes and stores.
    pub roots: Vec<NodeId>,
    /// The scan that it runs, if it is one.
    pub scan: Option<ScanId>,
    /// Reductions that it computes on the way.
    pub inside: BTreeSet<NodeId>,
    /// Rows that its blocks keep to themselves, operands first.
    pub rows: BTreeSet<NodeId>,
}

/// The kernels in order of launch.
#[derive(Clone, Debug, Default)]
pub struct Partition {
    pub parts: Vec<Part>,
    /// Nodes that live in buffers.
    pub stored: BTreeSet<NodeId>,
    /// Axes that number spans of another: one a block.
    pub spans: BTreeSet<AxisId>,
    pub remarks: Vec<String>,
}

/// See the module.
pub fn partition(work: &Work, steps: &Steps, sizes: &Sizes, spans: &Spans) -> Partition {
    let mut rows = block_rows(work, sizes);
    // Rows that some kernel cannot make for itself are stored after all, and with that the others change.
    loop {
        match attempt(work, steps, sizes, spans, &rows) {
            Ok(partition) => return partition,
            Err(refused) => rows.retain(|id, _| !refused.contains(id)),
        }
    }
}

/// Values that order operations read as rows, and choices among them, which would take memory that grows with the product of two long
/// axes: with the axes of their rows. Outputs are stored anyway; values that are read at other positions must be.
fn block_rows(work: &Work, sizes: &Sizes) -> BTreeMap<NodeId, Vec<AxisId>> {
    let graph = &work.graph;
    let keep = live(graph);
    let mut out: BTreeMap<NodeId, Vec<AxisId>> = BTreeMap::new();
    let mut refused: BTreeSet<NodeId> = graph.outputs.iter().map(|o| o.node).collect();
    for id in &keep {
        if let Op::Read { value, .. } = graph.op(*id) {
            refused.insert(*value);
        }
        let Some((axes, mut values)) = super::order::rows(graph.op(*id)) else { continue };
        if matches!(graph.op(*id), Op::TopK { .. }) {
            values.push(*id);
        }
        for value in values {
            // Features are held whole by the blocks of other kernels: rows along them would not fit those.
            let feature = graph.axes_of(value).iter().any(|a| !axes.contains(a) && sizes.is_feature(*a));
            if feature || out.get(&value).is_some_and(|a| a != axes) || !work.cuts.contains(&value) || sizes.long_axes(graph.axes_of(value)) < 2 {
                refused.insert(value);
            }
            out.insert(value, axes.clone());
        }
    }
    out.retain(|id, _| !refused.contains(id));
    out
}

/// The partition with these rows kept by blocks, or those that cannot be.
fn attempt(work: &Work, steps: &Steps, sizes: &Sizes, spans: &Spans, rows: &BTreeMap<NodeId, Vec<AxisId>>) -> Result<Partition, BTreeSet<NodeId>> {
    let graph = &work.graph;
    let keep = live(graph);
    let mut p = Partitioner { graph, cuts: &work.cuts, spans: &spans.axes, steps, sizes, rows, refused: BTreeSet::new(), stored: BTreeSet::new(), in_step: HashMap::new(), todo: vec![], remarks: vec![] };
    for (s, step) in steps.step.iter().enumerate() {
        if steps.live[s] && steps.parent[s].is_none() {
            for id in step {
                p.in_step.insert(*id, ScanId(s as u32));
            }
        }
    }
    for output in &graph.outputs {
        match joined(graph, output.node) {
            Some(value) => p.alias(output.node, value),
            None => p.store(output.node),
        }
    }
    for cut in &work.cuts {
        if keep.contains(cut) && !p.in_step.contains_key(cut) && !rows.contains_key(cut) {
            p.store(*cut);
        }
    }
    for part in &spans.parts {
        p.store(*part);
    }
    p.remarks.extend(spans.remarks.iter().cloned());
    p.boundaries(&keep);
    // Every stored value gets a part; parts may ask for more stored values.
    let mut parts: BTreeMap<NodeId, Part> = BTreeMap::new();
    let mut scan_parts: BTreeMap<ScanId, Part> = BTreeMap::new();
    let mut done: HashSet<NodeId> = HashSet::new();
    while let Some(id) = p.todo.pop() {
        if !done.insert(id) {
            continue;
        }
        match p.owner(id) {
            Some(scan) => {
                let part = match scan_parts.remove(&scan) {
                    Some(mut part) => {
                        part.roots.push(id);
                        part.grid.retain(|a| graph.axes_of(id).contains(a));
                        part
                    }
                    None => p.scan_part(scan, id),
                };
                scan_parts.insert(scan, part);
            }
            None => {
                let part = p.part(id);
                parts.insert(id, part);
            }
        }
    }
    let scans: Vec<Part> = scan_parts.into_values().collect();
    let merged: Vec<Part> = scans.iter().cloned().chain(merge(graph, parts.clone(), &p.stored, &work.cuts)).collect();
    let single: Vec<Part> = scans.into_iter().chain(parts.into_values()).collect();
    // Merges are made pair by pair; should they close a circle, every root gets its own kernel.
    let parts = p.ordered(merged).or_else(|| p.ordered(single.clone())).unwrap_or(single);
    // What a scan makes, and what somebody has stored, no block makes again.
    let stored: Vec<NodeId> = rows.keys().copied().filter(|id| p.owner(*id).is_some() || p.stored.contains(id)).collect();
    p.refused.extend(stored);
    if p.refused.is_empty() { Ok(Partition { parts, stored: p.stored, spans: spans.axes.clone(), remarks: p.remarks }) } else { Err(p.refused) }
}

struct Partitioner<'a> {
    graph: &'a Graph,
    /// Values read at other positions.
    cuts: &'a BTreeSet<NodeId>,
    /// Axes that number parts of another axis.
    spans: &'a BTreeSet<AxisId>,
    steps: &'a Steps,
    sizes: &'a Sizes,
    /// Values that blocks keep to themselves, with the axes of their rows; and those that turned out not to be.
    rows: &'a BTreeMap<NodeId, Vec<AxisId>>,
    refused: BTreeSet<NodeId>,
    stored: BTreeSet<NodeId>,
    /// The outermost scan in whose step a node is.
    in_step: HashMap<NodeId, ScanId>,
    todo: Vec<NodeId>,
    remarks: Vec<String>,
}

impl Partitioner<'_> {
    fn store(&mut self, id: NodeId) {
        if self.stored.insert(id) {
            self.todo.push(id);
        }
    }

    /// A stored value by another name.
    fn alias(&mut self, id: NodeId, value: NodeId) {
        self.store(value);
        self.stored.insert(id);
    }

    /// The scan whose kernel computes this node.
    fn owner(&self, id: NodeId) -> Option<ScanId> {
        match self.graph.op(id) {
            Op::Final { scan, .. } | Op::State { scan, .. } | Op::History { scan, .. } => Some(self.steps.outermost(*scan)),
            _ => self.in_step.get(&id).copied(),
        }
    }

    /// Results of scans that others read.
    fn boundaries(&mut self, keep: &HashSet<NodeId>) {
        let mut wanted: Vec<NodeId> = Vec::new();
        let through = |id: NodeId| match self.graph.op(id) {
            Op::State { scan, .. } | Op::Final { scan, .. } | Op::History { scan, .. } => Some(*scan),
            _ => None,
        };
        for user in keep {
            for dep in dependencies(self.graph, *user) {
                if matches!(self.graph.op(dep), Op::History { .. }) {
                    continue;
                }
                // The result of an outermost scan, read by another kernel.
                let result = matches!(self.graph.op(dep), Op::Final { .. }) && self.owner(dep) != self.owner(*user);
                // A value of a step, read outside that step.
                let leaves = self.steps.step.iter().enumerate().any(|(s, step)| {
                    step.contains(&dep) && !step.contains(user) && through(*user) != Some(ScanId(s as u32))
                });
                if result || leaves {
                    wanted.push(dep);
                }
            }
        }
        for scan in &self.graph.scans {
            wanted.extend(scan.history.iter().filter(|h| keep.contains(&h.0)).map(|h| h.1));
        }
        wanted.sort();
        for id in wanted {
            self.store(id);
        }
    }

    fn is_leaf(&self, id: NodeId, root: NodeId, grid: &AxisSet) -> bool {
        // What is stored at the positions of this kernel can be made by it.
        let here = |id: NodeId| {
            let axes = self.graph.axes_of(id);
            !self.cuts.contains(&id) && self.owner(id).is_none() && grid.is_subset(axes) && axes.difference(grid).all(|a| self.sizes.is_feature(*a))
        };
        (id != root && self.stored.contains(&id) && !here(id)) || matches!(self.graph.op(id), Op::Input(_) | Op::Const(_) | Op::Index(_) | Op::Extent(_))
    }

    /// The kernel that computes a value outside any scan.
    fn part(&mut self, root: NodeId) -> Part {
        let mut grid = self.graph.axes_of(root).clone();
        // An order operation has its operands in rows: stored ones, or such as the block makes.
        match self.graph.op(root) {
            Op::Rank { axes, .. } | Op::TopK { axes, .. } => grid.retain(|a| !axes.contains(a)),
            Op::ArgSort { to, .. } | Op::List { to, .. } => grid.retain(|a| a != to),
            _ => {}
        }
        let batch = grid.clone();
        let mut inside = BTreeSet::new();
        let mut rows = BTreeSet::new();
        let mut seen = HashSet::new();
        let mut stack = vec![root];
        while let Some(id) = stack.pop() {
            if self.is_leaf(id, root, &grid) || !seen.insert(id) {
                continue;
            }
            if let Some(over) = self.rows.get(&id) {
                // One row for each position of the grid: axes of the row are not in the grid, features that the row lacks neither.
                let axes = self.graph.axes_of(id);
                grid.retain(|a| !over.contains(a) && (axes.contains(a) || !self.sizes.is_feature(*a)));
                rows.insert(id);
            }
            if let Op::Reduce { .. } = self.graph.op(id) {
                let lacks: AxisSet = grid.difference(self.graph.axes_of(id)).copied().collect();
                if !lacks.is_empty() {
                    let rows = lacks.iter().all(|a| self.sizes.is_feature(*a) || self.spans.contains(a));
                    let kept: AxisSet = grid.difference(&lacks).copied().collect();
                    let again = self.sizes.long_axes(&kept) >= 1 && lacks.iter().all(|a| self.reduces(id, *a));
                    if rows || again || self.sizes.long_axes(self.graph.axes_of(id)) >= 2 {
                        if again && !rows {
                            let names: Vec<&str> = lacks.iter().map(|a| self.graph.axis(*a).name.as_str()).collect();
                            let name = self.graph.node(root).name.as_deref().unwrap_or("a value");
                            self.remarks.push(format!("{name}: another pass over {}, because it needs results of the whole axis at each position", names.join(", ")));
                        }
                        // What lies in one span is computed by its block alone.
                        grid.retain(|a| !lacks.contains(a) || self.spans.contains(a));
                    } else {
                        self.store(id);
                        continue;
                    }
                }
                inside.insert(id);
            }
            stack.extend(self.graph.op(id).operands());
        }
        for id in &rows {
            let axes: AxisSet = self.graph.axes_of(*id).iter().copied().filter(|a| !self.rows[id].contains(a)).collect();
            // A row that varies along an axis which this kernel loops over, or a dear one that many blocks would make again.
            // An order operation itself makes one row for each of its own positions.
            let short = grid != batch && super::order::is_ordered(self.graph, root);
            if short || !axes.is_subset(&grid) || (axes != grid && self.takes_loops(*id)) {
                self.refused.insert(*id);
            }
        }
        Part { grid: self.storage_order(root, &grid), roots: vec![root], scan: None, inside, rows }
    }

    /// Whether computing the value from stored ones takes reductions or more.
    fn takes_loops(&self, id: NodeId) -> bool {
        let mut seen = HashSet::new();
        let mut stack = vec![id];
        while let Some(n) = stack.pop() {
            if self.stored.contains(&n) || !seen.insert(n) {
                continue;
            }
            match self.graph.op(n) {
                Op::Reduce { .. } | Op::Final { .. } | Op::State { .. } | Op::History { .. } => return true,
                op if super::order::rows(op).is_some() => return true,
                op => stack.extend(op.operands()),
            }
        }
        false
    }

    /// Whether a value is the result of a reduction over the axis, on the way from memory.
    fn reduces(&self, id: NodeId, axis: AxisId) -> bool {
        let mut seen = HashSet::new();
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            if !seen.insert(id) || self.cuts.contains(&id) {
                continue;
            }
            match self.graph.op(id) {
                Op::Reduce { axes, .. } if axes.contains(&axis) => return true,
                Op::Reduce { .. } | Op::Map { .. } | Op::Expand { .. } => stack.extend(self.graph.op(id).operands()),
                _ => {}
            }
        }
        false
    }

    /// The kernel that runs a scan, with all scans nested in it.
    fn scan_part(&mut self, scan: ScanId, root: NodeId) -> Part {
        let graph = self.graph;
        let mut grid = graph.axes_of(root).clone();
        let mut loops: BTreeSet<AxisId> = BTreeSet::new();
        let mut inside = BTreeSet::new();
        let mut starts: Vec<NodeId> = Vec::new();
        for (s, other) in graph.scans.iter().enumerate() {
            if !self.steps.live[s] || self.steps.outermost(ScanId(s as u32)) != scan {
                continue;
            }
            loops.insert(other.axis);
            for state in &other.states {
                grid.retain(|a| state.axes.contains(a));
                starts.extend([state.init, state.next]);
            }
            starts.extend(other.history.iter().map(|h| h.1));
        }
        starts.push(root);
        starts.extend(self.stored.iter().copied().filter(|id| self.owner(*id) == Some(scan)));
        // Chunk forms work on whole states: matrix products over all keys and values.
        let chunked = |a: &AxisId| graph.axis(*a).split.is_some_and(|s| loops.contains(&s.outer));
        if (0..graph.axes.len() as u32).map(AxisId).any(|a| chunked(&a)) {
            for state in graph.scans.iter().enumerate().filter(|(s, _)| self.steps.live[*s] && self.steps.outermost(ScanId(*s as u32)) == scan).flat_map(|s| &s.1.states) {
                grid.retain(|a| !state.declared.contains(a));
            }
        }
        grid.retain(|a| !loops.contains(a));
        let mut seen = HashSet::new();
        let mut stack = starts;
        while let Some(id) = stack.pop() {
            let mine = self.owner(id) == Some(scan);
            if self.rows.contains_key(&id) {
                self.refused.insert(id);
            }
            if (!mine && self.stored.contains(&id)) || matches!(graph.op(id), Op::Input(_) | Op::Const(_) | Op::Index(_) | Op::Extent(_)) || !seen.insert(id) {
                continue;
            }
            if let Op::Reduce { axes: reduced, .. } = graph.op(id) {
                // What does not vary with the state is computed before, in parallel, unless that would fill memory.
                let mut axes = graph.axes_of(id).clone();
                axes.retain(|a| !loops.contains(a));
                let inner = graph.axes_of(id).iter().chain(reduced).any(&chunked);
                if !mine && !inner && !(self.sizes.long_axes(graph.axes_of(id)) >= 2 && loops.iter().any(|l| graph.axes_of(id).contains(l))) {
                    self.store(id);
                    continue;
                }
                // What a chunk alone decides is computed again by every block.
                grid.retain(|a| axes.contains(a) || (inner && !mine));
                inside.insert(id);
            }
            // A value of the step that is read at other positions is held whole along those axes.
            if let Op::Read { value, subs } = graph.op(id) {
                if self.owner(*value) == Some(scan) && !matches!(graph.op(*value), Op::History { .. }) {
                    grid.retain(|a| !subs.iter().any(|s| s.0 == *a));
                }
            }
            stack.extend(graph.op(id).operands());
        }
        Part { grid: self.storage_order(root, &grid), roots: vec![root], scan: Some(scan), inside, rows: BTreeSet::new() }
    }

    /// Grid axes in the storage order of the output or input that has most of them, so that neighbours in memory run close together.
    fn storage_order(&self, root: NodeId, grid: &AxisSet) -> Vec<AxisId> {
        let orders = self.graph.outputs.iter().filter(|o| o.node == root).map(|o| &o.axes).chain(self.graph.inputs.iter().map(|i| &i.axes));
        let best = orders.max_by_key(|axes| axes.iter().filter(|a| grid.contains(a)).count());
        let mut out: Vec<AxisId> = best.into_iter().flatten().copied().filter(|a| grid.contains(a)).collect();
        let rest: Vec<AxisId> = grid.iter().copied().filter(|a| !out.contains(a)).collect();
        out.splice(0..0, rest);
        // Neighbouring spans are neighbours in memory.
        out.sort_by_key(|a| self.spans.contains(a));
        out
    }

    /// Launch order: a part runs after the parts that store what it reads.
    fn ordered(&self, mut parts: Vec<Part>) -> Option<Vec<Part>> {
        parts.iter_mut().for_each(|p| p.roots.sort());
        let maker: HashMap<NodeId, usize> = parts.iter().enumerate().flat_map(|(i, p)| p.roots.iter().map(move |r| (*r, i))).collect();
        let needs: Vec<BTreeSet<usize>> = parts.iter().enumerate().map(|(i, p)| self.reads(p).iter().filter_map(|r| maker.get(r).copied()).filter(|j| *j != i).collect()).collect();
        let mut left: Vec<usize> = (0..parts.len()).collect();
        let mut done: BTreeSet<usize> = BTreeSet::new();
        let mut out = Vec::new();
        while !left.is_empty() {
            let ready = left.iter().position(|i| needs[*i].is_subset(&done))?;
            let i = left.remove(ready);
            done.insert(i);
            out.push(parts[i].clone());
        }
        Some(out)
    }

    /// Stored nodes that a part reads.
    fn reads(&self, part: &Part) -> BTreeSet<NodeId> {
        let mut out = BTreeSet::new();
        let mut seen = HashSet::new();
        let mut stack: Vec<NodeId> = part.roots.clone();
        while let Some(id) = stack.pop() {
            if !seen.insert(id) {
                continue;
            }
            let own = part.roots.contains(&id) || (part.scan.is_some() && self.owner(id) == part.scan);
            if self.stored.contains(&id) && !own {
                out.insert(id);
                continue;
            }
            stack.extend(dependencies(self.graph, id));
        }
        out
    }
}

/// Joins parts over the same grid that share a reduction and do not read one another at other positions.
fn merge(graph: &Graph, parts: BTreeMap<NodeId, Part>, stored: &BTreeSet<NodeId>, cuts: &BTreeSet<NodeId>) -> Vec<Part> {
    let mut out: Vec<Part> = Vec::new();
    // Stored values that a root depends on, transitively.
    let reaches = |from: NodeId| {
        let mut seen = HashSet::new();
        let mut hit = HashSet::new();
        let mut stack = dependencies(graph, from);
        while let Some(id) = stack.pop() {
            if seen.insert(id) {
                if stored.contains(&id) {
                    hit.insert(id);
                }
                stack.extend(dependencies(graph, id));
            }
        }
        hit
    };
    let upstream: HashMap<NodeId, HashSet<NodeId>> = parts.keys().map(|r| (*r, reaches(*r))).collect();
    for (root, part) in parts {
        let fits = out.iter().position(|o| {
            let same = o.grid.iter().collect::<BTreeSet<_>>() == part.grid.iter().collect::<BTreeSet<_>>();
            let shares = o.inside.iter().any(|r| part.inside.contains(r)) || o.rows.iter().any(|r| part.rows.contains(r));
            let reads = |from: &NodeId, to: &NodeId| upstream[from].contains(to) && cuts.contains(to);
            let apart = o.roots.iter().all(|r| !reads(r, &root) && !reads(&root, r));
            // Between them no third kernel may stand.
            let between = o.roots.iter().all(|r| {
                let via = |from: &NodeId, to: &NodeId| upstream[from].iter().filter(|m| !o.roots.contains(m)).any(|m| upstream.get(m).is_some_and(|u| u.contains(to)));
                !via(&root, r) && !via(r, &root)
            });
            same && shares && apart && between && o.scan.is_none()
        });
        match fits {
            Some(i) => {
                out[i].roots.push(root);
                out[i].inside.extend(part.inside);
                out[i].rows.extend(part.rows);
            }
            None => out.push(part),
        }
    }
    out
}
