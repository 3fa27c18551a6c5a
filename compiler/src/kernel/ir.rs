//! The kernel IR: structured control flow over scalar SSA values, memory, and tile calls.
//!
//! A kernel runs once for every *block* of a one-dimensional grid. A block has `lanes` lanes that execute the same text
//! (CPU: one lane; GPU: threads of a workgroup). Lanes differ only through `Inst::Lane`. Local arrays belong to the block and are
//! shared by its lanes; a `Barrier` makes stores of all lanes to locals *and* buffers visible to all lanes of the block.
//! Control flow around a `Barrier` or a tile call is uniform over the lanes (verified).
//!
//! Ints are 64 bits wide on the CPU and 32 bits on GPUs; Reals are f32 everywhere. Bools in local memory take one byte (CPU) or
//! one 32-bit word (GPU). Indices count elements, not bytes. Lets inside a `For` or `If` body are visible in that body only.

use crate::ops::{DType, Scalar, ScalarOp};

pub use crate::ops::OrderKind;
use serde::{Deserialize, Serialize};

/// Identity of an SSA value inside one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub u32);

/// How elements lie in memory outside the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Storage {
    F32,
    F64,
    Bf16,
    F16,
    I64,
    I32,
    U8,
}

impl Storage {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Storage::F64 | Storage::I64 => 8,
            Storage::F32 | Storage::I32 => 4,
            Storage::Bf16 | Storage::F16 => 2,
            Storage::U8 => 1,
        }
    }
}

/// A global buffer; loads convert its storage to `ty`, stores convert back (round to nearest even).
#[derive(Clone, Debug, PartialEq)]
pub struct BufferArg {
    pub name: String,
    /// Real, Int or Bool.
    pub ty: DType,
    pub storage: Storage,
    /// Some lane stores to it.
    pub written: bool,
}

/// Where a local array lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Fast block memory: CPU scratch, workgroup or shared memory.
    Shared,
    /// A part of the workspace buffer that belongs to this block: for arrays that do not fit `Shared`.
    Workspace,
}

/// An array of `len` elements that belongs to the block; contents are undefined at the start.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalArray {
    pub name: String,
    pub ty: DType,
    pub len: usize,
    pub space: Space,
}

/// Index into `Kernel::buffers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u32);

/// Index into `Kernel::locals`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalId(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Base {
    Buffer(BufferId),
    Local(LocalId),
}

/// A place in memory: the element `offset` of a buffer or local array. Tile calls need Real.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub base: Base,
    pub offset: Value,
}

/// Computes one value.
#[derive(Clone, Debug, PartialEq)]
pub enum Inst {
    Const(Scalar),
    /// The i-th Int argument.
    IntArg(u32),
    /// The i-th Real argument.
    RealArg(u32),
    /// Index of this block in the grid, Int.
    Block,
    /// Index of this lane, Int, `0..lanes`.
    Lane,
    /// Operands per the table of ops; Complex never occurs here.
    Op { op: ScalarOp, args: Vec<Value> },
    /// In range by construction (the lowering guards it).
    Load { base: Base, index: Value },
}

