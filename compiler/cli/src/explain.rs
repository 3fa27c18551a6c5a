//! `attnc explain`: what the compiler derived from a program, or the long text of a diagnostic code.

use crate::args::ExplainArgs;
use crate::fail::Failure;
use crate::settings::{self, Settings};
use crate::{classes, compile, files, out, svg, traffic};
use attnc_compiler::base::{Severity, render};
use attnc_compiler::graph::Graph;
use attnc_compiler::kernel::plan::{BufferKind, Plan};
use attnc_compiler::lower::lower_stages;
use attnc_compiler::passes::cost::Sizes;
use attnc_compiler::{sema, syntax};
use attnc_runtime::{CompileOptions, Engine, Kernel, host};
use attnc_runtime::plan::axes_text;
use std::fmt::Write;
use std::path::Path;

pub fn run(args: &ExplainArgs) -> Result<(), Failure> {
    if is_code(&args.what) {
        let text = syntax::errors::explain(&args.what).or_else(|| sema::errors::explain(&args.what));
        let text = text.ok_or_else(|| Failure::new(format!("there is no diagnostic with the code {}", args.what)))?;
        return out::print(&format!("{}: {text}\n", args.what));
    }
    let path = Path::new(&args.what);
    let source = files::program(path)?;
    let checked = sema::check(&source);
    let name = args.what.as_str();
    let text = render::text(&checked.diagnostics, &source, name, sema::PRELUDE, out::colour());
    if checked.diagnostics.iter().any(|d| d.severity == Severity::Error) {
        return Err(Failure::diagnostics(text, format!("{name}: the program has errors")));
    }
    out::warn(&text);
    let known: Vec<String> = checked.graphs.iter().map(|g| g.name.clone()).collect();
    let mut all = String::new();
    for graph in checked.graphs.into_iter().filter(|g| args.kernel.as_ref().is_none_or(|k| *k == g.name)) {
        let kernel = Engine::interp().kernel(graph, vec![], &CompileOptions::default())?;
        let settings = settings::typed(&args.set, kernel.signature())?;
        // Writing to a string cannot fail.
        let _ = describe(&mut all, &kernel, &settings, args)?;
    }
    match (all.is_empty(), &args.kernel) {
        (true, Some(kernel)) => Err(Failure::new(format!("{name}: there is no kernel `{kernel}`")).help(format!("the kernels are {}", known.join(", ")))),
        (true, None) => Err(Failure::new(format!("{name}: the program has no kernel"))),
        (false, _) => out::print(&all),
    }
}

fn is_code(text: &str) -> bool {
    text.len() == 5 && text.starts_with('A') && text[1..].bytes().all(|b| b.is_ascii_digit())
}

fn describe(out: &mut String, kernel: &Kernel, settings: &Settings, args: &ExplainArgs) -> Result<std::fmt::Result, Failure> {
    let (graph, plan) = (kernel.graph(), kernel.signature());
    let mut settings = settings.clone();
    let roles = Sizes::new(graph);
    for (i, axis) in plan.axes.iter().enumerate() {
        let open = axis.extent.is_none() && settings.extents.iter().all(|e| e.0 != axis.name);
        if open && roles.is_feature(attnc_compiler::graph::AxisId(i as u32)) {
            settings.extents.push((axis.name.clone(), 64));
        }
    }
    let options = compile::options(kernel, &settings, args.target, None, args.dtype)?;
    let stages = lower_stages(graph, &options).map_err(|e| compile::lowering(kernel, args.target.name(), e))?;
    let program = stages.program;
    let pictures = classes::pictures(&stages.tiles, &Sizes::new(&stages.graph), &settings.extents, &settings.scalars);
    if args.svg {
        out.push_str(&svg::draw(&program, &pictures));
        return Ok(Ok(()));
    }
    let names: Vec<String> = program.kernels.iter().map(|k| k.name.clone()).collect();
    let text = head(out, graph).and_then(|()| signature(out, graph, plan)).and_then(|()| launches(out, &program.plan, &names));
    let moved = traffic::lines(&stages.tiles, &Sizes::new(&stages.graph), &settings.extents, &settings.scalars);
    let text = text.and_then(|()| writeln!(out, "\nmemory moved")).and_then(|()| moved.iter().try_for_each(|line| writeln!(out, "  {line}")));
    Ok(text.and_then(|()| masks(out, &pictures)))
}

