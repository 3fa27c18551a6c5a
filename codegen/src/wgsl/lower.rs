//! Statements of a kernel to statements of a naga module.
//!
//! Loop-carried values are variables of the function. Where lanes must meet under a condition or in a loop whose bounds naga or a browser
//! cannot see to be uniform, the first lane's value is broadcast through workgroup memory (they are equal: the kernel is verified).

use super::function::{Types, Value as Handle, Writer};
use super::{ENTRY, LEADING_INTS, unsupported};
use crate::EmitError;
use crate::expand::{self, Lane, narrow};
use attnc_compiler::kernel::{Base, Inst, Kernel, Space, Stmt, Storage, Value};
use attnc_compiler::ops::{DType, Scalar, ScalarOp};
use naga::{
    AddressSpace, ArraySize, Barrier, BinaryOperator, Binding, BuiltIn, EntryPoint, Expression, Function, FunctionArgument, FunctionResult,
    GlobalVariable, MathFunction, Module, ResourceBinding, ScalarKind, ShaderStage, Span, Statement, StorageAccess, Type, TypeInner,
};
use std::collections::HashMap;
use std::num::NonZeroU32;

/// Which lanes are known to agree on a value.
#[derive(Clone, Copy, Default)]
struct Uniform {
    /// By the rules of naga's validator, which takes every variable and every result of a function for different.
    plainly: bool,
    /// By the rules of the language, which follow variables.
    really: bool,
}

struct Lower<'k> {
    kernel: &'k Kernel,
    module: Module,
    types: Types,
    writer: Writer,
    helpers: HashMap<(ScalarOp, DType), naga::Handle<Function>>,
    buffers: Vec<naga::Handle<GlobalVariable>>,
    locals: Vec<Local>,
    arguments: naga::Handle<GlobalVariable>,
    workspace: Option<naga::Handle<GlobalVariable>>,
    /// One Int in workgroup memory.
    shared_int: naga::Handle<GlobalVariable>,
    block: Handle,
    lane: Handle,
    /// First word of this block's part of the workspace.
    slice: Handle,
    values: Vec<Option<(Handle, Uniform)>>,
    /// A barrier also orders accesses to buffers.
    is_storage_shared: bool,
}

#[derive(Clone, Copy)]
enum Local {
    Shared(naga::Handle<GlobalVariable>),
    /// First word in the block's part of the workspace.
    Workspace(usize),
}

