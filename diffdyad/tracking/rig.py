"""Landmarks on a head model: where they are in space and in the picture, and how both change with what moves them.

Camera's axes: +x right in the picture, +y up, +z towards the viewer: a head that faces the camera is not rotated.
L landmarks, T frames, E expressions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffdyad.head import HeadModel
from diffdyad.motion import POSE_GROUPS
from diffdyad.retarget.landmarks import SurfacePoints
from diffdyad.rotation import axis_angle_to_matrix

_JAW, _LEFT_EYE, _RIGHT_EYE = (POSE_GROUPS.index(f"{name}_pose") for name in ("jaw", "leye", "reye"))
_STEP = 1e-3  # radians, of the jaw's differences


@dataclass
class Face:
    """What a face does in T frames: jaw (T, 3), expression (T, E), eyelids (T, 0 or 2), gaze (T, 4): x and y of the
    left eye and of the right. Radians and coefficients."""

    jaw: Tensor
    expression: Tensor
    eyelids: Tensor
    gaze: Tensor

    @classmethod
    def unpack(cls, values: Tensor, num_expression: int, num_lids: int) -> Face:
        return cls(*values.split([3, num_expression, num_lids, 4], -1))

    @property
    def poses(self) -> Tensor:  # (T, 15)
        values = self.jaw.new_zeros(len(self.jaw), len(POSE_GROUPS), 3)
        values[:, _JAW] = self.jaw
        values[:, _LEFT_EYE, :2], values[:, _RIGHT_EYE, :2] = self.gaze[:, :2], self.gaze[:, 2:]
        return values.flatten(1)


class Rig:
    """A head of L landmarks on its surface."""

    def __init__(self, head: HeadModel, points: SurfacePoints):
        weights = torch.from_numpy(points.weights).float()
        part = head.subset(torch.from_numpy(points.vertices.reshape(-1))).cpu().float()

        def blended(values: Tensor) -> Tensor:  # (3 L, ...) -> (L, ...)
            return torch.einsum("lk,lk...->l...", weights, values.unflatten(0, (-1, 3)))

        part.pose_dirs = blended(part.pose_dirs.unflatten(-1, (-1, 3)).transpose(0, 1)).transpose(0, 1).flatten(1)
        for name in ("template", "shape_dirs", "expression_dirs", "skinning_weights", "eyelid_dirs"):
            if getattr(part, name) is not None:
                setattr(part, name, blended(getattr(part, name)))
        self.head = part
        self.num_expression, self.num_betas = head.num_expression, head.num_betas
        self.num_lids = 0 if head.eyelid_dirs is None else 2
        self.pivot = part.template.mean(0)  # turns about the face's middle keep it where it is
        self._template, self.offsets = part.template, torch.zeros_like(part.template)

    def __len__(self) -> int:
        return len(self.head.template)

    def move_points(self, offsets: Tensor) -> None:
        """Moves the points on the head by offsets (2 L,), sideways and up in turn, metres; (0,): not at all."""
        if len(offsets):
            self.offsets = torch.nn.functional.pad(offsets.float().view(-1, 2), (0, 1))
            self.head.template = self._template + self.offsets

    def place(self, face: Face, betas: Tensor) -> Tensor:  # (T, L, 3) metres, about the pivot
        """Landmarks of a head that is not turned."""
        lids = face.eyelids if self.num_lids else None
        expression = face.expression if self.num_expression else None
        return self.head(betas, expression, face.poses, lids) - self.pivot

    @property
    def directions(self) -> Tensor:  # (L, 3, E + lids)
        """By which landmarks move at rest with expression and eyelids."""
        return torch.cat([self.head.expression_dirs] + ([self.head.eyelid_dirs] if self.num_lids else []), -1)

    def joint_changes(self, face: Face, betas: Tensor, at: Tensor) -> Tensor:  # (T, L, 3, 3 + 4)
        """Derivatives of `place` (whose result is `at`) with respect to jaw and gaze."""
        columns = []
        for axis in range(3):
            moved = face.jaw.clone()
            moved[:, axis] += _STEP
            columns.append((self.place(replace(face, jaw=moved), betas) - at) / _STEP)
        for joint in (_LEFT_EYE, _RIGHT_EYE):
            away = (at + self.pivot - self.head.joint_template[joint]) * self.head.skinning_weights[:, joint, None]
            x, y, z = away.unbind(-1)
            nothing = torch.zeros_like(x)
            columns += [torch.stack([nothing, -z, y], -1), torch.stack([z, nothing, -x], -1)]
        return torch.stack(columns, -1)

    def blend(self, face: Face) -> Tensor:  # (T, L, 3, 3)
        """By which matrix a landmark's displacements at rest are turned by jaw and eyes."""
        rotations = axis_angle_to_matrix(face.poses.unflatten(-1, (5, 3)))
        identity = torch.eye(3)
        return identity + torch.einsum("lj,tjab->tlab", self.head.skinning_weights, rotations - identity)


@dataclass
class View:
    """How T frames show a head. rotation: (T, 3, 3), head to camera; scale: (T,) log of pixels per metre at the pivot;
    shift: (T, 2) pixels, right and up, of the pivot from the picture's centre."""

    rotation: Tensor
    scale: Tensor
    shift: Tensor

    def project(self, placed: Tensor, focal_px: float) -> tuple[Tensor, Tensor]:
        """Landmarks (T, L, 3) -> pixels right of and above the centre (T, L, 2), and in the camera's axes (T, L, 3).

        focal_px: infinite for a camera far away (weak perspective).
        """
        seen = placed @ self.rotation.transpose(-1, -2)
        size = self.scale.exp()[:, None]
        flat = seen[..., :2] * size[..., None] + self.shift[:, None]
        return flat / (1 - seen[..., 2] * size / focal_px)[..., None], seen

    def changes(self, seen: Tensor, flat: Tensor, focal_px: float) -> tuple[Tensor, Tensor, Tensor]:
        """Derivatives of pixels with respect to the camera's axes (T, L, 2, 3), to the view (T, L, 2, 6: a small turn
        about the camera's axes, log scale, shift) and to the log of the focal length (T, L, 2, 1)."""
        x, y, z = seen.unbind(-1)
        size = self.scale.exp()[:, None].expand_as(x)
        nothing = torch.zeros_like(x)
        near = 1 / (1 - z * size / focal_px)
        pull = near * size / focal_px
        by_point = torch.stack([
            torch.stack([size * near, nothing, flat[..., 0] * pull], -1),
            torch.stack([nothing, size * near, flat[..., 1] * pull], -1),
        ], -2)  # fmt: skip
        turn = torch.stack([
            torch.stack([nothing, z, -y], -1), torch.stack([-z, nothing, x], -1), torch.stack([y, -x, nothing], -1),
        ], -2)  # d(omega x p) / d omega
        grown = torch.stack([x * size * near + flat[..., 0] * pull * z, y * size * near + flat[..., 1] * pull * z], -1)
        shift = torch.stack([torch.stack([near, nothing], -1), torch.stack([nothing, near], -1)], -2)
        by_view = torch.cat([by_point @ turn, grown[..., None], shift], -1)
        return by_point, by_view, -(flat * (pull * z)[..., None])[..., None]
