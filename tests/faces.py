"""Landmarks made from heads whose motion is known, projected by a pinhole camera of the tests' own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffdyad.head import HeadModel
from diffdyad.motion import MotionLayout
from diffdyad.retarget.landmarks import SurfacePoints, face_curves
from diffdyad.rotation import axis_angle_to_matrix, compose

SIZE = (640, 480)
FACE_PX = 300  # height of the face in the picture


@dataclass
class Scene:
    """points: L of the head; landmarks: (T, L, 2 or 3) pixels; what was planted: betas, expression (T, E) and poses
    (T, 15)."""

    points: SurfacePoints
    landmarks: np.ndarray
    betas: Tensor
    expression: Tensor
    poses: Tensor
    focal_px: float


def waves(count: int, width: int, generator: torch.Generator, hz: float) -> Tensor:
    """(T, width) smooth curves of variance about 1/2, 25 a second."""
    times = torch.arange(count)[:, None] / 25
    total = torch.zeros(count, width)
    for _ in range(5):
        rate = hz * torch.rand(width, generator=generator) + 0.05
        phase = 2 * math.pi * torch.rand(width, generator=generator)
        total += torch.sin(2 * math.pi * rate * times + phase) / math.sqrt(5)
    return total


def points_of(head: HeadModel) -> SurfacePoints:
    """Edges of lids and lips, brows, 150 points of the face, and the pupils' surroundings."""
    generator = torch.Generator().manual_seed(1)
    face = head.vertex_sets["face"]
    found = [int(vertex) for curve in face_curves(head).values() for vertex in curve]
    found += face[torch.randperm(len(face), generator=generator)[:150]].tolist()
    for side in ("left", "right"):
        eye = head.vertex_sets[f"{side}_eye"]
        found += eye[head.template[eye, 2].topk(5).indices].tolist()
    vertices = np.repeat(np.array(found)[:, None], 3, 1)
    return SurfacePoints(vertices, np.tile([1.0, 0.0, 0.0], (len(found), 1)))


def scene(
    head: HeadModel, seconds: float, fov_deg: float = 50.0, noise_px: float = 1.0, seed: int = 0, mesh: bool = False
) -> Scene:
    """Somebody who talks, looks and turns by up to about 25 degrees before a camera of that vertical angle.

    mesh: MediaPipe's 478 landmarks, with their depth."""
    generator, count = torch.Generator().manual_seed(seed), round(25 * seconds)
    betas = torch.randn(head.num_betas, generator=generator)
    betas[10:] *= 0.3
    wave = waves(count, 9, generator, 0.8)
    poses = torch.zeros(count, 15)
    poses[:, :3] = wave[:, :3] * torch.tensor([0.12, 0.2, 0.08])
    poses[:, 6] = (0.12 + 0.12 * wave[:, 3]).clamp(0, 0.4)
    poses[:, 7] = 0.01 * wave[:, 8]
    poses[:, 9:11] = poses[:, 12:14] = wave[:, 4:6] * torch.tensor([0.08, 0.15])
    expression = torch.zeros(count, head.num_expression)
    if head.basis == "arkit":
        some = torch.rand(head.num_expression, generator=generator) < 0.35
        expression = (0.5 * some * waves(count, head.num_expression, generator, 1.0)).clamp(0, 1)
        for name in ("tongueOut", "mouthClose"):  # the one is not seen in landmarks, the other is for an open jaw
            expression[:, MotionLayout.arkit().channel(name)] = 0
    sway = 0.02 * waves(count, 3, generator, 0.3)
    points = mesh_points(head) if mesh else points_of(head)
    with torch.no_grad():
        vertices = head(betas, expression if head.num_expression else None, poses)
    corners = vertices[:, torch.from_numpy(points.vertices)]  # (T, L, 3, 3)
    placed = torch.einsum("lk,tlkc->tlc", torch.from_numpy(points.weights).float(), corners) + sway[:, None]
    face = head.template[head.vertex_sets["face"]]
    focal = SIZE[1] / 2 / math.tan(math.radians(fov_deg) / 2)
    distance = focal * float(face[:, 1].max() - face[:, 1].min()) / FACE_PX
    x, y, z = (placed - face.mean(0)).unbind(-1)
    pixels = torch.stack([SIZE[0] / 2 + focal * x / (distance - z), SIZE[1] / 2 - focal * y / (distance - z)], -1)
    if mesh:
        pixels = torch.cat([pixels, -focal * z[..., None] / distance], -1)
    pixels += noise_px * torch.randn(pixels.shape, generator=generator)
    return Scene(points, pixels.numpy(), betas, expression, poses, focal)


