//! The command line as data.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Compiler for attention-like computations over named axes.
///
/// A program (`.attn`) says what is computed; `attnc` derives fused kernels for a processor, a WebGPU device or an NVIDIA GPU.
/// Errors go to stderr. Exit status: 0 done, 1 bad program or bad input, 2 wrong command line, 101 an error inside attnc.
#[derive(Debug, Parser)]
#[command(name = "attnc", version, max_term_width = 110, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check programs and print diagnostics; nothing is written
    Check(CheckArgs),
    /// Compile a kernel: files and a manifest for the runtime, or any stage as text
    Compile(CompileArgs),
    /// Run a kernel on tensors from a safetensors file
    Run(RunArgs),
    /// Measure a kernel: median time, GFLOP/s, GB/s, share of this machine's copy rate
    Bench(BenchArgs),
    /// Tell what was derived from a program, or what a diagnostic code (A0101) means
    Explain(ExplainArgs),
    /// Print a program with regular spacing and indentation
    Fmt(FmtArgs),
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Programs to check
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Form of the diagnostics: text on stderr, or one JSON object a line on stdout
    #[arg(long, value_enum, default_value_t = MessageFormat::Text)]
    pub message_format: MessageFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MessageFormat {
    Text,
    Json,
}

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RunTarget {
    /// Reference interpreter in f64: the meaning, slow
    Interp,
    /// Machine code for this processor
    Cpu,
    /// A WebGPU device
    Wgsl,
    /// An NVIDIA GPU
    Ptx,
}

/// What code is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompileTarget {
    /// Machine code for this processor (Cranelift)
    Cpu,
    /// WebGPU shaders (naga)
    Wgsl,
    /// Assembly for NVIDIA GPUs (LLVM)
    Ptx,
}

impl CompileTarget {
    pub fn name(self) -> &'static str {
        match self {
            CompileTarget::Cpu => "cpu",
            CompileTarget::Wgsl => "wgsl",
            CompileTarget::Ptx => "ptx",
        }
    }
}

/// A stage on the way from text to code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// What was written
    Ast,
    /// What is computed
    Graph,
    /// Which loops, blocks and memory
    Tiles,
    /// What each lane does
    Kernel,
    /// Cranelift IR
    Clif,
    /// LLVM IR
    Llvm,
    Wgsl,
    Ptx,
}

impl Emit {
    pub fn name(self) -> &'static str {
        match self {
            Emit::Ast => "ast",
            Emit::Graph => "graph",
            Emit::Tiles => "tiles",
            Emit::Kernel => "kernel",
            Emit::Clif => "clif",
            Emit::Llvm => "llvm",
            Emit::Wgsl => "wgsl",
            Emit::Ptx => "ptx",
        }
    }

    /// The target whose code it is.
    pub fn code_of(self) -> Option<CompileTarget> {
        match self {
            Emit::Ast | Emit::Graph | Emit::Tiles | Emit::Kernel => None,
            Emit::Clif => Some(CompileTarget::Cpu),
            Emit::Llvm | Emit::Ptx => Some(CompileTarget::Ptx),
            Emit::Wgsl => Some(CompileTarget::Wgsl),
        }
    }
}

