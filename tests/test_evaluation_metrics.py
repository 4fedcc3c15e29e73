"""Each metric on motion whose answer is known beforehand, and against SciPy where it has the same."""

import numpy as np
import pytest
import torch

from diffdyad.evaluation import beats, correlation, diversity, dynamics, events, frechet, vertices
from diffdyad.evaluation.gauge import SETS, FaceGauge, JawedFace, metric_vertices
from diffdyad.evaluation.matching import match_events
from diffdyad.head import HeadModel
from diffdyad.motion import Motion, MotionLayout

FPS = 25.0


def seconds(count: float, fps: float = FPS) -> np.ndarray:
    return np.arange(round(count * fps)) / fps


# ----------------------------------------------------------------------------------------------- vertices


def test_vertex_errors_in_millimetres():
    truth = np.zeros((4, 3, 3))
    prediction = truth.copy()
    prediction[:, 0, 0] = 3.0
    prediction[:, 1] = [0.0, 3.0, 4.0]
    assert vertices.lip_vertex_error_max_mean_mm(truth, prediction, [0, 1]) == 5
    assert vertices.face_vertex_error_mean_mm(truth, prediction, [0, 1, 2]) == pytest.approx(8 / 3)
    assert vertices.lip_vertex_error_max_mean_mm(torch.from_numpy(truth), prediction, torch.tensor([0])) == 3
    with pytest.raises(ValueError, match=r"\(4, 3, 3\) and \(3, 3, 3\)"):
        vertices.lip_vertex_error_max_mean_mm(truth, prediction[:3], [0])


def test_upper_face_spread_is_signed_and_blind_to_offsets():
    t = seconds(2)
    truth, prediction = np.zeros((50, 2, 3)), np.full((50, 2, 3), 7.0)
    truth[:, 0, 1] = 2 * np.sqrt(2) * np.sin(2 * np.pi * t)  # root mean square 2 mm
    prediction[:, 1, 2] += np.sqrt(2) * np.cos(2 * np.pi * t)  # 1 mm, at the other vertex
    assert vertices.upper_face_spread_difference_mean_mm(truth, prediction, [0, 1]) == pytest.approx((1 - 2) / 2)
    assert vertices.upper_face_spread_error_mean_mm(truth, prediction, [0, 1]) == pytest.approx((1 + 2) / 2)


def test_lip_closure_on_given_times():
    opening = np.full(30, 8.0)
    opening[10], opening[20:24] = 0.5, [3.0, 1.0, 0.2, 1.4]
    assert vertices.lip_closure_iou(opening, np.roll(opening, 1)) == pytest.approx(2 / 6)
    assert vertices.lip_closure_iou(opening, np.zeros(30)) == pytest.approx(4 / 30)
    assert np.isnan(vertices.lip_closure_iou(opening + 9, opening + 9))
    # 12 is 2 frames late for the closure at 10, 15 is too far from all
    assert vertices.closed_near(opening, [12, 15, 22]).tolist() == [True, False, True]
    assert vertices.lip_closure_ratio(opening, [12, 15, 22]) == pytest.approx(2 / 3)
    assert np.isnan(vertices.lip_closure_ratio(opening, []))
    assert vertices.mouth_opening_error_mean_mm(opening, opening + 0.5) == pytest.approx(0.5)


# ----------------------------------------------------------------------------------------------- dynamics


def test_speed_jerk_and_seams():
    t = seconds(4, 100.0)
    points = np.zeros((400, 2, 3))
    points[:, :, 0] = 10 * t[:, None]
    assert dynamics.point_speed_mean_mm_s(points, 100.0) == pytest.approx(10)
    assert dynamics.point_jerk_mean_mm_s3(points, 100.0) == pytest.approx(0, abs=1e-6)
    points[:, :, 1] = (t**3)[:, None]
    assert dynamics.point_jerk_mean_mm_s3(points, 100.0) == pytest.approx(6, rel=1e-6)
    assert dynamics.seam_jerk_ratio(points, 100.0, [200]) == pytest.approx(1, rel=1e-6)
    points[200:, :, 2] += 1.0  # a jump of 1 mm: third differences 1, -2, 1
    ratio = dynamics.seam_jerk_ratio(points, 100.0, [200])
    assert ratio == pytest.approx(np.mean([1e6, 2e6, 1e6]) / 6, rel=1e-3)
    assert np.isnan(dynamics.seam_jerk_ratio(points, 100.0, []))


