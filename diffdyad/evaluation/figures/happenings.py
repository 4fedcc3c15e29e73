"""Events: how often they happen, and whether they happen when the truth's do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from diffdyad.evaluation.events import Events
from diffdyad.evaluation.figures.base import Figure, Scene, Sums
from diffdyad.evaluation.matching import TOLERANCE_S, match_events
from diffdyad.evaluation.tracks import EVENTS, Tracks, Undefined

_PLURALS = {"nod": "nods", "smile": "smiles", "blink": "blinks", "brow_raise": "brow_raises",
            "gaze_shift": "gaze_shifts"}  # fmt: skip
_ABOUT = {
    "nod": "head down by 1.5 degrees and up again", "smile": "onsets of a rise by 0.15 for 0.3 s",
    "blink": "lids closing by 0.2 for up to 0.5 s", "brow_raise": "brows up by 0.15 for 0.12 to 4 s",
    "gaze_shift": "jumps of the eyes by 3 degrees at 40 degrees/s",
}  # fmt: skip


def _within(side: Tracks, kind: str, frames: np.ndarray) -> Events:
    found = side.events(kind)
    if not len(found) or frames.all():
        return found
    keep = frames[side.frames_of(found.times_s)]
    return Events(found.times_s[keep], found.durations_s[keep])


def _rate(kind: str) -> Callable[[Scene, np.ndarray], Sums]:
    def measure(scene: Scene, frames: np.ndarray) -> Sums:
        found = _within(scene.prediction, kind, frames)
        if not frames.any():
            raise Undefined("no such frames")
        return Sums(len(found), float(frames.sum() / scene.fps / 60))

    return measure


def _f1(kind: str) -> Callable[[Scene, np.ndarray], Sums]:
    def measure(scene: Scene, frames: np.ndarray) -> Sums:
        truth, prediction = (_within(side, kind, frames) for side in (scene.truth, scene.prediction))
        matches = match_events(truth.times_s, prediction.times_s, TOLERANCE_S[kind])
        events = matches.num_truth + matches.num_prediction
        if not events:
            raise Undefined(f"no {_PLURALS[kind].replace('_', ' ')} on either side")
        return Sums(2 * len(matches.truth), events)

    return measure


def _blink_duration(scene: Scene, frames: np.ndarray) -> Sums:
    found = _within(scene.prediction, "blink", frames)
    if not len(found):
        raise Undefined("no blinks")
    return Sums(float(found.durations_s.sum()), len(found))


FIGURES = (
    *(Figure(f"{_PLURALS[kind]}_per_minute", "1/min", "truth", _ABOUT[kind], _rate(kind)) for kind in EVENTS),
    Figure("blink_duration_mean_s", "s", "truth", "time that the lids are closed by more than 0.2, mean over blinks",
           _blink_duration),
    *(Figure(f"{kind}_f1", "", "higher", f"{_PLURALS[kind].replace('_', ' ')} matched one to one with the truth's "
             f"within {TOLERANCE_S[kind]:g} s: 2 matches / (truth's + prediction's)", _f1(kind)) for kind in EVENTS),
)  # fmt: skip
