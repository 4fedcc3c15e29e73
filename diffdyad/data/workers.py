"""Processes for work on shards."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from threading import Thread


def start_worker() -> None:
    """In a worker process: one thread of torch's, since the workers share the cores; one that dies says where, and none
    outlives the process that it works for, even where that was killed."""
    import torch

    faulthandler.enable()
    torch.set_num_threads(1)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def spawned(count: int) -> ProcessPoolExecutor:
    """Worker processes; spawned, not forked: a fork of a process with torch's threads may hang."""
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=start_worker)


def pool_of(count: int) -> Executor:
    """Worker processes, or a thread of this one where one is enough."""
    if count < 2:
        import torch

        return ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
    return spawned(count)


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
