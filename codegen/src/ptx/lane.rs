//! Scalar instructions in LLVM IR.
//!
//! The builder's errors (operands of wrong types, a position outside of any block) cannot occur for verified kernels; the first one is
//! kept in `fault`, and an undefined value stands in.

use crate::expand::{Binary, Lane, Unary};
use attnc_compiler::ops::{DType, ScalarOp};
use inkwell::builder::{Builder, BuilderError};
use inkwell::context::Context;
use inkwell::intrinsics::Intrinsic;
use inkwell::module::Module;
use inkwell::types::{BasicTypeEnum, FloatType, IntType};
use inkwell::values::{BasicValue, FastMathFlags, BasicMetadataValueEnum, BasicValueEnum, FloatValue, IntValue};
use inkwell::{FloatPredicate, IntPredicate};

pub(super) type Value<'c> = BasicValueEnum<'c>;

pub(super) struct Writer<'c, 'm> {
    pub context: &'c Context,
    pub module: &'m Module<'c>,
    pub builder: Builder<'c>,
    pub int: IntType<'c>,
    pub truth: IntType<'c>,
    pub real: FloatType<'c>,
    /// Functions of reals by the device's approximations, in kernels whose operands have 16 bits.
    pub fast: bool,
    /// The first thing that LLVM refused.
    pub fault: Option<String>,
}

impl<'c, 'm> Writer<'c, 'm> {
    pub fn new(context: &'c Context, module: &'m Module<'c>) -> Writer<'c, 'm> {
        Writer {
            context,
            module,
            builder: context.create_builder(),
            int: context.i32_type(),
            truth: context.bool_type(),
            real: context.f32_type(),
            fast: false,
            fault: None,
        }
    }

    pub fn refuse(&mut self, what: impl Into<String>) {
        self.fault.get_or_insert_with(|| what.into());
    }

    pub fn done<T>(&mut self, result: Result<T, BuilderError>, instead: T) -> T {
        match result {
            Ok(value) => value,
            Err(e) => {
                self.refuse(e.to_string());
                instead
            }
        }
    }

