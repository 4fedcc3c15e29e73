"""The clay head's skin: a grid around the head, with rings of edges around the mouth and the eyes.

Rows run from the crown to the neck, columns from the front's midline to the left, round the back, and home. Holes in
the grid are filled with rings that end in the lips' and the lids' edges: these are edges of the mesh, so a mouth
opens along a clean line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffdyad.clay import surface
from diffdyad.clay.mesh import Array, Ints, Mesh, mirrored
from diffdyad.clay.surface import EYE, MOUTH_HALF_WIDTH, lip_heights, lip_line, project

SKIN = (0.60, 0.40, 0.31)
LIP = (0.47, 0.20, 0.17)
MOUTH = (0.20, 0.05, 0.05)
LID_EDGE, TEAR, EYE_CORNER = (0.14, 0.08, 0.06), (0.56, 0.33, 0.28), (0.78, 0.60, 0.55)

# key rows of the rough form: front (y, z), side (x, y, z), back (y, z), and how many rows lead to the next
_KEYS = np.array([
    [132.0, -40, 0.5, 132, -44, 132, -48, 3],
    [122.0, 10, 50, 118, -44, 122, -96, 3],
    [96.0, 37, 68, 90, -44, 96, -126, 4],
    [64.0, 50, 75, 58, -42, 60, -140, 5],
    [40.0, 51, 75, 34, -40, 26, -140, 5],
    [22.0, 50, 73, 16, -38, -4, -131, 12],
    [-20.0, 57, 68, -18, -36, -32, -119, 7],
    [-45.0, 58, 60, -40, -36, -52, -114, 8],
    [-75.0, 56, 53, -60, -38, -68, -114, 4],
    [-91.0, 46, 52, -74, -43, -80, -116, 3],
    [-98.0, 24, 51, -86, -50, -92, -119, 3],
    [-110.0, 0, 51, -104, -60, -106, -124, 3],
    [-132.0, -14, 56, -130, -70, -130, -131, 3],
    [-158.0, -12, 90, -162, -74, -156, -142, 0],
])  # fmt: skip
_FRONT_X = np.array([0, 3, 6, 9.2, 12.6, 16.2, 20, 24, 28, 32, 36.2, 40.5, 45, 50, 55.5, 61.0])
_SIDE_COLUMNS = 10
HALF_COLUMNS = len(_FRONT_X) - 1 + _SIDE_COLUMNS
COLUMNS = 2 * HALF_COLUMNS
# holes: rows and columns (from the midline) of their outline
MOUTH_ROWS, MOUTH_COLUMNS = (33, 45), 12
EYE_ROWS, EYE_COLUMNS = (16, 25), (3, 14)


@dataclass
class Skin:
    """Index rings: lips[k] (N,) from the lip line outwards, k = 0 the lip line; cavity rings inwards; lids by side."""

    lip_rings: Ints
    cavity_rings: Ints
    lid_rings: dict[str, Ints]
    lid_inner_rings: dict[str, Ints]


def _loft(u: Array, v: Array) -> Array:
    """Rough form at column angle u (radians from the front) and row key v: (N,), (N,) -> (N, 3)."""
    keys = _KEYS[:, :7]
    i = np.clip(v.astype(int), 0, len(keys) - 2)
    t = (v - i)[:, None]
    before, after = keys[np.maximum(i - 1, 0)], keys[np.minimum(i + 2, len(keys) - 1)]
    a, b = keys[i], keys[i + 1]
    bend, twist = 2 * before - 5 * a + 4 * b - after, 3 * a - before - 3 * b + after
    row = 0.5 * (2 * a + (b - before) * t + bend * t**2 + twist * t**3)  # Catmull-Rom
    front_y, front_z, side_x, side_y, side_z, back_y, back_z = row.T
    c = np.cos(u)
    end_y, end_z = np.where(c > 0, front_y, back_y), np.where(c > 0, front_z, back_z)
    share = np.abs(c)
    return np.stack([side_x * np.sin(u), side_y + (end_y - side_y) * share, side_z + (end_z - side_z) * share], -1)


def _grid() -> Array:
    """Vertices of the left half's grid, (rows, HALF_COLUMNS + 1, 3), on the surface."""
    front = np.arcsin(_FRONT_X / 75)
    u = np.concatenate([front, np.linspace(front[-1], np.pi, _SIDE_COLUMNS + 1)[1:]])
    v = np.concatenate([k + np.arange(n) / n for k, n in enumerate(_KEYS[:-1, 7].astype(int))] + [[len(_KEYS) - 1.0]])
    v = np.clip(v, 0, len(_KEYS) - 1 - 1e-9)
    v, u = (axis.ravel() for axis in np.meshgrid(v, u, indexing="ij"))
    start, h = _loft(u, v), 1e-3
    along = (_loft(u + h, v) - _loft(u - h, v)) / (2 * h)
    down = (_loft(u, np.clip(v + h, 0, None)) - _loft(u, np.clip(v - h, 0, None))) / (2 * h)
    normal = np.cross(down, along)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    # the face is met from the front, so that its columns and rows stay where they are drawn
    facing = _smooth(np.cos(u), 0.55, 0.85) * _smooth(v, 3.0, 4.0) * _smooth(-v, -8.6, -7.6)
    direction = normal * (1 - facing)[:, None] + np.array([0, 0, 1.0]) * facing[:, None]
    crown = v < 0.5
    direction[crown] = start[crown] - np.array([0, 50, -44])
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    middle = (u < 1e-6) | (u > np.pi - 1e-6)
    direction[middle, 0] = 0
    placed = project(start, direction / np.linalg.norm(direction, axis=1, keepdims=True))
    placed[middle, 0] = 0
    return placed.reshape(-1, HALF_COLUMNS + 1, 3)


