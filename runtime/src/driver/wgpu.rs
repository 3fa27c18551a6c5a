//! Runs WGSL kernels through wgpu (Vulkan): buffers on the device for the time of a call, one submission for all launches.
//!
//! Bools take a word on the device and are converted on the way; 16-bit reals are padded to whole words. Errors of wgpu are caught in
//! scopes or by handlers, never by its default, which is a panic.
//!
//! Mesa's software device (lavapipe) leaves all loops of an invocation after 65535 iterations in total, without an error
//! (`LP_MAX_TGSI_LOOP_ITERATIONS`): results of long loops are wrong there, and there only.

use super::{Device, Executable, Slot, emit_error};
use crate::cache::Cache;
use crate::error::RuntimeError;
use crate::manifest::Manifest;
use crate::plan::{BufferCall, Call, LaunchCall};
use crate::tensor::Storage;
use attnc_codegen::wgsl::{self, ENTRY, WgslKernel};
use attnc_compiler::kernel::Kernel;
use attnc_compiler::kernel::caps::Caps;
use attnc_compiler::kernel::plan::Program;
use attnc_compiler::passes::tile::TileOptions;
use std::sync::{Arc, Mutex, PoisonError};
use wgpu::{BindGroupLayout, Buffer, BufferDescriptor, BufferUsages, ComputePipeline, ErrorFilter};

const DEVICE: &str = "wgpu";

/// A device of WebGPU. Cheap to share; one for the process is enough.
pub struct WgpuDriver {
    device: wgpu::Device,
    queue: wgpu::Queue,
    limits: wgpu::Limits,
    name: String,
    /// The first thing that went wrong outside of any error scope; the device is of no use afterwards.
    broken: Arc<Mutex<Option<String>>>,
}

impl std::fmt::Debug for WgpuDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WgpuDriver({})", self.name)
    }
}

fn failed(what: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::Device { device: DEVICE, what: what.to_string() }
}

impl WgpuDriver {
    /// Opens the adapter that wgpu prefers, software renderers included. Errors: [`RuntimeError::NoDevice`].
    pub fn new() -> Result<WgpuDriver, RuntimeError> {
        let none = |what: String| RuntimeError::NoDevice { device: DEVICE, what };
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let options = wgpu::RequestAdapterOptions { power_preference: wgpu::PowerPreference::HighPerformance, ..Default::default() };
        let adapter = pollster::block_on(instance.request_adapter(&options)).map_err(|e| none(e.to_string()))?;
        let limits = adapter.limits();
        let descriptor = wgpu::DeviceDescriptor { label: Some("attnc"), required_limits: limits.clone(), ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| none(e.to_string()))?;
        let broken = Arc::new(Mutex::new(None));
        let note = |broken: &Arc<Mutex<Option<String>>>| {
            let broken = broken.clone();
            move |what: String| {
                broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
            }
        };
        let (uncaptured, lost) = (note(&broken), note(&broken));
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| uncaptured(error.to_string())));
        device.set_device_lost_callback(move |reason, message| lost(format!("the device is lost ({reason:?}): {message}")));
        Ok(WgpuDriver { device, queue, limits, name: adapter.get_info().name, broken })
    }

    /// Name of the adapter.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` and reports what wgpu found wrong in it.
    fn scoped<T>(&self, work: impl FnOnce() -> Result<T, RuntimeError>) -> Result<T, RuntimeError> {
        let scopes = [ErrorFilter::OutOfMemory, ErrorFilter::Internal, ErrorFilter::Validation].map(|f| self.device.push_error_scope(f));
        let done = work();
        let mut first = None;
        for scope in scopes.into_iter().rev() {
            let error = pollster::block_on(scope.pop());
            first = first.or(error);
        }
        if let Some(what) = self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(failed(what));
        }
        match first {
            None => done,
            Some(wgpu::Error::OutOfMemory { .. }) => Err(RuntimeError::TooLarge { what: "a buffer of the call".to_string(), bytes: None, available: None }),
            Some(error @ (wgpu::Error::Validation { .. } | wgpu::Error::Internal { .. })) => Err(failed(error)),
        }
    }

    fn load_kernel(&self, kernel: WgslKernel) -> Result<Loaded, RuntimeError> {
        let bindings = kernel.buffers.len() + 1 + usize::from(kernel.workspace_words > 0);
        let limits = &self.limits;
        for (what, need, have) in [
            ("storage buffers", bindings as u64, u64::from(limits.max_storage_buffers_per_shader_stage)),
            ("bytes of workgroup memory", kernel.shared_bytes as u64, u64::from(limits.max_compute_workgroup_storage_size)),
            ("lanes", u64::from(kernel.lanes), u64::from(limits.max_compute_workgroup_size_x.min(limits.max_compute_invocations_per_workgroup))),
        ] {
            if need > have {
                let what = format!("kernel `{}` needs {need} {what}, and the device has {have}", kernel.name);
                return Err(RuntimeError::Unsupported { target: "wgsl", what });
            }
        }
        self.scoped(|| {
            let entries: Vec<_> = (0..bindings)
                .map(|i| wgpu::BindGroupLayoutEntry {
                    binding: i as u32,
                    visibility: wgpu::ShaderStages::COMPUTE,
                    ty: wgpu::BindingType::Buffer {
                        // After the buffers: the arguments, which are read, and the workspace.
                        ty: wgpu::BufferBindingType::Storage { read_only: kernel.buffers.get(i).map_or(i == kernel.buffers.len(), |b| !b.written) },
                        has_dynamic_offset: false,
                        min_binding_size: None,
                    },
                    count: None,
                })
                .collect();
            let label = Some(kernel.name.as_str());
            let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
            let whole = wgpu::PipelineLayoutDescriptor { label, bind_group_layouts: &[Some(&layout)], immediate_size: 0 };
            let whole = self.device.create_pipeline_layout(&whole);
            let source = wgpu::ShaderSource::Wgsl(kernel.text.as_str().into());
            let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
            let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label,
                layout: Some(&whole),
                module: &module,
                entry_point: Some(ENTRY),
                // Contents of local arrays are undefined at the start.
                compilation_options: wgpu::PipelineCompilationOptions { zero_initialize_workgroup_memory: false, ..Default::default() },
                cache: None,
            });
            Ok(Loaded { kernel, pipeline, layout })
        })
    }

    fn buffer(&self, label: &str, bytes: u64, usage: BufferUsages) -> Result<Buffer, RuntimeError> {
        let most = self.limits.max_buffer_size.min(if usage.contains(BufferUsages::STORAGE) { self.limits.max_storage_buffer_binding_size } else { u64::MAX });
        // Bindings may not be empty.
        let size = bytes.max(4).next_multiple_of(4);
        if size > most {
            return Err(RuntimeError::TooLarge { what: format!("buffer `{label}`"), bytes: Some(size), available: Some(most) });
        }
        Ok(self.device.create_buffer(&BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false }))
    }
}

