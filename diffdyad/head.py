"""The head model: identity, expression and joint rotations to vertices.

Linear blend skinning with pose correctives, written from the equations of Li, Bolkart, Black, Li and Romero,
"Learning a model of facial shape and expression from 4D scans" (SIGGRAPH Asia 2017), section 3. One class for two
kinds of file: official FLAME files, and the clay head, which has the same tensors.

Axes: +y up, +z out of the face, +x to the character's left; metres; axis-angle in radians.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from diffdyad.config import asset_path
from diffdyad.errors import UserError
from diffdyad.flame import read_flame
from diffdyad.motion import POSE_GROUPS, MotionLayout
from diffdyad.rotation import axis_angle_to_matrix

CLAY_FORMAT = "diffdyad-head"
"""Value of the key `format` in a head file of our own; see `diffdyad.clay`."""

_FLOATS = ("template", "shape_dirs", "expression_dirs", "pose_dirs", "skinning_weights")
_COLOURS = ("vertex_colors", "vertex_gloss")


class HeadModel(nn.Module):
    """A head in FLAME's tensors, V vertices, S identity and E expression directions, five joints.

    Buffers: template (V, 3), shape_dirs (V, 3, S), expression_dirs (V, 3, E), pose_dirs (36, 3 V),
    joint_regressor (5, V) or None after `subset`, skinning_weights (V, 5), eyelid_dirs (V, 3, 2) (left, right) or
    None, faces (F, 3), parents (5,), vertex_colors (V, 3) linear albedo, vertex_gloss (V,) in 0..1.
    `basis` names what the expression coefficients mean.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], basis: str):
        """arrays: the buffers by name, pose_dirs as (36, 3 V), and one index array `set_<name>` per vertex set."""
        super().__init__()
        self.basis = basis
        for name in _FLOATS + _COLOURS:
            self.register_buffer(name, torch.from_numpy(np.array(arrays[name], np.float32)))
        for name in ("faces", "parents"):
            self.register_buffer(name, torch.from_numpy(np.array(arrays[name], np.int64)))
        for name in ("joint_regressor", "eyelid_dirs"):
            given = name in arrays
            self.register_buffer(name, torch.from_numpy(np.array(arrays[name], np.float32)) if given else None)
        self._set_names = sorted(key.removeprefix("set_") for key in arrays if key.startswith("set_"))
        for name in self._set_names:
            self.register_buffer(f"set_{name}", torch.from_numpy(np.array(arrays[f"set_{name}"], np.int64)))
        self._check()
        regressor = self.joint_regressor.double()
        # joints are linear in the coefficients: regressed once, they cost nothing per frame and survive `subset`
        for name in ("template", "shape_dirs", "expression_dirs"):
            joints = torch.einsum("jv,v...->j...", regressor, getattr(self, name).double())
            self.register_buffer(f"joint_{name}", joints.float())

    def _check(self) -> None:
        vertices = len(self.template)
        shapes = {
            "template": (vertices, 3), "shape_dirs": (vertices, 3, self.shape_dirs.shape[-1]),
            "expression_dirs": (vertices, 3, self.num_expression), "pose_dirs": (36, 3 * vertices),
            "joint_regressor": (5, vertices), "skinning_weights": (vertices, 5),
        }  # fmt: skip
        for name, shape in shapes.items():
            if tuple(getattr(self, name).shape) != shape:
                raise UserError(f"expected {name} of shape {shape}, found {tuple(getattr(self, name).shape)}")
            if not getattr(self, name).isfinite().all():
                raise UserError(f"expected finite numbers in {name} of the head")
        if self.parents.tolist() != [-1, 0, 1, 1, 1]:
            raise UserError(f"expected the joint tree [-1, 0, 1, 1, 1], found {self.parents.tolist()}")
        if self.faces.numel() and not 0 <= int(self.faces.min()) <= int(self.faces.max()) < vertices:
            raise UserError(f"expected faces among {vertices} vertices, found indices up to {int(self.faces.max())}")

    @classmethod
    def clay(cls) -> HeadModel:
        """The embedded head, in the ARKit basis."""
        return cls.from_file(asset_path("clay_head.npz"))

    @classmethod
    def from_file(cls, path: str | os.PathLike, basis: str | None = None) -> HeadModel:
        """Reads an official FLAME file (.pkl, chumpy-era ones too, or .npz) or a head file of our own.

        basis: which basis the expressions belong to; without it, what the file or its name says (see
        `diffdyad.flame.detect_basis`). Raises UserError where the file cannot be read or the basis is not clear.
        """
        path = Path(path)
        if path.suffix == ".npz":
            try:
                with np.load(path, allow_pickle=False) as archive:
                    if "format" in archive.files and str(archive["format"]) == CLAY_FORMAT:
                        arrays = {key: archive[key] for key in archive.files}
                        return cls(arrays, _agree(str(arrays["basis"]), basis, path))
            except FileNotFoundError:
                raise UserError(f"no head file at {path}") from None
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise UserError(f"expected a head in {path}, cannot read it: {error}") from None
        arrays, basis = read_flame(path, basis)
        return cls(arrays, basis)

    @property
    def num_vertices(self) -> int:
        return self.template.shape[0]

    @property
    def num_betas(self) -> int:
        return self.shape_dirs.shape[-1]

    @property
    def num_expression(self) -> int:
        return self.expression_dirs.shape[-1]

    @property
    def vertex_sets(self) -> dict[str, Tensor]:
        """Index tensors by region. `inner_lip_upper` and `inner_lip_lower` are paired, right corner to left."""
        return {name: getattr(self, f"set_{name}") for name in self._set_names}

    def forward(
        self,
        betas: Tensor | None = None,
        expression: Tensor | None = None,
        poses: Tensor | None = None,
        eyelids: Tensor | None = None,
    ) -> Tensor:
        """Vertices (..., T, V, 3) in metres; an argument that is None counts as zeros.

        betas: (..., N), N <= S, constant over time; expression: (..., T, N), N <= E; poses: (..., T, 15) radians in
        the order of `POSE_GROUPS`; eyelids: (..., T, 2), left and right, 1 = closed. With nothing over time, T = 1.
        """
        shaped, joints = self.template, self.joint_template  # (..., 1 | T, V, 3), (..., 1 | T, 5, 3)
        if betas is not None:
            shaped = shaped + _offsets(self.shape_dirs, betas[..., None, :], "betas")
            joints = joints + _offsets(self.joint_shape_dirs, betas[..., None, :], "betas")
        if expression is not None:
            shaped = shaped + _offsets(self.expression_dirs, expression, "expression coefficients")
            joints = joints + _offsets(self.joint_expression_dirs, expression, "expression coefficients")
        if eyelids is not None:
            if self.eyelid_dirs is None:
                raise UserError(f"expected a head with eyelid directions, found a {self.basis} head without")
            shaped = shaped + _offsets(self.eyelid_dirs, eyelids, "eyelids")
        if poses is None:
            return shaped if shaped.ndim > 2 else shaped[None]
        if poses.shape[-1] != 15:
            raise UserError(f"expected 15 pose channels ({', '.join(POSE_GROUPS)}), found {poses.shape[-1]}")
        rotations = axis_angle_to_matrix(poses.unflatten(-1, (5, 3)))  # (..., T, 5, 3, 3)
        identity = torch.eye(3, dtype=poses.dtype, device=poses.device)
        feature = (rotations[..., 1:, :, :] - identity).flatten(-3)  # (..., T, 36)
        posed = shaped + (feature @ self.pose_dirs).unflatten(-1, (-1, 3))
        return self._skin(posed, joints, rotations - identity)

    def _skin(self, vertices: Tensor, joints: Tensor, turn: Tensor) -> Tensor:
        """vertices (..., V, 3) follow the joints (..., 5, 3); turn: each joint's rotation less identity (..., 5, 3, 3).

        In displacements, v + sum_k w_k ((A_k - I) v + t_k): no rotation leaves the vertices as they are to the bit.
        """
        moves, shifts = [], []
        for joint, parent in enumerate(self.parents.tolist()):
            move = turn[..., joint, :, :]
            # R v + (J - R J): the joint itself stays in place, in its parent's frame
            shift = -(move @ joints[..., joint, :, None])[..., 0]
            if parent >= 0:
                # parent after own: (I + P)(I + M) - I = P + M + P M
                shift = shift + (moves[parent] @ shift[..., None])[..., 0] + shifts[parent]
                move = moves[parent] + move + moves[parent] @ move
            moves.append(move)
            shifts.append(shift)
        affine = torch.cat([torch.stack(moves, -3).flatten(-2), torch.stack(shifts, -2)], -1)  # (..., 5, 12)
        blended = self.skinning_weights @ affine  # (..., V, 12)
        return vertices + (blended[..., :9].unflatten(-1, (3, 3)) @ vertices[..., None])[..., 0] + blended[..., 9:]

    def from_motion(self, motion: Tensor, layout: MotionLayout, betas: Tensor | None = None) -> Tensor:
        """motion (..., T, D) in `layout`, betas (..., N) -> vertices (..., T, V, 3).

        Raises UserError, naming both, where the motion's basis is not the head's, or the head has fewer expressions.
        """
        if layout.basis != self.basis:
            raise UserError(f"expected motion in the head's basis {self.basis}, found basis {layout.basis}")
        if layout.num_expression > self.num_expression:
            raise UserError(
                f"expected at most the head's {self.num_expression} expressions, found motion with "
                f"{layout.num_expression}; use a head file with expression directions"
            )
        poses = torch.cat([layout.select(motion, group) for group in POSE_GROUPS], -1)
        eyelids = layout.select(motion, "eyelids") if layout.eyelids else None
        return self(betas, layout.select(motion, "expression"), poses, eyelids)

    def lip_aperture(self, vertices: Tensor) -> Tensor:
        """Opening between the inner lips, in metres: (..., T, V, 3) -> (..., T).

        Mean distance of the middle third of the upper and lower inner lips' pairs; not negative.
        """
        pairs = len(self.set_inner_lip_upper)
        middle = slice(pairs // 3, pairs - pairs // 3)
        upper, lower = self.set_inner_lip_upper[middle], self.set_inner_lip_lower[middle]
        return (vertices[..., upper, :] - vertices[..., lower, :]).norm(dim=-1).mean(-1)

    def subset(self, indices: Tensor) -> HeadModel:
        """A head of only those vertices (N,), in that order, which moves as the whole one does.

        Faces and vertex sets keep what lies inside; paired lip vertices stay paired.
        """
        indices = torch.as_tensor(indices, device=self.template.device).long()
        place = torch.full((self.num_vertices,), -1, device=indices.device)
        place[indices] = torch.arange(len(indices), device=indices.device)
        part = HeadModel.__new__(HeadModel)
        nn.Module.__init__(part)
        part.basis, part._set_names = self.basis, self._set_names
        for name in (*_FLOATS, *_COLOURS, "eyelid_dirs"):
            value = getattr(self, name)
            if name == "pose_dirs":
                value = value.unflatten(-1, (-1, 3))[:, indices].flatten(-2)
            elif value is not None:
                value = value[indices]
            part.register_buffer(name, value)
        for name in ("parents", "joint_template", "joint_shape_dirs", "joint_expression_dirs"):
            part.register_buffer(name, getattr(self, name))
        part.register_buffer("joint_regressor", None)
        faces = place[self.faces]
        part.register_buffer("faces", faces[(faces >= 0).all(-1)])
        kept = {name: place[found] for name, found in self.vertex_sets.items()}
        both = (kept["inner_lip_upper"] >= 0) & (kept["inner_lip_lower"] >= 0)
        for name, found in kept.items():
            part.register_buffer(f"set_{name}", found[both if name.startswith("inner_lip") else found >= 0])
        return part


def _agree(stored: str, wanted: str | None, path: Path) -> str:
    if wanted not in (None, stored):
        raise UserError(f"expected a head in basis {wanted}, found basis {stored} in {path}")
    return stored


def _offsets(directions: Tensor, coefficients: Tensor, what: str) -> Tensor:
    """directions (N, 3, S), coefficients (..., K) with K <= S -> (..., N, 3)."""
    count = coefficients.shape[-1]
    if count > directions.shape[-1]:
        raise UserError(f"expected at most the head's {directions.shape[-1]} {what}, found {count}")
    flat = directions[..., :count].flatten(0, 1)
    return (coefficients @ flat.T).unflatten(-1, (-1, 3))
