//! Builds a kernel statement by statement: folds constants, simplifies Ints and shares equal values while it goes.
//!
//! A value made inside a loop or a branch is reused inside that loop or branch only. Constants, arguments, `Block` and `Lane` stand
//! at the top of the kernel and are visible everywhere. Loads of buffers that nobody writes are shared like pure values; other loads
//! are shared until a store to the same array, a barrier, a tile call, or the edge of a loop. The builder never fails: operands of
//! wrong types are emitted as they are, and `verify` reports them.

use super::ir::*;
use super::{prune, simplify};
use crate::ops::{DType, Scalar, ScalarOp};
use std::collections::HashMap;

/// What makes two pure instructions the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Const(DType, u64, u64),
    IntArg(u32),
    RealArg(u32),
    Block,
    Lane,
    Op(ScalarOp, Vec<Value>),
    Load(Base, Value),
}

fn const_key(scalar: Scalar) -> Key {
    let (a, b) = match scalar {
        Scalar::Bool(x) => (u64::from(x), 0),
        Scalar::Int(x) => (x as u64, 0),
        Scalar::Real(x) => (x.to_bits(), 0),
        Scalar::Complex(x, y) => (x.to_bits(), y.to_bits()),
    };
    Key::Const(scalar.dtype(), a, b)
}

#[derive(Default)]
struct Scope {
    stmts: Vec<Stmt>,
    /// Values that stay equal as long as they are visible.
    pure: HashMap<Key, Value>,
    /// What arrays that change hold right now.
    memory: HashMap<(Base, Value), Value>,
    /// The text of this scope runs several times: what memory held before it is not known in it.
    repeats: bool,
}

/// What became of a loop whose bounds may be constants.
#[derive(Clone, Copy, PartialEq)]
enum Trips {
    Zero,
    One,
    Many,
}

/// A loop under construction; see [`KernelBuilder::begin_for`].
#[must_use = "an open loop swallows the statements that follow; close it with end_for"]
pub struct OpenFor {
    trips: Trips,
    bounds: (Value, Value, Value),
    pub var: Value,
    inits: Vec<Value>,
    /// The carried values at the start of an iteration.
    pub params: Vec<Value>,
}

/// A branch under construction; see [`KernelBuilder::begin_if`].
#[must_use = "an open branch swallows the statements that follow; close it with end_if"]
pub struct OpenIf {
    cond: Value,
    then: Option<Vec<Stmt>>,
}

/// See the module.
pub struct KernelBuilder {
    kernel: Kernel,
    constants: Vec<Option<Scalar>>,
    /// How pure ops were made, for simplification across two of them.
    made: HashMap<Value, (ScalarOp, Vec<Value>)>,
    entry: Vec<Stmt>,
    shared: HashMap<Key, Value>,
    scopes: Vec<Scope>,
}

impl KernelBuilder {
    /// A kernel without arguments or statements whose blocks have `lanes` lanes.
    pub fn new(name: impl Into<String>, lanes: u32) -> KernelBuilder {
        KernelBuilder {
            kernel: Kernel { name: name.into(), buffers: vec![], ints: vec![], reals: vec![], locals: vec![], lanes, types: vec![], body: vec![], warps: None },
            constants: vec![],
            made: HashMap::new(),
            entry: vec![],
            shared: HashMap::new(),
            scopes: vec![Scope::default()],
        }
    }

    /// Closes the kernel: drops values that nothing reads and numbers the rest in order. Open loops and branches are lost.
    pub fn finish(mut self) -> Kernel {
        self.scopes.truncate(1);
        let mut body = self.entry;
        body.extend(self.scopes.pop().map(|s| s.stmts).unwrap_or_default());
        self.kernel.body = body;
        prune::prune(self.kernel)
    }

    // Arguments and memory.

    /// Adds a buffer argument; `written` when some lane stores to it.
    pub fn buffer(&mut self, name: impl Into<String>, ty: DType, storage: Storage, written: bool) -> BufferId {
        self.kernel.buffers.push(BufferArg { name: name.into(), ty, storage, written });
        BufferId(self.kernel.buffers.len() as u32 - 1)
    }

