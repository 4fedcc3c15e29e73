"""Other projects' figures on files: what each of their modes needs, what is lacking, and a table of its own.

The definitions are those of `diffdyad.evaluation.compat`; here motion becomes what they take: arrays (T, 56) for
`dualtalk` and `lm_listener`, vertices of a head in FLAME's mesh for `unils` and `codetalker`. Control rows stand beside
the predictions here, too: what a frozen face scores says what a figure is worth.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffdyad.errors import UserError
from diffdyad.evaluation import compat
from diffdyad.evaluation.clips import LENGTH_TOLERANCE, Clip, check_predictions
from diffdyad.evaluation.controls import CONTROLS, Corpus
from diffdyad.evaluation.gauge import JawedFace, metric_vertices
from diffdyad.flame import FLAME_BASES, VERTICES
from diffdyad.head import HeadModel
from diffdyad.motion import Motion

MODES = ("dualtalk", "lm_listener", "unils", "codetalker")
_OF_ARRAYS, _OF_VERTICES = MODES[:2], MODES[2:]
_EXPRESSIONS, _ARRAY_GROUPS, _FACE_GROUPS = 50, ("expression", "jaw_pose", "global_orient"), ("expression", "jaw_pose")
_CLUSTERS = 40  # DualTalk's: as many frames must a clip have
_CONTROLS = ("truth", "frozen", "half_amplitude", "frames_shuffled", "same_person", "other_person")


@dataclass(frozen=True)
class Theirs:
    """One mode's figures by row, the system first; None where their code prints nan."""

    mode: str
    about: str
    rows: dict[str, dict[str, float | None]]

    def table(self) -> list[str]:
        """Lines of Markdown, figures down, rows across."""
        lines = ["| figure | " + " | ".join(self.rows) + " |", "|---|" + "---|" * len(self.rows)]
        for figure in next(iter(self.rows.values())):
            values = [row[figure] for row in self.rows.values()]
            lines.append(f"| {figure} | " + " | ".join("-" if x is None else f"{x:.6g}" for x in values) + " |")
        if any(value is None for row in self.rows.values() for value in row.values()):
            lines += ["", "-: their code prints nan there, as where a channel that it correlates does not move."]
        return lines


@dataclass(frozen=True)
class VertexLists:
    """Their vertex indices, which may hold duplicates; `source` says whose they are."""

    lips: np.ndarray
    upper_face: np.ndarray
    source: str

    @classmethod
    def of_head(cls, head: HeadModel) -> VertexLists:
        sets = metric_vertices(head)
        return cls(sets["lips"].numpy(), sets["upper_face"].numpy(), "our vertex sets, not theirs")

    @classmethod
    def from_file(cls, path: str | os.PathLike, num_vertices: int) -> VertexLists:
        """A .json or .npz with `lip_vertices` and `upper_face_vertices`. Raises UserError where they make no sense."""
        try:
            if Path(path).suffix == ".json":
                content = json.loads(Path(path).read_text(encoding="utf-8"))
            else:
                with np.load(path, allow_pickle=False) as archive:
                    content = {key: archive[key] for key in archive.files}
            lists = [np.asarray(content[f"{name}_vertices"]) for name in ("lip", "upper_face")]
        except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise UserError("expected a .json or .npz with lip_vertices and upper_face_vertices for --compat-vertices, "
                            f"cannot read {path}: {type(error).__name__} {error}") from None  # fmt: skip
        for indices in lists:
            if indices.ndim != 1 or not indices.size or indices.dtype.kind not in "iu" or (
                not 0 <= indices.min() <= indices.max() < num_vertices
            ):
                raise UserError(f"expected lists of vertex numbers from 0 to {num_vertices - 1} in {path}, found "
                                f"{indices.dtype} of shape {indices.shape}"
                                + (f" up to {indices.max()}" if indices.size else ""))  # fmt: skip
        return cls(*lists, f"vertex lists of {path}")


def check_modes(modes: Sequence[str]) -> None:
    for mode in modes:
        if mode not in MODES:
            raise UserError(f"expected --compat to name some of {', '.join(MODES)}, found {mode!r}")


def compare(
    modes: Sequence[str], clips: Sequence[Clip], predictions: Mapping[str, Sequence[Motion]],
    head: HeadModel | None = None, vertices: str | os.PathLike | None = None, system: str = "prediction", seed: int = 0,
) -> list[Theirs]:
    """Each mode's figures of the predictions (clip id -> its samples, each a clip of its own) and of control rows.

    head: for `unils` and `codetalker`; vertices: a file of `VertexLists`, without which ours are taken. Raises
    UserError that says what a mode needs and what is lacking.
    """
    check_modes(modes)
    clips, motions = check_predictions(clips, predictions)
    for mode in modes:
        _check(mode, clips, motions, head)
    corpus, result = Corpus(clips), []
    rows = {system: motions}
    for number, control in enumerate(control for control in CONTROLS if control.name in _CONTROLS):
        made = [control.make(corpus, index, np.random.default_rng([seed, 4, number, index]))
                for index in range(len(clips))]  # fmt: skip
        if all(motion is not None for motion in made):
            rows[control.name] = [[motion] for motion in made]
    for mode in modes:
        measure, about = _of_arrays(mode) if mode in _OF_ARRAYS else _of_vertices(mode, clips[0], head, vertices)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = {name: measure(clips, made) for name, made in rows.items()}
        result.append(Theirs(mode, about, {
            name: {key: float(value) if np.isfinite(value) else None for key, value in figures.items()}
            for name, figures in found.items()
        }))  # fmt: skip
    return result


