import pytest
import torch
from conftest import build_tiny_pipeline

from diffdyad.conditioning import Conditions, to_frames, to_tokens
from diffdyad.context import ABSENT, DROPPED, GIVEN, Context, collate

WIDTHS = {"audio": 512, "prosody": 16, "motion": 112}


def context(cells=10, end_s=-0.2, seed=0, rows=1) -> Context:
    generator = torch.Generator().manual_seed(seed)
    times = end_s - 0.1 - 0.2 * torch.arange(cells).flip(0)
    return Context(
        features={m: torch.randn(rows, cells, w, generator=generator) for m, w in WIDTHS.items()},
        valid={m: torch.ones(rows, cells, dtype=torch.bool) for m in WIDTHS},
        sentence=torch.zeros(rows, 0), sentence_valid=torch.zeros(rows, dtype=torch.bool),
        status={m: torch.full((rows,), GIVEN) for m in WIDTHS}, times_s=times.expand(rows, -1),
        mask=torch.ones(rows, cells, dtype=torch.bool), end_s=torch.full((rows,), end_s),
    )  # fmt: skip


def conditions(turn: Context, frames=20, start_s=0.0, horizon_s=None, speech_given=True, seed=1) -> Conditions:
    rows = len(turn)
    generator = torch.Generator().manual_seed(seed)
    yes = torch.ones(rows, dtype=torch.bool)
    return Conditions(
        speech=torch.randn(1, frames, 1, 256, generator=generator).expand(rows, -1, -1, -1),
        heard=torch.ones(rows, frames, dtype=torch.bool), speech_given=yes & speech_given, context=turn,
        style=torch.zeros(rows, 168), style_given=~yes, source=torch.zeros(rows, dtype=torch.long),
        start_s=torch.full((rows,), start_s), horizon_s=None if horizon_s is None else torch.full((rows,), horizon_s),
    )  # fmt: skip


DENOISER = build_tiny_pipeline().denoiser


@torch.no_grad()
def denoise(given: Conditions, prefix=0, noisy=None) -> torch.Tensor:
    rows, frames = given.speech.shape[:2]
    if noisy is None:
        noisy = torch.randn(1, frames, 56, generator=torch.Generator().manual_seed(2))
    mask = (torch.arange(frames) < prefix).expand(rows, -1)
    return DENOISER(noisy.expand(rows, -1, -1), torch.full((rows,), 500), given, mask)


def test_tokens_and_frames_invert():
    x = torch.randn(2, 8, 3)
    assert torch.equal(to_frames(to_tokens(x)), x)


def test_padding_of_the_context_changes_nothing():
    short, long = context(cells=5), context(cells=12, seed=3)
    padded = collate([short, long])
    alone = denoise(conditions(short))
    assert torch.allclose(denoise(conditions(padded))[:1], alone, atol=1e-5)


def test_dropped_content_and_times_are_not_seen():
    one, two = context(seed=0, end_s=-0.2).dropped(), context(seed=9, end_s=-3.0, cells=4).dropped()
    assert torch.allclose(denoise(conditions(one)), denoise(conditions(two)), atol=1e-5)


def test_absent_is_not_dropped():
    turn = context()
    absent = context()
    absent.status = {m: torch.full((1,), ABSENT) for m in WIDTHS}
    results = [denoise(conditions(c)) for c in (turn, turn.dropped(), absent)]
    assert all((a - b).abs().max() > 1e-4 for n, a in enumerate(results) for b in results[n + 1 :])


def test_each_modality_counts_and_drops_alone():
    turn = context()
    whole = denoise(conditions(turn))
    for name in WIDTHS:
        assert (denoise(conditions(turn.drop(name))) - whole).abs().max() > 1e-4
        assert turn.drop(name).status[name].item() == DROPPED and turn.status[name].item() == GIVEN


def test_what_lies_past_the_horizon_is_not_seen():
    early, late = context(cells=10, end_s=3.0), context(cells=10, end_s=3.0)
    for features in late.features.values():
        features[:, 6:] += 5  # cells after 3.0 - 4 * 0.2 = 2.2 s
    before = [denoise(conditions(c, horizon_s=2.15)) for c in (early, late)]
    after = [denoise(conditions(c, horizon_s=9.0)) for c in (early, late)]
    assert torch.equal(*before) and not torch.allclose(*after, atol=1e-3)


def test_dropped_speech_is_not_seen():
    one, two = (conditions(context(), speech_given=False, seed=s) for s in (1, 2))
    assert torch.equal(denoise(one), denoise(two))
    assert not torch.equal(denoise(conditions(context(), seed=1)), denoise(conditions(context(), seed=2)))


def test_unheard_frames_are_not_seen():
    one = conditions(context())
    one.heard[:, 12:] = False
    two = conditions(context())
    two.heard, two.speech = one.heard, two.speech.clone()
    two.speech[:, 12:] += 3
    assert torch.equal(denoise(one), denoise(two))


def test_only_time_differences_matter():
    here = denoise(conditions(context(end_s=-0.2), start_s=0.0))
    there = denoise(conditions(context(end_s=-0.2).shifted(7.0), start_s=7.0))
    assert torch.allclose(here, there, atol=1e-4)
    assert not torch.allclose(here, denoise(conditions(context(end_s=-0.2), start_s=2.0)), atol=1e-3)


def test_the_prefix_mask_is_seen():
    given = conditions(context())
    assert not torch.allclose(denoise(given), denoise(given, prefix=6), atol=1e-4)


@pytest.mark.parametrize("trunk", ["context", "speech"])
def test_a_forecast_knows_its_condition_alone_and_learns_by_its_own_loss(trunk):
    frames, turn = 20, context(rows=1)
    prefix = torch.zeros(1, frames, dtype=torch.bool)
    network = build_tiny_pipeline().denoiser
    head = getattr(network, f"{trunk}_trunk").forecast.weight
    torch.nn.init.normal_(head)

    def run(seed, given):
        noisy = torch.randn(1, frames, 56, generator=torch.Generator().manual_seed(seed))
        predicted = network(noisy, torch.full((1,), 500), given, prefix, return_forecasts=True)
        return predicted.motion, getattr(predicted, f"{trunk}_forecast")

    motion, forecast = run(0, conditions(turn, seed=3))
    other_turn, other_speech = conditions(context(seed=7), seed=3), conditions(turn, seed=5)
    unrelated, related = (other_speech, other_turn) if trunk == "context" else (other_turn, other_speech)
    other, same = run(1, unrelated)
    assert torch.equal(forecast, same) and not torch.equal(motion, other)
    assert not torch.allclose(forecast, run(0, related)[1])
    motion.sum().backward(retain_graph=True)
    assert head.grad is None
    forecast.sum().backward()
    assert head.grad.abs().sum() > 0 and network.motion_in.weight.grad.abs().sum() > 0
