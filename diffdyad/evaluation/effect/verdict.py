"""From endpoints to words: meaningful, not meaningful, or cannot tell and how many more pairs would."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from diffdyad.evaluation.effect.inference import (
    POWER,
    Effect,
    Equivalence,
    power_of,
    units_for_equivalence,
    units_needed,
)
from diffdyad.evaluation.intervals import Estimate

MEANINGFUL, NOT_MEANINGFUL, CANNOT_TELL = "meaningful", "not meaningful", "cannot tell"


@dataclass(frozen=True)
class Endpoint:
    """contrasts: each must be positive for the endpoint to hold; testable: False where the instrument cannot see it."""

    name: str
    about: str
    unit: str
    contrasts: dict[str, Effect]
    testable: bool = True
    why_not: str = ""

    @property
    def holds(self) -> bool:
        return self.testable and all(effect.is_positive for effect in self.contrasts.values())


@dataclass(frozen=True)
class Evidence:
    """partial_r2: by contrast, of the expression given the own audio, with 90 % intervals; smallest_effect: of it.

    lips: None where no head says; placebo: by name, effects that must not be there; power_at_smallest: of finding the
    smallest effect with these units, by contrast.
    """

    gap: Endpoint
    energy: Endpoint
    retrieval: Endpoint
    lips: Equivalence | None
    placebo: dict[str, Effect]
    partial_r2: dict[str, Estimate]
    smallest_effect: float
    power_at_smallest: dict[str, float]
    num_units: int


@dataclass(frozen=True)
class Verdict:
    """word: one of three; sentence: for a reader; reasons: what it rests on; more_units: pairs, None = not known."""

    word: str
    sentence: str
    reasons: list[str] = field(default_factory=list)
    more_units: int | None = None


def decide(evidence: Evidence) -> Verdict:
    """The verdict of docs/context.md: conjunctions, each endpoint calibrated alone."""
    e = evidence
    second = e.retrieval if e.retrieval.testable else e.energy
    placebo_null = bool(e.placebo) and not any(effect.is_positive for effect in e.placebo.values())
    lips_hold = e.lips is not None and e.lips.holds
    reasons = [
        _say(e.gap), _say(second),
        *([] if e.retrieval.testable else [f"Retrieval is not testable: {e.retrieval.why_not}."]),
        _say_placebo(e.placebo), _say_lips(e.lips),
    ]  # fmt: skip
    bounded = [name for name, r2 in e.partial_r2.items() if r2.high < e.smallest_effect]
    found = e.gap.holds and second.holds and placebo_null and lips_hold
    if found and not bounded:
        near, none = (e.partial_r2[name] for name in ("swap-near", "null"))
        return Verdict(
            MEANINGFUL, "The context matters: what was said before changes the expression in the right direction, more "
            "than another turn of the same speaker would. Of the expression given the own audio it explains "
            f"{_say_size(near)} more than such a turn does, {_say_size(none)} more than none.", reasons,
        )  # fmt: skip
    # what was found needs no power to be called small
    absent = [name for name in bounded if found or e.power_at_smallest[name] >= POWER]
    if absent:
        name = absent[0]
        r2 = e.partial_r2[name]
        reasons.append(
            f"Partial R2 against {name}: {_percent(r2.value)}, below {_percent(r2.high)} with 95 % confidence; "
            f"an effect of {_percent(e.smallest_effect)} would have been found with a power of "
            f"{_percent(e.power_at_smallest[name])}."
        )  # fmt: skip
        if e.retrieval.testable and not found:
            reasons.append("Real answers do tell which turn came before (the critic finds it more often than a near "
                           "one): there is more in the data than this model shows.")  # fmt: skip
        what = "To this model the context matters, but too little" if found else (
            "To this model the context does not matter"
        )
        return Verdict(
            NOT_MEANINGFUL, f"{what}: its effect against {_WRONG[name]} is smaller than the smallest of interest, "
            f"{_percent(e.smallest_effect)} of the expression given the own audio.", reasons,
        )  # fmt: skip
    return _open(evidence, second, placebo_null, lips_hold, reasons)


_WRONG = {"null": "no context", "swap-near": "another turn of the same speaker"}


def _open(e: Evidence, second: Endpoint, placebo_null: bool, lips_hold: bool, reasons: list[str]) -> Verdict:
    open_ones = [effect for endpoint in (e.gap, second) for effect in endpoint.contrasts.values()
                 if not effect.is_positive]  # fmt: skip
    held = e.gap.holds and second.holds
    if held and not placebo_null:
        what = "the placebo found an effect, too" if e.placebo else "there is no placebo to compare with"
        return Verdict(CANNOT_TELL, f"Cannot tell: the context changes the motion as it should, but {what}.", reasons)
    needed = [(units_needed(effect.d_z), effect.num_units) for effect in open_ones]
    known = [(count, there) for count, there in needed if count is not None]
    if len(known) < len(needed):
        # where the estimate points the wrong way, what would show the smallest effect of interest
        counts = [units_at_power(power, e.num_units) for power in e.power_at_smallest.values()]
        known += [(count, e.num_units) for count in counts if count is not None]
    if not held and not known:
        return Verdict(CANNOT_TELL, "Cannot tell, and what was measured does not say how many more pairs would.",
                       reasons)  # fmt: skip
    for_lips = None if e.lips is None or lips_hold else _units_for_lips(e.lips)
    known += [] if for_lips is None else [(for_lips, e.lips.num_units)]
    what, provided = "Cannot tell", "if the effect is what it looks like"
    if held:
        what += ": the context changes the motion as it should, but the lips are not shown to hold"
        provided = "if they move as it looks like"
        if not known:
            return Verdict(CANNOT_TELL, f"{what}.", reasons)
    wanted, more = _wanted(known, e.num_units)
    sentence = f"{what}: {wanted}, {provided} ({e.num_units} pairs were there)."
    return Verdict(CANNOT_TELL, sentence, reasons, more)


def _wanted(known: list[tuple[int, int]], num_units: int) -> tuple[str, int]:
    """What is needed in words, and how many more pairs of it. known: units needed, and how many there were."""
    more = max(0, max(count for count, _ in known) - num_units)
    # answers are made to some of the exchanges alone, one of each pair of people first
    factor = max((count / there for count, there in known if there < num_units), default=0.0)
    if factor <= 1:
        more = max(1, more)
    wanted = [f"{more} more independent pairs needed"] if more else []
    if factor > 1:
        wanted.append(f"{math.ceil(10 * factor) / 10:g} times as many answers needed (--budget)")
    return ", and ".join(wanted), more


def _units_for_lips(lips: Equivalence) -> int | None:
    return units_for_equivalence(lips.mean, lips.deviation, lips.margin)


def units_at_power(power: float, num_units: int) -> int | None:
    """How many units have 90 % power for what `num_units` find with `power`."""
    if not math.isfinite(power):
        return None
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if power_of(middle, num_units) < power else (low, middle)
    return units_needed(low)


def _say(endpoint: Endpoint) -> str:
    parts = [f"{name}: {effect.mean:.3g} {endpoint.unit} [{effect.low:.3g}, {effect.high:.3g}], "
             f"p = {effect.p_value:.2g}, d_z = {effect.d_z:.2f}"
             for name, effect in endpoint.contrasts.items()]  # fmt: skip
    return f"{endpoint.name} {'holds' if endpoint.holds else 'does not hold'} ({'; '.join(parts)})."


def _say_placebo(placebo: dict[str, Effect]) -> str:
    if not placebo:
        return "No placebo could be made: no speaker has a third turn in a session, and no --placebo was given."
    alarms = ", ".join(name for name, effect in placebo.items() if effect.is_positive)
    return f"The placebo found an effect: the instrument is not to be trusted here ({alarms})." if alarms else (
        f"The placebo found nothing ({'; '.join(placebo)})."
    )


def _say_lips(lips: Equivalence | None) -> str:
    if lips is None:
        return "The lips are not known: no head in the motion's basis was given."
    said = f"their opening changes by {lips.mean:.3f} mm [{lips.low:.3f}, {lips.high:.3f}], margin {lips.margin:g} mm"
    if lips.holds:
        return f"The lips hold: {said}."
    if abs(lips.mean) >= lips.margin:
        return f"The lips are not shown to hold: {said}; no number of pairs would show that they keep within it."
    count = _units_for_lips(lips)
    return f"The lips are not shown to hold: {said}{f'; {count} pairs would, with a power of 90 %' if count else ''}."


def _say_size(size: Estimate) -> str:
    return f"{_percent(size.value)} (90 % interval {_percent(size.low)} to {_percent(size.high)})"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share >= 0.1 else f"{100 * share:.2g} %"
