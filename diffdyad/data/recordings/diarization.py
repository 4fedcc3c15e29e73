"""Who speaks when, with one microphone for both: voices told apart by a speaker network, and clustered.

Backend `resemblyzer`: the GE2E network of the Resemblyzer package (Wan et al. 2018; Apache-2.0), windows of 1 s every
0.25 s of speech, clusters by k-means and by average linkage (whichever are further apart), a Viterbi pass over time.
One voice at a time: speech over speech is given to the louder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from diffdyad.data.recordings.frames import Span, merge, viterbi
from diffdyad.data.recordings.pcm import Pcm
from diffdyad.data.recordings.weights import EXTRA, package_version, packaged_file
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE

DIARIZATION = ("resemblyzer",)
INSTALL = "pip install --no-deps 'Resemblyzer>=0.1.4,<0.2'"
"""Only its weights are used; its own needs (a compiler, librosa) are not."""


WINDOW_S, STEP_S = 1.0, 0.25
_MEL_HOP, _MEL_WINDOW, _BANDS = 160, 400, 40
_COLUMNS = round(WINDOW_S * SAMPLING_RATE) // _MEL_HOP
_LEVEL_DB = -30.0  # of speech, as the network was trained
_PAUSE_S = 0.5  # of one speaker, who still speaks: as labels by hand have it (3 % of error on one of two recordings)
_STAY = 0.5 / 20.0  # cosine that a change of speakers must gain
_MOST_CLUSTERED = 2000  # windows that clusters are found from; all are given to one then
_BATCH = 256


@dataclass(frozen=True)
class Voices:
    """Windows of speech, and the voice in each. embeddings: (N, 256) of unit length; spans: N, in order."""

    embeddings: np.ndarray
    spans: list[Span]


class VoiceEncoder(torch.nn.Module):
    """Three LSTM layers and a projection: (N, columns, 40) mel power -> (N, 256), of unit length."""

    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(_BANDS, 256, 3, batch_first=True)
        self.linear = torch.nn.Linear(256, 256)

    def forward(self, mels: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(mels)
        raw = self.linear(hidden[-1]).relu()
        return raw / raw.norm(dim=1, keepdim=True).clamp_min(1e-9)


@lru_cache(maxsize=1)
def load_voice_encoder() -> VoiceEncoder:
    """Raises UserError where the package is not installed."""
    path = packaged_file("resemblyzer", "pretrained.pt", "the diarization backend resemblyzer", INSTALL)
    weights = torch.load(path, map_location="cpu", weights_only=True)["model_state"]  # nothing pickled is executed
    network = VoiceEncoder()
    network.load_state_dict({name: value for name, value in weights.items() if not name.startswith("similarity")})
    return network.eval().requires_grad_(False)


def diarization_version(backend: str) -> str:
    """Raises UserError for an unknown backend, or one that is not installed."""
    if backend not in DIARIZATION:
        raise UserError(f"expected a diarization backend among {', '.join(DIARIZATION)}, found {backend!r}")
    load_voice_encoder()
    return package_version("Resemblyzer")


def voices_of(pcm: Pcm, speech: list[Span]) -> Voices:
    """Embeddings of every quarter second of speech; windows stay inside their span, short spans are repeated."""
    if not speech:
        return Voices(np.zeros((0, 256), np.float32), [])
    network = load_voice_encoder()
    gain = _gain(pcm, speech)
    found, spans = [], []
    batch: list[Tensor] = []

    def embed() -> None:
        if batch:
            with torch.inference_mode():
                found.append(network(torch.stack(batch)).numpy())
            batch.clear()

    for start, end in speech:
        for mel, span in _windows(pcm, start, end, gain):
            batch.append(mel)
            spans.append(span)
            if len(batch) == _BATCH:
                embed()
    embed()
    return Voices(np.concatenate(found), spans)


def _gain(pcm: Pcm, speech: list[Span]) -> float:
    power, count = 0.0, 1
    for start, end in speech:
        for begin in range(round(start * SAMPLING_RATE), round(end * SAMPLING_RATE), 60 * SAMPLING_RATE):
            piece = pcm[begin : min(begin + 60 * SAMPLING_RATE, round(end * SAMPLING_RATE))]
            power, count = power + float(np.square(piece, dtype=np.float64).sum()), count + len(piece)
    return float(10 ** (_LEVEL_DB / 20) / max(np.sqrt(power / count), 1e-6))


def _windows(pcm: Pcm, start: float, end: float, gain: float) -> Iterator[tuple[Tensor, Span]]:
    """(mel (columns, 40), the quarter second that it stands for), a minute of the span at a time."""
    count = max(1, round((end - start) / STEP_S))
    edges = np.linspace(start, end, count + 1)
    for first in range(0, count, 240):
        last = min(first + 240, count)
        left = max(start, edges[first] - WINDOW_S)
        right = min(end, edges[last] + WINDOW_S)
        mel = mel_power(torch.from_numpy(pcm[round(left * SAMPLING_RATE) : round(right * SAMPLING_RATE)] * gain))
        for number in range(first, last):
            begin = min((edges[number] + edges[number + 1] - WINDOW_S) / 2, end - WINDOW_S)
            column = max(0, min(round((max(begin, start) - left) * 100), len(mel) - _COLUMNS))
            window = mel[column : column + _COLUMNS]
            if len(window) < _COLUMNS:
                window = window.repeat(-(-_COLUMNS // len(window)), 1)[:_COLUMNS]
            yield window, (float(edges[number]), float(edges[number + 1]))


def mel_power(waveform: Tensor) -> Tensor:  # (S,) -> (S // 160 + 1, 40)
    """Power in 40 mel bands (Slaney's scale and areas) of 25 ms every 10 ms: what the voice encoder was trained on."""
    spectrum = torch.stft(
        waveform, _MEL_WINDOW, _MEL_HOP, window=torch.hann_window(_MEL_WINDOW), center=True, pad_mode="constant",
        return_complex=True,
    )  # fmt: skip
    return spectrum.abs().square().T @ _mel_filters()


@lru_cache(maxsize=1)
def _mel_filters() -> Tensor:  # (201, 40)
    """Slaney's mel scale: linear below 1 kHz, logarithmic above; triangles of unit area."""
    top = 15 + np.log(SAMPLING_RATE / 2 / 1000) / (np.log(6.4) / 27)
    mels = np.linspace(0, top, _BANDS + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
    bins = np.linspace(0, SAMPLING_RATE / 2, _MEL_WINDOW // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])
    return torch.from_numpy(triangles.astype(np.float32))


# --------------------------------------------------------------------------------------------------------- clustering


def diarize(voices: Voices, num_speakers: int = 2) -> list[list[Span]]:
    """Spans of each speaker, exactly so many, in order of their first word; empty ones where nobody else is found."""
    labels = cluster(voices.embeddings, num_speakers)
    order = list(dict.fromkeys(labels.tolist()))
    spans: list[list[Span]] = [[] for _ in range(num_speakers)]
    for label, span in zip(labels.tolist(), voices.spans):
        spans[order.index(label)].append(span)
    # windows of a span touch; between spans, one speaker's pause is still that speaker's
    return [_without(merge(own, _PAUSE_S), spans, number) for number, own in enumerate(spans)]


def _without(merged: list[Span], spans: list[list[Span]], number: int) -> list[Span]:
    """Pauses that were closed over another speaker's words are opened again."""
    others = merge([span for n, own in enumerate(spans) if n != number for span in own], 1e-6)
    for start, end in others:
        cut = []
        for a, b in merged:
            cut += [(a, b)] if end <= a or start >= b else [s for s in ((a, start), (end, b)) if s[1] - s[0] > 1e-6]
        merged = cut
    return merged


def cluster(embeddings: np.ndarray, num_speakers: int) -> np.ndarray:  # (N, C) -> (N,)
    """The speaker of each window. Raises UserError without scikit-learn."""
    if num_speakers < 2 or len(embeddings) <= num_speakers:
        return np.zeros(len(embeddings), int) if num_speakers < 2 else np.arange(len(embeddings))
    try:
        from sklearn.cluster import AgglomerativeClustering, KMeans
        from sklearn.metrics import silhouette_score
    except ImportError:
        raise UserError(f"diarization needs scikit-learn, found none; install it: {EXTRA}") from None
    few = embeddings[:: -(-len(embeddings) // _MOST_CLUSTERED)]
    best, chosen = -2.0, np.zeros(len(embeddings), int)
    for method in (
        KMeans(num_speakers, n_init=10, random_state=0),
        AgglomerativeClustering(num_speakers, metric="cosine", linkage="average"),
    ):
        labels = _along(embeddings, few, method.fit_predict(few), num_speakers)
        found = labels[:: -(-len(embeddings) // _MOST_CLUSTERED)]
        if len(set(found.tolist())) < 2:
            continue
        score = silhouette_score(few, found, metric="cosine")
        if score > best + 1e-6:
            best, chosen = score, labels
    return chosen


def _along(embeddings: np.ndarray, few: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Labels of all windows, from clusters of some: nearest centre, with a price on each change, until it rests."""
    centres = np.stack([few[labels == k].mean(0) for k in range(count)])
    found = None
    for _ in range(5):
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-9)
        now = viterbi(embeddings @ centres.T, _STAY)
        if found is not None and (now == found).all():
            break
        if len(set(now.tolist())) < count:
            return now if found is None else found
        found = now
        centres = np.stack([embeddings[found == k].mean(0) for k in range(count)])
    return found
