#!/usr/bin/env python3
"""Baton beside llama.cpp on one machine: one GGUF file, equal threads, in turns (A B B A ...), with the machine's probe between.

    llama_cpp.py --llama-bench PATH... --baton PATH --model FILE.gguf --out RESULT.json
                 [--pairs 10] [--threads 2] [--prompt 512] [--decode 64] [--depth 0,2048]

A is `baton bench model`, B `llama-bench`, each a process of its own for every window: the prefill of --prompt tokens, or
--decode tokens one at a time after --depth others. `baton probe` runs before, between and after a pair's two windows; a pair
counts if the limit that holds for it (arithmetic for prefill, reading memory for decode) is within 10 % in all three.
--llama-bench may be repeated, for other builds; of all builds, with and without flash attention, short trials choose the
fastest for each test. The result is written after every test. Standard library only.
"""
import argparse
import itertools
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import gguf_file

STEADY = 1.10
WARM_PROMPT = 16  # `bench model` always measures a prefill too
ROOFS = {"int8": ("int8_dot_gops", "amx_int8_gops"), "BF16": ("fma_gflops", "bf16_dot_gflops", "amx_bf16_gflops"),
         "other": ("fma_gflops",)}
FORMULAS = {
    "ratio": "Baton's tokens per second over llama.cpp's, per pair",
    "steady": "all three probes of a pair within 10 % of each other in the limit of the test; the others are dropped",
    "per_cent_of_probe": "decode: (bytes of weights that a token needs, in the file's coding, and 2 bytes a value of KV) x "
                         "tokens per second / bytes per second read by the probe; prefill: operations (2 per parameter "
                         "of the matrices and token, the head once, 4 per head, head dimension, layer and earlier token) "
                         "per second / the probe's; the mean of the probes before and after the window",
    "per_cent_of_best_probe": "the same over the best probe of the test",
    "baton": "samples a token (greedy) in every step of decode; llama-bench samples none",
}


# ---- children ----

class Runner:
    """Runs one child at a time, within the time that is left for all."""

    def __init__(self, limit_s, each_s):
        self.end, self.each_s, self.child = time.monotonic() + limit_s, each_s, None
        for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(s, lambda number, _: sys.exit(128 + number))

    def left(self):
        return self.end - time.monotonic()

    def output(self, command):
        limit = min(self.left(), self.each_s)
        if limit <= 0:
            raise TimeoutError("no time is left")
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, err = self.child.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{shown(command)}: over {limit:.0f} s") from None
        finally:
            if self.child.poll() is None:
                self.child.kill()
                self.child.wait()
        if self.child.returncode:
            raise RuntimeError(f"{shown(command)}: exit {self.child.returncode}: {err.strip()[-400:]}")
        return out


def shown(command):
    """Without the folders of this machine."""
    return shlex.join(os.path.basename(word) if os.path.isabs(word) else word for word in command)


# ---- the two programs ----

def baton_command(a, test):
    prefill = test["phase"] == "prefill"
    return [a.baton, "bench", "model", a.model, "--batch", "1", "--depth", str(1 if prefill else max(1, test["depth"])),
            "--prompt-tokens", str(a.prompt if prefill else WARM_PROMPT), "--gen-tokens", str(1 if prefill else a.decode),
            "--repetitions", str(a.repetitions), "--threads", str(a.threads), "--kv-dtype", "fp16", *a.baton_arg]


def run_baton(a, runner, test):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "result.json")
        runner.output(baton_command(a, test) + ["--json", path])
        with open(path, encoding="utf-8") as f:
            result = json.load(f)
    row = next(r for r in result["rows"] if r["phase"] == test["phase"])
    return row["tokens_per_second"], result["revision"]


def llama_command(a, build, flash, test):
    prefill = test["phase"] == "prefill"
    return [build, "-m", a.model, "-p", str(a.prompt if prefill else 0), "-n", str(0 if prefill else a.decode),
            "-d", str(test["depth"]), "-r", str(a.repetitions), "-t", str(a.threads), "-ngl", "0", "-fa", str(flash),
            "-ctk", "f16", "-ctv", "f16", "-o", "json"]


def run_llama(a, runner, variant, test):
    row = json.loads(runner.output(llama_command(a, *variant, test)))[0]
    return statistics.median(row["samples_ts"]), row


