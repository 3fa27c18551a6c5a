#!/usr/bin/env python3
"""Our kernels and what a user would pick instead, on one NVIDIA GPU, in one run: times by device events, the caches overwritten before each
run, median; error of our result against the peer's; ratios as a table at the end, one JSON object a case on the way.

    python3 scripts/bench-gpu.py [--attnc target/release/attnc] [--only full_D128,gla] [--peers all|none|cudnn,flex,fla,mlstm] [--json FILE]
                                 [--seconds 1] [--list] [--ceiling]

Programs: bench/gpu/*.attn. Peers: cuDNN and FlashAttention through torch, FlexAttention, flash-linear-attention (fla), mlstm_kernels; one that
is not installed, or cannot run a case, is told and left out. TFLOP/s count 4 B H D for each pair of positions that the mask admits (all
pairs for full attention), GB/s the keys and values of decoding; for scans the tokens a second.
"""
import argparse
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import torch
import torch.nn.functional as F

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEV = "cuda"
B, H, T, D = 2, 16, 8192, 128
SCALE = {"device": DEV, "dtype": torch.bfloat16}


def median_ms(call, seconds):
    import triton

    with torch.no_grad():
        return triton.testing.do_bench(call, warmup=min(60, 200 * seconds), rep=250 * seconds, return_mode="median")


def rand(*shape):
    return torch.randn(*shape, **SCALE)


def heads_first(x):
    """From [b,t,h,..], as fla has it, to [b,h,t,..]."""
    return x.transpose(1, 2).contiguous()


def pairs(mask, n):
    """How many of n x n pairs a mask admits, block by block."""
    rows, total = torch.arange(n, device=DEV), 0
    for start in range(0, n, 1024):
        columns = torch.arange(start, min(start + 1024, n), device=DEV)
        total += int(mask(0, 0, rows[:, None], columns[None, :]).expand(n, len(columns)).sum())
    return total


class Case:
    """program: file in bench/gpu. inputs(): tensors by our names. peers: name -> function of the inputs that returns a call."""

    def __init__(self, name, program, inputs, peers, flops=None, moved=None, tokens=None, sets=(), goal="", times_of=None):
        self.name, self.program, self.inputs, self.peers, self.flops, self.moved = name, program, inputs, peers, flops, moved
        self.tokens, self.sets, self.goal, self.times_of = tokens, sets, goal, times_of


def sdpa(backend, causal):
    def make(x):
        from torch.nn.attention import SDPBackend, sdpa_kernel

        kind = getattr(SDPBackend, backend)

        def call():
            with sdpa_kernel(kind):
                grouped = x["q"].shape[1] != x["k"].shape[1]
                return F.scaled_dot_product_attention(x["q"], x["k"], x["v"], is_causal=causal, enable_gqa=grouped)

        return call

    return make


def flex(mask=None, mod=None, grouped=False):
    def make(x):
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        # Every case is compiled afresh: after eight recompilations torch silently runs it unfused.
        torch._dynamo.reset()
        compiled = torch.compile(flex_attention, dynamic=False)
        n = x["q"].shape[2]
        block_mask = create_block_mask(mask(x), None, None, n, n, device=DEV) if mask else None
        score = mod(x) if mod else None
        return lambda: compiled(x["q"], x["k"], x["v"], score_mod=score, block_mask=block_mask, enable_gqa=grouped)

    return make


def fla(module, function, arguments, **more):
    def make(x):
        op = getattr(importlib.import_module("fla.ops." + module), function)
        given = [x["fla"][a] for a in arguments]
        return lambda: op(*given, **more)

    return make


def mlstm(kernel, chunk):
    def make(x):
        from mlstm_kernels.torch.backend_module import mLSTMBackend, mLSTMBackendConfig

        config = mLSTMBackendConfig(chunkwise_kernel=kernel, chunk_size=chunk, autocast_kernel_dtype="bfloat16", return_last_states=False, mode="train")
        backend = mLSTMBackend(config)
        return lambda: backend(q=x["q"], k=x["k"], v=x["v"], i=x["i_pre"], f=x["f_pre"])

    return make


