#!/usr/bin/env python3
"""Writes a GGUF file of random weights: for speeds, which hang on shapes and types and not on what a model has learnt.

    make_gguf.py [--shape NAME] [--layers N] [--type BF16|F16|Q8_0|Q4_0] [--seed N] OUT.gguf

Every matrix has the one type, the embedding too; norms and the routers of experts are F32. The scales are such that
a row's product with a normed vector is about 1, so that activations stay finite; those of blocks differ from block to
block. There is no vocabulary ("no_vocab"): what reads texts cannot use the file. Standard library only.
"""
import argparse
import math
import random
import struct
import sys

import gguf_file

PIECE = 1 << 25  # values written at a time
SHAPES = {
    "tiny": {"arch": "llama", "hidden": 256, "layers": 4, "heads": 4, "kv_heads": 2, "ffn": 1024, "vocab": 4096},
    "small": {"arch": "llama", "hidden": 768, "layers": 12, "heads": 12, "kv_heads": 4, "ffn": 2048, "vocab": 32000},
    "llama-3.2-1b": {"arch": "llama", "hidden": 2048, "layers": 16, "heads": 32, "kv_heads": 8, "ffn": 8192,
                     "vocab": 128256},
    "tiny-moe": {"arch": "olmoe", "hidden": 256, "layers": 4, "heads": 4, "kv_heads": 4, "ffn": 256, "vocab": 4096,
                 "experts": 16, "used": 4},
    "olmoe": {"arch": "olmoe", "hidden": 2048, "layers": 16, "heads": 16, "kv_heads": 16, "ffn": 1024, "vocab": 50304,
              "experts": 64, "used": 8},
}


def metadata(name, s, kind):
    dim, arch = s["hidden"] // s["heads"], s["arch"]
    m = {"general.architecture": arch, "general.name": f"{name} of random weights",
         "general.file_type": gguf_file.TYPES[kind][3], "tokenizer.ggml.model": "no_vocab"}
    own = {"vocab_size": s["vocab"], "context_length": 32768, "embedding_length": s["hidden"],
           "block_count": s["layers"], "feed_forward_length": s["ffn"], "attention.head_count": s["heads"],
           "attention.head_count_kv": s["kv_heads"], "attention.layer_norm_rms_epsilon": 1e-5,
           "rope.freq_base": 500000.0 if arch == "llama" else 10000.0, "rope.dimension_count": dim}
    if "experts" in s:
        own |= {"expert_count": s["experts"], "expert_used_count": s["used"]}
    return m | {f"{arch}.{k}": v for k, v in own.items()}


def tensors(s, kind):
    hidden, ffn, q = s["hidden"], s["ffn"], s["hidden"]
    kv = hidden // s["heads"] * s["kv_heads"]
    experts = [s["experts"]] if "experts" in s else []
    out = [("token_embd.weight", kind, [hidden, s["vocab"]]), ("output_norm.weight", "F32", [hidden])]
    if s["arch"] != "llama":  # the llamas here have theirs tied
        out.append(("output.weight", kind, [hidden, s["vocab"]]))
    for i in range(s["layers"]):
        rows = [("attn_norm", "F32", [hidden]), ("attn_q", kind, [hidden, q]), ("attn_k", kind, [hidden, kv]),
                ("attn_v", kind, [hidden, kv]), ("attn_output", kind, [q, hidden]), ("ffn_norm", "F32", [hidden])]
        if experts:
            rows += [("attn_q_norm", "F32", [q]), ("attn_k_norm", "F32", [kv]),
                     ("ffn_gate_inp", "F32", [hidden, s["experts"]])]
        end = "_exps" if experts else ""
        rows += [("ffn_gate" + end, kind, [hidden, ffn] + experts), ("ffn_up" + end, kind, [hidden, ffn] + experts),
                 ("ffn_down" + end, kind, [ffn, hidden] + experts)]
        out += [(f"blk.{i}.{name}.weight", t, sizes) for name, t, sizes in rows]
    return out


def table(f):
    return bytes(f(b) for b in range(256))


def high_byte_of_half(v):
    return struct.pack("<e", v)[1]


def floats(rng, count, size):
    """F32, for what is small."""
    return struct.pack(f"<{count}f", *(rng.uniform(-size, size) for _ in range(count)))


def halves(rng, count, size, low, high):
    """Of either 16-bit type: random sign and fraction under the one exponent."""
    data = bytearray(rng.randbytes(2 * count))
    data[0::2] = data[0::2].translate(low)
    data[1::2] = data[1::2].translate(high)
    return data


def random_bf16(rng, count, size):
    bits = struct.unpack("<I", struct.pack("<f", size))[0] >> 16
    exponent = bits >> 7
    return halves(rng, count, size, table(lambda b: (b & 0x7f) | (exponent & 1) << 7),
                  table(lambda b: (b & 0x80) | exponent >> 1))


def random_f16(rng, count, size):
    exponent = high_byte_of_half(size) & 0x7c
    return halves(rng, count, size, table(lambda b: b), table(lambda b: (b & 0x83) | exponent))


def blocks(rng, count, kind, scale):
    """A scale, whose fraction's low byte is random, and random integers; -128 is one that no quantizer writes."""
    size = gguf_file.TYPES[kind][2]
    data = bytearray(rng.randbytes(count // 32 * size))
    if kind == "Q8_0":
        data = data.replace(b"\x80", b"\x81")
    data[1::size] = bytes([high_byte_of_half(scale)]) * (count // 32)
    return data


def random_values(rng, kind, count, width):
    """`count` values of variance 1 / width or so."""
    deviation = 1 / math.sqrt(width)
    if kind == "F32":
        return floats(rng, count, deviation * math.sqrt(3))
    if kind == "BF16":
        return random_bf16(rng, count, deviation)
    if kind == "F16":
        return random_f16(rng, count, deviation)
    return blocks(rng, count, kind, deviation / (73.6 if kind == "Q8_0" else 4.6))


def filler(rng):
    def fill(f, tensor):
        name, kind, sizes = tensor
        left = gguf_file.product(sizes)
        if len(sizes) == 1:
            f.write(struct.pack("<f", 1.0) * left)
            return
        while left:
            count = min(left, PIECE)
            f.write(random_values(rng, kind, count, sizes[0]))
            left -= count
    return fill


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shape", choices=SHAPES, default="llama-3.2-1b", help="(llama-3.2-1b)")
    p.add_argument("--layers", type=int, metavar="N", help="fewer than the shape has, where memory is short")
    p.add_argument("--type", choices=["BF16", "F16", "Q8_0", "Q4_0"], default="Q8_0", help="of the matrices (Q8_0)")
    p.add_argument("--seed", type=int, default=1, metavar="N", help="equal files for equal seeds (1)")
    p.add_argument("out")
    a = p.parse_args()
    s, name = SHAPES[a.shape], a.shape
    if a.layers:
        s, name = s | {"layers": a.layers}, f"{a.shape} of {a.layers} layers"
    gguf_file.write(a.out, metadata(name, s, a.type), tensors(s, a.type), filler(random.Random(a.seed)))
    f = gguf_file.facts(a.out)
    print(f"{a.out}: {f['parameters']} parameters, {f['bytes']} bytes, {f['bits_per_weight']} bits per weight")


if __name__ == "__main__":
    sys.exit(main())
