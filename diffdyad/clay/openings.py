"""Where the clay head's skin ends: lips with the mouth behind them, eyelids, nostrils, as rings of edges."""

from __future__ import annotations

import numpy as np

from diffdyad.clay import surface
from diffdyad.clay.forms import Array
from diffdyad.clay.mesh import Ints, Mesh
from diffdyad.clay.settle import normals
from diffdyad.clay.surface import EYE, MOUTH_HALF_WIDTH, distance, lip_heights, lip_line, project

SKIN = (0.60, 0.40, 0.31)
LIP = (0.45, 0.23, 0.195)
MOUTH = (0.42, 0.13, 0.115)
LID_EDGE, TEAR, EYE_CORNER = (0.14, 0.08, 0.06), (0.56, 0.33, 0.28), (0.78, 0.60, 0.55)
NOSTRIL = (0.20, 0.075, 0.06)


def on_face(xy: Array) -> Array:
    """Points of the face by (x, y), (..., 2) -> (..., 3), met from the front."""
    flat = xy.reshape(-1, 2)
    start = np.concatenate([flat, np.full((len(flat), 1), 35.0)], 1)
    toward = np.tile([0.0, 0.0, 1.0], (len(flat), 1))
    return project(start, toward).reshape(*xy.shape[:-1], 3)


def _relax(rings: Array, fixed_inner: int, passes: int = 12) -> Array:
    """Evens out rings (K, N, 2) that run round and round; the first `fixed_inner` and the last stay."""
    rings = rings.copy()
    for _ in range(passes):
        inner = rings[fixed_inner:-1]
        around = (np.roll(inner, 1, 1) + np.roll(inner, -1, 1)) / 2
        across = (rings[fixed_inner - 1 : -2] + rings[fixed_inner + 1 :]) / 2
        rings[fixed_inner:-1] = 0.5 * inner + 0.25 * (around + across)
    return rings


def around(count: int) -> tuple[Array, Array]:
    """Position on an opening's edge for `count` points around it: across (-1 .. 1 .. -1) and side (+1 upper, -1)."""
    half = count // 2
    t = np.linspace(-1, 1, half + 1)
    t = 0.3 * t + 0.7 * np.sin(np.pi / 2 * t)
    across = np.concatenate([t, t[-2:0:-1]])
    side = np.concatenate([np.ones(half + 1), -np.ones(half - 1)])
    side[[0, half]] = 0
    return across, side


def add_mouth(mesh: Mesh, outline: Ints) -> tuple[Ints, Ints]:
    border = mesh.vertices[outline][:, :2]
    across, side = around(len(outline))
    rings = []
    # lip line, middle of the red, its border, and steps beyond; each a little wider than the last
    for wider, share in ((0.0, 0.0), (1.0, 0.45), (2.2, 1.0), (2.9, 1.17), (4.6, 1.55)):
        x = (MOUTH_HALF_WIDTH + wider) * across
        upper, lower = lip_heights(x, MOUTH_HALF_WIDTH + wider)
        rings.append(np.stack([x, lip_line(x) + share * np.where(side > 0, upper, -lower) * (side != 0)], -1))
    blend = np.linspace(0, 1, 4)[1:, None, None]
    rings = np.concatenate([rings, rings[-1] * (1 - blend) + border * blend])
    rings = _relax(rings, 5)
    count = len(rings) - 1
    placed = on_face(rings[:count])
    # a little between the lips, less at the corners: their opening has a direction at rest
    placed[0, :, 1] += side * (0.04 + 0.14 * (1 - np.abs(across) ** 3))
    indices = mesh.add(placed, SKIN, 0.3, "skin")
    red = 1 - np.abs(across) ** 6
    for ring, share in ((0, 1.0), (1, 1.0), (2, 0.9)):
        amount = (share * (red if ring else np.maximum(red, 0.6)))[:, None]
        mesh.colours[indices[ring]] = amount * LIP + (1 - amount) * SKIN
        mesh.gloss[indices[ring]] = 0.42
    # inwards: over the lip's edge, up behind it, and back to the throat; (depth, height, width)
    inner = []
    way = ((1.4, -0.12, 1.0), (4.6, 1.5, 1.0), (6.6, 8.0, 1.02), (14, 15.0, 1.0), (32, 16, 1.0), (50, 10, 0.7))
    for depth, height, width in way:
        ring = placed[0].copy()
        ring[:, 0] *= width
        bulge = np.sqrt(np.clip(1 - across**2, 0, 1))
        ring[:, 1] += side * height * bulge
        ring[:, 2] = ring[:, 2] * (1 - min(depth / 50, 1)) + 57 * min(depth / 50, 1) - depth
        inner.append(ring)
    cavity = mesh.add(np.array(inner), MOUTH, 0.56, "cavity")
    mesh.gloss[cavity[:2]] = 0.4
    mesh.colours[cavity[-1:]] *= 0.5
    mesh.colours[cavity[0]] = LIP
    mesh.colours[cavity[1]] = np.array(LIP) * 0.6 + np.array(MOUTH) * 0.4
    mesh.sheet(np.concatenate([cavity[::-1], indices, outline[None]]), closed=True)
    throat = mesh.add(np.array([[0, -46.0, 2.0]]), np.array(MOUTH) * 0.5, 0.56, "cavity")
    mesh.fan(int(throat[0]), cavity[-1], flip=True)
    half = len(outline) // 2
    # the corners belong to both lips
    mesh.sets["inner_lip_upper"] = indices[0, 1:half]
    mesh.sets["inner_lip_lower"] = indices[0, :half:-1]
    mesh.sets["lips"] = indices[:3].ravel()
    return indices, np.concatenate([cavity.ravel(), throat]).reshape(-1)


