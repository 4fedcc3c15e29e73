"""Scores of exchanges: mouth against voice, what a turn makes expect; and filters that judge by them, ever anew."""

from __future__ import annotations

import math
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as parquet
import pytest
import yaml
from dataset_fixtures import Talk, pcm_wav
from small_exchanges import small_exchange, write_dataset

from diffdyad.cli import main
from diffdyad.data import filtering, reactivity
from diffdyad.data.columns import replace_columns
from diffdyad.data.exchange import ExchangeShards, group_widths, to_row, write_shard
from diffdyad.data.filters import Filters, reject_reasons
from diffdyad.data.importers import corpus
from diffdyad.data.person import Person
from diffdyad.data.ranking import percentiles
from diffdyad.data.recordings.build import build_dataset
from diffdyad.data.scores import add_scores
from diffdyad.data.sync import lip_sync

FPS = 25.0


# ----------------------------------------------------------------------------------------------------- mouth and voice


@pytest.mark.parametrize("lag", [-4, 0, 2.5, 5])
def test_lag_of_a_mouth_is_measured_to_a_part_of_a_frame(lag):
    rng = np.random.default_rng(0)
    times = np.arange(0, 16, 1 / 16000)
    beats = np.interp(times, np.arange(0, 17, 0.12), rng.random(142))
    waveform = 10 ** (beats * 2 - 3) * rng.normal(size=len(times))
    opening = np.interp(np.arange(16 * FPS) / FPS - lag / FPS, times, beats)
    found = lip_sync(opening, waveform.astype(np.float32), FPS)
    assert found.lag_s == pytest.approx(lag / FPS, abs=0.01) and found.correlation > 0.7


def conversation(seed: int = 3, late_s: float = 0.0, swap: bool = False, kind: str = "verbal"):
    """0.4 to 8.2 s of a made-up talk; late_s: by how much the sound comes before the mouths."""
    talk, onset = Talk(seed), 4.3
    widths = group_widths(50)
    people = []
    for side in (0, 1):
        sound = talk.waveform(side)[round((0.4 + late_s) * 16000) :][: round(7.8 * 16000)]
        motion = {group: np.zeros((0, width), np.float32) for group, width in widths.items()}
        jaw = np.zeros((195, 3), np.float32)
        jaw[:, 0] = talk.jaw(1 - side if swap else side, FPS)[10:205]
        motion["jaw_pose"], motion["expression"] = jaw, talk.smooth(side, FPS, 50, 0.5)[10:205]
        people.append(Person(sound, motion, np.ones(195, bool)))
    return small_exchange(
        seed, start_s=0.4 - onset, previous_end_s=4.0 - onset, end_s=8.2 - onset, previous=people[0],
        responder=people[1], response_kind=kind, basis="flame2020",
    )  # fmt: skip


def scored(**options):
    exchange = conversation(**options)
    add_scores(exchange)
    return exchange


def test_sound_80_ms_off_is_found_and_other_people_s_mouths_are(tmp_path):
    right = scored()
    assert right.active_speaker_score > 0.6 and abs(right.sync_lag_ms) < 25
    for late_s in (0.08, -0.08):
        assert scored(late_s=late_s).sync_lag_ms == pytest.approx(1000 * late_s, abs=25)
        assert scored(late_s=late_s).active_speaker_score > 0.6
    assert scored(swap=True).active_speaker_score < 0.3


def test_a_score_is_not_invented_where_there_is_nothing_to_see_or_hear():
    laugh = scored(kind="nonverbal")  # the turn before it is still judged
    assert laugh.active_speaker_score > 0.6
    blind = conversation()
    for who in ("previous", "responder"):
        blind.person(who).motion["jaw_pose"] = np.zeros((0, 3), np.float32)
    mute = conversation()
    mute.previous.waveform = mute.responder.waveform = np.zeros(0, np.float32)
    lost = conversation()
    lost.previous.valid = lost.responder.valid = np.zeros(195, bool)
    for exchange in (blind, mute, lost):
        add_scores(exchange)
        assert math.isnan(exchange.active_speaker_score) and math.isnan(exchange.sync_lag_ms)
    half = conversation()
    half.responder.valid[100:120] = False  # a tracker's loss, filled with nonsense
    half.responder.motion["jaw_pose"][100:120] = 3.0
    add_scores(half)
    assert half.active_speaker_score > 0.6


