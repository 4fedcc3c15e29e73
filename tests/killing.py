"""A build that is interrupted in a step of its choice."""

from __future__ import annotations

from diffdyad.data.recordings.steps import Steps


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
