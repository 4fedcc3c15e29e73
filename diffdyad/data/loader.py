"""Batches of the steps, made ahead: by a thread, or by processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from diffdyad.data.batches import Batch, keyed_generator
from diffdyad.data.pool import Pool


@dataclass
class StepBatches(Dataset):
    """Step -> this process' micro-batches.

    window_s: shortest and longest window; micro_batch: examples per process and accumulation step; rank: this
    process among `num_processes`.
    """

    pool: Pool
    seed: int
    window_s: tuple[float, float]
    fps: float
    micro_batch: int
    accumulation_steps: int
    num_processes: int
    rank: int

    def num_frames(self, step: int) -> int:
        """Even number of frames of a step's windows; all processes agree."""
        low, high = self.window_s
        drawn = torch.rand((), generator=keyed_generator(self.seed, "length", step)).item()
        return 2 * round((low + drawn * (high - low)) * self.fps / 2)

    def __getitem__(self, step: int) -> list[Batch]:
        made, windows = [], self.pool.at(step)
        for micro in range(self.accumulation_steps):
            first = (micro * self.num_processes + self.rank) * self.micro_batch
            generators = [keyed_generator(self.seed, step, index) for index in range(first, first + self.micro_batch)]
            made.append(windows.batch(generators, self.num_frames(step)))
        return made


class Loader:
    """The batches of the steps from `first` to `last` - 1, in order. waited_s: what the last of them kept waiting."""

    def __init__(self, batches: StepBatches, first: int, last: int, workers: int):
        self.batches, self.steps, self.workers = batches, range(first, last), workers
        self.waited_s = 0.0
        # one thread for loading: a second team of threads beside the model's would double the step's time
        self._thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_) -> None:
        self._thread.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[list[Batch]]:
        upcoming = self._by_processes() if self.workers else self._by_thread()
        while True:
            began = time.perf_counter()
            batches = next(upcoming, None)
            if batches is None:
                return
            self.waited_s = time.perf_counter() - began
            yield batches

    def _by_thread(self) -> Iterator[list[Batch]]:
        waiting = None
        for step in self.steps:
            made = self._thread.submit(self.batches.__getitem__, step)
            if waiting is not None:
                yield waiting.result()
            waiting = made
        if waiting is not None:
            yield waiting.result()

    def _by_processes(self) -> Iterator[list[Batch]]:
        # a generator of its own: the loader would draw a seed from the global one
        yield from DataLoader(
            self.batches, batch_size=None, sampler=self.steps, num_workers=self.workers, collate_fn=_as_it_is,
            multiprocessing_context="spawn", prefetch_factor=2, generator=torch.Generator(),
        )  # fmt: skip


def _as_it_is(batches: list[Batch]) -> list[Batch]:
    return batches
