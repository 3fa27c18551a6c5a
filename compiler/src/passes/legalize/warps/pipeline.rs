//! Stages and order of a loop body: body `n` of the text runs the ops of stage 0 of iteration `n` and those of stage 1 of iteration `n - 1`.
//!
//! Every set of products is tried at stage 1 (what follows them in the iteration goes along); a vector of stages is legal when what one
//! iteration leaves for the next is there in time. The order comes from list scheduling over a queue of products and one vector engine;
//! the vector with the shortest steady state that fits the registers wins.
//! Source: modulo scheduling, Rau and Glaeser 1981; the cost model is that of notes on asynchronous matrix units, decision 7.

use super::nodes::Node;
use crate::kernel::warp::FragId;
use std::collections::{BTreeSet, HashMap};

/// Clocks to start a product.
const ISSUE: u32 = 30;

/// Ops of one body in order, with their stages.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub order: Vec<usize>,
    pub stage: Vec<u8>,
    /// Registers of a lane that fragments of the body take at most.
    pub live: u32,
    /// Clocks of a body in the steady state, one group alone.
    pub clocks: u32,
}

impl Schedule {
    pub fn is_staged(&self) -> bool {
        self.stage.contains(&1)
    }
}

/// `from` must come before `to`, `distance` iterations later.
struct Edge {
    from: usize,
    to: usize,
    distance: u8,
}

fn edges(nodes: &[Node]) -> Vec<Edge> {
    let meets = |a: &[FragId], b: &[FragId]| a.iter().any(|x| b.contains(x));
    let mut out = vec![];
    for (i, u) in nodes.iter().enumerate() {
        for (j, v) in nodes.iter().enumerate() {
            let conflict = meets(&u.writes, &v.reads) || meets(&u.reads, &v.writes) || meets(&u.writes, &v.writes);
            // Stores keep their order among each other.
            let effects = u.writes.is_empty() && v.writes.is_empty();
            if i < j && (conflict || effects) {
                out.push(Edge { from: i, to: j, distance: 0 });
            } else if i >= j && conflict {
                out.push(Edge { from: i, to: j, distance: 1 });
            }
        }
    }
    out
}

/// The best schedule whose fragments fit `registers`. `kept`: fragments that are read after the loop. Errors: the fewest registers needed.
pub(super) fn schedule(nodes: &[Node], kept: &[FragId], registers: u32, size: impl Fn(FragId) -> u32) -> Result<Schedule, u32> {
    let edges = edges(nodes);
    let products: Vec<usize> = (0..nodes.len()).filter(|i| nodes[*i].is_product()).collect();
    let mut seen = BTreeSet::new();
    let (mut best, mut least): (Option<Schedule>, u32) = (None, u32::MAX);
    for set in 0..1u32 << products.len().min(8) {
        let mut stage = vec![0u8; nodes.len()];
        for (bit, p) in products.iter().enumerate() {
            stage[*p] = (set >> bit & 1) as u8;
        }
        for e in edges.iter().filter(|e| e.distance == 0) {
            stage[e.to] = stage[e.to].max(stage[e.from]);
        }
        if stage.iter().all(|s| *s == 1) || !seen.insert(stage.clone()) || split_views(nodes, &stage) {
            continue;
        }
        let Some((order, clocks)) = order(nodes, &edges, &stage) else { continue };
        // What the ops of stage 1 write after the loop is not alive in it.
        let kept: Vec<FragId> = kept.iter().copied().filter(|f| !nodes.iter().zip(&stage).any(|(n, s)| *s == 1 && n.writes.contains(f))).collect();
        let live = live(nodes, &order, &kept, &size);
        least = least.min(live);
        let found = Schedule { order, stage, clocks, live };
        let better = best.as_ref().is_none_or(|b| found.clocks < b.clocks);
        if live <= registers && better {
            best = Some(found);
        }
    }
    best.ok_or(least)
}

/// A view cannot be read by ops of two stages: a ring has one view at a time.
fn split_views(nodes: &[Node], stage: &[u8]) -> bool {
    let mut of = HashMap::new();
    nodes.iter().zip(stage).any(|(n, s)| n.rings.iter().any(|r| *of.entry(*r).or_insert(*s) != *s))
}

/// List scheduling; `None` when the ops of one body wait for each other in a circle.
fn order(nodes: &[Node], edges: &[Edge], stage: &[u8]) -> Option<(Vec<usize>, u32)> {
    let inside: Vec<&Edge> = edges.iter().filter(|e| stage[e.to] + e.distance == stage[e.from]).collect();
    // Longest way to the end of the body.
    let mut path: Vec<u32> = nodes.iter().map(|n| n.clocks).collect();
    for _ in 0..nodes.len() {
        for e in &inside {
            path[e.from] = path[e.from].max(nodes[e.from].clocks + path[e.to]);
        }
    }
    let mut order = vec![];
    let mut placed = vec![false; nodes.len()];
    let (mut now, mut queue) = (0u32, 0u32);
    let mut end = vec![0u32; nodes.len()];
    let needs = |i: usize, end: &[u32]| inside.iter().filter(|e| e.to == i && nodes[e.from].is_product()).map(|e| end[e.from]).max().unwrap_or(0);
    while order.len() < nodes.len() {
        let ready = (0..nodes.len()).filter(|i| !placed[*i] && inside.iter().all(|e| e.to != *i || placed[e.from]));
        let next = ready.min_by_key(|i| {
            let wait = needs(*i, &end).saturating_sub(now);
            let class = u8::from(!(nodes[*i].is_product() && wait == 0));
            (class, if class == 0 { stage[*i] } else { 0 }, wait, u32::MAX - path[*i], *i)
        })?;
        now = now.max(needs(next, &end));
        if nodes[next].is_product() {
            now += ISSUE;
            queue = queue.max(now) + nodes[next].clocks;
            end[next] = queue;
        } else {
            now += nodes[next].clocks;
        }
        placed[next] = true;
        order.push(next);
    }
    Some((order, now.max(queue)))
}

/// Most registers that live fragments take, around the loop.
fn live(nodes: &[Node], order: &[usize], kept: &[FragId], size: &impl Fn(FragId) -> u32) -> u32 {
    let mut alive: BTreeSet<FragId> = kept.iter().copied().collect();
    let mut peak = 0;
    for _ in 0..2 {
        for i in order.iter().rev() {
            let n = &nodes[*i];
            let total = |s: &BTreeSet<FragId>| s.iter().map(|f| size(*f)).sum::<u32>();
            peak = peak.max(total(&alive));
            for w in n.writes.iter().filter(|w| !n.reads.contains(w)) {
                alive.remove(w);
            }
            alive.extend(n.reads.iter().copied());
            peak = peak.max(total(&alive));
        }
        alive.extend(kept.iter().copied());
    }
    peak
}
