"""Affect of both turns from the voice: a speech-emotion network without its classifier; columns of the record."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from diffdyad.affect import AffectEncoder
from diffdyad.data.exchange import Exchange
from diffdyad.data.recordings.features import of_voices
from diffdyad.data.recordings.steps import Steps
from diffdyad.data.recordings.weights import package_version, weights_identity
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE, normalise_loudness
from diffdyad.pretrained import load_pretrained

WINDOW_S, HOP_S = 2.0, 0.2


@lru_cache(maxsize=1)
def load_affect(name: str, revision: str | None = None) -> AffectEncoder:
    """Raises UserError where it is neither a folder nor in the Hub's cache, or hears no waveforms of 16 kHz."""
    load_pretrained("AutoConfig", name, revision, advice="name another in `affect`")
    encoder = AffectEncoder(name, revision, WINDOW_S, HOP_S)
    try:
        encoder.encode(torch.zeros(SAMPLING_RATE), SAMPLING_RATE)
    except ValueError as error:
        raise UserError(f"affect: {error}") from None
    return encoder


def add_affect(exchanges: Sequence[Exchange], steps: Steps, name: str, revision: str | None = None) -> None:
    """Sets `affect` of both people, a row for every 0.2 s, and the encoder's name."""
    if not exchanges:
        return
    encoder = load_affect(name, revision)

    def encode(waveform: np.ndarray) -> np.ndarray:
        loud = normalise_loudness(torch.from_numpy(waveform), SAMPLING_RATE)
        return encoder.encode(loud, SAMPLING_RATE).features.float().numpy()

    config = load_pretrained("AutoConfig", name, revision)
    identity = weights_identity(name, revision, config)
    settings = {"weights": identity, "window_s": WINDOW_S, "hop_s": HOP_S}
    version = f"transformers {package_version('transformers')}"
    for person, rows in of_voices(exchanges, steps, "affect", config.model_type, version, settings, encode):
        person.affect = rows
    for exchange in exchanges:
        exchange.affect_encoder = identity if "@" in identity else f"{Path(name).name}@{identity}"
