//! Scans and `repeat`. The step is elaborated with assumed axes of its states (and of the exports that it reads at other
//! positions); when the new values turn out to have more, it is elaborated again. Dead rounds are removed by `cleanup`.

use super::earlier::Earlier;
use super::scope::{Found, Kind, Lazy, ScopeId, SlotState};
use super::{Elab, Guard, Poison, Res, Val};
use crate::base::{Diagnostic, Severity, Span};
use crate::graph::{Axis, AxisId, AxisSet, Extent, NodeId, Op, Scan, ScanId, State};
use crate::ops::{DType, ScalarOp};
use crate::syntax::ast::{Block, Expr, ExprKind, Ident, Stmt, StmtKind, Type};
use std::collections::{BTreeMap, HashMap};

/// Rounds until axes and dtypes must have settled.
const MAX_ROUNDS: usize = 90;

/// What the first line of a scan says.
struct Header<'a> {
    axis: AxisId,
    reverse: bool,
    cond: Option<&'a Expr>,
    until: Option<&'a Expr>,
    repeat: bool,
    span: Span,
}

/// A state before the rounds.
struct StateDecl<'a> {
    name: &'a Ident,
    dtype: DType,
    init: NodeId,
    declared: Vec<AxisId>,
}

/// What one round produced.
struct Round {
    nexts: Vec<Res<NodeId>>,
    exports: Vec<(String, Span, Res)>,
}

impl<'a> Elab<'a> {
    /// Elaborates a scan and binds its states and exports in `scope`; on errors they are bound to poison.
    pub(super) fn scan_stmt(&mut self, stmt: &'a Stmt, scope: ScopeId) {
        let (StmtKind::Scan { body, .. } | StmtKind::Repeat { body, .. }) = &stmt.kind else { return };
        let mut names: Vec<&'a Ident> = Vec::new();
        for inner in &body.stmts {
            match &inner.kind {
                StmtKind::State { name, .. } | StmtKind::Set { name, primed: false, .. } => names.push(name),
                _ => {}
            }
        }
        for name in &names {
            let mine = self.scopes[scope]
                .slots
                .get(&name.name)
                .is_some_and(|s| matches!(s.state, SlotState::Lazy(Lazy::Scan(s)) if std::ptr::eq(s, stmt)) || matches!(s.state, SlotState::Busy));
            if mine {
                self.set_slot(scope, &name.name, SlotState::Busy);
            }
        }
        let results = self.header(stmt, scope).and_then(|h| self.scan(&h, body, scope));
        let results: HashMap<String, Res> = results.map(|r| r.into_iter().collect()).unwrap_or_default();
        for name in names {
            let value = results.get(&name.name).cloned().unwrap_or(Err(Poison));
            let export = self.is_kernel_scope(scope) && self.is_output(&name.name);
            if export {
                self.assign_output(&name.name, &value, name.span);
            }
            if matches!(self.scopes[scope].slots.get(&name.name).map(|s| &s.state), Some(SlotState::Busy)) {
                let state = match value {
                    Ok(v) => SlotState::Val(v),
                    Err(Poison) => SlotState::Poison,
                };
                self.set_slot(scope, &name.name, state);
            }
        }
    }

    /// Whether the scope belongs to the kernel itself, not to an inlined function.
    pub(super) fn is_kernel_scope(&self, scope: ScopeId) -> bool {
        let outer = self.chain(scope).into_iter().find(|s| self.scopes[*s].kind != Kind::Step);
        outer.is_some_and(|s| self.scopes[s].kind == Kind::Kernel)
    }

