//! Tiles to kernel IR: every tile operation becomes loops over elements, spread over the lanes of a block, or a tile call where the
//! target has one. Chooses memory (`place`); does not change which loops and tiles there are.

mod calls;
mod exprs;
mod functions;
mod fuse;
mod order;
mod place;
mod chunk;
mod stmts;
mod warps;

use super::error::CompileError;
use crate::kernel::builder::KernelBuilder;
use crate::kernel::caps::Caps;
use crate::kernel::plan::*;
use crate::kernel::{BufferId, Kernel, LocalId, Storage, Value};
use crate::ops::{DType, ScalarOp};
use crate::tiles::*;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Position of the block along a dimension, as values: first position and one past the last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    start: Value,
    stop: Value,
}

/// What element code may use: positions of dimensions, and expressions evaluated so far.
#[derive(Clone, Default)]
pub(crate) struct Element {
    /// Offset from the block's start, by dimension.
    offset: HashMap<DimId, Value>,
    memo: HashMap<ExprId, Value>,
}

pub(crate) struct Lower<'a> {
    k: &'a TileKernel,
    plan: &'a Plan,
    caps: &'a Caps,
    b: KernelBuilder,
    ints: Vec<HostExpr>,
    reals: Vec<HostExpr>,
    args: HashMap<String, Value>,
    buffers: BTreeMap<BufId, BufferId>,
    dims: HashMap<DimId, Bounds>,
    /// Storage class of each tile, and the local array of each class.
    class_of: Vec<usize>,
    locals: Vec<Option<LocalId>>,
    /// Loops whose current block passes its masks everywhere.
    full: HashSet<DimId>,
    scratch: HashMap<(DType, usize), LocalId>,
    dims_cache: HashMap<ExprId, Vec<DimId>>,
    /// Tiles that elementwise statements have made, without those that a loop hands to its next iteration.
    made: HashSet<TileId>,
    handed_on: HashSet<TileId>,
    /// Tiles that only products read, as whole operands.
    operands: HashSet<TileId>,
    /// Tiles that are read where they lie in memory, and never made.
    aliases: HashMap<TileId, ExprId>,
    /// Tiles whose rows are summed somewhere, and the sums that came with a row function.
    summed: HashSet<TileId>,
    sums: HashMap<TileId, LocalId>,
    /// All results are stored in 16 bits and no indices are computed: operands of products may be rounded to them.
    coarse: bool,
}

pub(crate) use warps::lower_warps;

/// Lowers all kernels and fills the launches of the plan.
pub fn legalize(program: TileProgram, caps: &Caps) -> Result<Program, CompileError> {
    let TileProgram { mut plan, kernels } = program;
    let mut out = Vec::new();
    let mut launches = Vec::new();
    for k in &kernels {
        let fused = caps.tile_calls.then(|| fuse::fuse(k));
        let k = fused.as_ref().unwrap_or(k);
        let (kernel, launch) = lower(k, &plan, caps, out.len() as u32)?;
        out.push(kernel);
        launches.push(launch);
    }
    plan.launches = launches;
    Ok(Program { plan, kernels: out })
}

pub(crate) fn lower(k: &TileKernel, plan: &Plan, caps: &Caps, number: u32) -> Result<(Kernel, Launch), CompileError> {
    let mut l = Lower::new(k, plan, caps, caps.lanes);
    l.declare_buffers();
    l.place();
    let blocks = l.grid();
    l.stmts(&k.body)?;
    let buffers = l.buffers.keys().map(|b| b.0).collect();
    let (ints, reals) = (std::mem::take(&mut l.ints), std::mem::take(&mut l.reals));
    let kernel = l.b.finish();
    let faults = crate::kernel::verify::verify(&kernel);
    if !faults.is_empty() {
        return Err(CompileError::Bug { pass: "legalize", what: format!("{}: {:?}", kernel.name, faults) });
    }
    Ok((kernel, Launch { kernel: number, blocks, buffers, ints, reals }))
}

