"""Tests over independent pairs, against SciPy, known answers and simulated truth; and what verdicts follow."""

from dataclasses import replace

import numpy as np
import pytest

from diffdyad.evaluation.effect.inference import (
    Effect,
    bootstrap_interval,
    effect_of,
    equivalence,
    equivalence_power,
    power_of,
    ratio_interval,
    sign_flip_p_value,
    unit_means,
    units_for_equivalence,
    units_needed,
)
from diffdyad.evaluation.effect.nulls import false_alarms
from diffdyad.evaluation.effect.retrieval import chance, ranks
from diffdyad.evaluation.effect.verdict import (
    CANNOT_TELL,
    MEANINGFUL,
    NOT_MEANINGFUL,
    Endpoint,
    Evidence,
    decide,
    units_at_power,
)
from diffdyad.evaluation.intervals import Estimate


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def stats():
    return pytest.importorskip("scipy.stats", reason="SciPy is not installed")


@pytest.mark.parametrize("count", [2, 5, 12, 53, 400])
@pytest.mark.parametrize("d_z", [-0.3, 0.0, 0.2, 1.0])
def test_power_agrees_with_scipy(stats, count, d_z):
    critical = stats.t.ppf(0.95, count - 1)
    expected = stats.nct.sf(critical, count - 1, d_z * np.sqrt(count)) if d_z else 0.05
    assert power_of(d_z, count) == pytest.approx(expected, abs=1e-8)


def test_units_needed_is_the_first_number_with_that_power():
    for d_z in (0.15, 0.5, 2.0):
        count = units_needed(d_z)
        assert power_of(d_z, count) >= 0.9 > (power_of(d_z, count - 1) if count > 2 else 0)
    assert units_needed(0.0) is None and units_needed(-1.0) is None and units_needed(1e-5) is None


def test_units_at_power_inverts_power():
    assert units_at_power(power_of(0.3, 20), 20) == units_needed(0.3)


def test_exact_sign_flips_agree_with_scipy(stats, rng):
    means = rng.normal(0.3, 1, 9)
    found = stats.permutation_test((means,), np.mean, permutation_type="samples", alternative="greater",
                                   n_resamples=np.inf)  # fmt: skip
    assert sign_flip_p_value(means, rng) == pytest.approx(found.pvalue, abs=1e-12)


def test_sign_flips_of_many_units_agree_with_the_normal_limit(stats, rng):
    means = rng.normal(0.1, 1, 400)
    expected = stats.norm.sf(means.sum() / np.sqrt(np.square(means).sum()))
    assert sign_flip_p_value(means, rng, 100_000) == pytest.approx(expected, abs=0.004)


def test_equivalence_agrees_with_scipy(stats, rng):
    means = rng.normal(0.1, 0.4, 30)
    found = equivalence(means, 0.3)
    one_sided = [stats.ttest_1samp(means, -0.3, alternative="greater").pvalue,
                 stats.ttest_1samp(means, 0.3, alternative="less").pvalue]  # fmt: skip
    assert found.p_value == pytest.approx(max(one_sided), abs=1e-8)
    assert (found.low, found.high) == pytest.approx(stats.ttest_1samp(means, 0).confidence_interval(0.9), abs=1e-8)


def test_a_change_beyond_the_margin_is_never_equivalent(rng):
    assert equivalence(rng.normal(0.5, 0.01, 30), 0.3).p_value > 0.999
    assert equivalence(np.zeros(5), 0.3).holds and not equivalence(np.full(5, 0.4), 0.3).holds
    assert not equivalence([0.0], 0.3).holds


@pytest.mark.parametrize(("variation", "count", "power"), [(0.2, 20, 0.834680), (0.25, 28, 0.807439),
                                                          (0.3, 40, 0.815845)])  # fmt: skip
def test_power_of_equivalence_is_that_of_published_tables(variation, count, power):
    """Bioequivalence, 80 to 125 % at a ratio of 0.95, two periods: PowerTOST's sizes for 80 %, and their power."""
    deviation = np.sqrt(2 * np.log(1 + variation**2))

    def found(units):
        return equivalence_power(np.log(0.95), deviation, np.log(1.25), units, degrees=units - 2)

    assert found(count) == pytest.approx(power, abs=1e-5) and found(count - 2) < 0.8


