"""Where the clay head's hair grows, and how gloss tells a renderer so."""

from __future__ import annotations

import numpy as np

from diffdyad.clay.forms import Array, ramp

# height of the hairline, mm, over the angle from the front round to the back, in radians
_HAIRLINE = np.array([
    [0.0, 93.0], [0.30, 95.0], [0.55, 92.0], [0.75, 84.0], [0.92, 69.0], [1.08, 57.0], [1.25, 42.0], [1.40, 16.0],
    [1.52, 5.0], [1.62, 16.0], [1.75, 36.0], [1.95, 33.0], [2.10, 8.0], [2.30, -26.0], [2.60, -47.0], [3.15, -56.0],
])  # fmt: skip
_FULL = 0.15


def above_hairline(points: Array) -> Array:
    """How many mm points (..., 3) lie above the hairline; negative below."""
    x, y, z = np.moveaxis(points, -1, 0)
    return y - np.interp(np.arctan2(np.abs(x), z + 37), *_HAIRLINE.T)


def thickness(points: Array) -> Array:
    """How far the hair's surface stands off the scalp, in mm: short at the sides, longer on top."""
    grown = ramp(above_hairline(points), -1, 14)
    return grown * (1.4 + 6.5 * ramp(points[..., 1], 52, 118))


def gloss(inside: Array, per_mm: float) -> Array:
    """Gloss of hair `inside` mm within its edge, negative outside: it begins below 0 and covers at -0.15."""
    return np.clip(-per_mm * inside, -_FULL, 0.3)
