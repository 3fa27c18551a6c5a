//! What the driver answers, as errors that say whose turn it is.

use super::DEVICE;
use crate::error::RuntimeError;
use cudarc::driver::result::DriverError;
use cudarc::driver::sys::CUresult;
use std::fmt::Display;
use std::sync::OnceLock;

/// The fault after which a context answers nothing but that fault.
#[derive(Debug, Default)]
pub(super) struct Fault(OnceLock<String>);

impl Fault {
    /// The error of a driver call. A fault of a kernel is kept: the context is lost with it, for the rest of the process.
    pub fn of(&self, what: impl Display, error: DriverError) -> RuntimeError {
        self.report(format!("{what}: {error}"), error.0)
    }

    fn report(&self, text: String, error: CUresult) -> RuntimeError {
        if is_lasting(error) {
            return RuntimeError::DeviceLost { device: DEVICE, what: self.0.get_or_init(|| text).clone() };
        }
        let advice = match error {
            CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => "; the driver is older than the code: update it",
            CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU | CUresult::CUDA_ERROR_INVALID_PTX => "; the code was made for another architecture than this GPU's",
            CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES => "; a kernel needs more registers or shared memory than a block may have: please report it",
            _ => "",
        };
        RuntimeError::Device { device: DEVICE, what: text + advice }
    }

    /// Errors: [`RuntimeError::DeviceLost`] after a fault.
    pub fn check(&self) -> Result<(), RuntimeError> {
        match self.0.get() {
            Some(what) => Err(RuntimeError::DeviceLost { device: DEVICE, what: what.clone() }),
            None => Ok(()),
        }
    }

    pub fn text(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// Whether the context answers all later calls with this error too (the driver's documentation says so of these).
fn is_lasting(error: CUresult) -> bool {
    matches!(
        error,
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
            | CUresult::CUDA_ERROR_ASSERT
            | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUresult::CUDA_ERROR_INVALID_PC
            | CUresult::CUDA_ERROR_LAUNCH_FAILED
            | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
            | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_a_kernel_lasts_and_other_errors_do_not() {
        let fault = Fault::default();
        let passing = fault.report("a launch".into(), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert!(matches!(passing, RuntimeError::Device { .. }));
        assert!(fault.check().is_ok());
        let lost = fault.report("kernel `a`".into(), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        assert!(matches!(lost, RuntimeError::DeviceLost { .. }));
        // The first one stays: what comes after it is the same error again.
        let again = fault.report("kernel `b`".into(), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        assert_eq!(lost.to_string(), again.to_string());
        assert!(fault.check().is_err() && fault.text().is_some_and(|t| t.contains("kernel `a`")));
    }
}
