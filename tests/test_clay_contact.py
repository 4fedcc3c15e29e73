"""The clay head's parts do not pass through each other: in no expression, open jaw, gaze or frame of a talk."""

from itertools import chain

import numpy as np
import pytest
import torch

from diffdyad.clay.surface import EYE_RADIUS
from diffdyad.config import asset_path
from diffdyad.head import HeadModel
from diffdyad.motion import ARKIT_EXPRESSIONS, JAW_OPEN_RADIANS, MotionLayout, load_motion

LAYOUT = MotionLayout.arkit()
# what means something only with an open jaw
JAW = {"mouthClose": JAW_OPEN_RADIANS, "tongueOut": 0.22}
TOGETHER = {
    "smile": {"mouthSmile": 0.9, "cheekSquint": 0.6, "eyeSquint": 0.4},
    "laughter": {"mouthSmile": 0.8, "cheekSquint": 0.7, "eyeSquint": 0.6, "mouthUpperUp": 0.3, "jaw": 0.2},
    "bilabial": {"mouthPress": 0.4, "mouthRollLower": 0.2, "mouthRollUpper": 0.2, "jaw": 0.06, "mouthClose": 0.15},
    "labiodental": {"mouthRollLower": 0.35, "mouthUpperUp": 0.15, "jaw": 0.05, "mouthClose": 0.05},
    "rounded": {"mouthFunnel": 0.5, "mouthPucker": 0.6, "jaw": 0.1},
    "blink in a smile": {"eyeBlink": 1.0, "mouthSmile": 0.7, "cheekSquint": 0.5},
    "surprise": {"eyeWide": 0.8, "browInnerUp": 0.9, "browOuterUp": 0.7, "jaw": 0.25},
    "sorrow": {"browInnerUp": 0.8, "mouthFrown": 0.7, "mouthShrugLower": 0.4, "eyeBlink": 0.3},
    "anger": {"browDown": 0.9, "noseSneer": 0.6, "mouthPress": 0.5, "eyeSquint": 0.5},
}


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.clay()


def posed(head: HeadModel, jaw: float = 0.0, **coefficients: float) -> np.ndarray:  # (V, 3) mm
    """Coefficients of names without a side go to both sides."""
    motion = torch.zeros(1, LAYOUT.dim)
    motion[0, LAYOUT.slices["jaw_pose"].start] = jaw
    for name, value in coefficients.items():
        for side in ("",) if name in ARKIT_EXPRESSIONS else ("Left", "Right"):
            motion[0, LAYOUT.channel(name + side)] = value
    return head.from_motion(motion, LAYOUT)[0].numpy() * 1000


def spoken(head: HeadModel) -> list[np.ndarray]:
    """Frames of the embedded exchanges with the most in them, without the head's rotation."""
    found = []
    for path in sorted(asset_path("exchanges").glob("*/previous_motion.npz")):
        values = load_motion(path).values.clone()
        for group in ("global_orient", "neck_pose"):
            values[:, LAYOUT.slices[group]] = 0
        strength = values[:, LAYOUT.slices["expression"]].sum(-1) + 3 * values[:, LAYOUT.slices["jaw_pose"].start]
        most = strength.argsort(descending=True)[:60:15]
        found.extend(head.from_motion(values[most], LAYOUT).numpy() * 1000)
    return found


def poses(head: HeadModel):
    """Of mirrored expressions the left ones: test_clay finds both alike."""
    for name in ARKIT_EXPRESSIONS:
        if name == "mouthRight" or not name.endswith("Right"):
            yield name, posed(head, JAW.get(name, 0.0), **{name: 1.0})
    yield "jaw", posed(head, 0.4)
    for name, coefficients in TOGETHER.items():
        yield name, posed(head, **coefficients)
    for k, vertices in enumerate(spoken(head)):
        yield f"spoken {k}", vertices


@pytest.fixture(scope="module")
def all_poses(head) -> dict[str, np.ndarray]:
    return dict(poses(head))


