"""Results of trackers, read instead of tracking again: SMIRK, EMICA, VHAP and DECA as .npz, EMICA's and VHAP's folders
of a file or more per picture, and our own motion.npz.

Each is FLAME's, in a basis of its own, and keeps it. No file states its rate: the manifest does, or else the video has
the pictures that were tracked. Widths are checked, and no pickle is executed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from diffdyad.data.importers import checks
from diffdyad.data.importers.flame import flame_motion
from diffdyad.errors import UserError
from diffdyad.motion import ARKIT_EXPRESSIONS, Motion, MotionLayout, load_motion


@dataclass(frozen=True)
class Part:
    """Where a channel group lies in a file: columns `start` to `stop` of the array `key`, which has `width`. also: its
    names in other files of the same tracker."""

    key: str
    width: int
    start: int = 0
    stop: int | None = None
    also: tuple[str, ...] = ()

    def find(self, arrays: dict[str, np.ndarray]) -> str:
        """Its name in a file; the first of its names where there is none."""
        return next((name for name in (self.key, *self.also) if name in arrays), self.key)


@dataclass(frozen=True)
class TrackerFormat:
    """title: for the records; basis: of its expressions; bases: others that they can be of; groups: where each channel
    group is; betas: where identity is, constant or per frame (averaged); neck_folded: the neck's rotation is in
    global_orient; frames: what a folder of results holds, "npy" = a folder per picture with an array per file,
    "npz" = a file per picture."""

    title: str
    basis: str
    num_expression: int
    groups: dict[str, Part]
    betas: Part
    neck_folded: bool = True
    eyelids: bool = False
    bases: tuple[str, ...] = ()
    frames: str = ""


FORMATS = {
    # the encoder's outputs, a row per picture (Retsinas et al., CVPR 2024)
    "smirk": TrackerFormat("SMIRK", "flame2020", 50, {
        "expression": Part("expression_params", 50), "eyelids": Part("eyelid_params", 2),
        "global_orient": Part("pose_params", 3), "jaw_pose": Part("jaw_params", 3),
    }, Part("shape_params", 300), eyelids=True),
    # the codes of INFERNO's EMICA (Danecek et al.): those of its demos' folders, of its videos' HDF5 files, and the
    # names that they have inside
    "emica": TrackerFormat("EMICA", "flame2020", 100, {
        "expression": Part("exp", 100, also=("expcode",)),
        "global_orient": Part("globalpose", 3, also=("global_pose",)), "jaw_pose": Part("jawpose", 3, also=("jaw",)),
    }, Part("shape", 300, also=("shapecode",)), frames="npy"),
    # tracked_flame_params_*.npz, and flame_param/*.npz of its export (Qian 2024); FLAME 2023 unless it was set up with
    # another
    "vhap": TrackerFormat("VHAP", "flame2023", 100, {
        "expression": Part("expr", 100), "global_orient": Part("rotation", 3), "neck_pose": Part("neck_pose", 3),
        "jaw_pose": Part("jaw_pose", 3),
        "leye_pose": Part("eyes_pose", 6, 0, 3), "reye_pose": Part("eyes_pose", 6, 3, 6),
    }, Part("shape", 300), neck_folded=False, bases=("flame2020", "flame2023-open"), frames="npz"),
    # as DualTalk publishes it (Feng et al., SIGGRAPH 2021)
    "deca": TrackerFormat("DECA", "flame2020", 50, {
        "expression": Part("exp", 50), "global_orient": Part("pose", 6, 0, 3), "jaw_pose": Part("pose", 6, 3, 6),
    }, Part("shape", 100)),
    "motion": TrackerFormat("motion.npz", "arkit", len(ARKIT_EXPRESSIONS), {}, Part("betas", 0), neck_folded=False),
}  # fmt: skip
"""Names for `backends: {motion: NAME}`."""


def basis_of(name: str, basis: str | None = None) -> str:
    """Of a tracker's expressions; basis: another than the usual. Raises UserError where it cannot be of that."""
    form = FORMATS[name]
    if basis not in (None, form.basis, *form.bases):
        can = ", ".join((form.basis, *form.bases))
        raise UserError(f"expected motion_basis among {can} for `motion: {name}`, found {basis!r}")
    return basis or form.basis


