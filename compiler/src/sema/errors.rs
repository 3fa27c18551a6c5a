//! Long texts of the codes, for `attnc explain A0302`.

/// What a code means and how to mend it; `None` for codes of other layers.
pub fn explain(code: &str) -> Option<&'static str> {
    TEXTS.iter().find(|t| t.0 == code).map(|t| t.1)
}

/// Every code of this layer.
pub fn codes() -> impl Iterator<Item = &'static str> {
    TEXTS.iter().map(|t| t.0)
}

const TEXTS: &[(&str, &str)] = &[
    ("A0001", "The checker itself failed. The program may be right or wrong; please report it together with its text."),
    (
        "A0201",
        "A name is used that nothing declares. Names are the inputs, `let` values, states and exports of the kernel, its axes (their \
         index) and the capitals of its axes (their extents: `T` for the axis `t`).",
    ),
    (
        "A0202",
        "A name is declared twice. Inside one kernel every name means one thing: axes, inputs, `let` values and states share one \
         namespace, and there is no shadowing. Functions have names of their own, and their parameters may repeat names of the kernel.",
    ),
    ("A0203", "A function or reduction is called that does not exist."),
    (
        "A0204",
        "A value is defined in terms of itself. Statements are equations: a value that changes from step to step is a `state`, and \
         earlier results of a scan are read by position: `s[t = u]`.",
    ),
    ("A0205", "The op table and the reductions cannot be defined again; functions of the prelude can."),
    ("A0206", "A call has the wrong number or form of arguments."),
    ("A0301", "An axis is named that is not declared, or a value stands where an axis is needed."),
    (
        "A0302",
        "The axis of a reduction must occur in the body itself, not only in its mask: `max[s] (sum[d] q * k where s <= t)` with \
         the renaming `k[t = s]` forgotten would take the maximum of one and the same value. Literals are excepted; to count positions write `count`.",
    ),
    (
        "A0303",
        "A factor of a sum or mean over `s` varies over an axis that `s` copies (`axis s: T`), but not over `s`: `sum[s] w * v` \
         instead of `sum[s] w * v[t = s]`. If the factor is meant to be the one of `t`, write it outside the sum.",
    ),
    (
        "A0304",
        "Extents of axes and numbers of rounds are ints without axes. A number of rounds is made of extents, int parameters without axes and \
         constants; an extent may also be computed from tensors, but not from an axis whose own extent is.",
    ),
    ("A0305", "A read names an axis that the value does not have; it would silently do nothing."),
    ("A0306", "An axis is named twice where each may appear once."),
    (
        "A0307",
        "Inside the step of a scan over `t` a computed value exists for the running `t` only: it cannot be read at another `t` or \
         reduced over `t`. Export it (`name = ..`) and read earlier results by position, or keep what is needed in a state.",
    ),
    ("A0308", "An axis parameter is bound to several axes where exactly one is needed."),
    ("A0309", "A call has the wrong axes between its brackets."),
    (
        "A0401",
        "Operands have dtypes that do not go together. int becomes real and real becomes complex by themselves; bool is not a \
         number; `/` divides reals while `div` and `mod` divide ints.",
    ),
    ("A0402", "`==` between an int and a real: usually a parenthesis is missing. Convert one of them if it is meant."),
    ("A0403", "The index of a read must be an int. `/` is real division; `div` rounds down."),
    ("A0404", "A condition must be a bool: there are no truthy numbers."),
    ("A0405", "A value is stored where another dtype is declared, and there is no implicit conversion."),
    (
        "A0501",
        "Outputs are written everywhere, so they must be present: a `where` that no reduction consumed, or a read that may be out of \
         range, needs a value for the absent elements: `.. ?? 0`.",
    ),
    ("A0502", "States, initial values, defaults and requires need values that are present everywhere."),
    ("A0601", "Every state is advanced once per step: `S' = ..`."),
    ("A0602", "A state is advanced twice in one step; steps are equations, not assignments."),
    ("A0603", "A primed name is the value of a state after the step, inside the scan that declares the state."),
    ("A0604", "The rounds of `repeat` have no axis, so it cannot export values per round."),
    ("A0605", "The axes of the states of a scan keep growing; declare them."),
    ("A0606", "A state is one value that is carried along; it cannot have the axis of its scan."),
    ("A0701", "Functions are inlined and cannot be recursive."),
    ("A0702", "Inlining made the kernel too large or too deep."),
    ("A0703", "A function ends in `return`; a kernel assigns its outputs."),
    (
        "A0704",
        "`grad(e, w)` differentiates the real expression `e` by the named value `w`. Occurrences of `w` in `e` and in the functions it \
         calls count; values bound by `let` before are constants. Scans, complex values and some reductions are refused.",
    ),
    (
        "A0705",
        "Axes that both `e` and `w` have stand for the same position, so `e` must not read or reduce `w` along them at other positions.",
    ),
    ("A0801", "Every output is assigned exactly once."),
    ("A0802", "An output is assigned more than once."),
    ("A0803", "A value has axes that its declaration lacks: reduce over them, or read them at a position."),
    ("A0804", "An output lacks one of its axes. `expand[t](x)` says that it is the same for all `t`."),
    ("A0805", "Only outputs are assigned with `=`; other values are bound by `let`."),
    ("A0806", "A `require`, and the bound of a fact, is checked at the call and may speak of sizes and scalar inputs only."),
    ("A0807", "A schedule has an unknown word or an entry of the wrong form. Schedules change speed, never results."),
    ("A0901", "A mask is always false, so what it guards is always empty."),
    ("A0902", "The left side of `??` is always present, so the right side is never used."),
    (
        "A0903",
        "An export reads the old value of a state. If the new value is meant write the prime; otherwise bind the old one first: \
         `let before = S`.",
    ),
    ("A0904", "A list may have fewer members than slots; unused slots of an output hold 0 unless `??` says otherwise."),
];
