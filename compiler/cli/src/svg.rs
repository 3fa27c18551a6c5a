//! A drawing of a compiled program: buffers on the left and right, kernels in order between them, lines for what they read and write;
//! below, which blocks each masked loop visits.

use crate::classes::Picture;
use attnc_compiler::kernel::plan::{BufferKind, Plan, Program};
use attnc_runtime::host;
use std::fmt::Write;

const ROW: i32 = 44;
const BOX: (i32, i32) = (150, 30);
/// Left edges of the columns: inputs and memory, kernels, outputs.
const COLUMNS: [i32; 3] = [20, 330, 720];

/// The drawing as text of an SVG file.
pub fn draw(program: &Program, pictures: &[Picture]) -> String {
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut svg, program, pictures);
    svg
}

fn write(out: &mut String, program: &Program, pictures: &[Picture]) -> std::fmt::Result {
    let plan = &program.plan;
    let places = places(plan);
    let rows = places.iter().map(|p| p.1 + 1).chain([plan.launches.len() as i32]).max().unwrap_or(1);
    let (width, below) = (COLUMNS[2] + BOX.0 + 20, 60 + rows * ROW);
    let height = i64::from(below) + pictures.iter().map(|p| p.height()).sum::<i64>();
    writeln!(out, r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="monospace" font-size="11">"#)?;
    writeln!(out, r#"<rect width="{width}" height="{height}" fill="white"/><text x="20" y="24" font-size="14">{}</text>"#, escape(&plan.name))?;
    for (i, launch) in plan.launches.iter().enumerate() {
        let kernel = program.kernels.get(launch.kernel as usize);
        for (place, buffer) in launch.buffers.iter().enumerate() {
            let Some((column, row)) = places.get(*buffer as usize) else { continue };
            let written = kernel.and_then(|k| k.buffers.get(place)).is_some_and(|b| b.written);
            let (colour, y) = (if written { "#c33" } else { "#36c" }, middle(i as i32));
            let (from, to) = if *column == 0 { (COLUMNS[0] + BOX.0, COLUMNS[1]) } else { (COLUMNS[2], COLUMNS[1] + 2 * BOX.0) };
            writeln!(out, r#"<line x1="{from}" y1="{}" x2="{to}" y2="{y}" stroke="{colour}"/>"#, middle(*row))?;
        }
    }
    for (buffer, (column, row)) in plan.buffers.iter().zip(&places) {
        let dims: Vec<String> = buffer.dims.iter().map(|d| host::text(d, &plan.axes, &plan.inputs)).collect();
        let fill = if buffer.kind == BufferKind::Temp { "#eee" } else { "#eef4ff" };
        rect(out, COLUMNS[*column], *row, BOX.0, fill, &[buffer.name.clone(), format!("[{}]", dims.join(", "))])?;
    }
    for (i, launch) in plan.launches.iter().enumerate() {
        let name = program.kernels.get(launch.kernel as usize).map_or("?", |k| k.name.as_str());
        let grid = format!("{} blocks", host::text(&launch.blocks, &plan.axes, &plan.inputs));
        rect(out, COLUMNS[1], i as i32, 2 * BOX.0, "#fff6e0", &[format!("{}. {name}", i + 1), grid])?;
    }
    let mut top = i64::from(below);
    for picture in pictures {
        picture.draw(out, top)?;
        top += picture.height();
    }
    writeln!(out, "</svg>")
}

/// Column and row of each buffer.
fn places(plan: &Plan) -> Vec<(usize, i32)> {
    let mut next = [0, 0];
    let place = |b: &attnc_compiler::kernel::plan::BufferPlan| {
        let side = usize::from(matches!(b.kind, BufferKind::Output(_)));
        next[side] += 1;
        (2 * side, next[side] - 1)
    };
    plan.buffers.iter().map(place).collect()
}

fn middle(row: i32) -> i32 {
    40 + row * ROW + BOX.1 / 2
}

fn rect(out: &mut String, x: i32, row: i32, width: i32, fill: &str, lines: &[String; 2]) -> std::fmt::Result {
    let y = 40 + row * ROW;
    writeln!(out, r#"<rect x="{x}" y="{y}" width="{width}" height="{}" rx="3" fill="{fill}" stroke="black"/>"#, BOX.1)?;
    for (line, dy) in lines.iter().zip([12, 25]) {
        // Monospaced letters of 11 px are about 6.6 px wide.
        let room = (width - 8) as usize * 10 / 66;
        let short: String = if line.chars().count() > room { line.chars().take(room - 1).chain(['…']).collect() } else { line.clone() };
        writeln!(out, r#"<text x="{}" y="{}">{}</text>"#, x + 5, y + dy, escape(&short))?;
    }
    Ok(())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