def _smooth(x: Array, low: float, high: float) -> Array:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


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


def _outline(grid: Ints, rows: tuple[int, int], columns: list[int]) -> Ints:
    """Indices around a hole, from the middle of its first column's side over the top, clockwise from outside."""
    top, bottom = rows
    middle = (top + bottom) // 2
    first, last = columns[0], columns[-1]
    side_up = [grid[r, first] for r in range(middle, top, -1)]
    over = [grid[top, c] for c in columns]
    side_down = [grid[r, last] for r in range(top + 1, bottom)]
    under = [grid[bottom, c] for c in reversed(columns)]
    home = [grid[r, first] for r in range(bottom - 1, middle, -1)]
    return np.array(side_up + over + side_down + under + home)


def build(mesh: Mesh) -> Skin:
    """Adds skin and mouth cavity to an empty mesh."""
    half = _grid()
    other = mirrored(half[:, 1:-1])[:, ::-1]
    points = np.concatenate([half, other], 1)
    rows = len(points)
    used = np.ones((rows, COLUMNS), bool)
    eye_columns = list(range(EYE_COLUMNS[0], EYE_COLUMNS[1] + 1))
    mouth_columns = [c % COLUMNS for c in range(-MOUTH_COLUMNS, MOUTH_COLUMNS + 1)]
    holes = [(EYE_ROWS, eye_columns), (EYE_ROWS, [-c % COLUMNS for c in eye_columns]), (MOUTH_ROWS, mouth_columns)]
    for (top, bottom), columns in holes:
        used[top + 1 : bottom, columns[1:-1]] = False
    used[0, 1:] = False  # the crown is one vertex
    index = np.full((rows, COLUMNS), -1)
    index[used] = mesh.add(points[used], SKIN, 0.3, "skin")
    index[0] = index[0, 0]
    # the nostrils are too small for these edges: paint helps
    at = mesh.vertices * np.array([1.0, 1.0, 0.5]) - np.array([0.0, -20.5, 29.5])
    shade = np.exp(-((np.abs(at[:, 0]) - 5.8) ** 2 + at[:, 1] ** 2 + at[:, 2] ** 2) / 2.6**2)[:, None]
    mesh.colours *= 1 - shade * np.array([0.75, 0.85, 0.85])
    cells = np.ones((rows - 1, COLUMNS), bool)
    for (top, bottom), columns in holes:
        inside = columns[:-1] if (columns[1] - columns[0]) % COLUMNS == 1 else columns[1:]
        cells[top:bottom, inside] = False
    for r, c in zip(*np.nonzero(cells), strict=True):
        n = (c + 1) % COLUMNS
        mesh.quads.append((index[r, c], index[r + 1, c], index[r + 1, n], index[r, n]))
    lips, cavity = _mouth(mesh, _outline(index, MOUTH_ROWS, mouth_columns))
    left, left_inner = _eye(mesh, _outline(index, EYE_ROWS, eye_columns), 1.0)
    right, right_inner = _eye(mesh, _outline(index, EYE_ROWS, [-c % COLUMNS for c in eye_columns]), -1.0)
    return Skin(lips, cavity, {"left": left, "right": right}, {"left": left_inner, "right": right_inner})


def around(count: int) -> tuple[Array, Array]:
    """Position on an opening's edge for `count` points around it: across (-1 .. 1 .. -1) and side (+1 upper, -1)."""
    half = count // 2
    t = np.linspace(-1, 1, half + 1)
    t = 0.3 * t + 0.7 * np.sin(np.pi / 2 * t)
    across = np.concatenate([t, t[-2:0:-1]])
    side = np.concatenate([np.ones(half + 1), -np.ones(half - 1)])
    side[[0, half]] = 0
    return across, side


