"""One run to a folder: two of them would write each other's files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffdyad.errors import UserError

NAME = ".running"


@contextmanager
def only_one(folder: str | os.PathLike, what: str = "training", wait: bool = False) -> Iterator[None]:
    """Holds a folder for the time of a block. The system lets go of it whatever ends the process, SIGKILL too.

    Raises UserError where another process holds it, or waits for its end. Where files cannot be locked (Windows, some
    network file systems) nothing is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(Path(folder) / NAME, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(
                f"expected no other {what} in {folder}, found one that is running; wait for its end, or give another "
                "output"
            ) from None
        except OSError:
            pass
        yield
