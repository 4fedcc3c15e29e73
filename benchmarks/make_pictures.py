"""Makes the README's pictures out of the embedded model, head and exchanges: docs/images/*.webp.

    python benchmarks/make_pictures.py

answer: the first exchange's, from the last seconds of listening on, without sound; still: it smiles; guidance: a
moment of one and the same answer, after good and after bad news, by guidance scale.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffdyad.export import join_panels
from diffdyad.head import HeadModel
from diffdyad.inputs import Inputs, exchange_folder, read_exchange
from diffdyad.motion import Motion
from diffdyad.pipeline import DyadPipeline
from diffdyad.render import Renderer, render_frames
from diffdyad.sample import load_pipeline

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
LISTENED_S, ANSWERED_S = 1.2, 3.6
STILL_S, MOMENT_S = 0.48, 0.6
SCALES = (0.0, 1.0, 2.0, 4.0)


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    pipeline, head = load_pipeline("default", "cpu"), HeadModel.clay()
    good, bad = (read_exchange(exchange_folder(name)) for name in ("1-good-news", "2-bad-news"))

    motion = exchange(pipeline, good, 2.0)
    frames = pictures(head, motion, motion.values, Renderer.for_head(head, size=(320, 320), yaw_deg=12))
    save("answer", frames, motion.fps)
    smile = answer(pipeline, good, good, 2.0).values[round(STILL_S * motion.fps)][None]
    save("still", pictures(head, motion, smile, Renderer.for_head(head, size=(640, 640), yaw_deg=20)))
    renderer = Renderer.for_head(head, size=(256, 256))
    rows = []
    for turn in (good, bad):
        answers = [answer(pipeline, bad, turn, scale) for scale in SCALES]
        faces = torch.stack([one.values[round(MOMENT_S * one.fps)] for one in answers])
        rows.append(list(pictures(head, motion, faces, renderer)))
    labels = [f"scale {scale:g}" for scale in SCALES]
    save("guidance", [np.concatenate([next(join_panels(iter([tuple(row)]), labels)) for row in rows])])


def exchange(pipeline: DyadPipeline, inputs: Inputs, scale: float) -> Motion:
    """The end of listening, and the beginning of the answer."""
    context = pipeline.encode_context(inputs.previous)
    generator = torch.Generator().manual_seed(0)
    output = pipeline(inputs.audio, context, guidance_scale=scale, start="listen", generator=generator)
    motion, before = output.motions[0], output.listening[0]
    values = torch.cat([before.values[-round(LISTENED_S * motion.fps) :], motion.values])
    return Motion(values[: round((LISTENED_S + ANSWERED_S) * motion.fps)], motion.layout, motion.fps)


def answer(pipeline: DyadPipeline, inputs: Inputs, turn: Inputs, scale: float) -> Motion:
    """What the one says, after what was said in the other, always from the same noise."""
    context = pipeline.encode_context(turn.previous)
    generator = torch.Generator().manual_seed(0)
    return pipeline(inputs.audio, context, guidance_scale=scale, generator=generator).motions[0]


def pictures(head: HeadModel, motion: Motion, values: torch.Tensor, renderer: Renderer) -> Iterable[np.ndarray]:
    return render_frames(renderer, head.from_motion(values, motion.layout).numpy())


def save(name: str, frames: Iterable[np.ndarray], fps: float = 25.0) -> None:
    first, *others = [Image.fromarray(frame) for frame in frames]
    moving = {"save_all": True, "append_images": others, "duration": round(1000 / fps), "loop": 0} if others else {}
    first.save(IMAGES / f"{name}.webp", quality=70 if others else 85, method=6, **moving)


if __name__ == "__main__":
    main()
