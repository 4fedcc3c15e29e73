"""The context protocol and the evaluation of a model, end to end on a small dataset; parts that cut and swap."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from browser import Browser, needs_chromium
from conftest import build_tiny_pipeline
from launching import launch_two
from small_exchanges import small_exchange
from test_effect_pages import all_right

from diffdyad import cli
from diffdyad.context import TurnFeatures
from diffdyad.data import store
from diffdyad.data.exchange import Exchange, Person, to_row, write_shard
from diffdyad.data.intake import Format
from diffdyad.evaluation.clips import bilabials_of
from diffdyad.evaluation.effect import critic, dose, gap, occlusion, protocol, retrieval, where
from diffdyad.evaluation.effect.answers import Answers, Ask
from diffdyad.evaluation.effect.bleed import without_bleed
from diffdyad.evaluation.effect.conditions import NEAR, NULL, PLACEBO, TRUE, mixed, scrambled
from diffdyad.evaluation.effect.dose import Dose, largest_usable
from diffdyad.evaluation.effect.planted import DOWN, UP, amplitude, with_reaction
from diffdyad.evaluation.effect.reading import Reading, cut_at_onset
from diffdyad.evaluation.effect.where import half_life_s
from diffdyad.judging import context
from diffdyad.knob import describe_knob, read_knob
from diffdyad.motion import ARKIT_EXPRESSIONS, MotionLayout
from diffdyad.text import TimedWord

PAIRS, EXCHANGES = 10, 4


def person(rng: np.random.Generator, seconds: float, speaks: tuple[float, float], voice: float) -> Person:
    times = np.arange(round(16000 * seconds)) / 16000
    inside = (times >= speaks[0]) & (times < speaks[1])
    wave = 0.1 * np.sin(2 * np.pi * voice * times) * (1 + np.sin(2 * np.pi * 4 * times)) * inside
    frames = round(25 * seconds)
    drift = rng.normal(0, 0.02, (frames, 41)).cumsum(0)
    motion = {"expression": np.clip(0.3 + drift, 0, 1)}
    motion |= {name: rng.normal(0, 0.01, (frames, 3)).cumsum(0) for name in MotionLayout.arkit().groups[1:]}
    motion = {name: values.astype(np.float32) for name, values in motion.items()}
    words = [TimedWord("maybe", speaks[0] - 1.6, speaks[1] - 1.6)]
    return Person((wave + 1e-4 * rng.normal(size=len(wave))).astype(np.float32), motion, np.ones(frames, bool),
                  text="maybe", words=words)  # fmt: skip


def exchange(pair: int, number: int, split: str = "test", gap_s: float = 0.2) -> Exchange:
    rng = np.random.default_rng([pair, number])
    ends = 1.6 - gap_s
    names = [f"{split}{pair}a", f"{split}{pair}b"]
    return Exchange(
        f"{split}-{pair}-{number}", f"{split}-{pair}", names[number % 2], names[1 - number % 2], split, -1.6, -gap_s,
        1.92, person(rng, 3.52, (0.1, ends), 120), person(rng, 3.52, (1.6, 3.4), 200),
    )  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    for split, pairs in (("train", 3), ("test", PAIRS)):
        rows = [to_row(exchange(pair, number, split)) for pair in range(pairs) for number in range(EXCHANGES)]
        write_shard(folder / f"{split}-00000-of-00001.parquet", rows)
    return folder


def test_evaluating_a_model_writes_a_table_with_controls(dataset, tiny_model, tmp_path, capsys):
    out = tmp_path / "report"
    argv = ["evaluate", str(dataset), "--model", str(tiny_model), "--out", str(out), "--limit", "8", "--workers", "1",
            "--num-samples", "2"]  # fmt: skip
    assert cli.main(argv) == 0
    report = json.loads((out / "metrics.json").read_text())
    assert report["facts"]["clips"] == 8 and report["facts"]["samples"] == 2
    assert set(report["slices"]) == {"all", "listening", "speaking", "verbal"}
    rows = report["tables"]["speaking"]
    assert rows["truth"]["face_vertex_error_mean_mm"]["value"] == 0
    assert rows["model"]["face_vertex_error_mean_mm"]["value"] > 0
    assert rows["model"]["face_vertex_error_mean_mm"]["low"] is not None
    assert "8 clips" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["evaluate", "--out", "x"], "either DATASET --model"),
        (["evaluate", "--model", "default", "--out", "x"], "expected a DATASET"),
        (["evaluate", "--pred", "p", "--out", "x"], "--truth"),
        (["evaluate", "d", "--model", "default", "--pred", "p", "--truth", "t", "--out", "x"], "both"),
        (["context", "nowhere"], "--out DIR"),
        (["context", "nowhere", "--out", "x", "--budget", "0"], "--budget"),
        (["context", "nowhere", "--out", "x", "--smallest-effect", "2"], "--smallest-effect"),
    ],
)
def test_wrong_flags_are_one_line(argv, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def quick():
    """Fewer samples, scales and pixels than a real run has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "NUM_SAMPLES", 2)
        patch.setattr(dose, "SCALES", (0.0, 1.0, 3.0))
        patch.setattr(where, "SPLIT_SAMPLES", 2)
        patch.setattr(context, "NUM_CLIPS", 2)
        patch.setattr(context, "_SIZE", 64)
        yield


