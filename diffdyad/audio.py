"""Speech features on the motion's clock: mel bands, or all layers of a frozen Hugging Face encoder.

One convention of time: feature frame k is centred at k / fps seconds, as is frame k of a motion.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Tensor

from diffdyad.errors import UserError
from diffdyad.media import LOUDNESS_TARGET_DB, padded_slice
from diffdyad.phones import FLOOR as PHONE_FLOOR
from diffdyad.phones import HOP as PHONE_HOP
from diffdyad.phones import NUM_PHONES, phone_posteriors
from diffdyad.phones import SAMPLING_RATE as PHONE_SAMPLING_RATE
from diffdyad.pretrained import Lazy, load_pretrained
from diffdyad.voice import clip_voice, in_own_voice

_WINDOW_S = 0.025
_COLUMNS_PER_S = 100
_LOWEST_HZ, _HIGHEST_HZ = 50.0, 7600.0
_POWER_FLOOR = 1e-8  # -80 dB re full scale in one band: digital silence and a quiet room look alike
_BLOCK_COLUMNS = 3000  # half a minute of spectra at a time
_CHUNK_S = 30.0  # longest audio that a Hugging Face encoder sees at once, less the margins
_MARGIN_S = 2.0  # heard on both sides of a chunk, and discarded


class SpeechEncoder(ModelMixin, ConfigMixin):
    """Frozen features of speech, standardised by the corpus' statistics.

    name: "mel" (log mel bands, no download), a Hub id such as "facebook/hubert-base-ls960", or a folder
    saved by transformers. Waveforms are expected to be loudness-normalised (`media.normalise_loudness`)
    as a whole before they are cut into windows: nothing here looks at a clip's own level.

    Time: frame k is centred at t = k / fps. With mel it sees (k - 1/2) / fps .. (k + 1/2) / fps, plus half
    a column's width less half a hop (12.5 - 5 ms) on each side: at 25 fps, 27.5 ms ahead. Columns lie
    symmetrically around the centre (-15, -5, 5, 15 ms at 25 fps). Before the start and after the end there
    is silence.

    With `normalise_voice` (mel only), every clip's bands are brought to zero mean and unit deviation over its own loud
    frames (`diffdyad.voice`), so that a voice or a microphone that was never heard looks like those of the training.
    With `phones` (mel at 16 kHz only), the bands are followed by what phones these may be (`diffdyad.phones`), told
    from all that is said for half a second before and after at least.

    Only the name, the revision and the statistics are saved, never the encoder's weights, which are loaded on
    first use from a folder or the Hub's cache (`encoder.allow_download = True`: or from the Hub).
    """

    # also under from_pretrained(torch_dtype=...): half precision would no longer be the corpus' statistics
    _keep_in_fp32_modules = ["mean", "std", "voice"]  # noqa: RUF012
    allow_download = False

    @register_to_config
    def __init__(
        self,
        name: str = "mel",
        revision: str | None = None,
        sampling_rate: int = 16000,  # Hz
        fps: float = 25.0,  # Hz
        num_bands: int = 64,  # mel only
        num_layers: int | None = None,  # None: asked of the encoder on first use, known once fitted
        num_channels: int | None = None,
        normalise_voice: bool = False,  # mel only
        phones: bool = False,  # mel only
    ):
        super().__init__()
        self._backbone = Lazy()
        self._backbone_config = Lazy()
        self._gain = Lazy()
        if name == "mel":
            columns, _ = mel_columns(sampling_rate, fps)
            num_layers, num_channels = 1, columns * (num_bands + (NUM_PHONES if phones else 0))
            self.register_to_config(num_layers=num_layers, num_channels=num_channels)
        # (1, 1) until fitted where the encoder's shape is not known yet: broadcasts as "no standardisation"
        shape = (num_layers or 1, num_channels or 1)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))
        for option, wanted in (("normalise_voice", normalise_voice), ("phones", phones)):
            if wanted and name != "mel":
                raise UserError(f"expected {option} with the speech encoder mel alone, found it with {name}")
        if phones and sampling_rate != PHONE_SAMPLING_RATE:
            raise UserError(f"expected {PHONE_SAMPLING_RATE} Hz for phones, found {sampling_rate} Hz")
        if normalise_voice:
            self.register_buffer("voice", torch.stack([torch.zeros(num_bands), torch.ones(num_bands)]))

    def _apply(self, fn, recurse=True):
        kept = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            setattr(self, name, buffer.to(getattr(self, name).device))  # moved, never cast
        return self

    @property
    def num_layers(self) -> int:
        """L. Raises UserError when the encoder is needed to know and is not found."""
        return self.config["num_layers"] or self._hf_config().num_hidden_layers + 1

    @property
    def num_channels(self) -> int:
        """C. Raises UserError when the encoder is needed to know and is not found."""
        return self.config["num_channels"] or self._hf_config().hidden_size

    def num_frames(self, num_samples: int) -> int:
        """T for a waveform of `num_samples`."""
        return round(self.config["fps"] * num_samples / self.config["sampling_rate"])

    def forward(
        self,
        waveform: Tensor,  # (B, S)
    ) -> Tensor:  # (B, T, L, C)
        """Standardised features; T = round(fps * S / sampling_rate)."""
        features = self.encode(waveform)
        if not self.config["normalise_voice"]:
            return self.standardise(features)
        return self.standardise(features, torch.stack([self.voice_of(self.bands(row)) for row in features]))

    def standardise(
        self,
        features: Tensor,  # (B, T, L, C)
        voice: Tensor | None = None,  # (B, 2, N), as of `voice_of`; with normalise_voice alone
    ) -> Tensor:
        """Zero mean and unit deviation over the corpus, of features as `encode` gives them (cached, say)."""
        if self.config["normalise_voice"]:
            spectrum, rest = self.split(features.float())
            return torch.cat([in_own_voice(spectrum, voice.to(features.device)), rest], -1)
        return (features.float() - self.mean) / self.std

    def split(
        self,
        features: Tensor,  # (..., C)
    ) -> tuple[Tensor, Tensor]:
        """What is of the spectrum, and what is of `phones`, which follows it: no channels where there is none."""
        config = self.config
        count = features.shape[-1]
        if config["phones"]:
            count = config["num_bands"] * mel_columns(config["sampling_rate"], config["fps"])[0]
        return features[..., :count], features[..., count:]

    def bands(
        self,
        features: Tensor,  # (T, L, C)
    ) -> Tensor:  # (T, N)
        """What `voice_of` looks at, of a clip or of a part of one: mel bands, over a frame's columns."""
        return self.split(features.float())[0].unflatten(-1, (-1, self.config["num_bands"])).mean((1, 2))

    def voice_of(
        self,
        bands: Tensor,  # (T, N)
    ) -> Tensor:  # (2, N)
        """Mean and deviation of a clip's own voice by band, with normalise_voice."""
        return clip_voice(bands, self.voice)

    @torch.no_grad()
    def encode(
        self,
        waveform: Tensor,  # (B, S)
        phones: bool = True,
    ) -> Tensor:  # (B, T, L, C)
        """Features before standardisation, float32; these are what `fit` wants and what a cache keeps.

        phones: False leaves out their channels, of those encoders that have them.
        """
        if waveform.ndim != 2:
            raise ValueError(f"expected waveforms (B, S), got {tuple(waveform.shape)}")
        config = self.config
        with torch.autocast(waveform.device.type, enabled=False):
            if config["name"] == "mel":
                bands = log_mel(waveform.float(), config["sampling_rate"], config["fps"], config["num_bands"])
                spectrum = rearrange(bands, "b t n c -> b t 1 (n c)")
                return torch.cat([spectrum, self.hear(waveform)], -1) if phones and config["phones"] else spectrum
            return self._encode_hf(waveform.float())

    @torch.no_grad()
    def hear(
        self,
        waveform: Tensor,  # (B, S), whole recordings
    ) -> Tensor:  # (B, T, 1, N P)
        """Channels of `phones`: logarithms of their chances / 4 + 1, -1.3 to 1, at a frame's N columns."""
        columns, hop = mel_columns(self.config["sampling_rate"], self.config["fps"])
        # columns lie symmetrically about a frame's centre, phones at whole hundredths: at 25 fps, 5 ms before
        first = (torch.arange(columns * self.num_frames(waveform.shape[1])) - (columns - 1) / 2) * hop
        nearest = (first / PHONE_HOP - 1e-3).round().long().to(waveform.device)
        rows = []
        for row in waveform:
            found = phone_posteriors(row).clamp_min(PHONE_FLOOR).log() / 4 + 1
            rows.append(found[nearest.clamp(0, len(found) - 1)] if len(nearest) else found[:0])
        return rearrange(torch.stack(rows), "b (t n) c -> b t 1 (n c)", n=columns)

    def fit(self, features: Iterable[Tensor]) -> SpeechEncoder:
        """Sets the statistics from unstandardised features (..., L, C), read once, one after another."""
        count, mean, squares = 0, 0.0, 0.0
        voices = []
        for tensor in features:
            if self.config["normalise_voice"] and (voice := clip_voice(self.bands(tensor))) is not None:
                voices.append(voice)
            rows = tensor.detach().reshape(-1, *tensor.shape[-2:]).double()
            if not len(rows):
                continue
            # Chan, Golub and LeVeque 1983: merging moments keeps what a plain sum of squares cancels
            row_mean = rows.mean(0)
            total = count + len(rows)
            delta = row_mean - mean
            squares = squares + ((rows - row_mean) ** 2).sum(0) + delta**2 * (count * len(rows) / total)
            mean = mean + delta * (len(rows) / total)
            count = total
        if not count:
            raise ValueError("expected at least one frame of features to fit statistics, got none")
        if not bool(torch.isfinite(squares).all()):
            raise ValueError("expected finite features to fit statistics, got NaN or infinity")
        expected = (self.config["num_layers"], self.config["num_channels"])
        if None not in expected and expected != tuple(mean.shape):
            raise ValueError(f"expected features (..., L, C) = (..., {expected[0]}, {expected[1]}), "
                             f"got {tuple(mean.shape)}")  # fmt: skip
        std = (squares / count).sqrt()
        std = torch.where(std < 1e-5, 1.0, std)  # a channel that never moves has nothing to scale
        device = self.mean.device
        self.mean, self.std = mean.float().to(device), std.float().to(device)
        self.register_to_config(num_layers=mean.shape[0], num_channels=mean.shape[1])
        if voices:
            self.voice = torch.stack(voices).mean(0).to(device)
        return self

    # ------------------------------------------------------------------------- Hugging Face encoders

    def _load(self, auto_class: str):
        return load_pretrained(
            auto_class, self.config["name"], self.config["revision"], self.allow_download,
            advice="choose the encoder 'mel', which needs none",
        )  # fmt: skip

    def _hf_config(self):
        config = self._backbone_config.get(lambda: self._load("AutoConfig"))
        if not hasattr(config, "conv_stride"):
            raise UserError(
                "expected a speech encoder that reads waveforms (hubert, wav2vec2, wavlm, ...), "
                f"found '{config.model_type}' in {self.config['name']}; choose another"
            )
        return config

    def _input_gain(self) -> float:
        """Stands in for `do_normalize` (zero mean, unit variance of each clip), which would amplify silence.

        Running loudness brings speech to a known level, so a constant gain reaches the same unit variance.
        """

        def ask() -> float:
            try:
                extractor = self._load("AutoFeatureExtractor")
            except UserError:
                return 10 ** (-LOUDNESS_TARGET_DB / 20)  # no preprocessor saved: the family's default
            if extractor.sampling_rate != self.config["sampling_rate"]:
                raise UserError(
                    f"expected sampling_rate {extractor.sampling_rate}, as {self.config['name']} expects, "
                    f"got {self.config['sampling_rate']}; change the config"
                )
            normalises = getattr(extractor, "do_normalize", True)
            return 10 ** (-LOUDNESS_TARGET_DB / 20) if normalises else 1.0

        return self._gain.get(ask)

    def _encode_hf(self, waveform: Tensor) -> Tensor:
        sampling_rate, fps = self.config["sampling_rate"], self.config["fps"]
        grid = ConvGrid.of(self._hf_config())
        gain = self._input_gain()
        backbone = self._backbone.get(lambda: self._load("AutoModel")).to(waveform.device)
        num_frames = self.num_frames(waveform.shape[1])
        result = waveform.new_empty(waveform.shape[0], num_frames, self.num_layers, self.num_channels)
        last = math.ceil(waveform.shape[1] / grid.stride)  # encoder frame after which there is nothing
        step = max(1, round(_CHUNK_S * fps))
        for begin in range(0, num_frames, step):
            end = min(begin + step, num_frames)
            first_s, last_s = begin / fps - _MARGIN_S, end / fps + _MARGIN_S
            first = max(0, math.floor(first_s * sampling_rate / grid.stride))
            stop = max(first, min(last, math.ceil(last_s * sampling_rate / grid.stride))) + 1
            chunk = padded_slice(waveform, *grid.samples(first, stop)) * gain
            layers = backbone(chunk, output_hidden_states=True).hidden_states
            times = (torch.arange(first, stop, dtype=torch.float64) * grid.stride - 0.5) / sampling_rate
            targets = torch.arange(begin, end, dtype=torch.float64) / fps
            weights = resampling_weights(times, targets, max(grid.stride / sampling_rate, 1 / fps))
            weights = weights.to(chunk)
            if len(layers) != self.num_layers:
                raise UserError(
                    f"expected {self.num_layers} layers (input included) of {self.config['name']}, got {len(layers)}"
                )
            for index, layer in enumerate(layers):
                result[:, begin:end, index] = torch.einsum("kn,bnc->bkc", weights, layer)
        return result


