#!/usr/bin/env python3
"""Small inputs and outputs of every oracle as tests/golden/SLUG.safetensors, so that the tests need neither ../shared nor Python.

    scripts/golden.py [--reference ../shared/reference] [--out tests/golden] [SLUG...]

Tensors `in.NAME` and `out.NAME` (reals f32, ints i64, bools u8); scalars stand in the header's metadata, as text. The oracle is
evaluated in f64 on the inputs as they are stored. Same inputs give the same bytes, so running it again changes nothing.
"""
import argparse, importlib.util, json, pathlib, struct, sys
import numpy as np

TYPES = {"f4": ("F32", np.float32), "i8": ("I64", np.int64), "u1": ("U8", np.uint8)}
# Sizes at which an oracle says as much in less room.
SIZES = {"head_gated_softmax": dict(T=24), "attention_calibration": dict(T=24), "s2_attention": dict(T=64)}


def stored(x):
    x = np.asarray(x)
    return np.ascontiguousarray(x.astype(np.float32 if x.dtype.kind == "f" else np.uint8 if x.dtype.kind == "b" else np.int64))


def write(path, tensors, scalars):
    """Sorted names and no padding but the format's own: the bytes depend on the contents only."""
    header, at = {"__metadata__": dict(sorted(scalars.items()))} if scalars else {}, 0
    for name, x in sorted(tensors.items()):
        header[name] = dict(dtype=TYPES[x.dtype.str[1:]][0], shape=list(x.shape), data_offsets=[at, at + x.nbytes])
        at += x.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(x.tobytes() for _, x in sorted(tensors.items())))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--reference", default="../shared/reference", type=pathlib.Path)
    p.add_argument("--out", default="tests/golden", type=pathlib.Path)
    p.add_argument("slugs", nargs="*")
    a = p.parse_args()
    if not a.reference.is_dir():
        print(f"no oracles at {a.reference}: the golden data stay as they are")
        return 0
    a.out.mkdir(parents=True, exist_ok=True)
    total = 0
    for path in sorted(a.reference.glob("*.py")):
        if a.slugs and path.stem not in a.slugs:
            continue
        spec = importlib.util.spec_from_file_location("oracle_" + path.stem, path)
        oracle = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(oracle)
        sizes = SIZES.get(path.stem, {})
        x = {k: np.asarray(v) for k, v in oracle.make_inputs(np.random.default_rng(0), **sizes).items()}
        given = {k: stored(v) for k, v in x.items() if v.ndim}
        exact = {k: v.astype(np.float64) if x[k].dtype.kind == "f" else x[k] for k, v in given.items()}
        scalars = {k: v for k, v in x.items() if not v.ndim}
        want = oracle.reference(**exact, **{k: v[()] for k, v in scalars.items()})
        tensors = {f"in.{k}": v for k, v in given.items()} | {f"out.{k}": stored(v) for k, v in want.items()}
        file = a.out / f"{path.stem}.safetensors"
        write(file, tensors, {k: repr(float(v)) if v.dtype.kind == "f" else str(int(v)) for k, v in scalars.items()})
        total += file.stat().st_size
    print(f"{total / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