    fn header(&mut self, stmt: &'a Stmt, scope: ScopeId) -> Res<Header<'a>> {
        match &stmt.kind {
            StmtKind::Scan { axis, reverse, cond, .. } => {
                let id = self.axis_named(axis, scope)?;
                if self.open_scan(id).is_some() {
                    return Err(self.report(
                        Diagnostic::error("A0307", format!("`{}` is the axis of a scan around this one", axis.name)).label(axis.span, "scanned again"),
                    ));
                }
                Ok(Header { axis: id, reverse: *reverse, cond: cond.as_ref(), until: None, repeat: false, span: stmt.span })
            }
            StmtKind::Repeat { count, until, .. } => {
                let n = self.expr(count, scope)?;
                let fits = self.graph.dtype(n.node) == DType::Int && self.host_scalar(n.node) && n.conds.is_empty();
                if !fits {
                    return Err(self.report(
                        Diagnostic::error("A0304", "the number of rounds must be an int that is known at the call")
                            .label(count.span, "depends on more than sizes and int parameters")
                            .help("bound it and stop early: `repeat n until cond { .. }`"),
                    ));
                }
                let known = (0..self.graph.axes.len() as u32).map(AxisId).find(|a| self.graph.axis(*a).span == stmt.span && self.graph.axis(*a).extent == Extent::Value(n.node));
                let axis = match known {
                    Some(axis) => axis,
                    None => {
                        self.graph.add_axis(Axis { name: "round".to_string(), extent: Extent::Value(n.node), twin: None, split: None, span: stmt.span })
                    }
                };
                Ok(Header { axis, reverse: false, cond: None, until: until.as_ref(), repeat: true, span: stmt.span })
            }
            _ => Err(Poison),
        }
    }

    fn state_decl(&mut self, name: &'a Ident, ty: Option<&'a Type>, init: &'a Expr, axis: AxisId, scope: ScopeId) -> Res<StateDecl<'a>> {
        let val = self.expr(init, scope)?;
        self.must_be_present(&val, &[], &format!("the initial value of `{}`", name.name), "A0502", init.span)?;
        let dtype = match ty.and_then(|t| t.dtype) {
            Some((word, _)) => super::expr::dtype_of(word),
            None => match self.graph.dtype(val.node) {
                DType::Int | DType::Real => DType::Real,
                other => other,
            },
        };
        let node = self.convert(val.node, dtype, init.span, &format!("state `{}`", name.name))?;
        let mut declared = Vec::new();
        for axis in ty.and_then(|t| t.axes.as_ref()).into_iter().flatten() {
            declared.push(self.axis_named(axis, scope)?);
        }
        if declared.contains(&axis) || self.graph.axes_of(node).contains(&axis) {
            let text = self.axis_name(axis).to_string();
            return Err(self.report(
                Diagnostic::error("A0606", format!("state `{}` cannot vary over `{text}`, the axis of its scan", name.name))
                    .label(init.span, format!("the initial value is one for all `{text}`"))
                    .help("values that exist for every step are read inside the step, not kept in a state"),
            ));
        }
        Ok(StateDecl { name, dtype, init: node, declared })
    }

    /// All rounds. Results: states (final values) and exports.
    fn scan(&mut self, h: &Header<'a>, body: &'a Block, scope: ScopeId) -> Res<Vec<(String, Res)>> {
        let mut decls = Vec::new();
        let mut failed = false;
        for stmt in &body.stmts {
            if let StmtKind::State { name, ty, init } = &stmt.kind {
                match self.state_decl(name, ty.as_ref(), init, h.axis, scope) {
                    Ok(d) => decls.push(d),
                    Err(Poison) => failed = true,
                }
            }
        }
        if failed {
            return Err(Poison);
        }
        let mut axes: Vec<AxisSet> = decls
            .iter()
            .map(|d| self.graph.axes_of(d.init).iter().copied().chain(d.declared.iter().copied()).collect())
            .collect();
        if h.until.is_some() {
            axes.push(AxisSet::new());
        }
        let mut plan: BTreeMap<String, Earlier> = BTreeMap::new();
        let mut first_faults: Option<Vec<Diagnostic>> = None;
        let mut guess = 0usize;
        for _ in 0..MAX_ROUNDS {
            let mark = self.diags.len();
            let id = self.begin_scan(h, &decls, &axes)?;
            self.histories.insert(id, plan.iter().map(|(k, v)| (k.clone(), v.clone())).collect());
            self.open.push(id);
            let step = self.new_scope(Some(scope), Kind::Step);
            self.rounds.push((step, Vec::new()));
            let round = self.step(h, id, step, body, &decls);
            self.open.pop();
            let kept = self.rounds.pop().map(|r| r.1).unwrap_or_default();
            let used = self.histories.remove(&id).unwrap_or_default();
            let faulty = self.diags[mark..].iter().any(|d| d.severity == Severity::Error);
            // Axes that new values have beyond the assumed ones.
            let mut grew = false;
            for (i, next) in round.nexts.iter().enumerate() {
                if let Ok(next) = next {
                    let more: Vec<AxisId> = self.graph.axes_of(*next).iter().copied().filter(|a| *a != h.axis && !axes[i].contains(a)).collect();
                    grew |= !more.is_empty();
                    axes[i].extend(more);
                }
            }
            let mut observed = plan.clone();
            let mut unknown: Vec<String> = Vec::new();
            for (name, earlier) in &used {
                match round.exports.iter().find(|e| e.0 == *name).map(|e| &e.2) {
                    Some(Ok(value)) => {
                        let seen = self.observe(value);
                        grew |= (seen.dtype, &seen.axes, &seen.cond) != (earlier.dtype, &earlier.axes, &earlier.cond);
                        observed.insert(name.clone(), seen);
                    }
                    _ => unknown.push(name.clone()),
                }
            }
            if !faulty && !grew && unknown.is_empty() {
                return self.finish_scan(h, id, &decls, round, &used, &axes);
            }
            let retry = if faulty && !grew {
                if first_faults.is_none() {
                    first_faults = Some(self.diags[mark..].to_vec());
                }
                guess += 1;
                Self::guessed(&mut plan, &used, guess)
            } else {
                plan = observed;
                true
            };
            if !retry {
                self.diags.truncate(mark);
                self.diags.extend(first_faults.unwrap_or_default());
                return Err(Poison);
            }
            self.diags.truncate(mark);
            for d in kept {
                if !self.diags.contains(&d) {
                    self.diags.push(d);
                }
            }
        }
        match first_faults {
            Some(faults) => self.diags.extend(faults),
            None => {
                let d = Diagnostic::error("A0605", "the axes of the states of this scan do not settle")
                    .label(h.span, "this scan")
                    .help("declare the axes of the states: `state S: [d,e] = ..`");
                self.report(d);
            }
        }
        Err(Poison)
    }

    /// The next combination of dtypes for exports whose own dtype could not be observed. False when there is none.
    fn guessed(plan: &mut BTreeMap<String, Earlier>, used: &HashMap<String, Earlier>, guess: usize) -> bool {
        const CHOICES: [DType; 4] = [DType::Real, DType::Int, DType::Bool, DType::Complex];
        let mut names: Vec<&String> = used.iter().filter(|(_, e)| !e.known).map(|(n, _)| n).collect();
        names.sort();
        names.truncate(3);
        if names.is_empty() || guess >= CHOICES.len().pow(names.len() as u32) {
            return false;
        }
        // All alike first, then the mixed ones.
        let digits: Vec<usize> = if guess < CHOICES.len() {
            vec![guess; names.len()]
        } else {
            (0..names.len()).map(|i| guess / CHOICES.len().pow(i as u32) % CHOICES.len()).collect()
        };
        for (name, digit) in names.into_iter().zip(digits) {
            let mut entry = used[name].clone();
            (entry.leaf, entry.cond_leaf, entry.dtype) = (None, None, CHOICES[digit]);
            plan.insert(name.clone(), entry);
        }
        true
    }

    /// The record of a scan with leaves for its states.
    fn begin_scan(&mut self, h: &Header<'a>, decls: &[StateDecl<'a>], axes: &[AxisSet]) -> Res<ScanId> {
        let id = ScanId(self.graph.scans.len() as u32);
        let parent = self.open.last().copied();
        self.graph.scans.push(Scan { axis: h.axis, reverse: h.reverse, parent, derived: false, states: Vec::new(), history: Vec::new(), exports: Vec::new(), span: h.span });
        for (i, own) in axes.iter().enumerate() {
            let (name, dtype, init, declared, span) = match decls.get(i) {
                Some(d) => (d.name.name.clone(), d.dtype, d.init, d.declared.clone(), d.name.span),
                None => ("done".to_string(), DType::Bool, self.boolean(false, h.span)?, Vec::new(), h.span),
            };
            let mut node_axes = own.clone();
            node_axes.insert(h.axis);
            let old = self.leaf(Op::State { scan: id, index: i as u32 }, dtype, node_axes, span)?;
            self.graph.dag[old.0].name = Some(name.clone());
            self.graph.scans[id.index()].states.push(State { name, dtype, axes: own.clone(), declared, init, old, next: old });
        }
        Ok(id)
    }

    /// Elaborates the step once.
    fn step(&mut self, h: &Header<'a>, id: ScanId, step: ScopeId, body: &'a Block, decls: &[StateDecl<'a>]) -> Round {
        for (i, d) in decls.iter().enumerate() {
            let old = self.graph.scans[id.index()].states[i].old;
            self.declare_in(step, &d.name.name, d.name.span, SlotState::Val(Val::present(old)), true);
        }
        self.declare_block(step, body);
        let mut cond = None;
        if let Some(e) = h.cond
            && let Ok(m) = self.condition(e, step, "the condition of a scan")
            && let Ok(clause) = self.clause(&m, e.span)
        {
            cond = Some(clause);
            let guard = Guard { cond: Some(clause), negated: false, arm: false };
            self.scopes[step].guards.push(guard);
        }
        self.run_block(step, body);
        let mut nexts = Vec::new();
        for d in decls {
            nexts.push(self.next_value(d, step, h.span).map(|v| v.node));
        }
        if let Some(cond) = cond {
            for (i, next) in nexts.iter_mut().enumerate() {
                let old = self.graph.scans[id.index()].states[i].old;
                *next = (*next).and_then(|n| self.select(cond, n, old, h.span));
            }
        }
        if let Some(until) = h.until {
            let done = self.graph.scans[id.index()].states[decls.len()].old;
            let stop = self.condition(until, step, "the condition of `until`").and_then(|m| self.clause(&m, until.span));
            for (i, next) in nexts.iter_mut().enumerate() {
                let old = self.graph.scans[id.index()].states[i].old;
                *next = (*next).and_then(|n| self.select(done, old, n, h.span));
            }
            nexts.push(stop.and_then(|s| self.map(ScalarOp::Or, vec![done, s], h.span)));
        }
        let mut exports = Vec::new();
        for stmt in &body.stmts {
            let StmtKind::Set { name, primed: false, value } = &stmt.kind else { continue };
            if h.repeat {
                let d = Diagnostic::error("A0604", "`repeat` cannot export: its rounds have no axis")
                    .label(name.span, "exported here")
                    .help("keep the value in a state, or use `scan` over a declared axis");
                self.report(d);
                continue;
            }
            let hidden = format!("{} (output)", name.name);
            let key = if self.scopes[step].slots.contains_key(&hidden) { hidden } else { name.name.clone() };
            let found = self.force(step, &key, name.span);
            let export = match found {
                Ok(Found::Val(v)) => self.export(v, h.axis, cond, value.span),
                Ok(Found::Axes(_)) | Err(Poison) => Err(Poison),
            };
            exports.push((name.name.clone(), name.span, export));
        }
        Round { nexts, exports }
    }

    /// An export has the axis of the scan and is absent at skipped steps.
    fn export(&mut self, val: Val, axis: AxisId, cond: Option<NodeId>, span: Span) -> Res {
        let node = if self.graph.axes_of(val.node).contains(&axis) {
            val.node
        } else {
            self.intern(Op::Expand { value: val.node, axes: vec![axis] }, span)?
        };
        let mut conds = val.conds;
        if let Some(cond) = cond {
            self.add_cond(&mut conds, cond);
        }
        Ok(Val { node, conds })
    }

    fn next_value(&mut self, d: &StateDecl<'a>, step: ScopeId, span: Span) -> Res {
        let key = format!("{}'", d.name.name);
        if !self.scopes[step].slots.contains_key(&key) {
            return Err(self.report(
                Diagnostic::error("A0601", format!("state `{}` is never advanced", d.name.name))
                    .label(d.name.span, "declared here")
                    .help(format!("write `{key} = ..`; a value that does not change is a `let`")),
            ));
        }
        match self.force(step, &key, span)? {
            Found::Val(v) => Ok(v),
            Found::Axes(_) => Err(Poison),
        }
    }

    /// `S' = e`, or an export, or an output of the kernel.
    pub(super) fn set_value(&mut self, name: &'a Ident, primed: bool, value: &'a Expr, scope: ScopeId) -> Res {
        if !primed {
            if self.scopes[scope].kind == Kind::Step {
                self.old_state_exported(value, scope);
            }
            let result = self.expr(value, scope);
            if self.scopes[scope].kind == Kind::Kernel {
                self.assign_output(&name.name, &result, name.span);
            }
            if let Ok(v) = &result {
                self.give_name(v.node, &name.name);
            }
            return result;
        }
        let Some(SlotState::Val(old)) = self.scopes[scope].slots.get(&name.name).map(|s| s.state.clone()) else {
            let mut d = Diagnostic::error("A0603", format!("this scan has no state `{}`", name.name))
                .label(name.span, "advanced here")
                .help(format!("declare it: `state {} = ..`", name.name));
            if let Some(near) = self.nearest(&name.name, scope, false) {
                d = d.help(format!("or did you mean `{near}`?"));
            }
            return Err(self.report(d));
        };
        // Skipped steps keep the old value, so conditions implied by the scan's own clause hold here.
        let clause = self.scopes[scope].guards.last().copied().filter(|g| !g.arm && self.scan_has_clause(scope));
        let val = match clause {
            Some(guard) => self.guarded(Guard { arm: true, ..guard }, |s| s.expr(value, scope)),
            None => self.expr(value, scope),
        }?;
        let (dtype, axes) = (self.graph.dtype(old.node), self.graph.axes_of(old.node).iter().copied().collect::<Vec<_>>());
        self.must_be_present(&val, &axes, &format!("the new value of state `{}`", name.name), "A0502", value.span)?;
        let node = self.convert(val.node, dtype, value.span, &format!("state `{}`", name.name))?;
        self.give_name(node, &format!("{}'", name.name));
        Ok(Val::present(node))
    }

    /// Warns about a state read without its prime in an export: the one slip that no type can see.
    fn old_state_exported(&mut self, value: &'a Expr, scope: ScopeId) {
        // The bare state says what is meant.
        if matches!(&*value.kind, ExprKind::Name { .. }) {
            return;
        }
        let mut names = Vec::new();
        names_in(value, &mut names);
        for (name, primed, span) in &names {
            let state = match self.scopes[scope].slots.get(*name).map(|s| &s.state) {
                // A `let` of the old value shares its node, but not its name.
                Some(SlotState::Val(v)) => match self.graph.op(v.node) {
                    Op::State { scan, index } => {
                        self.scopes[scope].open.last() == Some(scan) && self.graph.scans[scan.index()].states[*index as usize].name == *name
                    }
                    _ => false,
                },
                _ => false,
            };
            if state && !primed && !names.iter().any(|(n, p, _)| n == name && *p) {
                let d = Diagnostic::warning("A0903", format!("this result reads `{name}` as it was before the step"))
                    .label(*span, "the old value")
                    .help(format!("the new value is `{name}'`; if the old one is meant write `let before = {name}` and use that"));
                self.report(d);
                return;
            }
        }
    }

    /// Whether the innermost step has more guards than its surroundings: the clause of its scan.
    fn scan_has_clause(&self, scope: ScopeId) -> bool {
        let outer = self.scopes[scope].parent.map_or(0, |p| self.scopes[p].guards.len());
        self.scopes[scope].guards.len() > outer
    }

    /// Fills the record and makes the results.
    fn finish_scan(
        &mut self,
        h: &Header<'a>,
        id: ScanId,
        decls: &[StateDecl<'a>],
        round: Round,
        used: &HashMap<String, Earlier>,
        axes: &[AxisSet],
    ) -> Res<Vec<(String, Res)>> {
        for (i, next) in round.nexts.iter().enumerate() {
            self.graph.scans[id.index()].states[i].next = (*next)?;
            self.graph.scans[id.index()].states[i].axes = axes[i].clone();
        }
        for (name, earlier) in used {
            let Some((_, span, Ok(value))) = round.exports.iter().find(|e| e.0 == *name) else { continue };
            self.patch_history(id, earlier.leaf, value.node);
            if earlier.cond_leaf.is_some() {
                let all = self.all_of(&value.conds, *span)?;
                let all = match all {
                    Some(a) => a,
                    None => self.boolean(true, *span)?,
                };
                let full = self.export(Val::present(all), h.axis, None, *span)?;
                self.patch_history(id, earlier.cond_leaf, full.node);
            }
        }
        for (_, _, value) in &round.exports {
            if let Ok(value) = value
                && !self.graph.scans[id.index()].exports.contains(&value.node)
            {
                self.graph.scans[id.index()].exports.push(value.node);
            }
        }
        let mut out: Vec<(String, Res)> = Vec::new();
        for (i, d) in decls.iter().enumerate() {
            let last = self.intern(Op::Final { scan: id, index: i as u32 }, d.name.span)?;
            out.push((d.name.name.clone(), Ok(Val::present(last))));
        }
        out.extend(round.exports.into_iter().map(|(name, _, v)| (name, v)));
        Ok(out)
    }
}

/// Names in an expression, with their primes.
fn names_in<'a>(e: &'a Expr, out: &mut Vec<(&'a str, bool, Span)>) {
    match &*e.kind {
        ExprKind::Name { name, primed } => out.push((name, *primed, e.span)),
        ExprKind::Int(_) | ExprKind::Real(_) | ExprKind::True | ExprKind::False | ExprKind::Inf | ExprKind::Error => {}
        ExprKind::Paren(x) | ExprKind::Unary(_, x) => names_in(x, out),
        ExprKind::Binary(_, a, b) | ExprKind::Where(a, b) | ExprKind::Coalesce(a, b) => {
            names_in(a, out);
            names_in(b, out);
        }
        ExprKind::Compare(a, rest) => {
            names_in(a, out);
            rest.iter().for_each(|r| names_in(&r.1, out));
        }
        ExprKind::If { cond, then, other } => [cond, then, other].into_iter().for_each(|x| names_in(x, out)),
        ExprKind::Read { base, subs } => {
            names_in(base, out);
            subs.iter().for_each(|s| names_in(&s.1, out));
        }
        ExprKind::Call { args, .. } => args.iter().for_each(|a| names_in(a, out)),
        ExprKind::Reduce { body, cond, .. } => {
            names_in(body, out);
            cond.iter().for_each(|c| names_in(c, out));
        }
    }
}
