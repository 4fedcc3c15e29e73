"""One side of an exchange: sound, motion, words, and what else is known of a person in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from diffdyad.text import TimedWord


@dataclass(frozen=True)
class SoundTag:
    """What a stretch of sound is, such as "laughter", in seconds on the exchange's clock; from a tagger."""

    tag: str
    start_s: float
    end_s: float
    probability: float = 1.0


@dataclass(frozen=True)
class TurnSpan:
    """A turn in a record. who: "previous" or "responder"; kind: "verbal", "nonverbal" or "backchannel"."""

    who: str
    start_s: float
    end_s: float
    kind: str = "verbal"


@dataclass
class Person:
    """One side of an exchange, from the record's start_s to its end_s.

    waveform: (S,) float32, 16 kHz, this person's voice alone; (0,) = none exists. motion: group -> (T, width)
    float32; (0, width) where that group was not measured. valid: (T,) bool, a flag per frame. prosody: (T, 8) as
    `diffdyad.prosody` has it; (0, 8) = not computed. affect: (N, C), row n of the 2 s that end 0.2 (n + 1) s after the
    record's start; (0, 0) = not computed. face_affect: (N, C), row n of the picture at 0.2 (n + 1) s, NaN = no
    face seen; (0, 0) = not computed. residual_db: the other's voice in this sound, against this person's,
    an estimate; NaN = not known.
    """

    waveform: np.ndarray = field(repr=False)
    motion: dict[str, np.ndarray] = field(repr=False)
    valid: np.ndarray = field(repr=False)
    betas: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32), repr=False)
    text: str = ""
    words: list[TimedWord] = field(default_factory=list, repr=False)
    tags: list[SoundTag] = field(default_factory=list, repr=False)
    prosody: np.ndarray = field(default_factory=lambda: np.zeros((0, 8), np.float32), repr=False)
    affect: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32), repr=False)
    face_affect: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32), repr=False)
    residual_db: float = math.nan

    @property
    def num_frames(self) -> int:
        return max((len(array) for array in self.motion.values()), default=0)
