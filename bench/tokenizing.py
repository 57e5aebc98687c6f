#!/usr/bin/env python3
"""Tokenizing speed beside the `tokenizers` package, in turns (A B B A ...), on one core, with the machine's probes beside.

    tokenizing.py --bin BUILD/bin --text FILE [--turns N] [--json OUT] FOLDER...

FOLDER holds a tokenizer.json. FILE is prose of some megabytes, given in pieces of 16 KiB. Speeds are bytes of text per
second of processor time of the encoding alone; the ratio is ours over the package's of the same turn. Needs PyPI's
tokenizers.
"""
import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"


def ours(tool, folder, text):
    out = subprocess.run([tool, folder, "speed", text, "3"], capture_output=True, text=True, check=True).stdout
    return max(float(line.split()[-2]) for line in out.splitlines())


def package(peer, pieces, size):
    best = 0
    for _ in range(2):
        start = time.process_time()
        for piece in pieces:
            peer.encode(piece, add_special_tokens=False)
        best = max(best, size / (time.process_time() - start) / 1e6)
    return best


def probe(a):
    return json.loads(subprocess.run([os.path.join(a.bin, "baton"), "probe", "--threads", "1"], capture_output=True,
                                     check=True).stdout)


def spread(values):
    return {"median": round(statistics.median(values), 2), "min": round(min(values), 2), "max": round(max(values), 2)}


def measure(a, tool, folder, text, pieces):
    from tokenizers import Tokenizer
    peer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    sides = {"A": lambda: ours(tool, folder, a.text), "B": lambda: package(peer, pieces, len(text.encode()))}
    got = {"A": [], "B": []}
    for turn in range(a.turns):
        for side in ("AB", "BA")[turn % 2]:
            got[side].append(sides[side]())
    ratios = [x / y for x, y in zip(got["A"], got["B"])]
    row = {"tokenizer": os.path.basename(folder.rstrip("/")), "baton_mb_per_second": spread(got["A"]),
           "tokenizers_mb_per_second": spread(got["B"]), "ratio": spread(ratios)}
    print("{tokenizer:16} baton {0:6.1f} MB/s   tokenizers {1:6.1f} MB/s   ratio {2:5.1f}".format(
        row["baton_mb_per_second"]["median"], row["tokenizers_mb_per_second"]["median"], row["ratio"]["median"], **row))
    return row


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", required=True)
    p.add_argument("--text", required=True)
    p.add_argument("--turns", type=int, default=6)
    p.add_argument("--json")
    p.add_argument("folders", nargs="+")
    a = p.parse_args()
    import tokenizers
    with open(a.text, encoding="utf-8") as f:
        text = f.read()
    pieces = [text[i:i + 16384] for i in range(0, len(text), 16384)]
    before = probe(a)
    revision = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip()
    rows = [measure(a, os.path.join(a.bin, "tok_tool"), folder, text, pieces) for folder in a.folders]
    after = probe(a)
    if a.json:
        with open(a.json, "w", encoding="utf-8") as f:
            json.dump({"command": shlex.join(["bench/tokenizing.py", *sys.argv[1:]]), "revision": revision,
                       "peer": "tokenizers " + tokenizers.__version__, "text": os.path.basename(a.text),
                       "formula": "text bytes / processor seconds of encoding, one thread; ratio per turn, order A B B A; probe: all that "
                                  "`baton probe` said before, probe_before and probe_after: its limits before and after",
                       "probe": before, "probe_before": before["limits"][0], "probe_after": after["limits"][0],
                       "rows": rows}, f, indent=1)
            f.write("\n")
    sys.exit(0 if all(r["ratio"]["median"] >= 2 for r in rows) else 1)


if __name__ == "__main__":
    main()
