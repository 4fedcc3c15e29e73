"""Retargeting: the clay head in disguise comes back exactly; the true FLAME template moves where the clay head does."""

from functools import cache

import numpy as np
import pytest
import torch
from conftest import arrays, tone, wave_motion
from retarget_judge import ARKIT, REGIONS, TRUE_FLAME, arkit_motion, flame_file, judge, vertices

from diffdyad import cli
from diffdyad.config import asset_path
from diffdyad.errors import UserError
from diffdyad.head import HeadModel
from diffdyad.media import write_wav
from diffdyad.motion import ARKIT_EXPRESSIONS, POSE_GROUPS, Motion, MotionLayout, load_motion, save_motion
from diffdyad.retarget import Retarget, face_scale
from diffdyad.retarget.landmarks import Surface, face_curves, find_landmarks

SCALE, SHIFT = 1.2, np.array([0.01, -0.02, 0.03])


# --------------------------------------------------------------------------------------------- the clay head, disguised


def clay_arrays() -> dict[str, np.ndarray]:
    with np.load(asset_path("clay_head.npz")) as archive:
        return {key: archive[key] for key in archive.files}


def disguised(num_expression: int = 50) -> HeadModel:
    """The clay head as if it were a FLAME file's: larger, elsewhere, its vertices shuffled, its expressions mixed."""
    rng = np.random.default_rng(1)
    made = clay_arrays()
    count = len(made["template"])
    order = rng.permutation(count)
    place = np.argsort(order)
    mix = np.linalg.qr(rng.normal(size=(num_expression, num_expression)))[0][:41] * 2.0
    for name in ("template", "shape_dirs", "expression_dirs", "skinning_weights", "vertex_colors", "vertex_gloss"):
        made[name] = made[name][order].astype(np.float64)
    made["template"] = SCALE * made["template"] + SHIFT
    made["shape_dirs"] *= SCALE
    made["expression_dirs"] = SCALE * made["expression_dirs"] @ mix
    made["pose_dirs"] = SCALE * made["pose_dirs"].astype(np.float64).reshape(36, count, 3)[:, order].reshape(36, -1)
    made["joint_regressor"] = made["joint_regressor"][:, order]
    made["faces"] = place[made["faces"]]
    made |= {name: place[indices] for name, indices in made.items() if name.startswith("set_")}
    return HeadModel(made, "flame2020")


@cache
def disguise() -> tuple[HeadModel, Retarget]:
    head = disguised()
    return head, Retarget.fit(HeadModel.clay(), head)


def test_landmarks_are_found_whatever_the_vertices_are_called():
    clay, (head, _) = HeadModel.clay(), disguise()
    landmarks = find_landmarks(clay, head)
    there = landmarks.source.of(clay.template.double().numpy())
    here = head.template.double().numpy()[landmarks.target]
    assert 80 <= len(here) <= 110
    assert np.linalg.norm(here - (SCALE * there + SHIFT), axis=1).max() < 1e-3  # of 17 cm
    assert face_scale(clay, head, landmarks) == pytest.approx(SCALE, rel=1e-3)
    names = set(landmarks.names.tolist())
    assert {"left_lid_upper", "right_lid_lower", "inner_lip_upper", "lip_border_lower", "left_brow"} <= names


def test_landmarks_survive_another_mesh():
    """The clay head with every edge cut in two has four times the vertices, and the same landmarks."""
    fine, clay = clay_arrays(), HeadModel.clay()
    faces = fine["faces"].astype(np.int64)
    edges = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)), axis=0)
    number = {tuple(edge): len(fine["template"]) + k for k, edge in enumerate(edges.tolist())}
    for name in ("template", "shape_dirs", "expression_dirs", "skinning_weights", "vertex_colors", "vertex_gloss"):
        fine[name] = np.concatenate([fine[name], fine[name][edges].astype(np.float64).mean(1)])
    fine["pose_dirs"] = np.zeros((36, fine["template"].size))
    fine["joint_regressor"] = np.pad(fine["joint_regressor"], ((0, 0), (0, len(edges))))
    cut = []
    for a, b, c in faces.tolist():
        ab, bc, ca = (number[min(p), max(p)] for p in ((a, b), (b, c), (c, a)))
        cut += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
    fine["faces"] = np.array(cut)
    for name in ("face", "lips", "brows", "cheeks", "eyelids"):
        members = fine[f"set_{name}"]
        added = np.flatnonzero(np.isin(edges, members).all(1)) + len(clay.template)
        fine[f"set_{name}"] = np.concatenate([members, added])
    head = HeadModel(fine, "arkit")
    source, target = HeadModel.clay(), disguise()[0]
    found, expected = find_landmarks(head, target), find_landmarks(source, target)
    gap = found.source.of(head.template.double().numpy()) - expected.source.of(source.template.double().numpy())
    assert np.linalg.norm(gap, axis=1).max() < 2e-3


