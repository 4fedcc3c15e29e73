"""Where the picture is taken from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SENSOR_HEIGHT_MM = 24.0


def unit(x, axis: int = -1):
    return x / np.maximum(np.linalg.norm(x, axis=axis, keepdims=True), 1e-12)


def turned(points, axis: int, angle: float):  # (V, 3), radians -> (V, 3)
    """Rotates points about a coordinate axis through the origin."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    result = points.copy()
    result[:, i] = math.cos(angle) * points[:, i] - math.sin(angle) * points[:, j]
    result[:, j] = math.sin(angle) * points[:, i] + math.cos(angle) * points[:, j]
    return result


@dataclass(frozen=True)
class Camera:
    """A perspective camera, in metres. `height` is how much the frame shows at the target's distance."""

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    height: float

    @staticmethod
    def portrait(
        vertices,  # (V, 3) of a head at rest
        yaw_deg: float = 0.0,
        aspect: float = 1.0,
        focal_mm: float = 85.0,
        turn_rad: float = 0.5,
    ) -> Camera:
        """Frames a head so that it stays in view when it turns by `turn_rad` about any one axis.

        `yaw_deg` > 0 walks round to the character's left (a three-quarter view); `aspect` is width / height;
        the lens is given as on a 36 x 24 mm camera.
        """
        points = np.asarray(vertices, np.float64)
        low, high = points.min(0), points.max(0)
        extent = high - low
        # A head turns about the base of its neck, which lies low and towards the back.
        pivot = low + extent * (0.5, 0.13, 0.3)
        head = points[points[:, 1] > low[1] + 0.25 * extent[1]] - pivot
        reach = np.concatenate([head, *(turned(head, axis, sign * turn_rad) for axis in range(3) for sign in (-1, 1))])
        yaw = math.radians(yaw_deg)
        half_width = np.abs(reach @ (math.cos(yaw), 0.0, -math.sin(yaw))).max()
        top, bottom = pivot[1] + reach[:, 1].max(), min(low[1], pivot[1] + reach[:, 1].min())
        height = 1.06 * max(top - bottom, 2 * half_width / aspect)
        target = np.array([pivot[0], (top + bottom) / 2, (low[2] + high[2]) / 2])
        # A touch above the head, looking slightly down, as portraits are taken.
        backward = unit(np.array([math.sin(yaw), 0.035, math.cos(yaw)]))
        eye = target + height * focal_mm / SENSOR_HEIGHT_MM * backward
        return Camera(tuple(map(float, eye)), tuple(map(float, target)), float(height))

    @property
    def axes(self) -> Floats:  # (3, 3), rows: right, up, backward
        backward = unit(np.subtract(self.eye, self.target))
        right = unit(np.cross([0.0, 1.0, 0.0], backward))
        return np.stack([right, np.cross(backward, right), backward]).astype(np.float32)

    def directions(self, columns, rows, size: tuple[int, int]) -> Floats:  # (...,), (...,) pixels -> (..., 3)
        """Unit directions through positions in the image; the centre of the top left pixel is (0.5, 0.5)."""
        width, height = size
        step = self.height / height
        right, up, backward = self.axes
        x = (np.asarray(columns, np.float32) - width / 2) * step
        y = (height / 2 - np.asarray(rows, np.float32)) * step
        ahead = np.float32(math.dist(self.eye, self.target)) * backward
        return unit(x[..., None] * right + y[..., None] * up - ahead).astype(np.float32)

    def project(self, points, size: tuple[int, int]) -> Floats:  # (V, 3) -> (V, 2) columns, rows in pixels
        width, height = size
        seen = (points - np.float32(self.eye)) @ self.axes.T
        scale = math.dist(self.eye, self.target) / np.maximum(-seen[:, 2], 1e-6) * height / self.height
        return np.stack([width / 2 + seen[:, 0] * scale, height / 2 - seen[:, 1] * scale], axis=-1)
