//! Drops values that nothing reads and renumbers the rest in the order of the text.

use super::ir::*;
use crate::ops::DType;

/// See the module. Stores, barriers and tile calls stay; loops and branches stay when something in them does.
pub fn prune(mut kernel: Kernel) -> Kernel {
    let mut live = vec![false; kernel.types.len()];
    // A carried value that only feeds itself looks used in one backward walk; the second walk starts from what the first found
    // to be needed around loops, so two orders of nesting settle by repeating until nothing changes.
    loop {
        let before = live.iter().filter(|l| **l).count();
        mark(&kernel.body, &mut live);
        if live.iter().filter(|l| **l).count() == before {
            break;
        }
    }
    let body = sweep(std::mem::take(&mut kernel.body), &live);
    let mut names = Names { map: vec![None; kernel.types.len()], types: vec![], old: &kernel.types };
    let body = names.block(body);
    let types = names.types;
    Kernel { types, body, ..kernel }
}

fn has_effect(body: &[Stmt]) -> bool {
    body.iter().any(|s| match s {
        Stmt::Let(..) => false,
        Stmt::Store { .. } | Stmt::Barrier | Stmt::Tile(_) | Stmt::Warp(_) => true,
        Stmt::For { body, .. } => has_effect(body),
        Stmt::If { then, other, .. } => has_effect(then) || has_effect(other),
    })
}

fn keeps(stmt: &Stmt, live: &[bool]) -> bool {
    match stmt {
        Stmt::Let(value, _) => live[value.0 as usize],
        Stmt::Store { .. } | Stmt::Barrier | Stmt::Tile(_) | Stmt::Warp(_) => true,
        Stmt::For { body, carries, .. } => has_effect(body) || carries.iter().any(|c| live[c.result.0 as usize]),
        Stmt::If { then, other, .. } => has_effect(then) || has_effect(other),
    }
}

fn mark(body: &[Stmt], live: &mut [bool]) {
    for stmt in body.iter().rev() {
        if !keeps(stmt, live) {
            continue;
        }
        match stmt {
            Stmt::Let(_, inst) => inst.operands().into_iter().for_each(|v| live[v.0 as usize] = true),
            Stmt::Store { index, value, .. } => [*index, *value].into_iter().for_each(|v| live[v.0 as usize] = true),
            Stmt::Barrier => {}
            Stmt::Tile(call) => call.operands().into_iter().for_each(|v| live[v.0 as usize] = true),
            Stmt::Warp(op) => {
                op.operands().iter().chain(op.results()).for_each(|v| live[v.0 as usize] = true);
                op.bodies().into_iter().for_each(|b| mark(b, live));
            }
            Stmt::If { cond, then, other } => {
                live[cond.0 as usize] = true;
                mark(then, live);
                mark(other, live);
            }
            Stmt::For { lo, hi, step, carries, body, .. } => {
                [*lo, *hi, *step].into_iter().for_each(|v| live[v.0 as usize] = true);
                // A carry is needed when its result or its param is; the param is known after the body was walked.
                for carry in carries {
                    if live[carry.result.0 as usize] || live[carry.param.0 as usize] {
                        live[carry.next.0 as usize] = true;
                        live[carry.init.0 as usize] = true;
                    }
                }
                mark(body, live);
            }
        }
    }
}

fn sweep(body: Vec<Stmt>, live: &[bool]) -> Vec<Stmt> {
    let mut out = vec![];
    for stmt in body {
        if !keeps(&stmt, live) {
            continue;
        }
        out.push(match stmt {
            Stmt::For { var, lo, hi, step, mut carries, body } => {
                carries.retain(|c| live[c.result.0 as usize] || live[c.param.0 as usize]);
                Stmt::For { var, lo, hi, step, carries, body: sweep(body, live) }
            }
            Stmt::If { cond, then, other } => Stmt::If { cond, then: sweep(then, live), other: sweep(other, live) },
            Stmt::Warp(op) => Stmt::Warp(Box::new(op.rebuild(&mut &*live, |_, v| v, |live, b| sweep(b, live)))),
            Stmt::Let(..) | Stmt::Store { .. } | Stmt::Barrier | Stmt::Tile(_) => stmt,
        });
    }
    out
}

struct Names<'a> {
    map: Vec<Option<Value>>,
    types: Vec<DType>,
    old: &'a [DType],
}

impl Names<'_> {
    /// A value met before its definition gets a number too, so that a faulty kernel reaches the verifier unharmed.
    fn get(&mut self, value: Value) -> Value {
        if let Some(new) = self.map[value.0 as usize] {
            return new;
        }
        let new = Value(self.types.len() as u32);
        self.types.push(self.old[value.0 as usize]);
        self.map[value.0 as usize] = Some(new);
        new
    }

    fn block(&mut self, body: Vec<Stmt>) -> Vec<Stmt> {
        body.into_iter().map(|s| self.stmt(s)).collect()
    }

    fn stmt(&mut self, stmt: Stmt) -> Stmt {
        match stmt {
            Stmt::Let(value, inst) => {
                let inst = inst.map_operands(|v| self.get(v));
                Stmt::Let(self.get(value), inst)
            }
            Stmt::Store { base, index, value } => Stmt::Store { base, index: self.get(index), value: self.get(value) },
            Stmt::Barrier => Stmt::Barrier,
            Stmt::Warp(op) => Stmt::Warp(Box::new(op.rebuild(self, |n, v| n.get(v), |n, b| n.block(b)))),
            Stmt::Tile(call) => Stmt::Tile(Box::new(call.map_operands(|v| self.get(v)))),
            Stmt::If { cond, then, other } => Stmt::If { cond: self.get(cond), then: self.block(then), other: self.block(other) },
            Stmt::For { var, lo, hi, step, carries, body } => {
                let (lo, hi, step) = (self.get(lo), self.get(hi), self.get(step));
                let inits: Vec<Value> = carries.iter().map(|c| self.get(c.init)).collect();
                let var = self.get(var);
                let params: Vec<Value> = carries.iter().map(|c| self.get(c.param)).collect();
                let body = self.block(body);
                let carries = carries
                    .iter()
                    .zip(inits.into_iter().zip(params))
                    .map(|(c, (init, param))| Carry { param, init, next: self.get(c.next), result: self.get(c.result) })
                    .collect();
                Stmt::For { var, lo, hi, step, carries, body }
            }
        }
    }
}
