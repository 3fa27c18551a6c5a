//! Random kernels through machine code and through the evaluator: both must agree to the last bit.
//!
//! All Reals are small integers, so that sums are exact in any order.
#![cfg(feature = "cpu")]

use attnc_compiler::interp::kernel::{Cells, LaneOrder, Precision, cells, eval};
use attnc_compiler::kernel::{Base, BufferId, Kernel, KernelBuilder, LocalId, Storage, TileCall, Value};
use attnc_compiler::ops::{DType, Scalar, ScalarOp};
use attnc_runtime::driver::cpu::{CpuDriver, Memory};

const LEN: i64 = 16;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

struct Generator {
    r: Random,
    b: KernelBuilder,
    /// Values that are visible, scope by scope.
    pool: Vec<Vec<Value>>,
    /// Arrays with their types; all have `LEN` elements. The last buffers and all locals may be stored to.
    read: Vec<(Base, DType)>,
    written: Vec<(Base, DType)>,
    /// Local Real arrays, for results of tile calls.
    tiles: Vec<LocalId>,
    x: BufferId,
}

impl Generator {
    fn pick(&mut self, ty: DType) -> Value {
        let found: Vec<Value> = self.pool.iter().flatten().copied().filter(|v| self.b.ty(*v) == ty).collect();
        if found.is_empty() || self.r.below(6) == 0 {
            let x = self.r.below(9) as i64 - 4;
            return match ty {
                DType::Bool => self.b.boolean(x > 0),
                DType::Int => self.b.int(x),
                DType::Real | DType::Complex => self.b.real(x as f64),
            };
        }
        self.r.of(&found)
    }

    fn keep(&mut self, v: Value) {
        // Reals stay small integers.
        let v = match self.b.ty(v) {
            DType::Real => {
                let (low, high) = (self.b.real(-8.0), self.b.real(8.0));
                let v = self.b.max(v, low);
                let v = self.b.min(v, high);
                self.b.op(ScalarOp::Rint, &[v])
            }
            _ => v,
        };
        self.pool.last_mut().unwrap().push(v);
    }

    fn index(&mut self) -> Value {
        let (v, n) = (self.pick(DType::Int), self.b.int(LEN));
        self.b.modulo(v, n)
    }

    fn small(&mut self, n: i64) -> Value {
        let (v, n) = (self.pick(DType::Int), self.b.int(n));
        self.b.modulo(v, n)
    }

    fn op(&mut self) {
        use ScalarOp::*;
        let types = [DType::Bool, DType::Int, DType::Real];
        let op = self.r.of(&[
            Add, Sub, Mul, IntDiv, Mod, Neg, Min, Max, Abs, Sign, Floor, Ceil, Rint, Ratio, Xor, BitAnd, BitOr, Shl, Shr, CeilDiv, CeilLog2, Pow2Ceil, Lt, Le,
            ScalarOp::Eq, Ne, And, Or, Not, Select, ToReal, ToInt,
        ]);
        let first = self.r.of(&types);
        let row: Vec<DType> = match op.arity() {
            1 => vec![first],
            2 => vec![first, first],
            _ => vec![DType::Bool, first, first],
        };
        // Large Ints as Reals are not exact.
        if op.result(&row).is_none() || (op == ToReal && first == DType::Int) {
            return;
        }
        let args: Vec<Value> = row.iter().map(|t| self.pick(*t)).collect();
        let v = self.b.op(op, &args);
        self.keep(v);
    }

    fn statements(&mut self, depth: usize, count: usize) {
        for _ in 0..count {
            match self.r.below(if depth == 0 { 12 } else { 16 }) {
                0..=6 => self.op(),
                7 | 8 => {
                    let from = [self.read.clone(), self.written.clone()].concat();
                    let (base, _) = self.r.of(&from);
                    let index = self.index();
                    let v = self.b.load(base, index);
                    self.keep(v);
                }
                9 | 10 => {
                    let (base, ty) = self.r.of(&self.written.clone());
                    let (index, v) = (self.index(), self.pick(ty));
                    self.b.store(base, index, v);
                }
                11 => self.tile(),
                12 | 13 => {
                    let cond = self.pick(DType::Bool);
                    let mut open = self.b.begin_if(cond);
                    self.scope(depth, count);
                    if self.r.below(2) == 0 {
                        self.b.begin_else(&mut open);
                        self.scope(depth, count);
                    }
                    self.b.end_if(open);
                }
                _ => {
                    let (lo, hi) = (self.small(4), self.small(6));
                    let (step, one) = (self.small(3), self.b.int(1));
                    let step = self.b.add(step, one);
                    let types: Vec<DType> = (0..self.r.below(4)).map(|_| self.r.of(&[DType::Bool, DType::Int, DType::Real])).collect();
                    let inits: Vec<Value> = types.iter().map(|t| self.pick(*t)).collect();
                    let open = self.b.begin_for(lo, hi, step, &inits);
                    self.pool.push([vec![open.var], open.params.clone()].concat());
                    self.statements(depth - 1, count / 2);
                    let nexts: Vec<Value> = types.iter().map(|t| self.pick(*t)).collect();
                    self.pool.pop();
                    let results = self.b.end_for(open, &nexts);
                    self.pool.last_mut().unwrap().extend(results);
                }
            }
        }
    }

