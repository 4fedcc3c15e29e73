"""Several samples of one clip together: how different they are, and how well they cover the truth.

`measure` takes `Samples`. Distances are those of the face's points, root mean square over points and time, mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from diffdyad.evaluation.diversity import energy_score_of_distances
from diffdyad.evaluation.figures.base import Figure, Scene, Sums
from diffdyad.evaluation.tracks import Undefined
from diffdyad.evaluation.vertices import squared_distances


@dataclass
class Samples:
    """The scenes of all K samples of one clip."""

    scenes: Sequence[Scene]

    @cached_property
    def known(self) -> np.ndarray:
        """Frames in which all faces are known: (T,)"""
        return np.logical_and.reduce([scene.face_known for scene in self.scenes])

    @cached_property
    def to_truth(self) -> np.ndarray:
        """Mean over points of the squared distance to the truth: (K, T) mm^2"""
        return np.stack([scene.face_squares_mm2.mean(1) for scene in self.scenes])

    @cached_property
    def between(self) -> np.ndarray:
        """The same between different samples: (pairs, T) mm^2"""
        faces, chosen = [scene.prediction.points for scene in self.scenes], self.scenes[0].truth.sets["face"]
        pairs = zip(*np.triu_indices(len(faces), 1))
        return np.stack([squared_distances(faces[i], faces[j], chosen).mean(1) for i, j in pairs])


def _rms(squares: np.ndarray, samples: Samples, frames: np.ndarray) -> np.ndarray:
    """(N, T) -> (N,), over the known ones of the frames."""
    known = frames & samples.known
    if not known.any():
        raise Undefined("no such frames")
    return np.sqrt(squares[:, known].mean(1, dtype=np.float64))


def _sums(value: float, samples: Samples, frames: np.ndarray) -> Sums:
    count = int((frames & samples.known).sum())
    return Sums(value * count, count)


def _energy_score(samples: Samples, frames: np.ndarray) -> Sums:
    off = _rms(samples.to_truth, samples, frames)
    between = _rms(samples.between, samples, frames) if len(samples.scenes) > 1 else []
    return _sums(energy_score_of_distances(off, between), samples, frames)


def _best(samples: Samples, frames: np.ndarray) -> Sums:
    return _sums(float(_rms(samples.to_truth, samples, frames).min()), samples, frames)


def _diversity(samples: Samples, frames: np.ndarray) -> Sums:
    if len(samples.scenes) < 2:
        raise Undefined("a single sample")
    return _sums(float(_rms(samples.between, samples, frames).mean()), samples, frames)


FIGURES = (
    Figure("energy_score_rms_mm", "mm", "lower", "distance of samples to the truth less half their distance to each "
           "other (fair, proper), mean over clips by their frames; of a single sample, the distance", _energy_score),
    Figure("best_of_samples_rms_mm", "mm", "lower", "distance of the nearest sample to the truth; falls with the "
           "number of samples by itself", _best),
    Figure("sample_diversity_rms_mm", "mm", "higher", "distance between different samples of a clip", _diversity),
)  # fmt: skip
