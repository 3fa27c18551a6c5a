//! Runs machine code of the CPU backend: blocks over threads, one scratch a thread, borrowed memory, no copies.
#![allow(unsafe_code)]

use super::{Executable, Slot};
use crate::error::RuntimeError;
use crate::plan::Call as PlanCall;
use attnc_codegen::EmitError;
use attnc_codegen::cpu::{CpuKernel, CpuModule, Entry, SCRATCH_ALIGN, compile_all, table};
use attnc_compiler::kernel::Kernel;
use attnc_compiler::kernel::plan::BufferKind;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::cell::RefCell;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Why a launch was refused; nothing ran.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LaunchError {
    #[error("there is no kernel {0}")]
    NoKernel(usize),
    #[error("kernel `{kernel}` takes {want} {what}, not {found}")]
    Count { kernel: String, what: &'static str, want: usize, found: usize },
    #[error("kernel `{kernel}`: there is no buffer slot {slot} for `{buffer}`")]
    NoSlot { kernel: String, buffer: String, slot: u32 },
    #[error("kernel `{kernel}` stores to `{buffer}`, which is borrowed for reading")]
    ReadOnly { kernel: String, buffer: String },
    #[error("kernel `{kernel}` stores to `{buffer}`, which it also gets under another name")]
    Aliased { kernel: String, buffer: String },
    #[error("kernel `{kernel}`: `{buffer}` does not hold whole elements of {bytes} bytes at an aligned address")]
    Misplaced { kernel: String, buffer: String, bytes: usize },
    #[error("the thread pool could not start: {0}")]
    Threads(String),
}

/// A line of memory; vectors of it are aligned as kernels want their scratch.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; SCRATCH_ALIGN]);

/// Owned memory, aligned to 64 bytes, zero at first.
pub struct AlignedBytes {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedBytes {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> AlignedBytes {
        AlignedBytes { lines: vec![Line([0; SCRATCH_ALIGN]); len.div_ceil(SCRATCH_ALIGN)], len }
    }

    /// `len` zero bytes, or `None` when there is no memory for them.
    fn try_zeroed(len: usize) -> Option<AlignedBytes> {
        let mut lines = Vec::new();
        lines.try_reserve_exact(len.div_ceil(SCRATCH_ALIGN)).ok()?;
        lines.resize(len.div_ceil(SCRATCH_ALIGN), Line([0; SCRATCH_ALIGN]));
        Some(AlignedBytes { lines, len })
    }

    /// Bytes that fit without allocating.
    fn capacity(&self) -> usize {
        self.lines.len() * SCRATCH_ALIGN
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `lines` holds at least `len` initialised bytes without padding, and is borrowed as long as the result.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    /// The bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// Memory that kernels may be given.
pub enum Memory<'a> {
    /// Memory of the caller that is only read.
    Read(&'a [u8]),
    /// Memory of the caller that may be written.
    Write(&'a mut [u8]),
    /// Memory of the runtime.
    Owned(AlignedBytes),
    /// Memory of the runtime, a copy for each thread, so many bytes apart.
    Each(AlignedBytes, usize),
}

impl Memory<'_> {
    /// What it holds.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Memory::Read(bytes) => bytes,
            Memory::Write(bytes) => bytes,
            Memory::Owned(bytes) => bytes.bytes(),
            Memory::Each(bytes, step) => &bytes.bytes()[..*step],
        }
    }
}

/// Compiled kernels and the code that they point into.
pub struct CpuCode {
    module: CpuModule,
    /// Nanoseconds that one block of each kernel took in its last launch; 0 before the first.
    cost: Vec<AtomicU64>,
}

impl Drop for CpuCode {
    fn drop(&mut self) {
        let code = self.module.code.get_mut().map(Option::take);
        if let Ok(Some(code)) = code {
            // SAFETY: entries are called in `launch` only, which borrows `self` until all blocks have returned, so none is running,
            // and no pointer to the code outlives `self.module`, which is private.
            unsafe { code.free_memory() };
        }
    }
}

/// Threads that run blocks. Cheap to share; one for the process is enough.
pub struct CpuDriver {
    /// Workers beside the calling thread; `None` when that one works alone.
    pool: Option<ThreadPool>,
    threads: usize,
}

/// Below this many nanoseconds a launch does not wake other threads: waking costs about as much.
const INLINE_NANOS: u64 = 20_000;
/// A thread takes blocks worth about this many nanoseconds at a time.
const GRAIN_NANOS: u64 = 10_000;

thread_local! {
    static SCRATCH: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

impl CpuDriver {
    /// A driver with `threads` threads, the calling one included; by default as many as the environment variable `ATTNC_THREADS`
    /// says, or else as the machine has. Errors: [`LaunchError::Threads`].
    pub fn new(threads: Option<usize>) -> Result<CpuDriver, LaunchError> {
        let from_env = || std::env::var("ATTNC_THREADS").ok().and_then(|t| t.trim().parse().ok()).filter(|t| *t > 0);
        let threads = threads.or_else(from_env).or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1).max(1);
        let pool = match threads {
            1 => None,
            _ => Some(ThreadPoolBuilder::new().num_threads(threads - 1).build().map_err(|e| LaunchError::Threads(e.to_string()))?),
        };
        Ok(CpuDriver { pool, threads })
    }

    /// Number of threads, the calling one included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Compiles kernels to machine code of this machine. Errors: as `attnc_codegen::cpu::compile_all`.
    pub fn load(&self, kernels: &[Kernel]) -> Result<CpuCode, EmitError> {
        let module = compile_all(kernels)?;
        let cost = module.kernels.iter().map(|_| AtomicU64::new(0)).collect();
        Ok(CpuCode { module, cost })
    }

    /// Runs `blocks` blocks of one kernel and returns when all have finished; nothing runs when `blocks` is not positive.
    ///
    /// `which` names a slot for each buffer argument. Errors: one [`LaunchError`] for the first thing that does not fit the kernel;
    /// then nothing has run. That indices stay inside the buffers is the promise of the kernel (`kernel::Inst::Load`) for buffers of
    /// the extents in its plan; the caller checks extents.
    pub fn launch(&self, code: &CpuCode, kernel: usize, slots: &mut [Memory<'_>], which: &[u32], ints: &[i64], reals: &[f32], blocks: i64) -> Result<(), LaunchError> {
        let entry = code.module.kernels.get(kernel).ok_or(LaunchError::NoKernel(kernel))?;
        let pointers = bind(entry, slots, which)?;
        for (what, want, found) in [("int arguments", entry.ints, ints.len()), ("real arguments", entry.reals, reals.len())] {
            if want != found {
                return Err(LaunchError::Count { kernel: entry.name.clone(), what, want, found });
            }
        }
        if blocks <= 0 {
            return Ok(());
        }
        let call = Call {
            // SAFETY: `address` is the entry of a finalised function with this signature, see the module `codegen::cpu`; `code` is
            // borrowed until all blocks have returned, so it stays mapped.
            entry: unsafe { std::mem::transmute::<*const (), Entry>(entry.address as *const ()) },
            pointers,
            ints,
            reals,
            scratch_bytes: entry.scratch_bytes,
        };
        self.spread(&call, blocks, &code.cost[kernel]);
        Ok(())
    }

    fn spread(&self, call: &Call<'_>, blocks: i64, cost: &AtomicU64) {
        let known = cost.load(Ordering::Relaxed);
        let total = known.saturating_mul(blocks as u64);
        let alone = blocks == 1 || (known > 0 && total < INLINE_NANOS);
        let Some(pool) = self.pool.as_ref().filter(|_| !alone) else {
            let start = Instant::now();
            call.run(0, blocks, 0);
            cost.store(per_block(start.elapsed().as_nanos() as u64, blocks), Ordering::Relaxed);
            return;
        };
        // Enough pieces for a fair end, and not so many that fetching them costs.
        let fair = blocks / (8 * self.threads as i64);
        let grain = if known == 0 { fair } else { fair.min((GRAIN_NANOS / known) as i64) }.max(1);
        let next = AtomicI64::new(0);
        let spent = AtomicU64::new(0);
        let threads = AtomicUsize::new(0);
        let work = || {
            let start = Instant::now();
            let thread = threads.fetch_add(1, Ordering::Relaxed);
            loop {
                let from = next.fetch_add(grain, Ordering::Relaxed);
                if from >= blocks {
                    break;
                }
                call.run(from, blocks.min(from.saturating_add(grain)), thread);
            }
            spent.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        };
        let helpers = (self.threads as i64 - 1).min((blocks - 1) / grain);
        pool.in_place_scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|_| work());
            }
            work();
        });
        cost.store(per_block(spent.into_inner(), blocks), Ordering::Relaxed);
    }
}

