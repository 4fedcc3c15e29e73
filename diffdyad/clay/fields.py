"""Coordinates and fades in which the clay head's motion is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffdyad.clay.forms import Array
from diffdyad.clay.mesh import Mesh
from diffdyad.clay.skin import Skin
from diffdyad.clay.surface import MOUTH_HALF_WIDTH, lip_line


def blob(points: Array, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Array:
    """A bump of height 1 at `centre`, falling off over `radii`; (V, 3) -> (V,)."""
    return np.exp(-(((points - np.array(centre)) / np.array(radii)) ** 2).sum(-1))


@dataclass
class Mouth:
    """Elliptic coordinates about the slit between the lips, per vertex.

    The lip line from corner to corner is the slit: `reach` is 0 on it and grows outwards (about 1.3 at the nose and the
    chin); `side` is +1 above, -1 below, 0 on the line that continues the slit beyond the corners: smooth everywhere
    but across the slit. `across` is -1 at the right corner, +1 at the left. `depth`: mm behind the lips' edge.
    """

    reach: Array
    side: Array
    across: Array
    depth: Array

    @classmethod
    def of(cls, mesh: Mesh, skin: Skin) -> Mouth:
        x, y, _ = mesh.vertices.T
        height = y - lip_line(np.clip(x, -MOUTH_HALF_WIDTH, MOUTH_HALF_WIDTH))
        reach, side, across = _elliptic(x, height)
        rings = skin.lip_rings.shape[1]
        cavity = skin.cavity_rings[:-1].reshape(-1, rings)
        edge = skin.lip_rings[0]
        depth = np.zeros(len(x))
        half = rings // 2
        sign = np.concatenate([[0.0], np.ones(half - 1), [0.0], -np.ones(half - 1)])
        share = np.sqrt(np.clip(1 - (x[edge] / MOUTH_HALF_WIDTH) ** 2, 0, 1))
        for ring in (edge, *cavity):
            # the inside of a lip belongs to the lip, whatever its height
            reach[ring], side[ring], across[ring] = 0.0, sign * share, np.clip(x[edge] / MOUTH_HALF_WIDTH, -1, 1)
            depth[ring] = mesh.vertices[edge, 2] - mesh.vertices[ring, 2]
        throat = skin.cavity_rings[-1]
        reach[throat], side[throat], across[throat], depth[throat] = 0, 0, 0, 60
        return cls(reach, side, across, depth)


def _elliptic(x: Array, y: Array) -> tuple[Array, Array, Array]:
    w = np.arccosh((x + 1j * np.where(y == 0, 1e-9, y)) / MOUTH_HALF_WIDTH)
    angle = np.where(w.real < 0, -w.imag, w.imag)
    # the elliptic radius rises like a square root at the corners, where it would crumple the skin; the one of the
    # point above the middle that is as far from the slit rises evenly
    distance = np.hypot(np.clip(np.abs(x) - MOUTH_HALF_WIDTH, 0, None), y)
    return np.arcsinh(distance / MOUTH_HALF_WIDTH), np.sin(angle), np.cos(angle)
