//! Innermost loops four elements at a time, where each iteration only touches its own elements.
//!
//! A loop qualifies when its step is 1, its body is straight-line, its carried values are Real sums, products, maxima or minima, and
//! every array that it stores to is touched at one index that moves with the loop. Reals become f32x4, Bools masks, Ints stay
//! scalar: an Int is the same for all lanes, or moves by a constant from lane to lane, or exists once for each lane. The elements
//! that are left over go through the scalar loop. Sums are reordered.

use super::lower::Lowering;
use super::math;
use super::memory;
use super::micro::{Half, Table, Unary};
use super::ops::{self, Operand};
use crate::EmitError;
use attnc_compiler::kernel::{self, Base, Carry, Inst, Stmt, Storage};
use attnc_compiler::ops::{DType, Scalar, ScalarOp};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{AbiParam, BlockArg, InstBuilder, MemFlagsData, StackSlotData, StackSlotKind, Value, types};
use std::collections::{HashMap, HashSet};
use std::mem::offset_of;

/// Elements that one iteration takes.
pub(super) const WIDTH: i64 = 4;
/// Steps from lane to lane that comparisons take; larger ones are compared lane by lane.
const MOST_STEP: i64 = 1 << 20;

/// How a value varies over the lanes.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Uniform,
    /// An Int that grows by a constant from lane to lane.
    Affine(i64),
    Varying,
}

/// A value of the loop over its lanes.
#[derive(Clone, Copy)]
enum Lanes {
    Uniform(Value),
    /// Value in lane 0 and step.
    Affine(Value, i64),
    /// f32x4.
    Vector(Value),
    /// i32x4, all bits of a lane set where true.
    Mask(Value),
    Each([Value; 4]),
}

/// A qualified loop.
pub(super) struct Wide {
    /// By carry: how partial results combine, and the term that an iteration adds.
    reductions: Vec<(ScalarOp, kernel::Value)>,
}

/// Shapes of the values in a body; `None` when an op on Ints varies in a way that matters.
struct Shapes<'a> {
    known: HashMap<kernel::Value, Shape>,
    constants: &'a dyn Fn(kernel::Value) -> Option<i64>,
}

impl Shapes<'_> {
    fn of(&self, v: kernel::Value) -> Shape {
        self.known.get(&v).copied().unwrap_or(Shape::Uniform)
    }

    fn inst(&self, inst: &Inst, dtype: DType) -> Shape {
        use Shape::{Affine, Uniform, Varying};
        match inst {
            Inst::Op { op, args } => {
                let shapes: Vec<Shape> = args.iter().map(|a| self.of(*a)).collect();
                if shapes.iter().all(|s| *s == Uniform) {
                    return Uniform;
                }
                let step = |s: &Shape| match s {
                    Uniform => Some(0),
                    Affine(c) => Some(*c),
                    Varying => None,
                };
                if dtype != DType::Int {
                    return Varying;
                }
                let steps = shapes.first().and_then(step).zip(shapes.get(1).and_then(step));
                match (op, steps) {
                    (ScalarOp::Add, Some((a, b))) => a.checked_add(b).map_or(Varying, Affine),
                    (ScalarOp::Sub, Some((a, b))) => a.checked_sub(b).map_or(Varying, Affine),
                    (ScalarOp::Mul, Some((a, 0))) => (self.constants)(args[1]).and_then(|c| a.checked_mul(c)).map_or(Varying, Affine),
                    (ScalarOp::Mul, Some((0, b))) => (self.constants)(args[0]).and_then(|c| b.checked_mul(c)).map_or(Varying, Affine),
                    _ => Varying,
                }
            }
            Inst::Load { index, .. } if self.of(*index) != Uniform => Varying,
            Inst::Load { .. } | Inst::Const(_) | Inst::IntArg(_) | Inst::RealArg(_) | Inst::Block | Inst::Lane => Uniform,
        }
    }
}

