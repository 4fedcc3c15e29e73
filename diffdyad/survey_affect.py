"""What `diffdyad data describe` says of affect: how turns differ in it, and is an answer like the turn before?

Channels of such networks have no names, so that only distances and angles between turns are told: of each turn's mean,
in standard deviations of all turns of the dataset.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffdyad.data.exchange import PEOPLE, Exchange

AFFECT = {"affect": "voice", "face_affect": "face"}
"""Columns, and what their affect is of."""

HOP_S = 0.2  # of the columns' rows: docs/DATASET.md


@dataclass(frozen=True)
class TurnAffect:
    """The affect of both people's own turns by one encoder. means: over the turn, (C,), by person, where known; known:
    share of its rows that are (a face is not always seen), by person."""

    encoder: str
    means: dict[str, np.ndarray]
    known: dict[str, float]


def turn_affect(exchange: Exchange) -> dict[str, TurnAffect]:
    """By column; those that there are."""
    found = {}
    for name in AFFECT:
        encoder, means, known = getattr(exchange, f"{name}_encoder"), {}, {}
        for who in PEOPLE:
            rows = getattr(exchange.person(who), name)
            frames = exchange.own_frames(who)
            times = HOP_S * (np.arange(len(rows)) + 1) * exchange.fps
            rows = rows[(times > frames.start) & (times <= (math.inf if frames.stop is None else frames.stop) + 1e-6)]
            there = np.isfinite(rows).all(1)
            if len(rows) and rows.shape[1]:
                known[who] = float(there.mean())
            if there.any():
                means[who] = rows[there].mean(0).astype(np.float32)
        if encoder and known:
            found[name] = TurnAffect(encoder, means, known)
    return found


def affect_figures(
    turns: Sequence[TurnAffect],
    people: Sequence[tuple[str, str]],  # of each: who spoke before, and who answers
) -> tuple[dict[str, int], dict[str, list[float]]]:
    """Encoders with how many exchanges each has, and figures of those of the first, by name:

    WHO_known: shares of rows; WHO_distance: of a turn's mean from that of all turns, root mean square over channels,
    standard deviations (1 is usual); likeness: cosine between the turn before and its answer, both about the mean of
    all; likeness_otherwise: between the answer and other turns before answers of the same two people, which have the
    same voices and rooms. These two are of the same answers.
    """
    encoders = Counter(turn.encoder for turn in turns)
    first = encoders.most_common(1)[0][0]
    chosen = [number for number, turn in enumerate(turns) if turn.encoder == first]
    figures: dict[str, list[float]] = {}
    if any(share < 1 for k in chosen for share in turns[k].known.values()):
        figures = {f"{who}_known": [turns[k].known[who] for k in chosen if who in turns[k].known] for who in PEOPLE}
    everything = [mean for k in chosen for mean in turns[k].means.values()]
    if len(everything) < 2:
        return dict(encoders), figures
    centre, spread = np.mean(everything, axis=0), np.std(everything, axis=0)
    moving = spread > 1e-6 * max(float(spread.max()), 1e-12)  # of a channel that never changes nothing is said

    def about(mean: np.ndarray) -> np.ndarray:
        return (mean[moving] - centre[moving]) / spread[moving]

    found = {k: {who: about(mean) for who, mean in turns[k].means.items()} for k in chosen}
    for who in PEOPLE:
        own = [turn[who] for turn in found.values() if who in turn]
        figures[f"{who}_distance"] = [float(np.sqrt(np.square(turn).mean())) for turn in own] if moving.any() else []
    pairs = defaultdict(list)
    for k, turn in found.items():
        if len(turn) == 2:
            pairs[people[k]].append([_unit(turn[who]) for who in PEOPLE])
    figures |= {"likeness": [], "likeness_otherwise": []}
    for own in pairs.values():
        before, answers = (np.stack([pair[side] for pair in own]) for side in (0, 1))
        if len(own) < 2:
            continue
        cosines = answers @ before.T
        likeness = np.diag(cosines)
        figures["likeness"] += likeness.tolist()
        figures["likeness_otherwise"] += ((cosines.sum(1) - likeness) / (len(own) - 1)).tolist()
    return dict(encoders), figures


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


TITLES = {
    "previous_distance": "{} affect before, from the mean, sd", "responder_distance": "{} affect answering, likewise",
    "likeness": "{} affect, answer like turn before", "likeness_otherwise": "{} affect, like others of the same two",
    "previous_known": "{} affect known, share, before", "responder_known": "{} affect known, share, answering",
}  # fmt: skip
"""What figures are called to a user; {}: of what the affect is."""
