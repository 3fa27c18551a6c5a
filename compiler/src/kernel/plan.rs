//! The host side of a compiled program: which buffers exist, which kernels run in which order, with what arguments.
//! Serialisable; together with the artifacts of a backend it is all that the runtime needs.

use super::ir::{Kernel, Storage};
use crate::ops::{DType, ScalarOp};
use serde::{Deserialize, Serialize};

/// A scalar computed on the host before a launch, from extents and scalar inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum HostExpr {
    Int(i64),
    Real(f64),
    Bool(bool),
    /// Extent of axis i of the plan.
    Extent(u32),
    /// Value of input i of the plan, a scalar.
    Scalar(u32),
    Op(ScalarOp, Vec<HostExpr>),
}

/// An axis and its extent: `None` when the shapes of the inputs give it; negative values mean 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AxisPlan {
    pub name: String,
    pub extent: Option<HostExpr>,
}

/// A tensor or scalar that the caller gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputPlan {
    pub name: String,
    pub dtype: DType,
    /// Axes in storage order, by number; empty for a scalar.
    pub axes: Vec<u32>,
    /// Value that fills it when the caller gives none.
    pub default: Option<HostExpr>,
    /// Storage that the kernels were compiled for; the runtime converts other storages on entry.
    pub storage: Storage,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputPlan {
    pub name: String,
    pub dtype: DType,
    pub axes: Vec<u32>,
    pub storage: Storage,
}

/// A condition checked at each call; `text` is how the program wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequirePlan {
    pub cond: HostExpr,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BufferKind {
    Input(u32),
    Output(u32),
    Temp,
    /// Rows that one block makes, orders and reads: nobody else sees them, so there is one copy for each block that runs at a time.
    Block,
}

/// A dense row-major array between kernels or at the edge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BufferPlan {
    pub name: String,
    pub kind: BufferKind,
    pub dtype: DType,
    pub storage: Storage,
    /// Extents, outermost first.
    pub dims: Vec<HostExpr>,
}

/// One launch of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// Index into the kernels of the program.
    pub kernel: u32,
    /// Number of blocks; nothing runs when it is 0.
    pub blocks: HostExpr,
    /// For each buffer argument, an index into `Plan::buffers`.
    pub buffers: Vec<u32>,
    pub ints: Vec<HostExpr>,
    pub reals: Vec<HostExpr>,
}

/// A compiled program without its code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub name: String,
    pub axes: Vec<AxisPlan>,
    pub inputs: Vec<InputPlan>,
    pub outputs: Vec<OutputPlan>,
    pub requires: Vec<RequirePlan>,
    pub buffers: Vec<BufferPlan>,
    /// In order; a launch sees everything that earlier ones stored.
    pub launches: Vec<Launch>,
    /// Extents that were fixed when it was compiled: (axis, extent). Other extents need another compilation.
    pub fixed: Vec<(u32, i64)>,
    /// What did not apply and why, for `explain`.
    pub remarks: Vec<String>,
}

/// A plan with its kernels, before a backend has turned them into artifacts.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    pub plan: Plan,
    pub kernels: Vec<Kernel>,
}
