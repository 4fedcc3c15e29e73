"""Which exchanges are kept, and why not: rules over the scores in the records, so that they can be run again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from diffdyad.data.dynamics import GLITCH_DEG_S
from diffdyad.data.exchange import PEOPLE
from diffdyad.errors import UserError


@dataclass(frozen=True)
class Filters:
    """Thresholds by name; None = off. What is not known breaks no rule. Units: docs/DATASET.md."""

    max_residual_db: float | None = -6.0
    min_valid_share: float | None = 0.5
    max_head_speed_deg_s: float | None = GLITCH_DEG_S
    min_head_speed_deg_s: float | None = None
    min_active_speaker_score: float | None = None
    max_sync_lag_ms: float | None = None
    max_reprojection_px: float | None = None
    max_overlap_ratio: float | None = None
    min_reactivity: float | None = None
    min_head_percentile: float | None = None

    @classmethod
    def of(cls, settings: Sequence[str]) -> Filters:
        """From "NAME=VALUE", VALUE a number or off. Raises UserError for anything else."""
        names, changed = [field.name for field in fields(cls)], {}
        for setting in settings:
            name, equals, value = setting.partition("=")
            if not equals or name not in names:
                raise UserError(f"expected a filter as NAME=VALUE, NAME among {', '.join(names)}, found {setting!r}")
            try:
                changed[name] = None if value == "off" else float(value)
            except ValueError:
                changed[name] = math.nan
            if changed[name] is not None and not math.isfinite(changed[name]):
                raise UserError(f"expected a number or off for the filter {name}, found {value!r}")
        return replace(cls(), **changed)


@dataclass(frozen=True)
class _Rule:
    """columns: whose values it judges, all of them; worst: the one of them that counts; reason: what
    `reject_reasons` says, with the threshold put in."""

    columns: tuple[str, ...]
    worst: Callable[[list[float]], float]
    reason: str


def _both(name: str) -> tuple[str, ...]:
    return tuple(f"{who}_{name}" for who in PEOPLE)


def _furthest(values: list[float]) -> float:
    return max(map(abs, values))


_RULES = {
    "max_residual_db": _Rule(_both("residual_db"), max, "the other's voice is in the sound (residual over {:g} dB)"),
    "min_valid_share": _Rule(_both("valid_share"), min, "the face was seen in less than {:.0%} of the frames"),
    "max_head_speed_deg_s": _Rule(  # older datasets have the means alone, which are never larger
        (*_both("head_peak_speed_deg_s"), *_both("head_speed_deg_s")), max,
        "the head turns faster than {:g} degrees/s: a tracker's error",
    ),
    "min_head_speed_deg_s": _Rule(
        ("responder_head_speed_deg_s",), max, "the responder's head moves by less than {:g} degrees/s"
    ),
    "min_active_speaker_score": _Rule(
        ("active_speaker_score",), min, "a mouth does not go with its voice (active speaker score under {:g})"
    ),
    "max_sync_lag_ms": _Rule(("sync_lag_ms",), _furthest, "sound and mouth are apart by more than {:g} ms"),
    "max_reprojection_px": _Rule(
        ("reprojection_px",), max, "the fitted head is off by more than {:g} pixels: a tracker's error"
    ),
    "max_overlap_ratio": _Rule(("overlap_ratio",), max, "the turns overlap in more than {:.0%} of the time"),
    "min_reactivity": _Rule(("reactivity",), min, "little reaction is expected (reactivity under {:g})"),
    "min_head_percentile": _Rule(
        ("head_percentile",), min, "the responder's head moves less than {:g} % of the dataset's do"
    ),
}  # fmt: skip

COLUMNS = tuple(dict.fromkeys(column for rule in _RULES.values() for column in rule.columns))
"""What the rules read."""


def reject_reasons(row: Mapping[str, Any], filters: Filters) -> list[str]:
    """Why an exchange is not kept, from its columns `COLUMNS`; [] = it is."""
    found = []
    for name, rule in _RULES.items():
        threshold = getattr(filters, name)
        if threshold is None:
            continue
        values = [value for column in rule.columns for value in _known(row.get(column))]
        if not values:
            continue
        worst, limit = rule.worst(values), float(np.float32(threshold))
        if worst > limit if name.startswith("max_") else worst < limit:
            found.append(rule.reason.format(threshold))
    return found


def _known(value: Any) -> list[float]:
    """Numbers of a cell as they are on the disk, in single precision; infinities are known."""
    values = np.atleast_1d(np.asarray([] if value is None else value, np.float32)).astype(float)
    return [float(x) for x in values if not math.isnan(x)]
