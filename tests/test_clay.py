"""The clay head: the same every time, symmetric, closed where it should be; its expressions mean their names."""

import ast
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import diffdyad.clay
from diffdyad.clay import make_clay
from diffdyad.clay.mesh import Mesh
from diffdyad.clay.surface import EYE, EYE_RADIUS
from diffdyad.config import asset_path
from diffdyad.head import HeadModel
from diffdyad.motion import ARKIT_EXPRESSIONS, JAW_OPEN_RADIANS, MotionLayout

LAYOUT = MotionLayout.arkit()


@pytest.fixture(scope="module")
def made() -> dict[str, np.ndarray]:
    return make_clay()


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.clay().double()


def posed(head: HeadModel, jaw: float = 0.0, **coefficients: float) -> torch.Tensor:
    """Vertices (V, 3) in metres."""
    motion = torch.zeros(1, LAYOUT.dim, dtype=torch.float64)
    motion[0, LAYOUT.slices["jaw_pose"].start] = jaw
    for name, value in coefficients.items():
        motion[0, LAYOUT.channel(name)] = value
    return head.from_motion(motion, LAYOUT)[0]


def offsets(head: HeadModel, name: str) -> torch.Tensor:
    return head.expression_dirs[..., ARKIT_EXPRESSIONS.index(name)]


def test_deterministic_and_the_asset_is_current(made):
    again = make_clay()
    with np.load(asset_path("clay_head.npz"), allow_pickle=False) as stored:
        assert set(stored.files) == set(made) == set(again)
        for name, array in made.items():
            assert np.array_equal(array, again[name]), name
            if array.dtype.kind == "f":
                # machines may round differently
                np.testing.assert_allclose(stored[name].astype(float), array.astype(float), atol=2e-5, err_msg=name)
            else:
                assert np.array_equal(stored[name], array), f"{name}: run python -m diffdyad.clay"
    assert asset_path("clay_head.npz").stat().st_size < 3e6


def test_rounding_decides_no_face():
    def cut(off: float) -> list:
        """A square's triangles, one corner drawn out by `off`."""
        corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1 + off, 1 + off, 0]])
        mesh = Mesh()
        mesh.sheet(mesh.add(corners, (0, 0, 0), 0.0).reshape(2, 2))
        return mesh.triangles().tolist()

    assert cut(0.0) == cut(1e-12) == cut(-1e-12)
    assert cut(0.1) != cut(-0.1)


def test_does_not_import_head():
    for path in Path(diffdyad.clay.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.startswith("diffdyad.head") for name in names), path


def test_tensors(head):
    assert head.basis == "arkit" and head.num_expression == 41 and head.num_betas == 10
    assert 4500 < head.num_vertices < 7500
    for rows in (head.skinning_weights, head.joint_regressor):
        torch.testing.assert_close(rows.sum(1), torch.ones(len(rows)).double(), atol=1e-6, rtol=0)
    assert (head.skinning_weights >= 0).all()
    eyes = torch.tensor(np.stack([EYE, EYE * [-1, 1, 1]]))
    torch.testing.assert_close(head.joint_template[3:] * 1000, eyes, atol=1e-3, rtol=0)
    assert head.vertex_colors.min() >= 0 and head.vertex_colors.max() <= 1
    assert head.vertex_gloss.max() <= 1 and head.vertex_gloss.min() > -0.2  # below 0 grows hair
    bald = torch.cat([head.vertex_sets[name] for name in ("lips", "eyelids", "cheeks", "left_eye", "tongue")])
    assert head.vertex_gloss[bald].min() >= 0
    for name in ("lips", "brows", "eyelids", "cheeks", "face", "left_eye", "right_eye", "inner_lip_upper", "ears"):
        assert len(head.vertex_sets[name]) > 15, name


