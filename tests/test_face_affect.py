"""Affect of faces in a build: a tiny network with random weights on rendered heads; and shots without a tracker."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import tone
from dataset_fixtures import Talk
from faces import SIZE, fake_mediapipe, scene
from killing import build_with_kills, shards_of
from test_affect import save_face_classifier
from test_tracking_video import pictures, ready

from diffdyad.affect import FaceAffectEncoder
from diffdyad.cli import main
from diffdyad.data.doctor import check_dataset
from diffdyad.data.exchange import ExchangeShards, open_exchanges
from diffdyad.data.recordings.build import build_dataset
from diffdyad.data.recordings.face_affect import FaceFeatures, crop
from diffdyad.data.recordings.steps import Steps
from diffdyad.export import write_video
from diffdyad.head import HeadModel
from diffdyad.video import read_frames

PX = 96


def test_a_face_is_cut_out_with_its_surroundings():
    frame = np.zeros((60, 80, 3), np.uint8)
    frame[20:40, 30:50] = 200
    face = np.array([[30.0, 20, 5], [50, 40, -5]])
    picture = crop(frame, face)
    assert picture.shape == (3, 224, 224) and picture.max() <= 1
    # 20 pixels of 26, in the middle
    assert float((picture[0] > 0.4).float().mean()) == pytest.approx((20 / 26) ** 2, abs=0.02)
    assert picture[0, 112, 112] == pytest.approx(200 / 255, abs=0.01)
    outside = crop(frame, face - [40, 30, 0])  # mostly beyond the corner
    assert not outside[:, :100, :100].any()


def test_features_are_those_of_the_last_picture():
    features = FaceFeatures(np.arange(5, dtype=np.float32)[:, None], late_s=1.0)
    found = features.at(np.array([0.9, 1.0, 1.02, 1.2, 1.23, 1.45, 1.83, 2.1]))[:, 0]
    assert np.isnan(found[[0, 1, 7]]).all() and found[2:7].tolist() == [0, 0, 1, 2, 4]


def write_faces(folder: Path) -> np.ndarray:
    """a.mp4: a head that turns, 8 s; b.mp4: no face. Landmarks of the head, in its pictures."""
    from diffdyad.render import Renderer

    clay = HeadModel.clay()
    poses = torch.zeros(4, 15)
    poses[:, 1] = torch.linspace(-0.5, 0.5, 4)
    renderer = Renderer.for_head(clay, size=(PX, PX))
    shown = [renderer.render(vertices) for vertices in clay(poses=poses).numpy()]
    talk = Talk(0, 8.0, [(0, 0.0, 3.5), (1, 3.8, 7.0)])
    film = (shown[number // 7 % 4] for number in range(200))
    write_video(folder / "a.mp4", film, 25.0, talk.waveform(0), 16000)
    write_video(folder / "b.mp4", pictures(200), 25.0, talk.waveform(1), 16000)
    return scene(clay, 8.0, noise_px=0.5, mesh=True).landmarks * [PX / SIZE[0], PX / SIZE[1], PX / SIZE[0]]


def manifest(folder: Path, session: dict | None = None, **backends) -> Path:
    content = {"name": "faces", "sessions": [{"files": ["a.mp4", "b.mp4"], "speakers": ["a", "b"], **(session or {})}],
               "backends": {"activity": "energy", "prosody": "none", **backends}}  # fmt: skip
    (folder / "m.yaml").write_text(yaml.safe_dump(content))
    return folder / "m.yaml"


@pytest.mark.parametrize("motion", ["none", "smirk"])
def test_faces_become_columns(motion, tmp_path):
    landmarks = write_faces(tmp_path)
    save_face_classifier(tmp_path / "expressions")
    python = fake_mediapipe(tmp_path, landmarks)
    session = {}
    if motion == "smirk":
        session = {"motion": ["a.npz", "b.npz"]}
        for name in "ab":
            np.savez(tmp_path / f"{name}.npz", **ready("smirk", 200))
    path = manifest(tmp_path, session, motion=motion, mediapipe_python=python, face_affect="expressions")
    build_dataset(path, tmp_path / "out", workers=1)
    shards = ExchangeShards(tmp_path / "out", "train")
    exchange, row = shards[0], shards.row(0)
    name, weights = exchange.face_affect_encoder.split("@")
    assert name == "expressions" and len(weights) == 16 and "affect_encoder" not in row
    encoder = FaceAffectEncoder(str(tmp_path / "expressions"))
    frames = list(read_frames(tmp_path / "a.mp4", 25.0, (PX, PX)))
    start = exchange.session_onset_s + exchange.start_s
    features = exchange.previous.face_affect
    assert features.shape == (int((exchange.end_s - exchange.start_s) / 0.2 + 1e-6), 16)
    fixed = np.rint(landmarks * 8) / 8  # as they are stored
    for number in (0, 5, 11):
        frame = 5 * int((start + 0.2 * (number + 1) - 0.02) / 0.2 + 1e-6)
        expected = encoder.encode(crop(frames[frame], fixed[frame])[None])[0].numpy()
        assert np.allclose(features[number], expected, atol=1e-4)
    assert np.abs(features[0] - features[5]).max() > 1e-3  # another view of the head
    stored = open_exchanges(tmp_path / "out", "train", str(tmp_path / "cache"))
    assert stored.features["responder_face_affect"].shape == (None, 16)
    assert not any("contradict" in problem for problem in check_dataset(tmp_path / "out").problems)
    step = json.loads((tmp_path / "out" / "sessions.jsonl").read_text().splitlines()[0])["steps"]["face_affect"]
    assert step["backend"] == "vit" and step["settings"]["margin"] == 1.3
    kills = [("faces", 1), ("face_affect", 1), ("shots", 1), ("faces", 1)]  # the first person's, the second one's
    assert build_with_kills(path, tmp_path / "killed", kills) == shards_of(tmp_path / "out")


def test_no_face_is_no_number_and_faces_are_tracked_once(tmp_path):
    landmarks = write_faces(tmp_path)
    save_face_classifier(tmp_path / "expressions")
    python = fake_mediapipe(tmp_path, landmarks[:40])  # and then none
    path = manifest(tmp_path, mediapipe_python=python, face_affect=str(tmp_path / "expressions"), motion="preview")
    build_dataset(path, tmp_path / "out", workers=1)
    (exchange, *_) = ExchangeShards(tmp_path / "out", "train")
    there = np.isfinite(exchange.previous.face_affect).all(1)
    assert there[:7].all() and np.isnan(exchange.previous.face_affect[9:]).all()
    assert exchange.previous.valid[:38].mean() > 0.9 and not exchange.previous.valid[41:].any()
    assert len(list((tmp_path / "out" / ".steps").glob("faces-*"))) == 2  # of two files, for both


def test_whose_face_is_whose_must_be_known(tmp_path):
    sound = Talk(0, 8.0, [(0, 0.0, 3.5), (1, 3.8, 7.0)])
    write_video(tmp_path / "both.mp4", pictures(200), 25.0, sound.waveform(0) + sound.waveform(1), 16000)
    from diffdyad.data.recordings.manifest import Backends, Session
    from diffdyad.data.recordings.watching import see

    seen = see([tmp_path / "both.mp4"], [], Session(files=["both.mp4"], layout="mixed"), Backends(),
               Steps(tmp_path / "steps"), [[], []], 8.0, "mixed", "anything")  # fmt: skip
    assert "whose face is whose" in seen.notes[0] and seen.faces == [None, None]


def test_wrong_weights_are_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in "ab":
        write_video(tmp_path / f"{name}.mp4", pictures(10), 25.0, tone(0.4).numpy(), 16000)
    for backends, message in (
        ({"face_affect": "nobody/nothing"}, "another in `face_affect`"),
        ({"face_affect_revision": "x"}, "face_affect_revision is for an encoder's name in `face_affect`"),
    ):
        assert main(["data", "build", str(manifest(tmp_path, **backends)), "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


# -------------------------------------------------------------------------------------------------------------- shots


@pytest.mark.parametrize("motion", ["none", "smirk"])
def test_no_exchange_crosses_a_cut_of_a_video_that_is_not_tracked(motion, tmp_path):
    talk = Talk(0, 8.0, [(0, 0.0, 3.5), (1, 3.8, 7.0)])
    for side, name in enumerate("ab"):
        cut = 8 if side == 0 else None
        write_video(tmp_path / f"{name}.mp4", pictures(200, cut), 25.0, talk.waveform(side), 16000)
        np.savez(tmp_path / f"{name}.npz", **ready("smirk", 200))
    session = {"motion": ["a.npz", "b.npz"]} if motion == "smirk" else {}
    build_dataset(manifest(tmp_path, session, motion=motion), tmp_path / "out", workers=1)
    (exchange,) = ExchangeShards(tmp_path / "out", "train")
    assert exchange.session_onset_s + exchange.start_s == pytest.approx(0.32, abs=0.021)
    steps = json.loads((tmp_path / "out" / "sessions.jsonl").read_text().splitlines()[0])["steps"]
    assert steps["shots"]["backend"] == "colours" and "faces" not in steps
    assert len(list((tmp_path / "out" / ".steps").glob("shots-*"))) == 2