def test_the_clay_head_in_disguise_moves_as_the_clay_head():
    clay, (head, retarget) = HeadModel.clay(), disguise()
    assert retarget.expression.shape == (41, 50) and retarget.layout == MotionLayout("flame2020", 50)
    rng = np.random.default_rng(2)
    frames = [{name: 1.0} for name in ARKIT_EXPRESSIONS if name not in ("tongueOut", "mouthClose")]
    frames += [{"jaw": 0.2, "mouthClose": 0.5}, {"jaw": 0.4, "mouthClose": 1.0}]
    frames += [{name: rng.random() * 0.5 for name in ARKIT_EXPRESSIONS[:-1]} | {"jaw": 0.1} for _ in range(3)]
    motion = arkit_motion(*frames)
    found, there = vertices(head, retarget(motion)), vertices(clay, motion)
    order = np.random.default_rng(1).permutation(len(clay.template))
    error = np.linalg.norm(found - (SCALE * there[:, order] + SHIFT), axis=-1)
    face = head.vertex_sets["face"].numpy()
    assert error[:, face].max() < 1.5e-3 and error[:, face].mean() < 1e-4


def test_rotations_flags_and_time_pass_through():
    _, retarget = disguise()
    motion = wave_motion(1.0)
    motion.values[:, ARKIT.slices["leye_pose"]] = 0.1
    motion.valid[3, 0] = False
    motion.valid[5, 2] = False
    moved = retarget(motion)
    assert moved.layout == retarget.layout and moved.fps == motion.fps and len(moved) == len(motion)
    for group in POSE_GROUPS:
        assert torch.equal(moved.select(group), motion.select(group))
    assert torch.equal(moved.valid, motion.valid) and len(moved.betas) == 0
    double = retarget(Motion(torch.cat([2 * motion.select("expression"), motion.values[:, 41:]], -1), ARKIT, 25.0))
    torch.testing.assert_close(double.select("expression"), 2 * moved.select("expression"))


def test_refusals():
    clay, (head, retarget) = HeadModel.clay(), disguise()
    with pytest.raises(UserError, match="arkit.*flame2020"):
        Retarget.fit(head, head)
    with pytest.raises(UserError, match="arkit.*flame2020"):
        retarget(retarget(wave_motion(1.0)))
    mute = disguised()
    mute.expression_dirs = mute.expression_dirs[..., :0]
    with pytest.raises(UserError, match="expression directions"):
        Retarget.fit(clay, mute)
    nameless = HeadModel({k: v for k, v in clay_arrays().items() if k != "set_left_lid_upper"}, "arkit")
    with pytest.raises(UserError, match="left_lid_upper"):
        Retarget.fit(nameless, head)


# ------------------------------------------------------------------------------------------------ on the true template


@pytest.fixture(scope="module")
def flame_path(tmp_path_factory):
    if not TRUE_FLAME.exists():
        pytest.skip(f"no FLAME geometry at {TRUE_FLAME}")
    return flame_file(tmp_path_factory.mktemp("flame"))


@pytest.fixture(scope="module")
def on_flame(flame_path):
    clay, head = HeadModel.clay(), HeadModel.from_file(flame_path)
    return clay, head, Retarget.fit(clay, head)


def test_layout_is_the_files_own(on_flame):
    _, head, retarget = on_flame
    assert (head.basis, head.num_betas, head.num_expression) == ("flame2023-open", 300, 100)
    assert retarget.layout == MotionLayout("flame2023-open", 100, eyelids=True)


def test_held_out_vertices_move_where_the_clay_heads_do(on_flame):
    found = judge(*on_flame)
    close, blinks = (np.array([name.startswith(what) for name in ARKIT_EXPRESSIONS]) for what in ("mouthClose", "eyeB"))
    for region, least in (("lips", 100), ("brows", 15), ("eyelids", 350), ("cheeks", 75)):
        rows = found.region == region
        assert rows.sum() >= least
        error = found.error[rows]
        assert found.reach[rows].max() > 4  # something moved there
        # every expression, all vertices together
        assert error.mean(0).max() < 2.5, region
        # blinks end in a fold that each head has elsewhere; mouthClose lifts a lip by 35 mm
        assert error[:, ~close & ~blinks].max() < 3.5 and np.percentile(error[:, ~close & ~blinks], 99) < 2.5, region
        assert np.percentile(error[:, close | blinks], 90) < 3.5, region
    assert (found.error < 3).mean() > 0.99


def test_the_same_judged_without_any_landmark(on_flame):
    found = judge(*on_flame, warped=False)
    for region in REGIONS:
        error = found.error[found.region == region]
        assert error.mean() < 1.2 and (error < 3).mean() > 0.93, region


