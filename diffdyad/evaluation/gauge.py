"""Motion on a head, in millimetres: the points, openings and face actions that metrics look at.

The head stands still here: expression, eyelids and jaw move, the neck, the eyes and the whole head do not, and the
identity is the mean one. So a vertex metric is about the face alone, and rotations have metrics of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from diffdyad.errors import UserError
from diffdyad.evaluation.trim import cut
from diffdyad.flame import FLAME_BASES, LOWER_LID, UPPER_LID, VERTICES
from diffdyad.head import HeadModel
from diffdyad.motion import ARKIT_EXPRESSIONS, POSE_GROUPS, Motion, MotionLayout
from diffdyad.rotation import axis_angle_to_matrix

SETS = ("lips", "upper_face", "face")
"""Named vertex sets of the metrics, on FLAME topology and clay alike."""

_MOVERS = 60


def metric_vertices(head: HeadModel) -> dict[str, Tensor]:
    """Sorted vertex indices without duplicates, by the names of `SETS`.

    lips: both lips with their inner rims. upper_face: the face above the eyes' centres, with upper lids and brows.
    face: in front of the ears, from hairline to chin, eyeballs and mouth's inside excluded.
    """
    sets = head.vertex_sets
    inner = torch.cat([sets["inner_lip_upper"], sets["inner_lip_lower"]])
    face = torch.unique(torch.cat([sets["face"], sets["brows"], sets["lips"], inner]))
    eye_height = head.joint_template[POSE_GROUPS.index("leye_pose") : POSE_GROUPS.index("reye_pose") + 1, 1].mean()
    upper = face[head.template[face, 1] > eye_height]
    return {"lips": torch.unique(torch.cat([sets["lips"], inner])), "upper_face": upper, "face": face}


def lid_edges(head: HeadModel) -> tuple[Tensor, Tensor] | None:
    """Paired vertices along the edges of the left eye's lids, upper and lower; None where the head names none."""
    if "left_lid_upper" in head.vertex_sets:
        return head.vertex_sets["left_lid_upper"], head.vertex_sets["left_lid_lower"]
    if head.num_vertices == VERTICES and head.basis in FLAME_BASES:
        return torch.tensor(UPPER_LID), torch.tensor(LOWER_LID)
    return None


@dataclass(frozen=True)
class FaceActions:
    """What a face does, over T frames; 0 = at rest, 1 = as far as the clay head's ARKit coefficient at 1 goes.

    smile: lips' corners; brow_raise: the whole brow; lid_closure: 1 = closed, None where it cannot be known.
    """

    smile: np.ndarray
    brow_raise: np.ndarray
    lid_closure: np.ndarray | None


def arkit_actions(motion: Motion) -> FaceActions:
    """Of motion in ARKit's basis, which needs no head: the coefficients themselves."""
    expression = motion.select("expression")
    smile, blink = (_pair(expression, name) for name in ("mouthSmile", "eyeBlink"))
    inner = expression[:, ARKIT_EXPRESSIONS.index("browInnerUp")]
    return FaceActions(smile.numpy(), ((inner + _pair(expression, "browOuterUp")) / 2).numpy(), blink.numpy())


