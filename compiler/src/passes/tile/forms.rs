//! Integer conditions over positions as sets of values of one linear form: `lo <= L <= hi` and `L = r mod m`.
//!
//! Comparisons of a conjunction that speak of the same form (up to what is known at launch) are intersected before a block is judged,
//! so a dilated window is empty where no multiple falls into what the window leaves. Sound: the interval of a form over a block
//! contains all its values.

use super::Writer;
use super::masks::Verdict;
use crate::graph::{NodeId, Op};
use crate::ops::{DType, Scalar, ScalarOp};
use crate::passes::error::CompileError;
use crate::tiles::*;

/// `sum coef * term` over what varies, in order of nodes, with a first coefficient above 0.
type Terms = Vec<(NodeId, i64)>;

/// What one comparison says of its form.
#[derive(Clone, Debug)]
struct Atom {
    terms: Terms,
    lo: Option<ExprId>,
    hi: Option<ExprId>,
    /// (modulus, residue of the form, residue as written: an answer only when it lies in `0 .. modulus`).
    modulus: Option<(ExprId, ExprId, ExprId)>,
}

impl Writer<'_> {
    /// Judges the conjuncts that are comparisons of Ints; gives the others back.
    pub(super) fn decide_forms(&mut self, conjuncts: Vec<NodeId>) -> Result<(Verdict, Vec<NodeId>), CompileError> {
        let mut rest = Vec::new();
        let mut groups: Vec<(Terms, Vec<Atom>)> = Vec::new();
        for id in conjuncts {
            match self.atom(id)? {
                Some(atom) if !atom.terms.is_empty() => match groups.iter_mut().find(|g| g.0 == atom.terms) {
                    Some(group) => group.1.push(atom),
                    None => groups.push((atom.terms.clone(), vec![atom])),
                },
                _ => rest.push(id),
            }
        }
        let mut all = (self.truth(true), self.truth(false));
        for (terms, atoms) in groups {
            let own = self.decide_form(&terms, &atoms)?;
            all = (self.k.op(ScalarOp::And, &[all.0, own.0]), self.k.op(ScalarOp::Or, &[all.1, own.1]));
        }
        Ok((all, rest))
    }

    fn decide_form(&mut self, terms: &Terms, atoms: &[Atom]) -> Result<Verdict, CompileError> {
        let unknown = (self.truth(false), self.truth(false));
        let mut interval: Option<(ExprId, ExprId)> = None;
        for (term, coef) in terms {
            let Some((mut lo, mut hi)) = self.interval(*term)? else { return Ok(unknown) };
            if *coef != 1 {
                let c = self.k.int(*coef);
                let ends = [lo, hi].map(|e| self.k.op(ScalarOp::Mul, &[e, c]));
                (lo, hi) = if *coef > 0 { (ends[0], ends[1]) } else { (ends[1], ends[0]) };
            }
            interval = Some(match interval {
                None => (lo, hi),
                Some(i) => (self.k.op(ScalarOp::Add, &[i.0, lo]), self.k.op(ScalarOp::Add, &[i.1, hi])),
            });
        }
        let Some((least, most)) = interval else { return Ok(unknown) };
        let (mut lo, mut hi) = (least, most);
        let mut yes = self.truth(true);
        for atom in atoms {
            if let Some(l) = atom.lo {
                let inside = self.k.op(ScalarOp::Le, &[l, least]);
                yes = self.k.op(ScalarOp::And, &[yes, inside]);
                lo = self.k.op(ScalarOp::Max, &[lo, l]);
            }
            if let Some(h) = atom.hi {
                let inside = self.k.op(ScalarOp::Le, &[most, h]);
                yes = self.k.op(ScalarOp::And, &[yes, inside]);
                hi = self.k.op(ScalarOp::Min, &[hi, h]);
            }
        }
        let mut no = self.k.op(ScalarOp::Lt, &[hi, lo]);
        let (zero, one) = (self.k.int(0), self.k.int(1));
        for (modulus, residue, written) in atoms.iter().filter_map(|a| a.modulus) {
            // No number of the class between lo and hi.
            let top = self.k.op(ScalarOp::Sub, &[hi, residue]);
            let bottom = self.k.op(ScalarOp::Sub, &[lo, residue]);
            let below = self.k.op(ScalarOp::Sub, &[bottom, one]);
            let last = self.k.op(ScalarOp::IntDiv, &[top, modulus]);
            let first = self.k.op(ScalarOp::IntDiv, &[below, modulus]);
            let none = self.k.op(ScalarOp::Le, &[last, first]);
            let positive = self.k.op(ScalarOp::Lt, &[zero, modulus]);
            let none = self.k.op(ScalarOp::And, &[positive, none]);
            no = self.k.op(ScalarOp::Or, &[no, none]);
            let offset = self.k.op(ScalarOp::Sub, &[least, residue]);
            let over = self.k.op(ScalarOp::Mod, &[offset, modulus]);
            let hit = self.k.op(ScalarOp::Eq, &[over, zero]);
            let point = self.k.op(ScalarOp::Eq, &[least, most]);
            let all = self.k.op(ScalarOp::Eq, &[modulus, one]);
            let fixed = self.k.op(ScalarOp::Or, &[point, all]);
            let low = self.k.op(ScalarOp::Le, &[zero, written]);
            let high = self.k.op(ScalarOp::Lt, &[written, modulus]);
            for part in [positive, hit, fixed, low, high] {
                yes = self.k.op(ScalarOp::And, &[yes, part]);
            }
        }
        Ok((yes, no))
    }

    fn atom(&mut self, id: NodeId) -> Result<Option<Atom>, CompileError> {
        let Op::Map { op: op @ (ScalarOp::Lt | ScalarOp::Le | ScalarOp::Eq), args } = self.graph.op(id).clone() else { return Ok(None) };
        if self.graph.dtype(args[0]) != DType::Int {
            return Ok(None);
        }
        if op == ScalarOp::Eq {
            if let Some(atom) = self.congruence(&args)? {
                return Ok(Some(atom));
            }
        }
        // a < b is terms + fixed < 0, so terms <= -fixed - 1.
        let (mut terms, mut fixed) = (vec![], None);
        self.linear(args[0], 1, &mut terms, &mut fixed, 0)?;
        self.linear(args[1], -1, &mut terms, &mut fixed, 0)?;
        let flipped = tidy(&mut terms);
        let (zero, one) = (self.k.int(0), self.k.int(1));
        let fixed = fixed.unwrap_or(zero);
        let mut atom = Atom { terms, lo: None, hi: None, modulus: None };
        if flipped {
            // -terms + fixed < 0: terms > fixed.
            let least = if op == ScalarOp::Lt { self.k.op(ScalarOp::Add, &[fixed, one]) } else { fixed };
            atom.lo = Some(least);
            atom.hi = (op == ScalarOp::Eq).then_some(fixed);
        } else {
            let most = self.k.op(ScalarOp::Sub, &[zero, fixed]);
            let most_or = if op == ScalarOp::Lt { self.k.op(ScalarOp::Sub, &[most, one]) } else { most };
            atom.hi = Some(most_or);
            atom.lo = (op == ScalarOp::Eq).then_some(most);
        }
        Ok(Some(atom))
    }

    /// `x mod m == c` and `x mod m == y mod m`, m and c known at launch.
    fn congruence(&mut self, args: &[NodeId]) -> Result<Option<Atom>, CompileError> {
        let graph = self.graph;
        let modulo = |id: NodeId| match graph.op(id) {
            Op::Map { op: ScalarOp::Mod, args } if graph.axes_of(args[1]).is_empty() && super::host(graph, args[1]).is_some() => Some((args[0], args[1])),
            _ => None,
        };
        let known = |id: NodeId| graph.axes_of(id).is_empty() && super::host(graph, id).is_some();
        let (mut terms, mut fixed) = (vec![], None);
        let zero = self.k.int(0);
        let (modulus, written) = match (modulo(args[0]), modulo(args[1])) {
            (Some((x, m)), Some((y, n))) if m == n => {
                self.linear(x, 1, &mut terms, &mut fixed, 0)?;
                self.linear(y, -1, &mut terms, &mut fixed, 0)?;
                (m, zero)
            }
            (Some((x, m)), None) if known(args[1]) => {
                self.linear(x, 1, &mut terms, &mut fixed, 0)?;
                (m, self.expr(args[1])?)
            }
            (None, Some((x, m))) if known(args[0]) => {
                self.linear(x, 1, &mut terms, &mut fixed, 0)?;
                (m, self.expr(args[0])?)
            }
            _ => return Ok(None),
        };
        let modulus = self.expr(modulus)?;
        let flipped = tidy(&mut terms);
        let fixed = fixed.unwrap_or(zero);
        let residue = if flipped { self.k.op(ScalarOp::Sub, &[fixed, written]) } else { self.k.op(ScalarOp::Sub, &[written, fixed]) };
        Ok(Some(Atom { terms, lo: None, hi: None, modulus: Some((modulus, residue, written)) }))
    }

    /// Adds `sign * id` to a form: what is known at launch to `fixed`, the rest to `terms`.
    fn linear(&mut self, id: NodeId, sign: i64, terms: &mut Terms, fixed: &mut Option<ExprId>, depth: u32) -> Result<(), CompileError> {
        if self.graph.axes_of(id).is_empty() && super::host(self.graph, id).is_some() {
            let value = self.expr(id)?;
            let value = match sign {
                1 => value,
                _ => {
                    let c = self.k.int(sign);
                    self.k.op(ScalarOp::Mul, &[value, c])
                }
            };
            *fixed = Some(match *fixed {
                None => value,
                Some(f) => self.k.op(ScalarOp::Add, &[f, value]),
            });
            return Ok(());
        }
        if let (Op::Map { op, args }, true) = (self.graph.op(id).clone(), depth < 16) {
            match op {
                ScalarOp::Add | ScalarOp::Sub => {
                    self.linear(args[0], sign, terms, fixed, depth + 1)?;
                    return self.linear(args[1], if op == ScalarOp::Add { sign } else { -sign }, terms, fixed, depth + 1);
                }
                ScalarOp::Neg => return self.linear(args[0], -sign, terms, fixed, depth + 1),
                ScalarOp::Mul => {
                    for (x, c) in [(args[0], args[1]), (args[1], args[0])] {
                        if let Op::Const(Scalar::Int(c)) = self.graph.op(c) {
                            if let Some(by) = sign.checked_mul(*c).filter(|by| by.unsigned_abs() < 1 << 20) {
                                return self.linear(x, by, terms, fixed, depth + 1);
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        match terms.iter_mut().find(|t| t.0 == id) {
            Some(term) => term.1 += sign,
            None => terms.push((id, sign)),
        }
        Ok(())
    }
}

/// Brings terms into their one order; true when all signs were turned.
fn tidy(terms: &mut Terms) -> bool {
    terms.retain(|t| t.1 != 0);
    terms.sort();
    let flip = terms.first().is_some_and(|t| t.1 < 0);
    if flip {
        terms.iter_mut().for_each(|t| t.1 = -t.1);
    }
    flip
}
