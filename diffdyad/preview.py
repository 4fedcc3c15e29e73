"""A look at a model in training: a short answer to an exchange it has not seen, as a picture or as motion."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import torch

from diffdyad.data.exchange import Exchange
from diffdyad.data.intake import Shard
from diffdyad.data.sides import previous_turn
from diffdyad.errors import UserError
from diffdyad.export import contact_sheet, save_png
from diffdyad.head import HeadModel
from diffdyad.media import SAMPLING_RATE
from diffdyad.motion import save_motion
from diffdyad.pipeline import DyadPipeline
from diffdyad.render import Renderer, render_frames

SECONDS = 2.0
_SIZE, _EVERY = 192, 5
_LOOKED_AT = 16  # exchanges, until one with a voice is found


def preview(folder: Path, step: int, pipeline: DyadPipeline, exchange: Exchange) -> list[Path]:
    """Answers the first seconds of an exchange and writes `step-N.npz`; with a clay head, `step-N.png` too.

    The noise is the same at every step, so that what changes is the model.
    """
    first = round(-exchange.start_s * SAMPLING_RATE)
    audio = torch.from_numpy(exchange.responder.waveform)[first : first + round(SECONDS * SAMPLING_RATE)]
    if not len(audio):
        audio = torch.zeros(round(SECONDS * SAMPLING_RATE))
    turn = pipeline.context_encoder.taken(previous_turn(exchange, pipeline.layout))
    output = pipeline(audio, None if turn.is_empty else turn, generator=torch.Generator().manual_seed(0))
    motion = output.motions[0]
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"step-{step:08d}.npz"]
    save_motion(files[0], motion)
    if motion.layout.basis == "arkit":
        head = HeadModel.clay()
        vertices = head.from_motion(motion.values[::_EVERY], motion.layout).detach().numpy()
        renderer = Renderer.for_head(head, size=(_SIZE, _SIZE))
        files.append(folder / f"step-{step:08d}.png")
        save_png(files[1], contact_sheet(render_frames(renderer, vertices, processes=1), every=1, columns=5))
    return files


def first_with_speech(folders: Iterable[str]) -> Exchange:
    """The first validation exchange of some datasets whose responder is heard; UserError where there is none."""
    for folder in folders:
        for path in sorted(Path(folder).glob("validation-*-of-*.parquet"))[:1]:
            for exchange in islice(Shard(path), _LOOKED_AT):
                if len(exchange.responder.waveform):
                    return exchange
    raise UserError("expected a validation exchange with the responder's voice to sample, found none")
