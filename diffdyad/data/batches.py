"""Training examples: windows of exchanges, their conditions, and what of these is withheld.

Everything random about an example comes from one generator, keyed by (seed, step, index of the example in
the global batch): the same on any number of processes, and after a resumed run.
Shapes: B batch, T frames, D channels, G channel groups.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffdyad.audio import SpeechEncoder
from diffdyad.conditioning import Conditions, style_features
from diffdyad.config import ConditionConfig
from diffdyad.context import ABSENT, DROPPED, Context, ContextEncoder, collate
from diffdyad.data.disguise import Disguise, disguised
from diffdyad.data.features import ExchangeFeatures
from diffdyad.errors import UserError
from diffdyad.motion import MotionStats


def keyed_generator(*key: int | str) -> torch.Generator:
    """A generator that depends on the key alone."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@dataclass
class Batch:
    """One batch, standardised.

    target: (B, T, D); valid: (B, T, G), False where nothing is known or past the recording; prefix: (B, T)
    True = given; prefix_noise: (B, 1, 1) in standard deviations; noise: (B, T, D); uniform: (B,) in [0, 1)
    for the timestep; dropped: which share of the examples had what withheld; absent: in which there was no
    previous turn, and this was told; ids: the exchanges.
    """

    target: Tensor
    valid: Tensor
    conditions: Conditions
    prefix: Tensor
    prefix_noise: Tensor
    noise: Tensor
    uniform: Tensor
    dropped: dict[str, float]
    absent: float
    ids: list[str]


@dataclass(frozen=True)
class Mixture:
    """Several datasets in one training.

    weights: share of the examples of each, relative to one another; empty: by their length. sources: what the network
    is told of each, 0 = nothing; empty: nothing of any.
    """

    weights: tuple[float, ...] = ()
    sources: tuple[int, ...] = ()

    def source(self, dataset: int) -> int:
        return self.sources[dataset] if self.sources else 0

    def shares(self, lengths: Tensor, datasets: Tensor) -> Tensor:
        """How often each exchange is drawn, (N,), up to a factor. lengths, datasets: (N,) of the exchanges."""
        if not self.weights:
            return lengths
        totals = torch.zeros(len(self.weights)).index_add_(0, datasets, lengths).clamp_min(1)
        return lengths * (torch.tensor(self.weights) / totals)[datasets]


