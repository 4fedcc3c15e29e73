"""Meshes: smooth normals, and one step of subdivision as a linear map of the vertices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffdyad.render.camera import Floats, unit

Ints = NDArray[np.int64]


class RowSums:
    """A fixed sparse matrix, applied by sums over runs: (columns, k) -> (rows, k). Empty rows give zeros."""

    def __init__(self, num_rows: int, rows: Ints, columns: Ints, weights=None):
        order = np.lexsort((columns, rows))
        self.num_rows, self.columns = num_rows, columns[order]
        self.weights = None if weights is None else np.asarray(weights, np.float32)[order]
        self.filled, self.starts = np.unique(rows[order], return_index=True)

    def __call__(self, values: Floats) -> Floats:
        gathered = np.take(np.ascontiguousarray(values.T), self.columns, axis=1)
        if self.weights is not None:
            gathered *= self.weights
        sums = np.add.reduceat(gathered, self.starts, axis=1).T
        if len(self.filled) == self.num_rows:
            return np.ascontiguousarray(sums)
        result = np.zeros((self.num_rows, values.shape[1]), np.float32)
        result[self.filled] = sums
        return result


def vertex_normals(points: Floats, faces, around: RowSums) -> Floats:  # (V, 3), (F, 3) -> (V, 3)
    """Area-weighted unit normals; `around` sums the faces at each vertex."""
    a, b, c = (np.take(points, faces[:, k], axis=0) for k in range(3))
    u, v = b - a, c - a
    cross = np.stack([u[:, i - 2] * v[:, i - 1] - u[:, i - 1] * v[:, i - 2] for i in range(3)], axis=1)
    return unit(around(cross))


def loop_subdivision(faces: Ints, num_vertices: int) -> tuple[Ints, RowSums]:  # (F, 3) -> (4F, 3), matrix
    """One step of Loop's scheme (Loop 1987, with Warren's weights).

    The first `num_vertices` rows are the old vertices, smoothed, the others sit on the edges; the fine faces
    4i .. 4i + 3 lie in face i. Borders follow the border's own curve, so that two borders through the same
    points stay together.
    """
    ends = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    opposite = faces[:, [2, 0, 1]].reshape(-1)
    edges, edge_of = np.unique(np.sort(ends, axis=1), axis=0, return_inverse=True)
    edge_of = edge_of.reshape(-1)
    inside = np.bincount(edge_of, minlength=len(edges)) == 2
    entries: list[tuple] = []

    def add(row, column, weight):
        entries.append((row, column, np.broadcast_to(np.asarray(weight, np.float64), np.shape(row))))

    middle = num_vertices + np.arange(len(edges))
    for end in (0, 1):
        add(middle, edges[:, end], np.where(inside, 3 / 8, 1 / 2))
    wing = inside[edge_of]
    add(middle[edge_of[wing]], opposite[wing], 1 / 8)

    border = edges[~inside]
    degree = np.bincount(edges.reshape(-1), minlength=num_vertices)
    border_degree = np.bincount(border.reshape(-1), minlength=num_vertices)
    smooth, on_border = (border_degree == 0) & (degree > 0), border_degree == 2
    beta = np.where(degree == 3, 3 / 16, 3 / (8 * np.maximum(degree, 1)))
    old = np.arange(num_vertices)
    add(old, old, np.where(smooth, 1 - degree * beta, np.where(on_border, 3 / 4, 1)))
    for a, b in (edges.T, edges[:, ::-1].T):
        a, b = a[smooth[a]], b[smooth[a]]
        add(a, b, beta[a])
    for a, b in (border.T, border[:, ::-1].T):
        a, b = a[on_border[a]], b[on_border[a]]
        add(a, b, 1 / 8)

    a, b, c = faces.T
    ab, bc, ca = (num_vertices + edge_of.reshape(-1, 3)).T
    fine = np.stack([a, ab, ca, b, bc, ab, c, ca, bc, ab, bc, ca], axis=1).reshape(-1, 3)
    return fine, RowSums(num_vertices + len(edges), *(np.concatenate(part) for part in zip(*entries, strict=True)))