@dataclass(frozen=True)
class Run:
    """One run of the protocol that was stopped, and went on. kept: files and when they were made, before that."""

    argv: list[str]
    out: Path
    model: Path
    kept: dict[Path, int]


@pytest.fixture(scope="module")
def run(dataset, tiny_model, tmp_path_factory, quick) -> Run:
    folder = tmp_path_factory.mktemp("protocol")
    out, model, placebo = folder / "report", folder / "model", folder / "placebo"
    copytree(tiny_model, model)
    build_tiny_pipeline(seed=1).save_pretrained(placebo)
    argv = ["context", str(dataset), "--model", str(model), "--out", str(out), "--budget", "0.35", "--workers", "1",
            "--device", "cpu", "--answer-s", "1.6", "--placebo", str(placebo), "--store"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        generate, calls = Answers._generate, []

        def stop(self, ask):
            calls.append(ask)
            if len(calls) > 5:
                raise KeyboardInterrupt
            return generate(self, ask)

        patch.setattr(Answers, "_generate", stop)
        assert cli.main(argv) == 130
    kept = made(out)
    assert len([path for path in kept if path.parent.name == "answers"]) == 5
    assert not (out / "report.json").exists() and not (model / "knob.json").exists()
    assert cli.main(argv) == 0
    return Run(argv, out, model, kept)


def made(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (out / "cache").rglob("*.safetensors")}


def test_the_protocol_reaches_a_verdict(run):
    first = json.loads((run.out / "report.json").read_text())
    assert first["verdict"]["word"] in ("meaningful", "not meaningful", "cannot tell")
    assert first["facts"]["units"] == PAIRS and first["facts"]["answered"] == 11
    # twelve real pairs are too few for a critic: said, not failed
    assert not first["evidence"]["retrieval"]["testable"] and "200" in first["evidence"]["retrieval"]["why_not"]
    assert set(first["evidence"]["gap"]["contrasts"]) == {NEAR, NULL}
    assert "trained on permuted contexts" in first["evidence"]["placebo"]
    assert [row["scale"] for row in first["doses"]] == [0, 1, 3]
    assert first["doses"][0]["change_mm"]["face"] == 0 < first["doses"][1]["change_mm"]["face"]
    for row in first["doses"][1:]:
        for region, (low, high) in row["change_low_high"].items():
            assert 0 < low <= row["change_mm"][region] <= high
        assert row["lips_low_high"][0] <= row["lips_mm"] <= row["lips_low_high"][1]
    assert first["knob"]["change_low_high_mm"]["1"] == first["doses"][1]["change_low_high"]
    assert abs(sum(first["split"]["shares"].values()) - 1) < 1e-6  # float32 points
    for control in ("same_person", "mirror_of_partner"):
        assert first["controls"]["tables"]["all"][control]["face_vertex_error_mean_mm"]["value"] > 0
    # nothing was learnt of other people's answers, nor of one wrong turn against another: beside each table
    # (no speaker has a third turn here, and the placebo's row is empty)
    assert all(found[PLACEBO]["mean"] is None for found in first["by_group"].values())
    assert set(first["modality_controls"]) == {PLACEBO, NEAR, NULL} and first["noise_mm"]["face"] > 0
    assert set(first["r2_controls"]) == {NEAR, NULL} and first["r2_controls"][NEAR]["low"] is not None
    page = (run.out / "report.html").read_text()
    for heading in ("Endpoints", "Partial R²", "by group of channels", "Dose", "Which modality", "heat map"):
        assert "control: " in page.split(heading, 1)[1].split("</table>")[0], heading
    assert first["verdict"]["word"] in page and page.count("data:image/png") >= 6
    assert page.count("data:video/mp4") == 2
    assert "NaN" not in re.sub("base64,[A-Za-z0-9+/=]*", "", page)  # in a picture's bytes it is no word
    assert not any(link in page for link in ("http://", "https://", "src='/"))


def test_the_verdict_alone_is_the_same(run, tmp_path):
    out = tmp_path / "report"
    copytree(run.out / "cache", out / "cache")
    argv = [str(out) if word == str(run.out) else word for word in run.argv if word != "--store"]
    assert cli.main([*argv, "--verdict-only"]) == 0
    whole, alone = (json.loads((folder / "report.json").read_text()) for folder in (run.out, out))
    assert alone["verdict"] == whole["verdict"] and alone["evidence"] == whole["evidence"]
    assert alone["doses"] == [] and alone["where"] is None and not (out / "blind").exists()
    assert alone["largest_scale"] is alone["knob"] is None and not (out / "knob.json").exists()
    assert "Left out" in (out / "report.html").read_text()
    assert cli.main([*run.argv, "--verdict-only"]) == 2


LAUNCHED = """
import sys
from diffdyad import cli
from diffdyad.evaluation.effect import dose, protocol, where
from diffdyad.judging import context
protocol.NUM_SAMPLES, dose.SCALES, where.SPLIT_SAMPLES = 2, (0.0, 1.0, 3.0), 2
sys.exit(cli.main(sys.argv[1:]))
"""


def test_two_processes_find_what_one_does(run, tmp_path):
    script, out = tmp_path / "launched.py", tmp_path / "report"
    script.write_text(LAUNCHED)
    argv = [str(out) if word == str(run.out) else word for word in run.argv if word != "--store"] + ["--no-video"]
    launched = launch_two(script, *argv)
    assert launched.returncode == 0, launched.stderr[-2000:]
    one, two = (json.loads((folder / "report.json").read_text()) for folder in (run.out, out))
    assert two["facts"]["processes"] == 2 and one["verdict"] == two["verdict"]
    # other exchanges share a batch, which changes the last digits
    for part in ("evidence", "doses"):
        assert numbers(one[part]) == pytest.approx(numbers(two[part]), rel=1e-3, abs=1e-7, nan_ok=True)
    hidden = [numbers(found["where"]["occlusion_mm"]) for found in (one, two)]
    assert len(hidden[0]) == 3 and hidden[0] == pytest.approx(hidden[1], rel=1e-3)


def numbers(value) -> list[float]:
    """All numbers of a document, in order."""
    if isinstance(value, dict | list):
        return [x for part in (value.values() if isinstance(value, dict) else value) for x in numbers(part)]
    return [float(value)] if isinstance(value, int | float) else []


def test_what_was_found_is_stored_beside_the_model(run):
    assert json.loads((run.model / "knob.json").read_text()) == json.loads((run.out / "knob.json").read_text())
    assert any("largest usable" in line for line in describe_knob(read_knob(run.model), [1.0]))


@needs_chromium
def test_the_report_in_a_browser(run, tmp_path):
    loaded = ("Promise.all([...document.querySelectorAll('video')].map(video => video.readyState || "
              "new Promise((yes, no) => { video.onloadedmetadata = yes; video.onerror = no }))).then(() => true)")
    with Browser(tmp_path) as browser:
        for width, phone in ((1280, False), (390, True)):
            browser.open(run.out / "report.html", width, 844, phone)
            assert browser.run("document.documentElement.scrollWidth") <= width  # wide tables scroll by themselves
            pictures = browser.run("[...document.images].map(image => image.naturalWidth)")
            assert len(pictures) >= 6 and all(pictures)
            browser.run(loaded)
            assert all(browser.run("[...document.querySelectorAll('video')].map(v => v.videoWidth)"))
        assert browser.picture(tmp_path / "report.png").stat().st_size > 50_000
        assert not browser.asked and not browser.complaints


def test_the_same_command_again_makes_nothing_twice_and_reads_what_people_answered(run, quick, tmp_path, capsys):
    before, first = made(run.out), json.loads((run.out / "report.json").read_text())
    assert all(before[path] == when for path, when in run.kept.items())
    (tmp_path / "mine.json").write_text(json.dumps(all_right(run.out / "blind")))
    assert cli.main([*run.argv, "--no-video", "--answers", str(tmp_path / "mine.json")]) == 0
    assert made(run.out) == before
    assert len([path for path in before if path.parent.name == "hidden"]) == PAIRS * EXCHANGES
    again = json.loads((run.out / "report.json").read_text())
    assert again["blind"][f"liked best: {TRUE}"]["share"] == 1 and first["blind"] is None
    assert {**again, "seconds": 0, "blind": None} == {**first, "seconds": 0}
    assert "What people said, blind" in (run.out / "report.html").read_text()


def test_answers_that_are_not_there_are_missed_before_the_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["context", "nowhere", "--out", "x", "--answers", "ghost.json"]) == 2
    assert "ghost.json, found no such file" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_power_needs_no_model_of_ones_own(dataset, tiny_model, capsys):
    argv = ["context", str(dataset), "--model", str(tiny_model), "--power", "--workers", "1", "--answer-s", "1.6"]
    assert cli.main([*argv, "--smallest-effect", "0.05"]) == 0
    text = capsys.readouterr().out
    rows = [line.split() for line in text.splitlines()[3:]]
    assert f"{PAIRS} independent pairs" in text and [row[0] for row in rows] == ["0.003", "0.01", "0.03", "0.05", "0.1"]
    assert "smallest of interest" in text.splitlines()[6]
    for sizes, needed in ((1, 7), (2, 8)):  # against another turn, and against none
        found, pairs = ([float(row[k]) for row in rows] for k in (sizes, needed))
        assert found == sorted(found) and found[0] < found[-1] and pairs == sorted(pairs, reverse=True)
    assert cli.main([*argv, "--limit-pairs", "4"]) == 0
    assert "4 independent pairs; the protocol wants at least 10" in capsys.readouterr().out


