"""The record: rows there and back, files with equal bytes, absent things absent."""

import math

import numpy as np
import pytest
import torch
from small_exchanges import write_dataset

from diffdyad.data.exchange import (
    Exchange,
    ExchangeShards,
    Person,
    exchange_features,
    from_row,
    group_widths,
    open_exchanges,
    shard_name,
    to_row,
    write_shard,
)
from diffdyad.errors import UserError
from diffdyad.motion import POSE_GROUPS
from diffdyad.text import TimedWord

FPS, START, END = 25.0, -2.0, 3.0
FRAMES = 125


def person(rng: np.random.Generator, groups=("expression", *POSE_GROUPS), audio: bool = True) -> Person:
    motion = {
        group: rng.normal(size=(FRAMES if group in groups else 0, width)).astype(np.float32)
        for group, width in group_widths(41).items()
    }
    waveform = rng.uniform(-0.9, 0.9, round((END - START) * 16000)).astype(np.float32)
    return Person(
        waveform=waveform if audio else np.zeros(0, np.float32),
        motion=motion,
        valid=rng.random(FRAMES) < 0.9 if groups else np.zeros(0, bool),
        betas=rng.normal(size=10).astype(np.float32),
        text="Good morning.",
        words=[TimedWord("Good", 0.1, 0.3), TimedWord("morning", 0.3, 0.8, 0.5)],
    )


def exchange(seed: int = 0, **options) -> Exchange:
    rng = np.random.default_rng(seed)
    people = {"previous": person(rng), "responder": person(rng)}
    return Exchange(
        **{
            "exchange_id": f"s-{seed}", "session_id": "s", "previous_speaker": "a", "responder_name": "b",
            "split": "train", "start_s": START, "previous_end_s": -0.2, "end_s": END, **people, **options,
        }
    )  # fmt: skip


def assert_same(a: Exchange, b: Exchange) -> None:
    for name, value in vars(a).items():
        if not isinstance(value, Person):
            other = getattr(b, name)
            same = isinstance(value, float) and ((math.isnan(value) and math.isnan(other)) or np.isclose(value, other))
            assert same or value == other, name
    for who in ("previous", "responder"):
        one, two = a.person(who), b.person(who)
        assert np.allclose(one.waveform, two.waveform, atol=2**-15)
        assert set(one.motion) == set(two.motion)
        for group in one.motion:
            assert one.motion[group].shape == two.motion[group].shape, group
            assert np.array_equal(one.motion[group], two.motion[group]), group
        assert np.array_equal(one.valid, two.valid) and np.array_equal(one.betas, two.betas)
        assert (one.text, one.words) == (two.text, two.words)


def test_columns_are_those_of_the_design():
    features = exchange_features(41)
    wanted = [
        "exchange_id", "session_id", "previous_exchange_id", "next_exchange_id", "previous_speaker", "responder",
        "split", "source", "license", "consent", "start_s", "previous_end_s", "end_s", "session_onset_s", "gap_s",
        "overlap_ratio", "previous_audio", "responder_audio", "previous_valid", "responder_valid",
        "previous_betas", "responder_betas", "previous_text", "responder_text", "previous_words",
        "responder_words", "basis", "tracker", "neck_folded", "fps", "config_hash", "response_kind", "valence",
        "arousal", "reactive", "planted_strength", "planted_time_constant_s", "language", "turns", "prosody_encoder",
        "active_speaker_score", "sync_lag_ms", "reprojection_px", "reactivity", "head_percentile",
        "keep", "reject_reasons",
    ]  # fmt: skip
    wanted += [f"{who}_{group}" for who in ("previous", "responder") for group in group_widths(41)]
    per_person = ("prosody", "tags", "residual_db", "valid_share", "head_sd_deg", "head_speed_deg_s", "head_range_deg",
                  "head_peak_speed_deg_s")  # fmt: skip
    wanted += [f"{who}_{name}" for who in ("previous", "responder") for name in per_person]
    assert set(wanted) <= set(features)
    extra = set(features) - set(wanted)
    assert all(name.startswith("planted_") for name in extra), extra
    assert features["responder_audio"].dtype == "binary"
    assert features["overlap_ratio"].dtype == "float32" and features["start_s"].dtype == "float64"


def test_row_round_trip():
    original = exchange(1, valence=0.5, reactive=True, planted_strength=1.0)
    row = to_row(original)
    assert set(row) == set(exchange_features(41))
    assert row["gap_s"] == 0.2 and row["responder_audio"].startswith(b"fLaC")
    assert_same(original, from_row(row))


