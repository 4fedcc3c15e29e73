"""Rotations: axis-angle, matrices and quaternions, their composition and interpolation.

All functions take and return tensors whose last axes hold the rotation and broadcast over the rest.
Axis-angle vectors are in radians; matrices act on column vectors; quaternions are (w, x, y, z).
"""

import torch
from torch import Tensor


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """(..., 3) radians -> (..., 3, 3). Rodrigues' formula, with series near zero (differentiable there)."""
    squared = (axis_angle * axis_angle).sum(-1)[..., None, None]
    small = squared < 1e-8
    angle = torch.sqrt(torch.where(small, torch.ones_like(squared), squared))
    sinc = torch.where(small, 1 - squared / 6, torch.sin(angle) / angle)
    versine = torch.where(small, 0.5 - squared / 24, (1 - torch.cos(angle)) / (angle * angle))
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + sinc * skew + versine * (skew @ skew)


def axis_angle_to_quaternion(axis_angle: Tensor) -> Tensor:
    """(..., 3) radians -> unit quaternions (..., 4)."""
    angle = axis_angle.norm(dim=-1, keepdim=True)
    half = angle / 2
    # sin(x / 2) / x, which torch.sinc gives without a division by zero
    scale = 0.5 * torch.sinc(half / torch.pi)
    return torch.cat([torch.cos(half), axis_angle * scale], -1)


def quaternion_to_axis_angle(quaternion: Tensor) -> Tensor:
    """Unit quaternions (..., 4) -> (..., 3) radians, angle in [0, pi]."""
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    sine = quaternion[..., 1:].norm(dim=-1, keepdim=True)
    half = torch.atan2(sine, quaternion[..., :1])
    scale = torch.where(sine < 1e-7, 2 * torch.ones_like(sine), 2 * half / sine.clamp_min(1e-7))
    return quaternion[..., 1:] * scale


def quaternion_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product: the rotation `b` first, then `a`. (..., 4) each."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Axis-angle of `outer` applied after `inner`; (..., 3) radians each."""
    product = quaternion_multiply(axis_angle_to_quaternion(outer), axis_angle_to_quaternion(inner))
    return quaternion_to_axis_angle(product)


def inverse(axis_angle: Tensor) -> Tensor:
    """The opposite rotation; (..., 3) radians."""
    return -axis_angle


def slerp(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Spherical interpolation along the shorter arc: `a` at weight 0, `b` at 1.

    a, b: axis-angle (..., 3) radians; weight: broadcastable to (..., 1).
    """
    start, end = axis_angle_to_quaternion(a), axis_angle_to_quaternion(b)
    conjugate = start * start.new_tensor([1.0, -1.0, -1.0, -1.0])
    step = quaternion_to_axis_angle(quaternion_multiply(conjugate, end))
    moved = quaternion_multiply(start, axis_angle_to_quaternion(step * weight))
    return quaternion_to_axis_angle(moved)


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) -> (..., 3) radians, angle in [0, pi].

    By the quaternion whose largest component is found first (Shepperd 1978), so that no angle is lost in rounding.
    """
    m = matrix
    trace = m.diagonal(dim1=-2, dim2=-1)
    x, y, z = trace.unbind(-1)
    a, b, c = (m[..., i, j] - m[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0)))
    d, e, f = (m[..., i, j] + m[..., j, i] for i, j in ((1, 0), (0, 2), (2, 1)))
    rows = torch.stack([
        torch.stack([1 + x + y + z, a, b, c], -1), torch.stack([a, 1 + x - y - z, d, e], -1),
        torch.stack([b, d, 1 - x + y - z, f], -1), torch.stack([c, e, f, 1 - x - y + z], -1),
    ], -2)  # fmt: skip
    largest = rows.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None].expand(*rows.shape[:-2], 1, 4)
    quaternion = rows.gather(-2, largest)[..., 0, :]
    return quaternion_to_axis_angle(quaternion / quaternion.norm(dim=-1, keepdim=True))
