"""The rehearsal corpus: chains of exchanges on one clock, the truth in the columns, the same bytes again."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from diffdyad.data.exchange import LONGEST_PREVIOUS_S, SPLITS, ExchangeShards, shard_name
from diffdyad.data.rehearsal import ranges, visemes
from diffdyad.data.rehearsal.curves import Streams
from diffdyad.data.rehearsal.reaction import planted_delta
from diffdyad.errors import UserError
from diffdyad.motion import ARKIT_EXPRESSIONS

pytest.importorskip("espeakng_loader", reason="the voices are an optional extra: pip install diffdyad[rehearse]")

from diffdyad.data.rehearsal import corpus
from diffdyad.data.rehearsal.corpus import RehearsalSettings, is_finished, rehearse
from diffdyad.data.rehearsal.session import FPS, SessionKey, draw_gap, reaction_of, rehearse_session

HOURS = 0.03


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return rehearse(tmp_path_factory.mktemp("rehearsal") / "corpus", HOURS, seed=3, workers=1, progress=False)


@pytest.fixture(scope="module")
def exchanges(folder):
    return {split: [data[k] for k in range(len(data))] for split in SPLITS for data in [ExchangeShards(folder, split)]}


@pytest.fixture(scope="module")
def pairs_of_worlds():
    """The same sessions without an effect and with it."""
    keys = [SessionKey(11, "train", number) for number in range(8)]
    return [
        (a, b)
        for key in keys
        for a, b in zip(rehearse_session(key, 0.0, 0.6), rehearse_session(key, 1.0, 0.6), strict=True)
    ]


def test_files_and_card(folder):
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(["README.md", corpus.MARKER, *(shard_name(split, 0, 1) for split in SPLITS)])
    card = (folder / "README.md").read_text()
    assert "| train |" in card and '"seed": 3' in card and "| blinks per minute |" in card
    assert is_finished(folder)


def test_sessions_are_chains_of_at_least_four(exchanges):
    for records in exchanges.values():
        sessions: dict = {}
        for record in records:
            sessions.setdefault(record.session_id, []).append(record)
        for chain in sessions.values():
            assert len(chain) >= 4
            for before, after in pairwise(chain):
                assert before.next_exchange_id == after.exchange_id
                assert after.previous_exchange_id == before.exchange_id
                assert before.responder_name == after.previous_speaker
                assert before.previous_speaker == after.responder_name
                # the response of one is the previous turn of the next, at the same time of the session
                shift = after.session_onset_s - before.session_onset_s
                assert after.previous_end_s + shift == pytest.approx(before.end_s, abs=1 / FPS + 1e-6)
                shared = round((before.end_s - shift - after.start_s) * FPS)
                tail, head = before.responder.motion["expression"], after.previous.motion["expression"]
                assert np.array_equal(tail[len(tail) - shared :], head[:shared])
            assert chain[0].previous_exchange_id == "" and chain[-1].next_exchange_id == ""


def test_both_people_are_on_one_clock(exchanges):
    for record in (record for records in exchanges.values() for record in records):
        record.check()
        assert -20.0 <= record.start_s < 0 and -0.53 <= record.gap_s <= 1.53
        assert float(record.start_s * FPS) == pytest.approx(round(record.start_s * FPS), abs=1e-9)
        assert record.previous.num_frames == record.responder.num_frames
        assert len(record.responder.waveform) == round((record.end_s - record.start_s) * 16000)
        for word in record.responder.words:
            assert -0.01 <= word.start_s < word.end_s <= record.end_s + 0.01
        if record.response_kind == "verbal":
            assert record.responder.words and record.responder.text


def test_a_voice_is_heard_where_its_mouth_moves():
    """Clean tracks: speech lies within the turn, and the jaw follows it at the lag that lips have."""
    correlations = {lag: [] for lag in range(-8, 9)}
    for record in rehearse_session(SessionKey(4, "train", 0), 0.0, 0.0):
        if record.response_kind != "verbal":
            continue
        energy = np.maximum(visemes.log_energy(record.responder.waveform)[::4][: record.num_frames], -60)
        jaw = record.responder.motion["jaw_pose"][:, 0]
        for lag in correlations:
            correlations[lag].append(np.corrcoef(np.roll(jaw, -lag)[10:-10], energy[10:-10])[0, 1])
        onset = round(-record.start_s * FPS)
        assert energy[onset:].max() > -35
    means = {lag: np.mean(values) for lag, values in correlations.items()}
    assert max(means, key=means.get) in (-2, -1, 0)
    assert 0.35 < means[0] < 0.85


def test_of_long_turns_the_words_of_the_tail_are_kept():
    exchanges = rehearse_session(SessionKey(0, "train", 2), effect=1.0, reactive_share=0.25)
    cut = [e for e in exchanges if e.start_s == -LONGEST_PREVIOUS_S]
    assert cut and len(cut) < len(exchanges)
    for e in exchanges:
        words = e.previous.words
        assert words[0].end_s > e.start_s and words[-1].end_s <= e.previous_end_s + 0.01
        if e in cut:
            assert e.previous.text == " ".join(word.word for word in words)


def test_splits_share_nobody(exchanges):
    people = {split: {name for r in records for name in (r.previous_speaker, r.responder_name)}
              for split, records in exchanges.items()}  # fmt: skip
    voices = {split: {r.planted_voice for r in records} for split, records in exchanges.items()}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not people[one] & people[other]
        assert not voices[one] & voices[other]


def test_the_planted_effect_is_all_that_differs(pairs_of_worlds):
    reacting = 0
    for without, with_effect in pairs_of_worlds:
        assert not without.reactive and without.planted_strength == 0.0
        assert np.array_equal(without.responder.waveform, with_effect.responder.waveform)
        assert without.responder.words == with_effect.responder.words
        for name in ("start_s", "end_s", "valence", "arousal", "response_kind", "planted_response_valence"):
            assert getattr(without, name) == getattr(with_effect, name)
        reaction = reaction_of(with_effect)
        difference = with_effect.responder.motion["expression"] - without.responder.motion["expression"]
        if reaction is None:
            assert with_effect.planted_strength == 0.0 and np.isnan(with_effect.planted_time_constant_s)
            continue
        reacting += 1
        times = with_effect.start_s + np.arange(with_effect.num_frames) / FPS
        window = (times >= with_effect.planted_rise_start_s) & (times < with_effect.end_s)
        delta = planted_delta(reaction, times)
        # what an earlier reaction left behind is still fading: at most its last e-foldings
        leftover = 0.25 * np.exp(-2.0)
        for name in ("mouthSmileLeft", "browOuterUpLeft", "mouthFrownRight"):
            channel = ARKIT_EXPRESSIONS.index(name)
            free = window & (without.responder.motion["expression"][:, channel] + delta[:, channel] < 0.99)
            gap = np.abs(difference[free, channel] - delta[free, channel])
            assert gap.max(initial=0.0) < leftover
    assert 0.3 < reacting / len(pairs_of_worlds) < 0.9


def test_affect_and_truth_are_recoverable_by_regression(pairs_of_worlds):
    """The slope of the smile on valence, K = 1 against K = 0, is the table's, and fades as drawn."""
    sizes, smiles = [], []
    for without, with_effect in pairs_of_worlds:
        if with_effect.reactive and with_effect.valence > 0:
            onset = round(-with_effect.start_s * FPS)
            difference = with_effect.responder.motion["expression"] - without.responder.motion["expression"]
            sizes.append(with_effect.valence)
            smiles.append(difference[onset, ARKIT_EXPRESSIONS.index("mouthSmileLeft")])
    assert len(sizes) >= 3
    assert np.mean(smiles) / np.mean(sizes) == pytest.approx(0.25, abs=0.05)


