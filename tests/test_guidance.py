import pytest
import torch

from diffdyad.guidance import APART, SHUT, ArticulationGuard, Guidance, LipsOfSpeech, aperture_basis, presence

SHAPE = (2, 9, 6)


@pytest.fixture
def outputs():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(SHAPE, generator=generator) for name in ("none", "audio", "full")}


def guided(outputs, context, audio, has_context=True, guard=None):
    scales = Guidance(context, audio, has_context)
    return scales.combine({name: outputs[name] for name in scales.branches}, guard=guard)


def test_scale_one_is_the_conditional_model_to_the_byte(outputs):
    assert guided(outputs, 1, 1) is outputs["full"]


def test_scale_zero_is_no_context_to_the_byte(outputs):
    for audio in (0.0, 1.0, 1.7):
        assert torch.equal(guided(outputs, 0, audio), guided(outputs, 3.0, audio, has_context=False))
    assert guided(outputs, 0, 1) is outputs["audio"]
    assert guided(outputs, 0, 0) is outputs["none"]


@pytest.mark.parametrize(
    "context, audio, branches", [(2, 1, ("audio", "full")), (0.5, 0.5, ("none", "full")), (1, 1, ("full",))]
)
def test_branches_without_weight_are_not_evaluated(context, audio, branches):
    assert Guidance(context, audio).branches == branches


def test_general_case_is_the_nested_formula(outputs):
    none, audio, full = outputs["none"], outputs["audio"], outputs["full"]
    expected = none + 1.3 * (audio - none) + 2.5 * (full - audio)
    assert torch.allclose(guided(outputs, 2.5, 1.3), expected, atol=1e-5)


def test_guard_gives_the_lips_of_the_answer_at_scale_one_while_speaking_only(outputs):
    generator = torch.Generator().manual_seed(1)
    jacobian = torch.randn(2, 6, generator=generator)
    jacobian[:, 4:] = 0  # channels that do not touch the lips
    std = torch.rand(6, generator=generator) + 0.5
    basis = aperture_basis(jacobian, std)
    assert torch.allclose(basis @ basis.mT, torch.eye(2), atol=1e-5)
    speaking = torch.zeros(1, 9, 1)
    speaking[:, :5] = 1
    spoken = torch.randn(SHAPE, generator=generator)
    guards = (None, ArticulationGuard(basis, speaking, spoken))
    free, held = (guided(outputs, 3.0, 1.0, guard=guard) for guard in guards)
    aperture = (jacobian * std).mT
    assert torch.allclose((held @ aperture)[:, :5], (spoken @ aperture)[:, :5], atol=1e-4)
    assert torch.allclose(held[:, 5:], free[:, 5:], atol=1e-5)
    assert torch.allclose(held[..., 4:], free[..., 4:], atol=1e-5)  # the rest of the face is guided in full
    assert not torch.allclose(held[:, :5], free[:, :5], atol=1e-2)


def test_guard_leaves_scales_up_to_one_alone(outputs):
    guard = ArticulationGuard(torch.eye(6)[:2], torch.ones(1, 9, 1), torch.zeros(SHAPE))
    for scale in (0.0, 0.5, 1.0):
        assert torch.equal(guided(outputs, scale, 1.0, guard=guard), guided(outputs, scale, 1.0))


def test_guard_holds_outside_the_interval_too(outputs):
    guard = ArticulationGuard(torch.eye(6)[:2], torch.ones(1, 9, 1), torch.zeros(SHAPE))
    scales = Guidance(3.0, interval=(0.2, 0.8))
    held = scales.combine({name: outputs[name] for name in scales.branches}, level=0.9, guard=guard)
    assert torch.equal(held[..., 2:], outputs["full"][..., 2:])
    assert torch.allclose(held[..., :2], torch.zeros(2), atol=1e-6)


def test_guard_made_longer_is_silent_there():
    guard = ArticulationGuard(torch.eye(6)[:2], torch.ones(4, 1), torch.ones(2, 4, 6)).to(torch.device("cpu"), 9)
    clean = torch.full(SHAPE, 3.0)
    held = guard.hold(clean)
    assert torch.equal(held[:, 4:], clean[:, 4:])
    assert torch.allclose(held[:, :4, :2], torch.ones(2))


def test_audio_branch_is_there_though_it_cancels():
    # audio scale equal to the context scale drops the audio branch from the sum, but what the context adds needs it
    assert "audio" in Guidance(2.0, 2.0).branches


