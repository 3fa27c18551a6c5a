//! Modules of LLVM, optimised and written as text.

use super::{PtxKernel, PtxModule, SHARED_BYTES, lower};
use crate::EmitError;
use attnc_compiler::kernel::{Kernel, Space, verify};
use inkwell::OptimizationLevel;
use inkwell::context::Context;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{CodeModel, FileType, InitializationConfig, RelocMode, Target, TargetMachine, TargetTriple};
use std::fmt::Display;
use std::sync::Once;

const BACKEND: &str = "ptx";

pub(super) fn fail(kernel: &str, what: impl Display) -> EmitError {
    EmitError::Backend { backend: BACKEND, kernel: kernel.to_string(), what: what.to_string() }
}

pub(super) fn unsupported(kernel: &Kernel, what: impl Into<String>) -> EmitError {
    EmitError::Unsupported { backend: BACKEND, kernel: kernel.name.clone(), what: what.into() }
}

/// Architectures with asynchronous matrix products and tensor copies.
fn has_roles(arch: &str) -> bool {
    super::caps_for(arch).matrix.is_some()
}

fn machine(arch: &str) -> Result<TargetMachine, EmitError> {
    static INIT: Once = Once::new();
    INIT.call_once(|| Target::initialize_nvptx(&InitializationConfig::default()));
    let triple = TargetTriple::create("nvptx64-nvidia-cuda");
    let target = Target::from_triple(&triple).map_err(|e| fail("", e.to_string()))?;
    target
        .create_target_machine(&triple, arch, if has_roles(arch) { "+ptx86" } else { "+ptx80" }, OptimizationLevel::Default, RelocMode::Default, CodeModel::Default)
        .ok_or_else(|| fail("", format!("LLVM does not know the architecture `{arch}`")))
}

/// Compiles kernels into one module for `arch`, such as `ARCH`.
///
/// Errors: [`EmitError::Invalid`] when a kernel does not pass `verify`; [`EmitError::Unsupported`] for tile calls, storages that do not
/// fit their dtype, and more shared memory than a block has; [`EmitError::Backend`] when LLVM refuses.
pub fn compile(kernels: &[Kernel], arch: &str) -> Result<PtxModule, EmitError> {
    let context = Context::create();
    let (module, machine, compiled) = build(&context, kernels, arch)?;
    let passes = if kernels.iter().any(|k| k.warps.is_some()) { "default<O3>" } else { "default<O2>" };
    module.run_passes(passes, &machine, PassBuilderOptions::create()).map_err(|e| fail("", e.to_string()))?;
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
            roles: super::PtxRoles::of(kernel),
        });
    }
    module.verify().map_err(|e| fail("", e.to_string()))?;
    Ok((module, machine, compiled))
}
