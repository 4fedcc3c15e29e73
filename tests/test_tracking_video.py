"""From videos to motion: pictures in time, shots, whose face is whose, the worker process, builds and samples."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import tone
from dataset_fixtures import Talk
from faces import SIZE, angle_deg, fake_mediapipe, scene
from killing import build_with_kills, shards_of

from diffdyad import cli
from diffdyad.data.exchange import ExchangeShards
from diffdyad.data.recordings.build import build_dataset
from diffdyad.data.recordings.trackers import FORMATS, read_tracked
from diffdyad.data.recordings.turns import Answer, Turn, find_silences, within_shots
from diffdyad.errors import UserError
from diffdyad.export import write_video
from diffdyad.head import HeadModel
from diffdyad.media import write_wav
from diffdyad.motion import load_motion
from diffdyad.tracking.landmarker import MODEL, PYTHON, Landmarker
from diffdyad.tracking.shots import Shots
from diffdyad.tracking.watch import assign_halves, fit_track, go_on
from diffdyad.video import has_video, read_frames, video_info


def pictures(count: int, cut: int | None = None):
    """Small pictures of a gradient, brighter by 3 in each (up to the 60th); from `cut` on, of another colour."""
    slope = np.linspace(-20, 20, 64)[None, :, None]
    for number in range(count):
        picture = np.broadcast_to(40 + 3 * min(number, 60) + slope, (48, 64, 3)).astype(np.uint8).copy()
        if cut is not None and number >= cut:
            picture[..., 2] = 0
        yield picture


@pytest.fixture(scope="module")
def clay() -> HeadModel:
    return HeadModel.clay()


@pytest.fixture(scope="module")
def planted(clay):
    """Six seconds of a face, as MediaPipe's 478 landmarks."""
    return scene(clay, 6.0, noise_px=0.7, mesh=True)


# ------------------------------------------------------------------------------------------------------------ pictures


def test_pictures_are_taken_by_their_time(tmp_path):
    write_video(tmp_path / "a.mp4", pictures(60), 30.0, np.zeros(32000), 16000)
    info = video_info(tmp_path / "a.mp4")
    assert (info.width, info.height) == (64, 48) and info.fps == pytest.approx(30)
    assert info.fitted(32) == (32, 24)
    frames = list(read_frames(tmp_path / "a.mp4", 25.0, (32, 24)))
    assert len(frames) == 50 and frames[0].shape == (24, 32, 3)
    found, middle = np.array([(frame.mean() - 39.5) / 3 for frame in frames]), (np.arange(50) + 0.5) / 25 * 30
    # what is shown in the middle of a frame's time, where that is not just between two
    clear = np.abs(middle - middle.round()) > 0.01
    assert clear.sum() == 40 and np.abs(found - np.floor(middle))[clear].max() < 0.9
    later = list(read_frames(tmp_path / "a.mp4", 25.0, (32, 24), start_s=1.2))
    assert len(later) == 20 and np.array_equal(later[0], frames[30])
    write_wav(tmp_path / "b.wav", tone(1.0))
    assert has_video(tmp_path / "a.mp4") and not has_video(tmp_path / "b.wav") and not has_video(tmp_path / "no")
    with pytest.raises(UserError, match="expected moving pictures, found none"):
        video_info(tmp_path / "b.wav")


def test_a_cut_is_a_shot_and_flashes_and_fades_are_none():
    rng = np.random.default_rng(0)
    first, second = (rng.integers(low, low + 60, (48, 64, 3)) for low in (20, 150))
    shots = Shots()
    for number in range(80):
        frame = first if number < 30 else second
        if number == 15:
            frame = np.full_like(first, 255)  # a flash
        if number >= 50:
            frame = second + (first - second) * (number - 50) / 30  # a fade
        shots.add((frame + rng.integers(0, 3, first.shape)).clip(0, 255).astype(np.uint8))
    assert shots.cuts() == [30]


def test_faces_of_a_split_screen_and_a_face_that_goes_on():
    def face(x: float, y: float, height: float) -> np.ndarray:
        return np.stack([np.full(478, x), np.linspace(y, y + height, 478), np.zeros(478)], -1)

    left, right, small = face(100, 50, 80), face(500, 60, 90), face(520, 300, 20)
    found = assign_halves(np.stack([right, small, left]), 640)
    assert np.array_equal(found[0], left) and np.array_equal(found[1], right)
    assert list(assign_halves(np.stack([right]), 640)) == [1]
    both = np.stack([left, right])
    assert np.array_equal(go_on(both, None), right) and np.array_equal(go_on(both, face(110, 52, 80)), left)


