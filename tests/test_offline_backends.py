"""The backends that work out of `pip install 'diffdyad[data]'`, on voices that eSpeak NG makes."""

from __future__ import annotations

import importlib.util
from functools import lru_cache

import numpy as np
import pytest
import soxr
import torch
import yaml

pytest.importorskip("espeakng_loader", reason="the voices are an optional extra: pip install 'diffdyad[rehearse]'")

from dataset_fixtures import pcm_wav

from diffdyad.data.exchange import ExchangeShards
from diffdyad.data.recordings import activity, diarization, recognisers, separation
from diffdyad.data.recordings.build import build_dataset
from diffdyad.data.recordings.frames import levels_db, mask_spans, spans_mask
from diffdyad.data.recordings.hearing import hear, own_voice
from diffdyad.data.recordings.pcm import Pcm
from diffdyad.data.recordings.rttm import diarization_error
from diffdyad.data.recordings.separation import Separator
from diffdyad.data.recordings.steps import Steps
from diffdyad.data.rehearsal.espeak import Phrase, speak, variant_text

SAID = (
    "The weather was so bad that we could not go to the sea, and we had to stay in the house all day.",
    "My brother has bought a new car, but he does not like to drive it in the city.",
)


def needs(*packages: str):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


@lru_cache
def voice(number: int, text: int) -> np.ndarray:
    """About 5 s of a man (0) or a woman (1)."""
    (spoken,) = speak([Phrase(SAID[text])], "gmw/en-US", variant_text(("m3", "f2")[number]), 1)
    return soxr.resample(spoken.waveform, spoken.sampling_rate, 16000).astype(np.float32)


def noise(seconds: float, level: float = 0.003) -> np.ndarray:
    return level * np.random.default_rng(0).normal(size=round(seconds * 16000)).astype(np.float32)


def laughter() -> np.ndarray:
    """Ha-ha: bursts of breathy harmonics, 5 a second, that fall."""
    times = np.arange(32000) / 16000
    phase = 2 * np.pi * np.cumsum(320 - 60 * times) / 16000
    tone = sum(np.sin(k * phase) / k for k in range(1, 12)) + np.random.default_rng(1).normal(size=32000)
    return (0.08 * tone * np.clip(np.sin(2 * np.pi * 5 * times), 0, 1) ** 0.5).astype(np.float32)


def stored(folder, sound: np.ndarray) -> Pcm:
    np.rint(np.clip(sound, -1, 1) * 32767).astype("<i2").tofile(folder / "sound.pcm")
    return Pcm(folder / "sound.pcm")


@needs("silero_vad")
def test_silero_hears_voices_and_nothing_else(tmp_path):
    words = [voice(0, 0), voice(1, 1)]
    rests = [noise(2.0), noise(3.0), noise(2.0)]
    sound = np.concatenate([rests[0], words[0], rests[1], words[1], rests[2]])
    hum = 0.02 * np.sin(2 * np.pi * 50 * np.arange(len(sound)) / 16000).astype(np.float32)
    pcm = stored(tmp_path, sound + hum + noise(len(sound) / 16000))
    levels = levels_db(pcm.blocks())
    found = activity.speaking(activity.speech_probability("silero", pcm, levels))
    starts = np.cumsum([0, *(len(part) for part in (rests[0], words[0], rests[1], words[1]))]) / 16000
    truth = spans_mask([(starts[1], starts[2]), (starts[3], starts[4])], len(found))
    assert (found != truth).mean() < 0.08 and not found[: round(100 * (starts[1] - 0.3))].any()
    quiet = stored(tmp_path, 0.03 * pcm[:])  # a microphone far away
    again = activity.speaking(activity.speech_probability("silero", quiet, levels_db(quiet.blocks())))
    assert (again != found).mean() < 0.02
    assert not mask_spans(activity.speaking(activity.speech_probability("silero", *silence(tmp_path))))


def silence(folder) -> tuple[Pcm, np.ndarray]:
    pcm = stored(folder, noise(5.0))
    return pcm, levels_db(pcm.blocks())


@needs("resemblyzer", "sklearn")
def test_resemblyzer_knows_people_by_their_voices(tmp_path):
    parts = [(0, 0), (1, 0), (0, 1), (1, 1)]
    sound, spans, start = [], [], 0.0
    for who, text in parts:
        words = voice(who, text)
        sound += [words, noise(0.6)]
        spans.append((start, start + len(words) / 16000))
        start = spans[-1][1] + 0.6
    pcm = stored(tmp_path, np.concatenate(sound))
    found = diarization.voices_of(pcm, spans)
    assert np.allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-4)
    of = [[e for e, (a, b) in zip(found.embeddings, found.spans) if start <= a and b <= end + 1e-6]
          for start, end in spans]  # fmt: skip
    means = [np.mean(rows, 0) / np.linalg.norm(np.mean(rows, 0)) for rows in of]
    same, other = (means[0] @ means[2], means[1] @ means[3]), (means[0] @ means[1], means[2] @ means[3])
    assert min(same) > max(other) + 0.1  # the words are others, the voice is not
    truth = {"man": [spans[0], spans[2]], "woman": [spans[1], spans[3]]}
    told = dict(zip("AB", diarization.diarize(found)))
    assert diarization_error(truth, told).total < 0.05


