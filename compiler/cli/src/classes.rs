//! Tile classes as a picture: which blocks a masked loop visits, and in which of them it must look at the mask.
//!
//! The conditions that the compiled loops carry are evaluated for every pair of blocks, for extents and scalars of a made-up call.

use attnc_compiler::graph::AxisId;
use attnc_compiler::ops::{Scalar, ScalarOp};
use attnc_compiler::passes::cost::Sizes;
use attnc_compiler::tiles::{Dim, DimId, Expr, ExprId, Loop, Stmt, TileKernel, TileProgram};
use attnc_runtime::host::{Env, Ints};
use std::collections::HashMap;
use std::fmt::Write;

/// What a loop does with one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Outside the bounds of the loop, or nothing passes the mask: not visited.
    Empty,
    /// Every element tests the mask.
    Partial,
    /// The mask is not evaluated.
    Full,
    /// Decided when the block is met, by values from memory.
    Data,
}

/// Classes of one loop: a row for each block of a grid dimension, a column for each block of the loop.
#[derive(Clone, Debug)]
pub struct Picture {
    pub kernel: String,
    /// Name, extent and block of the axis of rows and of columns.
    pub axes: [(String, i64, i64); 2],
    pub rows: Vec<Vec<Class>>,
}

/// Extent of long axes when the caller gives none.
const LONG: i64 = 1024;
/// Most blocks along a side of a picture.
const MOST: i64 = 256;

/// Pictures of all loops whose blocks are classified. Extents that nobody gives are 1024 for axes of positions and 1 for others.
pub fn pictures(tiles: &TileProgram, sizes: &Sizes, extents: &[(String, i64)], scalars: &[(String, Scalar)]) -> Vec<Picture> {
    let plan = &tiles.plan;
    let mut env = Env::new(&plan.axes, &plan.inputs);
    for (i, axis) in plan.axes.iter().enumerate().filter(|a| a.1.extent.is_none()) {
        let given = extents.iter().find(|e| e.0 == axis.name).map(|e| e.1);
        let usual = if sizes.is_long(AxisId(i as u32)) { LONG } else { 1 };
        env.set_extent(i as u32, given.unwrap_or(usual));
    }
    for (name, value) in scalars {
        if let Some(i) = plan.inputs.iter().position(|i| i.name == *name) {
            env.set_scalar(i as u32, *value);
        }
    }
    let mut out = Vec::new();
    for kernel in &tiles.kernels {
        walk(kernel, &kernel.body, &mut |l| out.extend(picture(kernel, l, &mut env)));
    }
    out
}

/// The outermost classified loops.
fn walk<'a>(kernel: &'a TileKernel, body: &'a [Stmt], found: &mut impl FnMut(&'a Loop)) {
    for stmt in body {
        if let Stmt::Loop(l) = stmt {
            if l.empty.is_some() || l.full.is_some() { found(l) } else { walk(kernel, &l.body, found) }
        }
    }
}

fn picture(kernel: &TileKernel, l: &Loop, env: &mut Env<'_>) -> Option<Picture> {
    let mut at = Blocks { kernel, env, spans: HashMap::new() };
    let mut sizes: HashMap<DimId, (i64, i64)> = HashMap::new();
    for id in kernel.grid.iter().chain([&l.dim]) {
        let dim = kernel.dim(*id);
        let extent = at.env.int(&dim.extent, &dim.name).ok()?;
        sizes.insert(*id, (extent, i64::from(dim.kind.capacity()).max(1)));
    }
    // Rows: the grid dimension whose blocks the loop speaks of; with several the one with the most blocks.
    let mentioned = mentioned(kernel, l);
    let blocks = |id: &DimId| sizes.get(id).map_or(0, |(n, b)| (n + b - 1).div_euclid(*b));
    let row = kernel.grid.iter().filter(|d| mentioned.contains(d)).max_by_key(|d| blocks(d)).or(kernel.grid.last())?;
    for id in &kernel.grid {
        let (extent, block) = sizes[id];
        at.spans.insert(*id, (0, block.min(extent)));
    }
    let ((height, high), (width, wide)) = (sizes[row], sizes[&l.dim]);
    let mut rows = Vec::new();
    for i in 0..blocks(row).min(MOST) {
        at.spans.insert(*row, (i * high, ((i + 1) * high).min(height)));
        let bound = |at: &mut Blocks<'_, '_, '_>, e| match at.value(e) {
            Some(Scalar::Int(n)) => Some(n),
            _ => None,
        };
        let (lo, hi) = (bound(&mut at, l.lo), bound(&mut at, l.hi));
        let mut classes = Vec::new();
        for j in 0..blocks(&l.dim).min(MOST) {
            let span = (j * wide, ((j + 1) * wide).min(width));
            at.spans.insert(l.dim, span);
            let outside = lo.is_some_and(|lo| span.1 <= lo.div_euclid(wide) * wide) || hi.is_some_and(|hi| span.0 >= hi);
            let mut holds = |e: Option<ExprId>| e.map_or(Some(Scalar::Bool(false)), |e| at.value(e));
            classes.push(match (outside, holds(l.empty), holds(l.full)) {
                (true, _, _) | (_, Some(Scalar::Bool(true)), _) => Class::Empty,
                (_, _, Some(Scalar::Bool(true))) => Class::Full,
                (_, Some(_), Some(_)) => Class::Partial,
                (_, None, _) | (_, _, None) => Class::Data,
            });
            at.spans.remove(&l.dim);
        }
        rows.push(classes);
    }
    let name = |d: &Dim| d.name.clone();
    Some(Picture { kernel: kernel.name.clone(), axes: [(name(kernel.dim(*row)), height, high), (name(kernel.dim(l.dim)), width, wide)], rows })
}

