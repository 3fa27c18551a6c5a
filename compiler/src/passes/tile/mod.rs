//! Graph to tiles: writes the loops and tile operations of every part that `partition` made.
//!
//! A kernel is written scope by scope: the grid, then loops inside it. A scope maps axes to dimensions and nodes to expressions. What
//! does not vary inside a loop is placed in the scope outside it. Reductions over one axis that wait only for a running maximum of
//! the same pass share a loop (`reduce`); scans carry their states (`scan`). Does not know memory or threads.

mod forms;
mod masks;
mod order;
mod products;
mod reduce;
mod scan;
mod values;

use super::chunk::joined;
use super::cost::Sizes;
use super::error::CompileError;
use super::partition::{Part, Partition};
use super::rewrite::Work;
use super::steps::Steps;
use crate::graph::{AxisId, Extent, Graph, InputId, NodeId, Op, ScanId};
use crate::kernel::Storage;
use crate::kernel::plan::*;
use crate::ops::{DType, ScalarOp};
use crate::tiles::*;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

pub use crate::kernel::caps::TileOptions;

/// Known extents, by axis; `None` where only the call will tell.
pub type Extents = Vec<Option<i64>>;

/// Where a stored value lives, and in which order of axes.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub buffer: BufId,
    pub axes: Vec<AxisId>,
    /// It belongs to a block: positions along grid axes count from the block's first.
    pub block: bool,
}

pub(crate) struct Scope {
    env: HashMap<AxisId, DimId>,
    stmts: Vec<Stmt>,
    vals: HashMap<NodeId, ExprId>,
    scans: HashSet<ScanId>,
}

/// The writer of one kernel.
pub(crate) struct Writer<'a> {
    graph: &'a Graph,
    steps: &'a Steps,
    sizes: &'a Sizes,
    options: &'a TileOptions,
    extents: &'a Extents,
    homes: &'a HashMap<NodeId, Home>,
    /// The row that is being made: it is computed, not read.
    making: Option<NodeId>,
    inputs: &'a HashMap<InputId, Home>,
    /// Output buffers of a node besides its home.
    outputs: &'a HashMap<NodeId, Vec<Home>>,
    part: &'a Part,
    spans: &'a BTreeSet<AxisId>,
    k: TileKernel,
    scopes: Vec<Scope>,
    /// Scans whose step is being written.
    open: Vec<ScanId>,
    fixed: BTreeSet<AxisId>,
    uses: HashMap<NodeId, usize>,
    /// The loop whose blocks are classified by a mask: masks with this condition test only where needed.
    classes: HashMap<NodeId, DimId>,
    remarks: Vec<String>,
}

