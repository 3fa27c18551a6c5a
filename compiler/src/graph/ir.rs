//! The graph IR.
//!
//! **Values.** A node is an array over a *set* of named axes with a dtype; axes a consumer has and a value lacks broadcast.
//! Absence is gone: `sema` turns presence into Bool nodes, which appear as the `mask` of reductions and order operations; an
//! element that the program calls absent holds some value here, which no one that respects the masks can see.
//!
//! **Scans are recurrence equations.** A scan over axis `t` does not bind `t`: every node in its step *has* the axis `t`.
//! `State` is the array of values before each step (it has the axis `t`), `next` the array of values after it; the scan says
//! `State[t] = next[t-1]` (or `init` at the first step). So an export is simply a node with axis `t`, usable inside and outside,
//! nested scans need no scoping, and "what can be computed before the loop" is reachability. `History` is an export read by the
//! step itself at other positions; it may only be the operand of a `Read`, and positions not done yet read as zero.

use crate::base::Span;
use crate::ops::{DType, Scalar, ScalarOp};
use crate::reduce::ReduceOp;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use std::collections::BTreeSet;
use std::fmt;

/// Identity of a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub NodeIndex<u32>);

impl NodeId {
    /// Position in the order of creation; operands other than the leaves of scans come before their users.
    pub fn index(self) -> usize {
        self.0.index()
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0.index())
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $name(pub u32);
        impl $name {
            pub fn index(self) -> usize { self.0 as usize }
        }
    )* };
}

ids!(
    /// Identity of an axis.
    AxisId,
    /// Identity of an input (tensor or scalar).
    InputId,
    /// Identity of a scan.
    ScanId
);

/// Set of axes; iteration is in order of declaration.
pub type AxisSet = BTreeSet<AxisId>;

/// Where the extent of an axis comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Extent {
    /// From the shapes of the inputs that have the axis.
    Inputs,
    /// A scalar Int node over extents of other axes, scalar inputs and constants; values below 0 mean 0.
    Value(NodeId),
}

/// `of = block * outer + this axis`: the axis counts positions inside the block `outer` of another axis. Its extent is `block`; positions
/// beyond the end of `of` hold values that nobody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    pub of: AxisId,
    pub outer: AxisId,
    pub block: u32,
}

/// An index variable.
#[derive(Clone, Debug)]
pub struct Axis {
    /// Name for people; need not be unique after inlining.
    pub name: String,
    pub extent: Extent,
    /// The axis declared with exactly the same extent (`axis s: T`), if any: both are tiled alike.
    pub twin: Option<AxisId>,
    /// Positions inside one block of another axis, if the axis is that.
    pub split: Option<Split>,
    pub span: Span,
}

/// Declared fact about all elements of an input: `cmp` against a scalar node. An assumption for proofs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fact {
    pub cmp: FactCmp,
    pub bound: NodeId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactCmp {
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    Ne,
}

/// A tensor or scalar that the caller gives.
#[derive(Clone, Debug)]
pub struct Input {
    pub name: String,
    pub dtype: DType,
    /// Storage order of the axes; empty for a scalar.
    pub axes: Vec<AxisId>,
    /// Value when the caller gives none: a node whose axes are among `axes`, broadcast.
    pub default: Option<NodeId>,
    pub fact: Option<Fact>,
    pub span: Span,
}

/// A result; `axes` is the storage order. The node's axes are a subset (missing ones broadcast: `expand`).
#[derive(Clone, Debug)]
pub struct Output {
    pub name: String,
    pub dtype: DType,
    pub axes: Vec<AxisId>,
    pub node: NodeId,
    pub span: Span,
}

/// A scalar Bool that must hold at the call; `text` is the condition as written, `implicit` when it is an index range.
#[derive(Clone, Debug)]
pub struct Require {
    pub cond: NodeId,
    pub text: String,
    pub implicit: bool,
    pub span: Span,
}

/// One state of a scan.
#[derive(Clone, Debug)]
pub struct State {
    pub name: String,
    pub dtype: DType,
    /// Axes of the state, without the scan axis and without those of enclosing scans that it varies over implicitly
    /// (an inner scan's state has the outer scan axis in its node axes; it is listed here too).
    pub axes: AxisSet,
    /// Axes that the program declared (`[d,e]`): the candidates for keys and values of a chunk form.
    pub declared: Vec<AxisId>,
    /// Value before the first step.
    pub init: NodeId,
    /// The `Op::State` leaf: axes + the scan axis.
    pub old: NodeId,
    /// Value after the step, over `axes` + the scan axis (or fewer: broadcast).
    pub next: NodeId,
}

