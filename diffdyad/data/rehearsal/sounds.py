"""Non-verbal sounds by our own synthesis: laughter, sigh, gasp, mm-hm, breath.

A glottal source or noise through the resonances of a vocal tract at rest, scaled to the voice. Each sound comes with
its phones: LAUGH, SIGH, GASP, BREATH, M, HH, AX, so that the mouth has something to follow.
"""

from __future__ import annotations

import numpy as np

from diffdyad.data.rehearsal.alignment import Phoneme
from diffdyad.data.rehearsal.signals import (
    SAMPLING_RATE,
    fast_length,
    formant_gain,
    root_mean_square,
    shaped_noise,
    smooth_curve,
    tilt_gain,
)
from diffdyad.data.rehearsal.voices import Voice

SOUNDS = ("laugh", "sigh", "gasp", "mmhm")
LEVEL_DB = {"laugh": 1.0, "sigh": -9.0, "gasp": -7.0, "mmhm": -3.0}  # against speech

_OPEN = [(750, 110, 0), (1250, 130, 0), (2600, 200, -4), (3600, 260, -8), (5200, 800, -14)]
_CENTRAL = [(550, 120, 0), (1500, 160, -3), (2550, 200, -6), (3500, 260, -10), (5200, 800, -16)]
_NASAL = [(260, 80, 0), (1050, 250, -10), (2200, 300, -13), (3300, 400, -18)]


def make(sound: str, voice: Voice, arousal: float, generator: np.random.Generator) -> tuple[np.ndarray, list[Phoneme]]:
    """One sound: waveform (S,) float32 at 16 kHz, and phonemes that tile it."""
    makers = {"laugh": _laugh, "sigh": _sigh, "gasp": _gasp, "mmhm": _mmhm}
    if sound not in makers:
        raise ValueError(f"expected a sound of {SOUNDS}, got {sound!r}")
    return makers[sound](voice, arousal, generator)


def breath(duration_s: float, voice: Voice, generator: np.random.Generator) -> tuple[np.ndarray, list[Phoneme]]:
    """A pause that holds a quiet breath in, rms 1 while it lasts."""
    inhale = min(duration_s - 0.06, float(generator.uniform(0.18, 0.5)))
    start = duration_s - inhale - 0.03  # people breathe in right before they go on
    size, begin = round(duration_s * SAMPLING_RATE), round(start * SAMPLING_RATE)
    part = round(inhale * SAMPLING_RATE)
    waveform = np.zeros(size, np.float32)
    waveform[begin : begin + part] = _noise(part, _CENTRAL, voice, generator) * _hump(part, 0.6)
    return waveform, _tile([("SIL", start), ("BREATH", inhale), ("SIL", 0.0)], size)


def _laugh(voice: Voice, arousal: float, generator: np.random.Generator) -> tuple[np.ndarray, list[Phoneme]]:
    """Bursts at 4 to 6 Hz that fall in pitch and strength; each a breathy h, then an open vowel.

    Voiced bursts are high and bright: about 270 Hz (men) and 400 Hz (women) on average (Bachorowski, Smoski & Owren,
    The acoustic features of human laughter, 2001)."""
    count = int(generator.integers(3, 9))
    rate = generator.uniform(4.0, 6.0)
    voiced = 0.0 if generator.random() < 0.2 else generator.uniform(0.4, 1.0)  # some laughs have no voice
    # above calm speech, in octaves; a woman's speech is the nearer to her laughter
    top = voice.pitch_hz * 2 ** (generator.uniform(0.95, 1.65) + (0.0 if voice.female else 0.25) + 0.3 * arousal)
    brightness = 2.5 + 1.0 * arousal + 0.5 * voice.tilt
    tract = _OPEN if generator.random() < 0.7 else _CENTRAL
    waves, phones = [], []
    for k in range(count):
        period = np.exp(generator.normal(0, 0.08)) / rate
        open_s = period * generator.uniform(0.45, 0.6)
        strength = np.exp(-0.22 * k) * np.exp(generator.normal(0, 0.15))
        aspirated, vowel = round((period - open_s) * SAMPLING_RATE), round(open_s * SAMPLING_RATE)
        pitch = top * 2 ** (-0.06 * k + 0.12 * np.sin(np.pi * np.linspace(0, 1, vowel)))
        tone = _voiced(pitch, tract, voice, generator, brightness)
        rough = _noise(aspirated + vowel, tract, voice, generator)
        burst = 0.35 * rough * _hump(aspirated + vowel, 0.5)
        burst[aspirated:] += voiced * tone * _hump(vowel, 0.35)
        waves.append(burst * strength)
        phones += [("HH", aspirated / SAMPLING_RATE), ("LAUGH", vowel / SAMPLING_RATE)]
    if generator.random() < 0.5:  # breathing in after it
        size = round(generator.uniform(0.25, 0.6) * SAMPLING_RATE)
        waves.append(0.25 * _noise(size, _CENTRAL, voice, generator) * _hump(size, 0.55))
        phones.append(("BREATH", size / SAMPLING_RATE))
    return _finish(waves, phones)


