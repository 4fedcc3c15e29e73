"""Voice activity of one channel: how likely somebody speaks, every 10 ms.

Backends by name: `silero` (the network of the silero-vad package, MIT) and `energy` (level above the room's).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffdyad.data.recordings.frames import FRAMES_PER_S, hysteresis, smooth_db
from diffdyad.data.recordings.pcm import Pcm
from diffdyad.data.recordings.weights import package_version, packaged_file
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE

_CHUNK, _CONTEXT = 512, 64  # samples: what silero hears at once, and of what came before
_CHUNKS = 1875  # a minute at a time
_SPEECH_DB, _MOST_GAIN_DB = -22.0, 30.0
_LOUD_SHARE = 0.95


@dataclass(frozen=True)
class ActivityBackend:
    """run: channels' waveforms piece by piece, and the channel's levels (F,) -> probability of speech (F,)."""

    name: str
    version: Callable[[], str]
    run: Callable[[Pcm, np.ndarray], np.ndarray]


def speech_probability(backend: str, pcm: Pcm, levels: np.ndarray) -> np.ndarray:  # (F,) float32
    """levels: of every 10 ms, dB. Raises UserError for an unknown backend, or one that is not installed."""
    return activity_backend(backend).run(pcm, levels)


def activity_backend(name: str) -> ActivityBackend:
    if name not in ACTIVITY:
        raise UserError(f"expected a voice activity backend among {', '.join(ACTIVITY)}, found {name!r}")
    return ACTIVITY[name]


def check_activity(name: str) -> None:
    """Raises UserError for an unknown backend, or one that is not installed."""
    activity_backend(name)
    if name == "silero":
        load_silero()


# ------------------------------------------------------------------------------------------------------------- silero


class Silero(torch.nn.Module):
    """Silero VAD for 16 kHz, over many chunks of 32 ms at once; the state goes on from call to call.

    Source: the weights and the description of their network in the package silero-vad (Silero Team, MIT).
    """

    def __init__(self):
        super().__init__()
        self.stft_conv = torch.nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = torch.nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = torch.nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = torch.nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = torch.nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = torch.nn.LSTM(128, 128)
        self.final_conv = torch.nn.Conv1d(128, 1, 1)

    def forward(
        self,
        chunks: Tensor,  # (N, 576): 64 samples of the chunk before, 512 of its own
        state: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # (N,) probabilities, state
        spectrum = self.stft_conv(F.pad(chunks[:, None], (0, 64), mode="reflect"))
        x = (spectrum[:, :129].square() + spectrum[:, 129:].square()).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = layer(x).relu()
        hidden, state = self.lstm(x.squeeze(-1), state)
        return self.final_conv(hidden.relu()[..., None]).sigmoid().flatten(), state


@lru_cache(maxsize=1)
def load_silero() -> Silero:
    from safetensors.torch import load_file

    path = packaged_file("silero_vad", "data/silero_vad_16k.safetensors", "the voice activity backend silero")
    network = Silero()
    state = {}
    for key, value in load_file(path).items():
        part, name = key.split(".")
        state[f"lstm.{name}_l0" if part == "lstm_cell" else key] = value
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def gain_of(levels: np.ndarray) -> float:
    """What brings a channel's loud parts to the level that networks were trained at; a factor."""
    if not len(levels):
        return 1.0
    loud = float(np.quantile(smooth_db(levels, 0.1), _LOUD_SHARE))
    return float(10 ** (min(_SPEECH_DB - loud, _MOST_GAIN_DB) / 20))


def _silero(pcm: Pcm, levels: np.ndarray) -> np.ndarray:
    network, gain = load_silero(), gain_of(levels)
    found, state = [np.zeros(0, np.float32)], None
    with torch.inference_mode():
        for chunks in _chunks(pcm):
            probabilities, state = network((chunks * gain).clamp(-1, 1), state)
            found.append(probabilities.numpy())
    probabilities = np.concatenate(found)
    if not len(probabilities):
        return np.zeros(len(levels), np.float32)
    centres = (np.arange(len(probabilities)) + 0.5) * _CHUNK / SAMPLING_RATE
    times = (np.arange(len(levels)) + 0.5) / FRAMES_PER_S
    return np.interp(times, centres, probabilities).astype(np.float32)


def _chunks(pcm: Pcm) -> Iterator[Tensor]:  # (N, 576)
    before = torch.zeros(_CONTEXT)
    for block in pcm.blocks(_CHUNKS * _CHUNK / SAMPLING_RATE):
        samples = torch.from_numpy(np.pad(block, (0, -len(block) % _CHUNK)))
        yield torch.cat([before, samples]).unfold(0, _CHUNK + _CONTEXT, _CHUNK)
        before = samples[-_CONTEXT:]


# ------------------------------------------------------------------------------------------------------------- energy


_QUIETEST_DB, _ABOVE_NOISE_DB, _BELOW_PEAK_DB, _SLOPE_DB = -55.0, 9.0, 30.0, 2.0


def energy_probability(levels: np.ndarray) -> np.ndarray:  # (F,)
    """Level over a threshold of the channel's own, as a probability."""
    fine = smooth_db(levels, 0.06)
    heard = fine[fine > -90.0]  # digital silence says nothing about the room
    if not len(heard):
        return np.zeros(len(levels), np.float32)
    floor, peak = np.percentile(heard, 10), np.percentile(heard, 98)
    # a voice that never rests has no floor to rise above: then its peak decides
    threshold = max(min(floor + _ABOVE_NOISE_DB, peak - _ABOVE_NOISE_DB), peak - _BELOW_PEAK_DB, _QUIETEST_DB)
    return (1 / (1 + np.exp(-(fine - threshold) / _SLOPE_DB))).astype(np.float32)


ACTIVITY = {
    "silero": ActivityBackend("silero", lambda: package_version("silero-vad"), _silero),
    "energy": ActivityBackend("energy", lambda: "1", lambda _, levels: energy_probability(levels)),
}


def speaking(probabilities: Sequence[float] | np.ndarray) -> np.ndarray:  # (F,) bool
    """Probabilities as a decision, with hysteresis."""
    return hysteresis(np.asarray(probabilities), 0.5, 0.35)
