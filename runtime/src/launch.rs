//! From a bound call to a finished one: lends the caller's memory to the driver where it fits, converts where it does not.

use crate::driver::{Executable, Slot};
use crate::error::RuntimeError;
use crate::plan::{Bound, BufferCall, Call, filled, resolve};
use crate::tensor::{Tensor, TensorViewMut};
use attnc_compiler::kernel::plan::{BufferKind, Plan};

/// An input in the storage and layout that the kernels read.
pub(crate) enum Lent<'a> {
    Caller(&'a [u8]),
    Converted(Tensor),
}

impl Lent<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Lent::Caller(bytes) => bytes,
            Lent::Converted(tensor) => tensor.bytes(),
        }
    }
}

/// Runs `code`, compiled from `plan`, on a call bound against a signature with the same inputs and outputs.
///
/// `outputs`: one view for each output, in order, already checked for shape and dtype. Views that have the storage of the kernels are
/// written in place; others receive a converted copy.
/// Errors: too little memory, an element that does not fit, or the device's; outputs may then be partly written.
pub fn launch(plan: &Plan, code: &dyn Executable, bound: &Bound<'_>, mut outputs: Vec<TensorViewMut<'_>>, available: Option<u64>) -> Result<(), RuntimeError> {
    let call = resolve(plan, bound, available)?;
    let lent = inputs(plan, &call, bound)?;
    let mut own: Vec<Option<Tensor>> = Vec::with_capacity(call.buffers.len());
    for buffer in &call.buffers {
        let in_place = match buffer.kind {
            BufferKind::Output(i) => outputs.get(i as usize).is_some_and(|o| o.storage() == buffer.storage),
            BufferKind::Input(_) | BufferKind::Temp | BufferKind::Block => true,
        };
        own.push(if in_place { None } else { Some(Tensor::zeros(buffer.storage, &buffer.dims)?) });
    }
    {
        let mut targets: Vec<Option<&mut [u8]>> = outputs.iter_mut().map(|o| Some(o.bytes_mut())).collect();
        let mut slots = Vec::with_capacity(call.buffers.len());
        for ((buffer, lent), own) in call.buffers.iter().zip(&lent).zip(&mut own) {
            slots.push(match (buffer.kind, lent, own) {
                (BufferKind::Temp | BufferKind::Block, _, _) => Slot::Temp,
                (BufferKind::Input(_), Some(lent), _) => Slot::In(lent.bytes()),
                (BufferKind::Output(_), _, Some(own)) => Slot::Out(own.view_mut().into_bytes()),
                (BufferKind::Output(i), _, None) => match targets.get_mut(i as usize).and_then(Option::take) {
                    Some(bytes) => Slot::Out(bytes),
                    None => return Err(RuntimeError::Bug(format!("output {i} has two buffers"))),
                },
                (BufferKind::Input(i), None, _) => return Err(RuntimeError::Bug(format!("input {i} was not bound"))),
            });
        }
        for (buffer, slot) in call.buffers.iter().zip(&slots) {
            let length = match slot {
                Slot::In(bytes) => bytes.len(),
                Slot::Out(bytes) => bytes.len(),
                Slot::Temp => buffer.bytes,
            };
            if length != buffer.bytes {
                return Err(RuntimeError::Bug(format!("{:?} of {:?} has {length} bytes instead of {}", buffer.kind, buffer.dims, buffer.bytes)));
            }
        }
        code.execute(&call, &mut slots)?;
    }
    for (buffer, own) in call.buffers.iter().zip(&own) {
        if let (BufferKind::Output(i), Some(tensor)) = (buffer.kind, own) {
            outputs[i as usize].copy_from(&tensor.view())?;
        }
    }
    Ok(())
}

/// By buffer: the bytes of inputs.
fn inputs<'a>(plan: &Plan, call: &Call, bound: &Bound<'a>) -> Result<Vec<Option<Lent<'a>>>, RuntimeError> {
    let of = |buffer: &BufferCall| match buffer.kind {
        BufferKind::Input(i) => input(plan, buffer, i as usize, bound).map(Some),
        BufferKind::Output(_) | BufferKind::Temp | BufferKind::Block => Ok(None),
    };
    call.buffers.iter().map(of).collect()
}

/// The bytes of input `i` in the storage of its buffer.
pub(crate) fn input<'a>(plan: &Plan, buffer: &BufferCall, i: usize, bound: &Bound<'a>) -> Result<Lent<'a>, RuntimeError> {
    let (Some(input), Some(tensor), Some(fill), Some(scalar)) = (plan.inputs.get(i), bound.tensors.get(i), bound.fills.get(i), bound.scalars.get(i)) else {
        return Err(RuntimeError::Bug(format!("the plan has no input {i}")));
    };
    Ok(match (tensor, fill.or(*scalar)) {
        (Some(view), _) => match view.direct() {
            Some(bytes) if view.storage() == buffer.storage => Lent::Caller(bytes),
            _ => Lent::Converted(view.convert(buffer.storage).map_err(|e| e.of_input(&input.name))?),
        },
        (None, Some(value)) => Lent::Converted(filled(buffer.storage, &buffer.dims, value)?),
        (None, None) => {
            let what = format!("the default of `{}` must be given on this target", input.name);
            return Err(RuntimeError::Unsupported { target: "native", what });
        }
    })
}