def test_nearest_neighbours_are_not_asked_about_what_they_copy(dataset, tmp_path, capsys):
    argv = ["evaluate", str(dataset), "--model", "nearest", "--split", "train", "--out", str(tmp_path / "out")]
    assert cli.main(argv) == 2
    assert "expected --split other than train" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_channels_a_few_samples_apart_are_gated():
    times = np.arange(32000) / 16000
    other = np.where(times > 1, 0.1 * np.sin(2 * np.pi * 200 * times) * (1 + np.sin(2 * np.pi * 4 * times)), 0)
    own = np.where(times < 0.8, 0.1 * np.sin(2 * np.pi * 120 * times), 0) + 0.1 * other
    whole, found = without_bleed(own.astype(np.float32), other.astype(np.float32))
    for part in (other[:-7], np.pad(other, (0, 7))):
        gated, again = without_bleed(own.astype(np.float32), part.astype(np.float32))
        assert found and again and len(gated) == len(own)
        assert np.abs(gated[16000 + 4000 : -800] - whole[16000 + 4000 : -800]).max() < 1e-3


def test_power_before_the_first_model_of_another_basis(tmp_path, tiny_model, capsys):
    for pair in range(4):
        rows = [to_row(small_exchange(10 * pair + number, "flame2020", split="test", session_id=f"s{pair}",
                                      previous_speaker=f"a{pair}", responder_name=f"b{pair}"))
                for number in range(3)]  # fmt: skip
        write_shard(tmp_path / f"test-{pair:05d}-of-00004.parquet", rows)
    argv = ["context", str(tmp_path), "--model", str(tiny_model), "--power", "--workers", "1", "--answer-s", "1.6"]
    assert cli.main(argv) == 0
    assert "12 exchanges, 4 independent pairs" in capsys.readouterr().out


