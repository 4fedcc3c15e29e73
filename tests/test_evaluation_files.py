"""Evaluation from files: other people's layouts, who belongs to whom, and what is wrong in one line."""

import json

import numpy as np
import pytest
import torch
from test_evaluation_score import FPS, lively

from diffdyad.data import arkit
from diffdyad.errors import UserError
from diffdyad.evaluation.files import evaluate_files
from diffdyad.evaluation.foreign import ReadOptions, read_motion_file
from diffdyad.evaluation.score import ScoreSettings
from diffdyad.media import write_wav
from diffdyad.motion import motion_arrays, save_motion

FAST = ScoreSettings(num_resamples=20)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ------------------------------------------------------------------------------------------------ layouts


def test_dualtalk_files(tmp_path):
    exp, pose = rng().normal(size=(30, 50)).astype(np.float32), rng(1).normal(size=(30, 6)).astype(np.float32)
    np.savez(tmp_path / "a.npz", exp=exp, pose=pose, shape=np.zeros((30, 100)))
    np.save(tmp_path / "b.npy", np.hstack([exp, pose[:, 3:], pose[:, :3]]))
    motions = [read_motion_file(tmp_path / name).motion for name in ("a.npz", "b.npy")]
    for motion in motions:
        assert motion.fps == 25 and motion.layout.basis == "flame2020" and motion.neck_folded
        assert np.allclose(motion.select("expression"), exp)
        assert np.allclose(motion.select("global_orient"), pose[:, :3])
        assert np.allclose(motion.select("jaw_pose"), pose[:, 3:])
        measured = dict(zip(motion.layout.groups, motion.valid.all(0).tolist()))
        assert measured["jaw_pose"] and not measured["leye_pose"] and not measured["neck_pose"]


@pytest.mark.parametrize("width", [112, 108, 106])
def test_unils_codes(tmp_path, width):
    whole = rng().normal(size=(30, 112)).astype(np.float32)
    short = np.hstack([whole[:, :104], whole[:, 106:108], whole[:, 109:111]])
    code = {112: whole, 108: short, 106: whole[:, :106]}[width]
    mask, sound = np.arange(30) > 9, np.zeros(19200, np.float32)
    np.savez(tmp_path / "a.npz", motioncode=code, speech_mask=mask, audio=sound)
    found = read_motion_file(tmp_path / "a.npz")
    assert np.allclose(found.motion.select("expression"), whole[:, :100])
    assert np.allclose(found.motion.select("global_orient"), whole[:, 100:103])
    assert np.allclose(found.motion.select("jaw_pose")[:, 0], whole[:, 103])
    if width > 106:
        assert np.allclose(found.motion.select("reye_pose")[:, :2], whole[:, 109:111])
    else:
        assert not found.motion.valid[:, found.motion.layout.groups.index("reye_pose")].any()
    assert np.array_equal(found.speaks, mask) and len(found.waveform) == 19200
    np.save(tmp_path / "b.npy", code)
    options = ReadOptions(basis="flame2023", fps=30.0)
    assert read_motion_file(tmp_path / "b.npy", options).motion.layout.basis == "flame2023"


def test_arkit_files(tmp_path):
    motion = lively(0)
    columns = arkit.from_motion(motion).numpy()
    np.save(tmp_path / "a.npy", columns)
    found = read_motion_file(tmp_path / "a.npy", ReadOptions(fps=60.0)).motion
    assert found.fps == 60 and found.layout.basis == "arkit"
    assert np.allclose(found.select("jaw_pose"), motion.select("jaw_pose"), atol=1e-5)
    assert np.allclose(found.select("global_orient"), motion.select("neck_pose"), atol=1e-4)
    # in another order, by name, and without the angles
    order = rng().permutation(52)
    names = np.array(arkit.BLENDSHAPES)[order]
    np.savez(tmp_path / "b.npz", blendshapes=columns[:, order], names=np.char.lower(names), fps=25.0)
    named = read_motion_file(tmp_path / "b.npz").motion
    assert np.allclose(named.select("expression"), motion.select("expression"), atol=1e-6)
    assert not named.valid[:, named.layout.groups.index("global_orient")].any()
    with pytest.raises(UserError, match="a frame rate for .*a.npy, which says none; give --file-fps"):
        read_motion_file(tmp_path / "a.npy")
    np.savez(tmp_path / "c.npz", blendshapes=columns[:, :51], names=names[:51], fps=25.0)
    with pytest.raises(UserError, match="52 blend shapes in .*c.npz, found none of"):
        read_motion_file(tmp_path / "c.npz")


