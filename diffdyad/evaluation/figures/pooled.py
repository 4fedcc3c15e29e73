"""Figures of whole distributions: all frames of all clips together, in sums that add up and can be taken away again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from diffdyad.evaluation.bootstrap import FEWEST_GROUPS
from diffdyad.evaluation.diversity import entropy_bits
from diffdyad.evaluation.figures.base import spans
from diffdyad.evaluation.figures.liveliness import CHANNELS
from diffdyad.evaluation.frechet import (
    MOVEMENT_LAG_S,
    Moments,
    frechet_in_truth_deviations,
    paired_frechet_excess_in_deviations,
    with_movement,
)
from diffdyad.evaluation.kmeans import Clusters, kmeans
from diffdyad.evaluation.tracks import Tracks, Undefined

NUM_CLUSTERS = 40
FEWEST_FRAMES = 5
"""Per channel of a fitted Gaussian, and per cluster; of fewer, nothing is said."""

_FRAMES_FOR_CLUSTERS = 4000
_PARTNER = "partner "


@dataclass(frozen=True)
class PooledFigure:
    """As `Figure`, of the pooled truth and the pooled prediction; from 0 to `most`."""

    name: str
    unit: str
    aim: str
    about: str
    measure: Callable[[Pool, Pool], float] = field(repr=False)
    most: float = math.inf


@dataclass(frozen=True)
class Yardstick:
    """What all pools of a corpus share: centres (2 D,) of the moments by channel group, clusters of expressions."""

    centres: dict[str, np.ndarray]
    clusters: Clusters | None
    scale: np.ndarray  # (E,) standard deviations of the truth's expressions

    @classmethod
    def of(cls, truths: Sequence[Tracks], seed: int = 0) -> Yardstick:
        """From the truth alone."""
        centres, expressions = {}, []
        for name, channels in CHANNELS.items():
            total, count = 0.0, 0
            for truth in truths:
                try:
                    values, known = channels(truth)
                except Undefined:
                    continue
                total, count = total + values[known].sum(0, dtype=np.float64), count + known.sum()
                if name == "expression":
                    step = max(1, len(truths) * int(known.sum()) // _FRAMES_FOR_CLUSTERS)
                    expressions.append(values[known][::step])
            if count:
                centres[name] = np.concatenate([total / count, np.zeros(len(total))])
        rows = np.concatenate(expressions) if expressions else np.zeros((0, 1))
        scale = np.maximum(rows.std(0), 1e-6) if len(rows) else np.ones(1)
        clusters = kmeans(rows / scale, NUM_CLUSTERS, seed) if len(rows) >= NUM_CLUSTERS else None
        return cls(centres, clusters, scale)


@dataclass(frozen=True)
class Pool:
    """Moments of posture and movement by channel group, the same of the partner's posture and the own one (their names
    begin with "partner "), and how often each expression cluster occurs."""

    moments: dict[str, Moments]
    histogram: np.ndarray  # (K,)

    @classmethod
    def empty(cls) -> Pool:
        return cls({}, np.zeros(NUM_CLUSTERS))

    def __add__(self, other: Pool) -> Pool:
        moments = dict(self.moments)
        for name, part in other.moments.items():
            moments[name] = moments[name] + part if name in moments else part
        return Pool(moments, self.histogram + other.histogram)

    def __sub__(self, other: Pool) -> Pool:
        moments = {name: part - other.moments[name] if name in other.moments else part
                   for name, part in self.moments.items()}  # fmt: skip
        return Pool(moments, self.histogram - other.histogram)


@dataclass(frozen=True)
class _Rows:
    """Rows (N, D) about their centre (D,), row k of frames k .. k + lag, and whether they are known (N,)."""

    centred: np.ndarray
    known: np.ndarray
    centre: np.ndarray
    lag: int = 0

    def moments(self, frames: np.ndarray) -> Moments | None:
        """Of the rows whose frames (T,) bool all count; None where there are none."""
        there = spans(frames, self.lag)[: len(self.known)] & self.known
        return Moments.of_centred(self.centred[there], self.centre) if there.any() else None


class Poolable:
    """One motion, with the partner's at the same time, made ready to be pooled phase by phase."""

    def __init__(self, side: Tracks, yardstick: Yardstick, partner: Tracks | None = None):
        self._rows: dict[str, _Rows] = {}
        self._clusters: tuple[np.ndarray, np.ndarray] | None = None
        for name, centre in yardstick.centres.items():
            try:
                values, known = CHANNELS[name](side)
            except Undefined:
                continue
            lag = max(1, round(MOVEMENT_LAG_S * side.fps))
            self._rows[name] = _Rows(with_movement(values, side.fps) - centre, spans(known, lag), centre, lag)
            if partner is not None and (rows := _beside_partner(name, values, known, partner, centre)) is not None:
                self._rows[_PARTNER + name] = rows
            if name == "expression" and yardstick.clusters is not None:
                self._clusters = yardstick.clusters.assign(values / yardstick.scale), known

    def pool(self, frames: np.ndarray) -> Pool:
        """Of some frames (T,) bool."""
        found = {name: rows.moments(frames) for name, rows in self._rows.items()}
        histogram = np.zeros(NUM_CLUSTERS)
        if self._clusters is not None:
            nearest, known = self._clusters
            histogram = np.bincount(nearest[frames & known], minlength=NUM_CLUSTERS).astype(np.float64)
        return Pool({name: moments for name, moments in found.items() if moments is not None}, histogram)


