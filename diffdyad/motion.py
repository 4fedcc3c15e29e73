"""Motion: FLAME parameters over time, the layout of their channels, their statistics, and their files."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from diffdyad import rotation
from diffdyad.errors import UserError
from diffdyad.staging import whole

BASES = ("arkit", "flame2020", "flame2023", "flame2023-open")
"""Expression bases. A basis is never mixed with another silently."""

POSE_GROUPS = ("global_orient", "neck_pose", "jaw_pose", "leye_pose", "reye_pose")

ARKIT_EXPRESSIONS = (
    "eyeBlinkLeft", "eyeSquintLeft", "eyeWideLeft", "eyeBlinkRight", "eyeSquintRight", "eyeWideRight", "jawForward",
    "mouthClose", "mouthFunnel", "mouthPucker", "mouthRight", "mouthLeft", "mouthSmileLeft", "mouthSmileRight",
    "mouthFrownLeft", "mouthFrownRight", "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft",
    "mouthStretchRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft",
    "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
"""ARKit's 52 blendshapes less eyeLook* (8) and jawOpen, jawLeft, jawRight, which are joint rotations here."""

JAW_OPEN_RADIANS = 0.4
"""jaw_pose x at ARKit's jawOpen = 1."""


@dataclass(frozen=True)
class MotionLayout:
    """Which channels a motion has, and where: the one owner of their slices.

    Storage order: expression, eyelids (where the layout has them), then the five joint rotations of
    `POSE_GROUPS` as axis-angle in radians.
    """

    basis: str
    num_expression: int
    eyelids: bool = False

    def __post_init__(self):
        if self.basis not in BASES:
            raise UserError(f"expected an expression basis among {', '.join(BASES)}, found {self.basis!r}")

    @classmethod
    def arkit(cls) -> MotionLayout:
        return cls("arkit", len(ARKIT_EXPRESSIONS))

    @cached_property
    def widths(self) -> dict[str, int]:
        lids = {"eyelids": 2} if self.eyelids else {}
        return {"expression": self.num_expression, **lids, **dict.fromkeys(POSE_GROUPS, 3)}

    @cached_property
    def groups(self) -> tuple[str, ...]:
        return tuple(self.widths)

    @cached_property
    def slices(self) -> dict[str, slice]:
        slices, start = {}, 0
        for name, width in self.widths.items():
            slices[name] = slice(start, start + width)
            start += width
        return slices

    @property
    def dim(self) -> int:
        return sum(self.widths.values())

    @property
    def expression_names(self) -> tuple[str, ...] | None:
        return ARKIT_EXPRESSIONS if self.basis == "arkit" else None

    def select(self, motion: Tensor, group: str) -> Tensor:
        """The channels of one group, a view: (..., D) -> (..., width). A KeyError names an unknown group."""
        return motion[..., self.slices[group]]

    def channel(self, name: str) -> int:
        """Index of one named expression coefficient, such as `mouthSmileLeft`."""
        if not self.expression_names:
            raise KeyError(f"basis {self.basis} does not name its expressions")
        return self.slices["expression"].start + self.expression_names.index(name)

    def group_to_channels(self, per_group: Tensor) -> Tensor:
        """One value per group, spread over its channels: (..., G) -> (..., D)."""
        widths = torch.tensor(list(self.widths.values()), device=per_group.device)
        return per_group.repeat_interleave(widths, dim=-1)

    def to_dict(self) -> dict:
        return {"basis": self.basis, "num_expression": self.num_expression, "eyelids": self.eyelids}


