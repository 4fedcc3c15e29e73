"""Evens out a mesh on the clay head's surface: vertices slide until each sits amid its neighbours."""

from __future__ import annotations

import numpy as np

from diffdyad.clay.forms import Array
from diffdyad.clay.mesh import Ints, Mesh, mirrored, partners
from diffdyad.clay.surface import distance

_STEP_MM = 0.02


def normals(points: Array) -> Array:
    """Unit gradients of the surface's distance at points (N, 3)."""
    side = np.where(points[:, :1] < 0, [-1.0, 1, 1], [1.0, 1, 1])
    points = points * side  # on one side, so that mirrored points get mirrored answers
    here = distance(points)
    found = np.stack([distance(points + _STEP_MM * axis) - here for axis in np.eye(3)], -1) * side
    found[points[:, 0] < 1e-6, 0] = 0
    return found / np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-9)


def settle(mesh: Mesh, free: Ints, passes: int, pull: float = 0.5) -> None:
    """Slides the vertices `free` (N,), both sides' alike, over the surface; the others stay."""
    partner = partners(mesh.vertices)
    free = free[mesh.vertices[free, 0] > -1e-6]
    middle = partner[free] == free
    ends = np.array(sorted({pair for quad in mesh.quads for pair in zip(quad, quad[1:] + quad[:1], strict=True)}))
    ends = np.unique(np.concatenate([ends, ends[:, ::-1]]), axis=0)
    place = np.full(len(mesh.vertices), -1)
    place[free] = np.arange(len(free))
    ends = ends[(place[ends[:, 0]] >= 0) & (ends[:, 0] != ends[:, 1])]
    row, neighbour = place[ends[:, 0]], ends[:, 1]
    counts = np.bincount(row, minlength=len(free))[:, None]

    def put(points: Array) -> None:
        points[middle, 0] = 0
        mesh.vertices[free] = points
        mesh.vertices[partner[free]] = mirrored(points)

    for _ in range(passes):
        here = mesh.vertices[free]
        sums = np.zeros_like(here)
        np.add.at(sums, row, mesh.vertices[neighbour])
        move = sums / counts - here
        normal = normals(here)
        moved = here + pull * (move - (move * normal).sum(-1, keepdims=True) * normal)
        put(moved - np.clip(distance(moved), -1, 1)[:, None] * normal)
    for _ in range(2):
        here = mesh.vertices[free]
        put(here - np.clip(distance(here), -1, 1)[:, None] * normals(here))
