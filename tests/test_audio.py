import json

import pytest
import torch

from diffdyad import audio
from diffdyad.audio import ConvGrid, SpeechEncoder, log_mel, resampling_weights
from diffdyad.errors import UserError

BACKBONES = {
    "hubert": ("HubertConfig", "HubertModel"),
    "wav2vec2": ("Wav2Vec2Config", "Wav2Vec2Model"),
    "wavlm": ("WavLMConfig", "WavLMModel"),
}


def save_backbone(folder, kind="hubert", layers=2, do_normalize=True, seed=0, **options):
    """A tiny network with random weights and wav2vec2's true strides."""
    import transformers

    config_class, model_class = BACKBONES[kind]
    config = getattr(transformers, config_class)(
        hidden_size=16, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=24,
        conv_dim=(8,) * 7, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, vocab_size=8,
        feat_extract_norm="layer", **options,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        getattr(transformers, model_class)(config).save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=do_normalize)
    extractor.save_pretrained(folder)
    return str(folder)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.05


# ------------------------------------------------------------------------------------------------ mel


@pytest.mark.parametrize("samples", [0, 1, 319, 321, 640, 16000, 100_000])
def test_frames_follow_seconds(samples):
    features = SpeechEncoder()(noise(2, samples))
    assert features.shape == (2, round(25 * samples / 16000), 1, 256)
    assert SpeechEncoder().num_frames(samples) == features.shape[1]


def test_frame_k_is_centred_at_k_over_fps():
    for frame in (0, 3, 10):
        waveform = torch.zeros(1, 16000)
        waveform[0, frame * 640] = 1.0
        columns = log_mel(waveform).mean(-1)[0]  # (T, 4)
        loud = columns > columns.min() + 1
        # 25 ms windows centred 5 ms before and after the click hear it, those 15 ms away do not
        assert loud[frame].tolist() == [False, True, True, False]
        assert loud.sum() == 2
        # by symmetry they hear it alike (one sample off: a Hann window of even length)
        assert columns[frame, 1] == pytest.approx(float(columns[frame, 2]), abs=0.05)


def test_late_click_moves_to_later_columns():
    waveform = torch.zeros(1, 16000)
    waveform[0, 5 * 640 + 240] = 1.0  # 15 ms after frame 5's centre: under its last column
    columns = log_mel(waveform).mean(-1)[0]
    assert columns.flatten().argmax() == 5 * 4 + 3


def test_a_sine_lands_in_its_band():
    t = torch.arange(16000) / 16000
    to_mel = lambda hz: 2595 * torch.log10(1 + torch.tensor(hz) / 700)  # noqa: E731
    for hz in (120.0, 440.0, 1000.0, 3000.0, 7000.0):
        bands = log_mel(torch.sin(2 * torch.pi * hz * t)[None])[0, 12, 1]
        spacing = (to_mel(7600.0) - to_mel(50.0)) / 65
        assert abs(int(bands.argmax()) - float((to_mel(hz) - to_mel(50.0)) / spacing - 1)) < 0.6
        assert 0.1 < bands.exp().max() < 0.55
        assert 0.25 < bands.exp().sum() < 0.6


def test_every_band_hears_something():
    assert (audio._mel_filters(16000, 64)[1].sum(0) > 0.5).all()
    assert (audio._mel_filters(8000, 64)[1].sum(0) > 0.5).all()


def test_blocks_leave_no_trace(monkeypatch):
    waveform = noise(1, 16000 * 3 + 77)
    whole = log_mel(waveform)
    monkeypatch.setattr(audio, "_BLOCK_COLUMNS", 37)
    assert torch.allclose(log_mel(waveform), whole, atol=1e-4)


def test_other_rates():
    assert SpeechEncoder(fps=50.0)(noise(1, 16000)).shape == (1, 50, 1, 128)
    assert SpeechEncoder(sampling_rate=8000)(noise(1, 8000)).shape == (1, 25, 1, 256)
    with pytest.raises(UserError, match="whole hops"):
        SpeechEncoder(fps=30.0)
    with pytest.raises(ValueError, match=r"\(B, S\)"):
        SpeechEncoder()(noise(16000))


