"""The network as the protocol asks it: clean motion of the first window after the onset, under several contexts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from diffdyad import schedulers
from diffdyad.conditioning import Conditions as NetworkConditions
from diffdyad.context import Context, collate
from diffdyad.denoiser import EncodedConditions
from diffdyad.evaluation.effect.reading import Item, content_key
from diffdyad.pipeline import DyadPipeline


class Network:
    """A DyadPipeline's denoiser on windows of T frames from the onset; no prefix, no style, nothing withheld.

    num_frames: T, those of the pipeline's windows; answer: how many of them count.
    """

    def __init__(self, pipeline: DyadPipeline, answer_s: float):
        self.pipeline = pipeline
        self.num_frames = 2 * round(pipeline.config.window_s * pipeline.fps / 2)
        self.answer = min(round(answer_s * pipeline.fps), self.num_frames)
        config = pipeline.scheduler.config
        self.num_timesteps = config.num_train_timesteps
        kind = "flow" if schedulers.is_flow(pipeline.scheduler) else "diffusion"
        schedule = {} if kind == "flow" else {"beta_schedule": config.beta_schedule}
        self.noise = schedulers.training_scheduler(kind, self.num_timesteps, **schedule)
        self.fingerprint = fingerprint(pipeline)

    @property
    def last_timestep(self) -> int:
        """Pure noise: what the network then says is the mean of what it expects."""
        return self.num_timesteps - 1

    def target(self, item: Item) -> tuple[Tensor, Tensor]:
        """Standardised truth (T, D), and which channels are known (T, D) bool, False beyond the answer that counts."""
        stats, onset = self.pipeline.statistics, item.onset(self.pipeline.fps)
        motion = item.features.motion[onset : onset + self.num_frames]
        valid = item.features.valid[onset : onset + self.num_frames]
        missing = self.num_frames - len(motion)
        known = F.pad(stats.layout.group_to_channels(valid), (0, 0, 0, missing))
        target = F.pad(stats.standardise(motion.to(stats.mean.device)).cpu(), (0, 0, 0, missing)) * known
        counted = (torch.arange(self.num_frames) < self.answer)[:, None]
        return target, known & counted

    @torch.no_grad()
    def encode(self, items: Sequence[Item], contexts: Sequence[Context]) -> EncodedConditions:
        """Row r: the item r's own speech with the context r; both of length R."""
        pipeline, device = self.pipeline, self.pipeline._execution_device
        encoder = pipeline.speech_encoder
        speech = torch.stack([self._speech(item) for item in items]).to(device)
        voices = None
        if encoder.config["normalise_voice"]:  # each its own, of all that there is of it
            voices = torch.stack([encoder.voice_of(encoder.bands(item.features.speech)) for item in items]).to(device)
        lengths = torch.tensor([len(item.features.motion) - item.onset(pipeline.fps) for item in items])
        rows = len(items)
        return pipeline.denoiser.encode(NetworkConditions(
            speech=encoder.standardise(speech, voices),
            heard=(torch.arange(self.num_frames) < lengths[:, None]).to(device),
            speech_given=torch.ones(rows, dtype=torch.bool, device=device),
            context=collate(contexts).to(device),
            style=torch.zeros(rows, 3 * pipeline.layout.dim, device=device),
            style_given=torch.zeros(rows, dtype=torch.bool, device=device),
            source=torch.zeros(rows, dtype=torch.long, device=device),
            start_s=torch.zeros(rows, device=device),
        ))  # fmt: skip

    @torch.no_grad()
    def predict(self, noisy: Tensor, timestep: int, encoded: EncodedConditions) -> Tensor:
        """Clean motion (R, T, D) from noisy, standardised, on the CPU."""
        device = self.pipeline._execution_device
        told = torch.full((len(noisy),), timestep, device=device)
        prefix = torch.zeros(noisy.shape[:2], dtype=torch.bool, device=device)
        return self.pipeline.denoiser(noisy.to(device), told, encoded, prefix).float().cpu()

    def add_noise(self, clean: Tensor, noise: Tensor, timestep: int) -> Tensor:
        return schedulers.add_noise(self.noise, clean, noise, torch.full((len(clean),), timestep))

    def _speech(self, item: Item) -> Tensor:
        onset = item.onset(self.pipeline.fps)
        features = item.features.speech[onset : onset + self.num_frames].float()
        return F.pad(features, (0, 0, 0, 0, 0, self.num_frames - len(features)))


def fingerprint(pipeline: DyadPipeline) -> str:
    """What the answers depend on: weights, statistics, noise and windows."""
    state = {f"{name}/{key}": value for name in ("denoiser", "statistics", "speech_encoder", "context_encoder")
             for key, value in getattr(pipeline, name).state_dict().items()}  # fmt: skip
    options = {key: value for key, value in pipeline.config.items() if not key.startswith("_")
               and isinstance(value, (int, float))}  # fmt: skip
    scheduler = {key: str(value) for key, value in pipeline.scheduler.config.items() if not key.startswith("_")}
    return content_key(options, scheduler, *(part for key in sorted(state) for part in (key, state[key])))
