"""`diffdyad data describe A --against B`: do the responders of one dataset move otherwise than those of another?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from diffdyad.evaluation.bootstrap import bootstrap_mean, expanded_tail, resample_weights
from diffdyad.evaluation.people import independent_units

if TYPE_CHECKING:
    from diffdyad.survey import Clip

FIGURES = {
    "nods_per_min": "nods per minute",
    "smiles_per_min": "smiles that begin, per minute",
    "smile_level": "smile, mean (1: as mouthSmile at 1)",
    "brow_raises_per_min": "brow raises per minute",
    "head_speed_deg_s": "head speed, degrees/s",
    "head_sd_deg": "head rotation, standard deviation, degrees",
}
"""What clips are compared by."""

LEAST_GROUPS = 5
"""Of independent people in either dataset: with fewer, a standard deviation says little of other people, and sizes of
effects in units of it are absurd."""


@dataclass(frozen=True)
class Contrast:
    """One figure in two datasets: means, their difference with its 95 % interval over people, and its size in standard
    deviations (Hedges' g: Cohen's d less its bias for few people; Hedges 1981), likewise. units: groups of people that
    never talk with each other. NaN = too few of these: 2 of each for the difference's interval, 5 for sizes."""

    figure: str
    first: float
    second: float
    difference: float
    difference_low: float
    difference_high: float
    g: float
    g_low: float
    g_high: float
    clips: tuple[int, int]
    units: tuple[int, int]

    @property
    def title(self) -> str:
        return FIGURES[self.figure]


def contrast(first: Sequence[Clip], second: Sequence[Clip], seed: int = 0, resamples: int = 2000) -> list[Contrast]:
    """Do the responders of `first` move otherwise than those of `second`? A row per figure that both have.

    People (and whoever they are linked to by conversations) are drawn anew with all of their clips.
    """
    generator = np.random.default_rng(seed)
    found = []
    for name in FIGURES:
        sets = [[clip for clip in clips if name in clip.rates] for clips in (first, second)]
        if not all(sets):
            continue
        values = [np.array([clip.rates[name] for clip in own]) for own in sets]
        units = [independent_units([clip.people for clip in own]) for own in sets]
        counts = tuple(int(unit.max()) + 1 for unit in units)
        plain = _effect(*([np.ones(len(v))[None] for v in values]), *values)[:, 0]
        low = high = np.full(2, math.nan)
        if min(counts) >= 2:
            weights = [resample_weights(u, 1, resamples, generator)[:, :, 0] for u in units]
            tail = expanded_tail(min(counts), 0.95)
            effects = _effect(*weights, *values)
            if np.isfinite(effects).all(0).sum() >= 5:
                low, high = np.nanquantile(effects, [tail, 1 - tail], axis=1)
        # people are what is independent, and not their clips
        size = correction(sum(counts) - 2) if min(counts) >= LEAST_GROUPS else math.nan
        found.append(Contrast(
            name, *(float(bootstrap_mean(v, u, generator, 50).value) for v, u in zip(values, units)),
            float(plain[0]), float(low[0]), float(high[0]), *(float(size * x[1]) for x in (plain, low, high)),
            tuple(map(len, sets)), counts,
        ))  # fmt: skip
    return found


def correction(degrees_of_freedom: int) -> float:
    """What Cohen's d is too large by in small samples, as a factor (Hedges 1981, the usual approximation)."""
    return 1 - 3 / (4 * degrees_of_freedom - 1)


def by_reactivity(first: Sequence[Clip], second: Sequence[Clip]) -> list[tuple[str, list[Clip], list[Clip]]]:
    """Thirds of `first` by how much movement the turn before makes expect, each with the same third of `second`, or
    with all of it where nothing is expected there; [] where nothing is in `first`."""
    thirds = [_thirds(clips) for clips in (first, second)]
    if not thirds[0]:
        return []
    return list(zip(("little", "some", "much"), thirds[0], thirds[1] or [list(second)] * 3))


def _thirds(clips: Sequence[Clip]) -> list[list[Clip]]:
    known = sorted((clip for clip in clips if math.isfinite(clip.reactivity)), key=lambda clip: clip.reactivity)
    edges = [round(len(known) * part / 3) for part in range(4)]
    return [known[a:b] for a, b in pairwise(edges)] if len(known) >= 3 else []


def _effect(wa: np.ndarray, wb: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:  # (2, R)
    """Difference of the weighted means, and the same over the pooled standard deviation."""
    with np.errstate(divide="ignore", invalid="ignore"):
        means = [(w @ x) / w.sum(1) for w, x in ((wa, a), (wb, b))]
        sums = [w @ x**2 - w.sum(1) * m**2 for w, x, m in zip((wa, wb), (a, b), means)]
        spread = np.sqrt(np.maximum(sum(sums), 0) / np.maximum(wa.sum(1) + wb.sum(1) - 2, 1))
        difference = means[0] - means[1]
        return np.stack([difference, np.where(spread > 1e-9, difference / spread, np.nan)])


def contrast_lines(rows: Sequence[Contrast], names: tuple[str, str]) -> list[str]:
    if not rows:
        return ["nothing to compare: no figure of motion is known in both"]
    width = max(len(row.title) for row in rows)
    lines = [f"{'':{width}} {names[0][:12]:>12} {names[1][:12]:>12}  difference [95 %]          Hedges' g [95 %]"]
    for row in rows:
        size = f"{row.g:+.2f} [{row.g_low:+.2f}, {row.g_high:+.2f}]" if math.isfinite(row.g) else "-"
        lines.append(
            f"{row.title:{width}} {row.first:12.3f} {row.second:12.3f}  {row.difference:+.3f} "
            f"[{row.difference_low:+.3f}, {row.difference_high:+.3f}]  {size}"
        )
    units = rows[0].units
    lines.append(f"clips: {rows[0].clips[0]} and {rows[0].clips[1]}; independent groups of people: {units[0]} "
                 f"and {units[1]}; intervals over people (nan: too few)")  # fmt: skip
    if any(min(row.units) < LEAST_GROUPS for row in rows):
        lines.append(f"g is not given for fewer than {LEAST_GROUPS} such groups on either side")
    return lines
