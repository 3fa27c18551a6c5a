//! Chunk forms of scans: a scan whose step is affine in its states becomes a scan over chunks whose work inside a chunk is matrix products.
//!
//! The step is differentiated by its states (`affine`): `S' = a S + z (w . S) + z y`, with `a` nothing, a scalar or a factor a key.
//! Legality: that form exists for a state, with keys and values apart; every result of the scan reads the states through sums over the
//! keys. Profit: some state has both keys and values, so that a chunk is matrix products. States that others wait for (a running
//! maximum) stay in a scan of their own and are read from memory. What cannot be had so stays a scan, with the reason as a remark.
//! Decays by key are taken as logarithms, not below `LEAST`: a smaller factor changes nothing that f32 can show.

mod affine;
mod form;
mod range;

use super::rewrite::{Builder, Work, dependencies, live, rewrite};
use super::steps::Steps;
use crate::graph::{Axis, AxisId, AxisSet, Extent, NodeId, Op, Scan, ScanId, Split, State};
use crate::kernel::caps::Chunks;
use crate::ops::{DType, Scalar, ScalarOp};
use crate::reduce::ReduceOp;
use affine::{Affine, Term};
use form::{Axes, Decay, Writer};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Least logarithm of a decay by key.
const LEAST: f64 = -20.0;

/// How a state moves in one step, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    pub state: String,
    pub class: String,
}

/// Rewrites every scan that has a chunk form and adds remarks. `Steps` of the result must be computed anew.
pub fn chunk_scans(work: Work, chunks: Chunks, remarks: &mut Vec<String>) -> Work {
    let mut work = work;
    for s in 0..work.graph.scans.len() {
        let steps = Steps::new(&work.graph);
        let record = &work.graph.scans[s];
        if !steps.live[s] || record.derived {
            continue;
        }
        let (axis, names) = (work.graph.axis(record.axis).name.clone(), record.states.iter().map(|s| s.name.clone()).collect::<Vec<_>>().join("`, `"));
        let (done, reason) = match one_scan(work.clone(), &steps, ScanId(s as u32), chunks) {
            Ok((done, classes)) => {
                let classes: Vec<String> = classes.iter().map(|c| format!("`{}` {}", c.state, c.class)).collect();
                remarks.push(format!("scan over `{axis}`: in chunks; {}", classes.join(", ")));
                (Some(done), String::new())
            }
            Err(reason) => (None, reason),
        };
        match done {
            Some(done) => work = done,
            None => remarks.push(format!("scan over `{axis}` of `{names}`: one position a step; {reason}")),
        }
    }
    rewrite(work, &mut Copy)
}

/// Carries the graph over without what is dead.
struct Copy;
impl super::rewrite::Rewrite for Copy {}

/// What a step adds to a state: `sign * z * y`, factors of keys and of values.
struct Write {
    negative: bool,
    z: Vec<NodeId>,
    y: Vec<NodeId>,
}

/// A state with its form taken apart.
struct Plan {
    state: usize,
    keys: Vec<AxisId>,
    values: Vec<AxisId>,
    decay: Decay,
    writes: Vec<Write>,
    /// `sign * z * (coefficient * w . S)`.
    erase: Option<Erase>,
}

struct Erase {
    negative: bool,
    z: Vec<NodeId>,
    w: NodeId,
}

type Res<T> = Result<T, String>;

