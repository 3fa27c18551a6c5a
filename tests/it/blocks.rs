//! Blocks that masked loops visit: close to the exact cover for masks of known kinds, never wrong for any.

use attnc_compiler::interp::Array;
use attnc_tests::blocks::visits;
use attnc_tests::random::Rng;

/// Positions in documents, each with its first position, its last and one number.
fn documents(t: usize) -> Vec<(&'static str, &'static str, Array)> {
    let (mut doc, mut start, mut end) = (vec![0; t], vec![0; t], vec![0; t]);
    let cuts: Vec<usize> = [0, 37, 61, 140, 141, 230].into_iter().filter(|c| *c < t).chain([t]).collect();
    for (i, w) in cuts.windows(2).enumerate() {
        for p in w[0]..w[1] {
            (doc[p], start[p], end[p]) = (i as i64, w[0] as i64, w[1] as i64 - 1);
        }
    }
    vec![("doc", "t", Array::int(&[t], doc)), ("start", "t", Array::int(&[t], start)), ("end", "t", Array::int(&[t], end))]
}

const SCALARS: &[(&str, i64)] = &[("w", 40), ("sink", 4), ("prefix", 37), ("r", 4), ("m", 96), ("x", 32), ("c", 48)];

/// Visited blocks are at most 3 % above those that hold an element, and none is wrong.
fn tight(name: &str, mask: &str) {
    for (t, block) in [(320, 32), (301, 16), (640, 64)] {
        let v = visits(mask, t, block, &documents(t), SCALARS).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(v.wrong, 0, "{name}, t = {t}, blocks of {block}: {v:?}");
        assert!(v.visited as f64 <= v.needed as f64 * 1.03, "{name}, t = {t}, blocks of {block}: {v:?}");
    }
}

#[test]
fn windows_and_sinks_visit_their_cover() {
    tight("causal", "s <= t");
    tight("window", "s <= t and t - s < w");
    tight("window, two-sided", "abs(t - s) < w");
    tight("sinks and window", "s <= t and (t - s < w or s < sink)");
    tight("two-sided with global tokens", "-w < t - s < w or s < sink or t < sink");
    tight("prefix", "s <= t or s < prefix");
    tight("bottom right", "s <= t + T - 20");
    tight("a contradiction", "s <= t and t < s");
    tight("a negation", "not (s <= t)");
    // Conditions on different forms are judged one by one: a corner block more.
    let v = visits("if s < prefix then t - s < 2 * w else s <= t and t - s < w", 320, 32, &[], SCALARS).unwrap_or_else(|e| panic!("{e}"));
    assert!(v.wrong == 0 && v.visited <= v.needed + 1, "{v:?}");
}

#[test]
fn documents_visit_their_cover() {
    tight("documents", "doc[t = s] == doc");
    tight("documents, causal", "doc[t = s] == doc and s <= t");
    tight("documents by their starts", "s <= t and start <= s");
    tight("documents by both ends", "start <= s and s <= end");
    tight("documents with a window", "doc[t = s] == doc and 0 <= t - s < w");
}

#[test]
fn blocks_and_strides_visit_their_cover() {
    tight("block diagonal", "s div 16 == t div 16");
    tight("block causal", "s div c <= t div c");
    tight("chunk and the one before", "s div c <= t div c and s div c >= t div c - 1 and s <= t");
    tight("dilated window", "0 <= t - s < w and (t - s) mod r == 0");
    tight("wide dilation", "(t - s) mod m == 0");
    tight("residue classes", "t mod m == s mod m and s <= t");
    tight("strided", "s <= t and (t - s < 16 or s mod 16 == 15)");
    tight("far strided", "s <= t and (t - s < 16 or s mod m == 95)");
    tight("powers of two", "t == s or t - s == 1 or t - s == 2 or t - s == 4 or t - s == 8 or t - s == 16 or t - s == 32 or t - s == 64 or t - s == 128 or t - s == 256");
    let near = "clamp(t div x - 3, 0, T div x - 7) <= s div x and s div x < clamp(t div x - 3, 0, T div x - 7) + 7";
    let column = "clamp(t mod x - 3, 0, x - 7) <= s mod x and s mod x < clamp(t mod x - 3, 0, x - 7) + 7";
    let mask = format!("{near} and {column}");
    for block in [16, 32] {
        let v = visits(&mask, 320, block, &[], SCALARS).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(v.wrong, 0, "{v:?}");
        assert!(v.visited as f64 <= v.needed as f64 * 1.03, "neighbourhood, blocks of {block}: {v:?}");
    }
}

