//! Scans: a loop with one position a step that carries the states. Exports are stored where they arise; the states after the last
//! step are tiles of the enclosing scope.

use super::Writer;
use crate::graph::{AxisId, NodeId, Op, ScanId};
use crate::passes::error::CompileError;
use crate::tiles::*;

impl Writer<'_> {
    /// Writes the loop of a scan in the current scope.
    pub(crate) fn scan(&mut self, scan: ScanId) -> Result<(), CompileError> {
        let graph = self.graph;
        let record = &graph.scans[scan.index()];
        let dim = self.add_dim(record.axis, DimKind::Loop { block: 1 });
        let mut inits = Vec::new();
        let mut params = Vec::new();
        let starts: Vec<(NodeId, Vec<AxisId>)> = record.states.iter().map(|s| (s.init, vec![])).collect();
        self.needs(&starts)?;
        for state in &record.states {
            let expr = self.expr(state.init)?;
            // Memory order: as declared, then the rest.
            let mut axes: Vec<AxisId> = state.axes.iter().copied().filter(|a| !state.declared.contains(a)).collect();
            axes.extend(state.declared.iter().copied().filter(|a| state.axes.contains(a)));
            let init = self.tile_over(&state.name, &axes, state.dtype, expr)?;
            params.push(self.copy_type(init));
            inits.push(init);
        }
        self.push_scope([(record.axis, dim)].into());
        self.open.push(scan);
        let level = self.scopes.len() - 1;
        for (i, param) in params.iter().enumerate() {
            let expr = self.k.add(Expr::Tile(*param));
            self.scopes[level].vals.insert(record.states[i].old, expr);
        }
        let exports: Vec<NodeId> = self
            .part
            .roots
            .iter()
            .copied()
            .filter(|r| self.steps.step[scan.index()].contains(r) && !matches!(graph.op(*r), Op::Final { .. }) && self.innermost(*r) == Some(scan))
            .collect();
        let mut targets: Vec<(NodeId, Vec<AxisId>)> = record.states.iter().map(|s| (s.next, vec![])).collect();
        targets.extend(exports.iter().map(|e| (*e, vec![])));
        self.needs(&targets)?;
        let mut nexts = Vec::new();
        for (i, state) in record.states.iter().enumerate() {
            let expr = self.expr(state.next)?;
            let next = self.copy_type(params[i]);
            self.push(Stmt::Map { out: next, expr });
            nexts.push(next);
        }
        for export in exports {
            for home in self.homes_to_store(export) {
                self.store(export, &home)?;
            }
        }
        self.open.pop();
        let body = self.pop_scope();
        let lo = self.k.int(0);
        let extent = self.k.dim(dim).extent.clone();
        let hi = self.k.add(Expr::Host(extent));
        let results: Vec<TileId> = inits.iter().map(|i| self.copy_type(*i)).collect();
        let carries = (0..inits.len()).map(|i| Carry { param: params[i], init: inits[i], next: nexts[i], result: results[i] }).collect();
        self.push(Stmt::Loop(Box::new(Loop { dim, lo, hi, reverse: record.reverse, empty: None, full: None, head: vec![], carries, body })));
        let level = self.scopes.len() - 1;
        self.scopes[level].scans.insert(scan);
        for id in graph.ids() {
            if let Op::Final { scan: s, index } = graph.op(id) {
                if *s == scan {
                    let expr = self.k.add(Expr::Tile(results[*index as usize]));
                    self.scopes[level].vals.insert(id, expr);
                }
            }
        }
        Ok(())
    }

    /// The scan whose step holds the node most tightly.
    fn innermost(&self, id: NodeId) -> Option<ScanId> {
        let holds = (0..self.graph.scans.len()).filter(|s| self.steps.live[*s] && self.steps.step[*s].contains(&id));
        holds.min_by_key(|s| self.steps.step[*s].len()).map(|s| ScanId(s as u32))
    }
}