    /// Adds a local array in `Space::Shared`.
    pub fn local(&mut self, name: impl Into<String>, ty: DType, len: usize) -> LocalId {
        self.local_in(name, ty, len, Space::Shared)
    }

    /// Adds a local array.
    pub fn local_in(&mut self, name: impl Into<String>, ty: DType, len: usize, space: Space) -> LocalId {
        self.kernel.locals.push(LocalArray { name: name.into(), ty, len, space });
        LocalId(self.kernel.locals.len() as u32 - 1)
    }

    /// Adds an Int argument and gives its value.
    pub fn int_arg(&mut self, name: impl Into<String>) -> Value {
        self.kernel.ints.push(name.into());
        let index = self.kernel.ints.len() as u32 - 1;
        self.top(Key::IntArg(index), Inst::IntArg(index), DType::Int)
    }

    /// Adds a Real argument and gives its value.
    pub fn real_arg(&mut self, name: impl Into<String>) -> Value {
        self.kernel.reals.push(name.into());
        let index = self.kernel.reals.len() as u32 - 1;
        self.top(Key::RealArg(index), Inst::RealArg(index), DType::Real)
    }

    /// The kernel so far, without its body: arguments, locals, types of values.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Type of a value made by this builder.
    pub fn ty(&self, value: Value) -> DType {
        self.kernel.ty(value)
    }

    /// The constant that a value is, if it is one.
    pub fn constant(&self, value: Value) -> Option<Scalar> {
        self.constants[value.0 as usize]
    }

    /// The Int constant that a value is, if it is one.
    pub fn as_int(&self, value: Value) -> Option<i64> {
        match self.constant(value) {
            Some(Scalar::Int(x)) => Some(x),
            _ => None,
        }
    }

    pub(super) fn made(&self, value: Value) -> Option<(ScalarOp, &[Value])> {
        self.made.get(&value).map(|(op, args)| (*op, args.as_slice()))
    }

    // Values.

    fn fresh(&mut self, ty: DType) -> Value {
        self.kernel.types.push(ty);
        self.constants.push(None);
        Value(self.kernel.types.len() as u32 - 1)
    }

    fn top(&mut self, key: Key, inst: Inst, ty: DType) -> Value {
        if let Some(&value) = self.shared.get(&key) {
            return value;
        }
        let value = self.fresh(ty);
        self.entry.push(Stmt::Let(value, inst));
        self.shared.insert(key, value);
        value
    }

    fn scope(&mut self) -> &mut Scope {
        if self.scopes.is_empty() {
            self.scopes.push(Scope::default());
        }
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    fn push(&mut self, stmt: Stmt) {
        self.scope().stmts.push(stmt);
    }

    fn pure(&mut self, key: Key, inst: Inst, ty: DType) -> Value {
        if let Some(&value) = self.scopes.iter().rev().find_map(|s| s.pure.get(&key)) {
            return value;
        }
        let value = self.fresh(ty);
        self.push(Stmt::Let(value, inst));
        self.scope().pure.insert(key, value);
        value
    }

    /// A constant.
    pub fn scalar(&mut self, scalar: Scalar) -> Value {
        let value = self.top(const_key(scalar), Inst::Const(scalar), scalar.dtype());
        self.constants[value.0 as usize] = Some(scalar);
        value
    }

    /// An Int constant.
    pub fn int(&mut self, x: i64) -> Value {
        self.scalar(Scalar::Int(x))
    }

    /// A Real constant.
    pub fn real(&mut self, x: f64) -> Value {
        self.scalar(Scalar::Real(x))
    }

    /// A Bool constant.
    pub fn boolean(&mut self, x: bool) -> Value {
        self.scalar(Scalar::Bool(x))
    }

    /// Index of this block.
    pub fn block(&mut self) -> Value {
        self.top(Key::Block, Inst::Block, DType::Int)
    }

    /// Index of this lane; the constant 0 when a block has one lane.
    pub fn lane(&mut self) -> Value {
        if self.kernel.lanes == 1 {
            return self.int(0);
        }
        self.top(Key::Lane, Inst::Lane, DType::Int)
    }

    /// The result of an op: folded, simplified, or shared with an equal earlier one where possible.
    pub fn op(&mut self, op: ScalarOp, args: &[Value]) -> Value {
        let types: Vec<DType> = args.iter().map(|&a| self.ty(a)).collect();
        let Some(ty) = op.result(&types) else {
            let ty = types.first().copied().unwrap_or(DType::Int);
            let value = self.fresh(ty);
            self.push(Stmt::Let(value, Inst::Op { op, args: args.to_vec() }));
            return value;
        };
        let constants: Option<Vec<Scalar>> = args.iter().map(|&a| self.constant(a)).collect();
        if let Some(folded) = constants.and_then(|c| op.eval(&c)) {
            return self.scalar(folded);
        }
        let mut args = args.to_vec();
        // Constants go right, so that the rules below and the sharing see one order.
        if simplify::commutes(op) && (self.constant(args[0]).is_some() || (self.constant(args[1]).is_none() && args[1] < args[0])) {
            args.swap(0, 1);
        }
        if let Some(value) = simplify::simplify(self, op, &args) {
            return value;
        }
        let value = self.pure(Key::Op(op, args.clone()), Inst::Op { op, args: args.clone() }, ty);
        self.made.insert(value, (op, args));
        value
    }

    /// `a + b`.
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.op(ScalarOp::Add, &[a, b])
    }

