//! The signature of a checked program as a plan without buffers and launches, so that calls are checked alike on every target,
//! before anything is lowered.

use attnc_compiler::graph::{Extent, FactCmp, Graph, NodeId, Op};
use attnc_compiler::kernel::plan::{AxisPlan, HostExpr, InputPlan, OutputPlan, Plan, RequirePlan};
use attnc_compiler::ops::{DType, ScalarOp};

use crate::tensor::Storage;

/// Largest host expression in nodes: expressions are trees, and sharing in the graph may unfold without bound.
const MAX_NODES: usize = 20_000;

/// A signature; `optional` lists tensor inputs whose default only the target can compute (it is an array).
#[derive(Clone, Debug)]
pub struct Interface {
    pub plan: Plan,
    pub optional: Vec<usize>,
}

/// Names, dtypes, axes, extents, defaults and conditions of `graph`.
///
/// Conditions and defaults that read tensors are left to the target. Storages are the widest: f32, i64, u8.
/// Errors: the name of an axis whose extent cannot be computed before the call.
pub fn of(graph: &Graph) -> Result<Interface, String> {
    let axes = graph.axes.iter().map(|axis| {
        let extent = match &axis.extent {
            Extent::Inputs => None,
            Extent::Value(node) => Some(host(graph, *node).ok_or_else(|| axis.name.clone())?),
        };
        Ok(AxisPlan { name: axis.name.clone(), extent })
    });
    let axes = axes.collect::<Result<Vec<_>, String>>()?;
    let mut optional = Vec::new();
    let mut requires = Vec::new();
    let mut inputs = Vec::new();
    let mut facts = Vec::new();
    for (i, input) in graph.inputs.iter().enumerate() {
        let default = input.default.and_then(|d| host(graph, d));
        if input.default.is_some() && default.is_none() {
            optional.push(i);
        }
        if let (true, Some(fact)) = (input.axes.is_empty(), &input.fact)
            && let Some(bound) = host(graph, fact.bound)
        {
            facts.push((i, fact.cmp, bound));
        }
        let axes = input.axes.iter().map(|a| a.0).collect();
        inputs.push(InputPlan { name: input.name.clone(), dtype: input.dtype, axes, default, storage: storage(input.dtype) });
    }
    for (i, cmp, bound) in facts {
        let text = format!("{} {} {}", graph.inputs[i].name, fact_text(cmp), crate::host::text(&bound, &axes, &inputs));
        requires.push(RequirePlan { cond: fact_cond(cmp, graph.inputs[i].dtype, HostExpr::Scalar(i as u32), bound, graph), text });
    }
    requires.extend(graph.requires.iter().filter_map(|r| Some(RequirePlan { cond: host(graph, r.cond)?, text: r.text.clone() })));
    let outputs = graph.outputs.iter().map(|o| OutputPlan {
        name: o.name.clone(),
        dtype: o.dtype,
        axes: o.axes.iter().map(|a| a.0).collect(),
        storage: storage(o.dtype),
    });
    let outputs = outputs.collect();
    let plan = Plan { name: graph.name.clone(), axes, inputs, outputs, requires, buffers: vec![], launches: vec![], fixed: vec![], remarks: vec![] };
    Ok(Interface { plan, optional })
}

fn storage(dtype: DType) -> Storage {
    match dtype {
        DType::Real | DType::Complex => Storage::F32,
        DType::Int => Storage::I64,
        DType::Bool => Storage::U8,
    }
}

/// The scalar node as a host expression; `None` when it reads tensors or unfolds beyond the limit.
pub fn host(graph: &Graph, node: NodeId) -> Option<HostExpr> {
    let mut budget = MAX_NODES;
    convert(graph, node, &mut budget, 0)
}

fn convert(graph: &Graph, node: NodeId, budget: &mut usize, depth: usize) -> Option<HostExpr> {
    *budget = budget.checked_sub(1)?;
    if depth > 400 {
        return None;
    }
    match graph.op(node) {
        Op::Const(attnc_compiler::ops::Scalar::Int(i)) => Some(HostExpr::Int(*i)),
        Op::Const(attnc_compiler::ops::Scalar::Real(r)) => Some(HostExpr::Real(*r)),
        Op::Const(attnc_compiler::ops::Scalar::Bool(b)) => Some(HostExpr::Bool(*b)),
        Op::Const(attnc_compiler::ops::Scalar::Complex(..)) => None,
        Op::Extent(axis) => Some(HostExpr::Extent(axis.0)),
        Op::Input(input) => graph.inputs[input.index()].axes.is_empty().then_some(HostExpr::Scalar(input.0)),
        Op::Map { op, args } => {
            let args = args.iter().map(|a| convert(graph, *a, budget, depth + 1)).collect::<Option<Vec<_>>>()?;
            Some(HostExpr::Op(*op, args))
        }
        Op::Index(_) | Op::Read { .. } | Op::Reduce { .. } | Op::Prefix { .. } | Op::Rank { .. } | Op::ArgSort { .. } => None,
        Op::TopK { .. } | Op::List { .. } | Op::Solve { .. } | Op::State { .. } | Op::Final { .. } | Op::History { .. } | Op::Expand { .. } => None,
    }
}

fn fact_text(cmp: FactCmp) -> &'static str {
    match cmp {
        FactCmp::Lt => "<",
        FactCmp::Le => "<=",
        FactCmp::Gt => ">",
        FactCmp::Ge => ">=",
        FactCmp::Eq => "==",
        FactCmp::Ne => "!=",
    }
}

fn fact_cond(cmp: FactCmp, dtype: DType, value: HostExpr, bound: HostExpr, graph: &Graph) -> HostExpr {
    let bound_dtype = dtype_of(&bound, graph);
    let real = |e: HostExpr, d: DType, other: DType| if d == DType::Int && other == DType::Real { HostExpr::Op(ScalarOp::ToReal, vec![e]) } else { e };
    let (a, b) = (real(value, dtype, bound_dtype), real(bound, bound_dtype, dtype));
    let (op, args) = match cmp {
        FactCmp::Lt => (ScalarOp::Lt, vec![a, b]),
        FactCmp::Le => (ScalarOp::Le, vec![a, b]),
        FactCmp::Gt => (ScalarOp::Lt, vec![b, a]),
        FactCmp::Ge => (ScalarOp::Le, vec![b, a]),
        FactCmp::Eq => (ScalarOp::Eq, vec![a, b]),
        FactCmp::Ne => (ScalarOp::Ne, vec![a, b]),
    };
    HostExpr::Op(op, args)
}

fn dtype_of(expr: &HostExpr, graph: &Graph) -> DType {
    match expr {
        HostExpr::Int(_) | HostExpr::Extent(_) => DType::Int,
        HostExpr::Real(_) => DType::Real,
        HostExpr::Bool(_) => DType::Bool,
        HostExpr::Scalar(i) => graph.inputs.get(*i as usize).map_or(DType::Real, |i| i.dtype),
        HostExpr::Op(op, args) => {
            let args: Vec<DType> = args.iter().map(|a| dtype_of(a, graph)).collect();
            op.result(&args).unwrap_or(DType::Real)
        }
    }
}
