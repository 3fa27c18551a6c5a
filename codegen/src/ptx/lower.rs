//! Statements of a kernel to basic blocks. Carried values are stack slots, which LLVM turns into registers.

use super::address;
use super::emit::{fail, unsupported};
use super::lane::{Value as Llvm, Writer};
use super::warp::State;
use crate::EmitError;
use crate::expand::{self, Binary, Lane, narrow};
use attnc_compiler::kernel::{Base, Inst, Kernel, Space, Stmt, Storage, Value};
use attnc_compiler::ops::{DType, Scalar};
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::basic_block::BasicBlock;
use inkwell::builder::Builder;
use inkwell::context::Context;
use inkwell::module::{Linkage, Module};
use inkwell::types::{BasicMetadataTypeEnum, BasicType, BasicTypeEnum};
use inkwell::values::{FunctionValue, IntValue, PointerValue};
use inkwell::{AddressSpace, IntPredicate};

/// Calling convention of entries.
const PTX_KERNEL: u32 = 71;
const GLOBAL: u16 = 1;
const SHARED: u16 = 3;

pub(super) struct Lower<'c, 'm, 'k> {
    pub(super) kernel: &'k Kernel,
    pub(super) w: Writer<'c, 'm>,
    function: FunctionValue<'c>,
    /// Writes stack slots into the first block.
    pub(super) slots: Builder<'c>,
    pub(super) buffers: Vec<PointerValue<'c>>,
    /// Start of a shared array, or of this block's part of an array in the workspace.
    locals: Vec<PointerValue<'c>>,
    pub(super) block: Llvm<'c>,
    pub(super) lane: Llvm<'c>,
    ints: Vec<Llvm<'c>>,
    reals: Vec<Llvm<'c>>,
    values: Vec<Option<Llvm<'c>>>,
    pub(super) roles: Option<State<'c>>,
}

