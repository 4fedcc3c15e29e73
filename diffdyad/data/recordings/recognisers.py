"""Speech recognisers, by name; each loads once per process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from diffdyad.data.recordings.weights import EXTRA, package_version
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE
from diffdyad.text import TimedWord


@dataclass(frozen=True)
class Recogniser:
    """words: a waveform (S,) at 16 kHz -> words with times in it; transcribes: whether they can be taken as said."""

    version: str
    language: str
    transcribes: bool
    words: Callable[[np.ndarray], list[TimedWord]]


@lru_cache(maxsize=1)
def load(name: str) -> Recogniser:
    """Raises UserError where the package is missing."""
    return {"pocketsphinx": _pocketsphinx}[name]()


def _pocketsphinx() -> Recogniser:
    """English; what it hears is often wrong, whether it hears words at all is the signal."""
    try:
        from pocketsphinx import Decoder
    except ImportError:
        raise UserError(f"the words backend pocketsphinx needs its package, found none; install it: {EXTRA}") from None
    decoder = Decoder(samprate=SAMPLING_RATE, loglevel="FATAL", bestpath=False)

    def words(waveform: np.ndarray) -> list[TimedWord]:
        pcm = np.clip(np.rint(waveform * _gain(waveform) * 32767), -32768, 32767).astype("<i2")
        decoder.start_utt()
        decoder.process_raw(pcm.tobytes(), full_utt=True)
        decoder.end_utt()
        return [
            TimedWord(segment.word.split("(")[0], segment.start_frame / 100, (segment.end_frame + 1) / 100)
            for segment in decoder.seg() or ()
            if not segment.word.startswith(("<", "[", "+"))
        ]

    return Recogniser(package_version("pocketsphinx"), "en", False, words)


def _gain(waveform: np.ndarray) -> float:
    level = float(np.sqrt(np.square(waveform, dtype=np.float64).mean())) if len(waveform) else 0.0
    return min(0.08 / level, 30.0) if level > 0 else 1.0
