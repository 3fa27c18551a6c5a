//! Tile calls: arguments in the order of the functions in [`Table`], which is called through its pointers.

use super::micro::order::{Cell, Kind};
use super::micro::{Binary, Half, Operands, Table, Unary};
use attnc_compiler::kernel::{Base, Kernel, OrderKind, Place, Storage, TileCall, Value};
use attnc_compiler::ops::{DType, ScalarOp};
use std::mem::offset_of;

/// One argument of a function in the table.
#[derive(Clone, Copy)]
pub(super) enum Arg {
    /// An Int or Real of the kernel.
    Value(Value),
    /// A constant i64.
    Const(i64),
    /// The address of a place.
    Place(Place),
    /// No address.
    Null,
}

/// Byte offset of the function's pointer in the table, and its arguments; `None` when the table has no such op.
pub(super) fn call(kernel: &Kernel, call: &TileCall) -> Option<(usize, Vec<Arg>)> {
    use Arg::{Const, Null, Place as At, Value as V};
    Some(match *call {
        TileCall::Dot { m, n, k, a, a_m, a_k, b, b_k, b_n, c, c_m, c_n, accumulate, narrow } => {
            let sizes = [V(m), V(n), V(k)];
            let places = [At(a), V(a_m), V(a_k), At(b), V(b_k), V(b_n), At(c), V(c_m), V(c_n), Const(i64::from(accumulate))];
            match (storage(kernel, a), storage(kernel, b)) {
                (Storage::F32, Storage::F32) => (offset_of!(Table, dot), [&sizes[..], &places[..]].concat()),
                (x, y) => {
                    let operands = Operands { a: half(x)?, b: half(y)?, narrow };
                    (offset_of!(Table, dot_mixed), [&[Const(operands.code())], &sizes[..], &places[..]].concat())
                }
            }
        }
        TileCall::ExpRows { rows, cols, x, x_row, shift, y, y_row, sums, scale } => {
            (offset_of!(Table, exp_rows), vec![V(rows), V(cols), At(x), V(x_row), At(shift), At(y), V(y_row), At(sums), V(scale)])
        }
        TileCall::MaxRows { rows, cols, x, x_row, out } => (offset_of!(Table, max_rows), vec![V(rows), V(cols), At(x), V(x_row), At(out)]),
        TileCall::SumRows { rows, cols, x, x_row, out } => (offset_of!(Table, sum_rows), vec![V(rows), V(cols), At(x), V(x_row), At(out)]),
        TileCall::ScaleRows { rows, cols, x, x_row, factor } => {
            (offset_of!(Table, scale_rows), vec![V(rows), V(cols), At(x), V(x_row), At(factor)])
        }
        TileCall::Order { kind, n, count, key, key_step, mask, mask_step, out, out_step } => {
            let kind = match kind {
                OrderKind::Rank => Kind::Rank,
                OrderKind::Sorted => Kind::Sorted,
                OrderKind::Largest => Kind::Largest,
                OrderKind::Members => Kind::Members,
            };
            let (key_type, out_type) = (Const(cell(kernel, key)?.code()), Const(cell(kernel, out)?.code()));
            let keys = [Const(kind.code()), V(n), V(count), key_type, At(key), V(key_step)];
            (offset_of!(Table, order), [&keys[..], &[mask.map_or(Null, At), V(mask_step), out_type, At(out), V(out_step)]].concat())
        }
        TileCall::Solve { n, cols, m, m_row, x, x_row, reverse } => {
            (offset_of!(Table, solve), vec![V(n), V(cols), At(m), V(m_row), At(x), V(x_row), Const(i64::from(reverse))])
        }
        TileCall::Unary { op, n, x, y } => (offset_of!(Table, unary), vec![Const(unary(op)?.code()), V(n), At(x), At(y)]),
        TileCall::Binary { op, n, a, a_step, b, b_step, y } => {
            let code = Const(binary(op)?.code());
            (offset_of!(Table, binary), vec![code, V(n), At(a), Const(i64::from(a_step)), At(b), Const(i64::from(b_step)), At(y)])
        }
    })
}

/// How the elements of a place lie in memory; `None` for f64, which kernels do not store.
fn cell(kernel: &Kernel, place: Place) -> Option<Cell> {
    let storage = match place.base {
        Base::Buffer(b) => kernel.buffers[b.0 as usize].storage,
        Base::Local(l) => match kernel.locals[l.0 as usize].ty {
            DType::Real | DType::Complex => Storage::F32,
            DType::Int => Storage::I64,
            DType::Bool => Storage::U8,
        },
    };
    Some(match storage {
        Storage::F32 => Cell::F32,
        Storage::Bf16 => Cell::Bf16,
        Storage::F16 => Cell::F16,
        Storage::I64 => Cell::I64,
        Storage::I32 => Cell::I32,
        Storage::U8 => Cell::U8,
        Storage::F64 => return None,
    })
}

fn storage(kernel: &Kernel, place: Place) -> Storage {
    match place.base {
        Base::Buffer(id) => kernel.buffers[id.0 as usize].storage,
        Base::Local(_) => Storage::F32,
    }
}

/// `Some(None)` is f32.
fn half(storage: Storage) -> Option<Option<Half>> {
    match storage {
        Storage::F32 => Some(None),
        Storage::Bf16 => Some(Some(Half::Bf16)),
        Storage::F16 => Some(Some(Half::F16)),
        Storage::F64 | Storage::I64 | Storage::I32 | Storage::U8 => None,
    }
}

fn unary(op: ScalarOp) -> Option<Unary> {
    use ScalarOp::*;
    Some(match op {
        Neg => Unary::Neg,
        Abs => Unary::Abs,
        Sign => Unary::Sign,
        Rint => Unary::Rint,
        Exp => Unary::Exp,
        Log => Unary::Log,
        Log1p => Unary::Log1p,
        Sqrt => Unary::Sqrt,
        Tanh => Unary::Tanh,
        Sigmoid => Unary::Sigmoid,
        Softplus => Unary::Softplus,
        Sin => Unary::Sin,
        Cos => Unary::Cos,
        Erf => Unary::Erf,
        // No Real result from one Real operand.
        Add | Sub | Mul | Div | IntDiv | Mod | Pow | Min | Max | Floor | Ceil | ExpDiff | Ratio | Xor | BitAnd | BitOr | Shl | Shr | CeilDiv
        | CeilLog2 | Pow2Ceil | Lt | Le | ScalarOp::Eq | Ne | And | Or | Not | Select | ToReal | ToInt | ToComplex | Complex | Re | Im => {
            return None;
        }
    })
}

fn binary(op: ScalarOp) -> Option<Binary> {
    use ScalarOp::*;
    Some(match op {
        Add => Binary::Add,
        Sub => Binary::Sub,
        Mul => Binary::Mul,
        Div => Binary::Div,
        Max => Binary::Max,
        Min => Binary::Min,
        Pow => Binary::Pow,
        ExpDiff => Binary::ExpDiff,
        Ratio => Binary::Ratio,
        // No Real result from two Real operands.
        IntDiv | Mod | Neg | Abs | Sign | Floor | Ceil | Rint | Exp | Log | Log1p | Sqrt | Tanh | Sigmoid | Softplus | Sin | Cos | Erf | Xor
        | BitAnd | BitOr | Shl | Shr | CeilDiv | CeilLog2 | Pow2Ceil | Lt | Le | ScalarOp::Eq | Ne | And | Or | Not | Select | ToReal | ToInt
        | ToComplex | Complex | Re | Im => return None,
    })
}
