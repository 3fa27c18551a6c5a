//! A kernel as one CLIF function: control flow, values and memory.

use super::math::{self, Helper};
use super::ops::{self, Lowered, Operand};
use super::tile::{self, Arg};
use super::{BACKEND, Helpers, memory, vector};
use crate::EmitError;
use attnc_compiler::kernel::{self, Base, Inst, Kernel, Stmt, Storage};
use attnc_compiler::ops::{DType, Scalar, ScalarOp};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{AbiParam, BlockArg, FuncRef, Function, InstBuilder, MemFlagsData, Signature, Value, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::JITModule;
use cranelift_module::Module;
use std::collections::HashMap;

/// Signature of every entry, see the module `cpu`.
pub(super) fn signature(module: &impl Module) -> Signature {
    let pointer = module.target_config().pointer_type();
    let mut signature = module.make_signature();
    signature.params.extend([pointer, pointer, pointer, pointer, types::I64, pointer].map(AbiParam::new));
    signature
}

/// Builds the body of `func` and returns the bytes of scratch that it needs. The kernel has been verified.
pub(super) fn lower(
    kernel: &Kernel,
    module: &mut JITModule,
    helpers: &mut Helpers,
    func: &mut Function,
    context: &mut FunctionBuilderContext,
) -> Result<usize, EmitError> {
    let Some((offsets, scratch_bytes)) = memory::layout(kernel) else {
        let what = "its local arrays are larger than 2 GiB".to_string();
        return Err(EmitError::Unsupported { backend: BACKEND, kernel: kernel.name.clone(), what });
    };
    let config = module.target_config();
    let mut b = FunctionBuilder::new(func, context);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    b.seal_block(entry);
    let params = b.block_params(entry).to_vec();
    let [buffers, ints, reals, locals, block, table] = params[..] else {
        return Err(super::backend_error(&kernel.name, "the entry has wrong parameters"));
    };
    let pure = pure_flags();
    let mut pointers = vec![];
    for i in 0..kernel.buffers.len() {
        pointers.push(b.ins().load(config.pointer_type(), pure, buffers, 8 * i as i32));
    }
    let args = Args { pointers, ints, reals, locals, block, table };
    let values = vec![None; kernel.types.len()];
    let constants = vec![None; kernel.types.len()];
    let mut lowering = Lowering { kernel, module, helpers, b, imported: HashMap::new(), args, offsets, nest: 0, values, constants };
    lowering.body(&kernel.body)?;
    lowering.b.ins().return_(&[]);
    lowering.b.finalize(config);
    Ok(scratch_bytes)
}

/// Flags of loads whose memory does not change while the kernel runs: Cranelift may move and fold them.
fn pure_flags() -> MemFlagsData {
    MemFlagsData::new().with_notrap().with_readonly().with_can_move()
}

struct Args {
    pointers: Vec<Value>,
    ints: Value,
    reals: Value,
    locals: Value,
    block: Value,
    table: Value,
}

pub(super) struct Lowering<'a> {
    pub(super) kernel: &'a Kernel,
    module: &'a mut JITModule,
    helpers: &'a mut Helpers,
    pub(super) b: FunctionBuilder<'a>,
    imported: HashMap<&'static str, FuncRef>,
    args: Args,
    offsets: Vec<usize>,
    /// Loops and branches around the current statement.
    nest: usize,
    values: Vec<Option<Value>>,
    /// Int constants, for strength reduction.
    pub(super) constants: Vec<Option<i64>>,
}

