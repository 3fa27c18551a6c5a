//! Kernels: header, requires, schedule, outputs.

use super::scope::{Kind, ScopeId, SlotState};
use super::{Elab, Poison, Res, Val};
use crate::base::{Diagnostic, Span};
use crate::graph::{Axis, AxisId, AxisSet, Extent, Fact, FactCmp, Hint, Input, InputId, Op, Output, Require};
use crate::ops::DType;
use crate::syntax::ast::{CmpOp, Expr, Ident, Kernel, Output as OutputSyntax, Param, Schedule, ScheduleEntry, StmtKind};

/// An output as the header declares it; `axes` are known once the body's axes are.
#[derive(Clone, Debug)]
pub(super) struct OutputDecl {
    pub name: String,
    pub dtype: DType,
    pub axes: Option<Vec<AxisId>>,
}

/// Words of a schedule that speak of an axis, and those that do not.
const AXIS_HINTS: &[&str] = &["tile", "chunk", "split", "unroll", "block"];
const PLAIN_HINTS: &[&str] = &["stages", "warps", "lanes", "threads", "vector"];
const TARGETS: &[&str] = &["ptx", "wgsl", "cpu"];

impl<'a> Elab<'a> {
    /// Elaborates the kernel into `self.graph`.
    pub(super) fn kernel(&mut self, kernel: &'a Kernel) {
        self.graph.name = kernel.name.name.clone();
        self.graph.doc = kernel.doc.clone();
        let root = self.root();
        let scope = self.new_scope(Some(root), Kind::Kernel);
        for output in &kernel.outputs {
            let dtype = output.ty.dtype.map_or(DType::Real, |d| super::expr::dtype_of(d.0));
            self.declared_outputs.push(OutputDecl { name: output.name.name.clone(), dtype, axes: None });
        }
        for param in &kernel.params {
            self.header_axes(param, scope);
        }
        for param in &kernel.params {
            self.header_input(param, scope);
        }
        let tied = self.tied_axes(kernel, scope);
        self.declare_block(scope, &kernel.body);
        self.tie(tied, scope);
        for stmt in &kernel.body.stmts {
            if let StmtKind::Axis(list) = &stmt.kind {
                for (name, _) in list {
                    let _ = self.force(scope, &name.name, name.span);
                }
            }
        }
        self.output_axes(kernel, scope);
        for (i, param) in kernel.params.iter().enumerate() {
            self.default_and_fact(i, param, scope);
        }
        // Requires come first: they are assumptions of the proofs that follow.
        for stmt in &kernel.body.stmts {
            if let StmtKind::Require(e) = &stmt.kind {
                self.require_stmt(e, scope);
            }
        }
        self.run_block(scope, &kernel.body);
        for output in &kernel.outputs {
            self.output(output);
        }
    }

    fn header_axes(&mut self, param: &'a Param, scope: ScopeId) {
        let mut seen: Vec<&str> = Vec::new();
        for axis in param.ty.axes.iter().flatten() {
            if seen.contains(&axis.name.as_str()) {
                self.report(
                    Diagnostic::error("A0306", format!("input `{}` has axis `{}` twice", param.name.name, axis.name))
                        .label(axis.span, "second time")
                        .help("two axes of equal length need two names: `require len(i) == len(j)`"),
                );
                continue;
            }
            seen.push(&axis.name);
            if !self.scopes[scope].slots.contains_key(&axis.name) {
                let id = self.graph.add_axis(Axis { name: axis.name.clone(), extent: Extent::Inputs, twin: None, split: None, span: axis.span });
                self.declare(scope, &axis.name, axis.span, SlotState::Axes(vec![id]));
            }
        }
    }

    fn header_input(&mut self, param: &'a Param, scope: ScopeId) {
        let dtype = param.ty.dtype.map_or(DType::Real, |d| super::expr::dtype_of(d.0));
        let mut axes: Vec<AxisId> = Vec::new();
        for axis in param.ty.axes.iter().flatten() {
            if let Some(SlotState::Axes(found)) = self.scopes[scope].slots.get(&axis.name).map(|s| &s.state)
                && !axes.contains(&found[0])
            {
                axes.push(found[0]);
            }
        }
        let id = InputId(self.graph.inputs.len() as u32);
        let name = &param.name;
        if let Some(d) = self.graph.inputs.iter().find(|i| i.name == name.name) {
            let first = d.span;
            self.report(
                Diagnostic::error("A0202", format!("input `{}` is declared twice", name.name))
                    .label(name.span, "second declaration")
                    .label(first, "first declaration"),
            );
        }
        self.graph.inputs.push(Input { name: name.name.clone(), dtype, axes, default: None, fact: None, span: param.span });
        if self.graph.inputs.iter().filter(|i| i.name == name.name).count() > 1 {
            return;
        }
        let state = match self.intern(Op::Input(id), name.span) {
            Ok(node) => SlotState::Val(Val::present(node)),
            Err(Poison) => SlotState::Poison,
        };
        self.declare(scope, &name.name, name.span, state);
    }