def lid_edges(across: Array, side: Array, grow: float = 0.0, upper: float = 0.0, lower: float = 0.0) -> Array:
    """Points (N, 2) around the left eye's opening: x, y in mm. `grow` widens, `upper` and `lower` heighten, in mm."""
    x = 31.6 + (15.0 + grow) * across
    axis = 22.2 + 1.1 * across
    peak = np.clip(1 - np.abs(across) ** 2.1, 0, 1)
    above = (4.6 + upper) * peak**0.9 * (1 - 0.10 * across)
    below = (5.1 + lower) * peak**0.95 * (1 + 0.12 * across)
    lift = np.where(side > 0, above, -below)
    return np.stack([x, axis + lift * (side != 0)], -1)


# rings around an eye: mm wider at the corners, higher above and below
_LID_RINGS = ((0, 0, 0), (0.9, 1.7, 1.6), (1.8, 3.3, 3.3), (2.6, 4.0, 5.0), (3.6, 5.2, 6.8))
_CREASE, _FOLD = 3, 4


def add_eye(mesh: Mesh, outline: Ints, sign: float) -> tuple[Ints, Ints]:
    border = mesh.vertices[outline][:, :2] * np.array([sign, 1.0])
    across, side = around(len(outline))
    rings = [lid_edges(across, side, *ring) for ring in _LID_RINGS]
    blend = np.linspace(0, 1, 4)[1:, None, None]
    rings = np.concatenate([rings, rings[-1] * (1 - blend) + border * blend])
    rings = _relax(rings, len(_LID_RINGS))[:-1]
    placed = on_face(rings)
    # the fold hangs over the crease, most in the middle of the upper lid
    over = np.clip(side, 0, 1) * np.clip(1 - across**4, 0, 1)
    placed[_CREASE, :, 2] -= 1.35 * over
    placed[_FOLD, :, 1] -= 1.0 * over
    mirror = np.array([sign, 1.0, 1.0])
    indices = mesh.add(placed * mirror, SKIN, 0.3, "skin")
    # lashes darken the upper edge, and neither the lower one nor the corner at the nose much
    lash = (np.where(side > 0, 1.0, 0.35) * np.clip((across + 0.95) / 0.5, 0, 1))[:, None]
    mesh.colours[indices[0]] = lash * LID_EDGE + (1 - lash) * TEAR
    # the lid's thickness, and a skirt behind it that slides over the eyeball
    inner = []
    for radius, open_by in ((surface.EYE_RADIUS + 0.25, 0.0), (surface.EYE_RADIUS - 0.8, 0.35)):
        away = placed[0] - EYE
        away[:, 1] += open_by * side * 12
        away *= radius / np.linalg.norm(away, axis=1, keepdims=True)
        inner.append(EYE + away)
    inner = mesh.add(np.array(inner) * mirror, LID_EDGE, 0.3, "lid_inside")
    # in the corners it is seen, and stands for the white that a rounder eyeball would show there
    corner = np.clip((np.abs(across) - 0.55) / 0.3, 0, 1)[:, None]
    mesh.colours[inner] = TEAR + corner * (np.array(EYE_CORNER) - TEAR)
    mesh.sheet(np.concatenate([inner[::-1], indices, outline[None]]), closed=True, flip=sign < 0)
    side_name, half = ("left" if sign > 0 else "right"), len(outline) // 2
    mesh.sets[f"{side_name}_lid_upper"] = indices[0, : half + 1]
    mesh.sets[f"{side_name}_lid_lower"] = np.roll(indices[0, ::-1], 1)[: half + 1]
    mesh.sets.setdefault("eyelids", np.zeros(0, np.int64))
    mesh.sets["eyelids"] = np.concatenate([mesh.sets["eyelids"], indices[:5].ravel(), inner.ravel()])
    return indices, inner


def add_nostril(mesh: Mesh, outline: Ints, sign: float) -> Ints:
    """A rim on the nose's underside and a pocket behind it; returns the rim (N,)."""
    count = len(outline)
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)[:, None]
    centre = np.array([6.7, -18.4, 63.0])
    ahead, aside = np.array([-2.4, 1.7, 4.9]), np.array([2.6, 1.0, 1.2])
    rim = centre - np.cos(turn) * aside + np.sin(turn) * ahead
    for _ in range(6):
        rim = rim - distance(rim)[:, None] * normals(rim)
    mirror = np.array([sign, 1.0, 1.0])
    indices = mesh.add(rim * mirror, SKIN, 0.3, "skin")
    rings = []
    for depth, width in ((1.6, 0.9), (5.0, 0.8), (9.0, 0.5)):
        rings.append(rim.mean(0) + (rim - rim.mean(0)) * width + depth * np.array([0.1, 0.85, -0.5]))
    inner = mesh.add(np.array(rings) * mirror, NOSTRIL, 0.2, "nostrils")
    mesh.colours[inner[0]] = 0.55 * np.array(SKIN) * np.array([1.0, 0.75, 0.7])
    end = mesh.add(np.array(rings[-1]).mean(0)[None] * mirror, NOSTRIL, 0.2, "nostrils")
    mesh.sheet(np.concatenate([inner[::-1], indices[None], outline[None]]), closed=True, flip=sign < 0)
    mesh.fan(int(end[0]), inner[-1], flip=sign > 0)
    return indices
