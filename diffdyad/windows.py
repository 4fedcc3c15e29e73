"""How a long answer is cut into windows that overlap, so that each continues from the one before.

A window starts with frames that are given (its prefix), and its last frames are thrown away where more
follows: they were generated without hearing what comes next. Nothing here knows a network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


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


def join(given: Tensor, generated: Tensor, prefix: int, fade: int = 8) -> Tensor:
    """The given first frames, and after them the generated ones, without a jump or a kink. (B, T, D) each.

    The network generates the given frames, too, and is off by a little: the frames that follow are moved by what it
    was off at the last given one, and by how fast that was changing, both fading out over `fade` frames.
    """
    if prefix == 0:
        return generated
    off = given[:, :prefix] - generated[:, :prefix]
    # over two frames: one is too noisy, and the network's tokens are two frames long
    back = min(2, prefix - 1)
    speed = (off[:, -1:] - off[:, -1 - back : prefix - back]) / max(back, 1)
    after = generated[:, prefix:]
    steps = torch.arange(1, after.shape[1] + 1, device=after.device)[:, None]
    weight = 0.5 * (1 + torch.cos(torch.pi * (steps / (fade + 1)).clamp(max=1)))  # flat at both ends
    return torch.cat([given[:, :prefix], after + weight * (off[:, -1:] + speed * steps)], 1)
