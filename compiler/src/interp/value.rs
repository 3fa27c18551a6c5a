//! Arrays and strided views of them. A view may lack axes that its node has: it is then the same at all their positions.

use super::InterpError;
use crate::graph::AxisId;
use crate::ops::{DType, Scalar};
use std::cell::Cell;
use std::rc::Rc;

/// Elements of one dtype.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    Real(Vec<f64>),
    Int(Vec<i64>),
    Bool(Vec<bool>),
    Complex(Vec<(f64, f64)>),
}

/// A dense tensor in row-major order: what goes into and comes out of [`super::run`].
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Data,
}

impl Array {
    /// Reals in row-major order.
    pub fn real(shape: &[usize], data: Vec<f64>) -> Array {
        Array { shape: shape.to_vec(), data: Data::Real(data) }
    }

    /// Ints in row-major order.
    pub fn int(shape: &[usize], data: Vec<i64>) -> Array {
        Array { shape: shape.to_vec(), data: Data::Int(data) }
    }

    /// Bools in row-major order.
    pub fn bool(shape: &[usize], data: Vec<bool>) -> Array {
        Array { shape: shape.to_vec(), data: Data::Bool(data) }
    }
}

/// The same expression for each variant of [`Data`], with the vector bound to a name.
macro_rules! each_data {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            Data::Real($v) => $body,
            Data::Int($v) => $body,
            Data::Bool($v) => $body,
            Data::Complex($v) => $body,
        }
    };
}

impl Data {
    /// `n` copies of one element.
    pub fn fill(value: Scalar, n: usize) -> Data {
        match value {
            Scalar::Real(v) => Data::Real(vec![v; n]),
            Scalar::Int(v) => Data::Int(vec![v; n]),
            Scalar::Bool(v) => Data::Bool(vec![v; n]),
            Scalar::Complex(a, b) => Data::Complex(vec![(a, b); n]),
        }
    }

    pub fn dtype(&self) -> DType {
        match self {
            Data::Real(_) => DType::Real,
            Data::Int(_) => DType::Int,
            Data::Bool(_) => DType::Bool,
            Data::Complex(_) => DType::Complex,
        }
    }

    pub fn len(&self) -> usize {
        each_data!(self, v => v.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element at a position below `len`.
    pub fn at(&self, i: usize) -> Scalar {
        match self {
            Data::Real(v) => Scalar::Real(v[i]),
            Data::Int(v) => Scalar::Int(v[i]),
            Data::Bool(v) => Scalar::Bool(v[i]),
            Data::Complex(v) => Scalar::Complex(v[i].0, v[i].1),
        }
    }

    /// The elements as this dtype where the language converts implicitly (bool to int, int to real, 0 and 1 to bool).
    pub fn cast(self, dtype: DType) -> Option<Data> {
        match (self, dtype) {
            (data, d) if data.dtype() == d => Some(data),
            (Data::Int(v), DType::Real) => Some(Data::Real(v.into_iter().map(|x| x as f64).collect())),
            (Data::Bool(v), DType::Int) => Some(Data::Int(v.into_iter().map(i64::from).collect())),
            (Data::Bool(v), DType::Real) => Some(Data::Real(v.into_iter().map(f64::from).collect())),
            (Data::Int(v), DType::Bool) => Some(Data::Bool(v.into_iter().map(|x| x != 0).collect())),
            (Data::Real(v), DType::Complex) => Some(Data::Complex(v.into_iter().map(|x| (x, 0.0)).collect())),
            (Data::Real(_) | Data::Int(_) | Data::Bool(_) | Data::Complex(_), _) => None,
        }
    }
}

/// Bytes of one element here.
pub(super) fn width(dtype: DType) -> u64 {
    match dtype {
        DType::Bool => 1,
        DType::Int | DType::Real => 8,
        DType::Complex => 16,
    }
}

/// Counts live bytes, so that a program too large for this machine is an error and not an abort.
#[derive(Clone, Default)]
pub(super) struct Meter(Rc<Cell<u64>>);

/// Most bytes that may live at once.
pub const MAX_BYTES: u64 = 8 << 30;

impl Meter {
    /// Room for `n` elements of a dtype.
    pub fn check(&self, n: usize, dtype: DType) -> Result<(), InterpError> {
        let bytes = (n as u64).saturating_mul(width(dtype));
        if self.0.get().saturating_add(bytes) > MAX_BYTES { Err(InterpError::TooLarge { bytes }) } else { Ok(()) }
    }
}

/// Owned elements that know their share of the meter.
pub(super) struct Block {
    pub data: Data,
    bytes: u64,
    meter: Meter,
}

impl Block {
    pub fn new(data: Data, meter: &Meter) -> Block {
        let bytes = data.len() as u64 * width(data.dtype());
        meter.0.set(meter.0.get() + bytes);
        Block { data, bytes, meter: meter.clone() }
    }
}

impl Clone for Block {
    fn clone(&self) -> Block {
        Block::new(self.data.clone(), &self.meter)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.meter.0.set(self.meter.0.get().saturating_sub(self.bytes));
    }
}

/// An axis of a view: extent and distance between neighbours, in elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Dim {
    pub axis: AxisId,
    pub extent: usize,
    pub stride: usize,
}

/// A strided window on a block; dims are sorted by axis.
#[derive(Clone)]
pub(super) struct View {
    pub block: Rc<Block>,
    pub offset: usize,
    pub dims: Vec<Dim>,
}

impl View {
    pub fn data(&self) -> &Data {
        &self.block.data
    }

