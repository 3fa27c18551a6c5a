//! What a kernel means, one block after another, every access checked. Slow; for tests of what produces or compiles kernels.
//!
//! Between barriers each lane runs alone, one lane after another, so a kernel that relies on lanes running together gives wrong
//! results here. Reading an element that nobody stored is an error.

mod warp;

use crate::kernel::*;
use crate::ops::{Scalar, ScalarOp};

/// How Reals are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Every result is rounded to f32, every store to the storage of its array: what targets do.
    F32,
    /// Nothing is rounded: what the program means.
    F64,
}

/// Which lane runs first; results must not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneOrder {
    Up,
    Down,
}

/// Elements of an array; `None` where nothing has been stored.
pub type Cells = Vec<Option<Scalar>>;

/// A fault of a kernel, or of what it was given.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("kernel `{kernel}`, block {block}, lane {lane}: {what}")]
pub struct EvalError {
    pub kernel: String,
    pub block: i64,
    pub lane: u32,
    pub what: String,
}

/// Runs blocks `0..blocks`. `buffers`, `ints` and `reals` in the order of the arguments; buffers hold what their type says.
///
/// Errors: the first access out of range, read of an undefined element, loop step below 1, or difference between lanes where there
/// may be none; faults that `verify` finds and wrong counts of arguments are reported as of block -1.
pub fn eval(kernel: &Kernel, buffers: &mut [Cells], ints: &[i64], reals: &[f64], blocks: i64, precision: Precision, order: LaneOrder) -> Result<(), EvalError> {
    let fail = |what: String| EvalError { kernel: kernel.name.clone(), block: -1, lane: 0, what };
    if let Some(fault) = verify(kernel).into_iter().next() {
        return Err(fail(fault));
    }
    if buffers.len() != kernel.buffers.len() || ints.len() != kernel.ints.len() || reals.len() != kernel.reals.len() {
        return Err(fail("wrong number of arguments".to_string()));
    }
    let mut machine = Machine { kernel, buffers, ints, reals, precision, order, block: 0, lane: 0, locals: vec![], values: vec![], roles: warp::Roles::new(blocks) };
    for block in 0..blocks {
        machine.block = block;
        machine.locals = kernel.locals.iter().map(|l| vec![None; l.len]).collect();
        machine.values = vec![vec![None; kernel.types.len()]; kernel.lanes as usize];
        machine.together(&kernel.body)?;
    }
    Ok(())
}

struct Machine<'a> {
    kernel: &'a Kernel,
    buffers: &'a mut [Cells],
    ints: &'a [i64],
    reals: &'a [f64],
    precision: Precision,
    order: LaneOrder,
    block: i64,
    lane: u32,
    locals: Vec<Cells>,
    /// By lane, by value.
    values: Vec<Vec<Option<Scalar>>>,
    roles: warp::Roles,
}

type Result<T, E = EvalError> = std::result::Result<T, E>;

/// Whether lanes must meet inside this statement.
fn meets(stmt: &Stmt) -> bool {
    match stmt {
        Stmt::Barrier | Stmt::Tile(_) | Stmt::Warp(_) => true,
        Stmt::For { body, .. } => body.iter().any(meets),
        Stmt::If { then, other, .. } => then.iter().chain(other).any(meets),
        Stmt::Let(..) | Stmt::Store { .. } => false,
    }
}

/// The nearest value that `storage` can hold.
fn stored(storage: Storage, value: Scalar) -> Scalar {
    let int = |x: i64| match storage {
        Storage::I32 => i64::from(x as i32),
        Storage::U8 => i64::from(x as u8),
        Storage::F32 | Storage::F64 | Storage::Bf16 | Storage::F16 | Storage::I64 => x,
    };
    match value {
        Scalar::Real(x) => Scalar::Real(match storage {
            Storage::F32 => f64::from(x as f32),
            Storage::F64 => x,
            // Bits kept below the leading one; least exponent; largest exponent.
            Storage::Bf16 => round(f64::from(x as f32), 7, -126, 127),
            Storage::F16 => round(f64::from(x as f32), 10, -14, 15),
            Storage::I64 => x as i64 as f64,
            Storage::I32 | Storage::U8 => int(x as i64) as f64,
        }),
        Scalar::Int(x) => Scalar::Int(int(x)),
        Scalar::Bool(_) | Scalar::Complex(..) => value,
    }
}