def test_rotations_are_compared_along_the_shortest_way():
    turn = np.zeros((26, 3))
    turn[:, 1] = np.radians(10) * seconds(26 / 25)
    assert dynamics.rotation_speed_mean_deg_s(turn, FPS) == pytest.approx(10)
    assert dynamics.rotation_error_mean_deg([[0, 0, 0.1]], [[0, 0, 0.1 - 2 * np.pi]]) == pytest.approx(0, abs=1e-5)
    # a quarter about x against a quarter about y: cos of half the angle between is 1/2
    assert dynamics.rotation_angle_deg([np.pi / 2, 0, 0], [0, np.pi / 2, 0]) == pytest.approx(120)


# -------------------------------------------------------------------------------------------- correlation


def test_constant_signals_have_no_correlation():
    t = seconds(2)
    assert np.isnan(correlation.pearson_correlation(t, np.full(50, 0.3)))
    assert np.isnan(correlation.spearman_correlation(np.full(50, 0.3), t))
    assert np.isnan(correlation.peak_correlation(np.ones(50), t, FPS, 0.4).correlation)
    assert correlation.pearson_correlation(t, -2 * t + 1) == pytest.approx(-1)


def test_correlation_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
    rng = np.random.default_rng(0)
    a = rng.normal(size=200)
    b = 0.3 * a + rng.normal(size=200)
    assert correlation.pearson_correlation(a, b) == pytest.approx(stats.pearsonr(a, b).statistic, rel=1e-12)
    a, b = a.round(), b.round(1)  # ties
    assert correlation.spearman_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, rel=1e-12)
    assert np.array_equal(correlation.ranks(b), stats.rankdata(b))


def test_synchrony_finds_the_lag():
    rng = np.random.default_rng(1)
    leader = np.convolve(rng.normal(size=400), np.hanning(9), "same")
    follower = np.roll(leader, 15) + 0.1 * rng.normal(size=400)
    peak = correlation.peak_correlation(leader, follower, FPS, 2.0, steps=51)
    assert peak.lag_s == pytest.approx(0.6)
    assert peak.correlation > 0.95
    # one who leads is not in synchrony as a follower
    assert correlation.peak_correlation(follower, leader, FPS, 2.0).correlation < 0.4
    lags = correlation.lagged_correlations(leader, follower, [0, 15])
    assert lags[0] == pytest.approx(np.corrcoef(leader[15:], follower[15:])[0, 1])


def test_partner_correlation_error_looks_at_channels():
    rng = np.random.default_rng(2)
    partner = rng.normal(size=(300, 2)) + [0, 100]
    truth = partner + [0, -50]  # follows the partner entirely, from another rest
    noise = rng.normal(size=(300, 2))
    assert correlation.partner_correlation_error(partner, truth, truth) == 0
    assert correlation.partner_correlation_error(partner, truth, noise) == pytest.approx(1, abs=0.15)
    still = np.zeros((300, 2))
    assert np.isnan(correlation.partner_correlation_error(partner, truth, still))


def test_beats_of_the_own_voice_only():
    t = seconds(20)
    energy = -30 + 25 * np.maximum(np.sin(2 * np.pi * 1.5 * t), 0) ** 0.5 - 20 * (np.sin(2 * np.pi * 1.5 * t) <= 0)
    onsets = beats.audio_onsets_s(energy, FPS)
    assert len(onsets) == pytest.approx(30, abs=2)
    assert beats.beat_alignment(onsets, onsets) == 1
    assert beats.beat_alignment(onsets + 10 * beats.BEAT_SIGMA_S, [0.0]) < 1e-6
    assert beats.beat_alignment([], onsets) == 0 and np.isnan(beats.beat_alignment(onsets, []))
    rng = np.random.default_rng(0)
    others = [np.sort(rng.uniform(0, 20, 30)) for _ in range(5)]
    assert beats.beat_alignment_over_chance(onsets, onsets, others) > 0.3
    chance = [beats.beat_alignment_over_chance(rng.uniform(0, 20, 30), onsets, others) for _ in range(30)]
    assert abs(np.mean(chance)) < 0.1
    speed = 1 + np.cos(2 * np.pi * (t + 0.02))  # lowest at 0.48 + k, mid-frame
    assert beats.motion_beats_s(speed, FPS) == pytest.approx(np.arange(20) + 0.5, abs=0.021)


# ------------------------------------------------------------------------------------------------- events


def bumps(at: list[float], height: float, width_s: float, duration_s: float = 12) -> np.ndarray:
    t = seconds(duration_s)
    return sum(height * np.exp(-(((t - centre) / width_s) ** 2)) for centre in at)


