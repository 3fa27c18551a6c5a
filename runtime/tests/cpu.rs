//! The engine on the processor: specialisation, threads, agreement with the interpreter.
#![cfg(feature = "cpu")]

use attnc_runtime::{CompileOptions, Engine, Kernel, Scalar, Storage, Tensor, TensorView, TensorViewMut};

const PROGRAM: &str = "kernel f(q: [t,d], k: [t,d], v: [t,e], near: int = 1000, scale: real = D^-0.5) -> (o: [t,e], n: int [t]) {
    axis s: T
    o = sum[s] softmax[s](scale * sum[d] q * k[t = s] where 0 <= t - s < near) * v[t = s]
    n = count[s] (0 <= t - s < near)
}
";

fn on(engine: Engine) -> Kernel {
    engine.compile(PROGRAM, None, &CompileOptions::default()).unwrap()
}

fn made(t: usize, d: usize, seed: usize) -> Tensor {
    Tensor::new((0..t * d).map(|i| ((i + seed) * 7919 % 1009) as f32 / 504.5 - 1.0).collect(), &[t, d]).unwrap()
}

fn check(cpu: &Kernel, interp: &Kernel, t: usize, d: usize, storage: Storage, near: i64) {
    let tensors = [("q", made(t, d, 0)), ("k", made(t, d, 1)), ("v", made(t, d, 2))].map(|(n, x)| (n, x.view().convert(storage).unwrap()));
    let views: Vec<(&str, TensorView<'_>)> = tensors.iter().map(|(n, x)| (*n, x.view())).collect();
    let scalars = [("near", Scalar::Int(near))];
    let (a, b) = (cpu.run(&views, &scalars).unwrap(), interp.run(&views, &scalars).unwrap());
    assert_eq!(a.get("n"), b.get("n"));
    let tolerance = if storage == Storage::Bf16 { 1e-2 } else { 1e-5 };
    for (x, y) in a.get("o").unwrap().view().to_f64().iter().zip(b.get("o").unwrap().view().to_f64()) {
        assert!((x - y).abs() <= tolerance, "{x} {y} at t={t} d={d}");
    }
}

#[test]
fn lengths_do_not_recompile_and_feature_extents_do() {
    let (cpu, interp) = (on(Engine::cpu().unwrap()), on(Engine::interp()));
    for t in [0, 1, 63, 64, 65, 130] {
        check(&cpu, &interp, t, 4, Storage::F32, 1000);
    }
    assert_eq!(cpu.specialisations(), 1);
    check(&cpu, &interp, 17, 5, Storage::F32, 3);
    assert_eq!(cpu.specialisations(), 2);
    check(&cpu, &interp, 17, 4, Storage::F32, 3);
    assert_eq!(cpu.specialisations(), 2);
    check(&cpu, &interp, 17, 4, Storage::Bf16, 3);
}

#[test]
fn many_threads_share_one_kernel() {
    let cpu = on(Engine::cpu_with(Some(2)).unwrap());
    let interp = on(Engine::interp());
    std::thread::scope(|scope| {
        for i in 0..4 {
            let (cpu, interp) = (cpu.clone(), &interp);
            scope.spawn(move || (0..4).for_each(|j| check(&cpu, interp, 20 + i, 3 + j % 2, Storage::F32, 1000)));
        }
    });
    assert_eq!(cpu.specialisations(), 2);
}

#[test]
fn outputs_are_written_in_place() {
    let cpu = on(Engine::cpu().unwrap());
    let (q, v) = (made(9, 4, 0), made(9, 4, 3));
    let inputs = [("q", q.view()), ("k", q.view()), ("v", v.view())];
    let (mut o, mut n) = (vec![f32::NAN; 36], vec![-1i64; 9]);
    cpu.run_into(&inputs, &[], &mut [("o", TensorViewMut::new(&mut o, &[9, 4]).unwrap()), ("n", TensorViewMut::new(&mut n, &[9]).unwrap())]).unwrap();
    assert_eq!(n, (1..=9).collect::<Vec<i64>>());
    assert_eq!(o[..4], *v.as_slice::<f32>().unwrap().get(..4).unwrap());
}