@dataclass
class Motion:
    """A clip of motion.

    values: (T, D) float32, channels as in `layout`; fps: Hz; betas: (N,) identity coefficients;
    valid: (T, G) bool, one flag per frame and channel group, True = measured; `neck_folded`: the
    tracker put the neck's rotation into global_orient.
    """

    values: Tensor
    layout: MotionLayout
    fps: float
    betas: Tensor | None = None
    valid: Tensor | None = None
    neck_folded: bool = False

    def __post_init__(self):
        if self.values.ndim != 2 or self.values.shape[-1] != self.layout.dim:
            raise UserError(
                f"expected motion of shape (frames, {self.layout.dim}) for basis {self.layout.basis}, "
                f"found {tuple(self.values.shape)}"
            )
        if self.betas is None:
            self.betas = self.values.new_zeros(0)
        if self.valid is None:
            self.valid = torch.ones(len(self.values), len(self.layout.groups), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def duration_s(self) -> float:
        return len(self) / self.fps

    def select(self, group: str) -> Tensor:
        return self.layout.select(self.values, group)

    def resample(self, fps: float) -> Motion:
        """The same clip at another rate: rotations by slerp, the rest linearly, anti-aliased on the way down."""
        if fps == self.fps or len(self) == 0:
            return replace(self, fps=fps)
        num_frames = max(1, round(len(self) * fps / self.fps))
        values = self.values
        if fps < self.fps:
            values = _low_pass(values, fps / self.fps)
        position = torch.arange(num_frames, dtype=torch.float64) * (self.fps / fps)
        position = position.clamp(max=len(self) - 1)
        before = position.floor().long().clamp(max=max(len(self) - 2, 0))
        after = (before + 1).clamp(max=len(self) - 1)
        weight = (position - before).to(values.dtype)[:, None]
        resampled = torch.lerp(values[before], values[after], weight)
        for group in POSE_GROUPS:
            where = self.layout.slices[group]
            resampled[:, where] = rotation.slerp(values[before, where], values[after, where], weight)
        return replace(self, values=resampled, fps=fps, valid=self.valid[before] & self.valid[after])


def _low_pass(values: Tensor, ratio: float) -> Tensor:
    """Hann-windowed sinc at `ratio` of the Nyquist frequency, edges held. (T, D) -> (T, D)

    Applied to axis-angle channels too: within the half-second that the filter spans, head and eye
    rotations are small against pi, where their vectors add to well under a thousandth of a radian.
    """
    radius = int(np.ceil(4 / ratio))
    offset = torch.arange(-radius, radius + 1, dtype=values.dtype)
    kernel = torch.sinc(offset * ratio) * torch.cos(offset * torch.pi / (2 * radius + 2)) ** 2
    kernel = kernel / kernel.sum()
    padded = torch.cat([values[:1].expand(radius, -1), values, values[-1:].expand(radius, -1)])
    return torch.nn.functional.conv1d(padded.T[:, None], kernel[None, None])[:, 0].T.contiguous()


APERTURE_PLACES = 5
"""Places along the lips, from corner to corner, at which `MotionStats.aperture_jacobian` tells their opening."""


class MotionStats(ModelMixin, ConfigMixin):
    """Mean and standard deviation per channel, with the layout and the rate that they belong to.

    Part of every checkpoint. They stay float32 whatever dtype the rest is cast to: at half precision
    the round trip alone would move a head by visible steps.
    """

    config_name = "config.json"
    _keep_in_fp32_modules = ["mean", "std", "aperture_jacobian"]  # noqa: RUF012, also on loading

    @register_to_config
    def __init__(self, basis: str = "arkit", num_expression: int = 41, eyelids: bool = False, fps: float = 25.0):
        super().__init__()
        dim = self.layout.dim
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        # change of the lips' opening (right, middle, left; metres) per unit of each channel; see objective
        self.register_buffer("aperture_jacobian", torch.zeros(3 * APERTURE_PLACES, dim))  # see diffdyad.objective

    @classmethod
    def for_layout(cls, layout: MotionLayout, fps: float) -> MotionStats:
        return cls(fps=fps, **layout.to_dict())

    @property
    def layout(self) -> MotionLayout:
        return MotionLayout(self.config.basis, self.config.num_expression, self.config.eyelids)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        for name, buffer in self.named_buffers():
            setattr(self, name, buffer.float())
        return self

    def fit(self, mean: Tensor, std: Tensor, floor: float = 1e-3) -> MotionStats:
        """Takes over mean and std, (D,) each; channels that hardly move get std `floor`, not a division by zero."""
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(floor))
        return self

    def standardise(self, motion: Tensor) -> Tensor:
        """(..., D) in radians and coefficients -> zero mean, unit variance."""
        return (motion.float() - self.mean) / self.std

    def restore(self, standardised: Tensor) -> Tensor:
        """The inverse of `standardise`."""
        return standardised.float() * self.std + self.mean

    def lip_opening_line(self) -> tuple[Tensor, float]:
        """Opening of the inner lips, mean over places along them, of standardised motion (..., T, D), as a slope (D,)
        and a rest: motion @ slope + rest, in millimetres, (..., T).

        Linear: of an open mouth, where a little more of a channel opens it by `aperture_jacobian`. Zeros where the
        checkpoint does not know.
        """
        per_unit = 1000 * self.aperture_jacobian[:APERTURE_PLACES].mean(0)
        return per_unit * self.std, float(per_unit @ self.mean)

    def check(self, motion: Motion, where: str) -> None:
        """Raises a UserError that names both sides where the motion is of another basis, layout or rate, or missing."""
        if motion.layout != self.layout and not motion.layout.num_expression:
            raise UserError(
                f"expected motion in basis {self.layout.basis} with {self.layout.num_expression} expressions, found no "
                f"face in {where}; have faces tracked (docs/recordings.md), or import what a tracker made of them"
            )
        if motion.layout != self.layout:
            raise UserError(
                f"expected motion in basis {self.layout.basis} with {self.layout.num_expression} expressions "
                f"(eyelids: {self.layout.eyelids}), found basis {motion.layout.basis} with "
                f"{motion.layout.num_expression} (eyelids: {motion.layout.eyelids}) in {where}; "
                "convert the file, or use a model trained in its basis"
            )


