//! Every scalar op and every storage through machine code, against the meaning in the table of ops.
#![cfg(feature = "cpu")]

use attnc_compiler::kernel::{Kernel, KernelBuilder, Storage};
use attnc_compiler::ops::{DType, Scalar, ScalarOp};
use attnc_runtime::driver::cpu::{CpuDriver, Memory};

const REALS: &[f32] = &[
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.7, -3.7, 1e-3, -1e-3, 7.25, 20.0, -20.0, 88.0, -88.0, 90.0, -104.0, 1e-40, -1e-40, 1e-30,
    1e30, -1e30, 3e38, 1e10, 123456.7, -9.3e18, 9.4e18, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE, 0.1, 2.0, 3.0, 10.0, 1e-7,
];
const INTS: &[i64] = &[0, 1, -1, 2, -2, 3, -3, 4, 5, 7, -7, 8, 10, 62, 63, 64, 65, 100, -100, 1 << 40, -(1 << 40), i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1];

fn samples(ty: DType) -> Vec<Scalar> {
    match ty {
        DType::Bool => vec![Scalar::Bool(false), Scalar::Bool(true)],
        DType::Int => INTS.iter().map(|x| Scalar::Int(*x)).collect(),
        DType::Real => REALS.iter().map(|x| Scalar::Real(f64::from(*x))).collect(),
        DType::Complex => vec![],
    }
}

fn storage(ty: DType) -> Storage {
    match ty {
        DType::Bool => Storage::U8,
        DType::Int => Storage::I64,
        DType::Real | DType::Complex => Storage::F32,
    }
}

fn encode(values: &[Scalar]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|v| match v {
            Scalar::Bool(x) => vec![u8::from(*x)],
            Scalar::Int(x) => x.to_ne_bytes().to_vec(),
            Scalar::Real(x) => (*x as f32).to_ne_bytes().to_vec(),
            Scalar::Complex(..) => unreachable!(),
        })
        .collect()
}

fn decode(ty: DType, bytes: &[u8]) -> Vec<Scalar> {
    match ty {
        DType::Bool => bytes.iter().map(|b| Scalar::Bool(*b != 0)).collect(),
        DType::Int => bytes.chunks(8).map(|c| Scalar::Int(i64::from_ne_bytes(c.try_into().unwrap()))).collect(),
        DType::Real | DType::Complex => bytes.chunks(4).map(|c| Scalar::Real(f64::from(f32::from_ne_bytes(c.try_into().unwrap())))).collect(),
    }
}

/// Aligned copies of byte arrays.
fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks(8).map(|c| { let mut w = [0; 8]; w[..c.len()].copy_from_slice(c); u64::from_ne_bytes(w) }).collect()
}

fn run(kernel: &Kernel, inputs: &[Vec<u8>], out: usize, blocks: usize) -> Vec<u8> {
    let driver = CpuDriver::new(Some(1)).unwrap();
    let code = driver.load(std::slice::from_ref(kernel)).unwrap();
    let held: Vec<Vec<u64>> = inputs.iter().map(|b| words(b)).collect();
    let mut result = vec![0u64; out.div_ceil(8)];
    let mut slots: Vec<Memory> = held.iter().zip(inputs).map(|(w, b)| Memory::Read(&bytemuck::cast_slice(w)[..b.len()])).collect();
    slots.push(Memory::Write(&mut bytemuck::cast_slice_mut(&mut result)[..out]));
    let which: Vec<u32> = (0..slots.len() as u32).collect();
    driver.launch(&code, 0, &mut slots, &which, &[], &[], blocks as i64).unwrap();
    drop(slots);
    bytemuck::cast_slice(&result)[..out].to_vec()
}

/// Distance in units of the last place of f32.
fn ulps(found: f64, want: f64) -> f64 {
    let (f, w) = (found as f32, want as f32);
    if f == w || (f.is_nan() && w.is_nan()) {
        return 0.0;
    }
    if !f.is_finite() || !w.is_finite() || f.is_nan() != w.is_nan() {
        // One may have rounded over the edge of the range.
        let edge = |x: f32| if x.is_infinite() { f32::MAX.copysign(x) } else { x };
        return if f.is_nan() || w.is_nan() { f64::INFINITY } else { ulps(edge(f).into(), edge(w).into()) + 1.0 };
    }
    let unit = f64::from(f32::from_bits((w.abs().to_bits()).max(f32::MIN_POSITIVE.to_bits()) & 0x7f80_0000)) / f64::from(1 << 23);
    (found - want).abs() / unit
}

/// Largest error in ulp; exact ops err by at most the final rounding.
fn allowed(op: ScalarOp) -> f64 {
    use ScalarOp::*;
    match op {
        Exp | Log | Log1p | Tanh | Sigmoid | Softplus | Sin | Cos | Erf | Pow => 2.0,
        // The difference is rounded before the exponential takes it: an error of half an ulp of the argument.
        ExpDiff => 2.0,
        _ => 0.501,
    }
}

