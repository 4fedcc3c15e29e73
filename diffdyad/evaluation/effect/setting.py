"""What a run of the protocol is about: what was asked for, who does the work, and the exchanges that are judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffdyad.errors import UserError
from diffdyad.evaluation.effect.conditions import Conditions
from diffdyad.evaluation.effect.inference import FEWEST_UNITS
from diffdyad.evaluation.effect.reading import Item, Reading, read_items, usable
from diffdyad.evaluation.effect.swaps import Swaps, find_swaps
from diffdyad.motion import MotionLayout
from diffdyad.pipeline import DyadPipeline

ANSWERED = 32
"""Exchanges that are answered under TRUE, NULL and SWAP-near, at --budget 1."""


@dataclass(frozen=True)
class ProtocolSettings:
    """What `diffdyad context` can be asked for; see its --help."""

    dataset: str
    cache: Path
    split: str = "test"
    smallest_effect: float = 0.01
    lips_margin_mm: float = 0.3
    answer_s: float = 4.0
    limit_pairs: int | None = None
    budget: float = 1.0
    critic_pairs: int = 4000
    seed: int = 0
    workers: int = 1
    verdict_only: bool = False


@dataclass(frozen=True)
class Crew:
    """Who does the work. share: (k, n) of this process; wait: until all are here; bar: label -> progress(done, all)."""

    share: tuple[int, int] = (0, 1)
    wait: Callable[[], None] = lambda: None
    bar: Callable[[str], Callable[[int, int], None]] = lambda label: lambda done, total: None


@dataclass
class Setting:
    """What the run is about: exchanges with their units and swaps, and those that are answered."""

    items: list[Item]
    swaps: Swaps
    conditions: Conditions
    chosen: list[int]

    @property
    def units(self) -> np.ndarray:
        return np.array([item.unit for item in self.items])

    @property
    def num_units(self) -> int:
        return len(np.unique(self.units))


def prepare(pipeline: DyadPipeline, settings: ProtocolSettings, crew: Crew) -> Setting:
    """Reads the dataset and finds the swaps. Raises UserError where there are too few independent people."""
    if crew.share[0] == 0:
        _read(pipeline, settings, crew)
    crew.wait()
    items = first_pairs(_read(pipeline, settings, crew), settings.limit_pairs)
    units = sorted({item.unit for item in items})
    if len(units) < FEWEST_UNITS:
        raise UserError(
            f"expected at least {FEWEST_UNITS} independent pairs of people in the split {settings.split} of "
            f"{settings.dataset}, found {len(units)} ({len(items)} exchanges): nothing could be concluded about "
            "others; add people, or see `diffdyad context DATASET --power`"
        )
    check_faces(items, pipeline.layout, f"the split {settings.split} of {settings.dataset}")
    swaps = find_swaps(items, np.random.default_rng([settings.seed, 1]))
    if (swaps.near >= 0).mean() < 0.5:
        raise UserError(
            f"expected another turn of the same speaker in the same session for most exchanges, found it for "
            f"{int((swaps.near >= 0).sum())} of {len(items)}: sessions of one exchange cannot be judged"
        )
    conditions = Conditions(pipeline.context_encoder, items, swaps, settings.seed)
    return Setting(items, swaps, conditions, choose(items, swaps, round(ANSWERED * settings.budget), pipeline.fps))


def _read(pipeline: DyadPipeline, settings: ProtocolSettings, crew: Crew) -> list[Item]:
    items = read_items(
        settings.dataset, settings.split, settings.cache, Reading.of(pipeline), settings.workers,
        progress=crew.bar("reading"),
    )  # fmt: skip
    return usable(items, pipeline.fps)


def check_faces(items: Sequence[Item], layout: MotionLayout, where: str) -> None:
    """Raises UserError where no expression channel differs between the known frames of the answers."""
    span = layout.slices["expression"]
    known = [item.features.motion[:, span][item.features.valid[:, 0]] for item in items]
    if not any(bool((values != known[0][:1]).any()) for values in known):
        raise UserError(f"expected answers whose expression changes, found the same face in all {len(items)} of "
                        f"{where}: no context can be told from it; was it tracked?")  # fmt: skip


def first_pairs(items: list[Item], most: int | None) -> list[Item]:
    """The exchanges of at most so many independent units."""
    kept = sorted({item.unit for item in items})[:most]
    return [item for item in items if item.unit in set(kept)]


def choose(items: Sequence[Item], swaps: Swaps, count: int, fps: float) -> list[int]:
    """Exchanges to answer, one of each unit in turn, those that have a near swap and the longest answers first."""
    by_unit: dict[int, list[int]] = {}
    for index, item in enumerate(items):
        if swaps.near[index] >= 0:
            by_unit.setdefault(item.unit, []).append(index)
    for members in by_unit.values():
        members.sort(key=lambda index: -min(len(items[index].features.motion) - items[index].onset(fps), 4 * fps))
    rounds = max(map(len, by_unit.values()))
    order = [members[k] for k in range(rounds) for members in by_unit.values() if k < len(members)]
    return order[:count]
