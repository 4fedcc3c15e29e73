"""Learning2Listen (Ng et al., CVPR 2022): a host listens to a guest; DECA faces, mel features of the voice."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from diffdyad.data.importers import checks
from diffdyad.data.importers.flame import flame_motion
from diffdyad.data.importers.recording import Importer, Item, Recording, Side
from diffdyad.errors import UserError

_WINDOW, _FACE, _MEL = 64, 184, (256, 128)
_RIGHT = ("fallon",)  # hosts on the right side of the picture


class Learning2Listen(Importer):
    """`data/<host>/{train,test}/p{0,1}_{list_faces,speak_faces,speak_audio,speak_files}_clean_deca.npy`.

    faces (N, 64, 184): expression 50, pose 6 (global, jaw), 128 of detail that are left out; audio (N, 256, 128) mel,
    files (N, 64, 3) the video and frame of every row. Windows that go on in the same video are joined, and frames that
    two windows share are taken once. The listener is p0 (fallon: p1). The sound exists as mel features only, which the
    record has no column for: the exchanges have motion, and no audio.
    """

    name, title, tracker = "learning2listen", "Learning2Listen", "DECA"
    num_expression, takes_fps = 50, True
    basis_reason = "DECA uses FLAME 2020"
    expects = "<host>/train/p0_list_faces_clean_deca.npy and its companions, in the folder or in data/"

    @property
    def fps(self) -> float:
        return self.options.fps or 30.0

    def notes(self) -> list[str]:
        rate = "as given" if self.options.fps else "customary for it, not stated by the source; --fps says otherwise"
        return [
            *super().notes(),
            f"motion is taken as {self.fps:g} fps ({rate})",
            "the source's sound is mel features, from which no voice can be had: exchanges have motion alone",
        ]

    def scan(self) -> Iterator[Item]:
        base = self.source / "data" if (self.source / "data").is_dir() else self.source
        for split in ("train", "test"):
            for folder in sorted(base.glob(f"*/{split}")):
                host = folder.parent.name
                side = 1 if host in _RIGHT else 0
                stems = (f"p{side}_list_faces", f"p{1 - side}_speak_faces", f"p{1 - side}_speak_audio",
                         f"p{1 - side}_speak_files")  # fmt: skip
                files = tuple(str((folder / f"{stem}_clean_deca.npy").relative_to(self.source)) for stem in stems)
                if not any(self.path(file).exists() for file in files):
                    continue
                try:
                    runs = _runs(self.path(files[3]))
                except UserError:
                    runs = [("unread", [])]  # said when it is loaded
                for number, (video, windows) in enumerate(runs):
                    # the guest has no name: whoever is in this video
                    yield Item(
                        f"{host}/{split}/{number:05d}", files, (host, f"{host}-{_short(video)}-guest"), split,
                        f"{host}/{video}", {"windows": windows},
                    )  # fmt: skip

    def load(self, item: Item) -> Recording:
        faces = [checks.read_npy(self.path(file), memory_map=True) for file in item.files[:2]]
        audio = checks.read_npy(self.path(item.files[2]), memory_map=True)
        _runs(self.path(item.files[3]))
        for array, file, shape in (
            (faces[0], item.files[0], (_WINDOW, _FACE)), (faces[1], item.files[1], (_WINDOW, _FACE)),
            (audio, item.files[2], _MEL),
        ):  # fmt: skip
            if array.ndim != 3 or array.shape[1:] != shape:
                raise UserError(f"expected shape (windows, {shape[0]}, {shape[1]}) in {self.path(file)}, found "
                                f"{array.shape}")  # fmt: skip
        if len({len(faces[0]), len(faces[1]), len(audio)}) > 1:
            raise UserError(
                f"expected as many windows in all files, found {len(faces[0])} of the listener, {len(faces[1])} of the "
                f"speaker, {len(audio)} of sound beside {self.path(item.files[0])}"
            )
        sides = []
        for person, array, file in zip(item.people, faces, item.files):
            rows = np.concatenate([array[w, a:, :56] for w, a in item.about["windows"]])
            rows = checks.check_array(rows, (None, 56), f"the faces in {self.path(file)}")
            motion = flame_motion(
                self.expression_basis, self.fps, rows[:, :50], global_orient=rows[:, 50:53], jaw_pose=rows[:, 53:56]
            )
            sides.append(Side(person, motion=motion))
        return Recording(sides, len(rows) / self.fps, listener=0)


def _short(video: str) -> str:
    return "/".join(video.split("/")[-2:]) or video


def _runs(path: Path) -> list[tuple[str, list[tuple[int, int]]]]:
    """Windows in runs that follow each other without a gap: (video, [(window, first new row), ...])."""
    status = checks.require(path).stat()
    return _runs_of(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _runs_of(path: Path, size: int, changed: int) -> list[tuple[str, list[tuple[int, int]]]]:
    names = checks.read_npy(path)
    if names.ndim != 3 or names.shape[1:] != (_WINDOW, 3):
        raise UserError(f"expected shape (windows, {_WINDOW}, 3) in {path}, found {names.shape}")
    located = [_located(names[window]) for window in range(len(names))]
    order = sorted(range(len(names)), key=lambda w: (located[w][0], located[w][1] if located[w][1] is not None else w))
    runs: list[tuple[str, list[tuple[int, int]]]] = []
    end: Any = None  # (video, frame after the last one of the run)
    for window in order:
        video, first = located[window]
        if first is not None and end is not None and end[0] == video and first <= end[1] < first + _WINDOW:
            runs[-1][1].append((window, end[1] - first))
        elif first is not None and end is not None and end[0] == video and end[1] >= first + _WINDOW:
            continue  # nothing new in it
        else:
            runs.append((video, [(window, 0)]))
        end = (video, first + _WINDOW) if first is not None else None
    return runs


def _located(rows: np.ndarray) -> tuple[str, int | None]:  # (64, 3)
    """The video of a window, and its first frame there; None where frames are not numbered one by one."""
    video = str(rows[0, 0])
    numbers = [str(name) for name in rows[:, 2]]
    if len(set(map(str, rows[:, 0]))) > 1 or not all(number.isdigit() for number in numbers):
        return video, None
    frames = [int(number) for number in numbers]
    return video, frames[0] if frames == list(range(frames[0], frames[0] + len(frames))) else None
