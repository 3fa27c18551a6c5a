//! NVIDIA's assembler, as a check of PTX on machines without a GPU.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What ptxas says of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    pub entry: String,
    pub registers: u32,
    /// Bytes of static shared memory.
    pub shared: u32,
    /// Bytes of a thread's own memory.
    pub stack: u32,
}

/// The assembler that `ATTNC_PTXAS` names, or that of `.venv` (`scripts/setup.sh` puts it there), or that on the path.
pub fn find() -> Option<PathBuf> {
    if let Ok(path) = std::env::var("ATTNC_PTXAS") {
        return Some(path.into());
    }
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/lib");
    let pythons = std::fs::read_dir(lib).into_iter().flatten().filter_map(|e| Some(e.ok()?.path()));
    let mut found = pythons.map(|p| p.join("site-packages/nvidia/cu13/bin/ptxas"));
    found.find(|p| p.is_file()).or_else(|| {
        let works = Command::new("ptxas").arg("--version").output().is_ok_and(|o| o.status.success());
        works.then(|| "ptxas".into())
    })
}

/// Assembles a module. Errors: what ptxas refuses, spills of registers, and its notes of the series C75xx (products that it serialises).
pub fn assemble(ptxas: &Path, text: &str, arch: &str) -> Result<Vec<Figures>, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (from, to) = (folder.path().join("k.ptx"), folder.path().join("k.cubin"));
    std::fs::write(&from, text).map_err(|e| e.to_string())?;
    let output = Command::new(ptxas).arg("-v").arg(format!("-arch={arch}")).arg(&from).arg("-o").arg(&to).output();
    let output = output.map_err(|e| format!("{}: {e}", ptxas.display()))?;
    let log = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let faults = faults(&log);
    if !faults.is_empty() || !output.status.success() {
        return Err(if faults.is_empty() { log } else { faults.join("\n") });
    }
    Ok(figures(&log))
}

/// Lines that may not be, each with the entry that it is about.
fn faults(log: &str) -> Vec<String> {
    let mut entry = "";
    let mut all = vec![];
    for line in log.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            entry = rest.split('\'').next().unwrap_or_default();
        }
        let spill = line.contains("spill") && !line.contains(" 0 bytes spill stores, 0 bytes spill loads");
        if spill || line.contains("C75") || line.contains("error") || line.contains("fatal") {
            all.push(format!("{entry}: {}", line.trim()));
        }
    }
    all
}

/// The number before some words of a line.
fn before(line: &str, words: &str) -> u32 {
    let found = line.find(words).and_then(|at| line[..at].trim_end().rsplit([' ', ',']).next()?.parse().ok());
    found.unwrap_or(0)
}

fn figures(log: &str) -> Vec<Figures> {
    let (mut all, mut stack) = (vec![], 0);
    let mut entry = String::new();
    for line in log.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            entry = rest.split('\'').next().unwrap_or_default().to_string();
        } else if line.contains("bytes stack frame") {
            stack = before(line, " bytes stack frame");
        } else if line.contains("Used ") && line.contains(" registers") {
            all.push(Figures { entry: entry.clone(), registers: before(line, " registers"), shared: before(line, " bytes smem"), stack });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_read() {
        let log = "ptxas info    : 0 bytes gmem\nptxas info    : Compiling entry function 'k' for 'sm_90a'\nptxas info    : Function properties for k\n    8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\nptxas info    : Used 40 registers, used 1 barriers, 8 bytes cumulative stack size, 1024 bytes smem\n";
        assert_eq!(figures(log), [Figures { entry: "k".into(), registers: 40, shared: 1024, stack: 8 }]);
        assert!(faults(log).is_empty());
        let spilled = log.replace(" 0 bytes spill stores", " 4 bytes spill stores");
        assert_eq!(faults(&spilled).len(), 1);
        assert!(faults(&spilled)[0].starts_with("k: "), "{:?}", faults(&spilled));
    }
}
