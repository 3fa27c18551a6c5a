//! Pointwise operations over views. The common rows have typed loops; the others go through `ScalarOp::eval`, which is the meaning.

use super::InterpError;
use super::value::{Data, View, Walk};
use crate::graph::AxisId;
use crate::ops::{DType, Scalar, ScalarOp};

/// `op` over the given axes; the result is dense and row-major in their order.
pub(super) fn map(op: ScalarOp, args: &[View], axes: &[(AxisId, usize)], dtype: DType) -> Result<Data, InterpError> {
    let n = axes.iter().map(|a| a.1).product();
    let fast = match args {
        [a] => unary(op, a, axes, n),
        [a, b] => binary(op, a, b, axes, n),
        [c, a, b] => select(op, c, a, b, axes, n),
        _ => None,
    };
    fast.map_or_else(|| slow(op, args, axes, n, dtype), Ok)
}

fn zip1<A: Copy, R>(a: &View, x: &[A], axes: &[(AxisId, usize)], n: usize, f: impl Fn(A) -> R) -> Vec<R> {
    let walk = Walk::new(axes, [a]);
    let mut out = Vec::with_capacity(n);
    let (len, [s]) = (walk.len, walk.inner);
    walk.rows(|[o]| {
        if s == 1 {
            out.extend(x[o..o + len].iter().map(|v| f(*v)));
        } else {
            out.extend((0..len).map(|k| f(x[o + k * s])));
        }
    });
    out
}

fn zip2<A: Copy, B: Copy, R>(ops: (&View, &View), x: &[A], y: &[B], axes: &[(AxisId, usize)], n: usize, f: impl Fn(A, B) -> R) -> Vec<R> {
    let walk = Walk::new(axes, [ops.0, ops.1]);
    let mut out = Vec::with_capacity(n);
    let (len, [s, t]) = (walk.len, walk.inner);
    walk.rows(|[o, p]| match (s, t) {
        (1, 1) => out.extend(x[o..o + len].iter().zip(&y[p..p + len]).map(|(a, b)| f(*a, *b))),
        (1, 0) => {
            let b = y[p];
            out.extend(x[o..o + len].iter().map(|a| f(*a, b)));
        }
        (0, 1) => {
            let a = x[o];
            out.extend(y[p..p + len].iter().map(|b| f(a, *b)));
        }
        _ => out.extend((0..len).map(|k| f(x[o + k * s], y[p + k * t]))),
    });
    out
}

fn unary(op: ScalarOp, a: &View, axes: &[(AxisId, usize)], n: usize) -> Option<Data> {
    use ScalarOp::*;
    Some(match (op, a.data()) {
        (Neg, Data::Real(x)) => Data::Real(zip1(a, x, axes, n, |v| -v)),
        (Exp, Data::Real(x)) => Data::Real(zip1(a, x, axes, n, f64::exp)),
        (Sqrt, Data::Real(x)) => Data::Real(zip1(a, x, axes, n, f64::sqrt)),
        (Not, Data::Bool(x)) => Data::Bool(zip1(a, x, axes, n, |v: bool| !v)),
        (ToReal, Data::Int(x)) => Data::Real(zip1(a, x, axes, n, |v| v as f64)),
        (ToReal, Data::Bool(x)) => Data::Real(zip1(a, x, axes, n, f64::from)),
        (ToInt, Data::Bool(x)) => Data::Int(zip1(a, x, axes, n, i64::from)),
        _ => return None,
    })
}

fn binary(op: ScalarOp, a: &View, b: &View, axes: &[(AxisId, usize)], n: usize) -> Option<Data> {
    use ScalarOp::*;
    let ops = (a, b);
    Some(match (op, a.data(), b.data()) {
        (Add, Data::Real(x), Data::Real(y)) => Data::Real(zip2(ops, x, y, axes, n, |a, b| a + b)),
        (Sub, Data::Real(x), Data::Real(y)) => Data::Real(zip2(ops, x, y, axes, n, |a, b| a - b)),
        (Mul, Data::Real(x), Data::Real(y)) => Data::Real(zip2(ops, x, y, axes, n, |a, b| a * b)),
        (Div, Data::Real(x), Data::Real(y)) => Data::Real(zip2(ops, x, y, axes, n, |a, b| a / b)),
        (Ratio, Data::Real(x), Data::Real(y)) => Data::Real(zip2(ops, x, y, axes, n, |a, b| if b == 0.0 { 0.0 } else { a / b })),
        (ExpDiff, Data::Real(x), Data::Real(y)) => {
            Data::Real(zip2(ops, x, y, axes, n, |a, b| if a == f64::NEG_INFINITY { 0.0 } else { f64::exp(a - b) }))
        }
        (Lt, Data::Real(x), Data::Real(y)) => Data::Bool(zip2(ops, x, y, axes, n, |a, b| a < b)),
        (Le, Data::Real(x), Data::Real(y)) => Data::Bool(zip2(ops, x, y, axes, n, |a, b| a <= b)),
        (Eq, Data::Real(x), Data::Real(y)) => Data::Bool(zip2(ops, x, y, axes, n, |a, b| a == b)),
        (Add, Data::Int(x), Data::Int(y)) => Data::Int(zip2(ops, x, y, axes, n, i64::wrapping_add)),
        (Sub, Data::Int(x), Data::Int(y)) => Data::Int(zip2(ops, x, y, axes, n, i64::wrapping_sub)),
        (Mul, Data::Int(x), Data::Int(y)) => Data::Int(zip2(ops, x, y, axes, n, i64::wrapping_mul)),
        (Lt, Data::Int(x), Data::Int(y)) => Data::Bool(zip2(ops, x, y, axes, n, |a, b| a < b)),
        (Le, Data::Int(x), Data::Int(y)) => Data::Bool(zip2(ops, x, y, axes, n, |a, b| a <= b)),
        (Eq, Data::Int(x), Data::Int(y)) => Data::Bool(zip2(ops, x, y, axes, n, |a, b| a == b)),
        (Ne, Data::Int(x), Data::Int(y)) => Data::Bool(zip2(ops, x, y, axes, n, |a, b| a != b)),
        (And, Data::Bool(x), Data::Bool(y)) => Data::Bool(zip2(ops, x, y, axes, n, |a, b| a && b)),
        (Or, Data::Bool(x), Data::Bool(y)) => Data::Bool(zip2(ops, x, y, axes, n, |a, b| a || b)),
        _ => return None,
    })
}