def test_files_that_cannot_be_read(tmp_path):
    def refuse(match: str, name: str, options: ReadOptions | None = None) -> None:
        with pytest.raises(UserError, match=match) as error:
            read_motion_file(tmp_path / name, options)
        assert "\n" not in str(error.value)

    code = np.zeros((30, 56), np.float32)
    code[12, 3] = np.nan
    np.save(tmp_path / "gap.npy", code)
    refuse("NaN or infinity in 1 of 30 frames, the first at 12: frames are missing", "gap.npy")
    ours = motion_arrays(lively(0))
    ours["jaw_pose"][[20, 31], 1] = np.nan, np.inf
    np.savez(tmp_path / "ours.npz", **ours)
    refuse("NaN or infinity in 2 of 200 frames of jaw_pose, the first at 20: frames are missing", "ours.npz")
    np.save(tmp_path / "odd.npy", np.zeros((30, 57)))
    refuse(r"known layout in .*odd.npy .*found an array \(30, 57\)", "odd.npy")
    refuse(r"shape \(frames, 106 or 108 or 112\) for the array in .*gap.npy", "gap.npy", ReadOptions("unils"))
    refuse("layout among auto, diffdyad", "gap.npy", ReadOptions("vicon"))
    np.save(tmp_path / "none.npy", np.zeros((0, 56)))
    refuse("at least one frame in .*none.npy", "none.npy")
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    refuse("without pickled objects, cannot read .*torn.npz", "torn.npz")
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}]), allow_pickle=True)
    refuse("without pickled objects, cannot read .*pickle.npy", "pickle.npy")
    np.savez(tmp_path / "bad.npz", exp=np.zeros((30, 50)), pose=np.zeros((29, 6)))
    refuse("one length in .*bad.npz, found 30, 29 and 29 frames", "bad.npz")
    refuse("no motion file at", "nowhere.npz")


# ----------------------------------------------------------------------------------------------- folders


def dualtalk_folder(folder, talks: int = 3, seconds: float = 4.0, wav: bool = True):
    """Talks of two people each, as DualTalk names them."""
    folder.mkdir()
    t = np.arange(round(seconds * FPS)) / FPS
    for talk in range(talks):
        for side in (1, 2):
            own = rng(10 * talk + side)
            jaw = 0.1 * np.maximum(np.sin(2 * np.pi * own.uniform(2, 3) * t), 0) * ((t < seconds / 2) == (side == 1))
            exp = np.cumsum(own.normal(size=(len(t), 50)), 0) * 0.05
            pose = np.cumsum(own.normal(size=(len(t), 6)), 0) * 0.005
            pose[:, 3:] = jaw[:, None] * [1, 0, 0]
            stem = folder / f"vid{talk}_sub_video_1_speaker{side}"
            np.savez(stem.with_suffix(".npz"), exp=exp.astype(np.float32), pose=pose.astype(np.float32))
            if wav:
                level = np.repeat(jaw / 0.1, 640)
                sound = 0.1 * level * np.sin(np.arange(len(level)) * 0.3)
                write_wav(stem.with_suffix(".wav"), torch.from_numpy(sound.astype(np.float32)))
    return folder


