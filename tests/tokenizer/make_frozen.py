#!/usr/bin/env python3
"""Makes goldens/frozen/: 2,000 random strings, and for each tokenizer a hash of what the reference library makes of each.

    make_frozen.py [DATA]     needs PyPI's tokenizers, sentencepiece, tiktoken and transformers

DATA is a folder of published tokenizers (tinyllama/, qwen2/ ...); its files stay where they are, only hashes are kept.
NAME.bin has 32 bits a string: FNV-1a of the ids as little-endian words; for tokenizer.json kinds first those with special
tokens added and parsed, then -1, then the plain ones; for the others the plain ones alone.
"""
import json
import os
import random
import struct
import sys
import unicodedata

import compare_tokenizers as compare
import make_load_goldens as load

OUT = os.path.join(load.HERE, "goldens", "frozen")
COUNT = 2000


def is_old(c):
    """Of a time that all libraries' tables know."""
    return unicodedata.ucd_3_2_0.category(c) != "Cn" or 0x1F300 <= ord(c) < 0x1F640


def make_texts():
    rng = random.Random(2000)
    text = "\n".join(load.corpus())
    specials = load.SPECIALS + ["<|user|>", "<s>", "</s>", "<mask>", "[MASK]", "<|im_start|>", "<|endoftext|>"]
    texts = [compare.random_string(rng, specials, text)[:160] for _ in range(COUNT)]
    return ["".join(c for c in t.encode("utf-8", "ignore").decode() if is_old(c)) for t in texts]


def fnv(ids):
    h = 0x811C9DC5
    for byte in struct.pack(f"<{len(ids)}i", *ids):
        h = (h ^ byte) * 0x01000193 & 0xFFFFFFFF
    return h


def write(name, lists):
    with open(os.path.join(OUT, name + ".bin"), "wb") as f:
        f.write(b"".join(struct.pack("<I", fnv(ids)) for ids in lists))
    print(name)


def json_kind(peer, texts):
    peer.no_truncation()
    peer.no_padding()
    peer.encode_special_tokens = False
    full = [e.ids for e in peer.encode_batch(texts, add_special_tokens=True)]
    peer.encode_special_tokens = True
    plain = [e.ids for e in peer.encode_batch(texts, add_special_tokens=False)]
    return [f + [-1] + p for f, p in zip(full, plain)]


def plain_kind(peer, texts):
    peer.encode_special_tokens = True
    return [e.ids for e in peer.encode_batch(texts, add_special_tokens=False)]


def main():
    import sentencepiece as spm
    import tiktoken
    from tokenizers import Tokenizer
    os.makedirs(OUT, exist_ok=True)
    texts = make_texts()
    with open(os.path.join(OUT, "texts.json"), "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(t, ensure_ascii=False) for t in texts) + "\n]\n")
    goldens = os.path.join(load.HERE, "goldens")
    bases = {}
    for name in ("bytes", "sp", "unigram", "wordpiece", "suffix"):
        bases[name] = os.path.join(goldens, f"base_{name}.json")
        write("base_" + name, json_kind(Tokenizer.from_file(bases[name]), texts))
    for name in ("sp_llama", "sp_bpe_user", "sp_bpe_suffix", "sp_unigram", "sp_unigram_user", "sp_unigram_bare"):
        path = os.path.join(goldens, "load", name, "tokenizer.model")
        write(name, spm.SentencePieceProcessor(model_file=path).encode(texts))
    write("gguf_llama", spm.SentencePieceProcessor(model_file=os.path.join(goldens, "load", "sp_llama",
                                                                           "tokenizer.model")).encode(texts))
    gpt2 = json.loads(Tokenizer.from_file(bases["bytes"]).to_str())
    gpt2["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    write("gguf_gpt2", plain_kind(Tokenizer.from_str(json.dumps(gpt2)), texts))
    write("gguf_bert", plain_kind(Tokenizer.from_file(bases["wordpiece"]), texts))
    peer = tiktoken.Encoding(name="small", pat_str=load.QWEN, mergeable_ranks=load.byte_ranks()[1], special_tokens={})
    write("tiktoken", [peer.encode(t) for t in texts])
    for name in ("minimind", "tinyllama", "roberta-base", "qwen2") if len(sys.argv) > 1 else ():
        folder = os.path.join(sys.argv[1], name)
        path = os.path.join(folder, "tokenizer.json")
        if not os.path.exists(path):
            from transformers import AutoTokenizer
            write(name, json_kind(AutoTokenizer.from_pretrained(folder).backend_tokenizer, texts))
        else:
            write(name, json_kind(Tokenizer.from_file(path), texts))


main()
