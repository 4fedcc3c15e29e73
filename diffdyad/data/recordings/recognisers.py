"""Speech recognisers, by name; each loads once per process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from diffdyad.data.recordings.weights import EXTRA, package_version
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE
from diffdyad.text import TimedWord


@dataclass(frozen=True)
class Recogniser:
    """words: a waveform (S,) at 16 kHz, and its language -> words with times in it; transcribes: whether they can be
    taken as said. settings: what else they depend on; language: the recogniser's name for a BCP 47 tag; detect: the
    language of waveforms, "" = not known."""

    version: str
    transcribes: bool
    words: Callable[[np.ndarray, str], list[TimedWord]]
    settings: dict[str, Any] = field(default_factory=dict)
    language: Callable[[str], str] = lambda tag: tag
    detect: Callable[[Sequence[np.ndarray]], str] = lambda waveforms: ""


def load(name: str, model: str | None = None, revision: str | None = None) -> Recogniser:
    """model, revision: for those whose weights are named. Raises UserError where the package or the weights are
    missing."""
    return _whisper(model, revision) if name == "whisper" else _pocketsphinx()


def _whisper(model: str | None, revision: str | None) -> Recogniser:
    from diffdyad.data.recordings import inventions
    from diffdyad.data.recordings.whisper import DEFAULT_WHISPER, load_whisper

    whisper = load_whisper(model or DEFAULT_WHISPER, revision)
    settings = {"weights": whisper.identity, **inventions.LIMITS}
    version = f"transformers {package_version('transformers')}"
    return Recogniser(version, True, whisper.words, settings, whisper.language, whisper.detect)


@lru_cache(maxsize=1)
def _pocketsphinx() -> Recogniser:
    """English; what it hears is often wrong, whether it hears words at all is the signal."""
    try:
        from pocketsphinx import Decoder
    except ImportError:
        raise UserError(f"the words backend pocketsphinx needs its package, found none; install it: {EXTRA}") from None
    decoder = Decoder(samprate=SAMPLING_RATE, loglevel="FATAL", bestpath=False)

    def words(waveform: np.ndarray, language: str) -> list[TimedWord]:
        if not waveform.any():
            return []  # digital silence: it would hear in it what the sound before was like
        pcm = np.clip(np.rint(waveform * _gain(waveform) * 32767), -32768, 32767).astype("<i2")
        decoder.start_utt()
        decoder.process_raw(pcm.tobytes(), full_utt=True)
        decoder.end_utt()
        return [
            TimedWord(segment.word.split("(")[0], segment.start_frame / 100, (segment.end_frame + 1) / 100)
            for segment in decoder.seg() or ()
            if not segment.word.startswith(("<", "[", "+"))
        ]

    return Recogniser(package_version("pocketsphinx"), False, words)


def _gain(waveform: np.ndarray) -> float:
    level = float(np.sqrt(np.square(waveform, dtype=np.float64).mean())) if len(waveform) else 0.0
    return min(0.08 / level, 30.0) if level > 0 else 1.0
