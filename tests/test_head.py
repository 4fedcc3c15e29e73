"""The head model: its equations against a plain loop, its axes, its files."""

import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from test_unpickle import Python2Pickler, foreign_class, old_numpy, with_state

from diffdyad import flame
from diffdyad.errors import UserError
from diffdyad.head import HeadModel
from diffdyad.motion import MotionLayout
from diffdyad.rotation import axis_angle_to_matrix

TRUE_FLAME = Path(__file__).parents[2] / "shared/data/flame2023_open_partial/flame2023_open_partial.npz"
NECK_X, JAW_X, LEFT_EYE_Y = 3, 6, 10


@pytest.fixture(scope="module")
def clay() -> HeadModel:
    return HeadModel.clay().double()


@pytest.fixture(scope="module")
def true_flame() -> HeadModel:
    if not TRUE_FLAME.exists():
        pytest.skip(f"no FLAME geometry at {TRUE_FLAME}")
    return HeadModel.from_file(TRUE_FLAME).double()


def poses(**channels: float) -> torch.Tensor:
    """One frame of poses (1, 15), by group and axis, such as jaw_pose_x=0.2."""
    groups = ("global_orient", "neck_pose", "jaw_pose", "leye_pose", "reye_pose")
    made = torch.zeros(1, 15, dtype=torch.float64)
    for name, value in channels.items():
        group, axis = name.rsplit("_", 1)
        made[0, 3 * groups.index(group) + "xyz".index(axis)] = value
    return made


def plain_skinning(head: HeadModel, betas, expression, pose) -> np.ndarray:
    """Li et al. 2017, one frame, vertex by vertex and joint by joint with 4 x 4 matrices."""
    arrays = {name: buffer.numpy() for name, buffer in head.named_buffers()}
    shaped = arrays["template"] + arrays["shape_dirs"] @ betas + arrays["expression_dirs"] @ expression
    joints = arrays["joint_regressor"] @ shaped
    turns = axis_angle_to_matrix(pose.view(5, 3)).numpy()
    feature = (turns[1:] - np.eye(3)).reshape(36)
    posed = shaped + (feature @ arrays["pose_dirs"]).reshape(-1, 3)
    world = []
    for joint, parent in enumerate(arrays["parents"]):
        local = np.eye(4)
        local[:3, :3] = turns[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world.append(world[parent] @ local if parent >= 0 else local)
    from_rest = []
    for joint in range(5):
        back = np.eye(4)
        back[:3, 3] = -joints[joint]
        from_rest.append(world[joint] @ back)
    result = np.zeros_like(posed)
    for vertex, weights in enumerate(arrays["skinning_weights"]):
        blended = sum(weight * matrix for weight, matrix in zip(weights, from_rest, strict=True))
        result[vertex] = (blended @ np.append(posed[vertex], 1))[:3]
    return result


def test_forward_is_the_published_equations(clay):
    rng = torch.Generator().manual_seed(0)
    betas = torch.randn(clay.num_betas, generator=rng, dtype=torch.float64)
    expression = torch.rand(1, clay.num_expression, generator=rng, dtype=torch.float64)
    pose = 0.3 * torch.randn(1, 15, generator=rng, dtype=torch.float64)
    found = clay(betas, expression, pose)[0]
    expected = plain_skinning(clay, betas.numpy(), expression[0].numpy(), pose[0])
    # the asset's weights sum to 1 to single precision, which the plain loop feels and displacements do not
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-7)


def test_no_motion_is_the_template_to_the_bit(clay):
    assert torch.equal(clay(poses=torch.zeros(3, 15).double()), clay.template.expand(3, -1, -1))
    assert torch.equal(clay(), clay.template[None])
    assert clay().dtype == torch.float64
    assert HeadModel.clay()(poses=torch.zeros(1, 15)).dtype == torch.float32


def test_batches_and_missing_arguments(clay):
    expression, pose = torch.rand(2, 3, 41).double(), 0.2 * torch.randn(2, 3, 15).double()
    betas = torch.randn(2, 4).double()  # fewer than the head has
    found = clay(betas, expression, pose)
    assert found.shape == (2, 3, clay.num_vertices, 3)
    torch.testing.assert_close(found[1, 2], clay(betas[1], expression[1, 2:], pose[1, 2:])[0])
    assert clay(betas).shape == (2, 1, clay.num_vertices, 3)
    assert clay(expression=expression).shape == found.shape
    torch.testing.assert_close(clay(betas, None, pose), clay(betas, 0 * expression, pose))


