//! Claims about the meaning of graphs, on graphs built by hand.

use super::*;
use crate::base::Span;
use crate::graph::*;
use crate::ops::{DType, ScalarOp};
use crate::reduce::ReduceOp;

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

/// Builds small graphs: axes by extent, inputs by name.
#[derive(Default)]
struct B {
    graph: Graph,
    inputs: BTreeMap<String, Array>,
    scalars: BTreeMap<String, Scalar>,
}

impl B {
    fn axis(&mut self, name: &str, extent: usize) -> AxisId {
        let n = self.int(extent as i64);
        self.graph.add_axis(Axis { name: name.into(), extent: Extent::Value(n), twin: None, split: None, span: Span::default() })
    }

    fn add(&mut self, op: Op) -> NodeId {
        self.graph.build(op, Span::default()).unwrap()
    }

    fn int(&mut self, v: i64) -> NodeId {
        self.add(Op::Const(Scalar::Int(v)))
    }

    fn real(&mut self, v: f64) -> NodeId {
        self.add(Op::Const(Scalar::Real(v)))
    }

    fn index(&mut self, a: AxisId) -> NodeId {
        self.add(Op::Index(a))
    }

    fn input(&mut self, name: &str, axes: &[AxisId], data: Data) -> NodeId {
        let shape = axes.iter().map(|a| self.extent(*a)).collect();
        let (dtype, axes) = (data.dtype(), axes.to_vec());
        self.graph.inputs.push(Input { name: name.into(), dtype, axes, default: None, fact: None, span: Span::default() });
        self.inputs.insert(name.into(), Array { shape, data });
        self.add(Op::Input(InputId(self.graph.inputs.len() as u32 - 1)))
    }

    fn extent(&self, a: AxisId) -> usize {
        match self.graph.axis(a).extent {
            Extent::Value(n) => match self.graph.op(n) {
                Op::Const(Scalar::Int(v)) => *v as usize,
                _ => panic!("extent"),
            },
            Extent::Inputs => panic!("extent"),
        }
    }

    fn map(&mut self, op: ScalarOp, args: &[NodeId]) -> NodeId {
        self.add(Op::Map { op, args: args.to_vec() })
    }

    fn read(&mut self, value: NodeId, subs: &[(AxisId, NodeId)]) -> NodeId {
        self.add(Op::Read { value, subs: subs.to_vec() })
    }

    fn reduce(&mut self, op: ReduceOp, axes: &[AxisId], body: NodeId, mask: Option<NodeId>) -> NodeId {
        self.add(Op::Reduce { op, axes: axes.to_vec(), body, mask })
    }

    /// A scan with these states (axes without the scan axis, initial value) and the leaf of each.
    fn scan(&mut self, axis: AxisId, states: &[(&[AxisId], NodeId)]) -> (ScanId, Vec<NodeId>) {
        let id = ScanId(self.graph.scans.len() as u32);
        self.graph.scans.push(Scan { axis, reverse: false, parent: None, derived: false, states: vec![], exports: vec![], history: vec![], span: Span::default() });
        let mut leaves = vec![];
        for (index, (axes, init)) in states.iter().enumerate() {
            let (dtype, set): (DType, AxisSet) = (self.graph.dtype(*init), axes.iter().copied().collect());
            let name = format!("S{index}");
            let state = State { name, dtype, axes: set, declared: axes.to_vec(), init: *init, old: *init, next: *init };
            self.graph.scans[id.index()].states.push(state);
            let old = self.add(Op::State { scan: id, index: index as u32 });
            self.graph.scans[id.index()].states[index].old = old;
            leaves.push(old);
        }
        (id, leaves)
    }

    fn next(&mut self, scan: ScanId, index: usize, node: NodeId) {
        self.graph.scans[scan.index()].states[index].next = node;
    }

    fn result(&mut self, scan: ScanId, index: u32) -> NodeId {
        self.add(Op::Final { scan, index })
    }

