//! Size estimates and block sizes. The only place with tuning numbers.
//!
//! Decisions must not change from call to call, so they use nominal extents by the role that an axis plays: a *long* axis (positions:
//! scanned, compared by index, twinned, reduced by `max`), a *feature* axis (mostly the last axis of tensors), or any other.

use crate::graph::{AxisId, AxisSet, Graph, Op};
use crate::ops::DType;
use crate::reduce::ReduceOp;

/// Roles of the axes of one graph.
#[derive(Clone, Debug)]
pub struct Sizes {
    long: Vec<bool>,
    feature: Vec<bool>,
}

impl Sizes {
    pub fn new(graph: &Graph) -> Sizes {
        let n = graph.axes.len();
        let (mut long, mut last, mut earlier) = (vec![false; n], vec![0u32; n], vec![0u32; n]);
        for input in graph.inputs.iter().filter(|i| i.dtype == DType::Real && i.axes.len() >= 2) {
            for (place, axis) in input.axes.iter().enumerate() {
                if place + 1 == input.axes.len() {
                    last[axis.index()] += 1;
                } else if input.axes.len() >= 3 {
                    earlier[axis.index()] += 1;
                }
            }
        }
        for scan in &graph.scans {
            for state in &scan.states {
                state.declared.iter().for_each(|a| last[a.index()] += 1);
            }
        }
        for scan in &graph.scans {
            long[scan.axis.index()] = true;
        }
        for id in graph.ids() {
            match graph.op(id) {
                Op::Index(axis) => long[axis.index()] = true,
                Op::Rank { axes, .. } | Op::TopK { axes, .. } => axes.iter().for_each(|a| long[a.index()] = true),
                Op::ArgSort { axes, to, .. } | Op::List { axes, to, .. } => axes.iter().chain([to]).for_each(|a| long[a.index()] = true),
                Op::Reduce { op: ReduceOp::Max, axes, .. } => axes.iter().for_each(|a| long[a.index()] = true),
                _ => {}
            }
        }
        let feature: Vec<bool> = (0..n).map(|i| last[i] > 0 && last[i] >= earlier[i]).collect();
        // A twin of a long axis is long; a twin of a feature axis is a feature.
        let mut feature = feature;
        for (i, axis) in graph.axes.iter().enumerate() {
            if let Some(twin) = axis.twin {
                feature[i] = feature[i] || feature[twin.index()];
                if !feature[twin.index()] {
                    long[i] = true;
                    long[twin.index()] = true;
                }
            }
        }
        for i in 0..n {
            // Positions inside a block are few.
            let inner = graph.axes[i].split.is_some();
            feature[i] = feature[i] && !inner;
            long[i] = long[i] && !feature[i] && !inner;
        }
        Sizes { long, feature }
    }

    pub fn is_feature(&self, axis: AxisId) -> bool {
        self.feature.get(axis.index()).copied().unwrap_or(false)
    }

    pub fn is_long(&self, axis: AxisId) -> bool {
        self.long.get(axis.index()).copied().unwrap_or(true)
    }

    /// How many axes of the set are long.
    pub fn long_axes(&self, axes: &AxisSet) -> usize {
        axes.iter().filter(|a| self.is_long(**a)).count()
    }

    /// Nominal extent: what decisions assume.
    pub fn nominal(&self, axis: AxisId) -> u64 {
        if self.is_feature(axis) {
            64
        } else if self.is_long(axis) {
            4096
        } else {
            8
        }
    }

    /// Nominal number of elements.
    pub fn elements(&self, axes: &AxisSet) -> u64 {
        axes.iter().map(|a| self.nominal(*a)).fold(1, u64::saturating_mul)
    }
}
