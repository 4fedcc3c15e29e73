"""How motion moves: speed, jerk, and jerk where windows were joined.

Rates are in Hz, points in millimetres (T, P, 3), rotations as axis-angle in radians (T, 3).
"""

from __future__ import annotations

import numpy as np
import torch

from diffdyad import rotation
from diffdyad.evaluation.arrays import Array, as_array


def point_speed_per_frame_mm_s(points, fps: float) -> Array:
    """Mean speed over points between each frame and the next: (T - 1,) mm/s."""
    return np.linalg.norm(np.diff(as_array(points), axis=0), axis=-1).mean(-1) * fps


def point_speed_mean_mm_s(points, fps: float) -> float:
    """Mean speed over points and time, mm/s."""
    return float(point_speed_per_frame_mm_s(points, fps).mean())


def point_jerk_per_frame_mm_s3(points, fps: float) -> Array:
    """Mean size over points of the third difference: (T - 3,) mm/s^3; entry k spans frames k .. k + 3."""
    return np.linalg.norm(np.diff(as_array(points), n=3, axis=0), axis=-1).mean(-1) * fps**3


def point_jerk_mean_mm_s3(points, fps: float) -> float:
    """Mean jerk over points and time, mm/s^3: trembling shows here first."""
    return float(point_jerk_per_frame_mm_s3(points, fps).mean())


def seam_jerk_ratio(points, fps: float, seams) -> float:
    """Jerk at window joins over jerk elsewhere: 1 = no seam to be seen.

    seams: indices (N,) of frames that begin a new window, 1 <= index < T. NaN where there is no join, nothing else,
    or no movement elsewhere.
    """
    jerk = point_jerk_per_frame_mm_s3(points, fps)
    at_seam = np.zeros(len(jerk), bool)
    for seam in np.asarray(seams, np.int64).ravel():
        # the differences that span both the last frame before the join and the first after it
        at_seam[max(0, seam - 3) : max(0, seam)] = True
    if not at_seam.any() or at_seam.all() or not jerk[~at_seam].any():
        return float("nan")
    return float(jerk[at_seam].mean() / jerk[~at_seam].mean())


def rotation_speed_per_frame_deg_s(axis_angle, fps: float) -> Array:
    """Angle of the rotation from each frame to the next: (T - 1,) degrees/s."""
    turns = _quaternions(axis_angle)
    return _angle_deg(turns[:-1], turns[1:]) * fps


def rotation_speed_mean_deg_s(axis_angle, fps: float) -> float:
    """Mean over time, degrees/s."""
    return float(rotation_speed_per_frame_deg_s(axis_angle, fps).mean())


def rotation_angle_deg(a, b) -> Array:
    """The angle between two rotations, along the shortest way: (..., 3) radians each -> (...) degrees in 0..180."""
    return _angle_deg(_quaternions(a), _quaternions(b))


def _quaternions(axis_angle) -> torch.Tensor:
    return rotation.axis_angle_to_quaternion(torch.from_numpy(np.ascontiguousarray(as_array(axis_angle))))


def _angle_deg(a: torch.Tensor, b: torch.Tensor) -> Array:
    """Of unit quaternions (..., 4)."""
    back = a * a.new_tensor([1.0, -1.0, -1.0, -1.0])
    turn = rotation.quaternion_multiply(back, b)
    return np.degrees(2 * torch.atan2(turn[..., 1:].norm(dim=-1), turn[..., 0].abs()).numpy())


def rotation_error_mean_deg(truth, prediction) -> float:
    """`rotation_angle_deg` of truth and prediction (T, 3), averaged over frames."""
    return float(rotation_angle_deg(truth, prediction).mean())
