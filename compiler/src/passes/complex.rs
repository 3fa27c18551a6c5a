//! Splits Complex values into pairs of Reals: no target has complex numbers. Does not know what the numbers are for.

use super::rewrite::{Builder, Rewrite, Work, rebuild_node, rewrite};
use crate::graph::{Graph, NodeId, Op, Scan, State};
use crate::ops::{DType, Scalar, ScalarOp};
use std::collections::HashMap;

/// Replaces every Complex node by its real and imaginary part, and every Complex state by two states. `prod` over complex values has
/// been written as a scan before (`order`).
pub fn split_complex(work: Work) -> Work {
    if work.graph.ids().all(|id| work.graph.dtype(id) != DType::Complex) {
        return work;
    }
    let mut places = Vec::new();
    let mut scans = Vec::new();
    for scan in &work.graph.scans {
        let mut at = Vec::new();
        let mut states: Vec<State> = Vec::new();
        for s in &scan.states {
            at.push(states.len() as u32);
            if s.dtype == DType::Complex {
                states.push(State { dtype: DType::Real, name: format!("{}.re", s.name), ..s.clone() });
                states.push(State { dtype: DType::Real, name: format!("{}.im", s.name), ..s.clone() });
            } else {
                states.push(s.clone());
            }
        }
        // Exports and earlier results of complex values become two each.
        let complex = |id: &NodeId| work.graph.dtype(*id) == DType::Complex;
        let history = scan.history.iter().flat_map(|h| std::iter::repeat_n(*h, if complex(&h.1) { 2 } else { 1 })).collect();
        scans.push(Scan { states, history, ..scan.clone() });
        places.push(at);
    }
    rewrite(work, &mut Split { imaginary: HashMap::new(), places, scans })
}

struct Split {
    /// Imaginary part by the id in the old graph; `map` holds the real part.
    imaginary: HashMap<NodeId, NodeId>,
    /// New index of each old state, by scan.
    places: Vec<Vec<u32>>,
    scans: Vec<Scan>,
}

impl Rewrite for Split {
    fn scans(&self, _: &Graph) -> Option<Vec<Scan>> {
        Some(self.scans.clone())
    }

    fn node(&mut self, b: &mut Builder, old: &Graph, map: &HashMap<NodeId, NodeId>, id: NodeId) -> NodeId {
        let node = old.node(id);
        let span = node.span;
        let re = |id: &NodeId| map.get(id).copied().unwrap_or(*id);
        let im = |s: &Self, id: &NodeId| s.imaginary.get(id).copied().unwrap_or_else(|| re(id));
        let complex = node.dtype == DType::Complex;
        let place = |s: &Self, scan: usize, index: u32| s.places[scan].get(index as usize).copied().unwrap_or(index);
        let (real, imaginary) = match &node.op {
            Op::State { scan, index } | Op::Final { scan, index } => {
                let at = place(self, scan.index(), *index);
                let is_state = matches!(node.op, Op::State { .. });
                let mut leaf = |index: u32| {
                    let op = if is_state { Op::State { scan: *scan, index } } else { Op::Final { scan: *scan, index } };
                    let dtype = if complex { DType::Real } else { node.dtype };
                    b.add_typed(op, dtype, node.axes.clone(), span)
                };
                (leaf(at), complex.then(|| leaf(at + 1)))
            }
            Op::History { scan, index } => {
                // Each complex entry before this one has become two.
                let before = old.scans[scan.index()].history.iter().take(*index as usize).filter(|h| old.dtype(h.1) == DType::Complex).count() as u32;
                let mut leaf = |index: u32| {
                    let dtype = if complex { DType::Real } else { node.dtype };
                    b.add_typed(Op::History { scan: *scan, index }, dtype, node.axes.clone(), span)
                };
                (leaf(index + before), complex.then(|| leaf(index + before + 1)))
            }
            Op::Const(Scalar::Complex(x, y)) => (b.constant_of(Scalar::Real(*x)), Some(b.constant_of(Scalar::Real(*y)))),
            Op::Map { op, args } if complex || args.iter().any(|a| old.dtype(*a) == DType::Complex) => {
                let pairs: Vec<(NodeId, NodeId)> = args.iter().map(|a| (re(a), im(self, a))).collect();
                pair(b, *op, &pairs, span)
            }
            op if complex => {
                let first = op.map_operands(|o| re(&o));
                let second = op.map_operands(|o| im(self, &o));
                (b.add(first, span), Some(b.add(second, span)))
            }
            _ => (rebuild_node(b, old, map, id), None),
        };
        if let Some(i) = imaginary {
            self.imaginary.insert(id, i);
        }
        real
    }

