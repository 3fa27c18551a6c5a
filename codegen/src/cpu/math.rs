//! Scalar functions in Rust that generated code calls. They compute in f64 and round once, so they err by less than one ulp of f32.

use attnc_compiler::ops::erf;
use cranelift_codegen::ir::{AbiParam, Signature, Type, types};
use cranelift_module::Module;

/// A function by its type.
#[derive(Clone, Copy)]
pub(super) enum Pointer {
    Real1(extern "C" fn(f32) -> f32),
    Real2(extern "C" fn(f32, f32) -> f32),
    Int2(extern "C" fn(i64, i64) -> i64),
    /// Real to the bits of another format.
    Bits(extern "C" fn(f32) -> u32),
}

/// A function that kernels may call.
pub(super) struct Helper {
    pub name: &'static str,
    pointer: Pointer,
}

impl Helper {
    pub fn address(&self) -> *const u8 {
        match self.pointer {
            Pointer::Real1(f) => f as *const u8,
            Pointer::Real2(f) => f as *const u8,
            Pointer::Int2(f) => f as *const u8,
            Pointer::Bits(f) => f as *const u8,
        }
    }

    pub fn signature(&self, module: &impl Module) -> Signature {
        let (args, result): (&[Type], Type) = match self.pointer {
            Pointer::Real1(_) => (&[types::F32], types::F32),
            Pointer::Real2(_) => (&[types::F32, types::F32], types::F32),
            Pointer::Int2(_) => (&[types::I64, types::I64], types::I64),
            Pointer::Bits(_) => (&[types::F32], types::I32),
        };
        let mut signature = module.make_signature();
        signature.params.extend(args.iter().map(|t| AbiParam::new(*t)));
        signature.returns.push(AbiParam::new(result));
        signature
    }
}

macro_rules! helpers {
    ($( $constant:ident = $kind:ident $function:ident ),* $(,)?) => {
        $( pub(super) static $constant: Helper = Helper { name: concat!("attnc_", stringify!($function)), pointer: Pointer::$kind($function) }; )*
        /// All functions that kernels may call.
        pub(super) static FUNCTIONS: &[&Helper] = &[ $( &$constant ),* ];
    };
}

helpers! {
    EXP = Real1 exp,
    LOG = Real1 log,
    LOG1P = Real1 log1p,
    TANH = Real1 tanh,
    SIGMOID = Real1 sigmoid,
    SOFTPLUS = Real1 softplus,
    SIN = Real1 sin,
    COS = Real1 cos,
    ERF = Real1 erf_f32,
    POW = Real2 pow,
    INT_POW = Int2 int_pow,
    TO_F16 = Bits to_f16,
}

extern "C" fn exp(x: f32) -> f32 {
    f64::from(x).exp() as f32
}

extern "C" fn log(x: f32) -> f32 {
    f64::from(x).ln() as f32
}

extern "C" fn log1p(x: f32) -> f32 {
    f64::from(x).ln_1p() as f32
}

extern "C" fn tanh(x: f32) -> f32 {
    f64::from(x).tanh() as f32
}

extern "C" fn sigmoid(x: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(x)).exp())) as f32
}

extern "C" fn softplus(x: f32) -> f32 {
    if x.is_nan() { x } else { (f64::from(x.max(0.0)) + (-f64::from(x.abs())).exp().ln_1p()) as f32 }
}

extern "C" fn sin(x: f32) -> f32 {
    f64::from(x).sin() as f32
}

extern "C" fn cos(x: f32) -> f32 {
    f64::from(x).cos() as f32
}

extern "C" fn erf_f32(x: f32) -> f32 {
    erf(f64::from(x)) as f32
}

extern "C" fn pow(a: f32, b: f32) -> f32 {
    f64::from(a).powf(f64::from(b)) as f32
}

extern "C" fn int_pow(a: i64, b: i64) -> i64 {
    use attnc_compiler::ops::{Scalar, ScalarOp};
    match ScalarOp::Pow.eval(&[Scalar::Int(a), Scalar::Int(b)]) {
        Some(Scalar::Int(x)) => x,
        Some(Scalar::Bool(_) | Scalar::Real(_) | Scalar::Complex(..)) | None => 0,
    }
}

/// Bits of the nearest f16, ties to even; NaN stays NaN, large values become infinite.
extern "C" fn to_f16(x: f32) -> u32 {
    let bits = x.to_bits();
    let sign = bits >> 16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00;
    }
    if magnitude >= 0x4780_0000 {
        return sign | 0x7c00;
    }
    if magnitude < 0x3880_0000 {
        // Subnormal in f16: count units of 2^-24; the product is exact and the rounding is the only one.
        return sign | (f32::from_bits(magnitude) * 16_777_216.0).round_ties_even() as u32;
    }
    let rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    sign | (rounded - 0x3800_0000) >> 13
}
