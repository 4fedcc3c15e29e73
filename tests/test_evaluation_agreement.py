"""Statistics against SciPy's, scikit-learn's and statsmodels', those that draw given the same draws.

The others have their own: closed-form intervals, tests, power and equivalence in test_evaluation_statistics and
test_evaluation_statsmodels; exact sign flips in test_effect_inference; correlations, peaks and Frechet distances in
test_evaluation_metrics; k-means in test_evaluation_compat. The jackknife has no counterpart, and known answers instead.
"""

import numpy as np
import pytest
import torch

from diffdyad.evaluation import bootstrap, correlation, diversity, people
from diffdyad.evaluation.effect import critic, power, retrieval
from diffdyad.evaluation.effect.inference import (
    bootstrap_interval,
    noncentral_t_tail,
    ratio_interval,
    sign_flip_p_value,
)
from diffdyad.evaluation.matching import match_events

stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
UNITS, RESAMPLES = 23, 999


class AsScipy:
    """A generator whose multinomial counts are those of the indices that SciPy's bootstrap draws."""

    def __init__(self, seed: int):
        self.generator = np.random.default_rng(seed)

    def multinomial(self, count, shares, size):
        draws = self.generator.integers(0, len(shares), (size, count))
        return np.stack([np.bincount(row, minlength=len(shares)) for row in draws])


def percentiles(data, statistic, confidence, **options):
    """SciPy's percentile interval; confidence: before it is widened for few units."""
    tail = stats.norm.cdf(stats.t.ppf((1 - confidence) / 2, UNITS - 1) * np.sqrt(UNITS / (UNITS - 1)))
    return stats.bootstrap(data, statistic, confidence_level=1 - 2 * tail, method="percentile", n_resamples=RESAMPLES,
                           rng=np.random.default_rng(3), **options).confidence_interval  # fmt: skip


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_bootstrap_intervals(confidence):
    means = np.random.default_rng(0).gamma(2.0, size=UNITS)
    theirs = percentiles((means,), np.mean, confidence)
    found = bootstrap_interval(means, AsScipy(3), confidence, RESAMPLES)
    assert (found.value, found.low, found.high) == pytest.approx((means.mean(), *theirs), rel=1e-8)
    by_clips = bootstrap.bootstrap_mean(means, np.arange(UNITS), np.random.default_rng(3), RESAMPLES, confidence)
    assert (by_clips.low, by_clips.high) == pytest.approx(theirs, rel=1e-8)


def test_bootstrap_intervals_of_ratios():
    rng = np.random.default_rng(1)
    units = np.concatenate([np.arange(UNITS), rng.integers(0, UNITS, 60)])
    bases = rng.gamma(4, 1, len(units))
    totals = 0.1 * bases + rng.normal(0, 1, len(units))
    sums = [np.array([x[units == unit].sum() for unit in range(UNITS)]) for x in (totals, bases)]
    theirs = percentiles(sums, lambda a, b, axis: a.sum(axis) / b.sum(axis), 0.9, paired=True)
    found = ratio_interval(totals, bases, units, AsScipy(3), 0.9, RESAMPLES)
    assert (found.low, found.high) == pytest.approx(theirs, rel=1e-8)
    assert found.value == pytest.approx(totals.sum() / bases.sum(), rel=1e-12)


@pytest.mark.parametrize("units", [2, 12, 53])
def test_tails_that_are_widened_for_few_units(units):
    wide = stats.t.ppf(0.975, units - 1) * np.sqrt(units / (units - 1))
    assert bootstrap.expanded_tail(units, 0.95) == pytest.approx(stats.norm.sf(wide), rel=1e-8)


def test_random_sign_flips():
    means, flipped = np.random.default_rng(2).normal(0.2, 1, UNITS), []

    def statistic(values, axis):
        flipped.append(np.broadcast_to(values, np.broadcast_shapes(values.shape, (1, UNITS))))
        return values.sum(axis)

    theirs = stats.permutation_test((means,), statistic, permutation_type="samples", alternative="greater",
                                    n_resamples=RESAMPLES, rng=np.random.default_rng(4), vectorized=True)  # fmt: skip
    negative = np.concatenate([(x / means < 0).astype(np.int8) for x in flipped if len(x) > 1])

    class Same:
        def integers(self, *_, **__):
            return negative

    assert negative.shape == (RESAMPLES, UNITS)
    assert sign_flip_p_value(means, Same(), RESAMPLES) == pytest.approx(theirs.pvalue, abs=1e-12)


@pytest.mark.parametrize("degrees", [1, 4, 29, 400])
def test_the_noncentral_t_distribution(degrees):
    for t in (0.5, 1.7, 6.0):
        for shift in (-1.0, 0.3, 4.0):
            assert noncentral_t_tail(t, degrees, shift) == pytest.approx(stats.nct.sf(t, degrees, shift), abs=1e-8)


