//! Sums that products can start from: where `x + a b` is all that becomes of a product, the product accumulates onto `x`.
//!
//! Legal when the product has one reader, in the same list of statements, and nothing between the two writes memory that its operands
//! may read; it then moves to its reader. Profitable on targets with tile calls, whose products add to memory at no cost.

use crate::ops::{DType, ScalarOp};
use crate::reduce::ReduceOp;
use crate::tiles::*;
use std::collections::{HashMap, HashSet};

/// See the module.
pub(super) fn fuse(kernel: &TileKernel) -> TileKernel {
    let mut k = kernel.clone();
    let body = std::mem::take(&mut k.body);
    let mut uses = HashMap::new();
    count(&k, &body, &mut uses);
    k.body = list(&mut k, body, &uses);
    k
}

/// Expressions that a statement itself reads (not those of statements inside it), and tiles that it names.
fn reads(s: &Stmt) -> (Vec<ExprId>, Vec<TileId>) {
    match s {
        Stmt::Map { expr, .. } | Stmt::Prefix { expr, .. } => (vec![*expr], vec![]),
        Stmt::Solve { matrix, rhs, .. } => (vec![*matrix, *rhs], vec![]),
        Stmt::Reduce { expr, carried, .. } => (vec![*expr], carried.iter().copied().collect()),
        Stmt::Dot { a, b, carried, .. } => (vec![*a, *b], carried.iter().copied().collect()),
        Stmt::Store { index, expr, .. } => (index.iter().copied().chain([*expr]).collect(), vec![]),
        Stmt::Order(o) => (o.exprs(), vec![]),
        Stmt::Loop(l) => {
            let exprs = [l.lo, l.hi].into_iter().chain(l.empty).chain(l.full).collect();
            (exprs, l.carries.iter().flat_map(|c| [c.init, c.next]).collect())
        }
    }
}

/// Tiles in an expression, each once.
fn tiles(k: &TileKernel, root: ExprId, seen: &mut HashSet<ExprId>, out: &mut Vec<TileId>) {
    if !seen.insert(root) {
        return;
    }
    match k.expr(root) {
        Expr::Const(_) | Expr::Host(_) | Expr::Pos(_) | Expr::Start(_) | Expr::Stop(_) => {}
        Expr::Op { args, .. } => args.iter().for_each(|a| tiles(k, *a, seen, out)),
        Expr::Tile(t) => out.push(*t),
        Expr::TileAt { tile, at } => {
            out.push(*tile);
            at.iter().for_each(|a| tiles(k, a.1, seen, out));
        }
        Expr::Load { index, .. } => index.iter().for_each(|a| tiles(k, *a, seen, out)),
        Expr::Masked { cond, value, other, .. } => [cond, value, other].into_iter().for_each(|a| tiles(k, *a, seen, out)),
    }
}

/// How many expressions of statements (and carried values) name each tile.
fn count(k: &TileKernel, stmts: &[Stmt], uses: &mut HashMap<TileId, usize>) {
    for s in stmts {
        let (exprs, mut named) = reads(s);
        for e in exprs {
            tiles(k, e, &mut HashSet::new(), &mut named);
        }
        for t in named {
            *uses.entry(t).or_default() += 1;
        }
        if let Stmt::Loop(l) = s {
            count(k, &l.head, uses);
            count(k, &l.body, uses);
        }
    }
}

fn list(k: &mut TileKernel, stmts: Vec<Stmt>, uses: &HashMap<TileId, usize>) -> Vec<Stmt> {
    let mut out: Vec<Option<Stmt>> = vec![];
    for s in stmts {
        let (target, mut expr) = match s {
            Stmt::Loop(mut l) => {
                let body = std::mem::take(&mut l.body);
                l.body = list(k, body, uses);
                out.push(Some(Stmt::Loop(l)));
                continue;
            }
            Stmt::Map { out: target, expr } => (Some(target), expr),
            Stmt::Store { expr, .. } => (None, expr),
            Stmt::Reduce { .. } | Stmt::Dot { .. } | Stmt::Prefix { .. } | Stmt::Solve { .. } | Stmt::Order(_) => {
                out.push(Some(s));
                continue;
            }
        };
        let mut whole = false;
        while let Some((sum, x, at)) = find(k, expr, &out, uses) {
            let Some(Stmt::Dot { out: product, a, b, over, .. }) = out[at].take() else { break };
            let dims = k.tile(product).dims.clone();
            whole = target.is_some_and(|t| sum == expr && k.tile(t).dims == dims);
            let onto = match k.expr(x) {
                Expr::Tile(t) if k.tile(*t).dims == dims => *t,
                _ => {
                    let start = k.add_tile("start", dims.clone(), DType::Real);
                    out.push(Some(Stmt::Map { out: start, expr: x }));
                    start
                }
            };
            let result = match target {
                Some(t) if whole => t,
                _ => k.add_tile(k.tile(product).name.clone(), dims, DType::Real),
            };
            out.push(Some(Stmt::Dot { out: result, a, b, over, carried: Some(onto) }));
            if whole {
                break;
            }
            let to = k.add(Expr::Tile(result));
            expr = replace(k, expr, sum, to);
        }
        if !whole {
            out.push(Some(match s {
                Stmt::Store { buffer, index, dims, .. } => Stmt::Store { buffer, index, dims, expr },
                Stmt::Map { out, .. } => Stmt::Map { out, expr },
                other => other,
            }));
        }
    }
    out.into_iter().flatten().collect()
}

