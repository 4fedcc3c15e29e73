"""`diffdyad evaluate`: a model on a dataset of exchanges, or files against files, as one table."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from diffdyad.context import Context
from diffdyad.data.exchange import Exchange, ExchangeShards
from diffdyad.data.sides import motion_of, previous_turn
from diffdyad.errors import UserError
from diffdyad.evaluation.clips import Clip, from_exchange
from diffdyad.evaluation.files import evaluate_files, gauge_for
from diffdyad.evaluation.foreign import ReadOptions
from diffdyad.evaluation.report import Report
from diffdyad.evaluation.score import score
from diffdyad.evaluation.trim import cut, fit_length
from diffdyad.evaluation.work import ScoreSettings
from diffdyad.judging.nearest import NAME, NearestNeighbour
from diffdyad.media import SAMPLING_RATE
from diffdyad.motion import Motion
from diffdyad.pipeline import DyadPipeline
from diffdyad.sample import load_pipeline
from diffdyad.windows import windows


def evaluate_folders(arguments: argparse.Namespace, progress: bool) -> Report:
    """Motion files of one folder against those of another."""
    with _bar("scoring", "clip", progress) as update:
        return evaluate_files(
            arguments.pred, arguments.truth, arguments.out, arguments.head,
            ReadOptions(arguments.layout, arguments.basis, arguments.file_fps),
            ReadOptions(arguments.truth_layout, arguments.basis, arguments.file_fps),
            arguments.fps, _settings(arguments, "prediction"), update,
        )  # fmt: skip


def evaluate_model(arguments: argparse.Namespace, progress: bool) -> Report:
    """A model's answers to the exchanges of a split. Raises UserError where dataset and model do not go together."""
    shards = ExchangeShards(arguments.dataset, arguments.split)
    chosen = spread(len(shards), arguments.limit)
    nearest = arguments.model == NAME and not Path(NAME).is_dir()
    pipeline = NearestNeighbour(arguments.dataset) if nearest else load_pipeline(arguments.model, arguments.device)
    clips, predictions = [], {}
    with _bar("answering", "exchange", progress) as update:
        for done, index in enumerate(chosen, start=1):
            exchange = shards[index]
            clip, answers = (pipeline.answer(exchange, arguments.num_samples) if nearest
                             else answer(pipeline, exchange, arguments))  # fmt: skip
            if clip is not None:
                clips.append(clip)
                predictions[clip.clip_id] = answers
            update(done, len(chosen))
    if not clips:
        raise UserError(f"expected exchanges with the responder's motion and voice in {arguments.dataset}, found none")
    gauge = gauge_for(clips[0].truth.layout, arguments.head)
    with _bar("scoring", "clip", progress) as update:
        report = score(clips, predictions, gauge, _settings(arguments, "model"), lambda done: update(done, len(clips)))
    report.facts |= {
        "dataset": str(arguments.dataset), "split": arguments.split, "model": arguments.model,
        "left_out": len(chosen) - len(clips),
        "head": str(arguments.head or ("clay" if gauge else "none")),
    }  # fmt: skip
    report.rows["model"] = "motion of the training answer whose sound is nearest"
    if not nearest:
        report.facts |= {
            "model_commit": pipeline.commit, "guidance_scale": arguments.guidance_scale, "start": arguments.start,
            "steps": arguments.steps or pipeline.config.num_inference_steps,
        }  # fmt: skip
        report.rows["model"] = f"{arguments.model} at guidance scale {arguments.guidance_scale:g}"
    report.notes.append("Times of p, b, m follow from the spelling of the words and the words' times: read the truth's "
                        "row of lip_closure_bilabial_ratio first.")  # fmt: skip
    if report.facts["left_out"]:
        report.notes.append(f"{report.facts['left_out']} exchanges have no motion or no voice of the responder, and "
                            "were left out.")  # fmt: skip
    report.save(arguments.out)
    return report


def answer(
    pipeline: DyadPipeline, exchange: Exchange, arguments: argparse.Namespace
) -> tuple[Clip | None, list[Motion]]:
    """An exchange's clip with the model's answers; None where the responder has no motion or no voice."""
    own = torch.from_numpy(exchange.responder.waveform)[max(0, round(-exchange.start_s * SAMPLING_RATE)) :]
    truth = motion_of(exchange, "responder", pipeline.layout)
    if not len(truth) or not bool(truth.valid.any()) or len(own) < SAMPLING_RATE // 2:
        return None, []
    pipeline.statistics.check(truth, f"exchange {exchange.exchange_id}")
    turn = pipeline.context_encoder.taken(previous_turn(exchange, pipeline.layout))
    context = None if turn.is_empty else pipeline.encode_context(turn, f"exchange {exchange.exchange_id}")
    listens = arguments.start == "listen" and _has_length(context)
    output = pipeline(
        own, context=context, guidance_scale=arguments.guidance_scale, start="listen" if listens else "none",
        num_inference_steps=arguments.steps, num_samples=arguments.num_samples,
        generator=torch.Generator().manual_seed(arguments.seed),
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


def spread(count: int, limit: int | None) -> list[int]:
    """Indices 0 .. count - 1, or `limit` of them evenly spread: neighbours share their people."""
    if limit is None or limit >= count:
        return list(range(count))
    return [int((k + 0.5) * count / limit) for k in range(limit)]


def _settings(arguments: argparse.Namespace, system: str) -> ScoreSettings:
    workers = arguments.workers or os.cpu_count() or 1
    return ScoreSettings(system=system, units=arguments.units, seed=arguments.seed, workers=workers)


@contextmanager
def _bar(label: str, unit: str, shown: bool) -> Iterator:
    with tqdm(desc=label, unit=unit, disable=not shown, leave=False) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update