fn per_block(nanos: u64, blocks: i64) -> u64 {
    (nanos / blocks.max(1) as u64).max(1)
}

/// Kernels of one plan with the threads that run them.
pub struct CpuProgram {
    driver: Arc<CpuDriver>,
    code: CpuCode,
    /// Temporaries of finished calls, for the next ones.
    spare: Mutex<Vec<AlignedBytes>>,
}

impl CpuProgram {
    /// Compiles the kernels of a plan, in the order that its launches count them. Errors: as [`CpuDriver::load`].
    pub fn new(driver: Arc<CpuDriver>, kernels: &[Kernel]) -> Result<CpuProgram, EmitError> {
        let code = driver.load(kernels)?;
        Ok(CpuProgram { driver, code, spare: Mutex::new(vec![]) })
    }

    /// Memory of `bytes` bytes, used before if some fits without wasting half of it.
    fn temp(&self, bytes: usize) -> Result<AlignedBytes, RuntimeError> {
        if let Ok(mut spare) = self.spare.lock()
            && let Some(i) = spare.iter().position(|s| s.capacity() >= bytes && s.capacity() / 2 <= bytes.next_multiple_of(SCRATCH_ALIGN))
        {
            let mut found = spare.swap_remove(i);
            found.len = bytes;
            return Ok(found);
        }
        AlignedBytes::try_zeroed(bytes).ok_or_else(|| RuntimeError::TooLarge { what: "a temporary".to_string(), bytes: Some(bytes as u64), available: None })
    }
}