/// What the masked loops visit, for the extents given or usual ones.
fn masks(out: &mut String, pictures: &[classes::Picture]) -> std::fmt::Result {
    if pictures.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nmasked loops")?;
    for picture in pictures {
        writeln!(out, "  {}", classes::line(picture))?;
    }
    Ok(())
}

fn head(out: &mut String, graph: &Graph) -> std::fmt::Result {
    writeln!(out, "kernel {}", graph.name)?;
    for line in &graph.doc {
        writeln!(out, "  {}", line.trim())?;
    }
    Ok(())
}

fn signature(out: &mut String, graph: &Graph, plan: &Plan) -> std::fmt::Result {
    let roles = Sizes::new(graph);
    writeln!(out, "\naxes")?;
    for (i, axis) in plan.axes.iter().enumerate() {
        let id = attnc_compiler::graph::AxisId(i as u32);
        let role = if roles.is_feature(id) { "feature, fixed when compiled" } else { "run time" };
        let extent = axis.extent.as_ref().map_or("from shapes".to_string(), |e| host::text(e, &plan.axes, &plan.inputs));
        writeln!(out, "  {:12} {extent:24} {role}", axis.name)?;
    }
    writeln!(out, "\ninputs")?;
    for (i, input) in plan.inputs.iter().enumerate() {
        let axes = if input.axes.is_empty() { "scalar".to_string() } else { axes_text(plan, &input.axes) };
        let default = match &input.default {
            Some(e) => format!("default {}", host::text(e, &plan.axes, &plan.inputs)),
            None if graph.inputs[i].default.is_some() => "default computed from other inputs".to_string(),
            None => String::new(),
        };
        writeln!(out, "  {:12} {:5} {axes:18} {default}", input.name, input.dtype.name())?;
    }
    writeln!(out, "\noutputs")?;
    for output in &plan.outputs {
        writeln!(out, "  {:12} {:5} {}", output.name, output.dtype.name(), axes_text(plan, &output.axes))?;
    }
    if !plan.requires.is_empty() {
        writeln!(out, "\nchecked at each call")?;
        for require in &plan.requires {
            writeln!(out, "  {}", require.text)?;
        }
    }
    Ok(())
}

/// Kernels in order, with their grids, and the memory between them.
fn launches(out: &mut String, plan: &Plan, names: &[String]) -> std::fmt::Result {
    let text = |e| host::text(e, &plan.axes, &plan.inputs);
    writeln!(out, "\nkernels, in order")?;
    for (i, launch) in plan.launches.iter().enumerate() {
        let name = names.get(launch.kernel as usize).map_or("?", String::as_str);
        let buffers: Vec<&str> = launch.buffers.iter().filter_map(|b| plan.buffers.get(*b as usize)).map(|b| b.name.as_str()).collect();
        writeln!(out, "  {}. {name}: {} blocks; touches {}", i + 1, text(&launch.blocks), buffers.join(", "))?;
    }
    let temps: Vec<_> = plan.buffers.iter().filter(|b| b.kind == BufferKind::Temp).collect();
    writeln!(out, "\nmemory between kernels{}", if temps.is_empty() { ": none" } else { "" })?;
    for temp in temps {
        let dims: Vec<String> = temp.dims.iter().map(text).collect();
        writeln!(out, "  {}: [{}] {}", temp.name, dims.join(", "), attnc_runtime::tensor::storage_name(temp.storage))?;
    }
    let rows: Vec<_> = plan.buffers.iter().filter(|b| b.kind == BufferKind::Block).collect();
    if !rows.is_empty() {
        writeln!(out, "\nrows that a block keeps to itself")?;
    }
    for row in rows {
        let dims: Vec<String> = row.dims.iter().map(text).collect();
        writeln!(out, "  {}: [{}] {}", row.name, dims.join(", "), attnc_runtime::tensor::storage_name(row.storage))?;
    }
    if !plan.fixed.is_empty() {
        let fixed: Vec<String> = plan.fixed.iter().map(|(a, n)| format!("{} = {n}", plan.axes.get(*a as usize).map_or("?", |a| a.name.as_str()))).collect();
        writeln!(out, "\ncompiled for {}", fixed.join(", "))?;
    }
    if !plan.remarks.is_empty() {
        writeln!(out, "\nremarks")?;
        for remark in &plan.remarks {
            writeln!(out, "  {remark}")?;
        }
    }
    Ok(())
}
