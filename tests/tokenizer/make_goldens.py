#!/usr/bin/env python3
"""Makes tests/tokenizer/goldens/: small tokenizers trained on the text below, and what PyPI's `tokenizers` does with them.

    make_goldens.py                     writes goldens/base_*.json and goldens/cases_*.json
    make_goldens.py --check TOK_TOOL    compares every variant with the package on random text instead

A variant is a base tokenizer with some parts replaced, so that each kind of component is covered without a file of its own.
Run once, by hand; the tests read only what it has written.
"""
import argparse
import base64
import json
import os
import random
import struct
import sys
import tempfile

import tokenizers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

import compare_tokenizers as compare

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "goldens")

TEXT = """The prefill node reads the whole prompt at once and hands the keys and values to the decode node.
A decode node writes one token at a time, and every token it writes is sent to the client at once.
When a node dies the router asks another one, and the stream goes on where it had stopped.
There are 12 nodes in rack 7, each with 256 GB of memory; 3.5 TB/s is what they can move, don't they?
It's the router's job: it'll wait, it won't guess, we've tested that, and I'm sure they're right.
Für die Übergabe der Schlüssel müssen größere Blöcke schneller übertragen werden; das heißt für alle.
La mémoire est copiée dès que le nœud l'a demandée, et le réseau reste libre à côté.
Узел читает запрос целиком и передаёт ключи дальше. Быстрее не бывает, но мы попробуем.
节点读取整个提示，然后把键和值交给解码节点。我们在这里学习和工作。
ノードは全部のプロンプトを読みます。そして、キーと値を渡します。
노드는 프롬프트 전체를 읽고 키와 값을 넘깁니다.
def hand_over(block, node):
    if block.ready and not node.full():
        return node.take(block)   # one copy, no more
    raise RuntimeError("node %d is full" % node.id)
for (int i = 0; i < n; i++) { total += blocks[i].bytes; }
""".splitlines()

S = "\u2581"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
TEKKEN = O200K.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace(r"\p{N}{1,3}", r"\p{N}")
QWEN35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = [r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+",
            r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""]

