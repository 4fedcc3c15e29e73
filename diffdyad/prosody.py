"""Frame-level prosody: pitch, energy, rate and voice quality. What is heard of a voice, not what is felt.

Everything is relative to the speaker's own recent past (running loudness, running pitch reference), never to
the clip. Frame k is centred at k / fps seconds and looks at most 0.13 s ahead (the energy slope; pitch: 0.1 s).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from diffdyad.media import LOUDNESS_TARGET_DB, normalise_loudness, padded_slice

PROSODY_CHANNELS = (
    "pitch",  # semitones above the speaker's running reference, -24..24; 0 where unvoiced
    "voicing",  # probability, 0..1
    "energy",  # dB re the loudness target, floor -40
    "energy_slope",  # dB per second, over +-2 frames
    "spectral_tilt",  # dB per octave, 100-7000 Hz; 0 in silence
    "spectral_centroid",  # octaves re 1 kHz; about 0 in silence
    "spectral_flux",  # mean rise of the bands from one frame to the next, dB: how fast sounds follow each other
    "harmonicity",  # harmonics-to-noise ratio below 1 kHz, dB, -10..20
)

LOWEST_HZ, HIGHEST_HZ = 60.0, 500.0
_COLUMNS_PER_S = 100
_YIN_WINDOW_S = 0.032
_YIN_TOLERANCE = 0.08  # the first dip within this of the deepest is the period: later ones are multiples
_VOICED_BELOW = 0.3  # aperiodicity; low-passed noise rarely falls under 0.5
_AUDIBLE_DB = -52.0  # after loudness normalisation
_NEIGHBOURS = 7  # columns on each side whose median corrects octave errors
_LEAP = 7.0 / 12.0  # octaves from that median that make a pitch suspect
_BLOCK_FRAMES = 250
_SPECTRUM_WINDOW_S = 0.025
_NUM_BANDS = 24
_REFERENCE_HZ = 155.0  # between typical men and women, until the speaker is heard
_REFERENCE_PRIOR_S, _REFERENCE_MEMORY_S = 0.4, 10.0  # of voiced speech


@dataclass
class Pitch:
    """Fundamental frequency over T frames."""

    f0_hz: Tensor  # (T,), 0 where unvoiced
    voicing: Tensor  # (T,) probability
    harmonicity_db: Tensor  # (T,)


def prosody(
    waveform: Tensor,  # (S,)
    sampling_rate: int = 16000,
    fps: float = 25.0,
) -> Tensor:  # (T, 8)
    """`PROSODY_CHANNELS` over time, T = round(fps * S / sampling_rate). Finite whatever the input."""
    waveform = normalise_loudness(waveform.float(), sampling_rate)
    pitch = _pitch(waveform, sampling_rate, fps)
    bands, power = _bands(waveform, sampling_rate, fps)
    energy = 10 * (power / 10 ** (LOUDNESS_TARGET_DB / 10) + 1e-4).log10()
    levels = 10 * (bands / 10 ** (LOUDNESS_TARGET_DB / 10) + 1e-5).log10()  # (T, bands)
    octaves = _band_octaves(sampling_rate).to(levels)
    centred = octaves - octaves.mean()
    tilt = levels @ centred / centred.square().sum()
    weights = bands / 10 ** (LOUDNESS_TARGET_DB / 10) + 1e-5
    centroid = weights @ octaves / weights.sum(1)
    flux = F.pad((levels[1:] - levels[:-1]).clamp_min(0).mean(1), (min(1, len(levels)), 0))
    channels = [
        relative_pitch(pitch, fps), pitch.voicing, energy, _slope(energy, fps), tilt, centroid, flux,
        pitch.harmonicity_db,
    ]  # fmt: skip
    return torch.stack(channels, dim=1)


def estimate_pitch(
    waveform: Tensor,  # (S,)
    sampling_rate: int = 16000,
    fps: float = 25.0,
) -> Pitch:
    """YIN pitch, 60 to 500 Hz, of T = round(fps * S / sampling_rate) frames.

    Source: de Cheveigne and Kawahara 2002, with FFT correlation, taking the first dip that comes near the
    deepest one instead of a fixed threshold, and octave correction by the median of neighbouring columns.
    """
    return _pitch(normalise_loudness(waveform.float(), sampling_rate), sampling_rate, fps)


def relative_pitch(pitch: Pitch, fps: float) -> Tensor:  # (T,) semitones
    """Pitch against a running mean of the speaker's own past voiced frames; 0 where unvoiced."""
    octaves = pitch.f0_hz.clamp_min(1.0).double().log2().tolist()
    result = []
    reference, count = math.log2(_REFERENCE_HZ), 0
    for octave, voiced in zip(octaves, (pitch.f0_hz > 0).tolist()):
        result.append(max(-24.0, min(24.0, 12 * (octave - reference))) if voiced else 0.0)
        if voiced:
            count += 1
            # twice the share of a plain running mean: the prior is forgotten quadratically
            share = max(1 / (fps * _REFERENCE_MEMORY_S), 2 / (count + 2 * fps * _REFERENCE_PRIOR_S))
            reference += share * (octave - reference)
    return torch.tensor(result, dtype=torch.float32, device=pitch.f0_hz.device)


