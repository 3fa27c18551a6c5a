//! Binds a graph to the shapes and scalars of one call: extents of all axes, values of all scalar inputs, and the checks that a
//! program asks for (`require`, facts on scalars). Every target uses this, so wrong calls read the same everywhere.

use super::ir::{AxisId, Extent, FactCmp, Graph, InputId, NodeId, Op};
use crate::ops::{DType, Scalar, ScalarOp};
use std::collections::{BTreeMap, HashMap};

/// Most elements that one tensor may have (1 TiB of bytes): beyond it a size is a mistake, not a request.
pub const MAX_ELEMENTS: usize = 1 << 40;

/// What is wrong with a call. Extents and shapes are in elements.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BindError {
    #[error("input `{name}` is missing: expected {expected}")]
    Missing { name: String, expected: String },
    #[error("there is no input `{name}`; `{kernel}` takes {known}")]
    Extra { name: String, kernel: String, known: String },
    #[error("tensor `{name}` has shape {found:?}, expected {expected}")]
    Rank { name: String, expected: String, found: Vec<usize> },
    #[error("axis `{axis}` of `{name}` is {found} (shape {shape:?}, expected {expected}), of `{other}` it is {other_extent}")]
    Disagree { axis: String, name: String, expected: String, shape: Vec<usize>, found: usize, other: String, other_extent: usize },
    #[error("axis `{axis}` of `{name}` is {found} (shape {shape:?}, expected {expected}), its declared extent is {declared}")]
    Declared { axis: String, name: String, expected: String, shape: Vec<usize>, found: usize, declared: usize },
    #[error("`{name}` lists the axis `{axis}` twice")]
    Twice { name: String, axis: String },
    #[error("the extent of axis `{axis}` is unknown: give {candidates}")]
    Unknown { axis: String, candidates: String },
    #[error("`{name}` is a scalar ({dtype}), not a tensor of shape {found:?}")]
    NotTensor { name: String, dtype: &'static str, found: Vec<usize> },
    #[error("`{name}` is a tensor {expected}, not a scalar")]
    NotScalar { name: String, expected: String },
    #[error("scalar `{name}` must be {expected}, got {found}")]
    ScalarType { name: String, expected: &'static str, found: String },
    #[error("scalar `{name}` must be {cmp} {bound}, got {found}")]
    Fact { name: String, cmp: &'static str, bound: String, found: String },
    #[error("requirement `{text}` does not hold")]
    Require { text: String },
    #[error("index out of range: `{text}` does not hold for these sizes")]
    Range { text: String },
    #[error("`{name}` {axes} would have more than {MAX_ELEMENTS} elements")]
    TooLarge { name: String, axes: String },
    #[error("{node:?} ({what}) cannot be computed before the call")]
    NotHost { node: NodeId, what: &'static str },
    #[error("{node:?} depends on itself")]
    Cyclic { node: NodeId },
}

/// Extents and scalars of one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// Extent of every axis, by [`AxisId`].
    pub extents: Vec<usize>,
    /// Value of every scalar input (given or default), by [`InputId`]; `None` for tensors and for scalars whose default needs
    /// tensor data.
    pub scalars: Vec<Option<Scalar>>,
}

impl Binding {
    /// Extent of an axis.
    pub fn extent(&self, axis: AxisId) -> usize {
        self.extents.get(axis.index()).copied().unwrap_or(0)
    }

    /// Product of the extents, `None` on overflow or beyond [`MAX_ELEMENTS`].
    pub fn elements<'a>(&self, axes: impl IntoIterator<Item = &'a AxisId>) -> Option<usize> {
        let extents: Vec<usize> = axes.into_iter().map(|a| self.extent(*a)).collect();
        if extents.contains(&0) {
            return Some(0);
        }
        let product = extents.iter().try_fold(1usize, |n, e| n.checked_mul(*e))?;
        (product <= MAX_ELEMENTS).then_some(product)
    }

    /// Shape over axes in the given order.
    pub fn shape(&self, axes: &[AxisId]) -> Vec<usize> {
        axes.iter().map(|a| self.extent(*a)).collect()
    }

    /// Value of a scalar node over constants, extents and scalar inputs.
    ///
    /// Errors: [`BindError::NotHost`] when the node needs tensor data.
    pub fn eval(&self, graph: &Graph, node: NodeId) -> Result<Scalar, BindError> {
        let mut host = Host { graph, extents: self.extents.iter().map(|e| Some(*e)).collect(), scalars: self.scalars.clone(), done: HashMap::new() };
        host.eval(node)
    }
}

/// Whether [`Binding::eval`] can compute the node: constants, extents, scalar inputs, and pointwise operations on those.
pub fn is_host(graph: &Graph, node: NodeId) -> bool {
    let mut todo = vec![node];
    let mut seen = std::collections::HashSet::new();
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        match graph.op(id) {
            Op::Const(_) | Op::Extent(_) => {}
            Op::Input(i) if graph.inputs[i.index()].axes.is_empty() => todo.extend(graph.inputs[i.index()].default),
            Op::Map { args, .. } => todo.extend(args),
            Op::Input(_) | Op::Index(_) | Op::Read { .. } | Op::Reduce { .. } | Op::Prefix { .. } | Op::Rank { .. } | Op::ArgSort { .. } => return false,
            Op::TopK { .. } | Op::List { .. } | Op::Solve { .. } | Op::State { .. } | Op::Final { .. } | Op::History { .. } | Op::Expand { .. } => return false,
        }
    }
    true
}

