"""Scores predictions against the truth: every figure, for the system and its controls, by slice, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from diffdyad.errors import UserError
from diffdyad.evaluation.bootstrap import FEWEST_GROUPS, expanded_tail, jackknife_of, ratio_estimates, resample_weights
from diffdyad.evaluation.clips import Clip, check_clips, check_predictions
from diffdyad.evaluation.figures import POOLED_FIGURES
from diffdyad.evaluation.figures.pooled import Pool, PooledFigure
from diffdyad.evaluation.gauge import FaceGauge
from diffdyad.evaluation.report import Cell, Line, Report
from diffdyad.evaluation.tracks import Undefined
from diffdyad.evaluation.work import FIGURES, ClipResult, ClipWork, ScoreSettings, in_order
from diffdyad.motion import Motion

_NUM_GROUPS = 20  # of people, for the jackknife
_CHUNK = 16  # clips that a worker is given at a time


@dataclass
class Row:
    """Sums of one row over its samples, (phases, figures, clips), why some are undefined, and pools."""

    totals: np.ndarray
    counts: np.ndarray
    undefined: dict[tuple[int, int], list[tuple[int, str]]]  # phase, figure -> clip and reason, once per sample
    pools: dict[tuple[str, str, int], Pool] = field(default_factory=dict)  # by phase, kind and group of people

    @classmethod
    def empty(cls, work: ClipWork) -> Row:
        shape = (len(work.phases), len(FIGURES), len(work.clips))
        return cls(np.zeros(shape), np.zeros(shape), {})

    def reasons(self, place: int, number: int, member: np.ndarray) -> dict[str, int]:
        """Why a figure is undefined, and for how many samples of these clips (C,) bool."""
        found = self.undefined.get((place, number), [])
        return dict(Counter(why for index, why in found if member[index]).most_common())


    def groups(self, part: Slice) -> dict[int, Pool]:
        """The pools of a slice by group of people, those without such frames left out."""
        found: dict[int, Pool] = {}
        for phase, kind, group in sorted(self.pools):
            if phase == part.phase and part.kind in (None, kind):
                pool = self.pools[phase, kind, group]
                found[group] = found[group] + pool if group in found else pool
        return found


@dataclass(frozen=True)
class Slice:
    """Some of the clips, and some of their frames: a phase, a response kind (None: of any), or one within the other."""

    phase: str
    kind: str | None = None

    @property
    def name(self) -> str:
        return ", ".join(([self.kind] if self.kind else []) + ([self.phase] if self.phase != "all" or not self.kind
                                                               else []))  # fmt: skip

    def members(self, clips: Sequence[Clip]) -> np.ndarray:
        """(C,) bool: clips of the kind, of which it is known when they have the phase."""
        return np.array([self.kind in (None, clip.response_kind) and (self.phase == "all" or self.phase in clip.phases)
                         for clip in clips])  # fmt: skip


def _slices(work: ClipWork) -> list[Slice]:
    """All clips, by phase, by response kind, and each of several kinds by phase where it has such frames."""
    kinds = sorted({clip.response_kind for clip in work.clips} - {""})
    result = [Slice(phase) for phase in work.phases] + [Slice("all", kind) for kind in kinds]
    for kind in kinds:
        own = [clip for clip in work.clips if clip.response_kind == kind]
        result += [Slice(phase, kind) for phase in work.phases[1:] if len(own) < len(work.clips) and
                   any(phase in clip.phases and clip.phases[phase].any() for clip in own)]  # fmt: skip
    return result


def score(
    clips: Sequence[Clip],
    predictions: Mapping[str, Sequence[Motion]],
    gauge: FaceGauge | None,
    settings: ScoreSettings | None = None,
    progress: Callable[[int], None] | None = None,
    beside: Sequence[Clip] = (),
) -> Report:
    """The table of predictions (clip id -> its samples), with control rows; `progress` is told how many clips are done.

    gauge: the head of the clips' basis; None leaves out what needs one, and says so; beside: clips that are not scored,
    from which control rows take people's other clips. Raises UserError where the clips
    or predictions do not make sense (see `check_clips`, `check_predictions`). Deterministic for a seed.
    """
    settings = settings or ScoreSettings()
    if settings.system in {control.name for control in settings.controls}:
        raise UserError(f"expected a name for the system that no control row has, found {settings.system!r}")
    units = check_clips(clips, settings.units)
    clips, motions = check_predictions(clips, predictions)
    check_clips(clips, settings.units)
    work = ClipWork(clips, motions, gauge, settings, beside)
    rows = {name: Row.empty(work) for name in work.rows}
    done = 0
    for indices, results, pools in in_order(work, _chunks(units % _NUM_GROUPS)):
        group = int(units[indices[0]]) % _NUM_GROUPS
        for index, result in zip(indices, results):
            _collect(rows, result, index)
        for (row, phase, kind), pool in pools.items():
            kept, key = rows[row].pools, (phase, kind, group)
            kept[key] = kept[key] + pool if key in kept else pool
        done += len(indices)
        if progress:
            progress(done)
    return _report(work, rows, units)


def _chunks(groups: np.ndarray) -> list[list[int]]:
    """Clips to score together, of one group of people each, so that their pools can be summed on the spot.

    The same whatever the number of workers: sums are taken in the same order, to the bit.
    """
    result = []
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group).tolist()
        result += [members[k : k + _CHUNK] for k in range(0, len(members), _CHUNK)]
    return result


def _collect(rows: dict[str, Row], result: ClipResult, index: int) -> None:
    for (row, place, number), (total, count) in result.sums.items():
        rows[row].totals[place, number, index] = total
        rows[row].counts[place, number, index] = count
    for row, place, number, why in result.undefined:
        rows[row].undefined.setdefault((place, number), []).append((index, why))


def _report(work: ClipWork, rows: dict[str, Row], units: np.ndarray) -> Report:
    settings, clips = work.settings, work.clips
    generator = np.random.default_rng([settings.seed, 3])
    weights = resample_weights(units, 1, settings.num_resamples, generator)
    rows_about, slices, cells, truth = dict(work.rows), {}, {}, rows.get("truth")
    if truth:
        rows_about["truth_halves"] = "ground truth of half of the people against the others' (distributions only)"
    for part in _slices(work):
        member = part.members(clips)
        slices[part.name] = int(member.sum())
        for name, row in rows.items():
            found = _clip_cells(work, row, work.phases.index(part.phase), member, units, weights)
            cells |= {(part.name, name, figure): cell for figure, cell in found.items()}
        if truth:
            cells |= _pooled_cells(rows, part, settings.confidence)
    first = clips[0].truth
    facts = {
        "clips": len(clips), "seconds": sum(clip.truth.duration_s for clip in clips),
        "people": len({name for clip in clips for name in clip.people}), "units": len(np.unique(units)),
        "independent": settings.units, "samples": len(work.motions[0]), "basis": first.layout.basis, "fps": first.fps,
        "confidence": settings.confidence, "num_resamples": settings.num_resamples, "seed": settings.seed,
    }  # fmt: skip
    lines = [Line(f.name, f.unit, f.aim, f.about) for f in (*FIGURES, *POOLED_FIGURES)]
    return Report(facts, lines, rows_about, slices, cells, _notes(work, facts))


def _clip_cells(
    work: ClipWork, row: Row, place: int, member: np.ndarray, units: np.ndarray, weights: np.ndarray
) -> dict[str, Cell]:
    totals, counts = ((x[place] * member)[..., None] for x in (row.totals, row.counts))
    num_units = len(np.unique(units[member]))
    confidence = work.settings.confidence
    tail = expanded_tail(num_units, confidence) if num_units > 1 else 0.5
    estimates = np.array(ratio_estimates(totals, counts, weights, tail))
    if num_units < 2:
        estimates[1:] = np.nan
    roots = np.array([figure.root for figure in FIGURES])
    estimates[:, roots] = np.sqrt(np.maximum(estimates[:, roots], 0))
    return {
        figure.name: Cell.of(*estimates[:, number], row.reasons(place, number, member))
        for number, figure in enumerate(FIGURES) if place == 0 or figure.by_phase
    }  # fmt: skip


def _pooled_cells(rows: dict[str, Row], part: Slice, confidence: float) -> dict[tuple[str, str, str], Cell]:
    truth, cells = rows["truth"].groups(part), {}
    truths = _wholes(list(truth.values()))
    for name, row in rows.items():
        own = row.groups(part)
        pairs = list(zip(truths, _wholes([own.get(group, Pool.empty()) for group in truth])))
        for figure in POOLED_FIGURES:
            cells[part.name, name, figure.name] = _pooled_cell(figure, pairs, confidence)
    for figure in POOLED_FIGURES:
        cells[part.name, "truth_halves", figure.name] = _halves_cell(figure, list(truth.values()))
    return cells


def _wholes(groups: list[Pool]) -> list[Pool]:
    """All groups together, and, where there are enough for a jackknife, all but each; nothing of none."""
    if not groups:
        return []
    whole = sum(groups[1:], groups[0])
    return [whole, *(whole - group for group in groups if len(groups) >= FEWEST_GROUPS)]


def _pooled_cell(figure: PooledFigure, pairs: list[tuple[Pool, Pool]], confidence: float) -> Cell:
    """From the truth's and the row's `_wholes`."""

    def without(pair) -> float:
        try:
            return figure.measure(*pair)
        except Undefined:
            return np.nan

    if not pairs:
        return Cell(None, None, None, {"no such frames": 1})
    try:
        plain = figure.measure(*pairs[0])
    except Undefined as undefined:
        return Cell(None, None, None, {str(undefined): 1})
    found = jackknife_of(plain, [without(pair) for pair in pairs[1:]], confidence, (0.0, figure.most))
    return Cell.of(found.value, found.low, found.high)


def _halves_cell(figure: PooledFigure, groups: list[Pool]) -> Cell:
    """What two samples of the truth are apart: no correction, and half of the people on each side."""
    if len(groups) < 2:
        return Cell(None, None, None, {"fewer than two groups of people": 1})
    halves = [sum(groups[first::2], Pool.empty()) for first in (0, 1)]
    try:
        return Cell.of(figure.measure(*halves), np.nan, np.nan)
    except Undefined as undefined:
        return Cell(None, None, None, {str(undefined): 1})


def _notes(work: ClipWork, facts: dict) -> list[str]:
    notes = []
    if facts["units"] < FEWEST_GROUPS:
        notes.append(f"Only {facts['units']} independent units: intervals are wide and rough. Figures of whole "
                     f"distributions (frechet_*, *_entropy_bits) have none below {FEWEST_GROUPS}, nor a correction for "
                     "small samples: such distances are too large, entropies too small.")  # fmt: skip
    if facts["independent"] == "clips":
        notes.append("Clips were taken as independent: intervals are about these people only.")
    if work.gauge is None:
        notes.append("No head in this basis was given: figures in millimetres, smiles, brows and lids are left out.")
    return notes
