//! `attnc compile`: kernels as files, or any stage on the way as text.

use crate::args::{CompileArgs, CompileTarget, Emit, RealType};
use crate::fail::Failure;
use crate::files::{self, OutFile};
use crate::settings::{self, Settings};
use crate::{out, run};
use attnc_compiler::base::SourceId;
use attnc_compiler::kernel::Kernel as KernelIr;
use attnc_compiler::kernel::caps::Caps;
use attnc_compiler::kernel::plan::Program;
use attnc_compiler::lower::{Options, Stages, lower_stages};
use attnc_compiler::passes::error::CompileError;
use attnc_compiler::passes::tile::TileOptions;
use attnc_compiler::syntax;
#[cfg(any(feature = "cpu", feature = "wgpu", feature = "ptx"))]
use attnc_runtime::driver::emit_error;
use attnc_runtime::engine::compile_error;
use attnc_runtime::manifest::{Entry, FORM, Manifest};
use attnc_runtime::{CompileOptions, Engine, Kernel};
use std::fmt::Write;
use std::path::Path;

/// The kernels of one program for one target: a file each.
struct Artifacts {
    files: Vec<(String, String)>,
    entries: Vec<Entry>,
}

pub fn run(args: &CompileArgs) -> Result<(), Failure> {
    if let Some(wrong) = args.emit.iter().find(|e| e.code_of().is_some_and(|t| t != args.target)) {
        return Err(Failure::new(format!("--emit {} does not go with --target {}", wrong.name(), args.target.name())));
    }
    let mut text = String::new();
    if args.emit.contains(&Emit::Ast) {
        let source = files::program(&args.file)?;
        let (file, _) = syntax::parse(&source, SourceId::User);
        section(&mut text, args, "ast", &syntax::print(&file));
    }
    // The interpreter's handle checks the program and its signature; nothing runs.
    let kernel = run::kernel(&Engine::interp(), &args.file, args.kernel.as_deref(), CompileOptions::default())?;
    let settings = settings::typed(&args.set, kernel.signature())?;
    if args.emit.contains(&Emit::Graph) {
        section(&mut text, args, "graph", &kernel.graph().to_string());
    }
    let emits_code = args.emit.iter().any(|e| !matches!(e, Emit::Ast | Emit::Graph));
    if args.emit.is_empty() || emits_code || args.output.is_some() {
        let stages = stages(&kernel, &settings, args)?;
        if args.emit.contains(&Emit::Tiles) {
            section(&mut text, args, "tiles", &attnc_compiler::tiles::text::program(&stages.tiles));
        }
        if args.emit.contains(&Emit::Kernel) {
            section(&mut text, args, "kernel", &kernels_text(&stages.program));
        }
        if args.emit.contains(&Emit::Llvm) {
            section(&mut text, args, "llvm", &llvm(&stages.program, args.arch.as_deref())?);
        }
        let artifacts = artifacts(args, &stages.program)?;
        let name = extension(args.target);
        let code = args.emit.iter().any(|e| e.name() == name) || (args.emit.is_empty() && args.output.is_none());
        if code {
            section(&mut text, args, name, &artifacts.files.iter().map(|f| f.1.as_str()).collect::<Vec<_>>().join("\n"));
        }
        if let Some(folder) = &args.output {
            write(folder, args, stages.program, artifacts)?;
        }
    }
    out::print(&text)
}

/// Titles only where there is more than one text.
fn section(text: &mut String, args: &CompileArgs, name: &str, body: &str) {
    if args.emit.len() > 1 {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "// ---- {name}");
    }
    text.push_str(body);
    if !body.ends_with('\n') {
        text.push('\n');
    }
}

/// Lowers with the extents that the settings and the program give.
fn stages(kernel: &Kernel, settings: &Settings, args: &CompileArgs) -> Result<Stages, Failure> {
    let options = options(kernel, settings, args.target, args.arch.as_deref(), args.dtype)?;
    lower_stages(kernel.graph(), &options).map_err(|e| lowering(kernel, args.target.name(), e))
}

/// The failure of a lowering, with advice where the caller can help.
pub fn lowering(kernel: &Kernel, target: &'static str, error: CompileError) -> Failure {
    match error {
        CompileError::NeedExtent { axis } => {
            Failure::new(format!("kernel `{}`: the extent of axis `{axis}` must be known to compile it", kernel.name())).help(format!("give it: --set {axis}=64"))
        }
        CompileError::Unsupported { .. } | CompileError::Bug { .. } => compile_error(target, error).into(),
    }
}

/// Options for a target with the extents that are known before any call.
pub fn options(kernel: &Kernel, settings: &Settings, target: CompileTarget, arch: Option<&str>, dtype: Option<RealType>) -> Result<Options, Failure> {
    let plan = kernel.signature();
    let mut env = attnc_runtime::host::Env::new(&plan.axes, &plan.inputs);
    for (name, extent) in &settings.extents {
        for (i, _) in plan.axes.iter().enumerate().filter(|(_, a)| a.name == *name && a.extent.is_none()) {
            env.set_extent(i as u32, *extent);
        }
    }
    for (name, value) in &settings.scalars {
        if let Some(i) = plan.inputs.iter().position(|i| i.name == *name) {
            env.set_scalar(i as u32, *value);
        }
    }
    let extents = (0..plan.axes.len() as u32).map(|a| env.extent(a).ok()).collect();
    let (caps, mut tile) = target_choices(target, arch)?;
    if let Some(dtype) = dtype.filter(|_| target == CompileTarget::Ptx) {
        tile.real = dtype.storage();
    }
    Ok(Options { extents, caps, tile })
}

