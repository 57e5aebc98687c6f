#!/usr/bin/env python3
"""Writes a folder of the Hugging Face hub as a GGUF file, with its tokenizer: Llamas, whose weights both programs then
read from one file.

    hf_gguf.py [--type BF16|F16|F32] FOLDER OUT.gguf

Architecture LlamaForCausalLM with RoPE as it was first (no scaling) and a byte-level BPE tokenizer whose split has a
name in GGUF (PRE below). Matrices get the one type, which loses nothing where it is the checkpoint's own or F32; norms
are F32. Standard library only.
"""
import argparse
import json
import os
import struct
import sys

import gguf_file

NORMAL, CONTROL, UNUSED = 1, 3, 5  # kinds of tokens
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
PRE = {SHORT + WORDS + r"\p{N}" + REST: "qwen2", SHORT + WORDS + r"\p{N}{1,3}" + REST: "llama-bpe"}
TENSORS = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
           "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
           "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
ENDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def load(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as f:
        return json.load(f)


# ---- the tokenizer ----

def split_name(t):
    """tokenizer.ggml.pre."""
    pre = t["pre_tokenizer"]
    for part in pre.get("pretokenizers", [pre]):
        if part["type"] == "Split" and part["pattern"].get("Regex") in PRE:
            return PRE[part["pattern"]["Regex"]]
        if part["type"] == "ByteLevel" and part.get("use_regex", True):
            return "gpt-2"
    raise ValueError("tokenizer.json: a split that has no name in GGUF")


def tokenizer(folder, vocab):
    t, c = load(folder, "tokenizer.json"), load(folder, "tokenizer_config.json")
    if t["model"]["type"] != "BPE" or t["normalizer"]:
        raise ValueError("tokenizer.json: only byte-level BPE without a normalizer is written")
    tokens, kinds = [f"[UNUSED{i}]" for i in range(vocab)], [UNUSED] * vocab
    for token, i in t["model"]["vocab"].items():
        tokens[i], kinds[i] = token, NORMAL
    for a in t["added_tokens"]:
        tokens[a["id"]], kinds[a["id"]] = a["content"], CONTROL
    m = {"model": "gpt2", "pre": split_name(t), "tokens": tokens, "token_type": kinds,
         "merges": [x if isinstance(x, str) else " ".join(x) for x in t["model"]["merges"]],
         "add_bos_token": c.get("bos_token") is not None}
    for key, name in (("bos_token_id", "bos_token"), ("eos_token_id", "eos_token"), ("padding_token_id", "pad_token")):
        if c.get(name):
            m[key] = tokens.index(c[name])
    ends = load(folder, "config.json").get("eos_token_id", [])
    ends = [i for i in (ends if isinstance(ends, list) else [ends]) if i != m.get("eos_token_id")]
    m |= dict(zip(("eot_token_id", "eom_token_id"), ends))
    m = {f"tokenizer.ggml.{k}": v for k, v in m.items()}
    return m | ({"tokenizer.chat_template": c["chat_template"]} if c.get("chat_template") else {})


# ---- the model ----

def metadata(folder, kind):
    c = load(folder, "config.json")
    if c["architectures"] != ["LlamaForCausalLM"] or c.get("rope_scaling") or c.get("attention_bias"):
        raise ValueError("config.json: only LlamaForCausalLM without scaled RoPE and biases is written")
    dim = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    own = {"vocab_size": c["vocab_size"], "context_length": c["max_position_embeddings"],
           "embedding_length": c["hidden_size"], "block_count": c["num_hidden_layers"],
           "feed_forward_length": c["intermediate_size"], "attention.head_count": c["num_attention_heads"],
           "attention.head_count_kv": c["num_key_value_heads"], "attention.key_length": dim,
           "attention.value_length": dim, "attention.layer_norm_rms_epsilon": float(c["rms_norm_eps"]),
           "rope.freq_base": float(c["rope_theta"]), "rope.dimension_count": dim}
    m = {"general.architecture": "llama", "general.name": os.path.basename(os.path.abspath(folder)),
         "general.file_type": gguf_file.TYPES[kind][3]}
    heads = {"attn_q": c["num_attention_heads"], "attn_k": c["num_key_value_heads"]}
    return m | {f"llama.{k}": v for k, v in own.items()} | tokenizer(folder, c["vocab_size"]), heads


def checkpoint(folder):
    """{name: (type, shape, bytes)} of model.safetensors."""
    with open(os.path.join(folder, "model.safetensors"), "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        head = json.loads(f.read(size))
        out = {}
        for name, t in head.items():
            if name != "__metadata__":
                begin, end = t["data_offsets"]
                f.seek(8 + size + begin)
                out[name] = (t["dtype"], t["shape"], f.read(end - begin))
    return out


def gguf_name(name):
    base, end = name.rsplit(".", 1)
    if base in ENDS:
        return f"{ENDS[base]}.{end}"
    _, _, layer, part = base.split(".", 3)
    return f"blk.{layer}.{TENSORS[part]}.{end}"


def as_type(data, of, to):
    if of == to:
        return data
    if of == "BF16":
        wide = bytearray(2 * len(data))
        wide[2::4], wide[3::4] = data[0::2], data[1::2]
        return bytes(wide) if to == "F32" else as_type(bytes(wide), "F32", to)
    if of == "F16":
        n = len(data) // 2
        return as_type(struct.pack(f"<{n}f", *struct.unpack(f"<{n}e", data)), "F32", to)
    n = len(data) // 4
    if to == "F16":
        return struct.pack(f"<{n}e", *struct.unpack(f"<{n}f", data))
    return b"".join(struct.pack("<H", (x + 0x7FFF + (x >> 16 & 1)) >> 16) for x in struct.unpack(f"<{n}I", data))


def paired(data, shape, heads):
    """Rows of queries or keys in GGUF's order: the two that RoPE turns together stand side by side."""
    row, dim = len(data) // shape[0], shape[0] // heads
    order = (h * dim + part * (dim // 2) + i for h in range(heads) for i in range(dim // 2) for part in range(2))
    return b"".join(data[r * row:(r + 1) * row] for r in order)


def write(folder, kind, out):
    meta, heads = metadata(folder, kind)
    tensors, data = [], {}
    for name, (of, shape, content) in sorted(checkpoint(folder).items()):
        target = gguf_name(name)
        to = kind if len(shape) > 1 else "F32"
        part = target.split(".")[-2]
        content = as_type(content, of, to)
        data[target] = paired(content, shape, heads[part]) if part in heads else content
        tensors.append((target, to, shape[::-1]))
    gguf_file.write(out, meta, tensors, lambda f, t: f.write(data[t[0]]))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--type", choices=["BF16", "F16", "F32"], default="BF16", help="of the matrices (BF16)")
    p.add_argument("folder")
    p.add_argument("out")
    a = p.parse_args()
    try:
        write(a.folder, a.type, a.out)
    except (KeyError, ValueError) as e:
        sys.exit(f"hf_gguf.py: {a.folder}: {e}")


if __name__ == "__main__":
    main()