/// Checks a call against the graph and computes all extents and scalars.
///
/// `shapes` holds the tensors that the caller gives, by input name; `scalars` the scalars. Inputs with a default may be absent.
/// An int given for a real is converted, an integral real for an int too; a bool takes 0 or 1. Extents below 0 mean 0.
/// Requirements that need tensor data are not checked here.
/// Errors: the first fault in the order inputs, scalars, extents, facts, requirements, sizes.
pub fn bind(graph: &Graph, shapes: &BTreeMap<String, Vec<usize>>, scalars: &BTreeMap<String, Scalar>) -> Result<Binding, BindError> {
    check_names(graph, shapes, scalars)?;
    let extents = from_shapes(graph, shapes)?;
    let mut host = Host { graph, extents, scalars: vec![None; graph.inputs.len()], done: HashMap::new() };
    for (i, input) in graph.inputs.iter().enumerate() {
        if let Some(given) = scalars.get(&input.name) {
            let value = convert(*given, input.dtype);
            let wrong = || BindError::ScalarType { name: input.name.clone(), expected: input.dtype.name(), found: show(*given) };
            host.scalars[i] = Some(value.ok_or_else(wrong)?);
        }
    }
    for (a, axis) in graph.axes.iter().enumerate() {
        if let Extent::Value(node) = axis.extent {
            let value = host.extent_value(node)?;
            check_declared(graph, shapes, AxisId(a as u32), value)?;
            host.extents[a] = Some(value);
        }
    }
    for (i, input) in graph.inputs.iter().enumerate() {
        if let (true, None, Some(default)) = (input.axes.is_empty(), host.scalars[i], input.default)
            && is_host(graph, default)
        {
            let value = host.eval(default)?;
            let wrong = || BindError::ScalarType { name: input.name.clone(), expected: input.dtype.name(), found: show(value) };
            host.scalars[i] = Some(convert(value, input.dtype).ok_or_else(wrong)?);
        }
    }
    let extents = host.extents.iter().map(|e| e.unwrap_or(0)).collect();
    let binding = Binding { extents, scalars: host.scalars.clone() };
    check_facts(graph, &binding)?;
    for require in &graph.requires {
        if is_host(graph, require.cond) && binding.eval(graph, require.cond)? != Scalar::Bool(true) {
            let text = require.text.clone();
            return Err(if require.implicit { BindError::Range { text } } else { BindError::Require { text } });
        }
    }
    let tensors = graph.inputs.iter().map(|i| (&i.name, &i.axes)).chain(graph.outputs.iter().map(|o| (&o.name, &o.axes)));
    for (name, axes) in tensors {
        if binding.elements(axes).is_none() {
            let shape: Vec<String> = axes.iter().map(|a| format!("{}: {}", graph.axis(*a).name, binding.extent(*a))).collect();
            return Err(BindError::TooLarge { name: name.clone(), axes: format!("[{}]", shape.join(", ")) });
        }
    }
    Ok(binding)
}

