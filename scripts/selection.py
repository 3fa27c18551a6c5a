#!/usr/bin/env python3
"""Peak memory and time of selection mechanisms as their longest axis grows (table of docs/performance.md). Needs ../shared.

    scripts/selection.py [--attnc target/release/attnc] [--lengths 1024,4096,16384] [--runs 3] [SLUG...]

Inputs come from the oracles at batch 1 with one position axis set to the length; `mem` is the peak resident set of `attnc run`,
inputs and outputs included, `file` what these take; `ms` is the median wall time of the whole command.
"""
import argparse, importlib.util, os, pathlib, statistics, subprocess, tempfile, time
import numpy as np
from safetensors.numpy import save_file

# The size that is the length of the context, and others that go with it.
MECHANISMS = {
    "topk_softmax_attention": ("T", lambda n: dict(S=n)),
    "snapkv": ("T", lambda n: dict()),
    "speckv": ("T", lambda n: dict()),
    "quest": ("T", lambda n: dict()),
    "token_select": ("S", lambda n: dict()),
    "retrieval_attention": ("N", lambda n: dict()),
    "infllm_v2": ("T", lambda n: dict()),
    "minference_block_sparse": ("T", lambda n: dict()),
    "minference_vertical_slash": ("T", lambda n: dict()),
    "longheads": ("T", lambda n: dict()),
    "probsparse_attention": ("T", lambda n: dict()),
    "critic_kv_compression": ("T", lambda n: dict()),
}


def chosen(n):
    """Inputs of topk_softmax_attention, whose oracle makes them for lengths of its own only."""
    rng = np.random.default_rng(0)
    tensors = {k: rng.standard_normal((1, 2, n, 16)).astype(np.float32) for k in "qkv"}
    return "T", {**tensors, "valid_len": np.array([n], np.int64)}, ["topk=32", "causal=1", "uniform=0"]


def inputs(slug, n):
    if slug == "topk_softmax_attention":
        return chosen(n)
    path = pathlib.Path("../shared/reference") / f"{slug}.py"
    spec = importlib.util.spec_from_file_location("oracle_" + slug, path)
    oracle = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(oracle)
    axis, more = MECHANISMS[slug]
    if axis not in oracle.SIZES:
        axis = next(a for a in ("T", "S", "N") if a in oracle.SIZES)
    wanted = {axis: n, **{k: v for k, v in more(n).items() if k in oracle.SIZES}}
    if "B" in oracle.SIZES:
        wanted["B"] = 1
    x = {k: np.asarray(v) for k, v in oracle.make_inputs(np.random.default_rng(0), **wanted).items()}
    kinds = {"f": np.float32, "i": np.int64, "u": np.int64, "b": np.uint8}
    tensors = {k: np.ascontiguousarray(v.astype(kinds[v.dtype.kind])) for k, v in x.items() if v.ndim}
    scalars = [f"{k}={float(v)!r}" if v.dtype.kind == "f" else f"{k}={int(v)}" for k, v in x.items() if not v.ndim]
    return axis, tensors, scalars


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--attnc", default="target/release/attnc")
    p.add_argument("--lengths", default="1024,4096,16384")
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--timeout", type=float, default=120)
    p.add_argument("slugs", nargs="*")
    a = p.parse_args()
    lengths = [int(n) for n in a.lengths.split(",")]
    print("| mechanism | " + " | ".join(f"{n}: ms, MB (files)" for n in lengths) + " |")
    print("|---|" + "---|" * len(lengths))
    for slug in a.slugs or MECHANISMS:
        cells = []
        for n in lengths:
            try:
                axis, tensors, scalars = inputs(slug, n)
            except Exception as e:
                cells.append(f"the oracle refuses ({type(e).__name__})")
                continue
            with tempfile.TemporaryDirectory() as tmp:
                save_file(tensors, f"{tmp}/in.safetensors")
                command = [a.attnc, "run", f"dsl-examples/{slug}.attn", "--target", "cpu", "--in", f"{tmp}/in.safetensors", "--out", f"{tmp}/out.safetensors"]
                command += [x for s in scalars for x in ("--set", s)]
                times, peak, failed = [], 0, None
                for _ in range(a.runs):
                    start = time.perf_counter()
                    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                    error = child.stderr.read()
                    _, status, usage = os.wait4(child.pid, 0)
                    times.append(time.perf_counter() - start)
                    peak = max(peak, usage.ru_maxrss)
                    if status:
                        failed = error.decode().strip().splitlines()[0]
                        break
                size = sum(os.path.getsize(f"{tmp}/{f}.safetensors") for f in ("in", "out") if os.path.exists(f"{tmp}/{f}.safetensors"))
                cells.append(failed or f"{1e3 * statistics.median(times):.0f}, {peak / 1e3:.0f} ({size / 1e6:.0f})")
        print(f"| {slug} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
