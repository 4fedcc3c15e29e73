"""The table: controls come out as what they are, undefined is said in words, sets that make no sense are refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffdyad.errors import UserError
from diffdyad.evaluation.clips import Clip, check_clips, check_predictions
from diffdyad.evaluation.controls import CONTROLS, Corpus, mirrored
from diffdyad.evaluation.gauge import FaceGauge
from diffdyad.evaluation.score import ScoreSettings, score
from diffdyad.evaluation.trim import fit_length
from diffdyad.head import HeadModel
from diffdyad.motion import Motion, MotionLayout

FPS = 25.0
LAYOUT = MotionLayout.arkit()


def lively(seed: int, seconds: float = 8.0) -> Motion:
    """Somebody who talks, nods, blinks, smiles and looks around; everybody in a way of their own."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * FPS)) / FPS
    values = np.zeros((len(t), LAYOUT.dim), np.float32)

    def put(name: str, track: np.ndarray) -> None:
        values[:, LAYOUT.channel(name)] = track

    def bumps(count: int, height: float, width_s: float) -> np.ndarray:
        return sum(height * np.exp(-(((t - x) / width_s) ** 2)) for x in rng.uniform(0.5, seconds - 0.5, count))

    blink, smile, brow = bumps(3, 0.9, 0.07), rng.uniform(0, 0.2) + bumps(1, 0.4, 0.6), bumps(1, 0.5, 0.3)
    for side in ("Left", "Right"):
        put(f"eyeBlink{side}", blink)
        put(f"mouthSmile{side}", smile)
        put(f"browOuterUp{side}", brow)
    put("browInnerUp", brow)
    syllables = np.sin(2 * np.pi * (rng.uniform(2, 3) * t + rng.uniform())) ** 2
    values[:, LAYOUT.slices["jaw_pose"].start] = 0.12 * syllables
    neck = LAYOUT.slices["neck_pose"].start
    values[:, neck] = bumps(3, 0.08, 0.2) + 0.02 * np.sin(t + seed)
    values[:, neck + 1] = 0.1 * np.sin(rng.uniform(0.3, 0.9) * t + seed)
    for eye in ("leye_pose", "reye_pose"):
        values[:, LAYOUT.slices[eye].start + 1] = 0.15 * np.sign(np.sin(1.3 * t + seed))
    return Motion(torch.from_numpy(values), LAYOUT, FPS)


def make_clip(number: int, talk: int | None = None, **changes) -> Clip:
    """Two clips of each person; person 2 k and 2 k + 1 talk with each other."""
    person = number // 2 if talk is None else talk
    truth = lively(number)
    opening = truth.select("jaw_pose")[:, 0].numpy()
    speaking = np.arange(len(truth)) >= len(truth) // 2
    values = {
        "clip_id": f"clip{number}", "truth": truth, "person": f"p{person}", "partner": f"p{person ^ 1}",
        "partner_motion": lively(100 + number), "energy_db": -60 + 400 * opening,
        "phases": {"listening": ~speaking, "speaking": speaking},
        "response_kind": ("verbal", "silent")[number % 2],
    }  # fmt: skip
    return Clip(**{**values, **changes})


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [make_clip(n) for n in range(8)]


@pytest.fixture(scope="module")
def gauge() -> FaceGauge:
    return FaceGauge(HeadModel.clay(), LAYOUT)


@pytest.fixture(scope="module")
def report(clips, gauge):
    generator = torch.Generator().manual_seed(0)
    predictions = {}
    for clip in clips:
        noise = [0.01 * torch.randn(clip.truth.values.shape, generator=generator) for _ in range(2)]
        predictions[clip.clip_id] = [replace(clip.truth, values=clip.truth.values + n) for n in noise]
    return score(clips, predictions, gauge, ScoreSettings(num_resamples=200))