/// `int [b,t]` as a header would say it.
pub fn signature(graph: &Graph, input: InputId) -> String {
    let input = &graph.inputs[input.index()];
    if input.axes.is_empty() {
        return format!("a scalar {}", input.dtype.name());
    }
    let names = axis_list(graph, &input.axes);
    if input.dtype == DType::Real { names } else { format!("{} {names}", input.dtype.name()) }
}

fn axis_list(graph: &Graph, axes: &[AxisId]) -> String {
    let names: Vec<&str> = axes.iter().map(|a| graph.axis(*a).name.as_str()).collect();
    format!("[{}]", names.join(","))
}

fn check_names(graph: &Graph, shapes: &BTreeMap<String, Vec<usize>>, scalars: &BTreeMap<String, Scalar>) -> Result<(), BindError> {
    for name in shapes.keys().chain(scalars.keys()) {
        if !graph.inputs.iter().any(|i| i.name == *name) {
            let known: Vec<String> = graph.inputs.iter().map(|i| format!("`{}`", i.name)).collect();
            let known = if known.is_empty() { "no inputs".to_string() } else { known.join(", ") };
            return Err(BindError::Extra { name: name.clone(), kernel: graph.name.clone(), known });
        }
    }
    for (i, input) in graph.inputs.iter().enumerate() {
        let expected = || signature(graph, InputId(i as u32));
        let name = || input.name.clone();
        if let (true, Some(found)) = (input.axes.is_empty(), shapes.get(&input.name)) {
            return Err(BindError::NotTensor { name: name(), dtype: input.dtype.name(), found: found.clone() });
        }
        if !input.axes.is_empty() && scalars.contains_key(&input.name) {
            return Err(BindError::NotScalar { name: name(), expected: expected() });
        }
        let given = if input.axes.is_empty() { scalars.contains_key(&input.name) } else { shapes.contains_key(&input.name) };
        if !given && input.default.is_none() {
            return Err(BindError::Missing { name: name(), expected: expected() });
        }
    }
    Ok(())
}

/// Extents of the axes of given tensors; `None` where no given tensor has the axis.
fn from_shapes(graph: &Graph, shapes: &BTreeMap<String, Vec<usize>>) -> Result<Vec<Option<usize>>, BindError> {
    let mut extents: Vec<Option<(usize, usize)>> = vec![None; graph.axes.len()];
    for (i, input) in graph.inputs.iter().enumerate() {
        let Some(shape) = shapes.get(&input.name) else { continue };
        let expected = signature(graph, InputId(i as u32));
        if shape.len() != input.axes.len() {
            return Err(BindError::Rank { name: input.name.clone(), expected, found: shape.clone() });
        }
        for (k, (axis, found)) in input.axes.iter().zip(shape).enumerate() {
            let name = || graph.axis(*axis).name.clone();
            if input.axes[..k].contains(axis) {
                return Err(BindError::Twice { name: input.name.clone(), axis: name() });
            }
            match extents[axis.index()] {
                Some((extent, other)) if extent != *found => {
                    return Err(BindError::Disagree {
                        axis: name(),
                        name: input.name.clone(),
                        expected,
                        shape: shape.clone(),
                        found: *found,
                        other: graph.inputs[other].name.clone(),
                        other_extent: extent,
                    });
                }
                Some(_) => {}
                None => extents[axis.index()] = Some((*found, i)),
            }
        }
    }
    for (a, axis) in graph.axes.iter().enumerate() {
        let id = AxisId(a as u32);
        if axis.extent == Extent::Inputs && extents[a].is_none() {
            let having: Vec<String> = graph.inputs.iter().filter(|i| i.axes.contains(&id)).map(|i| format!("`{}`", i.name)).collect();
            // An axis that nothing has (the last user was simplified away) needs no extent.
            if !having.is_empty() {
                return Err(BindError::Unknown { axis: axis.name.clone(), candidates: having.join(" or ") });
            }
            extents[a] = Some((0, 0));
        }
    }
    // Declared extents are computed, and compared with the shapes afterwards.
    let known = |a: usize| if graph.axes[a].extent == Extent::Inputs { extents[a].map(|e| e.0) } else { None };
    Ok((0..extents.len()).map(known).collect())
}