class ExchangeWindows:
    """Draws windows from exchanges, each exchange as often as its length (and its dataset's weight) deserves."""

    def __init__(
        self, exchanges: Sequence[ExchangeFeatures], speech: SpeechEncoder, context: ContextEncoder,
        stats: MotionStats, conditions: ConditionConfig, mixture: Mixture = Mixture(), disguise: Disguise | None = None,
    ):
        if not exchanges:
            raise UserError("expected at least one usable exchange to train on, found none")
        self.exchanges, self.speech, self.context, self.stats = exchanges, speech, context, stats
        self.chances, self.mixture, self.disguise = conditions, mixture, disguise
        lengths = torch.tensor([float(len(e.motion)) for e in exchanges])
        lengths = mixture.shares(lengths, torch.tensor([e.dataset for e in exchanges]))
        self.cumulative = lengths.cumsum(0) / lengths.sum()
        self.by_responder: dict[tuple[int, str], list[int]] = {}
        for number, exchange in enumerate(exchanges):
            self.by_responder.setdefault((exchange.dataset, exchange.responder), []).append(number)
        self.voices: dict[int, Tensor] = {}
        known = stats.layout.group_to_channels
        self.styles = torch.stack([style_features(stats.standardise(e.motion) * known(e.valid)) for e in exchanges])

    def batch(self, generators: Sequence[torch.Generator], num_frames: int, withhold: bool = True) -> Batch:
        """One example per generator; `withhold=False` keeps every condition and gives no prefix."""
        examples = [self._example(generator, num_frames, withhold) for generator in generators]
        stack = lambda name: torch.stack([e[name] for e in examples])  # noqa: E731
        context = collate([e["context"] for e in examples])
        speech_given, style_given, prefix = stack("speech_given"), stack("style_given"), stack("prefix")
        dropped = {
            "own_audio": 1 - speech_given.float().mean().item(),
            "style": 1 - style_given.float().mean().item(),
            "prefix": 1 - prefix.any(1).float().mean().item(),
            "context": torch.stack([s == DROPPED for s in context.status.values()]).all(0).float().mean().item(),
            **{name: (status == DROPPED).float().mean().item() for name, status in context.status.items()},
        }
        if any(self.mixture.sources):
            dropped["source"] = (stack("source") == 0).float().mean().item()
        speech = self.speech.standardise(stack("speech"), stack("voice"))
        if self.disguise and withhold:
            spectrum, phones = self.speech.split(speech)
            spectrum = disguised(spectrum, stack("disguise"), self.speech.config["num_bands"])
            speech = torch.cat([spectrum, phones], -1)
        return Batch(
            target=stack("target"), valid=stack("valid"),
            conditions=Conditions(
                speech=speech, heard=stack("heard"), speech_given=speech_given, context=context,
                style=stack("style"), style_given=style_given,
                source=stack("source"), start_s=stack("start_s"), horizon_s=stack("horizon_s"),
            ),
            prefix=prefix, prefix_noise=stack("prefix_noise")[:, None, None], noise=stack("noise"),
            uniform=stack("uniform"), dropped=dropped,
            absent=torch.stack([s == ABSENT for s in context.status.values()]).any(0).float().mean().item(),
            ids=[e["id"] for e in examples],
        )  # fmt: skip

    def _example(self, generator: torch.Generator, num_frames: int, withhold: bool) -> dict:
        chances, fps = self.chances, self.stats.config.fps

        def uniform() -> float:
            return torch.rand((), generator=generator).item()

        def happens(probability: float) -> bool:
            return uniform() < probability

        number = min(int(torch.searchsorted(self.cumulative, uniform())), len(self.exchanges) - 1)
        exchange = self.exchanges[number]
        total = len(exchange.motion)
        # up to half a window past the end, so that the ends of recordings are met as in sampling
        last = max(0, total - num_frames // 2)
        first = int(uniform() * (last + 1))
        if happens(chances.onset):
            # from the last seconds of listening on: where the previous turn shows
            onset = -exchange.start_s * fps
            first = min(max(round(onset + (0.5 - 4.5 * uniform()) * fps), 0), last)
        stop = min(first + num_frames, total)
        there = stop - first

        def window(source: Tensor) -> Tensor:
            padded = source.new_zeros(num_frames, *source.shape[1:])
            padded[:there] = source[first:stop]
            return padded

        valid = window(exchange.valid)
        known = self.stats.layout.group_to_channels(valid)
        target = self.stats.standardise(window(exchange.motion)) * known
        heard = torch.arange(num_frames) < there
        start_s = exchange.start_s + first / fps

        horizon_s = torch.inf
        if withhold and happens(chances.live):
            shortest = min(round(chances.shortest_lookahead_s * fps), num_frames)
            horizon = shortest + int(uniform() * (num_frames - shortest + 1))
            heard &= torch.arange(num_frames) < horizon
            horizon_s = start_s + horizon / fps

        prefix = torch.zeros(num_frames, dtype=torch.bool)
        if withhold and happens(chances.prefix):
            prefix[: 1 + int(uniform() * chances.prefix_s * fps)] = True
        # channel groups that were never measured do not count: they are as unknown when sampling goes on from a window
        measured = exchange.valid.any(0)
        prefix &= (valid | ~measured).all(-1)

        everything = withhold and happens(chances.drop_everything)
        audio_given = not (everything or (withhold and happens(chances.drop_audio)))
        context = self._context(exchange, everything, withhold, happens, generator)
        others = [n for n in self.by_responder[exchange.dataset, exchange.responder] if n != number]
        style_given = bool(others) and not (withhold and happens(chances.drop_style))
        other = others[int(uniform() * len(others))] if others else number
        example = {
            "id": exchange.exchange_id, "target": target, "valid": valid,
            "speech": window(exchange.speech), "heard": heard, "voice": self._voice(number),
            "speech_given": torch.tensor(audio_given), "context": context, "style": self.styles[other],
            "style_given": torch.tensor(style_given), "start_s": torch.tensor(start_s, dtype=torch.float32),
            "horizon_s": torch.tensor(horizon_s, dtype=torch.float32), "prefix": prefix,
            "prefix_noise": torch.tensor(uniform() * chances.prefix_noise if withhold else 0.0),
            "noise": torch.randn(target.shape, generator=generator), "uniform": torch.tensor(uniform()),
        }  # fmt: skip
        source = self.mixture.source(exchange.dataset)
        told = source and not (withhold and happens(chances.drop_source))
        example["source"] = torch.tensor(source if told else 0)
        if self.disguise and withhold:
            example["disguise"] = self.disguise.draw(generator)
        return example

    def _voice(self, number: int) -> Tensor:
        """The responder's own levels, of the whole recording: as sampling, which has the whole answer, has them."""
        if not self.speech.config["normalise_voice"]:
            return torch.zeros(2, 1)  # not looked at
        if number not in self.voices:
            self.voices[number] = self.speech.voice_of(self.speech.bands(self.exchanges[number].speech))
        return self.voices[number]

    def _context(
        self, exchange: ExchangeFeatures, everything: bool, withhold: bool, happens, generator: torch.Generator
    ) -> Context:
        missing = ABSENT if exchange.alone else DROPPED
        context = self.context.place(self.context.standardise(exchange.turn), exchange.previous_end_s, missing)
        if everything or (withhold and happens(self.chances.drop_context)):
            return context.dropped()
        if not withhold:
            return context
        for modality in context.status:
            if happens(self.chances.drop_modality):
                context = context.drop(modality)
        kept = torch.rand(context.mask.shape, generator=generator) >= self.chances.drop_cells

        def blurred(x: Tensor, scale: float = 1.0) -> Tensor:
            return x + self.chances.context_noise * scale * torch.randn(x.shape, generator=generator)

        # text embeddings have unit length, all else unit deviation
        scales = {"text": context.sentence.shape[-1] ** -0.5} if "text" in context.features else {}
        return replace(
            context, mask=context.mask & kept, sentence=blurred(context.sentence, scales.get("text", 1.0)),
            features={name: blurred(cells, scales.get(name, 1.0)) for name, cells in context.features.items()},
        )
