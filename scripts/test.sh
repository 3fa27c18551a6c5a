#!/usr/bin/env bash
# All tests, section by section, and one closing line that adds them up. Everything is built once, in the profile `ci`.
set -uo pipefail
cd "$(dirname "$0")/.."
passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export INSTA_UPDATE=no INSTA_WORKSPACE_ROOT="$PWD"

# add PASSED FAILED SKIPPED
add() { passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3)); }
section() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }
# number PATTERN: the number before the words in the last line of the log that has them, or 0.
number() { grep -oE "[0-9]+ $1" "$log" | tail -1 | grep -oE '^[0-9]+' || echo 0; }
# total PATTERN: the same, over all lines.
total() { grep -oE "[0-9]+ $1" "$log" | awk '{ n += $1 } END { print n + 0 }'; }

section "tests of the workspace"
if cargo nextest --version >/dev/null 2>&1; then
    scripts/cargo.sh nextest run --cargo-profile ci --workspace --no-fail-fast --status-level fail --final-status-level fail 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    grep -E '^ *Summary ' "$log" >"$log.summary"
    mv "$log.summary" "$log"
    ran=$(number 'passed') bad=$(($(number 'failed') + $(number 'timed out') + $(number 'exec failed'))) left=$(number 'skipped')
else
    scripts/cargo.sh test --profile ci --workspace --lib --bins --tests --examples --no-fail-fast -- --quiet 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    ran=$(total 'passed;') bad=$(total 'failed;') left=$(total 'ignored;')
fi
# Did not build, or ran nothing: a failure that no count shows.
[ "$status" != 0 ] && [ "$bad" = 0 ] && bad=1
add "$ran" "$bad" "$left"

# Tests that return at once for want of a tool count as skipped, not as passed.
if command -v llvm-config-22 >/dev/null && [ ! -x "$(echo .venv/lib/python3*/site-packages/nvidia/cu13/bin/ptxas)" ] &&
    ! command -v "${ATTNC_PTXAS:-ptxas}" >/dev/null; then
    echo "skipped: the assembly of PTX needs ptxas (nvidia-cuda-nvcc in .venv)"
    add -10 0 10
fi

section "examples in the documentation of the crates"
scripts/cargo.sh test --profile ci --workspace --doc --no-fail-fast 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
bad=$(total 'failed;')
[ "$status" != 0 ] && [ "$bad" = 0 ] && bad=1
add "$(total 'passed;')" "$bad" "$(total 'ignored;')"

attnc=${CARGO_TARGET_DIR:-target}/ci/attnc
tool=../shared/tools/conformance.py
# The examples that must agree with the oracles; others are tried, once a target, too.
must=$(grep -v '^#' tests/data/conformance.txt | paste -sd,)
left=$(grep -v '^#' tests/data/nonconforming.txt | cut -d: -f1)
# conform NAME ARGUMENTS...
conform() {
    section "conformance: $1"
    if [ ! -x "$attnc" ]; then echo "no $attnc"; add 0 1 0; return; fi
    .venv/bin/python "$tool" --attnc "$attnc" --quiet "${@:2}" 2>&1 | tee "$log"
    local status=${PIPESTATUS[0]} bad
    bad=$(number 'failed,')
    [ "$status" != 0 ] && [ "$bad" = 0 ] && bad=1
    add "$(number 'passed,')" "$bad" "$(number 'missing')"
}
if [ -f "$tool" ] && .venv/bin/python -c 'import numpy, safetensors, ml_dtypes' 2>/dev/null; then
    all=$(.venv/bin/python "$tool" --list | grep -vxF "$left" | paste -sd,)
    for target in interp cpu; do
        conform "$target, all examples" --target $target --only "$all"
        add 0 0 "$(wc -w <<<"$left")"
        conform "$target, seed 3" --target $target --only "$must" --seed 3
        conform "$target, 131 positions" --target $target --only "$must" --size T=131
        conform "$target, three in the batch" --target $target --only "$must" --size B=3
    done
else
    echo "skipped: conformance needs $tool and .venv with numpy, safetensors and ml_dtypes"
    add 0 0 8
fi

printf '\n%s s\n%d passed, %d failed, %d skipped\n' "$SECONDS" "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
