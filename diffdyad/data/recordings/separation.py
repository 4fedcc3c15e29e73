"""One microphone, two voices at once: the recording separated, and each person's stream taken where both speak.

Backend `asteroid`: separation networks of the Asteroid package (Pariente et al. 2020; MIT) that take waveforms apart
(Conv-TasNet, Luo and Mesgarani 2019; DPRNN, Luo et al. 2020), over chunks that are faded over into each other. Which
of a chunk's streams is whose is what diarization says: a person's has the more energy while that person speaks alone.
Both speak at once where both streams hold a voice. Only there is a stream better than the microphone, which has no
artefacts; everywhere else, the gate stays. Where the streams do not tell the two apart, it stays everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from diffdyad.data.encoded import weights_of
from diffdyad.data.recordings import activity
from diffdyad.data.recordings.frames import HOP, Span, levels_db, mask_spans, merge, smooth_db, spans_mask
from diffdyad.data.recordings.hearing import Heard
from diffdyad.data.recordings.pcm import Pcm
from diffdyad.data.recordings.steps import Steps
from diffdyad.data.recordings.weights import package_version
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE
from diffdyad.pretrained import cached_file

SEPARATION = ("none", "asteroid")
DEFAULT_ASTEROID = "JorisCos/ConvTasNet_Libri2Mix_sepnoisy_16k"
NETWORKS = ("ConvTasNet", "DPRNNTasNet")
INSTALL = (
    "pip install --no-deps 'asteroid>=0.7,<0.8' 'asteroid-filterbanks>=0.4,<0.5' && "
    "pip install scipy soundfile requests"
)
"""What it asks for besides is for training."""

CHUNK_S, FADE_S = 10.0, 2.0
LEAST_APART_DB = 10.0
"""By how much a stream must be louder while its person speaks than while the other does."""

_WEIGHTS = "pytorch_model.bin"
_LEVEL = 0.05  # root mean square of what a network is given
_SMOOTH_S, _JOIN_S, _SHORTEST_S = 0.1, 0.2, 0.3
_EDGE = 320  # samples over which the microphone is faded into a stream


@dataclass(frozen=True)
class Overlaps:
    """Where both speak at once. spans: on frames of 10 ms; path: both streams there, one span after the other, with
    half a fade on either side; levels: (2, F) dB, of the streams all along."""

    path: Path
    spans: list[Span]
    levels: np.ndarray

    def put(self, samples: np.ndarray, side: int, begin: int) -> np.ndarray:  # (S,)
        """The microphone's samples from `begin` on, with the person's stream where both speak."""
        samples, offset = samples.copy(), 0
        stored = np.memmap(self.path, "<i2", "r").reshape(-1, 2) if self.spans else None
        for first, last in map(_widened, self.spans):
            a, b = max(first, begin), min(last, begin + len(samples))
            if a < b:
                at = np.arange(a, b)
                weight = np.clip((np.minimum(at - first, last - 1 - at) + 0.5) / _EDGE, 0, 1).astype(np.float32)
                stream = stored[offset + a - first : offset + b - first, side].astype(np.float32) / 32768.0
                samples[a - begin : b - begin] += weight * (stream - samples[a - begin : b - begin])
            offset += last - first
        return samples


def _widened(span: Span) -> tuple[int, int]:
    return round(span[0] * 100) * HOP - _EDGE // 2, round(span[1] * 100) * HOP + _EDGE // 2


class Separator:
    """A network that makes two of one. name: a folder with Asteroid's pytorch_model.bin, or a name on the Hub.

    Raises UserError where the package or the weights are not there, or are for something else.
    """

    def __init__(self, name: str, revision: str | None = None):
        try:
            from asteroid.models import BaseModel
        except ImportError as error:
            raise UserError(f"the separation backend asteroid needs the package asteroid, found none ({error}); "
                            f"install it: {INSTALL}") from None  # fmt: skip
        path = cached_file(name, _WEIGHTS, revision, "name another in `separation_model`")
        self.identity = weights_of(name) or f"{name}@{path.parent.name}"
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)  # nothing pickled is executed
            kind, rate = content["model_name"], _rate(content)
        except Exception as error:  # whatever a damaged or foreign file makes torch raise
            raise UserError(f"expected a network that Asteroid has saved, cannot read {path}: "
                            f"{' '.join(str(error).split())[:200]}") from None  # fmt: skip
        if kind not in NETWORKS or rate != SAMPLING_RATE:
            raise UserError(f"expected one of {', '.join(NETWORKS)} at {SAMPLING_RATE} Hz for separation_model, found "
                            f"{kind} at {rate:g} Hz in {name}")  # fmt: skip
        try:
            self.network = BaseModel.from_pretrained(content).eval().requires_grad_(False)
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            raise UserError(f"the weights do not fit Asteroid's {kind} in {path}: "
                            f"{' '.join(str(error).split())[:200]}") from None  # fmt: skip
        self.name = kind
        found = self.network(torch.zeros(1, SAMPLING_RATE // 10)).shape[1]
        if found != 2:
            raise UserError(f"expected a network that makes two voices of one sound, found {found} in {name}")

    def streams(self, mixture: np.ndarray) -> np.ndarray:  # (S,) -> (2, S)
        """Both streams, as loud (and with the sign) as together they come nearest to the mixture: networks that are
        trained by a ratio give any scale, the same for both, as both come out of one decoder."""
        sound = torch.from_numpy(mixture)
        level = sound.square().mean().sqrt()
        if not level > 1e-6:
            return np.zeros((2, len(mixture)), np.float32)
        with torch.inference_mode():
            found = self.network((sound * (_LEVEL / level))[None])[0]
        total = found.sum(0)
        return (found * (total @ sound) / (total @ total).clamp_min(1e-9)).numpy()


def _rate(content: dict) -> float:
    """Hz; early files have it among the settings of their training alone."""
    known = content["model_args"].get("sample_rate")
    return float(known or content.get("training_config", {}).get("data", {}).get("sample_rate", 8000))


@lru_cache(maxsize=1)
def load_separator(name: str, revision: str | None = None) -> Separator:
    return Separator(name, revision)


def separate(
    heard: Heard, steps: Steps, backend: str, model: str | None = None, revision: str | None = None,
    activity_backend: str = "silero",
) -> Heard:
    """With one microphone for two people: what both say at once belongs to both then, each with the own stream; a step.

    Everything else is returned as it is. Raises UserError for a backend that is not known or not installed.
    """
    if backend not in SEPARATION:
        raise UserError(f"expected a backend for separation among {', '.join(SEPARATION)}, found {backend!r}")
    if backend == "none" or heard.layout != "mixed" or len(heard.spans) != 2:
        return heard
    separator, voice = load_separator(model or DEFAULT_ASTEROID, revision), activity.activity_backend(activity_backend)

    def make(folder: Path) -> dict:
        whole = folder / "streams.pcm"
        with whole.open("wb") as file:
            for streams in separated(heard.sound[0], heard.spans, separator):
                np.clip(np.rint(streams.T * 32768.0), -32768, 32767).astype("<i2").tofile(file)
        sounds = [Pcm(whole, side, 2) for side in (0, 1)]
        levels = np.stack([levels_db(pcm.blocks()) for pcm in sounds])
        speech = np.stack([voice.run(pcm, level) for pcm, level in zip(sounds, levels)])
        apart = apart_db(heard.spans, levels)
        spans = find_overlaps(heard.spans, levels, speech) if min(apart) >= LEAST_APART_DB else []
        np.save(folder / "levels.npy", levels.astype(np.float32))
        with (folder / "overlaps.pcm").open("wb") as file:
            for first, last in map(_widened, spans):
                inside = [pcm[max(0, first) : min(last, len(pcm))] for pcm in sounds]
                pad = (max(0, -first), max(0, last - len(sounds[0])))
                streams = np.stack([np.pad(samples, pad) for samples in inside], 1)
                np.rint(streams * 32768.0).astype("<i2").tofile(file)
        whole.unlink()
        return {"overlaps": [list(span) for span in spans], "apart_db": [round(float(x), 2) for x in apart]}

    settings = {"weights": separator.identity, "network": separator.name, "chunk_s": CHUNK_S, "fade_s": FADE_S,
                "least_apart_db": LEAST_APART_DB, "activity": activity_backend,
                "activity_version": voice.version()}  # fmt: skip
    version = f"asteroid {package_version('asteroid')}"
    made = steps.run("separation", backend, version, settings, heard.keys, make)
    spans, notes = [tuple(span) for span in made.values["overlaps"]], list(heard.notes)
    if min(made.values["apart_db"]) < LEAST_APART_DB:
        found = " and ".join(f"{x:.1f}" for x in made.values["apart_db"])
        notes.append(f"separation does not tell the voices apart ({found} dB, not {LEAST_APART_DB:g}): gated alone")
    overlaps = Overlaps(made.folder / "overlaps.pcm", spans, np.load(made.folder / "levels.npy"))
    both = [merge([*own, *spans], 1e-6) for own in heard.spans]
    return replace(heard, spans=both, overlaps=overlaps, keys=[*heard.keys, made.key], notes=notes)


def separated(pcm: Pcm, spans: list[list[Span]], separator: Separator) -> Iterator[np.ndarray]:  # (2, S)
    """Both people's streams, piece by piece; silence where nobody speaks."""
    chunk, fade = round(CHUNK_S * SAMPLING_RATE), round(FADE_S * SAMPLING_RATE)
    masks = np.stack([spans_mask(own, -(-len(pcm) // HOP)) for own in spans])
    rising = np.linspace(0, 1, fade, dtype=np.float32)
    tail = np.zeros((2, 0), np.float32)
    for begin in range(0, len(pcm), chunk - fade):
        mixture = pcm[begin : min(begin + chunk, len(pcm))]
        speaks = masks[:, begin // HOP : -(-(begin + len(mixture)) // HOP)]
        streams = separator.streams(mixture) if speaks.any() else np.zeros((2, len(mixture)), np.float32)
        if belongs(streams, speaks) < 0:
            streams = streams[::-1].copy()
        shared = min(tail.shape[1], streams.shape[1])
        streams[:, :shared] = tail[:, :shared] + rising[:shared] * (streams[:, :shared] - tail[:, :shared])
        if begin + chunk >= len(pcm):
            yield streams
            return
        tail = streams[:, -fade:]
        yield streams[:, :-fade]


def belongs(streams: np.ndarray, speaks: np.ndarray) -> float:  # (2, S), (2, F) -> -2 to 2
    """How far the streams are in the order of the people; below 0: the other way round."""
    frames = np.pad(streams, ((0, 0), (0, -streams.shape[1] % HOP))).reshape(2, -1, HOP)
    power = np.square(frames, dtype=np.float64).sum(-1)[:, : speaks.shape[1]]
    found = 0.0
    for side, own in enumerate((speaks[0] & ~speaks[1], speaks[1] & ~speaks[0])):
        mine, other = power[side, own].sum(), power[1 - side, own].sum()
        found += (mine - other) / max(mine + other, 1e-12)
    return found


def _loudness(spans: list[list[Span]], levels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each stream (dB): while its person speaks alone (the louder half of it), while the other does; and all along,
    (2, F)."""
    masks = [spans_mask(own, levels.shape[1]) for own in spans]
    smooth = np.stack([smooth_db(level, _SMOOTH_S) for level in levels])
    usual, leak = np.full(2, -120.0), np.full(2, -120.0)
    for side in (0, 1):
        own, other = masks[side] & ~masks[1 - side], masks[1 - side] & ~masks[side]
        if own.any() and other.any():
            usual[side], leak[side] = np.median(smooth[side, own]), np.median(smooth[side, other])
    return usual, leak, smooth


def apart_db(spans: list[list[Span]], levels: np.ndarray) -> np.ndarray:  # (2,)
    """By how much each stream is louder while its person speaks than while the other does; 0 where one never does."""
    usual, leak, _ = _loudness(spans, levels)
    return usual - leak


def find_overlaps(spans: list[list[Span]], levels: np.ndarray, speech: np.ndarray) -> list[Span]:
    """Where both streams hold a voice. levels: (2, F) dB, speech: (2, F) probabilities, of the streams."""
    usual, leak, smooth = _loudness(spans, levels)
    anybody = np.any([spans_mask(own, levels.shape[1]) for own in spans], axis=0)
    loud = smooth >= ((usual + leak) / 2)[:, None]
    both = anybody & loud.all(0) & np.all([activity.speaking(row) for row in speech], axis=0)
    return [(a, b) for a, b in merge(mask_spans(both), _JOIN_S) if b - a >= _SHORTEST_S]
