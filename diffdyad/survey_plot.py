"""The picture of `diffdyad data describe`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from diffdyad.survey import Clip
    from diffdyad.survey_contrast import Contrast

_COLORS = ("#2f6db3", "#c8553d")


def plot(
    clips: Sequence[Clip], other: Sequence[Clip], names: tuple[str, str], contrasts: Sequence[Contrast], path: Path
) -> None:
    """Lengths, gaps, kinds, affect before, head dynamics and rates, of one dataset or of two side by side; of two, how
    large the differences of their responders are."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9.5), layout="constrained", dpi=90)
    parts = figure.subfigures(2, 1, height_ratios=(2, 1))
    sets = [(name, list(own), color) for name, own, color in zip(names, (clips, other), _COLORS) if own]
    panels = (
        ("length of the exchange, s", lambda c: [c.seconds], None),
        ("gap before the answer, s", lambda c: [c.gap_s] if c.has_previous and c.kind != "silent" else [], (-0.7, 1.7)),
        _before([clip for _, own, _ in sets for clip in own]),
        _rate("head speed, degrees/s", "head_speed_deg_s"), _rate("head rotation, sd, degrees", "head_sd_deg"),
        _rate("nods per minute", "nods_per_min"), _rate("smiles that begin, per minute", "smiles_per_min"),
    )  # fmt: skip
    axes = parts[0].subplots(2, 4)
    _kinds(axes[0, 0], sets)
    for axis, panel in zip(axes.flat[1:], panels):
        _histogram(axis, sets, *panel)
    below = parts[1].subplots(1, 3, width_ratios=(1, 1, 2))
    _histogram(below[0], sets, *_rate("smile, mean", "smile_level"))
    _histogram(below[1], sets, *_rate("brow raises per minute", "brow_raises_per_min"))
    if other:
        _effects(below[2], contrasts, names)
    else:
        _splits(below[2], sets[0][1])
    figure.savefig(path, format="png")


def _rate(title: str, name: str) -> tuple:
    return title, lambda clip: [clip.rates[name]] if name in clip.rates else [], None


def _unknown(axis, what: str = "not known") -> None:
    axis.text(0.5, 0.5, what, ha="center", va="center", transform=axis.transAxes, color="#777777")
    axis.set(xticks=[], yticks=[])


def _kinds(axis, sets: list[tuple]) -> None:
    kinds = sorted({clip.kind for _, own, _ in sets for clip in own})
    for number, (name, own, color) in enumerate(sets):
        counts = Counter(clip.kind for clip in own)
        share = [100 * counts[kind] / len(own) for kind in kinds]
        axis.bar(np.arange(len(kinds)) + 0.4 * number, share, 0.38, color=color, alpha=0.8, label=name)
    axis.set_xticks(np.arange(len(kinds)) + 0.2 * (len(sets) - 1), kinds)
    axis.set_title("kind of response, %", fontsize=10)
    axis.legend(fontsize=8)


def _histogram(axis, sets: list[tuple], title: str, values, limits: tuple[float, float] | None) -> None:
    drawn = [(name, np.array([v for clip in own for v in values(clip)]), color) for name, own, color in sets]
    drawn = [(name, array[np.isfinite(array)], color) for name, array, color in drawn]
    known = np.concatenate([array for _, array, _ in drawn])
    axis.set_title(title, fontsize=10)
    if not len(known):
        return _unknown(axis)
    low, high = limits or (known.min(), np.percentile(known, 99.5))
    edges = np.linspace(low, max(high, low + 1e-3), 31)
    for name, array, color in drawn:
        if len(array):
            weights = np.full(len(array), 100.0 / len(array))
            axis.hist(array, edges, weights=weights, color=color, alpha=0.6, label=name)
    axis.set_ylabel("% of exchanges", fontsize=8)


def _effects(axis, contrasts: Sequence[Contrast], names: tuple[str, str]) -> None:
    """Sizes of the differences with their intervals, one below the other."""
    axis.set_title(f"{names[0]} less {names[1]}: Hedges' g, 95 % over people", fontsize=10)
    known = [row for row in contrasts if math.isfinite(row.g)]
    if not known:
        return _unknown(axis, "not given: too few independent groups of people" if contrasts else "not known")
    for number, row in enumerate(known):
        if math.isfinite(row.g_low):
            axis.plot([row.g_low, row.g_high], [-number, -number], color="#444444", lw=1.5)
        axis.plot(row.g, -number, "o", color=_COLORS[0 if row.g > 0 else 1], ms=7)
        axis.annotate(f"{row.g:+.2f}", (row.g, -number), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    axis.axvline(0.0, color="#999999", lw=1)
    axis.set_yticks([-number for number in range(len(known))], [row.title for row in known], fontsize=8)
    axis.set_ylim(0.6 - len(known), 0.7)
    axis.spines[["top", "right", "left"]].set_visible(False)


def _splits(axis, clips: Sequence[Clip]) -> None:
    """How many exchanges there are in each split."""
    counts = Counter(clip.split for clip in clips)
    axis.barh(list(counts), list(counts.values()), color=_COLORS[0], alpha=0.8)
    axis.invert_yaxis()
    axis.set_title("exchanges by split", fontsize=10)


def _before(clips: Sequence[Clip]) -> tuple:
    """The panel about the turn before: its valence where that is known, the voice's level otherwise."""
    if any(np.isfinite(clip.valence) for clip in clips):
        return "valence of the turn before", lambda c: [c.valence], (-1, 1)
    return "level of the turn before, dB", lambda c: [c.before[k] for k in ("level_db",) if k in c.before], None
