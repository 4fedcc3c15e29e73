"""Datasets that come as videos get their faces from a tracker."""

from __future__ import annotations

import json

import dataset_fixtures as made
import numpy as np
import pytest
from faces import SIZE, fake_mediapipe, scene

from diffdyad import cli
from diffdyad.data.exchange import ExchangeShards
from diffdyad.data.importers.corpus import import_dataset
from diffdyad.data.importers.recording import ImportOptions
from diffdyad.errors import UserError
from diffdyad.export import write_video
from diffdyad.head import HeadModel
from diffdyad.tracking.landmarker import PYTHON

RATE = 30.0


def smirk(talk: made.Talk, side: int) -> dict[str, np.ndarray]:
    """As SMIRK writes it; the mouth opens with the voice."""
    pose = talk.pose(side, RATE)
    return {"expression_params": talk.smooth(side, RATE, 50, 0.5), "eyelid_params": talk.smooth(side, RATE, 2, 0.1, 2),
            "pose_params": pose[:, :3], "jaw_params": pose[:, 3:], "shape_params": talk.smooth(side, RATE, 300, 0.2, 3),
            "cam": talk.smooth(side, RATE, 3, 0.1, 4)}  # fmt: skip


@pytest.fixture
def source(tmp_path):
    """Seamless Interaction, and what SMIRK would make of its videos."""
    source = made.seamless(tmp_path / "source")
    for number, path in enumerate(sorted(source.rglob("*.mp4"), key=lambda path: path.stem)):
        result = tmp_path / "smirk" / path.relative_to(source).with_suffix(".npz")
        result.parent.mkdir(parents=True, exist_ok=True)
        np.savez(result, **smirk(made.Talk(800 + number // 2), number % 2))
    return source


def exchanges(folder):
    shards = [ExchangeShards(folder, split) for split in ("train", "validation", "test")]
    return [part[k] for part in shards for k in range(len(part))]


def options(tmp_path, **known):
    return ImportOptions(tracker="smirk", tracked=str(tmp_path / "smirk"), **{"fps": RATE} | known)


def test_results_of_a_tracker_become_the_motion(source, tmp_path):
    report = import_dataset("seamless", source, tmp_path / "out", options(tmp_path), workers=1)
    assert not report.failed and report.compared == 4 and not report.swapped and not report.notes
    found = exchanges(report.out)
    for exchange in found:
        exchange.check()
        assert (exchange.tracker, exchange.basis) == ("SMIRK", "flame2020") and exchange.num_frames
        assert exchange.responder.text == "right so" and len(exchange.responder.betas) == 300
        assert {g for g, a in exchange.responder.motion.items() if len(a)} == {
            "expression", "eyelids", "global_orient", "jaw_pose"}  # fmt: skip
    assert not (report.out / "to_track.jsonl").exists()
    lines = [json.loads(line) for line in (report.out / "sessions.jsonl").read_text().splitlines()]
    assert all(sum(name.startswith("smirk:naturalistic/") for name in line["files"]) == 2 for line in lines)


def test_swapped_voices_are_found_by_the_tracked_mouths(source, tmp_path):
    one, other = sorted((source / "naturalistic" / "test").glob("*.wav"))
    sound, sound_of_other = one.read_bytes(), other.read_bytes()
    one.write_bytes(sound_of_other)
    other.write_bytes(sound)
    report = import_dataset("seamless", source, tmp_path / "out", options(tmp_path), workers=1)
    assert len(report.swapped) == 1 and "S0003" in report.swapped[0]


def test_what_is_not_tracked_yet_is_named_and_done_the_next_time(source, tmp_path):
    path = next((tmp_path / "smirk").rglob("*P0002.npz"))
    whole = path.read_bytes()
    path.unlink()
    report = import_dataset("seamless", source, tmp_path / "out", options(tmp_path), workers=1)
    (message,) = report.failed.values()
    assert "expected what SMIRK found in" in message and str(path) in message
    path.write_bytes(whole)
    report = import_dataset("seamless", source, tmp_path / "out", options(tmp_path), workers=1)
    assert not report.failed and sum(report.exchanges.values()) == len(exchanges(report.out))
    again = import_dataset("seamless", source, tmp_path / "two", options(tmp_path), workers=2)
    assert [p.read_bytes() for p in sorted(again.out.glob("*.parquet"))] == [
        p.read_bytes() for p in sorted(report.out.glob("*.parquet"))]  # fmt: skip


def test_results_at_another_rate_are_refused(source, tmp_path):
    with pytest.raises(UserError, match=r"expected 25 fps, 425 frames.*found 510 frames .*smirk.*\.npz"):
        import_dataset("seamless", source, tmp_path / "out", options(tmp_path, fps=25.0, limit=1), workers=1)


@pytest.mark.parametrize(("words", "message"), [
    (["seamless", "--tracked", "."], "expected --tracker with --tracked"),
    (["seamless", "--tracker", "smirk"], "expected --tracked with the folder of smirk's results, found none"),
    (["seamless", "--tracker", "smork", "--tracked", "."], "expected a tracker among preview, smirk,"),
    (["seamless", "--tracker", "preview", "--tracked", "."], "expected no --tracked"),
    (["seamless", "--tracker", "preview"], "mediapipe==0.10.21"),
    (["seamless", "--tracker", "smirk", "--tracked", ".", "--basis", "flame2023"], "expected motion_basis among"),
    (["dualtalk", "--tracker", "smirk", "--tracked", "."], "DualTalk comes with motion: expected no --tracker"),
])  # fmt: skip
def test_options_that_do_not_go_together_are_one_line(source, tmp_path, words, message, monkeypatch, capsys):
    monkeypatch.delenv(PYTHON, raising=False)
    name, *flags = words
    assert cli.main(["data", "import", name, str(source), "--out", str(tmp_path / "out"), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_videos_are_watched(tmp_path, monkeypatch):
    source = made.vico(tmp_path / "source")
    for path in source.rglob("*.mp4"):
        write_video(path, (np.full((48, 64, 3), k % 256, np.uint8) for k in range(180)), 30.0)
    face = scene(HeadModel.clay(), 6.0, noise_px=0.7, mesh=True).landmarks
    monkeypatch.setenv(PYTHON, fake_mediapipe(tmp_path, face * [64 / SIZE[0], 48 / SIZE[1], 0.1]))
    report = import_dataset("vico", source, tmp_path / "out", ImportOptions(tracker="preview"), workers=1)
    assert not report.failed and not any("to_track" in note for note in report.notes)
    exchange = exchanges(report.out)[0]
    assert exchange.basis == "arkit" and "MediaPipe" in exchange.tracker
    assert exchange.previous.valid.mean() > 0.9 and exchange.responder.valid.mean() > 0.9
