"""Frames in order, rendered by worker processes, in bounded memory.

The workers are fresh interpreters that import this package and nothing of the caller's: `multiprocessing`
would run the caller's main module again in each of them, which costs seconds where that imports torch, and
fails where it has no `if __name__ == "__main__"`. Embree's Python interface holds the interpreter lock, so
threads would not help.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from diffdyad.render.renderer import Renderer

CHUNK = 8  # frames a worker is given at a time
FEW = 16  # frames for which starting workers is not worth it

# A worker is one core's worth. With glibc's defaults a sixth of its time goes into pages of arrays that are
# returned to the system only to be asked for again.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(1 << 26),
}


def render_frames(
    renderer: Renderer,
    vertices,  # (T, V, 3), an iterable of (V, 3) or (t, V, 3), or a function that returns such an iterable
    processes: int = 2,
    progress: Callable[[int], None] | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Yields (H, W, 3) frames in order.

    At most a few chunks of frames are held at any time, however long the iterable. `progress` is called with the
    number of frames yielded so far. Closing the iterator ends the workers.
    """
    chunks = _chunks(vertices)
    first = []
    while sum(map(len, first)) <= FEW and (chunk := next(chunks, None)) is not None:
        first.append(chunk)
    few = sum(map(len, first)) <= FEW

    def all_chunks():
        yield from first
        yield from chunks

    if few or processes < 2 or not sys.executable:
        pictures = (renderer.render(v) for chunk in all_chunks() for v in chunk)
    else:
        pictures = _in_parallel(renderer, all_chunks(), processes)
    for done, picture in enumerate(pictures, start=1):
        yield picture
        if progress is not None:
            progress(done)


def render_panels(
    renderer: Renderer,
    sources: Sequence,  # each as `vertices` of render_frames, of the same length
    processes: int = 2,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[NDArray[np.uint8], ...]]:
    """Several motions of one head by one set of workers: yields a tuple of frames, a source each, per time step.

    `progress` counts time steps. Ends with the shortest source.
    """
    each = [(v for chunk in _chunks(source) for v in chunk) for source in sources]
    frames = render_frames(renderer, (v for row in zip(*each) for v in row), processes)
    for done, row in enumerate(zip(*[frames] * len(each)), start=1):
        yield row
        if progress is not None:
            progress(done)


def _chunks(vertices) -> Iterator[NDArray[np.float32]]:  # -> (t, V, 3) with t <= CHUNK
    if callable(vertices):
        vertices = vertices()
    waiting: list[NDArray[np.float32]] = []
    for part in vertices:
        part = _array(part)
        for v in part[None] if part.ndim == 2 else part:
            waiting.append(v)
            if len(waiting) == CHUNK:
                yield np.stack(waiting)
                waiting = []
    if waiting:
        yield np.stack(waiting)


def _array(x) -> NDArray[np.float32]:
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x, np.float32)


def _in_parallel(renderer: Renderer, chunks: Iterable, processes: int) -> Iterator[NDArray[np.uint8]]:
    """Chunks go round the workers in turn.

    A worker has one chunk at a time and gets the next when its frames were read, so that the two sides never
    wait for each other to read.
    """
    workers: list[_Worker] = []
    try:
        source = iter(chunks)
        busy: list[_Worker] = []
        for _ in range(processes):
            if (chunk := next(source, None)) is None:
                break
            workers.append(worker := _Worker(renderer))
            worker.send(chunk)
            busy.append(worker)
        while busy:
            worker = busy.pop(0)
            frames = worker.receive()
            if (chunk := next(source, None)) is not None:
                worker.send(chunk)
                busy.append(worker)
            yield from frames
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    def __init__(self, renderer: Renderer):
        # Ctrl-C reaches the whole group; the parent decides what it means.
        program = (
            "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
            f"sys.path[:] = {sys.path!r}; from diffdyad.render.workers import _serve; _serve()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT},
        )
        self.send(renderer)

    def send(self, message) -> None:
        try:
            pickle.dump(message, self._process.stdin, protocol=5)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def receive(self) -> NDArray[np.uint8]:
        try:
            reply = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            raise self._died() from None
        if isinstance(reply, BaseException):
            raise reply
        return reply

    def stop(self) -> None:
        self._process.terminate()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        self._process.wait()

    def _died(self) -> RuntimeError:
        self._process.terminate()
        return RuntimeError(f"a rendering process ended early with exit status {self._process.wait()}")


def _serve() -> None:
    """A worker's life: a renderer, then chunks of vertices, until the pipe closes."""
    # Whatever prints must not end up among the frames.
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        renderer = pickle.load(source)
        while True:
            chunk = pickle.load(source)
            try:
                reply = np.stack([renderer.render(v) for v in chunk])
            except Exception as error:  # goes to the parent, which raises it
                reply = error
            pickle.dump(reply, sink, protocol=5)
            sink.flush()
    except (EOFError, BrokenPipeError):
        pass
