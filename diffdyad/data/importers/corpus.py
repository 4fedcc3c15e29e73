"""The way of an import: recordings found, split and read in parallel, cut, and written as shards that are the same
bytes however many workers made them, and however often the work was interrupted."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from diffdyad.data import reactivity
from diffdyad.data.exchange import SPLITS, shard_name, to_row, write_shard
from diffdyad.data.files import sweep
from diffdyad.data.filtering import CARD, Tally, judge_files, settle
from diffdyad.data.filters import Filters
from diffdyad.data.importers import importer_of, tracked
from diffdyad.data.importers.cutting import Session, cut, session_name
from diffdyad.data.importers.jobs import (
    JOURNAL,
    Job,
    contents_of,
    drop_damaged,
    is_stale,
    paths_of,
    sizes_of,
    split_work,
)
from diffdyad.data.importers.recording import Importer, ImportOptions, Item
from diffdyad.data.importers.report import ImportReport, card, collect
from diffdyad.data.importers.splits import assign
from diffdyad.data.ranking import rank_files
from diffdyad.data.recordings.steps import STEPS, file_hash
from diffdyad.data.scores import add_scores
from diffdyad.data.workers import spawned
from diffdyad.errors import UserError
from diffdyad.flame import FLAME_BASES
from diffdyad.lock import NAME as HELD
from diffdyad.lock import only_one
from diffdyad.staging import DISK_FULL, check_folder, whole, write_text

VERSION = 4
"""Raise it when what every importer does changes: datasets of different versions are not continued as one."""

MARKER = "import.json"
_SAID_EVERY_S = 60.0  # where there is no terminal for a bar


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0) of `count` equal parts of the work."""

    index: int = 0
    count: int = 1


def import_dataset(
    name: str,
    source_dir: str | os.PathLike,
    out_dir: str | os.PathLike,
    options: ImportOptions | None = None,
    workers: int | None = None,
    progress: bool = False,
    shard: Shard = Shard(),
) -> ImportReport:
    """Imports a dataset, or goes on with an import that was interrupted; what failed is tried again.

    name: one of `diffdyad.data.importers.IMPORTERS`; workers: processes, default one per core, the shards do not depend
    on it. shard: the part of the work that is done here; the rest is done elsewhere with the same folder, and whoever
    comes last finishes it. Unreadable recordings are in the report, and the others are done: `raise_for_failures` is
    exit code 3.

    Raises UserError for an unknown name, a folder that holds none of the dataset, an output folder with other things,
    and where not a single recording gave an exchange.
    """
    options = options or ImportOptions()
    importer = _open(name, source_dir, options)
    _check(importer, options)
    importer.check_source()
    items = sorted(importer.scan(), key=lambda item: item.item_id)
    if not items:
        raise UserError(f"expected {importer.expects} in {importer.source}, found none")
    names: dict[str, str] = {}
    for item in items:
        other = names.setdefault(session_name(name, item.item_id), item.item_id)
        if other != item.item_id:
            raise UserError(f"expected names of their own, found {other!r} and {item.item_id!r}, which become one")
    if options.limit is not None:
        items = items[: options.limit]
    splits = assign(items, own=options.split == "source", strict=importer.rebuilds)
    out = Path(out_dir)
    settings = {
        "importer": name, "version": [VERSION, importer.version], "options": options.identity(),
        "recordings": len(items), "plan": _plan_hash(items, splits.of), **importer.settings(),
    }  # fmt: skip
    jobs = split_work(importer, items, splits.of)
    settle(out)
    _prepare(out)
    mine = [job for job in jobs if job.number % shard.count == shard.index]
    with only_one(out / JOURNAL, wait=True):  # another machine may be about to begin, or to finish
        _claim(out, settings, importer.rebuilds)
        drop_damaged(out, jobs)
        todo = [job for job in mine if not job.journal_path(out).exists() or is_stale(job, out, importer)]
        finished = _is_finished(out)
        anew = bool(todo) or not finished
        if finished and anew:
            write_text(out / MARKER, _as_marker(settings))
        if anew and all(job.journal_path(out).exists() for job in jobs):
            _unpack(out, jobs)
        for job in todo:
            job.journal_path(out).unlink(missing_ok=True)
        sweep(out / JOURNAL)
    for path in (path for job in mine for path in (job.rows_path(out), job.journal_path(out))):
        path.with_name(f".{path.name}.partial").unlink(missing_ok=True)
    _run(name, importer, options, out, todo, workers, progress)
    done = [job for job in jobs if job.journal_path(out).exists()]
    journals = [(job.split, json.loads(job.journal_path(out).read_text())) for job in done]
    notes = importer.notes() + splits.notes
    if len(done) < len(jobs):
        notes.append(f"{len(jobs) - len(done)} of {len(jobs)} parts are not done yet: they are other machines' "
                     "(--shard), the last of which finishes the dataset")  # fmt: skip
    with only_one(out / JOURNAL, wait=True):
        report = collect(out, importer, journals, notes, sum(len(job.items) for job in done))
    if len(done) < len(jobs) or not anew:
        return report
    if not sum(report.exchanges.values()):
        first = next(iter({**report.failed, **report.skipped}.items()))
        raise UserError(
            f"none of the {len(items)} recordings in {importer.source} gave an exchange; the first, {first[0]}: "
            f"{first[1]}"
        )
    with only_one(out / JOURNAL, wait=True):
        if not _is_finished(out):
            _score(out, jobs, report)
            _pack(out, jobs)
            write_text(out / CARD, card(importer, report, settings))
            write_text(out / MARKER, _as_marker({**settings, "finished": True}))
    return report