_Measure = Callable[[list[Clip], list[list[Motion]]], dict[str, float]]


def _of_arrays(mode: str) -> tuple[_Measure, str]:
    def measure(clips: list[Clip], motions: list[list[Motion]]) -> dict[str, float]:
        triples = []
        for clip, own in zip(clips, motions):
            length = min(len(clip), len(clip.partner_motion))
            gt, partner = _array(clip.truth)[:length], _array(clip.partner_motion)[:length]
            triples += [{"gt": gt, "partner": partner, "pred": _array(motion)[:length]} for motion in own]
        return getattr(compat, mode)(triples)

    return measure, "per clip, then the mean over clips; arrays (T, 56) = expression 50, jaw 3, head 3"


def _array(motion: Motion) -> np.ndarray:
    """(T, 56) float32, digits as in the file: k-means may follow the last one."""
    return np.hstack([motion.select(group).numpy() for group in _ARRAY_GROUPS])


def _of_vertices(mode: str, clip: Clip, head: HeadModel, vertices: str | os.PathLike | None) -> tuple[_Measure, str]:
    lists = VertexLists.from_file(vertices, head.num_vertices) if vertices else VertexLists.of_head(head)
    face = JawedFace(head, clip.truth.layout)

    def pairs(clips: list[Clip], motions: list[list[Motion]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for clip, own in zip(clips, motions):
            truth = face(clip.truth).numpy()
            for motion in own:
                yield truth, face(motion).numpy()

    def measure(clips: list[Clip], motions: list[list[Motion]]) -> dict[str, float]:
        if mode == "codetalker":
            return compat.codetalker(pairs(clips, motions), head.template.numpy(), lists.lips, lists.upper_face)
        shortest = min(len(clip) for clip in clips)
        return compat.unils(pairs(clips, motions), lists.lips, lists.upper_face, shortest)

    unit = "squared metres" if mode == "codetalker" else "mm; all clips cut to the shortest"
    return measure, (f"{unit}; mean identity, the head still (expression, eyelids and jaw alone); {lists.source} "
                     f"({len(lists.lips)} of the lips, {len(lists.upper_face)} of the upper face)")  # fmt: skip


def _check(mode: str, clips: Sequence[Clip], motions: Sequence[Sequence[Motion]], head: HeadModel | None) -> None:
    layout, groups = clips[0].truth.layout, _FACE_GROUPS
    if layout.basis not in FLAME_BASES:
        raise UserError(f"expected FLAME motion for --compat {mode}, found basis {layout.basis}: leave it out")
    if mode in _OF_VERTICES:
        if head is None:
            raise UserError(f"expected a head with expressions for --compat {mode}, whose figures are of vertices, "
                            "found none; give --head FILE")  # fmt: skip
        if head.num_vertices != VERTICES:
            raise UserError(f"expected a head of FLAME's {VERTICES} vertices for --compat {mode}, found "
                            f"{head.num_vertices}; give --head a FLAME file")  # fmt: skip
    else:
        groups = _ARRAY_GROUPS
        if layout.num_expression != _EXPRESSIONS:
            raise UserError(f"expected {_EXPRESSIONS} expressions, as DualTalk's files have, for --compat {mode}, "
                            f"found {layout.num_expression}: leave it out, part of a longer code is another code")
        for clip in clips:
            _check_partner(mode, clip)
    for clip, own in zip(clips, motions):
        partner = [clip.partner_motion] if mode in _OF_ARRAYS else []
        names = ["the truth", *["a prediction"] * len(own), "the partner"]
        for what, motion in zip(names, [clip.truth, *own, *partner]):
            missing = [group for group in groups if not motion.valid[:, layout.groups.index(group)].all()]
            if missing:
                raise UserError(f"expected {' and '.join(missing)} in every frame for --compat {mode}, found frames "
                                f"without in {what} of {clip.clip_id}")  # fmt: skip


def _check_partner(mode: str, clip: Clip) -> None:
    partner = clip.partner_motion
    if partner is None:
        raise UserError(f"expected the partner's motion of every clip for --compat {mode}, found none for "
                        f"{clip.clip_id}; name it with partner_clip in clips.json beside the truth")  # fmt: skip
    if partner.layout != clip.truth.layout:
        raise UserError(f"expected the partner of {clip.clip_id} in the truth's layout for --compat {mode}, found "
                        f"basis {partner.layout.basis} with {partner.layout.num_expression} expressions")  # fmt: skip
    if abs(len(partner) - len(clip)) > LENGTH_TOLERANCE:
        raise UserError(f"expected the partner of {clip.clip_id} as long as the truth's {len(clip)} frames for "
                        f"--compat {mode}, found {len(partner)}: cut both to what they share")  # fmt: skip
    if mode == "dualtalk" and len(clip) < _CLUSTERS:
        raise UserError(f"expected clips of at least {_CLUSTERS} frames for --compat dualtalk, which fits so many "
                        f"clusters to each, found {len(clip)} in {clip.clip_id}")  # fmt: skip