def sizes(head: HeadModel) -> dict[str, float]:
    """Distances in mm as anthropometry takes them."""
    p = head.template.numpy() * 1000
    skin = p[head.vertex_sets["skin"]]
    x, y, z = skin.T
    midline = skin[(np.abs(x) < 1e-3) & (z > 0)]

    def front(low: float, high: float) -> np.ndarray:
        return midline[(midline[:, 1] > low) & (midline[:, 1] < high)]

    def width(*where: np.ndarray) -> float:
        return 2 * np.abs(x[np.logical_and.reduce(where)]).max()

    nasion = front(20, 40)[front(20, 40)[:, 2].argmin()]
    tip = front(-25, 10)[front(-25, 10)[:, 2].argmax()]
    subnasale = front(-32, -18)[front(-32, -18)[:, 2].argmin()]
    chin = front(-110, -70)[:, 1].min()
    lids = {f"left_{lid}": p[head.vertex_sets[f"left_lid_{lid}"]] for lid in ("upper", "lower")}
    lips = p[head.vertex_sets["lips"]]
    ear = p[head.vertex_sets["ears"]]
    return {
        "head breadth": width(y > 40, z > -100),
        "head length": np.ptp(z[(y > 20) & (y < 90)]),
        "crown to chin": p[:, 1].max() - chin,
        "face breadth": width(np.abs(y) < 12, z > -32, z < 10),
        "jaw breadth": width(np.abs(y + 58) < 8, z < 0),
        "face height": nasion[1] - chin,
        "nose height": nasion[1] - subnasale[1],
        "nose breadth": width(y > -20, y < -10, z > 53),
        "nose protrusion": tip[2] - subnasale[2],
        "mouth breadth": np.ptp(lips[:, 0]),
        "between the pupils": 1000 * (head.joint_template[3, 0] - head.joint_template[4, 0]).item(),
        "between the eyes' inner corners": 2 * lids["left_upper"][0, 0],
        "eye length": np.linalg.norm(lids["left_upper"][-1] - lids["left_upper"][0]),
        "eye opening": np.linalg.norm(lids["left_upper"] - lids["left_lower"], axis=1).max(),
        "ear length": np.ptp(ear[:, 1]),
        "neck breadth": width(np.abs(y + 115) < 8),
    }


# means of adult women and men give or take about two and a half standard deviations (after Farkas 1994)
ADULT = {
    "head breadth": (135, 165), "head length": (172, 212), "crown to chin": (195, 255), "face breadth": (119, 150),
    "jaw breadth": (84, 122), "face height": (97, 139), "nose height": (42, 62), "nose breadth": (26, 42),
    "nose protrusion": (13, 24), "mouth breadth": (41, 63), "between the pupils": (60, 66),
    "between the eyes' inner corners": (26, 39), "eye length": (26, 36), "eye opening": (8, 13),
    "ear length": (52, 72), "neck breadth": (88, 130),
}  # fmt: skip


def test_sizes_of_an_adult(head):
    measured = sizes(head)
    for name, (low, high) in ADULT.items():
        assert low < measured[name] < high, f"{name}: {measured[name]:.1f} mm"


def test_open_edges_are_where_nothing_can_gape(head):
    """The skin is one sheet: it ends under the shirt and under the ears only, lips and lids fold inwards."""
    directed = Counter((a, b) for face in head.faces.tolist() for a, b in zip(face, face[1:] + face[:1], strict=True))
    border = torch.tensor([a for a, b in directed if (b, a) not in directed])
    sets, p = head.vertex_sets, head.template
    own = torch.cat([sets[name] for name in ("ears", "shirt", "lashes", "brows", "left_eye", "right_eye", "upper_teeth",
                                             "lower_teeth")])  # fmt: skip
    rest = border[~torch.isin(border, own)]
    under_ears = (p[rest, 0].abs() > 0.055) & (p[rest, 1].abs() < 0.025)
    under_shirt = p[rest, 1] < -0.12
    inside_lids = torch.isin(rest, sets["eyelids"])
    assert (under_ears | under_shirt | inside_lids).all()
    # the lids' inner edges lie within the eyeballs
    edge = rest[inside_lids]
    for joint in (3, 4):
        near = edge[p[edge, 0] * head.joint_template[joint, 0] > 0]
        assert (p[near] - head.joint_template[joint]).norm(dim=-1).max() < EYE_RADIUS / 1000


