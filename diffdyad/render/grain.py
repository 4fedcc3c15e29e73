"""Skin's grain: noise in space, fixed to the head at rest, that mottles its colour and roughens its surface."""

from __future__ import annotations

from functools import cache

import numpy as np

from diffdyad.render.camera import Floats

_CELLS, _PERIOD_M = 64, 0.020
_TURNS = 34  # of the noise round the head
_FINEST_M = 0.0016  # wavelengths below are left out: at portrait size they would only flicker


@cache
def _noise() -> Floats:  # (CELLS ** 3, 4): a value of unit variance and its gradient per wavelength
    """Smooth noise that repeats after a period in each direction, from its spectrum."""
    rng = np.random.default_rng(11)
    wave = np.fft.fftfreq(_CELLS, 1 / _CELLS)
    length = np.sqrt(sum(k * k for k in np.meshgrid(wave, wave, wave, indexing="ij")))
    finest = _PERIOD_M / _FINEST_M
    keep = np.exp(-((length / finest) ** 4)) / np.maximum(length, 3.0) ** 0.8 * (length > 0)
    value = np.fft.ifftn(np.fft.fftn(rng.standard_normal((_CELLS,) * 3)) * keep).real
    value /= value.std()
    slopes = [np.roll(value, -1, axis) - np.roll(value, 1, axis) for axis in range(3)]
    scale = 1 / np.std(slopes)
    return np.stack([value, *(slope * scale for slope in slopes)], -1).reshape(-1, 4).astype(np.float32)


def grain(rest: Floats, hair: Floats) -> Floats:  # (N, 3) metres, (N,) bool -> (N, 5)
    """At points of the head at rest: a value to mottle with, a slope to roughen with, and the strands of hair."""
    found = np.concatenate([_at(rest), np.zeros((len(rest), 1), np.float32)], axis=1)
    where = np.flatnonzero(hair)
    points = rest[where]
    brow = (points[:, 1] < 0.055) & (points[:, 2] > 0.02)
    for which, place, clumps in ((brow, _brow, 0.6), (~brow, _scalp, 0.8)):
        along, across, sideways = place(points[which])
        # the third coordinate keeps the noise from repeating, and closes it round the head, too
        noise = _at(np.stack([0.22 * along, across, 13 / _TURNS * across + 0.13 * along], -1).astype(np.float32))
        found[where[which], 1:4] = noise[:, 2:3] * sideways
        found[where[which], 4] = clumps * noise[:, 0]
    return found


def _brow(points: Floats) -> tuple[Floats, Floats, Floats]:
    """Strands run outwards and a little up: metres along and across them, and the direction across."""
    out, up, side = np.abs(points[:, 0]), points[:, 1], np.sign(points[:, 0])
    sideways = np.stack([-0.4 * side, np.full_like(up, 0.9), np.zeros_like(up)], -1)
    return 1.8 * out + 0.8 * up, 1.8 * up - 0.8 * out, sideways


def _scalp(points: Floats) -> tuple[Floats, Floats, Floats]:
    """Strands run from the crown down, as meridians."""
    x, y, z = (points - np.float32([0.0, 0.04, -0.045])).T
    around, down = np.arctan2(x, z), np.arctan2(np.hypot(x, z), y)
    sideways = np.stack([np.cos(around), np.zeros_like(x), -np.sin(around)], -1)
    # a whole number of the noise's periods round the head
    return 0.14 * down, _TURNS * _PERIOD_M / (2 * np.pi) * around, sideways


def _at(points: Floats) -> Floats:  # (N, 3) -> (N, 4)
    cell = np.floor(points * np.float32(_CELLS / _PERIOD_M)).astype(np.int32) & (_CELLS - 1)
    return np.take(_noise(), (cell[:, 0] * _CELLS + cell[:, 1]) * _CELLS + cell[:, 2], axis=0)
