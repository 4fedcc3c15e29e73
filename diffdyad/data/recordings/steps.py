"""Steps of the work, each done once: their results lie on the disk under a key of everything that they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from diffdyad.staging import cleared, nobody_elses

STEPS, STEP_FILE = ".steps", "step.json"
_FORGOTTEN_S = 86400.0  # another machine may be at work on a step for hours, and write its files at the end


@dataclass(frozen=True)
class StepResult:
    """What a step gave: values for `step.json`, and files in `folder`. key stands for both in what comes after."""

    key: str
    folder: Path
    values: dict[str, Any]


@dataclass
class Steps:
    """The steps of one recording. folder: where results of all recordings lie; about: what was used, for the report."""

    folder: Path
    about: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(
        self, step: str, backend: str, version: str, settings: Mapping[str, Any], inputs: list[str],
        make: Callable[[Path], dict[str, Any]],
    ) -> StepResult:
        """The result of a step, made by `make(folder)` (which returns values for JSON) unless it is there already.

        inputs: keys of the steps before, or hashes of files. A result appears whole or not at all.
        """
        what = {"step": step, "backend": backend, "version": version, "settings": dict(settings), "inputs": inputs}
        key = f"{step}-{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]}"
        self.about[step] = {"backend": backend, "version": version, "settings": dict(settings), "key": key}
        folder = self.folder / key
        if (values := _values(folder / STEP_FILE)) is None:
            with cleared(nobody_elses(folder)) as partial:
                partial.mkdir(parents=True)
                text = json.dumps({**what, "values": make(partial)}, sort_keys=True, indent=1)
                (partial / STEP_FILE).write_text(text)
                _put(partial, folder)
            values = _values(folder / STEP_FILE)
        return StepResult(key, folder, values)


def _put(partial: Path, folder: Path) -> None:
    """Into its place, unless somebody else was quicker: that result is the same, and may be in use."""
    if _values(folder / STEP_FILE) is not None:
        return
    shutil.rmtree(folder, ignore_errors=True)  # damaged
    try:
        os.replace(partial, folder)
    except OSError:
        if _values(folder / STEP_FILE) is None:
            raise


def _values(path: Path) -> dict[str, Any] | None:
    """What a step gave; None where it was not done, or cannot be read any more."""
    try:
        return json.loads(path.read_text())["values"]
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError):
        return None


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, which a process reads once for it, unless the file changes."""
    stat = path.stat()
    return _hash(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _hash(path: Path, size: int, mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sweep(folder: Path) -> None:
    """Removes what killed processes left half-done; what others may be at work on stays."""
    for partial in folder.glob(".*.partial"):
        if time.time() - partial.stat().st_mtime > _FORGOTTEN_S:
            shutil.rmtree(partial, ignore_errors=True)
