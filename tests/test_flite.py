"""Flite's voices: the same bytes from the same seed, phones and words that hold against the waveform."""

from dataclasses import replace

import numpy as np
import pytest

from diffdyad.data.rehearsal import flite
from diffdyad.data.rehearsal.corpus import RehearsalSettings
from diffdyad.data.rehearsal.phones import PHONES, VOWELS
from diffdyad.errors import UserError

pytest.importorskip("espeakng_loader", reason="eSpeak NG is an optional extra: pip install 'diffdyad[rehearse]'")

from diffdyad.data.rehearsal.speech import synthesise
from diffdyad.data.rehearsal.voices import draw_voice

TEXT = "Peter bought five big apples, and my mother moved to Mumbai. Who would have thought that?"


@pytest.fixture(scope="module", autouse=True)
def installed():
    try:
        flite.check()
    except UserError as error:
        pytest.skip(str(error))


def voice(name: str = "slt", **changes):
    drawn = draw_voice(np.random.default_rng(0), "train", "en")
    plain = {"engine": "flite", "base": name, "breath": 0.0, "expressiveness": 0.3, "resample": 1.0, "rate": 165.0}
    return replace(drawn, **{**plain, "pitch_hz": flite.PITCH_HZ[name], **changes})


@pytest.mark.parametrize("name", flite.PITCH_HZ)
def test_same_seed_same_bytes_whatever_was_said_before(name):
    first = synthesise(TEXT, voice(name), generator=np.random.default_rng(3))
    synthesise("Something else.", voice("rms"), generator=np.random.default_rng(9))
    again = synthesise(TEXT, voice(name), generator=np.random.default_rng(3))
    assert first.waveform.tobytes() == again.waveform.tobytes() and first.phonemes == again.phonemes


def test_phonemes_tile_and_words_are_the_texts():
    said = synthesise(TEXT, voice(), generator=np.random.default_rng(5))
    assert {p.phone for p in said.phonemes} <= set(PHONES)
    assert said.phonemes[0].start_s == 0 and abs(said.phonemes[-1].end_s - said.duration_s) < 1e-6
    assert all(a.end_s == b.start_s for a, b in zip(said.phonemes, said.phonemes[1:]))
    words = [w.word for w in said.words if w.word not in ("um", "uh", "er", "well")]
    assert words == TEXT.replace(",", "").replace(".", "").replace("?", "").split()
    assert all(a.end_s <= b.start_s + 1e-9 for a, b in zip(said.words, said.words[1:]))


def test_vowels_are_loud_where_they_are_said_to_be_and_lips_shut_in_between():
    said = synthesise("A baby be a bub, obey a boobook.", voice(), generator=np.random.default_rng(1))
    high = np.convolve(np.diff(said.waveform, prepend=0.0) ** 2, np.ones(160) / 160, "same")

    def contrast(late_s: float) -> float:
        levels = []
        for phones in ({"B"}, set(VOWELS)):
            spans = [(p.start_s, p.end_s) for p in said.phonemes if p.phone in phones]
            times = [start + (end - start) * part + late_s for start, end in spans for part in (0.25, 0.5, 0.75)]
            levels.append(np.median([10 * np.log10(high[int(time * 16000)] + 1e-12) for time in times]))
        return levels[1] - levels[0]

    assert contrast(0.0) > 6 and contrast(0.0) > 3 + max(contrast(-0.08), contrast(0.08))


def test_rate_is_the_voices():
    slow, fast = (
        synthesise(TEXT, voice(rate=rate, pausing=0.2), generator=np.random.default_rng(2)).duration_s
        for rate in (130.0, 200.0)
    )
    assert 1.35 < slow / fast < 1.75


def test_only_those_who_train_with_english_speak_with_it():
    generator = np.random.default_rng(0)
    drawn = [draw_voice(generator, "train", flite_share=0.5) for _ in range(300)]
    share = np.mean([v.engine == "flite" for v in drawn if v.language == "en"])
    assert 0.4 < share < 0.6 and all(v.language == "en" for v in drawn if v.engine == "flite")
    assert all((v.base == "slt") == v.female for v in drawn if v.engine == "flite")
    assert all(draw_voice(generator, "test", flite_share=1.0).engine == "espeak" for _ in range(50))
    assert RehearsalSettings(9.0, flite_share=0.5).config_hash != RehearsalSettings(9.0).config_hash
    with pytest.raises(UserError, match="Flite"):
        RehearsalSettings(9.0, flite_share=1.5)
