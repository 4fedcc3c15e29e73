"""Which points of two heads correspond.

Edges of lids and lips, and brows, are curves that both heads have: points at equal shares of their lengths correspond.
So do the nose, the chin and what lies between them on the midline. These anchor a thin-plate warp, which carries the
rest of one face onto the other.

Nothing here knows a vertex of the clay head by number: its curves are read off its named sets and its shape, so a head
that is sculpted anew, with other vertices, is found as well. FLAME's mesh is the same in all editions, and its curves
are a table. Numpy, float64, metres; axes as FLAME.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diffdyad import flame
from diffdyad.errors import UserError
from diffdyad.head import HeadModel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# left halves of FLAME's lips, from the midline to the corner: where they meet, and where the red ends
_FLAME_LIPS = {
    "inner_lip_upper": (3531, 1669, 1670, 1737, 1736, 1733, 1711),
    "inner_lip_lower": (3504, 1849, 1804, 1793, 1792, 1791, 1711),
    "lip_border_upper": (3543, 1657, 1694, 1696, 1735, 1717, 1712, 1710),
    "lip_border_lower": (3511, 1866, 1801, 1796, 1774, 1577, 1710),
}
# the left eye's, from the nose outwards; the brow runs along its ridge
_FLAME_LEFT = {
    "lid_upper": flame.UPPER_LID, "lid_lower": flame.LOWER_LID, "brow": (3851, 3912, 2135, 27, 18, 1429),
}  # fmt: skip

# shares of a curve's length at which landmarks lie; corners belong to one of the curves that end in them
_SHARES = {
    "lid_upper": (0.0, 0.17, 0.33, 0.5, 0.67, 0.83, 1.0), "lid_lower": (0.2, 0.4, 0.6, 0.8),
    "brow": (0.0, 0.25, 0.5, 0.75, 1.0),
    "inner_lip_upper": (0.0, 0.15, 0.32, 0.5, 0.68, 0.85, 1.0), "inner_lip_lower": (0.15, 0.32, 0.5, 0.68, 0.85),
    "lip_border_upper": (0.15, 0.32, 0.5, 0.68, 0.85), "lip_border_lower": (0.15, 0.32, 0.5, 0.68, 0.85),
}  # fmt: skip

# the left half of the face between the curves: from the midline in halves of the distance between the eyes, and down
# from the eyes in shares of the way to the mouth
_BETWEEN = (
    (1.00, -0.20), (0.55, -0.60), (1.45, -0.50), (1.85, 0.00),  # fold of the lid, forehead, temple
    (0.45, 0.52), (0.25, 0.80), (0.70, 0.62),  # wing of the nose, philtrum, nose to mouth
    (1.00, 0.32), (1.10, 0.60), (1.60, 0.40), (0.95, 0.76), (1.00, 0.98), (1.35, 0.90), (1.70, 0.90),  # cheek
    (0.85, 1.20), (0.75, 1.45), (1.35, 1.30),  # chin, jaw
)  # fmt: skip
# and below the jaw, where little should move
_BELOW = ((0.05, 1.75), (0.80, 1.75), (1.40, 1.65), (0.50, 2.20))


@dataclass(frozen=True)
class SurfacePoints:
    """L points on a mesh, each within a triangle: vertices (L, 3) and their weights (L, 3), which sum to 1."""

    vertices: Ints
    weights: Floats

    def of(self, values: Floats) -> Floats:
        """A field over the mesh's vertices at the points: (V, ...) -> (L, ...)."""
        return np.einsum("lk,lk...->l...", self.weights, values[self.vertices])

    @classmethod
    def join(cls, *parts: SurfacePoints) -> SurfacePoints:
        return cls(np.concatenate([p.vertices for p in parts]), np.concatenate([p.weights for p in parts]))


@dataclass(frozen=True)
class Landmarks:
    """L corresponding points of two neutral faces.

    source: points of one face; target: (L,) vertices of the other; names: (L,) the curve that each lies on, `middle`,
    `between` or `below`; lip_pairs: (P, 2) landmarks of the upper and the lower inner lip that face each other;
    warp: carries points of the target's face onto the source's.
    """

    source: SurfacePoints
    target: Ints
    names: NDArray[np.str_]
    lip_pairs: Ints
    warp: Warp


