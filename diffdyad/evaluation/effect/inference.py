"""Tests of a mean over independent units, one value each: sign flips, bootstrap, equivalence, power.

A unit is a connected component of people. All tests are of the mean; U is the number of units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from diffdyad.evaluation.arrays import Array, as_array
from diffdyad.evaluation.bootstrap import expanded_tail
from diffdyad.evaluation.intervals import Estimate, standardised_mean
from diffdyad.evaluation.special import student_quantile, student_tail

FEWEST_UNITS = 10
"""Below, the protocol refuses: a permutation test of 9 units or fewer says little, intervals less."""

ALPHA, POWER = 0.05, 0.9
NUM_FLIPS = 10_000
_EXACT_UNITS = 12  # up to which all sign flips are taken
_NUM_RESAMPLES = 10_000


@dataclass(frozen=True)
class Effect:
    """A mean over units with its interval (95 %), its p-value against 0 and its size in deviations.

    p_value: one-sided, of a mean above 0, unless `effect_of` was asked for both sides; d_z: the mean over the units'
    standard deviation; NaN where that is zero.
    """

    mean: float
    low: float
    high: float
    p_value: float
    d_z: float
    num_units: int

    @property
    def is_positive(self) -> bool:
        return self.p_value < ALPHA


def unit_means(values, units) -> Array:
    """Mean of each unit's defined values: (N,), (N,) -> (U,). Units without any are left out."""
    values, units = as_array(values), np.asarray(units)
    known = np.isfinite(values)
    names = np.unique(units[known])
    return np.array([values[known & (units == name)].mean() for name in names])


def effect_of(values, units, generator: np.random.Generator, two_sided: bool = False) -> Effect:
    """The effect of values (N,), NaN = undefined, of units (N,); every unit counts alike."""
    means = unit_means(values, units)
    if len(means) < 2:
        mean = float(means.mean()) if len(means) else math.nan
        return Effect(mean, math.nan, math.nan, 1.0, math.nan, len(means))
    interval = bootstrap_interval(means, generator)
    p_value = sign_flip_p_value(means, generator)
    if two_sided:
        p_value = min(1.0, 2 * min(p_value, sign_flip_p_value(-means, generator)))
    return Effect(
        float(means.mean()), interval.low, interval.high, p_value, standardised_mean(means), len(means)
    )  # fmt: skip


def sign_flip_p_value(means, generator: np.random.Generator, num_flips: int = NUM_FLIPS) -> float:
    """One-sided p-value of a mean above 0, for units (U,) whose values are symmetric around 0 if there is no effect.

    Exact for up to 12 units; otherwise the share of random flips, the observed signs counted among them, so that it
    is valid. Source: Fisher 1935; Phipson and Smyth 2010.
    """
    means = as_array(means)
    count, observed = len(means), means.sum()
    tolerance = 1e-12 * np.abs(means).sum()
    if count <= _EXACT_UNITS:
        signs = 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
        return float((signs @ means >= observed - tolerance).mean())
    signs = 1 - 2 * generator.integers(0, 2, (num_flips, count), dtype=np.int8)
    at_least = int((signs.astype(np.float64) @ means >= observed - tolerance).sum())
    return (at_least + 1) / (num_flips + 1)


def bootstrap_interval(
    means, generator: np.random.Generator, confidence: float = 0.95, num_resamples: int = _NUM_RESAMPLES
) -> Estimate:
    """Percentile interval of the mean over units (U,), U >= 2, widened for few of them (Hesterberg 2015)."""
    means = as_array(means)
    weights = generator.multinomial(len(means), np.full(len(means), 1 / len(means)), num_resamples)
    tail = expanded_tail(len(means), confidence)
    low, high = np.quantile(weights @ means / len(means), [tail, 1 - tail])
    return Estimate(float(means.mean()), float(low), float(high))