fn one_scan(work: Work, steps: &Steps, scan: ScanId, chunks: Chunks) -> Res<(Work, Vec<Class>)> {
    let record = work.graph.scans[scan.index()].clone();
    if steps.parent[scan.index()].is_some() || record.parent.is_some() {
        return Err("it runs inside the step of another scan".to_string());
    }
    if (0..work.graph.scans.len()).any(|s| steps.live[s] && steps.parent[s] == Some(scan)) {
        return Err("another scan runs inside its step".to_string());
    }
    if !record.history.is_empty() {
        return Err("the step reads earlier results".to_string());
    }
    let step = &steps.step[scan.index()];
    let keep = live(&work.graph);
    let chosen = choose(&work, &record, step)?;
    let mut b = Builder::resume(work);
    // Values that vary with the chosen states, and the leaves among them.
    let mut leaves = HashMap::new();
    for i in &chosen {
        leaves.insert(record.states[*i].old, (*i, false));
        leaves.insert(record.states[*i].next, (*i, true));
    }
    let olds: HashSet<NodeId> = chosen.iter().map(|i| record.states[*i].old).collect();
    let varying = varying(&b, step, &olds);
    // A value after the step that does not read the state: no recurrence.
    leaves.retain(|id, _| varying.contains(id));
    let wanted = wanted(&b, &keep, scan, &varying);
    let mut a = Affine { b: &mut b, leaves, live: varying };
    // Readouts decide which axes are keys.
    let mut reads: Vec<Term> = Vec::new();
    for id in &wanted {
        collect(&mut a, *id, &mut reads, &mut HashSet::new())?;
    }
    let mut plans = Vec::new();
    let mut classes = Vec::new();
    for i in &chosen {
        let (plan, class) = plan(&mut a, &record, *i, &reads)?;
        classes.push(Class { state: record.states[*i].name.clone(), class });
        plans.push(plan);
    }
    if !plans.iter().any(|p| !p.keys.is_empty() && !p.values.is_empty()) {
        return Err("no state has both keys and values, a chunk would hold no matrix product".to_string());
    }
    for (i, state) in record.states.iter().enumerate() {
        if !chosen.contains(&i) {
            classes.push(Class { state: state.name.clone(), class: "first, one position a step".to_string() });
        }
    }
    let keyed = plans.iter().any(|p| matches!(p.decay, Decay::Keys(_)));
    if keyed && record.reverse {
        return Err("decay by key in a reverse scan".to_string());
    }
    let hint = a.b.graph.hints.iter().find(|h| h.kind == "chunk" && h.axis == Some(record.axis) && h.target.is_none()).map(|h| h.value);
    let block = match hint.and_then(|h| u32::try_from(h).ok()).filter(|h| (8..=256).contains(h) && h.is_power_of_two()) {
        Some(block) if !keyed => block,
        _ if keyed => chunks.keyed,
        _ => chunks.rows,
    };
    let emit = Emit::new(a, &record, &plans, block, chunks.pivot);
    let replaced = emit.write(&wanted)?;
    Ok((finish(b, &record, scan, &chosen, replaced), classes))
}

/// States that may run in chunks: those that wait for no other state but ones that run before.
fn choose(work: &Work, record: &Scan, step: &BTreeSet<NodeId>) -> Res<Vec<usize>> {
    let graph = &work.graph;
    let n = record.states.len();
    let index: HashMap<NodeId, usize> = record.states.iter().enumerate().map(|(i, s)| (s.old, i)).collect();
    let needs: Vec<BTreeSet<usize>> = record
        .states
        .iter()
        .map(|s| {
            let mut out = BTreeSet::new();
            let mut seen = HashSet::new();
            let mut stack = vec![s.next];
            while let Some(id) = stack.pop() {
                if !seen.insert(id) || !step.contains(&id) {
                    continue;
                }
                out.extend(index.get(&id));
                stack.extend(graph.op(id).operands());
            }
            out
        })
        .collect();
    let mut chosen: BTreeSet<usize> = (0..n).filter(|i| record.states[*i].dtype == DType::Real && !record.states[*i].declared.is_empty()).collect();
    loop {
        let before = chosen.len();
        // What another state waits for runs first, in a scan of its own; large states would fill memory so.
        for i in 0..n {
            for j in needs[i].iter().copied().filter(|j| *j != i) {
                chosen.remove(&j);
                if !chosen.contains(&i) && chosen.contains(&j) {
                    chosen.remove(&j);
                }
            }
        }
        if chosen.len() == before {
            break;
        }
    }
    for (i, state) in record.states.iter().enumerate() {
        if !chosen.contains(&i) && state.declared.len() > 1 {
            return Err(format!("`{}` is read by the step of another state", state.name));
        }
    }
    if chosen.is_empty() {
        return Err("its states wait for one another".to_string());
    }
    Ok(chosen.into_iter().collect())
}

