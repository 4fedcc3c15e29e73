"""The door to transformers: frozen networks, referred to by name and revision, never stored by us.

Nothing is downloaded unless it is asked for: a name is a local folder, or what the Hub's cache holds.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from diffdyad.errors import UserError


class Lazy:
    """A value made on first use, once, also when several threads ask. Copies and pickles come out empty."""

    def __init__(self):
        self._lock = threading.Lock()
        self._values: list[Any] = []  # in a list, so that torch does not register a network as a submodule

    def get(self, make: Callable[[], Any]) -> Any:
        if not self._values:
            with self._lock:
                if not self._values:
                    self._values.append(make())
        return self._values[0]

    def __reduce__(self):
        return Lazy, ()


def load_pretrained(
    auto_class: str,
    name: str,
    revision: str | None = None,
    allow_download: bool = False,
    advice: str = "",
    **options,
):
    """`transformers.<auto_class>.from_pretrained`: a folder, else the Hub's cache, else (if allowed) the Hub.

    Networks come frozen, in eval mode and in float32. UserError when nothing is found or it does not load;
    `advice` is added to the message.
    """
    import transformers

    options["trust_remote_code"] = False
    if auto_class.startswith("AutoModel"):
        options["dtype"] = torch.float32
    make = getattr(transformers, auto_class).from_pretrained
    local = Path(name).is_dir()
    if not local:
        options["revision"] = revision
    try:
        with _no_progress_bar():
            result = make(name, local_files_only=True, **options)
    except OSError as error:
        if local or not allow_download:
            raise _explain(error, name, revision, local, allow_download, advice) from error
        try:
            result = make(name, **options)
        except Exception as error:
            raise _explain(error, name, revision, local, allow_download, advice) from error
    except Exception as error:  # whatever a damaged or foreign folder makes transformers raise
        raise _explain(error, name, revision, local, allow_download, advice) from error
    outcome = result[0] if isinstance(result, tuple) else result
    if isinstance(outcome, torch.nn.Module):
        outcome.eval().requires_grad_(False)
    return result


def cached_file(name: str, file: str, revision: str | None = None, advice: str = "") -> Path:
    """A file of a folder, or of a name in the Hub's cache. Raises UserError that says how to come by it."""
    if (folder := Path(name)).is_dir():
        if not (folder / file).is_file():
            raise UserError(f"expected {file} in the folder {name}, found none")
        return folder / file
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, file, revision=revision, local_files_only=True))
    except (OSError, ValueError) as error:
        raise _explain(error, name, revision, False, False, advice) from None


def _explain(error, name: str, revision: str | None, local: bool, allow_download: bool, advice: str) -> UserError:
    if local:
        where, todo = "in this folder", "give a folder saved by transformers"
    else:
        where = "in the Hub's cache, nor on the Hub" if allow_download else "in the Hub's cache (nor a folder)"
        todo = f"run `hf download {name}{f' --revision {revision}' if revision else ''}` once, online"
        if name.count("/") > 1 or name.startswith((".", "/", "~")):
            todo = "check the path"
        name = f"{name}' at revision '{revision}" if revision else name
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(
        f"expected a pretrained network for transformers, '{name}', found none that loads {where}: "
        f"{todo}{', or ' if advice else ''}{advice} ({reason[:200]})"
    )


@contextmanager
def quiet():
    """Without warnings: some of transformers' are about what it does itself."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)


@contextmanager
def _no_progress_bar():
    """transformers draws one for every file it opens; a few megabytes from the disk deserve none."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging

    shown, hidden_by_hub = logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # the Hub's bars too, whatever they were
        if hidden_by_hub:
            disable_progress_bars()
