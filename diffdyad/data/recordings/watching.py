"""What is seen of two people: their motion, from their videos by steps of their own, or as a tracker has left it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from diffdyad.data.recordings import trackers
from diffdyad.data.recordings.face_affect import FaceFeatures, face_affect
from diffdyad.data.recordings.frames import Span
from diffdyad.data.recordings.manifest import Backends, Manifest, Session
from diffdyad.data.recordings.steps import StepResult, Steps, file_hash
from diffdyad.errors import UserError
from diffdyad.head import HeadModel
from diffdyad.motion import Motion, MotionLayout
from diffdyad.tracking.fit import NAME
from diffdyad.tracking.landmarker import NUM_LANDMARKS, Landmarker
from diffdyad.tracking.priors import FitSettings
from diffdyad.tracking.shots import Shots
from diffdyad.tracking.watch import LONGEST_SIDE, Watch, fit_track
from diffdyad.video import has_video, read_frames, video_info

FPS = 25.0
PREVIEW = "preview"
MOTION = ("none", PREVIEW, *trackers.FORMATS)
"""Backends of `motion`: none, MediaPipe's landmarks with our own fit, or the results of a tracker."""

_FIT_VERSION = _SHOTS_VERSION = "1"
_STEPS_A_PIXEL = 8  # landmarks lie on the disk in eighths of a pixel
_ABSENT = np.iinfo(np.int16).min


@dataclass
class Seen:
    """motion: of both people on the recording's clock, None = none; error_px: (T,) of each at 25 fps, (0,) = not known;
    cuts_s: where a video goes over to another shot; faces: affect of both people's faces, None = not looked for."""

    motion: list[Motion | None] = field(default_factory=lambda: [None, None])
    error_px: list[np.ndarray] = field(default_factory=lambda: [np.zeros(0)] * 2)
    cuts_s: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faces: list[FaceFeatures | None] = field(default_factory=lambda: [None, None])


@dataclass(frozen=True)
class Kind:
    """What all motion of a manifest has in common."""

    basis: str
    num_expression: int
    tracker: str
    neck_folded: bool


def kind_of(backends: Backends) -> Kind:
    """Of the manifest's backend of motion. Raises UserError for one that is not known."""
    if backends.motion not in MOTION:
        raise UserError(f"expected a backend for motion among {', '.join(MOTION)}, found {backends.motion!r}")
    if backends.motion in trackers.FORMATS:
        form = trackers.FORMATS[backends.motion]
        basis = trackers.basis_of(backends.motion, backends.motion_basis)
        return Kind(basis, form.num_expression, form.title, form.neck_folded)
    if backends.motion_basis:
        raise UserError(f"motion_basis is for results of a tracker, found `motion: {backends.motion}`")
    layout = MotionLayout.arkit()
    tracker = "" if backends.motion == "none" else f"{NAME} (MediaPipe)"
    return Kind(layout.basis, layout.num_expression, tracker, backends.motion == PREVIEW)


def check_motion(manifest: Manifest) -> None:
    """Raises UserError where the backend of motion is not known, cannot run, or lacks its files."""
    kind_of(manifest.backends)
    name = manifest.backends.motion
    if name == PREVIEW or manifest.backends.face_affect != "none":
        _version(_landmarker(manifest.backends))
    for session in manifest.sessions:
        if session.motion and name not in trackers.FORMATS:
            known = ", ".join(trackers.FORMATS)
            wanted = f"expected backends.motion among {known}, found {name!r}"
            raise UserError(f"session {session.name} has files of motion: {wanted}")


def see(
    files: Sequence[Path], motion_files: Sequence[Path], session: Session, backends: Backends, steps: Steps,
    spans: Sequence[Sequence[Span]], seconds: float, layout: str, face_weights: str | None = None,
) -> Seen:
    """files: as of `hear`; layout: as it was heard; spans: when each speaks, which tells whose face is whose where one
    microphone does not; face_weights: of the encoder of faces' affect, None = none is asked for.

    Raises UserError for what cannot be read.
    """
    late = session.offsets_s or [0.0] * len(files)
    if backends.motion == PREVIEW:
        seen = _preview(files, backends, steps, late, seconds, face_weights)
        if layout == "mixed" and all(seen.motion) and _are_crossed(seen.motion, spans):
            for both in (seen.motion, seen.error_px, seen.faces):
                both.reverse()
            seen.notes.append("the one on the right speaks first: faces follow their voices")
        return seen
    ready = backends.motion in trackers.FORMATS
    seen = _read(files, motion_files, session, backends, late, seconds) if ready else Seen()
    for number, path in enumerate(files):
        if not has_video(path):
            continue
        seen.cuts_s += [frame / FPS + late[number] for frame in _cuts(path, steps, seen)]
        if face_weights and layout == "mixed":
            seen.notes.append("no face_affect: whose face is whose is known with `motion: preview`, `layout: channels` "
                              "or a file per person")  # fmt: skip
        elif face_weights:
            faces = _faces(path, 3 - len(files), backends, steps)
            for side, features in enumerate(_affect_of(path, faces, backends, steps, face_weights)):
                seen.faces[number + side] = FaceFeatures(features, late[number])
    return seen


