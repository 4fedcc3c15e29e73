"""What behaviour is computed from and drawn on: turns on a session's clock, and the face being moved."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from diffdyad.data.rehearsal.curves import smoothstep
from diffdyad.data.rehearsal.phones import VOWELS
from diffdyad.data.rehearsal.visemes import INTERNAL_RATE, PhoneLike
from diffdyad.motion import ARKIT_EXPRESSIONS

SIDES = ("", "Left", "Right")


def channels_of(name: str) -> list[int]:
    """Expression channels that a name stands for: `mouthSmile` is left and right, `browInnerUp` is itself."""
    found = [ARKIT_EXPRESSIONS.index(name + side) for side in SIDES if name + side in ARKIT_EXPRESSIONS]
    if not found:
        raise ValueError(f"expected the name of an expression (with or without its side), found {name!r}")
    return found


@dataclass(frozen=True)
class Accent:
    """A word that is stressed by the voice: where its vowel peaks, and how strongly (about 0.5 to 1.5)."""

    time_s: float
    weight: float


@dataclass(frozen=True)
class Sound:
    """A sound that is no speech: `laugh`, `sigh` or `gasp`; bursts are the times of its pulses."""

    kind: str
    start_s: float
    end_s: float
    bursts: tuple[float, ...]


@dataclass(frozen=True)
class Turn:
    """One turn of one person, all times in seconds on the session's clock.

    `loudness` (N,) in [0, 1] at INTERNAL_RATE from `start_s`; `kind` as response_kind of the record, or
    "backchannel" for what a listener utters meanwhile.
    """

    start_s: float
    end_s: float
    phones: list[PhoneLike]
    loudness: np.ndarray = field(repr=False)
    valence: float = 0.0
    arousal: float = 0.0
    kind: str = "verbal"
    question: bool = False

    @cached_property
    def phrase_ends(self) -> list[float]:
        """Ends of stretches of speech before a pause of 0.15 s or more, the turn's own end among them."""
        spoken = [p for p in self.phones if p.phone != "SIL"]
        ends = [a.end_s for a, b in pairwise(spoken) if b.start_s - a.end_s >= 0.15]
        return ends + [spoken[-1].end_s] if spoken else []

    @cached_property
    def accents(self) -> list[Accent]:
        """Stressed vowels that stand out from their neighbours by loudness and length, at least 0.3 s apart."""
        candidates = []
        for phone in self.phones:
            if phone.phone in VOWELS and phone.stress > 0:
                middle = 0.5 * (phone.start_s + phone.end_s)
                index = min(int((middle - self.start_s) * INTERNAL_RATE), len(self.loudness) - 1)
                loud = float(self.loudness[max(index, 0)]) if len(self.loudness) else 0.5
                score = loud + 2.0 * (phone.end_s - phone.start_s) + (0.15 if phone.stress == 1 else 0.0)
                candidates.append((score, middle))
        if not candidates:
            return []
        scores = np.array([score for score, _ in candidates])
        low, high = np.quantile(scores, (0.35, 0.95))
        kept: list[Accent] = []
        for score, middle in sorted(candidates, reverse=True):
            if score >= low and all(abs(middle - other.time_s) >= 0.3 for other in kept):
                weight = 0.5 + float(np.clip((score - low) / max(high - low, 1e-6), 0.0, 1.0))
                kept.append(Accent(middle, weight))
        return sorted(kept, key=lambda accent: accent.time_s)

    @cached_property
    def sounds(self) -> list[Sound]:
        """Laughs, sighs and gasps: runs of their phones, less than 0.6 s apart."""
        runs: list[list[PhoneLike]] = []
        for phone in self.phones:
            if phone.phone not in ("LAUGH", "SIGH", "GASP"):
                continue
            if runs and runs[-1][-1].phone == phone.phone and phone.start_s - runs[-1][-1].end_s < 0.6:
                runs[-1].append(phone)
            else:
                runs.append([phone])
        return [
            Sound(r[0].phone.lower(), r[0].start_s, r[-1].end_s, tuple(0.5 * (p.start_s + p.end_s) for p in r))
            for r in runs
        ]


@dataclass
class Canvas:
    """The motion while it is made: `times` (T,), expression (T, 41), jaw (T,), head and gaze in radians.

    contact (T, 2) as in visemes.Mouth; head (T, 3) is the composed rotation of the head; gaze (T, 2) is where
    the eyes point, (pitch down, yaw left), in the world, not in the head.
    """

    times: np.ndarray
    expression: np.ndarray
    jaw: np.ndarray
    contact: np.ndarray
    head: np.ndarray
    gaze: np.ndarray

    @classmethod
    def blank(cls, num_frames: int, fps: float) -> Canvas:
        zeros = np.zeros
        return cls(
            np.arange(num_frames) / fps,
            zeros((num_frames, len(ARKIT_EXPRESSIONS))),
            zeros(num_frames),
            zeros((num_frames, 2)),
            zeros((num_frames, 3)),
            zeros((num_frames, 2)),
        )

    def add(self, name: str, track: np.ndarray) -> None:
        """Adds a track (T,) to a channel, to both sides where it has two."""
        for channel in channels_of(name):
            self.expression[:, channel] += track

    def presence(self, start_s: float, end_s: float, rise_s: float, fall_s: float) -> np.ndarray:
        """1 between start and end, with flanks outside of them: (T,)"""
        t = self.times
        return smoothstep((t - start_s) / rise_s + 1.0) * smoothstep((end_s - t) / fall_s + 1.0)

    def during(self, turns: list[Turn], value=lambda turn: 1.0, rise_s: float = 0.3, fall_s: float = 0.4):
        """A value per turn, spread over the turns with soft flanks; where turns touch, the stronger: (T,)"""
        track = np.zeros(len(self.times))
        for turn in turns:
            part = value(turn) * self.presence(turn.start_s, turn.end_s, rise_s, fall_s)
            track = np.where(np.abs(part) > np.abs(track), part, track)
        return track
