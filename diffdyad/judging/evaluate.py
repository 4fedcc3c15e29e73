"""`diffdyad evaluate`: a model on a dataset of exchanges, or files against files, as one table."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm.auto import tqdm

from diffdyad.data.exchange import ExchangeShards
from diffdyad.errors import UserError
from diffdyad.evaluation.answering import AnswerSettings, answer, spread
from diffdyad.evaluation.clips import check_people
from diffdyad.evaluation.files import evaluate_files, gauge_for
from diffdyad.evaluation.foreign import ReadOptions
from diffdyad.evaluation.report import Report
from diffdyad.evaluation.score import score
from diffdyad.evaluation.work import ScoreSettings
from diffdyad.judging.nearest import LOOKED_AT, NAME, NearestNeighbour
from diffdyad.sample import load_pipeline


def evaluate_folders(arguments: argparse.Namespace, progress: bool) -> Report:
    """Motion files of one folder against those of another."""
    with _bar("scoring", "clip", progress) as update:
        return evaluate_files(
            arguments.pred, arguments.truth, arguments.out, arguments.head,
            ReadOptions(arguments.layout, arguments.basis, arguments.file_fps),
            ReadOptions(arguments.truth_layout, arguments.basis, arguments.file_fps),
            arguments.fps, _settings(arguments, "prediction"), update, arguments.compat, arguments.compat_vertices,
        )  # fmt: skip


def evaluate_model(arguments: argparse.Namespace, progress: bool) -> Report:
    """A model's answers to the exchanges of a split. Raises UserError where dataset and model do not go together."""
    shards = ExchangeShards(arguments.dataset, arguments.split)
    chosen = spread(len(shards), arguments.limit)
    nearest = arguments.model == NAME and not Path(NAME).is_dir()
    if nearest and arguments.split == LOOKED_AT:
        raise UserError(f"expected --split other than {LOOKED_AT} for --model {NAME}, which copies the answers of that "
                        "split: it would find each of them itself")  # fmt: skip
    if arguments.units == "people" and len(chosen) > 1:  # before hours of work
        rows = [shards.row(index, ["responder", "previous_speaker"]) for index in chosen]
        check_people([[name for name in row.values() if name] for row in rows])
    pipeline = NearestNeighbour(arguments.dataset) if nearest else load_pipeline(arguments.model, arguments.device)
    asked = AnswerSettings(arguments.num_samples, arguments.guidance_scale, arguments.start == "listen",
                           arguments.steps, arguments.seed)  # fmt: skip
    clips, predictions = [], {}
    with _bar("answering", "exchange", progress) as update:
        for done, index in enumerate(chosen, start=1):
            exchange = shards[index]
            clip, answers = (pipeline.answer(exchange, arguments.num_samples) if nearest
                             else answer(pipeline, exchange, asked))  # fmt: skip
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