def test_silence_is_finite_and_constant():
    features = SpeechEncoder().encode(torch.zeros(1, 16000))
    assert torch.isfinite(features).all() and features.std() < 1e-5


# -------------------------------------------------------------------------------------------- statistics


def test_statistics_are_the_corpus(tmp_path):
    clips = [noise(n, 1, 256, seed=n) * 40 + 3 for n in (5, 100, 37)]
    encoder = SpeechEncoder().fit(iter(clips))
    together = torch.cat(clips)
    assert torch.allclose(encoder.mean, together.mean(0), atol=1e-5)
    assert torch.allclose(encoder.std, together.std(0, correction=0), atol=1e-5)
    standard = encoder.standardise(together)
    assert standard.mean(0).abs().max() < 1e-5 and (standard.std(0, correction=0) - 1).abs().max() < 1e-4


def test_statistics_do_not_cancel():
    encoder = SpeechEncoder().fit([noise(50, 1, 256, seed=n) + 1e4 for n in range(3)])
    assert encoder.std.min() > 0.03 and encoder.std.max() < 0.07


def test_a_constant_channel_is_left_alone():
    features = noise(100, 1, 256)
    features[..., 7] = 2.0
    encoder = SpeechEncoder().fit([features])
    assert encoder.std[0, 7] == 1 and torch.isfinite(encoder.standardise(features)).all()


def test_fit_refuses():
    with pytest.raises(ValueError, match="at least one frame"):
        SpeechEncoder().fit([])
    with pytest.raises(ValueError, match="finite"):
        SpeechEncoder().fit([torch.full((3, 1, 256), float("nan"))])
    with pytest.raises(ValueError, match="256"):
        SpeechEncoder().fit([torch.zeros(3, 1, 80)])


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
def test_statistics_survive_saving_in_any_dtype(tmp_path, dtype):
    encoder = SpeechEncoder(num_bands=32).fit([noise(100, 1, 128) * 7 + 0.123])
    encoder.save_pretrained(tmp_path)
    loaded = SpeechEncoder.from_pretrained(tmp_path, torch_dtype=dtype)
    for module in (loaded, loaded.to(torch.float16), loaded.half()):
        assert module.mean.dtype == module.std.dtype == torch.float32
        assert torch.equal(module.mean, encoder.mean) and torch.equal(module.std, encoder.std)
    assert torch.equal(loaded(noise(1, 16000)), encoder(noise(1, 16000)))
    assert loaded.config["num_bands"] == 32


# -------------------------------------------------------------------------------- Hugging Face encoders


@pytest.mark.parametrize("kind", list(BACKBONES))
def test_all_layers_of_a_backbone(tmp_path, kind):
    encoder = SpeechEncoder(save_backbone(tmp_path, kind))
    assert (encoder.num_layers, encoder.num_channels) == (3, 16)
    features = encoder(noise(2, 16000 * 2))
    assert features.shape == (2, 50, 3, 16) and torch.isfinite(features).all()
    assert not features.requires_grad
    assert encoder(noise(1, 100)).shape == (1, 0, 3, 16)
    assert encoder(noise(1, 400)).shape == (1, 1, 3, 16)


def test_convolution_grid_is_wav2vec2s(tmp_path):
    import transformers

    grid = ConvGrid.of(transformers.HubertConfig())
    assert (grid.stride, grid.receptive_field) == (320, 400)
    begin, end = grid.samples(10, 20)
    assert (end - begin - grid.receptive_field) // grid.stride + 1 == 10
    assert begin + (grid.receptive_field - 1) / 2 == 10 * 320 - 0.5


@pytest.mark.parametrize("fps", [25.0, 50.0])
def test_backbone_frames_are_aligned(tmp_path, fps):
    encoder = SpeechEncoder(save_backbone(tmp_path, layers=1, do_normalize=False), fps=fps)
    silence = noise(1, 32000) * 0.01
    click = silence.clone()
    click[0, 16000 - 4 : 16000 + 4] += 0.5
    change = (encoder(click) - encoder(silence))[0, :, 0].norm(dim=-1)
    assert int(change.argmax()) == round(fps)
    near = change[round(fps) - 1 : round(fps) + 2]
    assert near.sum() > 0.5 * change.sum()


