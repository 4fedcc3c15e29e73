"""UniLSTalk (Chu et al. 2026): conversations of Seamless Interaction, both faces tracked with EMICA, in an LMDB."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from diffdyad.data.importers import checks
from diffdyad.data.importers.flame import flame_motion
from diffdyad.data.importers.recording import Importer, Item, Recording, Side, Span
from diffdyad.data.recordings.frames import mask_spans
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE

FPS = 25.0
_PAIRS = "seamless_interaction_pairs.json"
_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
_KEY = re.compile(r"(V\d+_S\d+_I\d+)_(P\d+)")
_CODE = {"global_orient": slice(100, 103), "jaw_pose": slice(103, 106), "leye_pose": slice(106, 109),
         "reye_pose": slice(109, 112)}  # fmt: skip


class UniLSTalk(Importer):
    """`seamless_interaction_pairs.json` beside an LMDB; [split] = entries [key, key, frames].

    Values are np.savez bytes: audio (S,) at 16 kHz, motioncode (T, 112) = expression 100, global 3, jaw 3, left eye 3,
    right eye 3 at 25 fps, speech_mask. The neck is fixed at 0, its rotation is in the global one. Reads LMDB through
    the package `lmdb` (extra `data`).
    """

    name, title, tracker = "unilstalk", "UniLSTalk", "EMICA"
    license = "CC-BY-NC-4.0 (Seamless Interaction, which it is made from); see the dataset's own page"
    num_expression = 100
    basis_reason = "EMICA, and the model that the dataset was published with, use FLAME 2020"
    items_per_shard = 8  # conversations of many minutes
    expects = f"{_PAIRS}, in the folder itself or in SeamlessInteractionTalk/, and a folder with data.mdb beside it"

    @property
    def _folder(self) -> Path:
        for folder in (self.source, self.source / "SeamlessInteractionTalk"):
            if (folder / _PAIRS).is_file():
                return folder
        raise UserError(f"expected {self.expects}, found no {_PAIRS} in {self.source}")

    @property
    def _database(self) -> Path:
        found = sorted(path.parent for path in self._folder.glob("*/data.mdb"))
        if (self._folder / "data.mdb").is_file():
            found = [self._folder]
        if len(found) != 1:
            raise UserError(f"expected one folder with data.mdb in {self._folder}, found {len(found)}")
        return found[0]

    def scan(self) -> Iterator[Item]:
        path, database = self._folder / _PAIRS, self._database
        content = checks.read_json(path)
        if not isinstance(content, dict) or not set(content) & set(_SPLITS):
            found = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
            raise UserError(f"expected the splits {', '.join(_SPLITS)} in {path}, found {found}")
        for split, entries in content.items():
            if split not in _SPLITS:
                raise UserError(f"expected splits among {', '.join(_SPLITS)} in {path}, found {split!r}")
            # lists of entries, or entries by name
            for entry in entries.values() if isinstance(entries, dict) else entries:
                if not (isinstance(entry, list) and len(entry) == 3 and isinstance(entry[2], int)):
                    raise UserError(f"expected entries [key, key, frames] in {path}, found {str(entry)[:80]}")
                keys = [Path(str(key)).name for key in entry[:2]]
                matches = [_KEY.match(key) for key in keys]
                people = tuple(match[2] if match else key for match, key in zip(matches, keys))
                name = f"{matches[0][1]}_{people[0]}_{people[1]}" if all(matches) else "__".join(keys)
                relative = str((database / "data.mdb").relative_to(self.source))
                yield Item(name, (relative,), people, _SPLITS[split], about={"keys": keys, "frames": entry[2]})

    @cached_property
    def _values(self):
        """The open database: key -> bytes or None."""
        try:
            import lmdb
        except ImportError:
            raise UserError("reading UniLSTalk needs the package lmdb: pip install 'diffdyad[data]'") from None
        file = checks.require(self._database / "data.mdb")
        try:
            environment = lmdb.open(str(file.parent), readonly=True, lock=False, readahead=False, max_readers=64)
            pages = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        except lmdb.Error as error:
            raise UserError(f"expected an LMDB database in {file}, cannot read it: {error}") from None
        if file.stat().st_size < pages:
            environment.close()
            # a mapped page that is not there would end the process
            raise UserError(f"{file} is cut short: expected {pages} bytes, found {file.stat().st_size}; get it whole")
        self._environment = environment
        return environment.begin()

    def close(self) -> None:
        if "_values" in self.__dict__:
            self._values.abort()
            self._environment.close()
            del self._values

    def load(self, item: Item) -> Recording:
        frames, sides = int(item.about["frames"]), []
        for person, key in zip(item.people, item.about["keys"]):
            where = f"the value of {key}"
            arrays = self._arrays(key)
            code = checks.array_of(arrays, "motioncode", (None, 112), where)
            audio = checks.array_of(arrays, "audio", (None,), where)
            if len(code) < frames:
                raise UserError(f"expected {frames} frames of motioncode as {_PAIRS} says, found {len(code)}: {where}")
            checks.check_rate(len(code), FPS, len(audio) / SAMPLING_RATE, where)
            motion = flame_motion(
                self.expression_basis, FPS, code[:frames, :100],
                **{group: code[:frames, columns] for group, columns in _CODE.items()},
            )  # fmt: skip
            samples = round(frames / FPS * SAMPLING_RATE)
            waveform = np.pad(audio[:samples], (0, max(0, samples - len(audio))))
            sides.append(Side(person, waveform, motion, speech=self._speech(arrays, len(code), len(audio), where)))
        return Recording(sides, frames / FPS)

    def _arrays(self, key: str) -> dict[str, np.ndarray]:
        value = self._values.get(key.encode())
        if value is None:
            raise UserError(f"expected the key {key!r} in {self._database}, found none")
        try:
            with np.load(io.BytesIO(value), allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())[:100]
            raise UserError(f"expected np.savez bytes without pickled objects at {key!r}, found: {reason}") from None

    @staticmethod
    def _speech(arrays: dict[str, np.ndarray], frames: int, samples: int, where: str) -> list[Span]:
        """When this person speaks: the mask has an entry a frame, or a sample."""
        mask = checks.array_of(arrays, "speech_mask", (None,), where)
        for length, rate in ((frames, FPS), (samples, SAMPLING_RATE)):
            if abs(len(mask) - length) <= 0.01 * length + 2:
                return mask_spans(mask > 0.5, rate)
        raise UserError(
            f"expected a speech_mask of {frames} frames or {samples} samples in {where}, found {len(mask)} entries"
        )