    fn scope(&mut self, depth: usize, count: usize) {
        self.pool.push(vec![]);
        self.statements(depth - 1, count / 2);
        self.pool.pop();
    }

    fn tile(&mut self) {
        let (m, n, k) = (self.small(4), self.small(4), self.small(4));
        let (zero, one, four) = (self.b.int(0), self.b.int(1), self.b.int(4));
        let out = self.r.of(&self.tiles.clone());
        let other = *self.tiles.iter().find(|t| **t != out).unwrap();
        let (x, y, z) = (self.b.place(self.x, zero), self.b.place(out, zero), self.b.place(other, four));
        self.b.tile(match self.r.below(6) {
            0 => {
                let (a_m, a_k) = self.r.of(&[(four, one), (one, four), (zero, one)]);
                let (b_k, b_n) = self.r.of(&[(four, one), (one, four), (one, zero)]);
                let z = self.b.place(other, zero);
                TileCall::Dot { m, n, k, a: x, a_m, a_k, b: z, b_k, b_n, c: y, c_m: four, c_n: one, accumulate: self.r.below(2) == 0, narrow: false }
            }
            1 => TileCall::MaxRows { rows: m, cols: n, x, x_row: four, out: y },
            2 => TileCall::SumRows { rows: m, cols: n, x, x_row: four, out: y },
            3 => TileCall::ScaleRows { rows: m, cols: n, x: y, x_row: four, factor: z },
            4 => TileCall::Unary { op: self.r.of(&[ScalarOp::Neg, ScalarOp::Abs, ScalarOp::Sign, ScalarOp::Rint]), n, x, y },
            _ => {
                let op = self.r.of(&[ScalarOp::Add, ScalarOp::Sub, ScalarOp::Mul, ScalarOp::Min, ScalarOp::Max]);
                TileCall::Binary { op, n, a: x, a_step: self.r.below(2) as u8, b: z, b_step: self.r.below(2) as u8, y }
            }
        });
        // What a tile call left may have grown.
        let clamp = |b: &mut KernelBuilder, i: Value| {
            let (low, high) = (b.real(-8.0), b.real(8.0));
            let v = b.load(out, i);
            let v = b.max(v, low);
            let v = b.min(v, high);
            b.store(out, i, v);
        };
        let n = self.b.int(LEN);
        self.b.count(n, clamp);
    }
}

fn generate(seed: u64) -> Kernel {
    let mut b = KernelBuilder::new(format!("random_{seed}"), 1);
    let x = b.buffer("x", DType::Real, Storage::F32, false);
    let i = b.buffer("i", DType::Int, Storage::I64, false);
    let out_x = b.buffer("out_x", DType::Real, Storage::F32, true);
    let out_i = b.buffer("out_i", DType::Int, Storage::I64, true);
    let locals = [b.local("p", DType::Real, LEN as usize), b.local("q", DType::Real, LEN as usize)];
    let (ints, bools) = (b.local("ints", DType::Int, LEN as usize), b.local("bools", DType::Bool, LEN as usize));
    let args = vec![b.int_arg("n"), b.real_arg("s"), b.block()];
    let n = b.int(LEN);
    b.count(n, |b, at| {
        let (v, k) = (b.load(x, at), b.load(i, at));
        let odd = b.lt(at, k);
        b.store(locals[0], at, v);
        b.store(locals[1], at, v);
        b.store(ints, at, k);
        b.store(bools, at, odd);
    });
    let read = vec![(Base::from(x), DType::Real), (i.into(), DType::Int)];
    let written = vec![(Base::from(out_x), DType::Real), (out_i.into(), DType::Int), (locals[0].into(), DType::Real), (ints.into(), DType::Int), (bools.into(), DType::Bool)];
    let mut g = Generator { r: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1), b, pool: vec![args], read, written, tiles: locals.to_vec(), x };
    g.statements(3, 14);
    // Everything that is left is seen.
    for at in 0..LEN {
        let at = g.b.int(at);
        let (v, k) = (g.pick(DType::Real), g.pick(DType::Int));
        let (old, p) = (g.b.load(out_x, at), g.b.load(locals[1], at));
        let v = g.b.add(v, old);
        let v = g.b.add(v, p);
        g.b.store(out_x, at, v);
        let old = g.b.load(out_i, at);
        let k = g.b.op(ScalarOp::Xor, &[k, old]);
        g.b.store(out_i, at, k);
    }
    g.b.finish()
}

