"""What changed on the face, in millimetres, between two motions; and the opening of the lips.

Shapes: ... leading axes (exchanges, samples), T frames, D channels, V vertices.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from diffdyad.evaluation.dynamics import rotation_angle_deg
from diffdyad.evaluation.gauge import FaceGauge, JawedFace, metric_vertices
from diffdyad.head import HeadModel
from diffdyad.motion import Motion, MotionLayout
from diffdyad.rotation import compose

REGIONS = ("brows", "eyelids", "cheeks", "lips", "face")


class Face:
    """A head's regions; motions are raw, (..., T, D)."""

    def __init__(self, head: HeadModel, layout: MotionLayout, fps: float, max_points: int = 60):
        self.head, self.layout, self.fps = head, layout, fps
        self.gauge = FaceGauge(head, layout)
        sets = {**head.vertex_sets, **metric_vertices(head)}
        self._points, self._where, first = [], {}, 0
        for name in REGIONS:
            if name in sets:
                chosen = sets[name][:: max(1, len(sets[name]) // max_points)]
                self._points.append(chosen)
                self._where[name] = slice(first, first + len(chosen))
                first += len(chosen)
        self._some = JawedFace(head.subset(torch.cat(self._points)), layout)
        self._all = JawedFace(head.subset(torch.arange(head.num_vertices)), layout)

    @property
    def regions(self) -> tuple[str, ...]:
        return tuple(self._where)

    def _motion(self, values: Tensor) -> Motion:
        return Motion(values, self.layout, self.fps)

    def points_mm(self, motion: Tensor) -> np.ndarray:
        """Points of all regions: (..., T, P, 3)"""
        flat = motion.flatten(0, -3) if motion.ndim > 2 else motion[None]
        points = np.stack([1e3 * self._some(self._motion(values)).numpy() for values in flat])
        return points.reshape(*motion.shape[:-1], *points.shape[-2:])

    def change_mm(self, a: Tensor, b: Tensor) -> dict[str, np.ndarray]:
        """Mean distance of each region's points between two motions (..., T, D): region -> (..., T)"""
        distance = np.linalg.norm(self.points_mm(a) - self.points_mm(b), axis=-1)
        return {name: distance[..., place].mean(-1) for name, place in self._where.items()}

    def head_change_deg(self, a: Tensor, b: Tensor) -> np.ndarray:
        """Angle between the heads' rotations, neck included: (..., T)"""
        turns = [compose(self.layout.select(x, "global_orient").double(), self.layout.select(x, "neck_pose").double())
                 for x in (a, b)]  # fmt: skip
        shape = a.shape[:-1]
        return rotation_angle_deg(*(turn.reshape(-1, 3).numpy() for turn in turns)).reshape(shape)

    def vertex_change_mm(self, a: Tensor, b: Tensor) -> np.ndarray:
        """Distance of every vertex of the head, mean over time: (T, D) each -> (V,)"""
        points = [1e3 * self._all(self._motion(values)).numpy() for values in (a, b)]
        return np.linalg.norm(points[0] - points[1], axis=-1).mean(0)

    def opening_mm(self, motion: Tensor) -> np.ndarray:
        """Opening of the inner lips: (..., T, D) -> (..., T)"""
        flat = motion.flatten(0, -3) if motion.ndim > 2 else motion[None]
        openings = [self.gauge.opening_mm(self.gauge.points(self._motion(values))) for values in flat]
        return np.stack(openings).reshape(motion.shape[:-1])

    def speed_and_jerk(self, motion: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Mean speed, mm/s, and jerk, mm/s^3, of the face's points: (..., T, D) -> (...), (...)"""
        points = self.points_mm(motion)[..., self._where["face"], :]
        steps = np.linalg.norm(np.diff(points, axis=-3), axis=-1).mean((-1, -2)) * self.fps
        jerks = np.linalg.norm(np.diff(points, n=3, axis=-3), axis=-1).mean((-1, -2)) * self.fps**3
        return steps, jerks
