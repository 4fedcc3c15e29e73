"""What the protocol leaves beside the weights, and who says it."""

import json

import pytest

from diffdyad.errors import UserError
from diffdyad.knob import card_section, describe_knob, read_knob, store_knob

KNOB = {"verdict": "meaningful", "sentence": "It matters.", "largest_usable_scale": 2.0,
        "change_mm": {"0": {"brows": 0.0, "lips": 0.0}, "1": {"brows": 0.4, "lips": 0.1},
                      "3": {"brows": 1.0, "lips": 0.3}}}  # fmt: skip


def test_scales_between_those_measured_are_interpolated():
    lines = describe_knob(KNOB, [2.0, 5.0])
    assert lines == ["guidance scale 2 moves the face, mm: brows 0.70, lips 0.20",
                     "largest usable guidance scale: 2 (beyond it: 5)"]  # fmt: skip


def test_intervals_are_said_where_there_are_any():
    bounds = {scale: {name: [value - 0.1, value + 0.3] for name, value in moved.items()}
              for scale, moved in KNOB["change_mm"].items()}  # fmt: skip
    assert describe_knob(KNOB | {"change_low_high_mm": bounds}, [2.0])[0] == (
        "guidance scale 2 moves the face, mm [95 % over pairs of people]: brows 0.70 [0.60, 1.00], "
        "lips 0.20 [0.10, 0.50]"
    )


def test_a_knob_is_read_where_there_is_one_and_damage_is_said(tmp_path):
    assert read_knob(tmp_path) is None and card_section(tmp_path) == []
    (tmp_path / "knob.json").write_text(json.dumps(KNOB))
    assert read_knob(tmp_path) == KNOB
    section = card_section(tmp_path)[0]
    assert "**meaningful**" in section and "| 1 | 0.40 | 0.10 |" in section
    bounds = {"1": {"brows": [0.3, 0.5], "lips": [0.0, 0.2]}}
    (tmp_path / "knob.json").write_text(json.dumps(KNOB | {"change_low_high_mm": bounds}))
    assert "| 1 | 0.40 [0.30, 0.50] | 0.10 [0.00, 0.20] |" in card_section(tmp_path)[0]
    (tmp_path / "knob.json").write_text(json.dumps(KNOB | {"change_low_high_mm": {"1": {"brows": 3}}}))
    with pytest.raises(UserError, match="knob.json"):
        read_knob(tmp_path)
    (tmp_path / "knob.json").write_text('{"change_mm": 3}')
    with pytest.raises(UserError, match="knob.json"):
        read_knob(tmp_path)


def test_storing_puts_the_summary_into_the_card_once(tmp_path):
    store_knob(tmp_path, KNOB)
    assert read_knob(tmp_path) == KNOB and not (tmp_path / "README.md").exists()
    card = tmp_path / "README.md"
    for before in ("---\nlicense: mit\n---\n# A\n\n## Figures\n\nmany\n\n## Use\n\nas is\n", "# A\n"):
        card.write_text(before)
        store_knob(tmp_path, KNOB)
        first = card.read_text()
        assert card_section(tmp_path)[0] in first and first.startswith(before.split("## Use")[0].rstrip("\n"))
        assert "\n\n## Context\n\n" in first and ("## Use" not in before or first.endswith("|\n\n## Use\n\nas is\n"))
        store_knob(tmp_path, KNOB | {"verdict": "cannot tell"})
        second = card.read_text()
        assert second == first.replace("**meaningful**", "**cannot tell**")
