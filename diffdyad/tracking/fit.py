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
from diffdyad.motion import Motion, MotionLayout
from diffdyad.retarget.landmarks import SurfacePoints
from diffdyad.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from diffdyad.tracking.priors import FitSettings, Priors, priors_of
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


@dataclass(frozen=True)
class Known:
    """What stays the same of a person before a camera. betas: (S,); focal_px: of the lens; offsets: (L, 3) metres, of
    the landmarks from their points."""

    betas: Tensor | None
    focal_px: float | None
    offsets: Tensor | None = None


@dataclass
class Fit:
    """motion: in the head's basis, the neck folded into `global_orient`, at the landmarks' rate. error_px: (T,) root
    mean square distance of landmarks and projected points, NaN where no face was seen. view: pose and place."""

    motion: Motion
    error_px: Tensor
    view: View
    known: Known

    @property
    def reprojection_px(self) -> float:
        """Median over the frames with a face; NaN without any."""
        return float(self.error_px.nanmedian())


def fit_landmarks(
    head: HeadModel, points: SurfacePoints, landmarks: np.ndarray, fps: float, size: tuple[int, int],
    focal_px: float | None = None, weights: np.ndarray | None = None, slack_m: np.ndarray | None = None,
    known: Known | None = None, settings: FitSettings | None = None,
) -> Fit:
    """The motion of a head whose `points` are seen at `landmarks`.

    points: L points of the head; landmarks: (T, L, 2) or (T, L, 3, the third ignored), columns and rows in pixels, NaN
    where there are none; size: width and height of the picture, whose centre the lens looks at; focal_px: of the lens,
    None = estimated with the identity, infinite = a camera far away (weak perspective); weights: (L,), how far each
    landmark is trusted; slack_m: (L,) metres, by how much the place that a detector means may be another one (the same
    in all frames), None = not at all; known: what an earlier fit has found of this person before this camera.

    Raises UserError where shapes do not agree, or no frame shows a face.
    """
    settings = settings or FitSettings()
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
    focal = focal_px or (known.focal_px if known else None) or _USUAL_FOCAL * math.hypot(*size)
    problem = _Problem(rig, torch.nan_to_num(flat), trust, focal, priors_of(rig, settings, fps), settings)
    with torch.no_grad():
        if known is None:
            start = _start(rig, problem, seen, torch.zeros(rig.num_betas))
            slack = None if slack_m is None else torch.from_numpy(np.asarray(slack_m, np.float32))
            known = _identity(problem, start, seen, Known(None, focal_px), slack)
        elif known.offsets is not None:
            rig.move_points(known.offsets[:, :2].flatten())
        betas = known.betas
        state = _start(rig, problem, seen, betas)
        for _ in range(settings.rounds):
            state = problem.improve(state, betas, seen)
        error = problem.error(state, betas)
    error[~seen] = torch.nan
    motion = _motion(head, rig, state, betas, fps, seen & (error < problem.lost(state)))
    return Fit(motion, error, state.view, known)


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
class _Slopes:
    """residual (t, 2 L) and its columns (t, 2 L, P [+ S + 1]) in sigmas; by_offset: (t, L, 2, 2), of each landmark its
    own columns: sideways and up on the head."""

    residual: Tensor
    columns: Tensor
    by_offset: Tensor | None = None

    def normal(self) -> tuple[Tensor, Tensor]:
        """The normal equations' matrix (t, P, P) and right side (t, P)."""
        turned = self.columns.transpose(1, 2)
        return turned @ self.columns, (turned @ self.residual[..., None])[..., 0]


@dataclass
class _Problem:
    """The sums that are minimised. flat: (T, L, 2) pixels right of and above the centre; trust: (T, L)."""

    rig: Rig
    flat: Tensor
    trust: Tensor
    focal_px: float
    priors: Priors
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

    def slopes(self, state: _State, betas: Tensor, frames, shared: bool = False) -> _Slopes:
        """Residuals (t, 2 L) and their columns (t, 2 L, P), both in sigmas, of those `frames`; shared: with S + 1 more
        columns, of identity and the focal length's log."""
        rig, face = self.rig, self.face(state.values)
        at = rig.place(face, betas)
        flat, seen = state.view.project(at, self.focal_px)
        residual = self.flat[frames] - flat  # (t, L, 2)
        by_point, by_view, by_focal = state.view.changes(seen, flat, self.focal_px)
        by_place = by_point @ state.view.rotation[:, None]  # (t, L, 2, 3)
        joints = rig.joint_changes(face, betas, at)
        joints = sum(by_place[..., c, None] * joints[..., c, None, :] for c in range(3))
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
        by_offset = by_rest.unflatten(1, (len(flat), 2)).transpose(0, 1)[..., :2] * root[..., None] if shared else None
        return _Slopes((residual * root).flatten(1), (columns * root[..., None]).flatten(1, 2), by_offset)

    def improve(self, state: _State, betas: Tensor, seen: Tensor) -> _State:
        """One Gauss-Newton step of all frames, each drawn to where its neighbours were before it."""
        pull, hold = self.neighbours(state, seen)
        parts = []
        for part in self.chunks(len(state.values)):
            now = state[part]
            system, right = self.with_priors(*self.slopes(now, betas, part).normal(), now.values)
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


