//! The tiles IR.
//!
//! A kernel is a grid of independent blocks and one structured body. A *dimension* is an axis restricted to a block: two tiles
//! share a [`DimId`] exactly when they cover the same positions of the same axis, so misaligned operands cannot be written.
//! Tiles are pure values; loops carry them. Element expressions are hash-consed in the kernel's arena ([`ExprId`]).
//! Every dimension has a run-time length (`stop - start`), at most its block: ragged ends are iterated short, never padded.

use crate::graph::AxisId;
use crate::kernel::plan::HostExpr;
use crate::ops::{DType, OrderKind, Scalar, ScalarOp};
use crate::reduce::ReduceOp;
use std::collections::HashMap;

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
    /// A dimension of a kernel.
    DimId,
    /// A tile value.
    TileId,
    /// An element expression.
    ExprId,
    /// Index into the plan's buffers.
    BufId
);

/// How the positions of a dimension come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DimKind {
    /// Block `i` of the grid covers `block*i ..`.
    Grid { block: u32 },
    /// Positions of the current iteration of the loop that defines it.
    Loop { block: u32 },
    /// Positions of block number `Pos(outer)` of another axis: as many as there are, at most `block`. Open while `outer` is.
    Chunk { block: u32, outer: DimId },
    /// All positions; the extent is fixed at compile time.
    Whole { extent: u32 },
    /// All positions, of an extent known at run time; only iterated by `Reduce`, never held by a tile.
    Span,
}

impl DimKind {
    /// Most positions that a tile holds along it.
    pub fn capacity(self) -> u32 {
        match self {
            DimKind::Grid { block } | DimKind::Loop { block } | DimKind::Chunk { block, .. } => block,
            DimKind::Whole { extent } => extent,
            DimKind::Span => u32::MAX,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Dim {
    pub axis: AxisId,
    pub name: String,
    pub kind: DimKind,
    /// Extent of the axis.
    pub extent: HostExpr,
}

/// Type of a tile value: its dimensions in memory order (last one contiguous) and dtype (Real, Int or Bool).
#[derive(Clone, Debug, PartialEq)]
pub struct Tile {
    pub name: String,
    pub dims: Vec<DimId>,
    pub dtype: DType,
}

/// An element expression: its value at one position of each dimension that it mentions.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    Const(Scalar),
    /// A launch argument.
    Host(HostExpr),
    /// Position along a dimension, Int.
    Pos(DimId),
    /// First position of the dimension's block, Int, uniform.
    Start(DimId),
    /// One past the last position of the dimension's block, Int, uniform.
    Stop(DimId),
    Op { op: ScalarOp, args: Vec<ExprId> },
    /// Element of a tile at the current position of its dimensions.
    Tile(TileId),
    /// Element of a tile with some dimensions at computed positions (of the axis, not of the block); zero outside the tile.
    TileAt { tile: TileId, at: Vec<(DimId, ExprId)> },
    /// Element of a buffer; one index per storage axis. Where `guard` is set, an index outside `0..extent` reads zero.
    Load { buffer: BufId, index: Vec<ExprId>, guard: Vec<bool> },
    /// `cond ? value : other`; only `value` in the iterations of loop `class` whose block is known to satisfy `cond` everywhere.
    Masked { cond: ExprId, value: ExprId, other: ExprId, class: Option<DimId> },
}

/// A tile carried around a loop.
#[derive(Clone, Debug, PartialEq)]
pub struct Carry {
    pub param: TileId,
    pub init: TileId,
    pub next: TileId,
    pub result: TileId,
}

/// Loop over blocks of an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Loop {
    pub dim: DimId,
    /// Uniform Int: the first position is `lo` rounded down to the block, blocks start below `hi`.
    pub lo: ExprId,
    pub hi: ExprId,
    pub reverse: bool,
    /// Uniform Bool: nothing in this block passes the masks, the body has no effect.
    pub empty: Option<ExprId>,
    /// Uniform Bool: everything in this block passes; `Masked` of this class take their value.
    pub full: Option<ExprId>,
    /// Statements that compute what `empty` and `full` read; run before them.
    pub head: Vec<Stmt>,
    pub carries: Vec<Carry>,
    pub body: Vec<Stmt>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Stmt {
    /// One element each.
    Map { out: TileId, expr: ExprId },
    /// `out = carried (or identity) combined with the reduction of expr over the dimensions `over`.
    Reduce { out: TileId, op: ReduceOp, over: Vec<DimId>, expr: ExprId, carried: Option<TileId> },
    /// `out = carried (or 0) + sum over `over` of a * b`, Real.
    Dot { out: TileId, a: ExprId, b: ExprId, over: Vec<DimId>, carried: Option<TileId> },
    /// Running reduction along `dim`, one result a position: of the positions up to it (without it when `before`), from the other end
    /// when `reverse`. `op` has a combine.
    Prefix { out: TileId, op: ReduceOp, dim: DimId, expr: ExprId, before: bool, reverse: bool },
    /// `out[i] = rhs[i] + sum over c < i of matrix[i, c] * out[c]` (c > i when `reverse`): `rows` in `matrix` and `rhs`, `cols` in
    /// `matrix` and `out`, are the same positions.
    Solve { out: TileId, rows: DimId, cols: DimId, matrix: ExprId, rhs: ExprId, reverse: bool },
    /// `buffer[index] = expr` for all positions of `dims`; indices are in range.
    Store { buffer: BufId, index: Vec<ExprId>, dims: Vec<DimId>, expr: ExprId },
    Loop(Box<Loop>),
    Order(Box<Order>),
}

/// Orders a row of elements in memory; see [`OrderKind`].
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub kind: OrderKind,
    /// One row for each position of these.
    pub dims: Vec<DimId>,
    /// Elements of the row, and slots or elements to choose; uniform Ints.
    pub n: ExprId,
    pub count: ExprId,
    pub key: Row,
    pub mask: Option<Row>,
    pub out: Row,
}

impl Order {
    /// All expressions that it reads.
    pub fn exprs(&self) -> Vec<ExprId> {
        let rows = [Some(&self.key), self.mask.as_ref(), Some(&self.out)];
        let rows = rows.into_iter().flatten().flat_map(|r| r.index.iter().copied().chain([r.step]));
        [self.n, self.count].into_iter().chain(rows).collect()
    }
}

/// Elements of a buffer that lie `step` elements apart, the first of them at `index` (one index per storage axis).
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub buffer: BufId,
    pub index: Vec<ExprId>,
    pub step: ExprId,
}

