//! What each kernel moves and in which loops, for `explain`.
//!
//! An element of a buffer is loaded once for every block of the grid that its index does not tell apart; bytes are counted so, without
//! what masks skip, and set against the floor: every buffer of the kernel once.

use attnc_compiler::graph::AxisId;
use attnc_compiler::kernel::plan::{BufferKind, HostExpr};
use attnc_compiler::ops::Scalar;
use attnc_compiler::passes::cost::Sizes;
use attnc_compiler::tiles::{BufId, Expr, ExprId, Stmt, TileKernel, TileProgram};
use attnc_runtime::host::Env;
use std::collections::{BTreeMap, BTreeSet};

/// Extent of an axis of positions, and of others, when the caller gives none.
const LONG: i64 = 1024;
const OTHER: i64 = 1;

/// Two lines or more for each kernel, and one with the extents that they assume.
pub fn lines(tiles: &TileProgram, sizes: &Sizes, extents: &[(String, i64)], scalars: &[(String, Scalar)]) -> Vec<String> {
    let plan = &tiles.plan;
    let mut env = Env::new(&plan.axes, &plan.inputs);
    let mut assumed = Vec::new();
    for (i, axis) in plan.axes.iter().enumerate().filter(|a| a.1.extent.is_none()) {
        let given = extents.iter().find(|e| e.0 == axis.name).map(|e| e.1);
        let value = given.unwrap_or(if sizes.is_long(AxisId(i as u32)) { LONG } else { OTHER });
        assumed.push(format!("{} = {value}", axis.name));
        env.set_extent(i as u32, value);
    }
    for (name, value) in scalars {
        if let Some(i) = plan.inputs.iter().position(|i| i.name == *name) {
            env.set_scalar(i as u32, *value);
        }
    }
    let mut out = vec![format!("at {}", assumed.join(", "))];
    let bytes: Vec<Option<f64>> = plan
        .buffers
        .iter()
        .map(|b| b.dims.iter().map(|d| int(&mut env, d)).try_fold(b.storage.bytes() as f64, |n, d| d.map(|d| n * d)))
        .collect();
    for kernel in &tiles.kernels {
        let mut loads: BTreeMap<BufId, f64> = BTreeMap::new();
        let mut stores: BTreeSet<BufId> = BTreeSet::new();
        let mut roots = Vec::new();
        let mut passes = Vec::new();
        walk(kernel, &kernel.body, &mut roots, &mut stores, &mut passes);
        for load in reached(kernel, roots) {
            let Expr::Load { buffer, .. } = kernel.expr(load) else { continue };
            let varies = kernel.dims_of(load);
            let mut times = 1.0;
            for d in kernel.grid.iter().filter(|d| !varies.contains(d)) {
                let dim = kernel.dim(*d);
                times *= (int(&mut env, &dim.extent).unwrap_or(1.0) / f64::from(dim.kind.capacity().max(1))).ceil().max(1.0);
            }
            let most = loads.entry(*buffer).or_default();
            *most = most.max(times);
        }
        let size = |b: &BufId| bytes.get(b.0 as usize).copied().flatten();
        let moved: Option<f64> = loads.iter().map(|(b, n)| size(b).map(|s| s * n)).chain(stores.iter().map(&size)).sum();
        let floor: Option<f64> = loads.keys().chain(stores.iter().filter(|s| !loads.contains_key(s))).map(&size).sum();
        let (Some(moved), Some(floor)) = (moved, floor) else { continue };
        let again: Vec<String> = loads.iter().filter(|l| *l.1 > 1.0).map(|(b, n)| format!("{} {n} times", plan.buffers[b.0 as usize].name)).collect();
        let again = if again.is_empty() { "everything once".to_string() } else { again.join(", ") };
        out.push(format!("{}: loads and stores {} at most, {:.1} times its buffers ({again})", kernel.name, amount(moved), moved / floor.max(1.0)));
        out.extend(passes.iter().map(|p| format!("  {p}")));
    }
    let edge = plan.buffers.iter().zip(&bytes).filter(|b| b.0.kind != BufferKind::Temp);
    if let Some(floor) = edge.map(|b| *b.1).sum::<Option<f64>>() {
        out.push(format!("floor: inputs and outputs once are {}", amount(floor)));
    }
    out
}

fn int(env: &mut Env<'_>, expr: &HostExpr) -> Option<f64> {
    env.int(expr, "an extent").ok().map(|n| n as f64)
}

fn amount(bytes: f64) -> String {
    match bytes {
        b if b >= 1e9 => format!("{:.2} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.1} kB", b / 1e3),
    }
}

/// Expressions of statements, buffers that are touched once (stores, rows that are ordered), and a line for every loop.
fn walk(kernel: &TileKernel, body: &[Stmt], roots: &mut Vec<ExprId>, stores: &mut BTreeSet<BufId>, passes: &mut Vec<String>) {
    for stmt in body {
        match stmt {
            Stmt::Map { expr, .. } | Stmt::Reduce { expr, .. } | Stmt::Prefix { expr, .. } => roots.push(*expr),
            Stmt::Dot { a, b, .. } => roots.extend([*a, *b]),
            Stmt::Solve { matrix, rhs, .. } => roots.extend([*matrix, *rhs]),
            Stmt::Store { buffer, index, expr, .. } => {
                stores.insert(*buffer);
                roots.extend(index);
                roots.push(*expr);
            }
            Stmt::Order(o) => {
                roots.extend(o.exprs());
                stores.extend([Some(&o.key), o.mask.as_ref(), Some(&o.out)].into_iter().flatten().map(|r| r.buffer));
            }
            Stmt::Loop(l) => {
                let names: BTreeSet<&str> = l.carries.iter().map(|c| kernel.tile(c.param).name.as_str()).collect();
                let names: Vec<&str> = names.into_iter().collect();
                let carries = if names.is_empty() { "writes its results".to_string() } else { format!("carries {}", names.join(", ")) };
                let zero = |e: ExprId| matches!(kernel.expr(e), Expr::Const(Scalar::Int(0)));
                let end = |e: ExprId| *kernel.expr(e) == Expr::Host(kernel.dim(l.dim).extent.clone());
                let bounded = !zero(l.lo) || !end(l.hi);
                let skips = match (bounded, l.empty.is_some(), l.full.is_some()) {
                    (false, false, false) => "visits every block",
                    (true, false, _) => "its bounds are computed",
                    (false, _, _) => "skips blocks by its mask",
                    (true, true, _) => "its bounds are computed, inside them it skips blocks by its mask",
                };
                passes.push(format!("a pass over {} in blocks of {} {carries}; {skips}", kernel.dim(l.dim).name, kernel.dim(l.dim).kind.capacity()));
                roots.extend([Some(l.lo), Some(l.hi), l.empty, l.full].into_iter().flatten());
                walk(kernel, &l.head, roots, stores, passes);
                walk(kernel, &l.body, roots, stores, passes);
            }
        }
    }
}

fn reached(kernel: &TileKernel, roots: Vec<ExprId>) -> BTreeSet<ExprId> {
    let mut seen = BTreeSet::new();
    let mut todo = roots;
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        match kernel.expr(id) {
            Expr::Op { args, .. } => todo.extend(args),
            Expr::TileAt { at, .. } => todo.extend(at.iter().map(|a| a.1)),
            Expr::Load { index, .. } => todo.extend(index),
            Expr::Masked { cond, value, other, .. } => todo.extend([cond, value, other]),
            Expr::Const(_) | Expr::Host(_) | Expr::Pos(_) | Expr::Start(_) | Expr::Stop(_) | Expr::Tile(_) => {}
        }
    }
    seen
}
