import json

import pytest
import torch

from diffdyad.affect import AffectEncoder, FaceAffectEncoder, ImageRecipe
from diffdyad.errors import UserError
from diffdyad.media import LOUDNESS_TARGET_DB


def edit_weights(folder, change):
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def save_speech_classifier(folder, kind="Wav2Vec2", weighted=False, do_normalize=True):
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, classifier_proj_size=12, num_labels=4,
        feat_extract_norm="layer", use_weighted_layer_sum=weighted, vocab_size=8,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        getattr(transformers, f"{kind}ForSequenceClassification")(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=do_normalize).save_pretrained(folder)
    return folder


def save_face_classifier(folder, kind="ViT"):
    import transformers

    if kind == "ViT":
        config = transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=32,
            patch_size=8, num_labels=7,
        )  # fmt: skip
    else:
        config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=7)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        getattr(transformers, f"{kind}ForImageClassification")(config).save_pretrained(folder)
    recipe = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(
        json.dumps({**recipe, "do_resize": True, "do_normalize": True, "image_processor_type": "ViTImageProcessor"})
    )
    return folder


def noise(samples, seed=0):
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.05


def other_classifier(weights):
    touched = [key for key in weights if key.startswith("classifier")]
    assert touched
    return {key: torch.randn_like(w) * 9 if key in touched else w for key, w in weights.items()}


@pytest.mark.parametrize("kind", ["Wav2Vec2", "Hubert", "WavLM"])
@pytest.mark.parametrize("weighted", [False, True])
def test_labels_have_no_say(tmp_path, kind, weighted):
    folder = save_speech_classifier(tmp_path, kind, weighted)
    first = AffectEncoder(str(folder)).encode(noise(32000))
    assert first.features.shape == (10, 12) and first.pooled.shape == (12,)
    assert first.features.std(0).max() > 0 and not first.features.requires_grad
    edit_weights(folder, other_classifier)
    second = AffectEncoder(str(folder)).encode(noise(32000))
    assert torch.equal(first.features, second.features) and torch.equal(first.pooled, second.pooled)


def test_features_are_what_the_classifier_would_see(tmp_path):
    import transformers

    folder = save_speech_classifier(tmp_path, do_normalize=False)
    features = AffectEncoder(str(folder)).encode(noise(32000)).features[-1]
    model = transformers.Wav2Vec2ForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        assert torch.allclose(model.classifier(features), model(noise(32000)[None]).logits[0], atol=1e-5)


def test_tokens_hear_their_past_only(tmp_path):
    encoder = AffectEncoder(str(save_speech_classifier(tmp_path)))
    waveform = noise(48000)
    other = waveform.clone()
    other[20000:] = noise(28000, 1)
    first, second = encoder.encode(waveform), encoder.encode(other)
    assert first.times_s.tolist() == pytest.approx([0.2 * (i + 1) for i in range(15)])
    before = first.times_s <= 20000 / 16000
    same = (first.features - second.features).abs().amax(1) < 1e-5
    assert same[before].all() and not same[~before].any()


def test_short_and_empty(tmp_path):
    encoder = AffectEncoder(str(save_speech_classifier(tmp_path)))
    short = encoder.encode(noise(1000))
    assert short.features.shape == (1, 12) and short.times_s.tolist() == [1000 / 16000]
    for bad in (torch.zeros(0), torch.zeros(2, 16000)):
        with pytest.raises(ValueError, match="at least one sample"):
            encoder.encode(bad)
    with pytest.raises(ValueError, match="44100"):
        encoder.encode(noise(44100), 44100)


def test_normalisation_is_a_constant_gain(tmp_path):
    plain = AffectEncoder(str(save_speech_classifier(tmp_path / "a", do_normalize=False)))
    gained = AffectEncoder(str(save_speech_classifier(tmp_path / "b", do_normalize=True)))
    scaled = plain.encode(noise(16000) * 10 ** (-LOUDNESS_TARGET_DB / 20))
    assert torch.allclose(gained.encode(noise(16000)).features, scaled.features, atol=1e-5)


def test_an_untrained_projector_is_bypassed(tmp_path):
    folder = save_speech_classifier(tmp_path)
    edit_weights(folder, lambda w: {k: v for k, v in w.items() if not k.startswith("projector")})
    first = AffectEncoder(str(folder)).encode(noise(16000)).features
    assert first.shape == (5, 16)
    assert torch.equal(first, AffectEncoder(str(folder)).encode(noise(16000)).features)


def test_untrained_backbones_are_refused(tmp_path):
    folder = save_speech_classifier(tmp_path / "a")
    edit_weights(folder, lambda w: {k: v for k, v in w.items() if "layers.1" not in k})
    with pytest.raises(UserError, match="missing"):
        AffectEncoder(str(folder)).encode(noise(16000))
    with pytest.raises(UserError, match="nobody/nothing"):
        AffectEncoder("nobody/nothing").encode(noise(16000))
    with pytest.raises(UserError, match="reads waveforms"):
        AffectEncoder(str(save_face_classifier(tmp_path / "b"))).encode(noise(16000))


def test_frozen(tmp_path):
    encoder = AffectEncoder(str(save_speech_classifier(tmp_path)))
    encoder.encode(noise(16000))
    model = encoder._parts.get(None)[0]
    assert not model.training and not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("kind, channels", [("ViT", 16), ("ResNet", 16)])
def test_faces_without_labels(tmp_path, kind, channels):
    folder = save_face_classifier(tmp_path, kind)
    images = (torch.rand(3, 3, 48, 40, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    first = FaceAffectEncoder(str(folder)).encode(images)
    assert first.shape == (3, channels) and not torch.allclose(first[0], first[1])
    edit_weights(folder, other_classifier)
    assert torch.equal(FaceAffectEncoder(str(folder)).encode(images), first)
    as_floats = FaceAffectEncoder(str(folder)).encode(images / 255)
    assert torch.allclose(as_floats, first, atol=1e-5)
    with pytest.raises(ValueError, match="RGB"):
        FaceAffectEncoder(str(folder)).encode(images[:, :1])


def test_image_recipe():
    images = torch.full((1, 3, 40, 80), 255, dtype=torch.uint8)
    plain = ImageRecipe(resize=20, crop=(16, 16), mean=[0.5] * 3, std=[0.25] * 3)(images)
    assert plain.shape == (1, 3, 16, 16)
    assert torch.allclose(plain, torch.full_like(plain, 2.0))
    assert ImageRecipe(resize=(8, 12), crop=None, mean=None, std=None)(images).shape == (1, 3, 8, 12)
    edge = torch.zeros(1, 3, 10, 10)
    edge[..., 5:] = 1  # the right half
    assert ImageRecipe(None, (10, 4), None, None)(edge)[0, 0, 0].tolist() == [0, 0, 1, 1]
