#!/usr/bin/env python3
"""Baton beside llama.cpp on one machine: one GGUF file (or, for Baton, the same weights otherwise stored: --baton-model,
--baton-weights), equal threads, in turns (A B B A ...), probes between.

    llama_cpp.py --llama-bench PATH... --baton PATH --model FILE.gguf --out RESULT.json
                 [--pairs 10] [--threads 2] [--prompt 512] [--decode 64] [--depth 0,2048]
                 [--batch 8,32]

A is `baton bench model`, B `llama-bench`, each a process of its own for every window: the prefill of --prompt tokens,
and --decode tokens one at a time after --depth others (each depth but 0 in windows of its own). With --batch B is
`llama-batched-bench` in one more window: so many sequences, each of --batch-depth tokens, then --decode steps of all.
`baton probe` runs before, between and after a pair's two windows; a pair counts if the limit that holds for it
(arithmetic or reading memory, whichever takes longer) is within 10 % in all three. --llama-bench may be repeated, for other builds, and may begin
with settings of the environment ("OMP_WAIT_POLICY=passive PATH"), which matter where the cores are shared; of all of
them, with and without flash attention, short trials choose the fastest (where there is more than one), by the product of its
speeds in a window. The result is written after every test. Standard library only.
"""
import argparse
import contextlib
import fcntl
import json
import math
import os
import re
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
ROOFS = {"int8": ("fma_gflops", "int8_dot_gops", "amx_int8_gops"), "BF16": ("fma_gflops", "bf16_dot_gflops", "amx_bf16_gflops"),
         "other": ("fma_gflops",)}
FORMULAS = {
    "ratio": "Baton's tokens per second over llama.cpp's, per pair",
    "steady": "all three probes of a pair within 10 % of each other in the limit of the test, and of as many bytes read; the "
              "others are dropped",
    "ratio_of_steady_arithmetic": "of the pairs whose three probes are within 10 % in multiply-adds alone, whatever "
                                  "reading memory came to: the cores were shared alike",
    "per_cent_of_probe": "the time of a token at the probe's limits x tokens per second; the time is that of reading "
                         "(weights once per step, in the file's coding, of a mixture's experts as many as so many "
                         "tokens touch on average; 2 bytes a value of KV) or of operations (2 per parameter of the "
                         "matrices and token, the head once per prompt, 4 per head, head dimension, layer and earlier "
                         "token), whichever is longer; the mean of the probes before and after the window",
    "per_cent_of_best_probe": "the same over the best probe of the test",
    "baton_file": "what Baton reads, of which its own limits and per cent are made; `file` and `kv_dtype` are llama.cpp's",
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
        settings, words = split_settings(command)
        self.child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                      env={**os.environ, **dict(w.split("=", 1) for w in settings)})
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


def split_settings(command):
    """The leading NAME=VALUE words, and the rest."""
    n = next((i for i, word in enumerate(command) if "=" not in word), len(command))
    return command[:n], command[n:]


def bare(word):
    """Without the folder of this machine, of NAME=VALUE the value's."""
    name, equals, value = word.rpartition("=")
    return name + equals + (os.path.basename(value) if os.path.isabs(value) else value)


def shown(command):
    return shlex.join(bare(word) for word in command)


# ---- the two programs ----

def baton_command(a, group):
    decode = [t["depth"] for t in group if t["phase"] == "decode"]
    prefill = any(t["phase"] == "prefill" for t in group)
    batches = ",".join(str(b) for b in sorted({t["batch"] for t in group}))
    return [a.baton, "bench", "model", a.baton_model or a.model, "--weights", a.baton_weights, "--batch", batches,
            "--depth", str(max(1, decode[0] if decode else 1)),
            "--prompt-tokens", str(a.prompt if prefill else WARM_PROMPT),
            "--gen-tokens", str(a.decode if decode else 1), "--repetitions", str(a.repetitions),
            "--threads", str(a.threads), "--kv-dtype", a.baton_kv, *a.baton_arg]


