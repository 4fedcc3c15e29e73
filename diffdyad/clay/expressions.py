"""The clay head's 41 expressions, by their ARKit names: what each moves, in mm at coefficient 1.

Drawn for the character's left where there are two sides; the right is the mirror image. `Left` is +x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffdyad.clay.fields import Mouth, blob
from diffdyad.clay.forms import ramp, stroke
from diffdyad.clay.mesh import Array, Ints, Mesh
from diffdyad.clay.openings import around
from diffdyad.clay.parts import lash_places
from diffdyad.clay.rig import JAW, JOINTS
from diffdyad.clay.skin import Skin
from diffdyad.clay.surface import EYE, EYE_RADIUS

# jaw_pose x at which mouthClose = 1 closes the lips: ARKit's jawOpen = 1
JAW_OPEN = 0.4
# shares of the eye's turn, up or down, that the upper and the lower lid follow
_LIDS_WITH_GAZE = 0.5, 0.36
_GAZE_TILT = np.radians(8)
# how far a jaw of 1 rad draws the mouth's corners together, as a share of their distance
_NARROWS = 0.45
# how far each ring of edges, from the lid's edge outwards, follows the lid
_LID_FOLLOWS = (1.0, 0.9, 0.66, 0.42, 0.24, 0.1, 0.03)


@dataclass
class Face:
    """What the expressions are drawn on: the mesh, mouth coordinates, jaw weights, and who mirrors whom."""

    mesh: Mesh
    skin: Skin
    mouth: Mouth
    jaw: Array  # (V,) skinning weight of the jaw
    partner: Ints  # (V,) the mirrored vertex of each

    def __post_init__(self):
        count = len(self.mesh.vertices)
        soft = np.zeros(count)
        for name in ("skin", "cavity", "lid_inside", "nostrils", "brows", "lashes"):
            soft[self.mesh.sets[name]] = 1
        # the lips' inside follows them, the cavity behind does not
        self.soft = soft * (1 - ramp(self.mouth.depth, 3, 12))
        self.lip = np.exp(-((self.mouth.reach / 0.42) ** 2)) * self.soft
        self.around_mouth = np.exp(-((self.mouth.reach / 0.85) ** 2)) * self.soft
        self.upper = ramp(self.mouth.side, 0.0, 0.75)
        self.lower = ramp(-self.mouth.side, 0.0, 0.75)
        x = self.mesh.vertices[:, 0]
        # left half, with a soft seam at the midline
        self.left = ramp(x, -9, 9)
        self.corner = blob(self.mesh.vertices, (25, -44, 46), (15, 15, 26)) * self.soft

    def bump(self, centre: tuple, radii: tuple) -> Array:
        return blob(self.mesh.vertices, centre, radii) * self.soft

    def mirror(self, offsets: Array) -> Array:
        return offsets[self.partner] * np.array([-1.0, 1.0, 1.0])

    def both(self, offsets: Array) -> Array:
        return offsets + self.mirror(offsets)


def _move(weight: Array, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Array:
    return weight[:, None] * np.array([x, y, z])


def expressions(face: Face) -> dict[str, Array]:
    """Name -> displacements (V, 3) in mm."""
    found: dict[str, Array] = {}
    for name, offsets in {**_left_eye(face), **_left_mouth(face), **_left_brow(face)}.items():
        found[f"{name}Left"] = offsets
        found[f"{name}Right"] = face.mirror(offsets)
    found |= _middle(face)
    inner = face.bump((14, 42, 46), (12, 15, 26))
    found["browInnerUp"] = face.both(_move(inner, 0.2, 7.0, -0.4))
    close, _ = mouth_close(face)
    found["mouthClose"] = close
    return found


# ------------------------------------------------------------------------------------------------------------- eyes


def _turn_lids(face: Face, upper: float, lower: float) -> Array:
    """Turns the left lids about the eyeball: 1 in total closes the opening, `lower` is the lower lid's share."""
    rings = np.concatenate([face.skin.lid_inner_rings["left"], face.skin.lid_rings["left"]])
    # a lid that opens wider gathers at its edge, and does not push under the brow
    outer = tuple(follow ** (2.5 if upper < 0 else 1) for follow in _LID_FOLLOWS)
    follows = (1.0,) * len(face.skin.lid_inner_rings["left"]) + outer
    points = face.mesh.vertices[rings]
    _, side = around(rings.shape[1])
    edge = points[len(face.skin.lid_inner_rings["left"])] - EYE
    elevation = np.arctan2(edge[:, 1], edge[:, 2])
    # the point across the opening, at the same distance along it
    gap = elevation - np.concatenate([elevation[:1], elevation[:0:-1]])
    turn = -np.where(side > 0, upper, lower) * np.abs(gap) * side
    # lids that meet do so at one distance from the eye's axis: the further one's
    distance = np.hypot(edge[:, 1], edge[:, 2])
    other = np.concatenate([distance[:1], distance[:0:-1]])
    further = (upper + lower) * (np.maximum(distance, other) - distance) + 1.2 * (upper + lower) * np.sin(np.abs(gap))
    # a lid that closes too far, as in a smile's blink, slides over the other one
    further += 0.3 * np.clip(upper, 0, 1) * (side > 0)
    offsets = np.zeros_like(face.mesh.vertices)
    for ring, where, follow in zip(rings, points, follows, strict=True):
        from_eye = where - EYE
        angle = np.arctan2(from_eye[:, 1], from_eye[:, 2]) + turn * follow
        # the way is a chord of the arc: some more radius, alike for both lids, keeps its middle off the eyeball
        radius = np.hypot(from_eye[:, 1], from_eye[:, 2]) + np.clip(further, 0, None) * follow
        turned = np.stack([from_eye[:, 0], radius * np.sin(angle), radius * np.cos(angle)], -1)
        offsets[ring] = turned - from_eye
    # the lashes turn with the edge that they grow on
    lashes = face.mesh.sets["left_lashes"].reshape(3, -1)
    along = lash_places(rings.shape[1], lashes.shape[1])
    turn = np.interp(along, np.arange(len(turn)), turn)
    for row in lashes:
        y, z = (face.mesh.vertices[row] - EYE)[:, 1:].T
        angle, radius = np.arctan2(y, z) + turn, np.hypot(y, z)
        offsets[row, 1], offsets[row, 2] = radius * np.sin(angle) - y, radius * np.cos(angle) - z
    return offsets