/// `scan t { .. }` or `repeat n { .. }` (then `axis` is an unnamed axis of n steps).
#[derive(Clone, Debug)]
pub struct Scan {
    pub axis: AxisId,
    pub reverse: bool,
    /// The scan whose step contains this one.
    pub parent: Option<ScanId>,
    /// Made by a pass out of one prefix reduction: never the outer one of two scans that need each other.
    pub derived: bool,
    pub states: Vec<State>,
    /// Nodes assigned by `name = e` in the step, in order of appearance.
    pub exports: Vec<NodeId>,
    /// Exports that the step reads at other positions: (leaf, the exported node).
    pub history: Vec<(NodeId, NodeId)>,
    pub span: Span,
}

/// Which positions a prefix reduction takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrefixDir {
    Le,
    Lt,
    Ge,
    Gt,
}

/// What a node computes. Operands are typed fields; `Graph` mirrors them as edges.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// The whole tensor (or scalar) given by the caller.
    Input(InputId),
    Const(Scalar),
    /// The position along the axis, as Int.
    Index(AxisId),
    /// The extent of the axis, as Int scalar.
    Extent(AxisId),
    /// Pointwise; the result has the union of the operands' axes.
    Map { op: ScalarOp, args: Vec<NodeId> },
    /// `value` with the listed axes replaced by Int indices, all at once; axes: those of `value` without the listed ones, plus
    /// those of the indices (an index may carry an axis that `value` keeps: aligned). Out of range reads the zero of the dtype.
    Read { value: NodeId, subs: Vec<(AxisId, NodeId)> },
    /// Over `axes`, skipping elements where `mask` is false. The result has the axes of body and mask without `axes`. An axis that
    /// only the mask has is iterated all the same (the body repeats).
    Reduce { op: ReduceOp, axes: Vec<AxisId>, body: NodeId, mask: Option<NodeId> },
    /// As `Reduce` over the positions before / up to each position of `axis`, which the result keeps.
    Prefix { op: ReduceOp, axis: AxisId, dir: PrefixDir, body: NodeId, mask: Option<NodeId> },
    /// Position (Int) of each element in the stable ascending order of the present ones along `axes` (row-major in that order);
    /// NaN after numbers; absent elements rank after all present ones, in index order. Has `axes`.
    Rank { axes: Vec<AxisId>, key: NodeId, mask: Option<NodeId> },
    /// Slot j of axis `to`: the (flat) position whose rank is j; 0 when there is none (the count guards it). Has `to`, not `axes`.
    ArgSort { axes: Vec<AxisId>, to: AxisId, key: NodeId, mask: Option<NodeId> },
    /// Bool over `axes`: among the `count` largest present ones (ties to the lower position; NaN is smaller than every number).
    TopK { axes: Vec<AxisId>, key: NodeId, mask: Option<NodeId>, count: NodeId },
    /// Slot j of axis `to`: the j-th (flat) position, in index order, where `set` holds; 0 when there are fewer.
    List { axes: Vec<AxisId>, to: AxisId, set: NodeId },
    /// The value of a state before each step (has the scan axis).
    State { scan: ScanId, index: u32 },
    /// The value of a state after the last step (`init` when there was none); without the scan axis.
    Final { scan: ScanId, index: u32 },
    /// Exports of the scan done so far; only the operand of a `Read` over the scan axis.
    History { scan: ScanId, index: u32 },
    /// `y[i] = rhs[i] + sum over c < i of matrix[i, c] * y[c]` (c > i when `reverse`), `i` a position of `rows` in `matrix` and `rhs`;
    /// the result has `cols` in place of `rows`. Both axes have one extent; Real.
    Solve { rows: AxisId, cols: AxisId, matrix: NodeId, rhs: NodeId, reverse: bool },
    /// `value` repeated over more axes (identity on elements).
    Expand { value: NodeId, axes: Vec<AxisId> },
}

impl Op {
    /// Operands in order of fields. `State`, `Final` and `History` have none (their links stand in [`Scan`]).
    pub fn operands(&self) -> Vec<NodeId> {
        match self {
            Op::Input(_) | Op::Const(_) | Op::Index(_) | Op::Extent(_) => vec![],
            Op::State { .. } | Op::Final { .. } | Op::History { .. } => vec![],
            Op::Map { args, .. } => args.clone(),
            Op::Read { value, subs } => std::iter::once(*value).chain(subs.iter().map(|s| s.1)).collect(),
            Op::Reduce { body, mask, .. } | Op::Prefix { body, mask, .. } => std::iter::once(*body).chain(*mask).collect(),
            Op::Rank { key, mask, .. } | Op::ArgSort { key, mask, .. } => std::iter::once(*key).chain(*mask).collect(),
            Op::TopK { key, mask, count, .. } => std::iter::once(*key).chain(*mask).chain([*count]).collect(),
            Op::List { set, .. } => vec![*set],
            Op::Solve { matrix, rhs, .. } => vec![*matrix, *rhs],
            Op::Expand { value, .. } => vec![*value],
        }
    }

