"""The wheel carries everything that running needs."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, arrays


def shell(*words, **options) -> str:
    run = subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)
    assert run.returncode == 0, f"{words}\n{run.stdout}\n{run.stderr}"
    return run.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    shell(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, REPOSITORY)
    return next(out.glob("diffdyad-*.whl"))


def test_contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    packaged = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "diffdyad").rglob("*.py")}
    assert packaged <= names
    for folder in ("assets", "configs"):
        files = {path for path in (REPOSITORY / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"}
        assert {f"diffdyad/{path.relative_to(REPOSITORY)}" for path in files} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert all(name.startswith(("diffdyad/", "diffdyad-")) for name in names)


def test_an_installed_wheel_samples_from_another_directory(wheel, tiny_model, voices, tmp_path):
    """Installed without dependencies elsewhere, the checkout not on the path; the default model where there is one."""
    target, away = tmp_path / "site", tmp_path / "away"
    away.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
    shell(*pip, "--target", target, wheel)
    environment = {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}
    flags = []
    if not (REPOSITORY / "assets" / "default").is_dir() or not (REPOSITORY / "assets" / "exchanges").is_dir():
        flags = ["--model", tiny_model, "--audio", voices / "responder.wav", "--context-audio", voices / "previous.wav"]
    script = target / "bin" / "diffdyad"
    where = shell(sys.executable, "-c", "import diffdyad; print(diffdyad.__file__)", cwd=away, env=environment)
    assert Path(where.strip()).is_relative_to(target)
    # a sweep, whose plot needs the embedded head as well
    flags += ["--no-video", "--guidance-scale", "0", "1"]
    shell(sys.executable, script, "sample", "--out", "here", *flags, cwd=away, env=environment)
    found = arrays(away / "here" / "motion_w1.npz")
    assert found["expression"].shape[1] == 41 and np.isfinite(found["expression"]).all()
