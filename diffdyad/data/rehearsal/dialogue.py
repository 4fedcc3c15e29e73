"""Written dialogues with known affect: two people take turns, and the words say how each of them feels.

A session is a chain: every turn is the previous turn of the next one, so n turns make n - 1 exchanges. The affect of
an answer's own words is drawn nearly independently of the turn it answers (`affect_correlation`), and its first words
acknowledge without judging: what the previous turn was like can be known from the previous turn only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffdyad.data.rehearsal.generic import generic_sentence
from diffdyad.data.rehearsal.phrases import (
    ACKNOWLEDGEMENTS,
    BAD,
    FEELINGS,
    GOOD,
    OPENERS,
    QUESTIONS,
    SLOTS,
    part,
)
from diffdyad.data.rehearsal.topics import TOPICS
from diffdyad.data.rehearsal.voices import SPLITS

KINDS = ("verbal", "nonverbal", "mixed", "silent")
SOUNDS = ("none", "laugh", "sigh", "gasp", "mmhm", "filler")
_KIND_ODDS = (0.78, 0.06, 0.12, 0.04)
_SOUND_VALENCE = {"laugh": 0.5, "sigh": -0.4}  # where no words say more
_GENERIC = {"train": 0.2, "validation": 0.15, "test": 0.15}


@dataclass(frozen=True)
class Turn:
    """What one person says. speaker: 0 or 1; valence and arousal in [-1, 1], as the words carry them;
    kind: verbal, nonverbal (`sound` alone), mixed (sound and text), silent; generic: words without affect."""

    speaker: int
    text: str
    valence: float
    arousal: float
    kind: str = "verbal"
    sound: str = "none"
    topic: str = ""
    generic: bool = False


@dataclass(frozen=True)
class Dialogue:
    """A session's turns in order; turns k and k + 1 are an exchange."""

    turns: tuple[Turn, ...]
    languages: tuple[str, str]
    split: str

    @property
    def exchanges(self) -> list[tuple[Turn, Turn]]:
        """(previous turn, response), chained."""
        return list(zip(self.turns[:-1], self.turns[1:], strict=True))


def draw_dialogue(
    generator: np.random.Generator,
    split: str,
    num_exchanges: int | None = None,
    languages: tuple[str, str] = ("en", "en"),
    affect_correlation: float = 0.2,
    generic: float | None = None,
) -> Dialogue:
    """A session of this split's templates and words.

    num_exchanges: at least 4, default 4 to 8; languages: of speaker 0 and 1 (who speaks another language than
    English says sentences without affect); affect_correlation: of a turn's valence and arousal with those of the
    turn before; generic: share of turns without affect, default 0.2 for training and 0.15 else.
    Raises ValueError for an unknown split, too few exchanges, or a correlation outside [-1, 1]."""
    if split not in SPLITS:
        raise ValueError(f"expected a split of {SPLITS}, got {split!r}")
    if not -1 <= affect_correlation <= 1:
        raise ValueError(f"expected an affect correlation in [-1, 1], got {affect_correlation}")
    count = int(generator.integers(4, 9)) if num_exchanges is None else num_exchanges
    if count < 4:
        raise ValueError(f"expected at least 4 exchanges in a session, got {count}")
    share = _GENERIC[split] if generic is None else generic
    topics = list(TOPICS)
    topic = str(generator.choice(topics))
    first = int(generator.integers(2))
    wish = np.array([_draw_affect(generator), _draw_affect(generator)])
    turns: list[Turn] = []
    told: set[str] = set()  # nobody tells the same thing twice
    for k in range(count + 1):
        if k and generator.random() < 0.15:
            topic = str(generator.choice(topics))
        speaker = (first + k) % 2
        language = languages[speaker]
        turns.append(_turn(generator, split, k, speaker, language, topic, wish, share, told))
        # the scale keeps the spread the same from turn to turn
        fresh = np.array([_draw_affect(generator), _draw_affect(generator)])
        wish = affect_correlation * wish + np.sqrt(1 - affect_correlation**2) * fresh
    return Dialogue(tuple(turns), languages, split)


def _draw_affect(generator: np.random.Generator) -> float:
    """Often none, else anything up to strong."""
    return 0.0 if generator.random() < 0.2 else float(generator.uniform(-1, 1))


