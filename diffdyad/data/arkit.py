"""ARKit's coefficients and a Live Link Face recording's angles, to and from our motion: the one place of their signs.

ARKit's face has FLAME's axes (+x to the person's own left, +y up, +z out of the face), so positive angles about them
mean the same. What the app writes needs more care. It shows a mirror image: its blend shapes have left and right
exchanged, while the columns of head and eye angles are those of the person. In the face that the blend shapes describe,
yaw and roll are therefore negated, and LeftEye* belongs to the right eye. (Measured on a public recording:
eyeLookInLeft / RightEyeYaw = 1.64 in every frame, and LeftEyeYaw goes with eyeLookInRight; Unreal's ARKit plugin does
the same when faces are not mirrored.) Whether a file is such is seen from its eyes, see `yaw_sign`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from diffdyad import rotation
from diffdyad.errors import UserError
from diffdyad.motion import ARKIT_EXPRESSIONS, JAW_OPEN_RADIANS, Motion, MotionLayout

LOOK_RADIANS = math.radians(35.0)
"""Turn of the eye at eyeLook* = 1; a real recording gives 0.609 rad sideways and 0.611 rad up and down."""

JAW_SIDE_RADIANS = 0.12
"""jaw_pose y at jawLeft = 1: about a centimetre at the chin. Ours; ARKit states none."""

BLENDSHAPES = (
    "EyeBlinkLeft", "EyeLookDownLeft", "EyeLookInLeft", "EyeLookOutLeft", "EyeLookUpLeft", "EyeSquintLeft",
    "EyeWideLeft", "EyeBlinkRight", "EyeLookDownRight", "EyeLookInRight", "EyeLookOutRight", "EyeLookUpRight",
    "EyeSquintRight", "EyeWideRight", "JawForward", "JawRight", "JawLeft", "JawOpen", "MouthClose", "MouthFunnel",
    "MouthPucker", "MouthRight", "MouthLeft", "MouthSmileLeft", "MouthSmileRight", "MouthFrownLeft",
    "MouthFrownRight", "MouthDimpleLeft", "MouthDimpleRight", "MouthStretchLeft", "MouthStretchRight",
    "MouthRollLower", "MouthRollUpper", "MouthShrugLower", "MouthShrugUpper", "MouthPressLeft", "MouthPressRight",
    "MouthLowerDownLeft", "MouthLowerDownRight", "MouthUpperUpLeft", "MouthUpperUpRight", "BrowDownLeft",
    "BrowDownRight", "BrowInnerUp", "BrowOuterUpLeft", "BrowOuterUpRight", "CheekPuff", "CheekSquintLeft",
    "CheekSquintRight", "NoseSneerLeft", "NoseSneerRight", "TongueOut",
)  # fmt: skip
"""ARKit's 52 blend shapes in the order of a Live Link Face recording."""

ANGLES = ("HeadYaw", "HeadPitch", "HeadRoll", "LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll", "RightEyeYaw",
          "RightEyePitch", "RightEyeRoll")  # fmt: skip
COLUMNS = BLENDSHAPES + ANGLES
"""The 61 columns of a recording after Timecode and BlendshapeCount."""

_STILL = 1e-6  # an angle that never exceeds it was not recorded
_CLEAR = 0.3  # cosine between gaze and eye columns from which their signs are believed


def turn(yaw: Tensor, pitch: Tensor, roll: Tensor | None = None) -> Tensor:
    """Angles about +y, +x and +z in radians, (T,) each -> axis-angle (T, 3): roll first, then pitch, then yaw."""
    zero = torch.zeros_like(yaw)
    about_x, about_y = torch.stack([pitch, zero, zero], -1), torch.stack([zero, yaw, zero], -1)
    about_z = torch.stack([zero, zero, zero if roll is None else roll], -1)
    return rotation.compose(about_y, rotation.compose(about_x, about_z))