class JawedFace:
    """Vertices of a head of which nothing but the jaw turns: what `HeadModel` gives, at a third of the cost.

    Linear blend skinning with four joints at rest leaves v + w (R - I) (v - J), w the jaw's weights, R its rotation,
    J its joint.
    """

    def __init__(self, part: HeadModel, layout: MotionLayout):
        self.layout = layout
        jaw = POSE_GROUPS.index("jaw_pose")
        count = layout.num_expression
        directions, joint = part.expression_dirs[..., :count], part.joint_expression_dirs[jaw, :, :count]
        if layout.eyelids:
            if part.eyelid_dirs is None:
                raise UserError(f"expected a head with eyelid directions, found a {part.basis} head without")
            directions = torch.cat([directions, part.eyelid_dirs], -1)
            joint = torch.cat([joint, joint.new_zeros(3, 2)], -1)
        # coordinates before vertices: the rotation is then a product of large matrices, and sums run over whole rows
        self._rest, self._joint = part.template.T.flatten(), part.joint_template[jaw]
        self._directions = directions.permute(2, 1, 0).flatten(1).contiguous()
        self._joint_directions = joint.T.contiguous()
        correctives = part.pose_dirs[9 * (jaw - 1) : 9 * jaw]
        self._correctives = correctives.unflatten(1, (-1, 3)).mT.flatten(1).contiguous()
        self._weights = part.skinning_weights[:, jaw]

    @torch.no_grad()
    def __call__(self, motion: Motion) -> Tensor:
        """(T, N, 3) metres, a view of (T, 3, N)."""
        shape = motion.values[:, : len(self._directions)]  # expression, then eyelids where the layout has them
        turn = axis_angle_to_matrix(motion.select("jaw_pose")) - torch.eye(3)
        still = torch.addmm(self._rest, shape, self._directions).addmm_(turn.flatten(1), self._correctives)
        still = still.unflatten(1, (3, -1))
        joint = torch.addmm(self._joint, shape, self._joint_directions)[..., None]
        return still.addcmul_(self._weights, turn @ (still - joint)).mT


