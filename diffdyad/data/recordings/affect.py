"""Affect of both turns from the voice: a speech-emotion network without its classifier; columns of the record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from diffdyad.affect import AffectEncoder
from diffdyad.data.exchange import PEOPLE, Exchange
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


def add_affect(
    exchanges: Sequence[Exchange], steps: Steps, inputs: list[str], name: str, revision: str | None = None
) -> None:
    """Sets `affect` of both people, a row for every 0.2 s, and the encoder's name. inputs: keys of the steps that the
    voices are from."""
    if not exchanges:
        return
    encoder = load_affect(name, revision)
    times = [[e.previous_speaker, e.responder_name, e.session_onset_s, e.start_s, e.end_s] for e in exchanges]
    inputs = [*inputs, hashlib.sha256(json.dumps(times).encode()).hexdigest()]

    def encode(folder: Path) -> dict:
        found = {}
        for number, exchange in enumerate(exchanges):
            for who in PEOPLE:
                waveform = torch.from_numpy(np.array(exchange.person(who).waveform, np.float32))
                if len(waveform):
                    waveform = normalise_loudness(waveform, SAMPLING_RATE)
                    found[f"{number}-{who}"] = encoder.encode(waveform, SAMPLING_RATE).features.float().numpy()
        np.savez(folder / "affect.npz", **found)
        return {"channels": max((array.shape[1] for array in found.values()), default=0)}

    config = load_pretrained("AutoConfig", name, revision)
    identity = weights_identity(name, revision, config)
    settings = {"weights": identity, "window_s": WINDOW_S, "hop_s": HOP_S}
    version = f"transformers {package_version('transformers')}"
    made = steps.run("affect", config.model_type, version, settings, inputs, encode)
    with np.load(made.folder / "affect.npz") as arrays:
        for number, exchange in enumerate(exchanges):
            for who in PEOPLE:
                key = f"{number}-{who}"
                none = np.zeros((0, made.values["channels"]), np.float32)
                exchange.person(who).affect = arrays.get(key, none)
            exchange.affect_encoder = identity if "@" in identity else f"{Path(name).name}@{identity}"
