"""Ctrl-C and SIGTERM end a command cleanly, whatever it does at that moment."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

AGAIN_S = 0.5
"""How long after a signal it is looked at whether its KeyboardInterrupt got lost."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it SIGINT and SIGTERM raise KeyboardInterrupt in the main thread, and go on doing so until it has left.

    An interrupt can get lost: libraries have bare `except`s around their imports, and what is raised in a callback from
    C or in `__del__` is printed and forgotten. So it is raised again as long as nobody is at work on it; those who
    clean up are left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    timed = hasattr(signal, "setitimer")  # not on Windows

    def interrupt(*_) -> NoReturn:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S, AGAIN_S)
        raise KeyboardInterrupt

    def again(*_) -> None:
        if not _is_being_handled():
            raise KeyboardInterrupt

    wanted = {signal.SIGTERM: interrupt}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where the caller ignores it, or has its own
        wanted[signal.SIGINT] = interrupt
    if timed:
        wanted[signal.SIGALRM] = again
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_being_handled() -> bool:
    """Whether an `except`, a `finally` or the end of a `with` runs because of a KeyboardInterrupt."""
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False
