//! THE table of reductions: identity, combine, and how a partial result rescales under a running maximum.

use crate::ops::{DType, Scalar, ScalarOp};
use serde::Serialize;

/// How a partial result behaves when every term carries `exp(x - m)` and `m` grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rescale {
    /// Terms are linear in the factor: the partial result is multiplied by `expdiff(m_old, m_new)`.
    Linear,
    /// The row is itself the running gauge.
    Gauge,
    /// No rule: such a reduction ends a streaming pass when it reads a running value.
    None,
}

/// A reduction of the language. `Count` and `Mean` are rewritten to `Sum` when the graph is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum ReduceOp {
    Sum,
    Prod,
    Max,
    Min,
    Any,
    All,
    /// Position (Int) of the largest present element, lower index on ties; NaN is never chosen over a number;
    /// -1 when nothing is present (the graph guards it with a condition).
    ArgMax,
    /// Position (Int) of the smallest present element.
    ArgMin,
}

impl ReduceOp {
    pub const ALL: &'static [ReduceOp] = &[
        ReduceOp::Sum,
        ReduceOp::Prod,
        ReduceOp::Max,
        ReduceOp::Min,
        ReduceOp::Any,
        ReduceOp::All,
        ReduceOp::ArgMax,
        ReduceOp::ArgMin,
    ];

    /// Word of the language.
    pub fn name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum",
            ReduceOp::Prod => "prod",
            ReduceOp::Max => "max",
            ReduceOp::Min => "min",
            ReduceOp::Any => "any",
            ReduceOp::All => "all",
            ReduceOp::ArgMax => "argmax",
            ReduceOp::ArgMin => "argmin",
        }
    }

    /// Dtype of the result for a body of dtype `body`, or `None` when the row does not take it.
    pub fn result(self, body: DType) -> Option<DType> {
        match self {
            ReduceOp::Sum | ReduceOp::Prod => (body != DType::Bool).then_some(body),
            ReduceOp::Max | ReduceOp::Min => matches!(body, DType::Int | DType::Real).then_some(body),
            ReduceOp::Any | ReduceOp::All => (body == DType::Bool).then_some(body),
            ReduceOp::ArgMax | ReduceOp::ArgMin => matches!(body, DType::Int | DType::Real).then_some(DType::Int),
        }
    }

    /// Value over nothing. For the arg rows this is -1.
    pub fn identity(self, body: DType) -> Scalar {
        match (self, body) {
            (ReduceOp::Sum, d) => Scalar::zero(d),
            (ReduceOp::Prod, DType::Int) => Scalar::Int(1),
            (ReduceOp::Prod, DType::Complex) => Scalar::Complex(1.0, 0.0),
            (ReduceOp::Prod, DType::Real | DType::Bool) => Scalar::Real(1.0),
            (ReduceOp::Max, DType::Int) => Scalar::Int(i64::MIN),
            (ReduceOp::Max, _) => Scalar::Real(f64::NEG_INFINITY),
            (ReduceOp::Min, DType::Int) => Scalar::Int(i64::MAX),
            (ReduceOp::Min, _) => Scalar::Real(f64::INFINITY),
            (ReduceOp::Any, _) => Scalar::Bool(false),
            (ReduceOp::All, _) => Scalar::Bool(true),
            (ReduceOp::ArgMax | ReduceOp::ArgMin, _) => Scalar::Int(-1),
        }
    }

    /// The scalar op that combines two partial results; `None` for the arg rows, which combine (value, position) pairs.
    pub fn combine(self) -> Option<ScalarOp> {
        match self {
            ReduceOp::Sum => Some(ScalarOp::Add),
            ReduceOp::Prod => Some(ScalarOp::Mul),
            ReduceOp::Max => Some(ScalarOp::Max),
            ReduceOp::Min => Some(ScalarOp::Min),
            ReduceOp::Any => Some(ScalarOp::Or),
            ReduceOp::All => Some(ScalarOp::And),
            ReduceOp::ArgMax | ReduceOp::ArgMin => None,
        }
    }

    /// How the row behaves under a running maximum.
    /// Source: Milakov and Gimelshein 2018, online normaliser.
    pub fn rescale(self) -> Rescale {
        match self {
            ReduceOp::Sum => Rescale::Linear,
            ReduceOp::Max => Rescale::Gauge,
            ReduceOp::Prod | ReduceOp::Min | ReduceOp::Any | ReduceOp::All | ReduceOp::ArgMax | ReduceOp::ArgMin => Rescale::None,
        }
    }
}