def reprojection_px(seen: Seen, start_s: float, end_s: float) -> float:
    """The larger of both people's median errors in that time; NaN where none is known."""
    part = slice(max(0, round(start_s * FPS)), max(0, round(end_s * FPS)))
    known = [error[part][np.isfinite(error[part])] for error in seen.error_px]
    return max((float(np.median(error)) for error in known if len(error)), default=float("nan"))


# ------------------------------------------------------------------------------------------------------------ tracking


def _landmarker(backends: Backends) -> Landmarker:
    return Landmarker.find(backends.mediapipe_python, backends.mediapipe_model)


@lru_cache
def _version(landmarker: Landmarker) -> str:
    return landmarker.version()


@lru_cache(maxsize=1)
def _clay() -> HeadModel:
    return HeadModel.clay()


def _preview(
    files: Sequence[Path], backends: Backends, steps: Steps, late: Sequence[float], seconds: float,
    face_weights: str | None,
) -> Seen:
    """Of a file per person, or of a split screen: left and right."""
    seen, people = Seen(), 2 if len(files) == 1 else 1
    for number, path in enumerate(files):
        if not has_video(path):
            seen.notes.append(f"no pictures in {path.name}: no motion of {'both' if people == 2 else 'this person'}")
            continue
        faces = _faces(path, people, backends, steps)
        seen.cuts_s += [frame / FPS + late[number] for frame in faces.step.values["cuts"]]
        for side, (motion, error) in enumerate(_track(faces, people, steps)):
            if motion is None:
                where = f", {('left', 'right')[side]}" if people == 2 else ""
                seen.notes.append(f"no face found in {path.name}{where}")
                continue
            side = side if people == 2 else number
            seen.motion[side], seen.error_px[side] = _on_clock(motion, error, late[number], seconds)
        if face_weights:
            for side, features in enumerate(_affect_of(path, faces, backends, steps, face_weights)):
                seen.faces[number + side] = FaceFeatures(features, late[number])
    return seen


@dataclass(frozen=True)
class _Faces:
    """stored: (frames, people, 478, 3) on the disk."""

    step: StepResult
    stored: np.ndarray


def _faces(path: Path, people: int, backends: Backends, steps: Steps) -> _Faces:
    """Landmarks of each person of a file, and the frames that begin a shot (`cuts` of the step)."""
    landmarker = _landmarker(backends)

    def find(folder: Path) -> dict:
        watch = Watch(path, landmarker, FPS, people)
        count = 0
        with (folder / "landmarks.bin").open("wb") as file:
            for faces in watch:
                fixed = np.rint(np.nan_to_num(faces * _STEPS_A_PIXEL, nan=_ABSENT))
                np.clip(fixed, _ABSENT, -_ABSENT - 1).astype("<i2").tofile(file)
                count += 1
        return {"frames": count, "size": list(watch.size), "cuts": watch.cuts}

    settings = {"fps": FPS, "people": people, "longest_side": LONGEST_SIDE, "model": Path(landmarker.model).name}
    if landmarker.model:
        settings["model_hash"] = file_hash(Path(landmarker.model))
    found = steps.run("faces", "mediapipe", _version(landmarker), settings, [file_hash(path)], find)
    shape = (found.values["frames"], people, NUM_LANDMARKS, 3)
    return _Faces(found, np.memmap(found.folder / "landmarks.bin", "<i2", "r", shape=shape))


def _cuts(path: Path, steps: Steps, seen: Seen) -> list[int]:
    """The frames that begin a shot, of a file whose faces are not looked for: the same as `_faces` finds."""

    def find(_) -> dict:
        shots = Shots()
        for frame in read_frames(path, FPS, video_info(path).fitted(LONGEST_SIDE)):
            shots.add(frame)
        return {"cuts": shots.cuts()}

    try:
        settings = {"fps": FPS, "longest_side": LONGEST_SIDE}
        return steps.run("shots", "colours", _SHOTS_VERSION, settings, [file_hash(path)], find).values["cuts"]
    except UserError as error:  # its sound can be heard: no reason to do without
        seen.notes.append(f"cuts are not known: {error}")
        return []


