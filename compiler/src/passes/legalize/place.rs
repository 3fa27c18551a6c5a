//! Memory for tiles: which tiles share an array.
//!
//! Tiles get intervals of statement positions; what a loop carries wants one array for start, iteration and result, an op wants its
//! result where its accumulator was. Wishes are granted when the intervals do not overlap; then arrays of equal dtype are reused.

use super::Lower;
use crate::kernel::Space;
use crate::ops::DType;
use crate::tiles::*;

#[derive(Clone, Default)]
struct Life {
    /// Closed intervals of positions.
    spans: Vec<(usize, usize)>,
}

impl Life {
    fn meets(&self, other: &Life) -> bool {
        self.spans.iter().any(|a| other.spans.iter().any(|b| a.0 <= b.1 && b.0 <= a.1))
    }
}

struct Scan<'a> {
    k: &'a TileKernel,
    at: usize,
    def: Vec<Option<usize>>,
    last: Vec<usize>,
    /// Depth-first list of enclosing loops at the definition, to extend uses in inner loops.
    loop_of_def: Vec<usize>,
    loops: Vec<(usize, usize)>,
    open: Vec<usize>,
    /// (tile, position, open loops) of every use.
    uses: Vec<(TileId, usize, Vec<usize>)>,
    /// Tiles that would like to share, strongest first.
    wishes: Vec<(TileId, TileId)>,
    /// (param, next, loop): if they do not share, the param lives all through the loop.
    carried: Vec<(TileId, TileId, usize)>,
}

impl Scan<'_> {
    fn define(&mut self, tile: TileId, at: usize) {
        if self.def[tile.index()].is_none() {
            self.def[tile.index()] = Some(at);
            self.loop_of_def[tile.index()] = self.open.len();
        }
    }

    fn used(&mut self, tile: TileId, at: usize) {
        self.uses.push((tile, at, self.open.clone()));
    }

    /// Uses of an expression; `aligned` tiles of these dimensions may be overwritten by the same statement.
    fn expr(&mut self, id: ExprId, aligned: Option<&[DimId]>, at: usize) {
        let mut stack = vec![id];
        let mut seen = std::collections::HashSet::new();
        while let Some(e) = stack.pop() {
            if !seen.insert(e) {
                continue;
            }
            match self.k.expr(e) {
                Expr::Const(_) | Expr::Host(_) | Expr::Pos(_) | Expr::Start(_) | Expr::Stop(_) => {}
                Expr::Op { args, .. } => stack.extend(args),
                Expr::Tile(t) => {
                    let same = aligned.is_some_and(|d| d == self.k.tile(*t).dims);
                    self.used(*t, if same { at } else { at + 2 });
                }
                Expr::TileAt { tile, at: index } => {
                    self.used(*tile, at + 2);
                    stack.extend(index.iter().map(|i| i.1));
                }
                Expr::Load { index, .. } => stack.extend(index),
                Expr::Masked { cond, value, other, .. } => stack.extend([cond, value, other]),
            }
        }
    }

    fn stmts(&mut self, stmts: &[Stmt]) {
        for s in stmts {
            self.at += 4;
            let at = self.at;
            match s {
                Stmt::Map { out, expr } => {
                    let dims = self.k.tile(*out).dims.clone();
                    self.expr(*expr, Some(&dims), at);
                    self.define(*out, at + 1);
                    let mut stack = vec![*expr];
                    while let Some(e) = stack.pop() {
                        match self.k.expr(e) {
                            Expr::Tile(t) if self.k.tile(*t).dims == dims && self.k.tile(*t).dtype == self.k.tile(*out).dtype => self.wishes.push((*out, *t)),
                            Expr::Op { args, .. } if stack.len() < 64 => stack.extend(args),
                            Expr::Masked { value, .. } => stack.push(*value),
                            _ => {}
                        }
                    }
                }
                Stmt::Reduce { out, expr, carried, .. } => {
                    self.expr(*expr, None, at);
                    if let Some(c) = carried {
                        self.used(*c, at);
                        self.wishes.push((*out, *c));
                    }
                    // Results are written while operands are read.
                    self.define(*out, at + 1);
                }
                Stmt::Dot { out, a, b, carried, .. } => {
                    self.expr(*a, None, at);
                    self.expr(*b, None, at);
                    if let Some(c) = carried {
                        self.used(*c, at);
                        self.wishes.push((*out, *c));
                    }
                    self.define(*out, at + 1);
                }
                Stmt::Prefix { out, expr, .. } => {
                    self.expr(*expr, None, at);
                    self.define(*out, at + 1);
                }
                Stmt::Solve { out, matrix, rhs, .. } => {
                    self.expr(*matrix, None, at);
                    self.expr(*rhs, None, at);
                    self.define(*out, at + 1);
                }
                Stmt::Store { index, expr, .. } => {
                    self.expr(*expr, None, at);
                    for i in index {
                        self.expr(*i, None, at);
                    }
                }
                Stmt::Order(o) => o.exprs().into_iter().for_each(|e| self.expr(e, None, at)),
                Stmt::Loop(l) => {
                    let start = at;
                    for e in [l.lo, l.hi] {
                        self.expr(e, None, start);
                    }
                    for c in &l.carries {
                        self.used(c.init, start);
                        self.wishes.push((c.param, c.init));
                    }
                    let number = self.loops.len();
                    self.loops.push((start, usize::MAX));
                    self.open.push(number);
                    for c in &l.carries {
                        self.define(c.param, start + 1);
                        self.used(c.param, start + 1);
                    }
                    self.at += 4;
                    self.stmts(&l.head);
                    self.at += 4;
                    for e in l.empty.iter().chain(&l.full) {
                        let at = self.at;
                        self.expr(*e, None, at);
                    }
                    self.stmts(&l.body);
                    self.at += 4;
                    let end = self.at;
                    for c in &l.carries {
                        self.used(c.next, end);
                        self.wishes.push((c.next, c.param));
                        self.carried.push((c.param, c.next, number));
                    }
                    self.open.pop();
                    self.loops[number].1 = end;
                    for c in &l.carries {
                        self.define(c.result, end + 1);
                        self.used(c.result, end + 1);
                        self.wishes.push((c.result, c.param));
                    }
                    self.at += 4;
                }
            }
        }
    }
}

