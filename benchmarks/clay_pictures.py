"""Pictures of the clay head: three stills, a sheet of its 41 expressions, a turntable. No model is needed.

    python benchmarks/clay_pictures.py --out outputs/clay [--only stills|sheet|turntable]
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from diffdyad.head import HeadModel
from diffdyad.motion import ARKIT_EXPRESSIONS, JAW_OPEN_RADIANS, MotionLayout
from diffdyad.render import Camera, Renderer

VIEWS = {"front": 0.0, "three-quarter": 38.0, "profile": 90.0}
# these two mean something with an open jaw only
JAW = {"mouthClose": JAW_OPEN_RADIANS, "tongueOut": 0.22}
LAYOUT = MotionLayout.arkit()


def pose(head: HeadModel, jaw: float = 0.0, eyes: tuple[float, float] = (0.0, 0.0), **expression: float) -> np.ndarray:
    """Vertices (V, 3) with expressions by name, the jaw's and both eyes' (pitch, yaw) rotations in radians."""
    motion = torch.zeros(1, LAYOUT.dim)
    motion[0, LAYOUT.slices["jaw_pose"].start] = jaw
    for side in ("leye_pose", "reye_pose"):
        motion[0, LAYOUT.slices[side].start : LAYOUT.slices[side].start + 2] = torch.tensor(eyes)
    for name, value in expression.items():
        motion[0, LAYOUT.channel(name)] = value
    with torch.no_grad():
        return head.from_motion(motion, LAYOUT)[0].numpy()


def orbited(camera: Camera, yaw_deg: float) -> Camera:
    """The camera, walked round its target by an angle at the same distance."""
    angle = math.radians(yaw_deg)
    x, y, z = np.subtract(camera.eye, camera.target)
    turned = (math.cos(angle) * x + math.sin(angle) * z, y, math.cos(angle) * z - math.sin(angle) * x)
    return replace(camera, eye=tuple(map(float, np.add(camera.target, turned))))


def stills(head: HeadModel, out: Path, size: int) -> None:
    for name, yaw in VIEWS.items():
        Image.fromarray(Renderer.for_head(head, (size, size), yaw_deg=yaw).render(pose(head))).save(out / f"{name}.png")


def sheet(head: HeadModel, out: Path, size: int, columns: int = 7) -> None:
    """Every expression at 1, by its name, after the head at rest."""
    whole = Renderer.for_head(head, (size, size), yaw_deg=14.0).camera
    face = replace(whole, target=(-0.012, -0.016, whole.target[2]), height=0.7 * whole.height)
    renderer = Renderer.for_head(head, (size, size), camera=face)
    cells = {"at rest": pose(head)}
    for name in ARKIT_EXPRESSIONS:
        label = f"{name}, jaw {JAW[name]:g} rad" if name in JAW else name
        cells[label] = pose(head, JAW.get(name, 0.0), **{name: 1.0})
    font = ImageFont.load_default(max(10, size // 18))
    page = Image.new("RGB", (columns * size, math.ceil(len(cells) / columns) * size))
    draw = ImageDraw.Draw(page)
    for k, (label, vertices) in enumerate(cells.items()):
        left, top = k % columns * size, k // columns * size
        page.paste(Image.fromarray(renderer.render(vertices)), (left, top))
        place = (left + size // 24, top + size - size // 11)
        draw.text(place, label, fill=(225, 228, 232), font=font, stroke_width=2, stroke_fill=(24, 26, 30))
    page.save(out / "expressions.png")


def turntable(head: HeadModel, out: Path, size: int, frames: int = 48) -> None:
    template = head.template.numpy()
    front = Renderer.for_head(head, (size, size)).camera
    pictures = [
        Image.fromarray(Renderer.for_head(head, (size, size), camera=orbited(front, yaw)).render(template))
        for yaw in np.arange(frames) * 360 / frames
    ]
    pictures[0].save(
        out / "turntable.webp", save_all=True, append_images=pictures[1:], duration=80, loop=0, quality=75, method=6
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/clay"), help="folder to write (default %(default)s)")
    parser.add_argument("--size", type=int, default=768, help="pixels of a still's side (default %(default)s)")
    parser.add_argument("--only", choices=("stills", "sheet", "turntable"), help="one of the three (default: all)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    head = HeadModel.clay()
    makers = {"stills": (stills, 1), "sheet": (sheet, 3), "turntable": (turntable, 2)}
    for name, (make, shrink) in makers.items():
        if arguments.only in (None, name):
            make(head, arguments.out, arguments.size // shrink)


if __name__ == "__main__":
    main()