/// The module of a verified kernel. Errors: [`EmitError::Unsupported`].
pub(super) fn lower(kernel: &Kernel) -> Result<Module, EmitError> {
    let mut module = Module::default();
    let types = Types::new(&mut module.types);
    let mut globals = Globals { module: &mut module, binding: 0 };
    let mut buffers = vec![];
    for buffer in &kernel.buffers {
        let element = match (buffer.ty, buffer.storage) {
            (DType::Real, Storage::F32) => types.real,
            (DType::Int, Storage::I32) => types.int,
            (DType::Bool, Storage::U8) => types.word,
            (DType::Real, Storage::Bf16 | Storage::F16) if !buffer.written => types.word,
            (ty, storage) => {
                let what = format!("buffer `{}` holds {} as {storage:?}{}", buffer.name, ty.name(), if buffer.written { " and is written" } else { "" });
                return Err(unsupported(kernel, what));
            }
        };
        buffers.push(globals.buffer(&buffer.name, element, buffer.written));
    }
    let arguments = globals.buffer("arguments", types.int, false);
    let has_workspace = kernel.locals.iter().any(|l| l.space == Space::Workspace);
    let workspace = has_workspace.then(|| globals.buffer("workspace", types.word, true));
    let mut next = 0;
    let mut locals = vec![];
    for local in &kernel.locals {
        locals.push(match local.space {
            Space::Shared => {
                let element = match local.ty {
                    DType::Real => types.real,
                    DType::Int => types.int,
                    DType::Bool | DType::Complex => types.word,
                };
                let len = u32::try_from(local.len).map_err(|_| unsupported(kernel, format!("array `{}` is too long", local.name)))?;
                Local::Shared(globals.shared(&local.name, element, len))
            }
            Space::Workspace => {
                next += local.len;
                Local::Workspace(next - local.len)
            }
        });
    }
    let words = i32::try_from(next).map_err(|_| unsupported(kernel, "its arrays take more than 2^31 words"))?;
    let shared_int = {
        let variable = GlobalVariable {
            name: Some("agreed".to_string()),
            space: AddressSpace::WorkGroup,
            binding: None,
            ty: types.int,
            init: None,
            memory_decorations: naga::MemoryDecorations::empty(),
        };
        module.global_variables.append(variable, Span::UNDEFINED)
    };
    let vector = module.types.insert(
        Type { name: None, inner: TypeInner::Vector { size: naga::VectorSize::Tri, scalar: naga::Scalar::U32 } },
        Span::UNDEFINED,
    );
    let mut writer = Writer::new(types);
    for (name, ty, builtin) in [
        ("group", vector, BuiltIn::WorkGroupId),
        ("groups", vector, BuiltIn::NumWorkGroups),
        ("lane_index", types.word, BuiltIn::LocalInvocationIndex),
    ] {
        writer.function.arguments.push(FunctionArgument { name: Some(name.to_string()), ty, binding: Some(Binding::BuiltIn(builtin)) });
    }
    let [group, groups, lane] = [0, 1, 2].map(|i| writer.plain(Expression::FunctionArgument(i)));
    let [x, y] = [0, 1].map(|index| writer.emit(Expression::AccessIndex { base: group, index }));
    let width = writer.emit(Expression::AccessIndex { base: groups, index: 0 });
    let rows = writer.op(BinaryOperator::Multiply, y, width);
    let place = writer.op(BinaryOperator::Add, x, rows);
    let place = writer.cast(place, ScalarKind::Sint, true);
    writer.name(place, "place".to_string());
    let lane = writer.cast(lane, ScalarKind::Sint, true);
    writer.name(lane, "lane".to_string());
    let [first, end] = [0, 1].map(|i| argument(&mut writer, arguments, i));
    let block = writer.op(BinaryOperator::Add, first, place);
    writer.name(block, "block".to_string());
    let words = writer.int(words);
    let slice = writer.op(BinaryOperator::Multiply, place, words);
    writer.name(slice, "slice".to_string());
    let is_storage_shared = has_workspace || kernel.buffers.iter().any(|b| b.written);
    let mut lower = Lower {
        kernel,
        module,
        types,
        writer,
        helpers: HashMap::new(),
        buffers,
        locals,
        arguments,
        workspace,
        shared_int,
        block,
        lane,
        slice,
        values: vec![None; kernel.types.len()],
        is_storage_shared,
    };
    // The last row of workgroups may be longer than what is left.
    let runs = lower.writer.op(BinaryOperator::Less, block, end);
    let accept = lower.nested(&kernel.body)?;
    lower.writer.push(Statement::If { condition: runs, accept, reject: naga::Block::new() });
    let entry = EntryPoint {
        name: ENTRY.to_string(),
        stage: ShaderStage::Compute,
        early_depth_test: None,
        workgroup_size: [kernel.lanes, 1, 1],
        workgroup_size_overrides: None,
        function: lower.writer.finish(),
        mesh_info: None,
        task_payload: None,
        incoming_ray_payload: None,
    };
    lower.module.entry_points.push(entry);
    Ok(lower.module)
}

struct Globals<'m> {
    module: &'m mut Module,
    binding: u32,
}

