#!/usr/bin/env python3
"""Times programs of this repository and their PyTorch peers on this processor, in one run, and prints a table.

    make bench-cpu                                     everything (an hour on a quiet machine)
    make bench-cpu ARGS='--cases full,causal --shapes 2048x64 --threads 1 --dtypes f32'

Ours and the peers are sampled in turn, round by round; medians over the rounds. Peers: scaled_dot_product_attention (SDPA), compiled
FlexAttention with a block mask (Flex), and for recurrences the fastest of several eager chunked forms and chunk lengths. Each peer runs
twice, as installed and with its MKL allowed AVX-512 ("open"). GFLOP/s count what a mask keeps, 4 D a (query, key) pair; a recurrence
counts as 4 D (D + 64) a position, the work of chunks of 64. `error` is the largest difference from the peer, relative to its largest value.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
HEADS, CHUNK, WINDOW, DOCUMENTS = 8, 64, 256, 12
# Case: (program, kernel, peers).
OWN = "tests/in/bench.attn"
CASES = {
    "full": (OWN, "dense", ["full"]),
    "causal": (OWN, "causal", ["causal", "flex causal"]),
    "window": ("dsl-examples/sliding_window.attn", None, ["flex window"]),
    "alibi": (OWN, "slopes", ["flex alibi"]),
    "softcap": (OWN, "softcap", ["flex softcap"]),
    "document": (OWN, "documents", ["flex document"]),
    "linear": (OWN, "linear", ["linear"]),
    "retention": (OWN, "decayed", ["retention"]),
    "gla": ("dsl-examples/gla.attn", None, ["gla"]),
    "delta": ("dsl-examples/delta_rule.attn", None, ["delta"]),
    "gated_delta": ("dsl-examples/gated_delta_rule.attn", None, ["gated_delta"]),
    "decode": ("dsl-examples/softmax_causal.attn", None, ["decode"]),
}
EXTRA = ["compile", "length"]


def document_starts(t):
    return sorted({0, *torch.randint(1, max(t, 2), (DOCUMENTS - 1,), generator=torch.Generator().manual_seed(1)).tolist()})


def inputs(case, t, d, dtype):
    """Tensors by the names that the program gives them; others belong to peers only."""
    g = torch.Generator().manual_seed(0)
    randn = lambda *shape: torch.randn(*shape, generator=g)
    keys = 32768 if case == "decode" else t
    x = {"q": randn(1, HEADS, 1 if case == "decode" else t, d), "k": randn(1, HEADS, keys, d), "v": randn(1, HEADS, keys, d)}
    if case == "alibi":
        x["slope"] = 2.0 ** (-8 * torch.arange(1, HEADS + 1) / HEADS)
    if case == "retention":
        x["gamma"] = 1 - 2.0 ** (-5 - torch.arange(HEADS))
    if case == "gla":
        x["log_alpha"] = torch.nn.functional.logsigmoid(randn(1, HEADS, t, d)) / 16
    if case == "gated_delta":
        x["log_alpha"] = torch.nn.functional.logsigmoid(randn(1, HEADS, t)) / 16
    if case in ("delta", "gated_delta"):
        x["k"] = torch.nn.functional.normalize(x["k"], dim=-1)
        x["beta"] = torch.sigmoid(randn(1, HEADS, t))
    if case in ("gla", "delta", "gated_delta"):
        x["s0"] = torch.zeros(1, HEADS, d, d)
    x = {n: y.to(DTYPES[dtype]).contiguous() for n, y in x.items()}
    if case == "document":
        starts = torch.tensor(document_starts(t))
        x["document"] = torch.bucketize(torch.arange(t), starts, right=True).to(torch.int64) - 1
    return x


def pairs(case, t):
    causal = t * (t + 1) // 2
    if case == "full":
        return t * t
    if case == "window":
        return sum(min(i + 1, WINDOW) for i in range(t))
    if case == "document":
        bounds = [*document_starts(t), t]
        return sum((b - a) * (b - a + 1) // 2 for a, b in zip(bounds, bounds[1:]))
    return causal


def flops(case, t, d):
    if case in ("linear", "retention", "gla", "delta", "gated_delta"):
        return 4 * HEADS * t * d * (d + CHUNK)
    return 4 * HEADS * d * (32768 if case == "decode" else pairs(case, t))


class Peer:
    """A process with PyTorch in it."""

    def __init__(self, threads, shim):
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        if shim:
            env["LD_PRELOAD"] = os.path.abspath(shim)
        self.process = subprocess.Popen([sys.executable, os.path.join(HERE, "bench_peers.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)

    def ask(self, **request):
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline() or '{"error": "the process ended"}')
        except OSError as e:
            return {"error": str(e)}

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Ours:
    def __init__(self, attnc, threads):
        self.attnc, self.env = attnc, {**os.environ, "ATTNC_THREADS": str(threads)}

    def call(self, *args):
        done = subprocess.run([self.attnc, *args], env=self.env, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip().splitlines()[0] if done.stderr.strip() else f"exit {done.returncode}")
        return done.stdout

    def program(self, case):
        file, kernel, _ = CASES[case]
        return [file] + (["--kernel", kernel] if kernel else [])

    def run(self, case, file, out):
        self.call("run", *self.program(case), "--target", "cpu", "--in", file, "--out", out)
        return load_file(out)["o"]

    def sample(self, case, file, seconds):
        report = self.call("bench", *self.program(case), "--target", "cpu", "--in", file, "--seconds", str(seconds), "--json", "--brief")
        return json.loads(report)["median_ms"] / 1e3


def difference(a, b):
    a, b = a.double(), b.double()
    return ((a - b).abs().max() / b.abs().max().clamp(min=1e-30)).item()


def race(case, t, d, dtype, threads, ours, peers, args, where):
    x = inputs(case, t, d, dtype)
    file, theirs = os.path.join(where, "in.safetensors"), os.path.join(where, "theirs.safetensors")
    out = os.path.join(where, "ours.safetensors")
    known = {"q", "k", "v", "slope", "gamma", "log_alpha", "beta", "s0", "document"}
    save_file({n: y for n, y in x.items() if n in known}, file)
    row = {"case": case, "t": t, "d": d, "dtype": dtype, "threads": threads, "peers": {}}
    mine = None
    try:
        mine = ours.run(case, file, out)
    except RuntimeError as e:
        row["error"] = str(e)
    for label in CASES[case][2]:
        for state, peer in peers.items():
            loaded = peer.ask(case=label, file=file, out=theirs)
            name = f"{loaded.get('form', label)} {state}".strip()
            row["peers"][name] = {"failed": loaded["error"]} if "error" in loaded else {"first_s": loaded["first"]}
            if "error" in loaded:
                continue
            if mine is not None:
                row["difference"] = difference(mine, load_file(theirs)["o"])
            times, own = [], row.setdefault("times", [])
            for _ in range(args.rounds):
                if mine is not None:
                    own.append(ours.sample(case, file, args.seconds))
                answer = peer.ask(sample=args.seconds)
                if "time" in answer:
                    times.append(answer["time"])
            if times:
                row["peers"][name].update(s=statistics.median(times), ours_s=statistics.median(own[-args.rounds :]) if own else None)
    if row.get("times"):
        row["s"] = statistics.median(row["times"])
        row["gflops"] = flops(case, t, d) / row["s"] / 1e9
    return row


def show(row, copy):
    head = f"{row['dtype']:4} t{row['threads']} {row['case']:11} T{row['t']:<5} D{row['d']:<3}"
    if "s" not in row:
        print(f"{head} FAILED {row.get('error')}", flush=True)
        return
    text = f"{head} {row['s'] * 1e3:9.2f} ms {row['gflops']:7.1f} GFLOP/s"
    if row["case"] == "decode":
        size = {"f32": 4, "bf16": 2}[row["dtype"]] * 2 * HEADS * 32768 * row["d"]
        row["share_of_copy"] = size / row["s"] / copy
        text += f" {size / row['s'] / 1e9:6.1f} GB/s ({100 * row['share_of_copy']:.0f} % of a copy, {copy / 1e9:.1f})"
    if "difference" in row:
        text += f" | error {row['difference']:.0e}"
    for name, p in row["peers"].items():
        if "s" in p and p.get("ours_s"):
            p["ratio"] = p["s"] / p["ours_s"]
            text += f" | {name} {p['s'] * 1e3:.2f} ms, x{p['ratio']:.2f}"
        else:
            text += f" | {name} failed: {p.get('failed', '')[:60]}"
    print(text, flush=True)


def compile_times(ours):
    """The whole process, from reading the program to machine code; the median of five."""
    rows, seen = [], set()
    for case, (file, kernel, _) in CASES.items():
        if (file, kernel) in seen:
            continue
        seen.add((file, kernel))
        times = []
        for _ in range(5):
            start = time.perf_counter()
            ours.call("compile", *ours.program(case), "--target", "cpu", "--set", "d=64", "--set", "e=64", "--emit", "clif")
            times.append(time.perf_counter() - start)
        rows.append({"case": f"compile {case}", "s": statistics.median(times)})
        print(f"compile {case:11} {rows[-1]['s'] * 1e3:6.1f} ms", flush=True)
    return rows


def lengths(ours, where):
    """Time against length, one thread's worth of heads."""
    rows = []
    for case in ("linear", "retention", "gla", "delta", "gated_delta"):
        for t in (1024, 4096, 16384, 65536):
            file = os.path.join(where, "in.safetensors")
            save_file(inputs(case, t, 64, "f32"), file)
            s = ours.sample(case, file, 1.0)
            rows.append({"case": f"length {case}", "t": t, "s": s})
            print(f"length {case:11} T{t:<6} {s * 1e3:9.2f} ms, {s / t * 1e9 / HEADS:7.1f} ns a position of a head", flush=True)
    return rows


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--attnc", default="target/release/attnc")
    ap.add_argument("--shim", default="", help="library that opens MKL's AVX-512 code; none: peers run as installed only")
    ap.add_argument("--cases", default=",".join([*CASES, *EXTRA]), help="of: " + " ".join([*CASES, *EXTRA]))
    ap.add_argument("--shapes", default="2048x64,2048x128,4096x64,4096x128", help="TxD, ..")
    ap.add_argument("--dtypes", default="f32,bf16")
    ap.add_argument("--threads", default="1,2")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--seconds", type=float, default=0.3, help="of each sample")
    ap.add_argument("--json", help="file for all figures")
    args = ap.parse_args()
    cases = args.cases.split(",")
    unknown = [c for c in cases if c not in CASES and c not in EXTRA] + [d for d in args.dtypes.split(",") if d not in DTYPES]
    if unknown:
        ap.error(f"unknown: {', '.join(unknown)}")
    shapes = [tuple(map(int, s.split("x"))) for s in args.shapes.split(",")]
    attnc, rows = os.path.abspath(args.attnc), []
    with tempfile.TemporaryDirectory() as where:
        for threads in map(int, args.threads.split(",")):
            ours = Ours(attnc, threads)
            if "compile" in cases and not any(r["case"].startswith("compile") for r in rows):
                rows += compile_times(ours)
            if "length" in cases and not any(r["case"].startswith("length") for r in rows):
                rows += lengths(ours, where)
            raced = [c for c in cases if c in CASES]
            if not raced:
                continue
            peers = {"": Peer(threads, None)}
            if args.shim:
                peers["open"] = Peer(threads, args.shim)
            copy = peers[""].ask(copy=True).get("rate", float("nan"))
            for dtype in args.dtypes.split(","):
                for case in raced:
                    done = set()
                    for t, d in shapes:
                        if case == "decode":
                            t = 1
                        if (t, d) in done:
                            continue
                        done.add((t, d))
                        row = race(case, t, d, dtype, threads, ours, peers, args, where)
                        show(row, copy)
                        rows.append(row)
            for peer in peers.values():
                peer.close()
    if args.json:
        with open(args.json, "w") as f:
            json.dump(rows, f, indent=1)


if __name__ == "__main__":
    main()
