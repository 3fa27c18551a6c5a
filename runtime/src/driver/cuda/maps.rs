//! Tensor maps and block memory of kernels with roles.

use super::{CudaDriver, Function};
use crate::error::RuntimeError;
use attnc_codegen::ptx::{PtxMap, PtxRoles};
use attnc_compiler::kernel::Storage;
use cudarc::driver::sys;
use std::ffi::c_void;

/// A tensor map as a kernel takes it: 128 bytes, aligned to 64.
#[repr(C, align(64))]
pub(super) struct Map([u64; 16]);

/// Lets a function ask for `bytes` of shared memory at a launch.
pub(super) fn allow_block_memory(driver: &CudaDriver, function: &Function, bytes: usize, kernel: &str) -> Result<(), RuntimeError> {
    let what = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: the function belongs to a loaded module of the current context.
    let done = unsafe { sys::cuFuncSetAttribute(function.0, what, bytes as i32) }.result();
    done.map_err(|e| driver.fault.of(format_args!("kernel `{kernel}` asks for {bytes} bytes of block memory"), e))
}

/// The maps of a launch. `pointers`: memory of the buffer arguments; `ints`: the Int arguments.
pub(super) fn encode(driver: &CudaDriver, roles: &PtxRoles, pointers: &[sys::CUdeviceptr], ints: &[i64], kernel: &str) -> Result<Vec<Map>, RuntimeError> {
    roles.maps.iter().map(|m| one(driver, m, pointers, ints, kernel)).collect()
}

fn one(driver: &CudaDriver, map: &PtxMap, pointers: &[sys::CUdeviceptr], ints: &[i64], kernel: &str) -> Result<Map, RuntimeError> {
    let bug = || RuntimeError::Bug(format!("a tensor map of kernel `{kernel}` refers to nothing"));
    let pointer = *pointers.get(map.buffer as usize).ok_or_else(bug)?;
    // Innermost first, as the driver wants it. An axis without positions is never copied from, but may not be 0.
    let mut dims = vec![];
    for i in map.shape.iter().rev() {
        dims.push(u64::try_from(*ints.get(*i as usize).ok_or_else(bug)?).unwrap_or(0).max(1));
    }
    let block: Vec<u32> = map.block.iter().rev().copied().collect();
    let mut strides = vec![];
    let mut bytes = map.storage.bytes() as u64;
    for d in &dims[..dims.len().saturating_sub(1)] {
        bytes = bytes.saturating_mul(*d);
        strides.push(bytes);
    }
    let steps = vec![1u32; dims.len()];
    let kind = match map.storage {
        Storage::F16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        _ => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
    };
    let mut made = Map([0; 16]);
    // SAFETY: the map is 128 bytes, aligned to 64; the lists have as many entries as the rank says (one stride less) and live through the
    // call. The memory behind `pointer` is not touched here; it has the extents of the plan.
    let done = unsafe {
        sys::cuTensorMapEncodeTiled(
            std::ptr::from_mut(&mut made).cast(),
            kind,
            dims.len() as u32,
            pointer as *mut c_void,
            dims.as_ptr(),
            strides.as_ptr(),
            block.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    }
    .result();
    done.map_err(|e| driver.fault.of(format_args!("a tensor map of kernel `{kernel}`"), e))?;
    Ok(made)
}
