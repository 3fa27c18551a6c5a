//! A plan and the caller's arrays become a checked call: every extent known, every size computed without overflow, every name
//! matched. What passes here can be launched without further questions. Safe code; never looks inside a kernel.

use crate::error::{RuntimeError, nearest};
use crate::host::{Env, Ints, coerce};
use crate::tensor::{Storage, Tensor, TensorView, elements, is_real, storage_name};
use attnc_compiler::kernel::plan::{BufferKind, InputPlan, Plan};
use attnc_compiler::ops::{DType, Scalar};
use std::collections::HashMap;

/// Tensors that the caller hands over, by name.
pub type Tensors<'a> = &'a [(&'a str, TensorView<'a>)];

/// A call whose inputs fit the signature.
#[derive(Clone, Debug)]
pub struct Bound<'a> {
    /// By axis number.
    pub extents: Vec<i64>,
    /// By input number: the value of each scalar, `None` for tensors.
    pub scalars: Vec<Option<Scalar>>,
    /// By input number: the tensor given, `None` for scalars and for tensors that take their default.
    pub tensors: Vec<Option<&'a TensorView<'a>>>,
    /// By input number: what fills a tensor that was not given. `None` also when the default is an array (`optional`).
    pub fills: Vec<Option<Scalar>>,
}

impl Bound<'_> {
    /// Extents and scalars of the call for a plan whose first axes and whose inputs are those of the signature.
    pub fn env<'p>(&self, plan: &'p Plan) -> Env<'p> {
        let mut env = Env::new(&plan.axes, &plan.inputs);
        for (axis, extent) in self.extents.iter().enumerate() {
            env.set_extent(axis as u32, *extent);
        }
        for (input, value) in self.scalars.iter().enumerate() {
            if let Some(value) = value {
                env.set_scalar(input as u32, *value);
            }
        }
        env
    }
}

/// Sizes of one buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferCall {
    pub kind: BufferKind,
    pub storage: Storage,
    pub dims: Vec<usize>,
    pub elements: usize,
    pub bytes: usize,
}

/// One launch with all arguments computed.
#[derive(Clone, Debug, PartialEq)]
pub struct LaunchCall {
    pub kernel: u32,
    /// Never 0: empty launches are left out.
    pub blocks: u64,
    pub buffers: Vec<u32>,
    pub ints: Vec<i64>,
    pub reals: Vec<f32>,
}

/// All that a driver needs to know for one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub buffers: Vec<BufferCall>,
    pub launches: Vec<LaunchCall>,
}

impl Call {
    /// Bytes of buffers that live only during the call.
    pub fn temp_bytes(&self) -> u64 {
        self.buffers.iter().filter(|b| b.kind == BufferKind::Temp).map(|b| b.bytes as u64).sum()
    }
}

/// `[b,h,t,d]`
pub fn axes_text(plan: &Plan, axes: &[u32]) -> String {
    let names: Vec<&str> = axes.iter().map(|a| plan.axes.get(*a as usize).map_or("?", |a| a.name.as_str())).collect();
    format!("[{}]", names.join(","))
}

fn known<'p>(items: impl Iterator<Item = &'p str>) -> Vec<String> {
    items.map(str::to_string).collect()
}