/// Whether a loop qualifies and is worth it.
pub(super) fn qualify(
    kernel: &kernel::Kernel,
    constants: &dyn Fn(kernel::Value) -> Option<i64>,
    var: kernel::Value,
    step: kernel::Value,
    carries: &[Carry],
    body: &[Stmt],
) -> Option<Wide> {
    if constants(step) != Some(1) {
        return None;
    }
    let mut uses: HashMap<kernel::Value, usize> = HashMap::new();
    let mut made: HashMap<kernel::Value, &Inst> = HashMap::new();
    let mut shapes = Shapes { known: HashMap::from([(var, Shape::Affine(1))]), constants };
    shapes.known.extend(carries.iter().map(|c| (c.param, Shape::Varying)));
    let (mut vectors, mut singles) = (0, 0);
    let mut touched: HashMap<Base, HashSet<kernel::Value>> = HashMap::new();
    let mut stored: HashSet<Base> = HashSet::new();
    for stmt in body {
        match stmt {
            Stmt::Let(v, inst) => {
                inst.operands().into_iter().for_each(|o| *uses.entry(o).or_default() += 1);
                let (dtype, shape) = (kernel.ty(*v), shapes.inst(inst, kernel.ty(*v)));
                if let Inst::Load { base, index } = inst {
                    touched.entry(*base).or_default().insert(*index);
                }
                if shape == Shape::Varying {
                    let gathers = matches!(inst, Inst::Load { index, .. } if shapes.of(*index) != Shape::Affine(1));
                    if dtype == DType::Int || gathers { singles += 1 } else { vectors += 1 }
                }
                shapes.known.insert(*v, shape);
                made.insert(*v, inst);
            }
            Stmt::Store { base, index, value } => {
                [*index, *value].into_iter().for_each(|o| *uses.entry(o).or_default() += 1);
                touched.entry(*base).or_default().insert(*index);
                stored.insert(*base);
                if !matches!(shapes.of(*index), Shape::Affine(c) if c != 0) {
                    return None;
                }
                vectors += 1;
            }
            Stmt::For { .. } | Stmt::If { .. } | Stmt::Barrier | Stmt::Tile(_) | Stmt::Warp(_) => return None,
        }
    }
    if stored.iter().any(|b| touched.get(b).is_some_and(|t| t.len() > 1)) || vectors <= singles {
        return None;
    }
    let mut reductions = vec![];
    for c in carries {
        if kernel.ty(c.param) != DType::Real || uses.get(&c.param) != Some(&1) || uses.contains_key(&c.next) {
            return None;
        }
        let Inst::Op { op: op @ (ScalarOp::Add | ScalarOp::Mul | ScalarOp::Max | ScalarOp::Min), args } = made.get(&c.next)? else { return None };
        let term = if args[0] == c.param { args[1] } else { args[0] };
        if term == c.param || carries.iter().filter(|o| o.next == c.next).count() > 1 {
            return None;
        }
        reductions.push((*op, term));
    }
    Some(Wide { reductions })
}

fn identity(op: ScalarOp) -> f32 {
    match op {
        ScalarOp::Mul => 1.0,
        ScalarOp::Max => f32::NEG_INFINITY,
        ScalarOp::Min => f32::INFINITY,
        // The only other reduction that `qualify` lets through is a sum.
        _ => 0.0,
    }
}

/// The factors of a value that the body makes as a product.
fn product(body: &[Stmt], v: kernel::Value) -> Option<[kernel::Value; 2]> {
    body.iter().find_map(|s| match s {
        Stmt::Let(made, Inst::Op { op: ScalarOp::Mul, args }) if *made == v => args.as_slice().try_into().ok(),
        Stmt::Let(..) | Stmt::Store { .. } | Stmt::For { .. } | Stmt::If { .. } | Stmt::Barrier | Stmt::Tile(_) | Stmt::Warp(_) => None,
    })
}

/// Little-endian lanes, as bitcasts between vectors must say.
fn flags() -> MemFlagsData {
    MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little)
}

type Values = HashMap<kernel::Value, Lanes>;

