"""Rooms, microphones and noise: nothing is delayed, levels are as asked, the same seed gives the same bytes."""

from dataclasses import replace

import numpy as np
import pytest

from diffdyad.data.rehearsal.acoustics import (
    NOISES,
    Channel,
    active_level,
    apply_channel,
    augment,
    compress,
    convolve,
    draw_channel,
    mu_law,
    noise_at,
    room_response,
)
from diffdyad.data.rehearsal.signals import SAMPLING_RATE, noise_excited, root_mean_square

RATE = SAMPLING_RATE


def speech_like(seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    """Noise in syllables of 4 Hz with pauses: a level that moves as speech does."""
    generator = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.1 * generator.standard_normal(len(time)) * np.maximum(0, np.sin(2 * np.pi * 4 * time))).astype(np.float32)


def lag(a: np.ndarray, b: np.ndarray) -> int:
    """Samples by which b comes after a."""
    length = 1 << (len(a) * 2).bit_length()
    correlation = np.fft.irfft(np.conj(np.fft.rfft(a, length)) * np.fft.rfft(b, length))
    best = int(np.argmax(np.abs(correlation)))
    return best - length if best > length // 2 else best


def test_same_seed_same_bytes():
    x = speech_like()
    one, two = (augment(x, np.random.default_rng(5)).tobytes() for _ in range(2))
    assert one == two != augment(x, np.random.default_rng(6)).tobytes()


@pytest.mark.parametrize("rt60", [0.05, 0.3, 0.9])
def test_direct_path_stands_at_zero(rt60):
    response = room_response(rt60, 3.0, np.random.default_rng(1))
    assert response[0] == 1 == np.abs(response).max()
    x = speech_like()
    assert lag(x, convolve(x, response)) == 0


def test_reverberation_is_as_asked():
    for direct in (0.0, 10.0):
        response = room_response(0.6, direct, np.random.default_rng(2)).astype(np.float64)
        assert -10 * np.log10(np.sum(response[1:] ** 2)) == pytest.approx(direct, abs=0.01)
    left = np.cumsum(response[:0:-1] ** 2)[::-1]  # Schroeder's backward integral
    level = 10 * np.log10(left / left[0])
    reached = [np.argmax(level < d) / RATE for d in (-10, -30)]
    assert 3 * (reached[1] - reached[0]) == pytest.approx(0.6, rel=0.25)


def test_nothing_is_delayed():
    x = speech_like()
    for seed in range(40):
        generator = np.random.default_rng(seed)
        channel = replace(draw_channel(generator, 1.0), gain_db=0.0)
        if channel.rt60_s > 0:
            channel = replace(channel, direct_db=max(channel.direct_db, 6.0))
        channel = replace(channel, snr_db=max(channel.snr_db, 15.0))
        y = apply_channel(x, channel, generator)
        assert y.shape == x.shape and y.dtype == np.float32 and np.isfinite(y).all() and np.abs(y).max() <= 1
        assert abs(lag(x, y)) <= 1, channel


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("snr", [5.0, 25.0])
def test_noise_ratio_is_as_asked(kind, snr):
    x = speech_like()
    noise = noise_at(x, snr, kind, np.random.default_rng(0), [speech_like(seed=9)])
    assert 20 * np.log10(active_level(x) / root_mean_square(noise)) == pytest.approx(snr, abs=0.01)


def test_noise_spectra_fall_as_named():
    slopes = {}
    for kind in ("white", "pink", "brown"):
        noise = noise_at(speech_like(8.0), 0.0, kind, np.random.default_rng(3))
        power = np.abs(np.fft.rfft(noise)) ** 2
        hz = np.fft.rfftfreq(len(noise), 1 / RATE)
        low, high = (power[(hz > a) & (hz < 2 * a)].mean() for a in (200, 3200))
        slopes[kind] = 10 * np.log10(high / low) / 4  # dB per octave
    assert slopes["white"] == pytest.approx(0, abs=0.7)
    assert slopes["pink"] == pytest.approx(-3, abs=0.7)
    assert slopes["brown"] == pytest.approx(-6, abs=0.7)


