//! Scans: the steps in order, with the results that anyone reads afterwards recorded over the scan axis.

use super::InterpError;
use super::eval::{Env, Eval, Frame, ROOT, copy_into, level};
use super::value::{Block, Data, Dim, View, dense, without};
use crate::graph::{AxisId, NodeId, ScanId};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// A record is kept for all positions of enclosing loops at once up to this many times the limit of other arrays.
const WHOLE: usize = 1 << 8;

/// What a finished scan leaves.
pub(super) struct Done {
    pub records: HashMap<NodeId, View>,
    pub finals: Vec<View>,
}

/// A result being recorded: dims without the scan axis, and its stride.
struct Record {
    block: Rc<Block>,
    all: Vec<Dim>,
    dims: Vec<Dim>,
    stride: usize,
}

impl Record {
    fn view(&self) -> View {
        View { block: self.block.clone(), offset: 0, dims: self.all.clone() }
    }
}

impl Eval<'_> {
    /// Runs the scan once for all positions of the loops around it that it does not need to know.
    pub(super) fn scan(&mut self, scan: ScanId, env: Env) -> Result<Rc<Done>, InterpError> {
        let home = self.scan_home(scan, env);
        let key = (scan, home);
        let at = level(home);
        if let Some(done) = self.frames[at].scans.get(&key) {
            return Ok(done.clone());
        }
        if self.active.contains(&scan) {
            return Err(InterpError::Cyclic { axis: self.graph.axis(self.graph.scans[scan.index()].axis).name.clone() });
        }
        self.active.push(scan);
        let done = Rc::new(self.run_scan(scan, home)?);
        self.active.pop();
        self.frames[at].scans.insert(key, done.clone());
        Ok(done)
    }

    /// The steps of the scans around this one, and, when its records are large, the loops over axes that it has.
    fn scan_home(&self, scan: ScanId, env: Env) -> Env {
        let graph = self.graph;
        let axes = &self.plan.axes[scan.index()];
        let own = graph.scans[scan.index()].axis;
        let records = &self.plan.records[scan.index()];
        let (mut steps, mut loops) = (ROOT, ROOT);
        for (bit, frame) in self.frames.iter().enumerate().skip(1).filter(|(bit, _)| env & (1 << bit) != 0) {
            let inside = |s: ScanId| self.plan.within[scan.index()].contains(&s) || records.iter().any(|r| self.plan.open(*r).contains(&s));
            if frame.scan.is_some_and(|s| s != scan && inside(s)) {
                steps |= 1 << bit;
            } else if frame.axis.is_some_and(|a| a != own && axes.contains(&a)) {
                loops |= 1 << bit;
            }
        }
        let steps = self.unbind(steps, |a| a == own);
        let sizes = records.iter().map(|r| self.count(&self.free(*r, steps)).unwrap_or(usize::MAX));
        let states = graph.scans[scan.index()].states.iter().map(|s| {
            let axes: Vec<AxisId> = s.axes.iter().copied().filter(|a| self.bound(*a, steps).is_none()).collect();
            self.count(&self.sizes(&axes)).unwrap_or(usize::MAX)
        });
        let total = sizes.chain(states).fold(0usize, usize::saturating_add);
        if total <= self.limit.saturating_mul(WHOLE) { steps } else { steps | loops }
    }

    fn run_scan(&mut self, scan: ScanId, env: Env) -> Result<Done, InterpError> {
        let graph = self.graph;
        let record = &graph.scans[scan.index()];
        let steps = self.binding.extent(record.axis);
        let mut states = Vec::new();
        for state in &record.states {
            states.push(self.eval(state.init, env, usize::MAX)?);
        }
        let mut records: BTreeMap<NodeId, Record> = BTreeMap::new();
        for node in self.plan.records[scan.index()].clone() {
            let free = self.free(node, env);
            let data = self.zeros(graph.dtype(node), &free)?;
            let all = dense(&free);
            let (dims, stride) = without(all.clone(), record.axis);
            records.insert(node, Record { block: self.block(data), all, dims, stride });
        }
        for step in 0..steps {
            let at = if record.reverse { steps - 1 - step } else { step };
            let mut frame = Frame::new(Some(record.axis), at);
            frame.scan = Some(scan);
            frame.states = states.clone();
            frame.history = record.history.iter().filter_map(|h| records.get(&h.1)).map(Record::view).collect();
            let inner = self.push(env, frame)?;
            let mut next = Vec::new();
            for state in &record.states {
                let value = self.eval(state.next, inner, usize::MAX)?;
                next.push(self.owned(value)?);
            }
            let mut values = Vec::new();
            for node in records.keys() {
                values.push(self.eval(*node, inner, usize::MAX)?);
            }
            self.frames.pop();
            for (record, value) in records.values_mut().zip(&values) {
                // Views of earlier results died with the frame; a survivor makes this a copy, never a wrong value.
                let block = Rc::make_mut(&mut record.block);
                if !record.all.iter().any(|d| d.extent == 0) {
                    copy_into(&mut block.data, &record.dims, at * record.stride, value)?;
                }
            }
            states = next;
        }
        let records = records.into_iter().map(|(node, record)| (node, record.view())).collect();
        Ok(Done { records, finals: states })
    }

    /// A value that does not keep a much larger array alive.
    fn owned(&mut self, view: View) -> Result<View, InterpError> {
        let sizes: Vec<(AxisId, usize)> = view.dims.iter().map(|d| (d.axis, d.extent)).collect();
        if self.count(&sizes)?.saturating_mul(4) >= view.data().len() {
            return Ok(view);
        }
        let mut data: Data = self.zeros(view.data().dtype(), &sizes)?;
        copy_into(&mut data, &dense(&sizes), 0, &view)?;
        Ok(self.array(data, &sizes))
    }
}
