"""Figures of the benchmarks: rounded, and with 95 % bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def rounded(value: float) -> float:
    return round(float(value), 3)


def interval(values: np.ndarray, weights: np.ndarray | None = None, group: int = 1, draws: int = 2000) -> dict:
    """Weighted mean over units of `group` values each, such as a recording's answers."""
    weights = np.ones(len(values)) if weights is None else weights
    values, weights = (x.reshape(-1, group).mean(1) for x in (values, weights))
    return resampled(lambda drawn: np.average(values[drawn], weights=weights[drawn]), len(values), draws=draws)


def resampled(figure: Callable[..., float], *counts: int, draws: int = 2000) -> dict:
    """`figure` of all units, and where it lies when they are drawn anew.

    counts: units of each kind; figure: an array of indices for each kind -> value.
    """
    rng = np.random.default_rng(0)
    found = [figure(*(rng.integers(0, count, count) for count in counts)) for _ in range(draws)]
    low, high = np.percentile(found, [2.5, 97.5])
    return {"value": rounded(figure(*map(np.arange, counts))), "from": rounded(low), "to": rounded(high)}