struct Loaded {
    kernel: WgslKernel,
    pipeline: ComputePipeline,
    layout: BindGroupLayout,
}

/// Kernels of one plan on a device.
pub struct WgpuProgram {
    driver: Arc<WgpuDriver>,
    kernels: Vec<Loaded>,
    text: String,
}

impl WgpuProgram {
    /// Compiles the kernels of a plan, in the order that its launches count them; they must be lowered for `wgsl::caps` and
    /// `wgsl::tiles`. Errors: [`RuntimeError::Unsupported`] beyond the limits of the device, [`RuntimeError::Device`] when it refuses.
    pub fn new(driver: Arc<WgpuDriver>, kernels: &[Kernel]) -> Result<WgpuProgram, RuntimeError> {
        let compiled = kernels.iter().map(|k| wgsl::compile(k).map_err(|e| emit_error("wgsl", e))).collect::<Result<Vec<_>, _>>()?;
        WgpuProgram::from_artifacts(driver, compiled)
    }

    /// As `new`, from kernels compiled before.
    pub fn from_artifacts(driver: Arc<WgpuDriver>, compiled: Vec<WgslKernel>) -> Result<WgpuProgram, RuntimeError> {
        let text = compiled.iter().map(|k| k.text.as_str()).collect::<Vec<_>>().join("\n");
        let kernels = compiled.into_iter().map(|k| driver.load_kernel(k)).collect::<Result<Vec<_>, _>>()?;
        Ok(WgpuProgram { driver, kernels, text })
    }

