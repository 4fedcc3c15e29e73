"""Evaluation from files: a folder of predictions against a folder of the truth, ours or anybody's.

A clip is a .npz or .npy in the truth's folder; its name is its path without the suffix. Predictions have the same
names, or `NAME_s0`, `NAME_s1`, ... for several samples, or lie in a folder NAME as `motion.npz`, `motion_s0.npz`, ...
A sound file of the clip's name beside the truth is its own voice. Who is who says `clips.json` beside the truth, or
DualTalk's file names, or folders (one per person).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from diffdyad.errors import UserError
from diffdyad.evaluation.clips import Clip, check_clips
from diffdyad.evaluation.foreign import SUFFIXES, MotionFile, ReadOptions, read_motion_file
from diffdyad.evaluation.gauge import FaceGauge
from diffdyad.evaluation.report import Report
from diffdyad.evaluation.score import ScoreSettings, score
from diffdyad.evaluation.theirs import check_modes, compare
from diffdyad.evaluation.voice import frame_energy_db, speaking_frames
from diffdyad.head import HeadModel
from diffdyad.media import SAMPLING_RATE, read_audio
from diffdyad.motion import Motion, MotionLayout

CLIPS_FILE = "clips.json"
_SOUNDS = (".wav", ".flac", ".mp3", ".m4a", ".ogg")
_DUALTALK_NAME = re.compile(r"^(?P<talk>.+?)(?P<part>_sub_video_.+)_speaker(?P<side>[12])$")
_SAMPLE = re.compile(r"^(?P<name>.+)_s(?P<number>\d+)$")
_FILES_KEPT = 16
_TEXTS = {"person", "partner", "partner_clip", "audio", "response_kind"}
_KEYS = _TEXTS | {"onset_s", "bilabials_s", "seams_s"}


@dataclass
class _Entry:
    """One clip of `clips.json`, or what its name says.

    onset_s: when the response begins; before it the person listens. Without it, phases come from the voices.
    """

    person: str
    partner: str = ""
    partner_clip: str = ""
    audio: str = ""
    response_kind: str = ""
    onset_s: float | None = None
    bilabials_s: tuple[float, ...] = ()
    seams_s: tuple[float, ...] = ()


def evaluate_files(
    pred_dir: str | os.PathLike,
    truth_dir: str | os.PathLike,
    out_dir: str | os.PathLike | None = None,
    head: str | os.PathLike | None = None,
    pred: ReadOptions | None = None,
    truth: ReadOptions | None = None,
    fps: float | None = None,
    settings: ScoreSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
    compat: Sequence[str] = (),
    compat_vertices: str | os.PathLike | None = None,
) -> Report:
    """Scores the motion files of one folder against those of another; see this module for how they find each other.

    out_dir: where `metrics.json` and `metrics.md` go (None: nowhere). head: a head file in the clips' basis; None =
    the clay head for the ARKit basis, no millimetres for others. pred, truth: how to read each side. fps: resample both
    sides to this rate; None = they must agree. progress: (clips done, clips in all). compat: other projects' figures
    to be added, and compat_vertices their lists of vertices (`diffdyad.evaluation.theirs`).

    Raises UserError, one line, for folders without motion, clips without predictions and the reverse, files that cannot
    be read, and sets that make no sense (`check_clips`, `check_predictions`).
    """
    truth_dir, pred_dir = Path(truth_dir), Path(pred_dir)
    check_modes(compat)
    if compat and fps:
        raise UserError(f"expected no --fps with --compat {' '.join(compat)}, whose figures are of the files' own "
                        f"frames, found {fps:g} Hz: leave one out")  # fmt: skip
    truth_files, pred_files = _motion_files(truth_dir, "--truth"), _motion_files(pred_dir, "--pred")
    entries, described = _entries(truth_dir, truth_files)
    samples = _samples(pred_files, set(truth_files))
    chosen = _choose(entries, samples, truth_dir, pred_dir, described)
    truths = _Truths(truth_dir, truth_files, truth or ReadOptions(), fps, entries)
    settings = settings or ScoreSettings()

    def read(name: str) -> tuple[Clip, list[Motion]]:
        motions = (read_motion_file(path, pred or ReadOptions()).motion for path in samples[name])
        return truths.clip(name, entries[name]), [motion.resample(fps) if fps else motion for motion in motions]

    with ThreadPoolExecutor(settings.workers) as pool:
        loaded = list(pool.map(read, chosen))
    clips = [clip for clip, _ in loaded]
    predictions = {clip.clip_id: motions for clip, motions in loaded}
    model = head_for(clips[0].truth.layout, head)
    gauge = None if model is None else FaceGauge(model, clips[0].truth.layout)
    theirs = []
    if compat:  # first: scoring takes long, and what is lacking shows at once
        check_clips(clips, settings.units)
        theirs = compare(compat, clips, predictions, model, compat_vertices, settings.system, settings.seed)
    report = score(
        clips, predictions, gauge, settings, (lambda done: progress(done, len(clips))) if progress else None
    )
    report.theirs = theirs
    report.facts |= {"pred": str(pred_dir), "truth": str(truth_dir), "head": str(head) if head else
                     ("clay" if gauge else "none")}  # fmt: skip
    if not described and all(not entry.partner for entry in entries.values()):
        report.notes.append(f"No {CLIPS_FILE} beside the truth: every {'folder' if _nested(entries) else 'file'} was "
                            "taken as another person.")  # fmt: skip
    if out_dir is not None:
        report.save(out_dir)
    return report


def _motion_files(folder: Path, flag: str) -> dict[str, Path]:
    """Name -> file, sorted."""
    if not folder.is_dir():
        raise UserError(f"expected a folder of motion files for {flag}, found nothing at {folder}")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in SUFFIXES and path.is_file() and not path.name.startswith("."):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                raise UserError(f"expected one file per clip in {folder}, found {found[name].name} and {path.name}")
            found[name] = path
    if not found:
        raise UserError(f"expected motion files ({', '.join(SUFFIXES)}) in {folder} for {flag}, found none")
    return found


def _entries(folder: Path, files: dict[str, Path]) -> tuple[dict[str, _Entry], bool]:
    """What is known of each clip, and whether a file said it."""
    path = folder / CLIPS_FILE
    if path.exists():
        return _read_entries(path, files), True
    entries = {}
    for name in files:
        match = _DUALTALK_NAME.match(name)
        if match:
            talk, side = match["talk"], int(match["side"])
            other = f"{talk}{match['part']}_speaker{3 - side}"
            entries[name] = _Entry(f"{talk}_speaker{side}", f"{talk}_speaker{3 - side}",
                                   other if other in files else "")  # fmt: skip
        else:
            entries[name] = _Entry(name.rsplit("/", 1)[0])
    return entries, False


def _read_entries(path: Path, files: dict[str, Path]) -> dict[str, _Entry]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"expected JSON in {path}, cannot read it: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise UserError(f"expected {path} to map each clip's name to an object, found something else")
    entries = {}
    for name, value in content.items():
        if name not in files:
            raise UserError(f"expected a motion file for every clip of {path}, found none for {name}")
        if unknown := set(value) - _KEYS:
            raise UserError(f"expected keys among {', '.join(sorted(_KEYS))} for {name} in {path}, found "
                            f"{', '.join(sorted(unknown))}")  # fmt: skip
        if not isinstance(value.get("person"), str) or not value["person"]:
            raise UserError(f"expected the person of {name} in {path}, found {value.get('person')!r}")
        if value.get("partner_clip") and value["partner_clip"] not in files:
            raise UserError(f"expected the partner's clip of {name} beside it, found no {value['partner_clip']}")
        for key in _TEXTS & set(value):
            if not isinstance(value[key], str):
                raise UserError(f"expected text for {key} of {name} in {path}, found {value[key]!r}")
        for key in ("bilabials_s", "seams_s"):
            if key in value:
                if not isinstance(value[key], list):
                    raise UserError(f"expected a list of seconds for {key} of {name} in {path}, found {value[key]!r}")
                value[key] = tuple(_number(x, key, name, path) for x in value[key])
        if value.get("onset_s") is not None:
            value["onset_s"] = _number(value["onset_s"], "onset_s", name, path)
        entries[name] = _Entry(**value)
    if not entries:
        raise UserError(f"expected at least one clip in {path}, found none")
    return entries


def _number(value, key: str, name: str, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise UserError(f"expected finite seconds for {key} of {name} in {path}, found {value!r}")
    return float(value)


def _samples(files: dict[str, Path], names: set[str]) -> dict[str, list[Path]]:
    """Predictions of each clip, in the order of their sample numbers."""
    found: dict[str, dict[int, Path]] = {}
    for name, path in files.items():
        clip, number = name, 0
        if name not in names:
            if match := _SAMPLE.match(name):
                clip, number = match["name"], int(match["number"])
            folder, _, base = clip.rpartition("/")
            if clip not in names and base == "motion" and folder in names:
                clip = folder
        if clip not in names:
            raise UserError(f"expected every prediction to have its truth, found none for {path}; names must agree")
        if number in found.setdefault(clip, {}):
            raise UserError(f"expected one file per sample of {clip}, found {found[clip][number]} and {path}")
        found[clip][number] = path
    return {clip: [paths[number] for number in sorted(paths)] for clip, paths in found.items()}


def _choose(
    entries: dict[str, _Entry], samples: dict[str, list[Path]], truth_dir: Path, pred_dir: Path, described: bool
) -> list[str]:
    """The clips to score: all but those that are there as somebody's partner only."""
    partners = {entry.partner_clip for name, entry in entries.items() if name in samples}
    missing = [name for name in entries if name not in samples and (described or name not in partners)]
    if missing:
        raise UserError(f"expected a prediction in {pred_dir} for every clip of {truth_dir}, found none for "
                        f"{len(missing)} of {len(entries)}: {', '.join(missing[:3])}"
                        f"{', ...' if len(missing) > 3 else ''}")  # fmt: skip
    return [name for name in entries if name in samples]