def _sigh(voice: Voice, arousal: float, generator: np.random.Generator) -> tuple[np.ndarray, list[Phoneme]]:
    """Breath in, then a long breath out that falls, with some voice in it at times."""
    waves, phones = [], []
    if generator.random() < 0.6:
        size = round(generator.uniform(0.3, 0.7) * SAMPLING_RATE)
        waves.append(0.4 * _noise(size, _CENTRAL, voice, generator) * _hump(size, 0.6))
        phones.append(("BREATH", size / SAMPLING_RATE))
    size = round(generator.uniform(0.8, 1.7) * SAMPLING_RATE)
    exhale = _noise(size, _OPEN, voice, generator) * _hump(size, 0.18)
    if generator.random() < 0.5:
        pitch = voice.pitch_hz * 2 ** np.linspace(0.35 + 0.2 * arousal, -0.25, size)
        exhale += generator.uniform(0.3, 1.2) * _voiced(pitch, _CENTRAL, voice, generator) * _hump(size, 0.15) ** 2
    waves.append(exhale)
    phones.append(("SIGH", size / SAMPLING_RATE))
    return _finish(waves, phones)


def _gasp(voice: Voice, arousal: float, generator: np.random.Generator) -> tuple[np.ndarray, list[Phoneme]]:
    """A sudden breath in that grows and stops short."""
    size = round(generator.uniform(0.22, 0.5) * SAMPLING_RATE)
    wave = _noise(size, _OPEN, voice, generator) * _hump(size, 0.8)
    tail = round(generator.uniform(0.1, 0.35) * SAMPLING_RATE)  # held breath
    return _finish([wave, np.zeros(tail)], [("GASP", size / SAMPLING_RATE), ("SIL", tail / SAMPLING_RATE)])


def _mmhm(voice: Voice, arousal: float, generator: np.random.Generator) -> tuple[np.ndarray, list[Phoneme]]:
    """'Mm-hm' (lips shut), or 'uh-huh'; now and then a single 'mm'."""
    nasal = generator.random() < 0.75
    tract, phone = (_NASAL, "M") if nasal else (_CENTRAL, "AX")
    base = voice.pitch_hz * 2 ** (0.25 + 0.3 * arousal + generator.normal(0, 0.08))
    lengths = [generator.uniform(0.13, 0.24), generator.uniform(0.04, 0.09), generator.uniform(0.18, 0.38)]
    if generator.random() < 0.25:
        lengths = [generator.uniform(0.25, 0.55)]
    rise = generator.uniform(-0.15, 0.4)
    waves, phones = [], []
    for k, seconds in enumerate(lengths):
        size = round(seconds * SAMPLING_RATE)
        if k == 1:
            waves.append(0.12 * _noise(size, tract, voice, generator) * _hump(size, 0.5))
            phones.append(("HH", size / SAMPLING_RATE))
            continue
        line = np.linspace(0, 1, size)
        pitch = base * 2 ** ((rise * line) if k == 2 else (-0.1 * line))
        waves.append(_voiced(pitch, tract, voice, generator) * _hump(size, 0.35) ** 0.6)
        phones.append((phone, size / SAMPLING_RATE))
    return _finish(waves, phones)


# --- sources and tract -----------------------------------------------------------------------------------------


def _voiced(
    pitch_hz: np.ndarray, tract: list, voice: Voice, generator: np.random.Generator, tilt: float = 0.0
) -> np.ndarray:
    """Rosenberg pulses at a pitch contour (S,) through the tract, tilted (dB per octave about 1 kHz); rms 1."""
    size = len(pitch_hz)
    if size < 32:
        return np.zeros(size)
    wander = 2 ** (0.02 * smooth_curve(size, 160, generator))
    phase = np.cumsum(pitch_hz * wander / SAMPLING_RATE) % 1.0
    flow = np.where(
        phase < 0.45,
        0.5 - 0.5 * np.cos(np.pi * phase / 0.45),
        np.where(phase < 0.62, np.cos(0.5 * np.pi * (phase - 0.45) / 0.17), 0.0),
    )
    return _through(np.diff(flow, prepend=flow[0]), tract, voice, tilt)


def _noise(size: int, tract: list, voice: Voice, generator: np.random.Generator) -> np.ndarray:
    scaled = [(f * _scale(voice), 1.8 * w, 0.6 * h) for f, w, h in tract]  # breath is flatter than voice
    return shaped_noise(size, formant_gain(scaled), generator)


def _through(source: np.ndarray, tract: list, voice: Voice, tilt: float) -> np.ndarray:
    length = fast_length(len(source) + 512)
    hz = np.fft.rfftfreq(length, 1 / SAMPLING_RATE)
    gain = formant_gain([(f * _scale(voice), w, h) for f, w, h in tract])(hz) * tilt_gain(tilt)(hz)
    spectrum = np.fft.rfft(source, length) * gain
    wave = np.fft.irfft(spectrum, length)[: len(source)]
    return wave / max(root_mean_square(wave), 1e-9)


def _scale(voice: Voice) -> float:
    return voice.resample * (1.15 if voice.female else 1.0)


def _hump(size: int, peak: float) -> np.ndarray:
    """0 -> 1 -> 0 with its peak at this part of the time."""
    line = np.linspace(0, 1, max(size, 2))[:size]
    return np.where(line < peak, np.sin(0.5 * np.pi * line / peak), np.cos(0.5 * np.pi * (line - peak) / (1 - peak)))


def _finish(waves: list[np.ndarray], phones: list[tuple[str, float]]) -> tuple[np.ndarray, list[Phoneme]]:
    waveform = np.concatenate(waves).astype(np.float32)
    return waveform, _tile(phones, len(waveform))


def _tile(phones: list[tuple[str, float]], size: int) -> list[Phoneme]:
    """Phonemes one after another; the last one ends with the waveform."""
    out, at = [], 0.0
    for k, (phone, seconds) in enumerate(phones):
        end = size / SAMPLING_RATE if k == len(phones) - 1 else at + seconds
        if end > at:
            out.append(Phoneme("", phone, at, end))
        at = end
    return out
