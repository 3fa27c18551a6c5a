//! Tiles to kernels with roles, for targets with asynchronous matrix units (decision 7).
//!
//! A tile kernel whose loops hold products becomes two programs: a copying role that fills rings by tensor copies, and math groups of 64
//! rows each that keep every tile in registers. The steps: `form` decides what each tile and each operand is and whether the kernel fits;
//! `pipeline` gives every op of a loop body a stage and an order; `program` writes the text of both roles, which meet the same slots in the
//! same order because one walk writes either. What does not fit gets a reason and is lowered to plain lanes.

mod form;
mod nodes;
mod pipeline;
mod program;

use super::Lower;
use crate::kernel::Kernel;
use crate::kernel::caps::MatrixUnits;
use crate::kernel::plan::*;
use crate::tiles::*;

/// Lowers one kernel for `math` groups. Errors: why the form does not fit, for remarks.
pub(crate) fn lower_warps(k: &TileKernel, plan: &Plan, caps: &super::Caps, units: &MatrixUnits, math: u32, number: u32) -> Result<(Kernel, Launch), String> {
    let form = form::Form::new(k, plan, units, math)?;
    let mut l = Lower::new(k, plan, caps, 128 * (1 + math));
    l.declare_buffers();
    let blocks = l.roles(&form, units)?;
    let buffers = l.buffers.keys().map(|b| b.0).collect();
    let (ints, reals) = (std::mem::take(&mut l.ints), std::mem::take(&mut l.reals));
    let kernel = l.b.finish();
    let faults = crate::kernel::verify::verify(&kernel);
    if !faults.is_empty() {
        return Err(format!("bug: {faults:?}"));
    }
    Ok((kernel, Launch { kernel: number, blocks, buffers, ints, reals }))
}