    fn out(mut self, node: NodeId, axes: &[AxisId]) -> Data {
        self.graph.outputs = vec![Output { name: "o".into(), dtype: self.graph.dtype(node), axes: axes.to_vec(), node, span: Span::default() }];
        assert_eq!(verify::verify(&self.graph), vec![]);
        let out = run(&self.graph, &self.inputs, &self.scalars).unwrap().remove("o").unwrap();
        assert_eq!(out.data.len(), out.shape.iter().product::<usize>());
        // The same with a loop over everything that can be looped over.
        let large = self.inputs.values().any(|a| a.data.len() > 1000);
        let limit = if large { 4000 } else { 1 };
        let looped = run_within(&self.graph, &self.inputs, &self.scalars, limit).unwrap().remove("o").unwrap();
        assert_eq!(format!("{looped:?}"), format!("{out:?}"));
        out.data
    }
}

fn reals(data: &[f64]) -> Data {
    Data::Real(data.to_vec())
}

fn ints(data: &[i64]) -> Data {
    Data::Int(data.to_vec())
}

/// Equality that takes NaN for NaN.
fn same(a: &Data, b: &Data) {
    assert_eq!(format!("{a:?}"), format!("{b:?}"));
}

fn reduced(op: ReduceOp, data: Data, mask: Option<Vec<bool>>) -> Data {
    let mut b = B::default();
    let s = b.axis("s", data.len());
    let x = b.input("x", &[s], data);
    let m = mask.map(|m| b.input("m", &[s], Data::Bool(m)));
    let r = b.reduce(op, &[s], x, m);
    b.out(r, &[])
}

#[test]
fn reductions_over_nothing_give_the_identity() {
    let cases = [(ReduceOp::Sum, 0.0), (ReduceOp::Prod, 1.0), (ReduceOp::Max, -INF), (ReduceOp::Min, INF)];
    for (op, want) in cases {
        same(&reduced(op, reals(&[]), None), &reals(&[want]));
        same(&reduced(op, reals(&[3.0, NAN]), Some(vec![false, false])), &reals(&[want]));
    }
    let cases = [(ReduceOp::Sum, 0), (ReduceOp::Prod, 1), (ReduceOp::Max, i64::MIN), (ReduceOp::Min, i64::MAX), (ReduceOp::ArgMax, -1), (ReduceOp::ArgMin, -1)];
    for (op, want) in cases {
        same(&reduced(op, ints(&[]), None), &ints(&[want]));
    }
    same(&reduced(ReduceOp::Any, Data::Bool(vec![]), None), &Data::Bool(vec![false]));
    same(&reduced(ReduceOp::All, Data::Bool(vec![]), None), &Data::Bool(vec![true]));
    same(&reduced(ReduceOp::All, Data::Bool(vec![true, false]), None), &Data::Bool(vec![false]));
    same(&reduced(ReduceOp::Any, Data::Bool(vec![false, true]), Some(vec![true, false])), &Data::Bool(vec![false]));
}

#[test]
fn masks_skip_elements_whatever_they_hold() {
    same(&reduced(ReduceOp::Sum, reals(&[1.0, NAN, 2.0]), Some(vec![true, false, true])), &reals(&[3.0]));
    same(&reduced(ReduceOp::Max, reals(&[1.0, INF, -2.0]), Some(vec![false, false, true])), &reals(&[-2.0]));
    same(&reduced(ReduceOp::Prod, ints(&[2, 0, 5]), Some(vec![true, false, true])), &ints(&[10]));
    same(&reduced(ReduceOp::Sum, Data::Complex(vec![(1.0, 2.0), (3.0, 4.0)]), None), &Data::Complex(vec![(4.0, 6.0)]));
}

#[test]
fn nan_goes_through_max_and_is_never_the_argmax() {
    same(&reduced(ReduceOp::Max, reals(&[1.0, NAN]), None), &reals(&[NAN]));
    same(&reduced(ReduceOp::ArgMax, reals(&[NAN, 1.0, 3.0, 3.0]), None), &ints(&[2]));
    same(&reduced(ReduceOp::ArgMin, reals(&[NAN, 1.0, 3.0, 1.0]), None), &ints(&[1]));
    same(&reduced(ReduceOp::ArgMax, reals(&[NAN, NAN]), Some(vec![false, true])), &ints(&[1]));
    same(&reduced(ReduceOp::ArgMax, reals(&[-INF, -INF]), Some(vec![false, true])), &ints(&[1]));
    same(&reduced(ReduceOp::ArgMin, ints(&[4, 4, 5]), None), &ints(&[0]));
}

