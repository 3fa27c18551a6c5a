//! Text of a graph, for dumps and snapshots: values are numbered in order of creation without gaps, so equal graphs print equally.

use super::bind::show;
use super::ir::{AxisId, Extent, Graph, NodeId, Op, PrefixDir, ScanId};
use std::collections::BTreeMap;
use std::fmt::{self, Write};

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Text::new(self);
        writeln!(f, "graph {} {{", self.name)?;
        text.header(f)?;
        for id in self.ids() {
            writeln!(f, "  {}", text.line(id))?;
        }
        text.footer(f)?;
        writeln!(f, "}}")
    }
}

/// One value as the dump shows it: `%7 [b,h,t] real = sum[d] %5 where %6`.
pub fn line(graph: &Graph, node: NodeId) -> String {
    Text::new(graph).line(node)
}

struct Text<'a> {
    graph: &'a Graph,
    number: BTreeMap<NodeId, usize>,
    axes: Vec<String>,
}

impl<'a> Text<'a> {
    fn new(graph: &'a Graph) -> Text<'a> {
        let number = graph.ids().enumerate().map(|(n, id)| (id, n)).collect();
        // Inlining gives several axes one name; later ones get a number.
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let mut axes = Vec::new();
        for axis in &graph.axes {
            let n = seen.entry(axis.name.as_str()).or_insert(0);
            *n += 1;
            axes.push(if *n == 1 { axis.name.clone() } else { format!("{}.{n}", axis.name) });
        }
        Text { graph, number, axes }
    }

    fn value(&self, id: NodeId) -> String {
        self.number.get(&id).map_or_else(|| format!("%?{}", id.index()), |n| format!("%{n}"))
    }

    fn axis(&self, a: AxisId) -> &str {
        self.axes.get(a.index()).map_or("?", |s| s.as_str())
    }

    fn list<'b>(&self, axes: impl IntoIterator<Item = &'b AxisId>) -> String {
        let names: Vec<&str> = axes.into_iter().map(|a| self.axis(*a)).collect();
        format!("[{}]", names.join(","))
    }

    fn values(&self, ids: &[NodeId]) -> String {
        ids.iter().map(|a| self.value(*a)).collect::<Vec<_>>().join(", ")
    }

    fn masked(&self, mask: Option<NodeId>) -> String {
        mask.map_or(String::new(), |m| format!(" where {}", self.value(m)))
    }

    fn state(&self, scan: ScanId, index: u32) -> String {
        let name = self.graph.scans.get(scan.index()).and_then(|s| s.states.get(index as usize)).map_or("?", |s| s.name.as_str());
        format!("scan{}.{name}", scan.index())
    }

    fn line(&self, id: NodeId) -> String {
        let node = self.graph.node(id);
        let mut text = self.value(id);
        if !node.axes.is_empty() {
            let _ = write!(text, " {}", self.list(&node.axes));
        }
        let _ = write!(text, " {} = {}", node.dtype.name(), self.op(&node.op));
        if let Some(name) = &node.name {
            let _ = write!(text, "  // {name}");
        }
        text
    }

