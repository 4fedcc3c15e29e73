"""Which of MediaPipe's 478 landmarks is which point of a head.

Lips, lids and brows are lists of landmarks, as MediaPipe's `face_mesh_connections` name them, and curves of the head:
points at equal shares of their lengths correspond. With the root and the tip of the nose and the chin they anchor a
thin-plate warp, which carries the rest of MediaPipe's mesh, as it is seen on average in a recording, onto the head's
face. `right` is the right side of the person, seen on the left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffdyad.errors import UserError
from diffdyad.head import HeadModel
from diffdyad.retarget.landmarks import (
    Floats,
    Ints,
    Surface,
    SurfacePoints,
    Warp,
    face_curves,
    midline,
    on_curve,
    shares_along,
)

# along the curves of `face_curves`: lids and brows from the nose outwards, lips from the right corner to the left
_CURVES = {
    "right_lid_upper": (133, 173, 157, 158, 159, 160, 161, 246, 33),
    "right_lid_lower": (133, 155, 154, 153, 145, 144, 163, 7, 33),
    "left_lid_upper": (362, 398, 384, 385, 386, 387, 388, 466, 263),
    "left_lid_lower": (362, 382, 381, 380, 374, 373, 390, 249, 263),
    "inner_lip_upper": (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
    "inner_lip_lower": (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308),
    "lip_border_upper": (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),
    "lip_border_lower": (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),
}
# a brow has an upper and a lower edge, of which the middle is its ridge
_BROWS = {
    "right_brow": ((107, 66, 105, 63, 70), (55, 65, 52, 53, 46)),
    "left_brow": ((336, 296, 334, 293, 300), (285, 295, 282, 283, 276)),
}
_ROOT, _TIP, _UNDER = 168, 4, 152
_MIDLINE = (_ROOT, _TIP, _UNDER)
_MIDLINE_AT = (1, 3, 7)  # in `midline`'s eight points
_PUPILS = {"right_eye": 468, "left_eye": 473}
_SILHOUETTE = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150,
    136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
_COUNT, _SKIN = 478, 468

# of a landmark on a curve, of one that the warp has placed, of one on the outline, which slides as the head turns, of
# those below the mouth: where a jaw opens, MediaPipe's lips go with it, and its chin follows half of the way
_ON_CURVE, _BETWEEN, _OUTLINE, _CHIN, _PUPIL = 1.0, 0.35, 0.15, 0.05, 6.0
_ON_CURVE_M, _BETWEEN_M, _OUTLINE_M = 0.002, 0.004, 0.008
_EVERY = 2  # of the landmarks between: they say nearly the same, and each costs time
_BEST = 40  # frames that the average is made of


@dataclass(frozen=True)
class Correspondence:
    """points: the head's 478 points; weights: (478,), how far each is trusted, 0 = it has no place on the head;
    slack_m: (478,) metres, by how much the place that MediaPipe means may be another one."""

    points: SurfacePoints
    weights: Floats
    slack_m: Floats

    @property
    def used(self) -> Ints:
        """The landmarks that have a place on the head."""
        return np.flatnonzero(self.weights)


def correspond(head: HeadModel, landmarks: np.ndarray) -> Correspondence:
    """landmarks: (T, 478, 3) of a recording, NaN where no face was seen. Raises UserError where there is none."""
    mesh = average(landmarks)
    surface, curves = Surface.face_of(head), face_curves(head)
    indices, placed, ends = [], [], []
    for name, chain in _CURVES.items():
        chain = np.array(chain)
        if "lower" in name:
            chain = chain[1:-1]  # corners belong to the upper curves
        shares = shares_along(mesh[list(_CURVES[name])])
        indices.append(chain)
        placed.append(on_curve(surface.points, curves[name], shares[1:-1] if "lower" in name else shares))
        ends.append(placed[-1].of(surface.points))
    starts = [mesh[chain] for chain in indices]
    for name, edges in _BROWS.items():
        ridge = mesh[np.array(edges)].mean(0)
        starts.append(ridge)
        ends.append(on_curve(surface.points, curves[name], shares_along(ridge)).of(surface.points))
    starts.append(mesh[list(_MIDLINE)])
    ends.append(midline(surface, curves)[list(_MIDLINE_AT)])
    start, end = np.concatenate(starts), np.concatenate(ends)
    scale, turn, shift = _similarity(start, end)
    warp = Warp(scale * start @ turn.T + shift, end)
    brows = np.array(list(_BROWS.values())).reshape(-1)
    rest = np.setdiff1d(np.arange(_SKIN), np.concatenate([*indices, brows]))
    rest = np.sort(np.concatenate([rest[::_EVERY], brows]))
    placed.append(surface.closest(warp(scale * mesh[rest] @ turn.T + shift)))
    indices.append(rest)
    found, order = SurfacePoints.join(*placed), np.concatenate(indices)
    vertices, weights = np.zeros((_COUNT, 3), np.int64), np.tile([1.0, 0.0, 0.0], (_COUNT, 1))
    vertices[order], weights[order] = found.vertices, found.weights
    trust = np.zeros(_COUNT)
    trust[rest], trust[np.intersect1d(rest, _SILHOUETTE)] = _BETWEEN, _OUTLINE
    trust[rest[mesh[rest, 1] < mesh[list(_CURVES["lip_border_lower"]), 1].mean()]] = _CHIN
    trust[np.concatenate([*indices[:-1], brows])] = _ON_CURVE
    for name, index in _PUPILS.items():
        vertices[index], trust[index] = _pupil(head, name), _PUPIL
    slack = np.full(_COUNT, _ON_CURVE_M)
    slack[rest], slack[list(_SILHOUETTE)] = _BETWEEN_M, _OUTLINE_M
    return Correspondence(SurfacePoints(vertices, weights), trust, slack)


def average(landmarks: np.ndarray) -> Floats:  # (T, 478, 3) -> (478, 3)
    """The mean face of a recording, from the frames in which it looks straightest ahead; +y up, +z towards the viewer.

    Frames are brought together by similarities (generalised Procrustes analysis).
    """
    there = np.flatnonzero(np.isfinite(landmarks).all((1, 2)))
    if not len(there):
        raise UserError(f"expected a face in at least one of {len(landmarks)} frames, found none")
    if len(there) > 25 * _BEST:
        there = there[np.linspace(0, len(there) - 1, 25 * _BEST).round().astype(int)]
    faces = landmarks[there].astype(np.float64) * (1.0, -1.0, -1.0)
    # how far the nose is from the middle between the eyes' outer corners, sideways and against their height
    eyes, nose = faces[:, [33, 263]], faces[:, _TIP]
    width = np.linalg.norm(eyes[:, 0] - eyes[:, 1], axis=-1)
    askew = np.abs((nose - eyes.mean(1))[:, 0]) / width + np.abs((eyes[:, 0] - eyes[:, 1])[:, 1]) / width
    faces = faces[np.argsort(askew, kind="stable")[:_BEST]]
    mean = faces[0] - faces[0].mean(0)
    for _ in range(3):
        aligned = [scale * face @ turn.T + shift for face in faces for scale, turn, shift in [_similarity(face, mean)]]
        mean = np.mean(aligned, 0)
    return mean


def _similarity(start: Floats, end: Floats) -> tuple[float, Floats, Floats]:
    """Scale, rotation and shift that take points (N, 3) nearest to others (Umeyama 1991)."""
    a, b = start - start.mean(0), end - end.mean(0)
    u, size, v = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ v))])
    turn = u * sign @ v
    scale = float((size * sign).sum() / (a * a).sum())
    return scale, turn, end.mean(0) - scale * turn @ start.mean(0)


def _pupil(head: HeadModel, name: str) -> Ints:
    """The foremost vertex of an eyeball, thrice."""
    eye = head.vertex_sets[name]
    return np.repeat(int(eye[head.template[eye, 2].argmax()]), 3)
