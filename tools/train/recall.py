"""Associative recall: a list of bindings, then questions about them.

A document is a list of (text, weight) pieces. What nobody can predict (the bindings, and which
key is asked) carries no weight, the answers carry the full one, so that gradients go where there
is something to learn; behind an answer the only thing ever learned is the end of the text. A
binding (key, value) is on one side of the split for good.
"""

import string

import words as w

NOISE, ANSWER = 0.0, 1.0

KEY_KINDS = ("adj_animal", "adj_object", "name", "animal", "object", "city", "code", "letters",
             "food", "mixed", "day", "plant", "job", "index")
VALUE_KINDS = ("d1", "d2", "d2", "d2", "d3", "d4", "spaced", "word", "color", "letters", "city",
               "object", "animal", "food")


def letters(rng, low, high):
    return "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(low, high)))


def make_key(rng, kind):
    """A key as it appears in running text, without an article."""
    if kind == "mixed":
        kind = rng.choice(("name", "animal", "object", "city", "adj_animal", "food", "plant"))
    if kind == "adj_animal":
        return f"{rng.choice(w.ADJECTIVES)} {rng.choice(w.ANIMALS)}"
    if kind == "adj_object":
        return f"{rng.choice(w.ADJECTIVES)} {rng.choice(w.OBJECTS)}"
    if kind == "code":
        style = rng.randrange(3)
        if style == 0:
            return f"{rng.choice(string.ascii_uppercase)}{rng.randint(1, 99)}"
        if style == 1:
            return f"key{rng.randint(1, 99)}"
        return f"{letters(rng, 2, 3)}{rng.randint(0, 9)}"
    if kind == "letters":
        return letters(rng, 2, 5)
    if kind == "index":
        return rng.choice(("item ", "box ", "room ", "number ", "")) + str(rng.randint(1, 99))
    table = {"name": w.GIRLS + w.BOYS, "animal": w.ANIMALS, "object": w.OBJECTS, "city": w.CITIES,
             "food": w.FOODS, "day": w.DAYS + w.MONTHS, "plant": w.PLANTS + w.FRUITS,
             "job": w.JOBS}
    return rng.choice(table[kind])


def make_value(rng, kind):
    if kind[0] == "d" and len(kind) == 2:
        n = int(kind[1])
        return str(rng.randrange(10 ** (n - 1) if n > 1 else 0, 10 ** n))
    if kind == "spaced":
        return " ".join(str(rng.randrange(10)) for _ in range(rng.randint(2, 3)))
    if kind == "letters":
        return letters(rng, 2, 4)
    table = {"color": w.COLORS, "city": w.CITIES, "object": w.OBJECTS, "animal": w.ANIMALS,
             "food": w.FOODS, "word": w.OBJECTS + w.ANIMALS + w.FRUITS + w.PLACES}
    return rng.choice(table[kind])


def bindings(rng, count, key_kind, value_kind, held_out):
    """`count` bindings with distinct keys, all from the wanted side of the split."""
    found = {}
    tries = 0
    while len(found) < count and tries < 200 * count:
        tries += 1
        key, value = make_key(rng, key_kind), make_value(rng, value_kind)
        if key not in found and w.is_held_out("bind", key, value) == held_out:
            found[key] = value
    return list(found.items())


