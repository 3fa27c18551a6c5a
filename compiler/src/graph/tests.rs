//! Claims about binding, verification and printing.

use super::bind::{BindError, bind};
use super::ir::*;
use super::verify::verify;
use crate::base::Span;
use crate::ops::{DType, Scalar, ScalarOp};
use crate::reduce::ReduceOp;
use std::collections::BTreeMap;

fn add(g: &mut Graph, op: Op) -> NodeId {
    g.build(op, Span::default()).unwrap()
}

fn input(g: &mut Graph, name: &str, dtype: DType, axes: &[AxisId], default: Option<NodeId>) -> InputId {
    g.inputs.push(Input { name: name.into(), dtype, axes: axes.to_vec(), default, fact: None, span: Span::default() });
    InputId(g.inputs.len() as u32 - 1)
}

fn axis(g: &mut Graph, name: &str, extent: Extent) -> AxisId {
    g.add_axis(Axis { name: name.into(), extent, twin: None, split: None, span: Span::default() })
}

/// `kernel k(q: [t,d], k: [s,d], block: int = 4, scale: real = T) -> (o: [c])` with `axis c: ceildiv(T, block)`.
fn sample() -> Graph {
    let mut g = Graph { name: "sample".into(), ..Graph::default() };
    let (t, d, s) = (axis(&mut g, "t", Extent::Inputs), axis(&mut g, "d", Extent::Inputs), axis(&mut g, "s", Extent::Inputs));
    let q = input(&mut g, "q", DType::Real, &[t, d], None);
    input(&mut g, "k", DType::Real, &[s, d], None);
    let four = add(&mut g, Op::Const(Scalar::Int(4)));
    let block = input(&mut g, "block", DType::Int, &[], Some(four));
    let tt = add(&mut g, Op::Extent(t));
    let real = add(&mut g, Op::Map { op: ScalarOp::ToReal, args: vec![tt] });
    input(&mut g, "scale", DType::Real, &[], Some(real));
    let block = add(&mut g, Op::Input(block));
    let blocks = add(&mut g, Op::Map { op: ScalarOp::CeilDiv, args: vec![tt, block] });
    let c = axis(&mut g, "c", Extent::Value(blocks));
    let zero = add(&mut g, Op::Const(Scalar::Int(0)));
    let positive = add(&mut g, Op::Map { op: ScalarOp::Lt, args: vec![zero, block] });
    g.requires.push(Require { cond: positive, text: "block > 0".into(), implicit: false, span: Span::default() });
    let q = add(&mut g, Op::Input(q));
    let sum = add(&mut g, Op::Reduce { op: ReduceOp::Sum, axes: vec![t, d], body: q, mask: None });
    g.outputs.push(Output { name: "o".into(), dtype: DType::Real, axes: vec![c], node: sum, span: Span::default() });
    g
}

fn call(g: &Graph, shapes: &[(&str, &[usize])], scalars: &[(&str, Scalar)]) -> Result<super::bind::Binding, BindError> {
    let shapes = shapes.iter().map(|(n, s)| (n.to_string(), s.to_vec())).collect();
    let scalars: BTreeMap<String, Scalar> = scalars.iter().map(|(n, s)| (n.to_string(), *s)).collect();
    bind(g, &shapes, &scalars)
}

const GOOD: &[(&str, &[usize])] = &[("q", &[10, 3]), ("k", &[7, 3])];

#[test]
fn extents_and_defaults_depend_on_each_other() {
    let g = sample();
    let b = call(&g, GOOD, &[]).unwrap();
    assert_eq!(b.extents, [10, 3, 7, 3]);
    assert_eq!(b.scalars, [None, None, Some(Scalar::Int(4)), Some(Scalar::Real(10.0))]);
    let b = call(&g, GOOD, &[("block", Scalar::Real(5.0)), ("scale", Scalar::Int(2))]).unwrap();
    assert_eq!((b.extents[3], b.scalars[3]), (2, Some(Scalar::Real(2.0))));
}

