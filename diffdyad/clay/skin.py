"""The clay head's skin: a grid around the head, with rings of edges around the mouth and the eyes.

Rows run from the crown to the neck, columns from the front's midline to the left, round the back, and home. Holes in
the grid are filled with rings that end in the lips' and the lids' edges: these are edges of the mesh, so a mouth
opens along a clean line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffdyad.clay.forms import Array, ramp
from diffdyad.clay.mesh import Ints, Mesh, mirrored
from diffdyad.clay.openings import SKIN, add_eye, add_mouth, add_nostril
from diffdyad.clay.settle import normals, settle
from diffdyad.clay.surface import project

SHIRT = (0.040, 0.046, 0.058)

# key rows of the rough form: front (y, z), side (x, y, z), back (y, z), and how many rows lead to the next
_KEYS = np.array([
    [132.0, -40, 0.5, 132, -44, 132, -48, 2],
    [122.0, 10, 50, 118, -44, 122, -96, 3],
    [96.0, 37, 68, 90, -44, 96, -126, 4],
    [64.0, 50, 75, 58, -42, 60, -140, 5],
    [40.0, 51, 75, 34, -40, 26, -140, 5],
    [22.0, 50, 73, 16, -38, -4, -131, 7],
    [-8.0, 55, 70, -8, -37, -23, -122, 5],
    [-20.0, 57, 68, -18, -36, -32, -119, 7],
    [-45.0, 58, 60, -40, -36, -52, -114, 8],
    [-75.0, 56, 53, -60, -38, -68, -114, 4],
    [-91.0, 46, 52, -74, -43, -80, -116, 3],
    [-98.0, 24, 51, -86, -50, -92, -119, 2],
    [-110.0, -4, 51, -104, -60, -106, -114, 2],
    [-132.0, -10, 54, -124, -70, -122, -122, 2],
    [-158.0, -18, 64, -139, -74, -132, -127, 2],
    [-180.0, -15, 82, -153, -78, -146, -134, 2],
    [-216.0, 0, 172, -208, -82, -208, -145, 0],
])  # fmt: skip
_FRONT_X = np.array([0, 3, 6, 9.2, 12.6, 16.2, 20, 24, 28, 32, 36.2, 40.5, 45, 50, 55.5, 61.0])
# further columns: z that they would have at the ears' height
_SIDE_Z = np.array([0.0, -20, -36, -44, -51, -58, -72, -92, -111])
_SIDE_COLUMNS = len(_SIDE_Z) + 1
HALF_COLUMNS = len(_FRONT_X) - 1 + _SIDE_COLUMNS
COLUMNS = 2 * HALF_COLUMNS
# the row at which the skin ends and a shirt begins
COLLAR_ROW = int(_KEYS[:-3, 7].sum())
# holes: rows and columns (from the midline) of their outline
MOUTH_ROWS, MOUTH_COLUMNS = (32, 44), 12
EYE_ROWS, EYE_COLUMNS = (15, 24), (3, 14)
NOSTRIL_ROWS, NOSTRIL_COLUMNS = (28, 31), [1, 2, 3]
EAR_ROWS, EAR_COLUMNS = (18, 27), [19, 20, 21]  # stays open: an ear covers it, and its bowl lies deeper


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
    ahead, behind = 53.0 + 37.0, -125.0 + 37.0
    side = np.arccos(np.where(_SIDE_Z > -37, (_SIDE_Z + 37) / ahead, (_SIDE_Z + 37) / -behind))
    u = np.concatenate([front, side, [np.pi]])
    v = np.concatenate([k + np.arange(n) / n for k, n in enumerate(_KEYS[:-1, 7].astype(int))] + [[len(_KEYS) - 1.0]])
    v = np.clip(v, 0, len(_KEYS) - 1 - 1e-9)
    v, u = (axis.ravel() for axis in np.meshgrid(v, u, indexing="ij"))
    start, h = _loft(u, v), 1e-3
    along = (_loft(u + h, v) - _loft(u - h, v)) / (2 * h)
    down = (_loft(u, np.clip(v + h, 0, None)) - _loft(u, np.clip(v - h, 0, None))) / (2 * h)
    normal = np.cross(down, along)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    # the face is met from the front, so that its columns and rows stay where they are drawn
    facing = ramp(np.cos(u), 0.55, 0.85) * ramp(v, 3.0, 4.0) * ramp(-v, -9.6, -8.6)
    direction = normal * (1 - facing)[:, None] + np.array([0, 0, 1.0]) * facing[:, None]
    # the neck is met level, so that the collar lies in a plane
    level = ramp(v, 11.5, 12.5) * (1 - ramp(v, 14.1, 15.0))
    direction[:, 1] *= 1 - level
    crown = v < 0.5
    direction[crown] = start[crown] - np.array([0, 50, -44])
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    middle = (u < 1e-6) | (u > np.pi - 1e-6)
    direction[middle, 0] = 0
    placed = project(start, direction / np.linalg.norm(direction, axis=1, keepdims=True))
    placed[middle, 0] = 0
    return placed.reshape(-1, HALF_COLUMNS + 1, 3)


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
    nostrils = [NOSTRIL_COLUMNS, [-c % COLUMNS for c in NOSTRIL_COLUMNS]]
    holes += [(NOSTRIL_ROWS, columns) for columns in nostrils]
    ears = [EAR_COLUMNS, [-c % COLUMNS for c in EAR_COLUMNS]]
    holes += [(EAR_ROWS, columns) for columns in ears]
    for (top, bottom), columns in holes:
        used[top + 1 : bottom, columns[1:-1]] = False
    used[0, 1:] = False  # the crown is one vertex
    used[COLLAR_ROW + 1 :] = False
    index = np.full((rows, COLUMNS), -1)
    index[used] = mesh.add(points[used], SKIN, 0.3, "skin")
    index[0] = index[0, 0]
    cells = np.ones((rows - 1, COLUMNS), bool)
    cells[COLLAR_ROW:] = False
    for (top, bottom), columns in holes:
        inside = columns[:-1] if (columns[1] - columns[0]) % COLUMNS == 1 else columns[1:]
        cells[top:bottom, inside] = False
    for r, c in zip(*np.nonzero(cells), strict=True):
        n = (c + 1) % COLUMNS
        mesh.quads.append((index[r, c], index[r + 1, c], index[r + 1, n], index[r, n]))
    lips, cavity = add_mouth(mesh, _outline(index, MOUTH_ROWS, mouth_columns))
    left, left_inner = add_eye(mesh, _outline(index, EYE_ROWS, eye_columns), 1.0)
    right, right_inner = add_eye(mesh, _outline(index, EYE_ROWS, [-c % COLUMNS for c in eye_columns]), -1.0)
    rims = [
        add_nostril(mesh, _outline(index, NOSTRIL_ROWS, columns), sign)
        for columns, sign in zip(nostrils, (1.0, -1.0), strict=True)
    ]
    _add_shirt(mesh, points[COLLAR_ROW:])
    held = np.concatenate([lips[:5].ravel(), left[:5].ravel(), right[:5].ravel(), cavity.ravel(), *rims])
    held = np.concatenate([held, *(_outline(index, EAR_ROWS, columns) for columns in ears)])
    held = np.concatenate([held, index[COLLAR_ROW]])
    skin = np.setdiff1d(mesh.sets["skin"], held)
    x, y, z = mesh.vertices[skin].T
    settle(mesh, skin, 6)
    settle(mesh, skin[(z > -5) & (y < 60) & (y > -90)], 18)
    return Skin(lips, cavity, {"left": left, "right": right}, {"left": left_inner, "right": right_inner})


def _add_shirt(mesh: Mesh, rows: Array) -> None:
    """What the shoulders wear, from the collar's row of the grid downwards, (R, COLUMNS, 3)."""
    way = np.array([0.0, 0.0, 0.12, 0.45, 0.55, *range(1, len(rows))])
    out = np.array([-1.0, 2.4, 3.0, 2.8, 1.6, *[1.8] * (len(rows) - 1)])
    first = np.floor(way).astype(int).clip(0, len(rows) - 2)
    share = (way - first)[:, None, None]
    points = rows[first] * (1 - share) + rows[first + 1] * share
    points = points + out[:, None, None] * normals(points.reshape(-1, 3)).reshape(points.shape)
    points[:, 0, 0] = points[:, HALF_COLUMNS, 0] = 0
    mesh.sheet(mesh.add(points, SHIRT, 0.22, "shirt"), closed=True, flip=True)
