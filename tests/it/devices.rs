//! Programs and single ops on the GPU targets, against the interpreter. A device or tool that is missing is reported as skipped;
//! `ATTNC_REQUIRE=wgpu,ptxas` makes it a failure.

use attnc_compiler::interp;
use attnc_compiler::ops::{Scalar, ScalarOp};
use attnc_tests::cpu::difference;
use attnc_tests::device::{Scalars, example_inputs, op_agrees, op_columns, op_kernel, op_types, run_on, run_op};
use attnc_tests::graph_of;
use attnc_tests::random::{random_case, shrink};
use attnc_runtime::driver::Device;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Counts and prints a test that cannot run here.
fn skip(what: &str, why: &str) {
    let required = std::env::var("ATTNC_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|r| r == what), "{what} is required: {why}");
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    eprintln!("skipped ({count}): no {what}: {why}");
}

fn source(name: &str) -> String {
    let path = format!("{}/../dsl-examples/{name}.attn", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Programs of one kind of structure each, with extents that are not multiples of anything, and scalars.
fn examples() -> Vec<(&'static str, Vec<(&'static str, usize)>, Scalars)> {
    let heads = [("b", 2), ("h", 4), ("g", 2), ("d", 16), ("e", 8)];
    let sized = |more: &[(&'static str, usize)]| heads.iter().chain(more).copied().collect::<Vec<_>>();
    let window: Scalars = BTreeMap::from([("window".to_string(), Scalar::Int(7))]);
    vec![
        ("softmax_causal", sized(&[("t", 37), ("s", 53)]), Scalars::new()),
        ("softmax_causal", sized(&[("t", 1), ("s", 70)]), Scalars::new()),
        ("sliding_window", sized(&[("t", 51)]), window),
        ("lightning", sized(&[("t", 45)]), Scalars::new()),
        ("gla", sized(&[("t", 45)]), Scalars::new()),
    ]
}

/// Largest relative difference over all outputs.
fn example_error(device: &dyn Device, name: &str, extents: &[(&str, usize)], scalars: &Scalars) -> Result<f64, String> {
    let graph = graph_of(&source(name))?;
    let inputs = example_inputs(&graph, extents, 7);
    let want = interp::run(&graph, &inputs, scalars).map_err(|e| e.to_string())?;
    let got = run_on(device, &graph, &inputs, scalars)?;
    Ok(want.iter().map(|(output, w)| got.get(output).map_or(f64::INFINITY, |g| difference(w, g))).fold(0.0, f64::max))
}

mod wgsl {
    use super::*;
    use attnc_compiler::kernel::Kernel;
    use attnc_runtime::RuntimeError;
    use attnc_runtime::driver::wgpu::{WebGpu, WgpuDriver, WgpuProgram};
    use std::sync::{Arc, OnceLock};

    fn device() -> Option<Arc<WgpuDriver>> {
        static DEVICE: OnceLock<Result<Arc<WgpuDriver>, RuntimeError>> = OnceLock::new();
        match DEVICE.get_or_init(|| WgpuDriver::new().map(Arc::new)) {
            Ok(driver) => Some(driver.clone()),
            Err(e) => {
                skip("wgpu", &e.to_string());
                None
            }
        }
    }

    #[test]
    fn examples_agree_with_the_interpreter() {
        let Some(driver) = device() else { return };
        let device = WebGpu(driver);
        for (name, extents, scalars) in examples() {
            let error = example_error(&device, name, &extents, &scalars).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(error < 1e-5, "{name} {extents:?}: error {error:e}");
        }
    }

    #[test]
    fn random_programs_agree_with_the_interpreter() {
        let Some(driver) = device() else { return };
        let device = WebGpu(driver);
        let check = |case: &attnc_tests::random::Case| -> Option<String> {
            let graph = graph_of(&case.source()).ok()?;
            let want = interp::run(&graph, &case.inputs(), &BTreeMap::new()).ok()?;
            match run_on(&device, &graph, &case.inputs(), &BTreeMap::new()) {
                Err(e) => Some(e),
                Ok(got) => super::disagreement(&want, &got),
            }
        };
        for seed in 0..30 {
            let case = random_case(seed);
            if let Some(what) = check(&case) {
                let small = shrink(&case, |c| check(c).is_some());
                panic!("seed {seed}: {what}\nsizes {:?}\n{}\n{:?}", small.sizes, small.source(), check(&small));
            }
        }
    }

    #[test]
    fn every_op_agrees_with_the_table() {
        let Some(driver) = device() else { return };
        let mut wrong = vec![];
        for op in ScalarOp::ALL {
            for (types, result) in op_types(*op) {
                let columns = op_columns(&types);
                let kernel: Kernel = op_kernel(*op, &types, result, 64);
                let code = WgpuProgram::new(driver.clone(), &[kernel]).unwrap_or_else(|e| panic!("{op:?} {types:?}: {e}"));
                let found = run_op(&code, &columns, result, 64).unwrap_or_else(|e| panic!("{op:?} {types:?}: {e}"));
                for (i, found) in found.into_iter().enumerate() {
                    let args: Vec<Scalar> = columns.iter().map(|c| c[i]).collect();
                    if !op_agrees(*op, &args, found) {
                        wrong.push(format!("{}{args:?} = {:?}, found {found:?}", op.name(), op.eval(&args)));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
    }
}

/// What is wrong between two sets of results, if anything. Results that are small because larger numbers cancelled are not judged by
/// their own size.
fn disagreement(want: &BTreeMap<String, interp::Array>, got: &BTreeMap<String, interp::Array>) -> Option<String> {
    let grounded = |array: &interp::Array| {
        let mut array = array.clone();
        if let interp::Data::Real(x) = &mut array.data {
            x.push(0.25);
        }
        array
    };
    want.iter().find_map(|(name, w)| {
        let Some(g) = got.get(name) else { return Some(format!("no output `{name}`")) };
        let error = difference(&grounded(w), &grounded(g));
        (!(error <= 2e-4)).then(|| format!("`{name}`: error {error:e}"))
    })
}
