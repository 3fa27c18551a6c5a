//! Evaluation of one node under an environment, with results kept at the outermost loop they depend on.

use super::plan::Plan;
use super::scan::Done;
use super::value::{Array, Block, Data, Dim, Meter, View, Walk, dense, without};
use super::{InterpError, map};
use crate::graph::bind::Binding;
use crate::graph::{AxisId, Graph, NodeId, Op, ScanId};
use crate::ops::{DType, Scalar};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// Visible frames, one bit each; bit 0 is the root, which binds nothing.
pub(super) type Env = u128;
pub(super) const ROOT: Env = 1;

/// Deepest recursion over the graph.
const MAX_DEPTH: usize = 20_000;

/// A loop in progress: an axis at a position, and what is known as long as it stays there.
pub(super) struct Frame {
    pub axis: Option<AxisId>,
    pub at: usize,
    /// The scan whose step this is, with its states before the step and its earlier results.
    pub scan: Option<ScanId>,
    pub states: Vec<View>,
    pub history: Vec<View>,
    pub memo: HashMap<(NodeId, Env), View>,
    pub scans: HashMap<(ScanId, Env), Rc<Done>>,
}

impl Frame {
    pub fn new(axis: Option<AxisId>, at: usize) -> Frame {
        Frame { axis, at, scan: None, states: vec![], history: vec![], memo: HashMap::new(), scans: HashMap::new() }
    }
}

pub(super) struct Eval<'a> {
    pub graph: &'a Graph,
    pub plan: Plan,
    pub binding: &'a Binding,
    pub meter: Meter,
    pub frames: Vec<Frame>,
    /// Largest iteration space, in elements, that is computed in one go, and largest array that is computed whole although a loop
    /// asks for a part.
    pub limit: usize,
    /// Scans whose steps are being processed.
    pub active: Vec<ScanId>,
    inputs: Vec<Option<View>>,
    depth: usize,
}

/// Index of the innermost visible frame.
pub(super) fn level(env: Env) -> usize {
    127 - (env | ROOT).leading_zeros() as usize
}

fn bits(env: Env) -> impl Iterator<Item = usize> {
    let mut rest = env;
    std::iter::from_fn(move || {
        (rest != 0).then(|| {
            let bit = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            bit
        })
    })
}

