#!/usr/bin/env python3
"""What each quantization costs that Baton reads, and each type of keys and values, in one file: how far the next token's
distribution moves from that of the bf16 weights.

    divergence.py --bin FOLDER --model FOLDER --out RESULT.json [--text FILE] [--context 512] [--chunks 48] [--threads 2]

FOLDER of --bin is a build's bin: `baton`, and `quantize_tool`, which makes the quantized copies (values to the nearest; what a tool
that corrects for errors makes of a model loses less, by the same kernels). Each is measured with `--weights float` (what the weights
alone lose), `packed` (as it is served) and `wide`. Without --text the model says the text: samples at temperature 1 from nothing,
the same text as tools/peers/divergence.py's of as many chunks. Standard library only.
"""
import argparse
import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import time

SAMPLE_TOKENS = 1024
SAMPLE_LEAST, SAMPLES_TRIED = 16, 64  # of a model that says less on average, over so many, no text is made
KV_TYPES = ("bf16", "fp16", "fp8", "int8", "int4")
# Whose rows are bytes whatever is asked for, or who are not multiplied as integers.
NOT_WIDE = ("int8-32-ordered", "gptq-128-ordered", "fp8-rows", "fp8-blocks")
FORMULAS = {
    "nats_per_token": "mean over scored tokens of KL(base || quantized); base: the model's own bf16 weights, rows, keys and "
                      "values in fp32",
    "standard_error": "of that mean, tokens taken as independent",
    "bits_per_weight": "of the layers' projections, scales and zero points included",
    "bits_per_element": "of keys and values, scales included",
    "rows": "`--weights`: what weights are multiplied with; float: fp32, packed: 8 bits (FP8 and bf16 weights: bf16 where the CPU "
            "has it), wide: bf16, or fp32 where the CPU has no products of bf16",
}


def run(words):
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=1800)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(map(str, words))}: {done.stderr[-2000:] or done.stdout[-2000:]}")
    return done.stdout


def say_text(a, baton):
    """What the model says, until there are tokens enough."""
    tokens, texts, seed, enough = 0, [], 0, (a.chunks + 1) * a.context
    while tokens < enough:
        if seed >= SAMPLES_TRIED and tokens < seed * SAMPLE_LEAST:
            raise RuntimeError(f"the model says {tokens} tokens in {seed} samples, of {enough}: give it a --text")
        seed += 1
        said = json.loads(run([baton, "generate", a.model, "--prompt", "", "--temperature", "1", "--seed", seed,
                               "--max-tokens", SAMPLE_TOKENS, "--json", "--threads", a.threads]))
        texts.append(said["text"])
        tokens += said["usage"]["completion_tokens"]
    return "\n".join(texts)


def projection_bits(folder):
    with open(os.path.join(folder, "model.safetensors"), "rb") as f:
        head = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    return 8 * sum(t["data_offsets"][1] - t["data_offsets"][0] for name, t in head.items() if "_proj." in name)