def test_the_truth_against_itself(report):
    for figure in ("lip_vertex_error_max_mean_mm", "face_vertex_error_mean_mm", "head_rotation_error_mean_deg",
                   "expression_error_rms", "upper_face_spread_error_mean_mm", "energy_score_rms_mm",
                   "jaw_audio_correlation_error_mean", "frechet_expression_per_channel"):  # fmt: skip
        assert report.value(figure, "truth") == pytest.approx(0, abs=1e-6), figure
        assert report.value(figure) > 0, figure
    for figure in ("blink_f1", "nod_f1", "smile_f1", "head_variance_ratio", "lip_closure_iou"):
        assert report.value(figure, "truth") == pytest.approx(1), figure
    assert report.value("blinks_per_minute", "truth") == pytest.approx(60 * 3 / 8, rel=0.35)
    assert report.value("jaw_audio_correlation_mean", "truth") == pytest.approx(1)


def test_frozen_faces_are_dead_and_say_why(report):
    for row in ("frozen", "mean_pose"):
        assert report.value("expression_variance_ratio", row) == pytest.approx(0, abs=1e-6)
        assert report.value("face_speed_mean_mm_s", row) == 0
        assert report.value("blinks_per_minute", row) == 0
        assert report.value("blink_f1", row) == 0
        assert report.value("frechet_head_movement_per_channel", row) > 0.5
        for figure in ("jaw_audio_correlation_mean", "head_synchrony_over_chance_mean", "beat_alignment_mean"):
            cell = report.cells["all", row, figure]
            assert cell.value is None and "constant" in cell.why, figure
    # the clip's own mean is nearer than everybody's
    assert report.value("face_vertex_error_mean_mm", "frozen") < report.value("face_vertex_error_mean_mm", "mean_pose")


def test_other_controls(report):
    assert report.value("head_variance_ratio", "half_amplitude") == pytest.approx(0.25, rel=0.02)
    assert report.value("expression_cluster_entropy_bits", "frames_shuffled") == pytest.approx(
        report.value("expression_cluster_entropy_bits", "truth"))  # fmt: skip
    posture, moving = "frechet_head_per_channel", "frechet_head_movement_per_channel"
    assert report.value(posture, "frames_shuffled") < 0.05 < report.value(moving, "frames_shuffled")
    assert report.value("face_jerk_mean_mm_s3", "frames_shuffled") > 2 * report.value("face_jerk_mean_mm_s3", "truth")
    for row in ("other_person", "same_person", "mirror_of_partner"):
        assert report.value("jaw_audio_correlation_mean", row) < 0.6
        assert report.value("lip_vertex_error_max_mean_mm", row) > report.value("lip_vertex_error_max_mean_mm")
    assert report.cells["all", "truth_halves", posture].value > 0


def test_slices_and_intervals(report):
    assert report.slices == {"all": 8, "listening": 8, "speaking": 8, "silent": 4, "verbal": 4, **{
        f"{kind}, {phase}": 4 for kind in ("silent", "verbal") for phase in ("listening", "speaking")}}  # fmt: skip
    cell = report.cells["all", "prediction", "lip_vertex_error_max_mean_mm"]
    assert cell.low < cell.value < cell.high
    halves = [report.value("lip_vertex_error_max_mean_mm", part=part) for part in ("listening", "speaking")]
    assert np.mean(halves) == pytest.approx(cell.value, rel=1e-6)
    kinds = [report.value("blinks_per_minute", part=part) for part in ("silent", "verbal")]
    assert np.mean(kinds) == pytest.approx(report.value("blinks_per_minute"), rel=1e-6)
    assert report.facts["units"] == 2 and report.facts["samples"] == 2
    assert any("Only 2 independent" in note for note in report.notes)
    # two samples a clip differ by their noise alone
    assert report.value("sample_diversity_rms_mm") > 0
    assert report.cells["all", "truth", "sample_diversity_rms_mm"].why == "a single sample"


def test_files_hold_no_nan(report, tmp_path):
    written = report.save(tmp_path)
    content = json.loads(written[0].read_text(), parse_constant=lambda name: pytest.fail(f"{name} in the file"))
    assert content["tables"]["all"]["frozen"]["beat_alignment_mean"]["value"] is None
    text = written[1].read_text()
    assert "nan" not in text.lower().replace("nana", "") and "| lip_vertex_error_max_mean_mm |" in text
    assert "no times of bilabials given: lip_closure_bilabial_ratio" in text
    assert set(content["figures"]) == {line.name for line in report.lines}


