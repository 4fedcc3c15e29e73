"""The clay head's ears: an outline and a relief over its plane."""

from __future__ import annotations

import numpy as np

from diffdyad.clay.forms import Array, ramp, stroke
from diffdyad.clay.mesh import Mesh, mirrored
from diffdyad.clay.openings import SKIN

# the left ear's outline in its own plane (forward, up) in mm, from the top of its root round the back to the lobe
_OUTLINE = np.array([
    [10.0, 10.5], [9.6, 18.0], [6.6, 24.5], [1.0, 29.0], [-6.0, 30.5], [-12.4, 28.2], [-16.9, 22.6], [-18.6, 15.2],
    [-18.2, 7.4], [-16.6, -0.3], [-14.4, -7.6], [-12.0, -14.5], [-9.6, -20.6], [-6.6, -25.4], [-2.0, -27.8],
    [3.2, -26.4], [6.4, -21.4], [7.6, -15.0], [9.2, -8.0], [10.8, -2.0], [10.5, 4.5],
])  # fmt: skip
_BOWL = np.array([1.5, -1.0])
_PLACE = np.array([71.8, 3.5, -51.0])
_TILT, _FLARE = np.radians(10), np.radians(22)
# rings from the skull behind the ear over its edge into the bowl: scale about the bowl, mm behind the relief
_RINGS = (
    (0.80, 13.0), (0.91, 6.0), (0.985, 3.2), (1.0, 1.2), (0.985, 0.0), (0.945, 0.0), (0.90, 0.0), (0.85, 0.0),
    (0.79, 0.0), (0.72, 0.0), (0.64, 0.0), (0.55, 0.0), (0.45, 0.0), (0.33, 0.0), (0.18, 0.0),
)  # fmt: skip


def _closed(points: Array) -> Array:
    """A closed curve (N, 2) with as many points again between, as Catmull and Rom draw it."""
    before, after, last = (np.roll(points, shift, axis=0) for shift in (1, -1, -2))
    return np.stack([points, (9 * (points + after) - before - last) / 16], 1).reshape(-1, 2)


def _away(plane: Array, line: list[tuple]) -> Array:
    """Distance in the plane to a line of points (a, b)."""
    p = np.concatenate([plane, np.zeros_like(plane[..., :1])], -1)
    return 20 * np.sqrt(-np.log(np.clip(stroke(p, [(*point[:2], 1.0) for point in line], 20.0), 1e-12, 1)))


def _relief(plane: Array) -> Array:
    """Height of the ear's outer face over its plane, in mm; (..., 2) -> (...)."""
    a, b = plane[..., 0], plane[..., 1]
    p = np.concatenate([plane, np.zeros_like(plane[..., :1])], -1)
    away = _away(plane, [*_OUTLINE, _OUTLINE[0]])
    # the rim curls over, down to the lobe at the back and to its root in front
    rim = ramp(8 - a, 0, 5) * ramp(b, -22, -8) + (1 - ramp(8 - a, 0, 5)) * ramp(b, 4, 12)
    h = 4.6 * rim * np.exp(-(((away - 1.3) / 1.9) ** 2))
    h -= 2.4 * rim * ramp(3 - a, 0, 6) * np.exp(-(((away - 5.0) / 1.9) ** 2))
    # the rim's root runs into the bowl
    h += stroke(p, [(10, 8, 3.4), (6, 3, 3.0), (1, 1.5, 0.8)], 2.2)
    fold = [(-6.5, 17, 2.6), (-9.4, 9, 4.2), (-8.8, 0, 4.8), (-6.0, -9, 4.6), (-1.5, -14, 4.0), (3.5, -15.5, 3.0)]
    h += stroke(p, fold, 2.7)
    h += stroke(p, [(-8.6, 12, 1.2), (-6, 18, 2.2), (-3, 23, 1.4)], 2.4)  # and forks
    h += stroke(p, [(-8.6, 12, 1.2), (-3, 13.5, 2.6), (4, 13, 1.6)], 2.2)
    h -= 1.2 * np.exp(-(((a - 1.0) / 3.6) ** 2 + ((b - 18) / 3.4) ** 2))  # between the fork's arms
    h += 6.5 * np.exp(-(((a - 8.2) / 2.8) ** 2) - ((b + 6.5) / 4.4) ** 2)  # the flap before the ear's opening
    h -= 8.5 * np.exp(-((((a - 1.5) / 6.0) ** 2 + ((b + 3.5) / 8.0) ** 2) ** 1.6))  # the bowl
    h += 1.0 * np.exp(-(((a + 1) / 6.0) ** 2 + ((b + 23) / 5.0) ** 2))  # the lobe
    return 1.15 * h


def add_ears(mesh: Mesh) -> None:
    """A shell of rings; the outermost lies within the skull behind the ear, the innermost in the bowl."""
    rings, shades = [], []
    outline = _closed(_OUTLINE)
    for scale, behind in _RINGS:
        plane = _BOWL + (outline - _BOWL) * scale
        height = _relief(plane) - behind
        rings.append(np.concatenate([plane, height[:, None]], 1))
        shades.append(np.clip(-_relief(plane) / 8, 0, 0.6) * (behind == 0))
    local, shade = np.array(rings), np.array(shades)[..., None]
    centre = np.array([*_BOWL, _relief(_BOWL)])
    # ear's axes in the head: forward and up lie along the head's side, out points away from it and a little ahead
    forward = np.array([-np.sin(_FLARE), 0, np.cos(_FLARE)])
    out = np.array([np.cos(_FLARE), 0, np.sin(_FLARE)])
    up = np.array([0, 1.0, 0])
    forward, up = np.cos(_TILT) * forward + np.sin(_TILT) * up, np.cos(_TILT) * up - np.sin(_TILT) * forward
    frame = np.stack([forward, up, out])
    points, middle = local @ frame + _PLACE, centre @ frame + _PLACE
    tint = np.array(SKIN) * (1 - shade * np.array([0.35, 0.55, 0.6])) * np.array([1.03, 0.93, 0.92])
    for sign in (1.0, -1.0):
        turn = (lambda p: p) if sign > 0 else mirrored
        indices = mesh.add(turn(points), tint, 0.3, "ears")
        mesh.sheet(indices, closed=True, flip=sign > 0)
        tip = mesh.add(turn(middle[None]), tint[-1, 0], 0.2, "ears")
        mesh.fan(int(tip[0]), indices[-1], flip=sign > 0)
