"""What an importer gives: recordings of one or two people on one clock, in our units, not yet cut into exchanges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from diffdyad.data.recordings.frames import Span
from diffdyad.data.recordings.turns import Turn
from diffdyad.errors import UserError
from diffdyad.motion import Motion
from diffdyad.text import TimedWord

if TYPE_CHECKING:
    from diffdyad.data.exchange import Exchange


@dataclass(frozen=True)
class Item:
    """One recording of a source: where it lies and who is in it; light, and it travels to worker processes.

    item_id: unique in the source, and made of its own names; files: relative to the source, all of them; people: the
    sides in order; split: "train", "validation" or "test" where the source fixes it; group: what several items were
    cut from (a video), where the source says; about: whatever else the importer needs to load it.
    """

    item_id: str
    files: tuple[str, ...]
    people: tuple[str, ...]
    split: str | None = None
    group: str = ""
    about: dict[str, Any] = field(default_factory=dict)


@dataclass
class Side:
    """One person of a recording.

    waveform: (S,) float32, 16 kHz, this person's voice alone; (0,) = none. motion: at the source's rate; None = none.
    speech: when this person speaks, where the source says. video: file relative to the source, to be tracked.
    foreign: arrays in the source's own terms, which no group of ours can hold; they are kept apart.
    """

    name: str
    waveform: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32), repr=False)
    motion: Motion | None = field(default=None, repr=False)
    betas: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32), repr=False)
    words: list[TimedWord] = field(default_factory=list, repr=False)
    speech: list[Span] | None = None
    video: str = ""
    foreign: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def cut(self, begin: int, end: int) -> np.ndarray:
        """Samples of this person's voice."""
        return np.clip(self.waveform[begin:end], -1.0, 1.0).astype(np.float32)


@dataclass
class Recording:
    """Two people (or one), from 0 s to duration_s.

    listener: index of the side that hears the other out from beginning to end, where the source says so. source: name
    of the corpus in the records. turns: where they are known, instead of being found in the sides' speech. notes: what
    is to be said about it. about: more for its line in the report. cuts_s: where the picture goes over to another shot,
    which no exchange crosses.
    """

    sides: list[Side]
    duration_s: float
    listener: int | None = None
    source: str = ""
    turns: list[Turn] | None = None
    notes: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    cuts_s: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class ImportOptions:
    """What a user can choose.

    basis: of FLAME expressions, instead of the importer's own; fps: the motion's rate, where the source does not
    state it; swapped: what is done where the sides' voices are exchanged ("fix", "keep" or "drop"); split: "source"
    (its own, where it has one) or "people" (by the connected components of the speaker graph); limit: at most so
    many recordings, for a first look. tracker, tracked: what has made motion of the videos of a source that has
    nothing else (`tracked.TRACKERS`), and the folder with its results, named like the videos; fps is then theirs.
    """

    basis: str | None = None
    fps: float | None = None
    swapped: str = "fix"
    split: str = "source"
    limit: int | None = None
    tracker: str | None = None
    tracked: str | None = None

    def identity(self) -> dict[str, Any]:
        """What the result depends on: neither how much of it is made, nor where a tracker's results lie."""
        what = {**asdict(self), "limit": None}
        del what["tracked"]
        return what if self.tracker else {key: value for key, value in what.items() if key != "tracker"}


class Importer:
    """A dataset in its published form. Subclasses find its recordings (`scan`) and read one (`load`).

    num_expression: columns of expressions in the shards; takes_fps: the source does not state its rate; license and
    consent are what the source states of itself, "" where it states nothing.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    license: ClassVar[str] = ""
    consent: ClassVar[str] = ""
    tracker: ClassVar[str] = ""
    basis: ClassVar[str] = "flame2020"
    basis_reason: ClassVar[str] = ""
    num_expression: ClassVar[int] = 50
    neck_folded: ClassVar[bool] = True
    takes_fps: ClassVar[bool] = False
    has_videos: ClassVar[bool] = False  # its faces are to be tracked
    items_per_shard: ClassVar[int] = 64
    expects: ClassVar[str]
    version: ClassVar[int] = 1
    compares_sides: ClassVar[bool] = True  # voices may be exchanged between the sides
    takes_silences: ClassVar[bool] = False  # a face that moves while nobody is heard after a turn is an answer
    rebuilds: ClassVar[bool] = False  # other settings in the same folder start anew, instead of being refused

    def __init__(self, source: Path, options: ImportOptions | None = None):
        self.source, self.options = Path(source), options or ImportOptions()
        self.steps_folder: Path | None = None  # for results of work that is done in steps

    @property
    def expression_basis(self) -> str:
        return self.options.basis or self.basis

    def check_source(self) -> None:
        """Raises UserError where there is no such source."""
        if not self.source.is_dir():
            raise UserError(f"expected the folder of {self.title}, found nothing at {self.source}")

    def settings(self) -> dict[str, Any]:
        """What else the result depends on, for the folder's settings."""
        return {}

    def scan(self) -> Iterator[Item]:
        """All recordings, without reading them. Raises UserError where the folder is none of this dataset."""
        raise NotImplementedError

    def load(self, item: Item) -> Recording:
        """Reads one recording. Raises UserError that names the file, what was expected and what was found."""
        raise NotImplementedError

    def videos(self, item: Item) -> tuple[str, ...]:
        """Files with the faces of a recording's sides, relative to the source, where it `has_videos`."""
        return ()

    def complete(self, recording: Recording, exchanges: list[Exchange]) -> None:
        """Adds to the exchanges of a recording what only this source knows."""

    def close(self) -> None:
        """Lets go of what `load` has opened."""

    def notes(self) -> list[str]:
        """What the report says of every import of this dataset."""
        if self.basis_reason and self.options.basis is None:
            return [f"expressions are taken as basis {self.basis} ({self.basis_reason}); --basis says otherwise"]
        return []

    def path(self, name: str) -> Path:
        return self.source / name