impl Globals<'_> {
    fn array(&mut self, base: naga::Handle<Type>, size: ArraySize) -> naga::Handle<Type> {
        self.module.types.insert(Type { name: None, inner: TypeInner::Array { base, size, stride: 4 } }, Span::UNDEFINED)
    }

    fn variable(&mut self, name: &str, space: AddressSpace, binding: Option<ResourceBinding>, ty: naga::Handle<Type>) -> naga::Handle<GlobalVariable> {
        let variable =
            GlobalVariable { name: Some(name.to_string()), space, binding, ty, init: None, memory_decorations: naga::MemoryDecorations::empty() };
        self.module.global_variables.append(variable, Span::UNDEFINED)
    }

    fn buffer(&mut self, name: &str, element: naga::Handle<Type>, is_written: bool) -> naga::Handle<GlobalVariable> {
        let ty = self.array(element, ArraySize::Dynamic);
        let access = if is_written { StorageAccess::LOAD | StorageAccess::STORE } else { StorageAccess::LOAD };
        let binding = ResourceBinding { group: 0, binding: self.binding };
        self.binding += 1;
        self.variable(name, AddressSpace::Storage { access }, Some(binding), ty)
    }

    fn shared(&mut self, name: &str, element: naga::Handle<Type>, len: u32) -> naga::Handle<GlobalVariable> {
        let ty = self.array(element, ArraySize::Constant(NonZeroU32::new(len).unwrap_or(NonZeroU32::MIN)));
        self.variable(name, AddressSpace::WorkGroup, None, ty)
    }
}

/// Word `i` of the arguments.
fn argument(writer: &mut Writer, arguments: naga::Handle<GlobalVariable>, i: usize) -> Handle {
    let base = writer.plain(Expression::GlobalVariable(arguments));
    let index = writer.word(i as u32);
    let pointer = writer.emit(Expression::Access { base, index });
    writer.load(pointer)
}

/// Whether lanes meet somewhere in these statements.
fn meets(body: &[Stmt]) -> bool {
    body.iter().any(|stmt| match stmt {
        Stmt::Barrier | Stmt::Tile(_) | Stmt::Warp(_) => true,
        Stmt::For { body, .. } => meets(body),
        Stmt::If { then, other, .. } => meets(then) || meets(other),
        Stmt::Let(..) | Stmt::Store { .. } => false,
    })
}

