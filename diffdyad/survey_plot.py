"""The picture of `diffdyad data describe`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from diffdyad.survey import Clip

_COLORS = ("#2f6db3", "#c8553d")


def plot(clips: Sequence[Clip], other: Sequence[Clip], names: tuple[str, str], path: Path) -> None:
    """Lengths, gaps, kinds, affect before, head dynamics and rates, of one dataset or of two side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout="constrained", dpi=90)
    axes = figure.subplots(2, 4)
    sets = [(name, list(own), color) for name, own, color in zip(names, (clips, other), _COLORS) if own]
    panels = (
        ("length of the exchange, s", lambda c: [c.seconds], None),
        ("gap before the answer, s", lambda c: [c.gap_s] if c.has_previous and c.kind != "silent" else [], (-0.7, 1.7)),
        _before([clip for _, own, _ in sets for clip in own]),
        ("head speed, degrees/s", lambda c: [c.rates[k] for k in ("head_speed_deg_s",) if k in c.rates], None),
        ("head rotation, sd, degrees", lambda c: [c.rates[k] for k in ("head_sd_deg",) if k in c.rates], None),
        ("nods per minute", lambda c: [c.rates[k] for k in ("nods_per_min",) if k in c.rates], None),
        ("smile, mean", lambda c: [c.rates[k] for k in ("smile_level",) if k in c.rates], None),
    )
    for axis, (title, values, limits) in zip(axes.flat[1:], panels):
        drawn = [(name, np.array([v for clip in own for v in values(clip)]), color) for name, own, color in sets]
        drawn = [(name, array[np.isfinite(array)], color) for name, array, color in drawn]
        known = np.concatenate([array for _, array, _ in drawn])
        axis.set_title(title, fontsize=10)
        if not len(known):
            axis.text(0.5, 0.5, "not known", ha="center", va="center", transform=axis.transAxes, color="#777777")
            axis.set(xticks=[], yticks=[])
            continue
        low, high = limits or (known.min(), np.percentile(known, 99.5))
        edges = np.linspace(low, max(high, low + 1e-3), 31)
        for name, array, color in drawn:
            if len(array):
                weights = np.full(len(array), 100.0 / len(array))
                axis.hist(array, edges, weights=weights, color=color, alpha=0.6, label=name)
        axis.set_ylabel("% of exchanges", fontsize=8)
    axis = axes[0, 0]
    kinds = sorted({clip.kind for _, own, _ in sets for clip in own})
    for number, (name, own, color) in enumerate(sets):
        counts = Counter(clip.kind for clip in own)
        share = [100 * counts[kind] / len(own) for kind in kinds]
        axis.bar(np.arange(len(kinds)) + 0.4 * number, share, 0.38, color=color, alpha=0.8, label=name)
    axis.set_xticks(np.arange(len(kinds)) + 0.2 * (len(sets) - 1), kinds)
    axis.set_title("kind of response, %", fontsize=10)
    axis.legend(fontsize=8)
    figure.savefig(path, format="png")


def _before(clips: Sequence[Clip]) -> tuple:
    """The panel about the turn before: its valence where that is known, the voice's level otherwise."""
    if any(np.isfinite(clip.valence) for clip in clips):
        return "valence of the turn before", lambda c: [c.valence], (-1, 1)
    return "level of the turn before, dB", lambda c: [c.before[k] for k in ("level_db",) if k in c.before], None
