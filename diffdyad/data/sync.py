"""Do a mouth and a voice go together, and how far is the one behind the other?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffdyad.data.importers.swapped import HOP_S, QUIETEST_DB, level_db, slow

REACH_S = 0.4
"""How far a mouth may be from its voice."""

LEAST_CORRELATION = 0.25
"""Below it a lag means nothing."""

_SHORTEST_S = 1.5


@dataclass(frozen=True)
class LipSync:
    """correlation: of the mouth's opening with the voice's level, syllable by syllable, at the lag where it is highest,
    -1 to 1; lag_s: by how much the mouth is behind (negative: ahead), None where the two do not go together."""

    correlation: float
    lag_s: float | None


def lip_sync(
    opening: np.ndarray,  # (T,) radians of the jaw, or anything that grows with the opening
    waveform: np.ndarray,  # (S,) 16 kHz
    fps: float,
    frames: slice = slice(None),
    valid: np.ndarray | None = None,  # (T,) bool
) -> LipSync | None:
    """A mouth against a voice of the same clock, where the voice speaks (`frames`). What is slower than a second, such
    as who has the turn, is taken out of both. Lags to a fraction of a frame, from the parabola about the best one.

    None where that cannot be judged: under 1.5 s of valid frames, a silent voice, a mouth that does not move.
    """
    level = np.maximum(level_db(np.asarray(waveform)), QUIETEST_DB)
    count, valid = len(opening), np.ones(len(opening), bool) if valid is None else np.asarray(valid, bool)
    spoken = np.zeros(count, bool)
    spoken[frames] = True
    if not len(level) or (spoken & valid).sum() < _SHORTEST_S * fps:
        return None
    level = np.interp(np.arange(count) / fps, (np.arange(len(level)) + 0.5) * HOP_S, level)
    seen = np.flatnonzero(valid)
    opening = np.interp(np.arange(count), seen, opening[seen]).astype(np.float64)
    if level[spoken].std() < 1e-3 or opening[spoken].std() < 1e-6:
        return None
    level, opening = level - slow(level, fps), opening - slow(opening, fps)
    reach = round(REACH_S * fps)
    found = np.array([_at_lag(opening, level, spoken, valid, lag) for lag in range(-reach, reach + 1)])
    best = int(found.argmax())
    if found[best] < LEAST_CORRELATION or best in (0, 2 * reach):
        return LipSync(float(found[best]), None)
    before, at, after = found[best - 1 : best + 2]
    bend = before - 2 * at + after
    return LipSync(float(at), float((best - reach + (before - after) / (2 * bend) if bend < 0 else best - reach) / fps))


def _at_lag(opening: np.ndarray, level: np.ndarray, spoken: np.ndarray, valid: np.ndarray, lag: int) -> float:
    """Correlation of the mouth with the voice of `lag` frames before."""
    voice = np.flatnonzero(spoken)
    mouth = voice + lag
    there = (mouth >= 0) & (mouth < len(opening))
    there[there] &= valid[mouth[there]]
    a, b = opening[mouth[there]], level[voice[there]]
    if len(a) < 2:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm > 1e-9 else 0.0
