"""Rooms, microphones and noise: what happens to a voice between the mouth and the file.

`draw_channel` draws one recording set-up (keep one per person and session), `apply_channel` passes a waveform
through it, `augment` does both. Nothing is delayed: the direct path of every room stands at 0, every filter is
without phase, so that phoneme times stay true to the sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffdyad.data.rehearsal.signals import (
    SAMPLING_RATE,
    fast_length,
    frame_energy,
    resample,
    root_mean_square,
    shaped_noise,
    smooth_curve,
)

NOISES = ("white", "pink", "brown", "hum", "babble")
CODECS = ("none", "none", "none", "telephone", "telephone", "mu-law", "bits")


@dataclass(frozen=True)
class Channel:
    """One recording set-up.

    rt60_s: reverberation, 0 = none; direct_db: direct sound against the reverberation's energy; snr_db: speech
    against noise, infinite = none; noise: its kind; eq_hz, eq_db: the microphone's frequency response;
    low_hz, high_hz: its band; gain_db: final level; drive_db: how far the voice goes into the limiter;
    ratio: compression of slow level changes, 1 = none; codec: see CODECS; seed: of the room and the noise."""

    rt60_s: float = 0.0
    direct_db: float = 10.0
    snr_db: float = float("inf")
    noise: str = "white"
    eq_hz: tuple[float, ...] = (100.0, 8000.0)
    eq_db: tuple[float, ...] = (0.0, 0.0)
    low_hz: float = 0.0
    high_hz: float = SAMPLING_RATE / 2
    gain_db: float = 0.0
    drive_db: float = -40.0
    ratio: float = 1.0
    codec: str = "none"
    seed: int = 0


def draw_channel(generator: np.random.Generator, severity: float = 1.0) -> Channel:
    """A set-up at random. severity: 0 = a clean studio, 1 = all that real recordings show."""
    if not 0 <= severity <= 1:
        raise ValueError(f"expected a severity in [0, 1], got {severity}")
    room = generator.random() < 0.75 * severity
    noisy = generator.random() < 0.85 * severity
    codec = str(generator.choice(CODECS)) if generator.random() < 0.6 * severity else "none"
    telephone = codec == "telephone"
    eq_hz = (80, 160, 320, 640, 1280, 2560, 5120, 8000)
    wander = np.cumsum(generator.normal(0, 1.6 * severity, len(eq_hz)))  # neighbouring bands stray together
    return Channel(
        rt60_s=float(np.exp(generator.uniform(np.log(0.05), np.log(0.9)))) if room else 0.0,
        direct_db=float(generator.uniform(12 - 12 * severity, 20)),
        snr_db=float(50 - 45 * severity * generator.beta(1.2, 2.0)) if noisy else float("inf"),
        noise=str(generator.choice(NOISES)),
        eq_hz=eq_hz,
        eq_db=tuple(float(v) for v in np.clip(wander - wander.mean(), -12, 12)),
        low_hz=float(generator.uniform(200, 350) if telephone else generator.choice([0, 50, 80, 120])),
        high_hz=float(generator.uniform(3100, 3700) if telephone else _band(generator, severity)),
        gain_db=float(generator.uniform(-30, 6) if severity else 0.0),
        drive_db=float(generator.uniform(-6, 8)) if generator.random() < 0.2 * severity else -40.0,
        ratio=float(generator.uniform(1.2, 3.0)) if generator.random() < 0.35 * severity else 1.0,
        codec=codec,
        seed=int(generator.integers(2**31)),
    )


def apply_channel(
    waveform: np.ndarray,  # (S,) 16 kHz
    channel: Channel,
    generator: np.random.Generator,
    babble: list[np.ndarray] | None = None,
) -> np.ndarray:  # (S,) float32, 16 kHz
    """Passes a dry voice through a set-up; same length, no delay. `babble`: other people's waveforms for the noise
    of that kind; without them it is noise with speech's spectrum and rhythm."""
    if waveform.ndim != 1 or not len(waveform):
        raise ValueError(f"expected a waveform (S,) with samples, got shape {waveform.shape}")
    wet = waveform.astype(np.float32)
    if channel.rt60_s > 0:
        wet = convolve(wet, room_response(channel.rt60_s, channel.direct_db, np.random.default_rng(channel.seed)))
    if channel.ratio > 1:
        wet = compress(wet, channel.ratio)
    if np.isfinite(channel.snr_db):
        wet = wet + noise_at(wet, channel.snr_db, channel.noise, generator, babble)
    wet = _microphone(wet, channel)
    if channel.drive_db > -40:
        wet = _limit(wet, channel.drive_db)
    wet = _codec(wet, channel.codec)
    wet = wet * np.float32(10 ** (channel.gain_db / 20))
    peak = float(np.abs(wet).max())
    if peak > 0.999:  # converters clip, and do no more than that
        wet = np.clip(wet, -0.999, 0.999)
    # what 16 bits leave of silence
    return (np.round(wet * 32767 + generator.uniform(-0.5, 0.5, len(wet))) / 32767).astype(np.float32)


