"""The previous speaker's turn as timed features: what is known of it, on which clock, and what is missing.

All modalities share one grid of cells at `rate_hz` that ends where the turn ends. A cell holds the mean
and the standard deviation of a modality's frames, a word's embedding in the cell of its middle. One
token per cell carries all modalities at once (their projections are added in the network), which keeps
every time and costs a fifth of a token per cell and modality.

Shapes: B batch, N cells, C_m features of modality m.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from diffdyad.audio import SpeechEncoder
from diffdyad.errors import UserError
from diffdyad.media import normalise_loudness
from diffdyad.motion import Motion, MotionStats
from diffdyad.prosody import prosody
from diffdyad.text import TextEncoder, TimedWord

MODALITIES = ("audio", "prosody", "affect", "motion", "text")

GIVEN, DROPPED, ABSENT = 0, 1, 2
"""Status of a modality: its features are there; not given; known not to exist (a monologue)."""


@dataclass
class PreviousTurn:
    """What is known of the previous speaker's turn; any subset, or nothing.

    audio: (S,) 16 kHz mono; motion: the speaker's face and head; text, and its words with their times
    on the exchange's clock where known. The turn ends at -gap_s (a negative gap is an overlap); audio
    and motion end there with it.
    """

    audio: Tensor | None = None
    motion: Motion | None = None
    text: str | None = None
    words: Sequence[TimedWord] = ()
    gap_s: float = 0.2

    @property
    def is_empty(self) -> bool:
        return self.audio is None and self.motion is None and not (self.text or "").strip() and not self.words


@dataclass
class Context:
    """A batch of encoded previous turns, ready for the network.

    features[m]: (B, N, C_m) standardised; valid[m]: (B, N), True = the cell holds modality m;
    sentence: (B, C_text), sentence_valid: (B,): the whole turn's text as one embedding;
    status[m]: (B,) of GIVEN, DROPPED, ABSENT; times_s: (B, N) cell centres; mask: (B, N), True = a cell
    of this turn, False = padding; end_s: (B,) when the turn ended, both on the exchange's clock.
    """

    features: dict[str, Tensor]
    valid: dict[str, Tensor]
    sentence: Tensor
    sentence_valid: Tensor
    status: dict[str, Tensor]
    times_s: Tensor
    mask: Tensor
    end_s: Tensor

    def __len__(self) -> int:
        return len(self.end_s)

    def to(self, device) -> Context:
        move = lambda tensors: {name: tensor.to(device) for name, tensor in tensors.items()}  # noqa: E731
        return Context(
            move(self.features), move(self.valid), self.sentence.to(device), self.sentence_valid.to(device),
            move(self.status), self.times_s.to(device), self.mask.to(device), self.end_s.to(device),
        )

    def drop(self, modality: str, which: Tensor | None = None) -> Context:
        """The same context with one modality not given, in all rows or in those of `which` (B,) bool."""
        status = self.status[modality]
        dropped = torch.full_like(status, DROPPED)
        changed = dropped if which is None else torch.where(which, dropped, status)
        return replace(self, status={**self.status, modality: changed})

    def dropped(self) -> Context:
        """The same context with nothing given: the branch without context."""
        return replace(self, status={m: torch.full_like(s, DROPPED) for m, s in self.status.items()})

    def repeat(self, times: int) -> Context:
        """Every row `times` times, in a block each: (B, ...) -> (B * times, ...)."""
        again = lambda x: x.repeat_interleave(times, 0)  # noqa: E731
        return Context(
            {k: again(v) for k, v in self.features.items()}, {k: again(v) for k, v in self.valid.items()},
            again(self.sentence), again(self.sentence_valid), {k: again(v) for k, v in self.status.items()},
            again(self.times_s), again(self.mask), again(self.end_s),
        )

    def shifted(self, seconds: float) -> Context:
        """The same turn, `seconds` later on the clock."""
        return replace(self, times_s=self.times_s + seconds, end_s=self.end_s + seconds)


def collate(contexts: Sequence[Context]) -> Context:
    """Pads to the longest turn and stacks. Rows may differ in length, not in their modalities."""
    longest = max(context.times_s.shape[1] for context in contexts)

    def pad(x: Tensor) -> Tensor:
        shape = list(x.shape)
        shape[1] = longest - shape[1]
        return torch.cat([x.new_zeros(shape), x], 1)

    first = contexts[0]
    return Context(
        {m: torch.cat([pad(c.features[m]) for c in contexts]) for m in first.features},
        {m: torch.cat([pad(c.valid[m]) for c in contexts]) for m in first.valid},
        torch.cat([c.sentence for c in contexts]), torch.cat([c.sentence_valid for c in contexts]),
        {m: torch.cat([c.status[m] for c in contexts]) for m in first.status},
        torch.cat([pad(c.times_s) for c in contexts]), torch.cat([pad(c.mask) for c in contexts]),
        torch.cat([c.end_s for c in contexts]),
    )


def pool_cells(frames: Tensor, num_cells: int, frames_per_cell: int) -> Tensor:
    """Mean and standard deviation of the frames of each cell, cells aligned to the end.

    frames: (T, C), T <= num_cells * frames_per_cell; the first cell may be part empty. -> (num_cells, 2 C)
    """
    missing = num_cells * frames_per_cell - len(frames)
    if missing > 0:
        frames = torch.cat([frames[:1].expand(missing, -1), frames])
    cells = frames[-num_cells * frames_per_cell :].reshape(num_cells, frames_per_cell, -1)
    return torch.cat([cells.mean(1), cells.std(1, correction=0)], -1)


@dataclass
class TurnFeatures:
    """One turn's cells, unbatched and without a clock: features[m] (N, C_m), valid[m] (N,), sentence (C,) or None."""

    features: dict[str, Tensor] = field(default_factory=dict)
    valid: dict[str, Tensor] = field(default_factory=dict)
    sentence: Tensor | None = None


