"""What training sees of an exchange: motion, features of the responder's speech, the previous turn's cells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffdyad.audio import SpeechEncoder
from diffdyad.context import ContextEncoder, TurnFeatures
from diffdyad.data.encoded import Encoded, Recalled, weights_of
from diffdyad.data.exchange import Exchange
from diffdyad.data.sides import motion_of, previous_turn, responder_waveform
from diffdyad.motion import MotionStats

_FORMAT = 1
"""Raised whenever the content of the files changes."""


@dataclass
class ExchangeFeatures:
    """One exchange as training sees it.

    motion: (T, D) raw; valid: (T, G); speech: (T, L, C) not standardised; turn: the previous turn's
    cells, not standardised; start_s: time of the first frame; previous_end_s: end of the turn; alone: there
    was no previous turn, as in a monologue; dataset: index among the datasets of the training.
    """

    exchange_id: str
    responder: str
    start_s: float
    previous_end_s: float
    motion: Tensor
    valid: Tensor
    speech: Tensor
    turn: TurnFeatures
    alone: bool = False
    dataset: int = 0

    @property
    def is_usable(self) -> bool:
        """Whether there is anything to learn from it."""
        return len(self.motion) > 1 and bool(self.valid.any())


@dataclass(frozen=True)
class FeatureSettings:
    """What features depend on beside the dataset."""

    speech_encoder: dict
    context_encoder: dict

    @classmethod
    def of(cls, speech: SpeechEncoder, context: ContextEncoder) -> FeatureSettings:
        def plain(component, *statistics: str) -> dict:
            return {k: v for k, v in component.config.items() if not k.startswith("_") and k not in statistics}

        # mel knows its shape beforehand, a pretrained encoder once it was asked: that must not change the key
        shape = () if speech.config["name"] == "mel" else ("num_layers", "num_channels")
        shape += ("normalise_voice",)  # is done to features, not kept in them
        return cls(plain(speech, *shape), plain(context, "widths"))

    def key(self, dataset: Path, shared: bool = False) -> str:
        """Name of the cache folder: a hash of the settings and of the dataset's files (names and sizes).

        shared: several datasets' features lie in one cache, so where the dataset lies counts, too.
        """
        files = sorted((p.name, p.stat().st_size) for p in dataset.glob("*.parquet"))
        speech = dict(self.speech_encoder)
        if weights := weights_of(speech["name"]):
            speech["name"] = weights
        place = [str(dataset.resolve())] if shared else []
        text = json.dumps([_FORMAT, speech, self.context_encoder, files, *place], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def compute(
    exchange: Exchange, speech: SpeechEncoder, context: ContextEncoder, stats: MotionStats,
    encoded: Encoded | None = None,
) -> ExchangeFeatures:
    """Features of one exchange; of `stats` only layout and rate matter. encoded: the speech features, if at hand."""
    motion = motion_of(exchange, "responder", stats.layout)
    stats.check(motion, f"exchange {exchange.exchange_id}")
    motion = motion.resample(stats.config.fps)
    if encoded is None:
        features = speech.encode(responder_waveform(exchange)[None].to(speech.mean.device))[0].cpu()
    else:
        features, speech = encoded.responder, Recalled(speech, encoded.previous)
    num_frames = min(len(features), len(motion))
    turn = previous_turn(exchange, stats.layout)
    alone = turn.is_empty and not exchange.previous_speaker
    turn = context.raw_features(context.taken(turn), speech, stats, f"exchange {exchange.exchange_id}")
    return ExchangeFeatures(
        exchange.exchange_id, exchange.responder_name, exchange.start_s, exchange.previous_end_s,
        motion.values[:num_frames], motion.valid[:num_frames], features[:num_frames], turn, alone,
    )


def pack(items: Sequence[ExchangeFeatures], speech: bool = True) -> tuple[dict[str, Tensor], list[dict]]:
    """Concatenated tensors, and the index that takes them apart again; without `speech`, that lies elsewhere."""
    tensors: dict[str, list[Tensor]] = {}
    index = []

    def put(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
        tensors.setdefault(name, []).append(tensor.to(dtype))

    for item in items:
        put("motion", item.motion, torch.float32)
        put("valid", item.valid, torch.bool)
        if speech:
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
            "sentence": item.turn.sentence is not None, "alone": item.alone,
        })  # fmt: skip
    return {name: torch.cat(parts) for name, parts in tensors.items()}, index


def unpack(
    tensors: dict[str, Tensor], index: Sequence[dict], speech: dict[str, Tensor] | None = None
) -> list[ExchangeFeatures]:
    """The inverse of `pack`. speech: exchange_id -> (T', L, C), where it was packed without."""
    position = dict.fromkeys(tensors, 0)

    def take(name: str, count: int) -> Tensor:
        start = position[name]
        position[name] = start + count
        return tensors[name][start : start + count]

    items = []
    for entry in index:
        frames = entry["frames"]
        motion, valid = take("motion", frames), take("valid", frames)
        own = take("speech", frames) if speech is None else speech[entry["exchange_id"]][:frames]
        turn = TurnFeatures(
            {name: take(f"cells.{name}", count) for name, count in entry["cells"].items()},
            {name: take(f"cells_valid.{name}", count) for name, count in entry["cells"].items()},
            take("sentence", 1)[0] if entry["sentence"] else None,
        )
        items.append(ExchangeFeatures(
            entry["exchange_id"], entry["responder"], entry["start_s"], entry["previous_end_s"], motion, valid, own,
            turn, entry.get("alone", False),
        ))  # fmt: skip
    return items