def yaw_pitch_roll(axis_angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The inverse of `turn`: (T, 3) -> three (T,)."""
    matrix = rotation.axis_angle_to_matrix(axis_angle)
    pitch = torch.asin((-matrix[..., 1, 2]).clamp(-1, 1))
    yaw = torch.atan2(matrix[..., 0, 2], matrix[..., 2, 2])
    return yaw, pitch, torch.atan2(matrix[..., 1, 0], matrix[..., 1, 1])


def yaw_sign(columns: dict[str, Tensor]) -> float | None:
    """1 or -1: what the angle columns' yaw and roll must be multiplied by to be those of the blend shapes' face.

    Both eyes' yaw columns against the gaze that eyeLook* describe. None where they hold nothing to tell it by.
    """
    gaze = sum(yaw for yaw, _ in _eyes(columns))
    angles = columns["LeftEyeYaw"] + columns["RightEyeYaw"]
    scale = float(gaze.norm() * angles.norm())
    if scale < _STILL:
        return None
    cosine = float((gaze * angles).sum()) / scale
    return math.copysign(1.0, cosine) if abs(cosine) > _CLEAR else None


def _eyes(columns: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """(yaw, pitch) in radians of the left and of the right eye, from the eyeLook* coefficients."""
    def look(way: str) -> Tensor:
        return columns[f"EyeLook{way}"] * LOOK_RADIANS

    return [
        (look("OutLeft") - look("InLeft"), look("DownLeft") - look("UpLeft")),
        (look("InRight") - look("OutRight"), look("DownRight") - look("UpRight")),
    ]


def to_motion(
    values: Tensor,  # (T, 61)
    fps: float,
    valid: Tensor | None = None,  # (T,)
) -> tuple[Motion, list[str]]:
    """Columns in the order of `COLUMNS` as motion in the ARKit basis, and what is to be said about them.

    Coefficients are clipped to [0, 1]. Head or eyes that never move by anything were not recorded: not valid. The
    neck is part of the head's rotation (`neck_folded`). Raises UserError where the number of columns is another.
    """
    if values.ndim != 2 or values.shape[1] != len(COLUMNS):
        raise UserError(f"expected {len(COLUMNS)} columns of a Live Link Face recording, found {tuple(values.shape)}")
    columns = dict(zip(COLUMNS, values.unbind(1)))
    layout = MotionLayout.arkit()
    motion = Motion(torch.zeros(len(values), layout.dim), layout, fps, neck_folded=True)
    notes = []

    def put(group: str, part: Tensor) -> None:
        motion.values[:, layout.slices[group]] = part

    names = [name[0].upper() + name[1:] for name in ARKIT_EXPRESSIONS]
    put("expression", torch.stack([columns[name] for name in names], 1).clamp(0, 1))
    side = (columns["JawLeft"] - columns["JawRight"]) * JAW_SIDE_RADIANS
    put("jaw_pose", turn(side, columns["JawOpen"] * JAW_OPEN_RADIANS))
    for group, (yaw, pitch) in zip(("leye_pose", "reye_pose"), _eyes(columns)):
        put(group, turn(yaw, pitch))
    sign = yaw_sign(columns)
    head = values[:, COLUMNS.index("HeadYaw") : COLUMNS.index("HeadRoll") + 1]
    has_head = bool((head.abs() > _STILL).any())
    if has_head:
        if sign is None:
            notes.append("the signs of the head's angles cannot be told from the eyes: taken as the app writes them")
        sign = -1.0 if sign is None else sign
        put("global_orient", turn(sign * columns["HeadYaw"], columns["HeadPitch"], sign * columns["HeadRoll"]))
    has_eyes = bool((torch.stack([part for eye in _eyes(columns) for part in eye]).abs() > _STILL).any())
    for group, there in (("neck_pose", False), ("global_orient", has_head), ("leye_pose", has_eyes),
                         ("reye_pose", has_eyes)):  # fmt: skip
        motion.valid[:, layout.groups.index(group)] = there
    if valid is not None:
        motion.valid &= valid[:, None]
    return motion, notes


def from_motion(motion: Motion) -> Tensor:
    """Motion in the ARKit basis as the columns of a recording, (T, 61), signs and sides as the app writes them.

    Head and neck become one rotation; angles of the jaw beyond jawOpen and jawLeft/Right have no coefficient and are
    lost, and so is gaze beyond 35 degrees. Raises UserError for another basis.
    """
    layout = motion.layout
    if layout.basis != "arkit":
        raise UserError(
            f"expected motion in basis arkit for a Live Link Face file, found {layout.basis}; expressions of another "
            "basis have to be converted first"
        )
    columns = {name: torch.zeros(len(motion)) for name in COLUMNS}
    expression = motion.select("expression").float().cpu()
    for number, name in enumerate(ARKIT_EXPRESSIONS):
        columns[name[0].upper() + name[1:]] = expression[:, number].clamp(0, 1)

    def angles(group: str) -> tuple[Tensor, Tensor, Tensor]:
        return yaw_pitch_roll(motion.select(group).float().cpu())

    side, opening, _ = angles("jaw_pose")
    columns["JawOpen"] = (opening / JAW_OPEN_RADIANS).clamp(0, 1)
    columns["JawLeft"], columns["JawRight"] = ((s * side / JAW_SIDE_RADIANS).clamp(0, 1) for s in (1, -1))
    for group, own, other, outward in (("leye_pose", "Left", "Right", 1), ("reye_pose", "Right", "Left", -1)):
        yaw, pitch, roll = angles(group)
        for way, amount in (("Out", outward * yaw), ("In", -outward * yaw), ("Down", pitch), ("Up", -pitch)):
            columns[f"EyeLook{way}{own}"] = (amount / LOOK_RADIANS).clamp(0, 1)
        columns[f"{other}EyeYaw"], columns[f"{other}EyePitch"], columns[f"{other}EyeRoll"] = -yaw, pitch, -roll
    head = rotation.compose(motion.select("global_orient").float().cpu(), motion.select("neck_pose").float().cpu())
    yaw, pitch, roll = yaw_pitch_roll(head)
    columns["HeadYaw"], columns["HeadPitch"], columns["HeadRoll"] = -yaw, pitch, -roll
    return torch.stack([columns[name] for name in COLUMNS], 1)


def column_order(header: list[str], where: str) -> np.ndarray:
    """Index into a file's columns for each of `COLUMNS`, whatever the header's case.

    Raises UserError that names what is missing.
    """
    place = {name.strip().lower(): number for number, name in enumerate(header)}
    missing = [name for name in COLUMNS if name.lower() not in place]
    if missing or len(header) != len(COLUMNS) + 2:
        lacking = f"; without {', '.join(missing[:4])}{', ...' if len(missing) > 4 else ''}" if missing else ""
        raise UserError(
            f"expected Timecode, BlendshapeCount and {len(COLUMNS)} columns of a Live Link Face recording in {where}, "
            f"found {len(header)} columns{lacking}"
        )
    return np.array([place[name.lower()] for name in COLUMNS])
