"""Checks of files as they are read: widths, rates and lengths, both values in every message; no pickle is executed."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE, read_audio
from diffdyad.video import video_info

_TOLERANCE_S = 0.3  # how far sound and motion of one recording may differ in length
_SOUND_HZ, _VIDEO_FPS = (8000, 192000), (10, 240)  # where a source fixes no rate
_TOLERANCE = 0.02  # likewise, relative to the length: far less than 25 fps differ from 30


def require(path: Path) -> Path:
    """The path of a file that is there, and not empty."""
    if not path.is_file():
        raise UserError(f"expected a file, found {'a folder' if path.is_dir() else 'nothing'} at {path}")
    if path.stat().st_size == 0:
        raise UserError(f"expected a file with content, found 0 bytes at {path}")
    return path


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz; pickled objects in it are refused, not run."""
    try:
        with np.load(require(path), allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UserError(f"expected an .npz archive, found a single array in {path}")
            return {key: archive[key] for key in archive.files}
    except UserError:
        raise
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"expected an .npz without pickled objects, cannot read {path}: {_short(error)}") from None


def read_npy(path: Path, memory_map: bool = False) -> np.ndarray:
    """The array of an .npy; pickled objects in it are refused, not run."""
    try:
        array = np.load(require(path), allow_pickle=False, mmap_mode="r" if memory_map else None)
    except UserError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"expected an .npy without pickled objects, cannot read {path}: {_short(error)}") from None
    if not isinstance(array, np.ndarray):
        raise UserError(f"expected an .npy array, found an archive in {path}")
    return array


def read_json(path: Path) -> Any:
    try:
        return json.loads(require(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"expected JSON, cannot read {path}: {_short(error)}") from None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def array_of(arrays: dict[str, Any], key: str, shape: tuple[int | None, ...], where: object) -> np.ndarray:
    """arrays[key] as float32 of that shape (None: any length), finite, at least one frame."""
    if key not in arrays:
        raise UserError(f"expected the key {key!r} in {where}, found {', '.join(sorted(map(str, arrays))[:20])}")
    return check_array(arrays[key], shape, f"{key!r} in {where}")


def check_array(array: Any, shape: tuple[int | None, ...], where: str) -> np.ndarray:
    """float32 of that shape (None: any length), finite, at least one frame."""
    array = np.asarray(array)
    fits = array.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, array.shape))
    if not fits or array.dtype.kind not in "fiu":
        wanted = ", ".join("frames" if want is None else str(want) for want in shape)
        raise UserError(f"expected numbers of shape ({wanted}) for {where}, found {array.dtype} {array.shape}")
    if not array.size:
        raise UserError(f"expected at least one frame for {where}, found shape {array.shape}")
    array = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"expected finite numbers for {where}, found NaN or infinity")
    return array


def wav_rate(path: Path) -> int:
    """Sampling rate that a WAV's header states, in Hz, whatever its samples are."""
    with require(path).open("rb") as file:
        head = file.read(12)
        if head[:4] not in (b"RIFF", b"RF64") or head[8:12] != b"WAVE":
            raise UserError(f"expected a WAV file (RIFF ... WAVE), found {head!r} at the beginning of {path}")
        while len(chunk := file.read(8)) == 8:
            kind, size = struct.unpack("<4sI", chunk)
            if kind == b"fmt " and size >= 8:
                return struct.unpack("<HHI", file.read(8))[2]
            file.seek(size + size % 2, 1)
    raise UserError(f"expected a WAV file with a 'fmt ' chunk, found none in {path}; it is damaged or cut short")


def read_wav(path: Path, rate: int | None) -> np.ndarray:  # (S,)
    """A WAV that must have that rate in Hz (None: its own, as voices are recorded), as 16 kHz mono float32."""
    found = wav_rate(path)
    if rate is not None and found != rate:
        raise UserError(f"expected sound at {rate} Hz in {path}, found {found} Hz; it is not the published file")
    if not _SOUND_HZ[0] <= found <= _SOUND_HZ[1]:
        raise UserError(f"expected sound at {_SOUND_HZ[0]} to {_SOUND_HZ[1]} Hz in {path}, found {found} Hz; it is "
                        "damaged, or not of a voice")  # fmt: skip
    return read_audio(path, SAMPLING_RATE).numpy()


def check_video(path: Path, fps: float | None, seconds: float) -> None:
    """Raises UserError where a video has another rate (None: its own, as faces are filmed; pictures are taken by their
    timestamps), or is not as long as the sound beside it."""
    info = video_info(require(path))
    if fps is not None and abs(info.fps - fps) > _TOLERANCE * fps:
        raise UserError(f"expected {fps:g} fps in {path}, found {info.fps:.5g} fps; it is not the published file")
    if not _VIDEO_FPS[0] <= info.fps <= _VIDEO_FPS[1]:
        raise UserError(f"expected {_VIDEO_FPS[0]} to {_VIDEO_FPS[1]} fps in {path}, found {info.fps:.5g} fps; it is "
                        "damaged, or cannot be tracked")  # fmt: skip
    if info.seconds and abs(info.seconds - seconds) > max(_TOLERANCE_S, _TOLERANCE * seconds):
        raise UserError(f"expected {seconds:.2f} s of video, as of sound, in {path}, found {info.seconds:.2f} s")


def check_rate(num_frames: int, fps: float, seconds: float, where: object) -> None:
    """Raises UserError where so many frames at that rate are not as long as the sound beside them."""
    motion_s = num_frames / fps
    if abs(motion_s - seconds) > max(_TOLERANCE_S, _TOLERANCE * seconds):
        raise UserError(
            f"expected {fps:g} fps, {fps * seconds:.0f} frames for {seconds:.2f} s of sound, found {num_frames} frames "
            f"({num_frames / max(seconds, 1e-9):.2f} fps) in {where}"
        )


def same_length(a: int, b: int, fps: float, where: object) -> int:
    """The shorter of two sides' numbers of frames; UserError where they differ by more than sides of one clip do."""
    if abs(a - b) > max(_TOLERANCE_S * fps, _TOLERANCE * max(a, b)):
        raise UserError(f"expected two sides of one length, found {a} and {b} frames in {where}")
    return min(a, b)