impl<'a> Eval<'a> {
    pub fn new(graph: &'a Graph, binding: &'a Binding, inputs: &BTreeMap<String, Array>, limit: usize) -> Result<Eval<'a>, InterpError> {
        let meter = Meter::default();
        let mut views = Vec::new();
        for (i, input) in graph.inputs.iter().enumerate() {
            let view = match (inputs.get(&input.name), binding.scalars[i]) {
                (Some(array), _) => {
                    meter.check(array.data.len(), input.dtype)?;
                    let data = array.data.clone().cast(input.dtype).ok_or_else(|| InterpError::Broken(format!("dtype of `{}`", input.name)))?;
                    let sizes: Vec<(AxisId, usize)> = input.axes.iter().copied().zip(array.shape.iter().copied()).collect();
                    let mut dims = dense(&sizes);
                    dims.sort_by_key(|d| d.axis);
                    Some(View { block: Rc::new(Block::new(data, &meter)), offset: 0, dims })
                }
                (None, Some(value)) => Some(View { block: Rc::new(Block::new(Data::fill(value, 1), &meter)), offset: 0, dims: vec![] }),
                (None, None) => None,
            };
            views.push(view);
        }
        let frames = vec![Frame::new(None, 0)];
        Ok(Eval { graph, plan: Plan::new(graph), binding, meter, frames, limit, active: vec![], inputs: views, depth: 0 })
    }

    /// A node as a dense array over `axes` (over all its axes when the list is empty).
    pub fn output(&mut self, node: NodeId, axes: &[AxisId]) -> Result<Array, InterpError> {
        let axes: Vec<AxisId> = if axes.is_empty() { self.graph.axes_of(node).iter().copied().collect() } else { axes.to_vec() };
        let sizes = self.sizes(&axes);
        let view = self.eval(node, ROOT, usize::MAX)?;
        let mut data = self.zeros(self.graph.dtype(node), &sizes)?;
        copy_into(&mut data, &dense(&sizes), 0, &view)?;
        Ok(Array { shape: sizes.iter().map(|s| s.1).collect(), data })
    }

    pub fn sizes(&self, axes: &[AxisId]) -> Vec<(AxisId, usize)> {
        axes.iter().map(|a| (*a, self.binding.extent(*a))).collect()
    }

    /// Axes of a node that the environment does not bind.
    pub fn free(&self, node: NodeId, env: Env) -> Vec<(AxisId, usize)> {
        let axes: Vec<AxisId> = self.graph.axes_of(node).iter().copied().filter(|a| self.bound(*a, env).is_none()).collect();
        self.sizes(&axes)
    }

    /// Position of an axis under the environment.
    pub fn bound(&self, axis: AxisId, env: Env) -> Option<usize> {
        bits(env).map(|b| &self.frames[b]).find(|f| f.axis == Some(axis)).map(|f| f.at)
    }

    /// The frame in which a scan takes its step.
    pub fn step_frame(&self, scan: ScanId, env: Env) -> Option<usize> {
        bits(env).find(|b| self.frames[*b].scan == Some(scan))
    }

    /// The environment without the frames that bind one of these axes.
    pub fn unbind(&self, env: Env, axes: impl Fn(AxisId) -> bool) -> Env {
        bits(env).filter(|b| !self.frames[*b].axis.is_some_and(&axes)).fold(0, |e, b| e | 1 << b) | ROOT
    }

    /// Adds a frame that binds its axis (in place of others that bind it).
    pub fn push(&mut self, env: Env, frame: Frame) -> Result<Env, InterpError> {
        let bit = self.frames.len();
        if bit >= 120 {
            return Err(InterpError::TooDeep);
        }
        let env = self.unbind(env, |a| frame.axis == Some(a));
        self.frames.push(frame);
        Ok(env | 1 << bit)
    }

    pub fn block(&self, data: Data) -> Rc<Block> {
        Rc::new(Block::new(data, &self.meter))
    }

    pub fn constant(&self, value: Scalar) -> View {
        View { block: self.block(Data::fill(value, 1)), offset: 0, dims: vec![] }
    }

    pub fn array(&self, data: Data, sizes: &[(AxisId, usize)]) -> View {
        View { block: self.block(data), offset: 0, dims: dense(sizes) }
    }

    /// Product of extents, checked.
    pub fn count(&self, sizes: &[(AxisId, usize)]) -> Result<usize, InterpError> {
        if sizes.iter().any(|s| s.1 == 0) {
            return Ok(0);
        }
        sizes.iter().try_fold(1usize, |n, s| n.checked_mul(s.1)).ok_or(InterpError::TooLarge { bytes: u64::MAX })
    }

    pub fn filled(&self, value: Scalar, sizes: &[(AxisId, usize)]) -> Result<Data, InterpError> {
        let n = self.count(sizes)?;
        self.meter.check(n, value.dtype())?;
        Ok(Data::fill(value, n))
    }

    pub fn zeros(&self, dtype: DType, sizes: &[(AxisId, usize)]) -> Result<Data, InterpError> {
        self.filled(Scalar::zero(dtype), sizes)
    }

    /// The view at the positions that the environment binds.
    pub fn localise(&self, view: View, env: Env) -> View {
        let cuts: Vec<(AxisId, usize)> = view.dims.iter().filter_map(|d| self.bound(d.axis, env).map(|at| (d.axis, at))).collect();
        cuts.into_iter().fold(view, |v, (axis, at)| v.slice(axis, at))
    }

    /// Value of a node under an environment: a view over (a subset of) its axes that are not bound.
    /// `owner` is the frame in which the only user of the result keeps its own; then nothing needs to be kept here.
    pub fn eval(&mut self, node: NodeId, env: Env, owner: usize) -> Result<View, InterpError> {
        if self.depth >= MAX_DEPTH {
            return Err(InterpError::TooDeep);
        }
        self.depth += 1;
        let view = self.eval_node(node, env, owner);
        self.depth -= 1;
        view
    }

    fn eval_node(&mut self, node: NodeId, env: Env, owner: usize) -> Result<View, InterpError> {
        if let Some(scan) = self.pending(node, env) {
            let done = self.scan(scan, env)?;
            let view = done.records.get(&node).ok_or_else(|| InterpError::Broken(format!("{node:?} is read outside of its scan")))?;
            return Ok(self.localise(view.clone(), env));
        }
        match self.graph.op(node) {
            Op::Const(value) => return Ok(self.constant(*value)),
            Op::Extent(axis) => return Ok(self.constant(Scalar::Int(self.binding.extent(*axis) as i64))),
            Op::Index(axis) => {
                if let Some(at) = self.bound(*axis, env) {
                    return Ok(self.constant(Scalar::Int(at as i64)));
                }
            }
            Op::Input(i) => {
                if let Some(view) = &self.inputs[i.index()] {
                    return Ok(self.localise(view.clone(), env));
                }
                let input = &self.graph.inputs[i.index()];
                let default = input.default.ok_or_else(|| InterpError::Broken(format!("no value for `{}`", input.name)))?;
                return self.eval(default, env, usize::MAX);
            }
            Op::Expand { value, .. } => return self.eval(*value, env, owner),
            Op::State { scan, index } => {
                let frame = self.step_frame(*scan, env).ok_or_else(|| InterpError::Broken(format!("{node:?} outside of its scan")))?;
                let state = self.frames[frame].states.get(*index as usize).cloned();
                let state = state.ok_or_else(|| InterpError::Broken(format!("{node:?} names no state")))?;
                return Ok(self.localise(state, env));
            }
            Op::Final { scan, index } => {
                let done = self.scan(*scan, env)?;
                let value = done.finals.get(*index as usize).cloned().ok_or_else(|| InterpError::Broken(format!("{node:?} names no state")))?;
                return Ok(self.localise(value, env));
            }
            Op::History { .. } => return Err(InterpError::Broken(format!("{node:?} is not the value of a read"))),
            Op::Map { .. } | Op::Read { .. } | Op::Reduce { .. } | Op::Prefix { .. } | Op::Solve { .. } => {}
            Op::Rank { .. } | Op::ArgSort { .. } | Op::TopK { .. } | Op::List { .. } => {}
        }
        let inner = self.home(node, env);
        let key = (node, inner);
        let at = level(inner);
        if let Some(view) = self.frames[at].memo.get(&key) {
            return Ok(self.localise(view.clone(), env));
        }
        let view = self.compute(node, inner)?;
        if owner != at || self.plan.users[node.index()] != 1 {
            self.frames[at].memo.insert(key, view.clone());
        }
        Ok(self.localise(view, env))
    }

    /// A scan that must run first: the node belongs to its step and no step is being taken.
    fn pending(&self, node: NodeId, env: Env) -> Option<ScanId> {
        let open = self.plan.open(node);
        let waits = |s: &ScanId| self.step_frame(*s, env).is_none();
        open.iter().copied().filter(waits).find(|s| !open.iter().any(|o| o != s && waits(o) && self.plan.within[s.index()].contains(o)))
    }

    /// The part of the environment in which a node is computed: only its own axes and scans, and of those as few as its size allows.
    fn home(&self, node: NodeId, env: Env) -> Env {
        let axes = self.graph.axes_of(node);
        let (mut steps, mut loops) = (ROOT, ROOT);
        for bit in bits(env & !ROOT) {
            let frame = &self.frames[bit];
            if frame.scan.is_some_and(|s| self.plan.open(node).contains(&s)) {
                steps |= 1 << bit;
            } else if frame.axis.is_some_and(|a| axes.contains(&a)) {
                loops |= 1 << bit;
            }
        }
        let whole = self.count(&self.free(node, steps)).unwrap_or(usize::MAX);
        if whole <= self.limit {
            return steps;
        }
        let fixed = self.structural(node);
        steps | self.unbind(loops, |a| fixed.contains(&a))
    }

    /// Axes of the result that the operation needs as a whole.
    fn structural(&self, node: NodeId) -> Vec<AxisId> {
        match self.graph.op(node) {
            Op::Prefix { axis, .. } => vec![*axis],
            Op::Solve { cols, .. } => vec![*cols],
            Op::Rank { axes, .. } | Op::TopK { axes, .. } => axes.clone(),
            Op::ArgSort { to, .. } | Op::List { to, .. } => vec![*to],
            _ => vec![],
        }
    }

    /// Computes a node over its free axes; large ones loop over their leading axis.
    pub fn compute(&mut self, node: NodeId, env: Env) -> Result<View, InterpError> {
        let free = self.free(node, env);
        let mut space = free.clone();
        if let Op::Reduce { axes, .. } | Op::ArgSort { axes, .. } | Op::List { axes, .. } = self.graph.op(node) {
            space.extend(self.sizes(axes));
        }
        let fixed = self.structural(node);
        if self.count(&space).unwrap_or(usize::MAX) > self.limit
            && let Some((axis, extent)) = free.iter().find(|(a, e)| *e > 1 && !fixed.contains(a)).copied()
        {
            let mut data = self.zeros(self.graph.dtype(node), &free)?;
            let (dims, stride) = without(dense(&free), axis);
            for at in 0..extent {
                let inner = self.push(env, Frame::new(Some(axis), at))?;
                let part = self.compute(node, inner)?;
                self.frames.pop();
                copy_into(&mut data, &dims, at * stride, &part)?;
            }
            return Ok(self.array(data, &free));
        }
        let graph = self.graph;
        match graph.op(node) {
            Op::Map { op, args } => {
                let args: Vec<View> = args.iter().map(|a| self.eval(*a, env, level(env))).collect::<Result<_, _>>()?;
                // Axes along which no operand varies stay out of the result.
                let axes: Vec<(AxisId, usize)> = free.into_iter().filter(|(a, _)| args.iter().any(|v| v.dim(*a).is_some())).collect();
                self.meter.check(self.count(&axes)?, graph.dtype(node))?;
                let data = map::map(*op, &args, &axes, graph.dtype(node))?;
                Ok(self.array(data, &axes))
            }
            Op::Index(axis) => {
                let n = self.binding.extent(*axis);
                self.meter.check(n, DType::Int)?;
                Ok(self.array(Data::Int((0..n as i64).collect()), &[(*axis, n)]))
            }
            Op::Read { value, subs } => self.read(node, *value, subs, env),
            Op::Reduce { op, axes, body, mask } => self.reduce(*op, axes, *body, *mask, &free, env),
            Op::Prefix { op, axis, dir, body, mask } => self.prefix(*op, *axis, *dir, (*body, *mask), &free, env),
            Op::Solve { rows, cols, matrix, rhs, reverse } => self.solve((*rows, *cols), (*matrix, *rhs), *reverse, &free, env),
            Op::Rank { axes, key, mask } => self.rank(axes, *key, *mask, &free, env),
            Op::ArgSort { axes, to, key, mask } => self.argsort(axes, *to, (*key, *mask), &free, env),
            Op::TopK { axes, key, mask, count } => self.topk(axes, (*key, *mask), *count, &free, env),
            Op::List { axes, to, set } => self.list(axes, *to, *set, &free, env),
            Op::Input(_) | Op::Const(_) | Op::Extent(_) | Op::State { .. } | Op::Final { .. } | Op::History { .. } | Op::Expand { .. } => {
                Err(InterpError::Broken(format!("{node:?} has no value of its own")))
            }
        }
    }
}

