//! Kernels made of warp groups that run side by side: one group copies, the others compute.
//!
//! Beside its scalar text such a kernel has *rings* (slots of block memory that the copying role fills by tensor copies and the math role
//! reads as views) and *fragments* (values spread over the registers of a group of 128 lanes). There are no barrier addresses, phases or
//! fences in the text: a ring has a cursor in each role, the backend derives the rest.
//!
//! Rules, checked by `verify`: a role's text is uniform over its lanes outside of regions; a view is taken before a product reads it and
//! dropped after the wait that covers that product; results of a product are read after such a wait only; both roles meet the same
//! sequence of slots (the lowering makes one from the other).

use super::ir::{BufferId, Stmt, Storage, Value};
use crate::ops::ScalarOp;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);
    )* };
}

ids!(
    /// Index into `Warps::fragments`.
    FragId,
    /// Index into `Warps::rings`.
    RingId,
    /// Index into `Warps::maps`.
    MapId
);

/// Rows that the fragments of one math group cover.
pub const GROUP_ROWS: u32 = 64;

/// Which lane and register hold which element of a fragment. In all of them warp `w` of a group holds rows `16 w ..`, and lane `l` of the
/// warp rows `l / 4` and `l / 4 + 8` of those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// 64 x cols Reals as matrix units leave their results: register `4 j + 2 h + i` is column `8 j + 2 (l % 4) + i` of the row `h`.
    Acc { cols: u32 },
    /// One Real a row, the same in the four lanes that share the row.
    Row,
    /// 64 x cols numbers of 16 bits, pairs of columns in one register: operands of products. Register `2 j + h` is the pair of `Acc`.
    Pairs { cols: u32, storage: Storage },
}

impl Layout {
    /// 32-bit registers in each lane.
    pub fn registers(self) -> u32 {
        match self {
            Layout::Acc { cols } => cols / 2,
            Layout::Row => 2,
            Layout::Pairs { cols, .. } => cols / 4,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Fragment {
    pub name: String,
    pub layout: Layout,
}

/// `slots` tiles of `rows` x `cols` numbers of 16 bits in block memory, kept as panels of 64 columns (128 bytes) with a swizzle of 128 bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Ring {
    pub name: String,
    pub slots: u32,
    pub rows: u32,
    pub cols: u32,
    pub storage: Storage,
}

impl Ring {
    pub fn panels(&self) -> u32 {
        self.cols.div_ceil(64)
    }

    pub fn slot_bytes(&self) -> u32 {
        self.panels() * self.rows * 128
    }
}

/// Boxes that a tensor copy reads from a buffer: extents along its axes, outermost first; the innermost is 64 (one panel). Elements outside
/// of the buffer arrive as zeros.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorMap {
    pub buffer: BufferId,
    pub block: Vec<u32>,
    /// Extents of the buffer, outermost first, as numbers of Int arguments.
    pub shape: Vec<u32>,
}

/// What a kernel with roles has besides its text. Its block has `128 * (1 + math)` lanes.
#[derive(Clone, Debug, PartialEq)]
pub struct Warps {
    /// Math groups.
    pub math: u32,
    /// Registers of a lane of the copying and of the math groups.
    pub registers: (u32, u32),
    pub fragments: Vec<Fragment>,
    pub rings: Vec<Ring>,
    pub maps: Vec<TensorMap>,
    /// As many blocks as run at a time share the work, instead of one block each.
    pub persistent: bool,
    /// Math groups take turns (`WarpOp::Turn`).
    pub turns: bool,
}

impl Warps {
    /// Bytes of block memory: slots, barriers, and room to align the first slot.
    pub fn shared_bytes(&self) -> usize {
        let slots: u32 = self.rings.iter().map(|r| r.slots * (r.slot_bytes() + 16)).sum();
        slots as usize + 1024
    }

    pub fn fragment(&self, id: FragId) -> Option<&Fragment> {
        self.fragments.get(id.0 as usize)
    }
}

/// Text that runs for every element of a fragment; only lets.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Row in the tile of the block (all math groups) and column, Int.
    pub row: Value,
    pub col: Value,
    /// The element of other fragments: the same one, or that of the row.
    pub reads: Vec<(Value, FragId)>,
    pub body: Vec<Stmt>,
    pub results: Vec<Value>,
}

/// The first operand of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A group's 64 rows of the current view, columns reduced.
    View(RingId),
    Frag(FragId),
}