/// Dimensions whose blocks the conditions and bounds of a loop read.
fn mentioned(kernel: &TileKernel, l: &Loop) -> Vec<DimId> {
    let mut out = Vec::new();
    let mut todo: Vec<ExprId> = [Some(l.lo), Some(l.hi), l.empty, l.full].into_iter().flatten().collect();
    let mut seen = std::collections::HashSet::new();
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        match kernel.expr(id) {
            Expr::Start(d) | Expr::Stop(d) => out.push(*d),
            Expr::Op { args, .. } => todo.extend(args),
            Expr::Masked { cond, value, other, .. } => todo.extend([cond, value, other]),
            Expr::Const(_) | Expr::Host(_) | Expr::Pos(_) | Expr::Tile(_) | Expr::TileAt { .. } | Expr::Load { .. } => {}
        }
    }
    out
}

/// Evaluates uniform expressions at one choice of blocks.
struct Blocks<'a, 'e, 'p> {
    kernel: &'a TileKernel,
    env: &'e mut Env<'p>,
    /// First position and one past the last, of the dimensions that have a block now.
    spans: HashMap<DimId, (i64, i64)>,
}

impl Blocks<'_, '_, '_> {
    /// `None` for what only memory knows. A conjunction is decided by one side that is false, a disjunction by one that is true.
    fn value(&mut self, id: ExprId) -> Option<Scalar> {
        let kernel = self.kernel;
        match kernel.expr(id) {
            Expr::Const(c) => Some(*c),
            Expr::Host(h) => self.env.eval(h, Ints::Wrap).ok(),
            Expr::Start(d) => self.spans.get(d).map(|s| Scalar::Int(s.0)),
            Expr::Stop(d) => self.spans.get(d).map(|s| Scalar::Int(s.1)),
            Expr::Op { op, args } => {
                let values: Vec<Option<Scalar>> = args.iter().map(|a| self.value(*a)).collect();
                match op {
                    ScalarOp::And if values.contains(&Some(Scalar::Bool(false))) => return Some(Scalar::Bool(false)),
                    ScalarOp::Or if values.contains(&Some(Scalar::Bool(true))) => return Some(Scalar::Bool(true)),
                    ScalarOp::Select if values.len() == 3 && values[1] == values[2] => return values[1],
                    ScalarOp::Select if values.len() == 3 => match values[0]? {
                        Scalar::Bool(true) => return values[1],
                        Scalar::Bool(false) => return values[2],
                        Scalar::Int(_) | Scalar::Real(_) | Scalar::Complex(..) => return None,
                    },
                    _ => {}
                }
                op.eval(&values.into_iter().collect::<Option<Vec<_>>>()?)
            }
            Expr::Pos(_) | Expr::Tile(_) | Expr::TileAt { .. } | Expr::Load { .. } | Expr::Masked { .. } => None,
        }
    }
}

impl Picture {
    /// How many blocks have a class.
    pub fn count(&self, class: Class) -> usize {
        self.rows.iter().flatten().filter(|c| **c == class).count()
    }

    /// Height of the drawing.
    pub fn height(&self) -> i64 {
        (self.side() * self.rows.len() as i64).max(30) + 100
    }

    fn side(&self) -> i64 {
        let most = self.rows.len().max(self.rows.first().map_or(0, Vec::len)).max(1) as i64;
        (512 / most).clamp(2, 24)
    }

