"""The manifest of a dataset: which files are recordings of whom, and how they are to be worked on."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from diffdyad.errors import UserError

LAYOUTS = ("files", "channels", "mixed")


_File = Annotated[str, Field(min_length=1)]
_Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]  # in a record, "" is nobody
_Offset = Annotated[float, Field(ge=-3600, le=3600, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Session(_Strict):
    """One conversation of two people.

    files: one per person, in the order of `speakers`, or a single one; layout: "files" (one per person), "channels" (a
    person per channel) or "mixed" (one microphone); left out, it follows from the number of files and channels.
    speakers: names that are the same person wherever they occur; left out, people of this session alone. channels:
    which channel is whose, from 0. offsets_s: what each file's clock is late by, at most an hour either way. motion:
    results of a tracker, a file (or folder) per person, motion_fps: their rate (left out: that of the video).
    """

    id: str | None = None
    files: Annotated[list[_File], Field(min_length=1, max_length=2)]
    layout: Literal["files", "channels", "mixed"] | None = None
    speakers: Annotated[list[_Name], Field(min_length=2, max_length=2)] | None = None
    channels: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)] = [0, 1]
    offsets_s: Annotated[list[_Offset], Field(min_length=1, max_length=2)] | None = None
    motion: Annotated[list[_File], Field(min_length=2, max_length=2)] | None = None
    motion_fps: Annotated[float, Field(gt=1, lt=1000)] | None = None
    language: str | None = None
    split: Literal["train", "validation", "test"] | None = None
    license: str | None = None
    consent: str | None = None

    @model_validator(mode="after")
    def _agree(self) -> Session:
        if self.layout == "files" and len(self.files) != 2:
            raise ValueError(f"layout 'files' has a file per person: expected 2, found {len(self.files)}")
        if self.layout in ("channels", "mixed") and len(self.files) != 1:
            raise ValueError(f"layout {self.layout!r} has one file, found {len(self.files)}")
        if self.speakers and len(set(self.speakers)) != 2:
            raise ValueError(f"expected two different speakers, found {self.speakers}")
        if self.channels[0] == self.channels[1]:
            raise ValueError(f"expected two different channels, found {self.channels}")
        if self.offsets_s and len(self.offsets_s) != len(self.files):
            raise ValueError(f"expected an offset per file ({len(self.files)}), found {len(self.offsets_s)}")
        return self

    @property
    def name(self) -> str:
        return self.id or re.sub(r"[^A-Za-z0-9._-]+", "_", str(Path(self.files[0]).with_suffix(""))).strip("_.")

    @property
    def people(self) -> tuple[str, str]:
        return tuple(self.speakers) if self.speakers else (f"{self.name}-A", f"{self.name}-B")


class Backends(_Strict):
    """What does each step, by name: docs/recordings.md. words_model, words_revision: weights for `words: whisper`,
    tags_model, tags_revision: for `tags: ast`, separation_model, separation_revision: for `separation: asteroid`, a
    folder or a name on the Hub; affect, face_affect: such a name itself, or "none". motion_basis: of a tracker that can
    work with several, where it is not the usual one.
    mediapipe_python: an interpreter that has MediaPipe; mediapipe_model: a FaceLandmarker model; left out, the
    environment says (`diffdyad.tracking.landmarker`)."""

    activity: str = "silero"
    diarization: str = "resemblyzer"
    separation: str = "none"
    separation_model: str | None = None
    separation_revision: str | None = None
    words: str = "none"
    words_model: str | None = None
    words_revision: str | None = None
    tags: str = "none"
    tags_model: str | None = None
    tags_revision: str | None = None
    prosody: str = "prosody"
    affect: str = "none"
    affect_revision: str | None = None
    face_affect: str = "none"
    face_affect_revision: str | None = None
    motion: str = "none"
    motion_basis: str | None = None
    mediapipe_python: str | None = None
    mediapipe_model: str | None = None

    @model_validator(mode="after")
    def _wanted(self) -> Backends:
        for key, backend in _WEIGHTS_OF.items():
            if getattr(self, key) is not None and getattr(self, backend[0]) != backend[1]:
                found = getattr(self, backend[0])
                raise ValueError(f"{key} is for `{backend[0]}: {backend[1]}`, found `{backend[0]}: {found}`")
        for key in ("affect", "face_affect"):
            if getattr(self, f"{key}_revision") is not None and getattr(self, key) == "none":
                raise ValueError(f"{key}_revision is for an encoder's name in `{key}`, found `{key}: none`")
        return self


_WEIGHTS_OF = {
    "separation_model": ("separation", "asteroid"), "separation_revision": ("separation", "asteroid"),
    "words_model": ("words", "whisper"), "words_revision": ("words", "whisper"),
    "tags_model": ("tags", "ast"), "tags_revision": ("tags", "ast"),
}  # fmt: skip
"""Keys that only one backend takes: the key of that, and its name."""

WEIGHTS = ("separation_model", "words_model", "tags_model", "affect", "face_affect")
"""Keys that name weights."""

LATER = {
    "separation": "none", "separation_model": None, "separation_revision": None,
    "words_model": None, "words_revision": None, "tags": "none", "tags_model": None, "tags_revision": None,
    "affect": "none", "affect_revision": None, "face_affect": "none", "face_affect_revision": None,
    "motion_basis": None,
}  # fmt: skip
"""Keys that there have not always been, and what they are where nothing is asked for: datasets stay what they were."""


class Manifest(_Strict):
    """The whole file. Paths are relative to its folder; license, consent and language are every session's own unless
    that says otherwise."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "recordings"
    license: str = ""
    consent: str = ""
    language: str = ""
    backends: Backends = Backends()
    sessions: Annotated[list[Session], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> Manifest:
        names = [session.name for session in self.sessions]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise ValueError(f"expected a different id for every session, found {twice[0]!r} twice; give `id`")
        return self


def load_manifest(path: str | os.PathLike) -> Manifest:
    """Reads and checks a manifest. Raises UserError with one line that names the entry, what is wrong and where."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"expected a manifest (YAML), found {'a folder' if path.is_dir() else 'nothing'} at {path}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"expected YAML, cannot read {path}: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict):
        raise UserError(f"expected a mapping with `sessions` in {path}, found {type(content).__name__}")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        found = f", found {str(first['input'])[:60]!r}" if first["type"] not in ("missing", "value_error") else ""
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}: {where}: {message}{found}") from None


