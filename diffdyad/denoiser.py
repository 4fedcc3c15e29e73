"""The network: clean motion from noisy motion, the responder's own speech, and the previous turn.

Shapes: B batch, T frames, N tokens (two frames each), D motion channels, C width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from diffdyad.conditioning import (
    FRAMES_PER_TOKEN,
    Conditions,
    ContextMemory,
    ContextTrunk,
    SpeechMemory,
    SpeechTrunk,
    StyleTrunk,
    to_frames,
    to_tokens,
)
from diffdyad.layers import DenoiserBlock, Rotary, RotaryTime, SinusoidalEmbedding


@dataclass
class EncodedConditions:
    """Conditions after the trunks: computed once, used at every denoising step."""

    speech: SpeechMemory
    context: ContextMemory
    condition: Tensor
    rotary: Rotary


@dataclass
class Prediction:
    """Clean, standardised motion (B, T, D), float32; and what the previous turn alone, and the responder's speech
    alone, make one expect, likewise."""

    motion: Tensor
    context_forecast: Tensor
    speech_forecast: Tensor


OF_SPEECH = "speech_trunk."
OF_SPEECH_FEATURES = (OF_SPEECH + "project.", OF_SPEECH + "layer_logits")
"""How the names of weights begin that read own speech, and of those among them that fit one kind of its features."""


class MotionDenoiser(ModelMixin, ConfigMixin):
    """Transformer that predicts clean, standardised motion (`prediction_type="sample"`).

    `speech_width`, `speech_layers`: features per frame and layers of the speech encoder;
    `context_widths`: features of every context modality that the model takes; `num_sources`: datasets
    and trackers told apart in training (0 is "not told").
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        motion_dim: int = 56,
        fps: float = 25.0,
        width: int = 256,
        num_heads: int = 4,
        depth: int = 6,
        speech_depth: int = 3,
        context_depth: int = 2,
        speech_reach_s: float = 1.0,
        speech_width: int = 256,
        speech_layers: int = 1,
        context_widths: dict[str, int] | None = None,
        num_sources: int = 8,
    ):
        super().__init__()
        context_widths = dict(context_widths or {"audio": 512, "prosody": 16, "motion": 2 * motion_dim, "text": 384})
        self.motion_in = nn.Linear(FRAMES_PER_TOKEN * (motion_dim + 1), width)
        self.speech_trunk = SpeechTrunk(
            speech_width, speech_layers, width, num_heads, speech_depth, speech_reach_s, motion_dim
        )
        self.context_trunk = ContextTrunk(context_widths, width, num_heads, context_depth, motion_dim)
        self.forecast_in = nn.Linear(motion_dim, width, bias=False)
        self.style_trunk = StyleTrunk(motion_dim, width)
        self.source = nn.Embedding(num_sources, width)
        self.rotary = RotaryTime(width // num_heads)
        self.noise_level = SinusoidalEmbedding(width)
        self.modulation = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(DenoiserBlock(width, num_heads, gate_width=width) for _ in range(depth))
        self.out_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.out_modulation = nn.Linear(width, 2 * width)
        self.motion_out = nn.Linear(width, FRAMES_PER_TOKEN * motion_dim)
        nn.init.normal_(self.source.weight, std=0.02)
        for layer in (self.modulation, self.out_modulation, self.motion_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def times_s(self, start_s: Tensor, num_frames: int) -> Tensor:
        """Centres of the motion tokens, (B, N) seconds on the exchange's clock."""
        step = FRAMES_PER_TOKEN / self.config.fps
        first = start_s.float() + (FRAMES_PER_TOKEN - 1) / 2 / self.config.fps
        return first[:, None] + step * torch.arange(num_frames // FRAMES_PER_TOKEN, device=start_s.device)

    def encode(self, conditions: Conditions) -> EncodedConditions:
        """Runs the trunks. The number of frames must be even."""
        num_frames = conditions.speech.shape[1]
        times = self.times_s(conditions.start_s, num_frames)
        dtype = self.dtype
        speech = self.speech_trunk(conditions.speech.to(dtype), conditions.heard, times, conditions.speech_given)
        context = self.context_trunk(conditions.context, times, conditions.horizon_s)
        style = self.style_trunk(conditions.style, conditions.style_given)
        return EncodedConditions(speech, context, style + self.source(conditions.source), self.rotary(times))

    def forward(
        self, noisy_motion: Tensor, timestep: Tensor, conditions: Conditions | EncodedConditions, prefix_mask: Tensor,
        return_forecasts: bool = False,
    ) -> Tensor | Prediction:
        """Clean motion from noisy; conditions may be encoded beforehand, for use at several steps.

        noisy_motion: (B, T, D) standardised, with given first frames in place where prefix_mask (B, T)
        is True; timestep: (B,) of the noise scheduler. -> (B, T, D), float32; with `return_forecasts` also
        what the trunks expect.
        """
        num_frames = noisy_motion.shape[1]
        if num_frames % FRAMES_PER_TOKEN:
            raise ValueError(f"expected an even number of frames, got {num_frames}")
        encoded = self.encode(conditions) if isinstance(conditions, Conditions) else conditions
        frames = torch.cat([noisy_motion, prefix_mask[..., None].to(noisy_motion.dtype)], -1)
        speech = encoded.speech.tokens
        x = self.motion_in(to_tokens(frames).to(self.motion_in.weight.dtype)) + speech
        condition = self.noise_level(timestep) + encoded.condition
        modulation = self.modulation(F.silu(condition))
        context = encoded.context
        # as it is: the forecast learns from its own loss only, and stays what the turn alone makes one expect
        x = x + self.forecast_in(context.forecast.detach())
        for block in self.blocks:
            x = block(
                x, encoded.rotary, modulation, speech,
                context.tokens, context.rotary, context.mask[:, None], context.gate,
            )
        shift, scale = self.out_modulation(F.silu(condition))[:, None].chunk(2, -1)
        x = self.out_norm(x) * (1 + scale) + shift
        motion = to_frames(self.motion_out(x)).float()
        if return_forecasts:
            expected = context.forecast.repeat_interleave(FRAMES_PER_TOKEN, 1)
            return Prediction(motion, expected.float(), encoded.speech.forecast.float())
        return motion