/// Writes all kernels of a partition and the host plan around them (launches are added by `legalize`).
pub fn tile(work: &Work, steps: &Steps, sizes: &Sizes, partition: &Partition, extents: &Extents, options: &TileOptions) -> Result<TileProgram, CompileError> {
    let graph = &work.graph;
    let mut plan = host_plan(graph, options)?;
    let mut homes: HashMap<NodeId, Home> = HashMap::new();
    let mut outputs: HashMap<NodeId, Vec<Home>> = HashMap::new();
    let mut inputs: HashMap<InputId, Home> = HashMap::new();
    let storage = |d: DType| match d {
        DType::Real | DType::Complex => options.real,
        DType::Int => options.int,
        DType::Bool => Storage::U8,
    };
    let add = |plan: &mut Plan, name: String, kind, dtype, storage, axes: &[AxisId]| {
        let dims = axes.iter().map(|a| HostExpr::Extent(a.0)).collect();
        plan.buffers.push(BufferPlan { name, kind, dtype, storage, dims });
        Home { buffer: BufId(plan.buffers.len() as u32 - 1), axes: axes.to_vec(), block: false }
    };
    for (i, input) in graph.inputs.iter().enumerate().filter(|i| !i.1.axes.is_empty()) {
        let home = add(&mut plan, input.name.clone(), BufferKind::Input(i as u32), input.dtype, storage(input.dtype), &input.axes);
        inputs.insert(InputId(i as u32), home);
    }
    let used: BTreeSet<NodeId> = super::rewrite::live(graph).into_iter().flat_map(|id| graph.op(id).operands()).collect();
    for (i, output) in graph.outputs.iter().enumerate() {
        let home = add(&mut plan, output.name.clone(), BufferKind::Output(i as u32), output.dtype, storage(output.dtype), &output.axes);
        // Values over blocks and rows are stored by position.
        let value = joined(graph, output.node).unwrap_or(output.node);
        let same = output.axes.iter().copied().collect::<BTreeSet<_>>() == *graph.axes_of(output.node);
        if same && value != output.node {
            homes.entry(output.node).or_insert_with(|| home.clone());
            if homes.contains_key(&value) {
                outputs.entry(value).or_default().push(home);
            } else {
                homes.insert(value, home);
            }
            continue;
        }
        let computed = !matches!(graph.op(output.node), Op::Input(_) | Op::Const(_) | Op::Index(_) | Op::Extent(_));
        // What other nodes read is kept as wide as all values between kernels.
        let rounded = output.dtype == DType::Real && !matches!(options.real, Storage::F32 | Storage::F64);
        if same && computed && !homes.contains_key(&output.node) && !(rounded && used.contains(&output.node)) {
            homes.insert(output.node, home);
        } else {
            outputs.entry(output.node).or_default().push(home);
        }
    }
    let rows = super::order::joint_rows(graph);
    for id in &partition.stored {
        let computed = !matches!(graph.op(*id), Op::Input(_) | Op::Const(_) | Op::Index(_) | Op::Extent(_));
        if computed && !homes.contains_key(id) && joined(graph, *id).is_none_or(|v| !partition.stored.contains(&v)) {
            // Feature axes run fastest; batch-like ones slowest.
            let mut axes: Vec<AxisId> = by_position(graph, *id);
            // Several axes that are ordered as one lie together, in their order.
            let ordered = rows.get(id);
            let place = |a: &AxisId| ordered.and_then(|axes| axes.iter().position(|o| o == a)).map_or(0, |p| p + 1);
            axes.sort_by_key(|a| (place(a), sizes.is_feature(*a), sizes.is_long(*a), *a));
            let name = graph.node(*id).name.clone().unwrap_or_else(|| format!("t{}", id.index()));
            // Values between kernels are not rounded to a narrow storage.
            let kind = match graph.dtype(*id) {
                DType::Real | DType::Complex => Storage::F32,
                d => storage(d),
            };
            let home = add(&mut plan, name, BufferKind::Temp, graph.dtype(*id), kind, &axes);
            homes.insert(*id, home);
        }
    }
    let mut kernels = Vec::new();
    let mut fixed = BTreeSet::new();
    for (i, part) in partition.parts.iter().enumerate() {
        let mut homes = std::borrow::Cow::Borrowed(&homes);
        let mut made = Vec::new();
        for id in super::rewrite::order(graph, &part.rows.iter().copied().collect()).into_iter().filter(|id| part.rows.contains(id)) {
            let Some(over) = super::order::row_axes(graph, id) else { continue };
            let axes: Vec<AxisId> = part.grid.iter().copied().filter(|a| graph.axes_of(id).contains(a)).chain(over.iter().copied()).collect();
            let name = graph.node(id).name.clone().unwrap_or_else(|| format!("t{}", id.index()));
            let kind = if graph.dtype(id) == DType::Real { Storage::F32 } else { storage(graph.dtype(id)) };
            let home = Home { block: true, ..add(&mut plan, name, BufferKind::Block, graph.dtype(id), kind, &axes) };
            made.push((axes, over, home.buffer));
            homes.to_mut().insert(id, home);
        }
        let mut rows = options.rows;
        let kernel = loop {
            let trial = TileOptions { rows, ..options.clone() };
            let writer = Writer {
                graph,
                steps,
                sizes,
                options: &trial,
                extents,
                homes: homes.as_ref(),
                making: None,
                inputs: &inputs,
                outputs: &outputs,
                part,
                spans: &partition.spans,
                k: TileKernel::new(format!("{}_{i}", graph.name)),
                scopes: vec![],
                open: vec![],
                fixed: BTreeSet::new(),
                uses: HashMap::new(),
                classes: HashMap::new(),
                remarks: vec![],
            };
            let (kernel, held, remarks) = writer.write()?;
            // Row blocks shrink until the largest tile is reasonable.
            let elements = |t: &Tile| t.dims.iter().map(|d| kernel.dim(*d).kind.capacity() as usize).fold(1, usize::saturating_mul);
            let largest = kernel.tiles.iter().map(elements).max().unwrap_or(0);
            if largest > options.tile_limit && rows > 1 {
                rows /= 2;
                continue;
            }
            if largest > (1 << 28) {
                return Err(CompileError::Unsupported { what: format!("`{}` needs a tile of {largest} elements", graph.name) });
            }
            fixed.extend(held);
            plan.remarks.extend(remarks);
            break kernel;
        };
        for (axes, over, buffer) in &made {
            // As many positions along each grid axis as a block has.
            let batch = kernel.grid.iter().map(|d| kernel.dim(*d)).filter(|d| axes.contains(&d.axis)).map(|d| HostExpr::Int(i64::from(d.kind.capacity())));
            plan.buffers[buffer.index()].dims = batch.chain(over.iter().map(|a| HostExpr::Extent(a.0))).collect();
        }
        kernels.push(kernel);
    }
    plan.fixed = fixed.into_iter().filter_map(|a| extents.get(a.index()).copied().flatten().map(|e| (a.0, e))).collect();
    plan.remarks.extend(partition.remarks.iter().cloned());
    Ok(TileProgram { plan, kernels })
}