/// Rounds to a binary format, ties to even.
fn round(x: f64, bits: i32, least: i32, most: i32) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let exponent = ((x.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(least);
    let unit = 2f64.powi(exponent - bits);
    let y = (x / unit).round_ties_even() * unit;
    if y.abs() >= 2f64.powi(most + 1) { f64::INFINITY.copysign(x) } else { y.abs().copysign(x) }
}

impl Machine<'_> {
    fn fail<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(EvalError { kernel: self.kernel.name.clone(), block: self.block, lane: self.lane, what: what.into() })
    }

    fn get(&self, v: Value) -> Result<Scalar> {
        match self.values[self.lane as usize][v.0 as usize] {
            Some(x) => Ok(x),
            None => self.fail(format!("{v} has no value")),
        }
    }

    fn set(&mut self, v: Value, x: Scalar) {
        self.values[self.lane as usize][v.0 as usize] = Some(x);
    }

    fn int(&self, v: Value) -> Result<i64> {
        match self.get(v)? {
            Scalar::Int(x) => Ok(x),
            other => self.fail(format!("{v} is {other:?}, not an int")),
        }
    }

    fn real(&self, v: Value) -> Result<f64> {
        match self.get(v)? {
            Scalar::Real(x) => Ok(x),
            other => self.fail(format!("{v} is {other:?}, not a real")),
        }
    }

    fn truth(&self, v: Value) -> Result<bool> {
        match self.get(v)? {
            Scalar::Bool(x) => Ok(x),
            other => self.fail(format!("{v} is {other:?}, not a bool")),
        }
    }

    fn rounded(&self, x: Scalar) -> Scalar {
        match (self.precision, x) {
            (Precision::F32, Scalar::Real(x)) => Scalar::Real(f64::from(x as f32)),
            (Precision::F32 | Precision::F64, x) => x,
        }
    }

    fn lanes(&self) -> Vec<u32> {
        match self.order {
            LaneOrder::Up => (0..self.kernel.lanes).collect(),
            LaneOrder::Down => (0..self.kernel.lanes).rev().collect(),
        }
    }

    /// The value of `v`, which must be the same in all lanes.
    fn agreed(&mut self, v: Value) -> Result<Scalar> {
        self.lane = 0;
        let first = self.get(v)?;
        for lane in 0..self.kernel.lanes {
            self.lane = lane;
            if self.get(v)? != first {
                return self.fail(format!("{v} differs between lanes that must meet"));
            }
        }
        self.lane = 0;
        Ok(first)
    }

    /// Runs statements in all lanes.
    fn together(&mut self, body: &[Stmt]) -> Result<()> {
        let mut rest = body;
        while let Some(stmt) = rest.first() {
            let apart = rest.iter().position(meets).unwrap_or(rest.len());
            if apart > 0 {
                for lane in self.lanes() {
                    self.lane = lane;
                    self.alone(&rest[..apart])?;
                }
                rest = &rest[apart..];
                continue;
            }
            rest = &rest[1..];
            match stmt {
                Stmt::For { var, lo, hi, step, carries, body } => {
                    let mut bounds = [0; 3];
                    for (bound, v) in bounds.iter_mut().zip([lo, hi, step]) {
                        self.agreed(*v)?;
                        *bound = self.int(*v)?;
                    }
                    self.for_loop(*var, bounds, carries, body, true)?;
                }
                Stmt::If { cond, then, other } => {
                    self.agreed(*cond)?;
                    let arm = if self.truth(*cond)? { then } else { other };
                    self.together(arm)?;
                }
                Stmt::Tile(call) => {
                    for v in call.operands() {
                        self.agreed(v)?;
                    }
                    self.tile(call)?;
                }
                Stmt::Warp(op) => {
                    self.lane = 0;
                    self.warp(op)?;
                }
                Stmt::Barrier | Stmt::Let(..) | Stmt::Store { .. } => {}
            }
        }
        Ok(())
    }

    fn each_lane(&mut self, all: bool, mut f: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        if !all {
            return f(self);
        }
        for lane in 0..self.kernel.lanes {
            self.lane = lane;
            f(self)?;
        }
        self.lane = 0;
        Ok(())
    }

    fn for_loop(&mut self, var: Value, [lo, hi, step]: [i64; 3], carries: &[Carry], body: &[Stmt], all: bool) -> Result<()> {
        if step < 1 {
            return self.fail(format!("the step of a loop is {step}"));
        }
        let copy = |m: &mut Self, pairs: &[(Value, Value)]| {
            m.each_lane(all, |m| {
                let values = pairs.iter().map(|(from, _)| m.get(*from)).collect::<Result<Vec<_>>>()?;
                pairs.iter().zip(values).for_each(|((_, to), x)| m.set(*to, x));
                Ok(())
            })
        };
        let pairs = |from: fn(&Carry) -> Value, to: fn(&Carry) -> Value| carries.iter().map(|c| (from(c), to(c))).collect::<Vec<_>>();
        copy(self, &pairs(|c| c.init, |c| c.param))?;
        let mut at = lo;
        while at < hi {
            self.each_lane(all, |m| {
                m.set(var, Scalar::Int(at));
                Ok(())
            })?;
            if all { self.together(body)? } else { self.alone(body)? }
            copy(self, &pairs(|c| c.next, |c| c.param))?;
            at = match at.checked_add(step) {
                Some(next) => next,
                None => break,
            };
        }
        copy(self, &pairs(|c| c.param, |c| c.result))
    }

    /// Runs statements in the current lane.
    fn alone(&mut self, body: &[Stmt]) -> Result<()> {
        for stmt in body {
            match stmt {
                Stmt::Let(v, inst) => {
                    let x = self.inst(inst)?;
                    let x = self.rounded(x);
                    self.set(*v, x);
                }
                Stmt::Store { base, index, value } => {
                    let (index, value) = (self.int(*index)?, self.get(*value)?);
                    self.write(*base, index, value)?;
                }
                Stmt::For { var, lo, hi, step, carries, body } => {
                    let bounds = [self.int(*lo)?, self.int(*hi)?, self.int(*step)?];
                    self.for_loop(*var, bounds, carries, body, false)?;
                }
                Stmt::If { cond, then, other } => {
                    let arm = if self.truth(*cond)? { then } else { other };
                    self.alone(arm)?;
                }
                Stmt::Warp(op) => self.warp(op)?,
                Stmt::Barrier | Stmt::Tile(_) => return self.fail("lanes cannot meet here"),
            }
        }
        Ok(())
    }

    fn inst(&self, inst: &Inst) -> Result<Scalar> {
        Ok(match inst {
            Inst::Const(x) => *x,
            Inst::IntArg(i) => Scalar::Int(self.ints[*i as usize]),
            Inst::RealArg(i) => Scalar::Real(self.reals[*i as usize]),
            Inst::Block => Scalar::Int(self.block),
            Inst::Lane => Scalar::Int(i64::from(self.lane)),
            Inst::Op { op, args } => {
                let args = args.iter().map(|a| self.get(*a)).collect::<Result<Vec<_>>>()?;
                match op.eval(&args) {
                    Some(x) => x,
                    None => return self.fail(format!("`{}` of {args:?}", op.name())),
                }
            }
            Inst::Load { base, index } => self.read(*base, self.int(*index)?)?,
        })
    }

    fn describe(&self, base: Base) -> &str {
        match base {
            Base::Buffer(b) => &self.kernel.buffers[b.0 as usize].name,
            Base::Local(l) => &self.kernel.locals[l.0 as usize].name,
        }
    }

    fn read(&self, base: Base, index: i64) -> Result<Scalar> {
        let cells = match base {
            Base::Buffer(b) => &self.buffers[b.0 as usize],
            Base::Local(l) => &self.locals[l.0 as usize],
        };
        match usize::try_from(index).ok().and_then(|i| cells.get(i)) {
            Some(Some(x)) => Ok(*x),
            Some(None) => self.fail(format!("`{}`[{index}] is read before it is stored", self.describe(base))),
            None => self.fail(format!("`{}`[{index}] is read, but there are {} elements", self.describe(base), cells.len())),
        }
    }

    fn write(&mut self, base: Base, index: i64, value: Scalar) -> Result<()> {
        let value = match (base, self.precision) {
            (Base::Buffer(b), Precision::F32) => stored(self.kernel.buffers[b.0 as usize].storage, value),
            (Base::Local(_), _) | (_, Precision::F64) => value,
        };
        let cells = match base {
            Base::Buffer(b) => &mut self.buffers[b.0 as usize],
            Base::Local(l) => &mut self.locals[l.0 as usize],
        };
        let len = cells.len();
        match usize::try_from(index).ok().and_then(|i| cells.get_mut(i)) {
            Some(cell) => {
                *cell = Some(value);
                Ok(())
            }
            None => self.fail(format!("`{}`[{index}] is stored, but there are {len} elements", self.describe(base))),
        }
    }

    // Tile calls.

    fn at(&self, place: Place, index: i64) -> Result<f64> {
        match self.read(place.base, self.int(place.offset)?.wrapping_add(index))? {
            Scalar::Real(x) => Ok(x),
            other => self.fail(format!("a place holds {other:?}")),
        }
    }

    /// As `at`, or `None` where nothing has been stored.
    fn peek(&self, place: Place, index: i64) -> Result<Option<f64>> {
        let at = self.int(place.offset)?.wrapping_add(index);
        let cells = match place.base {
            Base::Buffer(b) => &self.buffers[b.0 as usize],
            Base::Local(l) => &self.locals[l.0 as usize],
        };
        match usize::try_from(at).ok().and_then(|i| cells.get(i)) {
            Some(None) => Ok(None),
            Some(Some(_)) | None => self.at(place, index).map(Some),
        }
    }

    fn put(&mut self, place: Place, index: i64, x: f64) -> Result<()> {
        let at = self.int(place.offset)?.wrapping_add(index);
        let x = self.rounded(Scalar::Real(x));
        self.write(place.base, at, x)
    }

    fn apply(&self, op: ScalarOp, args: &[f64]) -> Result<f64> {
        let args: Vec<Scalar> = args.iter().map(|x| Scalar::Real(*x)).collect();
        match op.eval(&args).map(|x| self.rounded(x)) {
            Some(Scalar::Real(x)) => Ok(x),
            other => self.fail(format!("`{}` gives {other:?}", op.name())),
        }
    }

    fn tile(&mut self, call: &TileCall) -> Result<()> {
        use ScalarOp::{Add, ExpDiff, Max, Mul};
        match *call {
            TileCall::Dot { m, n, k, a, a_m, a_k, b, b_k, b_n, c, c_m, c_n, accumulate, narrow: _ } => {
                let (m, n, k) = (self.int(m)?, self.int(n)?, self.int(k)?);
                let [a_m, a_k, b_k, b_n, c_m, c_n] = [self.int(a_m)?, self.int(a_k)?, self.int(b_k)?, self.int(b_n)?, self.int(c_m)?, self.int(c_n)?];
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let mut sum = if accumulate { self.at(c, i * c_m + j * c_n)? } else { 0.0 };
                    for l in 0..k {
                        sum += self.at(a, i * a_m + l * a_k)? * self.at(b, l * b_k + j * b_n)?;
                    }
                    self.put(c, i * c_m + j * c_n, sum)?;
                }
            }
            TileCall::ExpRows { rows, cols, x, x_row, shift, y, y_row, sums, scale } => {
                let (rows, cols, x_row, y_row, scale) = (self.int(rows)?, self.int(cols)?, self.int(x_row)?, self.int(y_row)?, self.real(scale)?);
                for r in 0..rows {
                    let shift = self.at(shift, r)?;
                    let shift = if shift == f64::NEG_INFINITY { 0.0 } else { shift };
                    // Sums that nobody set stay unset: the caller does not want them.
                    let mut sum = self.peek(sums, r)?;
                    for j in 0..cols {
                        let power = self.apply(ExpDiff, &[scale * self.at(x, r * x_row + j)?, scale * shift])?;
                        self.put(y, r * y_row + j, power)?;
                        sum = sum.map(|s| s + power);
                    }
                    if let Some(sum) = sum {
                        self.put(sums, r, sum)?;
                    }
                }
            }
            TileCall::MaxRows { rows, cols, x, x_row, out } => self.rows(Max, rows, cols, x, x_row, out)?,
            TileCall::SumRows { rows, cols, x, x_row, out } => self.rows(Add, rows, cols, x, x_row, out)?,
            TileCall::ScaleRows { rows, cols, x, x_row, factor } => {
                let (rows, cols, x_row) = (self.int(rows)?, self.int(cols)?, self.int(x_row)?);
                for r in 0..rows {
                    let factor = self.at(factor, r)?;
                    for j in 0..cols {
                        let scaled = self.apply(Mul, &[self.at(x, r * x_row + j)?, factor])?;
                        self.put(x, r * x_row + j, scaled)?;
                    }
                }
            }
            TileCall::Solve { n, cols, m, m_row, x, x_row, reverse } => {
                let (n, cols, m_row, x_row) = (self.int(n)?, self.int(cols)?, self.int(m_row)?, self.int(x_row)?);
                let at = |i: i64| if reverse { n - 1 - i } else { i };
                for i in 0..n {
                    for j in 0..cols {
                        let mut sum = self.at(x, at(i) * x_row + j)?;
                        for c in 0..i {
                            sum += self.at(m, at(i) * m_row + at(c))? * self.at(x, at(c) * x_row + j)?;
                        }
                        self.put(x, at(i) * x_row + j, sum)?;
                    }
                }
            }
            TileCall::Unary { op, n, x, y } => {
                for i in 0..self.int(n)? {
                    let value = self.apply(op, &[self.at(x, i)?])?;
                    self.put(y, i, value)?;
                }
            }
            TileCall::Order { kind, n, count, key, key_step, mask, mask_step, out, out_step } => {
                let (n, count, key_step, mask_step, out_step) = (self.int(n)?, self.int(count)?, self.int(key_step)?, self.int(mask_step)?, self.int(out_step)?);
                let (mut present, mut absent) = (Vec::new(), Vec::new());
                for i in 0..n {
                    let value = self.read(key.base, self.int(key.offset)?.wrapping_add(i * key_step))?;
                    let there = match mask {
                        Some(mask) => self.read(mask.base, self.int(mask.offset)?.wrapping_add(i * mask_step))? == Scalar::Bool(true),
                        None => kind != OrderKind::Members || value == Scalar::Bool(true),
                    };
                    if there { present.push((i, value)) } else { absent.push(i) }
                }
                match kind {
                    OrderKind::Members => {}
                    OrderKind::Largest => present.sort_by(|a, b| before(&b.1, &a.1, true)),
                    OrderKind::Rank | OrderKind::Sorted => present.sort_by(|a, b| before(&a.1, &b.1, false)),
                }
                let order: Vec<i64> = present.iter().map(|p| p.0).collect();
                let put = |s: &mut Self, j: i64, x: Scalar| -> Result<()> { s.write(out.base, s.int(out.offset)?.wrapping_add(j * out_step), x) };
                match kind {
                    OrderKind::Rank => (0i64..).zip(order.iter().chain(&absent)).try_for_each(|(rank, i)| put(self, *i, Scalar::Int(rank)))?,
                    OrderKind::Largest => {
                        (0..n).try_for_each(|i| put(self, i, Scalar::Bool(false)))?;
                        order.iter().take(count.max(0) as usize).try_for_each(|i| put(self, *i, Scalar::Bool(true)))?;
                    }
                    OrderKind::Sorted | OrderKind::Members => {
                        (0..count).try_for_each(|j| put(self, j, Scalar::Int(order.get(j as usize).copied().unwrap_or(0))))?;
                    }
                }
            }
            TileCall::Binary { op, n, a, a_step, b, b_step, y } => {
                for i in 0..self.int(n)? {
                    let value = self.apply(op, &[self.at(a, i * i64::from(a_step))?, self.at(b, i * i64::from(b_step))?])?;
                    self.put(y, i, value)?;
                }
            }
        }
        Ok(())
    }

    fn rows(&mut self, op: ScalarOp, rows: Value, cols: Value, x: Place, x_row: Value, out: Place) -> Result<()> {
        let (rows, cols, x_row) = (self.int(rows)?, self.int(cols)?, self.int(x_row)?);
        for r in 0..rows {
            let mut value = self.at(out, r)?;
            for j in 0..cols {
                value = self.apply(op, &[value, self.at(x, r * x_row + j)?])?;
            }
            self.put(out, r, value)?;
        }
        Ok(())
    }
}

