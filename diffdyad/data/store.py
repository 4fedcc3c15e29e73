"""The feature store: what training reads, computed once per dataset and settings, a file per shard.

Files are keyed by everything that they depend on, appear whole or not at all, and a run that was stopped goes on with
the shards that are missing. The features of a pretrained speech encoder lie apart, in `data.encoded`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from diffdyad.audio import SpeechEncoder
from diffdyad.context import ContextEncoder
from diffdyad.data import encoded, files
from diffdyad.data.exchange import shards
from diffdyad.data.features import ExchangeFeatures, FeatureSettings, compute, pack, unpack
from diffdyad.data.intake import CorruptShard, Format, Shard
from diffdyad.data.workers import processes
from diffdyad.motion import MotionStats

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One shard, and how its features are computed. cache: folder for those of a pretrained encoder; none: at once."""

    shard: Path
    settings: FeatureSettings
    format: Format
    cache: Path | None = None

    @property
    def has_own_speech(self) -> bool:
        return self.cache is None or self.settings.speech_encoder["name"] == "mel"


def shard_features(job: Job) -> tuple[dict[str, Tensor], dict]:
    """A shard's exchanges as packed tensors with their index; runs in a worker process, too."""
    speech, context = SpeechEncoder(**job.settings.speech_encoder), ContextEncoder(**job.settings.context_encoder)
    stats = MotionStats.for_layout(job.format.layout, job.format.fps)
    sounds, about = {}, {}
    if not job.has_own_speech:
        file = encoded.encode_shard(job.shard, job.cache, speech)
        sounds, about = encoded.load(file), {"speech": str(file.relative_to(job.cache))}
    items = [compute(row, speech, context, stats, sounds.get(row.exchange_id)) for row in Shard(job.shard)]
    tensors, index = pack(items, speech=job.has_own_speech)
    return tensors, {"exchanges": index, **about}


def _write(job: Job, target: Path) -> str | None:
    """Writes a shard's file; returns what is wrong with a damaged shard."""
    try:
        tensors, index = shard_features(job)
    except CorruptShard as error:
        return str(error)
    files.save(target, tensors, index)
    return None


def build(
    dataset: str | Path, split: str, cache: str | Path, settings: FeatureSettings, form: Format, workers: int = 2,
    skip_corrupt: bool = False, shared: bool = False, warn: Warn = print,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Makes the files of a split that do not exist yet, in `cache`/KEY; returns all of them in order.

    shared: other datasets have the same cache. Raises CorruptShard where a shard is damaged; with `skip_corrupt`,
    `warn` is told, and the others are returned.
    """
    dataset, cache = Path(dataset), Path(cache)
    folder = cache / settings.key(dataset, shared)
    folder.mkdir(parents=True, exist_ok=True)
    files.sweep(folder)
    sources = shards(dataset, split)
    targets = [folder / f"{split}-{n:05d}-of-{len(sources):05d}.safetensors" for n in range(len(sources))]
    jobs = [(Job(source, settings, form, cache), target) for source, target in zip(sources, targets)
            if not target.exists()]  # fmt: skip
    done, damaged = len(targets) - len(jobs), set()
    with processes(workers if jobs else 0) as pool:
        outcomes = (pool.map if pool else map)(_write, *zip(*jobs)) if jobs else ()
        for (_, target), problem in zip(jobs, outcomes):
            if problem is not None:
                if not skip_corrupt:
                    raise CorruptShard(problem)
                warn(f"going on without a shard: {problem}")
                damaged.add(target)
            done += 1
            if progress is not None:
                progress(done, len(targets))
    return [target for target in targets if target not in damaged]


def read(path: Path, dataset: int = 0) -> list[ExchangeFeatures]:
    """The exchanges of one file, mapped from the disk. Raises UserError where it is damaged."""
    tensors, index = files.load(path)
    speech = None
    if "speech" in index:  # a file of a pretrained encoder's features, relative to the cache
        sounds = encoded.load(path.parent.parent / index["speech"])
        speech = {name: sound.responder for name, sound in sounds.items()}
    return [replace(item, dataset=dataset) for item in unpack(tensors, index["exchanges"], speech)]
