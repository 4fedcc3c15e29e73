"""What is computed of both people's own voices, as a step of the build; prosody, by a backend's name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffdyad.data.exchange import PEOPLE, Exchange
from diffdyad.data.person import Person
from diffdyad.data.recordings.steps import Steps
from diffdyad.prosody import PROSODY_CHANNELS, prosody

FEATURES = ("prosody", "none")
"""`prosody`: pitch, energy, rate and voice quality, as `diffdyad.prosody` has them; never called emotion."""

_PROSODY_VERSION = "1"


def of_voices(
    exchanges: Sequence[Exchange], steps: Steps, step: str, backend: str, version: str, settings: Mapping[str, Any],
    encode: Callable[[np.ndarray], np.ndarray],  # (S,) float32, 16 kHz -> (T, C)
) -> Iterator[tuple[Person, np.ndarray]]:
    """Everybody of the exchanges of a recording, with what `encode` makes of the own voice; (0, C) without a voice.

    The step follows from the sound itself: whatever changes it, the step is done again.
    """
    heard = [(number, who, exchange.person(who)) for number, exchange in enumerate(exchanges) for who in PEOPLE]
    sound = hashlib.sha256()
    for _, _, person in heard:  # one at a time: three hours of them do not fit into memory
        waveform = _samples(person)
        sound.update(len(waveform).to_bytes(8, "little") + waveform.tobytes())

    def make(folder: Path) -> dict:
        found = {f"{number}-{who}": encode(wave) for number, who, person in heard if len(wave := _samples(person))}
        np.savez(folder / "features.npz", **found)
        return {"channels": max((array.shape[1] for array in found.values()), default=0)}

    made = steps.run(step, backend, version, settings, [sound.hexdigest()], make)
    with np.load(made.folder / "features.npz") as arrays:
        for number, who, person in heard:
            none = np.zeros((0, made.values["channels"]), np.float32)
            yield person, arrays.get(f"{number}-{who}", none)


def _samples(person: Person) -> np.ndarray:
    return np.array(person.waveform, np.float32)


def add_prosody(exchanges: Sequence[Exchange], steps: Steps, backend: str) -> None:
    """Sets `prosody` of both people, a row per frame of the record, and the encoder's name."""
    if backend == "none" or not exchanges:
        return
    fps = exchanges[0].fps

    def encode(waveform: np.ndarray) -> np.ndarray:
        return prosody(torch.from_numpy(waveform), fps=fps).numpy()

    settings = {"channels": list(PROSODY_CHANNELS), "fps": fps}
    for person, rows in of_voices(exchanges, steps, "prosody", backend, _PROSODY_VERSION, settings, encode):
        if len(rows):
            person.prosody = rows
    for exchange in exchanges:
        exchange.prosody_encoder = backend
