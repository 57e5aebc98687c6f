"""Addition of small numbers in many wordings; a held-out sum is held out in both orders."""

import words as w

NOISE, ANSWER = 0.0, 1.0


def operands(rng, held_out, low=0, high=99):
    """A pair of numbers; {a, b} is on one side of the split whatever the order."""
    def make(r):
        style = r.random()
        if style < 0.8:
            a, b = r.randint(low, high), r.randint(low, high)
        else:
            a, b = r.randint(low, high), r.randint(0, 9)
        return ("sum", min(a, b), max(a, b)), (a, b)
    return w.draw(rng, held_out, make)


def held_out_sums(low=10, high=99):
    """Every held-out problem with both numbers in low..high, in order."""
    return [(a, b) for a in range(low, high + 1) for b in range(low, high + 1)
            if w.is_held_out("sum", min(a, b), max(a, b))]


def lines(rng, held_out, count):
    """A column of problems, one style per document."""
    style = rng.choice(("{a} + {b} = ", "{a} + {b} = ", "{a}+{b}=", "{a} plus {b} is ",
                        "{a} plus {b} equals ", "What is {a} + {b}? ", "Q: {a} + {b}\nA: ",
                        "The sum of {a} and {b} is ", "Q: What is {a} + {b}?\nA: ",
                        "{a} + {b} is ", "add {a} {b} -> ", "Question: {a} + {b} = ?\nAnswer: ",
                        "What is {a} plus {b}?\n", "{a} and {b} make "))
    end = rng.choice(("\n", "\n", ".\n", "; ", ", ", ". ")) if "\n" not in style else "\n"
    pieces = []
    for _ in range(count):
        a, b = operands(rng, held_out)
        pieces += [(style.format(a=a, b=b), NOISE), (f"{a + b}{end}", ANSWER)]
    return pieces


def word_problem(rng, held_out):
    """(question, full answer, number) of a tiny story problem."""
    a, b = operands(rng, held_out)
    who, other = rng.sample(w.GIRLS + w.BOYS, 2)
    things = w.plural(rng.choice(w.FRUITS + w.OBJECTS[:20]))
    question, answer = rng.choice((
        (f"{who} has {a} {things}. {other} gives {who} {b} more. How many {things} does {who} "
         f"have now?", f"{a} + {b} = {a + b}. {who} has {a + b} {things}."),
        (f"{who} has {a} {things} and {other} has {b}. How many {things} do they have together?",
         f"{a} + {b} = {a + b}. They have {a + b} {things}."),
        (f"There are {a} {things} in one box and {b} in another. How many are there in all?",
         f"{a} + {b} = {a + b}. There are {a + b} {things}."),
        (f"{who} found {a} {things} in the morning and {b} in the evening. How many is that?",
         f"{a} + {b} = {a + b}. That is {a + b} {things}.")))
    return question, answer


def question(rng, held_out):
    """(question, answer) as two people would say them."""
    if rng.random() < 0.25:
        return word_problem(rng, held_out)
    a, b = operands(rng, held_out)
    ask = rng.choice(("What is {a} + {b}?", "What is {a} plus {b}?", "{a} + {b} = ?", "{a} + {b}",
                      "How much is {a} + {b}?", "{a}+{b}", "Add {a} and {b}.", "{a} + {b} =",
                      "Can you add {a} and {b}?", "What is the sum of {a} and {b}?",
                      "Calculate {a} + {b}.", "Please add {a} and {b}.", "{a}+{b}=",
                      "Compute {a} + {b}", "How much is {a} plus {b}?")).format(a=a, b=b)
    say = rng.choice(("{s}", "{s}", "{s}.", "{a} + {b} = {s}", "{a} + {b} = {s}.", "It is {s}."))
    return ask, say.format(a=a, b=b, s=a + b)


def chat(rng, held_out, count):
    """Several problems as turns. The answer style stays the same within a document."""
    pieces = [(rng.choice(("", "", "", "<|system|>You are a helpful assistant.<|end|>",
                           "<|system|>Answer with the number only.<|end|>")), NOISE)]
    only = "number only" in pieces[0][0]
    for _ in range(count):
        ask, say = question(rng, held_out)
        if only:
            while "has" in ask or "There are" in ask or "found" in ask:
                ask, say = question(rng, held_out)
            say = say.split("= ")[-1].replace("It is ", "").rstrip(".")
        pieces += [(f"<|user|>{ask}<|end|><|assistant|>", NOISE), (f"{say}<|end|>", ANSWER)]
    return pieces


def document(rng, held_out):
    style = rng.random()
    if style < 0.6:
        return lines(rng, held_out, rng.randint(5, 20))
    if style < 0.9:
        return chat(rng, held_out, rng.randint(1, 10))
    pieces = []
    for _ in range(rng.randint(2, 6)):
        ask, say = word_problem(rng, held_out)
        pieces += [(ask + " ", NOISE), (say + "\n", ANSWER)]
    return pieces
