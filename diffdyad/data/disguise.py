"""Voices in disguise: mel features as other throats and microphones would have made them.

Formants move with the length of the vocal tract (a warp of the bands, Jaitly and Hinton 2013), microphones and rooms
colour the spectrum, voices differ in how far their loud and weak bands lie apart, and some bands tell nothing (masks,
Park et al. 2019). What the lips do stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_KNOTS = 6  # of the colour over the bands
_MASKS = 2
_SHIFT_BANDS = 3.0  # at a warp of 0.12: pitch and formants do not move alike


@dataclass(frozen=True)
class Disguise:
    """How much is drawn. warp: most that frequencies are stretched, a share; colour: deviation of the equaliser, in the
    features' deviations; contrast: deviation of the factor on all bands; mask: most that each of two masks covers, a
    share of the bands."""

    warp: float = 0.0
    colour: float = 0.0
    contrast: float = 0.0
    mask: float = 0.0

    def __bool__(self) -> bool:
        return any((self.warp, self.colour, self.contrast, self.mask))

    def draw(self, generator: torch.Generator) -> Tensor:  # (3 + _KNOTS + 2 _MASKS,)
        """One disguise: stretch, shift, contrast, the colour's knots, widths of the masks and where they begin."""
        stretch, shift = 2 * torch.rand(2, generator=generator) - 1
        normal = torch.randn(1 + _KNOTS, generator=generator)
        moved = torch.stack([1 + self.warp * stretch, _SHIFT_BANDS * self.warp / 0.12 * shift])
        widths = self.mask * torch.rand(_MASKS, generator=generator)
        starts = (1 - widths) * torch.rand(_MASKS, generator=generator)
        return torch.cat([moved, 1 + self.contrast * normal[:1], self.colour * normal[1:], widths, starts])


def disguised(
    features: Tensor,  # (B, T, L, C) standardised, C = columns x bands
    drawn: Tensor,  # (B, 3 + _KNOTS + 2 _MASKS)
    num_bands: int,
) -> Tensor:
    """The features, each clip in its disguise."""
    columns = features.unflatten(-1, (-1, num_bands))  # (B, T, L, N, bands)
    stretch, shift, contrast = drawn[:, :3].unbind(1)
    bands = torch.arange(num_bands, device=features.device)
    heard_at = (bands * stretch[:, None] + shift[:, None]).clamp(0, num_bands - 1)  # (B, bands)
    # linear interpolation as a matrix: row i takes from the bands around heard_at[i]
    weights = (1 - (heard_at[..., None] - bands).abs()).clamp_min(0)  # (B, bands, bands)
    moved = torch.einsum("btlnc,bdc->btlnd", columns, weights)
    knots, masks = drawn[:, 3 : 3 + _KNOTS], drawn[:, 3 + _KNOTS :]
    colour = F.interpolate(knots[:, None], size=num_bands, mode="linear", align_corners=True)  # (B, 1, bands)
    widths, starts = (num_bands * part[..., None] for part in masks.split(_MASKS, 1))  # (B, _MASKS, 1)
    seen = ~((bands >= starts) & (bands < starts + widths)).any(1)  # (B, bands)
    changed = moved * contrast.view(-1, 1, 1, 1, 1) + colour[:, None, None]
    return (changed * seen[:, None, None, None]).flatten(-2)