# ---------------------------------------------------------------------------------------------------------- reactivity


def examples(relation: float, people: int = 30, each: int = 8, seed: int = 0) -> list[reactivity.Example]:
    """Pairs of people with so many exchanges each, whose faces follow a feature of the turn before."""
    rng, found = np.random.default_rng(seed), []
    for pair in range(people):
        own = rng.normal()  # what these two have in common, and nobody else
        for _ in range(each):
            features = np.append(rng.normal(size=4) + own, 40.0)
            moved = relation * features[1] + rng.normal() + own
            found.append(reactivity.Example((f"a{pair}", f"b{pair}"), features, float(moved)))
    return found


def test_a_relation_between_turn_and_answer_is_found_and_none_is_not_made_up():
    found = reactivity.predict(examples(2.0))
    assert found.count == 240 and found.correlation > 0.7
    assert abs(found.scores.mean()) < 0.2 and 0.5 < found.scores.std() < 1.1  # standard deviations about the mean
    rng = np.random.default_rng(5)
    none = [replace(one, features=rng.normal(size=5)) for one in examples(0.0)]
    assert abs(reactivity.predict(none).correlation) < 0.3 and reactivity.predict(none).scores.std() < 0.2


def test_a_score_does_not_depend_on_the_answers_of_its_own_people():
    plain = examples(1.5)
    before = reactivity.predict(plain).scores
    others = [replace(one, movement=9.0 - k) if "a3" in one.people else one for k, one in enumerate(plain)]
    after = reactivity.predict(others).scores
    own = np.array(["a3" in one.people for one in plain])
    assert np.array_equal(before[own], after[own]) and not np.array_equal(before[~own], after[~own])
    # somebody who talks with two pairs makes them one
    linked = [*others, replace(others[0], people=("a3", "a4"))]
    base = [*plain, replace(others[0], people=("a3", "a4"))]
    own = np.array([bool({"a3", "a4"} & set(one.people)) for one in linked])
    assert np.array_equal(reactivity.predict(linked).scores[own], reactivity.predict(base).scores[own])


def test_too_few_people_or_exchanges_give_no_score():
    for few in (examples(2.0, people=5, each=40), examples(2.0, people=8, each=2), []):
        assert reactivity.predict(few).count == 0
    unknown = [*examples(2.0), reactivity.Example(("x", "y"), None, 1.0)]
    assert math.isnan(reactivity.predict(unknown).scores[-1])


