"""The exchanges that are judged: the context cut at the onset, bleed gated, features computed once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffdyad.audio import SpeechEncoder
from diffdyad.context import ContextEncoder, TurnFeatures
from diffdyad.data import files
from diffdyad.data.exchange import Exchange, shards
from diffdyad.data.features import ExchangeFeatures, FeatureSettings, compute, pack, unpack
from diffdyad.data.intake import Shard
from diffdyad.data.sides import responder_waveform
from diffdyad.data.workers import processes
from diffdyad.errors import UserError
from diffdyad.evaluation.effect.bleed import without_bleed
from diffdyad.evaluation.people import independent_units
from diffdyad.evaluation.voice import FLOOR_DB, frame_energy_db
from diffdyad.media import SAMPLING_RATE
from diffdyad.motion import MotionStats

_FORMAT = 1  # raised whenever what is kept changes
SHORTEST_ANSWER_S = 1.0
_LATEST_S = 6.0  # of the answer's sound, what is kept


@dataclass
class Item:
    """One exchange.

    features: its motion, own speech and previous turn, which ends at the onset at the latest; audio: (S,) 16 kHz, the
    own voice from the onset on; unit: which independent people it belongs to; turn_s, loudness_db: of the previous
    turn; has_bleed: a voice was heard in the other's channel, and gated.
    """

    features: ExchangeFeatures
    audio: Tensor
    session: str
    previous_speaker: str
    responder: str
    kind: str
    turn_s: float
    gap_s: float
    loudness_db: float
    end_s: float
    has_bleed: bool = False
    unit: int = 0

    @property
    def name(self) -> str:
        return self.features.exchange_id

    @property
    def turn(self) -> TurnFeatures:
        return self.features.turn

    def onset(self, fps: float) -> int:
        """The answer's first frame."""
        return max(0, round(-self.features.start_s * fps))


def cut_at_onset(exchange: Exchange) -> Exchange:
    """The exchange as the protocol takes it: of the previous turn nothing later than t = 0, channels without bleed.

    The text of a turn that goes on into the answer is that of its words that have ended by then; without words'
    times it cannot be cut, and is left out.
    """
    previous, responder = exchange.previous, exchange.responder
    theirs, gated = without_bleed(previous.waveform, responder.waveform)
    own, gated_too = without_bleed(responder.waveform, previous.waveform)
    if exchange.previous_end_s > 0:
        words = [word for word in previous.words if word.end_s <= 0]
        previous = replace(previous, text=" ".join(word.word for word in words), words=words)
    cut = replace(
        exchange, previous_end_s=min(exchange.previous_end_s, 0.0), previous=replace(previous, waveform=theirs),
        responder=replace(responder, waveform=own),
    )  # fmt: skip
    cut.has_bleed = gated or gated_too
    return cut


@dataclass(frozen=True)
class Reading:
    """How exchanges are read: what depends on the model."""

    settings: FeatureSettings
    stats: tuple  # layout, fps

    @classmethod
    def of(cls, pipeline) -> Reading:
        """For a DyadPipeline."""
        settings = FeatureSettings.of(pipeline.speech_encoder, pipeline.context_encoder)
        return cls(settings, (pipeline.layout, pipeline.fps))