#[derive(Clone, Debug, PartialEq)]
pub enum WarpOp {
    /// Two programs side by side: `copy` on one lane, `math` on every math group.
    Roles { copy: Vec<Stmt>, math: Vec<Stmt> },
    /// `body` for each number below `count` that falls to this block, in the same order in all roles.
    Work { var: Value, count: Value, body: Vec<Stmt> },
    /// Fills the next slot of a ring, once it is empty, with the boxes at `at` (one index an axis of the buffer; the innermost is 0).
    Copy { ring: RingId, map: MapId, at: Vec<Value> },
    /// Waits until the next slot is full; it is the ring's view from now on.
    Take(RingId),
    /// Gives the view back.
    Drop(RingId),
    /// `acc = (fresh ? 0 : acc) + a * b`, started, not finished; every product is a group of its own. `b` is the current view: rows are columns of `acc` (the reduced axis runs along
    /// them), or with `turned` rows are reduced. `k` positions are reduced.
    Mma { acc: FragId, fresh: bool, a: Operand, b: RingId, turned: bool, k: u32 },
    /// Waits until no more than the `younger` newest products run; `results` are fragments of finished products.
    Wait { younger: u32, results: Vec<FragId> },
    /// Groups start their products one after another, so that one multiplies while the others do vector work: waits for this group's turn, or
    /// (`pass`) hands it to the next group. All groups meet equally many turns.
    Turn { pass: bool },
    /// `out` element by element; one result.
    Each { out: FragId, region: Region },
    /// `to = from`, equal layouts.
    Move { to: FragId, from: FragId },
    /// `out = carried combined with all columns of from`.
    Fold { out: FragId, op: ScalarOp, from: FragId, carried: Option<FragId> },
    /// Rounds to 16 bits.
    Pack { out: FragId, from: FragId },
    /// `buffer[index] = value` where `cond`, for every element of a layout (a row once); results: cond, index, value. `pairs`: an odd column
    /// lies behind its even neighbour and has its `cond`.
    Put { buffer: BufferId, layout: Layout, region: Region, pairs: bool },
}

impl WarpOp {
    pub fn name(&self) -> &'static str {
        match self {
            WarpOp::Roles { .. } => "roles",
            WarpOp::Work { .. } => "work",
            WarpOp::Copy { .. } => "copy",
            WarpOp::Take(_) => "take",
            WarpOp::Drop(_) => "drop",
            WarpOp::Mma { .. } => "mma",
            WarpOp::Wait { .. } => "wait",
            WarpOp::Turn { .. } => "turn",
            WarpOp::Each { .. } => "each",
            WarpOp::Move { .. } => "move",
            WarpOp::Fold { .. } => "fold",
            WarpOp::Pack { .. } => "pack",
            WarpOp::Put { .. } => "put",
        }
    }

    pub fn region(&self) -> Option<&Region> {
        match self {
            WarpOp::Each { region, .. } | WarpOp::Put { region, .. } => Some(region),
            _ => None,
        }
    }

    /// Values read outside of the bodies.
    pub fn operands(&self) -> Vec<Value> {
        match self {
            WarpOp::Work { count, .. } => vec![*count],
            WarpOp::Copy { at, .. } => at.clone(),
            _ => vec![],
        }
    }

    /// Values that bodies begin with.
    pub fn params(&self) -> Vec<Value> {
        match self {
            WarpOp::Work { var, .. } => vec![*var],
            WarpOp::Each { region, .. } | WarpOp::Put { region, .. } => {
                [region.row, region.col].into_iter().chain(region.reads.iter().map(|r| r.0)).collect()
            }
            _ => vec![],
        }
    }

    /// Nested texts.
    pub fn bodies(&self) -> Vec<&[Stmt]> {
        match self {
            WarpOp::Roles { copy, math } => vec![copy, math],
            WarpOp::Work { body, .. } => vec![body],
            WarpOp::Each { region, .. } | WarpOp::Put { region, .. } => vec![&region.body],
            _ => vec![],
        }
    }

    /// Values that regions give.
    pub fn results(&self) -> &[Value] {
        self.region().map_or(&[], |r| &r.results)
    }

    /// The same op over other values: `get` renames, `body` rewrites nested texts (after the names of their params).
    pub fn rebuild<T>(self, with: &mut T, get: fn(&mut T, Value) -> Value, body: fn(&mut T, Vec<Stmt>) -> Vec<Stmt>) -> WarpOp {
        let region = |r: Region, with: &mut T| Region {
            row: get(with, r.row),
            col: get(with, r.col),
            reads: r.reads.into_iter().map(|(v, f)| (get(with, v), f)).collect(),
            body: body(with, r.body),
            results: r.results.into_iter().map(|v| get(with, v)).collect(),
        };
        match self {
            WarpOp::Roles { copy, math } => WarpOp::Roles { copy: body(with, copy), math: body(with, math) },
            WarpOp::Work { var, count, body: inner } => {
                let count = get(with, count);
                let var = get(with, var);
                WarpOp::Work { var, count, body: body(with, inner) }
            }
            WarpOp::Copy { ring, map, at } => WarpOp::Copy { ring, map, at: at.into_iter().map(|v| get(with, v)).collect() },
            WarpOp::Each { out, region: r } => WarpOp::Each { out, region: region(r, with) },
            WarpOp::Put { buffer, layout, region: r, pairs } => WarpOp::Put { buffer, layout, region: region(r, with), pairs },
            other => other,
        }
    }
}
