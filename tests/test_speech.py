"""Synthetic speech: the same bytes from the same seed, phoneme times that hold against the waveform."""

import builtins
import ctypes
import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("espeakng_loader", reason="eSpeak NG is an optional extra: pip install 'diffdyad[rehearse]'")

from diffdyad.data.rehearsal import espeak, voices
from diffdyad.data.rehearsal.phones import IPA_TO_PHONE, PHONES, VOWELS, parse_ipa
from diffdyad.data.rehearsal.signals import SAMPLING_RATE, resample
from diffdyad.data.rehearsal.speech import draw_voice, synthesise, synthesise_turn
from diffdyad.errors import UserError

TEXT = "Peter bought five big apples, and my mother moved to Mumbai. Who would have thought that?"


def plain_voice(seed: int = 0, **changes):
    voice = draw_voice(np.random.default_rng(seed), "train", "en")
    plain = {"accent": "gmw/en-US", "base": "m3", "breath": 0.0, "expressiveness": 0.4, "female": False}
    return replace(voice, **{**plain, **changes})


def parts(utterance, phones: set[str]) -> list[np.ndarray]:
    """The samples of each such phoneme of 60 ms or more."""
    return [
        utterance.waveform[int(p.start_s * SAMPLING_RATE) : int(p.end_s * SAMPLING_RATE)]
        for p in utterance.phonemes
        if p.phone in phones and p.end_s - p.start_s > 0.06
    ]


def pitches(utterance, phones: set[str] = frozenset(VOWELS), highest: float = 400) -> np.ndarray:
    """Median pitch of long vowels by autocorrelation, Hz."""
    found = []
    for x in parts(utterance, phones):
        x = x - x.mean()
        spectrum = np.fft.rfft(x, 2 * len(x))
        correlation = np.fft.irfft(np.abs(spectrum) ** 2)[: len(x)] / (len(x) - np.arange(len(x)))
        low, high = round(SAMPLING_RATE / highest), min(SAMPLING_RATE // 60, int(0.8 * len(x)))
        best = low + int(np.argmax(correlation[low:high]))
        if correlation[best] > 0.5 * correlation[0]:
            found.append(SAMPLING_RATE / best)
    return np.array(found)


def test_same_seed_same_bytes_whatever_was_said_before():
    def say(seed: int) -> bytes:
        generator = np.random.default_rng(seed)
        voice = draw_voice(generator, "train")
        return synthesise(
            "Mama wore five big boots." if voice.language == "en" else "Anna", voice, 0, 0.5, generator
        ).waveform.tobytes()

    first = [say(s) for s in range(6)]
    assert [say(s) for s in reversed(range(6))] == first[::-1]
    assert len(set(first)) == 6


def test_same_bytes_while_someone_else_holds_the_library():
    """A phonemizer in the same process keeps eSpeak NG loaded: its state must not become ours."""
    import espeakng_loader

    def say() -> bytes:
        return synthesise(TEXT, plain_voice(), generator=np.random.default_rng(3)).waveform.tobytes()

    first = say()
    held = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        assert say() == say() == first
    finally:
        espeak._unload(held)


def test_another_process_speaks_the_same_bytes():
    code = "import sys, hashlib; from test_speech import _say; sys.stdout.write(_say([5, 1, 3]))"
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)])}
    made = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert made.stdout == _say([3, 1, 5])


def _say(seeds: list[int]) -> str:
    """Hashes of what is said with these seeds, in this order, sorted."""
    found = []
    for seed in seeds:
        generator = np.random.default_rng(seed)
        said = synthesise(TEXT, draw_voice(generator, "train", "en"), 0, 0.2, generator)
        found.append(f"{seed} {hashlib.sha256(said.waveform.tobytes()).hexdigest()}")
    return "\n".join(sorted(found))


def test_phonemes_tile_the_utterance():
    generator = np.random.default_rng(0)
    for language in ("en", "en", "en", *voices.OTHER_LANGUAGES):
        voice = draw_voice(generator, "train", language)
        text = TEXT if language == "en" else "Papa, mama, banana? Foto, video, limo."
        utterance = synthesise(text, voice, 0.3, generator.uniform(-1, 1), generator)
        assert utterance.waveform.dtype == np.float32 and np.abs(utterance.waveform).max() <= 1
        phonemes = utterance.phonemes
        assert phonemes[0].start_s == 0
        assert phonemes[-1].end_s == pytest.approx(utterance.duration_s, abs=1e-9)
        for a, b in pairwise(phonemes):
            assert a.end_s == b.start_s and b.end_s > b.start_s
        assert {p.phone for p in phonemes} <= set(PHONES)
        for a, b in zip(utterance.words[:-1], utterance.words[1:], strict=True):
            assert a.start_s < a.end_s <= b.start_s + 1e-9


def test_words_are_the_texts():
    utterance = synthesise(TEXT, plain_voice(), generator=np.random.default_rng(5))
    spoken = [w.word for w in utterance.words]
    expected = TEXT.replace(",", "").replace(".", "").replace("?", "").split()
    assert [w for w in spoken if w not in ("um", "uh", "er", "well")] == expected


