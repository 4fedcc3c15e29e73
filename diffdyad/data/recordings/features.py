"""Prosody of both turns, by a backend's name; a column of the record."""

from __future__ import annotations

import numpy as np
import torch

from diffdyad.data.exchange import PEOPLE, Exchange

FEATURES = ("prosody", "none")
"""`prosody`: pitch, energy, rate and voice quality, as `diffdyad.prosody` has them; never called emotion."""


def add_features(exchange: Exchange, backend: str) -> None:
    """Sets `prosody` of both people, a row per frame of the record, and the encoder's name."""
    if backend == "none":
        return
    from diffdyad.prosody import prosody

    for who in PEOPLE:
        person = exchange.person(who)
        if len(person.waveform):
            waveform = torch.from_numpy(np.array(person.waveform, np.float32))
            person.prosody = prosody(waveform, fps=exchange.fps).numpy()
    exchange.prosody_encoder = backend