def augment(
    waveform: np.ndarray,  # (S,)
    generator: np.random.Generator,
    severity: float = 1.0,
    babble: list[np.ndarray] | None = None,
) -> np.ndarray:  # (S,) float32
    """A set-up at random, and the waveform through it."""
    return apply_channel(waveform, draw_channel(generator, severity), generator, babble)


def room_response(rt60_s: float, direct_db: float, generator: np.random.Generator) -> np.ndarray:  # (N,) float32
    """Impulse response: direct path of 1 at sample 0, a few early reflections, a decaying diffuse tail.

    The reverberation's energy is `direct_db` below the direct path's; its level falls by 60 dB in `rt60_s`."""
    size = max(int(rt60_s * SAMPLING_RATE), 64)
    time = np.arange(size) / SAMPLING_RATE
    decay = 10 ** (-3 * time / rt60_s)
    tail = generator.standard_normal(size) * decay
    onset = generator.uniform(0.003, 0.02)  # s until the reflections are dense
    tail *= np.clip(time / onset, 0, 1)
    # walls swallow high frequencies: each pass of this smoothing is a wall, the blend grows with time
    dull = np.convolve(tail, [0.25, 0.5, 0.25], mode="same")
    blend = np.clip(time / max(rt60_s, 1e-3), 0, 1)
    tail = tail * (1 - blend) + 1.4 * dull * blend
    for _ in range(int(generator.integers(3, 9))):
        at = int(generator.uniform(0.0015, 0.04) * SAMPLING_RATE)
        if at < size:
            tail[at] += generator.choice([-1, 1]) * generator.uniform(1, 4) * decay[at]
    tail[0] = 0.0
    tail *= 10 ** (-direct_db / 20) / max(np.sqrt(np.sum(tail**2)), 1e-9)
    tail[0] = 1.0
    return tail.astype(np.float32)


def convolve(waveform: np.ndarray, response: np.ndarray) -> np.ndarray:  # (S,) and (N,) -> (S,)
    """Convolution by FFT; what rings on after the end is cut off."""
    length = fast_length(len(waveform) + len(response) - 1)
    product = np.fft.rfft(waveform, length) * np.fft.rfft(response, length)
    return np.fft.irfft(product, length)[: len(waveform)].astype(np.float32)


def noise_at(
    waveform: np.ndarray,
    snr_db: float,
    kind: str,
    generator: np.random.Generator,
    babble: list[np.ndarray] | None = None,
) -> np.ndarray:  # (S,) float32
    """Noise at this ratio to the level of the speech while it is spoken (not to its mean over pauses)."""
    noise = _noise(len(waveform), kind, generator, babble)
    level = root_mean_square(noise)
    reference = active_level(waveform) or 10 ** (-24 / 20)
    return (noise * (reference * 10 ** (-snr_db / 20) / max(level, 1e-12))).astype(np.float32)


def active_level(waveform: np.ndarray) -> float:
    """Root mean square over the frames (20 ms) within 30 dB of the loudest ones; 0 for silence."""
    energy = frame_energy(waveform, 320, 160)
    loud = np.percentile(energy, 98) if len(energy) else 0.0
    if loud <= 1e-12:
        return 0.0
    return float(np.sqrt(energy[energy > loud * 1e-3].mean()))


def compress(waveform: np.ndarray, ratio: float) -> np.ndarray:
    """Evens out slow level changes (centred 0.2 s) about the active level, by at most 15 dB."""
    reference = active_level(waveform)
    if reference == 0:
        return waveform
    hop = 160
    level = np.sqrt(frame_energy(waveform, 3200, hop))
    gain_db = np.clip((1 / ratio - 1) * 20 * np.log10(np.maximum(level, 1e-6) / reference), -15, 15)
    gain = np.interp(np.arange(len(waveform)), np.arange(len(gain_db)) * hop, 10 ** (gain_db / 20))
    return (waveform * gain).astype(np.float32)