def test_blinks_with_durations():
    track = 0.15 + bumps([2, 5, 9], 0.9, 0.09)
    found = events.blinks(track, FPS)
    # a Gaussian of height 0.9 is above 0.2 within 1.226 widths on either side
    half = 0.09 * np.sqrt(np.log(0.9 / 0.2))
    assert found.times_s == pytest.approx(np.array([2, 5, 9]) - half, abs=0.01)
    assert found.durations_s == pytest.approx(2 * half, abs=0.01)
    assert len(events.blinks(0.15 + bumps([5], 0.9, 0.6), FPS)) == 0  # eyes closed for more than half a second
    assert len(events.blinks(np.full(100, 0.9), FPS)) == 0


def test_smiles_and_brows_count_rises_not_levels():
    t = seconds(12)
    smile = 0.3 + 0.4 / (1 + np.exp(-8 * (t - 4)))  # a smile that stays
    assert events.smiles(smile, FPS).times_s == pytest.approx([4 - np.log(0.25 / 0.15) / 8], abs=0.05)
    assert len(events.smiles(np.full(300, 0.7), FPS)) == 0
    assert len(events.smiles(bumps([4], 0.4, 0.05), FPS)) == 0  # a twitch
    assert len(events.brow_raises(bumps([3, 8], 0.4, 0.2), FPS)) == 2


def test_nods_are_counted_once_each():
    t = seconds(12)
    nod = np.radians(4) * np.sin(2 * np.pi * 1.8 * (t - 3)) ** 2 * ((t > 3) & (t < 3 + 2 / 1.8))  # four dips in a row
    slow = np.radians(15) * np.sin(2 * np.pi * t / 12)
    found = events.nods(nod + slow, FPS)
    assert len(found) == 1
    assert found.times_s[0] == pytest.approx(3 + 0.25 / 1.8, abs=0.05)
    assert found.durations_s[0] == pytest.approx(3 * 0.5 / 1.8, abs=0.09)
    assert len(events.nods(slow, FPS)) == 0
    assert len(events.nods(-bumps([6], np.radians(4), 0.2), FPS)) == 0  # head thrown back


def test_gaze_shifts():
    gaze = np.zeros((300, 3))
    gaze[100:, 1] = np.radians(12)
    gaze[200:, 0] = np.radians(1)  # too small
    gaze[:, 1] += np.radians(20) * np.sin(2 * np.pi * seconds(12) / 12)  # pursuit, 10 degrees/s at most
    found = events.gaze_shifts(gaze, FPS)
    assert found.times_s == pytest.approx([99 / FPS])


def test_peaks_agree_with_scipy():
    signal = pytest.importorskip("scipy.signal", reason="SciPy is not installed")
    rng = np.random.default_rng(3)
    for smooth in (1, 5, 15):
        track = np.convolve(rng.normal(size=500), np.ones(smooth) / smooth, "same").round(1)  # plateaus
        for reach in (4, 20):
            theirs, _ = signal.find_peaks(track, prominence=0.3, wlen=2 * reach + 1)
            assert events.peaks(track, 0.3, reach) == theirs.tolist()


def test_matching_is_one_to_one():
    matches = match_events([1.0, 2.0, 5.0], [1.3, 2.1, 2.2, 9.0], 0.4)
    assert list(zip(matches.truth, matches.prediction)) == [(0, 0), (1, 1)]
    assert matches.f1 == pytest.approx(4 / 7)
    assert matches.recall == pytest.approx(2 / 3) and matches.precision == 0.5
    # taking the nearest first would leave one alone
    assert len(match_events([1.0, 1.5], [1.45, 1.9], 0.5).truth) == 2
    assert np.isnan(match_events([], [], 1.0).f1) and match_events([], [1.0], 1.0).f1 == 0


# ------------------------------------------------------------------------------------------ distributions


def test_frechet_of_known_gaussians():
    one = frechet.Gaussian(np.zeros(2), np.diag([4.0, 1.0]))
    other = frechet.Gaussian(np.array([3.0, 0.0]), np.diag([1.0, 9.0]))
    assert frechet.frechet_distance(one, other) == pytest.approx(9 + (2 - 1) ** 2 + (1 - 3) ** 2)
    assert frechet.frechet_distance(one, one) == pytest.approx(0, abs=1e-12)
    frozen = frechet.Gaussian(np.zeros(2), np.zeros((2, 2)))
    assert frechet.frechet_in_truth_deviations(one, frozen) == pytest.approx(1)
    assert np.isnan(frechet.frechet_in_truth_deviations(frozen, one))