/// A loop over elements whose body is straight-line: what may run four elements at a time. Sums stay exact.
fn elements(seed: u64) -> Kernel {
    let mut r = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut b = KernelBuilder::new(format!("elements_{seed}"), 1);
    let x = b.buffer("x", DType::Real, Storage::F32, false);
    let i = b.buffer("i", DType::Int, Storage::I64, false);
    let out_x = b.buffer("out_x", DType::Real, Storage::F32, true);
    let out_i = b.buffer("out_i", DType::Int, Storage::I64, true);
    let flags = b.local("flags", DType::Bool, LEN as usize);
    let halves = b.local("halves", DType::Real, LEN as usize);
    let (n, s, block) = (b.int_arg("n"), b.real_arg("s"), b.block());
    let (zero, one) = (b.int(0), b.int(1));
    let len = b.int(LEN);
    b.count(len, |b, at| {
        let v = b.load(x, at);
        b.store(halves, at, v);
        let odd = b.lt(at, n);
        b.store(flags, at, odd);
    });
    let lo = b.int(r.below(3) as i64);
    let bound = b.int(r.below(LEN as usize + 1) as i64);
    // A bound that the code knows, or one that it does not.
    let hi = if r.below(2) == 0 { bound } else { b.op(ScalarOp::Min, &[bound, n]) };
    let kinds: Vec<ScalarOp> = (0..r.below(3)).map(|_| r.of(&[ScalarOp::Add, ScalarOp::Max, ScalarOp::Min])).collect();
    let inits = vec![s; kinds.len()];
    let results = b.for_loop(lo, hi, one, &inits, |b, var, params| {
        let last = b.int(LEN - 1);
        let mirrored = b.sub(last, var);
        let mut ints = vec![var, mirrored, n, block, zero];
        let mut bools = vec![];
        let mut reals = vec![s];
        let clamp = |b: &mut KernelBuilder, v: Value| {
            let (low, high) = (b.real(-8.0), b.real(8.0));
            let v = b.max(v, low);
            let v = b.min(v, high);
            b.op(ScalarOp::Rint, &[v])
        };
        for _ in 0..10 {
            let any = r.of(&ints);
            let inside = if r.below(3) == 0 { b.modulo(any, len) } else { r.of(&[var, mirrored, zero]) };
            match r.below(10) {
                0 => reals.push(b.load(x, inside)),
                1 => ints.push(b.load(i, inside)),
                2 => bools.push(b.load(flags, var)),
                3 => reals.push(b.load(halves, var)),
                4 => {
                    let far = b.int(r.of(&[0, 3, -5, 1 << 40, i64::MAX, i64::MIN, 7]));
                    let op = r.of(&[ScalarOp::Lt, ScalarOp::Le, ScalarOp::Eq, ScalarOp::Ne]);
                    let near = r.of(&ints);
                    let other = r.of(&[far, near]);
                    bools.push(b.op(op, &[any, other]));
                }
                5 => {
                    let factor = b.int(r.below(5) as i64 - 2);
                    let op = r.of(&[ScalarOp::Add, ScalarOp::Sub, ScalarOp::Mul, ScalarOp::IntDiv, ScalarOp::BitAnd]);
                    let near = r.of(&ints);
                    let other = r.of(&[factor, near]);
                    ints.push(b.op(op, &[any, other]));
                }
                6 | 7 => {
                    let op = r.of(&[ScalarOp::Add, ScalarOp::Sub, ScalarOp::Mul, ScalarOp::Min, ScalarOp::Max, ScalarOp::Ratio]);
                    let (p, q) = (r.of(&reals), r.of(&reals));
                    let v = b.op(op, &[p, q]);
                    reals.push(clamp(b, v));
                }
                8 => {
                    let op = r.of(&[ScalarOp::Neg, ScalarOp::Abs, ScalarOp::Sign, ScalarOp::Rint]);
                    let p = r.of(&reals);
                    reals.push(b.op(op, &[p]));
                }
                _ if bools.is_empty() => {}
                _ => {
                    let (c, d) = (r.of(&bools), r.of(&bools));
                    let op = r.of(&[ScalarOp::And, ScalarOp::Or, ScalarOp::Ne, ScalarOp::Eq]);
                    let c = b.op(op, &[c, d]);
                    bools.push(c);
                    let (p, q) = (r.of(&reals), r.of(&reals));
                    reals.push(b.select(c, p, q));
                    reals.push(b.op(ScalarOp::ToReal, &[c]));
                    let (p, q) = (r.of(&ints), r.of(&ints));
                    ints.push(b.select(c, p, q));
                }
            }
        }
        let v = r.of(&reals);
        b.store(out_x, r.of(&[var, mirrored]), v);
        if r.below(2) == 0 {
            b.store(out_i, var, *ints.last().unwrap());
        }
        if let (Some(c), true) = (bools.last(), r.below(2) == 0) {
            b.store(flags, var, *c);
        }
        if r.below(2) == 0 {
            let v = r.of(&reals);
            b.store(halves, var, v);
        }
        params
            .iter()
            .zip(&kinds)
            .map(|(p, op)| {
                let (v, w) = (r.of(&reals), r.of(&reals));
                let term = if r.below(2) == 0 { b.mul(v, w) } else { v };
                b.op(*op, &[*p, term])
            })
            .collect()
    });
    for (at, result) in results.iter().enumerate() {
        let at = b.int(LEN - 1 - at as i64);
        b.store(out_x, at, *result);
    }
    let shown = b.op(ScalarOp::Min, &[len, n]);
    b.count(shown, |b, at| {
        let (c, h, old) = (b.load(flags, at), b.load(halves, at), b.load(out_x, at));
        let c = b.op(ScalarOp::ToReal, &[c]);
        let v = b.add(c, h);
        let v = b.add(v, old);
        b.store(out_x, at, v);
    });
    b.finish()
}

