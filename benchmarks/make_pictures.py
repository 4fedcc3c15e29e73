"""Makes the README's pictures out of the embedded model, head and exchanges: docs/images/answer.webp and sweep.jpg.

    python benchmarks/make_pictures.py

The first exchange's answer, from the last seconds of listening on, without sound; and moments of answers to two
exchanges, from the same noise, at several guidance scales.
"""

from pathlib import Path

import torch
from PIL import Image, ImageDraw

from diffdyad.head import HeadModel
from diffdyad.inputs import exchange_folder, read_exchange
from diffdyad.pipeline import DyadPipeline
from diffdyad.render import Renderer, render_frames
from diffdyad.sample import load_pipeline

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
LISTENED_S, ANSWERED_S = 1.2, 3.6
SCALES = (0.0, 1.0, 2.0, 4.0)
SWEPT = {"1-good-news": "good news", "2-bad-news": "bad news"}
MOMENT_S = 0.2  # of the answer: reactions fade from its first word on


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    pipeline, head = load_pipeline("default", "cpu"), HeadModel.clay()
    animate(pipeline, head)
    sweep(pipeline, head)


def animate(pipeline: DyadPipeline, head: HeadModel) -> None:
    inputs = read_exchange(exchange_folder(None))
    context = pipeline.encode_context(inputs.previous)
    answer = pipeline(
        inputs.audio, context, guidance_scale=2.0, start="listen", generator=torch.Generator().manual_seed(0)
    )
    motion, before = answer.motions[0], answer.listening[0]
    values = torch.cat([before.values[-round(LISTENED_S * motion.fps) :], motion.values])
    values = values[: round((LISTENED_S + ANSWERED_S) * motion.fps)]
    renderer = Renderer.for_head(head, size=(320, 320), yaw_deg=12)
    frames = [Image.fromarray(f) for f in render_frames(renderer, head.from_motion(values, motion.layout).numpy())]
    frames[0].save(
        IMAGES / "answer.webp", save_all=True, append_images=frames[1:], duration=round(1000 / motion.fps), loop=0,
        quality=70, method=6,
    )


def sweep(pipeline: DyadPipeline, head: HeadModel) -> None:
    """A row of faces per exchange, a column per guidance scale."""
    size, margin = 240, 22
    picture = Image.new("RGB", (len(SCALES) * size, len(SWEPT) * (size + margin)), "white")
    draw, renderer = ImageDraw.Draw(picture), Renderer.for_head(head, size=(size, size), yaw_deg=12)
    for row, (name, title) in enumerate(SWEPT.items()):
        inputs = read_exchange(exchange_folder(name))
        context = pipeline.encode_context(inputs.previous)
        moments = []
        for scale in SCALES:
            generator = torch.Generator().manual_seed(0)
            motion = pipeline(inputs.audio, context, guidance_scale=scale, generator=generator).motions[0]
            moments.append(motion.values[round(MOMENT_S * motion.fps)])
        faces = render_frames(renderer, head.from_motion(torch.stack(moments), motion.layout).numpy())
        for column, (scale, face) in enumerate(zip(SCALES, faces, strict=True)):
            corner = (column * size, row * (size + margin) + margin)
            picture.paste(Image.fromarray(face), corner)
            draw.text((corner[0] + 8, corner[1] - margin + 4), f"after {title}, --guidance-scale {scale:g}", "black")
    picture.save(IMAGES / "sweep.jpg", quality=88)


if __name__ == "__main__":
    main()
