"""Who speaks when, from two microphones, by energy alone; and turns from that.

A small stand-in for sources that come without turns of their own: an adaptive threshold per channel, and a gate across
channels, since each microphone hears the other person too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffdyad.data.importers.recording import Span
from diffdyad.media import SAMPLING_RATE

HOP_S = 0.02
QUIETEST_DB = -55.0
"""Below it, re full scale, nothing is taken for speech."""

_GATE_DB, _GATE_S = 3.0, 0.2  # a channel is off while the other is louder by more, over so long
_ABOVE_NOISE_DB = 9.0
_BELOW_PEAK_DB = 30.0
_JOIN_S, _SHORTEST_S = 0.2, 0.1  # gaps that speech has by itself; bursts that are no speech
PAUSE_S, BACKCHANNEL_S = 0.5, 1.0


@dataclass(frozen=True)
class Turn:
    """One turn; side: index of the person; seconds on the recording's clock."""

    side: int
    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


def level_db(waveform: np.ndarray) -> np.ndarray:  # (S,) -> (F,)
    """Level of every 20 ms, dB re full scale, constant parts left out."""
    hop = round(HOP_S * SAMPLING_RATE)
    frames = waveform[: len(waveform) // hop * hop].reshape(-1, hop).astype(np.float64)
    return 10 * np.log10(np.maximum(frames.var(1), 1e-12))


def speech(waveforms: Sequence[np.ndarray]) -> list[list[Span]]:
    """When each of the channels' own voice sounds. Channels (S,) at 16 kHz; an empty one never speaks."""
    levels = [level_db(waveform) for waveform in waveforms]
    length = max((len(level) for level in levels), default=0)
    levels = [np.pad(level, (0, length - len(level)), constant_values=-120.0) for level in levels]
    slow = [_smooth(level, round(_GATE_S / HOP_S)) for level in levels]
    spans = []
    for number, level in enumerate(levels):
        fine = _smooth(level, 3)
        heard = fine[fine > -90.0]  # digital silence says nothing about the room
        if not len(heard):
            spans.append([])
            continue
        floor, peak = np.percentile(heard, 10), np.percentile(heard, 98)
        # a voice that never rests has no floor to rise above: then its peak decides
        threshold = max(min(floor + _ABOVE_NOISE_DB, peak - _ABOVE_NOISE_DB), peak - _BELOW_PEAK_DB, QUIETEST_DB)
        active = fine > threshold
        for other, theirs in enumerate(slow):
            if other != number:
                active &= theirs <= slow[number] + _GATE_DB
        spans.append(_tidy(_spans(active)))
    return spans


def _smooth(level: np.ndarray, width: int) -> np.ndarray:
    """Mean power over `width` frames, in dB."""
    if not len(level):
        return level
    power = np.pad(10 ** (level / 10), (width // 2, width - 1 - width // 2), mode="edge")
    total = np.cumsum(np.concatenate([[0.0], power]))
    return 10 * np.log10(np.maximum((total[width:] - total[:-width]) / width, 1e-12))


def _spans(active: np.ndarray) -> list[Span]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(int), [0]])))
    return [(float(a * HOP_S), float(b * HOP_S)) for a, b in zip(edges[::2], edges[1::2])]


def mask_spans(mask: np.ndarray, rate: float) -> list[Span]:
    """True stretches of a mask with so many entries a second."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(mask).astype(bool).astype(int), [0]])))
    return [(float(a / rate), float(b / rate)) for a, b in zip(edges[::2], edges[1::2])]


def merge(spans: Sequence[Span], pause_s: float) -> list[Span]:
    """Spans in order, those with a shorter pause between them joined."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start - merged[-1][1] < pause_s:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def _tidy(spans: list[Span]) -> list[Span]:
    return [span for span in merge(spans, _JOIN_S) if span[1] - span[0] >= _SHORTEST_S]


def turns(spans: Sequence[Sequence[Span]]) -> list[Turn]:
    """Turns in order of their beginning: pauses under 0.5 s merged, backchannels (at most 1 s) left out."""
    found = [
        Turn(side, start, end)
        for side, own in enumerate(spans)
        for start, end in merge(own, PAUSE_S)
        if end - start > BACKCHANNEL_S
    ]
    return sorted(found, key=lambda turn: (turn.start_s, turn.end_s, turn.side))