impl Lowering<'_> {
    /// Emits the loop over whole groups of four; returns where the scalar loop goes on and its carried values.
    pub(super) fn wide_loop(
        &mut self,
        wide: &Wide,
        var: kernel::Value,
        (lo, hi): (Value, Value),
        carries: &[Carry],
        inits: &[Value],
        body: &[Stmt],
    ) -> Result<(Value, Vec<Value>), EmitError> {
        let (inside, after) = (self.b.create_block(), self.b.create_block());
        let index = self.b.append_block_param(inside, types::I64);
        let rest = self.b.append_block_param(after, types::I64);
        let mut first = vec![BlockArg::from(lo)];
        let (mut sums, mut totals) = (vec![], vec![]);
        for ((op, _), init) in wide.reductions.iter().zip(inits) {
            let start = math::splat(&mut self.b, types::F32X4, identity(*op));
            first.push(self.b.ins().insertlane(start, *init, 0).into());
            sums.push(self.b.append_block_param(inside, types::F32X4));
            totals.push(self.b.append_block_param(after, types::F32X4));
        }
        let last = self.b.ins().iadd_imm_s(hi, 1 - WIDTH);
        let some = self.b.ins().icmp(IntCC::SignedLessThan, lo, last);
        self.b.ins().brif(some, inside, &first, after, &first);
        self.b.switch_to_block(inside);
        let mut values: Values = HashMap::from([(var, Lanes::Affine(index, 1))]);
        for (c, sum) in carries.iter().zip(&sums) {
            values.insert(c.param, Lanes::Vector(*sum));
        }
        for stmt in body {
            match stmt {
                Stmt::Let(v, inst) => {
                    if carries.iter().any(|c| c.next == *v) {
                        continue;
                    }
                    let lanes = self.wide_inst(*v, inst, &values)?;
                    values.insert(*v, lanes);
                }
                Stmt::Store { base, index, value } => self.wide_store(*base, *index, *value, &values)?,
                Stmt::For { .. } | Stmt::If { .. } | Stmt::Barrier | Stmt::Tile(_) | Stmt::Warp(_) => return Err(self.bug("control flow in a vector loop")),
            }
        }
        let following = self.b.ins().iadd_imm_s(index, WIDTH);
        let mut again = vec![BlockArg::from(following)];
        for ((op, term), sum) in wide.reductions.iter().zip(&sums) {
            let next = match product(body, *term).filter(|_| *op == ScalarOp::Add) {
                // One rounding instead of two.
                Some([x, y]) => {
                    let (x, y) = (self.lanes(x, &values)?, self.lanes(y, &values)?);
                    let (x, y) = (self.vector(x), self.vector(y));
                    self.b.ins().fma(x, y, *sum)
                }
                None => {
                    let term = self.lanes(*term, &values)?;
                    let term = self.vector(term);
                    self.combine(*op, *sum, term)
                }
            };
            again.push(next.into());
        }
        let more = self.b.ins().icmp(IntCC::SignedLessThan, following, last);
        self.b.ins().brif(more, inside, &again, after, &again);
        self.b.seal_block(inside);
        self.b.switch_to_block(after);
        self.b.seal_block(after);
        let mut results = vec![];
        for ((op, _), total) in wide.reductions.iter().zip(totals) {
            let [a, b, c, d] = [0, 1, 2, 3].map(|l| self.b.ins().extractlane(total, l));
            let (low, high) = (self.combine(*op, a, c), self.combine(*op, b, d));
            results.push(self.combine(*op, low, high));
        }
        Ok((rest, results))
    }

    /// An op that `identity` knows, on F32 or f32x4.
    fn combine(&mut self, op: ScalarOp, x: Value, y: Value) -> Value {
        match op {
            ScalarOp::Mul => self.b.ins().fmul(x, y),
            ScalarOp::Max => ops::extreme(&mut self.b, FloatCC::GreaterThan, x, y),
            ScalarOp::Min => ops::extreme(&mut self.b, FloatCC::LessThan, x, y),
            _ => self.b.ins().fadd(x, y),
        }
    }

    fn lanes(&self, v: kernel::Value, values: &Values) -> Result<Lanes, EmitError> {
        match values.get(&v) {
            Some(lanes) => Ok(*lanes),
            None => self.get(v).map(Lanes::Uniform),
        }
    }

    /// A Real as f32x4.
    fn vector(&mut self, lanes: Lanes) -> Value {
        match lanes {
            Lanes::Uniform(x) => self.b.ins().splat(types::F32X4, x),
            Lanes::Vector(x) | Lanes::Mask(x) | Lanes::Affine(x, _) => x,
            Lanes::Each([first, rest @ ..]) => {
                let mut vector = self.b.ins().scalar_to_vector(types::F32X4, first);
                for (i, x) in rest.into_iter().enumerate() {
                    vector = self.b.ins().insertlane(vector, x, i as u8 + 1);
                }
                vector
            }
        }
    }

    /// A Bool as a mask.
    fn mask(&mut self, lanes: Lanes) -> Value {
        match lanes {
            Lanes::Mask(x) | Lanes::Vector(x) | Lanes::Affine(x, _) => x,
            Lanes::Uniform(x) => {
                let bits = self.truth_bits(x);
                self.b.ins().splat(types::I32X4, bits)
            }
            Lanes::Each([first, rest @ ..]) => {
                let bits = self.truth_bits(first);
                let mut vector = self.b.ins().splat(types::I32X4, bits);
                for (i, x) in rest.into_iter().enumerate() {
                    let bits = self.truth_bits(x);
                    vector = self.b.ins().insertlane(vector, bits, i as u8 + 1);
                }
                vector
            }
        }
    }

    /// All bits of an i32 set when a Bool is true.
    fn truth_bits(&mut self, x: Value) -> Value {
        let wide = self.b.ins().uextend(types::I32, x);
        self.b.ins().ineg(wide)
    }

    /// One scalar a lane.
    fn each(&mut self, lanes: Lanes) -> [Value; 4] {
        match lanes {
            Lanes::Uniform(x) => [x; 4],
            Lanes::Affine(x, step) => [0, 1, 2, 3].map(|l| if l == 0 { x } else { self.b.ins().iadd_imm_s(x, step.wrapping_mul(l)) }),
            Lanes::Vector(x) => [0, 1, 2, 3].map(|l| self.b.ins().extractlane(x, l)),
            Lanes::Mask(x) => [0, 1, 2, 3].map(|l| {
                let bits = self.b.ins().extractlane(x, l);
                self.b.ins().icmp_imm_s(IntCC::NotEqual, bits, 0)
            }),
            Lanes::Each(x) => x,
        }
    }

    fn wide_inst(&mut self, v: kernel::Value, inst: &Inst, values: &Values) -> Result<Lanes, EmitError> {
        match inst {
            Inst::Op { op, args } => {
                let lanes = args.iter().map(|a| self.lanes(*a, values)).collect::<Result<Vec<_>, _>>()?;
                self.wide_op(*op, args, &lanes, self.kernel.ty(v))
            }
            Inst::Load { base, index } => {
                let index = self.lanes(*index, values)?;
                self.wide_load(*base, index)
            }
            Inst::Const(Scalar::Bool(_) | Scalar::Int(_) | Scalar::Real(_) | Scalar::Complex(..)) => self.inst(v, inst).map(Lanes::Uniform),
            Inst::IntArg(_) | Inst::RealArg(_) | Inst::Block | Inst::Lane => self.inst(v, inst).map(Lanes::Uniform),
        }
    }

    /// The scalar op on one lane's operands.
    fn narrow(&mut self, op: ScalarOp, args: &[kernel::Value], values: &[Value]) -> Result<Value, EmitError> {
        let mut operands = vec![];
        for (a, value) in args.iter().zip(values) {
            operands.push(Operand { value: *value, dtype: self.kernel.ty(*a), constant: self.constants[a.0 as usize] });
        }
        let lowered = ops::lower(&mut self.b, op, &operands);
        self.finish(op, lowered, values)
    }

    fn wide_op(&mut self, op: ScalarOp, args: &[kernel::Value], lanes: &[Lanes], result: DType) -> Result<Lanes, EmitError> {
        use ScalarOp::*;
        let uniform: Option<Vec<Value>> = lanes.iter().map(|l| if let Lanes::Uniform(x) = l { Some(*x) } else { None }).collect();
        if let Some(values) = uniform {
            return self.narrow(op, args, &values).map(Lanes::Uniform);
        }
        let kind = self.kernel.ty(args[0]);
        if let (Add | Sub | Mul, DType::Int) = (op, kind)
            && let Some(affine) = self.affine(op, args, lanes)
        {
            return Ok(affine);
        }
        if let (Lt | Le | ScalarOp::Eq | Ne, DType::Int) = (op, kind)
            && let Some(mask) = self.compare_affine(op, lanes)
        {
            return Ok(Lanes::Mask(mask));
        }
        let real = |s: &mut Self, i: usize| s.vector(lanes[i]);
        match (op, kind) {
            (Add | Sub | Mul | Div | Min | Max | Ratio | ExpDiff, DType::Real) => {
                let (x, y) = (real(self, 0), real(self, 1));
                return Ok(Lanes::Vector(match op {
                    Add => self.b.ins().fadd(x, y),
                    Sub => self.b.ins().fsub(x, y),
                    Mul => self.b.ins().fmul(x, y),
                    Div => self.b.ins().fdiv(x, y),
                    Min => ops::extreme(&mut self.b, FloatCC::LessThan, x, y),
                    Max => ops::extreme(&mut self.b, FloatCC::GreaterThan, x, y),
                    Ratio => ops::ratio(&mut self.b, x, y),
                    _ => math::exp_diff(&mut self.b, x, y),
                }));
            }
            (Neg | Abs | Rint | Sqrt | Sign | Exp | Sigmoid, DType::Real) => {
                let x = real(self, 0);
                return Ok(Lanes::Vector(match op {
                    Neg => self.b.ins().fneg(x),
                    Abs => self.b.ins().fabs(x),
                    Rint => self.b.ins().nearest(x),
                    Sqrt => self.b.ins().sqrt(x),
                    Sign => ops::sign(&mut self.b, x),
                    Exp => math::exp(&mut self.b, x),
                    _ => math::sigmoid(&mut self.b, x),
                }));
            }
            (Log | Log1p | Tanh | Softplus | Sin | Cos | Erf, DType::Real) => {
                let code = match op {
                    Log => Unary::Log,
                    Log1p => Unary::Log1p,
                    Tanh => Unary::Tanh,
                    Softplus => Unary::Softplus,
                    Sin => Unary::Sin,
                    Cos => Unary::Cos,
                    _ => Unary::Erf,
                };
                let x = real(self, 0);
                return Ok(Lanes::Vector(self.through_table(code, x)));
            }
            (Lt | Le | ScalarOp::Eq | Ne, DType::Real) => {
                let (x, y) = (real(self, 0), real(self, 1));
                let condition = match op {
                    Lt => FloatCC::LessThan,
                    Le => FloatCC::LessThanOrEqual,
                    ScalarOp::Eq => FloatCC::Equal,
                    _ => FloatCC::NotEqual,
                };
                return Ok(Lanes::Mask(self.b.ins().fcmp(condition, x, y)));
            }
            (And | Or | Not | Ne | ScalarOp::Eq, DType::Bool) => {
                let x = self.mask(lanes[0]);
                let y = lanes.get(1).map(|l| self.mask(*l)).unwrap_or(x);
                return Ok(Lanes::Mask(match op {
                    And => self.b.ins().band(x, y),
                    Or => self.b.ins().bor(x, y),
                    Not => self.b.ins().bnot(x),
                    Ne => self.b.ins().bxor(x, y),
                    _ => {
                        let differ = self.b.ins().bxor(x, y);
                        self.b.ins().bnot(differ)
                    }
                }));
            }
            (ToReal, DType::Bool) => {
                let x = self.mask(lanes[0]);
                let one = math::splat(&mut self.b, types::F32X4, 1.0);
                let one = self.b.ins().bitcast(types::I32X4, flags(), one);
                let bits = self.b.ins().band(x, one);
                return Ok(Lanes::Vector(self.b.ins().bitcast(types::F32X4, flags(), bits)));
            }
            (Select, _) if result == DType::Real => {
                let mask = self.mask(lanes[0]);
                let mask = self.b.ins().bitcast(types::F32X4, flags(), mask);
                let (x, y) = (real(self, 1), real(self, 2));
                return Ok(Lanes::Vector(self.b.ins().bitselect(mask, x, y)));
            }
            (Select, _) if result == DType::Bool => {
                let masks = [0, 1, 2].map(|i| self.mask(lanes[i]));
                return Ok(Lanes::Mask(self.b.ins().bitselect(masks[0], masks[1], masks[2])));
            }
            // Ints that vary freely, and rare conversions: lane by lane.
            (_, _) => {}
        }
        let each: Vec<[Value; 4]> = lanes.iter().map(|l| self.each(*l)).collect();
        let mut out = vec![];
        for lane in 0..4 {
            let values: Vec<Value> = each.iter().map(|e| e[lane]).collect();
            out.push(self.narrow(op, args, &values)?);
        }
        Ok(Lanes::Each([out[0], out[1], out[2], out[3]]))
    }

    fn affine(&mut self, op: ScalarOp, args: &[kernel::Value], lanes: &[Lanes]) -> Option<Lanes> {
        let part = |l: &Lanes| match l {
            Lanes::Uniform(x) => Some((*x, 0)),
            Lanes::Affine(x, step) => Some((*x, *step)),
            Lanes::Vector(_) | Lanes::Mask(_) | Lanes::Each(_) => None,
        };
        let ((x, a), (y, b)) = (part(&lanes[0])?, part(&lanes[1])?);
        let constant = |v: kernel::Value| self.constants[v.0 as usize];
        Some(match op {
            ScalarOp::Add => Lanes::Affine(self.b.ins().iadd(x, y), a.checked_add(b)?),
            ScalarOp::Sub => Lanes::Affine(self.b.ins().isub(x, y), a.checked_sub(b)?),
            _ => {
                let step = if b == 0 { a.checked_mul(constant(args[1])?)? } else { constant(args[0]).filter(|_| a == 0)?.checked_mul(b)? };
                Lanes::Affine(self.b.ins().imul(x, y), step)
            }
        })
    }

    /// Compares Ints that move by constants: the difference in lane 0, held to 31 bits, plus a small multiple of the lane.
    fn compare_affine(&mut self, op: ScalarOp, lanes: &[Lanes]) -> Option<Value> {
        let part = |l: &Lanes| match l {
            Lanes::Uniform(x) => Some((*x, 0)),
            Lanes::Affine(x, step) => Some((*x, *step)),
            Lanes::Vector(_) | Lanes::Mask(_) | Lanes::Each(_) => None,
        };
        let ((x, a), (y, b)) = (part(&lanes[0])?, part(&lanes[1])?);
        let step = a.checked_sub(b).filter(|s| s.abs() <= MOST_STEP)?;
        // x - y, and the nearest Int where that overflows.
        let difference = self.b.ins().isub(x, y);
        let (apart, flipped) = (self.b.ins().bxor(x, y), self.b.ins().bxor(x, difference));
        let over = self.b.ins().band(apart, flipped);
        let over = self.b.ins().icmp_imm_s(IntCC::SignedLessThan, over, 0);
        let sign = self.b.ins().sshr_imm_s(x, 63);
        let most = self.b.ins().bxor_imm_s(sign, i64::MAX);
        let difference = self.b.ins().select(over, most, difference);
        let (low, high) = (self.b.ins().iconst(types::I64, -(1 << 30)), self.b.ins().iconst(types::I64, 1 << 30));
        let held = self.b.ins().smax(difference, low);
        let held = self.b.ins().smin(held, high);
        let held = self.b.ins().ireduce(types::I32, held);
        let held = self.b.ins().splat(types::I32X4, held);
        let steps: Vec<u8> = (0..4).flat_map(|l| (step as i32 * l).to_le_bytes()).collect();
        let steps = self.b.func.dfg.constants.insert(steps.into());
        let steps = self.b.ins().vconst(types::I32X4, steps);
        let difference = self.b.ins().iadd(held, steps);
        let zero = self.b.ins().iconst(types::I32, 0);
        let zero = self.b.ins().splat(types::I32X4, zero);
        let condition = match op {
            ScalarOp::Lt => IntCC::SignedLessThan,
            ScalarOp::Le => IntCC::SignedLessThanOrEqual,
            ScalarOp::Eq => IntCC::Equal,
            _ => IntCC::NotEqual,
        };
        Some(self.b.ins().icmp(condition, difference, zero))
    }

    /// A function of the table on four elements in a stack slot.
    fn through_table(&mut self, code: Unary, x: Value) -> Value {
        let address = self.slot();
        let plain = MemFlagsData::new().with_notrap();
        self.b.ins().store(plain, x, address, 0);
        let mut signature = self.signature();
        signature.params.extend([types::I64; 4].map(AbiParam::new));
        let (code, n) = (self.b.ins().iconst(types::I64, code.code()), self.b.ins().iconst(types::I64, WIDTH));
        self.call_table(offset_of!(Table, unary), signature, &[code, n, address, address]);
        self.b.ins().load(types::F32X4, plain, address, 0)
    }

    /// Address of room for four elements.
    fn slot(&mut self) -> Value {
        let slot = self.b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, 16, 4));
        self.b.ins().stack_addr(types::I64, slot, 0)
    }

    /// Four elements between f16 and f32 by a function of the table.
    fn convert(&mut self, function: usize, from: Value, to: Value) {
        let mut signature = self.signature();
        signature.params.extend([types::I64; 7].map(AbiParam::new));
        let [format, one, n, zero] = [Half::F16.code(), 1, WIDTH, 0].map(|x| self.b.ins().iconst(types::I64, x));
        self.call_table(function, signature, &[format, one, n, from, zero, to, zero]);
    }

    fn wide_load(&mut self, base: Base, index: Lanes) -> Result<Lanes, EmitError> {
        let flags = self.load_flags(base);
        let (storage, dtype) = self.holds(base);
        match index {
            Lanes::Uniform(index) => {
                let (address, offset) = self.at(base, index);
                Ok(Lanes::Uniform(memory::load(&mut self.b, flags, storage, dtype, address, offset)))
            }
            Lanes::Affine(index, 1) if dtype == DType::Real && matches!(storage, Storage::F32 | Storage::Bf16 | Storage::F16) => {
                let (address, offset) = self.at(base, index);
                Ok(Lanes::Vector(match storage {
                    Storage::Bf16 => {
                        let halves = self.b.ins().uload16x4(flags, address, offset);
                        let sixteen = self.b.ins().iconst(types::I32, 16);
                        let bits = self.b.ins().ishl(halves, sixteen);
                        self.b.ins().bitcast(types::F32X4, self::flags(), bits)
                    }
                    Storage::F16 => {
                        let at = self.b.ins().iadd_imm_s(address, i64::from(offset));
                        let slot = self.slot();
                        self.convert(offset_of!(Table, widen_rows), at, slot);
                        self.b.ins().load(types::F32X4, MemFlagsData::new().with_notrap(), slot, 0)
                    }
                    _ => self.b.ins().load(types::F32X4, flags, address, offset),
                }))
            }
            Lanes::Affine(..) | Lanes::Each(_) | Lanes::Vector(_) | Lanes::Mask(_) => {
                let out = self.each(index).map(|index| {
                    let (address, offset) = self.at(base, index);
                    memory::load(&mut self.b, flags, storage, dtype, address, offset)
                });
                Ok(Lanes::Each(out))
            }
        }
    }

    fn wide_store(&mut self, base: Base, index: kernel::Value, value: kernel::Value, values: &Values) -> Result<(), EmitError> {
        let (index, value) = (self.lanes(index, values)?, self.lanes(value, values)?);
        let (storage, dtype) = self.holds(base);
        let plain = MemFlagsData::new().with_notrap();
        if let (Lanes::Affine(index, 1), Storage::F32, DType::Real) = (index, storage, dtype) {
            let (address, offset) = self.at(base, index);
            let x = self.vector(value);
            self.b.ins().store(plain, x, address, offset);
            return Ok(());
        }
        if let (Lanes::Affine(index, 1), Storage::Bf16 | Storage::F16, DType::Real) = (index, storage, dtype) {
            let (address, offset) = self.at(base, index);
            let x = self.vector(value);
            if storage == Storage::Bf16 {
                let halves = memory::narrow_bf16x4(&mut self.b, x);
                self.b.ins().store(plain, halves, address, offset);
                return Ok(());
            }
            let at = self.b.ins().iadd_imm_s(address, i64::from(offset));
            let slot = self.slot();
            self.b.ins().store(plain, x, slot, 0);
            self.convert(offset_of!(Table, narrow_rows), slot, at);
            return Ok(());
        }
        let to_f16 = self.to_f16(storage)?;
        let (indices, each) = (self.each(index), self.each(value));
        for (index, x) in indices.into_iter().zip(each) {
            let (address, offset) = self.at(base, index);
            memory::store(&mut self.b, plain, storage, dtype, address, offset, x, to_f16);
        }
        Ok(())
    }
}
