"""K-means, with scikit-learn's draws: the same seed finds the same clusters.

Source: Lloyd 1982; seeding by Arthur and Vassilvitskii 2007 (k-means++), with several candidates a step, of which the
best is kept. The order and number of draws follow `sklearn.cluster.KMeans(k, random_state=seed, n_init="auto")`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_ITERATIONS = 300
_TOLERANCE = 1e-4  # of the data's mean variance: centres that move by less have settled


@dataclass(frozen=True)
class Clusters:
    """Centres (K, D)."""

    centres: np.ndarray

    def assign(self, points: np.ndarray) -> np.ndarray:
        """The nearest centre of each point: (N, D) -> (N,)."""
        return _nearest(np.asarray(points, self.centres.dtype), self.centres)

    def shares(self, points: np.ndarray) -> np.ndarray:
        """The share of points that belongs to each centre: (N, D) -> (K,)."""
        return np.bincount(self.assign(points), minlength=len(self.centres)) / len(points)


def kmeans(points: np.ndarray, num_clusters: int, seed: int = 0) -> Clusters:
    """Clusters of points (N, D), in their own precision. ValueError where there are fewer points than clusters."""
    points = np.asarray(points)
    if points.dtype not in (np.float32, np.float64):
        points = points.astype(np.float64)
    if points.ndim != 2 or len(points) < num_clusters:
        raise ValueError(f"expected at least {num_clusters} points (N, D) to cluster, got shape {points.shape}")
    mean = points.mean(0)
    centred = points - mean
    centres = _seed(centred, num_clusters, np.random.RandomState(seed))
    smallest_move = centred.var(0).mean() * _TOLERANCE
    labels = None
    for _ in range(_ITERATIONS):
        before, labels = labels, _nearest(centred, centres)
        moved = _means(centred, labels, centres)
        shift = np.square(moved - centres).sum()
        centres = moved
        if (before is not None and np.array_equal(before, labels)) or shift <= smallest_move:
            break
    return Clusters(centres + mean)


def _squared_distances(centres: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(K, D), (N, D) -> (K, N)"""
    a, b = centres.astype(np.float64), points.astype(np.float64)
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * (a @ b.T)
    return np.maximum(squares, 0).astype(points.dtype)


def _seed(points: np.ndarray, num_clusters: int, random: np.random.RandomState) -> np.ndarray:
    count = len(points)
    trials = 2 + int(math.log(num_clusters))
    chosen = [int(random.choice(count, p=np.full(count, 1 / count)))]
    closest = _squared_distances(points[chosen], points)[0]
    for _ in range(1, num_clusters):
        draws = random.uniform(size=trials) * closest.sum()
        candidates = np.minimum(np.searchsorted(np.cumsum(closest), draws), count - 1)
        distances = np.minimum(_squared_distances(points[candidates], points), closest)
        best = int(distances.sum(1).argmin())
        closest = distances[best]
        chosen.append(int(candidates[best]))
    return points[chosen]


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return (np.square(centres).sum(1) - 2 * (points @ centres.T)).argmin(1)


def _means(points: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Mean of each cluster's points; a cluster that lost all takes over the point farthest from its own centre."""
    num_clusters = len(centres)
    counts = np.bincount(labels, minlength=num_clusters)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        labels = labels.copy()
        far = np.square(points - centres[labels]).sum(1).argsort()[::-1]
        labels[far[: len(empty)]] = empty
        counts = np.bincount(labels, minlength=num_clusters)
    member = np.zeros((num_clusters, len(points)), points.dtype)
    member[labels, np.arange(len(points))] = 1
    return member @ points / np.maximum(counts, 1)[:, None].astype(points.dtype)