def _turn(
    generator: np.random.Generator, split: str, index: int, speaker: int, language: str, topic: str,
    wish: np.ndarray, share: float, told: set[str],
) -> Turn:  # fmt: skip
    kind = str(generator.choice(KINDS, p=_KIND_ODDS)) if index else "verbal"
    valence = 0.0 if abs(wish[0]) < 0.2 else float(np.sign(wish[0]) * (0.4, 0.7, 1.0)[_step(wish[0])])
    arousal = float(np.clip(wish[1] + generator.normal(0, 0.15), -1, 1))
    if kind == "silent":
        return Turn(speaker, "", 0.0, min(arousal, 0.0), kind, "none", topic)
    sound = _sound(generator, valence, arousal, bare=kind == "nonverbal") if kind in ("nonverbal", "mixed") else "none"
    if kind == "nonverbal":
        return Turn(speaker, "", _SOUND_VALENCE.get(sound, 0.0), arousal, kind, sound, topic)
    plain = language != "en" or generator.random() < share
    sentences = _length(generator)
    if plain:
        text = " ".join(generic_sentence(generator, split, language) for _ in range(sentences))
        return Turn(speaker, text, _SOUND_VALENCE.get(sound, 0.0), 0.6 * arousal, kind, sound, topic, generic=True)
    text = _affective(generator, split, topic, valence, arousal, sentences, told, opening=index == 0)
    return Turn(speaker, text, valence, arousal, kind, sound, topic)


def _step(wish: float) -> int:
    return int(min(2, (abs(wish) - 0.2) / 0.25))


def _length(generator: np.random.Generator) -> int:
    """Sentences: mostly two, now and then a long turn."""
    return int(generator.choice([1, 2, 3, 5], p=[0.4, 0.42, 0.13, 0.05]))


def _sound(generator: np.random.Generator, valence: float, arousal: float, bare: bool) -> str:
    odds = {
        "laugh": 0.15 + 0.6 * max(valence, 0),
        "sigh": 0.08 + 0.5 * max(-valence, 0) * (arousal < 0.3),
        "gasp": 0.04 + 0.4 * max(arousal, 0),
        "mmhm": 0.5 if bare else 0.12,
        "filler": 0.05 if bare else 0.4,
    }
    weights = np.array(list(odds.values()))
    return str(generator.choice(list(odds), p=weights / weights.sum()))


def _affective(
    generator: np.random.Generator, split: str, topic: str, valence: float, arousal: float, sentences: int,
    told: set[str], opening: bool,
) -> str:  # fmt: skip
    """[first words] event [event] [feeling] [question], all of one valence; the words' strength follows |valence|."""
    sign = int(np.sign(valence))
    strength = {0.4: 0, 0.7: 1, 1.0: 2}.get(abs(valence), 0)
    high = arousal > 0.15
    parts: list[str] = []
    if generator.random() < (0.6 if opening else 0.55):
        parts.append(str(generator.choice(part(OPENERS if opening else ACKNOWLEDGEMENTS, split))))
    for _ in range(max(1, sentences - 1)):
        frame = _event(generator, split, topic, sign, told)
        told.add(frame)
        if parts and parts[-1].endswith(",") and not frame.startswith(("{", "I ")):
            frame = frame[0].lower() + frame[1:]
        parts.append(_fill(frame, split, generator) + ("!" if high and generator.random() < 0.7 else "."))
    if sentences > 1 or strength == 2:
        feeling = str(generator.choice(part(FEELINGS[sign, high], split)))
        parts.append(feeling.format(good=generator.choice(GOOD[strength]), bad=generator.choice(BAD[strength])))
    if generator.random() < 0.25:
        parts.append(str(generator.choice(part(QUESTIONS, split))))
    return _capitalise(" ".join(parts))


def _event(generator: np.random.Generator, split: str, topic: str, sign: int, told: set[str]) -> str:
    """Something of this topic that nobody has told yet, else of another topic, else anything."""
    here = part(TOPICS[topic][sign], split)
    anywhere = [frame for signs in TOPICS.values() for frame in part(signs[sign], split)]
    for pool in (here, anywhere):
        fresh = [frame for frame in pool if frame not in told]
        if fresh:
            return str(generator.choice(fresh))
    return str(generator.choice(anywhere))


def _fill(frame: str, split: str, generator: np.random.Generator) -> str:
    return frame.format(**{slot: generator.choice(part(pool, split)) for slot, pool in SLOTS.items()})


def _capitalise(text: str) -> str:
    """Capital letters after full stops (a filled slot may begin a sentence)."""
    out, fresh = [], True
    for letter in text:
        out.append(letter.upper() if fresh and letter.isalpha() else letter)
        if letter.isalpha():
            fresh = False
        elif letter in ".!?":
            fresh = True
    return "".join(out)