def test_features_go_where_their_names_say(on_flame):
    """By vertices that nobody searched for: FLAME's regions and sides."""
    _, head, retarget = on_flame
    names = ("mouthSmileLeft", "browInnerUp", "browDownRight", "cheekPuff", "mouthFunnel", "jawForward")
    at_rest, *moved = vertices(head, retarget(arkit_motion({}, *({name: 1.0} for name in names))))
    shift = {name: 1000 * (there - at_rest) for name, there in zip(names, moved, strict=True)}
    x, y, z = at_rest.T * 1000
    sets = {name: members.numpy() for name, members in head.vertex_sets.items()}
    lips, brows, cheeks = sets["lips"], sets["brows"], sets["cheeks"]
    corner = lips[(x[lips] > 24) & (np.abs(y[lips] + 45) < 4)]
    assert (shift["mouthSmileLeft"][corner] > (3, 5, -9)).all()
    assert np.abs(shift["mouthSmileLeft"][lips[x[lips] < -15]]).max() < 2.5
    assert shift["browInnerUp"][brows[np.abs(x[brows]) < 22], 1].min() > 2
    assert shift["browDownRight"][brows[(x[brows] < -15) & (x[brows] > -35)], 1].max() < -1.5
    assert np.abs(shift["browDownRight"][brows[x[brows] > 15]]).max() < 1.5
    puffed = cheeks[(np.abs(np.abs(x[cheeks]) - 42) < 7) & (np.abs(y[cheeks] + 36) < 8)]
    assert (shift["cheekPuff"][puffed, 0] * np.sign(x[puffed])).min() > 3
    assert shift["mouthFunnel"][lips[(np.abs(x[lips]) < 8) & (z[lips] > 55)], 2].min() > 3
    chin = sets["face"][(np.abs(x[sets["face"]]) < 12) & (np.abs(y[sets["face"]] + 78) < 6)]
    assert np.abs(shift["jawForward"][chin, 2] - 6).max() < 2


def test_lips_close_while_the_jaw_opens(on_flame):
    clay, head, retarget = on_flame
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    motion = arkit_motion(*({"jaw": 0.4 * share, "mouthClose": share} for share in shares))
    opening = 1000 * head.lip_aperture(torch.from_numpy(vertices(head, retarget(motion)))).numpy()
    gaping = 1000 * head.lip_aperture(torch.from_numpy(vertices(head, retarget(arkit_motion({"jaw": 0.4}))))).item()
    assert gaping > 35
    assert np.abs(opening - opening[0]).max() < 1.5  # as far apart as at rest
    # the chin, which the jaw carries 35 mm down, follows the lips no more than the clay head's does
    x, y, z = head.template.numpy().T
    chin = np.flatnonzero((np.abs(x) < 0.03) & (y < -0.07) & (y > -0.095) & (z > 0.02))
    frames = arkit_motion({"jaw": 0.4}, {"jaw": 0.4, "mouthClose": 1.0})
    opened, closed = vertices(head, retarget(frames))[:, chin]
    assert np.linalg.norm(opened - head.template.numpy()[chin], axis=1).min() > 0.03
    points = Surface.face_of(clay).closest(head.template.double().numpy()[chin])
    opened_clay, closed_clay = (points.of(frame) for frame in vertices(clay, frames))
    assert np.linalg.norm(closed - opened - (closed_clay - opened_clay), axis=1).mean() < 0.0035


def test_lips_that_touch_stay_together(on_flame):
    """Measured behind the lips' edges, where they touch, by FLAME vertices that are no landmarks."""
    clay, head, retarget = on_flame
    upper, lower = np.array([3533, 1668, 1667, 1740]), np.array([3509, 1848, 1826, 1789])
    assert not np.isin(np.concatenate([upper, lower]), find_landmarks(clay, head).target).any()
    names = [name for name in ARKIT_EXPRESSIONS if name not in ("mouthClose", "jawForward")]
    motion = arkit_motion({}, *({name: 1.0} for name in names))
    gap = (at := 1000 * vertices(head, retarget(motion)))[:, upper, 1] - at[:, lower, 1]
    opened = (gap - gap[0])[1:]
    there = 1000 * clay.lip_aperture(torch.from_numpy(vertices(clay, motion))).numpy()
    shut = (there - there[0])[1:] < 0.5
    assert shut.sum() > 25 and opened[shut].max() < 1.2
    assert opened[[names.index("mouthFunnel"), names.index("mouthUpperUpLeft")]].max(1).min() > 3


def lid_gap(head: HeadModel, at: np.ndarray, side: str) -> float:
    curves = face_curves(head)
    upper, lower = (curves[f"{side}_lid_{lid}"][3:8] for lid in ("upper", "lower"))
    return float(1000 * (at[upper, 1].mean() - at[lower, 1].mean()))