impl Lowering<'_> {
    pub(super) fn bug(&self, what: impl std::fmt::Display) -> EmitError {
        super::backend_error(&self.kernel.name, what)
    }

    pub(super) fn get(&self, v: kernel::Value) -> Result<Value, EmitError> {
        self.values.get(v.0 as usize).copied().flatten().ok_or_else(|| self.bug(format!("{v} has no value")))
    }

    fn set(&mut self, v: kernel::Value, value: Value) {
        if let Some(slot) = self.values.get_mut(v.0 as usize) {
            *slot = Some(value);
        }
    }

    fn import(&mut self, helper: &'static Helper) -> Result<FuncRef, EmitError> {
        if let Some(f) = self.imported.get(helper.name) {
            return Ok(*f);
        }
        let f = self.helpers.import(self.module, self.b.func, helper)?;
        self.imported.insert(helper.name, f);
        Ok(f)
    }

    fn call(&mut self, helper: &'static Helper, args: &[Value]) -> Result<Value, EmitError> {
        let f = self.import(helper)?;
        let call = self.b.ins().call(f, args);
        Ok(self.b.inst_results(call)[0])
    }

    fn body(&mut self, body: &[Stmt]) -> Result<(), EmitError> {
        body.iter().try_for_each(|s| self.stmt(s))
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<(), EmitError> {
        match stmt {
            Stmt::Let(v, inst) => {
                let value = self.inst(*v, inst)?;
                self.set(*v, value);
                Ok(())
            }
            Stmt::Store { base, index, value } => self.store(*base, *index, *value),
            Stmt::For { var, lo, hi, step, carries, body } => self.for_loop(*var, [*lo, *hi, *step], carries, body),
            Stmt::If { cond, then, other } => {
                let cond = self.get(*cond)?;
                let (yes, no, end) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
                self.b.ins().brif(cond, yes, &[], no, &[]);
                for (block, body) in [(yes, then), (no, other)] {
                    self.b.switch_to_block(block);
                    self.b.seal_block(block);
                    self.nest += 1;
                    self.body(body)?;
                    self.nest -= 1;
                    self.b.ins().jump(end, &[]);
                }
                self.b.switch_to_block(end);
                self.b.seal_block(end);
                Ok(())
            }
            // One lane sees its own stores.
            Stmt::Barrier => Ok(()),
            Stmt::Tile(call) => self.tile(call),
            Stmt::Warp(op) => Err(self.bug(format!("an op of warp groups, `{}`", op.name()))),
        }
    }

    /// The test stands at the end, so that an iteration has one branch; a first test guards the loop that runs never.
    fn for_loop(&mut self, var: kernel::Value, bounds: [kernel::Value; 3], carries: &[kernel::Carry], body: &[Stmt]) -> Result<(), EmitError> {
        let [mut lo, hi, step] = [self.get(bounds[0])?, self.get(bounds[1])?, self.get(bounds[2])?];
        let mut inits = carries.iter().map(|c| self.get(c.init)).collect::<Result<Vec<_>, _>>()?;
        let trips = self.constants[bounds[1].0 as usize].zip(self.constants[bounds[0].0 as usize]).and_then(|(hi, lo)| hi.checked_sub(lo));
        let constants = |v: kernel::Value| self.constants[v.0 as usize];
        if let Some(wide) = vector::qualify(self.kernel, &constants, var, bounds[2], carries, body).filter(|_| trips.is_none_or(|n| n >= vector::WIDTH)) {
            self.nest += 1;
            (lo, inits) = self.wide_loop(&wide, var, (lo, hi), carries, &inits, body)?;
            self.nest -= 1;
            if trips.is_some_and(|n| n % vector::WIDTH == 0) {
                for (c, total) in carries.iter().zip(inits) {
                    self.set(c.result, total);
                }
                return Ok(());
            }
        }
        let inits: Vec<BlockArg> = inits.into_iter().map(BlockArg::from).collect();
        let (inside, after) = (self.b.create_block(), self.b.create_block());
        let index = self.b.append_block_param(inside, types::I64);
        let mut params = vec![];
        let mut results = vec![];
        for c in carries {
            let ty = ops::clif_type(self.kernel.ty(c.param)).ok_or_else(|| self.bug("a complex carry"))?;
            params.push(self.b.append_block_param(inside, ty));
            results.push(self.b.append_block_param(after, ty));
        }
        let first = std::iter::once(BlockArg::from(lo)).chain(inits.iter().copied()).collect::<Vec<_>>();
        let some = self.b.ins().icmp(IntCC::SignedLessThan, lo, hi);
        self.b.ins().brif(some, inside, &first, after, &inits);
        self.b.switch_to_block(inside);
        self.set(var, index);
        for (c, param) in carries.iter().zip(params) {
            self.set(c.param, param);
        }
        self.nest += 1;
        self.body(body)?;
        self.nest -= 1;
        let nexts = carries.iter().map(|c| self.get(c.next).map(BlockArg::from)).collect::<Result<Vec<_>, _>>()?;
        let next = self.b.ins().iadd(index, step);
        let again = std::iter::once(BlockArg::from(next)).chain(nexts.iter().copied()).collect::<Vec<_>>();
        let more = self.b.ins().icmp(IntCC::SignedLessThan, next, hi);
        self.b.ins().brif(more, inside, &again, after, &nexts);
        self.b.seal_block(inside);
        self.b.switch_to_block(after);
        self.b.seal_block(after);
        for (c, result) in carries.iter().zip(results) {
            self.set(c.result, result);
        }
        Ok(())
    }

    pub(super) fn inst(&mut self, v: kernel::Value, inst: &Inst) -> Result<Value, EmitError> {
        Ok(match inst {
            Inst::Const(Scalar::Bool(x)) => self.b.ins().iconst(types::I8, i64::from(*x)),
            Inst::Const(Scalar::Int(x)) => {
                self.constants[v.0 as usize] = Some(*x);
                self.b.ins().iconst(types::I64, *x)
            }
            Inst::Const(Scalar::Real(x)) => self.b.ins().f32const(*x as f32),
            Inst::Const(Scalar::Complex(..)) => return Err(self.bug("a complex constant")),
            Inst::IntArg(i) => self.b.ins().load(types::I64, pure_flags(), self.args.ints, 8 * *i as i32),
            Inst::RealArg(i) => self.b.ins().load(types::F32, pure_flags(), self.args.reals, 4 * *i as i32),
            Inst::Block => self.args.block,
            Inst::Lane => self.b.ins().iconst(types::I64, 0),
            Inst::Op { op, args } => self.op(*op, args)?,
            Inst::Load { base, index } => {
                let (storage, dtype, address, offset) = self.address(*base, *index)?;
                let flags = self.load_flags(*base);
                memory::load(&mut self.b, flags, storage, dtype, address, offset)
            }
        })
    }

    fn op(&mut self, op: ScalarOp, args: &[kernel::Value]) -> Result<Value, EmitError> {
        let mut operands = vec![];
        for a in args {
            operands.push(Operand { value: self.get(*a)?, dtype: self.kernel.ty(*a), constant: self.constants[a.0 as usize] });
        }
        let values: Vec<Value> = operands.iter().map(|o| o.value).collect();
        let lowered = ops::lower(&mut self.b, op, &operands);
        self.finish(op, lowered, &values)
    }

    /// The value of a lowered op on `values`.
    pub(super) fn finish(&mut self, op: ScalarOp, lowered: Lowered, values: &[Value]) -> Result<Value, EmitError> {
        match lowered {
            Lowered::Value(value) => Ok(value),
            Lowered::Call(helper) => self.call(helper, values),
            Lowered::Table(function) => {
                let mut signature = self.signature();
                signature.params.extend(values.iter().map(|_| AbiParam::new(types::F32)));
                signature.returns.push(AbiParam::new(types::F32));
                let call = self.call_table(function, signature, values);
                Ok(self.b.inst_results(call)[0])
            }
            Lowered::Never => Err(self.bug(format!("no code for `{}`", op.name()))),
        }
    }

    /// A signature without parameters.
    pub(super) fn signature(&self) -> Signature {
        self.module.make_signature()
    }

    /// Cranelift may run a pure load ahead of the branch or the loop that keeps its index in range, so only loads that always run
    /// are pure.
    pub(super) fn load_flags(&self, base: Base) -> MemFlagsData {
        match base {
            Base::Buffer(id) if self.nest == 0 && !self.kernel.buffers[id.0 as usize].written => pure_flags(),
            Base::Buffer(_) | Base::Local(_) => MemFlagsData::new().with_notrap(),
        }
    }

    /// How and as what elements of an array are held.
    pub(super) fn holds(&self, base: Base) -> (Storage, DType) {
        match base {
            Base::Buffer(id) => (self.kernel.buffers[id.0 as usize].storage, self.kernel.buffers[id.0 as usize].ty),
            Base::Local(id) => {
                let ty = self.kernel.locals[id.0 as usize].ty;
                (memory::local_storage(ty), ty)
            }
        }
    }

    /// Address of an array and a constant offset in bytes to add to it.
    fn start(&self, base: Base) -> (Value, i32) {
        match base {
            Base::Buffer(id) => (self.args.pointers[id.0 as usize], 0),
            // `layout` has kept offsets below 2 GiB.
            Base::Local(id) => (self.args.locals, self.offsets[id.0 as usize] as i32),
        }
    }

    /// Address of the element `index` and a constant offset in bytes to add to it.
    pub(super) fn at(&mut self, base: Base, index: Value) -> (Value, i32) {
        let (start, offset) = self.start(base);
        let shift = i64::from(self.holds(base).0.bytes().trailing_zeros());
        let scaled = if shift == 0 { index } else { self.b.ins().ishl_imm_s(index, shift) };
        (self.b.ins().iadd(start, scaled), offset)
    }

    /// As `at`, for an index of the kernel; small constant ones become offsets.
    fn address(&mut self, base: Base, index: kernel::Value) -> Result<(Storage, DType, Value, i32), EmitError> {
        let (storage, dtype) = self.holds(base);
        let (start, offset) = self.start(base);
        let constant = self.constants[index.0 as usize].and_then(|i| i.checked_mul(storage.bytes() as i64));
        if let Some(Ok(at)) = constant.and_then(|i| i.checked_add(i64::from(offset))).map(i32::try_from) {
            return Ok((storage, dtype, start, at));
        }
        let index = self.get(index)?;
        let (address, offset) = self.at(base, index);
        Ok((storage, dtype, address, offset))
    }

    /// The function that rounds to f16, where `storage` needs it.
    pub(super) fn to_f16(&mut self, storage: Storage) -> Result<Option<FuncRef>, EmitError> {
        if storage == Storage::F16 { self.import(&math::TO_F16).map(Some) } else { Ok(None) }
    }

    fn store(&mut self, base: Base, index: kernel::Value, value: kernel::Value) -> Result<(), EmitError> {
        let (storage, dtype, address, offset) = self.address(base, index)?;
        let value = self.get(value)?;
        let to_f16 = self.to_f16(storage)?;
        memory::store(&mut self.b, MemFlagsData::new().with_notrap(), storage, dtype, address, offset, value, to_f16);
        Ok(())
    }

    fn tile(&mut self, call: &kernel::TileCall) -> Result<(), EmitError> {
        let Some((function, args)) = tile::call(self.kernel, call) else { return Err(self.bug(format!("no function for `{}`", call.name()))) };
        let pointer = self.module.target_config().pointer_type();
        let mut signature = self.module.make_signature();
        let mut values = vec![];
        for arg in args {
            let (value, ty) = match arg {
                Arg::Value(v) => (self.get(v)?, if self.kernel.ty(v) == DType::Real { types::F32 } else { types::I64 }),
                Arg::Null => (self.b.ins().iconst(pointer, 0), pointer),
                Arg::Const(c) => (self.b.ins().iconst(types::I64, c), types::I64),
                Arg::Place(place) => {
                    let (_, _, address, offset) = self.address(place.base, place.offset)?;
                    let address = if offset == 0 { address } else { self.b.ins().iadd_imm_s(address, i64::from(offset)) };
                    (address, pointer)
                }
            };
            values.push(value);
            signature.params.push(AbiParam::new(ty));
        }
        self.call_table(function, signature, &values);
        Ok(())
    }

    /// Calls the function whose pointer lies `function` bytes into the table.
    pub(super) fn call_table(&mut self, function: usize, signature: Signature, values: &[Value]) -> cranelift_codegen::ir::Inst {
        let pointer = self.module.target_config().pointer_type();
        let signature = self.b.import_signature(signature);
        let callee = self.b.ins().load(pointer, pure_flags(), self.args.table, function as i32);
        self.b.ins().call_indirect(signature, callee, values)
    }
}