def test_frechet_agrees_with_scipy():
    linalg = pytest.importorskip("scipy.linalg", reason="SciPy is not installed")
    rng = np.random.default_rng(4)
    a, b = (rng.normal(size=(300, 12)) @ rng.normal(size=(12, 12)) for _ in range(2))
    fitted = [frechet.Gaussian.fit(x) for x in (a, b)]
    root = linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    theirs = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert frechet.frechet_distance(*fitted) == pytest.approx(theirs, rel=1e-8)


def test_moments_add_up_and_can_be_taken_away():
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(90, 4)) + 1000
    centre = rows[:50].mean(0)
    first, second = frechet.Moments.of(rows[:50], centre), frechet.Moments.of(rows[50:], centre)
    both = (first + second).gaussian()
    assert np.allclose(both.covariance, np.cov(rows.T), rtol=1e-9) and np.allclose(both.mean, rows.mean(0))
    again = (first + second - second).select([1, 3]).gaussian()
    assert np.allclose(again.covariance, np.cov(rows[:50, [1, 3]].T), rtol=1e-6)


def test_shuffled_frames_pass_as_posture_but_not_as_movement():
    t = seconds(60)
    motion = np.stack([np.sin(2 * np.pi * 0.5 * t), np.cos(2 * np.pi * 0.3 * t)], 1)
    shuffled = np.random.default_rng(0).permutation(motion)
    fit = frechet.Gaussian.fit
    assert frechet.frechet_in_truth_deviations(fit(motion), fit(shuffled)) < 1e-9
    moved = [fit(frechet.with_movement(x, FPS)) for x in (motion, shuffled)]
    assert frechet.frechet_in_truth_deviations(*moved) > 0.1


def test_paired_frechet_excess_is_about_the_partner():
    rng = np.random.default_rng(6)
    partner = rng.normal(size=(4000, 2))
    truth = partner * 0.9 + rng.normal(size=(4000, 2)) * 0.3
    alone = np.random.default_rng(7).permutation(truth)
    excess = frechet.paired_frechet_excess
    assert excess(partner, truth, truth + 5) == pytest.approx(0, abs=1e-6)  # wrong, but not about the partner
    assert excess(partner, truth, alone) > 0.5


def test_entropy_and_its_order():
    rng = np.random.default_rng(8)
    truth = np.repeat(np.eye(4) * 10, 50, 0) + rng.normal(size=(200, 4)) * 0.01
    assert diversity.cluster_entropy_bits(truth, truth, 4) == pytest.approx(2)
    assert diversity.cluster_entropy_bits(truth, truth[:50], 4) == 0
    # the other way round, one expression all the time is four clusters of noise, and looks rich
    assert diversity.cluster_entropy_bits(truth, truth[:50], 4, order="dualtalk") > 0.5
    with pytest.raises(ValueError, match="'truth' or 'dualtalk'"):
        diversity.cluster_entropy_bits(truth, truth, 4, order="other")


def test_energy_score_is_proper():
    """Samples of the true distribution beat the safe mean and noise that is too wide; best-of-K does not see it."""
    rng = np.random.default_rng(9)
    scores = {name: [] for name in ("right", "mean", "wide")}
    for _ in range(300):
        truth = rng.normal(size=20)
        for name, width in (("right", 1.0), ("mean", 0.0), ("wide", 3.0)):
            scores[name].append(diversity.energy_score(rng.normal(size=(8, 20)) * width, truth))
    means = {name: np.mean(values) for name, values in scores.items()}
    assert means["right"] < means["mean"] and means["right"] < means["wide"]
    samples = np.array([[0.0], [3.0]])
    assert diversity.energy_score(samples, np.array([1.0])) == pytest.approx((1 + 2) / 2 - 3 / 2)
    assert diversity.best_of_samples(samples, np.array([1.0])) == 1
    assert diversity.sample_diversity(samples) == 3
    with pytest.raises(ValueError, match="at least 2 samples"):
        diversity.sample_diversity(samples[:1])


def test_variance_ratio():
    wave = np.sin(seconds(4))[:, None]
    assert diversity.variance_ratio(wave, wave / 2 + 1) == pytest.approx(0.25)
    assert np.isnan(diversity.variance_ratio(np.ones((9, 1)), wave[:9]))


# -------------------------------------------------------------------------------------------------- gauge


@pytest.fixture(scope="module")
def gauge() -> FaceGauge:
    return FaceGauge(HeadModel.clay(), MotionLayout.arkit())


def still(frames: int = 10) -> Motion:
    layout = MotionLayout.arkit()
    return Motion(torch.zeros(frames, layout.dim), layout, FPS)


