import pytest
import torch

from diffdyad.layers import Attention, DenoiserBlock, Rotary, RotaryTime, attend, rotary_frequencies


def tables(times, head_dim=8) -> Rotary:
    return RotaryTime(head_dim)(times)


def test_attention_scores_depend_on_the_lag_alone():
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 8, generator=generator)
    score = lambda t, s: (tables(torch.tensor([[t]]))(query) * tables(torch.tensor([[s]]))(key)).sum()  # noqa: E731
    assert torch.allclose(score(1.0, 0.3), score(11.0, 10.3), atol=1e-4)
    assert not torch.allclose(score(1.0, 0.3), score(0.3, 1.0), atol=1e-2)  # the lag's sign counts


def test_rotation_keeps_lengths_and_is_identity_at_zero():
    x = torch.randn(1, 2, 3, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(tables(torch.zeros(1, 3))(x), x)
    turned = tables(torch.tensor([[0.1, 5.0, -40.0]]))(x)
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5)


def test_frequencies_span_the_periods():
    periods = 2 * torch.pi / rotary_frequencies(16)
    assert torch.allclose(periods[[0, -1]], torch.tensor([0.1, 120.0]), rtol=1e-4)


def test_plain_attention_is_the_library_s():
    query, key, value = torch.randn(3, 2, 4, 7, 8, generator=torch.Generator().manual_seed(2))
    mask = torch.rand(2, 1, 7, 7, generator=torch.Generator().manual_seed(3)) < 0.7
    mask |= torch.eye(7, dtype=torch.bool)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert torch.allclose(attend(query, key, value, mask), expected, atol=1e-6)


def test_masked_memory_has_no_influence():
    attention = Attention(16, 2)
    x, memory = torch.randn(1, 3, 16), torch.randn(1, 5, 16)
    rotary, memory_rotary = tables(torch.zeros(1, 3)), tables(torch.arange(5.0)[None])
    mask = torch.tensor([[[True, True, True, False, False]]])
    out = attention(x, rotary, memory, memory_rotary, mask)
    memory[:, 3:] += 10
    assert torch.equal(out, attention(x, rotary, memory, memory_rotary, mask))


def test_a_new_block_ignores_the_context():
    block = DenoiserBlock(16, 2, gate_width=16)
    x, speech = torch.randn(2, 1, 4, 16)
    rotary, other = tables(torch.zeros(1, 4)), tables(torch.zeros(1, 5))
    mask = torch.ones(1, 1, 5, dtype=torch.bool)
    run = lambda context: block(x, rotary, torch.zeros(1, 96), speech, context, other, mask, torch.randn(1, 4, 16))  # noqa: E731
    zero_gate = block.context_attention.to_out.bias
    assert torch.allclose(run(torch.randn(1, 5, 16)), run(torch.randn(1, 5, 16)), atol=1e-6), zero_gate


def test_head_sizes_are_checked():
    with pytest.raises(ValueError, match="width"):
        Attention(10, 3)
    with pytest.raises(ValueError, match="even"):
        RotaryTime(5)