class ContextEncoder(ModelMixin, ConfigMixin):
    """From a previous turn to its cells. Frozen: its encoders are named, its statistics stored.

    `modalities` are those that the network takes, with the width of each in `widths`. Encoders are
    referred to by name and revision. Statistics stay float32.
    """

    config_name = "config.json"
    _keep_in_fp32_modules = [f"{m}_{part}" for m in MODALITIES for part in ("mean", "std")]  # noqa: RUF012
    allow_download = False

    @register_to_config
    def __init__(
        self,
        modalities: Sequence[str] = ("audio", "prosody", "motion", "text"),
        widths: dict[str, int] | None = None,
        rate_hz: float = 5.0,
        longest_s: float = 20.0,
        fps: float = 25.0,
        text_encoder: str = "sentence-transformers/all-MiniLM-L6-v2",
        text_revision: str | None = None,
        affect_encoder: str | None = None,
        affect_revision: str | None = None,
    ):
        super().__init__()
        unknown = set(modalities) - set(MODALITIES)
        if unknown:
            raise UserError(f"expected context modalities among {', '.join(MODALITIES)}, found {', '.join(unknown)}")
        if abs(fps / rate_hz - round(fps / rate_hz)) > 1e-6:
            raise UserError(f"expected a context rate that divides {fps} fps, found {rate_hz} Hz")
        for name, width in (widths or {}).items():
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_std", torch.ones(width))
        self._text = self._affect = None

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        for name, buffer in self.named_buffers():
            setattr(self, name, buffer.float())
        return self

    def fit(self, turns: Iterable[TurnFeatures]) -> ContextEncoder:
        """Sets the statistics of every modality but text, whose embeddings have unit length, from the corpus."""
        sums: dict[str, list] = {}
        for turn in turns:
            for name, cells in turn.features.items():
                rows = cells[turn.valid[name]].double()
                total = sums.setdefault(name, [0, 0.0, 0.0])
                total[0] += len(rows)
                total[1] = total[1] + rows.sum(0)
                total[2] = total[2] + rows.square().sum(0)
        for name, (count, total, squares) in sums.items():
            if name != "text" and count:
                mean = total / count
                std = (squares / count - mean**2).clamp_min(0).sqrt()
                getattr(self, f"{name}_mean").copy_(mean)
                getattr(self, f"{name}_std").copy_(torch.where(std < 1e-4, 1.0, std))
        return self

    @property
    def frames_per_cell(self) -> int:
        return round(self.config.fps / self.config.rate_hz)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.config.modalities)

    def text_encoder(self):
        if self._text is None:
            self._text = TextEncoder(
                self.config.text_encoder, self.config.text_revision, allow_download=self.allow_download
            )
        return self._text

    def affect_encoder(self):
        if self._affect is None:
            from diffdyad.affect import AffectEncoder

            self._affect = AffectEncoder(
                self.config.affect_encoder, self.config.affect_revision, allow_download=self.allow_download
            )
        return self._affect

    def taken(self, turn: PreviousTurn) -> PreviousTurn:
        """The part of a turn that the model takes: what a dataset holds beyond it is no error."""
        audio = turn.audio if {"audio", "prosody", "affect"} & set(self.modalities) else None
        motion = turn.motion if "motion" in self.modalities else None
        text, words = (turn.text, turn.words) if "text" in self.modalities else (None, ())
        return replace(turn, audio=audio, motion=motion, text=text, words=words)

    @torch.no_grad()
    def raw_features(
        self, turn: PreviousTurn, speech_encoder: SpeechEncoder, stats: MotionStats, where: str = "the context"
    ) -> TurnFeatures:
        """The cells of one turn, not yet standardised.

        The last `longest_s` seconds count. Modalities that the model does not take are a UserError,
        rather than silently ignored; those that the turn lacks are missing from the result.
        """
        given = {"audio": turn.audio is not None, "motion": turn.motion is not None,
                 "text": bool((turn.text or "").strip() or turn.words)}
        takes = {"audio": {"audio", "prosody", "affect"}, "motion": {"motion"}, "text": {"text"}}
        for kind, there in given.items():
            if there and not takes[kind] & set(self.modalities):
                raise UserError(
                    f"this model takes the context modalities {', '.join(self.modalities)}; found {kind} in {where}"
                )
        fps, cell_s = self.config.fps, 1 / self.config.rate_hz
        sampling_rate = speech_encoder.config.sampling_rate
        durations = [0.0]
        if turn.audio is not None:
            durations.append(len(turn.audio) / sampling_rate)
        if turn.motion is not None:
            durations.append(turn.motion.duration_s)
        if turn.words:
            durations.append(-turn.gap_s - min(word.start_s for word in turn.words))
        duration = min(max(durations), self.config.longest_s)
        num_cells = -int(-duration // cell_s) if duration > 0 else 0
        result = TurnFeatures()

        def put(name: str, frames: Tensor) -> None:
            frames = frames[-round(self.config.longest_s * fps) :]
            if not len(frames):
                return  # less than half a frame
            cells = min(num_cells, -(-len(frames) // self.frames_per_cell))
            pooled = pool_cells(frames, cells, self.frames_per_cell)
            result.features[name] = torch.cat([pooled.new_zeros(num_cells - cells, pooled.shape[-1]), pooled])
            result.valid[name] = torch.arange(num_cells) >= num_cells - cells

        if turn.audio is not None and turn.audio.numel():
            waveform = turn.audio[-round(self.config.longest_s * sampling_rate) :].float().cpu()
            normalised = normalise_loudness(waveform, sampling_rate)
            if "audio" in self.modalities:
                device = speech_encoder.mean.device
                heard = speech_encoder.encode(normalised[None].to(device), phones=False)[0]
                put("audio", heard.float().mean(1).cpu())
            if "prosody" in self.modalities:
                put("prosody", prosody(waveform, sampling_rate, fps))
            if "affect" in self.modalities:
                self._put_affect(result, normalised, sampling_rate, num_cells)
        if turn.motion is not None and "motion" in self.modalities:
            stats.check(turn.motion, where)
            motion = turn.motion.resample(fps)
            put("motion", motion.values * stats.layout.group_to_channels(motion.valid))
        if given["text"] and "text" in self.modalities:
            self._put_text(result, turn, num_cells, cell_s)
        return result

    def _put_affect(self, result: TurnFeatures, waveform: Tensor, sampling_rate: int, num_cells: int) -> None:
        # windows that end where the cells end, the last of them with the turn
        front = round(num_cells / self.config.rate_hz * sampling_rate) - len(waveform)
        padded = torch.nn.functional.pad(waveform, (max(front, 0), 0))
        result.features["affect"] = self.affect_encoder().encode(padded, sampling_rate).features.float().cpu()
        result.valid["affect"] = torch.ones(len(result.features["affect"]), dtype=torch.bool)

    def _put_text(self, result: TurnFeatures, turn: PreviousTurn, num_cells: int, cell_s: float) -> None:
        encoder = self.text_encoder()
        text = turn.text if (turn.text or "").strip() else " ".join(word.word for word in turn.words)
        result.sentence = encoder.encode([text])[0].float().cpu()
        features = torch.zeros(num_cells, len(result.sentence))
        counts = torch.zeros(num_cells)
        if turn.words:
            embeddings = encoder.encode_words([word.word for word in turn.words]).float().cpu()
            start_s = -turn.gap_s - num_cells * cell_s
            for word, embedding in zip(turn.words, embeddings, strict=True):
                cell = int(((word.start_s + word.end_s) / 2 - start_s) // cell_s)
                if 0 <= cell < num_cells:
                    features[cell] += embedding
                    counts[cell] += 1
        result.features["text"] = features / counts.clamp_min(1)[:, None]
        result.valid["text"] = counts > 0

    def standardise(self, turn: TurnFeatures) -> TurnFeatures:
        """Cells with zero mean and unit deviation over the corpus."""
        scaled = {
            name: (cells.float() - getattr(self, f"{name}_mean").cpu()) / getattr(self, f"{name}_std").cpu()
            for name, cells in turn.features.items()
        }
        return replace(turn, features=scaled)

    def place(self, turn: TurnFeatures, end_s: float, missing: int = DROPPED) -> Context:
        """A batch of one on the exchange's clock; modalities that the turn lacks get the status `missing`."""
        widths, cell_s = self.config.widths or {}, 1 / self.config.rate_hz
        num_cells = max((len(f) for f in turn.features.values()), default=0)
        features, valid, status = {}, {}, {}
        for name in self.modalities:
            there = name in turn.features or (name == "text" and turn.sentence is not None)
            blank = torch.zeros(num_cells, widths[name])
            features[name] = turn.features.get(name, blank)[None].float()
            valid[name] = turn.valid.get(name, torch.zeros(num_cells, dtype=torch.bool))[None]
            status[name] = torch.tensor([GIVEN if there else missing])
        sentence = turn.sentence if turn.sentence is not None else torch.zeros(widths.get("text", 0))
        times = end_s + (torch.arange(num_cells) - num_cells + 0.5) * cell_s
        return Context(
            features, valid, sentence[None].float(), torch.tensor([turn.sentence is not None]), status,
            times[None].float(), torch.ones(1, num_cells, dtype=torch.bool), torch.tensor([float(end_s)]),
        )

    def forward(
        self, turn: PreviousTurn, speech_encoder: SpeechEncoder, stats: MotionStats, where: str = "the context"
    ) -> Context:
        """Encodes one turn, which ends at -gap_s."""
        return self.place(
            self.standardise(self.raw_features(turn, speech_encoder, stats, where)), -turn.gap_s
        )
