"""Diffusers' noise schedulers as diffdyad sets them up, by name.

Three settings matter more than the choice of scheduler: zero terminal SNR and trailing timesteps, without
which a sustained reaction (the constant part of a window) cannot be generated, and no clipping, since
standardised motion exceeds 1. And the steps are spread evenly over the logarithm of the signal-to-noise ratio, since
evenly over time the first of them leaps past the noise at which that constant part is decided.
`docs/design-notes.md` has the measurements.
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


_LOG_SNR = (-4.5, 2.2)
"""Of the second and the last step, log(signal / noise). Averaged over a window of N frames, a person's posture stands
out of noise sqrt(N) times as large: at -4.5, in windows of 150, it is seen with a signal-to-noise ratio of 0.02."""


def set_timesteps(scheduler: SchedulerMixin, count: int, device: torch.device | str | None = None) -> None:
    """Plans `count` steps from pure noise on: evenly in log(signal / noise) for DPM-Solver++ and flow matching.

    Source of the spacing: Lu et al. 2022 (DPM-Solver), section 3.2. The other samplers lose more than they gain by it,
    and keep their trailing timesteps.
    """
    goals = torch.linspace(*_LOG_SNR, count - 1) if count > 2 else torch.tensor(_LOG_SNR[: count - 1])
    if is_flow(scheduler):
        sigmas = torch.cat([torch.ones(1), torch.sigmoid(-goals)])
        shift = scheduler.config.shift  # the scheduler applies it, to even steps
        scheduler.set_timesteps(sigmas=(sigmas / (shift - (shift - 1) * sigmas)).tolist(), device=device)
    elif isinstance(scheduler, DPMSolverMultistepScheduler):
        signal = scheduler.alphas_cumprod.double()
        log_snr = (signal.log() - (1 - signal).log())[:-1] / 2
        nearest = (log_snr[None] - goals[:, None]).abs().argmin(1).tolist() if count > 1 else []
        chosen = sorted({len(signal) - 1, *nearest}, reverse=True)
        scheduler.set_timesteps(timesteps=chosen, device=device)
    else:
        scheduler.set_timesteps(count, device=device)


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