def test_signs_are_no_words():
    utterance = synthesise("Tom & Jerry ran - & won.", plain_voice(), generator=np.random.default_rng(5))
    spoken = [w.word for w in utterance.words]
    assert [w for w in spoken if w not in ("um", "uh", "er", "well")] == ["Tom", "Jerry", "ran", "won"]
    assert np.isfinite([(w.start_s, w.end_s) for w in utterance.words]).all()


def levels(utterance, phones: set[str], part=(0.0, 1.0)) -> list[float]:
    """Level of each such phoneme over a part of its time, dB relative to the loudest 20 ms."""
    squares = np.convolve(utterance.waveform.astype(np.float64) ** 2, np.ones(320) / 320, mode="same")
    out = []
    for p in utterance.phonemes:
        if p.phone in phones:
            length = p.end_s - p.start_s
            x = utterance.waveform[
                int((p.start_s + part[0] * length) * SAMPLING_RATE) : int(
                    (p.start_s + part[1] * length) * SAMPLING_RATE
                )
            ]
            if len(x):
                out.append(10 * np.log10(np.mean(x.astype(np.float64) ** 2) / squares.max() + 1e-9))
    return out


def test_phoneme_times_hold_against_the_waveform():
    """Vowels are loud, pauses silent, voiceless stops begin with a closure and end with a burst."""
    vowels, pauses, closures, bursts = [], [], [], []
    for seed in range(6):
        text = "Peter took a copy to Kate, a pack of tea, a cup, and a paper kite. Pat, keep it up!"
        utterance = synthesise(text, plain_voice(seed), generator=np.random.default_rng(seed))
        vowels += levels(utterance, set(VOWELS), (0.25, 0.75))
        pauses += levels(utterance, {"SIL"}, (0.1, 0.9))
        closures += levels(utterance, {"P", "T", "K"}, (0.05, 0.3))
        bursts += levels(utterance, {"P", "T", "K"}, (0.5, 1.0))
    assert np.median(vowels) > -16 and np.percentile(vowels, 10) > -26
    assert np.median(pauses) < -50
    assert np.percentile(closures, 75) < -35
    assert np.median(bursts) > np.median(closures) + 12


def test_lips_are_shut_while_a_voiced_stop_is_held():
    """In 'a baby's bib' the level above 500 Hz falls in every b and is back at the start of the vowel after it."""
    utterance = synthesise("A baby be a bub, obey a boobook.", plain_voice(), generator=np.random.default_rng(1))
    high = np.diff(utterance.waveform, prepend=0)
    sharp = replace(utterance, waveform=high)
    # eSpeak NG drops some vowels' tails: look at the first half
    assert np.median(levels(sharp, {"B"}, (0.2, 0.8))) < np.median(levels(sharp, set(VOWELS), (0.0, 0.5))) - 10


def test_pitch_is_the_voices_whatever_the_resampling():
    for shift in (0.9, 1.0, 1.12):
        voice = plain_voice(pitch_hz=100.0, pitch_span=1.5, resample=shift)
        found = pitches(synthesise(TEXT, voice, generator=np.random.default_rng(2)))
        assert len(found) > 5
        assert 100 < np.median(found) < 155


def test_resampling_shifts_as_asked():
    time = np.arange(22050) / 22050
    tone = np.sin(2 * np.pi * 500 * time).astype(np.float32)
    out = resample(tone, 22050 * 1.1, SAMPLING_RATE)
    assert len(out) == round(22050 * SAMPLING_RATE / (22050 * 1.1))
    peak = np.argmax(np.abs(np.fft.rfft(out * np.hanning(len(out)), 1 << 18))) * SAMPLING_RATE / (1 << 18)
    assert peak == pytest.approx(550, abs=0.5)
    expected = np.sin(2 * np.pi * 550 * np.arange(len(out)) / SAMPLING_RATE)
    drift = 2 * np.pi * 550 * 0.5 / SAMPLING_RATE  # half a sample at most, over the whole
    assert np.abs(out - expected)[200:-200].max() < drift + 0.01


def test_arousal_raises_pitch_energy_and_rate():
    medians, energies, seconds = [], [], []
    for arousal in (-0.8, 0.0, 0.8):
        made = [
            synthesise(TEXT, plain_voice(s, pitch_hz=95.0, pitch_span=1.4), 0, arousal, np.random.default_rng(s))
            for s in range(4)
        ]
        medians.append(np.median(np.concatenate([pitches(u) for u in made])))
        energies.append(np.mean([np.sqrt(np.mean(u.waveform**2)) for u in made]))
        seconds.append(np.mean([u.duration_s for u in made]))
    assert medians[0] * 1.1 < medians[1] < medians[2] / 1.1
    assert energies[0] * 1.3 < energies[1] < energies[2] / 1.3
    assert seconds[0] > seconds[1] > seconds[2]