def qkv(b=B, h=H, t=T, d=D, g=None, s=None, **more):
    def make():
        x = {"q": rand(b, h, t, d), "k": rand(b, g or h, s or t, d), "v": rand(b, g or h, s or t, d)}
        return x | {name: value() for name, value in more.items()}

    return make


def documents():
    return torch.sort(torch.randint(0, 12, (T,), device=DEV)).values.to(torch.int64)


def slopes():
    return torch.tensor([2 ** (-8 * (h + 1) / H) for h in range(H)], **SCALE)


def scan(gate=None, beta=False, unit=False):
    """Inputs in both layouts; gates as logarithms."""

    def make():
        q, k, v = rand(B, T, H, D), rand(B, T, H, D), rand(B, T, H, D)
        if unit:
            k = F.normalize(k.float(), dim=-1).to(torch.bfloat16)
        theirs = {"q": q, "k": k, "v": v}
        ours = {name: heads_first(x) for name, x in theirs.items()}
        if gate:
            # The same rounded numbers for both; fla wants scalar gates in f32.
            g = F.logsigmoid(torch.randn(*((B, T, H) if gate == "scalar" else (B, T, H, D)), device=DEV))
            g = g.to(torch.bfloat16) if gate == "scalar" else (g / 16).to(torch.bfloat16)
            theirs["g"], ours["log_alpha"] = g.float() if gate == "scalar" else g, heads_first(g)
        if beta:
            theirs["beta"] = torch.rand(B, T, H, **SCALE)
            ours["beta"] = heads_first(theirs["beta"])
        return ours | {"fla": theirs}

    return make


def mlstm_inputs():
    x = qkv()()
    return x | {"i_pre": rand(B, H, T).float(), "f_pre": (rand(B, H, T) + 4).float()}