/// A value carried around a loop.
#[derive(Clone, Debug, PartialEq)]
pub struct Carry {
    /// Value at the start of an iteration (defined by the loop).
    pub param: Value,
    pub init: Value,
    /// Value at the end of an iteration (defined in the body).
    pub next: Value,
    /// Value after the loop (defined by the loop).
    pub result: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Stmt {
    Let(Value, Inst),
    Store { base: Base, index: Value, value: Value },
    /// `for var = lo; var < hi; var += step` with `step > 0`; `lo`, `hi`, `step` are Ints evaluated once.
    For { var: Value, lo: Value, hi: Value, step: Value, carries: Vec<Carry>, body: Vec<Stmt> },
    If { cond: Value, then: Vec<Stmt>, other: Vec<Stmt> },
    Barrier,
    Tile(Box<TileCall>),
    /// Part of a kernel with roles (`Kernel::warps`).
    Warp(Box<super::warp::WarpOp>),
}

/// A whole-tile operation that a capability row offers ("matrix instructions" of the CPU: the table of micro-kernels).
/// Places hold f32 (operands of `Dot` also bf16 or f16); strides and counts are Int values in elements. Strides of contiguous axes are 1.
#[derive(Clone, Debug, PartialEq)]
pub enum TileCall {
    /// `c[i,j] = (accumulate ? c[i,j] : 0) + sum over l of a[i,l] * b[l,j]`, `i < m`, `j < n`, `l < k`; any strides, sums in f32.
    /// With `narrow`, an f32 operand may be rounded to the 16-bit storage of the other one first, as matrix units take them.
    Dot { m: Value, n: Value, k: Value, a: Place, a_m: Value, a_k: Value, b: Place, b_k: Value, b_n: Value, c: Place, c_m: Value, c_n: Value, accumulate: bool, narrow: bool },
    /// `y[r,j] = expdiff(scale * x[r,j], scale * safe(shift[r]))` (0 for x = -inf; safe(-inf) = 0), `sums[r] += sum of row r of y`.
    /// Rows have stride `x_row`, `y_row`; columns, `shift` and `sums` have stride 1. `scale` is a positive Real.
    ExpRows { rows: Value, cols: Value, x: Place, x_row: Value, shift: Place, y: Place, y_row: Value, sums: Place, scale: Value },
    /// `out[r] = max(out[r], max of x[r,..])`; NaN propagates.
    MaxRows { rows: Value, cols: Value, x: Place, x_row: Value, out: Place },
    /// `out[r] += sum of x[r,..]`.
    SumRows { rows: Value, cols: Value, x: Place, x_row: Value, out: Place },
    /// `x[r,j] *= factor[r]`.
    ScaleRows { rows: Value, cols: Value, x: Place, x_row: Value, factor: Place },
    /// `x[i,:] += sum over c < i of m[i,c] * x[c,:]` for `i` from 0 to `n`, in place (from the last row, over c > i, when `reverse`): a unit
    /// triangular system. Rows of `m` and of `x` (`cols` elements) have strides `m_row`, `x_row`.
    Solve { n: Value, cols: Value, m: Place, m_row: Value, x: Place, x_row: Value, reverse: bool },
    /// `y[i] = op(x[i])` over `n` contiguous elements, ops with one Real operand and a Real result.
    Unary { op: ScalarOp, n: Value, x: Place, y: Place },
    /// Orders the `n` elements `key[i * key_step]`, those with `mask[i * mask_step]` taking part, and stores to `out[j * out_step]`
    /// what `kind` says. Keys are Real, Int or Bool in any storage, masks Bool.
    Order { kind: OrderKind, n: Value, count: Value, key: Place, key_step: Value, mask: Option<Place>, mask_step: Value, out: Place, out_step: Value },
    /// `y[i] = op(a[i * a_step], b[i * b_step])`, steps 0 or 1, ops with two Real operands and a Real result.
    Binary { op: ScalarOp, n: Value, a: Place, a_step: u8, b: Place, b_step: u8, y: Place },
}

/// Code for one block.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    pub name: String,
    pub buffers: Vec<BufferArg>,
    /// Names of the Int arguments.
    pub ints: Vec<String>,
    /// Names of the Real arguments.
    pub reals: Vec<String>,
    pub locals: Vec<LocalArray>,
    pub lanes: u32,
    /// Types of all values, by number.
    pub types: Vec<DType>,
    pub body: Vec<Stmt>,
    /// Set when the block is made of warp groups with roles.
    pub warps: Option<Box<super::warp::Warps>>,
}

impl Kernel {
    pub fn ty(&self, value: Value) -> DType {
        self.types[value.0 as usize]
    }
}