def power_of_rows(folder: Path, model: Path, rows) -> int:
    folder.mkdir()
    write_shard(folder / "test-00000-of-00001.parquet", list(map(to_row, rows)))
    return cli.main(["context", str(folder), "--model", str(model), "--power", "--workers", "1", "--answer-s", "1.6"])


def still(exchange: Exchange) -> Exchange:
    for side in (exchange.previous, exchange.responder):
        side.motion = {name: np.full_like(values, 0.3) for name, values in side.motion.items()}
    return exchange


def test_power_is_not_told_of_faces_that_never_move(tmp_path, tiny_model, capsys):
    rows = [still(exchange(pair, number)) for pair in range(4) for number in range(2)]
    assert power_of_rows(tmp_path / "data", tiny_model, rows) == 2
    error = capsys.readouterr().err
    assert "the same face in all 8" in error and error.strip().count("\n") <= 1


def test_power_says_that_single_exchanges_cannot_be_judged(tmp_path, tiny_model, capsys):
    assert power_of_rows(tmp_path / "data", tiny_model, [exchange(pair, 0) for pair in range(6)]) == 0
    assert "6 of them have no other turn of the same speaker" in capsys.readouterr().out


def test_power_of_a_damaged_shard_is_one_line(tmp_path, tiny_model, capsys):
    (tmp_path / "test-00000-of-00001.parquet").write_bytes(b"PAR1 is not all")
    assert cli.main(["context", str(tmp_path), "--model", str(tiny_model), "--power"]) == 2
    error = capsys.readouterr().err
    assert "test-00000-of-00001.parquet is damaged" in error and error.count("\n") == 1


