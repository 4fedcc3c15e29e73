"""Features of a frozen speech encoder, computed once for a sound and found again by what they depend on.

One file per shard of a dataset, named after the sounds in it, in a folder named after the encoder, its revision and
its weights. So they outlive another tracking of the faces, other context settings and a dataset that moves, and a run
that was stopped goes on with the shards that are missing. Mel bands need none of this: they cost next to nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from diffdyad.audio import SpeechEncoder
from diffdyad.data import files
from diffdyad.data.exchange import SPLITS
from diffdyad.data.intake import CorruptShard, Shard, dataset_format
from diffdyad.data.sides import previous_turn, responder_waveform
from diffdyad.data.workers import processes
from diffdyad.errors import PartialFailure, UserError
from diffdyad.media import SAMPLING_RATE, normalise_loudness

_FORMAT = 1


@dataclass
class Encoded:
    """One exchange's sounds: responder (T, L, C) all layers; previous (T', C) their mean, (0, C) without a turn."""

    responder: Tensor
    previous: Tensor


class Recalled:
    """Stands in for the encoder where the previous turn's features are at hand already."""

    def __init__(self, speech: SpeechEncoder, previous: Tensor):
        self.config, self.mean, self._speech, self._previous = speech.config, torch.zeros(()), speech, previous

    def encode(self, waveform: Tensor, phones: bool = False) -> Tensor:  # (1, S) -> (1, T, 1, C)
        num_frames = self._speech.num_frames(waveform.shape[1])
        return self._previous[max(0, len(self._previous) - num_frames) :][None, :, None]


@lru_cache(maxsize=8)
def weights_of(name: str) -> str | None:
    """Hash of an encoder's folder, wherever it lies; None for `mel` and for names of the Hub."""
    folder = Path(name)
    if name == "mel" or not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix in (".json", ".safetensors", ".bin"):
            digest.update(f"{path.name} {path.stat().st_size} ".encode())
            with open(path, "rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
    return digest.hexdigest()[:16]


def encoder_folder(cache: Path, speech: SpeechEncoder) -> Path:
    """Where the features of this encoder lie: CACHE/speech/NAME-KEY."""
    config = speech.config
    name = weights_of(config["name"]) or f"{config['name']}@{config['revision'] or 'main'}"
    what = [_FORMAT, name, config["sampling_rate"], config["fps"]]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
    plain = re.sub(r"[^\w.-]+", "-", config["name"].rstrip("/").split("/")[-1])
    return Path(cache) / "speech" / f"{plain[:40]}-{key}"


def sounds_key(shard: Shard) -> str:
    """Hash of a shard's sounds, and of when they begin and end."""
    digest = hashlib.sha256()
    columns = ["exchange_id", "start_s", "previous_end_s", "responder_audio", "previous_audio"]
    for index in range(len(shard)):
        row = shard.row(index, columns)
        times = [row["exchange_id"], row["start_s"], row["previous_end_s"]]
        for part in (json.dumps(times).encode(), row["responder_audio"], row["previous_audio"]):
            digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:24]


def encode_shard(path: Path, cache: Path, speech: SpeechEncoder) -> Path:
    """The file with a shard's features, which is made, whole or not at all, where it does not exist."""
    shard = Shard(path)
    target = encoder_folder(cache, speech) / f"{sounds_key(shard)}.safetensors"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    responder, previous, index = [], [], []
    for exchange in shard:
        own = _encode(speech, responder_waveform(exchange))
        turn = previous_turn(exchange).audio
        theirs = own.new_zeros(0, own.shape[-1])
        if turn is not None:
            theirs = _encode(speech, normalise_loudness(turn, SAMPLING_RATE)).mean(1)
        responder.append(own.half())
        previous.append(theirs.half())
        index.append([exchange.exchange_id, len(own), len(theirs)])
    files.save(target, {"responder": torch.cat(responder), "previous": torch.cat(previous)}, index)
    return target


def load(path: Path) -> dict[str, Encoded]:
    """exchange_id -> features, mapped from the disk. Raises UserError where the file is damaged."""
    return dict(_split(*files.load(path)))


def _split(tensors: dict[str, Tensor], index: list) -> Iterator[tuple[str, Encoded]]:
    own = theirs = 0
    for name, frames, previous_frames in index:
        yield name, Encoded(
            tensors["responder"][own : own + frames], tensors["previous"][theirs : theirs + previous_frames]
        )
        own, theirs = own + frames, theirs + previous_frames


@dataclass(frozen=True)
class EncodedDataset:
    """folder: of the features; size: of those of this dataset, bytes."""

    folder: Path
    num_shards: int
    num_made: int
    size: int


def encode_dataset(
    dataset: str | Path, encoder: str, revision: str | None = None, cache: str | Path | None = None,
    device: str = "cpu", workers: int = 2, progress: bool = True,
) -> EncodedDataset:
    """Makes the features of all splits of a dataset that do not exist yet.

    Raises UserError for an encoder or a dataset that is not there; PartialFailure, once the others are done, that
    names the shards that are damaged.
    """
    from tqdm.auto import tqdm

    if encoder == "mel":
        raise UserError("expected a pretrained encoder; mel features need no cache, training computes them itself")
    dataset = Path(dataset)
    cache = Path(cache) if cache is not None else dataset / "features"
    sources = sorted(path for split in SPLITS for path in dataset.glob(f"{split}-*-of-*.parquet"))
    if not sources:
        raise UserError(f"expected parquet shards of exchanges in {dataset}, found none")
    settings = {"name": encoder, "revision": revision, "fps": dataset_format(dataset, skip_corrupt=True).fps}
    speech = SpeechEncoder(**settings)
    speech.num_layers  # noqa: B018, whether the encoder is there at all: said once, not by every worker
    folder = encoder_folder(cache, speech)
    files.sweep(folder)
    before = set(folder.glob("*.safetensors"))
    jobs = [(path, cache, settings, device) for path in sources]
    found, damaged = set(), []
    with processes(workers if device == "cpu" else 1) as pool, tqdm(total=len(jobs), unit="shard",
                                                                    disable=not progress) as bar:  # fmt: skip
        for outcome in (pool.map if pool else map)(_encode_job, *zip(*jobs)):
            bar.update()
            (damaged.append if isinstance(outcome, str) else found.add)(outcome)
    if damaged:
        raise PartialFailure(f"{len(damaged)} of {len(jobs)} shards have no features: {'; '.join(damaged)}")
    return EncodedDataset(folder, len(jobs), len(found - before), sum(path.stat().st_size for path in found))


def _encode_job(path: Path, cache: Path, settings: dict, device: str) -> Path | str:
    """The file of a shard, or what is wrong with it; runs in a worker process, too."""
    try:
        return encode_shard(path, cache, _loaded(device, **settings))
    except CorruptShard as error:
        return str(error)


@lru_cache(maxsize=1)
def _loaded(device: str, **settings) -> SpeechEncoder:
    return SpeechEncoder(**settings).to(device)


def _encode(speech: SpeechEncoder, waveform: Tensor) -> Tensor:  # (S,) -> (T, L, C)
    return speech.encode(waveform[None].to(speech.mean.device))[0].float().cpu()
