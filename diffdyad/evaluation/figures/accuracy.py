"""How far a prediction is from the truth. Lower is better, and no listener's face has only one right answer."""

from __future__ import annotations

import numpy as np

from diffdyad.evaluation import vertices
from diffdyad.evaluation.figures.base import Figure, Scene, Sums, mean_over
from diffdyad.evaluation.tracks import Undefined

_CLOSURE_REACH_S = 0.08


def _lip_error(scene: Scene, frames: np.ndarray) -> Sums:
    return mean_over(scene.lip_error_mm, frames & scene.face_known)


def _face_error(scene: Scene, frames: np.ndarray) -> Sums:
    return mean_over(scene.face_error_mm, frames & scene.face_known)


def _opening_error(scene: Scene, frames: np.ndarray) -> Sums:
    return mean_over(scene.opening_error_mm, frames & scene.face_known)


def _closed(scene: Scene, at: np.ndarray, frames: np.ndarray, why_none: str) -> Sums:
    at = at[(frames & scene.face_known)[at]]
    if not len(at):
        raise Undefined(why_none)
    reach = max(1, round(_CLOSURE_REACH_S * scene.fps))
    return Sums(float(vertices.closed_near(scene.prediction.opening_mm, at, reach).sum()), len(at))


def _closures_kept(scene: Scene, frames: np.ndarray) -> Sums:
    return _closed(scene, vertices.closures(scene.truth.opening_mm), frames, "the truth's lips never close")


def _bilabials_closed(scene: Scene, frames: np.ndarray) -> Sums:
    scene.prediction.opening_mm  # noqa: B018, without a head no times would help
    return _closed(scene, scene.truth.frames_of(scene.clip.bilabials_s), frames, "no times of bilabials given")


def _expression_error(scene: Scene, frames: np.ndarray) -> Sums:
    known = frames & scene.truth.known("expression") & scene.prediction.known("expression")
    truth, prediction = (side.motion.select("expression").numpy() for side in (scene.truth, scene.prediction))
    return mean_over(np.square(truth - prediction).mean(1), known)


def _head_error(scene: Scene, frames: np.ndarray) -> Sums:
    known = frames & scene.truth.head_known & scene.prediction.head_known
    return mean_over(scene.head_error_deg, known)


def _gaze_error(scene: Scene, frames: np.ndarray) -> Sums:
    known = frames & scene.truth.gaze_known & scene.prediction.gaze_known
    return mean_over(scene.gaze_error_deg, known)


FIGURES = (
    Figure("lip_vertex_error_max_mean_mm", "mm", "lower",
           "largest distance of a lip vertex, mean over frames (LVE, neither squared nor rooted)", _lip_error),
    Figure("face_vertex_error_mean_mm", "mm", "lower",
           "distance of the face's vertices, mean over vertices and frames", _face_error),
    Figure("mouth_opening_error_mean_mm", "mm", "lower",
           "absolute difference of the opening between the inner lips, mean over frames", _opening_error),
    Figure("lip_closure_kept_ratio", "", "higher",
           "share of the truth's lip closures (1.5 mm) near which (80 ms) the prediction closes too", _closures_kept),
    Figure("lip_closure_bilabial_ratio", "", "higher",
           "share of p, b, m near which (80 ms) the prediction's lips close (1.5 mm)", _bilabials_closed),
    Figure("expression_error_rms", "coefficient", "lower",
           "root mean square difference of expression coefficients, over frames and coefficients", _expression_error,
           root=True),
    Figure("head_rotation_error_mean_deg", "deg", "lower",
           "angle between the head rotations (neck included), mean over frames", _head_error),
    Figure("gaze_error_mean_deg", "deg", "lower",
           "angle between the eyes' mean rotations within the head, mean over frames", _gaze_error),
)  # fmt: skip