# Statement and question pairs. {k} is the key, {v} the value; the answer follows the question.
PROSE = (
    ("The code of {the}{k} is {v}.", ("What is the code of {the}{k}?", "The code of {the}{k} is")),
    ("The number of {the}{k} is {v}.", ("What is the number of {the}{k}?",
                                        "The number of {the}{k} is")),
    ("{The}{k} has {v}.", ("What does {the}{k} have?", "{The}{k} has")),
    ("{The}{k} is {v}.", ("What is {the}{k}?", "{The}{k} is")),
    ("{The}{k} likes {v}.", ("What does {the}{k} like?", "{The}{k} likes")),
    ("The secret of {the}{k} is {v}.", ("Tell me the secret of {the}{k}.",
                                        "The secret of {the}{k} is")),
    ("The value of {the}{k} is {v}.", ("What is the value of {the}{k}?", "Value of {the}{k}?")),
    ("{The}{k} goes with {v}.", ("What goes with {the}{k}?", "{The}{k} goes with")),
    ("{The}{k} costs {v} coins.", ("How much does {the}{k} cost?", "{The}{k} costs")),
    ("{The}{k}'s number is {v}.", ("What is {the}{k}'s number?", "{The}{k}'s number is")),
    ("{The}{k}'s code is {v}.", ("What is {the}{k}'s code?", "{The}{k}'s code is")),
    ("{The}{k} lives at number {v}.", ("Where does {the}{k} live?",
                                       "{The}{k} lives at number")),
    ("Remember that {the}{k} is {v}.", ("What is {the}{k}?", "{The}{k} is")),
    ("The password for {the}{k} is {v}.", ("What is the password for {the}{k}?",
                                           "The password for {the}{k} is")),
    ("{The}{k} means {v}.", ("What does {the}{k} mean?", "{The}{k} means")),
    ("The capital of {the}{k} is {v}.", ("What is the capital of {the}{k}?",
                                         "The capital of {the}{k} is")),
)
NOUNS = ("age number color price name size room address label key word sign mark answer symbol "
         "letter place gift phone badge ticket seat token pin").split()
VERBS = (("owns", "own"), ("wants", "want"), ("found", "find"), ("bought", "buy"),
         ("carries", "carry"), ("needs", "need"), ("loves", "love"), ("got", "get"),
         ("chose", "choose"), ("keeps", "keep"), ("sells", "sell"), ("brought", "bring"))


def form_of(rng):
    """A statement and its two question forms; a third of them are put together freely."""
    chance = rng.random()
    if chance < 0.22:
        noun = rng.choice(NOUNS)
        return (f"The {noun} of {{the}}{{k}} is {{v}}.",
                (f"What is the {noun} of {{the}}{{k}}?", f"The {noun} of {{the}}{{k}} is"))
    if chance < 0.36:
        verb, base = rng.choice(VERBS)
        did = "did" if verb in ("found", "bought", "got", "chose", "brought") else "does"
        return (f"{{The}}{{k}} {verb} {{v}}.",
                (f"What {did} {{the}}{{k}} {base}?", f"{{The}}{{k}} {verb}"))
    return rng.choice(PROSE)


LINKS = (": ", " = ", "=", " -> ", ":", " is ", " => ", " - ", "\t", " ")
JOINS = ("\n", "\n", "\n", ", ", "; ", " ", ". ", " | ")


def fill(template, key, the, value=""):
    return template.format(k=key, v=value, the=the, The=w.sentence(the) if the else "")


def article_for(rng, key_kind):
    return rng.choice(("the ", "the ", "")) if key_kind not in (
        "name", "city", "code", "letters", "day", "index", "mixed") else ""


def query_order(rng, pairs, queries):
    """Which bindings are asked: all of them once before any is asked again."""
    order = []
    while len(order) < queries:
        order += rng.sample(pairs, len(pairs))
    return order[:queries]


def compact(rng, pairs, queries):
    """'fox: 42' lists; a query repeats the key and its link, the answer is the value."""
    link, join = rng.choice(LINKS), rng.choice(JOINS)
    if join == " ":
        link = rng.choice((":", "=", "-"))
    pieces = [(rng.choice(("", "", "", "List:\n", "Remember:\n", "Pairs:\n", "Memory: ",
                           "Here is a list of pairs.\n", "Table:\n")), NOISE)]
    item = rng.choice(("", "", "", "", "- ", "* ")) if join == "\n" else ""
    pieces.append((join.join(f"{item}{k}{link}{v}" for k, v in pairs), NOISE))
    bridge = rng.choice((join, join, "\n", "\n\n", "\n---\n", "\nQuery:\n", "\nQuestions:\n",
                         "\nRecall:\n", ".\n"))
    pieces.append((bridge, NOISE))
    ask = rng.choice(("{k}{link}",) * 6 + (
        "Q: {k}{link}", "? {k}{link}", "Q: {k}\nA: ", "Question: What is {k}?\nAnswer: ", "{k}? ",
        "What goes with {k}? ", "Q: What is the value of {k}?\nA: ", "The value of {k} is "))
    if "\n" in ask:
        join = "\n"
    for key, value in query_order(rng, pairs, queries):
        pieces += [(ask.format(k=key, link=link), NOISE), (value + join, ANSWER)]
    return pieces