def test_processes_leave_nothing_out_when_one_is_ahead(tmp_path):
    class Numbers(Answers):
        def __init__(self):
            self.folder = tmp_path

        def _path(self, ask):
            return self.folder / f"{ask.index}.safetensors"

        def _generate(self, ask):
            return torch.tensor([ask.index])

    asks = [Ask(index) for index in range(10)]
    # the second begins when the first has written some
    Numbers().make(asks, (0, 2), lambda done, total: Numbers().make(asks, (1, 2)) if done == 2 else None)
    assert all(Numbers()._path(ask).exists() for ask in asks)


def test_the_nearest_neighbour_is_a_model_like_others(dataset, tmp_path, capsys):
    argv = ["evaluate", str(dataset), "--model", "nearest", "--out", str(tmp_path / "r"), "--limit", "8", "--workers",
            "1"]  # fmt: skip
    assert cli.main(argv) == 0
    report = json.loads((tmp_path / "r" / "metrics.json").read_text())
    row = report["tables"]["all"]["model"]
    assert row["face_vertex_error_mean_mm"]["value"] > 0 and row["expression_variance_ratio"]["value"] > 0
    assert cli.main([*argv, "--num-samples", "13"]) == 2
    assert "the 12 training answers" in capsys.readouterr().err


def test_few_people_are_refused(dataset, tiny_model, tmp_path, capsys):
    argv = ["context", str(dataset), "--model", str(tiny_model), "--out", str(tmp_path / "r"), "--limit-pairs", "4",
            "--workers", "1", "--device", "cpu"]  # fmt: skip
    assert cli.main(argv) == 2
    assert "at least 10 independent pairs" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- parts


