//! Prints kernels. Values keep their numbers, which `prune` has put in the order of the text, so that dumps are stable.

use super::ir::*;
use super::warp::*;
use crate::ops::Scalar;
use std::fmt::{self, Display, Formatter, Write};

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

impl Storage {
    /// Short name, for dumps and messages.
    pub fn name(self) -> &'static str {
        match self {
            Storage::F32 => "f32",
            Storage::F64 => "f64",
            Storage::Bf16 => "bf16",
            Storage::F16 => "f16",
            Storage::I64 => "i64",
            Storage::I32 => "i32",
            Storage::U8 => "u8",
        }
    }
}

impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel {} lanes {} {{", self.name, self.lanes)?;
        for b in &self.buffers {
            writeln!(f, "  buffer {}: {} {}{}", b.name, b.ty.name(), b.storage.name(), if b.written { " written" } else { "" })?;
        }
        for (i, name) in self.ints.iter().enumerate() {
            writeln!(f, "  int {i} {name}")?;
        }
        for (i, name) in self.reals.iter().enumerate() {
            writeln!(f, "  real {i} {name}")?;
        }
        for l in &self.locals {
            let space = match l.space {
                Space::Shared => "shared",
                Space::Workspace => "workspace",
            };
            writeln!(f, "  local {}: {}[{}] {space}", l.name, l.ty.name(), l.len)?;
        }
        if let Some(w) = &self.warps {
            self.warps(f, w)?;
        }
        self.block(f, &self.body, 1)?;
        writeln!(f, "}}")
    }
}

fn scalar(f: &mut Formatter<'_>, s: Scalar) -> fmt::Result {
    match s {
        Scalar::Bool(x) => write!(f, "{x}"),
        Scalar::Int(x) => write!(f, "{x}"),
        Scalar::Real(x) => write!(f, "{x:?}"),
        Scalar::Complex(x, y) => write!(f, "{x:?} + {y:?}i"),
    }
}

fn list(f: &mut Formatter<'_>, values: &[Value]) -> fmt::Result {
    for (i, v) in values.iter().enumerate() {
        write!(f, "{}{v}", if i == 0 { "" } else { ", " })?;
    }
    Ok(())
}

impl Kernel {
    fn warps(&self, f: &mut Formatter<'_>, w: &Warps) -> fmt::Result {
        let schedule = if w.persistent { " persistent" } else { "" };
        writeln!(f, "  roles copy + math x {} registers {} {}{schedule}", w.math, w.registers.0, w.registers.1)?;
        for (i, r) in w.rings.iter().enumerate() {
            writeln!(f, "  ring {} {i}: {} x panels[{},{}] {}", r.name, r.slots, r.rows, r.cols, r.storage.name())?;
        }
        for (i, m) in w.maps.iter().enumerate() {
            writeln!(f, "  map {i} of {} box {:?}", self.base(Base::Buffer(m.buffer)), m.block)?;
        }
        for (i, x) in w.fragments.iter().enumerate() {
            writeln!(f, "  fragment {} {i}: {:?}", x.name, x.layout)?;
        }
        Ok(())
    }

    fn frag(&self, id: FragId) -> String {
        let name = self.warps.as_ref().and_then(|w| w.fragment(id)).map_or("?", |x| x.name.as_str());
        format!("${name}.{}", id.0)
    }

    fn ring(&self, id: RingId) -> &str {
        self.warps.as_ref().and_then(|w| w.rings.get(id.0 as usize)).map_or("?", |r| r.name.as_str())
    }

    fn warp(&self, f: &mut Formatter<'_>, op: &WarpOp, depth: usize) -> fmt::Result {
        write!(f, "{}", op.name())?;
        match op {
            WarpOp::Roles { copy, math } => {
                for (name, body) in [("copy", copy), ("math", math)] {
                    writeln!(f, " {name} {{")?;
                    self.block(f, body, depth + 1)?;
                    self.close(f, depth)?;
                }
                return Ok(());
            }
            WarpOp::Work { var, count, body } => {
                writeln!(f, " {var} of {count} {{")?;
                self.block(f, body, depth + 1)?;
                return self.close(f, depth);
            }
            WarpOp::Copy { ring, map, at } => {
                write!(f, " {} = map {} at ", self.ring(*ring), map.0)?;
                list(f, at)?;
            }
            WarpOp::Take(r) | WarpOp::Drop(r) => write!(f, " {}", self.ring(*r))?,
            WarpOp::Mma { acc, fresh, a, b, turned, k } => {
                let a = match a {
                    Operand::View(r) => self.ring(*r).to_string(),
                    Operand::Frag(x) => self.frag(*x),
                };
                write!(f, " {} {} {a}, {}{} over {k}", self.frag(*acc), if *fresh { "=" } else { "+=" }, self.ring(*b), if *turned { " turned" } else { "" })?;
            }
            WarpOp::Wait { younger, results } => {
                write!(f, " {younger}")?;
                results.iter().try_for_each(|r| write!(f, " {}", self.frag(*r)))?;
            }
            WarpOp::Turn { pass } => f.write_str(if *pass { " pass" } else { " take" })?,
            WarpOp::Each { out, .. } => write!(f, " {}", self.frag(*out))?,
            WarpOp::Move { to, from } | WarpOp::Pack { out: to, from } => write!(f, " {} = {}", self.frag(*to), self.frag(*from))?,
            WarpOp::Fold { out, op, from, carried } => {
                write!(f, " {} = {} {}", self.frag(*out), op.name(), self.frag(*from))?;
                if let Some(c) = carried {
                    write!(f, " with {}", self.frag(*c))?;
                }
            }
            WarpOp::Put { buffer, layout, pairs, .. } => write!(f, " {} {layout:?}{}", self.base(Base::Buffer(*buffer)), if *pairs { " pairs" } else { "" })?,
        }
        if let Some(r) = op.region() {
            write!(f, " ({}, {}", r.row, r.col)?;
            r.reads.iter().try_for_each(|(v, x)| write!(f, ", {v} = {}", self.frag(*x)))?;
            writeln!(f, ") {{")?;
            self.block(f, &r.body, depth + 1)?;
            self.close(f, depth)?;
            f.write_str(" -> ")?;
            list(f, &r.results)?;
        }
        Ok(())
    }