/// Nodes of the step that vary with some leaves.
fn varying(b: &Builder, step: &BTreeSet<NodeId>, leaves: &HashSet<NodeId>) -> HashSet<NodeId> {
    let mut memo: HashMap<NodeId, bool> = HashMap::new();
    fn walk(b: &Builder, id: NodeId, step: &BTreeSet<NodeId>, leaves: &HashSet<NodeId>, memo: &mut HashMap<NodeId, bool>) -> bool {
        if let Some(known) = memo.get(&id) {
            return *known;
        }
        let known = leaves.contains(&id) || (step.contains(&id) && b.graph.op(id).operands().into_iter().any(|o| walk(b, o, step, leaves, memo)));
        memo.insert(id, known);
        known
    }
    step.iter().copied().filter(|id| walk(b, *id, step, leaves, &mut memo)).collect()
}

/// Values of the step that are read outside of it.
fn wanted(b: &Builder, keep: &HashSet<NodeId>, scan: ScanId, varying: &HashSet<NodeId>) -> Vec<NodeId> {
    let mut out: BTreeSet<NodeId> = b.graph.outputs.iter().map(|o| o.node).chain(b.graph.requires.iter().map(|r| r.cond)).filter(|id| varying.contains(id)).collect();
    for user in keep.iter().filter(|u| !varying.contains(u)) {
        let through = matches!(b.graph.op(*user), Op::State { scan: s, .. } | Op::Final { scan: s, .. } | Op::History { scan: s, .. } if *s == scan);
        if through {
            continue;
        }
        out.extend(dependencies(&b.graph, *user).into_iter().filter(|d| varying.contains(d)));
    }
    out.into_iter().collect()
}

/// Readouts of a result: sums over the keys of a state. The rest of a result is pointwise.
fn collect(a: &mut Affine, id: NodeId, reads: &mut Vec<Term>, seen: &mut HashSet<NodeId>) -> Res<()> {
    if !a.live.contains(&id) || !seen.insert(id) {
        return Ok(());
    }
    if a.leaves.contains_key(&id) {
        return Err("a result is the state itself, at every position".to_string());
    }
    match a.b.graph.op(id).clone() {
        Op::Reduce { op: ReduceOp::Sum, .. } => {
            let form = a.form(id, None)?;
            reads.extend(form.terms);
            Ok(())
        }
        Op::Map { args, .. } => args.into_iter().try_for_each(|x| collect(a, x, reads, seen)),
        Op::Expand { value, .. } => collect(a, value, reads, seen),
        Op::Reduce { op, .. } => Err(format!("a result takes `{}` over a state", op.name())),
        _ => Err("a result reads states at other positions".to_string()),
    }
}

