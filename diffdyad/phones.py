"""Which phones a voice speaks, by an acoustic model that was trained on real speakers.

pocketsphinx carries one of American English (CMU Sphinx, mixtures of Gaussians over cepstra), small enough for anyone:
6 MiB, and a hundredth of real time on one core. A network that has heard synthetic voices alone knows their spectra and
not those of people; what phone it may be, these Gaussians tell of either. Nothing of pocketsphinx runs here: its files
are read, and its front end is followed closely enough for its Gaussians (their README: 25 mel bands, 130 to 6800 Hz).
Phones rather than words: whoever speaks another language moves his lips for much the same sounds.

Format of the files: the sources of PocketSphinx (`s3file`, `bin_mdef`, `ptm_mgau`).
"""

from __future__ import annotations

import importlib.util
import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffdyad.errors import UserError

SAMPLING_RATE = 16000  # Hz
HOP = 160  # samples: the model has heard a hundred spectra a second
NUM_PHONES = 42
FLOOR = 1e-4  # of a posterior, so that its logarithm stays within reach

_WINDOW, _TRANSFORM = 410, 512  # samples
_NUM_BANDS, _LOWEST_HZ, _HIGHEST_HZ = 25, 130.0, 6800.0
_NUM_CEPSTRA, _LIFTER = 13, 22
_STATES = 3  # of each phone
_LOG_BASE = 1024 * math.log(1.0001)  # unit of the mixtures' weights
_SMALLEST_VARIANCE = 1e-4
_BELOW_LOUD_DB, _LEAST_DB = 25.0, -55.0  # of frames that are voice: below its loud ones, and re full scale
_FEWEST_FRAMES = 25  # of them, to tell phones by
# Gaussians with few data are too sure of themselves: their log likelihoods count for so much
_TEMPERATURE = 0.2
_STAY = 0.8  # chance that a phone's state lasts another hundredth of a second
_PIECE, _MARGIN = 200, 50  # columns, and what is listened to on both sides of them
_TOGETHER = 64  # pieces that are gone through at once
_SPECTRA = 6000  # columns whose sound is looked at at once
_DENSITIES = 1000  # columns at once: each has 16,128 in every stream


@dataclass(frozen=True)
class PhoneModel:
    """Gaussians of three streams (cepstra, their differences, and these' differences) that each phone has of its own.

    quadratic: (3, 26, P G), constant: (3, P G) of log densities; weights: (3, P, G, states) of each phone's mixtures.
    P phones with G Gaussians each; all in the order of `names`.
    """

    names: tuple[str, ...]
    quadratic: Tensor
    constant: Tensor
    weights: Tensor

    @property
    def silence(self) -> int:
        return self.names.index("SIL")

    @classmethod
    def from_folder(cls, folder: Path) -> PhoneModel:
        """Reads `means`, `variances`, `mdef` and `sendump`. Raises UserError for files that hold something else."""
        try:
            means, variances = (_parameters(folder / name) for name in ("means", "variances"))
            names = _phone_names(folder / "mdef")
            phones, streams, gaussians, _ = means.shape
            if means.shape != variances.shape or (phones, streams, means.shape[3]) != (NUM_PHONES, 3, _NUM_CEPSTRA):
                raise ValueError(f"Gaussians of shape {means.shape} and {variances.shape}")
            if len(names) != phones or "SIL" not in names:
                raise ValueError(f"{len(names)} phones")
            weights = _mixture_weights(folder / "sendump", streams, gaussians, phones * _STATES)
        except (OSError, ValueError, struct.error) as error:
            raise UserError(f"expected an acoustic model of pocketsphinx in {folder}, found {error}; "
                            "install pocketsphinx anew") from None  # fmt: skip
        variances = np.maximum(variances, _SMALLEST_VARIANCE)
        quadratic = np.concatenate([-0.5 / variances, means / variances], -1)
        constant = -0.5 * (means**2 / variances + np.log(2 * np.pi * variances)).sum(-1)
        return cls(
            names, torch.tensor(quadratic).permute(1, 3, 0, 2).reshape(3, 2 * _NUM_CEPSTRA, -1).contiguous(),
            torch.tensor(constant).permute(1, 0, 2).reshape(3, -1).contiguous(),
            torch.tensor(weights).view(streams, gaussians, phones, _STATES).transpose(1, 2).contiguous(),
        )  # fmt: skip

    def to(self, device: torch.device) -> PhoneModel:
        return PhoneModel(self.names, *(x.to(device) for x in (self.quadratic, self.constant, self.weights)))

    def log_likelihoods(
        self,
        cepstra: Tensor,  # (T + 6, 13), the voice's mean taken off
    ) -> Tensor:  # (T, P, states)
        """Of every state of every phone at each hundredth of a second, but the first and the last three."""
        at = lambda shift: cepstra[3 + shift : len(cepstra) - 3 + shift]  # noqa: E731
        streams = (at(0), at(2) - at(-2), (at(3) - at(-1)) - (at(1) - at(-3)))
        found = 0.0
        for x, quadratic, constant, weights in zip(streams, self.quadratic, self.constant, self.weights):
            density = (torch.cat([x.square(), x], -1) @ quadratic + constant).unflatten(-1, weights.shape[:2])
            peak = density.amax(-1, keepdim=True)
            mixed = torch.bmm((density - peak).exp_().transpose(0, 1), weights).transpose(0, 1)
            found = found + mixed.clamp_min(1e-30).log() + peak
        return found


