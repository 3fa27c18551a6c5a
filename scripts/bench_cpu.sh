#!/usr/bin/env bash
# Times kernels and their PyTorch peers on this processor in one run; arguments go to bench_cpu.py (see its --help).
# PyTorch lives in .venv-bench, which nothing else needs (about 5 GB).
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-bench
if ! $venv/bin/python -c 'import torch, numpy, safetensors' 2>/dev/null; then
    echo "making $venv" >&2
    python3 -m venv $venv
    $venv/bin/pip install -q --disable-pip-version-check torch numpy safetensors
fi
# MKL takes its AVX2 code on processors of other makers; a library that answers its question lifts that.
shim=${CARGO_TARGET_DIR:-target}/mkl_any_maker.so
if [ ! -e "$shim" ]; then
    mkdir -p "$(dirname "$shim")"
    echo 'int mkl_serv_intel_cpu_true(void) { return 1; }' | cc -shared -fPIC -x c -o "$shim" - || shim=
fi
exec $venv/bin/python scripts/bench_cpu.py --attnc "${ATTNC:-${CARGO_TARGET_DIR:-target}/release/attnc}" --shim "$shim" "$@"