@pytest.fixture(scope="module")
def few():
    """Four pairs of people are enough to learn from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reactivity, "LEAST_COMPONENTS", 4)
        patch.setattr(reactivity, "LEAST_EXCHANGES", 8)
        yield


def row_of(seed: int, swap_answer: bool = False) -> dict:
    exchange = small_exchange(seed, previous_speaker=f"p{seed}", responder_name=f"r{seed}", session_id=f"s{seed}")
    rng = np.random.default_rng(seed)
    exchange.previous.waveform = exchange.responder.waveform = np.zeros(0, np.float32)
    exchange.previous.prosody = rng.normal(size=(100, 8)).astype(np.float32)
    exchange.responder.motion["expression"] *= np.exp(exchange.previous.prosody[:35, 2].mean() * 6)
    if swap_answer:
        exchange.responder.motion["expression"] = rng.random((100, 41)).astype(np.float32)
        exchange.previous.prosody[40:] = 0.0  # what the other does during the answer
        exchange.end_s -= 0.4
        for person in (exchange.previous, exchange.responder):
            person.valid = person.valid[:-10]
            person.motion = {group: array[:-10] for group, array in person.motion.items()}
    return to_row(exchange)


def test_a_dataset_is_scored_and_its_own_answer_changes_nothing(few, tmp_path):
    rows = [row_of(seed) for seed in range(36)]
    write_shard(tmp_path / "train-00000-of-00001.parquet", rows)
    path = tmp_path / "train-00000-of-00001.parquet"
    untouched = path.read_bytes()
    found = reactivity.score_files([path])
    assert found.count == 36
    exchanges = ExchangeShards(tmp_path, "train")
    stored = np.array([exchanges.row(k)["reactivity"] for k in range(36)])
    assert np.allclose(stored, found.scores) and np.array_equal(exchanges[5].responder.valid, np.ones(100, bool))
    once = path.read_bytes()
    reactivity.score_files([path])
    assert path.read_bytes() == once
    # as if the rows had been written with these scores in the first place, and back again
    assert write_shard(tmp_path / "x", [{**row, "reactivity": s} for row, s in zip(rows, found.scores)]) == 36
    assert (tmp_path / "x").read_bytes() == once
    replace_columns(path, path, {"reactivity": np.full(36, np.nan, np.float32)})
    assert path.read_bytes() == untouched
    write_shard(path, [row_of(seed, swap_answer=seed == 7) for seed in range(36)])
    other = reactivity.score_files([path]).scores
    assert other[7] == found.scores[7] and not np.array_equal(other, found.scores)


# --------------------------------------------------------------------------------------------------------------- build


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, few):
    """(manifest of four tracked talks, the dataset that it gives): one of them has its sound 80 ms early."""
    folder, sessions = tmp_path_factory.mktemp("talks"), []
    for number in range(4):
        talk, files, tracks = Talk(40 + number), [], []
        for side in (0, 1):
            files.append(f"{number}-{side}.wav")
            late = round(0.08 * 16000) if number == 1 else 0
            pcm_wav(folder / files[-1], np.pad(talk.waveform(side)[late:], (0, late)), 16000)
            tracks.append(f"{number}-{side}.npz")
            np.savez(folder / tracks[-1], exp=talk.smooth(side, FPS, 50, 0.5), pose=talk.pose(side, FPS),
                     shape=np.zeros(100, np.float32))  # fmt: skip
        sessions.append({"id": f"talk{number}", "files": files, "motion": tracks, "motion_fps": FPS})
    content = {"backends": {"activity": "energy", "motion": "deca"}, "sessions": sessions}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(content))
    report = build_dataset(folder / "manifest.yaml", folder / "out", workers=1)
    assert report.tally.kept == 12 and any("reactivity of 12 exchanges" in line for line in report.lines())
    return folder / "manifest.yaml", folder / "out"


def shards_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def test_recordings_are_scored(recorded):
    exchanges = [e for split in ("train", "validation", "test") for e in ExchangeShards(recorded[1], split, False)]
    assert len(exchanges) == 12 and all(np.isfinite(e.reactivity) for e in exchanges)
    assert min(e.active_speaker_score for e in exchanges) > 0.5
    for number, lag in enumerate((0.0, 80.0, 0.0, 0.0)):
        lags = [e.sync_lag_ms for e in exchanges if f"talk{number}" in e.session_id]
        assert np.median(lags) == pytest.approx(lag, abs=40)
    assert '"max_residual_db": -6.0' in (recorded[1] / "README.md").read_text()


@pytest.mark.parametrize("moment", ["scoring", "packing"])
def test_killed_while_scores_are_written_it_ends_with_the_same_bytes(recorded, few, tmp_path, monkeypatch, moment):
    manifest, whole = recorded
    real, count = corpus.os.replace, 0

    def replaced(source, target):
        nonlocal count
        scoring = str(target).endswith(".parquet") and re.search(r"\.parquet\.\w+\.partial$", str(source))
        packing = "-of-" in str(target)
        count += bool(scoring) if moment == "scoring" else packing
        if count == 2:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr("os.replace", replaced)
    with pytest.raises(KeyboardInterrupt):
        build_dataset(manifest, tmp_path / "out", workers=1)
    monkeypatch.setattr("os.replace", real)
    assert shards_of(tmp_path / "out") != shards_of(whole)
    build_dataset(manifest, tmp_path / "out", workers=1)
    assert shards_of(tmp_path / "out") == shards_of(whole)


def test_a_build_without_anything_to_do_leaves_filters_alone(recorded, few, tmp_path):
    manifest, whole = recorded
    folder = shutil.copytree(whole.parent, tmp_path / "talks")
    out = folder / "out"
    assert filtering.filter_dataset(out, Filters.of(["min_active_speaker_score=0.99"])).kept == 0
    before = contents(out)
    build_dataset(folder / "manifest.yaml", out, workers=1)
    assert contents(out) == before
    os.utime(folder / "0-0.npz")
    with (folder / "0-0.wav").open("ab") as file:
        file.write(b"\0\0")  # changed: its part is done again, and all are judged as the manifest's build does
    build_dataset(folder / "manifest.yaml", out, workers=1)
    assert all(e.keep for split in ("train", "test") for e in ExchangeShards(out, split, False))


# ------------------------------------------------------------------------------------------------------------- filters


def test_percentiles_are_ranks():
    found = percentiles([3.0, np.nan, 1.0, 2.0, 2.0])
    assert found[[0, 2, 3, 4]].tolist() == [87.5, 12.5, 50.0, 50.0] and np.isnan(found[1])
    assert percentiles([]).shape == (0,) and np.isnan(percentiles([np.nan])).all()


def test_the_liveliest_quarter_is_found(recorded, tmp_path):
    assert filtering.filter_dataset(recorded[1], Filters.of(["min_head_percentile=75"]), tmp_path / "out").kept == 3
    splits = ("train", "validation", "test")
    pairs = [(e.keep, exchanges.row(k)["responder_head_speed_deg_s"]) for exchanges in
             (ExchangeShards(tmp_path / "out", split, False) for split in splits) for k, e in enumerate(exchanges)]
    fast, slow = ([np.linalg.norm(speed) for keep, speed in pairs if keep == wanted] for wanted in (True, False))
    assert len(slow) == 9 and min(fast) > max(slow)


def test_datasets_without_the_later_columns_are_read_and_judged(rated):
    for path in rated.glob("*.parquet"):
        table = parquet.read_table(path)
        later = [name for name in table.column_names if "head_peak" in name or name == "head_percentile"]
        parquet.write_table(table.drop_columns(later), path)
        assert len(later) == 3
    assert filtering.filter_dataset(rated, Filters.of(["min_head_percentile=75"])).kept == 10
    assert filtering.filter_dataset(rated, Filters.of(["max_head_speed_deg_s=1"])).kept == 0
    assert all(np.isnan(exchange.head_percentile) for exchange in ExchangeShards(rated, "train"))


def test_rules_judge_what_is_known():
    row = {"previous_residual_db": -math.inf, "responder_residual_db": -4.0, "previous_valid_share": math.nan,
           "previous_head_speed_deg_s": [], "responder_head_speed_deg_s": [1.0, 9.0, 2.0], "sync_lag_ms": -90.0,
           "active_speaker_score": 0.3, "reactivity": None}  # fmt: skip
    assert reject_reasons(row, Filters()) == ["the other's voice is in the sound (residual over -6 dB)"]
    judged = Filters.of(["max_residual_db=off", "max_sync_lag_ms=80", "min_active_speaker_score=0.3",
                         "min_head_speed_deg_s=9.5", "min_reactivity=0"])  # fmt: skip
    reasons = reject_reasons(row, judged)
    glitch = {**row, "previous_head_peak_speed_deg_s": [2.0, 1500.0, 0.0], "responder_residual_db": -20.0}
    assert reject_reasons(glitch, Filters()) == ["the head turns faster than 300 degrees/s: a tracker's error"]
    assert len(reasons) == 2 and "80 ms" in reasons[0] + reasons[1] and "9.5 degrees/s" in reasons[0] + reasons[1]


@pytest.fixture(scope="module")
def rated_once(tmp_path_factory):
    folder = write_dataset(tmp_path_factory.mktemp("rated") / "d", train=8, validation=2, shards=2)
    for path in sorted(folder.glob("*.parquet")):
        count = 2 if "validation" in path.name else 4
        replace_columns(path, path, {"active_speaker_score": [0.1 * k for k in range(count)]})
    (folder / "README.md").write_text("# Talks\n\nAs they were.\n")
    return folder


@pytest.fixture
def rated(rated_once, tmp_path):
    """Three shards whose exchanges have scores of 0, 0.1, 0.2 ..."""
    return shutil.copytree(rated_once, tmp_path / "d")


def judgements(folder) -> dict[str, list[str]]:
    rows = [e for split in ("train", "validation") for e in ExchangeShards(folder, split, audio=False)]
    assert all(e.keep == (not e.reject_reasons) for e in rows)
    return {e.exchange_id: e.reject_reasons for e in rows}


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


def test_filters_are_run_again_with_other_thresholds(rated, tmp_path, capsys):
    before = contents(rated)
    arguments = ["data", "filter", str(rated), "--set", "min_active_speaker_score=0.15", "max_sync_lag_ms=80"]
    assert main([*arguments, "--out", str(tmp_path / "new")]) == 0 and contents(rated) == before
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "4 of 10 exchanges kept" in shown and "6: a mouth does not go with its voice" in shown
    found = judgements(rated)
    assert sum(map(bool, found.values())) == 6 and judgements(tmp_path / "new") == found
    card = (rated / "README.md").read_text()
    assert "As they were." in card and '"min_active_speaker_score": 0.15' in card
    assert contents(tmp_path / "new") == contents(rated)
    assert main(["data", "filter", str(rated)]) == 0 and not any(judgements(rated).values())
    after = contents(rated)
    assert after.pop("README.md").count(b"## Filters") == 1
    assert after == {name: data for name, data in before.items() if name != "README.md"}  # to the byte


@pytest.mark.parametrize("moment", range(6))
def test_a_killed_filter_leaves_the_dataset_as_it_was_or_is_ended(rated, tmp_path, monkeypatch, moment):
    before, settings = contents(rated), Filters.of(["min_active_speaker_score=0.15"])
    filtering.filter_dataset(rated, settings, tmp_path / "whole")
    real, count = filtering.os.replace, 0

    def replaced(*arguments):
        nonlocal count
        count += 1
        if count > moment:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr("os.replace", replaced)
    with pytest.raises(KeyboardInterrupt):
        filtering.filter_dataset(rated, settings)
    monkeypatch.undo()
    assert (contents(rated) == before) == (moment <= 3)  # three shards are written before the first is moved
    assert all(len(ExchangeShards(rated, split)) for split in ("train", "validation"))
    if moment > 3:
        filtering.settle(rated)
    else:
        filtering.filter_dataset(rated, settings)
    assert contents(rated) == contents(tmp_path / "whole")
    assert not [path.name for path in rated.iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("setting", "message"),
    [("loudness=3", "NAME among max_residual_db"), ("max_sync_lag_ms", "NAME=VALUE"),
     ("max_sync_lag_ms=soon", "number"), ("max_sync_lag_ms=nan", "number")],
)  # fmt: skip
def test_a_wrong_threshold_is_one_line(rated, setting, message, capsys):
    assert main(["data", "filter", str(rated), "--set", setting]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_damaged_shards_and_taken_folders_are_one_line_and_change_nothing(rated, tmp_path, capsys):
    path = sorted(rated.glob("*.parquet"))[-1]
    path.write_bytes(path.read_bytes()[:3000])
    before = contents(rated)
    assert main(["data", "filter", str(rated), "--set", "min_active_speaker_score=0.15"]) == 2
    assert path.name in capsys.readouterr().err and contents(rated) == before
    assert main(["data", "filter", str(rated), "--out", str(tmp_path)]) == 2
    assert main(["data", "filter", str(tmp_path / "nothing")]) == 2
    assert not [p for p in rated.iterdir() if p.is_dir()]