class FaceGauge:
    """Measures motions of one layout on one head.

    `sets`: where each named vertex set lies within the points that `points` returns, a slice or positions; large sets
    are thinned evenly to `max_points` (the upper face to half as many), lips never. `movers`: some sixty of the face's,
    for its speed. Raises UserError where the head cannot carry the layout's expressions.
    """

    def __init__(self, head: HeadModel, layout: MotionLayout, max_points: int = 300):
        if layout.basis != head.basis:
            raise UserError(f"expected a head in the motion's basis {layout.basis}, found one in {head.basis}; "
                            "give --head a file of that edition")  # fmt: skip
        if layout.num_expression > head.num_expression:
            raise UserError(f"expected a head with {layout.num_expression} expressions, found {head.num_expression}; "
                            "give --head a file with expression directions")  # fmt: skip
        self.layout = layout
        order, self.sets = _arrange(metric_vertices(head), max_points)
        self.movers = np.arange(len(order))[self.sets["face"]][:: max(1, max_points // _MOVERS)]
        self._points = JawedFace(head.subset(order), layout)
        place = {vertex: number for number, vertex in enumerate(order.tolist())}
        rims = head.set_inner_lip_upper.tolist(), head.set_inner_lip_lower.tolist()
        middle = slice(len(rims[0]) // 3, len(rims[0]) - len(rims[0]) // 3)
        self._rims = [np.array([place[vertex] for vertex in rim[middle]]) for rim in rims]
        self._rest_opening = self._opening(1e3 * head.template[order][None].numpy())
        lids = lid_edges(head)
        self._lids = None if lids is None else head.subset(torch.cat(lids))
        if self._lids is not None:
            self._open_gap, self._closed_gap = float(_gap(self._lids.template)), 0.0
            if self._lids.eyelid_dirs is not None:  # the edges' vertices meet beside, not on, each other
                self._closed_gap = float(_gap(self._lids(eyelids=torch.ones(1, 2))[0]))
        self._corners = head.subset(head.set_inner_lip_upper[[0, -1]])
        self._brows = head.subset(head.vertex_sets["brows"])

    def points(self, motion: Motion) -> np.ndarray:
        """(T, P, 3) float32 in millimetres; the joints' rotations other than the jaw's do not count."""
        if len(motion) > 1 and bool((motion.values == motion.values[0]).all()):
            one = 1e3 * self._points(cut(motion, 1)).numpy()  # a motionless control: one frame tells all
            return np.broadcast_to(one, (len(motion), *one.shape[1:]))
        return self._points(motion).mul_(1e3).numpy()

    def opening_mm(self, points: np.ndarray) -> np.ndarray:
        """Opening between the inner lips, mean over their middle third, less that of the head at rest: (T,).

        points: as `points` gives them. FLAME's rims rest 3 mm apart where the lips touch; 0 is a shut mouth here,
        negative are pressed lips.
        """
        return self._opening(points) - self._rest_opening

    def _opening(self, points: np.ndarray) -> np.ndarray:
        upper, lower = (points[:, rim] for rim in self._rims)
        return np.linalg.norm(upper - lower, axis=-1).mean(-1)

    @torch.no_grad()
    def actions(self, motion: Motion) -> FaceActions:
        """Smile, brow raise and lid closure over time, in any basis.

        ARKit: the coefficients themselves. FLAME: displacement of the lips' corners (jaw shut), along the way that the
        clay head's smile takes, and mean rise of the brows, each divided by what the clay head's coefficients at 1
        do; the left eye's lid gap between open and closed.
        """
        if self.layout.basis == "arkit":
            return arkit_actions(motion)
        expression = motion.select("expression")
        scale = _clay_scale()
        corners = self._corners(expression=expression) - self._corners.template  # (T, 2, 3), right and left
        smile = (corners * scale.smile_way).sum(-1).mean(-1) / scale.smile_m
        rise = (self._brows(expression=expression) - self._brows.template)[..., 1].mean(-1) / scale.brow_m
        return FaceActions(smile.numpy(), rise.numpy(), self._closure(motion))

    def _closure(self, motion: Motion) -> np.ndarray | None:
        if self._lids is None:
            return motion.select("eyelids").mean(-1).numpy() if self.layout.eyelids else None
        eyelids = motion.select("eyelids") if self.layout.eyelids else None
        gap = _gap(self._lids(expression=motion.select("expression"), eyelids=eyelids))
        return ((self._open_gap - gap) / (self._open_gap - self._closed_gap)).numpy()


def _arrange(vertices: dict[str, Tensor], max_points: int) -> tuple[Tensor, dict[str, slice | np.ndarray]]:
    """An order of vertices in which the lips and the face's points are stretches, and where each set lies in it."""
    lips = vertices["lips"].tolist()
    face = vertices["face"][:: -(-len(vertices["face"]) // max_points)].tolist()
    upper = vertices["upper_face"][:: -(-len(vertices["upper_face"]) // (max_points // 2))].tolist()
    in_face, in_lips = set(face), set(lips)
    order = [v for v in lips if v not in in_face] + [v for v in lips if v in in_face]
    first = len(order) - len(in_face & in_lips)
    order += [v for v in face if v not in in_lips]
    stop = len(order)
    order += [v for v in upper if v not in in_face]
    place = {vertex: number for number, vertex in enumerate(order)}
    sets = {"lips": slice(0, len(lips)), "face": slice(first, stop), "upper_face": np.array([place[v] for v in upper])}
    return torch.tensor(order), sets


@dataclass(frozen=True)
class _ClayScale:
    smile_way: Tensor  # (2, 3) unit vectors, right and left corner
    smile_m: float
    brow_m: float


@lru_cache(maxsize=1)
def _clay_scale() -> _ClayScale:
    """How far the clay head's corners and brows go at coefficient 1."""
    head = HeadModel.clay()

    def moved(part: HeadModel, *names: str) -> Tensor:
        coefficients = torch.zeros(1, len(ARKIT_EXPRESSIONS))
        coefficients[:, [ARKIT_EXPRESSIONS.index(name) for name in names]] = 1
        return (part(expression=coefficients) - part.template)[0]

    with torch.no_grad():
        corners = moved(head.subset(head.set_inner_lip_upper[[0, -1]]), "mouthSmileLeft", "mouthSmileRight")
        brows = moved(head.subset(head.vertex_sets["brows"]), "browInnerUp", "browOuterUpLeft", "browOuterUpRight")
    length = corners.norm(dim=-1, keepdim=True)
    return _ClayScale(corners / length, float(length.mean()), float(brows[:, 1].mean()))


def _pair(expression: Tensor, name: str) -> Tensor:
    """Mean of an ARKit coefficient's left and right: (T, 41) -> (T,)"""
    return expression[:, [ARKIT_EXPRESSIONS.index(f"{name}{side}") for side in ("Left", "Right")]].mean(-1)


def _gap(lids: Tensor) -> Tensor:
    """Mean distance of the middle third of paired lid vertices: (..., 2 N, 3) -> (...)"""
    pairs = lids.shape[-2] // 2
    middle = slice(pairs // 3, pairs - pairs // 3)
    return (lids[..., :pairs, :][..., middle, :] - lids[..., pairs:, :][..., middle, :]).norm(dim=-1).mean(-1)