def _mouth(mesh: Mesh, outline: Ints) -> tuple[Ints, Ints]:
    border = mesh.vertices[outline][:, :2]
    across, side = around(len(outline))
    rings = []
    # lip line, middle of the red, its border, and a step beyond; each a little wider than the last
    for wider, share in ((0.0, 0.0), (1.0, 0.45), (2.2, 1.0), (4.6, 1.55)):
        x = (MOUTH_HALF_WIDTH + wider) * across
        upper, lower = lip_heights(x, MOUTH_HALF_WIDTH + wider)
        rings.append(np.stack([x, lip_line(x) + share * np.where(side > 0, upper, -lower) * (side != 0)], -1))
    blend = np.linspace(0, 1, 5)[1:, None, None]
    rings = np.concatenate([rings, rings[-1] * (1 - blend) + border * blend])
    rings = _relax(rings, 4)
    count = len(rings) - 1
    placed = on_face(rings[:count])
    placed[0, :, 1] += 0.25 * side  # half a millimetre between the lips: their opening has a direction at rest
    indices = mesh.add(placed, SKIN, 0.3, "skin")
    red = 1 - np.abs(across) ** 6
    for ring, share in ((0, 1.0), (1, 1.0), (2, 0.75)):
        amount = (share * (red if ring else np.maximum(red, 0.6)))[:, None]
        mesh.colours[indices[ring]] = amount * LIP + (1 - amount) * SKIN
        mesh.gloss[indices[ring]] = 0.5
    # inwards: over the lip's edge, up behind it, and back to the throat; (depth, height, width)
    inner = []
    way = ((2.5, 0.3, 1.0), (5.5, 1.5, 1.0), (7.5, 8.0, 1.02), (14, 15.0, 1.0), (32, 16, 1.0), (50, 10, 0.7))
    for depth, height, width in way:
        ring = placed[0].copy()
        ring[:, 0] *= width
        bulge = np.sqrt(np.clip(1 - across**2, 0, 1))
        ring[:, 1] += side * height * bulge
        ring[:, 2] = ring[:, 2] * (1 - min(depth / 50, 1)) + 57 * min(depth / 50, 1) - depth
        inner.append(ring)
    cavity = mesh.add(np.array(inner), MOUTH, 0.1, "cavity")
    mesh.gloss[cavity[:2]] = 0.4
    mesh.colours[cavity[-2:]] *= 0.4
    mesh.colours[cavity[0]] = LIP
    mesh.colours[cavity[1]] = np.array(LIP) * 0.6 + np.array(MOUTH) * 0.4
    mesh.sheet(np.concatenate([cavity[::-1], indices, outline[None]]), closed=True)
    throat = mesh.add(np.array([[0, -46.0, 2.0]]), np.array(MOUTH) * 0.4, 0.1, "cavity")
    mesh.fan(int(throat[0]), cavity[-1], flip=True)
    half = len(outline) // 2
    # the corners belong to both lips
    mesh.sets["inner_lip_upper"] = indices[0, 1:half]
    mesh.sets["inner_lip_lower"] = indices[0, :half:-1]
    mesh.sets["lips"] = indices[:3].ravel()
    return indices, np.concatenate([cavity.ravel(), throat]).reshape(-1)


def lid_edges(across: Array, side: Array, grow: float = 0.0, upper: float = 0.0, lower: float = 0.0) -> Array:
    """Points (N, 2) around the left eye's opening: x, y in mm. `grow` widens, `upper` and `lower` heighten, in mm."""
    x = 32.2 + (13.3 + grow) * across
    axis = 22.3 + 1.1 * across
    peak = np.clip(1 - np.abs(across) ** 2.1, 0, 1)
    above = (6.5 + upper) * peak**0.9 * (1 - 0.10 * across)
    below = (5.8 + lower) * peak**0.95 * (1 + 0.12 * across)
    lift = np.where(side > 0, above, -below)
    return np.stack([x, axis + lift * (side != 0)], -1)


def _eye(mesh: Mesh, outline: Ints, sign: float) -> tuple[Ints, Ints]:
    border = mesh.vertices[outline][:, :2] * np.array([sign, 1.0])
    across, side = around(len(outline))
    rings = [lid_edges(across, side), lid_edges(across, side, 1.2, 2.6, 2.0), lid_edges(across, side, 3.0, 5.6, 4.6)]
    blend = np.linspace(0, 1, 4)[1:, None, None]
    rings = np.concatenate([rings, rings[-1] * (1 - blend) + border * blend])
    rings = _relax(rings, 3)[:-1]
    placed = on_face(rings)
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
    mesh.sets["eyelids"] = np.concatenate([mesh.sets["eyelids"], indices[:4].ravel(), inner.ravel()])
    return indices, inner