/// One kernel.
#[derive(Clone, Debug, Default)]
pub struct TileKernel {
    pub name: String,
    /// Grid dimensions, outermost first.
    pub grid: Vec<DimId>,
    pub dims: Vec<Dim>,
    pub tiles: Vec<Tile>,
    pub exprs: Vec<Expr>,
    pub body: Vec<Stmt>,
    interned: HashMap<String, ExprId>,
}

impl TileKernel {
    pub fn new(name: String) -> TileKernel {
        TileKernel { name, ..TileKernel::default() }
    }

    pub fn dim(&self, id: DimId) -> &Dim {
        &self.dims[id.index()]
    }

    pub fn tile(&self, id: TileId) -> &Tile {
        &self.tiles[id.index()]
    }

    pub fn expr(&self, id: ExprId) -> &Expr {
        &self.exprs[id.index()]
    }

    pub fn add_dim(&mut self, dim: Dim) -> DimId {
        self.dims.push(dim);
        DimId(self.dims.len() as u32 - 1)
    }

    pub fn add_tile(&mut self, name: impl Into<String>, dims: Vec<DimId>, dtype: DType) -> TileId {
        self.tiles.push(Tile { name: name.into(), dims, dtype });
        TileId(self.tiles.len() as u32 - 1)
    }

    /// The expression, shared with an equal one.
    pub fn add(&mut self, expr: Expr) -> ExprId {
        let key = format!("{expr:?}");
        if let Some(id) = self.interned.get(&key) {
            return *id;
        }
        self.exprs.push(expr);
        let id = ExprId(self.exprs.len() as u32 - 1);
        self.interned.insert(key, id);
        id
    }

    pub fn op(&mut self, op: ScalarOp, args: &[ExprId]) -> ExprId {
        if let Some(values) = args.iter().map(|a| if let Expr::Const(c) = self.expr(*a) { Some(*c) } else { None }).collect::<Option<Vec<_>>>() {
            if let Some(value) = op.eval(&values) {
                return self.add(Expr::Const(value));
            }
        }
        // Conditions of blocks are put together from verdicts, many of which are known.
        let truth = |id: ExprId| if let Expr::Const(Scalar::Bool(b)) = self.expr(id) { Some(*b) } else { None };
        if matches!(op, ScalarOp::And | ScalarOp::Or) && args.len() == 2 {
            let neutral = op == ScalarOp::And;
            for (known, other) in [(args[0], args[1]), (args[1], args[0])] {
                match truth(known) {
                    Some(b) if b == neutral => return other,
                    Some(_) => return known,
                    None => {}
                }
            }
        }
        self.add(Expr::Op { op, args: args.to_vec() })
    }

    pub fn int(&mut self, value: i64) -> ExprId {
        self.add(Expr::Const(Scalar::Int(value)))
    }

    /// Dimensions that an expression varies over (not those that are only its bounds), in order of number.
    pub fn dims_of(&self, id: ExprId) -> Vec<DimId> {
        fn walk(k: &TileKernel, id: ExprId, seen: &mut std::collections::HashSet<ExprId>, out: &mut std::collections::BTreeSet<DimId>) {
            if !seen.insert(id) {
                return;
            }
            match k.expr(id) {
                Expr::Const(_) | Expr::Host(_) | Expr::Start(_) | Expr::Stop(_) => {}
                Expr::Pos(d) => {
                    out.insert(*d);
                }
                Expr::Op { args, .. } => args.iter().for_each(|a| walk(k, *a, seen, out)),
                Expr::Tile(t) => out.extend(k.tile(*t).dims.iter().copied()),
                Expr::TileAt { tile, at } => {
                    out.extend(k.tile(*tile).dims.iter().copied().filter(|d| !at.iter().any(|x| x.0 == *d)));
                    at.iter().for_each(|x| walk(k, x.1, seen, out));
                }
                Expr::Load { index, .. } => index.iter().for_each(|a| walk(k, *a, seen, out)),
                Expr::Masked { cond, value, other, .. } => [cond, value, other].iter().for_each(|a| walk(k, **a, seen, out)),
            }
        }
        let (mut seen, mut out) = (Default::default(), Default::default());
        walk(self, id, &mut seen, &mut out);
        out.into_iter().collect()
    }
}

/// The kernels of a program in order of launch, with the shared host data (its `launches` are filled by `legalize`).
#[derive(Clone, Debug)]
pub struct TileProgram {
    pub plan: crate::kernel::plan::Plan,
    pub kernels: Vec<TileKernel>,
}
