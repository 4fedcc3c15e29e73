"""Synthetic speech with the truth about it: who says what, when, and how the mouth moves.

An engine (eSpeak NG, or Flite) speaks phrase by phrase, each with a pitch, range, rate and loudness of its own and with
words that stand out; pauses, breaths and hesitations are ours. Then pitch and formants are shifted together, the voice
made breathy, its spectrum tilted and its level set. Everything is drawn from the generator: same generator, same bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from xml.sax.saxutils import escape

import numpy as np

from diffdyad.data.rehearsal import sounds
from diffdyad.data.rehearsal.alignment import Phoneme
from diffdyad.data.rehearsal.espeak import Phrase
from diffdyad.data.rehearsal.signals import (
    SAMPLING_RATE,
    noise_excited,
    resample,
    root_mean_square,
    tilt_gain,
)
from diffdyad.data.rehearsal.takes import Take, Word, takes
from diffdyad.data.rehearsal.voices import Voice, draw_voice

__all__ = ["Phoneme", "Utterance", "Voice", "Word", "draw_voice", "silence", "synthesise", "synthesise_turn"]

_LEVEL_DB = -24.0  # rms of the spoken part of calm speech, dB of full scale
_FILLERS = {"en": ("um", "uh", "er", "well"), "de": ("ähm", "äh", "also"), "fr": ("euh",), "es": ("eh", "pues")}
_JOINTS = {
    "en": ["and", "but", "because", "so", "when", "which", "that", "while", "if", "where", "after", "though"],
    "de": ["und", "aber", "weil", "dass", "wenn", "denn", "oder"],
    "fr": ["et", "mais", "parce", "que", "quand", "qui"],
    "es": ["y", "pero", "porque", "cuando", "que"],
}


@dataclass(frozen=True)
class Utterance:
    """What one person says in one turn.

    waveform (S,) float32, 16 kHz, dry and clean; phonemes tile [0, duration_s] without gaps (`SIL` where nothing
    is said); words in order; text: what was asked for; valence and arousal in [-1, 1]: what was asked for;
    sound: the non-verbal sound in it ('none', 'laugh', 'sigh', ...)."""

    waveform: np.ndarray
    phonemes: list[Phoneme]
    words: list[Word]
    text: str = ""
    valence: float = 0.0
    arousal: float = 0.0
    sound: str = "none"
    sampling_rate: int = field(default=SAMPLING_RATE)

    @property
    def duration_s(self) -> float:
        return len(self.waveform) / self.sampling_rate


def synthesise(
    text: str, voice: Voice, valence: float = 0.0, arousal: float = 0.0, generator: np.random.Generator | None = None
) -> Utterance:
    """Speaks a text of the voice's language. Arousal makes it higher, livelier, faster, louder and brighter;
    valence is in the words, not in the voice (a synthetic voice carries little of it: none is claimed).

    Raises UserError where eSpeak NG is missing, ValueError for an empty text."""
    if not text.strip():
        raise ValueError("expected a text with words in it, got an empty one")
    generator = generator or np.random.default_rng(0)
    plans = _plan(text, voice, arousal, generator)
    seed = int(generator.integers(1, 2**31 - 1))
    spoken = takes([plan.phrase for plan in plans], voice, seed)
    pieces = [_piece(said, voice, arousal, generator) for said in spoken]
    utterance = _join([piece for piece in pieces if piece is not None], plans, voice, generator)
    utterance = replace(utterance, text=text, valence=valence, arousal=arousal)
    return _level(utterance, voice, arousal)


def synthesise_turn(
    text: str,
    voice: Voice,
    valence: float = 0.0,
    arousal: float = 0.0,
    kind: str = "verbal",
    sound: str = "none",
    generator: np.random.Generator | None = None,
) -> Utterance:
    """A dialogue's turn: verbal (text), nonverbal (sound alone), mixed (sound and text), silent (neither).

    A filler of a mixed turn is spoken before the text; a laugh may also follow it."""
    generator = generator or np.random.default_rng(0)
    if kind not in ("verbal", "nonverbal", "mixed", "silent"):
        raise ValueError(f"expected kind verbal, nonverbal, mixed or silent, got {kind!r}")
    if kind == "silent":
        quiet = silence(float(generator.uniform(1.5, 4.0)))
        return replace(quiet, text=text, valence=valence, arousal=arousal)
    if kind == "verbal" or sound == "none":
        return synthesise(text, voice, valence, arousal, generator)
    if sound == "filler":
        words = str(generator.choice(_FILLERS.get(voice.language, ("e",))[:2]))
        first = synthesise(words + ",", voice, valence, arousal - 0.3, generator)
    else:
        waveform, phonemes = sounds.make(sound, voice, arousal, generator)
        first = _level(Utterance(waveform, phonemes, [], sound=sound), voice, arousal, sounds.LEVEL_DB[sound])
    first = replace(first, text=text, valence=valence, arousal=arousal, sound=sound)
    if kind == "nonverbal":
        return first
    second = synthesise(text, voice, valence, arousal, generator)
    if sound == "laugh" and generator.random() < 0.4:
        first, second = second, first
    pause = silence(float(generator.uniform(0.05, 0.35)))
    joined = concatenate([first, pause, second])
    return replace(joined, text=text, valence=valence, arousal=arousal, sound=sound)


def silence(duration_s: float) -> Utterance:
    """Nothing said for a while."""
    size = round(duration_s * SAMPLING_RATE)
    phonemes = [Phoneme("", "SIL", 0.0, size / SAMPLING_RATE)]
    return Utterance(np.zeros(size, np.float32), phonemes, [])


def concatenate(utterances: list[Utterance]) -> Utterance:
    """One after another; neighbouring silences become one."""
    phonemes: list[Phoneme] = []
    words: list[Word] = []
    at = 0.0
    for u in utterances:
        for p in u.phonemes:
            start, end = p.start_s + at, p.end_s + at
            if phonemes and phonemes[-1].phone == p.phone == "SIL":
                phonemes[-1] = replace(phonemes[-1], end_s=end)
            else:
                phonemes.append(replace(p, start_s=start, end_s=end))
        words += [Word(w.word, w.start_s + at, w.end_s + at) for w in u.words]
        at += u.duration_s
    return Utterance(np.concatenate([u.waveform for u in utterances]), phonemes, words)


# --- planning -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    phrase: Phrase
    pause_s: float
    breath: bool


def _plan(text: str, voice: Voice, arousal: float, generator: np.random.Generator) -> list[_Plan]:
    """Cuts a text into breath groups and gives each its prosody."""
    groups = _groups(text, voice, generator)
    lively = voice.expressiveness
    base = 4.0 * arousal + generator.normal(0, 0.5 * lively)  # semitones
    plans = []
    for words in groups:
        semitones = base + generator.normal(0, 1.0 * lively)
        rate = voice.rate * (1 + 0.13 * arousal) * np.exp(generator.normal(0, 0.07 * lively)) / voice.resample
        span = 50 + 22 * arousal + generator.normal(0, 10 * lively)
        phrase = Phrase(
            ssml=_ssml(words, lively, generator),
            rate=int(np.clip(rate, 80, 320)),
            pitch=int(np.clip(50 + semitones * 50 / 12, 5, 99)),
            range=int(np.clip(span, 5, 99)),
            volume=int(np.clip(100 * 10 ** (generator.normal(0, 2.2) / 20), 45, 170)),
        )
        final = words[-1][-1] in ".!?"
        pause = (0.45 if final else 0.2) * voice.pausing * np.exp(generator.normal(0, 0.4)) * (1 - 0.3 * arousal)
        if not final and generator.random() < 0.25:
            pause = 0.0
        plans.append(_Plan(phrase, float(np.clip(pause, 0, 1.6)), bool(generator.random() < 0.35)))
    return plans


def _groups(text: str, voice: Voice, generator: np.random.Generator) -> list[list[str]]:
    """Words per breath group: split at punctuation, and now and then before a conjunction."""
    joints = _JOINTS.get(voice.language, ())
    groups: list[list[str]] = []
    current: list[str] = []
    for word in text.split():
        if word.lower() in joints and len(current) >= 4 and generator.random() < 0.4:
            current[-1] += ","
            groups.append(current)
            current = []
        current.append(word)
        if re.search(r"[.,;:!?…—]$", word) and (len(current) > 1 or word[-1] in ".!?"):
            groups.append(current)
            current = []
    if current:
        current[-1] += "."
        groups.append(current)
    fillers = _FILLERS.get(voice.language)
    if fillers and generator.random() < 0.06:
        at = int(generator.integers(len(groups)))
        groups[at] = [str(generator.choice(fillers)) + ",", *groups[at]]
    return groups


def _ssml(words: list[str], lively: float, generator: np.random.Generator) -> str:
    """Runs of one to four words with a pitch and rate of their own; some words stand out."""
    parts, at = [], 0
    while at < len(words):
        stands_out = generator.random() < 0.15
        count = 1 if stands_out else int(generator.integers(1, 5))
        semitones = generator.normal(2.5 if stands_out else 0.0, 1.3 * lively)
        rate = generator.normal(0.88 if stands_out else 1.0, 0.08 * lively)
        percent = round(100 * (2 ** (float(np.clip(semitones, -5, 6)) / 12) - 1))
        run = escape(" ".join(words[at : at + count]))
        parts.append(f'<prosody pitch="{percent:+d}%" rate="{np.clip(rate, 0.7, 1.35) * 100:.0f}%">{run}</prosody>')
        at += count
    return " ".join(parts)


# --- putting together -----------------------------------------------------------------------------------------


def _piece(said: Take, voice: Voice, arousal: float, generator: np.random.Generator) -> Utterance | None:
    """One phrase as spoken -> trimmed, shifted, coloured, at 16 kHz."""
    phonemes = said.phonemes
    spoken = [p for p in phonemes if p.phone != "SIL"]
    if not spoken:
        return None
    first = max(spoken[0].start_s - 0.01, 0.0)
    last = min(spoken[-1].end_s + 0.02, len(said.waveform) / said.sampling_rate)
    begin, stop = int(first * said.sampling_rate), int(last * said.sampling_rate)
    waveform = said.waveform[begin:stop].copy()
    fade = min(len(waveform), int(0.008 * said.sampling_rate))
    waveform[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    waveform = resample(
        waveform, said.sampling_rate * voice.resample, SAMPLING_RATE, tilt_gain(voice.tilt + 0.9 * arousal)
    )
    if voice.breath > 0.02:
        noise = noise_excited(waveform, generator)
        waveform = noise if voice.breath >= 1 else waveform * (1 - 0.5 * voice.breath) + noise * voice.breath
    end = len(waveform) / SAMPLING_RATE

    def moved(seconds: float) -> float:
        return float(np.clip((seconds - begin / said.sampling_rate) / voice.resample, 0.0, end))

    times = [replace(p, start_s=moved(p.start_s), end_s=moved(p.end_s)) for p in phonemes]
    times = [p for p in times if p.end_s > p.start_s]
    times[0] = replace(times[0], start_s=0.0)
    times[-1] = replace(times[-1], end_s=end)
    words = [Word(w.word, moved(w.start_s), moved(w.end_s)) for w in said.words]
    return Utterance(waveform, times, words)


def _join(pieces: list[Utterance], plans: list[_Plan], voice: Voice, generator: np.random.Generator) -> Utterance:
    """Phrases with their pauses; some pauses hold a breath."""
    sequence: list[Utterance] = []
    for k, piece in enumerate(pieces):
        sequence.append(piece)
        pause = plans[k].pause_s
        if k == len(pieces) - 1 or pause <= 0:
            continue
        if pause > 0.24 and plans[k].breath:
            waveform, phonemes = sounds.breath(pause, voice, generator)
            # as loud as breaths are against the phrase before
            waveform *= root_mean_square(piece.waveform) * 10 ** (generator.uniform(-34, -20) / 20)
            sequence.append(Utterance(waveform, phonemes, []))
        else:
            sequence.append(silence(pause))
    if not sequence:
        return silence(0.3)
    return concatenate(sequence)


def _level(utterance: Utterance, voice: Voice, arousal: float, offset_db: float = 0.0) -> Utterance:
    """Sets the level of the spoken part, and bends what would pass full scale."""
    target = _LEVEL_DB + voice.level_db + 5.0 * arousal + offset_db - (10.0 if voice.breath >= 1 else 0.0)
    active = np.zeros(len(utterance.waveform), bool)
    for p in utterance.phonemes:
        if p.phone != "SIL":
            active[round(p.start_s * SAMPLING_RATE) : round(p.end_s * SAMPLING_RATE)] = True
    loudness = root_mean_square(utterance.waveform[active])
    if loudness == 0:
        return utterance
    waveform = utterance.waveform * np.float32(10 ** (target / 20) / loudness)
    loud = np.abs(waveform) > 0.8
    waveform[loud] = np.sign(waveform[loud]) * (0.8 + 0.2 * np.tanh((np.abs(waveform[loud]) - 0.8) / 0.2))
    return replace(utterance, waveform=waveform.astype(np.float32))
