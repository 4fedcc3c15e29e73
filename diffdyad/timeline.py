"""The responder's own voice on the frames of one answer: features, and where it is heard."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from diffdyad.audio import SpeechEncoder
from diffdyad.media import LOUDNESS_TARGET_DB, normalise_loudness

_PIECE_S = 60.0
_BELOW_SPEECH_DB, _BELOW_LOUD_DB = 25.0, 30.0
_SILENCE_DB = -75.0  # re full scale: below it is nothing


class Timeline:
    """The responder's own audio on the frames of one answer, those before t = 0 included (silence there).

    Features are computed window by window: an hour of audio costs the memory of its samples. But for an encoder's
    `phones`: these are heard in the whole recording beforehand, which takes a GB for an hour.
    """

    HEARD_AROUND_S = 2.0
    """What a Hugging Face encoder hears on both sides of a window; mel bands need less and ignore the rest."""

    def __init__(self, encoder: SpeechEncoder, audio: Tensor, num_lead: int):
        self.encoder = encoder
        self.fps, self.sampling_rate = encoder.config.fps, encoder.config.sampling_rate
        self.num_lead = num_lead
        self._last: tuple[tuple[int, int], tuple[Tensor, Tensor]] | None = None
        self.num_frames = num_lead + max(1, round(self.fps * len(audio) / self.sampling_rate))
        silence = torch.zeros(self._sample(num_lead))
        self.waveform = torch.cat([silence, normalise_loudness(audio, self.sampling_rate)])
        self.voice, self.quiet, self.phones = self._voice(), self._quiet(), self._phones()

    def _sample(self, frame: int) -> int:
        return round(frame * self.sampling_rate / self.fps)

    def _slice(self, first: int, stop: int) -> Tensor:
        """Samples of frames [first, stop), silence outside the recording."""
        begin, end = self._sample(first), self._sample(stop)
        inside = self.waveform[max(begin, 0) : max(end, 0)]
        return F.pad(inside, (max(-begin, 0), end - begin - max(-begin, 0) - len(inside)))

    def speech(self, start: int, length: int) -> tuple[Tensor, Tensor]:
        """Features (1, T, L, C) of frames [start, start + length), and whether each was recorded (1, T)."""
        if self._last is not None and self._last[0] == (start, length):
            return self._last[1]
        around = round(self.HEARD_AROUND_S * self.fps)
        device = self.encoder.mean.device
        piece = self._slice(start - around, start + length + around)[None].to(device)
        features = self.encoder.encode(piece, phones=False)[:, around : around + length]
        frames = torch.arange(start, start + length)
        heard = (frames >= 0) & (frames < self.num_frames)
        if self.phones is not None:
            there = self.phones[:, frames.clamp(0, self.num_frames - 1).to(device)]
            features = torch.cat([features, there], -1)
        found = self.encoder.standardise(features, self.voice), heard[None]
        self._last = (start, length), found  # a window is asked for twice where its lips come from scale 1
        return found

    def _voice(self) -> Tensor:
        """The levels of the voice over the whole answer, (1, 2, N), piece by piece."""
        step, device = round(_PIECE_S * self.fps), self.encoder.mean.device
        if not self.encoder.config["normalise_voice"]:
            return torch.zeros(1, 2, 1)
        starts = range(0, self.num_frames, step)
        pieces = (self._slice(first, min(first + step, self.num_frames)) for first in starts)
        spectra = (self.encoder.encode(piece[None].to(device), phones=False)[0] for piece in pieces)
        return self.encoder.voice_of(torch.cat([self.encoder.bands(spectrum) for spectrum in spectra]))[None]

    def _phones(self) -> Tensor | None:
        """What phones are heard in the whole answer, (1, T, 1, N P): of a window alone, the voice is hardly known."""
        if not self.encoder.config["phones"]:
            return None
        device = self.encoder.mean.device
        found = self.encoder.hear(self.waveform[None].to(device))[:, : self.num_frames]
        return F.pad(found, (0, 0, 0, 0, 0, self.num_frames - found.shape[1]))

    def speaking(self, start: int, length: int, hold_s: float = 0.2) -> Tensor:
        """Whether the responder's voice is heard at the frames [start, start + length), held: (T,) float.

        Rather too often than too seldom: what is quiet may still be a word.
        """
        hold = round(hold_s * self.fps)
        loud = self._power(start - hold, start + length + hold) > self.quiet
        return F.max_pool1d(loud.float()[None, None], 2 * hold + 1, stride=1)[0, 0]

    def _power(self, first: int, stop: int) -> Tensor:
        """Mean square of each frame."""
        return self._slice(first, stop).unflatten(0, (stop - first, -1)).square().mean(-1)

    def _quiet(self) -> float:
        """Mean square below which a frame holds no voice: by the level of speech, and by this answer's loud frames."""
        loud = float(self._power(self.num_lead, self.num_frames).quantile(0.95))
        level_db = min(LOUDNESS_TARGET_DB - _BELOW_SPEECH_DB, 10 * math.log10(max(loud, 1e-12)) - _BELOW_LOUD_DB)
        return 10 ** (max(level_db, _SILENCE_DB) / 10)