impl<'a> Lower<'a> {
    fn new(k: &'a TileKernel, plan: &'a Plan, caps: &'a Caps, lanes: u32) -> Lower<'a> {
        Lower {
            k,
            plan,
            caps,
            b: KernelBuilder::new(k.name.clone(), lanes),
            ints: vec![],
            reals: vec![],
            args: HashMap::new(),
            buffers: BTreeMap::new(),
            dims: HashMap::new(),
            class_of: vec![],
            locals: vec![],
            full: HashSet::new(),
            scratch: HashMap::new(),
            dims_cache: HashMap::new(),
            made: HashSet::new(),
            handed_on: HashSet::new(),
            operands: fuse::operands(k),
            aliases: HashMap::new(),
            summed: fuse::summed(k),
            sums: HashMap::new(),
            coarse: false,
        }
    }
}

impl Lower<'_> {
    /// Buffers in order of number, so that the launch lists them in the same order.
    fn declare_buffers(&mut self) {
        fn stores(stmts: &[Stmt], out: &mut HashSet<BufId>, read: &mut Vec<BufId>) {
            for s in stmts {
                match s {
                    Stmt::Store { buffer, .. } => {
                        out.insert(*buffer);
                    }
                    Stmt::Loop(l) => {
                        stores(&l.head, out, read);
                        stores(&l.body, out, read);
                    }
                    Stmt::Order(o) => {
                        out.insert(o.out.buffer);
                        read.extend([Some(&o.key), o.mask.as_ref()].into_iter().flatten().map(|r| r.buffer));
                    }
                    Stmt::Map { .. } | Stmt::Reduce { .. } | Stmt::Dot { .. } | Stmt::Prefix { .. } | Stmt::Solve { .. } => {}
                }
            }
        }
        let (mut written, mut ordered) = (HashSet::new(), Vec::new());
        stores(&self.k.body, &mut written, &mut ordered);
        self.coarse = self.plan.buffers.iter().all(|b| match b.kind {
            BufferKind::Input(_) => true,
            BufferKind::Output(_) => matches!(b.storage, Storage::Bf16 | Storage::F16),
            BufferKind::Temp | BufferKind::Block => matches!(b.dtype, DType::Real | DType::Complex),
        });
        let mut used: Vec<BufId> = self.k.exprs.iter().filter_map(|e| if let Expr::Load { buffer, .. } = e { Some(*buffer) } else { None }).collect();
        used.extend(&written);
        used.extend(ordered);
        used.sort();
        used.dedup();
        for id in used {
            let plan = &self.plan.buffers[id.index()];
            let new = self.b.buffer(plan.name.clone(), plan.dtype, plan.storage, written.contains(&id));
            self.buffers.insert(id, new);
        }
    }

    /// Decodes the block index into positions of the grid dimensions; gives the number of blocks.
    fn grid(&mut self) -> HostExpr {
        let mut total = HostExpr::Int(1);
        let mut rest = self.b.block();
        for id in self.k.grid.iter().rev() {
            let dim = self.k.dim(*id);
            let block = i64::from(dim.kind.capacity());
            let count = HostExpr::Op(ScalarOp::CeilDiv, vec![dim.extent.clone(), HostExpr::Int(block)]);
            let (count_value, extent) = (self.host(&count), self.host(&dim.extent.clone()));
            let index = self.b.modulo(rest, count_value);
            rest = self.b.idiv(rest, count_value);
            let block = self.b.int(block);
            let start = self.b.mul(index, block);
            let end = self.b.add(start, block);
            let stop = self.b.min(end, extent);
            self.dims.insert(*id, Bounds { start, stop });
            total = HostExpr::Op(ScalarOp::Mul, vec![total, count]);
        }
        for (i, dim) in self.k.dims.iter().enumerate() {
            let stop = match dim.kind {
                DimKind::Whole { extent } => self.b.int(i64::from(extent)),
                DimKind::Span => self.host(&dim.extent.clone()),
                DimKind::Grid { .. } | DimKind::Loop { .. } | DimKind::Chunk { .. } => continue,
            };
            let start = self.b.int(0);
            self.dims.insert(DimId(i as u32), Bounds { start, stop });
        }
        for id in self.k.grid.clone() {
            self.open_chunks(id);
        }
        total
    }

    /// Opens the dimensions that lie inside the block which a dimension of single positions is at.
    fn open_chunks(&mut self, outer: DimId) {
        for (i, dim) in self.k.dims.iter().enumerate() {
            let DimKind::Chunk { block, outer: o } = dim.kind else { continue };
            let (true, Some(bounds)) = (o == outer, self.dims.get(&outer).copied()) else { continue };
            let extent = self.host(&dim.extent.clone());
            let block = self.b.int(i64::from(block));
            let start = self.b.mul(bounds.start, block);
            let end = self.b.add(start, block);
            let stop = self.b.min(end, extent);
            self.dims.insert(DimId(i as u32), Bounds { start, stop });
        }
    }