def test_surface_is_sound(head):
    directed = Counter((a, b) for face in head.faces.tolist() for a, b in zip(face, face[1:] + face[:1], strict=True))
    assert max(directed.values()) == 1  # every edge is passed once in each direction: all faces look outwards
    corners = head.template[head.faces]
    area = torch.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], dim=-1).norm(dim=-1) / 2
    assert area.min() > 1e-9
    centre = head.template.mean(0)
    assert (torch.linalg.det(corners - centre)).sum() > 0
    used = torch.zeros(head.num_vertices, dtype=bool)
    used[head.faces.flatten()] = True
    assert used.all()


def test_symmetric(head):
    image = head.template * torch.tensor([-1.0, 1, 1])
    gap = torch.cdist(image, head.template)
    partner = gap.argmin(1)
    assert gap.min(1).values.max() < 1e-7
    for name in ARKIT_EXPRESSIONS:
        other = name.replace("Left", "*").replace("Right", "Left").replace("*", "Right")
        mirrored = offsets(head, other)[partner] * torch.tensor([-1.0, 1, 1])
        torch.testing.assert_close(offsets(head, name), mirrored, atol=1e-5, rtol=0)


def test_a_smile_is_the_corners(head):
    """Both sides' displacements of the mouth's corners, in mm."""
    corners = head.vertex_sets["inner_lip_upper"][[-1, 0]]  # left, right
    for side, other in (("Left", 1), ("Right", 0)):
        moved = offsets(head, f"mouthSmile{side}")[corners] * 1000
        assert moved[1 - other, 1] > 5 and moved[other].norm() < 0.3
    both = (offsets(head, "mouthSmileLeft") + offsets(head, "mouthSmileRight"))[corners] * 1000
    assert both[0, 0] > 3 and both[1, 0] < -3


def test_both_blinks_meet_the_lower_lids_along_their_length(head):
    vertices = posed(head, eyeBlinkLeft=1.0, eyeBlinkRight=1.0)
    for side in ("left", "right"):
        upper, lower = (vertices[head.vertex_sets[f"{side}_lid_{lid}"]] for lid in ("upper", "lower"))
        assert (upper - lower).norm(dim=-1).max() < 0.0004
        # the upper lid does the way
        rest_upper, rest_lower = (head.template[head.vertex_sets[f"{side}_lid_{lid}"]] for lid in ("upper", "lower"))
        middle = len(upper) // 2
        assert (upper - rest_upper)[middle].norm() > 4 * (lower - rest_lower)[middle].norm()


def test_lips_are_closed_at_rest_and_the_jaw_opens_them(head):
    assert 0 < head.lip_aperture(posed(head)[None]) < 0.001
    assert 0.015 < head.lip_aperture(posed(head, jaw=0.2)[None]) < 0.0225
    upper, lower = (head.template[head.vertex_sets[f"inner_lip_{side}"]] for side in ("upper", "lower"))
    assert (upper[:, 0].diff() > 0).all() and (upper[:, 0] - lower[:, 0]).abs().max() < 1e-6
    assert (upper[:, 1] > lower[:, 1]).all()


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.75, 1.0])
def test_mouth_close_closes_what_the_jaw_opens(head, share):
    rest = head.lip_aperture(head.template[None])
    jaw = JAW_OPEN_RADIANS * share
    opened = head.lip_aperture(posed(head, jaw=jaw)[None])
    closed = posed(head, jaw=jaw, mouthClose=share)
    assert head.lip_aperture(closed[None]) - rest < 0.1 * (opened - rest)
    # along the whole mouth, not in its middle only
    upper, lower = (closed[head.vertex_sets[f"inner_lip_{side}"]] for side in ("upper", "lower"))
    assert (upper - lower).norm(dim=-1).max() < 0.0015 + 0.1 * opened


