use attnc_compiler::kernel::caps::Caps;
use attnc_compiler::lower::{Options, lower_stages};
use attnc_compiler::passes::tile::TileOptions;
use std::time::Instant;
fn main() {
    let show = std::env::args().any(|a| a == "-v");
    let clif = std::env::args().any(|a| a == "-c");
    let driver = attnc_runtime::driver::cpu::CpuDriver::new(Some(1)).unwrap();
    for path in std::env::args().skip(1).filter(|a| !a.starts_with('-')) {
        let text = std::fs::read_to_string(&path).unwrap();
        let checked = attnc_compiler::sema::check(&text);
        if checked.failed() { println!("{path}: check failed"); continue; }
        for g in &checked.graphs {
            let extents = g.axes.iter().map(|_| Some(64)).collect();
            let o = Options { extents, caps: Caps::cpu(), tile: TileOptions::default() };
            let start = Instant::now();
            match std::panic::catch_unwind(|| lower_stages(g, &o)) {
                Err(_) => println!("{path}: PANIC"),
                Ok(Err(e)) => println!("{path}: {e}"),
                Ok(Ok(s)) => {
                    let lowered = start.elapsed();
                    if show { for k in &s.program.kernels { println!("{k}"); } }
                    if clif { for k in &s.program.kernels { println!("{}", attnc_codegen::cpu::clif(k).unwrap()); } }
                    let start = Instant::now();
                    let r = driver.load(&s.program.kernels);
                    println!("{path}: {} kernels lowered {lowered:?} compiled {:?} {}", s.program.kernels.len(), start.elapsed(), r.err().map(|e| e.to_string()).unwrap_or_default());
                }
            }
        }
    }
}