def cases():
    causal = lambda x: lambda b, h, i, j: i >= j
    all_cases = []
    for b, h, t, d in [(2, 32, 8192, 64), (2, 16, 8192, 128), (2, 8, 8192, 256), (8, 16, 2048, 128), (16, 16, 1024, 128), (32, 16, 512, 128)]:
        for name in ("full", "causal"):
            flops = 4 * b * h * t * t * d * (0.5 if name == "causal" else 1)
            goal = "1.0 flex" if d == 256 or t < 8192 else "1.2 flex, 0.95 cudnn"
            is_causal = name == "causal"
            peers = {"cudnn": sdpa("CUDNN_ATTENTION", is_causal), "flash": sdpa("FLASH_ATTENTION", is_causal), "flex": flex(causal if is_causal else None)}
            label = f"{name}_D{d}" + (f"_T{t}" if t < 8192 else "")
            all_cases.append(Case(label, name, qkv(b, h, t, d), peers, flops=flops, goal=goal))
    masked = lambda name, mask, inputs=None, mod=None, **more: all_cases.append(
        Case(name, name, inputs or qkv(), {"flex": flex(mask, mod)}, flops=mask, goal="1.2 flex", **more)
    )
    masked("window", lambda x: lambda b, h, i, j: (i >= j) & (i - j < 1024))
    masked("sink_window", lambda x: lambda b, h, i, j: (i >= j) & ((i - j < 1024) | (j < 4)))
    masked("document", lambda x: lambda b, h, i, j: (i >= j) & (x["doc"][i] == x["doc"][j]), qkv(doc=documents))
    masked("prefix", lambda x: lambda b, h, i, j: (i >= j) | (j < 1024))
    masked("alibi", causal, qkv(slope=slopes), lambda x: lambda s, b, h, i, j: s + x["slope"][h] * (j - i))
    masked("softcap", causal, None, lambda x: lambda s, b, h, i, j: 30.0 * torch.tanh(s / 30.0))
    masked("dilated", lambda x: lambda b, h, i, j: (i >= j) & ((i - j) % 4 == 0) & (i - j < 4096))
    masked("neighbours2d", lambda x: lambda b, h, i, j: ((i // 64 - j // 64).abs() <= 6) & ((i % 64 - j % 64).abs() <= 6), qkv(t=4096))
    tokens = B * T
    linear = lambda name, inputs, peer: all_cases.append(Case(name, name, inputs, {"fla": peer}, tokens=tokens, goal="1.2 fla"))
    linear("linear", scan(), fla("linear_attn", "chunk_linear_attn", "qkv", normalize=False))
    linear("retention", scan(), fla("retention", "chunk_retention", "qkv"))
    linear("scalar_gate", scan("scalar"), fla("simple_gla", "chunk_simple_gla", "qkvg"))
    linear("gla", scan("vector"), fla("gla", "chunk_gla", "qkvg"))
    linear("delta", scan(beta=True, unit=True), fla("delta_rule", "chunk_delta_rule", ["q", "k", "v", "beta"]))
    linear("gated_delta", scan("scalar", True, True), fla("gated_delta_rule", "chunk_gated_delta_rule", ["q", "k", "v", "g", "beta"]))
    kernels = {f"mlstm {k.split('--')[1]}/{c}": mlstm(k, c) for k, c in [("chunkwise--triton_xl_chunk", 128), ("chunkwise--triton_limit_chunk", 64)]}
    all_cases.append(Case("mlstm", "mlstm", mlstm_inputs, kernels, tokens=tokens, goal="1.2 mlstm"))
    for b, n in [(1, 32768), (16, 8192), (1, 131072)]:
        peers = {"flash": sdpa("FLASH_ATTENTION", False), "cudnn": sdpa("CUDNN_ATTENTION", False), "flex": flex(grouped=True)}
        all_cases.append(Case(f"decode_{b}x{n // 1024}k", "decode", qkv(b, 32, 1, 128, g=8, s=n), peers, moved=2 * b * 8 * n * 128 * 2, goal="2.5 TB/s"))
    n, h = 131072, 4
    long = qkv(1, h, n, 128)
    all_cases.append(Case("causal_128k", "causal", long, {"cudnn": sdpa("CUDNN_ATTENTION", True)}, flops=4 * h * n * n * 128 / 2))
    all_cases.append(Case("block_topk_128k", "block_topk", long, {}, times_of="causal_128k", goal="5.0 our dense"))
    return all_cases


def ours(case, x, args):
    """The report of `attnc bench`, and our result."""
    from safetensors.torch import load_file, save_file

    folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=folder) as tmp:
        save_file({n: t.cpu().contiguous() for n, t in x.items() if isinstance(t, torch.Tensor)}, f"{tmp}/in.safetensors")
        command = [args.attnc, "bench", str(ROOT / "bench" / "gpu" / f"{case.program}.attn"), "--target", "ptx", "--json", "--dtype", "bf16"]
        command += ["--in", f"{tmp}/in.safetensors", "--out", f"{tmp}/out.safetensors", "--seconds", str(args.seconds), "--runs", "100"]
        # The ceilings are the same for all: once is enough.
        if args.measured:
            command.append("--brief")
        for setting in case.sets:
            command += ["--set", setting]
        start = time.time()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=args.timeout)
        except subprocess.TimeoutExpired:
            return {"error": f"no answer in {args.timeout} s"}, None
        if done.returncode:
            return {"error": (done.stderr or done.stdout).strip()[:300]}, None
        report = json.loads(done.stdout.strip().splitlines()[-1])
        report["process_s"] = time.time() - start
        return report, load_file(f"{tmp}/out.safetensors")["o"]


def error_of(got, want):
    want = want.float().cpu()
    if got.shape != want.shape:
        want = want.transpose(1, 2)
    return float((got.float() - want).norm() / want.norm())


def run(case, args):
    torch.manual_seed(0)
    x = case.inputs()
    line = {"case": case.name, "goal": case.goal, "peers": {}}
    flops = case.flops
    if callable(flops):
        n, d = x["q"].shape[2], x["q"].shape[3]
        flops = 4 * x["q"].shape[0] * x["q"].shape[1] * d * pairs(case.flops(x), n)
    rate = lambda ms: {"tflops": flops / ms / 1e9} if flops else {"gbps": case.moved / ms / 1e6} if case.moved else {"mtokens": case.tokens / ms / 1e3} if case.tokens else {}
    want = None
    for name, make in case.peers.items():
        if args.peers != "all" and not any(name.startswith(p) for p in args.peers.split(",")):
            continue
        try:
            call = make(x)
            with torch.no_grad():
                result = call()
            result = result[0] if isinstance(result, tuple) else result
            ms = median_ms(call, args.seconds)
            want = result if want is None else want
            line["peers"][name] = {"ms": ms} | rate(ms)
        except Exception as e:
            line["peers"][name] = {"error": f"{type(e).__name__}: {e}".replace("\n", " ")[:200]}
    torch.cuda.empty_cache()
    if not args.no_ours:
        report, got = ours(case, x, args)
        if "error" in report:
            line["ours"] = report
        else:
            ms = report["median_ms"]
            line["ours"] = {"ms": ms, "first_ms": report["first_ms"]} | rate(ms)
            if "matmul_gflops" in report:
                args.measured = True
                print(f"ceilings: {report['matmul_gflops'] / 1e3:.0f} TFLOP/s ({report['matmul_by']}), copy {report['copy_gbytes_per_s'] / 1e3:.2f} TB/s", flush=True)
            if want is not None:
                line["error"] = error_of(got, want)
            for peer in line["peers"].values():
                if "ms" in peer:
                    peer["ratio"] = peer["ms"] / ms
    del x, want
    torch.cuda.empty_cache()
    return line


def table(lines):
    by_name = {line["case"]: line for line in lines}
    print(f"\n{'case':18} {'ours ms':>9} {'rate':>15} {'error':>8}  time of the peer over ours                                  must")
    for line in lines:
        mine = line.get("ours", {})
        rate = next((f"{mine[k]:.1f} {unit}" for k, unit in (("tflops", "TFLOP/s"), ("gbps", "GB/s"), ("mtokens", "Mtok/s")) if k in mine), "")
        ms = f"{mine['ms']:.3f}" if "ms" in mine else "-"
        error = f"{line['error']:.1e}" if "error" in line else ""
        peers = [f"{name} {p['ratio']:.2f} ({p['ms']:.3f})" if "ratio" in p else f"{name} {p['ms']:.3f} ms" if "ms" in p else f"{name}: no" for name, p in line["peers"].items()]
        dense = by_name.get("causal_128k", {}).get("ours", {}).get("ms")
        if line["case"].startswith("block_topk") and dense and "ms" in mine:
            peers.append(f"our dense {dense / mine['ms']:.2f} ({dense:.3f})")
        print(f"{line['case']:18} {ms:>9} {rate:>15} {error:>8}  {', '.join(peers):58} {line['goal']}")
        for name, part in [("ours", mine)] + list(line["peers"].items()):
            if "error" in part:
                print(f"    {name}: {part['error']}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--attnc", default="target/release/attnc")
    p.add_argument("--only", default="", help="cases, or beginnings of their names")
    p.add_argument("--peers", default="all")
    p.add_argument("--json")
    p.add_argument("--seconds", type=float, default=1.0)
    p.add_argument("--timeout", type=float, default=120)
    p.add_argument("--no-ours", action="store_true", help="peers alone, for example to fill the caches of their tuning")
    p.add_argument("--list", action="store_true")
    args = p.parse_args()
    if args.peers == "none":
        args.peers = "-"
    chosen = [c for c in cases() if not args.only or any(c.name == o or c.name.startswith(o) for o in args.only.split(","))]
    if args.list:
        print("\n".join(c.name for c in chosen))
        return 0
    args.measured = False
    args.attnc = str(pathlib.Path(args.attnc).resolve())
    lines = []
    print(json.dumps({"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cudnn": torch.backends.cudnn.version()}), flush=True)
    for case in chosen:
        try:
            line = run(case, args)
        except Exception as e:  # one case must not end the run
            line = {"case": case.name, "goal": case.goal, "peers": {}, "ours": {"error": f"{type(e).__name__}: {e}"[:300]}}
        print(json.dumps(line), flush=True)
        lines.append(line)
        if args.json:
            pathlib.Path(args.json).write_text("\n".join(json.dumps(l) for l in lines) + "\n")
    table(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