def test_jaw_carries_lower_teeth_and_tongue_and_leaves_the_rest(head):
    moved = (posed(head, jaw=0.2) - head.template).norm(dim=-1)
    sets = head.vertex_sets
    assert moved[sets["upper_teeth"]].max() == 0
    assert moved[sets["lower_teeth"]].min() > 0.007
    assert moved[place(head, 0, -80)] > 0.012
    assert moved[head.template[:, 1] > 0.015].max() < 1e-4
    corner, middle = sets["inner_lip_lower"][[0, len(sets["inner_lip_lower"]) // 2]]
    assert 0.25 * moved[middle] < moved[corner] < 0.75 * moved[middle]


@pytest.mark.parametrize("side", ["Left", "Right"])
def test_blink_closes_the_lid_over_the_eyeball(head, side):
    lids = [head.vertex_sets[f"{side.lower()}_lid_{lid}"] for lid in ("upper", "lower")]
    centre = head.joint_template[3 if side == "Left" else 4]
    whole = head.vertex_sets["eyelids"]
    near = whole[(head.template[whole] - centre).norm(dim=-1) > (EYE_RADIUS + 1) / 1000]  # not the lids' inside
    gaps = []
    for closed in (0.0, 0.25, 0.5, 0.75, 1.0):
        vertices = posed(head, **{f"eyeBlink{side}": closed})
        assert (vertices[near] - centre).norm(dim=-1).min() > (EYE_RADIUS + 0.1) / 1000
        gaps.append((vertices[lids[0]] - vertices[lids[1]]).norm(dim=-1))
    assert gaps[-1].max() < 0.0004 and gaps[0].max() > 0.009
    assert all((a >= b - 1e-6).all() for a, b in pairwise(gaps))
    # the other eye stays open
    other = head.template[:, 0] * (1 if side == "Left" else -1) < 0
    assert (vertices - head.template)[other].abs().max() == 0


def place(head: HeadModel, x: float, y: float) -> int:
    """The foremost vertex near (x, y) in mm."""
    distance = (head.template[:, :2] * 1000 - torch.tensor([x, y])).norm(dim=-1)
    near = torch.nonzero(distance < distance.min() + 3).flatten()
    return near[head.template[near, 2].argmax()]


# where (x, y in mm, on the left), along which axis, at least how many mm
MEANINGS = [
    ("mouthSmileLeft", (25, -44), (0.3, 1, 0), 5), ("mouthFrownLeft", (25, -44), (0, -1, 0), 4),
    ("mouthStretchLeft", (25, -44), (1, 0, 0), 5), ("mouthDimpleLeft", (25, -44), (0.5, 0, -1), 3),
    ("mouthUpperUpLeft", (9, -42), (0, 1, 0), 3), ("mouthLowerDownLeft", (9, -49), (0, -1, 0), 3),
    ("mouthPressLeft", (9, -49), (0, 0, -1), 1), ("browDownLeft", (20, 40), (0, -1, 0), 3),
    ("browOuterUpLeft", (42, 41), (0, 1, 0), 4), ("cheekSquintLeft", (37, -4), (0, 1, 0), 3),
    ("noseSneerLeft", (11, -12), (0, 1, 0), 3), ("eyeWideLeft", (32, 29), (0, 1, 0), 1),
    ("eyeSquintLeft", (32, 29), (0, -1, 0), 0.5), ("browInnerUp", (12, 42), (0, 1, 0), 4),
    ("cheekPuff", (38, -36), (1, 0, 0.5), 5), ("mouthPucker", (20, -44), (-1, 0, 0), 5),
    ("mouthPucker", (0, -42), (0, 0, 1), 5), ("mouthFunnel", (0, -49), (0, -1, 1), 5),
    ("mouthLeft", (0, -49), (1, 0, 0), 5), ("mouthRight", (0, -49), (-1, 0, 0), 5),
    ("jawForward", (0, -80), (0, 0, 1), 4), ("mouthRollLower", (0, -48), (0, 0, -1), 2),
    ("mouthRollUpper", (0, -43), (0, 0, -1), 2), ("mouthShrugLower", (0, -74), (0, 1, 0), 3),
    ("mouthShrugUpper", (0, -42), (0, 1, 0), 2),
]  # fmt: skip


@pytest.mark.parametrize("name, where, along, least", MEANINGS, ids=[f"{row[0]}-{i}" for i, row in enumerate(MEANINGS)])
def test_expressions_move_what_their_names_say(head, name, where, along, least):
    direction = torch.nn.functional.normalize(torch.tensor(along, dtype=torch.float64), dim=0)
    moved = offsets(head, name) * 1000
    assert moved[place(head, *where)] @ direction > least
    if name.endswith("Left") and name != "mouthLeft":
        assert moved[place(head, -where[0], where[1])].norm() < 0.25 * least
        assert moved[head.template[:, 0] < -0.02].norm(dim=-1).max() < 0.05


def test_every_expression_moves_its_region_only(head):
    upper = head.template[:, 1] > 0.012
    lower = head.template[:, 1] < -0.025
    for name in ARKIT_EXPRESSIONS:
        moved = offsets(head, name).norm(dim=-1)
        assert moved.max() > 0.002, name
        if name.startswith(("mouth", "jaw", "tongue")):
            assert moved[upper].max() < 0.0015, name
        if name.startswith(("brow", "eyeBlink", "eyeWide")):
            assert moved[lower].max() < 0.0005, name
        eyes = torch.cat([head.vertex_sets["left_eye"], head.vertex_sets["right_eye"]])
        assert moved[eyes].max() == 0, name
    tongue = head.vertex_sets["tongue"]
    assert offsets(head, "tongueOut")[tongue, 2].max() > 0.02
    rest = torch.ones(head.num_vertices, dtype=bool)
    rest[tongue] = False
    assert offsets(head, "tongueOut")[rest].abs().max() == 0


def test_expressions_do_not_tear_the_skin(head):
    edges = torch.cat([head.faces[:, [0, 1]], head.faces[:, [1, 2]]])
    edges = edges[(head.template[edges[:, 0]] - head.template[edges[:, 1]]).norm(dim=-1) > 0.0015]
    # the lids unfold, the rest of the skin must not
    lid = torch.isin(edges, head.vertex_sets["eyelids"]).any(-1)
    edges = edges[torch.isin(edges, head.vertex_sets["face"]).all(-1) & ~lid]
    length = (head.template[edges[:, 0]] - head.template[edges[:, 1]]).norm(dim=-1)

    def strain(**motion: float) -> torch.Tensor:
        moved = posed(head, **motion) - head.template
        return (moved[edges[:, 0]] - moved[edges[:, 1]]).norm(dim=-1) / length

    for name in ARKIT_EXPRESSIONS:
        if name != "mouthClose":
            found = strain(**{name: 1.0})
            assert found.max() < 1.0, f"{name}: {found.max():.2f}"
            assert torch.quantile(found, 0.99) < 0.75, name
    # mouthClose goes with an open jaw, which alone stretches the cheeks by more than that
    opened, closed = strain(jaw=JAW_OPEN_RADIANS), strain(jaw=JAW_OPEN_RADIANS, mouthClose=1.0)
    for share in (0.99, 1.0):
        assert torch.quantile(closed, share) < 1.35 * torch.quantile(opened, share)


def test_identity_keeps_the_eyeballs_round_and_the_lips_together(head):
    for k in range(head.num_betas):
        for amount in (-2.0, 2.0):
            betas = torch.zeros(k + 1, dtype=torch.float64)
            betas[k] = amount
            vertices = head(betas)[0]
            change = vertices - head.template
            for eye in ("left_eye", "right_eye"):
                assert change[head.vertex_sets[eye]].std(0).max() < 1e-5
            assert head.lip_aperture(vertices[None]) < 0.001
            assert change.norm(dim=-1).max() > 0.001
