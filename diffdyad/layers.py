"""Building blocks of the networks: attention with rotary time in seconds, and adaptive layer norm.

Shapes: B batch, N tokens, M memory tokens, H heads, C width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def rotary_frequencies(head_dim: int, shortest_s: float = 0.1, longest_s: float = 120.0, device=None) -> Tensor:
    """Angular frequencies (head_dim / 2,) in rad/s, periods in geometric progression between the two.

    Positions are seconds, not indices, so one weight serves every frame rate and context rate.
    Source: Su et al. 2021 (RoFormer), section 3.2, with periods chosen for conversation.
    """
    count = head_dim // 2
    periods = torch.logspace(math.log10(shortest_s), math.log10(longest_s), count, device=device)
    return 2 * math.pi / periods


@dataclass
class Rotary:
    """Rotations of some tokens' times, ready to apply: cosine and sine, (B, 1, N, head_dim / 2) each.

    Computed once per set of tokens and shared by all layers.
    """

    cosine: Tensor
    sine: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Rotates the first half of the features against the second; x: (B, H, N, head_dim).

        The product of two rotated vectors depends on the lag between their times only.
        """
        first, second = x.chunk(2, -1)
        cosine, sine = self.cosine.to(x.dtype), self.sine.to(x.dtype)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


class RotaryTime(nn.Module):
    """Makes `Rotary` tables from times in seconds."""

    def __init__(self, head_dim: int):
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"expected an even head size, got {head_dim}")
        self.head_dim = head_dim

    def forward(self, times_s: Tensor) -> Rotary:
        """times_s: (B, N). The frequencies are no buffer: half precision must not touch them."""
        angle = times_s[:, None, :, None].float() * rotary_frequencies(self.head_dim, device=times_s.device)
        return Rotary(angle.cos(), angle.sin())


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention; (B, H, N, d) each, mask broadcastable to (B, H, N, M), True = may attend.

    On the CPU, plain matrix products: with the some hundred tokens of a window they take two thirds of
    the training step that the fused kernel takes.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = (query * query.shape[-1] ** -0.5) @ key.mT
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1).to(value.dtype) @ value


class Attention(nn.Module):
    """Multi-head attention whose scores know the signed lag in seconds between query and key."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        if width % num_heads:
            raise ValueError(f"expected a width that its heads divide, got {width} over {num_heads} heads")
        self.num_heads = num_heads
        self.to_query = nn.Linear(width, width, bias=False)
        self.to_key_value = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, rotary: Rotary, memory: Tensor | None = None, memory_rotary: Rotary | None = None,
        mask: Tensor | None = None, head_gate: Tensor | None = None,
    ) -> Tensor:
        """x: (B, N, C); memory: (B, M, C), or x itself; mask: (B, 1 or N, M), True = may attend;
        head_gate: (B, N, H) scales every head's result."""
        if memory is None:
            memory, memory_rotary = x, rotary
        query = rearrange(self.to_query(x), "b n (h d) -> b h n d", h=self.num_heads)
        key, value = rearrange(self.to_key_value(memory), "b m (two h d) -> two b h m d", two=2, h=self.num_heads)
        out = attend(rotary(query), memory_rotary(key), value, None if mask is None else mask[:, None])
        if head_gate is not None:
            out = out * rearrange(head_gate, "b n h -> b h n 1").to(out.dtype)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


class FeedForward(nn.Sequential):
    def __init__(self, width: int, expansion: int = 4):
        super().__init__(
            nn.Linear(width, expansion * width), nn.GELU(approximate="tanh"), nn.Linear(expansion * width, width)
        )


class EncoderBlock(nn.Module):
    """Pre-norm self-attention and feed-forward, for what is computed once per sample."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)

    def forward(self, x: Tensor, rotary: Rotary, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, C); mask: (B, N or 1, N), True = may attend."""
        x = x + self.attention(self.attention_norm(x), rotary, mask=mask)
        return x + self.feed_forward(self.feed_forward_norm(x))


class SinusoidalEmbedding(nn.Module):
    """A scalar as sines and cosines, then a small network: (B, ...) -> (B, ..., C)."""

    def __init__(self, width: int, num_frequencies: int = 64, longest_period: float = 10_000.0):
        super().__init__()
        self.num_frequencies, self.longest_period = num_frequencies, longest_period
        self.project = nn.Sequential(nn.Linear(2 * num_frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, value: Tensor) -> Tensor:
        exponent = torch.arange(self.num_frequencies, device=value.device) / self.num_frequencies
        angle = value[..., None].float() * self.longest_period**-exponent
        features = torch.cat([angle.cos(), angle.sin()], -1)
        return self.project(features.to(self.project[0].weight.dtype))


class DenoiserBlock(nn.Module):
    """Self-attention, gated cross-attention to the context, and feed-forward, modulated by AdaLN.

    The modulation starts at zero, so a new network passes its input through (Peebles and Xie 2023, DiT,
    adaLN-Zero); one modulation serves all blocks, each adding a bias of its own (Chen et al. 2023,
    PixArt-alpha), which saves a quarter of the weights. The gate on the context starts at zero as well
    and depends on the time since the previous turn ended, so that its influence can fade as the answer
    goes on.
    """

    def __init__(self, width: int, num_heads: int, gate_width: int):
        super().__init__()
        self.modulation_bias = nn.Parameter(torch.zeros(6 * width))
        self.attention_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = Attention(width, num_heads)
        self.from_speech = nn.Linear(width, width)
        self.context_norm = nn.LayerNorm(width)
        self.context_attention = Attention(width, num_heads)
        self.context_gate = nn.Linear(gate_width, num_heads)
        self.feed_forward_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.feed_forward = FeedForward(width)
        nn.init.zeros_(self.context_gate.weight)
        nn.init.zeros_(self.context_gate.bias)

    def forward(
        self, x: Tensor, rotary: Rotary, modulation: Tensor, speech: Tensor,
        context: Tensor, context_rotary: Rotary, context_mask: Tensor, gate: Tensor,
    ) -> Tensor:
        """x, speech: (B, N, C); modulation: (B, 6 C), shared by all blocks; context: (B, M, C);
        context_mask: (B, 1, M); gate: (B, N, G)."""
        modulation = (modulation + self.modulation_bias)[:, None]
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = modulation.chunk(6, -1)
        attended = self.attention_norm(x) * (1 + scale_a) + shift_a
        x = x + gate_a * self.attention(attended, rotary)
        x = x + self.from_speech(speech)
        x = x + self.context_attention(
            self.context_norm(x), rotary, context, context_rotary, context_mask, self.context_gate(gate)
        )
        return x + gate_f * self.feed_forward(self.feed_forward_norm(x) * (1 + scale_f) + shift_f)
