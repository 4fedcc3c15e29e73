"""How fast which weights learn."""

from __future__ import annotations

import torch
from torch import nn

from diffdyad.config import TrainingConfig
from diffdyad.denoiser import OF_SPEECH


def parameter_groups(network: nn.Module, training: TrainingConfig) -> list[dict]:
    """Groups for an optimizer: `rate` scales the learning rate; vectors are not decayed."""
    groups: dict[tuple[float, float], list] = {}
    for name, parameter in network.named_parameters():
        reads_context = "context" in name or name.startswith("forecast_in")  # the forecast is the context's
        rate = training.context_rate if reads_context else training.other_rate
        if name.startswith(OF_SPEECH) and training.speech_rate is not None:
            rate = training.speech_rate
        decay = training.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": p, "weight_decay": decay, "rate": rate} for (rate, decay), p in groups.items()]


def schedule(training: TrainingConfig, step: int) -> float:
    """Linear warm-up, then down to a twentieth along a cosine or a line, or no further change: a factor."""
    if step < training.warmup_steps:
        return (step + 1) / training.warmup_steps
    progress = (step - training.warmup_steps) / max(1, training.max_steps - training.warmup_steps)
    if training.schedule == "constant":
        return 1.0
    if training.schedule == "linear":
        return 1 - 0.95 * progress
    return 0.05 + 0.95 * 0.5 * (1 + torch.cos(torch.tensor(progress * torch.pi)).item())


def shifted(uniform: torch.Tensor, shift: float) -> torch.Tensor:
    """Shares of the training timesteps, moved towards noise by a shift over 1. Source: Esser et al. 2024, 5.3.2."""
    return shift * uniform / (1 + (shift - 1) * uniform)
