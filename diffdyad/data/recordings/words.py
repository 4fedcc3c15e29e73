"""Words, and sounds without any. Backends by name: `none`, `pocketsphinx` (offline: whether there are words at all)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

from diffdyad.data.recordings.frames import Span, merge
from diffdyad.data.recordings.hearing import Heard
from diffdyad.data.recordings.steps import Steps
from diffdyad.errors import UserError
from diffdyad.text import TimedWord

WORDS = ("none", "pocketsphinx")

_BLOCK_S = 25.0


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


def find_words(heard: Heard, steps: Steps, backend: str, language: str = "") -> Words:
    """Words in everybody's speech. Raises UserError for a backend that is not known or not installed."""
    if backend not in WORDS:
        raise UserError(f"expected a backend for words among {', '.join(WORDS)}, found {backend!r}")
    if backend == "none":
        return Words([[] for _ in heard.spans])
    from diffdyad.data.recordings import recognisers

    recogniser = recognisers.load(backend)

    def recognise(_) -> dict:
        return {"words": [_words_of(heard, side, recogniser.words) for side in range(len(heard.spans))]}

    settings = {"block_s": _BLOCK_S}
    found = steps.run("words", backend, recogniser.version, settings, heard.keys, recognise)
    spoken = [[TimedWord(*word) for word in words] for words in found.values["words"]]
    return Words(spoken, True, recogniser.transcribes, language)


def _words_of(heard: Heard, side: int, recognise: Callable) -> list[list]:
    """[word, start, end, probability] of one person, from blocks of speech that pauses separate."""
    from diffdyad.data.recordings.hearing import own_voice
    from diffdyad.media import SAMPLING_RATE

    found: list[list] = []
    for start, end in speech_blocks(heard.spans[side], _BLOCK_S):
        waveform = own_voice(heard, side, round(start * SAMPLING_RATE), round(end * SAMPLING_RATE))
        for word in recognise(waveform):
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
