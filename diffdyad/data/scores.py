"""Scores of one exchange, for filters and for analysis: does each mouth go with its own voice?"""

from __future__ import annotations

import math

from diffdyad.data.exchange import PEOPLE, Exchange
from diffdyad.data.sync import LipSync, lip_sync


def own_turn_s(exchange: Exchange, who: str) -> tuple[float, float]:
    """From when to when somebody has the turn; (0, 0) for an answer without words."""
    if who == "previous":
        return exchange.start_s, exchange.previous_end_s
    return (0.0, exchange.end_s) if exchange.response_kind in ("verbal", "mixed") else (0.0, 0.0)


def mouth_and_voice(exchange: Exchange, who: str) -> LipSync | None:
    """A person's jaw against the same person's voice, in that person's own turn; None where it cannot be judged."""
    person = exchange.person(who)
    jaw = person.motion.get("jaw_pose", ())
    start, end = (max(0, round((at - exchange.start_s) * exchange.fps)) for at in own_turn_s(exchange, who))
    if not len(jaw) or not len(person.waveform) or end <= start:
        return None
    return lip_sync(jaw[:, 0], person.waveform, exchange.fps, slice(start, end), person.valid)


def add_scores(exchange: Exchange) -> None:
    """Sets `active_speaker_score`, the lower of both people's correlations, and `sync_lag_ms`, of the one who is
    further off. NaN where there is no mouth, or no voice to compare it with."""
    found = [sync for sync in (mouth_and_voice(exchange, who) for who in PEOPLE) if sync is not None]
    lags = [1000 * sync.lag_s for sync in found if sync.lag_s is not None]
    exchange.active_speaker_score = max(0.0, min(sync.correlation for sync in found)) if found else math.nan
    exchange.sync_lag_ms = max(lags, key=abs, default=math.nan)
