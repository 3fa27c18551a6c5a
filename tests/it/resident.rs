//! Calls on tensors that stay on a GPU; skipped without one.

use crate::devices::skip;
use attnc_runtime::{CompileOptions, Engine, Given, RuntimeError, Storage, Tensor, TensorView};

const PROGRAM: &str = "kernel f(x: [t,d], y: [t,d], n: int [t]) -> (o: [t,d], m: int [t]) { o = x * y + t \n m = 2 * n }";

fn engine() -> Option<Engine> {
    if cfg!(not(feature = "ptx")) {
        return None;
    }
    match Engine::ptx() {
        Ok(engine) => Some(engine),
        Err(e) => {
            skip("cuda", &e.to_string());
            None
        }
    }
}

fn host(t: usize, d: usize) -> (Vec<f32>, Vec<f32>, Vec<i64>) {
    let x = (0..t * d).map(|i| i as f32 * 0.5).collect();
    let y = (0..t * d).map(|i| 1.0 - i as f32).collect();
    (x, y, (0..t as i64).collect())
}

#[test]
fn a_call_that_stays_can_be_launched_again_with_new_contents() {
    let Some(engine) = engine() else { return };
    let kernel = engine.compile(PROGRAM, None, &CompileOptions::default()).unwrap();
    let (t, d) = (37, 5);
    let (x, y, n) = host(t, d);
    let on_device = engine.upload(&TensorView::new(&x, &[t, d]).unwrap()).unwrap();
    let (y_view, n_view) = (TensorView::new(&y, &[t, d]).unwrap(), TensorView::new(&n, &[t]).unwrap());
    let stream = engine.stream().unwrap();
    let given = [("x", Given::Device(&on_device)), ("y", Given::Host(y_view.clone())), ("n", Given::Host(n_view.clone()))];
    let call = kernel.prepare(&given, &[], &[], &[], Some(&stream)).unwrap();
    for round in 0..3 {
        let now: Vec<f32> = x.iter().map(|v| v + round as f32).collect();
        on_device.upload(&TensorView::new(&now, &[t, d]).unwrap()).unwrap();
        call.launch().unwrap();
        stream.wait().unwrap();
        let want = kernel.run(&[("x", TensorView::new(&now, &[t, d]).unwrap()), ("y", y_view.clone()), ("n", n_view.clone())], &[]).unwrap();
        assert_eq!(call.output("o").unwrap().download().unwrap().bytes(), want.get("o").unwrap().bytes());
        assert_eq!(call.output("m").unwrap().download().unwrap().view().to_i64(), want.get("m").unwrap().view().to_i64());
    }
    let times = call.time(5, 10.0).unwrap();
    assert!(times.len() == 5 && times.iter().all(|t| *t > 0.0 && *t < 1.0), "{times:?}");
    assert!(engine.is_usable());
}

#[test]
fn foreign_memory_is_taken_where_it_lies_and_checked() {
    let Some(engine) = engine() else { return };
    let kernel = engine.compile(PROGRAM, None, &CompileOptions::default()).unwrap();
    let (t, d) = (16, 4);
    let (x, y, n) = host(t, d);
    let owner = engine.upload(&TensorView::new(&x, &[t, d]).unwrap()).unwrap();
    let borrowed = engine.import(owner.address(), Storage::F32, &[t, d]).unwrap();
    let out = engine.allocate(Storage::F32, &[t, d]).unwrap();
    let (y_view, n_view) = (TensorView::new(&y, &[t, d]).unwrap(), TensorView::new(&n, &[t]).unwrap());
    let given = [("x", Given::Device(&borrowed)), ("y", Given::Host(y_view.clone())), ("n", Given::Host(n_view.clone()))];
    let call = kernel.prepare(&given, &[], &[], &[("o", &out)], None).unwrap();
    call.run().unwrap();
    let want = kernel.run(&[("x", TensorView::new(&x, &[t, d]).unwrap()), ("y", y_view), ("n", n_view)], &[]).unwrap();
    assert_eq!(out.download().unwrap().bytes(), want.get("o").unwrap().bytes());

    // No allocation, one that is too short, a crooked address.
    for (address, shape) in [(64, [t, d]), (owner.address(), [1 << 30, 1 << 10]), (owner.address() + 4, [1, 1])] {
        let refused = engine.import(address, Storage::F32, &shape);
        assert!(matches!(refused, Err(RuntimeError::Device { .. })), "{refused:?}");
    }
    // The output may not lie on an input, and storages are not converted silently.
    let overlapping = kernel.prepare(&given, &[], &[], &[("o", &borrowed)], None);
    assert!(matches!(overlapping, Err(RuntimeError::Device { .. })), "{overlapping:?}");
    let half = engine.upload(&Tensor::from_f64(Storage::F64, &[t, d], &vec![0.0; t * d]).unwrap().view()).unwrap();
    let other = kernel.prepare(&[given[0].clone(), ("y", Given::Device(&half)), given[2].clone()], &[], &[], &[], None);
    assert!(matches!(other, Err(RuntimeError::WrongDtype { .. })), "{other:?}");
}

#[test]
fn too_much_memory_is_an_error_and_the_device_stays_usable() {
    let Some(engine) = engine() else { return };
    let refused = engine.allocate(Storage::F32, &[1 << 20, 1 << 20]);
    assert!(matches!(refused, Err(RuntimeError::TooLarge { .. })), "{refused:?}");
    assert!(engine.is_usable());
    assert!(engine.allocate(Storage::F32, &[1 << 10]).is_ok());
}

#[test]
fn devices_in_host_memory_say_that_they_have_none() {
    let engine = Engine::cpu().expect("the processor");
    assert!(matches!(engine.allocate(Storage::F32, &[4]), Err(RuntimeError::Unsupported { .. })));
    assert!(matches!(Engine::interp().stream(), Err(RuntimeError::Unsupported { .. })));
    let kernel = engine.compile(PROGRAM, None, &CompileOptions::default()).unwrap();
    let (x, y, n) = host(2, 2);
    let [x, y] = [&x, &y].map(|v| Given::Host(TensorView::new(v, &[2, 2]).unwrap()));
    let refused = kernel.prepare(&[("x", x), ("y", y), ("n", Given::Host(TensorView::new(&n, &[2]).unwrap()))], &[], &[], &[], None);
    assert!(matches!(refused, Err(RuntimeError::Unsupported { .. })), "{refused:?}");
}
