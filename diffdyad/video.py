"""Pictures out of video files: at one rate by their timestamps, on the same clock as `diffdyad.media`'s sound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from diffdyad.errors import UserError

_LARGEST_GAP_S = 3600.0


@dataclass(frozen=True)
class VideoInfo:
    """width, height: of the pictures as they are shown (a phone's may be stored lying down); fps: the file's own, on
    average, 0 = not known; seconds: as far as the file says, 0 = not known."""

    width: int
    height: int
    fps: float
    seconds: float

    def fitted(self, longest: int) -> tuple[int, int]:
        """Width and height, even, with no side longer than `longest` and the same shape."""
        share = min(1.0, longest / max(self.width, self.height))
        return tuple(max(2, 2 * round(side * share / 2)) for side in (self.width, self.height))


def has_video(path: str | Path) -> bool:
    """Whether a file has moving pictures; False where it cannot be read."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            return bool(_streams(container))
    except (av.FFmpegError, OSError):
        return False


def has_sound(path: str | Path) -> bool:
    """Whether a file has a sound track; True where it cannot be read: whoever reads its sound will say why."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            return bool(container.streams.audio)
    except (av.FFmpegError, OSError):
        return True


def video_info(path: str | Path) -> VideoInfo:
    """Raises UserError where the file cannot be read or has no moving pictures."""
    with _opened(path) as container:
        stream = _streams(container)[0]
        turned = _turns(next(iter(container.decode(stream)), None)) % 2
        width, height = stream.codec_context.width, stream.codec_context.height
        seconds = (container.duration or 0) / av.time_base
        return VideoInfo(*((height, width) if turned else (width, height)), float(stream.average_rate or 0), seconds)


def read_frames(
    path: str | Path, fps: float, size: tuple[int, int], start_s: float = 0.0
) -> Iterator[np.ndarray]:  # (H, W, 3) uint8
    """Pictures at `fps` as RGB of `size` (width, height): those that are shown at times (k + 1/2) / fps from the
    file's own time zero (or `start_s`) on; zero is the earliest start of its sound and pictures. Before the first
    picture there is the first.

    Raises UserError as `video_info` does, and where the file is damaged.
    """
    with _opened(path) as container:
        stream = _streams(container)[0]
        stream.thread_type = "AUTO"
        tracks = [s for s in (*container.streams.audio, stream) if s.start_time is not None]
        origin = min((float(s.start_time * s.time_base) for s in tracks), default=0.0)
        first = given = max(0, round(start_s * fps))
        last, count = None, 0
        usual = 1 / float(stream.average_rate or fps)
        end = 0.0
        try:
            for frame in container.decode(stream):
                at = float(frame.pts * frame.time_base) - origin if frame.pts is not None else count * usual
                if at > end + _LARGEST_GAP_S:
                    raise UserError(f"{path}: time jumps by {at - end:.0f} s at {end:.3f} s; re-encode it")
                count, end = count + 1, at + usual
                # every moment before this picture's time shows the one before it
                while last is not None and (given + 0.5) / fps < at:
                    yield last
                    given += 1
                if (given + 0.5) / fps < end or last is None:
                    last = _picture(frame, size)
        except av.FFmpegError as error:
            reason = f"{error.strerror}; it is damaged or cut short"
            raise UserError(f"cannot read the pictures of {path}: {reason}") from None
        while last is not None and (given + 0.5) / fps < end:
            yield last
            given += 1
        if given == first:
            raise UserError(f"expected at least one picture, found none in {path} from {start_s:g} s on")


def _picture(frame, size: tuple[int, int]) -> np.ndarray:
    turns = _turns(frame)
    width, height = size if turns % 2 == 0 else size[::-1]
    picture = frame.reformat(width, height, "rgb24", interpolation="AREA").to_ndarray()
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def _turns(frame) -> int:
    """Quarter turns, anti-clockwise, that a picture needs to be shown upright."""
    return round(getattr(frame, "rotation", 0) / 90) % 4 if frame is not None else 0


def _streams(container) -> list:
    return [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]


def _opened(path: str | Path):
    path = Path(path)
    if not path.is_file():
        raise UserError(f"expected a video file, found {'a folder' if path.is_dir() else 'nothing'}: {path}")
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', error)}; it is not a video") from None
    if not _streams(container):
        container.close()
        raise UserError(f"expected moving pictures, found none in {path}")
    return container
