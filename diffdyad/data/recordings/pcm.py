"""Sound on the disk at 16 kHz, its channels interleaved as 16-bit samples: what the steps read, a piece at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffdyad.media import SAMPLING_RATE, stream_channels

_BLOCK_S = 60.0


@dataclass(frozen=True)
class Pcm:
    """One channel of such a file. It has the length of a waveform, and slices of it are waveforms in float32.

    channel: its number; None = all of them, averaged. late_s: seconds by which this channel's clock is late; what lies
    before its beginning is silence.
    """

    path: Path
    channel: int | None = 0
    num_channels: int = 1
    late_s: float = 0.0

    def __len__(self) -> int:
        return max(0, os.path.getsize(self.path) // (2 * self.num_channels) + self._shift)

    @property
    def _shift(self) -> int:
        return round(self.late_s * SAMPLING_RATE)

    @property
    def seconds(self) -> float:
        return len(self) / SAMPLING_RATE

    def __getitem__(self, part: slice) -> np.ndarray:  # (S,) float32
        begin, end, step = part.indices(len(self))
        if step != 1:
            raise ValueError(f"expected a slice without a step, got {part}")
        first, last = (min(max(at - self._shift, 0), len(self) - self._shift) for at in (begin, end))
        with self.path.open("rb") as file:
            file.seek(2 * self.num_channels * first)
            raw = np.fromfile(file, "<i2", max(0, last - first) * self.num_channels)
        channels = raw.reshape(-1, self.num_channels)
        samples = channels.mean(1, dtype=np.float32) if self.channel is None else channels[:, self.channel]
        samples = samples.astype(np.float32) / 32768.0
        return np.pad(samples, (max(0, end - begin - len(samples)), 0))

    def blocks(self, seconds: float = _BLOCK_S) -> Iterator[np.ndarray]:
        """The whole channel, so many seconds at a time."""
        size = round(seconds * SAMPLING_RATE)
        for begin in range(0, len(self), size):
            yield self[begin : begin + size]


@dataclass(frozen=True)
class PcmInfo:
    """What was written: channels, seconds, and how alike the first two channels are (correlation; 0 for one alone)."""

    num_channels: int
    seconds: float
    correlation: float


def write_pcm(source: str | os.PathLike, target: Path) -> PcmInfo:
    """A sound or video file's best track as such a file. Raises UserError as `diffdyad.media.read_audio` does."""
    width, count, products = 1, 0, np.zeros(3)
    with target.open("wb") as file:
        for piece in stream_channels(source):
            width, count = piece.shape[1], count + len(piece)
            np.clip(np.rint(piece * 32768.0), -32768, 32767).astype("<i2").tofile(file)
            if width > 1:
                a, b = piece[:, 0], piece[:, 1]
                products += float(a @ a), float(b @ b), float(a @ b)
    power = np.sqrt(products[0] * products[1])
    return PcmInfo(width, count / SAMPLING_RATE, float(products[2] / power) if power > 0 else 0.0)