def probe(a, runner):
    out = json.loads(runner.output([a.baton, "probe", "--threads", str(a.threads)]))
    return out["limits"][0] | {"cpu": out["probe"]["cpu"], "kernels": out["probe"]["kernels"],
                               "load": os.getloadavg()[0]}


# ---- what the limits are ----

def roof(p, test, kind):
    """Bytes or operations per second."""
    if test["phase"] == "decode":
        return p["read_gbytes_per_second"] * 1e9
    names = ROOFS["int8" if kind.startswith("Q") else kind if kind == "BF16" else "other"]
    return max(p[name] or 0 for name in names) * 1e9


def work(a, test, facts):
    """Bytes or operations per token."""
    if test["phase"] == "decode":
        return facts["bytes_per_token"] + facts["kv_bytes_per_token"] * (test["depth"] + a.decode / 2)
    earlier = test["depth"] + (a.prompt + 1) / 2
    return (2 * facts["matrix_parameters_per_token"] + 2 * facts["head_parameters"] / a.prompt +
            4 * facts["attention_width"] * earlier)


def spread(values):
    if not values:
        return None
    q = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": round(statistics.median(values), 3), "quartiles": [round(q[0], 3), round(q[2], 3)],
            "least": round(min(values), 3), "most": round(max(values), 3), "of": len(values)}


# ---- measuring ----

def best_variant(a, runner, test):
    """Each build with and without flash attention, in turns; what each came to, the fastest first."""
    variants = list(itertools.product(a.llama_bench, (0, 1)))
    got = {v: [] for v in variants}
    for turn in range(a.trials):
        for v in variants if turn % 2 == 0 else reversed(variants):
            got[v].append(run_llama(a, runner, v, test)[0])
    order = sorted(variants, key=lambda v: -statistics.median(got[v]))
    return order[0], [{"build": a.llama_bench.index(v[0]), "flash_attention": v[1],
                       "tokens_per_second": [round(x, 2) for x in got[v]]} for v in order]


def measure_pairs(a, runner, test, variant, kind):
    """Pairs until enough are steady. Each: who ran first, what both came to, the three probes."""
    pairs, before = [], probe(a, runner)
    while sum(p["steady"] for p in pairs) < a.pairs and len(pairs) < a.pairs_most:
        pair = {"order": ("AB", "BA")[len(pairs) % 2], "probes": [before]}
        for side in pair["order"]:
            pair[side], facts = run_baton(a, runner, test) if side == "A" else run_llama(a, runner, variant, test)
            pair["of " + side] = facts
            pair["probes"].append(probe(a, runner))
        before = pair["probes"][-1]
        limits = [roof(p, test, kind) for p in pair["probes"]]
        pair["steady"] = max(limits) <= STEADY * min(limits)
        pair["limits"] = limits
        pairs.append(pair)
        print(f"  {pair['order']}  baton {pair['A']:9.2f}  llama.cpp {pair['B']:9.2f}  ratio {pair['A'] / pair['B']:6.2f}"
              f"  limits {' '.join(f'{x / 1e9:.1f}' for x in limits)}  load {before['load']:.1f}", flush=True)
    return pairs


def of_probe(pairs, side, each, best=None):
    """Per cent of the mean of the two probes around each window, or of `best`."""
    out = []
    for p in pairs:
        at = p["order"].index(side)
        out.append(100 * p[side] * each / (best or (p["limits"][at] + p["limits"][at + 1]) / 2))
    return spread(out)


def summarize_side(pairs, side, each, best):
    return {"tokens_per_second": spread([p[side] for p in pairs]), "per_cent_of_probe": of_probe(pairs, side, each),
            "per_cent_of_best_probe": of_probe(pairs, side, each, best)}


