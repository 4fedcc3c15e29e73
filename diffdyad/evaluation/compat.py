"""Other projects' metrics, as their released code computes them: for comparison with their papers only.

Each function returns the names and units of its source, oddities included. The corrected figures live in the modules
beside this one. Written from the definitions; no source's code is in here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from diffdyad.evaluation.arrays import Array, as_array, as_arrays, as_indices
from diffdyad.evaluation.diversity import cluster_entropy_bits
from diffdyad.evaluation.frechet import Gaussian, frechet_distance

_DUALTALK_PARTS = {"exp": (slice(0, 50), 40), "jaw": (slice(50, 53), 10), "pose": (slice(53, 56), 10)}
_DUALTALK_STEP = 0.1  # the "dt" that their STS divides by, whatever the frame rate
_DUALTALK_LOG_FLOOR = 1e-6
_FRAME_CHANNELS = 56


def dualtalk(clips: Sequence[Mapping]) -> dict[str, float]:
    """DualTalk's (and TIMAR's) test figures; `gt`, `partner` and `pred` of each clip are (T, 56): exp, jaw, pose.

    Each is computed per clip and averaged over clips, for the three parts apart:
    fid: Frechet distance of Gaussians fitted to raw frames, gt against pred; p_fid: the same for [partner, gt] against
    [partner, pred]; mse; sid: entropy in bits of the truth's frames over k-means clusters (40 / 10 / 10, seed 0)
    fitted on the PREDICTION (the released code passes them in this order); sts: sqrt of the sum over frames and
    channels of the squared difference of velocities (per frame) / 0.1, not normalised by length; variance_pre,
    variance_gt: over time, mean over channels; rpcc: |corr(gt, partner) - corr(pred, partner)|, flattened.
    Source: DualTalk (Peng et al., CVPR 2025). Raises ValueError for no clips or shapes other than (T, 56).
    """
    loaded = _clips(clips)
    result: dict[str, float] = {}
    for part, (channels, clusters) in _DUALTALK_PARTS.items():
        rows = [_dualtalk_part(*(array[:, channels] for array in clip), clusters) for clip in loaded]
        result |= {f"{name}_{part}": float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return result


def _dualtalk_part(gt: np.ndarray, partner: np.ndarray, pred: np.ndarray, clusters: int) -> dict[str, float]:
    # k-means sees the precision that it was given: other digits could mean other clusters
    entropy = cluster_entropy_bits(gt, pred, clusters, order="dualtalk", log_floor=_DUALTALK_LOG_FLOOR)
    gt, partner, pred = as_arrays(gt, partner, pred)
    return {
        "fid": _frames_distance(gt, pred),
        "p_fid": _frames_distance(np.hstack([partner, gt]), np.hstack([partner, pred])),
        "mse": np.square(gt - pred).mean(),
        "sid": entropy,
        "sts": np.sqrt(np.square(np.diff(gt - pred, axis=0)).sum() / _DUALTALK_STEP),
        "variance_pre": pred.var(0).mean(),
        "variance_gt": gt.var(0).mean(),
        "rpcc": abs(_flat_correlation(gt, partner) - _flat_correlation(pred, partner)),
    }


def lm_listener(clips: Sequence[Mapping]) -> dict[str, float]:
    """LM-Listener's figures over all 56 channels at once: fd_56, p_fd_112, l2_mean_square; per clip, then the mean.

    Clips as in `dualtalk`. (Their channels are in another order, which changes none of the three.)
    Source: Ng et al., "Can Language Models Learn to Listen?", ICCV 2023.
    """
    rows = []
    for clip in _clips(clips):
        gt, partner, pred = as_arrays(*clip)
        paired = _frames_distance(np.hstack([partner, gt]), np.hstack([partner, pred]))
        rows.append((_frames_distance(gt, pred), paired, np.square(gt - pred).mean()))
    return dict(zip(("fd_56", "p_fd_112", "l2_mean_square"), np.mean(rows, 0).tolist()))


def codetalker(pairs: Iterable[tuple], template, lip_vertices, upper_face_vertices) -> dict[str, float]:
    """CodeTalker's figures (and FaceFormer's line): pairs of (gt, pred) vertices (T, V, 3), template (V, 3).

    lve_squared: mean over all frames of all clips of the largest SQUARED distance of a lip vertex. fdd_signed: per
    clip, the temporal deviation of each upper-face vertex's squared displacement from the template, averaged over
    vertices, truth less prediction, SIGNED; mean over clips. In the squared unit of the vertices.
    Source: Xing et al., "CodeTalker", CVPR 2023.
    """
    template, lips, upper = as_array(template), as_indices(lip_vertices), as_indices(upper_face_vertices)

    def liveliness(vertices: Array) -> float:
        displaced = np.square(vertices[:, upper] - template[upper]).sum(-1)
        return displaced.std(0).mean()

    worst, difference = [], []
    for pair in pairs:
        gt, pred = as_arrays(*pair)
        worst.append(np.square(gt[:, lips] - pred[:, lips]).sum(-1).max(1))
        difference.append(liveliness(gt) - liveliness(pred))
    _some(worst)
    return {"lve_squared": float(np.concatenate(worst).mean()), "fdd_signed": float(np.mean(difference))}


def unils(
    pairs: Iterable[tuple], lip_vertices, upper_face_vertices, num_frames: int | None = None
) -> dict[str, float]:
    """UniLS's figures (and ARTalk's): pairs of (gt, pred) vertices (T, V, 3) in metres, one batch, cut to the shortest.

    lve_mm: sqrt of the mean over frames of the largest squared distance of a lip vertex; mhd_mm: sqrt of the mean
    squared distance of all vertices; fdd_x100: mean over upper-face vertices of the absolute difference between the
    temporal deviations (unbiased) of x + y + z, mm x 100. Their index lists hold duplicates, which count as such.
    num_frames: the shortest's, where it is known; then the pairs may come one by one, and none is kept.
    """
    lips, upper = as_indices(lip_vertices), as_indices(upper_face_vertices)
    if num_frames is None:
        pairs = list(pairs)
        num_frames = min((len(vertices) for pair in pairs for vertices in pair), default=0)
    rows = []  # means over a clip's frames: all have as many
    for pair in pairs:
        gt, pred = (as_array(side)[:num_frames] for side in pair)  # (T, V, 3)
        squared = np.square(gt - pred).sum(-1)
        moving = [side[:, upper].sum(-1).std(0, ddof=1) for side in (gt, pred)]
        rows.append((squared[:, lips].max(-1).mean(), squared.mean(), np.abs(moving[1] - moving[0]).mean()))
    lips_m2, all_m2, livelier_m = np.mean(_some(rows), 0).tolist()
    return {"lve_mm": 1e3 * lips_m2**0.5, "mhd_mm": 1e3 * all_m2**0.5, "fdd_x100": 1e5 * livelier_m}


def _frames_distance(a: Array, b: Array) -> float:
    return frechet_distance(Gaussian.fit(a), Gaussian.fit(b))


def _flat_correlation(a: Array, b: Array) -> float:
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def _clips(clips: Sequence[Mapping]) -> list[list[np.ndarray]]:
    loaded = []
    for number, clip in enumerate(clips):
        arrays = [np.asarray(clip[name]) for name in ("gt", "partner", "pred")]
        shapes = {array.shape for array in arrays}
        if len(shapes) > 1 or arrays[0].ndim != 2 or arrays[0].shape[1] != _FRAME_CHANNELS:
            raise ValueError(f"expected gt, partner and pred of one shape (T, {_FRAME_CHANNELS}) in clip {number}, got "
                             f"{', '.join(str(array.shape) for array in arrays)}")  # fmt: skip
        loaded.append(arrays)
    if not loaded:
        raise ValueError("expected at least one clip, got none")
    return loaded


def _some(found: list) -> list:
    if not found:
        raise ValueError("expected at least one pair (gt, pred), got none")
    return found