def _open(name: str, source: str | os.PathLike, options: ImportOptions) -> Importer:
    importer = importer_of(name)(Path(source), options)
    tracked.adopt(importer)
    return importer


def _as_marker(settings: dict[str, Any]) -> str:
    return json.dumps(settings, indent=2, sort_keys=True) + "\n"


def _is_finished(out: Path) -> bool:
    return bool(json.loads((out / MARKER).read_text()).get("finished"))


def _check(importer: Importer, options: ImportOptions) -> None:
    bases = (None,) if importer.basis == "arkit" else (None, *FLAME_BASES)
    for what, value, allowed in (
        ("what is done with swapped sides", options.swapped, ("fix", "keep", "drop")),
        ("a split", options.split, ("source", "people")),
        (f"a basis of {importer.title}", options.basis, bases),
    ):  # fmt: skip
        if value not in allowed:
            named = ", ".join(str(choice) for choice in allowed if choice is not None) or importer.basis
            raise UserError(f"expected {what} among {named}, found {value!r}")
    if options.fps is not None and not importer.takes_fps and options.tracked is None:
        raise UserError(f"the rate of {importer.title} is its own: expected no --fps, found {options.fps:g}")
    if options.fps is not None and not 1 <= options.fps <= 240:
        raise UserError(f"expected a rate from 1 to 240 fps, found {options.fps!r}")
    if options.limit is not None and options.limit < 1:
        raise UserError(f"expected a limit of at least 1 recording, found {options.limit!r}")


def _plan_hash(items: list[Item], splits: dict[str, str]) -> str:
    """Of the recordings' names and splits: which shards there are, and what is in each."""
    plan = [[item.item_id, item.files, splits[item.item_id]] for item in items]
    return hashlib.sha256(json.dumps(plan).encode()).hexdigest()[:16]