def _slope(energy: Tensor, fps: float) -> Tensor:
    """Least-squares slope over five frames, dB/s; the ends are held."""
    if not len(energy):
        return energy
    padded = F.pad(energy[None, None], (2, 2), mode="replicate")
    kernel = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).to(energy) * (fps / 10)
    return F.conv1d(padded, kernel[None, None])[0, 0]


def _column_times(begin: int, end: int, fps: float) -> Tensor:
    """Seconds at which the columns of frames begin .. end - 1 lie: symmetrically around each frame's centre."""
    count = max(1, round(_COLUMNS_PER_S / fps))
    offsets = (torch.arange(count, dtype=torch.float64) - (count - 1) / 2) / (count * fps)
    return rearrange(torch.arange(begin, end, dtype=torch.float64)[:, None] / fps + offsets, "t n -> (t n)")


# ---------------------------------------------------------------------------------------------- pitch


def _pitch(waveform: Tensor, sampling_rate: int, fps: float) -> Pitch:
    num_frames = round(fps * len(waveform) / sampling_rate)
    columns = max(1, round(_COLUMNS_PER_S / fps))
    margin = math.ceil(_NEIGHBOURS / columns)  # frames around a block, so that blocks leave no trace
    f0, voicing, harmonicity = (waveform.new_zeros(num_frames) for _ in range(3))
    for begin in range(0, num_frames, _BLOCK_FRAMES):
        end = min(begin + _BLOCK_FRAMES, num_frames)
        times = _column_times(begin - margin, end + margin, fps)
        octave, probability, aperiodicity = _yin(waveform, sampling_rate, times)
        probability, octave, aperiodicity = (
            rearrange(x, "(t n) -> t n", n=columns)[margin : margin + end - begin]
            for x in (probability, octave, aperiodicity)
        )
        weight = torch.where(probability > 0.5, probability, 0)
        mean = (octave * weight).sum(1) / weight.sum(1).clamp_min(1e-6)
        voicing[begin:end] = probability.mean(1)
        f0[begin:end] = torch.where((voicing[begin:end] > 0.5) & (weight.sum(1) > 0), 2**mean, 0)
        ratio = aperiodicity.mean(1).clamp(0.01, 10 / 11)
        harmonicity[begin:end] = 10 * ((1 - ratio) / ratio).log10()
    return Pitch(f0, voicing, harmonicity)