def test_named_sets_of_the_clay_head(gauge):
    head = HeadModel.clay()
    sets = metric_vertices(head)
    assert tuple(sets) == SETS and set(gauge.sets) == set(SETS)
    for name, found in sets.items():
        assert len(found) == len(found.unique()), name
        assert not set(found.tolist()) & set(head.vertex_sets["left_eye"].tolist()), name
    assert head.template[sets["upper_face"], 1].min() > head.template[sets["lips"], 1].max()
    template = 1e3 * head.template[sets["lips"]].numpy()
    assert np.allclose(np.sort(gauge.points(still())[0, gauge.sets["lips"]], 0), np.sort(template, 0), atol=1e-3)
    assert all(len(np.arange(9999)[where]) <= 300 for where in gauge.sets.values())


def test_the_still_head_ignores_the_neck_and_opens_the_jaw(gauge):
    motion, layout = still(), MotionLayout.arkit()
    motion.values[5:, layout.slices["neck_pose"]] = 0.3
    motion.values[5:, layout.slices["global_orient"]] = 0.2
    motion.values[5:, layout.slices["leye_pose"]] = 0.2
    assert np.allclose(gauge.points(motion)[5:], gauge.points(still())[5:], atol=1e-4)
    motion.values[5:, layout.slices["jaw_pose"].start] = 0.2
    opening = gauge.opening_mm(gauge.points(motion))
    assert opening[0] == pytest.approx(0, abs=1e-3) and opening[9] > 10


def test_the_quick_face_is_the_head_models():
    head, layout = HeadModel.clay(), MotionLayout.arkit()
    rng = torch.Generator().manual_seed(0)
    motion = still(4)
    motion.values[:, layout.slices["expression"]] = torch.rand(4, 41, generator=rng)
    motion.values[:, layout.slices["jaw_pose"]] = 0.3 * torch.randn(4, 3, generator=rng)
    assert torch.allclose(JawedFace(head, layout)(motion), head.from_motion(motion.values, layout), atol=2e-6)


def test_actions_by_name(gauge):
    motion, layout = still(), MotionLayout.arkit()
    motion.values[:, layout.channel("mouthSmileLeft")] = 0.6
    motion.values[:, layout.channel("eyeBlinkLeft")] = 1.0
    motion.values[:, layout.channel("eyeBlinkRight")] = 1.0
    actions = gauge.actions(motion)
    assert actions.smile == pytest.approx(0.3) and actions.lid_closure == pytest.approx(1)
    assert actions.brow_raise == pytest.approx(0)


def test_actions_from_geometry_agree_with_the_names(gauge):
    """The clay head under another basis' name: measured on the mesh, its coefficients come out again."""
    head, layout = HeadModel.clay(), MotionLayout("flame2020", 41)
    head.basis = "flame2020"
    measured = FaceGauge(head, layout)
    named = MotionLayout.arkit()
    values = torch.zeros(11, layout.dim)
    ramp = torch.linspace(0, 1, 11)
    for side in ("Left", "Right"):
        for name in ("mouthSmile", "eyeBlink", "browOuterUp"):
            values[:, named.channel(f"{name}{side}")] = ramp
    values[:, named.channel("browInnerUp")] = ramp
    actions = measured.actions(Motion(values, layout, FPS))
    assert actions.smile == pytest.approx(ramp.numpy(), abs=0.05)
    assert actions.brow_raise == pytest.approx(ramp.numpy(), abs=0.05)
    assert actions.lid_closure[-1] > 0.8 and actions.lid_closure[0] == pytest.approx(0, abs=1e-4)


def test_named_sets_of_flame():
    from conftest import SHARED_DATA

    path = SHARED_DATA / "flame2023_open_partial" / "flame2023_open_partial.npz"
    if not path.exists():
        pytest.skip(f"no FLAME geometry at {path}")
    head = HeadModel.from_file(path)
    sets = metric_vertices(head)
    assert head.template[sets["upper_face"], 1].min() > head.template[sets["lips"], 1].max()
    assert 100 < len(sets["lips"]) < 400 and 500 < len(sets["face"]) < 3000
    gauge = FaceGauge(head, MotionLayout("flame2023-open", 0, eyelids=True))
    motion = Motion(torch.zeros(3, gauge.layout.dim), gauge.layout, FPS)
    motion.values[1:, gauge.layout.slices["eyelids"]] = 1.0
    motion.values[2:, gauge.layout.slices["jaw_pose"].start] = 0.2
    assert gauge.actions(motion).lid_closure == pytest.approx([0, 1, 1], abs=1e-3)
    opening = gauge.opening_mm(gauge.points(motion))
    assert opening[0] == pytest.approx(0, abs=1e-4) and 18 < opening[2] < 23  # 21 mm at the lips' middle