/// The order of two keys of one dtype, NaN after numbers; `swapped` when the operands have changed places.
fn before(a: &Scalar, b: &Scalar, swapped: bool) -> std::cmp::Ordering {
    use std::cmp::Ordering::Equal;
    match (a, b) {
        (Scalar::Real(x), Scalar::Real(y)) => {
            let nan = if swapped { y.is_nan().cmp(&x.is_nan()) } else { x.is_nan().cmp(&y.is_nan()) };
            nan.then(x.partial_cmp(y).unwrap_or(Equal))
        }
        (Scalar::Int(x), Scalar::Int(y)) => x.cmp(y),
        (Scalar::Bool(x), Scalar::Bool(y)) => x.cmp(y),
        (_, _) => Equal,
    }
}

/// Cells that all hold something.
pub fn cells(values: impl IntoIterator<Item = Scalar>) -> Cells {
    values.into_iter().map(Some).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::DType;
    use crate::kernel::KernelBuilder;

    fn reals(n: usize) -> Cells {
        cells((0..n).map(|i| Scalar::Real(i as f64)))
    }

    #[test]
    fn lanes_meet_at_barriers() {
        // Each lane doubles its element in local memory, then reads its neighbour's.
        let build = |barrier: bool| {
            let mut b = KernelBuilder::new("turn", 4);
            let x = b.buffer("x", DType::Real, Storage::F32, false);
            let out = b.buffer("out", DType::Real, Storage::F32, true);
            let tile = b.local("tile", DType::Real, 4);
            let (lane, one, four) = (b.lane(), b.int(1), b.int(4));
            let value = b.load(x, lane);
            let twice = b.add(value, value);
            b.store(tile, lane, twice);
            if barrier {
                b.barrier();
            }
            let next = b.add(lane, one);
            let next = b.modulo(next, four);
            let other = b.load(tile, next);
            b.store(out, lane, other);
            b.finish()
        };
        for order in [LaneOrder::Up, LaneOrder::Down] {
            let mut buffers = [reals(4), vec![None; 4]];
            eval(&build(true), &mut buffers, &[], &[], 1, Precision::F32, order).unwrap();
            assert_eq!(buffers[1], cells([2.0, 4.0, 6.0, 0.0].map(Scalar::Real)));
            assert!(eval(&build(false), &mut buffers, &[], &[], 1, Precision::F32, order).is_err());
        }
    }

    #[test]
    fn accesses_out_of_range_are_found() {
        let mut b = KernelBuilder::new("copy", 1);
        let x = b.buffer("x", DType::Real, Storage::F32, false);
        let out = b.buffer("out", DType::Real, Storage::F32, true);
        let n = b.int_arg("n");
        b.count(n, |b, i| {
            let value = b.load(x, i);
            b.store(out, i, value);
        });
        let kernel = b.finish();
        let run = |n: i64| eval(&kernel, &mut [reals(3), vec![None; 4]], &[n], &[], 1, Precision::F64, LaneOrder::Up);
        assert_eq!(run(3), Ok(()));
        assert_eq!(run(-1), Ok(()));
        assert_eq!(run(4).unwrap_err().what, "`x`[3] is read, but there are 3 elements");
    }

    #[test]
    fn stores_round_to_their_storage() {
        let to = |storage, x: f64| match stored(storage, Scalar::Real(x)) {
            Scalar::Real(x) => x,
            other => panic!("{other:?}"),
        };
        assert_eq!(to(Storage::Bf16, 1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(to(Storage::Bf16, 1.0 + 3.0 / 256.0), 1.0 + 4.0 / 256.0);
        assert_eq!(to(Storage::F16, 65519.0), 65504.0);
        assert_eq!(to(Storage::F16, 65520.0), f64::INFINITY);
        assert_eq!(to(Storage::F16, 2f64.powi(-25)), 0.0);
        assert_eq!(to(Storage::F16, 3.0 * 2f64.powi(-25)), 2f64.powi(-23));
        assert!(to(Storage::F16, f64::NAN).is_nan());
        assert_eq!(to(Storage::F16, -0.0).to_bits(), (-0.0f64).to_bits());
    }
}
