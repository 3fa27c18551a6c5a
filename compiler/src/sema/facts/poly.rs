//! Polynomials with integer coefficients over Int nodes (atoms).

use crate::graph::{Graph, NodeId, Op};
use crate::ops::{Scalar, ScalarOp};
use std::collections::BTreeMap;

/// Most terms a polynomial may have; larger ones are given up.
const MAX_TERMS: usize = 40;

/// Sum of coefficient * product of atoms (sorted, repeated for powers). The empty product is the constant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Poly {
    pub terms: BTreeMap<Vec<NodeId>, i128>,
}

impl Poly {
    pub fn constant(c: i128) -> Poly {
        let mut p = Poly::default();
        p.put(Vec::new(), c);
        p
    }

    pub fn atom(id: NodeId) -> Poly {
        let mut p = Poly::default();
        p.put(vec![id], 1);
        p
    }

    fn put(&mut self, monomial: Vec<NodeId>, c: i128) {
        let entry = self.terms.entry(monomial).or_insert(0);
        *entry = entry.saturating_add(c);
        if *entry == 0 {
            let dead: Vec<Vec<NodeId>> = self.terms.iter().filter(|t| *t.1 == 0).map(|t| t.0.clone()).collect();
            dead.iter().for_each(|d| {
                self.terms.remove(d);
            });
        }
    }

    pub fn plus(&self, other: &Poly) -> Poly {
        let mut out = self.clone();
        other.terms.iter().for_each(|(m, c)| out.put(m.clone(), *c));
        out
    }

    pub fn scaled(&self, by: i128) -> Poly {
        let mut out = Poly::default();
        self.terms.iter().for_each(|(m, c)| out.put(m.clone(), c.saturating_mul(by)));
        out
    }

    pub fn minus(&self, other: &Poly) -> Poly {
        self.plus(&other.scaled(-1))
    }

    pub fn plus_const(&self, c: i128) -> Poly {
        self.plus(&Poly::constant(c))
    }

    pub fn times(&self, other: &Poly) -> Poly {
        let mut out = Poly::default();
        for (a, x) in &self.terms {
            for (b, y) in &other.terms {
                let mut m: Vec<NodeId> = a.iter().chain(b).copied().collect();
                m.sort();
                out.put(m, x.saturating_mul(*y));
            }
        }
        out
    }

    /// The value of a constant polynomial.
    pub fn as_const(&self) -> Option<i128> {
        match self.terms.len() {
            0 => Some(0),
            1 => self.terms.get(&Vec::new()).copied(),
            _ => None,
        }
    }

    pub fn too_large(&self) -> bool {
        self.terms.len() > MAX_TERMS || self.terms.keys().any(|m| m.len() > 6)
    }

    /// `(a, b)` with `self = a * atom + b` and no atom in either; `None` when the atom occurs squared.
    pub fn split(&self, atom: NodeId) -> Option<(Poly, Poly)> {
        let (mut a, mut b) = (Poly::default(), Poly::default());
        for (m, c) in &self.terms {
            match m.iter().filter(|x| **x == atom).count() {
                0 => b.put(m.clone(), *c),
                1 => a.put(m.iter().copied().filter(|x| *x != atom).collect(), *c),
                _ => return None,
            }
        }
        Some((a, b))
    }

    /// The polynomial with `value` for the atom, in all powers.
    pub fn replaced(&self, atom: NodeId, value: &Poly) -> Poly {
        let mut out = Poly::default();
        for (m, c) in &self.terms {
            let power = m.iter().filter(|x| **x == atom).count();
            let mut term = Poly::default();
            term.put(m.iter().copied().filter(|x| *x != atom).collect(), *c);
            for _ in 0..power {
                term = term.times(value);
            }
            out = out.plus(&term);
        }
        out
    }

    /// `self / by` when every term is divisible; `by` must be one term.
    pub fn divided(&self, by: &Poly) -> Option<Poly> {
        let (m, c) = by.terms.iter().next().filter(|_| by.terms.len() == 1)?;
        let mut out = Poly::default();
        for (own, d) in &self.terms {
            if d % c != 0 {
                return None;
            }
            let mut rest = own.clone();
            for atom in m {
                let at = rest.iter().position(|x| x == atom)?;
                rest.remove(at);
            }
            out.put(rest, d / c);
        }
        Some(out)
    }

    /// The polynomial of an Int node: sums, differences and products are expanded, other ops are atoms.
    pub fn of(graph: &Graph, id: NodeId) -> Poly {
        Poly::limited(graph, id, 40)
    }

    fn limited(graph: &Graph, id: NodeId, depth: usize) -> Poly {
        if depth == 0 {
            return Poly::atom(id);
        }
        let sub = |i: NodeId| Poly::limited(graph, i, depth - 1);
        let out = match graph.op(id) {
            Op::Const(Scalar::Int(c)) => Poly::constant(i128::from(*c)),
            Op::Map { op: ScalarOp::Add, args } => sub(args[0]).plus(&sub(args[1])),
            Op::Map { op: ScalarOp::Sub, args } => sub(args[0]).minus(&sub(args[1])),
            Op::Map { op: ScalarOp::Neg, args } => sub(args[0]).scaled(-1),
            Op::Map { op: ScalarOp::Mul, args } => sub(args[0]).times(&sub(args[1])),
            Op::Expand { value, .. } => sub(*value),
            _ => Poly::atom(id),
        };
        if out.too_large() { Poly::atom(id) } else { out }
    }
}
