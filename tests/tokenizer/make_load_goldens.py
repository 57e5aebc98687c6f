#!/usr/bin/env python3
"""Makes tests/tokenizer/goldens/load/: small tokenizer files of other kinds than tokenizer.json, and what the reference
implementations do with them.

    make_load_goldens.py                     writes the goldens; needs PyPI's sentencepiece, tiktoken, gguf, tokenizers
    make_load_goldens.py --check TOK_TOOL    compares more random strings instead (--n), over FILES too where given

A case list NAME.json goes with a folder NAME/: [[text, ids without specials], ..]. Run by hand; the tests read the files.
"""
import argparse
import base64
import json
import os
import random
import shutil
import sys
import tempfile

import compare_tokenizers as compare

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "goldens", "load")
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+")
SPECIALS = ["<foo>", "<bar baz>", "\u2581\u2581", "\n\n", "abc", "<|end|>"]


def corpus():
    with open(os.path.join(HERE, "make_goldens.py"), encoding="utf-8") as f:
        return f.read().split('TEXT = """')[1].split('"""')[0].splitlines()


def train_sentencepiece(folder):
    """Of each kind one; the character maps of the library are large, so only one small model of our own has one."""
    import sentencepiece as spm
    rules = os.path.join(folder, "rules.tsv")
    with open(rules, "w", encoding="utf-8") as f:
        for a, b in {"\u00a0": " ", "\t": " ", "\u3000": " ", "\uff21": "A", "\u2460": "1", "\u00bd": "1/2", "\ufb01": "fi",
                     "e\u0301": "\u00e9", "\u3300": "abc", "\u200b": ""}.items():
            f.write(" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n")
    user = ["<foo>", "<bar baz>", "\u2581\u2581", "\n\n", "ab", "abc"]
    plain = {"normalization_rule_name": "identity"}
    models = {
        "sp_llama": dict(plain, model_type="bpe", byte_fallback=True, remove_extra_whitespaces=False, split_digits=True),
        "sp_bpe_user": dict(plain, model_type="bpe", user_defined_symbols=user, byte_fallback=True,
                            remove_extra_whitespaces=False),
        "sp_bpe_suffix": dict(plain, model_type="bpe", treat_whitespace_as_suffix=True),
        "sp_unigram": dict(model_type="unigram", normalization_rule_tsv=rules),
        "sp_unigram_user": dict(plain, model_type="unigram", user_defined_symbols=user, byte_fallback=True),
        "sp_unigram_bare": dict(plain, model_type="unigram", add_dummy_prefix=False, control_symbols=["<ctl>"]),
    }
    for name, options in models.items():
        prefix = os.path.join(folder, name)
        size = 760 if options.get("byte_fallback") else 460
        spm.SentencePieceTrainer.train(sentence_iterator=iter(corpus()), model_prefix=prefix, minloglevel=2, vocab_size=size,
                                       hard_vocab_limit=False, character_coverage=0.98, max_sentencepiece_length=12, **options)
        yield name, prefix + ".model", spm.SentencePieceProcessor(model_file=prefix + ".model").encode


def byte_ranks():
    with open(os.path.join(HERE, "goldens", "base_bytes.json"), encoding="utf-8") as f:
        base = json.load(f)
    table = {}
    printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    extra = 0
    for b in range(256):
        if b in printable:
            table[chr(b)] = b
        else:
            table[chr(256 + extra)] = b
            extra += 1
    tokens = [t for t, _ in sorted(base["model"]["vocab"].items(), key=lambda x: x[1]) if all(c in table for c in t)
              and t not in ("<|end|>", "<|user|>")]
    ranks = {}
    for t in sorted(tokens, key=len):
        ranks.setdefault(bytes(table[c] for c in t), len(ranks))
    return base, ranks


def make_tiktoken(folder):
    import tiktoken
    _, ranks = byte_ranks()
    path = os.path.join(folder, "small.tiktoken")
    with open(path, "w", encoding="ascii") as f:
        for token, rank in ranks.items():
            f.write(base64.b64encode(token).decode() + f" {rank}\n")
    peer = tiktoken.Encoding(name="small", pat_str=QWEN, mergeable_ranks=ranks, special_tokens={})
    return "tiktoken", path, lambda texts: [peer.encode(t) for t in texts]