def run_baton(a, runner, group):
    """Tokens per second of each phase, and the revision."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "result.json")
        runner.output(baton_command(a, group) + ["--json", path])
        with open(path, encoding="utf-8") as f:
            result = json.load(f)
    return {(r["phase"], r["batch"]): r["tokens_per_second"] for r in result["rows"]}, result["revision"]


def llama_command(a, build, flash, group):
    phases = {t["phase"]: t["depth"] for t in group}
    return [*build, "-m", a.model, "-p", str(a.prompt if "prefill" in phases else 0),
            "-n", str(a.decode if "decode" in phases else 0), "-d", str(max(phases.values())), "-r", str(a.repetitions),
            "-t", str(a.threads), "-ngl", "0", "-fa", flash, "-ctk", "f16", "-ctv", "f16", "-o", "json"]


def batched_bench(a, build):
    """The one that was given, or what lies beside the build's llama-bench."""
    return a.llama_batched_bench or os.path.join(os.path.dirname(build[-1]), "llama-batched-bench")


def batched_command(a, build, flash, group):
    batches, depth = [t["batch"] for t in group], group[0]["depth"]
    return [*build[:-1], batched_bench(a, build), "-m", a.model, "-c", str(max(batches) * (depth + a.decode)), "-b", "2048",
            "-ub", "512", "-npp", str(depth), "-ntg", str(a.decode), "-npl", ",".join(map(str, batches)), "-t",
            str(a.threads), "-tb", str(a.threads), "-ngl", "0", "-fa", "on" if flash == "1" else "off", "-ctk", "f16",
            "-ctv", "f16", "--output-format", "jsonl"]


def run_batched(a, runner, variant, group):
    """The same of llama-batched-bench."""
    out = []
    for flash in variant[1].split(","):
        text = runner.output(batched_command(a, variant[0], flash, group))
        rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        out.append({("decode", r["pl"]): r["speed_tg"] for r in rows})
    return out, None


def run_llama(a, runner, variant, group):
    """The same of llama-bench, once for each kind of flash attention that `variant` names, and a row of it."""
    if group[0]["batch"] > 1:
        return run_batched(a, runner, variant, group)
    rows = json.loads(runner.output(llama_command(a, *variant, group)))
    per_phase = {"prefill": [r for r in rows if r["n_prompt"]], "decode": [r for r in rows if r["n_gen"]]}
    return [{(phase, 1): statistics.median(r["samples_ts"]) for phase, r in zip(per_phase, each)}
            for each in zip(*(v or [{"samples_ts": [0]}] * len(variant[1].split(",")) for v in per_phase.values()))
            ], rows[0]


def probe(a, runner):
    out = json.loads(runner.output([a.baton, "probe", "--threads", str(a.threads)]))
    return out["limits"][0] | {"cpu": out["probe"]["cpu"], "kernels": out["probe"]["kernels"],
                               "read_bytes": out["probe"].get("read_bytes"), "load": os.getloadavg()[0]}


# ---- what the limits are ----

def arithmetic(p, kind):
    names = ROOFS["int8" if kind.startswith("Q") else kind if kind == "BF16" else "other"]
    return max(p[name] or 0 for name in names) * 1e9


def work(a, test, facts):
    """Bytes and operations per token."""
    prefill = test["phase"] == "prefill"
    rows = a.prompt if prefill else test["batch"]
    touched = 1 - (1 - facts["share_of_experts"]) ** rows
    weights = facts["dense_bytes"] + facts["expert_bytes"] * touched
    earlier = test["depth"] + (a.prompt + 1) / 2 if prefill else test["depth"] + a.decode / 2
    operations = (2 * facts["matrix_parameters_per_token"] + 2 * facts["head_parameters"] / (rows if prefill else 1) +
                  4 * facts["attention_width"] * earlier)
    return weights / rows + (0 if prefill else facts["kv_bytes_per_token"] * earlier), operations


def baton_facts(a, facts):
    """What a token costs Baton: the same, unless it has another file, or makes 8 bits of its floats."""
    own = gguf_file.facts(a.baton_model) if a.baton_model else facts
    if a.baton_weights != "int8" or own["type"].startswith("Q"):
        return own
    share = 8 / {"F32": 32, "F16": 16, "BF16": 16}[own["type"]]  # and four bytes a row, which do not count
    sizes = ("bytes", "bytes_per_token", "dense_bytes", "expert_bytes")
    return own | {"type": "Q8, a scale a row", "bits_per_weight": 8} | {k: int(own[k] * share) for k in sizes}


def limits(p, each, kind):
    """Tokens per second at the probe's limits: by reading, and by operations."""
    return p["read_gbytes_per_second"] * 1e9 / each[0], arithmetic(p, kind) / each[1]