fn check_declared(graph: &Graph, shapes: &BTreeMap<String, Vec<usize>>, axis: AxisId, declared: usize) -> Result<(), BindError> {
    for (i, input) in graph.inputs.iter().enumerate() {
        let Some(shape) = shapes.get(&input.name) else { continue };
        if let Some((_, found)) = input.axes.iter().zip(shape).find(|(a, found)| **a == axis && **found != declared) {
            let expected = signature(graph, InputId(i as u32));
            let (name, shape) = (input.name.clone(), shape.clone());
            return Err(BindError::Declared { axis: graph.axis(axis).name.clone(), name, expected, shape, found: *found, declared });
        }
    }
    Ok(())
}

fn check_facts(graph: &Graph, binding: &Binding) -> Result<(), BindError> {
    for (input, value) in graph.inputs.iter().zip(&binding.scalars) {
        let (Some(fact), Some(value)) = (&input.fact, value) else { continue };
        if !is_host(graph, fact.bound) {
            continue;
        }
        let bound = binding.eval(graph, fact.bound)?;
        if let Some(bound) = convert(bound, value.dtype()).or_else(|| convert(*value, bound.dtype()).map(|_| bound))
            && !holds(*value, fact.cmp, bound)
        {
            return Err(BindError::Fact { name: input.name.clone(), cmp: fact.cmp.text(), bound: show(bound), found: show(*value) });
        }
    }
    Ok(())
}

/// Whether `value cmp bound`; false with NaN and for dtypes without an order.
pub fn holds(value: Scalar, cmp: FactCmp, bound: Scalar) -> bool {
    let (value, bound) = match (value, bound) {
        (Scalar::Int(v), Scalar::Real(b)) => (Scalar::Real(v as f64), Scalar::Real(b)),
        (Scalar::Real(v), Scalar::Int(b)) => (Scalar::Real(v), Scalar::Real(b as f64)),
        (v, b) => (v, b),
    };
    let (op, args) = match cmp {
        FactCmp::Lt => (ScalarOp::Lt, [value, bound]),
        FactCmp::Le => (ScalarOp::Le, [value, bound]),
        FactCmp::Gt => (ScalarOp::Lt, [bound, value]),
        FactCmp::Ge => (ScalarOp::Le, [bound, value]),
        FactCmp::Eq => (ScalarOp::Eq, [value, bound]),
        FactCmp::Ne => (ScalarOp::Ne, [value, bound]),
    };
    op.eval(&args) == Some(Scalar::Bool(true))
}

/// The scalar as this dtype, where nothing is lost.
pub fn convert(value: Scalar, dtype: DType) -> Option<Scalar> {
    match (value, dtype) {
        (v, d) if v.dtype() == d => Some(v),
        (Scalar::Int(v), DType::Real) => Some(Scalar::Real(v as f64)),
        (Scalar::Real(v), DType::Int) => (v.fract() == 0.0 && v.abs() < 9.0e15).then_some(Scalar::Int(v as i64)),
        (Scalar::Int(v @ (0 | 1)), DType::Bool) => Some(Scalar::Bool(v == 1)),
        (Scalar::Real(v), DType::Bool) => (v == 0.0 || v == 1.0).then_some(Scalar::Bool(v == 1.0)),
        (Scalar::Int(v), DType::Complex) => Some(Scalar::Complex(v as f64, 0.0)),
        (Scalar::Real(v), DType::Complex) => Some(Scalar::Complex(v, 0.0)),
        (Scalar::Int(_) | Scalar::Real(_) | Scalar::Bool(_) | Scalar::Complex(..), _) => None,
    }
}

/// A scalar as text: `3`, `0.5`, `true`, `1+2i`.
pub fn show(value: Scalar) -> String {
    match value {
        Scalar::Bool(v) => v.to_string(),
        Scalar::Int(v) => v.to_string(),
        Scalar::Real(v) => format!("{v:?}"),
        Scalar::Complex(a, b) => format!("{a:?}{}{:?}i", if b < 0.0 { '-' } else { '+' }, b.abs()),
    }
}

impl FactCmp {
    /// As written in programs.
    pub fn text(self) -> &'static str {
        match self {
            FactCmp::Lt => "<",
            FactCmp::Le => "<=",
            FactCmp::Gt => ">",
            FactCmp::Ge => ">=",
            FactCmp::Eq => "==",
            FactCmp::Ne => "!=",
        }
    }
}

