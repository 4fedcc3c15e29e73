"""How much and how smoothly a face moves, compared with the truth's: a frozen face is accurate and dead."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from diffdyad.evaluation import dynamics
from diffdyad.evaluation.figures.base import STILL, Figure, Scene, Sums, enough, mean_over, spans
from diffdyad.evaluation.tracks import Tracks, Undefined


def _spreads(scene: Scene, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    known = frames & scene.face_known
    enough(known, scene.fps)
    return scene.truth.upper_face_spread_mm(known), scene.prediction.upper_face_spread_mm(known), int(known.sum())


def _spread_difference(scene: Scene, frames: np.ndarray) -> Sums:
    truth, prediction, count = _spreads(scene, frames)
    return Sums(float((prediction - truth).mean()) * count, count)


def _spread_error(scene: Scene, frames: np.ndarray) -> Sums:
    truth, prediction, count = _spreads(scene, frames)
    return Sums(float(np.abs(prediction - truth).mean()) * count, count)


def _face_speed(scene: Scene, frames: np.ndarray) -> Sums:
    face = scene.prediction
    return mean_over(face.point_speed_mm_s, spans(frames & face.face_known, 1))


def _face_jerk(scene: Scene, frames: np.ndarray) -> Sums:
    face = scene.prediction
    return mean_over(face.point_jerk_mm_s3, spans(frames & face.face_known, 3))


def _head_speed(scene: Scene, frames: np.ndarray) -> Sums:
    head = scene.prediction
    return mean_over(head.head_speed_deg_s, spans(frames & head.head_known, 1))


def _gaze_speed(scene: Scene, frames: np.ndarray) -> Sums:
    eyes = scene.prediction
    return mean_over(eyes.gaze_speed_deg_s, spans(frames & eyes.gaze_known, 1))


def _seam_jerk(scene: Scene, frames: np.ndarray) -> Sums:
    scene.prediction.points  # noqa: B018
    seams = scene.truth.frames_of(scene.clip.seams_s)
    seams = seams[(seams > 0) & frames[seams]] if len(seams) else seams
    if not len(seams):
        raise Undefined("no times of window joins given")
    ratio = dynamics.seam_jerk_ratio(scene.prediction.points, scene.fps, seams)
    if not np.isfinite(ratio):
        raise Undefined("prediction constant")
    return Sums(ratio * len(seams), len(seams))


def _expression(side: Tracks) -> tuple[np.ndarray, np.ndarray]:
    return side.expression, side.known("expression")


def _jaw(side: Tracks) -> tuple[np.ndarray, np.ndarray]:
    return side.jaw, side.known("jaw_pose")


def _head(side: Tracks) -> tuple[np.ndarray, np.ndarray]:
    return side.head, side.head_known


def _gaze(side: Tracks) -> tuple[np.ndarray, np.ndarray]:
    return side.gaze, side.gaze_known


CHANNELS: dict[str, Callable[[Tracks], tuple[np.ndarray, np.ndarray]]] = {
    "expression": _expression, "jaw": _jaw, "head": _head, "gaze": _gaze,
}  # fmt: skip
"""Channel groups as distributions see them: motion (T, D) and the frames in which it is known (T,)."""


def _variance(values: np.ndarray) -> float:
    """Over time, summed over channels: (T, D)"""
    return values.var(0, dtype=np.float64).sum()


def _variance_ratio(name: str) -> Callable[[Scene, np.ndarray], Sums]:
    def measure(scene: Scene, frames: np.ndarray) -> Sums:
        truth, known = CHANNELS[name](scene.truth)
        prediction, predicted = CHANNELS[name](scene.prediction)
        known = frames & known & predicted
        enough(known, scene.fps)
        true_spread = scene.once(f"{name} variance", known, lambda: _variance(truth[known]))
        if true_spread <= STILL**2:
            raise Undefined("truth constant")
        seconds = known.sum() / scene.fps
        return Sums(float(_variance(prediction[known]) * seconds), float(true_spread * seconds))

    return measure


FIGURES = (
    Figure("upper_face_spread_difference_mean_mm", "mm", "truth",
           "spread over time of the upper face's vertices, prediction less truth (FDD, signed, in mm); 0 = as lively",
           _spread_difference),
    Figure("upper_face_spread_error_mean_mm", "mm", "lower",
           "the same in absolute values, vertex by vertex", _spread_error),
    Figure("face_speed_mean_mm_s", "mm/s", "truth", "speed of the face's points, mean over points and frames",
           _face_speed),
    Figure("face_jerk_mean_mm_s3", "mm/s^3", "truth", "third derivative of the face's points, mean over points and "
           "frames", _face_jerk),
    Figure("seam_jerk_ratio", "", "truth", "jerk at window joins over jerk elsewhere; 1 = no seams", _seam_jerk),
    Figure("head_speed_mean_deg_s", "deg/s", "truth", "rotation speed of the head, mean over frames", _head_speed),
    Figure("gaze_speed_mean_deg_s", "deg/s", "truth", "rotation speed of the eyes within the head, mean over frames",
           _gaze_speed),
    *(Figure(f"{name}_variance_ratio", "", "truth", f"temporal variance of the {name} over the truth's, each summed "
             "over channels and clips", _variance_ratio(name)) for name in CHANNELS),
)  # fmt: skip