    /// What one launch needs besides its buffers.
    fn prepare<'p>(&'p self, launch: &'p LaunchCall) -> Result<Prepared<'p>, RuntimeError> {
        let loaded = self.kernels.get(launch.kernel as usize).ok_or_else(|| RuntimeError::Bug(format!("there is no kernel {}", launch.kernel)))?;
        let kernel = &loaded.kernel;
        if (launch.buffers.len(), launch.ints.len(), launch.reals.len()) != (kernel.buffers.len(), kernel.ints, kernel.reals) {
            return Err(RuntimeError::Bug(format!("a launch does not fit kernel `{}`", kernel.name)));
        }
        let mut arguments = vec![];
        for value in &launch.ints {
            let narrow = i32::try_from(*value).map_err(|_| RuntimeError::Unsupported {
                target: "wgsl",
                what: format!("kernel `{}` gets {value}, which does not fit 32 bits", kernel.name),
            })?;
            arguments.push(narrow);
        }
        arguments.extend(launch.reals.iter().map(|r| r.to_bits() as i32));
        let blocks = i32::try_from(launch.blocks).map_err(|_| RuntimeError::TooLarge { what: format!("the grid of kernel `{}`", kernel.name), bytes: None, available: None })?;
        // As many blocks at a time as the workspace and the grid have room for.
        let bytes = 4 * kernel.workspace_words as u64;
        let limits = &self.driver.limits;
        let room = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(WORKSPACE_BYTES.max(bytes));
        let width = u64::from(limits.max_compute_workgroups_per_dimension);
        let batch = room.checked_div(bytes).map_or(width.saturating_mul(width), |n| n.max(1)).min(launch.blocks).max(1);
        Ok(Prepared { loaded, buffers: &launch.buffers, arguments, blocks, batch, workspace: bytes.saturating_mul(batch) })
    }
}

/// Most bytes of workspace at a time, unless one block needs more.
const WORKSPACE_BYTES: u64 = 64 << 20;

struct Prepared<'p> {
    loaded: &'p Loaded,
    buffers: &'p [u32],
    arguments: Vec<i32>,
    blocks: i32,
    /// Blocks of one dispatch.
    batch: u64,
    workspace: u64,
}

/// Bytes of a buffer on the device.
fn device_bytes(buffer: &BufferCall) -> u64 {
    match buffer.storage {
        Storage::U8 => 4 * buffer.elements as u64,
        Storage::F32 | Storage::F64 | Storage::Bf16 | Storage::F16 | Storage::I64 | Storage::I32 => buffer.bytes as u64,
    }
}

impl Executable for WgpuProgram {
    fn execute(&self, call: &Call, slots: &mut [Slot<'_>]) -> Result<(), RuntimeError> {
        if slots.len() != call.buffers.len() {
            return Err(RuntimeError::Bug(format!("{} slots for {} buffers", slots.len(), call.buffers.len())));
        }
        let driver = &*self.driver;
        let launches = call.launches.iter().map(|l| self.prepare(l)).collect::<Result<Vec<_>, _>>()?;
        let staging = driver.scoped(|| {
            let storage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
            let mut buffers = vec![];
            for (i, (buffer, slot)) in call.buffers.iter().zip(slots.iter()).enumerate() {
                let made = driver.buffer(&format!("buffer {i}"), device_bytes(buffer), storage)?;
                if let Slot::In(bytes) = slot
                    && !bytes.is_empty()
                {
                    driver.queue.write_buffer(&made, 0, &upload(buffer.storage, bytes));
                }
                buffers.push(made);
            }
            let most = launches.iter().map(|l| l.workspace).max().unwrap_or(0);
            let workspace = driver.buffer("workspace", most, BufferUsages::STORAGE)?;
            let mut encoder = driver.device.create_command_encoder(&Default::default());
            for launch in &launches {
                self.encode(&mut encoder, launch, &buffers, &workspace)?;
            }
            let mut staging = vec![];
            for ((buffer, slot), made) in call.buffers.iter().zip(slots.iter()).zip(&buffers) {
                staging.push(match slot {
                    Slot::Out(bytes) if !bytes.is_empty() => {
                        let size = device_bytes(buffer).next_multiple_of(4);
                        let copy = driver.buffer("results", size, BufferUsages::MAP_READ | BufferUsages::COPY_DST)?;
                        encoder.copy_buffer_to_buffer(made, 0, &copy, 0, Some(size));
                        Some(copy)
                    }
                    Slot::In(_) | Slot::Out(_) | Slot::Temp => None,
                });
            }
            driver.queue.submit([encoder.finish()]);
            Ok(staging)
        })?;
        driver.scoped(|| {
            let (send, receive) = std::sync::mpsc::channel();
            for buffer in staging.iter().flatten() {
                let send = send.clone();
                buffer.slice(..).map_async(wgpu::MapMode::Read, move |done| {
                    // The receiver is gone only after an error that has been reported.
                    let _ = send.send(done);
                });
            }
            driver.device.poll(wgpu::PollType::wait_indefinitely()).map_err(failed)?;
            drop(send);
            for done in receive {
                done.map_err(failed)?;
            }
            for ((buffer, slot), copy) in call.buffers.iter().zip(slots.iter_mut()).zip(&staging) {
                if let (Slot::Out(bytes), Some(copy)) = (slot, copy) {
                    let view = copy.slice(..).get_mapped_range().map_err(failed)?;
                    download(buffer.storage, &view, bytes);
                }
            }
            Ok(())
        })
    }

    fn text(&self) -> Option<&str> {
        Some(&self.text)
    }
}

impl WgpuProgram {
    fn encode(&self, encoder: &mut wgpu::CommandEncoder, launch: &Prepared<'_>, buffers: &[Buffer], workspace: &Buffer) -> Result<(), RuntimeError> {
        let driver = &*self.driver;
        let width = u64::from(driver.limits.max_compute_workgroups_per_dimension);
        let mut first = 0;
        let blocks = launch.blocks as u64;
        while first < blocks {
            let count = launch.batch.min(blocks - first);
            // Two Ints of the driver, then those of the kernel.
            let mut words = vec![first as i32, (first + count) as i32];
            words.extend(&launch.arguments);
            let arguments = driver.buffer("arguments", 4 * words.len() as u64, BufferUsages::STORAGE | BufferUsages::COPY_DST)?;
            driver.queue.write_buffer(&arguments, 0, bytemuck::cast_slice(&words));
            let mut bound = vec![];
            for slot in launch.buffers {
                bound.push(buffers.get(*slot as usize).ok_or_else(|| RuntimeError::Bug(format!("there is no buffer {slot}")))?);
            }
            bound.push(&arguments);
            if launch.workspace > 0 {
                bound.push(workspace);
            }
            let entries: Vec<_> =
                bound.iter().enumerate().map(|(i, b)| wgpu::BindGroupEntry { binding: i as u32, resource: b.as_entire_binding() }).collect();
            let descriptor = wgpu::BindGroupDescriptor { label: None, layout: &launch.loaded.layout, entries: &entries };
            let group = driver.device.create_bind_group(&descriptor);
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some(&launch.loaded.kernel.name), timestamp_writes: None });
            pass.set_pipeline(&launch.loaded.pipeline);
            pass.set_bind_group(0, &group, &[]);
            let x = count.min(width);
            pass.dispatch_workgroups(x as u32, count.div_ceil(x) as u32, 1);
            first += count;
        }
        Ok(())
    }
}

