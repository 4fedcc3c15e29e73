"""Which exchanges the examples of a step are drawn from: all of them, or some shards at a time, one after another.

With a stream, every dataset has its shards in an order that depends on the seed alone; a window of some of them moves
on by one shard every so many steps. So what is in memory at a step follows from (seed, step): the same on any number
of processes, and after a resumed run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from diffdyad.config import StreamConfig
from diffdyad.data import store
from diffdyad.data.batches import ExchangeWindows, keyed_generator
from diffdyad.data.features import ExchangeFeatures, unpack
from diffdyad.data.intake import CorruptShard
from diffdyad.data.workers import pool_of
from diffdyad.errors import UserError

Member = tuple[int, int]
"""Index of a dataset, and of a shard in it."""


@dataclass
class Files:
    """Shards whose features lie on the disk: the files of every dataset."""

    shards: Sequence[Sequence[Path]]

    def request(self, member: Member) -> None:
        pass

    def take(self, member: Member) -> list[ExchangeFeatures]:
        return store.read(self.shards[member[0]][member[1]], member[0])

    def close(self) -> None:
        pass


class OnTheFly:
    """Shards whose features are computed when they are wanted, by `workers` processes, and not kept."""

    def __init__(
        self, shards: Sequence[Sequence[store.Job]], workers: int, skip_corrupt: bool = False, warn: store.Warn = print
    ):
        self.shards, self.workers, self.skip_corrupt, self.warn = shards, workers, skip_corrupt, warn
        self._executor: Executor | None = None
        self._waiting: dict[Member, Future] = {}

    def request(self, member: Member) -> None:
        """Lets the work on a shard begin."""
        if member not in self._waiting:
            self._executor = self._executor or pool_of(self.workers)
            self._waiting[member] = self._executor.submit(store.shard_features, self.shards[member[0]][member[1]])

    def take(self, member: Member) -> list[ExchangeFeatures]:
        self.request(member)
        try:
            tensors, index = self._waiting.pop(member).result()
        except CorruptShard as error:
            if not self.skip_corrupt:
                raise
            self.warn(f"going on without a shard: {error}")
            return []
        return [replace(item, dataset=member[0]) for item in unpack(tensors, index["exchanges"])]

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None


def with_turns_permuted(items: Sequence[ExchangeFeatures], generator: torch.Generator) -> list[ExchangeFeatures]:
    """Every answer after the turn of another exchange, none after its own where there are two or more."""
    order = [k for k in torch.randperm(len(items), generator=generator).tolist() if not items[k].alone]
    found = list(items)
    for own, other in zip(order, order[1:] + order[:1]):
        found[own] = replace(items[own], turn=items[other].turn)
    return found


class Pool:
    """The exchanges of any step. make: windows over exchanges, once their statistics are known.

    permute_turns: previous turns are exchanged among the exchanges of a shard; left_out: ids of exchanges, of every
    dataset, that are passed over.
    """

    def __init__(
        self, source: Files | OnTheFly, stream: StreamConfig | None, seed: int, permute_turns: bool = False,
        left_out: Sequence[Collection[str]] | None = None,
    ):
        self.source, self.stream, self.seed, self.permute_turns = source, stream, seed, permute_turns
        self.left_out = left_out
        self.make: Callable[[Sequence[ExchangeFeatures]], ExchangeWindows] | None = None
        self._loaded: dict[Member, list[ExchangeFeatures]] = {}
        self._members: tuple[Member, ...] | None = None
        self._windows: ExchangeWindows | None = None

    def members(self, step: int) -> tuple[Member, ...]:
        """The shards that are in memory at a step."""
        found = []
        for dataset, shards in enumerate(self.source.shards):
            count = len(shards)
            if self.stream is None or self.stream.shards >= count:
                found += [(dataset, shard) for shard in range(count)]
                continue
            first = step // self.stream.steps
            for position in range(first, first + self.stream.shards):
                found.append((dataset, self._order(dataset, count, position // count)[position % count]))
        return tuple(sorted(set(found)))

    def _order(self, dataset: int, count: int, epoch: int) -> list[int]:
        generator = keyed_generator(self.seed, "shards", dataset, epoch)
        return torch.randperm(count, generator=generator).tolist()

    def exchanges(self, step: int) -> Sequence[ExchangeFeatures]:
        """The usable exchanges of a step's shards. Raises UserError where there is none."""
        members = self.members(step)
        for member in members:
            if member not in self._loaded:
                self.source.request(member)
        self._loaded = {m: self._loaded[m] if m in self._loaded else self._take(m) for m in members}
        usable = [item for items in self._loaded.values() for item in items if item.is_usable]
        if not usable:
            raise UserError("expected at least one usable exchange (with motion that is known), found none")
        return usable

    def _take(self, member: Member) -> list[ExchangeFeatures]:
        items = self.source.take(member)
        if self.left_out and self.left_out[member[0]]:
            items = [item for item in items if item.exchange_id not in self.left_out[member[0]]]
        return with_turns_permuted(items, keyed_generator(self.seed, "turns", *member)) if self.permute_turns else items

    def at(self, step: int) -> ExchangeWindows:
        """Windows over the exchanges of a step; the next shard is made ready meanwhile."""
        members = self.members(step)
        if members != self._members:
            self._windows, self._members = self.make(self.exchanges(step)), members
            if self.stream is not None:
                for member in self.members(step + self.stream.steps):
                    if member not in self._loaded:
                        self.source.request(member)
        return self._windows

    def close(self) -> None:
        self.source.close()

    def __getstate__(self):
        return {**self.__dict__, "_loaded": {}, "_members": None, "_windows": None}  # loaded again from the files
