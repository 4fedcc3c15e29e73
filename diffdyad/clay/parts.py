"""What the clay head has besides skin: eyeballs, teeth with gums, a tongue, ears, brows."""

from __future__ import annotations

import numpy as np

from diffdyad.clay.mesh import Array, Mesh, mirrored
from diffdyad.clay.skin import SKIN, on_face
from diffdyad.clay.surface import EYE, EYE_RADIUS

SCLERA, LIMBUS, IRIS, PUPIL = (0.80, 0.77, 0.73), (0.06, 0.05, 0.045), (0.17, 0.24, 0.25), (0.008, 0.008, 0.01)
TOOTH, GUM, TONGUE = (0.78, 0.74, 0.65), (0.45, 0.17, 0.16), (0.50, 0.18, 0.17)
BROW = (0.11, 0.065, 0.04)


def add_eyes(mesh: Mesh) -> None:
    """Spheres whose pole looks ahead; rings of edges lie on the pupil's and the iris's outline."""
    angles = np.radians([5, 10.5, 12, 20, 26.5, 29, 35, 48, 66, 88, 112])
    tints = np.array([PUPIL, PUPIL, IRIS, IRIS, LIMBUS, SCLERA, SCLERA, SCLERA, SCLERA, SCLERA, SCLERA])
    tints[3] = np.array(IRIS) * 1.35
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = np.stack([np.cos(turn), np.sin(turn)], -1)  # counter-clockwise from the front
    ball = np.concatenate(
        [np.sin(angles)[:, None, None] * ring, np.broadcast_to(np.cos(angles)[:, None, None], (len(angles), 16, 1))], -1
    )
    for name, sign in (("left_eye", 1.0), ("right_eye", -1.0)):
        centre = EYE * np.array([sign, 1, 1])
        points = ball * np.array([sign, 1, 1]) * EYE_RADIUS + centre
        pole = mesh.add(centre[None] + np.array([[0, 0, EYE_RADIUS]]), PUPIL, 1.0, name)
        rings = mesh.add(points, tints[:, None], 1.0, name)
        mesh.fan(int(pole[0]), rings[0], flip=sign < 0)
        mesh.sheet(rings, closed=True, flip=sign > 0)


def _arch(turn: Array, inset: Array) -> tuple[Array, Array]:
    """x and z along a dental arch at `turn` radians from its middle, `inset` mm inside its front."""
    return (24.5 - inset) * np.sin(turn), 14 + (34.5 - inset) * np.cos(turn)


def add_teeth(mesh: Mesh) -> None:
    """Two arches of twelve teeth; each tooth is a bulge between narrower seams."""
    columns = np.arange(25)
    turn = np.radians(np.linspace(-78, 78, 25))
    seam = (columns % 2 == 0) * 1.0
    arches = (("upper_teeth", 1, -48.4, -38.4, 0.0), ("lower_teeth", -1, -46.6, -54.6, 2.8))
    for name, side, edge_y, gum_y, back in arches:
        crown = gum_y - edge_y
        rows = [  # inset, height, colour
            (np.full(25, 0.5), np.full(25, gum_y + side * 7), GUM),
            (0.1 - 0.3 * seam, gum_y + side * 1.2 - side * 1.6 * seam, GUM),
            (0.5 + 0.3 * seam, gum_y - side * 1.2 * seam, TOOTH),
            (0.0 + 0.7 * seam, np.full(25, gum_y - 0.55 * crown), TOOTH),
            (0.5 + 0.7 * seam, edge_y + side * 0.7 * seam, TOOTH),
            (3.2 + 0.0 * seam, edge_y + side * 0.7 * seam, TOOTH),
            (np.full(25, 7.0), np.full(25, gum_y + side * 2), GUM),
        ]
        points, colours = [], []
        for inset, height, colour in rows:
            x, z = _arch(turn, inset + back)
            points.append(np.stack([x, np.broadcast_to(height, 25), z], -1))
            colours.append(np.array(colour) * (1 - 0.3 * seam[:, None]))
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
    indices = mesh.add(points, TONGUE, 0.55, "tongue")
    mesh.sheet(indices, closed=True)
    for row, offset, flip in ((-1, 2.0, False), (0, -2.0, True)):
        tip = mesh.add(points[row].mean(0)[None] + np.array([[0, 0, offset]]), TONGUE, 0.55, "tongue")
        mesh.fan(int(tip[0]), indices[row], flip=flip)


