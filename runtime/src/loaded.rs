//! Programs compiled before: a manifest and its kernel files, run without the compiler.

use crate::driver::{Device, Executable};
use crate::engine::{Engine, Outputs, allocate};
use crate::error::RuntimeError;
use crate::launch::launch;
use crate::manifest::Manifest;
use crate::plan::bind;
use crate::tensor::TensorView;
use attnc_compiler::kernel::plan::Plan;
use attnc_compiler::ops::Scalar;
use std::path::Path;
use std::sync::Arc;

/// Largest kernel file that is read, in bytes.
const MAX_KERNEL: u64 = 64 << 20;

/// A program from files, ready to run. Cheap to clone; may be shared between threads.
#[derive(Clone)]
pub struct Loaded(Arc<Inner>);

struct Inner {
    plan: Plan,
    code: Box<dyn Executable>,
    device: Arc<dyn Device>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Loaded({} on {})", self.0.plan.name, self.0.device.target())
    }
}

impl Engine {
    /// Loads what `attnc compile -o FOLDER` wrote for the target of this engine.
    ///
    /// Errors: [`RuntimeError::Manifest`] for files that are missing, damaged or made for another target;
    /// [`RuntimeError::Unsupported`] for devices that make their code from the program (interpreter, processor).
    pub fn load(&self, folder: &Path) -> Result<Loaded, RuntimeError> {
        let path = folder.join("manifest.json");
        let manifest = Manifest::read(&path)?;
        let bad = |what: String| RuntimeError::Manifest { path: path.display().to_string(), what };
        if manifest.target != self.target() {
            return Err(bad(format!("it was made for the target {}, this engine is {}", manifest.target, self.target())));
        }
        let device = self.shared_device().ok_or(RuntimeError::Unsupported { target: "interp", what: "it runs programs, not compiled files".to_string() })?;
        let mut texts = Vec::new();
        for entry in &manifest.kernels {
            let file = folder.join(&entry.file);
            let fail = |what: String| RuntimeError::Manifest { path: file.display().to_string(), what };
            let length = std::fs::metadata(&file).map_err(|e| fail(e.to_string()))?.len();
            if length > MAX_KERNEL {
                return Err(fail(format!("it has {length} bytes, too many for a kernel")));
            }
            texts.push(std::fs::read_to_string(&file).map_err(|e| fail(e.to_string()))?);
        }
        let code = device.load_files(&manifest, texts)?;
        Ok(Loaded(Arc::new(Inner { plan: manifest.plan, code, device })))
    }
}

impl Loaded {
    /// Axes, inputs, outputs and conditions.
    pub fn signature(&self) -> &Plan {
        &self.0.plan
    }

    /// As [`crate::Kernel::run`]; feature extents must be those that the program was compiled for.
    pub fn run(&self, tensors: &[(&str, TensorView<'_>)], scalars: &[(&str, Scalar)]) -> Result<Outputs, RuntimeError> {
        let inner = &self.0;
        let bound = bind(&inner.plan, tensors, scalars, &[], &[])?;
        for (axis, extent) in &inner.plan.fixed {
            let found = bound.extents.get(*axis as usize).copied().unwrap_or(0);
            if found != *extent {
                let name = inner.plan.axes.get(*axis as usize).map_or("?", |a| a.name.as_str());
                let what = format!("it was compiled for {name} = {extent}, this call has {name} = {found}");
                return Err(RuntimeError::Unsupported { target: inner.device.target(), what });
            }
        }
        let mut made = allocate(&inner.plan, &bound)?;
        let views = made.iter_mut().map(|(_, t)| t.view_mut()).collect();
        launch(&inner.plan, inner.code.as_ref(), &bound, views, inner.device.available())?;
        Ok(Outputs(made))
    }
}
