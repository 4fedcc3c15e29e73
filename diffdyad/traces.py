"""What Diffusers leaves behind: bars and warnings on the screen, paths of this machine in the files that it writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any


@contextmanager
def quiet_diffusers() -> Iterator[None]:
    """Diffusers draws a bar for loading five small files, and warns of what does not concern a user here."""
    from diffusers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def without_origin(config: bytes) -> bytes:
    """A JSON config without the folder that its part was once loaded from, which Diffusers writes into it.

    Anything else comes back as it is. Raises ValueError for what is not JSON.
    """
    values = json.loads(config)
    if not isinstance(values, dict) or "_name_or_path" not in values:
        return config
    del values["_name_or_path"]
    return (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()


def without_machine(value: Any) -> Any:
    """The value with every path of a machine, at any depth, cut down to its last name."""
    if isinstance(value, dict):
        return {key: without_machine(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_machine(item) for item in value]
    if not isinstance(value, str):
        return value
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(value).is_absolute() or value.startswith(("~/", "../", "..\\")):
            return kind(value).name
    return value