def measure(a, runner, test, facts):
    name = test["phase"] + (f" at depth {test['depth']}" if test["phase"] == "decode" else f" of {a.prompt}")
    print(f"{os.path.basename(a.model)}: {name}", flush=True)
    variant, trials = best_variant(a, runner, test)
    pairs = measure_pairs(a, runner, test, variant, facts["type"])
    kept, each = [p for p in pairs if p["steady"]], work(a, test, facts)
    best = max(x for p in pairs for x in p["limits"])
    row = {"test": name, **test, "pairs": len(pairs), "dropped": len(pairs) - len(kept),
           "ratio": spread([p["A"] / p["B"] for p in kept]), "ratio_of_all_pairs": spread([p["A"] / p["B"] for p in pairs]),
           ("bytes" if test["phase"] == "decode" else "operations") + "_per_token": round(each),
           "counted": "steady pairs" if kept else "all pairs: none was steady",
           "baton": summarize_side(kept or pairs, "A", each, best),
           "llama_cpp": summarize_side(kept or pairs, "B", each, best) | {"variant": trials[0], "trials": trials},
           "limit_giga_per_second": spread([x / 1e9 for p in pairs for x in p["limits"]]),
           "load": spread([q["load"] for p in pairs for q in p["probes"]]),
           "commands": {"A": shown(baton_command(a, test)), "B": shown(llama_command(a, *variant, test))},
           "all_pairs": [{"order": p["order"], "baton": round(p["A"], 3), "llama_cpp": round(p["B"], 3),
                          "limits_giga_per_second": [round(x / 1e9, 2) for x in p["limits"]]} for p in pairs]}
    r = row["ratio"] or row["ratio_of_all_pairs"]
    print(f"  ratio {r['median']:.2f} [{r['quartiles'][0]:.2f}, {r['quartiles'][1]:.2f}] of {r['of']} pairs, "
          f"{row['dropped']} of {len(pairs)} dropped\n", flush=True)
    return row, pairs[-1]


# ---- the command ----

def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--llama-bench", action="append", required=True, metavar="PATH", help="may be repeated: the best counts")
    p.add_argument("--baton", required=True, metavar="PATH")
    p.add_argument("--model", required=True, metavar="FILE", help="a GGUF file (make_gguf.py)")
    p.add_argument("--out", required=True, metavar="JSON")
    p.add_argument("--pairs", type=int, default=10, metavar="N", help="steady pairs of each test (10)")
    p.add_argument("--pairs-most", type=int, metavar="N", help="pairs after which a test ends all the same (twice --pairs)")
    p.add_argument("--threads", type=int, default=2, metavar="K", help="(2)")
    p.add_argument("--prompt", type=int, default=512, metavar="N", help="tokens of a prefill; 0: no such test (512)")
    p.add_argument("--decode", type=int, default=64, metavar="N", help="tokens of a decode; 0: no such test (64)")
    p.add_argument("--depth", default="0", metavar="N,...", help="tokens before those that are decoded (0)")
    p.add_argument("--repetitions", type=int, default=1, metavar="N", help="within a window; the median counts (1)")
    p.add_argument("--trials", type=int, default=2, metavar="N", help="of each build, with and without flash attention (2)")
    p.add_argument("--baton-arg", action="append", default=[], metavar="ARG", help="more for `baton bench model`")
    p.add_argument("--limit-s", type=float, default=7200, metavar="S", help="the whole run ends by then (7200)")
    p.add_argument("--window-limit-s", type=float, default=600, metavar="S", help="one window ends by then (600)")
    a = p.parse_args()
    a.pairs_most = a.pairs_most or 2 * a.pairs
    a.baton, a.model = os.path.abspath(a.baton), os.path.abspath(a.model)
    a.llama_bench = [os.path.abspath(b) for b in a.llama_bench]
    return a


def main():
    a = arguments()
    runner, facts = Runner(a.limit_s, a.window_limit_s), gguf_file.facts(a.model)
    tests = [{"phase": "prefill", "depth": 0}] if a.prompt else []
    tests += [{"phase": "decode", "depth": int(d)} for d in a.depth.split(",")] if a.decode else []
    given = [os.path.basename(w) if os.path.isabs(w) or os.sep in w else w for w in sys.argv[1:]]
    out = {"command": shlex.join(["tools/peers/llama_cpp.py", *given]),
           "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "model": os.path.basename(a.model), "file": facts,
           "threads": a.threads, "kv_dtype": "fp16", "formulas": FORMULAS, "rows": []}
    try:
        for test in tests:
            row, last = measure(a, runner, test, facts)
            llama = last["of B"]
            out |= {"cpu": last["probes"][-1]["cpu"], "baton_revision": last["of A"],
                    "baton_kernels": last["probes"][-1]["kernels"],
                    "llama_cpp": {k: llama[k] for k in ("build_commit", "build_number", "backends", "cpu_info")}}
            out["rows"].append(row)
            with open(a.out, "w", encoding="utf-8") as f:
                json.dump(out, f, indent=1)
                f.write("\n")
    except (TimeoutError, RuntimeError) as e:
        sys.exit(f"llama_cpp.py: {e}")


if __name__ == "__main__":
    main()
