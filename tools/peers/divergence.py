#!/usr/bin/env python3
"""What quantization costs in Baton and in llama.cpp: both read one quantized GGUF file (beside Q8_0 Baton also makes 8
bits of the BF16 file), and what each says is compared with what it says itself from the weights as they were.

    divergence.py --llama-bin FOLDER --baton PATH --model FOLDER --out RESULT.json [--types Q8_0,Q4_0]
                  [--kv f16,q8_0] [--text FILE] [--context 512] [--chunks 8] [--threads 2]

The model is a folder that hf_gguf.py can write (models/tiny). Its weights go into an F32 and a BF16 file, llama-quantize
makes the others from the first, and `baton generate` has to say the same greedy tokens from the F32 file as from the
folder. `llama-perplexity` and `baton perplexity` then save every distribution of the same chunks of the same text (ids
are compared), and of each scored token this takes KL(base || quantized) over the vocabulary, by one rule for both.
Keys and values are fp32 on both sides but for the rows of --kv, whose weights are F32: of those llama.cpp's flash
attention is on, which it wants for quantized ones. A type is what llama-quantize names so, TYPE:EMBEDDING the one type for all
matrices and another for the embedding (and so the head, where they are tied); MXFP4, which llama-quantize makes of mixtures alone,
is asked for tensor by tensor. Without --text the model says the text: samples at temperature 1 from nothing. Standard library only.
"""
import argparse
import array
import json
import math
import operator
import os
import re
import shlex
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import gguf_file
import hf_gguf

SAMPLE_TOKENS = 1024
SAMPLE_LEAST, SAMPLES_TRIED = 16, 64  # of a model that says less on average, over so many, no text is made
GREEDY = ["--prompt", "Once upon a time", "--greedy", "--max-tokens", "64", "--json"]
BATON_FORMS = ("packed", "float")
# llama.cpp's type of KV, and those of Baton's that are nearest to it in bits.
KV_TYPES = {"f16": ["fp16"], "bf16": ["bf16"], "q8_0": ["int8", "fp8"], "q4_1": ["int4"], "q4_0": ["int4"]}
KV_BLOCKS = {"f16": (1, 2), "bf16": (1, 2), "q8_0": (32, 34), "q4_1": (32, 20), "q4_0": (32, 18)}
FORMULAS = {
    "nats_per_token": "mean over scored tokens of KL(base || quantized), both sides renormalised over the tokens within "
                      "16 nats of the base's most probable one (what the files hold); each program against its own base",
    "standard_error": "of that mean, tokens taken as independent",
    "ratio": "Baton's nats per token over llama.cpp's",
    "difference": "mean of Baton's less llama.cpp's, token by token, and its standard error",
    "baton.packed, baton.float": "`--weights`: rows rounded to 8 bits (what large models get), rows in fp32",
    "baton.int8": "`--weights int8` of the BF16 file: weights of 8 bits with a scale a row, rows with a scale a token; "
                  "8 bits a weight, to be held against llama.cpp's Q8_0 with its 8.5",
    "kv": "weights F32 on both sides, keys and values of that type, each program against its own fp32 ones; bits_per_element "
          "with scales, of a head of the model's",
}


def run(words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=1800)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(map(str, words))}: {done.stderr[-2000:] or done.stdout[-2000:]}")
    return done.stdout


# ---- saved distributions: cli/logits_file.h ----

