"""Which vertices of the clay head belong to which region."""

from __future__ import annotations

import numpy as np

from diffdyad.clay.mesh import Ints, Mesh


def vertex_sets(mesh: Mesh) -> dict[str, Ints]:
    """The regions that every head names; indices are sorted, except for the edges of lips (right corner to left)
    and lids (from the nose outwards), which are paired, upper with lower."""
    x, y, z = mesh.vertices.T
    x = np.abs(x)
    skin = np.zeros(len(x), bool)
    skin[mesh.sets["skin"]] = True
    lids = np.zeros(len(x), bool)
    lids[mesh.sets["eyelids"]] = True
    found = {name: np.unique(mesh.sets[name]) for name in ("lips", "eyelids", "brows", "left_eye", "right_eye")}
    found["cheeks"] = np.flatnonzero(skin & ~lids & (z > 12) & (y < 6) & (y > -48) & (x > 29) & (x < 62))
    face = skin & (y < 78) & (y > -97) & (z > -16 + 0.25 * x)
    found["face"] = np.union1d(np.flatnonzero(face), found["brows"])
    for name in ("skin", "ears", "shirt", "lashes"):
        found[name] = np.unique(mesh.sets[name])
    found["inner_mouth"] = mesh.sets["cavity"]  # rings from the lips' edge inwards, a ring as long as the lips'
    lid_edges = [f"{side}_lid_{lid}" for side in ("left", "right") for lid in ("upper", "lower")]
    for name in (*lid_edges, "inner_lip_upper", "inner_lip_lower", "upper_teeth", "lower_teeth", "tongue"):
        found[name] = mesh.sets[name]
    return found
