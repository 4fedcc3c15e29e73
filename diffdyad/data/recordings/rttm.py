"""RTTM, the usual form of who speaks when, and the diarization error between two of them (NIST's definition)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

from diffdyad.data.recordings.frames import Span
from diffdyad.errors import UserError
from diffdyad.staging import write_text

Speakers = Mapping[str, Sequence[Span]]
"""Speech of each speaker by name."""

_STEPS_PER_S = 1000


def rttm_lines(recording: str, speakers: Speakers) -> list[str]:
    """A line per span, in order of time."""
    spans = sorted((start, end, name) for name, spans in speakers.items() for start, end in spans)
    name = "_".join(recording.split()) or "recording"
    return [f"SPEAKER {name} 1 {a:.3f} {b - a:.3f} <NA> <NA> {who} <NA> <NA>" for a, b, who in spans]


def write_rttm(path: str | os.PathLike, recording: str, speakers: Speakers) -> None:
    """`rttm_lines` as a file, which appears whole or not at all."""
    text = "".join(f"{line}\n" for line in rttm_lines(recording, speakers))
    write_text(Path(path), text)


def read_rttm(path: str | os.PathLike, recording: str | None = None) -> dict[str, list[Span]]:
    """Speakers of one recording (of all, without a name). Raises UserError that names a line that is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"expected an RTTM file, cannot read {path}: {error}") from None
    speakers: dict[str, list[Span]] = {}
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        try:
            start, seconds = float(fields[3]), float(fields[4])
            name = fields[7]
        except (IndexError, ValueError):
            raise UserError(f"expected `SPEAKER file 1 start seconds <NA> <NA> name ...` in {path}, line {number}, "
                            f"found {line[:80]!r}") from None  # fmt: skip
        if recording is None or fields[1] == recording:
            speakers.setdefault(name, []).append((start, start + seconds))
    return speakers


@dataclass(frozen=True)
class DiarizationError:
    """Shares of the reference's speech: missed, false alarm, confused."""

    missed: float
    false_alarm: float
    confused: float

    @property
    def total(self) -> float:
        return self.missed + self.false_alarm + self.confused


def diarization_error(reference: Speakers, found: Speakers) -> DiarizationError:
    """No collar, overlap counted, names paired as suits best. Raises ValueError for a reference without speech."""
    end = max((b for speakers in (reference, found) for spans in speakers.values() for _, b in spans), default=0.0)
    length = round(end * _STEPS_PER_S) + 1
    truth, guess = _masks(reference, length), _masks(found, length)
    if len(guess) < len(truth):
        guess = np.concatenate([guess, np.zeros((len(truth) - len(guess), length), bool)])
    together = (truth[:, None] & guess[None]).sum(2)
    best = max((sum(together[i, j] for i, j in enumerate(order)) for order in
                permutations(range(len(guess)), len(truth))), default=0)  # fmt: skip
    spoken, said = truth.sum(0), guess.sum(0)
    total = int(spoken.sum())
    if not total:
        raise ValueError("expected speech in the reference, found none")
    missed, false_alarm = np.maximum(spoken - said, 0).sum(), np.maximum(said - spoken, 0).sum()
    confused = np.minimum(spoken, said).sum() - best
    return DiarizationError(float(missed / total), float(false_alarm / total), float(confused / total))


def _masks(speakers: Speakers, length: int) -> np.ndarray:  # (K, N) bool
    masks = np.zeros((len(speakers), length), bool)
    for row, spans in zip(masks, speakers.values()):
        for start, end in spans:
            row[max(0, round(start * _STEPS_PER_S)) : max(0, round(end * _STEPS_PER_S))] = True
    return masks
