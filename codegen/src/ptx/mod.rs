//! Kernel IR to PTX through LLVM. A block is a thread block, a lane a thread; Int is i32, Real f32.
//!
//! Parameters of an entry, in order: a pointer to global memory for each buffer argument, the workspace (a pointer, not read without arrays
//! in it), the number of the first block of this launch (i32), the Int arguments (i32), the Real arguments (f32). Block `first + i` is
//! thread block `i` of a one-dimensional grid. The workspace holds `4 * workspace_words` bytes for each thread block of the launch.
//! Arrays in `Space::Shared` are static. Offsets are computed in 64 bits from 32-bit indices: buffers have fewer than 2^31 elements.
//! No code outside of the module is called.

mod address;
mod lane;
mod lower;

use crate::EmitError;
use attnc_compiler::kernel::caps::{Caps, TileOptions};
use attnc_compiler::kernel::{BufferArg, Kernel, Space, Storage, verify};
use inkwell::OptimizationLevel;
use inkwell::context::Context;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{CodeModel, FileType, InitializationConfig, RelocMode, Target, TargetMachine, TargetTriple};
use std::fmt::Display;
use std::sync::Once;

const BACKEND: &str = "ptx";

/// Architecture that kernels are made for unless told otherwise.
pub const ARCH: &str = "sm_90a";

/// Bytes of static shared memory that a block may have.
pub const SHARED_BYTES: usize = 48 << 10;

/// What kernels for this target may use.
pub fn caps() -> Caps {
    Caps::simt(128, SHARED_BYTES)
}

/// Tile sizes that fit [`caps`].
pub fn tiles() -> TileOptions {
    TileOptions { rows: 32, keys: 32, flat: 512, tile_limit: 1 << 12, real: Storage::F32, int: Storage::I32 }
}

/// What one entry takes.
#[derive(Clone, Debug)]
pub struct PtxKernel {
    pub name: String,
    /// Name of the entry in the text.
    pub entry: String,
    pub buffers: Vec<BufferArg>,
    /// Number of Int arguments.
    pub ints: usize,
    /// Number of Real arguments.
    pub reals: usize,
    pub lanes: u32,
    /// Bytes of static shared memory.
    pub shared_bytes: usize,
    /// 32-bit words of the workspace for each block of a launch.
    pub workspace_words: usize,
}

/// Kernels as text.
#[derive(Clone, Debug)]
pub struct PtxModule {
    pub text: String,
    pub kernels: Vec<PtxKernel>,
}

fn fail(kernel: &str, what: impl Display) -> EmitError {
    EmitError::Backend { backend: BACKEND, kernel: kernel.to_string(), what: what.to_string() }
}

fn unsupported(kernel: &Kernel, what: impl Into<String>) -> EmitError {
    EmitError::Unsupported { backend: BACKEND, kernel: kernel.name.clone(), what: what.into() }
}

fn machine(arch: &str) -> Result<TargetMachine, EmitError> {
    static INIT: Once = Once::new();
    INIT.call_once(|| Target::initialize_nvptx(&InitializationConfig::default()));
    let triple = TargetTriple::create("nvptx64-nvidia-cuda");
    let target = Target::from_triple(&triple).map_err(|e| fail("", e.to_string()))?;
    target
        .create_target_machine(&triple, arch, "+ptx80", OptimizationLevel::Default, RelocMode::Default, CodeModel::Default)
        .ok_or_else(|| fail("", format!("LLVM does not know the architecture `{arch}`")))
}

/// Compiles kernels into one module for `arch`, such as [`ARCH`].
///
/// Errors: [`EmitError::Invalid`] when a kernel does not pass `verify`; [`EmitError::Unsupported`] for tile calls, storages that do not
/// fit their dtype, and more shared memory than a block has; [`EmitError::Backend`] when LLVM refuses.
pub fn compile(kernels: &[Kernel], arch: &str) -> Result<PtxModule, EmitError> {
    let context = Context::create();
    let (module, machine, compiled) = build(&context, kernels, arch)?;
    module.run_passes("default<O2>", &machine, PassBuilderOptions::create()).map_err(|e| fail("", e.to_string()))?;
    let buffer = machine.write_to_memory_buffer(&module, FileType::Assembly).map_err(|e| fail("", e.to_string()))?;
    let bytes = buffer.as_slice();
    let text = String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned();
    // LLVM lowers what it cannot select to calls of functions that nobody defines.
    if let Some(line) = text.lines().find(|l| l.trim_start().starts_with(".extern .func")) {
        return Err(fail("", format!("a function is left undefined: {}", line.trim())));
    }
    Ok(PtxModule { text, kernels: compiled })
}

/// LLVM IR before optimisation, for `--emit llvm`. Errors as [`compile`].
pub fn llvm(kernels: &[Kernel], arch: &str) -> Result<String, EmitError> {
    let context = Context::create();
    Ok(build(&context, kernels, arch)?.0.print_to_string().to_string())
}

type Built<'c> = (inkwell::module::Module<'c>, TargetMachine, Vec<PtxKernel>);

fn build<'c>(context: &'c Context, kernels: &[Kernel], arch: &str) -> Result<Built<'c>, EmitError> {
    let machine = machine(arch)?;
    let module = context.create_module("attnc");
    module.set_triple(&machine.get_triple());
    module.set_data_layout(&machine.get_target_data().get_data_layout());
    let mut compiled = vec![];
    for (i, kernel) in kernels.iter().enumerate() {
        let faults = verify(kernel);
        if !faults.is_empty() {
            return Err(EmitError::Invalid { kernel: kernel.name.clone(), faults });
        }
        let bytes = |space| -> usize { kernel.locals.iter().filter(|l| l.space == space).map(|l| 4 * l.len).sum() };
        let shared_bytes = bytes(Space::Shared);
        if shared_bytes > SHARED_BYTES {
            return Err(unsupported(kernel, format!("its arrays take {shared_bytes} bytes of shared memory, and a block has {SHARED_BYTES}")));
        }
        let name: String = kernel.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let entry = format!("attnc_{i}_{name}");
        lower::lower(context, &module, kernel, &entry)?;
        compiled.push(PtxKernel {
            name: kernel.name.clone(),
            entry,
            buffers: kernel.buffers.clone(),
            ints: kernel.ints.len(),
            reals: kernel.reals.len(),
            lanes: kernel.lanes,
            shared_bytes,
            workspace_words: bytes(Space::Workspace) / 4,
        });
    }
    module.verify().map_err(|e| fail("", e.to_string()))?;
    Ok((module, machine, compiled))
}
