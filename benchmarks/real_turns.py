"""Answers to turns of real people whose feelings are known: what does their voice alone change?"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from figures import resampled, rounded
from torch import Tensor
from tqdm.auto import tqdm

from diffdyad.context import PreviousTurn
from diffdyad.data.rehearsal.reaction import PLANTED_EFFECTS
from diffdyad.errors import UserError
from diffdyad.media import read_audio
from diffdyad.pipeline import DyadPipeline

FEELINGS = {"anger": "angry", "happiness": "happy", "joy": "happy", "sadness": "sad", "boredom": "bored"}
CONTRASTS = {"arousal": (("angry", "happy"), ("sad", "bored")), "valence": (("happy",), ("angry",))}
"""Turns of the first kinds are set against those of the second; valence is the hard one: both are loud."""

SCALES = (1.0, 2.0)
EARLY_S = 2.0  # of an answer, in which reactions are measured
NUM_ANSWERS, NUM_SEEDS = 4, 2


def real_turns(pipeline: DyadPipeline, folders: Sequence[Path], voices: Sequence[Tensor]) -> dict:
    """By contrast, folder and scale: the share of pairs of turns after which answers differ in the planted direction.

    voices: speech of the answers, (S,) each; every answer and seed counts as a pair of its own. `difference`: 1 = as
    planted at K = 1; `more_at_2`: pairs that differ more at scale 2 than at 1; `right`: over all folders.
    """
    along = directions(pipeline)
    turns = {folder.name: turns_of(folder) for folder in folders}
    moved = {name: sizes(pipeline, paths, along, voices[:NUM_ANSWERS]) for name, paths in turns.items()}
    result = {}
    for number, (contrast, kinds) in enumerate(CONTRASTS.items()):
        result[contrast], right = {}, []
        for name, paths in turns.items():
            first, second = ([k for k, (feeling, _) in enumerate(paths) if feeling in kind] for kind in kinds)
            if first and second:
                differences = moved[name][first][:, None, ..., number] - moved[name][second][..., number]
                result[contrast][name] = compared(differences)
                right.append((differences > 0).swapaxes(0, 2).reshape(len(SCALES), -1))
        if right:
            share = np.concatenate(right, 1).mean(1)
            result[contrast]["right"] = {f"scale_{scale:g}": rounded(value) for scale, value in zip(SCALES, share)}
    return result


def turns_of(folder: Path) -> list[tuple[str, Path]]:
    """(feeling, recording) of those whose feeling is among FEELINGS: by labels.csv, or by names as in Ann_joy_2.wav."""
    labels = folder / "labels.csv"
    if labels.is_file():
        rows = [(row["emotion"], folder / row["file"]) for row in csv.DictReader(labels.open(encoding="utf-8"))]
    else:
        rows = [(word, path) for path in sorted(folder.iterdir()) for word in path.stem.split("_")[1:]]
    found = [(FEELINGS[word], path) for word, path in rows if word in FEELINGS]
    if not found:
        raise UserError(f"expected recordings in {', '.join(FEELINGS)} in {folder}, found none: name them in "
                        "labels.csv (file,emotion), or as in Ann_joy.wav")  # fmt: skip
    return found


def directions(pipeline: DyadPipeline) -> Tensor:
    """What of the expression is planted for arousal, and for valence: (D, 2), scaled to tell multiples of it."""
    layout = pipeline.layout
    along = torch.zeros(layout.dim, len(CONTRASTS))
    for channel in layout.expression_names:
        gain = PLANTED_EFFECTS.get(channel.removesuffix("Left").removesuffix("Right"))
        if gain is not None:
            pair = gain.high_arousal - gain.low_arousal, gain.positive_valence - gain.negative_valence
            along[layout.channel(channel)] = torch.tensor(pair)
    return along / along.square().sum(0)


def sizes(
    pipeline: DyadPipeline, turns: Sequence[tuple[str, Path]], along: Tensor, voices: Sequence[Tensor]
) -> np.ndarray:
    """Along each direction, the early mean of the answers: (turns, scales, answers, 2)."""
    rows = []
    for _, path in tqdm(turns, desc="real turns"):
        context = pipeline.encode_context(PreviousTurn(read_audio(path), gap_s=0.2))
        rows.append([[size(pipeline, voice, context, scale, seed, along) for voice in voices
                      for seed in range(NUM_SEEDS)] for scale in SCALES])  # fmt: skip
    return np.array(rows)


def size(pipeline: DyadPipeline, voice: Tensor, context, scale: float, seed: int, along: Tensor) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    motion = pipeline(voice, context, guidance_scale=scale, generator=generator).motions[0]
    return (motion.values[: round(motion.fps * EARLY_S)].mean(0) @ along).tolist()


def compared(differences: np.ndarray) -> dict:
    """differences: (turns, turns, scales, answers), > 0 = as planted. Intervals over turns."""
    found = {"turns": list(differences.shape[:2]), "pairs": differences[:, :, 0].size}
    for place, scale in enumerate(SCALES):
        here = differences[:, :, place]
        found[f"scale_{scale:g}"] = {"right": over_turns(here > 0), "difference": over_turns(here)}
    return found | {"more_at_2": over_turns(differences[:, :, 1] > differences[:, :, 0])}


def over_turns(values: np.ndarray) -> dict:
    """values: (turns, turns, answers)"""
    means = values.mean(-1)
    return resampled(lambda one, other: means[one][:, other].mean(), *means.shape)
