"""Expression from one basis to another: what a model says in ARKit's names, in a FLAME file's own coefficients.

Each of the 41 expressions of the clay head moves about a hundred landmarks; regularised least squares find the FLAME
coefficients that move the corresponding landmarks alike (see `diffdyad.retarget.landmarks`). What follows is linear:
coefficients (T, 41) times a matrix (41, E). Jaw, eyes, neck and head are rotations in both, and are copied.
`docs/retargeting.md` has the measured errors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from diffdyad.errors import UserError
from diffdyad.head import HeadModel
from diffdyad.motion import ARKIT_EXPRESSIONS, JAW_OPEN_RADIANS, POSE_GROUPS, Motion, MotionLayout
from diffdyad.retarget.landmarks import Floats, Landmarks, face_curves, find_landmarks, middle_of

__all__ = ["Retarget", "face_scale"]

# What a coefficient of 1 costs, as metres of error at one landmark. FLAME's coefficients are in standard deviations
# of the faces that it was made from: with landmarks that are trusted to a millimetre, and coefficients of 2 at full
# expressions, a coefficient costs 1 mm / 2.
_PRICE_M = 5e-4
# The same for closing a lid by the head's own lid directions. A closed lid moves its landmarks by 2 cm in all (root
# sum of squares): at half of that, a basis which closes lids well does it, and one which would pull at the cheek for
# it does not.
_LID_PRICE_M = 1e-2
# A lip that is a little off is hardly seen; lips that should touch and do not, are: the way between them counts more,
# and so do the lips altogether where the jaw opens under them.
_CONTACT_WEIGHT = 2.0
_CLOSED_LIP_WEIGHT = 2.0
# shares of the full opening at which lips that stay closed over an opening jaw are fitted
_OPENINGS = (0.25, 0.5, 0.75, 1.0)

_COUNT = len(ARKIT_EXPRESSIONS)
_BLINKS = [ARKIT_EXPRESSIONS.index(f"eyeBlink{side}") for side in ("Left", "Right")]
_CLOSE = ARKIT_EXPRESSIONS.index("mouthClose")
_JAW_X = 3 * POSE_GROUPS.index("jaw_pose")


@dataclass(frozen=True)
class Retarget:
    """Takes motion in the ARKit basis to a FLAME head's own.

    expression: (41, E), the head's coefficients for each ARKit expression at 1. closed: (41, 2), how far each ARKit
    expression closes the lids (left, right), 1 = shut; closed_by_expression: (41, 2), how far its FLAME coefficients
    do; the difference is left to the head's lid directions. layout: of the motion that comes out.
    """

    expression: Tensor
    closed: Tensor
    closed_by_expression: Tensor
    layout: MotionLayout

    @classmethod
    def fit(cls, source: HeadModel, target: HeadModel) -> Retarget:
        """source: the clay head; target: a FLAME head with expression directions. About a second; deterministic.

        Raises UserError where the target has no expression directions, or the source is of another basis.
        """
        if source.basis != "arkit" or source.num_expression != _COUNT:
            raise UserError(f"expected a head in basis arkit to retarget from, found basis {source.basis}")
        if target.num_expression == 0:
            raise UserError(f"expected a {target.basis} head with expression directions, found one without")
        source, target = (_double(head) for head in (source, target))
        landmarks = find_landmarks(source, target)
        scale = face_scale(source, target, landmarks)
        part = target.subset(torch.from_numpy(landmarks.target))
        wanted = scale * landmarks.source.of(source.expression_dirs.numpy())  # (L, 3, 41)
        expression = _fit(part, wanted, landmarks)
        expression[_CLOSE] = _fit_closed_lips(source, part, landmarks, scale)
        layout = MotionLayout(target.basis, target.num_expression, target.eyelid_dirs is not None)
        closed, by_expression = np.zeros((2, _COUNT, 2))
        if layout.eyelids:
            # in units of each head's own shutting: eyes that are wider open close as well
            closed = _closing(source, source.expression_dirs)
            closed = closed / closed[_BLINKS, [0, 1]]
            shut = np.diag(_closing(target, target.eyelid_dirs))
            by_expression = expression @ _closing(target, target.expression_dirs) / shut
        return cls(*(torch.from_numpy(part).float() for part in (expression, closed, by_expression)), layout)

    def __call__(self, motion: Motion) -> Motion:
        """The same motion in the FLAME basis, on the FLAME template's identity: betas are left out.

        Raises UserError where the motion is not in the ARKit basis.
        """
        if motion.layout != MotionLayout.arkit():
            raise UserError(f"expected motion in basis arkit to retarget, found basis {motion.layout.basis}")
        expression = motion.select("expression").float().cpu()
        parts = [expression @ self.expression]
        if self.layout.eyelids:
            # a blink and a squint at once shut the lids, and no more
            parts.append((expression @ self.closed).clamp(max=1) - expression @ self.closed_by_expression)
        valid = [motion.valid[:, :1]] * len(parts) + [motion.valid[:, 1:]]
        parts += [motion.select(group).float().cpu() for group in POSE_GROUPS]
        return replace(motion, values=torch.cat(parts, -1), layout=self.layout, betas=None, valid=torch.cat(valid, -1))


def face_scale(source: HeadModel, target: HeadModel, landmarks: Landmarks) -> float:
    """How much larger the target's face is: the ratio of the landmarks' mean (square) distances from their centre."""
    there = landmarks.source.of(source.template.double().cpu().numpy())
    here = target.template.double().cpu().numpy()[landmarks.target]
    return float(np.linalg.norm(here - here.mean(0)) / np.linalg.norm(there - there.mean(0)))


def _double(head: HeadModel) -> HeadModel:
    """A copy in double precision on the CPU."""
    return head.subset(torch.arange(head.num_vertices)).cpu().double()


def _fit(target: HeadModel, wanted: Floats, landmarks: Landmarks) -> Floats:
    """Coefficients (N, E) that move a head of L landmarks by `wanted` (L, 3, N), its lid directions helping."""
    columns, count = target.expression_dirs, target.num_expression
    prices = np.full(count, _PRICE_M)
    if target.eyelid_dirs is not None:
        columns = torch.cat([columns, target.eyelid_dirs], -1)
        prices = np.append(prices, [_LID_PRICE_M] * 2)
    return _ridge(_rows(columns.numpy(), landmarks), _rows(wanted, landmarks), prices)[:count].T


def _rows(moves: Floats, landmarks: Landmarks) -> Floats:
    """What is fitted, for moves (L, 3, N) of the landmarks: those, and those of the lips against each other; (R, N)."""
    upper, lower = landmarks.lip_pairs.T
    return np.concatenate([moves, _CONTACT_WEIGHT * (moves[upper] - moves[lower])]).reshape(-1, moves.shape[-1])


def _ridge(columns: Floats, wanted: Floats, prices: Floats) -> Floats:
    """The x (E, N) of least |columns x - wanted|^2 + |prices x|^2; columns (R, E), wanted (R, N), prices (E,)."""
    return np.linalg.solve(columns.T @ columns + np.diag(prices**2), columns.T @ wanted)


def _fit_closed_lips(source: HeadModel, target: HeadModel, landmarks: Landmarks, scale: float) -> Floats:
    """Coefficients (E,) for mouthClose, which keeps the lips together while the jaw opens, up to jawOpen = 1.

    Fitted in place, with the jaw open at some angles: skinning and pose correctives turn and add to what coefficients
    do. Lips go where the clay head's do. The rest moves, from where the jaw alone has it, as the clay head's does: the
    two heads' jaws need not carry a cheek alike, and nothing here should make up for that.
    """
    count = target.num_expression
    at_rest = landmarks.source.of(source.template.numpy())
    is_lip = np.char.find(landmarks.names, "lip") >= 0
    weight = np.where(is_lip, _CLOSED_LIP_WEIGHT, 1.0)[:, None, None] / np.sqrt(len(_OPENINGS))
    columns, wanted = [], []
    for opening in _OPENINGS:
        poses, close = torch.zeros(1, 15).double(), torch.zeros(1, _COUNT).double()
        poses[0, _JAW_X], close[0, _CLOSE] = opening * JAW_OPEN_RADIANS, opening
        opened, closed = (
            landmarks.source.of(source(expression=given, poses=poses)[0].numpy()) for given in (None, close)
        )
        jaw = target(poses=poses)[0]
        moved = target(expression=torch.eye(count).double(), poses=poses.expand(count, -1)) - jaw  # (E, L, 3)
        to_clay = scale * (closed - at_rest) - (jaw - target.template).numpy()
        goal = np.where(is_lip[:, None], to_clay, scale * (closed - opened))
        columns.append(_rows(weight * opening * moved.permute(1, 2, 0).numpy(), landmarks))
        wanted.append(_rows(weight * goal[..., None], landmarks))
    return _ridge(np.concatenate(columns), np.concatenate(wanted), np.full(count, _PRICE_M))[:, 0]


def _closing(head: HeadModel, directions: Tensor) -> Floats:
    """By how much directions (V, 3, N) narrow the openings of the eyes, left and right: (N, 2) metres."""
    curves = face_curves(head)
    narrowing = []
    for side in ("left", "right"):
        upper, lower = (directions[middle_of(head, curves[f"{side}_lid_{lid}"])].mean(0) for lid in ("upper", "lower"))
        narrowing.append((lower - upper)[1])
    return torch.stack(narrowing, -1).numpy()
