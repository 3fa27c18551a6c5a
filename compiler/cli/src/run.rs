//! `attnc run`: a kernel on tensors from a file.

use crate::args::{RunArgs, RunTarget};
use crate::fail::Failure;
use crate::files::{self, OutFile, TensorFile};
use crate::{out, settings};
use attnc_compiler::base::render;
use attnc_compiler::sema;
use attnc_runtime::{CompileOptions, Engine, Kernel};
use std::path::Path;

/// The device that a target names.
pub fn engine(target: RunTarget) -> Result<Engine, Failure> {
    match target {
        RunTarget::Interp => Ok(Engine::interp()),
        #[cfg(feature = "cpu")]
        RunTarget::Cpu => Ok(Engine::cpu()?),
        #[cfg(not(feature = "cpu"))]
        RunTarget::Cpu => Err(not_built("cpu")),
        #[cfg(feature = "wgpu")]
        RunTarget::Wgsl => Ok(Engine::wgsl()?),
        #[cfg(not(feature = "wgpu"))]
        RunTarget::Wgsl => Err(not_built("wgsl")),
        #[cfg(feature = "ptx")]
        RunTarget::Ptx => Ok(Engine::ptx()?),
        #[cfg(not(feature = "ptx"))]
        RunTarget::Ptx => Err(not_built("ptx")),
    }
}

/// The failure of a target that was left out when this program was built.
#[allow(dead_code, reason = "a build with every target never says it")]
pub fn not_built(target: &str) -> Failure {
    Failure::new(format!("this attnc was built without the target {target}"))
}

/// Reads and checks a program and prints its warnings.
pub fn kernel(engine: &Engine, path: &Path, name: Option<&str>, options: CompileOptions) -> Result<Kernel, Failure> {
    let source = files::program(path)?;
    let file_name = path.display().to_string();
    let kernel = engine.compile(&source, name, &CompileOptions { file_name: Some(file_name.clone()), ..options })?;
    out::warn(&render::text(kernel.warnings(), &source, &file_name, sema::PRELUDE, out::colour()));
    Ok(kernel)
}

pub fn run(args: &RunArgs) -> Result<(), Failure> {
    let engine = engine(args.target)?;
    let kernel = kernel(&engine, &args.file, args.kernel.as_deref(), CompileOptions::default())?;
    let settings = settings::typed(&args.set, kernel.signature())?;
    let file = args.input.as_deref().map(TensorFile::read).transpose()?;
    let tensors = file.as_ref().map(TensorFile::tensors).transpose()?.unwrap_or_default();
    let place = OutFile::create(&args.output)?;

    let views: Vec<_> = tensors.iter().map(|(name, view)| (name.as_str(), view.clone())).collect();
    let scalars: Vec<_> = settings.scalars.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let extents: Vec<_> = settings.extents.iter().map(|(name, extent)| (name.as_str(), *extent)).collect();
    let named = |e| match (Failure::from(e), &args.input) {
        (failure, Some(path)) if failure.message.starts_with("input ") => Failure { message: format!("{}: {}", path.display(), failure.message), ..failure },
        (failure, _) => failure,
    };
    let bar = out::progress("running");
    let outputs = kernel.run_with(&views, &scalars, &extents);
    bar.finish_and_clear();
    let outputs = outputs.map_err(named)?;
    place.commit_tensors(outputs.iter())
}