    /// `a - b`.
    pub fn sub(&mut self, a: Value, b: Value) -> Value {
        self.op(ScalarOp::Sub, &[a, b])
    }

    /// `a * b`.
    pub fn mul(&mut self, a: Value, b: Value) -> Value {
        self.op(ScalarOp::Mul, &[a, b])
    }

    /// `a * b + c`, for indices.
    pub fn mul_add(&mut self, a: Value, b: Value, c: Value) -> Value {
        let product = self.mul(a, b);
        self.add(product, c)
    }

    /// Floor quotient of Ints.
    pub fn idiv(&mut self, a: Value, b: Value) -> Value {
        self.op(ScalarOp::IntDiv, &[a, b])
    }

    /// Remainder of Ints with the sign of the divisor.
    pub fn modulo(&mut self, a: Value, b: Value) -> Value {
        self.op(ScalarOp::Mod, &[a, b])
    }

    /// Int quotient rounded up.
    pub fn ceildiv(&mut self, a: Value, b: Value) -> Value {
        self.op(ScalarOp::CeilDiv, &[a, b])
    }

    /// Smaller of two.
    pub fn min(&mut self, a: Value, b: Value) -> Value {
        self.op(ScalarOp::Min, &[a, b])
    }

    /// Larger of two.
    pub fn max(&mut self, a: Value, b: Value) -> Value {
        self.op(ScalarOp::Max, &[a, b])
    }

    /// `a < b`.
    pub fn lt(&mut self, a: Value, b: Value) -> Value {
        self.op(ScalarOp::Lt, &[a, b])
    }

    /// `a <= b`.
    pub fn le(&mut self, a: Value, b: Value) -> Value {
        self.op(ScalarOp::Le, &[a, b])
    }

    /// `a == b`.
    pub fn eq(&mut self, a: Value, b: Value) -> Value {
        self.op(ScalarOp::Eq, &[a, b])
    }

    /// Conjunction; both operands are evaluated.
    pub fn and(&mut self, a: Value, b: Value) -> Value {
        self.op(ScalarOp::And, &[a, b])
    }

    /// Disjunction; both operands are evaluated.
    pub fn or(&mut self, a: Value, b: Value) -> Value {
        self.op(ScalarOp::Or, &[a, b])
    }

    /// Negation of a Bool.
    pub fn not(&mut self, a: Value) -> Value {
        self.op(ScalarOp::Not, &[a])
    }

    /// `c ? a : b`; both arms are evaluated.
    pub fn select(&mut self, c: Value, a: Value, b: Value) -> Value {
        self.op(ScalarOp::Select, &[c, a, b])
    }

    // Memory.

    fn base_ty(&self, base: Base) -> DType {
        match base {
            Base::Buffer(b) => self.kernel.buffers.get(b.0 as usize).map_or(DType::Int, |b| b.ty),
            Base::Local(l) => self.kernel.locals.get(l.0 as usize).map_or(DType::Int, |l| l.ty),
        }
    }

