"""Classifier-free guidance with two conditions: the responder's own audio, and the previous turn.

    out = d(none) + w_a (d(audio) - d(none)) + w_c (d(audio, context) - d(audio))

`d(none)`, `d(audio)` and `d(audio, context)` are the three *branches*, called `none`, `audio` and `full`.
Nothing here knows a network: `Guidance.branches` says which of them are needed, `Guidance.combine` puts their
outputs together.
The identities hold to the byte: at w_c = 0 the result is that of a call without context, and at
w_a = w_c = 1 it is the full branch untouched, since `a + 1 * (b - a)` is not `b` in floating point.
Source: Ho and Salimans 2022, nested as in Brooks et al. 2023 (InstructPix2Pix, eq. 3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

BRANCHES = ("none", "audio", "full")

SHUT, APART = 0.07, 0.13
"""Openings that are expected of lips which are shut, and which are apart: shares of the 95th percentile. In between,
a little of both. Chosen on voices that no training used (docs/default.md)."""

_NARROWEST_MM = 1e-3


@dataclass(frozen=True)
class ArticulationGuard:
    """Gives an answer with context beyond scale 1 the lips of the answer at scale 1.

    basis: (R, D), orthonormal rows: the directions of standardised motion that change the lip
    aperture, from the head's Jacobian; zero outside expression and jaw.
    speaking: (..., T, 1) in [0, 1]: where the responder speaks. Laughter and listening stay free.
    spoken: (..., T, D), the standardised answer at scale 1, from the same noise. Taking the guidance off these
    directions step by step is not enough: the network sees a moved face, and now and then closes its lips less.
    """

    basis: Tensor
    speaking: Tensor
    spoken: Tensor

    def to(self, device: torch.device, length: int) -> ArticulationGuard:
        """The same on a device, with frames of silence after the last to make `length` of them."""
        pad = (0, 0, 0, length - self.spoken.shape[-2])
        return ArticulationGuard(
            self.basis.to(device), F.pad(self.speaking, pad).to(device), F.pad(self.spoken, pad).to(device)
        )

    def hold(self, clean: Tensor) -> Tensor:
        """`clean` with its part along `basis` as spoken, while the responder speaks. (..., T, D) -> (..., T, D)"""
        along = ((self.spoken - clean) @ self.basis.mT) @ self.basis
        return clean + self.speaking * along


@dataclass(frozen=True)
class LipsOfSpeech:
    """Shuts the lips where the speech trunk expects them shut, and parts them where it expects them apart.

    Of a bilabial's closure noise leaves a tenth open; and where the trunk is unsure, it expects lips that are nearly
    shut, which then are shut half of the time.

    basis: (R, D), as of the guard; expected: (..., T, D), standardised motion that speech alone makes one expect;
    weight: (..., T, 1) in [0, 1], 1 where the expected lips are shut; slope (D,) and rest_mm: of the lips' opening
    (`MotionStats.lip_opening_line`); apart: (..., T) in [0, 1], 1 where the expected lips are apart; least_mm:
    (..., 1), how far those are at least.
    """

    basis: Tensor
    expected: Tensor
    weight: Tensor
    slope: Tensor
    rest_mm: float
    apart: Tensor
    least_mm: Tensor

    @classmethod
    def of(
        cls, basis: Tensor, expected: Tensor, slope: Tensor, rest_mm: float, closing_mm: float, parting: float,
        where: Tensor, voiced: Tensor,
    ) -> LipsOfSpeech:
        """closing_mm: the expected lips count less the wider they are, and not at all from so many millimetres on (0:
        never); parting: least opening of expected lips that are apart, as a share of the 95th percentile of the
        expected opening (0: none); where: (T,) in [0, 1]; voiced: the same for what is parted (pauses are not)."""
        opening = expected @ slope + rest_mm
        weight = where * (1 - opening / closing_mm).clamp(0, 1) if closing_mm > 0 else torch.zeros_like(opening)
        answer = opening[..., where > 0] if bool((where > 0).any()) else opening
        wide = torch.quantile(answer, 0.95, dim=-1, keepdim=True).clamp_min(_NARROWEST_MM)
        apart = ((opening / wide - SHUT) / (APART - SHUT)).clamp(0, 1) if parting > 0 else torch.zeros_like(opening)
        return cls(basis, expected, weight[..., None], slope, rest_mm, where * voiced * apart, parting * wide)

    def hold(self, clean: Tensor) -> Tensor:
        """`clean` with its part along `basis` moved as said above. (..., T, D) -> (..., T, D)"""
        held = clean + self.weight * (((self.expected - clean) @ self.basis.mT) @ self.basis)
        missing = self.apart * (self.least_mm - (held @ self.slope + self.rest_mm)).clamp_min(0)
        way = (self.slope @ self.basis.mT) @ self.basis
        return held + missing[..., None] * way / (way @ self.slope)


def presence(elapsed_s: Tensor, whole_until_s: float, gone_after_s: float) -> Tensor:
    """How much a turn still counts, by the seconds since it ended: 1, then a cosine down to 0. Same shape."""
    done = ((elapsed_s - whole_until_s) / (gone_after_s - whole_until_s)).clamp(0, 1)
    return 0.5 * (1 + torch.cos(torch.pi * done))


def aperture_basis(jacobian: Tensor, std: Tensor, rank_tolerance: float = 1e-3) -> Tensor:
    """Orthonormal directions of standardised motion that move the lip aperture.

    jacobian: (P, D), change of P aperture measurements per unit of each raw channel; std: (D,).
    Returns (R, D), R <= P. Source: row space of the Jacobian, by singular value decomposition.
    """
    _, values, rows = torch.linalg.svd((jacobian * std).double(), full_matrices=False)
    kept = values > rank_tolerance * values.max().clamp_min(1e-30)
    return rows[kept].to(jacobian.dtype)


@dataclass(frozen=True)
class Guidance:
    """The scales of one sampling run.

    has_context: without, the full branch would be the audio branch itself, so the context's scale has no
    say; interval: noise levels (0 clean, 1 pure noise) between which context scales beyond 1 apply;
    """

    context_scale: float
    audio_scale: float = 1.0
    has_context: bool = True
    interval: tuple[float, float] = (0.0, 1.0)

    @property
    def scale(self) -> float:
        """The context's scale that counts."""
        return float(self.context_scale) if self.has_context else 0.0

    @property
    def exaggerates(self) -> bool:
        """Whether the context counts for more than the model was trained to let it."""
        return self.scale > 1

    def at_scale_one(self) -> Guidance:
        """The same with the context's scale at 1."""
        return replace(self, context_scale=1.0)

    def coefficients(self, scale: float) -> dict[str, float]:
        """Net coefficient of every branch with weight, at a context scale; they sum to 1."""
        audio = float(self.audio_scale)
        net = {"none": 1.0 - audio, "audio": audio - scale, "full": scale}
        return {name: value for name, value in net.items() if value != 0.0}

    @property
    def branches(self) -> tuple[str, ...]:
        """The branches that must be evaluated, in the order of BRANCHES."""
        needed = set(self.coefficients(self.scale))
        if self.exaggerates:
            # beyond 1, the conditional model and what the context adds to it are told apart
            needed |= {"audio", *self.coefficients(1.0)}
        return tuple(name for name in BRANCHES if name in needed)

    def combine(
        self, outputs: dict[str, Tensor], level: float = 0.5, guard: ArticulationGuard | None = None,
        presence: Tensor | None = None,
    ) -> Tensor:
        """Guided output from the branches' outputs, (B, T, D) each, at a noise level in [0, 1].

        Up to scale 1 it is the sum of the branches; what the context adds beyond counts by `presence`,
        (T, 1) in [0, 1], and the guard then holds the lips. So the conditional model itself is never altered.
        """
        coefficients = self.coefficients(min(self.scale, 1.0))
        terms = [value * outputs[name] if value != 1.0 else outputs[name] for name, value in coefficients.items()]
        combined = terms[0] if len(terms) == 1 else sum(terms)
        if self.exaggerates and self.interval[0] <= level <= self.interval[1]:
            beyond = (self.scale - 1.0) * (outputs["full"] - outputs["audio"])
            combined = combined + (beyond if presence is None else presence * beyond)
        return guard.hold(combined) if guard is not None and self.exaggerates else combined