def spread(values):
    if not values:
        return None
    q = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": round(statistics.median(values), 3), "quartiles": [round(q[0], 3), round(q[2], 3)],
            "least": round(min(values), 3), "most": round(max(values), 3), "of": len(values)}


# ---- measuring ----

def choose_variant(a, runner, group):
    """Short runs of each build, with and without flash attention: [(variant, {phase: speeds})], the fastest first. Where
    there is one of each, it is that one, unmeasured."""
    if len(a.llama_bench) == 1 and "," not in a.flash_attention:
        return [((a.llama_bench[0], a.flash_attention), {})]
    got = {}
    for turn in range(a.trials):
        for build in a.llama_bench if turn % 2 == 0 else reversed(a.llama_bench):
            with alone(a):
                found = run_llama(a, runner, (build, a.flash_attention), group)[0]
            for flash, speeds in zip(a.flash_attention.split(","), found):
                for test in group:
                    phases = got.setdefault((build, flash), {})
                    phases.setdefault(key(test), []).append(speeds[key(test)])
    return sorted(got.items(), key=lambda kv: -math.prod(statistics.median(v) for v in kv[1].values()))


@contextlib.contextmanager
def alone(a):
    """Holds the files of --lock: who else works on this machine can wait for them."""
    with contextlib.ExitStack() as files:
        for path in a.lock:
            fcntl.flock(files.enter_context(open(path, "a")), fcntl.LOCK_EX)
        yield


def key(test):
    return test["phase"], test["batch"]


def shown_key(k):
    return k[0] if k[1] == 1 else f"{k[0]} of {k[1]}"


def rounded(p):
    """A probe's figures, without what is said of the machine once."""
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in p.items() if k not in ("cpu", "kernels")}


def steady(values):
    return max(values) <= STEADY * min(values)


def steady_pair(pair, k):
    """In that test, by probes that read as much memory as each other, where they say how much."""
    return steady(pair["limits"][k]) and len({p["read_bytes"] for p in pair["probes"]} - {None}) <= 1


def measure_pair(a, runner, group, variant, facts, order):
    """Who ran first, what both came to in each test, the three probes and the limit of each test."""
    pair = {"order": order, "probes": [probe(a, runner)]}
    for side in order:
        if side == "A":
            pair["A"], pair["revision"] = run_baton(a, runner, group)
        else:
            (pair["B"],), pair["llama"] = run_llama(a, runner, variant, group)
        pair["probes"].append(probe(a, runner))
    for name, of in (("limits", facts), ("own_limits", a.baton_facts)):
        pair[name] = {key(t): [min(limits(p, work(a, t, of), of["type"])) for p in pair["probes"]] for t in group}
    print("  " + order, *(f"{shown_key(k)}: {pair['A'][k]:.2f} / {pair['B'][k]:.2f} = "
                          f"{pair['A'][k] / pair['B'][k]:.2f}, limits "
                          f"{' '.join(f'{x:.1f}' for x in found)};" for k, found in pair["limits"].items()),
          f"load {pair['probes'][-1]['load']:.1f}", flush=True)
    return pair


def measure_pairs(a, runner, group, variant, facts):
    """Pairs until enough are steady in every test, there are too many, or time is up."""
    pairs = []
    while len(pairs) < a.pairs_most and (
            not pairs or min(sum(steady_pair(p, key(t)) for p in pairs) for t in group) < a.pairs):
        try:
            with alone(a):
                pairs.append(measure_pair(a, runner, group, variant, facts, ("AB", "BA")[len(pairs) % 2]))
        except TimeoutError:
            if not pairs:
                raise
            break
    return pairs


def summarize_side(pairs, kept, side, k):
    near, name = [], "own_limits" if side == "A" else "limits"
    best = max(x for p in pairs for x in p[name][k])
    pairs = kept or pairs
    for p in pairs:
        at = p["order"].index(side)
        near.append(100 * p[side][k] / ((p[name][k][at] + p[name][k][at + 1]) / 2))
    return {"tokens_per_second": spread([p[side][k] for p in pairs]), "per_cent_of_probe": spread(near),
            "per_cent_of_best_probe": spread([100 * p[side][k] / best for p in pairs])}


