//! Loads and stores: where arrays lie and how storage formats become values.

use super::ops::{from_bits, to_bits};
use attnc_compiler::kernel::{Kernel, Storage};
use attnc_compiler::ops::DType;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{Endianness, FuncRef, InstBuilder, MemFlagsData, Type, Value, types};
use cranelift_frontend::FunctionBuilder;

/// How an element of a local array lies in scratch.
pub(super) fn local_storage(dtype: DType) -> Storage {
    match dtype {
        DType::Bool => Storage::U8,
        DType::Int => Storage::I64,
        DType::Real | DType::Complex => Storage::F32,
    }
}

/// Byte offsets of the local arrays and the size of them all; `None` when it overflows.
pub(super) fn layout(kernel: &Kernel) -> Option<(Vec<usize>, usize)> {
    let mut offsets = vec![];
    let mut end = 0usize;
    for local in &kernel.locals {
        offsets.push(end);
        let bytes = local.len.checked_mul(local_storage(local.ty).bytes())?;
        end = end.checked_add(bytes)?.checked_next_multiple_of(super::SCRATCH_ALIGN)?;
    }
    i32::try_from(end).ok()?;
    Some((offsets, end))
}

/// Loads the element at `address` (plus a constant `offset` in bytes) as `dtype`.
pub(super) fn load(b: &mut FunctionBuilder<'_>, flags: MemFlagsData, storage: Storage, dtype: DType, address: Value, offset: i32) -> Value {
    let float = |b: &mut FunctionBuilder<'_>, x: Value| match dtype {
        DType::Real | DType::Complex => x,
        DType::Int => b.ins().fcvt_to_sint_sat(types::I64, x),
        DType::Bool => {
            let zero = b.ins().f32const(0.0);
            b.ins().fcmp(FloatCC::NotEqual, x, zero)
        }
    };
    let int = |b: &mut FunctionBuilder<'_>, ty: Type, x: Value| match dtype {
        DType::Int if ty == types::I64 => x,
        DType::Int => b.ins().sextend(types::I64, x),
        DType::Real | DType::Complex => b.ins().fcvt_from_sint(types::F32, x),
        DType::Bool => b.ins().icmp_imm_s(IntCC::NotEqual, x, 0),
    };
    match storage {
        Storage::F32 => {
            let x = b.ins().load(types::F32, flags, address, offset);
            float(b, x)
        }
        Storage::F64 => {
            let x = b.ins().load(types::F64, flags, address, offset);
            match dtype {
                // Rounding to f32 first would move large integers and make tiny values zero.
                DType::Int => b.ins().fcvt_to_sint_sat(types::I64, x),
                DType::Bool => {
                    let zero = b.ins().f64const(0.0);
                    b.ins().fcmp(FloatCC::NotEqual, x, zero)
                }
                DType::Real | DType::Complex => b.ins().fdemote(types::F32, x),
            }
        }
        Storage::Bf16 => {
            let half = b.ins().uload16(types::I32, flags, address, offset);
            let bits = b.ins().ishl_imm_s(half, 16);
            let x = from_bits(b, bits);
            float(b, x)
        }
        Storage::F16 => {
            let half = b.ins().uload16(types::I32, flags, address, offset);
            let x = widen_f16(b, half);
            float(b, x)
        }
        Storage::I64 => {
            let x = b.ins().load(types::I64, flags, address, offset);
            int(b, types::I64, x)
        }
        Storage::I32 => {
            let x = b.ins().load(types::I32, flags, address, offset);
            int(b, types::I32, x)
        }
        Storage::U8 => {
            let x = b.ins().uload8(types::I32, flags, address, offset);
            int(b, types::I32, x)
        }
    }
}

