//! One file a device. A driver takes a checked call and memory, allocates what lives only during the call, and launches.
//! The only home of `unsafe` in this crate.

#[cfg(feature = "cpu")]
pub mod cpu;

use crate::error::RuntimeError;
use crate::plan::Call;

/// Memory of one buffer of the plan during a call. The bytes are dense, aligned for the buffer's storage, and exactly
/// `Call::buffers[i].bytes` long.
#[derive(Debug)]
pub enum Slot<'a> {
    /// An input: kernels only read it (a kernel that declares it `written` is refused).
    In(&'a [u8]),
    /// An output: every element is written by the kernels.
    Out(&'a mut [u8]),
    /// Lives during the call; the driver allocates it, contents are undefined at the start.
    Temp,
}

/// A compiled program on a device: all kernels of a plan, ready to launch.
pub trait Executable: Send + Sync {
    /// Runs all launches of `call` in order and returns when the outputs are in host memory. `slots[i]` belongs to buffer i.
    ///
    /// Errors: [`RuntimeError::Device`] when the device refuses or fails, [`RuntimeError::TooLarge`] when it has too little memory.
    fn execute(&self, call: &Call, slots: &mut [Slot<'_>]) -> Result<(), RuntimeError>;

    /// The artifact as text for people, when the device has one (PTX, WGSL).
    fn text(&self) -> Option<&str> {
        None
    }
}
