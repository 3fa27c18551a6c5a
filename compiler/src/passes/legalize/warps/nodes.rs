//! Ops of straight texts over fragments, before they have an order.

use crate::kernel::warp::{FragId, Operand, RingId};
use crate::ops::ScalarOp;
use crate::tiles::{BufId, DimId, ExprId};

#[derive(Clone, Debug)]
pub(super) enum Work {
    /// `out = (acc or 0) + a * b`.
    Mma { out: FragId, acc: Option<FragId>, a: Operand, b: RingId, turned: bool, k: u32 },
    /// An element expression.
    Each { out: FragId, expr: ExprId, dims: Vec<DimId> },
    /// `out = from * factors`.
    Scale { out: FragId, from: FragId, factors: Vec<ExprId>, dims: Vec<DimId> },
    /// `out = cond ? from : the value that the scale takes to minus infinity`, for scores whose scale is still to come.
    Fill { out: FragId, from: FragId, cond: Option<ExprId>, class: Option<DimId>, scale: Vec<ExprId>, dims: Vec<DimId> },
    Move { to: FragId, from: FragId },
    /// Columns past the end of a block of `over` take no part; `spare` is room to leave them out.
    Fold { out: FragId, op: ScalarOp, from: FragId, carried: Option<FragId>, over: DimId, spare: FragId, identity: f64, row: DimId, scale: Vec<ExprId> },
    /// As for `Fold`.
    Pack { out: FragId, from: FragId, over: DimId, spare: FragId, row: DimId },
    Store { buffer: BufId, index: Vec<ExprId>, dims: Vec<DimId>, expr: ExprId },
}

/// An op with what `pipeline` must know of it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub work: Work,
    pub reads: Vec<FragId>,
    pub writes: Vec<FragId>,
    /// Rings whose view of this iteration it reads.
    pub rings: Vec<RingId>,
    /// Clocks of a group in its unit.
    pub clocks: u32,
    /// The block's class changes what it does.
    pub classed: bool,
}

impl Node {
    pub fn is_product(&self) -> bool {
        matches!(self.work, Work::Mma { .. })
    }
}