@dataclass(frozen=True)
class ConvGrid:
    """The frames of a wav2vec2-like stack of convolutions: frame j is centred at sample j * stride - 0.5."""

    stride: int
    receptive_field: int

    @classmethod
    def of(cls, config) -> ConvGrid:
        stride, field = 1, 1
        for kernel, step in zip(config.conv_kernel, config.conv_stride):
            field += (kernel - 1) * stride
            stride *= step
        return cls(stride, field)

    def samples(self, first: int, stop: int) -> tuple[int, int]:
        """(begin, end) of the samples that yield frames first .. stop - 1; half a field reaches beyond 0."""
        begin = first * self.stride - self.receptive_field // 2
        return begin, begin + (stop - first - 1) * self.stride + self.receptive_field


def resampling_weights(
    times: Tensor,  # (N,) of what is there, s
    targets: Tensor,  # (K,) of what is wanted, s
    half_width_s: float,
) -> Tensor:  # (K, N), rows sum to 1
    """Triangles around the targets: linear interpolation upwards, anti-aliased downwards, exactly aligned."""
    weights = (1 - (times[None] - targets[:, None]).abs() / half_width_s).clamp_min(0)
    return weights / weights.sum(1, keepdim=True).clamp_min(1e-12)


# ------------------------------------------------------------------------------------------------ mel