/// Adds a verified kernel to the module. Errors: [`EmitError::Unsupported`], [`EmitError::Backend`].
pub(super) fn lower<'c>(context: &'c Context, module: &Module<'c>, kernel: &Kernel, entry: &str) -> Result<(), EmitError> {
    let broken = |e: &dyn std::fmt::Display| fail(&kernel.name, e);
    let mut w = Writer::new(context, module);
    let (global, shared) = (context.ptr_type(AddressSpace::from(GLOBAL)), AddressSpace::from(SHARED));
    let mut params: Vec<BasicMetadataTypeEnum<'c>> = vec![global.into(); kernel.buffers.len() + 1];
    params.extend(vec![BasicMetadataTypeEnum::from(w.int); kernel.ints.len() + 1]);
    params.extend(vec![BasicMetadataTypeEnum::from(w.real); kernel.reals.len()]);
    let maps = kernel.warps.as_ref().map_or(0, |w| w.maps.len());
    let first_map = params.len() as u32;
    params.extend(vec![BasicMetadataTypeEnum::from(context.ptr_type(AddressSpace::default())); maps]);
    let function = module.add_function(entry, context.void_type().fn_type(&params, false), None);
    function.set_call_conventions(PTX_KERNEL);
    function.add_attribute(AttributeLoc::Function, context.create_string_attribute("nvvm.maxntid", &kernel.lanes.to_string()));
    // Without it ptxas aims at a full processor: 32 registers a thread, and the rest spilled.
    function.add_attribute(AttributeLoc::Function, context.create_string_attribute("nvvm.minctasm", "1"));
    if kernel.warps.is_some() {
        w.fast = true;
        function.add_attribute(AttributeLoc::Function, context.create_string_attribute("denormal-fp-math-f32", "preserve-sign"));
        let map = context.i8_type().array_type(128);
        for i in first_map..first_map + maps as u32 {
            let at = AttributeLoc::Param(i);
            function.add_attribute(at, context.create_type_attribute(Attribute::get_named_enum_kind_id("byval"), map.into()));
            function.add_attribute(at, context.create_enum_attribute(Attribute::get_named_enum_kind_id("align"), 64));
            function.add_attribute(at, context.create_string_attribute("nvvm.grid_constant", ""));
        }
    }
    for name in ["convergent", "nounwind"] {
        function.add_attribute(AttributeLoc::Function, context.create_enum_attribute(Attribute::get_named_enum_kind_id(name), 0));
    }
    let first_block = context.append_basic_block(function, "slots");
    let start = context.append_basic_block(function, "start");
    let slots = context.create_builder();
    slots.position_at_end(first_block);
    w.builder.position_at_end(start);

    let mut given = function.get_param_iter();
    let mut pointers = vec![];
    for param in given.by_ref().take(kernel.buffers.len() + 1) {
        if let Llvm::PointerValue(p) = param {
            pointers.push(p);
        }
    }
    let workspace = pointers.pop().ok_or_else(|| broken(&"parameters"))?;
    let first = given.next().ok_or_else(|| broken(&"parameters"))?;
    let ints: Vec<Llvm<'c>> = given.by_ref().take(kernel.ints.len()).collect();
    let reals: Vec<Llvm<'c>> = given.by_ref().take(kernel.reals.len()).collect();
    let maps: Vec<PointerValue<'c>> = given.filter_map(|p| if let Llvm::PointerValue(p) = p { Some(p) } else { None }).collect();
    let place = w.intrinsic("llvm.nvvm.read.ptx.sreg.ctaid.x", &[], &[]).ok_or_else(|| broken(&"block index"))?;
    let lane = w.intrinsic("llvm.nvvm.read.ptx.sreg.tid.x", &[], &[]).ok_or_else(|| broken(&"lane index"))?;
    let block = w.binary(Binary::IAdd, first, place);

    let words: usize = kernel.locals.iter().filter(|l| l.space == Space::Workspace).map(|l| l.len).sum();
    let long = context.i64_type();
    let wide = {
        let place = w.i(place);
        let made = w.builder.build_int_z_extend(place, long, "");
        let place = w.done(made, long.get_undef());
        let made = w.builder.build_int_mul(place, long.const_int(words as u64, false), "");
        w.done(made, place)
    };
    let mut used = 0u64;
    let mut locals = vec![];
    for (i, local) in kernel.locals.iter().enumerate() {
        let element: BasicTypeEnum<'c> = if local.ty == DType::Real { w.real.into() } else { w.int.into() };
        locals.push(match local.space {
            Space::Shared => {
                let len = u32::try_from(local.len).map_err(|_| unsupported(kernel, format!("array `{}` is too long", local.name)))?;
                let ty = element.array_type(len.max(1));
                let global = module.add_global(ty, Some(shared), &format!("{entry}_s{i}"));
                global.set_linkage(Linkage::Internal);
                global.set_initializer(&ty.get_undef());
                global.set_alignment(16);
                global.as_pointer_value()
            }
            Space::Workspace => {
                let made = w.builder.build_int_add(wide, long.const_int(used, false), "");
                let at = w.done(made, wide);
                used += local.len as u64;
                address::element(&w.builder, element, workspace, at).map_err(|e| broken(&e))?
            }
        });
    }
    let values = vec![None; kernel.types.len()];
    let mut lower = Lower { kernel, w, function, slots, buffers: pointers, locals, block, lane, ints, reals, values, roles: None };
    if kernel.warps.is_some() {
        lower.open_roles(maps)?;
    }
    lower.stmts(&kernel.body)?;
    lower.w.builder.build_return(None).map_err(|e| broken(&e))?;
    lower.slots.build_unconditional_branch(start).map_err(|e| broken(&e))?;
    match lower.w.fault {
        Some(what) => Err(broken(&what)),
        None => Ok(()),
    }
}

impl<'c> Lower<'c, '_, '_> {
    pub(super) fn broken(&self, e: impl std::fmt::Display) -> EmitError {
        fail(&self.kernel.name, e)
    }