    fn op(&self, op: &Op) -> String {
        match op {
            Op::Input(i) => format!("input {}", self.graph.inputs.get(i.index()).map_or("?", |i| i.name.as_str())),
            Op::Const(c) => format!("const {}", show(*c)),
            Op::Index(a) => format!("index {}", self.axis(*a)),
            Op::Extent(a) => format!("extent {}", self.axis(*a)),
            Op::Map { op, args } => format!("{} {}", op.name(), self.values(args)),
            Op::Read { value, subs } => {
                let subs: Vec<String> = subs.iter().map(|(a, e)| format!("{} = {}", self.axis(*a), self.value(*e))).collect();
                format!("read {}[{}]", self.value(*value), subs.join(", "))
            }
            Op::Reduce { op, axes, body, mask } => format!("{}{} {}{}", op.name(), self.list(axes), self.value(*body), self.masked(*mask)),
            Op::Prefix { op, axis, dir, body, mask } => {
                let sign = match dir {
                    PrefixDir::Le => "<=",
                    PrefixDir::Lt => "<",
                    PrefixDir::Ge => ">=",
                    PrefixDir::Gt => ">",
                };
                format!("{}[{sign} {}] {}{}", op.name(), self.axis(*axis), self.value(*body), self.masked(*mask))
            }
            Op::Rank { axes, key, mask } => format!("rank{} {}{}", self.list(axes), self.value(*key), self.masked(*mask)),
            Op::ArgSort { axes, to, key, mask } => {
                format!("argsort{} -> {} {}{}", self.list(axes), self.axis(*to), self.value(*key), self.masked(*mask))
            }
            Op::TopK { axes, key, mask, count } => {
                format!("topk{} {}, {}{}", self.list(axes), self.value(*key), self.value(*count), self.masked(*mask))
            }
            Op::List { axes, to, set } => format!("list{} -> {} {}", self.list(axes), self.axis(*to), self.value(*set)),
            Op::Solve { rows, cols, matrix, rhs, reverse } => {
                let sign = if *reverse { ">" } else { "<" };
                format!("solve[{}, {} {sign}] {}, {}", self.axis(*rows), self.axis(*cols), self.value(*matrix), self.value(*rhs))
            }
            Op::State { scan, index } => format!("state {}", self.state(*scan, *index)),
            Op::Final { scan, index } => format!("final {}", self.state(*scan, *index)),
            Op::History { scan, index } => format!("history scan{}.{index}", scan.index()),
            Op::Expand { value, axes } => format!("expand{} {}", self.list(axes), self.value(*value)),
        }
    }

    fn header(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (k, axis) in self.graph.axes.iter().enumerate() {
            write!(f, "  axis {}", self.axes[k])?;
            if let Extent::Value(node) = axis.extent {
                write!(f, ": {}", self.value(node))?;
            }
            if let Some(twin) = axis.twin {
                write!(f, " twin {}", self.axis(twin))?;
            }
            writeln!(f)?;
        }
        for input in &self.graph.inputs {
            write!(f, "  input {}: {}", input.name, input.dtype.name())?;
            if !input.axes.is_empty() {
                write!(f, " {}", self.list(&input.axes))?;
            }
            if let Some(fact) = input.fact {
                write!(f, " {} {}", fact.cmp.text(), self.value(fact.bound))?;
            }
            if let Some(default) = input.default {
                write!(f, " = {}", self.value(default))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn footer(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (k, scan) in self.graph.scans.iter().enumerate() {
            write!(f, "  scan{k} {}", self.axis(scan.axis))?;
            if scan.reverse {
                write!(f, " reverse")?;
            }
            if let Some(parent) = scan.parent {
                write!(f, " in scan{}", parent.index())?;
            }
            writeln!(f)?;
            for s in &scan.states {
                let (old, init, next) = (self.value(s.old), self.value(s.init), self.value(s.next));
                writeln!(f, "    state {}: {} {} = {old}: {init} then {next}", s.name, s.dtype.name(), self.list(&s.axes))?;
            }
            if !scan.exports.is_empty() {
                writeln!(f, "    exports {}", self.values(&scan.exports))?;
            }
            for (k, (leaf, export)) in scan.history.iter().enumerate() {
                writeln!(f, "    history {k}: {} of {}", self.value(*leaf), self.value(*export))?;
            }
        }
        for require in &self.graph.requires {
            let word = if require.implicit { "range" } else { "require" };
            writeln!(f, "  {word} {} `{}`", self.value(require.cond), require.text)?;
        }
        for hint in &self.graph.hints {
            let axis = hint.axis.map_or(String::new(), |a| format!(" {}", self.axis(a)));
            let target = hint.target.as_ref().map_or(String::new(), |t| format!(" for {t}"));
            writeln!(f, "  hint {}{axis} {}{target}", hint.kind, hint.value)?;
        }
        for output in &self.graph.outputs {
            writeln!(f, "  output {}: {} {} = {}", output.name, output.dtype.name(), self.list(&output.axes), self.value(output.node))?;
        }
        Ok(())
    }
}