def summarize(a, facts, test, pairs, trials):
    k, each = key(test), work(a, test, facts)
    kept = [p for p in pairs if steady_pair(p, k)]
    bound = [limits(q, each, facts["type"]) for p in pairs for q in p["probes"]]
    trials = [{"build": a.llama_bench.index(v[0]), "command": shown(v[0]), "flash_attention": v[1],
               "tokens_per_second": [round(x, 2) for x in got.get(k, [])]} for v, got in trials]
    return {**test, "tokens": a.prompt if test["phase"] == "prefill" else a.decode, "pairs": len(pairs),
            "dropped": len(pairs) - len(kept), "ratio": spread([p["A"][k] / p["B"][k] for p in kept]),
            "ratio_of_steady_arithmetic": spread([p["A"][k] / p["B"][k] for p in pairs
                                                  if steady([q["fma_gflops"] for q in p["probes"]])]),
            "ratio_of_all_pairs": spread([p["A"][k] / p["B"][k] for p in pairs]),
            "bytes_per_token": round(each[0]), "operations_per_token": round(each[1]),
            "bound_by": "reading" if 2 * sum(r < o for r, o in bound) > len(bound) else "operations",
            "counted": "steady pairs" if kept else "all pairs: none was steady",
            "baton": summarize_side(pairs, kept, "A", k),
            "llama_cpp": summarize_side(pairs, kept, "B", k) | {"trials": trials},
            "limit_tokens_per_second": spread([x for p in pairs for x in p["limits"][k]]),
            "load": spread([q["load"] for p in pairs for q in p["probes"]]),
            "all_pairs": [{"order": p["order"], "baton": round(p["A"][k], 3), "llama_cpp": round(p["B"][k], 3),
                           "limits": [round(x, 2) for x in p["limits"][k]],
                           "read_gbytes_per_second": [round(q["read_gbytes_per_second"], 1) for q in p["probes"]],
                           "fma_gflops": [round(q["fma_gflops"], 1) for q in p["probes"]],
                           "probes": [rounded(q) for q in p["probes"]]} for p in pairs]}


def compact(out):
    """JSON with lists of numbers, and probes, in a line each."""
    return re.sub(r"(\[|\{)\s+([^\[\]{}]*?)\s+(\]|\})",
                  lambda m: (m[0] if m[1] == "{" and not m[2].startswith('"threads": ') else
                             m[1] + re.sub(r"\s+", " ", m[2]) + m[3]), json.dumps(out, indent=1)) + "\n"


def measure(a, runner, group, facts, out):
    name = os.path.basename(a.model)
    print(f"{name}: " + ", ".join(f"{shown_key(key(t))} at depth {t['depth']}" for t in group), flush=True)
    trials = choose_variant(a, runner, group)
    variant = trials[0][0]
    pairs = measure_pairs(a, runner, group, variant, facts)
    last = pairs[-1]
    out |= {"cpu": last["probes"][-1]["cpu"], "baton_revision": last["revision"],
            "baton_kernels": last["probes"][-1]["kernels"]}
    if last["llama"]:
        out["llama_cpp"] = {k: last["llama"][k] for k in ("build_commit", "build_number", "backends", "cpu_info")}
    for test in group:
        row = summarize(a, facts, test, pairs, trials)
        b = (batched_command(a, *variant, group) if test["batch"] > 1 else
             llama_command(a, *variant, group))
        row["commands"] = {"A": shown(baton_command(a, group)), "B": shown(b)}
        out["rows"].append(row)
        r = row["ratio"] or row["ratio_of_steady_arithmetic"] or row["ratio_of_all_pairs"]
        print(f"  {shown_key(key(test))}: ratio {r['median']:.2f} [{r['quartiles'][0]:.2f}, {r['quartiles'][1]:.2f}] of "
              f"{r['of']} pairs, {row['dropped']} of {len(pairs)} dropped", flush=True)
    with open(a.out, "w", encoding="utf-8") as f:
        f.write(compact(out))


# ---- the command ----