/// The bytes as the device wants them, in whole words.
fn upload(storage: Storage, bytes: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    match storage {
        Storage::U8 => bytes.iter().flat_map(|b| u32::from(*b != 0).to_le_bytes()).collect::<Vec<u8>>().into(),
        _ if bytes.len() % 4 == 0 => bytes.into(),
        Storage::F32 | Storage::F64 | Storage::Bf16 | Storage::F16 | Storage::I64 | Storage::I32 => {
            let mut padded = bytes.to_vec();
            padded.resize(bytes.len().next_multiple_of(4), 0);
            padded.into()
        }
    }
}

fn download(storage: Storage, from: &[u8], to: &mut [u8]) {
    match storage {
        Storage::U8 => to.iter_mut().zip(from.chunks_exact(4)).for_each(|(to, word)| *to = u8::from(word.iter().any(|b| *b != 0))),
        Storage::F32 | Storage::F64 | Storage::Bf16 | Storage::F16 | Storage::I64 | Storage::I32 => {
            let n = to.len().min(from.len());
            to[..n].copy_from_slice(&from[..n]);
        }
    }
}

/// A WebGPU device that programs are lowered for.
#[derive(Debug)]
pub struct WebGpu(pub Arc<WgpuDriver>);

impl Device for WebGpu {
    fn target(&self) -> &'static str {
        "wgsl"
    }

    fn caps(&self) -> Caps {
        wgsl::caps()
    }

    fn tiles(&self, _real: Storage) -> TileOptions {
        // 16-bit inputs are widened on the host: WGSL has no memory of that width everywhere.
        wgsl::tiles()
    }

    fn load(&self, program: &Program, _cache: Option<&Cache>) -> Result<Box<dyn Executable>, RuntimeError> {
        Ok(Box::new(WgpuProgram::new(self.0.clone(), &program.kernels)?))
    }

    fn load_files(&self, manifest: &Manifest, texts: Vec<String>) -> Result<Box<dyn Executable>, RuntimeError> {
        let kernels = manifest.kernels.iter().zip(texts).map(|(entry, text)| WgslKernel {
            name: entry.name.clone(),
            text,
            buffers: entry.args(),
            ints: entry.ints.len(),
            reals: entry.reals.len(),
            lanes: entry.lanes,
            shared_bytes: entry.shared_bytes as usize,
            workspace_words: (entry.workspace_bytes / 4) as usize,
        });
        Ok(Box::new(WgpuProgram::from_artifacts(self.0.clone(), kernels.collect())?))
    }

    fn available(&self) -> Option<u64> {
        None
    }
}
