"""A build that is interrupted in a step of its choice."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from diffdyad.data.recordings.build import build_dataset
from diffdyad.data.recordings.steps import Steps


def build_with_kills(manifest: Path, out: Path, kills: Iterable[tuple[str, int]]) -> dict[str, bytes]:
    """A build that is killed in one step after the other (which, and in which of them), and then comes to its end: its
    shards."""
    for step, nth in kills:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            kill_in(patch, step, nth)
            build_dataset(manifest, out, workers=1)
        assert not list(out.glob("*.parquet")) and not list((out / ".steps").glob(".*"))
    build_dataset(manifest, out, workers=1)
    return shards_of(out)


def shards_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.parquet"))}


def kill_in(monkeypatch, step: str, nth: int = 1) -> None:
    """KeyboardInterrupt when the work of a step is done for the nth time, before its result is in its place."""
    real, calls = Steps.run, []

    def run(self, name, backend, version, settings, inputs, make):
        def killed(folder):
            values = make(folder)
            calls.append(name)
            if calls.count(step) == nth:
                raise KeyboardInterrupt
            return values

        return real(self, name, backend, version, settings, inputs, killed)

    monkeypatch.setattr(Steps, "run", run)
