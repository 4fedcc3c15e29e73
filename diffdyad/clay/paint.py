"""The clay head's complexion: where blood, bone and stubble show, and where hair grows."""

from __future__ import annotations

import numpy as np

from diffdyad.clay import hair
from diffdyad.clay.fields import blob
from diffdyad.clay.mesh import Mesh

# where (on the left, mm), how far, and what the skin's red, green and blue are multiplied with there
_TINTS = (
    ((40, -10, 30), (19, 15, 24), (1.00, 0.87, 0.86)),  # cheek
    ((0, -11, 70), (9, 9, 16), (1.01, 0.85, 0.84)),  # tip of the nose
    ((13, -14, 56), (6, 7, 14), (1.00, 0.86, 0.85)),  # its wing
    ((0, -80, 54), (16, 11, 20), (1.00, 0.92, 0.92)),  # chin
    ((0, 66, 50), (46, 26, 40), (1.02, 1.00, 0.97)),  # forehead
    ((31, 28, 37), (14, 5, 14), (0.95, 0.86, 0.86)),  # upper lid
    ((29, 12, 35), (14, 5, 14), (0.95, 0.88, 0.90)),  # below the eye
    ((17, 21, 32), (4, 5, 12), (0.97, 0.82, 0.82)),  # inner corner
    ((24, -23, 48), (5, 12, 16), (0.99, 0.91, 0.90)),  # fold beside the nose
    ((0, -32, 57), (15, 6, 16), (0.95, 0.93, 0.95)),  # upper lip
    ((18, -72, 46), (22, 14, 30), (0.95, 0.94, 0.96)),  # jaw
    ((44, -52, 10), (18, 18, 30), (0.96, 0.95, 0.97)),
    ((0, -130, -30), (60, 30, 60), (0.98, 0.95, 0.93)),  # neck
)


def paint(mesh: Mesh) -> None:
    """Tints what is skin, and marks the scalp's hair."""
    skin = np.concatenate([mesh.sets[name] for name in ("skin", "ears", "brows")])
    p = mesh.vertices[skin]
    p = np.concatenate([np.abs(p[:, :1]), p[:, 1:]], 1)
    tint = np.ones_like(p)
    for centre, radii, colour in _TINTS:
        tint *= 1 + blob(p, centre, radii)[:, None] * (np.array(colour) - 1)
    ears = np.isin(skin, mesh.sets["ears"])[:, None]
    mesh.colours[skin] = np.clip(mesh.colours[skin] * np.where(ears, 1, tint), 0, 1)
    oily = blob(p, (0, 20, 60), (16, 55, 40)) + blob(p, (40, -2, 32), (14, 10, 20))
    mesh.gloss[skin] += np.where(mesh.gloss[skin] > 0.29, 0.06 * oily, 0)
    grid = mesh.sets["skin"]
    p = mesh.vertices[grid]
    grown = hair.gloss(hair.above_hairline(p), per_mm=0.0125)
    bare = (p[:, 2] > -20) & (p[:, 1] < 60)  # brows are none of the scalp
    mesh.gloss[grid] = np.where(bare, mesh.gloss[grid], np.minimum(mesh.gloss[grid], grown))
