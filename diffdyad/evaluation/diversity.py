"""How varied motion is: over time, between samples of one clip, and over a whole corpus."""

from __future__ import annotations

import numpy as np

from diffdyad.evaluation.arrays import Array, as_array, as_arrays
from diffdyad.evaluation.kmeans import kmeans


def entropy_bits(shares, log_floor: float = 0.0) -> float:
    """Shannon entropy of shares (K,) that sum to 1, in bits. `log_floor` is added inside the logarithm."""
    shares = as_array(shares)
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares + log_floor)).sum())


def cluster_entropy_bits(
    truth, prediction, num_clusters: int, order: str = "truth", log_floor: float = 0.0, seed: int = 0
) -> float:
    """Entropy of the prediction's frames over k-means clusters of the truth's frames: (N, D), (M, D) -> bits.

    Zero: one expression all the time; log2(num_clusters): all of the truth's expressions alike. Source: SID of
    Learning2Listen and DualTalk, the latter's code with the arguments exchanged: `order="dualtalk"` does as it does,
    and gives the truth's entropy over clusters of the prediction.
    """
    if order not in ("truth", "dualtalk"):
        raise ValueError(f"expected the order 'truth' or 'dualtalk', got {order!r}")
    fitted, counted = (truth, prediction) if order == "truth" else (prediction, truth)
    return entropy_bits(kmeans(fitted, num_clusters, seed).shares(np.asarray(counted)), log_floor)


def variance_ratio(truth, prediction) -> float:
    """Temporal variance of the prediction over the truth's, summed over channels: (T, D) each -> 1 = as lively.

    NaN where the truth does not move. The channels share a unit: take one channel group at a time.
    """
    truth, prediction = as_array(truth), as_array(prediction)
    spread = truth.var(0).sum()
    return float(prediction.var(0).sum() / spread) if spread > 0 else float("nan")


def rms_distance(a, b) -> Array:
    """Root mean square of all differences of two trajectories, over all axes but the first: (K, ...) -> (K,)."""
    a, b = as_arrays(a, b)
    return np.sqrt(np.square(a - b).reshape(len(a), -1).mean(1))


def sample_diversity(samples) -> float:
    """Mean `rms_distance` between different samples of one clip: (K, ...), K >= 2 -> the samples' unit."""
    samples = as_array(samples)
    if len(samples) < 2:
        raise ValueError(f"expected at least 2 samples, got {len(samples)}")
    first, second = np.triu_indices(len(samples), 1)
    return float(rms_distance(samples[first], samples[second]).mean())


def energy_score(samples, truth) -> float:
    """A proper score of K samples against the truth, in their unit; lower is better: (K, ...), (...) -> number.

    Mean `rms_distance` to the truth less half of the mean distance between different samples (the fair version,
    unbiased in K). Neither noise nor a single safe guess beats the true distribution. For K = 1, the distance alone.
    Source: Gneiting and Raftery 2007, eq. 22; Ferro 2014 for the fair form.
    """
    samples = as_array(samples)
    first, second = np.triu_indices(len(samples), 1)
    off = rms_distance(samples, np.broadcast_to(as_array(truth), samples.shape))
    return energy_score_of_distances(off, rms_distance(samples[first], samples[second]))


def energy_score_of_distances(to_truth, between) -> float:
    """`energy_score` from the samples' distances to the truth (K,) and those between different samples (pairs,)."""
    to_truth, between = as_array(to_truth), as_array(between)
    return float(to_truth.mean() - (between.mean() / 2 if len(between) else 0.0))


def best_of_samples(samples, truth) -> float:
    """The smallest `rms_distance` of K samples to the truth. Falls with K by itself: read `energy_score` first."""
    samples = as_array(samples)
    return float(rms_distance(samples, np.broadcast_to(as_array(truth), samples.shape)).min())
