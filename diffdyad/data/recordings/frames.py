"""Time in frames of 10 ms: levels, masks, and the spans that masks are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from diffdyad.media import SAMPLING_RATE

Span = tuple[float, float]
"""Seconds on a recording's clock, from and to."""

FRAMES_PER_S = 100
HOP = SAMPLING_RATE // FRAMES_PER_S
_FLOOR_DB = -120.0


def levels_db(blocks: Iterable[np.ndarray]) -> np.ndarray:  # (F,)
    """Level of every 10 ms, dB re full scale, constant parts left out. blocks: waveforms that follow each other, each
    (but the last) of a whole number of frames."""
    found = [np.zeros(0)]
    for block in blocks:
        frames = np.pad(block, (0, -len(block) % HOP)).reshape(-1, HOP)
        found.append(10 * np.log10(np.maximum(frames.var(1, dtype=np.float64), 1e-12)))
    return np.concatenate(found)


def smooth_db(levels: np.ndarray, seconds: float) -> np.ndarray:  # (F,)
    """Mean power over so many seconds around each frame, in dB."""
    width = max(1, round(seconds * FRAMES_PER_S))
    if not len(levels):
        return levels
    power = np.pad(10 ** (levels / 10), (width // 2, width - 1 - width // 2), mode="edge")
    total = np.cumsum(np.concatenate([[0.0], power]))
    return 10 * np.log10(np.maximum((total[width:] - total[:-width]) / width, 10 ** (_FLOOR_DB / 10)))


def hysteresis(values: np.ndarray, on: float, off: float) -> np.ndarray:  # (F,) bool
    """True from where values reach `on` until they fall below `off`."""
    state = np.where(values >= on, 1, np.where(values < off, 0, -1))
    known = np.maximum.accumulate(np.where(state >= 0, np.arange(len(state)), -1))
    return np.where(known >= 0, state[np.maximum(known, 0)] == 1, False)


def mask_spans(mask: np.ndarray, rate: float = FRAMES_PER_S) -> list[Span]:
    """The True stretches of a mask with so many entries a second."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(mask).astype(bool).astype(np.int8), [0]])))
    return [(float(a / rate), float(b / rate)) for a, b in zip(edges[::2], edges[1::2])]


def spans_mask(spans: Iterable[Span], num_frames: int) -> np.ndarray:  # (F,) bool
    mask = np.zeros(num_frames, bool)
    for start, end in spans:
        mask[max(0, round(start * FRAMES_PER_S)) : max(0, round(end * FRAMES_PER_S))] = True
    return mask


def merge(spans: Sequence[Span], pause_s: float) -> list[Span]:
    """Spans in order, those with a shorter pause between them joined."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start - merged[-1][1] < pause_s:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def total(spans: Iterable[Span]) -> float:
    """Seconds that spans last together."""
    return sum(end - start for start, end in spans)


def viterbi(scores: np.ndarray, price: float) -> np.ndarray:  # (N, K) -> (N,)
    """The sequence of states with the highest sum of scores, less `price` for each change."""
    best = scores[0].astype(np.float64)
    before = np.zeros(scores.shape, int)
    states = np.arange(scores.shape[1])
    for step in range(1, len(scores)):
        change = int(best.argmax())
        stays = best >= best[change] - price
        before[step] = np.where(stays, states, change)
        best = np.where(stays, best, best[change] - price) + scores[step]
    path = np.zeros(len(scores), int)
    path[-1] = int(best.argmax())
    for step in range(len(scores) - 1, 0, -1):
        path[step - 1] = before[step, path[step]]
    return path
