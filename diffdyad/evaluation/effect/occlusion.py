"""Which half second of the previous turn moved the face: what the network expects when it is hidden. Descriptive.

Nothing is sampled: it is asked at pure noise, the same for all of an exchange. What it says is kept on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from diffdyad.data import files
from diffdyad.data.batches import keyed_generator
from diffdyad.evaluation.arrays import Array
from diffdyad.evaluation.effect.conditions import OCCLUDED_S, OCCLUSION_S, TRUE, Conditions
from diffdyad.evaluation.effect.face import Face
from diffdyad.evaluation.effect.network import Network
from diffdyad.evaluation.effect.reading import content_key

BEGINS_S = tuple(np.arange(0, OCCLUDED_S, OCCLUSION_S).tolist())
"""Of the windows, in seconds before the turn's end: (W,)"""

_FORMAT = 1


def measure(
    network: Network, conditions: Conditions, chosen: Sequence[int], folder: Path, seed: int = 0,
    share: tuple[int, int] = (0, 1), progress: Callable[[int, int], None] | None = None,
) -> None:
    """Computes what is missing in `folder`; share: (k, n), only every n-th of the chosen exchanges from the k-th on."""
    folder.mkdir(parents=True, exist_ok=True)
    # of all: what is missing differs between processes while one of them is already writing
    paths = {index: _path(network, conditions, index, folder, seed) for index in chosen[share[0] :: share[1]]}
    missing = [index for index, path in paths.items() if not path.exists()]
    for done, index in enumerate(missing, start=1):
        item = conditions.items[index]
        contexts = [conditions.context(index, TRUE),
                    *(conditions.occluded(index, begin + OCCLUSION_S, begin) for begin in BEGINS_S)]  # fmt: skip
        noise = torch.randn((1, network.num_frames, network.pipeline.layout.dim),
                            generator=keyed_generator(seed, "occlusion", item.name))  # fmt: skip
        encoded = network.encode([item] * len(contexts), contexts)
        noisy = network.add_noise(torch.zeros_like(noise), noise, network.last_timestep)
        motion = network.predict(noisy.expand(len(contexts), -1, -1), network.last_timestep, encoded)
        hidden = torch.stack([(contexts[0].mask & ~one.mask).sum() for one in contexts[1:]])
        found = {"motion": motion[:, : network.answer].contiguous(), "hidden": hidden}
        files.save(paths[index], found, {"exchange": item.name})
        if progress:
            progress(done, len(missing))


def gather(
    network: Network, conditions: Conditions, chosen: Sequence[int], folder: Path, face: Face, seed: int = 0
) -> Array:
    """From what `measure` left: mean change of the face, mm, where each window is hidden: (W,), NaN = none had it."""
    stats, rows, rate_hz = network.pipeline.statistics, [], conditions.encoder.config.rate_hz
    for index in chosen:
        tensors, _ = files.load(_path(network, conditions, index, folder, seed))
        motion = stats.restore(tensors["motion"].to(stats.mean.device)).cpu()
        change = face.change_mm(motion[1:], motion[:1].expand_as(motion[1:]))["face"].mean(-1)
        there = np.array(BEGINS_S) < conditions.items[index].turn_s  # what was never said cannot be hidden
        rows.append(np.where(there, per_window(change, tensors["hidden"].numpy(), rate_hz), np.nan))
    known = np.isfinite(rows).any(0)
    means = np.full(len(BEGINS_S), np.nan)
    means[known] = np.nanmean(np.array(rows)[:, known], 0)
    return means


def per_window(change_mm: Array, hidden: Array, rate_hz: float) -> Array:
    """The change as if every window hid as many cells: (W,), (W,) cells -> (W,), NaN where none was hidden.

    Of half a second at 5 cells a second, two fall into one window and three into the next.
    """
    hidden = np.asarray(hidden)
    return np.where(hidden > 0, change_mm * OCCLUSION_S * rate_hz / np.maximum(hidden, 1), np.nan)


def _path(network: Network, conditions: Conditions, index: int, folder: Path, seed: int) -> Path:
    """By all that the result follows from."""
    item = conditions.items[index]
    turn, features = item.turn, item.features
    key = content_key(
        _FORMAT, BEGINS_S, OCCLUSION_S, network.fingerprint, network.answer, seed, item.name, features.start_s,
        features.previous_end_s, features.speech, len(features.motion),
        *(x for part in (turn.features, turn.valid) for _, x in sorted(part.items())),
        *(() if turn.sentence is None else (turn.sentence,)),
    )  # fmt: skip
    return folder / f"{key}.safetensors"