impl Lower<'_> {
    fn get(&self, v: Value) -> Result<(Handle, Uniform), EmitError> {
        let found = self.values.get(v.0 as usize).copied().flatten();
        found.ok_or_else(|| EmitError::Invalid { kernel: self.kernel.name.clone(), faults: vec![format!("{v} is not defined")] })
    }

    fn set(&mut self, v: Value, handle: Handle, uniform: Uniform) {
        self.writer.name(handle, format!("v{}", v.0));
        if let Some(slot) = self.values.get_mut(v.0 as usize) {
            *slot = Some((handle, uniform));
        }
    }

    /// Type of a variable that holds such a value.
    fn ty(&self, dtype: DType) -> naga::Handle<Type> {
        match dtype {
            DType::Real => self.types.real,
            DType::Int => self.types.int,
            DType::Bool | DType::Complex => self.types.truth,
        }
    }

    fn nested(&mut self, body: &[Stmt]) -> Result<naga::Block, EmitError> {
        self.writer.open();
        self.stmts(body)?;
        Ok(self.writer.close())
    }

    fn stmts(&mut self, body: &[Stmt]) -> Result<(), EmitError> {
        for stmt in body {
            match stmt {
                Stmt::Let(v, inst) => self.inst(*v, inst)?,
                Stmt::Store { base, index, value } => {
                    let (index, value) = (self.get(*index)?.0, self.get(*value)?.0);
                    self.store(*base, index, value)?;
                }
                Stmt::For { var, lo, hi, step, carries, body } => {
                    let meets = meets(body);
                    let (lo, hi, step) = (self.bound(*lo, meets)?, self.bound(*hi, meets)?, self.bound(*step, meets)?);
                    let counter = self.writer.variable(format!("i{}", var.0), self.types.int, None);
                    self.writer.push(Statement::Store { pointer: counter, value: lo.0 });
                    let mut carried = vec![];
                    for c in carries {
                        let init = self.get(c.init)?.0;
                        let pointer = self.writer.variable(format!("c{}", c.param.0), self.ty(self.kernel.ty(c.param)), None);
                        self.writer.push(Statement::Store { pointer, value: init });
                        carried.push(pointer);
                    }
                    let really = lo.1.really && hi.1.really && step.1.really;
                    self.writer.open();
                    self.iteration(*var, counter, hi.0, step.0, really, carries, &carried, body)?;
                    let block = self.writer.close();
                    self.writer.push(Statement::Loop { body: block, continuing: naga::Block::new(), break_if: None });
                    for (c, pointer) in carries.iter().zip(&carried) {
                        let value = self.writer.load(*pointer);
                        self.set(c.result, value, Uniform::default());
                    }
                }
                Stmt::If { cond, then, other } => {
                    let (mut condition, uniform) = self.get(*cond)?;
                    if (meets(then) || meets(other)) && !uniform.plainly {
                        condition = self.agreed_bool(condition);
                    }
                    let (accept, reject) = (self.nested(then)?, self.nested(other)?);
                    self.writer.push(Statement::If { condition, accept, reject });
                }
                Stmt::Barrier => {
                    let storage = if self.is_storage_shared { Barrier::STORAGE } else { Barrier::empty() };
                    self.writer.push(Statement::ControlBarrier(Barrier::WORK_GROUP | storage));
                }
                Stmt::Warp(op) => return Err(unsupported(self.kernel, format!("it has an op of warp groups, `{}`", op.name()))),
                Stmt::Tile(call) => return Err(unsupported(self.kernel, format!("it has a tile call `{}`", call.name()))),
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn iteration(
        &mut self,
        var: Value,
        counter: Handle,
        hi: Handle,
        step: Handle,
        really: bool,
        carries: &[attnc_compiler::kernel::Carry],
        carried: &[Handle],
        body: &[Stmt],
    ) -> Result<(), EmitError> {
        let now = self.writer.load(counter);
        self.set(var, now, Uniform { plainly: false, really });
        let goes_on = self.writer.op(BinaryOperator::Less, now, hi);
        let stop = naga::Block::from_vec(vec![Statement::Break]);
        self.writer.push(Statement::If { condition: goes_on, accept: naga::Block::new(), reject: stop });
        for (c, pointer) in carries.iter().zip(carried) {
            let value = self.writer.load(*pointer);
            self.set(c.param, value, Uniform::default());
        }
        self.stmts(body)?;
        for (c, pointer) in carries.iter().zip(carried) {
            let value = self.get(c.next)?.0;
            self.writer.push(Statement::Store { pointer: *pointer, value });
        }
        let next = self.writer.op(BinaryOperator::Add, now, step);
        self.writer.push(Statement::Store { pointer: counter, value: next });
        Ok(())
    }

    /// A bound of a loop; when lanes meet in the loop, one that everybody sees to be uniform.
    fn bound(&mut self, v: Value, meets: bool) -> Result<(Handle, Uniform), EmitError> {
        let (handle, uniform) = self.get(v)?;
        if !meets || uniform.really {
            return Ok((handle, uniform));
        }
        Ok((self.agreed(handle), Uniform { plainly: true, really: true }))
    }

    /// The value of the first lane.
    fn agreed(&mut self, value: Handle) -> Handle {
        let zero = self.writer.int(0);
        let is_first = self.writer.op(BinaryOperator::Equal, self.lane, zero);
        let pointer = self.writer.plain(Expression::GlobalVariable(self.shared_int));
        let accept = naga::Block::from_vec(vec![Statement::Store { pointer, value }]);
        self.writer.push(Statement::If { condition: is_first, accept, reject: naga::Block::new() });
        let result = self.writer.plain(Expression::WorkGroupUniformLoadResult { ty: self.types.int });
        self.writer.push(Statement::WorkGroupUniformLoad { pointer, result });
        result
    }

    fn agreed_bool(&mut self, value: Handle) -> Handle {
        let (one, zero) = (self.writer.int(1), self.writer.int(0));
        let int = self.writer.select(value, one, zero);
        let agreed = self.agreed(int);
        self.writer.op(BinaryOperator::NotEqual, agreed, zero)
    }

    fn inst(&mut self, v: Value, inst: &Inst) -> Result<(), EmitError> {
        let everywhere = Uniform { plainly: true, really: true };
        let (handle, uniform) = match inst {
            Inst::Const(Scalar::Real(x)) => {
                let x = *x as f32;
                (self.writer.real(x), Uniform { plainly: x.is_finite(), really: true })
            }
            Inst::Const(Scalar::Int(x)) => (self.writer.int(narrow(*x)), everywhere),
            Inst::Const(Scalar::Bool(x)) => (self.writer.truth(*x), everywhere),
            Inst::Const(Scalar::Complex(..)) => return Err(unsupported(self.kernel, "it has complex values")),
            Inst::IntArg(i) => (argument(&mut self.writer, self.arguments, LEADING_INTS + *i as usize), everywhere),
            Inst::RealArg(i) => {
                let bits = argument(&mut self.writer, self.arguments, LEADING_INTS + self.kernel.ints.len() + *i as usize);
                (self.writer.cast(bits, ScalarKind::Float, false), everywhere)
            }
            Inst::Block => (self.block, everywhere),
            Inst::Lane => (self.lane, Uniform::default()),
            Inst::Op { op, args } => {
                let mut handles = vec![];
                let mut uniform = everywhere;
                for a in args {
                    let (handle, u) = self.get(*a)?;
                    handles.push(handle);
                    uniform = Uniform { plainly: uniform.plainly && u.plainly, really: uniform.really && u.really };
                }
                let ty = args.first().map_or(DType::Bool, |a| self.kernel.ty(*a));
                if expand::is_small(*op, ty) {
                    let value = expand::expand(&mut self.writer, *op, ty, &handles);
                    (value.ok_or_else(|| unsupported(self.kernel, format!("it has `{}` of {}", op.name(), ty.name())))?, uniform)
                } else {
                    let function = self.helper(*op, ty)?;
                    let result = self.writer.plain(Expression::CallResult(function));
                    self.writer.push(Statement::Call { function, arguments: handles, result: Some(result) });
                    (result, Uniform { plainly: false, ..uniform })
                }
            }
            Inst::Load { base, index } => {
                let (index, uniform) = self.get(*index)?;
                let fixed = matches!(base, Base::Buffer(b) if self.kernel.buffers.get(b.0 as usize).is_some_and(|b| !b.written));
                (self.read(*base, index)?, if fixed { uniform } else { Uniform::default() })
            }
        };
        self.set(v, handle, uniform);
        Ok(())
    }

    /// The function for an op on operands of one dtype.
    fn helper(&mut self, op: ScalarOp, ty: DType) -> Result<naga::Handle<Function>, EmitError> {
        if let Some(found) = self.helpers.get(&(op, ty)) {
            return Ok(*found);
        }
        let unknown = || unsupported(self.kernel, format!("it has `{}` of {}", op.name(), ty.name()));
        let mut writer = Writer::new(self.types);
        writer.function.name = Some(format!("{}_{}", ty.name(), op.name()));
        let mut args = vec![];
        for (i, name) in ["x", "y", "z"].into_iter().take(op.arity()).enumerate() {
            writer.function.arguments.push(FunctionArgument { name: Some(name.to_string()), ty: self.ty(ty), binding: None });
            args.push(writer.plain(Expression::FunctionArgument(i as u32)));
        }
        let result = op.result(&vec![ty; op.arity()]).ok_or_else(unknown)?;
        writer.function.result = Some(FunctionResult { ty: self.ty(result), binding: None });
        let value = expand::expand(&mut writer, op, ty, &args).ok_or_else(unknown)?;
        writer.push(Statement::Return { value: Some(value) });
        let handle = self.module.functions.append(writer.finish(), Span::UNDEFINED);
        self.helpers.insert((op, ty), handle);
        Ok(handle)
    }

    /// Pointer to an element, its dtype, and how it is stored (`None`: a word of the workspace).
    fn place(&mut self, base: Base, index: Handle) -> Result<(Handle, DType, Option<Storage>), EmitError> {
        let missing = || EmitError::Invalid { kernel: self.kernel.name.clone(), faults: vec![format!("{base:?} does not exist")] };
        match base {
            Base::Buffer(b) => {
                let argument = self.kernel.buffers.get(b.0 as usize).ok_or_else(missing)?;
                let global = *self.buffers.get(b.0 as usize).ok_or_else(missing)?;
                let index = match argument.storage {
                    Storage::Bf16 | Storage::F16 => {
                        let one = self.writer.word(1);
                        self.writer.op(BinaryOperator::ShiftRight, index, one)
                    }
                    Storage::F32 | Storage::F64 | Storage::I64 | Storage::I32 | Storage::U8 => index,
                };
                let base = self.writer.plain(Expression::GlobalVariable(global));
                Ok((self.writer.emit(Expression::Access { base, index }), argument.ty, Some(argument.storage)))
            }
            Base::Local(l) => {
                let local = self.kernel.locals.get(l.0 as usize).ok_or_else(missing)?;
                match *self.locals.get(l.0 as usize).ok_or_else(missing)? {
                    Local::Shared(global) => {
                        let base = self.writer.plain(Expression::GlobalVariable(global));
                        let storage = if local.ty == DType::Bool { Storage::U8 } else { Storage::F32 };
                        Ok((self.writer.emit(Expression::Access { base, index }), local.ty, Some(storage)))
                    }
                    Local::Workspace(first) => {
                        let workspace = self.workspace.ok_or_else(missing)?;
                        let base = self.writer.plain(Expression::GlobalVariable(workspace));
                        let first = self.writer.int(first as i32);
                        let start = self.writer.op(BinaryOperator::Add, self.slice, first);
                        let index = self.writer.op(BinaryOperator::Add, start, index);
                        Ok((self.writer.emit(Expression::Access { base, index }), local.ty, None))
                    }
                }
            }
        }
    }

    fn read(&mut self, base: Base, index: Handle) -> Result<Handle, EmitError> {
        let (pointer, ty, storage) = self.place(base, index)?;
        let w = &mut self.writer;
        let loaded = w.load(pointer);
        Ok(match (ty, storage) {
            (DType::Bool | DType::Complex, _) => {
                let zero = w.word(0);
                w.op(BinaryOperator::NotEqual, loaded, zero)
            }
            (DType::Real, None) => w.cast(loaded, ScalarKind::Float, false),
            (DType::Int, None) => w.cast(loaded, ScalarKind::Sint, false),
            (_, Some(Storage::Bf16)) => {
                let half = half_of(w, loaded, index);
                let sixteen = w.word(16);
                let bits = w.op(BinaryOperator::ShiftLeft, half, sixteen);
                w.cast(bits, ScalarKind::Float, false)
            }
            (_, Some(Storage::F16)) => {
                let half = half_of(w, loaded, index);
                let pair = w.emit(Expression::Math { fun: MathFunction::Unpack2x16float, arg: half, arg1: None, arg2: None, arg3: None });
                w.emit(Expression::AccessIndex { base: pair, index: 0 })
            }
            (_, Some(Storage::F32 | Storage::F64 | Storage::I64 | Storage::I32 | Storage::U8)) => loaded,
        })
    }

    fn store(&mut self, base: Base, index: Handle, value: Handle) -> Result<(), EmitError> {
        let (pointer, ty, storage) = self.place(base, index)?;
        let w = &mut self.writer;
        let value = match (ty, storage) {
            (DType::Bool | DType::Complex, _) => {
                let (one, zero) = (w.word(1), w.word(0));
                w.select(value, one, zero)
            }
            (DType::Real | DType::Int, None) => w.cast(value, ScalarKind::Uint, false),
            (DType::Real | DType::Int, Some(_)) => value,
        };
        w.push(Statement::Store { pointer, value });
        Ok(())
    }
}

/// The lower or upper 16 bits of a word, by the last bit of an index.
fn half_of(w: &mut Writer, word: Handle, index: Handle) -> Handle {
    let (one, sixteen, mask) = (w.int(1), w.int(16), w.word(0xffff));
    let odd = w.op(BinaryOperator::And, index, one);
    let shift = w.op(BinaryOperator::Multiply, odd, sixteen);
    let shift = w.cast(shift, ScalarKind::Uint, true);
    let low = w.op(BinaryOperator::ShiftRight, word, shift);
    w.op(BinaryOperator::And, low, mask)
}
