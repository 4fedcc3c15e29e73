"""What the clay head has besides skin: eyeballs, lashes, teeth with gums, a tongue, brows."""

from __future__ import annotations

import numpy as np

from diffdyad.clay import hair
from diffdyad.clay.forms import Array, ramp
from diffdyad.clay.mesh import Mesh
from diffdyad.clay.openings import SKIN, on_face
from diffdyad.clay.skin import Skin
from diffdyad.clay.surface import EYE, EYE_RADIUS

SCLERA, VEINS, LIMBUS = (0.74, 0.69, 0.64), (0.70, 0.54, 0.49), (0.055, 0.05, 0.05)
PUPIL, IRIS = (0.006, 0.006, 0.008), ((0.17, 0.13, 0.08), (0.17, 0.21, 0.19), (0.10, 0.15, 0.16))
TOOTH, GUM, TONGUE = (0.92, 0.87, 0.77), (0.50, 0.19, 0.18), (0.52, 0.19, 0.18)
LASH, LASHES = (0.02, 0.014, 0.01), 54


def add_eyes(mesh: Mesh) -> None:
    """Spheres whose pole looks ahead; rings of edges lie on the pupil's and the iris's outline."""
    angles = np.radians([5, 9, 10.5, 17, 24.5, 27.2, 32, 46, 62, 82, 104])
    tints = np.array([PUPIL, PUPIL, *IRIS, LIMBUS, SCLERA, SCLERA, SCLERA, VEINS, VEINS])
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = np.stack([np.cos(turn), np.sin(turn)], -1)  # counter-clockwise from the front
    ball = np.concatenate(
        [np.sin(angles)[:, None, None] * ring, np.broadcast_to(np.cos(angles)[:, None, None], (len(angles), 16, 1))], -1
    )
    colours = np.repeat(tints[:, None], 16, 1)
    colours[2:5] *= 1 + 0.22 * np.cos(5 * turn + 0.7 * np.arange(3)[:, None])[..., None]  # the iris's fibres
    for name, sign in (("left_eye", 1.0), ("right_eye", -1.0)):
        centre = EYE * np.array([sign, 1, 1])
        points = ball * np.array([sign, 1, 1]) * EYE_RADIUS + centre
        pole = mesh.add(centre[None] + np.array([[0, 0, EYE_RADIUS]]), PUPIL, 1.0, name)
        rings = mesh.add(points, colours, 1.0, name)
        mesh.fan(int(pole[0]), rings[0], flip=sign < 0)
        mesh.sheet(rings, closed=True, flip=sign > 0)


