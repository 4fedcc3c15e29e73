from pathlib import Path

import pytest
import torch

from diffdyad import prosody as prosody_module
from diffdyad.media import read_audio
from diffdyad.prosody import PROSODY_CHANNELS, estimate_pitch, prosody

VOICES = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "speech"
RATE = 16000


def channel(features, name):
    return features[:, PROSODY_CHANNELS.index(name)]


def glide(low, high, seconds=4.0):
    """(phase at every sample, true f0 of every frame at 25 fps)"""
    t = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    phase = 2 * torch.pi * (low * (high / low) ** (t / seconds)).cumsum(0) / RATE
    frames = torch.arange(round(25 * seconds), dtype=torch.float64) / 25
    return phase, low * (high / low) ** (frames / seconds)


def harmonics(phase, f0, weights):
    """Sum of sines; harmonics above 7 kHz are left out."""
    return sum(
        w * torch.sin(k * phase + 0.7 * k) for k, w in enumerate(weights, start=1) if k * float(f0.max()) < 7000
    ).float()


SOUNDS = {
    "sine": [1.0],
    "sawtooth": [1 / k for k in range(1, 40)],
    "faint fundamental": [0.05] + [1 / k for k in range(2, 40)],
    "strong second": [0.5, 2.0] + [1 / k for k in range(3, 40)],
    "strong third": [0.5, 0.3, 2.0] + [1 / k for k in range(4, 40)],
}


@pytest.mark.parametrize("sound", list(SOUNDS))
@pytest.mark.parametrize("low, high", [(75, 240), (240, 75), (180, 480), (65, 65), (110, 110)])
def test_pitch_of_glides(sound, low, high):
    phase, f0 = glide(low, high)
    pitch = estimate_pitch(0.1 * harmonics(phase, f0, SOUNDS[sound]))
    inner = slice(3, -3)
    assert (pitch.voicing[inner] > 0.9).all()
    assert (pitch.f0_hz[inner] / f0[inner] - 1).abs().max() < 0.01