def _beside_partner(
    name: str, values: np.ndarray, known: np.ndarray, partner: Tracks, centre: np.ndarray
) -> _Rows | None:
    """The partner's channels and the own ones (T, D), while both last."""
    try:
        theirs, theirs_known = CHANNELS[name](partner)
    except Undefined:
        return None
    if theirs.shape[1] != values.shape[1]:
        return None
    count, centre = min(len(values), len(theirs)), np.tile(centre[: len(centre) // 2], 2)
    pair = np.hstack([theirs[:count], values[:count]]).astype(np.float64) - centre
    return _Rows(pair, known[:count] & theirs_known[:count], centre)


def _sides(name: str, what: str, *pools: Pool) -> list[Moments]:
    sides = [pool.moments.get(name) for pool in pools]
    if any(side is None or side.count < 1 for side in sides):
        raise Undefined(what)
    return sides


def _enough(count: float, wanted: int) -> None:
    if count < FEWEST_FRAMES * wanted:
        raise Undefined("too few frames")


def _frechet(name: str, movement: bool) -> Callable[[Pool, Pool], float]:
    def measure(truth: Pool, prediction: Pool) -> float:
        sides = _sides(name, f"no {name} in the data", truth, prediction)
        if not movement:
            sides = [side.select(slice(0, len(side.total) // 2)) for side in sides]
        _enough(min(side.count for side in sides), len(sides[0].total))
        distance = frechet_in_truth_deviations(*(side.gaussian() for side in sides))
        if not np.isfinite(distance):
            raise Undefined("truth constant")
        return distance

    return measure


def _excess(name: str) -> Callable[[Pool, Pool], float]:
    def measure(truth: Pool, prediction: Pool) -> float:
        sides = _sides(_PARTNER + name, f"no partner's {name}", truth, prediction)
        _enough(min(side.count for side in sides), len(sides[0].total))
        found = paired_frechet_excess_in_deviations(*(side.gaussian() for side in sides))
        if not np.isfinite(found):
            raise Undefined("truth, prediction or partner constant")
        return found

    return measure


def _entropy(truth: Pool, prediction: Pool) -> float:
    count = prediction.histogram.sum()
    if not count:
        raise Undefined("fewer expressions than clusters")
    _enough(count, NUM_CLUSTERS)
    return entropy_bits(prediction.histogram / count)


FIGURES = (
    *(PooledFigure(f"frechet_{name}_per_channel", "", "lower", f"Frechet distance of the {name}'s frames, pooled over "
                   "clips, per channel, in the truth's variances (1 = about a frozen face), less its small-sample bias "
                   f"(where there are {FEWEST_GROUPS} groups of people: otherwise too large)",
                   _frechet(name, movement=False)) for name in CHANNELS),
    *(PooledFigure(f"frechet_{name}_movement_per_channel", "", "lower", f"the same of the {name} together with how far "
                   f"it moves within {MOVEMENT_LAG_S:g} s, so that shuffled frames do not pass",
                   _frechet(name, movement=True)) for name in CHANNELS),
    *(PooledFigure(f"frechet_{name}_partner_excess_per_channel", "", "lower", "how much further from the truth the "
                   f"{name} is together with the partner's at the same time than alone, per channel, each side in its "
                   "own variances, so that its size does not count (P-FD less FD); 0 = goes with the partner as the "
                   "truth does",
                   _excess(name)) for name in CHANNELS),
    PooledFigure("expression_cluster_entropy_bits", "bit", "truth", f"entropy of the frames over {NUM_CLUSTERS} "
                 "k-means clusters of the truth's expressions, pooled over clips (SID, fitted on the truth)",
                 _entropy, math.log2(NUM_CLUSTERS)),
)  # fmt: skip
