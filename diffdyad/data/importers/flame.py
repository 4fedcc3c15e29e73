"""FLAME parameters as trackers write them (expression, global rotation, jaw) into our layout."""

from __future__ import annotations

import numpy as np
import torch

from diffdyad.motion import Motion, MotionLayout


def flame_motion(
    basis: str,
    fps: float,
    expression: np.ndarray | None = None,  # (T, E)
    num_expression: int = 50,
    **poses: np.ndarray,  # group -> (T, 3) axis-angle
) -> Motion:
    """Motion of the groups that are given, in FLAME's own axes; the others are not valid."""
    given = {"expression": expression, **poses} if expression is not None else dict(poses)
    layout = MotionLayout(basis, expression.shape[1] if expression is not None else num_expression)
    num_frames = len(next(iter(given.values())))
    values = torch.zeros(num_frames, layout.dim)
    valid = torch.zeros(num_frames, len(layout.groups), dtype=torch.bool)
    for group, array in given.items():
        values[:, layout.slices[group]] = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        valid[:, layout.groups.index(group)] = True
    return Motion(values, layout, fps, valid=valid)
