"""Conversations in the chat format: greetings, small questions, stories on request, follow-ups.

The format is the one of the exported chat template: a turn is <|role|>text<|end|>.
"""

import arithmetic
import stories
import words as w

ASSISTANT_NAMES = ("Baton", "Baton", "Baton", "Pip", "Nori", "Ada", "Kit", "Juno")
HELLO = ("Hello!", "Hi!", "Hello", "Hi there!", "Good morning!", "Good evening!", "Hey!", "Hi",
         "hello", "Hello there.", "Hey there", "Good day!")
GREET = ("Hello! How can I help you?", "Hi! What can I do for you today?",
         "Hello! It is nice to meet you.", "Hello! Would you like to hear a story?")
THANKS = ("Thank you!", "Thanks!", "Thank you very much.", "Thanks, that was nice.", "Great!")
WELCOME = ("You are welcome!", "You are welcome. Is there anything else?", "I am glad to help.")
BYE = ("Goodbye!", "Bye!", "See you later.", "Good night!")
FAREWELL = ("Goodbye! Have a nice day.", "Bye! Come back soon.", "See you soon!")


def facts(rng):
    """One small question about the world: (question, answer)."""
    kind = rng.randrange(13)
    if kind == 0:
        a, b = rng.choice(sorted(w.OPPOSITES.items()))
        if rng.random() < 0.5:
            a, b = b, a
        return (w.pick(rng, f"What is the opposite of {a}?", f"Opposite of {a}?"),
                w.pick(rng, f"The opposite of {a} is {b}."))
    if kind == 1:
        a, s = rng.choice(sorted(w.SOUNDS.items()))
        return (w.pick(rng, f"What does {w.article(a)} say?", f"What sound does {w.article(a)} "
                       "make?"), f"{w.sentence(w.article(a))} says {s}.")
    if kind == 2:
        a, p = rng.choice(sorted(w.HOMES.items()))
        return f"Where does {w.article(a)} live?", f"{w.sentence(w.article(a))} lives {p}."
    if kind == 3:
        a, u = rng.choice(sorted(w.USES.items()))
        return (w.pick(rng, f"What is {w.article(a)} used for?", f"What do you need {w.article(a)}"
                       " for?"), f"You need {w.article(a)} {u}.")
    if kind == 4:
        t, c = rng.choice(sorted(w.COLOR_OF.items()))
        return (w.pick(rng, f"What color is {t}?", f"What is the color of {t}?"),
                f"{w.sentence(t)} is {c}.")
    if kind in (5, 6):
        table, unit = ((w.DAYS, "day"), (w.MONTHS, "month"))[kind - 5]
        i = rng.randrange(len(table))
        n = len(table)
        if rng.random() < 0.5:
            return (f"What {unit} comes after {table[i]}?",
                    f"{table[(i + 1) % n]} comes after {table[i]}.")
        return (f"What {unit} comes before {table[i]}?",
                f"{table[(i - 1) % n]} comes before {table[i]}.")
    if kind == 7:
        a = rng.randint(0, 90)
        b = a + rng.randint(2, 9)
        return (w.pick(rng, f"Count from {a} to {b}.", f"Please count from {a} to {b}."),
                ", ".join(map(str, range(a, b + 1))) + ".")
    if kind == 8:
        noun, table = rng.choice((("animals", w.ANIMALS), ("colors", w.COLORS),
                                  ("cities", w.CITIES), ("fruits", w.FRUITS),
                                  ("jobs", w.JOBS), ("days", w.DAYS), ("plants", w.PLANTS)))
        n = rng.randint(2, 5)
        items = rng.sample(table, n)
        return (w.pick(rng, f"Name {w.NUMBERS[n]} {noun}.", f"Tell me {w.NUMBERS[n]} {noun}.",
                       f"Can you name {n} {noun}?"),
                w.sentence(", ".join(items[:-1]) + " and " + items[-1] + "."))
    if kind == 9:
        n = rng.randint(0, 20)
        return (w.pick(rng, f"Write {n} as a word.", f"How do you say {n} in words?"),
                w.sentence(w.NUMBERS[n]) + ".")
    if kind == 10:
        a, b = rng.sample(range(100), 2)
        big = rng.random() < 0.5
        return (f"Which number is {'bigger' if big else 'smaller'}, {a} or {b}?",
                f"{max(a, b) if big else min(a, b)}.")
    if kind == 11:
        text = rng.choice((
            " ".join(rng.sample(w.OBJECTS + w.ANIMALS + w.CITIES, rng.randint(2, 6))),
            f"the {rng.choice(w.ADJECTIVES)} {rng.choice(w.ANIMALS)} runs to the "
            f"{rng.choice(w.PLACES)}",
            " ".join(str(rng.randrange(10)) for _ in range(rng.randint(3, 8)))))
        return (w.pick(rng, f"Repeat after me: {text}", f"Say this: {text}", f"Repeat: {text}"),
                text)
    who, age = rng.choice(w.GIRLS + w.BOYS), rng.randint(2, 99)
    city = rng.choice(w.CITIES)
    return (w.pick(rng, f"{who} is {age} years old and lives in {city}. Write it as JSON.",
                   f"Write JSON: name {who}, age {age}, city {city}."),
            f'{{"name": "{who}", "age": {age}, "city": "{city}"}}')


def about_me(rng, name):
    return rng.choice((
        (w.pick(rng, "What is your name?", "Who are you?", "What are you called?"),
         w.pick(rng, f"My name is {name}.", f"I am {name}, a small language model.")),
        (w.pick(rng, "What can you do?", "How can you help me?"),
         "I can tell short stories, answer small questions, remember lists and add numbers."),
        (w.pick(rng, "Are you a person?", "Are you human?"),
         "No, I am a small language model."),
        (w.pick(rng, "How are you?", "How are you today?"),
         w.pick(rng, "I am fine, thank you. How are you?", "I am well, thank you!"))))


