"""Short stories: a cast, a plot of causes and consequences, many wordings for every beat.

A plot is a list of beats. A beat is a tuple of alternatives; one that begins with '?' is told in
half of the stories. In a text, [a|b] is a choice and $name a slot of the cast: $H and $F are the
hero and the friend, $s/$o/$p are he/him/his of the hero, $t/$u/$v those of the friend.
"""

import re

import plots
import plots_journeys
import plots_more
import words as w

PLOTS = {**plots.PLOTS, **plots_journeys.PLOTS, **plots_more.PLOTS}
INNERMOST = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\$([A-Za-z]+)")
AFTER_STOP = re.compile(r"((?:^|[.!?]\s+|\n)\"?)([a-z])")
AFTER_QUOTE = re.compile(r"([.!?]\" )(t)(?=he )")
PRONOUNS = {"f": ("she", "her", "her"), "m": ("he", "him", "his")}


def expand(rng, text, slots):
    """Resolves the choices from the inside out, then the slots, then the capitals."""
    while True:
        text, changed = INNERMOST.subn(lambda m: rng.choice(m.group(1).split("|")), text)
        if not changed:
            break
    for _ in range(2):
        text = SLOT.sub(lambda m: slots[m.group(1)], text)
    text = AFTER_STOP.sub(lambda m: m.group(1) + m.group(2).upper(), text)
    return AFTER_QUOTE.sub(lambda m: m.group(1) + "T", text)


def uses_thing(plot):
    """Whether the plot turns around the thing of the cast, so that one can ask for it."""
    return any("$x" in text for beat in PLOTS[plot]["beats"] for text in beat)


class Cast:
    """Who and what a story is about; the slots and the answers to questions come from here."""

    def __init__(self, rng, hero=None, thing=None, plot=None):
        self.plot = plot or rng.choice(sorted(PLOTS))
        self.thing = thing or rng.choice(w.OBJECTS)
        self.place = rng.choice(w.PLACES)
        self.sex, self.hero, self.intro, self.kind = self._person(rng, hero, rng.random() < 0.5)
        while True:
            self.fsex, self.friend, self.fintro, self.fkind = self._person(
                rng, None, rng.random() < 0.5)
            if self.friend != self.hero and self.fkind != self.kind:
                break
        self.trait = rng.choice(("kind", "brave", "clever", "patient", "honest", "quiet",
                                 "curious", "gentle", "careful", "cheerful"))

    @staticmethod
    def _person(rng, wanted, animal):
        """(sex, how the text calls them, how they are introduced, what they are)"""
        if wanted is not None:
            animal = wanted in w.ANIMALS
        sex = rng.choice("fm")
        if animal:
            kind = wanted or rng.choice(w.ANIMALS)
            adj = rng.choice(("little", "young", "small", "old", "shy", "clever", "kind", "brave",
                              "hungry", "proud", "lonely", "happy"))
            if rng.random() < 0.45:
                name = rng.choice(w.GIRLS if sex == "f" else w.BOYS)
                return sex, name, f"{w.article(adj)} {kind} named {name}", kind
            return sex, f"the {kind}", f"{w.article(adj)} {kind}", kind
        name = wanted or rng.choice(w.GIRLS if sex == "f" else w.BOYS)
        sex = "f" if name in w.GIRLS else "m"
        noun = rng.choice(("girl", "young girl", "little girl") if sex == "f" else
                          ("boy", "young boy", "little boy"))
        if rng.random() < 0.25:
            noun = rng.choice([j for j in w.JOBS if j not in ("king", "queen", "fisherman")])
        return sex, name, f"{w.article(noun)} named {name}", name

    def key(self):
        """What the split between training and held-out looks at."""
        return "story", self.plot, self.kind, self.thing

    def slots(self, rng):
        s, o, p = PRONOUNS[self.sex]
        t, u, v = PRONOUNS[self.fsex]
        other = [x for x in w.OBJECTS if x != self.thing]
        color, food = rng.choice(w.COLORS), rng.choice(w.FOODS)
        return {"H": self.hero, "F": self.friend, "s": s, "S": s, "o": o, "p": p, "t": t, "T": t,
                "u": u, "v": v, "intro": self.intro, "fintro": self.fintro, "x": self.thing,
                "ax": w.article(self.thing), "place": self.place, "color": color,
                "acolor": w.article(color), "food": food, "y": rng.choice(other),
                "job": rng.choice(w.JOBS), "trait": self.trait, "day": rng.choice(w.DAYS),
                "animal": rng.choice([a for a in w.ANIMALS if a not in (self.kind, self.fkind)]),
                "room": rng.choice(w.ROOMS), "plant": rng.choice(w.PLANTS[:4]),
                "number": rng.choice(w.NUMBERS[2:11])}