def test_entropy():
    for shares in (np.random.default_rng(5).dirichlet(np.ones(40)), np.array([0.5, 0.0, 0.5]), np.array([1.0])):
        assert diversity.entropy_bits(shares) == pytest.approx(stats.entropy(shares, base=2), rel=1e-8, abs=1e-12)


def test_the_energy_score_of_a_single_number():
    """SciPy's distance, squared, is twice the score that takes each sample's distance to itself among the pairs."""
    rng = np.random.default_rng(6)
    samples, truth = rng.normal(size=(9, 1)), rng.normal(size=1)
    between = np.abs(samples - samples.T)[np.triu_indices(9, 1)]
    theirs = stats.energy_distance(samples[:, 0], truth) ** 2 / 2
    with_themselves = diversity.energy_score_of_distances(np.abs(samples - truth)[:, 0], between * 8 / 9)
    assert with_themselves == pytest.approx(theirs, rel=1e-8)
    assert diversity.energy_score(samples, truth) == pytest.approx(theirs - between.mean() / 2 / 9, rel=1e-8)


def test_correlations_at_lags_and_with_the_partner():
    rng = np.random.default_rng(12)
    leader, follower = rng.normal(size=(2, 90))
    found = correlation.lagged_correlations(leader, follower, [0, 3, 20])
    theirs = [stats.pearsonr(leader[20 - lag : 90 - lag], follower[20:]).statistic for lag in (0, 3, 20)]
    assert found == pytest.approx(theirs, rel=1e-8)
    partner, truth, prediction = rng.normal(size=(3, 50, 4))
    off = [abs(stats.pearsonr(partner[:, k], truth[:, k]).statistic - stats.pearsonr(partner[:, k], prediction[:, k])
               .statistic) for k in range(4)]  # fmt: skip
    assert correlation.partner_correlation_error(partner, truth, prediction) == pytest.approx(np.mean(off), rel=1e-8)


@pytest.mark.parametrize("seed", range(8))
def test_as_many_events_are_matched_as_can_be(seed):
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(seed)
    truth, prediction = rng.uniform(0, 20, 15), rng.uniform(0, 20, 18)
    near = sparse.csr_array(np.abs(truth[:, None] - prediction) <= 0.8)
    theirs = (sparse.csgraph.maximum_bipartite_matching(near) >= 0).sum()
    assert len(match_events(truth, prediction, 0.8).truth) == theirs


def test_reciprocal_ranks_and_hits():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    scores = np.random.default_rng(7).normal(size=(50, 32))
    wanted = np.random.default_rng(8).integers(0, 32, 50)
    found = retrieval.ranks(scores, wanted)
    theirs = metrics.label_ranking_average_precision_score(np.eye(32)[wanted], scores)
    assert found.reciprocal.mean() == pytest.approx(theirs, rel=1e-8)
    assert found.first.mean() == pytest.approx(metrics.top_k_accuracy_score(wanted, scores, k=1, labels=np.arange(32)))


def test_independent_people():
    sparse = pytest.importorskip("scipy.sparse")
    pairs = np.random.default_rng(9).integers(0, 60, (40, 2))
    graph = sparse.coo_array((np.ones(40), pairs.T), (60, 60))
    _, labels = sparse.csgraph.connected_components(graph, directed=False)
    found = people.independent_units([[f"p{a}", f"p{b}"] for a, b in pairs])
    theirs = labels[pairs[:, 0]]
    assert ((found[:, None] == found) == (theirs[:, None] == theirs)).all()


def test_ridge_regression_on_the_own_audio():
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    rng = np.random.default_rng(10)
    x, y = rng.normal(2, 3, (80, 5)), rng.normal(1, 1, (80, 3))
    # the intercept is a column like others, and shrunk as they are
    rows = np.column_stack([(x - x.mean(0)) / x.std(0, ddof=1), np.ones(80)])
    theirs = linear_model.Ridge(power._RIDGE, fit_intercept=False).fit(rows, y).predict(rows)
    assert np.allclose(power._ridge(torch.from_numpy(x), torch.from_numpy(y)).numpy(), theirs, rtol=1e-8, atol=1e-8)


def test_the_critics_canonical_correlations(monkeypatch):
    """Without its ridge, and with as many components as there are columns, it is the textbook's."""
    cancorr = pytest.importorskip("statsmodels.multivariate.cancorr", reason="statsmodels is not installed")
    monkeypatch.setattr(critic, "_RIDGE", 0.0)
    rng = np.random.default_rng(11)
    x = rng.uniform(-1, 1, (250, 4))
    y = x @ rng.normal(size=(4, 5)) + rng.uniform(-1, 1, (250, 5))
    found = critic.fit_critic([{"prosody": torch.from_numpy(row)} for row in x], torch.from_numpy(y))
    theirs = cancorr.CanCorr(y - y.mean(0), x - x.mean(0)).cancorr
    assert found.correlations == pytest.approx(theirs.tolist(), rel=1e-8)
