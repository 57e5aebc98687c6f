"""Byte-level BPE on a sample of the corpus: `python3 train_tokenizer.py --out DIR [--books DIR]`.

Digits are single tokens, so a number is read digit by digit; the split pattern is the one of
Llama 3 and Qwen 2 with \\p{N}. Public-domain text is over-represented here, because the
generator's words are few and any other English must stay short as well.
"""

import argparse
import itertools
import pathlib

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import corpus
import words as w

SPECIAL = ("<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def sample(books, characters):
    """Documents of all kinds until each kind has given its part of `characters`."""
    source = corpus.Source(seed=0, books=books)
    parts = {"story": 0.3, "chat": 0.2, "recall": 0.1, "sum": 0.02, "book": 0.38}
    for kind, part in parts.items():
        if kind == "book" and not source.books.texts:
            continue
        total = 0
        for n in itertools.count():
            pieces = source.document(kind, w.rng_for(0, "tokenizer", kind, n))
            text = "".join(t for t, _ in pieces)
            for special in SPECIAL:
                text = text.replace(special, "\n")
            yield text
            total += len(text)
            if total > part * characters:
                break


def build(books, size, characters):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(sample(books, characters), trainer)
    bos = tokenizer.token_to_id("<|bos|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|bos|> $A", pair="<|bos|> $A <|bos|> $B",
                                      special_tokens=[("<|bos|>", bos)])])
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--books", help="a folder of public-domain .txt files")
    parser.add_argument("--size", type=int, default=3072)
    parser.add_argument("--characters", type=int, default=6_000_000)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    build(args.books, args.size, args.characters).save(str(args.out / "tokenizer.json"))


if __name__ == "__main__":
    main()
