"""Motion files of other systems: DualTalk's, ARTalk's and UniLS's, ARKit's, beside our own `motion.npz`.

Shapes and what they mean: docs/metrics.md. Foreign names live here and nowhere else.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from diffdyad.data import arkit
from diffdyad.data.importers.flame import flame_motion
from diffdyad.errors import UserError
from diffdyad.motion import Motion, motion_of

LAYOUTS = ("diffdyad", "dualtalk", "unils", "arkit")
SUFFIXES = (".npz", ".npy")

_FOREIGN_FPS = 25.0
_UNILS_KEYS = ("motioncode", "motion_code", "motion")
_ARKIT_KEYS = ("blendshapes", "arkit", "weights")
_UNILS_WIDTHS = (106, 108, 112)
_WIDTHS = {56: "dualtalk", **dict.fromkeys(_UNILS_WIDTHS, "unils"), 52: "arkit", 61: "arkit"}


@dataclass
class MotionFile:
    """What a file holds: the motion, and where it has them the own voice (S,) at 16 kHz and the frames with speech."""

    motion: Motion
    waveform: np.ndarray | None = field(default=None, repr=False)
    speaks: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ReadOptions:
    """layout: one of `LAYOUTS`, or "auto" by keys and widths; basis: the FLAME edition of foreign FLAME codes.

    fps: the rate of files that do not say theirs; None = 25 Hz for DualTalk and UniLS, an error for ARKit.
    """

    layout: str = "auto"
    basis: str = "flame2020"
    fps: float | None = None


def read_motion_file(path: str | os.PathLike, options: ReadOptions | None = None) -> MotionFile:
    """One .npz or .npy. Raises UserError where it cannot be read, its layout is not known, or frames are missing."""
    options = options or ReadOptions()
    path = Path(path)
    if options.layout not in ("auto", *LAYOUTS):
        raise UserError(f"expected a layout among auto, {', '.join(LAYOUTS)}, found {options.layout!r}")
    arrays = _load(path)
    layout = _detect(arrays, path) if options.layout == "auto" else options.layout
    if layout == "diffdyad":
        for name, array in arrays.items():
            if array.ndim == 2 and array.dtype.kind == "f":
                _refuse_gaps(torch.from_numpy(array.astype(np.float64)), path, f" of {name}")
        return MotionFile(motion_of(arrays, path))
    motion = _READERS[layout](arrays, options, path)
    _refuse_gaps(motion.values, path)
    speaks = arrays.get("speech_mask")
    waveform = arrays.get("audio")
    return MotionFile(
        motion, None if waveform is None else np.asarray(waveform, np.float32).ravel(),
        None if speaks is None else np.asarray(speaks).ravel() > 0,
    )  # fmt: skip


def _refuse_gaps(values: torch.Tensor, path: Path, what: str = "") -> None:
    finite = values.isfinite().all(1)
    if not finite.all():
        frames = (~finite).nonzero()[:, 0].tolist()
        raise UserError(f"expected finite numbers in {path}, found NaN or infinity in {len(frames)} of {len(values)} "
                        f"frames{what}, the first at {frames[0]}: frames are missing; fill or cut them")  # fmt: skip
    if not len(values):
        raise UserError(f"expected at least one frame in {path}, found none")


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return {key: loaded[key] for key in loaded.files}
    except FileNotFoundError:
        raise UserError(f"no motion file at {path}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"expected an .npz or .npy without pickled objects, cannot read {path}: {error}") from None


def _detect(arrays: Mapping[str, np.ndarray], path: Path) -> str:
    if "basis" in arrays and "expression" in arrays:
        return "diffdyad"
    if "exp" in arrays:
        return "dualtalk"
    for layout, keys in (("unils", _UNILS_KEYS), ("arkit", _ARKIT_KEYS)):
        if any(key in arrays and arrays[key].ndim == 2 for key in keys):
            return layout
    if "" in arrays and arrays[""].ndim == 2 and arrays[""].shape[1] in _WIDTHS:
        return _WIDTHS[arrays[""].shape[1]]
    found = ", ".join(f"{key or 'an array'} {array.shape}" for key, array in list(arrays.items())[:6]) or "nothing"
    raise UserError(f"expected motion in a known layout in {path} (exp and pose; motioncode; blendshapes; or an array "
                    f"with {', '.join(map(str, sorted(_WIDTHS)))} columns), found {found}; name it with "
                    "--layout or --truth-layout")  # fmt: skip


def _matrix(arrays: Mapping[str, np.ndarray], keys: tuple[str, ...], widths: tuple[int, ...], path: Path) -> np.ndarray:
    """The first of these keys, (T, width) of numbers."""
    key = next((key for key in (*keys, "") if key in arrays), None)
    if key is None:
        raise UserError(f"expected the key {keys[0]!r} in {path}, found {', '.join(sorted(arrays)) or 'nothing'}")
    array = np.squeeze(arrays[key], 0) if arrays[key].ndim == 3 and len(arrays[key]) == 1 else arrays[key]
    if array.ndim != 2 or array.shape[1] not in widths or array.dtype.kind not in "fiu":
        raise UserError(f"expected numbers of shape (frames, {' or '.join(map(str, widths))}) for {key or 'the array'} "
                        f"in {path}, found {array.dtype} {array.shape}")  # fmt: skip
    return np.asarray(array, np.float32)


def _flame(basis: str, fps: float, **groups: np.ndarray) -> Motion:
    """Groups (T, width) as motion, those not named not valid; the neck is folded into global_orient."""
    return replace(flame_motion(basis, fps, **groups), neck_folded=True)


def _fps(arrays: Mapping[str, np.ndarray], options: ReadOptions, path: Path, default: float | None) -> float:
    stored = np.asarray(arrays.get("fps", options.fps or default or 0.0))
    if stored.size != 1 or stored.dtype.kind not in "fiu" or not np.isfinite(stored).all() or stored.item() <= 0:
        raise UserError(f"expected a frame rate for {path}, which says none; give --file-fps")
    return float(stored.item())


def _dualtalk(arrays: Mapping[str, np.ndarray], options: ReadOptions, path: Path) -> Motion:
    """Their dataset's npz: exp (T, 50), pose (T, 6) = global, jaw; or the models' array (T, 56) = exp, jaw, global."""
    fps = _fps(arrays, options, path, _FOREIGN_FPS)
    if "exp" in arrays:
        expression = _matrix(arrays, ("exp",), (50,), path)
        pose = _matrix(arrays, ("pose",), (3, 6), path)
        jaw = pose[:, 3:] if pose.shape[1] == 6 else _matrix(arrays, ("jaw",), (3,), path)
        if not len(expression) == len(pose) == len(jaw):
            raise UserError(f"expected exp, pose and jaw of one length in {path}, found {len(expression)}, {len(pose)} "
                            f"and {len(jaw)} frames")  # fmt: skip
        return _flame(options.basis, fps, expression=expression, global_orient=pose[:, :3], jaw_pose=jaw)
    whole = _matrix(arrays, ("motion",), (56,), path)
    return _flame(options.basis, fps, expression=whole[:, :50], jaw_pose=whole[:, 50:53], global_orient=whole[:, 53:])


def _unils(arrays: Mapping[str, np.ndarray], options: ReadOptions, path: Path) -> Motion:
    """Codes of 112: exp 100, global 3, jaw 3, left eye 3, right eye 3; of 108: the same with the first value of the jaw
    and the first two of each eye alone; of 106 (ARTalk): without eyes."""
    code = _matrix(arrays, _UNILS_KEYS, _UNILS_WIDTHS, path)
    groups = {"expression": code[:, :100], "global_orient": code[:, 100:103]}
    if code.shape[1] == 108:
        zero = np.zeros((len(code), 2), np.float32)
        groups["jaw_pose"] = np.hstack([code[:, 103:104], zero])
        groups["leye_pose"] = np.hstack([code[:, 104:106], zero[:, :1]])
        groups["reye_pose"] = np.hstack([code[:, 106:108], zero[:, :1]])
    else:
        groups["jaw_pose"] = code[:, 103:106]
        if code.shape[1] == 112:
            groups |= {"leye_pose": code[:, 106:109], "reye_pose": code[:, 109:112]}
    return _flame(options.basis, _fps(arrays, options, path, _FOREIGN_FPS), **groups)


def _arkit(arrays: Mapping[str, np.ndarray], options: ReadOptions, path: Path) -> Motion:
    """Coefficients (T, 52), or (T, 61) with the head's and eyes' angles, in Live Link Face's order, or by `names`."""
    widths = (len(arkit.BLENDSHAPES), len(arkit.COLUMNS))
    if "names" not in arrays:
        values = _matrix(arrays, _ARKIT_KEYS, widths, path)
        names = arkit.COLUMNS[: values.shape[1]]
    else:
        names = tuple(str(name) for name in arrays["names"].ravel())
        values = _matrix(arrays, _ARKIT_KEYS, (len(names),), path)
    place = {name.lower(): number for number, name in enumerate(names)}
    if missing := [name for name in arkit.BLENDSHAPES if name.lower() not in place]:
        raise UserError(f"expected ARKit's {widths[0]} blend shapes in {path}, found none of {', '.join(missing[:4])}")
    columns = np.zeros((len(values), widths[1]), np.float32)  # angles that are not there stay zero: not recorded
    for number, name in enumerate(arkit.COLUMNS):
        if name.lower() in place:
            columns[:, number] = values[:, place[name.lower()]]
    _refuse_gaps(torch.from_numpy(columns), path)
    motion, _ = arkit.to_motion(torch.from_numpy(columns), _fps(arrays, options, path, None))
    return motion


_READERS: dict[str, Callable[[Mapping[str, np.ndarray], ReadOptions, Path], Motion]] = {
    "dualtalk": _dualtalk, "unils": _unils, "arkit": _arkit,
}  # fmt: skip