def lash_places(ring: int, count: int) -> Array:
    """Where `count` lashes grow along the upper half of a lid's ring of that many vertices."""
    return np.linspace(1.2, ring // 2 - 0.6, count)


def add_lashes(mesh: Mesh, skin: Skin) -> None:
    """Hairs on the upper lids' edges: a triangle each. `left_lashes` holds them as (3, hairs): root, root, tip."""
    for name, sign in (("left", 1.0), ("right", -1.0)):
        ring = skin.lid_rings[name][0]
        edge = mesh.vertices[ring] * np.array([sign, 1, 1])
        place = lash_places(len(ring), LASHES)
        root = np.stack([np.interp(place, np.arange(len(ring)), axis) for axis in edge.T], -1)
        along = np.gradient(root, axis=0)
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        share = np.linspace(-1, 1, LASHES)
        ahead = root - EYE
        ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
        # neighbours cross a little, as they grow in rows
        lean = 0.45 * share + 0.12 * np.sin(2.4 * np.arange(LASHES))
        way = 0.85 * ahead + np.array([0, 0.5, 0]) + lean[:, None] * np.array([1.0, 0, 0])
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        length = ((3.6 + 1.5 * share - 1.6 * share**6) * (1 + 0.12 * np.sin(1.9 * np.arange(LASHES))))[:, None]
        root = root + 0.1 * ahead
        hairs = np.stack([root - 0.17 * along, root + 0.17 * along, root + length * way])
        indices = mesh.add(hairs * np.array([sign, 1, 1]), LASH, -0.15, "lashes")
        mesh.sets[f"{name}_lashes"] = indices.ravel()
        first, second, tip = indices
        order = (first, second, tip) if sign > 0 else (second, first, tip)
        mesh.quads.extend(zip(*(corner.tolist() for corner in order), strict=True))


def _arch(turn: Array, inset: Array) -> tuple[Array, Array]:
    """x and z along a dental arch at `turn` radians from its middle, `inset` mm inside its front."""
    return (24.5 - inset) * np.sin(turn), 14 + (34.5 - inset) * np.cos(turn)


def add_teeth(mesh: Mesh) -> None:
    """Two arches of ten teeth; each tooth is a bulge between narrow seams."""
    # along the arch, in radians: where a tooth ends and the next begins
    ends = np.array([0.0, 0.34, 0.62, 0.88, 1.10, 1.32])
    ends = np.concatenate([-ends[:0:-1], ends])
    turn = np.sort(np.concatenate([ends, *(ends[:-1] + share * np.diff(ends) for share in (0.2, 0.8))]))
    turn = (turn - turn[::-1]) / 2
    columns = np.arange(len(turn))
    seam = (columns % 3 == 0) * 1.0
    eyetooth = np.exp(-(((np.abs(turn) - 0.75) / 0.1) ** 2))
    arches = (("upper_teeth", 1, -48.4, -38.4, -0.6), ("lower_teeth", -1, -46.6, -54.6, 2.6))
    for name, side, edge_y, gum_y, back in arches:
        crown = gum_y - edge_y
        edge = edge_y + side * (0.9 * seam - 0.5 * eyetooth + 0.8 * ramp(np.abs(turn), 0.3, 0.6))
        rows = [  # inset, height, colour
            (np.full(len(turn), 0.5), np.full(len(turn), gum_y + side * 7), GUM),
            (0.1 - 0.3 * seam, gum_y + side * 1.2 - side * 2.0 * seam, GUM),
            (0.5 + 0.3 * seam, gum_y - side * 1.6 * seam, TOOTH),
            (0.0 + 0.6 * seam, np.full(len(turn), gum_y - 0.55 * crown), TOOTH),
            (0.5 + 0.6 * seam, edge, TOOTH),
            (3.0 + 0.0 * seam, edge, TOOTH),
            (np.full(len(turn), 7.0), np.full(len(turn), gum_y + side * 2), GUM),
        ]
        points, colours = [], []
        for inset, height, colour in rows:
            x, z = _arch(turn, inset + back)
            points.append(np.stack([x, height, z], -1))
            colours.append(np.array(colour) * (1 - 0.25 * seam[:, None]))
        indices = mesh.add(np.array(points), np.array(colours), 0.8, name)
        mesh.sheet(indices, flip=side > 0)


def add_tongue(mesh: Mesh) -> None:
    rows, around = 8, 10
    t = np.linspace(0, 1, rows)
    z = 2 + 38 * t
    half_width = 17 - 4 * t - 6 * t**6
    thickness = 7.5 - 2.0 * t - 3 * t**6
    y = -56.0 + 5.5 * np.sin(np.pi * (0.15 + 0.65 * t))
    turn = np.linspace(0, 2 * np.pi, around, endpoint=False)
    x = half_width[:, None] * np.cos(turn)
    height = y[:, None] + thickness[:, None] * np.sin(turn) - 1.2 * (np.abs(np.cos(turn)) < 0.2) * (np.sin(turn) > 0)
    points = np.stack([x, height, np.broadcast_to(z[:, None], x.shape)], -1)
    indices = mesh.add(points, TONGUE, 0.65, "tongue")
    mesh.sheet(indices, closed=True)
    for row, offset, flip in ((-1, 2.0, False), (0, -2.0, True)):
        tip = mesh.add(points[row].mean(0)[None] + np.array([[0, 0, offset]]), TONGUE, 0.65, "tongue")
        mesh.fan(int(tip[0]), indices[row], flip=flip)


def add_brows(mesh: Mesh) -> None:
    """A band on each brow that lies on the skin and goes where the skin goes; within it grows hair."""
    t = np.linspace(-0.04, 1.06, 15)
    x = 9.8 + 41.5 * t
    arch = np.sin(np.pi * np.clip(0.12 + 0.64 * t, 0, 1))
    middle = 35.6 + 4.8 * arch
    half = 4.4 - 0.6 * t - 2.4 * ramp(t, 0.5, 1.0)
    ends = np.minimum(t * 41.5, (1 - t) * 41.5)
    rows = np.array([3.0, 1.7, 0.0, -1.7, -3.0])
    offset = np.sign(rows)[:, None] * (half * (np.abs(rows[:, None]) > 0) + np.abs(rows)[:, None] - 1.7)
    xy = np.stack([np.broadcast_to(x, offset.shape), middle + offset], -1)
    points = on_face(xy)
    inside = np.minimum(half - np.abs(offset), 0.8 * ends)
    points[..., 2] += np.clip(0.25 + 0.10 * inside, -0.3, 0.45)
    for sign in (1.0, -1.0):
        indices = mesh.add(points * np.array([sign, 1, 1]), SKIN, 0.3, "brows")
        mesh.gloss[indices] = hair.gloss(inside + 0.3, per_mm=0.08)
        mesh.sheet(indices, flip=sign > 0)
