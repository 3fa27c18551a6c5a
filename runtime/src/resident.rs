//! Tensors that stay on a device, and calls on them: allocate or import, launch as often as wanted, read back when needed.

use crate::driver::{DeviceMemory, DeviceStream, Prepared};
use crate::engine::{Engine, Kernel};
use crate::error::{RuntimeError, nearest};
use crate::launch::{Lent, input};
use crate::plan::{axes_text, output_shape, resolve};
use crate::tensor::{Storage, Tensor, TensorView, elements, storage_name};
use attnc_compiler::kernel::plan::BufferKind;
use attnc_compiler::ops::Scalar;
use std::sync::Arc;

/// A dense row-major array in the memory of a device. Cheap to clone; the memory is freed with the last clone.
#[derive(Clone, Debug)]
pub struct DeviceTensor {
    storage: Storage,
    shape: Vec<usize>,
    memory: Arc<dyn DeviceMemory>,
}

impl DeviceTensor {
    pub fn storage(&self) -> Storage {
        self.storage
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Address on the device, for other libraries in this process; valid while this tensor or a clone of it lives.
    pub fn address(&self) -> u64 {
        self.memory.address()
    }

    /// Overwrites the elements, converted where the storage is another.
    ///
    /// Errors: another shape, elements that do not fit, the device's.
    pub fn upload(&self, from: &TensorView<'_>) -> Result<(), RuntimeError> {
        if from.shape() != self.shape {
            return Err(RuntimeError::ViewShape { shape: self.shape.clone(), elements: from.len() });
        }
        match from.direct() {
            Some(bytes) if from.storage() == self.storage => self.memory.upload(bytes),
            _ => self.memory.upload(from.convert(self.storage)?.bytes()),
        }
    }

    /// The elements as they are after all launches so far. Errors: those of the launches, too little memory.
    pub fn download(&self) -> Result<Tensor, RuntimeError> {
        let mut tensor = Tensor::zeros(self.storage, &self.shape)?;
        self.memory.download(tensor.view_mut().bytes_mut())?;
        Ok(tensor)
    }
}

/// A queue of launches on a device. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stream(Arc<dyn DeviceStream>);

impl Stream {
    /// Returns when all that was launched on it is done. Errors: those of the launches.
    pub fn wait(&self) -> Result<(), RuntimeError> {
        self.0.wait()
    }
}

/// An input of a call that stays.
#[derive(Clone, Debug)]
pub enum Given<'a> {
    /// Copied to the device once, in the storage that the kernels read.
    Host(TensorView<'a>),
    /// Used where it lies; its storage must be the one that the kernels read.
    Device(&'a DeviceTensor),
}

/// A call whose tensors stay on the device.
pub struct Resident {
    call: Box<dyn Prepared>,
    outputs: Vec<(String, DeviceTensor)>,
    bytes: u64,
}

impl std::fmt::Debug for Resident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resident").field("outputs", &self.outputs).finish_non_exhaustive()
    }
}

impl Resident {
    /// Queues the kernels and returns at once; inputs are read as they are then. Errors: the device's.
    pub fn launch(&self) -> Result<(), RuntimeError> {
        self.call.launch()
    }

    /// Returns when all launches are done. Errors: faults of kernels show here.
    pub fn wait(&self) -> Result<(), RuntimeError> {
        self.call.wait()
    }

    /// Launches and waits. Errors: as `wait`.
    pub fn run(&self) -> Result<(), RuntimeError> {
        self.launch()?;
        self.wait()
    }

    /// Seconds of up to `runs` launches by the device's clock, each after its cache was overwritten; stops after `budget` seconds.
    pub fn time(&self, runs: usize, budget: f64) -> Result<Vec<f64>, RuntimeError> {
        self.call.time(runs, budget)
    }

    /// The output with this name.
    pub fn output(&self, name: &str) -> Option<&DeviceTensor> {
        self.outputs.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }

    /// All outputs in the order of the program.
    pub fn outputs(&self) -> impl Iterator<Item = (&str, &DeviceTensor)> {
        self.outputs.iter().map(|(n, t)| (n.as_str(), t))
    }

    /// Bytes of inputs and outputs, each once.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Engine {
    fn memory(&self) -> Result<&dyn crate::driver::Device, RuntimeError> {
        self.device().ok_or_else(|| RuntimeError::Unsupported { target: "interp", what: "memory of its own".to_string() })
    }