    fn base(&self, base: Base) -> String {
        let (name, number) = match base {
            Base::Buffer(b) => (self.buffers.get(b.0 as usize).map(|x| &x.name), b.0),
            Base::Local(l) => (self.locals.get(l.0 as usize).map(|x| &x.name), l.0),
        };
        name.cloned().unwrap_or_else(|| format!("?{number}"))
    }

    fn block(&self, f: &mut Formatter<'_>, body: &[Stmt], depth: usize) -> fmt::Result {
        for stmt in body {
            for _ in 0..depth {
                f.write_str("  ")?;
            }
            self.stmt(f, stmt, depth)?;
            f.write_char('\n')?;
        }
        Ok(())
    }

    fn close(&self, f: &mut Formatter<'_>, depth: usize) -> fmt::Result {
        for _ in 0..depth {
            f.write_str("  ")?;
        }
        f.write_char('}')
    }

    fn stmt(&self, f: &mut Formatter<'_>, stmt: &Stmt, depth: usize) -> fmt::Result {
        match stmt {
            Stmt::Let(v, inst) => {
                write!(f, "{v}: {} = ", self.types.get(v.0 as usize).map_or("?", |t| t.name()))?;
                match inst {
                    Inst::Const(s) => scalar(f, *s),
                    Inst::IntArg(i) => write!(f, "arg {}", self.ints.get(*i as usize).map_or("?", |n| n)),
                    Inst::RealArg(i) => write!(f, "arg {}", self.reals.get(*i as usize).map_or("?", |n| n)),
                    Inst::Block => f.write_str("block"),
                    Inst::Lane => f.write_str("lane"),
                    Inst::Op { op, args } => {
                        write!(f, "{} ", op.name())?;
                        list(f, args)
                    }
                    Inst::Load { base, index } => write!(f, "load {}[{index}]", self.base(*base)),
                }
            }
            Stmt::Store { base, index, value } => write!(f, "store {}[{index}] = {value}", self.base(*base)),
            Stmt::For { var, lo, hi, step, carries, body } => {
                write!(f, "for {var} in {lo}..{hi} step {step}")?;
                for c in carries {
                    write!(f, " ({} = {})", c.param, c.init)?;
                }
                writeln!(f, " {{")?;
                self.block(f, body, depth + 1)?;
                self.close(f, depth)?;
                for c in carries {
                    write!(f, " ({} -> {})", c.next, c.result)?;
                }
                Ok(())
            }
            Stmt::If { cond, then, other } => {
                writeln!(f, "if {cond} {{")?;
                self.block(f, then, depth + 1)?;
                self.close(f, depth)?;
                if !other.is_empty() {
                    writeln!(f, " else {{")?;
                    self.block(f, other, depth + 1)?;
                    self.close(f, depth)?;
                }
                Ok(())
            }
            Stmt::Barrier => f.write_str("barrier"),
            Stmt::Warp(op) => self.warp(f, op, depth),
            Stmt::Tile(call) => {
                write!(f, "tile {}", call.name())?;
                match **call {
                    TileCall::Unary { op, .. } => write!(f, " {}", op.name())?,
                    TileCall::Binary { op, a_step, b_step, .. } => write!(f, " {} steps {a_step} {b_step}", op.name())?,
                    TileCall::Order { kind, .. } => write!(f, " {}", kind.name())?,
                    TileCall::Dot { accumulate, narrow, .. } => {
                        f.write_str(if accumulate { " accumulate" } else { "" })?;
                        f.write_str(if narrow { " narrow" } else { "" })?;
                    }
                    TileCall::ExpRows { .. } | TileCall::MaxRows { .. } | TileCall::SumRows { .. } | TileCall::ScaleRows { .. } | TileCall::Solve { .. } => {}
                }
                for (name, v) in call.ints().into_iter().chain(call.reals()) {
                    write!(f, " {name}={v}")?;
                }
                for (name, p) in call.places() {
                    write!(f, " {name}={}[{}]", self.base(p.base), p.offset)?;
                }
                Ok(())
            }
        }
    }
}