    pub(super) fn get(&self, v: Value) -> Result<Llvm<'c>, EmitError> {
        let found = self.values.get(v.0 as usize).copied().flatten();
        found.ok_or_else(|| EmitError::Invalid { kernel: self.kernel.name.clone(), faults: vec![format!("{v} is not defined")] })
    }

    pub(super) fn set(&mut self, v: Value, value: Llvm<'c>) {
        if let Some(slot) = self.values.get_mut(v.0 as usize) {
            *slot = Some(value);
        }
    }

    fn ty(&self, dtype: DType) -> BasicTypeEnum<'c> {
        match dtype {
            DType::Real | DType::Complex => self.w.real.into(),
            DType::Int => self.w.int.into(),
            DType::Bool => self.w.truth.into(),
        }
    }

    /// A stack slot that holds `init`.
    pub(super) fn slot(&mut self, ty: BasicTypeEnum<'c>, init: Llvm<'c>) -> Result<PointerValue<'c>, EmitError> {
        let slot = self.slots.build_alloca(ty, "").map_err(|e| self.broken(e))?;
        self.w.builder.build_store(slot, init).map_err(|e| self.broken(e))?;
        Ok(slot)
    }

    pub(super) fn load(&self, ty: BasicTypeEnum<'c>, pointer: PointerValue<'c>) -> Result<Llvm<'c>, EmitError> {
        self.w.builder.build_load(ty, pointer, "").map_err(|e| self.broken(e))
    }

    pub(super) fn fresh(&self, name: &str) -> BasicBlock<'c> {
        self.w.context.append_basic_block(self.function, name)
    }

    pub(super) fn go(&self, to: BasicBlock<'c>) -> Result<(), EmitError> {
        self.w.builder.build_unconditional_branch(to).map(|_| ()).map_err(|e| self.broken(e))
    }

    pub(super) fn branch(&mut self, condition: Llvm<'c>, then: BasicBlock<'c>, other: BasicBlock<'c>) -> Result<(), EmitError> {
        let condition = self.w.i(condition);
        self.w.builder.build_conditional_branch(condition, then, other).map(|_| ()).map_err(|e| self.broken(e))
    }

    pub(super) fn stmts(&mut self, body: &[Stmt]) -> Result<(), EmitError> {
        for stmt in body {
            match stmt {
                Stmt::Let(v, inst) => {
                    let value = self.inst(inst)?;
                    self.set(*v, value);
                }
                Stmt::Store { base, index, value } => {
                    let (index, value) = (self.get(*index)?, self.get(*value)?);
                    self.store(*base, index, value)?;
                }
                Stmt::For { var, lo, hi, step, carries, body } => {
                    let (lo, hi, step) = (self.get(*lo)?, self.get(*hi)?, self.get(*step)?);
                    let int = self.w.int.into();
                    let counter = self.slot(int, lo)?;
                    let mut carried = vec![];
                    for c in carries {
                        let (ty, init) = (self.ty(self.kernel.ty(c.param)), self.get(c.init)?);
                        carried.push((ty, self.slot(ty, init)?));
                    }
                    let (head, inside, after) = (self.fresh("head"), self.fresh("body"), self.fresh("after"));
                    self.go(head)?;
                    self.w.builder.position_at_end(head);
                    let now = self.load(int, counter)?;
                    let goes_on = self.w.binary(Binary::ILt, now, hi);
                    self.branch(goes_on, inside, after)?;
                    self.w.builder.position_at_end(inside);
                    self.set(*var, now);
                    for (c, (ty, slot)) in carries.iter().zip(&carried) {
                        let value = self.load(*ty, *slot)?;
                        self.set(c.param, value);
                    }
                    self.stmts(body)?;
                    for (c, (_, slot)) in carries.iter().zip(&carried) {
                        let value = self.get(c.next)?;
                        self.w.builder.build_store(*slot, value).map_err(|e| self.broken(e))?;
                    }
                    let next = self.w.binary(Binary::IAdd, now, step);
                    self.w.builder.build_store(counter, next).map_err(|e| self.broken(e))?;
                    self.go(head)?;
                    self.w.builder.position_at_end(after);
                    for (c, (ty, slot)) in carries.iter().zip(&carried) {
                        let value = self.load(*ty, *slot)?;
                        self.set(c.result, value);
                    }
                }
                Stmt::If { cond, then, other } => {
                    let condition = self.get(*cond)?;
                    let (yes, no, after) = (self.fresh("then"), self.fresh("else"), self.fresh("after"));
                    self.branch(condition, yes, no)?;
                    for (block, arm) in [(yes, then), (no, other)] {
                        self.w.builder.position_at_end(block);
                        self.stmts(arm)?;
                        self.go(after)?;
                    }
                    self.w.builder.position_at_end(after);
                }
                Stmt::Barrier => {
                    let which = self.w.int.const_zero();
                    self.w.intrinsic("llvm.nvvm.barrier.cta.sync.aligned.all", &[], &[which.into()]);
                }
                Stmt::Warp(op) => self.warp_op(op)?,
                Stmt::Tile(call) => return Err(unsupported(self.kernel, format!("it has a tile call `{}`", call.name()))),
            }
        }
        Ok(())
    }

    fn inst(&mut self, inst: &Inst) -> Result<Llvm<'c>, EmitError> {
        let argument = |list: &[Llvm<'c>], i: u32| list.get(i as usize).copied();
        let missing = || fail(&self.kernel.name, "an argument is missing");
        Ok(match inst {
            Inst::Const(Scalar::Real(x)) => self.w.real(*x as f32),
            Inst::Const(Scalar::Int(x)) => self.w.int(narrow(*x)),
            Inst::Const(Scalar::Bool(x)) => self.w.truth(*x),
            Inst::Const(Scalar::Complex(..)) => return Err(unsupported(self.kernel, "it has complex values")),
            Inst::IntArg(i) => argument(&self.ints, *i).ok_or_else(missing)?,
            Inst::RealArg(i) => argument(&self.reals, *i).ok_or_else(missing)?,
            Inst::Block => self.block,
            Inst::Lane => self.lane,
            Inst::Op { op, args } => {
                let values = args.iter().map(|a| self.get(*a)).collect::<Result<Vec<_>, _>>()?;
                let ty = args.first().map_or(DType::Bool, |a| self.kernel.ty(*a));
                let value = expand::expand(&mut self.w, *op, ty, &values);
                value.ok_or_else(|| unsupported(self.kernel, format!("it has `{}` of {}", op.name(), ty.name())))?
            }
            Inst::Load { base, index } => {
                let index = self.get(*index)?;
                self.read(*base, index)?
            }
        })
    }

    /// Start of an array, dtype, and storage (`None`: a word of local memory).
    fn array(&self, base: Base) -> Result<(PointerValue<'c>, DType, Option<Storage>), EmitError> {
        let found = match base {
            Base::Buffer(b) => self.kernel.buffers.get(b.0 as usize).zip(self.buffers.get(b.0 as usize)).map(|(b, p)| (*p, b.ty, Some(b.storage))),
            Base::Local(l) => self.kernel.locals.get(l.0 as usize).zip(self.locals.get(l.0 as usize)).map(|(l, p)| (*p, l.ty, None)),
        };
        found.ok_or_else(|| self.broken(format!("{base:?} does not exist")))
    }

    /// Pointer to an element of type `ty`.
    fn element(&mut self, ty: BasicTypeEnum<'c>, base: PointerValue<'c>, index: Llvm<'c>) -> Result<PointerValue<'c>, EmitError> {
        let index = self.w.i(index);
        let long = self.w.builder.build_int_s_extend(index, self.w.context.i64_type(), "").map_err(|e| self.broken(e))?;
        address::element(&self.w.builder, ty, base, long).map_err(|e| self.broken(e))
    }

    fn bits(&self, bytes: usize) -> inkwell::types::IntType<'c> {
        match bytes {
            1 => self.w.context.i8_type(),
            2 => self.w.context.i16_type(),
            8 => self.w.context.i64_type(),
            _ => self.w.context.i32_type(),
        }
    }

    fn mismatch(&self, ty: DType, storage: Storage) -> EmitError {
        unsupported(self.kernel, format!("a buffer holds {} as {storage:?}", ty.name()))
    }

    fn is_nonzero(&mut self, x: IntValue<'c>) -> Result<Llvm<'c>, EmitError> {
        let zero = x.get_type().const_zero();
        Ok(self.w.builder.build_int_compare(IntPredicate::NE, x, zero, "").map_err(|e| self.broken(e))?.into())
    }

    fn read(&mut self, base: Base, index: Llvm<'c>) -> Result<Llvm<'c>, EmitError> {
        let (start, ty, storage) = self.array(base)?;
        let (real, int) = (self.w.real, self.w.int);
        let Some(storage) = storage else {
            let element: BasicTypeEnum<'c> = if ty == DType::Real { real.into() } else { int.into() };
            let pointer = self.element(element, start, index)?;
            let loaded = self.load(element, pointer)?;
            if ty != DType::Bool {
                return Ok(loaded);
            }
            let word = self.w.i(loaded);
            return self.is_nonzero(word);
        };
        let element: BasicTypeEnum<'c> = match storage {
            Storage::F32 => real.into(),
            Storage::F64 => self.w.context.f64_type().into(),
            Storage::F16 => self.w.context.f16_type().into(),
            Storage::Bf16 | Storage::I64 | Storage::I32 | Storage::U8 => self.bits(storage.bytes()).into(),
        };
        let pointer = self.element(element, start, index)?;
        let loaded = self.load(element, pointer)?;
        let broken = |e: inkwell::builder::BuilderError| fail(&self.kernel.name, e);
        Ok(match (ty, storage) {
            (DType::Real, Storage::F32) => loaded,
            (DType::Real, Storage::F64) => {
                let x = self.w.f(loaded);
                self.w.builder.build_float_trunc(x, real, "").map_err(broken)?.into()
            }
            (DType::Real, Storage::F16) => {
                let x = self.w.f(loaded);
                self.w.builder.build_float_ext(x, real, "").map_err(broken)?.into()
            }
            (DType::Real, Storage::Bf16) => {
                let x = self.w.i(loaded);
                let wide = self.w.builder.build_int_z_extend(x, int, "").map_err(broken)?;
                let sixteen = self.w.int(16);
                let high = self.w.binary(Binary::IShl, wide.into(), sixteen);
                self.w.unary(expand::Unary::IBits, high)
            }
            (DType::Int, Storage::I32) => loaded,
            (DType::Int, Storage::I64) => {
                let x = self.w.i(loaded);
                self.w.builder.build_int_truncate(x, int, "").map_err(broken)?.into()
            }
            (DType::Int, Storage::U8) => {
                let x = self.w.i(loaded);
                self.w.builder.build_int_z_extend(x, int, "").map_err(broken)?.into()
            }
            (DType::Bool, Storage::U8 | Storage::I32 | Storage::I64) => {
                let x = self.w.i(loaded);
                return self.is_nonzero(x);
            }
            (DType::Real, Storage::I64 | Storage::I32 | Storage::U8)
            | (DType::Int | DType::Bool, Storage::F32 | Storage::F64 | Storage::Bf16 | Storage::F16)
            | (DType::Complex, _) => return Err(self.mismatch(ty, storage)),
        })
    }

    pub(super) fn store(&mut self, base: Base, index: Llvm<'c>, value: Llvm<'c>) -> Result<(), EmitError> {
        let (start, ty, storage) = self.array(base)?;
        let (real, int) = (self.w.real, self.w.int);
        let broken = |e: inkwell::builder::BuilderError| fail(&self.kernel.name, e);
        let stored: Llvm<'c> = match (ty, storage) {
            (DType::Real, None | Some(Storage::F32)) | (DType::Int, None | Some(Storage::I32)) => value,
            (DType::Bool, None) => self.w.unary(expand::Unary::BToI, value),
            (DType::Real, Some(Storage::F64)) => {
                let x = self.w.f(value);
                self.w.builder.build_float_ext(x, self.w.context.f64_type(), "").map_err(broken)?.into()
            }
            (DType::Real, Some(Storage::F16)) => {
                let x = self.w.f(value);
                self.w.builder.build_float_trunc(x, self.w.context.f16_type(), "").map_err(broken)?.into()
            }
            (DType::Real, Some(Storage::Bf16)) => {
                let half = to_bf16(&mut self.w, value);
                let half = self.w.i(half);
                self.w.builder.build_int_truncate(half, self.w.context.i16_type(), "").map_err(broken)?.into()
            }
            (DType::Int, Some(Storage::I64)) => {
                let x = self.w.i(value);
                self.w.builder.build_int_s_extend(x, self.w.context.i64_type(), "").map_err(broken)?.into()
            }
            (DType::Int, Some(Storage::U8)) => {
                let x = self.w.i(value);
                self.w.builder.build_int_truncate(x, self.w.context.i8_type(), "").map_err(broken)?.into()
            }
            (DType::Bool, Some(storage @ (Storage::U8 | Storage::I32 | Storage::I64))) => {
                let x = self.w.i(value);
                self.w.builder.build_int_z_extend(x, self.bits(storage.bytes()), "").map_err(broken)?.into()
            }
            (DType::Real, Some(storage @ (Storage::I64 | Storage::I32 | Storage::U8)))
            | (DType::Int | DType::Bool, Some(storage @ (Storage::F32 | Storage::F64 | Storage::Bf16 | Storage::F16)))
            | (DType::Complex, Some(storage)) => return Err(self.mismatch(ty, storage)),
            (DType::Complex, None) => return Err(unsupported(self.kernel, "it has complex values")),
        };
        let element = stored.get_type();
        debug_assert!(storage.is_some() || element == BasicTypeEnum::from(real) || element == BasicTypeEnum::from(int));
        let pointer = self.element(element, start, index)?;
        self.w.builder.build_store(pointer, stored).map(|_| ()).map_err(|e| self.broken(e))
    }
}

/// The upper 16 bits of a real, rounded to nearest even, in an int; NaN stays NaN.
fn to_bf16<'c>(w: &mut Writer<'c, '_>, x: Llvm<'c>) -> Llvm<'c> {
    let [sixteen, one, below_half, quiet] = [16, 1, 0x7fff, 0x0040].map(|n| w.int(n));
    let bits = w.unary(expand::Unary::FBits, x);
    let high = w.binary(Binary::IShr, bits, sixteen);
    let odd = w.binary(Binary::IAnd, high, one);
    let up = w.binary(Binary::IAdd, below_half, odd);
    let moved = w.binary(Binary::IAdd, bits, up);
    let rounded = w.binary(Binary::IShr, moved, sixteen);
    let nan = w.binary(Binary::IOr, high, quiet);
    let equal = w.binary(Binary::FEq, x, x);
    w.select(equal, rounded, nan)
}
