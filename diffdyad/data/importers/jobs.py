"""The work of an import in parts, and the journal of each: what it gave, and of which files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from diffdyad.data.exchange import SPLITS
from diffdyad.data.importers import tracked
from diffdyad.data.importers.recording import Importer, Item
from diffdyad.data.recordings.steps import file_hash

JOURNAL = ".import"


@dataclass(frozen=True)
class Job:
    """So many recordings of one split, written together."""

    number: int
    split: str
    items: tuple[Item, ...]

    def rows_path(self, out: Path) -> Path:
        return out / JOURNAL / f"{self.number:05d}.parquet"

    def journal_path(self, out: Path) -> Path:
        return out / JOURNAL / f"{self.number:05d}.json"


def split_work(importer: Importer, items: list[Item], splits: dict[str, str]) -> list[Job]:
    jobs: list[Job] = []
    for split in SPLITS:
        mine = [item for item in items if splits[item.item_id] == split]
        for begin in range(0, len(mine), importer.items_per_shard):
            jobs.append(Job(len(jobs), split, tuple(mine[begin : begin + importer.items_per_shard])))
    return jobs


def paths_of(item: Item, importer: Importer) -> dict[str, Path]:
    """All files of a recording: the source's, and what a tracker has made of its videos."""
    return {name: importer.path(name) for name in item.files} | tracked.results(importer, item)


def _paths(job: Job, importer: Importer) -> dict[str, Path]:
    return {name: path for item in job.items for name, path in paths_of(item, importer).items()}


def sizes_of(job: Job, importer: Importer) -> dict[str, int]:
    """Bytes of all files of a job; -1 where there is none."""
    paths = _paths(job, importer)
    return {name: path.stat().st_size if path.is_file() else -1 for name, path in paths.items()}


def contents_of(job: Job, importer: Importer) -> dict[str, list]:
    """Time of change and hash of all files of a job, where recordings may be replaced by others of the same size."""
    return {name: [_changed_ns(path), _read_hash(path)] for name, path in _paths(job, importer).items()
            if importer.rebuilds}  # fmt: skip


def _changed_ns(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else -1


def _read_hash(path: Path) -> str:
    """Empty for what cannot be read: its recording says why."""
    try:
        return file_hash(path)
    except OSError:
        return ""


def is_stale(job: Job, out: Path, importer: Importer) -> bool:
    """Whether a job is to be done again: something of it failed, or its files have changed since."""
    journal = json.loads(job.journal_path(out).read_text())
    if journal["failed"] or journal["sizes"] != sizes_of(job, importer):
        return True
    before = journal.get("contents", {})
    return importer.rebuilds and any(
        name not in before or (before[name][0] != _changed_ns(path) and before[name][1] != _read_hash(path))
        for name, path in _paths(job, importer).items()
    )


def drop_damaged(out: Path, jobs: list[Job]) -> None:
    """Journals that cannot be read are as if they were not there; once there are shards, nor are any of the others:
    how many shards there are, and which is whose, is in all of them together."""
    paths = [job.journal_path(out) for job in jobs]
    damaged, shards = [path for path in paths if not _is_journal(path)], list(out.glob("*-*-of-*.parquet"))
    for path in [*paths, *shards] if damaged and shards else damaged:
        path.unlink(missing_ok=True)


def _is_journal(path: Path) -> bool:
    try:
        journal = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return False
    return isinstance(journal, dict) and {"rows", "sessions", "failed", "sizes"} <= set(journal)