    fn changes(&self, base: Base) -> bool {
        match base {
            Base::Buffer(b) => self.kernel.buffers.get(b.0 as usize).is_none_or(|b| b.written),
            Base::Local(_) => true,
        }
    }

    /// The element `index` of an array. The caller makes sure that it is in range whenever this statement runs.
    pub fn load(&mut self, base: impl Into<Base>, index: Value) -> Value {
        let base = base.into();
        let ty = self.base_ty(base);
        if !self.changes(base) {
            return self.pure(Key::Load(base, index), Inst::Load { base, index }, ty);
        }
        if let Some(value) = self.held(base, index) {
            return value;
        }
        let value = self.fresh(ty);
        self.push(Stmt::Let(value, Inst::Load { base, index }));
        self.scope().memory.insert((base, index), value);
        value
    }

    /// What an element that may change is known to hold here.
    fn held(&self, base: Base, index: Value) -> Option<Value> {
        for scope in self.scopes.iter().rev() {
            if let Some(&value) = scope.memory.get(&(base, index)) {
                return Some(value);
            }
            if scope.repeats {
                break;
            }
        }
        None
    }

    /// Stores one element; nothing where it holds that value already.
    pub fn store(&mut self, base: impl Into<Base>, index: Value, value: Value) {
        let base = base.into();
        if self.held(base, index) == Some(value) {
            return;
        }
        self.forget(base);
        self.push(Stmt::Store { base, index, value });
        // Locals hold what was stored, exactly; buffers may round it.
        if matches!(base, Base::Local(_)) && self.kernel.lanes == 1 {
            self.scope().memory.insert((base, index), value);
        }
    }

    /// A place for a tile call.
    pub fn place(&self, base: impl Into<Base>, offset: Value) -> Place {
        Place { base: base.into(), offset }
    }

    fn forget(&mut self, base: Base) {
        for scope in &mut self.scopes {
            scope.memory.retain(|(b, _), _| *b != base);
        }
    }

    /// Makes stores of all lanes of the block visible; does nothing in blocks of one lane.
    pub fn barrier(&mut self) {
        if self.kernel.lanes == 1 {
            return;
        }
        for scope in &mut self.scopes {
            scope.memory.clear();
        }
        self.push(Stmt::Barrier);
    }

    /// Emits a tile call.
    pub fn tile(&mut self, call: TileCall) {
        for place in call.outputs() {
            self.forget(place.base);
        }
        self.push(Stmt::Tile(Box::new(call)));
    }

    // Warp groups.

    /// Makes this a kernel with roles.
    pub fn set_warps(&mut self, warps: super::warp::Warps) {
        self.kernel.warps = Some(Box::new(warps));
    }

    /// A value that a body begins with.
    pub fn param(&mut self, ty: DType) -> Value {
        self.fresh(ty)
    }

    /// Opens the text of a role, a piece of work or a region; `end_body` gives it.
    pub fn begin_body(&mut self) {
        self.open(true);
    }

    pub fn end_body(&mut self) -> Vec<Stmt> {
        self.close()
    }

    /// Emits an op of a role.
    pub fn warp(&mut self, op: super::warp::WarpOp) {
        self.push(Stmt::Warp(Box::new(op)));
    }

    // Control flow.

    fn open(&mut self, repeats: bool) {
        self.scopes.push(Scope { repeats, ..Scope::default() });
    }

    fn close(&mut self) -> Vec<Stmt> {
        self.scopes.pop().map(|s| s.stmts).unwrap_or_default()
    }

    /// `for var = lo; var < hi; var += step` with values carried around: `body` takes the carried values at the start of an
    /// iteration and returns them at its end, in the order of `inits`. Returns the carried values after the loop.
    pub fn for_loop(&mut self, lo: Value, hi: Value, step: Value, inits: &[Value], body: impl FnOnce(&mut Self, Value, &[Value]) -> Vec<Value>) -> Vec<Value> {
        let open = self.begin_for(lo, hi, step, inits);
        if open.trips == Trips::Zero {
            self.close();
            return open.inits;
        }
        let nexts = body(self, open.var, &open.params);
        self.end_for(open, &nexts)
    }

