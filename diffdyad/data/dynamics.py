"""How much a head moves: per axis, in degrees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from diffdyad import rotation

AXES = ("pitch", "yaw", "roll")
"""Rotation about x, y and z: nods, shakes and tilts."""

GLITCH_DEG_S = 300.0
"""No head turns faster: a tracker that says so has lost it."""


@dataclass(frozen=True)
class HeadDynamics:
    """Figures per axis (pitch, yaw, roll) over valid frames; empty where the head was not measured.

    sd_deg: standard deviation; speed_deg_s: mean of the absolute speed; range_deg: 98th less 2nd percentile;
    peak_speed_deg_s: the largest absolute speed from one valid frame to the next, wherever it is.
    """

    sd_deg: list[float] = field(default_factory=list)
    speed_deg_s: list[float] = field(default_factory=list)
    range_deg: list[float] = field(default_factory=list)
    peak_speed_deg_s: list[float] = field(default_factory=list)


def head_angles(motion: Mapping[str, np.ndarray]) -> np.ndarray:  # (T, 3) degrees
    """Pitch, yaw and roll of the head (global_orient and neck_pose together) as a rotation vector; (0, 3) without."""
    return np.rad2deg(_head(motion).numpy())


def _head(motion: Mapping[str, np.ndarray]) -> torch.Tensor:  # (T, 3) radians
    head = torch.from_numpy(np.array(motion.get("global_orient", np.zeros((0, 3))), np.float32))
    neck = motion.get("neck_pose")
    if len(head) and neck is not None and len(neck):
        head = rotation.compose(head, torch.from_numpy(np.array(neck, np.float32)))
    return head


def head_dynamics(
    motion: Mapping[str, np.ndarray], valid: np.ndarray, fps: float, frames: slice = slice(None)
) -> HeadDynamics:
    """Of one person's groups (T, width) at `fps`, where `valid` (T,) says that they hold.

    frames: which are looked at for how lively the head is. A tracker's error counts anywhere: the peak is of all.
    """
    head = _head(motion)
    angles = np.rad2deg(head.numpy())
    valid = np.asarray(valid, bool)[: len(angles)]
    if not len(angles) or valid.sum() < 2:
        return HeadDynamics()
    both = valid[1:] & valid[:-1]
    # the rotation from each frame to the next: unlike a difference of vectors, it makes no leap at half a turn
    turns = rotation.compose(rotation.inverse(head[:-1]), head[1:]).numpy()[both]
    peak = (np.rad2deg(np.abs(turns).max(0, initial=0.0)) * fps).astype(float).round(4).tolist()
    angles, valid = angles[frames], valid[frames]
    if valid.sum() < 2:
        return HeadDynamics(peak_speed_deg_s=peak)
    held = angles[valid]
    steps = np.abs(np.diff(angles, axis=0))[valid[1:] & valid[:-1]]
    speed = steps.mean(0) * fps if len(steps) else np.zeros(3)
    low, high = np.percentile(held, [2, 98], axis=0)
    return HeadDynamics(*(np.asarray(x, float).round(4).tolist() for x in (held.std(0), speed, high - low)), peak)


MOVES_DEG, MOVES_ARKIT, MOVES_FLAME = 1.0, 0.05, 0.2
"""Standard deviations from which on a head, and a face, is said to move."""


def moves(motion: Mapping[str, np.ndarray], valid: np.ndarray, frames: slice, basis: str) -> bool:
    """Whether face or head move in these frames: by the head's largest deviation, or the largest of a coefficient."""
    there = np.asarray(valid, bool)[frames]
    if there.sum() < 0.5 * max(1, frames.stop - frames.start):
        return False
    angles, expression = head_angles(motion)[frames], motion.get("expression", np.zeros((0, 0)))[frames]
    if len(angles) and angles[there].std(0).max() >= MOVES_DEG:
        return True
    least = MOVES_ARKIT if basis == "arkit" else MOVES_FLAME
    return bool(len(expression) and expression.shape[-1] and expression[there].std(0).max() >= least)
