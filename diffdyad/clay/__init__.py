"""Makes the clay head: a head of our own in FLAME's tensors, from numbers in this package and nothing else.

`python -m diffdyad.clay --out assets/clay_head.npz` writes the asset; `make_clay` returns its arrays.
"""

from __future__ import annotations

import numpy as np

from diffdyad.clay.ears import add_ears
from diffdyad.clay.expressions import Face, expressions, gaze, jaw_narrows, mouth_close
from diffdyad.clay.fields import Mouth
from diffdyad.clay.mesh import Mesh, mirrored, partners
from diffdyad.clay.paint import paint
from diffdyad.clay.parts import add_brows, add_eyes, add_lashes, add_teeth, add_tongue
from diffdyad.clay.regions import vertex_sets
from diffdyad.clay.rig import JAW, LEFT_EYE, RIGHT_EYE, identity, regressor, weights
from diffdyad.clay.skin import build
from diffdyad.motion import ARKIT_EXPRESSIONS

FORMAT = "diffdyad-head"
_METRES = 1e-3


def make_clay() -> dict[str, np.ndarray]:
    """The clay head's arrays, by the names that `HeadModel` takes; lengths in metres. Deterministic; about a second."""
    mesh = Mesh()
    skin = build(mesh)
    for add in (add_eyes, add_teeth, add_tongue, add_ears, add_brows):
        add(mesh)
    add_lashes(mesh, skin)
    paint(mesh)
    partner = partners(mesh.vertices)
    # symmetric to the bit, so that left and right expressions are
    mesh.vertices = (mesh.vertices + mirrored(mesh.vertices[partner])) / 2
    mouth = Mouth.of(mesh, skin)
    skinning = weights(mesh, mouth)
    face = Face(mesh, skin, mouth, skinning[:, JAW], partner)
    by_name = expressions(face)
    assert set(by_name) == set(ARKIT_EXPRESSIONS)
    pose_dirs = np.zeros((36, len(mesh.vertices), 3))
    # a joint's rows are its matrix less the identity: of a turn about x, entry 4 is cos(x) - 1, entry 7 sin(x)
    jaw, left_eye, right_eye = 9 * (JAW - 1), 9 * (LEFT_EYE - 1), 9 * (RIGHT_EYE - 1)
    pose_dirs[jaw + 4] = -mouth_close(face)[1]
    pose_dirs[jaw + 7] = jaw_narrows(face)
    pose_dirs[left_eye + 7] = gaze(face)
    pose_dirs[right_eye + 7] = face.mirror(gaze(face))
    arrays = {
        "format": np.array(FORMAT),
        "basis": np.array("arkit"),
        "template": mesh.vertices * _METRES,
        "faces": mesh.triangles(),
        "shape_dirs": identity(mesh) * _METRES,
        "expression_dirs": np.stack([by_name[name] for name in ARKIT_EXPRESSIONS], -1) * _METRES,
        "pose_dirs": pose_dirs.reshape(36, -1) * _METRES,
        "joint_regressor": regressor(mesh),
        "skinning_weights": skinning,
        "parents": np.array([-1, 0, 1, 1, 1]),
        "vertex_colors": mesh.colours,
        "vertex_gloss": mesh.gloss,
    }
    arrays |= {f"set_{name}": indices for name, indices in vertex_sets(mesh).items()}
    return {name: _compact(name, array) for name, array in arrays.items()}


def _compact(name: str, array: np.ndarray) -> np.ndarray:
    """Directions and colours to half precision (a thousandth of a displacement), indices to 16 bits."""
    if array.dtype.kind == "f":
        half = name.endswith("_dirs") or name.startswith("vertex_")
        if half:
            array = np.where(np.abs(array) < 1e-6, 0, array)  # a micrometre moves nothing
        return array.astype(np.float16 if half else np.float32)
    if array.dtype.kind == "i":
        return array.astype(np.int16)
    return array