/// Stores `value`, a `dtype`, at `address` (plus a constant `offset` in bytes). `to_f16` rounds to f16.
#[allow(clippy::too_many_arguments)]
pub(super) fn store(b: &mut FunctionBuilder<'_>, flags: MemFlagsData, storage: Storage, dtype: DType, address: Value, offset: i32, value: Value, to_f16: Option<FuncRef>) {
    let as_float = |b: &mut FunctionBuilder<'_>, ty: Type| match dtype {
        DType::Real | DType::Complex if ty == types::F64 => b.ins().fpromote(types::F64, value),
        DType::Real | DType::Complex => value,
        DType::Int => b.ins().fcvt_from_sint(ty, value),
        DType::Bool => {
            let wide = b.ins().uextend(types::I32, value);
            b.ins().fcvt_from_sint(ty, wide)
        }
    };
    let as_int = |b: &mut FunctionBuilder<'_>| match dtype {
        DType::Int => value,
        DType::Bool => b.ins().uextend(types::I64, value),
        DType::Real | DType::Complex => b.ins().fcvt_to_sint_sat(types::I64, value),
    };
    match storage {
        Storage::F32 => {
            let x = as_float(b, types::F32);
            b.ins().store(flags, x, address, offset);
        }
        Storage::F64 => {
            let x = as_float(b, types::F64);
            b.ins().store(flags, x, address, offset);
        }
        Storage::Bf16 => {
            let x = as_float(b, types::F32);
            let bits = narrow_bf16(b, x);
            b.ins().istore16(flags, bits, address, offset);
        }
        Storage::F16 => {
            let x = as_float(b, types::F32);
            if let Some(to_f16) = to_f16 {
                let call = b.ins().call(to_f16, &[x]);
                let bits = b.inst_results(call)[0];
                b.ins().istore16(flags, bits, address, offset);
            }
        }
        Storage::I64 => {
            let x = as_int(b);
            b.ins().store(flags, x, address, offset);
        }
        Storage::I32 => {
            let x = as_int(b);
            b.ins().istore32(flags, x, address, offset);
        }
        Storage::U8 => {
            let x = match dtype {
                DType::Bool => value,
                DType::Int | DType::Real | DType::Complex => {
                    let wide = as_int(b);
                    b.ins().ireduce(types::I8, wide)
                }
            };
            b.ins().store(flags, x, address, offset);
        }
    }
}

/// f16 bits (in an i32) to f32: the exponent is moved by a product, which also normalises subnormals; infinities and NaNs get the
/// exponent 255 by hand.
fn widen_f16(b: &mut FunctionBuilder<'_>, half: Value) -> Value {
    let magnitude = b.ins().band_imm_s(half, 0x7fff);
    let shifted = b.ins().ishl_imm_s(magnitude, 13);
    let small = from_bits(b, shifted);
    let factor = b.ins().f32const(f32::from_bits(0x7780_0000));
    let scaled = b.ins().fmul(small, factor);
    let scaled = to_bits(b, scaled);
    let special = b.ins().bor_imm_s(shifted, 0x7f80_0000);
    let is_special = b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, magnitude, 0x7c00);
    let magnitude = b.ins().select(is_special, special, scaled);
    let sign = b.ins().band_imm_s(half, 0x8000);
    let sign = b.ins().ishl_imm_s(sign, 16);
    let bits = b.ins().bor(magnitude, sign);
    from_bits(b, bits)
}

/// f32 to bf16 bits (in an i32), to nearest even; NaN stays NaN.
fn narrow_bf16(b: &mut FunctionBuilder<'_>, x: Value) -> Value {
    let bits = to_bits(b, x);
    let high = b.ins().ushr_imm_s(bits, 16);
    let odd = b.ins().band_imm_s(high, 1);
    let rounded = b.ins().iadd_imm_s(bits, 0x7fff);
    let rounded = b.ins().iadd(rounded, odd);
    let rounded = b.ins().ushr_imm_s(rounded, 16);
    let quiet = b.ins().bor_imm_s(high, 0x40);
    let nan = b.ins().fcmp(FloatCC::Unordered, x, x);
    b.ins().select(nan, quiet, rounded)
}

/// The same for f32x4: four bf16 in an i64.
pub(super) fn narrow_bf16x4(b: &mut FunctionBuilder<'_>, x: Value) -> Value {
    let four = |b: &mut FunctionBuilder<'_>, v: i64| {
        let v = b.ins().iconst(types::I32, v);
        b.ins().splat(types::I32X4, v)
    };
    let little = MemFlagsData::new().with_endianness(Endianness::Little);
    let bits = b.ins().bitcast(types::I32X4, little, x);
    let sixteen = b.ins().iconst(types::I32, 16);
    let high = b.ins().ushr(bits, sixteen);
    let (one, half, quiet) = (four(b, 1), four(b, 0x7fff), four(b, 0x40));
    let odd = b.ins().band(high, one);
    let rounded = b.ins().iadd(bits, half);
    let rounded = b.ins().iadd(rounded, odd);
    let rounded = b.ins().ushr(rounded, sixteen);
    let quiet = b.ins().bor(high, quiet);
    let nan = b.ins().fcmp(FloatCC::Unordered, x, x);
    let halves = b.ins().bitselect(nan, quiet, rounded);
    let packed = b.ins().unarrow(halves, halves);
    let packed = b.ins().bitcast(types::I64X2, little, packed);
    b.ins().extractlane(packed, 0)
}