def test_no_exchange_crosses_a_cut():
    a, b, c = Turn(0, 0.0, 5.0), Turn(1, 5.5, 12.0), Turn(0, 12.4, 16.0)
    answers = [Answer(a, b, False), Answer(b, c, True)]
    assert [x.chained for x in within_shots(answers, [])] == [False, True]
    first, second = within_shots(answers, [1.0])
    assert (first.previous.start_s, first.turn, second.chained) == (1.0, b, True)
    first, second = within_shots(answers, [9.0])  # the answer ends there, and what follows answers the rest of it
    assert (first.turn.end_s, second.previous.start_s, second.chained) == (9.0, 9.0, False)
    assert [x.turn for x in within_shots(answers, [4.0])] == [c]  # 1 s of a previous turn is none
    assert list(within_shots(answers, [5.2, 11.0])) == []


def test_cuts_where_a_long_turn_is_not_kept_do_not_matter():
    a, b, c = Turn(0, 0.0, 30.0), Turn(1, 30.4, 80.0), Turn(0, 80.4, 86.0)
    answers = [Answer(a, b, False), Answer(b, c, True)]
    assert list(within_shots(answers, [5.0, 10.3, 50.5, 55.0, 60.3])) == answers
    first, second = within_shots(answers, [10.5, 50.3, 60.5])
    assert (first.previous.start_s, first.turn.end_s, second.previous.start_s) == (10.5, 50.3, 60.5)
    assert not second.chained


def test_silence_after_a_turn_is_an_answer_of_its_own():
    turns = [Turn(0, 0.0, 4.0), Turn(1, 8.0, 12.0), Turn(0, 14.0, 14.5, "backchannel")]
    spans = [[(0.0, 4.0), (14.0, 14.5)], [(8.0, 12.0)]]
    assert find_silences(turns, spans, 20.0) == [Turn(1, 4.0, 8.0, "silent")]
    assert find_silences(turns[:2], [spans[0][:1], spans[1]], 40.0)[1] == Turn(0, 12.0, 32.0, "silent")


# ------------------------------------------------------------------------------------------------------------ tracking


def test_landmarks_of_a_mesh_are_a_face(clay, planted):
    landmarks = planted.landmarks.copy()
    landmarks[30:40] = np.nan
    track = fit_track(clay, landmarks, 25.0, SIZE, cuts=[75])
    jaw = track.motion.valid[:, 3]
    assert (~jaw).nonzero()[:, 0].tolist() == list(range(30, 40)) and len(track) == 150
    pose = angle_deg(track.motion.select("global_orient"), planted.poses[:, :3])[jaw]
    found, true = track.motion.select("jaw_pose")[jaw, 0], planted.poses[jaw, 6]
    print(f"pose {pose.mean():.2f}, jaw {torch.rad2deg((found - true).abs()).mean():.2f} degrees")
    # places on the head are found from the landmarks themselves, and may be some millimetres off
    assert pose.mean() < 3 and np.corrcoef(found, true)[0, 1] > 0.95
    assert fit_track(clay, np.full((5, 478, 3), np.nan, np.float32), 25.0, SIZE) is None


