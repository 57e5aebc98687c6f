#!/usr/bin/env python3
"""All that is measured beside llama.cpp, in one run: makes the files of random weights that are not there, runs llama_cpp.py
for one row after the other while there is time, those that were found least certain first, and prints what there is.

    table.py --out FOLDER --llama-bench PATH... --baton PATH --models FOLDER [--rows NAME,...] [--pairs 10] [--threads 2]
             [--limit-s 7200]
    table.py --out FOLDER                  the table alone

What --llama-bench may be, llama_cpp.py says; beside it lies llama-batched-bench. A row whose file is in --out is not measured
again. On a CPU with tiles give llama.cpp's build with AMX and that without. Standard library only.
"""
import argparse
import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))

# Files of random weights: what make_gguf.py is told.
MODELS = {
    "1b-q8_0": ["--type", "Q8_0"],
    "1b-q4_0": ["--type", "Q4_0"],
    "1b-bf16": ["--type", "BF16"],
    "olmoe-4l-q8_0": ["--shape", "olmoe", "--layers", "4", "--type", "Q8_0"],
    "olmoe-8l-bf16": ["--shape", "olmoe", "--layers", "8", "--type", "BF16"],
}
ONE = ["--prompt", "0", "--decode", "16"]
SEVERAL = ["--prompt", "0", "--decode", "8", "--depth", "", "--flash-attention", "1", "--batch"]
# Name, model, how it is run, and the seconds after which it ends with the pairs that it has.
ROWS = [
    ("1b-q8_0-d8192", "1b-q8_0", [*ONE, "--depth", "8192", "--flash-attention", "0"], 3600),
    ("1b-q8_0-d2048", "1b-q8_0", [*ONE, "--depth", "2048", "--flash-attention", "0"], 1200),
    ("1b-q8_0-batch", "1b-q8_0", [*SEVERAL, "16,32"], 1500),
    ("1b-q4_0", "1b-q4_0", ["--decode", "32"], 900),
    ("olmoe-4l-q8_0", "olmoe-4l-q8_0", ["--decode", "32"], 900),
    ("olmoe-4l-q8_0-batch", "olmoe-4l-q8_0", [*SEVERAL, "8,32"], 900),
    ("1b-bf16", "1b-bf16", ["--decode", "16"], 1500),
    ("1b-q8_0", "1b-q8_0", ["--decode", "32"], 1200),
    ("1b-int8", "1b-q8_0", ["--decode", "32", "--baton-weights", "int8"], 1200),
    ("olmoe-8l-bf16", "olmoe-8l-bf16", ["--decode", "16"], 1500),
    ("olmoe-8l-bf16-batch", "olmoe-8l-bf16", [*SEVERAL, "8,32"], 1500),
    ("1b-q8_0-d2048-flash", "1b-q8_0", [*ONE, "--depth", "2048", "--flash-attention", "1"], 1800),
    ("1b-q8_0-d8192-flash", "1b-q8_0", [*ONE, "--depth", "8192", "--flash-attention", "1"], 7200),
]


# ---- measuring ----

def model_file(a, name):
    """The file of that name, made if it is not there."""
    path = os.path.join(a.models, name + ".gguf")
    if not os.path.exists(path):
        subprocess.run([sys.executable, os.path.join(HERE, "make_gguf.py"), *MODELS[name], path + ".part"], check=True)
        os.replace(path + ".part", path)
    return path


def command(a, row, left):
    name, model, how, seconds = row
    out = [sys.executable, os.path.join(HERE, "llama_cpp.py"), "--baton", a.baton, "--baton-kv", "bf16", "--threads",
           str(a.threads), "--trials", "1", "--model", model_file(a, model), "--pairs", str(a.pairs), "--pairs-most",
           str(a.pairs), "--limit-s", str(int(min(left, seconds))), "--out", result_file(a, name), *how]
    if name == "1b-int8":
        out += ["--baton-model", model_file(a, "1b-bf16")]
    for build in a.llama_bench:
        out += ["--llama-bench", build]
    return out


def measure(a):
    end = time.monotonic() + a.limit_s
    for row in ROWS:
        left = end - time.monotonic()
        if (a.rows and row[0] not in a.rows) or os.path.exists(result_file(a, row[0])):
            continue
        if left < 60:
            print(f"{row[0]}: no time is left", flush=True)
            continue
        if subprocess.run(command(a, row, left), check=False).returncode:
            print(f"{row[0]}: not measured", flush=True)


# ---- showing ----

def result_file(a, name):
    return os.path.join(a.out, f"llama-cpp-{name}.json")


def ratio(r):
    return f"{r['median']:.2f} [{r['quartiles'][0]:.2f}, {r['quartiles'][1]:.2f}]" if r else "–"


def line(result, r):
    """A row of the table, as bench/results/README.md has them."""
    sides = [r["baton"], r["llama_cpp"]]
    flash = r["llama_cpp"]["trials"][0]["flash_attention"]
    phase = "prefill" if r["phase"] == "prefill" else f"decode of {r['batch']}"
    if r["depth"]:
        phase += f" after {r['depth']}"
    speeds = [f"{s['tokens_per_second']['median']:.1f}" for s in sides]
    shares = [f"{s['per_cent_of_probe']['median']:.0f} %" for s in sides]
    kind = result["file"]["type"] if result["baton_file"]["type"] == result["file"]["type"] else (
        f"{result['baton_file']['type']}, beside {result['file']['type']}")
    cells = [f"{result['file']['architecture']} {kind}", phase, "on" if flash == "1" else "off", *speeds, ratio(r["ratio"]),
             f"{r['pairs'] - r['dropped']} of {r['pairs']}", ratio(r["ratio_of_all_pairs"]), *shares]
    return "| " + " | ".join(cells) + " |"


def show(a):
    print("| model, type | phase | flash | Baton | llama.cpp | ratio, steady pairs | of | ratio, all pairs | "
          "of probe: Baton | llama.cpp |\n|---|---|---|---|---|---|---|---|---|---|")
    for row in ROWS:
        if os.path.exists(result_file(a, row[0])):
            with open(result_file(a, row[0]), encoding="utf-8") as f:
                result = json.load(f)
            print("\n".join(line(result, r) for r in result["rows"]))


def arguments():
    names = [r[0] for r in ROWS]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", required=True, metavar="FOLDER", help="where results are, or will be")
    p.add_argument("--llama-bench", action="append", default=[], metavar="PATH", help="may be repeated: the best counts")
    p.add_argument("--baton", metavar="PATH")
    p.add_argument("--models", metavar="FOLDER", help="of the files of weights; all of them take some 14 GB")
    p.add_argument("--rows", default="", metavar="NAME,...", help=", ".join(names))
    p.add_argument("--pairs", type=int, default=10, metavar="N", help="of each row (10)")
    p.add_argument("--threads", type=int, default=2, metavar="K", help="(2)")
    p.add_argument("--limit-s", type=float, default=7200, metavar="S", help="the whole run ends by then, model files apart (7200)")
    a = p.parse_args()
    a.rows = [r for r in a.rows.split(",") if r]
    if not set(a.rows) <= set(names):
        p.error(f"--rows: expected some of {', '.join(names)}")
    if a.llama_bench and not (a.baton and a.models):
        p.error("--llama-bench needs --baton and --models")
    return a


def main():
    a = arguments()
    os.makedirs(a.out, exist_ok=True)
    if a.llama_bench:
        os.makedirs(a.models, exist_ok=True)
        measure(a)
    show(a)


if __name__ == "__main__":
    main()
