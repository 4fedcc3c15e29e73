"""A mesh that grows by sheets of quads."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
_TIE_MM = 1e-6


@dataclass
class Mesh:
    """Vertices (V, 3) in mm with colours (V, 3) and gloss (V,); faces (F, 3) counter-clockwise from outside."""

    vertices: Array = field(default_factory=lambda: np.zeros((0, 3)))
    colours: Array = field(default_factory=lambda: np.zeros((0, 3)))
    gloss: Array = field(default_factory=lambda: np.zeros(0))
    quads: list[tuple[int, ...]] = field(default_factory=list)
    sets: dict[str, Ints] = field(default_factory=dict)

    def add(self, points: Array, colour, gloss: float, name: str | None = None) -> Ints:
        """Adds points (..., 3); returns their indices (...). `name` collects them in a set."""
        count = len(self.vertices)
        flat = points.reshape(-1, 3)
        self.vertices = np.concatenate([self.vertices, flat])
        self.colours = np.concatenate([self.colours, np.broadcast_to(colour, points.shape).reshape(-1, 3)])
        self.gloss = np.concatenate([self.gloss, np.full(len(flat), gloss)])
        indices = np.arange(count, count + len(flat))
        if name:
            self.sets[name] = np.concatenate([self.sets.get(name, np.zeros(0, np.int64)), indices])
        return indices.reshape(points.shape[:-1])

    def sheet(self, rows: Ints, closed: bool = False, flip: bool = False) -> None:
        """Quads between the rows of an index grid (R, C); `closed` joins the last column to the first."""
        if closed:
            rows = np.concatenate([rows, rows[:, :1]], 1)
        a, b, c, d = rows[:-1, :-1], rows[:-1, 1:], rows[1:, 1:], rows[1:, :-1]
        corners = np.stack([a, d, c, b] if flip else [a, b, c, d], -1).reshape(-1, 4)
        self.quads.extend(map(tuple, corners.tolist()))

    def fan(self, centre: int, ring: Ints, flip: bool = False) -> None:
        """Triangles from one vertex to a closed ring (N,)."""
        for first, second in zip(ring.tolist(), np.roll(ring, -1).tolist(), strict=True):
            self.quads.append((centre, second, first) if flip else (centre, first, second))

    def triangles(self) -> Ints:
        """(F, 3); each quad is cut along its shorter diagonal, so that mirrored quads are cut alike."""
        faces = []
        for quad in self.quads:
            corners = list(dict.fromkeys(quad))
            if len(corners) < 4:
                faces.append(corners)
                continue
            a, b, c, d = corners
            p = self.vertices
            # of equal diagonals always the same one: rounding, which differs between machines, decides nothing
            if np.linalg.norm(p[a] - p[c]) <= np.linalg.norm(p[b] - p[d]) + _TIE_MM:
                faces += [(a, b, c), (a, c, d)]
            else:
                faces += [(a, b, d), (b, c, d)]
        return np.array([face for face in faces if len(face) == 3], np.int64)


def mirrored(points: Array) -> Array:
    return points * np.array([-1.0, 1.0, 1.0])


def partners(vertices: Array) -> Ints:
    """For each vertex (V, 3) the one at its mirror image; the mesh is symmetric up to rounding."""
    order = np.argsort(vertices[:, 1], kind="stable")
    heights = vertices[order, 1]
    first = np.searchsorted(heights, vertices[:, 1] - 1e-6)
    last = np.searchsorted(heights, vertices[:, 1] + 1e-6)
    images, found = mirrored(vertices), np.empty(len(vertices), np.int64)
    for k, image in enumerate(images):
        near = order[first[k] : last[k]]
        gap = np.abs(vertices[near] - image).max(-1)
        if gap.min() > 1e-6:
            raise ArithmeticError("the clay head is not symmetric")
        found[k] = near[gap.argmin()]
    return found