def synthetic_voice(f0_hz, seconds=2.0, seed=0):
    """Pulses through three formants, with jitter and breath noise."""
    generator = torch.Generator().manual_seed(seed)
    n = round(seconds * RATE)
    jitter = torch.randn(n // 160 + 1, generator=generator).repeat_interleave(160)[:n] * 0.005
    phase = (f0_hz * (1 + jitter.double()) / RATE).cumsum(0)
    pulses = torch.diff(phase.floor(), prepend=torch.zeros(1, dtype=torch.float64)).float()
    spectrum = torch.fft.rfft(pulses + 0.003 * torch.randn(n, generator=generator))
    hz = torch.fft.rfftfreq(n, 1 / RATE)
    for centre, width in ((600.0, 90.0), (1200.0, 120.0), (2500.0, 200.0)):
        spectrum = spectrum / (1 - (hz / centre) ** 2 + 1j * hz * width / centre**2)
    sound = torch.fft.irfft(spectrum, n)
    return sound / sound.square().mean().sqrt() * 0.05


@pytest.mark.parametrize("f0_hz", [85.0, 120.0, 200.0, 300.0])
def test_no_octave_errors_on_a_voice(f0_hz):
    f0 = estimate_pitch(synthetic_voice(f0_hz)).f0_hz[3:-3]
    assert (f0 > 0).float().mean() > 0.95
    octaves = (f0[f0 > 0] / f0_hz).log2()
    assert (octaves.abs() > 0.4).float().mean() < 0.01
    assert octaves.median().abs() < 0.02


def test_noise_and_silence_have_no_pitch():
    noise = torch.randn(RATE * 4, generator=torch.Generator().manual_seed(0)) * 0.05
    assert (estimate_pitch(noise).f0_hz > 0).float().mean() < 0.02
    for silent in (torch.zeros(RATE), noise * 1e-5):
        features = prosody(silent)
        assert torch.isfinite(features).all()
        assert (channel(features, "pitch") == 0).all() and (channel(features, "voicing") < 0.01).all()
        assert channel(features, "energy") == pytest.approx(-40.0, abs=0.5)
        assert channel(features, "harmonicity") == pytest.approx(-10.0, abs=0.1)


@pytest.mark.parametrize("samples", [0, 1, 321, 700, 16001])
@pytest.mark.parametrize("rate, fps", [(16000, 25.0), (8000, 25.0), (44100, 30.0), (16000, 5.0)])
def test_shapes(samples, rate, fps):
    features = prosody(torch.ones(samples) * 0.1, rate, fps)
    assert features.shape == (round(fps * samples / rate), 8) and len(PROSODY_CHANNELS) == 8
    assert torch.isfinite(features).all()


def test_extreme_input_is_finite():
    for waveform in (torch.ones(RATE), 50 * torch.randn(RATE), torch.eye(1, RATE)[0]):
        assert torch.isfinite(prosody(waveform)).all()


def test_frames_are_centred_at_k_over_fps():
    burst = torch.zeros(RATE * 2)
    burst[RATE - 80 : RATE + 80] = 0.3 * torch.randn(160, generator=torch.Generator().manual_seed(0))
    energy = channel(prosody(burst), "energy")
    assert energy.argmax() == 25
    assert energy[24] == pytest.approx(-40, abs=0.1) and energy[26] == pytest.approx(-40, abs=0.1)


def test_gain_is_forgotten():
    voice = torch.cat([synthetic_voice(f0, 1.5, seed) for seed, f0 in enumerate((110.0, 140.0, 120.0, 100.0) * 2)])
    t = torch.arange(len(voice)) / RATE
    voice = voice * (torch.sin(2 * torch.pi * 3 * t) > -0.5)  # syllables, with gaps between them
    reference = prosody(voice)[-75:]
    for gain_db in (-10, 10):
        other = prosody(voice * 10 ** (gain_db / 20))[-75:]
        assert (other - reference)[:, 2].abs().max() < 1.0  # dB
        assert (other - reference)[:, 0].abs().max() < 0.3  # semitones


def test_pitch_is_relative_to_the_speaker_so_far():
    for f0 in (90.0, 220.0):  # both voices rise by four semitones after a while
        sound = torch.cat([synthetic_voice(f0, 4.0), synthetic_voice(f0 * 2 ** (4 / 12), 1.0)])
        pitch = channel(prosody(sound), "pitch")
        assert pitch[60:95].mean() == pytest.approx(0.0, abs=0.8)
        assert pitch[103:108].mean() == pytest.approx(4.0, abs=0.9)


def test_what_comes_later_changes_nothing_early():
    sound = synthetic_voice(120.0, 4.0)
    other = sound.clone()
    other[2 * RATE :] = 3 * synthetic_voice(300.0, 2.0)
    changed = (prosody(sound) - prosody(other)).abs().amax(1) > 1e-4
    assert int(changed.nonzero()[0, 0]) >= 50 - 4  # 0.13 s ahead at most


def test_louder_brighter_faster():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(RATE * 3, generator=generator) * 0.05
    t = torch.arange(RATE * 3) / RATE
    dull = torch.nn.functional.avg_pool1d(noise[None, None], 16, 1, 8)[0, 0, : len(t)] * 4
    assert channel(prosody(dull), "spectral_tilt").mean() < channel(prosody(noise), "spectral_tilt").mean() - 3
    assert channel(prosody(dull), "spectral_centroid").mean() < channel(prosody(noise), "spectral_centroid").mean() - 1
    slow, fast = (noise * (torch.sin(2 * torch.pi * hz * t) > 0) for hz in (1.5, 5.0))
    assert channel(prosody(fast), "spectral_flux").mean() > 1.5 * channel(prosody(slow), "spectral_flux").mean()
    growing = prosody(noise * torch.linspace(-30, 0, len(t)).div(20).mul(2.302585).exp())
    assert channel(growing, "energy_slope")[-30:-3].mean() > 3
    breathy = synthetic_voice(150.0) + 0.05 * torch.randn(2 * RATE, generator=generator)
    clear = synthetic_voice(150.0)
    assert channel(prosody(breathy), "harmonicity").mean() < channel(prosody(clear), "harmonicity").mean() - 3


def test_blocks_leave_no_trace(monkeypatch):
    sound = synthetic_voice(120.0, 3.0)
    whole = prosody(sound)
    monkeypatch.setattr(prosody_module, "_BLOCK_FRAMES", 7)
    assert torch.allclose(prosody(sound), whole, atol=1e-3)


@pytest.mark.skipif(not VOICES.is_dir(), reason="real voices: ../shared/data/speech is absent")
@pytest.mark.parametrize(
    "name, low, high",
    [("LJ002-0020.wav", 150, 280), ("Claire_sadness.wav", 140, 210), ("2412-153948-0000.flac", 170, 260)],
)
def test_real_voices(name, low, high):
    waveform = read_audio(VOICES / name)
    features = prosody(waveform)
    pitch = estimate_pitch(waveform)
    voiced = pitch.f0_hz[pitch.f0_hz > 0]
    assert torch.isfinite(features).all()
    assert 0.25 < (pitch.f0_hz > 0).float().mean() < 0.85
    assert low < voiced.median() < high
    steps = pitch.f0_hz.log2().diff().abs()
    assert (steps[torch.isfinite(steps)] > 0.8).float().mean() < 0.03  # octave leaps