impl Executable for CpuProgram {
    fn execute(&self, call: &PlanCall, slots: &mut [Slot<'_>]) -> Result<(), RuntimeError> {
        if slots.len() != call.buffers.len() {
            return Err(RuntimeError::Bug(format!("{} slots for {} buffers", slots.len(), call.buffers.len())));
        }
        let mut memory = vec![];
        for (slot, buffer) in slots.iter_mut().zip(&call.buffers) {
            if buffer.kind == BufferKind::Block {
                let too_large = || RuntimeError::TooLarge { what: "rows of blocks".to_string(), bytes: None, available: None };
                // Not 0, as below, and whole lines, so that threads do not share any.
                let step = buffer.bytes.max(1).checked_next_multiple_of(SCRATCH_ALIGN).ok_or_else(too_large)?;
                let all = step.checked_mul(self.driver.threads).ok_or_else(too_large)?;
                memory.push(Memory::Each(self.temp(all)?, step));
                continue;
            }
            if buffer.bytes == 0 {
                // A read that is out of range loads from index 0 of the axis and drops what it loaded, also when the axis is empty.
                let padded = buffer.dims.iter().try_fold(buffer.storage.bytes(), |n, d| n.checked_mul((*d).max(1)));
                let too_large = || RuntimeError::TooLarge { what: format!("a stand-in for shape {:?}", buffer.dims), bytes: None, available: None };
                memory.push(Memory::Owned(self.temp(padded.ok_or_else(too_large)?)?));
                continue;
            }
            let found = match slot {
                Slot::In(bytes) => Memory::Read(bytes),
                Slot::Out(bytes) => Memory::Write(bytes),
                Slot::Temp => Memory::Owned(self.temp(buffer.bytes)?),
            };
            if found.bytes().len() != buffer.bytes {
                return Err(RuntimeError::Bug(format!("a slot of {} bytes for a buffer of {}", found.bytes().len(), buffer.bytes)));
            }
            memory.push(found);
        }
        let mut done = Ok(());
        for launch in &call.launches {
            let blocks = i64::try_from(launch.blocks).unwrap_or(i64::MAX);
            done = self.driver.launch(&self.code, launch.kernel as usize, &mut memory, &launch.buffers, &launch.ints, &launch.reals, blocks);
            if done.is_err() {
                break;
            }
        }
        if let Ok(mut spare) = self.spare.lock() {
            spare.clear();
            spare.extend(memory.into_iter().filter_map(|m| match m {
                Memory::Owned(bytes) | Memory::Each(bytes, _) => Some(bytes),
                Memory::Read(_) | Memory::Write(_) => None,
            }));
        }
        done.map_err(|e| RuntimeError::Bug(e.to_string()))
    }
}

impl CpuCode {
    /// What each kernel takes.
    pub fn kernels(&self) -> &[CpuKernel] {
        &self.module.kernels
    }
}

/// Start addresses of the buffers in the order of the arguments, with the distance to the copy of the next thread.
fn bind(entry: &CpuKernel, slots: &mut [Memory<'_>], which: &[u32]) -> Result<Vec<(*mut u8, usize)>, LaunchError> {
    let kernel = || entry.name.clone();
    if which.len() != entry.buffers.len() {
        return Err(LaunchError::Count { kernel: kernel(), what: "buffers", want: entry.buffers.len(), found: which.len() });
    }
    let mut pointers = vec![];
    for (i, (arg, &slot)) in entry.buffers.iter().zip(which).enumerate() {
        let buffer = || arg.name.clone();
        let memory = slots.get_mut(slot as usize).ok_or_else(|| LaunchError::NoSlot { kernel: kernel(), buffer: buffer(), slot })?;
        let aliased = which.iter().enumerate().any(|(j, other)| j != i && *other == slot);
        if arg.written && aliased {
            return Err(LaunchError::Aliased { kernel: kernel(), buffer: buffer() });
        }
        let (start, len) = match memory {
            Memory::Read(_) if arg.written => return Err(LaunchError::ReadOnly { kernel: kernel(), buffer: buffer() }),
            // The code never stores through a pointer whose argument is not `written`.
            Memory::Read(bytes) => (bytes.as_ptr().cast_mut(), bytes.len()),
            Memory::Write(bytes) => (bytes.as_mut_ptr(), bytes.len()),
            Memory::Owned(bytes) => (bytes.bytes_mut().as_mut_ptr(), bytes.len),
            Memory::Each(bytes, step) => (bytes.bytes_mut().as_mut_ptr(), *step),
        };
        let step = if let Memory::Each(_, step) = memory { *step } else { 0 };
        let bytes = arg.storage.bytes();
        if len % bytes != 0 || (len > 0 && start.align_offset(bytes) != 0) {
            return Err(LaunchError::Misplaced { kernel: kernel(), buffer: buffer(), bytes });
        }
        pointers.push((start, step));
    }
    Ok(pointers)
}

/// A launch whose arguments fit its kernel.
struct Call<'a> {
    entry: Entry,
    /// Start of each buffer, and the distance to the copy of the next thread.
    pointers: Vec<(*mut u8, usize)>,
    ints: &'a [i64],
    reals: &'a [f32],
    scratch_bytes: usize,
}

// SAFETY: threads share the pointers only to call `entry`, whose blocks store to different elements (kernels have no races between
// blocks); the memory behind them is borrowed exclusively by `launch` until all threads have finished.
unsafe impl Sync for Call<'_> {}

impl Call<'_> {
    /// Runs blocks as the thread with this number, below the number of threads.
    fn run(&self, from: i64, to: i64, thread: usize) {
        let pointers: Vec<*mut u8> = self.pointers.iter().map(|(start, step)| start.wrapping_add(step * thread)).collect();
        SCRATCH.with_borrow_mut(|scratch| {
            let lines = self.scratch_bytes.div_ceil(SCRATCH_ALIGN);
            if scratch.len() < lines {
                scratch.resize(lines, Line([0; SCRATCH_ALIGN]));
            }
            for block in from..to {
                // SAFETY: counts of pointers, Ints and Reals match the kernel (`launch`, `bind`), the pointers come from live borrows,
                // written ones from exclusive ones without aliases, and the scratch has the size and alignment that the kernel asks.
                // What each thread has a copy of has one for every number of a thread (`execute`), and no two threads have one number.
                unsafe {
                    (self.entry)(pointers.as_ptr(), self.ints.as_ptr(), self.reals.as_ptr(), scratch.as_mut_ptr().cast(), block, table())
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use attnc_compiler::kernel::{KernelBuilder, Storage};
    use attnc_compiler::ops::DType;

    /// `out[block] = factor * x[block] + shift`
    fn affine() -> Kernel {
        let mut b = KernelBuilder::new("affine", 1);
        let x = b.buffer("x", DType::Real, Storage::F32, false);
        let out = b.buffer("out", DType::Real, Storage::F32, true);
        let (factor, shift, block) = (b.real_arg("factor"), b.int_arg("shift"), b.block());
        let value = b.load(x, block);
        let scaled = b.mul(value, factor);
        let shift = b.op(attnc_compiler::ops::ScalarOp::ToReal, &[shift]);
        let sum = b.add(scaled, shift);
        b.store(out, block, sum);
        b.finish()
    }

    #[test]
    fn every_block_runs_once_on_any_number_of_threads() {
        for threads in [1, 2, 5] {
            let driver = CpuDriver::new(Some(threads)).unwrap();
            let code = driver.load(&[affine()]).unwrap();
            for n in [0usize, 1, 7, 1000] {
                let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
                let mut out = vec![0f32; n];
                let mut slots = [Memory::Read(bytemuck::cast_slice(&x)), Memory::Write(bytemuck::cast_slice_mut(&mut out))];
                driver.launch(&code, 0, &mut slots, &[0, 1], &[3], &[2.0], n as i64).unwrap();
                assert_eq!(out, x.iter().map(|x| 2.0 * x + 3.0).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let driver = CpuDriver::new(Some(1)).unwrap();
        let code = driver.load(&[affine()]).unwrap();
        let x = AlignedBytes::zeroed(8);
        let odd = AlignedBytes::zeroed(7);
        let mut slots = [Memory::Read(x.bytes()), Memory::Owned(AlignedBytes::zeroed(8)), Memory::Read(odd.bytes())];
        let mut launch = |which: &[u32], ints: &[i64], reals: &[f32]| driver.launch(&code, 0, &mut slots, which, ints, reals, 2);
        assert!(matches!(launch(&[0], &[1], &[1.0]), Err(LaunchError::Count { what: "buffers", .. })));
        assert!(matches!(launch(&[0, 1], &[], &[1.0]), Err(LaunchError::Count { what: "int arguments", .. })));
        assert!(matches!(launch(&[0, 1], &[1], &[]), Err(LaunchError::Count { what: "real arguments", .. })));
        assert!(matches!(launch(&[1, 0], &[1], &[1.0]), Err(LaunchError::ReadOnly { .. })));
        assert!(matches!(launch(&[1, 1], &[1], &[1.0]), Err(LaunchError::Aliased { .. })));
        assert!(matches!(launch(&[2, 1], &[1], &[1.0]), Err(LaunchError::Misplaced { .. })));
        assert!(matches!(launch(&[0, 9], &[1], &[1.0]), Err(LaunchError::NoSlot { .. })));
        assert_eq!(launch(&[0, 1], &[1], &[1.0]), Ok(()));
        assert_eq!(driver.launch(&code, 1, &mut slots, &[], &[], &[], 1), Err(LaunchError::NoKernel(1)));
    }
}