def test_parquet_round_trip_with_absent_things(tmp_path):
    rng = np.random.default_rng(5)
    full = exchange(0)
    no_eyes = exchange(1, responder=person(rng, ("expression", "global_orient", "neck_pose", "jaw_pose")))
    monologue = exchange(2, previous=person(rng, (), audio=False))
    records = [full, no_eyes, monologue]
    path = tmp_path / shard_name("train", 0, 1)
    write_shard(path, [to_row(record) for record in records])
    assert [p.name for p in tmp_path.iterdir()] == ["train-00000-of-00001.parquet"]
    shards = ExchangeShards(tmp_path, "train")
    assert len(shards) == 3
    dataset = open_exchanges(tmp_path, "train", cache_dir=str(tmp_path / "cache"))
    assert dataset.features == exchange_features(41)
    for index, record in enumerate(records):
        assert_same(record, shards[index])
        assert_same(record, from_row(dataset[index]))
    batch = dataset.with_format("numpy", columns=["previous_expression", "responder_leye_pose"])[:]
    assert [a.shape for a in batch["previous_expression"]] == [(FRAMES, 41), (FRAMES, 41), (0, 41)]
    assert [a.shape for a in batch["responder_leye_pose"]] == [(FRAMES, 3), (0, 3), (FRAMES, 3)]


def test_load_dataset_finds_the_splits_by_file_name(tmp_path):
    from datasets import load_dataset

    folder = tmp_path / "corpus"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        write_shard(folder / shard_name(split, 0, 1), [to_row(exchange(3, split=split))])
    loaded = load_dataset("parquet", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    assert {name: len(part) for name, part in loaded.items()} == {"train": 1, "validation": 1, "test": 1}
    assert loaded["test"][0]["split"] == "test"


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_two_processes_stream_all_rows_once(tmp_path, shards):
    from datasets import load_dataset
    from datasets.distributed import split_dataset_by_node

    write_dataset(tmp_path / "d", train=7, shards=shards)
    files = str(tmp_path / "d" / "train-*.parquet")
    parts = []
    for rank in (0, 1):
        rows = load_dataset("parquet", data_files=files, split="train", streaming=True, cache_dir=str(tmp_path))
        parts.append([from_row(row) for row in split_dataset_by_node(rows, rank=rank, world_size=2)])
    assert all(parts) and sorted(e.exchange_id for part in parts for e in part) == [f"e-{k}" for k in range(7)]
    assert all(len(e.responder.waveform) and len(e.responder.motion["expression"]) for part in parts for e in part)


def test_equal_rows_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_shard(tmp_path / name / shard_name("test", 0, 1), [to_row(exchange(4)), to_row(exchange(5))])
    a, b = (next((tmp_path / name).iterdir()).read_bytes() for name in "ab")
    assert a == b


def test_unwritten_shards_leave_nothing(tmp_path, monkeypatch):
    import pyarrow.parquet

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pyarrow.parquet.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        write_shard(tmp_path / shard_name("train", 0, 1), [to_row(exchange())])
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="at least one"):
        write_shard(tmp_path / "x.parquet", [])


def test_motion_says_what_is_valid():
    rng = np.random.default_rng(7)
    record = exchange(6, responder=person(rng, ("expression", "global_orient", "jaw_pose")))
    motion = record.motion("responder")
    assert motion.layout.dim == 56 and len(motion) == FRAMES
    column = dict(zip(motion.layout.groups, motion.valid.T))
    assert torch.equal(column["jaw_pose"], torch.from_numpy(record.responder.valid))
    assert not column["leye_pose"].any() and not motion.select("leye_pose").any()
    assert np.array_equal(motion.select("expression").numpy(), record.responder.motion["expression"])
    assert record.gap_s == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"split": "dev"}, "dev"), ({"start_s": -21.0}, "start_s"), ({"fps": float("nan")}, "fps"),
        ({"response_kind": "odd"}, "odd"), ({"end_s": 5.0}, "frames"),
    ],
)  # fmt: skip
def test_contradictions_are_named(change, says):
    with pytest.raises(ValueError, match=says):
        exchange(**change).check()


def test_bad_arrays_are_named():
    record = exchange()
    record.responder.motion["jaw_pose"][3, 0] = np.nan
    with pytest.raises(ValueError, match="responder_jaw_pose"):
        to_row(record)
    record = exchange()
    record.previous.valid = record.previous.valid[:-1]
    with pytest.raises(ValueError, match="previous_valid"):
        to_row(record)


def test_a_missing_split_says_which_there_are(tmp_path):
    write_shard(tmp_path / shard_name("train", 0, 1), [to_row(exchange())])
    with pytest.raises(UserError, match="train"):
        ExchangeShards(tmp_path, "test")
    with pytest.raises(UserError, match="none"):
        ExchangeShards(tmp_path / "nowhere", "test")
