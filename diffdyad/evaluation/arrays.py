"""Arrays in, whatever they are."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]


def as_array(values) -> Array:
    """An array, a tensor on any device or nested lists, as float64; float64 arrays are not copied."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def as_indices(values) -> NDArray[np.int64] | slice:
    """Vertex or frame indices from an array, a tensor or a list: (N,); a slice stays one."""
    if isinstance(values, slice):
        return values
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.int64).ravel()


def as_arrays(*values) -> list[Array]:
    """Several at once, of one shape. Raises ValueError with both shapes where they differ."""
    arrays = [as_array(v) for v in values]
    for array in arrays[1:]:
        if array.shape != arrays[0].shape:
            raise ValueError(f"expected arrays of one shape, got {arrays[0].shape} and {array.shape}")
    return arrays
