"""One voice in the other's channel: found, and taken out where its owner is silent.

A microphone that hears the other person hands the context to the own-audio branch, and the answer to the context.
"""

from __future__ import annotations

import numpy as np

from diffdyad.evaluation.voice import speaking_frames
from diffdyad.media import SAMPLING_RATE

LEAST_CORRELATION = 0.1
"""Of two channels where one person speaks: from here on, the one is heard in the other."""

_RATE_HZ = 50.0
_LONGEST_DELAY_S = 0.03  # ten metres
_FADE_S = 0.01


def correlation_at_best_delay(a: np.ndarray, b: np.ndarray) -> float:
    """Largest absolute correlation of two signals (S,) over delays up to 30 ms; 0 where one is silent."""
    power = float(np.sqrt(np.square(a, dtype=np.float64).sum() * np.square(b, dtype=np.float64).sum()))
    if power == 0:
        return 0.0
    size = 1 << (2 * len(a) - 1).bit_length()
    both = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)
    delay = round(_LONGEST_DELAY_S * SAMPLING_RATE)
    return float(np.abs(np.concatenate([both[: delay + 1], both[-delay:]])).max() / power)


def without_bleed(own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, bool]:
    """A channel (S,) at 16 kHz, silent where only the other person speaks and is heard in it; and whether that was so.

    Left alone where the two have nothing in common: a room's noise is no bleed.
    """
    if not len(own) or not len(other):
        return own, False
    other = np.pad(other[: len(own)], (0, max(0, len(own) - len(other))))  # a few samples more or less
    num_frames = int(len(own) / SAMPLING_RATE * _RATE_HZ)
    own_speaks, other_speaks = speaking_frames([own, other], _RATE_HZ, num_frames)
    frames = other_speaks & ~own_speaks
    mask = np.repeat(frames, round(SAMPLING_RATE / _RATE_HZ)).astype(np.float32)
    mask = np.pad(mask, (0, max(0, len(own) - len(mask))))[: len(own)]
    if not mask.any() or correlation_at_best_delay(own * mask, other * mask) < LEAST_CORRELATION:
        return own, False
    width = round(_FADE_S * SAMPLING_RATE)
    soft = np.convolve(mask, np.full(width, 1 / width, np.float32), mode="same")
    return (own * (1 - soft)).astype(np.float32), True