fn reals(cells: &Cells) -> Vec<f32> {
    cells.iter().map(|c| if let Some(Scalar::Real(x)) = c { *x as f32 } else { panic!("{c:?}") }).collect()
}

fn ints(cells: &Cells) -> Vec<i64> {
    cells.iter().map(|c| if let Some(Scalar::Int(x)) = c { *x } else { panic!("{c:?}") }).collect()
}

#[test]
fn random_kernels_agree_with_their_meaning() {
    agree((0..400).map(generate).collect());
}

#[test]
fn random_element_loops_agree_with_their_meaning() {
    agree((0..1500).map(elements).collect());
}

fn agree(kernels: Vec<Kernel>) {
    let driver = CpuDriver::new(Some(1)).unwrap();
    let x: Vec<f32> = (0..LEN).map(|i| ((i * 7) % 11 - 5) as f32).collect();
    let i: Vec<i64> = (0..LEN).map(|i| (i * 5) % 13 - 6).collect();
    let code = driver.load(&kernels).unwrap();
    for (at, kernel) in kernels.iter().enumerate() {
        let (mut out_x, mut out_i) = (vec![0f32; LEN as usize], vec![0i64; LEN as usize]);
        let mut slots = [
            Memory::Read(bytemuck::cast_slice(&x)),
            Memory::Read(bytemuck::cast_slice(&i)),
            Memory::Write(bytemuck::cast_slice_mut(&mut out_x)),
            Memory::Write(bytemuck::cast_slice_mut(&mut out_i)),
        ];
        driver.launch(&code, at, &mut slots, &[0, 1, 2, 3], &[5], &[3.0], 2).unwrap();
        let mut buffers = [
            cells(x.iter().map(|x| Scalar::Real(f64::from(*x)))),
            cells(i.iter().map(|i| Scalar::Int(*i))),
            cells(vec![Scalar::Real(0.0); LEN as usize]),
            cells(vec![Scalar::Int(0); LEN as usize]),
        ];
        eval(kernel, &mut buffers, &[5], &[3.0], 2, Precision::F32, LaneOrder::Up).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
        assert_eq!(out_x, reals(&buffers[2]), "{kernel}");
        assert_eq!(out_i, ints(&buffers[3]), "{kernel}");
    }
}

