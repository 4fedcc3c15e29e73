"""What a voice makes of phrases: samples, phonemes and words on one clock, whichever engine speaks."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from xml.sax.saxutils import unescape

import numpy as np

from diffdyad.data.rehearsal import espeak, flite
from diffdyad.data.rehearsal.alignment import Phoneme, align
from diffdyad.data.rehearsal.espeak import Phrase
from diffdyad.data.rehearsal.voices import CALM_RATE, Voice

_FLITE_PHONES = {"pau": "SIL", "axr": "ER"}  # the others are the classes' names


@dataclass(frozen=True)
class Word:
    word: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Take:
    """One phrase as an engine said it. Samples (S,) float32 in [-1, 1]; phonemes tile them; times in seconds."""

    waveform: np.ndarray
    sampling_rate: int
    phonemes: list[Phoneme]
    words: list[Word]


def takes(phrases: list[Phrase], voice: Voice, seed: int) -> list[Take]:
    """Phrases one after another in this voice; same arguments, same bytes. Raises UserError without its engine."""
    if voice.engine == "flite":
        return [_by_flite(phrase, voice, seed + number) for number, phrase in enumerate(phrases)]
    spoken = espeak.speak(phrases, voice.accent, voice.variant(), seed)
    return [_by_espeak(said, phrase.ssml) for said, phrase in zip(spoken, phrases, strict=True)]


def _by_flite(phrase: Phrase, voice: Voice, seed: int) -> Take:
    """Marks of words that stand out are left out: the engine has none."""
    text = unescape(re.sub(r"<[^>]*>", "", phrase.ssml))
    octaves = (phrase.pitch - 50) / 50
    pitch = 2**octaves * voice.pitch_hz / voice.resample / flite.PITCH_HZ[voice.base]
    said = flite.speak(text, voice.base, CALM_RATE / phrase.rate, pitch, seed)
    duration = len(said.waveform) / said.sampling_rate
    phonemes: list[Phoneme] = []
    words: dict[int, Word] = {}
    at = 0.0
    for segment in said.segments:
        end = min(segment.end_s, duration)
        if end <= at:
            continue
        phone = _FLITE_PHONES.get(segment.name, segment.name.upper())
        if phone == "SIL":
            phonemes.append(Phoneme("", phone, at, end))
        else:
            phonemes.append(Phoneme(segment.name, phone, at, end, segment.stress))
            if segment.word:
                first = words.get(segment.token, Word(segment.word, at, end))
                words[segment.token] = Word(first.word, first.start_s, end)
        at = end
    if phonemes:
        phonemes[-1] = replace(phonemes[-1], end_s=duration)
    return Take(said.waveform, said.sampling_rate, phonemes, list(words.values()))


def _by_espeak(said: espeak.Spoken, ssml: str) -> Take:
    phonemes = align(said)
    return Take(said.waveform, said.sampling_rate, phonemes, _words(said, ssml, phonemes))


def _words(said: espeak.Spoken, ssml: str, phonemes: list[Phoneme]) -> list[Word]:
    """Words by their place in the text, on the phonemes nearest to their events.

    eSpeak NG says some words as one ('would have'): they share its phonemes by their letters."""
    tokens = [m for m in re.finditer(r"[^\s<>]+(?![^<]*>)", ssml) if _bare(m.group())]
    found: dict[int, float] = {}  # token -> start; '1995' and "don't" raise several events, the first counts
    for sample, position in said.words:
        for index, token in enumerate(tokens):
            if token.start() <= position < token.end():
                found.setdefault(index, sample / said.sampling_rate)
                break
    voiced = [p for p in phonemes if p.phone != "SIL"]
    onsets, ends = (np.array([getattr(p, name) for p in voiced]) for name in ("start_s", "end_s"))
    heads = sorted(found)
    first = [int(np.argmin(abs(onsets - found[head]))) for head in heads] + [len(voiced)]
    words = []
    for k, head in enumerate(heads):
        stop = heads[k + 1] if k + 1 < len(heads) else len(tokens)
        if first[k + 1] <= first[k]:
            continue
        said_as_one = [_bare(t.group()) for t in tokens[head:stop]]
        begin, end = float(onsets[first[k]]), float(ends[first[k + 1] - 1])
        edges = begin + (end - begin) * np.cumsum([0, *map(len, said_as_one)]) / sum(map(len, said_as_one))
        words += [Word(w, float(edges[n]), float(edges[n + 1])) for n, w in enumerate(said_as_one)]
    return words


def _bare(token: str) -> str:
    """An SSML token without entities and punctuation; '' for '&amp;', which is no word."""
    return re.sub(r"^\W+|\W+$", "", unescape(token))
