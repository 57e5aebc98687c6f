#!/usr/bin/env python3
"""Compares tok_tool with the `tokenizers` package on random strings and random ids.

    compare_tokenizers.py TOK_TOOL [--n COUNT] [--seed S] TOKENIZER_JSON_OR_FOLDER...

A folder without a tokenizer.json (vocab.json and merges.txt) is read by `transformers` for the other side.

Encodes COUNT strings (natural text, mixtures of scripts, control characters, special tokens' texts, runs of one
character) with and without special tokens, and decodes COUNT random id lists, whole and as a stream; prints the first
differences of each kind and exits 1 when there is one. Needs PyPI's tokenizers; it is no part of the test suite, which
has frozen cases in goldens/.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import unicodedata

ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz     ", "ABCDEFGHIJ klmnopq'", "0123456789 .,", " \t\n\r\u00a0\u2003\u3000",
    "'s't're've'm'll'd'S'RE ", "!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~ ", "éèüßñçøåÆŒ àâ", "абвгдежзийклмн ЖЩ",
    "αβγδεζηθικλμΩΣς", "你好世界我们在这里学习，。！", "こんにちは世界カタカナー、", "안녕하세요세계 가각", "مرحبا بالعالم ١٢٣", "नमस्ते दुनिया १२३",
    "สวัสดีชาวโลก", "😀😁🚀👩‍👩‍👧🇩🇪👍🏽✅", "\u0300\u0301\u0327\u0323e\u0301o\u0308", "\u200b\u200d\ufeff\u00ad\u2028\u0085\u001f\u007f\u180e",
    "½²³①ⅣⅨ٣", "ﬁﬀＡＢ１２㌀ﷺ", "\u1e9bİıſKÅ", "▁ĠĊ<0x0A>", "𝒜𝓑𝔠𐍈🀄",
]
WORDS = "the of and to in is that it was for on with he be I by as at you are his had not this have from but which she they or an her were there been one all we their has would more if no when what who will so up about into them can him out our time my could only then now like some other than how its any these two after man may first well way down should because".split()


def random_string(rng, specials, corpus):
    kind = rng.random()
    if kind < 0.25 and corpus:
        at = rng.randrange(len(corpus))
        return corpus[at:at + rng.randrange(1, 200)]
    if kind < 0.35:
        return "".join(chr(rng.choice([rng.randrange(32, 127), rng.randrange(0x20, 0x500), rng.randrange(0x20, 0xd800),
                                       rng.randrange(0xe000, 0x10000), rng.randrange(0x1f300, 0x1f640)]))
                       for _ in range(rng.randrange(0, 40)))
    if kind < 0.4:
        return rng.choice(["a", " ", "\n", "é", "▁", "1", "=", "\u0301", "你", "ab", " \n", "\r\n"]) * rng.randrange(1, 100)
    out = []
    for _ in range(rng.randrange(0, 12)):
        pick = rng.random()
        if pick < 0.35:
            out.append(rng.choice(["", " ", "  "]) + rng.choice(WORDS))
        elif pick < 0.45 and specials:
            out.append(rng.choice(["", " ", "x"]) + rng.choice(specials) + rng.choice(["", " ", "\n"]))
        else:
            alphabet = rng.choice(ALPHABETS)
            out.append("".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 9))))
    return "".join(out)


def run(tool, path, args, lines):
    r = subprocess.run([tool, path, *args], input="\n".join(lines) + "\n", capture_output=True, text=True)
    if r.returncode:
        sys.exit(f"{path}: {r.stderr}")
    return r.stdout.split("\n")[:-1]


def report(what, path, items):
    print(f"  {what}: {len(items)} differences")
    for item in items[:3]:
        for part in item:
            print(f"    {part!r}"[:400])
    return bool(items)


def compare(tool, path, count, seed, corpus):
    from tokenizers import Tokenizer
    inside = os.path.join(path, "tokenizer.json")
    if os.path.isdir(path) and not os.path.exists(inside):
        from transformers import AutoTokenizer
        peer = AutoTokenizer.from_pretrained(path).backend_tokenizer
    else:
        peer = Tokenizer.from_file(inside if os.path.isdir(path) else path)
    peer.no_truncation()
    peer.no_padding()
    rng = random.Random(seed)
    added = [t.content for t in peer.get_added_tokens_decoder().values()]
    texts = [random_string(rng, added, corpus) for _ in range(count)]
    texts = [t.encode("utf-8", "ignore").decode() for t in texts]
    # characters newer than the libraries' tables are nobody's to compare
    texts = ["".join(c for c in t if unicodedata.category(c) not in ("Cn",)) for t in texts]
    quoted = [json.dumps(t, ensure_ascii=False) for t in texts]
    bad = False
    for args, special in ((["encode"], True), (["encode", "plain"], False)):
        peer.encode_special_tokens = not special
        mine = run(tool, path, args, quoted)
        want = [" ".join(map(str, e.ids)) for e in peer.encode_batch(texts, add_special_tokens=special)]
        diff = [(t, "want " + w, "got  " + m) for t, w, m in zip(texts, want, mine) if w != m]
        bad |= report(" ".join(args), path, diff)
    size = peer.get_vocab_size()
    lists = [[rng.randrange(size + 3) if rng.random() < 0.9 else rng.randrange(min(size, 300))
              for _ in range(rng.randrange(0, 24))] for _ in range(count)]
    lists += [peer.encode(t).ids for t in texts[:count // 2]]
    quoted = [" ".join(map(str, ids)) for ids in lists]
    for verb in ("decode", "stream"):
        for skip in (False, True):
            mine = [json.loads(x) for x in run(tool, path, [verb] + (["skip"] if skip else []), quoted)]
            want = peer.decode_batch(lists, skip_special_tokens=skip)
            diff = [(t, "want " + w, "got  " + m) for t, w, m in zip(lists, want, mine) if w != m]
            bad |= report(f"{verb} skip={skip}", path, diff)
    return bad


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("tool")
    p.add_argument("files", nargs="+")
    p.add_argument("--n", type=int, default=2000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--corpus", help="a text file to take pieces from")
    a = p.parse_args()
    corpus = open(a.corpus, encoding="utf-8").read() if a.corpus else ""
    bad = False
    for path in a.files:
        print(path)
        bad |= compare(a.tool, path, a.n, a.seed, corpus)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
