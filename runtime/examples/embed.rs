//! Embedding: compile a program once, run it on borrowed memory, many times.
//!
//! `cargo run -p attnc-runtime --no-default-features --example embed`

use attnc_runtime::{CompileOptions, Engine, RuntimeError, Scalar, TensorView, TensorViewMut};

const PROGRAM: &str = "
/// Weighted means of the values up to each position.
kernel recent(x: [t], v: [t,d], rate: real = 1) -> (o: [t,d]) {
    axis s: T
    let w = exp(rate * x[t = s]) where s <= t
    o = (sum[s] w * v[t = s]) / sum[s] w
}";

fn main() -> Result<(), RuntimeError> {
    let engine = Engine::interp();
    let kernel = engine.compile(PROGRAM, None, &CompileOptions::default())?;

    let x: Vec<f32> = vec![0.0, 1.0, 0.5];
    let v: Vec<f32> = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let inputs = [("x", TensorView::new(&x, &[3])?), ("v", TensorView::new(&v, &[3, 2])?)];

    // New memory for the outputs.
    let outputs = kernel.run(&inputs, &[])?;
    println!("o = {:?}", outputs.get("o").and_then(|o| o.as_slice::<f32>()));

    // Memory of the caller: filled in place.
    let mut o = vec![0f32; 6];
    kernel.run_into(&inputs, &[("rate", Scalar::Real(0.0))], &mut [("o", TensorViewMut::new(&mut o, &[3, 2])?)])?;
    println!("with rate 0: {o:?}");

    // Kernels are cheap to clone and may run on several threads at once.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (kernel, inputs) = (kernel.clone(), &inputs);
            scope.spawn(move || kernel.run(inputs, &[]).map(|o| println!("{} output(s)", o.iter().count())));
        }
    });

    // Errors are values and say what was expected.
    let short = [("x", TensorView::new(&x[..2], &[2])?), ("v", TensorView::new(&v, &[3, 2])?)];
    if let Err(error) = kernel.run(&short, &[]) {
        println!("error: {error}");
    }
    Ok(())
}