    /// The same op with every operand replaced.
    pub fn map_operands(&self, mut f: impl FnMut(NodeId) -> NodeId) -> Op {
        let mut op = self.clone();
        match &mut op {
            Op::Input(_) | Op::Const(_) | Op::Index(_) | Op::Extent(_) => {}
            Op::State { .. } | Op::Final { .. } | Op::History { .. } => {}
            Op::Map { args, .. } => args.iter_mut().for_each(|a| *a = f(*a)),
            Op::Read { value, subs } => {
                *value = f(*value);
                subs.iter_mut().for_each(|s| s.1 = f(s.1));
            }
            Op::Reduce { body, mask, .. } | Op::Prefix { body, mask, .. } => {
                *body = f(*body);
                *mask = mask.map(&mut f);
            }
            Op::Rank { key, mask, .. } | Op::ArgSort { key, mask, .. } => {
                *key = f(*key);
                *mask = mask.map(&mut f);
            }
            Op::TopK { key, mask, count, .. } => {
                *key = f(*key);
                *mask = mask.map(&mut f);
                *count = f(*count);
            }
            Op::List { set, .. } => *set = f(*set),
            Op::Solve { matrix, rhs, .. } => {
                *matrix = f(*matrix);
                *rhs = f(*rhs);
            }
            Op::Expand { value, .. } => *value = f(*value),
        }
        op
    }
}

/// A value: what computes it, its dtype, its axes, and where it was written.
#[derive(Clone, Debug)]
pub struct Node {
    pub op: Op,
    pub dtype: DType,
    pub axes: AxisSet,
    /// Name given by a `let`, output or state, for dumps and `explain`.
    pub name: Option<String>,
    pub span: Span,
}

/// A request of the `schedule` block: `tile t 128`, `chunk t 64`, `stages 3`; never changes results.
#[derive(Clone, Debug, PartialEq)]
pub struct Hint {
    /// `tile`, `chunk`, `stages`, ...
    pub kind: String,
    pub axis: Option<AxisId>,
    pub value: i64,
    /// Only for this target (`target ptx { .. }`).
    pub target: Option<String>,
    pub span: Span,
}

/// One kernel of the language, checked.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub name: String,
    pub doc: Vec<String>,
    pub dag: StableDiGraph<Node, ()>,
    pub axes: Vec<Axis>,
    pub inputs: Vec<Input>,
    pub outputs: Vec<Output>,
    pub scans: Vec<Scan>,
    pub requires: Vec<Require>,
    pub hints: Vec<Hint>,
}

