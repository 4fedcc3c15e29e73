"""The contexts that an exchange is answered under: the true turn, none, wrong ones, and parts of them.

Every context ends when the true turn ended, so that a swap changes what was said and not when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from diffdyad.context import Context, ContextEncoder, TurnFeatures
from diffdyad.evaluation.effect.reading import Item
from diffdyad.evaluation.effect.swaps import Swaps

TRUE, NULL, NEAR, FAR, TIME, PLACEBO = "true", "null", "swap-near", "swap-far", "time-scrambled", "swap-near-too"
ABOUT = {
    TRUE: "the turn that came before",
    NULL: "no turn is given",
    NEAR: "another turn of the same speaker in the same session, matched on duration, gap and loudness",
    FAR: "a turn of other people, matched likewise",
    TIME: "the true turn, its moments in random order",
    PLACEBO: "yet another turn of the same speaker: taken for the true one, nothing may be found",
}
OCCLUSION_S = 0.5
OCCLUDED_S = 5.0


def swapped(modality: str) -> str:
    """The condition in which only this modality is the near swap's."""
    return f"swap-{modality}"


def without(modality: str) -> str:
    """The condition in which this modality is not given."""
    return f"without-{modality}"


class Conditions:
    """Contexts of the items under any condition; None where there is no such swap."""

    def __init__(self, encoder: ContextEncoder, items: Sequence[Item], swaps: Swaps, seed: int = 0):
        self.encoder, self.items, self.swaps, self.seed = encoder, items, swaps, seed
        self._turns: dict[int, TurnFeatures] = {}

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.encoder.modalities

    def turn(self, index: int) -> TurnFeatures:
        """Standardised."""
        if index not in self._turns:
            self._turns[index] = self.encoder.standardise(self.items[index].turn)
        return self._turns[index]

    def context(self, index: int, condition: str) -> Context | None:
        """The context of one exchange, a batch of one."""
        end_s = self.items[index].features.previous_end_s
        own = self.turn(index)
        if condition == NULL:
            return self.encoder.place(own, end_s).dropped()
        if condition in (TRUE, TIME):
            turn = own if condition == TRUE else scrambled(own, self._generator(index))
            return self.encoder.place(turn, end_s)
        if condition.startswith("without-"):
            return self.encoder.place(own, end_s).drop(condition.removeprefix("without-"))
        donors = {NEAR: self.swaps.near, FAR: self.swaps.far, PLACEBO: self.swaps.near_too}
        donor = int(donors.get(condition, self.swaps.near)[index])
        if donor < 0:
            return None
        turn = self.turn(donor)
        if condition not in donors:
            turn = mixed(own, turn, condition.removeprefix("swap-"))
        return self.encoder.place(turn, end_s)

    def _generator(self, index: int) -> np.random.Generator:
        """By the exchange's name: an order that does not depend on which others are judged with it."""
        return np.random.default_rng([self.seed, 5, *self.items[index].name.encode()])

    def occluded(self, index: int, first_s: float, last_s: float) -> Context:
        """The true context less what lies between so many seconds before its end (first_s > last_s >= 0)."""
        context = self.context(index, TRUE)
        before_end = context.end_s[:, None] - context.times_s
        hidden = (before_end <= first_s) & (before_end > last_s)
        return replace(context, mask=context.mask & ~hidden)


def scrambled(turn: TurnFeatures, generator: np.random.Generator) -> TurnFeatures:
    """The cells in another order, the same for all modalities."""
    count = max((len(cells) for cells in turn.features.values()), default=0)
    order = torch.from_numpy(generator.permutation(count))
    return replace(
        turn, features={name: cells[order] for name, cells in turn.features.items()},
        valid={name: valid[order] for name, valid in turn.valid.items()},
    )  # fmt: skip


def mixed(own: TurnFeatures, donor: TurnFeatures, modality: str) -> TurnFeatures:
    """A turn with one modality of another's; cells are aligned to the end, the shorter turn has none before."""
    parts = {name: (donor if name == modality else own) for name in {*own.features, *donor.features}}
    there = {name: turn for name, turn in parts.items() if name in turn.features}
    count = max((len(turn.features[name]) for name, turn in there.items()), default=0)
    sentence = donor.sentence if modality == "text" else own.sentence
    return TurnFeatures(
        {name: _fit(turn.features[name], count) for name, turn in there.items()},
        {name: _fit(turn.valid[name], count) for name, turn in there.items()}, sentence,
    )  # fmt: skip


def _fit(cells: Tensor, count: int) -> Tensor:
    """(n, ...) -> (count, ...), blank in front."""
    return torch.cat([cells.new_zeros(count - len(cells), *cells.shape[1:]), cells]) if len(cells) < count else cells