def test_nothing_after_the_onset_is_context():
    overlapping = exchange(0, 0, gap_s=-0.4)
    late = [TimedWord("yes", -1.0, -0.5), TimedWord("indeed", -0.3, 0.2)]
    overlapping.previous = replace(overlapping.previous, text="yes indeed", words=late)
    cut = cut_at_onset(overlapping)
    assert cut.previous_end_s == 0 and cut.previous.text == "yes"
    apart = exchange(0, 1)
    assert cut_at_onset(apart).previous.text == "maybe" and cut_at_onset(apart).previous_end_s == -0.2


def test_bleed_is_found_and_gated_and_noise_is_not_bleed():
    one = exchange(0, 0)
    own, other = one.responder.waveform, one.previous.waveform
    assert not without_bleed(own, other)[1]
    heard = own + 0.05 * np.roll(other, 80)
    clean, found = without_bleed(heard, other)
    assert found
    before, after = slice(3200, 19200), slice(27200, 51200)  # the other speaks; the owner speaks
    assert np.square(clean[before]).sum() < 0.05 * np.square(heard[before]).sum()
    assert np.allclose(clean[after], heard[after])


def test_a_swapped_modality_is_the_donors_and_all_else_the_own():
    def turn(value: float, count: int) -> TurnFeatures:
        cells = {name: torch.full((count, 2), value) for name in ("prosody", "motion")}
        return TurnFeatures(cells, {name: torch.ones(count, dtype=torch.bool) for name in cells}, torch.tensor([value]))

    both = mixed(turn(1.0, 3), turn(2.0, 5), "motion")
    assert both.features["motion"].tolist() == [[2, 2]] * 5 and both.sentence.tolist() == [1]
    assert both.features["prosody"][:, 0].tolist() == [0, 0, 1, 1, 1]
    assert both.valid["prosody"].tolist() == [False, False, True, True, True]
    assert mixed(turn(1.0, 3), turn(2.0, 5), "text").sentence.tolist() == [2]
    cells = {"motion": torch.arange(18.0).view(9, 2)}
    order = scrambled(replace(turn(1.0, 9), features=cells), np.random.default_rng(0))
    assert sorted(order.features["motion"][:, 0].tolist()) == list(range(0, 18, 2))
    assert order.features["motion"][:, 0].tolist() != list(range(0, 18, 2))


def test_planted_reactions_have_the_size_that_was_asked_for():
    cues, std = np.random.default_rng(0).choice([-1.0, 1.0], 400), np.full(41, 0.1)
    size = amplitude(0.03, cues, np.full(41, 0.6), std, 100, 25.0)
    fade = np.exp(-np.arange(100) / 25 / 2.0)
    reaction = np.zeros((400, 100, 41))
    for names, side in ((UP, cues > 0), (DOWN, cues < 0)):
        for name in names:
            reaction[side, :, ARKIT_EXPRESSIONS.index(name)] = size * fade / 0.1
    explained = (reaction - reaction.mean(0)).var(0).mean()
    assert explained / (explained + 0.6) == pytest.approx(0.03, rel=1e-6)


