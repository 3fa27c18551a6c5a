//! What the GPU reaches at best: a copy, and a matrix product by cuBLAS where that library can be loaded.

use super::resident::Clock;
use super::{CudaDriver, DEFAULT, DEVICE};
use crate::driver::Ceilings;
use crate::error::RuntimeError;
use crate::tensor::Storage;
use cudarc::cublas::sys as blas;
use cudarc::driver::{result, sys};
use std::ffi::c_void;
use std::sync::Arc;

/// Bytes of each side of the copy, at most.
const COPY_BYTES: u64 = 2 << 30;
/// Side of the square matrices.
const SIDE: usize = 8192;
const ROUNDS: usize = 12;

/// Copy and product, each the median of some rounds.
pub(super) fn measure(driver: &Arc<CudaDriver>, real: Storage) -> Result<Ceilings, RuntimeError> {
    let copy = copy(driver)?;
    let found = match products(driver, real)? {
        Some(rate) => Some((rate, format!("{} product of side {SIDE} by cuBLAS, measured", name(real)))),
        None => stated(driver.arch(), real).map(|rate| (rate, "the vendor's figure, cuBLAS is not at hand".to_string())),
    };
    let (products, products_by) = found.unwrap_or((f64::INFINITY, "not known".to_string()));
    Ok(Ceilings { products, products_by, copy: Some(copy) })
}

fn name(real: Storage) -> &'static str {
    match real {
        Storage::F16 => "f16",
        Storage::Bf16 => "bf16",
        _ => "f32",
    }
}

/// Dense rates of the largest chip of a generation, from the vendor's data sheets.
fn stated(arch: &str, real: Storage) -> Option<f64> {
    let half = matches!(real, Storage::Bf16 | Storage::F16);
    match (arch, half) {
        ("sm_90a", true) => Some(989e12),
        ("sm_90a", false) => Some(67e12),
        ("sm_80", true) => Some(312e12),
        ("sm_80", false) => Some(19.5e12),
        _ => None,
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Bytes read and written in a second.
fn copy(driver: &Arc<CudaDriver>) -> Result<f64, RuntimeError> {
    let bytes = COPY_BYTES.min(driver.free_bytes().unwrap_or(COPY_BYTES) / 4).max(1 << 20);
    let [from, to] = [driver.allocate(|| "the copy test".to_string(), bytes)?, driver.allocate(|| "the copy test".to_string(), bytes)?];
    let clock = Clock::new(driver)?;
    let mut times = vec![];
    for _ in 0..ROUNDS {
        times.push(clock.time(DEFAULT, || {
            // SAFETY: both allocations have `from.bytes` bytes, do not overlap and outlive the copy, which `time` waits for.
            unsafe { result::memcpy_dtod_async(to.pointer, from.pointer, from.bytes, DEFAULT) }.map_err(|e| driver.fault.of("copying", e))
        })?);
    }
    Ok(2.0 * from.bytes as f64 / median(times))
}

/// Operations in a second of a square product, `None` without cuBLAS.
fn products(driver: &Arc<CudaDriver>, real: Storage) -> Result<Option<f64>, RuntimeError> {
    // SAFETY: only tries to load the library.
    if !unsafe { blas::is_culib_present() } {
        return Ok(None);
    }
    let (ty, width) = match real {
        Storage::F16 => (blas::cudaDataType_t::CUDA_R_16F, 2),
        Storage::Bf16 => (blas::cudaDataType_t::CUDA_R_16BF, 2),
        _ => (blas::cudaDataType_t::CUDA_R_32F, 4),
    };
    let what = || "the matrices of the ceiling".to_string();
    let n = SIDE;
    let bytes = (n * n * width) as u64;
    let (a, b, c) = (driver.allocate(what, bytes)?, driver.allocate(what, bytes)?, driver.allocate(what, bytes)?);
    // Numbers of all bits, as in real data (the clock falls with the bits that change); exponents near that of 1.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words: Vec<u64> = (0..n * n * width / 8).map(|_| random()).collect();
    let masked: Vec<u64> = words
        .iter()
        .map(|w| match real {
            Storage::F16 => w & 0x83ff_83ff_83ff_83ff | 0x3800_3800_3800_3800,
            Storage::Bf16 => w & 0x807f_807f_807f_807f | 0x3f00_3f00_3f00_3f00,
            _ => w & 0x807f_ffff_807f_ffff | 0x3f00_0000_3f00_0000,
        })
        .collect();
    a.write(bytemuck::cast_slice(&masked))?;
    b.write(bytemuck::cast_slice(&masked))?;
    let ok = |status: blas::cublasStatus_t| match status {
        blas::cublasStatus_t::CUBLAS_STATUS_SUCCESS => Ok(()),
        other => Err(RuntimeError::Device { device: DEVICE, what: format!("cuBLAS: {other:?}") }),
    };
    let mut handle: blas::cublasHandle_t = std::ptr::null_mut();
    // SAFETY: the context is current; `handle` receives the handle.
    ok(unsafe { blas::cublasCreate_v2(&mut handle) })?;
    let timed = times(driver, handle, ty, [a.pointer, b.pointer, c.pointer], &ok);
    // SAFETY: created above, destroyed once; `times` has waited for its work.
    let destroyed = ok(unsafe { blas::cublasDestroy_v2(handle) });
    let median = median(timed?);
    destroyed?;
    Ok(Some(2.0 * (n as f64).powi(3) / median))
}

fn times(
    driver: &Arc<CudaDriver>,
    handle: blas::cublasHandle_t,
    ty: blas::cudaDataType_t,
    [a, b, c]: [sys::CUdeviceptr; 3],
    ok: &impl Fn(blas::cublasStatus_t) -> Result<(), RuntimeError>,
) -> Result<Vec<f64>, RuntimeError> {
    let clock = Clock::new(driver)?;
    let (n, one, zero) = (SIDE as i32, 1f32, 0f32);
    let mut times = vec![];
    for round in 0..ROUNDS + 2 {
        let time = clock.time(DEFAULT, || {
            let scale = |x: &f32| std::ptr::from_ref(x).cast::<c_void>();
            let (yes, no) = (blas::cublasOperation_t::CUBLAS_OP_T, blas::cublasOperation_t::CUBLAS_OP_N);
            // SAFETY: three square matrices of side `n` in device memory of that size, outliving the call, which `time` waits for; the
            // scales are f32, as a computation in f32 takes them, on the host.
            ok(unsafe {
                blas::cublasGemmEx(
                    handle, yes, no, n, n, n, scale(&one), a as *const c_void, ty, n, b as *const c_void, ty, n, scale(&zero), c as *mut c_void, ty, n,
                    blas::cublasComputeType_t::CUBLAS_COMPUTE_32F, blas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
                )
            })
        })?;
        // The first ones load code.
        if round >= 2 {
            times.push(time);
        }
    }
    Ok(times)
}