def _affect_of(path: Path, faces: _Faces, backends: Backends, steps: Steps, weights: str) -> list[np.ndarray]:
    people = faces.stored.shape[1]
    landmarks = _Landmarks(faces.stored, slice(0, people))
    return face_affect(path, landmarks, tuple(faces.step.values["size"]), FPS, steps, faces.step, weights,
                       backends.face_affect_revision)  # fmt: skip


def _track(faces: _Faces, people: int, steps: Steps) -> list[tuple]:
    """(motion, error) of each person of a file."""
    found, stored = faces.step, faces.stored

    def fit(folder: Path) -> dict:
        for side in range(people):
            track = fit_track(_clay(), _Landmarks(stored, side), FPS, tuple(found.values["size"]), found.values["cuts"])
            if track is not None:
                motion = track.motion
                np.savez(folder / f"motion{side}.npz", values=motion.values.numpy(), valid=motion.valid.numpy(),
                         betas=motion.betas.numpy(), error_px=track.error_px.numpy())  # fmt: skip
        return {}

    about = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(FitSettings()).items()}
    fitted = steps.run("motion", NAME, _FIT_VERSION, about, [found.key], fit)
    tracks = []
    for side in range(people):
        file = fitted.folder / f"motion{side}.npz"
        if not file.is_file():
            tracks.append((None, None))
            continue
        with np.load(file) as arrays:
            values, betas, valid = (torch.from_numpy(arrays[name]) for name in ("values", "betas", "valid"))
            tracks.append((Motion(values, MotionLayout.arkit(), FPS, betas, valid, True), arrays["error_px"]))
    return tracks


class _Landmarks:
    """One person's landmarks on the disk, (T, 478, 3) pixels; slices and selections of frames are arrays. side: a
    number, or a slice for all: (T, people, 478, 3)."""

    def __init__(self, stored: np.ndarray, side: int | slice):
        self.stored, self.side = stored, side

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, frames) -> np.ndarray:
        fixed = self.stored[frames, self.side]
        return np.where(fixed == _ABSENT, np.nan, fixed.astype(np.float32) / _STEPS_A_PIXEL).astype(np.float32)


def _on_clock(motion: Motion, error: np.ndarray, late_s: float, seconds: float) -> tuple[Motion, np.ndarray]:
    """Motion of a file whose clock is late, from 0 s to the recording's end; what is not seen is not valid."""
    wanted, late = int(seconds * motion.fps + 1e-6), round(late_s * motion.fps)
    source = torch.arange(wanted) - late
    there = (source >= 0) & (source < len(motion))
    source = source.clamp(0, max(len(motion) - 1, 0))
    values, valid = motion.values[source] * there[:, None], motion.valid[source] & there[:, None]
    kept = np.where(there.numpy(), error[source.numpy()] if len(error) else np.nan, np.nan)
    return replace(motion, values=values, valid=valid), kept


def _are_crossed(motion: Sequence[Motion], spans: Sequence[Sequence[Span]]) -> bool:
    """Whether jaws move more while the other one speaks."""
    own = other = 0.0
    for side, person in enumerate(motion):
        speed = (person.select("jaw_pose")[1:, 0] - person.select("jaw_pose")[:-1, 0]).abs().numpy()
        speed = speed * (person.valid[1:, 0] & person.valid[:-1, 0]).numpy()
        speed = speed / max(speed.mean(), 1e-9)
        for who, mine in enumerate(spans[:2]):
            total = sum(float(speed[round(a * person.fps) : round(b * person.fps)].sum()) for a, b in mine)
            length = max(sum(b - a for a, b in mine), 1e-9)
            own, other = (own + total / length, other) if who == side else (own, other + total / length)
    return other > own


# ------------------------------------------------------------------------------------------------------- ready results


def _read(
    files: Sequence[Path], motion_files: Sequence[Path], session: Session, backends: Backends, late: Sequence[float],
    seconds: float,
) -> Seen:
    seen, name = Seen(), backends.motion
    if not motion_files:
        seen.notes.append(f"no files of motion: expected those of {trackers.FORMATS[name].title}")
    for side, path in enumerate(motion_files):
        source, shift = files[min(side, len(files) - 1)], late[min(side, len(files) - 1)]
        fps = session.motion_fps or (video_info(source).fps if has_video(source) else 0.0)
        if not fps and name != "motion":
            raise UserError(f"{path} does not state its rate and {source.name} has no pictures: expected motion_fps in "
                            "the manifest's session, found none")  # fmt: skip
        motion = trackers.read_tracked(path, name, fps, seconds - shift, backends.motion_basis).resample(FPS)
        seen.motion[side], _ = _on_clock(motion, np.zeros(0), shift, seconds)
    return seen
