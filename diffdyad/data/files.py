"""Tensors with an index in one safetensors file, which appears whole or not at all."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffdyad.errors import UserError
from diffdyad.staging import whole

_FORGOTTEN_S = 86400.0  # between two recordings of a shard hours may pass


def sweep(folder: Path) -> None:
    """Removes what killed processes left behind; what others may be writing stays."""
    for partial in folder.glob(".*.partial"):
        if time.time() - partial.stat().st_mtime > _FORGOTTEN_S:
            partial.unlink(missing_ok=True)


def save(path: Path, tensors: Mapping[str, Tensor], index: Any) -> None:
    with whole(path, shared=True) as partial:
        save_file(dict(tensors), partial, metadata={"index": json.dumps(index)})
        mask = os.umask(0)
        os.umask(mask)
        partial.chmod(0o666 & ~mask)  # safetensors makes them private; caches are shared


def load(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Tensors, mapped from the disk, and the index. Raises UserError where the file is damaged."""
    try:
        with safe_open(path, "pt") as file:
            index = json.loads(file.metadata()["index"])
        return load_file(path), index
    except Exception as error:  # whatever safetensors makes of damaged bytes
        raise UserError(f"the feature file {path} is damaged ({error}); delete it, it will be made again") from None