def crossings(points: np.ndarray, faces: np.ndarray, depth: float) -> np.ndarray:
    """Edges (N, 2) that pass through a face which they do not touch, both ends further from it than `depth`."""
    edges = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1), axis=0)
    ends, corners = points[edges], points[faces]
    edge_low, edge_high = ends.min(1), ends.max(1)
    face_low, face_high = corners.min(1), corners.max(1)
    order = np.argsort(edge_low[:, 1])
    pairs = []
    for block in np.array_split(order, max(1, len(order) // 48)):
        near = np.flatnonzero(
            (face_low[:, 1] <= edge_high[block, 1].max()) & (face_high[:, 1] >= edge_low[block, 1].min())
        )
        meet = (face_low[near] <= edge_high[block, None]) & (face_high[near] >= edge_low[block, None])
        e, f = np.nonzero(meet.all(-1))
        pairs.append(np.stack([block[e], near[f]], 1))
    e, f = np.concatenate(pairs).T
    apart = ~(edges[e][:, :, None] == faces[f][:, None, :]).any((1, 2))
    e, f = e[apart], f[apart]
    start, end = ends[e, 0], ends[e, 1]
    a, u, v = corners[f, 0], corners[f, 1] - corners[f, 0], corners[f, 2] - corners[f, 0]
    normal = np.cross(u, v)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    before, after = ((start - a) * normal).sum(1), ((end - a) * normal).sum(1)
    through = (before * after < 0) & (np.minimum(np.abs(before), np.abs(after)) > depth)
    share = before / np.where(before == after, 1, before - after)
    at = start + share[:, None] * (end - start) - a
    uu, vv, uv = (u * u).sum(1), (v * v).sum(1), (u * v).sum(1)
    au, av = (at * u).sum(1), (at * v).sum(1)
    scale = np.maximum(uu * vv - uv * uv, 1e-12)
    s, t = (vv * au - uv * av) / scale, (uu * av - uv * au) / scale
    inside = (s > 0) & (t > 0) & (s + t < 1)
    return edges[e[through & inside]]


def test_crossings_finds_what_it_should():
    square = np.array([[0, 0, 0], [4, 0, 0], [4, 4, 0], [0, 4, 0], [1, 1, 1.0], [1.2, 1, -1], [1, 1.4, 1]])
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6]])
    assert len(crossings(square, faces, 0.1)) == 3  # the square's diagonal passes through the triangle, too
    assert len(crossings(square + np.array([0, 0, 5.0]) * (np.arange(7) > 3)[:, None], faces, 0.1)) == 0
    assert len(crossings(square, faces, 2.0)) == 0