def test_a_planted_cue_moves_the_upper_face_of_the_answer_alone():
    plain = exchange(0, 0)
    moved = with_reaction(plain, 1.0, 0.1)
    before, after = (x.responder.motion["expression"] for x in (plain, moved))
    channels = np.flatnonzero(np.abs(after - before).max(0) > 1e-6)
    assert {ARKIT_EXPRESSIONS[k] for k in channels} == set(UP)
    assert np.array_equal(before[:40], after[:40]) and not np.array_equal(before[40:], after[40:])
    assert np.array_equal(plain.previous.motion["expression"], moved.previous.motion["expression"])
    both = with_reaction(plain, -1.0, 0.1, session=True)
    assert not np.array_equal(plain.previous.motion["expression"], both.previous.motion["expression"])


def test_the_near_swap_is_in_the_gallery_of_a_long_session():
    items = [SimpleNamespace(session="s", previous_speaker="a") for _ in range(60)]
    items += [SimpleNamespace(session="t", previous_speaker="b") for _ in range(5)]
    donors = np.append((np.arange(60) + 45) % 60, [61, 60, 60, 60, -1])
    rows = retrieval.galleries(items, donors, np.random.default_rng(0))
    assert rows.shape == (65, 32) and (rows[:, 0] == np.arange(65)).all()
    assert all(donor in row for donor, row in zip(donors, rows) if donor >= 0)
    assert all(len(set(row)) == 32 for row in rows.tolist())


def test_the_critic_learns_of_no_turn_that_outlasts_the_onset_and_of_none_of_the_judged(tmp_path, tiny_pipeline):
    rows = [exchange(0, 0, "train"), exchange(0, 1, "train", gap_s=-0.4), exchange(1, 0, "train"),
            replace(exchange(2, 0, "train"), responder_name="test3b")]  # fmt: skip
    (tmp_path / "data").mkdir()
    write_shard(tmp_path / "data" / "train-00000-of-00001.parquet", list(map(to_row, rows)))
    reading = Reading.of(tiny_pipeline)

    def names() -> list[str]:
        pairs = critic.real_pairs(tmp_path / "data", "test", {"test3b"}, reading, tmp_path / "cache", 100)
        assert all(pair.features.previous_end_s <= 0 for pair in pairs)
        return [pair.features.exchange_id for pair in pairs]

    # read for the purpose, turns are cut at the onset; a training's features know what came after
    assert names() == ["train-0-0", "train-0-1", "train-1-0"]
    store.build(tmp_path / "data", "train", tmp_path / "data" / "features", reading.settings, Format(*reading.stats), 0)
    assert names() == ["train-0-0", "train-1-0"]


def test_the_critic_sees_nothing_of_a_turn_after_the_onset(tiny_pipeline):
    encoder, rng = tiny_pipeline.context_encoder, torch.Generator().manual_seed(0)
    width = encoder.config.widths["prosody"]
    cells, other = torch.randn((2, 20, width), generator=rng)
    valid = {"prosody": torch.ones(20, dtype=torch.bool)}

    def seen(cells, end_s):
        return critic.turn_vector(encoder, TurnFeatures({"prosody": cells}, valid, None), end_s)["prosody"]

    late = torch.cat([cells[:18], other[18:]])  # the last two of 0.2 s each lie after the onset
    assert torch.equal(seen(cells, 0.4), seen(late, 0.4)) and not torch.equal(seen(cells, 0.2), seen(late, 0.2))
    assert not torch.equal(seen(cells, 0.4), seen(torch.cat([cells[:17], other[17:]]), 0.4))
    assert seen(cells, 0.4)[:width] == pytest.approx(encoder.standardise(
        TurnFeatures({"prosody": cells[:18]}, {}, None)).features["prosody"].mean(0), abs=1e-5)  # fmt: skip