OPENINGS = (
    "Once upon a time there was $intro. [$S lived|$S had a small house] [near|close to|by] "
    "the $place.",
    "[There once was|Once there was|Long ago there was] $intro who lived near the $place.",
    "[One day|One morning|On $day|One sunny day|One cold morning|Early one morning], $intro went "
    "[to the $place|for a walk near the $place|out to the $place].",
    "In a [little|small|quiet] house near the $place lived $intro.",
    "Near the $place there lived $intro. Everyone [knew|said] that $s was very $trait.",
    "This is the story of $intro, who lived not far from the $place.",
)
WEATHER = (
    "The sun was [shining|warm|bright] and the sky was [clear|blue].",
    "It was a [cold|windy|rainy|warm|quiet] [day|morning].",
    "The [birds were singing|wind was soft|air was fresh|leaves were falling].",
    "The snow was white and the [trees|roofs] were quiet.",
)
ENDINGS = (
    "From that day on, $H and $F were [good|best|close] friends.",
    "$H [learned|knew now] that $lesson.",
    "That night $H slept [well|deeply|without a worry], and $p heart was [full|light|warm].",
    "And so everyone [near the $place|who lived there] was happy again.",
    "\"Thank you,\" said $H. \"I will never forget this[ day|].\"",
    "They [ate $food together|sang a song|laughed for a long time] and went home before dark.",
    "The end.",
)


def tell(rng, cast):
    """(text, facts) of one story; facts is what a reader could be asked."""
    slots = cast.slots(rng)
    plot = PLOTS[cast.plot]
    slots["lesson"] = rng.choice(plot["lesson"])
    told = [rng.choice(OPENINGS)]
    if rng.random() < 0.4:
        told.append(rng.choice(WEATHER))
    for beat in plot["beats"]:
        choice = rng.choice(beat)
        if choice.startswith("?"):
            if rng.random() < 0.5:
                continue
            choice = choice[1:]
        told.append(choice)
    ends = rng.sample(ENDINGS[:-1], rng.randint(1, 2))
    if rng.random() < 0.3:
        ends.append(ENDINGS[-1])
    sentences = [expand(rng, s, slots) for s in told + ends]
    text = sentences[0]
    for index, sentence in enumerate(sentences[1:], 1):
        gap = "\n\n" if index > 2 and rng.random() < 0.12 else " "
        text += gap + sentence
    facts = {expand(rng, k, slots): expand(rng, v, slots) for k, v in plot["facts"].items()}
    facts["lesson"] = w.sentence(slots["lesson"]) + "."
    facts["title"] = expand(rng, rng.choice(plot["title"]), slots)
    return text, facts


def story(rng, held_out, **wanted):
    """A story from the wanted side of the split: (cast, text, facts)."""
    cast = w.draw(rng, held_out, lambda r: (lambda c: (c.key(), c))(Cast(r, **wanted)))
    return (cast, *tell(rng, cast))


def document(rng, held_out):
    """A story alone, with a title, or two in a row."""
    _, text, facts = story(rng, held_out)
    if rng.random() < 0.2:
        text = facts["title"] + "\n\n" + text
    return [(text, 1.0)]
