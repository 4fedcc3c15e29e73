"""Diffusers' noise schedulers as diffdyad sets them up, by name.

Three settings matter more than the choice of scheduler: zero terminal SNR and trailing timesteps, without
which a sustained reaction (the constant part of a window) cannot be generated, and no clipping, since
standardised motion exceeds 1. `docs/design-notes.md` has the measurements.
"""

from __future__ import annotations

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from torch import Tensor

from diffdyad.errors import UserError

SAMPLERS = {
    "dpmsolver++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "ddim": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": True}),
    "unipc": (UniPCMultistepScheduler, {}),
    "ddpm": (DDPMScheduler, {"clip_sample": False, "variance_type": "fixed_small"}),
}
"""Samplers of a model trained on diffusion, by the names of `--scheduler`."""


def training_scheduler(kind: str, num_train_timesteps: int = 1000, beta_schedule: str = "squaredcos_cap_v2",
                       flow_shift: float = 1.0) -> SchedulerMixin:
    """The noise of training; kind: "diffusion" or "flow"."""
    if kind == "flow":
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=num_train_timesteps, shift=flow_shift)
    return DDPMScheduler(
        num_train_timesteps=num_train_timesteps, beta_schedule=beta_schedule, prediction_type="sample",
        clip_sample=False, rescale_betas_zero_snr=True, timestep_spacing="trailing",
    )


def sampler(name: str, trained: SchedulerMixin) -> SchedulerMixin:
    """The sampler `name` for a model trained with (or saved with) the scheduler `trained`."""
    if isinstance(trained, FlowMatchEulerDiscreteScheduler):
        if name not in ("flow", "euler"):
            raise UserError(f"this model was trained by flow matching: expected the scheduler 'euler', found {name!r}")
        return FlowMatchEulerDiscreteScheduler.from_config(trained.config)
    if name not in SAMPLERS:
        raise UserError(f"expected a scheduler among {', '.join(SAMPLERS)}, found {name!r}")
    kind, settings = SAMPLERS[name]
    return kind(
        num_train_timesteps=trained.config.num_train_timesteps, beta_schedule=trained.config.beta_schedule,
        prediction_type="sample", rescale_betas_zero_snr=True, timestep_spacing="trailing", **settings,
    )


def is_flow(scheduler: SchedulerMixin) -> bool:
    return isinstance(scheduler, FlowMatchEulerDiscreteScheduler)


def add_noise(scheduler: SchedulerMixin, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Noisy motion at training timesteps (B,) in 0 .. num_train_timesteps - 1; motion (B, T, D)."""
    if is_flow(scheduler):
        sigma = ((timesteps.float() + 1) / scheduler.config.num_train_timesteps)[:, None, None]
        return (1 - sigma) * clean + sigma * noise
    return scheduler.add_noise(clean, noise, timesteps)


def network_timestep(scheduler: SchedulerMixin, timestep: Tensor) -> Tensor:
    """What the network is told at a sampling timestep: the training timestep of the same noise."""
    return timestep - 1 if is_flow(scheduler) else timestep


def noise_level(scheduler: SchedulerMixin, timestep: Tensor) -> float:
    """Position of a sampling timestep between clean (0) and pure noise (1)."""
    return float(timestep) / scheduler.config.num_train_timesteps


def step(
    scheduler: SchedulerMixin, clean: Tensor, timestep: Tensor, noisy: Tensor, generator: torch.Generator | None
) -> Tensor:
    """One sampling step from the network's clean prediction."""
    if is_flow(scheduler):
        sigma = scheduler.sigmas[scheduler.step_index or 0]
        velocity = (noisy - clean) / sigma
        return scheduler.step(velocity, timestep, noisy).prev_sample
    stochastic = isinstance(scheduler, (DDPMScheduler, DDIMScheduler))
    extra = {"generator": generator} if stochastic else {}
    return scheduler.step(clean, timestep, noisy, **extra).prev_sample
