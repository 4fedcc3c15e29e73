"""The true FLAME template with stand-in expressions, and the judgement of what is retargeted to it.

`PYTHONPATH=. python tests/retarget_judge.py` prints the figures of docs/retargeting.md.
"""

import pickle
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from conftest import SHARED_DATA

from diffdyad import flame
from diffdyad.head import HeadModel
from diffdyad.motion import ARKIT_EXPRESSIONS, Motion, MotionLayout
from diffdyad.retarget import Retarget
from diffdyad.retarget.landmarks import Surface, SurfacePoints, face_curves, find_landmarks

TRUE_FLAME = SHARED_DATA / "flame2023_open_partial" / "flame2023_open_partial.npz"
ARKIT = MotionLayout.arkit()
JAW_X = ARKIT.slices["jaw_pose"].start
REGIONS = ("lips", "brows", "eyelids", "cheeks")


def arkit_motion(*frames: dict[str, float]) -> Motion:
    """One frame per dictionary of expressions by name; `jaw` is jaw_pose x in radians."""
    values = torch.zeros(len(frames), ARKIT.dim)
    for row, frame in zip(values, frames, strict=True):
        for name, value in frame.items():
            row[JAW_X if name == "jaw" else ARKIT.channel(name)] = value
    return Motion(values, ARKIT, 25.0)


def vertices(head: HeadModel, motion: Motion) -> np.ndarray:  # (T, V, 3)
    with torch.no_grad():
        return head.from_motion(motion.values, motion.layout).double().numpy()


def smooth_fields(head: HeadModel, length_m: float = 0.03, count: int = 100, seed: int = 0) -> np.ndarray:
    """A stand-in for FLAME's expression directions: random smooth fields over its face, (V, 3, count), in metres.

    White noise, spread over the mesh by its heat equation until a point has become a bell of standard deviation
    `length_m` along the surface: so lips and lids, which touch across a gap, move on their own, as in a face.
    Root mean square 1 mm a coefficient; fades out towards ears, crown and neck. Knows nothing of the clay head.
    """
    points, faces = head.template.double().numpy(), head.faces.numpy()
    eyes = head.joint_template[3:].double().numpy().mean(0)
    away = np.linalg.norm((points - eyes - (0, -0.035, 0.005)) / (0.075, 0.085, 0.07), axis=1)
    fade = np.clip((1.45 - away) / 0.45, 0, 1) ** 2
    fade[flame.LEFT_EYE.start :] = 0  # eyeballs turn, and nothing else
    members = np.flatnonzero(fade)
    place = np.full(len(points), -1)
    place[members] = np.arange(len(members))
    faces, points = place[faces[np.isin(faces, members).all(1)]], points[members]
    laplacian, mass = np.zeros((len(members), len(members))), np.zeros(len(members))
    for k in range(3):  # cotangent weights
        a, b, c = (faces[:, (k + i) % 3] for i in range(3))
        u, v = points[a] - points[c], points[b] - points[c]
        area = np.linalg.norm(np.cross(u, v), axis=1)
        weight = np.clip((u * v).sum(1) / area, 0.05, 20) / 2
        for row, column, sign in ((a, b, -1), (b, a, -1), (a, a, 1), (b, b, 1)):
            np.add.at(laplacian, (row, column), sign * weight)
        np.add.at(mass, c, area / 6)
    noise = np.random.default_rng(seed).standard_normal((len(members), 3 * count)) / np.sqrt(mass)[:, None]
    # exp(-t L) with t = length^2 / 2, as two implicit steps
    step = np.diag(mass) + length_m**2 / 4 * laplacian
    for _ in range(2):
        noise = np.linalg.solve(step, mass[:, None] * noise)
    fields = noise.reshape(len(members), 3, count)
    fields *= 1e-3 / np.sqrt((fields**2).sum(1).mean(0))
    result = np.zeros((len(fade), 3, count))
    result[members] = fields * fade[members, None, None]
    return result


def flame_file(folder, length_m: float = 0.03, count: int = 100, seed: int = 0):
    """A .pkl as users have them: the true template with 300 identity directions and stand-in expressions."""
    bare = HeadModel.from_file(TRUE_FLAME)
    with np.load(TRUE_FLAME) as archive:
        content = {key: archive[key] for key in archive.files}
    identity = np.zeros((flame.VERTICES, 3, {100: 300, 50: 100}[count]))
    identity[..., :60] = content.pop("shapedirs_identity60")
    fields = smooth_fields(bare, length_m, count, seed)
    content["shapedirs"] = np.concatenate([identity, fields], -1).astype(np.float32)
    content["f"], content["kintree_table"] = content.pop("faces"), np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]])
    path = folder / "flame2023_Open.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


@dataclass
class Judgement:
    """Errors in mm at H vertices which the fit did not use, and how far the clay head moves there: (H, 41) each."""

    error: np.ndarray
    reach: np.ndarray
    region: np.ndarray  # (H,) lips, brows, eyelids, cheeks
    vertices: np.ndarray  # (H,) FLAME's


def normals(head: HeadModel) -> np.ndarray:
    points, faces = head.template.double().numpy(), head.faces.numpy()
    a, b, c = (points[faces[:, k]] for k in range(3))
    result = np.zeros_like(points)
    for k in range(3):
        np.add.at(result, faces[:, k], np.cross(b - a, c - a))
    return result / np.linalg.norm(result, axis=1, keepdims=True).clip(1e-12)


