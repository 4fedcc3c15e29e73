import itertools

import numpy as np
import pytest
import torch
from conftest import SHARED_DATA

from diffdyad import phones
from diffdyad.audio import SpeechEncoder
from diffdyad.data.disguise import Disguise, disguised
from diffdyad.errors import UserError
from diffdyad.media import normalise_loudness, read_audio
from diffdyad.phones import PhoneModel, phone_model, phone_posteriors
from diffdyad.timeline import Timeline

VOICES = SHARED_DATA / "speech"

pytest.importorskip("pocketsphinx", reason="pocketsphinx carries the acoustic model")


def buzz(seconds, seed=0):
    """A voice of a kind: a pulse train through resonances that move, and pauses."""
    generator = torch.Generator().manual_seed(seed)
    count = round(seconds * 16000)
    pulses = torch.zeros(count)
    pulses[::130] = 1.0
    filters = torch.randn(int(seconds * 5) + 1, 200, generator=generator) * torch.exp(-torch.arange(200) / 30)
    pieces = [torch.nn.functional.conv1d(piece[None, None], row[None, None], padding=100)[0, 0][: len(piece)]
              for piece, row in zip(pulses.split(3200), filters)]  # fmt: skip
    return 0.1 * torch.cat(pieces) + 1e-4 * torch.randn(count, generator=generator)


# ----------------------------------------------------------------------------------------- posteriors


def test_posteriors_are_those_of_all_paths():
    generator = torch.Generator().manual_seed(0)
    likelihoods = torch.randn(1, 4, 2, 3, generator=generator) * 8  # four moments, two phones of three states
    found = phones._posteriors(likelihoods)[0]

    def moves(a, b):  # from (phone, state) to (phone, state)
        if a == b:
            return phones._STAY
        if a[0] == b[0] and b[1] == a[1] + 1:
            return 1 - phones._STAY
        return (1 - phones._STAY) / 2 if a[1] == 2 and b[1] == 0 else 0.0

    states = list(itertools.product(range(2), range(3)))
    # a state with its own first state after its last: both stay and go
    total = np.zeros((4, 2))
    for path in itertools.product(states, repeat=4):
        chance = np.prod([moves(a, b) for a, b in itertools.pairwise(path)])
        # what the model does at the first moment is a step from anywhere
        chance *= sum(moves(a, path[0]) for a in states)
        for moment, (phone, state) in enumerate(path):
            chance *= np.exp(phones._TEMPERATURE * float(likelihoods[0, moment, phone, state]))
        for moment, (phone, _) in enumerate(path):
            total[moment, phone] += chance
    assert np.allclose(found.numpy(), total / total.sum(1, keepdims=True), atol=1e-6)


def test_likelihoods_are_those_of_the_mixtures():
    from scipy.special import logsumexp
    from scipy.stats import norm

    folder = phones.importlib.util.find_spec("pocketsphinx").origin
    folder = phones.Path(folder).parent / "model" / "en-us" / "en-us"
    means, variances = phones._parameters(folder / "means"), phones._parameters(folder / "variances")
    cepstra = 5 * torch.randn(8, 13, generator=torch.Generator().manual_seed(0))
    model = phone_model()
    found = model.log_likelihoods(cepstra)
    assert found.shape == (2, 42, 3)
    c = cepstra.numpy()
    at, phone, state = 4, model.names.index("M"), 1
    streams = (c[at], c[at + 2] - c[at - 2], (c[at + 3] - c[at - 1]) - (c[at + 1] - c[at - 3]))
    wanted = 0.0
    for stream, x in enumerate(streams):
        spread = np.sqrt(np.maximum(variances[phone, stream], 1e-4))
        density = norm.logpdf(x, means[phone, stream], spread).sum(-1)
        wanted += logsumexp(density, b=model.weights[stream, phone, :, state].numpy())
    assert float(found[1, phone, state]) == pytest.approx(wanted, rel=1e-4)


def test_sums_length_and_silence():
    found = phone_posteriors(normalise_loudness(buzz(3.0)))
    assert found.shape == (300, 42) and torch.allclose(found.sum(1), torch.ones(300))
    silence = phone_model().silence
    assert (phone_posteriors(torch.zeros(8000))[:, silence] == 1).all()
    assert phone_posteriors(torch.zeros(0)).shape == (0, 42)
    # a click is no voice
    click = torch.zeros(16000)
    click[8000:8100] = 0.3
    assert (phone_posteriors(click)[:, silence] == 1).all()


def test_later_sound_gives_later_phones_and_level_does_not_matter():
    voice = buzz(4.0)
    plain = phone_posteriors(voice)
    later = phone_posteriors(torch.cat([torch.zeros(1600), voice]))[10:]
    louder = phone_posteriors(1.7 * voice)
    middle = slice(60, 340)
    assert (plain - later)[middle].abs().mean() < 0.01
    assert (plain - louder)[middle].abs().mean() < 0.001
    assert plain[middle].max(1).values.mean() > 0.3  # it does say something


def test_pieces_join_without_seams():
    voice = buzz(9.0)
    whole = phone_posteriors(voice)
    # the same voice in pieces that lie elsewhere
    other = phone_posteriors(torch.cat([torch.zeros(16000), voice]))[100:]
    assert (whole - other)[100:800].abs().max() < 0.2 and (whole - other)[100:800].abs().mean() < 0.005