fn check(op: ScalarOp, types: &[DType]) {
    let Some(result) = op.result(types).filter(|r| *r != DType::Complex && !types.contains(&DType::Complex)) else { return };
    let mut rows: Vec<Vec<Scalar>> = vec![vec![]];
    for ty in types {
        rows = rows.into_iter().flat_map(|row| samples(*ty).into_iter().map(move |s| [row.clone(), vec![s]].concat())).collect();
    }
    // Once with operands from memory, and, for two operands, once with the right one as a constant.
    let forms: Vec<Option<Scalar>> = match types {
        [_, right] => std::iter::once(None).chain(samples(*right).into_iter().map(Some)).collect(),
        _ => vec![None],
    };
    for constant in forms {
        let rows: Vec<&Vec<Scalar>> = match constant {
            None => rows.iter().collect(),
            Some(c) => rows.iter().filter(|r| format!("{:?}", r[1]) == format!("{c:?}")).collect(),
        };
        let mut b = KernelBuilder::new(op.name(), 1);
        let args: Vec<_> = types.iter().enumerate().map(|(i, t)| b.buffer(format!("x{i}"), *t, storage(*t), false)).collect();
        let out = b.buffer("out", result, storage(result), true);
        let block = b.block();
        let mut values: Vec<_> = args.iter().map(|a| b.load(*a, block)).collect();
        if let Some(c) = constant {
            values[1] = b.scalar(c);
        }
        let value = b.op(op, &values);
        b.store(out, block, value);
        let inputs: Vec<Vec<u8>> = (0..types.len()).map(|i| encode(&rows.iter().map(|r| r[i]).collect::<Vec<_>>())).collect();
        let found = decode(result, &run(&b.finish(), &inputs, rows.len() * storage(result).bytes(), rows.len()));
        for (row, found) in rows.iter().zip(found) {
            let want = op.eval(row).unwrap();
            let right = match (found, want) {
                (Scalar::Real(f), Scalar::Real(w)) if op == ScalarOp::ExpDiff => {
                    // As targets compute it: the difference in f32.
                    let (Scalar::Real(a), Scalar::Real(m)) = (row[0], row[1]) else { panic!() };
                    let exact = f64::from(a as f32 - m as f32).exp();
                    ulps(f, if a == f64::NEG_INFINITY { w } else { exact }) <= allowed(op)
                }
                (Scalar::Real(f), Scalar::Real(w)) => ulps(f, w) <= allowed(op),
                (f, w) => f == w,
            };
            assert!(right, "{}{row:?} (constant: {constant:?}) gives {found:?}, not {want:?}", op.name());
        }
    }
}

#[test]
fn every_op_means_what_the_table_says() {
    let types = [DType::Bool, DType::Int, DType::Real];
    let mut checked = 0;
    for &op in ScalarOp::ALL {
        let mut rows: Vec<Vec<DType>> = vec![vec![]];
        for _ in 0..op.arity() {
            rows = rows.into_iter().flat_map(|r| types.iter().map(move |t| [r.clone(), vec![*t]].concat())).collect();
        }
        for row in rows.iter().filter(|r| op.arity() < 3 || r[0] == DType::Bool) {
            checked += usize::from(op.result(row).is_some());
            check(op, row);
        }
    }
    assert!(checked > 60, "{checked}");
}

#[test]
fn storages_round_and_widen() {
    let formats: [(Storage, fn(f32) -> Vec<u8>, fn(&[u8]) -> f32); 4] = [
        (Storage::F32, |x| x.to_ne_bytes().to_vec(), |b| f32::from_ne_bytes(b.try_into().unwrap())),
        (Storage::F64, |x| f64::from(x).to_ne_bytes().to_vec(), |b| f64::from_ne_bytes(b.try_into().unwrap()) as f32),
        (Storage::Bf16, |x| half::bf16::from_f32(x).to_ne_bytes().to_vec(), |b| half::bf16::from_ne_bytes(b.try_into().unwrap()).to_f32()),
        (Storage::F16, |x| half::f16::from_f32(x).to_ne_bytes().to_vec(), |b| half::f16::from_ne_bytes(b.try_into().unwrap()).to_f32()),
    ];
    let mut values = REALS.to_vec();
    // All f16 and their neighbours in f32, which rounding must tell apart.
    for bits in 0..=u16::MAX {
        let x = half::f16::from_bits(bits).to_f32();
        values.extend([x, f32::from_bits(x.to_bits().wrapping_add(1)), f32::from_bits(x.to_bits() ^ 0x1000), f32::from_bits((x.to_bits() ^ 0x1000).wrapping_add(1))]);
    }
    for (storage, encode, decode) in formats {
        let mut b = KernelBuilder::new("narrow", 1);
        let x = b.buffer("x", DType::Real, Storage::F32, false);
        let out = b.buffer("out", DType::Real, storage, true);
        let block = b.block();
        let value = b.load(x, block);
        b.store(out, block, value);
        let raw: Vec<u8> = values.iter().flat_map(|x| x.to_ne_bytes()).collect();
        let narrow = run(&b.finish(), &[raw], values.len() * storage.bytes(), values.len());
        for (x, found) in values.iter().zip(narrow.chunks(storage.bytes())) {
            let (want, found) = (decode(&encode(*x)), decode(found));
            assert!(want.to_bits() == found.to_bits() || (want.is_nan() && found.is_nan()), "{storage:?}: {x:e} is stored as {found:e}, not {want:e}");
        }
        let mut b = KernelBuilder::new("widen", 1);
        let x = b.buffer("x", DType::Real, storage, false);
        let out = b.buffer("out", DType::Real, Storage::F32, true);
        let block = b.block();
        let value = b.load(x, block);
        b.store(out, block, value);
        let wide = run(&b.finish(), std::slice::from_ref(&narrow), values.len() * 4, values.len());
        for (stored, found) in narrow.chunks(storage.bytes()).zip(wide.chunks(4)) {
            let (want, found) = (decode(stored), f32::from_ne_bytes(found.try_into().unwrap()));
            assert!(want.to_bits() == found.to_bits() || (want.is_nan() && found.is_nan()), "{storage:?}: {want:e} is loaded as {found:e}");
        }
    }
}

