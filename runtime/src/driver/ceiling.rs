//! What a processor reaches when it does nothing but tile products that stay in its caches: the ceiling that `bench` compares with.

use super::{Device, Slot};
use crate::error::RuntimeError;
use crate::plan::{BufferCall, Call, LaunchCall};
use attnc_compiler::kernel::plan::{BufferKind, Plan, Program};
use attnc_compiler::kernel::{Kernel, KernelBuilder, Storage, TileCall};
use attnc_compiler::ops::DType;
use std::time::Instant;

/// Side of the square tiles, and products in one block.
const SIDE: usize = 256;
const ROUNDS: i64 = 20;

/// Multiplies two tiles again and again; the corner of the result is stored, so nothing can be left out.
fn kernel() -> Kernel {
    let mut b = KernelBuilder::new("ceiling", 1);
    let out = b.buffer("out", DType::Real, Storage::F32, true);
    let [x, y, z] = ["x", "y", "z"].map(|name| b.local(name, DType::Real, SIDE * SIDE));
    let (zero, one, n) = (b.int(0), b.int(1), b.int(SIDE as i64));
    let (all, rounds, small) = (b.int((SIDE * SIDE) as i64), b.int(ROUNDS), b.real(1e-3));
    b.count(all, |b, i| {
        b.store(x, i, small);
        b.store(y, i, small);
    });
    b.count(rounds, |b, _| {
        let (pa, pb, pc) = (b.place(x, zero), b.place(y, zero), b.place(z, zero));
        b.tile(TileCall::Dot { m: n, n, k: n, a: pa, a_m: n, a_k: one, b: pb, b_k: n, b_n: one, c: pc, c_m: n, c_n: one, accumulate: false, narrow: false });
    });
    let corner = b.load(z, zero);
    let block = b.block();
    b.store(out, block, corner);
    b.finish()
}

/// Floating point operations in a second that tile products reach on `blocks` blocks at once; the best of five runs.
///
/// Errors: those of loading and running.
pub fn products(device: &dyn Device, blocks: usize) -> Result<f64, RuntimeError> {
    let plan = Plan {
        name: "ceiling".to_string(),
        axes: vec![],
        inputs: vec![],
        outputs: vec![],
        requires: vec![],
        buffers: vec![],
        launches: vec![],
        fixed: vec![],
        remarks: vec![],
    };
    let code = device.load(&Program { plan, kernels: vec![kernel()] }, None)?;
    let bytes = blocks * Storage::F32.bytes();
    let buffer = BufferCall { kind: BufferKind::Output(0), storage: Storage::F32, dims: vec![blocks], elements: blocks, bytes };
    let launch = LaunchCall { kernel: 0, blocks: blocks as u64, buffers: vec![0], ints: vec![], reals: vec![] };
    let call = Call { buffers: vec![buffer], launches: vec![launch] };
    let mut out = vec![0f32; blocks];
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        code.execute(&call, &mut [Slot::Out(bytemuck::cast_slice_mut(&mut out))])?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(2.0 * (SIDE as f64).powi(3) * ROUNDS as f64 * blocks as f64 / best)
}
