//! A device made of the interpreter of kernel IR: kernels for matrix units run, and are checked, on machines without any.

use attnc_compiler::interp::kernel::{Cells, LaneOrder, Precision, eval};
use attnc_compiler::kernel::caps::{Caps, MatrixUnits, TileOptions};
use attnc_compiler::kernel::plan::Program;
use attnc_compiler::kernel::{Kernel, Storage};
use attnc_compiler::ops::Scalar;
use attnc_runtime::RuntimeError;
use attnc_runtime::cache::Cache;
use attnc_runtime::driver::{Device, Executable, Slot};
use attnc_runtime::plan::Call;

/// Matrix units with this many math groups and positions of a loop block; reals are stored in 16 bits.
#[derive(Debug)]
pub struct Simulated {
    pub math: u32,
    pub keys: u32,
}

struct Kernels(Vec<Kernel>);

fn decode(storage: Storage, bytes: &[u8], bool: bool) -> Cells {
    let each = bytes.chunks_exact(storage.bytes());
    each.map(|b| {
        let wide = |n: usize| b.iter().take(n).enumerate().fold(0u64, |x, (i, b)| x | u64::from(*b) << (8 * i));
        let x = match storage {
            Storage::F32 => Scalar::Real(f64::from(f32::from_bits(wide(4) as u32))),
            Storage::Bf16 => Scalar::Real(f64::from(f32::from_bits((wide(2) as u32) << 16))),
            Storage::I32 => Scalar::Int(i64::from(wide(4) as u32 as i32)),
            Storage::I64 => Scalar::Int(wide(8) as i64),
            _ => Scalar::Int(wide(1) as i64),
        };
        Some(match x {
            Scalar::Int(v) if bool => Scalar::Bool(v != 0),
            x => x,
        })
    })
    .collect()
}

fn encode(storage: Storage, cells: &Cells, bytes: &mut [u8]) {
    for (cell, to) in cells.iter().zip(bytes.chunks_exact_mut(storage.bytes())) {
        let Some(cell) = cell else { continue };
        let wide = match (storage, cell) {
            (Storage::F32, Scalar::Real(x)) => u64::from((*x as f32).to_bits()),
            // Stores have rounded already.
            (_, Scalar::Real(x)) => u64::from((*x as f32).to_bits() >> 16),
            (_, Scalar::Int(x)) => *x as u64,
            (_, Scalar::Bool(x)) => u64::from(*x),
            (_, Scalar::Complex(..)) => 0,
        };
        to.iter_mut().enumerate().for_each(|(i, b)| *b = (wide >> (8 * i)) as u8);
    }
}

impl Executable for Kernels {
    fn execute(&self, call: &Call, slots: &mut [Slot<'_>]) -> Result<(), RuntimeError> {
        let mut all: Vec<Cells> = vec![];
        for (buffer, slot) in call.buffers.iter().zip(slots.iter()) {
            all.push(match slot {
                Slot::In(bytes) => decode(buffer.storage, bytes, false),
                Slot::Out(_) | Slot::Temp => vec![None; buffer.bytes / buffer.storage.bytes()],
            });
        }
        for launch in &call.launches {
            let kernel = &self.0[launch.kernel as usize];
            let mut own: Vec<Cells> = launch.buffers.iter().map(|b| all[*b as usize].clone()).collect();
            for (cells, arg) in own.iter_mut().zip(&kernel.buffers) {
                if arg.ty == attnc_compiler::ops::DType::Bool {
                    cells.iter_mut().for_each(|c| {
                        if let Some(Scalar::Int(x)) = c {
                            *c = Some(Scalar::Bool(*x != 0));
                        }
                    });
                }
            }
            let reals: Vec<f64> = launch.reals.iter().map(|r| f64::from(*r)).collect();
            // Few blocks share the work of a persistent kernel.
            let shared = kernel.warps.as_ref().is_some_and(|w| w.persistent);
            let blocks = if shared { (launch.blocks as i64).min(3) } else { launch.blocks as i64 };
            eval(kernel, &mut own, &launch.ints, &reals, blocks, Precision::F32, LaneOrder::Up).map_err(|e| RuntimeError::Bug(e.to_string()))?;
            for (b, cells) in launch.buffers.iter().zip(own) {
                all[*b as usize] = cells;
            }
        }
        for ((buffer, slot), cells) in call.buffers.iter().zip(slots.iter_mut()).zip(&all) {
            if let Slot::Out(bytes) = slot {
                encode(buffer.storage, cells, bytes);
            }
        }
        Ok(())
    }
}

impl Device for Simulated {
    fn target(&self) -> &'static str {
        "simulated"
    }

    fn caps(&self) -> Caps {
        Caps { matrix: Some(MatrixUnits { shared_bytes: 227 << 10, shapes: vec![(self.math, self.keys)] }), ..Caps::simt(4, 48 << 10) }
    }

    fn tiles(&self, _real: Storage) -> TileOptions {
        TileOptions { rows: 8, keys: 8, flat: 16, tile_limit: 1 << 12, chunks: None, real: Storage::Bf16, int: Storage::I32 }
    }

    fn load(&self, program: &Program, _cache: Option<&Cache>) -> Result<Box<dyn Executable>, RuntimeError> {
        Ok(Box::new(Kernels(program.kernels.clone())))
    }

    fn available(&self) -> Option<u64> {
        None
    }
}
