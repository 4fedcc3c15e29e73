"""Which exchanges are kept, and why not: rules over what is written in the records, so that they can be run again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diffdyad.data.dynamics import GLITCH_DEG_S, head_dynamics
from diffdyad.data.exchange import PEOPLE, Exchange

MOST_RESIDUAL_DB = -6.0
LEAST_VALID = 0.5


@dataclass(frozen=True)
class Rule:
    """reason: what `reject_reasons` says; broken: whether an exchange breaks it. What is not known breaks nothing."""

    reason: str
    broken: Callable[[Exchange], bool]


def _residual(exchange: Exchange) -> bool:
    return any(exchange.person(who).residual_db > MOST_RESIDUAL_DB for who in PEOPLE)


def _tracked(exchange: Exchange) -> bool:
    return any(len(person.valid) and person.valid.mean() < LEAST_VALID for person in map(exchange.person, PEOPLE))


def _glitch(exchange: Exchange) -> bool:
    dynamics = [head_dynamics(p.motion, p.valid, exchange.fps) for p in map(exchange.person, PEOPLE)]
    return any(max(d.speed_deg_s, default=0.0) > GLITCH_DEG_S for d in dynamics)


RULES = (
    Rule(f"the other's voice is in the sound (residual over {MOST_RESIDUAL_DB:g} dB)", _residual),
    Rule(f"the face was seen in less than {LEAST_VALID:.0%} of the frames", _tracked),
    Rule(f"the head turns faster than {GLITCH_DEG_S:g} degrees/s: a tracker's error", _glitch),
)


def judge(exchange: Exchange, rules: tuple[Rule, ...] = RULES) -> None:
    """Sets `keep` and `reject_reasons`."""
    exchange.reject_reasons = [rule.reason for rule in rules if rule.broken(exchange)]
    exchange.keep = not exchange.reject_reasons
