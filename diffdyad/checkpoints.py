"""Checkpoints of a run: folders that appear whole or not at all, and are checked before anything is read from them.

A checkpoint is `step-00000500/`: safetensors files and `state.json`, written last, which holds the format, the step,
and the size and SHA-256 of every file. All is written under a hidden name, flushed to the disk, then renamed: what is
killed on the way leaves the one before, and what the disk damaged later is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from diffdyad.errors import EXIT_FAILED, UserError

FORMAT = 2
"""Raised whenever the content changes. Format 1 had no sums, and the optimizer's state in `optimizer.pt`."""

STATE = "state.json"
_FORMAT_1 = ("model.safetensors", "ema.safetensors", "optimizer.pt")
_BLOCK = 1 << 22


class SaveFailed(UserError):
    """A checkpoint could not be written; the ones before are untouched."""

    exit_code = EXIT_FAILED


class Damaged(ValueError):
    """A checkpoint is not what was written; the message says in what."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint. state: what `write` was given, and the step."""

    folder: Path
    format: int
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return self.state["step"]

    def tensors(self, name: str) -> dict[str, Tensor] | None:
        """The tensors of one file, on the CPU; None where an older format has no such file."""
        path = self.folder / f"{name}.safetensors"
        return load_file(path) if path.exists() else None

    def first_format_optimizer(self) -> dict:
        """Format 1: the optimizer's own state dict."""
        return torch.load(self.folder / "optimizer.pt", weights_only=True)


def folders(place: Path) -> list[Path]:
    """The checkpoints in a folder, whole or not, oldest first."""
    return sorted(Path(place).glob("step-????????"))


def newest(place: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; `warn` is told of each damaged one that was passed over.

    Raises UserError where there are checkpoints and none is whole, or the newest is of a later version.
    """
    damaged = []
    for folder in reversed(folders(place)):
        try:
            found = read(folder)
        except Damaged as error:
            damaged.append(f"{folder.name} ({error})")
            continue
        for line in damaged:
            warn(f"passing over the damaged checkpoint {line} in {place}; going on from {folder.name}")
        return found
    if damaged:
        raise UserError(
            f"expected a whole checkpoint in {place}, found only damaged ones: {', '.join(damaged)}; "
            "remove them to begin again, or give another output"
        )
    return None


def read(folder: Path) -> Checkpoint:
    """Checks a checkpoint's files against what was written. Raises Damaged, or UserError for a later version."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        step, number, files = state["step"], state.pop("format", 1), state.pop("files", None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{STATE} is missing or unreadable: {type(error).__name__}") from None
    if isinstance(number, int) and number > FORMAT:
        raise UserError(
            f"the checkpoint {folder} is of format {number}, written by a newer diffdyad; this one reads up to "
            f"{FORMAT}: update diffdyad, or give another output"
        )
    if folder.name != _name(step) or not isinstance(number, int):
        raise Damaged(f"{STATE} says step {step!r} and format {number!r}")
    if number == 1:
        _check_first_format(folder)
    else:
        _check_sums(folder, files)
    return Checkpoint(folder, number, state)


def _check_sums(folder: Path, files: Any) -> None:
    if not isinstance(files, dict) or not files:
        raise Damaged(f"{STATE} names no files")
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise Damaged(f"{name} is missing")
        size = path.stat().st_size
        if size != expected["size"]:
            raise Damaged(f"{name} has {size} bytes, not {expected['size']}")
        if _sha256(path) != expected["sha256"]:
            raise Damaged(f"{name} has another SHA-256 than was written")


def _check_first_format(folder: Path) -> None:
    for name in _FORMAT_1:
        if not (folder / name).is_file():
            raise Damaged(f"{name} is missing")
    for name in _FORMAT_1[:2]:
        try:
            with safe_open(folder / name, "pt"):
                pass  # the header is checked against the file's length
        except (SafetensorError, OSError) as error:
            raise Damaged(f"{name} cannot be read: {error}") from None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------- writing


def write(place: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
    """Writes a checkpoint, one file per entry of `tensors`.

    Raises SaveFailed where it cannot be written (no space is left, say); the checkpoints before are kept.
    """
    place = Path(place)
    target = place / _name(step)
    fresh, aside = place / f".{target.name}.partial", place / f".{target.name}.old"
    earlier = [folder for folder in folders(place) if folder != target]
    try:
        clean(place)
        fresh.mkdir(parents=True)
        files = {}
        for name, values in tensors.items():
            data = save({key: value.detach().cpu().contiguous() for key, value in values.items()})
            _put(fresh / f"{name}.safetensors", data)
            files[f"{name}.safetensors"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        record = {"format": FORMAT, "step": step, **state, "files": files}
        _put(fresh / STATE, (json.dumps(record, indent=1) + "\n").encode())
        _flush(fresh)
        if target.exists():  # a damaged one that was passed over
            os.replace(target, aside)
        os.replace(fresh, target)
        _flush(place)
    except OSError as error:
        last = f"{earlier[-1].name} is kept" if earlier else "there is none before it"
        raise SaveFailed(
            f"cannot write the checkpoint {target}: {error.strerror or error}; {last}: free some space there, and "
            "give the same command again"
        ) from error
    finally:
        for leftover in (fresh, aside):
            shutil.rmtree(leftover, ignore_errors=True)
    return target


def prune(place: Path, keep: int) -> None:
    """Removes all but the newest `keep`."""
    for old in folders(place)[:-keep]:
        remove(old)


def remove(folder: Path) -> None:
    """Removes a checkpoint; a kill in between leaves a hidden folder, not half a checkpoint."""
    hidden = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    os.replace(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def clean(place: Path) -> None:
    """Removes what a kill has left behind."""
    for leftover in Path(place).glob(".step-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _name(step: Any) -> str:
    return f"step-{step:08d}" if isinstance(step, int) else ""


def _put(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    """Makes names of a folder last a power cut, too, where the system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
