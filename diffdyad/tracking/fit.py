"""Landmarks to motion: regularised least squares by Gauss-Newton, all frames of a chunk at once.

What is minimised, over the view and the face of every frame and one identity: squared distances in the picture between
landmarks and the head's projected points (Huber's beyond three sigmas); coefficients, jaw and gaze against their usual
size; steps from frame to frame against their usual speed. Identity is found first, from some frames spread over the
session, with what is particular to each of them eliminated (the Schur complement). The pose starts from all landmarks,
by the affine map that takes the head to the picture, orthonormalised: not from six points.

T frames, L landmarks, P parameters of a frame: the view's 6, jaw 3, expression, eyelids, gaze 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffdyad.errors import UserError
from diffdyad.head import HeadModel
from diffdyad.motion import ARKIT_EXPRESSIONS, Motion, MotionLayout
from diffdyad.retarget.landmarks import SurfacePoints
from diffdyad.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from diffdyad.tracking.rig import Face, Rig, View

NAME = "diffdyad-preview"
"""What records say of such motion in `tracker`; the landmarks' backend follows."""

_CHUNK = 128
_VIEW = 6
_HUBER = 3.0
_LEAST_SEEN = 0.5  # of the landmarks' weight
_USUAL_FOCAL = 0.65  # of the picture's diagonal: that of webcams and of phones' front cameras
_HELD = 1e12  # precision of what is known
_LOST = 8.0  # sigmas: beyond, what was found is no face, or the fit has failed
_ARKIT_FAST = [ARKIT_EXPRESSIONS.index(f"eyeBlink{side}") for side in ("Left", "Right")]


@dataclass(frozen=True)
class FitSettings:
    """Sizes that are usual, as standard deviations.

    landmark_m: error of a landmark, detector and correspondence together, in metres on the face; independent: of so
    many landmarks the errors count as independent: detectors err by regions, not by points. Steps are from frame to
    frame at 25 fps.
    """

    landmark_m: float = 1e-3
    independent: float = 60.0
    expression: float = 0.5
    flame_expression: float = 1.0
    eyelid: float = 0.6
    jaw: tuple[float, float, float] = (0.25, 0.04, 0.02)
    gaze: float = 0.25
    vergence: tuple[float, float] = (0.02, 0.06)  # of the eyes against each other: up and down, sideways
    turn_step: float = 0.05
    scale_step: float = 0.02
    jaw_step: float = 0.06
    expression_step: float = 0.2
    blink_step: float = 0.6
    gaze_step: float = 0.2
    focal_log: float = 0.35
    identity_frames: int = 40
    identity_counts: float = 10.0
    identity_rounds: int = 6
    rounds: int = 7


@dataclass
class Fit:
    """motion: in the head's basis, the neck folded into `global_orient`, at the landmarks' rate. error_px: (T,) root
    mean square distance of landmarks and projected points, NaN where no face was seen. view: pose and place."""

    motion: Motion
    error_px: Tensor
    view: View
    focal_px: float

    @property
    def reprojection_px(self) -> float:
        """Median over the frames with a face; NaN without any."""
        return float(self.error_px.nanmedian())