def test_reactive_share_and_gaps_are_as_drawn():
    rng = np.random.default_rng(0)
    gaps = np.array([draw_gap(rng) for _ in range(20000)])
    assert gaps.min() >= -0.5 and gaps.max() <= 1.5
    counts, edges = np.histogram(gaps, np.arange(-0.55, 1.6, 0.1))
    assert abs(edges[np.argmax(counts)] + 0.05 - 0.2) < 0.11


def test_same_seed_same_bytes_whatever_the_workers(folder, tmp_path):
    again = rehearse(tmp_path / "again", HOURS, seed=3, workers=2, progress=False)
    for path in sorted(folder.glob("*.parquet")):
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_an_interrupted_corpus_is_finished(folder, tmp_path, monkeypatch):
    target = tmp_path / "corpus"
    calls = []
    real = corpus.write_shard

    def failing(path, rows):
        calls.append(path.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(path, rows)

    monkeypatch.setattr(corpus, "write_shard", failing)
    with pytest.raises(KeyboardInterrupt):
        rehearse(target, HOURS, seed=3, workers=1, progress=False)
    assert len(list(target.glob("*.parquet"))) == 1 and not is_finished(target)
    assert not list(target.glob(".*"))
    rehearse(target, HOURS, seed=3, workers=1, progress=False)
    assert len(calls) == 4 and is_finished(target)
    for path in folder.glob("*.parquet"):
        assert path.read_bytes() == (target / path.name).read_bytes()
    # a finished one is left alone
    monkeypatch.setattr(corpus, "_session_rows", None)
    rehearse(target, HOURS, seed=3, workers=1, progress=False)


def test_foreign_folders_and_other_settings_are_refused(folder, tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(UserError, match="other files"):
        rehearse(tmp_path, HOURS)
    with pytest.raises(UserError, match="found a file"):
        rehearse(tmp_path / "thesis.txt", HOURS)
    with pytest.raises(UserError, match="same settings"):
        rehearse(folder, HOURS, seed=4)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / corpus.MARKER).write_text("{")
    with pytest.raises(UserError, match="cannot read"):
        rehearse(tmp_path / "broken", HOURS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken", "thesis.txt"]


@pytest.mark.parametrize("wrong", [{"hours": 0}, {"hours": float("nan")}, {"effect": -1}, {"reactive_share": 2}])
def test_impossible_settings_are_named(wrong, tmp_path):
    with pytest.raises(UserError, match=next(iter(wrong)).split("_")[0]):
        rehearse(tmp_path / "x", **{"hours": 1.0, **wrong})
    assert not (tmp_path / "x").exists()


def test_large_corpora_have_twenty_test_pairs():
    for hours in (4, 10, 50):
        counts = RehearsalSettings(hours).sessions()
        assert counts["test"] >= 40 and counts["train"] > counts["test"] > 0 < counts["validation"]
    assert all(count >= 2 for count in RehearsalSettings(0.001).sessions().values())
    a = RehearsalSettings(1.0)
    assert a.config_hash == RehearsalSettings(9.0).config_hash != replace(a, effect=0.0).config_hash


def test_people_keep_their_habits_and_voices_across_sessions(exchanges):
    by_person: dict = {}
    for record in exchanges["train"]:
        by_person.setdefault(record.responder_name, []).append(record)
    for records in by_person.values():
        assert len({record.session_id for record in records}) == 2
        assert all(np.array_equal(records[0].responder.betas, r.responder.betas) for r in records)
        assert len({record.planted_voice for record in records}) == 1
    assert len({r[0].responder.betas.tobytes() for r in by_person.values()}) == len(by_person)


def test_card_ranges_are_those_of_people(folder):
    speaking = corpus.corpus_ranges(folder)["speaking"]
    assert set(speaking) == set(ranges.REAL)
    assert 8 <= speaking["blinks per minute"] <= 32
    assert 0.1 <= speaking["blink above 0.2, s"] <= 0.2
    assert 0.03 <= speaking["jawOpen mean"] <= 0.16 and 0.05 <= speaking["jawOpen sd"] <= 0.16
    assert speaking["jaw power 6-12 Hz, %"] < 8
    json.dumps(speaking)
    assert Streams(1).key == (1,)