def bracketed(rng, pairs, queries):
    """The same as a JSON object or as arrows in brackets, asked by key."""
    quote = rng.random() < 0.6
    one = (lambda k, v: f'"{k}": "{v}"') if quote else (lambda k, v: f'"{k}": {v}')
    pieces = [("{" + ", ".join(one(k, v) for k, v in pairs) + "}\n", NOISE)]
    for key, value in query_order(rng, pairs, queries):
        ask = rng.choice((f'["{key}"] = ', f"{key}: ", f'"{key}": ', f"get {key} -> "))
        pieces += [(ask, NOISE), (value + "\n", ANSWER)]
    return pieces


def prose(rng, pairs, queries, key_kind):
    """Sentences, then questions in words or the opening of the same sentence."""
    form, the = form_of(rng), article_for(rng, key_kind)
    join = rng.choice((" ", " ", "\n"))
    pieces = [(join.join(fill(form[0], k, the, v) for k, v in pairs), NOISE)]
    asks = rng.random() < 0.6
    lead, reply = rng.choice((("Question: ", "Answer: "),) * 2 + (("Q: ", "A: "), ("", "")))
    full = rng.random() < 0.2
    for key, value in query_order(rng, pairs, queries):
        if asks:
            answer = fill(form[0], key, the, value) if full else value + "."
            gap = "\n" if lead else rng.choice((" ", "\n"))
            pieces += [("\n" + lead + fill(form[1][0], key, the) + gap + reply, NOISE),
                       (answer, ANSWER)]
        else:
            stem = fill(form[0], key, the, "\0").split("\0")
            pieces += [(join + stem[0], NOISE), (value + stem[1], ANSWER)]
    return pieces


def chat(rng, pairs, queries, key_kind):
    """The list arrives in a user turn; the questions are further turns."""
    form, the = form_of(rng), article_for(rng, key_kind)
    link = rng.choice((": ", " = ", " -> ", " is "))
    lines = rng.random() < 0.5
    if lines:
        body = rng.choice(("\n", ", ", "; ")).join(f"{k}{link}{v}" for k, v in pairs)
    else:
        body = rng.choice((" ", "\n")).join(fill(form[0], k, the, v) for k, v in pairs)
    lead = rng.choice(("", "Remember this: ", "Please remember these pairs.\n", "Here is a list:\n",
                       "Remember:\n", "Learn this list.\n", "I will give you a list. "))
    ask_compact = lines and rng.random() < 0.4

    def ask(key):
        if ask_compact:
            return rng.choice((f"{key}?", f"{key}", f"{key}{link}".rstrip(), f"What is {key}?"))
        if lines:
            return rng.choice((f"What is {the}{key}?", f"What goes with {the}{key}?",
                               f"What is the value of {the}{key}?", f"And {the}{key}?",
                               f"What is the number of {the}{key}?", f"Which value has {key}?",
                               f"What is the code of {the}{key}?"))
        return fill(form[1][0] if rng.random() < 0.8 else form[1][1], key, the)

    system = rng.choice(("", "", "", "<|system|>Answer with the value only.<|end|>",
                         "<|system|>You are a helpful assistant.<|end|>"))
    order = query_order(rng, pairs, queries)
    text = system + "<|user|>" + lead + body
    full = "value only" not in system and not lines and rng.random() < 0.4
    together = rng.random() < 0.5
    if not together:
        said = rng.choice(("I will remember that.", "OK.", "I have it.", "Ready."))
        text += f"<|end|><|assistant|>{said}<|end|><|user|>"
    else:
        text += rng.choice((" ", "\n", "\n\n"))
    pieces = [(text, NOISE)]
    for key, value in order:
        answer = fill(form[0], key, the, value) if full else value + "."
        pieces += [(ask(key) + "<|end|><|assistant|>", NOISE), (answer + "<|end|>", ANSWER),
                   ("<|user|>", NOISE)]
    return pieces[:-1]


