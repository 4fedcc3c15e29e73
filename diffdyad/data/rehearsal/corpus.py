"""`diffdyad data rehearse`: sessions into shards, in parallel, resumable, the same bytes for the same seed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffdyad.data.exchange import SPLITS, ExchangeShards, shard_name, to_row, write_shard
from diffdyad.data.rehearsal import flite, ranges
from diffdyad.data.rehearsal.acoustics import augment
from diffdyad.data.rehearsal.session import FPS, SESSIONS_PER_PAIR, SessionKey, rehearse_session
from diffdyad.data.rehearsal.visemes import log_energy
from diffdyad.data.workers import spawned
from diffdyad.errors import UserError
from diffdyad.staging import write_text

GENERATOR_VERSION = 6
"""Raise it when the generator changes: corpora of different versions are not continued as one."""

MARKER = "rehearsal.json"
_SESSION_SECONDS = 49.0  # what a session lasts on average
_SESSIONS_PER_SHARD = 32  # about 200 exchanges


@dataclass(frozen=True)
class RehearsalSettings:
    """What a corpus follows from. hours: of conversation; effect: K; reactive_share: of exchanges that react;
    flite_share: of the people who train with English, how many speak with Flite's voices."""

    hours: float
    seed: int = 0
    effect: float = 1.0
    reactive_share: float = 0.25
    flite_share: float = 0.0

    def __post_init__(self):
        for name, value, low, high in (
            ("hours", self.hours, 0.0, 10000.0), ("effect", self.effect, 0.0, 4.0),
            ("reactive share", self.reactive_share, 0.0, 1.0), ("share of Flite's voices", self.flite_share, 0.0, 1.0),
            ("seed", self.seed, 0, 2**31 - 1),
        ):  # fmt: skip
            if not low <= value <= high or (name == "hours" and value == 0):
                raise UserError(f"expected {name} from {low:g} to {high:g}, found {value!r}")

    @property
    def config_hash(self) -> str:
        """Of everything that a session depends on; how many there are is not among it."""
        what = {**asdict(self), "hours": None, "version": GENERATOR_VERSION}
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]

    def sessions(self) -> dict[str, int]:
        """Sessions per split: people, voices and dialogue templates of a split are in no other.

        Of the pairs of people about 90 % train, 4 % validate and 6 % test, but at least 20 test where that
        leaves three quarters of them for the rest.
        """
        pairs = max(3, round(self.hours * 3600.0 / _SESSION_SECONDS / SESSIONS_PER_PAIR))
        test = max(1, round(0.06 * pairs), min(20, pairs // 4))
        validation = max(1, round(0.04 * pairs))
        counts = {"train": pairs - test - validation, "validation": validation, "test": test}
        return {split: SESSIONS_PER_PAIR * count for split, count in counts.items()}


@dataclass(frozen=True)
class _Shard:
    path: Path
    keys: tuple[SessionKey, ...]


def _plan(out: Path, settings: RehearsalSettings) -> list[_Shard]:
    shards = []
    for split, count in settings.sessions().items():
        num_shards = -(-count // _SESSIONS_PER_SHARD)
        for index, numbers in enumerate(np.array_split(np.arange(count), num_shards)):
            keys = tuple(SessionKey(settings.seed, split, int(number)) for number in numbers)
            shards.append(_Shard(out / shard_name(split, index, num_shards), keys))
    return shards


def record(track: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One person's track (S,) through a room, a microphone and a line of their own; some are clean."""
    severity = 0.0 if generator.random() < 0.15 else float(generator.uniform(0.2, 1.0))
    return augment(track, generator, severity)


def _session_rows(key: SessionKey, settings: RehearsalSettings) -> list[dict[str, Any]]:
    exchanges = rehearse_session(
        key, settings.effect, settings.reactive_share, record, settings.config_hash, settings.flite_share
    )
    return [to_row(exchange) for exchange in exchanges]


def _in_order(
    executor: Executor | None, keys: list[SessionKey], settings: RehearsalSettings, ahead: int
) -> Iterator[list[dict[str, Any]]]:
    """The rows of each session, in order; at most `ahead` sessions are on their way, so memory is bounded."""
    if executor is None:
        for key in keys:
            yield _session_rows(key, settings)
        return
    waiting: deque[Future] = deque()
    for key in keys:
        waiting.append(executor.submit(_session_rows, key, settings))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def rehearse(
    out: str | os.PathLike,
    hours: float,
    seed: int = 0,
    effect: float = 1.0,
    reactive_share: float = 0.25,
    flite_share: float = 0.0,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Makes a corpus, or goes on with one that was interrupted; returns its folder.

    out: a new or empty folder, or one with an unfinished (or finished) corpus of the same settings.
    hours: of conversation, all splits together. effect: the planted effect's strength K, 0 = none.
    flite_share: of the people who train with English, how many speak with Flite's voices.
    workers: processes, default one per core; the corpus does not depend on it.

    Raises UserError for impossible settings, a folder with other things in it, or a missing voice engine.
    """
    settings = RehearsalSettings(hours, seed, effect, reactive_share, flite_share)
    if flite_share:
        flite.check()
    out = Path(out)
    if _claim(out, settings):
        return out
    for leftover in out.glob(".*.partial"):
        leftover.unlink()
    todo = [shard for shard in _plan(out, settings) if not shard.path.exists()]
    keys = [key for shard in todo for key in shard.keys]
    workers = min(workers or os.cpu_count() or 1, len(keys))
    executor = None
    if workers > 1:
        executor = spawned(workers)
    try:
        _write(todo, _in_order(executor, keys, settings, 2 * workers + 2), len(keys), progress)
    except BrokenProcessPool:
        raise UserError(
            "a worker process ended before its work was done; its own message, if it left one, is above (none: it was "
            f"killed, perhaps for memory); the same command goes on with the corpus in {out}"
        ) from None
    finally:
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)
    if todo or not (out / "README.md").exists():
        write_text(out / "README.md", card(out, settings))
    write_text(out / MARKER, json.dumps({**_marker(settings), "finished": True}, indent=2) + "\n")
    return out


def _write(todo: list[_Shard], sessions: Iterator[list[dict[str, Any]]], total: int, progress: bool) -> None:
    from tqdm.auto import tqdm

    with tqdm(total=total, desc="rehearsing", unit="session", disable=not progress) as bar:
        for shard in todo:
            rows: list[dict[str, Any]] = []
            for _ in shard.keys:
                rows += next(sessions)
                bar.update()
            write_shard(shard.path, rows)


def _marker(settings: RehearsalSettings) -> dict[str, Any]:
    return {"settings": asdict(settings), "generator_version": GENERATOR_VERSION}


def _claim(out: Path, settings: RehearsalSettings) -> bool:
    """Prepares the folder; True where the corpus is already finished."""
    marker = out / MARKER
    if marker.exists():
        try:
            found = json.loads(marker.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise UserError(f"expected the settings of a corpus in {marker}, cannot read it; remove {out}") from None
        finished = bool(found.pop("finished", False))
        if found != _marker(settings):
            raise UserError(
                f"expected a corpus made with {_marker(settings)} in {out}, found one with {found}; "
                "give another folder or the same settings, or train on what is there with data.rehearse=null"
            )
        return finished
    if out.exists() and not out.is_dir():
        raise UserError(f"expected a folder for the corpus, found a file: {out}; give another --out")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"expected a new or empty folder, found other files in {out}; give another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(marker, json.dumps(_marker(settings), indent=2) + "\n")
    except PermissionError:
        raise UserError(f"cannot write to {out}: permission denied; give another --out") from None
    if shutil.disk_usage(out).free < settings.hours * 1.5e8:
        raise UserError(f"expected about {settings.hours * 0.15:.1f} GB free for {settings.hours:g} h in {out}")
    return False


def is_finished(folder: str | os.PathLike) -> bool:
    """Whether the folder holds a whole rehearsal corpus."""
    marker = Path(folder) / MARKER
    return marker.exists() and bool(json.loads(marker.read_text()).get("finished"))


_COUNTED = ["start_s", "end_s", "gap_s", "response_kind", "reactive", "previous_speaker", "responder", "session_id",
            "session_onset_s"]  # fmt: skip
_RANGE_CLIPS = 150


def card(out: Path, settings: RehearsalSettings) -> str:
    """The dataset card: what it is, counts per split, and the ranges of its motion beside real ones."""
    lines = ["| split | exchanges | sessions | pairs of people | hours | reactive | median gap, s | kinds |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for split in SPLITS:
        data = ExchangeShards(out, split, audio=False)
        rows = [data.row(k, _COUNTED) for k in range(len(data))]
        kinds = Counter(row["response_kind"] for row in rows)
        pairs = {tuple(sorted((row["previous_speaker"], row["responder"]))) for row in rows}
        ends: dict[str, float] = {}
        for row in rows:
            ends[row["session_id"]] = max(ends.get(row["session_id"], 0.0), row["session_onset_s"] + row["end_s"])
        hours = sum(ends.values()) / 3600
        lines.append(
            f"| {split} | {len(rows)} | {len({row['session_id'] for row in rows})} | {len(pairs)} | {hours:.2f} | "
            f"{np.mean([row['reactive'] for row in rows]):.0%} | {np.median([row['gap_s'] for row in rows]):.2f} | "
            + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())) + " |"
        )  # fmt: skip
    measured = corpus_ranges(out)
    return _CARD.format(
        settings=json.dumps(asdict(settings)), version=GENERATOR_VERSION, hash=settings.config_hash, fps=FPS,
        counts="\n".join(lines), ranges=ranges.table(measured), effect=f"{settings.effect:g}",
        flite=" and Flite" if settings.flite_share else "",
    )  # fmt: skip


def corpus_ranges(out: str | os.PathLike, split: str = "train") -> dict[str, dict[str, float]]:
    """`ranges.figures` of responders while they speak (t >= 0) and while they listen (t < 0)."""
    data = ExchangeShards(out, split)
    speaking, hearing = [], []
    for index in np.unique(np.linspace(0, len(data) - 1, min(_RANGE_CLIPS, len(data))).astype(int)):
        exchange = data[int(index)]
        if exchange.response_kind == "silent":
            continue
        motion = exchange.motion("responder").values.numpy()
        onset = round(-exchange.start_s * exchange.fps)
        energy = np.maximum(log_energy(exchange.responder.waveform)[:: 100 // FPS][: len(motion)], -60.0)
        for clips, part in ((speaking, slice(onset, None)), (hearing, slice(0, onset))):
            if len(motion[part]) >= 2 * FPS:
                clips.append(ranges.Clip(motion[part], energy[part] if clips is speaking else None))
    found = {"speaking": speaking, "listening": hearing}
    return {name: ranges.figures(clips) for name, clips in found.items() if clips}


_CARD = """---
license: apache-2.0
pretty_name: diffdyad rehearsal corpus
tags: [synthetic, dyadic conversation, talking head]
configs:
- config_name: default
  data_files:
  - split: train
    path: train-*.parquet
  - split: validation
    path: validation-*.parquet
  - split: test
    path: test-*.parquet
---
# Rehearsal corpus

Synthetic exchanges between two people, made by `diffdyad data rehearse`: written dialogues, voices of eSpeak NG{flite},
motion by rule at {fps} fps in the ARKit basis, and a planted effect of the previous turn on the answer, strength
{effect}. No real person is in it. Columns and rules: `docs/rehearsal.md` of diffdyad.

Settings: `{settings}`, generator version {version}, config hash `{hash}`. The same settings give the same bytes.

{counts}

Hours are those of the conversations; people, voices and dialogue templates of a split are in no other split.

## Ranges of the motion, beside real captures

{ranges}

Responders, while they speak and while they listen. Real: one speaking capture of 20 s and ten silent takes (iPhone),
two dyadic talk clips tracked in FLAME. Ranges, not targets.
"""
