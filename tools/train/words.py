"""The vocabulary of the generated text, and the one rule that splits training from held-out.

Everything the generators draw comes from these tables, so the size of the world is known and a
held-out item is held out by construction (`is_held_out`), not by luck of the seed.
"""

import random
import zlib

GIRLS = ("Anna Mia Lily Rosa Clara Emma Nora Ella Ruby Zoe Ivy Alice Lucy Maya Hanna Sara Nina "
         "Daisy Eva Molly Tara Wendy Grace Olga Bella").split()
BOYS = ("Tom Ben Max Leo Sam Jack Oscar Finn Noah Paul Adam Felix Hugo Peter Henry Luke Otto "
        "Simon Victor Will David Eric Frank George Ivan").split()
ANIMALS = ("fox owl bear rabbit mouse cat dog wolf duck frog goat horse hen sheep crow deer mole "
           "squirrel turtle otter badger goose pig donkey hedgehog swan lion tiger monkey "
           "elephant whale seal eagle snake bee crab lizard camel raven beaver").split()
ADJECTIVES = ("red blue green yellow white black brown grey golden silver small big old young "
              "happy sad brave shy clever quick slow quiet loud kind lazy tall round soft "
              "bright dark warm cold gentle funny proud tired hungry busy lucky strange").split()
OBJECTS = ("lantern kite key map book drum bell rope basket hat coat ball boat clock ring cup "
           "spoon flute mirror candle blanket ladder shovel brush box letter feather shell "
           "button coin whistle umbrella scarf wagon hammer needle pot jar picture "
           "bucket pillow bottle violin crown compass broom").split()
FOODS = ("bread soup honey cheese apples pears plums carrots nuts berries cake pie milk tea "
         "pancakes cookies lemons peaches onions beans corn grapes cherries rice").split()
FRUITS = ("apple pear plum carrot nut berry lemon peach onion bean cherry cookie egg orange "
          "melon potato tomato mushroom").split()
PLACES = ("forest village garden river hill meadow lake town farm beach valley castle mill "
          "harbor market island cave field orchard bridge mountain park tower desert barn").split()
CITIES = ("Paris London Rome Berlin Madrid Vienna Oslo Cairo Lima Tokyo Delhi Boston Dublin "
          "Prague Athens Lisbon Moscow Geneva Milan Havana Sydney Toronto Denver Quito").split()
COLORS = "red blue green yellow white black brown grey golden silver orange purple pink".split()
JOBS = ("baker farmer teacher doctor sailor miller tailor painter singer hunter fisherman king "
        "queen smith gardener cook shepherd carpenter pilot nurse").split()
PLANTS = ("oak rose tulip daisy pine fern ivy lily moss clover birch willow maple cedar "
          "poppy violet thistle palm").split()
ROOMS = "kitchen bedroom attic cellar hall garage office library bathroom shed".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October November "
          "December").split()
NUMBERS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
           "fifteen sixteen seventeen eighteen nineteen twenty").split()
PLURAL = {"berry": "berries", "cherry": "cherries", "peach": "peaches", "potato": "potatoes",
          "tomato": "tomatoes", "box": "boxes", "brush": "brushes", "daisy": "daisies"}

OPPOSITES = {
    "big": "small", "hot": "cold", "day": "night", "up": "down", "old": "new", "fast": "slow",
    "happy": "sad", "black": "white", "open": "closed", "wet": "dry", "loud": "quiet",
    "hard": "soft", "long": "short", "full": "empty", "light": "dark", "early": "late",
    "left": "right", "near": "far", "high": "low", "strong": "weak", "thick": "thin",
    "rich": "poor", "clean": "dirty", "sweet": "bitter", "first": "last", "begin": "end"}
SOUNDS = {"cat": "meow", "dog": "woof", "cow": "moo", "duck": "quack", "sheep": "baa",
          "horse": "neigh", "frog": "croak", "owl": "hoot", "pig": "oink", "bee": "buzz",
          "mouse": "squeak", "lion": "roar", "snake": "hiss", "crow": "caw", "wolf": "howl"}
HOMES = {"fish": "in the water", "bird": "in a nest", "bee": "in a hive", "fox": "in a den",
         "bear": "in a cave", "rabbit": "in a burrow", "frog": "near a pond", "cow": "on a farm",
         "camel": "in the desert", "whale": "in the sea", "monkey": "in the trees",
         "spider": "in a web", "mole": "under the ground", "king": "in a castle"}
USES = {"key": "to open a lock", "lantern": "to see in the dark", "rope": "to tie things",
        "spoon": "to eat soup", "umbrella": "to stay dry in the rain", "clock": "to tell the time",
        "map": "to find the way", "hammer": "to drive in nails", "needle": "to sew clothes",
        "broom": "to sweep the floor", "ladder": "to climb up high", "boat": "to cross the water",
        "bed": "to sleep in", "cup": "to drink tea", "shovel": "to dig holes",
        "blanket": "to keep warm", "brush": "to paint pictures", "bell": "to call people"}
COLOR_OF = {"the sky": "blue", "grass": "green", "snow": "white", "a lemon": "yellow",
            "coal": "black", "a ripe tomato": "red", "an orange": "orange", "milk": "white",
            "a frog": "green", "chocolate": "brown", "the sun": "yellow", "blood": "red"}

HELD_OUT_ONE_IN = 10


def is_held_out(*parts):
    """True for about one item in ten; a pure function of the item, so no run can leak it."""
    return zlib.crc32("|".join(str(p) for p in parts).encode()) % HELD_OUT_ONE_IN == 0


def draw(rng, held_out, make):
    """Draws from make(rng) -> (key, item) until the item belongs to the wanted side."""
    while True:
        key, item = make(rng)
        if is_held_out(*key) == held_out:
            return item


def article(noun):
    """'a fox', 'an owl'."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def plural(noun):
    return PLURAL.get(noun, noun + "s")


def sentence(text):
    return text[0].upper() + text[1:]


def pick(rng, *options):
    return rng.choice(options)


def rng_for(seed, *parts):
    """An independent, reproducible stream for each purpose."""
    return random.Random(f"{seed}:" + ":".join(str(p) for p in parts))