@dataclass
class _Truths:
    """Reads the truth's clips, partners included."""

    folder: Path
    files: dict[str, Path]
    options: ReadOptions
    fps: float | None
    entries: dict[str, _Entry]

    def __post_init__(self):
        # a file is wanted again as its partner's partner, and those two are mostly neighbours
        self._read = lru_cache(maxsize=_FILES_KEPT)(self._read_file)

    def clip(self, name: str, entry: _Entry) -> Clip:
        own = self._read(name)
        rate, count = own.motion.fps, len(own.motion)
        voice = self._voice(name, own)
        partner = self._read(entry.partner_clip) if entry.partner_clip else None
        if partner and partner.motion.fps != rate:
            raise UserError(f"expected {name} and its partner at one rate, found {rate:g} and "
                            f"{partner.motion.fps:g} Hz: resample them with --fps")  # fmt: skip
        energy = None if voice is None else frame_energy_db(voice, SAMPLING_RATE, rate, count)
        return Clip(
            name, own.motion, entry.person, entry.partner, partner.motion if partner else None, energy,
            self._phases(entry, own, partner, voice), entry.response_kind, np.array(entry.bilabials_s),
            np.array(entry.seams_s),
        )  # fmt: skip

    def _phases(
        self, entry: _Entry, own: MotionFile, partner: MotionFile | None, voice: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """By the onset where it is given, else by the speech masks, else by the voices."""
        rate, count = own.motion.fps, len(own.motion)
        if entry.onset_s is not None:
            before = np.arange(count) / rate < entry.onset_s
            return {"listening": before, "speaking": ~before}
        theirs = self._voice(entry.partner_clip, partner) if partner else None
        own_speaks, partner_speaks = own.speaks, partner.speaks if partner else None
        if voice is not None and (own_speaks is None or (partner_speaks is None and theirs is not None)):
            heard = speaking_frames([v for v in (voice, theirs) if v is not None], rate, count)
            own_speaks = heard[0] if own_speaks is None else own_speaks
            partner_speaks = heard[1] if partner_speaks is None and theirs is not None else partner_speaks
        if own_speaks is None:
            return {}
        speaking = _fit(own_speaks, count)
        if partner_speaks is None:
            return {"speaking": speaking}
        return {"listening": _fit(partner_speaks, count) & ~speaking, "speaking": speaking}

    def _read_file(self, name: str) -> MotionFile:
        found = read_motion_file(self.files[name], self.options)
        if not self.fps or self.fps == found.motion.fps:
            return found
        speaking = found.speaks
        resampled = found.motion.resample(self.fps)
        if speaking is not None:
            nearest = np.arange(len(resampled)) * found.motion.fps / self.fps
            speaking = speaking[np.clip(nearest.round().astype(int), 0, len(speaking) - 1)]
        return replace(found, motion=resampled, speaks=speaking)

    def _voice(self, name: str, found: MotionFile) -> np.ndarray | None:
        """(S,) at 16 kHz: the file that the entry names, what the motion file holds, or a sound of the clip's name."""
        entry = self.entries.get(name)
        if entry and entry.audio:
            return read_audio(self.folder / entry.audio).numpy()
        if found.waveform is not None:
            return found.waveform
        stem = self.files[name].with_suffix("")
        sound = next((p for p in (stem.with_name(stem.name + suffix) for suffix in _SOUNDS) if p.exists()), None)
        return None if sound is None else read_audio(sound).numpy()


def _fit(mask: np.ndarray, count: int) -> np.ndarray:
    """(N,) -> (count,), cut or continued with False."""
    return np.concatenate([mask[:count], np.zeros(max(0, count - len(mask)), bool)])


def head_for(layout: MotionLayout, head: str | os.PathLike | None) -> HeadModel | None:
    """What `--head` names; without it, the clay head for the ARKit basis and none for others."""
    if head is None or str(head) == "clay":
        return None if layout.basis != "arkit" and head is None else HeadModel.clay()
    return HeadModel.from_file(head)


def gauge_for(layout: MotionLayout, head: str | os.PathLike | None) -> FaceGauge | None:
    model = head_for(layout, head)
    return None if model is None else FaceGauge(model, layout)


def _nested(entries: dict[str, _Entry]) -> bool:
    return any("/" in name for name in entries)
