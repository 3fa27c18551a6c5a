//! Calls whose buffers stay on the device, foreign memory, streams, and time by the device's clock.

use super::{Code, CudaDriver, DEFAULT, DEVICE, Memory};
use crate::driver::{DeviceMemory, DeviceStream, Prepared};
use crate::error::RuntimeError;
use crate::plan::Call;
use attnc_compiler::kernel::plan::BufferKind;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

impl DeviceMemory for Memory {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn address(&self) -> u64 {
        self.pointer
    }

    fn upload(&self, bytes: &[u8]) -> Result<(), RuntimeError> {
        self.write(bytes)
    }

    fn download(&self, into: &mut [u8]) -> Result<(), RuntimeError> {
        self.driver.bind()?;
        // Launches may be on any stream.
        self.driver.context.synchronize().map_err(|e| self.driver.fault.of("waiting for launches", e))?;
        self.read(into)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Foreign memory, when the driver knows an allocation of this device that holds all of it.
pub(super) fn import(driver: &Arc<CudaDriver>, address: u64, bytes: u64) -> Result<Arc<dyn DeviceMemory>, RuntimeError> {
    driver.bind()?;
    let refused = |what: String| RuntimeError::Device { device: DEVICE, what: format!("the {bytes} bytes at {address:#x} cannot be taken: {what}") };
    let Ok(size) = usize::try_from(bytes) else { return Err(refused("too many".to_string())) };
    let (mut start, mut length, mut ordinal): (sys::CUdeviceptr, usize, i32) = (0, 0, -1);
    let ask = |attribute, into: *mut std::ffi::c_void| {
        // SAFETY: the driver looks the address up in its tables and does not read it; `into` points to a variable of the attribute's type (an
        // address, a size_t, an int: see the three calls below) that lives through the call.
        unsafe { sys::cuPointerGetAttribute(into, attribute, address) }.result()
    };
    ask(sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, std::ptr::from_mut(&mut start).cast())
        .and_then(|()| ask(sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE, std::ptr::from_mut(&mut length).cast()))
        .and_then(|()| ask(sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, std::ptr::from_mut(&mut ordinal).cast()))
        .map_err(|_| refused("the driver knows no allocation there".to_string()))?;
    let held = address.checked_sub(start).and_then(|before| (length as u64).checked_sub(before)).unwrap_or(0);
    if held < bytes {
        return Err(refused(format!("the allocation ends after {held} bytes")));
    }
    if usize::try_from(ordinal) != Ok(driver.context.ordinal()) {
        return Err(refused(format!("they are memory of device {ordinal}")));
    }
    // Kernels read whole elements, and vectors of 16 bytes in time.
    if !address.is_multiple_of(16) {
        return Err(refused("the address is not a multiple of 16".to_string()));
    }
    Ok(Arc::new(Memory { pointer: address, bytes: size, driver: driver.clone(), is_ours: false }))
}

/// A stream of a GPU that does not wait for the default stream.
#[derive(Debug)]
pub struct CudaStream {
    stream: sys::CUstream,
    driver: Arc<CudaDriver>,
}

// SAFETY: a stream handle may be used from any thread in which its context is current; every use below makes it so.
unsafe impl Send for CudaStream {}
// SAFETY: as above; the driver locks its queues.
unsafe impl Sync for CudaStream {}

impl CudaStream {
    pub(super) fn new(driver: &Arc<CudaDriver>) -> Result<CudaStream, RuntimeError> {
        driver.bind()?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(|e| driver.fault.of("making a stream", e))?;
        Ok(CudaStream { stream, driver: driver.clone() })
    }
}

impl DeviceStream for CudaStream {
    fn wait(&self) -> Result<(), RuntimeError> {
        self.driver.bind()?;
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.stream) }.map_err(|e| self.driver.fault.of("waiting for a stream", e))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for CudaStream {
    fn drop(&mut self) {
        if self.driver.context.bind_to_thread().is_ok() {
            // SAFETY: made in this context and destroyed once, here; the driver keeps it until its work is done.
            let _ = unsafe { result::stream::destroy(self.stream) };
        }
    }
}

/// See [`Prepared`].
struct Ready {
    code: Arc<Code>,
    call: Call,
    /// By buffer.
    pointers: Vec<sys::CUdeviceptr>,
    workspace: Memory,
    stream: Option<Arc<dyn DeviceStream>>,
    /// Keeps the memory of `pointers`.
    _memory: Vec<Arc<dyn DeviceMemory>>,
}

pub(super) fn prepare(
    code: Arc<Code>,
    call: Call,
    memory: Vec<Option<Arc<dyn DeviceMemory>>>,
    stream: Option<Arc<dyn DeviceStream>>,
) -> Result<Box<dyn Prepared>, RuntimeError> {
    let driver = &code.driver;
    driver.bind()?;
    if memory.len() != call.buffers.len() {
        return Err(RuntimeError::Bug(format!("memory for {} of {} buffers", memory.len(), call.buffers.len())));
    }
    let foreign = || RuntimeError::Device { device: DEVICE, what: "memory and streams must be of the device that runs the kernel".to_string() };
    let mut all: Vec<Arc<dyn DeviceMemory>> = vec![];
    for (i, (buffer, given)) in call.buffers.iter().zip(memory).enumerate() {
        all.push(match given {
            None => Arc::new(driver.allocate(|| format!("buffer {i}"), buffer.bytes as u64)?),
            Some(given) => {
                let ours = given.as_any().downcast_ref::<Memory>().filter(|m| Arc::ptr_eq(&m.driver, driver)).ok_or_else(foreign)?;
                if ours.bytes < buffer.bytes {
                    return Err(RuntimeError::Bug(format!("{} bytes for buffer {i} of {}", ours.bytes, buffer.bytes)));
                }
                given
            }
        });
    }
    if let Some(stream) = &stream {
        stream.as_any().downcast_ref::<CudaStream>().filter(|s| Arc::ptr_eq(&s.driver, driver)).ok_or_else(foreign)?;
    }
    let ranges = || call.buffers.iter().zip(&all).map(|(b, m)| (b, m.address(), m.address() + b.bytes as u64));
    for (i, (buffer, start, end)) in ranges().enumerate() {
        let is_input = matches!(buffer.kind, BufferKind::Input(_));
        let meets = |other: (usize, (&crate::plan::BufferCall, u64, u64))| other.0 != i && start < other.1.2 && other.1.1 < end;
        if !is_input && buffer.bytes > 0 && ranges().enumerate().any(meets) {
            return Err(RuntimeError::Device { device: DEVICE, what: "the memory of an output overlaps that of another tensor of the call".to_string() });
        }
    }
    let workspace = code.workspace(&call)?;
    let pointers = all.iter().map(|m| m.address()).collect();
    Ok(Box::new(Ready { pointers, workspace, call, stream, code, _memory: all }))
}

impl Ready {
    fn stream(&self) -> sys::CUstream {
        // `prepare` has looked at the type.
        self.stream.as_ref().and_then(|s| s.as_any().downcast_ref::<CudaStream>()).map_or(DEFAULT, |s| s.stream)
    }

    fn queue(&self, stream: sys::CUstream) -> Result<(), RuntimeError> {
        self.call.launches.iter().try_for_each(|launch| self.code.launch(launch, &self.pointers, &self.workspace, stream))
    }

    fn failed(&self, e: DriverError) -> RuntimeError {
        self.code.driver.fault.of(format_args!("kernel `{}`", self.code.names(&self.call)), e)
    }
}

impl Prepared for Ready {
    fn launch(&self) -> Result<(), RuntimeError> {
        self.code.driver.bind()?;
        self.queue(self.stream())
    }

    fn wait(&self) -> Result<(), RuntimeError> {
        self.code.driver.bind()?;
        // SAFETY: the stream is the default one or lives as long as `self`.
        unsafe { result::stream::synchronize(self.stream()) }.map_err(|e| self.failed(e))
    }

    fn time(&self, runs: usize, budget: f64) -> Result<Vec<f64>, RuntimeError> {
        self.code.driver.bind()?;
        let stream = self.stream();
        let clock = Clock::new(&self.code.driver)?;
        let (mut times, began) = (vec![], Instant::now());
        while times.len() < runs.max(1) && (times.is_empty() || began.elapsed().as_secs_f64() < budget) {
            times.push(clock.time(stream, || self.queue(stream))?);
        }
        Ok(times)
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        // The module and the memory go next. An error shows at the next call on the device.
        let _ = self.wait();
    }
}

/// Two events and memory as large as any cache.
pub(super) struct Clock<'d> {
    driver: &'d Arc<CudaDriver>,
    start: sys::CUevent,
    end: sys::CUevent,
    wash: Memory,
}

/// More than the second-level cache of any GPU until now.
const WASH_BYTES: u64 = 256 << 20;

impl<'d> Clock<'d> {
    pub fn new(driver: &'d Arc<CudaDriver>) -> Result<Clock<'d>, RuntimeError> {
        let wash = driver.allocate(|| "the array that washes the cache".to_string(), WASH_BYTES)?;
        let make = || result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(|e| driver.fault.of("making an event", e));
        Ok(Clock { driver, start: make()?, end: make()?, wash })
    }

    /// Seconds that the device spends on what `queue` puts on the stream.
    pub fn time(&self, stream: sys::CUstream, queue: impl FnOnce() -> Result<(), RuntimeError>) -> Result<f64, RuntimeError> {
        let fault = |e| self.driver.fault.of("timing a kernel", e);
        // SAFETY: the memory is as long as said, and written before the events on the same stream.
        unsafe { result::memset_d8_async(self.wash.pointer, 0, self.wash.bytes, stream) }.map_err(fault)?;
        // SAFETY: the events are those of `new`, alive as long as `self`.
        unsafe { result::event::record(self.start, stream) }.map_err(fault)?;
        queue()?;
        // SAFETY: as above.
        unsafe { result::event::record(self.end, stream) }.map_err(fault)?;
        // SAFETY: as above; both have been recorded on this stream, and the second one is waited for before they are compared.
        let ms = unsafe { result::event::synchronize(self.end).and_then(|()| result::event::elapsed(self.start, self.end)) }.map_err(fault)?;
        Ok(f64::from(ms) / 1e3)
    }
}

impl Drop for Clock<'_> {
    fn drop(&mut self) {
        for event in [self.start, self.end] {
            // SAFETY: made by `new` in this context and destroyed once, here.
            let _ = unsafe { result::event::destroy(event) };
        }
    }
}
