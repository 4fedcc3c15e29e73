"""Processes for work on shards."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager

import torch


def pool_of(count: int) -> Executor:
    """Worker processes of one thread each, since they share the cores among themselves; one alone is a thread here."""
    if count < 2:
        return ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
    # spawned, not forked: a fork of a process with torch's threads may hang
    return ProcessPoolExecutor(
        count, multiprocessing.get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    )


@contextmanager
def processes(count: int) -> Iterator[Executor | None]:
    """The same for the time of a block; None where one process is enough: that is this one."""
    if count < 2:
        yield None
        return
    pool = pool_of(count)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
