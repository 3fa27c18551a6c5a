//! Hash-consed construction: equal operations are one node, constants fold, Bool algebra with constants folds.

use super::{Elab, Poison, Res};
use crate::base::{Diagnostic, Span};
use crate::graph::{AxisSet, NodeId, Op};
use crate::ops::{DType, Scalar, ScalarOp};
use crate::reduce::ReduceOp;

/// Most nodes a kernel may have: functions that call functions can grow without end.
const MAX_NODES: usize = 200_000;

/// Identity of a pure op as words.
fn key(op: &Op) -> Vec<u64> {
    let n = |id: &NodeId| id.index() as u64;
    let opt = |id: &Option<NodeId>| id.map_or(u64::MAX, |i| i.index() as u64);
    let list = |out: &mut Vec<u64>, axes: &[crate::graph::AxisId]| {
        out.push(axes.len() as u64);
        out.extend(axes.iter().map(|a| u64::from(a.0)));
    };
    let mut k = Vec::with_capacity(6);
    match op {
        Op::Input(i) => k.extend([0, u64::from(i.0)]),
        Op::Const(Scalar::Bool(b)) => k.extend([1, 0, u64::from(*b)]),
        Op::Const(Scalar::Int(i)) => k.extend([1, 1, *i as u64]),
        Op::Const(Scalar::Real(r)) => k.extend([1, 2, r.to_bits()]),
        Op::Const(Scalar::Complex(a, b)) => k.extend([1, 3, a.to_bits(), b.to_bits()]),
        Op::Index(a) => k.extend([2, u64::from(a.0)]),
        Op::Extent(a) => k.extend([3, u64::from(a.0)]),
        Op::Map { op, args } => {
            k.extend([4, *op as u64]);
            k.extend(args.iter().map(n));
        }
        Op::Read { value, subs } => {
            k.extend([5, n(value)]);
            subs.iter().for_each(|(a, i)| k.extend([u64::from(a.0), n(i)]));
        }
        Op::Reduce { op, axes, body, mask } => {
            k.extend([6, *op as u64, n(body), opt(mask)]);
            list(&mut k, axes);
        }
        Op::Prefix { op, axis, dir, body, mask } => k.extend([7, *op as u64, *dir as u64, u64::from(axis.0), n(body), opt(mask)]),
        Op::Rank { axes, key, mask } => {
            k.extend([8, n(key), opt(mask)]);
            list(&mut k, axes);
        }
        Op::ArgSort { axes, to, key, mask } => {
            k.extend([9, u64::from(to.0), n(key), opt(mask)]);
            list(&mut k, axes);
        }
        Op::TopK { axes, key, mask, count } => {
            k.extend([10, n(key), opt(mask), n(count)]);
            list(&mut k, axes);
        }
        Op::List { axes, to, set } => {
            k.extend([11, u64::from(to.0), n(set)]);
            list(&mut k, axes);
        }
        Op::Solve { rows, cols, matrix, rhs, reverse } => k.extend([16, u64::from(rows.0), u64::from(cols.0), n(matrix), n(rhs), u64::from(*reverse)]),
        Op::State { scan, index } => k.extend([12, u64::from(scan.0), u64::from(*index)]),
        Op::Final { scan, index } => k.extend([13, u64::from(scan.0), u64::from(*index)]),
        Op::History { scan, index } => k.extend([14, u64::from(scan.0), u64::from(*index)]),
        Op::Expand { value, axes } => {
            k.extend([15, n(value)]);
            list(&mut k, axes);
        }
    }
    k
}

