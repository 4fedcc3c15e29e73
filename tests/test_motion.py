import math

import numpy as np
import pytest
import torch

from diffdyad import rotation
from diffdyad.errors import UserError
from diffdyad.motion import (
    ARKIT_EXPRESSIONS,
    Motion,
    MotionLayout,
    MotionStats,
    load_motion,
    motion_arrays,
    save_motion,
)


def random_motion(frames=50, fps=25.0, seed=0):
    layout = MotionLayout.arkit()
    values = 0.3 * torch.randn(frames, layout.dim, generator=torch.Generator().manual_seed(seed))
    return Motion(values, layout, fps, betas=torch.tensor([0.5, -1.0]))


def test_layout_covers_every_channel_once():
    layout = MotionLayout("flame2020", 50, eyelids=True)
    covered = torch.cat([torch.arange(layout.dim)[s] for s in layout.slices.values()])
    assert covered.tolist() == list(range(50 + 2 + 15))
    assert MotionLayout.arkit().dim == 56 and len(set(ARKIT_EXPRESSIONS)) == 41
    assert layout.select(torch.arange(67.0), "jaw_pose").tolist() == [58, 59, 60]


def test_layout_refuses_an_unknown_basis():
    with pytest.raises(UserError, match="bfm"):
        MotionLayout("bfm", 50)


def test_npz_round_trip_and_equal_bytes(tmp_path):
    motion = random_motion()
    save_motion(tmp_path / "a.npz", motion)
    save_motion(tmp_path / "b.npz", motion)
    back = load_motion(tmp_path / "a.npz")
    assert torch.equal(back.values, motion.values) and torch.equal(back.betas, motion.betas)
    assert back.layout == motion.layout and back.fps == motion.fps
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"fps": None}, "fps"),
        ({"fps": np.float64("nan")}, "fps"),
        ({"fps": np.float64(0)}, "fps"),
        ({"jaw_pose": None}, "jaw_pose"),
        ({"basis": np.array("bfm")}, "bfm"),
        ({"expression": np.zeros((50, 40), np.float32)}, "40"),
        ({"neck_pose": np.full((50, 3), np.nan, np.float32)}, "neck_pose"),
        ({"neck_pose": np.zeros((49, 3), np.float32)}, "neck_pose"),
        ({"expression": np.array([{}], dtype=object)}, "pickle"),
    ],
)
def test_bad_files_are_named(tmp_path, change, words):
    arrays = {**motion_arrays(random_motion()), **change}
    np.savez(tmp_path / "bad.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(UserError, match=words) as caught:
        load_motion(tmp_path / "bad.npz")
    assert "\n" not in str(caught.value) and ("bad.npz" in str(caught.value) or words == "bfm")


def test_files_that_are_no_archive(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"not an archive")
    for name in ("x.npz", "missing.npz"):
        with pytest.raises(UserError, match=name):
            load_motion(tmp_path / name)


def test_statistics_invert_and_stay_float32():
    layout = MotionLayout.arkit()
    stats = MotionStats.for_layout(layout, 25.0).fit(torch.randn(layout.dim), torch.rand(layout.dim))
    motion = torch.randn(7, layout.dim)
    assert torch.allclose(stats.restore(stats.standardise(motion)), motion, atol=1e-5)
    assert stats.to(torch.float16).mean.dtype == torch.float32
    other = Motion(torch.zeros(3, 65), MotionLayout("flame2020", 50), 25.0)
    with pytest.raises(UserError, match="arkit.*flame2020"):
        stats.check(other, "other.npz")


def test_resampling_keeps_a_slow_wave_and_drops_a_fast_one():
    time = torch.arange(240) / 60
    values = torch.zeros(240, 56)
    values[:, 0] = torch.sin(2 * math.pi * 2 * time)
    values[:, 1] = torch.sin(2 * math.pi * 24 * time)
    values[:, 41] = 0.3 * torch.sin(2 * math.pi * time)
    down = Motion(values, MotionLayout.arkit(), 60.0).resample(25.0)
    assert len(down) == 100
    at = torch.arange(100) / 25
    middle = slice(10, 90)
    assert (down.values[middle, 0] - torch.sin(2 * math.pi * 2 * at)[middle]).abs().max() < 0.03
    assert down.values[middle, 1].abs().max() < 0.05  # would alias to 1 Hz
    assert (down.values[middle, 41] - 0.3 * torch.sin(2 * math.pi * at)[middle]).abs().max() < 0.01


def test_rotations_are_resampled_on_the_sphere():
    values = torch.zeros(2, 56)
    values[1, 41:44] = torch.tensor([0.0, 2.0, 0.0])
    values[0, 41:44] = torch.tensor([0.0, 0.0, 1.0])
    middle = Motion(values, MotionLayout.arkit(), 25.0).resample(50.0).values[1, 41:44]
    expected = rotation.slerp(values[0, 41:44], values[1, 41:44], torch.tensor([0.5]))
    assert torch.allclose(middle, expected, atol=1e-6)
    assert not torch.allclose(middle, values[:, 41:44].mean(0), atol=1e-2)


def test_rotation_round_trips_and_composition():
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 100, 3, generator=generator, dtype=torch.float64)
    matrix = rotation.axis_angle_to_matrix
    assert torch.allclose(matrix(rotation.compose(a, b)), matrix(a) @ matrix(b), atol=1e-9)
    assert torch.allclose(matrix(a) @ matrix(a).mT, torch.eye(3, dtype=a.dtype).expand(100, 3, 3), atol=1e-12)
    tiny = torch.full((1, 3), 1e-12, dtype=torch.float64, requires_grad=True)
    matrix(tiny).sum().backward()
    assert torch.isfinite(tiny.grad).all()
    small = a * 0.5
    there = rotation.quaternion_to_axis_angle(rotation.axis_angle_to_quaternion(small))
    assert torch.allclose(matrix(there), matrix(small), atol=1e-9)
    zero = torch.zeros(1, 3, dtype=torch.float64)
    assert torch.equal(rotation.compose(zero, zero), zero)


def test_motion_that_nobody_tracked_is_said_to_be_missing():
    stats = MotionStats.for_layout(MotionLayout.arkit(), 25.0)
    nothing = MotionLayout("arkit", 0)
    with pytest.raises(UserError, match="found no face in exchange x"):
        stats.check(Motion(torch.zeros(5, nothing.dim), nothing, 25.0), "exchange x")
