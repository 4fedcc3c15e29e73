"""`diffdyad data describe`: what is in a dataset of exchanges, and do its responders move otherwise than others?"""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffdyad.data.dynamics import AXES, head_dynamics
from diffdyad.data.exchange import SPLITS, Exchange
from diffdyad.data.intake import Shard
from diffdyad.errors import UserError
from diffdyad.evaluation import events
from diffdyad.evaluation.gauge import FaceActions, FaceGauge, arkit_actions
from diffdyad.head import HeadModel
from diffdyad.motion import Motion, MotionLayout
from diffdyad.prosody import PROSODY_CHANNELS
from diffdyad.survey_affect import AFFECT, TITLES, TurnAffect, affect_figures, turn_affect
from diffdyad.survey_contrast import FIGURES, Contrast, by_reactivity, contrast, contrast_lines

_SHORTEST_S = 1.0
_PERCENTILES = (5, 25, 50, 75, 95)
_MOST_AFFECT = 20_000  # exchanges of which means of up to 2,048 channels are kept


@dataclass
class Clip:
    """One exchange, as far as it is counted. rates: figures of the response's motion, before: of the voice in the turn
    before; those not measured are absent. affect: of both turns, by column, of `_MOST_AFFECT` clips of a dataset."""

    people: tuple[str, str]
    split: str
    kind: str
    seconds: float
    gap_s: float
    overlap: float
    head_sd_deg: list[float]
    head_speed_deg_s: list[float]
    rates: dict[str, float]
    valence: float
    arousal: float
    source: str
    keep: bool
    reasons: list[str] = field(default_factory=list)
    has_previous: bool = True
    before: dict[str, float] = field(default_factory=dict)
    reactivity: float = math.nan
    affect: dict[str, TurnAffect] = field(default_factory=dict)


BEFORE = {
    "pitch_semitones": "pitch before, semitones",
    "pitch_sd_semitones": "pitch before, sd, semitones",
    "level_db": "level before, dB",
    "rate_db": "sounds' rate before, dB",
}
"""The voice in the turn before, about the speaker's own running pitch and loudness: channels of `diffdyad.prosody`."""


class Faces:
    """Smiles and brows of motion in any basis. head: a file with a head of the motion's basis; ARKit needs none, and
    without one there are none of FLAME's."""

    def __init__(self, head: str | os.PathLike | None = None):
        self._head = None if head is None else HeadModel.from_file(head)
        self._gauges: dict[MotionLayout, FaceGauge] = {}

    def actions(self, motion: Motion) -> FaceActions | None:
        """None where they cannot be known. Raises UserError for a head of another basis, or of fewer expressions."""
        layout = motion.layout
        if layout.basis == "arkit":
            return arkit_actions(motion)
        if self._head is None:
            return None
        if layout not in self._gauges:
            self._gauges[layout] = FaceGauge(self._head, layout)
        return self._gauges[layout].actions(motion)


def read_clips(folder: str | os.PathLike, progress: bool = False, faces: Faces | None = None) -> list[Clip]:
    """All exchanges of a dataset, without their sound. Raises UserError where there are none, or a shard is damaged."""
    from tqdm.auto import tqdm

    folder = Path(folder)
    paths = [path for split in SPLITS for path in sorted(folder.glob(f"{split}-*-of-*.parquet"))]
    if not paths:
        raise UserError(f"expected parquet shards of exchanges in {folder}, found none")
    bar = tqdm(paths, desc=f"reading {folder.name}", unit="shard", disable=not progress)
    faces, generator = faces or Faces(), np.random.default_rng(0)
    clips: list[Clip] = []
    with_affect: list[Clip] = []
    count = 0
    for exchange in (exchange for path in bar for exchange in Shard(path, audio=False)):
        clips.append(clip := _clip(exchange, faces))
        if not clip.affect:
            continue
        count += 1
        if len(with_affect) < _MOST_AFFECT:
            with_affect.append(clip)
        elif (place := int(generator.integers(count))) < _MOST_AFFECT:  # each is as likely to be kept
            with_affect[place].affect = {}
            with_affect[place] = clip
        else:
            clip.affect = {}
    return clips


def _clip(exchange: Exchange, faces: Faces) -> Clip:
    first = exchange.own_frames("responder").start
    person = exchange.responder
    motion = {group: array[first:] for group, array in person.motion.items() if len(array)}
    valid = person.valid[first:]
    head = head_dynamics(motion, valid, exchange.fps)
    previous, responder = exchange.previous_speaker, exchange.responder_name
    return Clip(
        (previous or responder, responder), exchange.split, exchange.response_kind,
        exchange.end_s - exchange.start_s, exchange.gap_s, exchange.overlap_ratio, head.sd_deg, head.speed_deg_s,
        _rates(exchange, first, motion, head.speed_deg_s, head.sd_deg, faces), exchange.valence, exchange.arousal,
        exchange.source, exchange.keep, exchange.reject_reasons, bool(previous), _before(exchange), exchange.reactivity,
        turn_affect(exchange),
    )  # fmt: skip