fn plan(a: &mut Affine, record: &Scan, i: usize, reads: &[Term]) -> Res<(Plan, String)> {
    let state = &record.states[i];
    let name = &state.name;
    let own: AxisSet = state.declared.iter().copied().filter(|x| state.axes.contains(x)).collect();
    let form = a.form(state.next, Some(state.next)).map_err(|e| format!("`{name}` is nonlinear: {e}"))?;
    let mut keys: AxisSet = AxisSet::new();
    for (axes, inner) in reads.iter().filter(|t| t.state == i).filter_map(|t| t.sum.clone()).chain(form.terms.iter().filter_map(|t| t.sum.clone())) {
        keys.extend(axes.iter().filter(|x| own.contains(x)));
        if inner.is_some_and(|n| axes.iter().any(|x| !a.b.graph.axes_of(n).contains(x) && !own.contains(x))) {
            return Err(format!("`{name}` is summed over an axis that it does not have"));
        }
    }
    let touches = |a: &Affine, n: Option<NodeId>, set: &AxisSet| n.is_some_and(|n| a.b.graph.axes_of(n).iter().any(|x| set.contains(x)));
    // The decay: all terms that keep elements apart.
    let span = record.span;
    let mut diagonal: Option<NodeId> = None;
    let mut is_one = false;
    let mut erases: Vec<Term> = Vec::new();
    for t in &form.terms {
        if t.state != i || t.after {
            return Err(format!("`{name}` is fed by another state"));
        }
        if t.sum.is_some() {
            erases.push(t.clone());
            continue;
        }
        if t.outer.is_none() && !t.negative && diagonal.is_none() && !is_one {
            is_one = true;
            continue;
        }
        let one = a.real(1.0);
        let factor = t.outer.unwrap_or(one);
        let factor = if t.negative { a.b.map(ScalarOp::Neg, &[factor], span) } else { factor };
        let before = if is_one { Some(one) } else { diagonal };
        is_one = false;
        diagonal = Some(match before {
            Some(d) => a.b.map(ScalarOp::Add, &[d, factor], span),
            None => factor,
        });
    }
    if !is_one && diagonal.is_none() && erases.is_empty() {
        return Err(format!("`{name}` forgets everything at every step"));
    }
    if let Some(d) = diagonal {
        keys.extend(a.b.graph.axes_of(d).iter().filter(|x| own.contains(x)));
    }
    let values: AxisSet = own.difference(&keys).copied().collect();
    if keys.is_empty() {
        return Err(format!("no sum reads `{name}`"));
    }
    for t in reads.iter().filter(|t| t.state == i).chain(&erases) {
        let Some((axes, inner)) = &t.sum else { return Err(format!("a result reads `{name}` element by element")) };
        if !keys.iter().all(|k| axes.contains(k)) || axes.len() != keys.len() {
            return Err(format!("results read `{name}` over different axes"));
        }
        if touches(a, *inner, &values) {
            return Err(format!("a dense transition or readout joins keys and values of `{name}`"));
        }
    }
    let decay = match diagonal {
        None if is_one => Decay::None,
        // Nothing is kept but what an erasing row writes back.
        None => Decay::Scalar(a.real(0.0)),
        Some(d) if !touches(a, Some(d), &keys) => Decay::Scalar(d),
        Some(d) => {
            let log = range::log_of(a.b, d).ok_or_else(|| format!("the decay of `{name}` may be negative"))?;
            let least = a.real(LEAST);
            Decay::Keys(a.b.map(ScalarOp::Max, &[log, least], span))
        }
    };
    // Writes, keys and values apart.
    let (k, v) = (keys.clone(), values.clone());
    let whole = move |b: &Builder, n: NodeId| {
        let axes = b.graph.axes_of(n);
        !(axes.iter().any(|x| k.contains(x)) && axes.iter().any(|x| v.contains(x)))
    };
    let split = |a: &Affine, negative: bool, factors: Vec<NodeId>| {
        let one = |f: &NodeId| matches!(a.b.graph.op(*f), Op::Const(Scalar::Real(x)) if *x == 1.0);
        let (mut z, y): (Vec<NodeId>, Vec<NodeId>) = factors.into_iter().filter(|f| !one(f)).partition(|f| touches(a, Some(*f), &keys));
        z.sort();
        Write { negative, z, y }
    };
    let mut writes = Vec::new();
    if let Some(rest) = form.rest {
        for (negative, factors) in a.monomials(rest, &whole)? {
            writes.push(split(a, negative, factors));
        }
    }
    let mut erase = None;
    if erases.len() > 1 {
        return Err(format!("`{name}` is erased by a rank of {}", erases.len()));
    }
    if let Some(t) = erases.first() {
        let one = a.real(1.0);
        let outer = t.outer.unwrap_or(one);
        if touches(a, Some(outer), &values) {
            return Err(format!("a dense transition joins keys and values of `{name}`"));
        }
        let w = t.sum.as_ref().and_then(|s| s.1).unwrap_or(one);
        let mut parts = a.monomials(outer, &whole)?;
        let (negative, factors) = if parts.len() == 1 { parts.remove(0) } else { (false, vec![outer]) };
        let write = split(a, negative != t.negative, factors);
        let coefficient = write.y.into_iter().fold(None, |c, f| a.times(c, Some(f), span));
        let w = a.times(coefficient, Some(w), span).unwrap_or(w);
        erase = Some(Erase { negative: write.negative, z: write.z, w });
    }
    let class = match &decay {
        Decay::None => "kept",
        Decay::Scalar(_) => "scalar decay",
        Decay::Keys(_) => "decay by key",
    };
    let class = if erase.is_some() { format!("{class}, rank 1") } else { class.to_string() };
    let order = |set: &AxisSet| state.declared.iter().copied().filter(|x| set.contains(x)).collect::<Vec<_>>();
    Ok((Plan { state: i, keys: order(&keys), values: order(&values), decay, writes, erase }, class))
}

