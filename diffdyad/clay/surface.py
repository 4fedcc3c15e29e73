"""The clay head's outer surface: rounded bodies that melt into each other, as a signed distance.

Millimetres here (the asset is in metres): the numbers are those of a sculptor's sketch. Everything is symmetric, so
bodies are given for the character's left (+x) and points are folded onto that side first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EYE = np.array([31.5, 23.0, 24.0])
EYE_RADIUS = 13.0
LID_RADIUS = 14.5
MOUTH_HALF_WIDTH = 25.0


def lip_line(x: Array) -> Array:
    """Height of the line where the lips meet, over x."""
    return -45.4 + 1.3 * (x / MOUTH_HALF_WIDTH) ** 2


def lip_heights(x: Array, half_width: float = MOUTH_HALF_WIDTH) -> tuple[Array, Array]:
    """Heights of the red of the upper and of the lower lip over x, from the lip line."""
    inside = np.clip(1 - (x / half_width) ** 2, 0, 1)
    bow = 1 - 0.16 * np.exp(-((x / 3.5) ** 2))
    return 6.9 * inside**0.75 * bow, 8.8 * inside**0.7


def _union(a: Array, b: Array, softness: float) -> Array:
    h = np.clip(softness - np.abs(a - b), 0, None) / softness
    return np.minimum(a, b) - h * h * h * softness / 6


def _carve(a: Array, b: Array, softness: float) -> Array:
    return -_union(-a, b, softness)


def _ellipsoid(p: Array, centre: tuple, radii: tuple) -> Array:
    q = p - np.array(centre)
    r = np.array(radii)
    near = np.linalg.norm(q / r, axis=-1)
    return near * (near - 1) / np.maximum(np.linalg.norm(q / r**2, axis=-1), 1e-9)


def _rod(p: Array, a: tuple, b: tuple, radius_a: float, radius_b: float) -> Array:
    a, b = np.array(a), np.array(b)
    along = np.clip((p - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
    return np.linalg.norm(p - a - along[..., None] * (b - a), axis=-1) - (radius_a + (radius_b - radius_a) * along)


def _lip(p: Array, side: float) -> Array:
    """A tapered roll along the lip; side +1 upper, -1 lower."""
    p = np.concatenate([np.abs(p[..., :1]), p[..., 1:]], -1)
    x = np.linspace(0, MOUTH_HALF_WIDTH, 7)
    height = lip_heights(x)[0 if side > 0 else 1]
    y = lip_line(x) + side * 0.50 * height
    radius = 0.62 * height + 0.9
    z = 58.3 - 12.5 * (x / MOUTH_HALF_WIDTH) ** 2.0 - 0.62 * radius - (0.8 if side < 0 else 0.0)
    points = np.stack([x, y, z], -1)
    parts = [
        _rod(p, points[i], points[i + 1], radius[i], radius[i + 1]) for i in range(len(x) - 1)
    ]
    return np.min(parts, 0)


def distance(points: Array) -> Array:
    """Signed distance (approximate away from the surface) of points (..., 3) in mm; negative inside."""
    p = points
    # bodies off the midline are drawn once; the fold onto their side is rounded, so that no crease shows in the middle
    q = p.copy()
    q[..., 0] = np.sqrt(p[..., 0] ** 2 + 4.0)
    d = _union(_ellipsoid(p, (0, 52, -42), (74, 80, 93)), _ellipsoid(p, (0, 12, -76), (61, 60, 53)), 40)  # skull, nape
    d = _union(d, _ellipsoid(p, (0, -16, -4), (58, 82, 57)), 40)  # face
    d = _union(d, _ellipsoid(p, (0, -14, -28), (66, 58, 44)), 40)  # sides, from the temples to the jaw's angle
    d = _union(d, _ellipsoid(p, (0, 46, 0), (54, 48, 50)), 30)  # forehead
    d = _union(d, _rod(q, (52, -46, -26), (13, -80, 36), 8, 12), 30)  # jaw
    d = _union(d, _ellipsoid(p, (0, -80, 38), (17, 13, 17.5)), 20)  # chin
    d = _union(d, _ellipsoid(q, (42, -3, 19), (18, 13, 17)), 30)  # cheekbone
    d = _union(d, _ellipsoid(q, (27, -27, 31), (17, 18, 16)), 26)  # cheek
    d = _union(d, _ellipsoid(q, (43, -30, 8), (16, 22, 22)), 30)  # and behind it
    neck = _rod(p, (0, -30, -62), (0, -190, -78), 47, 56)
    neck = _union(neck, _ellipsoid(p, (0, -208, -70), (125, 50, 66)), 70)
    d = _union(d, neck, 36)
    d = _carve(d, _ellipsoid(q, (33, 21, 59), (20, 13.0, 20.5)), 16)  # eye socket
    d = _union(d, _rod(q, (13, 35.5, 38), (46, 37, 24), 8.5, 7.5), 16)  # brow ridge
    d = _union(d, np.linalg.norm(q - EYE, axis=-1) - LID_RADIUS, 5)  # the lids over the eyeball
    nose = _rod(p, (0, 28, 42), (0, -5, 62.5), 6.0, 7.4)
    nose = _union(nose, _ellipsoid(p, (0, -9.0, 65), (9.0, 8.6, 9.8)), 8)
    nose = _union(nose, _ellipsoid(q, (9.8, -12.5, 57), (5.6, 5.6, 9.0)), 7)
    d = _union(d, nose, 11)
    d = _carve(d, _ellipsoid(q, (5.8, -20.0, 60), (2.8, 3.2, 4.6)), 4)  # nostril
    d = _union(d, _ellipsoid(p, (0, -42, 31), (29, 26, 24)), 18)  # the teeth's arch under the lips
    d = _carve(d, _rod(p, (0, -24, 64.0), (0, -36, 63.0), 2.6, 3.2), 5)  # philtrum
    lips = _union(_lip(p, 1.0), _lip(p, -1.0), 1.2)
    return _union(d, lips, 3.6)


def project(start: Array, direction: Array, reach: float = 45.0) -> Array:
    """Moves points (N, 3) along unit directions (N, 3) onto the surface: to the outward crossing nearest to them."""
    steps = np.linspace(reach, -reach, 121)
    values = distance(start[:, None] + steps[None, :, None] * direction[:, None])
    enters = (values[:, :-1] > 0) & (values[:, 1:] <= 0)
    middle = (steps[:-1] + steps[1:]) / 2
    cost = np.where(enters, np.abs(middle), np.inf)
    best = cost.argmin(1)
    if not np.isfinite(cost.min(1)).all():
        raise ArithmeticError("a ray of the clay head's grid misses its surface")
    outer, inner = steps[best], steps[best + 1]
    for _ in range(30):
        centre = (outer + inner) / 2
        outside = distance(start + centre[:, None] * direction) > 0
        outer, inner = np.where(outside, centre, outer), np.where(outside, inner, centre)
    return start + ((outer + inner) / 2)[:, None] * direction