def test_scores_do_not_depend_on_the_number_of_workers(clips, gauge):
    some = [clip.cut(60) for clip in (clips[0], clips[3], clips[4], clips[7])]
    predictions = {clip.clip_id: [clip.truth] for clip in some}
    seen, texts = [], []
    for workers in (1, 2):
        few = ScoreSettings(num_resamples=20, controls=CONTROLS[4:], workers=workers)
        texts.append(score(some, predictions, gauge, few, seen.append).to_json())
    assert texts[0] == texts[1] and seen == [2, 4, 2, 4]


def test_without_a_head(clips):
    predictions = {clip.clip_id: [clip.truth] for clip in clips}
    report = score(clips, predictions, None, ScoreSettings(num_resamples=20, controls=CONTROLS[:1]))
    assert report.cells["all", "prediction", "lip_vertex_error_max_mean_mm"].why == "needs a head file with expressions"
    assert report.value("nod_f1") == 1 and any("No head" in note for note in report.notes)


def test_missing_groups_are_undefined_not_zero(clips, gauge):
    def without_eyes(motion: Motion) -> Motion:
        valid = motion.valid.clone()
        valid[:, [LAYOUT.groups.index(eye) for eye in ("leye_pose", "reye_pose")]] = False
        return replace(motion, valid=valid)

    blind = [replace(clip, truth=without_eyes(clip.truth), partner_motion=None) for clip in clips]
    predictions = {clip.clip_id: [clip.truth] for clip in clips}
    report = score(blind, predictions, gauge, ScoreSettings(num_resamples=20, controls=CONTROLS[:1]))
    assert report.cells["all", "prediction", "gaze_error_mean_deg"].why == "no leye pose or reye pose in the data"
    assert report.cells["all", "prediction", "smile_synchrony_over_chance_mean"].why == "no partner's motion"
    assert report.value("gaze_speed_mean_deg_s") > 0  # the prediction has eyes
    assert report.value("head_rotation_error_mean_deg") == pytest.approx(0, abs=1e-5)


def test_half_a_clip_counts_what_was_measured(clips, gauge):
    valid = clips[0].truth.valid.clone()
    valid[100:] = False
    broken = clips[0].truth.values.clone()
    broken[100:] = 3.0
    clip = replace(clips[0], truth=replace(clips[0].truth, values=broken, valid=valid))
    predictions = {c.clip_id: [c.truth] for c in clips}
    few = ScoreSettings(num_resamples=20, controls=CONTROLS[:1])
    report = score([clip, *clips[1:]], predictions, gauge, few)
    assert report.value("lip_vertex_error_max_mean_mm") == pytest.approx(0, abs=1e-4)


# ----------------------------------------------------------------------------------------------- controls


def test_mirror_exchanges_sides():
    motion = lively(1)
    motion.values[:, LAYOUT.channel("mouthSmileLeft")] = 0.7
    motion.values[:, LAYOUT.channel("mouthSmileRight")] = 0.1
    image = mirrored(motion)
    assert image.values[0, LAYOUT.channel("mouthSmileRight")] == pytest.approx(0.7)
    assert torch.equal(image.select("neck_pose")[:, 0], motion.select("neck_pose")[:, 0])
    assert torch.equal(image.select("neck_pose")[:, 1], -motion.select("neck_pose")[:, 1])
    assert torch.equal(mirrored(image).values, motion.values)
    # what moves on the head is the mirror image, too
    head = HeadModel.clay()
    right, left = head.set_inner_lip_upper[[0, -1]].tolist()
    one = head.from_motion(motion.values[:1], LAYOUT)[0]
    other = head.from_motion(image.values[:1], LAYOUT)[0]
    assert torch.allclose(one[left] * torch.tensor([-1.0, 1, 1]), other[right], atol=1e-5)


def test_fit_length_makes_no_jump():
    motion = Motion(torch.arange(5.0)[:, None].expand(5, LAYOUT.dim).contiguous(), LAYOUT, FPS)
    assert fit_length(motion, 12).values[:, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3]
    assert len(fit_length(motion, 3)) == 3