def fit_landmarks(
    head: HeadModel, points: SurfacePoints, landmarks: np.ndarray, fps: float, size: tuple[int, int],
    focal_px: float | None = None, weights: np.ndarray | None = None, betas: Tensor | None = None,
    settings: FitSettings = FitSettings(),
) -> Fit:
    """The motion of a head whose `points` are seen at `landmarks`.

    points: L points of the head; landmarks: (T, L, 2) or (T, L, 3, the third ignored), columns and rows in pixels, NaN
    where there are none; size: width and height of the picture, whose centre the lens looks at; focal_px: of the lens,
    None = estimated with the identity, infinite = a camera far away (weak perspective); weights: (L,) 0..1, how far a
    landmark is trusted; betas: the identity, where it is known.

    Raises UserError where shapes do not agree, or no frame shows a face.
    """
    landmarks = np.asarray(landmarks, np.float32)
    if landmarks.ndim != 3 or landmarks.shape[1] != len(points.vertices) or landmarks.shape[2] not in (2, 3):
        wanted = f"(frames, {len(points.vertices)}, 2 or 3)"
        raise UserError(f"expected landmarks of shape {wanted}, found {landmarks.shape}")
    flat = torch.from_numpy(landmarks[..., :2].copy())
    flat = torch.stack([flat[..., 0] - size[0] / 2, size[1] / 2 - flat[..., 1]], -1)
    trust = torch.ones(flat.shape[1]) if weights is None else torch.from_numpy(np.asarray(weights, np.float32))
    trust = trust * flat.isfinite().all(-1)
    trust = trust * min(1.0, settings.independent / max(float(trust.sum(-1).max()), 1e-6))
    whole = float(trust.sum(-1).max()) if len(trust) else 0.0
    seen = trust.sum(-1) > _LEAST_SEEN * whole if whole else torch.zeros(len(trust), dtype=torch.bool)
    if not seen.any():
        raise UserError(f"expected a face in at least one of {len(flat)} frames, found none")
    rig = Rig(head, points)
    focal = focal_px or _USUAL_FOCAL * math.hypot(*size)
    problem = _Problem(rig, torch.nan_to_num(flat), trust, focal, _priors(rig, settings, fps), settings)
    with torch.no_grad():
        state = _start(rig, problem, seen, betas if betas is not None else torch.zeros(rig.num_betas))
        if betas is None or focal_px is None:
            betas = _identity(problem, state, seen, betas, focal_px)
            state = _start(rig, problem, seen, betas)
        for _ in range(settings.rounds):
            state = problem.improve(state, betas, seen)
        error = problem.error(state, betas)
    error[~seen] = torch.nan
    motion = _motion(head, rig, state, betas, fps, seen & (error < problem.lost(state)))
    return Fit(motion, error, state.view, problem.focal_px)


@dataclass
class _State:
    """view and values (T, P - 6) of the face, as `Face` has them."""

    view: View
    values: Tensor

    def __getitem__(self, part) -> _State:
        view = View(self.view.rotation[part], self.view.scale[part], self.view.shift[part])
        return _State(view, self.values[part])

    @staticmethod
    def join(parts: list[_State]) -> _State:
        views = [part.view for part in parts]
        view = View(*(torch.cat([getattr(v, name) for v in views]) for name in ("rotation", "scale", "shift")))
        return _State(view, torch.cat([part.values for part in parts]))


@dataclass
class _Priors:
    """precision: (P - 6, P - 6) of the face's values; low, high: their bounds; steps: (P,) precision of the steps from
    frame to frame, 0 for the shift, which is free."""

    precision: Tensor
    low: Tensor
    high: Tensor
    steps: Tensor


def _priors(rig: Rig, s: FitSettings, fps: float) -> _Priors:
    arkit = rig.head.basis == "arkit"
    size = s.expression if arkit else s.flame_expression
    deviation = [*s.jaw, *[size] * rig.num_expression, *[s.eyelid] * rig.num_lids, *[s.gaze] * 4]
    precision = torch.diag(1 / torch.tensor(deviation) ** 2)
    for axis, spread in enumerate(s.vergence):
        left, right = (len(deviation) - 4 + axis, len(deviation) - 2 + axis)
        between = 1 / spread**2
        for a, b, sign in ((left, left, 1), (right, right, 1), (left, right, -1), (right, left, -1)):
            precision[a, b] += sign * between
    low, high = (torch.full((len(deviation),), bound) for bound in (-torch.inf, torch.inf))
    coefficients = slice(3, 3 + rig.num_expression)
    if arkit:
        low[coefficients], high[coefficients] = 0.0, 1.0
    lids = slice(coefficients.stop, coefficients.stop + rig.num_lids)
    low[lids], high[lids] = -0.2, 1.1
    low[0], high[0] = -0.03, 0.6
    step = [s.expression_step * (1.0 if arkit else 2.0)] * rig.num_expression
    if arkit:
        for index in _ARKIT_FAST:
            step[index] = s.blink_step
    steps = [*[s.turn_step] * 3, s.scale_step, torch.inf, torch.inf, *[s.jaw_step] * 3, *step,
             *[s.blink_step] * rig.num_lids, *[s.gaze_step] * 4]  # fmt: skip
    # a walk at another rate takes other steps: their variance is as long as the time between frames
    return _Priors(precision, low, high, fps / 25.0 / torch.tensor(steps) ** 2)


