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


def _closures(scene: Scene, frames: np.ndarray) -> Sums:
    known = frames & scene.face_known
    sides = (scene.truth.opening_mm, scene.prediction.opening_mm)
    truth, prediction = (opening[known] <= vertices.CLOSED_MM for opening in sides)
    either = int((truth | prediction).sum())
    if not either:
        raise Undefined("neither mouth ever closes")
    return Sums(int((truth & prediction).sum()), either)


def _bilabials_closed(scene: Scene, frames: np.ndarray) -> Sums:
    opening = scene.prediction.opening_mm  # first: without a head no times would help
    at = scene.truth.frames_of(scene.clip.bilabials_s)
    at = at[(frames & scene.face_known)[at]]
    if not len(at):
        raise Undefined("no times of bilabials given")
    reach = max(1, round(_CLOSURE_REACH_S * scene.fps))
    return Sums(float(vertices.closed_near(opening, at, reach).sum()), len(at))


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
    Figure("lip_closure_iou", "", "higher",
           "frames in which both mouths are closed (1.5 mm) over frames in which either is", _closures),
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
