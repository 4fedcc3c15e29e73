"""The two sides of an exchange as a model meets them: motion in one layout, sound at its loudness, the turn before."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from diffdyad.context import PreviousTurn
from diffdyad.data.exchange import Exchange
from diffdyad.media import SAMPLING_RATE, normalise_loudness
from diffdyad.motion import Motion, MotionLayout
from diffdyad.text import TimedWord


def motion_of(exchange: Exchange, who: str, layout: MotionLayout) -> Motion:
    """The motion of "previous" or "responder" in a layout that may have eyelids where the exchange has none.

    Groups that were not measured are not valid; neither is the neck where the tracker put it into global_orient.
    """
    motion = exchange.motion(who)
    if exchange.neck_folded:
        motion.valid[:, motion.layout.groups.index("neck_pose")] = False
    if motion.layout == layout or replace(motion.layout, eyelids=layout.eyelids) != layout:
        return motion  # of another basis: the statistics refuse it, naming both
    values = torch.zeros(len(motion), layout.dim)
    valid = torch.zeros(len(motion), len(layout.groups), dtype=torch.bool)
    for column, group in enumerate(layout.groups):
        if group in motion.layout.groups:
            values[:, layout.slices[group]] = motion.select(group)
            valid[:, column] = motion.valid[:, motion.layout.groups.index(group)]
    return replace(motion, values=values, layout=layout, valid=valid)


def previous_turn(exchange: Exchange, layout: MotionLayout | None = None) -> PreviousTurn:
    """The previous speaker's turn as sampling would be given it: cut where it ends."""
    seconds = exchange.previous_end_s - exchange.start_s
    person = exchange.previous
    audio = torch.from_numpy(person.waveform)[: max(0, round(seconds * SAMPLING_RATE))]
    motion = motion_of(exchange, "previous", layout or exchange.layout)
    num_frames = max(0, round(seconds * exchange.fps))
    motion.values, motion.valid = motion.values[:num_frames], motion.valid[:num_frames]
    return PreviousTurn(
        audio=audio if len(audio) else None,
        motion=motion if len(motion) and motion.valid.any() else None,
        text=person.text or None,
        words=[TimedWord(w.word, w.start_s, w.end_s) for w in person.words if w.start_s < exchange.previous_end_s],
        gap_s=exchange.gap_s,
    )


def responder_waveform(exchange: Exchange) -> Tensor:  # (S,)
    """The responder's sound at its running loudness; silence where none was recorded."""
    waveform = torch.from_numpy(exchange.responder.waveform)
    if not len(waveform):
        waveform = torch.zeros(round((exchange.end_s - exchange.start_s) * SAMPLING_RATE))
    return normalise_loudness(waveform, SAMPLING_RATE)