def test_axes(clay):
    at_rest = clay.template
    nose, crown = at_rest[:, 2].argmax(), at_rest[:, 1].argmax()

    def moved(vertex, **channels):
        return (clay(poses=poses(**channels))[0] - at_rest)[vertex]

    for group in ("global_orient", "neck_pose"):
        assert moved(nose, **{f"{group}_x": 0.2})[1] < -0.01  # nods down
        assert moved(nose, **{f"{group}_y": 0.2})[0] > 0.01  # turns to the character's left
        assert moved(crown, **{f"{group}_z": 0.2})[0] < -0.01  # tilts to the character's right shoulder
    for side, group in (("left_eye", "leye_pose"), ("right_eye", "reye_pose")):
        eye = clay.vertex_sets[side]
        pupil = eye[at_rest[eye, 2].argmax()]
        assert moved(pupil, **{f"{group}_x": 0.2})[1] < -0.002
        assert moved(pupil, **{f"{group}_y": 0.2})[0] > 0.002
        others = torch.ones(clay.num_vertices, dtype=bool)
        others[eye] = False
        assert moved(others, **{f"{group}_y": 0.2}).abs().max() == 0
    lower = clay.vertex_sets["inner_lip_lower"]
    assert moved(lower[len(lower) // 2], jaw_pose_x=0.2)[1] < -0.01


def test_from_motion(clay):
    layout = MotionLayout.arkit()
    motion = torch.rand(2, 5, layout.dim).double() * 0.3
    betas = torch.randn(2, 10).double()
    expected = clay(betas, layout.select(motion, "expression"), motion[..., 41:])
    torch.testing.assert_close(clay.from_motion(motion, layout, betas), expected)
    with pytest.raises(UserError, match="arkit.*flame2020"):
        clay.from_motion(torch.zeros(1, 65), MotionLayout("flame2020", 50))


def test_wrong_shapes_are_named(clay):
    with pytest.raises(UserError, match="41 expression coefficients, found 50"):
        clay(expression=torch.zeros(1, 50))
    with pytest.raises(UserError, match="15 pose channels.*found 12"):
        clay(poses=torch.zeros(1, 12))
    with pytest.raises(UserError, match="10 betas, found 11"):
        clay(torch.zeros(11))
    with pytest.raises(UserError, match="eyelid"):
        clay(eyelids=torch.zeros(1, 2))


def test_subset_moves_like_the_whole(clay):
    upper, lower = clay.vertex_sets["inner_lip_upper"], clay.vertex_sets["inner_lip_lower"]
    kept = torch.cat([torch.arange(0, clay.num_vertices, 7), upper, lower]).unique()
    part = clay.subset(kept)
    expression, pose, betas = torch.rand(4, 41).double(), 0.2 * torch.randn(4, 15).double(), torch.randn(10).double()
    whole = clay(betas, expression, pose)
    found = part(betas, expression, pose)
    torch.testing.assert_close(found, whole[:, kept])
    torch.testing.assert_close(part.lip_aperture(found), clay.lip_aperture(whole))
    lips = clay.vertex_sets["lips"]
    assert torch.equal(kept[part.vertex_sets["lips"]], lips[torch.isin(lips, kept)])
    corners = clay.faces[torch.isin(clay.faces, kept).all(-1)]
    assert torch.equal(kept[part.faces], corners)
    # pairs of lips with one missing are left out of both
    half = clay.subset(torch.cat([upper, lower[:5]]))
    assert len(half.vertex_sets["inner_lip_upper"]) == len(half.vertex_sets["inner_lip_lower"]) == 5


def test_lip_aperture_has_a_slope_at_rest(clay):
    pose = torch.zeros(1, 15, dtype=torch.float64, requires_grad=True)
    clay.lip_aperture(clay(poses=pose)).sum().backward()
    assert 0.05 < pose.grad[0, JAW_X] < 0.2  # metres per radian: about the jaw's length


def test_a_head_moves_with_its_buffers(clay):
    half = HeadModel.clay().to(torch.bfloat16)
    assert half(poses=torch.zeros(1, 15, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert clay.vertex_sets["lips"].dtype == torch.int64


# --------------------------------------------------------------------------------------------------- FLAME's own files


def flame_content(columns: int = 150) -> dict:
    """A FLAME file's content with made-up numbers."""
    rng = np.random.default_rng(0)
    regressor = np.zeros((5, flame.VERTICES), np.float32)
    regressor[np.arange(5), [10, 20, 30, 4000, 4500]] = 1
    weights = rng.random((flame.VERTICES, 5), np.float32)
    return {
        "v_template": rng.normal(size=(flame.VERTICES, 3)).astype(np.float32) * 0.1,
        "f": rng.integers(0, flame.VERTICES, (flame.FACES, 3)).astype(np.uint32),
        "shapedirs": rng.normal(size=(flame.VERTICES, 3, columns)).astype(np.float32) * 1e-3,
        "posedirs": rng.normal(size=(flame.VERTICES, 3, 36)).astype(np.float32) * 1e-3,
        "J_regressor": regressor,
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
    }


def check_same(head: HeadModel, content: dict, identity: int) -> None:
    np.testing.assert_array_equal(head.template, content["v_template"])
    np.testing.assert_array_equal(head.shape_dirs, content["shapedirs"][..., :identity])
    np.testing.assert_array_equal(head.expression_dirs, content["shapedirs"][..., identity:])
    np.testing.assert_array_equal(head.pose_dirs.reshape(36, -1, 3), content["posedirs"].transpose(2, 0, 1))
    np.testing.assert_array_equal(head.joint_regressor, content["J_regressor"])


def test_plain_pickle_and_npz(tmp_path):
    content = flame_content()
    (tmp_path / "flame2023.pkl").write_bytes(pickle.dumps(content))
    np.savez(tmp_path / "FLAME2020.npz", **content)
    for name, basis in (("flame2023.pkl", "flame2023"), ("FLAME2020.npz", "flame2020")):
        head = HeadModel.from_file(tmp_path / name)
        assert (head.basis, head.num_betas, head.num_expression) == (basis, 100, 50)
        check_same(head, content, 100)


def test_chumpy_era_pickle_without_chumpy_or_scipy(tmp_path):
    content = flame_content()
    rows, columns = np.nonzero(content["J_regressor"])
    order = np.argsort(columns)
    starts = np.searchsorted(columns[order], np.arange(flame.VERTICES + 1)).astype(np.int32)
    with foreign_class("chumpy.ch", "Ch") as chumpy, foreign_class("scipy.sparse.csc", "csc_matrix") as sparse:
        old = dict(content)
        for key in ("v_template", "shapedirs", "posedirs"):
            old[key] = with_state(chumpy, x=content[key])
        old["J_regressor"] = with_state(
            sparse, data=np.ones(5), indices=rows[order].astype(np.int32), indptr=starts, _shape=(5, flame.VERTICES)
        )
        path = tmp_path / "generic_model.pkl"
        with open(path, "wb") as file:
            Python2Pickler(file, 2).dump(old)
    path.write_bytes(old_numpy(path.read_bytes()))
    check_same(HeadModel.from_file(path, basis="flame2020"), content, 100)


@pytest.mark.parametrize(
    "name, basis",
    [
        ("flame2023_Open.pkl", "flame2023-open"), ("flame2023_open_partial.npz", "flame2023-open"),
        ("flame2023_no_jaw.pkl", "flame2023"), ("FLAME2023/generic_model.pkl", "flame2023"),
        ("FLAME2020/generic_model.pkl", "flame2020"), ("flame2020/flame2023.pkl", "flame2023"),
    ],
)  # fmt: skip
def test_basis_by_name(name, basis):
    assert flame.detect_basis(Path("/models") / name) == basis


def test_unclear_basis_is_asked_for(tmp_path):
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "generic_model.npz"
    np.savez(path, **flame_content())
    with pytest.raises(UserError, match="generic_model.npz.*flame2020, flame2023, flame2023-open"):
        HeadModel.from_file(path)
    assert HeadModel.from_file(path, basis="flame2023").basis == "flame2023"
    with pytest.raises(UserError, match="arkit"):
        HeadModel.from_file(path, basis="arkit")


def test_unusable_files_say_why(tmp_path):
    content = flame_content()
    path = tmp_path / "flame2020.npz"
    for change, message in (
        ({"shapedirs": content["shapedirs"][..., :70]}, "400.*70"),
        ({"v_template": content["v_template"][:100]}, "5023"),
        ({"weights": content["weights"][:, :4]}, "skinning_weights"),
        ({"kintree_table": np.array([[2**32 - 1, 0, 1, 2, 3]])}, "joint tree"),
    ):
        np.savez(path, **(content | change))
        with pytest.raises(UserError, match=message):
            HeadModel.from_file(path)
    np.savez(path, **{key: value for key, value in content.items() if key != "weights"})
    with pytest.raises(UserError, match="'weights'"):
        HeadModel.from_file(path)
    path.write_bytes(b"nonsense")
    for wrong in (path, tmp_path / "none2020.npz", tmp_path / "flame2020.txt"):
        with pytest.raises(UserError, match=wrong.name):
            HeadModel.from_file(wrong)


# ------------------------------------------------------------------------------------------------ on the true geometry


def test_true_flame_loads_without_expressions(true_flame):
    assert (true_flame.basis, true_flame.num_betas, true_flame.num_expression) == ("flame2023-open", 60, 0)
    for rows in (true_flame.skinning_weights, true_flame.joint_regressor):
        torch.testing.assert_close(rows.sum(1), torch.ones(len(rows)).double(), atol=1e-6, rtol=0)
    assert (true_flame(poses=poses())[0] - true_flame.template).abs().max() <= 5e-9
    with pytest.raises(UserError, match="0 expressions, found motion with 50"):
        true_flame.from_motion(torch.zeros(1, 65).double(), MotionLayout("flame2023-open", 50))


def test_true_flame_jaw_opens_the_lips(true_flame):
    rest, opened = (true_flame.lip_aperture(true_flame(poses=poses(jaw_pose_x=x))).item() for x in (0.0, 0.2))
    assert 0.001 < rest < 0.0035
    assert opened == pytest.approx(0.0226, abs=0.001)


def test_true_flame_left_eye_turns_alone(true_flame):
    moved = (true_flame(poses=poses(leye_pose_y=0.3))[0] - true_flame.template).norm(dim=-1)
    # the file's pose correctives for the eyes hold noise of less than a micrometre
    turned = torch.nonzero(moved > 2e-6).flatten()
    assert turned.min() >= 3931 and turned.max() <= 4476 and len(turned) > 500


def test_true_flame_regions(true_flame):
    sets, template = true_flame.vertex_sets, true_flame.template
    for name in ("lips", "brows", "eyelids", "cheeks", "face", "left_eye", "right_eye"):
        assert len(sets[name]) > 15, name
    height = {name: template[sets[name], 1].mean() for name in sets}
    assert height["brows"] > height["eyelids"] > height["cheeks"] > height["lips"]
    assert template[sets["left_eye"], 0].min() > 0 > template[sets["right_eye"], 0].max()
    upper, lower = sets["inner_lip_upper"], sets["inner_lip_lower"]
    for edge in (upper, lower):
        assert (template[edge, 0].diff() > 0).all()  # from the right corner to the left
    assert (true_flame.skinning_weights[lower, 2] > 0.7).all() and (true_flame.skinning_weights[upper, 2] < 0.3).all()


def test_true_flame_lids_close_over_the_eyeball(true_flame):
    for side, joint, edges in ((0, 3, (flame.UPPER_LID, flame.LOWER_LID)),):
        centre = true_flame.joint_template[joint]
        ball = (true_flame.template[flame.LEFT_EYE] - centre).norm(dim=-1).max()
        upper, lower = (torch.tensor(edge[1:-1]) for edge in edges)
        gap = []
        for closed in (0.0, 0.25, 0.5, 0.75, 1.0):
            lids = torch.zeros(1, 2).double()
            lids[0, side] = closed
            vertices = true_flame(eyelids=lids)[0]
            middle = vertices[upper[3:6]]
            assert (middle - centre).norm(dim=-1).min() > ball  # in front of the eyeball
            gap.append((middle[:, 1].mean() - vertices[lower[2:5], 1].mean()).item())
        assert all(a > b for a, b in pairwise(gap))
        assert abs(gap[-1]) < 0.12 * gap[0]
        far = true_flame.template[:, 0] < 0
        assert (vertices[far] == true_flame.template[far]).all()
