"""The context protocol and the evaluation of a model, end to end on a small dataset; parts that cut and swap."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from browser import Browser, needs_chromium
from conftest import build_tiny_pipeline
from launching import launch_two
from small_exchanges import small_exchange
from test_effect_pages import all_right

from diffdyad import cli
from diffdyad.data.exchange import Exchange, Person, to_row, write_shard
from diffdyad.evaluation.effect import dose, protocol, where
from diffdyad.evaluation.effect.answers import Answers
from diffdyad.evaluation.effect.conditions import NEAR, NULL, PLACEBO, TRUE
from diffdyad.judging import context
from diffdyad.knob import describe_knob, read_knob
from diffdyad.motion import MotionLayout
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


def test_two_people_alone_are_refused_before_the_model_answers(tmp_path, capsys):
    rows = [to_row(small_exchange(number, split="test", previous_speaker="a", responder_name="b")) for number in (0, 1)]
    write_shard(tmp_path / "test-00000-of-00001.parquet", rows)
    argv = ["evaluate", str(tmp_path), "--model", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    assert cli.main(argv) == 2
    assert "at least 2 independent people or pairs, found 1 of 2 people (a, b)" in capsys.readouterr().err
    assert cli.main([*argv, "--units", "clips"]) == 2
    assert "expected --model" in capsys.readouterr().err  # which is what is wrong then


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