def gaze(face: Face) -> Array:
    """How the left lids follow an eye that looks down, (V, 3) in mm for a sine of its pitch of 1."""
    skin, offsets = face.skin, np.zeros_like(face.mesh.vertices)
    rings = np.concatenate([skin.lid_inner_rings["left"], skin.lid_rings["left"]])
    follows = (1.0,) * len(skin.lid_inner_rings["left"]) + _LID_FOLLOWS
    across, side = around(rings.shape[1])
    # the way is straight, and leads past the eyeball whether the lids are open or closed
    way = EYE_RADIUS * np.array([0, -np.cos(_GAZE_TILT), np.sin(_GAZE_TILT)])
    share = np.where(side > 0, *_LIDS_WITH_GAZE) * (1 - across**4)
    for ring, follow in zip(rings, follows, strict=False):
        offsets[ring] = follow * share[:, None] * way
    lashes = face.mesh.sets["left_lashes"].reshape(3, -1)
    along = lash_places(rings.shape[1], lashes.shape[1])
    offsets[lashes] = np.interp(along, np.arange(len(share)), share)[:, None] * way
    return offsets


def _left_eye(face: Face) -> dict[str, Array]:
    cheek = face.bump((36, 4, 34), (17, 9, 22))
    blink = _turn_lids(face, 0.86, 0.14)
    squint = _turn_lids(face, 0.18, 0.30) + _move(cheek, y=1.8, z=0.8)
    wide = _turn_lids(face, -0.27, -0.06)
    return {"eyeBlink": blink, "eyeSquint": squint, "eyeWide": wide}


# ------------------------------------------------------------------------------------------------------------ mouth


def _left_mouth(face: Face) -> dict[str, Array]:
    mouth, left = face.mouth, face.left
    cheek = face.bump((37, -12, 36), (17, 15, 26))
    fold = face.bump((24, -22, 48), (10, 13, 22))
    lip_left = face.lip * left
    red = np.exp(-((mouth.reach / 0.26) ** 2)) * face.soft
    fullness = _fullness(face)
    line = [(19, -14, 0.3), (26, -23, 1.0), (32, -33, 1.1), (36, -43, 0.4)]  # from the nose round the mouth
    crease = stroke(face.mesh.vertices, line, 3.6) * face.soft
    bank = -stroke(face.mesh.vertices, [(x + 7.5, y + 2.5, depth) for x, y, depth in line], 6.0) * face.soft
    smile = (
        _move(face.corner, 6.0, 8.0, -4.0) + _move(cheek, 1.5, 5.0, 4.4) + _move(fold, 1.5, 2.0, 0.5)
        + _move(lip_left * (1 - face.corner), 0.5, 0.3, -1.4) + _move(crease * left, z=-3.2)
        - _move(bank * left, x=0.5, y=0.3, z=1.7)
        - _move(fullness * left, y=1.8)
    )  # fmt: skip
    frown = (
        -_move(fullness * left, y=0.6)
        + _move(face.corner, 1.0, -7.0, -1.0)
        + _move(face.bump((25, -60, 42), (14, 12, 24)), 0.5, -3.0, 0.5)
    )
    dimple = _move(face.corner, 5.5, 1.5, -5.5) + _move(face.bump((35, -42, 38), (10, 12, 22)), 0.8, 0, 2.2)
    stretch = _move(face.corner, 8.0, -2.5, -4.5) + _move(face.bump((24, -62, 42), (15, 13, 24)), 2.5, -1.5, -0.8)
    press = (
        _move(red * left * face.upper, 0.4, -0.25, -2.0) + _move(red * left * face.lower, 0.4, 0.25, -2.3)
        - _move(fullness * left, y=1.2)
        + _move(face.corner, 1.5, 0.8, -1.2)
    )  # fmt: skip
    # lips part in the middle more than towards the corners
    parted = left * np.exp(-((mouth.reach / 0.6) ** 2)) * face.soft * (1.05 - 0.8 * np.clip(mouth.across**2, 0, 1))
    lowered, raised = face.lower * parted, face.upper * parted
    lower_down = _move(lowered, 0.8, -7.0, 0.2) + _move(red * face.lower * left, z=1.0)
    upper_up = _move(raised, 0.5, 6.0, 0.4) + _move(fold, 0.6, 3.2, 1.2) + _move(cheek, 0, 1.6, 0.8)
    return {
        "mouthSmile": smile, "mouthFrown": frown, "mouthDimple": dimple, "mouthStretch": stretch, "mouthPress": press,
        "mouthLowerDown": lower_down, "mouthUpperUp": upper_up,
    }  # fmt: skip


