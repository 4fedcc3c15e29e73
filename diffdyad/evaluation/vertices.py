"""Vertex metrics: vertices in, millimetres out.

Vertices are (T, V, 3) in millimetres, truth and prediction alike, of the head standing still (`FaceGauge.points`);
`lips` and the like are index sets (`FaceGauge.sets`, `metric_vertices`). Means are over frames unless they say else.
Functions ending in `_per_frame_mm` return (T,): their means are the metrics, over whichever frames are of interest.
"""

from __future__ import annotations

import numpy as np
import torch

from diffdyad.evaluation.arrays import Array, as_array, as_arrays, as_indices

CLOSED_MM = 1.5
"""Lips no further apart than this, beyond what they are at rest, are closed."""


def lip_vertex_error_max_per_frame_mm(truth, prediction, lips) -> Array:
    """Largest distance of a lip vertex: (T,)."""
    return np.sqrt(squared_distances(truth, prediction, lips).max(1))


def lip_vertex_error_max_mean_mm(truth, prediction, lips) -> float:
    """Largest distance of a lip vertex in a frame, averaged over frames.

    Source: LVE of MeshTalk (Richard et al. 2021), whose descendants square it, or take a root of a mean; plain here.
    """
    return float(lip_vertex_error_max_per_frame_mm(truth, prediction, lips).mean())


def face_vertex_error_mean_per_frame_mm(truth, prediction, face) -> Array:
    """Mean distance over face vertices: (T,)."""
    return np.sqrt(squared_distances(truth, prediction, face)).mean(1)


def face_vertex_error_mean_mm(truth, prediction, face) -> float:
    """Mean distance over face vertices and frames. Source: MVE, MHD of many papers, there a root mean square."""
    return float(face_vertex_error_mean_per_frame_mm(truth, prediction, face).mean())


def vertex_spread_mm(vertices, chosen) -> Array:
    """How far each chosen vertex strays from its own mean place: (N,), root mean square over time, in 3-D."""
    points = vertices[:, as_indices(chosen)]
    points = as_array(points).reshape(len(points), -1)
    points = points - points.mean(0)
    return np.sqrt(np.einsum("tn,tn->n", points, points).reshape(-1, 3).sum(1) / len(points))


def upper_face_spread_difference_mean_mm(truth, prediction, upper_face) -> float:
    """Spread over time of the upper face's vertices, prediction less truth, averaged over vertices; signed.

    Positive: livelier than the truth. Source: FDD of CodeTalker, there of squared displacements from a template (in
    the square of a unit), truth less prediction. Too lively and too calm clips cancel: see the absolute one.
    """
    return float((vertex_spread_mm(prediction, upper_face) - vertex_spread_mm(truth, upper_face)).mean())


def upper_face_spread_error_mean_mm(truth, prediction, upper_face) -> float:
    """The same in absolute values, vertex by vertex. Source: FDD of UniLS and ARTalk, there of x + y + z."""
    return float(np.abs(vertex_spread_mm(prediction, upper_face) - vertex_spread_mm(truth, upper_face)).mean())


def mouth_opening_error_mean_mm(truth_opening, prediction_opening) -> float:
    """Absolute difference of the openings between the inner lips (T,), mm, averaged over frames."""
    truth_opening, prediction_opening = as_arrays(truth_opening, prediction_opening)
    return float(np.abs(truth_opening - prediction_opening).mean())


def lip_closure_iou(truth_opening, prediction_opening, closed_mm: float = CLOSED_MM) -> float:
    """Frames in which both mouths are closed over frames in which either is; openings (T,) mm. NaN where neither is.

    A mouth that is always closed keeps every closure, and gains nothing by it here.
    """
    truth, prediction = (opening <= closed_mm for opening in as_arrays(truth_opening, prediction_opening))
    either = (truth | prediction).sum()
    return float((truth & prediction).sum() / either) if either else float("nan")


def closed_near(opening_mm, frames, reach: int = 2, closed_mm: float = CLOSED_MM) -> np.ndarray:
    """Whether the lips close within `reach` frames of each given frame (N,): bool (N,).

    The share of True over the times of p, b, m is lip closure on bilabials; 2 frames at 25 Hz are 80 ms.
    """
    opening = as_array(opening_mm)
    frames = as_indices(frames)
    around = np.clip(frames[:, None] + np.arange(-reach, reach + 1), 0, len(opening) - 1)
    return (opening[around] <= closed_mm).any(1)


def lip_closure_ratio(opening_mm, frames, reach: int = 2, closed_mm: float = CLOSED_MM) -> float:
    """Share of the given frames, those of bilabials, near which the lips close; NaN where there are none."""
    hits = closed_near(opening_mm, frames, reach, closed_mm)
    return float(hits.mean()) if len(hits) else float("nan")


def squared_distances(truth, prediction, chosen) -> Array:
    """Of each chosen vertex in each frame: (T, N) mm^2, in the precision given."""
    truth, prediction = (x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
                         for x in (truth, prediction))  # fmt: skip
    if truth.shape != prediction.shape:
        raise ValueError(f"expected vertices of one shape, got {truth.shape} and {prediction.shape}")
    chosen = as_indices(chosen)
    difference = truth[:, chosen] - prediction[:, chosen]
    return np.einsum("tvc,tvc->tv", difference, difference)
