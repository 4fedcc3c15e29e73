"""The clay head's outer surface: rounded bodies that melt into each other, as a signed distance.

Millimetres here (the asset is in metres): the numbers are those of a sculptor's sketch. Everything is symmetric, so
bodies are given for the character's left (+x) and points are folded onto that side first.
"""

from __future__ import annotations

import numpy as np

from diffdyad.clay.forms import Array, carve, dab, ellipsoid, ramp, rod, stroke, tube, union
from diffdyad.clay.hair import thickness

EYE = np.array([31.5, 23.0, 24.0])
EYE_RADIUS = 13.0
LID_RADIUS = 14.3
MOUTH_HALF_WIDTH = 25.0


def lip_line(x: Array) -> Array:
    """Height of the line where the lips meet, over x."""
    return -45.2 + 0.9 * (x / MOUTH_HALF_WIDTH) ** 2 - 0.7 * np.exp(-((x / 6.5) ** 2))


def lip_heights(x: Array, half_width: float = MOUTH_HALF_WIDTH) -> tuple[Array, Array]:
    """Heights of the red of the upper and of the lower lip over x, from the lip line."""
    share = np.clip(np.abs(x) / half_width, 0, 1)
    bow = 1 - 0.20 * np.exp(-((x / 3.6) ** 2))
    return 7.6 * (1 - share**1.5) ** 0.9 * bow, 9.2 * (1 - share**2.0) ** 0.85


def _lip(p: Array, side: float) -> Array:
    """A tapered roll along the lip; side +1 upper, -1 lower."""
    p = np.concatenate([np.abs(p[..., :1]), p[..., 1:]], -1)
    x = np.linspace(0, MOUTH_HALF_WIDTH, 7)
    height = lip_heights(x)[0 if side > 0 else 1]
    y = lip_line(x) + side * 0.50 * height
    radius = 0.62 * height + 0.9
    z = 58.3 - 12.5 * (x / MOUTH_HALF_WIDTH) ** 2.0 - 0.62 * radius - (0.8 if side < 0 else 0.0)
    return tube(p, np.stack([x, y, z, radius], -1).tolist())


def _skull(p: Array, q: Array) -> Array:
    d = union(ellipsoid(p, (0, 54, -50), (72, 77, 90)), ellipsoid(p, (0, 12, -78), (58, 58, 52)), 40)  # case, nape
    d = union(d, ellipsoid(p, (0, 58, -12), (54, 58, 62)), 30)  # forehead
    d = union(d, ellipsoid(p, (0, -4, -37), (61, 62, 50)), 36)  # sides, from the temples to the jaw's angle
    return d + dab(q, (27, 72, 44), 16, 1.5)  # bosses


def _face(p: Array, q: Array, d: Array) -> Array:
    d = union(d, ellipsoid(p, (0, -24, 2), (44, 50, 44)), 24)  # upper jaw
    d = union(d, tube(q, [(48, -28, -38, 8), (43, -60, -28, 8), (29, -79, 12, 9), (11, -84, 36, 11)]), 26)  # jaw
    d = union(d, ellipsoid(q, (37, -34, -10), (13, 34, 24)), 26)  # chewing muscle
    d = union(d, ellipsoid(p, (0, -80, 38), (17, 13, 17.5)), 20)  # chin
    d = union(d, ellipsoid(q, (20, -60, 20), (20, 24, 18)), 20)  # between chin and cheek
    d = union(d, ellipsoid(p, (0, -78, 8), (28, 14, 36)), 14)  # floor of the mouth
    d = union(d, tube(q, [(41, -7, 22, 11), (50, -4, 8, 8), (56, -2, -14, 6)]), 26)  # cheekbone
    d = union(d, ellipsoid(q, (27, -30, 29), (17, 18, 16)), 24)  # cheek
    d = d + dab(q, (46, -40, 10), 17, 2.0)
    d = carve(d, ellipsoid(q, (30, 22, 58), (15, 9, 20)), 14)  # eye socket
    rim = tube(q, [(7, 37, 41, 8), (26, 41, 38, 8), (42, 38, 28, 7), (50, 22, 15.5, 6), (46, 6, 22, 7)])
    d = union(d, rim, 16)
    d = d + dab(q, (57, 30, 9), 18, 4.0) + dab(q, (60, -20, -10), 22, 4.5) + dab(q, (52, -22, 8), 18, 2.0)
    d = d + dab(q, (28, 2, 32), 13, 3.5) + dab(q, (56, 13, 6), 14, 5.0)
    return d


