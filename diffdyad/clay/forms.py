"""A sculptor's tools as signed distances in mm: rounded bodies, soft unions and carvings, strokes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def ramp(x: Array, low: float, high: float) -> Array:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def union(a: Array, b: Array, softness: float) -> Array:
    """The nearer of two bodies; where they meet they melt into each other over `softness` mm."""
    h = np.clip(softness - np.abs(a - b), 0, None) / softness
    return np.minimum(a, b) - h * h * h * softness / 6


def carve(a: Array, b: Array, softness: float) -> Array:
    """`a` without `b`."""
    return -union(-a, b, softness)


def ellipsoid(p: Array, centre: tuple, radii: tuple) -> Array:
    q = p - np.array(centre)
    r = np.array(radii)
    near = np.sqrt(((q / r) ** 2).sum(-1))
    return near * (near - 1) / np.maximum(np.sqrt(((q / r**2) ** 2).sum(-1)), 1e-9)


def rod(p: Array, a: tuple, b: tuple, radius_a: float, radius_b: float) -> Array:
    a, b = np.array(a, float), np.array(b, float)
    along = np.clip((p - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
    q = p - a - along[..., None] * (b - a)
    return np.sqrt((q * q).sum(-1)) - (radius_a + (radius_b - radius_a) * along)


def tube(p: Array, points: list[tuple]) -> Array:
    """A bent rod through points (x, y, z, radius)."""
    parts = [rod(p, a[:3], b[:3], a[3], b[3]) for a, b in pairwise(points)]
    return np.min(parts, 0)


def dab(p: Array, centre: tuple, radius: float, height: float) -> Array:
    """A thumb's worth of clay: add it to a distance to heap up `height` mm around `centre`."""
    q = p - np.array(centre)
    return -height * np.exp(-(q * q).sum(-1) / radius**2)


def stroke(p: Array, points: list[tuple], width: float, axes: tuple[int, ...] = (0, 1)) -> Array:
    """What a tool drawn along a line leaves: add it to a distance to press in, in mm.

    points: (coordinates along `axes`..., depth); negative depths heap up. The line is seen along the axis that is
    left out, so its depth there need not be known.
    """
    q = p[..., axes]
    line = np.array(points, float)
    ends, depth = line[:, :-1], line[:, -1]
    best = np.full(q.shape[:-1], np.inf)
    at = np.zeros(q.shape[:-1])
    for k in range(len(line) - 1):
        way = ends[k + 1] - ends[k]
        along = np.clip((q - ends[k]) @ way / (way @ way), 0, 1)
        away = q - ends[k] - along[..., None] * way
        squared = (away * away).sum(-1)
        nearer = squared < best
        best = np.where(nearer, squared, best)
        at = np.where(nearer, depth[k] + (depth[k + 1] - depth[k]) * along, at)
    return at * np.exp(-best / width**2)
