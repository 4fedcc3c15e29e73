"""Which responses are lively: each responder's head speed as a percentile of the dataset's.

A rank rather than a threshold: a real capture of somebody speaking may move slowly throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffdyad.data.columns import read_rows, replace_columns

_SPEED, _RANK = "responder_head_speed_deg_s", "head_percentile"


def percentiles(values: Sequence[float]) -> np.ndarray:  # (N,)
    """Share of the known values that are smaller, and half of those that are equal, in percent; NaN stays NaN."""
    values = np.asarray(values, np.float64)
    known = np.sort(values[~np.isnan(values)])
    below, upto = (np.searchsorted(known, values, side) for side in ("left", "right"))
    return np.where(np.isnan(values), math.nan, 50.0 * (below + upto) / max(len(known), 1))


def rank_files(paths: Sequence[Path]) -> None:
    """Writes `head_percentile` of all exchanges of these shards, which are one dataset; a shard whose values stay is
    left alone. By the root sum of squares of the mean speeds about the three axes."""
    rows = [list(read_rows(path, (_SPEED, _RANK))) for path in paths]
    speeds = [float(np.linalg.norm(row[_SPEED])) if row[_SPEED] else math.nan for own in rows for row in own]
    ranks = iter(percentiles(speeds).astype(np.float32))
    for path, own in zip(paths, rows):
        values = np.array([next(ranks) for _ in own], np.float32)
        if not np.array_equal(values, np.array([row[_RANK] for row in own], np.float32), equal_nan=True):
            replace_columns(path, path, {_RANK: values})
