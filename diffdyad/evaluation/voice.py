"""What metrics hear of voices: the level per frame, and who speaks when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffdyad.data.recordings.gate import speech_of
from diffdyad.evaluation.arrays import Array, as_array

FLOOR_DB = -80.0


def frame_energy_db(waveform, sampling_rate: int, fps: float, num_frames: int | None = None) -> Array:
    """Mean square of the samples around each frame, dB re full scale, at least -80: (S,) -> (T,).

    Frame k covers one frame's time centred at k / fps. T defaults to round(fps * S / sampling_rate); silence beyond.
    """
    waveform = as_array(waveform)
    num_frames = round(fps * len(waveform) / sampling_rate) if num_frames is None else num_frames
    edges = ((np.arange(num_frames + 1) - 0.5) * sampling_rate / fps).round().astype(np.int64)
    sums = np.concatenate([[0.0], np.cumsum(np.square(waveform))])
    inside = np.clip(edges, 0, len(waveform))
    power = np.diff(sums[inside]) / np.maximum(np.diff(edges), 1)
    return 10 * np.log10(np.maximum(power, 10 ** (FLOOR_DB / 10)))


def speaking_frames(waveforms: Sequence[np.ndarray], fps: float, num_frames: int) -> list[np.ndarray]:
    """Frames in which each of the voices (S,) at 16 kHz speaks, by energy, bleed of the others gated: (T,) bool each.

    Give a dataset's own `speech_mask` instead where there is one.
    """
    return [_mask(spans, fps, num_frames) for spans in speech_of([np.asarray(w, np.float32) for w in waveforms])]


def _mask(spans: Sequence[tuple[float, float]], fps: float, num_frames: int) -> np.ndarray:
    seconds = np.arange(num_frames) / fps
    mask = np.zeros(num_frames, bool)
    for start_s, end_s in spans:
        mask |= (seconds >= start_s) & (seconds < end_s)
    return mask
