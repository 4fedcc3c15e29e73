"""Words, and sounds without any. Backends by name: `none`, `pocketsphinx` (offline: whether there are words at all),
`whisper` (what was said, in any language, where its weights are at hand)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from diffdyad.data.recordings.frames import Span, merge
from diffdyad.data.recordings.hearing import Heard, own_voice
from diffdyad.data.recordings.steps import Steps
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE
from diffdyad.text import TimedWord

WORDS = ("none", "pocketsphinx", "whisper")

_BLOCK_S = 25.0
_BLOCKS_FOR_LANGUAGE = 3


@dataclass
class Words:
    """Words of each person in order of time; known: whether they were looked for; transcribed: whether they are what
    was said, or only a sign that something was. language: as it was heard, "" = not known."""

    spoken: list[list[TimedWord]] = field(default_factory=lambda: [[], []])
    known: bool = False
    transcribed: bool = False
    language: str = ""

    def of(self, side: int) -> list[TimedWord]:
        """What goes into the record as text."""
        return self.spoken[side] if self.transcribed else []

    def share(self, side: int, span: Span) -> float:
        """Of a span, the share that is covered by words."""
        words = self.spoken[side]
        first = bisect_left([word.end_s for word in words], span[0])
        covered = 0.0
        for word in words[first:]:
            if word.start_s >= span[1]:
                break
            covered += max(0.0, min(word.end_s, span[1]) - max(word.start_s, span[0]))
        return covered / max(span[1] - span[0], 1e-9)

    def has_words(self, side: int, span: Span) -> bool:
        return self.share(side, span) > 0.0


def find_words(
    heard: Heard, steps: Steps, backend: str, language: str = "", model: str | None = None, revision: str | None = None
) -> Words:
    """Words in everybody's speech. language: BCP 47, "" = not known; model, revision: weights, for backends that take
    some. Raises UserError for a backend that is not known or not installed, and a language that it does not have."""
    if backend not in WORDS:
        raise UserError(f"expected a backend for words among {', '.join(WORDS)}, found {backend!r}")
    if backend == "none":
        return Words([[] for _ in heard.spans])
    from diffdyad.data.recordings import recognisers

    recogniser = recognisers.load(backend, model, revision)
    settings = {"block_s": _BLOCK_S, **recogniser.settings}
    if backend == "whisper":
        settings["language"] = recogniser.language(language)

    def recognise(_) -> dict:
        values = {}
        if backend == "whisper":
            values["language"] = settings["language"] or recogniser.detect(_longest_blocks(heard))
        spoken = [_words_of(heard, side, recogniser.words, values.get("language", "")) for side in _sides(heard)]
        return {"words": spoken, **values}

    found = steps.run("words", backend, recogniser.version, settings, heard.keys, recognise)
    spoken = [[TimedWord(*word) for word in words] for words in found.values["words"]]
    return Words(spoken, True, recogniser.transcribes, language or found.values.get("language", ""))


def _sides(heard: Heard) -> range:
    return range(len(heard.spans))


def _longest_blocks(heard: Heard) -> list[np.ndarray]:
    """Waveforms to tell the language by: it is one language that both speak."""
    blocks = [(side, span) for side in _sides(heard) for span in speech_blocks(heard.spans[side], _BLOCK_S)]
    blocks.sort(key=lambda block: block[1][0] - block[1][1])
    return [_waveform(heard, side, span) for side, span in blocks[:_BLOCKS_FOR_LANGUAGE]]


def _waveform(heard: Heard, side: int, span: Span) -> np.ndarray:
    return own_voice(heard, side, round(span[0] * SAMPLING_RATE), round(span[1] * SAMPLING_RATE))


def _words_of(heard: Heard, side: int, recognise: Callable, language: str) -> list[list]:
    """[word, start, end, probability] of one person, from blocks of speech that pauses separate."""
    found: list[list] = []
    for start, end in speech_blocks(heard.spans[side], _BLOCK_S):
        for word in recognise(_waveform(heard, side, (start, end)), language):
            if word.end_s > word.start_s:
                found.append([word.word, round(start + word.start_s, 3), round(start + word.end_s, 3),
                              round(word.probability, 4)])  # fmt: skip
    return found


def speech_blocks(spans: list[Span], longest_s: float) -> list[Span]:
    """Speech in blocks for a recogniser: phrases together up to a length, longer ones cut."""
    blocks: list[Span] = []
    for start, end in merge(spans, 0.5):
        if blocks and end - blocks[-1][0] <= longest_s and start - blocks[-1][1] < 2.0:
            blocks[-1] = (blocks[-1][0], end)
            continue
        while end - start > longest_s:
            blocks.append((start, start + longest_s))
            start += longest_s
        blocks.append((start, end))
    return blocks
