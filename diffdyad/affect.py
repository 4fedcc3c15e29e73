"""Features of emotion classifiers with the classifier removed: what they hear or see, not which label it gets.

Any wav2vec2-style audio classifier, and any image classifier (facial expressions), from a folder or the Hub.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffdyad.errors import UserError
from diffdyad.media import LOUDNESS_TARGET_DB, padded_slice
from diffdyad.pretrained import Lazy, load_pretrained

_BATCH = 16


@dataclass
class AffectFeatures:
    """Penultimate features of overlapping windows, each at the time its window ends."""

    features: Tensor  # (N, C)
    times_s: Tensor  # (N,) float64, from the waveform's start
    pooled: Tensor  # (C,) mean over the windows, weighted by how much of each is sound and not padding


class AffectEncoder:
    """A frozen speech-emotion network without its classifier.

    name, revision: an audio classifier for transformers (wav2vec2, hubert, wavlm, ...) that reads waveforms.
    Its features are what its classifier would have seen: the mean over time of the projected states.
    A checkpoint with a head of its own kind leaves the projector untrained; it is then bypassed, and
    the features are the mean of the backbone's last states. Loaded on first use; UserError when not found.

    Waveforms are expected to be loudness-normalised (`media.normalise_loudness`). A window ends at its token's
    time, so that nothing later than a token is ever in it.
    """

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        window_s: float = 2.0,
        hop_s: float = 0.2,
        device: str | torch.device = "cpu",
        allow_download: bool = False,
    ):
        self.name = name
        self.revision = revision
        self.window_s = window_s
        self.hop_s = hop_s
        self.device = torch.device(device)
        self.allow_download = allow_download
        self._parts = Lazy()

    @torch.no_grad()
    def encode(
        self,
        waveform: Tensor,  # (S,)
        sampling_rate: int = 16000,
    ) -> AffectFeatures:
        """Windows that end at hop_s, 2 hop_s, ... (at least one, at the waveform's end if it is shorter)."""
        if waveform.ndim != 1 or not len(waveform):
            raise ValueError(f"expected a waveform (S,) of at least one sample, got {tuple(waveform.shape)}")
        model, gain, expected = self._parts.get(self._make)
        if sampling_rate != expected:
            raise ValueError(f"expected {expected} Hz for {self.name}, got {sampling_rate} Hz; resample first")
        waveform = waveform.float().to(self.device) * gain
        length, hop = round(self.window_s * sampling_rate), self.hop_s * sampling_rate
        ends = [round((i + 1) * hop) for i in range(int(len(waveform) / hop + 1e-9))] or [len(waveform)]
        features = []
        for begin in range(0, len(ends), _BATCH):
            windows = [padded_slice(waveform, end - length, end) for end in ends[begin : begin + _BATCH]]
            features.append(model(torch.stack(windows)).logits)
        features = torch.cat(features)
        heard = torch.tensor([min(end, length) for end in ends], dtype=features.dtype, device=self.device)
        pooled = (features * heard[:, None]).sum(0) / heard.sum()
        return AffectFeatures(features, torch.tensor(ends, dtype=torch.float64) / sampling_rate, pooled)

    def _make(self):
        """(network, input gain, sampling rate)"""
        options = {"revision": self.revision, "allow_download": self.allow_download}
        config = load_pretrained("AutoConfig", self.name, **options)
        if not hasattr(config, "conv_stride"):
            raise UserError(
                "expected an audio classifier that reads waveforms (wav2vec2, hubert, wavlm, ...), "
                f"found '{config.model_type}' in {self.name}; choose another"
            )
        model, info = load_pretrained("AutoModelForAudioClassification", self.name, output_loading_info=True, **options)
        _remove_classifier(model, self.name)
        _refuse_untrained(model.base_model_prefix, info["missing_keys"], self.name)
        if any(key.startswith("projector.") for key in info["missing_keys"]):
            model.projector = nn.Identity()
        gain, rate = 10 ** (-LOUDNESS_TARGET_DB / 20), 16000
        try:
            extractor = load_pretrained("AutoFeatureExtractor", self.name, **options)
        except UserError:  # no preprocessor was saved: the family's default
            return model.to(self.device), gain, rate
        # zero mean and unit variance of every clip would amplify silence: a constant gain after running loudness
        normalises = getattr(extractor, "do_normalize", True)
        return model.to(self.device), gain if normalises else 1.0, extractor.sampling_rate


class FaceAffectEncoder:
    """A frozen facial-expression network (any image classifier of transformers) without its classifier.

    Images are prepared as the checkpoint's preprocessor_config.json asks (size, crop, mean, deviation), in torch.
    """

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        allow_download: bool = False,
    ):
        self.name = name
        self.revision = revision
        self.device = torch.device(device)
        self.allow_download = allow_download
        self._parts = Lazy()

    @torch.no_grad()
    def encode(
        self,
        images: Tensor,  # (N, 3, H, W) RGB: uint8, or float in 0..1
    ) -> Tensor:  # (N, C)
        """Penultimate features, one row a picture (a face crop)."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected RGB images (N, 3, H, W), got {tuple(images.shape)}")
        model, recipe = self._parts.get(self._make)
        features = []
        for batch in images.split(_BATCH):
            pixels = recipe(batch.to(self.device))
            features.append(model(pixel_values=pixels).logits.flatten(1))
        return torch.cat(features) if features else images.new_zeros(0, 0, dtype=torch.float32)

    def _make(self):
        options = {"revision": self.revision, "allow_download": self.allow_download}
        model, info = load_pretrained("AutoModelForImageClassification", self.name, output_loading_info=True, **options)
        _remove_classifier(model, self.name)
        _refuse_untrained(model.base_model_prefix, info["missing_keys"], self.name)
        return model.to(self.device), ImageRecipe.load(self.name, model.config, **options)


@dataclass
class ImageRecipe:
    """How a checkpoint wants its pictures."""

    resize: tuple[int, int] | int | None  # (height, width), or the shorter side
    crop: tuple[int, int] | None
    mean: list[float] | None
    std: list[float] | None
    centred: bool = False  # without mean and deviation: -1..1 rather than 0..1

    @classmethod
    def load(cls, name: str, config, **options) -> ImageRecipe:
        from transformers.image_processing_base import ImageProcessingMixin

        try:
            raw, _ = ImageProcessingMixin.get_image_processor_dict(
                name, revision=options["revision"], local_files_only=not options["allow_download"]
            )
        except (OSError, ValueError):
            raw = {"size": getattr(config, "image_size", 224), "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        normalises = raw.get("do_normalize", True)
        return cls(
            resize=_size(raw.get("size", 224)) if raw.get("do_resize", True) else None,
            crop=_pair(_size(raw["crop_size"])) if raw.get("do_center_crop") and "crop_size" in raw else None,
            mean=raw.get("image_mean", [0.5] * 3) if normalises else None,
            std=raw.get("image_std", [0.5] * 3) if normalises else None,
        )

    def __call__(self, images: Tensor) -> Tensor:
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        if self.resize is not None:
            height, width = pixels.shape[-2:]
            size = self.resize
            if isinstance(size, int):
                scale = size / min(height, width)
                size = (max(size, round(height * scale)), max(size, round(width * scale)))
            pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
        if self.crop is not None:
            top, left = ((have - want) // 2 for have, want in zip(pixels.shape[-2:], self.crop))
            pixels = pixels[..., top : top + self.crop[0], left : left + self.crop[1]]
        if self.mean is not None:
            mean, std = (torch.tensor(x).to(pixels).view(3, 1, 1) for x in (self.mean, self.std))
            pixels = (pixels - mean) / std
        return pixels


def _size(value) -> tuple[int, int] | int:
    if isinstance(value, dict):
        return value["shortest_edge"] if "shortest_edge" in value else (value["height"], value["width"])
    return value if isinstance(value, tuple) else (value, value)


def _pair(size) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _remove_classifier(model: nn.Module, name: str) -> None:
    """The network's 'logits' become what its classifier would have been given."""
    if not isinstance(getattr(model, "classifier", None), nn.Module):
        raise UserError(f"expected a network that ends in .classifier, found {type(model).__name__} in {name}")
    model.classifier = nn.Identity()


def _refuse_untrained(prefix: str, missing: list[str], name: str) -> None:
    """A checkpoint of another architecture loads with random weights and a warning: not here."""
    lost = [key for key in missing if key.startswith(prefix + ".") and "masked_spec_embed" not in key]
    if lost:
        raise UserError(
            f"expected trained weights for all of '{prefix}' in {name}, found {len(lost)} missing ({lost[0]}, ...); "
            "the checkpoint is incomplete or of another architecture"
        )
