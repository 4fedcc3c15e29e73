"""Where on the face the context acts, when, and through which part of the turn; start against context. Descriptive.

All but `split` look at what the network expects at pure noise, the mean over its answers: nothing is sampled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from diffdyad.evaluation.effect import occlusion
from diffdyad.evaluation.effect.answers import Answers, Ask
from diffdyad.evaluation.effect.conditions import NEAR, NULL, TRUE, Conditions
from diffdyad.evaluation.effect.face import Face
from diffdyad.evaluation.effect.gap import Gaps
from diffdyad.evaluation.effect.network import Network

SPLIT_SAMPLES = 4
WRONG = "swap-near against null"
"""A control: what any turn changes, right or wrong."""


@dataclass
class Where:
    """heat_mm: (V,) mean change of each vertex, true turn against none; regions_mm: the same by region and contrast
    (what the true turn is against, or WRONG).

    times_s: (T,); curves_mm: contrast -> (T,) mean change of the face; half_life_s: of the curve against none, NaN
    where it does not halve; occlusion_mm: (W,) change when so much of the turn is hidden, from its end backwards, its
    sentence left as it is.
    """

    heat_mm: np.ndarray
    regions_mm: dict[str, dict[str, float]]
    head_deg: dict[str, float]
    times_s: np.ndarray
    curves_mm: dict[str, np.ndarray]
    half_life_s: float
    occlusion_s: np.ndarray
    occlusion_mm: np.ndarray


def look(
    network: Network, conditions: Conditions, gaps: Gaps, chosen: Sequence[int], face: Face, folder: Path, seed: int = 0
) -> Where:
    """folder: where `occlusion.measure` left what it found of these exchanges."""
    stats, fps = network.pipeline.statistics, network.pipeline.fps
    contrasts = {NULL: (TRUE, NULL), NEAR: (TRUE, NEAR), WRONG: (NEAR, NULL)}
    heat, curves = np.zeros(face.head.num_vertices), {name: [] for name in contrasts}
    regions = {contrast: {name: [] for name in face.regions} for contrast in contrasts}
    head = {contrast: [] for contrast in contrasts}
    for index in chosen:
        means = {name: _raw(stats, gaps.means[name][index]) for name in (TRUE, NULL, NEAR)}
        heat += face.vertex_change_mm(means[TRUE][::5], means[NULL][::5]) / len(chosen)
        for contrast, sides in contrasts.items():
            a, b = (means[side] for side in sides)
            if not (a.isfinite().all() and b.isfinite().all()):
                continue
            change = face.change_mm(a, b)
            curves[contrast].append(change["face"])
            head[contrast].append(face.head_change_deg(a, b).mean())
            for name in face.regions:
                regions[contrast][name].append(change[name].mean())
    mean_curves = {wrong: np.mean(rows, 0) if rows else np.zeros(network.answer) for wrong, rows in curves.items()}
    times = np.arange(network.answer) / fps
    return Where(
        heat, {wrong: {name: float(np.mean(rows)) for name, rows in found.items() if rows}
               for wrong, found in regions.items()},
        {wrong: float(np.mean(rows)) for wrong, rows in head.items() if rows}, times, mean_curves,
        half_life_s(times, mean_curves[NULL]), np.array(occlusion.BEGINS_S),
        occlusion.gather(network, conditions, chosen, folder, face, seed),
    )  # fmt: skip


def half_life_s(times: np.ndarray, curve: np.ndarray) -> float:
    """Seconds from the curve's top until it is under half of it, for good; NaN where that does not come."""
    if not len(curve) or curve.max() <= 0:
        return math.nan
    top = int(curve.argmax())
    above = np.flatnonzero(curve >= curve[top] / 2)
    return float(times[above[-1] + 1] - times[top]) if above[-1] + 1 < len(times) else math.nan


def _raw(stats, standardised: Tensor) -> Tensor:
    return stats.restore(standardised.to(stats.mean.device)).cpu()


@dataclass
class Split:
    """Shares of the variance of the face's points, which sum to 1; curves_mm: start, context -> (T,) mean change."""

    shares: dict[str, float]
    times_s: np.ndarray
    curves_mm: dict[str, np.ndarray]
    num_exchanges: int


def split_asks(chosen: Sequence[int], conditions: Conditions) -> list[Ask]:
    """Start and context, each the own one or the near swap's: four cells of answers, the same noise in each."""
    swaps, fps = conditions.swaps.near, conditions.encoder.config.fps
    own_responder = [index for index in chosen if _start_of(conditions, index, fps) is not None and swaps[index] >= 0]
    return [Ask(index, condition, 1.0, SPLIT_SAMPLES, start) for index in own_responder
            for condition in (TRUE, NEAR) for start in (index, _start_of(conditions, index, fps))]  # fmt: skip


def _start_of(conditions: Conditions, index: int, fps: float) -> int | None:
    """Another exchange of the same responder whose last listening frames can be the start."""
    item = conditions.items[index]
    for other, candidate in enumerate(conditions.items):
        same = candidate.responder == item.responder and candidate.session == item.session and other != index
        if same and min(candidate.onset(fps), item.onset(fps)) >= fps / 2:
            return other
    return None


def split(answers: Answers, chosen: Sequence[int], face: Face) -> Split | None:
    """Variance of the answers by start, context and seed; None where no exchange has another start."""
    asks = split_asks(chosen, answers.conditions)
    parts, curves = {"context": 0.0, "start": 0.0, "seed": 0.0, "rest": 0.0}, {"context": [], "start": []}
    for k in range(0, len(asks), 4):
        cells = np.stack([face.points_mm(answers(ask)) for ask in asks[k : k + 4]])  # context x start: (4, K, T, P, 3)
        cells = cells.reshape(2, 2, *cells.shape[1:])
        grand = cells.mean((0, 1, 2), keepdims=True)
        effects = {"context": cells.mean((1, 2)), "start": cells.mean((0, 2)), "seed": cells.mean((0, 1))}
        total = np.square(cells - grand).mean()
        for name, means in effects.items():
            parts[name] += np.square(means - grand[0, 0]).mean()
        parts["rest"] += total - sum(np.square(means - grand[0, 0]).mean() for means in effects.values())
        for name in curves:
            curves[name].append(np.linalg.norm(effects[name][0] - effects[name][1], axis=-1).mean(-1))
    total = sum(parts.values())
    if not asks or total <= 0:
        return None
    fps = answers.network.pipeline.fps
    return Split(
        {name: float(part / total) for name, part in parts.items()}, np.arange(len(curves["start"][0])) / fps,
        {name: np.mean(rows, 0) for name, rows in curves.items()}, len(asks) // 4,
    )  # fmt: skip
