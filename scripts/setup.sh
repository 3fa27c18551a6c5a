#!/usr/bin/env bash
# Installs what is missing and nothing else; a second call does nothing. What cannot be installed (no root, no network) is told
# in one line, and the parts of the tests that need it are counted as skipped.
set -uo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo -n "$@"
    else return 1
    fi
}

installed() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'; }

if command -v apt-get >/dev/null; then
    missing=()
    # LLVM for the ptx feature; Mesa's software Vulkan device for tests of WGSL; Python for conformance against NumPy.
    for package in llvm-22-dev mesa-vulkan-drivers libvulkan1 python3-venv; do
        installed "$package" || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        say "installing ${missing[*]}"
        get=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -qq)
        known=1
        for package in "${missing[@]}"; do apt-cache show "$package" >/dev/null 2>&1 || known=0; done
        if ! { { [ $known = 1 ] && as_root "${get[@]}" install -y --no-install-recommends "${missing[@]}"; } ||
               { as_root "${get[@]}" update && as_root "${get[@]}" install -y --no-install-recommends "${missing[@]}"; }; }; then
            # One package that cannot be had must not keep the others away.
            for package in "${missing[@]}"; do
                as_root "${get[@]}" install -y --no-install-recommends "$package" || say "no $package"
            done
        fi >/dev/null
    fi
else
    say "no apt-get: install LLVM 22, a Vulkan driver and Python's venv by other means"
fi

if ! .venv/bin/python -c 'import numpy, safetensors, ml_dtypes' 2>/dev/null; then
    say "making .venv"
    { python3 -m venv .venv && .venv/bin/pip install -q --disable-pip-version-check numpy safetensors ml_dtypes; } ||
        say "no Python environment: conformance will be skipped"
fi

if [ -x .venv/bin/pip ] && [ ! -x "$(echo .venv/lib/python3*/site-packages/nvidia/cu13/bin/ptxas)" ]; then
    say "adding ptxas to .venv"
    # Without its dependencies: they are for a whole tool chain.
    .venv/bin/pip install -q --disable-pip-version-check --no-deps nvidia-cuda-nvcc==13.0.88 ||
        say "no ptxas: the assembly of PTX is not checked"
fi

command -v llvm-config-22 >/dev/null || say "no LLVM 22: built without the ptx feature"
exit 0