def find_landmarks(source: HeadModel, target: HeadModel) -> Landmarks:
    """About a hundred corresponding points of two heads at rest. Raises UserError where one lacks named features."""
    there, here = Surface.face_of(source), Surface.face_of(target)
    curves_there, curves_here = face_curves(source), face_curves(target)
    vertices, points, names = [], [], []
    for name, chain in curves_here.items():
        along = shares_along(here.points[chain])
        wanted = _SHARES[name.removeprefix("left_").removeprefix("right_")]
        picked = np.array(list(dict.fromkeys(int(np.abs(along - share).argmin()) for share in wanted)))
        vertices.append(chain[picked])
        points.append(on_curve(there.points, curves_there[name], along[picked]))
        names += [name] * len(picked)
    middle_here, middle_there = midline(here, curves_here), midline(there, curves_there)
    warp = Warp(
        np.concatenate([here.points[np.concatenate(vertices)], middle_here]),
        np.concatenate([SurfacePoints.join(*points).of(there.points), middle_there]),
    )
    # below the jaw ends what the heads name as their faces
    all_there, all_here = (replace(surface, faces=head.faces.cpu().numpy())
                           for surface, head in ((there, source), (here, target)))  # fmt: skip
    for name, sought, from_surface, to_surface in (
        ("middle", middle_here, here, there),
        ("between", here.front(_places(here, curves_here, _BETWEEN)), here, there),
        ("below", all_here.front(_places(here, curves_here, _BELOW)), all_here, all_there),
    ):
        vertices.append(from_surface.nearest_vertices(sought))
        points.append(to_surface.closest(warp(here.points[vertices[-1]])))
        names += [name] * len(sought)
    target_vertices, first = np.unique(np.concatenate(vertices), return_index=True)
    found, names = SurfacePoints.join(*points), np.array(names)[first]
    upper, lower = (np.flatnonzero(names == f"inner_lip_{lip}") for lip in ("upper", "lower"))
    across = _distances(here.points[target_vertices[lower]], here.points[target_vertices[upper]])
    pairs = np.column_stack([upper[across.argmin(1)], lower])
    return Landmarks(SurfacePoints(found.vertices[first], found.weights[first]), target_vertices, names, pairs, warp)


# ------------------------------------------------------------------------------------------------------------ curves


def face_curves(head: HeadModel) -> dict[str, Ints]:
    """Ordered vertices along the features of a face.

    `left_` and `right_` with `lid_upper`, `lid_lower`, `brow` run from the nose outwards; `inner_lip_upper`,
    `inner_lip_lower`, `lip_border_upper`, `lip_border_lower` from the right corner to the left.
    """
    points = head.template.double().cpu().numpy()
    if head.num_vertices == flame.VERTICES and head.basis in flame.FLAME_BASES:
        return _flame_curves(points)
    sets = _named_sets(head, "inner_lip_upper", "inner_lip_lower", "lips", "brows", *_LID_SETS)
    curves = {name: sets[name] for name in (*_LID_SETS, "inner_lip_upper", "inner_lip_lower")}
    x, y = points[:, 0], points[:, 1]
    lips = sets["lips"][np.argsort(x[sets["lips"]], kind="stable")]
    ends = lips[[0, -1]]
    groups = _bins(x, lips, 16)
    curves["lip_border_upper"] = _chain([ends[0], *(group[y[group].argmax()] for group in groups), ends[1]])
    curves["lip_border_lower"] = _chain([ends[0], *(group[y[group].argmin()] for group in groups), ends[1]])
    middle = points[sets["lips"], 0].mean()
    for side, sign in (("left", 1), ("right", -1)):
        brow = sets["brows"][sign * (x[sets["brows"]] - middle) > 0]
        groups = _bins(sign * x, brow, 12)
        # a brow ends where it ends, wherever its mesh has vertices
        out = sign * x
        groups[0] = groups[0][out[groups[0]] < out[brow].min() + 5e-4]
        groups[-1] = groups[-1][out[groups[-1]] > out[brow].max() - 5e-4]
        curves[f"{side}_brow"] = _chain([group[_most_central(points[group])] for group in groups])
    return curves


_LID_SETS = tuple(f"{side}_lid_{lid}" for side in ("left", "right") for lid in ("upper", "lower"))


def _named_sets(head: HeadModel, *names: str) -> dict[str, Ints]:
    missing = sorted(set(names) - set(head.vertex_sets))
    if missing:
        raise UserError(f"expected a {head.basis} head that names {', '.join(missing)}, found "
                        f"{', '.join(head.vertex_sets) or 'no vertex sets'}; make it anew, or give a FLAME file")
    return {name: head.vertex_sets[name].cpu().numpy() for name in names}


def _flame_curves(points: Floats) -> dict[str, Ints]:
    skin = points[: flame.LEFT_EYE.start]

    def mirror(vertices: tuple[int, ...]) -> Ints:
        # FLAME's template is symmetric to a millimetre or two
        image = points[list(vertices)] * (-1.0, 1.0, 1.0)
        return _chain(np.linalg.norm(image[:, None] - skin, axis=-1).argmin(1))

    curves = {f"left_{name}": np.array(half) for name, half in _FLAME_LEFT.items()}
    curves |= {f"right_{name}": mirror(half) for name, half in _FLAME_LEFT.items()}
    return curves | {
        name: np.concatenate([mirror(half[:0:-1]), np.array(half)]) for name, half in _FLAME_LIPS.items()
    }


