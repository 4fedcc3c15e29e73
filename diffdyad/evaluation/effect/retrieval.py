"""Endpoint 3: among 32 turns, which one produced this motion?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffdyad.evaluation.arrays import Array
from diffdyad.evaluation.effect.reading import Item

GALLERY = 32


@dataclass(frozen=True)
class Ranks:
    """Reciprocal rank and whether first, of one turn, per motion; both averaged over samples and ties."""

    reciprocal: Array
    first: Array


def galleries(
    items: Sequence[Item], donors: np.ndarray, generator: np.random.Generator, size: int = GALLERY
) -> np.ndarray:
    """For every exchange the turns to choose among: its own first, those near it, others at random: (N, size').

    donors: (N,) index of the near swap, which is always among them, -1 where there is none. size' is smaller where
    there are fewer exchanges.
    """
    size = min(size, len(items))
    sessions = np.array([f"{item.session}\n{item.previous_speaker}" for item in items])
    rows = []
    for index in range(len(items)):
        near = np.flatnonzero((sessions == sessions[index]) & (np.arange(len(items)) != index))
        near = near[np.argsort(near != donors[index], kind="stable")][: size - 1]  # long sessions have more than fit
        others = np.setdiff1d(np.arange(len(items)), [index, *near])
        rows.append([index, *near, *generator.permutation(others)[: size - 1 - len(near)]])
    return np.array(rows)


def ranks(scores: Array, wanted: Sequence[int]) -> Ranks:
    """scores: (M, S) of M motions with S turns each, or (M, K, S) of K samples; wanted: (M,) position of a turn."""
    scores = scores if scores.ndim == 3 else scores[:, None]
    own = np.take_along_axis(scores, np.asarray(wanted)[:, None, None], 2)
    better, equal = (scores > own).sum(2), (scores == own).sum(2)  # equal counts itself
    places = better[..., None] + 1 + np.arange(scores.shape[2])
    tied = np.arange(scores.shape[2]) < equal[..., None]
    reciprocal = (tied / places).sum(2) / equal
    return Ranks(reciprocal.mean(1), np.where(better == 0, 1 / equal, 0.0).mean(1))


def chance(size: int) -> tuple[float, float]:
    """R@1 and mean reciprocal rank of guessing among `size` turns."""
    return 1 / size, float(np.mean(1 / np.arange(1, size + 1)))