def mu_law(waveform: np.ndarray) -> np.ndarray:
    """Eight bits by ITU-T G.711's mu-law curve, there and back."""
    mu = 255.0
    small = np.sign(waveform) * np.log1p(mu * np.minimum(np.abs(waveform), 1)) / np.log1p(mu)
    coded = np.round((small + 1) / 2 * mu) / mu * 2 - 1
    return (np.sign(coded) * np.expm1(np.abs(coded) * np.log1p(mu)) / mu).astype(np.float32)


# --- parts ------------------------------------------------------------------------------------------------------


def _band(generator: np.random.Generator, severity: float) -> float:
    """Upper end of a microphone's band; old and cheap ones end early."""
    if generator.random() < 0.35 * severity:
        return float(generator.uniform(3800, 7000))
    return SAMPLING_RATE / 2


def _microphone(waveform: np.ndarray, channel: Channel) -> np.ndarray:
    def gain(hz: np.ndarray) -> np.ndarray:
        octave = np.log2(np.maximum(hz, 40.0))
        out = 10 ** (np.interp(octave, np.log2(channel.eq_hz), channel.eq_db) / 20)
        if channel.low_hz > 0:
            out = out / np.sqrt(1 + (channel.low_hz / np.maximum(hz, 1.0)) ** 6)
        if channel.high_hz < SAMPLING_RATE / 2:
            out = out / np.sqrt(1 + (hz / channel.high_hz) ** 16)
        return out

    return resample(waveform, SAMPLING_RATE, SAMPLING_RATE, gain)


def _limit(waveform: np.ndarray, drive_db: float) -> np.ndarray:
    """Soft clipping; drive 0 dB bends what is above twice the active level."""
    knee = 2 * active_level(waveform) * 10 ** (-drive_db / 20)
    if knee == 0:
        return waveform
    return (knee * np.tanh(waveform / knee)).astype(np.float32)


def _codec(waveform: np.ndarray, codec: str) -> np.ndarray:
    level = active_level(waveform)
    if codec == "none" or level == 0:
        return waveform
    scaled = waveform * (0.1 / level)  # codecs are fed at a usual level
    if codec in ("telephone", "mu-law"):
        narrow = resample(scaled, SAMPLING_RATE, 8000) if codec == "telephone" else scaled
        coded = mu_law(narrow)
        wide = resample(coded, 8000, SAMPLING_RATE) if codec == "telephone" else coded
        scaled = np.pad(wide[: len(waveform)], (0, max(0, len(waveform) - len(wide))))
    else:  # few bits, as lossy codecs at low rates leave
        scaled = np.round(scaled * 512) / 512
    return (scaled * (level / 0.1)).astype(np.float32)


def _noise(
    size: int, kind: str, generator: np.random.Generator, babble: list[np.ndarray] | None
) -> np.ndarray:  # (S,), any level
    if kind == "hum":
        mains = float(generator.choice([50.0, 60.0]))
        time = np.arange(size) / SAMPLING_RATE
        noise = 0.3 * shaped_noise(size, lambda hz: 1 / np.sqrt(np.maximum(hz, 20)), generator)
        for k in range(1, 9):
            noise = noise + generator.uniform(0, 1) / k * np.sin(2 * np.pi * mains * k * time + generator.uniform(0, 6))
        return noise
    if kind == "babble":
        if babble:
            return _babble(size, babble, generator)
        speech = shaped_noise(size, lambda hz: 1 / (1 + (np.maximum(hz, 60) / 500) ** 1.5), generator)
        return speech * 10 ** (5 * smooth_curve(size, 2400, generator) / 20)
    power = {"white": 0.0, "pink": 0.5, "brown": 1.0}.get(kind)
    if power is None:
        raise ValueError(f"expected a noise of {NOISES}, got {kind!r}")
    steady = shaped_noise(size, lambda hz: np.maximum(hz, 20.0) ** -power, generator)
    return steady * 10 ** (1.5 * smooth_curve(size, 8000, generator) / 20)


def _babble(size: int, waveforms: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """Two to six other voices, each from anywhere in its waveform, repeated as needed, at levels of their own."""
    total = np.zeros(size)
    for _ in range(int(generator.integers(2, 7))):
        voice = waveforms[int(generator.integers(len(waveforms)))]
        level = root_mean_square(voice)
        if level == 0:
            continue
        repeats = -(-size // len(voice)) + 1
        start = int(generator.integers(len(voice)))
        total += np.tile(voice, repeats)[start : start + size] / level * 10 ** (generator.uniform(-6, 3) / 20)
    return total if total.any() else shaped_noise(size, lambda hz: np.ones_like(hz), generator)