class Saved:
    def __init__(self, path):
        with open(path, "rb") as f:
            data = f.read()
        magic, self.context, self.vocab, self.chunks = struct.unpack_from("<8sIii", data)
        if magic != b"_logits_":
            raise ValueError(f"{path}: not a file of log probabilities")
        n = self.context * self.chunks
        self.ids = struct.unpack_from(f"<{n}i", data, 20)
        self.rows, self.row_bytes = memoryview(data)[20 + 4 * n:], 2 * ((self.vocab + 1) // 2 * 2 + 4)
        self.count = len(self.rows) // self.row_bytes
        if self.count != self.chunks * (self.context - 1 - self.context // 2):
            raise ValueError(f"{path}: not whole")

    def row(self, i):
        """(step, codes): a token's log probability is step x code and what all have in common."""
        row = self.rows[i * self.row_bytes:(i + 1) * self.row_bytes]
        return struct.unpack_from("<f", row)[0], array.array("H", row[8:8 + 2 * self.vocab].tobytes())


def base_row(saved, i):
    """The tokens within 16 nats, their log probabilities and probabilities, normalised."""
    step, codes = saved.row(i)
    kept = [k for k, code in enumerate(codes) if code]
    logits = [step * codes[k] for k in kept]
    norm = 65535 * step + math.log(math.fsum(math.exp(x - 65535 * step) for x in logits))
    logits = [x - norm for x in logits]
    return kept, logits, list(map(math.exp, logits))


def divergences(base, others):
    """For each of `others` the KL of every scored token."""
    out = [[] for _ in others]
    for i in range(base.count):
        kept, logits, p = base_row(base, i)
        for other, found in zip(others, out):
            step, codes = other.row(i)
            q = [step * (code - 65535) for code in map(codes.__getitem__, kept)]
            norm = math.log(math.fsum(map(math.exp, q)))
            found.append(math.fsum(map(operator.mul, p, map(operator.sub, logits, q))) + norm)
    return out


# ---- the programs ----

class Programs:
    def __init__(self, a, folder):
        self.a, self.folder, self.threads = a, folder, ["--threads", str(a.threads)]

    def path(self, name):
        return os.path.join(self.folder, name)

    def llama(self, name, *words):
        return run([os.path.join(self.a.llama_bin, name), *words])

    def score_llama(self, model, text, kv="f32"):
        out = self.path("llama.logits")
        self.llama("llama-perplexity", "-m", model, "-f", text, "-c", str(self.a.context), "-b", str(self.a.context), "-ub",
                   str(self.a.context), "--chunks", str(self.a.chunks), "-t", str(self.a.threads), "-ngl", "0", "-fa",
                   "off" if kv == "f32" else "on", "-ctk", kv, "-ctv", kv, "--save-all-logits", out)
        return Saved(out)

    def score_baton(self, model, text, form, kv="fp32"):
        out = self.path("baton.logits")
        run([self.a.baton, "perplexity", model, "--text", text, "--context", str(self.a.context), "--chunks",
             str(self.a.chunks), *self.threads, "--kv-dtype", kv, "--weights", form, "--save", out])
        return Saved(out)

    def quantize(self, exact, kind):
        """A file of that type, TYPE or TYPE:EMBEDDING; its path."""
        kind, _, embedding = kind.partition(":")
        words = ["--pure", "--token-embedding-type", embedding.lower()] if embedding else []
        if kind == "MXFP4":
            words, kind = words[1:] + ["--tensor-type", "attn=mxfp4", "--tensor-type", "ffn=mxfp4"], "Q8_0"
        path = self.path("quantized.gguf")
        self.llama("llama-quantize", *words, exact, path, kind)
        return path

    def greedy(self, model):
        return json.loads(run([self.a.baton, "generate", model, *GREEDY, *self.threads]))["ids"]

    def say_text(self):
        """What the model says, until there are tokens enough."""
        tokens, texts, seed, enough = 0, [], 0, (self.a.chunks + 1) * self.a.context
        while tokens < enough:
            if seed >= SAMPLES_TRIED and tokens < seed * SAMPLE_LEAST:
                raise RuntimeError(f"the model says {tokens} tokens in {seed} samples, of {enough}: give it a --text")
            seed += 1
            said = json.loads(run([self.a.baton, "generate", self.a.model, "--prompt", "", "--temperature", "1", "--seed",
                                   str(seed), "--max-tokens", str(SAMPLE_TOKENS), "--json", *self.threads]))
            texts.append(said["text"])
            tokens += said["usage"]["completion_tokens"]
        return "\n".join(texts)


# ---- comparing ----

def average(values):
    """What is less than doubles add up to is nothing."""
    m = statistics.fmean(values)
    return m if abs(m) > 1e-12 else 0.0


def mean(values):
    return {"nats_per_token": float(f"{average(values):.4g}"),
            "standard_error": float(f"{statistics.stdev(values) / math.sqrt(len(values)):.2g}"),
            "most": float(f"{max(values):.3g}")}


def compare(kind, base, llama, batons):
    """A row for each form of Baton's."""
    d = {form: [b - l for b, l in zip(values, llama)] for form, values in batons.items()}
    row = {"type": kind, "base": base, "llama_cpp": mean(llama),
           "baton": {form: mean(values) for form, values in batons.items()}, "ratio": {}, "difference": {}}
    for form, values in batons.items():
        row["ratio"][form] = round(average(values) / statistics.fmean(llama), 3)
        row["difference"][form] = {k: v for k, v in mean(d[form]).items() if k != "most"}
        print(f"{kind} from {base}: Baton ({form}) {average(values):.3e}, llama.cpp "
              f"{statistics.fmean(llama):.3e} nats per token, ratio {row['ratio'][form]}", flush=True)
    return row


def same_ids(saved):
    first = saved[0]
    for s in saved[1:]:
        if (s.ids, s.context, s.vocab) != (first.ids, first.context, first.vocab):
            raise RuntimeError("the programs do not read the text as the same tokens")


def measure(a, p):
    exact, bf16 = p.path("F32.gguf"), p.path("BF16.gguf")
    hf_gguf.write(a.model, "F32", exact)
    hf_gguf.write(a.model, "BF16", bf16)
    if p.greedy(exact) != p.greedy(a.model):
        raise RuntimeError("the GGUF file says other tokens than the folder")
    text = a.text or p.path("text")
    if not a.text:
        with open(text, "w", encoding="utf-8") as f:
            f.write(p.say_text())
    bases = {"F32": exact, "BF16": bf16}
    llama = {b: p.score_llama(path, text) for b, path in bases.items()}
    baton = {b: p.score_baton(path, text, "float") for b, path in bases.items()}
    same_ids([*llama.values(), *baton.values()])
    rows = [compare("BF16", "F32", divergences(llama["F32"], [llama["BF16"]])[0],
                    {"float": divergences(baton["F32"], [baton["BF16"]])[0],
                     "packed": divergences(baton["F32"], [p.score_baton(bf16, text, "packed")])[0]})]
    files = {}
    for kind in filter(None, a.types.split(",")):
        path = p.quantize(exact, kind)
        files[kind] = gguf_file.facts(path)["bits_per_weight"]
        theirs, ours = p.score_llama(path, text), {f: p.score_baton(path, text, f) for f in BATON_FORMS}
        if kind == "Q8_0":
            ours["int8"] = p.score_baton(bf16, text, "int8")
        same_ids([llama["F32"], theirs, *ours.values()])
        for b in bases:
            found = divergences(baton[b], list(ours.values()))
            rows.append(compare(kind, b, divergences(llama[b], [theirs])[0], dict(zip(ours, found))))
    scored = {"context": a.context, "chunks": llama["F32"].chunks, "scored": llama["F32"].count,
              "text": os.path.basename(a.text) if a.text else "said by the model"}
    kv = [compare_kv(p, exact, text, kind, (llama["F32"], baton["F32"])) for kind in filter(None, a.kv.split(","))]
    return scored | {"bits_per_weight": files, "rows": rows} | ({"kv": kv} if kv else {})


def kv_bits(kind, dim):
    """Of an element with its part of the scales: kernels/kv_vector.h."""
    groups = {"int8": (128, 8, 2), "fp8": (128, 8, 2), "int4": (32, 4, 4)}
    if kind not in groups:
        return 16.0
    group, bits, scale = groups[kind]
    return round(bits + 8 * scale * -(-dim // group) / dim, 3)


def compare_kv(p, exact, text, kind, bases):
    """A row for keys and values of llama.cpp's `kind` and Baton's nearest ones."""
    theirs = p.score_llama(exact, text, kind)
    ours = {mine: p.score_baton(exact, text, "float", mine) for mine in KV_TYPES[kind]}
    same_ids([bases[0], theirs, *ours.values()])
    row = compare(f"KV {kind}", "F32", divergences(bases[0], [theirs])[0],
                  dict(zip(ours, divergences(bases[1], list(ours.values())))))
    elements, size = KV_BLOCKS[kind]
    c = hf_gguf.load(p.a.model, "config.json")
    dim = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    bits = {"llama_cpp": 8 * size / elements} | {mine: kv_bits(mine, dim) for mine in ours}
    return {"type": kind, "base": "F32", "bits_per_element": bits} | {k: v for k, v in row.items() if k not in ("type", "base")}


def about(a):
    version = subprocess.run([os.path.join(a.llama_bin, "llama-perplexity"), "--version"], capture_output=True, text=True,
                             timeout=60)
    llama = re.search(r"version: (.*)", version.stdout + version.stderr)
    probe = json.loads(run([a.baton, "probe", "--threads", "1"]))["probe"]
    given = [" ".join(os.path.basename(part) for part in w.split(" ")) for w in sys.argv[1:]]
    return {"command": shlex.join(["tools/peers/divergence.py", *given]),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "model": os.path.basename(a.model.rstrip("/")),
            "baton": run([a.baton, "--version"]).strip(), "llama_cpp": llama[1] if llama else None,
            "cpu": probe["cpu"], "kernels": probe["kernels"], "kv_dtype": "fp32"}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--llama-bin", required=True, metavar="FOLDER", help="of llama-quantize and llama-perplexity")
    p.add_argument("--baton", required=True, metavar="PATH")
    p.add_argument("--model", required=True, metavar="FOLDER")
    p.add_argument("--out", required=True, metavar="JSON")
    p.add_argument("--types", default="Q8_0,Q4_0", metavar="TYPE,...",
                   help="as llama-quantize names them, and MXFP4; TYPE:EMBEDDING (Q8_0,Q4_0)")
    p.add_argument("--kv", default="", metavar="TYPE,...", help=f"of {', '.join(KV_TYPES)}, beside Baton's nearest (none)")
    p.add_argument("--text", metavar="FILE", help="to be scored, instead of what the model says")
    p.add_argument("--context", type=int, default=512, metavar="N", help="of a chunk; half of it is scored (512)")
    p.add_argument("--chunks", type=int, default=8, metavar="N", help="(8)")
    p.add_argument("--threads", type=int, default=2, metavar="K", help="(2)")
    a = p.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            out = about(a) | measure(a, Programs(a, folder)) | {"formulas": FORMULAS}
    except (RuntimeError, ValueError) as e:
        sys.exit(f"divergence.py: {e}")
    with open(a.out, "w", encoding="utf-8") as f:
        json.dump(out, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
