"""What `diffdyad context` found out about a model's guidance scale, and left beside its weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffdyad.errors import UserError

KNOB = "knob.json"


def read_knob(folder: Path) -> dict | None:
    """The knob of a pipeline's folder: largest_usable_scale, and change_mm by scale and region; None without one.

    Raises UserError where the file is damaged.
    """
    path = Path(folder) / KNOB
    if not path.is_file():
        return None
    try:
        knob = json.loads(path.read_text(encoding="utf-8"))
        float(knob["largest_usable_scale"])
        for regions in knob["change_mm"].values():
            {name: float(value) for name, value in regions.items()}
        return knob
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"expected what `diffdyad context` wrote in {path}, cannot read it: {error!r}; delete it, or "
                        "run the command again") from None  # fmt: skip


def describe_knob(knob: dict, scales: Sequence[float]) -> list[str]:
    """A line per scale, between those that were measured too, and one on the largest usable scale."""
    measured = sorted((float(scale), regions) for scale, regions in knob["change_mm"].items())
    places, lines = [scale for scale, _ in measured], []
    for scale in scales:
        if not measured or not places[0] <= scale <= places[-1]:
            continue
        moved = {name: np.interp(scale, places, [regions[name] for _, regions in measured]) for name in measured[0][1]}
        said = ", ".join(f"{name} {value:.2f}" for name, value in moved.items())
        lines.append(f"guidance scale {scale:g} moves the face, mm: {said}")
    largest = float(knob["largest_usable_scale"])
    beyond = ", ".join(f"{scale:g}" for scale in scales if scale > largest)
    return [*lines, f"largest usable guidance scale: {largest:g}{f' (beyond it: {beyond})' if beyond else ''}"]