def _write(path: Path, target: Path, reading: Reading) -> None:
    speech = SpeechEncoder(**reading.settings.speech_encoder)
    context = ContextEncoder(**reading.settings.context_encoder)
    stats = MotionStats.for_layout(*reading.stats)
    features, sounds, about = [], [], []
    for exchange in Shard(path):
        exchange = cut_at_onset(exchange)
        item = compute(exchange, speech, context, stats)
        onset = max(0, round(-exchange.start_s * SAMPLING_RATE))
        sound = responder_waveform(exchange)[onset : onset + round(_LATEST_S * SAMPLING_RATE)]
        level = frame_energy_db(exchange.previous.waveform, SAMPLING_RATE, stats.config.fps)
        level = level[: max(1, round((exchange.previous_end_s - exchange.start_s) * stats.config.fps))]
        features.append(item)
        sounds.append(sound.half())
        about.append({
            "sound": len(sound), "session": exchange.session_id, "previous_speaker": exchange.previous_speaker,
            "responder": exchange.responder_name, "kind": exchange.response_kind,
            "turn_s": exchange.previous_end_s - exchange.start_s, "gap_s": exchange.gap_s, "end_s": exchange.end_s,
            "loudness_db": float(np.percentile(level, 90)) if len(level) else FLOOR_DB,
            "has_bleed": exchange.has_bleed,
        })  # fmt: skip
    tensors, index = pack(features)
    tensors["sounds"] = torch.cat(sounds)
    files.save(target, tensors, {"exchanges": index, "about": about})


def _read(path: Path) -> list[Item]:
    tensors, index = files.load(path)
    sounds, begin, items = tensors.pop("sounds"), 0, []
    for features, about in zip(unpack(tensors, index["exchanges"]), index["about"]):
        count = about.pop("sound")
        items.append(Item(features, sounds[begin : begin + count].float(), **about))
        begin += count
    return items


def read_items(
    dataset: str | Path, split: str, cache: Path, reading: Reading, workers: int = 1, most: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Item]:
    """The exchanges of a split, or those of so many shards that they hold `most`; what was computed stays in `cache`.

    Raises UserError for a dataset that is not there, or that the model cannot read.
    """
    dataset, folder = Path(dataset), Path(cache)
    key = hashlib.sha256(f"{_FORMAT} {reading.settings.key(dataset)}".encode()).hexdigest()[:16]
    folder = folder / "exchanges" / key
    folder.mkdir(parents=True, exist_ok=True)
    sources = shards(dataset, split)
    if most is not None:
        counts = np.cumsum([len(Shard(path, audio=False)) for path in sources])
        sources = sources[: int(np.searchsorted(counts, most)) + 1]
    targets = [folder / f"{path.stem}.safetensors" for path in sources]
    jobs = [(source, target) for source, target in zip(sources, targets) if not target.exists()]
    done = len(targets) - len(jobs)
    if progress and jobs:
        progress(done, len(targets))
    with processes(workers if len(jobs) > 1 else 0) as pool:
        arguments = zip(*[(source, target, reading) for source, target in jobs])
        for _ in (pool.map if pool else map)(_write, *arguments) if jobs else ():
            done += 1
            if progress:
                progress(done, len(targets))
    items = [item for target in targets for item in _read(target)]
    return items if most is None else items[:most]


def usable(items: list[Item], fps: float, shortest_s: float = SHORTEST_ANSWER_S) -> list[Item]:
    """The exchanges with a previous turn and an answer whose face is known, numbered by independent unit.

    Raises UserError, saying why, where none is left.
    """
    kept, why = [], {"no previous turn before the onset": 0, "no answer of a second whose face is known": 0}
    for item in items:
        features = item.features
        answer = features.valid[item.onset(fps) :]
        known = answer[:, 0].float().sum() if len(answer) else 0
        if not features.turn.features:
            why["no previous turn before the onset"] += 1
        elif known < shortest_s * fps:
            why["no answer of a second whose face is known"] += 1
        else:
            kept.append(item)
    if not kept:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in why.items() if count)
        raise UserError(f"expected exchanges to judge the context on, found none ({reasons or 'no exchanges at all'})")
    people = [[name for name in (item.previous_speaker, item.responder) if name] for item in kept]
    units = independent_units([names or [f"session {item.session}"] for names, item in zip(people, kept)])
    return [replace(item, unit=int(unit)) for item, unit in zip(kept, units)]


def content_key(*parts: object) -> str:
    """A name for what follows from the parts alone: JSON values and tensors."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(str((part.dtype, tuple(part.shape))).encode())
            digest.update(part.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()[:24]