#[derive(Debug, Args)]
pub struct CompileArgs {
    /// Program
    pub file: PathBuf,
    /// What to make code for
    #[arg(long, value_enum)]
    pub target: CompileTarget,
    /// Model of the target (sm_90a)
    #[arg(long)]
    pub arch: Option<String>,
    /// Storage of reals in memory (targets that compute in f32 from it: ptx)
    #[arg(long, value_enum)]
    pub dtype: Option<RealType>,
    /// Print these stages to stdout, separated by commas; without -o the code is printed when nothing is said
    #[arg(long, value_enum, value_delimiter = ',')]
    pub emit: Vec<Emit>,
    /// Extent of an axis (d=64), or the value of a scalar that decides extents; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub set: Vec<Setting>,
    /// Kernel to compile, when the program has several
    #[arg(long, value_name = "NAME")]
    pub kernel: Option<String>,
    /// Folder for the kernel files and manifest.json
    #[arg(short = 'o', long = "out-dir", value_name = "DIR")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Program
    pub file: PathBuf,
    /// Where to run
    #[arg(long, value_enum)]
    pub target: RunTarget,
    /// Tensors by the names of the kernel's inputs (F32, F64, BF16, F16, I64, I32, U8)
    #[arg(long = "in", value_name = "IN.safetensors")]
    pub input: Option<PathBuf>,
    /// File for the outputs, replaced as a whole; untouched when anything fails
    #[arg(long = "out", value_name = "OUT.safetensors")]
    pub output: PathBuf,
    /// Value of a scalar input, or the extent of an axis; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub set: Vec<Setting>,
    /// Kernel to run, when the program has several
    #[arg(long, value_name = "NAME")]
    pub kernel: Option<String>,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Program
    pub file: PathBuf,
    /// Where to run
    #[arg(long, value_enum)]
    pub target: RunTarget,
    /// Extent of an axis (t=8192) for the random inputs; may be repeated
    #[arg(long, value_name = "AXIS=N", value_parser = setting)]
    pub size: Vec<Setting>,
    /// Value of a scalar input; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub set: Vec<Setting>,
    /// Take the tensors from this file instead of random ones
    #[arg(long = "in", value_name = "IN.safetensors")]
    pub input: Option<PathBuf>,
    /// How random reals are stored, or how those of the file are converted before the clock starts
    #[arg(long, value_enum)]
    pub dtype: Option<RealType>,
    /// Also write the results of the last run to this file
    #[arg(long = "out", value_name = "OUT.safetensors")]
    pub output: Option<PathBuf>,
    /// Kernel to measure, when the program has several
    #[arg(long, value_name = "NAME")]
    pub kernel: Option<String>,
    /// Most runs
    #[arg(long, default_value_t = 200)]
    pub runs: usize,
    /// Time after which no further run starts, in seconds
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub seconds: f64,
    /// One JSON object on stdout instead of text
    #[arg(long)]
    pub json: bool,
    /// Leave out what matrix products and copies reach on their own, which takes a second or two
    #[arg(long)]
    pub brief: bool,
}

/// Storage of reals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RealType {
    F32,
    Bf16,
    F16,
}

impl RealType {
    pub fn storage(self) -> attnc_runtime::Storage {
        match self {
            RealType::F32 => attnc_runtime::Storage::F32,
            RealType::Bf16 => attnc_runtime::Storage::Bf16,
            RealType::F16 => attnc_runtime::Storage::F16,
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|s| (0.0..=86400.0).contains(s)).ok_or_else(|| "expected a number of seconds from 0 to 86400".to_string())
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Program, or the code of a diagnostic
    #[arg(value_name = "FILE|CODE")]
    pub what: String,
    /// Draw kernels, buffers and the tile classes of masks instead (SVG on stdout)
    #[arg(long)]
    pub svg: bool,
    /// Target to explain kernels for
    #[arg(long, value_enum, default_value_t = CompileTarget::Cpu)]
    pub target: CompileTarget,
    /// Storage of reals in memory (targets that compute in f32 from it: ptx)
    #[arg(long, value_enum)]
    pub dtype: Option<RealType>,
    /// Extent of an axis (d=64; 64 for feature axes when nothing is said), or the value of a scalar
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub set: Vec<Setting>,
    /// Only this kernel
    #[arg(long, value_name = "NAME")]
    pub kernel: Option<String>,
}

#[derive(Debug, Args)]
pub struct FmtArgs {
    /// Programs to format in place
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Only tell which files would change (exit status 1 when there are any)
    #[arg(long)]
    pub check: bool,
}

/// `NAME=VALUE` of `--set`; the program decides the type of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    pub value: String,
}

fn setting(text: &str) -> Result<Setting, String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() || value.is_empty() {
        return Err("expected NAME=VALUE, both not empty".to_string());
    }
    Ok(Setting { name: name.to_string(), value: value.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_need_a_name_and_a_value() {
        assert_eq!(setting("scale=1e-3"), Ok(Setting { name: "scale".into(), value: "1e-3".into() }));
        for bad in ["scale", "=1", "scale=", " = "] {
            assert!(setting(bad).is_err(), "{bad}");
        }
    }
}