def mel_columns(sampling_rate: int, fps: float) -> tuple[int, int]:
    """(spectra per frame, about 100 per second; samples from one to the next). UserError if not whole."""
    columns = max(1, round(_COLUMNS_PER_S / fps))
    hop = sampling_rate / (columns * fps)
    if abs(hop - round(hop)) > 1e-9:
        raise UserError(
            f"expected an fps that divides {sampling_rate} Hz into whole hops (25, 50, 20, ...), "
            f"got {fps:g} Hz ({columns} columns a frame); resample the motion instead"
        )
    return columns, round(hop)


def log_mel(
    waveform: Tensor,  # (B, S)
    sampling_rate: int = 16000,
    fps: float = 25.0,
    num_bands: int = 64,
) -> Tensor:  # (B, T, N, num_bands)
    """Natural log of the mean square within mel bands (full-scale sine: up to 0.5), N columns a frame.

    Column n of frame k is centred at k / fps + (n - (N - 1) / 2) * hop. Source: HTK mel scale, triangular
    bands of unit peak between 50 and 7600 Hz, Hann window of 25 ms. Worked through in blocks: an hour needs little more
    memory than its result.
    """
    columns, hop = mel_columns(sampling_rate, fps)
    window, filters = _mel_filters(sampling_rate, num_bands)
    window, filters = window.to(waveform), filters.to(waveform)
    size = 2 * (filters.shape[0] - 1)
    num_columns = columns * round(fps * waveform.shape[1] / sampling_rate)
    result = waveform.new_empty(waveform.shape[0], num_columns, num_bands)
    first = -round((columns - 1) / 2 * hop) - size // 2  # sample at which column 0's transform begins
    for begin in range(0, num_columns, _BLOCK_COLUMNS):
        end = min(begin + _BLOCK_COLUMNS, num_columns)
        piece = padded_slice(waveform, first + begin * hop, first + (end - 1) * hop + size)
        spectrum = torch.stft(
            piece, size, hop, len(window), window, center=False, return_complex=True
        )  # (B, F, columns)
        power = torch.view_as_real(spectrum).square().sum(-1)
        result[:, begin:end] = (power.transpose(1, 2) @ filters + _POWER_FLOOR).log()
    return rearrange(result, "b (t n) c -> b t n c", n=columns)


@lru_cache(maxsize=8)
def _mel_filters(sampling_rate: int, num_bands: int) -> tuple[Tensor, Tensor]:
    """(window (W,) scaled so that power summed over bins is the mean square, triangles (F, num_bands))."""
    length = round(_WINDOW_S * sampling_rate)
    size = 2 ** math.ceil(math.log2(2 * length))  # zero-padded: the lowest bands are narrower than 1 / 25 ms
    window = torch.hann_window(length, dtype=torch.float64)
    window = window / (window.square().sum() * size / 2).sqrt()
    highest = min(_HIGHEST_HZ, 0.475 * sampling_rate)
    to_mel = lambda hz: 2595 * math.log10(1 + hz / 700)  # noqa: E731
    edges = torch.linspace(to_mel(_LOWEST_HZ), to_mel(highest), num_bands + 2, dtype=torch.float64)
    edges = 700 * (10 ** (edges / 2595) - 1)
    bins = torch.arange(size // 2 + 1, dtype=torch.float64) * sampling_rate / size
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return window.float(), torch.minimum(rising, falling).clamp_min(0).float()
