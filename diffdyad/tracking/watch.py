"""A video file to the motion of the faces in it: landmarks frame by frame, shots, whose face is whose, the fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffdyad.errors import UserError
from diffdyad.head import HeadModel
from diffdyad.motion import Motion
from diffdyad.retarget.landmarks import SurfacePoints
from diffdyad.tracking.fit import fit_landmarks
from diffdyad.tracking.landmarker import NUM_LANDMARKS, Landmarker
from diffdyad.tracking.mediapipe import correspond
from diffdyad.tracking.priors import FitSettings
from diffdyad.tracking.shots import Shots
from diffdyad.video import read_frames, video_info

LONGEST_SIDE = 640
"""Pixels; larger pictures are made smaller first. MediaPipe looks at 192 x 192 of a face."""

_BLOCK = 1500  # frames that are fitted together


class Watch:
    """Faces of a video at `fps`; an iterator over (people, 478, 3), NaN where somebody's face is not seen.

    One person: the face that goes on, the largest one at first. Two: a split screen, the largest face of the left half
    and that of the right. When all frames are read, `cuts` are the frames that begin a shot.
    """

    def __init__(self, path: str | Path, landmarker: Landmarker, fps: float, people: int = 1, start_s: float = 0.0):
        self.path, self.landmarker, self.fps, self.people, self.start_s = path, landmarker, fps, people, start_s
        self.size = video_info(path).fitted(LONGEST_SIDE)
        self._shots = Shots()

    @property
    def cuts(self) -> list[int]:
        return self._shots.cuts()

    def __iter__(self) -> Iterator[np.ndarray]:
        last = None
        for faces in self.landmarker.landmarks(self._frames(), self.size, self.fps, max(2, self.people)):
            chosen = np.full((self.people, NUM_LANDMARKS, 3), np.nan, np.float32)
            if self.people == 2:
                for side, face in assign_halves(faces, self.size[0]).items():
                    chosen[side] = face
            elif len(faces):
                chosen[0] = last = go_on(faces, last)
            yield chosen

    def _frames(self) -> Iterator[np.ndarray]:
        for frame in read_frames(self.path, self.fps, self.size, self.start_s):
            self._shots.add(frame)
            yield frame


def heights(faces: np.ndarray) -> np.ndarray:  # (F, L, 3) -> (F,)
    return faces[..., 1].max(-1) - faces[..., 1].min(-1)


def assign_halves(faces: np.ndarray, width: int) -> dict[int, np.ndarray]:
    """Of a split screen: 0 -> the largest face of the left half, 1 -> that of the right."""
    side = (faces[..., 0].mean(-1) >= width / 2).astype(int)
    tall = heights(faces)
    return {half: faces[side == half][tall[side == half].argmax()] for half in (0, 1) if (side == half).any()}


def go_on(faces: np.ndarray, last: np.ndarray | None) -> np.ndarray:
    """The face that is where the last one was, within half its height; the largest where there is none."""
    if last is not None:
        away = np.linalg.norm((faces.mean(1) - last.mean(0))[:, :2], axis=-1)
        if away.min() < heights(last[None])[0] / 2:
            return faces[away.argmin()]
    return faces[heights(faces).argmax()]


@dataclass
class FaceTrack:
    """motion: at the rate of the landmarks; error_px: (T,) in pictures of at most 640 pixels, NaN = no face; cuts:
    frames that begin a shot."""

    motion: Motion
    error_px: Tensor
    cuts: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.motion)


def fit_track(
    head: HeadModel, landmarks: np.ndarray, fps: float, size: tuple[int, int], cuts: Sequence[int] = (),
    settings: FitSettings | None = None,
) -> FaceTrack | None:
    """landmarks: (T, 478, 3) of one person, possibly on the disk; cuts: frames that begin a shot, over which nothing is
    smoothed. One identity for all of it; then blocks of frames, so that hours need no memory. None without a face."""
    settings = settings or FitSettings()
    seen = np.concatenate([np.isfinite(block[:, 0, 0]) for block in _blocks(landmarks)])
    there = np.flatnonzero(seen)
    if not len(there):
        return None
    some = there[np.unique(np.linspace(0, len(there) - 1, min(len(there), 1000)).round().astype(int))]
    found = correspond(head, np.asarray(landmarks[some], np.float32))
    used = found.used
    points = SurfacePoints(found.points.vertices[used], found.points.weights[used])
    weights, slack = found.weights[used], found.slack_m[used]
    few = some[np.unique(np.linspace(0, len(some) - 1, settings.identity_frames).round().astype(int))]
    first = fit_landmarks(head, points, landmarks[few][:, used], fps, size, weights=weights, slack_m=slack,
                          settings=settings)  # fmt: skip
    parts, errors = [], []
    for begin, end in pairwise(sorted({0, len(landmarks), *cuts})):
        for at in range(begin, end, _BLOCK):
            block = slice(at, min(at + _BLOCK, end))
            if seen[block].any():
                fit = fit_landmarks(head, points, np.asarray(landmarks[block])[:, used], fps, size, weights=weights,
                                    known=first.known, settings=settings)  # fmt: skip
                parts.append(fit.motion)
                errors.append(fit.error_px)
            else:
                layout, count = first.motion.layout, block.stop - block.start
                parts.append(Motion(torch.zeros(count, layout.dim), layout, fps,
                                    valid=torch.zeros(count, len(layout.groups), dtype=torch.bool)))  # fmt: skip
                errors.append(torch.full((count,), torch.nan))
    motion = replace(first.motion, values=torch.cat([part.values for part in parts]),
                     valid=torch.cat([part.valid for part in parts]))  # fmt: skip
    return FaceTrack(motion, torch.cat(errors), tuple(cuts))


def _blocks(landmarks: np.ndarray) -> Iterator[np.ndarray]:
    for begin in range(0, len(landmarks), 4 * _BLOCK):
        yield landmarks[begin : begin + 4 * _BLOCK]


def track_video(
    path: str | Path, head: HeadModel, landmarker: Landmarker, fps: float = 25.0, start_s: float = 0.0
) -> FaceTrack:
    """The one face of a video from `start_s` on, in memory: for clips of a minute or so.

    Raises UserError where the file or MediaPipe does not work, or no face is seen.
    """
    watch = Watch(path, landmarker, fps, start_s=start_s)
    landmarks = np.stack([faces[0] for faces in watch])
    track = fit_track(head, landmarks, fps, watch.size, watch.cuts)
    if track is None:
        found = f"none in {len(landmarks)} pictures"
        raise UserError(f"expected a face in {path}, found {found}; it should look towards the camera")
    return track