@pytest.mark.parametrize(("mean", "deviation", "count"), [(0.0, 0.5, 20), (0.1, 0.3, 6), (-0.25, 0.2, 40),
                                                          (0.3, 0.4, 9)])  # fmt: skip
def test_power_of_equivalence_is_how_often_it_is_shown(rng, stats, mean, deviation, count):
    values = rng.normal(mean, deviation, (40_000, count))
    error = stats.t.ppf(0.95, count - 1) * values.std(1, ddof=1) / np.sqrt(count)
    shown = (np.abs(values.mean(1)) + error < 0.3).mean()
    assert equivalence_power(mean, deviation, 0.3, count) == pytest.approx(shown, abs=0.009)


def test_units_for_equivalence_are_the_first_number_with_that_power():
    for mean, deviation in ((0.0, 0.6), (0.07, 0.55), (-0.2, 0.3)):
        count = units_for_equivalence(mean, deviation, 0.3)
        fewer, enough = (equivalence_power(mean, deviation, 0.3, n) for n in (count - 1, count))
        assert fewer < 0.9 <= enough
    assert units_for_equivalence(0.3, 0.5, 0.3) is None and units_for_equivalence(-0.4, 0.5, 0.3) is None
    assert units_for_equivalence(np.nan, np.nan, 0.3) is None and units_for_equivalence(0.1, 0.0, 0.3) == 2


def test_units_count_alike_whatever_their_size():
    assert unit_means([1, 1, 1, 5, np.nan], [0, 0, 0, 1, 2]).tolist() == [1, 5]


def test_effects_of_one_unit_or_none_are_no_evidence(rng):
    assert not effect_of([1.0, 1.0], [0, 0], rng).is_positive
    assert not effect_of([np.nan], [0], rng).is_positive


def test_intervals_cover_the_truth(rng):
    covered = [bootstrap_interval(rng.exponential(1, 25), rng, num_resamples=400) for _ in range(300)]
    assert 0.89 <= np.mean([e.low <= 1 <= e.high for e in covered]) <= 0.98
    ratios = []
    for _ in range(200):
        base = rng.gamma(4, 1, 120)
        ratios.append(ratio_interval(0.1 * base + rng.normal(0, 1, 120), base, np.arange(120) // 4, rng,
                                     num_resamples=400))  # fmt: skip
    assert 0.89 <= np.mean([e.low <= 0.1 <= e.high for e in ratios]) <= 0.99


def test_ranks_by_hand():
    scores = np.array([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0], [1.0, 1.0, 0.0]])
    found = ranks(scores, [0, 0, 0])
    assert found.reciprocal.tolist() == [1, 1 / 3, 0.75] and found.first.tolist() == [1, 0, 0.5]
    many = ranks(np.random.default_rng(1).normal(size=(4000, 1, 32)), np.zeros(4000, int))
    first, reciprocal = chance(32)
    assert many.first.mean() == pytest.approx(first, abs=0.01)
    assert many.reciprocal.mean() == pytest.approx(reciprocal, abs=0.01)


def test_simulated_nulls_raise_few_alarms():
    *calibrated, unlike = false_alarms(40, seed=5)
    for row in calibrated:
        assert row.rate.low <= 0.06, row  # the full table is in docs/context.md
    assert unlike.rate.low <= 0.15  # known to be too sure


# -------------------------------------------------------------------------------------------- verdicts


def effect(mean=1.0, positive=True, d_z=0.6):
    return Effect(mean, mean - 0.5, mean + 0.5, 0.001 if positive else 0.4, d_z, 53)


def evidence(gap=(True, True), energy=(True, True), retrieval=True, testable=True, placebo=False, lips=0.0, r2=0.02,
             power=0.99):  # fmt: skip
    def endpoint(name, held, **more):
        return Endpoint(name, "", "", {k: effect(positive=h, d_z=0.6 if h else 0.2)
                                       for k, h in zip(("swap-near", "null"), held)}, **more)  # fmt: skip

    size = Estimate(r2, r2 - 0.004, r2 + 0.004)
    return Evidence(
        endpoint("1", gap), endpoint("2", energy), endpoint("3", (retrieval,), testable=testable, why_not="blind"),
        equivalence(np.full(10, lips), 0.3), {"placebo": effect(positive=placebo)}, {"null": size, "swap-near": size},
        0.01, {"null": power, "swap-near": power}, 53,
    )  # fmt: skip