    pub fn i(&mut self, v: Value<'c>) -> IntValue<'c> {
        if let BasicValueEnum::IntValue(x) = v {
            return x;
        }
        self.refuse(format!("{v} is not an int"));
        self.int.get_undef()
    }

    pub fn f(&mut self, v: Value<'c>) -> FloatValue<'c> {
        if let BasicValueEnum::FloatValue(x) = v {
            return x;
        }
        self.refuse(format!("{v} is not a real"));
        self.real.get_undef()
    }

    /// Calls an intrinsic with a result of type `ty`; `over` are the types that choose its variant.
    pub fn intrinsic(&mut self, name: &str, over: &[BasicTypeEnum<'c>], args: &[BasicMetadataValueEnum<'c>]) -> Option<Value<'c>> {
        let Some(function) = Intrinsic::find(name).and_then(|i| i.get_declaration(self.module, over)) else {
            self.refuse(format!("LLVM has no `{name}`"));
            return None;
        };
        match self.builder.build_call(function, args, "") {
            Ok(call) => call.try_as_basic_value().basic(),
            Err(e) => {
                self.refuse(e.to_string());
                None
            }
        }
    }

    /// An intrinsic of reals with a real result.
    fn real_call(&mut self, name: &str, args: &[Value<'c>]) -> Value<'c> {
        let args: Vec<BasicMetadataValueEnum<'c>> = args.iter().map(|a| (*a).into()).collect();
        let over = [self.real.into()];
        self.intrinsic(name, &over, &args).unwrap_or(self.real.get_undef().into())
    }

    /// Functions in one or two instructions: relative errors near 2^-22 (`tanh` 2^-11), subnormal numbers count as zero.
    fn approximation(&mut self, op: ScalarOp, args: &[Value<'c>]) -> Option<Value<'c>> {
        let log2e = std::f32::consts::LOG2_E;
        match (op, args) {
            (ScalarOp::Exp, [a]) => {
                let scale = self.real(log2e);
                let x = self.binary(Binary::FMul, *a, scale);
                Some(self.real_call("llvm.nvvm.ex2.approx.ftz", &[x]))
            }
            (ScalarOp::ExpDiff, [a, b]) => {
                Some(self.exp_of_scaled(*a, None, *b))
            }
            (ScalarOp::Log, [a]) => {
                let scale = self.real(std::f32::consts::LN_2);
                let x = self.plain_call("llvm.nvvm.lg2.approx.ftz.f", &[*a]);
                Some(self.binary(Binary::FMul, x, scale))
            }
            (ScalarOp::Ratio, [a, b]) => {
                let zero = self.real(0.0);
                let inverse = self.plain_call("llvm.nvvm.rcp.approx.ftz.f", &[*b]);
                let none = self.binary(Binary::FEq, *b, zero);
                let inverse = self.select(none, zero, inverse);
                let x = self.binary(Binary::FMul, *a, inverse);
                // 0 times infinity would not be 0.
                Some(self.select(none, zero, x))
            }
            (ScalarOp::Tanh, [a]) => {
                let x = self.real_call("llvm.tanh", &[*a]);
                // One instruction with this flag; without it LLVM cannot select the function at all.
                let flagged = x.as_instruction_value().is_some_and(|i| i.set_fast_math_flags(FastMathFlags::ApproxFunc).is_ok());
                if !flagged {
                    self.refuse("the hyperbolic tangent cannot be approximate");
                }
                Some(x)
            }
            (ScalarOp::Sigmoid, [a]) => {
                let (scale, one) = (self.real(-log2e), self.real(1.0));
                let x = self.binary(Binary::FMul, *a, scale);
                let x = self.real_call("llvm.nvvm.ex2.approx.ftz", &[x]);
                let x = self.binary(Binary::FAdd, x, one);
                Some(self.plain_call("llvm.nvvm.rcp.approx.ftz.f", &[x]))
            }
            _ => None,
        }
    }

    /// `exp(c x - m)`, 0 where `c x` is minus infinity. Minus infinity in `m` counts as a very small number, so that the difference of two of them
    /// gives zero; only `m` is changed, which is mostly the same for a whole row.
    pub fn exp_of_scaled(&mut self, x: Value<'c>, c: Option<Value<'c>>, m: Value<'c>) -> Value<'c> {
        let log2e = std::f32::consts::LOG2_E;
        let (least, scale, back) = (self.real(-1.0e38), self.real(log2e), self.real(-log2e));
        let m = self.real_call("llvm.maximum", &[m, least]);
        let shift = self.binary(Binary::FMul, m, back);
        let scale = match c {
            Some(c) => self.binary(Binary::FMul, c, scale),
            None => scale,
        };
        let y = self.fma(x, scale, shift);
        self.real_call("llvm.nvvm.ex2.approx.ftz", &[y])
    }

    fn plain_call(&mut self, name: &str, args: &[Value<'c>]) -> Value<'c> {
        let args: Vec<BasicMetadataValueEnum<'c>> = args.iter().map(|a| (*a).into()).collect();
        self.intrinsic(name, &[], &args).unwrap_or(self.real.get_undef().into())
    }

    fn compare_ints(&mut self, p: IntPredicate, a: Value<'c>, b: Value<'c>) -> Value<'c> {
        let (a, b) = (self.i(a), self.i(b));
        let made = self.builder.build_int_compare(p, a, b, "");
        self.done(made, self.truth.get_undef()).into()
    }

    fn compare_reals(&mut self, p: FloatPredicate, a: Value<'c>, b: Value<'c>) -> Value<'c> {
        let (a, b) = (self.f(a), self.f(b));
        let made = self.builder.build_float_compare(p, a, b, "");
        self.done(made, self.truth.get_undef()).into()
    }
}

impl<'c> Lane for Writer<'c, '_> {
    type Value = Value<'c>;

    fn real(&mut self, x: f32) -> Value<'c> {
        self.real.const_float(f64::from(x)).into()
    }

    fn int(&mut self, x: i32) -> Value<'c> {
        self.int.const_int(x as u32 as u64, false).into()
    }

    fn truth(&mut self, x: bool) -> Value<'c> {
        self.truth.const_int(u64::from(x), false).into()
    }

    fn unary(&mut self, op: Unary, a: Value<'c>) -> Value<'c> {
        let (int, real) = (self.int, self.real);
        match op {
            Unary::FNeg => {
                let x = self.f(a);
                let made = self.builder.build_float_neg(x, "");
                self.done(made, x).into()
            }
            Unary::FAbs => self.real_call("llvm.fabs", &[a]),
            Unary::FSqrt => self.real_call("llvm.sqrt", &[a]),
            Unary::FRint => self.real_call("llvm.roundeven", &[a]),
            Unary::FFloor => self.real_call("llvm.floor", &[a]),
            Unary::FCeil => self.real_call("llvm.ceil", &[a]),
            Unary::BNot => {
                let x = self.i(a);
                let made = self.builder.build_not(x, "");
                self.done(made, x).into()
            }
            Unary::IClz => {
                let flag = self.truth.const_zero();
                self.intrinsic("llvm.ctlz", &[int.into()], &[a.into(), flag.into()]).unwrap_or(int.get_undef().into())
            }
            Unary::IToF => {
                let x = self.i(a);
                let made = self.builder.build_signed_int_to_float(x, real, "");
                self.done(made, real.get_undef()).into()
            }
            // The plain conversion is poison out of range; this one is one instruction too.
            Unary::FToI => self.intrinsic("llvm.fptosi.sat", &[int.into(), real.into()], &[a.into()]).unwrap_or(int.get_undef().into()),
            Unary::FBits => {
                let made = self.builder.build_bit_cast(a, int, "");
                self.done(made, a)
            }
            Unary::IBits => {
                let made = self.builder.build_bit_cast(a, real, "");
                self.done(made, a)
            }
            Unary::BToI => {
                let x = self.i(a);
                let made = self.builder.build_int_z_extend(x, int, "");
                self.done(made, x).into()
            }
        }
    }

    fn binary(&mut self, op: Binary, a: Value<'c>, b: Value<'c>) -> Value<'c> {
        match op {
            Binary::FAdd | Binary::FSub | Binary::FMul | Binary::FDiv => {
                let (x, y) = (self.f(a), self.f(b));
                let made = match op {
                    Binary::FAdd => self.builder.build_float_add(x, y, ""),
                    Binary::FSub => self.builder.build_float_sub(x, y, ""),
                    Binary::FMul => self.builder.build_float_mul(x, y, ""),
                    _ => self.builder.build_float_div(x, y, ""),
                };
                self.done(made, x).into()
            }
            Binary::FLt => self.compare_reals(FloatPredicate::OLT, a, b),
            Binary::FLe => self.compare_reals(FloatPredicate::OLE, a, b),
            Binary::FEq => self.compare_reals(FloatPredicate::OEQ, a, b),
            Binary::ILt => self.compare_ints(IntPredicate::SLT, a, b),
            Binary::ILe => self.compare_ints(IntPredicate::SLE, a, b),
            Binary::IEq => self.compare_ints(IntPredicate::EQ, a, b),
            Binary::IAdd | Binary::ISub | Binary::IMul | Binary::IQuot | Binary::IAnd | Binary::BAnd | Binary::IOr | Binary::BOr | Binary::IXor
            | Binary::IShl | Binary::IShr => {
                let (x, y) = (self.i(a), self.i(b));
                let made = match op {
                    Binary::IAdd => self.builder.build_int_add(x, y, ""),
                    Binary::ISub => self.builder.build_int_sub(x, y, ""),
                    Binary::IMul => self.builder.build_int_mul(x, y, ""),
                    Binary::IQuot => self.builder.build_int_signed_div(x, y, ""),
                    Binary::IAnd | Binary::BAnd => self.builder.build_and(x, y, ""),
                    Binary::IOr | Binary::BOr => self.builder.build_or(x, y, ""),
                    Binary::IXor => self.builder.build_xor(x, y, ""),
                    Binary::IShl => self.builder.build_left_shift(x, y, ""),
                    _ => self.builder.build_right_shift(x, y, true, ""),
                };
                self.done(made, x).into()
            }
        }
    }

    fn fma(&mut self, a: Value<'c>, b: Value<'c>, c: Value<'c>) -> Value<'c> {
        self.real_call("llvm.fma", &[a, b, c])
    }

    fn select(&mut self, c: Value<'c>, a: Value<'c>, b: Value<'c>) -> Value<'c> {
        let c = self.i(c);
        let made = self.builder.build_select(c, a, b, "");
        self.done(made, a)
    }

    fn native(&mut self, op: ScalarOp, ty: DType, args: &[Value<'c>]) -> Option<Value<'c>> {
        // One instruction each from sm_80 on, NaN included.
        match (op, ty) {
            (ScalarOp::Min, DType::Real) => Some(self.real_call("llvm.minimum", args)),
            (ScalarOp::Max, DType::Real) => Some(self.real_call("llvm.maximum", args)),
            (_, DType::Real) if self.fast => self.approximation(op, args),
            (_, _) => None,
        }
    }
}
