import pytest
import torch

from diffdyad.head import HeadModel
from diffdyad.motion import POSE_GROUPS, MotionLayout, MotionStats
from diffdyad.objective import VertexLoss, aperture_jacobian, count_valid, motion_losses
from diffdyad.rotation import compose

HEAD, NECK = (MotionLayout.arkit().groups.index(group) for group in ("global_orient", "neck_pose"))


@pytest.fixture(scope="module")
def parts():
    layout, head = MotionLayout.arkit(), HeadModel.clay()
    stats = MotionStats.for_layout(layout, 25.0).fit(torch.full((56,), 0.05), torch.full((56,), 0.1))
    return layout, head, stats, VertexLoss(head, layout)


def batch(seed=0, frames=12):
    generator = torch.Generator().manual_seed(seed)
    predicted, target = torch.randn(2, 3, frames, 56, generator=generator)
    valid = torch.rand(3, frames, 6, generator=generator) < 0.8
    valid[..., NECK] = valid[..., HEAD]  # a head without a neck has it folded in: a test of its own
    return predicted, target, valid


def test_counts_are_known_beforehand(parts):
    layout, _, stats, vertex = parts
    predicted, target, valid = batch()
    counted = motion_losses(predicted, target, valid, stats, vertex, predicted, predicted).counts
    expected = count_valid(valid, layout, vertex)
    assert {k: v.item() for k, v in counted.items()} == {k: v.item() for k, v in expected.items()}


def test_perfect_prediction_costs_nothing_and_invalid_entries_do_not_count(parts):
    layout, _, stats, vertex = parts
    predicted, target, valid = batch()
    assert all(v.item() == 0 for v in motion_losses(target, target, valid, stats, vertex).sums.values())
    mask = layout.group_to_channels(valid)
    changed = torch.where(mask, predicted, predicted + 100)
    one, two = (motion_losses(p, target, valid, stats, vertex).sums for p in (predicted, changed))
    for name in ("motion", "velocity"):
        assert torch.allclose(one[name], two[name])


def test_a_neck_folded_into_the_head_is_folded_in_the_prediction_too(parts):
    layout, _, stats, _ = parts
    predicted, target, valid = batch()
    valid[:] = True
    valid[1, :, NECK] = False
    raw, wanted = stats.restore(predicted), stats.restore(target)
    wanted[1, :, layout.slices["global_orient"]] = compose(
        layout.select(raw, "global_orient"), layout.select(raw, "neck_pose")
    )[1]
    target = torch.where(layout.group_to_channels(valid), stats.standardise(wanted), target)
    predicted.requires_grad_()
    losses = motion_losses(predicted, target, valid, stats)
    head = layout.slices["global_orient"]
    by_channels = (predicted[0] - target[0]).square().sum() + (predicted - target)[1, :, : head.start].square().sum()
    rest = [layout.slices[group] for group in layout.groups[HEAD + 1 :] if group != "neck_pose"]
    by_channels = by_channels + sum((predicted - target)[1, :, part].square().sum() for part in rest)
    by_channels = by_channels + (predicted[2] - target[2]).square().sum()
    assert torch.allclose(losses.sums["motion"], by_channels, rtol=1e-4)
    losses.sums["motion"].backward()
    assert predicted.grad.isfinite().all()


def test_padding_leaves_the_mean_unchanged(parts):
    _, _, stats, vertex = parts
    predicted, target, _ = batch()
    valid = torch.ones(3, 12, 6, dtype=torch.bool)
    pad = lambda x: torch.cat([x, torch.zeros_like(x)], 1)  # noqa: E731
    weights = {"motion": 1.0, "velocity": 1.0, "vertex": 1.0, "aperture": 1.0}
    short = motion_losses(predicted, target, valid, stats, vertex).total(weights)
    long = motion_losses(pad(predicted), pad(target), pad(valid) & (torch.arange(24) < 12)[:, None], stats, vertex)
    assert torch.allclose(short, long.total(weights), rtol=1e-5)


def test_points_are_the_head_with_its_jaw_alone(parts):
    layout, head, _, vertex = parts
    motion = torch.rand(1, 4, 56, generator=torch.Generator().manual_seed(1)) * 0.3
    motion[..., 56 - 6 :] = 0
    motion[..., 41:47] = 0
    motion[..., :41] *= 0.2  # the jaw's joint moves a little with strong expressions; here it is taken at rest
    _, opening = vertex.points(motion)
    poses = torch.cat([layout.select(motion, group) for group in POSE_GROUPS], -1)
    vertices = head(expression=motion[..., :41], poses=poses)
    sets = head.vertex_sets
    expected = 1000 * (vertices[..., sets["inner_lip_upper"], :] - vertices[..., sets["inner_lip_lower"], :])
    assert (opening.mT - expected).abs().max() < 0.25  # mm, of openings of some 20


def test_aperture_jacobian_predicts_the_opening(parts):
    layout, head, stats, _ = parts
    jacobian = aperture_jacobian(head, layout, stats)
    touched = jacobian.abs().sum(0)
    for group in ("global_orient", "neck_pose", "leye_pose", "reye_pose"):
        assert not touched[layout.slices[group]].any()
    assert (jacobian[:, layout.slices["jaw_pose"].start] > 0.03).all()  # metres per radian
    assert (jacobian[:, layout.channel("mouthClose")] < 0).all()
    assert touched[layout.channel("eyeBlinkLeft")] < 1e-4 * touched.max()


def test_a_nearly_shut_mouth_counts_most_in_what_speech_makes_one_expect(parts):
    """The same error of the opening, in millimetres squared, weighs 1 / (1 + opening / 3 mm)^2."""
    layout, _, stats, vertex = parts
    valid = torch.ones(1, 2, 6, dtype=torch.bool)
    raw = torch.zeros(2, 1, 2, 56)
    raw[1][..., layout.slices["jaw_pose"].start] = 0.3
    off = torch.zeros(56)
    off[layout.slices["jaw_pose"].start] = 1e-3
    shut, wide = (
        motion_losses(x, x, valid, stats, vertex, speech_forecast=stats.standardise(stats.restore(x) + off)).sums
        for x in stats.standardise(raw)
    )
    openings = [vertex.points(x)[1].norm(dim=-2).mean() for x in raw]
    weights = [(1 + opening / 3) ** -2 for opening in openings]
    found = shut["speech_aperture"] / wide["speech_aperture"]
    assert openings[1] > 10 and 0.5 * weights[0] / weights[1] < found < 2 * weights[0] / weights[1]
    assert set(motion_losses(raw[0], raw[0], valid, stats, vertex).sums) == {"motion", "velocity", "vertex", "aperture"}
