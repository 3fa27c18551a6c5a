//! Checks a program and builds its graph in one walk: names, axes, dtypes and presence are settled while each expression is
//! elaborated, functions are inlined, and presence becomes Bool nodes (masks). Knows nothing about how a graph is computed.
//!
//! Files: `scope` names and laziness, `nodes` hash-consed construction, `expr` expressions, `reads` index substitution,
//! `reduce` and `order` the operators over axes, `presence` conditions, `scans` recurrences
//! (`earlier`: reads of their own results), `block` statements, `calls` inlining and builtins (`uncalled`: functions that nobody calls),
//! `grad` differentiation, `kernel` headers, outputs and schedules, `facts` range proofs, `cleanup` removal of dead nodes,
//! `errors` long explanations of the codes.

mod block;
mod calls;
mod cleanup;
mod earlier;
pub mod errors;
mod expr;
mod facts;
mod grad;
mod kernel;
mod nodes;
mod order;
mod presence;
mod reads;
mod reduce;
mod scans;
mod scope;
mod uncalled;
#[cfg(test)]
mod tests;

use crate::base::{Diagnostic, Severity, SourceId, Span};
use crate::graph::{AxisId, Graph, NodeId, ScanId};
use crate::syntax::ast::{self, File, FnDecl, Item};
use scope::{Scope, ScopeId};
use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

/// Source of the functions every program can call, written in the language.
pub const PRELUDE: &str = include_str!("../prelude.attn");

/// What checking found: a graph per kernel without errors, in order of appearance, and all diagnostics.
#[derive(Debug, Default)]
pub struct Checked {
    pub graphs: Vec<Graph>,
    pub diagnostics: Vec<Diagnostic>,
}

impl Checked {
    /// Whether any diagnostic is an error.
    pub fn failed(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }
}

/// Marker of a value whose error has been reported already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Poison;

type Res<T = Val> = Result<T, Poison>;

/// A value and the conditions under which its elements are present (all must hold; each is a Bool node).
#[derive(Clone, Debug)]
pub(crate) struct Val {
    pub node: NodeId,
    pub conds: Vec<NodeId>,
}

impl Val {
    fn present(node: NodeId) -> Val {
        Val { node, conds: Vec::new() }
    }
}

/// A condition under which the expression being elaborated is used at all.
#[derive(Clone, Copy, Debug)]
struct Guard {
    /// `None` is the left side of `??`: anything may be absent.
    cond: Option<NodeId>,
    negated: bool,
    /// An arm of `if` (never used elsewhere); otherwise a `where`, whose removal by a reduction must be respected.
    arm: bool,
}

/// Elaborates one kernel.
struct Elab<'a> {
    source: &'a str,
    graph: Graph,
    memo: HashMap<Vec<u64>, NodeId>,
    diags: Vec<Diagnostic>,
    scopes: Vec<Scope<'a>>,
    /// Functions being inlined, innermost last: declaration, name and place of the call.
    calls: Vec<(&'a FnDecl, Span)>,
    guards: Vec<Guard>,
    /// Scans whose steps are being elaborated, innermost last.
    open: Vec<ScanId>,
    /// What earlier rounds found out about exports that a step reads at other positions.
    histories: HashMap<ScanId, HashMap<String, earlier::Earlier>>,
    /// Rounds of scans being elaborated: the step's scope, and diagnostics of outer slots that were first needed there.
    rounds: Vec<(ScopeId, Vec<Diagnostic>)>,
    /// Named values that stand for a variable of differentiation: slot and replacement.
    overrides: Vec<((ScopeId, String), Val)>,
    /// Axes declared by `axis s: T`: pairs that a forgotten renaming mixes up.
    renamed: Vec<(AxisId, AxisId)>,
    /// Values given to outputs (poison when they failed) and where.
    assigned: HashMap<String, (Res, Span)>,
    /// Declared outputs: name, dtype, axes.
    declared_outputs: Vec<kernel::OutputDecl>,
    /// Where a condition comes from: a read or a `where`, for messages.
    cond_spans: HashMap<NodeId, Span>,
    extents_known: HashMap<AxisId, NodeId>,
    /// Conditions `slot < number of members` of `list` and `argsort`.
    slot_conds: Vec<NodeId>,
    too_large: bool,
    /// Calls inlined so far.
    inlined: usize,
    /// Functions that were called, by where they are declared.
    called: HashSet<Span>,
    leaves: u32,
}

/// Checks `source` and builds the graph of each kernel.
///
/// Never panics and reports several errors per run. Works on a thread with a large stack: elaboration recurses over expressions
/// and inlined functions, both of bounded depth.
pub fn check(source: &str) -> Checked {
    let outcome = std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().name("check".to_string()).stack_size(256 << 20).spawn_scoped(scope, || run(source));
        match worker {
            Ok(handle) => handle.join().ok(),
            Err(_) => None,
        }
    });
    outcome.unwrap_or_else(|| Checked {
        graphs: Vec::new(),
        diagnostics: vec![Diagnostic::error("A0001", "the checker failed on this program; this is a defect of attnc")],
    })
}

fn prelude() -> &'static (File, Vec<Diagnostic>) {
    static FILE: OnceLock<(File, Vec<Diagnostic>)> = OnceLock::new();
    FILE.get_or_init(|| crate::syntax::parse(PRELUDE, SourceId::Prelude))
}

