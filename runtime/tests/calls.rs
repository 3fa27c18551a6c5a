//! Checked calls against hand-written plans: what fits, what does not, and what reaches the driver.

use attnc_compiler::kernel::plan::{AxisPlan, BufferKind, BufferPlan, HostExpr, InputPlan, Launch, OutputPlan, Plan, RequirePlan};
use attnc_compiler::ops::ScalarOp;
use attnc_runtime::driver::{Executable, Slot};
use attnc_runtime::launch::launch;
use attnc_runtime::plan::{Bound, Call, bind, natural_storage, output_shape, resolve};
use attnc_runtime::{DType, RuntimeError, Scalar, Storage, Tensor, TensorView, TensorViewMut};

fn input(name: &str, dtype: DType, axes: &[u32], default: Option<HostExpr>) -> InputPlan {
    let storage = if dtype == DType::Real { Storage::F32 } else { Storage::I64 };
    InputPlan { name: name.into(), dtype, axes: axes.to_vec(), default, storage }
}

/// `x: [t,d], y: int [t], z: [t,d] = 2, block: int, scale: real = D^-0.5` to `o: [c,d]` with `axis c: ceildiv(T, block)`.
fn plan() -> Plan {
    let op = |op, args: Vec<HostExpr>| HostExpr::Op(op, args);
    let extent = HostExpr::Extent;
    let root = op(ScalarOp::Pow, vec![op(ScalarOp::ToReal, vec![extent(1)]), HostExpr::Real(-0.5)]);
    let dims = vec![extent(2), extent(1)];
    let buffer = |name: &str, kind, storage, dims: &[HostExpr]| BufferPlan { name: name.into(), kind, dtype: DType::Real, storage, dims: dims.to_vec() };
    Plan {
        name: "k".into(),
        axes: vec![
            AxisPlan { name: "t".into(), extent: None },
            AxisPlan { name: "d".into(), extent: None },
            AxisPlan { name: "c".into(), extent: Some(op(ScalarOp::CeilDiv, vec![extent(0), HostExpr::Scalar(3)])) },
        ],
        inputs: vec![
            input("x", DType::Real, &[0, 1], None),
            input("y", DType::Int, &[0], None),
            input("z", DType::Real, &[0, 1], Some(HostExpr::Int(2))),
            input("block", DType::Int, &[], None),
            input("scale", DType::Real, &[], Some(root)),
        ],
        outputs: vec![OutputPlan { name: "o".into(), dtype: DType::Real, axes: vec![2, 1], storage: Storage::F32 }],
        requires: vec![RequirePlan { cond: op(ScalarOp::Lt, vec![HostExpr::Int(0), HostExpr::Scalar(3)]), text: "block > 0".into() }],
        buffers: vec![
            buffer("x", BufferKind::Input(0), Storage::F32, &[extent(0), extent(1)]),
            buffer("z", BufferKind::Input(2), Storage::F32, &[extent(0), extent(1)]),
            buffer("o", BufferKind::Output(0), Storage::F32, &dims),
            buffer("tmp", BufferKind::Temp, Storage::F32, &[extent(0), HostExpr::Scalar(3)]),
        ],
        launches: vec![Launch { kernel: 0, blocks: extent(2), buffers: vec![0, 1, 2], ints: vec![extent(0)], reals: vec![HostExpr::Scalar(4)] }],
        fixed: vec![],
        remarks: vec![],
    }
}

