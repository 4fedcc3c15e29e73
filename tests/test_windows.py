import pytest

from diffdyad.windows import windows


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
