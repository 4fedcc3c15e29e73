"""Sampling with an exact denoiser: for Gaussian data its clean prediction is known in closed form."""

import pytest
import torch

from diffdyad import schedulers
from diffdyad.errors import UserError

MEAN, STD = 2.5, 1.0


def sample(name: str, kind: str = "diffusion", steps: int = 12, count: int = 20_000, **changes) -> torch.Tensor:
    trained = schedulers.training_scheduler(kind)
    scheduler = schedulers.sampler(name, trained)
    if changes:
        scheduler = type(scheduler).from_config(scheduler.config, **changes)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 1, 1, generator=generator)
    for timestep in scheduler.timesteps:
        if kind == "flow":
            sigma = scheduler.sigmas[scheduler.step_index or 0]
            signal, noise = 1 - sigma, sigma
        else:
            alpha = schedulers.training_scheduler(kind).alphas_cumprod[int(timestep)]
            signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
        clean = MEAN + STD**2 * signal / (signal**2 * STD**2 + noise**2) * (x - signal * MEAN)
        x = schedulers.step(scheduler, clean, timestep, x, generator)
    return x


@pytest.mark.parametrize("name, spread", [("dpmsolver++", 0.04), ("unipc", 0.06), ("ddim", 0.15)])
def test_a_sustained_offset_is_generated(name, spread):
    x = sample(name)
    assert abs(x.mean() - MEAN) < 0.03 and abs(x.std() - STD) < spread


def test_flow_matching_generates_it_too():
    x = sample("euler", "flow", steps=24)
    assert abs(x.mean() - MEAN) < 0.03 and abs(x.std() - STD) < 0.12


def test_leading_timesteps_would_lose_it():
    assert sample("dpmsolver++", timestep_spacing="leading").mean() < MEAN - 0.15


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_training_noise_ends_in_pure_noise(kind):
    scheduler = schedulers.training_scheduler(kind)
    clean, noise = torch.ones(1, 2, 3), torch.randn(1, 2, 3)
    last = schedulers.add_noise(scheduler, clean, noise, torch.tensor([999]))
    assert torch.allclose(last, noise, atol=2e-3)
    first = schedulers.add_noise(scheduler, clean, noise, torch.tensor([0]))
    assert torch.allclose(first, clean, atol=0.15)


def test_the_network_is_told_the_training_timestep():
    flow = schedulers.sampler("euler", schedulers.training_scheduler("flow"))
    flow.set_timesteps(4)
    told = schedulers.network_timestep(flow, flow.timesteps[0])
    assert told == 999 and schedulers.noise_level(flow, flow.timesteps[0]) == 1.0


def test_unknown_and_unfit_names():
    with pytest.raises(UserError, match="dpmsolver"):
        schedulers.sampler("magic", schedulers.training_scheduler("diffusion"))
    with pytest.raises(UserError, match="flow matching"):
        schedulers.sampler("ddim", schedulers.training_scheduler("flow"))
