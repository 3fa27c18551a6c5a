//! What each tile and each operand of a kernel is: a fragment, a view of a ring, or an expression that is evaluated where it is read.
//!
//! The kernel fits when one dimension of the grid is a block of rows that every product has in its first operand and its result, and no
//! product reduces: math groups split it and never meet. Second operands are loads of 16-bit buffers that tensor copies can fetch;
//! factors that do not vary along the reduced dimension leave a product and scale its result.

use super::nodes::{Node, Work};
use super::pipeline::{Schedule, schedule};
use crate::kernel::Storage;
use crate::kernel::caps::MatrixUnits;
use crate::kernel::plan::Plan;
use crate::kernel::warp::*;
use crate::ops::{DType, Scalar, ScalarOp};
use crate::tiles::*;
use std::collections::{HashMap, HashSet};

/// Registers of a lane beside fragments: addresses, cursors, rows of an expression.
const RESERVED: u32 = 28;
/// What `RESERVED` leaves for the values of element code (`Form::pressure`).
const LIGHT: u32 = 8;

/// A load that a tensor copy makes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Source {
    pub buffer: BufId,
    pub index: Vec<ExprId>,
    /// The dimension whose positions are rows of the ring, and its place among the axes.
    pub rows: DimId,
    pub axis: usize,
}

pub(super) struct LoopForm {
    pub dim: DimId,
    pub l: Loop,
    pub nodes: Vec<Node>,
    pub schedule: Schedule,
    /// Rings whose one view serves the whole loop.
    pub once: Vec<RingId>,
    pub check_empty: bool,
    /// Registers that fragments may take.
    pub room: u32,
    /// Math groups start their products in turns.
    pub turns: bool,
    /// Fragments (carried, start) and (after, carried).
    pub inits: Vec<(FragId, FragId)>,
    pub results: Vec<(FragId, FragId)>,
}

pub(super) enum Part {
    Straight(Node),
    Loop(Box<LoopForm>),
}

/// Which rows of the grid have the most work.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Heavy {
    Even,
    First,
    Last,
}

pub(super) struct Form<'a> {
    k: &'a TileKernel,
    plan: &'a Plan,
    pub math: u32,
    pub row: DimId,
    pub fragments: Vec<Fragment>,
    pub frag_of: HashMap<TileId, FragId>,
    /// Tiles that are evaluated where they are read.
    pub defs: HashMap<TileId, ExprId>,
    pub rings: Vec<Ring>,
    pub sources: Vec<Source>,
    pub parts: Vec<Part>,
    pub heavy: Heavy,
    used: HashSet<TileId>,
    /// Tiles whose fragment is still to be multiplied by uniform factors.
    pub unscaled: HashMap<TileId, Vec<ExprId>>,
}

type Fits<T> = Result<T, String>;