/// A write inside the chunk: `z` and `y` over columns.
struct Column {
    z: NodeId,
    y: NodeId,
}

/// The scan over chunks under construction.
struct Emit<'a, 'b> {
    a: Affine<'b>,
    record: &'a Scan,
    plans: &'a [Plan],
    axes: Axes,
    sub: u32,
    /// By plan: the state before the chunk, and what is written in it.
    olds: Vec<NodeId>,
    columns: Vec<Vec<Column>>,
    memo: HashMap<NodeId, NodeId>,
}

impl<'a, 'b> Emit<'a, 'b> {
    fn new(a: Affine<'b>, record: &'a Scan, plans: &'a [Plan], block: u32, sub: u32) -> Emit<'a, 'b> {
        let b = &mut *a.b;
        let t = record.axis;
        let span = record.span;
        let length = b.int(i64::from(block));
        let extent = b.add(Op::Extent(t), span);
        let chunks = b.map(ScalarOp::CeilDiv, &[extent, length], span);
        let name = b.graph.axis(t).name.clone();
        let axis = |b: &mut Builder, name: String, extent: NodeId, split: Option<Split>| b.graph.add_axis(Axis { name, extent: Extent::Value(extent), twin: None, split, span });
        let c = axis(b, format!("{name}.chunk"), chunks, None);
        let split = Some(Split { of: t, outer: c, block });
        let r = axis(b, format!("{name}.row"), length, split);
        let u = axis(b, format!("{name}.col"), length, split);
        let scan = ScanId(b.graph.scans.len() as u32);
        let axes = Axes { t, c, r, u, block, reverse: record.reverse };
        let mut olds = Vec::new();
        for (index, plan) in plans.iter().enumerate() {
            let state = &record.states[plan.state];
            let mut all = state.axes.clone();
            all.insert(c);
            olds.push(b.add_typed(Op::State { scan, index: index as u32 }, DType::Real, all, span));
        }
        Emit { a, record, plans, axes, sub, olds, columns: vec![], memo: HashMap::new() }
    }