def test_how_much_is_looked_at_at_once_does_not_matter(monkeypatch):
    sound = buzz(9)
    whole = phone_posteriors(sound)
    for name, few in (("_SPECTRA", 37), ("_DENSITIES", 11), ("_TOGETHER", 1)):
        monkeypatch.setattr(phones, name, few)
    assert torch.allclose(phone_posteriors(sound), whole, atol=1e-5)


@pytest.mark.skipif(not VOICES.is_dir(), reason="real voices: ../shared/data/speech is absent")
def test_lips_that_real_people_shut():
    # m, b and p by forced alignment: "me", "my", "nothing of my antecedents", ...
    times = ((1.68, 1.74), (3.06, 3.12), (5.09, 5.14), (6.03, 6.10), (6.63, 6.69), (8.97, 9.00), (9.81, 9.88),
             (10.02, 10.09), (10.49, 10.53))  # fmt: skip
    found = phone_posteriors(normalise_loudness(read_audio(VOICES / "2412-153948-0000.flac")))
    names = phone_model().names
    shut = found[:, [names.index(name) for name in ("M", "B", "P")]].sum(1)
    moments = torch.arange(len(shut)) / 100
    inside = torch.stack([(moments > a) & (moments < b) for a, b in times]).any(0)
    near = torch.stack([(moments > a - 0.05) & (moments < b + 0.05) for a, b in times]).any(0)
    # of a moment inside and one far from all of them, the first has the larger chance
    assert float((shut[inside][:, None] > shut[~near][None]).float().mean()) > 0.9


# --------------------------------------------------------------------------------------------- files


def test_damaged_or_absent_models_are_told(tmp_path, monkeypatch):
    source = phones.Path(phones.importlib.util.find_spec("pocketsphinx").origin).parent / "model" / "en-us" / "en-us"
    for name in ("means", "variances", "mdef", "sendump"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    assert PhoneModel.from_folder(tmp_path).names == phone_model().names
    for name in ("means", "mdef", "sendump"):
        kept = (tmp_path / name).read_bytes()
        for damage in (b"", kept[:60], b"\0" * 200, kept[: len(kept) // 2], b"\xff" * 400):
            (tmp_path / name).write_bytes(damage)
            if name == "mdef" and damage == kept[: len(kept) // 2]:
                continue  # its names come first
            with pytest.raises(UserError, match="expected an acoustic model of pocketsphinx"):
                PhoneModel.from_folder(tmp_path)
        (tmp_path / name).write_bytes(kept)
    phone_model.cache_clear()
    monkeypatch.setattr(phones.importlib.util, "find_spec", lambda name: None)
    try:
        with pytest.raises(UserError, match="pip install pocketsphinx"):
            phone_model()
    finally:
        phone_model.cache_clear()


# ------------------------------------------------------------------------------------------ features


def test_features_are_bands_and_phones():
    voice = normalise_loudness(buzz(3.0))[None]
    plain, with_phones = SpeechEncoder(), SpeechEncoder(phones=True, normalise_voice=True)
    assert with_phones.num_channels == 4 * (64 + 42)
    features = with_phones.encode(voice)
    assert features.shape == (1, 75, 1, 424)
    spectrum, told = with_phones.split(features)
    assert torch.equal(spectrum, plain.encode(voice)) and torch.equal(with_phones.encode(voice, phones=False), spectrum)
    assert float(told.min()) > -1.31 and float(told.max()) <= 1
    chances = (4 * (told.unflatten(-1, (4, 42)) - 1)).exp()
    assert torch.allclose(chances.sum(-1), torch.ones(1, 75, 1, 4), atol=0.01)
    # column n of frame k: 4 k - 2 + n hundredths
    assert torch.allclose(chances[0, 10, 0], phone_posteriors(voice[0])[38:42].clamp_min(1e-4), atol=1e-5)
    with_phones.fit([features[0]])
    standard = with_phones(voice)
    assert torch.equal(with_phones.split(standard)[1], told)  # as they are
    disguise = Disguise(warp=0.1, mask=0.2).draw(torch.Generator().manual_seed(0))[None]
    assert not torch.equal(disguised(with_phones.split(standard)[0], disguise, 64), with_phones.split(standard)[0])


def test_windows_hear_what_the_whole_answer_says():
    encoder = SpeechEncoder(phones=True, normalise_voice=True)
    voice = buzz(8.0)
    encoder.fit([encoder.encode(normalise_loudness(voice)[None])[0]])
    timeline = Timeline(encoder, voice, 10)
    told = encoder.split(encoder.encode(timeline.waveform[None]))[1]
    for start in (0, 57, 150):
        features, heard = timeline.speech(start, 80)
        there = heard[0]
        assert features.shape[-1] == 424
        assert torch.equal(encoder.split(features)[1][0, there], told[0, start : start + int(there.sum())])


def test_only_mel_at_16_khz_has_phones():
    with pytest.raises(UserError, match="16000 Hz for phones"):
        SpeechEncoder(phones=True, sampling_rate=8000)
    with pytest.raises(UserError, match="phones with the speech encoder mel alone"):
        SpeechEncoder("some/encoder", phones=True)