def predict(truth, out, only: str = "speaker2", frames: slice = slice(None)):
    """Arrays (T, 56), the truth and a little noise."""
    out.mkdir()
    for path in sorted(truth.glob(f"*{only}.npz")):
        with np.load(path) as archive:
            code = np.hstack([archive["exp"], archive["pose"][:, 3:], archive["pose"][:, :3]])[frames]
        np.save(out / f"{path.stem}.npy", (code + 0.01 * rng().normal(size=code.shape)).astype(np.float32))
    return out


def test_dualtalk_end_to_end(tmp_path):
    truth = dualtalk_folder(tmp_path / "truth")
    pred = predict(truth, tmp_path / "pred")
    seen = []
    report = evaluate_files(pred, truth, tmp_path / "report", settings=FAST, progress=lambda *a: seen.append(a))
    assert report.facts["clips"] == 3 and report.facts["units"] == 3 and report.facts["people"] == 6
    assert set(report.slices) == {"all", "listening", "speaking"} and seen[-1] == (3, 3)
    assert report.value("jaw_audio_correlation_mean", "truth") > 0.3
    assert report.value("expression_error_rms") == pytest.approx(0.01, rel=0.1)
    error = "head_rotation_error_mean_deg"
    assert report.value(error, "mirror_of_partner") > report.value(error)
    assert report.cells["all", "prediction", "lip_vertex_error_max_mean_mm"].value is None
    # who speaks was heard: each half of the talk belongs to one of them
    assert report.cells["speaking", "truth", "jaw_variance_ratio"].value == pytest.approx(1)
    content = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert content["facts"]["basis"] == "flame2020" and content["tables"]["speaking"]["prediction"]
    assert "No head in this basis" in (tmp_path / "report" / "metrics.md").read_text()


def test_our_own_files_with_samples_and_a_description(tmp_path):
    truth, pred = tmp_path / "truth", tmp_path / "pred"
    truth.mkdir()
    clips = {}
    for n in range(4):
        save_motion(truth / f"c{n}.npz", lively(n, 4.0))
        (pred / f"c{n}").mkdir(parents=True)
        for sample in range(2):
            save_motion(pred / f"c{n}" / f"motion_s{sample}.npz", lively(50 + 2 * n + sample, 4.0))
        clips[f"c{n}"] = {"person": f"p{n}", "partner": f"q{n}", "onset_s": 2.0, "bilabials_s": [0.5, 3.0],
                          "seams_s": [2.0], "response_kind": "verbal"}  # fmt: skip
    (truth / "clips.json").write_text(json.dumps(clips))
    report = evaluate_files(pred, truth, settings=FAST)
    assert report.facts["samples"] == 2 and report.facts["head"] == "clay"
    assert set(report.slices) == {"all", "listening", "speaking", "verbal"}
    assert report.value("sample_diversity_rms_mm") > 0.1
    assert report.value("energy_score_rms_mm") < report.value("energy_score_rms_mm", "other_person")
    assert report.value("seam_jerk_ratio") is not None
    assert report.value("lip_closure_bilabial_ratio", "truth") is not None
    assert report.cells["all", "prediction", "jaw_audio_correlation_mean"].why == "no own audio"
    assert not any("another person" in note for note in report.notes)


def test_without_a_description_files_are_people(tmp_path):
    truth = tmp_path / "truth"
    truth.mkdir()
    for n in range(2):
        save_motion(truth / f"c{n}.npz", lively(n, 4.0))
    report = evaluate_files(truth, truth, settings=FAST)
    assert any("every file was taken as another person" in note for note in report.notes)


def test_rates_are_brought_together_on_request_only(tmp_path):
    truth, pred = tmp_path / "truth", tmp_path / "pred"
    truth.mkdir()
    pred.mkdir()
    for n in range(2):
        save_motion(truth / f"c{n}.npz", lively(n, 4.0))
        save_motion(pred / f"c{n}.npz", lively(n, 4.0).resample(50.0))
    with pytest.raises(UserError, match="truth's 25 Hz, found 50 Hz for c0: resample both with --fps"):
        evaluate_files(pred, truth, settings=FAST)
    report = evaluate_files(pred, truth, settings=FAST, fps=25.0)
    assert report.value("lip_vertex_error_max_mean_mm") < 1.0


