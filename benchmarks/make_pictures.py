"""Makes the README's picture out of the embedded model, head and exchanges: docs/images/answer.webp.

    python benchmarks/make_pictures.py

The first exchange's answer, from the last seconds of listening on, without sound.
"""

from pathlib import Path

import torch
from PIL import Image

from diffdyad.head import HeadModel
from diffdyad.inputs import exchange_folder, read_exchange
from diffdyad.render import Renderer, render_frames
from diffdyad.sample import load_pipeline

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
LISTENED_S, ANSWERED_S = 1.2, 3.6


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    pipeline, head = load_pipeline("default", "cpu"), HeadModel.clay()
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


if __name__ == "__main__":
    main()
