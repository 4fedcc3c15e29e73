"""Turns, and which of them answer which: pauses merged, backchannels left out, gaps and lengths that fit.

A turn is *verbal*; *nonverbal* (laughter, say) where voice activity finds no speech in it, or a recogniser no words;
*mixed* where it has both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from diffdyad.data.exchange import LONGEST_PREVIOUS_S
from diffdyad.data.recordings.frames import Span, merge

PAUSE_S, BACKCHANNEL_S = 0.5, 1.0
SHORTEST_TURN_S, SHORTEST_NONVERBAL_S = 3.0, 0.5
GAPS_S = (-0.5, 1.5)

SILENCE_S = 3.0
"""Somebody who is not heard for so long after the other's turn has not answered, whatever the face does."""

LONGEST_SILENCE_S = LONGEST_RESPONSE_S = 20.0

KINDS = ("verbal", "nonverbal", "mixed", "backchannel", "silent")


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
    spans: Sequence[Sequence[Span]], sounds: Sequence[Sequence[Span]] = (),
    has_words: Callable[[int, Span], bool] | None = None,
) -> list[Turn]:
    """All turns and backchannels in order of their beginning.

    spans: each person's speech; sounds: what else is heard of them; has_words: whether a recogniser found words in a
    span of a side, where one was asked. A turn of at most 1 s is a backchannel, unless nothing in it is speech.
    """
    found = []
    for side, own in enumerate(spans):
        other = list(sounds[side]) if sounds else []
        if has_words is not None:
            other += [span for span in own if span[1] - span[0] >= SHORTEST_NONVERBAL_S and not has_words(side, span)]
        for start, end in merge([*own, *other], PAUSE_S):
            wordless = [span for span in other if start <= span[0] < end]
            worded = any(start <= span[0] < end and span not in wordless for span in own)
            kind = "mixed" if worded and wordless else "verbal" if worded else "nonverbal"
            if kind != "nonverbal" and end - start <= BACKCHANNEL_S:
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
    """Adjacent turns of two people that fit each other. end_s: where the recording ends.

    Backchannels are passed over, and so is whatever the other says or laughs while a turn goes on, and ends before it.
    """
    found: list[Answer] = []
    previous = None
    for turn in turns:
        if turn.kind == "backchannel" or (previous is not None and turn.end_s <= previous.end_s):
            continue
        if previous is not None and fits(previous, turn, end_s):
            found.append(Answer(previous, turn, bool(found) and found[-1].turn is previous))
        previous = turn
    return found


def fits(previous: Turn, turn: Turn, end_s: float | None = None) -> bool:
    """Whether `turn` answers `previous`: the previous one verbal and of at least 3 s, the gap -0.5 to 1.5 s, the answer
    of at least 3 s, or 0.5 s where it is non-verbal."""
    shortest = {"nonverbal": SHORTEST_NONVERBAL_S, "silent": SILENCE_S}.get(turn.kind, SHORTEST_TURN_S)
    duration = min(turn.end_s, end_s if end_s is not None else turn.end_s) - turn.start_s
    return (
        previous.side != turn.side
        and previous.kind in ("verbal", "mixed")
        and GAPS_S[0] <= turn.start_s - previous.end_s <= GAPS_S[1]
        and previous.duration_s >= SHORTEST_TURN_S
        and duration >= shortest
        and turn.end_s > previous.end_s
    )


def find_silences(turns: Sequence[Turn], spans: Sequence[Sequence[Span]], end_s: float) -> list[Turn]:
    """Stretches of at least 3 s, and at most 20 s, after a turn in which nobody is heard, as silent turns of the other
    person. A backchannel ends them, as any sound does."""
    found = []
    for turn in turns:
        if turn.kind not in ("verbal", "mixed") or turn.duration_s < SHORTEST_TURN_S:
            continue
        heard = [a for own in spans for a, b in own if b > turn.end_s + 1e-6]
        heard += [other.start_s for other in turns if other is not turn and other.end_s > turn.end_s + 1e-6]
        until = min([end_s, turn.end_s + LONGEST_SILENCE_S, *heard])
        if until - turn.end_s >= SILENCE_S:
            found.append(Turn(1 - turn.side, turn.end_s, until, "silent"))
    return found


def within_shots(answers: Sequence[Answer], cuts_s: Sequence[float]) -> Iterator[Answer]:
    """Answers that no cut of the picture goes through. Where enough is left, a previous turn begins, or an answer ends,
    at the cut; a chain ends there. What no exchange keeps of a long turn (all but the last 20 s of a previous one, all
    but the first 20 s of an answer) may have cuts."""
    whole = None  # the last turn that is an answer in full
    for answer in answers:
        previous, turn = answer.previous, answer.turn
        edges = sorted(cuts_s)
        kept_s = max(previous.start_s, turn.start_s - LONGEST_PREVIOUS_S)
        before = [cut for cut in edges if kept_s < cut <= turn.start_s]
        after = [cut for cut in edges if turn.start_s < cut < min(turn.end_s, turn.start_s + LONGEST_RESPONSE_S)]
        if before:
            previous = replace(previous, start_s=before[-1])
        if after:
            turn = replace(turn, end_s=after[0])
        if fits(previous, turn):
            chained = answer.chained and whole is answer.previous and not before
            yield Answer(previous, turn, chained)
            whole = None if after else answer.turn
