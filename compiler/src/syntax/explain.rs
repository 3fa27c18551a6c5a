//! Long texts of the codes, for `attnc explain A0101`.

/// What the code means and how to mend it; `None` for codes of other passes.
pub fn explain(code: &str) -> Option<&'static str> {
    TEXTS.iter().find(|(c, _)| *c == code).map(|(_, text)| *text)
}

/// All codes of this pass.
pub fn codes() -> impl Iterator<Item = &'static str> {
    TEXTS.iter().map(|(code, _)| *code)
}

const TEXTS: &[(&str, &str)] = &[
    (
        "A0101",
        "A word or sign stands where it cannot stand. The label lists what could stand there instead.\n\n\
         Newlines mean nothing; a statement ends where the next one starts: at `let`, `axis`, `mask`, `state`, `scan`, `repeat`,\n\
         `require`, `return`, `fn`, `schedule`, or at a name followed by `=`. A statement may also be ended with `;`.\n\n\
         After an error the parser goes on at the next statement, so one run reports the errors of many statements.",
    ),
    (
        "A0102",
        "The file ends inside a declaration. A kernel is written\n\n    kernel name(q: [t,d]) -> (o: [t,d]) {\n        o = q\n    }",
    ),
    (
        "A0103",
        "The text holds characters that the language does not use. Names are made of ASCII letters, digits and `_`; operators are\n\
         `+ - * / ^ ?? < <= > >= == != ->` and the words `and or not div mod`. Comments start with `//` and may hold anything.",
    ),
    (
        "A0104",
        "A number does not fit. Integers are 64 bits wide with a sign; real numbers are 64-bit floats. Infinity is written `inf`.",
    ),
    (
        "A0105",
        "An expression is nested more than 200 levels deep, counting parentheses, operands and function arguments. A sum of 300 terms\n\
         is 300 levels, because `a + b + c` means `(a + b) + c`.\n\nName parts with `let`. A long sum over positions is a reduction: `sum[s] x`.",
    ),
    ("A0106", "More than 64 blocks are open at one place. The contents of the block beyond were not read."),
    (
        "A0107",
        "The file or one statement is too long. A file may have 4 MiB, a statement 20000 words and signs. Programs in this language are\n\
         short; data belongs into tensors, not into the text.",
    ),
    (
        "A0108",
        "A `{` has no `}`. It is noticed at the end of the file or where the next `kernel` starts, as a kernel cannot stand in a block.\n\
         The label shows the innermost block that was still open; an earlier `}` may be missing instead.",
    ),
    ("A0109", "A `}` stands where no block is open. Usually an earlier `}` is one too many and closed the kernel too soon."),
    (
        "A0110",
        "A running reduction such as `sum[<= t] f` takes one factor: a name, a call, a read or a parenthesis. When a product follows, both\n\
         readings make sense and both keep the axis, so nothing else would notice the wrong one:\n\n\
         \x20   (sum[<= t] f) * g      running sum of f, then multiplied\n    sum[<= t] (f * g)      running sum of the product\n\nWrite the parentheses.",
    ),
    (
        "A0111",
        "Reserved words cannot be names: let if then else where and or not div mod fn return scan repeat require true false inf.\n\
         Other words of the language (axis, mask, state, kernel, sum, max, topk, count, ...) may be names.",
    ),
    ("A0112", "`=` defines a name and binds an axis in a read (`k[t = s]`); `==` compares two values. Here one stands in the place of the other."),
    (
        "A0113",
        "Operators of other languages that this one spells differently:\n\n\
         \x20   &&  and      ||  or      !  not      %  mod      **  ^      :=  =      <>  !=\n\n\
         Nothing is changed in place, so there is no `+=`: a state goes on by `S' = S + x`.\n\
         Whole-number division is `div`; `/` always divides real numbers; `//` starts a comment.",
    ),
    (
        "A0114",
        "A warning: `h * G // H` ends at `//`, the rest is a comment. Whole-number division, rounded down, is `div`: `h * G div H`. When a\n\
         comment is meant, say more in it than a number or the extent of an axis.",
    ),
    ("A0116", "A file had more than 100 syntax errors. Mend the first ones; the others are often their consequence."),
    ("A0117", "`import` is kept for later. One file is one program; functions of the prelude can be used without any declaration."),
    (
        "A0118",
        "Types are `real`, `int`, `bool` and `complex`, followed by the axes: `x: int [b,t]`. Without a word the type is `real`. Storage\n\
         formats (half, float, ...) belong to the tensors given at the call, not to the program.",
    ),
    (
        "A0119",
        "A parenthesis or bracket is open where the statement ends. Statements end where the next one starts (see A0101), so the label\n\
         shows the innermost bracket that was still open there.",
    ),
];