def test_lids_are_closed_by_their_own_channel(on_flame):
    _, head, retarget = on_flame
    blink = {"eyeBlinkLeft": 1.0}
    half, wide, both = {"eyeBlinkLeft": 0.5}, {"eyeWideLeft": 1.0}, blink | {"eyeSquintLeft": 1.0}
    moved = retarget(arkit_motion({}, blink, half, wide, both))
    gaps = [lid_gap(head, at, "left") for at in vertices(head, moved)]
    assert gaps[0] > 7
    assert abs(gaps[1]) < 0.15 * gaps[0] and gaps[2] == pytest.approx((gaps[0] + gaps[1]) / 2, abs=0.5)
    assert gaps[3] > 1.1 * gaps[0]
    assert gaps[4] == pytest.approx(gaps[1], abs=0.3)  # shut once, not twice
    lids = moved.select("eyelids")
    assert 0.4 < lids[1, 0] <= 1 and abs(lids[1, 1]) < 0.1
    # without the channel the random fields leave the eye half open
    moved.values[:, moved.layout.slices["eyelids"]] = 0
    assert lid_gap(head, vertices(head, moved)[1], "left") > 0.4 * gaps[0]
    right = retarget(arkit_motion({"eyeBlinkRight": 1.0}))
    assert abs(lid_gap(head, vertices(head, right)[0], "right")) < 0.2 * gaps[0]


def test_a_file_of_fifty_expressions(tmp_path, flame_path):
    head = HeadModel.from_file(flame_file(tmp_path, count=50, length_m=0.05))
    retarget = Retarget.fit(HeadModel.clay(), head)
    assert retarget.layout == MotionLayout("flame2023-open", 50, eyelids=True)
    assert judge(HeadModel.clay(), head, retarget).error.mean() < 1.5


# ------------------------------------------------------------------------------------------------------ sample --head


def test_sample_writes_the_files_own_basis(tiny_model, voices, flame_path, tmp_path):
    base = ["sample", "--model", tiny_model, "--audio", voices / "responder.wav", "--no-video", "--context-audio",
            voices / "previous.wav", "--start", "listen", "--seed", 5]  # fmt: skip
    for flags in (["--out", tmp_path / "clay"], ["--out", tmp_path / "flame", "--head", flame_path]):
        assert cli.main([str(word) for word in [*base, *flags]]) == 0
    found, own = arrays(tmp_path / "flame" / "motion.npz"), load_motion(tmp_path / "clay" / "motion.npz")
    assert str(found["basis"]) == "flame2023-open" and "expression_names" not in found
    assert found["expression"].shape == (38, 100) and found["eyelids"].shape == (38, 2) and len(found["betas"]) == 0
    assert np.abs(found["expression"]).max(0).min() > 0  # all hundred of them
    for group in POSE_GROUPS:
        np.testing.assert_array_equal(found[group], own.select(group).numpy())
    expected = Retarget.fit(HeadModel.clay(), HeadModel.from_file(flame_path))(own)
    read = load_motion(tmp_path / "flame" / "motion.npz")
    assert read.layout == expected.layout
    torch.testing.assert_close(read.values, expected.values)
    assert load_motion(tmp_path / "flame" / "listening.npz").layout == expected.layout
    record = (tmp_path / "flame" / "sample.json").read_text()
    assert '"basis": "flame2023-open"' in record and '"retargeted_from": "arkit"' in record


def test_sample_films_the_flame_head(tiny_model, flame_path, tmp_path, capsys):
    write_wav(tmp_path / "short.wav", tone(0.2))
    assert cli.main(["sample", "--model", str(tiny_model), "--audio", str(tmp_path / "short.wav"), "--head",
                     str(flame_path), "--guidance-scale", "0", "2", "--out", str(tmp_path / "out")]) == 0  # fmt: skip
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["motion_w0.npz", "motion_w2.npz", "sample.json", "sweep.png", "video.mp4"]
    assert capsys.readouterr().err == ""


def test_sample_refuses_what_it_cannot_retarget(tiny_model, voices, flame_path, tmp_path, capsys):
    base = ["sample", "--model", tiny_model, "--audio", voices / "responder.wav", "--no-video", "--out", tmp_path / "o"]

    def refused(*flags) -> str:
        assert cli.main([str(word) for word in [*base, *flags]]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and not (tmp_path / "o").exists()
        return error

    assert "expression directions" in (error := refused("--head", TRUE_FLAME)) and str(TRUE_FLAME) in error
    there = Motion(torch.zeros(25, 117), MotionLayout("flame2023-open", 100, eyelids=True), 25.0)
    save_motion(tmp_path / "there.npz", there)
    for flag in ("--style", "--start", "--context-motion"):
        error = refused("--head", flame_path, flag, tmp_path / "there.npz")
        assert "arkit" in error and "flame2023-open" in error
