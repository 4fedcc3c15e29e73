"""A few figures of a few answers, for the log of a training: how near they are, and whether they move as people do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffdyad.evaluation.clips import Clip
from diffdyad.evaluation.controls import CONTROLS
from diffdyad.evaluation.figures import CLIP_FIGURES, POOLED_FIGURES
from diffdyad.evaluation.figures.liveliness import CHANNELS
from diffdyad.evaluation.gauge import FaceGauge
from diffdyad.evaluation.score import score
from diffdyad.evaluation.work import ScoreSettings
from diffdyad.motion import Motion, MotionLayout

_PLAIN = (
    "lip_vertex_error_max_mean_mm", "mouth_opening_error_mean_mm", "expression_error_rms",
    "head_rotation_error_mean_deg", *(f"{name}_variance_ratio" for name in CHANNELS),
)  # fmt: skip
_RATIOS = {
    "face_speed_ratio": ("face_speed_mean_mm_s", "speed of the face's points over the truth's"),
    "face_jerk_ratio": ("face_jerk_mean_mm_s3", "third derivative of the face's points over the truth's"),
    "head_speed_ratio": ("head_speed_mean_deg_s", "rotation speed of the head over the truth's"),
}
_FRECHET = {name: f"frechet_{name}_movement_per_channel" for name in CHANNELS}
_CLIPS_PER_CHANNEL = 2  # below, a covariance is made of too few people, and its correction larger than it

_ABOUT = {figure.name: figure.about for figure in (*CLIP_FIGURES, *POOLED_FIGURES)}
MEANINGS = {
    **{name: _ABOUT[name] for name in _PLAIN}, **{name: about for name, (_, about) in _RATIOS.items()},
    **{name: _ABOUT[name] for name in _FRECHET.values()},
}  # fmt: skip
"""What the figures of `brief` mean; names are those of `diffdyad evaluate`, and ratios are 1 where it is as lively."""


def brief(clips: Sequence[Clip], answers: Mapping[str, Motion], gauge: FaceGauge | None) -> dict[str, float]:
    """Figures by name, of one answer to each clip, by its id; those that are undefined here are left out.

    gauge: the head of the clips' basis; None leaves out what needs one. Raises UserError as `score` does: for fewer
    than two clips, or answers that are not of them.
    """
    truth = next(control for control in CONTROLS if control.name == "truth")
    settings = ScoreSettings(units="clips", num_resamples=1, controls=(truth,))  # no intervals are looked at
    report = score(clips, {name: [motion] for name, motion in answers.items()}, gauge, settings)
    found = {name: report.value(name) for name in _PLAIN}
    for name, (figure, _) in _RATIOS.items():
        own, theirs = report.value(figure), report.value(figure, truth.name)
        found[name] = own / theirs if own is not None and theirs else None
    for group, figure in _FRECHET.items():
        if len(clips) >= _CLIPS_PER_CHANNEL * _channels(clips[0].truth.layout, group):
            found[figure] = report.value(figure)
    return {name: value for name, value in found.items() if value is not None}


def _channels(layout: MotionLayout, group: str) -> int:
    """Of a group's posture and movement."""
    return 2 * (layout.num_expression if group == "expression" else 3)
