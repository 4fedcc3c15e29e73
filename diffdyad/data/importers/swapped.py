"""Are the two sides' voices exchanged? Each mouth against its own and against the other's sound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffdyad.media import SAMPLING_RATE

HOP_S = 0.02
QUIETEST_DB = -55.0
"""Below it, re full scale, nothing is taken for speech."""

_NEAR_S = 0.2  # how far sound and picture may be apart
_FAR_S = 2.0  # from here on a shifted sound has nothing to do with the mouth
_SLOW_S = 1.0  # slower than this is who has the turn, which alternates: shifted by a turn, it looks like evidence
_CLEAR_Z, _SUPPORTED_Z, _CLEAR_R = 4.0, 2.0, 0.4
_SHORTEST_S = 6.0


@dataclass(frozen=True)
class Sides:
    """own, other: correlation of the mouths' opening with the own and with the other's level, mean of both people.

    z: how much better the mouths follow their own voice than the other's, syllable by syllable, over what shifted
    sound gives by chance; positive = sides as they should be.
    """

    own: float
    other: float
    z: float

    @property
    def verdict(self) -> str:
        """ "as expected", "swapped" or "cannot tell"."""
        difference = self.own - self.other
        supported = abs(self.z) > _SUPPORTED_Z and abs(difference) > _CLEAR_R and (self.z > 0) == (difference > 0)
        if abs(self.z) < _CLEAR_Z and not supported:
            return "cannot tell"
        return "as expected" if self.z > 0 else "swapped"


def compare(
    openings: tuple[np.ndarray, np.ndarray],  # (T,) each, radians of the jaw or anything that grows with the opening
    waveforms: tuple[np.ndarray, np.ndarray],  # (S,) each, 16 kHz
    fps: float,
) -> Sides:
    """Compares both mouths with both voices; chance is judged from the same clip, with the sound shifted by over 2 s.

    Too short clips (under 6 s) and silent ones come out as "cannot tell".
    """
    levels = [_level(waveform, min(map(len, openings)), fps) for waveform in waveforms]
    length = min([len(a) for a in openings] + [len(a) for a in levels])
    if length < _SHORTEST_S * fps:
        return Sides(0.0, 0.0, 0.0)
    mouths, sounds = ([a[:length].astype(np.float64) for a in group] for group in (openings, levels))
    lag = np.minimum(np.arange(length), length - np.arange(length)) / fps
    near = np.flatnonzero(lag <= _NEAR_S)
    own, other = (
        sum(_correlations(_standard(mouths[i]), _standard(sounds[j]))[near].max() for i, j in pairs) / 2
        for pairs in (((0, 0), (1, 1)), ((0, 1), (1, 0)))
    )
    quick_mouths, quick_sounds = ([_standard(a - slow(a, fps)) for a in group] for group in (mouths, sounds))
    difference = sum(
        sign * _correlations(quick_mouths[i], quick_sounds[j])
        for i, j, sign in ((0, 0, 1), (1, 1, 1), (0, 1, -1), (1, 0, -1))
    )
    chance = float(np.sqrt(np.mean(difference[lag > _FAR_S] ** 2))) if (lag > _FAR_S).any() else 0.0
    best = near[np.abs(difference[near]).argmax()]
    z = float(difference[best] / chance) if chance > 1e-9 else 0.0
    return Sides(float(own), float(other), z)


def slow(values: np.ndarray, fps: float) -> np.ndarray:
    """Mean over a second around every frame."""
    width = 2 * round(_SLOW_S * fps / 2) + 1
    padded = np.pad(values, width // 2, mode="edge")
    total = np.cumsum(np.concatenate([[0.0], padded]))
    return (total[width:] - total[:-width]) / width


def _level(waveform: np.ndarray, num_frames: int, fps: float) -> np.ndarray:
    """The voice's level per frame of motion, dB, silence held at one value: (T,)"""
    level = np.maximum(level_db(waveform), QUIETEST_DB)
    if not len(level):
        return np.zeros(num_frames)
    centres = (np.arange(len(level)) + 0.5) * HOP_S
    return np.interp((np.arange(num_frames) + 0.5) / fps, centres, level)


def _standard(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64) - values.mean()
    norm = np.linalg.norm(values)
    return values / norm if norm > 1e-6 * np.sqrt(len(values)) else np.zeros(len(values))


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:  # (T,), (T,) -> (T,)
    """Circular correlation at every lag."""
    return np.fft.irfft(np.fft.rfft(a) * np.conj(np.fft.rfft(b)), len(a))


def level_db(waveform: np.ndarray) -> np.ndarray:  # (S,) -> (F,)
    """Level of every 20 ms, dB re full scale, constant parts left out."""
    hop = round(HOP_S * SAMPLING_RATE)
    frames = waveform[: len(waveform) // hop * hop].reshape(-1, hop).astype(np.float64)
    return 10 * np.log10(np.maximum(frames.var(1), 1e-12))