# outline of the left ear in its own plane (forward, up) in mm, from the top of its root round the back to the lobe
_EAR_OUTLINE = np.array([
    [9.0, 17.0], [7.0, 25.0], [0.5, 30.5], [-8.5, 30.5], [-15.0, 25.0], [-17.5, 16.0], [-16.5, 6.0], [-13.0, -4.0],
    [-9.0, -13.0], [-5.5, -22.0], [-0.5, -28.5], [5.5, -28.0], [8.5, -21.0], [8.5, -12.0], [9.5, -4.0], [9.0, 7.0],
])  # fmt: skip


def add_ears(mesh: Mesh) -> None:
    """A shell: rim, groove, inner ridge and bowl, as rings that shrink towards the bowl; its back enters the skull."""
    outline = _EAR_OUTLINE
    bowl = np.array([2.0, 1.0])
    back = np.clip((2.0 - outline[:, 0]) / 14, 0, 1)  # how much rim there is: none at the cheek
    lobe = np.clip((-14 - outline[:, 1]) / 10, 0, 1)
    rings = []
    # scale towards the bowl, height out of the plane
    rim, groove, ridge = 4.2 * back, -1.6 * back * (1 - lobe), 1.8 * back * (1 - lobe)
    tragus = 2.5 * np.exp(-(((outline[:, 0] - 9) / 4) ** 2) - ((outline[:, 1] + 3) / 6) ** 2)
    lift = 7.0 * back + 1.5
    for scale, height in (
        (0.90, 0 * lift - 8.0), (0.97, lift - 3.2), (1.0, lift - 0.6), (0.96, lift + 1.0 + 0.2 * rim),
        (0.88, lift + 0.4 + tragus), (0.78, lift * 0.9 + groove + tragus), (0.62, lift * 0.75 + ridge + tragus * 0.4),
        (0.46, lift * 0.4 - 2.2 * (1 - lobe)), (0.26, lift * 0.1 - 4.5 * (1 - lobe)),
    ):  # fmt: skip
        plane = bowl + (outline - bowl) * scale
        rings.append(np.concatenate([plane, np.broadcast_to(height, len(outline))[:, None]], 1))
    local = np.array(rings)
    centre = np.array([*bowl, -5.0])
    tilt, flare = np.radians(10), np.radians(19)
    # ear's axes in the head: forward and up lie along the head's side, out points away from it and a little ahead
    forward = np.array([-np.sin(flare), 0, np.cos(flare)])
    out = np.array([np.cos(flare), 0, np.sin(flare)])
    up = np.array([0, 1.0, 0])
    forward, up = np.cos(tilt) * forward + np.sin(tilt) * up, np.cos(tilt) * up - np.sin(tilt) * forward
    frame = np.stack([forward, up, out])
    place = np.array([72.5, 2.0, -42.0])
    points, middle = local @ frame + place, centre @ frame + place
    for sign in (1.0, -1.0):
        turn = (lambda p: p) if sign > 0 else mirrored
        indices = mesh.add(turn(points), SKIN, 0.3, "ears")
        mesh.colours[indices[-2:]] = np.array(SKIN) * np.array([0.8, 0.7, 0.68])
        mesh.sheet(indices, closed=True, flip=sign > 0)
        tip = mesh.add(turn(middle[None]), np.array(SKIN) * 0.6, 0.2, "ears")
        mesh.fan(int(tip[0]), indices[-1], flip=sign > 0)


def add_brows(mesh: Mesh) -> None:
    """A thin strip of hair on each brow, that lies on the skin and goes where the skin goes."""
    t = np.linspace(0, 1, 12)
    x = 10.5 + 40.5 * t
    middle = 37.2 + 7.2 * np.sin(np.pi * (0.10 + 0.66 * t)) - 1.5
    half = (3.1 - 1.1 * t) * np.sqrt(np.clip(1 - (2 * t - 1) ** 8, 0, 1)) + 0.15
    rows = np.array([1.0, 0.45, -0.45, -1.0])
    lift = np.array([-0.5, 0.9, 0.9, -0.5])
    xy = np.stack([np.broadcast_to(x, (4, 12)), middle + rows[:, None] * half], -1)
    points = on_face(xy)
    points[..., 2] += lift[:, None] * np.clip(half / 1.5, 0.3, 1)
    for sign in (1.0, -1.0):
        indices = mesh.add(points * np.array([sign, 1, 1]), BROW, 0.15, "brows")
        mesh.sheet(indices, flip=sign > 0)
