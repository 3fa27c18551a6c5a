//! What `attnc compile` writes beside the kernel files: all that a runtime needs to check calls and launch, without the compiler.

use crate::error::RuntimeError;
use crate::tensor::Storage;
use attnc_compiler::kernel::{BufferArg, Kernel};
use attnc_compiler::kernel::ir::Space;
use attnc_compiler::kernel::plan::{BufferKind, HostExpr, Plan};
use attnc_compiler::ops::DType;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Version of the form; others are refused.
pub const FORM: u32 = 1;
/// Largest manifest that is read, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// A compiled program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub form: u32,
    /// Version of the compiler.
    pub compiler: String,
    pub target: String,
    /// Processor or shader model, where the target has one (`sm_90a`).
    pub arch: Option<String>,
    /// Axes, inputs, outputs, buffers and launches.
    pub plan: Plan,
    /// In the order that launches count them.
    pub kernels: Vec<Entry>,
}

/// One kernel and how it is called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Name of the entry point.
    pub name: String,
    /// File beside the manifest.
    pub file: String,
    /// Threads of a block.
    pub lanes: u32,
    /// Bytes of block memory (shared, workgroup).
    pub shared_bytes: u64,
    /// Bytes of workspace for each block.
    pub workspace_bytes: u64,
    pub buffers: Vec<BufferEntry>,
    /// Names of the int arguments, in order.
    pub ints: Vec<String>,
    /// Names of the real arguments, in order.
    pub reals: Vec<String>,
    /// Tensor maps and dynamic block memory of a kernel with roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<attnc_codegen::ptx::PtxRoles>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BufferEntry {
    pub name: String,
    pub dtype: DType,
    pub storage: Storage,
    pub written: bool,
}

impl Entry {
    /// The entry of `kernel` in `file`. Sizes are those of a GPU: reals, ints and bools of local arrays take 4 bytes.
    pub fn of(kernel: &Kernel, file: &str) -> Entry {
        let bytes = |space| kernel.locals.iter().filter(|l| l.space == space).map(|l| 4 * l.len as u64).sum();
        let buffers = kernel.buffers.iter().map(|b| BufferEntry { name: b.name.clone(), dtype: b.ty, storage: b.storage, written: b.written });
        Entry {
            name: kernel.name.clone(),
            file: file.to_string(),
            lanes: kernel.lanes,
            shared_bytes: bytes(Space::Shared),
            workspace_bytes: bytes(Space::Workspace),
            buffers: buffers.collect(),
            ints: kernel.ints.clone(),
            reals: kernel.reals.clone(),
            roles: None,
        }
    }
}

impl Entry {
    /// The buffer arguments as a backend describes them.
    pub fn args(&self) -> Vec<BufferArg> {
        self.buffers.iter().map(|b| BufferArg { name: b.name.clone(), ty: b.dtype, storage: b.storage, written: b.written }).collect()
    }
}

impl Manifest {
    /// As a file holds it.
    pub fn to_json(&self) -> Result<String, RuntimeError> {
        serde_json::to_string_pretty(self).map(|t| t + "\n").map_err(|e| RuntimeError::Bug(e.to_string()))
    }