/// Copies a view into a dense array with the given dims, at an offset; axes that the view lacks repeat it.
pub(super) fn copy_into(to: &mut Data, dims: &[Dim], offset: usize, from: &View) -> Result<(), InterpError> {
    fn rows<T: Copy>(to: &mut [T], from: &[T], walk: &Walk<2>) {
        let (len, [s, t]) = (walk.len, walk.inner);
        walk.rows(|[o, p]| match (s, t) {
            (1, 1) => to[o..o + len].copy_from_slice(&from[p..p + len]),
            _ => (0..len).for_each(|k| to[o + k * s] = from[p + k * t]),
        });
    }
    let walk = Walk::from_strides(dims.iter().map(|d| (d.extent, [d.stride, from.stride(d.axis)])), [offset, from.offset]);
    match (to, from.data()) {
        (Data::Real(a), Data::Real(b)) => rows(a, b, &walk),
        (Data::Int(a), Data::Int(b)) => rows(a, b, &walk),
        (Data::Bool(a), Data::Bool(b)) => rows(a, b, &walk),
        (Data::Complex(a), Data::Complex(b)) => rows(a, b, &walk),
        (a, b) => return Err(InterpError::Broken(format!("{} where {} was expected", b.dtype().name(), a.dtype().name()))),
    }
    Ok(())
}