def test_a_meaningful_effect_needs_all_its_parts():
    assert decide(evidence()).word == MEANINGFUL
    assert decide(evidence(energy=(False, False))).word == MEANINGFUL  # retrieval stands for it
    assert decide(evidence(testable=False)).word == MEANINGFUL
    for less in ({"gap": (True, False)}, {"gap": (False, True)}, {"retrieval": False}, {"placebo": True}, {"lips": 1.0},
                 {"testable": False, "energy": (True, False)}):  # fmt: skip
        assert decide(evidence(**less)).word == CANNOT_TELL, less


def test_an_effect_below_the_smallest_of_interest_is_not_meaningful_at_enough_power():
    small = {"gap": (False, False), "retrieval": False, "r2": 0.001}
    assert decide(evidence(**small)).word == NOT_MEANINGFUL
    assert decide(evidence(**small, power=0.5)).word == CANNOT_TELL
    told = "more in the data than this model shows"  # the critic tells real turns apart, or it does not
    assert told in decide(evidence(**small)).reasons[-1]
    assert not any(told in reason for reason in decide(evidence(**small, testable=False)).reasons)


def test_what_is_found_but_smaller_than_of_interest_is_not_meaningful():
    verdict = decide(evidence(r2=0.001, power=0.5))
    assert verdict.word == NOT_MEANINGFUL and "matters, but too little" in verdict.sentence
    assert decide(evidence(r2=0.007)).word == MEANINGFUL  # up to 1.1 %: it may be of interest


def test_a_two_sided_test_finds_either_direction(rng):
    values = rng.normal(size=30) - 1.5
    units = np.arange(30)
    assert effect_of(values, units, rng).p_value > 0.99
    assert effect_of(values, units, rng, two_sided=True).p_value < 0.01
    assert effect_of(rng.normal(size=30) * 0 + rng.choice([-1, 1], 30), units, rng, two_sided=True).p_value <= 1


def test_cannot_tell_says_how_many_more_pairs():
    verdict = decide(evidence(gap=(True, False)))
    assert verdict.more_units == units_needed(0.2) - 53
    assert f"{verdict.more_units} more independent pairs" in verdict.sentence


def test_lips_that_are_not_shown_to_hold_say_how_many_pairs_would(rng):
    opening = rng.normal(0.2, 1.2, 32)
    lips = equivalence(opening, 0.3)
    needed = units_for_equivalence(lips.mean, lips.deviation, 0.3)
    assert not lips.holds and needed > 53
    verdict = decide(replace(evidence(), lips=replace(lips, num_units=53)))
    assert verdict.more_units == needed - 53 and f"{needed - 53} more independent pairs" in verdict.sentence
    assert any(f"{needed} pairs would" in reason for reason in verdict.reasons)
    # answers of 32 pairs were all that was looked at: more of them are needed as well
    few = decide(replace(evidence(), lips=lips))
    assert f"{np.ceil(10 * needed / 32) / 10:g} times as many answers" in few.sentence
    weak = decide(replace(evidence(gap=(True, False)), lips=replace(lips, num_units=53)))
    assert weak.more_units == max(needed, units_needed(0.2)) - 53
    moved = decide(evidence(lips=1.0))
    assert moved.more_units is None and any("no number of pairs" in reason for reason in moved.reasons)


def test_without_a_placebo_nothing_is_meaningful():
    verdict = decide(replace(evidence(), placebo={}))
    assert verdict.word == CANNOT_TELL and "no placebo" in verdict.sentence


def test_the_placebo_says_what_it_was():
    reasons = decide(replace(evidence(), placebo={"a wrong turn": effect(positive=False)})).reasons
    assert "The placebo found nothing (a wrong turn)." in reasons


def test_too_few_answers_are_told_from_too_few_pairs():
    weak = replace(effect(positive=False, d_z=0.5), num_units=10)
    few = replace(evidence(), retrieval=Endpoint("3", "", "", {"swap-near": weak}))
    verdict = decide(few)
    assert units_needed(0.5) < 53 and verdict.more_units == 0
    assert "times as many answers" in verdict.sentence and "pairs needed" not in verdict.sentence