/// Matches names, dtypes, ranks and extents; evaluates defaults and conditions. `optional` lists inputs whose default is an array
/// that the target fills by itself; `extents` those of axes that no shape gives, or that the caller wants to be checked.
///
/// Errors: the first thing that does not fit, naming the tensor, the expected axes and the shape found.
pub fn bind<'a>(
    plan: &Plan,
    tensors: Tensors<'a>,
    scalars: &[(&str, Scalar)],
    caller_extents: &[(&str, i64)],
    optional: &[usize],
) -> Result<Bound<'a>, RuntimeError> {
    let by_name: HashMap<&str, usize> = plan.inputs.iter().enumerate().map(|(i, p)| (p.name.as_str(), i)).collect();
    let unknown = |name: &str| {
        let known = known(plan.inputs.iter().map(|p| p.name.as_str()));
        RuntimeError::UnknownInput { name: name.to_string(), nearest: nearest(name, known.iter().map(String::as_str)), known }
    };
    let mut env = Env::new(&plan.axes, &plan.inputs);
    let mut found: Vec<Option<&'a TensorView<'a>>> = vec![None; plan.inputs.len()];
    let mut is_given = vec![false; plan.inputs.len()];

    for (name, value) in scalars {
        let i = *by_name.get(name).ok_or_else(|| unknown(name))?;
        let input = &plan.inputs[i];
        if !input.axes.is_empty() {
            return Err(RuntimeError::ScalarForTensor { name: input.name.clone(), axes: axes_text(plan, &input.axes) });
        }
        if std::mem::replace(&mut is_given[i], true) {
            return Err(RuntimeError::Twice { name: input.name.clone() });
        }
        let wrong = || RuntimeError::WrongScalar { name: input.name.clone(), expected: input.dtype, found: crate::error::scalar_text(*value) };
        env.set_scalar(i as u32, coerce(*value, input.dtype).ok_or_else(wrong)?);
    }
    for (name, view) in tensors {
        let i = *by_name.get(name).ok_or_else(|| unknown(name))?;
        let input = &plan.inputs[i];
        if input.axes.is_empty() {
            return Err(RuntimeError::TensorForScalar { name: input.name.clone(), expected: input.dtype, found: view.shape().to_vec() });
        }
        if std::mem::replace(&mut is_given[i], true) {
            return Err(RuntimeError::Twice { name: input.name.clone() });
        }
        check_tensor(plan, input, view)?;
        found[i] = Some(view);
    }
    for (i, input) in plan.inputs.iter().enumerate() {
        if !is_given[i] && input.default.is_none() && !optional.contains(&i) {
            let expected = match input.axes.is_empty() {
                true => format!("it as a scalar of type {}", input.dtype.name()),
                false => format!("it as a tensor of type {} with axes {}", input.dtype.name(), axes_text(plan, &input.axes)),
            };
            return Err(RuntimeError::MissingInput { name: input.name.clone(), expected });
        }
    }
    let tensors = found;
    let from = extents_from_shapes(plan, &tensors, &mut env)?;
    for (name, extent) in caller_extents {
        caller_extent(plan, name, *extent, &from, &tensors, &mut env)?;
    }
    let extents = (0..plan.axes.len() as u32).map(|a| env.extent(a)).collect::<Result<Vec<i64>, _>>()?;
    for (input, view) in plan.inputs.iter().zip(&tensors) {
        let Some(view) = view else { continue };
        for (axis, found) in input.axes.iter().zip(view.shape()) {
            if extents[*axis as usize] != *found as i64 {
                return Err(mismatch(plan, input, view, *axis, *found as i64, extents[*axis as usize]));
            }
        }
    }
    for (name, extent) in caller_extents {
        // An axis whose extent the program computes: the caller's word must agree.
        if let Some(axis) = axis_named(plan, name)
            && extents[axis] != *extent
        {
            let text = format!("{name} == {extent}");
            return Err(RuntimeError::Require { text, values: format!("the program gives {}", extents[axis]) });
        }
    }
    for require in &plan.requires {
        match env.eval(&require.cond, Ints::Wrap)? {
            Scalar::Bool(true) => {}
            Scalar::Bool(false) => return Err(RuntimeError::Require { text: require.text.clone(), values: env.describe(&require.cond) }),
            other => return Err(RuntimeError::Bug(format!("the condition `{}` is {other:?}", require.text))),
        }
    }
    let mut scalars = vec![None; plan.inputs.len()];
    let mut fills = vec![None; plan.inputs.len()];
    for (i, input) in plan.inputs.iter().enumerate() {
        if input.axes.is_empty() {
            scalars[i] = Some(env.scalar(i as u32)?);
        } else if let (None, Some(default)) = (tensors[i], &input.default) {
            let value = env.eval(default, Ints::Wrap)?;
            fills[i] = Some(coerce(value, input.dtype).ok_or_else(|| RuntimeError::Bug(format!("the default of `{}` is {value:?}", input.name)))?);
        }
    }
    Ok(Bound { extents, scalars, tensors, fills })
}

/// Whether elements of `storage` can stand for values of `dtype`. Ints may come as bytes and bools as ints (0 is false).
fn fits(dtype: DType, storage: Storage) -> bool {
    match dtype {
        DType::Real => is_real(storage),
        DType::Int | DType::Bool => !is_real(storage),
        DType::Complex => false,
    }
}

fn dtype_text(dtype: DType) -> String {
    let storages = match dtype {
        DType::Real => " (f32, f64, bf16 or f16)",
        DType::Int => " (i64, i32 or u8)",
        DType::Bool => " (u8, or i64 and i32 where 0 is false)",
        DType::Complex => "",
    };
    format!("{}{storages}", dtype.name())
}