    /// A launch argument.
    fn host(&mut self, expr: &HostExpr) -> Value {
        match expr {
            HostExpr::Int(v) => return self.b.int(*v),
            HostExpr::Real(v) => return self.b.real(*v),
            HostExpr::Bool(v) => return self.b.boolean(*v),
            HostExpr::Extent(_) | HostExpr::Scalar(_) | HostExpr::Op(..) => {}
        }
        let key = format!("{expr:?}");
        let boolean = self.host_type(expr) == DType::Bool;
        if let Some(value) = self.args.get(&key).copied() {
            // Arguments are visible everywhere; what is made of them only here.
            return if boolean { self.is_set(value) } else { value };
        }
        let value = match self.host_type(expr) {
            DType::Real | DType::Complex => {
                self.reals.push(expr.clone());
                self.b.real_arg(format!("r{}", self.reals.len() - 1))
            }
            DType::Int => {
                self.ints.push(expr.clone());
                self.b.int_arg(format!("i{}", self.ints.len() - 1))
            }
            DType::Bool => {
                self.ints.push(HostExpr::Op(ScalarOp::ToInt, vec![expr.clone()]));
                self.b.int_arg(format!("i{}", self.ints.len() - 1))
            }
        };
        self.args.insert(key, value);
        if boolean { self.is_set(value) } else { value }
    }

    fn is_set(&mut self, arg: Value) -> Value {
        let zero = self.b.int(0);
        self.b.op(ScalarOp::Ne, &[arg, zero])
    }

    fn host_type(&self, expr: &HostExpr) -> DType {
        match expr {
            HostExpr::Int(_) | HostExpr::Extent(_) => DType::Int,
            HostExpr::Real(_) => DType::Real,
            HostExpr::Bool(_) => DType::Bool,
            HostExpr::Scalar(i) => self.plan.inputs.get(*i as usize).map_or(DType::Int, |i| i.dtype),
            HostExpr::Op(op, args) => {
                let types: Vec<DType> = args.iter().map(|a| self.host_type(a)).collect();
                op.result(&types).unwrap_or(DType::Int)
            }
        }
    }

    fn bug(&self, what: impl Into<String>) -> CompileError {
        CompileError::Bug { pass: "legalize", what: format!("{}: {}", self.k.name, what.into()) }
    }

    /// Number of positions of the block along a dimension.
    fn len(&mut self, dim: DimId) -> Result<Value, CompileError> {
        let bounds = self.bounds(dim)?;
        if self.k.dim(dim).kind.capacity() == 1 && !matches!(self.k.dim(dim).kind, DimKind::Whole { .. }) {
            return Ok(self.b.int(1));
        }
        Ok(self.b.sub(bounds.stop, bounds.start))
    }

    fn bounds(&self, dim: DimId) -> Result<Bounds, CompileError> {
        self.dims.get(&dim).copied().ok_or_else(|| self.bug(format!("dimension {dim:?} ({}) outside its loop", self.k.dim(dim).name)))
    }

    /// The local array of a tile.
    fn local(&mut self, tile: TileId) -> LocalId {
        let class = self.class_of[tile.index()];
        if let Some(local) = self.locals[class] {
            return local;
        }
        // Every class got its array in `place`; a tile that is never defined gets one here.
        let len = self.tile_len(tile);
        let local = self.b.local(self.k.tile(tile).name.clone(), self.k.tile(tile).dtype, len);
        self.locals[class] = Some(local);
        local
    }

    fn tile_len(&self, tile: TileId) -> usize {
        self.k.tile(tile).dims.iter().map(|d| self.k.dim(*d).kind.capacity() as usize).fold(1, usize::saturating_mul).max(1)
    }

    /// Strides of a tile's dimensions, in elements: capacities of the later ones.
    fn strides(&self, dims: &[DimId]) -> Vec<i64> {
        let mut stride = 1i64;
        let mut out = vec![0; dims.len()];
        for (i, d) in dims.iter().enumerate().rev() {
            out[i] = stride;
            stride = stride.saturating_mul(i64::from(self.k.dim(*d).kind.capacity()));
        }
        out
    }

    pub(crate) fn dims_of(&mut self, id: ExprId) -> Vec<DimId> {
        if let Some(dims) = self.dims_cache.get(&id) {
            return dims.clone();
        }
        let dims = self.k.dims_of(id);
        self.dims_cache.insert(id, dims.clone());
        dims
    }
}
