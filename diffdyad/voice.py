"""A clip's own voice, band by band: what is taken off, so that voices and microphones never heard look familiar.

Cepstral mean and variance normalisation (Viikki and Laurila 1998) over the loud frames of a clip, in log mel bands.
Where a clip has little speech, the corpus' typical voice stands in.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffdyad.media import LOUDNESS_TARGET_DB

_BELOW_LOUD_DB = 15.0  # a frame counts that is so far below the clip's loud ones at most
_BELOW_TARGET_DB = 20.0  # and so far below the level that speech is brought to: noise alone is nobody's voice
_LOUD = 0.95  # quantile
_PRIOR_FRAMES = 25  # so many frames the typical voice counts for
_LIMIT = 4.0  # deviations; digital silence and a quiet room look alike


def clip_voice(
    bands: Tensor,  # (T, N) natural log of power, loudness-normalised
    prior: Tensor | None = None,  # (2, N)
) -> Tensor | None:  # (2, N)
    """Mean and deviation of the loud frames by band, drawn towards the prior; without one, None for little speech."""
    level = 10 / math.log(10) * bands.float().logsumexp(-1)
    threshold = max(float(level.quantile(_LOUD)) - _BELOW_LOUD_DB, LOUDNESS_TARGET_DB - _BELOW_TARGET_DB)
    loud = bands[level > threshold].float()
    count = len(loud)
    if prior is None:
        return torch.stack([loud.mean(0), loud.std(0, correction=0)]) if count >= _PRIOR_FRAMES else None
    if not count:
        return prior
    mean, squares = loud.mean(0), loud.var(0, correction=0)
    prior = prior.to(bands.device)
    own = count / (count + _PRIOR_FRAMES)
    return torch.stack([
        torch.lerp(prior[0], mean, own), torch.lerp(prior[1].square(), squares, own).sqrt().clamp_min(1e-3)
    ])  # fmt: skip


def in_own_voice(
    features: Tensor,  # (B, T, L, C), C = columns x bands
    voice: Tensor,  # (B, 2, N)
) -> Tensor:
    """Features by their clips' voices, within some deviations."""
    columns = features.unflatten(-1, (-1, voice.shape[-1]))
    mean, std = (part[:, None, None, None] for part in voice.unbind(1))
    return ((columns - mean) / std).clamp(-_LIMIT, _LIMIT).flatten(-2)