/// A sum of a product that only this expression reads: (the sum, what is added, where the product stands).
fn find(k: &TileKernel, root: ExprId, before: &[Option<Stmt>], uses: &HashMap<TileId, usize>) -> Option<(ExprId, ExprId, usize)> {
    let Expr::Op { op, args } = k.expr(root) else { return None };
    if *op == ScalarOp::Add {
        for (x, y) in [(args[0], args[1]), (args[1], args[0])] {
            let Expr::Tile(t) = k.expr(y) else { continue };
            if k.tile(*t).dtype != DType::Real || uses.get(t) != Some(&1) {
                continue;
            }
            let dims = &k.tile(*t).dims;
            let mut inside = vec![];
            tiles(k, x, &mut HashSet::new(), &mut inside);
            if inside.contains(t) || k.dims_of(x).iter().any(|d| !dims.contains(d)) {
                continue;
            }
            // Products that the other side still waits for come first.
            if find(k, x, before, uses).is_some() {
                continue;
            }
            let at = before.iter().position(|s| matches!(s, Some(Stmt::Dot { out, carried: None, .. }) if out == t));
            let quiet = |at: usize| before[at + 1..].iter().flatten().all(|s| matches!(s, Stmt::Map { .. } | Stmt::Reduce { .. } | Stmt::Dot { .. } | Stmt::Prefix { .. } | Stmt::Solve { .. }));
            if let Some(at) = at.filter(|at| quiet(*at)) {
                return Some((root, x, at));
            }
        }
    }
    args.iter().find_map(|a| find(k, *a, before, uses))
}

fn replace(k: &mut TileKernel, root: ExprId, from: ExprId, to: ExprId) -> ExprId {
    if root == from {
        return to;
    }
    match k.expr(root).clone() {
        Expr::Op { op, args } => {
            let args = args.into_iter().map(|a| replace(k, a, from, to)).collect();
            k.add(Expr::Op { op, args })
        }
        _ => root,
    }
}

fn each<'a>(stmts: &'a [Stmt], f: &mut dyn FnMut(&'a Stmt)) {
    for s in stmts {
        f(s);
        if let Stmt::Loop(l) = s {
            each(&l.head, f);
            each(&l.body, f);
        }
    }
}

/// Tiles that only products read, as whole operands.
pub(super) fn operands(k: &TileKernel) -> HashSet<TileId> {
    let (mut whole, mut other) = (HashSet::new(), HashSet::new());
    each(&k.body, &mut |s| {
        let (exprs, named) = reads(s);
        other.extend(named);
        for e in exprs {
            match k.expr(e) {
                Expr::Tile(t) if matches!(s, Stmt::Dot { .. }) => {
                    whole.insert(*t);
                }
                _ => {
                    let mut inside = vec![];
                    tiles(k, e, &mut HashSet::new(), &mut inside);
                    other.extend(inside);
                }
            }
        }
    });
    whole.retain(|t| !other.contains(t));
    whole
}

/// Tiles whose last dimension is summed somewhere.
pub(super) fn summed(k: &TileKernel) -> HashSet<TileId> {
    let mut found = HashSet::new();
    each(&k.body, &mut |s| {
        if let Stmt::Reduce { op: ReduceOp::Sum, over, expr, .. } = s
            && let Expr::Tile(t) = k.expr(*expr)
            && k.tile(*t).dims.last().is_some_and(|d| over == &[*d])
        {
            found.insert(*t);
        }
    });
    found
}