def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--llama-bench", action="append", required=True, metavar="PATH",
                   help="may be repeated: the best counts")
    p.add_argument("--baton", required=True, metavar="PATH")
    p.add_argument("--model", required=True, metavar="FILE", help="a GGUF file (make_gguf.py)")
    p.add_argument("--out", required=True, metavar="JSON")
    p.add_argument("--pairs", type=int, default=10, metavar="N", help="steady pairs of each test (10)")
    p.add_argument("--pairs-most", type=int, metavar="N", help="pairs after which a test ends anyway (twice --pairs)")
    p.add_argument("--threads", type=int, default=2, metavar="K", help="(2)")
    p.add_argument("--prompt", type=int, default=512, metavar="N", help="tokens of a prefill; 0: no such test (512)")
    p.add_argument("--decode", type=int, default=64, metavar="N", help="tokens of a decode; 0: no such test (64)")
    p.add_argument("--depth", default="0", metavar="N,...",
                   help="tokens before those that are decoded; empty: no such test (0)")
    p.add_argument("--llama-batched-bench", metavar="PATH", help="for --batch (beside each --llama-bench)")
    p.add_argument("--batch", default="", metavar="N,...", help="sequences that decode together, in windows of their own")
    p.add_argument("--batch-depth", type=int, default=16, metavar="N", help="tokens of each of them before (16)")
    p.add_argument("--flash-attention", default="0,1", metavar="0,1", help="llama.cpp's, to be tried (both)")
    p.add_argument("--lock", action="append", default=[], metavar="FILE",
                   help="flock(1) it while a pair runs; may be repeated, in this order")
    p.add_argument("--repetitions", type=int, default=1, metavar="N", help="within a window; the median counts (1)")
    p.add_argument("--trials", type=int, default=2, metavar="N", help="of each build and kind of attention (2)")
    p.add_argument("--baton-model", metavar="FILE", help="another file for Baton: the same weights, otherwise stored")
    p.add_argument("--baton-weights", default="auto", metavar="FORM", help="`baton bench model --weights` (auto)")
    p.add_argument("--baton-kv", default="fp16", metavar="TYPE", choices=["fp16", "bf16"],
                   help="`--kv-dtype`; llama.cpp has fp16 (fp16)")
    p.add_argument("--baton-arg", action="append", default=[], metavar="ARG", help="more for `baton bench model`")
    p.add_argument("--limit-s", type=float, default=7200, metavar="S", help="the whole run ends by then (7200)")
    p.add_argument("--window-limit-s", type=float, default=600, metavar="S", help="one window ends by then (600)")
    a = p.parse_args()
    a.pairs_most = a.pairs_most or 2 * a.pairs
    if any(int(b) < 2 for b in a.batch.split(",") if b):
        p.error("--batch: expected two sequences or more; one is what --depth is for")
    a.llama_batched_bench = a.llama_batched_bench and os.path.abspath(a.llama_batched_bench)
    a.baton, a.model = os.path.abspath(a.baton), os.path.abspath(a.model)
    a.baton_model = a.baton_model and os.path.abspath(a.baton_model)
    benches = [split_settings(shlex.split(b)) for b in a.llama_bench]
    if any(len(words) != 1 for _, words in benches):
        p.error("--llama-bench: expected [NAME=VALUE ...] PATH")
    a.llama_bench = [(*settings, os.path.abspath(path)) for settings, (path,) in benches]
    if a.batch and not all(os.path.exists(batched_bench(a, build)) for build in a.llama_bench):
        p.error("--batch: there is no llama-batched-bench; give --llama-batched-bench")
    return a


def main():
    a = arguments()
    runner, facts = Runner(a.limit_s, a.window_limit_s), gguf_file.facts(a.model)
    a.baton_facts = baton_facts(a, facts)
    depths = [int(d) for d in a.depth.split(",") if d] if a.decode else []
    groups = [[{"phase": "decode", "depth": d, "batch": 1}] for d in depths]
    if a.prompt:  # with the decode after nothing, which saves a load of the model
        prefill = {"phase": "prefill", "depth": 0, "batch": 1}
        groups = [[prefill, *groups[0]], *groups[1:]] if depths[:1] == [0] else [[prefill], *groups]
    if a.batch:
        groups.append([{"phase": "decode", "depth": a.batch_depth, "batch": int(b)} for b in a.batch.split(",")])
    given = [" ".join(bare(part) for part in w.split(" ")) for w in sys.argv[1:]]
    out = {"command": shlex.join(["tools/peers/llama_cpp.py", *given]),
           "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "model": os.path.basename(a.model),
           "file": facts, "baton_file": {"weights": a.baton_weights, "kv_dtype": a.baton_kv} | a.baton_facts,
           "threads": a.threads, "kv_dtype": "fp16", "formulas": FORMULAS, "rows": []}
    try:
        for group in groups:
            measure(a, runner, group, facts, out)
    except (TimeoutError, RuntimeError) as e:
        sys.exit(f"llama_cpp.py: {e}")


if __name__ == "__main__":
    main()
