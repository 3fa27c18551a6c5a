//! Evaluates what the host computes before a launch: extents, scalars with their defaults, conditions.

use crate::error::{RuntimeError, scalar_text};
use attnc_compiler::kernel::plan::{AxisPlan, HostExpr, InputPlan};
use attnc_compiler::ops::{DType, Scalar, ScalarOp};
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug)]
enum Slot<T> {
    Unset,
    /// Being evaluated: meeting it again is a cycle.
    Busy,
    Done(T),
}

/// Extents and scalars of one call, evaluated when they are first asked for.
#[derive(Debug)]
pub struct Env<'p> {
    axes: &'p [AxisPlan],
    inputs: &'p [InputPlan],
    extents: Vec<Slot<i64>>,
    scalars: Vec<Slot<Scalar>>,
}

/// How int arithmetic that leaves 64 bits is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ints {
    /// As the interpreter does.
    Wrap,
    /// An error: sizes of buffers and grids must not wrap.
    Checked,
}

impl<'p> Env<'p> {
    /// Nothing is known yet.
    pub fn new(axes: &'p [AxisPlan], inputs: &'p [InputPlan]) -> Env<'p> {
        Env { axes, inputs, extents: vec![Slot::Unset; axes.len()], scalars: vec![Slot::Unset; inputs.len()] }
    }

    /// Fixes the extent of an axis.
    pub fn set_extent(&mut self, axis: u32, extent: i64) {
        if let Some(slot) = self.extents.get_mut(axis as usize) {
            *slot = Slot::Done(extent.max(0));
        }
    }

    /// Fixes a scalar input.
    pub fn set_scalar(&mut self, input: u32, value: Scalar) {
        if let Some(slot) = self.scalars.get_mut(input as usize) {
            *slot = Slot::Done(value);
        }
    }

    /// Extent of axis `axis`, never negative.
    ///
    /// Errors: [`RuntimeError::UnknownExtent`] when neither shapes nor the program give it.
    pub fn extent(&mut self, axis: u32) -> Result<i64, RuntimeError> {
        let plan = self.axes.get(axis as usize).ok_or_else(|| RuntimeError::Bug(format!("the plan has no axis {axis}")))?;
        match self.extents[axis as usize] {
            Slot::Done(n) => Ok(n),
            Slot::Busy => Err(RuntimeError::Bug(format!("the extent of axis `{}` depends on itself", plan.name))),
            Slot::Unset => {
                let expr = plan.extent.as_ref().ok_or_else(|| RuntimeError::UnknownExtent { axis: plan.name.clone() })?;
                self.extents[axis as usize] = Slot::Busy;
                let value = self.int(expr, &format!("the extent of axis `{}`", plan.name));
                self.extents[axis as usize] = value.as_ref().map_or(Slot::Unset, |n| Slot::Done((*n).max(0)));
                Ok(value?.max(0))
            }
        }
    }

    /// Value of scalar input `input`: the one given, or its default.
    ///
    /// Errors: [`RuntimeError::MissingInput`].
    pub fn scalar(&mut self, input: u32) -> Result<Scalar, RuntimeError> {
        let plan = self.inputs.get(input as usize).ok_or_else(|| RuntimeError::Bug(format!("the plan has no input {input}")))?;
        match self.scalars[input as usize] {
            Slot::Done(value) => Ok(value),
            Slot::Busy => Err(RuntimeError::Bug(format!("the default of `{}` depends on itself", plan.name))),
            Slot::Unset => {
                let expr = plan.default.as_ref().ok_or_else(|| RuntimeError::MissingInput {
                    name: plan.name.clone(),
                    expected: format!("it as a scalar of type {}", plan.dtype.name()),
                })?;
                self.scalars[input as usize] = Slot::Busy;
                let value = self.eval(expr, Ints::Wrap).map(|v| coerce(v, plan.dtype).unwrap_or(v));
                self.scalars[input as usize] = value.as_ref().map_or(Slot::Unset, |v| Slot::Done(*v));
                value
            }
        }
    }

    /// An Int that must not overflow; `what` names it in the error.
    pub fn int(&mut self, expr: &HostExpr, what: &str) -> Result<i64, RuntimeError> {
        match self.eval(expr, Ints::Checked) {
            Ok(Scalar::Int(n)) => Ok(n),
            Ok(other) => Err(RuntimeError::Bug(format!("{what} is {}, not an int", scalar_text(other)))),
            Err(RuntimeError::TooLarge { .. }) => Err(RuntimeError::TooLarge { what: what.to_string(), bytes: None, available: None }),
            Err(other) => Err(other),
        }
    }

    /// Value of an expression.
    pub fn eval(&mut self, expr: &HostExpr, ints: Ints) -> Result<Scalar, RuntimeError> {
        Ok(match expr {
            HostExpr::Int(i) => Scalar::Int(*i),
            HostExpr::Real(r) => Scalar::Real(*r),
            HostExpr::Bool(b) => Scalar::Bool(*b),
            HostExpr::Extent(axis) => Scalar::Int(self.extent(*axis)?),
            HostExpr::Scalar(input) => self.scalar(*input)?,
            HostExpr::Op(ScalarOp::Select, args) if args.len() == 3 => match self.eval(&args[0], ints)? {
                // Only the arm that is taken: the other may overflow.
                Scalar::Bool(true) => self.eval(&args[1], ints)?,
                Scalar::Bool(false) => self.eval(&args[2], ints)?,
                other => return Err(RuntimeError::Bug(format!("a condition is {}", scalar_text(other)))),
            },
            HostExpr::Op(op, args) => {
                let args = args.iter().map(|a| self.eval(a, ints)).collect::<Result<Vec<Scalar>, _>>()?;
                if ints == Ints::Checked && overflows(*op, &args) {
                    return Err(RuntimeError::TooLarge { what: "an int of the program".to_string(), bytes: None, available: None });
                }
                op.eval(&args).ok_or_else(|| RuntimeError::Bug(format!("`{}` does not take {args:?} on the host", op.name())))?
            }
        })
    }

    /// `name = value` of all extents and scalars that `expr` reads, for messages.
    pub fn describe(&mut self, expr: &HostExpr) -> String {
        let mut seen = BTreeSet::new();
        leaves(expr, &mut seen);
        let mut parts = Vec::new();
        for (is_scalar, index) in seen {
            if is_scalar {
                if let (Some(input), Ok(value)) = (self.inputs.get(index as usize), self.scalar(index)) {
                    parts.push(format!("{} = {}", input.name, scalar_text(value)));
                }
            } else if let (Some(axis), Ok(value)) = (self.axes.get(index as usize), self.extent(index)) {
                parts.push(format!("{} = {value}", upper_first(&axis.name)));
            }
        }
        parts.join(", ")
    }
}