    fn default_and_fact(&mut self, index: usize, param: &'a Param, scope: ScopeId) {
        let Some(input) = self.graph.inputs.get(index) else { return };
        let (dtype, axes) = (input.dtype, input.axes.clone());
        let what = format!("`{}`", param.name.name);
        if let Some(e) = &param.default
            && let Ok(val) = self.expr(e, scope)
            && let Ok(node) = self.convert(val.node, dtype, e.span, &what)
        {
            let extra: Vec<AxisId> = self.graph.axes_of(node).iter().copied().filter(|a| !axes.contains(a)).collect();
            if extra.is_empty() {
                let _ = self.must_be_present(&val, &axes, &format!("the default of {what}"), "A0502", e.span);
                self.graph.inputs[index].default = Some(node);
            } else {
                let message = format!("the default of {what} varies over {}, which {what} has not", self.axes_text(extra));
                self.report(Diagnostic::error("A0803", message).label(e.span, "this default"));
            }
        }
        if let Some((cmp, e)) = &param.fact
            && let Ok(val) = self.expr(e, scope)
            && let Ok(node) = self.convert(val.node, dtype, e.span, &format!("the bound of {what}"))
        {
            if !self.graph.axes_of(node).is_empty() || !self.host_scalar(node) || dtype == DType::Bool || dtype == DType::Complex {
                self.report(
                    Diagnostic::error("A0806", format!("the bound of {what} must be a number that is known at the call")).label(e.span, "this bound"),
                );
                return;
            }
            let cmp = match cmp {
                CmpOp::Lt => FactCmp::Lt,
                CmpOp::Le => FactCmp::Le,
                CmpOp::Gt => FactCmp::Gt,
                CmpOp::Ge => FactCmp::Ge,
                CmpOp::Eq => FactCmp::Eq,
                CmpOp::Ne => FactCmp::Ne,
            };
            self.graph.inputs[index].fact = Some(Fact { cmp, bound: node });
        }
    }

    /// Axes of the header that the body declares again with an extent: the inputs' extent must equal it.
    fn tied_axes(&self, kernel: &'a Kernel, scope: ScopeId) -> Vec<(&'a Ident, &'a Expr)> {
        let mut tied = Vec::new();
        for stmt in &kernel.body.stmts {
            let StmtKind::Axis(list) = &stmt.kind else { continue };
            for (name, extent) in list {
                if matches!(self.scopes[scope].slots.get(&name.name).map(|s| &s.state), Some(SlotState::Axes(_))) {
                    tied.push((name, extent));
                }
            }
        }
        tied
    }

    fn tie(&mut self, tied: Vec<(&'a Ident, &'a Expr)>, scope: ScopeId) {
        for (name, e) in tied {
            let done = (|| -> Res<()> {
                let axis = self.axis_named(name, scope)?;
                let val = self.expr(e, scope)?;
                let extent = self.extent(axis, name.span)?;
                if self.graph.dtype(val.node) != DType::Int || !self.host_scalar(val.node) {
                    return Err(self.report(
                        Diagnostic::error("A0304", "an extent must be an int that is known at the call").label(e.span, "this extent"),
                    ));
                }
                let cond = self.map(crate::ops::ScalarOp::Eq, vec![extent, val.node], e.span)?;
                let text = format!("len({}) == {}", name.name, self.text(e.span));
                self.graph.requires.push(Require { cond, text, implicit: false, span: name.span.to(e.span) });
                Ok(())
            })();
            let _ = done;
        }
    }

