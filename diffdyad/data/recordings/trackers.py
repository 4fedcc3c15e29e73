"""Results of trackers, read instead of tracking again: SMIRK, EMICA, VHAP and DECA as .npz, and our own motion.npz.

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
    """Where a channel group lies in a file: columns `start` to `stop` of the array `key`, which has `width`."""

    key: str
    width: int
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class TrackerFormat:
    """title: for the records; basis: of its expressions; groups: where each channel group is; betas: where identity is,
    constant or per frame (averaged); neck_folded: the neck's rotation is in global_orient."""

    title: str
    basis: str
    num_expression: int
    groups: dict[str, Part]
    betas: Part
    neck_folded: bool = True
    eyelids: bool = False


FORMATS = {
    # the encoder's outputs, a row per picture (Retsinas et al., CVPR 2024)
    "smirk": TrackerFormat("SMIRK", "flame2020", 50, {
        "expression": Part("expression_params", 50), "eyelids": Part("eyelid_params", 2),
        "global_orient": Part("pose_params", 3), "jaw_pose": Part("jaw_params", 3),
    }, Part("shape_params", 300), eyelids=True),
    # the codes of INFERNO's EMICA (Danecek et al.)
    "emica": TrackerFormat("EMICA", "flame2020", 100, {
        "expression": Part("expcode", 100), "global_orient": Part("globalpose", 3), "jaw_pose": Part("jawpose", 3),
    }, Part("shapecode", 300)),
    # tracked_flame_params_*.npz (Qian 2024)
    "vhap": TrackerFormat("VHAP", "flame2023", 100, {
        "expression": Part("expr", 100), "global_orient": Part("rotation", 3), "neck_pose": Part("neck_pose", 3),
        "jaw_pose": Part("jaw_pose", 3),
        "leye_pose": Part("eyes_pose", 6, 0, 3), "reye_pose": Part("eyes_pose", 6, 3, 6),
    }, Part("shape", 300), neck_folded=False),
    # as DualTalk publishes it (Feng et al., SIGGRAPH 2021)
    "deca": TrackerFormat("DECA", "flame2020", 50, {
        "expression": Part("exp", 50), "global_orient": Part("pose", 6, 0, 3), "jaw_pose": Part("pose", 6, 3, 6),
    }, Part("shape", 100)),
    "motion": TrackerFormat("motion.npz", "arkit", len(ARKIT_EXPRESSIONS), {}, Part("betas", 0), neck_folded=False),
}  # fmt: skip
"""Names for `backends: {motion: NAME}`."""


def read_tracked(path: Path, name: str, fps: float, seconds: float | None = None) -> Motion:
    """A tracker's result, with betas. fps: of the pictures that were tracked (a motion.npz states its own); seconds: of
    the recording, against which the number of frames is checked.

    Raises UserError that names the file, what was expected and what was found.
    """
    form = FORMATS[name]
    if name == "motion":
        motion = load_motion(checks.require(path))
        if motion.layout.basis != form.basis:
            raise UserError(f"expected motion in basis {form.basis} in {path}, found {motion.layout.basis}")
    else:
        motion = _read_flame(path, form, fps)
    if seconds is not None:
        checks.check_rate(len(motion), motion.fps, seconds, path)
    return motion


def _read_flame(path: Path, form: TrackerFormat, fps: float) -> Motion:
    arrays = checks.read_npz(path)
    parts, count = {}, None
    for group, part in form.groups.items():
        values = checks.array_of(arrays, part.key, (count, part.width), path)
        count = len(values)
        parts[group] = values[:, part.start : part.stop]
    expression, lids = parts.pop("expression"), parts.pop("eyelids", None)
    motion = flame_motion(form.basis, fps, expression, **parts)
    if lids is not None:
        motion = _with_eyelids(motion, lids)
    key, width = form.betas.key, form.betas.width
    shape = np.asarray(arrays.get(key, np.zeros(width)))
    betas = checks.array_of({key: shape}, key, (width,) if shape.ndim == 1 else (None, width), path)
    motion.betas = torch.from_numpy(betas if betas.ndim == 1 else betas.mean(0))
    motion.neck_folded = form.neck_folded
    return motion


def _with_eyelids(motion: Motion, lids: np.ndarray) -> Motion:  # (T, 2)
    layout = MotionLayout(motion.layout.basis, motion.layout.num_expression, True)
    values, at = motion.values, motion.layout.num_expression
    values = torch.cat([values[:, :at], torch.from_numpy(lids), values[:, at:]], -1)
    valid = torch.cat([motion.valid[:, :1], torch.ones(len(values), 1, dtype=torch.bool), motion.valid[:, 1:]], -1)
    return Motion(values, layout, motion.fps, valid=valid)
