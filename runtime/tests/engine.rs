//! The engine as an embedding program sees it, on the reference interpreter.

use attnc_runtime::{CompileOptions, Engine, Kernel, RuntimeError, Scalar, Storage, Tensor, TensorView, TensorViewMut};

const PROGRAM: &str = "kernel f(x: [t,d], w: [d] = 1, pick: int [t], scale: real <= 8 = D^-0.5) -> (o: [t], at: int [t], hot: bool [t]) {
    o = scale * sum[d] x * w
    at = pick + 1
    hot = pick > 0
}
";

fn kernel() -> Kernel {
    Engine::interp().compile(PROGRAM, None, &CompileOptions::default()).unwrap()
}

const X: [f32; 8] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
const PICK: [i64; 2] = [0, 1 << 40];

fn inputs() -> [(&'static str, TensorView<'static>); 2] {
    [("x", TensorView::new(&X, &[2, 4]).unwrap()), ("pick", TensorView::new(&PICK, &[2]).unwrap())]
}

#[test]
fn handles_are_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<Engine>();
    shared::<Kernel>();
}

#[test]
fn results_have_the_shapes_and_dtypes_of_the_program() {
    let out = kernel().run(&inputs(), &[]).unwrap();
    assert_eq!(out.get("o").unwrap().as_slice::<f32>(), Some(&[5.0, 13.0][..]));
    assert_eq!(out.get("at").unwrap().as_slice::<i64>(), Some(&[1, (1 << 40) + 1][..]));
    assert_eq!(out.get("hot").unwrap().as_slice::<u8>(), Some(&[0, 1][..]));
    assert_eq!(out.iter().map(|o| o.0).collect::<Vec<_>>(), ["o", "at", "hot"]);
}

#[test]
fn results_take_the_storage_of_the_inputs() {
    for storage in [Storage::Bf16, Storage::F16] {
        let x = inputs()[0].1.convert(storage).unwrap();
        let out = kernel().run(&[("x", x.view()), inputs()[1].clone()], &[]).unwrap();
        assert_eq!(out.get("o").unwrap().storage(), storage);
    }
    let x = Tensor::from_f64(Storage::F64, &[1, 1], &[0.1]).unwrap();
    let pick = Tensor::new(vec![0i32], &[1]).unwrap();
    let out = kernel().run(&[("x", x.view()), ("pick", pick.view())], &[]).unwrap();
    assert_eq!(out.get("o").unwrap().as_slice::<f32>(), Some(&[0.1f32][..]));
}

#[test]
fn strided_views_mean_their_elements() {
    let columns: Vec<f32> = (0..4).flat_map(|d| [X[d], X[4 + d]]).collect();
    let x = TensorView::strided(&columns, &[2, 4], &[1, 2]).unwrap();
    let out = kernel().run(&[("x", x), inputs()[1].clone()], &[]).unwrap();
    assert_eq!(out.get("o").unwrap().as_slice::<f32>(), Some(&[5.0, 13.0][..]));
}

#[test]
fn outputs_of_the_caller_are_checked_and_filled() {
    let kernel = kernel();
    let (mut o, mut at, mut hot) = ([0f32; 2], [0i64; 2], [9u8; 2]);
    {
        let mut out = [
            ("hot", TensorViewMut::new(&mut hot, &[2]).unwrap()),
            ("o", TensorViewMut::new(&mut o, &[2]).unwrap()),
            ("at", TensorViewMut::new(&mut at, &[2]).unwrap()),
        ];
        kernel.run_into(&inputs(), &[("scale", Scalar::Int(2))], &mut out).unwrap();
    }
    assert_eq!((o, at, hot), ([20.0, 52.0], [1, (1 << 40) + 1], [0, 1]));

    let text = |out: &mut [(&str, TensorViewMut<'_>)]| kernel.run_into(&inputs(), &[], out).unwrap_err().to_string();
    assert!(text(&mut []).contains("`o`"));
    assert!(text(&mut [("oo", TensorViewMut::new(&mut o, &[2]).unwrap())]).contains("did you mean"));
    let shape = text(&mut [("o", TensorViewMut::new(&mut o, &[1, 2]).unwrap())]);
    assert!(shape.contains("`o`") && shape.contains("[t]") && shape.contains("[1, 2]"), "{shape}");
    assert!(text(&mut [("o", TensorViewMut::new(&mut at, &[2]).unwrap())]).contains("i64"));
}

#[test]
fn errors_say_whose_they_are() {
    let compile = |source: &str, name| Engine::interp().compile(source, name, &CompileOptions { file_name: Some("mine.attn".into()), ..Default::default() });
    match compile("kernel f(x: [t]) -> (o: [t]) {\n o = y\n}", None) {
        Err(RuntimeError::Source { diagnostics, text }) => assert!(!diagnostics.is_empty() && text.contains("mine.attn:2"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(compile("", None), Err(RuntimeError::Empty)));
    assert!(matches!(compile(PROGRAM, Some("g")), Err(RuntimeError::NoKernel { .. })));
    let text = kernel().run(&inputs(), &[("scale", Scalar::Real(9.0))]).unwrap_err().to_string();
    assert!(text.contains("scale <= 8") && text.contains("scale = 9"), "{text}");
}

#[test]
fn extents_given_at_compile_time_bind_later_calls() {
    let options = CompileOptions { extents: vec![("d".into(), 3)], ..Default::default() };
    let kernel = Engine::interp().compile(PROGRAM, None, &options).unwrap();
    let text = kernel.run(&inputs(), &[]).unwrap_err().to_string();
    assert!(text.contains("`x`") && text.contains("`d`") && text.contains('3') && text.contains('4'), "{text}");
}
