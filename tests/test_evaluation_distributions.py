"""Figures of whole distributions: by slice, beside the partner, and never beyond what they can be."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_evaluation_score import FPS, LAYOUT, lively, make_clip

from diffdyad.errors import UserError
from diffdyad.evaluation.bootstrap import FEWEST_GROUPS, jackknife
from diffdyad.evaluation.clips import Clip, check_clips
from diffdyad.evaluation.controls import CONTROLS
from diffdyad.evaluation.figures import POOLED_FIGURES
from diffdyad.evaluation.figures.pooled import NUM_CLUSTERS
from diffdyad.evaluation.score import ScoreSettings, score
from diffdyad.motion import Motion

TRUTH = ScoreSettings(num_resamples=20, controls=CONTROLS[:1])
ENTROPY = "expression_cluster_entropy_bits"


def noisy(clips: list[Clip], size: float = 0.02) -> dict[str, list[Motion]]:
    generator = torch.Generator().manual_seed(1)
    return {clip.clip_id: [replace(clip.truth, values=clip.truth.values + size * torch.randn(
        clip.truth.values.shape, generator=generator))] for clip in clips}  # fmt: skip


def person(number: int, seconds: float = 8.0) -> Clip:
    """One clip of somebody who talks with nobody else of the set: a unit of its own."""
    clip = make_clip(number, talk=2 * number).cut(round(seconds * FPS))
    return replace(clip, truth=lively(7 * number, seconds))


def sum_of(parts):
    return np.sum(parts, 0)


def variance(sums) -> float:
    return sums[2] / sums[0] - (sums[1] / sums[0]) ** 2


def test_few_groups_are_not_corrected():
    rows = np.random.default_rng(0).normal(size=FEWEST_GROUPS)
    parts = [np.array([1.0, x, x * x]) for x in rows]
    few = jackknife(parts[:-1], sum_of, np.subtract, variance)
    assert few.value == pytest.approx(rows[:-1].var()) and math.isnan(few.low) and math.isnan(few.high)
    enough = jackknife(parts, sum_of, np.subtract, variance)
    assert enough.value == pytest.approx(rows.var(ddof=1)) and enough.low < enough.value < enough.high
    # where one part holds all that counts, nothing is left to compare with
    alone = jackknife(parts, sum_of, np.subtract, lambda s: np.nan if s[0] < len(rows) else 3.0)
    assert alone.value == 3.0 and math.isnan(alone.low)


def test_corrections_stay_within_what_can_be():
    parts = [np.array([1.0, x, x * x]) for x in np.random.default_rng(1).normal(size=12)]
    free = jackknife(parts, sum_of, np.subtract, variance)
    most = free.value - 1e-3
    assert free.low < 0.1 < most
    kept = jackknife(parts, sum_of, np.subtract, variance, bounds=(0.1, most))
    assert (kept.low, kept.value, kept.high) == (0.1, most, most)


@pytest.mark.parametrize(("units", "corrected"), [(6, False), (12, True)])
def test_no_figure_is_impossible(units, corrected):
    """Six people of four seconds each filled 40 clusters with 6.6 bits, where log2(40) = 5.3 is the most."""
    clips = [person(n, 4.0) for n in range(units)]
    report = score(clips, noisy(clips), None, TRUTH)
    most = {figure.name: figure.most for figure in POOLED_FIGURES}
    assert most[ENTROPY] == math.log2(NUM_CLUSTERS)
    for (_, _, name), cell in report.cells.items():
        if name in most and cell.value is not None:
            assert 0 <= cell.value <= most[name], name
            if cell.low is not None:
                assert 0 <= cell.low <= cell.value <= cell.high <= most[name], name
    cell = report.cells["all", "prediction", ENTROPY]
    assert cell.value > 4 and (cell.low is not None) == corrected
    assert any("nor a correction for small samples" in note for note in report.notes) != corrected


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [make_clip(n) for n in range(8)]


@pytest.fixture(scope="module")
def report(clips):
    return score(clips, noisy(clips), None, TRUTH)


def test_every_slice_has_its_distributions(clips, report):
    assert set(report.slices) == {"all", "listening", "speaking", "silent", "verbal", *(
        f"{kind}, {phase}" for kind in ("silent", "verbal") for phase in ("listening", "speaking"))}  # fmt: skip
    for part in report.slices:
        for row in report.rows:
            for figure in POOLED_FIGURES:
                cell = report.cells[part, row, figure.name]
                assert cell.value is not None or cell.undefined, (part, row, figure.name)
    # the same as of those clips alone
    silent = [clip for clip in clips if clip.response_kind == "silent"]
    predictions = noisy(clips)
    alone = score(silent, {clip.clip_id: predictions[clip.clip_id] for clip in silent}, None, TRUTH)
    for phase, part in (("all", "silent"), ("speaking", "silent, speaking")):
        for figure in ("frechet_head_per_channel", "frechet_jaw_movement_per_channel", "frechet_gaze_per_channel"):
            found, expected = report.value(figure, part=part), alone.value(figure, part=phase)
            assert found == pytest.approx(expected, rel=1e-6), (part, figure)
            assert found != pytest.approx(report.value(figure), rel=0.01)
        halves = [r.value("frechet_head_per_channel", "truth_halves", p) for r, p in ((report, part), (alone, phase))]
        assert halves[0] == pytest.approx(halves[1], rel=1e-6) and halves[0] > 0
    # and frame by frame figures within a kind's phase add up to the kind's
    parts = [report.value("expression_error_rms", part=f"silent, {phase}") ** 2 for phase in ("listening", "speaking")]
    assert np.mean(parts) == pytest.approx(report.value("expression_error_rms", part="silent") ** 2, rel=1e-6)


def test_too_few_frames_are_said(report):
    """400 frames of 82 channels, posture and movement; 400 of 41."""
    assert report.cells["silent, speaking", "prediction", "frechet_expression_movement_per_channel"].why == (
        "too few frames")  # fmt: skip
    assert report.value("frechet_expression_per_channel", part="silent, speaking") is not None
    assert "too few frames: frechet_expression_movement_per_channel" in report.to_markdown()


def test_kinds_are_not_called_as_phases_are(clips):
    with pytest.raises(UserError, match="kinds other than all, listening, speaking, found 'speaking' of clip0"):
        check_clips([replace(clips[0], response_kind="speaking"), *clips[1:]])


# ------------------------------------------------------------------------------------------------- the partner


def coupled(number: int, talk: int) -> Clip:
    """The head follows the partner's at once, and goes its own way besides."""
    rng = np.random.default_rng(number)
    steps = rng.normal(size=(2, 300, 6)).cumsum(1)
    steps = 0.03 * (steps - steps.mean(1, keepdims=True)) / steps.std(1, keepdims=True)
    theirs, own = np.zeros((2, 300, LAYOUT.dim), np.float32)
    for channels, group in ((slice(0, 3), "neck_pose"), (slice(3, 6), "jaw_pose")):
        theirs[:, LAYOUT.slices[group]] = steps[0][:, channels]
        own[:, LAYOUT.slices[group]] = 0.8 * steps[0][:, channels] + 0.6 * steps[1][:, channels]
    motion, partner = (Motion(torch.from_numpy(x), LAYOUT, FPS) for x in (own, theirs))
    return Clip(f"c{number}", motion, f"a{talk}", f"b{talk}", partner)


