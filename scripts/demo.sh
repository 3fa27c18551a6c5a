#!/usr/bin/env bash
# Checks, explains, compiles and runs examples on the activations of a real model (tests/data/minilm.safetensors).
set -euo pipefail
cd "$(dirname "$0")/.."
attnc=${CARGO_TARGET_DIR:-target}/release/attnc
out=${CARGO_TARGET_DIR:-target}/demo
mkdir -p "$out"
programs=(dsl-examples/minilm_attention.attn dsl-examples/sliding_window.attn dsl-examples/linear_attention.attn)

# told COMMAND...: the command as one would type it, then what it prints.
told() { printf '\n$ attnc %s\n' "$*"; "$attnc" "$@"; }
# has COMMAND WORD: whether the command line knows it.
has() { "$attnc" "$1" --help 2>/dev/null | grep -q -- "$2"; }

told check "${programs[@]}"
told explain dsl-examples/minilm_attention.attn
if has explain --svg; then
    picture="$out/sliding_window.svg"
    printf '\n$ attnc explain dsl-examples/sliding_window.attn --svg --set t=1024 --set window=200 > %s\n' "$picture"
    "$attnc" explain dsl-examples/sliding_window.attn --svg --set t=1024 --set window=200 >"$picture"
    echo "drawn: the tile classes of its mask"
fi
if has compile --target; then
    for program in "${programs[@]}"; do
        told compile "$program" --target cpu --set d=32 --set e=32 -o "$out/$(basename "$program" .attn)"
    done
fi
printf '\n'
scripts/cargo.sh run --release -q -p attnc-runtime --example demo -- tests/data/minilm.safetensors "${programs[@]}"