    /// A tensor on the device with undefined contents.
    ///
    /// Errors: [`RuntimeError::TooLarge`]; [`RuntimeError::Unsupported`] for devices that share the host's memory.
    pub fn allocate(&self, storage: Storage, shape: &[usize]) -> Result<DeviceTensor, RuntimeError> {
        let memory = self.memory()?.allocate(length(storage, shape)?)?;
        Ok(DeviceTensor { storage, shape: shape.to_vec(), memory })
    }

    /// A copy on the device. Errors: as `allocate`.
    pub fn upload(&self, from: &TensorView<'_>) -> Result<DeviceTensor, RuntimeError> {
        let tensor = self.allocate(from.storage(), from.shape())?;
        tensor.upload(from)?;
        Ok(tensor)
    }

    /// A dense row-major tensor that another library holds in this process on this device, taken without a copy. Its owner must keep
    /// it as long as the result or calls with it live, and must have finished writing it before a launch; what is read otherwise is
    /// undefined, or a fault of the kernel.
    ///
    /// Errors: an address that is no allocation of this device, or one that ends too early, or is not a multiple of 16.
    pub fn import(&self, address: u64, storage: Storage, shape: &[usize]) -> Result<DeviceTensor, RuntimeError> {
        let memory = self.memory()?.import(address, length(storage, shape)?)?;
        Ok(DeviceTensor { storage, shape: shape.to_vec(), memory })
    }

    /// A new stream on the device. Errors: [`RuntimeError::Unsupported`] for devices without.
    pub fn stream(&self) -> Result<Stream, RuntimeError> {
        Ok(Stream(self.memory()?.stream()?))
    }

    /// Whether calls can still succeed: no kernel has stopped the device with a fault.
    pub fn is_usable(&self) -> bool {
        self.device().is_none_or(|d| d.lost().is_none())
    }
}

fn length(storage: Storage, shape: &[usize]) -> Result<u64, RuntimeError> {
    let count = elements(shape).and_then(|n| n.checked_mul(storage.bytes()));
    count.map(|n| n as u64).ok_or_else(|| RuntimeError::TooLarge { what: format!("a tensor of shape {shape:?}"), bytes: None, available: None })
}

/// A view that has the storage and shape of a tensor on the device, for checks that look at nothing else.
fn outline(storage: Storage, shape: &[usize]) -> Result<TensorView<'static>, RuntimeError> {
    let strides = vec![0; shape.len()];
    match storage {
        Storage::F32 => TensorView::strided(&[0f32], shape, &strides),
        Storage::F64 => TensorView::strided(&[0f64], shape, &strides),
        Storage::Bf16 => TensorView::strided(&[half::bf16::ZERO], shape, &strides),
        Storage::F16 => TensorView::strided(&[half::f16::ZERO], shape, &strides),
        Storage::I64 => TensorView::strided(&[0i64], shape, &strides),
        Storage::I32 => TensorView::strided(&[0i32], shape, &strides),
        Storage::U8 => TensorView::strided(&[0u8], shape, &strides),
    }
}

