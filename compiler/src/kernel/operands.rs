//! Which values instructions and tile calls read, and which places tile calls touch.

use super::ir::*;

impl From<BufferId> for Base {
    fn from(id: BufferId) -> Base {
        Base::Buffer(id)
    }
}

impl From<LocalId> for Base {
    fn from(id: LocalId) -> Base {
        Base::Local(id)
    }
}

impl Inst {
    /// The values that it reads.
    pub fn operands(&self) -> Vec<Value> {
        match self {
            Inst::Const(_) | Inst::IntArg(_) | Inst::RealArg(_) | Inst::Block | Inst::Lane => vec![],
            Inst::Op { args, .. } => args.clone(),
            Inst::Load { index, .. } => vec![*index],
        }
    }

    /// The same instruction over other values.
    pub fn map_operands(self, mut f: impl FnMut(Value) -> Value) -> Inst {
        match self {
            Inst::Const(_) | Inst::IntArg(_) | Inst::RealArg(_) | Inst::Block | Inst::Lane => self,
            Inst::Op { op, args } => Inst::Op { op, args: args.into_iter().map(f).collect() },
            Inst::Load { base, index } => Inst::Load { base, index: f(index) },
        }
    }
}

impl TileCall {
    /// Short name, for dumps.
    pub fn name(&self) -> &'static str {
        match self {
            TileCall::Dot { .. } => "dot",
            TileCall::ExpRows { .. } => "exp_rows",
            TileCall::MaxRows { .. } => "max_rows",
            TileCall::SumRows { .. } => "sum_rows",
            TileCall::ScaleRows { .. } => "scale_rows",
            TileCall::Solve { .. } => "solve",
            TileCall::Unary { .. } => "unary",
            TileCall::Binary { .. } => "binary",
            TileCall::Order { .. } => "order",
        }
    }

    /// Counts and strides, with their names; all Int.
    pub fn ints(&self) -> Vec<(&'static str, Value)> {
        match *self {
            TileCall::Dot { m, n, k, a_m, a_k, b_k, b_n, c_m, c_n, .. } => {
                vec![("m", m), ("n", n), ("k", k), ("a_m", a_m), ("a_k", a_k), ("b_k", b_k), ("b_n", b_n), ("c_m", c_m), ("c_n", c_n)]
            }
            TileCall::ExpRows { rows, cols, x_row, y_row, .. } => vec![("rows", rows), ("cols", cols), ("x_row", x_row), ("y_row", y_row)],
            TileCall::MaxRows { rows, cols, x_row, .. } | TileCall::SumRows { rows, cols, x_row, .. } | TileCall::ScaleRows { rows, cols, x_row, .. } => {
                vec![("rows", rows), ("cols", cols), ("x_row", x_row)]
            }
            TileCall::Solve { n, cols, m_row, x_row, .. } => vec![("n", n), ("cols", cols), ("m_row", m_row), ("x_row", x_row)],
            TileCall::Unary { n, .. } | TileCall::Binary { n, .. } => vec![("n", n)],
            TileCall::Order { n, count, key_step, mask_step, out_step, .. } => {
                vec![("n", n), ("count", count), ("key_step", key_step), ("mask_step", mask_step), ("out_step", out_step)]
            }
        }
    }

    /// Real operands, with their names.
    pub fn reals(&self) -> Vec<(&'static str, Value)> {
        match *self {
            TileCall::ExpRows { scale, .. } => vec![("scale", scale)],
            TileCall::Dot { .. } | TileCall::MaxRows { .. } | TileCall::SumRows { .. } | TileCall::ScaleRows { .. } => vec![],
            TileCall::Solve { .. } | TileCall::Unary { .. } | TileCall::Binary { .. } | TileCall::Order { .. } => vec![],
        }
    }

    /// All places, with their names.
    pub fn places(&self) -> Vec<(&'static str, Place)> {
        match *self {
            TileCall::Dot { a, b, c, .. } => vec![("a", a), ("b", b), ("c", c)],
            TileCall::ExpRows { x, shift, y, sums, .. } => vec![("x", x), ("shift", shift), ("y", y), ("sums", sums)],
            TileCall::MaxRows { x, out, .. } | TileCall::SumRows { x, out, .. } => vec![("x", x), ("out", out)],
            TileCall::ScaleRows { x, factor, .. } => vec![("x", x), ("factor", factor)],
            TileCall::Solve { m, x, .. } => vec![("m", m), ("x", x)],
            TileCall::Unary { x, y, .. } => vec![("x", x), ("y", y)],
            TileCall::Binary { a, b, y, .. } => vec![("a", a), ("b", b), ("y", y)],
            TileCall::Order { key, mask, out, .. } => [("key", Some(key)), ("mask", mask), ("out", Some(out))].into_iter().filter_map(|(n, p)| Some((n, p?))).collect(),
        }
    }

    /// The places that it stores to.
    pub fn outputs(&self) -> Vec<Place> {
        match *self {
            TileCall::Dot { c, .. } => vec![c],
            TileCall::ExpRows { y, sums, .. } => vec![y, sums],
            TileCall::MaxRows { out, .. } | TileCall::SumRows { out, .. } => vec![out],
            TileCall::ScaleRows { x, .. } | TileCall::Solve { x, .. } => vec![x],
            TileCall::Order { out, .. } => vec![out],
            TileCall::Unary { y, .. } | TileCall::Binary { y, .. } => vec![y],
        }
    }

    /// All values that it reads.
    pub fn operands(&self) -> Vec<Value> {
        let ints = self.ints().into_iter().chain(self.reals()).map(|(_, v)| v);
        ints.chain(self.places().into_iter().map(|(_, p)| p.offset)).collect()
    }

    /// The same call over other values.
    pub fn map_operands(mut self, mut f: impl FnMut(Value) -> Value) -> TileCall {
        let mut each = |values: &mut [&mut Value]| values.iter_mut().for_each(|v| **v = f(**v));
        match &mut self {
            TileCall::Dot { m, n, k, a, a_m, a_k, b, b_k, b_n, c, c_m, c_n, accumulate: _, narrow: _ } => {
                each(&mut [m, n, k, &mut a.offset, a_m, a_k, &mut b.offset, b_k, b_n, &mut c.offset, c_m, c_n]);
            }
            TileCall::ExpRows { rows, cols, x, x_row, shift, y, y_row, sums, scale } => {
                each(&mut [rows, cols, &mut x.offset, x_row, &mut shift.offset, &mut y.offset, y_row, &mut sums.offset, scale]);
            }
            TileCall::MaxRows { rows, cols, x, x_row, out } | TileCall::SumRows { rows, cols, x, x_row, out } => {
                each(&mut [rows, cols, &mut x.offset, x_row, &mut out.offset]);
            }
            TileCall::ScaleRows { rows, cols, x, x_row, factor } => each(&mut [rows, cols, &mut x.offset, x_row, &mut factor.offset]),
            TileCall::Order { kind: _, n, count, key, key_step, mask, mask_step, out, out_step } => {
                each(&mut [n, count, &mut key.offset, key_step, mask_step, &mut out.offset, out_step]);
                if let Some(mask) = mask {
                    each(&mut [&mut mask.offset]);
                }
            }
            TileCall::Solve { n, cols, m, m_row, x, x_row, reverse: _ } => each(&mut [n, cols, &mut m.offset, m_row, &mut x.offset, x_row]),
            TileCall::Unary { n, x, y, op: _ } => each(&mut [n, &mut x.offset, &mut y.offset]),
            TileCall::Binary { n, a, b, y, op: _, a_step: _, b_step: _ } => each(&mut [n, &mut a.offset, &mut b.offset, &mut y.offset]),
        }
        self
    }
}
