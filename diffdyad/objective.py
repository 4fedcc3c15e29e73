"""What the network is trained towards: losses on the recovered clean motion.

The denoiser predicts clean, standardised motion. All losses are sums over valid entries with their
counts, so that they can be averaged over ranks and accumulation steps exactly.
Shapes: B batch, T frames, D channels, G channel groups, V vertices.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffdyad.head import HeadModel
from diffdyad.motion import APERTURE_PLACES, POSE_GROUPS, MotionLayout, MotionStats
from diffdyad.rotation import axis_angle_to_matrix, compose


@dataclass
class LossSums:
    """Sums over valid entries and their counts, by term."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, values: Tensor, mask: Tensor) -> None:
        mask = mask.to(values.dtype).expand_as(values)
        self.sums[name] = (values * mask).sum()
        self.counts[name] = mask.sum()

    def total(self, weights: dict[str, float], counts: dict[str, Tensor] | None = None) -> Tensor:
        """Weighted sum of the terms' means; `counts` overrides the local counts (those of all ranks)."""
        counts = counts or self.counts
        return sum(weights[name] * value / counts[name].clamp_min(1) for name, value in self.sums.items())


class VertexLoss:
    """Squared distances in millimetres on the lips and the rest of the face, and on the lips' opening.

    The head stays unposed here, except for its jaw: rotations of the whole head would drown the face's
    own motion, and are covered by the loss on the channels. Every second frame counts: neighbours are
    40 ms apart and nearly alike. The jaw's joint is taken at the neutral expression.
    """

    FRAME_STEP = 2

    def __init__(self, head: HeadModel, layout: MotionLayout, max_lip_vertices: int = 60, max_face_vertices: int = 100):
        sets = head.vertex_sets
        upper, lower = sets["inner_lip_upper"], sets["inner_lip_lower"]
        lips = torch.unique(torch.cat([sets["lips"], upper, lower]))
        lips = lips[:: max(1, len(lips) // max_lip_vertices)]
        face = sets["face"][:: max(1, len(sets["face"]) // max_face_vertices)]
        part = head.subset(torch.cat([lips, face, upper, lower]))
        jaw = POSE_GROUPS.index("jaw_pose")
        self.num_points, self.num_pairs = len(lips) + len(face), len(upper)
        self.layout = layout
        # millimetres, relative to the jaw's joint; coordinates before vertices, so that a frame is three long rows
        self.rest = 1000 * (part.template - part.joint_template[jaw]).mT
        directions = part.expression_dirs[..., : layout.num_expression]
        if layout.eyelids and part.eyelid_dirs is not None:
            directions = torch.cat([directions, part.eyelid_dirs], -1)
        self.num_directions = directions.shape[-1]
        correctives = part.pose_dirs[9 * (jaw - 1) : 9 * jaw].unflatten(-1, (-1, 3)).permute(0, 2, 1)
        self.directions = 1000 * torch.cat([directions.permute(2, 1, 0), correctives])
        self.jaw_weights = part.skinning_weights[:, jaw]

    def to(self, device) -> VertexLoss:
        for name in ("rest", "directions", "jaw_weights"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def points(self, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Face points (B, T, 3, V) and lip openings (B, T, 3, P) in millimetres of raw motion (B, T, D)."""
        vertices = self._vertices(motion, 0)
        return vertices[..., : self.num_points], self._opening(vertices)

    def _opening(self, vertices: Tensor) -> Tensor:
        """The last vertices are the pairs: the upper ones, then the lower ones."""
        upper, lower = vertices[..., -2 * self.num_pairs :].chunk(2, -1)
        return upper - lower

    def _vertices(self, motion: Tensor, first: int) -> Tensor:
        """From vertex `first` on, (B, T, 3, V)."""
        turn = axis_angle_to_matrix(self.layout.select(motion, "jaw_pose")).flatten(0, 1)
        turn = turn - torch.eye(3, device=turn.device)
        moved = torch.cat([motion[..., : self.num_directions].flatten(0, 1), turn.flatten(1)], -1)
        rest, directions = self.rest[:, first:].flatten(), self.directions[..., first:].flatten(1)
        shaped = torch.addmm(rest, moved, directions).unflatten(-1, (3, -1))
        return torch.baddbmm(shaped, turn, shaped * self.jaw_weights[first:]).unflatten(0, motion.shape[:2])

    def add_to(
        self, sums: LossSums, predicted: Tensor, target: Tensor, known: Tensor, forecast: Tensor | None = None
    ) -> None:
        """predicted, target, forecast: raw motion (B, T, D); known: (B, T), expression and jaw are valid there.

        forecast: what speech makes one expect, of which the opening alone counts. Errors of a mouth that is nearly
        shut count most there: what is expected lies between shut and open wherever speech leaves it open.
        """
        every = slice(None, None, self.FRAME_STEP)
        known = known[:, every, None]
        with torch.no_grad():
            target_points, target_opening = self.points(target[:, every])
        points, opening = self.points(predicted[:, every])
        sums.add("vertex", (points - target_points).square().sum(-2), known)
        sums.add("aperture", (opening - target_opening).square().sum(-2), known)
        if forecast is not None:
            weight = (1 + target_opening.norm(dim=-2) / NEARLY_SHUT_MM).square().reciprocal()
            opening = self._opening(self._vertices(forecast[:, every], self.num_points))
            sums.add("speech_aperture", weight * (opening - target_opening).square().sum(-2), known)


NEARLY_SHUT_MM = 3.0
"""A mouth so far open counts a quarter of a shut one."""


def count_valid(valid: Tensor, layout: MotionLayout, vertex_loss: VertexLoss | None = None) -> dict[str, Tensor]:
    """The counts that `motion_losses` will have, from valid (B, T, G) alone."""
    mask = layout.group_to_channels(valid)
    counts = {"motion": mask.sum(), "velocity": (mask[:, 1:] & mask[:, :-1]).sum(), "forecast": mask.sum(),
              "speech_forecast": mask.sum()}  # fmt: skip
    if vertex_loss is not None:
        frames = face_known(valid, layout)[:, :: vertex_loss.FRAME_STEP].sum()
        counts["vertex"] = frames * vertex_loss.num_points
        counts["aperture"] = counts["speech_aperture"] = frames * vertex_loss.num_pairs
    return {name: count.float() for name, count in counts.items()}


def face_known(valid: Tensor, layout: MotionLayout) -> Tensor:
    """Frames whose expression and jaw are known: (B, T, G) -> (B, T)."""
    return valid[..., [layout.groups.index(group) for group in ("expression", "jaw_pose")]].all(-1)


def with_neck_folded(motion: Tensor, valid: Tensor, stats: MotionStats) -> Tensor:
    """Standardised motion, (B, T, D), with the whole head's rotation in global_orient where `valid` has no neck.

    valid: (B, T, G), of a tracker: one that measured the head's rotation and no neck has folded the neck into it.
    """
    layout = stats.layout
    head, neck = (layout.groups.index(group) for group in ("global_orient", "neck_pose"))
    folded = valid[..., head] & ~valid[..., neck]
    if not folded.any():
        return motion
    raw = stats.restore(motion)
    whole = raw.clone()
    whole[..., layout.slices["global_orient"]] = compose(
        layout.select(raw, "global_orient"), layout.select(raw, "neck_pose")
    )
    return torch.where(folded[..., None], stats.standardise(whole), motion)


def motion_losses(
    predicted: Tensor, target: Tensor, valid: Tensor, stats: MotionStats, vertex_loss: VertexLoss | None = None,
    forecast: Tensor | None = None, speech_forecast: Tensor | None = None,
) -> LossSums:
    """All terms of one batch.

    predicted, target: standardised (B, T, D); valid: (B, T, G) per channel group, False on padding; given
    first frames count, so that what follows continues their movement. forecast, speech_forecast: what the context
    alone, and speech alone, make one expect, like predicted. Where the target's neck is part of its global_orient, so
    is the predicted one.
    """
    layout = stats.layout
    sums = LossSums()
    predicted = with_neck_folded(predicted, valid, stats)
    mask = layout.group_to_channels(valid)
    sums.add("motion", (predicted - target).square(), mask)
    sums.add("velocity", (predicted.diff(dim=1) - target.diff(dim=1)).square(), mask[:, 1:] & mask[:, :-1])
    for name, expected in (("forecast", forecast), ("speech_forecast", speech_forecast)):
        if expected is not None:
            sums.add(name, (with_neck_folded(expected, valid, stats) - target).square(), mask)
    if vertex_loss is not None:
        heard = None if speech_forecast is None else stats.restore(speech_forecast)
        vertex_loss.add_to(
            sums, stats.restore(predicted), stats.restore(target), face_known(valid, layout), heard
        )
    return sums


APERTURE_POSTURES = ((0.08, 0.0), (0.08, 0.2), (0.16, 0.4))
"""Jaw, radians, and mouthClose, coefficient (ARKit's: jaw / 0.4 closes the lips), at which the opening is taken."""


def aperture_jacobian(head: HeadModel, layout: MotionLayout, stats: MotionStats) -> Tensor:
    """Change of the inner lips' vertical opening per unit of each channel, at open and at shut lips.

    Returns (len(APERTURE_POSTURES) x APERTURE_PLACES, D), metres per unit, zero outside expression and jaw. Taken at
    the mean motion, with the jaw opened. At one open posture alone, guidance at scale 4 parted the lips of a bilabial
    by 0.16 mm: what smiles do to lips that are pressed together is another direction than what they do to open ones.
    """
    upper, lower = head.vertex_sets["inner_lip_upper"], head.vertex_sets["inner_lip_lower"]
    pairs = [round((place + 1) / (APERTURE_PLACES + 1) * len(upper)) for place in range(APERTURE_PLACES)]
    part = head.subset(torch.cat([upper[pairs], lower[pairs]]))
    jaw, closing = layout.slices["jaw_pose"], layout.expression_names and layout.channel("mouthClose")

    def opening(motion: Tensor) -> Tensor:
        poses = torch.cat([layout.select(motion, group) for group in POSE_GROUPS])
        poses = torch.cat([torch.zeros_like(poses[:6]), poses[6:]])
        eyelids = layout.select(motion, "eyelids")[None] if layout.eyelids else None
        vertices = part(expression=layout.select(motion, "expression")[None], poses=poses[None], eyelids=eyelids)[0]
        return vertices[: len(pairs), 1] - vertices[len(pairs) :, 1]

    rows = []
    for jaw_x, close in APERTURE_POSTURES:
        at = stats.mean.detach().cpu().clone()
        at[jaw] = at.new_tensor([jaw_x, 0.0, 0.0])
        if closing is not None:
            at[closing] = close
        rows.append(torch.autograd.functional.jacobian(opening, at))
    keep = torch.zeros_like(at)
    for group in ("expression", "jaw_pose"):
        keep[layout.slices[group]] = 1
    return (torch.cat(rows) * keep).detach()
