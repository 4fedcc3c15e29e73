"""The command line: help, exit codes, one line for each mistake, and nothing left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path

import pytest
from conftest import REPOSITORY

from diffdyad import cli, interrupts
from diffdyad.errors import PartialFailure, UserError
from diffdyad.settings import SCHEDULERS, SampleSettings

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def fails(capsys, argv: list, code: int = 2) -> str:
    """Runs a command that must fail with one line, which is returned."""
    assert cli.main([str(word) for word in argv]) == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("diffdyad: ") and captured.err.count("\n") == 1
    return captured.err


def help_of(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main([*words, "--help"])
    assert stopped.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_imports_nothing_heavy():
    program = (
        "import sys, diffdyad.cli as cli\n"
        "try: cli.main(['sample', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'diffusers', 'transformers', 'av', 'pydantic', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_sample_help_names_every_flag_with_its_default(capsys):
    text = help_of(capsys, "sample")
    for name in (field.name for field in fields(SampleSettings)):
        flag = "--no-video" if name == "video" else f"--{name.replace('_', '-')}"
        described = re.search(rf" {flag} (?!\[)(.*?)(?= --[a-z]|$)", text[text.index("who speaks") :])
        assert described, flag
    options = text[text.index("who speaks") :]
    assert options.count("(default:") == len(fields(SampleSettings))
    assert "seconds" in options and all(name in options for name in SCHEDULERS)


def test_scheduler_names_are_those_of_the_library():
    from diffdyad.schedulers import SAMPLERS

    assert set(SCHEDULERS) == {*SAMPLERS, "euler"}


@pytest.mark.parametrize("words", [(), ("train",), ("data",), ("data", "rehearse"), ("evaluate",), ("context",)])
def test_other_commands_have_help(capsys, words):
    assert "usage: diffdyad" in help_of(capsys, *words)


@pytest.mark.parametrize(
    "argv, expected",
    [
        ([], "COMMAND"),
        (["smaple"], "smaple"),
        (["sample", "--frobnicate"], "--frobnicate"),
        (["sample", "--guidance", "2"], "--guidance"),  # no abbreviations
        (["sample", "--steps", "0"], "--steps"),
        (["sample", "--steps", "2.5"], "whole number"),
        (["sample", "--guidance-scale", "nan"], "--guidance-scale"),
        (["sample", "--guidance-scale", "1", "inf"], "--guidance-scale"),
        (["sample", "--guidance-scale", "1", "1.0"], "different values"),
        (["sample", "--guidance-scale"], "--guidance-scale"),
        (["sample", "--audio-guidance-scale", "nan"], "--audio-guidance-scale"),
        (["sample", "--num-samples", "-3"], "--num-samples"),
        (["sample", "--seed", "-1"], "--seed"),
        (["sample", "--seed", "x"], "whole number"),
        (["sample", "--context-gap", "nan"], "--context-gap"),
        (["sample", "--context-gap", "1e9"], "--context-gap"),
        (["sample", "--scheduler", "euler_a"], "--scheduler"),
        (["sample", "--dtype", "float8"], "--dtype"),
        (["sample", "--out", ""], "--out"),
        (["sample", "--context-audio", "x.wav"], "--audio"),
        (["sample", "--audio", "x.wav", "--exchange", "y"], "both"),
        (["sample", "--audio", "x.wav", "--context-gap", "1"], "previous turn"),
        (["sample", "--audio", "x.wav", "--start", "listen"], "previous turn"),
        (["sample", "--audio", "x.wav", "--context-video", "x.mp4"], "x.mp4"),
        (["sample", "--audio", "x.wav", "--context-video", "x.mp4", "--context-audio", "y.wav"], "found both"),
        (["data"], "COMMAND"),
        (["data", "rehearse"], "--out"),
        (["data", "rehearse", "--out", "x", "--hours", "-1"], "hours"),
        (["data", "rehearse", "--out", "x", "--hours", "nan"], "hours"),
        (["data", "rehearse", "--out", "x", "--effect", "-1"], "effect"),
        (["data", "rehearse", "--out", "x", "--workers", "0"], "--workers"),
        (["data", "import", "recordings", "x", "--out", "y"], "diffdyad data build"),
        (["train"], "--config"),
        (["train", "--config", "no.yaml"], "no.yaml"),
        (["train", "--config", "no.yaml", "--training.max-steps"], "--training.max-steps"),
    ],
)
def test_a_wrong_command_is_one_line(capsys, tmp_path, monkeypatch, argv, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in fails(capsys, argv)
    assert not list(tmp_path.iterdir())


def test_negative_scales_and_gaps_are_numbers():
    arguments = cli._parser().parse_args(["sample", "--guidance-scale", "-1", "0", "--context-gap", "-0.3"])
    assert arguments.guidance_scale == [-1, 0] and arguments.context_gap == -0.3


def test_minus_zero_is_zero():
    assert SampleSettings(guidance_scale=(-0.0, 1.0)).name("motion", SampleSettings(guidance_scale=(-0.0,))
                                                           .guidance_scale[0], 0) == "motion_w0.npz"  # fmt: skip


def test_file_names():
    assert SampleSettings(start="listen").files == ["motion.npz", "listening.npz", "video.mp4", "sample.json"]
    sweep = SampleSettings(guidance_scale=(0, 2.5), num_samples=2, video=False)
    assert sweep.files == ["motion_w0_s0.npz", "motion_w0_s1.npz", "motion_w2.5_s0.npz", "motion_w2.5_s1.npz",
                           "sweep.png", "sample.json"]  # fmt: skip


# --------------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    "error, code, expected",
    [
        (UserError("expected a,\n found b"), 2, "diffdyad: expected a, found b\n"),
        (PartialFailure("2 of 9 failed: a, b"), 3, "2 of 9 failed"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "out of memory"),
        (OSError(28, "No space left on device"), 1, "disk is full"),
        (ValueError("while serializing: I/O error: No space left on device (os error 28)"), 1, "disk is full"),
        (OSError(5, "Input/output error", "/x"), 1, "/x"),
        (RuntimeError("first\nsecond"), 1, "RuntimeError: first second"),
    ],
)
def test_exit_codes(capsys, monkeypatch, error, code, expected):
    def run(arguments):
        raise error

    monkeypatch.setattr(cli, "_sample", run)
    assert expected in fails(capsys, ["sample"], code)


def test_debug_shows_the_traceback(capsys, monkeypatch):
    monkeypatch.setenv("DIFFDYAD_DEBUG", "1")
    assert cli.main(["sample", "--steps", "0"]) == 2
    assert "Traceback" in capsys.readouterr().err


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


@pytest.mark.parametrize("number", SIGNALS[:2])
def test_sigterm_ends_like_ctrl_c(capsys, monkeypatch, number):
    before = [signal.getsignal(other) for other in SIGNALS]
    monkeypatch.setattr(cli, "_sample", lambda arguments: os.kill(os.getpid(), number) or time.sleep(5))
    fails(capsys, ["sample"], 130)
    assert [signal.getsignal(other) for other in SIGNALS] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_interrupt_that_a_library_swallows_comes_again(capsys, monkeypatch):
    monkeypatch.setattr(interrupts, "AGAIN_S", 0.05)
    monkeypatch.setattr(cli, "_sample", swallows)
    begun = time.monotonic()
    fails(capsys, ["sample"], 130)
    assert time.monotonic() - begun < 5


def swallows(arguments) -> None:
    with suppress(BaseException):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
    time.sleep(10)


def test_who_cleans_up_after_an_interrupt_is_left_alone(capsys, monkeypatch):
    monkeypatch.setattr(interrupts, "AGAIN_S", 0.05)
    cleaned = []

    @contextmanager
    def folder():
        try:
            yield
        finally:
            time.sleep(0.3)
            with suppress(ValueError):  # what else is raised and caught on the way
                raise ValueError
            time.sleep(0.3)
            cleaned.append("folder")

    def run(arguments):
        with folder():
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(10)
            except BaseException:
                time.sleep(0.3)
                cleaned.append("file")
                raise

    monkeypatch.setattr(cli, "_sample", run)
    fails(capsys, ["sample"], 130)
    assert cleaned == ["file", "folder"]


# ------------------------------------------------------------------------------------------- train


@pytest.mark.parametrize(
    "argv",
    [
        ["training.max_steps=7", "--config", "{}", "--output", "elsewhere"],
        ["--training.max-steps", "7", "--config={}", "output=elsewhere"],
        ["--config", "{}", "--output=elsewhere", "--training.max-steps=7"],
    ],
)
def test_the_command_line_wins_over_the_config_in_any_order(monkeypatch, argv):
    training = pytest.importorskip("diffdyad.training")
    seen = []
    monkeypatch.setattr(training, "train", seen.append)
    assert cli.main(["train", *(word.format(REPOSITORY / "configs" / "rehearsal.yaml") for word in argv)]) == 0
    assert seen[0].training.max_steps == 7 and seen[0].output == "elsewhere"


@pytest.mark.parametrize(
    "override, named",
    [
        ("--training.speed=7", "training.speed"),
        ("model.width=-4", "width"),
        ("training.max_steps=many", "max_steps"),
        ("training", "training"),
    ],
)
def test_a_wrong_override_names_its_key(capsys, override, named):
    config = REPOSITORY / "configs" / "rehearsal.yaml"
    assert named in fails(capsys, ["train", "--config", config, override])


def test_top_level_scripts():
    for script, flag in (("sample.py", "--guidance-scale"), ("train.py", "--config")):
        run = subprocess.run([sys.executable, REPOSITORY / script, "--help"], capture_output=True, text=True, cwd="/",
                             env={key: value for key, value in ENVIRONMENT.items() if key != "PYTHONPATH"})  # fmt: skip
        assert run.returncode == 0 and flag in run.stdout, run.stderr


def test_the_readme_names_every_flag_of_sample():
    text = Path(REPOSITORY / "README.md").read_text(encoding="utf-8") + (REPOSITORY / "docs" / "sample.md").read_text(
        encoding="utf-8"
    )
    for name in (field.name for field in fields(SampleSettings)):
        assert ("--no-video" if name == "video" else f"--{name.replace('_', '-')}") in text
