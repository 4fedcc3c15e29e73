"""A dataset of a few short exchanges, made of tones and waves: enough to train on, and cheap."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffdyad.data.exchange import Exchange, Person, group_widths, shard_name, to_row, write_shard
from diffdyad.text import TimedWord

FPS, START_S, PREVIOUS_END_S, END_S = 25.0, -1.6, -0.2, 2.4

CONFIG = """
output: {output}
data: {{dataset: {dataset}, window_s: [1.0, 1.4], validation_windows: 1, validation_answers: 0, workers: 1}}
context: {{modalities: [audio, motion]}}
model: {{width: 32, num_heads: 2, depth: 1, speech_depth: 1, context_depth: 1}}
training: {{batch_size: 4, max_steps: 6, checkpoint_every: 2, validate_every: 6, log_every: 1, mixed_precision: "no"}}
"""


def small_exchange(
    seed: int, basis: str = "arkit", groups: tuple[str, ...] = (), eyelids: bool = False, alone: bool = False, **options
) -> Exchange:
    """One exchange. groups: those that were not measured; alone: a monologue, without a previous turn."""
    rng = np.random.default_rng(seed)
    start = 0.0 if alone else START_S
    responder = _person(rng, END_S - start, basis, groups, eyelids)
    previous = _person(rng, END_S - start, basis, groups, eyelids)
    if alone:
        nothing = {group: array[:0] for group, array in previous.motion.items()}
        previous = Person(np.zeros(0, np.float32), nothing, np.zeros(0, bool))
    else:
        previous.text = "Good morning."
        previous.words = [TimedWord("Good", -1.5, -1.0), TimedWord("morning", -1.0, -0.4)]
    return Exchange(**{
        "exchange_id": f"e-{seed}", "session_id": f"s-{seed // 2}", "previous_speaker": "" if alone else "ann",
        "responder_name": f"bob-{seed % 2}", "split": "train", "start_s": start,
        "previous_end_s": 0.0 if alone else PREVIOUS_END_S, "end_s": END_S, "previous": previous,
        "responder": responder, "basis": basis, "fps": FPS, **options,
    })  # fmt: skip


def _person(rng: np.random.Generator, seconds: float, basis: str, missing, eyelids: bool) -> Person:
    frames, samples = round(seconds * FPS), round(seconds * 16000)
    times = np.arange(frames) / FPS
    motion = {}
    for group, width in group_widths(41 if basis == "arkit" else 50).items():
        speed, phase = rng.uniform(1, 4, width), rng.uniform(0, 6, width)
        waves = 0.2 + 0.15 * np.sin(times[:, None] * speed + phase)
        there = group not in missing and (group != "eyelids" or eyelids)
        motion[group] = (waves if there else waves[:0]).astype(np.float32)
    tone = 0.1 * np.sin(2 * np.pi * rng.uniform(100, 200) * np.arange(samples) / 16000)
    waveform = (tone * (1 + np.sin(np.arange(samples) / 640)) / 2 + 0.001 * rng.normal(size=samples)).astype(np.float32)
    return Person(waveform, motion, np.ones(frames, bool))


def write_dataset(
    folder: Path, train: int = 6, validation: int = 2, shards: int = 1, first: int = 0, **options
) -> Path:
    """A dataset's folder; `options` are those of `small_exchange`."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count, parts in (("train", train, shards), ("validation", validation, 1)):
        seeds = np.arange(count) + first + (1000 if split == "validation" else 0)
        for index, some in enumerate(np.array_split(seeds, parts)):
            if len(some):
                rows = [to_row(small_exchange(int(seed), split=split, **options)) for seed in some]
                write_shard(folder / shard_name(split, index, parts), rows)
    return folder


def small_config(folder: Path, dataset: Path, *overrides: str):
    """A config for a few quick steps, in FOLDER/run.yaml, with output FOLDER/run."""
    from diffdyad.config import load_config

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.yaml"
    path.write_text(CONFIG.format(output=folder / "run", dataset=dataset))
    return load_config(path, overrides)
