"""Predicted events against the truth's: which of them are the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffdyad.evaluation.arrays import as_array

TOLERANCE_S = {"nod": 0.4, "smile": 0.5, "blink": 0.2, "brow_raise": 0.4, "gaze_shift": 0.2}
"""How far apart two events may be and still be one."""


@dataclass(frozen=True)
class Matches:
    """truth, prediction: indices of the matched events (N,), (N,); and how many events there are on each side."""

    truth: np.ndarray
    prediction: np.ndarray
    num_truth: int
    num_prediction: int

    @property
    def recall(self) -> float:
        """Share of the truth's events that were predicted; NaN where there are none."""
        return len(self.truth) / self.num_truth if self.num_truth else float("nan")

    @property
    def precision(self) -> float:
        """Share of the predicted events that are there; NaN where none is predicted."""
        return len(self.truth) / self.num_prediction if self.num_prediction else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of both, 2 N / (truth's + prediction's); NaN where neither side has an event."""
        events = self.num_truth + self.num_prediction
        return 2 * len(self.truth) / events if events else float("nan")


def match_events(truth_s, prediction_s, tolerance_s: float) -> Matches:
    """As many one-to-one matches as there can be within the tolerance, in time order: (N,), (M,) seconds.

    On a line with one tolerance for all, taking the earliest match each time is optimal.
    """
    truth, prediction = as_array(truth_s), as_array(prediction_s)
    order_t, order_p = np.argsort(truth, kind="stable"), np.argsort(prediction, kind="stable")
    pairs, i, j = [], 0, 0
    while i < len(truth) and j < len(prediction):
        offset = prediction[order_p[j]] - truth[order_t[i]]
        if abs(offset) <= tolerance_s + 1e-9:
            pairs.append((order_t[i], order_p[j]))
            i, j = i + 1, j + 1
        elif offset < 0:
            j += 1
        else:
            i += 1
    matched = np.array(pairs, np.int64).reshape(-1, 2)
    return Matches(matched[:, 0], matched[:, 1], len(truth), len(prediction))


def events_per_minute(num_events: int, seconds: float) -> float:
    """A rate; NaN for no time at all."""
    return 60 * num_events / seconds if seconds > 0 else float("nan")
