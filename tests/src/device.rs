//! Runs graphs and single ops on any device of the runtime, from interpreter arrays.

use crate::random::Rng;
use attnc_compiler::graph::Graph;
use attnc_compiler::graph::bind::bind;
use attnc_compiler::interp::{Array, Data};
use attnc_compiler::kernel::plan::{BufferKind, Program};
use attnc_compiler::kernel::{Kernel, KernelBuilder, Storage};
use attnc_compiler::lower::{Options, lower};
use attnc_compiler::ops::{DType, Scalar, ScalarOp};
use attnc_runtime::Tensor;
use attnc_runtime::driver::{Device, Executable, Slot};
use attnc_runtime::plan::{BufferCall, Call, LaunchCall};
use std::collections::BTreeMap;

pub type Arrays = BTreeMap<String, Array>;
pub type Scalars = BTreeMap<String, Scalar>;

/// The program as the device wants it lowered, for inputs of these shapes.
pub fn lowered(device: &dyn Device, graph: &Graph, inputs: &Arrays, scalars: &Scalars) -> Result<Program, String> {
    let shapes = inputs.iter().map(|(n, a)| (n.clone(), a.shape.clone())).collect();
    let bound = bind(graph, &shapes, scalars).map_err(|e| e.to_string())?;
    let extents = bound.extents.iter().map(|e| Some(*e as i64)).collect();
    let options = Options { extents, caps: device.caps(), tile: device.tiles(Storage::F32) };
    lower(graph, &options).map_err(|e| e.to_string())
}

/// Outputs by name; what went wrong as text.
pub fn run_on(device: &dyn Device, graph: &Graph, inputs: &Arrays, scalars: &Scalars) -> Result<Arrays, String> {
    let program = lowered(device, graph, inputs, scalars)?;
    let tensors = inputs
        .iter()
        .map(|(name, a)| {
            let tensor = match &a.data {
                Data::Real(x) => Tensor::from_f64(Storage::F32, &a.shape, x),
                Data::Int(x) => Tensor::new(x.clone(), &a.shape),
                Data::Bool(x) => Tensor::new(x.iter().map(|b| u8::from(*b)).collect::<Vec<u8>>(), &a.shape),
                Data::Complex(_) => return Err("a complex input".to_string()),
            };
            Ok((name.clone(), tensor.map_err(|e| e.to_string())?))
        })
        .collect::<Result<Vec<_>, String>>()?;
    let views: Vec<_> = tensors.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    let scalars: Vec<(&str, Scalar)> = scalars.iter().map(|(n, s)| (n.as_str(), *s)).collect();
    let call = attnc_runtime::plan::bind(&program.plan, &views, &scalars, &[], &[]).map_err(|e| e.to_string())?;
    let code = device.load(&program, None).map_err(|e| e.to_string())?;
    let mut results = Vec::new();
    for (i, output) in program.plan.outputs.iter().enumerate() {
        let shape = attnc_runtime::plan::output_shape(&program.plan, &call, i);
        // Poison: an element that nobody writes shows.
        let n: usize = shape.iter().product();
        let tensor = match output.storage {
            Storage::F32 => Tensor::new(vec![f32::NAN; n], &shape),
            storage => Tensor::zeros(storage, &shape),
        };
        results.push(tensor.map_err(|e| e.to_string())?);
    }
    let outputs = results.iter_mut().map(|t| t.view_mut()).collect();
    attnc_runtime::launch::launch(&program.plan, &*code, &call, outputs, None).map_err(|e| e.to_string())?;
    let arrays = program.plan.outputs.iter().zip(results).map(|(o, t)| {
        let view = t.view();
        let data = match t.storage() {
            Storage::I64 | Storage::I32 => Data::Int(view.to_i64()),
            Storage::U8 => Data::Bool(view.to_i64().into_iter().map(|x| x != 0).collect()),
            Storage::F32 | Storage::F64 | Storage::Bf16 | Storage::F16 => Data::Real(view.to_f64()),
        };
        (o.name.clone(), Array { shape: t.shape().to_vec(), data })
    });
    Ok(arrays.collect())
}

