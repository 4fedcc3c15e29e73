"""Wrong turns that could have been: for every exchange another turn of the same speaker, and one of other people.

A swap that differs in length, gap or loudness would be told from the truth by that alone: so they are matched. Every
turn serves as another's at most a few times, and never for its own exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from diffdyad.evaluation.effect.reading import Item

SCALES = {"turn_s": 0.5, "gap_s": 0.3, "loudness_db": 6.0}
"""Differences that weigh alike: of the logarithm of the duration, of the gap in seconds, of the level in dB."""


@dataclass(frozen=True)
class Swaps:
    """near, far, near_too: index of the donor of each exchange, -1 where there is none; (N,) each.

    near: same previous speaker and session, another turn; near_too: yet another one, for the placebo; far: of another
    unit of people. unmatched: mean distance of the matches, in the units of SCALES.
    """

    near: np.ndarray
    far: np.ndarray
    near_too: np.ndarray
    distance: dict[str, float]


def traits(items: Sequence[Item]) -> np.ndarray:
    """What swaps are matched on, scaled: (N, 3)"""
    return np.array([
        [np.log(max(item.turn_s, 0.2)) / SCALES["turn_s"], item.gap_s / SCALES["gap_s"],
         item.loudness_db / SCALES["loudness_db"]]
        for item in items
    ])  # fmt: skip


def find_swaps(items: Sequence[Item], generator: np.random.Generator) -> Swaps:
    """The best matches; a turn that has served costs more the next time, so that no turn serves for many."""
    where = traits(items)
    sessions = np.array([f"{item.session}\n{item.previous_speaker}" for item in items])
    units = np.array([item.unit for item in items])
    order = generator.permutation(len(items))
    near, near_distance = _match(where, order, lambda k: sessions == sessions[k], {})
    taken = {k: {int(near[k])} for k in range(len(items))}
    near_too, _ = _match(where, order, lambda k: sessions == sessions[k], taken)
    far, far_distance = _match(where, order, lambda k: units != units[k], {})
    return Swaps(near, far, near_too, {"near": near_distance, "far": far_distance})


def _match(
    where: np.ndarray, order: np.ndarray, allowed: Callable[[int], np.ndarray], taken: dict[int, set[int]]
) -> tuple[np.ndarray, float]:
    chosen, served, total = np.full(len(where), -1), np.zeros(len(where)), []
    for k in order:
        candidates = allowed(k)
        candidates[k] = False
        for other in taken.get(int(k), ()):
            if other >= 0:
                candidates[other] = False
        candidates = np.flatnonzero(candidates)
        if not len(candidates):
            continue
        distance = np.linalg.norm(where[candidates] - where[k], axis=1)
        best = int(np.argmin(distance + served[candidates]))
        chosen[k] = candidates[best]
        served[candidates[best]] += 1
        total.append(distance[best])
    return chosen, float(np.mean(total)) if total else float("nan")