fn check_tensor(plan: &Plan, input: &InputPlan, view: &TensorView<'_>) -> Result<(), RuntimeError> {
    let axes = axes_text(plan, &input.axes);
    if view.shape().len() != input.axes.len() {
        return Err(RuntimeError::WrongRank { name: input.name.clone(), axes, found: view.shape().to_vec() });
    }
    if !fits(input.dtype, view.storage()) {
        let (expected, found) = (dtype_text(input.dtype), storage_name(view.storage()));
        return Err(RuntimeError::WrongDtype { name: input.name.clone(), axes, shape: view.shape().to_vec(), expected, found });
    }
    Ok(())
}

fn mismatch(plan: &Plan, input: &InputPlan, view: &TensorView<'_>, axis: u32, found: i64, expected: i64) -> RuntimeError {
    RuntimeError::ExtentMismatch {
        name: input.name.clone(),
        axes: axes_text(plan, &input.axes),
        shape: view.shape().to_vec(),
        axis: plan.axes[axis as usize].name.clone(),
        found,
        expected,
    }
}

/// The first input that gives each axis its extent, by axis number.
type From = HashMap<u32, usize>;

fn extents_from_shapes(plan: &Plan, tensors: &[Option<&TensorView<'_>>], env: &mut Env<'_>) -> Result<From, RuntimeError> {
    let mut from: From = HashMap::new();
    let mut extents: HashMap<u32, i64> = HashMap::new();
    for (i, input) in plan.inputs.iter().enumerate() {
        let Some(view) = tensors[i] else { continue };
        for (axis, found) in input.axes.iter().zip(view.shape()) {
            let Some(axis_plan) = plan.axes.get(*axis as usize) else { return Err(RuntimeError::Bug(format!("the plan has no axis {axis}"))) };
            if axis_plan.extent.is_some() {
                continue;
            }
            let found = *found as i64;
            let first = *extents.entry(*axis).or_insert(found);
            let other = *from.entry(*axis).or_insert(i);
            if first != found {
                return Err(RuntimeError::ExtentConflict {
                    name: input.name.clone(),
                    axes: axes_text(plan, &input.axes),
                    shape: view.shape().to_vec(),
                    axis: axis_plan.name.clone(),
                    found,
                    other: plan.inputs[other].name.clone(),
                    other_extent: first,
                });
            }
            env.set_extent(*axis, found);
        }
    }
    Ok(from)
}

/// Names need not be unique after inlining; the axes of inputs are those that callers mean.
fn axis_named(plan: &Plan, name: &str) -> Option<usize> {
    let of_input = plan.inputs.iter().flat_map(|i| &i.axes).map(|a| *a as usize).find(|a| plan.axes.get(*a).is_some_and(|a| a.name == name));
    of_input.or_else(|| plan.axes.iter().position(|a| a.name == name))
}

fn caller_extent(plan: &Plan, name: &str, extent: i64, from: &From, tensors: &[Option<&TensorView<'_>>], env: &mut Env<'_>) -> Result<(), RuntimeError> {
    let Some(axis) = axis_named(plan, name) else {
        let known = known(plan.axes.iter().map(|a| a.name.as_str()));
        return Err(RuntimeError::UnknownAxis { name: name.to_string(), nearest: nearest(name, known.iter().map(String::as_str)), known });
    };
    if plan.axes[axis].extent.is_some() {
        return Ok(());
    }
    match from.get(&(axis as u32)) {
        None => env.set_extent(axis as u32, extent),
        Some(i) => {
            let found = env.extent(axis as u32)?;
            if let (true, Some(view)) = (found != extent, tensors[*i]) {
                return Err(mismatch(plan, &plan.inputs[*i], view, axis as u32, found, extent));
            }
        }
    }
    Ok(())
}

/// Computes buffer sizes, grids and arguments for a bound call.
///
/// `available`: bytes that the outputs, temporaries and conversions together may take.
/// Errors: [`RuntimeError::TooLarge`] for sizes beyond the address space or `available`.
pub fn resolve(plan: &Plan, bound: &Bound<'_>, available: Option<u64>) -> Result<Call, RuntimeError> {
    let mut env = bound.env(plan);
    let mut buffers = Vec::with_capacity(plan.buffers.len());
    let mut need = 0u64;
    for buffer in &plan.buffers {
        let what = format!("`{}`", buffer.name);
        let dims = buffer.dims.iter().map(|d| env.int(d, &what).map(|n| n.max(0) as usize)).collect::<Result<Vec<usize>, _>>()?;
        let count = elements(&dims).filter(|n| n.checked_mul(buffer.storage.bytes()).is_some_and(|b| b <= isize::MAX as usize));
        let elements = count.ok_or_else(|| RuntimeError::TooLarge { what: format!("`{}` of shape {dims:?}", buffer.name), bytes: None, available: None })?;
        let bytes = elements * buffer.storage.bytes();
        let lent = match buffer.kind {
            BufferKind::Input(i) => bound.tensors.get(i as usize).is_some_and(|t| t.is_some_and(|t| t.storage() == buffer.storage)),
            BufferKind::Output(_) | BufferKind::Temp | BufferKind::Block => false,
        };
        need += if lent { 0 } else { bytes as u64 };
        if available.is_some_and(|a| need > a) {
            let what = format!("`{}` of shape {dims:?}", buffer.name);
            return Err(RuntimeError::TooLarge { what, bytes: Some(need), available });
        }
        buffers.push(BufferCall { kind: buffer.kind, storage: buffer.storage, dims, elements, bytes });
    }
    let mut launches = Vec::with_capacity(plan.launches.len());
    for launch in &plan.launches {
        let blocks = env.int(&launch.blocks, "a grid")?;
        if blocks <= 0 {
            continue;
        }
        if launch.buffers.iter().any(|b| *b as usize >= buffers.len()) {
            return Err(RuntimeError::Bug("a launch names a buffer that the plan lacks".to_string()));
        }
        let mut ints = Vec::with_capacity(launch.ints.len());
        for expr in &launch.ints {
            match env.eval(expr, Ints::Wrap)? {
                Scalar::Int(i) => ints.push(i),
                Scalar::Bool(b) => ints.push(i64::from(b)),
                other => return Err(RuntimeError::Bug(format!("an int argument is {other:?}"))),
            }
        }
        let mut reals = Vec::with_capacity(launch.reals.len());
        for expr in &launch.reals {
            match env.eval(expr, Ints::Wrap)? {
                Scalar::Real(r) => reals.push(r as f32),
                other => return Err(RuntimeError::Bug(format!("a real argument is {other:?}"))),
            }
        }
        launches.push(LaunchCall { kernel: launch.kernel, blocks: blocks as u64, buffers: launch.buffers.clone(), ints, reals });
    }
    Ok(Call { buffers, launches })
}

/// Shape of output `index`.
pub fn output_shape(plan: &Plan, bound: &Bound<'_>, index: usize) -> Vec<usize> {
    plan.outputs[index].axes.iter().map(|a| bound.extents.get(*a as usize).map_or(0, |n| *n as usize)).collect()
}

/// The storage in which results are returned when the caller does not say: ints I64, bools U8, reals the widest storage among the
/// real inputs given (f64 counts as f32; bf16 and f16 together make f32; without real inputs f32).
pub fn natural_storage(dtype: DType, bound: &Bound<'_>) -> Storage {
    match dtype {
        DType::Bool => Storage::U8,
        DType::Int => Storage::I64,
        DType::Real | DType::Complex => {
            let mut reals = bound.tensors.iter().flatten().map(|t| t.storage()).filter(|s| is_real(*s));
            match reals.next() {
                Some(first @ (Storage::Bf16 | Storage::F16)) if reals.all(|s| s == first) => first,
                _ => Storage::F32,
            }
        }
    }
}

/// The array that fills a tensor input which was not given.
pub fn filled(storage: Storage, shape: &[usize], value: Scalar) -> Result<Tensor, RuntimeError> {
    let x = match value {
        Scalar::Bool(b) => f64::from(b),
        Scalar::Int(i) => i as f64,
        Scalar::Real(r) => r,
        Scalar::Complex(re, _) => re,
    };
    if x == 0.0 && x.is_sign_positive() {
        return Tensor::zeros(storage, shape);
    }
    let one = Tensor::from_f64(storage, &[1], &[x])?;
    let too_large = || RuntimeError::TooLarge { what: format!("an array of shape {shape:?}"), bytes: None, available: None };
    let n = elements(shape).ok_or_else(too_large)?;
    let mut out = Tensor::zeros(storage, shape)?;
    let width = storage.bytes();
    let mut view = out.view_mut();
    let bytes = view.bytes_mut();
    for i in 0..n {
        bytes[i * width..(i + 1) * width].copy_from_slice(one.bytes());
    }
    Ok(out)
}