#[test]
fn wrong_calls_say_what_is_wrong() {
    let g = sample();
    let says = |shapes: &[(&str, &[usize])], scalars: &[(&str, Scalar)]| call(&g, shapes, scalars).unwrap_err().to_string();
    assert_eq!(says(&GOOD[..1], &[]), "input `k` is missing: expected [s,d]");
    assert_eq!(says(&[("q", &[10, 3]), ("k", &[7, 4])], &[]), "axis `d` of `k` is 4 (shape [7, 4], expected [s,d]), of `q` it is 3");
    assert_eq!(says(&[("q", &[10]), ("k", &[7, 4])], &[]), "tensor `q` has shape [10], expected [t,d]");
    assert_eq!(says(&[GOOD[0], GOOD[1], ("v", &[1])], &[]), "there is no input `v`; `sample` takes `q`, `k`, `block`, `scale`");
    assert_eq!(says(&[GOOD[0], GOOD[1], ("block", &[])], &[]), "`block` is a scalar (int), not a tensor of shape []");
    assert_eq!(says(GOOD, &[("q", Scalar::Int(1))]), "`q` is a tensor [t,d], not a scalar");
    assert_eq!(says(GOOD, &[("block", Scalar::Real(1.5))]), "scalar `block` must be int, got 1.5");
    assert_eq!(says(GOOD, &[("block", Scalar::Int(0))]), "requirement `block > 0` does not hold");
}

#[test]
fn negative_extents_are_empty_and_absurd_sizes_are_refused() {
    let mut g = sample();
    g.requires.clear();
    assert_eq!(call(&g, GOOD, &[("block", Scalar::Int(-5))]).unwrap().extents[3], 0);
    let max = usize::MAX / 2;
    let error = call(&g, &[("q", &[max, 3]), ("k", &[max, 3])], &[]).unwrap_err();
    assert!(matches!(error, BindError::TooLarge { .. }), "{error}");
    assert_eq!(call(&g, &[("q", &[max, 0]), ("k", &[max, 0])], &[("block", Scalar::Int(1 << 40))]).map(|b| b.extents[1]), Ok(0));
}

#[test]
fn an_extent_that_depends_on_itself_is_an_error() {
    let mut g = sample();
    let c = AxisId(3);
    let own = add(&mut g, Op::Extent(c));
    g.axes[3].extent = Extent::Value(own);
    assert!(matches!(call(&g, GOOD, &[]), Err(BindError::Cyclic { .. })));
}

#[test]
fn declared_extents_bind_inputs() {
    let mut g = sample();
    input(&mut g, "w", DType::Real, &[AxisId(3)], None);
    let error = call(&g, &[GOOD[0], GOOD[1], ("w", &[4])], &[]).unwrap_err();
    assert_eq!(error.to_string(), "axis `c` of `w` is 4 (shape [4], expected [c]), its declared extent is 3");
}

#[test]
fn verify_finds_each_broken_invariant() {
    let faults = |change: fn(&mut Graph)| {
        let mut g = sample();
        assert_eq!(verify(&g), vec![]);
        change(&mut g);
        verify(&g).into_iter().map(|f| f.to_string()).collect::<Vec<_>>()
    };
    let has = |faults: Vec<String>, part: &str| assert!(faults.iter().any(|f| f.contains(part)), "{faults:?} lacks {part}");
    has(faults(|g| g.outputs[0].node = NodeId(99.into())), "does not exist");
    has(faults(|g| g.outputs[0].dtype = DType::Int), "declared int");
    has(faults(|g| g.outputs[0].axes = vec![AxisId(9)]), "axis does not exist");
    has(faults(|g| g.axes[3].extent = Extent::Value(NodeId(8.into()))), "must be a scalar int");
    has(faults(|g| g.dag[NodeId(7.into()).0].axes.clear()), "its operands give");
    has(faults(|g| g.inputs[0].axes = vec![AxisId(0), AxisId(0)]), "listed twice");
    let stale = |g: &mut Graph| g.dag[NodeId(6.into()).0].op = Op::Map { op: ScalarOp::Lt, args: vec![NodeId(0.into()), NodeId(3.into())] };
    has(faults(stale), "edges and operands differ");
    let mask = |g: &mut Graph| {
        let four = NodeId(0.into());
        let body = g.outputs[0].node;
        let op = Op::Reduce { op: ReduceOp::Sum, axes: vec![AxisId(0), AxisId(1)], body, mask: Some(four) };
        g.add(op, DType::Real, AxisSet::new(), Span::default());
    };
    has(faults(mask), "the mask %0 is int");
}

#[test]
fn a_graph_prints_in_order() {
    insta::assert_snapshot!(sample().to_string(), @r"
    graph sample {
      axis t
      axis d
      axis s
      axis c: %4
      input q: real [t,d]
      input k: real [s,d]
      input block: int = %0
      input scale: real = %2
      %0 int = const 4
      %1 int = extent t
      %2 real = real %1
      %3 int = input block
      %4 int = ceildiv %1, %3
      %5 int = const 0
      %6 bool = lt %5, %3
      %7 [t,d] real = input q
      %8 real = sum[t,d] %7
      require %6 `block > 0`
      output o: real [c] = %8
    }
    ");
}
