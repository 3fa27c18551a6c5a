//! Earlier results of a scan, read by its own step: leaves whose dtype and axes are assumed in one round and compared with what
//! the round exports.

use super::scope::ScopeId;
use super::{Elab, Res, Val};
use crate::base::Span;
use crate::graph::{AxisSet, NodeId, Op, ScanId};
use crate::ops::DType;

/// An export that the step reads at other positions, as assumed in a round.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Earlier {
    pub dtype: DType,
    pub axes: AxisSet,
    /// Axes of its condition, when the export may be absent.
    pub cond: Option<AxisSet>,
    /// Whether dtype and axes were observed rather than guessed.
    pub known: bool,
    pub leaf: Option<NodeId>,
    pub cond_leaf: Option<NodeId>,
}

impl<'a> Elab<'a> {
    pub(super) fn observe(&self, value: &Val) -> Earlier {
        let cond = if value.conds.is_empty() {
            None
        } else {
            Some(value.conds.iter().flat_map(|c| self.graph.axes_of(*c).iter().copied()).collect())
        };
        Earlier {
            dtype: self.graph.dtype(value.node),
            axes: self.graph.axes_of(value.node).clone(),
            cond,
            known: true,
            leaf: None,
            cond_leaf: None,
        }
    }

    /// Whether the axes of an earlier result are observed, so that reading others is an error.
    pub(super) fn history_known(&self, scan: ScanId, name: &str) -> bool {
        self.histories.get(&scan).and_then(|h| h.get(name)).is_some_and(|e| e.known)
    }

    /// The leaf for earlier values of an export, with its condition.
    pub(super) fn history(&mut self, scan: ScanId, _step: ScopeId, name: &str, span: Span) -> Res {
        let axis = self.graph.scans[scan.index()].axis;
        let mut entry = match self.histories.get(&scan).and_then(|h| h.get(name)) {
            Some(entry) => entry.clone(),
            None => {
                let (dtype, mut axes) = self.output_type(name).unwrap_or((DType::Real, AxisSet::new()));
                axes.insert(axis);
                Earlier { dtype, axes, cond: None, known: false, leaf: None, cond_leaf: None }
            }
        };
        let leaf = match entry.leaf {
            Some(leaf) => leaf,
            None => self.history_leaf(scan, entry.dtype, entry.axes.clone(), name, span)?,
        };
        entry.leaf = Some(leaf);
        let mut conds = Vec::new();
        if let Some(cond_axes) = entry.cond.clone() {
            let mut cond_axes = cond_axes;
            cond_axes.insert(axis);
            let cond = match entry.cond_leaf {
                Some(leaf) => leaf,
                None => self.history_leaf(scan, DType::Bool, cond_axes, name, span)?,
            };
            entry.cond_leaf = Some(cond);
            conds.push(cond);
        }
        self.histories.entry(scan).or_default().insert(name.to_string(), entry);
        Ok(Val { node: leaf, conds })
    }

    fn history_leaf(&mut self, scan: ScanId, dtype: DType, axes: AxisSet, name: &str, span: Span) -> Res<NodeId> {
        let index = self.graph.scans[scan.index()].history.len() as u32;
        let leaf = self.leaf(Op::History { scan, index }, dtype, axes, span)?;
        self.graph.dag[leaf.0].name = Some(name.to_string());
        self.graph.scans[scan.index()].history.push((leaf, leaf));
        Ok(leaf)
    }

    pub(super) fn patch_history(&mut self, id: ScanId, leaf: Option<NodeId>, exported: NodeId) {
        if let Some(entry) = self.graph.scans[id.index()].history.iter_mut().find(|e| Some(e.0) == leaf) {
            entry.1 = exported;
        }
    }
}
