//! How each atom leaves a polynomial that is to be proved non-negative: the ends of its range.

use super::super::poly::Poly;
use super::Prover;
use crate::graph::{AxisId, Extent, FactCmp, NodeId, Op};
use crate::ops::ScalarOp;
use crate::reduce::ReduceOp;

impl Prover<'_> {
    /// `a * atom + b >= 0`
    pub(super) fn eliminate(&mut self, atom: NodeId, a: &Poly, b: &Poly, whole: &Poly, depth: usize) -> bool {
        let graph = self.graph;
        // Positions reported by an operator keep their range wherever they are read.
        let mut op = graph.op(atom);
        while let Op::Read { value, .. } = op {
            op = match graph.op(*value) {
                inner @ (Op::Read { .. } | Op::ArgSort { .. } | Op::List { .. } | Op::Rank { .. } | Op::TopK { .. }) => inner,
                inner @ Op::Reduce { op: ReduceOp::ArgMax | ReduceOp::ArgMin, .. } => inner,
                _ => break,
            };
        }
        match op {
            Op::Map { op, args } => {
                let (op, args) = (*op, args.clone());
                self.eliminate_map(op, &args, a, b, whole, depth)
            }
            Op::Index(axis) => {
                let Some(rising) = self.sign(a, depth) else { return false };
                if rising {
                    return self.attempt(b, depth);
                }
                let Some(extent) = self.extent_poly(*axis) else { return false };
                let extent = self.normal(&extent);
                self.attempt(&a.times(&extent.plus_const(-1)).plus(b), depth)
            }
            Op::Extent(axis) => {
                let Extent::Value(v) = graph.axis(*axis).extent else { return false };
                let value = a.times(&Poly::of(graph, v)).plus(b);
                if self.nonempty.contains(axis) {
                    return self.attempt(&value, depth);
                }
                match self.sign(a, depth) {
                    Some(true) => self.attempt(&value, depth) || self.attempt(b, depth),
                    Some(false) => self.attempt(&value, depth) && self.attempt(b, depth),
                    None => false,
                }
            }
            Op::ArgSort { axes, .. } | Op::List { axes, .. } | Op::Rank { axes, .. } => self.position(axes, a, b, depth),
            Op::Reduce { op: ReduceOp::ArgMax | ReduceOp::ArgMin, axes, .. } => self.position(axes, a, b, depth),
            Op::Reduce { op: ReduceOp::Sum, axes, body, .. } if self.is_ones(*body) => self.tally(axes, a, b, depth),
            Op::Prefix { op: ReduceOp::Sum, axis, body, .. } if self.is_ones(*body) => self.tally(&[*axis], a, b, depth),
            Op::Input(i) => {
                let Some(fact) = graph.inputs.get(i.index()).and_then(|x| x.fact) else { return false };
                let bound = Poly::of(graph, fact.bound);
                let (low, high) = match fact.cmp {
                    FactCmp::Ge => (Some(bound), None),
                    FactCmp::Gt => (Some(bound.plus_const(1)), None),
                    FactCmp::Le => (None, Some(bound)),
                    FactCmp::Lt => (None, Some(bound.plus_const(-1))),
                    FactCmp::Eq => (Some(bound.clone()), Some(bound)),
                    FactCmp::Ne => (None, None),
                };
                let end = match self.sign(a, depth) {
                    Some(true) => low,
                    Some(false) => high,
                    None => None,
                };
                end.is_some_and(|e| self.attempt(&a.times(&e).plus(b), depth))
            }
            _ => false,
        }
    }

    fn is_ones(&self, body: NodeId) -> bool {
        match self.graph.op(body) {
            Op::Map { op: ScalarOp::Select, args } => self.as_const(args[1]) == Some(1) && self.as_const(args[2]) == Some(0),
            _ => false,
        }
    }

    /// An atom in `0 .. product of extents`.
    fn position(&mut self, axes: &[AxisId], a: &Poly, b: &Poly, depth: usize) -> bool {
        match self.sign(a, depth) {
            Some(true) => self.attempt(b, depth),
            Some(false) => {
                let Some(size) = self.size(axes) else { return false };
                self.attempt(&a.times(&size.plus_const(-1)).plus(b), depth)
            }
            None => false,
        }
    }

    /// An atom in `0 ..= product of extents`.
    fn tally(&mut self, axes: &[AxisId], a: &Poly, b: &Poly, depth: usize) -> bool {
        match self.sign(a, depth) {
            Some(true) => self.attempt(b, depth),
            Some(false) => self.size(axes).is_some_and(|size| self.attempt(&a.times(&size).plus(b), depth)),
            None => false,
        }
    }

    fn size(&self, axes: &[AxisId]) -> Option<Poly> {
        let mut size = Poly::constant(1);
        for axis in axes {
            // The extent node where there is one; a position exists, so the declared value is exact.
            let one = match self.graph.axis(*axis).extent {
                Extent::Value(v) => Poly::of(self.graph, v),
                Extent::Inputs => Poly::atom(self.extent_atom(*axis)?),
            };
            size = size.times(&one);
        }
        Some(self.normal(&size))
    }

    fn eliminate_map(&mut self, op: ScalarOp, args: &[NodeId], a: &Poly, b: &Poly, whole: &Poly, depth: usize) -> bool {
        let poly = |s: &Self, i: usize| Poly::of(s.graph, args[i]);
        match op {
            ScalarOp::IntDiv | ScalarOp::CeilDiv => {
                let Some(rising) = self.sign(a, depth) else { return false };
                let mark = self.positive.len();
                if !self.divisor(args[1], depth) {
                    return false;
                }
                let (x, d) = (poly(self, 0), poly(self, 1));
                // d * q lies between these two.
                let (low, high) = if op == ScalarOp::IntDiv {
                    (x.minus(&d).plus_const(1), x.clone())
                } else {
                    (x.clone(), x.plus(&d).plus_const(-1))
                };
                let end = if rising { low } else { high };
                if let Some(k) = a.divided(&d)
                    && self.attempt(&k.times(&end).plus(b), depth)
                {
                    return true;
                }
                // q is not negative when x is not.
                if rising && self.attempt(b, depth) && self.attempt(&x, depth) {
                    return true;
                }
                // p >= 0 exactly when d * p + d - 1 >= 0, for integers and d >= 1.
                let scaled = a.times(&end).plus(&d.times(b)).plus(&d).plus_const(-1);
                if self.attempt(&scaled, depth) {
                    return true;
                }
                // q <= x when x is not negative.
                if !rising && op == ScalarOp::IntDiv && self.attempt(&a.times(&x).plus(b), depth) && self.attempt(&x, depth) {
                    return true;
                }
                self.positive.truncate(mark);
                false
            }
            ScalarOp::Mod => {
                let Some(rising) = self.sign(a, depth) else { return false };
                let mark = self.positive.len();
                if !self.divisor(args[1], depth) {
                    return false;
                }
                let ok = if rising {
                    self.attempt(b, depth)
                } else {
                    let (x, d) = (poly(self, 0), poly(self, 1));
                    self.attempt(&a.times(&d.plus_const(-1)).plus(b), depth)
                        || (self.attempt(&a.times(&x).plus(b), depth) && self.attempt(&x, depth))
                };
                if !ok {
                    self.positive.truncate(mark);
                }
                ok
            }
            ScalarOp::Min | ScalarOp::Max => {
                let (x, y) = (a.times(&poly(self, 0)).plus(b), a.times(&poly(self, 1)).plus(b));
                match self.sign(a, depth) {
                    // The smaller end may be either; the larger end is at least each.
                    Some(rising) if rising == (op == ScalarOp::Max) => self.attempt(&x, depth) || self.attempt(&y, depth),
                    Some(_) | None => self.attempt(&x, depth) && self.attempt(&y, depth),
                }
            }
            ScalarOp::Select => {
                let branch = |s: &mut Self, i: usize| {
                    let known = s.known.len();
                    s.assume(args[0], i == 2);
                    let p = a.times(&Poly::of(s.graph, args[i])).plus(b);
                    let ok = s.attempt(&p, depth);
                    s.known.truncate(known);
                    ok
                };
                branch(self, 1) && branch(self, 2)
            }
            ScalarOp::Abs => self.sign(a, depth) == Some(true) && {
                let x = poly(self, 0);
                self.attempt(b, depth) || self.attempt(&a.times(&x).plus(b), depth)
            },
            ScalarOp::Pow2Ceil | ScalarOp::CeilLog2 | ScalarOp::Shl => {
                let atom = self.lowest_of(op, args);
                let _ = whole;
                match (self.sign(a, depth), atom) {
                    (Some(true), Some(low)) => self.attempt(&a.scaled(low).plus(b), depth),
                    (_, _) => false,
                }
            }
            _ => false,
        }
    }

    fn lowest_of(&self, op: ScalarOp, args: &[NodeId]) -> Option<i128> {
        match op {
            ScalarOp::Pow2Ceil => Some(1),
            ScalarOp::CeilLog2 => Some(0),
            ScalarOp::Shl => self.lowest(args[0]).filter(|l| *l >= 0),
            _ => None,
        }
    }
}
