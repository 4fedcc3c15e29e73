"""The few special functions that intervals and tests need, to double precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

_LARGEST_ITERATIONS = 10_000


def regularised_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b), the distribution function of a beta variable; a, b > 0, x in 0..1.

    Source: continued fraction 26.5.8 of Abramowitz and Stegun, evaluated by Lentz's method.
    """
    if not 0 <= x <= 1 or a <= 0 or b <= 0:
        raise ValueError(f"expected a, b > 0 and x in 0..1, got {a}, {b}, {x}")
    if x in (0.0, 1.0):
        return float(x)
    if x > (a + 1) / (a + b + 2):  # where the fraction for 1 - x converges faster
        return 1 - regularised_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    fraction = d
    for m in range(1, _LARGEST_ITERATIONS):
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + factor * d
            d = 1 / (d if abs(d) > tiny else tiny)
            c = 1 + factor / c
            c = c if abs(c) > tiny else tiny
            step = c * d
            fraction *= step
        if abs(step - 1) < 1e-16:
            break
    return math.exp(log_front) * fraction / a


def beta_quantile(a: float, b: float, probability: float) -> float:
    """x with I_x(a, b) = probability."""
    if probability <= 0 or probability >= 1:
        return float(probability >= 1)
    return _invert(lambda x: regularised_beta(a, b, x), probability, 0.0, 1.0)


def student_cdf(t: float, degrees: float) -> float:
    """P(T <= t) of Student's distribution."""
    tail = student_tail(abs(t), degrees)
    return 1 - tail if t > 0 else tail


def student_tail(t: float, degrees: float) -> float:
    """P(T > t) for t >= 0, without the cancellation of 1 - P(T <= t)."""
    if math.isinf(t):
        return 0.0
    return 0.5 * regularised_beta(degrees / 2, 0.5, degrees / (degrees + t * t))


@lru_cache(maxsize=256)
def student_quantile(probability: float, degrees: float) -> float:
    """t with P(T <= t) = probability, 0 < probability < 1."""
    if not 0 < probability < 1:
        raise ValueError(f"expected a probability between 0 and 1, got {probability}")
    if probability == 0.5:
        return 0.0
    tail = min(probability, 1 - probability)
    high = 1.0
    while student_tail(high, degrees) > tail:
        high *= 2
    t = _invert(lambda t: -student_tail(t, degrees), -tail, 0.0, high)
    return t if probability > 0.5 else -t


def _invert(rising: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Bisection to the last bit: slow and safe."""
    for _ in range(1100):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if rising(middle) < value:
            low = middle
        else:
            high = middle
    return (low + high) / 2