    /// Reads and checks a manifest file.
    pub fn read(path: &Path) -> Result<Manifest, RuntimeError> {
        let bad = |what: String| RuntimeError::Manifest { path: path.display().to_string(), what };
        let length = std::fs::metadata(path).map_err(|e| bad(e.to_string()))?.len();
        if length > MAX_BYTES {
            return Err(bad(format!("it has {length} bytes, too many for a manifest")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
        Manifest::parse(&text).map_err(bad)
    }

    /// Parses and checks a manifest: every number in it refers to something.
    pub fn parse(text: &str) -> Result<Manifest, String> {
        let manifest: Manifest = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if manifest.form != FORM {
            return Err(format!("it has form {}, this version reads form {FORM}", manifest.form));
        }
        for entry in &manifest.kernels {
            let file = Path::new(&entry.file);
            if file.components().count() != 1 || file.file_name().is_none() {
                return Err(format!("kernel `{}` names the file `{}`, which is not beside the manifest", entry.name, entry.file));
            }
        }
        verify(&manifest.plan, manifest.kernels.len())?;
        for launch in &manifest.plan.launches {
            let entry = &manifest.kernels[launch.kernel as usize];
            let fits = |r: &attnc_codegen::ptx::PtxRoles| r.maps.iter().all(|m| (m.buffer as usize) < entry.buffers.len() && (2..=5).contains(&m.block.len()) && m.block.len() == m.shape.len() && m.shape.iter().all(|i| (*i as usize) < entry.ints.len()));
            if entry.roles.as_ref().is_some_and(|r| !fits(r)) {
                return Err(format!("a tensor map of `{}` refers to nothing", entry.name));
            }
            if (launch.buffers.len(), launch.ints.len(), launch.reals.len()) != (entry.buffers.len(), entry.ints.len(), entry.reals.len()) {
                return Err(format!("a launch of `{}` has other arguments than the kernel", entry.name));
            }
            for (buffer, arg) in launch.buffers.iter().zip(&entry.buffers) {
                let buffer = &manifest.plan.buffers[*buffer as usize];
                if buffer.storage != arg.storage || (arg.written && matches!(buffer.kind, BufferKind::Input(_))) {
                    return Err(format!("kernel `{}` cannot take `{}` for `{}`", entry.name, buffer.name, arg.name));
                }
            }
        }
        Ok(manifest)
    }
}

/// Every index of the plan is in range; there are `kernels` kernels.
pub fn verify(plan: &Plan, kernels: usize) -> Result<(), String> {
    let axis = |a: &u32| if (*a as usize) < plan.axes.len() { Ok(()) } else { Err(format!("there is no axis {a}")) };
    let check = |e: &HostExpr| expr(plan, e);
    plan.axes.iter().flat_map(|a| &a.extent).try_for_each(check)?;
    plan.inputs.iter().flat_map(|i| &i.axes).try_for_each(axis)?;
    plan.outputs.iter().flat_map(|o| &o.axes).try_for_each(axis)?;
    plan.inputs.iter().flat_map(|i| &i.default).try_for_each(check)?;
    plan.requires.iter().map(|r| &r.cond).try_for_each(check)?;
    plan.fixed.iter().map(|f| &f.0).try_for_each(axis)?;
    for buffer in &plan.buffers {
        buffer.dims.iter().try_for_each(check)?;
        let known = match buffer.kind {
            BufferKind::Input(i) => (i as usize) < plan.inputs.len(),
            BufferKind::Output(i) => (i as usize) < plan.outputs.len(),
            BufferKind::Temp | BufferKind::Block => true,
        };
        if !known {
            return Err(format!("buffer `{}` belongs to nothing", buffer.name));
        }
    }
    for launch in &plan.launches {
        check(&launch.blocks)?;
        launch.ints.iter().chain(&launch.reals).try_for_each(check)?;
        if launch.kernel as usize >= kernels {
            return Err(format!("there is no kernel {}", launch.kernel));
        }
        if let Some(b) = launch.buffers.iter().find(|b| **b as usize >= plan.buffers.len()) {
            return Err(format!("there is no buffer {b}"));
        }
    }
    Ok(())
}

fn expr(plan: &Plan, e: &HostExpr) -> Result<(), String> {
    match e {
        HostExpr::Int(_) | HostExpr::Real(_) | HostExpr::Bool(_) => Ok(()),
        HostExpr::Extent(a) if (*a as usize) < plan.axes.len() => Ok(()),
        HostExpr::Extent(a) => Err(format!("there is no axis {a}")),
        HostExpr::Scalar(i) if plan.inputs.get(*i as usize).is_some_and(|i| i.axes.is_empty()) => Ok(()),
        HostExpr::Scalar(i) => Err(format!("there is no scalar {i}")),
        HostExpr::Op(op, args) if args.len() == op.arity() => args.iter().try_for_each(|a| expr(plan, a)),
        HostExpr::Op(op, _) => Err(format!("`{}` has the wrong number of operands", op.name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use attnc_compiler::kernel::plan::{AxisPlan, BufferPlan, InputPlan, Launch, OutputPlan};

    fn manifest() -> Manifest {
        let t = || vec![HostExpr::Extent(0)];
        let buffer = |name: &str, kind| BufferPlan { name: name.into(), kind, dtype: DType::Real, storage: Storage::F32, dims: t() };
        let arg = |name: &str, written| BufferEntry { name: name.into(), dtype: DType::Real, storage: Storage::F32, written };
        let plan = Plan {
            name: "k".into(),
            axes: vec![AxisPlan { name: "t".into(), extent: None }],
            inputs: vec![InputPlan { name: "x".into(), dtype: DType::Real, axes: vec![0], default: None, storage: Storage::F32 }],
            outputs: vec![OutputPlan { name: "o".into(), dtype: DType::Real, axes: vec![0], storage: Storage::F32 }],
            requires: vec![],
            buffers: vec![buffer("x", BufferKind::Input(0)), buffer("o", BufferKind::Output(0))],
            launches: vec![Launch { kernel: 0, blocks: HostExpr::Extent(0), buffers: vec![0, 1], ints: vec![HostExpr::Extent(0)], reals: vec![] }],
            fixed: vec![],
            remarks: vec![],
        };
        let kernels = vec![Entry {
            name: "k_0".into(),
            file: "k_0.wgsl".into(),
            lanes: 64,
            shared_bytes: 0,
            workspace_bytes: 0,
            buffers: vec![arg("x", false), arg("o", true)],
            ints: vec!["T".into()],
            reals: vec![],
            roles: None,
        }];
        Manifest { form: FORM, compiler: "0".into(), target: "wgsl".into(), arch: None, plan, kernels }
    }

    #[test]
    fn a_manifest_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.json");
        std::fs::write(&path, manifest().to_json().unwrap()).unwrap();
        assert_eq!(Manifest::read(&path).unwrap(), manifest());
        assert!(Manifest::read(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn numbers_that_refer_to_nothing_are_found() {
        let changes: Vec<(&str, fn(&mut Manifest))> = vec![
            ("form", |m| m.form = 7),
            ("axis", |m| m.plan.inputs[0].axes[0] = 3),
            ("axis", |m| m.plan.launches[0].blocks = HostExpr::Extent(9)),
            ("scalar", |m| m.plan.buffers[0].dims[0] = HostExpr::Scalar(0)),
            ("kernel 1", |m| m.plan.launches[0].kernel = 1),
            ("buffer 5", |m| m.plan.launches[0].buffers[0] = 5),
            ("belongs to nothing", |m| m.plan.buffers[1].kind = BufferKind::Output(2)),
            ("other arguments", |m| m.plan.launches[0].ints.clear()),
            ("cannot take", |m| m.plan.launches[0].buffers = vec![0, 0]),
            ("not beside", |m| m.kernels[0].file = "../../etc/passwd".into()),
            ("operands", |m| m.plan.launches[0].blocks = HostExpr::Op(attnc_compiler::ops::ScalarOp::Add, vec![])),
        ];
        for (want, change) in changes {
            let mut bad = manifest();
            change(&mut bad);
            let error = Manifest::parse(&bad.to_json().unwrap()).unwrap_err();
            assert!(error.contains(want), "{want}: {error}");
        }
        assert!(Manifest::parse("{").is_err());
    }
}
