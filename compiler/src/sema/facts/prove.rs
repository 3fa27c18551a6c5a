//! Proves polynomials over indices, extents and integer operations non-negative by eliminating one atom after the other at
//! the end of its range where the polynomial is smallest. Sound, not complete; effort is bounded.

mod eliminate;

use super::poly::Poly;
use crate::graph::{AxisId, AxisSet, Extent, FactCmp, Graph, NodeId, Op};
use crate::ops::{DType, Scalar, ScalarOp};
use crate::reduce::ReduceOp;
use std::collections::HashMap;

/// Most elimination steps of one proof.
const EFFORT: usize = 1500;

pub(super) struct Prover<'g> {
    graph: &'g Graph,
    /// The nodes `Extent(axis)` that exist.
    extents: &'g HashMap<AxisId, NodeId>,
    /// Axes that have a position wherever the index exists.
    nonempty: AxisSet,
    /// Polynomials known to be at least zero.
    known: Vec<Poly>,
    /// Scalars assumed positive so far.
    pub positive: Vec<NodeId>,
    effort: usize,
    /// An assumption that never holds was added.
    absurd: bool,
}

impl<'g> Prover<'g> {
    /// `over`: axes of the index; each has a position wherever the index has a value.
    pub fn new(graph: &'g Graph, extents: &'g HashMap<AxisId, NodeId>, over: &AxisSet) -> Prover<'g> {
        let mut prover = Prover { graph, extents, nonempty: AxisSet::new(), known: Vec::new(), positive: Vec::new(), effort: 0, absurd: false };
        prover.suppose_nonempty(over);
        prover
    }

    /// Adds axes that have a position.
    pub fn suppose_nonempty(&mut self, axes: &AxisSet) {
        for axis in axes {
            if self.nonempty.insert(*axis)
                && let Extent::Value(node) = self.graph.axis(*axis).extent
            {
                self.suppose_positive(node);
            }
        }
    }

    /// A value that is at least 1, and what follows for its parts.
    fn suppose_positive(&mut self, node: NodeId) {
        self.know(Poly::of(self.graph, node).plus_const(-1));
        match self.graph.op(node) {
            Op::Extent(a) => {
                let one = AxisSet::from([*a]);
                self.suppose_nonempty(&one);
            }
            Op::Map { op: ScalarOp::Min, args } => args.clone().into_iter().for_each(|a| self.suppose_positive(a)),
            Op::Map { op: ScalarOp::Max, args } => {
                let args = args.clone();
                for (a, b) in [(args[0], args[1]), (args[1], args[0])] {
                    if matches!(self.graph.op(b), Op::Const(Scalar::Int(c)) if *c <= 0) {
                        self.suppose_positive(a);
                    }
                }
            }
            Op::Map { op: ScalarOp::Mul, args } => {
                let args = args.clone();
                if args.iter().all(|a| self.lowest(*a).is_some_and(|l| l >= 0)) {
                    args.into_iter().for_each(|a| self.suppose_positive(a));
                }
            }
            Op::Map { op: op @ (ScalarOp::IntDiv | ScalarOp::CeilDiv), args } => {
                let (x, b) = (args[0], args[1]);
                if self.lowest(x).is_some_and(|l| l >= 0) {
                    // 0 <= x and x / b >= 1 make b positive.
                    self.suppose_positive(b);
                    if *op == ScalarOp::IntDiv {
                        self.know(Poly::of(self.graph, x).minus(&Poly::of(self.graph, b)));
                    } else {
                        self.suppose_positive(x);
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether the assumptions exclude one another.
    pub fn contradictory(&mut self) -> bool {
        let known: Vec<Poly> = self.known.iter().map(|k| self.normal(k)).collect();
        for (i, p) in known.iter().enumerate().take(12) {
            let pairs = known[..i].iter().any(|q| p.plus(q).as_const().is_some_and(|c| c < 0));
            if self.absurd || pairs || self.goal(p.scaled(-1).plus_const(-1)) {
                return true;
            }
        }
        self.absurd
    }

    fn know(&mut self, p: Poly) {
        self.absurd |= p.as_const().is_some_and(|c| c < 0);
        if p.as_const().is_none() && !self.known.contains(&p) && self.known.len() < 24 {
            self.known.push(p);
        }
    }

    /// A Bool that holds (or does not, when `negated`).
    pub fn assume(&mut self, cond: NodeId, negated: bool) {
        let int = |s: &Self, id: NodeId| s.graph.dtype(id) == DType::Int;
        let Op::Map { op, args } = self.graph.op(cond) else { return };
        let (op, args) = (*op, args.clone());
        match op {
            ScalarOp::And if !negated => args.into_iter().for_each(|a| self.assume(a, false)),
            ScalarOp::Or if negated => args.into_iter().for_each(|a| self.assume(a, true)),
            ScalarOp::Not => self.assume(args[0], !negated),
            ScalarOp::Lt | ScalarOp::Le if int(self, args[0]) => {
                let (a, b) = (Poly::of(self.graph, args[0]), Poly::of(self.graph, args[1]));
                let (low, high, strict) = if negated { (b, a, op == ScalarOp::Le) } else { (a, b, op == ScalarOp::Lt) };
                let gap = high.minus(&low).plus_const(if strict { -1 } else { 0 });
                self.know(gap);
            }
            ScalarOp::Eq | ScalarOp::Ne if negated == (op == ScalarOp::Eq) && int(self, args[0]) => {
                // Different, and one way round is known: so strictly apart.
                let gap = Poly::of(self.graph, args[0]).minus(&Poly::of(self.graph, args[1]));
                for way in [gap.clone(), gap.scaled(-1)] {
                    if self.plainly(&self.normal(&way)) || self.known.contains(&way) {
                        self.know(way.plus_const(-1));
                    }
                }
            }
            ScalarOp::Eq | ScalarOp::Ne if int(self, args[0]) => {
                let gap = Poly::of(self.graph, args[0]).minus(&Poly::of(self.graph, args[1]));
                self.know(gap.scaled(-1));
                self.know(gap);
            }
            _ => {}
        }
    }

    /// `0 <= node`
    pub fn at_least_zero(&mut self, node: NodeId) -> bool {
        self.goal(Poly::of(self.graph, node))
    }

    /// `node < extent(axis)`
    pub fn below_extent(&mut self, node: NodeId, axis: AxisId) -> bool {
        // The extent is at least the value it was declared with, and at least 0.
        let own = self.extent_atom(axis).map(Poly::atom);
        let declared = match self.graph.axis(axis).extent {
            Extent::Value(v) => Some(Poly::of(self.graph, v)),
            Extent::Inputs => None,
        };
        let index = Poly::of(self.graph, node);
        [own, declared].into_iter().flatten().any(|e| self.goal(e.minus(&index).plus_const(-1)))
    }

    /// `a < b`
    pub fn less(&mut self, a: NodeId, b: NodeId) -> bool {
        self.goal(Poly::of(self.graph, b).minus(&Poly::of(self.graph, a)).plus_const(-1))
    }

    /// Extents of axes that have a position are what they were declared as.
    fn normal(&self, p: &Poly) -> Poly {
        let mut p = p.clone();
        for _ in 0..8 {
            let next = p.terms.keys().flatten().find_map(|id| match self.graph.op(*id) {
                Op::Extent(a) if self.nonempty.contains(a) => match self.graph.axis(*a).extent {
                    Extent::Value(v) => Some((*id, v)),
                    Extent::Inputs => None,
                },
                _ => None,
            });
            let Some((atom, value)) = next else { break };
            p = p.replaced(atom, &Poly::of(self.graph, value));
            if p.too_large() {
                break;
            }
        }
        p
    }

    /// A Bool over ints that holds wherever the assumptions do.
    pub fn holds(&mut self, cond: NodeId) -> bool {
        let Op::Map { op, args } = self.graph.op(cond) else {
            return matches!(self.graph.op(cond), Op::Const(Scalar::Bool(true)));
        };
        let (op, args) = (*op, args.clone());
        let ints = self.graph.dtype(args[0]) == DType::Int;
        match op {
            ScalarOp::And => self.holds(args[0]) && self.holds(args[1]),
            ScalarOp::Or => {
                let known = self.known.len();
                if self.holds(args[0]) {
                    return true;
                }
                self.assume(args[0], true);
                let ok = self.holds(args[1]);
                self.known.truncate(known);
                ok
            }
            ScalarOp::Select => {
                let known = self.known.len();
                self.assume(args[0], false);
                let first = self.holds(args[1]);
                self.known.truncate(known);
                self.assume(args[0], true);
                let second = first && self.holds(args[2]);
                self.known.truncate(known);
                second
            }
            ScalarOp::Lt if ints => self.less(args[0], args[1]),
            ScalarOp::Le if ints => self.goal(Poly::of(self.graph, args[1]).minus(&Poly::of(self.graph, args[0]))),
            _ => false,
        }
    }

    /// `a <= b`
    pub fn at_most(&mut self, a: NodeId, b: NodeId) -> bool {
        self.goal(Poly::of(self.graph, b).minus(&Poly::of(self.graph, a)))
    }

    fn goal(&mut self, p: Poly) -> bool {
        self.effort = 0;
        let p = self.normal(&p);
        self.known = self.known.iter().map(|k| self.normal(k)).collect();
        let mark = self.positive.len();
        let ok = self.nonneg(&p, 0);
        if !ok {
            self.positive.truncate(mark);
        }
        ok
    }

    /// The node `Extent(axis)`, if there is one.
    fn extent_atom(&self, axis: AxisId) -> Option<NodeId> {
        self.extents.get(&axis).copied()
    }

    /// The extent of an axis that has a position; `None` when nothing is known.
    fn extent_poly(&self, axis: AxisId) -> Option<Poly> {
        match self.graph.axis(axis).extent {
            Extent::Value(v) => Some(Poly::of(self.graph, v)),
            Extent::Inputs => self.extent_atom(axis).map(Poly::atom),
        }
    }

    /// A constant lower bound of an atom.
    fn lowest(&self, id: NodeId) -> Option<i128> {
        let mut low: Option<i128> = match self.graph.op(id) {
            Op::Const(Scalar::Int(c)) => Some(i128::from(*c)),
            Op::Extent(a) => Some(i128::from(self.nonempty.contains(a))),
            Op::Index(_) | Op::Rank { .. } | Op::ArgSort { .. } | Op::List { .. } => Some(0),
            Op::Map { op: ScalarOp::CeilLog2, .. } => Some(0),
            Op::Map { op: ScalarOp::Pow2Ceil, .. } => Some(1),
            Op::Map { op: ScalarOp::Abs, .. } => Some(0),
            Op::Map { op: ScalarOp::Mod, args } => self.lowest(args[1]).filter(|l| *l >= 1).map(|_| 0),
            Op::Map { op: ScalarOp::Shl, args } => self.lowest(args[0]).filter(|l| *l >= 0),
            Op::Map { op: ScalarOp::Min, args } => Some(self.lowest(args[0])?.min(self.lowest(args[1])?)),
            Op::Map { op: ScalarOp::Max, args } => self.lowest(args[0]).max(self.lowest(args[1])),
            Op::Map { op: ScalarOp::Add, args } => Some(self.lowest(args[0])? + self.lowest(args[1])?),
            Op::Map { op: ScalarOp::Mul, args } => {
                let (a, b) = (self.lowest(args[0])?, self.lowest(args[1])?);
                (a >= 0 && b >= 0).then(|| a.saturating_mul(b))
            }
            Op::Map { op: ScalarOp::IntDiv | ScalarOp::CeilDiv, args } => {
                (self.lowest(args[0])? >= 0 && self.lowest(args[1])? >= 0).then_some(0)
            }
            Op::Map { op: ScalarOp::Select, args } => Some(self.lowest(args[1])?.min(self.lowest(args[2])?)),
            Op::Input(i) => self.graph.inputs.get(i.index()).and_then(|x| x.fact).and_then(|f| match (f.cmp, self.graph.op(f.bound)) {
                (FactCmp::Ge | FactCmp::Eq, Op::Const(Scalar::Int(c))) => Some(i128::from(*c)),
                (FactCmp::Gt, Op::Const(Scalar::Int(c))) => Some(i128::from(*c) + 1),
                (_, _) => None,
            }),
            Op::Reduce { op: ReduceOp::Sum, body, .. } | Op::Prefix { op: ReduceOp::Sum, body, .. } => self.lowest(*body).filter(|l| *l >= 0).map(|_| 0),
            Op::Reduce { op: ReduceOp::ArgMax | ReduceOp::ArgMin, .. } => Some(0),
            Op::Read { value, .. } => match self.graph.op(*value) {
                Op::Input(_) => self.lowest(*value).map(|l| l.min(0)),
                _ => self.lowest(*value).filter(|l| *l >= 0).map(|_| 0),
            },
            _ => None,
        };
        for p in &self.known {
            // atom - c >= 0, with coefficient 1.
            let constant = p.terms.get(&Vec::new()).copied().unwrap_or(0);
            let single = p.terms.get(&vec![id]).copied() == Some(1) && p.terms.keys().all(|m| m.is_empty() || m == &vec![id]);
            if single {
                low = low.max(Some(-constant));
            }
        }
        if self.positive.contains(&id) {
            low = low.max(Some(1));
        }
        low
    }

    /// Divisor is at least 1: known, or a scalar of the call that can be required to be.
    fn divisor(&mut self, id: NodeId, depth: usize) -> bool {
        if self.lowest(id).is_some_and(|l| l >= 1) {
            return true;
        }
        let p = Poly::of(self.graph, id).plus_const(-1);
        if self.nonneg(&p, depth + 1) {
            return true;
        }
        if self.graph.axes_of(id).is_empty() && self.host(id) && self.as_const(id).is_none() {
            self.positive.push(id);
            return true;
        }
        false
    }

    fn as_const(&self, id: NodeId) -> Option<i64> {
        match self.graph.op(id) {
            Op::Const(Scalar::Int(c)) => Some(*c),
            _ => None,
        }
    }

    fn host(&self, id: NodeId) -> bool {
        match self.graph.op(id) {
            Op::Extent(_) => true,
            Op::Input(i) => self.graph.inputs.get(i.index()).is_some_and(|x| x.axes.is_empty()),
            Op::Const(_) => true,
            Op::Map { args, .. } => args.iter().all(|a| self.host(*a)),
            _ => false,
        }
    }

    /// Runs an attempt; positivity assumptions of a failed one are dropped.
    fn attempt(&mut self, p: &Poly, depth: usize) -> bool {
        let mark = self.positive.len();
        let ok = self.nonneg(p, depth + 1);
        if !ok {
            self.positive.truncate(mark);
        }
        ok
    }

    fn nonneg(&mut self, p: &Poly, depth: usize) -> bool {
        self.effort += 1;
        if self.effort > EFFORT || depth > 24 || p.too_large() {
            return false;
        }
        if let Some(c) = p.as_const() {
            return c >= 0;
        }
        if self.plainly(p) {
            return true;
        }
        for atom in self.order(p) {
            if let Some((a, b)) = p.split(atom)
                && self.eliminate(atom, &a, &b, p, depth)
            {
                return true;
            }
        }
        if depth < 6 {
            for known in self.known.clone() {
                let rest = p.minus(&known);
                if rest.terms.len() < p.terms.len() && self.attempt(&rest, depth + 4) {
                    return true;
                }
            }
        }
        false
    }

    /// All variable terms have non-negative coefficients over atoms that are non-negative.
    fn plainly(&self, p: &Poly) -> bool {
        let mut low = 0i128;
        for (m, c) in &p.terms {
            if m.is_empty() {
                low = low.saturating_add(*c);
                continue;
            }
            if *c < 0 {
                return false;
            }
            let mut product = *c;
            for atom in m {
                match self.lowest(*atom) {
                    Some(l) if l >= 0 => product = product.saturating_mul(l),
                    _ => return false,
                }
            }
            low = low.saturating_add(product);
        }
        low >= 0
    }

    /// Atoms to try: results of operations before indices before extents; later ones first.
    fn order(&self, p: &Poly) -> Vec<NodeId> {
        let mut atoms: Vec<NodeId> = p.terms.keys().flatten().copied().collect();
        atoms.sort();
        atoms.dedup();
        // An index that occurs inside other atoms goes after them.
        let inside: Vec<AxisId> = atoms
            .iter()
            .filter(|id| !matches!(self.graph.op(**id), Op::Index(_)))
            .flat_map(|id| self.graph.axes_of(*id).iter().copied())
            .collect();
        let class = |id: &NodeId| match self.graph.op(*id) {
            Op::Index(a) => if inside.contains(a) { 2 } else { 0 },
            Op::Extent(_) => 3,
            _ => 1,
        };
        atoms.sort_by_key(|id| (class(id), std::cmp::Reverse(*id)));
        // The first atom that can be eliminated decides in nearly all cases; a few more are tried.
        atoms.truncate(3);
        atoms
    }

    fn sign(&mut self, a: &Poly, depth: usize) -> Option<bool> {
        if let Some(c) = a.as_const() {
            return Some(c >= 0);
        }
        if self.attempt(a, depth) {
            return Some(true);
        }
        self.attempt(&a.scaled(-1), depth).then_some(false)
    }
}
