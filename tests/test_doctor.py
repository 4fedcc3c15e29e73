"""What `data check` finds in a dataset, and what `data describe` says of one or of two."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from flame_heads import write_flame_head
from small_exchanges import small_exchange

from diffdyad.cli import main
from diffdyad.data.doctor import check_dataset
from diffdyad.data.dynamics import head_dynamics
from diffdyad.data.exchange import shard_name, to_row, write_shard
from diffdyad.survey import Clip, Faces, describe, read_clips
from diffdyad.survey_contrast import by_reactivity, contrast, contrast_lines


def dataset(folder, exchanges):
    """exchanges: (split, record)"""
    folder.mkdir()
    for split in {split for split, _ in exchanges}:
        rows = [to_row(record) for s, record in exchanges if s == split]
        write_shard(folder / shard_name(split, 0, 1), rows)
    return folder


def fresh(seed: int, split: str = "train", **options):
    before = "" if options.get("alone") else f"p{seed}"
    people = {"previous_speaker": before, "responder_name": f"r{seed}", "session_id": f"s{seed}"}
    return split, small_exchange(seed, split=split, **{**people, **options})


def test_a_sound_dataset_has_no_problems(tmp_path, capsys):
    folder = dataset(tmp_path / "d", [fresh(1), fresh(2), fresh(3, "test")])
    assert main(["data", "check", str(folder)]) == 0
    assert "3 exchanges (train 2, test 1)" in capsys.readouterr().out


def broken():
    def rotated():
        record = fresh(2)
        record[1].responder.motion["global_orient"][:] = 40.0  # degrees, by mistake
        return [fresh(1), record]

    def doubled():
        first, second = fresh(1), fresh(2)
        second[1].responder.waveform = first[1].responder.waveform
        return [first, second]

    def mute():
        record = fresh(1)
        record[1].responder.waveform[:] = 0.0
        return [record, fresh(2)]

    def frozen():
        record = fresh(1)
        record[1].responder.motion["expression"][:] = 0.2
        return [record, fresh(2)]

    def leaping():
        record = fresh(1)
        record[1].previous.motion["global_orient"][20:, 1] += np.deg2rad(60)  # in one frame
        return [record, fresh(2)]

    def scored():
        return [fresh(1, active_speaker_score=3.0), fresh(2)]

    def leaked():
        first, second = fresh(1), fresh(2, "test")
        second[1].responder.waveform = first[1].responder.waveform
        return [first, second]

    return {
        "active_speaker_score outside 0 to 1": scored, "the same response in several splits": leaked,
        "end outside their exchange": lambda: [fresh(1, previous_end_s=9.0), fresh(2)],
        "turn faster than 300 degrees/s": leaping,
        "half a turn": rotated, "same response": doubled, "silence": mute, "never moves": frozen,
        "more than one split": lambda: [fresh(1), fresh(2, "test", responder_name="r1")],
        "more than once": lambda: [fresh(1), fresh(2, exchange_id="e-1")],
        "do not agree": lambda: [fresh(1, next_exchange_id="e-2"), fresh(2, previous_exchange_id="")],
        "not the file's": lambda: [("test", fresh(1)[1]), fresh(2)],
    }  # fmt: skip


@pytest.mark.parametrize("what", broken())
def test_what_is_wrong_is_named(what, tmp_path, capsys):
    folder = dataset(tmp_path / "d", broken()[what]())
    assert main(["data", "check", str(folder)]) == 3
    shown = capsys.readouterr()
    named = [line for line in shown.out.splitlines() if line.startswith("problem: ")]
    assert len(named) == 1 and what in named[0] and what in shown.err


def test_columns_are_those_of_the_record(tmp_path, capsys):
    folder = dataset(tmp_path / "d", [fresh(1), fresh(2)])
    (path,) = folder.glob("*.parquet")
    table = parquet.read_table(path)
    at = table.schema.get_field_index("valence")
    table = table.set_column(at, "valence", table.column("valence").cast("string")).drop_columns(["keep"])
    parquet.write_table(table, path)
    findings = check_dataset(folder)
    assert findings.problems["columns of another type"] == [f"{path.name} valence (string, not float)"]
    assert findings.notes["columns that are not there"] == [f"{path.name} keep"]


def test_a_silent_answer_may_be_the_next_turn_before(tmp_path):
    links = {"next_exchange_id": "e-2", "response_kind": "silent"}, {"previous_exchange_id": "e-1"}
    records = [fresh(1, **links[0]), fresh(2, **links[1], previous_speaker="r1", session_id="s1")]
    records[0][1].responder.waveform[:] = 0.0
    records[1][1].previous.waveform[:] = 0.0
    assert not check_dataset(dataset(tmp_path / "d", records)).problems
    records[0][1].response_kind = "verbal"
    assert check_dataset(dataset(tmp_path / "e", records)).problems == {
        "turns whose sound is silence": ["e-1 responder", "e-2 previous"]}  # fmt: skip


def in_column(name, values):
    def change(folder):
        (path,) = folder.glob("train-*.parquet")
        table = parquet.read_table(path)
        array = pa.array(values * len(table))
        parquet.write_table(table.set_column(table.schema.get_field_index(name), name, array), path)

    return change


def written(name, content):
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize(("change", "named"), [
    (in_column("exchange_id", [7]), ["columns of another type", "text in exchange_id, found 7"]),
    (in_column("previous_end_s", ["x"]), ["columns of another type", "finite number in previous_end_s, found 'x'"]),
    (in_column("previous_end_s", [float("nan")]), ["finite number in previous_end_s, found nan"]),
    (in_column("basis", ["smplx"]), ["a basis among arkit, flame2020"]),
    (in_column("license", [None]), ["columns of another type"]),
    (in_column("responder_jaw_pose", [3.0]), ["responder_jaw_pose (double, not a list of lists of numbers)"]),
    (in_column("responder_audio", [b"abc"]), ["cannot be read", "expected FLAC bytes"]),
    (in_column("keep", [[1, 2]]), ["columns of another type"]),
    (lambda folder: next(folder.glob("train-*")).rename(folder / "train-a-of-b.parquet"), ["names that no shard has"]),
    (lambda folder: shutil.copy(folder / shard_name("train", 0, 1), folder / "train-00000-of-00001 (1).parquet"),
     ["names that no shard has", "more than once: e-1, e-2"]),
    (lambda folder: (folder / shard_name("test", 0, 1)).mkdir(), ["shards that cannot be read"]),
    (written(shard_name("test", 0, 1), b""), ["shards that cannot be read"]),
    (written("sessions.jsonl", b"{not json\n"), ["reports that cannot be read"]),
    (written("sessions.jsonl", b"[1]\n"), ["reports that cannot be read"]),
    (written("sessions.jsonl", b"\xff\xfe"), ["reports that cannot be read"]),
])  # fmt: skip
def test_whatever_is_broken_is_a_line(change, named, tmp_path, capsys):
    folder = dataset(tmp_path / "d", [fresh(1), fresh(2)])
    change(folder)
    assert main(["data", "check", str(folder)]) == 3
    problems = "\n".join(line for line in capsys.readouterr().out.splitlines() if line.startswith("problem: "))
    assert all(words in problems for words in named)


def test_cells_without_a_value_and_shards_without_rows_are_named(tmp_path):
    folder = dataset(tmp_path / "d", [fresh(1), fresh(2), fresh(3, "test")])
    path, other = folder / shard_name("train", 0, 1), folder / shard_name("test", 0, 1)
    table = parquet.read_table(path)
    at = table.schema.get_field_index("reactivity")
    parquet.write_table(table.set_column(at, table.schema.field(at), pa.array([0.1, None], pa.float32())), path)
    parquet.write_table(parquet.read_table(other).slice(0, 0), other)
    problems = check_dataset(folder).problems
    assert problems == {"cells without a value": [f"{path.name} reactivity (1)"],
                        "shards without exchanges": [other.name]}  # fmt: skip


def test_a_file_of_two_recordings_is_noted(tmp_path):
    folder = dataset(tmp_path / "d", [fresh(1), fresh(2)])
    lines = [{"recording": name, "files": {f"{name}.wav": content}} for name, content in
             (("a", "1f"), ("b", "2e"), ("c", "1f"), ("d", "size:9"), ("e", "size:9"))]  # fmt: skip
    (folder / "sessions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert check_dataset(folder).notes["recordings with a file in common"] == ["a = c"]


def test_damaged_and_missing_shards_are_named(tmp_path):
    folder = dataset(tmp_path / "d", [fresh(1), fresh(2, "test")])
    path = folder / shard_name("test", 0, 1)
    path.write_bytes(path.read_bytes()[:2000])
    (folder / shard_name("train", 0, 1)).rename(folder / shard_name("train", 0, 2))
    findings = check_dataset(folder)
    assert findings.problems["shards are missing, or of two datasets"] == ["train"]
    assert path.name in findings.problems["shards that cannot be read"][0]


def test_head_dynamics_are_those_of_a_known_swing():
    time = np.arange(250) / 25
    head = np.zeros((250, 3), np.float32)
    head[:, 1] = np.deg2rad(10) * np.sin(2 * np.pi * 0.5 * time)  # yaw
    found = head_dynamics({"global_orient": head}, np.ones(250, bool), 25.0)
    assert found.sd_deg == pytest.approx([0, 10 / np.sqrt(2), 0], abs=0.05)
    assert found.speed_deg_s == pytest.approx([0, 20, 0], abs=0.2)  # 4 amplitudes in 2 s
    assert found.range_deg[1] == pytest.approx(20, abs=0.3)
    assert found.peak_speed_deg_s == pytest.approx([0, 10 * np.pi, 0], abs=0.2)
    lost = np.deg2rad(60) * (np.arange(250) == 100)[:, None]
    found = head_dynamics({"global_orient": (head + lost).astype(np.float32)}, np.arange(250) != 100, 25.0)
    assert max(found.peak_speed_deg_s) < 32  # of frames that do not hold, nothing is said
    round_about = np.zeros((250, 3), np.float32)
    round_about[:, 1] = np.mod(0.1 * np.arange(250) + np.pi, 2 * np.pi) - np.pi
    found = head_dynamics({"global_orient": round_about}, np.ones(250, bool), 25.0)
    assert found.peak_speed_deg_s == pytest.approx([0, np.rad2deg(2.5), 0], abs=0.1)
    assert head_dynamics({}, np.zeros(0, bool), 25.0).sd_deg == []


def test_how_lively_a_head_is_counts_in_its_own_turn():
    record = small_exchange(1, groups=("neck_pose",))  # from -1.6 s on; the previous turn ends at -0.2 s
    frames = np.arange(record.num_frames)
    for person in (record.previous, record.responder):
        person.motion["global_orient"][:] = 0.0
    record.previous.motion["global_orient"][:36, 1] = np.deg2rad(frames[:36] % 2)  # 25 degrees/s up to its last frame
    record.responder.motion["global_orient"][40:, 0] = np.deg2rad(2 * (frames[40:] % 2))
    record.responder.motion["global_orient"][10, 2] = np.deg2rad(20)  # while listening
    row = to_row(record)
    assert row["previous_head_speed_deg_s"] == pytest.approx([0, 25, 0], abs=0.01)
    assert row["responder_head_speed_deg_s"] == pytest.approx([50, 0, 0], abs=0.01)
    assert row["responder_head_sd_deg"] == pytest.approx([1, 0, 0], abs=0.01)
    assert row["responder_head_range_deg"] == pytest.approx([2, 0, 0], abs=0.01)
    assert row["responder_head_peak_speed_deg_s"][2] == pytest.approx(500, abs=0.1)  # a tracker's error, anywhere
    record.start_s, record.previous_end_s, record.end_s = -4.0, 0.0, 0.0  # somebody who only listens
    assert to_row(record)["responder_head_speed_deg_s"][0] == pytest.approx(50 * 59 / 99)


def test_describe_counts_and_compares(tmp_path, capsys):
    one = dataset(tmp_path / "one", [fresh(k, valence=0.5) for k in range(4)] + [fresh(9, "test")])
    two = dataset(tmp_path / "two", [fresh(20 + k, alone=True) for k in range(3)])
    out = tmp_path / "out"
    assert main(["data", "describe", str(one), "--against", str(two), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    for line in ("5 exchanges", "head speed, degrees/s", "independent groups of people: 5 and 3"):
        assert line in shown
    found = json.loads((out / "describe.json").read_text())
    assert found["splits"]["test"]["exchanges"] == 1 and found["kinds"] == {"verbal": 5}
    assert found["gap_s"]["p50"] == pytest.approx(0.2) and found["previous_valence"]["count"] == 4
    assert (out / "describe.png").read_bytes()[:4] == b"\x89PNG"
    assert describe(read_clips(two))["without_previous_turn"] == 3


def test_brows_of_flame_motion_are_measured_on_a_head(tmp_path, capsys):
    raised = np.zeros(104, np.float32)  # from the onset at frame 40 on, twice, by 12 mm: the second expression's 1 mm
    raised[50:65] = raised[80:95] = 12.0
    records = []
    for seed in range(3):
        split, record = fresh(seed, basis="flame2020")
        record.responder.motion["expression"][:] = 0
        record.responder.motion["expression"][: len(raised), 1] = raised[: record.responder.num_frames]
        records.append((split, record))
    folder = dataset(tmp_path / "one", records)
    assert "brow_raises_per_min" not in read_clips(folder)[0].rates
    head = write_flame_head(tmp_path / "FLAME2020.npz")
    assert main(["data", "describe", str(folder), "--against", str(folder), "--head", str(head)]) == 0
    assert "brow raises per minute" in capsys.readouterr().out
    rates = read_clips(folder, faces=Faces(head))[0].rates
    seconds = 60 / 25  # what is left after the onset
    assert rates["brow_raises_per_min"] == pytest.approx(2 * 60 / seconds) and rates["smiles_per_min"] == 0


def voiced(seed: int, **options):
    """With prosody whose pitch, level and rate in the turn before are 2 (sd 1), -6 and 1.5."""
    split, record = fresh(seed, **{"prosody_encoder": "prosody", **options})
    voice = np.full((record.previous.num_frames, 8), 9.0, np.float32)
    before = np.arange(len(voice)) < round((record.previous_end_s - record.start_s) * record.fps)
    voice[before] = [2.0, 0.9, -6.0, 0.0, 0.0, 0.0, 1.5, 0.0]
    voice[before, 0] += np.where(np.arange(before.sum()) % 2, 1.0, -1.0)
    voice[:5] = [0.0, 0.1, -40.0, 0.0, 0.0, 0.0, 0.0, 0.0]  # nobody speaks yet
    record.previous.prosody = voice
    return split, record


def test_describe_says_how_the_voices_before_were_and_divides_by_what_is_expected(tmp_path, capsys):
    one = dataset(tmp_path / "one", [voiced(k, reactivity=0.1 * k) for k in range(6)] + [fresh(6)])
    two = dataset(tmp_path / "two", [fresh(20 + k, alone=True) for k in range(3)])
    out = tmp_path / "out"
    assert main(["data", "describe", str(one), "--against", str(two), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "level before, dB" in shown and "where much movement is expected" in shown
    found = json.loads((out / "describe.json").read_text())
    assert {name: values["mean"] for name, values in found["previous_voice"].items()} == pytest.approx(
        {"pitch_semitones": 2.0, "pitch_sd_semitones": 1.0, "level_db": -6.0, "rate_db": 1.5}, abs=0.01
    )
    assert found["previous_voice"]["level_db"]["count"] == 6 and found["previous_valence"] is None
    clips = read_clips(one)
    thirds = by_reactivity(clips, read_clips(two))
    assert [[round(10 * clip.reactivity) for clip in own] for _, own, _ in thirds] == [[0, 1], [2, 3], [4, 5]]
    assert all(len(others) == 3 for _, _, others in thirds)
    assert [len(others) for _, _, others in by_reactivity(clips, clips)] == [2, 2, 2]
    assert set(found["against"]["by_reactivity"]) == {"little", "some", "much"}
    assert by_reactivity(read_clips(two), clips) == []


def test_a_difference_between_people_is_found_and_none_is_not():
    rng = np.random.default_rng(0)

    def clips(mean: float, people: int) -> list[Clip]:
        found = []
        for person in range(people):
            own = mean + rng.normal()
            for _ in range(5):
                rates = {"nods_per_min": own + rng.normal()}
                found.append(Clip((f"a{person}", f"b{person}"), "train", "verbal", 5.0, 0.2, 0.0, [], [], rates,
                                  np.nan, np.nan, "", True))  # fmt: skip
        return found

    same, = contrast(clips(10, 30), clips(10, 30))
    assert same.difference_low < 0 < same.difference_high
    more, = contrast(clips(12, 30), clips(10, 30))
    assert 0 < more.difference_low < 2 < more.difference_high and 0.8 < more.g < 2.2 and more.units == (30, 30)
    lone, = contrast(clips(12, 1), clips(10, 30))
    assert np.isnan(lone.difference_low)
    # of few people, sizes in their own deviations are absurd, and are not given
    few, = contrast(clips(12, 4), clips(10, 30))
    assert np.isfinite([few.difference_low, few.difference_high]).all() and np.isnan([few.g, few.g_low]).all()
    lines = contrast_lines([few], ("one", "two"))
    assert lines[1].endswith("  -") and lines[-1] == "g is not given for fewer than 5 such groups on either side"
    five = [clips(12, 5), clips(10, 5)]
    enough, = contrast(*five)
    rates = [np.array([clip.rates["nods_per_min"] for clip in own]) for own in five]
    cohen = (rates[0].mean() - rates[1].mean()) / np.sqrt((rates[0].var(ddof=1) + rates[1].var(ddof=1)) / 2)
    assert enough.g == pytest.approx(cohen * (1 - 3 / 31)) and enough.g_low < enough.g < enough.g_high


def test_describe_says_how_affect_differs_and_whether_answers_are_like_the_turns_before(tmp_path, capsys):
    rng, records = np.random.default_rng(0), []
    for seed in range(12):
        people = {"previous_speaker": f"p{seed // 4}", "responder_name": f"r{seed // 4}", "session_id": f"s{seed // 4}"}
        split, record = fresh(seed, **people, affect_encoder="net@1", face_affect_encoder="face@2")
        mood = rng.normal(size=6)  # what an answer takes over from the turn before
        for who, begin in (("previous", 0), ("responder", 8)):  # 20 rows of 0.2 s, the onset after the 8th
            rows = np.full((20, 6), 50.0, np.float32)  # elsewhere: another person's turn
            rows[begin : begin + (7 if who == "previous" else 12)] = mood + 0.1 * rng.normal(size=6) + 5 * (seed // 4)
            record.person(who).affect = rows
            face = rng.normal(size=(20, 6)).astype(np.float32)
            face[::2] = np.nan
            record.person(who).face_affect = face
        records.append((split, record))
    folder, out = dataset(tmp_path / "one", records), tmp_path / "out"
    assert main(["data", "describe", str(folder), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "affect of the voice by net@1 (12)" in shown and "face affect known, share, before" in shown
    found = json.loads((out / "describe.json").read_text())["affect"]
    voice, face = found["affect"], found["face_affect"]
    assert "previous_known" not in voice and face["responder_known"]["mean"] == pytest.approx(0.5)
    assert voice["previous_distance"]["mean"] == pytest.approx(1.0, abs=0.2)
    assert voice["likeness"]["mean"] > voice["likeness_otherwise"]["mean"] + 0.02
    assert abs(face["likeness"]["mean"]) < 0.35 and voice["likeness"]["count"] == 12
