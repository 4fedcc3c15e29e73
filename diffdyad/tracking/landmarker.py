"""Landmarks of faces in pictures, by MediaPipe in a process of its own: its pins clash with ours."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffdyad.errors import UserError

PYTHON, MODEL = "DIFFDYAD_MEDIAPIPE_PYTHON", "DIFFDYAD_MEDIAPIPE_MODEL"
"""Environment variables: an interpreter that has MediaPipe, and a FaceLandmarker model (.task)."""

NUM_LANDMARKS = 478
_WORKER = Path(__file__).with_name("mediapipe_worker.py")
_HOW = (
    f"make an environment of its own (python -m venv DIR; DIR/bin/pip install mediapipe==0.10.21, the last with models "
    f"in its wheel) and name its interpreter: {PYTHON}=DIR/bin/python"
)


@dataclass(frozen=True)
class Landmarker:
    """python: an interpreter with MediaPipe; model: a FaceLandmarker .task file, "" = the models in the package."""

    python: str
    model: str = ""

    @classmethod
    def find(cls, python: str | None = None, model: str | None = None) -> Landmarker:
        """As given, or else as the environment says. Raises UserError that says how to come by one."""
        python = python or os.environ.get(PYTHON)
        model = model or os.environ.get(MODEL) or ""
        if not python:
            raise UserError(f"a face's landmarks are found by MediaPipe, found no interpreter that has it; {_HOW}")
        if not os.access(python, os.X_OK) or Path(python).is_dir():
            raise UserError(f"expected an interpreter that has MediaPipe, found nothing to run at {python}; {_HOW}")
        if model and not Path(model).is_file():
            raise UserError(f"expected a FaceLandmarker model (.task), found nothing at {model}")
        return cls(str(python), str(model))

    def version(self) -> str:
        """MediaPipe's. Raises UserError where it does not run."""
        with _Worker(self, (64, 64), 25.0, 1) as worker:
            return worker.version

    def landmarks(
        self, frames: Iterable[np.ndarray], size: tuple[int, int], fps: float, faces: int = 1
    ) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) RGB in their order -> the landmarks of each (F, 478, 3), F up to `faces`: columns and rows
        in pixels, depth in the same unit, less is nearer. size: width and height.

        Raises UserError where MediaPipe does not run, or stops.
        """
        with _Worker(self, size, fps, faces) as worker:
            for frame in frames:
                yield worker.ask(frame)


class _Worker:
    """The process; a context."""

    def __init__(self, landmarker: Landmarker, size: tuple[int, int], fps: float, faces: int):
        self.landmarker, self.size = landmarker, size
        self.request = {"width": size[0], "height": size[1], "fps": fps, "faces": faces, "model": landmarker.model}
        self.version = ""

    def __enter__(self) -> _Worker:
        self.log = tempfile.TemporaryFile()
        try:
            self.process = subprocess.Popen(
                [self.landmarker.python, "-I", str(_WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self.log, env={**os.environ, "GLOG_minloglevel": "2", "TF_CPP_MIN_LOG_LEVEL": "2"},
            )  # fmt: skip
        except OSError as error:
            self.log.close()
            raise UserError(f"cannot run {self.landmarker.python}: {error.strerror}; {_HOW}") from None
        try:
            self._write(json.dumps(self.request).encode() + b"\n")
            answer = self.process.stdout.readline()
            if not answer:
                self._stopped()
            answer = json.loads(answer)
            if "error" in answer:
                raise UserError(f"MediaPipe does not run in {self.landmarker.python}: {answer['error']}; {_HOW}")
            self.version = answer["version"]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        with suppress(OSError):
            self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def ask(self, frame: np.ndarray) -> np.ndarray:  # (H, W, 3) -> (F, 478, 3)
        if frame.shape != (self.size[1], self.size[0], 3) or frame.dtype != np.uint8:
            raise ValueError(f"expected a frame of {self.size[0]} x {self.size[1]} in RGB, got {frame.shape}")
        self._write(np.ascontiguousarray(frame).data)
        count = self.process.stdout.read(1)
        if not count:
            self._stopped()
        size = count[0] * NUM_LANDMARKS * 3 * 4
        data = self.process.stdout.read(size)
        if len(data) < size:
            self._stopped()
        return np.frombuffer(data, "<f4").reshape(count[0], NUM_LANDMARKS, 3)

    def _write(self, data) -> None:
        try:
            self.process.stdin.write(data)
            self.process.stdin.flush()
        except BrokenPipeError:
            self._stopped()

    def _stopped(self) -> None:
        self.process.wait()
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1][:300]}" if lines else ""
        code = self.process.returncode
        raise UserError(f"MediaPipe's process ended ({code}) in {self.landmarker.python}{last}; {_HOW}")
