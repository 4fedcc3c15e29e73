"""Power, equivalence, tests and intervals against statsmodels', where it has them."""

import math

import numpy as np
import pytest

from diffdyad.evaluation import intervals
from diffdyad.evaluation.effect.inference import ALPHA, equivalence, power_of, units_needed

weightstats = pytest.importorskip("statsmodels.stats.weightstats", reason="statsmodels is not installed")
TTestPower = pytest.importorskip("statsmodels.stats.power").TTestPower
proportion_confint = pytest.importorskip("statsmodels.stats.proportion").proportion_confint


@pytest.mark.parametrize("count", [2, 5, 12, 53, 400])
@pytest.mark.parametrize("d_z", [-0.3, 0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("alpha", [0.01, ALPHA])
def test_power(count, d_z, alpha):
    theirs = TTestPower().power(d_z, count, alpha, alternative="larger")
    assert power_of(d_z, count, alpha) == pytest.approx(theirs, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("d_z", [0.1, 0.25, 0.5, 0.9])
def test_units_needed(d_z):
    theirs = TTestPower().solve_power(d_z, None, ALPHA, 0.9, alternative="larger")
    assert units_needed(d_z, 0.9) == math.ceil(theirs)


@pytest.mark.parametrize("margin", [0.05, 0.3, 1.0])
@pytest.mark.parametrize(("mean", "count"), [(0.0, 12), (0.2, 12), (-0.25, 40), (2.0, 3)])
def test_equivalence(margin, mean, count):
    values = np.random.default_rng(count).normal(mean, 0.4, count)
    sample = weightstats.DescrStatsW(values)
    found = equivalence(values, margin)
    assert found.p_value == pytest.approx(sample.ttost_mean(-margin, margin)[0], rel=1e-8)
    assert (found.low, found.high) == pytest.approx(sample.tconfint_mean(2 * ALPHA), rel=1e-8)
    assert found.holds == (-margin < found.low and found.high < margin)


def test_means():
    values = np.random.default_rng(1).normal(0.4, 1.0, 14)
    sample = weightstats.DescrStatsW(values)
    t, p, _ = sample.ttest_mean(0.0)
    found, interval = intervals.mean_test(values), intervals.mean_interval(values, 0.9)
    assert (found.statistic, found.p_value) == pytest.approx((t, p), rel=1e-8)
    assert (interval.low, interval.high) == pytest.approx(sample.tconfint_mean(0.1), rel=1e-8)


@pytest.mark.parametrize(("successes", "trials"), [(0, 12), (3, 12), (12, 12), (104, 2000)])
def test_shares(successes, trials):
    for ours, method in ((intervals.wilson_interval, "wilson"), (intervals.exact_binomial_interval, "beta")):
        found, theirs = ours(successes, trials), proportion_confint(successes, trials, 0.05, method)
        assert (found.low, found.high) == pytest.approx(theirs, rel=1e-8, abs=1e-12), method
