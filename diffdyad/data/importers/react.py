"""REACT 2023 and 2024 (NoXi, RECOLA, UDIVA): 30 s clips of two people, faces as FaceVerse coefficients, sound."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch

from diffdyad import rotation
from diffdyad.data.importers import checks
from diffdyad.data.importers.flame import flame_motion
from diffdyad.data.importers.recording import Importer, Item, Recording, Side
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE

FPS, _RATE = 25.0, 44100
_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_FACES, _SOUNDS, _VIDEOS = "3D_FV_files", "Audio_files", "Video_files"


class REACT(Importer):
    """`[{train,val,test}/]{Video_files,Audio_files,3D_FV_files}/<site>/<session>/<role>/<clip>.{mp4,wav,npy}`.

    npy: FaceVerse (T, 58) or (T, 1, 58) = expression 52, rotation 3, translation 3; 25 fps, 44.1 kHz. FaceVerse's
    expressions have their own order and are no basis of ours: they are kept apart in foreign/, as they are, and the
    exchanges have the head's rotation. Its angles turn about z after y after x, in axes like FLAME's.
    """

    name, title, tracker = "react", "REACT 2023/24", "FaceVerse"
    license = "see the challenge's own terms"
    num_expression = 50
    items_per_shard = 32
    has_videos = True
    expects = f"{_FACES}/ and {_SOUNDS}/ with <site>/<session>/<role>/<clip>, in the folder or in train/, val/, test/"

    def notes(self) -> list[str]:
        if self.options.tracker:
            return ["FaceVerse's rotation and expressions give way to the tracker's; these are kept in foreign/"]
        return ["FaceVerse expressions are kept apart in foreign/; exchanges have the head's rotation, and no face "
                "until the videos in to_track.jsonl are tracked (--tracker)"]  # fmt: skip

    def videos(self, item: Item) -> tuple[str, ...]:
        return tuple(npy.replace(_FACES, _VIDEOS, 1).removesuffix(".npy") + ".mp4" for npy in item.files[::2])

    def scan(self) -> Iterator[Item]:
        for folder in [name for name in _SPLITS if (self.source / name).is_dir()] or ["."]:
            clips: dict[tuple[str, str, str], set[str]] = defaultdict(set)
            for kind, ending in ((_FACES, ".npy"), (_SOUNDS, ".wav")):
                base = self.source / folder / kind
                for path in base.glob(f"*/*/*/*{ending}"):
                    if path.stem.endswith("_full") or path.name.startswith("."):
                        continue  # copies of the same coefficients
                    site, session, role, _ = path.relative_to(base).parts
                    clips[site, session, path.stem].add(role)
            for (site, session, clip), roles in sorted(clips.items()):
                ordered = sorted(roles)
                files = tuple(
                    f"{folder}/{kind}/{site}/{session}/{role}/{clip}{ending}".removeprefix("./")
                    for role in ordered for kind, ending in ((_FACES, ".npy"), (_SOUNDS, ".wav"))
                )  # fmt: skip
                # RECOLA's roles are names of people, the others' are parts that people play in a session
                people = tuple(
                    f"{site}-{role}" if role[1:].isdigit() else f"{site}-{session}-{role}" for role in ordered
                )
                name = f"{folder}/{site}/{session}/{clip}".removeprefix("./")
                yield Item(name, files, people, _SPLITS.get(folder), f"{site}/{session}")

    def load(self, item: Item) -> Recording:
        if len(item.people) != 2:
            raise UserError(f"expected two people in {item.item_id}, found {', '.join(item.people)}")
        sides, lengths = [], []
        for person, npy, wav, video in zip(item.people, item.files[::2], item.files[1::2], self.videos(item)):
            where = self.path(npy)
            array = checks.read_npy(where)
            if array.ndim == 3 and array.shape[1] == 1:
                array = array[:, 0]
            array = checks.check_array(array, (None, 58), str(where))
            waveform = checks.read_wav(self.path(wav), _RATE)
            checks.check_rate(len(array), FPS, len(waveform) / SAMPLING_RATE, where)
            head = head_rotation(array[:, 52:55])
            motion = flame_motion(
                self.expression_basis, FPS, num_expression=self.num_expression, global_orient=head
            )
            foreign = {"expression": array[:, :52], "rotation": array[:, 52:55], "translation": array[:, 55:],
                       "basis": np.array("faceverse"), "fps": np.float64(FPS)}  # fmt: skip
            there = self.path(video).is_file()
            sides.append(Side(person, waveform, motion, video=video if there else "", foreign=foreign))
            lengths.append(len(array))
        return Recording(sides, checks.same_length(*lengths, FPS, item.item_id) / FPS)


def head_rotation(angles: np.ndarray) -> np.ndarray:
    """Angles (T, 3) about x, y and z in radians, x first -> axis-angle (T, 3)."""
    about_x, about_y, about_z = (torch.from_numpy(angles * row).float() for row in np.eye(3))
    return rotation.compose(about_z, rotation.compose(about_y, about_x)).numpy()
