"""What the network learns of its conditions: trunks for own speech, the previous turn, and style.

Each is computed once per sample, whatever the number of denoising steps. Every condition has two
learned embeddings beside its content: *dropped* (not given) and, for the context, *absent* (known not
to exist). Shapes: B batch, T frames, N tokens, C width.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from einops import rearrange
from torch import Tensor, nn

from diffdyad.context import GIVEN, MODALITIES, Context
from diffdyad.layers import Attention, EncoderBlock, Rotary, RotaryTime, SinusoidalEmbedding

FRAMES_PER_TOKEN = 2
"""Two frames share a token: half the attention's length for 80 ms of delay inside a window."""


def to_tokens(frames: Tensor) -> Tensor:
    """(B, T, C) -> (B, T / 2, 2 C); T must be even."""
    return rearrange(frames, "b (n p) c -> b n (p c)", p=FRAMES_PER_TOKEN)


def to_frames(tokens: Tensor) -> Tensor:
    """The inverse of `to_tokens`."""
    return rearrange(tokens, "b n (p c) -> b (n p) c", p=FRAMES_PER_TOKEN)


@dataclass
class Conditions:
    """Everything that the motion of one window depends on.

    speech: (B, T, L, C_in) features of the responder's own audio; heard: (B, T), False = unknown or
    outside the recording; speech_given: (B,); context: the previous turn; style: (B, 3 D), style_given:
    (B,); source: (B,) index of the dataset or tracker, 0 = not told; start_s: (B,) time of the first
    frame on the exchange's clock; horizon_s: (B,) the latest moment that has been heard, or None.
    """

    speech: Tensor
    heard: Tensor
    speech_given: Tensor
    context: Context
    style: Tensor
    style_given: Tensor
    source: Tensor
    start_s: Tensor
    horizon_s: Tensor | None = None

    def to(self, device) -> Conditions:
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return Conditions(**{k: v if v is None else v.to(device) for k, v in moved.items()})


@dataclass
class ContextMemory:
    """Encoded context for cross-attention: tokens (B, M, C), the rotary of their times, mask (B, M), gate (B, N, G).

    `gate` holds, for every motion token, features of the time since the turn ended; `forecast` (B, N, D) the motion
    that the turn alone makes one expect there."""

    tokens: Tensor
    rotary: Rotary
    mask: Tensor
    gate: Tensor
    forecast: Tensor


@dataclass
class SpeechMemory:
    """Encoded speech: tokens (B, N, C), and the motion (B, T, D) that the speech alone makes one expect."""

    tokens: Tensor
    forecast: Tensor


class ResidualConvolution(nn.Sequential):
    """Group norm, a convolution over five frames and one over channels, to be added to what came in; (B, C, T)."""

    def __init__(self, width: int):
        super().__init__(
            nn.GroupNorm(1, width), nn.GELU(approximate="tanh"), nn.Conv1d(width, width, 5, padding=2),
            nn.GELU(approximate="tanh"), nn.Conv1d(width, width, 1),
        )  # fmt: skip


