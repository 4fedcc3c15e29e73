"""Turns, and which of them answer which: pauses merged, backchannels left out, gaps and lengths that fit.

A turn is *verbal* unless words were looked for and none were found in it: then it is *nonverbal* (laughter, say), and
may be as short as half a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from diffdyad.data.recordings.frames import Span, merge

PAUSE_S, BACKCHANNEL_S = 0.5, 1.0
SHORTEST_TURN_S, SHORTEST_NONVERBAL_S = 3.0, 0.5
GAPS_S = (-0.5, 1.5)

KINDS = ("verbal", "nonverbal", "backchannel")


@dataclass(frozen=True)
class Turn:
    """One turn, or a backchannel. side: index of the person; seconds on the recording's clock."""

    side: int
    start_s: float
    end_s: float
    kind: str = "verbal"

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


def find_turns(
    spans: Sequence[Sequence[Span]], has_words: Callable[[int, Span], bool | None] | None = None
) -> list[Turn]:
    """All turns and backchannels in order of their beginning.

    has_words: whether there are words in a span of a side; None = it was not looked for. At most 1 s is a backchannel,
    unless it has no words: that may be a non-verbal answer.
    """
    found = []
    for side, own in enumerate(spans):
        for start, end in merge(own, PAUSE_S):
            words = has_words(side, (start, end)) if has_words is not None else None
            kind = "nonverbal" if words is False and end - start >= SHORTEST_NONVERBAL_S else "verbal"
            if kind == "verbal" and end - start <= BACKCHANNEL_S:
                kind = "backchannel"
            found.append(Turn(side, start, end, kind))
    return sorted(found, key=lambda turn: (turn.start_s, turn.end_s, turn.side))


@dataclass(frozen=True)
class Answer:
    """A turn that answers another. chained: that other is itself the answer before this one."""

    previous: Turn
    turn: Turn
    chained: bool


def find_answers(turns: Sequence[Turn], end_s: float | None = None) -> list[Answer]:
    """Adjacent turns of two people that fit each other, backchannels aside. end_s: where the recording ends."""
    found: list[Answer] = []
    for previous, turn in pairwise(turn for turn in turns if turn.kind != "backchannel"):
        if fits(previous, turn, end_s):
            found.append(Answer(previous, turn, bool(found) and found[-1].turn is previous))
    return found


def fits(previous: Turn, turn: Turn, end_s: float | None = None) -> bool:
    """Whether `turn` answers `previous`: the previous one verbal and of at least 3 s, the gap -0.5 to 1.5 s, the answer
    of at least 3 s, or 0.5 s where it is non-verbal."""
    shortest = SHORTEST_NONVERBAL_S if turn.kind == "nonverbal" else SHORTEST_TURN_S
    duration = min(turn.end_s, end_s if end_s is not None else turn.end_s) - turn.start_s
    return (
        previous.side != turn.side
        and previous.kind == "verbal"
        and GAPS_S[0] <= turn.start_s - previous.end_s <= GAPS_S[1]
        and previous.duration_s >= SHORTEST_TURN_S
        and duration >= shortest
        and turn.end_s > previous.end_s
    )


def shifted(turns: Sequence[Turn], seconds: float) -> list[Turn]:
    """The same turns on a clock that is ahead by so many seconds."""
    return [replace(turn, start_s=turn.start_s - seconds, end_s=turn.end_s - seconds) for turn in turns]
