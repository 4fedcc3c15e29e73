"""Who speaks when, with a channel per person: voice activity, and a gate on energy across the channels.

Every microphone hears the other person too, and a voice activity network takes that voice for one. Which of the two it
is, is in the difference of the channels' levels over 200 ms: about the bleed's while one speaks, about none while both
do. Four states (nobody, one, the other, both) and a price on each change of them, by Viterbi, make it a decision; both
at once is rare, and costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffdyad.data.recordings.activity import energy_probability, speaking
from diffdyad.data.recordings.frames import (
    FRAMES_PER_S,
    Span,
    levels_db,
    mask_spans,
    merge,
    smooth_db,
    spans_mask,
    viterbi,
)

GATE_S = 0.2
JOIN_S, SHORTEST_S = 0.3, 0.1
"""Gaps that speech has by itself, bursts that are none."""

MIXED_PAD_S = 0.05
"""What voice activity of a distant microphone leaves out at both ends."""

_SHORTEST_SOUND_S, _NEAR_SPEECH_S, _QUIETER_DB = 0.5, 0.1, 15.0
_CERTAIN = 0.98  # of voice activity: no network is surer
_LEAST_BLEED_DB, _MOST_BLEED_DB, _SPREAD_DB = 3.0, 20.0, 3.0
_CHANGE, _BOTH = 12.0, 2.0  # prices of a change and of both at once, nats
_FRAME_WEIGHT = 0.15  # neighbouring frames share most of what they show
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
    """Each person's speech; both may speak at once."""
    length = max(len(level) for level in levels)
    level = np.stack([np.pad(level, (0, length - len(level)), constant_values=-120.0) for level in levels])
    voice = np.stack([np.pad(p.astype(np.float64), (0, length - len(p))) for p in probabilities])
    slow = np.stack([smooth_db(row, GATE_S) for row in level])
    difference, voiced = slow[0] - slow[1], voice.max(0) > 0.5
    offset = gain_offset(difference[voiced])
    scores = _scores(np.clip(voice, 1 - _CERTAIN, _CERTAIN), difference - offset, voiced)
    states = viterbi(scores, _CHANGE * _FRAME_WEIGHT)
    spans = [tidy(mask_spans((states == 1 + side) | (states == 3))) for side in (0, 1)]
    return TwoChannels(spans, np.stack([spans_mask(own, length) for own in spans]), float(offset))


def _scores(voice: np.ndarray, difference: np.ndarray, voiced: np.ndarray) -> np.ndarray:  # (F, 4)
    """Log-likelihoods of nobody, the first, the second and both, from voice activity (2, F) and levels (F,)."""
    apart = [np.abs(half) for half in (difference[voiced & (difference > 0)], difference[voiced & (difference < 0)])]
    bleed = min((float(np.median(half)) for half in apart if len(half)), default=_MOST_BLEED_DB)
    bleed = float(np.clip(bleed, _LEAST_BLEED_DB, _MOST_BLEED_DB))
    spread = max(_SPREAD_DB, bleed / 4)
    clipped = np.clip(difference, -bleed, bleed)
    near = [-0.5 * ((clipped - centre) / spread) ** 2 for centre in (bleed, -bleed, 0.0)]
    first, second = np.log(voice)
    nobody = np.log(1 - voice.max(0))
    return np.stack([nobody, first + near[0], second + near[1], first + second + near[2] - _BOTH], 1) * _FRAME_WEIGHT


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


def wordless_sounds(found: TwoChannels, levels: Sequence[np.ndarray]) -> list[list[Span]]:
    """Sounds of each person of half a second and more that voice activity does not take for speech: laughter, say.

    They are in the person's own channel by the same gate on energy, nearly as loud as the person's speech, and far
    enough from that speech not to be its beginning or end.
    """
    heard = gated([energy_probability(level) for level in levels], levels)
    sounds = []
    for side, level in enumerate(levels):
        mask = found.mask[side][: len(level)]
        if not mask.any():
            sounds.append([])
            continue
        power = 10 ** (level / 10)
        quietest = power[: len(mask)][mask].mean() * 10 ** (-_QUIETER_DB / 10)
        speech = merge([(a - _NEAR_SPEECH_S, b + _NEAR_SPEECH_S) for a, b in found.spans[side]], 0.0)
        free = mask_spans(heard.mask[side] & ~spans_mask(speech, heard.mask.shape[1]))
        sounds.append([
            (a, b) for a, b in merge(free, JOIN_S)
            if b - a >= _SHORTEST_SOUND_S and power[round(a * 100) : round(b * 100)].mean() > quietest
        ])  # fmt: skip
    return sounds


def tidy(spans: Sequence[Span], pad_s: float = 0.0) -> list[Span]:
    """Spans widened by so much, short gaps closed, bursts left out."""
    wide = [(max(0.0, start - pad_s), end + pad_s) for start, end in spans]
    return [(a, b) for a, b in merge(wide, JOIN_S) if b - a >= SHORTEST_S + 2 * pad_s]


def speech_of(waveforms: Sequence[np.ndarray]) -> list[list[Span]]:
    """When each channel's own voice sounds, by energy alone. Channels (S,) at 16 kHz; an empty one never speaks."""
    levels = [levels_db([waveform]) for waveform in waveforms]
    probabilities = [energy_probability(level) for level in levels]
    if len(waveforms) == 2:
        return gated(probabilities, levels).spans
    return [tidy(mask_spans(speaking(probability))) for probability in probabilities]
