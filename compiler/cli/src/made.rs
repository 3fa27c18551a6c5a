//! Made-up inputs and work estimates for `bench`.

use crate::fail::Failure;
use attnc_compiler::graph::{AxisId, FactCmp, Graph, Op};
use attnc_compiler::passes::cost::Sizes;
use attnc_compiler::reduce::ReduceOp;
use attnc_runtime::host::{Env, Ints};
use attnc_runtime::{DType, Kernel, RuntimeError, Scalar, Tensor, interface};

/// Extents where the caller says nothing: position axes, feature axes, others.
const LONG: i64 = 1024;
const FEATURE: i64 = 64;
const OTHER: i64 = 4;

/// Tensors for all inputs that have no default: reals uniform in -1..1 that keep their declared facts, ints and bools 0 or 1.
///
/// Errors: scalars without a default, and shapes that are too large.
pub fn inputs(kernel: &Kernel, extents: &[(String, i64)], scalars: &[(String, Scalar)]) -> Result<Vec<(String, Tensor)>, Failure> {
    let (plan, graph) = (kernel.signature(), kernel.graph());
    let roles = Sizes::new(graph);
    let mut env = Env::new(&plan.axes, &plan.inputs);
    for (i, axis) in plan.axes.iter().enumerate().filter(|(_, a)| a.extent.is_none()) {
        let nominal = nominal(graph, &roles, AxisId(i as u32));
        env.set_extent(i as u32, extents.iter().find(|e| e.0 == axis.name).map_or(nominal, |e| e.1));
    }
    for (i, input) in plan.inputs.iter().enumerate() {
        if let Some((_, value)) = scalars.iter().find(|s| s.0 == input.name) {
            env.set_scalar(i as u32, *value);
        }
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut made = Vec::new();
    for (i, input) in plan.inputs.iter().enumerate() {
        if input.axes.is_empty() {
            env.scalar(i as u32).map_err(Failure::from)?;
            continue;
        }
        if graph.inputs[i].default.is_some() {
            continue;
        }
        let shape = input.axes.iter().map(|a| env.extent(*a).map(|n| n as usize)).collect::<Result<Vec<usize>, _>>()?;
        let bytes = shape.iter().try_fold(8u64, |n, e| n.checked_mul(*e as u64)).unwrap_or(u64::MAX);
        if let Some(available) = attnc_runtime::memory::available().filter(|a| bytes > *a) {
            let what = format!("input `{}` of shape {shape:?}", input.name);
            return Err(RuntimeError::TooLarge { what, bytes: Some(bytes), available: Some(available) }.into());
        }
        let n: usize = shape.iter().product();
        let bound = match graph.inputs[i].fact {
            Some(fact) => match interface::host(graph, fact.bound).map(|e| env.eval(&e, Ints::Wrap)).transpose()? {
                Some(Scalar::Real(b)) => Some((fact.cmp, b)),
                Some(Scalar::Int(b)) => Some((fact.cmp, b as f64)),
                Some(Scalar::Bool(_) | Scalar::Complex(..)) | None => None,
            },
            None => None,
        };
        let tensor = match input.dtype {
            DType::Real | DType::Complex => Tensor::new((0..n).map(|_| within(random.unit(), bound) as f32).collect(), &shape)?,
            DType::Int => Tensor::new((0..n).map(|_| i64::from(random.unit() > 0.0)).collect(), &shape)?,
            DType::Bool => Tensor::new((0..n).map(|_| u8::from(random.unit() > 0.0)).collect(), &shape)?,
        };
        made.push((input.name.clone(), tensor));
    }
    Ok(made)
}

/// Positions are recognised by how they are used: scanned, twinned, reduced by a maximum, or the rows of a matrix.
fn nominal(graph: &Graph, roles: &Sizes, axis: AxisId) -> i64 {
    let twinned = graph.axes.iter().any(|a| a.twin == Some(axis)) || graph.axis(axis).twin.is_some();
    let scanned = graph.scans.iter().any(|s| s.axis == axis);
    let gauge = graph.ids().any(|id| matches!(graph.op(id), Op::Reduce { op: ReduceOp::Max, axes, .. } if axes.contains(&axis)));
    let rows = graph.inputs.iter().any(|i| i.axes.len() == 2 && i.axes[0] == axis);
    match (roles.is_feature(axis), twinned || scanned || gauge || rows) {
        (true, _) => FEATURE,
        (false, true) => LONG,
        (false, false) => OTHER,
    }
}

fn within(x: f64, fact: Option<(FactCmp, f64)>) -> f64 {
    match fact {
        None => x,
        Some((FactCmp::Lt | FactCmp::Le, bound)) => bound - x.abs() - 1e-3,
        Some((FactCmp::Gt | FactCmp::Ge, bound)) => bound + x.abs() + 1e-3,
        Some((FactCmp::Eq, bound)) => bound,
        Some((FactCmp::Ne, bound)) => bound + 1e-3 + x.abs(),
    }
}

/// Xorshift; the same inputs in every run.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// Floating point operations of all sums over products of reals, two a term, as the program is written (no mask, no algebra).
pub fn dense_flops(graph: &Graph, extents: &[i64]) -> f64 {
    let mut total = 0.0;
    for id in graph.ids() {
        let (body, axes): (_, &[_]) = match graph.op(id) {
            Op::Reduce { op: ReduceOp::Sum, axes, body, .. } => (*body, axes),
            Op::Prefix { op: ReduceOp::Sum, axis, body, .. } => (*body, std::slice::from_ref(axis)),
            _ => continue,
        };
        if graph.dtype(body) == DType::Real {
            let mut space = graph.axes_of(body).clone();
            space.extend(axes);
            total += 2.0 * space.iter().map(|a| extents.get(a.index()).map_or(1.0, |n| *n as f64)).product::<f64>();
        }
    }
    total
}
