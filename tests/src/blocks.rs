//! What a masked loop visits: its bounds and conditions evaluated block by block, values from memory included, next to the truth.

use attnc_compiler::graph::bind::bind;
use attnc_compiler::interp::{Array, Data, run};
use attnc_compiler::kernel::caps::Caps;
use attnc_compiler::kernel::plan::BufferKind;
use attnc_compiler::lower::{Options, lower_stages};
use attnc_compiler::ops::{DType, Scalar};
use attnc_compiler::passes::tile::TileOptions;
use attnc_compiler::tiles::{BufId, DimId, Expr, ExprId, Loop, Stmt, TileId, TileKernel};
use attnc_runtime::host::{Env, Ints};
use std::collections::{BTreeMap, HashMap};

/// Counts over all pairs of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visits {
    pub blocks: usize,
    /// Bodies that run, and those that do not test the mask.
    pub visited: usize,
    pub full: usize,
    /// Blocks with an element that passes, and blocks all of whose elements do.
    pub needed: usize,
    pub whole: usize,
    /// Blocks skipped though an element passes, or taken as full though one does not.
    pub wrong: usize,
}

struct At<'a, 'p> {
    k: &'a TileKernel,
    env: Env<'p>,
    buffers: HashMap<BufId, &'a Array>,
    spans: HashMap<DimId, (i64, i64)>,
    pos: HashMap<DimId, i64>,
    tiles: HashMap<TileId, Scalar>,
}

impl At<'_, '_> {
    fn value(&mut self, id: ExprId) -> Option<Scalar> {
        let k = self.k;
        Some(match k.expr(id) {
            Expr::Const(c) => *c,
            Expr::Host(h) => self.env.eval(h, Ints::Wrap).ok()?,
            Expr::Start(d) => Scalar::Int(self.spans.get(d)?.0),
            Expr::Stop(d) => Scalar::Int(self.spans.get(d)?.1),
            Expr::Pos(d) => Scalar::Int(*self.pos.get(d)?),
            Expr::Op { op, args } => {
                let values = args.iter().map(|a| self.value(*a)).collect::<Option<Vec<_>>>()?;
                op.eval(&values)?
            }
            Expr::Tile(t) => *self.tiles.get(t)?,
            Expr::TileAt { .. } => return None,
            Expr::Load { buffer, index, .. } => {
                let array = *self.buffers.get(buffer)?;
                let mut at = 0usize;
                for (i, n) in index.iter().zip(&array.shape) {
                    let Scalar::Int(i) = self.value(*i)? else { return None };
                    if i < 0 || i >= *n as i64 {
                        return Some(match &array.data {
                            Data::Bool(_) => Scalar::Bool(false),
                            _ => Scalar::Int(0),
                        });
                    }
                    at = at * n + i as usize;
                }
                match &array.data {
                    Data::Int(x) => Scalar::Int(x[at]),
                    Data::Bool(x) => Scalar::Bool(x[at]),
                    _ => return None,
                }
            }
            Expr::Masked { cond, value, other, .. } => match self.value(*cond)? {
                Scalar::Bool(true) => self.value(*value)?,
                _ => self.value(*other)?,
            },
        })
    }

    /// Uniform results that conditions read.
    fn reduce(&mut self, stmt: &Stmt) {
        let Stmt::Reduce { out, op, over, expr, carried: None } = stmt else { return };
        let tile = self.k.tile(*out);
        if !tile.dims.is_empty() || tile.dtype == DType::Real {
            return;
        }
        let mut all = vec![vec![]];
        for d in over {
            let Some((lo, hi)) = self.spans.get(d).copied() else { return };
            all = all.iter().flat_map(|p: &Vec<i64>| (lo..hi).map(move |i| p.iter().copied().chain([i]).collect())).collect();
        }
        let mut total = op.identity(tile.dtype);
        for p in all {
            over.iter().zip(p).for_each(|(d, i)| {
                self.pos.insert(*d, i);
            });
            let (Some(value), Some(combine)) = (self.value(*expr), op.combine()) else { return };
            total = combine.eval(&[total, value]).unwrap_or(total);
        }
        over.iter().for_each(|d| {
            self.pos.remove(d);
        });
        self.tiles.insert(*out, total);
    }
}