KIMI = r"[\p{Han}]+|" + O200K.replace(r"\p{M}]", r"\p{M}&&[^\p{Han}]]").replace("[\\r\\n/]*", r"[\r\n]*")
ODD = {"kimi": KIMI, "words": r"\w+|[^\w\s]", "intersection": r"[\w&&[^\d]]+", "posix": r"[[:punct:]]|[[:alnum:]]+",
       "script": r"\p{Hiragana}+|\p{Greek}|\p{Letter}", "anchors": r"^.|.$|\bthe\b", "empty": r"x*",
       "thousands": r"\d(?=(?:\d{3})+\b)", "caseless": r"(?i:node|STRASSE|\u017f)",
       "tiktoken": CL100K.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[sdmt]|ll|ve|re)").replace(r"|\s*[", r"|\s++$|\s*[")}


def charsmap(mapping):
    """SentencePiece's form of a map: a double-array trie (units of 32 bits) and NUL-ended strings, in base64."""
    trie, strings = {}, b""
    for key, to in mapping.items():
        node = trie
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[0] = len(strings)
        strings += to.encode() + b"\0"
    units, used = {0: 0}, {0}

    def place(at, node):
        base = next(b for b in range(1, 1 << 16) if not any(b ^ label in used for label in node))
        units[at] |= (at ^ base) << 10 | (1 << 8 if 0 in node else 0)
        used.update(base ^ label for label in node)
        for label, child in node.items():
            units[base ^ label] = child | 1 << 31 if label == 0 else label
        for label, child in node.items():
            if label:
                place(base ^ label, child)

    place(0, trie)
    array = b"".join(struct.pack("<I", units.get(i, 0)) for i in range(max(units) + 256))
    return base64.b64encode(struct.pack("<I", len(array)) + array + strings).decode()


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def byte_level(prefix=False, regex=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def sequence(kind, *members):
    return {"type": "Sequence", kind: list(members)}


def metaspace(scheme="always", do_split=True):
    return {"type": "Metaspace", "replacement": S, "prepend_scheme": scheme, "split": do_split}


def added(ident, content, special=True, **flags):
    return dict({"id": ident, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
                 "normalized": False, "special": special}, **flags)


def template(first, last=None):
    single = [{"SpecialToken": {"id": "[a]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    special = {"[a]": {"id": "[a]", "ids": [first], "tokens": ["[a]"]}}
    if last is not None:
        single.append({"SpecialToken": {"id": "[b]", "type_id": 0}})
        special["[b]"] = {"id": "[b]", "ids": [last, last], "tokens": ["[b]", "[b]"]}
    return {"type": "TemplateProcessing", "single": single,
            "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": special}


SP_NORM = sequence("normalizers", {"type": "Prepend", "prepend": S},
                   {"type": "Replace", "pattern": {"String": " "}, "content": S})
SP_DECODE = sequence("decoders", {"type": "Replace", "pattern": {"String": S}, "content": " "}, {"type": "ByteFallback"},
                     {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0})
META_DECODE = {"type": "Metaspace", "replacement": S, "prepend_scheme": "always", "split": True}


def train_bases():
    bases = {}
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=520, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                                    special_tokens=["<|end|>", "<|user|>"], show_progress=False))
    bases["bytes"] = dict(json.loads(t.to_str()), decoder=byte_level())

    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend(S), normalizers.Replace(" ", S)])
    t.pre_tokenizer = pre_tokenizers.Split(S, "merged_with_next")
    t.train_from_iterator(TEXT, trainers.BpeTrainer(
        vocab_size=620, special_tokens=["<unk>", "<s>", "</s>"] + ["<0x%02X>" % i for i in range(256)],
        limit_alphabet=120, show_progress=False))
    sp = json.loads(t.to_str())
    sp.update(pre_tokenizer=None, decoder=SP_DECODE, post_processor=template(1),
              added_tokens=[a for a in sp["added_tokens"] if not a["content"].startswith("<0x")])
    bases["sp"] = sp

    t = Tokenizer(models.Unigram())
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(TEXT, trainers.UnigramTrainer(vocab_size=300, unk_token="<unk>", show_progress=False,
                                                        special_tokens=["<pad>", "<unk>", "</s>"]))
    uni = json.loads(t.to_str())
    uni["decoder"] = META_DECODE
    bases["unigram"] = uni

    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.train_from_iterator(TEXT, trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    wp = json.loads(t.to_str())
    wp["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    wp["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    bases["wordpiece"] = wp

    t = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    t.normalizer = normalizers.Lowercase()
    t.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    t.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>"], end_of_word_suffix="</w>",
                                                    show_progress=False))
    clip = json.loads(t.to_str())
    clip["decoder"] = {"type": "BPEDecoder", "suffix": "</w>"}
    bases["suffix"] = clip
    for b in bases.values():
        b["truncation"] = b["padding"] = None
        b.setdefault("post_processor", None)
    return bases


def variants(bases):
    n = len(bases["bytes"]["model"]["vocab"])
    extra = bases["bytes"]["added_tokens"]
    v = {}

    def add(name, base, model=None, **parts):
        v[name] = {"base": base, "model": model or {}, "parts": parts}

    for name, pattern in (("llama3", LLAMA3), ("qwen2", QWEN2), ("cl100k", CL100K), ("o200k", O200K), ("tekken", TEKKEN),
                          ("qwen35", QWEN35), ("gpt2", GPT2)):
        add("bytes_" + name, "bytes", pre_tokenizer=sequence("pretokenizers", split(pattern), byte_level()))
    for name, pattern in ODD.items():
        add("bytes_odd_" + name, "bytes", pre_tokenizer=sequence("pretokenizers", split(pattern), byte_level()))
    for base in ("bytes", "unigram"):
        add(base + "_charsmap", base, normalizer={"type": "Precompiled", "precompiled_charsmap": charsmap(
            {"\u00a0": " ", "\t": " ", "\n": " ", "\u3000": " ", "\u200b": "", "\uff21": "A", "\uff22": "B", "\uff11": "1",
             "\u2460": "1", "\u00bd": "1/2", "\ufb01": "fi", "e\u0301": "\u00e9", "\u3300": "abc"})})
    add("bytes_deepseek", "bytes", pre_tokenizer=sequence("pretokenizers", *map(split, DEEPSEEK), byte_level()))
    add("bytes_plain", "bytes", decoder=byte_level())
    add("bytes_prefix", "bytes", pre_tokenizer=byte_level(True, True), normalizer={"type": "NFC"}, post_processor=template(0, 1))
    add("bytes_nfkc", "bytes", normalizer=sequence("normalizers", {"type": "NFKC"}, {"type": "Lowercase"}))
    add("bytes_nfd", "bytes", normalizer=sequence("normalizers", {"type": "NFD"}, {"type": "StripAccents"}))
    add("bytes_nfkd_strip", "bytes", normalizer=sequence("normalizers", {"type": "NFKD"},
        {"type": "Strip", "strip_left": True, "strip_right": True}))
    add("bytes_digits", "bytes", pre_tokenizer=sequence("pretokenizers", {"type": "Digits", "individual_digits": True}, byte_level(False, True)))
    add("bytes_falcon", "bytes", pre_tokenizer=sequence("pretokenizers", {"type": "Punctuation", "behavior": "Contiguous"},
        byte_level(False, True), {"type": "Digits", "individual_digits": False}, split("[0-9][0-9][0-9]")))
    add("bytes_ignore_merges", "bytes", {"ignore_merges": True}, pre_tokenizer=sequence("pretokenizers", split(LLAMA3), byte_level()),
        post_processor=sequence("processors", byte_level(), template(1)))
    add("bytes_string_merges", "bytes", {"merges": "strings"})
    add("bytes_one_word", "bytes", pre_tokenizer=byte_level(False, False))
    add("bytes_added", "bytes", normalizer={"type": "Lowercase"}, added_tokens=extra + [
        added(n, "<mask>", lstrip=True), added(n + 1, "<tool>", False, rstrip=True), added(n + 2, "word", False, single_word=True),
        added(n + 3, "THE Node", False, normalized=True), added(n + 4, "<|user|><|end|>", False), added(n + 5, "  ", False),
        added(n + 6, "\u00e9t\u00e9", True, normalized=True), added(n + 7, "   ", False, normalized=True)])
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        add("bytes_split_" + behavior.lower(), "bytes", pre_tokenizer=sequence("pretokenizers", split("[ aeiou]", behavior), byte_level()))
        add("bytes_invert_" + behavior.lower(), "bytes", pre_tokenizer=sequence("pretokenizers", split("e ", behavior, True, "String"), byte_level()))
    add("bytes_fixed", "bytes", pre_tokenizer=sequence("pretokenizers", {"type": "FixedLength", "length": 3}, byte_level()))
    add("bytes_null_decoder", "bytes", decoder=None)
    add("bytes_normalizer", "bytes", normalizer={"type": "ByteLevel"}, pre_tokenizer=None)
    add("sp_plain", "sp")
    add("sp_no_fallback", "sp", {"byte_fallback": False})
    add("sp_no_fuse", "sp", {"byte_fallback": False, "fuse_unk": False})
    add("sp_no_unk", "sp", {"byte_fallback": False, "unk_token": None})
    for scheme in ("always", "first", "never"):
        for do_split in (True, False):
            add(f"sp_metaspace_{scheme}_{do_split}".lower(), "sp", normalizer=None, pre_tokenizer=metaspace(scheme, do_split),
                decoder=sequence("decoders", {"type": "ByteFallback"}, metaspace(scheme, do_split)))
    add("sp_gemma", "sp", normalizer={"type": "Replace", "pattern": {"String": " "}, "content": S},
        pre_tokenizer=split(" ", "MergedWithPrevious", False, "String"),
        decoder=sequence("decoders", {"type": "Replace", "pattern": {"String": S}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}))
    add("sp_strip_both", "sp", decoder=sequence("decoders", {"type": "Replace", "pattern": {"String": S}, "content": " "},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 2, "stop": 0}))
    add("sp_replace_regex", "sp", normalizer=sequence("normalizers", {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        {"type": "Replace", "pattern": {"Regex": r"[^\w\s]|_"}, "content": "*"}, *SP_NORM["normalizers"]))
    add("sp_nmt", "sp", normalizer=sequence("normalizers", {"type": "Nmt"}, *SP_NORM["normalizers"]))
    add("sp_whitespace", "sp", pre_tokenizer={"type": "Whitespace"})
    add("sp_delimiter", "sp", normalizer=None, pre_tokenizer={"type": "CharDelimiterSplit", "delimiter": "e"})
    add("unigram_plain", "unigram", post_processor=template(1, 2))
    add("unigram_fallback", "unigram", {"byte_fallback": True}, normalizer={"type": "NFKC"})
    add("wordpiece_plain", "wordpiece")
    add("wordpiece_cased", "wordpiece", normalizer={"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
        "strip_accents": None, "lowercase": False}, decoder={"type": "WordPiece", "prefix": "##", "cleanup": False})
    add("suffix_plain", "suffix")
    return v


def build(bases, variant):
    t = json.loads(json.dumps(bases[variant["base"]]))
    t.update(variant["parts"])
    for key, value in variant["model"].items():
        if key == "merges":
            value = [" ".join(m) for m in t["model"]["merges"]]
        t["model"][key] = value
    return t


def cases(peer, rng, count):
    added_texts = [t.content for t in peer.get_added_tokens_decoder().values()]
    out = []
    for _ in range(count):
        text = compare.random_string(rng, added_texts, "\n".join(TEXT))[:120]
        text = "".join(c for c in text if compare.unicodedata.category(c) != "Cn")
        peer.encode_special_tokens = False
        full = peer.encode(text, add_special_tokens=True).ids
        peer.encode_special_tokens = True
        plain = peer.encode(text, add_special_tokens=False).ids
        ids = full if rng.random() < 0.5 else [rng.randrange(peer.get_vocab_size() + 2) for _ in range(rng.randrange(12))]
        out.append([text, full, plain, ids, peer.decode(ids, skip_special_tokens=False), peer.decode(ids, skip_special_tokens=True)])
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--check", metavar="TOK_TOOL")
    p.add_argument("--n", type=int, default=1000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--only", default="")
    a = p.parse_args()
    bases = train_bases()
    todo = {k: v for k, v in variants(bases).items() if a.only in k}
    bad = False
    if not a.check:
        for name, base in bases.items():
            with open(os.path.join(OUT, f"base_{name}.json"), "w", encoding="utf-8") as f:
                json.dump(base, f, ensure_ascii=False, separators=(",", ":"))
    made = {}
    for name, variant in todo.items():
        text = json.dumps(build(bases, variant), ensure_ascii=False)
        try:
            peer = Tokenizer.from_str(text)
        except Exception as e:
            sys.exit(f"{name}: {e}")
        if a.check:
            with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as f:
                f.write(text)
                f.flush()
                print(name)
                bad |= compare.compare(a.check, f.name, a.n, a.seed, "\n".join(TEXT))
            continue
        merges = variant["model"].pop("merges", None)
        made.setdefault(variant["base"], []).append(
            {"name": name, "model": variant["model"], "string_merges": bool(merges), "parts": variant["parts"],
             "cases": cases(peer, random.Random(name), 20)})
    for base, list_ in made.items():
        with open(os.path.join(OUT, f"cases_{base}.json"), "w", encoding="utf-8") as f:
            f.write("[\n" + ",\n".join(json.dumps(x, ensure_ascii=False, separators=(",", ":")) for x in list_) + "\n]\n")
    sys.exit(1 if bad else 0)


main()