def kv_bits(kind, dim):
    """kernels/kv_vector.h."""
    if kind in ("bf16", "fp16"):
        return 16.0
    group, bits, scale = (32, 4, 4) if kind == "int4" else (128, 8, 2)
    return round(bits + 8 * scale * -(-dim // group) / dim, 3)


class Bench:
    def __init__(self, a, folder):
        self.a, self.folder = a, folder
        self.baton, self.tool = (os.path.join(a.bin, name) for name in ("baton", "quantize_tool"))
        self.base = os.path.join(folder, "base")

    def score(self, model, form, kv, *more):
        return json.loads(run([self.baton, "perplexity", model, "--weights", form, "--kv-dtype", kv, "--context", self.a.context,
                               "--chunks", self.a.chunks, "--threads", self.a.threads, "--json", "-", *more]))

    def row(self, what, model, form, kv):
        found = self.score(model, form, kv, "--base", self.base)
        row = what | {"rows": form, "kv": kv, "nats_per_token": float(f"{found['divergence']['mean']:.4g}"),
                      "standard_error": float(f"{found['divergence']['standard_error']:.2g}"),
                      "most": float(f"{found['divergence_most']:.3g}"), "same_top": round(found["same_top"], 5)}
        print(", ".join(f"{k} {v}" for k, v in row.items()), flush=True)
        return row

    def quantized(self, name):
        """A copy, with what a tokenizer needs beside it."""
        made = run([self.tool, name, self.a.model]).strip()
        to = os.path.join(self.folder, name)
        os.mkdir(to)
        try:
            for file in os.listdir(made):
                shutil.move(os.path.join(made, file), to)
        finally:
            shutil.rmtree(made)
        for file in os.listdir(self.a.model):
            if not os.path.exists(os.path.join(to, file)):
                os.symlink(os.path.abspath(os.path.join(self.a.model, file)), os.path.join(to, file))
        return to

    def measure(self):
        a, text = self.a, self.a.text or os.path.join(self.folder, "text")
        if not a.text:
            with open(text, "w", encoding="utf-8") as f:
                f.write(say_text(a, self.baton))
        base = self.score(a.model, "float", "fp32", "--text", text, "--save", self.base)
        with open(os.path.join(a.model, "config.json"), encoding="utf-8") as f:
            c = json.load(f)
        dim, parameters = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"], projection_bits(a.model) / 16
        weights = [self.row({"weights": "bf16", "bits_per_weight": bits}, a.model, form, "fp32")
                   for form, bits in (("packed", 16), ("int8", 8))]
        for name in run([self.tool]).split():
            if name.startswith("gguf-"):  # have no tokenizer: tools/peers/divergence.py
                continue
            folder = self.quantized(name)
            bits = round(projection_bits(folder) / parameters, 3)
            weights += [self.row({"weights": name, "bits_per_weight": bits}, folder, form, "fp32")
                        for form in ("float", "packed", "wide") if form != "wide" or name not in NOT_WIDE]
        # Where rows are rounded, tiles read all but fp32 as bf16.
        kv = [self.row({"weights": "bf16", "bits_per_element": kv_bits(k, dim)}, a.model, form, k)
              for form in ("float", "packed") for k in KV_TYPES]
        return {"context": a.context, "chunks": base["chunks"], "scored": base["scored"], "perplexity": base["perplexity"],
                "text": os.path.basename(a.text) if a.text else "said by the model", "weights": weights, "kv": kv}

    def about(self):
        said = json.loads(run([self.baton, "probe", "--threads", "1"]))
        probe = {k: said["probe"][k] for k in ("cpu", "system", "cores", "memory_gbytes", "kernels")}
        given = [" ".join(os.path.basename(part) for part in w.split(" ")) for w in sys.argv[1:]]
        return {"command": shlex.join(["bench/divergence.py", *given]),
                "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "model": os.path.basename(self.a.model.rstrip("/")), "baton": run([self.baton, "--version"]).strip(),
                "version": said["version"], "revision": said["revision"], "probe": probe, "threads": self.a.threads,
                "cpu": probe["cpu"], "kernels": probe["kernels"]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", required=True, metavar="FOLDER", help="of baton and quantize_tool")
    p.add_argument("--model", required=True, metavar="FOLDER", help="of bf16 weights")
    p.add_argument("--out", required=True, metavar="JSON")
    p.add_argument("--text", metavar="FILE", help="to be scored, instead of what the model says")
    p.add_argument("--context", type=int, default=512, metavar="N", help="of a chunk; half of it is scored (512)")
    p.add_argument("--chunks", type=int, default=48, metavar="N", help="(48)")
    p.add_argument("--threads", type=int, default=2, metavar="K", help="(2)")
    a = p.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(a, folder)
            out = bench.about() | bench.measure() | {"formulas": FORMULAS}
    except (RuntimeError, OSError, ValueError) as e:
        sys.exit(f"divergence.py: {e}")
    with open(a.out, "w", encoding="utf-8") as f:
        json.dump(out, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
