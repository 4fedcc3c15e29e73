"""A run's log, written and read: `log.jsonl`, and whatever tracker was asked for, whose failure costs a warning."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffdyad.staging import write_text


class Journal:
    """Writes on the main process alone; `accelerator` is an accelerate.Accelerator, whose trackers are used."""

    def __init__(self, path: Path, accelerator: Any, warn: Callable[[str], None]):
        self.path, self.accelerator, self.warn = Path(path), accelerator, warn
        self.tracks = False

    def begin(self, step: int, tracker: str | None, name: str, settings: Mapping[str, Any]) -> None:
        """Forgets what an interrupted run wrote beyond `step`, and opens the tracker."""
        if not self.accelerator.is_main_process:
            return
        self._forget_beyond(step)
        if tracker is None:
            return
        if not self.accelerator.log_with:
            self.warn(f"the tracker {tracker} is not installed; going on with {self.path} alone")
            return
        self.tracks = self._try(
            tracker, lambda: self.accelerator.init_trackers(name, config=_flat(settings)), "cannot be reached"
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "time": time.time(), **values}) + "\n")
        if self.tracks:
            self.tracks = self._try("the tracker", lambda: self.accelerator.log(dict(values), step=step), "fails")

    def end(self) -> None:
        if self.tracks:
            self._try("the tracker", lambda: [tracker.finish() for tracker in self.accelerator.trackers], "fails")

    def _try(self, name: str, action: Callable[[], Any], what: str) -> bool:
        try:
            action()
        except Exception as error:  # a tracker is somebody else's service: whatever it raises
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self.warn(f"{name} {what} ({reason}); going on with {self.path} alone")
            return False
        return True

    def _forget_beyond(self, step: int) -> None:
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                continue  # cut short by a kill
        write_text(self.path, "".join(f"{line}\n" for line in kept))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, int | float | str]:
    """Nested settings as `section.key`, with values that every tracker takes."""
    found: dict[str, int | float | str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, int | float | str) else json.dumps(value)
    return found


@dataclass
class Log:
    """curves: name -> steps, values, in the order of the steps; `validation/NAME` are those of the validation."""

    curves: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)

    @property
    def last_step(self) -> int:
        return max((steps[-1] for steps, _ in self.curves.values()), default=0)

    @property
    def validation(self) -> dict[str, float]:
        """The figures of the last validation, by name."""
        found = {key.removeprefix("validation/"): curve for key, curve in self.curves.items() if "validation/" in key}
        last = max((steps[-1] for steps, _ in found.values()), default=None)
        return {name: values[-1] for name, (steps, values) in found.items() if steps[-1] == last}


def read_log(path: str | os.PathLike) -> Log:
    """A run's log.jsonl; empty where there is none. A resumed run has logged some steps twice: the last one counts.

    Lines cut off by an interruption are skipped.
    """
    rows: dict[str, dict[int, float]] = {}
    path = Path(path)
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            values = json.loads(line)
            step = values.pop("step")
        except (ValueError, KeyError, AttributeError):
            continue
        for name, value in values.items():
            if name != "time" and isinstance(value, int | float) and math.isfinite(value):
                rows.setdefault(name, {})[step] = float(value)
    return Log({name: tuple(map(list, zip(*sorted(points.items())))) for name, points in rows.items()})