    fn writer(&mut self) -> Writer<'_> {
        Writer { b: &mut *self.a.b, axes: self.axes, sub: self.sub, span: self.record.span }
    }

    fn product(&mut self, factors: &[NodeId], negative: bool) -> NodeId {
        let span = self.record.span;
        let product = factors.iter().fold(None, |p, f| self.a.times(p, Some(*f), span));
        let product = product.unwrap_or_else(|| self.a.real(1.0));
        if negative { self.a.b.map(ScalarOp::Neg, &[product], span) } else { product }
    }

    /// Results over rows: (node of the step, node over chunk and row). The scan's record is added to the graph.
    fn write(mut self, wanted: &[NodeId]) -> Res<Vec<(NodeId, NodeId)>> {
        for p in 0..self.plans.len() {
            let columns = self.columns_of(p);
            self.columns.push(columns);
        }
        let mut made = Vec::new();
        for id in wanted {
            let row = self.row(*id)?;
            made.push((*id, row));
        }
        let mut states = Vec::new();
        for (p, plan) in self.plans.iter().enumerate() {
            let state = &self.record.states[plan.state];
            let old = self.olds[p];
            let columns: Vec<(NodeId, NodeId)> = self.columns[p].iter().map(|c| (c.z, c.y)).collect();
            let u = self.axes.u;
            let mut w = self.writer();
            let mut next = w.whole(&plan.decay, old);
            for (z, y) in columns {
                let z = w.to_end(&plan.decay, z);
                let body = w.mul(z, y);
                let sum = w.sum(&[u], body);
                next = w.b.map(ScalarOp::Add, &[next, sum], w.span);
            }
            let declared = plan.keys.iter().chain(&plan.values).copied().collect();
            states.push(State { name: state.name.clone(), dtype: DType::Real, axes: state.axes.clone(), declared, init: state.init, old, next });
        }
        let exports = made.iter().map(|m| m.1).collect();
        let record = Scan { axis: self.axes.c, reverse: self.record.reverse, parent: None, derived: false, states, exports, history: vec![], span: self.record.span };
        self.a.b.graph.scans.push(record);
        // Readers outside see positions again.
        let Axes { t, c, r, block, .. } = self.axes;
        let span = self.record.span;
        let b = &mut *self.a.b;
        let here = b.add(Op::Index(t), span);
        let length = b.int(i64::from(block));
        let (chunk, row) = (b.map(ScalarOp::IntDiv, &[here, length], span), b.map(ScalarOp::Mod, &[here, length], span));
        let joined = |b: &mut Builder, v: NodeId| {
            let subs = [(c, chunk), (r, row)].into_iter().filter(|s| b.graph.axes_of(v).contains(&s.0)).collect();
            b.add(Op::Read { value: v, subs }, span)
        };
        Ok(made.into_iter().map(|(id, v)| (id, joined(b, v))).collect())
    }

    /// Everything that the step writes into a state, over columns.
    fn columns_of(&mut self, p: usize) -> Vec<Column> {
        let plans = self.plans;
        let plan = &plans[p];
        let Axes { r, u, reverse, .. } = self.axes;
        let mut merged: Vec<(Vec<NodeId>, NodeId)> = Vec::new();
        for write in &plan.writes {
            let y = self.product(&write.y, write.negative);
            match merged.iter_mut().find(|m| m.0 == write.z) {
                Some(m) => {
                    let span = self.record.span;
                    m.1 = self.a.b.map(ScalarOp::Add, &[m.1, y], span);
                }
                None => merged.push((write.z.clone(), y)),
            }
        }
        let mut out = Vec::new();
        let erased = plan.erase.as_ref().map(|e| merged.iter().position(|m| m.0 == e.z).map(|i| merged.remove(i).1));
        for (z, y) in merged {
            let z = self.product(&z, false);
            let mut w = self.writer();
            let (z, y) = (w.at(z, u), w.at(y, u));
            out.push(Column { z, y });
        }
        if let (Some(erase), Some(value)) = (&plan.erase, erased) {
            // n = value + sign * (w . S before the step): what is written along z.
            let z = self.product(&erase.z, false);
            let old = self.olds[p];
            let mut w = self.writer();
            let row = w.at(erase.w, r);
            let z = w.at(z, u);
            let scaled = w.since_start(&plan.decay, row, true);
            let body = w.mul(scaled, old);
            let mut read = w.sum(&plan.keys, body);
            for column in &out {
                let pair = w.pair(&plan.decay, &plan.keys, row, column.z, true);
                let body = w.mul(pair, column.y);
                let sum = w.sum(&[u], body);
                read = w.b.map(ScalarOp::Add, &[read, sum], w.span);
            }
            let mut matrix = w.pair(&plan.decay, &plan.keys, row, z, true);
            if erase.negative {
                matrix = w.b.map(ScalarOp::Neg, &[matrix], w.span);
            }
            let rhs = match value {
                Some(value) => {
                    let value = w.at(value, r);
                    w.b.map(if erase.negative { ScalarOp::Sub } else { ScalarOp::Add }, &[value, read], w.span)
                }
                None if erase.negative => w.b.map(ScalarOp::Neg, &[read], w.span),
                None => read,
            };
            let y = w.b.add(Op::Solve { rows: r, cols: u, matrix, rhs, reverse }, w.span);
            out.push(Column { z, y });
        }
        out
    }

    /// A value of the step over rows.
    fn row(&mut self, id: NodeId) -> Res<NodeId> {
        if let Some(done) = self.memo.get(&id) {
            return Ok(*done);
        }
        let span = self.a.b.graph.node(id).span;
        let r = self.axes.r;
        let made = if !self.a.live.contains(&id) {
            self.writer().at(id, r)
        } else {
            match self.a.b.graph.op(id).clone() {
                Op::Reduce { op: ReduceOp::Sum, .. } => self.readout(id)?,
                Op::Map { op, args } => {
                    let args = args.into_iter().map(|x| self.row(x)).collect::<Res<Vec<_>>>()?;
                    self.a.b.map(op, &args, span)
                }
                Op::Expand { value, axes } => {
                    let value = self.row(value)?;
                    let t = self.axes.t;
                    let axes: Vec<AxisId> = axes.into_iter().filter(|x| *x != t && !self.a.b.graph.axes_of(value).contains(x)).collect();
                    if axes.is_empty() { value } else { self.a.b.add(Op::Expand { value, axes }, span) }
                }
                _ => return Err("a result reads states at other positions".to_string()),
            }
        };
        self.memo.insert(id, made);
        Ok(made)
    }

    fn readout(&mut self, id: NodeId) -> Res<NodeId> {
        let form = self.a.form(id, None)?;
        let Axes { r, u, .. } = self.axes;
        let plans = self.plans;
        let mut total: Option<NodeId> = form.rest.map(|rest| self.writer().at(rest, r));
        for t in form.terms {
            let p = plans.iter().position(|p| p.state == t.state).ok_or("a state that does not run in chunks")?;
            let plan = &plans[p];
            let inner = t.sum.and_then(|s| s.1).unwrap_or_else(|| self.a.real(1.0));
            let old = self.olds[p];
            let columns: Vec<(NodeId, NodeId)> = self.columns[p].iter().map(|c| (c.z, c.y)).collect();
            let mut w = self.writer();
            let x = w.at(inner, r);
            let scaled = w.since_start(&plan.decay, x, !t.after);
            let body = w.mul(scaled, old);
            let mut value = w.sum(&plan.keys, body);
            for (z, y) in columns {
                let pair = w.pair(&plan.decay, &plan.keys, x, z, !t.after);
                let body = w.mul(pair, y);
                let sum = w.sum(&[u], body);
                value = w.b.map(ScalarOp::Add, &[value, sum], w.span);
            }
            if let Some(outer) = t.outer {
                let outer = w.at(outer, r);
                value = w.mul(value, outer);
            }
            let span = w.span;
            total = Some(match (total, t.negative) {
                (None, false) => value,
                (None, true) => self.a.b.map(ScalarOp::Neg, &[value], span),
                (Some(sum), negative) => self.a.b.map(if negative { ScalarOp::Sub } else { ScalarOp::Add }, &[sum, value], span),
            });
        }
        Ok(total.unwrap_or_else(|| self.a.real(0.0)))
    }
}

