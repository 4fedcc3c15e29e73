"""Simulated datasets in which the context does nothing: how often does each endpoint raise a false alarm?

They have what real ones have: pairs that differ in size and spread, exchanges with heavy tails, a model that reacts to
every turn in some way, rightly or not. Under the null the true turn and another are exchangeable, and that is all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffdyad.evaluation.arrays import Array
from diffdyad.evaluation.diversity import energy_score
from diffdyad.evaluation.effect.inference import ALPHA, equivalence, ratio_interval, sign_flip_p_value, unit_means
from diffdyad.evaluation.effect.retrieval import GALLERY, ranks
from diffdyad.evaluation.intervals import Estimate, exact_binomial_interval

ENDPOINTS = ("loss gap, another turn", "loss gap, no turn", "energy score", "retrieval", "lips' equivalence",
             "absence of the smallest effect", "absence, where pairs react unlike each other")
SMALLEST_EFFECT = 0.01  # partial R2
NUM_UNITS, NUM_EXCHANGES, NUM_ANSWERED, NUM_SAMPLES = 53, (5, 13), 32, 8
_DIMENSIONS = 20


@dataclass(frozen=True)
class FalseAlarms:
    endpoint: str
    alarms: int
    datasets: int

    @property
    def rate(self) -> Estimate:
        """With the exact 95 % interval."""
        return exact_binomial_interval(self.alarms, self.datasets)


def false_alarms(num_datasets: int, seed: int = 0, progress=None) -> list[FalseAlarms]:
    """Per endpoint, over so many simulated datasets. lips: the change is exactly the margin, and taken for none;
    absence: the effect is exactly the smallest of interest, and taken for smaller, where all pairs react as much as
    they move, and where that ratio differs among them by a factor of e^0.5."""
    alarms = np.zeros(len(ENDPOINTS), int)
    for number in range(num_datasets):
        alarms += _dataset(np.random.default_rng([seed, number]))
        if progress:
            progress(number + 1, num_datasets)
    return [FalseAlarms(name, int(count), num_datasets) for name, count in zip(ENDPOINTS, alarms)]


def _dataset(rng: np.random.Generator) -> Array:
    units = np.repeat(np.arange(NUM_UNITS), rng.integers(*NUM_EXCHANGES, NUM_UNITS, endpoint=True))
    scale = rng.lognormal(0, 0.5, NUM_UNITS)  # pairs differ in how much they move

    def alarmed(values: Array, of: Array) -> bool:
        return sign_flip_p_value(unit_means(values, of), rng) < ALPHA

    def reaction(count: int, of: Array) -> Array:
        return 0.3 * scale[of, None] * rng.standard_t(4, (count, _DIMENSIONS))

    # what is left of the truth, which no context tells; what the model adds for either turn is alike
    left = scale[units, None] * (rng.standard_t(4, (len(units), _DIMENSIONS)) + rng.normal(size=(NUM_UNITS, 1))[units])
    losses = [np.square(left - reaction(len(units), units)).mean(1) for _ in range(2)]
    answered = np.arange(NUM_ANSWERED)  # one exchange of each of so many pairs
    truth = scale[answered, None] * rng.standard_t(4, (NUM_ANSWERED, _DIMENSIONS))
    noise = scale[answered, None, None] * rng.normal(size=(NUM_ANSWERED, NUM_SAMPLES, _DIMENSIONS))
    energies = []
    for _ in range(2):
        samples = noise + reaction(NUM_ANSWERED, answered)[:, None]
        energies.append(np.array([energy_score(x, y) for x, y in zip(samples, truth)]))
    scores = rng.normal(size=(2, NUM_ANSWERED, 1, GALLERY))
    scores = scores + 0.5 * rng.normal(size=(2, NUM_ANSWERED, NUM_SAMPLES, GALLERY))
    own = [ranks(s, np.zeros(NUM_ANSWERED, int)).reciprocal for s in scores]
    margin = 0.3
    opening = margin + 0.5 * scale[answered] * rng.standard_t(5, NUM_ANSWERED)
    return np.array([
        alarmed(losses[1] - losses[0], units), alarmed(_no_turn(left, reaction(len(units), units), rng), units),
        alarmed(energies[1] - energies[0], answered), alarmed(own[0] - own[1], answered),
        equivalence(opening, margin).holds,
        *(_is_missed(left, units, scale, spread, rng) for spread in (0.0, 0.5)),
    ], int)  # fmt: skip


def _is_missed(left: Array, units: Array, scale: Array, spread: float, rng: np.random.Generator) -> bool:
    """Whether an effect of the smallest size of interest is taken for smaller: an ideal model's, whose reaction is a
    part of the truth. spread: of the logarithm of how much pairs react."""
    reaction = (scale * rng.lognormal(0, spread, NUM_UNITS))[units, None] * rng.normal(size=left.shape)
    # Student's t of 4 degrees has a variance of 2 and the pair's own offset 1; a lognormal's square means e^(2 s^2)
    reaction *= np.sqrt(SMALLEST_EFFECT / (1 - SMALLEST_EFFECT) * 3 / np.exp(2 * spread**2))
    without = np.square(left + reaction).mean(1)
    found = ratio_interval(without - np.square(left).mean(1), without, units, rng, 0.9, num_resamples=2000)
    return found.high < SMALLEST_EFFECT


def _no_turn(left: Array, reaction: Array, rng: np.random.Generator) -> Array:
    """A model whose answers with and without a turn are equally wrong, as when training has not told them apart."""
    sign = rng.choice([-1.0, 1.0], (len(left), 1))
    return np.square(left - sign * reaction).mean(1) - np.square(left + sign * reaction).mean(1)