class SpeechTrunk(nn.Module):
    """Own speech: learned mix of the encoder's layers, convolutions, windowed self-attention.

    From its tokens alone the motion is forecast, trained by losses of its own. At most noise levels the noisy lips
    tell more about the clean ones than speech does, so the denoiser's loss alone teaches the trunk little: strangers'
    lips closed at 20 points above chance where a small network trained on the opening alone reached 32.
    """

    def __init__(
        self, feature_width: int, num_layers: int, width: int, num_heads: int, depth: int, reach_s: float,
        motion_dim: int,
    ):
        super().__init__()
        self.reach_s = reach_s
        self.layer_logits = nn.Parameter(torch.zeros(num_layers))
        self.project = nn.Linear(feature_width, width)
        self.unheard = nn.Parameter(0.02 * torch.randn(width))
        self.convolutions = nn.ModuleList(ResidualConvolution(width) for _ in range(4))
        self.merge = nn.Linear(FRAMES_PER_TOKEN * width, width)
        self.blocks = nn.ModuleList(EncoderBlock(width, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.rotary = RotaryTime(width // num_heads)
        self.dropped = nn.Parameter(0.02 * torch.randn(width))
        self.forecast = nn.Linear(width, FRAMES_PER_TOKEN * motion_dim)
        nn.init.zeros_(self.forecast.weight)
        nn.init.zeros_(self.forecast.bias)

    def forward(self, features: Tensor, heard: Tensor, times_s: Tensor, given: Tensor) -> SpeechMemory:
        """features: (B, T, L, C_in); heard: (B, T), False = not yet known or outside the recording;
        times_s: (B, N) of the tokens; given: (B,), False = condition dropped."""
        mixed = torch.einsum("btlc,l->btc", features, self.layer_logits.softmax(0).to(features.dtype))
        x = torch.where(heard[..., None], self.project(mixed), self.unheard.to(mixed.dtype))
        x = rearrange(x, "b t c -> b c t")
        for convolution in self.convolutions:
            x = x + convolution(x)
        x = self.merge(to_tokens(rearrange(x, "b c t -> b t c")))
        rotary = self.rotary(times_s)
        near = (times_s[:, :, None] - times_s[:, None, :]).abs() <= self.reach_s
        for block in self.blocks:
            x = block(x, rotary, near)
        tokens = torch.where(given[:, None, None], self.norm(x), self.dropped.to(x.dtype))
        return SpeechMemory(tokens, to_frames(self.forecast(tokens)))


class ContextTrunk(nn.Module):
    """The previous turn: modalities added up per cell, self-attention over cells, status and sink tokens.

    Summary tokens, one per modality, say whether it is given, dropped or absent, and carry its mean; a
    sink token is there to attend to when nothing matters.

    From the tokens alone, the motion is forecast at every moment asked for, trained by a loss of its own. Without
    it the gated attention has nothing worth opening for: a reaction explains a few percent of the motion, so at
    first the tokens are noise, the network learns to silence them (after 1,500 steps they had shrunk to 0.02
    deviations), and a closed gate in front of silenced tokens passes no gradient. The forecast finds the reaction
    within a hundred steps.
    """

    def __init__(self, widths: dict[str, int], width: int, num_heads: int, depth: int, motion_dim: int):
        super().__init__()
        # in one order for ever: a config read back from JSON has its keys sorted
        self.modalities = tuple(sorted(widths, key=MODALITIES.index))
        self.cells = nn.ModuleDict({m: nn.Linear(size, width) for m, size in widths.items()})
        self.summaries = nn.ModuleDict({m: nn.Linear(size, width) for m, size in widths.items()})
        self.sentence = nn.Linear(widths["text"], width) if "text" in widths else None
        self.status = nn.Parameter(0.02 * torch.randn(len(widths), 3, width))
        self.summary_times_s = nn.Parameter(torch.zeros(len(widths)))
        self.sink = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = nn.ModuleList(EncoderBlock(width, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)  # so that tokens cannot be silenced
        self.rotary = RotaryTime(width // num_heads)
        self.forecast_attention = Attention(width, num_heads)
        self.forecast_norm = nn.LayerNorm(width)
        self.forecast = nn.Linear(width, motion_dim)
        nn.init.zeros_(self.forecast.weight)
        nn.init.zeros_(self.forecast.bias)
        self.elapsed = SinusoidalEmbedding(width, 32, 100.0)
        self.elapsed_unknown = nn.Parameter(0.02 * torch.randn(width))

    def forward(self, context: Context, times_s: Tensor, horizon_s: Tensor | None = None) -> ContextMemory:
        """times_s: (B, N) of the motion tokens; horizon_s: (B,), nothing later than this has been heard."""
        dtype = self.sink.dtype
        batch = len(context)
        end_s, visible, whole = context.end_s, context.mask, torch.ones_like(context.sentence_valid)
        if horizon_s is not None:
            visible = visible & (context.times_s <= horizon_s[:, None])
            whole = end_s <= horizon_s
            end_s = torch.minimum(end_s, horizon_s)

        cells, anything, summary_tokens = 0.0, torch.zeros_like(visible), []
        for index, name in enumerate(self.modalities):
            status = context.status[name]
            used = context.valid[name] & visible & (status == GIVEN)[:, None]
            features = context.features[name].to(dtype)
            cells = cells + self.cells[name](features) * used[..., None]
            anything = anything | used
            mean = (features * used[..., None]).sum(1) / used.sum(1).clamp_min(1)[:, None]
            token = self.status[index][status] + self.summaries[name](mean) * used.any(1)[:, None]
            if name == "text":
                said = context.sentence_valid & whole & (status == GIVEN)
                token = token + self.sentence(context.sentence.to(dtype)) * said[:, None]
            summary_tokens.append(token)

        statuses = torch.stack([context.status[m] for m in self.modalities], -1)
        given = (statuses == GIVEN).any(-1)
        # without a turn there is no end to count from: neutral times, the same in training and sampling
        centre_s = times_s.mean(1)
        reference_s = torch.where(given, end_s, centre_s)
        summary_times_s = reference_s[:, None] + self.summary_times_s * given[:, None]
        sink = self.sink.expand(batch, 1, -1)
        tokens = torch.cat([sink, torch.stack(summary_tokens, 1), cells], 1)
        token_times_s = torch.cat([reference_s[:, None], summary_times_s, context.times_s], 1)
        always = torch.ones(batch, 1 + len(self.modalities), dtype=torch.bool, device=tokens.device)
        mask = torch.cat([always, anything], 1)
        rotary = self.rotary(token_times_s)
        for block in self.blocks:
            tokens = block(tokens, rotary, mask[:, None])

        elapsed = self.elapsed(10 * torch.asinh(times_s - end_s[:, None]))
        gate = torch.where(given[:, None, None], elapsed, self.elapsed_unknown.to(elapsed.dtype))
        tokens = self.norm(tokens)
        recalled = self.forecast_attention(gate, self.rotary(times_s), tokens, rotary, mask[:, None])
        return ContextMemory(tokens, rotary, mask, gate, self.forecast(self.forecast_norm(gate + recalled)))


class StyleTrunk(nn.Module):
    """The responder's habitual face, from the statistics of another clip of the same person."""

    def __init__(self, motion_dim: int, width: int):
        super().__init__()
        self.project = nn.Sequential(nn.Linear(3 * motion_dim, width), nn.SiLU(), nn.Linear(width, width))
        self.dropped = nn.Parameter(torch.zeros(width))

    def forward(self, style: Tensor, given: Tensor) -> Tensor:
        """style: (B, 3 D) from `style_features`; given: (B,). -> (B, C)"""
        return torch.where(given[:, None], self.project(style.to(self.dropped.dtype)), self.dropped)


def style_features(standardised: Tensor) -> Tensor:
    """Mean, standard deviation and mean speed of each channel of a standardised clip: (T, D) -> (3 D,)."""
    speed = standardised.diff(dim=0).abs().mean(0) if len(standardised) > 1 else torch.zeros_like(standardised[0])
    return torch.cat([standardised.mean(0), standardised.std(0, correction=0), 4 * speed])


