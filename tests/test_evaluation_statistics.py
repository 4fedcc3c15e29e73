"""Intervals and tests: against SciPy, and against how often they cover what is true."""

import math

import numpy as np
import pytest

from diffdyad.evaluation import intervals, special
from diffdyad.evaluation.bootstrap import (
    bootstrap_mean,
    expanded_tail,
    jackknife,
    ratio_estimates,
    resample_weights,
)
from diffdyad.evaluation.people import independent_units


@pytest.fixture(scope="module")
def stats():
    return pytest.importorskip("scipy.stats", reason="SciPy is not installed")


def test_special_functions_agree_with_scipy(stats):
    for degrees in (1, 2, 4.5, 30, 1000):
        for t in (-40.0, -2.2, -0.01, 0.0, 0.3, 1.96, 12.0):
            assert special.student_cdf(t, degrees) == pytest.approx(stats.t.cdf(t, degrees), rel=1e-10)
        for probability in (1e-6, 0.025, 0.3, 0.5, 0.9, 0.999):
            found = special.student_quantile(probability, degrees)
            assert found == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-9, abs=1e-12)
    for a, b in ((0.5, 0.5), (3, 8), (200, 5), (1, 1)):
        for x in (0.0, 1e-5, 0.2, 0.5, 0.97, 1.0):
            assert special.regularised_beta(a, b, x) == pytest.approx(stats.beta.cdf(x, a, b), rel=1e-10, abs=1e-300)
        assert special.beta_quantile(a, b, 0.3) == pytest.approx(stats.beta.ppf(0.3, a, b), rel=1e-9)
    with pytest.raises(ValueError, match="between 0 and 1"):
        special.student_quantile(1.0, 5)


def test_intervals_agree_with_scipy(stats):
    rng = np.random.default_rng(0)
    values = rng.normal(1, 2, 17)
    found = intervals.mean_interval(values, 0.9)
    low, high = stats.t.interval(0.9, 16, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-8)
    for successes, trials in ((0, 12), (3, 12), (12, 12), (104, 2000)):
        result = stats.binomtest(successes, trials)
        for ours, method in ((intervals.wilson_interval, "wilson"), (intervals.exact_binomial_interval, "exact")):
            theirs = result.proportion_ci(0.95, method)
            found = ours(successes, trials)
            assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=1e-8, abs=1e-12), method
    a, b = rng.normal(size=(2, 25))
    theirs = stats.pearsonr(a, b)
    found, bounds = intervals.correlation_interval(a, b), theirs.confidence_interval()
    assert (found.value, found.low, found.high) == pytest.approx((theirs.statistic, bounds.low, bounds.high), rel=1e-8)
    assert intervals.correlation_test(a, b).p_value == pytest.approx(theirs.pvalue, rel=1e-8)


def test_mean_test_agrees_with_scipy(stats):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 14)) + [[0.8], [0.0]]
    found, theirs = intervals.mean_test(a - b), stats.ttest_rel(a, b)
    assert (found.statistic, found.p_value) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-8)
    assert intervals.standardised_mean(a - b) == pytest.approx(theirs.statistic / math.sqrt(14))


def test_too_little_gives_no_interval():
    assert math.isnan(intervals.mean_interval([3.0]).low) and intervals.mean_interval([3.0]).value == 3
    assert math.isnan(intervals.mean_test([2.0, 2.0, 2.0]).p_value)
    assert math.isnan(intervals.correlation_interval([1, 2, 3, 4, 5], [1, 1, 1, 1, 1]).value)
    assert intervals.wilson_interval(0, 0).high == 1
    assert math.isnan(bootstrap_mean([1.0, 2.0], [0, 0], np.random.default_rng(0)).low)


def test_people_who_share_anybody_are_one_unit():
    clips = [("a", "b"), ("c", "d"), ("b", "e"), ("f",), ("e", "g"), ("d", "c")]
    assert independent_units(clips).tolist() == [0, 1, 0, 2, 0, 1]


