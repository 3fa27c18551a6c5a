//! Exponentials as CLIF, on one f32 or four, and the few functions in Rust that generated code calls by name.

use attnc_compiler::ops::{Scalar, ScalarOp};
use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{AbiParam, InstBuilder, MemFlagsData, Signature, Type, Value, types};
use cranelift_frontend::FunctionBuilder;
use cranelift_module::Module;

/// log2(e) as a sum of two f32.
const LOG2E: [f32; 2] = [1.442_695, 1.925_963e-8];

/// Minimax polynomial of 2^r for |r| <= 0.5, highest coefficient first; relative error 1.7e-8 after rounding to f32.
const POWER: [f32; 7] = [1.535_305_9e-4, 1.339_967_2e-3, 9.618_443_4e-3, 5.550_330_5e-2, 0.240_226_48, std::f32::consts::LN_2, 1.0];

/// An f32 constant of type `ty`, F32 or a vector of it.
pub(super) fn splat(b: &mut FunctionBuilder<'_>, ty: Type, x: f32) -> Value {
    let x = b.ins().f32const(x);
    if ty.is_vector() { b.ins().splat(ty, x) } else { x }
}

/// An i32 constant with the lanes of `ty`.
fn splat_int(b: &mut FunctionBuilder<'_>, ty: Type, x: i64) -> Value {
    let x = b.ins().iconst(types::I32, x);
    if ty.is_vector() { b.ins().splat(ty.as_int(), x) } else { x }
}

/// `condition(x, y) ? a : b`, lane by lane; all of one type, F32 or a vector of it.
pub(super) fn select(b: &mut FunctionBuilder<'_>, condition: FloatCC, x: Value, y: Value, a: Value, other: Value) -> Value {
    let ty = b.func.dfg.value_type(a);
    let is = b.ins().fcmp(condition, x, y);
    if ty.is_vector() {
        let mask = b.ins().bitcast(ty, MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little), is);
        b.ins().bitselect(mask, a, other)
    } else {
        b.ins().select(is, a, other)
    }
}

/// e to the power x for F32 or a vector of it, at most 2 ulp off, with 0, infinity, NaN and subnormal results as they should be.
pub(super) fn exp(b: &mut FunctionBuilder<'_>, x: Value) -> Value {
    let ty = b.func.dfg.value_type(x);
    // Beyond these the result is 0 or infinite anyway; NaN passes both tests.
    let (low, high) = (splat(b, ty, -160.0), splat(b, ty, 140.0));
    let x = select(b, FloatCC::LessThan, x, low, low, x);
    let x = select(b, FloatCC::GreaterThan, x, high, high, x);
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
    let [major, minor, shift] = [LOG2E[0], LOG2E[1], 12_582_912.0].map(|c| splat(b, ty, c));
    let shifted = b.ins().fma(x, major, shift);
    let n = b.ins().fsub(shifted, shift);
    let minus = b.ins().fneg(n);
    let r = b.ins().fma(x, major, minus);
    let r = b.ins().fma(x, minor, r);
    let mut power = splat(b, ty, POWER[0]);
    for c in &POWER[1..] {
        let c = splat(b, ty, *c);
        power = b.ins().fma(power, r, c);
    }
    // 2^n in two factors, because n may lie outside the exponents of f32 when the result does not.
    let flags = MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little);
    let int = ty.as_int();
    let bits = b.ins().bitcast(int, flags, shifted);
    let origin = splat_int(b, ty, i64::from(12_582_912f32.to_bits() as i32));
    let n = b.ins().isub(bits, origin);
    let bias = splat_int(b, ty, 127);
    let (one, mantissa) = (b.ins().iconst(types::I32, 1), b.ins().iconst(types::I32, 23));
    let half = b.ins().sshr(n, one);
    let rest = b.ins().isub(n, half);
    for exponent in [half, rest] {
        let exponent = b.ins().iadd(exponent, bias);
        let exponent = b.ins().ishl(exponent, mantissa);
        let factor = b.ins().bitcast(ty, flags, exponent);
        power = b.ins().fmul(power, factor);
    }
    power
}

/// `exp(x - m)`, and 0 where `x` is -inf.
pub(super) fn exp_diff(b: &mut FunctionBuilder<'_>, x: Value, m: Value) -> Value {
    let ty = b.func.dfg.value_type(x);
    let difference = b.ins().fsub(x, m);
    let power = exp(b, difference);
    let (gone, zero) = (splat(b, ty, f32::NEG_INFINITY), splat(b, ty, 0.0));
    select(b, FloatCC::Equal, x, gone, zero, power)
}

/// `1 / (1 + exp(-x))` by the exponential of -|x|, which does not overflow.
pub(super) fn sigmoid(b: &mut FunctionBuilder<'_>, x: Value) -> Value {
    let ty = b.func.dfg.value_type(x);
    let (one, zero) = (splat(b, ty, 1.0), splat(b, ty, 0.0));
    let size = b.ins().fabs(x);
    let minus = b.ins().fneg(size);
    let power = exp(b, minus);
    let below = b.ins().fadd(one, power);
    let above = select(b, FloatCC::LessThan, x, zero, power, one);
    b.ins().fdiv(above, below)
}

/// A function by its type.
#[derive(Clone, Copy)]
pub(super) enum Pointer {
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
            Pointer::Int2(f) => f as *const u8,
            Pointer::Bits(f) => f as *const u8,
        }
    }

    pub fn signature(&self, module: &impl Module) -> Signature {
        let (args, result): (&[Type], Type) = match self.pointer {
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
    INT_POW = Int2 int_pow,
    TO_F16 = Bits to_f16,
}

extern "C" fn int_pow(a: i64, b: i64) -> i64 {
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