@dataclass
class _Problem:
    """The sums that are minimised. flat: (T, L, 2) pixels right of and above the centre; trust: (T, L)."""

    rig: Rig
    flat: Tensor
    trust: Tensor
    focal_px: float
    priors: _Priors
    settings: FitSettings

    def face(self, values: Tensor) -> Face:
        return Face.unpack(values, self.rig.num_expression, self.rig.num_lids)

    def sigma(self, state: _State) -> Tensor:  # (T,) pixels
        return self.settings.landmark_m * state.view.scale.exp()

    def lost(self, state: _State) -> Tensor:
        return _LOST * self.sigma(state)

    def error(self, state: _State, betas: Tensor) -> Tensor:  # (T,) pixels
        errors = []
        for part in self.chunks(len(state.values)):
            at = self.rig.place(self.face(state.values[part]), betas)
            flat, _ = state[part].view.project(at, self.focal_px)
            squared = ((self.flat[part] - flat) ** 2).sum(-1)
            weight = self.trust[part]
            errors.append(((squared * weight).sum(-1) / weight.sum(-1).clamp_min(1e-9)).sqrt())
        return torch.cat(errors)

    @staticmethod
    def chunks(count: int) -> list[slice]:
        return [slice(begin, min(begin + _CHUNK, count)) for begin in range(0, count, _CHUNK)]

    def slopes(self, state: _State, betas: Tensor, frames, shared: bool = False) -> tuple[Tensor, Tensor]:
        """Residuals (t, 2 L) and their columns (t, 2 L, P), both in sigmas, of those `frames`; shared: with S + 1 more
        columns, of identity and the focal length's log."""
        rig, face = self.rig, self.face(state.values)
        at = rig.place(face, betas)
        flat, seen = state.view.project(at, self.focal_px)
        residual = self.flat[frames] - flat
        by_point, by_view, by_focal = state.view.changes(seen, flat, self.focal_px)
        by_place = by_point @ state.view.rotation[:, None]  # (t, L, 2, 3)
        joints = sum(by_place[..., c, None] * rig.joint_changes(face, betas, at)[..., c, None, :] for c in range(3))
        by_rest = (by_place @ rig.blend(face)).transpose(0, 1).flatten(1, 2)  # (L, 2 t, 3)
        directions = torch.cat([rig.directions, rig.head.shape_dirs], -1) if shared else rig.directions
        moved = (by_rest @ directions).unflatten(1, (len(flat), 2)).transpose(0, 1)
        own = rig.directions.shape[-1]
        columns = [by_view, joints[..., :3], moved[..., :own], joints[..., 3:]]
        columns = torch.cat([*columns, moved[..., own:], by_focal] if shared else columns, -1)
        sigma = self.sigma(state)[:, None]
        distance = residual.norm(dim=-1) / sigma
        weight = self.trust[frames] * (_HUBER / distance.clamp_min(_HUBER))
        root = (weight.sqrt() / sigma)[..., None]
        return (residual * root).flatten(1), (columns * root[..., None]).flatten(1, 2)

    def improve(self, state: _State, betas: Tensor, seen: Tensor) -> _State:
        """One Gauss-Newton step of all frames, each drawn to where its neighbours were before it."""
        pull, hold = self.neighbours(state, seen)
        parts = []
        for part in self.chunks(len(state.values)):
            now = state[part]
            residual, columns = self.slopes(now, betas, part)
            system = columns.transpose(1, 2) @ columns
            right = (columns.transpose(1, 2) @ residual[..., None])[..., 0]
            system, right = self.with_priors(system, right, now.values)
            right = right + self.priors.steps * pull[part]
            system = system + torch.diag_embed(self.priors.steps * hold[part])
            parts.append(self.moved(now, self.solve(system, right, now.values)))
        return _State.join(parts)

    def neighbours(self, state: _State, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the differences to the frames before and after (T, P), and their number (T, 1)."""
        flat = torch.cat([state.view.scale[:, None], state.view.shift, state.values], -1)
        turn = matrix_to_axis_angle(state.view.rotation[1:] @ state.view.rotation[:-1].transpose(-1, -2))
        there = (seen[1:] & seen[:-1])[:, None]
        step = torch.cat([turn, flat[1:] - flat[:-1]], -1) * there
        end = torch.zeros_like(step[:1]) if len(step) else torch.zeros(1, 3 + flat.shape[-1])
        edge = torch.zeros(1, 1)
        return torch.cat([step, end]) - torch.cat([end, step]), torch.cat([there, edge]) + torch.cat([edge, there])

    def with_priors(self, system: Tensor, right: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        count = _VIEW + values.shape[-1]
        system[:, _VIEW:count, _VIEW:count] += self.priors.precision
        right[:, _VIEW:count] += -values @ self.priors.precision
        return system, right

    def solve(self, system: Tensor, right: Tensor, values: Tensor) -> Tensor:
        """The step (t, P); what would leave its bounds stays on them."""
        low, high, push = self.priors.low, self.priors.high, right[:, _VIEW:]
        held = (values <= low) & (push < 0) | (values >= high) & (push > 0)
        held = torch.cat([held.new_zeros(len(held), _VIEW), held], -1)
        free = (~held).double()
        scale = system.diagonal(dim1=1, dim2=2).double().clamp_min(1e-9).rsqrt()
        matrix = system.double() * (scale * free)[:, :, None] * (scale * free)[:, None, :]
        matrix = matrix + torch.diag_embed((1 - free) + 1e-6)
        solved = torch.cholesky_solve((right.double() * scale * free)[..., None], torch.linalg.cholesky(matrix))
        return (solved[..., 0] * scale * free).float()

    def moved(self, state: _State, step: Tensor) -> _State:
        view = state.view
        turn = step[:, :3] * (0.5 / step[:, :3].norm(dim=-1, keepdim=True).clamp_min(0.5))
        values = (state.values + step[:, _VIEW:]).clamp(self.priors.low, self.priors.high)
        moved = View(axis_angle_to_matrix(turn) @ view.rotation, view.scale + step[:, 3].clamp(-0.3, 0.3),
                     view.shift + step[:, 4:6])  # fmt: skip
        return _State(moved, values)


def _start(rig: Rig, problem: _Problem, seen: Tensor, betas: Tensor) -> _State:
    """A face at rest in every frame, posed by all landmarks: by the affine map (2, 3) that takes the head to them,
    orthonormalised."""
    values = torch.zeros(len(problem.flat), 7 + rig.num_expression + rig.num_lids)
    rest = rig.place(problem.face(values[:1]), betas)[0]
    columns = torch.cat([rest, torch.ones(len(rest), 1)], -1).double()
    weighted = columns * problem.trust[..., None].double()  # (T, L, 4)
    system = weighted.transpose(1, 2) @ columns + 1e-9 * torch.eye(4).double()
    affine = torch.linalg.solve(system, weighted.transpose(1, 2) @ problem.flat.double())  # (T, 4, 2)
    u, size, v = torch.linalg.svd(affine[:, :3].transpose(1, 2), full_matrices=False)
    rows = u @ v
    rotation = torch.cat([rows, torch.linalg.cross(rows[:, 0], rows[:, 1])[:, None]], 1)
    rotation[~seen], size[~seen] = torch.eye(3).double(), 1.0
    view = View(rotation.float(), size.mean(-1).log().float(), affine[:, 3].float())
    return _State(view, values)


def _identity(problem: _Problem, start: _State, seen: Tensor, betas: Tensor | None, focal_px: float | None) -> Tensor:
    """betas (S,) that suit all of some frames spread over the session; sets the problem's focal length. What is known
    of the two is held."""
    settings = problem.settings
    there = seen.nonzero()[:, 0]
    frames = there[torch.linspace(0, len(there) - 1, min(settings.identity_frames, len(there))).round().long()]
    state, own = start[frames], _VIEW + start.values.shape[-1]
    precision = torch.ones(problem.rig.num_betas + 1).double()
    precision[-1] = settings.focal_log**-2
    if betas is not None:
        precision[:-1] = _HELD
    if focal_px is not None:
        precision[-1] = _HELD
    mean = torch.cat([betas if betas is not None else torch.zeros(problem.rig.num_betas),
                      torch.tensor([problem.focal_px]).log()]).double()  # fmt: skip
    # the frames' errors are alike, being of one person: together they count as a few
    few = min(1.0, settings.identity_counts / len(frames))
    shared = mean
    for _ in range(settings.identity_rounds):
        betas, problem.focal_px = shared[:-1].float(), float(shared[-1].exp())
        residual, columns = problem.slopes(state, betas, frames, shared=True)
        system = columns.transpose(1, 2) @ columns
        right = (columns.transpose(1, 2) @ residual[..., None])[..., 0]
        system, right = (part.double() for part in problem.with_priors(system, right, state.values))
        cross, own_right = system[:, :own, own:], right[:, :own]
        inner = system[:, :own, :own] + 1e-6 * torch.eye(own)
        lead = torch.linalg.solve(inner, torch.cat([cross, own_right[..., None]], -1))
        around = cross.transpose(1, 2) @ lead
        reduced = few * (system[:, own:, own:] - around[..., :-1]).sum(0) + torch.diag(precision)
        wanted = few * (right[:, own:] - around[..., -1]).sum(0) + precision * (mean - shared)
        step = torch.linalg.solve(reduced, wanted)
        step[-1] = step[-1].clamp(-0.3, 0.3)
        state = problem.moved(state, problem.solve(inner, own_right - cross @ step, state.values))
        shared = shared + step
    problem.focal_px = float(shared[-1].exp())
    return shared[:-1].float()


def _motion(head: HeadModel, rig: Rig, state: _State, betas: Tensor, fps: float, valid: Tensor) -> Motion:
    layout = MotionLayout(head.basis, head.num_expression, head.eyelid_dirs is not None)
    face = Face.unpack(state.values, rig.num_expression, rig.num_lids)
    parts = {
        "expression": face.expression, "eyelids": face.eyelids,
        "global_orient": matrix_to_axis_angle(state.view.rotation), "neck_pose": torch.zeros(len(valid), 3),
        "jaw_pose": face.jaw, "leye_pose": face.poses[:, 9:12], "reye_pose": face.poses[:, 12:15],
    }  # fmt: skip
    values = torch.cat([parts[group] for group in layout.groups], -1)
    eyes = rig.head.skinning_weights[:, 3:].max(0).values > 0.5
    measured = {"neck_pose": False, "leye_pose": bool(eyes[0]), "reye_pose": bool(eyes[1])}
    held = torch.tensor([measured.get(group, True) for group in layout.groups])
    values[~valid] = 0.0
    return Motion(values, layout, fps, betas, valid[:, None] & held, neck_folded=True)
