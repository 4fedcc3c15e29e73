"""Sampling with an exact denoiser: for Gaussian data its clean prediction is known in closed form."""

import pytest
import torch

from diffdyad import schedulers
from diffdyad.errors import UserError

MEAN, STD = 2.5, 1.0


def ratio(scheduler, kind: str, timestep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors of signal and noise at a sampling timestep."""
    if kind == "flow":
        sigma = scheduler.sigmas[scheduler.step_index or 0]
        return 1 - sigma, sigma
    alpha = schedulers.training_scheduler(kind).alphas_cumprod[int(timestep)]
    return alpha.sqrt(), (1 - alpha).sqrt()


def sample(name: str, kind: str = "diffusion", steps: int = 12, count: int = 20_000, **changes) -> torch.Tensor:
    trained = schedulers.training_scheduler(kind)
    scheduler = schedulers.sampler(name, trained)
    if changes:
        scheduler = type(scheduler).from_config(scheduler.config, **changes)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 1, 1, generator=generator)
    for timestep in scheduler.timesteps:
        signal, noise = ratio(scheduler, kind, timestep)
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


def postures(name: str, kind: str, plan, posture: float = 0.6, frames: int = 150) -> float:
    """Deviation of the postures of sampled windows, relative to the true one: people hold one, and move about it."""
    scheduler = schedulers.sampler(name, schedulers.training_scheduler(kind))
    plan(scheduler)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, frames, 1, generator=generator)
    held, moved = posture**2 + 0.64 / frames, 0.64
    for timestep in scheduler.timesteps:
        signal, noise = ratio(scheduler, kind, timestep)
        mean = x.mean(1, keepdim=True)
        part = [signal * v / (signal**2 * v + n) for v, n in ((held, noise**2 / frames), (moved, noise**2))]
        x = schedulers.step(scheduler, part[0] * mean + part[1] * (x - mean), timestep, x, generator)
    return float(x.mean(1).std() / held**0.5)


@pytest.mark.parametrize(
    "name, kind, steps, low", [("dpmsolver++", "diffusion", 12, 0.97), ("euler", "flow", 24, 0.88)]
)
def test_people_hold_as_many_postures_as_in_the_data(name, kind, steps, low):
    assert low < postures(name, kind, lambda s: schedulers.set_timesteps(s, steps)) < 1.03


@pytest.mark.parametrize("name, kind", [("dpmsolver++", "diffusion"), ("euler", "flow")])
def test_even_timesteps_would_make_all_people_alike(name, kind):
    assert postures(name, kind, lambda s: s.set_timesteps(12)) < 0.75


@pytest.mark.parametrize("name, kind", [*((name, "diffusion") for name in schedulers.SAMPLERS), ("euler", "flow")])
@pytest.mark.parametrize("count", [1, 2, 3, 12, 50, 200])
def test_plans_start_from_pure_noise_and_fall(name, kind, count):
    scheduler = schedulers.sampler(name, schedulers.training_scheduler(kind))
    schedulers.set_timesteps(scheduler, count)
    times = scheduler.timesteps.float()
    assert schedulers.network_timestep(scheduler, times[0]) == 999 and (times.diff() < 0).all()
    assert 0.6 * count <= len(times) <= count


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
