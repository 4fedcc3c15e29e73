"""The feature store: what training reads, computed once per dataset and settings, a file per shard.

Motion, the encoder's features of the responder's speech and the context's cells of every exchange,
concatenated, as safetensors. Files are keyed by everything that they depend on, appear whole or not at
all, and a run that was stopped goes on with the shards that are missing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffdyad.audio import SpeechEncoder
from diffdyad.context import ContextEncoder, PreviousTurn, TimedWord, TurnFeatures
from diffdyad.data.exchange import Exchange, ExchangeShards, shards
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE, normalise_loudness
from diffdyad.motion import MotionLayout, MotionStats

_FORMAT = 1
"""Raised whenever the content of the files changes."""


@dataclass
class ExchangeFeatures:
    """One exchange as training sees it.

    motion: (T, D) raw; valid: (T, G); speech: (T, L, C) not standardised; turn: the previous turn's
    cells, not standardised; start_s: time of the first frame; previous_end_s: end of the turn.
    """

    exchange_id: str
    responder: str
    start_s: float
    previous_end_s: float
    motion: Tensor
    valid: Tensor
    speech: Tensor
    turn: TurnFeatures


@dataclass(frozen=True)
class FeatureSettings:
    """What features depend on beside the dataset."""

    speech_encoder: dict
    context_encoder: dict

    @classmethod
    def of(cls, speech: SpeechEncoder, context: ContextEncoder) -> FeatureSettings:
        def plain(component) -> dict:
            return {k: v for k, v in component.config.items() if not k.startswith("_") and k != "widths"}

        return cls(plain(speech), plain(context))

    def key(self, dataset: Path) -> str:
        """Name of the cache folder: a hash of the settings and of the dataset's files (names and sizes)."""
        files = sorted((p.name, p.stat().st_size) for p in dataset.glob("*.parquet"))
        text = json.dumps([_FORMAT, self.speech_encoder, self.context_encoder, files], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def previous_turn(exchange: Exchange) -> PreviousTurn:
    """The previous speaker's turn as sampling would be given it: cut where it ends."""
    seconds = exchange.previous_end_s - exchange.start_s
    person = exchange.previous
    audio = torch.from_numpy(person.waveform)[: max(0, round(seconds * SAMPLING_RATE))]
    motion = exchange.motion("previous")
    num_frames = max(0, round(seconds * exchange.fps))
    motion.values, motion.valid = motion.values[:num_frames], motion.valid[:num_frames]
    return PreviousTurn(
        audio=audio if len(audio) else None,
        motion=motion if len(motion) and motion.valid.any() else None,
        text=person.text or None,
        words=[TimedWord(w.word, w.start_s, w.end_s) for w in person.words if w.start_s < exchange.previous_end_s],
        gap_s=exchange.gap_s,
    )


def compute(
    exchange: Exchange, speech: SpeechEncoder, context: ContextEncoder, stats: MotionStats
) -> ExchangeFeatures:
    """Features of one exchange; of `stats` only layout and rate matter."""
    motion = exchange.motion("responder")
    stats.check(motion, f"exchange {exchange.exchange_id}")
    motion = motion.resample(stats.config.fps)
    waveform = torch.from_numpy(exchange.responder.waveform)
    if not len(waveform):
        waveform = torch.zeros(round(len(motion) * SAMPLING_RATE / stats.config.fps))
    features = speech.encode(normalise_loudness(waveform, SAMPLING_RATE)[None])[0]
    num_frames = min(len(features), len(motion))
    previous = context.taken(previous_turn(exchange))
    turn = context.raw_features(previous, speech, stats, f"exchange {exchange.exchange_id}")
    return ExchangeFeatures(
        exchange.exchange_id, exchange.responder_name, exchange.start_s, exchange.previous_end_s,
        motion.values[:num_frames], motion.valid[:num_frames], features[:num_frames], turn,
    )


def _pack(items: Sequence[ExchangeFeatures]) -> tuple[dict[str, Tensor], dict]:
    """Concatenated tensors, and the index that takes them apart again."""
    tensors: dict[str, list[Tensor]] = {}
    index = []

    def put(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
        tensors.setdefault(name, []).append(tensor.to(dtype))

    for item in items:
        put("motion", item.motion, torch.float32)
        put("valid", item.valid, torch.bool)
        put("speech", item.speech, torch.float16)
        for name, cells in item.turn.features.items():
            put(f"cells.{name}", cells, torch.float16)
            put(f"cells_valid.{name}", item.turn.valid[name], torch.bool)
        if item.turn.sentence is not None:
            put("sentence", item.turn.sentence[None], torch.float16)
        index.append({
            "exchange_id": item.exchange_id, "responder": item.responder, "start_s": item.start_s,
            "previous_end_s": item.previous_end_s, "frames": len(item.motion),
            "cells": {name: len(cells) for name, cells in item.turn.features.items()},
            "sentence": item.turn.sentence is not None,
        })  # fmt: skip
    return {name: torch.cat(parts) for name, parts in tensors.items()}, {"exchanges": index}


def _unpack(tensors: dict[str, Tensor], index: dict) -> list[ExchangeFeatures]:
    position = dict.fromkeys(tensors, 0)

    def take(name: str, count: int) -> Tensor:
        start = position[name]
        position[name] = start + count
        return tensors[name][start : start + count]

    items = []
    for entry in index["exchanges"]:
        motion, valid, speech = (take(name, entry["frames"]) for name in ("motion", "valid", "speech"))
        turn = TurnFeatures(
            {name: take(f"cells.{name}", count) for name, count in entry["cells"].items()},
            {name: take(f"cells_valid.{name}", count) for name, count in entry["cells"].items()},
            take("sentence", 1)[0] if entry["sentence"] else None,
        )
        items.append(ExchangeFeatures(
            entry["exchange_id"], entry["responder"], entry["start_s"], entry["previous_end_s"], motion, valid,
            speech, turn,
        ))  # fmt: skip
    return items


def _shard_features(job: tuple[str, str, int, str, FeatureSettings, dict]) -> str:
    """Computes one shard's file; runs in a worker process."""
    dataset, split, number, target, settings, layout = job
    torch.set_num_threads(1)
    speech, context = SpeechEncoder(**settings.speech_encoder), ContextEncoder(**settings.context_encoder)
    stats = MotionStats(**layout)
    exchanges = ExchangeShards(dataset, split)
    rows = [i for i, (shard, _, _) in enumerate(exchanges._where) if shard == number]
    tensors, index = _pack([compute(exchanges[row], speech, context, stats) for row in rows])
    partial = f"{target}.partial"
    try:
        save_file(tensors, partial, metadata={"index": json.dumps(index)})
        os.replace(partial, target)
    finally:
        Path(partial).unlink(missing_ok=True)
    return target


def dataset_layout(dataset: str | Path, split: str = "train") -> tuple[MotionLayout, float]:
    """Layout and rate of a dataset's motion, from its first exchange."""
    first = ExchangeShards(dataset, split, audio=False)[0]
    return first.layout, first.fps


def build(
    dataset: str | Path, split: str, cache: str | Path, speech: SpeechEncoder, context: ContextEncoder,
    layout: MotionLayout, fps: float, workers: int = 2, progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Makes the files of a split that do not exist yet, in `cache`/KEY; returns all of them in order."""
    dataset, settings = Path(dataset), FeatureSettings.of(speech, context)
    folder = Path(cache) / settings.key(dataset)
    folder.mkdir(parents=True, exist_ok=True)
    count = len(shards(dataset, split))
    targets = [folder / f"{split}-{number:05d}-of-{count:05d}.safetensors" for number in range(count)]
    stats = {"fps": fps, **layout.to_dict()}
    jobs = [
        (str(dataset), split, number, str(target), settings, stats)
        for number, target in enumerate(targets)
        if not target.exists()
    ]
    done = count - len(jobs)
    if jobs and workers > 1:
        import multiprocessing

        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            for _ in pool.map(_shard_features, jobs):
                done += 1
                if progress is not None:
                    progress(done, count)
    else:
        for job in jobs:
            _shard_features(job)
            done += 1
            if progress is not None:
                progress(done, count)
    return targets


def load(paths: Sequence[Path]) -> list[ExchangeFeatures]:
    """All exchanges of the files, memory-mapped."""
    items = []
    for path in paths:
        try:
            with safe_open(path, "pt") as file:
                index = json.loads(file.metadata()["index"])
            items += _unpack(load_file(path), index)
        except Exception as error:
            raise UserError(f"the feature file {path} is damaged ({error}); delete it, it will be made again") from None
    return items