def angle_deg(a: Tensor, b: Tensor) -> Tensor:
    """Between rotations (T, 3), by the chord."""
    chord = (axis_angle_to_matrix(a) - axis_angle_to_matrix(b)).flatten(1).norm(dim=1) / 8**0.5
    return torch.rad2deg(2 * chord.clamp(max=1).asin())


def head_of(poses: Tensor) -> Tensor:
    return compose(poses[:, :3], poses[:, 3:6])


def mesh_points(head: HeadModel) -> SurfacePoints:
    """478 points of a head where MediaPipe's landmarks could lie: on its curves at equal steps, its face, pupils."""
    from diffdyad.retarget.landmarks import Surface, midline, on_curve
    from diffdyad.tracking import mediapipe

    surface, curves = Surface.face_of(head), face_curves(head)
    generator = torch.Generator().manual_seed(2)
    face = head.vertex_sets["face"]
    vertices = face[torch.randint(len(face), (478,), generator=generator)].numpy()[:, None].repeat(3, 1)
    weights = np.tile([1.0, 0.0, 0.0], (478, 1))
    chains = {**mediapipe._CURVES, **{name: edges[0] for name, edges in mediapipe._BROWS.items()}}
    chains |= {f"{name} ": edges[1] for name, edges in mediapipe._BROWS.items()}
    for name, chain in chains.items():
        found = on_curve(surface.points, curves[name.strip()], np.linspace(0, 1, len(chain)))
        vertices[list(chain)], weights[list(chain)] = found.vertices, found.weights
    found = surface.closest(midline(surface, curves)[list(mediapipe._MIDLINE_AT)])
    vertices[list(mediapipe._MIDLINE)], weights[list(mediapipe._MIDLINE)] = found.vertices, found.weights
    for name, index in mediapipe._PUPILS.items():
        vertices[index : index + 5] = mediapipe._pupil(head, name)
        weights[index : index + 5] = (1.0, 0.0, 0.0)
    return SurfacePoints(vertices, weights)


FAKE_WORKER = """#!{python}
# speaks as diffdyad.tracking.mediapipe_worker does; landmarks come from a file, a frame at a time
import json, os, struct, sys
frames, answers = sys.stdin.buffer, sys.stdout.buffer
request = json.loads(frames.readline())
answers.write(json.dumps({{"version": "planted", "landmarks": 478}}).encode() + b"\\n")
answers.flush()
size, number, planted = request["width"] * request["height"] * 3, 0, open({planted!r}, "rb").read()
face = 478 * 3 * 4
while len(frames.read(size)) == size:
    data = planted[number * face : (number + 1) * face]
    answers.write(struct.pack("B", 1) + data if len(data) == face else struct.pack("B", 0))
    answers.flush()
    number += 1
"""


def fake_mediapipe(folder, planted: np.ndarray) -> str:
    """An `interpreter` that finds planted landmarks (T, 478, 3) in any video, frame by frame, and then no face."""
    import sys

    (folder / "planted.bin").write_bytes(planted.astype("<f4").tobytes())
    program = folder / "fake-python"
    program.write_text(FAKE_WORKER.format(python=sys.executable, planted=str(folder / "planted.bin")))
    program.chmod(0o755)
    return str(program)