    pub fn dim(&self, axis: AxisId) -> Option<&Dim> {
        self.dims.iter().find(|d| d.axis == axis)
    }

    /// Distance between neighbours along an axis; 0 where the view repeats.
    pub fn stride(&self, axis: AxisId) -> usize {
        self.dim(axis).map_or(0, |d| d.stride)
    }

    /// The view at one position of an axis; unchanged when it lacks the axis.
    pub fn slice(mut self, axis: AxisId, at: usize) -> View {
        if let Some(k) = self.dims.iter().position(|d| d.axis == axis) {
            let dim = self.dims.remove(k);
            self.offset += dim.stride * at;
        }
        self
    }

    /// The only element of a view without axes.
    pub fn scalar(&self) -> Option<Scalar> {
        (self.dims.is_empty() && self.offset < self.data().len()).then(|| self.data().at(self.offset))
    }
}

/// Row-major dims over axes with these extents.
pub(super) fn dense(axes: &[(AxisId, usize)]) -> Vec<Dim> {
    let mut stride = 1usize;
    let mut dims: Vec<Dim> = axes.iter().rev().map(|(axis, extent)| {
        let dim = Dim { axis: *axis, extent: *extent, stride };
        stride = stride.saturating_mul((*extent).max(1));
        dim
    }).collect();
    dims.reverse();
    dims
}

/// The dims other than that of `axis`, and its stride (0 when there is none).
pub(super) fn without(mut dims: Vec<Dim>, axis: AxisId) -> (Vec<Dim>, usize) {
    let stride = dims.iter().find(|d| d.axis == axis).map_or(0, |d| d.stride);
    dims.retain(|d| d.axis != axis);
    (dims, stride)
}

/// A nest of loops over common axes, with the strides of `K` operands. Neighbouring loops are merged where all operands allow it.
pub(super) struct Walk<const K: usize> {
    outer: Vec<(usize, [usize; K])>,
    /// Length of the innermost loop; 0 when there is nothing to do.
    pub len: usize,
    /// Strides of the innermost loop.
    pub inner: [usize; K],
    start: [usize; K],
}

impl<const K: usize> Walk<K> {
    /// Loops in the order of `axes` (the last one innermost) over operands given by their strides and offsets.
    pub fn new(axes: &[(AxisId, usize)], operands: [&View; K]) -> Walk<K> {
        let rows = axes.iter().map(|(axis, extent)| (*extent, operands.map(|v| v.stride(*axis))));
        Walk::from_strides(rows, operands.map(|v| v.offset))
    }

    /// Loops with explicit extents and strides.
    pub fn from_strides(rows: impl Iterator<Item = (usize, [usize; K])>, start: [usize; K]) -> Walk<K> {
        let mut outer: Vec<(usize, [usize; K])> = Vec::new();
        let mut empty = false;
        for (extent, strides) in rows {
            empty |= extent == 0;
            if extent == 1 {
                continue;
            }
            match outer.last_mut() {
                Some((size, last)) if (0..K).all(|k| last[k] == strides[k] * extent) => {
                    *size *= extent;
                    *last = strides;
                }
                _ => outer.push((extent, strides)),
            }
        }
        let (len, inner) = outer.pop().unwrap_or((1, [0; K]));
        Walk { outer, len: if empty { 0 } else { len }, inner, start }
    }

    /// Calls `f` with the offsets of each innermost loop, in row-major order.
    pub fn rows(&self, mut f: impl FnMut([usize; K])) {
        if self.len == 0 {
            return;
        }
        let mut at = vec![0usize; self.outer.len()];
        let mut offsets = self.start;
        loop {
            f(offsets);
            let mut k = self.outer.len();
            loop {
                if k == 0 {
                    return;
                }
                k -= 1;
                let (extent, strides) = &self.outer[k];
                at[k] += 1;
                if at[k] < *extent {
                    (0..K).for_each(|o| offsets[o] += strides[o]);
                    break;
                }
                at[k] = 0;
                (0..K).for_each(|o| offsets[o] -= strides[o] * (extent - 1));
            }
        }
    }
}