def _eyes(p: Array, q: Array, d: Array) -> Array:
    d = union(d, np.linalg.norm(q - EYE, axis=-1) - LID_RADIUS, 5)  # the lids over the eyeball
    # the fold above the upper lid
    d = union(d, tube(q, [(19, 30, 33, 2), (27, 34.5, 33.5, 4), (37, 34.5, 30.5, 4), (46, 28, 22, 3)]), 5)
    return d


def _nose(p: Array, q: Array, d: Array) -> Array:
    d = union(d, tube(p, [(0, 28, 34, 9), (0, -12, 46, 14)]), 12)
    nose = tube(p, [(0, 31, 40, 6), (0, 12, 52, 6.2), (0, -4, 62.5, 7.2)])
    nose = union(nose, ellipsoid(p, (0, -9.0, 65), (8.6, 8.2, 9.4)), 6)
    nose = union(nose, ellipsoid(q, (4.2, -9.0, 68), (5.8, 5.8, 6.4)), 4)
    nose = union(nose, ellipsoid(q, (11.8, -14.0, 56), (5.4, 6.4, 8.6)), 5)
    d = union(d, nose, 9)
    d = union(d, rod(p, (0, -16, 68), (0, -24, 58), 3.4, 4.0), 4)
    return d


def _details(q: Array) -> Array:
    """Folds and creases of the face: what is pressed in, in mm."""
    lines = (
        ([(19, -13, 0.8), (25, -24, 1.5), (29.5, -35, 1.5), (33, -46, 0.5)], 3.4),  # from the nose round the mouth
        ([(27, -16, -0.9), (33, -27, -1.5), (37, -41, -0.7)], 6.5),  # and the cheek beside it
        ([(14.5, -5, 0.3), (19, -9.5, 1.0), (19.6, -15, 1.1), (17.8, -20, 0.5)], 2.2),  # round the nose's wing
        ([(17, 15, 0.3), (22, 9, 0.9), (29, 5.5, 0.8), (38, 5.5, 0.2)], 4.0),  # below the eye
        ([(3.8, -26, -0.8), (5.0, -37, -1.2)], 2.0),  # beside the groove under the nose
        ([(27.5, -45, 0.5), (30, -48, 0.5)], 3.0),  # at the mouth's corner
    )
    return sum(stroke(q, *line) for line in lines) * ramp(q[..., 2], 5, 20)


def distance(points: Array) -> Array:
    """Signed distance (approximate away from the surface) of points (..., 3) in mm; negative inside."""
    p = points
    # bodies off the midline are drawn once; the fold onto their side is rounded, so that no crease shows in the middle
    q = p.copy()
    q[..., 0] = np.sqrt(p[..., 0] ** 2 + 4.0)
    d = _face(p, q, _skull(p, q))
    neck = tube(p, [(0, -45, -60, 42), (0, -110, -66, 44), (0, -185, -82, 54)])
    shoulder = tube(q, [(18, -50, -104, 12), (34, -135, -98, 18), (100, -186, -86, 22), (165, -216, -85, 30)])
    neck = union(neck, shoulder, 36)
    neck = union(neck, ellipsoid(p, (0, -264, -74), (150, 94, 86)), 36)
    neck = union(neck, tube(q, [(50, -22, -62, 7), (36, -95, -40, 10), (12, -172, -34, 6)]), 14)
    d = union(d, neck, 26) + dab(p, (0, -124, -16), 13, 4.0)
    d = _eyes(p, q, d)
    d = _nose(p, q, d)
    d = union(d, ellipsoid(p, (0, -42, 31), (29, 26, 24)), 18)  # the teeth's arch under the lips
    d = carve(d, rod(p, (0, -27, 62.6), (0, -36, 62.4), 2.6, 3.4), 4)  # philtrum
    d = d + _details(q)
    lips = union(_lip(p, 1.0), _lip(p, -1.0), 1.2)
    return union(d, lips, 3.6) - thickness(p)


def project(start: Array, direction: Array, reach: float = 45.0) -> Array:
    """Moves points (N, 3) along unit directions (N, 3) onto the surface: to the outward crossing nearest to them."""
    steps = np.linspace(reach, -reach, 37)
    values = distance(start[:, None] + steps[None, :, None] * direction[:, None])
    enters = (values[:, :-1] > 0) & (values[:, 1:] <= 0)
    middle = (steps[:-1] + steps[1:]) / 2
    cost = np.where(enters, np.abs(middle), np.inf)
    best = cost.argmin(1)
    if not np.isfinite(cost.min(1)).all():
        raise ArithmeticError("a ray of the clay head's grid misses its surface")
    outer, inner = steps[best], steps[best + 1]
    for _ in range(16):
        centre = (outer + inner) / 2
        outside = distance(start + centre[:, None] * direction) > 0
        outer, inner = np.where(outside, centre, outer), np.where(outside, inner, centre)
    return start + ((outer + inner) / 2)[:, None] * direction
