"""Parts of motions, and motions made longer."""

from __future__ import annotations

from dataclasses import replace

import torch

from diffdyad.motion import Motion


def cut(motion: Motion, end: int, begin: int = 0) -> Motion:
    """Frames begin .. end - 1, views."""
    return replace(motion, values=motion.values[begin:end], valid=motion.valid[begin:end])


def fit_length(motion: Motion, num_frames: int) -> Motion:
    """Cut, or continued backwards and forwards in turn, which makes no jump."""
    if len(motion) >= num_frames:
        return cut(motion, num_frames)
    last = max(1, len(motion) - 1)
    back = (torch.arange(num_frames) % (2 * last) - last).abs()
    index = (last - back).clamp(max=len(motion) - 1)
    return replace(motion, values=motion.values[index], valid=motion.valid[index])
