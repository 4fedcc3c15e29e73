"""What the guidance scale does, scale by scale, and up to which it may be used. Descriptive: guidance moves answers
apart by construction, and what is right may be largest near 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffdyad.evaluation.arrays import Array
from diffdyad.evaluation.diversity import energy_score
from diffdyad.evaluation.effect.answers import Answers, Ask
from diffdyad.evaluation.effect.conditions import NEAR, TRUE
from diffdyad.evaluation.effect.face import Face
from diffdyad.evaluation.effect.inference import bootstrap_interval, effect_of, equivalence, unit_means
from diffdyad.evaluation.intervals import Estimate
from diffdyad.motion import MotionLayout, MotionStats

SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
NUM_SAMPLES = 2
LEAST_COSINE = 0.7
NATURAL = (0.8, 1.25)
"""Jerk and speed of the face over those of the answers without context: jerkier is not natural, and stiffer neither."""


@dataclass
class Dose:
    """One scale. change_mm: by region, against scale 0; turn_mm: against another turn at the same scale.

    cosine: of the change with the change at scale 1; energy: score against the truth, standardised expression, less
    that at scale 0 (negative = nearer to the truth); lips_mm: change of the mean opening, and whether it is shown to
    be within the margin; lips_frame_mm: mean change of the opening frame by frame, either way; jerk, speed: over those
    at scale 0. Means over units; low, high: 95 % over them.
    """

    scale: float
    change_mm: dict[str, float]
    change_low_high: dict[str, tuple[float, float]]
    turn_mm: dict[str, float]
    turn_low_high: dict[str, tuple[float, float]]
    head_deg: float
    head_low_high: tuple[float, float]
    cosine: float
    cosine_low: float
    energy: float
    energy_low: float
    energy_high: float
    lips_mm: float
    lips_low_high: tuple[float, float]
    lips_hold: bool
    lips_frame_mm: float
    lips_frame_low_high: tuple[float, float]
    jerk: float
    speed: float

    @property
    def is_usable(self) -> bool:
        natural = all(NATURAL[0] <= ratio <= NATURAL[1] for ratio in (self.jerk, self.speed))
        return self.scale == 0 or (
            self.lips_hold and natural and (self.scale <= 1 or self.cosine_low >= LEAST_COSINE)
        )


def asks(chosen: Sequence[int], answers: Answers) -> list[Ask]:
    """All answers that `doses` needs."""
    return [
        Ask(index, condition, scale, NUM_SAMPLES) for scale in SCALES for index in chosen for condition in (TRUE, NEAR)
        if (scale > 0 or condition == TRUE) and answers.has(index, condition)
    ]  # fmt: skip


def doses(
    answers: Answers, chosen: Sequence[int], units: Sequence[int], truth: Sequence[tuple[Tensor, Tensor]], face: Face,
    stats: MotionStats, margin_mm: float, generator: np.random.Generator,
) -> list[Dose]:
    """truth: standardised motion and what is known of it, (T, D) each, per chosen exchange."""
    layout, units = stats.layout, np.asarray(units)

    def over_units(values, of: Array = units) -> tuple[float, tuple[float, float]]:
        means = unit_means(values, of)
        found = bootstrap_interval(means, generator) if len(means) > 1 else Estimate(means.mean(), math.nan, math.nan)
        return found.value, (found.low, found.high)

    def by_region(changes: Sequence[dict[str, Array]], of: Array) -> tuple[dict, dict]:
        found = {name: over_units([c[name].mean() for c in changes], of) if changes else (0.0, (0.0, 0.0))
                 for name in face.regions}  # fmt: skip
        return {name: x for name, (x, _) in found.items()}, {name: bounds for name, (_, bounds) in found.items()}

    def motions(scale: float, condition: str) -> list[Tensor]:
        return [answers(Ask(index, condition, scale, NUM_SAMPLES)) for index in chosen]

    none, one = motions(0.0, TRUE), motions(1.0, TRUE)
    none_energy = np.array([score(x, *t, stats) for x, t in zip(none, truth)])
    none_open = [face.opening_mm(x) for x in none]
    none_speed, none_jerk = (np.array(v) for v in zip(*[[y.mean() for y in face.speed_and_jerk(x)] for x in none]))
    found = []
    for scale in SCALES:
        here = motions(scale, TRUE)
        change = [face.change_mm(x, n) for x, n in zip(here, none)]
        near = [answers(Ask(index, NEAR, scale, NUM_SAMPLES)) if scale > 0 and answers.has(index, NEAR) else None
                for index in chosen]  # fmt: skip
        turn = [face.change_mm(x, n) for x, n in zip(here, near) if n is not None]
        energy = effect_of([score(x, *t, stats) - e for x, t, e in zip(here, truth, none_energy)], units, generator)
        cosine = effect_of([_cosine(x - n, o - n, layout, stats.std.cpu()) for x, n, o in zip(here, none, one)], units,
                           generator)  # fmt: skip
        opened = [face.opening_mm(x) - o for x, o in zip(here, none_open)]
        lips = equivalence(unit_means([change.mean() for change in opened], units), margin_mm)
        speed, jerk = (np.array(v) for v in zip(*[[y.mean() for y in face.speed_and_jerk(x)] for x in here]))
        found.append(Dose(
            scale, *by_region(change, units), *by_region(turn, units[[n is not None for n in near]]),
            *over_units([face.head_change_deg(x, n).mean() for x, n in zip(here, none)]),
            cosine.mean, cosine.low, energy.mean, energy.low, energy.high,
            *over_units([change.mean() for change in opened]), lips.holds,
            *over_units([np.abs(change).mean() for change in opened]),
            float(jerk.mean() / none_jerk.mean()), float(speed.mean() / none_speed.mean()),
        ))  # fmt: skip
    return found


def noise_mm(answers: Answers, chosen: Sequence[int], units: Sequence[int], face: Face) -> dict[str, float]:
    """What other noise alone changes, by region: between two answers to the same turn at scale 1. A control."""
    pairs = [answers(Ask(index, TRUE, 1.0, NUM_SAMPLES)) for index in chosen]
    changes = [face.change_mm(samples[0], samples[1]) for samples in pairs]
    return {name: float(unit_means([c[name].mean() for c in changes], units).mean()) for name in face.regions}


def largest_usable(found: Sequence[Dose]) -> float:
    """The last scale before the first that may not be used."""
    largest = found[0].scale
    for dose in found:
        if not dose.is_usable:
            break
        largest = dose.scale
    return largest


def score(samples: Tensor, truth: Tensor, known: Tensor, stats: MotionStats) -> float:
    """Energy score of the standardised expression over the frames that are known; NaN where none are."""
    span = stats.layout.slices["expression"]
    frames = known[: samples.shape[1], span].all(-1)
    if not frames.any():
        return float("nan")
    standardised = stats.standardise(samples.to(stats.mean.device)).cpu()[:, :, span]
    return energy_score(standardised[:, frames], truth[: samples.shape[1], span][frames])


def _cosine(change: Tensor, reference: Tensor, layout: MotionLayout, std: Tensor) -> float:
    """Of the changes of the expression, in deviations, averaged over samples: (K, T, D) each."""
    span = layout.slices["expression"]
    a, b = ((x.mean(0) / std)[:, span].flatten() for x in (change, reference))
    if not (a.any() and b.any()):
        return float("nan")
    return float(torch.dot(a, b) / (a.norm() * b.norm()))