def _identity(problem: _Problem, start: _State, seen: Tensor, known: Known, slack: Tensor | None) -> Known:
    """Identity, lens and offsets that suit all of some frames spread over the session; what is known of them is held.

    slack: (L,) metres, how far a landmark may lie from its point of the head; None: it does not.
    """
    rig, settings = problem.rig, problem.settings
    there = seen.nonzero()[:, 0]
    frames = there[torch.linspace(0, len(there) - 1, min(settings.identity_frames, len(there))).round().long()]
    state, own, count = start[frames], _VIEW + start.values.shape[-1], rig.num_betas
    precision = torch.ones(count + 1).double()
    precision[-1] = settings.focal_log**-2
    if known.betas is not None:
        precision[:-1] = _HELD
    if known.focal_px is not None:
        precision[-1] = _HELD
    mean = torch.cat([known.betas if known.betas is not None else torch.zeros(count),
                      torch.tensor([problem.focal_px]).log()]).double()  # fmt: skip
    if slack is not None:
        precision = torch.cat([precision, (slack.double() ** -2).repeat_interleave(2)])
        mean = torch.cat([mean, torch.zeros(2 * len(rig)).double()])
    # the frames' errors are alike, being of one person: together they count as a few
    few = min(1.0, settings.identity_counts / len(frames))
    shared = mean
    for _ in range(settings.identity_rounds):
        betas, problem.focal_px = shared[:count].float(), float(shared[count].exp())
        rig.move_points(shared[count + 1 :])
        slopes = problem.slopes(state, betas, frames, shared=True)
        system, right = problem.with_priors(*slopes.normal(), state.values)
        if slack is not None:
            system, right = _with_offsets(system, right, slopes)
        system, right = system.double(), right.double()
        cross, own_right = system[:, :own, own:], right[:, :own]
        inner = system[:, :own, :own] + 1e-6 * torch.eye(own)
        lead = torch.linalg.solve(inner, torch.cat([cross, own_right[..., None]], -1))
        around = (cross.flatten(0, 1).T.float() @ lead.flatten(0, 1).float()).double()  # summed over frames
        reduced = few * (system[:, own:, own:].sum(0) - around[:, :-1]) + torch.diag(precision)
        wanted = few * (right[:, own:].sum(0) - around[:, -1]) + precision * (mean - shared)
        step = torch.linalg.solve(reduced, wanted)
        step[count] = step[count].clamp(-0.3, 0.3)
        state = problem.moved(state, problem.solve(inner, own_right - cross @ step, state.values))
        shared = shared + step
    problem.focal_px = float(shared[count].exp())
    rig.move_points(shared[count + 1 :])
    return Known(shared[:count].float(), problem.focal_px, rig.offsets)


def _with_offsets(system: Tensor, right: Tensor, slopes: _Slopes) -> tuple[Tensor, Tensor]:
    """Normal equations with every landmark's own columns at the end; each touches that landmark's residuals alone."""
    own = slopes.by_offset  # (t, L, 2, 2)
    columns = slopes.columns.unflatten(1, (-1, 2))  # (t, L, 2, P)
    count, size = len(own), 2 * own.shape[1]
    cross = torch.einsum("tlip,tlio->tplo", columns, own).flatten(2)
    blocks = own.transpose(2, 3) @ own
    corner = torch.zeros(count, size, size)
    index = torch.arange(size).view(-1, 2)
    corner[:, index[:, :, None], index[:, None, :]] = blocks
    offset_right = torch.einsum("tlio,tli->tlo", own, slopes.residual.unflatten(1, (-1, 2))).flatten(1)
    top, bottom = torch.cat([system, cross], -1), torch.cat([cross.transpose(1, 2), corner], -1)
    return torch.cat([top, bottom], 1), torch.cat([right, offset_right], -1)


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
