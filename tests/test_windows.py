import pytest
import torch

from diffdyad.windows import join, windows


@pytest.mark.parametrize("total", [1, 49, 50, 51, 126, 127, 500, 1501])
@pytest.mark.parametrize("given", [0, 10])
def test_windows_cover_every_frame_once(total, given):
    made = list(range(given))
    for window in windows(total, 126, 24, 10, given):
        assert window.start + window.prefix == len(made)
        assert window.prefix >= 0 and window.stop <= min(total, window.start + window.length)
        made += range(window.start + window.prefix, window.stop)
    assert made[:total] == list(range(total)) and len(made) == max(total, given)


def test_impossible_windows_are_refused():
    with pytest.raises(ValueError, match="prefix"):
        list(windows(100, 30, 20, 10))


def test_a_join_has_no_jump_and_leaves_what_is_far():
    line = torch.arange(20.0)[None, :, None].expand(1, 20, 2)
    joined = join(line, line + 3.0, prefix=5)
    assert torch.equal(joined[:, :5], line[:, :5])
    steps = joined.diff(dim=1)
    assert steps.min() > 0.99 and steps.max() < 1.6  # at most pi / 2 * 3 / 9 a frame, and the line's own 1
    assert torch.equal(joined[:, 14:], line[:, 14:] + 3.0)
    assert torch.equal(join(line, line, 5), line) and torch.equal(join(line, line + 1, 0), line + 1)


def test_joined_frames_go_on_with_the_given_position_and_speed():
    """A clip that is off by a straight line is moved onto the given one at once, and is itself again later."""
    steps = torch.arange(40.0)[None, :, None]
    generated = torch.sin(0.3 * steps)
    given = generated + 0.4 + 0.05 * steps
    joined = join(given, generated, 10, fade=8)
    assert torch.equal(joined[:, :10], given[:, :10])
    kinks = joined.diff(n=2, dim=1)[:, 8:10].abs()  # those that span the join
    plain = torch.cat([given[:, :10], generated[:, 10:]], 1).diff(n=2, dim=1)[:, 8:10].abs()
    assert kinks.max() < 0.2 < plain.max()
    torch.testing.assert_close(joined[:, 10:11], given[:, 10:11], atol=0.04, rtol=0)
    assert torch.equal(joined[:, 18:], generated[:, 18:])
