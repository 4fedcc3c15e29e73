"""From eSpeak NG's events to phonemes whose times say what the mouth does.

eSpeak NG raises a stop's event at its burst: the closure before it, when the lips are shut, lies in the phoneme
before. And a vowel's event comes up to 30 ms after the release of a voiced stop or nasal, since the transition
counts as the consonant's. Both are corrected against the waveform itself, which is exact: it is synthetic and clean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from diffdyad.data.rehearsal.espeak import Spoken
from diffdyad.data.rehearsal.phones import CONSONANTS, NASALS, STOPS, VOICELESS_STOPS, VOWELS, parse_ipa
from diffdyad.data.rehearsal.signals import frame_energy

_HOP_S = 0.002
_LONGEST_CLOSURE_S = 0.13
_CLOSURE_AFTER_PAUSE_S = 0.07  # lips close this long before the burst that ends a pause
_SHORTEST_S = 0.012
_SILENT_DB = -34.0  # below the loudest: nothing radiates from the mouth


@dataclass(frozen=True)
class Phoneme:
    """One phoneme. symbol: eSpeak NG's IPA name ('' = pause); phone: its class (`phones.PHONES`); times in seconds
    from the utterance's start; stress: 0 none, 1 primary, 2 secondary. A stop's time includes its closure."""

    symbol: str
    phone: str
    start_s: float
    end_s: float
    stress: int = 0


def align(spoken: Spoken) -> list[Phoneme]:
    """Phonemes that tile the waveform without gaps, corrected against it. Times in seconds."""
    duration = len(spoken.waveform) / spoken.sampling_rate
    phonemes = _expand(spoken, duration)
    hop = max(1, round(_HOP_S * spoken.sampling_rate))
    window = round(0.005 * spoken.sampling_rate)
    broad = _decibels(frame_energy(spoken.waveform, window, hop))
    high = _decibels(frame_energy(np.diff(spoken.waveform, prepend=0), 2 * window, hop))
    step = hop / spoken.sampling_rate
    starts = [p.start_s for p in phonemes] + [duration]
    for k, phoneme in enumerate(phonemes):
        before = phonemes[k - 1] if k else None
        if before is None:
            continue
        if phoneme.phone in STOPS:
            starts[k] = _closure(broad, step, starts[k], starts[k - 1], before.phone)
        elif phoneme.phone in VOWELS and (before.phone in NASALS or before.phone in STOPS - VOICELESS_STOPS):
            starts[k] = _steepest(high, step, starts[k] - 0.045, starts[k] + 0.012, starts[k], starts[k - 1], 1)
        elif phoneme.phone in NASALS and before.phone in VOWELS:
            starts[k] = _steepest(high, step, starts[k] - 0.02, starts[k] + 0.03, starts[k], starts[k - 1], -1)
        starts[k] = min(max(starts[k], starts[k - 1] + _SHORTEST_S), starts[k + 1])
    tiled = [replace(p, start_s=starts[k], end_s=starts[k + 1]) for k, p in enumerate(phonemes)]
    return [p for p in tiled if p.end_s > p.start_s]


def _expand(spoken: Spoken, duration: float) -> list[Phoneme]:
    """One Phoneme per phone class and per pause; an event of several classes shares its time equally."""
    phonemes: list[Phoneme] = []
    events = [(sample / spoken.sampling_rate, name) for sample, name in spoken.phonemes]
    if not events or events[0][0] > 0:
        events.insert(0, (0.0, ""))
    for k, (start, name) in enumerate(events):
        end = events[k + 1][0] if k + 1 < len(events) else duration
        parsed = parse_ipa(name)
        phones = parsed.phones or (("SIL",) if name == "" else ())
        if end <= start and phones and phones != ("SIL",) and phonemes and phonemes[-1].phone in VOWELS:
            # a consonant that eSpeak NG sings as the vowel's end ('Paul'): it takes the last third of it
            vowel = phonemes[-1]
            start = vowel.end_s - min(0.07, (vowel.end_s - vowel.start_s) / 3)
            phonemes[-1] = replace(vowel, end_s=start)
        if end <= start or not phones:
            if phonemes and end > start:  # a mark without sound of its own: its time is the neighbour's
                phonemes[-1] = replace(phonemes[-1], end_s=end)
            continue
        if phones == ("SIL",) and phonemes and phonemes[-1].phone == "SIL":
            phonemes[-1] = replace(phonemes[-1], end_s=end)
            continue
        share = (end - start) / len(phones)
        for n, phone in enumerate(phones):
            stress = parsed.stress if phone not in CONSONANTS else 0
            phonemes.append(Phoneme(name, phone, start + n * share, start + (n + 1) * share, stress))
    return phonemes


def _decibels(energy: np.ndarray) -> np.ndarray:
    level = 10 * np.log10(energy + 1e-10)
    return level - np.percentile(level, 97)


def _closure(level: np.ndarray, step: float, burst: float, earliest: float, before: str) -> float:
    """Where the silence that ends with this stop's burst began."""
    longest = _CLOSURE_AFTER_PAUSE_S if before == "SIL" else _LONGEST_CLOSURE_S
    first = int(max(burst - longest, earliest + (0 if before == "SIL" else 0.02)) / step)
    last = int(burst / step) - 1  # the window about the burst already holds some of it
    quiet = level[first:last] < _SILENT_DB
    if not len(quiet) or not quiet[-1]:
        return burst
    loud = np.flatnonzero(~quiet)
    return (first + (loud[-1] + 1 if len(loud) else 0)) * step


def _steepest(
    level: np.ndarray, step: float, low: float, high: float, default: float, earliest: float, sign: int
) -> float:
    """Where the level rises (sign 1) or falls (-1) fastest, over 8 ms, between two times; at least 6 dB of it."""
    half = 2
    first = max(int(max(low, earliest + _SHORTEST_S) / step), half)
    last = min(int(high / step), len(level) - half)
    if last - first < 2:
        return default
    slope = sign * (level[first + half : last + half] - level[first - half : last - half])
    best = int(np.argmax(slope))
    return (first + best) * step if slope[best] >= 6 else default