/// Puts the new results in place of the old ones and takes the chunked states out of the old scan.
fn finish(b: Builder, record: &Scan, scan: ScanId, chosen: &[usize], replaced: Vec<(NodeId, NodeId)>) -> Work {
    let mut work = b.finish();
    let new_scan = ScanId(work.graph.scans.len() as u32 - 1);
    let by: HashMap<NodeId, NodeId> = replaced.into_iter().collect();
    let image = |id: NodeId| by.get(&id).copied().unwrap_or(id);
    let rest: Vec<usize> = (0..record.states.len()).filter(|i| !chosen.contains(i)).collect();
    let ids: Vec<NodeId> = work.graph.ids().collect();
    let leaves: HashSet<NodeId> = chosen.iter().map(|i| record.states[*i].old).collect();
    for id in ids {
        let mut op = work.graph.op(id).map_operands(image);
        match &mut op {
            Op::Final { scan: s, index } if *s == scan => match chosen.iter().position(|i| *i == *index as usize) {
                Some(place) => (*s, *index) = (new_scan, place as u32),
                None => *index = rest.iter().position(|i| *i == *index as usize).unwrap_or(0) as u32,
            },
            Op::State { scan: s, index } if *s == scan && !leaves.contains(&id) && !rest.is_empty() => {
                *index = rest.iter().position(|i| *i == *index as usize).unwrap_or(0) as u32;
            }
            _ => {}
        }
        work.graph.dag[id.0].op = op;
    }
    for output in &mut work.graph.outputs {
        output.node = image(output.node);
    }
    for require in &mut work.graph.requires {
        require.cond = image(require.cond);
    }
    let old = &mut work.graph.scans[scan.index()];
    old.states = rest.iter().map(|i| record.states[*i].clone()).collect();
    old.exports.retain(|e| !by.contains_key(e));
    work.cuts = work.cuts.iter().map(|c| image(*c)).collect();
    work
}

