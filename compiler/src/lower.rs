//! The pipeline: a checked graph to kernels and a host plan.

use crate::graph::Graph;
use crate::kernel::caps::Caps;
use crate::kernel::plan::Program;
use crate::passes::algebra::{hoist_factors, sink_scales};
use crate::passes::chunk::chunk_scans;
use crate::passes::complex::split_complex;
use crate::passes::cost::Sizes;
use crate::passes::legalize::{legalize, lower_warps};
use crate::passes::order::expand_order;
use crate::passes::partition::{Partition, partition};
use crate::passes::reads::push_reads;
use crate::passes::rewrite::Work;
use crate::passes::split::split;
use crate::passes::steps::Steps;
use crate::passes::stream::stream;
use crate::passes::tile::{Extents, TileOptions, tile};
use crate::tiles::TileProgram;
use std::collections::BTreeSet;

pub use crate::passes::error::CompileError;

/// What a lowering needs to know besides the program.
#[derive(Clone, Debug)]
pub struct Options {
    /// Extents known now, by axis; only those of axes that tiles hold whole are used.
    pub extents: Extents,
    pub caps: Caps,
    pub tile: TileOptions,
}

/// The IRs on the way, for `--emit` and `explain`.
#[derive(Clone, Debug)]
pub struct Stages {
    pub graph: Graph,
    pub partition: Partition,
    pub tiles: TileProgram,
    pub program: Program,
}

/// Lowers a graph to kernels for a target.
///
/// Errors: [`CompileError::NeedExtent`] when the extent of an axis must be known; [`CompileError::Unsupported`] for programs that
/// no kernel form fits; [`CompileError::Bug`] when a pass broke an invariant.
pub fn lower(graph: &Graph, options: &Options) -> Result<Program, CompileError> {
    Ok(lower_stages(graph, options)?.program)
}

/// As `lower`, keeping every IR.
pub fn lower_stages(graph: &Graph, options: &Options) -> Result<Stages, CompileError> {
    // Extents that depend on tensor values are scalars of the call: whoever launches has computed them with the first program.
    let staged = crate::graph::staged::staged(graph);
    let graph = staged.as_ref().map_or(graph, |s| &s.second);
    let work = Work { graph: graph.clone(), cuts: BTreeSet::new() };
    // Prefixes and, unless the target has a sort, order operations become reductions and scans first: later passes know only those.
    let work = expand_order(work, options.caps.sort);
    let work = split_complex(work);
    // Scans become scans over chunks where their step is affine.
    let mut remarks = Vec::new();
    let work = match options.tile.chunks {
        Some(chunks) => chunk_scans(work, chunks, &mut remarks),
        None => work,
    };
    // Index arithmetic meets the memory it addresses.
    let work = push_reads(work);
    // Cascades: sums become sums that one pass can carry; factors that wait for other reductions leave them; then scales move
    // onto the smaller operand.
    let (work, passes) = stream(work);
    let work = hoist_factors(work);
    let work = sink_scales(work);
    // Long axes that too few blocks would walk.
    let (work, spans) = split(work);
    let steps = Steps::new(&work.graph);
    let sizes = Sizes::new(&work.graph);
    let mut partition = partition(&work, &steps, &sizes, &spans);
    partition.remarks.extend(passes);
    // Twins and order axes that passes added have no known extent of their own.
    let mut extents = options.extents.clone();
    complete(&work.graph, &mut extents);
    let mut tiles = tile(&work, &steps, &sizes, &partition, &extents, &options.tile)?;
    tiles.plan.remarks.splice(0..0, remarks);
    for kernel in &tiles.kernels {
        let faults = crate::tiles::verify::verify(kernel);
        if !faults.is_empty() {
            return Err(CompileError::Bug { pass: "tile", what: format!("{faults:?}\n{}", crate::tiles::text::kernel(kernel, &tiles.plan)) });
        }
    }
    let program = with_roles(&tiles, options, |t| tile(&work, &steps, &sizes, &partition, &extents, t))?;
    Ok(Stages { graph: work.graph, partition, tiles, program })
}

/// Kernel IR of all kernels. Where the target has asynchronous matrix units, a kernel whose tiles fit them in some shape is lowered for them,
/// from tiles of that shape; the others from the plain tiles.
fn with_roles(plain: &TileProgram, options: &Options, retile: impl Fn(&TileOptions) -> Result<TileProgram, CompileError>) -> Result<Program, CompileError> {
    let mut program = legalize(plain.clone(), &options.caps)?;
    let Some(units) = &options.caps.matrix else { return Ok(program) };
    let mut done = vec![false; plain.kernels.len()];
    let mut why = vec![String::new(); plain.kernels.len()];
    for (math, keys) in &units.shapes {
        if done.iter().all(|d| *d) {
            break;
        }
        let sizes = TileOptions { rows: math * crate::kernel::warp::GROUP_ROWS, keys: *keys, tile_limit: usize::MAX, ..options.tile.clone() };
        // A shape that the tiles do not take is none; the plain tiles stand.
        let Ok(shaped) = retile(&sizes) else { continue };
        for (i, kernel) in shaped.kernels.iter().enumerate() {
            if done[i] {
                continue;
            }
            match lower_warps(kernel, &shaped.plan, &options.caps, units, *math, i as u32) {
                Ok((kernel, launch)) => {
                    program.plan.remarks.push(format!("kernel {i} runs on matrix units: {} rows, {keys} positions at a time", sizes.rows));
                    program.kernels[i] = kernel;
                    program.plan.launches[i] = launch;
                    done[i] = true;
                }
                Err(e) if e.starts_with("bug") => return Err(CompileError::Bug { pass: "warps", what: e }),
                Err(e) => why[i] = e,
            }
        }
    }
    for (i, why) in why.iter().enumerate().filter(|w| !done[w.0] && !w.1.is_empty()) {
        program.plan.remarks.push(format!("kernel {i} runs on plain lanes: {why}"));
    }
    Ok(program)
}

/// Extents of axes that passes added: they equal the extent of their twin.
fn complete(graph: &Graph, extents: &mut Extents) {
    extents.resize(graph.axes.len(), None);
    for i in 0..graph.axes.len() {
        if extents[i].is_none() {
            if let Some(twin) = graph.axes[i].twin {
                extents[i] = extents[twin.index()];
            }
        }
        if let Some(split) = graph.axes[i].split {
            extents[i] = Some(i64::from(split.block));
        }
    }
}