def test_other_person_is_not_the_partner(clips):
    corpus = Corpus(clips)
    truths = [clip.truth.values for clip in clips]
    make = {control.name: control.make for control in CONTROLS}
    for seed in range(20):
        generator = np.random.default_rng(seed)
        other = make["other_person"](corpus, 0, generator).values
        assert any(torch.equal(other, truths[n]) for n in range(4, 8))  # p0 talks with p1: p2 and p3 are left
        same = make["same_person"](corpus, 0, generator).values
        assert torch.equal(same, truths[1])
    alone = Corpus([clips[0], clips[4]])
    assert make["same_person"](alone, 0, np.random.default_rng(0)) is None


# ---------------------------------------------------------------------------------------------- bad input


def refuse(match: str, function, *arguments) -> None:
    with pytest.raises(UserError, match=match) as error:
        function(*arguments)
    assert "\n" not in str(error.value)


def test_sets_that_make_no_sense(clips):
    refuse("at least 2 clips to score, found 1", check_clips, clips[:1])
    refuse("every clip once, found clip0 twice", check_clips, [clips[0], clips[0]])
    refuse("at least 2 independent people or pairs, found 1 of 2 people .*--units clips", check_clips, clips[:4])
    assert check_clips(clips[:4], "clips").tolist() == [0, 1, 2, 3]
    alone = [replace(clip, person="a", partner="") for clip in clips]
    refuse("found 1 \\(a\\)", check_clips, alone)
    refuse("--units people or clips, found 'frames'", check_clips, clips, "frames")
    flame = Motion(torch.zeros(200, 65), MotionLayout("flame2020", 50), FPS)
    refuse("one expression basis.*arkit in clip1 and flame2020 in clip0", check_clips,
           [*clips[1:], replace(clips[0], truth=flame)])  # fmt: skip
    refuse("one frame rate.*25 Hz in clip0 and 30 Hz in clip1.*--fps", check_clips,
           [clips[0], replace(clips[1], truth=replace(clips[1].truth, fps=30.0))])  # fmt: skip
    unseen = [replace(clip, truth=replace(clip.truth, valid=torch.zeros_like(clip.truth.valid))) for clip in clips]
    refuse(f"no known frame in any of {len(clips)} clips", check_clips, unseen)
    assert len(check_clips([*clips[1:], unseen[0]])) == len(clips)
    refuse("at least 5 frames, found 3 in clip0", check_clips, [clips[0].cut(3), clips[7]])


def test_predictions_that_do_not_fit(clips):
    pair = [clips[0], clips[7]]
    truth = {clip.clip_id: [clip.truth] for clip in pair}

    def check(**changes) -> None:
        check_predictions(pair, {**truth, "clip7": [replace(clips[7].truth, **changes)]})

    refuse("prediction for every clip of the truth, found none for clip7", check_predictions, pair,
           {"clip0": truth["clip0"]})  # fmt: skip
    refuse("2 samples of every clip, found 1 of clip7", check_predictions, pair, {**truth, "clip0": truth["clip0"] * 2})
    with pytest.raises(UserError, match="truth's 25 Hz, found 30 Hz for clip7.*--fps"):
        check(fps=30.0)
    short = clips[7].cut(150).truth
    with pytest.raises(UserError, match="200 frames, as the truth has, found 150 for clip7"):
        check(values=short.values, valid=short.valid)
    with pytest.raises(UserError, match="truth's basis arkit, found flame2020 for clip7"):
        check(values=torch.zeros(200, 65), valid=None, layout=MotionLayout("flame2020", 50))
    valid = clips[7].truth.valid.clone()
    valid[10:30, 0] = False
    with pytest.raises(UserError, match="expression in every frame of a prediction, found 20 frames without"):
        check(valid=valid)


def test_a_frame_more_or_less_is_cut(clips):
    pair = [clips[0], clips[7]]
    shorter = clips[7].cut(199).truth
    fitted, motions = check_predictions(pair, {"clip0": [clips[0].truth], "clip7": [shorter]})
    assert [len(clip) for clip in fitted] == [200, 199] and len(motions[1][0]) == 199
    assert len(fitted[1].energy_db) == len(fitted[1].phases["speaking"]) == len(fitted[1].partner_motion) == 199


def test_the_system_needs_a_name_of_its_own(clips, gauge):
    refuse("no control row has, found 'truth'", score, clips, {}, gauge, ScoreSettings(system="truth"))
