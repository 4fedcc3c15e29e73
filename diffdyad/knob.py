"""What `diffdyad context` found out about a model's guidance scale, and left beside its weights."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from diffdyad.errors import UserError
from diffdyad.staging import write_text

KNOB = "knob.json"


def read_knob(folder: Path) -> dict | None:
    """The knob of a pipeline's folder: largest_usable_scale, and change_mm by scale and region; None without one.

    Intervals, change_low_high_mm, are in those that have been measured since there are any.

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
        for regions in knob.get("change_low_high_mm", {}).values():
            {name: (float(low), float(high)) for name, (low, high) in regions.items()}
        return knob
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"expected what `diffdyad context` wrote in {path}, cannot read it: {error!r}; delete it, or "
                        "run the command again") from None  # fmt: skip


def store_knob(folder: Path, knob: dict) -> None:
    """Leaves it beside a pipeline's weights, and its summary in the pipeline's card, where it has one."""
    folder = Path(folder)
    write_text(folder / KNOB, json.dumps(knob, indent=1) + "\n")
    card = folder / "README.md"
    if card.is_file():
        write_text(card, with_section(card.read_text(encoding="utf-8"), card_section(folder)[0]))


def with_section(card: str, section: str) -> str:
    """The card with this section in the place of the one of that title; a new one comes before `## Use`, or last."""
    title = section.split("\n", 1)[0]
    parts = re.split(r"^(?=## )", card, flags=re.MULTILINE)
    places = [k for k, part in enumerate(parts) if part.split("\n", 1)[0].strip() == title]
    if places:
        parts[places[0]] = section + "\n\n"
    else:
        before = [k for k, part in enumerate(parts) if part.startswith("## Use")] or [len(parts)]
        parts.insert(before[0], section + "\n\n")
        if before[0] and not parts[before[0] - 1].endswith("\n\n"):
            parts[before[0] - 1] = parts[before[0] - 1].rstrip("\n") + "\n\n"
    return "".join(parts).rstrip("\n") + "\n"


def card_section(folder: Path) -> list[str]:
    """The model card's section on the context, in Markdown; nothing where the protocol has not judged the model."""
    knob = read_knob(folder)
    if knob is None:
        return []
    regions = list(next(iter(knob["change_mm"].values()), {}))
    bounds = knob.get("change_low_high_mm", {})
    rows = [f"| {scale} | " + " | ".join(_moved(moved[name], bounds.get(scale, {}).get(name)) for name in regions)
            + " |" for scale, moved in knob["change_mm"].items()]  # fmt: skip
    table = "\n".join([f"| guidance scale | {' | '.join(f'{name}, mm' for name in regions)} |",
                       "|---|" + "---|" * len(regions), *rows])  # fmt: skip
    return [
        f"## Context\n\nDoes the previous turn change the motion, in the right direction? `diffdyad context`: "
        f"**{knob.get('verdict', 'not judged')}**. {knob.get('sentence', '')}\n\nLargest usable guidance scale: "
        f"{_largest(knob)}. Change of the face against scale 0{_about(bounds)}:\n\n{table}"
    ]


def describe_knob(knob: dict, scales: Sequence[float]) -> list[str]:
    """A line per scale, between those that were measured too, and one on the largest usable scale."""
    measured = sorted((float(scale), regions) for scale, regions in knob["change_mm"].items())
    bounds = sorted((float(scale), regions) for scale, regions in knob.get("change_low_high_mm", {}).items())
    places, lines = [scale for scale, _ in measured], []
    for scale in scales:
        if not measured or not places[0] <= scale <= places[-1]:
            continue
        moved = {name: np.interp(scale, places, [regions[name] for _, regions in measured]) for name in measured[0][1]}
        sides = {name: [np.interp(scale, places, [regions[name][side] for _, regions in bounds]) for side in (0, 1)]
                 for name in moved} if bounds else {}  # fmt: skip
        said = ", ".join(f"{name} {_moved(value, sides.get(name))}" for name, value in moved.items())
        lines.append(f"guidance scale {scale:g} moves the face, mm{_about(bounds)}: {said}")
    largest = float(knob["largest_usable_scale"])
    beyond = ", ".join(f"{scale:g}" for scale in scales if scale > largest)
    return [*lines, f"largest usable guidance scale: {_largest(knob)}{f' (beyond it: {beyond})' if beyond else ''}"]


def _moved(value: float, bounds: Sequence[float] | None) -> str:
    return f"{value:.2f}" if bounds is None else f"{value:.2f} [{bounds[0]:.2f}, {bounds[1]:.2f}]"


def _about(bounds: Collection) -> str:
    return " [95 % over pairs of people]" if bounds else ""


def _largest(knob: dict) -> str:
    largest = float(knob["largest_usable_scale"])
    is_last = largest >= max((float(scale) for scale in knob["change_mm"]), default=np.inf)
    return f"{largest:g}{', the highest that was tried' if is_last else ''}"
