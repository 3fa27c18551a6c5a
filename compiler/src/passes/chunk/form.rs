//! The chunk form of one scan: nodes over (chunk, row) and (chunk, column) in place of nodes over positions.
//!
//! Everything is made of one primitive, `pair(x, z)[r, u] = sum over keys of x[r] * (decay between u and r) * z[u]` for the columns
//! `u` that come before row `r`. With it, for `S' = a S + z y`, chunk by chunk:
//! readout `x . S` = `(x * decay since the start) . S0 + sum[u] pair(x, z) y`, and `S` after the chunk =
//! `(decay of the chunk) S0 + sum[u] (z * decay to the end) y`. A row that erases (`S' = a S + z (c w . S)`) adds one triangular
//! system for what it writes. docs/derivations.md has the algebra; the source of the chunk form is Yang et al. 2023 (GLA), of the
//! triangular system Yang et al. 2024 (the delta rule over sequence length).

use crate::base::Span;
use crate::graph::{AxisId, NodeId, Op, PrefixDir};
use crate::ops::{Scalar, ScalarOp};
use crate::passes::rewrite::Builder;
use crate::reduce::ReduceOp;

/// Exponents are kept below this, so that factors of masked elements stay finite.
const MOST: f64 = 85.0;

/// Axes of a chunked scan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axes {
    /// The scan's axis, the chunk, and the two copies of the position inside it.
    pub t: AxisId,
    pub c: AxisId,
    pub r: AxisId,
    pub u: AxisId,
    pub block: u32,
    pub reverse: bool,
}

/// How a state decays in one step.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decay {
    None,
    /// One factor for the whole state; a node without key axes.
    Scalar(NodeId),
    /// One factor a key; the logarithm, not below a bound.
    Keys(NodeId),
}

pub(super) struct Writer<'a> {
    pub b: &'a mut Builder,
    pub axes: Axes,
    /// Rows that share a pivot, for decay by key.
    pub sub: u32,
    pub span: Span,
}

