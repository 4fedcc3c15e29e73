"""LM-Listener (Ng et al., ICCV 2023): segments in which a host listens to a guest whose words are known."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from diffdyad.data.importers import checks
from diffdyad.data.importers.flame import flame_motion
from diffdyad.data.importers.recording import Importer, Item, Recording, Side
from diffdyad.errors import UserError
from diffdyad.text import TimedWord
from diffdyad.unpickle import load_arrays

_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_LONGEST_WORD_S = 0.6  # words have an end; they begin where the one before ended, but no earlier than this
_TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before its files were archives


class LMListener(Importer):
    """`segments_{train,val,test}.pth`: a list of dicts.

    fname, split_{start,end}_frame, p0_* (listener) and p1_* (speaker) with exp (T, 50), pose (T, 6), shape (T, 100);
    before_words, during_words = {text, end}, end in seconds of the video. Files of torch.save, or plain pickles:
    arrays, strings, numbers and containers are read, anything else is refused unread. There is no sound, so the
    exchanges have motion and words.
    """

    name, title, tracker = "lm-listener", "LM-Listener", "DECA"
    num_expression, takes_fps = 50, True
    basis_reason = "DECA uses FLAME 2020"
    expects = "segments_train.pth, segments_val.pth or segments_test.pth, in the folder or in folders of it"

    @property
    def fps(self) -> float:
        return self.options.fps or 30.0

    def notes(self) -> list[str]:
        return [*super().notes(), "the source has no sound: exchanges have motion and the speaker's words"]

    def scan(self) -> Iterator[Item]:
        for name, split in _SPLITS.items():
            file = f"segments_{name}.pth"
            for path in sorted({*self.source.glob(file), *self.source.glob(f"*/{file}")}):
                relative = str(path.relative_to(self.source))
                try:
                    segments = _segments(path)
                except UserError:
                    yield Item(relative, (relative,), (relative,), split)  # said when it is loaded
                    continue
                for number, segment in enumerate(segments):
                    video = str(segment.get("fname", "")) if isinstance(segment, dict) else ""
                    host = video.split("/")[0] or "host"
                    guest = f"{video or number}-guest"  # whoever is in this video
                    yield Item(f"{relative}/{number:06d}", (relative,), (host, guest), split, video, {"number": number})

    def load(self, item: Item) -> Recording:
        path = self.path(item.files[0])
        segment = _segments(path)[item.about.get("number", 0)]
        where = f"segment {item.about.get('number', 0)} of {path}"
        if not isinstance(segment, dict):
            raise UserError(f"expected a dict for {where}, found a {type(segment).__name__}")
        first, last = (self._frame(segment, key, where) for key in ("split_start_frame", "split_end_frame"))
        sides = []
        for person, who in zip(item.people, ("p0", "p1")):
            parts = {}
            for key, width in (("exp", 50), ("pose", 6), ("shape", 100)):
                parts[key] = checks.array_of(segment, f"{who}_{key}", (None, width), where)
                if len(parts[key]) != last - first:
                    raise UserError(
                        f"expected {last - first} frames of {who}_{key}, from {first} to {last}, found "
                        f"{len(parts[key])} in {where}"
                    )
            motion = flame_motion(
                self.expression_basis, self.fps, parts["exp"], global_orient=parts["pose"][:, :3],
                jaw_pose=parts["pose"][:, 3:],
            )  # fmt: skip
            sides.append(Side(person, motion=motion, betas=parts["shape"].mean(0)))
        sides[1].words = self._words(segment, first, where)
        return Recording(sides, (last - first) / self.fps, listener=0)

    @staticmethod
    def _frame(segment: dict[str, Any], key: str, where: str) -> int:
        value = segment.get(key)
        if not isinstance(value, int | np.integer):
            raise UserError(f"expected a frame number for {key!r} in {where}, found {value!r}")
        return int(value)

    def _words(self, segment: dict[str, Any], first: int, where: str) -> list[TimedWord]:
        """The speaker's words on the segment's clock; those before it come out negative, and are left out later."""
        start_s, words, before = first / self.fps, [], float("-inf")
        for word in [*segment.get("before_words", []), *segment.get("during_words", [])]:
            if not (isinstance(word, dict) and isinstance(word.get("text"), str) and "end" in word):
                raise UserError(f"expected words as {{text, end}} in {where}, found {str(word)[:80]}")
            end = float(word["end"]) - start_s
            words.append(TimedWord(word["text"].strip(), max(before, end - _LONGEST_WORD_S), end))
            before = end
        return words


def _segments(path: Path) -> list[Any]:
    status = checks.require(path).stat()
    return _read(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=2)
def _read(path: Path, size: int, changed: int) -> list[Any]:
    """The list in a file of torch.save or a plain pickle, tensors as arrays; nothing of it is executed."""
    with path.open("rb") as file:
        head = file.read(len(_TORCH_MAGIC))
    content = _load_torch(path) if zipfile.is_zipfile(path) or head == _TORCH_MAGIC else load_arrays(path)
    if not isinstance(content, list) or not content:
        raise UserError(f"expected a list of segments in {path}, found a {type(content).__name__}")
    return content


def _load_torch(path: Path) -> Any:
    """torch's restricted loader: tensors, strings, numbers and containers; and numpy arrays, which older files hold."""
    import torch
    from numpy._core.multiarray import _reconstruct, scalar

    kinds = [type(np.dtype(code)) for code in "?bBhHiIlLqQefdU"]
    arrays = [np.ndarray, np.dtype, *kinds, (_reconstruct, "numpy.core.multiarray._reconstruct"), _reconstruct,
              (scalar, "numpy.core.multiarray.scalar"), scalar]  # fmt: skip
    try:
        with torch.serialization.safe_globals(arrays):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line), str(error).splitlines()[0])
        raise UserError(
            f"expected tensors, arrays, strings, numbers and containers only in {path}; refused, nothing of it was run "
            f"({' '.join(reason.split())[:160]})"
        ) from None
    except (RuntimeError, ValueError, EOFError, KeyError, OSError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"expected a file of torch.save, cannot read {path}: {reason}") from None
    return _as_arrays(content)


def _as_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_arrays(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_arrays(item) for item in value]
    return value.numpy() if hasattr(value, "numpy") else value
