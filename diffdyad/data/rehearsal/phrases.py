"""What people tell each other: sentence frames by topic and valence, feelings, answers' first words, slot fillers.

Every list is cut by `part`: of seven neighbours five are for training, one for validation, one for the test. Only
the plain affect words of `GOOD` and `BAD` (and the very common acknowledgements) are shared: without them the words
of a test dialogue could mean nothing to who learned from the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def part(items: Sequence[Item], split: str) -> list[Item]:
    """The share of a list that belongs to a split: disjoint, and together the whole."""
    keep = {"train": (0, 1, 2, 3, 4), "validation": (5,), "test": (6,)}[split]
    return [item for k, item in enumerate(items) if k % 7 in keep]


# shared affect words, mild to strong
GOOD = (("nice", "pleasant", "good"), ("lovely", "great", "happy"), ("wonderful", "fantastic", "brilliant"))
BAD = (("annoying", "difficult", "bad"), ("sad", "awful", "miserable"), ("terrible", "horrible", "dreadful"))

SLOTS: dict[str, tuple[str, ...]] = {
    "name": (
        "Peter",
        "Anna",
        "Bob",
        "Maria",
        "Philip",
        "Emma",
        "Victor",
        "Michael",
        "Sophie",
        "Barbara",
        "Tom",
        "Fiona",
        "Marvin",
        "Beth",
        "Paul",
        "Julia",
        "Sam",
        "Veronica",
        "Ben",
        "Amy",
        "Wilma",
        "Frank",
        "Pamela",
        "Oliver",
        "Mabel",
        "David",
        "Ruth",
        "Bruno",
    ),
    "relative": (
        "my brother",
        "my mother",
        "my father-in-law",
        "my wife",
        "my best friend",
        "my uncle",
        "my niece",
        "my sister",
        "my grandmother",
        "my son",
        "my neighbour",
        "my husband",
        "my cousin",
        "my aunt",
    ),
    "day": (
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "this morning",
        "last night",
        "at noon",
        "on the weekend",
        "in May",
        "last week",
        "this afternoon",
    ),
    "weekday": (
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "Easter",
        "Christmas",
        "New Year",
        "the first of May",
        "the end of June",
        "midsummer",
        "autumn",
    ),
    "project": (
        "budget plan",
        "mobile app",
        "big report",
        "museum project",
        "film proposal",
        "spring campaign",
        "library website",
        "pilot study",
        "product video",
        "bridge design",
        "webshop",
        "paper on bees",
        "public survey",
        "theme park model",
    ),
    "place": (
        "Boston",
        "Mumbai",
        "Portugal",
        "Vienna",
        "the Baltic coast",
        "Wales",
        "Morocco",
        "Paris",
        "New Mexico",
        "Bavaria",
        "the Alps",
        "Japan",
        "Naples",
        "Vermont",
    ),
    "food": (
        "mushroom soup",
        "apple pie",
        "fresh bread",
        "pumpkin curry",
        "fish and chips",
        "blueberry pancakes",
        "beef stew",
        "plum jam",
        "vegetable lasagne",
        "peppermint tea",
        "baked potatoes",
        "honey cake",
        "tomato salad",
        "walnut muffins",
    ),
    "pet": (
        "puppy",
        "old cat",
        "pony",
        "parrot",
        "rabbit",
        "beagle",
        "hamster",
        "kitten",
        "sheepdog",
        "goldfish",
        "budgie",
        "terrier",
        "tortoise",
        "guinea pig",
    ),
    "sport": (
        "football match",
        "bowling night",
        "marathon",
        "basketball final",
        "boxing club",
        "volleyball cup",
        "tennis match",
        "swimming meet",
        "bike race",
        "cricket game",
        "ski trip",
        "rowing event",
        "chess open",
        "hockey game",
    ),
    "thing": (
        "bicycle",
        "phone",
        "piano",
        "van",
        "washing machine",
        "camera",
        "umbrella",
        "laptop",
        "guitar",
        "boiler",
        "microphone",
        "bookshelf",
        "lamp",
        "coffee maker",
    ),
    "number": (
        "two",
        "three",
        "five",
        "seven",
        "eleven",
        "fourteen",
        "nine",
        "four",
        "six",
        "twelve",
        "twenty",
        "fifteen",
        "thirty",
        "eight",
    ),
    "film": (
        "film",
        "concert",
        "play",
        "book club",
        "exhibition",
        "podcast",
        "musical",
        "festival",
        "ballet",
        "novel",
        "series",
        "lecture",
        "quiz show",
        "circus",
    ),
}

# (valence sign, high arousal) -> what is added to the event
FEELINGS: dict[tuple[int, bool], tuple[str, ...]] = {
    (1, True): (
        "I am so {good} I could burst!", "It is absolutely {good}!", "I just cannot stop smiling!",
        "What a {good} surprise!", "I could hug the whole world!", "Can you believe it? It is {good}!",
        "I jumped up and down, it is so {good}!",
    ),
    (1, False): (
        "It feels {good}, in a quiet way.", "I am calm and {good} about it.", "It makes me feel warm inside.",
        "I feel at peace, it is {good}.", "That was {good}, really.", "It is a {good} feeling, I could sit here.",
        "So I am at ease now, and it is {good}.",
    ),
    (-1, True): (
        "I am so angry I could scream!", "It is absolutely {bad}!", "I was shaking, it was {bad}!",
        "How can anybody be so {bad}!", "I panicked, it was {bad}!", "I hate it, it is {bad}!",
        "Stop it, I thought, this is {bad}!",
    ),
    (-1, False): (
        "I feel so tired and {bad}.", "It is {bad}, and I have no strength left.", "I just feel empty.",
        "It is a {bad} time, to be honest.", "Now I sit here and feel {bad}.", "I want to see nobody, it is {bad}.",
        "It weighs on me, it is {bad}.",
    ),
    (0, True): (
        "Quick, write it down!", "Hurry up, we have to go!", "Wow, how time flies!", "Listen, this matters!",
        "Come on, move over!", "Look, over there!", "Now, right away, please!",
    ),
    (0, False): (
        "That is about it.", "I think so, at least.", "We will see.", "It is the same as before.",
        "There is no rush.", "That is how it works.", "I do not mind either way.",
    ),
}  # fmt: skip

# how a turn may begin, before its own matter: says nothing about how the previous turn was
ACKNOWLEDGEMENTS = (
    "I see.", "Right.", "Okay.", "Hm, let me think.", "Well, you know,", "Now that you say it,", "By the way,",
    "Yes, about that,", "Mhm, I understand.", "So, with me it is like this.", "Let me tell you something as well.",
    "Funny that you bring it up,", "Before I forget,", "As for me,",
)  # fmt: skip
OPENERS = (
    "Hello, good to meet you.", "Do you have a minute?", "You know what?", "Let me tell you about my week.",
    "I have to tell you something.", "Did you hear?", "So, here is what happened.",
)  # fmt: skip
QUESTIONS = (
    "What about you?", "How is it with you?", "Did you ever have that?", "What do you make of it?",
    "Is it the same with you?", "And what have you been up to?", "Do you see what I mean?",
)  # fmt: skip