/// Axes of a value in memory: blocks and the rows inside them are positions of the axis that they split.
fn by_position(graph: &Graph, id: NodeId) -> Vec<AxisId> {
    let axes = graph.axes_of(id);
    let whole = |s: &crate::graph::Split| axes.contains(&s.outer);
    let split: Vec<(AxisId, crate::graph::Split)> = axes.iter().filter_map(|a| graph.axis(*a).split.filter(whole).map(|s| (*a, s))).take(1).collect();
    let mut out: Vec<AxisId> = axes.iter().copied().filter(|a| !split.iter().any(|(r, s)| a == r || *a == s.outer)).collect();
    out.extend(split.iter().map(|(_, s)| s.of));
    out
}

fn host_plan(graph: &Graph, options: &TileOptions) -> Result<Plan, CompileError> {
    let need = |id: NodeId, what: &str| host(graph, id).ok_or_else(|| CompileError::Unsupported { what: format!("{what} depends on tensor values") });
    let storage = |d: DType| match d {
        DType::Real | DType::Complex => options.real,
        DType::Int => options.int,
        DType::Bool => Storage::U8,
    };
    let mut plan = Plan {
        name: graph.name.clone(),
        axes: vec![],
        inputs: vec![],
        outputs: vec![],
        requires: vec![],
        buffers: vec![],
        launches: vec![],
        fixed: vec![],
        remarks: vec![],
    };
    for axis in &graph.axes {
        let extent = match axis.extent {
            Extent::Inputs => None,
            Extent::Value(node) => Some(need(node, &format!("the extent of `{}`", axis.name))?),
        };
        plan.axes.push(AxisPlan { name: axis.name.clone(), extent });
    }
    for input in &graph.inputs {
        let default = input.default.map(|d| need(d, &format!("the default of `{}`", input.name))).transpose()?;
        let axes = input.axes.iter().map(|a| a.0).collect();
        plan.inputs.push(InputPlan { name: input.name.clone(), dtype: input.dtype, axes, default, storage: storage(input.dtype) });
    }
    for output in &graph.outputs {
        let axes = output.axes.iter().map(|a| a.0).collect();
        plan.outputs.push(OutputPlan { name: output.name.clone(), dtype: output.dtype, axes, storage: storage(output.dtype) });
    }
    for require in &graph.requires {
        plan.requires.push(RequirePlan { cond: need(require.cond, "a `require`")?, text: require.text.clone() });
    }
    Ok(plan)
}