    pub(super) fn require_stmt(&mut self, e: &'a Expr, scope: ScopeId) {
        if self.scopes[scope].kind != Kind::Kernel {
            self.report(Diagnostic::error("A0806", "`require` belongs to the body of a kernel").label(e.span, "stands elsewhere"));
            return;
        }
        if self.graph.requires.iter().any(|r| r.span == e.span) {
            return;
        }
        let Ok(val) = self.condition(e, scope, "a `require`") else { return };
        if !self.graph.axes_of(val.node).is_empty() || !self.host_scalar(val.node) {
            self.report(
                Diagnostic::error("A0806", "a `require` is checked at the call and may speak of sizes and scalar inputs only")
                    .label(e.span, "depends on elements of a tensor")
                    .help("facts about elements stand in the header: `x: [b,t] <= 0`"),
            );
            return;
        }
        if self.must_be_present(&val, &[], "a `require`", "A0502", e.span).is_err() {
            return;
        }
        let text = self.text(e.span);
        self.graph.requires.push(Require { cond: val.node, text, implicit: false, span: e.span });
    }

    pub(super) fn is_output(&self, name: &str) -> bool {
        self.declared_outputs.iter().any(|o| o.name == name)
    }

    pub(super) fn nearest_output(&self, name: &str) -> Option<String> {
        let near = self.declared_outputs.iter().map(|o| (strsim::jaro_winkler(name, &o.name), &o.name));
        near.filter(|n| n.0 > 0.7).max_by(|a, b| a.0.total_cmp(&b.0)).map(|n| n.1.clone())
    }

    /// Declared dtype and axes of an output.
    pub(super) fn output_type(&self, name: &str) -> Option<(DType, AxisSet)> {
        let o = self.declared_outputs.iter().find(|o| o.name == name)?;
        Some((o.dtype, o.axes.clone().unwrap_or_default().into_iter().collect()))
    }

    /// The last elaboration counts: rounds of a scan assign again.
    pub(super) fn assign_output(&mut self, name: &str, value: &Res, span: Span) {
        self.assigned.insert(name.to_string(), (value.clone(), span));
    }

    fn output_axes(&mut self, kernel: &'a Kernel, scope: ScopeId) {
        let mut names: Vec<&str> = Vec::new();
        for (i, output) in kernel.outputs.iter().enumerate() {
            if names.contains(&output.name.name.as_str()) {
                self.report(
                    Diagnostic::error("A0202", format!("output `{}` is declared twice", output.name.name)).label(output.name.span, "second declaration"),
                );
            }
            names.push(&output.name.name);
            let mut axes: Vec<AxisId> = Vec::new();
            let mut good = true;
            for axis in output.ty.axes.iter().flatten() {
                match self.axis_named(axis, scope) {
                    Ok(id) if axes.contains(&id) => {
                        self.report(
                            Diagnostic::error("A0306", format!("output `{}` has axis `{}` twice", output.name.name, axis.name))
                                .label(axis.span, "second time")
                                .help("declare a second axis of that extent: `axis s: T`"),
                        );
                        good = false;
                    }
                    Ok(id) => axes.push(id),
                    Err(Poison) => good = false,
                }
            }
            self.declared_outputs[i].axes = good.then_some(axes);
        }
    }

    fn output(&mut self, output: &'a OutputSyntax) {
        let name = &output.name.name;
        let Some(decl) = self.declared_outputs.iter().find(|o| o.name == *name).cloned() else { return };
        let Some((value, span)) = self.assigned.get(name).cloned() else {
            let mut d = Diagnostic::error("A0801", format!("output `{name}` is never assigned")).label(output.name.span, "declared here");
            d = d.help(format!("write `{name} = ..`"));
            self.report(d);
            return;
        };
        let (Ok(val), Some(axes)) = (value, decl.axes) else { return };
        let have = self.graph.axes_of(val.node).clone();
        let want: AxisSet = axes.iter().copied().collect();
        let extra: Vec<AxisId> = have.difference(&want).copied().collect();
        if !extra.is_empty() {
            let mut d = Diagnostic::error("A0803", format!("output `{name}` would have extra axes {}", self.axes_text(extra.clone())))
                .label(span, format!("this value has axes {}", self.axes_text(have.clone())))
                .label(output.span, "declared here");
            for axis in extra.iter().take(2) {
                let place = self.graph.axis(*axis).span;
                if place.source == span.source {
                    d = d.label(place, format!("`{}` comes from here", self.axis_name(*axis)));
                }
            }
            let twin = extra.iter().find_map(|e| want.iter().find(|w| self.origin(**w) == self.origin(*e)).map(|w| (*e, *w)));
            d = match twin {
                Some((e, w)) => d.help(format!(
                    "reduce over `{}`, or read a factor at `[{} = {}]`",
                    self.axis_name(e),
                    self.axis_name(e),
                    self.axis_name(w)
                )),
                None => d.help("reduce over them, read them at a position, or declare them on the output"),
            };
            self.report(d);
            return;
        }
        let missing: Vec<AxisId> = want.difference(&have).copied().collect();
        if !missing.is_empty() && self.as_const(val.node).is_none() {
            let text = self.axes_text(missing.clone());
            let inner = text.trim_matches(['[', ']']).to_string();
            self.report(
                Diagnostic::error("A0804", format!("output `{name}` lacks axes {text}"))
                    .label(span, format!("this value has axes {}", self.axes_text(have)))
                    .label(output.span, "declared here")
                    .help(format!("if it is the same for all of them write `expand[{inner}](..)`")),
            );
            return;
        }
        let Ok(node) = self.convert(val.node, decl.dtype, span, &format!("output `{name}`")) else { return };
        if self.must_be_present(&val, &axes, &format!("output `{name}`"), "A0501", span).is_err() {
            return;
        }
        self.give_name(node, name);
        self.graph.outputs.push(Output { name: name.clone(), dtype: decl.dtype, axes, node, span: output.span });
    }