def read_tracked(
    path: Path, name: str, fps: float, seconds: float | None = None, basis: str | None = None
) -> Motion:
    """A tracker's result, with betas where it has some. fps: of the pictures that were tracked (a motion.npz states its
    own); seconds: of the recording, against which the number of frames is checked; basis: as of `basis_of`.

    Raises UserError that names the file, what was expected and what was found.
    """
    form = FORMATS[name]
    if name == "motion":
        motion = load_motion(checks.require(path))
        if motion.layout.basis != form.basis:
            raise UserError(f"expected motion in basis {form.basis} in {path}, found {motion.layout.basis}")
    else:
        arrays = _read_frames(path, name) if form.frames and path.is_dir() else checks.read_npz(path)
        motion = _read_flame(arrays, path, form, fps, basis_of(name, basis))
    if seconds is not None:
        checks.check_rate(len(motion), motion.fps, seconds, path)
    return motion


def _read_flame(
    arrays: dict[str, np.ndarray], path: Path, form: TrackerFormat, fps: float, basis: str
) -> Motion:
    # some write one video as a batch of one
    arrays = {key: array[0] if array.ndim == 3 and len(array) == 1 else array for key, array in arrays.items()}
    parts, count = {}, None
    for group, part in form.groups.items():
        values = checks.array_of(arrays, part.find(arrays), (count, part.width), path)
        count = len(values)
        parts[group] = values[:, part.start : part.stop]
    expression, lids = parts.pop("expression"), parts.pop("eyelids", None)
    motion = flame_motion(basis, fps, expression, **parts)
    if lids is not None:
        motion = _with_eyelids(motion, lids)
    key, width = form.betas.find(arrays), form.betas.width
    if key in arrays:
        betas = checks.array_of(arrays, key, (width,) if arrays[key].ndim == 1 else (None, width), path)
        motion.betas = torch.from_numpy(betas if betas.ndim == 1 else betas.mean(0))
    motion.neck_folded = form.neck_folded
    return motion


def frame_files(path: Path, name: str) -> list[Path]:
    """The files of a folder of results, in order of their pictures' names; none where the tracker leaves no folders."""
    form = FORMATS.get(name)
    if form is None or not form.frames:
        return []
    if form.frames == "npz":
        return sorted(path.glob("*.npz"))
    frames = sorted(file.parent for file in path.glob(f"*/{form.groups['expression'].key}.npy"))
    files = [frame / f"{key}.npy" for frame in frames for key in _names(form)]
    return [file for file in files if file.is_file()]


def _names(form: TrackerFormat) -> list[str]:
    parts = {part.key: part for part in (*form.groups.values(), form.betas)}
    return [name for part in parts.values() for name in (part.key, *part.also)]


def _read_frames(path: Path, name: str) -> dict[str, np.ndarray]:
    """A folder's arrays, a row per picture, as an .npz would hold them."""
    form, rows, frames = FORMATS[name], {}, set()
    for file in frame_files(path, name):
        single = form.frames == "npy"
        frames.add(file.parent if single else file)
        for key, array in ({file.stem: checks.read_npy(file)} if single else checks.read_npz(file)).items():
            if key in _names(form):
                rows.setdefault(key, []).append(np.asarray(array).reshape(-1))
    if not frames:
        what = "a folder of .npy files" if form.frames == "npy" else "an .npz"
        raise UserError(f"expected {what} per picture, as {form.title} writes them, found none in {path}")
    for key, found in rows.items():
        widths = sorted({len(row) for row in found})
        if len(found) != len(frames) or len(widths) > 1:
            raise UserError(f"expected {key!r} of one width for each of {len(frames)} pictures in {path}, found "
                            f"{len(found)} of width {', '.join(map(str, widths))}")  # fmt: skip
    return {key: np.stack(found) for key, found in rows.items()}


def _with_eyelids(motion: Motion, lids: np.ndarray) -> Motion:  # (T, 2)
    layout = MotionLayout(motion.layout.basis, motion.layout.num_expression, True)
    values, at = motion.values, motion.layout.num_expression
    values = torch.cat([values[:, :at], torch.from_numpy(lids), values[:, at:]], -1)
    valid = torch.cat([motion.valid[:, :1], torch.ones(len(values), 1, dtype=torch.bool), motion.valid[:, 1:]], -1)
    return Motion(values, layout, motion.fps, valid=valid)
