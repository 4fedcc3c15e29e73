"""Where a video cuts from one shot to another: the colours change at once, and only once."""

from __future__ import annotations

import numpy as np

_COLUMNS, _ROWS, _LEVELS = 64, 36, 8
_LEAST, _AGAINST_NEIGHBOURS, _NEIGHBOURS = 0.35, 3.0, 3


class Shots:
    """Fed one frame after the other, it says at the end where cuts are."""

    def __init__(self):
        self._before: np.ndarray | None = None
        self._changes: list[float] = []

    def add(self, frame: np.ndarray) -> None:  # (H, W, 3) uint8
        small = frame[:: max(1, frame.shape[0] // _ROWS), :: max(1, frame.shape[1] // _COLUMNS)].astype(np.int64)
        levels = small // (256 // _LEVELS)
        colour = (levels[..., 0] * _LEVELS + levels[..., 1]) * _LEVELS + levels[..., 2]
        counts = np.bincount(colour.reshape(-1), minlength=_LEVELS**3) / colour.size
        self._changes.append(0.0 if self._before is None else float(np.abs(counts - self._before).sum() / 2))
        self._before = counts

    def cuts(self) -> list[int]:
        """Frames that begin another shot. A flash, which changes colours twice, is no cut; nor is a fade."""
        changes, found = np.array(self._changes), []
        for frame in np.flatnonzero(changes >= _LEAST):
            around = np.delete(changes[max(0, frame - _NEIGHBOURS) : frame + _NEIGHBOURS + 1], min(frame, _NEIGHBOURS))
            if changes[frame] >= _AGAINST_NEIGHBOURS * around.max(initial=0.0):
                found.append(int(frame))
        return found
