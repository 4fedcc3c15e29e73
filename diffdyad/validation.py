"""What a network is worth on conversations that it does not learn from."""

from __future__ import annotations

from collections.abc import Callable

import torch

from diffdyad.data.batches import Batch, ExchangeWindows, keyed_generator
from diffdyad.objective import LossSums

_BATCH = 32
_WINDOW_S = 5.0


@torch.no_grad()
def validate(
    windows: ExchangeWindows, losses: Callable[[Batch], LossSums], fps: float, seed: int, count: int
) -> dict[str, float]:
    """Mean losses over `count` windows with all conditions; windows, noise and timesteps depend on the seed alone.

    `context_gap` is the rise of the motion loss when the context is withheld: what it is worth.
    """
    totals: dict[str, float] = {}
    chunks = max(1, count // _BATCH)
    for chunk in range(chunks):
        generators = [keyed_generator(seed, "validation", chunk * _BATCH + index) for index in range(_BATCH)]
        batch = windows.batch(generators, 2 * round(_WINDOW_S / 2 * fps), withhold=False)
        given = losses(batch)
        batch.conditions.context = batch.conditions.context.dropped()
        dropped = losses(batch)
        for name, value in given.sums.items():
            totals[name] = totals.get(name, 0.0) + (value / given.counts[name]).item() / chunks
        gap = (dropped.sums["motion"] - given.sums["motion"]) / given.counts["motion"]
        totals["context_gap"] = totals.get("context_gap", 0.0) + gap.item() / chunks
    return totals
