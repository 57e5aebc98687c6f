"""Measures the model on held-out items, through the served API, and prints JSON.

    python3 evaluate.py --url http://127.0.0.1:8000        # needs the standard library only
    python3 evaluate.py --torch models/tiny                # the same items through transformers

Every item comes from the held-out side of the split (words.is_held_out): key-value bindings,
sums and stories that no training row contains. All answers are greedy except the stories that
are sampled at temperature 0.7. An answer counts when it equals the expected one after spaces and
a final full stop are removed.
"""

import argparse
import json
import math
import re
import statistics
import sys
import time

import arithmetic
import recall
import stories
import words as w
from backends import Local, Served

SEED = 20


def clean(text):
    """The first line of a reply without the final stop."""
    line = text.strip().split("\n")[0].strip()
    return line.rstrip(".").strip()


def first_value(text):
    """The value at the start of a completion: up to the first stop, comma or line end."""
    return re.split(r"[.,;\n]", text.strip() + "\n")[0].strip()


def user(text):
    return [{"role": "user", "content": text}]


# ---- recall: (name, kinds of key and value, prompt of (pairs, key), chat?) ----

def code_sentences(pairs):
    return " ".join(f"The code of the {k} is {v}." for k, v in pairs)


RECALL = {
    "sentences": ("adj_animal", "d2", False,
                  lambda pairs, key: code_sentences(pairs) + f" The code of the {key} is"),
    "question": ("adj_animal", "d2", False,
                 lambda pairs, key: code_sentences(pairs) +
                 f"\nQuestion: What is the code of the {key}?\nAnswer:"),
    "list": ("object", "d2", False,
             lambda pairs, key: "\n".join(f"{k}: {v}" for k, v in pairs) + f"\n{key}:"),
    "equations": ("code", "d3", False,
                  lambda pairs, key: ", ".join(f"{k}={v}" for k, v in pairs) + f"\n{key}="),
    "words": ("name", "object", False,
              lambda pairs, key: " ".join(f"{k} has {v}." for k, v in pairs) + f" {key} has"),
    "chat": ("adj_animal", "d2", True,
             lambda pairs, key: user("Remember this: " + code_sentences(pairs) +
                                     f" What is the code of the {key}?")),
    "chat_list": ("name", "d2", True,
                  lambda pairs, key: user("Here is a list:\n" +
                                          "\n".join(f"{k}: {v}" for k, v in pairs) +
                                          f"\n\nWhat is the number of {key}?")),
}


def ask_recall(backend, name, count, questions, filler=0):
    """Share of right answers among `questions` lists of `count` bindings, one query each."""
    key_kind, value_kind, is_chat, prompt = RECALL[name]
    items = []
    for n in range(questions):
        rng = w.rng_for(SEED, "recall", name, count, filler, n)
        pairs = recall.bindings(rng, count, key_kind, value_kind, True)
        key, value = rng.choice(pairs)
        text = prompt(pairs, key)
        if filler:
            between = ""
            while len(between) < filler:
                between += stories.story(rng, True)[1] + "\n\n"
            text = code_sentences(pairs) + "\n\n" + between + f"The code of the {key} is"
        items.append((text, value))

    def right(item):
        if is_chat:
            said = clean(backend.chat(item[0], 16)[0])
            return said == item[1] or said.endswith(" is " + item[1])
        return first_value(backend.complete(item[0], 10)[0]) == item[1]

    return sum(backend.map(right, items)) / len(items)


# ---- addition ----

SUMS = {
    "spaced": ("{a} + {b} =", False),
    "tight": ("{a}+{b}=", False),
    "question": ("Q: What is {a} + {b}?\nA:", False),
    "chat": ("What is {a} + {b}?", True),
    "chat_words": ("Add {a} and {b}.", True),
}


def ask_sums(backend, name, questions):
    """Share of right sums of two two-digit numbers, all of them held out."""
    template, is_chat = SUMS[name]
    problems = w.rng_for(SEED, "sums").sample(arithmetic.held_out_sums(), questions)

    def right(problem):
        a, b = problem
        prompt = template.format(a=a, b=b)
        if is_chat:
            numbers = re.findall(r"\d+", backend.chat(user(prompt), 16)[0])
            return bool(numbers) and int(numbers[-1]) == a + b
        return first_value(backend.complete(prompt, 8)[0]) == str(a + b)

    return sum(backend.map(right, problems)) / len(problems)