impl Elab<'_> {
    /// The node of `op`, an old one if there is an equal one.
    pub(super) fn intern(&mut self, op: Op, span: Span) -> Res<NodeId> {
        let key = key(&op);
        if let Some(id) = self.memo.get(&key) {
            return Ok(*id);
        }
        self.room(span)?;
        match self.graph.build(op, span) {
            Ok(id) => {
                self.memo.insert(key, id);
                Ok(id)
            }
            Err(what) => Err(self.report(Diagnostic::error("A0401", what).label(span, "here"))),
        }
    }

    /// Adds a leaf whose dtype and axes are known, without looking for an equal one.
    pub(super) fn leaf(&mut self, op: Op, dtype: DType, axes: AxisSet, span: Span) -> Res<NodeId> {
        self.room(span)?;
        Ok(self.graph.add(op, dtype, axes, span))
    }

    fn room(&mut self, span: Span) -> Res<()> {
        if self.graph.dag.node_count() < MAX_NODES {
            return Ok(());
        }
        Err(self.give_up(format!("this kernel has more than {MAX_NODES} operations after inlining"), span))
    }

    /// Ends the elaboration of the kernel: it is too large.
    pub(super) fn give_up(&mut self, message: String, span: Span) -> Poison {
        if self.too_large {
            return Poison;
        }
        self.too_large = true;
        let help = "functions are inlined at every call: bind repeated calls with `let`";
        self.report(Diagnostic::error("A0702", message).label(span, "reached here").help(help))
    }

    pub(super) fn constant(&mut self, value: Scalar, span: Span) -> Res<NodeId> {
        self.intern(Op::Const(value), span)
    }

    pub(super) fn int(&mut self, value: i64, span: Span) -> Res<NodeId> {
        self.constant(Scalar::Int(value), span)
    }

    pub(super) fn real(&mut self, value: f64, span: Span) -> Res<NodeId> {
        self.constant(Scalar::Real(value), span)
    }

    pub(super) fn boolean(&mut self, value: bool, span: Span) -> Res<NodeId> {
        self.constant(Scalar::Bool(value), span)
    }

    /// The constant that the node is.
    pub(super) fn as_const(&self, id: NodeId) -> Option<Scalar> {
        match self.graph.op(id) {
            Op::Const(c) => Some(*c),
            _ => None,
        }
    }

    /// A pointwise op on operands of the right dtypes.
    pub(super) fn map(&mut self, op: ScalarOp, args: Vec<NodeId>, span: Span) -> Res<NodeId> {
        if let Some(known) = self.fold(op, &args, span)? {
            return Ok(known);
        }
        self.intern(Op::Map { op, args }, span)
    }

    /// Simplifications that hold for every value, NaN and signed zero included.
    fn fold(&mut self, op: ScalarOp, args: &[NodeId], span: Span) -> Res<Option<NodeId>> {
        let consts: Vec<Option<Scalar>> = args.iter().map(|a| self.as_const(*a)).collect();
        if let Some(values) = consts.iter().copied().collect::<Option<Vec<Scalar>>>()
            && let Some(value) = op.eval(&values)
        {
            return Ok(Some(self.constant(value, span)?));
        }
        use Scalar::{Bool, Int, Real};
        let same = args.len() == 2 && args[0] == args[1];
        let ints = args.first().is_some_and(|a| self.graph.dtype(*a) == DType::Int);
        Ok(match (op, &consts[..]) {
            (ScalarOp::And, [Some(Bool(true)), _]) | (ScalarOp::Or, [Some(Bool(false)), _]) => Some(args[1]),
            (ScalarOp::And, [_, Some(Bool(true))]) | (ScalarOp::Or, [_, Some(Bool(false))]) => Some(args[0]),
            (ScalarOp::And, [Some(Bool(false)), _]) | (ScalarOp::Or, [Some(Bool(true)), _]) => Some(args[0]),
            (ScalarOp::And, [_, Some(Bool(false))]) | (ScalarOp::Or, [_, Some(Bool(true))]) => Some(args[1]),
            (ScalarOp::And | ScalarOp::Or, _) if same => Some(args[0]),
            (ScalarOp::Add, [Some(Int(0)), _]) | (ScalarOp::Mul, [Some(Int(1)), _]) => Some(args[1]),
            (ScalarOp::Mul, [Some(Real(1.0)), _]) => Some(args[1]),
            (ScalarOp::Mul | ScalarOp::Div, [_, Some(Real(1.0))]) => Some(args[0]),
            (ScalarOp::Add | ScalarOp::Sub, [_, Some(Int(0))]) | (ScalarOp::Mul | ScalarOp::IntDiv, [_, Some(Int(1))]) => Some(args[0]),
            (ScalarOp::Select, [Some(Bool(c)), _, _]) => Some(if *c { args[1] } else { args[2] }),
            (ScalarOp::Select, _) if args[1] == args[2] => Some(args[1]),
            (ScalarOp::Not, _) => match self.graph.op(args[0]) {
                Op::Map { op: ScalarOp::Not, args } => Some(args[0]),
                _ => None,
            },
            (ScalarOp::Eq | ScalarOp::Le, _) if same && ints => Some(self.boolean(true, span)?),
            (ScalarOp::Ne | ScalarOp::Lt, _) if same && ints => Some(self.boolean(false, span)?),
            (ScalarOp::ToInt, _) if ints => Some(args[0]),
            (_, _) => None,
        })
    }

    /// `a and b`
    pub(super) fn and(&mut self, a: NodeId, b: NodeId, span: Span) -> Res<NodeId> {
        self.map(ScalarOp::And, vec![a, b], span)
    }

    /// `c ? a : b` on equal dtypes.
    pub(super) fn select(&mut self, c: NodeId, a: NodeId, b: NodeId, span: Span) -> Res<NodeId> {
        self.map(ScalarOp::Select, vec![c, a, b], span)
    }

    /// A reduction; over an axis that neither body nor mask has, the body is repeated.
    pub(super) fn reduction(&mut self, op: ReduceOp, axes: &[crate::graph::AxisId], body: NodeId, mask: Option<NodeId>, span: Span) -> Res<NodeId> {
        let known = |a: &crate::graph::AxisId| self.graph.axes_of(body).contains(a) || mask.is_some_and(|m| self.graph.axes_of(m).contains(a));
        let missing: Vec<_> = axes.iter().copied().filter(|a| !known(a)).collect();
        let body = if missing.is_empty() { body } else { self.intern(Op::Expand { value: body, axes: missing }, span)? };
        self.intern(Op::Reduce { op, axes: axes.to_vec(), body, mask }, span)
    }

    /// Remembers the first name given to a node, for dumps.
    pub(super) fn give_name(&mut self, id: NodeId, name: &str) {
        let node = &mut self.graph.dag[id.0];
        let plain = matches!(node.op, Op::Input(_) | Op::Const(_) | Op::Index(_) | Op::Extent(_) | Op::State { .. } | Op::Final { .. });
        if node.name.is_none() && !plain {
            node.name = Some(name.to_string());
        }
    }

    /// Whether `id` depends on a node for which `hit` holds; scans are followed through their records.
    pub(super) fn depends(&self, id: NodeId, hit: impl Fn(NodeId) -> bool) -> bool {
        let mut work = vec![id];
        let mut seen = std::collections::HashSet::new();
        while let Some(n) = work.pop() {
            if !seen.insert(n) {
                continue;
            }
            if hit(n) {
                return true;
            }
            match *self.graph.op(n) {
                Op::State { scan, .. } | Op::Final { scan, .. } | Op::History { scan, .. } => {
                    let scan = &self.graph.scans[scan.index()];
                    scan.states.iter().for_each(|s| work.extend([s.init, s.next]));
                    scan.history.iter().for_each(|h| work.push(h.1));
                }
                _ => work.extend(self.graph.op(n).operands()),
            }
        }
        false
    }
}