/// What kernels for a target may use, and their tile sizes.
#[cfg_attr(not(feature = "ptx"), allow(unused_variables))]
fn target_choices(target: CompileTarget, arch: Option<&str>) -> Result<(Caps, TileOptions), Failure> {
    match target {
        CompileTarget::Cpu => Ok((Caps::cpu(), TileOptions::default())),
        #[cfg(feature = "wgpu")]
        CompileTarget::Wgsl => Ok((attnc_codegen::wgsl::caps(), attnc_codegen::wgsl::tiles())),
        #[cfg(not(feature = "wgpu"))]
        CompileTarget::Wgsl => Err(run::not_built("wgsl")),
        #[cfg(feature = "ptx")]
        CompileTarget::Ptx => Ok((attnc_codegen::ptx::caps_for(arch.unwrap_or(attnc_codegen::ptx::ARCH)), attnc_codegen::ptx::tiles())),
        #[cfg(not(feature = "ptx"))]
        CompileTarget::Ptx => Err(run::not_built("ptx")),
    }
}

fn extension(target: CompileTarget) -> &'static str {
    match target {
        CompileTarget::Cpu => "clif",
        CompileTarget::Wgsl => "wgsl",
        CompileTarget::Ptx => "ptx",
    }
}

fn artifacts(args: &CompileArgs, program: &Program) -> Result<Artifacts, Failure> {
    match args.target {
        CompileTarget::Cpu => each(program, "clif", clif),
        CompileTarget::Wgsl => each(program, "wgsl", wgsl),
        CompileTarget::Ptx => ptx(program, args.arch.as_deref()),
    }
}

/// One file a kernel.
fn each(program: &Program, extension: &str, text: fn(&KernelIr) -> Result<(String, String), Failure>) -> Result<Artifacts, Failure> {
    let mut made = Artifacts { files: vec![], entries: vec![] };
    for (i, kernel) in program.kernels.iter().enumerate() {
        let file = format!("{}_{i}.{extension}", program.plan.name);
        let (entry, text) = text(kernel)?;
        made.entries.push(Entry { name: entry, ..Entry::of(kernel, &file) });
        made.files.push((file, text));
    }
    Ok(made)
}

/// Name of the entry and text, here and in the next ones.
#[cfg(feature = "cpu")]
fn clif(kernel: &KernelIr) -> Result<(String, String), Failure> {
    let text = attnc_codegen::cpu::clif(kernel).map_err(|e| emit_error("cpu", e))?;
    Ok((kernel.name.clone(), text))
}

#[cfg(not(feature = "cpu"))]
fn clif(_: &KernelIr) -> Result<(String, String), Failure> {
    Err(run::not_built("cpu"))
}

#[cfg(feature = "wgpu")]
fn wgsl(kernel: &KernelIr) -> Result<(String, String), Failure> {
    let made = attnc_codegen::wgsl::compile(kernel).map_err(|e| emit_error("wgsl", e))?;
    Ok((attnc_codegen::wgsl::ENTRY.to_string(), made.text))
}

#[cfg(not(feature = "wgpu"))]
fn wgsl(_: &KernelIr) -> Result<(String, String), Failure> {
    Err(run::not_built("wgsl"))
}

/// One module for all kernels.
#[cfg(feature = "ptx")]
fn ptx(program: &Program, arch: Option<&str>) -> Result<Artifacts, Failure> {
    let made = attnc_codegen::ptx::compile(&program.kernels, arch.unwrap_or(attnc_codegen::ptx::ARCH)).map_err(|e| emit_error("ptx", e))?;
    let file = format!("{}.ptx", program.plan.name);
    let entry = |(kernel, made): (&KernelIr, &attnc_codegen::ptx::PtxKernel)| Entry { name: made.entry.clone(), roles: made.roles.clone(), ..Entry::of(kernel, &file) };
    let entries = program.kernels.iter().zip(&made.kernels).map(entry).collect();
    Ok(Artifacts { files: vec![(file.clone(), made.text)], entries })
}

#[cfg(not(feature = "ptx"))]
fn ptx(_: &Program, _: Option<&str>) -> Result<Artifacts, Failure> {
    Err(run::not_built("ptx"))
}

#[cfg(feature = "ptx")]
fn llvm(program: &Program, arch: Option<&str>) -> Result<String, Failure> {
    attnc_codegen::ptx::llvm(&program.kernels, arch.unwrap_or(attnc_codegen::ptx::ARCH)).map_err(|e| emit_error("ptx", e).into())
}

#[cfg(not(feature = "ptx"))]
fn llvm(_: &Program, _: Option<&str>) -> Result<String, Failure> {
    Err(run::not_built("ptx"))
}

fn kernels_text(program: &Program) -> String {
    program.kernels.iter().map(|k| k.to_string()).collect::<Vec<_>>().join("\n")
}

/// Kernel files first, the manifest last: whoever finds a manifest finds all it names.
fn write(folder: &Path, args: &CompileArgs, program: Program, artifacts: Artifacts) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|e| Failure::file(folder, format!("cannot be made: {e}")))?;
    for (name, text) in &artifacts.files {
        OutFile::create(&folder.join(name))?.commit_bytes(text.as_bytes())?;
    }
    let manifest = Manifest {
        form: FORM,
        compiler: env!("CARGO_PKG_VERSION").to_string(),
        target: args.target.name().to_string(),
        arch: args.arch.clone(),
        plan: program.plan,
        kernels: artifacts.entries,
    };
    OutFile::create(&folder.join("manifest.json"))?.commit_bytes(manifest.to_json()?.as_bytes())
}
