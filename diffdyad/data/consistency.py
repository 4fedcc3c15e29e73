"""Does a record contradict itself? And the few words that it may use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from diffdyad.media import SAMPLING_RATE
from diffdyad.motion import BASES

if TYPE_CHECKING:
    from diffdyad.data.exchange import Exchange

SPLITS = ("train", "validation", "test")
RESPONSE_KINDS = ("verbal", "nonverbal", "mixed", "silent")
PEOPLE = ("previous", "responder")
LONGEST_PREVIOUS_S = 20.0
"""Of the previous turn, the part that a record keeps at most."""

_NAMES = ("exchange_id", "session_id", "previous_speaker", "responder_name", "previous_exchange_id", "next_exchange_id")
_TIMES = ("start_s", "previous_end_s", "end_s", "session_onset_s", "fps")


def check_exchange(exchange: Exchange) -> None:
    """Raises ValueError, naming the exchange, where the record contradicts itself."""

    def expect(condition: bool, expected: str, found: object) -> None:
        if not condition:
            raise ValueError(f"exchange {exchange.exchange_id}: expected {expected}, found {found}")

    for name in _NAMES:
        expect(isinstance(getattr(exchange, name), str), f"text in {name}", repr(getattr(exchange, name)))
    for name in _TIMES:
        found = getattr(exchange, name)
        expect(isinstance(found, int | float) and math.isfinite(found), f"a finite number in {name}", repr(found))
    expect(exchange.split in SPLITS, f"a split among {', '.join(SPLITS)}", exchange.split)
    expect(exchange.response_kind in RESPONSE_KINDS, f"a kind among {RESPONSE_KINDS}", exchange.response_kind)
    expect(exchange.basis in BASES, f"a basis among {', '.join(BASES)}", repr(exchange.basis))
    expect(-LONGEST_PREVIOUS_S <= exchange.start_s <= 0 <= exchange.end_s, "-20 <= start_s <= 0 <= end_s",
           (exchange.start_s, exchange.end_s))  # fmt: skip
    expect(exchange.fps > 0, "a positive fps", exchange.fps)
    seconds = exchange.end_s - exchange.start_s
    for who in PEOPLE:
        person = exchange.person(who)
        for group, array in person.motion.items():
            expect(array.ndim == 2, f"{who}_{group} of shape (frames, channels)", array.shape)
            expect(len(array) in (0, person.num_frames), f"{person.num_frames} frames of {who}_{group}", len(array))
            expect(bool(np.isfinite(array).all()), f"finite {who}_{group}", "NaN or infinity")
        for name in ("affect", "prosody", "betas"):
            expect(bool(np.isfinite(getattr(person, name)).all()), f"finite {who}_{name}", "NaN or infinity")
        flags = len(person.valid)
        expect(flags == person.num_frames, f"{person.num_frames} flags in {who}_valid", flags)
        if person.num_frames:
            expect(abs(person.num_frames - seconds * exchange.fps) < 1.01, f"{seconds * exchange.fps:.1f} frames of "
                   f"{who} motion", person.num_frames)  # fmt: skip
        if len(person.waveform):
            expect(abs(len(person.waveform) / SAMPLING_RATE - seconds) < 0.05, f"{seconds:.3f} s of {who} audio",
                   len(person.waveform) / SAMPLING_RATE)  # fmt: skip