def _array(archive, key: str, path: str | os.PathLike) -> np.ndarray:
    if key not in archive:
        raise UserError(f"expected the key {key!r} in {path}, found only {', '.join(sorted(archive)) or 'nothing'}")
    return archive[key]


def load_motion(path: str | os.PathLike) -> Motion:
    """Reads a `motion.npz`.

    Raises UserError where keys, shapes, the rate or the basis are missing, or numbers are not finite.
    """
    path = Path(path)
    if path.is_file() and not zipfile.is_zipfile(path):
        raise UserError(f"expected a motion .npz, found another kind of file, or half of one: {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise UserError(f"no motion file at {path}") from None
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, AttributeError) as error:
        raise UserError(f"expected a motion .npz without pickled objects, cannot read {path}: {error}") from None
    return motion_of(arrays, path)


def motion_of(arrays: Mapping[str, np.ndarray], path: str | os.PathLike) -> Motion:
    """What `load_motion` makes of a file's arrays; `path` is named in its errors."""
    fps = np.asarray(_array(arrays, "fps", path))
    if fps.size != 1 or fps.dtype.kind not in "fiu" or not np.isfinite(fps).all() or float(fps.item()) <= 0:
        raise UserError(f"expected a positive, finite fps in {path}, found {fps.tolist()!r}")
    basis = str(_array(arrays, "basis", path))
    expression = _array(arrays, "expression", path)
    if expression.ndim != 2 or expression.dtype.kind not in "fiu":
        raise UserError(f"expected numbers of shape (frames, expressions) for 'expression' in {path}, found "
                        f"{expression.dtype} {expression.shape}")
    layout = MotionLayout(basis, expression.shape[1], "eyelids" in arrays)
    if basis == "arkit" and layout != MotionLayout.arkit():
        raise UserError(f"expected {len(ARKIT_EXPRESSIONS)} expressions for basis arkit in {path}, found "
                        f"{expression.shape[1]}{' and eyelids' if layout.eyelids else ''}")
    if "expression_names" in arrays and layout.expression_names:
        names = tuple(str(name) for name in arrays["expression_names"].ravel())
        if names != layout.expression_names:
            raise UserError(f"expected the expressions of {path} in the order of ARKIT_EXPRESSIONS, found "
                            f"{', '.join(names[:3])}, ...")
    columns = []
    for group, width in layout.widths.items():
        array = _array(arrays, group, path)
        if array.shape != (len(expression), width) or array.dtype.kind not in "fiu":
            raise UserError(f"expected shape ({len(expression)}, {width}) for {group!r} in {path}, found {array.shape}")
        if not np.isfinite(array).all():
            raise UserError(f"expected finite numbers for {group!r} in {path}, found NaN or infinity")
        columns.append(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)))
    if len(expression) == 0:
        raise UserError(f"expected at least one frame in {path}, found none")
    betas = np.asarray(arrays.get("betas", np.zeros(0)), dtype=np.float32).ravel()
    valid = arrays.get("valid")
    if valid is not None and valid.shape != (len(expression), len(layout.groups)):
        raise UserError(f"expected shape ({len(expression)}, {len(layout.groups)}) for 'valid' in {path}, found "
                        f"{valid.shape}")
    return Motion(
        torch.cat(columns, -1),
        layout,
        float(fps.item()),
        torch.from_numpy(betas),
        None if valid is None else torch.from_numpy(valid.astype(bool)),
    )


def motion_arrays(motion: Motion) -> dict[str, np.ndarray]:
    """The arrays of a `motion.npz`: FLAME's names, each (T, width), with fps, basis, expression_names, betas."""
    arrays = {group: motion.select(group).cpu().numpy().astype(np.float32) for group in motion.layout.groups}
    arrays["fps"] = np.float64(motion.fps)
    arrays["basis"] = np.array(motion.layout.basis)
    if motion.layout.expression_names:
        arrays["expression_names"] = np.array(motion.layout.expression_names)
    arrays["betas"] = motion.betas.cpu().numpy().astype(np.float32)
    if not motion.valid.all():
        arrays["valid"] = motion.valid.cpu().numpy()
    return arrays


def save_motion(path: str | os.PathLike, motion: Motion) -> None:
    """Writes a `motion.npz`, whole or not at all; equal motions give equal bytes."""
    with whole(path) as partial, partial.open("wb") as file:
        # np.savez stamps no times into the archive: the bytes depend on the arrays alone
        np.savez(file, **motion_arrays(motion))
