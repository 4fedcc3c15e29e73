"""Other projects' metrics: on numbers that can be checked by hand, and on their own code's output."""

import json

import numpy as np
import pytest
import torch
from conftest import REPOSITORY

from diffdyad.evaluation.compat import codetalker, dualtalk, lm_listener, unils
from diffdyad.evaluation.kmeans import kmeans

GOLDEN = REPOSITORY.parent / "shared" / "golden"


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden values at {GOLDEN}")
    with np.load(GOLDEN / "inputs.npz") as archive:
        inputs = {key: archive[key] for key in archive.files}
    return inputs, json.loads((GOLDEN / "expected.json").read_text())


def golden_clips(inputs):
    return [{k: inputs[f"clip{i}_{k}"] for k in ("gt", "partner", "pred")} for i in (0, 1)]


def golden_pairs(inputs):
    return [(inputs[f"verts{i}_gt"], inputs[f"verts{i}_pred"]) for i in (0, 1)]


def check(found: dict, expected: dict) -> None:
    numbers = {key: value for key, value in expected.items() if not isinstance(value, str)}
    assert set(found) == set(numbers)
    for key, value in numbers.items():
        assert found[key] == pytest.approx(value, rel=1e-4), key


def test_golden_dualtalk(golden):
    inputs, expected = golden
    check(dualtalk(golden_clips(inputs)), expected["dualtalk"])


def test_golden_lm_listener(golden):
    inputs, expected = golden
    check(lm_listener(golden_clips(inputs)), expected["lm_listener"])


def test_golden_vertices(golden):
    inputs, expected = golden
    lips, upper = inputs["lip_vertices"], inputs["upper_face_vertices"]
    check(codetalker(golden_pairs(inputs), inputs["template"], lips, upper), expected["codetalker"])
    check(unils(golden_pairs(inputs), lips, upper), expected["unils"])
    tensors = [tuple(torch.from_numpy(v) for v in pair) for pair in golden_pairs(inputs)]
    check(unils(tensors, torch.from_numpy(lips), upper.tolist()), expected["unils"])


def test_vertex_figures_by_hand():
    """Two vertices, of which one is lips; the prediction is off by 2 mm, then 4 mm, there; the other swings less."""
    template = np.zeros((2, 3))
    gt, pred = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    pred[:, 0, 1] = [0.002, 0.004]
    gt[:, 1, 2] = [0.0, 0.010]
    pred[:, 1, 2] = [0.0, 0.004]
    theirs = codetalker([(gt, pred)], template, [0], [1])
    assert theirs["lve_squared"] == pytest.approx((4e-6 + 16e-6) / 2)
    # squared displacements swing between 0 and 100 (16) mm^2: deviations 50 and 8
    assert theirs["fdd_signed"] == pytest.approx((50 - 8) * 1e-6)
    theirs = unils([(gt, pred)], [0, 0], [1])
    assert theirs["lve_mm"] == pytest.approx(np.sqrt((4 + 16) / 2))
    assert theirs["mhd_mm"] == pytest.approx(np.sqrt((4 + 16 + 36) / 4))
    # unbiased deviations of two values are their difference / sqrt(2): 10 and 4 mm
    assert theirs["fdd_x100"] == pytest.approx(100 * (10 - 4) / np.sqrt(2))


def test_unils_cuts_to_the_shortest():
    gt, pred = np.zeros((3, 1, 3)), np.zeros((3, 1, 3))
    pred[2] = 1.0
    assert unils([(gt, pred), (gt[:2], pred[:2])], [0], [0])["lve_mm"] == 0


def clip(seed: int, frames: int = 120) -> dict:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(frames, 56)).astype(np.float32) for name in ("gt", "partner", "pred")}


def test_dualtalk_of_the_truth_itself():
    clips = [{**clip(i), "pred": clip(i)["gt"]} for i in range(2)]
    found = dualtalk(clips)
    for name, value in found.items():
        if name.startswith(("fid", "p_fid", "mse", "sts", "rpcc")):
            assert value == pytest.approx(0, abs=1e-9), name
    assert found["variance_pre_jaw"] == found["variance_gt_jaw"]
    assert 0 < found["sid_exp"] <= np.log2(40)


def test_dualtalk_by_hand():
    """The prediction is the truth one unit higher, at half the speed in one channel."""
    base = clip(3)
    steps = np.arange(120, dtype=np.float32) * 0.1
    base["gt"][:, 50] = steps
    pred = base["gt"] + 1.0
    pred[:, 50] = steps / 2
    found = dualtalk([{**base, "pred": pred}])
    assert found["fid_pose"] == pytest.approx(3, rel=1e-6)
    assert found["mse_exp"] == pytest.approx(1, rel=1e-6)
    assert found["sts_pose"] == pytest.approx(0, abs=1e-5)
    assert found["sts_jaw"] == pytest.approx(np.sqrt(119 * 0.05**2 / 0.1), rel=1e-5)


def test_lm_listener_by_hand():
    base = clip(4)
    found = lm_listener([{**base, "pred": base["gt"] + 0.5}])
    assert found["fd_56"] == pytest.approx(56 * 0.25, rel=1e-6)
    assert found["p_fd_112"] == pytest.approx(56 * 0.25, rel=1e-6)
    assert found["l2_mean_square"] == pytest.approx(0.25, rel=1e-6)


def test_bad_clips_are_named():
    with pytest.raises(ValueError, match=r"\(T, 56\) in clip 1.*\(119, 56\)"):
        dualtalk([clip(0), {**clip(1), "pred": clip(1)["pred"][:-1]}])
    with pytest.raises(ValueError, match="at least one clip"):
        lm_listener([])
    with pytest.raises(ValueError, match="at least one pair"):
        unils([], [0], [0])


def test_kmeans_finds_what_is_there():
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10.0]])
    points = np.repeat(centres, 50, 0) + rng.normal(size=(200, 2)) * 0.1
    found = kmeans(points, 4)
    assert np.allclose(sorted(map(tuple, found.centres.round())), sorted(map(tuple, centres)))
    assert np.allclose(found.shares(points), 0.25)
    with pytest.raises(ValueError, match="at least 4 points"):
        kmeans(points[:3], 4)


def test_kmeans_draws_as_scikit_learn_does():
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn is not installed")
    rng = np.random.default_rng(1)
    for dtype in (np.float32, np.float64):
        points = rng.normal(size=(300, 6)).astype(dtype)
        theirs = cluster.KMeans(12, random_state=0, n_init="auto").fit(points)
        assert np.array_equal(kmeans(points, 12).assign(points), theirs.labels_)
