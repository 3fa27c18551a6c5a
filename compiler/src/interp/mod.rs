//! The reference interpreter: what a graph means, in f64. Every target must agree with it.
//!
//! A node is evaluated under an environment that binds some axes to positions; the result is an array over its other axes.
//! Arrays stay small: a node whose iteration space is large binds its leading axis and loops, so bodies of reductions are never
//! whole in memory. Scans run their steps one after the other. Nothing is rewritten, so this is the oracle for everything else.

mod eval;
pub mod kernel;
mod map;
mod order;
mod plan;
mod read;
mod reduce;
mod scan;
#[cfg(test)]
mod tests;
mod value;

use crate::graph::bind::{Binding, BindError, bind, is_host, signature};
use crate::graph::{Graph, InputId};
use crate::ops::Scalar;
use std::collections::BTreeMap;
pub use value::{Array, Data, MAX_BYTES};

/// Why a graph could not be interpreted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InterpError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("tensor `{name}` has {found} elements, expected {expected}")]
    Dtype { name: String, found: &'static str, expected: String },
    #[error("tensor `{name}` has {found} elements for shape {shape:?}")]
    Length { name: String, found: usize, shape: Vec<usize> },
    #[error("the interpreter would need {bytes} bytes more, beyond its limit of {MAX_BYTES}")]
    TooLarge { bytes: u64 },
    #[error("the program is nested too deeply for the interpreter")]
    TooDeep,
    #[error("a scan over `{axis}` needs its own results of all steps")]
    Cyclic { axis: String },
    #[error("broken graph: {0}")]
    Broken(String),
}

/// Stack of the interpreting thread: evaluation recurses over the graph, whose chains can be long.
const STACK: usize = 512 << 20;

/// Largest iteration space, in elements, that [`run`] computes in one go.
pub const LIMIT: usize = 1 << 19;

/// Evaluates all outputs.
///
/// Shapes: `inputs` in the storage order of the graph's inputs; outputs likewise, every element written. Ints are taken for real
/// inputs, bools for ints, ints for bools. Bool outputs stay bool.
/// Errors: everything that [`bind`] finds; data that does not match its shape or dtype; requirements on data that do not hold;
/// programs beyond [`MAX_BYTES`]; graphs that `verify` would refuse.
pub fn run(graph: &Graph, inputs: &BTreeMap<String, Array>, scalars: &BTreeMap<String, Scalar>) -> Result<BTreeMap<String, Array>, InterpError> {
    run_within(graph, inputs, scalars, LIMIT)
}

/// As [`run`] with another limit on spaces computed in one go: small ones loop over everything. Results do not depend on it, except
/// for the order of sums.
pub fn run_within(
    graph: &Graph,
    inputs: &BTreeMap<String, Array>,
    scalars: &BTreeMap<String, Scalar>,
    limit: usize,
) -> Result<BTreeMap<String, Array>, InterpError> {
    let shapes = inputs.iter().map(|(name, array)| (name.clone(), array.shape.clone())).collect();
    let binding = bind(graph, &shapes, scalars)?;
    for (i, input) in graph.inputs.iter().enumerate() {
        let Some(array) = inputs.get(&input.name) else { continue };
        let elements = array.shape.iter().try_fold(1usize, |n, e| n.checked_mul(*e));
        if elements != Some(array.data.len()) {
            return Err(InterpError::Length { name: input.name.clone(), found: array.data.len(), shape: array.shape.clone() });
        }
        if array.data.dtype() != input.dtype && Data::fill(Scalar::zero(array.data.dtype()), 0).cast(input.dtype).is_none() {
            let (found, expected) = (array.data.dtype().name(), signature(graph, InputId(i as u32)));
            return Err(InterpError::Dtype { name: input.name.clone(), found, expected });
        }
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("interp".into()).stack_size(STACK);
        let handle = thread.spawn_scoped(scope, || outputs(graph, &binding, inputs, limit)).map_err(|e| InterpError::Broken(e.to_string()))?;
        handle.join().unwrap_or_else(|_| Err(InterpError::Broken("the interpreter stopped".into())))
    })
}

fn outputs(graph: &Graph, binding: &Binding, inputs: &BTreeMap<String, Array>, limit: usize) -> Result<BTreeMap<String, Array>, InterpError> {
    let mut eval = eval::Eval::new(graph, binding, inputs, limit)?;
    for require in graph.requires.iter().filter(|r| !is_host(graph, r.cond)) {
        let array = eval.output(require.cond, &[])?;
        if array.data != Data::Bool(vec![true; array.data.len()]) {
            return Err(BindError::Require { text: require.text.clone() }.into());
        }
    }
    graph.outputs.iter().map(|output| Ok((output.name.clone(), eval.output(output.node, &output.axes)?))).collect()
}