impl<'a> Form<'a> {
    pub fn new(k: &'a TileKernel, plan: &'a Plan, units: &MatrixUnits, math: u32) -> Fits<Form<'a>> {
        let wide: Vec<DimId> = k.grid.iter().copied().filter(|d| k.dim(*d).kind.capacity() > 1).collect();
        let [row] = wide[..] else { return Err("the grid has not one dimension in blocks".into()) };
        if k.dim(row).kind.capacity() != math * GROUP_ROWS {
            return Err("blocks of rows do not fill the math groups".into());
        }
        let mut f = Form {
            k,
            plan,
            math,
            row,
            fragments: vec![],
            frag_of: HashMap::new(),
            defs: HashMap::new(),
            rings: vec![],
            sources: vec![],
            parts: vec![],
            heavy: Heavy::Even,
            used: HashSet::new(),
            unscaled: HashMap::new(),
        };
        f.definitions(&k.body);
        let loops = k.body.iter().filter(|s| matches!(s, Stmt::Loop(_))).count();
        if loops == 0 || !has_product(&k.body) {
            return Err("no loop holds a product".into());
        }
        f.find_used()?;
        for s in &k.body {
            if let Stmt::Loop(l) = s {
                let form = f.one_loop(l, units)?;
                f.parts.push(Part::Loop(Box::new(form)));
            } else {
                let mut nodes = vec![];
                f.stmt(s, None, &mut nodes, &mut vec![])?;
                if nodes.iter().any(Node::is_product) {
                    return Err("a product stands outside of loops".into());
                }
                f.parts.extend(nodes.into_iter().map(Part::Straight));
            }
        }
        for (i, part) in f.parts.iter().enumerate() {
            let Part::Loop(l) = part else { continue };
            let need = l.schedule.live + f.passing(i, l);
            if need > l.room {
                return Err(format!("{need} registers of fragments with those that wait for the loop's end"));
            }
        }
        let warps = f.warps(units, vec![], false);
        if warps.shared_bytes() > units.shared_bytes {
            return Err(format!("{} bytes of block memory", warps.shared_bytes()));
        }
        Ok(f)
    }

    pub fn warps(&self, units: &MatrixUnits, maps: Vec<TensorMap>, persistent: bool) -> Warps {
        let registers = units.registers(self.math);
        Warps { math: self.math, registers, fragments: self.fragments.clone(), rings: self.rings.clone(), maps, persistent, turns: self.has_turns() }
    }

    /// Registers of fragments that are made before a loop and read after it only.
    fn passing(&self, at: usize, l: &LoopForm) -> u32 {
        let touches = |p: &Part, out: &mut HashSet<FragId>, reads: bool| match p {
            Part::Straight(n) => out.extend(if reads { &n.reads } else { &n.writes }),
            Part::Loop(l) => {
                out.extend(l.nodes.iter().flat_map(|n| if reads { &n.reads } else { &n.writes }));
                out.extend(if reads { l.inits.iter().map(|i| i.1).collect::<Vec<_>>() } else { l.results.iter().map(|r| r.0).collect() });
            }
        };
        let (mut before, mut after) = (HashSet::new(), HashSet::new());
        self.parts[..at].iter().for_each(|p| touches(p, &mut before, false));
        self.parts[at + 1..].iter().for_each(|p| touches(p, &mut after, true));
        let inside: HashSet<FragId> = l.nodes.iter().flat_map(|n| n.reads.iter().chain(&n.writes)).copied().collect();
        before.intersection(&after).filter(|f| !inside.contains(f)).map(|f| self.fragments[f.0 as usize].layout.registers()).sum()
    }

    /// Registers that element code keeps beside fragments: values of the host, addresses of loads, row values, parts of divisions.
    fn pressure(&self, nodes: &[Node]) -> u32 {
        let mut seen = HashSet::new();
        let mut stack: Vec<ExprId> = vec![];
        for n in nodes {
            match &n.work {
                Work::Each { expr, .. } => stack.push(*expr),
                Work::Scale { factors, .. } => stack.extend(factors),
                Work::Fill { cond, .. } => stack.extend(cond),
                Work::Store { index, expr, .. } => stack.extend(index.iter().chain([expr])),
                _ => {}
            }
        }
        let mut sum = 0;
        while let Some(e) = stack.pop() {
            if !seen.insert(e) {
                continue;
            }
            let by_row = self.k.dims_of(e).iter().all(|d| *d == self.row || self.k.dim(*d).kind.capacity() == 1);
            sum += match self.k.expr(e) {
                Expr::Host(_) | Expr::Start(_) | Expr::Stop(_) => 1,
                Expr::Load { index, .. } => {
                    stack.extend(index);
                    4
                }
                Expr::Op { op, args } => {
                    stack.extend(args);
                    let constant = args.get(1).is_some_and(|a| matches!(self.k.expr(*a), Expr::Const(_)));
                    match op {
                        ScalarOp::IntDiv | ScalarOp::Mod | ScalarOp::CeilDiv => if constant { 4 } else { 12 },
                        ScalarOp::Pow | ScalarOp::Erf | ScalarOp::Softplus | ScalarOp::Log1p | ScalarOp::Sin | ScalarOp::Cos => 12,
                        _ => u32::from(by_row),
                    }
                }
                Expr::Masked { cond, value, other, .. } => {
                    stack.extend([cond, value, other]);
                    0
                }
                Expr::Tile(t) => {
                    stack.extend(self.defs.get(t));
                    0
                }
                Expr::TileAt { .. } | Expr::Const(_) | Expr::Pos(_) => 0,
            };
        }
        sum
    }

    /// Whether math groups take turns in some loop.
    fn has_turns(&self) -> bool {
        self.parts.iter().any(|p| matches!(p, Part::Loop(l) if l.turns))
    }

    fn definitions(&mut self, stmts: &[Stmt]) {
        for s in stmts {
            match s {
                Stmt::Map { out, expr } => {
                    self.defs.insert(*out, *expr);
                }
                Stmt::Loop(l) => {
                    self.definitions(&l.head);
                    self.definitions(&l.body);
                }
                Stmt::Reduce { .. } | Stmt::Dot { .. } | Stmt::Store { .. } | Stmt::Order(_) | Stmt::Prefix { .. } | Stmt::Solve { .. } => {}
            }
        }
    }

    /// Tiles that an expression reads.
    fn tiles(&self, e: ExprId, out: &mut Vec<TileId>) -> Fits<()> {
        match self.k.expr(e) {
            Expr::Const(_) | Expr::Host(_) | Expr::Pos(_) | Expr::Start(_) | Expr::Stop(_) => {}
            Expr::Op { args, .. } => args.iter().try_for_each(|a| self.tiles(*a, out))?,
            Expr::Tile(t) => out.push(*t),
            Expr::TileAt { .. } => return Err("a tile is read at computed positions".into()),
            Expr::Load { index, .. } => index.iter().try_for_each(|a| self.tiles(*a, out))?,
            Expr::Masked { cond, value, other, .. } => [cond, value, other].into_iter().try_for_each(|a| self.tiles(*a, out))?,
        }
        Ok(())
    }

    /// Tiles with rows that must be fragments; the others are operands of products that rings hold, or are evaluated where they are read.
    fn find_used(&mut self) -> Fits<()> {
        let mut roots = vec![];
        self.roots(&self.k.body, &mut roots)?;
        while let Some(t) = roots.pop() {
            if !self.used.insert(t) {
                continue;
            }
            if let Some(def) = self.defs.get(&t).copied() {
                self.tiles(def, &mut roots)?;
            }
        }
        let kept: Vec<TileId> = self.used.iter().copied().filter(|t| self.k.tile(*t).dims.contains(&self.row) && self.k.tile(*t).dtype == DType::Real).collect();
        kept.iter().for_each(|t| {
            self.defs.remove(t);
        });
        // Definitions are needed again to write the fragments.
        Ok(())
    }

    fn roots(&self, stmts: &[Stmt], out: &mut Vec<TileId>) -> Fits<()> {
        for s in stmts {
            match s {
                Stmt::Map { .. } => {}
                Stmt::Order(_) => return Err("rows are ordered".into()),
                Stmt::Prefix { .. } | Stmt::Solve { .. } => return Err("rows wait for one another".into()),
                Stmt::Reduce { expr, carried, .. } => {
                    self.tiles(*expr, out)?;
                    out.extend(carried);
                }
                Stmt::Store { index, expr, .. } => {
                    index.iter().chain([expr]).try_for_each(|e| self.tiles(*e, out))?;
                }
                Stmt::Dot { a, b, over, carried, .. } => {
                    out.extend(carried);
                    let (a, b, _) = self.sides(*a, *b)?;
                    let (main, mut factors) = self.strip(a, over[0])?;
                    let second = self.second(b, over[0]);
                    factors.extend(second.1);
                    factors.extend(second.2);
                    factors.iter().try_for_each(|e| self.tiles(*e, out))?;
                    if !matches!(self.k.expr(main), Expr::Load { .. }) {
                        self.tiles(main, out)?;
                    }
                }
                Stmt::Loop(l) => {
                    out.extend(l.carries.iter().flat_map(|c| [c.param, c.init, c.next, c.result]));
                    for e in [Some(l.lo), Some(l.hi), l.empty, l.full].into_iter().flatten() {
                        self.tiles(e, out)?;
                    }
                    self.roots(&l.body, out)?;
                }
            }
        }
        Ok(())
    }

    fn has_dim(&self, e: ExprId, d: DimId) -> bool {
        self.k.dims_of(e).contains(&d)
    }

    /// The operand with the rows, the other one, and whether they changed places.
    fn sides(&self, a: ExprId, b: ExprId) -> Fits<(ExprId, ExprId, bool)> {
        match (self.has_dim(a, self.row), self.has_dim(b, self.row)) {
            (true, false) => Ok((a, b, false)),
            (false, true) => Ok((b, a, true)),
            _ => Err("the rows of a product are not in one operand".into()),
        }
    }

    /// Factors of a product, through tiles that are not carried.
    fn product(&self, e: ExprId) -> Vec<ExprId> {
        match self.k.expr(e) {
            Expr::Op { op: ScalarOp::Mul, args } => args.iter().flat_map(|a| self.product(*a)).collect(),
            Expr::Tile(t) => match self.defs.get(t) {
                Some(def) if matches!(self.k.expr(*def), Expr::Op { op: ScalarOp::Mul, .. } | Expr::Load { .. }) => self.product(*def),
                _ => vec![e],
            },
            _ => vec![e],
        }
    }

    /// The part of an operand that varies along `over`, and factors that do not. A part that is not one load is kept with all factors.
    fn strip(&self, e: ExprId, over: DimId) -> Fits<(ExprId, Vec<ExprId>)> {
        let (with, without): (Vec<ExprId>, Vec<ExprId>) = self.product(e).into_iter().partition(|f| self.has_dim(*f, over));
        match with[..] {
            [one] if matches!(self.k.expr(one), Expr::Load { .. }) => Ok((one, without)),
            _ => Ok((e, vec![])),
        }
    }

    /// The load of a second operand, its factors that do not vary along `over`, and those that vary along it alone, which the first operand takes.
    fn second(&self, e: ExprId, over: DimId) -> (ExprId, Vec<ExprId>, Vec<ExprId>) {
        let (with, without): (Vec<ExprId>, Vec<ExprId>) = self.product(e).into_iter().partition(|f| self.has_dim(*f, over));
        let wide = |e: &ExprId| self.k.dims_of(*e).into_iter().any(|d| d != over && self.k.dim(d).kind.capacity() > 1);
        let (columns, alone): (Vec<ExprId>, Vec<ExprId>) = with.into_iter().partition(wide);
        match columns[..] {
            [one] if matches!(self.k.expr(one), Expr::Load { .. }) => (one, without, alone),
            _ => (e, vec![], vec![]),
        }
    }

    fn fragment(&mut self, name: &str, layout: Layout) -> FragId {
        self.fragments.push(Fragment { name: name.to_string(), layout });
        FragId(self.fragments.len() as u32 - 1)
    }

    /// The layout of a value over these dimensions.
    fn layout(&self, dims: &[DimId]) -> Fits<Layout> {
        let others: Vec<DimId> = dims.iter().copied().filter(|d| *d != self.row).collect();
        if !dims.contains(&self.row) {
            return Err("a value without rows must be held".into());
        }
        match others[..] {
            [] => Ok(Layout::Row),
            [col] => {
                let cols = self.k.dim(col).kind.capacity();
                if cols % 8 != 0 || !(8..=256).contains(&cols) {
                    return Err(format!("{cols} columns"));
                }
                Ok(Layout::Acc { cols })
            }
            _ => Err("a tile has three dimensions".into()),
        }
    }

    fn frag(&mut self, t: TileId) -> Fits<FragId> {
        if let Some(f) = self.frag_of.get(&t) {
            return Ok(*f);
        }
        let tile = self.k.tile(t).clone();
        if tile.dtype != DType::Real {
            return Err(format!("`{}` is not real", tile.name));
        }
        let layout = self.layout(&tile.dims)?;
        let f = self.fragment(&tile.name, layout);
        self.frag_of.insert(t, f);
        Ok(f)
    }

    /// Fragments that an expression reads, through what is evaluated in place.
    pub fn reads(&self, e: ExprId) -> Fits<Vec<TileId>> {
        let (mut out, mut seen) = (vec![], HashSet::new());
        let mut stack = vec![];
        self.tiles(e, &mut stack)?;
        while let Some(t) = stack.pop() {
            if !seen.insert(t) {
                continue;
            }
            match self.defs.get(&t) {
                Some(def) => self.tiles(*def, &mut stack)?,
                None => out.push(t),
            }
        }
        out.sort();
        Ok(out)
    }

    fn frags_read(&mut self, e: ExprId) -> Fits<Vec<FragId>> {
        let tiles = self.reads(e)?;
        tiles.into_iter().map(|t| self.frag(t)).collect()
    }

    /// Whether the block's class changes the value.
    fn is_classed(&self, e: ExprId) -> bool {
        match self.k.expr(e) {
            Expr::Masked { class, cond, value, other } => class.is_some() || [cond, value, other].into_iter().any(|a| self.is_classed(*a)),
            Expr::Op { args, .. } => args.iter().any(|a| self.is_classed(*a)),
            Expr::Load { index, .. } => index.iter().any(|a| self.is_classed(*a)),
            Expr::Tile(t) => self.defs.get(t).is_some_and(|d| self.is_classed(*d)),
            _ => false,
        }
    }

    /// Clocks of a group for one element an instruction.
    fn weight(&self, e: ExprId, depth: u32) -> u32 {
        if depth > 20 {
            return 1;
        }
        match self.k.expr(e) {
            Expr::Op { op, args } => {
                use ScalarOp::*;
                let own = match op {
                    Exp | ExpDiff | Log | Tanh | Sqrt | Div | Ratio | Sigmoid => 9,
                    Erf | Sin | Cos | Pow | Softplus | Log1p | IntDiv | Mod => 20,
                    _ => 1,
                };
                own + args.iter().map(|a| self.weight(*a, depth + 1)).sum::<u32>()
            }
            Expr::Load { .. } => 8,
            Expr::Masked { value, .. } => 1 + self.weight(*value, depth + 1),
            _ => 0,
        }
    }

    fn each(&mut self, out: FragId, expr: ExprId, dims: Vec<DimId>) -> Fits<Node> {
        let reads = self.frags_read(expr)?;
        let registers = self.fragments[out.0 as usize].layout.registers();
        let clocks = registers * self.weight(expr, 0).max(1);
        let classed = self.is_classed(expr);
        Ok(Node { work: Work::Each { out, expr, dims }, reads, writes: vec![out], rings: vec![], clocks, classed })
    }

    fn stmt(&mut self, s: &Stmt, within: Option<DimId>, nodes: &mut Vec<Node>, once: &mut Vec<RingId>) -> Fits<()> {
        match s {
            Stmt::Map { out, expr } => {
                if self.used.contains(out) && !self.defs.contains_key(out) {
                    let f = self.frag(*out)?;
                    let dims = self.k.tile(*out).dims.clone();
                    if let Some(node) = self.fill(*out, f, *expr, &dims)? {
                        nodes.push(node);
                        return Ok(());
                    }
                    nodes.push(self.each(f, *expr, dims)?);
                }
            }
            Stmt::Reduce { out, op, over, expr, carried } => {
                let ([over], Some(combine)) = (&over[..], op.combine()) else { return Err(format!("`{}` over several dimensions", op.name())) };
                if within != Some(*over) && !matches!(self.k.dim(*over).kind, DimKind::Whole { .. }) {
                    return Err("a reduction over a dimension that no tile holds".into());
                }
                let Scalar::Real(identity) = op.identity(DType::Real) else { return Err(format!("`{}` of reals", op.name())) };
                let result = self.frag(*out)?;
                let carried = carried.map(|c| self.frag(c)).transpose()?;
                let dims = vec![self.row, *over];
                let layout = self.layout(&dims)?;
                let from = self.operand_frag(*expr, &dims, nodes)?;
                let scale = match self.k.expr(*expr) {
                    Expr::Tile(t) => self.unscaled.get(t).cloned().unwrap_or_default(),
                    _ => vec![],
                };
                let spare = self.fragment("in", layout);
                if self.fragments[result.0 as usize].layout != Layout::Row {
                    return Err("the result of a reduction has columns".into());
                }
                let mut reads = vec![from];
                reads.extend(carried);
                let work = Work::Fold { out: result, op: combine, from, carried, over: *over, spare, identity, row: self.row, scale };
                nodes.push(Node { work, reads, writes: vec![result], rings: vec![], clocks: layout.registers() + 60, classed: false });
            }
            Stmt::Dot { out, a, b, over, carried } => self.dot(*out, *a, *b, over, *carried, within, nodes, once)?,
            Stmt::Store { buffer, index, dims, expr } => {
                self.layout(dims)?;
                let mut reads = vec![];
                for e in index.iter().chain([expr]) {
                    reads.extend(self.frags_read(*e)?);
                }
                let work = Work::Store { buffer: *buffer, index: index.clone(), dims: dims.clone(), expr: *expr };
                nodes.push(Node { work, reads, writes: vec![], rings: vec![], clocks: 100, classed: false });
            }
            Stmt::Loop(_) => return Err("a loop stands in a loop".into()),
            Stmt::Order(_) => return Err("rows are ordered".into()),
                Stmt::Prefix { .. } | Stmt::Solve { .. } => return Err("rows wait for one another".into()),
        }
        Ok(())
    }

    /// A fragment that holds an expression over these dimensions.
    fn operand_frag(&mut self, e: ExprId, dims: &[DimId], nodes: &mut Vec<Node>) -> Fits<FragId> {
        if let Expr::Tile(t) = self.k.expr(e) {
            if !self.defs.contains_key(t) && self.k.tile(*t).dims == dims {
                return self.frag(*t);
            }
        }
        let layout = self.layout(dims)?;
        let out = self.fragment("operand", layout);
        let node = self.each(out, e, dims.to_vec())?;
        nodes.push(node);
        Ok(out)
    }

    #[allow(clippy::too_many_arguments)]
    fn dot(&mut self, out: TileId, a: ExprId, b: ExprId, over: &[DimId], carried: Option<TileId>, within: Option<DimId>, nodes: &mut Vec<Node>, once: &mut Vec<RingId>) -> Fits<()> {
        let [over] = over[..] else { return Err("a product reduces several dimensions".into()) };
        let (a, b, _) = self.sides(a, b)?;
        let dims = self.k.tile(out).dims.clone();
        let Layout::Acc { cols: n } = self.layout(&dims)? else { return Err("a product without columns".into()) };
        let Some(col) = dims.iter().copied().find(|d| *d != self.row) else { return Err("a product without columns".into()) };
        let (mut left, mut factors) = self.strip(a, over)?;
        let (right, more, moved) = self.second(b, over);
        if carried.is_some() && !(factors.is_empty() && more.is_empty()) {
            (left, factors) = (a, vec![]);
            if !more.is_empty() {
                return Err("the second operand of an accumulated product has factors".into());
            }
        }
        factors.extend(more);
        let (b_ring, b_source, storage) = self.ring(right, &[over, col], within, once)?;
        let turned = b_source.rows == over;
        let k = self.k.dim(over).kind.capacity().next_multiple_of(16);
        let mut rings = vec![b_ring];
        let mut reads = vec![];
        let whole = matches!(self.k.dim(over).kind, DimKind::Whole { .. });
        let view = if whole && moved.is_empty() && matches!(self.k.expr(left), Expr::Load { .. }) { Some(self.ring(left, &[self.row, over], within, once)?) } else { None };
        let operand = match view {
            Some((ring, source, other)) => {
                if source.rows != self.row || other != storage {
                    return Err("the rows of an operand run along its last axis".into());
                }
                rings.push(ring);
                Operand::View(ring)
            }
            None => {
                let dims = [self.row, over];
                let mut from = self.operand_frag(left, &dims, nodes)?;
                if !moved.is_empty() {
                    let layout = self.layout(&dims)?;
                    let scaled = self.fragment("scaled", layout);
                    let mut reads = vec![from];
                    for f in &moved {
                        reads.extend(self.frags_read(*f)?);
                    }
                    let work = Work::Scale { out: scaled, from, factors: moved, dims: dims.to_vec() };
                    nodes.push(Node { work, reads, writes: vec![scaled], rings: vec![], clocks: layout.registers() * 4, classed: false });
                    from = scaled;
                }
                let Layout::Acc { cols } = self.layout(&dims)? else { return Err("an operand without columns".into()) };
                if cols % 16 != 0 {
                    return Err(format!("{cols} reduced columns"));
                }
                let packed = self.fragment("packed", Layout::Pairs { cols, storage });
                let spare = self.fragment("in", Layout::Acc { cols });
                let work = Work::Pack { out: packed, from, over, spare, row: self.row };
                nodes.push(Node { work, reads: vec![from], writes: vec![packed], rings: vec![], clocks: cols / 4, classed: false });
                reads.push(packed);
                Operand::Frag(packed)
            }
        };
        let result = self.frag(out)?;
        let uniform = |e: &ExprId| self.k.dims_of(*e).iter().all(|d| self.k.dim(*d).kind.capacity() == 1);
        if !factors.is_empty() && factors.iter().all(uniform) && self.reads_are_empty(&factors) && self.may_stay_unscaled(out) {
            self.unscaled.insert(out, std::mem::take(&mut factors));
        }
        let target = if factors.is_empty() { result } else { self.fragment("raw", Layout::Acc { cols: n }) };
        let acc = carried.map(|c| self.frag(c)).transpose()?;
        reads.extend(acc);
        let work = Work::Mma { out: target, acc, a: operand, b: b_ring, turned, k };
        // 64 rows, 2048 products a clock.
        nodes.push(Node { work, reads, writes: vec![target], rings, clocks: n * k / 32, classed: false });
        if target != result {
            let mut reads = vec![target];
            for f in &factors {
                reads.extend(self.frags_read(*f)?);
            }
            let work = Work::Scale { out: result, from: target, factors, dims };
            nodes.push(Node { work, reads, writes: vec![result], rings: vec![], clocks: n / 2, classed: false });
        }
        Ok(())
    }

    fn reads_are_empty(&self, exprs: &[ExprId]) -> bool {
        exprs.iter().all(|e| self.reads(*e).is_ok_and(|r| r.is_empty()))
    }

    /// Whether all readers of a product take it with a uniform scale to come: masks to minus infinity, running maxima, and exponentials of
    /// the difference from a row value. A maximum of scaled values is the scaled maximum, or minimum where the scale is negative.
    fn may_stay_unscaled(&self, t: TileId) -> bool {
        let mut ok = true;
        let mut held = vec![t];
        let mut at = 0;
        while at < held.len() {
            let t = held[at];
            at += 1;
            self.readers(&self.k.body, t, &mut |s| match s {
                Stmt::Map { out, expr } => match self.k.expr(*expr) {
                    Expr::Tile(_) => held.push(*out),
                    Expr::Masked { cond, value, other, .. } => {
                        let plain = *self.k.expr(*value) == Expr::Tile(t) && *self.k.expr(*other) == Expr::Const(Scalar::Real(f64::NEG_INFINITY));
                        let (mut tiles, mut more) = (vec![], vec![]);
                        let clean = self.tiles(*cond, &mut tiles).is_ok() && !tiles.contains(&t) && self.tiles(*value, &mut more).is_ok();
                        ok &= plain && clean;
                        held.push(*out);
                    }
                    Expr::Op { op: ScalarOp::ExpDiff, args } => {
                        ok &= *self.k.expr(args[0]) == Expr::Tile(t) && matches!(self.k.expr(args[1]), Expr::Tile(m) if self.k.tile(*m).dims == [self.row]);
                    }
                    _ => ok = false,
                },
                Stmt::Reduce { op, expr, .. } => ok &= *op == crate::reduce::ReduceOp::Max && *self.k.expr(*expr) == Expr::Tile(t),
                _ => ok = false,
            });
        }
        ok
    }

    /// Calls `each` for every statement that reads a tile.
    fn readers(&self, stmts: &[Stmt], t: TileId, each: &mut dyn FnMut(&Stmt)) {
        for s in stmts {
            let (exprs, carried): (Vec<ExprId>, Option<TileId>) = match s {
                Stmt::Map { expr, .. } => (vec![*expr], None),
                Stmt::Reduce { expr, carried, .. } => (vec![*expr], *carried),
                Stmt::Dot { a, b, carried, .. } => (vec![*a, *b], *carried),
                Stmt::Store { index, expr, .. } => (index.iter().copied().chain([*expr]).collect(), None),
                Stmt::Loop(l) => {
                    self.readers(&l.head, t, each);
                    self.readers(&l.body, t, each);
                    if l.carries.iter().any(|c| c.next == t || c.init == t) {
                        each(s);
                    }
                    continue;
                }
                Stmt::Order(_) => (vec![], None),
                Stmt::Prefix { expr, .. } => (vec![*expr], None),
                Stmt::Solve { matrix, rhs, .. } => (vec![*matrix, *rhs], None),
            };
            let mut tiles = vec![];
            let readable = exprs.iter().all(|e| self.tiles(*e, &mut tiles).is_ok());
            if !readable || tiles.contains(&t) || carried == Some(t) {
                each(s);
            }
        }
    }

    /// A mask, or a copy, of a tile whose scale is still to come.
    fn fill(&mut self, out: TileId, f: FragId, expr: ExprId, dims: &[DimId]) -> Fits<Option<Node>> {
        let (value, cond, class) = match self.k.expr(expr) {
            Expr::Tile(t) => (*t, None, None),
            Expr::Masked { cond, value, class, .. } => match self.k.expr(*value) {
                Expr::Tile(t) => (*t, Some(*cond), *class),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        let Some(scale) = self.unscaled.get(&value).cloned() else { return Ok(None) };
        self.unscaled.insert(out, scale.clone());
        let from = self.frag(value)?;
        let mut reads = vec![from];
        if let Some(cond) = cond {
            reads.extend(self.frags_read(cond)?);
        }
        let clocks = self.fragments[f.0 as usize].layout.registers();
        let work = Work::Fill { out: f, from, cond, class, scale, dims: dims.to_vec() };
        Ok(Some(Node { work, reads, writes: vec![f], rings: vec![], clocks, classed: class.is_some() }))
    }

    /// The ring of a load; its tile covers the two dimensions.
    fn ring(&mut self, e: ExprId, dims: &[DimId; 2], within: Option<DimId>, once: &mut Vec<RingId>) -> Fits<(RingId, Source, Storage)> {
        let Expr::Load { buffer, index, .. } = self.k.expr(e).clone() else { return Err("the second operand of a product is computed".into()) };
        let plan = &self.plan.buffers[buffer.index()];
        if !matches!(plan.storage, Storage::Bf16 | Storage::F16) {
            return Err(format!("`{}` is stored as {}", plan.name, plan.storage.name()));
        }
        if !(2..=5).contains(&index.len()) {
            return Err(format!("`{}` has {} axes", plan.name, index.len()));
        }
        let last = index.len() - 1;
        let Expr::Pos(inner) = *self.k.expr(index[last]) else { return Err(format!("the last axis of `{}` is read at computed positions", plan.name)) };
        let DimKind::Whole { extent } = self.k.dim(inner).kind else { return Err(format!("the last axis of `{}` is not held whole", plan.name)) };
        if extent % 8 != 0 || extent > 256 || !dims.contains(&inner) {
            return Err(format!("the last axis of `{}` has {extent} positions", plan.name));
        }
        let rows = if dims[0] == inner { dims[1] } else { dims[0] };
        let mut axis = None;
        for (i, e) in index[..last].iter().enumerate() {
            let wide: Vec<DimId> = self.k.dims_of(*e).into_iter().filter(|d| self.k.dim(*d).kind.capacity() > 1).collect();
            match wide[..] {
                [] => {}
                [d] if d == rows && axis.is_none() && self.is_shifted(*e, d) => axis = Some(i),
                _ => return Err(format!("`{}` is read at computed positions", plan.name)),
            }
        }
        let Some(axis) = axis else { return Err(format!("`{}` lacks the rows of the operand", plan.name)) };
        let count = self.k.dim(rows).kind.capacity();
        if count % 8 != 0 || count > 256 {
            return Err(format!("{count} rows of `{}` at a time", plan.name));
        }
        let source = Source { buffer, index, rows, axis };
        let storage = plan.storage;
        let per_loop = within.is_some_and(|w| rows == w || source.index.iter().any(|e| self.has_dim(*e, w)));
        let found = self.sources.iter().position(|s| *s == source).filter(|i| per_loop || once.contains(&RingId(*i as u32)));
        let ring = match found {
            Some(i) => RingId(i as u32),
            None => {
                self.rings.push(Ring { name: plan.name.clone(), slots: if per_loop { 2 } else { 1 }, rows: count, cols: extent, storage });
                self.sources.push(source.clone());
                RingId(self.rings.len() as u32 - 1)
            }
        };
        if !per_loop && !once.contains(&ring) {
            once.push(ring);
        }
        Ok((ring, source, storage))
    }

    /// `position + something uniform`.
    fn is_shifted(&self, e: ExprId, d: DimId) -> bool {
        match self.k.expr(e) {
            Expr::Pos(x) => *x == d,
            Expr::Op { op: ScalarOp::Add, args } => {
                (self.is_shifted(args[0], d) && !self.has_dim(args[1], d)) || (self.is_shifted(args[1], d) && !self.has_dim(args[0], d))
            }
            Expr::Op { op: ScalarOp::Sub, args } => self.is_shifted(args[0], d) && !self.has_dim(args[1], d),
            _ => false,
        }
    }

    fn one_loop(&mut self, l: &Loop, units: &MatrixUnits) -> Fits<LoopForm> {
        if !l.head.is_empty() {
            return Err("blocks are classified by values from memory".into());
        }
        let cols = self.k.dim(l.dim).kind.capacity();
        if cols % 16 != 0 || cols > 256 {
            return Err(format!("blocks of {cols}"));
        }
        let (mut inits, mut results, mut kept) = (vec![], vec![], vec![]);
        for c in &l.carries {
            let (param, init, result) = (self.frag(c.param)?, self.frag(c.init)?, self.frag(c.result)?);
            inits.push((param, init));
            results.push((result, param));
            kept.push(param);
        }
        let (mut nodes, mut once) = (vec![], vec![]);
        for s in &l.body {
            self.stmt(s, Some(l.dim), &mut nodes, &mut once)?;
        }
        for c in &l.carries {
            let (to, from) = (self.frag(c.param)?, self.frag(c.next)?);
            if kept.contains(&from) && from != to {
                return Err("carried values change places".into());
            }
            nodes.push(Node { work: Work::Move { to, from }, reads: vec![from], writes: vec![to], rings: vec![], clocks: 0, classed: false });
        }
        for n in &mut nodes {
            n.rings.retain(|r| !once.contains(r));
        }
        let beside = RESERVED + self.pressure(&nodes).saturating_sub(LIGHT);
        let room = units.registers(self.math).1.saturating_sub(beside);
        let fragments = &self.fragments;
        let found = schedule(&nodes, &kept, room, |f| fragments[f.0 as usize].layout.registers());
        let schedule = found.map_err(|least| format!("{least} registers of fragments"))?;
        let on_row = |e: ExprId| mentions(self.k, e, self.row);
        let (lo, hi) = (on_row(l.lo), on_row(l.hi));
        match (lo, hi) {
            (false, true) => self.heavy = Heavy::Last,
            (true, false) => self.heavy = Heavy::First,
            _ => {}
        }
        // Bounds that follow the rows leave no empty blocks worth a test.
        let check_empty = l.empty.is_some() && !lo && !hi;
        // Turns pay when a body starts all its products before it waits for one: the turn is then short.
        let products = nodes.iter().filter(|n| n.is_product()).count();
        let turns = self.math > 1 && schedule.is_staged() && schedule.order.iter().take(products).all(|i| nodes[*i].is_product());
        Ok(LoopForm { dim: l.dim, l: l.clone(), nodes, schedule, once, check_empty, room, turns, inits, results })
    }
}

fn has_product(stmts: &[Stmt]) -> bool {
    stmts.iter().any(|s| matches!(s, Stmt::Loop(l) if l.body.iter().any(|s| matches!(s, Stmt::Dot { .. }))))
}

/// Whether an expression names the block of a dimension.
fn mentions(k: &TileKernel, e: ExprId, d: DimId) -> bool {
    match k.expr(e) {
        Expr::Start(x) | Expr::Stop(x) | Expr::Pos(x) => *x == d,
        Expr::Op { args, .. } => args.iter().any(|a| mentions(k, *a, d)),
        Expr::Load { index, .. } => index.iter().any(|a| mentions(k, *a, d)),
        Expr::Masked { cond, value, other, .. } => [cond, value, other].into_iter().any(|a| mentions(k, *a, d)),
        _ => false,
    }
}