/// Where a value over (chunk, row) is read by position again: `value[chunk = t div L, row = t mod L]`.
pub fn joined(graph: &crate::graph::Graph, id: NodeId) -> Option<NodeId> {
    let Op::Read { value, subs } = graph.op(id) else { return None };
    let split = graph.axes_of(*value).iter().find_map(|a| graph.axis(*a).split.map(|s| (*a, s)))?;
    let (row, Split { of, outer, block }) = split;
    let part = |axis: AxisId, op: ScalarOp| {
        subs.iter().any(|s| {
            let Op::Map { op: o, args } = graph.op(s.1) else { return false };
            s.0 == axis && *o == op && *graph.op(args[0]) == Op::Index(of) && *graph.op(args[1]) == Op::Const(Scalar::Int(i64::from(block)))
        })
    };
    let chunk = !graph.axes_of(*value).contains(&outer) || part(outer, ScalarOp::IntDiv);
    (chunk && part(row, ScalarOp::Mod) && subs.len() <= 2).then_some(*value)
}

/// The position inside a block as a position of the axis that it splits: `block * outer + inner`, by the inner axis.
pub fn position_of(graph: &crate::graph::Graph, id: NodeId) -> Option<AxisId> {
    let Op::Map { op: ScalarOp::Add, args } = graph.op(id) else { return None };
    let Op::Index(inner) = graph.op(args[1]) else { return None };
    let split = graph.axis(*inner).split?;
    let Op::Map { op: ScalarOp::Mul, args } = graph.op(args[0]) else { return None };
    let same = *graph.op(args[0]) == Op::Index(split.outer) && *graph.op(args[1]) == Op::Const(Scalar::Int(i64::from(split.block)));
    same.then_some(*inner)
}

/// Whether a condition says that a position inside a block exists, by the inner axis.
pub fn exists(graph: &crate::graph::Graph, id: NodeId) -> Option<AxisId> {
    let Op::Map { op: ScalarOp::Lt, args } = graph.op(id) else { return None };
    let inner = position_of(graph, args[0])?;
    let split = graph.axis(inner).split?;
    (*graph.op(args[1]) == Op::Extent(split.of)).then_some(inner)
}

