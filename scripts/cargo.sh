#!/usr/bin/env bash
# cargo with the features that this machine can build: `ptx` where LLVM 22 is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
if command -v llvm-config-22 >/dev/null && [ -f "$(llvm-config-22 --includedir)/llvm-c/Core.h" ]; then
    LLVM_SYS_221_PREFIX="$(llvm-config-22 --prefix)"
    export LLVM_SYS_221_PREFIX
    first=$1
    shift
    # `nextest run` is a command of two words.
    if [ "$first" = nextest ]; then
        second=$1
        shift
        exec cargo nextest "$second" --features ptx "$@"
    fi
    exec cargo "$first" --features ptx "$@"
fi
exec cargo "$@"