def test_telephone_keeps_its_band_only():
    x = (0.1 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
    y = apply_channel(x, Channel(codec="telephone", low_hz=300, high_hz=3400), np.random.default_rng(0))
    hz = np.fft.rfftfreq(len(x), 1 / RATE)
    power = np.abs(np.fft.rfft(y)) ** 2
    inside = power[(hz > 600) & (hz < 2800)].mean()
    assert power[hz > 4200].mean() < 1e-4 * inside and power[(hz > 1) & (hz < 100)].mean() < 1e-2 * inside


def test_identity_channel_changes_nothing_but_the_last_bit():
    x = speech_like()
    assert np.abs(apply_channel(x, Channel(), np.random.default_rng(0)) - x).max() < 2 / 32767


def test_gain_is_as_asked():
    x = speech_like()
    y = apply_channel(x, Channel(gain_db=-12.0), np.random.default_rng(0))
    assert 20 * np.log10(root_mean_square(y) / root_mean_square(x)) == pytest.approx(-12, abs=0.05)


def test_compression_narrows_the_range():
    x = np.concatenate([speech_like(), 0.1 * speech_like(seed=1)])
    before = root_mean_square(x[: 2 * RATE]) / root_mean_square(x[2 * RATE :])
    y = compress(x, 2.0)
    after = root_mean_square(y[: 2 * RATE]) / root_mean_square(y[2 * RATE :])
    assert 20 * np.log10(after) == pytest.approx(10 * np.log10(before), abs=2)


def test_mu_law_is_fine_where_it_is_quiet():
    x = np.linspace(-1, 1, 2001).astype(np.float32)
    error = np.abs(mu_law(x) - x)
    assert error.max() < 0.03 and error[np.abs(x) < 0.01].max() < 0.001


def test_silence_stays_quiet():
    y = apply_channel(
        np.zeros(RATE, np.float32), Channel(rt60_s=0.4, drive_db=3.0, codec="mu-law"), np.random.default_rng(0)
    )
    assert np.abs(y).max() < 1e-3


def test_severity_zero_is_clean():
    x = speech_like()
    for seed in range(10):
        channel = draw_channel(np.random.default_rng(seed), 0.0)
        assert channel.rt60_s == 0 and channel.snr_db == float("inf") and channel.codec == "none"
        y = apply_channel(x, channel, np.random.default_rng(0))
        assert np.corrcoef(x, y)[0, 1] > 0.99


def test_one_channel_can_be_kept():
    channel = draw_channel(np.random.default_rng(3), 1.0)
    channel = replace(channel, snr_db=float("inf"), codec="none")
    a, b = (apply_channel(speech_like(), channel, np.random.default_rng(s)) for s in (0, 1))
    assert np.abs(a - b).max() < 2 / 32767  # the room is the set-up's, only the last bit is the take's


def test_noise_excitation_keeps_time_and_level():
    x = speech_like(4.0)
    y = noise_excited(x, np.random.default_rng(0))
    envelope = [np.convolve(v**2, np.ones(800) / 800, mode="same") for v in (x, y)]
    assert (
        np.corrcoef(*envelope)[0, 1] > 0.8
        and abs(lag(envelope[0] - envelope[0].mean(), envelope[1] - envelope[1].mean())) < 80
    )
    assert 0.6 < root_mean_square(y) / root_mean_square(x) < 1.5


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="severity"):
        draw_channel(np.random.default_rng(0), 2.0)
    with pytest.raises(ValueError, match="waveform"):
        augment(np.zeros((2, 100), np.float32), np.random.default_rng(0))
    with pytest.raises(ValueError, match="noise"):
        noise_at(speech_like(), 10.0, "green", np.random.default_rng(0))
