"""Headless Chromium through its debugging pipe: pages as people see them, with nothing to install but the browser."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
REQUIRED = os.environ.get("DIFFDYAD_REQUIRE_BROWSER") == "1"
_MISSING = "no Chromium is installed (chromium, google-chrome)"
needs_chromium = pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason=_MISSING)
"""Skips without a browser; with DIFFDYAD_REQUIRE_BROWSER=1 the test runs, and fails."""

_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--mute-audio", "--no-first-run",
          "--disable-extensions", "--disable-background-networking", "--disable-component-update",
          "--disable-dev-shm-usage", "--remote-debugging-pipe", "about:blank")  # fmt: skip
_ON_3_AND_4 = """
import os, sys
read, write = os.dup(int(sys.argv[1])), os.dup(int(sys.argv[2]))
high = [os.dup2(fd, 100 + k) for k, fd in enumerate((read, write))]
os.dup2(high[0], 3), os.dup2(high[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The file numbers on which Chromium listens and answers; a shell can redirect one digit only."""


class Browser:
    """One page at a time, without a network. asked: addresses that the page wanted from one; complaints: of scripts.

    The protocol: https://chromedevtools.github.io/devtools-protocol/
    """

    def __init__(self, folder: Path):
        if CHROMIUM is None:
            pytest.fail(f"{_MISSING}, and DIFFDYAD_REQUIRE_BROWSER=1 asks for one", pytrace=False)
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        self.asked, self.complaints, self._number, self._rest, self._events = [], [], 0, b"", []
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        command = [CHROMIUM, f"--user-data-dir={folder / 'profile'}", *_FLAGS]
        with (folder / "chromium.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _ON_3_AND_4, str(to_read), str(to_write), *command],
                pass_fds=(to_read, to_write), stdout=log, stderr=log,
            )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        target = self._call("Target.createTarget", session=None, url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", None, targetId=target, flatten=True)["sessionId"]
        self._call("Browser.setDownloadBehavior", None, behavior="allow", downloadPath=str(self.downloads))
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")
        self._call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0,
                   uploadThroughput=0)  # fmt: skip

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_) -> None:
        try:
            self._call("Browser.close", None)
            self._process.wait(10)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def open(self, path: Path, width: int = 1280, height: int = 900, phone: bool = False, dark: bool = False) -> None:
        """Shows a file and waits until all of it is there."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self._call("Emulation.setEmulatedMedia",
                   features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])  # fmt: skip
        self._events.clear()
        self._call("Page.navigate", url=Path(path).resolve().as_uri())
        self._wait("Page.loadEventFired")

    def run(self, script: str):
        """The value of an expression, of a promise too."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True,
                           userGesture=True)  # fmt: skip
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path: Path) -> Path:
        """The whole page as PNG, not only what fits on the screen."""
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16000), "scale": 1}
        shot = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def downloaded(self, name: str, seconds: float = 120) -> Path:
        """Waits for a file that the page saves."""
        end = time.monotonic() + seconds
        while not (self.downloads / name).exists():
            if time.monotonic() > end:
                raise TimeoutError(f"the page saved no {name}: {list(self.downloads.iterdir())}")
            time.sleep(0.05)
        return self.downloads / name

    def _call(self, method: str, session: str | None = "page", **parameters) -> dict:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _wait(self, event: str) -> None:
        while event not in self._events:
            self._next()

    def _next(self, seconds: float = 300) -> dict:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], seconds)
            part = os.read(self._read, 1 << 20) if ready else b""
            if not part:
                state = "runs" if self._process.poll() is None else "ended"
                raise TimeoutError(f"Chromium does not answer; it {state}: see chromium.log")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        name, about = message.get("method"), message.get("params", {})
        self._events.append(name)
        if name == "Network.requestWillBeSent" and not about["request"]["url"].startswith(("file:", "data:", "blob:")):
            self.asked.append(about["request"]["url"])
        elif name == "Runtime.exceptionThrown":
            self.complaints.append(about["exceptionDetails"]["text"])
        elif name == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.complaints.append(about["entry"]["text"])
        return message