# ---- language ----

def held_out_loss(backend, documents):
    """Nats per token, its perplexity and bits per byte over held-out stories."""
    texts = [stories.story(w.rng_for(SEED, "loss", n), True)[1] for n in range(documents)]
    found = backend.map(backend.log_probs, texts)
    tokens = sum(len(f) for f in found)
    nats = -sum(map(sum, found))
    return {"nats_per_token": round(nats / tokens, 4),
            "perplexity": round(math.exp(nats / tokens), 3),
            "bits_per_byte": round(nats / math.log(2) / sum(len(t.encode()) for t in texts), 4),
            "tokens": tokens}


def sentences_of(text):
    return [s.strip() for s in re.split(r"(?<=[.!?])\s+", text) if len(s.strip()) > 12]


def story_checks(backend, count, temperature):
    """Stories on request about held-out (hero, thing) couples, and what can be checked of them."""
    items = []
    plots = [p for p in sorted(stories.PLOTS) if stories.uses_thing(p)]
    for n in range(count):
        rng = w.rng_for(SEED, "request", n)
        cast = w.draw(rng, True, lambda r: (lambda c: (c.key(), c))(
            stories.Cast(r, plot=r.choice(plots))))
        hero = cast.hero if cast.hero == cast.kind else w.article(cast.kind)
        items.append((n, hero, cast))

    def write(item):
        n, hero, cast = item
        ask = f"Tell me a story about {hero} and {w.article(cast.thing)}."
        text, ended = backend.chat(user(ask), 500, temperature, n)
        return ask, cast, text, ended

    known = {word for n in range(400)
             for word in re.findall(r"[a-z]+", stories.story(w.rng_for(1, n), False)[1].lower())}
    told = backend.map(write, items)
    rows = []
    for _, cast, text, ended in told:
        lines, words = sentences_of(text), re.findall(r"[a-z]+", text.lower())
        rows.append({"ended": ended, "hero": cast.kind.lower() in words,
                     "thing": cast.thing in words,
                     "sentences": len(lines), "distinct": len(set(lines)) / max(1, len(lines)),
                     "known": sum(x in known for x in words) / max(1, len(words))})
    mean = {key: round(statistics.mean(float(r[key]) for r in rows), 3) for key in rows[0]}
    return {"temperature": temperature, "stories": count, **mean,
            "samples": [{"ask": t[0], "story": t[2]} for t in told[:3]]}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="an OpenAI-compatible server")
    where.add_argument("--torch", metavar="DIR", help="a model folder, through transformers")
    parser.add_argument("--model", help="model name; default: the first one served")
    parser.add_argument("--key", help="bearer token of the server")
    parser.add_argument("--parallel", type=int, default=8, help="requests at a time")
    parser.add_argument("--questions", type=int, default=100, help="per format")
    parser.add_argument("--stories", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="a fifth of everything")
    args = parser.parse_args()
    scale = 5 if args.quick else 1
    asked, told = args.questions // scale, max(2, args.stories // scale)
    backend = Served(args.url, args.model, args.parallel, args.key) if args.url \
        else Local(args.torch)
    began = time.time()
    report = {"questions_per_format": asked}
    report["addition"] = {n: ask_sums(backend, n, asked) for n in SUMS}
    print("addition", report["addition"], file=sys.stderr, flush=True)
    report["recall_16"] = {n: ask_recall(backend, n, 16, asked) for n in RECALL}
    print("recall", report["recall_16"], file=sys.stderr, flush=True)
    report["recall_24"] = {n: ask_recall(backend, n, 24, asked) for n in ("sentences", "chat")}
    report["recall_16_far"] = {
        f"{c}_characters_between": ask_recall(backend, "sentences", 16, asked // 2, c)
        for c in (2000, 5000)}
    for name in ("addition", "recall_16"):
        report[name + "_mean"] = round(statistics.mean(report[name].values()), 4)
    report["held_out_loss"] = held_out_loss(backend, 40 // scale)
    report["stories_greedy"] = story_checks(backend, told, 0.0)
    report["stories_sampled"] = story_checks(backend, told, 0.7)
    report["seconds"] = round(time.time() - began, 1)
    print(json.dumps(report, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