#[test]
fn exponentials_of_rows_come_from_the_table() {
    let mut b = KernelBuilder::new("exp_rows", 1);
    let x = b.buffer("x", DType::Real, Storage::F32, false);
    let y = b.buffer("y", DType::Real, Storage::F32, true);
    let sums = b.buffer("sums", DType::Real, Storage::F32, true);
    let shift = b.local("shift", DType::Real, 3);
    let (zero, scale) = (b.int(0), b.real_arg("scale"));
    let (rows, cols) = (b.int(3), b.int_arg("cols"));
    let low = b.real(f64::NEG_INFINITY);
    b.count(rows, |b, r| b.store(shift, r, low));
    let (px, ps) = (b.place(x, zero), b.place(shift, zero));
    b.tile(TileCall::MaxRows { rows, cols, x: px, x_row: cols, out: ps });
    let (py, pt) = (b.place(y, zero), b.place(sums, zero));
    b.tile(TileCall::ExpRows { rows, cols, x: px, x_row: cols, shift: ps, y: py, y_row: cols, sums: pt, scale });
    let kernel = b.finish();
    let n = 21;
    let mut data: Vec<f32> = (0..3 * n).map(|i| ((i * 37) % 50) as f32 / 7.0 - 3.0).collect();
    data[5] = f32::NEG_INFINITY;
    data[2 * n..].fill(f32::NEG_INFINITY);
    let driver = CpuDriver::new(Some(1)).unwrap();
    let code = driver.load(std::slice::from_ref(&kernel)).unwrap();
    let (mut out, mut total) = (vec![1f32; 3 * n], vec![0f32; 3]);
    let mut slots =
        [Memory::Read(bytemuck::cast_slice(&data)), Memory::Write(bytemuck::cast_slice_mut(&mut out)), Memory::Write(bytemuck::cast_slice_mut(&mut total))];
    driver.launch(&code, 0, &mut slots, &[0, 1, 2], &[n as i64], &[0.5], 1).unwrap();
    let mut buffers = [cells(data.iter().map(|x| Scalar::Real(f64::from(*x)))), vec![None; 3 * n], cells([Scalar::Real(0.0); 3])];
    eval(&kernel, &mut buffers, &[n as i64], &[0.5], 1, Precision::F64, LaneOrder::Up).unwrap();
    for (found, want) in out.iter().chain(&total).zip(reals(&buffers[1]).iter().chain(&reals(&buffers[2]))) {
        assert!((found - want).abs() <= 1e-6 * want.abs(), "{found} is not {want}");
    }
}

#[test]
fn guarded_loads_stay_behind_their_guards() {
    // The load never runs; its address is far outside the buffer and the same in every iteration.
    let mut b = KernelBuilder::new("guarded", 1);
    let x = b.buffer("x", DType::Real, Storage::F32, false);
    let out = b.buffer("out", DType::Real, Storage::F32, true);
    let (n, limit, far) = (b.int_arg("n"), b.int_arg("limit"), b.int_arg("far"));
    b.count(n, |b, i| {
        let over = b.lt(limit, n);
        b.if_then(over, |b| {
            let v = b.load(x, far);
            b.store(out, i, v);
        });
        let none = b.sub(n, n);
        b.count(none, |b, j| {
            let v = b.load(x, far);
            b.store(out, j, v);
        });
        b.count(limit, |b, _| {
            b.count(far, |b, j| {
                let at = b.mul(far, far);
                let v = b.load(x, at);
                b.store(out, j, v);
            });
        });
    });
    let kernel = b.finish();
    let driver = CpuDriver::new(Some(1)).unwrap();
    let code = driver.load(std::slice::from_ref(&kernel)).unwrap();
    for far in [-(1i64 << 42), -(1 << 30)] {
        let (x, mut out) = (vec![1f32; 8], vec![0f32; 8]);
        let mut slots = [Memory::Read(bytemuck::cast_slice(&x)), Memory::Write(bytemuck::cast_slice_mut(&mut out))];
        driver.launch(&code, 0, &mut slots, &[0, 1], &[8, 100, far], &[], 1).unwrap();
        assert_eq!(out, [0.0; 8]);
    }
}