def write_gguf(path, model, tokens, types, **more):
    import gguf
    w = gguf.GGUFWriter(path, "llama")
    w.add_tokenizer_model(model)
    w.add_token_list(tokens)
    w.add_token_types(types)
    for key, value in more.items():
        getattr(w, key)(value)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def make_ggufs(folder):
    """The goldens' own bases as GGUF files; the peer is the `tokenizers` package on the tokenizer.json."""
    from tokenizers import Tokenizer
    base, _ = byte_ranks()
    tokens = [t for t, _ in sorted(base["model"]["vocab"].items(), key=lambda x: x[1])]
    special = {a["content"] for a in base["added_tokens"]}
    path = os.path.join(folder, "gguf_gpt2.gguf")
    write_gguf(path, "gpt2", tokens, [3 if t in special else 1 for t in tokens], add_tokenizer_pre="gpt-2",
               add_token_merges=[" ".join(m) for m in base["model"]["merges"]], add_eos_token_id=tokens.index("<|end|>"),
               add_chat_template="{{ messages }}")
    base = dict(base, pre_tokenizer={"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                                     "use_regex": True})
    peer = Tokenizer.from_str(json.dumps(base))
    peer.encode_special_tokens = True
    yield "gguf_gpt2", path, lambda texts, p=peer: [e.ids for e in p.encode_batch(texts, add_special_tokens=False)]
    with open(os.path.join(HERE, "goldens", "base_wordpiece.json"), encoding="utf-8") as f:
        base = json.load(f)
    tokens = [t for t, _ in sorted(base["model"]["vocab"].items(), key=lambda x: x[1])]
    path = os.path.join(folder, "gguf_bert.gguf")
    write_gguf(path, "bert", [t if t[0] == "[" and t[-1] == "]" and len(t) > 2 else t[2:] if t.startswith("##") else "\u2581" + t
                              for t in tokens], [3 if t[0] == "[" and len(t) > 2 else 1 for t in tokens],
               add_unk_token_id=tokens.index("[UNK]"), add_bos_token_id=tokens.index("[CLS]"),
               add_sep_token_id=tokens.index("[SEP]"))
    peer = Tokenizer.from_str(json.dumps(base))
    peer.encode_special_tokens = True
    yield "gguf_bert", path, lambda texts, p=peer: [e.ids for e in p.encode_batch(texts, add_special_tokens=False)]


def make_sp_gguf(folder, name, model_file, kind):
    """The same SentencePiece model inside a GGUF file."""
    import sentencepiece as spm
    sp = spm.SentencePieceProcessor(model_file=model_file)
    n = sp.vocab_size()
    types = [2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1 for i in range(n)]
    path = os.path.join(folder, name + ".gguf")
    more = {"add_token_scores": [sp.get_score(i) for i in range(n)], "add_unk_token_id": 0, "add_bos_token_id": 1,
            "add_eos_token_id": 2, "add_add_bos_token": True}
    if kind == "t5":
        more.update(add_add_space_prefix=True, add_remove_extra_whitespaces=True)
    write_gguf(path, kind, [sp.id_to_piece(i) for i in range(n)], types, **more)
    return name, path, sp.encode


def make_all(folder):
    made = list(train_sentencepiece(folder))
    yield from made
    files = {name: path for name, path, _ in made}
    yield make_sp_gguf(folder, "gguf_llama", files["sp_llama"], "llama")
    yield make_tiktoken(folder)
    yield from make_ggufs(folder)


NAMES = {".model": "tokenizer.model", ".tiktoken": "small.tiktoken", ".gguf": "model.gguf"}
CONFIGS = {"tiktoken": {"tokenizer_class": "QWenTokenizer"}}


def put_folder(folder, name, path):
    os.makedirs(folder, exist_ok=True)
    shutil.copy(path, os.path.join(folder, NAMES[os.path.splitext(path)[1]]))
    if name in CONFIGS:
        with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
            f.write(json.dumps(CONFIGS[name]) + "\n")


def random_texts(count, seed):
    rng = random.Random(seed)
    text = "\n".join(corpus())
    out = [compare.random_string(rng, SPECIALS, text).encode("utf-8", "ignore").decode() for _ in range(count)]
    return ["".join(c for c in t if compare.unicodedata.category(c) != "Cn") for t in out]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--check", metavar="TOK_TOOL")
    p.add_argument("--n", type=int, default=2000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("files", nargs="*", help="SentencePiece models to check as well")
    a = p.parse_args()
    bad = False
    with tempfile.TemporaryDirectory() as work:
        made = list(make_all(work))
        for path in a.files:
            import sentencepiece as spm
            made.append((path, path, spm.SentencePieceProcessor(model_file=path).encode))
        for k, (name, path, peer) in enumerate(made):
            texts = random_texts(a.n if a.check else 120, a.seed)
            want = peer(texts)
            if not a.check:
                put_folder(os.path.join(OUT, name), name, path)
                with open(os.path.join(OUT, name + ".json"), "w", encoding="utf-8") as f:
                    f.write("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False, separators=(",", ":"))
                                               for c in zip(texts, want)) + "\n]\n")
                continue
            folder = os.path.join(work, f"f{k}")
            put_folder(folder, name, path)
            mine = compare.run(a.check, folder, ["encode", "plain"], [json.dumps(t, ensure_ascii=False) for t in texts])
            want = [" ".join(map(str, ids)) for ids in want]
            print(name)
            bad |= compare.report("encode", name, [(t, "want " + w, "got  " + m) for t, w, m in zip(texts, want, mine) if w != m])
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
