"""Correlations, at a lag or without one; undefined where something does not move, and then NaN, never a number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffdyad.evaluation.arrays import Array, as_array, as_arrays


def is_constant(values, tolerance: float = 0.0) -> bool:
    """Whether (T, ...) stays within `tolerance` (and rounding) of its first value; True for fewer than two frames."""
    values = as_array(values)
    if len(values) < 2:
        return True
    return float(np.abs(values - values[0]).max(initial=0.0)) <= max(tolerance, 1e-12 * float(np.abs(values).max()))


def pearson_correlation(a, b) -> float:
    """Product-moment correlation of (T,) and (T,); NaN where either is constant, or T < 2. Source: Pearson 1895."""
    a, b = as_arrays(a, b)
    if is_constant(a) or is_constant(b):
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip((a / np.linalg.norm(a)) @ (b / np.linalg.norm(b)), -1, 1))


def spearman_correlation(a, b) -> float:
    """Rank correlation, ties sharing their mean rank; NaN as in `pearson_correlation`. Source: Spearman 1904."""
    a, b = as_arrays(a, b)
    return pearson_correlation(ranks(a), ranks(b))


def ranks(values) -> Array:
    """1 for the smallest; equal values share the mean of their ranks: (N,) -> (N,)."""
    values = as_array(values)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


@dataclass(frozen=True)
class Peak:
    """The largest correlation among several lags, and the lag in seconds at which it lies."""

    correlation: float
    lag_s: float


def lagged_correlations(leader, follower, lags) -> Array:
    """Correlation of follower[t] with leader[t - lag] for each lag in frames, 0 <= lag: (T,), (T,), (L,) -> (L,).

    All lags look at the same frames of the follower, t >= the largest lag, so that they compare. NaN where either is
    constant, or where no more than two frames are left.
    """
    leader, follower = as_arrays(leader, follower)
    lags = np.asarray(lags, np.int64)
    longest = int(lags.max())
    count = len(follower) - longest
    if count < 3 or lags.min() < 0:
        return np.full(len(lags), np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(leader, count)[longest - lags]  # (L, count)
    windows = windows - windows.mean(1, keepdims=True)
    own = follower[longest:] - follower[longest:].mean()
    size = np.linalg.norm(windows, axis=1) * np.linalg.norm(own)
    moving = size > 1e-12 * count
    return np.where(moving, (windows @ own) / np.where(moving, size, 1), np.nan)


def peak_correlation(leader, follower, fps: float, longest_lag_s: float, steps: int = 26) -> Peak:
    """The largest of `lagged_correlations` from 0 to `longest_lag_s`. Largest of many: compare with shuffled pairs.

    NaN twice where it is undefined. Source: synchrony of windows by cross-correlation, Boker et al. 2002.
    """
    longest = max(0, round(longest_lag_s * fps))
    lags = np.unique(np.linspace(0, longest, min(steps, longest + 1)).round().astype(np.int64))
    found = lagged_correlations(leader, follower, lags)
    if not np.isfinite(found).any():
        return Peak(float("nan"), float("nan"))
    best = int(np.nanargmax(found))
    return Peak(float(found[best]), float(lags[best] / fps))


def partner_correlation_error(partner, truth, prediction, tolerance: float = 0.0) -> float:
    """|corr(partner, truth) - corr(partner, prediction)|, averaged over the channels (T, D) where both are defined.

    Channel by channel: rPCC of DualTalk flattens all of them into one series, where the channels' different means
    alone make a high correlation. NaN where no channel is defined; one that stays within `tolerance` is not.
    """
    partner, truth, prediction = (Directions.of(side, tolerance) for side in as_arrays(partner, truth, prediction))
    return partner.correlation_error(truth, prediction)


@dataclass(frozen=True)
class Directions:
    """Channels about their means, of length 1 (T, D), and whether each moves (D,): what correlations are made of."""

    unit: Array
    moving: NDArray[np.bool_]

    @classmethod
    def of(cls, values, tolerance: float = 0.0) -> Directions:
        """Of (T, D); a channel that stays within `tolerance` does not move (see `is_constant`)."""
        values = as_array(values)
        if not len(values):
            return cls(values, np.zeros(values.shape[1], bool))
        high, low = values.max(0), values.min(0)
        moving = high - low > np.maximum(tolerance, 1e-12 * np.maximum(high, -low))
        centred = values - values.mean(0)
        return cls(centred / np.where(moving, np.sqrt(np.einsum("td,td->d", centred, centred)), 1.0), moving)

    def correlation_error(self, truth: Directions, prediction: Directions) -> float:
        """`partner_correlation_error`, the partner's own directions being these."""
        moving = self.moving & truth.moving & prediction.moving
        if not moving.any():
            return float("nan")
        difference = np.einsum("td,td->d", self.unit, truth.unit) - np.einsum("td,td->d", self.unit, prediction.unit)
        return float(np.abs(difference)[moving].mean())