def _yin(waveform: Tensor, sampling_rate: int, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(log2 Hz, voicing probability, aperiodicity), each (N,), at the times (N,)."""
    step = max(1, sampling_rate // 8000)
    rate = sampling_rate / step
    window = round(_YIN_WINDOW_S * rate)
    shortest, longest = math.floor(rate / HIGHEST_HZ), math.ceil(rate / LOWEST_HZ)
    length = window + longest + 2

    # low-pass with a triangle (-3 dB near 1 kHz) and thin out: higher harmonics only distract
    width = max(1, round(sampling_rate / 3200))
    kernel = torch.tensor([min(i, 2 * width - i) for i in range(1, 2 * width)], dtype=torch.float32)
    kernel = (kernel / kernel.sum()).to(waveform)
    centre = (window + rate / 125) / 2  # of the samples that a typical lag compares
    first = (math.floor(float(times[0]) * rate) - math.ceil(centre)) * step  # every block on the same grid
    starts = (times * rate - first // step - centre).round().long().clamp_min(0)
    needed = (int(starts[-1]) + length - 1) * step + 1
    piece = padded_slice(waveform, first - width + 1, first + needed + width - 1)
    piece = F.conv1d(piece[None, None], kernel[None, None], stride=step)[0, 0]
    frames = piece.unfold(0, length, 1)[starts.to(piece.device)]
    frames = frames - frames.mean(1, keepdim=True)

    # squared difference for every lag: e(0) + e(lag) - 2 r(lag), correlations by FFT (no lag wraps around)
    size = 2 ** math.ceil(math.log2(length))
    head = torch.fft.rfft(frames[:, :window], size)
    correlation = torch.fft.irfft(head.conj() * torch.fft.rfft(frames, size), size)[:, : longest + 2]
    squares = F.pad(frames.double().square().cumsum(1), (1, 0))
    energy = (squares[:, window:] - squares[:, : length - window + 1])[:, : longest + 2].to(frames)
    difference = (energy[:, :1] + energy - 2 * correlation).clamp_min(0)
    lags = torch.arange(1, longest + 2).to(frames)
    mean = difference[:, 1:].cumsum(1) / lags
    # a little power keeps silence aperiodic instead of undefined
    faint = window * 10 ** ((_AUDIBLE_DB - 20) / 10)
    normalised = F.pad((difference[:, 1:] + faint) / (mean + faint), (1, 0), value=1.0)

    inner = normalised[:, 1:-1]  # lag i + 1 at index i
    dip = (inner <= normalised[:, :-2]) & (inner < normalised[:, 2:])
    dip[:, : shortest - 1] = False
    depth = torch.where(dip, inner, 2.0)
    deepest = depth.amin(1, keepdim=True)
    lag = ((depth <= deepest + _YIN_TOLERANCE) & dip).float().argmax(1) + 1
    aperiodicity = normalised.gather(1, lag[:, None])[:, 0]
    found = deepest[:, 0] < 2
    level = 10 * (energy[:, 0] / window + 1e-10).log10()
    audible = torch.sigmoid((level - _AUDIBLE_DB) / 2)

    def voiced(value: Tensor) -> Tensor:
        return torch.where(found, torch.sigmoid((_VOICED_BELOW - value) / 0.05) * audible, 0)

    # octave errors: where a pitch leaps from its neighbours, the dip nearest to them may be nearly as deep
    octave = (rate / _refine(difference, lag)).log2()
    typical = _running_median(torch.where(voiced(aperiodicity) > 0.5, octave, math.nan))
    leap = (octave - typical).abs() > _LEAP
    near = (torch.log2(rate / lags[:-1]) - typical[:, None]).abs() < 0.25
    other = torch.where(near, depth, 2.0)
    other_depth, other_lag = other.min(1)
    replace = leap & (other_depth < aperiodicity + 0.2)
    lag = torch.where(replace, other_lag + 1, lag)
    aperiodicity = torch.where(replace, other_depth, aperiodicity)
    octave = (rate / _refine(difference, lag)).log2()
    stray = leap & ~replace
    return octave, torch.where(stray, 0.0, voiced(aperiodicity)), torch.where(found, aperiodicity, 1.0)


def _refine(difference: Tensor, lag: Tensor) -> Tensor:
    """The minimum of the parabola through the difference at a lag and its two neighbours."""
    lag = lag.clamp(1, difference.shape[1] - 2)
    before, at, after = (difference.gather(1, lag[:, None] + i)[:, 0] for i in (-1, 0, 1))
    curvature = before - 2 * at + after
    shift = torch.where(curvature > 0, 0.5 * (before - after) / curvature.clamp_min(1e-20), 0.0)
    return lag + shift.clamp(-1, 1)


def _running_median(x: Tensor) -> Tensor:
    """Median of the finite values among +-_NEIGHBOURS; NaN where fewer than three are finite."""
    windows = F.pad(x, (_NEIGHBOURS, _NEIGHBOURS), value=math.nan).unfold(0, 2 * _NEIGHBOURS + 1, 1)
    median = windows.nanmedian(1).values
    return torch.where(windows.isfinite().sum(1) >= 3, median, math.nan)


# ------------------------------------------------------------------------------------------- spectrum


def _bands(waveform: Tensor, sampling_rate: int, fps: float) -> tuple[Tensor, Tensor]:
    """(power in `_NUM_BANDS` bands (T, bands), mean square (T,)), averaged over each frame's columns."""
    num_frames = round(fps * len(waveform) / sampling_rate)
    columns = max(1, round(_COLUMNS_PER_S / fps))
    length = round(_SPECTRUM_WINDOW_S * sampling_rate)
    size = 2 ** math.ceil(math.log2(2 * length))
    window = torch.hann_window(length).to(waveform)
    window = window / window.square().sum().sqrt()
    filters = _band_filters(sampling_rate, size).to(waveform)
    bands, power = waveform.new_zeros(num_frames, _NUM_BANDS), waveform.new_zeros(num_frames)
    for begin in range(0, num_frames, _BLOCK_FRAMES):
        end = min(begin + _BLOCK_FRAMES, num_frames)
        starts = (_column_times(begin, end, fps) * sampling_rate - length / 2).round().long()
        first = int(starts[0])
        piece = padded_slice(waveform, first, int(starts[-1]) + length)
        frames = piece.unfold(0, length, 1)[(starts - first).to(piece.device)] * window
        spectrum = torch.view_as_real(torch.fft.rfft(frames, size)).square().sum(-1) * (2 / size)
        bands[begin:end] = reduce(spectrum @ filters, "(t n) c -> t c", "mean", n=columns)
        power[begin:end] = reduce(frames.square().sum(1), "(t n) -> t", "mean", n=columns)
    return bands, power


def _band_edges(sampling_rate: int) -> Tensor:
    """Corners in octaves re 1 kHz, equally spaced."""
    highest = math.log2(min(7000.0, 0.45 * sampling_rate) / 1000)
    return torch.linspace(math.log2(0.1), highest, _NUM_BANDS + 2)


def _band_octaves(sampling_rate: int) -> Tensor:
    return _band_edges(sampling_rate)[1:-1]


@lru_cache(maxsize=8)
def _band_filters(sampling_rate: int, size: int) -> Tensor:  # (F, bands)
    """Triangles in log frequency."""
    edges = _band_edges(sampling_rate)
    bins = (torch.arange(size // 2 + 1) * sampling_rate / size / 1000).clamp_min(1e-3).log2()
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0)
