"""The training text as token rows, and the same for the held-out side.

Seeded and endless: row n of a seed is always the same. Documents are drawn by kind in the shares
below (shares of tokens, not of documents) and packed behind each other, every one between <|bos|>
and <|eos|>. Run as a program, it prints samples: `python3 corpus.py --kind recall --held-out`.
"""

import argparse
import pathlib

import arithmetic
import dialogue
import recall
import stories
import words as w

SHARES = {"story": 0.15, "chat": 0.17, "recall": 0.36, "copy": 0.06, "distant": 0.06,
          "sum": 0.16, "book": 0.04}
CONTINUED = ("story", "chat", "book")  # a document cut by the row's end goes on in the next row


class Books:
    """Public-domain text files; the last twentieth of every file is held out."""

    def __init__(self, folder, held_out):
        self.texts = []
        for path in sorted(pathlib.Path(folder).glob("*.txt")) if folder else []:
            text = path.read_text(encoding="utf-8", errors="ignore").replace("\r", "")
            text = text.split("*** START", 1)[-1].split("\n*** END", 1)[0]
            cut = len(text) * 19 // 20
            self.texts.append(text[cut:] if held_out else text[:cut])

    def passage(self, rng, length=1500):
        text = rng.choices(self.texts, [len(t) for t in self.texts])[0]
        start = rng.randrange(max(1, len(text) - length))
        start = text.find("\n", start, start + 400) + 1 or start
        return text[start:start + length].strip()


class Source:
    """Draws documents of each kind from one side of the split."""

    def __init__(self, seed, held_out=False, books=None, most_pairs=24, far=600):
        self.seed, self.held_out, self.most_pairs, self.far = seed, held_out, most_pairs, far
        self.books = Books(books, held_out)

    def document(self, kind, rng):
        """(text, weight) pieces of one document."""
        if kind == "story":
            return stories.document(rng, self.held_out)
        if kind == "chat":
            return dialogue.document(rng, self.held_out)
        if kind == "sum":
            return arithmetic.document(rng, self.held_out)
        if kind == "recall":
            return recall.document(rng, self.held_out, self.most_pairs)
        if kind == "copy":
            return recall.copies(rng, self.held_out)
        if kind == "book":
            return [(self.books.passage(rng), 1.0)]
        filler = ""
        wanted = rng.uniform(0.3, 1.0) * self.far
        while len(filler) < wanted:
            filler += ("\n\n" if filler else "") + stories.story(rng, self.held_out)[1]
        return recall.distant(rng, self.held_out, min(12, self.most_pairs), filler)


class Encoder:
    """Pieces to (ids, weights) with the exported tokenizer."""

    def __init__(self, path):
        from tokenizers import Tokenizer
        self.tokenizer = Tokenizer.from_file(str(path))
        self.bos = self.tokenizer.token_to_id("<|bos|>")
        self.eos = self.tokenizer.token_to_id("<|eos|>")
        self.blank = self.tokenizer.encode(" ", add_special_tokens=False).ids[0]

    def encode(self, pieces):
        """A token's weight is that of its last character; a lone space before an answer is
        part of the answer, since a prompt may end without it."""
        text = "".join(t for t, _ in pieces)
        coded = self.tokenizer.encode(text, add_special_tokens=False)
        ends, total = [], 0
        for part, weight in pieces:
            total += len(part)
            ends.append((total, weight))
        weights, at = [], 0
        for _, end in coded.offsets:
            while end > ends[at][0]:
                at += 1
            weights.append(ends[at][1])
        for i in range(len(weights) - 1):
            if coded.ids[i] == self.blank and weights[i + 1] == 1.0:
                weights[i] = 1.0
        return [self.bos] + coded.ids + [self.eos], [0.0] + weights + [1.0]


class Rows:
    """Rows of `length` + 1 tokens with their weights: an endless, seeded iterator."""

    def __init__(self, source, encoder, length, shares=None):
        shares = dict(shares or SHARES)
        if not source.books.texts:
            shares.pop("book", None)
        self.source, self.encoder, self.length, self.shares = source, encoder, length, shares
        self.spent = dict.fromkeys(shares, 0.0)
        self.count = 0

    def next_kind(self):
        """The kind that lags most behind its share: exact shares, no drift."""
        return min(self.shares, key=lambda k: self.spent[k] / self.shares[k])

    def row(self, index, rest=((), ())):
        """One row; `rest` is what the row before had to cut off."""
        ids, weights = list(rest[0]), list(rest[1])
        need, part = self.length + 1, 0
        rest = ((), ())
        while len(ids) < need:
            kind = self.next_kind()
            rng = w.rng_for(self.source.seed, self.source.held_out, index, part, kind)
            new_ids, new_weights = self.encoder.encode(self.source.document(kind, rng))
            room = need - len(ids)
            if kind in CONTINUED and len(new_ids) - room > 16:
                rest = (new_ids[room:], new_weights[room:])
            self.spent[kind] += min(room, len(new_ids))
            ids += new_ids
            weights += new_weights
            part += 1
        return ids[:need], weights[:need], rest

    def __iter__(self):
        rest = ((), ())
        while True:
            ids, weights, rest = self.row(self.count, rest)
            self.count += 1
            yield ids, weights


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=sorted(SHARES), default="story")
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--books", help="a folder of public-domain .txt files")
    args = parser.parse_args()
    source = Source(args.seed, args.held_out, args.books)
    for n in range(args.count):
        pieces = source.document(args.kind, w.rng_for(args.seed, args.kind, n))
        print("".join(t for t, _ in pieces) + "\n" + "-" * 40)


if __name__ == "__main__":
    main()
