"""`diffdyad evaluate` on DualTalk's arrays: with a head in FLAME's mesh, and other projects' figures beside ours."""

import json
import re

import numpy as np
import pytest
from conftest import REPOSITORY
from flame_heads import EYE, write_flame_head
from test_cli import fails

from diffdyad import cli
from diffdyad.head import HeadModel

GOLDEN = REPOSITORY.parent / "shared" / "golden"
FRAMES, TALKS = 60, 3


@pytest.fixture(scope="module")
def head_file(tmp_path_factory):
    return write_flame_head(tmp_path_factory.mktemp("heads") / "FLAME2020.npz")


def put(folder, talk: int, side: int, code: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    np.save(folder / f"vid{talk}_sub_video_1_speaker{side}.npy", code.astype(np.float32))


def brow_track(talk: int) -> np.ndarray:
    return np.sin(np.arange(FRAMES) * (0.3 + 0.1 * talk)) * (1 + talk)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Truth and predictions (T, 56): brows that move, and the head, which must not matter for millimetres.

    Predicted: everything 2 mm further forward, brows half as far again.
    """
    base = tmp_path_factory.mktemp("dualtalk")
    for talk in range(TALKS):
        code = np.zeros((FRAMES, 56))
        code[:, 1] = brow_track(talk)
        code[:, 53:] = 0.2 * np.sin(np.arange(FRAMES) * 0.2 + talk)[:, None]
        put(base / "truth", talk, 1, code)
        put(base / "truth", talk, 2, np.random.default_rng(talk).normal(size=(FRAMES, 56)).cumsum(0) * 0.02)
        code[:, 0] += 2.0
        code[:, 1] *= 1.5
        put(base / "pred", talk, 1, code)
    return base / "pred", base / "truth"


def evaluate(folders, out, *words) -> dict:
    argv = ["evaluate", "--pred", folders[0], "--truth", folders[1], "--out", out, "--workers", 1, *words]
    assert cli.main([str(word) for word in argv]) == 0
    return json.loads((out / "metrics.json").read_text())


def test_millimetres_on_a_head_in_flames_mesh(head_file, folders, tmp_path):
    head = HeadModel.from_file(head_file)
    assert (head.num_expression, head.basis) == (50, "flame2020")
    report = evaluate(folders, tmp_path / "r", "--head", head_file)
    assert report["facts"]["head"] == str(head_file) and report["facts"]["clips"] == TALKS
    table = report["tables"]["all"]

    def value(figure: str, row: str = "prediction") -> float:
        return table[row][figure]["value"]

    assert value("lip_vertex_error_max_mean_mm") == pytest.approx(2, rel=1e-4)
    assert value("lip_vertex_error_max_mean_mm", "truth") == 0
    assert value("mouth_opening_error_mean_mm") == pytest.approx(0, abs=1e-3)
    spread = np.mean([brow_track(talk).std() for talk in range(TALKS)])
    assert value("upper_face_spread_difference_mean_mm") == pytest.approx(0.5 * spread, rel=1e-3)
    assert value("upper_face_spread_error_mean_mm", "half_amplitude") == pytest.approx(0.5 * spread, rel=1e-3)
    assert 2 < value("face_vertex_error_mean_mm") < 2.5
    assert value("face_speed_mean_mm_s") == pytest.approx(1.5 * value("face_speed_mean_mm_s", "truth"), rel=1e-3)
    assert value("brow_raises_per_minute", "truth") > 0 and value("brow_raise_f1", "truth") == 1
    assert not any("No head" in note for note in report["notes"])


def test_their_vertex_figures(head_file, folders, tmp_path, capsys):
    """All have the same definition by hand, on lists with duplicates."""
    template = HeadModel.from_file(head_file).template.numpy()
    above = np.flatnonzero(template[:, 1] > EYE[1])
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps({"lip_vertices": [1700, 1700, 2817], "upper_face_vertices": above[:40].tolist() * 2}))
    report = evaluate(folders, tmp_path / "r", "--head", head_file, "--compat", "unils", "codetalker",
                      "--compat-vertices", lists)  # fmt: skip
    brows = [brow_track(talk) for talk in range(TALKS)]
    unils = report["compat"]["unils"]["tables"]["prediction"]
    assert unils["lve_mm"] == pytest.approx(2, rel=1e-4)
    share = len(above) / len(template)
    assert unils["mhd_mm"] == pytest.approx(np.sqrt(4 + share * np.square(0.5 * np.array(brows)).mean()), rel=1e-4)
    assert unils["fdd_x100"] == pytest.approx(50 * np.mean([brow.std(ddof=1) for brow in brows]), rel=1e-3)
    codetalker = report["compat"]["codetalker"]["tables"]
    assert codetalker["prediction"]["lve_squared"] == pytest.approx(4e-6, rel=1e-4)
    expected = np.mean([(brow**2).std() - (2.25 * brow**2).std() for brow in brows]) * 1e-6
    assert codetalker["prediction"]["fdd_signed"] == pytest.approx(expected, rel=1e-3)
    assert list(codetalker) == ["prediction", "truth", "frozen", "half_amplitude", "frames_shuffled", "other_person"]
    assert codetalker["frozen"]["fdd_signed"] > 0 == pytest.approx(codetalker["frames_shuffled"]["fdd_signed"])
    assert "lists.json (3 of the lips, 80 of the upper face)" in report["compat"]["unils"]["about"]
    printed, written = capsys.readouterr().out, (tmp_path / "r" / "metrics.md").read_text()
    assert "unils, as its own code prints it (mm; all clips cut" in printed and "| lve_mm | 2 | " in printed
    assert "## As codetalker's own code prints it" in written and "| lve_mm | 2 | " in written
    # without lists, ours
    report = evaluate(folders, tmp_path / "r", "--head", head_file, "--compat", "unils")
    assert report["compat"]["unils"]["tables"]["prediction"]["lve_mm"] == pytest.approx(2, rel=1e-4)
    assert "our vertex sets, not theirs" in report["compat"]["unils"]["about"]


def test_golden_values_from_the_command_line(tmp_path):
    """The golden clips as DualTalk's files: what their papers' code prints comes out of the command."""
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden values at {GOLDEN}")
    expected = json.loads((GOLDEN / "expected.json").read_text())
    with np.load(GOLDEN / "inputs.npz") as inputs:
        for talk in (0, 1):
            put(tmp_path / "truth", talk, 1, inputs[f"clip{talk}_gt"])
            put(tmp_path / "truth", talk, 2, inputs[f"clip{talk}_partner"])
            put(tmp_path / "pred", talk, 1, inputs[f"clip{talk}_pred"])
    report = evaluate((tmp_path / "pred", tmp_path / "truth"), tmp_path / "r", "--compat", "dualtalk", "lm_listener")
    for mode in ("dualtalk", "lm_listener"):
        found = report["compat"][mode]["tables"]["prediction"]
        assert set(found) == set(expected[mode])
        for name, value in expected[mode].items():
            assert found[name] == pytest.approx(value, rel=1e-4), name
    assert report["compat"]["dualtalk"]["tables"]["frozen"]["variance_pre_exp"] == pytest.approx(0, abs=1e-9)
    assert "compat" not in evaluate((tmp_path / "pred", tmp_path / "truth"), tmp_path / "r")


def test_what_is_lacking_is_said(head_file, folders, tmp_path, capsys):
    pred, truth = folders
    base = ["evaluate", "--pred", pred, "--truth", truth, "--out", tmp_path / "r", "--workers", "1"]

    def refuse(*words, argv=base) -> str:
        return fails(capsys, [*argv, *words])

    assert "expected --compat to name some of dualtalk, lm_listener, unils, codetalker, found 'lve'" in refuse(
        "--compat", "lve")  # fmt: skip
    assert "a head with expressions for --compat unils, whose figures are of vertices, found none; give --head" in (
        refuse("--compat", "dualtalk", "unils"))  # fmt: skip
    assert "no --fps with --compat dualtalk" in refuse("--compat", "dualtalk", "--fps", "30")
    assert "found --model" in refuse("--model", "default", "--compat", "dualtalk",
                                     argv=["evaluate", "d", "--out", tmp_path / "r"])  # fmt: skip
    lists = tmp_path / "lists.json"
    for content, found in ({"lip_vertices": [1]}, "upper_face_vertices"), (
        {"lip_vertices": [6000], "upper_face_vertices": [1]}, "from 0 to 5022 in .*up to 6000"), (
        {"lip_vertices": [], "upper_face_vertices": [1]}, "vertex numbers"), ([1, 2], "cannot read"):  # fmt: skip
        lists.write_text(json.dumps(content))
        line = refuse("--compat", "unils", "--head", head_file, "--compat-vertices", lists)
        assert re.search(found, line), line
    assert not (tmp_path / "r").exists()

    alone, short, long_code, shapes = (tmp_path / name for name in ("alone", "short", "long", "shapes"))
    for talk in (0, 1):
        for side in (1, 2):
            put(short, talk, side, np.zeros((30, 56)))
            put(long_code, talk, side, np.zeros((60, 106)))
            put(shapes, talk, side, np.zeros((60, 61)))
        put(alone, talk, 1, np.zeros((60, 56)))
    for folder, line, extra in (
        (alone, "expected the partner's motion of every clip for --compat lm_listener, found none for vid0", []),
        (long_code, "expected 50 expressions, as DualTalk's files have, for --compat lm_listener, found 100", []),
        (shapes, "expected FLAME motion for --compat lm_listener, found basis arkit", ["--file-fps", "25"]),
    ):
        argv = ["evaluate", "--pred", folder, "--truth", folder, "--out", tmp_path / "r", "--units", "clips", *extra]
        assert line in refuse("--compat", "lm_listener", argv=argv)
    argv = ["evaluate", "--pred", short, "--truth", short, "--out", tmp_path / "r"]
    assert "at least 40 frames for --compat dualtalk" in refuse("--compat", "dualtalk", argv=argv)
