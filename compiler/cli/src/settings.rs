//! `--set NAME=VALUE`: the program says what the value is.

use crate::args::Setting;
use crate::fail::Failure;
use attnc_compiler::kernel::plan::Plan;
use attnc_runtime::error::nearest;
use attnc_runtime::{DType, Scalar};
use std::collections::BTreeSet;

/// Settings sorted by what they name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    pub scalars: Vec<(String, Scalar)>,
    pub extents: Vec<(String, i64)>,
}

/// Types every setting by the signature.
///
/// Errors: unknown names (with the nearest known one), values of another type, names given twice.
pub fn typed(settings: &[Setting], signature: &Plan) -> Result<Settings, Failure> {
    let mut out = Settings::default();
    let mut seen = BTreeSet::new();
    for Setting { name, value } in settings {
        if !seen.insert(name) {
            return Err(Failure::new(format!("--set gives `{name}` twice")));
        }
        if let Some(input) = signature.inputs.iter().find(|i| i.name == *name) {
            if !input.axes.is_empty() {
                let axes = attnc_runtime::plan::axes_text(signature, &input.axes);
                return Err(Failure::new(format!("input `{name}` is a tensor with axes {axes}; --set gives scalars")));
            }
            let scalar = scalar(value, input.dtype).map_err(|e| Failure::new(format!("scalar `{name}` is of type {}: {e}", input.dtype.name())))?;
            out.scalars.push((name.clone(), scalar));
        } else if axis_names(signature).contains(&name.as_str()) {
            let extent = value.parse::<i64>().ok().filter(|e| (0..=1 << 40).contains(e));
            let extent = extent.ok_or_else(|| Failure::new(format!("the extent of axis `{name}` must be a whole number from 0 to 2^40, not `{value}`")))?;
            out.extents.push((name.clone(), extent));
        } else {
            let scalars: Vec<&str> = signature.inputs.iter().filter(|i| i.axes.is_empty()).map(|i| i.name.as_str()).collect();
            let axes = axis_names(signature);
            let failure = Failure::new(format!("--set {name}: the kernel has no scalar and no axis `{name}`"));
            let near = nearest(name, scalars.iter().chain(&axes).copied());
            return Err(match near {
                Some(near) => failure.help(format!("did you mean `{near}`?")),
                None => failure.help(format!("scalars: {}; axes: {}", list(&scalars), list(&axes))),
            });
        }
    }
    Ok(out)
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".to_string() } else { names.join(", ") }
}

/// Axes of inputs and outputs: those that users can see.
fn axis_names(signature: &Plan) -> Vec<&str> {
    let used = signature.inputs.iter().flat_map(|i| &i.axes).chain(signature.outputs.iter().flat_map(|o| &o.axes));
    let mut names: Vec<&str> = used.filter_map(|a| signature.axes.get(*a as usize)).map(|a| a.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A value as the program's type reads it.
pub fn scalar(text: &str, dtype: DType) -> Result<Scalar, String> {
    match dtype {
        DType::Int => match text.parse::<i64>() {
            Ok(i) => Ok(Scalar::Int(i)),
            Err(e) if matches!(e.kind(), std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow) => Err(format!("`{text}` does not fit 64 bits")),
            Err(_) => Err(format!("`{text}` is not a whole number")),
        },
        DType::Real => match text.parse::<f64>() {
            Ok(r) if r.is_infinite() && text.contains(|c: char| c.is_ascii_digit()) => Err(format!("`{text}` is out of range")),
            Ok(r) => Ok(Scalar::Real(r)),
            Err(_) => Err(format!("`{text}` is not a number")),
        },
        DType::Bool => match text {
            "true" | "1" => Ok(Scalar::Bool(true)),
            "false" | "0" => Ok(Scalar::Bool(false)),
            _ => Err(format!("`{text}` is not true or false")),
        },
        DType::Complex => Err("complex scalars cannot be given".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_typed_by_the_program() {
        assert_eq!(scalar("-3", DType::Int), Ok(Scalar::Int(-3)));
        assert_eq!(scalar("1e-3", DType::Real), Ok(Scalar::Real(1e-3)));
        assert_eq!(scalar("3", DType::Real), Ok(Scalar::Real(3.0)));
        assert_eq!(scalar("-inf", DType::Real), Ok(Scalar::Real(f64::NEG_INFINITY)));
        assert_eq!(scalar("1", DType::Bool), Ok(Scalar::Bool(true)));
        for (text, dtype) in [("1.5", DType::Int), ("1e3", DType::Int), ("9223372036854775808", DType::Int), ("x", DType::Real), ("1e999", DType::Real), ("yes", DType::Bool)] {
            assert!(scalar(text, dtype).is_err_and(|e| e.contains(text)), "{text}");
        }
    }
}