@lru_cache(maxsize=1)
def phone_model() -> PhoneModel:
    """The model that the installed pocketsphinx carries. Raises UserError where there is none."""
    found = importlib.util.find_spec("pocketsphinx")
    folder = Path(found.origin).parent / "model" / "en-us" / "en-us" if found is not None and found.origin else None
    if folder is None or not folder.is_dir():
        raise UserError("expected pocketsphinx, whose acoustic model tells the phones of speech, found none; "
                        "pip install pocketsphinx")  # fmt: skip
    return PhoneModel.from_folder(folder)


def phone_posteriors(
    waveform: Tensor,  # (S,) at 16 kHz, loudness-normalised
    model: PhoneModel | None = None,
) -> Tensor:  # (T, P), rows sum to 1; T = ceil(S / 160), centred at k / 100 s
    """Chance of every phone at each hundredth of a second, given all that is said around it.

    Forward and backward (Baum et al. 1970) over a loop in which every phone follows every other: no language, no words.
    A recording with less than a quarter of a second of voice is silence.
    """
    model = (phone_model() if model is None else model).to(waveform.device)
    count = -(-len(waveform) // HOP)
    if not count:
        return torch.zeros(0, NUM_PHONES, device=waveform.device)
    found = cepstra(waveform.float())
    voice = _voice_frames(waveform.float())
    if int(voice.sum()) < _FEWEST_FRAMES:
        return F.one_hot(torch.full((count,), model.silence, device=waveform.device), NUM_PHONES).float()
    # beyond both ends, what is there is as it was
    found = F.pad((found - found[voice].mean(0)).T[None], (3, 3), mode="replicate")[0].T
    likelihoods = found.new_empty(count, NUM_PHONES, _STATES)  # parts to be put together would lie in the memory's way
    for begin in range(0, count, _DENSITIES):
        likelihoods[begin : begin + _DENSITIES] = model.log_likelihoods(found[begin : begin + _DENSITIES + 6])
    pieces = -(-count // _PIECE)
    around = torch.arange(-_MARGIN, pieces * _PIECE + _MARGIN, device=waveform.device).clamp(0, count - 1)
    rows = around.unfold(0, _PIECE + 2 * _MARGIN, _PIECE)  # (N, piece)
    result = torch.cat([_posteriors(likelihoods[some]) for some in rows.split(_TOGETHER)])
    return result[:, _MARGIN:-_MARGIN].reshape(-1, NUM_PHONES)[:count]


def cepstra(
    waveform: Tensor,  # (S,)
) -> Tensor:  # (T, 13), T = ceil(S / 160), centred at k / 100 s
    """Mel-frequency cepstra as the model's README has them, of samples that count to 32768."""
    samples = 32768 * waveform
    emphasised = torch.cat([samples[:1], samples[1:] - 0.97 * samples[:-1]])
    window, filters, transform = (part.to(waveform.device) for part in _front_end())

    def of(frames: Tensor) -> Tensor:
        power = torch.view_as_real(torch.fft.rfft(frames * window, _TRANSFORM)).square().sum(-1)
        return (power @ filters).clamp_min(1.0).log() @ transform

    return torch.cat([of(frames) for frames in _frames(emphasised).split(_SPECTRA)])


def _frames(samples: Tensor) -> Tensor:  # (S,) -> (T, W)
    count = -(-len(samples) // HOP)
    padded = F.pad(samples, (_WINDOW // 2, (count - 1) * HOP + _WINDOW - _WINDOW // 2 - len(samples)))
    return padded.unfold(0, _WINDOW, HOP)


def _voice_frames(waveform: Tensor) -> Tensor:  # (S,) -> (T,) bool
    power = torch.cat([frames.square().mean(-1) for frames in _frames(waveform).split(_SPECTRA)])
    level = 10 * power.clamp_min(1e-12).log10()
    return level > max(float(level.quantile(0.95)) - _BELOW_LOUD_DB, _LEAST_DB)


def _posteriors(likelihoods: Tensor) -> Tensor:  # (N, T, P, states) -> (N, T, P)
    """Of all pieces at once, hundredth by hundredth; double precision, since products of many chances are small."""
    scaled = (_TEMPERATURE * likelihoods).double()
    chances = (scaled - scaled.amax((2, 3), keepdim=True)).exp()
    num_pieces, length, phones, states = chances.shape
    leave = 1 - _STAY

    def normalised(x: Tensor) -> Tensor:
        return x / x.sum((1, 2), keepdim=True)

    before, now = torch.empty_like(chances), torch.full_like(chances[:, 0], 1 / (phones * states))
    for k in range(length):
        entered = now[:, :, -1:].sum(1, keepdim=True) / phones  # from every phone's last state to any's first
        came = torch.cat([entered.expand(-1, phones, 1), now[:, :, :-1]], 2)
        now = normalised((_STAY * now + leave * came) * chances[:, k])
        before[:, k] = now
    after, result = torch.ones_like(now), chances.new_empty(num_pieces, length, phones)
    for k in reversed(range(length)):
        result[:, k] = normalised(before[:, k] * after).sum(2)
        told = after * chances[:, k]
        begun = told[:, :, :1].sum(1, keepdim=True) / phones
        goes = torch.cat([told[:, :, 1:], begun.expand(-1, phones, 1)], 2)
        after = normalised(_STAY * told + leave * goes)
    return result.float()


# ------------------------------------------------------------------------------------------- front end


@lru_cache(maxsize=1)
def _front_end() -> tuple[Tensor, Tensor, Tensor]:
    """Window (W,), triangles (F, bands) of unit area, cosines with the lifter (bands, 13)."""
    to_mel, to_hz = (lambda hz: 2595 * np.log10(1 + hz / 700)), (lambda mel: 700 * (10 ** (mel / 2595) - 1))
    bin_hz = SAMPLING_RATE / _TRANSFORM
    edges = to_hz(np.linspace(to_mel(_LOWEST_HZ), to_mel(_HIGHEST_HZ), _NUM_BANDS + 2))
    edges = np.round(edges / bin_hz) * bin_hz
    hz = bin_hz * np.arange(_TRANSFORM // 2 + 1)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.minimum((hz - low) / (middle - low), (high - hz) / (high - middle)).clip(0) * 2 / (high - low)
    order, place = np.arange(_NUM_CEPSTRA), np.arange(_NUM_BANDS)[:, None]
    cosines = np.sqrt(2 / _NUM_BANDS) * np.cos(np.pi * order * (place + 0.5) / _NUM_BANDS)
    cosines[:, 0] *= np.sqrt(0.5)
    lifted = cosines * (1 + _LIFTER / 2 * np.sin(np.pi * order / _LIFTER))
    window = torch.hamming_window(_WINDOW, periodic=False)
    return window, torch.tensor(triangles, dtype=torch.float32), torch.tensor(lifted, dtype=torch.float32)


# ----------------------------------------------------------------------------------------------- files


def _parameters(path: Path) -> np.ndarray:  # (phones, streams, Gaussians, width)
    content = path.read_bytes()
    mark = b"endhdr\n"
    begin = content.index(mark) + len(mark) if mark in content else -1
    if begin < 0 or struct.unpack_from("<I", content, begin)[0] != 0x11223344:
        raise ValueError(f"no header in {path.name}")
    phones, streams, gaussians = struct.unpack_from("<3i", content, begin + 4)
    widths = struct.unpack_from(f"<{streams}i", content, begin + 16)
    (total,) = struct.unpack_from("<i", content, begin + 16 + 4 * streams)
    if len(set(widths)) != 1 or total != phones * gaussians * sum(widths):
        raise ValueError(f"{total} numbers in {path.name}")
    values = np.frombuffer(content, "<f4", total, begin + 20 + 4 * streams)
    return values.reshape(phones, streams, gaussians, widths[0]).copy()


def _phone_names(path: Path) -> tuple[str, ...]:
    content = path.read_bytes()
    if content[:4] != b"BMDF":
        raise ValueError(f"no header in {path.name}")
    (length,) = struct.unpack_from("<i", content, 8)
    count, _, states, own = struct.unpack_from("<4i", content, 12 + length)
    if states != _STATES or own != count * _STATES:
        raise ValueError(f"{states} states a phone in {path.name}")
    names = content[12 + length + 40 :].split(b"\0", count)[:count]
    return tuple(name.decode("ascii") for name in names)


def _mixture_weights(path: Path, streams: int, gaussians: int, states: int) -> np.ndarray:  # (streams, G, states)
    """Of phones without regard to their neighbours, which come first among the file's states; summing to 1."""
    content, at, header = path.read_bytes(), 0, []
    while length := struct.unpack_from("<i", content, at)[0]:
        if not 0 < length < len(content):
            raise ValueError(f"no header in {path.name}")
        header.append(content[at + 4 : at + 4 + length].rstrip(b"\0"))
        at += 4 + length
    rows, count = struct.unpack_from("<2i", content, at + 4)
    if b"cluster_count 0" not in header or rows != gaussians or count < states:
        raise ValueError(f"mixtures of {rows} Gaussians, {count} states, in {path.name}")
    values = np.frombuffer(content, np.uint8, streams * gaussians * count, at + 12)
    weights = np.exp(-_LOG_BASE * values.reshape(streams, gaussians, count)[..., :states].astype(np.float32))
    return weights / weights.sum(1, keepdims=True)