def test_bootstrap_agrees_with_scipy_on_independent_values(stats):
    """One clip a person: nothing but the plain bootstrap, with the same draws."""
    values = np.random.default_rng(2).gamma(2.0, size=20)
    units = np.arange(20)
    draws = np.random.default_rng(3).integers(0, 20, (999, 20))
    weights = resample_weights(units, 1, 999, np.random.default_rng(3))
    assert np.allclose(weights[..., 0] @ values / 20, values[draws].mean(1), rtol=1e-12)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=0, method="percentile",
        bootstrap_result=stats.bootstrap((values,), np.mean, n_resamples=999, rng=np.random.default_rng(3)),
    ).confidence_interval  # fmt: skip
    found = ratio_estimates(values[:, None], np.ones((20, 1)), weights, 0.025)
    assert (found[1], found[2]) == pytest.approx((theirs.low, theirs.high), rel=1e-8)


def test_whole_people_are_drawn():
    units = np.array([0, 0, 0, 1, 2, 2])
    weights = resample_weights(units, 2, 200, np.random.default_rng(4))
    assert weights.shape == (200, 6, 2)
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 4, 0] == weights[:, 5, 1]).all()
    drawn = weights[:, [0, 3, 4], 0].sum(1)
    assert (drawn == 3).all()
    within = resample_weights(units, 2, 200, np.random.default_rng(4), within=True)
    assert (within[:, 0] != within[:, 2]).any()
    # as many clips and seeds of each drawn unit, whichever they are
    assert np.array_equal(within[:, :3].sum((1, 2)), 3 * weights[:, 0].sum(1))


def test_intervals_cover_the_truth_as_often_as_they_say():
    """12 pairs of people, 5 clips each, 2 seeds; pairs, clips and seeds all differ. 95 % +- 3 standard errors."""
    rng = np.random.default_rng(5)
    units = np.repeat(np.arange(12), 5)
    shape = (500, 12, 5, 2)
    values = rng.normal(size=(*shape[:2], 1, 1)) + rng.normal(size=(*shape[:3], 1)) + rng.normal(size=shape)
    values = values.reshape(500, 60, 2)
    weights = resample_weights(units, 2, 600, rng)
    _, low, high = ratio_estimates(values, np.ones_like(values), weights, expanded_tail(12, 0.95))
    covered = ((low <= 0) & (high >= 0)).mean()
    assert 0.92 <= covered <= 0.98
    # frames or clips taken as independent would be far too sure of themselves
    naive = resample_weights(np.arange(60), 2, 600, rng)
    _, low, high = ratio_estimates(values, np.ones_like(values), naive, 0.025)
    assert ((low <= 0) & (high >= 0)).mean() < 0.88


def test_undefined_values_do_not_count():
    values = np.array([[1.0, np.nan], [3.0, 5.0], [np.nan, np.nan]])
    found = bootstrap_mean(values, [0, 1, 2], np.random.default_rng(6))
    assert found.value == 3 and 1 <= found.low <= 3 <= found.high <= 4
    again = bootstrap_mean(values, [0, 1, 2], np.random.default_rng(6))
    assert found == again
    nothing = ratio_estimates(np.zeros((3, 1)), np.zeros((3, 1)), np.ones((10, 3, 1)))
    assert all(np.isnan(x) for x in nothing)


def test_jackknife_takes_the_bias_away():
    """The plain variance (over n) is too small by one part in n; the jackknife makes it the unbiased one exactly."""
    rows = np.random.default_rng(7).normal(size=15)
    parts = [np.array([1.0, x, x * x]) for x in rows]
    found = jackknife(
        parts, lambda p: np.sum(p, 0), lambda whole, part: whole - part, lambda s: s[2] / s[0] - (s[1] / s[0]) ** 2
    )
    assert found.value == pytest.approx(rows.var(ddof=1), rel=1e-10)
    assert found.low < found.value < found.high
    alone = jackknife(parts[:1], lambda p: p[0], lambda whole, part: whole - part, lambda s: s[1])
    assert alone.value == rows[0] and math.isnan(alone.low)
