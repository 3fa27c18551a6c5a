//! Functions that nobody calls are checked too. Axes and dtypes of their parameters are unknown, so a parameter stands for a value
//! whose errors have been told already: unknown names, wrong counts of arguments and the like are found, what depends on axes is not.

use super::scope::{Kind, ScopeId, SlotState};
use super::Elab;
use crate::base::{Diagnostic, Severity, SourceId};
use crate::syntax::ast::{FnDecl, StmtKind};

impl<'a> Elab<'a> {
    /// Checks the functions declared inside the kernel that have not been called.
    pub(super) fn check_uncalled(&mut self) {
        let first = self.root() + 1;
        let mut list: Vec<(ScopeId, &'a FnDecl)> = (first..self.scopes.len()).flat_map(|s| self.scopes[s].fns.values().map(move |f| (s, *f))).collect();
        list.sort_by_key(|(_, f)| f.name.span.start);
        for (scope, decl) in list {
            if decl.name.span.source == SourceId::User && !self.called.contains(&decl.name.span) {
                self.check_function(decl, scope);
            }
        }
    }

    /// Checks the body of a function declared in `scope`, as far as that goes without its arguments.
    pub(super) fn check_function(&mut self, decl: &'a FnDecl, scope: ScopeId) {
        self.called.insert(decl.name.span);
        let before = self.diags.len();
        let inner = self.new_scope(Some(scope), Kind::Function);
        for axis in &decl.axes {
            self.declare(inner, &axis.name, axis.span, SlotState::Poison);
        }
        for (param, default) in &decl.params {
            if let Some(e) = default {
                // What is wrong with it has been reported.
                let _ = self.expr(e, inner);
            }
            self.declare(inner, &param.name, param.span, SlotState::Poison);
        }
        self.declare_block(inner, &decl.body);
        self.run_block(inner, &decl.body);
        let returned = decl.body.stmts.iter().find_map(|s| if let StmtKind::Return(e) = &s.kind { Some(e) } else { None });
        match returned {
            Some(e) => {
                let _ = self.expr(e, inner);
            }
            None => {
                self.report(Diagnostic::error("A0703", format!("`{}` returns nothing", decl.name.name)).label(decl.name.span, "needs a `return`"));
            }
        }
        // Advice needs a caller to be about.
        let mut at = 0;
        self.diags.retain(|d| {
            at += 1;
            at <= before || d.severity == Severity::Error
        });
    }
}
