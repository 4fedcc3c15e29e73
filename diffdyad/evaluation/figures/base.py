"""A figure of the table: what it measures on one clip, as a sum and a count, so that clips and frames add up.

Every figure is a ratio of sums over clips: a mean over frames is (sum of the frames' values, number of frames), a rate
(events, minutes). So phases, kinds and intervals need no definitions of their own, and nothing is averaged twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from diffdyad.evaluation import dynamics, vertices
from diffdyad.evaluation.clips import Clip
from diffdyad.evaluation.correlation import is_constant
from diffdyad.evaluation.tracks import Tracks, Undefined

STILL = 1e-6
"""Below this nothing moves, in whatever unit: float32 rounding on the way through a head."""

_SHORTEST_S = 1.0  # for a correlation or a spread over time


@dataclass
class Company:
    """What surrounds a clip: its voice (in the clip) and its partner."""

    clip: Clip
    partner: Tracks | None = None


@dataclass
class Scene:
    """One clip with the truth and one prediction of it; `others`: what surrounds other people, for shuffled pairs."""

    clip: Clip
    truth: Tracks
    prediction: Tracks
    partner: Tracks | None = None
    others: Sequence[Company] = field(default_factory=list, repr=False)
    shared: dict[tuple[str, bytes], Any] = field(default_factory=dict, repr=False)

    def once(self, what: str, frames: np.ndarray, make: Callable[[], Any]) -> Any:
        """What `make` gives, remembered for all predictions of the clip, which share `shared`: it must depend on
        nothing but the clip, the truth, the partner and these frames (T,) bool."""
        key = what, frames.tobytes()
        if key not in self.shared:
            self.shared[key] = make()
        return self.shared[key]

    @property
    def fps(self) -> float:
        return self.truth.fps

    @cached_property
    def face_known(self) -> np.ndarray:
        """Frames in which both faces are known: (T,)"""
        return self.truth.face_known & self.prediction.face_known

    @cached_property
    def _squares_mm2(self) -> np.ndarray:
        """Squared distances of the lips' and the face's points, which come first: (T, P)"""
        stop = self.truth.sets["face"].stop
        return vertices.squared_distances(self.truth.points, self.prediction.points, slice(stop))

    @cached_property
    def lip_error_mm(self) -> np.ndarray:
        """Largest distance of a lip vertex: (T,)"""
        return np.sqrt(self._squares_mm2[:, self.truth.sets["lips"]].max(1))

    @cached_property
    def face_squares_mm2(self) -> np.ndarray:
        """Squared distance of each of the face's points: (T, P)"""
        return self._squares_mm2[:, self.truth.sets["face"]]

    @cached_property
    def face_error_mm(self) -> np.ndarray:
        """Mean distance of the face's points: (T,)"""
        return np.sqrt(self.face_squares_mm2).mean(1)

    @cached_property
    def opening_error_mm(self) -> np.ndarray:
        """(T,)"""
        return np.abs(self.truth.opening_mm - self.prediction.opening_mm)

    @cached_property
    def head_error_deg(self) -> np.ndarray:
        """(T,)"""
        return dynamics.rotation_angle_deg(self.truth.head, self.prediction.head)

    @cached_property
    def gaze_error_deg(self) -> np.ndarray:
        """(T,)"""
        return dynamics.rotation_angle_deg(self.truth.gaze, self.prediction.gaze)


@dataclass(frozen=True)
class Sums:
    total: float
    count: float


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    name: with unit and reduction; aim: "lower", "higher", or "truth" (as the row of the truth has it);
    measure(scene, frames) -> Sums over the frames (T,) bool, or raises `Undefined`; by_phase: whether it makes sense
    on some of the frames only; root: the square root of the ratio is shown.
    """

    name: str
    unit: str
    aim: str
    about: str
    measure: Callable[..., Sums] = field(repr=False)
    by_phase: bool = True
    root: bool = False


def mean_over(values: np.ndarray, frames: np.ndarray) -> Sums:
    """Per-frame values (T,), averaged over frames (T,) bool."""
    count = int(np.count_nonzero(frames))
    if not count:
        raise Undefined("no such frames")
    return Sums(float(values[frames].sum(dtype=np.float64)), count)


def spans(frames: np.ndarray, order: int) -> np.ndarray:
    """Whether frames k .. k + order all count: (T,) -> (T - order,), for differences of that order."""
    kept = frames
    for _ in range(min(order, len(frames))):
        kept = kept[1:] & kept[:-1]
    return kept


def enough(frames: np.ndarray, fps: float) -> None:
    """Undefined for less than a second."""
    if frames.sum() < _SHORTEST_S * fps:
        raise Undefined("less than a second")


def moving(values: np.ndarray, what: str) -> np.ndarray:
    """The values (T, ...), unless they are constant, which is Undefined and said so."""
    if is_constant(values, STILL):
        raise Undefined(f"{what} constant")
    return values
