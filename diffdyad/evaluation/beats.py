"""Whether motion falls on the voice's beats, and on no other voice's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffdyad.evaluation.arrays import Array, as_array

BEAT_SIGMA_S = 0.1
_RISE_DB_S = 60.0  # a syllable's onset rises by 10 dB or more within 0.1 s or so
_LOUD_DB = -45.0


def audio_onsets_s(energy_db, fps: float) -> Array:
    """Times of syllable-like onsets: local maxima of the rise of the log energy (T,), dB, at `fps`: (N,) seconds.

    A rise counts from 60 dB/s on, over two frames, where the sound reaches -45 dB.
    """
    energy = as_array(energy_db)
    if len(energy) < 5:
        return np.zeros(0)
    rise = (energy[2:] - energy[:-2]) * fps / 2  # at frame k + 1
    inner = (rise[1:-1] >= rise[:-2]) & (rise[1:-1] > rise[2:]) & (rise[1:-1] > _RISE_DB_S)
    loud = energy[3:-1] > _LOUD_DB
    return (np.flatnonzero(inner & loud) + 2) / fps


def motion_beats_s(speed, fps: float) -> Array:
    """Times at which movement turns or rests: local minima of a speed (T,) below its own median: (N,) seconds.

    Source: kinematic beats of AI Choreographer (Li et al. 2021). Entry k is the speed between frames k and k + 1.
    """
    speed = as_array(speed)
    if len(speed) < 3:
        return np.zeros(0)
    low = (speed[1:-1] <= speed[:-2]) & (speed[1:-1] < speed[2:]) & (speed[1:-1] < np.median(speed))
    return (np.flatnonzero(low) + 1.5) / fps


def beat_alignment(motion_beats, onsets, sigma_s: float = BEAT_SIGMA_S) -> float:
    """Mean over the audio's onsets (M,) of exp(-d^2 / 2 sigma^2), d to the nearest motion beat (N,), seconds.

    0..1; many beats align with anything, so read it beside `beat_alignment_over_chance`. NaN without onsets.
    Source: beat alignment score, Li et al. 2021; over onsets as in BEAT (Liu et al. 2022).
    """
    motion_beats, onsets = as_array(motion_beats), as_array(onsets)
    if not len(onsets):
        return float("nan")
    if not len(motion_beats):
        return 0.0
    nearest = np.abs(onsets[:, None] - motion_beats).min(1)
    return float(np.exp(-np.square(nearest) / (2 * sigma_s**2)).mean())


def beat_alignment_over_chance(motion_beats, onsets, other_onsets: Sequence) -> float:
    """`beat_alignment` with the own voice less its mean with other clips' voices (the shuffled pairs).

    0: the motion would fit any voice as well. NaN where the own or all other voices have no onsets.
    """
    chance = [beat_alignment(motion_beats, other) for other in other_onsets]
    chance = [value for value in chance if np.isfinite(value)]
    return beat_alignment(motion_beats, onsets) - float(np.mean(chance)) if chance else float("nan")