#[test]
fn a_reduction_repeats_its_body_over_axes_that_only_the_mask_has() {
    let mut b = B::default();
    let (s, t) = (b.axis("s", 4), b.axis("t", 3));
    let one = b.real(1.5);
    let (i, j) = (b.index(s), b.index(t));
    let m = b.map(ScalarOp::Le, &[i, j]);
    let r = b.reduce(ReduceOp::Sum, &[s], one, Some(m));
    same(&b.out(r, &[t]), &reals(&[1.5, 3.0, 4.5]));
}

#[test]
fn argmax_over_two_axes_gives_the_flat_position_in_the_order_written() {
    // The largest value stands at (s 1, t 0) and at (s 0, t 2): flat positions 3 and 2 with s first, 1 and 4 with t first.
    for (flip, want) in [(false, 2), (true, 1)] {
        let mut b = B::default();
        let (s, t) = (b.axis("s", 2), b.axis("t", 3));
        let x = b.input("x", &[s, t], reals(&[0.0, 1.0, 9.0, 9.0, 0.0, 0.0]));
        let r = b.reduce(ReduceOp::ArgMax, &if flip { [t, s] } else { [s, t] }, x, None);
        same(&b.out(r, &[]), &ints(&[want]));
    }
}

#[test]
fn reads_out_of_range_give_zero_and_reads_substitute_at_once() {
    let mut b = B::default();
    let t = b.axis("t", 4);
    let x = b.input("x", &[t], reals(&[1.0, 2.0, 3.0, 4.0]));
    let (i, two) = (b.index(t), b.int(2));
    let back = b.map(ScalarOp::Sub, &[i, two]);
    let r = b.read(x, &[(t, back)]);
    same(&b.out(r, &[t]), &reals(&[0.0, 0.0, 1.0, 2.0]));

    let mut b = B::default();
    let (i, j) = (b.axis("i", 2), b.axis("j", 2));
    let a = b.input("a", &[i, j], reals(&[1.0, 2.0, 3.0, 4.0]));
    let (ii, jj) = (b.index(i), b.index(j));
    let swapped = b.read(a, &[(i, jj), (j, ii)]);
    same(&b.out(swapped, &[i, j]), &reals(&[1.0, 3.0, 2.0, 4.0]));

    let mut b = B::default();
    let (i, j) = (b.axis("i", 3), b.axis("j", 2));
    let a = b.input("a", &[i, j], reals(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    // A longer index axis than the axis read, and a diagonal: the index carries an axis that the value keeps.
    let ii = b.index(i);
    let diagonal = b.read(a, &[(j, ii)]);
    same(&b.out(diagonal, &[i]), &reals(&[1.0, 4.0, 0.0]));
}

#[test]
fn gathers_align_axes_that_value_and_index_share() {
    let mut b = B::default();
    let (h, t, n) = (b.axis("h", 2), b.axis("t", 3), b.axis("n", 2));
    let v = b.input("v", &[h, t], reals(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let idx = b.input("idx", &[h, n], ints(&[2, 0, -1, 1]));
    let r = b.read(v, &[(t, idx)]);
    same(&b.out(r, &[n, h]), &reals(&[3.0, 0.0, 1.0, 5.0]));
}

#[test]
fn prefix_reductions_take_the_positions_that_their_sign_says() {
    let want = [
        (PrefixDir::Le, [1.0, 1.0, 4.0]),
        (PrefixDir::Lt, [0.0, 1.0, 1.0]),
        (PrefixDir::Ge, [4.0, 3.0, 3.0]),
        (PrefixDir::Gt, [3.0, 3.0, 0.0]),
    ];
    for (dir, want) in want {
        let mut b = B::default();
        let t = b.axis("t", 3);
        let x = b.input("x", &[t], reals(&[1.0, 7.0, 3.0]));
        let m = b.input("m", &[t], Data::Bool(vec![true, false, true]));
        let r = b.add(Op::Prefix { op: ReduceOp::Sum, axis: t, dir, body: x, mask: Some(m) });
        same(&b.out(r, &[t]), &reals(&want));
    }
    let mut b = B::default();
    let t = b.axis("t", 4);
    let x = b.input("x", &[t], reals(&[1.0, 7.0, 7.0, 3.0]));
    let r = b.add(Op::Prefix { op: ReduceOp::ArgMax, axis: t, dir: PrefixDir::Gt, body: x, mask: None });
    same(&b.out(r, &[t]), &ints(&[1, 2, 3, -1]));
}

#[test]
fn order_operations_break_ties_by_position_and_put_nan_last() {
    let keys = reals(&[2.0, NAN, 1.0, 2.0, 5.0]);
    let mask = Data::Bool(vec![true, true, true, true, false]);
    let setup = || {
        let mut b = B::default();
        let t = b.axis("t", 5);
        let x = b.input("x", &[t], keys.clone());
        let m = b.input("m", &[t], mask.clone());
        (b, t, x, m)
    };
    let (mut b, t, key, m) = setup();
    let r = b.add(Op::Rank { axes: vec![t], key, mask: Some(m) });
    same(&b.out(r, &[t]), &ints(&[1, 3, 0, 2, 4]));
    let (mut b, t, key, m) = setup();
    let j = b.axis("j", 6);
    let r = b.add(Op::ArgSort { axes: vec![t], to: j, key, mask: Some(m) });
    same(&b.out(r, &[j]), &ints(&[2, 0, 3, 1, 4, 0]));
    for (n, want) in [(0, [false; 5]), (1, [true, false, false, false, false]), (3, [true, false, true, true, false]), (9, [true, true, true, true, false])] {
        let (mut b, t, key, m) = setup();
        let count = b.int(n);
        let r = b.add(Op::TopK { axes: vec![t], key, mask: Some(m), count });
        same(&b.out(r, &[t]), &Data::Bool(want.to_vec()));
    }
    let (mut b, _, _, m) = setup();
    let (t, j) = (AxisId(0), b.axis("j", 3));
    let r = b.add(Op::List { axes: vec![t], to: j, set: m });
    same(&b.out(r, &[j]), &ints(&[0, 1, 2]));
}

#[test]
fn topk_over_two_axes_counts_per_row() {
    let mut b = B::default();
    let (r, h, m) = (b.axis("r", 2), b.axis("h", 2), b.axis("m", 2));
    let x = b.input("x", &[r, h, m], reals(&[1.0, 4.0, 4.0, 2.0, -INF, -INF, -INF, -INF]));
    let count = b.input("n", &[r], ints(&[1, 3]));
    let k = b.add(Op::TopK { axes: vec![m, h], key: x, mask: None, count });
    // Row-major over (m, h): the 4 at (h 1, m 0) comes before the one at (h 0, m 1).
    let want = [false, false, true, false, true, true, true, false];
    same(&b.out(k, &[r, h, m]), &Data::Bool(want.to_vec()));
}

fn running_sum(reverse: bool, n: usize) -> (Data, Data) {
    let run = |last: bool| {
        let mut b = B::default();
        let t = b.axis("t", n);
        let x = b.input("x", &[t], Data::Real((1..=n).map(|i| i as f64).collect()));
        let init = b.real(10.0);
        let (scan, s) = b.scan(t, &[(&[], init)]);
        b.graph.scans[0].reverse = reverse;
        let next = b.map(ScalarOp::Add, &[s[0], x]);
        b.next(scan, 0, next);
        if last {
            let f = b.result(scan, 0);
            b.out(f, &[])
        } else {
            let both = b.map(ScalarOp::Mul, &[next, s[0]]);
            b.out(both, &[t])
        }
    };
    (run(false), run(true))
}

#[test]
fn scans_run_forward_in_reverse_and_not_at_all() {
    let (steps, last) = running_sum(false, 3);
    same(&steps, &reals(&[11.0 * 10.0, 13.0 * 11.0, 16.0 * 13.0]));
    same(&last, &reals(&[16.0]));
    let (steps, last) = running_sum(true, 3);
    same(&steps, &reals(&[16.0 * 15.0, 15.0 * 13.0, 13.0 * 10.0]));
    same(&last, &reals(&[16.0]));
    let (steps, last) = running_sum(false, 0);
    same(&steps, &reals(&[]));
    same(&last, &reals(&[10.0]));
}

#[test]
fn a_nested_scan_starts_anew_in_every_outer_step() {
    let mut b = B::default();
    let (c, r) = (b.axis("c", 2), b.axis("r", 2));
    let x = b.input("x", &[c, r], reals(&[1.0, 2.0, 3.0, 4.0]));
    let zero = b.real(0.0);
    let (outer, s) = b.scan(c, &[(&[], zero)]);
    let ten = b.real(10.0);
    let start = b.map(ScalarOp::Mul, &[s[0], ten]);
    let (inner, p) = b.scan(r, &[(&[c], start)]);
    b.graph.scans[1].parent = Some(outer);
    let p_next = b.map(ScalarOp::Add, &[p[0], x]);
    b.next(inner, 0, p_next);
    let last = b.result(inner, 0);
    b.next(outer, 0, last);
    // Outer step 0 starts inside at 0: 1, 3; outer step 1 starts at 30: 33, 37. A user outside combines both axes.
    let i = b.index(r);
    let i = b.map(ScalarOp::ToReal, &[i]);
    let y = b.map(ScalarOp::Add, &[p_next, i]);
    same(&b.out(y, &[c, r]), &reals(&[1.0, 4.0, 33.0, 38.0]));
}

#[test]
fn an_outer_state_that_an_inner_scan_made_is_read_inside_the_next_inner_scan() {
    let mut b = B::default();
    let (c, r) = (b.axis("c", 3), b.axis("r", 2));
    let one = b.real(1.0);
    let (outer, s) = b.scan(c, &[(&[], one)]);
    let (inner, p) = b.scan(r, &[(&[c], s[0])]);
    b.graph.scans[1].parent = Some(outer);
    // Each of two inner steps adds the outer state: 1, 3, 9, 27.
    let p_next = b.map(ScalarOp::Add, &[p[0], s[0]]);
    b.next(inner, 0, p_next);
    let last = b.result(inner, 0);
    b.next(outer, 0, last);
    let end = b.result(outer, 0);
    same(&b.out(end, &[]), &reals(&[27.0]));
}

#[test]
fn a_scan_whose_step_reads_across_an_axis_runs_for_all_of_it() {
    let mut b = B::default();
    let (t, n) = (b.axis("t", 3), b.axis("n", 100));
    let x = b.input("x", &[n], Data::Int((0..100).collect()));
    let zero = b.int(0);
    let (scan, s) = b.scan(t, &[(&[n], zero)]);
    let next = b.map(ScalarOp::Add, &[s[0], x]);
    b.next(scan, 0, next);
    // The neighbour's state, read in the step; with a record beyond the limit, loops around the scan may not bind `n`.
    let (at, one) = (b.index(n), b.int(1));
    let after = b.map(ScalarOp::Add, &[at, one]);
    let y = b.read(next, &[(n, after)]);
    let twice = b.map(ScalarOp::Add, &[y, y]);
    let sum = b.reduce(ReduceOp::Sum, &[t], twice, None);
    let want: Vec<i64> = (1..=100).map(|i| if i < 100 { 12 * i } else { 0 }).collect();
    same(&b.out(sum, &[n]), &ints(&want));
}

#[test]
fn earlier_results_read_as_zero_until_they_are_done() {
    for reverse in [false, true] {
        let mut b = B::default();
        let (t, u) = (b.axis("t", 4), b.axis("u", 4));
        let x = b.input("x", &[t], reals(&[1.0, 2.0, 3.0, 4.0]));
        let (scan, _) = b.scan(t, &[]);
        b.graph.scans[0].reverse = reverse;
        b.graph.scans[0].history.push((x, x));
        // y[t] = x[t] + sum over all u of y[u], where only done positions are not zero.
        let h = b.add(Op::History { scan, index: 0 });
        let u_at = b.index(u);
        let past = b.read(h, &[(t, u_at)]);
        let sum = b.reduce(ReduceOp::Sum, &[u], past, None);
        let y = b.map(ScalarOp::Add, &[x, sum]);
        b.graph.scans[0].history[0] = (h, y);
        let want = if reverse { [25.0, 13.0, 7.0, 4.0] } else { [1.0, 3.0, 7.0, 15.0] };
        same(&b.out(y, &[t]), &reals(&want));
    }
}

#[test]
fn two_scans_meet_in_an_outer_product_and_each_runs_once() {
    let mut b = B::default();
    let (t, u) = (b.axis("t", 3), b.axis("u", 2));
    let zero = b.int(0);
    let one = b.int(1);
    let mut ends = vec![];
    for (axis, scan) in [(t, 0), (u, 1)] {
        let (id, s) = b.scan(axis, &[(&[], zero)]);
        assert_eq!(id.index(), scan);
        let next = b.map(ScalarOp::Add, &[s[0], one]);
        b.next(id, 0, next);
        ends.push(next);
    }
    let y = b.map(ScalarOp::Mul, &ends);
    let z = b.reduce(ReduceOp::Sum, &[u], y, None);
    same(&b.out(z, &[t]), &ints(&[3, 6, 9]));
}

#[test]
fn large_spaces_are_looped_over_and_give_the_same() {
    // 96 x 96 x 128 products are beyond one go: rows, then the reduced axis, are looped over.
    let (n, m) = (96usize, 128usize);
    let mut b = B::default();
    let (t, s, d) = (b.axis("t", n), b.axis("s", n), b.axis("d", m));
    let data: Vec<f64> = (0..n * m).map(|i| ((i * 7919) % 13) as f64 - 6.0).collect();
    let q = b.input("q", &[t, d], Data::Real(data.clone()));
    let s_at = b.index(s);
    let k = b.read(q, &[(t, s_at)]);
    let qk = b.map(ScalarOp::Mul, &[q, k]);
    let x = b.reduce(ReduceOp::Sum, &[d], qk, None);
    let t_at = b.index(t);
    let seen = b.map(ScalarOp::Le, &[s_at, t_at]);
    let total = b.reduce(ReduceOp::Sum, &[t, s], x, Some(seen));
    let mut want = 0.0;
    for i in 0..n {
        for j in 0..=i {
            want += (0..m).map(|k| data[i * m + k] * data[j * m + k]).sum::<f64>();
        }
    }
    same(&b.out(total, &[]), &reals(&[want]));
}

#[test]
fn fast_rows_agree_with_the_table() {
    let values = [0.0, -0.0, 1.5, -2.5, INF, -INF, NAN, 3.0];
    for op in ScalarOp::ALL.iter().copied().filter(|op| op.arity() == 2) {
        for dtype in [DType::Real, DType::Int, DType::Bool] {
            if op.result(&[dtype, dtype]).is_none() {
                continue;
            }
            let element = |i: usize| match dtype {
                DType::Real | DType::Complex => Scalar::Real(values[i]),
                DType::Int => Scalar::Int([0, 1, -1, 7, -7, i64::MAX, i64::MIN, 3][i]),
                DType::Bool => Scalar::Bool(i % 2 == 0),
            };
            let vector = || match dtype {
                DType::Real | DType::Complex => reals(&values),
                DType::Int => ints(&[0, 1, -1, 7, -7, i64::MAX, i64::MIN, 3]),
                DType::Bool => Data::Bool((0..8).map(|i| i % 2 == 0).collect()),
            };
            let mut b = B::default();
            let (i, j) = (b.axis("i", 8), b.axis("j", 8));
            let x = b.input("x", &[i], vector());
            let y = b.input("y", &[j], vector());
            let z = b.map(op, &[x, y]);
            let got = b.out(z, &[i, j]);
            for k in 0..64 {
                let want = op.eval(&[element(k / 8), element(k % 8)]).unwrap();
                assert_eq!(format!("{:?}", got.at(k)), format!("{want:?}"), "{} at {k}", op.name());
            }
        }
    }
}

#[test]
fn sizes_beyond_this_machine_are_errors() {
    let mut b = B::default();
    let (t, s) = (b.axis("t", 1 << 20), b.axis("s", 1 << 19));
    let (i, j) = (b.index(t), b.index(s));
    let x = b.map(ScalarOp::Add, &[i, j]);
    b.graph.outputs = vec![Output { name: "o".into(), dtype: DType::Int, axes: vec![t, s], node: x, span: Span::default() }];
    assert!(matches!(run(&b.graph, &b.inputs, &b.scalars), Err(InterpError::TooLarge { .. })));
    let huge = b.axis("u", usize::MAX >> 2);
    b.graph.outputs[0].axes.push(huge);
    assert!(matches!(run(&b.graph, &b.inputs, &b.scalars), Err(InterpError::Bind(BindError::TooLarge { .. }))));
}
