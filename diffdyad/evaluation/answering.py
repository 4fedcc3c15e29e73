"""A model's answers to the exchanges of a dataset, beside what the responders did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffdyad.context import Context
from diffdyad.data.exchange import Exchange
from diffdyad.data.sides import motion_of, previous_turn
from diffdyad.errors import UserError
from diffdyad.evaluation.clips import Clip, from_exchange
from diffdyad.evaluation.trim import cut, fit_length
from diffdyad.media import SAMPLING_RATE
from diffdyad.motion import Motion, MotionLayout
from diffdyad.pipeline import DyadPipeline
from diffdyad.windows import windows

_SHORTEST_S = 0.5  # of a voice


@dataclass(frozen=True)
class AnswerSettings:
    """listen: generate the listening before the answer, too; steps: of denoising, None = the model's own."""

    num_samples: int = 1
    guidance_scale: float = 1.0
    listen: bool = False
    steps: int | None = None
    seed: int = 0


def answer(
    pipeline: DyadPipeline, exchange: Exchange, settings: AnswerSettings
) -> tuple[Clip | None, Sequence[Motion]]:
    """An exchange's clip with the model's answers; None where the responder has no motion or no voice.

    Raises UserError where the exchange's motion is of another basis or rate than the model's.
    """
    if not answerable(exchange, pipeline.layout):
        return None, []
    own = _voice(exchange)
    truth = motion_of(exchange, "responder", pipeline.layout)
    pipeline.statistics.check(truth, f"exchange {exchange.exchange_id}")
    turn = pipeline.context_encoder.taken(previous_turn(exchange, pipeline.layout))
    context = None if turn.is_empty else pipeline.encode_context(turn, f"exchange {exchange.exchange_id}")
    listens = settings.listen and _has_length(context)
    output = pipeline(
        own, context=context, guidance_scale=settings.guidance_scale, start="listen" if listens else "none",
        num_inference_steps=settings.steps, num_samples=settings.num_samples,
        generator=torch.Generator().manual_seed(settings.seed),
    )  # fmt: skip
    clip = from_exchange(exchange, listening=listens)
    clip = replace(clip, truth=cut(truth, len(truth), len(truth) - len(clip.truth)))
    if clip.truth.fps != pipeline.fps:
        raise UserError(f"expected a dataset at the model's {pipeline.fps:g} Hz, found {clip.truth.fps:g} Hz in "
                        f"{exchange.exchange_id}: import it at that rate")  # fmt: skip
    lead = round(-exchange.start_s * exchange.fps) if listens else 0
    before = output.listening or [None] * len(output.motions)
    answers = [_whole(head, tail, lead, len(clip)) for head, tail in zip(before, output.motions)]
    return replace(clip, seams_s=_seams_s(pipeline, len(clip), len(before[0]) if listens else 0, lead)), answers


def answerable(exchange: Exchange, layout: MotionLayout) -> bool:
    """Whether the responder has motion and, from the onset on, a voice."""
    truth = motion_of(exchange, "responder", layout)
    return bool(truth.valid.any()) and len(_voice(exchange)) >= _SHORTEST_S * SAMPLING_RATE


def _voice(exchange: Exchange) -> Tensor:
    """The responder's, from the onset on: (S,)"""
    return torch.from_numpy(exchange.responder.waveform)[max(0, round(-exchange.start_s * SAMPLING_RATE)) :]


def beginning(exchange: Exchange, seconds: float) -> Exchange:
    """An exchange whose response ends `seconds` after its onset, if it lasts longer; the previous turn stays whole."""
    end_s = min(exchange.end_s, seconds)
    frames, samples = (round((end_s - exchange.start_s) * rate) for rate in (exchange.fps, SAMPLING_RATE))
    person = exchange.responder
    shorter = replace(
        person, waveform=person.waveform[:samples], valid=person.valid[:frames],
        motion={group: array[:frames] for group, array in person.motion.items()},
    )  # fmt: skip
    return replace(exchange, end_s=end_s, responder=shorter)


def spread(count: int, limit: int | None) -> list[int]:
    """Indices 0 .. count - 1, or `limit` of them evenly spread: neighbours share their people."""
    if limit is None or limit >= count:
        return list(range(count))
    return [int((k + 0.5) * count / limit) for k in range(limit)]


def _has_length(context: Context | None) -> bool:
    return context is not None and context.times_s.shape[1] > 0


def _whole(listening: Motion | None, speaking: Motion, lead: int, length: int) -> Motion:
    """The last `lead` frames of the listening, and what follows: `length` frames."""
    if listening is None or not lead:
        return fit_length(speaking, length)
    head = fit_length(cut(listening, len(listening), max(0, len(listening) - lead)), lead)
    joined = replace(speaking, values=torch.cat([head.values, speaking.values]),
                     valid=torch.cat([head.valid, speaking.valid]))  # fmt: skip
    return fit_length(joined, length)


def _seams_s(pipeline: DyadPipeline, length: int, generated_lead: int, lead: int):
    """When generation began a new window, in seconds of the clip."""
    sizes = (2 * round(s * pipeline.fps / 2) for s in (pipeline.config.window_s, pipeline.config.prefix_s,
                                                       pipeline.config.margin_s))  # fmt: skip
    total = generated_lead + length - lead
    joins = [window.stop for window in windows(total, *sizes)][:-1]
    seconds = (torch.tensor(joins, dtype=torch.float64) - (generated_lead - lead)) / pipeline.fps
    return seconds[(seconds > 0) & (seconds < length / pipeline.fps)].numpy()
