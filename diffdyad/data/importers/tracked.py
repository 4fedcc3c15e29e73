"""Faces of datasets that are published as videos: what a tracker has made of these becomes their motion."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path, PurePosixPath

from diffdyad.data.importers import checks
from diffdyad.data.importers.recording import Importer, Item, Recording
from diffdyad.data.recordings import trackers
from diffdyad.errors import UserError
from diffdyad.head import HeadModel
from diffdyad.motion import Motion, MotionLayout
from diffdyad.tracking.fit import NAME
from diffdyad.tracking.landmarker import Landmarker
from diffdyad.tracking.watch import track_video
from diffdyad.video import video_info

PREVIEW = "preview"
TRACKERS = (PREVIEW, *trackers.FORMATS)
"""Names for `--tracker`: our own fit to the videos, or the results of a tracker, which lie in `--tracked`."""

FPS = 25.0


def adopt(importer: Importer) -> None:
    """The importer's motion is that of the tracker of its options, where they name one.

    Raises UserError for options that do not go together, or a dataset without videos.
    """
    options, name = importer.options, importer.options.tracker
    if name is None and options.tracked is not None:
        raise UserError(f"expected --tracker with --tracked, one of {', '.join(trackers.FORMATS)}; found none")
    if name is None:
        return
    if not importer.has_videos:
        raise UserError(f"{importer.title} comes with motion: expected no --tracker, found {name!r}")
    if name not in TRACKERS:
        raise UserError(f"expected a tracker among {', '.join(TRACKERS)}, found {name!r}")
    if name == PREVIEW:
        if options.tracked or options.basis:
            what = "--tracked" if options.tracked else "--basis"
            raise UserError(f"--tracker {PREVIEW} watches the videos itself, in a basis of its own: expected no {what}")
        Landmarker.find()
        layout = MotionLayout.arkit()
        importer.basis, importer.num_expression = layout.basis, layout.num_expression
        importer.tracker, importer.neck_folded = f"{NAME} (MediaPipe)", True
        return
    if options.tracked is None or not Path(options.tracked).is_dir():
        raise UserError(f"expected --tracked with the folder of {name}'s results, found {options.tracked or 'none'}")
    form = trackers.FORMATS[name]
    importer.basis, importer.num_expression = trackers.basis_of(name, options.basis), form.num_expression
    importer.tracker, importer.neck_folded = form.title, form.neck_folded


def results(importer: Importer, item: Item) -> dict[str, Path]:
    """A tracker's files of a recording, by what they are called in the report."""
    if importer.options.tracker not in trackers.FORMATS:
        return {}
    found = {}
    for video in importer.videos(item):
        path = _result(importer, video)
        files = trackers.frame_files(path, importer.options.tracker) if path.is_dir() else [path]
        folder = Path(importer.options.tracked)
        found |= {f"{importer.options.tracker}:{file.relative_to(folder).as_posix()}": file for file in files}
    return found


def attach(importer: Importer, item: Item, recording: Recording) -> None:
    """Puts the tracker's motion into every side; what the source itself measured of the face gives way.

    Raises UserError that names the file, what was expected and what was found.
    """
    if importer.options.tracker is None:
        return
    for side, video in zip(recording.sides, importer.videos(item), strict=True):
        side.motion, cuts_s = _motion(importer, video, recording.duration_s)
        recording.cuts_s += cuts_s
        if side.motion.betas is not None:
            side.betas = side.motion.betas.numpy()
        side.video = ""


def _motion(importer: Importer, video: str, seconds: float) -> tuple[Motion, list[float]]:
    """And where the picture goes over to another shot, where we have watched it."""
    name, where = importer.options.tracker, importer.path(video)
    if name == PREVIEW:
        track = track_video(checks.require(where), _clay(), Landmarker.find(), FPS)
        checks.check_rate(len(track), FPS, seconds, where)
        return track.motion, [frame / FPS for frame in track.cuts]
    path = _result(importer, video)
    if not path.exists():
        raise UserError(f"expected what {importer.tracker} found in {video} at {path}, found nothing")
    fps = importer.options.fps or (video_info(where).fps if where.is_file() else 0.0)
    if not fps and name != "motion":
        raise UserError(f"{path} does not state its rate, and there is no {where}: expected --fps, found none")
    return trackers.read_tracked(path, name, fps, seconds, importer.expression_basis), []


def _result(importer: Importer, video: str) -> Path:
    """Of a video `a/b.mp4`: `a/b.npz` in the folder of results, or a folder `a/b`."""
    stem = Path(importer.options.tracked) / PurePosixPath(video).with_suffix("")
    return stem if stem.is_dir() else stem.with_name(f"{stem.name}.npz")


@lru_cache(maxsize=1)
def _clay() -> HeadModel:
    return HeadModel.clay()