    pub(super) fn schedule(&mut self, schedule: &'a Schedule, scope: ScopeId) {
        if self.scopes[scope].kind != Kind::Kernel {
            self.report(Diagnostic::error("A0807", "a schedule stands at the end of a kernel").label(schedule.span, "stands elsewhere"));
            return;
        }
        self.schedule_entries(schedule, None, scope);
    }

    fn schedule_entries(&mut self, schedule: &'a Schedule, target: Option<&str>, scope: ScopeId) {
        for entry in &schedule.entries {
            let Some(word) = entry.words.first() else { continue };
            if let Some(nested) = &entry.nested {
                self.target_block(entry, word, nested, target, scope);
                continue;
            }
            let axis_kind = AXIS_HINTS.contains(&word.name.as_str());
            if !axis_kind && !PLAIN_HINTS.contains(&word.name.as_str()) {
                let all = AXIS_HINTS.iter().chain(PLAIN_HINTS).chain(&["target"]);
                let near = all.clone().map(|k| (strsim::jaro_winkler(&word.name, k), *k)).max_by(|a, b| a.0.total_cmp(&b.0));
                let d = Diagnostic::error("A0807", format!("a schedule has no word `{}`", word.name)).label(word.span, "unknown word");
                let d = match near.filter(|n| n.0 > 0.7) {
                    Some((_, near)) => d.help(format!("did you mean `{near}`?")),
                    None => d.help(format!("words: {}", all.copied().collect::<Vec<_>>().join(", "))),
                };
                self.report(d);
                continue;
            }
            let want = if axis_kind { 2 } else { 1 };
            let [value] = entry.numbers[..] else {
                self.report(Diagnostic::error("A0807", format!("`{}` needs one number", word.name)).label(entry.span, "this entry"));
                continue;
            };
            if entry.words.len() != want || value <= 0 {
                let form = if axis_kind { format!("{} t 128", word.name) } else { format!("{} 3", word.name) };
                self.report(Diagnostic::error("A0807", format!("an entry of a schedule is written `{form}`")).label(entry.span, "this entry"));
                continue;
            }
            let axis = match entry.words.get(1) {
                None => None,
                Some(name) => match self.axis_named(name, scope) {
                    Ok(axis) => Some(axis),
                    Err(Poison) => continue,
                },
            };
            let hint = Hint { kind: word.name.clone(), axis, value, target: target.map(str::to_string), span: entry.span };
            self.graph.hints.push(hint);
        }
    }

    fn target_block(&mut self, entry: &'a ScheduleEntry, word: &Ident, nested: &'a Schedule, target: Option<&str>, scope: ScopeId) {
        let name = entry.words.get(1);
        let fits = word.name == "target" && target.is_none() && name.is_some_and(|n| TARGETS.contains(&n.name.as_str()));
        match name {
            Some(name) if fits => self.schedule_entries(nested, Some(&name.name), scope),
            _ => {
                self.report(
                    Diagnostic::error("A0807", "a block in a schedule is written `target ptx { .. }`")
                        .label(entry.span, "this block")
                        .help(format!("targets: {}", TARGETS.join(", "))),
                );
            }
        }
    }
}