def distant(rng, held_out, most_pairs, filler):
    """Bindings, then `filler` (other text), then the questions: what is asked lies far back."""
    form, key_kind = PROSE[rng.randrange(3)], rng.choice(("adj_animal", "name", "city", "mixed"))
    the = article_for(rng, key_kind)
    pairs = bindings(rng, rng.randint(2, most_pairs), key_kind, rng.choice(("d2", "d3", "word")),
                     held_out)
    pieces = [("".join(fill(form[0], k, the, v) + " " for k, v in pairs) + "\n\n", NOISE),
              (filler + "\n\n", 0.5)]
    asks = rng.random() < 0.5
    for key, value in query_order(rng, pairs, len(pairs) + 2):
        if asks:
            pieces += [(f"Question: {fill(form[1][0], key, the)}\nAnswer: ", NOISE),
                       (value + ".\n", ANSWER)]
        else:
            stem = fill(form[0], key, the, "\0").split("\0")
            pieces += [(stem[0], NOISE), (value + stem[1] + "\n", ANSWER)]
    return pieces


def copies(rng, held_out):
    """A random list, said again from some item on, several times over.

    Recall alone gives almost no gradient before the model can find an earlier occurrence; here
    nearly every token of a repetition rewards exactly that. It is what starts recall off.
    """
    count = rng.randint(3, 16)
    style = rng.randrange(4)
    if style == 0:
        pairs = bindings(rng, count, rng.choice(KEY_KINDS), rng.choice(VALUE_KINDS), held_out)
        link = rng.choice((": ", "=", " -> ", " is "))
        items = [f"{k}{link}{v}" for k, v in pairs]
    elif style == 1:
        items = [letters(rng, 1, 4) for _ in range(count)]
    elif style == 2:
        items = [make_value(rng, rng.choice(("d2", "d3", "word", "color"))) for _ in range(count)]
    else:
        table = rng.choice((w.GIRLS + w.BOYS, w.ANIMALS + w.OBJECTS, w.CITIES + w.JOBS,
                            w.FOODS + w.PLACES + w.ADJECTIVES))
        items = [rng.choice(table) for _ in range(count)]
    join = rng.choice((" ", " ", ", ", "\n", "; "))
    pieces = [(join.join(items) + join, NOISE)]
    for _ in range(rng.randint(1, 4)):
        part = items[rng.randrange(max(1, len(items) - 2)):]
        pieces += [(part[0] + join.rstrip(" "), NOISE),
                   (join[len(join.rstrip(" ")):] + join.join(part[1:]) + join, ANSWER)]
    return pieces


def document(rng, held_out, most_pairs, queries=None):
    """One recall document with between 2 and `most_pairs` bindings."""
    key_kind = rng.choice(KEY_KINDS)
    value_kind = rng.choice(VALUE_KINDS)
    count = rng.randint(2, most_pairs) if rng.random() < 0.6 else \
        rng.randint(max(2, most_pairs // 2), most_pairs)
    if key_kind == "day":
        count = min(count, 12)
    pairs = bindings(rng, count, key_kind, value_kind, held_out)
    queries = queries or max(6, int(len(pairs) * rng.uniform(0.7, 1.6)))
    style = rng.random()
    if style < 0.38:
        return compact(rng, pairs, queries)
    if style < 0.44:
        return bracketed(rng, pairs, queries)
    if style < 0.74:
        return prose(rng, pairs, queries, key_kind)
    return chat(rng, pairs, queries, key_kind)