/// Inputs for a program of `dsl-examples`: its tensors over axes of these extents (4 where none is given), reals in -1..1; inputs that
/// are declared not to be positive are.
pub fn example_inputs(graph: &Graph, extents: &[(&str, usize)], seed: u64) -> Arrays {
    let mut rng = Rng::new(seed);
    let mut all = BTreeMap::new();
    for input in graph.inputs.iter().filter(|i| !i.axes.is_empty()) {
        let extent = |name: &str| extents.iter().find(|(n, _)| *n == name).map_or(4, |(_, e)| *e);
        let shape: Vec<usize> = input.axes.iter().map(|a| extent(&graph.axes[a.index()].name)).collect();
        let n = shape.iter().product();
        let sign = if input.fact.is_some() { -0.5 } else { 1.0 };
        let real = |rng: &mut Rng| {
            let x = rng.below(2001) as f64 / 1000.0 - 1.0;
            f64::from((if sign < 0.0 { x.abs() * sign } else { x }) as f32)
        };
        let data = match input.dtype {
            DType::Real | DType::Complex => Data::Real((0..n).map(|_| real(&mut rng)).collect()),
            DType::Int => Data::Int((0..n).map(|_| rng.below(3) as i64).collect()),
            DType::Bool => Data::Bool((0..n).map(|_| rng.chance(70)).collect()),
        };
        all.insert(input.name.clone(), Array { shape, data });
    }
    all
}

/// Values for the scalars of a program that have no default.
pub fn example_scalars(graph: &Graph) -> Scalars {
    let needed = graph.inputs.iter().filter(|i| i.axes.is_empty() && i.default.is_none());
    let value = |dtype| match dtype {
        DType::Int => Scalar::Int(2),
        DType::Bool => Scalar::Bool(true),
        DType::Real | DType::Complex => Scalar::Real(0.5),
    };
    needed.map(|i| (i.name.clone(), value(i.dtype))).collect()
}

/// How a dtype lies in memory on GPUs.
pub fn storage_of(dtype: DType) -> Storage {
    match dtype {
        DType::Real | DType::Complex => Storage::F32,
        DType::Int => Storage::I32,
        DType::Bool => Storage::U8,
    }
}

/// `out[i] = op(a0[i], a1[i], ..)` for `i < n`, one element a lane.
pub fn op_kernel(op: ScalarOp, types: &[DType], result: DType, lanes: u32) -> Kernel {
    let mut b = KernelBuilder::new(format!("{}_{}", op.name(), types.last().map_or("", |t| t.name())), lanes);
    let inputs: Vec<_> = types.iter().enumerate().map(|(i, t)| b.buffer(format!("a{i}"), *t, storage_of(*t), false)).collect();
    let out = b.buffer("out", result, storage_of(result), true);
    let (n, block, lane) = (b.int_arg("n"), b.block(), b.lane());
    let width = b.int(i64::from(lanes));
    let first = b.mul(block, width);
    let i = b.add(first, lane);
    let inside = b.lt(i, n);
    b.if_then(inside, |b| {
        let args: Vec<_> = inputs.iter().map(|buffer| b.load(*buffer, i)).collect();
        let value = b.op(op, &args);
        b.store(out, i, value);
    });
    b.finish()
}

/// Elements as bytes in their device storage.
fn bytes_of(values: &[Scalar]) -> Vec<u8> {
    let mut bytes = vec![];
    for value in values {
        match value {
            Scalar::Real(x) => bytes.extend((*x as f32).to_le_bytes()),
            Scalar::Int(x) => bytes.extend((*x as i32).to_le_bytes()),
            Scalar::Bool(x) => bytes.push(u8::from(*x)),
            Scalar::Complex(..) => {}
        }
    }
    bytes
}

/// Runs [`op_kernel`] on columns of operands of equal length.
pub fn run_op(code: &dyn Executable, columns: &[Vec<Scalar>], result: DType, lanes: u32) -> Result<Vec<Scalar>, String> {
    let n = columns[0].len();
    let mut buffers = vec![];
    for (i, column) in columns.iter().enumerate() {
        let storage = storage_of(column[0].dtype());
        buffers.push(BufferCall { kind: BufferKind::Input(i as u32), storage, dims: vec![n], elements: n, bytes: n * storage.bytes() });
    }
    let storage = storage_of(result);
    buffers.push(BufferCall { kind: BufferKind::Output(0), storage, dims: vec![n], elements: n, bytes: n * storage.bytes() });
    let launch = LaunchCall {
        kernel: 0,
        blocks: n.div_ceil(lanes as usize) as u64,
        buffers: (0..buffers.len() as u32).collect(),
        ints: vec![n as i64],
        reals: vec![],
    };
    let call = Call { buffers, launches: vec![launch] };
    let inputs: Vec<Vec<u8>> = columns.iter().map(|c| bytes_of(c)).collect();
    let mut out = vec![0u8; n * storage.bytes()];
    let mut slots: Vec<Slot<'_>> = inputs.iter().map(|b| Slot::In(b)).collect();
    slots.push(Slot::Out(&mut out));
    code.execute(&call, &mut slots).map_err(|e| e.to_string())?;
    let word = |i: usize| [out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3]];
    let element = |i| match result {
        DType::Real | DType::Complex => Scalar::Real(f64::from(f32::from_le_bytes(word(i)))),
        DType::Int => Scalar::Int(i64::from(i32::from_le_bytes(word(i)))),
        DType::Bool => Scalar::Bool(out[i] != 0),
    };
    Ok((0..n).map(element).collect())
}

