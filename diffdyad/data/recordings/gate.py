"""Who speaks when, with a channel per person: voice activity, and a gate on energy across the channels.

Every microphone hears the other person too, and a voice activity network takes that voice for one. So a channel counts
only where it is not quieter than the other: a 3 dB gate over 200 ms, against the difference in gain of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffdyad.data.recordings.activity import energy_probability, speaking
from diffdyad.data.recordings.frames import FRAMES_PER_S, Span, levels_db, mask_spans, merge, smooth_db, spans_mask

GATE_DB, GATE_S = 3.0, 0.2
JOIN_S, SHORTEST_S, PAD_S = 0.3, 0.1, 0.05
"""Gaps that speech has by itself, bursts that are none, and what is added at both ends."""

_APART_DB, _LEAST_SHARE, _MOST_OFFSET_DB = 4.0, 0.03, 12.0


@dataclass
class TwoChannels:
    """Spans of both people; offset_db: by how much channel 0's gain is higher; mask: (2, F) bool."""

    spans: list[list[Span]]
    mask: np.ndarray
    offset_db: float


def gated(
    probabilities: Sequence[np.ndarray],  # two, (F,)
    levels: Sequence[np.ndarray],  # two, (F,) dB
) -> TwoChannels:
    """Each person's speech. Both channels may speak at once, where neither is much quieter than it would be alone."""
    length = max(len(level) for level in levels)
    level = np.stack([np.pad(level, (0, length - len(level)), constant_values=-120.0) for level in levels])
    voiced = np.stack([np.pad(speaking(p), (0, length - len(p))) for p in probabilities])
    slow = np.stack([smooth_db(row, GATE_S) for row in level])
    difference = slow[0] - slow[1]
    offset = gain_offset(difference[voiced.any(0)])
    louder = difference - offset
    # while one speaks alone the other's microphone is quieter by the bleed, whatever that is, if more than the gate
    mask = voiced & np.stack([louder > -GATE_DB, louder < GATE_DB])
    spans = [tidy(mask_spans(row)) for row in mask]
    return TwoChannels(spans, np.stack([spans_mask(own, length) for own in spans]), float(offset))


def gain_offset(difference: np.ndarray) -> float:
    """Difference in gain between two channels, dB, from the levels' differences while somebody speaks.

    Two speakers make two heaps; what lies between them is the gain. One heap alone says nothing: 0.
    """
    if len(difference) < FRAMES_PER_S:
        return 0.0
    low, high = np.percentile(difference, [5, 95])
    for _ in range(20):  # 2-means
        upper = difference > (low + high) / 2
        share = upper.mean()
        if not _LEAST_SHARE <= share <= 1 - _LEAST_SHARE:
            return 0.0
        centres = difference[~upper].mean(), difference[upper].mean()
        if np.allclose(centres, (low, high), atol=0.01):
            break
        low, high = centres
    if high - low < _APART_DB:
        return 0.0
    return float(np.clip((low + high) / 2, -_MOST_OFFSET_DB, _MOST_OFFSET_DB))


def tidy(spans: Sequence[Span], join_s: float = JOIN_S) -> list[Span]:
    """Spans widened a little, short gaps closed, bursts left out."""
    wide = [(max(0.0, start - PAD_S), end + PAD_S) for start, end in spans]
    return [(a, b) for a, b in merge(wide, join_s) if b - a >= SHORTEST_S + 2 * PAD_S]


def speech_of(waveforms: Sequence[np.ndarray]) -> list[list[Span]]:
    """When each channel's own voice sounds, by energy alone. Channels (S,) at 16 kHz; an empty one never speaks."""
    levels = [levels_db([waveform]) for waveform in waveforms]
    probabilities = [energy_probability(level) for level in levels]
    if len(waveforms) == 2:
        return gated(probabilities, levels).spans
    return [tidy(mask_spans(speaking(probability))) for probability in probabilities]