    /// Draws it with its upper left corner at height `top`.
    pub fn draw(&self, out: &mut String, top: i64) -> std::fmt::Result {
        let side = self.side();
        let [rows, columns] = &self.axes;
        writeln!(out, r#"<text x="20" y="{}" font-size="13">{}: blocks of {} {} by {} {}</text>"#, top + 20, self.kernel, rows.2, rows.0, columns.2, columns.0)?;
        let legend = [(Class::Full, "full"), (Class::Partial, "partial"), (Class::Data, "by data"), (Class::Empty, "not visited")];
        let mut x = 20;
        for (class, word) in legend.into_iter().filter(|l| self.count(l.0) > 0) {
            writeln!(out, r##"<rect x="{x}" y="{}" width="10" height="10" fill="{}" stroke="#999"/>"##, top + 30, colour(class))?;
            let text = format!("{word} {}", self.count(class));
            writeln!(out, r#"<text x="{}" y="{}">{text}</text>"#, x + 14, top + 39)?;
            x += 30 + 7 * text.len() as i64;
        }
        writeln!(out, r#"<text x="80" y="{}">{} 0 .. {}</text>"#, top + 62, columns.0, columns.1)?;
        writeln!(out, r#"<text x="20" y="{}">{}</text><text x="20" y="{}">0 .. {}</text>"#, top + 80, rows.0, top + 94, rows.1)?;
        for (i, row) in self.rows.iter().enumerate() {
            // Neighbours of one class are one rectangle.
            let mut start = 0;
            for j in 1..=row.len() {
                if j == row.len() || row[j] != row[start] {
                    if row[start] != Class::Empty {
                        let (x, y) = (80 + side * start as i64, top + 68 + side * i as i64);
                        writeln!(out, r#"<rect x="{x}" y="{y}" width="{}" height="{side}" fill="{}"/>"#, side * (j - start) as i64, colour(row[start]))?;
                    }
                    start = j;
                }
            }
        }
        let (width, height) = (side * self.rows.first().map_or(0, Vec::len) as i64, side * self.rows.len() as i64);
        writeln!(out, r##"<rect x="80" y="{}" width="{width}" height="{height}" fill="none" stroke="#444"/>"##, top + 68)
    }
}

fn colour(class: Class) -> &'static str {
    match class {
        Class::Empty => "#ffffff",
        Class::Partial => "#f2b134",
        Class::Full => "#3a6ea5",
        Class::Data => "#9b7fb8",
    }
}

/// One line for the text of `explain`.
pub fn line(p: &Picture) -> String {
    let visited = p.rows.iter().flatten().count() - p.count(Class::Empty);
    let all = p.rows.iter().flatten().count();
    let data = if p.count(Class::Data) > 0 { format!(", {} decided by data", p.count(Class::Data)) } else { String::new() };
    let [rows, columns] = &p.axes;
    format!(
        "{}: at {} = {}, {} = {}, {visited} of {all} blocks are visited ({} full, {} partial{data})",
        p.kernel, rows.0, rows.1, columns.0, columns.1, p.count(Class::Full), p.count(Class::Partial)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use attnc_compiler::kernel::caps::Caps;
    use attnc_compiler::lower::{Options, lower_stages};
    use attnc_compiler::passes::tile::TileOptions;

    fn classes(mask: &str) -> Picture {
        let source = format!("kernel p(q: [t,d], k: [t,d], v: [t,e], n: int = 100) -> (o: [t,e]) {{\n axis s: T\n o = sum[s] softmax[s](sum[d] q * k[t = s] where {mask}) * v[t = s] }}");
        let checked = attnc_compiler::sema::check(&source);
        assert!(!checked.failed(), "{:?}", checked.diagnostics);
        let graph = &checked.graphs[0];
        let extents = graph.axes.iter().map(|a| ["d", "e"].contains(&a.name.as_str()).then_some(16)).collect();
        let stages = lower_stages(graph, &Options { extents, caps: Caps::cpu(), tile: TileOptions::default() }).unwrap_or_else(|e| panic!("{e}"));
        let found = pictures(&stages.tiles, &Sizes::new(&stages.graph), &[("t".to_string(), 512)], &[]);
        assert_eq!(found.len(), 1, "{mask}");
        found.into_iter().next().unwrap_or_else(|| panic!("{mask}"))
    }

    /// Blocks of 64 by 64 over 512 positions.
    #[test]
    fn a_lower_triangle_has_full_blocks_below_its_diagonal() {
        let p = classes("s <= t");
        for (i, row) in p.rows.iter().enumerate() {
            for (j, class) in row.iter().enumerate() {
                let want = if j < i { Class::Full } else if j == i { Class::Partial } else { Class::Empty };
                assert_eq!(*class, want, "row {i} column {j}");
            }
        }
    }

    #[test]
    fn a_band_visits_what_it_keeps() {
        let p = classes("0 <= t - s < n");
        assert_eq!(p.rows.len(), 8);
        // 100 positions reach into two blocks before the own one.
        assert_eq!(p.rows[7].iter().filter(|c| **c != Class::Empty).count(), 3);
        assert_eq!(p.count(Class::Full), 0);
    }
}