type Arrays = Vec<(&'static str, Tensor)>;

fn arrays() -> Arrays {
    vec![("x", Tensor::new((0..12).map(|i| i as f32).collect(), &[3, 4]).unwrap()), ("y", Tensor::new(vec![1i64, 2, 3], &[3]).unwrap())]
}

fn check(arrays: &Arrays, scalars: &[(&str, Scalar)], extents: &[(&str, i64)], then: impl FnOnce(&Plan, Result<Bound<'_>, RuntimeError>)) {
    let plan = plan();
    let views: Vec<(&str, TensorView<'_>)> = arrays.iter().map(|(n, t)| (*n, t.view())).collect();
    then(&plan, bind(&plan, &views, scalars, extents, &[]));
}

fn error(arrays: &Arrays, scalars: &[(&str, Scalar)], extents: &[(&str, i64)]) -> String {
    let mut text = String::new();
    check(arrays, scalars, extents, |_, bound| text = bound.map(|b| format!("no error: {b:?}")).unwrap_or_else(|e| e.to_string()));
    text
}

const BLOCK: (&str, Scalar) = ("block", Scalar::Int(2));

#[test]
fn extents_scalars_and_defaults_are_computed() {
    check(&arrays(), &[BLOCK], &[("t", 3), ("c", 2)], |plan, bound| {
        let bound = bound.unwrap();
        assert_eq!(bound.extents, [3, 4, 2]);
        assert_eq!(bound.scalars[4], Some(Scalar::Real(0.5)));
        assert_eq!(bound.fills[2], Some(Scalar::Real(2.0)));
        assert_eq!(output_shape(plan, &bound, 0), [2, 4]);
        let call = resolve(plan, &bound, None).unwrap();
        assert_eq!((call.launches[0].blocks, &call.launches[0].ints[..], &call.launches[0].reals[..]), (2, &[3i64][..], &[0.5f32][..]));
        assert_eq!(call.temp_bytes(), 24);
        let need = RuntimeError::TooLarge { what: String::new(), bytes: Some(0), available: None }.to_string();
        assert!(need.contains("too large"));
        assert!(matches!(resolve(plan, &bound, Some(100)), Err(RuntimeError::TooLarge { available: Some(100), .. })));
    });
}

#[test]
fn each_misfit_has_one_error_that_names_it() {
    let with = |name: &'static str, tensor: Tensor| -> Arrays { arrays().into_iter().filter(|a| a.0 != name).chain([(name, tensor)]).collect() };
    let f32s = |shape: &[usize]| Tensor::zeros(Storage::F32, shape).unwrap();
    let cases: Vec<(Arrays, Vec<(&str, Scalar)>, Vec<(&str, i64)>, &[&str])> = vec![
        (arrays()[..1].to_vec(), vec![BLOCK], vec![], &["missing input `y`", "int", "[t]"]),
        (arrays(), vec![], vec![], &["missing input `block`", "scalar"]),
        (with("w", f32s(&[1])), vec![BLOCK], vec![], &["unknown input `w`"]),
        (arrays(), vec![BLOCK, ("scal", Scalar::Real(1.0))], vec![], &["`scal`", "did you mean `scale`"]),
        (with("x", f32s(&[3])), vec![BLOCK], vec![], &["`x`", "[t,d]", "rank 1", "[3]"]),
        (with("y", Tensor::zeros(Storage::I64, &[5]).unwrap()), vec![BLOCK], vec![], &["`x`", "`y`", "axis `t`", "5", "3"]),
        (with("y", f32s(&[3])), vec![BLOCK], vec![], &["`y`", "f32", "int", "[t]", "[3]"]),
        (with("x", Tensor::zeros(Storage::I32, &[3, 4]).unwrap()), vec![BLOCK], vec![], &["`x`", "i32", "real", "[3, 4]"]),
        (with("block", f32s(&[1])), vec![], vec![], &["`block`", "scalar", "[1]"]),
        (arrays(), vec![BLOCK, ("x", Scalar::Real(1.0))], vec![], &["`x`", "tensor", "[t,d]"]),
        (arrays(), vec![("block", Scalar::Real(1.5))], vec![], &["`block`", "int", "1.5"]),
        (arrays(), vec![BLOCK, BLOCK], vec![], &["`block`", "twice"]),
        (arrays(), vec![("block", Scalar::Int(0))], vec![], &["block > 0", "block = 0"]),
        (arrays(), vec![BLOCK], vec![("t", 4)], &["`x`", "axis `t`", "3", "4"]),
        (arrays(), vec![BLOCK], vec![("c", 7)], &["c == 7", "2"]),
        (arrays(), vec![BLOCK], vec![("q", 7)], &["unknown axis `q`"]),
    ];
    for (arrays, scalars, extents, wants) in cases {
        let text = error(&arrays, &scalars, &extents);
        for want in wants {
            assert!(text.contains(want), "`{want}` not in: {text}");
        }
    }
}

#[test]
fn storages_of_results_follow_the_inputs() {
    for (storage, want) in [(Storage::F32, Storage::F32), (Storage::F64, Storage::F32), (Storage::Bf16, Storage::Bf16), (Storage::F16, Storage::F16)] {
        let mut arrays = arrays();
        arrays[0].1 = arrays[0].1.view().convert(storage).unwrap();
        check(&arrays, &[BLOCK], &[], |_, bound| assert_eq!(natural_storage(DType::Real, &bound.unwrap()), want));
    }
}

/// Adds `x + z` of every second row to `o`; notes whether the memory of `x` was lent.
struct Toy {
    x: std::sync::Mutex<Option<usize>>,
}

impl Executable for Toy {
    fn execute(&self, call: &Call, slots: &mut [Slot<'_>]) -> Result<(), RuntimeError> {
        let [Slot::In(x), Slot::In(z), Slot::Out(o), Slot::Temp] = slots else { return Err(RuntimeError::Bug("other slots".into())) };
        *self.x.lock().unwrap() = Some(x.as_ptr() as usize);
        let row = call.buffers[0].dims[1];
        let (x, z, o): (&[f32], &[f32], &mut [f32]) = (bytemuck::cast_slice(x), bytemuck::cast_slice(z), bytemuck::cast_slice_mut(o));
        for (i, out) in o.iter_mut().enumerate() {
            let at = i / row * 2 * row + i % row;
            *out = x[at] + z[at];
        }
        Ok(())
    }
}

#[test]
fn the_callers_memory_is_lent_and_other_storages_are_converted() {
    let toy = Toy { x: None.into() };
    let want = [2.0f32, 3.0, 4.0, 5.0, 10.0, 11.0, 12.0, 13.0];
    for storage in [Storage::F32, Storage::F64, Storage::Bf16] {
        let mut arrays = arrays();
        arrays[0].1 = arrays[0].1.view().convert(storage).unwrap();
        let address = arrays[0].1.bytes().as_ptr() as usize;
        check(&arrays, &[BLOCK], &[], |plan, bound| {
            let bound = bound.unwrap();
            let mut same = [0f32; 8];
            launch(plan, &toy, &bound, vec![TensorViewMut::new(&mut same, &[2, 4]).unwrap()], None).unwrap();
            assert_eq!(same, want);
            let mut other = Tensor::zeros(Storage::F16, &[2, 4]).unwrap();
            launch(plan, &toy, &bound, vec![other.view_mut()], None).unwrap();
            assert_eq!(other.view().to_f64(), want.map(f64::from));
        });
        assert_eq!(*toy.x.lock().unwrap() == Some(address), storage == Storage::F32, "{storage:?}");
    }
}

#[test]
fn empty_axes_launch_nothing() {
    let arrays = vec![("x", Tensor::zeros(Storage::F32, &[0, 4]).unwrap()), ("y", Tensor::zeros(Storage::I64, &[0]).unwrap())];
    check(&arrays, &[BLOCK], &[], |plan, bound| {
        let call = resolve(plan, &bound.unwrap(), None).unwrap();
        assert!(call.launches.is_empty());
        assert_eq!(call.buffers[2].bytes, 0);
    });
}

#[test]
fn sizes_beyond_the_address_space_are_errors() {
    check(&arrays(), &[("block", Scalar::Int(i64::MAX))], &[], |plan, bound| {
        let text = resolve(plan, &bound.unwrap(), None).unwrap_err().to_string();
        assert!(text.contains("`tmp`") && text.contains("too large"), "{text}");
    });
}
