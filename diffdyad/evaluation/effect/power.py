"""Power before the run: how many independent pairs an effect of a given size needs, before there is a model.

A reaction is planted into the truth's own expressions: per exchange a fixed pattern over channels, one of a few, that
fades after the onset, in a quarter of the exchanges; scaled to a partial R2 given the own audio. An ideal model knows
it: its loss gap against another turn is |r - r'|^2 + 2 e (r - r'), e what it cannot know, and against none r' is 0.
Units differ as they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffdyad.evaluation.arrays import Array
from diffdyad.evaluation.effect.conditions import NEAR, NULL
from diffdyad.evaluation.effect.inference import POWER, power_of, unit_means, units_needed
from diffdyad.evaluation.effect.reading import Item
from diffdyad.motion import MotionLayout, MotionStats

EFFECTS = (0.003, 0.01, 0.03, 0.1)
REACTIVE_SHARE, FADE_S = 0.25, 2.0
_NUM_PATTERNS, _NUM_DRAWS = 4, 10
_RIDGE, _BANDS = 10.0, 32
_AROUND = (-4, 0, 4)  # frames of own audio that are heard for a frame


@dataclass(frozen=True)
class PowerRow:
    """For one planted partial R2: the size in deviations, power with the pairs at hand, and pairs for 90 %.

    contrast: NEAR, the loss gap against another turn, or NULL, against none.
    """

    partial_r2: float
    contrast: str
    d_z: float
    power: float
    needed: int | None


def power_table(
    items: Sequence[Item], stats: MotionStats, num_frames: int, generator: np.random.Generator,
    effects: Sequence[float] = EFFECTS,
) -> list[PowerRow]:
    """Two rows per effect, one a contrast. items: of a split; num_frames: of the answer, that count."""
    residual, known = residuals(items, stats, num_frames)
    units = np.array([item.unit for item in items])
    num_units = len(np.unique(units))
    rows, seeds = [], generator.integers(2**63, size=_NUM_DRAWS).tolist()  # the same reactions at every size
    for effect, contrast in product(effects, (NEAR, NULL)):
        sizes = [_size(residual, known, units, effect, contrast, stats, np.random.default_rng(seed))
                 for seed in seeds]  # fmt: skip
        d_z = float(np.median(sizes))
        rows.append(PowerRow(effect, contrast, d_z, power_of(d_z, num_units), units_needed(d_z, POWER)))
    return rows


def statistics_of(items: Sequence[Item], layout: MotionLayout, fps: float) -> MotionStats:
    """Of the answers themselves, where no model of their basis is at hand."""
    motion = torch.cat([item.features.motion[item.features.valid[:, 0]] for item in items])
    return MotionStats.for_layout(layout, fps).fit(motion.mean(0), motion.std(0))


def residuals(items: Sequence[Item], stats: MotionStats, num_frames: int) -> tuple[Array, Array]:
    """What own audio does not explain of the standardised expression, (N, T, E), and which frames are known (N, T).

    A ridge regression on the speech features around each frame.
    """
    span = stats.layout.slices["expression"]
    targets, features, places = [], [], []
    for number, item in enumerate(items):
        onset = item.onset(stats.config.fps)
        motion = stats.standardise(item.features.motion.to(stats.mean.device)).cpu()[onset:, span][:num_frames]
        valid = item.features.valid[onset:, 0][:num_frames]
        speech = F.adaptive_avg_pool1d(item.features.speech.float().mean(1)[None], _BANDS)[0]
        frames = torch.arange(onset, onset + len(motion))
        heard = torch.cat([speech[(frames + k).clamp(0, len(speech) - 1)] for k in _AROUND], 1)
        targets.append(motion[valid])
        features.append(heard[valid])
        places += [(number, int(k)) for k in torch.nonzero(valid)[:, 0]]
    x, y = torch.cat(features).double(), torch.cat(targets).double()
    left = y - _ridge(x, y)
    residual = np.zeros((len(items), num_frames, y.shape[1]))
    known = np.zeros((len(items), num_frames), bool)
    rows, columns = np.array(places).T
    residual[rows, columns], known[rows, columns] = left.numpy(), True
    return residual, known


def _ridge(x: Tensor, y: Tensor) -> Tensor:
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-3)
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    weights = torch.linalg.solve(x.T @ x + _RIDGE * torch.eye(x.shape[1]), x.T @ y)
    return x @ weights


def _size(
    residual: Array, known: Array, units: Array, effect: float, contrast: str, stats: MotionStats,
    generator: np.random.Generator,
) -> float:
    """d_z of the gap when reactions explain `effect` of the residual's variance."""
    count, num_frames, width = residual.shape
    patterns = generator.normal(size=(_NUM_PATTERNS, width)) * residual[known].std(0)
    fade = np.exp(-np.arange(num_frames) / stats.config.fps / FADE_S)
    reaction = np.zeros_like(residual)
    for number in np.flatnonzero(generator.random(count) < REACTIVE_SHARE):
        reaction[number] = fade[:, None] * patterns[generator.integers(_NUM_PATTERNS)] * generator.choice([-1, 1])
    power = np.square(reaction[known]).sum()
    if power == 0:
        return 0.0
    # r explains `effect` of r + e
    reaction *= np.sqrt(effect / (1 - effect) * np.square(residual[known]).sum() / power)
    wrong = reaction[generator.permutation(count)] if contrast == NEAR else 0.0
    gap = (np.square(residual + reaction - wrong) - np.square(residual)) * known[..., None]
    means = unit_means(gap.sum((1, 2)) / np.maximum(known.sum(1) * width, 1), units)
    spread = means.std(ddof=1)
    return float(means.mean() / spread) if spread > 0 else 0.0
