//! Runs the statements of a block in order, for their effects and errors.

use super::scope::{Kind, Lazy, ScopeId, SlotState};
use super::Elab;
use crate::base::Diagnostic;
use crate::syntax::ast::{Block, Stmt, StmtKind};

impl<'a> Elab<'a> {
    /// Elaborates what is left of a block, in order, for its effects and errors.
    pub(super) fn run_block(&mut self, scope: ScopeId, block: &'a Block) {
        for stmt in &block.stmts {
            match &stmt.kind {
                StmtKind::Axis(list) => {
                    for (name, _) in list {
                        let _ = self.force(scope, &name.name, name.span);
                    }
                }
                StmtKind::Let { name, .. } => {
                    let _ = self.force(scope, &name.name, name.span);
                }
                StmtKind::Set { name, primed, .. } => {
                    let plain = if *primed { format!("{}'", name.name) } else { name.name.clone() };
                    let hidden = format!("{} (output)", name.name);
                    let key = if !primed && self.scopes[scope].slots.contains_key(&hidden) { hidden } else { plain };
                    if self.scopes[scope].slots.contains_key(&key) {
                        let _ = self.force(scope, &key, name.span);
                    }
                }
                StmtKind::Scan { .. } | StmtKind::Repeat { .. } => self.run_scan(stmt, scope),
                StmtKind::Require(e) => self.require_stmt(e, scope),
                StmtKind::State { name, .. } if self.scopes[scope].kind != Kind::Step => {
                    let d = Diagnostic::error("A0603", "a state lives inside a scan").label(name.span, "declared here");
                    self.report(d.help("write `scan t { state S = .. }`"));
                }
                StmtKind::Return(e) if self.scopes[scope].kind != Kind::Function => {
                    let d = Diagnostic::error("A0703", "`return` belongs to a function").label(e.span, "returned here");
                    self.report(d.help("a kernel assigns its outputs: `o = ..`"));
                }
                StmtKind::Schedule(s) => self.schedule(s, scope),
                StmtKind::State { .. } | StmtKind::Return(_) | StmtKind::Fn(_) | StmtKind::Error => {}
            }
        }
    }

    fn run_scan(&mut self, stmt: &'a Stmt, scope: ScopeId) {
        let (StmtKind::Scan { body, .. } | StmtKind::Repeat { body, .. }) = &stmt.kind else { return };
        let mut bound = false;
        for inner in &body.stmts {
            let (StmtKind::State { name, .. } | StmtKind::Set { name, primed: false, .. }) = &inner.kind else { continue };
            let slot = self.scopes[scope].slots.get(&name.name).map(|s| (s.span, s.state.clone()));
            match slot {
                Some((_, SlotState::Lazy(Lazy::Scan(s)))) if std::ptr::eq(s, stmt) => {
                    let _ = self.force(scope, &name.name, name.span);
                    return;
                }
                // Already elaborated by an earlier use.
                Some((span, _)) if span == name.span => bound = true,
                _ => {}
            }
        }
        if !bound {
            self.scan_stmt(stmt, scope);
        }
    }
}
