"""How the clay head hangs on its joints: skinning weights, joint regressor, identity directions."""

from __future__ import annotations

import numpy as np

from diffdyad.clay.fields import Mouth
from diffdyad.clay.forms import ramp
from diffdyad.clay.mesh import Array, Mesh
from diffdyad.clay.surface import EYE

JOINTS = np.array([[0, -146, -80], [0, -12, -54], [0, -16, -54], EYE, EYE * np.array([-1, 1, 1])], float)
ROOT, NECK, JAW, LEFT_EYE, RIGHT_EYE = range(5)
IDENTITY_DIRECTIONS = 10


def jaw_share(points: Array, mouth: Mouth) -> Array:
    """How much of the jaw's turn a skin point follows, 0..1; (V, 3) -> (V,)."""
    x, y, z = points.T
    # the line from the corner of the mouth to the jaw's joint: below it hangs the jaw
    line = -44.5 + (z - 46) * (-16 + 44.5) / (-54 - 46)
    below = ramp(line - y, -20, 24)
    lips = 0.5 - 0.46 * mouth.side
    near = np.exp(-((mouth.reach / 0.75) ** 2))
    share = below * (1 - near) + lips * near
    # under the jaw's edge the neck begins
    under = -93 + 0.42 * (42 - z) - y
    return share * (1 - ramp(under, -8, 44)) * ramp(z, -62, -14)


def weights(mesh: Mesh, mouth: Mouth) -> Array:
    """Skinning weights (V, 5), rows sum to 1."""
    points = mesh.vertices
    jaw = jaw_share(points, mouth)
    jaw[mesh.sets["ears"]] = 0
    jaw[mesh.sets["upper_teeth"]] = 0
    jaw[mesh.sets["lower_teeth"]] = 1
    tongue = mesh.sets["tongue"]
    jaw[tongue] = ramp(points[tongue, 2], -6, 16)
    cavity = mesh.sets["cavity"]
    inside = np.clip(0.5 - 0.5 * (points[cavity, 1] + 45) / 10, 0.04, 0.96)
    depth = ramp(56 - points[cavity, 2], 2, 10)
    jaw[cavity] = (jaw[cavity] * (1 - depth) + inside * depth) * ramp(points[cavity, 2], -6, 34)
    root = ramp(-points[:, 1] - 0.15 * points[:, 2], 84, 168) * (1 - jaw)
    result = np.zeros((len(points), 5))
    result[:, ROOT], result[:, JAW] = root, jaw
    result[:, NECK] = 1 - root - jaw
    for name, joint in (("left_eye", LEFT_EYE), ("right_eye", RIGHT_EYE)):
        result[mesh.sets[name]] = np.eye(5)[joint]
    return result


def regressor(mesh: Mesh) -> Array:
    """(5, V): each joint as a mean of vertices around it, with weights of sum 1 that hit it exactly."""
    result = np.zeros((5, len(mesh.vertices)))
    for joint, name in ((LEFT_EYE, "left_eye"), (RIGHT_EYE, "right_eye")):
        members = mesh.sets[name]
        result[joint, members] = _exact(mesh.vertices[members], JOINTS[joint])
    skin = mesh.sets["skin"]
    for joint in (ROOT, NECK, JAW):
        offset = mesh.vertices[skin] - JOINTS[joint]
        # a band around the head at the joint's height
        reach = np.abs(offset[:, 1]) + 0.25 * np.abs(offset[:, 2])
        members = skin[np.argsort(reach, kind="stable")[:120]]
        result[joint, members] = _exact(mesh.vertices[members], JOINTS[joint])
    return result


def _exact(points: Array, target: Array) -> Array:
    """The weights nearest to equal ones with sum 1 whose mean of `points` (N, 3) is `target` (3,)."""
    system = np.concatenate([points.T, np.ones((1, len(points)))])
    equal = np.full(len(points), 1 / len(points))
    return equal + np.linalg.pinv(system) @ (np.append(target, 1) - system @ equal)


def identity(mesh: Mesh) -> Array:
    """Identity directions (V, 3, 10) in mm per unit, a unit being about one standard deviation; smooth in space."""
    p = mesh.vertices
    x, y, z = p.T
    zero = np.zeros_like(x)
    neck = ramp(-y, 90, 130)

    def blob(centre: tuple, radius: float) -> Array:
        q = np.stack([np.abs(x), y, z], -1) - np.array(centre)
        return np.exp(-(q**2).sum(-1) / radius**2)

    low = ramp(-y, -10, 70) * (1 - ramp(-y, 95, 150))
    side = np.tanh(x / 20)
    nose, chin, lips = blob((0, -6, 62), 20), blob((0, -78, 50), 24), blob((0, -45, 56), 20)
    cheeks, brow, jaw = blob((40, -25, 25), 26), blob((22, 40, 44), 26), blob((50, -58, -10), 30)
    directions = [
        0.03 * (p - JOINTS[NECK]),  # larger
        np.stack([0.04 * x, zero, zero], -1),  # wider
        np.stack([zero, -4.0 * low, zero], -1),  # longer lower face
        np.stack([4.0 * side * jaw, zero, zero], -1),  # wider jaw
        np.stack([0.05 * x * nose, -0.8 * nose, 3.0 * nose], -1),  # longer nose
        np.stack([zero, -1.0 * chin, 3.0 * chin], -1),  # stronger chin
        np.stack([3.0 * side * cheeks, zero, 1.5 * cheeks], -1),  # fuller cheeks
        np.stack([zero, -0.5 * brow, 2.0 * brow], -1),  # stronger brow
        np.stack([0.06 * x * lips, zero, 1.6 * lips], -1),  # fuller, wider mouth
        np.stack([0.06 * x * neck, zero, 0.06 * (z + 66) * neck], -1),  # thicker neck
    ]
    result = np.stack(directions, -1)
    for name in ("left_eye", "right_eye"):
        # an eyeball moves as a whole
        result[mesh.sets[name]] = result[mesh.sets[name]].mean(0)
    return result