    fn finish(&mut self, b: &mut Builder, old: &Graph, _: &HashMap<NodeId, NodeId>) {
        for (s, scan) in old.scans.iter().enumerate() {
            for (i, state) in scan.states.iter().enumerate().filter(|s| s.1.dtype == DType::Complex) {
                let half = self.places[s][i] as usize + 1;
                let pick = |id: NodeId| self.imaginary.get(&id).copied();
                let record = &mut b.graph.scans[s].states[half];
                for (field, id) in [(&mut record.init, state.init), (&mut record.old, state.old), (&mut record.next, state.next)] {
                    *field = pick(id).unwrap_or(*field);
                }
            }
            let mut at = 0;
            for h in &scan.history {
                if old.dtype(h.1) == DType::Complex {
                    at += 1;
                    if let (Some(x), Some(y)) = (self.imaginary.get(&h.0), self.imaginary.get(&h.1)) {
                        b.graph.scans[s].history[at] = (*x, *y);
                    }
                }
                at += 1;
            }
            let more: Vec<NodeId> = scan.exports.iter().filter_map(|e| self.imaginary.get(e).copied()).collect();
            b.graph.scans[s].exports.extend(more);
        }
    }
}

/// A pointwise op on (real, imaginary) pairs.
fn pair(b: &mut Builder, op: ScalarOp, args: &[(NodeId, NodeId)], span: crate::base::Span) -> (NodeId, Option<NodeId>) {
    let mut op2 = |op: ScalarOp, x: NodeId, y: NodeId| b.map(op, &[x, y], span);
    match (op, args) {
        (ScalarOp::Add | ScalarOp::Sub, [x, y]) => (op2(op, x.0, y.0), Some(op2(op, x.1, y.1))),
        (ScalarOp::Mul, [x, y]) => {
            let (ac, bd, ad, bc) = (op2(op, x.0, y.0), op2(op, x.1, y.1), op2(op, x.0, y.1), op2(op, x.1, y.0));
            (op2(ScalarOp::Sub, ac, bd), Some(op2(ScalarOp::Add, ad, bc)))
        }
        (ScalarOp::Div, [x, y]) => {
            let mul = ScalarOp::Mul;
            let (cc, dd) = (op2(mul, y.0, y.0), op2(mul, y.1, y.1));
            let n = op2(ScalarOp::Add, cc, dd);
            let (ac, bd, bc, ad) = (op2(mul, x.0, y.0), op2(mul, x.1, y.1), op2(mul, x.1, y.0), op2(mul, x.0, y.1));
            let (top, side) = (op2(ScalarOp::Add, ac, bd), op2(ScalarOp::Sub, bc, ad));
            (op2(op, top, n), Some(op2(op, side, n)))
        }
        (ScalarOp::Abs, [x]) => {
            // Scaled, so that squares do not overflow.
            let (p, q) = (b.map(ScalarOp::Abs, &[x.0], span), b.map(ScalarOp::Abs, &[x.1], span));
            let (most, least) = (b.map(ScalarOp::Max, &[p, q], span), b.map(ScalarOp::Min, &[p, q], span));
            let r = b.map(ScalarOp::Ratio, &[least, most], span);
            let square = b.map(ScalarOp::Mul, &[r, r], span);
            let one = b.constant_of(Scalar::Real(1.0));
            let sum = b.map(ScalarOp::Add, &[one, square], span);
            let root = b.map(ScalarOp::Sqrt, &[sum], span);
            (b.map(ScalarOp::Mul, &[most, root], span), None)
        }
        (ScalarOp::Exp, [x]) => {
            let size = b.map(op, &[x.0], span);
            let (cos, sin) = (b.map(ScalarOp::Cos, &[x.1], span), b.map(ScalarOp::Sin, &[x.1], span));
            (b.map(ScalarOp::Mul, &[size, cos], span), Some(b.map(ScalarOp::Mul, &[size, sin], span)))
        }
        (ScalarOp::Neg, [x]) => (b.map(op, &[x.0], span), Some(b.map(op, &[x.1], span))),
        (ScalarOp::Select, [c, x, y]) => (b.map(op, &[c.0, x.0, y.0], span), Some(b.map(op, &[c.0, x.1, y.1], span))),
        (ScalarOp::ToComplex, [x]) => (x.0, Some(b.constant_of(Scalar::Real(0.0)))),
        (ScalarOp::Complex, [x, y]) => (x.0, Some(y.0)),
        (ScalarOp::Re, [x]) => (x.0, None),
        (ScalarOp::Im, [x]) => (x.1, None),
        // The table takes no other op on complex operands.
        (_, args) => {
            let first: Vec<NodeId> = args.iter().map(|a| a.0).collect();
            (b.map(op, &first, span), None)
        }
    }
}
