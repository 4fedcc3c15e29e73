"""Frechet distances between Gaussians, and what keeps them honest.

On raw frames a frozen face or frame-shuffled truth can score well, per-clip fits are biased by their few frames, and
the partner's half of a paired distance adds little but a constant. So here: clips are pooled before the fit, channels
are in units of the truth's own deviation, movement counts beside posture, the paired distance is given as its excess.

Source: Dowson and Landau 1982, "The Frechet distance between multivariate normal distributions".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffdyad.evaluation.arrays import Array, as_array

MOVEMENT_LAG_S = 0.2
"""Posture is compared with itself so much later: about a syllable, and half a nod."""


@dataclass(frozen=True)
class Gaussian:
    """mean (D,), covariance (D, D)."""

    mean: Array
    covariance: Array

    @classmethod
    def fit(cls, rows) -> Gaussian:
        """Mean and unbiased covariance of rows (N, D), N >= 2."""
        return Moments.of(rows).gaussian()

    def select(self, channels) -> Gaussian:
        """Only some channels: indices (N,)."""
        return Gaussian(self.mean[channels], self.covariance[np.ix_(channels, channels)])

    def scaled(self, scale: Array) -> Gaussian:
        """Each channel times `scale` (D,)."""
        return Gaussian(self.mean * scale, self.covariance * np.outer(scale, scale))


@dataclass(frozen=True)
class Moments:
    """Sums over rows, from which Gaussians follow: those of parts add up, and can be taken away again.

    centre (D,) is subtracted before squaring, so that large means cost no precision; parts share it.
    """

    count: float
    total: Array  # (D,)
    outer: Array  # (D, D)
    centre: Array  # (D,)

    @classmethod
    def of(cls, rows, centre=None) -> Moments:
        """Of rows (N, D); `centre` defaults to their mean."""
        rows = as_array(rows)
        centre = rows.mean(0) if centre is None else centre
        return cls.of_centred(rows - centre, centre)

    @classmethod
    def of_centred(cls, rows: Array, centre: Array) -> Moments:
        """Of rows (N, D) from which the centre was taken already."""
        return cls(len(rows), rows.sum(0), rows.T @ rows, centre)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.outer + other.outer, self.centre)

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.count - other.count, self.total - other.total, self.outer - other.outer, self.centre)

    def select(self, channels) -> Moments:
        """Only some channels: a slice, or indices."""
        index = np.arange(len(self.total))[channels]
        return Moments(self.count, self.total[index], self.outer[np.ix_(index, index)], self.centre[index])

    def gaussian(self) -> Gaussian:
        """Raises ValueError for fewer than two rows."""
        if self.count < 2:
            raise ValueError(f"expected at least 2 rows for a covariance, got {self.count:g}")
        mean = self.total / self.count
        covariance = (self.outer - self.count * np.outer(mean, mean)) / (self.count - 1)
        return Gaussian(mean + self.centre, covariance)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|mean difference|^2 + tr(A + B - 2 (A B)^(1/2)), in the squared unit of the channels; never negative.

    The root's trace comes from the symmetric A^(1/2) B A^(1/2), which has the same eigenvalues as A B: no complex
    numbers, and singular covariances (a frozen channel) need no special case.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ b.covariance @ root)
    shared = np.sqrt(np.maximum(product, 0)).sum()
    spread = np.trace(a.covariance) + np.trace(b.covariance) - 2 * shared
    return float(max(np.square(a.mean - b.mean).sum() + spread, 0.0))


def frechet_in_truth_deviations(truth: Gaussian, prediction: Gaussian) -> float:
    """`frechet_distance` per channel, each channel in standard deviations of the truth's; no unit.

    1 is about a frozen face at the right mean (each channel loses its whole variance). Channels in which the truth
    does not move are left out. NaN where none is left.
    """
    deviation = np.sqrt(np.maximum(np.diag(truth.covariance), 0))
    moving = np.flatnonzero(deviation > 1e-8)
    if not len(moving):
        return float("nan")
    sides = [side.select(moving).scaled(1 / deviation[moving]) for side in (truth, prediction)]
    return frechet_distance(*sides) / len(moving)


def with_movement(motion, fps: float, lag_s: float = MOVEMENT_LAG_S) -> Array:
    """(T, D) -> (T - lag, 2 D): each frame, and how far the motion goes within `lag_s`. Shuffled frames do not pass.

    (0, 2 D) where the motion is shorter than the lag.
    """
    motion = as_array(motion)
    lag = max(1, round(lag_s * fps))
    later = motion[lag:]
    now = motion[: len(later)]
    return np.concatenate([now, later - now], 1)


def paired_frechet_excess(partner, truth, prediction) -> float:
    """How much worse the prediction is together with the partner than alone, in squared units of the channels.

    partner (T, P), truth and prediction (T, D), pooled frames. FD([partner, truth], [partner, prediction]) less
    FD(truth, prediction): zero where the right covariance with the partner is kept, and not raised by what the
    motion itself gets wrong, which makes up nearly all of the "P-FD" of DualTalk and LM-Listener. Never negative:
    what two distributions are apart, their parts are at most.
    """
    partner, truth, prediction = as_array(partner), as_array(truth), as_array(prediction)
    both = [Gaussian.fit(np.concatenate([partner, own], 1)) for own in (truth, prediction)]
    return _excess(*both, np.arange(partner.shape[1], partner.shape[1] + truth.shape[1]))


def paired_frechet_excess_in_deviations(truth: Gaussian, prediction: Gaussian) -> float:
    """`paired_frechet_excess` per own channel, each side's channels in its own deviations; no unit.

    Gaussians over the partner's D channels and then the own D. In the truth's deviations a face that hardly moves
    would pass: nothing much can go with the partner wrongly. Channels that do not move, here or there, are left out;
    NaN where none of the partner's or none of the own is left.
    """
    half = len(truth.mean) // 2
    deviations = [np.sqrt(np.maximum(np.diag(side.covariance), 0)) for side in (truth, prediction)]
    moving = np.flatnonzero(np.minimum(*deviations) > 1e-6)
    own = np.flatnonzero(moving >= half)
    if not 0 < len(own) < len(moving):
        return float("nan")
    sides = [side.select(moving).scaled(1 / size[moving]) for side, size in zip((truth, prediction), deviations)]
    return _excess(*sides, own) / len(own)


def _excess(truth: Gaussian, prediction: Gaussian, own: Array) -> float:
    """Frechet distance of joint Gaussians less that of the channels `own` (N,) alone."""
    alone = frechet_distance(truth.select(own), prediction.select(own))
    return max(frechet_distance(truth, prediction) - alone, 0.0)


def pooled(parts: Sequence[Moments]) -> Moments:
    """The sum of at least one."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
