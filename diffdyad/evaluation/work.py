"""The work on one clip: its scenes for every row, every figure in every phase; in this process or in several."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np
import torch

from diffdyad.data.workers import spawned
from diffdyad.errors import UserError
from diffdyad.evaluation.clips import PHASES, Clip
from diffdyad.evaluation.controls import CONTROLS, Control, Corpus
from diffdyad.evaluation.figures import CLIP_FIGURES, SAMPLE_FIGURES
from diffdyad.evaluation.figures.base import Company, Figure, Scene, Sums
from diffdyad.evaluation.figures.pooled import Pool, Poolable, Yardstick
from diffdyad.evaluation.figures.samples import Samples
from diffdyad.evaluation.gauge import FaceGauge
from diffdyad.evaluation.tracks import Tracks, Undefined
from diffdyad.motion import Motion

FIGURES: tuple[Figure, ...] = (*CLIP_FIGURES, *SAMPLE_FIGURES)

_NUM_OTHERS = 2  # clips of other people that shuffled pairs are made of


@dataclass(frozen=True)
class ScoreSettings:
    """system: what the table calls the predictions; units: "people" or "clips" (see `check_clips`).

    workers: processes; the figures do not depend on it. More than one starts fresh interpreters, which import the
    caller's main module: that needs its `if __name__ == "__main__"`.
    """

    system: str = "prediction"
    units: str = "people"
    confidence: float = 0.95
    num_resamples: int = 1000
    seed: int = 0
    controls: tuple[Control, ...] = CONTROLS
    workers: int = 1


@dataclass
class ClipResult:
    """Sums (total, count) and reasons by row, phase and figure."""

    sums: dict[tuple[str, int, int], tuple[float, float]]
    undefined: list[tuple[str, int, int, str]]


Pools = dict[tuple[str, str, str], Pool]
"""By row, phase and response kind."""


class ClipWork:
    """Everything that scoring one clip needs; `rows`: name -> what it is, the system first."""

    def __init__(
        self, clips: list[Clip], motions: list[list[Motion]], gauge: FaceGauge | None, settings: ScoreSettings,
        beside: Sequence[Clip] = (),
    ):
        self.clips, self.motions, self.gauge, self.settings = clips, motions, gauge, settings
        self.corpus = Corpus(clips, beside)
        self.phases = ["all", *(p for p in PHASES if any(p in clip.phases for clip in clips))]
        self.rows = {settings.system: "the predictions", **{c.name: c.about for c in settings.controls}}
        self.yardstick = Yardstick.of([Tracks(clip.truth, gauge) for clip in clips], settings.seed)
        self.partners = [None if c.partner_motion is None else Tracks(c.partner_motion, gauge) for c in clips]
        self.others = self._draw_others()

    def _draw_others(self) -> list[list[int]]:
        generator = np.random.default_rng([self.settings.seed, 1])
        order = generator.permutation(len(self.clips))
        result = []
        for place, index in enumerate(np.argsort(order)):
            own, found = self.clips[place].people, []
            # the next ones in a shuffled circle: everybody is somebody's other about as often
            for step in range(1, len(order)):
                other = int(order[(index + step) % len(order)])
                if not set(own) & set(self.clips[other].people):
                    found.append(other)
                if len(found) == _NUM_OTHERS:
                    break
            result.append(found)
        return result

    def chunk(self, indices: Sequence[int]) -> tuple[list[ClipResult], Pools]:
        """The results of some clips, and their pools together."""
        results, pools = [], {}
        for index in indices:
            result, own = self.clip(index)
            results.append(result)
            for key, pool in own.items():
                pools[key] = pools[key] + pool if key in pools else pool
        return results, pools

    def clip(self, index: int) -> tuple[ClipResult, Pools]:
        clip = self.clips[index]
        truth = Tracks(clip.truth, self.gauge)
        others = [Company(self.clips[n], self.partners[n]) for n in self.others[index]]
        result, pools, shared = ClipResult({}, []), {}, {}
        for number, row in enumerate(self.rows):
            motions = self.motions[index]
            if number:
                generator = np.random.default_rng([self.settings.seed, 2, number, index])
                made = self.settings.controls[number - 1].make(self.corpus, index, generator)
                motions = [] if made is None else [made]
            sides = [truth if motion is clip.truth else Tracks(motion, self.gauge) for motion in motions]
            scenes = [Scene(clip, truth, side, self.partners[index], others, shared) for side in sides]
            self._row(clip, row, scenes, result, pools)
        return result, pools

    def _row(self, clip: Clip, row: str, scenes: list[Scene], result: ClipResult, pools: Pools) -> None:
        samples = Samples(scenes)
        poolables = [Poolable(scene.prediction, self.yardstick, scene.partner) for scene in scenes]
        for place, phase in enumerate(self.phases):
            frames = clip.phases.get(phase)
            if phase == "all":
                frames = np.ones(len(clip), bool)
            for number, figure in enumerate(FIGURES):
                if phase != "all" and not figure.by_phase:
                    continue
                key = (row, place, number)
                if frames is None or not scenes:
                    result.undefined.append((*key, "no such clip to draw from" if not scenes else "phase not known"))
                    continue
                for part in scenes if number < len(CLIP_FIGURES) else [samples]:
                    try:
                        sums: Sums = figure.measure(part, frames)
                    except Undefined as undefined:
                        result.undefined.append((*key, str(undefined)))
                        continue
                    total, count = result.sums.get(key, (0.0, 0.0))
                    result.sums[key] = (total + sums.total, count + sums.count)
            if frames is not None and frames.any() and scenes:
                pool = Pool.empty()
                for poolable in poolables:
                    pool = pool + poolable.pool(frames)
                pools[row, phase, clip.response_kind] = pool


def in_order(work: ClipWork, chunks: Sequence[list[int]]) -> Iterator[tuple[list[int], list[ClipResult], Pools]]:
    """Chunks of clips with their results, in the order given, from as many processes as the settings say."""
    workers = min(work.settings.workers, len(chunks))
    if workers < 2:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # many small tensors: threads would only wait for each other
        try:
            for chunk in chunks:
                yield chunk, *work.chunk(chunk)
        finally:
            torch.set_num_threads(threads)
        return
    # plain pickle: torch's own would send every tensor as a file of shared memory, and there are thousands
    executor = spawned(workers, _begin, pickle.dumps(work))
    try:
        for chunk, (results, pools) in zip(chunks, executor.map(_do, chunks)):
            yield chunk, results, pools
    except BrokenProcessPool:
        raise UserError(
            "a worker process ended before its work was done (none left a message: it was killed, perhaps for memory); "
            "try fewer workers"
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


_work: ClipWork | None = None  # of a worker process


def _begin(pickled: bytes) -> None:
    global _work
    _work = pickle.loads(pickled)


def _do(chunk: list[int]) -> tuple[list[ClipResult], Pools]:
    return _work.chunk(chunk)