/// The node as a host expression, when it depends on extents and scalar inputs only.
pub(crate) fn host(graph: &Graph, id: NodeId) -> Option<HostExpr> {
    Some(match graph.op(id) {
        Op::Const(crate::ops::Scalar::Int(v)) => HostExpr::Int(*v),
        Op::Const(crate::ops::Scalar::Real(v)) => HostExpr::Real(*v),
        Op::Const(crate::ops::Scalar::Bool(v)) => HostExpr::Bool(*v),
        Op::Extent(a) => HostExpr::Extent(a.0),
        Op::Input(i) if graph.inputs[i.index()].axes.is_empty() => HostExpr::Scalar(i.0),
        Op::Map { op, args } => HostExpr::Op(*op, args.iter().map(|a| host(graph, *a)).collect::<Option<_>>()?),
        _ => return None,
    })
}

impl Writer<'_> {
    fn write(mut self) -> Result<(TileKernel, BTreeSet<AxisId>, Vec<String>), CompileError> {
        self.count_uses();
        let blocks = self.grid_blocks();
        let mut env = HashMap::new();
        for axis in &self.part.grid {
            let block = blocks.get(axis).copied().unwrap_or(1);
            let dim = self.add_dim(*axis, DimKind::Grid { block });
            self.k.grid.push(dim);
            env.insert(*axis, dim);
        }
        self.scopes.push(Scope { env, stmts: vec![], vals: HashMap::new(), scans: HashSet::new() });
        self.roots()?;
        let scope = self.scopes.pop();
        self.k.body = scope.map(|s| s.stmts).unwrap_or_default();
        Ok((self.k, self.fixed, self.remarks))
    }

    /// Block sizes of the grid axes that get more than one position a block.
    fn grid_blocks(&self) -> BTreeMap<AxisId, u32> {
        let mut blocks = BTreeMap::new();
        let part = self.part;
        if part.rows.is_empty() && part.roots.iter().any(|r| super::order::is_ordered(self.graph, *r)) {
            return blocks;
        }
        if part.scan.is_some() {
            // Independent value columns of a state run side by side.
            if let Some(axis) = part.grid.iter().rev().find(|a| self.sizes.is_feature(**a)) {
                blocks.insert(*axis, self.options.keys);
            }
            return blocks;
        }
        // Axes along which an operand of a product is used again and again.
        let mut reuse: Vec<AxisId> = Vec::new();
        for id in &part.inside {
            let Op::Reduce { body, .. } = self.graph.op(*id) else { continue };
            let factors: Vec<NodeId> = self.factors(*body).into_iter().filter(|f| !self.graph.axes_of(*f).is_empty()).collect();
            for axis in part.grid.iter().filter(|a| !self.spans.contains(a)) {
                let has = factors.iter().filter(|f| self.graph.axes_of(**f).contains(axis)).count();
                if has > 0 && has < factors.len() && !reuse.contains(axis) {
                    reuse.push(*axis);
                }
            }
        }
        reuse.sort_by_key(|a| (!self.sizes.is_long(*a), !self.sizes.is_feature(*a), part.grid.iter().position(|g| g == a)));
        if let Some(axis) = reuse.first() {
            blocks.insert(*axis, self.options.rows);
            if let Some(second) = reuse.iter().skip(1).find(|a| self.sizes.is_feature(**a) || self.are_rows_and_columns(*axis, **a)) {
                blocks.insert(*second, self.options.keys);
            }
        } else if let Some(axis) = part.grid.iter().rev().find(|a| !self.spans.contains(a)).filter(|_| !self.is_vector_product()) {
            blocks.insert(*axis, if part.inside.is_empty() { self.options.flat } else { self.options.rows });
        }
        blocks
    }

    /// Whether some product has an operand with the first axis only and one with the second only.
    fn are_rows_and_columns(&self, rows: AxisId, columns: AxisId) -> bool {
        self.part.inside.iter().any(|id| {
            let Op::Reduce { axes, body, .. } = self.graph.op(*id) else { return false };
            let apart = |x: AxisId, y: AxisId| {
                let only = |f: NodeId| self.graph.axes_of(f).contains(&x) && !self.graph.axes_of(f).contains(&y) && axes.iter().all(|a| self.graph.axes_of(f).contains(a));
                self.factors(*body).into_iter().any(only)
            };
            apart(rows, columns) && apart(columns, rows)
        })
    }

    /// Whether some reduction is a matrix times a vector at each position of the grid: both sides have the reduced axis, and one of
    /// them an axis of the result that the grid lacks. Blocks along the grid would only scatter the matrix.
    fn is_vector_product(&self) -> bool {
        self.part.inside.iter().any(|id| {
            let Op::Reduce { axes, body, .. } = self.graph.op(*id) else { return false };
            let factors = self.factors(*body);
            let inner = self.graph.axes_of(*id).iter().filter(|a| !self.part.grid.contains(a)).copied().collect::<Vec<_>>();
            let has = |f: &NodeId, a: &AxisId| self.graph.axes_of(*f).contains(a);
            let (matrix, vector): (Vec<NodeId>, Vec<NodeId>) = factors.iter().copied().partition(|f| inner.iter().any(|a| has(f, a)));
            axes.iter().all(|a| matrix.iter().any(|f| has(f, a)) && vector.iter().any(|f| has(f, a)))
        })
    }

    /// Factors of a product.
    pub(crate) fn factors(&self, id: NodeId) -> Vec<NodeId> {
        match self.graph.op(id) {
            Op::Map { op: ScalarOp::Mul, args } if self.lookup(id).is_none() => args.iter().flat_map(|a| self.factors(*a)).collect(),
            _ => vec![id],
        }
    }

    fn count_uses(&mut self) {
        let mut seen = HashSet::new();
        let mut stack: Vec<NodeId> = self.part.roots.clone();
        while let Some(id) = stack.pop() {
            if !seen.insert(id) {
                continue;
            }
            if self.homes.contains_key(&id) && !self.is_mine(id) {
                continue;
            }
            for dep in super::rewrite::dependencies(self.graph, id) {
                *self.uses.entry(dep).or_default() += 1;
                stack.push(dep);
            }
        }
    }

    /// Whether this kernel computes the node, though it lives in a buffer.
    pub(crate) fn is_mine(&self, id: NodeId) -> bool {
        if self.part.roots.contains(&id) || self.making == Some(id) {
            return true;
        }
        match (self.part.scan, self.graph.op(id)) {
            (Some(scan), Op::State { scan: s, .. } | Op::Final { scan: s, .. } | Op::History { scan: s, .. }) => self.steps.outermost(*s) == scan,
            _ => false,
        }
    }

    pub(crate) fn add_dim(&mut self, axis: AxisId, kind: DimKind) -> DimId {
        let name = self.graph.axis(axis).name.clone();
        self.k.add_dim(Dim { axis, name, kind, extent: HostExpr::Extent(axis.0) })
    }

    pub(crate) fn bug(&self, what: impl Into<String>) -> CompileError {
        CompileError::Bug { pass: "tile", what: format!("{}: {}", self.k.name, what.into()) }
    }

    /// Computes and stores the roots.
    fn roots(&mut self) -> Result<(), CompileError> {
        self.rows()?;
        // Values of steps are stored by the scan that makes them.
        let (inner, outer): (Vec<NodeId>, Vec<NodeId>) = self.part.roots.clone().into_iter().partition(|r| self.closed_scan(*r).is_some());
        let (ordered, outer): (Vec<NodeId>, Vec<NodeId>) = outer.into_iter().partition(|r| super::order::is_ordered(self.graph, *r));
        for root in ordered {
            self.order(root)?;
        }
        let mut targets: Vec<(NodeId, Vec<AxisId>)> = Vec::new();
        for root in &outer {
            targets.push((*root, self.root_loops(*root)));
        }
        for root in &inner {
            targets.push((*root, vec![]));
        }
        self.needs(&targets)?;
        for root in outer {
            for home in self.root_homes(root) {
                self.store_root(root, &home)?;
            }
        }
        Ok(())
    }

    pub(crate) fn root_homes(&self, root: NodeId) -> Vec<Home> {
        self.homes.get(&root).into_iter().chain(self.outputs.get(&root).into_iter().flatten()).cloned().collect()
    }

    /// Axes of a root that the store loops over, because its value need not be held.
    fn root_loops(&self, root: NodeId) -> Vec<AxisId> {
        if matches!(self.graph.op(root), Op::Reduce { .. } | Op::Final { .. } | Op::State { .. }) {
            return vec![];
        }
        let extra = self.graph.axes_of(root).iter().copied().filter(|a| !self.part.grid.contains(a));
        extra.filter(|a| !self.sizes.is_feature(*a)).collect()
    }

    fn store_root(&mut self, root: NodeId, home: &Home) -> Result<(), CompileError> {
        let mut loops = self.root_loops(root);
        // Axes that only the output has.
        loops.extend(home.axes.iter().filter(|a| !self.graph.axes_of(root).contains(a) && self.env(**a).is_none()));
        let opened = self.open_loops(&loops)?;
        self.needs(&[(root, vec![])])?;
        self.store(root, home)?;
        self.close_loops(opened);
        Ok(())
    }

    /// Stores a value at the current positions.
    pub(crate) fn store(&mut self, node: NodeId, home: &Home) -> Result<(), CompileError> {
        let expr = self.expr(node)?;
        let expr = self.staged(expr)?;
        let mut index = Vec::new();
        let mut dims = Vec::new();
        for axis in &home.axes {
            let dim = self.dim_of(*axis)?;
            index.push(self.at(home, dim));
            if self.k.dim(dim).kind.capacity() != 1 {
                dims.push(dim);
            }
        }
        self.push(Stmt::Store { buffer: home.buffer, index, dims, expr });
        Ok(())
    }

    /// Exponentials of a product's result are taken row by row before they are stored, as in a loop that carries sums.
    fn staged(&mut self, expr: ExprId) -> Result<ExprId, CompileError> {
        let Expr::Op { op, args } = self.k.expr(expr).clone() else { return Ok(expr) };
        let args = args.into_iter().map(|a| self.staged(a)).collect::<Result<Vec<_>, _>>()?;
        let again = self.k.op(op, &args);
        if op != ScalarOp::ExpDiff || !matches!(self.k.expr(args[0]), Expr::Tile(t) if self.k.tile(*t).dims.len() == 2) {
            return Ok(again);
        }
        let Expr::Tile(x) = *self.k.expr(args[0]) else { return Ok(again) };
        if self.tile_dims(args[1]) != self.k.tile(x).dims[..1] {
            return Ok(again);
        }
        let mut args = args;
        if !matches!(self.k.expr(args[1]), Expr::Tile(_)) {
            let shift = self.hold("shift", args[1])?;
            args[1] = self.k.add(Expr::Tile(shift));
        }
        let weight = self.k.op(op, &args);
        let tile = self.hold("e", weight)?;
        Ok(self.k.add(Expr::Tile(tile)))
    }

    /// Opens plain loops over axes (the last one in blocks) whose body has no results.
    pub(crate) fn open_loops(&mut self, axes: &[AxisId]) -> Result<Vec<DimId>, CompileError> {
        let mut dims = Vec::new();
        for (i, axis) in axes.iter().enumerate() {
            let block = if i + 1 == axes.len() { self.options.keys } else { 1 };
            let dim = self.add_dim(*axis, DimKind::Loop { block });
            self.push_scope([(*axis, dim)].into());
            dims.push(dim);
        }
        Ok(dims)
    }

    pub(crate) fn close_loops(&mut self, dims: Vec<DimId>) {
        for dim in dims.into_iter().rev() {
            let body = self.pop_scope();
            let lo = self.k.int(0);
            let extent = self.k.dim(dim).extent.clone();
            let hi = self.k.add(Expr::Host(extent));
            self.push(Stmt::Loop(Box::new(Loop { dim, lo, hi, reverse: false, empty: None, full: None, head: vec![], carries: vec![], body })));
        }
    }

    pub(crate) fn push_scope(&mut self, env: HashMap<AxisId, DimId>) {
        self.scopes.push(Scope { env, stmts: vec![], vals: HashMap::new(), scans: HashSet::new() });
    }

    pub(crate) fn pop_scope(&mut self) -> Vec<Stmt> {
        self.scopes.pop().map(|s| s.stmts).unwrap_or_default()
    }

    pub(crate) fn push(&mut self, stmt: Stmt) {
        let last = self.scopes.len() - 1;
        self.scopes[last].stmts.push(stmt);
    }
}