impl Graph {
    /// The node with this id. Ids come from this graph, so the lookup cannot fail.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.dag[id.0]
    }

    pub fn op(&self, id: NodeId) -> &Op {
        &self.dag[id.0].op
    }

    pub fn axes_of(&self, id: NodeId) -> &AxisSet {
        &self.dag[id.0].axes
    }

    pub fn dtype(&self, id: NodeId) -> DType {
        self.dag[id.0].dtype
    }

    pub fn axis(&self, id: AxisId) -> &Axis {
        &self.axes[id.index()]
    }

    /// All nodes in order of creation.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.dag.node_indices().map(NodeId)
    }

    /// Adds an axis.
    pub fn add_axis(&mut self, axis: Axis) -> AxisId {
        self.axes.push(axis);
        AxisId(self.axes.len() as u32 - 1)
    }

    /// Adds a node; its edges mirror the operands. Dtype and axes are computed by `infer`, which must accept the op.
    pub fn add(&mut self, op: Op, dtype: DType, axes: AxisSet, span: Span) -> NodeId {
        let operands = op.operands();
        let id = NodeId(self.dag.add_node(Node { op, dtype, axes, name: None, span }));
        for operand in operands {
            self.dag.add_edge(operand.0, id.0, ());
        }
        id
    }

    /// Dtype and axes of `op`, or what is wrong with it. State leaves and inputs answer from their records.
    pub fn infer(&self, op: &Op) -> Result<(DType, AxisSet), String> {
        let without = |axes: &AxisSet, drop: &[AxisId]| -> AxisSet { axes.iter().copied().filter(|a| !drop.contains(a)).collect() };
        let union = |ids: &[NodeId]| -> AxisSet { ids.iter().flat_map(|i| self.axes_of(*i).iter().copied()).collect() };
        let with_mask = |body: NodeId, mask: &Option<NodeId>| -> AxisSet {
            let mut axes = self.axes_of(body).clone();
            if let Some(m) = mask {
                axes.extend(self.axes_of(*m));
            }
            axes
        };
        Ok(match op {
            Op::Input(i) => {
                let input = &self.inputs[i.index()];
                (input.dtype, input.axes.iter().copied().collect())
            }
            Op::Const(c) => (c.dtype(), AxisSet::new()),
            Op::Index(a) => (DType::Int, [*a].into()),
            Op::Extent(_) => (DType::Int, AxisSet::new()),
            Op::Map { op, args } => {
                let dtypes: Vec<DType> = args.iter().map(|a| self.dtype(*a)).collect();
                let names: Vec<&str> = dtypes.iter().map(|d| d.name()).collect();
                let dtype = op.result(&dtypes).ok_or_else(|| format!("`{}` does not take ({})", op.name(), names.join(", ")))?;
                (dtype, union(args))
            }
            Op::Read { value, subs } => {
                let drop: Vec<AxisId> = subs.iter().map(|s| s.0).collect();
                let mut axes = without(self.axes_of(*value), &drop);
                for (axis, index) in subs {
                    if !self.axes_of(*value).contains(axis) {
                        return Err(format!("the value has no axis `{}`", self.axis(*axis).name));
                    }
                    if self.dtype(*index) != DType::Int {
                        return Err("an index must be an int".to_string());
                    }
                    axes.extend(self.axes_of(*index));
                }
                (self.dtype(*value), axes)
            }
            Op::Reduce { op, axes, body, mask } => {
                let dtype = op.result(self.dtype(*body)).ok_or_else(|| format!("`{}` does not take {}", op.name(), self.dtype(*body).name()))?;
                (dtype, without(&with_mask(*body, mask), axes))
            }
            Op::Prefix { op, axis, body, mask, .. } => {
                let dtype = op.result(self.dtype(*body)).ok_or_else(|| format!("`{}` does not take {}", op.name(), self.dtype(*body).name()))?;
                let mut axes = with_mask(*body, mask);
                axes.insert(*axis);
                (dtype, axes)
            }
            Op::Rank { axes, key, mask } => {
                let mut all = with_mask(*key, mask);
                all.extend(axes);
                (DType::Int, all)
            }
            Op::TopK { axes, key, mask, count } => {
                let mut all = with_mask(*key, mask);
                all.extend(axes);
                all.extend(self.axes_of(*count));
                (DType::Bool, all)
            }
            Op::ArgSort { axes, to, key, mask } => {
                let mut all = without(&with_mask(*key, mask), axes);
                all.insert(*to);
                (DType::Int, all)
            }
            Op::List { axes, to, set } => {
                let mut all = without(self.axes_of(*set), axes);
                all.insert(*to);
                (DType::Int, all)
            }
            Op::Solve { rows, cols, matrix, rhs, .. } => {
                if self.dtype(*matrix) != DType::Real || self.dtype(*rhs) != DType::Real {
                    return Err("a system is real".to_string());
                }
                if self.axes_of(*rhs).contains(cols) {
                    return Err(format!("the right side has the axis `{}`", self.axis(*cols).name));
                }
                let mut all = without(&union(&[*matrix, *rhs]), &[*rows]);
                all.insert(*cols);
                (DType::Real, all)
            }
            Op::State { scan, index } => {
                let scan = &self.scans[scan.index()];
                let state = &scan.states[*index as usize];
                let mut axes = state.axes.clone();
                axes.insert(scan.axis);
                (state.dtype, axes)
            }
            Op::Final { scan, index } => {
                let state = &self.scans[scan.index()].states[*index as usize];
                (state.dtype, state.axes.clone())
            }
            Op::History { scan, index } => {
                let (leaf, exported) = self.scans[scan.index()].history[*index as usize];
                let id = if self.dag.contains_node(exported.0) { exported } else { leaf };
                (self.dtype(id), self.axes_of(id).clone())
            }
            Op::Expand { value, axes } => {
                let mut all = self.axes_of(*value).clone();
                all.extend(axes);
                (self.dtype(*value), all)
            }
        })
    }

    /// Adds a node whose dtype and axes `infer` computes.
    pub fn build(&mut self, op: Op, span: Span) -> Result<NodeId, String> {
        let (dtype, axes) = self.infer(&op)?;
        Ok(self.add(op, dtype, axes, span))
    }

    /// Nodes that use `id` as an operand.
    pub fn users(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.dag.neighbors(id.0).map(NodeId)
    }
}
