//! Kernel IR to machine code through Cranelift. Blocks have one lane; one call runs one block.
//!
//! The entry of a kernel is `extern "C" fn(buffers: *const *mut u8, ints: *const i64, reals: *const f32, locals: *mut u8, block: i64,
//! table: *const Table)`: one pointer for each buffer argument, the Int and Real arguments in order, scratch of `scratch_bytes`
//! aligned to 64 (both kinds of local memory lie in it), the index of the block, and the functions for tile calls.

mod lower;
mod math;
mod memory;
pub mod micro;
mod ops;
mod tile;
mod vector;

use crate::EmitError;
use attnc_compiler::kernel::{BufferArg, Kernel, verify};
use cranelift_codegen::ir::{self, Function, UserFuncName};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::FunctionBuilderContext;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module};
use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Mutex;

pub use micro::{Table, table};

const BACKEND: &str = "cpu";

/// Alignment of the scratch and of each array in it, in bytes.
pub const SCRATCH_ALIGN: usize = 64;

/// One kernel as machine code. Valid as long as the [`CpuModule`] that it came with.
#[derive(Clone, Debug)]
pub struct CpuKernel {
    pub name: String,
    /// Address of the entry, see the module.
    pub address: usize,
    pub buffers: Vec<BufferArg>,
    /// Number of Int arguments.
    pub ints: usize,
    /// Number of Real arguments.
    pub reals: usize,
    /// Bytes of scratch that one running block needs.
    pub scratch_bytes: usize,
}

/// Machine code of several kernels and the memory that holds it.
pub struct CpuModule {
    pub kernels: Vec<CpuKernel>,
    /// Owner of the code. Its memory stays mapped until `JITModule::free_memory`, also when this is dropped.
    pub code: Mutex<Option<JITModule>>,
}

/// Settings that hold for every kernel.
fn isa() -> Result<OwnedTargetIsa, EmitError> {
    let fail = |what: String| EmitError::Backend { backend: BACKEND, kernel: String::new(), what };
    let mut flags = settings::builder();
    let check = if cfg!(debug_assertions) { "true" } else { "false" };
    for (name, value) in [("opt_level", "speed"), ("enable_verifier", check), ("use_colocated_libcalls", "false"), ("is_pic", "false")] {
        flags.set(name, value).map_err(|e| fail(e.to_string()))?;
    }
    cranelift_native::builder().map_err(|e| fail(e.to_string()))?.finish(settings::Flags::new(flags)).map_err(|e| fail(e.to_string()))
}

fn backend_error(kernel: &str, what: impl Display) -> EmitError {
    EmitError::Backend { backend: BACKEND, kernel: kernel.to_string(), what: what.to_string() }
}

/// Compiles one kernel; see [`compile_all`].
pub fn compile(kernel: &Kernel) -> Result<CpuModule, EmitError> {
    compile_all(std::slice::from_ref(kernel))
}

/// Compiles kernels for this machine, in order.
///
/// Errors: [`EmitError::Invalid`] when a kernel does not pass `verify`; [`EmitError::Unsupported`] when its blocks have more than
/// one lane; [`EmitError::Backend`] when Cranelift refuses it or does not know this machine.
pub fn compile_all(kernels: &[Kernel]) -> Result<CpuModule, EmitError> {
    let mut builder = JITBuilder::with_isa(isa()?, cranelift_module::default_libcall_names());
    for f in math::FUNCTIONS {
        builder.symbol(f.name, f.address());
    }
    let mut module = JITModule::new(builder);
    let mut helpers = Helpers::default();
    let mut context = module.make_context();
    let mut frontend = FunctionBuilderContext::new();
    let mut compiled = vec![];
    for (i, kernel) in kernels.iter().enumerate() {
        check(kernel)?;
        context.func.signature = lower::signature(&module);
        context.func.name = UserFuncName::user(0, i as u32);
        let id = module.declare_function(&format!("kernel_{i}"), Linkage::Local, &context.func.signature).map_err(|e| backend_error(&kernel.name, e))?;
        let scratch_bytes = lower::lower(kernel, &mut module, &mut helpers, &mut context.func, &mut frontend)?;
        module.define_function(id, &mut context).map_err(|e| backend_error(&kernel.name, format!("{e:?}")))?;
        module.clear_context(&mut context);
        compiled.push((id, scratch_bytes));
    }
    module.finalize_definitions().map_err(|e| backend_error("", e))?;
    let kernels = kernels
        .iter()
        .zip(compiled)
        .map(|(kernel, (id, scratch_bytes))| CpuKernel {
            name: kernel.name.clone(),
            address: module.get_finalized_function(id) as usize,
            buffers: kernel.buffers.clone(),
            ints: kernel.ints.len(),
            reals: kernel.reals.len(),
            scratch_bytes,
        })
        .collect();
    Ok(CpuModule { kernels, code: Mutex::new(Some(module)) })
}

/// The Cranelift IR of a kernel, before optimisation, for `--emit clif`. Errors as [`compile_all`].
pub fn clif(kernel: &Kernel) -> Result<String, EmitError> {
    check(kernel)?;
    let mut module = JITModule::new(JITBuilder::with_isa(isa()?, cranelift_module::default_libcall_names()));
    let mut func = Function::with_name_signature(UserFuncName::user(0, 0), lower::signature(&module));
    lower::lower(kernel, &mut module, &mut Helpers::default(), &mut func, &mut FunctionBuilderContext::new())?;
    Ok(func.display().to_string())
}

fn check(kernel: &Kernel) -> Result<(), EmitError> {
    let faults = verify(kernel);
    if !faults.is_empty() {
        return Err(EmitError::Invalid { kernel: kernel.name.clone(), faults });
    }
    if kernel.lanes != 1 {
        let what = format!("its blocks have {} lanes and a CPU block has one", kernel.lanes);
        return Err(EmitError::Unsupported { backend: BACKEND, kernel: kernel.name.clone(), what });
    }
    Ok(())
}

/// Functions in Rust that generated code calls, declared once in a module and imported once in a function.
#[derive(Default)]
struct Helpers {
    declared: HashMap<&'static str, FuncId>,
}

impl Helpers {
    fn import(&mut self, module: &mut JITModule, func: &mut Function, f: &math::Helper) -> Result<ir::FuncRef, EmitError> {
        let id = match self.declared.get(f.name) {
            Some(id) => *id,
            None => {
                let signature = f.signature(module);
                let id = module.declare_function(f.name, Linkage::Import, &signature).map_err(|e| backend_error(f.name, e))?;
                self.declared.insert(f.name, id);
                id
            }
        };
        Ok(module.declare_func_in_func(id, func))
    }
}

/// The entry of every kernel, see the module.
pub type Entry = unsafe extern "C" fn(*const *mut u8, *const i64, *const f32, *mut u8, i64, *const Table);