@pytest.mark.parametrize("audio", [1.0, 2.0, 3.0])
def test_outside_the_interval_the_scale_is_one(outputs, audio):
    scales = Guidance(3.0, audio, interval=(0.2, 0.8))
    there = {name: outputs[name] for name in scales.branches}
    assert torch.equal(scales.combine(there, level=0.9), guided(outputs, 1.0, audio))
    assert torch.equal(scales.combine(there, level=0.5), guided(outputs, 3.0, audio))
    weak = Guidance(0.0, audio, interval=(0.2, 0.8))
    assert torch.equal(weak.combine(outputs, level=0.9), guided(outputs, 0.0, audio))


def test_presence_fades_the_part_beyond_one(outputs):
    there = presence(torch.tensor([-3.0, 2.0, 6.0, 9.0, 12.0, 60.0]), 6.0, 12.0)
    assert torch.allclose(there, torch.tensor([1.0, 1.0, 1.0, 0.5, 0.0, 0.0]), atol=1e-6)
    faded = Guidance(3.0).combine(outputs, presence=torch.cat([torch.ones(4), torch.zeros(5)])[:, None])
    assert torch.equal(faded[:, 4:], outputs["full"][:, 4:])
    assert torch.allclose(faded[:, :4], guided(outputs, 3.0, 1.0)[:, :4])


def test_lips_close_as_expected_along_their_directions_alone(outputs):
    clean, expected = outputs["none"], outputs["audio"].clone()
    slope = torch.tensor([2.0, 0, 0, 0, 0, 0])
    opening = torch.tensor([0.0, -1.0, 2.0, 4.0, 9.0, 0.0, 0.0, 0.0, 0.0])
    expected[..., 0] = (opening - 3) / 2  # millimetres: 2 a unit, and 3 of a motion of zeros
    where = torch.tensor([1.0, 1, 1, 1, 1, 0, 0, 0.5, 1])
    shut = LipsOfSpeech.of(torch.eye(6)[:2], expected, slope, 3.0, 4.0, 0.0, where, torch.ones(9)).hold(clean)
    assert torch.equal(shut[..., 2:], clean[..., 2:])  # what does not move the lips
    share = torch.tensor([1.0, 1, 0.5, 0, 0, 0, 0, 0.5, 1])[:, None]
    assert torch.allclose(shut[..., :2], clean[..., :2] + share * (expected - clean)[..., :2])
    assert torch.equal(shut[:, 3:7], clean[:, 3:7])


def test_lips_are_apart_where_they_are_expected_so():
    """Of shut lips, by a share of how wide they open; those that are further apart stay; nothing else moves."""
    slope, rest_mm, parting = torch.tensor([1.5, -0.5, 0.0, 0.0, 0.7]), 2.0, 0.2
    basis = torch.eye(5)[:4]  # the last channel opens the lips, too, but is left alone
    way = torch.tensor([1.5, -0.5, 0, 0, 0])
    wide = torch.linspace(0, 20, 201)  # millimetres that are expected; their 95th percentile: 19
    expected = ((wide - rest_mm)[:, None] * way / (way @ slope)).expand(2, -1, -1)
    clean = torch.randn(2, 201, 5, generator=torch.Generator().manual_seed(0))
    where, voiced = torch.ones(201), torch.ones(201)
    where[150:] = 0
    voiced[140:150] = 0
    held = LipsOfSpeech.of(basis, expected, slope, rest_mm, 0.0, parting, where, voiced).hold(clean)
    before, after = clean @ slope + rest_mm, held @ slope + rest_mm
    usual = torch.quantile(wide[:150], 0.95)
    apart, least = ((wide / usual - SHUT) / (APART - SHUT)).clamp(0, 1) * where * voiced, parting * usual
    assert torch.allclose(after, before + apart * (least - before).clamp_min(0), atol=1e-4)
    assert (after[:, 30:140] > least - 1e-4).all() and (after > before).any()
    assert torch.equal(held[:, 140:], clean[:, 140:])
    assert torch.equal(held[before >= least], clean[before >= least])
    assert torch.equal(held[..., 2:], clean[..., 2:])
    none = LipsOfSpeech.of(basis, expected, slope, rest_mm, 0.0, 0.0, where, voiced).hold(clean)
    assert torch.allclose(none, clean)
