import math

import torch

from diffdyad.audio import SpeechEncoder
from diffdyad.media import normalise_loudness
from diffdyad.timeline import Timeline
from diffdyad.voice import clip_voice, in_own_voice

BANDS = 8
PRIOR = torch.stack([torch.full((BANDS,), -8.0), torch.full((BANDS,), 1.5)])


def speech(seed=0, frames=200, level=-8.0):
    """Bands at about the level that speech is brought to, and silence before them."""
    generator = torch.Generator().manual_seed(seed)
    loud = level + torch.randn(frames, BANDS, generator=generator)
    return torch.cat([torch.full((50, BANDS), -18.0), loud])


def test_loud_frames_have_zero_mean_and_unit_deviation():
    bands = speech()
    own = in_own_voice(bands[None, :, None], clip_voice(bands)[None])[0, 50:, 0]
    assert torch.allclose(own.mean(0), torch.zeros(BANDS), atol=0.05)
    assert torch.allclose(own.std(0), torch.ones(BANDS), atol=0.05)


def test_a_microphone_makes_no_difference():
    bands = speech()
    # what a filter does to log power, weak enough to leave the same frames loud
    response = torch.linspace(-0.8, 0.8, BANDS)
    plain, filtered = (in_own_voice(x[None, 50:, None], clip_voice(x)[None]) for x in (bands, bands + response))
    assert torch.allclose(plain, filtered, atol=1e-4)
    assert not torch.allclose(bands, bands + response, atol=0.5)


def test_silence_and_room_noise_are_nobodys_voice():
    quiet = torch.full((100, BANDS), -18.0)
    room = -14.0 + 0.1 * torch.randn(100, BANDS, generator=torch.Generator().manual_seed(0))
    for bands in (quiet, room):
        assert clip_voice(bands) is None
        assert torch.equal(clip_voice(bands, PRIOR), PRIOR)


def test_little_speech_is_half_typical():
    bands = speech(frames=25, level=-6.0)
    mean = clip_voice(bands, PRIOR)[0]
    own = clip_voice(bands)[0]
    assert torch.allclose(mean, (own + PRIOR[0]) / 2, atol=1e-4)


def test_values_are_bounded():
    silent = torch.full((1, 3, 1, 2 * BANDS), math.log(1e-8))
    assert torch.equal(in_own_voice(silent, PRIOR[None]), torch.full_like(silent, -4.0))


def test_a_window_of_an_answer_is_as_of_the_whole():
    encoder = SpeechEncoder(num_bands=16, normalise_voice=True)
    generator = torch.Generator().manual_seed(0)
    audio = 0.1 * torch.randn(16000 * 4, generator=generator) * (torch.arange(64000) % 8000 < 5000)
    timeline = Timeline(encoder, audio, 0)
    whole = encoder(normalise_loudness(audio, 16000)[None])
    part, _ = timeline.speech(30, 20)
    assert torch.allclose(part, whole[:, 30:50], atol=1e-4)


def test_fit_keeps_the_typical_voice_and_it_is_saved(tmp_path):
    encoder = SpeechEncoder(num_bands=BANDS, normalise_voice=True)
    columns = encoder.num_channels // BANDS
    clips = [speech(seed, level=level).repeat(1, columns)[:, None] for seed, level in ((0, -8.0), (1, -7.0))]
    encoder.fit(clips)
    assert torch.allclose(encoder.voice[0], torch.full((BANDS,), -7.5), atol=0.2)
    encoder.save_pretrained(tmp_path)
    again = SpeechEncoder.from_pretrained(tmp_path)
    assert again.config["normalise_voice"] and torch.equal(again.voice, encoder.voice)