def _before(exchange: Exchange) -> dict[str, float]:
    """Means over the voiced frames of the previous turn."""
    voice = exchange.previous.prosody
    if exchange.prosody_encoder != "prosody" or not len(voice):
        return {}
    voice = voice[: max(0, round((exchange.previous_end_s - exchange.start_s) * exchange.fps))]
    channel = dict(zip(PROSODY_CHANNELS, voice[voice[:, PROSODY_CHANNELS.index("voicing")] > 0.5].T))
    if not len(channel["pitch"]):
        return {}
    found = (channel["pitch"].mean(), channel["pitch"].std(), channel["energy"].mean(), channel["spectral_flux"].mean())
    return dict(zip(BEFORE, map(float, found)))


def _rates(
    exchange: Exchange, first: int, motion: dict[str, np.ndarray], speed: list[float], sd: list[float], faces: Faces
) -> dict[str, float]:
    """first: frame from which on the responder is looked at; motion: the groups that were measured, from there on."""
    valid = exchange.responder.valid[first:]
    seconds = len(valid) / exchange.fps
    if seconds < _SHORTEST_S or not valid.any():
        return {}
    found, per_min = {}, 60.0 / seconds
    if "global_orient" in motion:
        pitch = motion["global_orient"][:, 0] + (motion["neck_pose"][:, 0] if "neck_pose" in motion else 0.0)
        found["nods_per_min"] = len(events.nods(_held(pitch, valid), exchange.fps)) * per_min
        found["head_speed_deg_s"] = float(np.linalg.norm(speed)) if speed else math.nan
        found["head_sd_deg"] = float(np.linalg.norm(sd)) if sd else math.nan
    if "expression" in motion and (actions := faces.actions(exchange.motion("responder"))) is not None:
        smile, brow = _held(actions.smile[first:], valid), _held(actions.brow_raise[first:], valid)
        found["smiles_per_min"] = len(events.smiles(smile, exchange.fps)) * per_min
        found["smile_level"] = float(smile.mean())
        found["brow_raises_per_min"] = len(events.brow_raises(brow, exchange.fps)) * per_min
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _held(track: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """A track whose invalid frames are bridged, so that a tracker's loss is no event."""
    frames = np.flatnonzero(valid)
    return np.interp(np.arange(len(track)), frames, track[frames])


# ----------------------------------------------------------------------------------------------------------- describe


def describe(clips: Sequence[Clip]) -> dict[str, Any]:
    """Counts and distributions, as a mapping that JSON takes."""
    gaps = [clip.gap_s for clip in clips if clip.has_previous and clip.kind != "silent"]
    by_split = defaultdict(list)
    for clip in clips:
        by_split[clip.split].append(clip)
    reasons = Counter(reason for clip in clips for reason in clip.reasons)
    summary: dict[str, Any] = {
        "exchanges": len(clips), "hours": sum(clip.seconds for clip in clips) / 3600,
        "people": len({name for clip in clips for name in clip.people}),
        "splits": {split: {"exchanges": len(own), "hours": sum(clip.seconds for clip in own) / 3600,
                           "people": len({name for clip in own for name in clip.people})}
                   for split, own in by_split.items()},
        "kinds": dict(Counter(clip.kind for clip in clips)), "sources": dict(Counter(clip.source for clip in clips)),
        "without_previous_turn": sum(not clip.has_previous for clip in clips),
        "seconds": _percentiles([clip.seconds for clip in clips]), "gap_s": _percentiles(gaps),
        "overlapping": float(np.mean([gap < 0 for gap in gaps])) if gaps else math.nan,
        "kept": sum(clip.keep for clip in clips), "rejected": dict(reasons),
        "head": {}, "figures": {},
    }  # fmt: skip
    for name in ("valence", "arousal"):
        summary[f"previous_{name}"] = _percentiles([getattr(clip, name) for clip in clips])
    summary["previous_voice"] = {
        name: _percentiles([clip.before[name] for clip in clips if name in clip.before]) for name in BEFORE
    }
    summary["affect"] = {name: _affect(clips, name) for name in AFFECT if any(name in clip.affect for clip in clips)}
    for number, axis in enumerate(AXES):
        for what in ("head_sd_deg", "head_speed_deg_s"):
            values = [getattr(clip, what)[number] for clip in clips if getattr(clip, what)]
            summary["head"][f"{axis}_{what.removeprefix('head_')}"] = _percentiles(values)
    for name in FIGURES:
        summary["figures"][name] = _percentiles([clip.rates[name] for clip in clips if name in clip.rates])
    return summary


def _affect(clips: Sequence[Clip], name: str) -> dict[str, Any]:
    known = [clip for clip in clips if name in clip.affect]
    encoders, figures = affect_figures([clip.affect[name] for clip in known], [clip.people for clip in known])
    return {"encoders": encoders, **{figure: _percentiles(values) for figure, values in figures.items()}}


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """count, mean, and percentiles; None where nothing is known."""
    known = np.array([value for value in values if math.isfinite(value)])
    if not len(known):
        return None
    found = {f"p{p}": float(np.percentile(known, p)) for p in _PERCENTILES}
    return {"count": len(known), "mean": float(known.mean()), **found}


def description_lines(summary: dict[str, Any]) -> list[str]:
    lines = [f"{summary['exchanges']} exchanges, {summary['hours']:.2f} h, {summary['people']} people"]
    for split, own in summary["splits"].items():
        lines.append(f"  {split}: {own['exchanges']} exchanges, {own['hours']:.2f} h, {own['people']} people")
    lines.append("responses: " + ", ".join(f"{kind} {count}" for kind, count in sorted(summary["kinds"].items())))
    if summary["rejected"]:
        lines.append(f"kept {summary['kept']}; " + "; ".join(f"{n}: {why}" for why, n in summary["rejected"].items()))
    rows = {"length, s": summary["seconds"], "gap, s": summary["gap_s"], "valence before": summary["previous_valence"],
            "arousal before": summary["previous_arousal"]}  # fmt: skip
    rows |= {BEFORE[name]: values for name, values in summary["previous_voice"].items()}
    for name, own in summary["affect"].items():
        rows |= {title.format(AFFECT[name]): own.get(figure) for figure, title in TITLES.items()}
        encoders = ", ".join(f"{encoder} ({count})" for encoder, count in own["encoders"].items())
        lines.append(f"affect of the {AFFECT[name]} by {encoders}")
    rows |= {f"head {name.replace('_', ' ')}": values for name, values in summary["head"].items()}
    rows |= {FIGURES[name]: values for name, values in summary["figures"].items()}
    width = max(map(len, rows))
    lines.append(f"{'':{width}} " + "".join(f"{name:>9}" for name in ("count", "mean", "5 %", "median", "95 %")))
    for name, values in rows.items():
        if values is not None:
            cells = [f"{values['count']:9d}"] + [f"{values[key]:9.3g}" for key in ("mean", "p5", "p50", "p95")]
            lines.append(f"{name:{width}} " + "".join(cells))
    if math.isfinite(summary["overlapping"]):
        lines.append(f"{summary['overlapping']:.0%} of the answers begin before the previous turn has ended")
    return lines


# ---------------------------------------------------------------------------------------------------------- to a user


def describe_datasets(
    folder: str | os.PathLike, against: str | os.PathLike | None = None, out: str | os.PathLike | None = None,
    progress: bool = False, head: str | os.PathLike | None = None,
) -> list[str]:
    """Lines about a dataset, or about two; with `out`, also describe.json and describe.png in that folder. head: a file
    with a head of the motion's basis, for the smiles and brows of FLAME motion."""
    faces = Faces(head)
    clips = read_clips(folder, progress, faces)
    result: dict[str, Any] = {"dataset": str(folder), **describe(clips)}
    lines = [f"{folder}:", *description_lines(result)]
    other: list[Clip] = []
    found: list[Contrast] = []
    if against is not None:
        other = read_clips(against, progress, faces)
        found = contrast(clips, other)
        result["against"] = {"dataset": str(against), "figures": [asdict(row) for row in found]}
        lines += ["", f"{folder} against {against}, while responding:"]
        names = (Path(folder).name, Path(against).name)
        lines += contrast_lines(found, names)
        result["against"]["by_reactivity"] = {}
        for third, own, others in by_reactivity(clips, other):
            rows = contrast(own, others)
            result["against"]["by_reactivity"][third] = [asdict(row) for row in rows]
            lines += ["", f"the same where {third} movement is expected by the turn before (a third of {names[0]}):"]
            lines += contrast_lines(rows, names)
    if out is not None:
        from diffdyad.staging import staged
        from diffdyad.survey_plot import plot

        with staged(out, ["describe.json", "describe.png"]) as partial:
            text = json.dumps(_finite(result), indent=1)
            (partial / "describe.json").write_text(text + "\n", encoding="utf-8")
            plot(clips, other, (Path(folder).name, Path(against).name if against is not None else ""), found,
                 partial / "describe.png")  # fmt: skip
        lines.append(f"{out}: describe.json, describe.png")
    return lines


def _finite(value: Any) -> Any:
    """NaN as null, which JSON has."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
