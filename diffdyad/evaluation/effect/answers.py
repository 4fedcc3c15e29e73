"""Sampled answers under any context, from the same noise, kept on disk by all that they follow from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffdyad.data import files
from diffdyad.data.batches import keyed_generator
from diffdyad.evaluation.effect.conditions import TRUE, Conditions
from diffdyad.evaluation.effect.network import Network
from diffdyad.evaluation.effect.reading import content_key
from diffdyad.evaluation.trim import cut
from diffdyad.media import SAMPLING_RATE
from diffdyad.motion import Motion

_FORMAT = 1


@dataclass(frozen=True)
class Ask:
    """One set of answers: of which exchange, under which condition, at which guidance scale, how many.

    start: index of the exchange whose listening comes first; None: no first frames are given.
    """

    index: int
    condition: str = TRUE
    scale: float = 1.0
    num_samples: int = 8
    start: int | None = None


class Answers:
    """Answers of T frames (those that count), raw motion; the K samples of all conditions share their noise."""

    def __init__(self, network: Network, conditions: Conditions, folder: Path, seed: int = 0):
        self.network, self.conditions, self.folder, self.seed = network, conditions, folder, seed
        folder.mkdir(parents=True, exist_ok=True)

    def make(
        self, asks: Sequence[Ask], share: tuple[int, int] = (0, 1), progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Generates what is missing; share: (k, n), only every n-th of all from the k-th on."""
        # of all: what is missing differs between processes while one of them is already writing
        own = list(dict.fromkeys(asks))[share[0] :: share[1]]
        missing = [ask for ask in own if not self._path(ask).exists()]
        for done, ask in enumerate(missing, start=1):
            files.save(self._path(ask), {"motion": self._generate(ask)}, {})
            if progress:
                progress(done, len(missing))

    def __call__(self, ask: Ask) -> Tensor:
        """(K, T, D) raw motion."""
        path = self._path(ask)
        if not path.exists():
            files.save(path, {"motion": self._generate(ask)}, {})
        return files.load(path)[0]["motion"]

    def has(self, index: int, condition: str) -> bool:
        return self.conditions.context(index, condition) is not None

    def _path(self, ask: Ask) -> Path:
        item, context = self.conditions.items[ask.index], self.conditions.context(ask.index, ask.condition)
        parts = [] if context is None else [
            *(x for _, x in sorted(context.features.items())), *(x for _, x in sorted(context.status.items())),
            context.sentence, context.end_s,
        ]  # fmt: skip
        start = self._start(ask)
        key = content_key(
            _FORMAT, self.network.fingerprint, self.network.answer, self.seed, item.name, item.audio, ask.scale,
            ask.num_samples, *parts, *(() if start is None else (start.values,)),
        )  # fmt: skip
        return self.folder / f"{key}.safetensors"

    def _start(self, ask: Ask) -> Motion | None:
        """The last frames before the onset, those of another exchange perhaps."""
        if ask.start is None:
            return None
        item, pipeline = self.conditions.items[ask.start], self.network.pipeline
        onset = item.onset(pipeline.fps)
        motion = Motion(item.features.motion, pipeline.layout, pipeline.fps)
        return cut(motion, onset, max(0, onset - round(pipeline.config.prefix_s * pipeline.fps)))

    def _generate(self, ask: Ask) -> Tensor:
        item, pipeline = self.conditions.items[ask.index], self.network.pipeline
        start = self._start(ask)
        # a whole window, so that the frames that count are not its last ones
        length = round(self.network.num_frames / pipeline.fps * SAMPLING_RATE)
        audio = torch.nn.functional.pad(item.audio[:length], (0, max(0, length - len(item.audio))))
        context = self.conditions.context(ask.index, ask.condition)
        nothing = all(bool((status != 0).all()) for status in context.status.values())
        output = pipeline(
            audio, context=None if nothing else context, guidance_scale=ask.scale,
            start="none" if start is None or not len(start) else start, num_samples=ask.num_samples,
            generator=keyed_generator(self.seed, "answer", item.name),
        )  # fmt: skip
        return torch.stack([motion.values[: self.network.answer] for motion in output.motions])
