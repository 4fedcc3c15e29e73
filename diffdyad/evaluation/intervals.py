"""Closed-form intervals and tests, for independent values: one per person or dyad, never one per frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from diffdyad.evaluation.arrays import as_array
from diffdyad.evaluation.correlation import pearson_correlation
from diffdyad.evaluation.special import beta_quantile, student_quantile, student_tail


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval; `low` and `high` are NaN where there is too little to tell."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Test:
    """A statistic and its two-sided p-value."""

    __test__ = False  # not one of pytest's
    statistic: float
    p_value: float


def mean_interval(values, confidence: float = 0.95) -> Estimate:
    """Mean of independent values (N,) with Student's interval; NaN bounds for N < 2. Source: Student 1908."""
    values = as_array(values)
    if len(values) < 2:
        return Estimate(float(values.mean()) if len(values) else math.nan, math.nan, math.nan)
    half = student_quantile(0.5 + confidence / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    mean = float(values.mean())
    return Estimate(mean, mean - half, mean + half)


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Estimate:
    """Share of successes among independent trials; good coverage for few trials. Source: Wilson 1927."""
    if trials == 0:
        return Estimate(math.nan, 0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    # at the ends the bound is exact, whatever rounding says
    low, high = (0.0 if successes == 0 else centre - half), (1.0 if successes == trials else centre + half)
    return Estimate(share, low, high)


def exact_binomial_interval(successes: int, trials: int, confidence: float = 0.95) -> Estimate:
    """Share of successes; covers at least so often whatever the share. Source: Clopper and Pearson 1934."""
    if trials == 0:
        return Estimate(math.nan, 0.0, 1.0)
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else beta_quantile(successes, trials - successes + 1, tail)
    high = 1.0 if successes == trials else beta_quantile(successes + 1, trials - successes, 1 - tail)
    return Estimate(successes / trials, low, high)


def correlation_interval(a, b, confidence: float = 0.95) -> Estimate:
    """Pearson's correlation of independent pairs (N,), with Fisher's interval; NaN bounds for N < 4.

    Source: Fisher 1921. Not for neighbouring frames of one clip, which are far from independent.
    """
    r = pearson_correlation(a, b)
    count = len(as_array(a))
    if count < 4 or not math.isfinite(r):
        return Estimate(r, math.nan, math.nan)
    half = NormalDist().inv_cdf(0.5 + confidence / 2) / math.sqrt(count - 3)
    z = math.atanh(r) if abs(r) < 1 else math.copysign(math.inf, r)
    return Estimate(r, math.tanh(z - half), math.tanh(z + half))


def correlation_test(a, b) -> Test:
    """Pearson's r of independent pairs (N,), N >= 3, against no correlation (Student's t on N - 2)."""
    r = pearson_correlation(a, b)
    degrees = len(as_array(a)) - 2
    if degrees < 1 or not math.isfinite(r):
        return Test(r, math.nan)
    t = math.inf if abs(r) >= 1 else abs(r) * math.sqrt(degrees / (1 - r * r))
    return Test(r, 2 * student_tail(t, degrees))


def mean_test(values, expected: float = 0.0) -> Test:
    """Student's t of independent values (N,) against a mean; of differences, it is the paired test.

    NaN where N < 2 or all values are equal.
    """
    values = as_array(values)
    if len(values) < 2 or values.std(ddof=1) == 0:
        return Test(math.nan, math.nan)
    t = float((values.mean() - expected) / (values.std(ddof=1) / math.sqrt(len(values))))
    return Test(t, 2 * student_tail(abs(t), len(values) - 1))


def standardised_mean(differences) -> float:
    """Cohen's d_z: the mean of paired differences (N,) over their deviation; NaN where that is zero or N < 2."""
    differences = as_array(differences)
    if len(differences) < 2 or differences.std(ddof=1) == 0:
        return math.nan
    return float(differences.mean() / np.std(differences, ddof=1))