class Told(Separator):
    """A separation network that knows the voices, and leaves a tenth of the one in the other."""

    name, identity = "told", "1"

    def __init__(self, own: np.ndarray):
        self.own, self.calls, self.network = torch.from_numpy(own), 0, self._apart

    def _apart(self, sound: torch.Tensor) -> torch.Tensor:  # (1, S) -> (1, 2, S)
        begin = self.calls * 8 * 16000
        own, self.calls = self.own[:, begin : begin + sound.shape[1]], self.calls + 1
        return 0.3 * (own + 0.1 * own.flip(0)).roll(self.calls, 0)[None]


@needs("silero_vad", "resemblyzer", "sklearn")
def test_separation_gives_back_what_diarization_cannot(tmp_path, monkeypatch):
    """Diarization hears one voice at a time; where the streams say that it was two, both have it."""
    own, turns, start = np.zeros((2, 22 * 16000), np.float32), [[], []], 0.5
    for who, text, gap in ((0, 0, -1.0), (1, 1, 0.4), (0, 1, -0.8), (1, 0, 0.0)):
        words = voice(who, text)
        own[who, round(start * 16000) : round(start * 16000) + len(words)] += words
        turns[who].append((start, start + len(words) / 16000))
        start = turns[who][-1][1] + gap
    pcm_wav(tmp_path / "mixed.wav", 0.5 * own.sum(0) + noise(22.0, 5e-4), 16000)
    steps = Steps(tmp_path / "steps")
    heard = hear([tmp_path / "mixed.wav"], steps, "mixed")
    monkeypatch.setattr(separation, "load_separator", lambda *_: Told(own))
    found = separation.separate(heard, steps, "asteroid")
    truth, before, after = ([spans_mask(spans, 2200) for spans in who] for who in (turns, heard.spans, found.spans))
    both = truth[0] & truth[1]
    overlaps = spans_mask(found.overlaps.spans, 2200)
    print(f"{both.sum()} frames of both, {overlaps.sum()} found, {(overlaps & both).sum()} of them true")
    assert (overlaps & both).sum() > 0.85 * both.sum() and overlaps.sum() < 1.3 * both.sum()
    assert not (before[0] & before[1]).any() and (after[0] & after[1] & both).sum() == (overlaps & both).sum()
    begin, end = (round(time * 16000) for time in turns[1][0][:1] + turns[0][0][1:])  # while both speak
    for side in (0, 1):
        part = slice(begin + 2400, end - 2400)
        left = own_voice(found, side, part.start, part.stop) - 0.5 * own[side, part]
        assert np.square(left).sum() < 0.05 * np.square(0.5 * own[1 - side, part]).sum()


@needs("pocketsphinx")
def test_pocketsphinx_hears_words_where_there_are_some():
    recogniser = recognisers.load("pocketsphinx")
    assert recogniser.version.startswith("5") and not recogniser.transcribes

    def share(sound: np.ndarray) -> float:
        words = recogniser.words(sound, "en")
        assert all(0 <= w.start_s < w.end_s <= len(sound) / 16000 + 0.1 for w in words)
        return sum(w.end_s - w.start_s for w in words) / (len(sound) / 16000)

    first = recogniser.words(voice(0, 0)[:48000], "en")
    assert share(voice(1, 1)[:48000]) > 0.5
    assert share(noise(1.0)) == share(laughter()[:16000]) == share(np.zeros(16000, np.float32)) == 0
    assert recogniser.words(voice(0, 0)[:48000], "en") == first  # whatever was heard before
    assert {"weather", "was"} & {word.word for word in first}


@needs("pocketsphinx", "silero_vad")
def test_a_build_out_of_the_box(tmp_path):
    """One person per channel, silero and pocketsphinx: an answer with words."""
    own = [np.concatenate([noise(0.5), voice(0, 0), noise(20.0)])]
    turn = len(voice(0, 0)) / 16000 + 0.5
    own.append(np.concatenate([noise(turn + 0.4), voice(1, 1), noise(20.0)]))
    samples = np.stack([sound[: 12 * 16000] for sound in own], 1)
    for side, name in enumerate("ab"):
        pcm_wav(tmp_path / f"{name}.wav", samples[:, side], 16000)
    sessions = [{"files": ["a.wav", "b.wav"], "speakers": ["a", "b"], "language": "en", "split": "test"}]
    content = {"backends": {"activity": "silero", "words": "pocketsphinx", "prosody": "none"}, "sessions": sessions}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(content))
    build_dataset(tmp_path / "m.yaml", tmp_path / "out", workers=1)
    (exchange,) = ExchangeShards(tmp_path / "out", "test")
    assert exchange.response_kind == "verbal" and exchange.gap_s == pytest.approx(0.4, abs=0.2)
    assert not exchange.responder.text  # its words are too often wrong to be kept