def _bins(x: Floats, members: Ints, count: int) -> list[Ints]:
    """Members in equal steps of x, from low to high; empty steps are left out."""
    low, high = x[members].min(), x[members].max()
    step = np.minimum((x[members] - low) / (high - low) * count, count - 1e-9).astype(int)
    return [members[step == k] for k in range(count) if (step == k).any()]


def _most_central(points: Floats) -> int:
    return int(np.linalg.norm(points - (points.min(0) + points.max(0)) / 2, axis=1).argmin())


def _chain(vertices: Iterable[int]) -> Ints:
    """Without those that come twice."""
    return np.array(list(dict.fromkeys(int(vertex) for vertex in vertices)))


def middle_of(head: HeadModel, chain: Ints) -> Ints:
    """The vertices of a curve that lie about its middle."""
    along = shares_along(head.template[chain].double().cpu().numpy())
    return chain[np.abs(along - 0.5) < 0.2]


def shares_along(line: Floats) -> Floats:
    """Share of a polyline's length up to each of its points: (K, 3) -> (K,)."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    return length / length[-1]


def on_curve(points: Floats, chain: Ints, shares: Floats) -> SurfacePoints:
    along = shares_along(points[chain])
    after = np.clip(np.searchsorted(along, shares), 1, len(chain) - 1)
    t = (shares - along[after - 1]) / (along[after] - along[after - 1])
    return SurfacePoints(np.stack([chain[after - 1], chain[after], chain[after]], 1), np.stack([1 - t, t, 0 * t], 1))


# ----------------------------------------------------------------------------------------------------------- surface


@dataclass(frozen=True)
class Surface:
    """A part of a head's mesh at rest: points (V, 3) of the whole head, faces (F, 3) of the part."""

    points: Floats
    faces: Ints

    @classmethod
    def face_of(cls, head: HeadModel) -> Surface:
        members = _named_sets(head, "face")["face"]
        faces = head.faces.cpu().numpy()
        return cls(head.template.double().cpu().numpy(), faces[np.isin(faces, members).all(1)])

    def nearest_vertices(self, points: Floats) -> Ints:  # (N, 3) -> (N,)
        members = np.unique(self.faces)
        return members[np.linalg.norm(points[:, None] - self.points[members], axis=-1).argmin(1)]

    def front(self, xy: Floats) -> Floats:
        """Where lines along z meet the surface foremost: (N, 2) -> (M, 3), M <= N; those that miss it are left out."""
        corners = self.points[self.faces]
        a, edge1, edge2 = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
        upright = np.abs(area) > 1e-12
        area = np.where(upright, area, 1.0)
        found = []
        for place in xy:
            dx, dy = (place - a[:, :2]).T
            u = (dx * edge2[:, 1] - dy * edge2[:, 0]) / area
            v = (dy * edge1[:, 0] - dx * edge1[:, 1]) / area
            hit = upright & (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9)
            if hit.any():
                found.append((*place, (a[:, 2] + u * edge1[:, 2] + v * edge2[:, 2])[hit].max()))
        return np.array(found).reshape(-1, 3)

    def closest(self, points: Floats) -> SurfacePoints:
        """The surface's points that are nearest to others: (N, 3) -> N points."""
        corners = self.points[self.faces]
        centres = corners.mean(1)
        vertices, weights = [], []
        for point in points:
            # a triangle's centre is nearer than its far corner: those of the nearest centres contain the closest point
            near = np.argsort(((centres - point) ** 2).sum(1))[:48]
            options = _closest_in_triangles(point, corners[near])
            gap = np.linalg.norm(np.einsum("fok,fkc->foc", options, corners[near]) - point, axis=-1)
            face, option = np.unravel_index(gap.argmin(), gap.shape)
            vertices.append(self.faces[near[face]])
            weights.append(options[face, option])
        return SurfacePoints(np.array(vertices), np.array(weights))