def test_chunks_leave_no_trace(tmp_path, monkeypatch):
    encoder = SpeechEncoder(save_backbone(tmp_path))
    waveform = noise(1, 16000 * 9)
    whole = encoder(waveform)
    monkeypatch.setattr(audio, "_CHUNK_S", 1.7)
    # before any attention a frame hears less than the margins, so that chunks must agree exactly
    assert torch.allclose(encoder(waveform)[:, :, 0], whole[:, :, 0], atol=1e-4)
    assert (encoder(waveform) - whole).abs().mean() < 0.1 * whole.std()


def test_do_normalize_is_a_constant_gain(tmp_path):
    waveform = noise(1, 16000)
    plain = SpeechEncoder(save_backbone(tmp_path / "a", do_normalize=False))
    gained = SpeechEncoder(save_backbone(tmp_path / "b", do_normalize=True))
    assert torch.allclose(gained(waveform), plain(waveform * 10 ** (26 / 20)), atol=1e-5)


def test_only_name_and_statistics_are_saved(tmp_path):
    from safetensors.torch import load_file

    name = save_backbone(tmp_path / "backbone")
    encoder = SpeechEncoder(name, revision="abc")
    features = encoder.encode(noise(1, 32000))
    encoder.fit([features])
    encoder.save_pretrained(tmp_path / "saved")
    weights = load_file(next((tmp_path / "saved").glob("*.safetensors")))
    assert {key: tuple(value.shape) for key, value in weights.items()} == {"mean": (3, 16), "std": (3, 16)}
    loaded = SpeechEncoder.from_pretrained(tmp_path / "saved", torch_dtype=torch.float16)
    assert loaded.config["name"] == name and loaded.config["revision"] == "abc"
    assert torch.equal(loaded.std, encoder.std)
    assert torch.equal(loaded(noise(1, 32000)), encoder(noise(1, 32000)))


def test_missing_backbone_says_so_on_first_use_only(tmp_path):
    name = save_backbone(tmp_path / "backbone")
    encoder = SpeechEncoder(name)
    encoder.fit([encoder.encode(noise(1, 16000))]).save_pretrained(tmp_path / "saved")
    path = tmp_path / "saved" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "name": "nobody/no-such-encoder"}))
    loaded = SpeechEncoder.from_pretrained(tmp_path / "saved")
    assert (loaded.num_layers, loaded.num_channels) == (3, 16)
    with pytest.raises(UserError, match="nobody/no-such-encoder.*hf download"):
        loaded(noise(1, 16000))


def test_unfit_networks_are_refused(tmp_path):
    import transformers

    transformers.BertConfig(hidden_size=16, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="reads waveforms"):
        SpeechEncoder(str(tmp_path))(noise(1, 16000))
    with pytest.raises(UserError, match="sampling_rate"):
        SpeechEncoder(save_backbone(tmp_path / "b"), sampling_rate=8000)(noise(1, 8000))


def test_encoder_is_frozen_and_copies(tmp_path):
    import copy

    encoder = SpeechEncoder(save_backbone(tmp_path))
    encoder.train()
    first = encoder(noise(1, 16000))
    assert torch.equal(first, encoder(noise(1, 16000)))
    assert torch.equal(first, copy.deepcopy(encoder)(noise(1, 16000)))
    assert not list(encoder.parameters())


def test_resampling_weights():
    times = torch.arange(20, dtype=torch.float64) / 50
    targets = torch.arange(10, dtype=torch.float64) / 25
    weights = resampling_weights(times, targets, 1 / 25)
    assert torch.allclose(weights.sum(1), torch.ones(10, dtype=torch.float64))
    assert torch.allclose((weights @ times)[1:], targets[1:])  # exact on a ramp, away from the ends
    assert weights[5, 9:12].tolist() == pytest.approx([0.25, 0.5, 0.25])