#[test]
fn ints_and_bools_pass_through_their_storages() {
    let values = [0i64, 1, -1, 127, 128, 255, 1 << 20, -(1 << 20)];
    for storage in [Storage::I64, Storage::I32, Storage::U8] {
        for ty in [DType::Int, DType::Bool] {
            let mut b = KernelBuilder::new("through", 1);
            let x = b.buffer("x", DType::Int, Storage::I64, false);
            let out = b.buffer("out", ty, storage, true);
            let back = b.buffer("back", DType::Int, Storage::I64, true);
            let (block, zero) = (b.block(), b.int(0));
            let mut value = b.load(x, block);
            if ty == DType::Bool {
                value = b.op(ScalarOp::Ne, &[value, zero]);
            }
            b.store(out, block, value);
            let again = b.load(out, block);
            let again = b.op(ScalarOp::ToInt, &[again]);
            b.store(back, block, again);
            let driver = CpuDriver::new(Some(1)).unwrap();
            let code = driver.load(&[b.finish()]).unwrap();
            let (mut kept, mut result) = (vec![0u64; values.len()], vec![0i64; values.len()]);
            let kept: &mut [u8] = bytemuck::cast_slice_mut(&mut kept);
            let kept = &mut kept[..values.len() * storage.bytes()];
            let mut slots = [Memory::Read(bytemuck::cast_slice(&values)), Memory::Write(kept), Memory::Write(bytemuck::cast_slice_mut(&mut result))];
            driver.launch(&code, 0, &mut slots, &[0, 1, 2], &[], &[], values.len() as i64).unwrap();
            let want: Vec<i64> = values
                .iter()
                .map(|v| match (ty, storage) {
                    (DType::Bool, _) => i64::from(*v != 0),
                    (_, Storage::I32) => i64::from(*v as i32),
                    (_, Storage::U8) => i64::from(*v as u8),
                    _ => *v,
                })
                .collect();
            assert_eq!(result, want, "{ty:?} in {storage:?}");
        }
    }
}

#[test]
fn functions_of_reals_are_near_everywhere() {
    use ScalarOp::*;
    let x: Vec<f32> = (0..u32::MAX / 40_009).map(|i| f32::from_bits(i * 40_009)).chain((-110_000..110_000).map(|i| i as f32 * 1e-3)).collect();
    let raw: Vec<u8> = x.iter().flat_map(|x| x.to_ne_bytes()).collect();
    for (op, looped) in [Exp, Log, Log1p, Tanh, Sigmoid, Softplus, Sin, Cos, Erf, Sqrt, Rint, Sign].into_iter().flat_map(|op| [(op, false), (op, true)]) {
        let mut b = KernelBuilder::new(op.name(), 1);
        let input = b.buffer("x", DType::Real, Storage::F32, false);
        let out = b.buffer("out", DType::Real, Storage::F32, true);
        let element = |b: &mut KernelBuilder, at| {
            let value = b.load(input, at);
            let value = b.op(op, &[value]);
            b.store(out, at, value);
        };
        // One element a block, or all in one loop, which runs several at a time.
        if looped {
            let n = b.int(x.len() as i64);
            b.count(n, element);
        } else {
            let block = b.block();
            element(&mut b, block);
        }
        let found = decode(DType::Real, &run(&b.finish(), std::slice::from_ref(&raw), raw.len(), if looped { 1 } else { x.len() }));
        for (x, found) in x.iter().zip(found) {
            let want = op.eval(&[Scalar::Real(f64::from(*x))]);
            let (Scalar::Real(found), Some(Scalar::Real(want))) = (found, want) else { panic!("{want:?}") };
            assert!(ulps(found, want) <= allowed(op), "{}({x:e}) gives {found:e}, not {want:e}", op.name());
        }
    }
}