def _config_hash(name: str, importer: Importer, options: ImportOptions) -> str:
    what = [name, VERSION, importer.version, options.identity(), importer.settings()]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def _prepare(out: Path) -> None:
    """The folder, with a place for what is being made. Raises UserError where it holds other things."""
    check_folder(out)
    ours = (JOURNAL, STEPS, MARKER)
    if out.exists() and not (out / MARKER).exists() and any(
        path.name not in ours and not path.name.startswith(f".{MARKER}.") for path in out.iterdir()
    ):
        raise UserError(f"expected a new or empty folder, found other files in {out}; give another --out")
    try:
        (out / JOURNAL).mkdir(parents=True, exist_ok=True)
    except PermissionError:
        raise UserError(f"cannot write to {out}: permission denied; give another --out") from None


def _claim(out: Path, settings: dict[str, Any], rebuilds: bool) -> None:
    """Finds that the folder is prepared, or marks it. rebuilds: an import of other settings gives way.

    The folder is held meanwhile: of many machines that begin at once, one does this for all.
    """
    marker = out / MARKER
    if marker.exists():
        try:
            found = json.loads(marker.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise UserError(f"expected the settings of an import in {marker}, cannot read it; remove {out}") from None
        found.pop("finished", None)
        if found != settings and rebuilds and found.get("importer") == settings["importer"]:
            for path in (*out.glob("*-*-of-*.parquet"), *(out / JOURNAL).glob("*")):
                if path.name != HELD:
                    path.unlink(missing_ok=True)
            write_text(marker, _as_marker(settings))
        elif found != settings:
            differ = sorted(key for key in {*found, *settings} if found.get(key) != settings.get(key))
            raise UserError(
                f"expected an import of the same source and settings in {out}, found another ({', '.join(differ)} "
                "differ); give another --out"
            )
        return
    write_text(marker, _as_marker(settings))


# --------------------------------------------------------------------------------------------------------------- work


def _run(
    name: str, importer: Importer, options: ImportOptions, out: Path, todo: list[Job], workers: int | None,
    progress: bool,
) -> None:
    from tqdm.auto import tqdm

    workers = min(workers or os.cpu_count() or 1, len(todo))
    arguments = (name, str(importer.source), options, str(out))
    executor: Executor | None = None
    total, shown = sum(len(job.items) for job in todo), sys.stderr.isatty()
    try:
        with tqdm(total=total, desc=f"importing {name}", unit="recording", disable=not (progress and shown)) as bar:
            begun = said = time.monotonic()
            count = 0
            if workers > 1:
                executor = spawned(workers)
                made = (done.result() for done in as_completed([executor.submit(_do, job, *arguments) for job in todo]))
            else:
                made = (_do(job, *arguments) for job in todo)
            for done in made:
                bar.update(done)
                count += done
                if progress and not shown and time.monotonic() - said > _SAID_EVERY_S:
                    said = time.monotonic()
                    left = (said - begun) / count * (total - count)
                    print(f"importing {name}: {count} of {total} recordings, about {left:.0f} s left", file=sys.stderr)
    except BrokenProcessPool:
        raise UserError(
            "a worker process ended before its work was done; its own message, if it left one, is above (none: it was "
            f"killed, perhaps for memory); the same command goes on with the import in {out}"
        ) from None
    finally:
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)


def _do(job: Job, name: str, source: str, options: ImportOptions, out_dir: str) -> int:
    """Writes one job's rows and then its journal, whose existence says that both are whole."""
    importer, out = _open(name, source, options), Path(out_dir)
    importer.steps_folder = out / STEPS
    config_hash = _config_hash(name, importer, options)
    sessions, failed, tally = [], {}, Tally(Filters())
    contents = contents_of(job, importer)  # before they are read: what is replaced meanwhile is seen the next time

    def rows() -> Iterator[dict[str, Any]]:
        for item in job.items:
            try:
                recording = importer.load(item)
                tracked.attach(importer, item, recording)
                session = cut(recording, item, importer, job.split, config_hash)
                for exchange in session.exchanges:
                    exchange.check()  # none of a recording is written where one of its exchanges is wrong
                    add_scores(exchange)
                _keep_foreign(out, session, recording.sides)
            except (UserError, ValueError) as error:
                failed[item.item_id] = " ".join(str(error).split())
                continue
            except Exception as error:  # whatever a library makes of damaged bytes; the others are done
                if isinstance(error, MemoryError) or getattr(error, "errno", None) in DISK_FULL:
                    raise
                failed[item.item_id] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                continue
            sessions.append(_line(item, importer, session, job.split))
            yield from (tally.judged(to_row(exchange)) for exchange in session.exchanges)

    job.rows_path(out).unlink(missing_ok=True)
    made = rows()
    first = next(made, None)
    count = write_shard(job.rows_path(out), chain([first], made)) if first is not None else 0
    importer.close()
    journal = {"rows": count, "sessions": sessions, "failed": failed, "sizes": sizes_of(job, importer),
               "contents": contents}  # fmt: skip
    write_text(job.journal_path(out), json.dumps(journal, sort_keys=True))
    return len(job.items)