def test_skin_does_not_cross_itself(head, all_poses):
    """Lips that press or roll are pushed into each other by up to 2.5 mm, as nothing squeezes them flat: they alone."""
    front = (head.template[:, 2] > 0.0).numpy() & (head.template[:, 1] > -0.1).numpy()
    skin = np.zeros(head.num_vertices, bool)
    skin[head.vertex_sets["skin"]] = True
    skin[head.vertex_sets["inner_mouth"]] = True
    faces = head.faces.numpy()
    faces = faces[(front & skin)[faces].all(1)]
    inside = head.vertex_sets["inner_mouth"].numpy()
    lips = np.concatenate([head.vertex_sets["lips"].numpy(), inside[: len(inside) // 2]])
    upper, lower = (head.vertex_sets[f"inner_lip_{side}"].numpy() for side in ("upper", "lower"))
    for name, vertices in all_poses.items():
        pressed = (vertices[lower, 1] - vertices[upper, 1]).max()
        assert pressed < (2.5 if "Roll" in name else 1.5), f"{name}: lips {pressed:.1f} mm into each other"
        found = crossings(vertices, faces, 0.3)
        if pressed > 0:
            found = found[~np.isin(found, lips).all(1)]
        assert len(found) == 0, f"{name}: {len(found)} edges, near {vertices[found].mean((0, 1)).round(1)}"


def ahead_of(surface: np.ndarray, points: np.ndarray) -> np.ndarray:  # (F, 3, 3), (N, 3) -> (N,)
    """How far points lie in front (+z) of triangles, seen from the front; infinite beside them."""
    a, b, c = (surface[:, k, None, :2] for k in range(3))
    p = points[None, :, :2]

    def area(u, v):
        return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]

    whole = area(b - a, c - a)
    whole = np.where(np.abs(whole) < 1e-9, np.inf, whole)
    shares = [area(c - b, p - b) / whole, area(a - c, p - c) / whole, area(b - a, p - a) / whole]
    hit = np.min(shares, 0) >= 0
    depth = sum(share * surface[:, k, None, 2] for k, share in enumerate(shares))
    return points[:, 2] - np.where(hit & (np.isfinite(depth)), depth, -np.inf).max(0)


def test_lips_stay_in_front_of_the_teeth(head, all_poses):
    lips = np.unique(np.concatenate([head.vertex_sets["lips"], head.vertex_sets["inner_mouth"][: 2 * 72]]))
    faces = head.faces.numpy()
    for teeth in ("upper_teeth", "lower_teeth"):
        crowns = faces[np.isin(faces, head.vertex_sets[teeth]).all(1)]
        for name, vertices in all_poses.items():
            near = vertices[lips][np.abs(vertices[lips, 0]) < 18]
            assert ahead_of(vertices[crowns], near).min() > -0.2, f"{name}, {teeth}"


def test_teeth_do_not_cross_each_other(head, all_poses):
    for name, vertices in all_poses.items():
        upper, lower = (vertices[head.vertex_sets[f"{side}_teeth"]] for side in ("upper", "lower"))
        front = [teeth[np.abs(teeth[:, 0]) < 12] for teeth in (upper, lower)]
        overlap = front[1][:, 1].max() - front[0][:, 1].min()
        behind = front[0][:, 2].max() - front[1][:, 2].max()
        assert overlap < 0.5 or behind > 1.0, name


def test_lids_stay_outside_the_eyeballs(head, all_poses):
    lids = head.vertex_sets["eyelids"].numpy()
    centres = head.joint_template[3:].numpy() * 1000
    rest = head.template.numpy() * 1000
    for centre in centres:
        own = lids[np.sign(rest[lids, 0]) == np.sign(centre[0])]
        outer = own[np.linalg.norm(rest[own] - centre, axis=1) > EYE_RADIUS + 0.9]
        for name, vertices in chain(all_poses.items(), [("at rest", rest)]):
            assert np.linalg.norm(vertices[outer] - centre, axis=1).min() > EYE_RADIUS + 0.05, name


@pytest.mark.parametrize("pitch, yaw", [(0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5), (0.35, 0.35)])
def test_eyes_turn_within_the_lids(head, pitch, yaw):
    motion = torch.zeros(1, LAYOUT.dim)
    for side in ("leye_pose", "reye_pose"):
        start = LAYOUT.slices[side].start
        motion[0, start : start + 2] = torch.tensor([pitch, yaw])
    vertices = head.from_motion(motion, LAYOUT)[0]
    for joint, side in ((3, "left"), (4, "right")):
        ball = vertices[head.vertex_sets[f"{side}_eye"]] - head.joint_template[joint]
        assert (ball.norm(dim=-1) * 1000 - EYE_RADIUS).abs().max() < 0.01
        # white all round the iris: the ball reaches behind the lids wherever it looks
        covered = ball[:, 2].min() * 1000
        assert covered < EYE_RADIUS * np.cos(np.radians(62))
    moved = vertices - head.template
    # the lids go up and down with the look, and stay outside the ball; nothing else moves
    middle = len(head.vertex_sets["left_lid_upper"]) // 2
    for side in ("left", "right"):
        upper, lower = (moved[head.vertex_sets[f"{side}_lid_{lid}"]][middle, 1] for lid in ("upper", "lower"))
        assert 0.3 * EYE_RADIUS < -1000 * upper / np.sin(pitch) < 0.7 * EYE_RADIUS if pitch else upper == 0
        assert lower.abs() <= upper.abs()
    still = torch.ones(head.num_vertices, dtype=bool)
    for name in ("left_eye", "right_eye", "eyelids", "lashes"):
        still[head.vertex_sets[name]] = False
    assert moved[still].norm(dim=-1).max() < 5e-4


@pytest.mark.parametrize("pitch", [-0.35, 0.35])
@pytest.mark.parametrize("blink", [0.0, 0.5, 1.0])
def test_a_blink_closes_wherever_the_eye_looks(head, pitch, blink):
    motion = torch.zeros(1, LAYOUT.dim)
    for side, pose in (("Left", "leye_pose"), ("Right", "reye_pose")):
        motion[0, LAYOUT.slices[pose].start] = pitch
        motion[0, LAYOUT.channel(f"eyeBlink{side}")] = blink
    vertices = head.from_motion(motion, LAYOUT)[0]
    for joint, side in ((3, "left"), (4, "right")):
        upper, lower = (vertices[head.vertex_sets[f"{side}_lid_{lid}"]] for lid in ("upper", "lower"))
        if blink == 1:
            assert (upper - lower)[:, 1].max() < 0.0009
        for edge in (upper, lower):
            assert (edge - head.joint_template[joint]).norm(dim=-1).min() * 1000 > EYE_RADIUS + 0.05


def test_the_tongue_comes_out_between_teeth_and_over_the_lip(head):
    vertices = posed(head, JAW["tongueOut"], tongueOut=1.0)
    tongue = vertices[head.vertex_sets["tongue"]]
    tip = tongue[tongue[:, 2].argmax()]
    upper, lower = (vertices[head.vertex_sets[f"inner_lip_{side}"]] for side in ("upper", "lower"))
    middle = np.abs(upper[:, 0]) < 8
    assert tip[2] > lower[middle, 2].max() + 5
    at_lips = tongue[(np.abs(tongue[:, 2] - lower[middle, 2].mean()) < 6) & (np.abs(tongue[:, 0]) < 8)]
    assert lower[middle, 1].max() - 1.0 < at_lips[:, 1].min() and at_lips[:, 1].max() < upper[middle, 1].min() + 0.5