/// Visits of the loop over `s` in attention over `t` queries and keys with this mask, in blocks of `block` by `block`. `inputs` are
/// Int or Bool tensors that the mask reads, with their axes; `scalars` Ints.
pub fn visits(mask: &str, t: usize, block: u32, inputs: &[(&str, &str, Array)], scalars: &[(&str, i64)]) -> Result<Visits, String> {
    let mut header: Vec<String> = inputs.iter().map(|(n, axes, a)| format!("{n}: {} [{axes}]", if matches!(a.data, Data::Bool(_)) { "bool" } else { "int" })).collect();
    header.extend(scalars.iter().map(|s| format!("{}: int", s.0)));
    let extra = header.iter().map(|h| format!(", {h}")).collect::<String>();
    let source = format!("kernel p(q: [t,d], k: [t,d], v: [t,e]{extra}) -> (o: [t,e]) {{\n axis s: T\n mask seen = {mask}\n o = sum[s] softmax[s](sum[d] q * k[t = s] where seen) * v[t = s]\n}}");
    let truth = format!("kernel p(q: [t]{extra}) -> (o: int [t,s]) {{\n axis s: T\n mask seen = {mask}\n o = if seen then 1 else 0\n}}");
    let real = |shape: &[usize]| Array::real(shape, vec![0.5; shape.iter().product()]);
    let mut given: BTreeMap<String, Array> = inputs.iter().map(|(n, _, a)| (n.to_string(), a.clone())).collect();
    let scalars: BTreeMap<String, Scalar> = scalars.iter().map(|(n, v)| (n.to_string(), Scalar::Int(*v))).collect();
    let meaning = crate::graph_of(&truth)?;
    given.insert("q".to_string(), real(&[t]));
    let meant = run(&meaning, &given, &scalars).map_err(|e| format!("{mask}: {e}"))?;
    let Data::Int(seen) = &meant["o"].data else { return Err("no ints".to_string()) };
    for (name, shape) in [("q", [t, 16]), ("k", [t, 16]), ("v", [t, 16])] {
        given.insert(name.to_string(), real(&shape));
    }
    let graph = crate::graph_of(&source)?;
    let shapes = given.iter().map(|(n, a)| (n.clone(), a.shape.clone())).collect();
    let bound = bind(&graph, &shapes, &scalars).map_err(|e| e.to_string())?;
    let extents = bound.extents.iter().map(|e| Some(*e as i64)).collect();
    let tile = TileOptions { rows: block, keys: block, ..TileOptions::default() };
    let stages = lower_stages(&graph, &Options { extents, caps: Caps::cpu(), tile }).map_err(|e| e.to_string())?;
    let plan = &stages.tiles.plan;
    let kernel = stages.tiles.kernels.last().ok_or("no kernel")?;
    let mut env = Env::new(&plan.axes, &plan.inputs);
    for (i, extent) in bound.extents.iter().enumerate() {
        env.set_extent(i as u32, *extent as i64);
    }
    for (i, input) in plan.inputs.iter().enumerate() {
        if let Some(value) = scalars.get(&input.name) {
            env.set_scalar(i as u32, *value);
        }
    }
    let mut buffers = HashMap::new();
    for (i, buffer) in plan.buffers.iter().enumerate() {
        if let BufferKind::Input(n) = buffer.kind {
            buffers.insert(BufId(i as u32), &given[&plan.inputs[n as usize].name]);
        }
    }
    let mut at = At { k: kernel, env, buffers, spans: HashMap::new(), pos: HashMap::new(), tiles: HashMap::new() };
    let (t, step) = (t as i64, i64::from(block));
    let mut found = Visits::default();
    for row in 0..(t + step - 1) / step {
        at.tiles.clear();
        for d in &kernel.grid {
            at.spans.insert(*d, (row * step, ((row + 1) * step).min(t)));
        }
        let mut loops = 0;
        for stmt in &kernel.body {
            at.reduce(stmt);
            if let Stmt::Loop(l) = stmt {
                loops += 1;
                walk(&mut at, l, row, t, step, seen, &mut found)?;
            }
        }
        if loops != 1 {
            return Err(format!("{mask}: {loops} loops"));
        }
    }
    Ok(found)
}

fn walk(at: &mut At<'_, '_>, l: &Loop, row: i64, t: i64, step: i64, seen: &[i64], found: &mut Visits) -> Result<(), String> {
    let mut bound = |e| match at.value(e) {
        Some(Scalar::Int(n)) => Ok(n),
        other => Err(format!("a bound of the loop is {other:?}")),
    };
    let (lo, hi) = (bound(l.lo)?, bound(l.hi)?);
    let lo = lo - lo.rem_euclid(step);
    for column in 0..(t + step - 1) / step {
        let span = (column * step, ((column + 1) * step).min(t));
        let rows = row * step..((row + 1) * step).min(t);
        let elements = || rows.clone().flat_map(|i| (span.0..span.1).map(move |j| seen[(i * t + j) as usize]));
        let (any, all) = (elements().any(|x| x != 0), elements().all(|x| x != 0));
        let (mut visited, mut full) = (span.0 >= lo && span.0 < hi, false);
        if visited {
            at.spans.insert(l.dim, span);
            l.head.iter().for_each(|s| at.reduce(s));
            let mut holds = |e: Option<ExprId>| match e.map(|e| at.value(e)) {
                None => Ok(false),
                Some(Some(Scalar::Bool(b))) => Ok(b),
                Some(other) => Err(format!("a condition of the loop is {other:?}")),
            };
            visited = !holds(l.empty)?;
            full = visited && holds(l.full)?;
            at.spans.remove(&l.dim);
        }
        found.blocks += 1;
        found.visited += usize::from(visited);
        found.full += usize::from(full);
        found.needed += usize::from(any);
        found.whole += usize::from(all);
        found.wrong += usize::from((any && !visited) || (full && !all));
    }
    Ok(())
}