def test_folders_that_do_not_fit(tmp_path):
    truth = dualtalk_folder(tmp_path / "truth", wav=False)
    pred = predict(truth, tmp_path / "pred")

    def refuse(match: str, *arguments, **options) -> None:
        with pytest.raises(UserError, match=match) as error:
            evaluate_files(*arguments, settings=FAST, **options)
        assert "\n" not in str(error.value)

    refuse("a folder of motion files for --pred, found nothing", tmp_path / "nowhere", truth)
    (tmp_path / "empty").mkdir()
    refuse(r"motion files \(.npz, .npy\) in .*empty for --pred, found none", tmp_path / "empty", truth)
    refuse("at least 2 clips to score, found 1", *one(tmp_path, truth))
    refuse("basis flame2020, found one in arkit; give --head", pred, truth, head="clay")
    (pred / "stray.npy").write_bytes((pred / "vid0_sub_video_1_speaker2.npy").read_bytes())
    refuse("every prediction to have its truth, found none for .*stray.npy", pred, truth)
    (pred / "stray.npy").unlink()
    (pred / "vid1_sub_video_1_speaker2.npy").unlink()
    refuse("for every clip of .*truth, found none for 2 of 6: vid1_sub_video_1_speaker1", pred, truth)
    codes = tmp_path / "unils"
    codes.mkdir()
    for path in truth.glob("*speaker2.npz"):
        np.save(codes / f"{path.stem}.npy", np.zeros((100, 106), np.float32))
    refuse("truth's 50 expressions .*, found 100 .* for vid.*_speaker2: .*write both sides in one layout", codes, truth)
    short = predict(truth, tmp_path / "short", frames=slice(0, 60))
    refuse("100 frames, as the truth has, found 60 for vid0.*frames are missing", short, truth)
    both = predict(truth, tmp_path / "both", only="")
    np.savez(both / "vid0_sub_video_1_speaker1.npz", exp=np.zeros((100, 50)), pose=np.zeros((100, 6)))
    refuse("one file per clip in .*both, found vid0_sub_video_1_speaker1.npy and", both, truth)


def one(tmp_path, truth):
    """A single conversation."""
    folders = tmp_path / "one", tmp_path / "one_pred"
    for folder in folders:
        folder.mkdir()
        for path in truth.glob("vid0*speaker2.npz"):
            (folder / path.name).write_bytes(path.read_bytes())
    return folders[1], folders[0]


def test_descriptions_with_mistakes(tmp_path):
    truth = dualtalk_folder(tmp_path / "truth", wav=False)
    pred = predict(truth, tmp_path / "pred")

    def refuse(match: str, content) -> None:
        (truth / "clips.json").write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(UserError, match=match) as error:
            evaluate_files(pred, truth, settings=FAST)
        assert "\n" not in str(error.value)

    name = "vid0_sub_video_1_speaker2"
    refuse("JSON in .*clips.json, cannot read it", "{")
    refuse("map each clip's name to an object", [1, 2])
    refuse("motion file for every clip of .*found none for ghost", {"ghost": {"person": "a"}})
    refuse("keys among .*found persona", {name: {"persona": "a"}})
    refuse(f"the person of {name} in .*found None", {name: {}})
    refuse("partner's clip of .* beside it, found no ghost", {name: {"person": "a", "partner_clip": "ghost"}})
    refuse("a list of seconds for seams_s .*found 3", {name: {"person": "a", "seams_s": 3}})
    refuse("text for audio .*found 3", {name: {"person": "a", "audio": 3}})
    refuse("finite seconds for onset_s .*found 'x'", {name: {"person": "a", "onset_s": "x"}})
    refuse("found none for 1 of 2: vid0_sub_video_1_speaker1", {
        name: {"person": "a"}, "vid0_sub_video_1_speaker1": {"person": "b"},
    })  # fmt: skip
