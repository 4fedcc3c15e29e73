"""Processes for work on shards."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from threading import Thread


def spawned(count: int, begin: Callable[..., None] | None = None, *arguments) -> ProcessPoolExecutor:
    """Worker processes, each of which begins with `begin(*arguments)`; spawned, not forked: a fork of a process with
    torch's threads may hang."""
    return ProcessPoolExecutor(
        count, multiprocessing.get_context("spawn"), _start_worker, (pickle.dumps((begin, arguments)),)
    )


def _start_worker(pickled: bytes) -> None:
    """One thread each, since the workers share the cores; one that dies says where, and none outlives the process that
    it works for, even where that was killed."""
    for library in ("OMP", "OPENBLAS", "MKL"):  # read when numpy and torch are loaded, which comes after
        os.environ[f"{library}_NUM_THREADS"] = "1"
    import torch

    faulthandler.enable()
    torch.set_num_threads(1)
    Thread(target=_end_with_parent, daemon=True).start()
    begin, arguments = pickle.loads(pickled)
    if begin is not None:
        begin(*arguments)


def _end_with_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


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