def counterparts(clay: HeadModel, head: HeadModel, warped: bool) -> tuple[np.ndarray, np.ndarray, SurfacePoints]:
    """FLAME's face vertices that are no landmarks, the region of each, and the clay face's point that each belongs to.

    warped: the point nearest to the vertex after the landmarks' thin-plate warp; otherwise the point nearest to the
    vertex as it is (both heads stand alike), which knows nothing of the landmarks. Left out: vertices that face
    elsewhere than their counterpart or lie far off it (the lids' and the lips' insides), and pairs across the lips.
    """
    landmarks = find_landmarks(clay, head)
    there, here = clay.template.double().numpy(), head.template.double().numpy()
    sets = {name: head.vertex_sets[name].numpy() for name in REGIONS}
    free = {name: members[~np.isin(members, landmarks.target)] for name, members in sets.items()}
    vertices, region = np.concatenate(list(free.values())), np.repeat(list(free), [len(v) for v in free.values()])
    sought = landmarks.warp(here[vertices]) if warped else here[vertices]
    found = Surface.face_of(clay).closest(sought)
    at = found.of(there)
    facing = (normals(head)[vertices] * found.of(normals(clay))).sum(1) > 0.6
    near = np.linalg.norm(at - sought, axis=1) < (0.004 if warped else 0.012)

    def above_slit(model: HeadModel, points: np.ndarray) -> np.ndarray:
        curves, template = face_curves(model), model.template.double().numpy()
        edges = (template[curves[f"inner_lip_{lip}"]] for lip in ("upper", "lower"))
        return points[:, 1] > sum(np.interp(points[:, 0], edge[:, 0], edge[:, 1]) for edge in edges) / 2

    same = (above_slit(clay, at) == above_slit(head, here[vertices])) | (region != "lips")
    kept = facing & near & same
    return vertices[kept], region[kept], SurfacePoints(found.vertices[kept], found.weights[kept])


def judge(clay: HeadModel, head: HeadModel, retarget: Retarget, warped: bool = True) -> Judgement:
    """Each expression at 1; mouthClose with the jaw at 0.4, for which it is made.

    mouthClose: lips are compared with their place at rest. Elsewhere its own effect counts, not the jaw's, which FLAME
    carries further into the cheeks.
    """
    chosen, region, points = counterparts(clay, head, warped)
    # the faces' sizes by the eyes and the mouth, rather than by the fit's own measure
    sizes = []
    for model in (head, clay):
        eyes = model.joint_template[3:].double().numpy()
        mouth = model.template.double().numpy()[model.vertex_sets["inner_lip_upper"].numpy()].mean(0)
        sizes.append(np.linalg.norm(eyes[0] - eyes[1]) + np.linalg.norm(eyes.mean(0) - mouth))
    scale = sizes[0] / sizes[1]
    frames = [{name: 1.0} | ({"jaw": 0.4} if name == "mouthClose" else {}) for name in ARKIT_EXPRESSIONS]
    motion = arkit_motion(*frames, {"jaw": 0.4}, {})
    there = scale * points.of(np.moveaxis(vertices(clay, motion), 0, -1))
    here = np.moveaxis(vertices(head, retarget(motion))[:, chosen], 0, -1)
    there, here = there - there[..., -1:], here - here[..., -1:]
    close = ARKIT_EXPRESSIONS.index("mouthClose")
    for moved in (there, here):
        moved[region != "lips", :, close] -= moved[region != "lips", :, -2]
    error = np.linalg.norm((here - there)[..., :41], axis=1)
    return Judgement(1000 * error, 1000 * np.linalg.norm(there[..., :41], axis=1), region, chosen)


def print_table() -> None:
    clay = HeadModel.clay()
    with tempfile.TemporaryDirectory() as folder:
        for length_m, seed in ((0.02, 0), (0.025, 0), (0.03, 0), (0.03, 1), (0.03, 2), (0.04, 0), (0.05, 0)):
            head = HeadModel.from_file(flame_file(Path(folder), length_m, seed=seed))
            retarget = Retarget.fit(clay, head)
            found = judge(clay, head, retarget)
            by_region = {name: found.error[found.region == name] for name in REGIONS}
            within = (found.error <= 3).mean()
            print(f"\n{1000 * length_m:g} mm, seed {seed}: {100 * within:.2f} % within 3 mm; mean " + ", ".join(
                f"{name} {error.mean():.2f}" for name, error in by_region.items()))
            if (length_m, seed) != (0.03, 0):
                continue
            print("held out:", {name: len(error) for name, error in by_region.items()})
            plain = judge(clay, head, retarget, warped=False)
            print("without landmarks:", {name: (round(plain.error[plain.region == name].mean(), 2), round(float(
                (plain.error[plain.region == name] <= 3).mean()), 4)) for name in REGIONS})
            print("| expression | clay moves | " + " | ".join(REGIONS) + " |\n|---|---|---|---|---|---|")
            for k, name in enumerate(ARKIT_EXPRESSIONS):
                cells = (f"{e[:, k].mean():.1f} / {np.percentile(e[:, k], 95):.1f} / {e[:, k].max():.1f}"
                         for e in by_region.values())  # fmt: skip
                print(f"| {name} | {found.reach[:, k].max():.0f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    print_table()