impl Lower<'_> {
    /// Assigns an array to every tile.
    pub(super) fn place(&mut self) {
        let n = self.k.tiles.len();
        let mut scan = Scan {
            k: self.k,
            at: 0,
            def: vec![None; n],
            last: vec![0; n],
            loop_of_def: vec![0; n],
            loops: vec![],
            open: vec![],
            uses: vec![],
            wishes: vec![],
            carried: vec![],
        };
        scan.stmts(&self.k.body);
        for (tile, at, open) in &scan.uses {
            // A use inside loops that do not contain the definition lasts until the outermost of them ends.
            let depth = scan.loop_of_def[tile.index()];
            let until = open.get(depth).map_or(*at, |l| scan.loops[*l].1);
            scan.last[tile.index()] = scan.last[tile.index()].max(until);
        }
        let mut lives: Vec<Life> = (0..n)
            .map(|i| match scan.def[i] {
                Some(def) => Life { spans: vec![(def, scan.last[i].max(def))] },
                None => Life::default(),
            })
            .collect();
        let mut root: Vec<usize> = (0..n).collect();
        fn find(root: &mut [usize], mut i: usize) -> usize {
            while root[i] != i {
                root[i] = root[root[i]];
                i = root[i];
            }
            i
        }
        // What a loop changes wants its own place first: next and param; otherwise the param lives through the loop.
        let try_join = |root: &mut Vec<usize>, lives: &mut Vec<Life>, a: TileId, b: TileId| -> bool {
            let (x, y) = (find(root, a.index()), find(root, b.index()));
            if x == y {
                return true;
            }
            let (ta, tb) = (&self.k.tiles[a.index()], &self.k.tiles[b.index()]);
            if ta.dtype != tb.dtype || ta.dims != tb.dims || lives[x].meets(&lives[y]) {
                return false;
            }
            let more = std::mem::take(&mut lives[y].spans);
            lives[x].spans.extend(more);
            root[y] = x;
            true
        };
        // Accumulators first (they reach from the carried value to the next one), then the carries themselves.
        for (a, b) in scan.wishes.clone() {
            let is_carry = scan.carried.iter().any(|c| c.0 == b || c.0 == a);
            if !is_carry {
                try_join(&mut root, &mut lives, a, b);
            }
        }
        for (a, b) in scan.wishes.clone() {
            try_join(&mut root, &mut lives, a, b);
        }
        for (param, next, number) in &scan.carried {
            let (p, x) = (find(&mut root, param.index()), find(&mut root, next.index()));
            if p != x {
                lives[p].spans.push(scan.loops[*number]);
            }
        }
        // A param that must live through its loop may now overlap what it was joined with: separate arrays are the safe way out.
        let mut conflicted = vec![false; n];
        for i in 0..n {
            let r = find(&mut root, i);
            if r == i {
                let spans = &lives[i].spans;
                let clash = spans.iter().enumerate().any(|(a, s)| spans.iter().skip(a + 1).any(|t| s.0 <= t.1 && t.0 <= s.1));
                conflicted[i] = clash;
            }
        }
        let class_of: Vec<usize> = (0..n)
            .map(|i| {
                let r = find(&mut root, i);
                if conflicted[r] { i } else { r }
            })
            .collect();
        // Alone again: their own lives, and all of every loop that carries them.
        let mut class_life: Vec<Life> = vec![Life::default(); n];
        for i in 0..n {
            let r = find(&mut root, i);
            if conflicted[r] {
                if let Some(def) = scan.def[i] {
                    class_life[i].spans.push((def, scan.last[i].max(def)));
                }
                for (param, _, number) in &scan.carried {
                    if param.index() == i {
                        class_life[i].spans.push(scan.loops[*number]);
                    }
                }
            } else if r == i {
                class_life[i] = lives[i].clone();
            }
        }
        // Arrays: first fit over classes in order of their start.
        let mut classes: Vec<usize> = class_of.clone();
        classes.sort_unstable();
        classes.dedup();
        classes.retain(|c| !class_life[*c].spans.is_empty());
        classes.sort_by_key(|c| class_life[*c].spans.iter().map(|s| s.0).min());
        let mut arrays: Vec<(DType, usize, Life, String)> = Vec::new();
        let mut array_of = vec![None; n];
        for c in classes {
            let tile = &self.k.tiles[c];
            let len = self.tile_len(TileId(c as u32));
            let fits = arrays.iter().position(|a| a.0 == tile.dtype && !a.2.meets(&class_life[c]));
            match fits {
                Some(i) => {
                    arrays[i].1 = arrays[i].1.max(len);
                    arrays[i].2.spans.extend(class_life[c].spans.iter().copied());
                    array_of[c] = Some(i);
                }
                None => {
                    arrays.push((tile.dtype, len, class_life[c].clone(), tile.name.clone()));
                    array_of[c] = Some(arrays.len() - 1);
                }
            }
        }
        // Small arrays get the fast memory first.
        let mut order: Vec<usize> = (0..arrays.len()).collect();
        order.sort_by_key(|i| arrays[*i].1);
        let mut left = self.caps.shared_bytes;
        let mut spaces = vec![Space::Shared; arrays.len()];
        for i in order {
            let width = match arrays[i].0 {
                DType::Real | DType::Complex => 4,
                DType::Int => self.caps.int_bytes,
                DType::Bool => self.caps.bool_bytes,
            };
            let bytes = arrays[i].1.saturating_mul(width);
            if bytes <= left {
                left -= bytes;
            } else {
                spaces[i] = Space::Workspace;
            }
        }
        let ids: Vec<_> = arrays.iter().zip(&spaces).map(|(a, s)| self.b.local_in(a.3.clone(), a.0, a.1, *s)).collect();
        self.locals = array_of.into_iter().map(|a| a.map(|i: usize| ids[i])).collect();
        self.class_of = class_of;
    }

    /// Whether two tiles are one array.
    pub(super) fn same_place(&mut self, a: TileId, b: TileId) -> bool {
        self.local(a) == self.local(b)
    }
}