fn select(op: ScalarOp, c: &View, a: &View, b: &View, axes: &[(AxisId, usize)], n: usize) -> Option<Data> {
    fn pick<T: Copy>(walk: &Walk<3>, c: &[bool], x: &[T], y: &[T], n: usize) -> Vec<T> {
        let mut out = Vec::with_capacity(n);
        let (len, [r, s, t]) = (walk.len, walk.inner);
        walk.rows(|[o, p, q]| out.extend((0..len).map(|k| if c[o + k * r] { x[p + k * s] } else { y[q + k * t] })));
        out
    }
    let (ScalarOp::Select, Data::Bool(m)) = (op, c.data()) else { return None };
    let walk = Walk::new(axes, [c, a, b]);
    Some(match (a.data(), b.data()) {
        (Data::Real(x), Data::Real(y)) => Data::Real(pick(&walk, m, x, y, n)),
        (Data::Int(x), Data::Int(y)) => Data::Int(pick(&walk, m, x, y, n)),
        (Data::Bool(x), Data::Bool(y)) => Data::Bool(pick(&walk, m, x, y, n)),
        (Data::Complex(x), Data::Complex(y)) => Data::Complex(pick(&walk, m, x, y, n)),
        _ => return None,
    })
}

fn slow(op: ScalarOp, args: &[View], axes: &[(AxisId, usize)], n: usize, dtype: DType) -> Result<Data, InterpError> {
    let mut out = Out::new(dtype, n);
    let mut bad = false;
    let mut one = |values: &[Scalar]| match op.eval(values) {
        Some(value) => bad |= !out.push(value),
        None => bad = true,
    };
    match args {
        [a] => {
            let walk = Walk::new(axes, [a]);
            let (len, [s]) = (walk.len, walk.inner);
            walk.rows(|[o]| (0..len).for_each(|k| one(&[a.data().at(o + k * s)])));
        }
        [a, b] => {
            let walk = Walk::new(axes, [a, b]);
            let (len, [s, t]) = (walk.len, walk.inner);
            walk.rows(|[o, p]| (0..len).for_each(|k| one(&[a.data().at(o + k * s), b.data().at(p + k * t)])));
        }
        [a, b, c] => {
            let walk = Walk::new(axes, [a, b, c]);
            let (len, [s, t, u]) = (walk.len, walk.inner);
            walk.rows(|[o, p, q]| (0..len).for_each(|k| one(&[a.data().at(o + k * s), b.data().at(p + k * t), c.data().at(q + k * u)])));
        }
        _ => bad = true,
    }
    if bad { Err(InterpError::Broken(format!("`{}` does not take its operands", op.name()))) } else { Ok(out.0) }
}

/// Collects elements of one dtype.
struct Out(Data);

impl Out {
    fn new(dtype: DType, n: usize) -> Out {
        Out(match dtype {
            DType::Real => Data::Real(Vec::with_capacity(n)),
            DType::Int => Data::Int(Vec::with_capacity(n)),
            DType::Bool => Data::Bool(Vec::with_capacity(n)),
            DType::Complex => Data::Complex(Vec::with_capacity(n)),
        })
    }

    /// False when the element has another dtype.
    fn push(&mut self, value: Scalar) -> bool {
        match (&mut self.0, value) {
            (Data::Real(v), Scalar::Real(x)) => v.push(x),
            (Data::Int(v), Scalar::Int(x)) => v.push(x),
            (Data::Bool(v), Scalar::Bool(x)) => v.push(x),
            (Data::Complex(v), Scalar::Complex(a, b)) => v.push((a, b)),
            (Data::Real(_) | Data::Int(_) | Data::Bool(_) | Data::Complex(_), _) => return false,
        }
        true
    }
}
