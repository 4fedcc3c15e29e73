"""What is usual of a face: how large its coefficients are, and how fast they change."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffdyad.motion import ARKIT_EXPRESSIONS
from diffdyad.tracking.rig import Rig

_ARKIT_FAST = [ARKIT_EXPRESSIONS.index(f"eyeBlink{side}") for side in ("Left", "Right")]


@dataclass(frozen=True)
class FitSettings:
    """Sizes that are usual, as standard deviations.

    landmark_m: error of a landmark, detector and correspondence together, in metres on the face; independent: of so
    many landmarks the errors count as independent: detectors err by regions, not by points. Steps are from frame to
    frame at 25 fps.
    """

    landmark_m: float = 1e-3
    independent: float = 60.0
    expression: float = 0.3
    flame_expression: float = 1.0
    eyelid: float = 0.6
    jaw: tuple[float, float, float] = (0.25, 0.04, 0.02)
    gaze: float = 0.25
    vergence: tuple[float, float] = (0.02, 0.06)  # of the eyes against each other: up and down, sideways
    turn_step: float = 0.05
    scale_step: float = 0.02
    jaw_step: float = 0.06
    expression_step: float = 0.2
    blink_step: float = 0.6
    gaze_step: float = 0.2
    focal_log: float = 0.35
    identity_frames: int = 24
    identity_counts: float = 10.0
    identity_rounds: int = 5
    rounds: int = 7


@dataclass
class Priors:
    """precision: (P - 6, P - 6) of the face's values; low, high: their bounds; steps: (P,) precision of the steps from
    frame to frame, 0 for the shift, which is free."""

    precision: Tensor
    low: Tensor
    high: Tensor
    steps: Tensor


def priors_of(rig: Rig, s: FitSettings, fps: float) -> Priors:
    arkit = rig.head.basis == "arkit"
    size = s.expression if arkit else s.flame_expression
    deviation = [*s.jaw, *[size] * rig.num_expression, *[s.eyelid] * rig.num_lids, *[s.gaze] * 4]
    precision = torch.diag(1 / torch.tensor(deviation) ** 2)
    for axis, spread in enumerate(s.vergence):
        left, right = (len(deviation) - 4 + axis, len(deviation) - 2 + axis)
        between = 1 / spread**2
        for a, b, sign in ((left, left, 1), (right, right, 1), (left, right, -1), (right, left, -1)):
            precision[a, b] += sign * between
    low, high = (torch.full((len(deviation),), bound) for bound in (-torch.inf, torch.inf))
    coefficients = slice(3, 3 + rig.num_expression)
    if arkit:
        low[coefficients], high[coefficients] = 0.0, 1.0
    lids = slice(coefficients.stop, coefficients.stop + rig.num_lids)
    low[lids], high[lids] = -0.2, 1.1
    low[0], high[0] = -0.03, 0.6
    step = [s.expression_step * (1.0 if arkit else 2.0)] * rig.num_expression
    if arkit:
        for index in _ARKIT_FAST:
            step[index] = s.blink_step
    steps = [*[s.turn_step] * 3, s.scale_step, torch.inf, torch.inf, *[s.jaw_step] * 3, *step,
             *[s.blink_step] * rig.num_lids, *[s.gaze_step] * 4]  # fmt: skip
    # a walk at another rate takes other steps: their variance is as long as the time between frames
    return Priors(precision, low, high, fps / 25.0 / torch.tensor(steps) ** 2)
