"""What a network is worth on conversations that it does not learn from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from diffdyad.config import DataConfig
from diffdyad.data.batches import Batch, ExchangeWindows, keyed_generator
from diffdyad.data.exchange import Exchange
from diffdyad.data.intake import CorruptShard, Shard
from diffdyad.errors import UserError
from diffdyad.evaluation.answering import AnswerSettings, answer, answerable, beginning, spread
from diffdyad.evaluation.brief import brief
from diffdyad.evaluation.files import gauge_for
from diffdyad.objective import LossSums
from diffdyad.pipeline import DyadPipeline

_BATCH = 32
_WINDOW_S = 5.0
_SHORTEST_S = 1.0  # of an answer
_LOOKED_AT = 8  # exchanges for each that is wanted


@torch.no_grad()
def validate(
    windows: ExchangeWindows, losses: Callable[[Batch], LossSums], fps: float, seed: int, count: int
) -> dict[str, float]:
    """Mean losses over `count` windows with all conditions; windows, noise and timesteps depend on the seed alone.

    `context_gap` is the rise of the motion loss when the context is withheld: what it is worth.
    """
    totals: dict[str, float] = {}
    chunks = max(1, count // _BATCH)
    for chunk in range(chunks):
        generators = [keyed_generator(seed, "validation", chunk * _BATCH + index) for index in range(_BATCH)]
        batch = windows.batch(generators, 2 * round(_WINDOW_S / 2 * fps), withhold=False)
        given = losses(batch)
        batch.conditions.context = batch.conditions.context.dropped()
        dropped = losses(batch)
        for name, value in given.sums.items():
            totals[name] = totals.get(name, 0.0) + (value / given.counts[name]).item() / chunks
        gap = (dropped.sums["motion"] - given.sums["motion"]) / given.counts["motion"]
        totals["context_gap"] = totals.get("context_gap", 0.0) + gap.item() / chunks
    return totals


class Answers:
    """Answers to a few validation exchanges, the same ones with the same noise whenever they are asked for.

    They are spread over the datasets' exchanges; of each, a window's length of the answer counts.
    """

    def __init__(self, data: DataConfig, device: torch.device):
        self.data, self.device = data, device
        self._exchanges: list[Exchange] = []
        self._encoders: dict[str, torch.nn.Module] = {}

    def figures(self, pipeline: DyadPipeline) -> dict[str, float]:
        """`brief` of a pipeline's answers. Raises UserError where there are fewer than two exchanges to answer."""
        pipeline = self._on_device(pipeline)
        self._exchanges = self._exchanges or self._choose(pipeline)
        clips, answers = [], {}
        for number, exchange in enumerate(self._exchanges):
            clip, (motion,) = answer(pipeline, exchange, AnswerSettings(seed=number))
            clips.append(replace(clip, clip_id=str(number)))  # two datasets may have one name twice
            answers[str(number)] = motion
        return brief(clips, answers, gauge_for(pipeline.layout, None))

    def _choose(self, pipeline: DyadPipeline) -> list[Exchange]:
        places = [(shard, row) for shard in self._shards() for row in range(len(shard))]
        count = self.data.validation_answers
        first = spread(len(places), count)
        order, found = [*first, *sorted(set(range(len(places))) - set(first))], []
        for index in order[: _LOOKED_AT * count]:
            shard, row = places[index]
            try:
                exchange = beginning(shard[row], pipeline.config.window_s)
            except CorruptShard:
                if not self.data.skip_corrupt:
                    raise
                continue
            enough = exchange.end_s >= _SHORTEST_S and exchange.fps == pipeline.fps
            if enough and answerable(exchange, pipeline.layout):
                found.append(exchange)
            if len(found) == count:
                break
        if len(found) < 2:
            raise UserError(f"expected at least 2 validation exchanges with the responder's motion and "
                            f"{_SHORTEST_S:g} s of voice, found {len(found)}")  # fmt: skip
        return found

    def _shards(self) -> Iterator[Shard]:
        for source in self.data.sources:
            for path in sorted(Path(source.path).glob("validation-*-of-*.parquet")):
                try:
                    yield Shard(path)
                except CorruptShard:
                    if not self.data.skip_corrupt:
                        raise

    def _on_device(self, pipeline: DyadPipeline) -> DyadPipeline:
        """The pipeline, with its own copies of what the run's loader reads on the CPU."""
        if self.device.type == "cpu":
            return pipeline
        for name in ("statistics", "speech_encoder", "context_encoder"):
            if name not in self._encoders:
                self._encoders[name] = copy.deepcopy(getattr(pipeline, name))
        settings = {k: v for k, v in pipeline.config.items() if isinstance(v, int | float)}
        return DyadPipeline(pipeline.denoiser, pipeline.scheduler, **self._encoders, **settings).to(self.device)