impl Kernel {
    /// Checks a call and puts its tensors on the device, to be launched many times. Outputs that are not given are allocated, in the
    /// storage that the kernels write. `extents` as for `run_with`; launches go to `stream`, or to the device's default stream.
    ///
    /// Errors: those of `run`; a tensor on the device whose storage is not the kernels', or that lies on another device; outputs that
    /// overlap other tensors; [`RuntimeError::Unsupported`] on devices that share the host's memory.
    pub fn prepare(
        &self,
        inputs: &[(&str, Given<'_>)],
        scalars: &[(&str, Scalar)],
        extents: &[(&str, i64)],
        outputs: &[(&str, &DeviceTensor)],
        stream: Option<&Stream>,
    ) -> Result<Resident, RuntimeError> {
        let shown = inputs.iter().map(|(name, given)| {
            Ok((*name, match given {
                Given::Host(view) => view.clone(),
                Given::Device(tensor) => outline(tensor.storage, &tensor.shape)?,
            }))
        });
        let shown = shown.collect::<Result<Vec<_>, RuntimeError>>()?;
        let late = if self.has_late_extents() { self.late(inputs, scalars, extents)? } else { vec![] };
        let scalars: Vec<(&str, Scalar)> = scalars.iter().copied().chain(late.iter().map(|(n, e)| (n.as_str(), *e))).collect();
        let bound = self.bind(&shown, &scalars, extents)?;
        let special = self.code(&bound)?;
        let plan = &special.plan;
        let signature = self.signature();
        for (name, _) in outputs {
            if !signature.outputs.iter().any(|o| o.name == *name) {
                let known: Vec<String> = signature.outputs.iter().map(|o| o.name.clone()).collect();
                return Err(RuntimeError::UnknownOutput { name: name.to_string(), nearest: nearest(name, known.iter().map(String::as_str)), known });
            }
        }
        let device = self.engine().memory()?;
        let call = resolve(plan, &bound, device.available())?;
        let mut memory: Vec<Option<Arc<dyn DeviceMemory>>> = vec![];
        let (mut made, mut bytes) = (vec![None; signature.outputs.len()], 0);
        for buffer in &call.buffers {
            memory.push(match buffer.kind {
                BufferKind::Temp | BufferKind::Block => None,
                BufferKind::Input(i) => {
                    bytes += buffer.bytes as u64;
                    let name = plan.inputs.get(i as usize).map_or("", |p| p.name.as_str());
                    Some(match inputs.iter().find(|(n, _)| *n == name) {
                        Some((_, Given::Device(tensor))) if tensor.storage != buffer.storage => {
                            let expected = format!("{} on this device", storage_name(buffer.storage));
                            let axes = plan.inputs.get(i as usize).map_or(String::new(), |p| axes_text(plan, &p.axes));
                            let found = storage_name(tensor.storage);
                            return Err(RuntimeError::WrongDtype { name: name.to_string(), axes, shape: tensor.shape.clone(), expected, found });
                        }
                        Some((_, Given::Device(tensor))) => tensor.memory.clone(),
                        Some((_, Given::Host(_))) | None => {
                            let lent: Lent<'_> = input(plan, buffer, i as usize, &bound)?;
                            let memory = device.allocate(buffer.bytes as u64)?;
                            memory.upload(lent.bytes())?;
                            memory
                        }
                    })
                }
                BufferKind::Output(i) => {
                    bytes += buffer.bytes as u64;
                    let i = i as usize;
                    let Some(output) = signature.outputs.get(i) else { return Err(RuntimeError::Bug(format!("the plan has no output {i}"))) };
                    let expected = output_shape(signature, &bound, i);
                    let tensor = match outputs.iter().find(|(n, _)| *n == output.name) {
                        Some((_, given)) if given.shape != expected => {
                            let axes = axes_text(signature, &output.axes);
                            return Err(RuntimeError::OutputShape { name: output.name.clone(), axes, expected, found: given.shape.clone() });
                        }
                        Some((_, given)) if given.storage != buffer.storage => {
                            let found = storage_name(given.storage);
                            return Err(RuntimeError::OutputStorage { name: output.name.clone(), expected: storage_name(buffer.storage), found });
                        }
                        Some((_, given)) => (*given).clone(),
                        None => DeviceTensor { storage: buffer.storage, shape: expected, memory: device.allocate(buffer.bytes as u64)? },
                    };
                    let memory = tensor.memory.clone();
                    made[i] = Some((output.name.clone(), tensor));
                    Some(memory)
                }
            });
        }
        let outputs = made.into_iter().zip(&signature.outputs).map(|(made, o)| made.ok_or_else(|| RuntimeError::Bug(format!("output `{}` has no buffer", o.name))));
        let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        let call = special.code.prepare(call, memory, stream.map(|s| s.0.clone()))?;
        Ok(Resident { call, outputs, bytes })
    }

    /// Extents that the contents of the tensors decide, as they are now.
    fn late(&self, inputs: &[(&str, Given<'_>)], scalars: &[(&str, Scalar)], extents: &[(&str, i64)]) -> Result<Vec<(String, Scalar)>, RuntimeError> {
        let mut fetched: Vec<Option<Tensor>> = vec![];
        for (_, given) in inputs {
            fetched.push(match given {
                Given::Host(_) => None,
                Given::Device(tensor) => Some(tensor.download()?),
            });
        }
        let mut views: Vec<(&str, TensorView<'_>)> = vec![];
        for ((name, given), fetched) in inputs.iter().zip(&fetched) {
            match (given, fetched) {
                (Given::Host(view), _) => views.push((*name, view.clone())),
                (Given::Device(_), Some(tensor)) => views.push((*name, tensor.view())),
                (Given::Device(_), None) => {}
            }
        }
        self.late_extents(&views, scalars, extents)
    }
}