/// A set of blocks that data chooses, for each query or for blocks of queries: what nobody chose is not visited.
#[test]
fn sets_of_blocks_decide_blocks() {
    for (t, block, seed) in [(320usize, 32u32, 1), (301, 16, 2), (256, 64, 3)] {
        let mut rng = Rng::new(seed);
        for (name, mask, rows, size) in [
            ("by query", "kept[j = s div 32] and s <= t", t, 32usize),
            ("by block of queries", "kept[n = t div 32, j = s div 32]", t.div_ceil(32), 32),
            ("of wide blocks", "kept[j = s div 100] and t - s < w", t, 100),
        ] {
            let columns = t.div_ceil(size);
            // Whole blocks of queries mostly choose alike.
            let mut chosen = vec![false; rows * columns];
            for (i, c) in chosen.iter_mut().enumerate() {
                let (row, column) = (i / columns, i % columns);
                *c = (row / 16 * 7 + column * 5 + row / 100).is_multiple_of(4) || rng.chance(1);
            }
            let axes = if name == "by block of queries" { "n,j" } else { "t,j" };
            let set = [("kept", axes, Array::bool(&[rows, columns], chosen))];
            let v = visits(mask, t, block, &set, SCALARS).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(v.wrong, 0, "{name}: {v:?}");
            assert!(v.visited < v.blocks, "{name}, t = {t}: {v:?}");
            if size % block as usize == 0 && t % size == 0 {
                assert_eq!(v.visited, v.needed, "{name}, t = {t}: {v:?}");
            }
        }
    }
}

/// A random condition on positions.
fn condition(rng: &mut Rng, depth: usize) -> String {
    fn number(rng: &mut Rng, depth: usize) -> String {
        match rng.below(if depth == 0 { 6 } else { 14 }) {
            0 | 1 => "t".to_string(),
            2 | 3 => "s".to_string(),
            4 => format!("{}", rng.below(60)),
            5 => ["w", "r", "m", "doc", "start[t = s]", "end", "doc[t = s]"][rng.below(7)].to_string(),
            6 => format!("({} + {})", number(rng, depth - 1), number(rng, depth - 1)),
            7 => format!("({} - {})", number(rng, depth - 1), number(rng, depth - 1)),
            8 => format!("({} div {})", number(rng, depth - 1), [3, 16, 48][rng.below(3)]),
            9 => format!("({} mod {})", number(rng, depth - 1), [3, 16, 96][rng.below(3)]),
            10 => format!("abs({})", number(rng, depth - 1)),
            11 => format!("min({}, {})", number(rng, depth - 1), number(rng, depth - 1)),
            12 => format!("max({}, {})", number(rng, depth - 1), number(rng, depth - 1)),
            _ => format!("({} * {})", rng.below(4), number(rng, depth - 1)),
        }
    }
    if depth == 0 || rng.chance(35) {
        let op = ["<", "<=", "==", "!=", ">", ">="][rng.below(6)];
        return format!("{} {op} {}", number(rng, 2), number(rng, 2));
    }
    match rng.below(5) {
        0 | 1 => format!("({} and {})", condition(rng, depth - 1), condition(rng, depth - 1)),
        2 | 3 => format!("({} or {})", condition(rng, depth - 1), condition(rng, depth - 1)),
        _ => format!("not ({})", condition(rng, depth - 1)),
    }
}

#[test]
fn no_block_is_ever_wrong() {
    let (mut checked, mut partial, mut all) = (0, 0, 0);
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let mask = condition(&mut rng, 3);
        let t = [48, 77, 130][rng.below(3)];
        // Masks that do not tell positions apart, or none of them, are refused by the checker or make no masked loop.
        let Ok(v) = visits(&mask, t, 16, &documents(t), SCALARS) else { continue };
        assert_eq!(v.wrong, 0, "seed {seed}, t = {t}: {mask}: {v:?}");
        checked += 1;
        partial += v.visited - v.full;
        all += v.blocks;
    }
    assert!(checked > 300, "{checked} masks");
    assert!(partial < all, "{partial} of {all}");
}