def _closest_in_triangles(point: Floats, corners: Floats) -> Floats:
    """Weights of four candidates for each triangle, in its plane and on its edges: (3,), (F, 3, 3) -> (F, 4, 3)."""
    edges = corners[:, 1:] - corners[:, :1]
    gram = np.einsum("fic,fjc->fij", edges, edges)
    share = np.einsum("fij,fj->fi", np.linalg.pinv(gram), np.einsum("fic,fc->fi", edges, point - corners[:, 0]))
    options = np.zeros((len(corners), 4, 3))
    options[:, 0] = np.column_stack([1 - share.sum(1), share])
    outside = (options[:, 0] < 0).any(1)
    for k in range(3):
        start, way = corners[:, k], corners[:, k - 2] - corners[:, k]
        t = np.clip(((point - start) * way).sum(1) / np.maximum((way * way).sum(1), 1e-18), 0, 1)
        options[:, k + 1, k], options[:, k + 1, k - 2] = 1 - t, t
    options[outside, 0] = options[outside, 1]
    return options


class Warp:
    """A smooth map of space that takes `start` to `end`, (N, 3) each: a thin-plate spline, |r| in three dimensions.

    `softness`, in metres, lets it pass them by a little, so that a badly placed pair does not fold space.
    """

    def __init__(self, start: Floats, end: Floats, softness: float = 2e-4):
        count = len(start)
        self._start = start
        system = np.zeros((count + 4, count + 4))
        system[:count, :count] = _distances(start, start) - softness * np.eye(count)
        system[:count, count:] = np.column_stack([np.ones(count), start])
        system[count:, :count] = system[:count, count:].T
        self._solution = np.linalg.solve(system, np.concatenate([end, np.zeros((4, 3))]))

    def __call__(self, points: Floats) -> Floats:  # (N, 3) -> (N, 3)
        terms = np.column_stack([_distances(points, self._start), np.ones(len(points)), points])
        return terms @ self._solution


def _distances(a: Floats, b: Floats) -> Floats:
    return np.linalg.norm(a[:, None] - b, axis=-1)


# --------------------------------------------------------------------------------------- the face between the curves


def _frame(surface: Surface, curves: dict[str, Ints]) -> tuple[float, float, float, float]:
    """x of the midline, half the distance between the eyes, y of the eyes, y of the mouth."""
    left, right = (
        surface.points[np.concatenate([curves[f"{side}_lid_upper"], curves[f"{side}_lid_lower"]])].mean(0)
        for side in ("left", "right")
    )
    mouth = surface.points[np.concatenate([curves["inner_lip_upper"], curves["inner_lip_lower"]])].mean(0)
    return (left[0] + right[0]) / 2, (left[0] - right[0]) / 2, (left[1] + right[1]) / 2, mouth[1]


def _places(surface: Surface, curves: dict[str, Ints], left_half: tuple[tuple[float, float], ...]) -> Floats:
    """x and y (N, 2) of places of the left half, as `_BETWEEN` gives them, and of their mirror images."""
    middle, half, eyes, mouth = _frame(surface, curves)
    across, down = np.array([(sign * across, down) for across, down in left_half for sign in (1, -1)]).T
    return np.column_stack([middle + across * half, eyes + down * (mouth - eyes)])


def midline(surface: Surface, curves: dict[str, Ints]) -> Floats:
    """Eight points of the profile, from above: forehead, root, bridge and tip of the nose, below it; fold, front and
    underside of the chin."""
    x, _, eyes, mouth = _frame(surface, curves)
    reach = surface.points[np.unique(surface.faces), 1]
    heights = np.arange(reach.min(), reach.max(), 5e-4)
    profile = surface.front(np.column_stack([np.full(len(heights), x), heights]))[:, 1:]  # (y, z)
    y = profile[:, 0]
    red = [surface.points[curves[f"lip_border_{lip}"]] for lip in ("upper", "lower")]
    above, below = (edge[np.abs(edge[:, 0] - x).argmin(), 1:] for edge in red)

    def furthest(part: NDArray[np.bool_], direction: tuple[float, float]) -> Floats:
        return profile[part][(profile[part] @ direction).argmax()]

    def deepest(a: Floats, b: Floats) -> Floats:
        """The point furthest behind the chord between two points, a above b."""
        part = (y < a[0]) & (y > b[0])
        return furthest(part, (a[1] - b[1], b[0] - a[0]))

    root = profile[np.abs(y - eyes).argmin()]
    tip = furthest((y > above[0]) & (y < eyes), (0, 1))
    bridge = profile[np.abs(y - (root[0] + tip[0]) / 2).argmin()]
    # below the red by a fifth of the way from eyes to mouth there is chin in any face
    front = furthest(y < below[0] - 0.2 * (eyes - mouth), (0, 1))
    under = furthest(y < below[0], (-1, 1))
    forehead = profile[np.abs(y - (eyes + 0.6 * (eyes - mouth))).argmin()]
    points = np.array([forehead, root, bridge, tip, deepest(tip, above), deepest(below, front), front, under])
    return np.column_stack([np.full(len(points), x), points])
