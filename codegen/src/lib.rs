//! Kernel IR to artifacts. One folder a backend; folders never import each other. A backend reads `kernel` only.

#[cfg(feature = "cpu")]
pub mod cpu;
pub mod expand;
pub mod ptx;
#[cfg(feature = "wgsl")]
pub mod wgsl;

/// Why a kernel could not become an artifact.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// The kernel breaks rules that `verify` states.
    #[error("kernel `{kernel}` is not valid: {}", .faults.join("; "))]
    Invalid { kernel: String, faults: Vec<String> },
    /// The kernel is valid, but not for this target.
    #[error("{backend} cannot run kernel `{kernel}`: {what}")]
    Unsupported { backend: &'static str, kernel: String, what: String },
    /// The target library refused what we built.
    #[error("{backend} failed on kernel `{kernel}`: {what}")]
    Backend { backend: &'static str, kernel: String, what: String },
}