def test_a_critic_of_faces_that_never_move_guesses():
    rng = torch.Generator().manual_seed(0)
    turns = [{"prosody": torch.randn(6, generator=rng)} for _ in range(250)]
    judge = critic.fit_critic(turns, torch.ones(250, 10))
    scores = judge.scores(turns[:40], torch.ones(3, 10))
    assert np.isfinite(scores).all() and np.ptp(scores) == 0


def test_the_controls_of_a_model_that_knows_the_answer_find_nothing():
    rng = np.random.default_rng(0)
    truths = torch.from_numpy(rng.normal(size=(40, 10, 41))).float()
    known = torch.ones(40, 10, 41, dtype=torch.bool)
    layout = SimpleNamespace(slices={"expression": slice(0, 41)})
    network = SimpleNamespace(answer=10, pipeline=SimpleNamespace(layout=layout),
                              target=lambda index: (truths[index], known[index]))  # fmt: skip
    units = np.arange(40) // 2
    setting = SimpleNamespace(swaps=SimpleNamespace(far=np.roll(np.arange(40), 2)), items=range(40), units=units)
    wrong = rng.gamma(9.0, size=(3, 40, 9, 4, 1))
    errors = {TRUE: wrong[0] - 3, NEAR: wrong[0], PLACEBO: wrong[1], NULL: wrong[2]}
    gaps = gap.Gaps(errors, np.ones((40, 4, 1)), {TRUE: truths, NEAR: 0 * truths, NULL: 0 * truths}, known)
    found = protocol._r2_controls(gaps, network, setting, rng)
    assert all(row.high < 0 for row in found.values())  # what is right for the own answer is wrong for another's
    beside = protocol._modality_controls(gaps, units, rng)
    assert beside[NEAR].mean == pytest.approx(3) and beside[NEAR].p_value < 0.01 < beside[PLACEBO].p_value
    setting.swaps.far[3] = -1
    assert protocol._r2_controls(gaps, network, setting, rng) == {}


def test_what_hiding_does_is_told_per_window_however_many_cells_fall_into_it():
    found = occlusion.per_window(np.array([0.2, 0.3, 0.4, 0.1]), np.array([2, 3, 1, 0]), 5.0)
    assert found[:3] == pytest.approx([0.25, 0.25, 1.0]) and np.isnan(found[3])


def test_half_life():
    times = np.arange(100) / 25
    assert half_life_s(times, np.exp(-times)) == pytest.approx(np.log(2), abs=0.04)
    assert np.isnan(half_life_s(times, np.ones(100))) and np.isnan(half_life_s(times, np.zeros(100)))


def test_a_scale_is_usable_where_direction_lips_and_liveliness_stay():
    good = Dose(2.0, {}, {}, {}, {}, 0.0, (0, 0), 0.9, 0.8, 0.0, 0.0, 0.0, 0.1, (0, 0), True, 0.2, (0, 0), 1.1, 1.0)
    assert good.is_usable
    for less in ({"cosine_low": 0.5}, {"lips_hold": False}, {"jerk": 1.4}, {"jerk": 0.5}, {"speed": 0.5}):
        assert not replace(good, **less).is_usable and replace(good, scale=0.0, **less).is_usable
        # up to 1 the direction is what there is to be compared with
        assert replace(good, scale=1.0, **less).is_usable == ("cosine_low" in less)


def test_the_largest_usable_scale_is_before_the_first_that_is_not():
    class Fake:
        def __init__(self, scale, is_usable):
            self.scale, self.is_usable = scale, is_usable

    assert largest_usable([Fake(0, True), Fake(1, True), Fake(2, True), Fake(3, False), Fake(5, True)]) == 2


def test_bilabials_follow_from_spelling():
    words = [TimedWord("bump", 0.0, 0.4), TimedWord("apple", 1.0, 1.5), TimedWord("photo", 2.0, 2.5)]
    assert bilabials_of(words) == pytest.approx([0.05, 0.25, 0.35, 1.15])
