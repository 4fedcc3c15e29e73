"""Tests of pages are skipped without a browser, in words, and fail where one is asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser, needs_chromium

_PAGE = """
from browser import Browser, needs_chromium

@needs_chromium
def test_page(tmp_path):
    with Browser(tmp_path):
        pass
"""


@pytest.mark.parametrize(("required", "code", "said"), [
    ("0", 0, "1 skipped"), ("1", 1, "and DIFFDYAD_REQUIRE_BROWSER=1 asks for one"),
])  # fmt: skip
def test_without_a_browser(tmp_path, required, code, said):
    (tmp_path / "test_page.py").write_text(_PAGE)
    (tmp_path / "empty").mkdir()
    environment = {**os.environ, "PATH": str(tmp_path / "empty"), "DIFFDYAD_REQUIRE_BROWSER": required,
                   "PYTHONPATH": str(Path(__file__).parent)}  # fmt: skip
    run = subprocess.run([sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "test_page.py"],
                         cwd=tmp_path, env=environment, capture_output=True, text=True)  # fmt: skip
    assert run.returncode == code and said in run.stdout, run.stdout + run.stderr
    assert "no Chromium is installed" in run.stdout


@needs_chromium
def test_a_page_is_shown(tmp_path):
    assert CHROMIUM is not None
    (tmp_path / "page.html").write_text("<p>hello</p>")
    with Browser(tmp_path) as browser:
        browser.open(tmp_path / "page.html")
        assert browser.run("document.body.innerText") == "hello"
