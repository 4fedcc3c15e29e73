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
from multiprocessing.context import SpawnContext, SpawnProcess
from threading import Thread

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def spawned(count: int, begin: Callable[..., None] | None = None, *arguments) -> ProcessPoolExecutor:
    """Worker processes, each of which begins with `begin(*arguments)`; spawned, not forked: a fork of a process with
    torch's threads may hang."""
    return ProcessPoolExecutor(count, _OneThreadContext(), _start_worker, (pickle.dumps((begin, arguments)),))


class _OneThreadProcess(SpawnProcess):
    """Begins with one thread for numpy and torch, since the workers share the cores. They read it from the environment
    when they are loaded, and the caller's main module, which comes first of all, may load them."""

    def start(self) -> None:
        before = {name: os.environ.get(name) for name in _THREADS}
        os.environ.update(dict.fromkeys(_THREADS, "1"))
        try:
            super().start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


class _OneThreadContext(SpawnContext):
    Process = _OneThreadProcess


def _start_worker(pickled: bytes) -> None:
    """One that dies says where, and none outlives the process that it works for, even where that was killed."""
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