@pytest.mark.parametrize("sound", ["laugh", "sigh", "gasp", "mmhm", "filler"])
def test_sounds_and_kinds(sound):
    generator = np.random.default_rng(7)
    voice = plain_voice()
    alone = synthesise_turn("", voice, 0, 0, "nonverbal", sound, generator)
    mixed = synthesise_turn("My puppy ran.", voice, 0, 0, "mixed", sound, generator)
    assert 0.1 < alone.duration_s < 4 and np.abs(alone.waveform).max() > 0.005
    assert mixed.duration_s > alone.duration_s * 0.3 and {"puppy"} <= {w.word for w in mixed.words}
    for u in (alone, mixed):
        assert u.phonemes[-1].end_s == pytest.approx(u.duration_s, abs=1e-6)
        assert all(a.end_s == b.start_s for a, b in zip(u.phonemes[:-1], u.phonemes[1:], strict=True))
        assert {p.phone for p in u.phonemes} <= set(PHONES)
    wanted = {"laugh": "LAUGH", "sigh": "SIGH", "gasp": "GASP"}.get(sound)
    assert wanted is None or wanted in {p.phone for p in alone.phonemes}


def test_laughter_bursts_at_four_to_six_hertz():
    for seed in range(8):
        u = synthesise_turn("", plain_voice(), 0, 0, "nonverbal", "laugh", np.random.default_rng(seed))
        starts = [p.start_s for p in u.phonemes if p.phone == "LAUGH"]
        assert 3.3 < 1 / np.median(np.diff(starts)) < 7
        loud, quiet = levels(u, {"LAUGH"}, (0.1, 0.6)), levels(u, {"HH"}, (0.0, 0.25))
        assert np.median(loud) > np.median(quiet)


def test_voiced_laughter_is_high_and_bright():
    """Higher than calm speech by an octave or so (men about 270 Hz, women about 400), brighter than spoken vowels."""

    def balance(x: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(x * np.hanning(len(x)))) ** 2
        hz = np.fft.rfftfreq(len(x), 1 / SAMPLING_RATE)
        return 10 * np.log10(power[(hz > 1000) & (hz < 4000)].sum() / power[hz < 1000].sum())

    for female, low, high in ((False, 190, 380), (True, 290, 580)):
        tops, bursts, vowels = [], [], []
        for seed in range(24):
            voice = plain_voice(female=female, pitch_hz=150.0 if female else 84.0, resample=1.0, tilt=0.0)
            laugh = synthesise_turn("", voice, 0, 0, "nonverbal", "laugh", np.random.default_rng(seed))
            found = pitches(laugh, {"LAUGH"}, 900)
            if len(found) < 3:  # a laugh without voice
                continue
            tops.append(np.median(found))
            bursts.append(np.median([balance(x) for x in parts(laugh, {"LAUGH"})]))
            spoken = synthesise(TEXT, voice, 0, 0, np.random.default_rng(seed))
            vowels.append(np.median([balance(x) for x in parts(spoken, set(VOWELS))]))
        assert len(tops) > 8
        assert low < np.median(tops) < high
        assert np.median(bursts) > np.median(vowels) + 2


def test_silent_turn_is_silent():
    u = synthesise_turn("", plain_voice(), 0, 0, "silent", "none", np.random.default_rng(0))
    assert not u.waveform.any() and [p.phone for p in u.phonemes] == ["SIL"]


def test_splits_share_no_voice():
    for bases in (voices.MALE_BASES, voices.FEMALE_BASES):
        names = [set(bases[s]) for s in voices.SPLITS]
        assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
        for split in voices.SPLITS:
            for name in bases[split]:
                assert espeak.variant_text(name)
    generator = np.random.default_rng(0)
    drawn = {s: {draw_voice(generator, s).base for _ in range(200)} for s in voices.SPLITS}
    assert not drawn["train"] & drawn["test"]


def test_ipa_names():
    assert parse_ipa("ˈaɪɚ").phones == ("AY", "ER") and parse_ipa("ˈaɪɚ").stress == 1
    assert parse_ipa("əl").phones == ("AX", "L")
    assert parse_ipa("ˌɔː").phones == ("AO",) and parse_ipa("ˌɔː").stress == 2
    assert parse_ipa("tʃ").phones == ("CH",) and parse_ipa("ts").phones == ("T", "S")
    assert parse_ipa("ɔ̃").phones == ("AO",) and parse_ipa("yː").phones == ("YY",)
    assert parse_ipa("(en)").phones == () == parse_ipa("").phones
    assert set(IPA_TO_PHONE.values()) <= set(PHONES) and len(set(PHONES)) == len(PHONES)


def test_missing_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "espeakng_loader":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(espeak, "_engine", None)
    espeak._loader.cache_clear()
    with pytest.raises(UserError, match=r"diffdyad\[rehearse\]"):
        espeak.speak([espeak.Phrase("hello")], "gmw/en-US", "language variant\n", 1)
    espeak._loader.cache_clear()


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="empty"):
        synthesise("  ", plain_voice())
    with pytest.raises(ValueError, match="kind"):
        synthesise_turn("a", plain_voice(), kind="loud")
    with pytest.raises(ValueError, match="language"):
        draw_voice(np.random.default_rng(0), "train", "xx")
    with pytest.raises(UserError, match="no voice"):
        espeak.speak([espeak.Phrase("hello")], "gmw/nowhere", "language variant\n", 1)