    /// `for_loop` over `0..n` in steps of 1 without carried values.
    pub fn count(&mut self, n: Value, body: impl FnOnce(&mut Self, Value)) {
        let (zero, one) = (self.int(0), self.int(1));
        self.for_loop(zero, n, one, &[], |b, var, _| {
            body(b, var);
            vec![]
        });
    }

    /// The open form of [`for_loop`](Self::for_loop), for code that cannot be a closure; close it with `end_for`.
    pub fn begin_for(&mut self, lo: Value, hi: Value, step: Value, inits: &[Value]) -> OpenFor {
        let trips = match (self.as_int(lo), self.as_int(hi), self.as_int(step)) {
            (Some(lo), Some(hi), _) if lo >= hi => Trips::Zero,
            (Some(lo), Some(hi), Some(step)) if step > 0 && lo.checked_add(step).is_some_and(|next| next >= hi) => Trips::One,
            _ => Trips::Many,
        };
        let (var, params) = match trips {
            Trips::Many => {
                let var = self.fresh(DType::Int);
                (var, inits.iter().map(|&i| self.fresh(self.kernel.ty(i))).collect())
            }
            Trips::Zero | Trips::One => (lo, inits.to_vec()),
        };
        self.open(trips == Trips::Many);
        OpenFor { trips, bounds: (lo, hi, step), var, inits: inits.to_vec(), params }
    }

    /// Closes a loop; `nexts` are the carried values at the end of the body. Returns them after the loop.
    pub fn end_for(&mut self, open: OpenFor, nexts: &[Value]) -> Vec<Value> {
        let body = self.close();
        match open.trips {
            Trips::Zero => return open.inits,
            Trips::One => {
                self.scope().stmts.extend(body);
                return nexts.to_vec();
            }
            Trips::Many => {}
        }
        let mut carries = vec![];
        for ((&init, &param), &next) in open.inits.iter().zip(&open.params).zip(nexts) {
            let result = self.fresh(self.kernel.ty(init));
            carries.push(Carry { param, init, next, result });
        }
        let results = carries.iter().map(|c| c.result).collect();
        let (lo, hi, step) = open.bounds;
        self.push(Stmt::For { var: open.var, lo, hi, step, carries, body });
        results
    }

    /// Runs `then` where `cond` holds. A constant condition leaves no branch.
    pub fn if_then(&mut self, cond: Value, then: impl FnOnce(&mut Self)) {
        self.if_else(cond, then, |_| ());
    }

    /// Runs `then` or `other`.
    pub fn if_else(&mut self, cond: Value, then: impl FnOnce(&mut Self), other: impl FnOnce(&mut Self)) {
        match self.constant(cond) {
            Some(Scalar::Bool(true)) => then(self),
            Some(Scalar::Bool(false)) => other(self),
            _ => {
                let mut open = self.begin_if(cond);
                then(self);
                self.begin_else(&mut open);
                other(self);
                self.end_if(open);
            }
        }
    }

    /// The open form of [`if_else`](Self::if_else): `begin_if`, perhaps `begin_else`, `end_if`.
    pub fn begin_if(&mut self, cond: Value) -> OpenIf {
        self.open(false);
        OpenIf { cond, then: None }
    }

    /// Starts the other arm.
    pub fn begin_else(&mut self, open: &mut OpenIf) {
        open.then = Some(self.close());
        self.open(false);
    }