def _line(item: Item, importer: Importer, session: Session, split: str) -> dict[str, Any]:
    """One line of the report."""
    line: dict[str, Any] = {
        "recording": item.item_id, "session_id": session.session_id, "split": split, "people": list(item.people),
        "seconds": round(session.duration_s, 3), "exchanges": len(session.exchanges),
        "hours": sum(e.end_s - e.start_s for e in session.exchanges) / 3600,
        "files": {name: _file_hash(path) for name, path in paths_of(item, importer).items() if path.is_file()},
    }  # fmt: skip
    if session.head_offset:
        line["head_offset"] = session.head_offset
    if session.sides is not None:
        line["sides"] = {
            "verdict": session.sides.verdict, "own": round(session.sides.own, 4),
            "other": round(session.sides.other, 4), "z": round(session.sides.z, 2), "exchanged": session.exchanged,
        }  # fmt: skip
    line |= session.about
    for key, value in (("videos", session.videos), ("notes", session.notes), ("skipped", session.skipped)):
        if value:
            line[key] = value
    return line


_LARGE = 1 << 28  # a database of many gigabytes is known by its name and size


def _file_hash(path: Path) -> str:
    size = path.stat().st_size
    return f"size:{size}" if size > _LARGE else file_hash(path)


def _keep_foreign(out: Path, session: Session, sides: list) -> None:
    """Arrays in the source's own terms, beside the shards: foreign/SESSION-SIDE.npz."""
    if not session.exchanges:
        return
    for number, side in enumerate(sides):
        if side.foreign:
            folder = out / "foreign"
            folder.mkdir(exist_ok=True)
            with whole(folder / f"{session.session_id}-{number}.npz") as partial, partial.open("wb") as file:
                np.savez(file, person=np.array(side.name), **side.foreign)


# -------------------------------------------------------------------------------------------------------------- shards


def _names(out: Path, jobs: list[Job]) -> Iterator[tuple[Job, Path]]:
    """Each job that has rows, and the shard that they become."""
    for split in SPLITS:
        filled = [j for j in jobs if j.split == split and json.loads(j.journal_path(out).read_text())["rows"]]
        for index, job in enumerate(filled):
            yield job, out / shard_name(split, index, len(filled))


def _score(out: Path, jobs: list[Job], report: ImportReport) -> None:
    """The scores that need all exchanges at once, and what filters say of all of them."""
    paths = [job.rows_path(out) for job, _ in _names(out, jobs)]
    report.notes += reactivity.score_files(paths).lines()
    rank_files(paths)
    report.tally = judge_files(paths, Filters())


def _pack(out: Path, jobs: list[Job]) -> None:
    for job, shard in _names(out, jobs):
        with suppress(FileNotFoundError):  # it is in its place already, or another machine was quicker
            os.replace(job.rows_path(out), shard)


def _unpack(out: Path, jobs: list[Job]) -> None:
    """Shards back to where they were made: what failed before may change how many there are."""
    for job, shard in list(_names(out, jobs)):
        if shard.exists():
            os.replace(shard, job.rows_path(out))
