"""The report and its blind page: answers come back by their key; in a real browser both work without a network."""

import json

import numpy as np
import pytest
from browser import Browser, needs_chromium

from diffdyad.errors import UserError
from diffdyad.evaluation.effect.blind import Trial, read_answers, write_page
from diffdyad.evaluation.effect.conditions import NEAR, NULL, TRUE


def trials(count: int = 6) -> list[Trial]:
    return [Trial(f"x{k}", {name: name.encode() for name in (TRUE, NULL, NEAR)}, {TRUE: b"t", NEAR: b"n"})
            for k in range(count)]  # fmt: skip


def all_right(folder, **changes) -> dict:
    """What somebody who knows all would save."""
    key = json.loads((folder / "key.json").read_text())
    answers = [{"preferred": row["videos"].index(TRUE), "turn": row["turns"].index(TRUE)} for row in key]
    page = (folder / "index.html").read_text().split('page = "')[1][:16]
    return {"page": page, "answers": answers} | changes


def test_blind_answers_are_read_back(tmp_path):
    write_page(tmp_path, trials(), np.random.default_rng(0))
    assert read_answers(tmp_path) is None
    key = json.loads((tmp_path / "key.json").read_text())
    page = (tmp_path / "index.html").read_text()
    assert "__" not in page and not any(name in page for name in (TRUE + '"', "swap", NULL + '":'))
    assert len({tuple(row["videos"]) for row in key}) > 1
    (tmp_path / "answers.json").write_text(json.dumps(all_right(tmp_path)))
    found = read_answers(tmp_path)
    assert found[f"liked best: {TRUE}"]["share"] == 1 and found[f"liked best: {NULL}"]["share"] == 0
    assert all(row["share"] == 1 for name, row in found.items() if name.startswith("took"))
    # a second person, who says nothing of the first two
    answers = all_right(tmp_path)["answers"]
    answers[:2] = [{"preferred": None, "turn": None}] * 2
    (tmp_path / "answers (1).json").write_text(json.dumps(all_right(tmp_path, answers=answers)))
    assert read_answers(tmp_path)[f"liked best: {TRUE}"]["count"] == 10
    assert read_answers(tmp_path, [tmp_path / "answers (1).json"])[f"liked best: {TRUE}"]["count"] == 4


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda kept: "[1, 2]", "found something else"),
        (lambda kept: "{", "cannot read it"),
        (lambda kept: json.dumps(kept | {"page": "0" * 16}), "those of another page"),
        (lambda kept: json.dumps(kept | {"answers": kept["answers"][:5]}), "those of another page"),
        (lambda kept: json.dumps(kept | {"answers": [{"preferred": 7}] * 6}), "found something else"),
    ],
)
def test_answers_that_are_not_the_pages_are_refused(change, match, tmp_path):
    write_page(tmp_path, trials(), np.random.default_rng(0))
    (tmp_path / "answers.json").write_text(change(all_right(tmp_path)))
    with pytest.raises(UserError, match=match) as error:
        read_answers(tmp_path)
    assert "\n" not in str(error.value)


def test_answers_without_a_page_are_refused(tmp_path):
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(UserError, match="make the page again"):
        read_answers(tmp_path / "blind", [tmp_path / "mine.json"])


@needs_chromium
def test_the_blind_page_saves_what_was_chosen(tmp_path):
    write_page(tmp_path / "blind", trials(3), np.random.default_rng(0))
    key = json.loads((tmp_path / "blind" / "key.json").read_text())
    choose = "[...document.querySelectorAll('input[name={}]')][{}].click()"
    with Browser(tmp_path) as browser:
        browser.open(tmp_path / "blind" / "index.html", 390, 844, phone=True)
        assert browser.run("document.documentElement.scrollWidth") == 390  # nothing is cut off
        for number, row in enumerate(key):
            assert f"{number + 1} of 3" in browser.run("document.body.innerText")
            if number == 1:  # left open: the first press only says so
                browser.run("document.getElementById('next').click()")
                assert "Not all is answered" in browser.run("document.body.innerText")
            else:
                browser.run(choose.format("preferred", row["videos"].index(TRUE)))
                browser.run(choose.format("turn", row["turns"].index(NEAR)))
            if number == 2:  # closed half-way, and back
                browser.open(tmp_path / "blind" / "index.html")
                assert browser.run("document.querySelectorAll('input:checked').length") == 2
            browser.run("document.getElementById('next').click()")
        path = browser.downloaded("answers.json")
        assert "Thank you" in browser.run("document.body.innerText")
        assert not browser.asked and not browser.complaints
    found = read_answers(tmp_path / "blind", [path])
    assert found[f"liked best: {TRUE}"]["count"] == 2 and found[f"liked best: {TRUE}"]["share"] == 1
    assert all(row["share"] == 0 for name, row in found.items() if name.startswith("took"))