def ratio_interval(
    totals, bases, units, generator: np.random.Generator, confidence: float = 0.95,
    num_resamples: int = _NUM_RESAMPLES,
) -> Estimate:
    """sum(totals) / sum(bases) over exchanges (N,), with the bootstrap's interval over units."""
    totals, bases, units = as_array(totals), as_array(bases), np.asarray(units)
    names, place = np.unique(units, return_inverse=True)
    sums = np.stack([np.bincount(place, x, len(names)) for x in (totals, bases)])
    value = float(sums[0].sum() / sums[1].sum())
    if len(names) < 2:
        return Estimate(value, math.nan, math.nan)
    weights = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), num_resamples)
    resampled = (weights @ sums[0]) / (weights @ sums[1])
    tail = expanded_tail(len(names), confidence)
    return Estimate(value, *(float(x) for x in np.quantile(resampled, [tail, 1 - tail])))


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests: is the mean within +- margin? `interval` is the 90 % one, which then lies within.

    deviation: of the units, whose number is num_units.
    """

    mean: float
    low: float
    high: float
    margin: float
    p_value: float
    deviation: float
    num_units: int

    @property
    def holds(self) -> bool:
        return self.p_value < ALPHA


def equivalence(means, margin: float) -> Equivalence:
    """TOST of the mean of units (U,) against +- margin. Source: Schuirmann 1987. p = 1 for fewer than two units."""
    means = as_array(means)
    count, mean = len(means), float(means.mean()) if len(means) else math.nan
    if count < 2:
        return Equivalence(mean, math.nan, math.nan, margin, 1.0, math.nan, count)
    deviation = float(means.std(ddof=1))
    error, degrees = deviation / math.sqrt(count), count - 1
    half = student_quantile(1 - ALPHA, degrees) * error
    if error == 0:
        return Equivalence(mean, mean, mean, margin, 0.0 if abs(mean) < margin else 1.0, 0.0, count)
    worst = min(margin - mean, margin + mean) / error  # distance of the nearer bound, in errors
    p = student_tail(worst, degrees) if worst >= 0 else 1 - student_tail(-worst, degrees)
    return Equivalence(mean, mean - half, mean + half, margin, p, deviation, count)


def power_of(d_z: float, num_units: int, alpha: float = ALPHA) -> float:
    """Probability that a one-sided t test of so many units finds a mean of d_z deviations.

    P(T > t) of the noncentral t distribution: the normal tail, averaged over the estimated deviation (Johnson and Kotz
    1970, chapter 31). NaN for fewer than two units.
    """
    if num_units < 2 or not math.isfinite(d_z):
        return math.nan
    degrees = num_units - 1
    return noncentral_t_tail(student_quantile(1 - alpha, degrees), degrees, d_z * math.sqrt(num_units))


def noncentral_t_tail(t: float, degrees: int, shift: float) -> float:
    """P(T > t), T = (Z + shift) / S with S^2 chi-squared over its degrees of freedom."""
    s, weights = _estimated_deviations(degrees)
    tails = np.array([NormalDist().cdf(shift - t * x) for x in s])
    return float(min(1.0, (weights * tails).sum()))


def equivalence_power(
    mean: float, deviation: float, margin: float, num_units: int, alpha: float = ALPHA, degrees: int | None = None,
) -> float:
    """Probability that two one-sided t tests of so many units show a mean to be within +- margin.

    mean, deviation: the true ones of the units, deviation > 0; degrees: of freedom, by default one fewer than units.
    Both tests look at the same estimated deviation S: the probability that Z lies between t S - (margin + mean) / error
    and (margin - mean) / error - t S, averaged over S. Source: Phillips 1990. NaN for fewer than two units.
    """
    degrees = num_units - 1 if degrees is None else degrees
    if degrees < 1 or not all(map(math.isfinite, (mean, deviation))):
        return math.nan
    t, root = student_quantile(1 - alpha, degrees), math.sqrt(num_units) / deviation
    # beyond it the two tests cannot both hold; the kink at that place would spoil the quadrature
    s, weights = _estimated_deviations(degrees, margin * root / t)
    normal = NormalDist().cdf
    both = np.array([normal((margin - mean) * root - t * x) - normal(t * x - (margin + mean) * root) for x in s])
    return float(np.clip((weights * np.maximum(both, 0)).sum(), 0, 1))


def _estimated_deviations(degrees: int, most: float = math.inf) -> tuple[Array, Array]:
    """Nodes (200,) of S up to `most`, S^2 chi-squared over its degrees of freedom, and their weights (200,)."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    spread = 9 / math.sqrt(2 * degrees)  # S is 1 give or take 1 / sqrt(2 degrees)
    low, high = max(0.0, 1 - spread), min(most, 1 + spread + 9 / degrees)
    if high <= low:
        return np.ones(len(nodes)), np.zeros(len(nodes))
    s = low + (high - low) * (nodes + 1) / 2
    log_density = (
        math.log(2) + degrees / 2 * math.log(degrees / 2) - math.lgamma(degrees / 2)
        + (degrees - 1) * np.log(s) - degrees * s * s / 2
    )  # fmt: skip
    return s, (high - low) / 2 * weights * np.exp(log_density)


def units_needed(d_z: float, power: float = POWER, alpha: float = ALPHA, most: int = 1_000_000) -> int | None:
    """The fewest units with which a mean of d_z deviations is found with so much power; None: more than `most`."""
    return _fewest(lambda count: power_of(d_z, count, alpha), power, most) if d_z > 0 else None


def units_for_equivalence(
    mean: float, deviation: float, margin: float, power: float = POWER, alpha: float = ALPHA, most: int = 1_000_000
) -> int | None:
    """The fewest units with which two one-sided tests show such a mean to be within +- margin with so much power.

    None: it is not within, or more than `most` are needed.
    """
    if not abs(mean) < margin or not deviation >= 0:
        return None
    return 2 if deviation == 0 else _fewest(
        lambda count: equivalence_power(mean, deviation, margin, count, alpha), power, most
    )


def _fewest(power_at: Callable[[int], float], power: float, most: int) -> int | None:
    """The first number of units with so much power, which rises with it."""
    low, high = 1, 2
    while power_at(high) < power:
        low, high = high, 2 * high
        if low > most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power_at(middle) < power else (low, middle)
    return high