/// Evaluates scalar nodes; extents and defaults are computed on demand, so they may depend on each other in any order.
struct Host<'a> {
    graph: &'a Graph,
    extents: Vec<Option<usize>>,
    scalars: Vec<Option<Scalar>>,
    done: HashMap<NodeId, Scalar>,
}

impl Host<'_> {
    fn extent_value(&mut self, node: NodeId) -> Result<usize, BindError> {
        match self.eval(node)? {
            Scalar::Int(v) => Ok(usize::try_from(v.max(0)).unwrap_or(usize::MAX)),
            Scalar::Bool(_) | Scalar::Real(_) | Scalar::Complex(..) => Err(BindError::NotHost { node, what: "not an int" }),
        }
    }

    /// What must be known first: operands, the node of an extent, the default of an input.
    fn needs(&self, node: NodeId) -> Result<Vec<NodeId>, BindError> {
        let no = |what| Err(BindError::NotHost { node, what });
        match self.graph.op(node) {
            Op::Const(_) => Ok(vec![]),
            Op::Map { args, .. } => Ok(args.clone()),
            Op::Extent(axis) => match (self.extents[axis.index()], &self.graph.axis(*axis).extent) {
                (None, Extent::Value(value)) => Ok(vec![*value]),
                (Some(_), _) | (None, Extent::Inputs) => Ok(vec![]),
            },
            Op::Input(i) => match (self.scalars[i.index()], self.graph.inputs[i.index()].default) {
                (Some(_), _) => Ok(vec![]),
                (None, Some(default)) if self.graph.inputs[i.index()].axes.is_empty() => Ok(vec![default]),
                (None, _) => no("a tensor"),
            },
            Op::Index(_) => no("an index"),
            Op::Read { .. } => no("a read"),
            Op::Reduce { .. } | Op::Prefix { .. } | Op::Solve { .. } => no("a reduction"),
            Op::Rank { .. } | Op::ArgSort { .. } | Op::TopK { .. } | Op::List { .. } => no("a selection"),
            Op::State { .. } | Op::Final { .. } | Op::History { .. } => no("a state"),
            Op::Expand { .. } => no("a tensor"),
        }
    }

    fn finish(&self, node: NodeId) -> Result<Scalar, BindError> {
        let no = |what| BindError::NotHost { node, what };
        match self.graph.op(node) {
            Op::Const(c) => Ok(*c),
            Op::Map { op, args } => {
                let args: Vec<Scalar> = args.iter().filter_map(|a| self.done.get(a).copied()).collect();
                op.eval(&args).ok_or(no("operands of the wrong dtype"))
            }
            Op::Extent(axis) => match (self.extents[axis.index()], &self.graph.axis(*axis).extent) {
                (Some(extent), _) => Ok(Scalar::Int(i64::try_from(extent).unwrap_or(i64::MAX))),
                (None, Extent::Value(value)) => match self.done.get(value) {
                    Some(Scalar::Int(v)) => Ok(Scalar::Int((*v).max(0))),
                    _ => Err(no("not an int")),
                },
                (None, Extent::Inputs) => Err(no("an extent that no tensor gives")),
            },
            Op::Input(i) => {
                let input = &self.graph.inputs[i.index()];
                let value = self.scalars[i.index()].or_else(|| input.default.and_then(|d| self.done.get(&d).copied()));
                value.and_then(|v| convert(v, input.dtype)).ok_or(no("a scalar of the wrong dtype"))
            }
            _ => Err(no("not a scalar of the call")),
        }
    }

    fn eval(&mut self, node: NodeId) -> Result<Scalar, BindError> {
        // An explicit stack: chains of lets can be long. `false` on the stack means "operands not yet pushed".
        let mut stack = vec![(node, false)];
        let mut open = std::collections::HashSet::new();
        while let Some((id, ready)) = stack.pop() {
            if self.done.contains_key(&id) {
                continue;
            }
            if ready {
                let value = self.finish(id)?;
                self.done.insert(id, value);
                open.remove(&id);
                continue;
            }
            if !open.insert(id) {
                return Err(BindError::Cyclic { node: id });
            }
            stack.push((id, true));
            for need in self.needs(id)? {
                if !self.done.contains_key(&need) {
                    if open.contains(&need) {
                        return Err(BindError::Cyclic { node: need });
                    }
                    stack.push((need, false));
                }
            }
        }
        self.done.get(&node).copied().ok_or(BindError::Cyclic { node })
    }
}
