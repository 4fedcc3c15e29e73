"""Small curves that motion is made of: named random streams, pulses, nods, smooth noise, decimation."""

from __future__ import annotations

import zlib

import numpy as np


class Streams:
    """Independent random generators by name, all derived from one key.

    A part of the behaviour that draws more or fewer numbers leaves every other part untouched: so two
    corpora that differ in one effect are identical in all the rest.
    """

    def __init__(self, *key: int):
        self.key = key

    def __call__(self, name: str, *index: int) -> np.random.Generator:
        return np.random.default_rng([*self.key, zlib.crc32(name.encode()), *index])


def smoothstep(x: np.ndarray) -> np.ndarray:
    """Minimum-jerk step (Flash & Hogan 1985): 0 for x <= 0, 1 for x >= 1, at rest at both ends."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * x * (10.0 + x * (6.0 * x - 15.0))


def add_pulse(
    track: np.ndarray,  # (T,) changed in place
    times: np.ndarray,  # (T,) seconds, uniform
    peak_s: float,
    amplitude: float,
    rise_s: float,
    fall_s: float,
    hold_s: float = 0.0,
) -> None:
    """Adds one bump: rises before `peak_s`, holds, falls; flanks are minimum-jerk."""
    first, last = np.searchsorted(times, (peak_s - rise_s, peak_s + hold_s + fall_s))
    if first >= last:
        return
    t = times[first:last] - peak_s
    track[first:last] += amplitude * smoothstep(1.0 + t / rise_s) * smoothstep(1.0 - (t - hold_s) / fall_s)


def add_nods(
    track: np.ndarray,  # (T,) changed in place
    times: np.ndarray,  # (T,) seconds
    start_s: float,
    amplitude: float,
    cycles: float,
    frequency_hz: float,
    decay: float = 0.75,
) -> None:
    """Adds a run of whole nods, (1 - cos) / 2 dips, each `decay` times the one before; starts and ends at rest."""
    duration = cycles / frequency_hz
    first, last = np.searchsorted(times, (start_s, start_s + duration))
    phase = (times[first:last] - start_s) * frequency_hz
    track[first:last] += amplitude * decay**phase * 0.5 * (1.0 - np.cos(2.0 * np.pi * phase))


def smooth_noise(rng: np.random.Generator, num_samples: int, rate: float, timescale_s: float) -> np.ndarray:
    """Gaussian noise (num_samples,) of unit variance with a Gaussian correlation of about `timescale_s`."""
    sigma = max(timescale_s * rate / np.sqrt(2.0), 1e-3)
    # nodes a quarter of sigma apart are enough: between them the noise is as good as straight
    stride = max(1, int(sigma / 4))
    radius = int(np.ceil(4 * sigma / stride))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) * stride / sigma) ** 2)
    kernel /= np.sqrt((kernel**2).sum())
    num_nodes = num_samples // stride + 2
    nodes = np.convolve(rng.standard_normal(num_nodes + 2 * radius), kernel, mode="valid")
    return np.interp(np.arange(num_samples) / stride, np.arange(len(nodes)), nodes)


def decimate(signal: np.ndarray, factor: int) -> np.ndarray:
    """Every `factor`-th sample after a Hann low-pass, edges held. (T, C) -> (ceil(T / factor), C)

    The window never overshoots: an opening stays positive, a plateau stays flat.
    """
    radius = factor - 1
    kernel = np.cos(np.arange(-radius, radius + 1) * np.pi / (2 * radius + 2)) ** 2
    kernel /= kernel.sum()
    padded = np.pad(signal, ((radius, radius), (0, 0)), mode="edge")
    num_frames = -(-len(signal) // factor)
    out = np.zeros((num_frames, signal.shape[1]))
    for k, weight in enumerate(kernel):
        out += weight * padded[k : k + (num_frames - 1) * factor + 1 : factor]
    return out


def event_times(
    rng: np.random.Generator, start_s: float, end_s: float, rate_hz: float, refractory_s: float
) -> list[float]:
    """Times in [start_s, end_s) of a renewal process: a refractory time, then an exponential wait."""
    if rate_hz <= 0:
        return []
    mean_wait = max(1.0 / rate_hz - refractory_s, 1e-3)
    times, t = [], start_s + rng.exponential(mean_wait)
    while t < end_s:
        times.append(t)
        t += refractory_s + rng.exponential(mean_wait)
    return times
