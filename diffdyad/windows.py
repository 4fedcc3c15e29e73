"""How a long answer is cut into windows that overlap, so that each continues from the one before.

A window starts with frames that are given (its prefix), and its last frames are thrown away where more
follows: they were generated without hearing what comes next. Nothing here knows a network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Frames [start, start + length) of the timeline; the first `prefix` are given, and [start + prefix,
    stop) are the window's result."""

    start: int
    length: int
    prefix: int
    stop: int


def windows(total: int, length: int, prefix: int, margin: int, given: int = 0) -> Iterator[Window]:
    """Windows of one length that cover `total` frames.

    prefix: frames handed from window to window; margin: last frames of a window that the next one makes
    again; given: first frames of the timeline that are known beforehand (at most `length` - 1).
    """
    if not 0 <= prefix + margin < length or given >= length:
        raise ValueError(
            f"expected prefix + margin < length and given < length, got {prefix}, {margin}, {length}, {given}"
        )
    start, known = 0, given
    while known < total:
        last = start + length >= total
        stop = total if last else start + length - margin
        yield Window(start, length, known - start, stop)
        known = stop
        start = max(stop - prefix, start + 1)
