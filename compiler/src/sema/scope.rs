//! Names: scopes, slots that are elaborated on first use, circles, suggestions.

use super::{Elab, Guard, Poison, Res, Val};
use crate::base::{Diagnostic, Span};
use crate::graph::{Axis, AxisId, Extent, NodeId, Op, ScanId};
use crate::syntax::ast::{Block, Expr, FnDecl, Ident, Stmt, StmtKind, Type};
use std::collections::HashMap;

pub(super) type ScopeId = usize;

/// What a scope belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Top-level functions.
    Root,
    Kernel,
    Function,
    /// The step of a scan.
    Step,
}

#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub parent: Option<ScopeId>,
    pub kind: Kind,
    pub slots: HashMap<String, Slot<'a>>,
    pub fns: HashMap<String, &'a FnDecl>,
    /// Scans whose steps are being elaborated here, innermost last.
    pub open: Vec<ScanId>,
    /// Guards that hold for everything in this scope.
    pub guards: Vec<Guard>,
    /// Calls that were open when the scope began.
    pub calls: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Slot<'a> {
    pub span: Span,
    pub state: SlotState<'a>,
    /// The slot is an export of this scan, seen from inside its step.
    pub export_of: Option<ScanId>,
}

#[derive(Clone, Debug)]
pub(super) enum SlotState<'a> {
    Val(Val),
    /// An axis; several for an axis parameter bound to several.
    Axes(Vec<AxisId>),
    Lazy(Lazy<'a>),
    /// Being elaborated.
    Busy,
    Poison,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Lazy<'a> {
    Axis(&'a Ident, &'a Expr),
    /// Name, type, value, and whether it is a `mask`.
    Let(&'a Ident, Option<&'a Type>, &'a Expr, bool),
    /// `name = e` or `S' = e`.
    Set(&'a Ident, bool, &'a Expr),
    /// A name that a scan defines for its surroundings.
    Scan(&'a Stmt),
}

/// What a name stands for.
pub(super) enum Found {
    Val(Val),
    Axes(Vec<AxisId>),
}

impl<'a> Elab<'a> {
    pub(super) fn new_scope(&mut self, parent: Option<ScopeId>, kind: Kind) -> ScopeId {
        let (open, guards, calls) = (self.open.clone(), self.guards.clone(), self.calls.len());
        self.scopes.push(Scope { parent, kind, slots: HashMap::new(), fns: HashMap::new(), open, guards, calls });
        self.scopes.len() - 1
    }

    /// Scopes from `scope` outwards.
    pub(super) fn chain(&self, scope: ScopeId) -> Vec<ScopeId> {
        let mut out = vec![scope];
        while let Some(parent) = self.scopes[out[out.len() - 1]].parent {
            out.push(parent);
        }
        out
    }

    /// The scope and slot that `key` names, seen from `scope`.
    pub(super) fn find(&self, key: &str, scope: ScopeId) -> Option<ScopeId> {
        self.chain(scope).into_iter().find(|s| self.scopes[*s].slots.contains_key(key))
    }

    /// Declares a name; nothing in the same function or kernel may have it already.
    pub(super) fn declare(&mut self, scope: ScopeId, key: &str, span: Span, state: SlotState<'a>) {
        self.declare_in(scope, key, span, state, false);
    }

    /// As `declare`; `inner` for the inside of what the surrounding block has declared already (states and exports of a scan).
    pub(super) fn declare_in(&mut self, scope: ScopeId, key: &str, span: Span, state: SlotState<'a>, inner: bool) {
        let mut clash = None;
        for s in self.chain(scope) {
            if let Some(slot) = self.scopes[s].slots.get(key) {
                clash = Some(slot.span);
                break;
            }
            if self.scopes[s].kind != Kind::Step || inner {
                break;
            }
        }
        if let Some(first) = clash {
            self.report(
                Diagnostic::error("A0202", format!("`{key}` is declared twice"))
                    .label(span, "second declaration")
                    .label(first, "first declaration")
                    .help("every name means one thing in a kernel: choose another name"),
            );
            return;
        }
        self.scopes[scope].slots.insert(key.to_string(), Slot { span, state, export_of: None });
    }

    pub(super) fn set_slot(&mut self, scope: ScopeId, key: &str, state: SlotState<'a>) {
        if let Some(slot) = self.scopes[scope].slots.get_mut(key) {
            slot.state = state;
        }
    }

    /// Value of the slot, elaborated on first use.
    pub(super) fn force(&mut self, scope: ScopeId, key: &str, at: Span) -> Res<Found> {
        if let Some((_, val)) = self.overrides.iter().rev().find(|(k, _)| k.0 == scope && k.1 == key) {
            return Ok(Found::Val(val.clone()));
        }
        let Some(slot) = self.scopes[scope].slots.get(key) else { return Err(Poison) };
        let span = slot.span;
        let lazy = match &slot.state {
            SlotState::Val(v) => return Ok(Found::Val(v.clone())),
            SlotState::Axes(a) => return Ok(Found::Axes(a.clone())),
            SlotState::Poison => return Err(Poison),
            SlotState::Busy => {
                let own = self.scopes[scope].slots[key].export_of.is_some();
                let d = Diagnostic::error("A0204", format!("`{key}` is defined in terms of itself"))
                    .label(at, "needed here before it is known")
                    .label(span, "being defined here");
                let d = if own {
                    d.help(format!("read an earlier result by its position: `{key}[axis = ..]`"))
                } else {
                    d.help("a value that changes from step to step is a `state` of a `scan`")
                };
                return Err(self.report(d));
            }
            SlotState::Lazy(lazy) => *lazy,
        };
        self.set_slot(scope, key, SlotState::Busy);
        let before = self.diags.len();
        // What is elaborated here belongs to the slot's own surroundings, not to the place that needs it.
        let guards = std::mem::replace(&mut self.guards, self.scopes[scope].guards.clone());
        let open = std::mem::replace(&mut self.open, self.scopes[scope].open.clone());
        let overrides = std::mem::take(&mut self.overrides);
        let kept = self.scopes[scope].calls.min(self.calls.len());
        let calls = self.calls.split_off(kept);
        let state = match lazy {
            Lazy::Axis(name, extent) => match self.new_axis(name, extent, scope) {
                Ok(axis) => SlotState::Axes(vec![axis]),
                Err(Poison) => SlotState::Poison,
            },
            Lazy::Let(name, ty, value, mask) => match self.let_value(name, ty, value, mask, scope) {
                Ok(v) => SlotState::Val(v),
                Err(Poison) => SlotState::Poison,
            },
            Lazy::Set(name, primed, value) => match self.set_value(name, primed, value, scope) {
                Ok(v) => SlotState::Val(v),
                Err(Poison) => SlotState::Poison,
            },
            Lazy::Scan(stmt) => {
                self.scan_stmt(stmt, scope);
                match self.scopes[scope].slots.get(key).map(|s| s.state.clone()) {
                    Some(SlotState::Busy) | None => SlotState::Poison,
                    Some(done) => done,
                }
            }
        };
        self.calls.extend(calls);
        self.overrides = overrides;
        self.guards = guards;
        self.open = open;
        // A round may be thrown away, but what it made an outer slot say stays said.
        let said: Vec<Diagnostic> = self.diags.get(before..).unwrap_or(&[]).to_vec();
        for (step, kept) in &mut self.rounds {
            if scope < *step {
                kept.extend(said.iter().cloned());
            }
        }
        self.set_slot(scope, key, state.clone());
        match state {
            SlotState::Val(v) => Ok(Found::Val(v)),
            SlotState::Axes(a) => Ok(Found::Axes(a)),
            SlotState::Poison | SlotState::Busy | SlotState::Lazy(_) => Err(Poison),
        }
    }

    /// Declares an axis of a body: `axis s: T`.
    fn new_axis(&mut self, name: &'a Ident, extent: &'a Expr, scope: ScopeId) -> Res<AxisId> {
        let val = self.expr(extent, scope)?;
        let node = self.scalar_int(&val, extent.span)?;
        Ok(self.add_axis(&name.name, node, name.span))
    }

    /// An axis with a computed extent; finds its twin.
    pub(super) fn add_axis(&mut self, name: &str, extent: NodeId, span: Span) -> AxisId {
        let direct = match *self.graph.op(extent) {
            Op::Extent(a) => Some(a),
            _ => None,
        };
        let same = (0..self.graph.axes.len() as u32).map(AxisId).find(|a| self.graph.axis(*a).extent == Extent::Value(extent));
        let twin = direct.or(same);
        let axis = self.graph.add_axis(Axis { name: name.to_string(), extent: Extent::Value(extent), twin, split: None, span });
        if let Some(base) = direct {
            // Every axis that was declared with this extent, and the base itself.
            let mut family: Vec<AxisId> = vec![base];
            family.extend(self.renamed.iter().filter(|(_, b)| *b == base).map(|(a, _)| *a));
            self.renamed.extend(family.into_iter().map(|b| (axis, b)));
        }
        axis
    }

    /// The extent must be a scalar int made of extents, scalar inputs and constants.
    fn scalar_int(&mut self, val: &Val, span: Span) -> Res<NodeId> {
        let node = val.node;
        let problem = if self.graph.dtype(node) != crate::ops::DType::Int {
            Some(format!("it is {}", self.graph.dtype(node).name()))
        } else if !self.graph.axes_of(node).is_empty() {
            Some(format!("it varies over {}", self.axes_text(self.graph.axes_of(node).clone())))
        } else if self.depends_on_late(node) {
            Some("it depends on an axis whose extent depends on the contents of a tensor".to_string())
        } else if !val.conds.is_empty() {
            Some("it may be absent".to_string())
        } else {
            None
        };
        match problem {
            None => Ok(node),
            Some(why) => Err(self.report(
                Diagnostic::error("A0304", "an extent must be an int without axes that is always present")
                    .label(span, why)
                    .help("use extents (`T`, `len(t)`), int parameters without axes, constants, and reductions to one number"),
            )),
        }
    }

    /// Whether the value depends on an axis whose extent the host cannot compute.
    fn depends_on_late(&self, node: NodeId) -> bool {
        let late = |a: &usize| matches!(self.graph.axes[*a].extent, Extent::Value(n) if !self.host_scalar(n));
        let late = (0..self.graph.axes.len()).filter(late).map(|a| AxisId(a as u32)).collect();
        crate::graph::staged::speaks_of(&self.graph, node, &late)
    }

    /// Whether the caller's side can compute the node: constants, extents, scalar inputs and pointwise ops on them.
    pub(super) fn host_scalar(&self, node: NodeId) -> bool {
        let mut work = vec![node];
        let mut seen = std::collections::HashSet::new();
        while let Some(n) = work.pop() {
            if !seen.insert(n) {
                continue;
            }
            match self.graph.op(n) {
                Op::Const(_) | Op::Extent(_) => {}
                Op::Input(i) if self.graph.inputs.get(i.index()).is_some_and(|x| x.axes.is_empty()) => {}
                Op::Map { args, .. } => work.extend(args),
                _ => return false,
            }
        }
        true
    }

    /// The axes that a name between brackets stands for.
    pub(super) fn axes_named(&mut self, name: &Ident, scope: ScopeId) -> Res<Vec<AxisId>> {
        if let Some(s) = self.find(&name.name, scope) {
            return match self.force(s, &name.name, name.span)? {
                Found::Axes(axes) => Ok(axes),
                Found::Val(_) => {
                    let place = self.scopes[s].slots[&name.name].span;
                    Err(self.report(
                        Diagnostic::error("A0301", format!("`{}` is a value, not an axis", name.name))
                            .label(name.span, "an axis is needed here")
                            .label(place, "declared here"),
                    ))
                }
            };
        }
        let mut d = Diagnostic::error("A0301", format!("there is no axis `{}`", name.name)).label(name.span, "unknown axis");
        d = match self.nearest(&name.name, scope, true) {
            Some(near) => d.help(format!("did you mean `{near}`?")),
            None => d.help(format!("declare it with its extent: `axis {}: ..`", name.name)),
        };
        Err(self.report(d))
    }

    /// Exactly one axis.
    pub(super) fn axis_named(&mut self, name: &Ident, scope: ScopeId) -> Res<AxisId> {
        let axes = self.axes_named(name, scope)?;
        match axes[..] {
            [one] => Ok(one),
            _ => Err(self.report(
                Diagnostic::error("A0308", format!("`{}` stands for several axes here", name.name)).label(name.span, "one axis is needed"),
            )),
        }
    }

    /// Value of a name, of an axis (its index) or of a capital (an extent).
    pub(super) fn name(&mut self, name: &str, primed: bool, span: Span, scope: ScopeId) -> Res {
        let key = if primed { format!("{name}'") } else { name.to_string() };
        if let Some(s) = self.find(&key, scope) {
            return match self.force(s, &key, span)? {
                Found::Val(v) => Ok(v),
                Found::Axes(axes) => match axes[..] {
                    [axis] => Ok(Val::present(self.intern(Op::Index(axis), span)?)),
                    _ => Err(self.report(
                        Diagnostic::error("A0308", format!("`{name}` stands for several axes here and has no single index"))
                            .label(span, "used as a value"),
                    )),
                },
            };
        }
        if primed {
            let known = self.find(name, scope).is_some();
            let d = Diagnostic::error("A0603", format!("there is no new state `{name}'` here")).label(span, "unknown state");
            let d = if known {
                d.help(format!("a prime is the value after the step, inside the scan that declares `state {name}`; after the scan write `{name}`"))
            } else {
                d
            };
            return Err(self.report(d));
        }
        for s in self.chain(scope) {
            let mut axes: Vec<String> = self.scopes[s]
                .slots
                .iter()
                .filter(|(k, slot)| {
                    matches!(slot.state, SlotState::Axes(_) | SlotState::Lazy(Lazy::Axis(..))) && k.to_uppercase() == name && k.as_str() != name
                })
                .map(|(k, _)| k.clone())
                .collect();
            axes.sort();
            if let Some(axis) = axes.first()
                && let Found::Axes(found) = self.force(s, axis, span)?
            {
                return Ok(Val::present(self.extents(&found, span)?));
            }
        }
        if name == "pi" {
            return Ok(Val::present(self.real(std::f64::consts::PI, span)?));
        }
        let mut d = Diagnostic::error("A0201", format!("`{name}` is not defined")).label(span, "unknown name");
        let function = self.chain(scope).into_iter().any(|s| self.scopes[s].fns.contains_key(name));
        d = if function || super::calls::is_builtin(name) {
            d.help(format!("`{name}` is a function: write `{name}(..)`"))
        } else if let Some(near) = self.nearest(name, scope, false) {
            d.help(format!("did you mean `{near}`?"))
        } else if name.chars().all(|c| c.is_uppercase() || c.is_numeric()) {
            d.help(format!("a capital is the extent of an axis, but there is no axis `{}`", name.to_lowercase()))
        } else {
            d
        };
        Err(self.report(d))
    }

    /// Product of the extents of `axes`.
    pub(super) fn extents(&mut self, axes: &[AxisId], span: Span) -> Res<NodeId> {
        let mut product = None;
        for axis in axes {
            let extent = self.extent(*axis, span)?;
            product = Some(match product {
                None => extent,
                Some(p) => self.map(crate::ops::ScalarOp::Mul, vec![p, extent], span)?,
            });
        }
        match product {
            Some(p) => Ok(p),
            None => self.int(1, span),
        }
    }

    /// Extent of an axis; twins answer with the extent of the axis they copy, so that equal extents are one node.
    pub(super) fn extent(&mut self, axis: AxisId, span: Span) -> Res<NodeId> {
        let origin = self.origin(axis);
        let node = self.intern(Op::Extent(origin), span)?;
        self.extents_known.insert(origin, node);
        Ok(node)
    }

    /// The axis whose extent this one copies (`axis s: T`), through chains.
    pub(super) fn origin(&self, axis: AxisId) -> AxisId {
        match self.graph.axis(axis).extent {
            Extent::Value(node) => match *self.graph.op(node) {
                Op::Extent(other) if other != axis => self.origin(other),
                _ => (0..axis.0).map(AxisId).find(|a| self.graph.axis(*a).extent == Extent::Value(node)).unwrap_or(axis),
            },
            Extent::Inputs => axis,
        }
    }

    /// The name in scope that is most like `name`.
    pub(super) fn nearest(&self, name: &str, scope: ScopeId, axes_only: bool) -> Option<String> {
        let mut best: Option<(f64, String)> = None;
        for s in self.chain(scope) {
            for (key, slot) in &self.scopes[s].slots {
                let axis = matches!(slot.state, SlotState::Axes(_) | SlotState::Lazy(Lazy::Axis(..)));
                if axes_only && !axis {
                    continue;
                }
                let like = strsim::jaro_winkler(name, key);
                if like > 0.75 && best.as_ref().is_none_or(|b| like > b.0 || like == b.0 && *key < b.1) {
                    best = Some((like, key.clone()));
                }
            }
        }
        best.map(|b| b.1)
    }

    /// `let name: type = value`
    fn let_value(&mut self, name: &'a Ident, ty: Option<&'a Type>, value: &'a Expr, mask: bool, scope: ScopeId) -> Res {
        let mut val = if mask { self.condition(value, scope, "a `mask`")? } else { self.expr(value, scope)? };
        if let Some(ty) = ty {
            if let Some((dtype, _)) = ty.dtype {
                val.node = self.convert(val.node, super::expr::dtype_of(dtype), value.span, &format!("`{}`", name.name))?;
            }
            if let Some(axes) = &ty.axes {
                let mut want = crate::graph::AxisSet::new();
                for axis in axes {
                    want.insert(self.axis_named(axis, scope)?);
                }
                let have = self.graph.axes_of(val.node).clone();
                if have != want {
                    let message = format!("`{}` has axes {}, declared {}", name.name, self.axes_text(have), self.axes_text(want));
                    return Err(self.report(Diagnostic::error("A0803", message).label(value.span, "this value").label(ty.span, "declared here")));
                }
            }
        }
        self.give_name(val.node, &name.name);
        Ok(val)
    }

    /// Declares what the statements of a block define. `outputs` may be assigned in kernels and in scans inside them.
    pub(super) fn declare_block(&mut self, scope: ScopeId, block: &'a Block) {
        for stmt in &block.stmts {
            match &stmt.kind {
                StmtKind::Axis(list) => {
                    for (name, extent) in list {
                        let tied = self.scopes[scope].kind == Kind::Kernel
                            && matches!(self.scopes[scope].slots.get(&name.name).map(|s| &s.state), Some(SlotState::Axes(_)));
                        if !tied {
                            self.declare(scope, &name.name, name.span, SlotState::Lazy(Lazy::Axis(name, extent)));
                        }
                    }
                }
                StmtKind::Let { name, ty, value, mask } => {
                    self.declare(scope, &name.name, name.span, SlotState::Lazy(Lazy::Let(name, ty.as_ref(), value, *mask)));
                }
                StmtKind::Fn(decl) => self.declare_fn(scope, decl),
                StmtKind::Scan { body, .. } | StmtKind::Repeat { body, .. } => {
                    for (key, span) in self.defined_by(body, scope) {
                        self.declare(scope, &key, span, SlotState::Lazy(Lazy::Scan(stmt)));
                    }
                }
                StmtKind::Set { name, primed, value } => self.declare_set(scope, name, *primed, value),
                StmtKind::State { .. } | StmtKind::Require(_) | StmtKind::Return(_) | StmtKind::Schedule(_) | StmtKind::Error => {}
            }
        }
    }

    fn declare_fn(&mut self, scope: ScopeId, decl: &'a FnDecl) {
        if super::calls::is_builtin(&decl.name.name) {
            self.report(
                Diagnostic::error("A0205", format!("`{}` is built in and cannot be defined again", decl.name.name))
                    .label(decl.name.span, "defined here")
                    .help("choose another name"),
            );
        }
        if let Some(first) = self.scopes[scope].fns.insert(decl.name.name.clone(), decl) {
            self.report(
                Diagnostic::error("A0202", format!("function `{}` is defined twice", decl.name.name))
                    .label(decl.name.span, "second definition")
                    .label(first.name.span, "first definition"),
            );
        }
    }

    fn declare_set(&mut self, scope: ScopeId, name: &'a Ident, primed: bool, value: &'a Expr) {
        let key = if primed { format!("{}'", name.name) } else { name.name.clone() };
        let lazy = SlotState::Lazy(Lazy::Set(name, primed, value));
        match self.scopes[scope].kind {
            Kind::Step if primed => {
                if self.scopes[scope].slots.contains_key(&key) {
                    let first = self.scopes[scope].slots[&key].span;
                    self.report(
                        Diagnostic::error("A0602", format!("state `{}` is advanced twice in one step", name.name))
                            .label(name.span, "second time")
                            .label(first, "first time"),
                    );
                    return;
                }
                self.declare_in(scope, &key, name.span, lazy, true);
            }
            // An output may carry the name of an input: then it is written only, and reads see the input.
            Kind::Step | Kind::Kernel if !primed && self.reads_input(scope, &name.name) => {
                let hidden = format!("{key} (output)");
                if let Some(first) = self.scopes[scope].slots.get(&hidden).map(|s| s.span) {
                    self.assigned_twice(name, first);
                    return;
                }
                self.declare(scope, &hidden, name.span, lazy);
            }
            Kind::Step => {
                let scan = self.scopes[scope].open.last().copied();
                self.declare_in(scope, &key, name.span, lazy, true);
                if let Some(slot) = self.scopes[scope].slots.get_mut(&key) {
                    slot.export_of = scan;
                }
            }
            Kind::Kernel if !primed => {
                if !self.is_output(&name.name) {
                    let mut d = Diagnostic::error("A0805", format!("`{}` is not an output of this kernel", name.name))
                        .label(name.span, "assigned here")
                        .help(format!("write `let {} = ..` for a value of its own", name.name));
                    if let Some(near) = self.nearest_output(&name.name) {
                        d = d.help(format!("or did you mean the output `{near}`?"));
                    }
                    self.report(d);
                    return;
                }
                if let Some(first) = self.scopes[scope].slots.get(&key).map(|s| s.span)
                    && matches!(self.scopes[scope].slots[&key].state, SlotState::Lazy(Lazy::Set(..) | Lazy::Scan(_)))
                {
                    self.assigned_twice(name, first);
                    return;
                }
                self.declare(scope, &key, name.span, lazy);
            }
            Kind::Kernel | Kind::Function | Kind::Root => {
                let d = if primed {
                    Diagnostic::error("A0603", format!("`{}'` may be assigned only inside the scan that declares the state", name.name))
                } else {
                    Diagnostic::error("A0805", format!("a function cannot assign `{}`", name.name)).help("use `let` and `return`")
                };
                self.report(d.label(name.span, "assigned here"));
            }
        }
    }

    fn assigned_twice(&mut self, name: &Ident, first: Span) {
        self.report(
            Diagnostic::error("A0802", format!("output `{}` is assigned twice", name.name))
                .label(name.span, "second assignment")
                .label(first, "first assignment"),
        );
    }

    /// Whether the name is both an output and an input of the kernel.
    fn reads_input(&self, scope: ScopeId, name: &str) -> bool {
        let kernel = self.chain(scope).into_iter().find(|s| matches!(self.scopes[*s].kind, Kind::Kernel | Kind::Function));
        let input = self.graph.inputs.iter().any(|i| i.name == name);
        kernel.is_some_and(|k| self.scopes[k].kind == Kind::Kernel) && input && self.is_output(name)
    }

    /// Names that a scan defines for the block around it: its states and exports.
    fn defined_by(&self, body: &'a Block, scope: ScopeId) -> Vec<(String, Span)> {
        let mut out: Vec<(String, Span)> = Vec::new();
        for stmt in &body.stmts {
            let name = match &stmt.kind {
                StmtKind::State { name, .. } => name,
                StmtKind::Set { name, primed: false, .. } if !self.reads_input(scope, &name.name) => name,
                _ => continue,
            };
            if !out.iter().any(|o| o.0 == name.name) {
                out.push((name.name.clone(), name.span));
            }
        }
        out
    }
}