impl Writer<'_> {
    fn map(&mut self, op: ScalarOp, args: &[NodeId]) -> NodeId {
        self.b.map(op, args, self.span)
    }

    pub fn real(&mut self, value: f64) -> NodeId {
        self.b.constant_of(Scalar::Real(value))
    }

    pub fn mul(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.map(ScalarOp::Mul, &[a, b])
    }

    pub fn sum(&mut self, axes: &[AxisId], body: NodeId) -> NodeId {
        let axes: Vec<AxisId> = axes.to_vec();
        self.b.add(Op::Reduce { op: ReduceOp::Sum, axes, body, mask: None }, self.span)
    }

    fn index(&mut self, axis: AxisId) -> NodeId {
        self.b.add(Op::Index(axis), self.span)
    }

    /// Position along the scan's axis of a position inside the chunk.
    pub fn position(&mut self, inner: AxisId) -> NodeId {
        let block = self.b.int(i64::from(self.axes.block));
        let chunk = self.index(self.axes.c);
        let first = self.map(ScalarOp::Mul, &[chunk, block]);
        let here = self.index(inner);
        self.map(ScalarOp::Add, &[first, here])
    }

    /// Whether a position inside the chunk exists.
    fn valid(&mut self, inner: AxisId) -> NodeId {
        let position = self.position(inner);
        let extent = self.b.add(Op::Extent(self.axes.t), self.span);
        self.map(ScalarOp::Lt, &[position, extent])
    }

    /// A value over positions, at a position inside the chunk.
    pub fn at(&mut self, node: NodeId, inner: AxisId) -> NodeId {
        if !self.b.graph.axes_of(node).contains(&self.axes.t) {
            return node;
        }
        let position = self.position(inner);
        self.b.add(Op::Read { value: node, subs: vec![(self.axes.t, position)] }, self.span)
    }

    /// The value where the position exists, else another.
    fn present(&mut self, node: NodeId, inner: AxisId, other: f64) -> NodeId {
        let valid = self.valid(inner);
        let other = self.real(other);
        self.map(ScalarOp::Select, &[valid, node, other])
    }

    /// Column comes before row (or is it): what the scan has seen.
    fn seen(&mut self, before: bool) -> NodeId {
        let (r, u) = (self.index(self.axes.r), self.index(self.axes.u));
        let (low, high) = if self.axes.reverse { (r, u) } else { (u, r) };
        let seen = self.map(if before { ScalarOp::Lt } else { ScalarOp::Le }, &[low, high]);
        self.table(seen)
    }

    /// A condition on rows and columns as a table of 0 and 1, made once for all chunks.
    fn table(&mut self, cond: NodeId) -> NodeId {
        let (one, zero) = (self.real(1.0), self.real(0.0));
        let table = self.map(ScalarOp::Select, &[cond, one, zero]);
        self.map(ScalarOp::Lt, &[zero, table])
    }

    fn prefix(&mut self, axis: AxisId, body: NodeId, before: bool) -> NodeId {
        let dir = match (self.axes.reverse, before) {
            (false, false) => PrefixDir::Le,
            (false, true) => PrefixDir::Lt,
            (true, false) => PrefixDir::Ge,
            (true, true) => PrefixDir::Gt,
        };
        self.b.add(Op::Prefix { op: ReduceOp::Prod, axis, dir, body, mask: None }, self.span)
    }

    /// `pair(x, z)`, zero where the column has not been seen. `before`: the state before the step is read, not the one after it.
    pub fn pair(&mut self, decay: &Decay, keys: &[AxisId], x: NodeId, z: NodeId, before: bool) -> NodeId {
        let zero = self.real(0.0);
        let seen = self.seen(before);
        match decay {
            Decay::None => {
                let body = self.mul(x, z);
                let product = self.sum(keys, body);
                self.map(ScalarOp::Select, &[seen, product, zero])
            }
            Decay::Scalar(a) => {
                let body = self.mul(x, z);
                let product = self.sum(keys, body);
                // Running products down the rows, from each column on: exact for zero and negative factors, and no overflow.
                let a = self.at(*a, self.axes.r);
                let later = self.seen(true);
                let one = self.real(1.0);
                let factor = self.map(ScalarOp::Select, &[later, a, one]);
                let ratio = self.prefix(self.axes.r, factor, before);
                let scaled = self.mul(product, ratio);
                self.map(ScalarOp::Select, &[seen, scaled, zero])
            }
            Decay::Keys(log) => {
                let mut result = zero;
                let mut size = self.axes.block;
                // Halves of growing blocks: rows of the right half, columns of the left one, decay through the border between them.
                while size > self.sub {
                    let level = self.level(*log, keys, x, z, before, size, false);
                    let here = self.halves(size);
                    result = self.map(ScalarOp::Select, &[here, level, result]);
                    size /= 2;
                }
                let base = self.level(*log, keys, x, z, before, size, true);
                let same = self.same(size);
                let here = self.map(ScalarOp::And, &[same, seen]);
                let here = self.table(here);
                self.map(ScalarOp::Select, &[here, base, result])
            }
        }
    }

    /// Row and column lie in one block of this size.
    fn same(&mut self, size: u32) -> NodeId {
        let size = self.b.int(i64::from(size));
        let (r, u) = (self.index(self.axes.r), self.index(self.axes.u));
        let (p, q) = (self.map(ScalarOp::IntDiv, &[r, size]), self.map(ScalarOp::IntDiv, &[u, size]));
        self.map(ScalarOp::Eq, &[p, q])
    }

    /// Row in the right half and column in the left half of one block.
    fn halves(&mut self, size: u32) -> NodeId {
        let same = self.same(size);
        let (whole, half) = (self.b.int(i64::from(size)), self.b.int(i64::from(size / 2)));
        let (r, u) = (self.index(self.axes.r), self.index(self.axes.u));
        let (p, q) = (self.map(ScalarOp::Mod, &[r, whole]), self.map(ScalarOp::Mod, &[u, whole]));
        let (right, left) = (self.map(ScalarOp::Le, &[half, p]), self.map(ScalarOp::Lt, &[q, half]));
        let sides = self.map(ScalarOp::And, &[right, left]);
        let here = self.map(ScalarOp::And, &[same, sides]);
        self.table(here)
    }

    /// Products of rows and columns of one block, both scaled to a pivot in it: the last position of the left half, or one in the middle.
    fn level(&mut self, log: NodeId, keys: &[AxisId], x: NodeId, z: NodeId, before: bool, size: u32, middle: bool) -> NodeId {
        let row = self.exponent(log, size, middle, true, before);
        let column = self.exponent(log, size, middle, false, false);
        let (row, column) = (self.map(ScalarOp::Exp, &[row]), self.map(ScalarOp::Exp, &[column]));
        let (x, z) = (self.mul(x, row), self.mul(z, column));
        let body = self.mul(x, z);
        self.sum(keys, body)
    }

    /// Sum of logarithms between a pivot and a row (those after the pivot count up, those after the row count down), or between a
    /// column and the pivot.
    fn exponent(&mut self, log: NodeId, size: u32, middle: bool, is_row: bool, before: bool) -> NodeId {
        let Axes { r, u, .. } = self.axes;
        let (own, other) = if is_row { (r, u) } else { (u, r) };
        let (i, w) = (self.index(own), self.index(other));
        let pivot = {
            let whole = self.b.int(i64::from(size));
            let place = self.b.int(i64::from(size / 2) - 1);
            let rest = self.map(ScalarOp::Mod, &[i, whole]);
            let first = self.map(ScalarOp::Sub, &[i, rest]);
            // In a block that ends early the pivot may not exist: what would be summed up to it is 0.
            self.map(ScalarOp::Add, &[first, place])
        };
        let between = |s: &mut Self, low: NodeId, high: NodeId, ends: (ScalarOp, ScalarOp)| {
            let (p, q) = (s.map(ends.0, &[low, w]), s.map(ends.1, &[w, high]));
            s.map(ScalarOp::And, &[p, q])
        };
        use ScalarOp::{Le, Lt};
        let (up, down) = match (is_row, before) {
            (true, false) => (between(self, pivot, i, (Lt, Le)), between(self, i, pivot, (Lt, Le))),
            (true, true) => (between(self, pivot, i, (Lt, Lt)), between(self, i, pivot, (Le, Le))),
            (false, _) => (between(self, i, pivot, (Lt, Le)), between(self, pivot, i, (Lt, Le))),
        };
        let (one, minus, zero) = (self.real(1.0), self.real(-1.0), self.real(0.0));
        let below = self.map(ScalarOp::Select, &[down, minus, zero]);
        let sign = if middle { self.map(ScalarOp::Select, &[up, one, below]) } else { self.map(ScalarOp::Select, &[up, one, zero]) };
        self.logs(sign, log, other)
    }

    /// Sum of logarithms along an inner axis, with signs; kept below what f32 can raise e to.
    fn logs(&mut self, sign: NodeId, log: NodeId, along: AxisId) -> NodeId {
        let log = self.at(log, along);
        let log = self.present(log, along, 0.0);
        let body = self.mul(sign, log);
        let sum = self.sum(&[along], body);
        let most = self.real(MOST);
        self.map(ScalarOp::Min, &[sum, most])
    }

    /// Sum of the logarithms up to a row, or after a column.
    fn span_of_logs(&mut self, log: NodeId, is_row: bool, before: bool) -> NodeId {
        let Axes { r, u, .. } = self.axes;
        let (own, other) = if is_row { (r, u) } else { (u, r) };
        let (i, w) = (self.index(own), self.index(other));
        let taken = match (is_row, before) {
            (true, false) => self.map(ScalarOp::Le, &[w, i]),
            (true, true) => self.map(ScalarOp::Lt, &[w, i]),
            (false, _) => self.map(ScalarOp::Lt, &[i, w]),
        };
        let (one, zero) = (self.real(1.0), self.real(0.0));
        let sign = self.map(ScalarOp::Select, &[taken, one, zero]);
        self.logs(sign, log, other)
    }

    /// `x` times the decay since the start of the chunk.
    pub fn since_start(&mut self, decay: &Decay, x: NodeId, before: bool) -> NodeId {
        match decay {
            Decay::None => x,
            Decay::Scalar(a) => {
                let a = self.at(*a, self.axes.r);
                let factor = self.prefix(self.axes.r, a, before);
                self.mul(x, factor)
            }
            Decay::Keys(log) => {
                let sum = self.span_of_logs(*log, true, before);
                let factor = self.map(ScalarOp::Exp, &[sum]);
                self.mul(x, factor)
            }
        }
    }

    /// `z` times the decay to the end of the chunk; zero where the position does not exist.
    pub fn to_end(&mut self, decay: &Decay, z: NodeId) -> NodeId {
        let u = self.axes.u;
        let factor = match decay {
            Decay::None => return self.present(z, u, 0.0),
            Decay::Scalar(a) => {
                let a = self.at(*a, u);
                let a = self.present(a, u, 1.0);
                let dir = if self.axes.reverse { PrefixDir::Lt } else { PrefixDir::Gt };
                self.b.add(Op::Prefix { op: ReduceOp::Prod, axis: u, dir, body: a, mask: None }, self.span)
            }
            Decay::Keys(log) => {
                let sum = self.span_of_logs(*log, false, false);
                self.map(ScalarOp::Exp, &[sum])
            }
        };
        let scaled = self.mul(z, factor);
        self.present(scaled, u, 0.0)
    }

    /// The state at the start times the decay of the whole chunk.
    pub fn whole(&mut self, decay: &Decay, state: NodeId) -> NodeId {
        let u = self.axes.u;
        let factor = match decay {
            Decay::None => return state,
            Decay::Scalar(a) => {
                let a = self.at(*a, u);
                let a = self.present(a, u, 1.0);
                self.b.add(Op::Reduce { op: ReduceOp::Prod, axes: vec![u], body: a, mask: None }, self.span)
            }
            Decay::Keys(log) => {
                let log = self.at(*log, u);
                let log = self.present(log, u, 0.0);
                let sum = self.sum(&[u], log);
                let most = self.real(MOST);
                let sum = self.map(ScalarOp::Min, &[sum, most]);
                self.map(ScalarOp::Exp, &[sum])
            }
        };
        self.mul(factor, state)
    }
}
