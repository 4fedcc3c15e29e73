"""Reactivity: how much a responder's face may be expected to move, by the turn before alone.

A ridge regression from the previous turn's voice to the movement in the answer's first 2 s. Nobody is predicted by a
model that has seen anybody of the same connected component of people: components are dealt into folds, and each fold
is predicted from the others (cross-fitting; Chernozhukov et al. 2018). The answer itself enters nowhere, so the score
can divide exchanges into strata without looking at what is to be explained.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffdyad.data.columns import read_rows, replace_columns
from diffdyad.data.importers.splits import components

ANSWER_S, LEAST_ANSWER_S = 2.0, 1.0
LEAST_COMPONENTS, LEAST_EXCHANGES = 6, 60
"""With fewer, in all, nothing is predicted."""

FOLDS = 10
PRICES = (1.0, 10.0, 100.0, 1e3, 1e4, 1e6)
"""Of the ridge, per standardised feature; the last one predicts the mean."""

_RECENT_S, _LEAST_TURN_S = 2.0, 0.5
_WIDE = 64  # channels; more are an encoder's
_LEAST_SPREAD = 1e-4  # below it, a face at rest
_COLUMNS = ("previous_speaker", "responder", "start_s", "previous_end_s", "fps", "previous_prosody",
            "responder_expression", "responder_valid", "reactivity")  # fmt: skip


@dataclass(frozen=True)
class Example:
    """One exchange. features: (D,) of the previous turn; movement: log of how far the face moves; None = not known."""

    people: tuple[str, ...]
    features: np.ndarray | None
    movement: float | None
    before: float = math.nan


@dataclass(frozen=True)
class Prediction:
    """scores: (N,) in standard deviations of the answers that were learnt from, about their mean; NaN = not known.
    correlation: of the scores with the movement, over the exchanges where both are known; NaN = nothing was predicted.
    """

    scores: np.ndarray
    correlation: float = math.nan

    @property
    def count(self) -> int:
        return int(np.isfinite(self.scores).sum())

    def lines(self) -> list[str]:
        """For a report; none where nothing was predicted."""
        what = f"reactivity of {self.count} exchanges predicted from the turns before; correlation with how far"
        return [f"{what} faces moved {self.correlation:.2f}"] if self.count else []


def example_of(row: dict[str, Any]) -> Example:
    """Of a row with the columns that this needs."""
    people = tuple(name for name in (row["previous_speaker"], row["responder"]) if name) or ("",)
    return Example(people, _features(row), _movement(row), row.get("reactivity", math.nan))


def _features(row: dict[str, Any]) -> np.ndarray | None:
    """Mean and deviation of each channel of the voice over the turn, its mean over the last 2 s, and the turn's length
    (of an encoder's many channels, the mean alone); what is heard after the answer's onset is left out."""
    voice, fps = np.asarray(row["previous_prosody"], np.float64), row["fps"]
    seconds = min(row["previous_end_s"], 0.0) - row["start_s"]
    if not row["previous_speaker"] or voice.ndim != 2 or not len(voice) or seconds < _LEAST_TURN_S:
        return None
    voice = voice[: round(seconds * fps)]
    recent = voice[-round(_RECENT_S * fps) :]
    if voice.shape[1] > _WIDE:
        return np.append(voice.mean(0), math.log(seconds))
    return np.concatenate([voice.mean(0), voice.std(0), recent.mean(0), [math.log(seconds)]])


def _movement(row: dict[str, Any]) -> float | None:
    """Log of the coefficients' standard deviation (root mean square over them) in the answer's first 2 s."""
    face, first = np.asarray(row["responder_expression"], np.float64), round(-row["start_s"] * row["fps"])
    last = first + round(ANSWER_S * row["fps"])
    if face.ndim != 2 or not len(face):
        return None
    face = face[first:last][np.asarray(row["responder_valid"], bool)[first:last]]
    if len(face) < LEAST_ANSWER_S * row["fps"]:
        return None
    return math.log(math.sqrt(face.var(0).mean()) + _LEAST_SPREAD)


# ------------------------------------------------------------------------------------------------------------- fitting


def predict(examples: Sequence[Example]) -> Prediction:
    """Scores of all examples whose previous turn is known, each from people that it shares none with.

    Numbers of features that differ, say of two encoders: only the most frequent one is predicted.
    """
    scores = np.full(len(examples), math.nan)
    widths = Counter(len(one.features) for one in examples if one.features is not None)
    width = max(widths, key=lambda w: (widths[w], w), default=0)
    groups = [
        [one.number for one in group if one.features is not None and len(one.features) == width]
        for group in components([_Numbered(number, one.people, one.features) for number, one in enumerate(examples)])
    ]
    groups = [group for group in groups if group]
    known = [[number for number in group if examples[number].movement is not None] for group in groups]
    if sum(map(bool, known)) < LEAST_COMPONENTS or sum(map(len, known)) < LEAST_EXCHANGES:
        return Prediction(scores)
    folds: list[list[int]] = [[] for _ in range(min(FOLDS, len(groups) // 2))]  # by turns before, not by answers
    for group in groups:
        min(folds, key=len).extend(group)
    learnt = [[number for number in fold if examples[number].movement is not None] for fold in folds]
    sums = [_Sums.of([examples[number] for number in fold], width) for fold in learnt]
    for index, fold in enumerate(folds):
        rest = sums[:index] + sums[index + 1 :]
        model = _fit(sum(rest, _Sums.of([], width)), _price(rest, width))
        for number in fold:
            scores[number] = round(model(examples[number].features), 4)
    both = [number for fold in learnt for number in fold]
    predicted, moved = scores[both], np.array([examples[n].movement for n in both])
    flat = predicted.std() < 1e-9 or moved.std() < 1e-9
    return Prediction(scores, 0.0 if flat else float(np.corrcoef(predicted, moved)[0, 1]))


@dataclass(frozen=True)
class _Numbered:
    number: int
    people: tuple[str, ...]
    features: np.ndarray | None


@dataclass(frozen=True)
class _Sums:
    """What a regression needs to know of its examples: products (D + 2, D + 2) of features, movement and 1."""

    products: np.ndarray

    @classmethod
    def of(cls, examples: Sequence[Example], width: int) -> _Sums:
        rows = np.zeros((len(examples), width + 2))
        for row, example in zip(rows, examples):
            row[:width], row[width], row[width + 1] = example.features, example.movement, 1.0
        return cls(rows.T @ rows)

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(self.products + other.products)

    def moments(self) -> tuple[float, np.ndarray, np.ndarray]:
        """How many there are, means (D + 1,), covariance (D + 1, D + 1)."""
        count = self.products[-1, -1]
        means = self.products[-1, :-1] / count
        return count, means, self.products[:-1, :-1] / count - np.outer(means, means)


@dataclass(frozen=True)
class _Model:
    """Standardised features times weights is the movement, standardised."""

    means: np.ndarray
    spread: np.ndarray
    weights: np.ndarray

    def __call__(self, features: np.ndarray) -> float:
        return float((features - self.means[:-1]) / self.spread[:-1] @ self.weights)

    def error(self, sums: _Sums) -> float:
        """Sum of the squared errors over other examples."""
        slopes = np.append(-self.weights / self.spread[:-1] * self.spread[-1], 1.0)
        whole = np.append(slopes, -(slopes @ self.means))
        return float(whole @ sums.products @ whole)


def _fit(sums: _Sums, price: float) -> _Model:
    count, means, covariance = sums.moments()
    spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    spread = np.where(spread > 1e-6 * np.maximum(np.abs(means), 1.0), spread, np.inf)  # what never changes says nothing
    spread[-1] = max(math.sqrt(max(covariance[-1, -1], 0.0)), 1e-9)
    correlation = covariance / np.outer(spread, spread)
    width = len(means) - 1
    weights = np.linalg.solve(correlation[:width, :width] + price / count * np.eye(width), correlation[:width, width])
    return _Model(means, spread, weights)


def _price(folds: Sequence[_Sums], width: int) -> float:
    """The price with the least error, each fold predicted from the others."""
    filled = [fold for fold in folds if fold.products[-1, -1]]
    if len(filled) < 2:
        return PRICES[-1]
    errors = dict.fromkeys(PRICES, 0.0)
    for number, fold in enumerate(filled):
        rest = sum(filled[:number] + filled[number + 1 :], _Sums.of([], width))
        for price in PRICES:
            errors[price] += _fit(rest, price).error(fold)
    return min(reversed(PRICES), key=errors.__getitem__)


# --------------------------------------------------------------------------------------------------------------- files


def score_files(paths: Sequence[Path]) -> Prediction:
    """Writes `reactivity` of all exchanges of these shards, which are one dataset; a shard whose values stay is left
    alone. The same rows give the same bytes, whatever was in the column before."""
    examples = [list(map(example_of, read_rows(path, _COLUMNS))) for path in paths]
    found = predict([example for own in examples for example in own])
    for path, own, scores in zip(paths, examples, _parts(found.scores, [len(own) for own in examples])):
        values = scores.astype(np.float32)
        if not np.array_equal(values, np.array([example.before for example in own], np.float32), equal_nan=True):
            replace_columns(path, path, {"reactivity": values})
    return found


def _parts(values: np.ndarray, sizes: Sequence[int]) -> Iterator[np.ndarray]:
    return iter(np.split(values, np.cumsum(sizes)[:-1])) if len(sizes) else iter(())
