//! Embeddable runtime of attnc: tensors in, tensors out.
//!
//! Compiles once and launches many times. Never looks inside a kernel: it reads plans and hands artifacts to drivers.

pub mod cache;
pub mod compile;
pub mod driver;
pub mod engine;
pub mod error;
pub mod host;
pub mod interface;
pub mod launch;
pub mod loaded;
pub mod manifest;
pub mod memory;
pub mod plan;
pub mod resident;
pub mod tensor;

pub use attnc_compiler::ops::{DType, Scalar};
pub use engine::{CompileOptions, Engine, Kernel, Outputs};
pub use error::RuntimeError;
pub use loaded::Loaded;
pub use resident::{DeviceTensor, Given, Resident, Stream};
pub use tensor::{Element, Storage, Tensor, TensorView, TensorViewMut};
