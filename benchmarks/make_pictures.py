"""Makes the README's pictures out of the embedded model, head and exchanges, into docs/images/.

    python benchmarks/make_pictures.py

answer.webp: the first exchange's answer, from the last seconds of listening on; sweep.png: one moment of it at several
guidance scales; sweep_plot.png: what changes with the scale.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffdyad.export import save_png
from diffdyad.film import plot
from diffdyad.head import HeadModel
from diffdyad.inputs import exchange_folder, read_exchange
from diffdyad.render import Renderer, render_frames
from diffdyad.sample import load_pipeline

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SCALES = (0.0, 1.0, 2.0, 4.0)
LISTENED_S, ANSWERED_S = 1.2, 3.6


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    pipeline, head = load_pipeline("default", "cpu"), HeadModel.clay()
    inputs = read_exchange(exchange_folder(None))
    context = pipeline.encode_context(inputs.previous)

    def answer(scale: float, start: str):
        return pipeline(
            inputs.audio, context, guidance_scale=scale, start=start, generator=torch.Generator().manual_seed(0)
        )

    listened = answer(2.0, "listen")
    motion, before = listened.motions[0], listened.listening[0]
    values = torch.cat([before.values[-round(LISTENED_S * motion.fps) :], motion.values])
    values = values[: round((LISTENED_S + ANSWERED_S) * motion.fps)]
    renderer = Renderer.for_head(head, size=(320, 320), yaw_deg=12)
    frames = [Image.fromarray(f) for f in render_frames(renderer, head.from_motion(values, motion.layout).numpy())]
    frames[0].save(
        IMAGES / "answer.webp", save_all=True, append_images=frames[1:], duration=round(1000 / motion.fps), loop=0,
        quality=70, method=6,
    )

    sweep = [answer(scale, "none").motions for scale in SCALES]
    with_least, with_most = sweep[0][0].select("expression"), sweep[-1][0].select("expression")
    moment = int((with_most - with_least).abs().sum(-1)[: round(ANSWERED_S * motion.fps)].argmax())
    renderer = Renderer.for_head(head, size=(320, 320))
    stills = [head.from_motion(m[0].values[moment : moment + 1], m[0].layout)[0].numpy() for m in sweep]
    panels = [renderer.render(still) for still in stills]
    save_png(IMAGES / "sweep.png", np.concatenate(panels, 1))
    plot(IMAGES / "sweep_plot.png", sweep, SCALES, head)


if __name__ == "__main__":
    main()