/// All dtypes of operands that an op takes, Complex aside, and of its result.
pub fn op_types(op: ScalarOp) -> Vec<(Vec<DType>, DType)> {
    let mut all = vec![];
    for ty in [DType::Bool, DType::Int, DType::Real] {
        let types = if op == ScalarOp::Select { vec![DType::Bool, ty, ty] } else { vec![ty; op.arity()] };
        if let Some(result) = op.result(&types).filter(|r| *r != DType::Complex) {
            all.push((types, result));
        }
    }
    all
}

/// Operands worth trying, every combination of them for two operands.
pub fn op_columns(types: &[DType]) -> Vec<Vec<Scalar>> {
    let ints = [0, 1, -1, 2, 3, -3, 7, 31, 33, 100, -4096, i64::from(i32::MAX), i64::from(i32::MIN)];
    let reals = [
        0.0, -0.0, 1.0, -1.0, 0.5, -0.25, 2.0, 2.5, -3.0, 1e-6, 0.3, -0.7, 5.0, 123456.0, 1e20, 17.0, -20.0, 60.0, 88.0, -87.0, 1000.0, 3e9, -3e9, f64::INFINITY,
        f64::NEG_INFINITY, f64::NAN,
    ];
    let pool = |ty: DType| -> Vec<Scalar> {
        match ty {
            DType::Bool => vec![Scalar::Bool(false), Scalar::Bool(true)],
            DType::Int => ints.iter().map(|x| Scalar::Int(*x)).collect(),
            DType::Real | DType::Complex => reals.iter().map(|x| Scalar::Real(f64::from(*x as f32))).collect(),
        }
    };
    let mut rows: Vec<Vec<Scalar>> = vec![vec![]];
    for ty in types {
        rows = rows.iter().flat_map(|row| pool(*ty).into_iter().map(|x| [row.as_slice(), &[x]].concat())).collect();
    }
    (0..types.len()).map(|k| rows.iter().map(|row| row[k]).collect()).collect()
}

/// Whether a device in 32 bits may give `found` for `op(args)`.
pub fn op_agrees(op: ScalarOp, args: &[Scalar], found: Scalar) -> bool {
    match (op.eval(args), found) {
        (Some(Scalar::Bool(w)), Scalar::Bool(f)) => w == f,
        (Some(Scalar::Int(w)), Scalar::Int(f)) => {
            let saturated = if w < 0 { i32::MIN } else { i32::MAX };
            f == w || f == i64::from(w as i32) || matches!(args[0], Scalar::Real(_)) && f == i64::from(saturated)
        }
        (Some(Scalar::Real(w)), Scalar::Real(f)) => {
            let narrow = w as f32;
            if w.is_nan() || f.is_nan() {
                return w.is_nan() && f.is_nan();
            }
            if narrow.is_infinite() || f.is_infinite() {
                return w.abs() > 3.4e38 && f.abs() > 3.4e38 && w.signum() == f.signum();
            }
            // The slack of a power grows with its logarithm, that of `expdiff` with the rounded difference. Reals below the normal ones
            // may be flushed to 0; near the zeros of sine and cosine the absolute error counts.
            let slack = match (op, args) {
                (ScalarOp::Pow, _) => w.abs().max(1e-30).ln().abs(),
                (ScalarOp::ExpDiff, [Scalar::Real(a), Scalar::Real(b)]) if (a - b).is_finite() => (a - b).abs(),
                (_, _) => 4.0,
            };
            let absolute = if matches!(op, ScalarOp::Sin | ScalarOp::Cos) { 1e-6 } else { 2e-38 };
            let scale = 4.0 + slack;
            (w - f).abs() <= absolute + scale * 1.2e-7 * w.abs()
        }
        (_, _) => false,
    }
}