/// The expression as a program would write it, over names of extents and scalars.
pub fn text(expr: &HostExpr, axes: &[AxisPlan], inputs: &[InputPlan]) -> String {
    infix(expr, axes, inputs, 0)
}

fn infix(expr: &HostExpr, axes: &[AxisPlan], inputs: &[InputPlan], level: u8) -> String {
    let paren = |own: u8, text: String| if own < level { format!("({text})") } else { text };
    match expr {
        HostExpr::Int(i) => i.to_string(),
        HostExpr::Real(r) => r.to_string(),
        HostExpr::Bool(b) => b.to_string(),
        HostExpr::Extent(axis) => axes.get(*axis as usize).map_or("?".to_string(), |a| upper_first(&a.name)),
        HostExpr::Scalar(input) => inputs.get(*input as usize).map_or("?".to_string(), |i| i.name.clone()),
        HostExpr::Op(ScalarOp::ToReal | ScalarOp::ToInt, args) if args.len() == 1 => infix(&args[0], axes, inputs, level),
        HostExpr::Op(ScalarOp::Select, args) if args.len() == 3 => {
            let [c, a, b] = [0, 1, 2].map(|i| infix(&args[i], axes, inputs, 1));
            paren(0, format!("if {c} then {a} else {b}"))
        }
        HostExpr::Op(ScalarOp::CeilDiv | ScalarOp::IntDiv, args) if args.len() == 2 && args[1] == HostExpr::Int(1) => infix(&args[0], axes, inputs, level),
        HostExpr::Op(ScalarOp::Mul, args) if args.len() == 2 && args[0] == HostExpr::Int(1) => infix(&args[1], axes, inputs, level),
        HostExpr::Op(ScalarOp::Mul, args) if args.len() == 2 && args[1] == HostExpr::Int(1) => infix(&args[0], axes, inputs, level),
        HostExpr::Op(op, args) => {
            let sign = match op {
                ScalarOp::Or => Some((1, "or")),
                ScalarOp::And => Some((2, "and")),
                ScalarOp::Lt => Some((3, "<")),
                ScalarOp::Le => Some((3, "<=")),
                ScalarOp::Eq => Some((3, "==")),
                ScalarOp::Ne => Some((3, "!=")),
                ScalarOp::Add => Some((4, "+")),
                ScalarOp::Sub => Some((4, "-")),
                ScalarOp::Mul => Some((5, "*")),
                ScalarOp::Div => Some((5, "/")),
                ScalarOp::IntDiv => Some((5, "div")),
                ScalarOp::Mod => Some((5, "mod")),
                ScalarOp::Pow => Some((6, "^")),
                _ => None,
            };
            match (sign, &args[..]) {
                (Some((own, sign)), [a, b]) => paren(own, format!("{} {sign} {}", infix(a, axes, inputs, own), infix(b, axes, inputs, own + 1))),
                _ => {
                    let args: Vec<String> = args.iter().map(|a| infix(a, axes, inputs, 0)).collect();
                    format!("{}({})", op.name(), args.join(", "))
                }
            }
        }
    }
}