def _fullness(face: Face) -> Array:
    """Bands of the lips alone, 0 at the slit, so that the lips stay together; positive above, negative below."""
    band = np.exp(-(((face.mouth.reach - 0.26) / 0.20) ** 2)) * ramp(face.mouth.reach, 0.0, 0.2)
    return band * np.sign(face.mouth.side) * np.abs(face.mouth.side) * face.soft


def _middle(face: Face) -> dict[str, Array]:
    mouth, p, mesh_sets = face.mouth, face.mesh.vertices, face.mesh.sets
    x, y, z = p.T
    zero = np.zeros_like(x)
    red = np.exp(-((mouth.reach / 0.30) ** 2)) * face.soft
    fullness = _fullness(face)
    wide = np.exp(-((mouth.reach / 0.95) ** 2)) * face.soft
    middle = np.exp(-((x / 19) ** 2))
    narrow = np.stack([-x * wide, zero, zero], -1)
    funnel = (
        0.30 * narrow + _move(face.lip, z=6.0) + _move(wide, z=2.0) + _move(red * face.upper * middle, y=4.2, z=1.5)
        + _move(red * face.lower * middle, y=-5.2, z=1.5) + _move(fullness, y=0.7)
    )  # fmt: skip
    pucker = 0.46 * narrow + _move(face.lip, z=7.0) + _move(wide, z=3.0) + _move(fullness, y=1.2)
    sideways = np.exp(-((mouth.reach / 0.95) ** 2)) * face.soft
    left = _move(sideways, x=8.0, z=-0.5) + _move(face.bump((30, -44, 44), (12, 14, 22)), y=0.8, z=1.0)
    folded = np.abs(fullness) * 2.2
    inner = (1 - np.clip(np.abs(mouth.across), 0, 1) ** 2.5)[:, None]  # the corners stay
    roll_lower = inner * (
        _move(red * face.lower, y=1.9, z=-5.0) + _move(face.lower * (0.9 * face.lip + folded), y=1.0, z=-1.0)
    )  # fmt: skip
    roll_upper = inner * (
        _move(red * face.upper, y=-0.8, z=-5.0) + _move(face.upper * (0.6 * face.lip + folded), y=-1.0, z=-1.0)
    )  # fmt: skip
    chin = face.bump((0, -74, 52), (19, 14, 22))
    upper_lip, lower_lip = face.upper * face.lip, face.lower * face.lip
    # the other lip is pushed along
    shrug_lower = _move(chin, y=4.5, z=1.5) + _move(lower_lip, y=2.8, z=2.2) + _move(upper_lip, y=2.2, z=0.8)
    shrug_upper = (
        _move(face.upper * face.around_mouth, y=2.6, z=1.6) + _move(upper_lip, y=1.0, z=1.6)
        + _move(lower_lip, y=2.4, z=1.0)
    )  # fmt: skip
    # the lower teeth pass below the upper ones
    lower_teeth = np.isin(np.arange(len(p)), mesh_sets["lower_teeth"]) * 1.0
    puff = face.bump((40, -36, 28), (22, 21, 28))
    wing, fold, bridge = ((11, -12, 56), (8, 8, 22)), ((19, -20, 50), (9, 12, 18)), ((9, 14, 50), (8, 12, 18))
    sneer = (
        _move(face.bump(*wing), 1.2, 5.0, 0.6) + _move(face.bump(*fold), 0.6, 4.0, 1.6)
        + _move(face.bump(*bridge), -0.4, 2.8, 1.2) + _move(upper_lip * face.left * middle, y=1.2)
    )  # fmt: skip
    squint = _move(face.bump((38, -4, 36), (18, 13, 24)), 0.8, 4.6, 2.2) + _turn_lids(face, 0.0, 0.16)
    return {
        "jawForward": _move(np.clip(face.jaw, 0, 1), z=6.0) - _move(lower_teeth, y=2.2),
        "mouthFunnel": funnel, "mouthPucker": pucker, "mouthLeft": left, "mouthRight": face.mirror(left),
        "mouthRollLower": roll_lower, "mouthRollUpper": roll_upper,
        "mouthShrugLower": shrug_lower, "mouthShrugUpper": shrug_upper,
        "cheekPuff": face.both(_move(puff, 7.0, 0.0, 4.0)) + _move(face.around_mouth, z=2.2),
        "cheekSquintLeft": squint, "cheekSquintRight": face.mirror(squint),
        "noseSneerLeft": sneer, "noseSneerRight": face.mirror(sneer),
        "tongueOut": _tongue_out(face),
    }  # fmt: skip


