//! Scans: a loop with one position a step that carries the states. Exports are stored where they arise; the states after the last
//! step are tiles of the enclosing scope.

use super::Writer;
use crate::graph::{AxisId, NodeId, Op, PrefixDir, ScanId, Split};
use crate::kernel::plan::HostExpr;
use crate::ops::DType;
use crate::passes::error::CompileError;
use crate::tiles::*;
use std::collections::{HashMap, HashSet};

impl Writer<'_> {
    /// Writes the loop of a scan in the current scope.
    pub(crate) fn scan(&mut self, scan: ScanId) -> Result<(), CompileError> {
        let graph = self.graph;
        let record = &graph.scans[scan.index()];
        let dim = self.add_dim(record.axis, DimKind::Loop { block: 1 });
        // Keys before values, as the chunk form declares them.
        let rows = self.chunk_rows(record.axis);
        if !rows.is_empty() {
            for axis in record.states.iter().flat_map(|s| s.declared.iter()) {
                self.dim_of(*axis)?;
            }
        }
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
        if !rows.is_empty() {
            self.hoist_tables(record.axis, scan)?;
        }
        let mut env = HashMap::from([(record.axis, dim)]);
        for (axis, split) in rows {
            let name = graph.axis(axis).name.clone();
            let extent = HostExpr::Extent(split.of.0);
            let inner = self.k.add_dim(Dim { axis, name, kind: DimKind::Chunk { block: split.block, outer: dim }, extent });
            // Values stored by position meet the rows.
            env.entry(split.of).or_insert(inner);
            env.insert(axis, inner);
        }
        self.push_scope(env);
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

    /// Axes of positions inside the blocks that an axis counts.
    fn chunk_rows(&self, outer: AxisId) -> Vec<(AxisId, Split)> {
        let axes = (0..self.graph.axes.len() as u32).map(AxisId);
        axes.filter_map(|a| self.graph.axis(a).split.filter(|s| s.outer == outer).map(|s| (a, s))).collect()
    }

    /// Values over the rows and columns of a chunk that are the same in every chunk: made once, before the loop.
    fn hoist_tables(&mut self, chunk: AxisId, scan: ScanId) -> Result<(), CompileError> {
        let graph = self.graph;
        let record = &graph.scans[scan.index()];
        let inner: Vec<AxisId> = self.chunk_rows(chunk).into_iter().map(|r| r.0).collect();
        let mut stack: Vec<NodeId> = record.states.iter().map(|s| s.next).chain(record.exports.iter().copied()).collect();
        let mut seen = HashSet::new();
        let mut tables = Vec::new();
        while let Some(id) = stack.pop() {
            if !seen.insert(id) {
                continue;
            }
            let axes = graph.axes_of(id);
            let same = !axes.contains(&chunk) && inner.iter().any(|a| axes.contains(a));
            if same && graph.dtype(id) == DType::Real && matches!(graph.op(id), Op::Map { .. } | Op::Prefix { .. }) {
                tables.push(id);
                continue;
            }
            stack.extend(graph.op(id).operands());
        }
        tables.sort();
        // Rows before columns: columns run fastest, as in the values that the tables meet.
        if !tables.is_empty() {
            for axis in &inner {
                self.dim_of(*axis)?;
            }
        }
        for id in tables {
            self.needs(&[(id, vec![])])?;
            self.tile(id)?;
        }
        Ok(())
    }

    /// A running reduction or a triangular system, as a tile of the current scope.
    pub(super) fn ordered(&mut self, id: NodeId) -> Result<(), CompileError> {
        let graph = self.graph;
        let mut dims = Vec::new();
        for axis in graph.axes_of(id) {
            dims.push(self.dim_of(*axis)?);
        }
        let dims = self.sorted(dims);
        let name = graph.node(id).name.clone().unwrap_or_else(|| format!("v{}", id.index()));
        let stmt = match graph.op(id).clone() {
            Op::Prefix { op, axis, dir, body, mask } => {
                let dim = self.dim_of(axis)?;
                let expr = self.expr(body)?;
                let identity = self.k.add(Expr::Const(op.identity(graph.dtype(body))));
                let expr = self.masked(expr, mask, identity)?;
                let (before, reverse) = (matches!(dir, PrefixDir::Lt | PrefixDir::Gt), matches!(dir, PrefixDir::Ge | PrefixDir::Gt));
                let out = self.k.add_tile(name, dims, graph.dtype(id));
                Stmt::Prefix { out, op, dim, expr, before, reverse }
            }
            Op::Solve { rows, cols, matrix, rhs, reverse } => {
                let (rows, cols) = (self.dim_of(rows)?, self.dim_of(cols)?);
                // Read many times: held.
                let matrix = self.tile(matrix)?;
                let matrix = self.k.add(Expr::Tile(matrix));
                let rhs = self.expr(rhs)?;
                let out = self.k.add_tile(name, dims, graph.dtype(id));
                Stmt::Solve { out, rows, cols, matrix, rhs, reverse }
            }
            op => return Err(self.bug(format!("{op:?} is not ordered"))),
        };
        let (Stmt::Prefix { out, .. } | Stmt::Solve { out, .. }) = &stmt else { return Err(self.bug("not ordered")) };
        let expr = self.k.add(Expr::Tile(*out));
        self.push(stmt);
        let level = self.scopes.len() - 1;
        self.scopes[level].vals.insert(id, expr);
        Ok(())
    }

    /// The scan whose step holds the node most tightly.
    fn innermost(&self, id: NodeId) -> Option<ScanId> {
        let holds = (0..self.graph.scans.len()).filter(|s| self.steps.live[*s] && self.steps.step[*s].contains(&id));
        holds.min_by_key(|s| self.steps.step[*s].len()).map(|s| ScanId(s as u32))
    }
}
