"""Live Link Face recordings, and other ARKit CSV files of its 61 columns: one person each, on their own."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from diffdyad.data import arkit
from diffdyad.data.importers import checks
from diffdyad.data.importers.recording import Importer, Item, Recording, Side
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE, read_audio
from diffdyad.motion import ARKIT_EXPRESSIONS

_TIMECODE = re.compile(r"(\d+):(\d+):(\d+)[:;](\d+(?:\.\d+)?)")
_RATES = (24, 25, 30, 50, 60, 120)
_LONGEST_GAP_S = 0.25  # frames that were dropped for longer are not made up
_SOUNDS = (".wav", ".m4a", ".mov", ".mp4", ".flac", ".mp3")


class LiveLink(Importer):
    """`NAME.csv` with Timecode, BlendshapeCount and 61 columns in any case, and the sound of the same name beside it.

    60 fps, or 30 on some phones: seen from the timecodes, by which dropped frames are filled (gaps over 0.25 s are not
    valid). ARKit basis. The person is the file's folder, or the file's name where it lies in the folder itself.
    """

    name, title, tracker, basis = "livelink", "Live Link Face recordings", "ARKit", "arkit"
    num_expression, takes_fps = len(ARKIT_EXPRESSIONS), True
    license = "your own recordings"
    expects = "NAME.csv with Timecode, BlendshapeCount and 61 columns"

    def scan(self) -> Iterator[Item]:
        for path in sorted(self.source.rglob("*.csv")):
            if not _is_recording(path):
                continue
            relative = path.relative_to(self.source)
            person = relative.parts[-2] if len(relative.parts) > 1 else path.stem
            sounds = [path.with_suffix(ending) for ending in _SOUNDS if path.with_suffix(ending).is_file()][:1]
            files = (str(relative), *(str(sound.relative_to(self.source)) for sound in sounds))
            yield Item(str(relative.with_suffix("")), files, (person,))

    def load(self, item: Item) -> Recording:
        path = self.path(item.files[0])
        times, values, fps = read_csv(path, self.options.fps)
        steady, valid = _steady(times, values, fps)
        motion, notes = arkit.to_motion(torch.from_numpy(steady), fps, torch.from_numpy(valid))
        side = Side(item.people[0], motion=motion)
        seconds = len(steady) / fps
        if len(item.files) > 1:
            side.waveform = read_audio(self.path(item.files[1]), SAMPLING_RATE).numpy()
            sound_s = len(side.waveform) / SAMPLING_RATE
            checks.check_rate(len(steady), fps, sound_s, path)
            seconds = min(seconds, sound_s)
        else:
            notes.append("no sound of the same name beside it")
        return Recording([side], seconds, notes=notes)


def _is_recording(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return file.readline(64).lower().startswith("timecode,blendshapecount")
    except OSError:
        return False


def read_csv(path: Path, fps: float | None = None) -> tuple[np.ndarray, np.ndarray, float]:
    """Times (N,) in seconds from the first frame on, values (N, 61) in the order of `arkit.COLUMNS`, and the rate."""
    try:
        with checks.require(path).open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise UserError(f"expected a CSV file, cannot read {path}: {error}") from None
    order = arkit.column_order(header, str(path))
    if not rows:
        raise UserError(f"expected at least one frame in {path}, found the header alone")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise UserError(f"expected {len(header)} values in line {number} of {path}, found {len(row)}")
    try:
        counts = {int(float(row[1])) for row in rows}
        values = np.array([[row[column] for column in order] for row in rows], dtype=np.float32)
    except ValueError as error:
        raise UserError(f"expected numbers in {path}, found: {error}") from None
    if counts - {0, len(arkit.COLUMNS)}:  # 0: frames without a face
        raise UserError(f"expected BlendshapeCount {len(arkit.COLUMNS)} in {path}, found {sorted(counts)}")
    if not np.isfinite(values).all():
        raise UserError(f"expected finite numbers in {path}, found NaN or infinity")
    tracked = np.array([int(float(row[1])) > 0 for row in rows])
    times, rate = _times([row[0] for row in rows], path, fps)
    if not tracked.any():
        raise UserError(f"expected at least one frame with a face in {path}, found none")
    return times[tracked] - times[0], values[tracked], rate


def _times(codes: list[str], path: Path, fps: float | None) -> tuple[np.ndarray, float]:
    """Seconds of HH:MM:SS:FF.fff timecodes, and the rate: FF counts frames, .fff is a part of one."""
    parts = []
    for code in codes:
        match = _TIMECODE.fullmatch(code.strip())
        if match is None:
            raise UserError(f"expected timecodes HH:MM:SS:FF.fff in {path}, found {code!r}")
        parts.append([float(group) for group in match.groups()])
    clock = np.array(parts)
    whole = clock[:, :3] @ [3600.0, 60.0, 1.0]
    if fps is None:
        highest = int(clock[:, 3].max())
        if whole[-1] == whole[0] and len(codes) > 1:
            raise UserError(f"cannot tell the rate of {path}, which is shorter than a second; give it with --fps")
        fps = next((float(rate) for rate in _RATES if rate > highest), 0.0)
        if not fps:
            raise UserError(f"expected a rate among {', '.join(map(str, _RATES))} fps in {path}, found frame {highest}")
    elif clock[:, 3].max() >= fps:
        raise UserError(f"expected {fps:g} fps, found frame number {clock[:, 3].max():g} in a second of {path}")
    times = whole + clock[:, 3] / fps
    times = times + 86400.0 * np.concatenate([[0], np.cumsum(np.diff(times) < -43200.0)])  # midnight
    if (np.diff(times) <= 0).any():
        line = int(np.flatnonzero(np.diff(times) <= 0)[0]) + 3
        raise UserError(f"expected rising timecodes in {path}, found {codes[line - 2]!r} in line {line}")
    return times, fps


def _steady(times: np.ndarray, values: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Values at a steady rate, and where they were measured: (T, 61), (T,)."""
    grid = np.arange(round((times[-1]) * fps) + 1) / fps
    steady = np.stack([np.interp(grid, times, column) for column in values.T], 1).astype(np.float32)
    after = np.searchsorted(times, grid).clip(0, len(times) - 1)
    before = (after - 1).clip(0)
    gap = np.where(np.abs(times[after] - grid) < 0.5 / fps, 0.0, times[after] - times[before])
    return steady, (gap <= _LONGEST_GAP_S) & (grid >= times[0] - 0.5 / fps)