def _tongue_out(face: Face) -> Array:
    """The tongue slides ahead over the lower teeth; meant for an open jaw, as on a phone's capture."""
    offsets = np.zeros_like(face.mesh.vertices)
    tongue = face.mesh.sets["tongue"]
    _, y, z = face.mesh.vertices[tongue].T
    ahead = ramp(z, 2, 42)
    offsets[tongue, 2] = 36 * ahead
    # what comes to lie between the teeth and on the lip rises, and flattens; the tip hangs
    between = np.exp(-(((z - 29) / 9) ** 2))
    offsets[tongue, 1] = 11.5 * between + 5.0 * ahead - 0.4 * (y + 52) * ramp(z, 10, 26)
    return offsets


def jaw_narrows(face: Face) -> Array:
    """What an opening mouth's corners do besides following the jaw, (V, 3) in mm for a sine of its angle of 1."""
    near = np.exp(-((face.mouth.reach / 0.8) ** 2)) * face.soft
    return _move(-_NARROWS * near * face.mesh.vertices[:, 0], x=1.0)


def mouth_close(face: Face) -> tuple[Array, Array]:
    """Displacements that close the lips while the jaw is open, and the jaw's pose corrective that makes it exact.

    Returns (close (V, 3), corrective (V, 3)): mouthClose = j with jaw_pose x = 0.4 j brings each lip vertex where a
    skin that follows the jaw by one common share would be, for all j in 0..1. A turning jaw moves the lip on an arc; a
    direction is straight. So the corrective, which acts by (1 - cos) of the jaw's angle, takes up the difference: both
    by least squares over the way.
    """
    mouth = face.mouth
    common = 0.22  # where the lips meet, corners too: nearer to the upper lip, as the lower one stretches further
    near = np.exp(-((mouth.reach / 0.85) ** 2)) * face.soft
    share = face.jaw + near * (common - face.jaw)
    arm = face.mesh.vertices - JOINTS[JAW]
    arm[:, 0] = 0
    across = np.stack([np.zeros(len(arm)), -arm[:, 2], arm[:, 1]], -1)  # x axis cross arm
    wanted, basis = [], []
    for j in np.linspace(0.1, 1, 10):
        sine, versine = np.sin(JAW_OPEN * j), 1 - np.cos(JAW_OPEN * j)
        goal = arm + share[:, None] * (sine * across - versine * arm)
        # undo the skinning, a 2 x 2 system in the plane of the turn
        c, s = 1 - face.jaw * versine, face.jaw * sine
        y, z = goal[:, 1], goal[:, 2]
        scale = c * c + s * s
        undone = np.stack([np.zeros_like(y), (c * y + s * z) / scale, (c * z - s * y) / scale], -1)
        wanted.append(undone - arm)
        basis.append((j, versine))
    solution = np.linalg.pinv(np.array(basis)) @ np.array(wanted).reshape(len(basis), -1)
    close, corrective = solution.reshape(2, -1, 3)
    return close - np.sin(JAW_OPEN) * jaw_narrows(face), corrective


# ------------------------------------------------------------------------------------------------------------ brows


def _left_brow(face: Face) -> dict[str, Array]:
    whole = face.bump((20, 38, 44), (13, 10, 26)) + 0.7 * face.bump((40, 38, 36), (12, 10, 26))
    outer = face.bump((42, 42, 34), (14, 15, 26))
    lid = face.bump((32, 33, 38), (14, 5, 18))
    return {
        "browDown": _move(whole, -1.4, -4.6, 1.2) + _move(lid, y=-0.8, z=0.3),
        "browOuterUp": _move(outer, 0.3, 6.5, -0.8) + _move(lid, y=0.8),
    }