def test_what_is_missing_for_landmarks_is_said(tmp_path, monkeypatch):
    for name in (PYTHON, MODEL):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=f"{PYTHON}=DIR/bin/python"):
        Landmarker.find()
    with pytest.raises(UserError, match="nothing to run at"):
        Landmarker.find(str(tmp_path / "python"))
    with pytest.raises(UserError, match=r"FaceLandmarker model \(\.task\), found nothing"):
        Landmarker.find(sys.executable, str(tmp_path / "face.task"))
    (tmp_path / "python").write_text("#!/bin/sh\necho gone >&2\nexit 3\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(UserError, match=r"process ended \(3\).*gone"):
        Landmarker.find(str(tmp_path / "python")).version()
    (tmp_path / "mediapipe.task").write_bytes(b"no model")
    # without MediaPipe the import fails; with it, the model does
    with pytest.raises(UserError, match="MediaPipe does not run"):
        Landmarker(sys.executable, str(tmp_path / "mediapipe.task")).version()


MAKE_TASK = """
import pathlib, sys, zipfile, mediapipe
models = pathlib.Path(mediapipe.__file__).parent / "modules"
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_STORED) as bundle:
    bundle.write(models / "face_detection/face_detection_short_range.tflite", "face_detector.tflite")
    bundle.write(models / "face_landmark/face_landmark.tflite", "face_landmarks_detector.tflite")
"""


@pytest.mark.skipif(PYTHON not in os.environ, reason=f"no MediaPipe: {PYTHON} names no interpreter that has it")
def test_mediapipe_sees_the_clay_face_turn(clay, tmp_path):
    """The real landmarks of rendered pictures. A .task is made of the package's models, older than those of the
    published one: that faces of 478 landmarks come through is all that it can show."""
    from diffdyad.render import Renderer

    yaw = torch.tensor([-0.25, 0.0, 0.25])
    poses = torch.zeros(3, 15)
    poses[:, 1] = yaw
    renderer = Renderer.for_head(clay, size=(256, 256))
    frames = [renderer.render(vertices) for vertices in clay(poses=poses).numpy()]
    # a tracker of videos: each picture is shown for some time
    shown = [frame for frame in frames for _ in range(6)]
    found = list(Landmarker.find().landmarks(shown, (256, 256), 25.0))
    assert [len(faces) for faces in found] == [1] * 18
    landmarks = np.stack([faces[0] for faces in found])
    task = tmp_path / "face.task"
    subprocess.run([os.environ[PYTHON], "-c", MAKE_TASK, str(task)], check=True, capture_output=True)
    by_task = list(Landmarker.find(model=str(task)).landmarks(shown[6:8], (256, 256), 25.0))
    assert [faces.shape for faces in by_task] == [(1, 478, 3)] * 2
    track = fit_track(clay, landmarks, 25.0, (256, 256), cuts=[6, 12])
    turned = track.motion.select("global_orient")[[5, 11, 17], 1]
    print(f"yaw {np.rad2deg(yaw)} found as {torch.rad2deg(turned)}, {track.error_px.mean():.2f} px")
    assert torch.rad2deg(turned - turned[1] - yaw).abs().max() < 6


# ------------------------------------------------------------------------------------------------------- ready results


def ready(name: str, count: int) -> dict[str, np.ndarray]:
    """A tracker's file, with widths and keys as the trackers write them, not as the reader's table has them."""
    rng = np.random.default_rng(3)

    def made(*shape):
        return (0.1 * rng.normal(size=shape)).astype(np.float32)

    if name == "smirk":
        return {"expression_params": made(count, 50), "eyelid_params": made(count, 2), "pose_params": made(count, 3),
                "jaw_params": made(count, 3), "shape_params": made(count, 300), "cam": made(count, 3)}  # fmt: skip
    if name == "emica":
        return {"exp": made(count, 100), "globalpose": made(count, 3), "jawpose": made(count, 3),
                "shape": made(count, 300)}  # fmt: skip
    if name == "vhap":
        return {"expr": made(count, 100), "rotation": made(count, 3), "neck_pose": made(count, 3),
                "jaw_pose": made(count, 3), "eyes_pose": made(count, 6), "translation": made(count, 3),
                "shape": made(300)}  # fmt: skip
    return {"exp": made(count, 50), "pose": made(count, 6), "shape": made(count, 100), "cam": made(count, 3)}


@pytest.mark.parametrize(
    ("name", "basis", "width", "missing"),
    [("smirk", "flame2020", 50, {"neck_pose", "leye_pose", "reye_pose"}),
     ("emica", "flame2020", 100, {"neck_pose", "leye_pose", "reye_pose"}), ("vhap", "flame2023", 100, set()),
     ("deca", "flame2020", 50, {"neck_pose", "leye_pose", "reye_pose"})],
)  # fmt: skip
def test_results_of_trackers_are_read_in_their_own_basis(name, basis, width, missing, tmp_path):
    made = ready(name, 60)
    np.savez(tmp_path / "a.npz", **made)
    motion = read_tracked(tmp_path / "a.npz", name, 30.0, seconds=2.0)
    assert (motion.layout.basis, motion.layout.num_expression, motion.fps) == (basis, width, 30.0)
    groups = motion.layout.groups
    assert {g for g, held in zip(groups, motion.valid.all(0).tolist()) if not held} == missing
    assert motion.neck_folded == (name != "vhap") and len(motion.betas) == (100 if name == "deca" else 300)
    jaw = {"smirk": "jaw_params", "emica": "jawpose", "vhap": "jaw_pose"}.get(name)
    assert np.array_equal(motion.select("jaw_pose"), made[jaw] if jaw else made["pose"][:, 3:])
    if name == "vhap":
        assert np.array_equal(motion.select("reye_pose"), made["eyes_pose"][:, 3:])
    if name == "smirk":
        assert np.array_equal(motion.select("eyelids"), made["eyelid_params"])
    with pytest.raises(UserError, match=r"expected 30 fps, 90 frames for 3.00 s of sound, found 60"):
        read_tracked(tmp_path / "a.npz", name, 30.0, seconds=3.0)
    key = FORMATS[name].groups["expression"].key
    np.savez(tmp_path / "b.npz", **{**made, key: made[key][:, 1:]})
    wrong = rf"\(frames, {width}\) for '{key}' in .*b.npz, found float32 \(60, {width - 1}\)"
    with pytest.raises(UserError, match=wrong):
        read_tracked(tmp_path / "b.npz", name, 30.0)
    np.savez(tmp_path / "c.npz", **{**made, key: np.array([print], dtype=object)})
    with pytest.raises(UserError, match="without pickled objects"):
        read_tracked(tmp_path / "c.npz", name, 30.0)


@pytest.mark.parametrize("names", [
    {"exp": "expcode", "globalpose": "globalpose", "jawpose": "jawpose", "shape": "shapecode"},  # in memory
    {"exp": "exp", "globalpose": "global_pose", "jawpose": "jaw", "shape": "shape"},  # of a video's HDF5 file
])  # fmt: skip
def test_emica_s_other_files_are_read_too(names, tmp_path):
    made = ready("emica", 60)
    np.savez(tmp_path / "a.npz", **made)
    expected = read_tracked(tmp_path / "a.npz", "emica", 30.0, seconds=2.0)
    batch = {names[key]: array[None] for key, array in made.items()}  # a batch of one video
    np.savez(tmp_path / "b.npz", **batch, cam=np.zeros((1, 60, 3), np.float32))
    found = read_tracked(tmp_path / "b.npz", "emica", 30.0, seconds=2.0)
    assert torch.equal(found.values, expected.values) and torch.equal(found.betas, expected.betas)
    np.savez(tmp_path / "c.npz", **{**batch, names["exp"]: np.zeros((2, 60, 100), np.float32)})
    with pytest.raises(UserError, match=r"\(frames, 100\).*found float32 \(2, 60, 100\)"):
        read_tracked(tmp_path / "c.npz", "emica", 30.0)


def write_emica_folder(folder: Path, made: dict[str, np.ndarray]) -> None:
    """As INFERNO's `save_codes` leaves it: a folder per picture, an array per file."""
    for number in range(len(made["exp"])):
        frame = folder / f"{number + 1:06d}_000"
        frame.mkdir(parents=True)
        for key, array in made.items():
            np.save(frame / f"{key}.npy", array[number])
        np.save(frame / "cam.npy", np.zeros(3, np.float32))


def test_a_folder_of_pictures_results_is_read(tmp_path):
    emica, vhap = ready("emica", 12), ready("vhap", 12)
    write_emica_folder(tmp_path / "emica", emica)
    found = read_tracked(tmp_path / "emica", "emica", 25.0)
    assert np.array_equal(found.select("expression"), emica["exp"])
    assert np.allclose(found.betas, emica["shape"].mean(0), atol=1e-6)
    (tmp_path / "vhap").mkdir()
    for number in range(12):  # as VHAP's export writes flame_param
        row = {key: array if key == "shape" else array[[number]] for key, array in vhap.items()}
        np.savez(tmp_path / "vhap" / f"{number:05d}.npz", **row, static_offset=np.zeros((1, 5143, 3), np.float32))
    found = read_tracked(tmp_path / "vhap", "vhap", 25.0)
    assert np.array_equal(found.select("jaw_pose"), vhap["jaw_pose"]) and np.allclose(found.betas, vhap["shape"])
    (tmp_path / "emica" / "000005_000" / "jawpose.npy").unlink()
    with pytest.raises(UserError, match="'jawpose' of one width for each of 12 pictures in .*emica, found 11"):
        read_tracked(tmp_path / "emica", "emica", 25.0)
    with pytest.raises(UserError, match="a folder of .npy files per picture, as EMICA writes them, found none"):
        read_tracked(tmp_path / "vhap", "emica", 25.0)
    with pytest.raises(UserError, match="found a folder"):
        read_tracked(tmp_path / "vhap", "deca", 25.0)


@pytest.mark.parametrize("name", ["smirk", "emica", "vhap", "deca"])
def test_no_identity_is_none_and_not_the_average_head(name, tmp_path):
    made = {key: array for key, array in ready(name, 5).items() if key not in ("shape", "shape_params")}
    np.savez(tmp_path / "a.npz", **made)
    assert read_tracked(tmp_path / "a.npz", name, 25.0).betas.shape == (0,)


def test_vhap_says_which_flame_it_worked_with(tmp_path):
    np.savez(tmp_path / "a.npz", **ready("vhap", 5))
    assert read_tracked(tmp_path / "a.npz", "vhap", 25.0, basis="flame2020").layout.basis == "flame2020"
    with pytest.raises(UserError, match="motion_basis among flame2020 for `motion: smirk`, found 'flame2023'"):
        read_tracked(tmp_path / "a.npz", "smirk", 25.0, basis="flame2023")


# --------------------------------------------------------------------------------------------------------------- build


def write_talk(folder: Path, seconds: float, cut: int | None = None) -> None:
    """a.mp4 and b.mp4: one speaks from 0 to 3.5 s, the other from 3.8 to 7, then nobody."""
    talk = Talk(0, seconds, [(0, 0.0, 3.5), (1, 3.8, 7.0)])
    for side, name in enumerate("ab"):
        write_video(folder / f"{name}.mp4", pictures(round(25 * seconds), cut if side == 0 else None), 25.0,
                    talk.waveform(side), 16000)  # fmt: skip


def manifest(folder: Path, session: dict, **backends) -> Path:
    content = {
        "name": "faces", "sessions": [{"id": "one", "files": ["a.mp4", "b.mp4"], **session}],
        "backends": {"activity": "energy", "prosody": "none", **backends},
    }  # fmt: skip
    (folder / "m.yaml").write_text(yaml.safe_dump(content))
    return folder / "m.yaml"


def test_videos_become_exchanges_with_faces(tmp_path, clay):
    made = scene(clay, 11.0, noise_px=0.5, mesh=True)
    write_talk(tmp_path, 11.0, cut=8)
    python = fake_mediapipe(tmp_path, made.landmarks * [64 / SIZE[0], 48 / SIZE[1], 64 / SIZE[0]])
    path = manifest(tmp_path, {}, motion="preview", mediapipe_python=python)
    report = build_dataset(path, tmp_path / "out", workers=1)
    assert report.exit_code == 0
    spoken, silent = ExchangeShards(tmp_path / "out", "train")
    assert (spoken.response_kind, silent.response_kind) == ("verbal", "silent")
    assert spoken.tracker == "diffdyad-preview (MediaPipe)" and spoken.neck_folded and spoken.basis == "arkit"
    # the first turn begins at the cut, 0.32 s; the silence is 4 s long
    assert spoken.session_onset_s + spoken.start_s == pytest.approx(0.32, abs=0.021)
    assert silent.end_s == pytest.approx(4.0, abs=0.2) and silent.responder_name == spoken.previous_speaker
    assert silent.previous_exchange_id == spoken.exchange_id
    for who in ("previous", "responder"):
        person = spoken.person(who)
        assert person.valid.mean() > 0.95 and len(person.motion["neck_pose"]) == 0
        first = round((spoken.session_onset_s + spoken.start_s) * 25)
        true = made.poses[first : first + person.num_frames, 6].numpy()
        assert np.corrcoef(person.motion["jaw_pose"][:, 0], true)[0, 1] > 0.9
    assert 0 < spoken.reprojection_px < 1
    # each in the second person's, what is the first one's being there
    assert build_with_kills(path, tmp_path / "killed", [("faces", 2), ("motion", 1)]) == shards_of(report.out)


def test_results_of_trackers_become_exchanges(tmp_path):
    write_talk(tmp_path, 8.0)
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", **ready("smirk", 240))
    path = manifest(tmp_path, {"motion": ["a.npz", "b.npz"], "motion_fps": 30.0}, motion="smirk")
    build_dataset(path, tmp_path / "out", workers=1)
    (exchange,) = ExchangeShards(tmp_path / "out", "train")
    assert (exchange.basis, exchange.tracker) == ("flame2020", "SMIRK")
    assert exchange.responder.motion["eyelids"].shape == (exchange.num_frames, 2)
    assert exchange.responder.motion["expression"].shape[1] == 50 and len(exchange.responder.betas) == 300
    assert len(exchange.responder.motion["leye_pose"]) == 0


def test_a_folder_of_results_is_done_again_where_one_of_them_changes(tmp_path):
    write_talk(tmp_path, 8.0)
    for name in "ab":
        write_emica_folder(tmp_path / f"{name}-faces", ready("emica", 80))
    path = manifest(tmp_path, {"motion": ["a-faces", "b-faces"], "motion_fps": 10.0}, motion="emica")
    build_dataset(path, tmp_path / "out", workers=1)
    (before,) = ExchangeShards(tmp_path / "out", "train")
    assert (before.basis, before.tracker) == ("flame2020", "EMICA")
    np.save(tmp_path / "a-faces" / "000020_000" / "exp.npy", np.full(100, 2.0))  # another size, too
    build_dataset(path, tmp_path / "out", workers=1)
    (after,) = ExchangeShards(tmp_path / "out", "train")
    assert after.previous.motion["expression"].max() > 1.5 > before.previous.motion["expression"].max()


@pytest.mark.parametrize(
    ("session", "backends", "message"),
    [({}, {"motion": "smrik"}, "expected a backend for motion among none, preview, smirk"),
     ({}, {"motion": "preview", "mediapipe_python": "/no/python"}, "nothing to run at /no/python"),
     ({"motion": ["a.npz", "b.npz"]}, {"motion": "none"}, "session one has files of motion"),
     ({"motion": ["a", "b"]}, {"motion": "deca", "motion_basis": "flame2023"}, "motion_basis among flame2020"),
     ({}, {"motion_basis": "flame2020"}, "motion_basis is for results of a tracker, found `motion: none`")],
)  # fmt: skip
def test_a_wrong_backend_of_motion_is_one_line(session, backends, message, tmp_path, capsys):
    path = manifest(tmp_path, session, **backends)
    assert cli.main(["data", "build", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


# -------------------------------------------------------------------------------------------------------------- sample


def test_a_video_is_the_context(tmp_path, planted, tiny_model, voices, monkeypatch):
    monkeypatch.setenv(PYTHON, fake_mediapipe(tmp_path, planted.landmarks[:50] * [64 / SIZE[0], 48 / SIZE[1], 0.1]))
    write_video(tmp_path / "before.mp4", pictures(50), 25.0, tone(2.0, 210.0).numpy(), 16000)
    base = ["sample", "--model", str(tiny_model), "--audio", str(voices / "responder.wav"), "--no-video"]
    for number, flags in enumerate((["--context-video", str(tmp_path / "before.mp4")],
                                    ["--context-audio", str(tmp_path / "before.mp4")])):  # fmt: skip
        assert cli.main([*base, "--out", str(tmp_path / str(number)), *flags]) == 0
    import json

    record = json.loads((tmp_path / "0" / "sample.json").read_text())["resolved"]
    assert record["context"] == ["audio", "motion"] and record["context_video"]["tracker"].endswith("planted)")
    assert record["context_video"]["seconds"] == pytest.approx(2.0, abs=0.1)
    seen, heard = (load_motion(tmp_path / str(number) / "motion.npz") for number in (0, 1))
    assert not np.array_equal(seen.values, heard.values)  # the face counts


def test_a_context_video_without_a_tracker_is_refused(tmp_path, tiny_model, voices, monkeypatch, capsys):
    monkeypatch.delenv(PYTHON, raising=False)
    write_video(tmp_path / "before.mp4", pictures(10), 25.0)
    base = ["sample", "--model", str(tiny_model), "--audio", str(voices / "responder.wav"), "--no-video"]
    assert cli.main([*base, "--out", str(tmp_path / "out"), "--context-video", str(tmp_path / "before.mp4")]) == 2
    error = capsys.readouterr().err
    assert PYTHON in error and "mediapipe==0.10.21" in error and not (tmp_path / "out").exists()