def test_who_ignores_the_partner_is_found_out():
    """Every clip gets the next one's motion: the same distribution, but not that of this conversation."""
    clips = [coupled(n, n) for n in range(6)]
    wrong = {clip.clip_id: [clips[(n + 1) % 6].truth] for n, clip in enumerate(clips)}
    report = score(clips, wrong, None, TRUTH)
    for group in ("head", "jaw"):
        alone, pair = f"frechet_{group}_per_channel", f"frechet_{group}_partner_excess_per_channel"
        assert report.value(alone) == pytest.approx(0, abs=1e-6)
        assert report.value(pair) > 0.2 and report.value(pair, "truth") == pytest.approx(0, abs=1e-9)
        error = f"partner_correlation_{group}_error_mean"
        assert 0.4 < report.value(error) < 1.2 and report.value(error, "truth") == 0
    assert report.cells["all", "prediction", "partner_correlation_expression_error_mean"].why == (
        "truth, prediction or partner constant")  # fmt: skip
    assert report.cells["all", "prediction", "frechet_expression_partner_excess_per_channel"].why == (
        "truth, prediction or partner constant")  # fmt: skip
    # who hardly moves goes with the partner as well as ever, and who stands still does not pass
    small = {clip.clip_id: [replace(clip.truth, values=0.01 * clip.truth.values)] for clip in clips}
    still = {clip.clip_id: [replace(clip.truth, values=0 * clip.truth.values)] for clip in clips}
    wrong = {name: [replace(motion, values=0.01 * motion.values)] for name, (motion,) in wrong.items()}
    pair = "frechet_head_partner_excess_per_channel"
    found = [score(clips, motions, None, TRUTH).cells["all", "prediction", pair] for motions in (small, still, wrong)]
    assert found[0].value == pytest.approx(0, abs=1e-3) and found[1].why == "truth, prediction or partner constant"
    assert found[2].value == pytest.approx(report.value(pair), rel=0.01)


def test_without_a_partner_it_is_said():
    clips = [replace(coupled(n, n), partner_motion=None) for n in range(2)]
    report = score(clips, {clip.clip_id: [clip.truth] for clip in clips}, None, TRUTH)
    assert report.cells["all", "prediction", "partner_correlation_head_error_mean"].why == "no partner's motion"
    assert report.cells["all", "prediction", "frechet_head_partner_excess_per_channel"].why == "no partner's head"