/// The name of an extent in programs: the axis name with a capital.
fn upper_first(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn leaves(expr: &HostExpr, seen: &mut BTreeSet<(bool, u32)>) {
    match expr {
        HostExpr::Int(_) | HostExpr::Real(_) | HostExpr::Bool(_) => {}
        HostExpr::Extent(axis) => {
            seen.insert((false, *axis));
        }
        HostExpr::Scalar(input) => {
            seen.insert((true, *input));
        }
        HostExpr::Op(_, args) => args.iter().for_each(|a| leaves(a, seen)),
    }
}

/// `value` as `dtype` where nothing is lost: Int to Real, 0 and 1 to Bool.
pub fn coerce(value: Scalar, dtype: DType) -> Option<Scalar> {
    match (value, dtype) {
        (Scalar::Int(i), DType::Real) => Some(Scalar::Real(i as f64)),
        (Scalar::Int(i @ (0 | 1)), DType::Bool) => Some(Scalar::Bool(i == 1)),
        (value, dtype) => (value.dtype() == dtype).then_some(value),
    }
}

fn overflows(op: ScalarOp, args: &[Scalar]) -> bool {
    match (op, args) {
        (ScalarOp::Add, [Scalar::Int(a), Scalar::Int(b)]) => a.checked_add(*b).is_none(),
        (ScalarOp::Sub, [Scalar::Int(a), Scalar::Int(b)]) => a.checked_sub(*b).is_none(),
        (ScalarOp::Mul, [Scalar::Int(a), Scalar::Int(b)]) => a.checked_mul(*b).is_none(),
        (ScalarOp::Neg | ScalarOp::Abs, [Scalar::Int(a)]) => a.checked_neg().is_none(),
        (ScalarOp::Pow, [Scalar::Int(a), Scalar::Int(b)]) => *b > 0 && u32::try_from(*b).ok().and_then(|b| a.checked_pow(b)).is_none() && a.abs() > 1,
        (ScalarOp::Shl, [Scalar::Int(a), Scalar::Int(b)]) => (*b).clamp(0, 62) as u32 >= a.unsigned_abs().leading_zeros() && *a != 0,
        (ScalarOp::Pow2Ceil, [Scalar::Int(a)]) => *a > 1 << 62,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use attnc_compiler::kernel::ir::Storage;

    fn op(op: ScalarOp, args: Vec<HostExpr>) -> HostExpr {
        HostExpr::Op(op, args)
    }

    #[test]
    fn extents_that_overflow_are_errors_and_wrapping_stays_for_values() {
        let inputs = [InputPlan { name: "n".into(), dtype: DType::Int, axes: vec![], default: Some(HostExpr::Int(i64::MAX)), storage: Storage::I64 }];
        let axes = [AxisPlan { name: "c".into(), extent: Some(op(ScalarOp::Mul, vec![HostExpr::Scalar(0), HostExpr::Int(2)])) }];
        let mut env = Env::new(&axes, &inputs);
        let error = env.extent(0).unwrap_err().to_string();
        assert!(error.contains("the extent of axis `c`"), "{error}");
        let sum = op(ScalarOp::Add, vec![HostExpr::Scalar(0), HostExpr::Int(1)]);
        assert_eq!(env.eval(&sum, Ints::Wrap).unwrap(), Scalar::Int(i64::MIN));
    }

    #[test]
    fn negative_extents_are_empty_axes_and_cycles_are_found() {
        let axes = [
            AxisPlan { name: "m".into(), extent: Some(HostExpr::Int(-3)) },
            AxisPlan { name: "u".into(), extent: Some(HostExpr::Extent(2)) },
            AxisPlan { name: "v".into(), extent: Some(HostExpr::Extent(1)) },
        ];
        let mut env = Env::new(&axes, &[]);
        assert_eq!(env.extent(0).unwrap(), 0);
        assert!(env.extent(1).unwrap_err().is_bug());
        assert!(env.extent(9).unwrap_err().is_bug());
    }

    #[test]
    fn expressions_read_like_programs() {
        let axes = [AxisPlan { name: "t".into(), extent: None }];
        let sum = op(ScalarOp::Add, vec![HostExpr::Extent(0), HostExpr::Int(1)]);
        let all = op(ScalarOp::CeilDiv, vec![op(ScalarOp::Mul, vec![sum.clone(), HostExpr::Int(3)]), op(ScalarOp::Sub, vec![HostExpr::Int(4), sum])]);
        assert_eq!(text(&all, &axes, &[]), "ceildiv((T + 1) * 3, 4 - (T + 1))");
    }

    #[test]
    fn the_arm_not_taken_is_not_evaluated() {
        let mut env = Env::new(&[], &[]);
        let big = op(ScalarOp::Mul, vec![HostExpr::Int(i64::MAX), HostExpr::Int(2)]);
        let choice = op(ScalarOp::Select, vec![HostExpr::Bool(false), big, HostExpr::Int(7)]);
        assert_eq!(env.int(&choice, "x").unwrap(), 7);
    }
}
