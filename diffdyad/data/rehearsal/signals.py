"""Small vectorised signal tools shared by speech, sounds and acoustics. None of them delays what it treats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from diffdyad.media import SAMPLING_RATE


def _smooth_part(n: int) -> int:
    """n without its factors 2, 3, 5 and 7: 1 = a length the FFT is fast for."""
    for prime in (2, 3, 5, 7):
        while n % prime == 0:
            n //= prime
    return n


def fast_length(n: int) -> int:
    """The smallest length >= n with no prime factor above 7."""
    while _smooth_part(n) != 1:
        n += 1
    return n


def resample(
    waveform: np.ndarray,  # (S,)
    rate_in: float,
    rate_out: float,
    gain: Callable[[np.ndarray], np.ndarray] | None = None,  # frequencies in Hz (of the output) -> factors
) -> np.ndarray:  # (round(S * rate_out / rate_in),) float32
    """Band-limited resampling (and filtering without phase) by one FFT: exact below both Nyquist frequencies.

    The rate achieved differs from the one asked by less than half a sample over the whole waveform."""
    ratio = rate_out / rate_in
    size = len(waveform)
    padded = fast_length(size + 256)  # so that the end does not ring into the beginning
    candidates = [padded]
    while len(candidates) < 6:
        candidates.append(fast_length(candidates[-1] + 1))
    padded = min(candidates, key=lambda n: _smooth_part(round(n * ratio)))
    length = round(padded * ratio)
    spectrum = np.fft.rfft(waveform, padded)
    kept = min(len(spectrum), length // 2 + 1)
    spectrum = spectrum[:kept]
    if gain is not None:
        spectrum = spectrum * gain(np.arange(kept) * (rate_out / length))
    out = np.fft.irfft(spectrum, length) * ratio
    return out[: round(size * ratio)].astype(np.float32)


def tilt_gain(tilt: float, pivot_hz: float = 1000.0) -> Callable[[np.ndarray], np.ndarray]:
    """Spectral tilt in dB per octave about a pivot, flat below 80 Hz."""
    return lambda hz: 10 ** (tilt * np.log2(np.maximum(hz, 80.0) / pivot_hz) / 20)


def frame_energy(waveform: np.ndarray, window: int, hop: int) -> np.ndarray:  # (ceil(S / hop),) mean square
    """Mean square about the samples 0, hop, 2 hop, ..., over a centred window."""
    total = np.concatenate([[0.0], np.cumsum(np.square(waveform, dtype=np.float64))])
    centres = np.arange(0, len(waveform), hop)
    left = np.clip(centres - window // 2, 0, len(waveform))
    right = np.clip(centres + (window + 1) // 2, 0, len(waveform))
    return (total[right] - total[left]) / np.maximum(right - left, 1)


def root_mean_square(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))) if len(waveform) else 0.0


def smooth_curve(size: int, step: int, generator: np.random.Generator) -> np.ndarray:  # (size,)
    """A random curve that wanders: unit normal values every `step` samples, joined by cosines."""
    knots = generator.standard_normal(size // step + 3)
    place = np.arange(size) / step
    index = place.astype(int)
    part = 0.5 - 0.5 * np.cos(np.pi * (place - index))
    return knots[index] * (1 - part) + knots[index + 1] * part


def shaped_noise(
    size: int, gain: Callable[[np.ndarray], np.ndarray], generator: np.random.Generator
) -> np.ndarray:  # (size,) float32, rms 1
    """Stationary noise with the given amplitude spectrum."""
    if size == 0:
        return np.zeros(0, np.float32)
    length = fast_length(size)
    spectrum = np.fft.rfft(generator.standard_normal(length, dtype=np.float32))
    spectrum *= gain(np.fft.rfftfreq(length, 1 / SAMPLING_RATE))
    noise = np.fft.irfft(spectrum, length)[:size]
    return (noise / max(root_mean_square(noise), 1e-12)).astype(np.float32)


def formant_gain(formants: list[tuple[float, float, float]]) -> Callable[[np.ndarray], np.ndarray]:
    """Sum of resonances (frequency Hz, bandwidth Hz, height dB): the envelope of a vocal tract at rest."""

    def gain(hz: np.ndarray) -> np.ndarray:
        out = np.full_like(hz, 1e-3, dtype=np.float64)
        for centre, width, height in formants:
            out += 10 ** (height / 20) / np.sqrt(1 + ((hz - centre) / (width / 2)) ** 2)
        return out

    return gain


def noise_excited(waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:  # (S,) float32
    """The same short-time spectral envelope (16 ms) with noise in place of the voice: a whisper."""
    size, window, hop = len(waveform), 256, 64
    hann = np.hanning(window + 1)[:-1].astype(np.float32)
    padded = np.pad(waveform.astype(np.float32), (window, window + (-size) % hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]  # (N, window)
    magnitude = np.abs(np.fft.rfft(frames * hann, axis=-1))
    wide = np.pad(magnitude, ((0, 0), (2, 2)), mode="edge")  # five bins: no harmonic survives
    magnitude = (wide[:, :-4] + wide[:, 1:-3] + wide[:, 2:-2] + wide[:, 3:-1] + wide[:, 4:]) / 5
    phase = np.exp(2j * np.pi * generator.random(magnitude.shape, dtype=np.float32)).astype(np.complex64)
    pieces = np.fft.irfft(magnitude * phase, window, axis=-1).astype(np.float32) * hann  # (N, window)
    out = np.zeros((len(pieces) + window // hop - 1, hop), np.float32)
    for k in range(window // hop):
        out[k : k + len(pieces)] += pieces[:, k * hop : (k + 1) * hop]
    # 1.5 undoes what windows and random phases take of the level
    return out.reshape(-1)[window : window + size] * 1.5