    /// Closes a branch.
    pub fn end_if(&mut self, open: OpenIf) {
        let last = self.close();
        let (then, other) = match open.then {
            Some(then) => (then, last),
            None => (last, vec![]),
        };
        match self.constant(open.cond) {
            Some(Scalar::Bool(true)) => self.scope().stmts.extend(then),
            Some(Scalar::Bool(false)) => self.scope().stmts.extend(other),
            _ if then.is_empty() && other.is_empty() => {}
            _ => self.push(Stmt::If { cond: open.cond, then, other }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lets(kernel: &Kernel) -> usize {
        fn count(body: &[Stmt]) -> usize {
            body.iter()
                .map(|s| match s {
                    Stmt::Let(..) => 1,
                    Stmt::For { body, .. } => count(body),
                    Stmt::If { then, other, .. } => count(then) + count(other),
                    Stmt::Store { .. } | Stmt::Barrier | Stmt::Tile(_) | Stmt::Warp(_) => 0,
                })
                .sum()
        }
        count(&kernel.body)
    }

    #[test]
    fn ints_simplify() {
        let mut b = KernelBuilder::new("k", 1);
        let x = b.int_arg("x");
        let (zero, one, two, three) = (b.int(0), b.int(1), b.int(2), b.int(3));
        assert_eq!(b.add(zero, x), x);
        assert_eq!(b.mul(one, x), x);
        assert_eq!(b.mul(x, zero), zero);
        assert_eq!(b.sub(x, x), zero);
        assert_eq!(b.idiv(x, one), x);
        assert_eq!(b.modulo(x, one), zero);
        let six = b.mul(two, three);
        assert_eq!(b.as_int(six), Some(6));
        let (left, right) = (b.add(x, two), b.add(two, x));
        assert_eq!(left, right);
        let five = b.int(5);
        let (chained, direct) = (b.add(left, three), b.add(x, five));
        assert_eq!(chained, direct);
        assert_eq!(b.sub(direct, five), x);
    }

    #[test]
    fn values_of_a_body_stay_in_it() {
        let mut b = KernelBuilder::new("k", 1);
        let out = b.buffer("out", DType::Int, Storage::I64, true);
        let (x, n) = (b.int_arg("x"), b.int_arg("n"));
        let mut inner = None;
        b.count(n, |b, i| {
            let square = b.mul(x, x);
            inner = Some(square);
            b.store(out, i, square);
        });
        let outer = b.mul(x, x);
        assert_ne!(Some(outer), inner);
        b.store(out, x, outer);
        assert_eq!(b.mul(x, x), outer);
        // x, n, 0, 1 and two squares.
        assert_eq!(lets(&b.finish()), 6);
    }

    #[test]
    fn loads_do_not_cross_stores_or_loop_edges() {
        let mut b = KernelBuilder::new("k", 1);
        let fixed = b.buffer("fixed", DType::Real, Storage::F32, false);
        let moving = b.buffer("moving", DType::Real, Storage::F32, true);
        let (i, n) = (b.int_arg("i"), b.int_arg("n"));
        let (f, m) = (b.load(fixed, i), b.load(moving, i));
        assert_eq!(b.load(moving, i), m);
        b.count(n, |b, k| {
            assert_eq!(b.load(fixed, i), f);
            let again = b.load(moving, i);
            assert_ne!(again, m);
            b.store(moving, k, again);
        });
        assert_ne!(b.load(moving, i), m);
        assert_eq!(b.load(fixed, i), f);
    }

    #[test]
    fn storing_what_is_there_leaves_nothing() {
        let mut b = KernelBuilder::new("k", 1);
        let tile = b.local("tile", DType::Real, 8);
        let n = b.int_arg("n");
        b.count(n, |b, i| {
            let x = b.load(tile, i);
            b.store(tile, i, x);
        });
        assert!(b.finish().body.is_empty());
    }

    #[test]
    fn constant_trips_and_conditions_leave_no_control_flow() {
        let mut b = KernelBuilder::new("k", 1);
        let out = b.buffer("out", DType::Int, Storage::I64, true);
        let (zero, one) = (b.int(0), b.int(1));
        let none = b.for_loop(zero, zero, one, &[one], |_, _, _| vec![]);
        assert_eq!(none, [one]);
        let once = b.for_loop(zero, one, one, &[one], |b, i, p| {
            let next = b.add(p[0], p[0]);
            b.store(out, i, next);
            vec![next]
        });
        assert_eq!(b.as_int(once[0]), Some(2));
        let yes = b.boolean(true);
        b.if_else(yes, |b| b.store(out, one, zero), |b| b.store(out, one, one));
        let k = b.finish();
        assert!(k.body.iter().all(|s| matches!(s, Stmt::Let(..) | Stmt::Store { .. })));
        assert_eq!(k.body.iter().filter(|s| matches!(s, Stmt::Store { .. })).count(), 2);
    }
}