def told_facts(rng):
    """Something the user says and asks for later: ((say, reply), (ask, answer))."""
    name, age = rng.choice(w.GIRLS + w.BOYS), rng.randint(3, 99)
    pet, color = rng.choice(w.ANIMALS), rng.choice(w.COLORS)
    city, job = rng.choice(w.CITIES), rng.choice(w.JOBS)
    return rng.choice((
        ((w.pick(rng, f"My name is {name}.", f"I am {name}.", f"Hi, I am {name}."),
          f"Nice to meet you, {name}!"),
         (w.pick(rng, "What is my name?", "Do you remember my name?"), f"Your name is {name}.")),
        ((f"I have {w.article(pet)} named {name}.", f"{name} is a nice name for "
          f"{w.article(pet)}!"),
         (f"What is the name of my {pet}?", f"Your {pet} is named {name}.")),
        ((f"I live in {city}.", f"{city} is a beautiful place."),
         ("Where do I live?", f"You live in {city}.")),
        ((f"I am {age} years old.", "Thank you for telling me."),
         ("How old am I?", f"You are {age} years old.")),
        ((f"My favorite color is {color}.", f"{w.sentence(color)} is a nice color."),
         ("What is my favorite color?", f"Your favorite color is {color}.")),
        ((f"I work as {w.article(job)}.", f"It must be interesting to be {w.article(job)}."),
         ("What is my job?", f"You are {w.article(job)}."))))


TOPICS = {
    "lost": "something lost", "hungry": "sharing", "storm": "a storm", "garden": "a garden",
    "broken": "telling the truth", "river": "a river", "race": "a race", "fear": "being brave",
    "make": "a gift", "found": "honesty", "trade": "the market", "party": "a birthday party",
    "sick": "a sick friend", "learn": "music", "map": "a treasure", "quarrel": "a quarrel",
    "kite": "a kite in a tree", "moon": "the moon", "snow": "the winter", "school": "school",
    "clock": "an old clock", "baker": "a cake", "boat": "a boat", "painter": "painting",
    "well": "three wishes", "dragon": "a dragon", "letter": "a letter", "song": "a bird",
    "bridgekeeper": "a riddle", "sheep": "a lost lamb"}


def story_turns(rng, held_out):
    """A request, the story, and what a curious listener asks next."""
    cast, text, known = stories.story(rng, held_out)
    hero = cast.hero if cast.hero == cast.kind else w.article(cast.kind)
    thing = w.article(cast.thing)
    topic = TOPICS[cast.plot]
    about = rng.choice((hero, f"{hero} near the {cast.place}", topic, f"{hero} and {topic}"))
    if stories.uses_thing(cast.plot) and rng.random() < 0.7:
        about = f"{hero} and {thing}"
    ask = rng.choice((f"Tell me a story about {about}.", f"Please tell me a story about {about}.",
                      f"Can you tell me a story about {about}?", f"Write a story about {about}.",
                      f"I would like to hear a story about {about}.", f"A story about {about}, "
                      "please.", f"Tell me a short story about {about}",
                      "Tell me a story.", "Tell me a short story."))
    turns = [(ask, rng.choice(("", "", "", "Here is a story.\n\n")) + text)]
    asks = [(q, a) for q, a in known.items() if q not in ("lesson", "title")]
    asks.append((w.pick(rng, "What can we learn from it?", "What is the lesson?"),
                 known["lesson"]))
    asks.append((w.pick(rng, "What is a good title?", "Give the story a title."), known["title"]))
    asks.append((w.pick(rng, "Who is the story about?", "Who is the hero?"),
                 w.sentence(f"{cast.hero}.")))
    asks.append(("Where does it take place?", f"Near the {cast.place}."))
    for question, answer in rng.sample(asks, rng.choice((0, 0, 1, 2, 3))):
        turns.append((question, answer))
    return turns


def document(rng, held_out):
    """A conversation: (text, weight) pieces."""
    name = rng.choice(ASSISTANT_NAMES)
    brief = False
    pieces = []
    style = rng.random()
    if style < 0.4 or name != "Baton":
        system = rng.choice((f"You are {name}, a helpful assistant.", f"You are {name}.",
                             f"Your name is {name}.", f"You are {name}, a friendly storyteller."))
        pieces.append((f"<|system|>{system}<|end|>", 0.3))
    elif style < 0.5:
        pieces.append(("<|system|>You are a helpful assistant.<|end|>", 0.3))
    turns, later = [], []
    if rng.random() < 0.3:
        turns.append((rng.choice(HELLO), rng.choice(GREET)))
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        kind = rng.random()
        if kind < 0.4:
            turns += story_turns(rng, held_out)
        elif kind < 0.65:
            turns.append(facts(rng))
        elif kind < 0.8:
            turns.append(about_me(rng, name))
        elif kind < 0.92:
            said, asked = told_facts(rng)
            if all(asked[0] != other[0] for other in later):
                turns.append(said)
                later.append(asked)
        else:
            turns.append(arithmetic.question(rng, held_out))
    rng.shuffle(later)
    turns += later
    if rng.random() < 0.25:
        turns.append((rng.choice(THANKS), rng.choice(WELCOME)))
    if rng.random() < 0.15:
        turns.append((rng.choice(BYE), rng.choice(FAREWELL)))
    for ask, answer in turns:
        pieces += [(f"<|user|>{ask}<|end|><|assistant|>", 0.3), (f"{answer}<|end|>", 1.0)]
    return pieces