fn run(source: &str) -> Checked {
    let (file, diagnostics) = crate::syntax::parse(source, SourceId::User);
    let mut out = Checked { graphs: Vec::new(), diagnostics };
    let (library, library_faults) = prelude();
    out.diagnostics.extend(library_faults.iter().cloned());
    let mut functions: HashMap<String, &FnDecl> = HashMap::new();
    let mut seen: HashMap<&str, Span> = HashMap::new();
    for item in &file.items {
        let name = match item {
            Item::Fn(f) => {
                if calls::is_builtin(&f.name.name) {
                    out.diagnostics.push(
                        Diagnostic::error("A0205", format!("`{}` is built in and cannot be defined again", f.name.name))
                            .label(f.name.span, "defined here")
                            .help("choose another name"),
                    );
                }
                functions.insert(f.name.name.clone(), f);
                &f.name
            }
            Item::Kernel(k) => &k.name,
            Item::Error(_) => continue,
        };
        if let Some(first) = seen.insert(&name.name, name.span) {
            out.diagnostics.push(
                Diagnostic::error("A0202", format!("`{}` is defined twice", name.name))
                    .label(name.span, "second definition")
                    .label(first, "first definition"),
            );
        }
    }
    let library_functions: HashMap<String, &FnDecl> = functions_of(library);
    let mut called: HashSet<Span> = HashSet::new();
    for item in &file.items {
        let Item::Kernel(kernel) = item else { continue };
        let mut elab = Elab::new(source, &library_functions, &functions);
        elab.kernel(kernel);
        elab.check_uncalled();
        called.extend(&elab.called);
        let failed = elab.diags.iter().any(|d| d.severity == Severity::Error);
        let broken = out.diagnostics.iter().any(|d| d.severity == Severity::Error && covers(kernel, d));
        if !failed && !broken {
            out.graphs.push(cleanup::live(elab.graph));
        }
        for d in elab.diags {
            if !out.diagnostics.contains(&d) {
                out.diagnostics.push(d);
            }
        }
    }
    let mut elab = Elab::new(source, &library_functions, &functions);
    for item in &file.items {
        if let Item::Fn(f) = item
            && !called.contains(&f.name.span)
        {
            elab.check_function(f, elab.root());
        }
    }
    out.diagnostics.extend(elab.diags);
    out
}

/// Whether an earlier diagnostic (of the parser) lies inside the kernel.
fn covers(kernel: &ast::Kernel, d: &Diagnostic) -> bool {
    d.labels.first().is_none_or(|l| l.span.start >= kernel.span.start && l.span.start <= kernel.span.end)
}

fn functions_of(file: &File) -> HashMap<String, &FnDecl> {
    let functions = file.items.iter().filter_map(|item| match item {
        Item::Fn(f) => Some((f.name.name.clone(), f)),
        Item::Kernel(_) | Item::Error(_) => None,
    });
    functions.collect()
}

impl<'a> Elab<'a> {
    fn new(source: &'a str, library: &HashMap<String, &'a FnDecl>, functions: &HashMap<String, &'a FnDecl>) -> Elab<'a> {
        let mut elab = Elab {
            source,
            graph: Graph::default(),
            memo: HashMap::new(),
            diags: Vec::new(),
            scopes: Vec::new(),
            calls: Vec::new(),
            guards: Vec::new(),
            open: Vec::new(),
            histories: HashMap::new(),
            rounds: Vec::new(),
            overrides: Vec::new(),
            renamed: Vec::new(),
            assigned: HashMap::new(),
            declared_outputs: Vec::new(),
            cond_spans: HashMap::new(),
            extents_known: HashMap::new(),
            slot_conds: Vec::new(),
            too_large: false,
            inlined: 0,
            called: HashSet::new(),
            leaves: 0,
        };
        let library_root = elab.new_scope(None, scope::Kind::Root);
        elab.scopes[library_root].fns = library.clone();
        let root = elab.new_scope(Some(library_root), scope::Kind::Root);
        elab.scopes[root].fns = functions.clone();
        elab
    }

    /// Scope of the top-level functions of the program.
    fn root(&self) -> ScopeId {
        1
    }

    /// Reports `d` once. Inside inlined functions the calls are labelled too; a place in the prelude is never the primary one.
    fn report(&mut self, mut d: Diagnostic) -> Poison {
        let in_prelude = d.labels.first().is_some_and(|l| l.span.source == SourceId::Prelude);
        for (decl, place) in self.calls.iter().rev() {
            if place.source == SourceId::User && !d.labels.iter().any(|l| l.span == *place) {
                let text = format!("in this call of `{}`", decl.name.name);
                d = d.label(*place, text);
            }
        }
        if in_prelude && let Some(user) = d.labels.iter().position(|l| l.span.source == SourceId::User) {
            let label = d.labels.remove(user);
            d.labels.insert(0, label);
        }
        if !self.diags.contains(&d) {
            self.diags.push(d);
        }
        Poison
    }

    /// The program text at `span`, shortened.
    fn text(&self, span: Span) -> String {
        let source = match span.source {
            SourceId::User => self.source,
            SourceId::Prelude => PRELUDE,
        };
        let text = source.get(span.range()).unwrap_or("").split_whitespace().collect::<Vec<_>>().join(" ");
        if text.chars().count() > 80 { text.chars().take(77).collect::<String>() + "..." } else { text }
    }

    fn axis_name(&self, axis: AxisId) -> &str {
        &self.graph.axis(axis).name
    }

    /// `[b,t,d]`
    fn axes_text(&self, axes: impl IntoIterator<Item = AxisId>) -> String {
        let names: Vec<&str> = axes.into_iter().map(|a| self.axis_name(a)).collect();
        format!("[{}]", names.join(","))
    }
}
