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
_BOWL = np.array([1.5, -0.5])
_PLACE = np.array([70.5, 3.5, -51.0])
_TILT, _FLARE = np.radians(10), np.radians(20)
# rings from the skull behind the ear over its edge into the bowl: scale about the bowl, mm behind the relief
_RINGS = (
    (0.80, 13.0), (0.92, 6.0), (0.99, 2.4), (0.99, 0.0), (0.93, 0.0), (0.86, 0.0), (0.78, 0.0),
    (0.68, 0.0), (0.56, 0.0), (0.42, 0.0), (0.22, 0.0),
)  # fmt: skip


def _relief(plane: Array) -> Array:
    """Height of the ear's outer face over its plane, in mm; (..., 2) -> (...)."""
    a, b = plane[..., 0], plane[..., 1]
    p = np.concatenate([plane, np.zeros_like(plane[..., :1])], -1)
    edge = np.concatenate([_OUTLINE, _OUTLINE[:1]])
    away = np.sqrt(-np.log(np.clip(stroke(p, [(*point, 1.0) for point in edge], 20.0), 1e-12, 1))) * 20
    rim = ramp(10 - a, 0, 6) * (0.25 + 0.75 * ramp(b, -24, -8)) + (1 - ramp(10 - a, 0, 6)) * ramp(b, 10, 16)
    h = 3.4 * rim * np.exp(-(((away - 0.6) / 2.3) ** 2)) - 1.3 * rim * np.exp(-(((away - 5.5) / 2.4) ** 2))
    h += stroke(p, [(-5, 25, 1.8), (-9, 17, 3.0), (-10, 8, 3.8), (-8, -3, 4.0), (-3.5, -11, 4.0), (3, -14.5, 4.0)], 3.0)
    h += stroke(p, [(3, 20, 0.9), (-4, 17.5, 2.0), (-8.5, 14, 2.0)], 2.6)
    h += stroke(p, [(10, 12, 2.2), (5, 6, 2.2), (0, 3.5, 1.0)], 2.3)
    h += 7.0 * np.exp(-(((a - 7.5) / 3.4) ** 2) - ((b + 4) / 4.6) ** 2)
    h -= 7.5 * np.exp(-((((a - 2.0) / 7.0) ** 2 + ((b + 2.0) / 9.5) ** 2) ** 1.5))
    h -= 1.2 * np.exp(-(((a - 2.5) / 4.5) ** 2 + ((b - 13) / 5.0) ** 2))
    return 1.35 * h


def add_ears(mesh: Mesh) -> None:
    """A shell of rings; the outermost lies within the skull behind the ear, the innermost in the bowl."""
    rings, shades = [], []
    for scale, behind in _RINGS:
        plane = _BOWL + (_OUTLINE - _BOWL) * scale
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
